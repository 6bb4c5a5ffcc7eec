"""Correlation of an imaging endpoint with outcome, exposure or another endpoint.

Intervals: Fisher's z for Pearson and partial correlation; Bonett and Wright (Psychometrika
2000;65:23) for Spearman and Kendall, whose sampling variance Fisher's does not describe; Bakdash
and Marusich (Front Psychol 2017;8:456) for repeated measures, with the degrees of freedom as
corrected in rmcorr 0.5.4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads its submodules when they are used

from corelab.agreement.estimates import p_from_normal
from corelab.measurement.selection import NotComputable, Tables, as_list, cube_root
from corelab.pharmacodynamics.analysis_set import (
    adjusted_words,
    complete_cases,
    design,
    endpoint_by_visit,
    endpoints_of,
    levels_of,
    participant_columns,
    sheet_values,
    with_covariates,
    with_labels,
)
from corelab.pharmacodynamics.estimates import contrast_of, guarded
from corelab.provenance.two_computations import MOST_PARTICIPANTS, compare
from corelab.settings.analyses.base import RESAMPLES, SEED
from corelab.settings.analyses.correlation import CorrelationSpec
from corelab.terms.results import (
    NOT_COMPUTABLE,
    Estimate,
    Second,
    StatisticRow,
    join_notes,
    not_computable,
)

#: Groups of a jackknife.
MOST_GROUPS = 200


def _pairs(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    if a.shape != b.shape:
        raise ValueError(f"x has {a.size} values and y {b.size}; they must be pairs")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("x or y holds a missing or infinite value; give complete pairs")
    if a.size < 3:
        raise NotComputable(f"{a.size} pairs of values; a correlation needs 3")
    for name, values in (("first", a), ("second", b)):
        if np.ptp(values) == 0:
            raise NotComputable(f"no variance: the {name} variable is {values[0]:g} throughout")
    return a, b


def fisher_interval(
    r: float, n: float, alpha: float = 0.05, variance: float | None = None
) -> tuple[float, float]:
    """Confidence limits of a correlation on Fisher's z scale; nan where n does not exceed 3.

    ``n`` is the number of pairs, less the number of covariates for a partial correlation;
    ``variance`` is that of z, by default 1 / (n - 3).

    Examples
    --------
    Core on non-contrast CT against DWI, n = 524, published as 0.68 (0.63 to 0.72):

    >>> [round(limit, 4) for limit in fisher_interval(0.68, 524)]
    [0.6311, 0.7235]
    """
    if variance is None:
        if n <= 3:
            return math.nan, math.nan
        variance = 1.0 / (n - 3.0)
    if abs(r) >= 1.0:
        return float(np.sign(r)), float(np.sign(r))
    half = scipy.stats.norm.ppf(1 - alpha / 2) * math.sqrt(variance)
    z = math.atanh(r)
    return math.tanh(z - half), math.tanh(z + half)


def _product_moment(a: np.ndarray, b: np.ndarray) -> float:
    u, v = a - a.mean(), b - b.mean()
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return float(np.clip(u @ v, -1.0, 1.0))


def _t_test_of_r(r: float, df: float) -> float:
    if df <= 0:
        return math.nan
    if abs(r) >= 1.0:
        return 0.0
    return float(2 * scipy.stats.t.sf(abs(r) * math.sqrt(df / (1 - r * r)), df))


def _pearson(x: Any, y: Any, alpha: float = 0.05) -> Estimate:
    """Pearson's product-moment correlation, Fisher z interval, t test."""
    a, b = _pairs(x, y)
    r = _product_moment(a, b)
    low, high = fisher_interval(r, a.size, alpha)
    p_value = _t_test_of_r(r, a.size - 2)
    return Estimate(*(r, low, high, p_value, a.size), "Pearson; Fisher z CI; t test", df=a.size - 2)


#: Up to so many pairs the p of Spearman's coefficient comes from all orders (362 880 of nine).
EXACT_UP_TO = 9


def _exact_spearman_p(a: np.ndarray, b: np.ndarray) -> float:
    """Share of all orders of b with a rank correlation as far from 0, ties as they are.

    As R cor.test with exact = TRUE where there are no ties.
    """
    u, v = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
    u, v = u - u.mean(), v - v.mean()
    orders = np.array(list(itertools.permutations(range(v.size))), dtype=np.int8)
    products = np.zeros(len(orders))
    for place, value in enumerate(u):
        products += value * v[orders[:, place]]
    return float(np.mean(np.abs(products) >= abs(float(u @ v)) - 1e-9))


def _spearman_variance(rho: float, n: int) -> float:
    """Variance of Fisher's z of Spearman's coefficient (Bonett and Wright 2000), nan for n < 4."""
    return (1 + rho * rho / 2) / (n - 3) if n > 3 else math.nan


