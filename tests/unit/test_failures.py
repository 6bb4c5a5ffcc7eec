"""The list of failures: complete, with a command that works, and the same on every machine."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from corelab.provenance.exhibits import read_exhibits
from corelab.provenance.failures import _failure_rows, write_failures
from corelab.provenance.ledger import Failure
from corelab.provenance.products import read_table, write_json

PREPARE = "derivatives/sub-1/ses-a/prepare.json"
NORMALISE = "derivatives/sub-2/normalise.json"
BATCH = "endpoints/batches/0000.json"


def _records(study: Path) -> list[str]:
    scan = {"scan_id": "x/dwi.nii.gz", "status": "failed", "reason": "truncated\n after 3 MB"}
    sound = {"scan_id": "x/adc.nii.gz", "status": "ok", "reason": None}
    mask = {"participant_id": "3", "visit": "b", "scan_id": "m.nii", "status": "failed"}
    contents = {
        PREPARE: {
            "stage": "prepare", "participant_id": "1", "visit": "a", "scans": [scan, sound],
        },
        NORMALISE: {
            "stage": "normalise", "participant_id": "2", "status": "failed", "reason": "no brain",
        },
        BATCH: {"stage": "measure_supplied", "scans": [{**mask, "reason": "empty file"}]},
    }  # fmt: skip
    for name, content in contents.items():
        write_json(content, study / name)
    return [(study / name).as_posix() for name in contents]


def _stopped(study: Path) -> Failure:
    return Failure(
        "4", "a", "segment", f"OSError: no space left on '{study.absolute()}/x.nii' (disk)",
        f"{study.as_posix()}/logs/segment/sub-4_ses-a.log",
        f"{study.as_posix()}/derivatives/sub-4/ses-a/segment.json",
    )  # fmt: skip


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path("results/demo")


def test_every_failure_has_who_step_cause_log_and_command(study):
    rows = _failure_rows(study, _records(study), [_stopped(study)]).to_dict("records")
    assert [(r["participant_id"], r["visit"], r["step"]) for r in rows] == [
        ("4", "a", "segment"), ("1", "a", "prepare"), ("2", "", "normalise"),
        ("3", "b", "measure_supplied"),
    ]  # fmt: skip
    assert [r["cause"] for r in rows][1:] == [
        "x/dwi.nii.gz: truncated after 3 MB", "no brain", "m.nii: empty file",
    ]  # fmt: skip
    assert [r["log"] for r in rows] == [
        "logs/segment/sub-4_ses-a.log", "logs/prepare/sub-1_ses-a.log",
        "logs/normalise/sub-2.log", "logs/measure_supplied/0000.log",
    ]  # fmt: skip
    command = shlex.split(rows[1]["retry"])
    assert command[command.index("--configfile") + 1] == "results/demo/provenance/config.json"
    assert command[-2:] == ["--", f"results/demo/{PREPARE}"]
    # A step that ended well is up to date for Snakemake: only --force repeats it.
    assert "--force" in command
    # A visit that the run went on without is a target again only when it is taken back in.
    assert "without_failed=false" in shlex.split(rows[0]["retry"])


def test_the_list_is_the_same_wherever_the_study_lies(study, tmp_path):
    written = []
    for place in (Path("results/demo"), tmp_path / "one" / "demo", tmp_path / "two" / "x" / "demo"):
        table, exhibit = place / "quality" / "failures.tsv", place / "exhibits" / "failures.json"
        write_failures(place, _records(place), [_stopped(place)], table, exhibit)
        text = table.read_text(encoding="utf-8")
        assert str(tmp_path) not in text and "'x.nii'" in text
        written.append((text, exhibit.read_text(encoding="utf-8")))
    # An absolute results folder is named by a word that a person replaces.
    assert written[1] == written[2]
    replaced = [text.replace("THIS_FOLDER", "results/demo") for text in written[1]]
    assert replaced[0] == written[0][0]


def test_the_exhibit_tells_of_failed_jobs_and_of_none(study):
    table, exhibit = study / "quality" / "failures.tsv", study / "exhibits" / "failures.json"
    write_failures(study, _records(study), [_stopped(study)], table, exhibit)
    (shown,) = read_exhibits(study)
    assert shown.section == "failures" and shown.table == "quality/failures.tsv"
    assert [(a.severity, a.subjects) for a in shown.alarms] == [("error", ("4",))]
    shutil.rmtree(study / "derivatives")
    write_failures(study, [], [], table, exhibit)
    (shown,) = read_exhibits(study)
    assert read_table(table).empty and shown.alarms == ()
    assert shown.caption == "Every scan was read and every job was done."
