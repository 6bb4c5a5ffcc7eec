"""Ordinary least squares: the kernel of analysis of covariance and of linear dose-response."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.estimates import t_estimate
from corelab.terms.results import Estimate


@dataclass(frozen=True)
class LinearFit:
    """Least-squares fit: (p,) coefficients and their covariance, residual degrees of freedom and
    standard deviation, share of the variance about the mean that is explained, number of rows.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    df: int
    residual_sd: float
    r_squared: float
    n: int

    def term(self, position: int, alpha: float = 0.05) -> Estimate:
        """One coefficient with t interval and test."""
        return self.contrast(np.eye(self.coefficients.size)[position], alpha)

    def contrast(self, weights: Any, alpha: float = 0.05) -> Estimate:
        """Linear combination of the coefficients with t interval and test."""
        w = np.asarray(weights, float)
        value = float(w @ self.coefficients)
        error = float(np.sqrt(w @ self.covariance @ w))
        return t_estimate(value, error, self.df, alpha)


def fit_linear(matrix: Any, values: Any) -> LinearFit:
    """Least squares of (n,) responses on an (n, p) design of full rank with its intercept, by QR.

    Raises
    ------
    NotComputable
        If there are no residual degrees of freedom, or no residual variance.

    Examples
    --------
    >>> fit = fit_linear([[1, 0], [1, 1], [1, 2], [1, 3]], [1.0, 3.0, 4.0, 8.0])
    >>> fit.coefficients.round(3).tolist(), fit.df
    ([0.7, 2.2], 2)
    """
    x, y = np.asarray(matrix, float), np.asarray(values, float)
    n, p = x.shape
    if n <= p:
        raise NotComputable(f"{n} participants for {p} terms leave no residual degrees of freedom")
    shift = level_of(x, y)
    x, back = conditioned(x)
    y = y - shift
    q, r = np.linalg.qr(x)
    diagonal = np.abs(np.diag(r))
    if diagonal.min() <= 1e-10 * diagonal.max():
        raise NotComputable(
            "a term is constant or determined by the others: the model has no unique solution"
        )
    coefficients = np.linalg.solve(r, q.T @ y)
    residuals = y - x @ coefficients
    df = n - p
    variance = float(residuals @ residuals) / df
    total = float(np.sum((y - y.mean()) ** 2))
    # Residuals of a response that the design reproduces are rounding, not information.
    if total == 0 or variance * df <= 1e-24 * (float(y @ y) + n * shift**2):
        raise NotComputable("the model reproduces every value exactly: no residual variance")
    inverse = back @ np.linalg.inv(r)
    coefficients = back @ coefficients
    coefficients[0] += shift
    return LinearFit(
        coefficients,
        variance * inverse @ inverse.T,
        df,
        float(np.sqrt(variance)),
        1.0 - variance * df / total,
        n,
    )


def with_hc3(fit: LinearFit, matrix: Any, values: Any) -> LinearFit:
    """The fit with the heteroscedasticity-consistent covariance HC3 of MacKinnon and White (1985).

    Examples
    --------
    >>> x, y = np.array([[1, 0], [1, 1], [1, 2], [1, 3.0]]), np.array([1.0, 3.0, 4.0, 8.0])
    >>> fit = with_hc3(fit_linear(x, y), x, y)
    >>> import statsmodels.api as sm
    >>> bool(np.allclose(fit.covariance, sm.OLS(y, x).fit(cov_type="HC3").cov_params()))
    True
    """
    x, back = conditioned(matrix)
    residuals = np.asarray(values, float) - np.asarray(matrix, float) @ fit.coefficients
    bread = np.linalg.inv(x.T @ x)
    leverage = np.clip(np.einsum("ij,jk,ik->i", x, bread, x), 0, 1 - 1e-12)
    meat = (x * (residuals / (1 - leverage))[:, None] ** 2).T @ x
    return replace(fit, covariance=back @ bread @ meat @ bread @ back.T)


