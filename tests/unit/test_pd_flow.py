"""Cohort flows of the source (requirements 2.2, R10) and time windows at their boundaries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from corelab.measurement.time_windows import (
    IMMEDIATE_DELAYED,
    _pair_by_window,
    lesion_reversal,
)
from corelab.plan.cohort_flow import (
    FlowError,
    Step,
    _apply_criteria,
    _cascade,
    _merge,
    _overlap_counts,
)
from corelab.settings.trial import Exclusion


def steps(*counts: int):
    return [Step(f"step {k}", f"reason {k}", n) for k, n in enumerate(counts)]


CASCADES = {
    "CRCS-K": (1534, (168, 415, 24, 47, 63, 10, 404, 8, 15, 8), 372),
    "SNUBH": (1756, (241, 88, 32, 3, 116, 153, 796, 22, 3, 63), 239),
    "serial DWI": (2332, (1136, 708, 10, 17, 252, 34), 175),
}


@pytest.mark.parametrize("name", CASCADES)
def test_published_cascades_add_up(name):
    n_in, counts, n_out = CASCADES[name]
    flow = _cascade(n_in, steps(*counts), expected=n_out)
    assert flow["n_out"].iloc[-1] == n_out
    assert (flow["n_in"] - flow["n_excluded"] == flow["n_out"]).all()
    assert flow["n_excluded"].sum() == n_in - n_out


def test_pooled_and_split_cohorts():
    """372 + 239 = 611; 140 immediate and 141 delayed of 175; CT, CTP and MRI make 1604."""
    flows = {name: _cascade(n, steps(*counts)) for name, (n, counts, _) in CASCADES.items()}
    assert _merge({k: flows[k] for k in ("CRCS-K", "SNUBH")}, expected=611) == 611
    assert _overlap_counts(140, 141, 175) == (34, 106, 35)
    assert _cascade(2304, steps(700), expected=1604)["n_out"].iloc[-1] == 534 + 752 + 318


def test_flows_that_do_not_add_up():
    with pytest.raises(FlowError, match="not with the declared 370"):
        _cascade(1534, steps(1162), expected=370)
    with pytest.raises(FlowError, match="of 10 remaining"):
        _cascade(10, steps(11))
    with pytest.raises(FlowError, match="cannot make"):
        _overlap_counts(10, 10, 30)


def test_criteria_count_each_participant_once():
    table = pd.DataFrame({"hours": [1.0, 30, 40, np.nan], "tici": [3, 1, 3, 2]})
    remaining, flow = _apply_criteria(
        table,
        [
            Exclusion(exclude="hours > 24", reason="late"),
            Exclusion(exclude="tici < 3", reason="TICI < 3"),
        ],
    )
    assert flow["n_excluded"].tolist() == [2, 1]
    assert len(remaining) == 1


def test_pairs_by_window():
    index = pd.DataFrame(
        {"participant_id": ["a", "b"], "acquired_at": pd.to_datetime(["2024-01-01"] * 2)}
    )
    hours = [2.99, 3.0, 24.0, 196.0, 196.1]
    later = pd.DataFrame(
        {
            "participant_id": ["a", "a", "a", "b", "b"],
            "scan_id": list("vwxyz"),
            "acquired_at": pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h"),
        }
    )
    pairs = _pair_by_window(index, later, IMMEDIATE_DELAYED)
    assert pairs[["window", "scan_id"]].to_numpy().tolist() == [
        ["immediate", "v"],
        ["delayed", "x"],
        ["delayed", "y"],
    ]
    with pytest.raises(ValueError, match="two index scans"):
        _pair_by_window(pd.concat([index, index]), later, IMMEDIATE_DELAYED)


def test_reversal_adds_up():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 6, 6, 6)) > 0.6
    change = lesion_reversal(a, b, 0.01)
    assert change.reversed_ml + change.persisting_ml == pytest.approx(a.sum() * 0.01)
    assert change.new_ml + change.persisting_ml == pytest.approx(b.sum() * 0.01)
