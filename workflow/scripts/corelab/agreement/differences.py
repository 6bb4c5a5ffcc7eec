"""Two methods against each other: Bland-Altman, concordance, Deming, Passing-Bablok, deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from corelab.agreement.estimates import (
    NORMAL_95,
    Estimate,
    Floats,
    p_from_t,
    paired_columns,
    quantile_normal,
    quantile_t,
    standard_deviation_interval,
)
from corelab.measurement.selection import NotComputable

Pair = tuple[float, float]


@dataclass(frozen=True)
class BlandAltman:
    """Bias and limits of agreement of ``a - b``.

    Attributes
    ----------
    n, bias, sd
        Pairs; mean and SD of the differences.
    loa_lower, loa_upper
        bias -/+ 1.96 SD.
    bias_ci, loa_lower_ci, loa_upper_ci
        Confidence limits.
    bias_p_value
        Paired t test of bias = 0.
    slope, slope_ci, slope_p_value
        Proportional bias: regression of the difference on the mean of both.
    scale
        ``raw``; ``percent`` (differences in % of the mean); ``log`` (ratios a / b, antilogged).
    """

    n: int
    bias: float
    sd: float
    loa_lower: float
    loa_upper: float
    bias_ci: Pair
    loa_lower_ci: Pair
    loa_upper_ci: Pair
    bias_p_value: float
    slope: float
    slope_ci: Pair
    slope_p_value: float
    scale: str = "raw"
    ci_level: float = 0.95
    method: str = ""


def bland_altman(
    a: ArrayLike,
    b: ArrayLike,
    *,
    scale: str = "raw",
    multiplier: float = NORMAL_95,
    limits_ci: str = "approximate",
    alpha: float = 0.05,
) -> BlandAltman:
    """Bland-Altman analysis of one pair of readings per target, difference = a - b.

    Parameters
    ----------
    a, b
        One value per target; pairs with a missing half are left out.
    scale
        ``raw``, ``percent`` (100 (a - b) / mean of both) or ``log`` (results are ratios a / b).
    multiplier
        1.96 (the 1986 paper used 2).
    limits_ci
        ``approximate``: t times SD sqrt(1/n + 1.96^2 / (2 (n - 1))), Bland and Altman 1999;
        ``exact``: non-central t, Carkeet 2015 (Optom Vis Sci 92:e71), better below 30 pairs.
    alpha
        1 - confidence level.

    Raises
    ------
    NotComputable
        Fewer than 3 pairs; log or percent scale where values are not all positive.

    Examples
    --------
    >>> result = bland_altman([1.0, 2.0, 3.0, 4.0], [1.5, 2.0, 2.0, 4.5])
    >>> round(result.bias, 3), round(result.loa_lower, 3), round(result.loa_upper, 3)
    (0.0, -1.386, 1.386)
    """
    x, y = paired_columns(a, b, at_least=3)
    middle = (x + y) / 2.0
    if scale == "percent":
        if (middle <= 0).any():
            raise NotComputable("percent scale needs positive means of both readings")
        difference = 100.0 * (x - y) / middle
    elif scale == "log":
        if (x <= 0).any() or (y <= 0).any():
            raise NotComputable("log scale needs positive values")
        difference, middle = np.log(x / y), (np.log(x) + np.log(y)) / 2.0
    elif scale == "raw":
        difference = x - y
    else:
        raise ValueError(f"unknown scale '{scale}': raw, percent or log")
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    t = quantile_t(n - 1, alpha)
    bias_ci = (bias - t * sd / np.sqrt(n), bias + t * sd / np.sqrt(n))
    inner, outer = _limit_distances(n, multiplier, limits_ci, alpha)
    lower, upper = bias - multiplier * sd, bias + multiplier * sd
    lower_ci = (bias - outer * sd, bias - inner * sd)
    upper_ci = (bias + inner * sd, bias + outer * sd)
    slope = regression_slope(middle, difference, alpha=alpha)
    p_bias = p_from_t(bias / (sd / np.sqrt(n)), n - 1) if sd > 0 else float(bias == 0)
    values = [(bias, bias), (lower, upper), bias_ci, lower_ci, upper_ci]
    if scale == "log":
        values = [(float(np.exp(u)), float(np.exp(v))) for u, v in values]
    return BlandAltman(
        n=n,
        bias=values[0][0],
        sd=sd,
        loa_lower=values[1][0],
        loa_upper=values[1][1],
        bias_ci=_floats(values[2]),
        loa_lower_ci=_floats(values[3]),
        loa_upper_ci=_floats(values[4]),
        bias_p_value=p_bias,
        slope=slope.estimate,
        slope_ci=(slope.ci_low, slope.ci_high),
        slope_p_value=slope.p_value,
        scale=scale,
        ci_level=1.0 - alpha,
        method=f"{scale} scale, {multiplier:g} SD; t interval of bias, {limits_ci} of limits",
    )


def _floats(pair: tuple[float, float]) -> Pair:
    return float(pair[0]), float(pair[1])


def _limit_distances(n: int, multiplier: float, kind: str, alpha: float) -> Pair:
    """Distances from the bias, in SDs, of the two confidence limits of a limit of agreement."""
    if kind == "approximate":
        half = quantile_t(n - 1, alpha) * np.sqrt(1.0 / n + multiplier**2 / (2.0 * (n - 1)))
        return float(multiplier - half), float(multiplier + half)
    if kind == "exact":
        centre = multiplier * np.sqrt(n)
        inner = special.nctdtrit(n - 1, centre, alpha / 2.0) / np.sqrt(n)
        outer = special.nctdtrit(n - 1, centre, 1.0 - alpha / 2.0) / np.sqrt(n)
        return float(inner), float(outer)
    raise ValueError(f"unknown interval '{kind}' of the limits: approximate or exact")


def regression_slope(x: ArrayLike, y: ArrayLike, *, alpha: float = 0.05) -> Estimate:
    """Least-squares slope of y on x with t interval and test of slope = 0.

    Examples
    --------
    >>> slope = regression_slope([1, 2, 3, 4], [2, 4, 6, 9])
    >>> round(slope.estimate, 2), round(slope.p_value, 4)
    (2.3, 0.0056)
    """
    u, v = paired_columns(x, y, at_least=3)
    n = u.size
    sxx = float(np.sum((u - u.mean()) ** 2))
    if sxx == 0:
        return Estimate(np.nan, n=n, note="not defined: x does not vary")
    slope = float(np.sum((u - u.mean()) * (v - v.mean())) / sxx)
    residual = v - v.mean() - slope * (u - u.mean())
    se = float(np.sqrt(np.sum(residual**2) / (n - 2) / sxx))
    t = quantile_t(n - 2, alpha)
    p_value = p_from_t(slope / se, n - 2) if se > 0 else float(slope == 0)
    return Estimate(slope, slope - t * se, slope + t * se, p_value, n, "least squares, t", se=se)


@dataclass(frozen=True)
class ReplicatedLimits:
    """Bias and limits of agreement for single readings from replicated data."""

    n: int
    bias: float
    sd: float
    loa_lower: float
    loa_upper: float
    bias_ci: Pair
    loa_lower_ci: Pair
    loa_upper_ci: Pair
    within_sd_a: float
    within_sd_b: float
    method: str


def bland_altman_replicated(
    a: ArrayLike, b: ArrayLike, *, linked: bool = False, alpha: float = 0.05
) -> ReplicatedLimits:
    """Limits of agreement of single readings from replicated readings of each target.

    Not linked (the true value stays the same over the replicates): variance of the differences of
    means, plus (1 - 1/m) times the within-target variance of each method; numbers of replicates may
    differ (harmonic means), Bland and Altman 1999, sections 5.1 and 5.2. Linked (replicate i of a
    belongs to replicate i of b, the true value varies): one-way analysis of variance of the paired
    differences, Bland and Altman 2007 (J Biopharm Stat 17:571). Intervals of the limits: MOVER,
    Zou 2013 (Stat Methods Med Res 22:630).

    Parameters
    ----------
    a, b
        (n targets, replicates), NaN where there is none.
    linked
        Whether replicate i of ``a`` belongs to replicate i of ``b``.
    alpha
        1 - confidence level.

    Examples
    --------
    >>> a = [[10.0, 11.0], [14.0, 13.0], [20.0, 22.0], [31.0, 30.0]]
    >>> b = [[11.0, 11.0], [13.0, 12.0], [22.0, 21.0], [29.0, 30.0]]
    >>> result = bland_altman_replicated(a, b)
    >>> round(result.bias, 3), round(result.sd, 3)
    (0.25, 1.173)
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError("two tables (targets, replicates) with the same targets are needed")
    if linked:
        return _linked_limits(x, y, alpha)
    both = (~np.isnan(x)).any(axis=1) & (~np.isnan(y)).any(axis=1)
    x, y = x[both], y[both]
    n = len(x)
    if n < 3:
        raise NotComputable(f"{n} targets read by both, at least 3 are needed")
    difference = np.nanmean(x, axis=1) - np.nanmean(y, axis=1)
    bias, between = float(difference.mean()), float(difference.var(ddof=1))
    parts = [(between, n - 1.0, 1.0)]
    within = []
    for table in (x, y):
        counts = (~np.isnan(table)).sum(axis=1)
        df = float(np.sum(counts - 1))
        if df < 1:
            raise NotComputable("no replicated readings: use the analysis of single readings")
        variance = float(np.nansum((table - np.nanmean(table, axis=1, keepdims=True)) ** 2) / df)
        within.append(variance)
        parts.append((variance, df, 1.0 - float(np.mean(1.0 / counts))))
    # Not sum(), which rounds differently from Python 3.12 on.
    total = math.fsum(weight * value for value, _, weight in parts)
    method = "replicates, true value constant (Bland-Altman 1999, 5.1-5.2); MOVER"
    return _mover_limits(n, bias, total, between / n, n - 1, parts, within, method, alpha)


