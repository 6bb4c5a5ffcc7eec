"""Ordinal outcomes: proportional odds, generalised odds ratio, win ratio, dichotomies.

Direction: a common or generalised odds ratio above 1 means that the first group has the *higher*
category (on the modified Rankin scale: the worse); a win ratio above 1 means that it does
*better*, and which end is better is stated (``better: low`` unless the plan says ``high``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.measurement.selection import NotComputable, Tables, as_list, not_computable
from corelab.pharmacodynamics.analysis_set import (
    Design,
    alpha_of,
    complete_cases,
    design,
    endpoint_by_visit,
    endpoints_of,
    join_notes,
    levels_of,
    outcome_values,
    participant_columns,
    with_covariates,
)
from corelab.provenance.two_computations import compare

#: Logarithms beyond this have no exponential that fits a number.
LARGEST_LOG = 700.0


@dataclass(frozen=True)
class ProportionalOdds:
    """Maximum-likelihood fit of logit P(Y <= j) = zeta_j - x b, as MASS::polr.

    Attributes
    ----------
    coefficients
        (p,) log odds ratios of a higher category.
    thresholds
        (c - 1,) zeta.
    covariance
        (p + c - 1, p + c - 1), coefficients first.
    log_likelihood
        At the maximum.
    categories
        Categories that occur, lowest first.
    """

    coefficients: np.ndarray
    thresholds: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    categories: np.ndarray

    @property
    def standard_errors(self) -> np.ndarray:
        """Standard errors of the coefficients."""
        return np.sqrt(np.diag(self.covariance))[: self.coefficients.size]


def fit_proportional_odds(matrix: Any, outcome: Any, weights: Any = None) -> ProportionalOdds:
    """Proportional-odds logistic regression by Newton's method.

    Parameters
    ----------
    matrix
        (n, p) without intercept; p may be 0.
    outcome
        (n,) ordered numbers. Categories that nobody has play no part.
    weights
        (n,) frequencies.

    Raises
    ------
    NotComputable
        With one category only, or where a group is separated from another (no finite maximum).

    Examples
    --------
    >>> fit = fit_proportional_odds([[0], [0], [0], [1], [1], [1]], [0, 1, 2, 1, 2, 2])
    >>> round(float(fit.coefficients[0]), 3)
    1.724
    """
    x, y = np.asarray(matrix, float), np.asarray(outcome, float)
    x = x.reshape(y.size, -1)
    w = np.ones(y.size) if weights is None else np.asarray(weights, float)
    if not np.isfinite(y).all():
        raise ValueError("outcome holds a missing value")
    categories, code = np.unique(y[w > 0], return_inverse=True)
    x, w = x[w > 0], w[w > 0]
    c, p = categories.size, x.shape[1]
    if c < 2:
        raise NotComputable(f"every participant has category {categories[0]:g}")
    # Columns of one size, so that the steps do not depend on units; turned back at the end.
    deviation = x.std(axis=0)
    varies = deviation > 1e-12 * np.abs(x).max(axis=0, initial=0.0)
    centre, scale = np.where(varies, x.mean(axis=0), 0.0), np.where(varies, deviation, 1.0)
    x = (x - centre) / scale
    share = np.cumsum(np.bincount(code, w, minlength=c))[:-1] / w.sum()
    parameters = np.concatenate([np.zeros(p), np.log(share / (1 - share))])
    value, gradient, hessian = _po_derivatives(parameters, x, code, w, c)
    for _ in range(200):
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        length = 1.0
        while length > 1e-10:
            trial = parameters - length * step
            if np.all(np.diff(trial[p:]) > 0):
                new = _po_derivatives(trial, x, code, w, c)
                if math.isfinite(new[0]) and new[0] <= value + 1e-12:
                    break
            length /= 2
        else:
            break
        parameters = trial
        settled = value - new[0] < 1e-13 * (abs(value) + 1) and np.abs(new[1]).max() < 1e-7
        value, gradient, hessian = new
        if settled:
            break
    covariance = np.linalg.pinv(hessian)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    spread = np.ptp(x, axis=0) if p else np.zeros(0)
    if np.any(np.abs(parameters[:p]) * spread > 12) or np.any(errors[:p] * spread > 50):
        raise NotComputable(
            "a term separates the categories: its odds ratio has no finite estimate"
        )
    back = np.eye(parameters.size)
    back[:p, :p] = np.diag(1 / scale)
    back[p:, :p] = centre / scale
    parameters, covariance = back @ parameters, back @ covariance @ back.T
    return ProportionalOdds(parameters[:p], parameters[p:], covariance, -value, categories)


def _po_derivatives(
    parameters: np.ndarray, x: np.ndarray, code: np.ndarray, w: np.ndarray, c: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Negative log likelihood with gradient and Hessian."""
    p = x.shape[1]
    beta, zeta = parameters[:p], parameters[p:]
    padded = np.concatenate([[-np.inf], zeta, [np.inf]])
    eta = x @ beta
    upper, lower = padded[code + 1] - eta, padded[code] - eta
    fu, fl = logistic(upper), logistic(lower)
    prob = np.maximum(fu - fl, 1e-300)
    du, dl = fu * (1 - fu), fl * (1 - fl)
    ddu, ddl = du * (1 - 2 * fu), dl * (1 - 2 * fl)
    n, q = x.shape[0], c - 1
    # Derivatives of the two linear predictors: zeta_j enters its own, x enters both.
    ju, jl = np.zeros((n, p + q)), np.zeros((n, p + q))
    ju[:, :p] = jl[:, :p] = -x
    rows = np.arange(n)
    top, bottom = code < q, code > 0
    ju[rows[top], p + code[top]] = 1
    jl[rows[bottom], p + code[bottom] - 1] = 1
    ju[~top], jl[~bottom] = 0, 0
    slope = (du[:, None] * ju - dl[:, None] * jl) / prob[:, None]
    value = -float(np.sum(w * np.log(prob)))
    gradient = -(w @ slope)
    hessian = (slope * w[:, None]).T @ slope
    hessian -= (ju * (w * ddu / prob)[:, None]).T @ ju - (jl * (w * ddl / prob)[:, None]).T @ jl
    return value, gradient, hessian


