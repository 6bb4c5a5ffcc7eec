"""The few intervals that several agreement statistics share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from corelab.measurement.selection import NotComputable
from corelab.terms.results import Estimate

Floats = NDArray[np.float64]

#: Bland and Altman's multiplier; the references of this module are printed with 1.96, not 1.959964.
NORMAL_95 = 1.96


def quantile_t(df: float, alpha: float) -> float:
    """Upper ``alpha / 2`` point of Student's t.

    Examples
    --------
    >>> round(quantile_t(16, 0.05), 4)
    2.1199
    """
    return float(special.stdtrit(df, 1.0 - alpha / 2.0))


def quantile_normal(alpha: float) -> float:
    """Upper ``alpha / 2`` point of the normal distribution.

    Examples
    --------
    >>> round(quantile_normal(0.05), 4)
    1.96
    """
    return float(special.ndtri(1.0 - alpha / 2.0))


def limits_multiplier(share: float) -> float:
    """SDs from the bias to limits that hold a share of the differences.

    Examples
    --------
    >>> limits_multiplier(0.95), round(limits_multiplier(0.9), 3)
    (1.96, 1.645)
    """
    return NORMAL_95 if share == 0.95 else quantile_normal(1.0 - share)


def p_from_t(statistic: float, df: float) -> float:
    """Two-sided p value of a t statistic.

    Examples
    --------
    >>> round(p_from_t(2.1199, 16), 3)
    0.05
    """
    return float(2.0 * special.stdtr(df, -abs(statistic)))


def p_from_normal(statistic: float) -> float:
    """Two-sided p value of a normal statistic.

    Examples
    --------
    >>> round(p_from_normal(1.96), 3)
    0.05
    """
    return float(2.0 * special.ndtr(-abs(statistic)))


def t_estimate(
    value: float,
    se: float,
    df: float,
    alpha: float,
    *,
    n: int,
    method: str,
    null: float = 0.0,
    note: str = "",
) -> Estimate:
    """Estimate with its t interval, and the test of a null value.

    Without an error (``se`` 0) p is 1 at the null value and 0 elsewhere.

    Examples
    --------
    >>> found = t_estimate(2.0, 0.5, 16, 0.05, n=17, method="mean, t")
    >>> round(found.ci_low, 3), round(found.p_value, 4)
    (0.94, 0.001)
    """
    half = quantile_t(df, alpha) * se
    p_value = p_from_t((value - null) / se, df) if se > 0 else float(value == null)
    return Estimate(value, value - half, value + half, p_value, n, method, note, se)


def standard_deviation_interval(sd: float, df: float, alpha: float) -> tuple[float, float]:
    """Exact interval of a normal SD: ``sd * sqrt(df / chi2)`` (Bland and Altman 1999, QIBA).

    Examples
    --------
    >>> low, high = standard_deviation_interval(1.0, 30, 0.05)
    >>> round(low, 3), round(high, 3)
    (0.799, 1.337)
    """
    if df <= 0:
        return np.nan, np.nan
    low = sd * np.sqrt(df / special.chdtri(df, alpha / 2.0))
    high = sd * np.sqrt(df / special.chdtri(df, 1.0 - alpha / 2.0))
    return float(low), float(high)


def paired_columns(a: ArrayLike, b: ArrayLike, *, at_least: int = 2) -> tuple[Floats, Floats]:
    """Two equally long finite float columns; pairs with a missing half are left out.

    Raises
    ------
    ValueError
        If the columns differ in length or hold infinite values.
    NotComputable
        If fewer than ``at_least`` complete pairs remain.

    Examples
    --------
    >>> paired_columns([1, 2, None], [1, 3, 4])
    (array([1., 2.]), array([1., 3.]))
    """
    first = np.asarray(a, dtype=np.float64)
    second = np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"two columns of one length are needed, got shapes {first.shape} and {second.shape}: "
            "pass one value per target and reader"
        )
    if np.isinf(first).any() or np.isinf(second).any():
        raise ValueError("infinite values cannot be compared: mark them missing (NaN)")
    both = ~(np.isnan(first) | np.isnan(second))
    if both.sum() < at_least:
        raise NotComputable(f"{int(both.sum())} complete pairs, at least {at_least} are needed")
    return first[both], second[both]


#: Numbers in a chunk of bootstrap weights (3 MB: larger ones cost more to allocate than to fill).
CHUNK = 400_000


def bootstrap_weights(
    n: int, *, resamples: int, seed: int, codes: NDArray[np.int64] | None = None
) -> Iterator[Floats]:
    """How often each of ``n`` targets is drawn in each resample, in chunks (resamples, n).

    Chunks do not change what is drawn. ``codes`` are clusters of the targets, 0 to a - 1, which are
    drawn whole.

    Examples
    --------
    >>> next(bootstrap_weights(3, resamples=1, seed=1, codes=np.array([0, 0, 1]))).tolist()
    [[1.0, 1.0, 1.0]]
    """
    drawn_from = n if codes is None else int(codes.max()) + 1
    generator = np.random.default_rng(seed)
    step = max(1, CHUNK // n)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.integers(0, drawn_from, size=(size, drawn_from))
        counts = np.stack([np.bincount(row, minlength=drawn_from) for row in drawn])
        weights: Floats = counts.astype(np.float64)
        yield weights if codes is None else weights[:, codes]


def bootstrap_interval(
    values: Floats, estimate: float, jackknife: Floats | None, alpha: float
) -> tuple[float, float]:
    """Percentile interval of resampled values, or BCa where leave-one-out values are given.

    Efron and Tibshirani 1993, chapter 14. NaN where over a tenth of the resamples, or one of the
    leave-one-out values, is not defined.

    Examples
    --------
    >>> low, high = bootstrap_interval(np.arange(1001.0), 500.0, None, 0.05)
    >>> round(low, 1), round(high, 1)
    (25.0, 975.0)
    """
    finite = np.sort(values[np.isfinite(values)])
    if finite.size < 0.9 * values.size or finite.size < 2:
        return np.nan, np.nan
    if jackknife is not None and not np.isfinite(jackknife).all():
        return np.nan, np.nan
    levels = np.array([alpha / 2.0, 1.0 - alpha / 2.0])
    if jackknife is not None:
        below = (np.sum(finite < estimate) + 0.5 * np.sum(finite == estimate)) / finite.size
        spread = np.mean(jackknife) - jackknife
        scale = np.sum(spread**2) ** 1.5
        if scale > 0 and 0.0 < below < 1.0:
            bias = special.ndtri(below)
            acceleration = np.sum(spread**3) / (6.0 * scale)
            z = bias + special.ndtri(levels)
            levels = special.ndtr(bias + z / (1.0 - acceleration * z))
    low, high = np.quantile(finite, levels)
    return float(low), float(high)


def bootstrap_p(values: Floats) -> float:
    """Twice the smaller tail of finite resampled values around 0.

    Examples
    --------
    >>> bootstrap_p(np.array([0.1, 0.2, 0.3, np.nan]))
    0.5
    """
    finite = values[np.isfinite(values)]
    tail = (min(np.sum(finite <= 0), np.sum(finite >= 0)) + 1) / (finite.size + 1)
    return float(min(1.0, 2.0 * tail))
