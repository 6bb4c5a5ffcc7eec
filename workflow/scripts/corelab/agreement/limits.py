"""Limits of agreement where the spread is not constant or not normal, and tolerance limits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from corelab.agreement import clusters as groups_of
from corelab.agreement.clusters import Codes
from corelab.agreement.differences import between, bland_altman
from corelab.agreement.estimates import Floats, quantile_normal, quantile_t
from corelab.measurement.selection import NotComputable
from corelab.terms.results import Estimate

#: Name, place (empty: the pair itself) and estimate.
Limit = tuple[str, str, Estimate]
#: Where regression limits are shown: quartiles of the mean of both readings.
SHOWN_AT = (0.25, 0.5, 0.75)


def _regression_limits(
    a: ArrayLike,
    b: ArrayLike,
    *,
    share: float = 0.95,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> list[Limit]:
    """Limits of agreement that change with the size of what is measured.

    Bland and Altman 1999 (Stat Methods Med Res 8:135, section 3.2): least squares of the difference
    on the mean of both, and of the absolute residuals on the mean, whose line times sqrt(pi / 2) is
    the SD: intercept and slope of both, and limits at the quartiles of the mean. Jackknife, t.
    """
    x, y, codes = groups_of.paired(a, b, clusters, at_least=10)
    middle, difference, n = (x + y) / 2.0, x - y, x.size
    if np.ptp(middle) == 0:
        raise NotComputable("the means of both readings do not vary")
    places = np.quantile(middle, SHOWN_AT)
    z = quantile_normal(1.0 - share)

    def fit(kept: np.ndarray) -> Floats:
        m, d = middle[kept], difference[kept]
        design = np.column_stack([np.ones(m.size), m])
        line = np.linalg.lstsq(design, d, rcond=None)[0]
        size = np.linalg.lstsq(design, np.abs(d - design @ line), rcond=None)[0]
        size = size * np.sqrt(np.pi / 2.0)
        centre, spread = line[0] + line[1] * places, size[0] + size[1] * places
        return np.concatenate([line, size, centre - z * spread, centre + z * spread])

    whole = fit(np.ones(n, dtype=bool))
    left_out = groups_of.jackknife(fit, n, codes)
    text = "regression limits (Bland-Altman 1999, 3.2)"
    names = ["loa_bias_intercept", "loa_bias_slope", "loa_sd_intercept", "loa_sd_slope"]
    where = [""] * 4 + [f"mean={place:.4g}" for place in places] * 2
    names += ["loa_lower_regression"] * 3 + ["loa_upper_regression"] * 3
    nulls = [0.0, 0.0, None, 0.0] + [None] * 6
    negative = bool((whole[2] + whole[3] * middle).min() < 0)
    note = "the SD line falls below 0 within the data: another scale fits better" * negative

    def made(value: float, out: Floats, null: float | None) -> Estimate:
        return groups_of.jackknife_estimate(
            value, out, alpha=alpha, codes=codes, scale="raw", n=n, method=text, null=null,
            note=note,
        )  # fmt: skip

    return [
        (name, place, made(float(value), out, null))
        for name, place, value, out, null in zip(
            names, where, whole, left_out.T, nulls, strict=True
        )
    ]


def _quantile_limits(
    a: ArrayLike,
    b: ArrayLike,
    *,
    share: float = 0.95,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> list[Limit]:
    """Limits of agreement as quantiles of the differences, without a distribution.

    Interval: order statistics (binomial, Hahn and Meeker 1991); with clusters the binomial variance
    is that of the clusters' counts (Woodruff 1952).
    """
    x, y, codes = groups_of.paired(a, b, clusters)
    levels = ((1.0 - share) / 2.0, (1.0 + share) / 2.0)
    names = ("loa_lower_quantile", "loa_upper_quantile")
    return [
        (name, "", quantile(x - y, level, alpha=alpha, codes=codes))
        for name, level in zip(names, levels, strict=True)
    ]


def quantile(
    values: Floats, level: float, *, alpha: float = 0.05, codes: Codes | None = None
) -> Estimate:
    """A quantile (``level`` 0 to 1) with its distribution-free interval.

    Examples
    --------
    >>> found = quantile(np.arange(1.0, 11.0), 0.5)
    >>> found.estimate, found.ci_low, found.ci_high
    (5.5, 2.0, 9.0)
    """
    n = values.size
    ordered = np.sort(values)
    with np.errstate(invalid="ignore"):
        estimate = float(np.quantile(values, level))
    texts = f"quantile {level:g} of the differences; "
    if codes is None:
        # Largest and smallest ranks with at most alpha / 2 of the binomial outside.
        inside = special.bdtr(np.arange(n), n, level)
        low = int(np.sum(inside <= alpha / 2.0)) - 1
        high = int(np.sum(inside < 1.0 - alpha / 2.0))
        texts += "exact order-statistic interval"
    else:
        below = (values <= estimate).astype(np.float64)
        error, _ = groups_of.linear_error(below - below.mean(), codes)
        a = groups_of.enough_clusters(codes)
        half = quantile_t(a - 1, alpha) * error
        low = int(np.floor((level - half) * n)) - 1
        high = int(np.ceil((level + half) * n))
        texts += f"Woodruff's interval over {a} clusters"
    if low < 0 or high > n - 1:
        note = f"interval not defined: {n} values are too few for one of its limits"
        return Estimate(estimate, n=n, method=texts, note=note)
    return Estimate(estimate, float(ordered[low]), float(ordered[high]), n=n, method=texts)


def _tolerance_limits(
    a: ArrayLike,
    b: ArrayLike,
    *,
    share: float = 0.95,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> list[Limit]:
    """Normal tolerance limits: ``share`` of all differences lies within them, with confidence.

    Howe 1969 (J Am Stat Assoc 64:610), as R SimplyAgree and tolerance. In clusters the degrees of
    freedom are Satterthwaite's of the variance of a difference, and the number of targets that of
    the variance of the bias.
    """
    x, y, codes = groups_of.paired(a, b, clusters)
    difference, n, lost = x - y, x.size, np.size(a) - x.size
    found = bland_altman(difference, np.zeros(n), clusters=codes, alpha=alpha)
    if found.sd == 0:
        raise NotComputable("no variance: all differences are equal")
    size, df, text = float(n), n - 1.0, ""
    if codes is not None:
        _, spread, parts = between(difference, codes)
        size = found.sd**2 / spread
        df = found.sd**4 / math.fsum((weight * one) ** 2 / own for one, own, weight in parts)
        text = f" over {groups_of.number_of(codes, n)} clusters"
    z = float(special.ndtri((1.0 + share) / 2.0))
    factor = float(np.sqrt(df * (1.0 + 1.0 / size) * z**2 / special.chdtri(df, 1.0 - alpha)))
    method = (
        f"{100 * share:g} % of differences within, confidence {100 * (1 - alpha):g} %; normal, "
        f"Howe 1969, factor {factor:.4g}{text}"
    )
    note = f"{lost} pairs incomplete" * (lost > 0)
    return [
        (name, "", Estimate(found.bias + sign * factor * found.sd, n=n, method=method, note=note))
        for name, sign in (("tolerance_lower", -1.0), ("tolerance_upper", 1.0))
    ]


#: Value of the plan's ``method`` -> its statistics and how they are computed.
KINDS: dict[str, tuple[tuple[str, ...], Callable[..., list[Limit]]]] = {
    "regression": (("loa_lower_regression", "loa_upper_regression"), _regression_limits),
    "quantile": (("loa_lower_quantile", "loa_upper_quantile"), _quantile_limits),
    "tolerance": (("tolerance_lower", "tolerance_upper"), _tolerance_limits),
}
