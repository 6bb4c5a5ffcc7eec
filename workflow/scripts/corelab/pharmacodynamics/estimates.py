"""Estimates with t, normal and ratio intervals; rows of what can and what cannot be computed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from corelab.agreement.estimates import p_from_normal, p_from_t, quantile_normal, quantile_t
from corelab.measurement.selection import NotComputable
from corelab.terms.results import Estimate, StatisticRow, not_computable

#: Logarithms beyond this have no exponential that fits a number.
LARGEST_LOG = 700.0


def t_estimate(value: float, error: float, df: float, alpha: float = 0.05) -> Estimate:
    """Estimate with t interval and two-sided test; ``df`` may be inf (normal).

    Raises
    ------
    NotComputable
        If the standard error is not above 0.

    Examples
    --------
    >>> round(t_estimate(2.0, 1.0, float("inf")).ci_low, 3)
    0.04
    """
    if error <= 0 or not math.isfinite(error):
        raise NotComputable(f"standard error {error:g}: the residuals have no variance")
    half = quantile_t(df, alpha) * error
    p_value = p_from_t(value / error, df)
    limits = float(value - half), float(value + half)
    return Estimate(float(value), *limits, p_value, se=float(error), df=float(df))


def normal_estimate(
    value: float, error: float, alpha: float, *, low: float = -math.inf, high: float = math.inf
) -> Estimate:
    """Estimate with normal interval, cut at ``low`` and ``high``, and test of 0.

    Examples
    --------
    >>> found = normal_estimate(0.9, 0.1, 0.05, low=0.0, high=1.0)
    >>> round(found.ci_low, 3), found.ci_high
    (0.704, 1.0)
    """
    half = quantile_normal(alpha) * error
    p_value = p_from_normal(value / error) if error > 0 else math.nan
    return Estimate(value, max(low, value - half), min(high, value + half), p_value, se=error)


def exponentiated(result: Estimate) -> Estimate:
    """The ratio whose logarithm an estimate is."""
    limits = (result.estimate, result.ci_low, result.ci_high)
    value, low, high = (math.exp(one) for one in limits)
    return replace(result, estimate=value, ci_low=low, ci_high=high)


def ratio_of_log(log: float, error: float, alpha: float, term: str) -> Estimate:
    """Ratio with Wald limits and test of its logarithm, per unit of a term.

    Raises
    ------
    NotComputable
        If the ratio or a limit is no number that fits.

    Examples
    --------
    >>> round(ratio_of_log(0.0, 1.0, 0.05, "x").ci_high, 3)
    7.099
    """
    if not error > 0 or abs(log) + quantile_normal(alpha) * error > LARGEST_LOG:
        raise NotComputable(f"the log ratio per unit is {log:.3g}: give {term} in another unit")
    return exponentiated(normal_estimate(log, error, alpha))


def ratio_estimate(value: float, log_error: float, alpha: float) -> Estimate:
    """A ratio with the normal interval and test of its logarithm.

    Raises
    ------
    NotComputable
        If the logarithm has no standard error.

    Examples
    --------
    >>> round(ratio_estimate(2.0, 0.25, alpha=0.05).ci_low, 3)
    1.225
    """
    if not log_error > 0:
        raise NotComputable("the values do not vary: the ratio has no standard error")
    found = exponentiated(normal_estimate(math.log(value), log_error, alpha))
    return replace(found, estimate=value)


def guarded(
    rows: Iterable[StatisticRow], statistic: str, *words: str, **columns: Any
) -> Iterator[StatisticRow]:
    """Rows in their place, and a row of ``statistic`` that says why there are no further ones.

    ``rows`` may raise :class:`NotComputable`; ``words`` and ``columns`` are as
    :meth:`~corelab.terms.results.StatisticRow.within` takes them.

    Examples
    --------
    >>> def rows():
    ...     yield StatisticRow("bias", estimate=1.0)
    ...     raise NotComputable("one reader")
    >>> [row.note for row in guarded(rows(), "kappa", "few", visit="day1")]
    ['few', 'not_computable: one reader']
    """
    try:
        for row in rows:
            yield row.within(*words, **columns)
    except NotComputable as reason:
        yield not_computable(statistic, str(reason), **columns)


def contrast_of(by: str, level: str, reference: str) -> str:
    """Group of a row on a level against the reference.

    Examples
    --------
    >>> contrast_of("arm", "high", "placebo")
    'arm=high|arm=placebo'
    """
    return f"{by}={level}|{by}={reference}"
