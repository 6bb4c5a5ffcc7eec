"""Every analysis type of the plan on a simulated trial, against scipy, statsmodels and lifelines."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from helpers import planned, run

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.multiplicity import adjust_families
from corelab.plan.drawing import drawers, write_figures
from corelab.provenance.exhibits import read_exhibits
from corelab.settings.analyses.base import AnalysisSpec
from corelab.study.columns import STATISTICS

N = 60


def trial(seed: int = 4) -> Tables:
    """60 participants, three doses; growth falls by 0.4 mL per mg; two have no day-5 scan."""
    rng = np.random.default_rng(seed)
    ids = [f"{k:03d}" for k in range(1, N + 1)]
    dose = np.repeat([0.0, 10.0, 25.0], N // 3)
    arm = np.repeat(["placebo", "low", "high"], N // 3)
    age = rng.normal(68, 10, N).round()
    baseline = rng.lognormal(2.5, 0.6, N)
    growth = 14 - 0.4 * dose + 0.2 * baseline + rng.normal(0, 4, N)
    day5 = baseline + growth
    exposure = dose * rng.lognormal(0, 0.3, N)
    latent = 0.3 * growth + rng.logistic(size=N)
    mrs = np.digitize(latent, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).astype(float)
    nihss = np.maximum(0, np.round(0.4 * day5 + rng.normal(0, 4, N)))
    hazard = np.exp(0.05 * growth)
    death = rng.exponential(700 / hazard)
    progression = death * rng.uniform(0.3, 0.8, N)
    rows = []
    for k, who in enumerate(ids):
        for visit, value in (("baseline", baseline[k]), ("day5", day5[k])):
            if visit == "day5" and k in (3, 41):
                continue
            rows.append((who, visit, "infarct_volume", "pipeline", value))
        rows.append((who, "day5", "infarct_volume", "reader-1", day5[k] + rng.normal(0, 1)))
        rows.append(
            (who, "baseline", "core_volume", "pipeline", 0.7 * baseline[k] + rng.normal(0, 2))
        )
    measurements = pd.DataFrame(
        rows, columns=["participant_id", "visit", "endpoint", "source", "value"]
    ).assign(repeat=1, region="all", unit="mL", status="ok", reason="", scan_ids="", row_id="")
    participants = pd.DataFrame(
        {
            "participant_id": ids,
            "arm": arm,
            "dose": dose,
            "site": np.tile([1, 2, 3], N // 3),
            "age": age,
            "sex": np.where(np.arange(N) % 2, "m", "f"),
            "withdrawn": np.where(np.arange(N) == 7, "true", "false"),
        }
    )
    outcomes = pd.concat(
        [
            pd.DataFrame({"participant_id": ids, "visit": "day90", "outcome": "mrs", "value": mrs}),
            pd.DataFrame(
                {"participant_id": ids, "visit": "day5", "outcome": "nihss", "value": nihss}
            ),
            pd.DataFrame(
                {"participant_id": ids, "visit": "baseline", "outcome": "nihss", "value": nihss + 3}
            ),
        ],
        ignore_index=True,
    )
    exposures = pd.DataFrame(
        {"participant_id": ids, "exposure": "auc", "value": exposure, "visit": None}
    )
    censor = 900.0
    events = []
    for k, who in enumerate(ids):
        events.append((who, "os", min(death[k], censor), float(death[k] <= censor), None))
        for criterion, shift in (("local-RECIST", 12.0), ("central-RANO", 0.0)):
            when = progression[k] + shift * (k % 3)
            events.append((who, "pfs", min(when, censor), float(when <= censor), criterion))
    return Tables(
        measurements,
        participants,
        outcomes=outcomes,
        exposures=exposures,
        events=pd.DataFrame(
            events, columns=["participant_id", "endpoint", "time_days", "event", "criterion"]
        ),
        visit_order=("baseline", "day5", "day90"),
        baseline="baseline",
    )


@pytest.fixture(scope="module")
def tables() -> Tables:
    return trial()


def wide(tables: Tables) -> pd.DataFrame:
    rows = tables.measurements
    rows = rows[(rows["endpoint"] == "infarct_volume") & (rows["source"] == "pipeline")]
    frame = rows.set_index(["participant_id", "visit"])["value"].unstack("visit")  # noqa: PD010
    return frame.join(tables.participants.set_index("participant_id"))


def one(result: pd.DataFrame, statistic: str, group: str | None = None, visit: str | None = None):
    chosen = result[result["statistic"] == statistic]
    if group is not None:
        chosen = chosen[chosen["group"] == group]
    if visit is not None:
        chosen = chosen[chosen["visit"] == visit]
    assert len(chosen) == 1, chosen[["visit", "group", "statistic"]]
    return chosen.iloc[0]


def well_formed(result: pd.DataFrame) -> None:
    """The contract's columns; no number that is missing without a reason; nothing unchecked."""
    assert list(result.columns) == list(STATISTICS)
    assert len(set(result["analysis_id"])) == 1
    silent = result["estimate"].isna() & ~result["note"].str.contains("not_computable|not reached")
    assert not silent.any(), result[silent]
    given = result[result["ci_low"].notna() & result["ci_high"].notna()]
    assert (given["ci_low"] <= given["estimate"] + 1e-9).all()
    assert (given["estimate"] <= given["ci_high"] + 1e-9).all()
    assert given["ci_level"].eq(0.95).all()
    key = ["endpoint", "visit", "participant_id", "group", "statistic", "method"]
    assert not result.duplicated(key).any(), result[result.duplicated(key, keep=False)][key]


