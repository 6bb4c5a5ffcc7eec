"""Logistic model of repeated grades with a random intercept of the participant (GLMM).

Cumulative logits, of which a responder is the case of two grades: P(y <= k | u) =
F(t_k - x b - s u) with a standard normal u of each participant. Maximum likelihood; the integral
over u by adaptive Gauss-Hermite quadrature (Pinheiro and Bates, J Comput Graph Stat 1995;4:12;
Hedeker and Gibbons, Biometrics 1994;50:933), as R ``lme4::glmer`` and ``ordinal::clmm`` have it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import optimize, special

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.proportional_odds import fit_proportional_odds, logistic

#: Nodes of the quadrature.
POINTS = 25
#: A standard deviation of the intercept (log odds) that no data can tell from infinity.
LARGEST_SPREAD = 30.0


@dataclass(frozen=True)
class RandomIntercept:
    """(p,) log odds ratios of a higher grade within a participant and their covariance, from the
    observed information of all parameters; (k - 1,) rising thresholds, standard deviation of the
    intercept, log likelihood at the maximum, number of participants.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    thresholds: np.ndarray
    spread: float
    log_likelihood: float
    clusters: int


@dataclass(frozen=True)
class _Data:
    grade: np.ndarray
    matrix: np.ndarray
    code: np.ndarray
    clusters: int
    levels: int

    def parts(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Upper and lower cut of each row less its fixed part, coefficients, spread."""
        k = self.levels - 1
        cuts = np.concatenate([[-np.inf], theta[:k], [np.inf]])
        fixed = self.matrix @ theta[k:-1]
        return cuts[self.grade + 1] - fixed, cuts[self.grade] - fixed, theta[k:-1], theta[-1]

    def sums(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.code, values, self.clusters)


def _log_share(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """log(F(upper) - F(lower)) = log F(upper) + log F(-lower) + log(1 - exp(lower - upper))."""
    return special.log_expit(upper) + special.log_expit(-lower) + np.log1p(-np.exp(lower - upper))


def _modes(data: _Data, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(clusters,) most likely u of each participant and its curvature's standard deviation."""
    upper, lower, _, spread = data.parts(theta)
    u = np.zeros(data.clusters)
    for _ in range(50):
        shift = spread * u[data.code]
        above, below = logistic(upper - shift), logistic(lower - shift)
        slope = spread * data.sums(above + below - 1) - u
        curve = 1 + spread**2 * data.sums(above * (1 - above) + below * (1 - below))
        step = np.clip(slope / curve, -2, 2)
        u = u + step
        if np.abs(step).max() < 1e-10:
            break
    return u, 1 / np.sqrt(curve)


@cache
def _quadrature(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Hermite quadrature."""
    return np.polynomial.hermite.hermgauss(points)


def _likelihood(data: _Data, theta: np.ndarray, points: int = POINTS) -> tuple[float, np.ndarray]:
    """Log likelihood and its gradient (that of the integrand, averaged over u given the grades)."""
    k = data.levels - 1
    if np.any(np.diff(theta[:k]) <= 0):
        return -math.inf, np.zeros(theta.size)
    upper, lower, _, spread = data.parts(theta)
    mode, width = _modes(data, theta)
    nodes, weights = _quadrature(points)
    # (points, clusters), and (points, rows) of the tables below.
    u = mode + math.sqrt(2) * nodes[:, None] * width
    own = np.take(u, data.code, axis=1)
    above, below = upper - spread * own, lower - spread * own
    logs = np.array([data.sums(row) for row in _log_share(above, below)]) - u**2 / 2
    logs += (np.log(weights) + nodes**2)[:, None]
    whole = special.logsumexp(logs, axis=0)
    value = float(np.sum(np.log(width) + whole)) - data.clusters * 0.5 * math.log(math.pi)
    gradient = np.zeros(theta.size)
    gap = np.exp(lower - upper)
    crowd = gap / (1 - gap)
    share = np.take(np.exp(logs - whole), data.code, axis=1)
    above, below = logistic(above), logistic(below)
    rise = share * (above + below - 1)
    up, down = share * (1 - above + crowd), share * (below + crowd)
    for q in range(points):
        gradient[k:-1] += rise[q] @ data.matrix
        gradient[-1] += rise[q] @ own[q]
        risen = np.bincount(data.grade, up[q], data.levels)
        gradient[:k] += risen[:-1] - np.bincount(data.grade, down[q], data.levels)[1:]
    return value, gradient


def fit_random_intercept(
    cluster: Any, outcome: Any, matrix: Any, *, points: int = POINTS
) -> RandomIntercept:
    """Cumulative logistic model of ordered numbers (n,) with a random intercept of the ``cluster``.

    ``matrix`` is (n, p) without intercept; quadrature by one of ``points`` is Laplace's method.

    Raises
    ------
    NotComputable
        As :func:`fit_proportional_odds`; if no participant has two values, or the spread of the
        intercept or the likelihood has no finite maximum.

    Examples
    --------
    >>> x = np.tile([0.0, 1.0], 8)[:, None]
    >>> y = [0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1]
    >>> fit_random_intercept(np.repeat(range(8), 2), y, x).coefficients.round(2).tolist()
    [1.61]
    """
    y, x = np.asarray(outcome, float), np.asarray(matrix, float)
    start = fit_proportional_odds(x, y)
    _, code = np.unique(np.asarray(cluster).astype(str), return_inverse=True)
    clusters = int(code.max()) + 1
    if clusters == y.size:
        raise NotComputable("no participant has two values: a random intercept needs them")
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = (x - centre) / scale
    levels = np.unique(y)
    data = _Data(np.searchsorted(levels, y), z, code, clusters, levels.size)
    k = levels.size - 1
    first = start.thresholds - float(centre @ start.coefficients)
    theta = np.concatenate([first, start.coefficients * scale, [1.0]])

    def loss(at: np.ndarray) -> float:
        return -_likelihood(data, at, points)[0] / y.size

    # The search asks for both at each place; together they are computed once.
    def both(at: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _likelihood(data, at, points)
        if points <= 5:
            # With few nodes their places matter to the gradient.
            steps = 1e-5 * np.eye(at.size)
            return -value / y.size, np.array([(loss(at + s) - loss(at - s)) / 2e-5 for s in steps])
        return -value / y.size, -gradient / y.size

    def slope(at: np.ndarray) -> np.ndarray:
        return both(at)[1]

    found = optimize.minimize(both, theta, jac=True, method="BFGS", options={"gtol": 1e-6})
    theta = found.x
    for _ in range(5):
        steps = 1e-4 * np.eye(theta.size)
        hessian = np.array([(slope(theta + s) - slope(theta - s)) / 2e-4 for s in steps])
        hessian = (hessian + hessian.T) / 2
        if not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian).min() <= 1e-9:
            raise NotComputable(
                "the likelihood of the random-intercept model has no finite maximum"
            )
        step = np.linalg.solve(hessian, slope(theta))
        if abs(theta[-1]) > LARGEST_SPREAD or not np.isfinite(loss(theta - step)):
            raise NotComputable(
                "participants hardly change: the spread between them has no finite estimate"
            )
        theta = theta - step
        if np.abs(step).max() < 1e-7:
            break
    covariance = np.linalg.inv(hessian * y.size)[k:-1, k:-1] / np.outer(scale, scale)
    coefficients = theta[k:-1] / scale
    thresholds = theta[:k] + float(centre @ coefficients)
    value = -loss(theta) * y.size
    return RandomIntercept(
        coefficients, covariance, thresholds, abs(float(theta[-1])), value, clusters
    )
