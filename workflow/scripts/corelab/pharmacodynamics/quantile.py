"""Quantile regression with the standard errors of R's quantreg, not those of statsmodels.

The coefficients solve the linear programme of Koenker and Bassett (Econometrica 1978;46:33).
Standard errors are the Hendricks-Koenker sandwich ("nid" in quantreg), which does not assume that
residuals are identically distributed: on Engel's data the default of statsmodels is half of it.
It is compared with the normal distribution, which it follows in large samples; with Student's t
the test at 60 participants is too conservative (3.8 % at the quantile 0.25; so it is 4.2 %). The
note of a row gives quantreg's own interval by rank inversion beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, sparse, stats

from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.pharmacodynamics.analysis_set import (
    Design,
    complete_cases,
    design,
    each_visit,
    endpoints_of,
    levels_of,
    sheet_values,
    with_covariates,
    with_labels,
)
from corelab.pharmacodynamics.linear import conditioned, level_of
from corelab.pharmacodynamics.rank_inversion import rank_interval
from corelab.provenance.two_computations import ComputationsDisagree, attempt, compare
from corelab.settings.analyses.base import SEED
from corelab.settings.analyses.quantile import QuantileSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes

DEFAULT_RESAMPLES = 500
#: A linear programme of no more rows than these is solved as it is.
FEW_ROWS = 500


@dataclass(frozen=True)
class _QuantileFit:
    """Coefficients with their (p, p) covariance, None where the sparsity cannot be estimated; the
    sum of the check function, and n - p.
    """

    coefficients: np.ndarray
    covariance: np.ndarray | None
    loss: float
    df: int


def _check_loss(residuals: np.ndarray, quantile: float) -> float:
    """Sum of the check function."""
    return float(np.sum(residuals * (quantile - (residuals < 0))))


def _quantile_coefficients(
    matrix: Any, values: Any, quantile: float, near: np.ndarray | None = None
) -> np.ndarray:
    """(p,) coefficients of the regression quantile, by linear programming.

    ``near`` are coefficients close to them: rows far from their plane are then summed into two, one
    of each side (Portnoy and Koenker, Stat Sci 1997;12:279), which makes the programme small.
    """
    x, back = conditioned(matrix)
    y, shift, spread = _of_order_one(matrix, values)
    if near is not None and y.size > FEW_ROWS:
        level = np.zeros(x.shape[1])
        level[0] = shift
        plane = np.linalg.solve(back, (np.asarray(near, float) - level) / spread)
        beta = _between(x, y, quantile, plane)
    else:
        beta = _programme(x, y, quantile)
    beta = back @ beta * spread
    beta[0] += shift
    return beta


def _between(x: np.ndarray, y: np.ndarray, quantile: float, near: np.ndarray) -> np.ndarray:
    """Solution with the rows far from a plane summed; they join where they change their side."""
    residuals = y - x @ near
    order = np.argsort(np.abs(residuals - np.quantile(residuals, quantile)), kind="stable")
    kept = np.zeros(y.size, bool)
    kept[order[: max(FEW_ROWS // 2, y.size // 10)]] = True
    above = residuals > 0
    while True:
        sides = [~kept & ~above, ~kept & above]
        rows = [kept.nonzero()[0], *(np.flatnonzero(side) for side in sides)]
        beta = _programme(
            np.vstack([x[rows[0]], *(x[side].sum(axis=0) for side in rows[1:])]),
            np.concatenate([y[rows[0]], *([y[side].sum()] for side in rows[1:])]),
            quantile,
        )
        residuals = y - x @ beta
        wrong = ~kept & (np.where(above, -residuals, residuals) > 0)
        if not wrong.any():
            return beta
        kept |= wrong


def _programme(x: np.ndarray, y: np.ndarray, quantile: float) -> np.ndarray:
    n, p = x.shape
    # Columns of one size: the solver's tolerance is absolute.
    scale = np.maximum(np.abs(x).max(axis=0), 1e-300)
    cost = np.concatenate([np.zeros(p), np.full(n, quantile), np.full(n, 1 - quantile)])
    equality = sparse.hstack(
        [sparse.csr_array(x / scale), sparse.eye_array(n), -sparse.eye_array(n)], format="csc"
    )
    bounds = [(None, None)] * p + [(0, None)] * (2 * n)
    found: Any = optimize.linprog(cost, A_eq=equality, b_eq=y, bounds=bounds, method="highs-ds")
    if not found.success:
        raise ArithmeticError(f"quantile regression: linear programme failed: {found.message}")
    beta = found.x[:p] / scale
    # The solution passes through p observations: solve them exactly.
    residuals = np.abs(y - x @ beta)
    basis = np.argsort(residuals, kind="stable")[:p]
    if np.linalg.matrix_rank(x[basis]) == p:
        exact = np.linalg.solve(x[basis], y[basis])
        if _check_loss(y - x @ exact, quantile) <= _check_loss(y - x @ beta, quantile) + 1e-9:
            beta = exact
    return beta


def _of_order_one(matrix: Any, values: Any) -> tuple[np.ndarray, float, float]:
    """Responses centred (where there is a constant) and divided by their size; both numbers."""
    y = np.asarray(values, float)
    shift = level_of(matrix, y)
    spread = max(float(np.abs(y - shift).max()), 1e-300)
    return (y - shift) / spread, shift, spread


def _hall_sheather_bandwidth(quantile: float, n: int, alpha: float = 0.05) -> float:
    """Bandwidth of Hall and Sheather (1988), as quantreg's ``bandwidth.rq(hs = TRUE)``."""
    z = stats.norm.ppf(quantile)
    density = stats.norm.pdf(z)
    return float(
        n ** (-1 / 3)
        * stats.norm.ppf(1 - alpha / 2) ** (2 / 3)
        * (1.5 * density**2 / (2 * z**2 + 1)) ** (1 / 3)
    )