def conditioned(matrix: Any) -> tuple[np.ndarray, np.ndarray]:
    """Design of comparable columns, and the matrix that turns its coefficients back.

    Columns are centred where the first is the constant, and divided by their size: a covariate of
    1e6 +- 1e-3 or of 1e12 is then no source of rounding. Coefficients of ``matrix`` (n, p) are the
    second (p, p) times those of the first (n, p).

    Examples
    --------
    >>> x = np.column_stack([np.ones(3), [1e6, 1e6 + 1, 1e6 + 2]])
    >>> scaled, back = conditioned(x)
    >>> bool(np.allclose(x @ back, scaled)), scaled[:, 1].round(2).tolist()
    (True, [-0.71, 0.0, 0.71])
    """
    x = np.asarray(matrix, float)
    p = x.shape[1]
    centre = np.zeros(p)
    if p and x.shape[0] and np.all(x[:, 0] == 1):
        centre[1:] = x[:, 1:].mean(axis=0)
    moved = x - centre
    size = np.linalg.norm(moved, axis=0)
    # A constant column leaves rounding only: it stays a column of zeros, found by the rank.
    gone = size <= 1e-13 * np.linalg.norm(x, axis=0)
    moved[:, gone] = 0.0
    size = np.where(gone, 1.0, size)
    back = np.diag(1.0 / size)
    if p:
        back[0] -= centre / size
    return moved / size, back


def standardised(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns of mean 0 and SD 1, with the means and SDs that were taken out.

    Raises
    ------
    NotComputable
        If a column does not vary.

    Examples
    --------
    >>> standardised(np.array([[1.0], [3.0]]))[0].tolist()
    [[-1.0], [1.0]]
    """
    centre, scale = matrix.mean(axis=0), matrix.std(axis=0)
    if np.any(scale <= 1e-12 * np.maximum(np.abs(centre), 1.0)):
        raise NotComputable("a term has no variance")
    return (matrix - centre) / scale, centre, scale


def second_ols(matrix: Any, values: Any) -> np.ndarray:
    """Coefficients by statsmodels' OLS, on columns of comparable size."""
    from statsmodels.regression.linear_model import OLS

    scaled, back = conditioned(matrix)
    y = np.asarray(values, float)
    shift = level_of(matrix, y)
    found = np.asarray(back @ OLS(y - shift, scaled).fit().params)
    found[0] += shift
    return found


def level_of(matrix: Any, values: Any) -> float:
    """Mean of the responses where the first column is the constant, which takes it up; else 0."""
    x = np.asarray(matrix, float)
    constant = bool(x.shape[1]) and bool(np.all(x[:, 0] == 1))
    return float(np.mean(values)) if constant else 0.0


@dataclass(frozen=True)
class Influence:
    """Largest Cook's distance; p of normal residuals (Shapiro-Wilk) and of constant variance,
    Koenker's studentised form (Breusch-Pagan).
    """

    max_cooks_distance: float
    shapiro_p: float
    breusch_pagan_p: float


def influence(matrix: Any, values: Any) -> Influence:
    """Diagnostics of a least-squares fit.

    Examples
    --------
    >>> x = np.column_stack([np.ones(6), np.arange(6.0)])
    >>> round(influence(x, [0.0, 1.1, 1.9, 3.2, 3.9, 9.0]).max_cooks_distance, 2)
    2.18
    """
    x, y = conditioned(matrix)[0], np.asarray(values, float)
    n, p = x.shape
    q, _ = np.linalg.qr(x)
    leverage = np.clip(np.sum(q**2, axis=1), 0, 1 - 1e-12)
    residuals = y - q @ (q.T @ y)
    variance = residuals @ residuals / (n - p)
    cooks = residuals**2 / (p * variance) * leverage / (1 - leverage) ** 2
    squared = residuals**2
    explained = q @ (q.T @ squared)
    r2 = 1 - np.sum((squared - explained) ** 2) / np.sum((squared - squared.mean()) ** 2)
    return Influence(
        float(cooks.max()),
        float(scipy.stats.shapiro(residuals).pvalue) if n >= 3 else float("nan"),
        float(scipy.stats.chi2.sf(n * r2, p - 1)) if p > 1 else float("nan"),
    )