def test_correlation_with_an_outcome_pairs_visits(tables):
    plan = {"id": "c", "type": "correlation", "endpoint": "infarct_volume"}
    plan |= {"method": ["pearson", "spearman", "kendall"]}
    every = [run({**plan, "outcome": name}, tables) for name in ("nihss", "mrs")]
    result = pd.concat(every, ignore_index=True)
    well_formed(result)
    nihss = tables.outcomes[
        (tables.outcomes["outcome"] == "nihss") & (tables.outcomes["visit"] == "day5")
    ].set_index("participant_id")["value"]
    frame = wide(tables).assign(nihss=nihss).dropna(subset=["day5", "nihss"])
    row = one(result, "pearson_r", "infarct_volume|nihss", "day5")
    assert row["estimate"] == pytest.approx(frame["day5"].corr(frame["nihss"]), abs=1e-12)
    assert row["n"] == 58
    assert "complete cases: 58 of 60" in row["note"]
    assert "nihss" in row["group"] and "at day5" in row["note"]
    assert "at day90" in one(result, "spearman_rho", "infarct_volume|mrs", "baseline")["note"]
    assert (result["second_estimate"] - result["estimate"]).abs().max() < 1e-8


def test_correlation_of_change_with_exposure_partial_and_repeated(tables):
    plan = {"id": "c", "type": "correlation", "endpoint": "infarct_volume", "exposure": "auc"}
    change = run({**plan, "derivation": "change", "visit": "day5"}, tables)
    assert one(change, "pearson_r")["estimate"] < -0.3
    partial = run(
        {
            **plan,
            "method": ["partial", "semi_partial"],
            "covariates": ["age", "sex"],
            "visit": "day5",
        },
        tables,
    )
    well_formed(partial)
    assert set(partial["second_method"]) == {"pingouin.partial_corr"}
    repeated = run(
        {
            "id": "c",
            "type": "correlation",
            "endpoint": "infarct_volume",
            "outcome": "nihss",
            "method": "repeated",
        },
        tables,
    )
    well_formed(repeated)
    row = one(repeated, "rm_r")
    assert row["visit"] == "all"
    assert row["n"] == 60
    assert "58 participants" in row["method"]


