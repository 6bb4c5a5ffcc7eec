"""Every criterion of the imaging charter: breaking one flags exactly that one."""

from __future__ import annotations

import copy

import pytest

from corelab.imaging.acquisition import (
    FIELDS,
    QUANTITIES,
    acquisition_rows,
    charter,
    lossless_row,
)
from corelab.measurement.schedule import trial_rows
from corelab.settings.acquisition import AcquisitionSettings, TrialCriteria

#: Values of a sound scan, and limits on both sides of each.
SEEN = dict.fromkeys(QUANTITIES, 10.0)
NAMES = {name: f"{name} as planned" for name in FIELDS}
LIMITS = {
    **{f"{name}_{side}": limit for name in QUANTITIES for side, limit in (("min", 8), ("max", 12))},
    **{f"{name}_one_of": [f"{name} AS planned", "another"] for name in FIELDS},
    "b_values_include": [0, 1000],
}
CONSTANT = ["scanner", "field_strength_t", "software_version"]
TRIAL = {
    "windows": {"day5": {"day": 5, "before": 1, "after": 2}, "h24": {"hour": 24, "before": 6}},
    "constant": CONSTANT,
    "same_modality": {"infarct": []},
    "complete": {"baseline": ["dwi"], "day5": ["dwi", "ncct"]},
    "imaging_duration_minutes_max": 30,
    "imaging_to_treatment_minutes_max": 60,
}
ORDER = ("baseline", "h24", "day5")


def scan(visit, kind, acquired_at, **more):
    metadata = {
        "acquired_at": acquired_at,
        "scan_duration_s": 120,
        "scanner": "Model 1",
        "field_strength_t": 3.0,
        "software_version": "v1",
        **more,
    }
    entry = {"participant_id": "1", "visit": visit, "kind": kind, "scan_id": f"{visit}_{kind}"}
    return {**entry, "status": "ok", "reason": None, "metadata": metadata}


def sound_subject():
    return {
        "observed": {**SEEN, **NAMES, "b_values": [0, 1000]},
        "lossy": False,
        "proof": "unchanged",
        "person": {"treated_at": "2025-03-01T10:55"},
        "scans": {
            "baseline_dwi": scan("baseline", "dwi", "2025-03-01T10:00"),
            "h24_dwi": scan("h24", "dwi", "2025-03-02T09:00"),
            "day5_dwi": scan("day5", "dwi", "2025-03-06T12:00"),
            "day5_ncct": scan("day5", "ncct", "2025-03-06T12:10"),
        },
    }


def flagged(subject):
    """Criteria with a verdict other than pass, with their verdicts."""
    rows = acquisition_rows(
        "dwi",
        subject["observed"],
        charter(AcquisitionSettings.model_validate({"use_defaults": False, "dwi": LIMITS})),
    )
    rows.append(lossless_row("dwi", subject["lossy"], subject["proof"]))
    rows += trial_rows(
        list(subject["scans"].values()),
        TrialCriteria.model_validate(TRIAL),
        participants={"1": subject["person"]},
        visit_order=ORDER,
        baseline="baseline",
    )
    return {(row["criterion"], row["verdict"]) for row in rows if row["verdict"] != "pass"}, rows


def test_the_sound_subject_passes_every_criterion():
    found, rows = flagged(sound_subject())
    assert found == set()
    expected = set(LIMITS) | {"lossless", "same_modality:infarct", "present"}
    expected |= {f"same_{name}" for name in CONSTANT}
    expected |= {"imaging_duration_minutes_max", "imaging_to_treatment_minutes_max"}
    expected |= {f"visit_{unit}_{side}" for unit in ("day", "hour") for side in ("min", "max")}
    assert {row["criterion"] for row in rows} == expected


def _observed(name, value):
    return lambda subject: subject["observed"].update({name: value})


def _facts(scan_id, **facts):
    return lambda subject: subject["scans"][scan_id]["metadata"].update(facts)


BREAKS = {
    **{f"{name}_min": _observed(name, 7.9) for name in QUANTITIES},
    **{f"{name}_max": _observed(name, 12.1) for name in QUANTITIES},
    **{f"{name}_one_of": _observed(name, "something else") for name in FIELDS},
    "b_values_include": _observed("b_values", [0, 800]),
    "lossless": lambda subject: subject.update(lossy=True),
    "visit_day_min": lambda s: [_facts(f"day5_{k}", acquired_at="2025-03-04T12:00")(s) for k in ("dwi", "ncct")],
    "visit_day_max": lambda s: [_facts(f"day5_{k}", acquired_at="2025-03-09T12:00")(s) for k in ("dwi", "ncct")],
    "visit_hour_min": _facts("h24_dwi", acquired_at="2025-03-02T03:59"),
    "visit_hour_max": _facts("h24_dwi", acquired_at="2025-03-02T10:01"),
    "same_scanner": _facts("day5_dwi", scanner="Model 2"),
    "same_field_strength_t": _facts("day5_dwi", field_strength_t=1.5),
    "same_software_version": _facts("day5_dwi", software_version="v2"),
    "same_modality:infarct": lambda s: s["scans"].update(
        h24_dwi=scan("h24", "FLAIR", "2025-03-02T09:00")
    ),
    "present": lambda s: s["scans"].pop("day5_ncct"),
    "imaging_duration_minutes_max": _facts("day5_ncct", acquired_at="2025-03-06T12:29"),
    "imaging_to_treatment_minutes_max": lambda s: s["person"].update(treated_at="2025-03-01T11:01"),
}  # fmt: skip


