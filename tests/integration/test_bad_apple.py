"""One of 20 subjects is broken, at each stage in turn: the others finish, and all say so.

One simulated subject goes through all stages; 19 more are copies of its records under other ids (with
volumes of their own), so that only what is broken, and the tables of the study, are computed again.
"""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from helpers import REPOSITORY
from workflow_runs import snakemake, write_study

from corelab.phantom.design import TrialSpec
from corelab.phantom.trial import write_sheets

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PEOPLE = [f"p{n:02d}" for n in range(1, 21)]
BAD, OTHER = "p07", "p12"
KINDS = ("dwi", "adc", "ctp")
STAGES = ("prepare", "segment", "perfuse", "normalise", "measure")
COMMAND = (
    *("--snakefile", str(REPOSITORY / "Snakefile")),
    *("--workflow-profile", str(REPOSITORY / "profiles" / "default")),
)


def record_of(results, person, stage):
    folder = results / "derivatives" / f"sub-{person}"
    return folder / ("" if stage in ("normalise", "measure") else "ses-baseline") / f"{stage}.json"


def factor(person):
    """How much larger a copy's volumes are; those that are computed again keep their own."""
    return 1.0 if person in (BAD, OTHER) else 0.5 + 0.1 * int(person[1:])


def first_subject(folder):
    """The subject p01 of a simulated trial, through all stages; its results folder and scans."""
    write_sheets(TrialSpec.testing(), folder)
    scans = pd.read_csv(folder / "scans.tsv", sep="\t", dtype=str, keep_default_na=False)
    kept = scans[
        (scans["participant_id"] == "001")
        & (scans["visit"] == "baseline")
        & scans["kind"].isin(KINDS)
    ]
    kept.to_csv(folder / "scans.tsv", sep="\t", index=False)
    people = pd.read_csv(folder / "participants.tsv", sep="\t", dtype=str, keep_default_na=False)
    people[people["participant_id"] == "001"].to_csv(
        folder / "participants.tsv", sep="\t", index=False
    )
    simulated = {
        "study": {"id": "simulated"},
        "results_dir": str(folder / "results"),
        "inputs": {n: str(folder / f"{n}.tsv") for n in ("participants", "scans")},
        "phantom": {"trial": "stroke", "flavour": "testing"},
    }
    (folder / "simulated.yaml").write_text(yaml.safe_dump(simulated))
    done = snakemake(
        *COMMAND, "--configfile", str(folder / "simulated.yaml"), "--", "phantom", cwd=folder
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return dict(zip(kept["kind"], kept["path"], strict=True)), folder / "results/simulated/phantom"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Twenty subjects through all stages, and the statistics of them all."""
    folder = tmp_path_factory.mktemp("apples")
    paths, source = first_subject(folder / "one")
    data = folder / "data"
    rows = ["participant_id|visit|kind|path"]
    for person in PEOPLE:
        (data / person).mkdir(parents=True)
        for kind in KINDS:
            target = data / person / f"{kind}.nii.gz"
            scan = source / paths[kind]
            shutil.copy2(scan, target)
            beside = scan.with_name(scan.name.replace(".nii.gz", ".json"))
            if beside.is_file():
                shutil.copy2(beside, target.with_name(f"{kind}.json"))
            rows.append(f"{person}|baseline|{kind}|{target}")
    reads = ["participant_id|visit|endpoint|reader|value|unit"]
    reads += [f"{p}|baseline|infarct_volume|r1|{20 * factor(p):.3f}|mL" for p in PEOPLE]
    config = {
        "study": {"id": "apples"},
        "results_dir": "results",
        "visits": {"order": ["baseline"], "baseline": "baseline"},
        "registration": {"preset": "testing", "figures": False},
        "analyses": [
            {
                **{"id": "reader", "type": "agreement", "endpoint": "infarct_volume"},
                **{"sources": ["pipeline", "r1"], "resamples": 50},
            }
        ],
    }
    config_path = write_study(
        folder,
        config,
        participants="participant_id\n" + "\n".join(PEOPLE),
        scans="\n".join(rows),
        reads="\n".join(reads),
    )
    results = folder / "results" / "apples"
    measured = record_of(results, "p01", "measure").relative_to(folder)
    done = snakemake(*COMMAND, "--configfile", str(config_path), "--", str(measured), cwd=folder)
    assert done.returncode == 0, done.stdout[-6000:]
    for person in PEOPLE[1:]:
        copy_of(results, person)
    ran = run(folder, config_path, "--", "statistics")
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert "prepare" not in {line.split()[0] for line in ran.stdout.splitlines() if line.split()}
    shutil.copytree(results, folder / "whole")
    return folder, config_path, results


def copy_of(results, person):
    """The stages of p01 under another id; volumes by the person's factor."""
    source = results / "derivatives" / "sub-p01"
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        name = path.relative_to(results).as_posix().replace("p01", person)
        target = results / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".json":
            shutil.copy2(path, target)
            continue
        content = json.loads(path.read_text().replace("p01", person))
        if path.name == "measure.json":
            for row in content["rows"]:
                if row["unit"] == "mL" and row["value"] is not None:
                    row["value"] *= factor(person)
        target.write_text(json.dumps(content, indent=2))
    # Each stage newer than the one before, whatever the order of the copies.
    for stage in STAGES:
        record = record_of(results, person, stage)
        moment = record_of(results, "p01", stage).stat().st_mtime
        os.utime(record, (moment, moment))


def run(folder, config, *more):
    return snakemake(*COMMAND, "--configfile", str(config), *more, cwd=folder)


def restored(folder, results):
    """The whole cohort again, as it was."""
    shutil.rmtree(results)
    shutil.copytree(folder / "whole", results)


def statistics(results):
    return pd.read_csv(results / "statistics" / "agreement.tsv", sep="\t", dtype=str)


def sizes(results):
    """The numbers of subjects that the statistics say, apart from those of incomplete readings.

    The reader has read the broken subject too. Statistics that use incomplete readings keep that
    reading, and must say so.
    """
    rows = statistics(results).dropna(subset="n")
    words = rows[["method", "note"]].fillna("").agg(" ".join, axis=1)
    return {int(n) for n in rows.loc[~words.str.contains("39 of 40 readings of 20 targets"), "n"]}


def break_stage(results, stage):
    """Take a stage of one subject away, and put a folder where it is to write."""
    if stage == "measure":
        path = record_of(results, BAD, "normalise")
        path.write_text(path.read_text()[:200])
        blocker = None
    else:
        products = json.loads(record_of(results, BAD, stage).read_text())["products"]
        blocker = results / sorted(p for p in products if p.endswith((".nii.gz", ".mat")))[0]
        blocker.unlink()
        blocker.mkdir()
    for later in STAGES[STAGES.index(stage) :]:
        record_of(results, BAD, later).unlink()
    record_of(results, OTHER, "measure").unlink()
    # As long as its tables are there, Snakemake does not miss a record.
    for name in ("endpoints", "statistics", "exhibits"):
        shutil.rmtree(results / name)
    return blocker


def test_the_cohort_is_whole(cohort):
    assert sizes(cohort[2]) == {20}


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_fails_takes_nobody_with_it(cohort, stage):
    folder, config, results = cohort
    restored(folder, results)
    break_stage(results, stage)
    failed = run(folder, config, "--", "statistics")
    assert failed.returncode != 0
    assert record_of(results, OTHER, "measure").is_file(), "another subject was to be finished"
    output = failed.stdout[failed.stdout.rindex("not done or not usable:") :]
    assert f"sub-{BAD}" in output and f"{stage}: " in output and f"logs/{stage}/" in output
    assert not any(f"sub-{person}" in output for person in PEOPLE if person != BAD)
    cause = next(line for line in output.splitlines() if f", {stage}: " in line).split(": ", 1)[1]
    (command,) = {
        line.split("retry: ")[1]
        for line in output.splitlines()
        if "retry: " in line and f"{stage}.json" in line
    }
    # `status` says the same later, from what lies on disk.
    status = run(folder, config, "--", "status").stdout
    assert cause in status and command in status
    # Without the broken one: every statistic says 19, and its rows say why.
    done = run(folder, config, "--config", "without_failed=true", "--", "statistics")
    assert done.returncode == 0, done.stdout[-6000:]
    assert sizes(results) == {19}
    table = pd.read_csv(results / "endpoints/measurements.tsv", sep="\t", dtype=str)
    mine = table[(table["participant_id"] == BAD) & (table["source"] == "pipeline")]
    assert set(mine["status"]) == {"failed"} and mine["reason"].str.contains(stage).all()
    others = table[(table["participant_id"] != BAD) & (table["source"] == "pipeline")]
    assert (others["status"] == "ok").all() and others["participant_id"].nunique() == 19


def test_the_command_that_was_told_mends_it(cohort):
    """Cause mended, command pasted: the study is as if nothing had been."""
    folder, config, results = cohort
    restored(folder, results)
    blocker = break_stage(results, "segment")
    output = run(folder, config, "--", "statistics").stdout
    blocker.rmdir()
    command = next(
        line.split("retry: snakemake ")[1]
        for line in output.splitlines()
        if "retry: snakemake " in line and "segment.json" in line
    )
    again = subprocess.run(
        f"{sys.executable} -m snakemake --snakefile {REPOSITORY}/Snakefile {command}",
        cwd=folder, shell=True, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-4000:]
    assert run(folder, config, "--", "statistics").returncode == 0
    for name in ("statistics/agreement.tsv", "endpoints/measurements.tsv"):
        assert (results / name).read_bytes() == (folder / "whole" / name).read_bytes(), name


def test_damaged_scans_are_no_failure_of_a_job(cohort):
    """Without DWI and ADC there is no infarct; with the ADC alone there would be one."""
    folder, config, results = cohort
    restored(folder, results)
    shutil.rmtree(results / "endpoints")
    scans = [folder / "data" / BAD / f"{kind}.nii.gz" for kind in ("dwi", "adc")]
    whole = [scan.read_bytes() for scan in scans]
    try:
        for scan, content in zip(scans, whole, strict=True):
            scan.write_bytes(content[: len(content) // 2])
        done = run(folder, config, "--", "statistics")
        assert done.returncode == 0, done.stdout[-6000:]
        assert sizes(results) == {19}
        status = run(folder, config, "--", "status").stdout
        assert f"{BAD} baseline, prepare: " in status and "truncated" in status
        flow = (results / "endpoints" / "flow.tsv").read_text()
        assert "truncated" in flow
    finally:
        for scan, content in zip(scans, whole, strict=True):
            scan.write_bytes(content)
