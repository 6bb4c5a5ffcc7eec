"""Interval-censored times, Gray's test, adjusted means, discrimination, covariates in time."""

import math

import numpy as np
import pandas as pd
import pytest
from helpers import run
from lifelines.datasets import load_stanford_heart_transplants
from matplotlib.figure import Figure
from pd_error_rates import interval_trial

from corelab.measurement.selection import NotComputable, Tables
from corelab.pharmacodynamics.competing import gray_test
from corelab.pharmacodynamics.figures import kaplan_meier_figure
from corelab.pharmacodynamics.interval_censored import fit_weibull, score_test, turnbull
from corelab.pharmacodynamics.survival import concordance, fit_cox, kaplan_meier, log_rank
from corelab.pharmacodynamics.survival_measures import (
    adjusted_restricted_mean,
    explained_variation,
    royston_d,
    uno_concordance,
)

#: Breast cosmesis (Finkelstein and Wolfe, Biometrics 1985;41:933), R interval::bcos: (left, right].
RADIATION = """45- 6,10 0,7 46- 46- 7,16 17- 7,14 37,44 0,8 4,11 15- 11,15 22- 46- 46- 25,37 46- 26,40
46- 27,34 36,44 46- 36,48 37- 40- 17,25 46- 11,18 38- 5,12 37- 0,5 18- 24- 36- 5,11 19,35 17,25 24-
32- 33- 19,26 37- 34- 36-"""
CHEMOTHERAPY = """8,12 0,22 24,31 17,27 17,23 24,30 16,24 13- 11,13 16,20 18,25 17,26 32- 23- 44,48
14,17 0,5 5,8 12,20 11- 33,40 31- 13,39 19,32 34- 13- 16,24 35- 15,22 11,17 22,32 48- 30,34 13- 10,17
8,21 4,9 11- 14,19 4,8 34- 30,36 18,24 16,60 35,39 21- 11,20 10,35"""
#: Bone marrow transplants (Klein and Moeschberger 1997; SAS Guo and So 2018), three groups: days and
#: 0 censored, 1 relapse, 2 death.
TRANSPLANTS = (
    "2081 0 1602 0 1496 0 1462 0 1433 0 1377 0 1330 0 996 0 226 0 1199 0 1111 0 530 0 1182 0 1167 0 "
    "418 2 383 1 276 2 104 1 609 1 172 2 487 2 662 1 194 2 230 1 526 2 122 2 129 1 74 1 122 1 86 2 "
    "466 2 192 1 109 1 55 1 1 2 107 2 110 1 332 2",
    "2569 0 2506 0 2409 0 2218 0 1857 0 1829 0 1562 0 1470 0 1363 0 1030 0 860 0 1258 0 2246 0 1870 "
    "0 1799 0 1709 0 1674 0 1568 0 1527 0 1324 0 957 0 932 0 847 0 848 0 1850 0 1843 0 1535 0 1447 "
    "0 1384 0 414 2 2204 2 1063 2 481 2 105 2 641 2 390 2 288 2 421 1 79 2 748 1 486 1 48 2 272 1 "
    "1074 2 381 1 10 2 53 2 80 2 35 2 248 1 704 2 211 1 219 1 606 1",
    "2640 0 2430 0 2252 0 2140 0 2133 0 1238 0 1631 0 2024 0 1345 0 1136 0 845 0 422 1 162 2 84 1 "
    "100 1 2 2 47 1 242 1 456 1 268 1 318 2 32 1 467 1 47 1 390 1 183 2 105 2 115 1 164 2 93 1 120 "
    "1 80 2 677 2 64 1 168 2 74 2 16 2 157 1 625 1 48 1 273 1 63 2 76 1 113 1 363 2",
)


@pytest.fixture(scope="module")
def cosmesis():
    arms = (RADIATION.split(), CHEMOTHERAPY.split())
    both = [
        (float(text.rstrip("-")), math.inf)
        if text.endswith("-")
        else tuple(map(float, text.split(",")))
        for arm in arms
        for text in arm
    ]
    left, right = np.array(both).T
    return left, right, np.repeat(["radiation", "both"], [len(arm) for arm in arms])


def test_turnbull_as_icfit_prints_it(cosmesis):
    """R interval, icfit(Surv(left, right, type = "interval2") ~ treatment, bcos)."""
    left, right, arm = cosmesis
    inside = arm == "radiation"
    fit = turnbull(left[inside], right[inside])
    assert fit.left.tolist() == [4, 6, 7, 11, 24, 33, 38, 46]
    printed = [0.0463, 0.0334, 0.0887, 0.0708, 0.0926, 0.0818, 0.1209, 0.4656]
    assert fit.mass.tolist() == pytest.approx(printed, abs=6e-5)
    fit = turnbull(left[~inside], right[~inside])
    printed = [0.0433, 0.0433, 0.0692, 0.1454, 0.1411, 0.1157, 0.0999, 0.0709, 0.1608, 0.0552]
    assert fit.mass.tolist() == pytest.approx([*printed, 0.0552], abs=6e-5)