@pytest.mark.parametrize("criterion", BREAKS)
def test_breaking_one_criterion_flags_exactly_that_one(criterion):
    subject = copy.deepcopy(sound_subject())
    BREAKS[criterion](subject)
    found, _ = flagged(subject)
    assert found == {(criterion, "fail")}


def test_every_criterion_is_broken_somewhere():
    _, rows = flagged(sound_subject())
    assert set(BREAKS) == {row["criterion"] for row in rows}


@pytest.mark.parametrize(
    ("date", "verdicts"),
    [
        ("2025-03-04T23:59", {"visit_day_min"}),
        ("2025-03-05T00:00", set()),
        ("2025-03-08T23:59", set()),
        ("2025-03-09T00:00", {"visit_day_max"}),
    ],
    ids=["a minute early", "first moment", "last moment", "a minute late"],
)
def test_bounds_of_a_day_window_are_inside(date, verdicts):
    """Day 5, one early and two late: calendar days 4 to 7 after 1 March 10:00."""
    subject = sound_subject()
    for kind in ("dwi", "ncct"):
        _facts(f"day5_{kind}", acquired_at=date)(subject)
    found, _ = flagged(subject)
    assert {name for name, _ in found} - {"imaging_duration_minutes_max"} == verdicts


@pytest.mark.parametrize(
    ("time", "verdicts"),
    [
        ("04:00", set()),
        ("03:59", {"visit_hour_min"}),
        ("10:00", set()),
        ("10:01", {"visit_hour_max"}),
    ],
)
def test_bounds_of_an_hour_window_are_inside(time, verdicts):
    subject = sound_subject()
    _facts("h24_dwi", acquired_at=f"2025-03-02T{time}")(subject)
    assert {name for name, _ in flagged(subject)[0]} == verdicts


def test_a_late_scan_says_by_how_much():
    subject = sound_subject()
    BREAKS["visit_day_max"](subject)
    _, rows = flagged(subject)
    reasons = {row["reason"] for row in rows if row["criterion"] == "visit_day_max"} - {None}
    assert reasons == {"1 day too late"}


def test_day_zero_may_be_a_column():
    subject = sound_subject()
    settings = {"windows": {"day5": {"day": 5}}, "day_zero_column": "randomised_at"}
    rows = trial_rows(
        list(subject["scans"].values()),
        TrialCriteria.model_validate(settings),
        participants={"1": {"randomised_at": "2025-02-27"}},
        visit_order=ORDER,
        baseline="baseline",
    )
    assert {row["value"] for row in rows} == {7}


def test_what_is_not_known_is_not_assessable():
    subject = sound_subject()
    subject["person"] = {}
    for one in subject["scans"].values():
        one["metadata"] = {}
    subject["observed"] = {}
    subject["lossy"] = None
    found, rows = flagged(subject)
    kept = {"same_modality:infarct", "present"}
    assert {verdict for _, verdict in found} == {"not_assessable"}
    assert {row["criterion"] for row in rows if row["verdict"] == "pass"} == kept


def test_treatment_before_imaging_was_not_delayed_by_it():
    subject = sound_subject()
    subject["person"]["treated_at"] = "2025-03-01T09:00"
    assert flagged(subject)[0] == {("imaging_to_treatment_minutes_max", "not_assessable")}


def test_an_unreadable_scan_is_not_present():
    subject = sound_subject()
    subject["scans"]["day5_ncct"] |= {"status": "failed", "reason": "truncated"}
    _, rows = flagged(subject)
    row = next(r for r in rows if r["criterion"] == "present" and r["kind"] == "ncct")
    assert (row["verdict"], row["value"], row["reason"]) == ("fail", "unreadable", "truncated")


def test_kinds_that_the_charter_counts_as_the_same():
    subject = sound_subject()
    BREAKS["same_modality:infarct"](subject)
    rows = trial_rows(
        list(subject["scans"].values()),
        TrialCriteria(same_modality={"infarct": ["dwi", "FLAIR"]}),
        participants={"1": {}},
        visit_order=ORDER,
        baseline="baseline",
    )
    assert {row["verdict"] for row in rows} == {"pass"}


@pytest.mark.parametrize(
    ("lossy", "proof", "verdict"),
    [
        (True, "unchanged", "fail"),
        (False, "changed", "fail"),
        (False, "not_comparable", "not_assessable"),
        (None, None, "not_assessable"),
        (False, None, "pass"),
    ],
)
def test_losslessness(lossy, proof, verdict):
    assert lossless_row("dwi", lossy, proof)["verdict"] == verdict
