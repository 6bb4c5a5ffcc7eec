"""Two methods against each other: Bland-Altman, concordance, Deming, Passing-Bablok, deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from corelab.agreement import clusters as groups_of
from corelab.agreement import icc
from corelab.agreement.clusters import Codes
from corelab.agreement.estimates import (
    NORMAL_95,
    Floats,
    p_from_normal,
    p_from_t,
    paired_columns,
    quantile_normal,
    quantile_t,
    standard_deviation_interval,
    t_estimate,
)
from corelab.measurement.selection import NotComputable
from corelab.terms.results import Estimate

Pair = tuple[float, float]


@dataclass(frozen=True)
class BlandAltman:
    """Bias and limits of agreement (bias -/+ 1.96 SD) of ``a - b`` of ``n`` pairs.

    ``sd`` is that of the differences (of single readings from replicated ones); ``bias_variance``
    and ``df`` are those of the interval of the bias, ``bias_p_value`` the paired t test of bias =
    0. ``slope`` is the proportional bias: regression of the difference on the mean of both.
    ``scale``: ``raw``; ``percent`` (differences in % of the mean); ``log`` (ratios a / b,
    antilogged).
    """

    n: int
    bias: float
    sd: float
    loa_lower: float
    loa_upper: float
    bias_ci: Pair
    loa_lower_ci: Pair
    loa_upper_ci: Pair
    method: str = ""
    bias_variance: float = np.nan
    df: float = np.nan
    bias_p_value: float = np.nan
    slope: Estimate | None = None
    scale: str = "raw"
    n_clusters: int = 0

    def estimates(self) -> tuple[Estimate, Estimate, Estimate]:
        """Bias, lower and upper limit."""
        n, method = self.n, self.method
        return (
            Estimate(self.bias, *self.bias_ci, self.bias_p_value, n, method),
            Estimate(self.loa_lower, *self.loa_lower_ci, n=n, method=method),
            Estimate(self.loa_upper, *self.loa_upper_ci, n=n, method=method),
        )

    def antilog(self) -> BlandAltman:
        """Ratios, from differences of logarithms."""
        ratios: dict[str, Any] = {}
        for name in ("bias", "loa_lower", "loa_upper"):
            low, high = getattr(self, f"{name}_ci")
            ratios[name] = float(np.exp(getattr(self, name)))
            ratios[f"{name}_ci"] = float(np.exp(low)), float(np.exp(high))
        return replace(self, **ratios)


#: Below this many pairs the plan takes exact intervals of the limits of agreement.
EXACT_BELOW = 100


def _difference_of(x: Floats, y: Floats, scale: str) -> tuple[Floats, Floats]:
    """Differences of complete pairs on a scale, and the means of both.

    ``raw``, ``percent`` (100 (x - y) / mean of both) or ``log`` (log of x / y); NotComputable for
    values that are not positive on the last two.
    """
    middle = (x + y) / 2.0
    if scale == "percent":
        if (middle <= 0).any():
            raise NotComputable("percent scale needs positive means of both readings")
        return 100.0 * (x - y) / middle, middle
    if scale == "log":
        if (x <= 0).any() or (y <= 0).any():
            raise NotComputable("log scale needs positive values")
        return np.log(x / y), (np.log(x) + np.log(y)) / 2.0
    if scale == "raw":
        return x - y, middle
    raise ValueError(f"unknown scale '{scale}': raw, percent or log")


def bland_altman(
    a: ArrayLike,
    b: ArrayLike,
    *,
    scale: str = "raw",
    multiplier: float = NORMAL_95,
    limits_ci: str = "approximate",
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> BlandAltman:
    """Bland-Altman analysis of one pair of readings per target, difference = a - b.

    Several targets of one cluster (visits of a participant): the bias is the mean of the clusters'
    means, the SD that of a single difference, and the intervals are those of Zou 2013 (Stat Methods
    Med Res 22:630): t over clusters for the bias, MOVER for the limits.

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
        ``exact``: non-central t, Carkeet 2015 (Optom Vis Sci 92:e71);
        ``auto``: exact below 100 pairs, approximate from there on. Not used with clusters.
    alpha, clusters
        As everywhere in :mod:`corelab.agreement`.

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
    x, y, codes = groups_of.paired(a, b, clusters)
    difference, middle = _difference_of(x, y, scale)
    if limits_ci == "auto":
        limits_ci = "exact" if difference.size < EXACT_BELOW else "approximate"
    if codes is None:
        found = _independent_limits(difference, multiplier, limits_ci, alpha)
        text = f"{scale} scale, {multiplier:.4g} SD; t interval of bias, {limits_ci} of limits"
    else:
        found = _clustered_limits(difference, codes, multiplier, alpha)
        text = f"{scale} scale, {multiplier:.4g} SD; {found.method}"
    spread = found.bias_variance
    found = replace(
        found,
        bias_p_value=p_from_t(found.bias / np.sqrt(spread), found.df)
        if spread > 0
        else float(found.bias == 0),
        slope=regression_slope(middle, difference, alpha=alpha, clusters=codes),
        scale=scale,
        method=text,
        n_clusters=groups_of.number_of(codes, difference.size),
    )
    return found.antilog() if scale == "log" else found