def test_interval_log_rank_as_ictest_prints_it(cosmesis):
    """R interval, ictest, Sun's scores: score 9.141846, Z = -2.6684, p = 0.007622."""
    result = score_test(*cosmesis)
    assert dict(zip(result.groups, result.scores, strict=True))["both"] == pytest.approx(
        9.141846, abs=1e-5
    )
    assert math.sqrt(result.chi_squared) == pytest.approx(2.6684, abs=5e-5)
    assert result.p_value == pytest.approx(0.007622, abs=1e-6)


def test_exact_times_give_the_right_censored_methods():
    rng = np.random.default_rng(4)
    time = rng.exponential(1.0, 60).round(3)
    event = rng.random(60) < 0.7
    left, right = time, np.where(event, time, np.inf)
    arm = np.arange(60) % 2
    curve = kaplan_meier(time, event.astype(float))
    fit = turnbull(left, right)
    assert fit.survival(curve.time) == pytest.approx(curve.survival, abs=1e-6)
    # Permutation and hypergeometric variance differ a little.
    ours, theirs = score_test(left, right, arm), log_rank(time, event.astype(float), arm)
    assert ours.scores == pytest.approx(theirs.observed - theirs.expected, abs=1e-5)
    assert ours.chi_squared == pytest.approx(theirs.chi_squared, rel=0.1)


def test_gray_as_cmprsk_prints_it():
    """PSIAIMS CAMIS, R cmprsk 2.2-12: relapse 11.9228820 (p 0.0025762), death 0.1374108."""
    pairs = [np.array(text.split(), int).reshape(-1, 2) for text in TRANSPLANTS]
    time, status = np.concatenate(pairs).T
    group = np.repeat([1, 2, 3], [len(pair) for pair in pairs])
    chi, df, p = gray_test(time, status, group)
    assert (chi, df, p) == pytest.approx((11.9228820, 2, 0.0025762), abs=5e-8)
    other = np.where(status > 0, 3 - status, 0)
    assert gray_test(time, other, group)[0] == pytest.approx(0.1374108, abs=5e-8)