def category_scores(fit: ProportionalOdds, matrix: Any, outcome: Any) -> np.ndarray:
    """(n, p + c - 1) score of each value at the fit, coefficients first, then thresholds.

    Examples
    --------
    >>> x, y = [[0], [0], [0], [1], [1], [1]], [0, 1, 2, 1, 2, 2]
    >>> bool(np.abs(category_scores(fit_proportional_odds(x, y), x, y).sum(axis=0)).max() < 1e-6)
    True
    """
    y = np.asarray(outcome, float)
    x = np.asarray(matrix, float).reshape(y.size, -1)
    code = np.searchsorted(fit.categories, y)
    c, p = fit.categories.size, x.shape[1]
    padded = np.concatenate([[-np.inf], fit.thresholds, [np.inf]])
    eta = x @ fit.coefficients
    fu, fl = logistic(padded[code + 1] - eta), logistic(padded[code] - eta)
    prob = np.maximum(fu - fl, 1e-300)
    du, dl = fu * (1 - fu) / prob, fl * (1 - fl) / prob
    scores = np.zeros((y.size, p + c - 1))
    scores[:, :p] = -(du - dl)[:, None] * x
    rows = np.arange(y.size)
    top, bottom = code < c - 1, code > 0
    scores[rows[top], p + code[top]] += du[top]
    scores[rows[bottom], p + code[bottom] - 1] -= dl[bottom]
    return scores


def logistic(values: np.ndarray) -> np.ndarray:
    """Inverse logit, without overflow.

    Examples
    --------
    >>> logistic(np.array([0.0, 1e9])).tolist()
    [0.5, 1.0]
    """
    return 1.0 / (1.0 + np.exp(np.clip(-values, -700, 700)))


def odds_estimate(fit: ProportionalOdds, position: int, alpha: float = 0.05) -> RatioEstimate:
    """Common odds ratio of one term, Wald interval and test.

    Examples
    --------
    >>> fit = fit_proportional_odds([[0], [0], [0], [1], [1], [1]], [0, 1, 2, 1, 2, 2])
    >>> round(odds_estimate(fit, 0).estimate, 2)
    5.61
    """
    log, error = float(fit.coefficients[position]), float(fit.standard_errors[position])
    return _ratio(math.exp(log), error, alpha)


def brant_test(matrix: Any, outcome: Any) -> tuple[float, int, float]:
    """Brant's (1990) test of proportional odds: are the odds ratios of all dichotomies one?

    Returns
    -------
    chi_squared, df, p_value

    Raises
    ------
    NotComputable
        If a dichotomy separates, or there are fewer than three categories.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=300)
    >>> y = np.digitize(x + rng.logistic(size=300), [-1, 0, 1])
    >>> brant_test(x[:, None], y)[1]
    2
    """
    x, y = np.asarray(matrix, float), np.asarray(outcome, float)
    x = x.reshape(y.size, -1)
    cuts = np.unique(y)[:-1]
    p, k = x.shape[1], cuts.size
    if k < 2:
        raise NotComputable("the test of proportional odds needs three categories")
    wide = np.column_stack([np.ones(y.size), x])
    betas, probs, breads = [], [], []
    for cut in cuts:
        fit = fit_proportional_odds(x, (y > cut).astype(float))
        full = np.concatenate([[-fit.thresholds[0]], fit.coefficients])
        prob = logistic(wide @ full)
        betas.append(fit.coefficients)
        probs.append(prob)
        breads.append(np.linalg.inv((wide * (prob * (1 - prob))[:, None]).T @ wide))
    covariance = np.zeros((k * p, k * p))
    for i in range(k):
        for j in range(i, k):
            # Y > cut_j implies Y > cut_i for i < j: the joint probability is the smaller one.
            meat = (wide * (probs[j] * (1 - probs[i]))[:, None]).T @ wide
            block = (breads[i] @ meat @ breads[j])[1:, 1:]
            covariance[i * p : (i + 1) * p, j * p : (j + 1) * p] = block
            covariance[j * p : (j + 1) * p, i * p : (i + 1) * p] = block.T
    beta = np.concatenate(betas)
    differences = np.zeros(((k - 1) * p, k * p))
    for i in range(k - 1):
        rows = slice(i * p, (i + 1) * p)
        differences[rows, :p] = np.eye(p)
        differences[rows, (i + 1) * p : (i + 2) * p] = -np.eye(p)
    gap = differences @ beta
    chi = float(gap @ np.linalg.solve(differences @ covariance @ differences.T, gap))
    df = (k - 1) * p
    return chi, df, float(stats.chi2.sf(chi, df))


