"""Simulated data sets of 60 participants for every primary method of the plan, with their truth.

Each entry of :data:`METHODS` draws one data set, without (``planted`` False) or with an effect, and
gives the p value and the interval that the method prints with the value they are about. The bench
runs 2000 of each; the tests fewer, in windows that follow from the number of runs.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from helpers import run
from scipy import stats

from corelab.measurement.selection import NotComputable, Tables
from corelab.pharmacodynamics import (
    comparison,
    competing,
    correlation,
    diagnostic,
    dose_response,
    interval_censored,
    mediation,
    missing_visits,
    mmrm,
    modelling,
    ordinal,
    progression,
    proportional_odds,
    proportions,
    quantile,
    repeated_grades,
    skewed,
    stratified,
    survival,
    survival_measures,
)
from corelab.pharmacodynamics.estimates import t_estimate
from corelab.pharmacodynamics.linear import fit_linear, with_hc3

N = 60
ARM = np.repeat([0.0, 1.0], N // 2)
ARMS = np.column_stack([np.ones(N), ARM])
NO_TEST = NO_INTERVAL = math.nan
Z = float(stats.norm.ppf(0.975))
#: Simulated trials of the bench, and how many decide on a method that is outside.
RUNS, AGAIN = 2000, 10_000
#: Acceptance windows of the error rate at 5 % and of the coverage of 95 % intervals.
ERROR, COVERAGE = (0.04, 0.06), (0.93, 0.97)
#: P(score + 1 > 0) of a logistic score with a normal person effect of SD 1.2, as a log odds, by
#: numerical integration.
_POINTS = np.linspace(-8, 8, 4001)
_SHARE = float(
    np.sum(stats.norm.pdf(_POINTS, 0, 1.2) / (1 + np.exp(-1 - _POINTS))) * (_POINTS[1] - _POINTS[0])
)
_SUBJECT_TO_MARGIN = math.log(_SHARE / (1 - _SHARE))
Draw = tuple[float, float, float, float]
Method = Callable[[np.random.Generator, bool], Draw]


def _of(result: Any, truth: float) -> Draw:
    return result.p_value, result.ci_low, result.ci_high, truth


def _correlated(rng, rho, n=N):
    x = rng.normal(size=n)
    return x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)


# --------------------------------------------------------------------------------- correlations


def pearson(rng, planted):
    rho = 0.6 * planted
    return _of(correlation._pearson(*_correlated(rng, rho)), rho)


def spearman(rng, planted):
    rho = 0.6 * planted
    # Population Spearman of a bivariate normal.
    return _of(correlation.spearman(*_correlated(rng, rho)), 6 / math.pi * math.asin(rho / 2))


def kendall(rng, planted):
    rho = 0.5 * planted
    return _of(correlation._kendall(*_correlated(rng, rho)), 2 / math.pi * math.asin(rho))


def partial(rng, planted):
    rho = 0.5 * planted
    z = rng.normal(size=(N, 2))
    x, y = _correlated(rng, rho)
    return _of(correlation.partial(x + z @ [1, -1], y + z @ [0.5, 1], z), rho)


def semi_partial(rng, planted):
    rho = 0.5 * planted
    z = rng.normal(size=(N, 1))
    x, y = _correlated(rng, rho)
    # Var(x) is 2, of which the covariate has half.
    found = correlation.partial(x + z[:, 0], y + z[:, 0], z, only_of_y=True)
    return _of(found, rho / math.sqrt(2))


def repeated(rng, planted):
    rho, visits = 0.5 * planted, 3
    x, y = _correlated(rng, rho, N * visits)
    people = np.repeat(np.arange(N), visits)
    own = rng.normal(0, 2, (2, N))
    return _of(correlation._repeated(people, x + own[0, people], y + own[1, people]), rho)


def attenuated(rng, planted):
    rho, icc = 0.6 * planted, 0.8
    x, y = _correlated(rng, rho)
    seen = x + rng.normal(0, math.sqrt(1 / icc - 1), N)
    return _of(correlation._corrected_for_attenuation(correlation._pearson(seen, y), icc), rho)


def difference_of_groups(rng, planted):
    first, second = (0.7, 0.2) if planted else (0.5, 0.5)
    r = [correlation._pearson(*_correlated(rng, rho)).estimate for rho in (first, second)]
    return _of(correlation._difference_independent(r[0], N, r[1], N), first - second)


def difference_of_ranks(rng, planted):
    """Spearman in two groups at rho 0.9, where Pearson's variance rejects 8 %."""
    first, second = (0.9, 0.6) if planted else (0.9, 0.9)
    rho = [correlation.spearman(*_correlated(rng, r)).estimate for r in (first, second)]
    own = tuple(correlation._spearman_variance(r, N) for r in rho)
    found = correlation._difference_independent(rho[0], N, rho[1], N, variances=own)
    truth = [6 / math.pi * math.asin(r / 2) for r in (first, second)]
    return _of(found, truth[0] - truth[1])