def test_strata_add_up(cosmesis):
    """The same data as two strata: twice the score and its variance, so twice the statistic."""
    pairs = [np.array(text.split(), int).reshape(-1, 2) for text in TRANSPLANTS]
    time, status = np.tile(np.concatenate(pairs), (2, 1)).T
    group = np.tile(np.repeat([1, 2, 3], [len(pair) for pair in pairs]), 2)
    half = np.repeat(["a", "b"], time.size // 2)
    assert gray_test(time, status, group, half)[0] == pytest.approx(2 * 11.9228820, abs=1e-7)
    left, right, arm = (np.tile(v, 2) for v in cosmesis)
    half = np.repeat(["a", "b"], left.size // 2)
    result = score_test(left, right, arm, half)
    assert result.chi_squared == pytest.approx(2 * 2.6684**2, abs=1e-3)
    # A stratum of one arm has no part in either test.
    lone = np.where(arm == "both", "a", "b")
    with pytest.raises(NotComputable):
        score_test(left, right, arm, lone)
    with pytest.raises(NotComputable):
        gray_test(time, status, group, group)


def test_covariates_in_time_as_r_survival():
    """survival::heart, coxph(Surv(start, stop, event) ~ age + year + surgery + transplant)."""
    data = load_stanford_heart_transplants()
    x = data[["age", "year", "surgery", "transplant"]].astype(float).to_numpy()
    fit = fit_cox(data["stop"], data["event"], x, entry=data["start"])
    assert fit.coefficients.tolist() == pytest.approx(
        [0.02717, -0.14635, -0.63721, -0.01025], abs=5e-6
    )
    assert fit.standard_errors.tolist() == pytest.approx(
        [0.01371, 0.07047, 0.36723, 0.31375], abs=5e-6
    )


def test_adjusted_restricted_mean_without_censoring_is_robust_least_squares():
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    x = np.column_stack([np.ones(50), np.arange(50) % 2, rng.normal(size=50)])
    time = rng.exponential(np.exp(0.3 * x[:, 1] + 0.5 * x[:, 2]))
    ours = adjusted_restricted_mean(time, np.ones(50), x[:, 1], x, 2.0, 1)
    theirs = sm.OLS(np.minimum(time, 2.0), x).fit(cov_type="HC1")
    assert ours.estimate == pytest.approx(theirs.params[1])
    assert ours.se == pytest.approx(theirs.bse[1])


def test_adjusted_restricted_mean_as_other_programs_weigh_it():
    """Censored lung cancer: the estimate by statsmodels with lifelines' curve, its error by
    leaving out one participant at a time."""
    import statsmodels.api as sm
    from lifelines import KaplanMeierFitter
    from lifelines.datasets import load_lung

    data, tau = load_lung().dropna(subset=["age", "ph.ecog"]), 365.25
    time, dead = data["time"].to_numpy(float), (data["status"] == 1).to_numpy()
    arm = (data["sex"] == 2).to_numpy(float)
    x = np.column_stack([np.ones(time.size), arm, data[["age", "ph.ecog"]]])
    until, known = np.minimum(time, tau), dead | (time >= tau)
    weights = np.zeros(time.size)
    for level in (0.0, 1.0):
        inside = arm == level
        censored = KaplanMeierFitter().fit(until[inside], ~known[inside])
        free = censored.survival_function_at_times(until[inside]).to_numpy()
        weights[inside] = known[inside] / free
    theirs = sm.WLS(until, x, weights=weights).fit().params
    ours = adjusted_restricted_mean(time, dead, arm, x, tau, 1, small_sample=False)
    assert ours.estimate == pytest.approx(theirs[1], rel=1e-6)
    without = [
        adjusted_restricted_mean(*(np.delete(v, k, 0) for v in (time, dead, arm, x)), tau, 1)
        for k in range(time.size)
    ]
    left = np.array([one.estimate for one in without])
    jackknife = math.sqrt((time.size - 1) * left.var())
    assert ours.se == pytest.approx(jackknife, rel=0.03)


def test_unos_concordance_does_not_depend_on_censoring():
    """Harrell's C moves with the censoring of a score whose effect fades; Uno's does not."""
    rng = np.random.default_rng(3)
    n = 1500
    risk = rng.normal(size=n)
    # Hazard exp(1.5 risk) up to time 1, 1 afterwards.
    draw = rng.exponential(size=n)
    early = draw / np.exp(1.5 * risk)
    time = np.where(early < 1, early, 1 + draw - np.exp(1.5 * risk))
    end = rng.exponential(1.2, n)
    seen, event = np.minimum(time, end), (time <= end).astype(float)
    truth = uno_concordance(time, np.ones(n), risk, 2.5).estimate
    assert truth == pytest.approx(uno_concordance(seen, event, risk, 2.5).estimate, abs=0.02)
    harrell = concordance(seen, event, risk).estimate
    assert abs(harrell - truth) > 0.02
    assert uno_concordance(time, np.ones(n), risk, np.inf).estimate == pytest.approx(
        concordance(time, np.ones(n), risk).estimate
    )


def test_royston_is_the_cox_model_of_normal_scores():
    rng = np.random.default_rng(3)
    risk = rng.normal(size=300)
    time = rng.exponential(np.exp(-1.2 * risk))
    found = royston_d(time, np.ones(300), 5 + 2 * risk)
    assert found == royston_d(time, np.ones(300), np.exp(risk))  # ranks only
    assert found.estimate == pytest.approx(1.2 * math.sqrt(8 / math.pi), abs=4 * found.se)
    # Explained variation of a normal index of variance 1.44: 1.44 / (1.44 + pi^2 / 6).
    assert explained_variation(1.2 * math.sqrt(8 / math.pi)) == pytest.approx(
        1.44 / (1.44 + math.pi**2 / 6)
    )


# ----------------------------------------------------------------------------------- the plan


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(11)
    n = 90
    ids = [f"p{k:03d}" for k in range(n)]
    left, right, arm = interval_trial(rng, 0.8, n)
    event = np.isfinite(right)
    rows = pd.DataFrame({"participant_id": ids, "endpoint": "pfs"})
    rows = rows.assign(
        time_days=np.where(event, right, left + 1.0),
        event=event.astype(float),
        last_free_days=np.where(event, left, np.nan),
    )
    death = rows.assign(endpoint="death", time_days=rows["time_days"] * 1.2)
    death["event"] = (rng.random(n) < 0.4).astype(float)
    people = pd.DataFrame({"participant_id": ids, "arm": np.where(arm, "drug", "control")})
    people = people.assign(age=rng.normal(60, 8, n).round(), site=rng.choice(list("abc"), n))
    values = pd.concat(
        pd.DataFrame({"participant_id": ids, "visit": v, "value": 20 + d + 6 * rng.normal(size=n)})
        for v, d in (("base", 0.0), ("w4", 2.0), ("w12", 4.0))
    )
    values = values.assign(endpoint="v", source="pipeline", repeat=1, region="all", status="ok")
    return Tables(
        values,
        people,
        events=pd.concat([rows, death]),
        visit_order=("base", "w4", "w12"),
        baseline="base",
    )


BASE = {"id": "a", "type": "survival", "event_endpoint": "pfs", "by": "arm"}
DAYS = {"base": 0, "w4": 28, "w12": 84}


def test_interval_censored_progression_through_the_plan(tables):
    rows = run({**BASE, "method": "interval", "covariates": ["age"]}, tables)
    assert not rows["note"].str.contains("not_computable").any()
    ratio = rows[rows["statistic"] == "interval_hazard_ratio"].set_index("group")
    assert list(ratio.index) == ["arm=drug|arm=control", "age"]
    assert ratio["second_estimate"].to_numpy() == pytest.approx(ratio["estimate"], rel=1e-3)
    assert rows["statistic"].tolist().count("interval_median_days") == 2
    one = run({**BASE, "method": "interval", "alternative": "greater"}, tables)
    test = one[one["statistic"] == "interval_logrank_p"].iloc[0]
    both = rows[rows["statistic"] == "interval_logrank_p"].iloc[0]
    assert test["p_value"] == pytest.approx(both["p_value"] / 2)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (lambda e: e.drop(columns="last_free_days"), "need the column last_free_days"),
        (lambda e: e.assign(last_free_days=np.nan), "events have no last_free_days"),
        (lambda e: e.assign(last_free_days=e["time_days"] + 1), "negative or after time_days"),
    ],
)
def test_intervals_that_are_none_are_reasons(tables, events, words):
    one = Tables(tables.measurements, tables.participants, events=events(tables.events))
    row = run({**BASE, "method": "interval"}, one).iloc[0]
    assert row["note"].startswith("not_computable") and words in row["note"]