def proportional_odds_score_test(
    matrix: Any, outcome: Any, fit: ProportionalOdds
) -> tuple[float, int, float]:
    """Score test of proportional odds (Peterson and Harrell 1990), as SAS PROC LOGISTIC prints.

    It needs the fitted model only, so it exists where Brant's test does not because a dichotomy
    has too few participants; with sparse categories it rejects too often.

    Returns
    -------
    chi_squared, df, p_value

    Raises
    ------
    NotComputable
        With fewer than three categories, or a singular information.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=(300, 1))
    >>> y = np.digitize(x[:, 0] + rng.logistic(size=300), [-1, 0, 1])
    >>> proportional_odds_score_test(x, y, fit_proportional_odds(x, y))[1]
    2
    """
    x, y = np.asarray(matrix, float), np.asarray(outcome, float)
    x = x.reshape(y.size, -1)
    n, p = x.shape
    code = np.searchsorted(fit.categories, y)
    q = fit.thresholds.size
    if q < 2:
        raise NotComputable("the test of proportional odds needs three categories")
    wide = np.column_stack([np.ones(n), -x])
    below = logistic(fit.thresholds - (x @ fit.coefficients)[:, None])
    padded = np.column_stack([np.zeros(n), below, np.ones(n)])
    share = np.maximum(np.diff(padded, axis=1), 1e-300)
    slope = below * (1 - below)
    size = p + 1
    score, information = np.zeros(q * size), np.zeros((q * size, q * size))
    for category in range(q + 1):
        # Derivative of the category's probability in every threshold's own coefficients.
        block = np.zeros((n, q, size))
        if category < q:
            block[:, category] += slope[:, category, None] * wide
        if category > 0:
            block[:, category - 1] -= slope[:, category - 1, None] * wide
        flat = block.reshape(n, -1)
        information += (flat / share[:, category, None]).T @ flat
        score += (flat / share[:, category, None])[code == category].sum(axis=0)
    if np.linalg.cond(information) > 1e12:
        raise NotComputable("too few participants in a category to test proportional odds")
    chi = float(score @ np.linalg.solve(information, score))
    df = p * (q - 1)
    return chi, df, float(stats.chi2.sf(chi, df))


@dataclass(frozen=True)
class RatioEstimate:
    """A ratio with limits on the log scale and the test that it is 1."""

    estimate: float
    ci_low: float
    ci_high: float
    p_value: float
    log_standard_error: float


def _ratio(value: float, log_error: float, alpha: float) -> RatioEstimate:
    if not log_error > 0:
        raise NotComputable("the values do not vary: the ratio has no standard error")
    z = stats.norm.ppf(1 - alpha / 2)
    log = math.log(value)
    return RatioEstimate(
        value,
        math.exp(log - z * log_error),
        math.exp(log + z * log_error),
        float(2 * stats.norm.sf(abs(log) / log_error)),
        log_error,
    )