def _linked_limits(x: Floats, y: Floats, alpha: float) -> ReplicatedLimits:
    if x.shape != y.shape:
        raise ValueError("linked replicates need tables of one shape")
    difference = x - y
    difference = difference[(~np.isnan(difference)).any(axis=1)]
    counts = (~np.isnan(difference)).sum(axis=1)
    n, total_n = len(difference), int(counts.sum())
    if n < 3 or total_n <= n:
        raise NotComputable("linked limits need 3 targets and a target with two linked pairs")
    means = np.nanmean(difference, axis=1)
    grand = float(np.nansum(difference) / total_n)
    df_within = float(total_n - n)
    within = float(np.nansum((difference - means[:, None]) ** 2) / df_within)
    between = float(np.sum(counts * (means - grand) ** 2) / (n - 1))
    size = (total_n - np.sum(counts**2) / total_n) / (n - 1)
    component = max((between - within) / size, 0.0)
    total = component + within
    # Zou's form: variance of target means plus (1 - 1/m_h) times the within variance.
    spread = float(means.var(ddof=1))
    parts = [(spread, n - 1.0, 1.0), (within, df_within, 1.0 - float(np.mean(1.0 / counts)))]
    method = "linked replicates, true value varies (Bland-Altman 2007); MOVER"
    return _mover_limits(n, grand, total, spread / n, n - 1, parts, [np.nan, np.nan], method, alpha)