def test_an_endpoint_that_changes_with_time(tables):
    keys = {"by": None, "endpoint": "v", "method": "time_varying", "visit_days": DAYS}
    row = run({**BASE, **keys, "covariates": ["age"]}, tables).iloc[0]
    assert row["statistic"] == "hazard_ratio" and row["visit"] == "all"
    assert row["second_estimate"] == pytest.approx(row["estimate"], rel=1e-6)
    lacking = run({**BASE, **keys, "visit_days": {"base": 0}}, tables).iloc[0]
    assert "no day of the visit w4, w12" in lacking["note"]


def test_a_response_is_no_baseline_variable():
    """Immortal time: who lives long responds. A static model calls it an effect, this one not."""
    rng = np.random.default_rng(5)
    n = 400
    ids = [f"p{k:03d}" for k in range(n)]
    time = rng.exponential(100, n)
    after = np.where(time > 60, rng.normal(-40, 20, n), rng.normal(0, 1, n))
    frames = [
        pd.DataFrame({"participant_id": ids, "visit": v, "value": x})
        for v, x in (("base", np.full(n, 100.0)), ("w8", 100 + after))
    ]
    values = pd.concat(frames).assign(
        endpoint="v", source="pipeline", repeat=1, region="all", status="ok"
    )
    events = pd.DataFrame(
        {"participant_id": ids, "endpoint": "os", "time_days": time, "event": 1.0}
    )
    tables = Tables(
        values,
        pd.DataFrame({"participant_id": ids}),
        events=events,
        visit_order=("base", "w8"),
        baseline="base",
    )
    keys = {"id": "a", "type": "survival", "event_endpoint": "os", "endpoint": "v"}
    keys |= {"derivation": "responder", "responder": "percent_change <= -30", "visit": "w8"}
    static = run({**keys, "method": "cox"}, tables).iloc[0]
    timed = run({**keys, "method": "time_varying", "visit_days": {"w8": 60}}, tables).iloc[0]
    assert static["ci_high"] < 0.8
    assert timed["ci_low"] < 1 < timed["ci_high"]


def test_further_rows_of_the_usual_methods(tables):
    rows = run({**BASE, "method": ["rmst", "cox", "cuminc"], "covariates": ["age"]}
               | {"competing_endpoint": "death", "tau_days": 200}, tables)  # fmt: skip
    found = rows.set_index("statistic")
    assert {"rmst_difference_adjusted_days", "c_index_uno", "r_squared_royston", "gray_p"} <= set(
        found.index
    )
    assert "up to 200 days" in found.loc["c_index_uno", "method"]


def test_no_event_in_two_intervals_is_a_reason():
    with pytest.raises(NotComputable, match="events in two intervals"):
        fit_weibull([0, 0, 5], [5, 5, np.inf])


def test_drawn_kaplan_meier_curve_falls_at_the_events():
    axes = Figure().add_subplot()
    kaplan_meier_figure(axes, [10, 20, 20, 40], [1, 1, 0, 1], ylabel="Survival")
    x, y = axes.lines[0].get_data()
    # By hand: 3/4 after day 10, 1/2 after day 20, 0 after day 40.
    assert dict(zip(x, y, strict=True)) == {0: 1.0, 10: 0.75, 20: 0.5, 40: 0.0}