def _independent_limits(
    difference: Floats, multiplier: float, limits_ci: str, alpha: float
) -> BlandAltman:
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    inner, outer = _limit_distances(n, multiplier, limits_ci, alpha)
    half = quantile_t(n - 1, alpha) * sd / np.sqrt(n)
    return BlandAltman(
        *(n, bias, sd, bias - multiplier * sd, bias + multiplier * sd),
        bias_ci=(bias - half, bias + half),
        loa_lower_ci=(bias - outer * sd, bias - inner * sd),
        loa_upper_ci=(bias + inner * sd, bias + outer * sd),
        bias_variance=sd**2 / n,
        df=n - 1.0,
    )


def _clustered_limits(
    difference: Floats, codes: Codes, multiplier: float, alpha: float
) -> BlandAltman:
    a = groups_of.enough_clusters(codes)
    bias, spread, parts = between(difference, codes)
    method = (
        f"mean of {a} clusters, t; limits of a single difference, MOVER over clusters (Zou 2013)"
    )
    return _mover_limits(difference.size, bias, spread, parts, method, alpha, multiplier)


def between(
    means: Floats, codes: Codes | None
) -> tuple[float, float, list[tuple[float, float, float]]]:
    """Bias, its variance, and the parts (variance, df, weight) of the variance between targets.

    Examples
    --------
    >>> between(np.array([1.0, 2.0, 6.0]), None)[2]
    [(7.0, 2.0, 1.0)]
    """
    n = means.size
    if codes is None:
        variance = float(means.var(ddof=1))
        return float(means.mean()), variance / n, [(variance, n - 1.0, 1.0)]
    counts = np.bincount(codes).astype(np.float64)
    a = counts.size
    own = groups_of.sums(means, codes) / counts
    variance = float(own.var(ddof=1))
    inside = float(np.sum((means - own[codes]) ** 2) / (n - a))
    parts = [(variance, a - 1.0, 1.0), (inside, float(n - a), 1.0 - float(np.mean(1.0 / counts)))]
    return float(own.mean()), variance / a, parts


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


