"""Interval-censored times: progression that a visit finds lies between that visit and the last.

A time is known to lie in (left, right]; left = right is an exact time (a death), right = inf is
right censoring. Nonparametric: Turnbull (J R Stat Soc B 1976;38:290), maximum likelihood by
self-consistency. Test: log-rank scores of the pooled estimate with the permutation variance, as R
``interval::ictest`` (Fay and Shaw, J Stat Softw 2010;36:1). Regression: Weibull proportional
hazards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.estimates import exponentiated, normal_estimate
from corelab.pharmacodynamics.linear import standardised
from corelab.terms.results import Estimate


@dataclass(frozen=True)
class Turnbull:
    """Maximum-likelihood estimate: (m,) ends of the intervals that have mass, the last of which may
    be infinite, and their probabilities, which add up to 1. Within an interval it is undetermined.
    """

    left: np.ndarray
    right: np.ndarray
    mass: np.ndarray

    def survival(self, when: Any) -> np.ndarray:
        """Survival at given times, on the left side of the interval a time lies in."""
        t = np.asarray(when, float)
        gone = self.right[None, :] <= t.reshape(-1, 1)
        return 1.0 - (gone * self.mass).sum(axis=1)

    def quantile(self, share: float = 0.5) -> tuple[float, float, float]:
        """Time by which a share have the event, and the interval that it lies in.

        The time is interpolated within the interval; nan where it lies beyond the last visit.
        """
        reached = np.cumsum(self.mass)
        place = int(np.searchsorted(reached, share - 1e-9))
        if place >= self.mass.size or not math.isfinite(self.right[place]):
            return math.nan, math.nan, math.nan
        low, high = float(self.left[place]), float(self.right[place])
        before = reached[place] - self.mass[place]
        inside = (share - before) / self.mass[place]
        return low + float(inside) * (high - low), low, high


def _check_intervals(left: Any, right: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ends of intervals as floats, or an error for what is none."""
    a, b = np.asarray(left, float).ravel(), np.asarray(right, float).ravel()
    if not np.isfinite(a).all() or np.isnan(b).any() or (a < 0).any():
        raise ValueError("an interval has no start, no end or a negative start")
    wrong = np.flatnonzero(b < a)
    if wrong.size:
        raise ValueError(
            f"an interval from {a[wrong[0]]:g} to {b[wrong[0]]:g} ends before it starts"
        )
    return a, b


def turnbull(left: Any, right: Any) -> Turnbull:
    """Nonparametric maximum-likelihood estimate of (n,) intervals.

    Self-consistency until no probability moves by 1e-11.

    Raises
    ------
    NotComputable
        Without a participant.

    Examples
    --------
    >>> fit = turnbull([0, 0, 2, 4], [2, 3, 4, np.inf])
    >>> fit.mass.round(3).tolist(), fit.right.tolist()
    ([0.375, 0.375, 0.25], [2.0, 3.0, inf])
    """
    a, b = _check_intervals(left, right)
    if not a.size:
        raise NotComputable("no participant has an interval")
    low, high, first, last = _regions(a, b)
    mass = _self_consistent(low.size, first, last)
    keep = mass > 1e-8
    return Turnbull(low[keep], high[keep], mass[keep] / mass[keep].sum())


