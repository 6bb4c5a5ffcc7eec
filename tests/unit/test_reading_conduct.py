"""Conduct of a central read: load, independence, confirmation, turnaround, windows, charter."""

import re

import pandas as pd
import pytest
from helpers import REPOSITORY

from corelab.reading.charter import NOT_ATTESTED, STATEMENTS, attestation_table
from corelab.reading.conduct import conduct_table, turnaround
from corelab.records.images import ScanRow
from corelab.settings.reading import ReadingSettings
from corelab.settings.report import Attestation
from corelab.study.schema import load_schema

CHECKLIST = (REPOSITORY / "docs" / "guideline_checklist.md").read_text()


def settings(**reading):
    return ReadingSettings.model_validate(reading)


def reads(**columns):
    frame = {
        "participant_id": ["1", "1", "2", "2"],
        "visit": ["a"] * 4,
        "endpoint": ["aspects"] * 4,
        "reader": ["r1", "r2", "r1", "r2"],
        "value": ["8", "8", "7", "7"],
        "read_at": ["2025-01-10T09:00:00Z", "2025-01-11T09:00:00Z"] * 2,
        **columns,
    }
    return pd.DataFrame(frame, dtype=object)


def verdicts(table, check):
    own = table[table["check"] == check]
    return dict(zip(own["who"], own["verdict"], strict=True))


def test_cases_per_day():
    table = conduct_table(reads(), settings(reads_per_day=1))
    assert verdicts(table, "cases per day") == {"r1": "fail", "r2": "fail"}
    table = conduct_table(reads(), settings(reads_per_day=2))
    assert verdicts(table, "cases per day") == {"r1": "pass", "r2": "pass"}
    table = conduct_table(reads(), settings())
    assert set(verdicts(table, "cases per day").values()) == {"not_assessable"}


def test_two_readers_at_one_workstation_are_flagged():
    close = ["2025-01-10T09:00:00Z", "2025-01-10T09:29:00Z", "2025-01-10T10:00:00Z",
             "2025-01-10T12:00:00Z"]  # fmt: skip
    sheet = reads(read_at=close, workstation=["w1"] * 4)
    table = conduct_table(sheet, settings())
    row = table[table["check"] == "readers not at one screen"].iloc[0]
    assert (row["verdict"], row["observed"]) == ("fail", 1) and "1 a" in row["message"]
    apart = reads(read_at=close, workstation=["w1", "w2"] * 2)
    assert set(
        verdicts(conduct_table(apart, settings()), "readers not at one screen").values()
    ) == {"pass"}
    silent = verdicts(conduct_table(reads(), settings()), "readers not at one screen")
    assert silent == {"all": "not_assessable"}


def test_an_investigator_is_no_central_reader():
    check = "readers independent of investigators"
    sheet = reads(role=["reader", "reader", "investigator", "reader"])
    table = conduct_table(sheet, settings())
    assert verdicts(table, check) == {"all": "fail"}
    sheet = reads(role=["reader", "reader", "investigator", "reader"],
                  reader=["r1", "r2", "DrA", "r2"])  # fmt: skip
    assert verdicts(conduct_table(sheet, settings()), check) == {"all": "pass"}


@pytest.mark.parametrize(
    ("columns", "locked_at", "verdict"),
    [
        ({}, "2025-01-11T09:00:00Z", "pass"),  # at the lock is not after it
        ({}, "2025-01-11T08:59:59Z", "fail"),
        ({"confirmed_at": ["2025-01-12"] * 4}, "2025-01-11T09:00:00Z", "fail"),
        ({"read_at": [None] + ["2025-01-01"] * 3}, "2025-01-11T09:00:00Z", "fail"),
        ({}, None, "not_assessable"),
    ],
)
def test_confirmation_comes_before_the_lock(columns, locked_at, verdict):
    table = conduct_table(reads(**columns), settings(locked_at=locked_at))
    assert verdicts(table, "confirmed before the lock") == {"all": verdict}


def test_a_quality_reader_is_asked_for():
    check = "a reader for quality control"
    assert verdicts(conduct_table(reads(), settings()), check) == {"all": "fail"}
    named = settings(quality_readers=["qc1"])
    assert verdicts(conduct_table(reads(), named), check) == {"all": "pass"}


def test_turnaround():
    sheet = reads(received_at=["2025-01-08T09:00:00Z"] * 3 + [None])
    table = turnaround(sheet, {("2", "a"): "2025-01-01T09:00:00Z"}, limit_days=3).set_index("group")
    assert table.loc["reader=r1", ["n", "median_days", "verdict"]].tolist() == [2, 2.0, "pass"]
    assert table.loc["reader=r2", ["n", "longest_days", "verdict"]].tolist() == [2, 10.0, "fail"]
    assert table.loc["all", ["count_within", "n"]].tolist() == [3, 4]
    without = turnaround(reads(), limit_days=3).set_index("group")
    assert without.loc["all", ["n", "without_times", "verdict"]].tolist() == [0, 4, None]
    assert turnaround(None).empty


