"""Proportional odds of ordered grades: fit, scores, tests of the assumption."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.estimates import ratio_estimate
from corelab.terms.results import Estimate


@dataclass(frozen=True)
class ProportionalOdds:
    """Maximum-likelihood fit of logit P(Y <= j) = zeta_j - x b, as MASS::polr.

    (p,) log odds ratios of a higher category, (c - 1,) thresholds zeta, their covariance
    (coefficients first), log likelihood at the maximum, and the categories that occur, rising.
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

    def odds(self, position: int, alpha: float = 0.05) -> Estimate:
        """Common odds ratio of one term, Wald interval and test."""
        log, error = float(self.coefficients[position]), float(self.standard_errors[position])
        return ratio_estimate(math.exp(log), error, alpha)


def fit_proportional_odds(matrix: Any, outcome: Any, weights: Any = None) -> ProportionalOdds:
    """Proportional-odds logistic regression of ordered numbers (n,) by Newton's method.

    ``matrix`` is (n, p) without intercept, p may be 0; ``weights`` are frequencies. Categories that
    nobody has play no part.

    Raises
    ------
    NotComputable
        With one category only, or where a group is separated from another (no finite maximum).

    Examples
    --------
    >>> fit = fit_proportional_odds([[0], [0], [0], [1], [1], [1]], [0, 1, 2, 1, 2, 2])
    >>> round(float(fit.coefficients[0]), 3), round(fit.odds(0).estimate, 2)
    (1.724, 5.61)
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
    parameters, value, _, hessian = minimum(
        lambda theta: _po_derivatives(theta, x, code, w, c),
        parameters,
        (1e-13, 1e-7),
        lambda theta: bool(np.all(np.diff(theta[p:]) > 0)),
    )
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


def minimum(
    derivatives: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]],
    theta: np.ndarray,
    tolerance: tuple[float, float],
    allowed: Callable[[np.ndarray], bool] = lambda theta: True,
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Minimum by Newton's method with halved steps, with value, gradient and Hessian there.

    It ends where a step gains less than the first tolerance (relative) and the gradient is below
    the second, or where no step gains anything.
    """
    value, gradient, hessian = derivatives(theta)
    for _ in range(200):
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        length = 1.0
        while length > 1e-10:
            trial = theta - length * step
            if allowed(trial):
                new = derivatives(trial)
                if math.isfinite(new[0]) and new[0] <= value + 1e-12:
                    break
            length /= 2
        else:
            break
        theta = trial
        settled = value - new[0] < tolerance[0] * (abs(value) + 1)
        settled = settled and np.abs(new[1]).max() < tolerance[1]
        value, gradient, hessian = new
        if settled:
            break
    return theta, value, gradient, hessian


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
    """(n, p + c - 1) score of each value at the fit, coefficients first, then thresholds."""
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
    """Inverse logit, without overflow."""
    return 1.0 / (1.0 + np.exp(np.clip(-values, -700, 700)))


def brant_test(matrix: Any, outcome: Any) -> tuple[float, int, float]:
    """Brant's (1990) test of proportional odds: are the odds ratios of all dichotomies one?

    Returns chi squared, degrees of freedom and p.

    Raises
    ------
    NotComputable
        If a dichotomy separates, or there are fewer than three categories.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x = rng.normal(size=300)
    >>> brant_test(x[:, None], np.digitize(x + rng.logistic(size=300), [-1, 0, 1]))[1]
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

    It needs the fitted model only, so it exists where Brant's test does not because a dichotomy has
    too few participants; with sparse categories it rejects too often. Returns chi squared, degrees
    of freedom and p.

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
