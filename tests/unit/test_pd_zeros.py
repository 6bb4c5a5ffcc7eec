"""Values of 0 on ratio scales, the scale of a change, and missing values of a rule."""

import numpy as np
import pandas as pd
import pytest
from helpers import run
from scipy import stats

from corelab.measurement.selection import Tables

N = 60


def study(vanished=12):
    """Growth of 10 % in both arms, but infarcts of the drug arm vanish."""
    rng = np.random.default_rng(4)
    ids = [f"p{k:02d}" for k in range(N)]
    drug = np.arange(N) % 2 == 1
    before = rng.lognormal(3, 0.5, N)
    after = before * np.exp(0.1 + rng.normal(0, 0.3, N))
    after[np.flatnonzero(drug)[:vanished]] = 0.0
    rows = [
        (i, v, x)
        for v, y in (("base", before), ("day5", after))
        for i, x in zip(ids, y, strict=True)
    ]
    values = pd.DataFrame(rows, columns=["participant_id", "visit", "value"])
    values = values.assign(endpoint="v", source="pipeline", repeat=1, region="all", status="ok")
    people = pd.DataFrame({"participant_id": ids, "arm": np.where(drug, "drug", "placebo")})
    tables = Tables(values, people, visit_order=("base", "day5"), baseline="base")
    return tables, before, after, drug


def compared(tables, **keys):
    analysis = {"id": "a", "type": "comparison", "endpoint": "v", "by": "arm", "visit": "day5"}
    return run({**analysis, **keys}, tables)


@pytest.mark.parametrize("method", ["ancova", "welch", "mann_whitney", "mmrm", "rank"])
def test_vanished_lesions_are_ranked_lowest(method):
    tables, _before, _after, _drug = study()
    rows = compared(tables, method=method, derivation="log_ratio", covariates=[])
    row = rows[rows["statistic"] == "rank_difference"].iloc[0]
    assert row["n"] == N and row["estimate"] < -0.1
    assert "12 of 60 participants have a value of 0" in row["note"]


def test_ranks_without_covariate_are_the_mann_whitney_test_of_the_ratios():
    tables, before, after, drug = study()
    row = compared(tables, method="welch", derivation="log_ratio").iloc[0]
    ratio = after / before
    u = stats.mannwhitneyu(ratio[drug], ratio[~drug])
    assert row["estimate"] == pytest.approx(u.statistic / 900 - 0.5)
    assert row["p_value"] == pytest.approx(u.pvalue, rel=0.1)


def test_a_primary_analysis_refuses_in_words():
    tables, *_ = study()
    rows = compared(tables, method="ancova", derivation="log_ratio", objective="primary")
    assert rows["estimate"].isna().all()
    assert "12 of 60 participants have a value of 0" in rows.loc[0, "note"]
    logs = compared(tables, method="ancova", scale="log", objective="primary")
    assert "have a value of 0" in logs.loc[0, "note"] and logs["estimate"].isna().all()


def test_an_offset_is_added_to_every_value():
    tables, before, after, drug = study()
    rows = compared(
        tables, method="ancova", derivation="log_ratio", zeros={"offset": 1.0}, objective="primary"
    )
    x = np.column_stack([np.ones(N), drug, np.log(before + 1)])
    y = np.log((after + 1) / (before + 1))
    expected = np.linalg.lstsq(x, y, rcond=None)[0][1]
    assert rows.loc[0, "estimate"] == pytest.approx(expected)
    assert "1 added to every value" in rows.loc[0, "note"]
    assert "log baseline" in rows.loc[0, "method"]


def test_other_methods_refuse_what_has_no_ratio():
    tables, *_ = study()
    rows = run(
        {"id": "q", "type": "quantile", "endpoint": "v", "by": "arm", "quantiles": [0.5]}
        | {"derivation": "log_ratio", "visit": "day5"},
        tables,
    )
    assert "needs more than ranks" in rows.loc[0, "note"]