def scans(*rows):
    return [ScanRow(k, "x.nii", f"{p}{v}{k}", p, v, acquired_at=when) for p, v, k, when in rows]


def test_visit_windows_at_their_edges():
    given = scans(
        ("1", "baseline", "dwi", "2025-01-01"),
        ("1", "day5", "dwi", "2025-01-07"),  # day 6: the last one inside
        ("2", "baseline", "dwi", "2025-01-01"),
        ("2", "day5", "dwi", "2025-01-08"),
        ("3", "day5", "dwi", None),
    )
    windows = settings(visit_windows={"day5": {"from_day": 4, "to_day": 6}})
    table = conduct_table(None, windows, scans=given, baseline="baseline")
    row = table[table["check"] == "visit in its window"].iloc[0]
    assert (row["verdict"], row["observed"]) == ("fail", 1)
    assert "2 on day 7.0" in row["message"] and "1 without times" in row["message"]


def test_a_missing_kind_of_scan_is_named():
    given = scans(
        *((p, v, k, None) for p in "123" for v in ("baseline", "day5") for k in ("dwi", "adc")
          if (p, v, k) != ("3", "day5", "adc"))
    )  # fmt: skip
    row = conduct_table(None, settings(), scans=given).iloc[0]
    assert (row["guideline"], row["verdict"]) == ("C33c", "fail") and "3 day5" in row["message"]


def test_unscheduled_visits_are_kept_and_told(tmp_path):
    import yaml
    from workflow_runs import write_study

    from corelab.study.loading import load_study

    path = write_study(
        tmp_path,
        {"visits": {"order": ["baseline"]}},
        participants="participant_id\n1",
        reads="participant_id|visit|endpoint|reader|value\n1|baseline|aspects|r1|8\n"
        "1|unscheduled|aspects|r1|7",
    )
    study = load_study(yaml.safe_load(path.read_text()))
    assert study.sound and study.visit_order == ("baseline", "unscheduled")
    assert any("not in visits.order" in finding.message for finding in study.findings)


def test_charter_text_that_is_missing_is_named():
    table = conduct_table(reads(), settings())
    silent = table[(table["who"] == "charter") & (table["verdict"] == "fail")]
    assert {"C05", "C16", "C44", "C51", "C53", "C25"} <= set(silent["guideline"])
    full = settings(
        charter={"mode": "prospective", "primary": True, "timing": "retrospective_batch",
                 "criteria": "custom, version 2", "criteria_justification": "annex 3",
                 "quality_failure": "chapter 8"},
        limits={"double_read_agreement_min": 0.7, "adjudicator_agreement_min": 0.4,
                "intra_reader_difference_max": 0.2},
        not_evaluable_reasons=["motion"],
    )  # fmt: skip
    table = conduct_table(reads(), full)
    assert set(table[table["who"] == "charter"]["verdict"]) == {"pass"}


def test_real_time_designs_need_more():
    table = conduct_table(reads(), settings(charter={"timing": "real_time_read"}))
    failed = set(table[table["verdict"] == "fail"]["guideline"])
    assert {"C22", "C45"} <= failed
    batch = conduct_table(reads(), settings(charter={"timing": "retrospective_batch"}))
    assert not {"C22", "C45"} & set(batch["guideline"])


def test_nothing_is_attested_by_the_program():
    table = attestation_table({})
    assert set(table["state"]) == {NOT_ATTESTED} and len(table) == len(STATEMENTS)
    said = attestation_table({"C38": Attestation(by="K. Lee", at="2025-01-07", document="QA-3")})
    row = said.set_index("row").loc["C38"]
    assert row[["state", "by", "at", "document"]].tolist() == [
        "attested", "K. Lee", "2025-01-07", "QA-3"
    ]  # fmt: skip
    pattern = next(iter(load_schema("config")["properties"]["attestations"]["patternProperties"]))
    assert all(re.search(pattern, name) for name in STATEMENTS)


def rows_of_the_checklist():
    return {
        cells[1].strip(): cells
        for cells in (line.split("|") for line in CHECKLIST.splitlines())
        if len(cells) > 4 and re.fullmatch(r"C\d\d[a-z]?", cells[1].strip())
    }


def test_the_checklist_has_every_row():
    numbers = {name[:3] for name in rows_of_the_checklist()}
    assert numbers == {f"C{n:02d}" for n in range(1, 58)}


def test_rows_of_the_checklist_name_tests_that_are_there():
    for name, cells in rows_of_the_checklist().items():
        role, words = cells[3].strip(), cells[4]
        cited = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", words)
        for path, test in cited:
            file = REPOSITORY / path
            assert file.is_file() and f"def {test}(" in file.read_text(), f"{name}: {path}::{test}"
        reason = re.search(
            r"\brows? C\d\d|not (done|checked|recorded)|no column|wording|perfusion gates", words
        )
        if "G" in role or "K" in role:
            assert cited or reason, f"{name} names neither a test nor a reason"
        if "A" in role:
            assert name in STATEMENTS, f"{name} is no attestation"