def test_correlation_of_two_endpoints(tables):
    result = run(
        {
            "id": "c",
            "type": "correlation",
            "endpoint": "core_volume",
            "endpoint_y": "infarct_volume",
            "visit_y": "day5",
        },
        tables,
    )
    assert one(result, "pearson_r", "core_volume|infarct_volume")["n"] == 58


def test_ancova_is_statsmodels_formula(tables):
    import statsmodels.formula.api as smf

    result = run(
        {
            "id": "a",
            "type": "comparison",
            "endpoint": "infarct_volume",
            "derivation": "change",
            "visit": "day5",
            "by": "arm",
            "covariates": ["age", "site"],
        },
        tables,
    )
    well_formed(result)
    frame = wide(tables).dropna(subset=["day5"]).rename(columns={"baseline": "base"})
    frame["change"] = frame["day5"] - frame["base"]
    fit = smf.ols("change ~ C(arm, Treatment('placebo')) + base + age + C(site)", frame).fit()
    row = one(result, "mean_difference", "arm=high|arm=placebo")
    term = "C(arm, Treatment('placebo'))[T.high]"
    assert row["estimate"] == pytest.approx(fit.params[term], abs=1e-9)
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(
        list(fit.conf_int().loc[term]), abs=1e-8
    )
    assert row["p_value"] == pytest.approx(fit.pvalues[term], rel=1e-8)
    means = result[result["statistic"] == "adjusted_mean"].set_index("group")["estimate"]
    assert means["arm=high"] - means["arm=placebo"] == pytest.approx(row["estimate"])
    assert "reference placebo" in row["note"]


@pytest.mark.parametrize("method", ["t", "welch", "mann_whitney"])
def test_two_sample_methods(tables, method):
    result = run(
        {
            "id": "a",
            "type": "comparison",
            "endpoint": "infarct_volume",
            "derivation": "change",
            "method": method,
            "reference": "placebo",
        },
        tables,
    )
    well_formed(result)
    frame = wide(tables)
    change = (frame["day5"] - frame["baseline"]).dropna()
    gap = change[frame["arm"] == "high"].mean() - change[frame["arm"] == "placebo"].mean()
    row = one(result, "mean_difference", "arm=high|arm=placebo")
    assert row["estimate"] == pytest.approx(gap, abs=1e-10)


def test_mmrm_over_two_later_visits(tables):
    rng = np.random.default_rng(2)
    extra = tables.measurements[
        (tables.measurements["visit"] == "day5") & (tables.measurements["source"] == "pipeline")
    ].copy()
    extra["visit"] = "day90"
    extra["value"] += rng.normal(2, 3, len(extra))
    both = Tables(
        pd.concat([tables.measurements, extra.iloc[5:]], ignore_index=True),
        tables.participants,
        visit_order=tables.visit_order,
        baseline="baseline",
    )
    plan = {
        "id": "m",
        "type": "comparison",
        "endpoint": "infarct_volume",
        "derivation": "change",
        "method": "mmrm",
        "covariates": ["age"],
    }
    result = run(plan, both)
    well_formed(result)
    row = one(result, "mean_difference", "arm=high|arm=placebo", "day5")
    assert row["second_method"].startswith("statsmodels MixedLM")
    assert row["ci_high"] < 0
    plain = one(
        run({**plan, "df": "satterthwaite"}, both),
        "mean_difference",
        "arm=high|arm=placebo",
        "day5",
    )
    assert plain["estimate"] == pytest.approx(row["estimate"])
    # Kenward-Roger never narrows the interval here.
    assert row["ci_high"] - row["ci_low"] > plain["ci_high"] - plain["ci_low"]
    ladder = run({**plan, "covariance": ["ar1h"]}, both)
    assert "ar1h" in ladder["method"].iloc[0]
    single = run(plan, tables)
    assert single["note"].str.contains("needs two visits").all()