def regression_slope(
    x: ArrayLike, y: ArrayLike, *, alpha: float = 0.05, clusters: ArrayLike | None = None
) -> Estimate:
    """Least-squares slope of y on x with t interval and test of slope = 0.

    With clusters the interval and p are those of a jackknife over clusters.

    Examples
    --------
    >>> slope = regression_slope([1, 2, 3, 4], [2, 4, 6, 9])
    >>> round(slope.estimate, 2), round(slope.p_value, 4)
    (2.3, 0.0056)
    """
    u, v, codes = groups_of.paired(x, y, clusters)
    n = u.size
    sxx = float(np.sum((u - u.mean()) ** 2))
    # Rounding of the mean leaves a trace of variance where all values are equal.
    if np.ptp(u) == 0:
        return Estimate(np.nan, n=n, note="not defined: x does not vary")
    slope = float(np.sum((u - u.mean()) * (v - v.mean())) / sxx)
    if codes is not None:
        left_out = groups_of.jackknife(lambda kept: _slope(u[kept], v[kept]), n, codes)
        return groups_of.jackknife_estimate(
            *(slope, left_out),
            alpha=alpha, codes=codes, scale="raw", n=n, method="least squares", null=0.0,
        )  # fmt: skip
    residual = v - v.mean() - slope * (u - u.mean())
    se = float(np.sqrt(np.sum(residual**2) / (n - 2) / sxx))
    return t_estimate(slope, se, n - 2, alpha, n=n, method="least squares, t")


def _slope(u: Floats, v: Floats) -> float:
    centred = u - u.mean()
    sxx = float(np.sum(centred**2))
    return float(np.sum(centred * v)) / sxx if np.ptp(u) > 0 else np.nan