def test_without_zeros_a_log_ratio_is_the_ancova_of_log_volumes():
    tables, _before, _after, _drug = study(vanished=0)
    ratio = compared(tables, method="ancova", derivation="log_ratio").iloc[0]
    change = compared(tables, method="ancova", derivation="change", scale="log").iloc[0]
    logs = compared(tables, method="ancova", scale="log", covariates=["baseline"]).iloc[0]
    for column in ("estimate", "ci_low", "p_value"):
        assert ratio[column] == pytest.approx(logs[column], rel=1e-9)
        assert change[column] == pytest.approx(logs[column], rel=1e-9)


@pytest.mark.parametrize("method", ["ancova", "welch", "mmrm", "multiple_imputation"])
def test_a_change_on_the_cube_root_scale_is_the_same_in_every_method(method):
    tables, before, after, drug = study(vanished=0)
    covariates = [] if method == "welch" else ["baseline"]
    found = compared(tables, method=method, derivation="change", scale="cube_root")
    y = np.cbrt(after) - np.cbrt(before)
    if method == "welch":
        expected = y[drug].mean() - y[~drug].mean()
    else:
        x = np.column_stack([np.ones(N), drug, np.cbrt(before)])
        expected = np.linalg.lstsq(x, y, rcond=None)[0][1]
    if method == "mmrm":  # one visit after baseline: no MMRM
        assert found["note"].str.contains("needs two visits").all()
    else:
        assert found.loc[0, "estimate"] == pytest.approx(expected), covariates


def test_a_population_with_a_missing_value_says_so():
    tables, *_ = study()
    people = tables.participants.assign(mrs=[np.nan] * 5 + [1.0] * 30 + [4.0] * 25)
    known = Tables(tables.measurements, people, visit_order=tables.visit_order, baseline="base")
    rows = compared(known, method="welch", population="not mrs > 2")
    assert rows.loc[0, "n"] == 30
    assert "5 of 60 participants left out" in rows.loc[0, "note"]


def test_missing_participants_can_be_non_responders():
    tables, _before, _after, _drug = study()
    lost = {"p00", "p01", "p02"}
    rows = tables.measurements
    seen = rows[~(rows["participant_id"].isin(lost) & (rows["visit"] == "day5"))]
    gaps = Tables(seen, tables.participants, visit_order=tables.visit_order, baseline="base")
    keys = {"method": "binary", "derivation": "responder", "responder": "percent_change <= -30"}
    plain = compared(gaps, **keys, covariates=[])
    filled = compared(gaps, **keys, covariates=[], nonresponder_imputation=True)
    plain, filled = (f[f["statistic"] == "risk_difference"].iloc[0] for f in (plain, filled))
    assert (plain["n"], filled["n"]) == (57, 60)
    assert "3 of 60 participants imputed as non-responders" in filled["note"]


def test_two_part_ratios_of_three_arms_are_the_ratios_of_the_means():
    """Without covariates the ratio of overall means is that of the sample means."""
    rng = np.random.default_rng(8)
    arm = np.repeat(["placebo", "low", "high"], 40)
    value = np.where(rng.random(120) < 0.3, 0.0, rng.gamma(2, 5, 120))
    ids = [f"p{k:03d}" for k in range(120)]
    rows = pd.DataFrame({"participant_id": ids, "value": value})
    rows = rows.assign(
        visit="day5", endpoint="v", source="pipeline", repeat=1, region="all", status="ok"
    )
    people = pd.DataFrame({"participant_id": ids, "arm": arm})
    tables = Tables(rows, people, visit_order=("day5",), baseline="day5")
    found = compared(tables, method="two_part", resamples=20)
    found = found[found["statistic"] == "mean_ratio"].set_index("group")["estimate"]
    for level in ("low", "high"):
        expected = value[arm == level].mean() / value[arm == "placebo"].mean()
        assert found[f"arm={level}|arm=placebo"] == pytest.approx(expected, rel=1e-6)


