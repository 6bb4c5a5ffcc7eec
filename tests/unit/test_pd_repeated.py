"""Responders and grades at several visits, and exposure-response over visits."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from helpers import run
from scipy import stats

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.partial_odds import _fit_partial_odds
from corelab.pharmacodynamics.proportional_odds import fit_proportional_odds
from corelab.pharmacodynamics.random_intercept import fit_random_intercept
from corelab.pharmacodynamics.repeated_grades import _fit_binary_gee, _fit_grades

#: Children of the Ohio wheeze study (Ware 1984; geepack::ohio): wheeze at 7 to 10 years, mother a
#: smoker or not. Number of children by the four answers, 0000, 0001, ... 1111.
OHIO = {
    0: [237, 10, 15, 4, 16, 2, 7, 3, 24, 3, 3, 2, 6, 2, 5, 11],
    1: [118, 6, 8, 2, 11, 1, 6, 4, 7, 3, 3, 1, 4, 2, 4, 7],
}


def ohio():
    rows, child = [], 0
    for smoke, counts in OHIO.items():
        for pattern, count in enumerate(counts):
            for _ in range(count):
                bits = f"{pattern:04b}"
                rows += [(child, age - 2, smoke, int(bits[age])) for age in range(4)]
                child += 1
    return pd.DataFrame(rows, columns=["id", "age", "smoke", "resp"])


def test_gee_as_geepack_prints_it():
    """geese(resp ~ age + smoke + age:smoke, id, ohio, binomial, corstr = "exchangeable")."""
    data = ohio()
    x = np.column_stack([np.ones(len(data)), data["age"], data["smoke"], data.age * data.smoke])
    fit = _fit_binary_gee(data["id"], data["resp"], x)
    printed = [-1.90049518, -0.14123591, 0.31382579, 0.07083184]
    assert fit.coefficients.tolist() == pytest.approx(printed, abs=5e-7)
    assert fit.correlation == pytest.approx(0.3544, abs=5e-5)
    errors = np.sqrt(np.diag(fit.covariance))
    assert errors.tolist() == pytest.approx([0.1191, 0.0582, 0.1878, 0.0883], abs=7e-5)
    few = (data["id"] % 15 == 0).to_numpy()
    assert "Mancl" in _fit_binary_gee(data["id"][few], data["resp"][few], x[few]).words


def test_repeated_grades_of_two_levels_are_a_logistic_gee():
    data = ohio().iloc[900:1700]
    x = data[["age"]].to_numpy(float)
    ours = _fit_grades(data["id"], data["resp"], x)
    theirs = sm.GEE(
        data["resp"],
        sm.add_constant(x),
        groups=data["id"],
        family=sm.families.Binomial(),
        cov_struct=sm.cov_struct.Independence(),
    ).fit()
    assert ours.coefficients[0] == pytest.approx(theirs.params.iloc[1], rel=1e-6)
    g = ours.clusters
    assert ours.covariance[0, 0] == pytest.approx(theirs.bse.iloc[1] ** 2 * g / (g - 1), rel=1e-6)


#: Bitterness of wine (Randall 1989; ordinal::wine): a judge in a word, 8 ratings: cold without
#: contact twice, cold with it twice, warm without it twice, warm with it twice.
WINE = "23344455 12132354 23325544 32323253 23433333 32322454 11222323 22233334 12323244"


def test_a_random_intercept_as_glmer_prints_it():
    """lme4::glmer(resp ~ age + smoke + (1 | id), ohio, binomial, nAGQ = 25), Faraway, brinla."""
    data = ohio()
    fit = fit_random_intercept(data["id"], data["resp"], data[["age", "smoke"]])
    # glmer's optimiser stops within 1e-4 of the maximum.
    assert [-fit.thresholds[0], *fit.coefficients] == pytest.approx(
        [-3.1015, -0.1756, 0.3986], abs=1e-4
    )
    assert np.sqrt(np.diag(fit.covariance)) == pytest.approx([0.0677, 0.2731], abs=5.1e-5)
    assert (fit.spread**2, fit.log_likelihood) == pytest.approx((4.69, -797.6), abs=0.05)


def test_a_random_intercept_as_clmm_prints_it():
    """ordinal::clmm(rating ~ temp + contact + (1 | judge), wine): Laplace's approximation."""
    rating = [int(one) for judge in WINE.split() for one in judge]
    judge, warm = np.repeat(range(9), 8), np.tile([0, 0, 0, 0, 1, 1, 1, 1], 9)
    x = np.column_stack([warm, np.tile([0, 0, 1, 1], 18)])
    fit = fit_random_intercept(judge, rating, x, points=1)
    assert fit.coefficients == pytest.approx([3.0630, 1.8349], abs=5.1e-5)
    assert np.sqrt(np.diag(fit.covariance)) == pytest.approx([0.5954, 0.5125], abs=1e-4)
    assert fit.thresholds == pytest.approx([-1.6237, 1.5134, 4.2285, 6.0888], abs=5.1e-5)
    assert (fit.spread**2, fit.log_likelihood) == pytest.approx((1.279, -81.57), abs=5.1e-3)
    # clmm2 of its tutorial, nAGQ = 10.
    assert fit_random_intercept(judge, rating, x).spread ** 2 == pytest.approx(1.288, abs=5e-4)


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(6)
    n = 80
    ids = [f"p{k:02d}" for k in range(n)]
    arm, person = np.arange(n) % 2, rng.normal(0, 1, n)
    conc = {v: rng.gamma(2, 2, n) * arm for v in ("w4", "w8")}
    frames = []
    for place, visit in enumerate(("base", "w4", "w8")):
        effect = 0.0 if visit == "base" else 0.9 * arm
        score = person + effect + rng.logistic(0, 1, n)
        grade = np.digitize(score, [-1.0, 0.5, 2.0]).astype(float)
        volume = 30 + 4 * person + place - 0.8 * conc.get(visit, 0.0) + rng.normal(0, 2, n)
        for name, value in (("grade", grade), ("v", volume)):
            frame = pd.DataFrame({"participant_id": ids, "visit": visit, "value": value})
            gone = (rng.random(n) < 0.1) & (visit != "base")
            frames.append(frame.assign(endpoint=name)[~gone])
    values = pd.concat(frames).assign(source="pipeline", repeat=1, region="all", status="ok")
    exposures = pd.concat(
        pd.DataFrame({"participant_id": ids, "visit": v, "exposure": "conc", "value": x})
        for v, x in conc.items()
    )
    people = pd.DataFrame({"participant_id": ids, "arm": np.where(arm, "drug", "placebo")})
    return Tables(
        values,
        people.assign(age=rng.normal(60, 9, n)),
        exposures=exposures,
        visit_order=("base", "w4", "w8"),
        baseline="base",
    )