def generalised_odds_ratio(
    a: Any, b: Any, alpha: float = 0.05, *, ties: str = "split"
) -> RatioEstimate:
    """Agresti's generalised odds ratio: odds that a value of a exceeds one of b.

    Parameters
    ----------
    a, b
        Values of the two groups.
    alpha
        1 - confidence level.
    ties
        ``split`` (half to each side, the win odds) or ``drop`` (Agresti 1980).

    Notes
    -----
    Standard error by the delta method for the ratio of concordance to discordance probabilities
    (Goodman and Kruskal), the estimator of R genodds.

    Examples
    --------
    >>> round(generalised_odds_ratio([2, 3, 4], [1, 2, 3]).estimate, 3)
    3.5
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.size == 0 or second.size == 0:
        raise NotComputable("one group has no value")
    levels = np.unique(np.concatenate([first, second]))
    table = np.array([[np.sum(second == level), np.sum(first == level)] for level in levels], float)
    n = table.sum()
    share = table / n
    above = share[::-1].cumsum(axis=0)[::-1] - share
    below = share.cumsum(axis=0) - share
    # For a member of b: concordant with values of a above it; for a member of a: b below it.
    concordant = np.column_stack([above[:, 1], below[:, 0]])
    discordant = np.column_stack([below[:, 1], above[:, 0]])
    if ties == "split":
        concordant = concordant + 0.5 * share[:, ::-1]
        discordant = discordant + 0.5 * share[:, ::-1]
    elif ties != "drop":
        raise ValueError(f"ties must be split or drop, not '{ties}'")
    pc, pd_ = float(np.sum(share * concordant)), float(np.sum(share * discordant))
    if pc <= 0 or pd_ <= 0:
        raise NotComputable("the groups do not overlap: the odds ratio has no finite estimate")
    odds = pc / pd_
    error = 2 / pc * math.sqrt(float(np.sum(share * (odds * discordant - concordant) ** 2)) / n)
    return _ratio(odds, error, alpha)


def pooled_odds_ratio(
    strata: Sequence[RatioEstimate], alpha: float = 0.05
) -> tuple[RatioEstimate, float, int, float]:
    """Inverse-variance pooled odds ratio over strata with the test of heterogeneity.

    Returns
    -------
    pooled, q, df, p_heterogeneity

    Examples
    --------
    >>> one = generalised_odds_ratio([2, 3, 4], [1, 2, 3])
    >>> round(pooled_odds_ratio([one, one])[0].estimate, 3)
    3.5
    """
    logs = np.array([math.log(stratum.estimate) for stratum in strata])
    weights = np.array([stratum.log_standard_error**-2.0 for stratum in strata])
    mean = float(weights @ logs / weights.sum())
    q = float(weights @ (logs - mean) ** 2)
    df = len(strata) - 1
    pooled = _ratio(math.exp(mean), 1 / math.sqrt(weights.sum()), alpha)
    return pooled, q, df, float(stats.chi2.sf(q, df)) if df else math.nan


@dataclass(frozen=True)
class Wins:
    """Pairwise comparison of two groups.

    Attributes
    ----------
    win_ratio, win_odds
        Wins over losses; with ties counted half to each.
    net_benefit, net_benefit_ci
        P(win) - P(loss).
    wins, losses, ties
        Numbers of pairs.
    """

    win_ratio: RatioEstimate | None
    win_odds: RatioEstimate | None
    net_benefit: float
    net_benefit_ci: tuple[float, float]
    net_benefit_p: float
    wins: int
    losses: int
    ties: int


def win_statistics(score: Any, alpha: float = 0.05) -> Wins:
    """Win ratio, win odds and net benefit from a matrix of pairwise results.

    Parameters
    ----------
    score
        (n_a, n_b) with 1 where the member of a wins, -1 where it loses, 0 for a tie. A hierarchy
        of outcomes is put into it by :func:`hierarchical_scores`.
    alpha
        1 - confidence level.

    Notes
    -----
    Variances by U-statistics (Bebchuk and Lachin; Dong et al., Pharm Stat 2016;15:430), log scale
    for the ratios.

    Examples
    --------
    >>> result = win_statistics([[1, 1, 0], [1, -1, 1], [0, 1, 1]])
    >>> result.wins, result.losses, result.ties, result.win_ratio.estimate
    (6, 1, 2, 6.0)
    """
    s = np.asarray(score, float)
    n, m = s.shape
    if n < 2 or m < 2:
        raise NotComputable("each group needs two participants")
    win, loss = (s > 0).astype(float), (s < 0).astype(float)
    pw, pl = win.mean(), loss.mean()

    def cov(f: np.ndarray, g: np.ndarray) -> float:
        rows = np.cov(f.mean(axis=1), g.mean(axis=1), ddof=1)[0, 1] / n
        columns = np.cov(f.mean(axis=0), g.mean(axis=0), ddof=1)[0, 1] / m
        return float(rows + columns)

    vw, vl, vwl = cov(win, win), cov(loss, loss), cov(win, loss)
    z = stats.norm.ppf(1 - alpha / 2)
    net = float(pw - pl)
    net_error = math.sqrt(max(vw + vl - 2 * vwl, 0.0))
    ratio = odds = None
    if pw > 0 and pl > 0:
        log_variance = vw / pw**2 + vl / pl**2 - 2 * vwl / (pw * pl)
        if log_variance > 0:
            ratio = _ratio(float(pw / pl), math.sqrt(log_variance), alpha)
    share = (1 + net) / 2
    if 0 < share < 1 and net_error > 0:
        odds = _ratio(share / (1 - share), net_error / 2 / (share * (1 - share)), alpha)
    return Wins(
        ratio,
        odds,
        net,
        (net - z * net_error, net + z * net_error),
        float(2 * stats.norm.sf(abs(net) / net_error)) if net_error > 0 else math.nan,
        int(win.sum()),
        int(loss.sum()),
        int(s.size - win.sum() - loss.sum()),
    )


def hierarchical_scores(a: Any, b: Any, better: Sequence[str]) -> np.ndarray:
    """Pairwise results of a hierarchy of outcomes: the next one decides where one is tied.

    Parameters
    ----------
    a, b
        (n, k) and (m, k) outcomes, the most important first; a missing value ties.
    better
        k words ``low`` or ``high``.

    Examples
    --------
    >>> hierarchical_scores([[0, 5.0]], [[0, 7.0], [1, 1.0]], ["low", "low"]).tolist()
    [[1.0, 1.0]]
    """
    first, second = np.atleast_2d(np.asarray(a, float)), np.atleast_2d(np.asarray(b, float))
    result = np.zeros((first.shape[0], second.shape[0]))
    for k, end in enumerate(better):
        if end not in {"low", "high"}:
            raise ValueError(f"better must be low or high, not '{end}'")
        sign = np.sign(first[:, k][:, None] - second[:, k][None, :])
        sign = np.nan_to_num(-sign if end == "low" else sign)
        result = np.where(result == 0, sign, result)
    return result


# ------------------------------------------------------------------------------- dichotomies


def wilson_interval(events: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson score limits of a proportion.

    Examples
    --------
    >>> [round(v, 4) for v in wilson_interval(264, 414)]
    [0.5903, 0.6825]
    """
    z2 = stats.norm.ppf(1 - alpha / 2) ** 2
    p = events / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def exact_interval(events: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Clopper-Pearson limits of a proportion.

    Examples
    --------
    >>> [round(v, 4) for v in exact_interval(0, 10)]
    [0.0, 0.3085]
    """
    low = 0.0 if events == 0 else float(stats.beta.ppf(alpha / 2, events, n - events + 1))
    high = 1.0 if events == n else float(stats.beta.ppf(1 - alpha / 2, events + 1, n - events))
    return low, high


def risk_difference(
    events_a: int, n_a: int, events_b: int, n_b: int, alpha: float = 0.05
) -> tuple[float, float, float]:
    """Difference of proportions a - b with Newcombe's (1998) hybrid score interval.

    Examples
    --------
    Newcombe (Stat Med 1998;17:873), example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.

    >>> [round(v, 4) for v in risk_difference(56, 70, 48, 80)]
    [0.2, 0.0524, 0.3339]
    """
    pa, pb = events_a / n_a, events_b / n_b
    (la, ua), (lb, ub) = (
        wilson_interval(events_a, n_a, alpha),
        wilson_interval(events_b, n_b, alpha),
    )
    d = pa - pb
    return d, d - math.hypot(pa - la, ub - pb), d + math.hypot(ua - pa, pb - lb)


def fisher_p(events_a: int, n_a: int, events_b: int, n_b: int) -> float:
    """Two-sided p of Fisher's exact test of two proportions.

    Examples
    --------
    >>> round(fisher_p(56, 70, 48, 80), 4)
    0.0125
    """
    table = np.array([[events_a, n_a - events_a], [events_b, n_b - events_b]])
    return float(stats.fisher_exact(table)[1])


def two_shares_p(events_a: int, n_a: int, events_b: int, n_b: int) -> tuple[float, str]:
    """Two-sided p that two proportions are equal, and the name of the test.

    The chi-squared test with factor (N - 1) / N where every expected count is 1 or more, else
    Fisher's exact test (Campbell, Stat Med 2007;26:3661): at 60 participants Fisher's test has
    half its nominal level.

    Examples
    --------
    >>> p, name = two_shares_p(56, 70, 48, 80)
    >>> round(p, 5), name
    (0.00826, "'N - 1' chi-squared")
    >>> two_shares_p(3, 3, 0, 3)[1]
    "'N - 1' chi-squared"
    >>> two_shares_p(1, 40, 0, 40)[1]
    'Fisher exact'
    """
    table = np.array([[events_a, n_a - events_a], [events_b, n_b - events_b]], float)
    total = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    if expected.min() < 1:
        return fisher_p(events_a, n_a, events_b, n_b), "Fisher exact"
    chi2 = float(np.sum((table - expected) ** 2 / expected)) * (total - 1) / total
    return float(stats.chi2.sf(chi2, 1)), "'N - 1' chi-squared"


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: Mapping[str, Any], tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``ordinal``.

    Keys: ``outcome`` (``outcome_visit``); ``by`` (default ``arm`` unless an imaging endpoint is
    to be related to the outcome); ``reference``; ``covariates``; ``better`` (``low`` or ``high``
    end of the scale, default ``low``); ``cut`` (highest category of a good outcome: adds the
    risk difference); ``utilities`` (grade -> utility: adds the difference of mean utilities);
    ``hierarchy`` (outcomes, the most important first: adds their win ratio);
    ``odds_by_cut`` (partial proportional odds: an odds ratio of the arms at every cut);
    ``nonresponder_imputation`` (who has no outcome takes the worst grade). With ``endpoint`` and
    no ``by`` the common odds ratio is per unit of the endpoint.
    """
    outcomes = [str(name) for name in as_list(analysis.get("outcome"))]
    if not outcomes:
        raise ValueError(f"analysis {analysis['id']}: an ordinal analysis needs outcome")
    if analysis.get("better", "low") not in {"low", "high"}:
        raise ValueError(f"analysis {analysis['id']}: better must be low or high")
    endpoints = [name for name in endpoints_of(analysis) if name not in outcomes]
    for outcome in outcomes:
        if analysis.get("by") or not endpoints:
            yield from _guarded(_arm_rows, analysis, tables, outcome, None)
        else:
            for endpoint in endpoints:
                yield from _guarded(_endpoint_rows, analysis, tables, outcome, endpoint)


def _guarded(
    kernel: Any,
    analysis: Mapping[str, Any],
    tables: Tables,
    outcome: str,
    endpoint: str | None,
) -> Iterator[dict[str, Any]]:
    head = {"endpoint": endpoint or outcome}
    try:
        yield from kernel(analysis, tables, outcome, endpoint)
    except NotComputable as reason:
        yield not_computable("common_odds_ratio", str(reason), **head)


def _odds_row(
    fit: ProportionalOdds, plan: Design, term: str, alpha: float, second: np.ndarray | None
) -> dict[str, Any]:
    position = plan.index(term)
    log, error = float(fit.coefficients[position]), float(fit.standard_errors[position])
    if abs(log) + 10 * error > LARGEST_LOG:
        raise NotComputable(
            f"the log odds ratio per unit is {log:.3g}: give {term} in another unit"
        )
    ratio = odds_estimate(fit, position, alpha)
    check: dict[str, Any] = {}
    if second is not None:
        compare(
            log,
            float(second[position]),
            "statsmodels OrderedModel",
            tolerance=1e-3,
            scale=max(error, abs(log)),
        )
        check = compare(
            ratio.estimate,
            math.exp(float(second[position])),
            "statsmodels OrderedModel",
            tolerance=1e-3,
        )
    return {
        "statistic": "common_odds_ratio",
        "estimate": ratio.estimate,
        "ci_low": ratio.ci_low,
        "ci_high": ratio.ci_high,
        "p_value": ratio.p_value,
        **check,
    }


def _ordered_model(plan: Design, y: np.ndarray) -> np.ndarray | None:
    """Coefficients by statsmodels; None where it does not converge."""
    import warnings

    from statsmodels.miscmodels.ordinal_model import OrderedModel

    codes = np.unique(y, return_inverse=True)[1]
    # Its optimiser needs comparable columns: standardise and turn back.
    centre, scale = plan.matrix.mean(axis=0), plan.matrix.std(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = OrderedModel(codes, (plan.matrix - centre) / scale, distr="logit").fit(
            method="bfgs", disp=False, maxiter=2000, gtol=1e-8
        )
    gradient = np.abs(fit.model.score(fit.params)).max()
    if not np.isfinite(gradient) or gradient > 1e-3:
        return None
    return np.asarray(fit.params)[: plan.matrix.shape[1]] / scale


def _assumption(plan: Design, y: np.ndarray, fit: ProportionalOdds) -> str:
    said = []
    for name, test in (
        ("Brant", lambda: brant_test(plan.matrix, y)),
        ("score", lambda: proportional_odds_score_test(plan.matrix, y, fit)),
    ):
        try:
            chi, df, p = test()
            said.append(f"{name} test chi2 {chi:.3g}, df {df}, p {p:.3g}")
        except (NotComputable, np.linalg.LinAlgError):
            said.append(f"{name} test not computable (too few participants in a category)")
    return "proportional odds: " + ", ".join(said)


def _arm_rows(
    analysis: Mapping[str, Any], tables: Tables, outcome: str, endpoint: str | None
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    by = str(analysis.get("by", "arm"))
    names = [str(name) for name in as_list(analysis.get("covariates"))]
    values, visit = outcome_values(analysis, tables, outcome)
    labelled = {**analysis, "categorical": [*as_list(analysis.get("categorical")), by]}
    frame = participant_columns(labelled, tables, [by])
    frame["value"] = values.reindex(frame.index)
    worst = ""
    if analysis.get("nonresponder_imputation"):
        frame, worst = _worst_grade(frame, by, values, outcome, str(analysis.get("better", "low")))
    frame = with_covariates(frame, labelled, tables, endpoint=endpoint, names=names)
    frame, note = complete_cases(frame, ["value", by, *names], analysis, tables)
    reference, others, said = levels_of(frame[by], by, analysis.get("reference"))
    said = join_notes(worst, said)
    full = design(frame, by=by, reference=reference, covariates=names)
    plan = Design(full.matrix[:, 1:], full.terms[1:])
    y = frame["value"].to_numpy(float)
    head = {"endpoint": outcome, "visit": visit}
    adjusted = f"; covariates {', '.join(names)}" if names else ""
    try:
        fit = fit_proportional_odds(plan.matrix, y)
        second = _ordered_model(plan, y)
        assumption = _assumption(plan, y, fit)
        for level in others:
            yield {
                **head,
                "group": f"{by}={level}|{by}={reference}",
                "n": len(frame),
                **_odds_row(fit, plan, f"{by}={level}", alpha, second),
                "method": f"proportional odds, odds of a higher {outcome}; Wald interval{adjusted}",
                "note": join_notes(said, note, assumption),
            }
        if analysis.get("odds_by_cut"):
            from corelab.pharmacodynamics.partial_odds import odds_by_cut_rows

            groups = {f"{by}={level}": f"{by}={level}|{by}={reference}" for level in others}
            for row in odds_by_cut_rows(plan, y, fit, groups, outcome, alpha):
                told = str(row.get("note", ""))
                yield {**head, **row, "note": told or join_notes(said, note)}
    except NotComputable as reason:
        yield not_computable("common_odds_ratio", str(reason), **head)
    labels = frame[by].map(str)
    b = frame.loc[labels == reference, "value"].to_numpy(float)
    for level in others:
        a = frame.loc[labels == level, "value"].to_numpy(float)
        group = {**head, "group": f"{by}={level}|{by}={reference}", "n": a.size + b.size}
        for row in _pair_rows(analysis, a, b, outcome, alpha):
            yield {**group, **row, "note": join_notes(said, note, str(row.get("note", "")))}
    if analysis.get("hierarchy"):
        for row in _hierarchy_rows(analysis, tables, labelled, by, alpha):
            yield {"endpoint": outcome, **row, "note": join_notes(said, str(row.get("note", "")))}


def _worst_grade(
    frame: pd.DataFrame, by: str, values: pd.Series, outcome: str, better: str
) -> tuple[pd.DataFrame, str]:
    """Participants of an arm without the outcome get the worst grade that anybody has."""
    gone = frame["value"].isna() & frame[by].notna()
    worst = float(values.max() if better == "low" else values.min())
    said = f"{int(gone.sum())} of {len(frame)} participants without {outcome} take grade {worst:g}"
    return frame.assign(value=frame["value"].mask(gone, worst)), said if gone.any() else ""


def _pair_rows(
    analysis: Mapping[str, Any], a: np.ndarray, b: np.ndarray, outcome: str, alpha: float
) -> Iterator[dict[str, Any]]:
    better = str(analysis.get("better", "low"))
    try:
        odds = generalised_odds_ratio(a, b, alpha)
        # P(a > b) + P(ties) / 2 is Mann-Whitney's U / (n m).
        share = float(stats.mannwhitneyu(a, b).statistic) / (a.size * b.size)
        yield {
            "statistic": "generalised_odds_ratio",
            "estimate": odds.estimate,
            "ci_low": odds.ci_low,
            "ci_high": odds.ci_high,
            "p_value": odds.p_value,
            "method": f"generalised odds ratio of a higher {outcome}, ties split; delta method",
            **compare(odds.estimate, share / (1 - share), "scipy.stats.mannwhitneyu"),
        }
    except NotComputable as reason:
        yield not_computable("generalised_odds_ratio", str(reason))
    yield from _win_rows(a, b, better, alpha)
    if analysis.get("utilities"):
        yield _utility_row(analysis["utilities"], a, b, outcome, alpha)
    cut = analysis.get("cut")
    if cut is not None:
        good_a, good_b = ((v <= cut if better == "low" else v >= cut) for v in (a, b))
        counts = (int(good_a.sum()), a.size, int(good_b.sum()), b.size)
        d, low, high = risk_difference(*counts, alpha)
        p_value, test = two_shares_p(*counts)
        sign = "<=" if better == "low" else ">="
        yield {
            "statistic": "risk_difference",
            "estimate": d,
            "ci_low": low,
            "ci_high": high,
            "p_value": p_value,
            "method": f"share with {outcome} {sign} {cut:g}; Newcombe hybrid score interval; "
            f"p: {test}",
            "note": f"{counts[0]}/{a.size} against {counts[2]}/{b.size}; "
            f"Fisher exact p {fisher_p(*counts):.3g}",
        }


def _utility_row(
    utilities: Mapping[Any, Any], a: np.ndarray, b: np.ndarray, outcome: str, alpha: float
) -> dict[str, Any]:
    """Difference of mean utilities of the grades (utility-weighted mRS), Welch."""
    from corelab.pharmacodynamics.comparison import welch_t

    worth = {float(grade): float(value) for grade, value in utilities.items()}
    lacking = sorted(set(np.concatenate([a, b])) - set(worth))
    if lacking:
        return not_computable("mean_utility_difference", f"no utility of grade {lacking[0]:g}")
    first, second = (np.array([worth[float(v)] for v in part]) for part in (a, b))
    try:
        result = welch_t(first, second, alpha)
    except NotComputable as reason:
        return not_computable("mean_utility_difference", str(reason))
    theirs = stats.ttest_ind(first, second, equal_var=False)
    compare(result.p_value, float(theirs.pvalue), "scipy.stats.ttest_ind")
    return {
        "statistic": "mean_utility_difference",
        **result.columns(),
        "method": f"difference of mean utilities of {outcome}, Welch t, df {result.df:.6g}",
        "note": f"mean utility {first.mean():.3f} against {second.mean():.3f}",
    }


def _hierarchy_rows(
    analysis: Mapping[str, Any],
    tables: Tables,
    labelled: Mapping[str, Any],
    by: str,
    alpha: float,
) -> Iterator[dict[str, Any]]:
    """Win ratio of a hierarchy of outcomes, the most important first."""
    levels = [
        (str(item["outcome"]), str(item.get("better", "low")))
        if isinstance(item, Mapping)
        else (str(item), "low")
        for item in as_list(analysis["hierarchy"])
    ]
    names = [name for name, _ in levels]
    frame = participant_columns(labelled, tables, [by]).dropna()
    for name in names:
        frame[name] = outcome_values(analysis, tables, name)[0].reindex(frame.index)
    frame = frame[frame[names].notna().any(axis=1)]
    reference, others, _ = levels_of(frame[by], by, analysis.get("reference"))
    labels = frame[by].map(str)
    for level in others:
        parts = [frame.loc[labels == arm, names].to_numpy(float) for arm in (level, reference)]
        group = f"{by}={level}|{by}={reference}|hierarchy"
        head = {"group": group, "n": sum(len(part) for part in parts)}
        method = (
            "hierarchy "
            + ", then ".join(f"{name} ({better} is better)" for name, better in levels)
            + "; all pairs, missing ties; U-statistic variance"
        )
        try:
            score = hierarchical_scores(parts[0], parts[1], [better for _, better in levels])
            wins = win_statistics(score, alpha)
        except NotComputable as reason:
            yield not_computable("win_ratio", str(reason), **head)
            continue
        count = f"{wins.wins} wins, {wins.losses} losses, {wins.ties} ties"
        for statistic, ratio in (("win_ratio", wins.win_ratio), ("win_odds", wins.win_odds)):
            if ratio is None:
                yield not_computable(statistic, f"no wins or no losses ({count})", **head)
                continue
            yield {
                **head,
                "statistic": statistic,
                "estimate": ratio.estimate,
                "ci_low": ratio.ci_low,
                "ci_high": ratio.ci_high,
                "p_value": ratio.p_value,
                "method": f"{statistic.replace('_', ' ')}, {method}, log scale",
                "note": count,
            }


def _win_rows(a: np.ndarray, b: np.ndarray, better: str, alpha: float) -> Iterator[dict[str, Any]]:
    method = f"all pairs, {better} is better; U-statistic variance"
    try:
        wins = win_statistics(hierarchical_scores(a[:, None], b[:, None], [better]), alpha)
    except NotComputable as reason:
        yield not_computable("win_ratio", str(reason))
        return
    count = f"{wins.wins} wins, {wins.losses} losses, {wins.ties} ties"
    u = float(stats.mannwhitneyu(a, b).statistic)
    u_better = u if better == "high" else a.size * b.size - u
    if wins.win_ratio is None:
        yield not_computable("win_ratio", f"no wins or no losses ({count})")
    else:
        theirs = (u_better - wins.ties / 2) / (a.size * b.size - u_better - wins.ties / 2)
        yield {
            "statistic": "win_ratio",
            "estimate": wins.win_ratio.estimate,
            "ci_low": wins.win_ratio.ci_low,
            "ci_high": wins.win_ratio.ci_high,
            "p_value": wins.win_ratio.p_value,
            "method": f"win ratio, {method}, log scale",
            **compare(
                wins.win_ratio.estimate, theirs, "scipy.stats.mannwhitneyu less half the ties"
            ),
            "note": count,
        }
    yield {
        "statistic": "net_benefit",
        "estimate": wins.net_benefit,
        "ci_low": wins.net_benefit_ci[0],
        "ci_high": wins.net_benefit_ci[1],
        "p_value": wins.net_benefit_p,
        "method": f"P(win) - P(loss), {method}",
        **compare(
            wins.net_benefit, 2 * u_better / (a.size * b.size) - 1, "scipy.stats.mannwhitneyu"
        ),
        "note": count,
    }


def _endpoint_rows(
    analysis: Mapping[str, Any], tables: Tables, outcome: str, endpoint: str | None
) -> Iterator[dict[str, Any]]:
    assert endpoint is not None
    alpha = alpha_of(analysis)
    names = [str(name) for name in as_list(analysis.get("covariates"))]
    for visit, values in endpoint_by_visit(analysis, tables, endpoint):
        said = values.attrs["said"]
        head = {"endpoint": endpoint, "visit": visit, "group": f"{endpoint}|{outcome}"}
        try:
            scores, at = outcome_values(analysis, tables, outcome, visit)
            frame = values.rename(columns={"value": "imaging"})
            frame["outcome"] = scores.reindex(frame.index)
            frame = with_covariates(frame, analysis, tables, endpoint=endpoint, names=names)
            frame, note = complete_cases(frame, ["imaging", "outcome", *names], analysis, tables)
            full = design(frame, covariates=["imaging", *names])
            plan = Design(full.matrix[:, 1:], full.terms[1:])
            y = frame["outcome"].to_numpy(float)
            fit = fit_proportional_odds(plan.matrix, y)
            yield {
                **head,
                "n": len(frame),
                **_odds_row(fit, plan, "imaging", alpha, _ordered_model(plan, y)),
                "method": f"proportional odds of a higher {outcome} per unit of {endpoint}; "
                "Wald interval" + (f"; covariates {', '.join(names)}" if names else ""),
                "note": join_notes(f"{outcome} at {at}", said, note, _assumption(plan, y, fit)),
            }
        except NotComputable as reason:
            yield not_computable("common_odds_ratio", str(reason), **head)
