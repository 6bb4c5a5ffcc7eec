"""The jobs that a study asks for, exactly, from a dry run."""

import re
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY
from workflow_runs import jobs, snakemake, tables_study, write_study

from corelab.provenance import ledger

ALWAYS = {"check_inputs": 1, "preflight": 1}
COHORT = {
    "collect": 1,
    "measure_phantoms": 1,
    "quality": 1,
    "statistics_tables": 1,
    "plan": 1,
    "cohort_flow": 1,
    "specifications_table": 1,
    "sensitivity": 1,
    "certificate": 1,
    "failures": 1,
    "report": 1,
    "printed_report": 1,
    "submission": 1,
    "trace_table": 1,
    "manifest": 1,
    "verified": 1,
    "all": 1,
}


@pytest.fixture
def files(tmp_path):
    """Names of images that are there (their content is not read while jobs are planned)."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not read here")
        return tmp_path

    return make


def test_tables_only(tmp_path):
    output = snakemake("-n", "--configfile", str(tables_study(tmp_path))).stdout
    assert jobs(output) == {**ALWAYS, **COHORT, "analyse": 1, "draw": 1}


def test_participants_alone(tmp_path):
    config = write_study(tmp_path, {}, participants="participant_id\n007")
    assert jobs(snakemake("-n", "--configfile", str(config)).stdout) == {**ALWAYS, **COHORT}


def test_perfusion_at_one_of_two_visits_and_a_missing_visit(tmp_path, files):
    files("a_adc.nii.gz", "a_dwi.nii.gz", "a_ctp.nii.gz", "b_dwi.nii.gz", "c_adc.nii.gz")
    config = write_study(
        tmp_path,
        {"study": {"id": "s"}},
        participants="participant_id\n007\n008",
        scans="""participant_id|visit|kind|path
                 007|baseline|adc|a_adc.nii.gz
                 007|baseline|dwi|a_dwi.nii.gz
                 007|baseline|ctp|a_ctp.nii.gz
                 007|day5|dwi|b_dwi.nii.gz
                 008|baseline|adc|c_adc.nii.gz""",
    )
    assert jobs(snakemake("-n", "--configfile", str(config)).stdout) == {
        **ALWAYS,
        **COHORT,
        "prepare": 3,
        "segment": 3,
        "perfuse": 1,
        "normalise": 2,
        "measure": 2,
        "frequency_map": 3,
        "perfusion_cutoffs": 1,
        "quality_figures": 2,
        "contact_sheet": 1,
        "first_page": 1,
    }


def test_supplied_masks_are_measured_in_batches(tmp_path, files):
    names = [f"m{n:03d}.nii.gz" for n in range(90)]
    files(*names)
    rows = "\n".join(f"{n:03d}|v|mask-infarct|{name}|MNI152" for n, name in enumerate(names))
    config = write_study(
        tmp_path,
        {},
        participants="participant_id\n" + "\n".join(f"{n:03d}" for n in range(90)),
        scans="participant_id|visit|kind|path|space\n" + rows,
    )
    assert jobs(snakemake("-n", "--configfile", str(config)).stdout) == {
        **ALWAYS,
        **COHORT,
        "measure_supplied": 3,
        "frequency_map": 1,
    }


def test_recovery_plants_into_the_scans_that_a_segmenter_serves(tmp_path, files):
    files("a_dwi.nii.gz", "a_t1.nii.gz", "b_ct.nii.gz", "c_t1.nii.gz")
    sheets = {
        "participants": "participant_id\n1\n2\n3",
        "scans": """participant_id|visit|kind|path
                    1|v|dwi|a_dwi.nii.gz
                    1|v|T1w|a_t1.nii.gz
                    2|v|ncct|b_ct.nii.gz
                    3|v|T1w|c_t1.nii.gz""",
    }
    config = write_study(tmp_path, {"study": {"id": "s"}}, **sheets)
    planned = {**ALWAYS, "recovery_summary": 1, "recovery": 1}
    output = snakemake("-n", "--configfile", str(config), "--", "recovery").stdout
    assert jobs(output) == {**planned, "prepare": 2, "plant_lesions": 2}
    # Named subjects alone; one without such a scan gets a row that says so.
    chosen = {"recovery": {"subjects": ["3"], "report": True}}
    config = write_study(tmp_path, {"study": {"id": "s"}, **chosen}, **sheets)
    output = snakemake("-n", "--configfile", str(config), "--", "recovery").stdout
    assert jobs(output) == {**planned, "prepare": 1, "plant_lesions": 1}
    assert jobs(snakemake("-n", "--configfile", str(config)).stdout)["recovery_summary"] == 1
    config = write_study(tmp_path, {"recovery": {"subjects": ["4"]}}, **sheets)
    result = snakemake("-n", "--configfile", str(config), "--", "recovery")
    assert "no participant with scans has this id" in result.stdout


def test_an_absent_file_does_not_stop_the_others(tmp_path, files):
    files("a.nii.gz")
    config = write_study(
        tmp_path,
        {},
        participants="participant_id\n1\n2",
        scans="""participant_id|visit|kind|path
                 1|v|adc|a.nii.gz
                 2|v|adc|gone.nii.gz""",
    )
    result = snakemake("-n", "--configfile", str(config))
    assert result.returncode == 0
    assert jobs(result.stdout)["prepare"] == 2


@pytest.mark.parametrize("dry_run", ["-n", "-np", "--dry-run"])
def test_a_dry_run_of_an_unsound_study_says_so_last_and_fails(tmp_path, dry_run):
    config = write_study(tmp_path, {}, participants="participant_id|arm\n1|a\n1|b")
    done = snakemake(dry_run, "--configfile", str(config))
    assert done.returncode != 0
    assert "listed 2 times with the arms a and b" in done.stdout
    # Snakemake adds where in the rules the message comes from.
    assert "nothing would be computed" in "".join(done.stdout.strip().splitlines()[-2:])


def test_keys_given_twice_stop_the_start(tmp_path):
    config = write_study(tmp_path, {}, participants="participant_id\n1")
    config.write_text(config.read_text() + "grades: {a: [x, y]}\ngrades: {b: [x, y]}\n")
    done = snakemake("-n", "--configfile", str(config))
    assert done.returncode != 0 and "the key is given twice" in done.stdout


def test_an_unknown_key_is_an_error_with_the_likely_one(tmp_path):
    config = write_study(tmp_path, {"regstration": {}}, participants="participant_id\n1")
    result = snakemake("-n", "--configfile", str(config))
    assert result.returncode != 0
    assert "regstration" in result.stdout and "did you mean 'registration'?" in result.stdout


def test_minimal_config_takes_no_key_of_the_demo(tmp_path):
    config = write_study(tmp_path, {"study": {"id": "own"}}, participants="participant_id\n1")
    output = snakemake("-n", "--configfile", str(config), "--", "statistics").stdout
    assert not [name for name in jobs(output) if name.startswith(("analyse", "simulate_"))]


def test_from_another_directory_and_through_the_shim(tmp_path):
    config = tables_study(tmp_path / "study")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for snakefile in (REPOSITORY / "Snakefile", REPOSITORY / "workflow" / "Snakefile"):
        output = snakemake(
            "-n", "--snakefile", str(snakefile), "--configfile", str(config), cwd=elsewhere
        ).stdout
        assert jobs(output)["analyse"] == 1, output


@pytest.mark.parametrize(
    "targets",
    [
        "preflight images endpoints statistics report submission phantom index",
        # They read results and compute nothing, so a run treats each alone.
        *("status", "compare", "trace", "verify"),
    ],
)
def test_each_target_can_be_asked_for(tmp_path, targets):
    config = tables_study(tmp_path)
    result = snakemake("-n", "--configfile", str(config), "--", *targets.split())
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("config", ["config/config.yaml", "config/glioblastoma/config.yaml"])
def test_all_asks_again_for_an_output_of_every_job(config, tmp_path):
    """A file that was set aside has to come back, also where its successors are there."""

    def planned():
        messages = snakemake(
            *("-n", "--quiet", "host", "--configfile", config),
            *("--config", f"results_dir={tmp_path}"),
        ).stdout
        blocks = re.split(r"(?m)^(?:Job \d+: |(?:local)?rule )", messages)[1:]
        (asked,) = (re.search(r"input: (.*)", block)[1] for block in blocks if block[:4] == "all:")
        return set(asked.split(", ")), {
            block.splitlines()[0]: set(
                re.split(", |; ", re.search(r"Missing output files: (.*)", block)[1])
            )
            for block in blocks
            if block[:4] != "all:"
        }

    asked, made = planned()
    assert len(made) > 75 and any(asked.isdisjoint(files) for files in made.values())
    (passed,) = (path for path in asked if path.endswith("preflight/passed.json"))
    study = Path(passed).parents[1]
    ledger.quarantine(set().union(*made.values()), study)
    asked, again = planned()
    assert made.keys() == again.keys()
    assert [job for job, files in made.items() if asked.isdisjoint(files)] == []


MODULE = """
configfile: {config!r}