def bland_altman_replicated(
    a: ArrayLike,
    b: ArrayLike,
    *,
    linked: bool = False,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
    multiplier: float = NORMAL_95,
) -> BlandAltman:
    """Limits of agreement of single readings from (n targets, replicates), NaN where there is none.

    Not linked (the true value stays the same over the replicates): variance of the differences of
    means, plus (1 - 1/m) times the within-target variance of each method; numbers of replicates may
    differ (harmonic means), Bland and Altman 1999, sections 5.1 and 5.2. ``linked`` (replicate i of
    a belongs to replicate i of b, the true value varies): mean of the targets' mean differences,
    and their variance plus (1 - 1/m) times the variance of differences within targets. Every target
    weighs alike. Intervals of the limits: MOVER. All after Zou 2013 (Stat Methods Med Res 22:630).
    Clusters (visits of a participant) are one level more.

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
    codes = groups_of.codes_of(clusters, len(x))
    if linked:
        return _linked_limits(x, y, codes, alpha, multiplier)
    both = (~np.isnan(x)).any(axis=1) & (~np.isnan(y)).any(axis=1)
    x, y, codes = x[both], y[both], groups_of.subset(codes, both)
    n = len(x)
    _enough(n, codes)
    bias, spread, parts = between(np.nanmean(x, axis=1) - np.nanmean(y, axis=1), codes)
    for table in (x, y):
        counts = (~np.isnan(table)).sum(axis=1)
        freedom = float(np.sum(counts - 1))
        if freedom < 1:
            raise NotComputable("no replicated readings: use the analysis of single readings")
        squares = np.nansum((table - np.nanmean(table, axis=1, keepdims=True)) ** 2)
        variance = float(squares / freedom)
        parts.append((variance, freedom, 1.0 - float(np.mean(1.0 / counts))))
    method = "replicates, true value constant (Bland-Altman 1999, 5.1-5.2); MOVER (Zou 2013)"
    return _mover_limits(n, bias, spread, parts, method + _over(codes), alpha, multiplier)


def _enough(n: int, codes: Codes | None) -> None:
    if n < 3:
        raise NotComputable(f"{n} targets read by both, at least 3 are needed")
    if codes is not None:
        groups_of.enough_clusters(codes)


def _over(codes: Codes | None) -> str:
    return "" if codes is None else f" over {int(codes.max()) + 1} clusters"


def _linked_limits(
    x: Floats, y: Floats, codes: Codes | None, alpha: float, multiplier: float
) -> BlandAltman:
    if x.shape != y.shape:
        raise ValueError("linked replicates need tables of one shape")
    difference = x - y
    used = (~np.isnan(difference)).any(axis=1)
    difference, codes = difference[used], groups_of.subset(codes, used)
    counts = (~np.isnan(difference)).sum(axis=1)
    n, total_n = len(difference), int(counts.sum())
    if n < 3 or total_n <= n:
        raise NotComputable("linked limits need 3 targets and a target with two linked pairs")
    _enough(n, codes)
    means = np.nanmean(difference, axis=1)
    df_within = float(total_n - n)
    within = float(np.nansum((difference - means[:, None]) ** 2) / df_within)
    bias, spread, parts = between(means, codes)
    parts.append((within, df_within, 1.0 - float(np.mean(1.0 / counts))))
    method = "linked replicates, true value varies, targets weigh alike; MOVER (Zou 2013)"
    return _mover_limits(n, bias, spread, parts, method + _over(codes), alpha, multiplier)


def _mover_limits(
    n: int,
    bias: float,
    bias_variance: float,
    parts: list[tuple[float, float, float]],
    method: str,
    alpha: float,
    multiplier: float,
) -> BlandAltman:
    """Limits of agreement and their intervals by the method of variance estimates recovery.

    ``parts`` are (variance, df, weight); those of the first are the df of the bias.
    """
    # Not sum(), which rounds differently from Python 3.12 on.
    centre, df = math.fsum(weight * value for value, _, weight in parts), parts[0][1]
    low2 = high2 = 0.0
    for value, freedom, weight in parts:
        if value == 0 or freedom <= 0:
            continue
        low, high = (v**2 for v in standard_deviation_interval(np.sqrt(value), freedom, alpha))
        low2 += (weight * (value - low)) ** 2
        high2 += (weight * (high - value)) ** 2
    variance_low = max(centre - np.sqrt(low2), 0.0)
    variance_high = centre + np.sqrt(high2)
    sd, z = np.sqrt(centre), multiplier
    half = float(quantile_t(df, alpha) * np.sqrt(bias_variance))
    below = np.sqrt(half**2 + (z * (sd - np.sqrt(variance_low))) ** 2)
    above = np.sqrt(half**2 + (z * (np.sqrt(variance_high) - sd)) ** 2)
    lower, upper = bias - z * sd, bias + z * sd
    return BlandAltman(
        *(n, bias, float(sd), float(lower), float(upper)),
        bias_ci=(bias - half, bias + half),
        loa_lower_ci=(float(lower - above), float(lower + below)),
        loa_upper_ci=(float(upper - below), float(upper + above)),
        method=method,
        bias_variance=float(bias_variance),
        df=float(df),
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
        why = "one reader is constant" if vx * vy == 0 else "no correlation"
        return Estimate(ccc, n=n, method=method, note=f"interval not defined: {why}")
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
    se = float(np.sqrt(max(variance, 0.0)))
    se_z = se / (1.0 - ccc**2)
    z, half = np.arctanh(ccc), quantile_normal(alpha) * se_z
    p_value = p_from_normal(z / se_z) if se_z > 0 else 0.0
    low, high = float(np.tanh(z - half)), float(np.tanh(z + half))
    return Estimate(float(ccc), low, high, p_value, n, method, se=se)


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

    values = values - values.mean()
    products = values[:, :, None] * values[:, None, :]

    def coefficient(size: Floats, first: Floats, second: Floats) -> Floats:
        mean = first / size[:, None]
        cov = second / size[:, None, None] - mean[:, :, None] * mean[:, None, :]
        trace = np.einsum("bjj->b", cov)
        shared = cov.sum(axis=(1, 2)) - trace
        gap = k * np.sum(mean**2, axis=1) - np.sum(mean, axis=1) ** 2
        bottom = (k - 1.0) * trace + gap
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(bottom > 0, shared / bottom, np.nan)

    sums = values.sum(axis=0, keepdims=True), products.sum(axis=0, keepdims=True)
    estimate = float(coefficient(np.array([float(n)]), *sums)[0])
    if not np.isfinite(estimate):
        raise NotComputable("no variance: all values are equal")
    method = "Barnhart 2002 overall CCC; jackknife, Fisher z, t"
    left_out = coefficient(np.full(n, n - 1.0), sums[0] - values, sums[1] - products)
    if estimate >= 1.0 - 1e-12 or not (np.abs(left_out) < 1.0).all():
        return Estimate(estimate, n=n, method=method, note="interval not defined: limit of scale")
    z, z_out = np.arctanh(estimate), np.arctanh(left_out)
    pseudo = n * z - (n - 1) * z_out
    half = quantile_t(n - 1, alpha) * pseudo.std(ddof=1) / np.sqrt(n)
    low, high = float(np.tanh(z - half)), float(np.tanh(z + half))
    return Estimate(estimate, low, high, n=n, method=method)


def concordance_by_components(
    ratings: ArrayLike, *, alpha: float = 0.05, clusters: ArrayLike | None = None
) -> Estimate:
    """Concordance correlation by variance components, for repeated measures and for gaps.

    Variance between targets over that plus reader bias, reader by participant and residual
    (Carrasco and Jover 2003, Biometrics 59:849; with visits Carrasco, King and Chinchilli 2009, J
    Biopharm Stat 19:90; R cccrm). Complete readings: mean squares of the model of
    :func:`corelab.agreement.icc.intraclass_correlation`, readers fixed; missing cells: REML.
    Interval: jackknife over clusters (or targets) on Fisher's z, t.

    Examples
    --------
    >>> table = [[1, 1.1], [2, 2.3], [3, 2.9], [4, 4.2], [5, 5.1], [6, 5.8]]
    >>> round(concordance_by_components(table, clusters=[1, 1, 2, 2, 3, 3]).estimate, 3)
    0.996
    """
    values, codes = icc.checked(ratings, clusters)
    n = len(values)
    if n < 3:
        raise NotComputable(f"{n} targets, at least 3 are needed")
    if np.isnan(values).any():
        two = icc.variance_components(values)
        whole = two.target + max(two.reader, 0.0) + two.residual
        left_out = icc.left_out_of_incomplete(values, codes)["ccc"]
        text = "concordance correlation by REML variance components (Carrasco 2003)"
        return groups_of.jackknife_estimate(
            two.target / whole, left_out, alpha=alpha, codes=codes, scale="fisher", n=n,
            method=text, null=0.0,
        )  # fmt: skip

    def coefficient(kept: np.ndarray) -> float:
        layout = icc.nested_layouts(values[kept], groups_of.subset(codes, kept))["icc_a_1"]
        between, error = layout.components()
        readers, residual = layout.error[0], layout.error[1]
        # The bias of readers is a sum of squares: an estimate below 0 is no bias.
        error += max(readers.weight * (residual.square - readers.square), 0.0)
        return between / (between + error) if between + error > 0 else np.nan

    text = "concordance correlation by variance components (Carrasco 2009), readers fixed"
    estimate = coefficient(np.ones(n, dtype=bool))
    left_out = groups_of.jackknife(coefficient, n, codes)
    return groups_of.jackknife_estimate(
        estimate, left_out, alpha=alpha, codes=codes, scale="fisher", n=n, method=text, null=0.0
    )


class Line(NamedTuple):
    """Slope and intercept of a method comparison, y = intercept + slope * x."""

    slope: Estimate
    intercept: Estimate


def deming(
    x: ArrayLike,
    y: ArrayLike,
    *,
    variance_ratio: float = 1.0,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> Line:
    """Deming regression: errors in both methods, jackknife intervals (Linnet 1993).

    ``variance_ratio`` is the error variance of y over that of x; the jackknife leaves out targets
    or whole clusters.

    Examples
    --------
    >>> line = deming([7, 8.3, 10.5, 9, 5.1, 8.2, 10.2, 10.3, 7.1, 5.9],
    ...               [7.9, 8.2, 9.6, 9, 6.5, 7.3, 10.2, 10.6, 6.3, 5.2], variance_ratio=0.25)
    >>> round(line.slope.estimate, 4), round(line.intercept.estimate, 4)
    (1.0012, -0.0897)
    """
    u, v, codes = groups_of.paired(x, y, clusters, at_least=4)
    n = u.size

    def fit(moments: Floats) -> tuple[Floats, Floats]:
        total, mu, mv, suu, svv, suv = moments.T
        mu, mv = mu / total, mv / total
        suu, svv, suv = suu / total - mu**2, svv / total - mv**2, suv / total - mu * mv
        gap = svv - variance_ratio * suu
        # Without covariance a line has no slope: left out, such a target takes the interval along.
        suv = np.where(np.abs(suv) <= 1e-12 * np.sqrt(np.maximum(suu * svv, 0.0)), np.nan, suv)
        slope = (gap + np.sqrt(gap**2 + 4.0 * variance_ratio * suv**2)) / (2.0 * suv)
        return slope, mv - slope * mu

    centre_u, centre_v = u.mean(), v.mean()
    u, v = u - centre_u, v - centre_v
    moments = np.column_stack([np.ones(n), u, v, u**2, v**2, u * v])
    whole = moments.sum(axis=0, keepdims=True)
    slope, intercept = fit(whole)
    if not np.isfinite(slope[0]):
        raise NotComputable("no covariance between the two methods")
    own = moments if codes is None else groups_of.sums(moments, codes)
    g = len(own)
    if g < 4:
        raise NotComputable(f"{g} clusters (key cluster), at least 4 are needed")
    slope_out, intercept_out = fit(whole - own)
    shift = centre_v - slope * centre_u
    intercept, intercept_out = intercept + shift, intercept_out + centre_v - slope_out * centre_u
    estimates = []
    for value, left_out, null in ((slope, slope_out, 1.0), (intercept, intercept_out, 0.0)):
        pseudo = g * value - (g - 1) * left_out
        se = float(pseudo.std(ddof=1) / np.sqrt(g))
        estimates.append(
            t_estimate(
                *(float(value[0]), se, g - 2, alpha),
                n=n,
                null=null,
                method=f"Deming, variance ratio {variance_ratio:g}; jackknife{_over(codes)}; "
                f"p against {null:g}",
                note="" if np.isfinite(se) else "interval not defined: it hangs on one target",
            )
        )
    return Line(*estimates)


#: More pairs than this and the ranks of slopes are found by counting, not by sorting all of them.
SORTED_UP_TO = 1500


def passing_bablok(
    x: ArrayLike, y: ArrayLike, *, alpha: float = 0.05, clusters: ArrayLike | None = None
) -> Line:
    """Passing-Bablok regression (1983, J Clin Chem Clin Biochem 21:709), rank intervals.

    Slopes of exactly -1 and pairs with equal x and y are left out; equal x give infinite slopes.
    With clusters the intervals are those of a jackknife over clusters (up to 1,500 pairs).

    Examples
    --------
    >>> line = passing_bablok([1, 2, 3, 4, 5, 6, 7], [1.2, 2.1, 3.3, 3.9, 5.4, 6.2, 7.1])
    >>> round(line.slope.estimate, 4), round(line.intercept.estimate, 4)
    (1.0, 0.2)
    """
    u, v, codes = groups_of.paired(x, y, clusters, at_least=4)
    n = u.size
    slope, limits = _shifted_median(u, v, alpha)
    if not np.isfinite(slope):
        raise NotComputable("the median slope is infinite: too many equal values")
    intercept = float(np.median(v - slope * u))
    method = "Passing-Bablok 1983; rank interval"
    if codes is not None:
        return _clustered_line(u, v, (slope, intercept), codes, alpha)
    if not np.isfinite(limits).all():
        note = "interval not defined: too many equal values"
        return Line(*(Estimate(one, n=n, method=method, note=note) for one in (slope, intercept)))
    low, high = limits
    # Where values are negative the steeper line has the larger intercept.
    one, other = float(np.median(v - high * u)), float(np.median(v - low * u))
    return Line(
        Estimate(slope, low, high, n=n, method=method),
        Estimate(intercept, min(one, other), max(one, other), n=n, method=method),
    )


def _clustered_line(
    u: Floats, v: Floats, line: tuple[float, float], codes: Codes, alpha: float
) -> Line:
    n, method = u.size, "Passing-Bablok 1983"
    if n > SORTED_UP_TO:
        note = f"interval not computed: {n} pairs in clusters"
        return Line(*(Estimate(one, n=n, method=method, note=note) for one in line))

    def parts(kept: np.ndarray) -> tuple[float, float]:
        slope, _ = _shifted_median(u[kept], v[kept], alpha)
        return slope, float(np.median(v[kept] - slope * u[kept])) if np.isfinite(slope) else np.nan

    left_out = groups_of.jackknife(parts, n, codes).T
    return Line(
        *(
            groups_of.jackknife_estimate(
                *(value, out), n=n, null=null, alpha=alpha, codes=codes, scale="raw", method=method
            )
            for value, out, null in zip(line, left_out, (1.0, 0.0), strict=True)
        )
    )


def _shifted_median(u: Floats, v: Floats, alpha: float) -> tuple[float, Pair]:
    """Passing and Bablok's shifted median of all slopes, and its rank limits."""
    n = u.size
    ranks = _AllSlopes(u, v) if n <= SORTED_UP_TO else _CountedSlopes(u, v)
    m, offset = ranks.m, ranks.below
    if m < 2 or offset + m // 2 >= m:
        raise NotComputable("no positive relation between the two methods")

    def ranked(position: int) -> float:
        return ranks.at(min(max(position - 1, 0), m - 1))

    if m % 2:
        slope = ranked((m + 1) // 2 + offset)
    else:
        two = ranked(m // 2 + offset), ranked(m // 2 + 1 + offset)
        slope = 0.5 * (two[0] + two[1]) if np.isfinite(two).all() else np.inf
    spread = quantile_normal(alpha) * np.sqrt(n * (n - 1) * (2 * n + 5) / 18.0)
    first = int(np.round((m - spread) / 2.0))
    return float(slope), (ranked(first + offset), ranked(m - first + 1 + offset))


class _AllSlopes:
    """Slopes of all pairs, sorted: ``m`` of them, ``below`` of them under -1."""

    def __init__(self, u: Floats, v: Floats) -> None:
        i, j = np.triu_indices(u.size, 1)
        dx, dy = u[j] - u[i], v[j] - v[i]
        keep = ~((dx == 0) & (dy == 0))
        with np.errstate(divide="ignore"):
            slopes = np.sort(dy[keep] / dx[keep])
        self._slopes = slopes[slopes != -1.0]
        self.m = int(self._slopes.size)
        self.below = int(np.sum(self._slopes < -1.0))

    def at(self, place: int) -> float:
        """The slope at a place, from 0."""
        return float(self._slopes[place])


class _CountedSlopes:
    """The same ranks by counting in n log n: slopes below s are discordant pairs of u and v - s u.

    Pairs with equal u have infinite slopes, half of them below all others.
    """

    def __init__(self, u: Floats, v: Floats) -> None:
        self._u, self._v = u, v
        n = u.size
        self._pairs = n * (n - 1) // 2 - _tied(u)
        # Equal u and equal v - s u mean equal v, for any slope.
        self._same = _tied(np.rec.fromarrays([u, v]))
        self._equal_u = _tied(u)
        self._vertical = self._equal_u - self._same
        equal_to, under = self._counts(-1.0)
        self._equal, self._under = equal_to, under
        self.m = self._pairs - equal_to + self._vertical
        self.below = under + self._vertical // 2

    def _counts(self, slope: float) -> tuple[int, int]:
        """How many slopes are equal to, and how many are below, a slope (infinite ones apart)."""
        from scipy import stats

        z = self._v - slope * self._u
        both, equal_u, equal_z = self._same, self._equal_u, _tied(z)
        n0 = self._u.size * (self._u.size - 1) // 2
        untied = n0 - equal_u - equal_z + both
        tau = float(stats.kendalltau(self._u, z, method="asymptotic").statistic)
        balance = round(tau * np.sqrt(float(n0 - equal_u)) * np.sqrt(float(n0 - equal_z)))
        return equal_z - both, (untied - balance) // 2

    def at(self, place: int) -> float:
        """The slope at a place, from 0, by bisection."""
        wanted = place - self._vertical // 2
        if wanted < 0:
            return -np.inf
        if wanted >= self._pairs - self._equal:
            return np.inf
        low, high = -1.0, 1.0
        while self._rank(high) <= wanted:
            high *= 4.0
        while self._rank(low) > wanted:
            low *= 4.0
        for _ in range(45):
            middle = 0.5 * (low + high)
            if self._rank(middle) > wanted:
                high = middle
            else:
                low = middle
        return 0.5 * (low + high)

    def _rank(self, slope: float) -> int:
        """Slopes up to a slope, those of exactly -1 left out."""
        equal, under = self._counts(slope)
        return under + equal - (self._equal if slope >= -1.0 else 0)


def _tied(values: np.ndarray) -> int:
    """Number of pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1].astype(np.int64)
    return int(np.sum(counts * (counts - 1) // 2))


def total_deviation_index(
    a: ArrayLike,
    b: ArrayLike,
    *,
    coverage: float = 0.90,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Total deviation index: ``coverage`` of |a - b| lies below it, normal differences.

    Solves Phi((k - bias) / SD) - Phi((-k - bias) / SD) = coverage (Lin 2000, Stat Med 19:255,
    without its chi-square approximation). Interval: delta method on the log scale, t quantiles;
    with clusters a jackknife over them, bias and SD then being those of :func:`bland_altman`.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> tdi = total_deviation_index(rng.normal(size=4000), np.zeros(4000))
    >>> round(tdi.estimate, 2)
    1.65
    """
    x, y, codes = groups_of.paired(a, b, clusters)
    difference = x - y
    n = difference.size
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    if sd == 0:
        return Estimate(abs(bias), n=n, method="total deviation index", note="differences constant")
    text = f"total deviation index, {100 * coverage:g} %, normal"

    def solve(mean: float, spread: float) -> float:
        low, high = 0.0, abs(mean) + 12.0 * spread
        for _ in range(200):
            middle = 0.5 * (low + high)
            inside = special.ndtr((middle - mean) / spread) - special.ndtr(
                (-middle - mean) / spread
            )
            low, high = (middle, high) if inside < coverage else (low, middle)
        return 0.5 * (low + high)

    if codes is not None:
        _enough(n, codes)

        def clustered(kept: np.ndarray) -> float:
            centre, _, parts = between(difference[kept], groups_of.subset(codes, kept))
            return solve(centre, math.sqrt(math.fsum(w * value for value, _, w in parts)))

        left_out = groups_of.jackknife(clustered, n, codes)
        value = clustered(np.ones(n, dtype=bool))
        return groups_of.jackknife_estimate(
            value, left_out, alpha=alpha, codes=codes, scale="log", n=n, method=text
        )
    estimate = solve(bias, sd)
    step = 1e-5 * sd
    by_mean = (solve(bias + step, sd) - solve(bias - step, sd)) / (2.0 * step)
    by_sd = (solve(bias, sd + step) - solve(bias, sd - step)) / (2.0 * step)
    se = float(np.sqrt(by_mean**2 * sd**2 / n + by_sd**2 * sd**2 / (2.0 * (n - 1))))
    factor = float(np.exp(quantile_t(n - 1, alpha) * se / estimate))
    method = f"{text}; delta method on log"
    return Estimate(estimate, estimate / factor, estimate * factor, n=n, method=method, se=se)
