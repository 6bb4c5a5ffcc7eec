"""What reruns, and what does not: on a study of tables, in a copy of the repository."""

import os
import time

import pytest
from helpers import clear_digest_caches
from workflow_runs import jobs, snakemake, write_study

from corelab.provenance import digest

pytestmark = pytest.mark.integration
NOTHING = "Nothing to be done"


@pytest.fixture(scope="module")
def finished(tables_run):
    """A copy of the repository and a study in it that ran to the end."""
    return tables_run.repository, tables_run.config, tables_run.log


def dry(finished, *more):
    repository, config, _ = finished
    result = snakemake("-n", "--configfile", str(config), *more, cwd=repository)
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout


#: What a rule's product is an input of, in a study of tables.
FOLLOWS = {
    "check_inputs": {"preflight", "report", "printed_report", "submission"},
    "preflight": set(),
    "collect": {
        "analyse",
        "draw",
        "certificate",
        "cohort_flow",
        "quality",
        "trace_table",
        "report",
        "printed_report",
        "submission",
        "sensitivity",
        "manifest",
    },
    "measure_phantoms": {"quality", "report", "printed_report", "submission", "manifest"},
    "quality": {"report", "printed_report", "submission", "manifest"},
    "analyse": {"draw", "statistics_tables"},
    "draw": {"report", "printed_report"},
    "cohort_flow": {"report", "printed_report"},
    "failures": {"report", "printed_report"},
    "plan": {"report", "printed_report"},
    "specifications_table": {"report", "printed_report"},
    "statistics_tables": {
        "certificate",
        "report",
        "printed_report",
        "submission",
        "sensitivity",
        "manifest",
    },
    "sensitivity": {"report", "printed_report", "submission"},
    "certificate": {"report", "printed_report", "submission", "manifest"},
    "report": {"manifest"},
    "printed_report": {"manifest"},
    "submission": {"manifest"},
    "trace_table": {"report", "manifest"},
    "manifest": {"verified"},
    "verified": set(),
}


def with_followers(rules):
    """The rules and everything that is made from their products."""
    found, waiting = set(), list(rules)
    while waiting:
        rule = waiting.pop()
        if rule not in found:
            found.add(rule)
            waiting.extend(FOLLOWS[rule])
    return found


def test_the_end_of_the_run_says_where_the_results_are(finished):
    assert "report/index.html" in finished[2]


def test_second_run_has_nothing_to_do(finished):
    assert NOTHING in dry(finished)


def test_touching_all_files_reruns_nothing(finished):
    repository, config, _ = finished
    later = time.time() + 5
    for base in (repository, config.parent):
        for file in base.rglob("*"):
            if file.is_file() and not {".snakemake", "results"} & set(file.parts):
                os.utime(file, (later, later))
    assert NOTHING in dry(finished)


def test_a_library_edit_reruns_exactly_the_rules_that_use_it(finished):
    """One edit after the other; what the one before had left would be planned with the next."""
    repository, _, _ = finished
    scripts = repository / "workflow" / "scripts"
    for module in ("agreement/icc.py", "measurement/longitudinal.py", "study/columns.py"):
        file = scripts / "corelab" / module
        kept = file.read_bytes()
        clear_digest_caches()
        rules = {rule: digest._modules_of(scripts / f"{rule}.py", scripts) for rule in FOLLOWS}
        using = {rule for rule, modules in rules.items() if file in set(modules)}
        assert using and using != set(FOLLOWS)
        file.write_bytes(kept + b"\n# an edit\n")
        try:
            planned = set(jobs(dry(finished))) - {"all"}
            # The manifest holds the digests of all rules.
            assert planned == with_followers(using | {"manifest"}), module
        finally:
            file.write_bytes(kept)
    assert NOTHING in dry(finished)


@pytest.mark.parametrize(
    ("sheet", "rerun", "kept"),
    [
        ("exposures", {"check_inputs"}, {"analyse", "collect"}),
        ("outcomes", {"check_inputs", "analyse"}, {"collect"}),
        ("reads", {"check_inputs", "collect", "analyse"}, {"prepare"}),
    ],
)
def test_a_sheet_edit_reruns_only_what_reads_it(finished, sheet, rerun, kept):
    _, config, _ = finished
    path = config.parent / f"{sheet}.tsv"
    text = path.read_text()
    # The last digit of the last value.
    lines = text.splitlines()
    cells = lines[-1].split("\t")
    place = lines[0].split("\t").index("value")
    cells[place] = cells[place][:-1] + str((int(cells[place][-1]) + 1) % 10)
    path.write_text("\n".join([*lines[:-1], "\t".join(cells)]) + "\n")
    try:
        planned = jobs(dry(finished))
        assert rerun <= set(planned), planned
        assert not kept & set(planned), planned
        if sheet == "outcomes":
            assert planned["analyse"] == 1
    finally:
        path.write_text(text)


def test_verify_notices_one_changed_byte(finished):
    repository, config, _ = finished
    table = config.parent / "results" / "tables" / "endpoints" / "measurements.tsv"
    kept = table.read_bytes()
    good = snakemake("--configfile", str(config), "--", "verify", cwd=repository)
    assert good.returncode == 0, good.stdout
    table.write_bytes(kept.replace(b"0", b"1", 1))
    try:
        bad = snakemake("--configfile", str(config), "--", "verify", cwd=repository)
        assert bad.returncode != 0
        assert "different  endpoints/measurements.tsv" in bad.stdout
        assert "First cause: endpoints/measurements.tsv" in bad.stdout
    finally:
        table.write_bytes(kept)