def _fit_quantile(matrix: Any, values: Any, quantile: float) -> _QuantileFit:
    """Regression quantile with Hendricks-Koenker ("nid") covariance."""
    if not 0 < quantile < 1:
        raise ValueError(f"quantile {quantile!r} must lie between 0 and 1")
    x, y = np.asarray(matrix, float), np.asarray(values, float)
    n, p = x.shape
    if n <= p:
        raise NotComputable(f"{n} participants for {p} terms")
    beta = _quantile_coefficients(x, y, quantile)
    loss = _check_loss(y - x @ beta, quantile)
    h = _hall_sheather_bandwidth(quantile, n)
    while quantile - h <= 0 or quantile + h >= 1:
        h /= 2
    upper = _quantile_coefficients(x, y, quantile + h)
    lower = _quantile_coefficients(x, y, quantile - h)
    spread = x @ (upper - lower)
    density = np.maximum(0.0, 2 * h / (spread - math.sqrt(np.finfo(float).eps)))
    bread = (x * density[:, None]).T @ x
    covariance = None
    dense = density > 0
    if np.isfinite(bread).all() and dense.sum() >= p and np.linalg.matrix_rank(x[dense]) == p:
        inverse = np.linalg.inv(bread)
        covariance = quantile * (1 - quantile) * inverse @ (x.T @ x) @ inverse
    return _QuantileFit(beta, covariance, loss, n - p)


def _cluster_bootstrap(
    matrix: Any,
    values: Any,
    quantile: float,
    clusters: Any = None,
    *,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = SEED,
) -> np.ndarray:
    """(resamples, p) draws of the coefficients, of whole clusters where given; full rank only."""
    x, y = np.asarray(matrix, float), np.asarray(values, float)
    labels = np.arange(y.size) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    groups = [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]
    generator = np.random.default_rng(seed)
    draws, whole = [], _quantile_coefficients(x, y, quantile)
    for _ in range(resamples):
        picked = generator.integers(0, len(groups), len(groups))
        rows = np.concatenate([groups[k] for k in picked])
        if np.linalg.matrix_rank(x[rows]) == x.shape[1]:
            draws.append(_quantile_coefficients(x[rows], y[rows], quantile, whole))
    return np.array(draws)