GEE = {"id": "a", "type": "comparison", "by": "arm", "method": "gee", "visit": ["w4", "w8"]}


def test_grades_through_the_plan(tables):
    keys = {"endpoint": "grade", "covariates": ["age", "baseline"], "overall": True}
    rows = run({**GEE, **keys}, tables)
    assert rows["visit"].tolist() == ["all", "w4", "w8"]
    assert rows["statistic"].eq("common_odds_ratio").all()
    whole = rows.iloc[0]
    assert 1 < whole["ci_low"] < np.exp(0.9) < whole["ci_high"]
    assert "independence working model" in whole["method"]
    named = run({**GEE, **keys, "contrasts": {"late": {"w8": 1, "w4": -1}}}, tables)
    assert "late" in named["visit"].tolist()


def test_responders_through_the_plan(tables):
    keys = {"endpoint": "v", "derivation": "responder", "responder": "change <= -2"}
    rows = run({**GEE, **keys, "overall": True}, tables)
    assert rows["statistic"].eq("odds_ratio").all() and len(rows) == 3
    assert rows.iloc[0]["ci_low"] > 1 and "exchangeable" in rows.iloc[0]["method"]


@pytest.mark.parametrize("keys", [{"endpoint": "grade"}, {"endpoint": "v"}])
def test_within_a_participant_through_the_plan(tables, keys):
    if keys["endpoint"] == "v":
        keys = {**keys, "derivation": "responder", "responder": "change <= -2"}
    within = run({**GEE, **keys, "method": "glmm", "overall": True}, tables)
    marginal = run({**GEE, **keys, "overall": True}, tables)
    assert within["statistic"].tolist() == marginal["statistic"].tolist()
    # Odds ratios within a participant are farther from 1 than those of the population.
    assert within.loc[0, "estimate"] > marginal.loc[0, "estimate"] > 1
    assert "SD" in within.loc[0, "method"] and "completely" not in within.loc[0, "note"]


def test_volumes_are_no_grades(tables):
    row = run({**GEE, "endpoint": "v"}, tables).iloc[0]
    assert "is no grade" in row["note"] and row["note"].startswith("not_computable")


