"""Type I error 4 to 6 % and coverage 93 to 97 % of the primary methods at n = 60.

Fixed seeds; the number of repetitions puts the Monte-Carlo error (two standard errors) at about
1 % for 2000 repetitions, so that a right method stays inside with room.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics import (
    comparison,
    correlation,
    dose_response,
    mmrm,
    ordinal,
    quantile,
    survival,
)
from corelab.pharmacodynamics.linear import fit_linear

pytestmark = [pytest.mark.acceptance, pytest.mark.slow]
N = 60
ARM = np.repeat([0.0, 1.0], N // 2)


def rates(one, repetitions: int, seed: int):
    """Shares of p < 0.05 and of intervals that hold the truth, over repetitions of ``one``."""
    rng = np.random.default_rng(seed)
    results = [one(rng) for _ in range(repetitions)]
    p = np.array([r[0] for r in results])
    inside = np.array([r[1] <= truth <= r[2] for r in results for truth in [r[3]]])
    return float(np.mean(p < 0.05)), float(np.mean(inside))


def assert_honest(null, effect, repetitions: int = 2000, seed: int = 60):
    error, coverage_at_null = rates(null, repetitions, seed)
    _, coverage = rates(effect, repetitions, seed + 1)
    assert 0.04 <= error <= 0.06, f"type I error {error:.3f}"
    assert 0.93 <= coverage_at_null <= 0.97, f"coverage at the null {coverage_at_null:.3f}"
    assert 0.93 <= coverage <= 0.97, f"coverage {coverage:.3f}"


@pytest.mark.parametrize("kernel", [correlation.pearson, correlation.spearman])
def test_correlation(kernel):
    def with_rho(rho):
        # Population Spearman of a bivariate normal: 6 / pi asin(rho / 2).
        truth = rho if kernel is correlation.pearson else 6 / math.pi * math.asin(rho / 2)

        def one(rng):
            x = rng.normal(size=N)
            y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=N)
            r = kernel(x, y)
            return r.p_value, r.ci_low, r.ci_high, truth

        return one

    assert_honest(with_rho(0.0), with_rho(0.6))


def test_ancova_on_change():
    def with_effect(effect):
        def one(rng):
            baseline = rng.normal(20, 5, N)
            change = 5 - 0.3 * baseline + effect * ARM + rng.normal(0, 4, N)
            x = np.column_stack([np.ones(N), ARM, baseline])
            r = fit_linear(x, change).contrast([0, 1, 0])
            return r.p_value, r.ci_low, r.ci_high, effect

        return one

    assert_honest(with_effect(0.0), with_effect(-3.0))


def test_mann_whitney_and_hodges_lehmann_on_skewed_volumes():
    def with_shift(shift):
        def one(rng):
            a, b = rng.lognormal(2, 1, N // 2) + shift, rng.lognormal(2, 1, N // 2)
            r = comparison.mann_whitney(a, b)
            return r.p_value, r.ci_low, r.ci_high, shift

        return one

    assert_honest(with_shift(0.0), with_shift(4.0))


def test_mmrm_with_missing_visits():
    """The default: unstructured, Kenward-Roger."""
    root = np.linalg.cholesky(np.array([[4, 2, 1], [2, 5, 3], [1, 3, 8.0]]))

    def with_effect(effect):
        def one(rng):
            y = rng.normal(size=(N, 3)) @ root.T + np.outer(ARM, [0, 0, effect])
            gone = rng.random((N, 3)) < [0.0, 0.1, 0.25]
            subject, visit = np.nonzero(~gone)
            x = np.column_stack(
                [visit == k for k in range(3)] + [ARM[subject] * (visit == k) for k in range(3)]
            ).astype(float)
            model = mmrm.fit_mmrm(subject, visit, y[~gone], x, list("abcdef"))
            r = model.contrast([0, 0, 0, 0, 0, 1], df="kenward_roger")
            return r.p_value, r.ci_low, r.ci_high, effect

        return one

    assert_honest(with_effect(0.0), with_effect(2.0), 1500)


def test_kenward_roger_corrects_small_trials_with_missing_visits():
    """24 participants, 30 % of visits missing: the model-based variance is a third too small."""
    n, m = 24, 4
    rng = np.random.default_rng(1)
    visit, subject = np.tile(np.arange(m), n), np.repeat(np.arange(n), m)
    estimates, plain, adjusted, hits = [], [], [], [[], []]
    for _ in range(300):
        arm = np.repeat(rng.permutation(np.repeat([0.0, 1.0], n // 2)), m)
        y = rng.normal(size=n * m) + np.repeat(rng.normal(size=n), m)
        keep = rng.random(n * m) > 0.3
        x = np.column_stack([(visit == k).astype(float) for k in range(m)] + [arm])[keep]
        try:
            model = mmrm.fit_mmrm(subject[keep], visit[keep], y[keep], x, list("abcde"))
        except NotComputable:
            continue
        for k, df in enumerate(("satterthwaite", "kenward_roger")):
            result = model.contrast([0, 0, 0, 0, 1], df=df)
            hits[k].append(result.p_value < 0.05)
            (plain, adjusted)[k].append(result.standard_error**2)
        estimates.append(result.estimate)
    truth = np.var(estimates)
    assert np.mean(plain) < 0.8 * truth
    assert 0.85 * truth < np.mean(adjusted) < 1.25 * truth
    assert np.mean(hits[0]) > 0.08 > np.mean(hits[1]) > 0.03


def test_linear_dose_response():
    dose = np.repeat([0.0, 10.0, 25.0], N // 3)

    def with_slope(slope):
        def one(rng):
            y = 12 + slope * dose + rng.normal(0, 5, N)
            r = fit_linear(np.column_stack([np.ones(N), dose]), y).contrast([0, 1])
            return r.p_value, r.ci_low, r.ci_high, slope

        return one

    assert_honest(with_slope(0.0), with_slope(-0.3))


def test_emax_profile_interval_covers():
    dose = np.repeat([0.0, 2, 5, 10, 25], N // 5)

    def one(rng):
        y = 12 - 10 * dose / (5 + dose) + rng.normal(0, 2, N)
        fit = dose_response.fit_emax(dose, y)
        low, high = dose_response.profile_limits(dose, y, fit, "ed50")
        return 0.0, low, high, 5.0

    _, coverage = rates(one, 600, 3)
    assert 0.93 <= coverage <= 0.97


def test_mcp_mod_keeps_its_one_sided_level():
    doses = np.array([0.0, 2, 5, 10, 25])
    indicator = (np.repeat(doses, N // 5)[:, None] == doses).astype(float)
    shapes = {
        "linear": doses,
        "emax": dose_response.standard_shape("emax", doses, ed50=5),
        "sigmoid": dose_response.standard_shape("sigmoid_emax", doses, ed50=10, hill=4),
    }
    rng = np.random.default_rng(9)
    first = fit_linear(indicator, rng.normal(size=N))
    cut = dose_response.multiple_contrasts(
        first.coefficients, first.covariance, first.df, shapes, 0.05
    ).critical_value
    block = np.array(
        [
            t.contrast
            for t in dose_response.multiple_contrasts(
                first.coefficients, first.covariance, first.df, shapes, 0.05
            ).tests
        ]
    )
    hits = 0
    for _ in range(4000):
        fit = fit_linear(indicator, rng.normal(size=N))
        t = block @ fit.coefficients / np.sqrt(np.diag(block @ fit.covariance @ block.T))
        hits += t.max() > cut
    assert 0.04 <= hits / 4000 <= 0.06


def test_common_odds_ratio_generalised_odds_and_win_ratio():
    cuts = np.array([-2.0, -1.0, 0.0, 0.8, 1.6, 2.4])

    def with_log_odds(log_odds):
        def one(rng):
            y = np.digitize(log_odds * ARM + rng.logistic(size=N), cuts)
            fit = ordinal.fit_proportional_odds(ARM, y)
            b, se = fit.coefficients[0], fit.standard_errors[0]
            p = math.erfc(abs(b) / se / math.sqrt(2))
            return p, b - 1.959964 * se, b + 1.959964 * se, log_odds

        return one

    assert_honest(with_log_odds(0.0), with_log_odds(0.8))


@pytest.mark.parametrize("what", ["generalised", "win"])
def test_pairwise_ratios(what):
    shares = np.array([0.15, 0.2, 0.2, 0.15, 0.15, 0.15])
    moved = np.array([0.25, 0.25, 0.2, 0.1, 0.1, 0.1])

    def odds(a, b, ties):
        above = sum(a[i] * b[j] for i in range(6) for j in range(6) if i > j)
        below = sum(a[i] * b[j] for i in range(6) for j in range(6) if i < j)
        tied = (1 - above - below) / 2 if ties else 0.0
        return (above + tied) / (below + tied)

    def with_shares(a, b):
        truth = odds(a, b, what == "generalised")

        def one(rng):
            x, y = rng.choice(6, N // 2, p=a), rng.choice(6, N // 2, p=b)
            if what == "generalised":
                r = ordinal.generalised_odds_ratio(x, y)
            else:
                scores = ordinal.hierarchical_scores(x[:, None], y[:, None], ["high"])
                r = ordinal.win_statistics(scores).win_ratio
            return r.p_value, r.ci_low, r.ci_high, truth

        return one

    assert_honest(with_shares(shares, shares), with_shares(shares, moved))


def test_median_regression_with_unequal_spread():
    x = np.column_stack([np.ones(200), np.linspace(0, 4, 200)])

    def one(rng):
        y = 1 + 2 * x[:, 1] + (1 + x[:, 1]) * rng.normal(size=200)
        fit = quantile.fit_quantile(x, y, 0.5)
        half = 1.972 * math.sqrt(fit.covariance[1, 1])
        b = fit.coefficients[1]
        return 0.0, b - half, b + half, 2.0

    _, coverage = rates(one, 400, 8)
    assert 0.925 <= coverage <= 0.975


def test_cox_log_rank_and_restricted_mean():
    def with_log_hazard(log_hazard):
        def one(rng):
            t = rng.exponential(np.exp(-log_hazard * ARM))
            c = rng.uniform(0.5, 3, N)
            time, event = np.minimum(t, c), (t <= c).astype(float)
            fit = survival.fit_cox(time, event, ARM)
            b, se = fit.coefficients[0], fit.standard_errors[0]
            p = survival.log_rank(time, event, ARM).p_value
            return p, b - 1.959964 * se, b + 1.959964 * se, log_hazard

        return one

    assert_honest(with_log_hazard(0.0), with_log_hazard(0.6), 1000)


def test_clustered_log_rank_keeps_its_level():
    from corelab.pharmacodynamics.progression import paired_log_rank

    rng = np.random.default_rng(12)
    p = []
    for _ in range(600):
        shared = rng.exponential(size=N)
        a, b = (shared * rng.lognormal(0, 0.3, N) for _ in range(2))
        cut = rng.uniform(0.5, 3, N)
        times = [(np.minimum(t, cut), (t <= cut).astype(float)) for t in (a, b)]
        p.append(paired_log_rank(*times[0], *times[1])[3])
    assert 0.03 <= np.mean(np.array(p) < 0.05) <= 0.07


def test_permutation_p_of_pure_noise_is_uniform():
    """Issue: selection inside the folds, pure noise features give a uniform p."""
    from scipy import stats

    from corelab.pharmacodynamics.supervised_components import permutation_p

    rng = np.random.default_rng(13)
    p = []
    for _ in range(40):
        x = rng.normal(size=(40, 40))
        t = rng.exponential(size=40)
        p.append(permutation_p(x, t, np.ones(40), permutations=19, n_folds=4, threshold=0.5)[1])
    jitter = np.array(p) - rng.uniform(0, 0.05, len(p))
    assert stats.kstest(jitter, "uniform").pvalue > 0.01


def test_gamma_regression():
    from corelab.pharmacodynamics.skewed import fit_gamma

    x = np.column_stack([np.ones(N), ARM])

    def with_effect(effect):
        def one(rng):
            r = fit_gamma(x, rng.gamma(2.0, np.exp(1 + effect * ARM) / 2)).term(1)
            return r.p_value, r.ci_low, r.ci_high, effect

        return one

    assert_honest(with_effect(0.0), with_effect(-0.6))


def test_multiple_imputation_with_a_quarter_missing():
    from corelab.pharmacodynamics.linear import fit_linear
    from corelab.pharmacodynamics.missing_visits import impute_normal, rubin

    def with_effect(effect):
        def one(rng):
            base = rng.normal(0, 1, N)
            later = 0.7 * base + effect * ARM + rng.normal(0, 0.7, N)
            # Missing at random: more often where the baseline was high.
            later[rng.random(N) < 0.5 / (1 + np.exp(-base))] = np.nan
            drawn = np.empty((20, N, 2))
            seed = int(rng.integers(1 << 30))
            for arm in (0.0, 1.0):
                inside = arm == ARM
                table = np.column_stack([base, later])[inside]
                drawn[:, inside] = impute_normal(table, 20, seed=seed + int(arm))
            fits = [fit_linear(np.column_stack([np.ones(N), ARM, d[:, 0]]), d[:, 1]) for d in drawn]
            pooled = rubin(
                [f.coefficients[1] for f in fits], [f.covariance[1, 1] for f in fits], N - 3
            )
            r = pooled.result
            return r.p_value, r.ci_low, r.ci_high, effect

        return one

    assert_honest(with_effect(0.0), with_effect(0.8), 1000)


def test_indirect_effect_covers():
    from corelab.pharmacodynamics.mediation import mediation_paths, resampled

    def one(rng):
        m = -0.8 * ARM + rng.normal(0, 1, N)
        y = 0.9 * m + rng.normal(0, 1, N)

        def product(rows):
            paths = mediation_paths(ARM[rows], m[rows], y[rows])
            return paths.indirect

        low, high, _ = resampled(product, ARM, resamples=250, seed=int(rng.integers(1 << 30)))
        return 1.0, low, high, -0.72

    _, coverage = rates(one, 250, 5)
    assert 0.90 <= coverage <= 0.98
