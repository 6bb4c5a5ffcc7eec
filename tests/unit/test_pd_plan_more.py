"""Methods of the plan beyond the first ones: each by its key, against a truth or a library."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers import run
from scipy import stats

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.missing_visits import _impute_normal, _rubin
from corelab.pharmacodynamics.multiplicity import adjust_families
from corelab.pharmacodynamics.skewed import _fit_gamma, _fit_two_part
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.comparison import ComparisonSpec

N = 80


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Two arms; the drug halves growth, and growth worsens the outcome; some volumes are 0."""
    rng = np.random.default_rng(6)
    ids = [f"{k:03d}" for k in range(N)]
    arm = np.tile(["drug", "placebo"], N // 2)
    drug = (arm == "drug").astype(float)
    base = rng.lognormal(3, 0.5, N)
    day5 = base * np.exp(0.6 - 0.5 * drug + rng.normal(0, 0.3, N))
    oedema = np.where(rng.random(N) < 0.3 + 0.2 * drug, 0.0, rng.gamma(2, 5 - 2 * drug, N))
    outcome = 10 + 6 * np.log(day5 / base) + rng.normal(0, 1, N)
    gone = rng.random(N) < 0.2
    rows = []
    for k, who in enumerate(ids):
        rows.append((who, "baseline", "infarct_volume", "pipeline", base[k]))
        rows.append((who, "day5", "oedema_volume", "pipeline", oedema[k]))
        if not gone[k]:
            rows.append((who, "day5", "infarct_volume", "pipeline", day5[k]))
        for reader in ("r1", "r2"):
            rows.append((who, "baseline", "infarct_volume", reader, base[k] + rng.normal(0, 6)))
    measurements = pd.DataFrame(
        rows, columns=["participant_id", "visit", "endpoint", "source", "value"]
    ).assign(repeat=1, region="all", status="ok")
    people = pd.DataFrame(
        {
            "participant_id": ids,
            "arm": arm,
            "age": rng.normal(70, 8, N).round(),
            "dose": drug * 10,
            "site": np.repeat(list("abcd"), N // 4),
        }
    )
    outcomes = pd.DataFrame(
        {"participant_id": ids, "visit": "day90", "outcome": "score", "value": outcome}
    )
    return Tables(
        measurements,
        people,
        outcomes=outcomes,
        visit_order=("baseline", "day5"),
        baseline="baseline",
    )


def analysis(**keys):
    return {
        "id": "a",
        "type": "comparison",
        "endpoint": "infarct_volume",
        "by": "arm",
        "reference": "placebo",
        "visit": "day5",
        **keys,
    }


def one(rows: pd.DataFrame, statistic: str, **where) -> pd.Series:
    found = rows[rows["statistic"] == statistic]
    for column, value in where.items():
        found = found[found[column] == value]
    assert len(found) == 1, found[["group", "visit", "statistic"]]
    return found.iloc[0]


def test_responders_by_rule(tables):
    rows = run(
        analysis(
            derivation="responder",
            responder="percent_change <= 20 and change < 10",
            method="binary",
        ),
        tables,
    )
    wide = tables.measurements[tables.measurements["source"] == "pipeline"]
    wide = wide[wide["endpoint"] == "infarct_volume"].pivot_table(
        index="participant_id", columns="visit", values="value"
    )
    wide = wide.dropna().join(tables.participants.set_index("participant_id"))
    change = wide["day5"] - wide["baseline"]
    yes = (100 * change / wide["baseline"] <= 20) & (change < 10)
    for arm in ("drug", "placebo"):
        assert one(rows, "proportion", group=f"arm={arm}")["estimate"] == pytest.approx(
            yes[wide["arm"] == arm].mean()
        )
    gap = one(rows, "risk_difference")
    table = pd.crosstab(wide["arm"], yes).to_numpy()
    n = table.sum()
    chi2 = stats.chi2_contingency(table, correction=False).statistic * (n - 1) / n
    assert gap["p_value"] == pytest.approx(stats.chi2.sf(chi2, 1))
    assert f"Fisher exact p {stats.fisher_exact(table)[1]:.3g}" in gap["note"]
    exact = one(rows, "proportion_exact", group="arm=drug")
    k, n = int(yes[wide["arm"] == "drug"].sum()), int((wide["arm"] == "drug").sum())
    ci = stats.binomtest(k, n).proportion_ci(method="exact")
    assert (exact["ci_low"], exact["ci_high"]) == pytest.approx((ci.low, ci.high))


def test_binary_wants_zero_and_one(tables):
    rows = run(analysis(method="binary"), tables)
    assert rows["note"].str.contains("derivation: responder").all()


def test_one_sided_alternative(tables):
    two = one(run(analysis(method="welch"), tables), "mean_difference")
    less = one(run(analysis(method="welch", alternative="less"), tables), "mean_difference")
    more = one(run(analysis(method="welch", alternative="greater"), tables), "mean_difference")
    assert two["estimate"] < 0
    assert less["p_value"] == pytest.approx(two["p_value"] / 2)
    assert more["p_value"] == pytest.approx(1 - two["p_value"] / 2)
    assert (less["ci_low"], less["ci_high"]) == (two["ci_low"], two["ci_high"])


def test_gamma_regression_of_skewed_volumes(tables):
    row = one(run(analysis(method="gamma", covariates=["baseline"]), tables), "mean_ratio")
    # Planted: exp(-0.5) on the mean, as the spread is the same in both arms.
    assert row["ci_low"] < math.exp(-0.5) < row["ci_high"] < 1
    assert row["second_estimate"] == pytest.approx(row["estimate"], rel=1e-6)
    refused = run(analysis(method="gamma", endpoint="oedema_volume"), tables)
    assert refused["note"].str.contains("two_part or rank").all()


def test_gamma_standard_errors_are_those_of_glm():
    rng = np.random.default_rng(1)
    x = np.column_stack([np.ones(50), rng.normal(size=(50, 2))])
    y = rng.gamma(2, np.exp(x @ [0.5, 0.3, -0.2]))
    theirs = sm.GLM(y, x, family=sm.families.Gamma(sm.families.links.Log())).fit(tol=1e-13)
    ours = _fit_gamma(x, y)
    assert np.sqrt(np.diag(ours.covariance)) == pytest.approx(theirs.bse, rel=1e-6)


def test_two_part_model(tables):
    rows = run(analysis(method="two_part", endpoint="oedema_volume", resamples=200), tables)
    odds, size = one(rows, "odds_ratio"), one(rows, "mean_ratio_of_positive")
    people = tables.participants.set_index("participant_id")
    values = tables.measurements[tables.measurements["endpoint"] == "oedema_volume"]
    values = values.set_index("participant_id")["value"]
    drug = (people["arm"] == "drug").reindex(values.index)
    # Without covariates the model is saturated: its numbers are those of the groups.
    table = [[((values > 0) & drug).sum(), ((values == 0) & drug).sum()]]
    table += [[((values > 0) & ~drug).sum(), ((values == 0) & ~drug).sum()]]
    (a, b), (c, d) = table
    assert odds["estimate"] == pytest.approx(a * d / (b * c))
    means = [values[(values > 0) & g].mean() for g in (drug, ~drug)]
    assert size["estimate"] == pytest.approx(means[0] / means[1])
    whole = one(rows, "mean_ratio")
    assert whole["estimate"] == pytest.approx(values[drug].mean() / values[~drug].mean())
    assert whole["ci_low"] < whole["estimate"] < whole["ci_high"]
    # Joint test: the two Wald statistics add up on two degrees of freedom.
    fit = _fit_two_part(np.column_stack([np.ones(N), drug]), values, 1, resamples=2)
    z = [stats.norm.isf(r["p_value"] / 2) for r in (odds,)]
    assert fit.chi2 > z[0] ** 2
    assert fit.ratio.p_value == pytest.approx(stats.chi2.sf(fit.chi2, 2))


def test_rank_ancova_without_covariates_is_mann_whitney(tables):
    rows = run(analysis(method="rank", endpoint="oedema_volume"), tables)
    wilcoxon = run(analysis(method="mann_whitney", endpoint="oedema_volume"), tables)
    share = one(wilcoxon, "probability_of_superiority")["estimate"]
    assert one(rows, "rank_difference")["estimate"] == pytest.approx(share - 0.5)
    adjusted = run(analysis(method="rank", covariates=["baseline", "age"]), tables)
    assert one(adjusted, "rank_difference")["p_value"] < 0.001


def test_multiple_imputation_and_tipping_point(tables):
    rows = run(
        analysis(
            method="multiple_imputation",
            scale="log",
            covariates=["baseline"],
            imputations=20,
            tipping_point=True,
            deltas=[0, 0.5],
        ),
        tables,
    )
    row = one(rows, "mean_difference")
    assert row["ci_low"] < -0.5 < row["ci_high"] < 0
    assert row["n"] == N
    same = one(rows, "mean_difference_at_delta", group="arm=drug|arm=placebo|delta=0")
    assert same["estimate"] == pytest.approx(row["estimate"])
    moved = one(rows, "mean_difference_at_delta", group="arm=drug|arm=placebo|delta=0.5")
    assert moved["estimate"] > row["estimate"]
    tip = one(rows, "tipping_delta")["estimate"]
    for delta, significant in ((tip * 0.98, True), (tip, False)):
        at = run(
            analysis(
                method="multiple_imputation",
                scale="log",
                covariates=["baseline"],
                imputations=20,
                deltas=[float(delta)],
            ),
            tables,
        )
        assert (one(at, "mean_difference_at_delta")["p_value"] < 0.05) == significant


def test_nothing_missing_is_nothing_imputed(tables):
    full = tables.measurements[
        (tables.measurements["source"] == "pipeline")
        & (tables.measurements["endpoint"] == "infarct_volume")
    ]
    both = full.groupby("participant_id").filter(lambda g: len(g) == 2)
    complete = Tables(
        both,
        tables.participants[tables.participants["participant_id"].isin(both["participant_id"])],
        visit_order=tables.visit_order,
        baseline="baseline",
    )
    imputed = one(
        run(analysis(method="multiple_imputation", derivation="change"), complete),
        "mean_difference",
    )
    plain = one(run(analysis(method="ancova", derivation="change"), complete), "mean_difference")
    for column in ("estimate", "ci_low", "ci_high", "p_value"):
        assert imputed[column] == pytest.approx(plain[column], rel=1e-9)


def test_imputation_keeps_the_regression():
    """Draws have the conditional mean and the residual spread of the data they come from."""
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, 400)
    y = 2 + 1.5 * x + rng.normal(0, 0.5, 400)
    table = np.column_stack([x, np.where(x > 0.8, np.nan, y)])
    drawn = _impute_normal(table, 60)
    gone = x > 0.8
    gap = drawn[:, gone, 1] - (2 + 1.5 * x[gone])
    assert abs(gap.mean()) < 0.12
    assert gap.std() == pytest.approx(0.5, abs=0.08)


def test_rubins_rules_by_hand():
    """Barnard and Rubin's degrees of freedom: formula evaluated independently."""
    pooled, missing = _rubin([1.0, 1.4, 1.2, 0.9, 1.5], [0.04, 0.05, 0.045, 0.05, 0.04], 58)
    between = np.var([1.0, 1.4, 1.2, 0.9, 1.5], ddof=1)
    total = 0.045 + 1.2 * between
    gamma = 1.2 * between / total
    old, seen = 4 / gamma**2, 59 / 61 * 58 * (1 - gamma)
    assert pooled.se == pytest.approx(math.sqrt(total)) and missing == pytest.approx(gamma)
    assert pooled.df == pytest.approx(1 / (1 / old + 1 / seen))


def test_mediation_finds_the_planted_path(tables):
    rows = run(
        {
            "id": "m",
            "type": "mediation",
            "endpoint": "infarct_volume",
            "derivation": "log_ratio",
            "visit": "day5",
            "outcome": "score",
            "by": "arm",
            "reference": "placebo",
            "resamples": 400,
        },
        tables,
    )
    indirect = one(rows, "indirect_effect")
    # Planted: a = -0.5, b = 6, no direct path.
    assert indirect["ci_low"] < -3 < indirect["ci_high"] < 0
    assert indirect["p_value"] < 0.05
    direct = one(rows, "direct_effect")
    assert direct["ci_low"] < 0 < direct["ci_high"]
    parts = one(rows, "total_effect")["estimate"] - direct["estimate"]
    assert parts == pytest.approx(indirect["estimate"])
    share = one(rows, "proportion_mediated")
    assert share["ci_low"] < 1 < share["ci_high"]


def test_surrogacy_of_a_perfect_and_of_an_unrelated_endpoint(tables):
    keys = {
        "id": "s",
        "type": "surrogacy",
        "endpoint": "infarct_volume",
        "derivation": "log_ratio",
        "visit": "day5",
        "outcome": "score",
        "by": "arm",
        "reference": "placebo",
        "resamples": 200,
        "cluster": "site",
    }
    rows = run(keys, tables)
    met = [one(rows, f"prentice_{k}")["note"] for k in (1, 2, 3, 4)]
    assert ["not met" in note for note in met] == [False] * 4
    explained = one(rows, "proportion_explained")
    assert explained["ci_low"] < 1 < explained["ci_high"]
    assert one(rows, "r_squared_individual")["estimate"] > 0.6
    trial = one(rows, "r_squared_trial")
    assert 0 <= trial["estimate"] <= 1 and "4 units" in trial["note"]
    assert "no independent trials" in trial["note"]
    other = run({**keys, "endpoint": "oedema_volume", "derivation": "value"}, tables)
    assert "not met" in one(other, "prentice_4")["note"]
    assert one(other, "r_squared_individual")["estimate"] < 0.15


def test_sample_size_from_measured_repeatability(tables):
    rows = run(
        {
            "id": "n",
            "type": "sample_size",
            "endpoint": "infarct_volume",
            "sources": ["r1", "r2"],
            "difference": 5,
            "power": 0.8,
            "icc_targets": [0.95],
            "reads": [1, 2],
            "per_arm": 50,
        },
        tables,
    )
    icc = one(rows, "icc_a_1")
    single, double = (one(rows, "n_per_arm", group=f"reads={m}") for m in (1, 2))
    better = one(rows, "n_per_arm", group="icc=0.95")
    assert 0 < icc["estimate"] < 0.95
    assert better["estimate"] < double["estimate"] < single["estimate"]
    # One read at the measured reliability needs what its own SD says.
    from statsmodels.stats.power import TTestIndPower

    rows_of = tables.measurements[tables.measurements["source"].isin(["r1", "r2"])]
    # SD of one read: both readers' variances, not the first reader's alone.
    variance = rows_of.groupby("source")["value"].var().mean()
    size = TTestIndPower().solve_power(5 / math.sqrt(variance), power=0.8, alpha=0.05)
    assert single["estimate"] == math.ceil(size)
    power = TTestIndPower().power(5 / math.sqrt(variance), 50, 0.05)
    assert one(rows, "power")["estimate"] == pytest.approx(power, abs=1e-9)
    assert single["ci_low"] <= single["estimate"] <= single["ci_high"]


def test_correlation_by_group_and_corrected_for_attenuation(tables):
    keys = {
        "id": "c",
        "type": "correlation",
        "endpoint": "infarct_volume",
        "visit": "day5",
        "derivation": "log_ratio",
        "outcome": "score",
    }
    groups = run({**keys, "by": "arm", "reference": "placebo"}, tables)
    parts = groups[groups["statistic"] == "pearson_r"].set_index("group")["estimate"]
    gap = one(groups, "correlation_difference")
    assert gap["estimate"] == pytest.approx(parts.iloc[1] - parts.iloc[0])
    plain = one(run(keys, tables), "pearson_r")
    raised = one(
        run({**keys, "method": "attenuation", "reliability": 0.81, "reliability_y": 1.0}, tables),
        "disattenuated_r",
    )
    assert raised["estimate"] == pytest.approx(plain["estimate"] / 0.9)
    measured = one(
        run({**keys, "method": "attenuation", "reliability_sources": ["r1", "r2"]}, tables),
        "disattenuated_r",
    )
    assert measured["estimate"] > plain["estimate"] and "ICC(A,1)" in measured["note"]


def test_dependent_correlations(tables):
    rows = run(
        {
            "id": "c",
            "type": "correlation",
            "endpoint": ["infarct_volume", "oedema_volume"],
            "visit": "day5",
            "outcome": "score",
            "compare_pairs": True,
        },
        tables,
    )
    gap = one(rows, "correlation_difference")
    assert gap["group"] == "infarct_volume|oedema_volume"
    assert gap["ci_low"] < gap["estimate"] < gap["ci_high"]


def test_trend_and_sigmoid_profile_through_the_plan(tables):
    people = tables.participants.assign(dose=np.tile([0.0, 2, 4, 8, 16], N // 5))
    rng = np.random.default_rng(2)
    d = people["dose"].to_numpy()
    rows = pd.DataFrame(
        {
            "participant_id": people["participant_id"],
            "visit": "day5",
            "endpoint": "e",
            "source": "pipeline",
            "value": 2 + 20 * d**2 / (16 + d**2) + rng.normal(0, 1.0, N),
            "repeat": 1,
            "region": "all",
            "status": "ok",
        }
    )
    given = Tables(rows, people, visit_order=("day5",))
    found = run(
        {
            "id": "d",
            "type": "dose_response",
            "endpoint": "e",
            "dose": "dose",
            "models": ["trend", "sigmoid_emax"],
        },
        given,
    )
    assert one(found, "trend_z")["p_value"] < 1e-6
    for statistic, truth in (("ed50", 4.0), ("hill", 2.0), ("emax", 20.0)):
        row = one(found, statistic)
        assert row["ci_low"] < truth < row["ci_high"], statistic
        assert "profile" in row["method"]


@pytest.mark.parametrize(
    ("adjustment", "expected"),
    [
        # p 0.010, 0.030, 0.035 in the order of the plan.
        ("holm", [0.03, 0.06, 0.06]),
        ("hochberg", [0.03, 0.035, 0.035]),
        ("bh", [0.03, 0.035, 0.035]),
        ("fixed_sequence", [0.01, 0.03, 0.035]),
    ],
)
def test_families_of_the_plan(adjustment, expected):
    plan = [AnalysisSpec(id=k, type="", family="f", adjustment=adjustment) for k in "abc"]
    rows = pd.DataFrame(
        {
            "analysis_id": list("abc"),
            "statistic": "mean_difference",
            "group": "all",
            "p_value": [0.010, 0.030, 0.035],
        }
    )
    assert adjust_families(rows, plan)["p_adjusted"].tolist() == pytest.approx(expected)


def test_every_method_runs_or_says_why(tables):
    for method in ComparisonSpec.choices("method"):
        rows = run(analysis(method=method, imputations=5, resamples=20), tables)
        known = rows["estimate"].notna() | rows["note"].str.contains("not_computable")
        assert known.all() and len(rows), method


def test_who_has_no_grade_takes_the_worst_one_where_so_planned():
    ids = [f"p{k}" for k in range(20)]
    people = pd.DataFrame({"participant_id": ids, "arm": ["drug", "control"] * 10})
    grades = pd.DataFrame({"participant_id": ids[:16], "visit": "d90", "outcome": "mrs"})
    grades["value"] = [float(k % 6) for k in range(16)]
    analysis = {"id": "a", "type": "ordinal", "outcome": "mrs", "by": "arm", "cut": 2}
    empty = pd.DataFrame(columns=["participant_id", "visit", "endpoint", "source", "value"])
    tables = Tables(empty, people, outcomes=grades)
    full = pd.concat(
        [grades, pd.DataFrame({"participant_id": ids[16:], "visit": "d90", "outcome": "mrs"})]
    ).fillna({"value": 5.0})
    imputed = run({**analysis, "nonresponder_imputation": True}, tables)
    whole = run(analysis, Tables(empty, people, outcomes=full))
    assert imputed["estimate"].tolist() == whole["estimate"].tolist()
    assert imputed["note"].str.startswith("4 of 20 participants without mrs take grade 5").all()
