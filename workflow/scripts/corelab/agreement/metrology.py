"""Metrology of repeated measurements and of phantoms (QIBA: Raunig 2015, Obuchowski 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from corelab.agreement import clusters as groups_of
from corelab.agreement.clusters import Codes
from corelab.agreement.estimates import (
    NORMAL_95,
    Floats,
    paired_columns,
    quantile_normal,
    standard_deviation_interval,
    t_estimate,
)
from corelab.measurement.selection import NotComputable
from corelab.terms.results import Estimate

REPEATABILITY_FACTOR = float(NORMAL_95 * np.sqrt(2.0))


def _replicated(readings: ArrayLike, clusters: ArrayLike | None) -> tuple[Floats, Codes | None]:
    values = np.asarray(readings, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"readings of shape {values.shape}: (targets, repeats) is needed")
    if np.isinf(values).any():
        raise ValueError("infinite readings: mark what could not be measured as missing (NaN)")
    twice = (~np.isnan(values)).sum(axis=1) >= 2
    codes = groups_of.subset(groups_of.codes_of(clusters, len(values)), twice)
    values = values[twice]
    if len(values) < 2:
        raise NotComputable(f"{len(values)} targets with repeated readings, at least 2 are needed")
    return values, codes


def repeatability(
    readings: ArrayLike, *, alpha: float = 0.05, clusters: ArrayLike | None = None
) -> dict[str, Estimate]:
    """Within-target SD and CV and the repeatability coefficients, numbers of repeats may differ.

    ``within_sd`` = sqrt(pooled within-target variance); ``within_cv_percent`` = 100 sqrt(mean of
    s^2 / m^2) (root mean square, QIBA); ``within_cv_log_percent`` = 100 sqrt(exp(s^2_log) - 1);
    ``repeatability_coefficient`` = 1.96 sqrt(2) within_sd; ``repeatability_coefficient_percent``
    the same of the CV; ``..._percent_lower`` and ``_upper`` = asymmetric limits of a ratio from the
    log scale. Intervals: exact chi-square (an approximation for the CV). With clusters (visits of a
    participant, whose readings differ from each other by an amount of the participant): chi-square
    with the degrees of freedom that the variances of the clusters' sums of squares tell
    (Satterthwaite), for complete readings from the mean squares between and within clusters.

    ``readings`` are (n targets, repeats), NaN where there is none; targets read once are left out.
    CVs only where every mean is positive (targets whose readings are all 0 are left out and counted
    in the note).

    Examples
    --------
    >>> result = repeatability([[10.0, 11.0], [20.0, 19.0], [30.0, 32.0]])
    >>> [round(result[n].estimate, 3) for n in ("within_sd", "repeatability_coefficient")]
    [1.0, 2.772]
    """
    values, codes = _replicated(readings, clusters)
    n = len(values)
    counts = (~np.isnan(values)).sum(axis=1)
    means = np.nanmean(values, axis=1)
    variances = np.nansum((values - means[:, None]) ** 2, axis=1) / (counts - 1)
    df = float(np.sum(counts - 1))
    sd = float(np.sqrt(np.sum(variances * (counts - 1)) / df))
    freedom, over = _freedom(values, codes, df)
    low, high = standard_deviation_interval(sd, freedom, alpha)
    method = f"pooled within-target SD, df {freedom:.4g}, chi-square{over}"
    found = Estimate(sd, low, high, n=n, method=method)
    result = {
        "within_sd": found,
        "repeatability_coefficient": found.times(
            REPEATABILITY_FACTOR, f"1.96 sqrt(2) within SD; {method}"
        ),
    }
    result.update(_relative(values, counts, means, variances, alpha, codes))
    return result


def _freedom(values: Floats, codes: Codes | None, df: float) -> tuple[float, str]:
    """Degrees of freedom of a pooled within-target variance, and words about clusters.

    The variance is 1 / (2 df) of its square for independent targets. In clusters it is larger: the
    differences between readers that a participant's visits share count once. Complete readings: the
    variance of the sum of mean squares, readers fixed; gaps: that of the clusters' influences.
    """
    if codes is None:
        return df, ""
    a = groups_of.enough_clusters(codes)
    centred = values - np.nanmean(values, axis=1, keepdims=True)
    if np.isnan(values).any():
        own = np.nansum(centred**2, axis=1)
        freedom = (~np.isnan(values)).sum(axis=1) - 1.0
        pooled = float(own.sum() / freedom.sum())
        influence = groups_of.sums(own - pooled * freedom, codes) / df
        spread = a / (a - 1) * float(np.sum(influence**2))
        found = 2.0 * pooled**2 / spread if spread > 0 else df
    else:
        found = _fixed_readers_freedom(centred, codes, a)
    return min(found, df), f" over {a} clusters"


def _fixed_readers_freedom(centred: Floats, codes: Codes, a: int) -> float:
    n, k = centred.shape
    counts = np.bincount(codes).astype(np.float64)
    means = groups_of.sums(centred, codes) / counts[:, None]
    bias = means.mean(axis=0)
    between = float(np.sum((means - bias) ** 2)) / ((a - 1) * (k - 1))
    inside = float(np.sum((centred - means[codes]) ** 2)) / ((n - a) * (k - 1))
    share = 1.0 - float(np.mean(1.0 / counts))
    noise = between / a
    square = float(np.sum(bias**2))
    lasting = max(square - (k - 1) * noise, 0.0)
    spread = (4.0 * lasting * noise + 2.0 * (k - 1) * noise**2) / (k - 1) ** 2
    # The pooled variance weighs a cluster by its targets: unequal ones count as fewer.
    unequal = a * float(np.sum(counts**2)) / n**2
    spread += 2.0 * unequal * ((1.0 - 1.0 / a) * between) ** 2 / ((a - 1) * (k - 1))
    spread += 2.0 * (share * inside) ** 2 / ((n - a) * (k - 1))
    total = square / (k - 1) + (1.0 - 1.0 / a) * between + share * inside
    return 2.0 * total**2 / spread if spread > 0 else float(n * (k - 1))


def _relative(
    values: Floats,
    counts: Floats,
    means: Floats,
    variances: Floats,
    alpha: float,
    codes: Codes | None,
) -> dict[str, Estimate]:
    silent = (means == 0) & (variances == 0)
    if (means[~silent] <= 0).any() or (~silent).sum() < 2:
        reason = "not defined: means of the readings are not all positive"
        names = ("within_cv_percent", "repeatability_coefficient_percent")
        return {name: Estimate(np.nan, n=len(values), note=reason) for name in names}
    note = f"{int(silent.sum())} targets with readings of 0 only left out" if silent.any() else ""
    keep = ~silent
    n, df = int(keep.sum()), float(np.sum(counts[keep] - 1))
    weight = (counts[keep] - 1) / df
    cv = float(np.sqrt(np.sum(weight * variances[keep] / means[keep] ** 2)))
    codes = groups_of.subset(codes, keep)
    freedom, over = _freedom(values[keep] / means[keep][:, None], codes, df)
    low, high = standard_deviation_interval(cv, freedom, alpha)
    method = f"root mean square within-target CV, df {freedom:.4g}, chi-square{over}"
    percent = Estimate(cv, low, high, n=n, method=method, note=note).times(100.0)
    result = {
        "within_cv_percent": percent,
        "repeatability_coefficient_percent": percent.times(
            REPEATABILITY_FACTOR, f"1.96 sqrt(2) within CV; {method}"
        ),
    }
    if (values[keep][~np.isnan(values[keep])] > 0).all():
        result.update(_logarithmic(np.log(values[keep]), df, alpha, note, codes))
    return result


def _logarithmic(
    logs: Floats, df: float, alpha: float, note: str, codes: Codes | None
) -> dict[str, Estimate]:
    centred = logs - np.nanmean(logs, axis=1, keepdims=True)
    s = float(np.sqrt(np.nansum(centred**2) / df))
    freedom, over = _freedom(logs, codes, df)
    scales = np.array([s, *standard_deviation_interval(s, freedom, alpha)])
    n = len(logs)
    cv = 100.0 * np.sqrt(np.expm1(scales**2))
    method = f"100 sqrt(exp(s^2) - 1) of logarithms, chi-square{over}"
    result = {
        "within_cv_log_percent": Estimate(
            float(cv[0]), float(cv[1]), float(cv[2]), n=n, method=method, note=note
        )
    }
    for name, sign in (("lower", -1.0), ("upper", 1.0)):
        limits = 100.0 * np.expm1(sign * REPEATABILITY_FACTOR * scales)
        result[f"repeatability_coefficient_percent_{name}"] = Estimate(
            float(limits[0]),
            float(limits[1:].min()),
            float(limits[1:].max()),
            n=n,
            method=f"100 (exp(+-1.96 sqrt(2) s) - 1) of logarithms, chi-square{over}",
            note=note,
        )
    return result


@dataclass(frozen=True)
class Linearity:
    """Measured against true values.

    ``bias``: mean of measured - true; ``bias_percent``: mean of 100 (measured - true) / true over
    true values > 0. ``slope``, ``intercept`` and ``r_squared``: least squares of measured on true;
    ``slope.p_value`` tests slope = 1. ``curvature``: quadratic term, whose p value tests linearity
    (CLSI EP06: a significant one is not). ``rmse``: root mean square of measured - true.
    """

    bias: Estimate
    bias_percent: Estimate
    slope: Estimate
    intercept: Estimate
    r_squared: float
    curvature: Estimate
    rmse: float


def linearity(measured: ArrayLike, truth: ArrayLike, *, alpha: float = 0.05) -> Linearity:
    """Bias, slope and curvature of measured values against known truth.

    Examples
    --------
    >>> result = linearity([1.1, 2.0, 3.2, 3.9, 5.1], [1, 2, 3, 4, 5])
    >>> round(result.bias.estimate, 3), round(result.slope.estimate, 3)
    (0.06, 0.99)
    """
    y, x = paired_columns(measured, truth, at_least=3)
    n = x.size
    error = y - x
    bias = groups_of.mean_of(error, alpha, method="mean of measured - true, t")
    positive = x > 0
    percent = "mean of 100 (measured - true) / true"
    relative = (
        groups_of.mean_of(100.0 * error[positive] / x[positive], alpha, method=percent)
        if positive.sum() >= 2
        else Estimate(np.nan, n=int(positive.sum()), note="not defined: no positive true values")
    )
    rmse = float(np.sqrt(np.mean(error**2)))
    if np.ptp(x) == 0:
        nothing = Estimate(np.nan, n=n, note="not defined: one true value only")
        return Linearity(bias, relative, nothing, nothing, np.nan, nothing, rmse)
    coefficients, errors, df, rss = _polynomial(x, y, 1)
    intercept, slope = (
        t_estimate(
            value, se, df, alpha, n=n, null=null, method=f"least squares, t; p against {null:g}"
        )
        for value, se, null in zip(coefficients, errors, (0.0, 1.0), strict=True)
    )
    r_squared = 1.0 - rss / float(np.sum((y - y.mean()) ** 2)) if np.ptp(y) > 0 else np.nan
    curvature = Estimate(np.nan, n=n, note="not defined: fewer than 4 values or 3 levels")
    if n >= 4 and np.unique(x).size >= 3:
        quadratic, quadratic_se, df2, _ = _polynomial(x, y, 2)
        value, se = quadratic[2], quadratic_se[2]
        # Rounding leaves a trace of curvature where values lie on a line.
        null = value if se == 0 and abs(value) < 1e-12 else 0.0
        curvature = t_estimate(value, se, df2, alpha, n=n, null=null, method="quadratic term, t")
    return Linearity(bias, relative, slope, intercept, float(r_squared), curvature, rmse)


def _polynomial(x: Floats, y: Floats, degree: int) -> tuple[list[float], list[float], int, float]:
    design = np.vander(x, degree + 1, increasing=True)
    scale = np.maximum(np.abs(design).max(axis=0), 1e-300)
    solution, _, _, _ = np.linalg.lstsq(design / scale, y, rcond=None)
    rss = float(np.sum((y - design / scale @ solution) ** 2))
    df = x.size - degree - 1
    inverse = np.linalg.pinv((design / scale).T @ (design / scale))
    errors = np.sqrt(np.maximum(np.diag(inverse) * rss / max(df, 1), 0.0)) / scale
    return [float(v) for v in solution / scale], [float(v) for v in errors], df, rss


def proportion(k: float, n: float, *, alpha: float = 0.05) -> Estimate:
    """A proportion with its Wilson interval (Wilson 1927); effective numbers need not be whole.

    Examples
    --------
    >>> rate = proportion(264, 414)
    >>> round(rate.estimate, 4), round(rate.ci_low, 4), round(rate.ci_high, 4)
    (0.6377, 0.5903, 0.6825)
    """
    if not 0 <= k <= n or n <= 0:
        raise NotComputable(f"{k} of {n} is no proportion")
    z = quantile_normal(alpha)
    share = k / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    # With none or all of them the outer limit is 0 or 1, but for rounding.
    low, high = (centre - half if k else 0.0), (centre + half if k < n else 1.0)
    return Estimate(share, low, high, n=int(n), method="Wilson interval")