def _mover_limits(
    n: int,
    bias: float,
    total: float,
    bias_variance: float,
    df: float,
    parts: list[tuple[float, float, float]],
    within: list[float],
    method: str,
    alpha: float,
) -> ReplicatedLimits:
    """Limits of agreement and their intervals by the method of variance estimates recovery."""
    centre = math.fsum(weight * value for value, _, weight in parts)
    low2 = high2 = 0.0
    for value, freedom, weight in parts:
        low, high = (v**2 for v in standard_deviation_interval(np.sqrt(value), freedom, alpha))
        low2 += (weight * (value - low)) ** 2
        high2 += (weight * (high - value)) ** 2
    variance_low = max(centre - np.sqrt(low2), 0.0)
    variance_high = centre + np.sqrt(high2)
    sd, z = np.sqrt(total), NORMAL_95
    half = float(quantile_t(df, alpha) * np.sqrt(bias_variance))
    below = np.sqrt(half**2 + (z * (sd - np.sqrt(variance_low))) ** 2)
    above = np.sqrt(half**2 + (z * (np.sqrt(variance_high) - sd)) ** 2)
    lower, upper = bias - z * sd, bias + z * sd
    return ReplicatedLimits(
        n=n,
        bias=bias,
        sd=float(sd),
        loa_lower=float(lower),
        loa_upper=float(upper),
        bias_ci=(bias - half, bias + half),
        loa_lower_ci=(float(lower - above), float(lower + below)),
        loa_upper_ci=(float(upper - below), float(upper + above)),
        within_sd_a=float(np.sqrt(within[0])),
        within_sd_b=float(np.sqrt(within[1])),
        method=method,
    )