def test_dose_response_models(tables):
    plan = {
        "id": "d",
        "type": "dose_response",
        "endpoint": "infarct_volume",
        "derivation": "change",
        "visit": "day5",
    }
    result = run(
        {**plan, "dose": "dose", "models": ["linear", "emax", "mcpmod"], "direction": "decreasing"},
        tables,
    )
    well_formed(result)
    slope = one(result, "slope", "dose")
    assert slope["ci_low"] < -0.4 < slope["ci_high"]
    from scipy import stats

    frame = wide(tables).dropna(subset=["day5"])
    line = stats.linregress(frame["dose"], frame["day5"] - frame["baseline"])
    assert slope["estimate"] == pytest.approx(line.slope)
    assert slope["p_value"] == pytest.approx(line.pvalue)
    assert one(result, "mcp_t", "dose|linear")["p_value"] < 0.05
    sigmoid = run({**plan, "dose": "dose", "models": ["sigmoid_emax"]}, tables)
    assert "3 distinct doses" in sigmoid["note"].iloc[0]
    exposed = run({**plan, "exposure": "auc", "models": ["linear", "emax"]}, tables)
    well_formed(exposed)
    assert one(exposed, "slope", "auc")["estimate"] < 0


def test_ordinal_by_arm_and_along_an_endpoint(tables):
    plan = {"id": "o", "type": "ordinal", "outcome": "mrs"}
    result = run({**plan, "by": "arm", "endpoint": "infarct_volume", "cut": 2}, tables)
    well_formed(result)
    odds = one(result, "common_odds_ratio", "arm=high|arm=placebo")
    assert odds["estimate"] < 1
    assert odds["second_method"] == "statsmodels OrderedModel"
    assert "score test chi2" in odds["note"]
    wins = one(result, "win_ratio", "arm=high|arm=placebo")
    assert wins["estimate"] > 1
    assert one(result, "risk_difference", "arm=high|arm=placebo")["estimate"] > 0
    adjusted = run({**plan, "by": "arm", "covariates": ["age"]}, tables)
    wins = one(adjusted, "win_ratio", "arm=high|arm=placebo")
    assert "without the covariates age" in wins["note"]
    along = run({**plan, "endpoint": "infarct_volume", "derivation": "change"}, tables)
    well_formed(along)
    assert one(along, "common_odds_ratio", "infarct_volume|mrs")["ci_low"] > 1


def test_generalised_odds_ratio_over_strata(tables):
    """Inverse-variance mean of what the strata give each for itself."""
    plan = {"id": "o", "type": "ordinal", "outcome": "mrs", "by": "arm"}
    group = "arm=high|arm=placebo"
    pooled = one(
        run({**plan, "strata": ["sex"]}, tables), "stratified_generalised_odds_ratio", group
    )
    logs, weights = [], []
    for sex in "fm":
        row = one(
            run({**plan, "population": f"sex == '{sex}'"}, tables), "generalised_odds_ratio", group
        )
        logs.append(math.log(row["estimate"]))
        weights.append((math.log(row["ci_high"] / row["ci_low"]) / 2 / 1.959963984540054) ** -2)
    assert pooled["estimate"] == pytest.approx(math.exp(np.average(logs, weights=weights)))
    width = math.log(pooled["ci_high"] / pooled["ci_low"])
    assert width == pytest.approx(2 * 1.959963984540054 / math.sqrt(sum(weights)))
    assert pooled["n"] == 40 and "2 of 2 strata; heterogeneity Q" in pooled["note"]


def test_quantile_terms_and_groups(tables):
    result = run(
        {
            "id": "q",
            "type": "quantile",
            "endpoint": "infarct_volume",
            "derivation": "change",
            "by": "arm",
            "covariates": ["age"],
            "quantiles": [0.25, 0.5, 0.9],
        },
        tables,
    )
    well_formed(result)
    assert len(result) == 3 * 4
    assert one(result, "quantile_coefficient", "q=0.50|arm=high")["estimate"] < 0
    assert {"q=0.90|Intercept", "q=0.25|age"} <= set(result["group"])