def test_exposure_response_over_visits(tables):
    base = {"id": "a", "type": "dose_response", "endpoint": "v", "exposure": "conc"}
    rows = run({**base, "models": ["mixed"], "covariates": ["age"]}, tables)
    row = rows.iloc[0]
    assert row["ci_low"] < -0.8 < row["ci_high"] and row["ci_high"] < 0
    assert row["second_estimate"] == pytest.approx(row["estimate"], abs=1e-3)
    assert "no conc at base: left out" in row["note"] and row["visit"] == "all"
    opposed = tables.measurements.copy()
    late = (opposed["endpoint"] == "v") & (opposed["visit"] == "w8")
    opposed.loc[late, "value"] = 60 - opposed.loc[late, "value"]
    other = replace(tables, measurements=opposed)
    negative = run({**base, "models": ["mixed"]}, other).iloc[0]
    assert "negative variance" in negative["second_method"] and negative["p_value"] > 0
    one = run({**base, "models": ["mixed"], "visit": "w4"}, tables).iloc[0]
    assert "at two visits" in one["note"]


#: Coal miners (Ashford 1959; VGAM::pneumo): years of exposure; normal, mild, severe.
MINERS = [
    (5.8, 98, 0, 0), (15.0, 51, 2, 1), (21.5, 34, 6, 3), (27.5, 35, 5, 8),
    (33.5, 32, 10, 9), (39.5, 23, 7, 8), (46.0, 12, 6, 10), (51.5, 4, 2, 5),
]  # fmt: skip


def test_odds_by_cut_as_vgam_prints_them():
    """vglm(cbind(normal, mild, severe) ~ let, cumulative(parallel = FALSE, reverse = TRUE)).

    VGAM's iterations stop at 1e-7 of the deviance, so its last digits are not those of the maximum.
    """
    rows = [(np.log(t), g, n) for t, *counts in MINERS for g, n in enumerate(counts) if n]
    let, grade, number = np.array(rows).T
    fit = _fit_partial_odds(let[:, None], np.empty((let.size, 0)), grade, number)
    assert (-fit.thresholds).tolist() == pytest.approx([-9.593308, -11.104791], abs=5e-5)
    assert fit.by_cut.ravel().tolist() == pytest.approx([2.571300, 2.743550], abs=2e-5)


def test_odds_by_cut_without_covariates_are_those_of_the_dichotomies():
    rng = np.random.default_rng(9)
    arm = np.arange(200) % 2
    y = np.digitize(rng.logistic(size=200) * (1 + arm) + 0.5 * arm, [-1, 0.5, 2])
    fit = _fit_partial_odds(arm[:, None], np.empty((200, 0)), y)
    for cut in range(3):
        a, b = ((y > cut)[arm == k].mean() for k in (1, 0))
        assert fit.by_cut[cut, 0] == pytest.approx(np.log(a / (1 - a) * (1 - b) / b), abs=1e-6)


def test_odds_by_cut_through_the_plan_and_their_test():
    rng, hits, runs = np.random.default_rng(2), 0, 150
    arm, empty = np.arange(120) % 2, np.empty((120, 0))
    for _ in range(runs):
        y = np.digitize(rng.logistic(size=120) + 0.6 * arm, [-1, 0.3, 1.5])
        one = fit_proportional_odds(arm[:, None], y)
        gain = 2 * (_fit_partial_odds(arm[:, None], empty, y).log_likelihood - one.log_likelihood)
        hits += stats.chi2.sf(gain, 2) < 0.05
    assert stats.binom.ppf(1e-4, runs, 0.04) <= hits <= stats.binom.ppf(1 - 1e-4, runs, 0.06)
    ids = [f"p{k:03d}" for k in range(120)]
    people = pd.DataFrame({"participant_id": ids, "arm": np.where(arm, "drug", "control")})
    outcomes = pd.DataFrame({"participant_id": ids, "visit": "d90", "outcome": "mrs"})
    tables = Tables(
        pd.DataFrame(),
        people.assign(age=rng.normal(size=120)),
        outcomes=outcomes.assign(value=y * 1.0),
    )
    keys = {"id": "a", "type": "ordinal", "outcome": "mrs", "by": "arm", "covariates": ["age"]}
    rows = run({**keys, "odds_by_cut": True}, tables)
    cuts = rows[rows["statistic"] == "odds_ratio_by_cut"]
    assert cuts["group"].tolist() == [f"arm=drug|arm=control|mrs>{k}" for k in (0, 1, 2)]
    assert (rows["statistic"] == "proportional_odds_p").sum() == 1
