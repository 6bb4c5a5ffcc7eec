"""MCP-Mod with candidates of the plan, its Mod step, Dunnett's and Williams' tests."""

import numpy as np
import pandas as pd
import pytest
from helpers import planned, run
from scipy import stats

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.modelling import _williams_tail, max_abs_t
from corelab.pharmacodynamics.multiplicity import adjust_families

DOSES = [0.0, 0.05, 0.2, 0.6, 1.0]


def tables_of(dose, value):
    ids = [f"p{k:03d}" for k in range(len(dose))]
    rows = pd.DataFrame({"participant_id": ids, "value": value})
    rows = rows.assign(
        visit="d", endpoint="v", source="pipeline", repeat=1, region="all", status="ok"
    )
    people = pd.DataFrame({"participant_id": ids, "dose": dose, "arm": [f"d{x:g}" for x in dose]})
    return Tables(rows, people, visit_order=("d",), baseline="d")


@pytest.fixture(scope="module")
def tables():
    dose = np.repeat(DOSES, 20)
    rng = np.random.default_rng(2)
    return tables_of(dose, 0.3 + 0.8 * dose / (0.15 + dose) + rng.normal(0, 0.3, dose.size))


def found(tables, **keys):
    base = {"id": "a", "type": "dose_response", "endpoint": "v", "dose": "dose"}
    return run({**base, "models": ["mcpmod"], **keys}, tables)


LIST = [{"model": "emax", "ed50": 0.3}, "linear", {"model": "exponential", "delta": 0.5}]
MAPPING = {"e1": {"model": "emax", "ed50": 0.3}, "flat": {"model": "quadratic", "delta": -0.5}}


@pytest.mark.parametrize("candidates", [LIST, MAPPING, ["linear", "emax"]])
def test_candidates_of_the_plan(tables, candidates):
    rows = found(tables, candidates=candidates)
    groups = rows.loc[rows["statistic"] == "mcp_t", "group"].str.removeprefix("dose|").tolist()
    names = (
        candidates
        if isinstance(candidates, dict)
        else [c if isinstance(c, str) else c["model"] for c in candidates]
    )
    assert groups == list(names)


def test_a_wrong_guess_is_a_reason(tables):
    rows = found(tables, candidates=[{"model": "emax", "ed51": 0.3}])
    assert "has the guesses ed50" in rows.loc[0, "note"]


def test_the_mod_step_gives_the_dose_of_a_target_effect(tables):
    rows = found(tables, target_effect=0.4, resamples=60)
    doses = rows[rows["statistic"] == "target_dose"].set_index("group")
    weights = rows[rows["statistic"] == "model_weight"].set_index("group")["estimate"]
    assert weights.sum() == pytest.approx(1)
    emax = doses.loc["dose|emax"]
    assert emax["ci_low"] < 0.15 < emax["ci_high"]  # 0.8 d / (0.15 + d) = 0.4
    there = [g for g in weights.index if np.isfinite(doses.loc[g, "estimate"])]
    mean = np.average(doses.loc[there, "estimate"], weights=weights[there])
    assert doses.loc["dose|average", "estimate"] == pytest.approx(mean)


def test_without_a_significant_candidate_there_is_no_dose():
    dose = np.repeat(DOSES, 10)
    flat = tables_of(dose, np.random.default_rng(1).normal(size=dose.size))
    rows = found(flat, target_effect=0.4)
    assert rows.iloc[-1]["note"].startswith("not_computable: no candidate is significant")


def test_dunnett_as_scipy_prints_it():
    """Dunnett (1955) blood counts, in the documentation of scipy.stats.dunnett."""
    groups = {
        "control": [7.40, 8.50, 7.20, 8.24, 9.84, 8.32],
        "a": [9.76, 8.80, 7.68, 9.36],
        "b": [12.80, 9.68, 12.16, 9.20, 10.55],
    }
    arm = [name for name, values in groups.items() for _ in values]
    tables = tables_of(np.arange(15.0), [x for v in groups.values() for x in v])
    tables.participants["arm"] = arm
    plan = [
        {"id": "a", "type": "comparison", "endpoint": "v", "by": "arm", "method": "ancova"}
        | {"reference": "control", "family": "f", "adjustment": "dunnett"}
    ]
    rows = adjust_families(run(plan[0], tables), [planned(plan[0])])
    own = rows[rows["statistic"] == "mean_difference"].set_index("group")
    assert own["p_adjusted"].tolist() == pytest.approx([0.62004941, 0.0058333], abs=2e-4)
    theirs = stats.dunnett(groups["a"], groups["b"], control=groups["control"], rng=1)
    limits = theirs.confidence_interval(0.95)
    assert own["ci_low_adjusted"].tolist() == pytest.approx(limits.low.tolist(), abs=0.03)
    assert own["ci_high_adjusted"].tolist() == pytest.approx(limits.high.tolist(), abs=0.03)


def test_critical_values_of_two_sided_dunnett():
    """Hochberg and Tamhane (1987), table 3, rho 0.5: 2 and 4 comparisons, 20 df: 2.38, 2.65."""
    for k, expected in ((2, 2.38), (4, 2.65)):
        r = np.full((k, k), 0.5) + 0.5 * np.eye(k)
        assert max_abs_t(np.zeros(k), r, 20)[1] == pytest.approx(expected, abs=0.006)


def test_critical_values_of_williams_against_integration():
    """One and two doses have closed integrals; more doses are checked by simulation."""
    for df in (10, 20):
        assert _williams_tail(1.8, [1, 1], df) == pytest.approx(stats.t.sf(1.8, df), abs=1e-6)
    # Two doses, equal groups: x2 and (x1 + x2) / 2 over x0, in units of sqrt(2).
    r = np.sqrt(3) / 2  # correlation of the two differences
    joint = stats.multivariate_normal([0, 0], [[1, r], [r, 1]])
    exact = 1 - joint.cdf([1.716, 1.716 * np.sqrt(2 / 1.5)])
    assert _williams_tail(1.716, [1, 1, 1], 0) == pytest.approx(exact, abs=2e-5)
    rng = np.random.default_rng(3)
    sizes = np.array([12.0, 6, 8, 6])
    null = rng.normal(size=(400_000, 4)) / np.sqrt(sizes)
    means = [(null[:, u:] @ sizes[u:]) / sizes[u:].sum() for u in (1, 2, 3)]
    t = (np.max(means, axis=0) - null[:, 0]) / np.sqrt(1 / 6 + 1 / 12)
    t /= np.sqrt(rng.chisquare(28, len(t)) / 28)
    assert _williams_tail(1.8, sizes, 28) == pytest.approx(np.mean(t > 1.8), abs=1.5e-3)


@pytest.mark.parametrize(("doses", "critical"), [(1, 1.645), (2, 1.716), (3, 1.739), (4, 1.750)])
def test_critical_values_of_williams_as_printed(doses, critical):
    """Williams (1971), table 1: one-sided 5 % points, known variance, equal groups."""
    assert _williams_tail(critical, np.ones(doses + 1), 0) == pytest.approx(0.05, abs=1e-4)


def test_williams_through_the_plan(tables):
    rows = found(tables, models=["williams"])
    assert rows["statistic"].eq("williams_t").all() and len(rows) == 4
    assert rows.iloc[0]["group"] == "dose=1|dose=0" and rows.iloc[0]["p_value"] < 0.01