def test_survival_rows_are_those_of_lifelines(tables):
    result = run(
        {
            "id": "s",
            "type": "survival",
            "event_endpoint": "os",
            "by": "arm",
            "covariates": ["age"],
            "method": ["km", "logrank", "cox", "rmst"],
            "endpoint": "infarct_volume",
            "derivation": "change",
        },
        tables,
    )
    well_formed(result)
    assert one(result, "median_days", "arm=high")["n"] == 20
    row = one(result, "hazard_ratio", "arm=high|arm=placebo")
    assert row["second_estimate"] == pytest.approx(row["estimate"], abs=1e-6)
    assert one(result, "logrank_p", "arm=high|arm=placebo")["p_value"] <= 1
    volume = one(result, "hazard_ratio", "infarct_volume|os")
    assert volume["ci_low"] < math.exp(0.05) < volume["ci_high"]
    assert one(result, "spearman_rho")["estimate"] < 0
    assert {"rmst_days", "rmst_difference_days", "c_index"} <= set(result["statistic"])


def test_outcomes_are_drawn_as_one_exhibit_that_repeats(tables, tmp_path):
    analysis = {
        "id": "s",
        "type": "survival",
        "event_endpoint": "os",
        "by": "arm",
        "method": ["km", "cox"],
        "endpoint": "infarct_volume",
        "derivation": "change",
    }
    rows = run(analysis, tables)

    def draw(plan, rows, place):
        exhibits = tmp_path / place / "exhibits"
        draws = drawers(planned(plan), tables, rows, [], tmp_path)
        where = f"analysis_{plan['id']}"
        return write_figures(
            planned(plan), lambda: draws, exhibits / f"{where}.json", exhibits / where
        )

    assert draw(analysis, rows, "a") == draw(analysis, rows, "b") == []
    (exhibit,) = read_exhibits(tmp_path / "a")
    assert exhibit.section == "analysis:s" and len(exhibit.drawings) >= 2
    assert exhibit.drawings[0].figure == "analysis_s/s_km_os.svg"
    for file in (tmp_path / "a" / "exhibits" / "analysis_s").iterdir():
        again = tmp_path / "b" / "exhibits" / "analysis_s" / file.name
        assert file.read_bytes() == again.read_bytes(), file.name
    # Where nothing can be drawn, the exhibit says so.
    analysis = {"id": "n", "type": "survival", "event_endpoint": "ttp"}
    assert "Nothing to draw" in draw(analysis, run(analysis, tables), "c")[0]
    assert "Nothing to draw" in read_exhibits(tmp_path / "c")[0].caption


def test_survival_names_the_criterion_it_needs(tables):
    result = run({"id": "s", "type": "survival", "event_endpoint": "pfs"}, tables)
    assert "criterion: central-RANO, local-RECIST" in result["note"].iloc[0]
    result = run(
        {"id": "s", "type": "survival", "event_endpoint": "pfs", "criterion": "central-RANO"},
        tables,
    )
    assert one(result, "median_days")["estimate"] > 0


def test_progression_by_two_criteria(tables):
    result = run(
        {"id": "p", "type": "progression", "criteria": ["local-RECIST", "central-RANO"]}, tables
    )
    well_formed(result)
    assert one(result, "bias")["estimate"] == pytest.approx(12, abs=2.5)
    assert one(result, "kappa")["estimate"] > 0.7
    for criterion in ("local-RECIST", "central-RANO"):
        row = one(result, "r_squared", f"{criterion}|os")
        assert 0.4 < row["ci_low"] < row["estimate"] < row["ci_high"] <= 1
    gap = one(result, "r_squared_difference")
    first, second = (
        one(result, "r_squared", f"{c}|os")["estimate"] for c in ("local-RECIST", "central-RANO")
    )
    assert gap["estimate"] == pytest.approx(first - second)


