"""Interval of a regression quantile by inversion of the rank-score test, as R's quantreg prints it.

The test of Gutenbrunner, Jureckova, Koenker and Portnoy (J Nonparam Stat 1993;2:307) that a
coefficient is b is a step function of b; the interval holds every b that it does not reject
(Koenker 1994). Residuals are taken as identically distributed, which the sandwich of
:mod:`corelab.pharmacodynamics.quantile` does not ask for: where their spread grows with a term,
this interval covers less than it says (92 % at the quantile 0.10 in the trials of
``tests/pd_error_rates.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from corelab.measurement.selection import NotComputable

#: Dual variables may leave [0, weight] by rounding.
_ROUNDING = 1e-7


@dataclass(frozen=True)
class _Problem:
    """Regression of ``y - b x`` on the other columns; equal rows are one with a weight."""

    others: NDArray[Any]
    x: NDArray[Any]
    y: NDArray[Any]
    weight: NDArray[Any]
    quantile: float

    def scores(
        self, basis: NDArray[Any], b: float, ahead: float
    ) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Rank scores just beyond b if the fit goes through ``basis``, and where residuals end."""
        of_basis = np.column_stack([self.y, self.x])[basis]
        try:
            at = np.linalg.solve(self.others[basis], of_basis)
            start, slope = (
                v - self.others @ a for v, a in zip((self.y, self.x), at.T, strict=True)
            )
            residual = start - b * slope
            close = np.abs(residual) <= 1e-12 * (1 + np.abs(self.y).max())
            above = np.where(close, -slope * ahead, residual) > 0
            above[basis] = False
            found = above * self.weight
            total = (1 - self.quantile) * self.weight @ self.others
            inside = np.linalg.solve(self.others[basis].T, total - found @ self.others)
        except np.linalg.LinAlgError:
            return None
        if (inside < -_ROUNDING).any() or (inside > self.weight[basis] + _ROUNDING).any():
            return None
        found[basis] = inside
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = start / slope
        ends[basis] = np.nan
        return found, ends


def rank_interval(
    matrix: Any, values: Any, coefficients: Any, column: int, quantile: float, alpha: float = 0.05
) -> tuple[float, float]:
    """Limits of one coefficient, interpolated between steps, with Student's t as critical value.

    Parameters
    ----------
    matrix, values
        (n, p) terms and (n,) values.
    coefficients
        (p,) regression quantile of these.
    column
        Of the coefficient.
    quantile, alpha
        Between 0 and 1; 1 - confidence level.

    Returns
    -------
    tuple of float
        A limit is infinite where no b is rejected on that side.

    Raises
    ------
    NotComputable
        Where ties leave more than one way on.
    """
    n, p = np.shape(matrix)
    rows, counts = np.unique(np.column_stack([matrix, values]), axis=0, return_counts=True)
    x, y = rows[:, :p], rows[:, p]
    problem = _Problem(
        np.delete(x, column, axis=1), x[:, column], y, counts.astype(float), quantile
    )
    root = np.sqrt(problem.weight)[:, None]
    fit = np.linalg.lstsq(problem.others * root, problem.x * root[:, 0], rcond=None)[0]
    away = problem.x - problem.others @ fit
    scale = float(np.sqrt(quantile * (1 - quantile) * (problem.weight @ away**2)))
    limit = float(stats.t.ppf(1 - alpha / 2, n - p))
    beta = np.asarray(coefficients, float)
    through = np.argsort(np.abs(y - x @ beta), kind="stable")[:p]
    centre = (1 - quantile) * float(away @ problem.weight)
    low, high = (
        _walk(problem, through, float(beta[column]), ahead, (away / scale, centre / scale, limit))
        for ahead in (-1.0, 1.0)
    )
    return low, high


def _walk(
    problem: _Problem,
    pool: NDArray[Any],
    b: float,
    ahead: float,
    test: tuple[NDArray[Any], float, float],
) -> float:
    """Go from the estimate to the first b that the test rejects."""
    away, centre, limit = test
    before: tuple[float, float] | None = None
    while True:
        found = None
        for drop in range(len(pool)):
            basis = np.delete(pool, drop)
            found = problem.scores(basis, b, ahead)
            if found is not None:
                break
        if found is None:
            raise NotComputable("values are tied: the rank-score interval has no single way on")
        scores, ends = found
        size = abs(float(away @ scores) - centre)
        if size > limit:
            if before is None:
                return b
            share = (limit - before[1]) / (size - before[1])
            return before[0] + (b - before[0]) * share
        gap = (ends - b) * ahead
        gap[~(gap > 1e-12 * (1 + abs(b))) | ~np.isfinite(gap)] = np.nan
        if np.isnan(gap).all():
            return ahead * np.inf
        entering = int(np.nanargmin(gap))
        before, b = (b, size), float(ends[entering])
        pool = np.append(basis, entering)