def _slopes(
    matrix: Any,
    values: Any,
    quantile: float,
    alpha: float = 0.05,
    *,
    clusters: Any = None,
    resamples: int | None = None,
    seed: int = SEED,
) -> tuple[_QuantileFit, list[Estimate], str]:
    """Regression quantile, its coefficients with limits and tests, and how these were made.

    Without ``resamples`` it is a bootstrap where clusters are given or the sparsity estimate fails.
    """
    x, y = np.asarray(matrix, float), np.asarray(values, float)
    fit = _fit_quantile(x, y, quantile)
    if clusters is not None or fit.covariance is None or resamples is not None:
        draws = _cluster_bootstrap(
            x, y, quantile, clusters, resamples=resamples or DEFAULT_RESAMPLES, seed=seed
        )
        if len(draws) < 2:
            raise NotComputable("no bootstrap sample has every level of the terms")
        low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2], axis=0)
        error = draws.std(axis=0, ddof=1)
        what = "clusters" if clusters is not None else "participants"
        what += " (no sparsity estimate)" * (fit.covariance is None and clusters is None)
        interval = f"percentile bootstrap of {what}, {len(draws)} resamples"
        df = float(len(set(clusters)) - 1) if clusters is not None else float(fit.df)
    else:
        error = np.sqrt(np.diag(fit.covariance))
        half = stats.norm.ppf(1 - alpha / 2) * error
        low, high, df = fit.coefficients - half, fit.coefficients + half, math.inf
        interval = "Hendricks-Koenker (nid) standard error, normal interval"
    with np.errstate(divide="ignore", invalid="ignore"):
        p_value = 2 * stats.t.sf(np.abs(fit.coefficients) / error, df)
    columns = np.column_stack([fit.coefficients, low, high, p_value, error]).tolist()
    return fit, [Estimate(v, lo, hi, p, se=s) for v, lo, hi, p, s in columns], interval


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: QuantileSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``quantile``.

    Terms come from ``by``, ``dose``, ``exposure``, ``outcome`` and ``covariates``; with
    ``cluster`` whole clusters are resampled.
    """
    for endpoint in endpoints_of(analysis):
        kernel = partial(_visit_rows, analysis, tables, endpoint)
        yield from each_visit(analysis, tables, endpoint, kernel, "quantile_coefficient")


def _visit_rows(
    analysis: QuantileSpec, tables: Tables, endpoint: str, visit: str, values: pd.DataFrame
) -> Iterator[StatisticRow]:
    by, names = analysis.by, list(analysis.covariates)
    labelled = with_labels(analysis, by)
    columns = [*as_list(by), *as_list(analysis.cluster or None)]
    terms = ["dose" if dose is True else str(dose) for dose in as_list(analysis.dose)]
    people = [*columns, *terms, *names]
    frame = with_covariates(values, labelled, tables, endpoint=endpoint, names=people)
    for kind in ("exposure", "outcome"):
        for name in as_list(getattr(analysis, kind)):
            frame[name] = sheet_values(analysis, tables, kind, name, visit)[0].reindex(frame.index)
            terms.append(name)
    frame, note = complete_cases(frame, ["value", *columns, *terms, *names], analysis, tables)
    reference, said = None, ""
    if by:
        reference, _, said = levels_of(frame[by], by, analysis.reference)
    plan = design(
        frame,
        by=by,
        reference=reference,
        covariates=[*terms, *names],
        reference_levels=analysis.reference_levels,
    )
    for quantile in map(float, analysis.quantiles):
        for row in _rows_at(analysis, plan, frame, quantile):
            yield row.within(values.attrs["said"], said, note, n=len(frame))


def _rows_at(
    analysis: QuantileSpec, plan: Design, frame: pd.DataFrame, quantile: float
) -> Iterator[StatisticRow]:
    x, y = plan.matrix, frame["value"].to_numpy(float)
    clusters = frame[analysis.cluster].to_numpy() if analysis.cluster else None
    alpha = analysis.alpha
    if np.ptp(y) == 0:
        raise NotComputable(f"all {y.size} values are {y[0]:g}: a quantile has no variation")
    fit, estimates, interval = _slopes(
        x,
        y,
        quantile,
        alpha,
        clusters=clusters,
        resamples=analysis.resamples,
        seed=analysis.seed,
    )
    theirs = _statsmodels(x, y, quantile, fit)
    few = min(quantile, 1 - quantile) * y.size < 5
    for position, (term, result) in enumerate(zip(plan.terms, estimates, strict=True)):
        second = Second(method="statsmodels QuantReg: none, or another optimum of equal loss")
        if theirs is not None:
            scale = max(
                result.se,
                1e-3 * abs(result.estimate),
                1e-4 * float(np.ptp(y)) / float(np.abs(x[:, position]).max()),
            )
            other, library = float(theirs[position]), "statsmodels QuantReg"
            second = compare(result.estimate, other, library, tolerance=5e-2, scale=scale)
        words = ""
        if clusters is None:
            words = _rank_words(x, y, fit, position, quantile, alpha)
        yield result.row(
            "quantile_coefficient",
            second,
            group=f"q={quantile:.2f}|{term}",
            method=f"quantile regression, linear programme; {interval}",
            note=join_notes("fewer than 5 values beyond the quantile" * few, words),
        )


def _rank_words(
    matrix: np.ndarray,
    y: np.ndarray,
    fit: _QuantileFit,
    position: int,
    quantile: float,
    alpha: float,
) -> str:
    """The interval by rank inversion, in words; nothing where ties leave none."""
    try:
        low, high = rank_interval(matrix, y, fit.coefficients, position, quantile, alpha)
    except NotComputable:
        return ""
    return f"by rank inversion {low:.4g} to {high:.4g} (identically distributed residuals)"


def _statsmodels(
    matrix: np.ndarray, y: np.ndarray, quantile: float, fit: _QuantileFit
) -> np.ndarray | None:
    """Coefficients by statsmodels' iterated weighted least squares.

    None where the minimum is not unique (ties): both losses are equal, the coefficients need not.
    """
    from statsmodels.regression.quantile_regression import QuantReg

    scaled, back = conditioned(matrix)
    own, shift, spread = _of_order_one(matrix, y)
    # It fails where residuals are exactly zero (statsmodels issue 2377).
    found, _ = attempt(
        lambda: QuantReg(own, scaled).fit(q=quantile, max_iter=5000, p_tol=1e-9),
        "statsmodels QuantReg",
    )
    if found is None or not np.isfinite(found.params).all():
        return None
    level = np.zeros(scaled.shape[1])
    level[0] = shift
    mine = np.linalg.solve(back, fit.coefficients - level) / spread
    loss, ours = (_check_loss(own - scaled @ b, quantile) for b in (found.params, mine))
    rounding = own.size * (1e-9 + 1e-15 * abs(shift) / spread)
    if loss < ours - 1e-8 * ours - rounding:
        raise ComputationsDisagree(
            f"quantile regression: our loss {ours * spread:.10g}, statsmodels' "
            f"{loss * spread:.10g} is lower"
        )
    apart = np.abs(scaled @ (found.params - mine)).max()
    near = loss <= ours * (1 + 1e-3) + 1e-9
    width = max(float(np.subtract(*np.percentile(own, [75, 25]))), 1e-9)
    # As a standard error falls with n, so must what counts as the same optimum.
    apart_from = 1e-3 * width * min(1.0, 10 / math.sqrt(own.size))
    return None if near and apart > apart_from else back @ found.params * spread + level
