"""Methods on plain arrays: analytic cases, other libraries, published examples, bad input."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from corelab.agreement.icc import intraclass_correlation_many
from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics import (
    comparison,
    correlation,
    diagnostic,
    dose_response,
    mmrm,
    modelling,
    multiplicity,
    ordinal,
    proportional_odds,
    quantile,
    sample_size,
    scales,
    supervised_components,
    survival,
)
from corelab.pharmacodynamics.linear import fit_linear
from corelab.provenance.two_computations import ComputationsDisagree, compare


@pytest.fixture
def rng():
    return np.random.default_rng(20)


# ------------------------------------------------------------------------------ two computations


@pytest.mark.parametrize("theirs", [1.001, math.nan, math.inf])
def test_a_difference_or_a_missing_number_stops(theirs):
    with pytest.raises(ComputationsDisagree):
        compare(1.0, theirs, "library")


# --------------------------------------------------------------------------------- correlation


def test_bonett_wright_interval_is_wider_than_fishers(rng):
    x = rng.normal(size=40)
    y = x + rng.normal(size=40)
    rho = correlation.spearman(x, y)
    low, high = correlation.fisher_interval(rho.estimate, 40)
    assert rho.ci_low < low
    assert rho.ci_high > high
    half = math.atanh(rho.ci_high) - math.atanh(rho.estimate)
    expected = 1.959963984540054 * math.sqrt((1 + rho.estimate**2 / 2) / 37)
    assert half == pytest.approx(expected, rel=1e-12)


def test_partial_correlation_is_the_formula_of_three_correlations(rng):
    x, y, z = rng.normal(size=(3, 50))
    y += 0.5 * z
    rxy, rxz, ryz = (correlation._pearson(a, b).estimate for a, b in ((x, y), (x, z), (y, z)))
    expected = (rxy - rxz * ryz) / math.sqrt((1 - rxz**2) * (1 - ryz**2))
    assert correlation.partial(x, y, z).estimate == pytest.approx(expected, abs=1e-12)
    semi = (rxy - rxz * ryz) / math.sqrt(1 - ryz**2)
    assert correlation.partial(x, y, z, only_of_y=True).estimate == pytest.approx(semi, abs=1e-12)


def test_repeated_correlation_is_the_square_root_of_ancovas_share(rng):
    subject = np.repeat(np.arange(12), 3)
    x = rng.normal(size=36) + subject
    y = 0.4 * x + rng.normal(size=36) - subject
    indicator = (subject[:, None] == np.arange(12)).astype(float)
    without = fit_linear(indicator, y)
    full = fit_linear(np.column_stack([indicator, x]), y)
    sse0 = without.residual_sd**2 * without.df
    share = 1 - full.residual_sd**2 * full.df / sse0
    result = correlation._repeated(subject, x, y)
    assert result.estimate**2 == pytest.approx(share, abs=1e-12)
    assert result.p_value == pytest.approx(full.contrast(np.eye(13)[12]).p_value, rel=1e-9)


def test_subjects_seen_once_say_nothing_within_subjects(rng):
    x, y = rng.normal(size=(2, 9))
    subject = [1, 1, 1, 2, 2, 3, 3, 4, 5]
    alone = correlation._repeated(subject[:7], x[:7], y[:7])
    assert correlation._repeated(subject, x, y).estimate == alone.estimate
    with pytest.raises(NotComputable, match="two or more"):
        correlation._repeated(range(9), x, y)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=4, max_size=25),
    st.integers(0, 1000),
    st.floats(0.1, 10),
    st.floats(-5, 5),
)
def test_correlations_do_not_change_with_unit_or_order(values, seed, scale, shift):
    x = np.array(values, float)
    y = np.random.default_rng(seed).integers(0, 6, x.size).astype(float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        with pytest.raises(NotComputable, match="no variance"):
            correlation._pearson(x, y)
        return
    for kernel in (correlation._pearson, correlation.spearman, correlation._kendall):
        first = kernel(x, y).estimate
        assert -1 <= first <= 1
        assert kernel(scale * x + shift, y).estimate == pytest.approx(first, abs=1e-9)
        assert kernel(y[::-1], x[::-1]).estimate == pytest.approx(first, abs=1e-9)
        assert kernel(-x, y).estimate == pytest.approx(-first, abs=1e-9)


def test_perfect_and_tiny_samples():
    exact = correlation._pearson([1, 2, 3, 4], [2, 4, 6, 8])
    assert (exact.estimate, exact.ci_low, exact.ci_high, exact.p_value) == (1.0, 1.0, 1.0, 0.0)
    assert math.isnan(correlation._pearson([1, 2, 3], [1, 3, 2]).ci_low)
    with pytest.raises(NotComputable, match="needs 3"):
        correlation._pearson([1, 2], [1, 2])
    with pytest.raises(ValueError, match="missing"):
        correlation._pearson([1, 2, math.nan], [1, 2, 3])


def test_attenuation_and_differences_of_correlations():
    r = correlation._pearson([1, 2, 3, 4, 5, 6], [1, 3, 2, 5, 4, 6])
    assert correlation._corrected_for_attenuation(r, 0.81).estimate == pytest.approx(
        r.estimate / 0.9
    )
    same = correlation._difference_independent(0.5, 50, 0.5, 60)
    assert same.p_value == 1
    assert same.ci_low < 0 < same.ci_high
    # With independent third correlation and equal n the dependent test nears the independent one.
    dependent = correlation._difference_dependent(0.3, 0.1, 0.0, 200)
    independent = correlation._difference_independent(0.3, 200, 0.1, 200)
    z = [stats.norm.isf(one.p_value / 2) for one in (dependent, independent)]
    assert z[0] == pytest.approx(z[1], rel=0.06)


# ---------------------------------------------------------------------------------- comparison


def test_one_visit_two_arms_ancova_without_covariates_is_the_t_test(rng):
    a, b = rng.normal(1, 2, 15), rng.normal(0, 2, 12)
    x = np.column_stack([np.ones(27), np.repeat([1.0, 0.0], [15, 12])])
    fit = fit_linear(x, np.concatenate([a, b])).contrast([0, 1])
    t = comparison.student_t(a, b)
    assert (fit.estimate, fit.p_value) == pytest.approx((t.estimate, t.p_value))


def test_hodges_lehmann_interval_inverts_the_test(rng):
    a, b = rng.normal(0.5, 1, 14), rng.normal(0, 1, 11)
    result = comparison._mann_whitney(a, b).shift
    for limit in (result.ci_low, result.ci_high):
        inside = limit + 1e-9 * np.sign(result.estimate - limit)
        outside = limit - 1e-9 * np.sign(result.estimate - limit)
        assert comparison._mann_whitney(a - inside, b).shift.p_value > 0.05
        assert comparison._mann_whitney(a - outside, b).shift.p_value <= 0.05


def test_scales():
    frame = pd.DataFrame({"value": [0.0, 8.0], "baseline": [1.0, 27.0]}, index=["a", "b"])
    assert scales.on_scale(frame, "cube_root")["baseline"].tolist() == [1.0, 3.0]
    with pytest.raises(NotComputable, match="participant a"):
        scales.on_scale(frame, "log")


# ----------------------------------------------------------------------------------------- mmrm


def test_complete_mmrm_is_a_t_test_at_each_visit_and_kenward_roger_changes_nothing(rng):
    """Complete data, arm x visit: the REML fit at a visit is the pooled t test (exact result)."""
    n, m = 30, 3
    arm = np.repeat([0.0, 1.0], n // 2)
    y = (
        rng.normal(size=(n, m))
        @ np.linalg.cholesky([[1, 0.5, 0.2], [0.5, 2, 0.8], [0.2, 0.8, 3]]).T
    )
    y += arm[:, None] * np.array([0.2, 0.5, 1.0])
    visit = np.tile(np.arange(m), n)
    x = np.column_stack(
        [(visit == k).astype(float) for k in range(m)]
        + [np.repeat(arm, m) * (visit == k) for k in range(m)]
    )
    model = mmrm._fit_mmrm(np.repeat(np.arange(n), m), visit, y.ravel(), x, list("abcdef"))
    for k in range(m):
        t = comparison.student_t(y[arm == 1, k], y[arm == 0, k])
        for df in ("satterthwaite", "kenward_roger"):
            result = model.contrast(np.eye(6)[m + k], df=df)
            assert result.estimate == pytest.approx(t.estimate, abs=1e-8)
            assert result.se == pytest.approx(t.se, rel=1e-6)
            assert result.df == pytest.approx(t.df, rel=1e-5)


def test_kenward_roger_in_a_split_plot_with_missing_cells_exceeds_model_based(rng):
    """Kenward and Roger 1997: the model-based standard error is too small with missing cells."""
    n, m = 24, 4
    visit, subject = np.tile(np.arange(m), n), np.repeat(np.arange(n), m)
    arm = np.repeat(rng.permutation(np.repeat([0.0, 1.0], n // 2)), m)
    y = rng.normal(size=n * m) + np.repeat(rng.normal(size=n), m)
    keep = rng.random(n * m) > 0.3
    x = np.column_stack([(visit == k).astype(float) for k in range(m)] + [arm])
    model = mmrm._fit_mmrm(subject[keep], visit[keep], y[keep], x[keep], list("abcde"))
    plain, adjusted = (
        model.contrast(np.eye(5)[4], df=d) for d in ("satterthwaite", "kenward_roger")
    )
    assert 1.0 < adjusted.se / plain.se < 1.5
    assert adjusted.df == pytest.approx(plain.df)


def test_covariance_by_arm_is_a_model_of_each_arm(rng):
    """Without common covariates the contrast of arms is that of two models fitted apart."""
    n, m = 40, 3
    arm = np.repeat(np.arange(n) % 2, m)
    visit, who = np.tile(np.arange(m), n), np.repeat(np.arange(n), m)
    noise = rng.normal(size=(n, m)) @ np.array([[1, 0.5, 0.2], [0, 1, 0.4], [0, 0, 1]])
    y = (noise * (1 + 2 * (np.arange(n) % 2))[:, None]).ravel() + arm
    kept = rng.random(n * m) > 0.1
    own = (visit[:, None] == np.arange(m)).astype(float)
    both = np.column_stack([own, own * arm[:, None]])
    terms = [f"t{k}" for k in range(2 * m)]
    together = mmrm._fit_mmrm(
        who[kept], visit[kept], y[kept], both[kept], terms, group=arm[kept]
    ).contrast(np.eye(2 * m)[-1])
    apart = []
    for level in (0, 1):
        inside = kept & (arm == level)
        model = mmrm._fit_mmrm(who[inside], visit[inside], y[inside], own[inside], terms[:m])
        apart.append(model.contrast(np.eye(m)[-1]))
    assert together.estimate == pytest.approx(apart[1].estimate - apart[0].estimate, rel=1e-6)
    errors = [one.se for one in apart]
    assert together.se == pytest.approx(np.hypot(*errors), rel=1e-6)


def test_mmrm_bad_input(rng):
    y, x = rng.normal(size=6), np.ones((6, 1))
    with pytest.raises(ValueError, match="two values"):
        mmrm._fit_mmrm([1, 1, 2, 2, 3, 3], [0, 0, 0, 1, 0, 1], y, x, ["a"])
    with pytest.raises(NotComputable, match="two visits"):
        mmrm._fit_mmrm(range(6), [0] * 6, y, x, ["a"])
    with pytest.raises(ValueError, match="unknown covariance"):
        mmrm._fit_mmrm([1, 1, 2, 2, 3, 3], [0, 1] * 3, y, x, ["a"], covariance="xx")


def test_a_ladder_says_what_failed(rng):
    """Five participants cannot carry an unstructured covariance of five visits."""
    n, m = 5, 5
    subject, visit = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    y = rng.normal(size=n * m)
    x = np.column_stack([(visit == k).astype(float) for k in range(m)])
    model = mmrm._fit_mmrm(subject, visit, y, x, list("abcde"), covariance=["us", "cs"])
    assert model.structure == "cs"
    assert model.tried[0].startswith("us: ")
    with pytest.raises(NotComputable, match="us: "):
        mmrm._fit_mmrm(subject, visit, y, x, list("abcde"))


# -------------------------------------------------------------------------------- dose-response


@pytest.mark.parametrize("sigmoid", [False, True])
def test_noiseless_emax_is_found_exactly(sigmoid):
    dose = np.repeat([0.0, 1, 2, 4, 8, 16], 3)
    hill = 2.5 if sigmoid else 1.0
    y = 3 - 7 * dose**hill / (3.0**hill + dose**hill)
    fit = dose_response._fit_emax(dose, y + np.tile([1e-7, -1e-7, 0], 6), sigmoid=sigmoid)
    assert [fit.e0, fit.emax, fit.ed50, fit.hill] == pytest.approx([3, -7, 3, hill], rel=1e-4)


def test_profile_limits_are_where_the_f_test_says(rng):
    dose = np.repeat([0.0, 1, 2, 4, 8, 16], 8)
    y = 10 * dose / (2 + dose) + rng.normal(0, 1, dose.size)
    fit = dose_response._fit_emax(dose, y)
    low, high = dose_response._profile_limits(dose, y, fit, "ed50")
    limit = fit.rss * (1 + stats.f.ppf(0.95, 1, fit.df) / fit.df)
    for ed50 in (low, high):
        share = dose / (ed50 + dose)
        held = fit_linear(np.column_stack([np.ones(dose.size), share]), y)
        assert held.residual_sd**2 * held.df == pytest.approx(limit, rel=1e-8)
    emax_low, emax_high = dose_response._profile_limits(dose, y, fit, "emax")
    assert emax_low < fit.emax < emax_high


def test_multivariate_t_tail_is_scipys(rng):
    root = rng.normal(size=(4, 3))
    s = root @ root.T
    correlation_ = s / np.sqrt(np.outer(np.diag(s), np.diag(s)))
    largest, rank = modelling.sphere_maxima(correlation_)
    assert rank == 3
    for df, value in ((20, 2.0), (0, 1.5), (8, 0.3)):
        ours = modelling.max_t_tail(value, largest, rank, df)
        draws = np.random.default_rng(1).normal(size=(200_000, 3)) @ root.T
        draws /= np.sqrt(np.diag(s))
        if df:
            draws /= np.sqrt(np.random.default_rng(2).chisquare(df, 200_000) / df)[:, None]
        share = np.mean(draws.max(axis=1) > value)
        assert ours == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 200_000))


def test_dunnett_critical_value():
    """Dunnett 1955, one-sided 5 %, 3 groups against control, infinite df: 2.06."""
    correlation_ = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    largest, rank = modelling.sphere_maxima(correlation_)
    from scipy.optimize import brentq

    value = brentq(lambda c: modelling.max_t_tail(c, largest, rank, 0) - 0.05, 1, 4)
    assert value == pytest.approx(2.06, abs=5e-3)


# -------------------------------------------------------------------------------------- ordinal


def test_proportional_odds_of_two_categories_is_logistic_regression(rng):
    from statsmodels.api import Logit

    x = rng.normal(size=(80, 2))
    y = (x[:, 0] + rng.logistic(size=80) > 0).astype(float)
    fit = proportional_odds.fit_proportional_odds(x, y)
    theirs = Logit(y, np.column_stack([np.ones(80), x])).fit(disp=0)
    assert fit.coefficients == pytest.approx(theirs.params[1:], abs=1e-7)
    assert fit.standard_errors == pytest.approx(theirs.bse[1:], rel=1e-6)
    assert fit.thresholds[0] == pytest.approx(-theirs.params[0], abs=1e-7)


def test_absent_categories_and_separation():
    x = np.repeat([0.0, 1.0], 20)
    y = np.tile([0, 2, 6, 6], 10)
    same = proportional_odds.fit_proportional_odds(x, np.searchsorted([0, 2, 6], y))
    assert proportional_odds.fit_proportional_odds(x, y).coefficients == pytest.approx(
        same.coefficients
    )
    with pytest.raises(NotComputable, match="separates"):
        proportional_odds.fit_proportional_odds(x, x)
    with pytest.raises(NotComputable, match="every participant"):
        proportional_odds.fit_proportional_odds(x, np.ones(40))


def test_generalised_odds_ratio_is_mann_whitneys_odds(rng):
    a, b = rng.integers(0, 7, 40), rng.integers(0, 6, 35)
    share = stats.mannwhitneyu(a, b).statistic / (40 * 35)
    assert ordinal._generalised_odds_ratio(a, b).estimate == pytest.approx(share / (1 - share))
    both = ordinal._generalised_odds_ratio(b, a)
    assert both.estimate == pytest.approx(1 / ordinal._generalised_odds_ratio(a, b).estimate)
    dropped = ordinal._generalised_odds_ratio(a, b, ties="drop")
    wins = ordinal._win_statistics(ordinal._hierarchical_scores(a[:, None], b[:, None], ["high"]))
    assert dropped.estimate == pytest.approx(wins.win_ratio.estimate)
    # Two estimators of one standard error: delta method and U-statistic.
    assert dropped.se == pytest.approx(wins.win_ratio.se, rel=0.03)


def test_hierarchy_breaks_ties_with_the_next_outcome():
    a = np.array([[1.0, 10.0], [0.0, 5.0]])
    b = np.array([[1.0, 20.0], [1.0, math.nan]])
    scores = ordinal._hierarchical_scores(a, b, ["low", "high"])
    assert scores.tolist() == [[-1.0, 0.0], [1.0, 1.0]]


def test_groups_that_do_not_overlap():
    with pytest.raises(NotComputable, match="do not overlap"):
        ordinal._generalised_odds_ratio([5, 6], [1, 2])
    assert ordinal._win_statistics(np.ones((3, 3))).win_ratio is None


# ------------------------------------------------------------------------------------- quantile


def test_median_regression_on_groups_gives_the_medians(rng):
    y = np.concatenate([rng.normal(size=11), rng.normal(3, 1, 9)])
    x = np.column_stack([np.ones(20), np.repeat([0.0, 1.0], [11, 9])])
    beta = quantile._quantile_coefficients(x, y, 0.5)
    assert beta[0] == pytest.approx(np.median(y[:11]))
    assert beta.sum() == pytest.approx(np.median(y[11:]))


def test_quantile_regression_turns_with_the_data(rng):
    x = np.column_stack([np.ones(41), rng.normal(size=41)])
    y = x[:, 1] + rng.normal(size=41)
    beta = quantile._quantile_coefficients(x, y, 0.25)
    assert quantile._quantile_coefficients(x, 3 * y, 0.25) == pytest.approx(3 * beta)
    assert quantile._quantile_coefficients(x, -y, 0.75) == pytest.approx(-beta)


# ------------------------------------------------------------------------------------- survival


def test_two_programs_for_survival(rng):
    from lifelines import CoxPHFitter, KaplanMeierFitter

    t = np.ceil(rng.exponential(10, 90))
    e = (rng.random(90) < 0.7).astype(float)
    x = rng.normal(size=(90, 2))
    fit = survival.fit_cox(t, e, x, ties="efron")
    table = pd.DataFrame(x, columns=["a", "b"]).assign(t=t, e=e)
    theirs = CoxPHFitter().fit(table, "t", "e", fit_options={"precision": 1e-12})
    assert fit.coefficients == pytest.approx(theirs.params_.to_numpy(), abs=1e-7)
    assert fit.standard_errors == pytest.approx(theirs.standard_errors_.to_numpy(), rel=1e-6)
    curve = survival.kaplan_meier(t, e)
    other = KaplanMeierFitter().fit(t, e)
    low, high = curve.band()
    band = other.confidence_interval_survival_function_.loc[curve.time].to_numpy()
    inside = (curve.survival > 0) & (curve.survival < 1)
    assert low[inside] == pytest.approx(band[inside, 0], abs=1e-10)
    assert high[inside] == pytest.approx(band[inside, 1], abs=1e-10)


def test_exact_ties_by_counting_every_subset(rng):
    """Discrete likelihood of one tied risk set: all 495 ways in which 4 of 12 could have died."""
    from itertools import combinations

    x = rng.normal(size=12)
    died = np.array([1.0] * 4 + [0.0] * 8)
    fit = survival.fit_cox(np.where(died == 1, 1.0, 2.0), died, x, ties="exact")
    sums = np.array([x[list(rows)].sum() for rows in combinations(range(12), 4)])
    weight = np.exp(fit.coefficients[0] * sums)
    weight /= weight.sum()
    mean = weight @ sums
    assert x[:4].sum() == pytest.approx(mean, abs=1e-8)
    assert fit.covariance[0, 0] == pytest.approx(1 / (weight @ (sums - mean) ** 2), rel=1e-8)


def test_log_rank_without_ties_is_the_score_test_of_cox(rng):
    t, group = rng.exponential(size=40), np.repeat([0.0, 1.0], 20)
    z = group[:, None]
    residuals = survival.score_residuals(np.zeros(1), t, np.ones(40), z)
    sets = survival._risk_sets(t, np.ones(40), z, np.zeros(40, int), "efron")
    moments = survival._cox_derivatives(np.zeros(1), z, sets)
    chi = float(residuals.sum() ** 2 / moments[2][0, 0])
    assert survival.log_rank(t, np.ones(40), group).chi_squared == pytest.approx(chi)


def test_restricted_mean_is_the_mean_of_cut_times_without_censoring(rng):
    t = rng.exponential(100, 60)
    result = survival.restricted_mean(t, np.ones(60), 120)
    cut = np.minimum(t, 120)
    assert result.estimate == pytest.approx(cut.mean())
    # Greenwood's form has n where the sample variance has n - 1.
    assert result.se == pytest.approx(cut.std() / math.sqrt(60), rel=1e-9)


def test_events_that_are_not_events():
    for event, words in (([1, 2, 1], "1/2"), ([1, math.nan, 0], "event holds nan")):
        with pytest.raises(ValueError, match=words):
            survival.kaplan_meier([1, 2, 3], event)
    with pytest.raises(ValueError, match="negative"):
        survival.kaplan_meier([1, -2, 3], [1, 1, 1])
    with pytest.raises(NotComputable, match="no event"):
        survival.fit_cox([1, 2, 3], [0, 0, 0], [1.0, 2, 3])
    with pytest.raises(NotComputable, match="separates"):
        survival.fit_cox(np.arange(1, 21), np.repeat([1, 0], 10), np.repeat([1.0, 0], 10))
    with pytest.raises(NotComputable, match="before tau"):
        survival.restricted_mean([1, 2, 3], [1, 1, 0], 9)
    assert math.isnan(survival.kaplan_meier([1, 2, 3], [1, 0, 0]).quantile())


def test_spline_is_linear_outside_its_knots():
    knots = [1.0, 2.0, 4.0, 7.0]
    grid = np.array([8.0, 9.0, 10.0])
    basis = survival._restricted_cubic_spline(grid, knots)
    assert np.diff(basis, 2, axis=0) == pytest.approx(np.zeros((1, 3)), abs=1e-9)
    assert survival._restricted_cubic_spline([-1.0, 0.5], knots)[:, 1:].tolist() == [[0, 0], [0, 0]]


# ------------------------------------------------------------------------- supervised components


def test_noise_features_give_a_concordance_of_one_half(rng):
    """No leakage: with selection inside the folds pure noise is not rewarded."""
    values = []
    for _ in range(8):
        x = rng.normal(size=(120, 60))
        t, e = rng.exponential(size=60), (rng.random(60) < 0.8).astype(float)
        risk = supervised_components.prevalidate(x, t, e, n_folds=5, threshold=1.2).risk
        values.append(survival.concordance(t, e, risk).estimate)
    assert abs(np.mean(values) - 0.5) < 0.08


def test_scores_do_not_depend_on_the_order_of_participants(rng):
    x = rng.normal(size=(30, 40))
    t, e = np.ceil(rng.exponential(5, 40)), (rng.random(40) < 0.7).astype(float)
    order = rng.permutation(40)
    first = supervised_components._cox_scores(x, t, e)
    second = supervised_components._cox_scores(x[:, order], t[order], e[order])
    assert second == pytest.approx(first, abs=1e-10)


def test_a_threshold_beyond_all_scores(rng):
    with pytest.raises(NotComputable, match="0 features"):
        supervised_components.train(rng.normal(size=(5, 20)), np.arange(1.0, 21), np.ones(20), 99)


def test_feature_iccs_are_pingouins_and_fast(rng):
    import time

    import pingouin

    values = rng.normal(size=(2, 8, 3)) + rng.normal(size=(2, 8, 1))
    for block, ours in zip(
        values, intraclass_correlation_many(values)["icc_a_1"].estimate, strict=True
    ):
        table = pd.DataFrame(block).reset_index().melt("index")
        table["value"] = table["value"].astype(float)
        theirs = pingouin.intraclass_corr(table, "index", "variable", "value").set_index("Type")
        assert ours == pytest.approx(theirs.loc["ICC(A,1)", "ICC"], abs=1e-9)
    many = rng.normal(size=(2000, 100, 5))
    start = time.process_time()
    assert intraclass_correlation_many(many)["icc_a_1"].estimate.shape == (2000,)
    assert time.process_time() - start < 2


# ------------------------------------------------------------------------------------- diagnostic


def test_roc_area_and_its_perfect_case(rng):
    score, truth = rng.normal(size=50), rng.integers(0, 2, 50)
    roc = diagnostic._roc_area(score + truth, truth)
    false, hit, _ = diagnostic.roc_curve(score + truth, truth)
    assert roc.estimate == pytest.approx(np.trapezoid(hit, false))
    # One score against itself does not differ.
    assert diagnostic._roc_difference(score, score, truth).se == 0
    perfect = diagnostic._roc_area([1, 2, 3, 4], [0, 0, 1, 1])
    assert perfect.estimate == 1
    assert math.isnan(perfect.ci_low)


# ------------------------------------------------------------------------------------ multiplicity


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_adjusted_p_are_statsmodels_and_ordered(rng, size):
    from statsmodels.stats.multitest import multipletests

    p = np.round(rng.random(size) ** 3, 2)
    for ours, theirs in (("holm", "holm"), ("hochberg", "simes-hochberg"), ("bh", "fdr_bh"),
                         ("by", "fdr_by"), ("bonferroni", "bonferroni")):  # fmt: skip
        adjusted = multiplicity._adjust(p, ours)
        assert adjusted == pytest.approx(multipletests(p, method=theirs)[1], abs=1e-12)
        assert np.all(adjusted >= np.array(p) - 1e-15)
    sequence = multiplicity._adjust(p, "fixed_sequence")
    assert np.all(np.diff(sequence) >= 0)


def test_a_missing_p_is_no_hypothesis():
    with pytest.raises(ValueError, match="finite"):
        multiplicity._adjust([0.01, math.nan])


def test_sample_size_reaches_its_power(rng):
    from statsmodels.stats.power import TTestIndPower

    n = sample_size._two_arm_means(4, 10, 0.8)
    assert n == pytest.approx(TTestIndPower().solve_power(0.4, alpha=0.05, power=0.8), rel=1e-6)
    assert sample_size._per_arm_with_error(4, 10, 1.0) == pytest.approx(
        sample_size._two_arm_means(4, 10)
    )
    one, three = (sample_size._per_arm_with_error(4, 10, 0.6, reads=k) for k in (1, 3))
    assert three < one


def test_same_covariates_tie_in_the_concordance_whatever_the_last_bit_says():
    exact = survival.concordance([1, 2, 3, 4], [1, 1, 1, 1], [3.0, 2.0, 2.0, 1.0])
    shaken = survival.concordance([1, 2, 3, 4], [1, 1, 1, 1], [3.0, 2.0, 2.0 + 4e-16, 1.0])
    assert shaken == exact
    assert exact.tied_risk == 1


def test_lifelines_agrees_where_only_the_last_bits_of_scores_differ():
    """Patients with the same covariates: seen to stop an analysis of the glioblastoma study."""
    from lifelines.utils import concordance_index

    rng = np.random.default_rng(4)
    t, e = rng.exponential(400, 60), rng.random(60) < 0.7
    risk = np.round(rng.normal(size=60), 1)
    shaken = risk + rng.normal(scale=2e-16, size=60)
    ours = survival.concordance(t, e, shaken)
    assert ours.tied_risk > 10
    theirs = concordance_index(t, -survival.risk_order(shaken), e)
    assert ours.estimate == pytest.approx(theirs, abs=1e-12)
    assert concordance_index(t, -shaken, e) != pytest.approx(theirs, abs=1e-6)