def roc_logit(rng, planted):
    area = 0.95 if planted else 0.5
    y = rng.normal(size=N) + math.sqrt(2) * stats.norm.ppf(area) * ARM
    return _of(diagnostic._roc_area(y, ARM, ci="logit"), area)


def difference_of_pairs(rng, planted):
    xy, xz, yz = (0.7, 0.3, 0.4) if planted else (0.5, 0.5, 0.4)
    root = np.linalg.cholesky(np.array([[1, xy, xz], [xy, 1, yz], [xz, yz, 1.0]]))
    r = np.corrcoef((rng.normal(size=(N, 3)) @ root.T).T)
    return _of(correlation._difference_dependent(r[0, 1], r[0, 2], r[1, 2], N), xy - xz)


# ---------------------------------------------------------------------------------- comparisons


def student(rng, planted):
    y = rng.normal(10, 4, N) + 2 * planted * ARM
    return _of(comparison.student_t(y[ARM == 1], y[ARM == 0]), 2.0 * planted)


def welch(rng, planted):
    y = rng.normal(10, 3 + 3 * ARM) + 3 * planted * ARM
    return _of(comparison.welch_t(y[ARM == 1], y[ARM == 0]), 3.0 * planted)


def mann_whitney(rng, planted):
    a, b = rng.lognormal(2, 1, N // 2) + 4 * planted, rng.lognormal(2, 1, N // 2)
    return _of(comparison._mann_whitney(a, b).shift, 4.0 * planted)


def ancova(rng, planted):
    baseline = rng.normal(20, 5, N)
    change = 5 - 0.3 * baseline - 3 * planted * ARM + rng.normal(0, 4, N)
    fit = fit_linear(np.column_stack([ARMS, baseline]), change)
    return _of(fit.contrast([0, 1, 0]), -3.0 * planted)


def _volumes(rng, scale):
    before = rng.lognormal(3, 0.7, N)
    return before, {"log": np.log, "cube_root": np.cbrt}[scale](before)


def ancova_log(rng, planted):
    _, x = _volumes(rng, "log")
    y = 0.3 + 0.9 * x - 0.3 * planted * ARM + rng.normal(0, 0.4, N)
    return _of(fit_linear(np.column_stack([ARMS, x]), y).contrast([0, 1, 0]), -0.3 * planted)


def ancova_cube_root(rng, planted):
    _, x = _volumes(rng, "cube_root")
    y = 0.2 + x - 0.4 * planted * ARM + rng.normal(0, 0.5, N)
    return _of(fit_linear(np.column_stack([ARMS, x]), y).contrast([0, 1, 0]), -0.4 * planted)


VISITS = np.linalg.cholesky(np.array([[4, 2, 1], [2, 5, 3], [1, 3, 8.0]]))


def mixed_repeated(rng, planted):
    """MMRM as it stands: unstructured, Kenward-Roger, a tenth and a quarter of visits missing."""
    y = rng.normal(size=(N, 3)) @ VISITS.T + np.outer(ARM, [0, 0, 2.0 * planted])
    gone = rng.random((N, 3)) < [0.0, 0.1, 0.25]
    subject, visit = np.nonzero(~gone)
    x = np.column_stack(
        [visit == k for k in range(3)] + [ARM[subject] * (visit == k) for k in range(3)]
    ).astype(float)
    model = mmrm._fit_mmrm(subject, visit, y[~gone], x, list("abcdef"))
    return _of(model.contrast([0, 0, 0, 0, 0, 1], df="kenward_roger"), 2.0 * planted)


def mixed_by_arm(rng, planted):
    """Arms of 40 and 20 participants, the smaller with twice the SD: a covariance for each."""
    arm = (np.arange(N) >= 40).astype(float)
    y = rng.normal(size=(N, 3)) @ VISITS.T * (1 + arm)[:, None]
    y += np.outer(arm, [0, 0, 2.0 * planted])
    gone = rng.random((N, 3)) < [0.0, 0.1, 0.25]
    subject, visit = np.nonzero(~gone)
    x = np.column_stack(
        [visit == k for k in range(3)] + [arm[subject] * (visit == k) for k in range(3)]
    ).astype(float)
    model = mmrm._fit_mmrm(subject, visit, y[~gone], x, list("abcdef"), group=arm[subject])
    return _of(model.contrast([0, 0, 0, 0, 0, 1], df="kenward_roger"), 2.0 * planted)


def gamma(rng, planted):
    y = rng.gamma(2.0, np.exp(1 - 0.6 * planted * ARM) / 2)
    return _of(skewed._fit_gamma(ARMS, y).term(1), -0.6 * planted)


def two_part_test(rng, planted):
    """The joint test of both parts (its interval is a bootstrap and has an entry of its own)."""
    y = np.where(rng.random(N) < 0.35, 0.0, rng.gamma(2.0, 5.0, N))
    x = ARMS
    odds, size = (
        skewed._fit_logistic(x, y > 0).term(1),
        skewed._fit_gamma(x[y > 0], y[y > 0]).term(1),
    )
    return skewed._joint_test(odds, size)[1], NO_INTERVAL, NO_INTERVAL, 0.0


def two_part_ratio(rng, planted):
    share = np.where(ARM == 1, 0.65 - 0.2 * planted, 0.65)
    mean = np.where(ARM == 1, 10 - 4 * planted, 10.0)
    y = np.where(rng.random(N) < share, rng.gamma(2.0, mean / 2), 0.0)
    seed = int(rng.integers(1 << 30))
    fit = skewed._fit_two_part(ARMS, y, 1, resamples=400, seed=seed)
    return NO_TEST, fit.ratio.ci_low, fit.ratio.ci_high, share[-1] * mean[-1] / 6.5


def rank_analysis(rng, planted):
    base = rng.normal(size=N)
    y = np.exp(0.6 * base + rng.normal(size=N) + 0.8 * planted * ARM)
    y = np.where(y < 0.6, 0.0, y)
    found = skewed._rank_ancova(y, ARM, base[:, None])
    # With a covariate the estimate has no closed truth: the test is what is promised.
    return found.p_value, NO_INTERVAL, NO_INTERVAL, 0.0


def risk_difference(rng, planted):
    shares = (0.65, 0.35) if planted else (0.5, 0.5)
    k = [int(rng.binomial(N // 2, share)) for share in shares]
    return _of(proportions.risk_difference(k[0], N // 2, k[1], N // 2), shares[0] - shares[1])


def logistic(rng, planted):
    log_odds = 1.0 * planted
    y = rng.random(N) < 1 / (1 + np.exp(-log_odds * ARM))
    return _of(skewed._fit_logistic(ARMS, y).term(1), log_odds)


def imputed(rng, planted):
    """Missing at random, about a quarter: more often where the baseline was high."""
    base = rng.normal(0, 1, N)
    later = 0.7 * base + 0.8 * planted * ARM + rng.normal(0, 0.7, N)
    later[rng.random(N) < 0.5 / (1 + np.exp(-base))] = np.nan
    drawn = np.empty((20, N, 2))
    seed = int(rng.integers(1 << 30))
    for arm in (0.0, 1.0):
        inside = arm == ARM
        table = np.column_stack([base, later])[inside]
        drawn[:, inside] = missing_visits._impute_normal(table, 20, seed=seed + int(arm))
    fits = [fit_linear(np.column_stack([ARMS, d[:, 0]]), d[:, 1]) for d in drawn]
    pooled, _ = missing_visits._rubin(
        [f.coefficients[1] for f in fits], [f.covariance[1, 1] for f in fits], N - 3
    )
    return _of(pooled, 0.8 * planted)


def imputed_by_severity(rng, planted):
    """Missing by baseline severity in the drug arm only: right with that covariate alone.

    Severity worsens the outcome, so complete-case means of arms are wrong; without severity in
    the imputation model the estimate is off by far (coverage 3 % in the audit of 2026-11).
    """
    truth = -6.0 * planted
    severity = rng.normal(12, 5, N)
    before = 20 + rng.normal(0, 4, N)
    after = before + 2.0 * (severity - 12) + truth * ARM + rng.normal(0, 4, N)
    after[(rng.random(N) < 1 / (1 + np.exp(-0.5 * (severity - 12)))) & (ARM == 1)] = np.nan
    ids = [f"p{k:02d}" for k in range(N)]
    rows = [
        (i, v, x) for v, y in (("a", before), ("b", after)) for i, x in zip(ids, y, strict=True)
    ]
    values = pd.DataFrame(rows, columns=["participant_id", "visit", "value"]).dropna()
    values = values.assign(endpoint="v", source="pipeline", repeat=1, region="all", status="ok")
    people = pd.DataFrame({"participant_id": ids, "arm": ARM.astype(int), "severity": severity})
    found = run(
        {
            "id": "a",
            "type": "comparison",
            "endpoint": "v",
            "by": "arm",
            "reference": "0",
            "derivation": "change",
            "method": "multiple_imputation",
            "covariates": ["severity"],
            "imputations": 20,
            "seed": int(rng.integers(1 << 30)),
        },
        Tables(values, people, visit_order=("a", "b"), baseline="a"),
    ).iloc[0]
    return found["p_value"], found["ci_low"], found["ci_high"], truth


def ancova_hc3(rng, planted):
    """Arms with threefold standard deviations."""
    y = 0.8 * planted * ARM + rng.normal(0, 1 + 2 * ARM, N)
    fit = with_hc3(fit_linear(ARMS, y), ARMS, y)
    return _of(fit.contrast([0, 1]), 0.8 * planted)


def vanished(rng, planted):
    """Log ratios of which some are of lesions that vanished, by ranks."""
    y = rng.normal(0, 1, N)
    y[rng.random(N) < 0.25] = -10.0
    found = skewed._rank_ancova(y, ARM)
    return found.p_value, found.ci_low, found.ci_high, 0.0


STRATA = np.tile(["a", "b", "c"], N // 3)
BETWEEN = np.repeat(np.arange(N // 3), 3) % 2  # arms balanced within strata


def stratified_risk(rng, planted):
    base = np.select([STRATA == "a", STRATA == "b"], [0.35, 0.5], 0.65)
    y = (rng.random(N) < base + 0.15 * planted * (2 * BETWEEN - 1)).astype(float)
    (row,) = stratified.risk_rows(y, BETWEEN, STRATA, 0.05)
    return _of(row, 0.3 * planted)


def van_elteren(rng, planted):
    y = rng.normal(np.select([STRATA == "a", STRATA == "b"], [0.0, 2.0], 5.0), 1, N)
    return stratified.van_elteren(y, BETWEEN, STRATA)[1], NO_INTERVAL, NO_INTERVAL, 0.0


THREE = np.column_stack([np.ones(N), np.arange(N) % 3 == 1, np.arange(N) % 3 == 2]).astype(float)


def dunnett(rng, planted):
    """Familywise error of two doses against control; simultaneous coverage of both."""
    fit = fit_linear(THREE, rng.normal(0, 1, N))
    spread = fit.covariance[1:, 1:]
    errors = np.sqrt(np.diag(spread))
    t = fit.coefficients[1:] / errors
    p, critical = _dunnett_critical(N - 3)
    return float(min(p(value) for value in np.abs(t))), *_worst(t, critical), 0.0


@cache
def _dunnett_critical(df):
    r = np.array([[1.0, 0.5], [0.5, 1.0]])
    grid = np.linspace(0, 6, 241)
    shares = modelling.max_abs_t(grid, r, df)[0]
    return lambda value: np.interp(value, grid, shares), modelling.max_abs_t([0], r, df)[1]


def _worst(t, critical):
    """Limits, in standard errors, of the contrast that is farthest from its truth 0."""
    value = t[np.argmax(np.abs(t))]
    return value - critical, value + critical


def fine_gray(rng, planted):
    first = rng.exponential(100.0, N)
    second, end = rng.exponential(150, N), rng.uniform(60, 300, N)
    time = np.minimum(np.minimum(first, second), end)
    status = np.select([first <= np.minimum(second, end), second <= end], [1, 2], 0)
    fit = competing.fit_fine_gray(time, status, ARM[:, None])
    error = math.sqrt(float(fit.covariance[0, 0]))
    return _of(t_estimate(float(fit.coefficients[0]), error, math.inf), 0.0)


# --------------------------------------------------------------------------------- dose-response

DOSES = np.array([0.0, 2, 5, 10, 25])
DOSE = np.repeat(DOSES, N // 5)


def linear_dose(rng, planted):
    y = 12 - 0.2 * planted * DOSE + rng.normal(0, 5, N)
    fit = fit_linear(np.column_stack([np.ones(N), DOSE]), y)
    return _of(fit.contrast([0, 1]), -0.2 * planted)


def trend(rng, planted):
    p = dose_response._jonckheere(DOSE, rng.lognormal(1, 1, N))[1]
    return p, NO_INTERVAL, NO_INTERVAL, 0.0


def _emax_data(rng):
    return 12 - 10 * DOSE / (5 + DOSE) + rng.normal(0, 2, N)


def emax_ed50(rng, planted):
    y = _emax_data(rng)
    low, high = dose_response._profile_limits(DOSE, y, dose_response._fit_emax(DOSE, y), "ed50")
    return NO_TEST, low, high, 5.0


def emax_effect(rng, planted):
    y = _emax_data(rng)
    low, high = dose_response._profile_limits(DOSE, y, dose_response._fit_emax(DOSE, y), "emax")
    return NO_TEST, low, high, -10.0


@cache
def _candidates():
    shapes = {
        "linear": DOSES,
        "emax": dose_response.standard_shape("emax", DOSES, ed50=5),
        "sigmoid": dose_response.standard_shape("sigmoid_emax", DOSES, ed50=10, hill=4),
    }
    made = dose_response._multiple_contrasts(np.zeros(5), np.eye(5) / 12, N - 5, shapes, 0.05)
    return np.array([test.contrast for test in made.tests]), made.critical_value


def mcp_mod(rng, planted):
    """One-sided at 5 %: the contrasts and the critical value depend on the design only."""
    contrasts, critical = _candidates()
    fit = fit_linear((DOSE[:, None] == DOSES).astype(float), rng.normal(size=N))
    spread = np.sqrt(np.diag(contrasts @ fit.covariance @ contrasts.T))
    hit = np.max(contrasts @ fit.coefficients / spread) > critical
    return 0.0 if hit else 1.0, NO_INTERVAL, NO_INTERVAL, 0.0


# --------------------------------------------------------------------------------------- ordinal

CUTS = np.array([-2.0, -1.0, 0.0, 0.8, 1.6, 2.4])
EVEN = np.array([0.15, 0.2, 0.2, 0.15, 0.15, 0.15])
MOVED = np.array([0.25, 0.25, 0.2, 0.1, 0.1, 0.1])


def common_odds(rng, planted):
    log_odds = 0.8 * planted
    y = np.digitize(log_odds * ARM + rng.logistic(size=N), CUTS)
    fit = proportional_odds.fit_proportional_odds(ARM, y)
    found = fit.odds(0)
    return found.p_value, math.log(found.ci_low), math.log(found.ci_high), log_odds


def _two_scales(rng, planted):
    b = MOVED if planted else EVEN
    above = float(np.tril(np.outer(EVEN, b), -1).sum())
    below = float(np.triu(np.outer(EVEN, b), 1).sum())
    return rng.choice(6, N // 2, p=EVEN), rng.choice(6, N // 2, p=b), above, below


def generalised_odds(rng, planted):
    x, y, above, below = _two_scales(rng, planted)
    share = above + (1 - above - below) / 2
    return _of(ordinal._generalised_odds_ratio(x, y), share / (1 - share))


def _wins(x, y):
    return ordinal._win_statistics(ordinal._hierarchical_scores(x[:, None], y[:, None], ["high"]))


def win_ratio(rng, planted):
    x, y, above, below = _two_scales(rng, planted)
    return _of(_wins(x, y).win_ratio, above / below)


def net_benefit(rng, planted):
    x, y, above, below = _two_scales(rng, planted)
    return _of(_wins(x, y).net_benefit, above - below)


# ------------------------------------------------------------------------- quantiles, ROC, times


def _quantile_at(share):
    def one(rng, planted):
        # Spread that grows with x: what the sandwich is for.
        x = np.column_stack([np.ones(N), np.linspace(0, 4, N)])
        slope = 2.0 * planted
        noise = 1 + 0.5 * x[:, 1] * planted
        y = 1 + slope * x[:, 1] + noise * rng.normal(size=N)
        found = quantile._slopes(x, y, share)[1][1]
        truth = slope + 0.5 * planted * stats.norm.ppf(share)
        return found.p_value, found.ci_low, found.ci_high, truth

    return one


def roc(rng, planted):
    """Shift of a normal score such that the area is 0.5 or 0.8."""
    area = 0.8 if planted else 0.5
    y = rng.normal(size=N) + math.sqrt(2) * stats.norm.ppf(area) * ARM
    return _of(diagnostic._roc_area(y, ARM), area)


def roc_difference(rng, planted):
    shift = np.array([1.5, 0.5]) if planted else np.array([1.0, 1.0])
    y = rng.normal(size=(N, 1)) * 0.7 + rng.normal(size=(N, 2)) * math.sqrt(0.51)
    y = y + ARM[:, None] * shift
    areas = stats.norm.cdf(shift / math.sqrt(2))
    return _of(diagnostic._roc_difference(y[:, 0], y[:, 1], ARM), areas[0] - areas[1])


def _times(rng, log_hazard):
    t = rng.exponential(np.exp(-log_hazard * ARM))
    c = rng.uniform(0.5, 3, N)
    return np.minimum(t, c), (t <= c).astype(float)


def cox(rng, planted):
    log_hazard = 0.7 * planted
    fit = survival.fit_cox(*_times(rng, log_hazard), ARM)
    return _of(t_estimate(fit.coefficients[0], fit.standard_errors[0], math.inf), log_hazard)


def log_rank(rng, planted):
    return survival.log_rank(*_times(rng, 0.0), ARM).p_value, NO_INTERVAL, NO_INTERVAL, 0.0


def median_time(rng, planted):
    curve = survival.kaplan_meier(*_times(rng, 0.0))
    low, high = curve.quantile_interval()
    return NO_TEST, low, math.inf if math.isnan(high) else high, math.log(2)


def restricted_mean_difference(rng, planted):
    log_hazard, tau = 0.7 * planted, 1.0
    time, event = _times(rng, log_hazard)
    a, b = (survival.restricted_mean(time[k == ARM], event[k == ARM], tau) for k in (1, 0))
    rate = math.exp(log_hazard)
    truth = (1 - math.exp(-rate * tau)) / rate - (1 - math.exp(-tau))
    return _of(survival.restricted_mean_difference(a, b), truth)


def clustered_log_rank(rng, planted):
    shared = rng.exponential(size=N)
    cut = rng.uniform(0.5, 3, N)
    drawn = [shared * rng.lognormal(0, 0.3, N) for _ in range(2)]
    times = [(np.minimum(t, cut), (t <= cut).astype(float)) for t in drawn]
    p = progression._paired_log_rank(*times[0], *times[1])[3]
    return p, NO_INTERVAL, NO_INTERVAL, 0.0


def _visits(rng):
    """Participant, arm and a latent score at three visits, some missed; correlated."""
    who, person = np.repeat(np.arange(N), 3), rng.normal(0, 1.2, N)
    kept = rng.random(3 * N) > 0.1
    return who[kept], ARM[who][kept], person[who][kept] + rng.logistic(0, 1, kept.sum())


def repeated_responders(rng, planted):
    truth = 1.0 * planted
    who, arm, score = _visits(rng)
    # The marginal odds ratio that the shift of the logit within participants gives.
    shift = truth * _SUBJECT_TO_MARGIN
    x = np.column_stack([np.ones(who.size), arm])
    fit = repeated_grades._fit_binary_gee(who, (score + truth * arm > 0).astype(float), x)
    error = math.sqrt(float(fit.covariance[1, 1]))
    return _of(t_estimate(float(fit.coefficients[1]), error, fit.clusters - 2), shift)


def repeated_grades_(rng, planted):
    who, arm, score = _visits(rng)
    grade = np.digitize(score, [-1.0, 0.5, 2.0])
    fit = repeated_grades._fit_grades(who, grade, arm[:, None])
    error = math.sqrt(float(fit.covariance[0, 0]))
    return _of(t_estimate(float(fit.coefficients[0]), error, fit.clusters - 4), 0.0)


def grades_within(rng, planted):
    truth = 1.0 * planted
    who, arm, score = _visits(rng)
    grade = np.digitize(score + truth * arm, [-1.0, 0.5, 2.0])
    fit = repeated_grades._fit_within(who, grade, arm[:, None])
    error = math.sqrt(float(fit.covariance[0, 0]))
    return _of(t_estimate(float(fit.coefficients[0]), error, fit.clusters - 4), truth)


def mixed_exposure(rng, planted):
    truth = -0.8 * planted
    who, dose = np.repeat(np.arange(N), 3), rng.gamma(2, 2, 3 * N)
    y = rng.normal(0, 2, N)[who] + truth * dose + rng.normal(0, 3, 3 * N)
    kept = rng.random(3 * N) > 0.1
    x = np.column_stack([np.ones(kept.sum()), dose[kept]])
    fit, _, _ = mmrm.fit_linear_mixed(who[kept], y[kept], x, x[:, :1])
    return _of(fit.kenward_roger(np.array([0.0, 1.0])), truth)


def interval_trial(rng, effect, n=N):
    """Times known to lie between visits each 60 days or so, some missed; one in ten is dated."""
    arm = np.arange(n) % 2
    time = 200 * rng.weibull(1.3, n) * np.exp(-effect * arm / 1.3)
    visits = np.cumsum(rng.uniform(40, 80, (n, 9)), axis=1)
    visits = np.where(rng.random(visits.shape) < 0.15, np.nan, visits)
    before, after = visits < time[:, None], visits >= time[:, None]
    left = np.nanmax(np.where(before, visits, 0.0), axis=1)
    right = np.min(np.where(after, visits, np.inf), axis=1)
    dated = rng.random(n) < 0.1
    return np.where(dated, time, left), np.where(dated, time, right), arm


def interval_log_rank(rng, planted):
    left, right, arm = interval_trial(rng, 0.0)
    p = interval_censored.score_test(left, right, arm).p_value
    return p, NO_INTERVAL, NO_INTERVAL, 0.0


def interval_hazard(rng, planted):
    truth = 0.8 * planted
    left, right, arm = interval_trial(rng, truth)
    fit = interval_censored.fit_weibull(left, right, arm[:, None])
    error = math.sqrt(float(fit.covariance[2, 2]))
    return _of(t_estimate(float(fit.coefficients[0]), error, math.inf), truth)


def gray(rng, planted):
    first, second = rng.exponential(100, N), rng.exponential(150, N)
    end = rng.uniform(50, 250, N)
    time = np.minimum(np.minimum(first, second), end)
    status = np.select([first <= np.minimum(second, end), second <= end], [1, 2], 0)
    return competing.gray_test(time, status, ARM)[2], NO_INTERVAL, NO_INTERVAL, 0.0


def adjusted_mean(rng, planted):
    z = rng.normal(size=N)
    time, end = rng.exponential(np.exp(0.6 * z)), rng.uniform(0.5, 3.0, N)
    seen, x = (time <= end).astype(float), np.column_stack([ARMS, z])
    found = survival_measures.adjusted_restricted_mean(np.minimum(time, end), seen, ARM, x, 1.5, 1)
    return _of(found, 0.0)


def indirect_effect(rng, planted):
    """BCa interval of the effect through the endpoint; 400 resamples, the plan's 2000 are finer."""
    m = -0.8 * ARM + rng.normal(0, 1, N)
    y = 0.9 * m + rng.normal(0, 1, N)

    def product(rows):
        a, b, _ = mediation._path_estimates(ARM[rows], m[rows], y[rows], np.empty((rows.size, 0)))
        return a * b

    low, high = correlation.bca_limits(
        product, N, 0.05, resamples=400, seed=int(rng.integers(1 << 30))
    )
    return NO_TEST, low, high, -0.72


@dataclass(frozen=True)
class Simulated:
    """A method, and whether the planted data set asks something that the null does not."""

    draw: Method
    with_effect: bool = True


METHODS: dict[str, Simulated] = {
    "Pearson": Simulated(pearson),
    "Spearman": Simulated(spearman),
    "Kendall": Simulated(kendall),
    "partial correlation": Simulated(partial),
    "semi-partial correlation": Simulated(semi_partial),
    "repeated-measures correlation": Simulated(repeated),
    "attenuation-corrected": Simulated(attenuated),
    "difference of r, two groups": Simulated(difference_of_groups),
    "difference of Spearman's rho, two groups": Simulated(difference_of_ranks),
    "ROC area, logit": Simulated(roc_logit),
    "difference of r, same people": Simulated(difference_of_pairs),
    "t test": Simulated(student),
    "Welch": Simulated(welch),
    "Mann-Whitney, Hodges-Lehmann": Simulated(mann_whitney),
    "ANCOVA": Simulated(ancova),
    "ANCOVA, log": Simulated(ancova_log),
    "ANCOVA, cube root": Simulated(ancova_cube_root),
    "MMRM, Kenward-Roger": Simulated(mixed_repeated),
    "MMRM, covariance by arm": Simulated(mixed_by_arm),
    "gamma regression": Simulated(gamma),
    "two-part, joint test": Simulated(two_part_test, with_effect=False),
    "two-part, ratio of means": Simulated(two_part_ratio),
    "rank ANCOVA": Simulated(rank_analysis, with_effect=False),
    "risk difference": Simulated(risk_difference),
    "logistic odds ratio": Simulated(logistic),
    "multiple imputation": Simulated(imputed),
    "multiple imputation, covariate": Simulated(imputed_by_severity),
    "ANCOVA, HC3": Simulated(ancova_hc3),
    "ranks with vanished lesions": Simulated(vanished, with_effect=False),
    "Mantel-Haenszel risk difference": Simulated(stratified_risk),
    "van Elteren": Simulated(van_elteren, with_effect=False),
    "Dunnett": Simulated(dunnett, with_effect=False),
    "Fine and Gray": Simulated(fine_gray, with_effect=False),
    "linear dose-response": Simulated(linear_dose),
    "mixed exposure-response": Simulated(mixed_exposure),
    "GEE of responders": Simulated(repeated_responders),
    "GEE of grades": Simulated(repeated_grades_, with_effect=False),
    "random intercept of grades": Simulated(grades_within),
    "Jonckheere trend": Simulated(trend, with_effect=False),
    "Emax, ED50 profile": Simulated(emax_ed50, with_effect=False),
    "Emax, Emax profile": Simulated(emax_effect, with_effect=False),
    "MCP-Mod": Simulated(mcp_mod, with_effect=False),
    "common odds ratio": Simulated(common_odds),
    "generalised odds ratio": Simulated(generalised_odds),
    "win ratio": Simulated(win_ratio),
    "net benefit": Simulated(net_benefit),
    **{
        f"quantile regression, q={share:.2f}": Simulated(_quantile_at(share))
        for share in (0.10, 0.25, 0.50, 0.75, 0.90)
    },
    "ROC area": Simulated(roc),
    "difference of ROC areas": Simulated(roc_difference),
    "Cox": Simulated(cox),
    "log-rank": Simulated(log_rank, with_effect=False),
    "median of Kaplan-Meier": Simulated(median_time, with_effect=False),
    "restricted mean difference": Simulated(restricted_mean_difference),
    "adjusted restricted mean": Simulated(adjusted_mean, with_effect=False),
    "Gray's test": Simulated(gray, with_effect=False),
    "interval-censored log-rank": Simulated(interval_log_rank, with_effect=False),
    "interval-censored hazard ratio": Simulated(interval_hazard),
    "clustered log-rank": Simulated(clustered_log_rank, with_effect=False),
    "indirect effect": Simulated(indirect_effect, with_effect=False),
}


@dataclass(frozen=True)
class Rates:
    """What a number of simulated trials gave.

    Attributes
    ----------
    error
        Share of p below 0.05 without an effect; nan for a method without a test.
    coverage
        Shares of intervals that hold the truth, without and with an effect.
    computed
        Smallest share of data sets that gave a result.
    """

    error: float
    coverage: tuple[float, ...]
    computed: float

    @property
    def honest(self) -> bool:
        """Whether error rate and coverage lie in their windows."""
        level = math.isnan(self.error) or ERROR[0] <= self.error <= ERROR[1]
        return level and all(COVERAGE[0] <= share <= COVERAGE[1] for share in self.coverage)

    def could_be_honest(self, runs: int, p: float = 1e-4) -> bool:
        """Whether the binomial distribution of so few runs allows rates inside the windows."""

        def allowed(share: float, window: tuple[float, float]) -> bool:
            low, high = (
                stats.binom.ppf(q, runs, w) for q, w in zip((p, 1 - p), window, strict=True)
            )
            return bool(low <= round(share * runs) <= high)

        level = math.isnan(self.error) or allowed(self.error, ERROR)
        return level and all(allowed(share, COVERAGE) for share in self.coverage)


def standard_error(share: float, runs: int) -> float:
    """Monte-Carlo standard error of a share.

    >>> round(standard_error(0.05, 2000), 4)
    0.0049
    """
    return math.sqrt(share * (1 - share) / runs)


def rates(name: str, runs: int, seed: int = 60) -> Rates:
    """Error rate and coverage of a method over a number of simulated trials."""
    method = METHODS[name]
    error, coverage, computed = math.nan, [], 1.0
    for planted in (False, True)[: 1 + method.with_effect]:
        rng = np.random.default_rng([seed, planted, zlib.crc32(name.encode())])
        drawn = []
        for _ in range(runs):
            try:
                drawn.append(method.draw(rng, planted))
            except NotComputable:
                continue
        p, low, high, truth = np.array(drawn, float).T
        computed = min(computed, len(drawn) / runs)
        if not planted and np.isfinite(p).any():
            error = float(np.mean(p < 0.05))
        if not np.isnan(low).all():
            coverage.append(float(np.mean((low <= truth) & (truth <= high))))
    return Rates(error, tuple(coverage), computed)