def test_trace_prints_the_chain_of_a_number(finished):
    repository, config, _ = finished
    table = config.parent / "results" / "tables" / "endpoints" / "measurements.tsv"
    row_id = table.read_text().splitlines()[1].split("\t")[11]
    output = snakemake(
        "--configfile", str(config), "--config", f"row={row_id}", "--", "trace", cwd=repository
    )
    assert output.returncode == 0 and "software" in output.stdout and "value=" in output.stdout
    wrong = snakemake(
        "--configfile", str(config), "--config", "row=r-none", "--", "trace", cwd=repository
    )
    assert wrong.returncode != 0 and "no number 'r-none'" in wrong.stdout


def test_status_and_compare_speak(finished):
    repository, config, _ = finished
    results = config.parent / "results" / "tables"
    assert (
        "0 things to look at"
        in snakemake("--configfile", str(config), "--", "status", cwd=repository).stdout
    )
    output = snakemake(
        "--configfile",
        str(config),
        "--config",
        f"compare_with={results}",
        "--",
        "compare",
        cwd=repository,
    ).stdout
    assert "same" in output and "different;" not in output


def test_outputs_are_those_of_the_contract(finished):
    _, config, _ = finished
    results = config.parent / "results" / "tables"
    for name in (
        "preflight/findings.tsv",
        "endpoints/measurements.tsv",
        "endpoints/measurements.json",
        "endpoints/acquisition.tsv",
        "endpoints/flow.tsv",
        "statistics/agreement.tsv",
        "statistics/overlap.tsv",
        "statistics/pharmacodynamics.tsv",
        "statistics/survival.tsv",
        "statistics/radiomics.tsv",
        "statistics/phantom.tsv",
        "report/index.html",
        "report/report.pdf",
        "verification/certificate.tsv",
        "provenance/manifest.json",
        "provenance/trace.tsv",
        "provenance/ro-crate-metadata.json",
    ):
        assert (results / name).is_file(), name
    header = [
        "analysis_id",
        "population",
        "endpoint",
        "visit",
        "participant_id",
        "group",
        "statistic",
        "estimate",
        "ci_low",
        "ci_high",
        "ci_level",
        "p_value",
        "n",
        "method",
        "second_estimate",
        "second_method",
        "note",
    ]
    lines = (results / "statistics" / "survival.tsv").read_text().splitlines()
    assert lines[0].split("\t")[: len(header)] == header and len(lines) == 1
    # Nothing is written beside the inputs.
    assert {p.name for p in config.parent.iterdir()} == {
        "config.yaml",
        "participants.tsv",
        "reads.tsv",
        "measurements.tsv",
        "outcomes.tsv",
        "exposures.tsv",
        "results",
    }


def test_preflight_stops_before_anything_is_computed(tmp_path, finished):
    repository, _, _ = finished
    config = write_study(
        tmp_path / "bad",
        {},
        participants="participant_id|arm\n1|a\n1|b",
        reads="participant_id|visit|endpoint|reader|value\n3|v|infarct_volume|r|x",
    )
    done = snakemake("--configfile", str(config), cwd=repository)
    assert done.returncode != 0
    results = tmp_path / "bad" / "results" / "s"
    findings = (results / "preflight" / "findings.tsv").read_text()
    assert findings.count("\nerror\t") + findings.startswith("error") >= 3
    assert "listed 2 times" in done.stdout and "Remedy" in done.stdout
    assert not (results / "endpoints").exists()


def older(path, text):
    """Other content with an older time, as `cp -p` and restored backups leave it."""
    times = path.stat()
    path.write_text(text)
    os.utime(path, (times.st_atime - 864_000, times.st_mtime - 864_000))


def changed_value(path):
    """The text of a sheet with another last digit of its last value."""
    lines = path.read_text().splitlines()
    cells = lines[-1].split("\t")
    place = lines[0].split("\t").index("value")
    cells[place] = cells[place][:-1] + str((int(cells[place][-1]) + 1) % 10)
    return "\n".join([*lines[:-1], "\t".join(cells)]) + "\n"


def test_a_fresh_clone_and_a_restored_sheet_rerun_nothing(finished):
    _, config, _ = finished
    for sheet in config.parent.glob("*.tsv"):
        content = sheet.read_bytes()
        sheet.unlink()
        sheet.write_bytes(content)
    first = dry(finished)
    assert NOTHING in first and "Reading 5 input files whose size or time" in first
    again = dry(finished)
    assert NOTHING in again and "Reading" not in again  # what was found is kept


def test_other_content_with_an_older_time_reruns_what_reads_it(finished):
    repository, config, _ = finished
    path = config.parent / "outcomes.tsv"
    kept = path.read_text()
    older(path, changed_value(path))
    try:
        planned = jobs(dry(finished))
        assert planned["analyse"] == 1 and "check_inputs" in planned
        assert not {"collect", "prepare"} & set(planned)
        output = snakemake("--configfile", str(config), "--", "verify", cwd=repository)
        assert output.returncode != 0
        assert f"changed    {path} since it was read by" in output.stdout
        done = snakemake("--configfile", str(config), "--", "statistics", cwd=repository)
        assert done.returncode == 0, done.stdout[-3000:]
        assert f"Inputs whose content has changed since they were read: {path} (1)" in done.stdout
        assert NOTHING in dry(finished, "--", "statistics")
    finally:
        older(path, kept)
    # The report was not made from the other content, so the tables are all there is to restore.
    back = snakemake("--configfile", str(config), "--", "statistics", cwd=repository)
    assert back.returncode == 0 and jobs(back.stdout)["analyse"] == 1
    output = snakemake("--configfile", str(config), "--", "verify", cwd=repository)
    assert output.returncode == 0, output.stdout
    assert "5 of 5 inputs are as they were read" in output.stdout