def concordance_correlation(a: ArrayLike, b: ArrayLike, *, alpha: float = 0.05) -> Estimate:
    """Lin's concordance correlation coefficient of two readers, Fisher-z interval.

    Lin 1989 (Biometrics 45:255) with the corrected variance of 2000 (56:324); moments divide by n.

    Examples
    --------
    >>> result = concordance_correlation([1, 2, 3, 4, 5], [1.1, 2.3, 2.9, 4.2, 5.1])
    >>> round(result.estimate, 4)
    0.992
    """
    x, y = paired_columns(a, b, at_least=3)
    n = x.size
    dx, dy = x - x.mean(), y - y.mean()
    vx, vy, cxy = float(np.mean(dx**2)), float(np.mean(dy**2)), float(np.mean(dx * dy))
    shift = float(x.mean() - y.mean())
    if vx + vy + shift**2 == 0:
        raise NotComputable("no variance: all values are equal")
    ccc = 2.0 * cxy / (vx + vy + shift**2)
    method = "Lin 1989, variance of Lin 2000, Fisher z"
    if vx == 0 or vy == 0 or cxy == 0:
        return Estimate(
            ccc,
            n=n,
            method=method,
            note="interval not defined: one reader is constant"
            if vx * vy == 0
            else "interval not defined: no correlation",
        )
    r = cxy / np.sqrt(vx * vy)
    if ccc >= 1.0 - 1e-15:
        return Estimate(1.0, 1.0, 1.0, 0.0, n, method, "perfect agreement: limits by continuity")
    if ccc <= -1.0 + 1e-15:
        return Estimate(-1.0, n=n, method=method, note="interval not defined: limit of scale")
    u2 = shift**2 / np.sqrt(vx * vy)
    variance = (
        (1.0 - r**2) * ccc**2 * (1.0 - ccc**2) / r**2
        + 2.0 * ccc**3 * (1.0 - ccc) * u2 / r
        - 0.5 * ccc**4 * u2**2 / r**2
    ) / (n - 2)
    se_z = np.sqrt(max(variance, 0.0)) / (1.0 - ccc**2)
    z, half = np.arctanh(ccc), quantile_normal(alpha) * se_z
    p_value = float(2.0 * special.ndtr(-abs(z) / se_z)) if se_z > 0 else 0.0
    return Estimate(
        float(ccc),
        float(np.tanh(z - half)),
        float(np.tanh(z + half)),
        p_value,
        n,
        method,
        se=float(np.sqrt(max(variance, 0.0))),
    )


def bias_correction_factor(a: ArrayLike, b: ArrayLike) -> float:
    """Lin's C_b: how far the best-fit line departs from the identity (CCC = r C_b).

    Examples
    --------
    >>> round(bias_correction_factor([1, 2, 3], [2, 3, 4]), 3)
    0.571
    """
    x, y = paired_columns(a, b, at_least=3)
    sx, sy = float(x.std()), float(y.std())
    return 2.0 * sx * sy / (sx**2 + sy**2 + float(x.mean() - y.mean()) ** 2)