def test_supervised_risk_score_on_planted_features(tables):
    rng = np.random.default_rng(11)
    n, p = 80, 40
    ids = [f"g{k:02d}" for k in range(n)]
    factor = rng.normal(size=n)
    x = rng.normal(size=(n, p))
    x[:, :6] += 1.6 * factor[:, None]
    time = rng.exponential(500 * np.exp(-0.9 * factor))
    cut = np.minimum(time, 1500)
    features = pd.DataFrame(
        [
            (who, "baseline", "T1c", "enhancing", source, f"f{j:02d}", x[i, j] + noise)
            for i, who in enumerate(ids)
            for j in range(p)
            for source, noise in (("pipeline", 0.0), ("reader-1", rng.normal(0, 0.4)))
        ],
        columns=["participant_id", "visit", "series", "label", "source", "feature", "value"],
    )
    data = Tables(
        tables.measurements,
        pd.DataFrame({"participant_id": ids, "mgmt": rng.integers(0, 2, n)}),
        events=pd.DataFrame(
            {
                "participant_id": ids,
                "endpoint": "os",
                "time_days": cut,
                "event": (time <= 1500) * 1.0,
            }
        ),
        radiomics=features,
        visit_order=("baseline",),
    )
    result = run(
        {
            "id": "r",
            "type": "radiomics",
            "series": ["T1c"],
            "labels": ["enhancing"],
            "model": "superpc",
            "threshold": 1.54,
            "min_icc": 0.5,
            "covariates": ["mgmt"],
            "permutations": 9,
        },
        data,
    )
    well_formed(result)
    found = set(result.loc[result["statistic"] == "importance", "group"])
    planted = {f"T1c/enhancing/f{j:02d}" for j in range(6)}
    assert len(found & planted) >= 5
    assert one(result, "c_index")["ci_low"] > 0.5
    assert one(result, "hazard_ratio", "risk=high|risk=low")["estimate"] > 1
    assert one(result, "permutation_p")["estimate"] == pytest.approx(0.1)
    assert (result["statistic"] == "icc_a_1").sum() == p


def test_diagnostic_roc_and_paired_sources(tables):
    result = run(
        {
            "id": "x",
            "type": "diagnostic",
            "endpoint": "infarct_volume",
            "visit": "day5",
            "outcome": "mrs",
            "positive_above": 2,
            "sources": ["pipeline", "reader-1"],
            "positive_from": 25,
        },
        tables,
    )
    well_formed(result)
    assert 0 < one(result, "auc", "pipeline")["estimate"] < 1
    assert one(result, "sensitivity", "reader-1")["note"].count("/") == 1
    assert one(result, "mcnemar_p")["p_value"] <= 1


def test_missing_pieces_are_rows_with_reasons(tables):
    cases = [
        ({"type": "correlation", "endpoint": "aspects", "outcome": "mrs"}, "no value of aspects"),
        ({"type": "correlation", "endpoint": "infarct_volume", "outcome": "gcs"}, "outcome gcs"),
        ({"type": "correlation", "endpoint": "infarct_volume", "exposure": "cmax"}, "has auc"),
        (
            {"type": "comparison", "endpoint": "infarct_volume", "by": "country"},
            "no column country",
        ),
        (
            {"type": "comparison", "endpoint": "infarct_volume", "population": 'arm == "low"'},
            "a comparison needs two",
        ),
        (
            {"type": "comparison", "endpoint": "infarct_volume", "reference": "sham"},
            "reference arm=sham",
        ),
        (
            {
                "type": "comparison",
                "endpoint": "infarct_volume",
                "covariates": ["dose", "age"],
            },
            "is determined by",
        ),
        ({"type": "dose_response", "endpoint": "infarct_volume", "dose": "sex"}, "not numeric"),
        ({"type": "ordinal", "outcome": "mrs", "population": "age > 200"}, "0 levels"),
        ({"type": "quantile", "endpoint": "nothing", "quantiles": [0.5]}, "no value of nothing"),
        ({"type": "survival", "event_endpoint": "ttp"}, "no time to ttp"),
        ({"type": "progression", "criteria": ["a", "b"]}, "no time to pfs by a"),
        ({"type": "radiomics", "series": ["T1c"], "labels": ["x"]}, "no radiomics features"),
    ]
    for analysis, words in cases:
        result = run({"id": "z", **analysis}, tables)
        well_formed(result)
        assert result["estimate"].isna().all(), analysis
        assert result["note"].str.startswith("not_computable: ").all()
        assert words in result["note"].iloc[0], (analysis, result["note"].iloc[0])


