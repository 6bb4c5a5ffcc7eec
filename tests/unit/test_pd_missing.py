"""Repeated measures: multiple imputation, MMRM and their keys; HC3."""

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.measurement.selection import Tables


@pytest.fixture(scope="module")
def tables():
    """Three visits; the drug lowers the score; who is severe leaves the drug arm."""
    rng = np.random.default_rng(11)
    n = 90
    ids = [f"p{k:02d}" for k in range(n)]
    drug = np.arange(n) % 2
    severity = rng.normal(0, 1, n)
    base = 20 + 3 * rng.normal(size=n)
    first = base - 2 * drug + 2 * severity + rng.normal(0, 2, n)
    second = first - 3 * drug + rng.normal(0, 2, n)
    gone = (rng.random(n) < 1 / (1 + np.exp(-1.5 * severity))) & (drug == 1)
    second[gone] = np.nan
    rows = [
        (i, v, x)
        for v, y in (("base", base), ("w1", first), ("w2", second))
        for i, x in zip(ids, y, strict=True)
    ]
    values = pd.DataFrame(rows, columns=["participant_id", "visit", "value"]).dropna()
    values = values.assign(endpoint="score", source="pipeline", repeat=1, region="all", status="ok")
    people = pd.DataFrame(
        {
            "participant_id": ids,
            "arm": np.where(drug, "drug", "placebo"),
            "severity": severity,
            "site": np.tile(["x", "y", "z"], n // 3),
        }
    )
    return Tables(values, people, visit_order=("base", "w1", "w2"), baseline="base")


def imputed(tables, **keys):
    analysis = {
        "id": "a",
        "type": "comparison",
        "endpoint": "score",
        "by": "arm",
        "derivation": "change",
        "visit": "w2",
        "method": "multiple_imputation",
        "covariates": ["severity"],
        "imputations": 30,
    }
    return run({**analysis, **keys}, tables)


def test_the_reference_based_strategies_are_ordered(tables):
    """Toward the reference: jump is the strongest, then copy, then increments, then random."""
    found = {s: imputed(tables, imputation=s).iloc[0] for s in ("mar", "cir", "cr", "j2r")}
    assert found["mar"]["estimate"] < found["cir"]["estimate"] < found["j2r"]["estimate"] < 0
    assert found["cr"]["estimate"] < found["j2r"]["estimate"]
    assert "jump to reference" in found["j2r"]["method"]


def test_covariates_and_auxiliary_variables_are_in_the_imputation_model(tables):
    plain = imputed(tables, covariates=[]).iloc[0]
    helped = imputed(tables, covariates=[], auxiliary=["severity", "site"]).iloc[0]
    assert helped["estimate"] != plain["estimate"]
    assert "severity (auxiliary), site (auxiliary)" in helped["method"]
    within = imputed(tables, imputation_model="within_arm").iloc[0]
    joint = imputed(tables).iloc[0]
    assert within["estimate"] == pytest.approx(joint["estimate"], abs=1.0)
    assert within["estimate"] != joint["estimate"]


def test_shifts_by_visit_and_of_both_arms(tables):
    rows = imputed(tables, deltas=[1, {"w2": 2, "w1": 9}, {"w1": 3}], deltas_reference=[0])
    groups = rows.loc[rows["statistic"] == "mean_difference_at_delta", "group"].tolist()
    pair = "arm=drug|arm=placebo"
    assert groups == [f"{pair}|delta=1|delta_reference=0", f"{pair}|delta=2|delta_reference=0"]


def test_reference_based_imputation_needs_the_joint_model(tables):
    rows = imputed(tables, imputation="j2r", imputation_model="within_arm")
    assert rows["note"].str.startswith("not_computable: imputation j2r needs").all()


def fitted(tables, **keys):
    base = {"id": "a", "type": "comparison", "endpoint": "score", "by": "arm", "method": "mmrm"}
    rows = run({**base, "derivation": "change", **keys}, tables)
    return rows[rows["statistic"] == "mean_difference"].set_index("visit")


def test_the_overall_effect_is_the_mean_of_the_visits(tables):
    rows = fitted(tables, overall=True, contrasts={"late": {"w2": 1, "w1": -1}})
    single = rows.loc[["w1", "w2"], "estimate"]
    assert rows.loc["all", "estimate"] == pytest.approx(single.mean())
    assert rows.loc["late", "estimate"] == pytest.approx(single["w2"] - single["w1"])
    assert rows.loc["all", "ci_low"] < rows.loc["all", "estimate"] < rows.loc["all", "ci_high"]


def test_an_unknown_visit_of_a_contrast_is_a_reason(tables):
    rows = fitted(tables, contrasts={"late": {"w9": 1}})
    assert "names the visit w9" in rows["note"].iloc[0]


def test_interactions_are_those_of_the_plan(tables):
    base = fitted(tables, covariates=["severity"])
    with_visit = fitted(tables, covariates=["severity"], interactions=["baseline", "severity"])
    main = fitted(tables, covariates=["severity"], interactions=[])
    assert "severity x visit" in with_visit["method"].iloc[0]
    assert "baseline x visit" in base["method"].iloc[0]
    assert "x visit, baseline, severity" in main["method"].iloc[0]
    estimates = {frame.loc["w2", "estimate"] for frame in (base, with_visit, main)}
    assert len(estimates) == 3


def test_hc3_as_statsmodels(tables):
    import statsmodels.api as sm

    analysis = {"id": "a", "type": "comparison", "endpoint": "score", "by": "arm", "visit": "w1"}
    row = run({**analysis, "method": "ancova", "robust": "hc3"}, tables).iloc[0]
    values = tables.measurements[tables.measurements["visit"] == "w1"].set_index("participant_id")
    people = tables.participants.set_index("participant_id")
    y = values["value"].reindex(people.index)
    drug = (people["arm"] == "drug").to_numpy(float)
    fit = sm.OLS(y.to_numpy(), sm.add_constant(drug)).fit(cov_type="HC3", use_t=True)
    assert row["estimate"] == pytest.approx(fit.params[1])
    assert row["p_value"] == pytest.approx(fit.pvalues[1], rel=1e-8)
    assert np.isfinite(row["ci_low"])
