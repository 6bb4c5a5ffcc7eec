"""Agreement kernels: analytic cases, invariances, degenerate readings."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corelab.agreement import (
    bland_altman,
    categorical,
    differences,
    icc,
    intraclass_correlation,
    metrology,
    weighted_kappa,
)
from corelab.agreement.differences import (
    bland_altman_replicated,
    concordance_correlation,
    deming,
    passing_bablok,
    total_deviation_index,
)
from corelab.agreement.direction import _welch
from corelab.agreement.icc import (
    compare_intraclass_correlations,
    intraclass_correlation_many,
    standard_error_of_measurement,
)
from corelab.agreement.limits import _quantile_limits
from corelab.agreement.metrology import linearity
from corelab.agreement.repeats import _cube
from corelab.measurement.selection import NotComputable

SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def simulated(n, k, seed=0, target=3.0, reader=1.0, noise=1.0):
    rng = np.random.default_rng(seed)
    return (
        20
        + rng.normal(0, target, (n, 1))
        + rng.normal(0, reader, (1, k))
        + rng.normal(0, noise, (n, k))
    )


def test_f_tests_are_those_of_psych():
    """R psych ICC(): F = 1.79 (5, 18) and 11.03 (5, 15), p 0.1648 and 0.000135."""
    found = intraclass_correlation(SHROUT_FLEISS)
    one, two = found["icc_1_1"], found["icc_a_1"]
    assert (one.df1, one.df2, two.df1, two.df2) == (5, 18, 5, 15)
    assert one.f == pytest.approx(1.794678, abs=1e-6)
    assert two.f == pytest.approx(11.02725, abs=1e-5)
    assert two.p_value == pytest.approx(0.0001346, abs=1e-7)
    assert found["icc_c_k"].p_value == two.p_value


@settings(max_examples=25, deadline=None)
@given(st.floats(-50, 50), st.floats(0.1, 20), st.integers(0, 1000))
def test_icc_ignores_scale_and_origin(shift, factor, seed):
    ratings = simulated(12, 3, seed)
    a, b = intraclass_correlation(ratings), intraclass_correlation(factor * ratings + shift)
    for form in icc.FORMS:
        assert a[form].estimate == pytest.approx(b[form].estimate, abs=1e-9, nan_ok=True)
        assert a[form].ci_low == pytest.approx(b[form].ci_low, abs=1e-9, nan_ok=True)


def test_many_equals_one_by_one_and_is_fast():
    ratings = np.stack([simulated(100, 5, seed) for seed in range(5)] * 400)
    start = time.perf_counter()
    many = intraclass_correlation_many(ratings)
    assert time.perf_counter() - start < 2.0
    for index in range(5):
        one = intraclass_correlation(ratings[index])
        for form in icc.FORMS:
            assert many[form].estimate[index] == pytest.approx(one[form].estimate, abs=1e-12)
            assert many[form].ci_high[index] == pytest.approx(one[form].ci_high, abs=1e-12)
            assert many[form].p_value[index] == pytest.approx(one[form].p_value, rel=1e-9)


def test_perfect_agreement_and_constant_shift():
    values = np.array([1.0, 4.0, 2.0, 7.0])
    same = intraclass_correlation(np.column_stack([values, values]))
    for form in icc.FORMS:
        assert (same[form].estimate, same[form].ci_low, same[form].ci_high) == (1, 1, 1)
        assert "perfect agreement" in same[form].note
    shifted = intraclass_correlation(np.column_stack([values, values + 2]))
    assert shifted["icc_c_1"].estimate == pytest.approx(1.0)
    assert shifted["icc_a_1"].estimate < 0.9


def test_negative_icc_is_told_and_its_average_refused():
    """pingouin and psych print ICC(A,k) = +5 for anticorrelated readers."""
    a = np.array([1.0, 2, 3, 4, 5, 6])
    found = intraclass_correlation(np.column_stack([a, 7.1 - a]))
    assert found["icc_a_1"].estimate < 0
    assert np.isnan(found["icc_a_k"].estimate)
    assert "not defined" in found["icc_a_k"].note


@pytest.mark.parametrize(
    ("ratings", "reason"),
    [
        (np.ones((5, 2)), "no variance"),
        (np.arange(5.0)[:, None], "single reader"),
        (np.array([[1.0, 2.0]]), "single target"),
        (np.array([[1.0, np.nan], [2.0, np.nan]]), "single reader"),
    ],
)
def test_icc_says_why_it_cannot(ratings, reason):
    with pytest.raises(NotComputable, match=reason):
        intraclass_correlation(ratings)


def test_icc_refuses_infinite_values():
    with pytest.raises(ValueError, match="infinite"):
        intraclass_correlation([[1.0, np.inf], [2.0, 3.0]])


def test_partially_crossed_readers_use_all_readings():
    """Every target read by two of four readers: complete cases would leave nothing."""
    ratings = simulated(60, 4, 3)
    for i in range(60):
        ratings[i, [(i + 2) % 4, (i + 3) % 4]] = np.nan
    found = intraclass_correlation(ratings)["icc_a_1"]
    assert found.ci_low < 9 / 11 < found.ci_high
    assert "REML" in found.method and "120 of 240" in found.note


def test_reml_is_the_larger_likelihood_at_its_own_estimate():
    ratings = simulated(30, 3, 5)
    ratings[::4, 1] = np.nan
    parts = icc.variance_components(ratings)
    seen = ~np.isnan(ratings)
    y = ratings[seen]
    target, reader = (np.equal.outer(i, i).astype(float) for i in np.nonzero(seen))

    def reml(a, b, e):
        v = a * target + b * reader + e * np.eye(y.size)
        inverse = np.linalg.inv(v)
        ones = np.ones(y.size)
        weight = ones @ inverse @ ones
        residual = y - (ones @ inverse @ y) / weight
        return -0.5 * (
            (y.size - 1) * np.log(2 * np.pi)
            + np.linalg.slogdet(v)[1]
            + np.log(weight)
            + residual @ inverse @ residual
        )

    best = reml(parts.target, parts.reader, parts.residual)
    assert best == pytest.approx(parts.reml, abs=1e-8)
    for scale in (0.97, 1.03):
        assert reml(parts.target * scale, parts.reader, parts.residual) < best
        assert reml(parts.target, parts.reader * scale, parts.residual) < best
        assert reml(parts.target, parts.reader, parts.residual * scale) < best


def test_sem_is_sd_times_root_of_one_minus_icc():
    ratings = simulated(40, 3, 1)
    squares = icc._mean_squares(ratings)
    total = (
        (squares.targets - squares.residual) / 3
        + (squares.readers - squares.residual) / 40
        + squares.residual
    )
    sem = standard_error_of_measurement(ratings)["sem"]
    expected = np.sqrt(total * (1 - intraclass_correlation(ratings)["icc_a_1"].estimate))
    assert sem.estimate == pytest.approx(expected)
    assert sem.ci_low < sem.estimate < sem.ci_high


def test_comparison_of_two_icc_is_seeded_and_finds_the_better_pair():
    good, poor = simulated(80, 2, 1, noise=0.5), simulated(80, 2, 1, noise=3.0)
    first = compare_intraclass_correlations(good, poor, resamples=400)
    again = compare_intraclass_correlations(good, poor, resamples=400)
    assert repr(first) == repr(again)  # nan is not equal to itself, nor are objects that hold it
    assert first.ci_low > 0 and first.p_value < 0.05
    same = compare_intraclass_correlations(good, good, resamples=200)
    assert same.estimate == 0 and same.p_value == 1.0


def test_bland_altman_by_hand():
    a, b = np.array([10.0, 12, 14, 18]), np.array([9.0, 13, 12, 16])
    found = bland_altman(a, b)
    difference = a - b
    assert found.bias == 1.0
    assert found.sd == pytest.approx(np.std(difference, ddof=1))
    half = 3.182446305284263 * found.sd / 2
    assert found.bias_ci == pytest.approx((1 - half, 1 + half))
    limit = 3.182446305284263 * found.sd * np.sqrt(1 / 4 + 1.96**2 / 6)
    assert found.loa_upper_ci == pytest.approx((found.loa_upper - limit, found.loa_upper + limit))


def test_bland_altman_exact_limits_approach_the_approximate_ones():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 3000))
    exact, usual = bland_altman(a, b, limits_ci="exact"), bland_altman(a, b)
    assert exact.loa_upper_ci == pytest.approx(usual.loa_upper_ci, abs=2e-3)
    assert exact.loa_lower_ci == pytest.approx(
        (2 * exact.bias - exact.loa_upper_ci[1], 2 * exact.bias - exact.loa_upper_ci[0])
    )


def test_bland_altman_log_scale_is_a_ratio():
    a = np.array([10.0, 20, 40, 80])
    found = bland_altman(1.1 * a, a, scale="log")
    assert found.bias == pytest.approx(1.1)
    with pytest.raises(NotComputable, match="positive"):
        bland_altman([0.0, 1, 2], [1.0, 1, 2], scale="log")


def test_replicated_limits_without_within_variance_are_the_usual_ones():
    a, b = simulated(30, 2, 4).T
    twice = bland_altman_replicated(np.column_stack([a, a]), np.column_stack([b, b]))
    assert twice.loa_upper == pytest.approx(bland_altman(a, b).loa_upper)
    linked = bland_altman_replicated(np.column_stack([a, a]), np.column_stack([b, b]), linked=True)
    # The one-way variance component: the mean square over two identical pairs is twice the variance.
    assert linked.sd == pytest.approx(np.std(a - b, ddof=1))


def test_concordance_is_the_quadratic_kappa_of_moments():
    """King and Chinchilli 2001: both are the same coefficient with moments over n."""
    a, b = simulated(50, 2, 7).T
    kappa = weighted_kappa(a, b)
    assert "moment form" in kappa.method
    assert concordance_correlation(a, b).estimate == pytest.approx(kappa.estimate, abs=1e-12)


def test_deming_with_its_published_example():
    """Ten pairs with error variance ratio 0.25: slope 1.0012, intercept -0.0897 (NCSS manual)."""
    x = [7, 8.3, 10.5, 9, 5.1, 8.2, 10.2, 10.3, 7.1, 5.9]
    y = [7.9, 8.2, 9.6, 9, 6.5, 7.3, 10.2, 10.6, 6.3, 5.2]
    line = deming(x, y, variance_ratio=0.25)
    assert line.slope.estimate == pytest.approx(1.0012, abs=5e-5)
    assert line.intercept.estimate == pytest.approx(-0.0897, abs=5e-5)


def test_passing_bablok_is_exact_on_a_line_and_symmetric():
    x = np.array([1.0, 2, 4, 7, 11, 16, 22])
    line = passing_bablok(x, 3 + 2 * x)
    assert (line.slope.estimate, line.intercept.estimate) == pytest.approx((2, 3))
    y = x + np.array([0.3, -0.2, 0.5, -0.4, 0.1, -0.3, 0.2])
    forth, back = passing_bablok(x, y).slope, passing_bablok(y, x).slope
    assert forth.estimate * back.estimate == pytest.approx(1.0)
    assert forth.ci_low * back.ci_high == pytest.approx(1.0)


def test_total_deviation_index_covers_its_share():
    rng = np.random.default_rng(5)
    difference = rng.normal(1.0, 2.0, 100_000)
    found = total_deviation_index(difference, np.zeros_like(difference), coverage=0.9)
    assert np.mean(np.abs(difference) < found.estimate) == pytest.approx(0.9, abs=2e-3)
    assert found.ci_low < found.estimate < found.ci_high


def test_kappa_needs_the_full_scale_not_the_levels_seen():
    """Index weights on observed levels give 0.957; the scale 0 to 10 gives 0.970."""
    a, b = [10, 8, 7, 5, 10], [9, 8, 7, 5, 10]
    full = weighted_kappa(a, b, "quadratic", list(range(11)))
    assert full.estimate == pytest.approx(0.970, abs=5e-4)
    assert weighted_kappa(a, b).estimate == pytest.approx(full.estimate, abs=1e-12)
    seen = weighted_kappa(a, b, "quadratic", [5, 7, 8, 9, 10])
    assert seen.estimate == pytest.approx(0.957, abs=5e-4)
    assert weighted_kappa(a, b, "linear").estimate == pytest.approx(0.902, abs=5e-4)


def test_kappa_of_text_needs_an_order():
    with pytest.raises(ValueError, match="order"):
        weighted_kappa(["mild", "severe"], ["mild", "mild"])
    grades = ["none", "mild", "severe"]
    found = weighted_kappa(["none", "mild", "severe"], ["none", "mild", "mild"], categories=grades)
    numbers = weighted_kappa([0, 1, 2], [0, 1, 1])
    assert found.estimate == pytest.approx(numbers.estimate)
    with pytest.raises(ValueError, match="not one of the categories"):
        weighted_kappa(["none", "worse"], ["none", "mild"], categories=grades)


def test_kappa_degenerate():
    with pytest.raises(NotComputable, match="no variance"):
        weighted_kappa([3, 3, 3], [3, 3, 3])
    perfect = weighted_kappa([1, 2, 3, 3], [1, 2, 3, 3])
    assert (perfect.estimate, perfect.ci_low, perfect.ci_high) == (1, 1, 1)
    constant = weighted_kappa([1, 2, 3, 3], [2, 2, 2, 2])
    assert constant.estimate == pytest.approx(0.0)


def test_kappa_bootstrap_is_seeded():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, 60)
    b = np.clip(a + rng.integers(-1, 2, 60), 0, 4)
    first, second = (weighted_kappa(a, b, resamples=500) for _ in range(2))
    assert first.bootstrap_ci == second.bootstrap_ci
    assert first.bootstrap_ci[0] < first.estimate < first.bootstrap_ci[1]


def test_prevalence_paradox_shows_in_indices_and_gwet():
    """Feinstein and Cicchetti 1990: 85 % agreement, kappa low; AC1 is not."""
    a = [1] * 90 + [0] * 10
    b = [1] * 80 + [0] * 10 + [1] * 5 + [0] * 5
    found = weighted_kappa(a, b, "none")
    assert found.estimate == pytest.approx(0.32, abs=5e-3)
    assert found.prevalence_index == pytest.approx(0.75)
    assert categorical.chance_corrected(np.column_stack([a, b]), "gwet").estimate == pytest.approx(
        0.81, abs=5e-3
    )


def test_gwet_is_defined_when_all_grades_are_equal():
    found = categorical.chance_corrected(np.ones((6, 2)), "gwet", categories=[0, 1])
    assert found.estimate == 1.0


def test_missing_grades_are_never_a_category():
    table = np.array([[1, 1, 1], [2, 2, np.nan], [1, 2, 1], [2, 2, 2], [3, 3, 3]])
    found = categorical.chance_corrected(table, "fleiss")
    # All five targets are used (Gwet 2014): complete cases gave 0.7 from four.
    assert found.n == 5 and "14 of 15 readings" in found.note
    assert found.estimate == pytest.approx(0.788732, abs=1e-6)


def test_alpha_interval_of_two_readers_is_near_the_one_way_icc():
    ratings = simulated(200, 2, 9, reader=0.0)
    alpha = categorical.krippendorff_alpha(ratings, "interval")
    one_way = intraclass_correlation(ratings)["icc_1_1"]
    assert alpha.estimate == pytest.approx(one_way.estimate, abs=1e-3)
    assert alpha.ci_low == pytest.approx(one_way.ci_low, abs=0.02)


def test_repeatability_unequal_numbers_of_repeats():
    readings = np.array([[1.0, 2.0, 3.0], [4.0, 6.0, np.nan], [5.0, np.nan, np.nan]])
    found = metrology.repeatability(readings)["within_sd"]
    assert found.estimate == pytest.approx(np.sqrt((2.0 + 2.0) / 3))
    assert found.n == 2


def test_cv_leaves_out_targets_without_any_lesion():
    readings = np.array([[0.0, 0.0], [10.0, 11.0], [20.0, 19.0]])
    found = metrology.repeatability(readings)
    assert "1 targets" in found["within_cv_percent"].note
    assert found["within_cv_percent"].n == 2
    negative = metrology.repeatability(np.array([[-1.0, 1.0], [2.0, 3.0]]))
    assert np.isnan(negative["within_cv_percent"].estimate)


def test_linearity_finds_scale_and_curve():
    truth = np.repeat(np.arange(1.0, 11.0), 3)
    noise = np.tile([-0.1, 0.0, 0.1], 10)
    straight = linearity(1.1 * truth + noise, truth)
    assert straight.slope.estimate == pytest.approx(1.1)
    assert straight.slope.p_value < 1e-6
    assert straight.bias_percent.estimate == pytest.approx(10.0)
    assert straight.curvature.p_value > 0.5
    curved = linearity(truth + 0.02 * truth**2 + noise, truth)
    assert curved.curvature.estimate == pytest.approx(0.02)
    assert curved.curvature.p_value < 1e-6


def test_overall_concordance_of_identical_readers():
    values = np.arange(10.0)
    assert differences.overall_concordance(np.column_stack([values] * 3)).estimate == 1.0


def test_quantile_limits_and_welch_by_hand():
    limits = _quantile_limits(np.arange(200.0), np.zeros(200))
    assert [one.estimate for _, _, one in limits] == pytest.approx([4.975, 194.025])
    found = _welch(np.array([1.0, 2, 3, 4]), np.array([0.0, 1, 1, 2]))
    assert found.estimate == 1.5 and found.p_value == pytest.approx(0.106, abs=5e-4)
    assert _cube(pd.DataFrame({"participant_id": "1", "visit": "a", "source": ["x", "x", "y"],
        "repeat": [1, 2, 1], "value": [1.0, 2.0, 3.0]}), ["x", "y"])[0][0, 0].tolist() == [1, 2]  # fmt: skip