def test_subgroups_without_covariates_are_the_differences_within_levels():
    tables, *_ = study(vanished=0)
    people = tables.participants.assign(sex=np.tile(["f", "f", "m", "m"], N // 4))
    known = Tables(tables.measurements, people, visit_order=tables.visit_order, baseline="base")
    rows = compared(known, method="ancova", subgroups=["sex"])
    values = known.measurements[known.measurements["visit"] == "day5"].set_index("participant_id")
    joined = people.set_index("participant_id").join(values["value"])
    means = joined.groupby(["sex", "arm"])["value"].mean()
    found = rows[rows["statistic"] == "subgroup_difference"].set_index("group")["estimate"]
    for sex in "fm":
        expected = means[sex, "drug"] - means[sex, "placebo"]
        assert found[f"arm=drug|arm=placebo|sex={sex}"] == pytest.approx(expected)
    import statsmodels.formula.api as smf

    fit = smf.ols("value ~ C(arm) * C(sex)", joined).fit()
    interaction = rows[rows["statistic"] == "interaction_p"].iloc[0]
    assert interaction["p_value"] == pytest.approx(fit.pvalues.iloc[-1])


def test_stratified_tests_through_the_plan():
    tables, *_ = study()
    people = tables.participants.assign(site=np.tile(["x", "y", "z"], N // 3))
    known = Tables(tables.measurements, people, visit_order=tables.visit_order, baseline="base")
    rows = compared(known, method="mann_whitney", strata=["site"])
    assert rows[rows["statistic"] == "van_elteren_z"].iloc[0]["p_value"] < 0.2
    keys = {"method": "binary", "derivation": "responder", "responder": "percent_change <= 0"}
    rows = compared(known, **keys, covariates=[], strata=["site"])
    row = rows[rows["statistic"] == "stratified_risk_difference"].iloc[0]
    assert row["ci_low"] < row["estimate"] < row["ci_high"]
    assert "equal to statsmodels" in row["second_method"]


@pytest.mark.parametrize(
    ("counts", "limits"),
    [((56, 70, 48, 80), (0.0528, 0.3382)), ((9, 10, 3, 10), (0.1700, 0.8406))],
)
def test_miettinen_nurminen_limits_as_newcombe_prints_them(counts, limits):
    """Newcombe (Stat Med 1998;17:873), table II, method 6, examples (a) and (b)."""
    from corelab.pharmacodynamics.stratified import _common_risk_difference

    gap = _common_risk_difference(*([c] for c in counts))
    found = gap.ci_low, gap.ci_high
    assert found == pytest.approx(limits, abs=6e-5)


@pytest.mark.parametrize("kind", ["correlation", "partial", "diagnostic", "markers"])
def test_the_note_of_zeros_stands_in_correlations_and_rocs(kind):
    tables, _before, _after, drug = study()
    other = tables.measurements.assign(endpoint="w")
    other["value"] += 1.0
    people = tables.participants.assign(age=np.arange(N) % 17 + 50.0)
    outcomes = pd.DataFrame({"participant_id": people["participant_id"], "visit": "day5"})
    outcomes = outcomes.assign(outcome="y", value=drug.astype(float))
    tables = Tables(
        pd.concat([tables.measurements, other]),
        people,
        outcomes=outcomes,
        visit_order=("base", "day5"),
        baseline="base",
    )
    base = {"id": "a", "endpoint": "v", "derivation": "log_ratio", "zeros": {"offset": 0.5}}
    base |= {"visit": "day5"}
    more = {
        "correlation": {"type": "correlation", "endpoint": "w", "endpoint_y": "v"},
        "partial": {"type": "correlation", "outcome": "y", "method": "partial"}
        | {"covariates": ["age"]},
        "diagnostic": {"type": "diagnostic", "outcome": "y"},
        "markers": {"type": "diagnostic", "outcome": "y", "endpoint": ["v", "w"]},
    }[kind]
    rows = run({**base, **more}, tables)
    if kind == "markers":
        rows = rows[rows["statistic"] == "auc_difference"]
    assert rows["note"].str.contains("0.5 added to every value").all() and len(rows)