def _self_consistent(regions: int, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Probabilities of the regions; every interval holds those from ``first`` to ``last``.

    Self-consistency steps, each pair extrapolated (Varadhan and Roland, Scand J Stat
    2008;35:335) where that raises the likelihood.
    """

    def step(mass: np.ndarray) -> np.ndarray:
        new = mass * _gain(mass, first, last)
        return new / new.sum()

    def likelihood(mass: np.ndarray) -> float:
        reached = np.concatenate([[0.0], np.cumsum(mass)])
        return float(np.log(np.maximum(reached[last + 1] - reached[first], 1e-300)).sum())

    mass = np.full(regions, 1.0 / regions)
    for _ in range(3000):
        one = step(mass)
        two = step(one)
        change, bend = one - mass, (two - one) - (one - mass)
        if np.abs(change).max() < 1e-11:
            break
        ratio = float(np.linalg.norm(change)) / max(float(np.linalg.norm(bend)), 1e-300)
        length = -max(ratio, 1.0)
        leap = np.maximum(mass - 2 * length * change + length**2 * bend, 0.0)
        leap = step(leap / leap.sum())
        mass = leap if likelihood(leap) >= likelihood(two) else two
    return mass


def _gain(mass: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mean over the intervals of 1 / their probability where they hold the region; 1 at the top."""
    reached = np.concatenate([[0.0], np.cumsum(mass)])
    share = np.maximum(reached[last + 1] - reached[first], 1e-300)
    steps = np.zeros(mass.size + 1)
    np.add.at(steps, first, 1 / share)
    np.add.at(steps, last + 1, -1 / share)
    return np.cumsum(steps)[:-1] / first.size


def _regions(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Innermost intervals, from a start to the next end, and those that each interval holds.

    Intervals are open on the left, so that an end comes before a start at the same time; an exact
    time is an interval that starts just before it.
    """
    kind = np.where(a == b, -1.0, 1.0)
    starts = np.unique(np.column_stack([a, kind]), axis=0)
    ends = np.unique(np.column_stack([b, np.zeros(b.size)]), axis=0)
    points = np.concatenate([starts, ends])
    is_start = np.arange(len(points)) < len(starts)
    order = np.lexsort((points[:, 1], points[:, 0]))
    points, is_start = points[order], is_start[order]
    place = np.flatnonzero(is_start[:-1] & ~is_start[1:])
    # A start or an end as a number, for the search of what lies inside an interval.
    keys = {tuple(point): k for k, point in enumerate(points)}
    begin = np.array([keys[(x, k)] for x, k in zip(a, kind, strict=True)])
    finish = np.array([keys[(x, 0.0)] for x in b])
    first = np.searchsorted(place, begin)
    last = np.searchsorted(place, finish) - 1
    return points[place, 0], points[place + 1, 0], first, last


@dataclass(frozen=True)
class ScoreTest:
    """Test of equal distributions; ``scores`` per group are like observed less expected events."""

    chi_squared: float
    df: int
    p_value: float
    groups: tuple[str, ...]
    scores: np.ndarray


def score_test(left: Any, right: Any, group: Any, strata: Any = None) -> ScoreTest:
    """Log-rank test of (n,) interval-censored times (Sun's scores), permutation variance.

    With ``strata`` there is one curve of each stratum, and permutations are within it.

    Raises
    ------
    NotComputable
        With one group, or where all scores are equal.

    Examples
    --------
    >>> left, right = [0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]
    >>> round(score_test(left, right, list("aaabbb")).chi_squared, 3)
    3.214
    """
    a, b = _check_intervals(left, right)
    names, code = np.unique(np.asarray(group).astype(str), return_inverse=True)
    if names.size < 2:
        raise NotComputable("the test needs two groups")
    layer = np.zeros(a.size, int) if strata is None else np.unique(strata, return_inverse=True)[1]
    gap, covariance = np.zeros(names.size), np.zeros((names.size, names.size))
    for stratum in range(layer.max() + 1):
        inside = layer == stratum
        n = int(inside.sum())
        if n < 2:
            continue
        scores = _sun_scores(a[inside], b[inside])
        centred = scores - scores.mean()
        indicator = (code[inside, None] == np.arange(names.size)).astype(float)
        sizes = indicator.sum(axis=0)
        gap += indicator.T @ centred
        covariance += (
            float(centred @ centred) / (n - 1) * (np.diag(sizes) - np.outer(sizes, sizes) / n)
        )
    df = names.size - 1
    if np.linalg.matrix_rank(covariance[:-1, :-1], tol=1e-18) < df:
        raise NotComputable("every participant has the same score")
    chi = float(gap[:-1] @ np.linalg.solve(covariance[:-1, :-1], gap[:-1]))
    return ScoreTest(chi, df, float(scipy.stats.chi2.sf(chi, df)), tuple(map(str, names)), gap)


def _sun_scores(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) log-rank scores of intervals by their common curve."""
    _, high, first, last = _regions(a, b)
    mass = _self_consistent(high.size, first, last)
    at_risk = mass[::-1].cumsum()[::-1]
    # A region that ends at infinity is no event: its cumulative hazard is that before it.
    event = np.isfinite(high).astype(float)
    hazard = event * np.divide(mass, at_risk, out=np.zeros(mass.size), where=at_risk > 1e-12)
    # Score of an event in a region: 1 less the hazard up to it (Sun 1996); of an interval, their
    # mean.
    reached = np.concatenate([[0.0], np.cumsum(mass)])
    summed = np.concatenate([[0.0], np.cumsum(mass * (event - np.cumsum(hazard)))])
    share = np.maximum(reached[last + 1] - reached[first], 1e-300)
    return (summed[last + 1] - summed[first]) / share


@dataclass(frozen=True)
class Weibull:
    """Weibull proportional hazards: S(t) = exp(-exp(shape (log t - location) + x b)).

    ``covariance`` is that of (location, log shape, coefficients).
    """

    location: float
    shape: float
    coefficients: np.ndarray
    covariance: np.ndarray
    log_likelihood: float

    def median(self, alpha: float = 0.05) -> Estimate:
        """Median at covariates 0 with limits on the log scale."""
        step = math.log(math.log(2.0)) / self.shape
        slope = np.zeros(self.covariance.shape[0])
        slope[0], slope[1] = 1.0, -step
        error = math.sqrt(float(slope @ self.covariance @ slope))
        return exponentiated(normal_estimate(self.location + step, error, alpha))


def fit_weibull(left: Any, right: Any, matrix: Any = None) -> Weibull:
    """Weibull proportional hazards of (n,) intervals on (n, p) covariates without intercept.

    Raises
    ------
    NotComputable
        With fewer than two intervals that end, or no finite maximum.

    Examples
    --------
    >>> left, right = [0, 2, 2, 4, 6, 6], [2, 4, 6, 6, 8, np.inf]
    >>> round(fit_weibull(left, right).median().estimate, 2)
    4.39
    """
    a, b = _check_intervals(left, right)
    x = np.zeros((a.size, 0)) if matrix is None else np.asarray(matrix, float).reshape(a.size, -1)
    seen = np.isfinite(b)
    if np.unique(b[seen]).size < 2:
        raise NotComputable("a Weibull model needs events in two intervals")
    z, centre, scale = standardised(x)
    unit = float(np.median(b[seen]))
    start = np.zeros(2 + x.shape[1])

    def value(theta: np.ndarray) -> float:
        return -_weibull_likelihood(theta, a / unit, b / unit, z)

    found = scipy.optimize.minimize(value, start, method="BFGS", options={"gtol": 1e-7})
    hessian = _numeric_hessian(value, found.x)
    if not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian).min() <= 1e-7:
        raise NotComputable("the Weibull model has no finite maximum for these intervals")
    step = np.linalg.solve(hessian, _gradient(value, found.x))
    theta = found.x - step
    if value(theta) > found.fun + 1e-8 or np.abs(theta).max() > 20:
        raise NotComputable("the Weibull model has no finite maximum for these intervals")
    covariance = np.linalg.inv(hessian)
    span, errors = np.ptp(z, axis=0), np.sqrt(np.diag(covariance))[2:]
    if np.any((np.abs(theta[2:]) * span > 12) | (errors * span > 20)):
        raise NotComputable("a term separates early from late events: it has no finite estimate")
    shape = math.exp(theta[1])
    # Back to the covariates as they are: exp(shape (log t - m)) exp(z g) with z = (x - c) / s.
    back = np.eye(theta.size)
    back[2:, 2:] = np.diag(1 / scale)
    shift = float(centre / scale @ theta[2:])
    back[0, 1] = -shift / shape
    back[0, 2:] = centre / scale / shape
    location = theta[0] + math.log(unit) + shift / shape
    # Densities of exact times are per day again.
    likelihood = -float(value(theta)) - float(np.sum(a == b)) * math.log(unit)
    return Weibull(
        float(location), shape, theta[2:] / scale, back @ covariance @ back.T, likelihood
    )


def _weibull_likelihood(theta: np.ndarray, a: np.ndarray, b: np.ndarray, z: np.ndarray) -> float:
    location, log_shape, beta = theta[0], theta[1], theta[2:]
    shape = math.exp(min(log_shape, 50.0))
    eta = z @ beta

    def cumulative(t: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            power = shape * (np.log(t) - location) + eta
        return np.exp(np.minimum(power, 600.0))

    exact = a == b
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = cumulative(a), np.where(np.isfinite(b), cumulative(b), np.inf)
        density = np.log(shape) + shape * (np.log(np.maximum(b, 1e-12)) - location) + eta
        density = density - np.log(np.maximum(b, 1e-12)) - high
        censored = -low + np.log(-np.expm1(low - high))
        parts = np.where(exact, density, np.where(np.isfinite(b), censored, -low))
    total = float(parts.sum())
    return total if math.isfinite(total) else -1e12


def _gradient(value: Any, at: np.ndarray) -> np.ndarray:
    steps = 1e-5 * np.eye(at.size)
    return np.array([(value(at + s) - value(at - s)) / 2e-5 for s in steps])


def _numeric_hessian(value: Any, at: np.ndarray) -> np.ndarray:
    h = 1e-4
    steps = h * np.eye(at.size)
    rows = [
        [
            (value(at + s + r) - value(at + s - r) - value(at - s + r) + value(at - s - r))
            / (4 * h * h)
            for r in steps
        ]
        for s in steps
    ]
    return np.array(rows)
