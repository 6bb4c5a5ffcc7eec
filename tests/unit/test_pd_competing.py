"""Competing events: exact special cases, and rows through the plan."""

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.competing import cumulative_incidence, fit_fine_gray
from corelab.pharmacodynamics.survival import fit_cox, kaplan_meier


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    n = 120
    x = np.column_stack([np.arange(n) % 2, rng.normal(size=n)])
    first = rng.exponential(100 * np.exp(-0.6 * x[:, 0]), n)
    second = rng.exponential(150, n)
    end = rng.uniform(60, 300, n)
    time = np.minimum(np.minimum(first, second), end).round(6)
    status = np.select([first <= np.minimum(second, end), second <= end], [1, 2], 0)
    return time, status, x


def test_without_competing_events_it_is_cox_and_one_minus_kaplan_meier(data):
    time, status, x = data
    alone = np.where(status == 1, 1, 0)
    fit, cox = fit_fine_gray(time, alone, x), fit_cox(time, alone, x, ties="breslow")
    assert fit.coefficients == pytest.approx(cox.coefficients, rel=1e-6)
    curve = kaplan_meier(time, alone)
    at = 80.0
    expected = 1 - curve.survival[np.searchsorted(curve.time, at, side="right") - 1]
    assert cumulative_incidence(time, alone, at).estimate == pytest.approx(expected)


def test_without_censoring_competing_events_never_leave_the_risk_set(data):
    time, status, x = data
    seen = status > 0
    t, s, z = time[seen], status[seen], x[seen]
    late = np.where(s == 2, 1e6, t)
    cox = fit_cox(late, (s == 1).astype(float), z, ties="breslow")
    assert fit_fine_gray(t, s, z).coefficients == pytest.approx(cox.coefficients, rel=1e-6)


def test_the_incidence_as_lifelines_without_ties(data):
    from lifelines import AalenJohansenFitter

    time, status, _ = data
    theirs = AalenJohansenFitter(calculate_variance=True).fit(time, status, event_of_interest=1)
    ours = cumulative_incidence(time, status, 90.0)
    row = theirs.cumulative_density_.loc[:90.0].iloc[-1, 0]
    assert ours.estimate == pytest.approx(row, abs=1e-6)
    assert ours.se**2 == pytest.approx(theirs.variance_.loc[:90.0].to_numpy().ravel()[-1], rel=0.02)


def test_coverage_of_the_subdistribution_hazard_ratio():
    """No difference between arms: the robust interval holds 0 in 93 to 97 %."""
    rng, hits, runs = np.random.default_rng(5), 0, 150
    x = (np.arange(80) % 2)[:, None].astype(float)
    for _ in range(runs):
        first, second = rng.exponential(100, 80), rng.exponential(150, 80)
        end = rng.uniform(50, 250, 80)
        time = np.minimum(np.minimum(first, second), end)
        status = np.select([first <= np.minimum(second, end), second <= end], [1, 2], 0)
        fit = fit_fine_gray(time, status, x)
        hits += abs(fit.coefficients[0]) < 1.96 * np.sqrt(fit.covariance[0, 0])
    assert 0.89 <= hits / runs <= 0.99


def test_through_the_plan(data):
    time, status, x = data
    ids = [f"p{k:03d}" for k in range(time.size)]
    events = pd.concat(
        pd.DataFrame({"participant_id": ids, "endpoint": name, "time_days": time}).assign(
            event=(status == code).astype(float)
        )
        for name, code in (("progression", 1), ("death", 2))
    )
    people = pd.DataFrame({"participant_id": ids, "arm": np.where(x[:, 0] == 1, "drug", "control")})
    empty = pd.DataFrame(
        columns=["participant_id", "visit", "endpoint", "source", "repeat", "region", "status"]
        + ["value"]
    )
    tables = Tables(empty, people, events=events)
    analysis = {"id": "a", "type": "survival", "event_endpoint": "progression", "by": "arm"}
    keys = {"method": ["cuminc", "finegray"], "competing_endpoint": "death", "tau_days": 90}
    rows = run({**analysis, **keys}, tables).set_index("statistic")
    ratio = rows.loc["subdistribution_hazard_ratio"]
    assert ratio["estimate"] == pytest.approx(
        np.exp(fit_fine_gray(time, status, x[:, :1]).coefficients[0])
    )
    assert set(rows.index) == {
        "cumulative_incidence",
        "incidence_difference",
        "gray_p",
        "subdistribution_hazard_ratio",
    }
    lacking = run({**analysis, "method": "finegray"}, tables)
    assert "needs competing_endpoint" in lacking.loc[0, "note"]


def test_a_hierarchy_and_utilities_through_the_plan():
    """Deaths first, then the grade: by hand for four pairs."""
    ids = list("abcd")
    people = pd.DataFrame({"participant_id": ids, "arm": ["drug", "drug", "control", "control"]})
    values = {"death": [0, 1, 0, 0], "mrs": [1, 6, 3, 1]}
    outcomes = pd.concat(
        pd.DataFrame({"participant_id": ids, "visit": "d90", "outcome": k, "value": v}).astype(
            {"value": float}
        )
        for k, v in values.items()
    )
    tables = Tables(pd.DataFrame(), people, outcomes=outcomes)
    rows = run(
        {"id": "a", "type": "ordinal", "outcome": "mrs", "by": "arm", "hierarchy": ["death", "mrs"]}
        | {"utilities": {"1": 0.9, "3": 0.6, "6": 0.0}},
        tables,
    )
    wins = rows[rows["group"].str.endswith("hierarchy")].set_index("statistic")
    assert "1 wins, 2 losses, 1 ties" in wins.loc["win_ratio", "note"]
    utility = rows[rows["statistic"] == "mean_utility_difference"].iloc[0]
    assert utility["estimate"] == pytest.approx(0.45 - 0.75)