module corelab:
    snakefile: {snakefile!r}
    config: config
    {prefix}

use rule * from corelab as corelab_*

rule report:
    input: "note.txt"

rule tables:
    default_target: True
    input: rules.corelab_statistics.input
"""


def _as_module(folder, config, prefix=""):
    """Plan a study from another repository that uses Corelab as a Snakemake module."""
    text = MODULE.format(
        config=str(config), snakefile=str(REPOSITORY / "workflow" / "Snakefile"), prefix=prefix
    )
    (folder / "Snakefile").write_text(text)
    return snakemake("-n", cwd=folder)


def test_another_workflow_uses_it_as_a_module(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    done = _as_module(other, tables_study(tmp_path / "study"))
    assert done.returncode == 0, done.stdout
    found = jobs(done.stdout)
    assert found["corelab_analyse"] == 1 and found["corelab_collect"] == 1 and found["tables"] == 1


def test_prefix_of_a_module_is_refused_with_what_to_give_instead(tmp_path):
    config = tables_study(tmp_path / "study")
    absolute = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(absolute | {"results_dir": "results"}))
    done = _as_module(tmp_path, config, 'prefix: "elsewhere"')
    assert done.returncode != 0 and "give `results_dir` in the config" in done.stdout


def test_a_run_leaves_the_locks_of_another_in_the_same_folder(tmp_path):
    """Snakemake would remove them all at its end, also while another run writes its own."""
    lock = REPOSITORY / ".snakemake" / "locks" / "999.output.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("results/of/another/run.tsv\n")
    try:
        done = snakemake("--configfile", str(tables_study(tmp_path)), "--", "preflight")
        assert done.returncode == 0, done.stdout[-3000:]
        assert lock.is_file()
    finally:
        lock.unlink(missing_ok=True)