def test_few_participants_and_constant_values(tables):
    few = run(
        {
            "id": "z",
            "type": "correlation",
            "endpoint": "infarct_volume",
            "outcome": "mrs",
            "population": 'participant_id in ["001", "002"]',
        },
        tables,
    )
    assert few["note"].str.contains("needs 3").all()
    flat = Tables(
        tables.measurements.assign(value=5.0),
        tables.participants,
        outcomes=tables.outcomes,
        visit_order=tables.visit_order,
        baseline="baseline",
    )
    for analysis in (
        {"type": "correlation", "endpoint": "infarct_volume", "outcome": "mrs"},
        {"type": "comparison", "endpoint": "infarct_volume"},
        {"type": "comparison", "endpoint": "infarct_volume", "method": "mann_whitney"},
        {"type": "comparison", "endpoint": "infarct_volume", "method": "t"},
        {
            "type": "dose_response",
            "endpoint": "infarct_volume",
            "dose": "dose",
            "models": ["linear", "emax"],
        },
    ):
        result = run({"id": "z", **analysis}, flat)
        well_formed(result)
        assert result["note"].str.contains("not_computable").all(), analysis


def test_mistakes_in_the_plan_stop(tables):
    for analysis, words in (
        ({"type": "regression"}, "not one of"),
        ({"type": "correlation", "endpoint": "x", "outcome": "mrs", "method": "phi"}, "know 'phi'"),
        ({"type": "comparison", "endpoint": "x", "method": "anova2"}, "know 'anova2'"),
        ({"type": "survival", "endpoint": "x"}, "event_endpoint: Field required"),
        ({"type": "progression", "criteria": ["a"]}, "criteria: List should have at least 2"),
    ):
        with pytest.raises(ValueError, match=words):
            run({"id": "z", **analysis}, tables)


def test_the_same_rows_twice(tables):
    analysis = {
        "id": "p",
        "type": "progression",
        "criteria": ["local-RECIST", "central-RANO"],
    }
    pd.testing.assert_frame_equal(run(analysis, tables), run(analysis, tables))


def test_families_adjust_conclusions_only(tables):
    plan = [
        {
            "id": "a1",
            "type": "comparison",
            "endpoint": "infarct_volume",
            "derivation": "change",
            "family": "primary",
        },
        {
            "id": "a2",
            "type": "survival",
            "event_endpoint": "os",
            "by": "arm",
            "family": "primary",
        },
        {"id": "a3", "type": "correlation", "endpoint": "infarct_volume", "outcome": "mrs"},
    ]
    frame = pd.concat([run(analysis, tables) for analysis in plan], ignore_index=True)
    result = adjust_families(frame, [planned(one) for one in plan])
    adjusted = result[result["p_adjusted"].notna()]
    assert set(adjusted["statistic"]) == {"mean_difference", "logrank_p"}
    assert (adjusted["p_adjusted"] >= adjusted["p_value"] - 1e-15).all()
    assert result.loc[result["analysis_id"] == "a3", "family"].eq("").all()
    assert list(result.columns[: len(STATISTICS)]) == list(STATISTICS)
    with pytest.raises(ValueError, match="different procedures"):
        adjust_families(
            frame,
            [AnalysisSpec(id=k, type="", family=f) for k, f in (("a1", "f:holm"), ("a2", "f:bh"))],
        )