def overall_concordance(ratings: ArrayLike, *, alpha: float = 0.05) -> Estimate:
    """Overall concordance correlation of two or more readers (Barnhart 2002, Biometrics 58:1020).

    Equals Lin's coefficient (moments over n) for two readers. Interval: jackknife over targets on
    Fisher's z with t quantiles.

    Examples
    --------
    >>> table = [[1, 1.1, 1.2], [2, 2.3, 2.1], [3, 2.9, 3.3], [4, 4.2, 4.1], [5, 5.1, 4.8]]
    >>> round(overall_concordance(table).estimate, 4)
    0.9884
    """
    values = np.asarray(ratings, dtype=np.float64)
    values = values[~np.isnan(values).any(axis=1)]
    n, k = values.shape
    if n < 3 or k < 2:
        raise NotComputable(f"{n} complete targets and {k} readers: 3 and 2 are needed")

    def coefficient(weights: Floats) -> Floats:
        w = weights / weights.sum(axis=-1, keepdims=True)
        mean = w @ values
        second = np.einsum("bi,ij,il->bjl", w, values, values)
        cov = second - mean[:, :, None] * mean[:, None, :]
        trace = np.einsum("bjj->b", cov)
        shared = cov.sum(axis=(1, 2)) - trace
        gap = k * np.sum(mean**2, axis=1) - np.sum(mean, axis=1) ** 2
        bottom = (k - 1.0) * trace + gap
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(bottom > 0, shared / bottom, np.nan)

    values = values - values.mean()
    estimate = float(coefficient(np.ones((1, n)))[0])
    if not np.isfinite(estimate):
        raise NotComputable("no variance: all values are equal")
    method = "Barnhart 2002 overall CCC; jackknife, Fisher z, t"
    left_out = coefficient(1.0 - np.eye(n))
    if estimate >= 1.0 - 1e-12 or not (np.abs(left_out) < 1.0).all():
        return Estimate(estimate, n=n, method=method, note="interval not defined: limit of scale")
    z, z_out = np.arctanh(estimate), np.arctanh(left_out)
    pseudo = n * z - (n - 1) * z_out
    half = quantile_t(n - 1, alpha) * pseudo.std(ddof=1) / np.sqrt(n)
    return Estimate(
        estimate,
        float(np.tanh(z - half)),
        float(np.tanh(z + half)),
        n=n,
        method=method,
    )


@dataclass(frozen=True)
class Line:
    """Slope and intercept of a method comparison, y = intercept + slope * x."""

    slope: Estimate
    intercept: Estimate


def deming(x: ArrayLike, y: ArrayLike, *, variance_ratio: float = 1.0, alpha: float = 0.05) -> Line:
    """Deming regression: errors in both methods, jackknife intervals (Linnet 1993).

    Parameters
    ----------
    x, y
        One value per target of each method.
    variance_ratio
        Error variance of y over that of x.
    alpha
        1 - confidence level.

    Examples
    --------
    >>> line = deming([7, 8.3, 10.5, 9, 5.1, 8.2, 10.2, 10.3, 7.1, 5.9],
    ...               [7.9, 8.2, 9.6, 9, 6.5, 7.3, 10.2, 10.6, 6.3, 5.2], variance_ratio=0.25)
    >>> round(line.slope.estimate, 4), round(line.intercept.estimate, 4)
    (1.0012, -0.0897)
    """
    u, v = paired_columns(x, y, at_least=4)
    n = u.size

    def fit(weights: Floats) -> tuple[Floats, Floats]:
        total = weights.sum(axis=1)
        mu, mv = weights @ u / total, weights @ v / total
        suu = weights @ u**2 / total - mu**2
        svv = weights @ v**2 / total - mv**2
        suv = weights @ (u * v) / total - mu * mv
        gap = svv - variance_ratio * suu
        # Without covariance a line has no slope: left out, such a target takes the interval along.
        suv = np.where(np.abs(suv) <= 1e-12 * np.sqrt(np.maximum(suu * svv, 0.0)), np.nan, suv)
        slope = (gap + np.sqrt(gap**2 + 4.0 * variance_ratio * suv**2)) / (2.0 * suv)
        return slope, mv - slope * mu

    centre_u, centre_v = u.mean(), v.mean()
    u, v = u - centre_u, v - centre_v
    slope, intercept = fit(np.ones((1, n)))
    if not np.isfinite(slope[0]):
        raise NotComputable("no covariance between the two methods")
    slope_out, intercept_out = fit(1.0 - np.eye(n))
    shift = centre_v - slope * centre_u
    intercept, intercept_out = intercept + shift, intercept_out + centre_v - slope_out * centre_u
    estimates = []
    for value, left_out, null in ((slope, slope_out, 1.0), (intercept, intercept_out, 0.0)):
        pseudo = n * value - (n - 1) * left_out
        se = float(pseudo.std(ddof=1) / np.sqrt(n))
        half = quantile_t(n - 2, alpha) * se
        centre = float(value[0])
        p_value = p_from_t((centre - null) / se, n - 2) if se > 0 else float(centre == null)
        estimates.append(
            Estimate(
                centre,
                centre - half,
                centre + half,
                p_value,
                n,
                f"Deming, variance ratio {variance_ratio:g}; jackknife; p against {null:g}",
                "" if np.isfinite(se) else "interval not defined: it hangs on one target",
                se,
            )
        )
    return Line(*estimates)