def spearman(x: Any, y: Any, alpha: float = 0.05) -> Estimate:
    """Spearman's rank correlation (mid-ranks), Bonett-Wright interval.

    The variance of Fisher's z is (1 + rho^2 / 2) / (n - 3). p is exact (all orders, ties as they
    are) up to nine pairs, else the t approximation.

    Examples
    --------
    >>> result = spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])
    >>> round(result.estimate, 3), result.n, round(result.p_value, 4)
    (0.8, 5, 0.1333)
    """
    a, b = _pairs(x, y)
    rho = _product_moment(scipy.stats.rankdata(a), scipy.stats.rankdata(b))
    variance = _spearman_variance(rho, a.size) if a.size > 3 else None
    low, high = fisher_interval(rho, a.size, alpha, variance)
    exact = a.size <= EXACT_UP_TO
    p_value = _exact_spearman_p(a, b) if exact else _t_test_of_r(rho, a.size - 2)
    method = "Spearman, mid-ranks; Bonett-Wright CI; " + ("exact p" if exact else "t approximation")
    return Estimate(rho, low, high, p_value, a.size, method, df=a.size - 2)


def _tau_b(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b from signs of all pairs, a few rows at a time."""
    agree = own = other = 0.0
    step = max(1, 2_000_000 // a.size)
    for start in range(0, a.size, step):
        s_a = np.sign(a[start : start + step, None] - a[None, :])
        s_b = np.sign(b[start : start + step, None] - b[None, :])
        agree += float(np.sum(s_a * s_b))
        own += float(np.sum(np.abs(s_a)))
        other += float(np.sum(np.abs(s_b)))
    return agree / math.sqrt(own * other)


def _kendall(x: Any, y: Any, alpha: float = 0.05) -> Estimate:
    """Kendall's tau-b; Bonett-Wright interval with variance 0.437 / (n - 4).

    p is exact without ties up to n = 33 (scipy's rule), else of the normal approximation with the
    variance corrected for ties.
    """
    a, b = _pairs(x, y)
    tau = _tau_b(a, b)
    variance = 0.437 / (a.size - 4) if a.size > 4 else None
    low, high = (
        (math.nan, math.nan) if variance is None else fisher_interval(tau, a.size, alpha, variance)
    )
    p_value = float(scipy.stats.kendalltau(a, b).pvalue)
    return Estimate(tau, low, high, p_value, a.size, "Kendall tau-b; Bonett-Wright CI")


def _residuals(values: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    # Values far from 0 would lose their digits in the fit.
    values = values - values.mean()
    matrix = np.column_stack([np.ones(values.size), covariates - covariates.mean(axis=0)])
    return values - matrix @ np.linalg.lstsq(matrix, values, rcond=None)[0]


def partial(
    x: Any, y: Any, covariates: Any, alpha: float = 0.05, *, only_of_y: bool = False
) -> Estimate:
    """Partial correlation of x and y given covariates (semi-partial with ``only_of_y``).

    Parameters
    ----------
    x, y
        (n,) values.
    covariates
        (n, k) numbers; labels enter as indicator columns.
    alpha
        1 - confidence level.
    only_of_y
        Remove the covariates from y only.

    Returns
    -------
    Estimate
        df = n - 2 - k; the interval is Fisher's with n - k pairs. A semi-partial correlation is 0
        where the partial is, so its test is the partial's; its variance is smaller by what the
        covariates explain of x (Fisher's own would give a test at a tenth of its level).

    Examples
    --------
    >>> z = np.array([1.0, 2, 3, 4, 5, 6])
    >>> round(partial(z + [0, 1, 0, 1, 0, 1], z + [0, 1, 0, 1, 0, 1], z).estimate, 6)
    1.0
    """
    a, b = _pairs(x, y)
    block = np.asarray(covariates, float).reshape(a.size, -1)
    k = block.shape[1]
    if a.size - 2 - k < 1:
        raise NotComputable(f"{a.size} participants are too few for {k} covariates")
    res_b = _residuals(b, block)
    res_a = a - a.mean() if only_of_y else _residuals(a, block)
    for name, rest, whole in (("first", res_a, a), ("second", res_b, b)):
        if np.linalg.norm(rest) <= 1e-10 * np.linalg.norm(whole - whole.mean()):
            raise NotComputable(f"the {name} variable is determined by the covariates")
    r = _product_moment(res_a, res_b)
    df = a.size - 2 - k
    given = f"correlation given {k} covariate column(s)"
    if not only_of_y:
        low, high = fisher_interval(r, a.size - k, alpha)
        text = f"partial {given}; Fisher z CI; t test"
        return Estimate(r, low, high, _t_test_of_r(r, df), a.size, text, df=df)
    own = _residuals(a, block)
    if np.linalg.norm(own) <= 1e-10 * np.linalg.norm(res_a):
        raise NotComputable("the first variable is determined by the covariates")
    spare = a.size - 3 - k
    variance = None
    if spare > 0 and abs(r) < 1:
        unexplained = float(own @ own) / float(res_a @ res_a)
        variance = _semi_partial_variance(r, unexplained) / (1 - r * r) ** 2 / spare
    low, high = fisher_interval(r, a.size - k, alpha, variance)
    p_value = _t_test_of_r(_product_moment(own, res_b), df)
    text = f"semi-partial {given}; delta-method CI on Fisher's z scale; t test of the partial"
    return Estimate(r, low, high, p_value, a.size, text, df=df)


def _semi_partial_variance(r: float, unexplained: float) -> float:
    """Large-sample variance (times n) of a semi-partial correlation of normal variables.

    With x, the residual e of y and the residual x* of x, all over their own SD but x* over x's:
    dr = x* e - r (e e + x x) / 2, a quadratic form of normal variables, whose variance is
    2 tr((M K)^2) with K the covariance of (x, e, x*). ``unexplained`` is 1 - R2 of x on the
    covariates; at 1 the result is Fisher's (1 - r^2)^2.
    """
    form = np.array([[-r / 2, 0.0, 0.0], [0.0, -r / 2, 0.5], [0.0, 0.5, 0.0]])
    moments = np.array([[1.0, r, unexplained], [r, 1.0, r], [unexplained, r, unexplained]])
    product = form @ moments
    return 2 * float(np.trace(product @ product))


def _repeated(subject: Any, x: Any, y: Any, alpha: float = 0.05) -> Estimate:
    """Repeated-measures correlation: the common association within subjects of two values or more.

    ``n`` counts observations; df = observations - subjects - 1; Fisher's variance is 1 / (df - 1).
    """
    a, b = _pairs(x, y)
    ids = np.asarray(subject)
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    keep = counts[inverse] > 1
    if not keep.any():
        raise NotComputable("no participant has two or more pairs of values")
    _, inverse = np.unique(ids[keep], return_inverse=True)
    a, b = a[keep], b[keep]
    sizes = np.bincount(inverse)
    a = a - (np.bincount(inverse, a) / sizes)[inverse]
    b = b - (np.bincount(inverse, b) / sizes)[inverse]
    df = a.size - sizes.size - 1
    if df < 1:
        raise NotComputable(f"{a.size} pairs from {sizes.size} participants are too few")
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    if norm == 0:
        raise NotComputable("no variance within participants")
    r = float(np.clip(a @ b / norm, -1, 1))
    low, high = (
        fisher_interval(r, math.nan, alpha, 1.0 / (df - 1)) if df > 1 else (math.nan, math.nan)
    )
    method = (
        f"repeated-measures correlation, {sizes.size} participants, df {df}; Fisher z CI; t test"
    )
    return Estimate(r, low, high, _t_test_of_r(r, df), a.size, method, df=df)


def resampled(
    of_rows: Callable[[np.ndarray], float], n: int, resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """Values of a statistic of row numbers in resamples of n rows, those that exist."""
    generator = np.random.default_rng(seed)
    draws = np.array([of_rows(generator.integers(0, n, n)) for _ in range(resamples)])
    return draws[np.isfinite(draws)]


def bca_limits(
    of_rows: Callable[[np.ndarray], float],
    n: int,
    alpha: float,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    percentile: bool = False,
    draws: np.ndarray | None = None,
) -> tuple[float, float]:
    """Bias-corrected and accelerated limits (Efron 1987) of a statistic of row numbers.

    Resamples in which the statistic does not exist are dropped. Over 200 rows are left out in 200
    groups for the acceleration; ``percentile`` takes the quantiles of the resamples as they are.
    ``draws`` are those of :func:`resampled` where they exist already.

    Examples
    --------
    >>> values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    >>> low, high = bca_limits(lambda rows: values[rows].mean(), 8, 0.05)
    >>> low < 4.5 < high
    True
    """
    draws = resampled(of_rows, n, resamples, seed) if draws is None else draws
    if draws.size < resamples // 2:
        return math.nan, math.nan
    if percentile:
        low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
        return float(low), float(high)
    everything = np.arange(n)
    estimate = of_rows(everything)
    groups = everything % MOST_GROUPS
    jack = np.array([of_rows(everything[groups != g]) for g in range(int(groups.max()) + 1)])
    jack = jack[np.isfinite(jack)]
    if jack.size < 3:
        return math.nan, math.nan
    below = (np.sum(draws < estimate) + 0.5 * np.sum(draws == estimate)) / draws.size
    bias = scipy.stats.norm.ppf(np.clip(below, 1 / draws.size, 1 - 1 / draws.size))
    centred = jack.mean() - jack
    spread = np.sum(centred**2) ** 1.5
    acceleration = np.sum(centred**3) / (6 * spread) if spread > 0 else 0.0
    z = bias + scipy.stats.norm.ppf([alpha / 2, 1 - alpha / 2])
    levels = scipy.stats.norm.cdf(bias + z / (1 - acceleration * z))
    low, high = np.quantile(draws, levels)
    return float(low), float(high)


def _corrected_for_attenuation(
    r: Estimate,
    icc_x: float,
    icc_y: float = 1.0,
    icc_x_limits: tuple[float, float] | None = None,
) -> Estimate:
    """Correlation of the true values, r / sqrt(icc_x icc_y) (Spearman 1904), limits scaled alike.

    With limits of the first reliability they hold its uncertainty (Fieller's form from both
    intervals: Donner and Zou 2012, Stat Methods Med Res 21:347).
    """
    if not (0 < icc_x <= 1 and 0 < icc_y <= 1):
        raise NotComputable(f"reliabilities {icc_x:g} and {icc_y:g} must lie in (0, 1]")
    divisor = math.sqrt(icc_x * icc_y)
    known = icc_x_limits is None or not (0 < icc_x_limits[0] <= icc_x <= icc_x_limits[1])
    if known or icc_x_limits is None:
        low, high = r.ci_low / divisor, r.ci_high / divisor
        text = "reliabilities as known"
    else:
        least, most = (math.sqrt(v * icc_y) for v in icc_x_limits)
        low, high = _ratio_limits((r.estimate, r.ci_low, r.ci_high), (divisor, least, most))
        text = "with the uncertainty of the measured reliability (Donner-Zou)"
    method = f"{r.method}; divided by sqrt({icc_x:.4g} x {icc_y:.4g}), {text}"
    return replace(r, estimate=r.estimate / divisor, ci_low=low, ci_high=high, method=method)


def _ratio_limits(
    top: tuple[float, float, float], bottom: tuple[float, float, float]
) -> tuple[float, float]:
    """Limits of a ratio from those of both parts, the lower one positive (Donner and Zou 2012)."""
    (a, a_low, a_high), (b, b_low, b_high) = top, bottom
    lower = a * b - math.sqrt(
        max((a * b) ** 2 - a_low * b_high * (2 * a - a_low) * (2 * b - b_high), 0.0)
    )
    upper = a * b + math.sqrt(
        max((a * b) ** 2 - a_high * b_low * (2 * a - a_high) * (2 * b - b_low), 0.0)
    )
    return lower / (b_high * (2 * b - b_high)), upper / (b_low * (2 * b - b_low))


def _difference_independent(
    r1: float,
    n1: int,
    r2: float,
    n2: int,
    alpha: float = 0.05,
    variances: tuple[float, float] | None = None,
) -> Estimate:
    """Difference of two correlations from different people: Fisher's z test, Zou's interval (2007).

    ``variances`` are those of Fisher's z, by default Pearson's: for Spearman's coefficient its test
    rejects 8 % at rho 0.9 (:func:`_spearman_variance`).
    """
    v1, v2 = variances or (1 / (n1 - 3), 1 / (n2 - 3))
    low1, high1 = fisher_interval(r1, n1, alpha, v1)
    low2, high2 = fisher_interval(r2, n2, alpha, v2)
    difference = r1 - r2
    if max(abs(r1), abs(r2)) >= 1:
        raise NotComputable("a correlation of 1 has no variance on Fisher's scale")
    z = (math.atanh(r1) - math.atanh(r2)) / math.sqrt(v1 + v2)
    below, above = math.hypot(r1 - low1, high2 - r2), math.hypot(high1 - r1, r2 - low2)
    return Estimate(difference, difference - below, difference + above, p_from_normal(z))


def _difference_dependent(
    r_xy: float, r_xz: float, r_yz: float, n: int, alpha: float = 0.05
) -> Estimate:
    """Difference r_xy - r_xz of two correlations that share x, in the same people.

    Test of Meng, Rosenthal and Rubin (Psychol Bull 1992;111:172); interval of Zou (2007).
    """
    if n < 4 or max(abs(r_xy), abs(r_xz), abs(r_yz)) >= 1 - 1e-12:
        raise NotComputable(
            f"{n} participants" if n < 4 else "a correlation of 1: the two are one variable"
        )
    mean_square = (r_xy**2 + r_xz**2) / 2
    f = min(1.0, (1 - r_yz) / (2 * (1 - mean_square)))
    h = (1 - f * mean_square) / (1 - mean_square)
    z = (math.atanh(r_xy) - math.atanh(r_xz)) * math.sqrt((n - 3) / (2 * (1 - r_yz) * h))
    low1, high1 = fisher_interval(r_xy, n, alpha)
    low2, high2 = fisher_interval(r_xz, n, alpha)
    c = ((r_yz - r_xy * r_xz / 2) * (1 - r_xy**2 - r_xz**2 - r_yz**2) + r_yz**3) / (
        (1 - r_xy**2) * (1 - r_xz**2)
    )
    difference = r_xy - r_xz
    below = (r_xy - low1) ** 2 + (high2 - r_xz) ** 2 - 2 * c * (r_xy - low1) * (high2 - r_xz)
    above = (high1 - r_xy) ** 2 + (r_xz - low2) ** 2 - 2 * c * (high1 - r_xy) * (r_xz - low2)
    low, high = difference - math.sqrt(max(below, 0.0)), difference + math.sqrt(max(above, 0.0))
    return Estimate(difference, low, high, p_from_normal(z))


# ------------------------------------------------------------------------------------- the plan

STATISTIC_OF = {
    "pearson": "pearson_r",
    "spearman": "spearman_rho",
    "kendall": "kendall_tau",
    "partial": "partial_r",
    "partial_spearman": "partial_rho",
    "semi_partial": "semi_partial_r",
    "repeated": "rm_r",
    "attenuation": "disattenuated_r",
}


def analyse(analysis: CorrelationSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``correlation``.

    ``method: attenuation`` divides Pearson's r by the reliabilities; ``summaries`` (r and n as
    printed) take the place of data.
    """
    methods = as_list(analysis.method)
    if analysis.summaries:
        yield from _summary_rows(analysis)
        return
    endpoints = endpoints_of(analysis)
    try:
        tables = _on_scale(analysis, tables)
    except NotComputable as reason:
        for endpoint, method in itertools.product(endpoints, methods):
            yield not_computable(STATISTIC_OF[method], str(reason), endpoint=endpoint)
        return
    others = [
        (kind, str(getattr(analysis, kind)))
        for kind in analysis.require_one
        if getattr(analysis, kind)
    ]
    rows = _by_group if analysis.by else _one_pairing
    for endpoint, (kind, name), method in itertools.product(endpoints, others, methods):
        yield from rows(analysis, tables, endpoint, kind, name, method)
    if analysis.compare_pairs:
        for kind, name in others:
            for pair in itertools.combinations(endpoints, 2):
                yield from guarded(
                    _dependent_rows(analysis, tables, pair, kind, name),
                    "correlation_difference",
                    group="|".join(pair),
                )


def _on_scale(analysis: CorrelationSpec, tables: Tables) -> Tables:
    """Measurements of the analysis' endpoints on the scale of the plan."""
    scale = analysis.scale
    if scale == "identity":
        return tables
    derivation = analysis.derivation
    if derivation not in {"value", "change"}:
        raise NotComputable(f"scale {scale} has no meaning for derivation {derivation}")
    rows = tables.measurements.copy()
    own = rows["endpoint"].isin(endpoints_of(analysis)) & (rows["status"] == "ok")
    values = rows.loc[own, "value"].astype(float)
    if scale == "log":
        zeros = int((values <= 0).sum())
        if zeros:
            raise NotComputable(
                f"{zeros} values of 0 or below have no logarithm; scale: cube_root keeps them"
            )
        rows.loc[own, "value"] = np.log(values)
    else:
        rows.loc[own, "value"] = cube_root(values)
    return replace(tables, measurements=rows)


def _summary_rows(analysis: CorrelationSpec) -> Iterator[StatisticRow]:
    """Fisher's interval of correlations of which only r and n are known."""
    alpha = analysis.alpha
    for summary in analysis.summaries or ():
        r, n = float(summary.r), summary.n
        # r was rounded before it was printed: the limits of what it may have been.
        half = 0.5 * 10.0**-summary.decimals
        edges = [fisher_interval(float(np.clip(v, -1, 1)), n, alpha) for v in (r - half, r + half)]
        yield Estimate(r, *fisher_interval(r, n, alpha), _t_test_of_r(r, n - 2), n).row(
            "pearson_r",
            endpoint="n/a",
            group=summary.name,
            method="r and n as printed; Fisher z interval, t test",
            note=f"r before rounding lies in {r - half:g} to {r + half:g}: lower limit "
            f"{edges[0][0]:.4f} to {edges[1][0]:.4f}, upper limit {edges[0][1]:.4f} to "
            f"{edges[1][1]:.4f}",
        )


def _by_group(
    analysis: CorrelationSpec, tables: Tables, endpoint: str, kind: str, name: str, method: str
) -> Iterator[StatisticRow]:
    """The correlation in each group of ``by``, and the differences from the reference."""
    by = analysis.arms
    statistic = STATISTIC_OF[method]
    try:
        labels = participant_columns(with_labels(analysis, by), tables, [by])[by].dropna()
        reference, levels, said = levels_of(labels, by, analysis.reference)
    except NotComputable as reason:
        yield not_computable(statistic, str(reason), endpoint=endpoint, method=method)
        return
    found: dict[str, dict[str, StatisticRow]] = {}
    for level in (reference, *levels):
        inside = set(labels.index[labels.map(str) == level])
        people = tables.participants[tables.participants["participant_id"].isin(inside)]
        part = analysis.changed(population=None)
        for row in _one_pairing(
            part, replace(tables, participants=people), endpoint, kind, name, method
        ):
            found.setdefault(level, {})[row.visit] = row
            yield replace(row, group=f"{endpoint}|{name}|{by}={level}")
    if method not in {"pearson", "spearman"}:
        return
    words = f"difference of {statistic} with {name} between groups"
    for level in levels:
        for visit, one in found.get(level, {}).items():
            two = found.get(reference, {}).get(visit)
            if two is not None and all(_known(row) for row in (one, two)):
                yield from guarded(
                    _gap_rows(one, two, method == "spearman", words, analysis.alpha),
                    "correlation_difference",
                    said,
                    endpoint=endpoint,
                    visit=visit,
                    group=contrast_of(by, level, reference),
                )


def _known(row: StatisticRow) -> bool:
    return not row.note.startswith(NOT_COMPUTABLE) and row.n > 3


def _gap_rows(
    one: StatisticRow, two: StatisticRow, ranks: bool, words: str, alpha: float
) -> Iterator[StatisticRow]:
    """Difference of the correlations of two groups."""
    n1, n2 = int(one.n), int(two.n)
    v1, v2 = (
        _spearman_variance(row.estimate, int(row.n)) if ranks else 1 / (int(row.n) - 3)
        for row in (one, two)
    )
    variance = "Bonett-Wright variance" if ranks else "Fisher's variance"
    yield _difference_independent(one.estimate, n1, two.estimate, n2, alpha, (v1, v2)).row(
        "correlation_difference",
        n=n1 + n2,
        method=f"{words}; z test on Fisher's scale, {variance}, Zou (2007) interval",
    )


def _dependent_rows(
    analysis: CorrelationSpec, tables: Tables, pair: tuple[str, str], kind: str, name: str
) -> Iterator[StatisticRow]:
    """Difference of the correlations of two endpoints with one variable, in the same people."""
    first, second = pair
    a = dict(endpoint_by_visit(analysis, tables, first))
    b = dict(endpoint_by_visit(analysis, tables, second))
    for visit in [v for v in a if v in b]:
        frame, words = joined(analysis, tables, a[visit], visit, kind, name)
        frame["second"] = b[visit]["value"].reindex(frame.index)
        also = str(b[visit].attrs["said"])
        words = join_notes(words, f"{second}: {also}" if also else "")
        frame, note = complete_cases(frame, ["value", "second", "other"], analysis, tables)
        x, y, z = (frame[c].to_numpy() for c in ("other", "value", "second"))
        r = [_pearson(*two).estimate for two in ((x, y), (x, z), (y, z))]
        yield _difference_dependent(r[0], r[1], r[2], len(frame), analysis.alpha).row(
            "correlation_difference",
            endpoint=f"{first},{second}",
            visit=visit,
            n=len(frame),
            method=f"difference of the Pearson correlations with {name} in the same participants; "
            "Meng, Rosenthal and Rubin (1992) test, Zou (2007) interval",
            note=join_notes(f"r {r[0]:.3f} and {r[1]:.3f}", words, note),
        )


def _one_pairing(
    analysis: CorrelationSpec, tables: Tables, endpoint: str, kind: str, name: str, method: str
) -> Iterator[StatisticRow]:
    head = {"endpoint": endpoint, "group": f"{endpoint}|{name}", "method": method}
    statistic = STATISTIC_OF[method]
    try:
        by_visit = [
            (visit, *joined(analysis, tables, frame, visit, kind, name))
            for visit, frame in endpoint_by_visit(analysis, tables, endpoint)
        ]
    except NotComputable as reason:
        yield not_computable(statistic, str(reason), **head)
        return
    if method == "repeated":
        text = "; ".join(
            f"{visit}: {words}" for visit, frame, words in by_visit if frame.attrs["said"]
        )
        pooled = pd.concat([frame for _, frame, _ in by_visit])
        by_visit = [("all", pooled, text)]
    for visit, frame, words in by_visit:
        rows = _rows(analysis, tables, endpoint, frame, method)
        yield from guarded(rows, statistic, words, visit=visit, **head)


def joined(
    analysis: CorrelationSpec,
    tables: Tables,
    frame: pd.DataFrame,
    visit: str,
    kind: str,
    name: str,
) -> tuple[pd.DataFrame, str]:
    """Endpoint values with the other variable as ``other``, and words on that one: its visit,
    and what was done with values of 0.
    """
    said = ""
    if kind != "endpoint_y":
        other, at = sheet_values(analysis, tables, kind, name, visit)
    else:
        second = analysis.changed(source=analysis.source_y or analysis.source)
        found = dict(endpoint_by_visit(second.changed(visit=None), tables, name))
        planned = analysis.visit_y
        at = str(planned) if planned else visit
        if at not in found:
            if planned or len(found) != 1:
                raise NotComputable(f"no value of {name} at {at}")
            at = next(iter(found))
        other = found[at]["value"]
        said = str(found[at].attrs["said"])
    words = join_notes(
        f"second variable at {at}" if at else "",
        str(frame.attrs["said"]),
        f"{name}: {said}" if said else "",
    )
    return frame.assign(other=other.reindex(frame.index)), words


def _rows(
    analysis: CorrelationSpec, tables: Tables, endpoint: str, frame: pd.DataFrame, method: str
) -> Iterator[StatisticRow]:
    """The correlation of the columns ``value`` and ``other`` of one visit."""
    names = []
    if method in {"partial", "partial_spearman", "semi_partial"}:
        names = list(analysis.covariates)
        if not names:
            raise NotComputable("a partial correlation needs covariates")
        frame = with_covariates(frame, analysis, tables, endpoint=endpoint, names=names)
    needed, note = ["value", "other", *names], ""
    if method == "repeated":
        frame = frame.dropna(subset=needed)
    else:
        frame, note = complete_cases(frame, needed, analysis, tables)
    if frame.empty:
        raise NotComputable("no participant has both values")
    x, y = frame["value"].to_numpy(), frame["other"].to_numpy()
    kernel_method = "pearson" if method == "attenuation" else method
    result, check = _compute(frame, x, y, names, kernel_method, analysis.alpha)
    result = _with_interval(analysis, frame, result, names, kernel_method)
    if method == "attenuation":
        icc_x, limits, icc_y, text = _reliabilities(analysis, tables, endpoint)
        result, check = _corrected_for_attenuation(result, icc_x, icc_y, limits), Second()
        if abs(result.estimate) > 1:
            text = join_notes(
                text, "above 1: the reliability is too low for these values (estimated in others, "
                "or errors of the two variables are correlated)"
            )  # fmt: skip
        note = join_notes(note, text)
    yield result.row(
        STATISTIC_OF[method],
        check,
        n=frame.index.nunique() if method == "repeated" else result.n,
        method=result.method + adjusted_words(names),
        note=join_notes(note, "fewer than 10 participants" if result.n < 10 else ""),
    )


def _with_interval(
    analysis: CorrelationSpec,
    frame: pd.DataFrame,
    result: Estimate,
    names: list[str],
    method: str,
) -> Estimate:
    """The correlation with the interval of the key ``ci``."""
    kind, alpha = analysis.ci, analysis.alpha
    if kind is None:
        return result
    first = result.method.split(";")[0]
    if kind in {"fisher", "bonett_wright"}:
        if kind == "bonett_wright":
            if method not in {"spearman", "kendall"}:
                raise NotComputable("ci bonett_wright is of Spearman's and Kendall's coefficients")
            return result
        if method in {"semi_partial", "repeated"}:
            raise NotComputable(f"ci fisher is not offered for a {method} correlation")
        low, high = fisher_interval(result.estimate, result.n - len(names), alpha)
        return replace(result, ci_low=low, ci_high=high, method=f"{first}; Fisher z CI")
    if method == "repeated":
        raise NotComputable(f"ci {kind} is not offered for a repeated correlation")
    resamples, seed = analysis.resamples, analysis.seed
    values = frame[["value", "other"]].to_numpy(float)
    block = design(frame, covariates=names).matrix[:, 1:] if names else None

    def of_rows(rows: np.ndarray) -> float:
        try:
            covariates = None if block is None else block[rows]
            return _coefficient(values[rows, 0], values[rows, 1], covariates, method)
        except NotComputable:
            return math.nan

    percentile = kind == "percentile"
    low, high = bca_limits(
        of_rows, len(values), alpha, resamples=resamples, seed=seed, percentile=percentile
    )
    words = "percentile" if percentile else "BCa"
    text = f"{first}; {words} bootstrap CI, {resamples} resamples"
    return replace(result, ci_low=low, ci_high=high, method=text)


def _coefficient(x: np.ndarray, y: np.ndarray, block: np.ndarray | None, method: str) -> float:
    """A coefficient alone, without its test, for resamples."""
    a, b = _pairs(x, y)
    if method == "kendall":
        return float(scipy.stats.kendalltau(a, b, method="asymptotic").statistic)
    if block is None:
        if method == "spearman":
            a, b = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
        return _product_moment(a, b)
    if method == "partial_spearman":
        a, b = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
        block = np.apply_along_axis(scipy.stats.rankdata, 0, block)
    return partial(a, b, block, only_of_y=method == "semi_partial").estimate


def _reliabilities(
    analysis: CorrelationSpec, tables: Tables, endpoint: str
) -> tuple[float, tuple[float, float] | None, float, str]:
    """Reliability of the endpoint with its limits, of the other variable, and the source."""
    other = float(analysis.reliability_y)
    if analysis.reliability is not None:
        return float(analysis.reliability), None, other, "reliability given in the plan"
    sources = as_list(analysis.reliability_sources)
    if not sources:
        raise NotComputable("name reliability or reliability_sources")
    from corelab.agreement import intraclass_correlation
    from corelab.pharmacodynamics.sample_size import ratings_of

    ratings, visit = ratings_of(analysis.changed(visit=None), tables, endpoint, sources)
    found = intraclass_correlation(ratings, alpha=analysis.alpha)["icc_a_1"]
    text = f"ICC(A,1) {found.estimate:.3f} of {', '.join(sources)} at {visit}, n {len(ratings)}"
    return found.estimate, (found.ci_low, found.ci_high), other, text


def _compute(
    frame: pd.DataFrame, x: np.ndarray, y: np.ndarray, names: list[str], method: str, alpha: float
) -> tuple[Estimate, Second]:
    """Our kernel and the library's value."""
    simple: dict[str, tuple[Callable[..., Estimate], Callable[..., Any], str]] = {
        "pearson": (_pearson, scipy.stats.pearsonr, "scipy.stats.pearsonr"),
        "spearman": (spearman, scipy.stats.spearmanr, "scipy.stats.spearmanr"),
        "kendall": (_kendall, scipy.stats.kendalltau, "scipy.stats.kendalltau"),
    }
    if method in simple:
        ours, theirs, library = simple[method]
        result = ours(x, y, alpha)
        return result, compare(result.estimate, float(theirs(x, y).statistic), library)
    if method == "repeated":
        result = _repeated(frame.index.to_numpy(), x, y, alpha)
        if frame.index.nunique() > MOST_PARTICIPANTS:
            text = f"pingouin.rm_corr left out: more than {MOST_PARTICIPANTS} participants"
            return result, Second(method=text)
        return result, compare(result.estimate, *_pingouin_repeated(frame))
    block = design(frame, covariates=names).matrix[:, 1:]
    if method == "partial_spearman":
        x, y = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
        block = np.apply_along_axis(scipy.stats.rankdata, 0, block)
    result = partial(x, y, block, alpha, only_of_y=method == "semi_partial")
    if method == "partial_spearman":
        result = replace(result, method=f"Spearman {result.method}")
    if np.linalg.cond(np.corrcoef(np.column_stack([x, y, block]).T)) > 1e10:
        # pingouin inverts this matrix; what it then gives is rounding.
        text = "left out (pingouin.partial_corr): singular correlation matrix"
        return result, Second(method=text)
    return result, compare(result.estimate, *_pingouin_partial(x, y, block, method))


def _pingouin_repeated(frame: pd.DataFrame) -> tuple[float, str]:
    import pingouin

    if frame.index.nunique() < 3:
        # pingouin refuses two participants; an ANCOVA with their indicators is the same model.
        from statsmodels.api import OLS

        indicator = pd.get_dummies(frame.index).to_numpy(float)
        full = OLS(frame["other"].to_numpy(), np.column_stack([indicator, frame["value"]])).fit()
        t = float(full.tvalues[-1])
        return float(np.sign(t) * math.sqrt(t * t / (t * t + full.df_resid))), "statsmodels OLS"
    table = frame.rename_axis("participant").reset_index()
    for name in ("value", "other"):
        table[name] = table[name] - table[name].mean()
    fit = pingouin.rm_corr(table, x="value", y="other", subject="participant")
    return float(fit["r"].iloc[0]), "pingouin.rm_corr"


def _pingouin_partial(
    x: np.ndarray, y: np.ndarray, block: np.ndarray, method: str
) -> tuple[float, str]:
    import pingouin

    covariates = [f"c{i}" for i in range(block.shape[1])]
    # It loses digits of values that are far from 0.
    table = pd.DataFrame(block - block.mean(axis=0), columns=covariates)
    table = table.assign(x=x - np.mean(x), y=y - np.mean(y))
    if method == "semi_partial":
        fit = pingouin.partial_corr(table, x="x", y="y", y_covar=covariates)
    else:
        fit = pingouin.partial_corr(table, x="x", y="y", covar=covariates)
    return float(fit["r"].iloc[0]), "pingouin.partial_corr"
