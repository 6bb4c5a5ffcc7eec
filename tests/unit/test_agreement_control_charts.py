"""Image quality by site: charts against a textbook, requests, completeness, valid phantoms."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from corelab.agreement.control_charts import (
    _EXHIBITS,
    _completeness_rows,
    _control_chart,
    _control_chart_rows,
    _phantom_site_rows,
    _repeat_request_rows,
    _summary_rows,
    write_exhibits,
    write_quality,
)
from corelab.provenance.products import write_table
from corelab.settings.acquisition import PhantomQaSettings, TrialCriteria
from corelab.study.columns import ACQUISITION, IMAGE_FINDINGS, PHANTOMS


def test_individuals_chart_of_montgomery():
    """Viscosity of aircraft primer, Montgomery, Introduction to Statistical Quality Control, 6.4.

    Printed: mean 33.52, mean moving range 0.48, limits 32.24 and 34.80, in control.
    """
    viscosity = [33.75, 33.05, 34.00, 33.81, 33.46, 34.02, 33.68, 33.27]
    viscosity += [33.49, 33.20, 33.62, 33.00, 33.54, 33.12, 33.84]
    chart = _control_chart(viscosity)
    assert chart.centre == pytest.approx(33.52, abs=0.005)
    assert chart.lower == pytest.approx(32.24, abs=0.015)
    assert chart.upper == pytest.approx(34.80, abs=0.015)
    assert set(chart.signals) == {"none"}


def test_false_alarms_of_the_limits_are_as_rare_as_they_should_be():
    """A point of a normal process lies beyond 3 SD in 0.27 % of cases."""
    values = np.random.default_rng(5).normal(size=40_000)
    share = np.mean([signal == "beyond limits" for signal in _control_chart(values).signals])
    assert share == pytest.approx(0.0027, abs=0.001)


def test_eight_on_one_side_are_a_run_and_seven_are_not():
    values = [1.0, -1, 1, -1, 1, -1, 1, -1] + [0.4, 0.6] * 4 + [-4.0]
    signals = _control_chart(values).signals
    assert signals[14] == "none" and signals[15] == "run"


def test_values_that_never_change_give_no_signal():
    assert set(_control_chart([0.1 + 0.2] * 9).signals) == {"none"}
    with pytest.raises(ValueError, match="at least 2"):
        _control_chart([1.0])


def acquisition(rows):
    return pd.DataFrame([dict.fromkeys(ACQUISITION) | row for row in rows], dtype=object)


def dated(number, snr, **more):
    return {
        "participant_id": f"{number:02d}",
        "visit": "v",
        "kind": "dwi",
        "criterion": "snr_min",
        "value": snr,
        "limit": 20,
        "verdict": "pass" if snr >= 20 else "fail",
        "scan_id": f"s{number:02d}",
        "site": "a",
        "scanner": "M",
        "acquired_at": f"2025-01-{number:02d}",
        **more,
    }


def test_charts_are_by_scanner_and_in_the_order_of_time():
    rows = [dated(n, 30 + (n % 3)) for n in range(12, 0, -1)]
    rows += [dated(n, 25, site="b", scan_id=f"b{n}") for n in range(1, 4)]
    rows += [dated(n, 30 + (n % 3), criterion="snr_max") for n in range(1, 13)]
    chart = _control_chart_rows(acquisition(rows))
    assert set(chart["site"]) == {"a"}  # three scans make no chart
    assert chart["scan_id"].tolist() == [f"s{n:02d}" for n in range(1, 13)]
    assert set(chart["quantity"]) == {"snr"}


def test_summary_adds_up():
    rows = [dated(n, 18 if n < 3 else 30) for n in range(1, 11)]
    row = _summary_rows(acquisition(rows)).iloc[0]
    assert (row["n"], row["n_fail"], row["fail_percent"]) == (10, 2, 20.0)
    # Wilson's interval of 2 of 10: 5.67 to 50.98 %.
    assert (round(row["ci_low"], 2), round(row["ci_high"], 2)) == (5.67, 50.98)


def test_a_repeat_is_requested_and_answered():
    rows = [
        dated(1, 12, reason="too noisy"),
        dated(1, 30, scan_id="s01_run-2"),
        dated(2, 12),
        dated(3, 30, criterion="visit_day_max", verdict="fail"),
        dated(4, 0, kind="ncct", criterion="present", verdict="fail", scan_id=None),
    ]
    found = _repeat_request_rows(acquisition(rows)).set_index(["participant_id", "kind"])
    assert found.loc[("01", "dwi"), "status"] == "answered"
    assert found.loc[("01", "dwi"), "answered_by"] == "s01_run-2"
    assert found.loc[("01", "dwi"), "reasons"] == "snr_min: too noisy"
    assert found.loc[("02", "dwi"), "status"] == "open"
    assert found.loc[("04", "ncct"), "criteria"] == "present"
    assert ("03", "dwi") not in found.index  # no new scan mends a date
    assert _repeat_request_rows(acquisition(rows), ["visit_day"])["participant_id"].tolist() == [
        "03"
    ]


def test_completeness_matrix():
    due = {"criterion": "present", "verdict": "pass"}
    rows = [dated(1, 1, **due), dated(1, 1, **{**due, "verdict": "fail", "kind": "ncct"})]
    row = _completeness_rows(acquisition(rows)).iloc[0]
    assert (row["n_due"], row["n_there"], row["missing"]) == (2, 1, "ncct")


# --- phantoms ----------------------------------------------------------------------------------


def phantoms(factor=1.0, date="2025-01-01", site="a", roles=("infarct", "haemorrhage", "other")):
    rows = [
        {
            "site": site,
            "scanner": "CT",
            "acquired_at": date,
            "kind": "ncct",
            "insert": role,
            "role": role,
            "quantity": "value",
            "unit": "HU",
            "certified_value": value,
            "measured_value": value * factor,
            "status": "ok",
        }
        for role, value in zip(roles, (25.0, 60.0, 40.0), strict=True)
    ]
    return pd.DataFrame([dict.fromkeys(PHANTOMS) | row for row in rows])


def site_row(table, scans, interval=365):
    from corelab.agreement.phantoms import phantom_verdicts

    verdicts = phantom_verdicts(table, PhantomQaSettings())
    found = _phantom_site_rows(acquisition(scans), verdicts, table, interval)
    return found.set_index("site").loc["a"]


@pytest.mark.parametrize(
    ("date", "verdict"),
    [
        ("2024-12-31", "fail"),
        ("2025-01-01", "pass"),
        ("2026-01-01", "pass"),
        ("2026-01-02", "fail"),
    ],
    ids=["before any", "same day", "last day", "a day late"],
)
def test_a_phantom_vouches_for_its_interval_bounds_inside(date, verdict):
    assert site_row(phantoms(), [dated(1, 30, acquired_at=date)])["verdict"] == verdict


def test_a_site_without_a_phantom_that_passed_is_flagged():
    scans = [dated(1, 30, acquired_at="2025-02-01"), dated(2, 30, site="b")]
    failed = site_row(phantoms(factor=1.1), scans)
    assert failed["verdict"] == "fail" and "no phantom scan that passed" in failed["reason"]
    table = phantoms(site="b")
    assert site_row(table, scans)["verdict"] == "fail"  # site a has none at all


def test_both_roles_must_be_covered():
    table = phantoms(roles=("infarct", "infarct", "other"))
    row = site_row(table, [dated(1, 30, acquired_at="2025-02-01")])
    assert row["verdict"] == "fail" and "covers haemorrhage-like inserts" in row["reason"]


def written(folder, rows, table):
    """Products and exhibits as the rule writes them; relative path -> bytes."""
    names = {
        "summary": "acquisition_summary",
        "charts": "control_charts",
        "requests": "repeat_requests",
        **{name: name for name in ("completeness", "phantom_verdicts", "phantom_sites")},
    }
    paths = {key: folder / "endpoints" / f"{name}.tsv" for key, name in names.items()}
    write_quality(rows, table, TrialCriteria(), PhantomQaSettings(), SimpleNamespace(**paths))
    findings = pd.DataFrame(columns=list(IMAGE_FINDINGS))
    write_table(findings, folder / "endpoints" / "image_findings.tsv", IMAGE_FINDINGS)
    write_exhibits(folder, [folder / "exhibits" / f"{name}.json" for name in _EXHIBITS])
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_products_are_written_and_the_same_twice(tmp_path):
    rows = acquisition([dated(n, 12 + 3 * (n % 4)) for n in range(1, 16)])
    first = written(tmp_path / "1", rows, phantoms())
    assert first == written(tmp_path / "2", rows, phantoms())
    assert "exhibits/quality_charts.svg" in first
    alarms = json.loads(first["exhibits/quality_requests.json"])["alarms"]
    assert alarms[0]["text"].startswith("11 scans are to be repeated")
    output = json.loads(first["exhibits/phantom_sites.json"])["alarms"]
    assert output == []
    failed = written(tmp_path / "3", rows, phantoms(factor=1.1))
    output = json.loads(failed["exhibits/phantom_sites.json"])["alarms"]
    assert output[0]["text"].startswith("a, phantom scans: no phantom scan that passed")


def test_a_study_without_scans_or_phantoms_has_empty_tables(tmp_path):
    empty = pd.DataFrame(columns=list(ACQUISITION)), pd.DataFrame(columns=list(PHANTOMS))
    made = written(tmp_path, *empty)
    assert len(made["endpoints/phantom_sites.tsv"].splitlines()) == 1