def passing_bablok(x: ArrayLike, y: ArrayLike, *, alpha: float = 0.05) -> Line:
    """Passing-Bablok regression (1983, J Clin Chem Clin Biochem 21:709), rank intervals.

    Slopes of exactly -1 and pairs with equal x and y are left out; equal x give infinite slopes.

    Examples
    --------
    >>> line = passing_bablok([1, 2, 3, 4, 5, 6, 7], [1.2, 2.1, 3.3, 3.9, 5.4, 6.2, 7.1])
    >>> round(line.slope.estimate, 4), round(line.intercept.estimate, 4)
    (1.0, 0.2)
    """
    u, v = paired_columns(x, y, at_least=4)
    n = u.size
    i, j = np.triu_indices(n, 1)
    dx, dy = u[j] - u[i], v[j] - v[i]
    keep = ~((dx == 0) & (dy == 0))
    with np.errstate(divide="ignore"):
        slopes = np.sort(dy[keep] / dx[keep])
    slopes = slopes[slopes != -1.0]
    offset = int(np.sum(slopes < -1.0))
    m = slopes.size
    if m < 2 or offset + m // 2 >= m:
        raise NotComputable("no positive relation between the two methods")

    def ranked(position: int) -> float:
        return float(slopes[min(max(position - 1, 0), m - 1)])

    if m % 2:
        slope = ranked((m + 1) // 2 + offset)
    else:
        two = ranked(m // 2 + offset), ranked(m // 2 + 1 + offset)
        slope = 0.5 * (two[0] + two[1]) if np.isfinite(two).all() else np.inf
    spread = quantile_normal(alpha) * np.sqrt(n * (n - 1) * (2 * n + 5) / 18.0)
    if not np.isfinite(slope):
        raise NotComputable("the median slope is infinite: too many equal values")
    first = int(np.round((m - spread) / 2.0))
    low, high = ranked(first + offset), ranked(m - first + 1 + offset)
    method = "Passing-Bablok 1983; rank interval"
    intercept = float(np.median(v - slope * u))
    if not (np.isfinite(low) and np.isfinite(high)):
        note = "interval not defined: too many equal values"
        return Line(
            Estimate(slope, n=n, method=method, note=note),
            Estimate(intercept, n=n, method=method, note=note),
        )
    limits = float(np.median(v - high * u)), float(np.median(v - low * u))
    return Line(
        Estimate(slope, low, high, n=n, method=method),
        Estimate(intercept, *limits, n=n, method=method),
    )


def total_deviation_index(
    a: ArrayLike, b: ArrayLike, *, coverage: float = 0.90, alpha: float = 0.05
) -> Estimate:
    """Total deviation index: ``coverage`` of |a - b| lies below it, normal differences.

    Solves Phi((k - bias) / SD) - Phi((-k - bias) / SD) = coverage (Lin 2000, Stat Med 19:255,
    without its chi-square approximation). Interval: delta method on the log scale, t quantiles.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> tdi = total_deviation_index(rng.normal(size=4000), np.zeros(4000))
    >>> round(tdi.estimate, 2)
    1.65
    """
    x, y = paired_columns(a, b, at_least=3)
    difference = x - y
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    if sd == 0:
        return Estimate(abs(bias), n=n, method="total deviation index", note="differences constant")

    def solve(mean: float, spread: float) -> float:
        low, high = 0.0, abs(mean) + 12.0 * spread
        for _ in range(200):
            middle = 0.5 * (low + high)
            inside = special.ndtr((middle - mean) / spread) - special.ndtr(
                (-middle - mean) / spread
            )
            low, high = (middle, high) if inside < coverage else (low, middle)
        return 0.5 * (low + high)

    estimate = solve(bias, sd)
    step = 1e-5 * sd
    by_mean = (solve(bias + step, sd) - solve(bias - step, sd)) / (2.0 * step)
    by_sd = (solve(bias, sd + step) - solve(bias, sd - step)) / (2.0 * step)
    se = float(np.sqrt(by_mean**2 * sd**2 / n + by_sd**2 * sd**2 / (2.0 * (n - 1))))
    factor = np.exp(quantile_t(n - 1, alpha) * se / estimate)
    return Estimate(
        estimate,
        float(estimate / factor),
        float(estimate * factor),
        n=n,
        method=f"total deviation index, {100 * coverage:g} %, normal; delta method on log",
        se=se,
    )
