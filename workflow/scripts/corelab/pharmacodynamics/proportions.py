"""Proportions: score and exact intervals, differences of two, and their tests."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from corelab.terms.results import Estimate


def wilson_interval(events: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson score limits of a proportion.

    Examples
    --------
    >>> [round(v, 4) for v in wilson_interval(264, 414)]
    [0.5903, 0.6825]
    """
    z2 = stats.norm.ppf(1 - alpha / 2) ** 2
    p = events / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def exact_interval(events: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Clopper-Pearson limits of a proportion.

    Examples
    --------
    >>> [round(v, 4) for v in exact_interval(0, 10)]
    [0.0, 0.3085]
    """
    low = 0.0 if events == 0 else float(stats.beta.ppf(alpha / 2, events, n - events + 1))
    high = 1.0 if events == n else float(stats.beta.ppf(1 - alpha / 2, events + 1, n - events))
    return low, high


def risk_difference(
    events_a: int, n_a: int, events_b: int, n_b: int, alpha: float = 0.05
) -> Estimate:
    """Difference of proportions a - b with Newcombe's (1998) hybrid score interval.

    Its p value is that of :func:`_two_shares_p`, its ``method`` the name of that test.

    Examples
    --------
    Newcombe (Stat Med 1998;17:873), example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.

    >>> found = risk_difference(56, 70, 48, 80)
    >>> [round(v, 4) for v in (found.estimate, found.ci_low, found.ci_high)]
    [0.2, 0.0524, 0.3339]
    """
    pa, pb = events_a / n_a, events_b / n_b
    la, ua = wilson_interval(events_a, n_a, alpha)
    lb, ub = wilson_interval(events_b, n_b, alpha)
    d = pa - pb
    below, above = math.hypot(pa - la, ub - pb), math.hypot(ua - pa, pb - lb)
    p_value, test = _two_shares_p(events_a, n_a, events_b, n_b)
    return Estimate(d, d - below, d + above, p_value, n_a + n_b, test)


def _fisher_p(events_a: int, n_a: int, events_b: int, n_b: int) -> float:
    """Two-sided p of Fisher's exact test of two proportions."""
    table = np.array([[events_a, n_a - events_a], [events_b, n_b - events_b]])
    return float(stats.fisher_exact(table)[1])


def _two_shares_p(events_a: int, n_a: int, events_b: int, n_b: int) -> tuple[float, str]:
    """Two-sided p that two proportions are equal, and the name of the test.

    The chi-squared test with factor (N - 1) / N where every expected count is 1 or more, else
    Fisher's exact test (Campbell, Stat Med 2007;26:3661): at 60 participants Fisher's test has half
    its nominal level.
    """
    table = np.array([[events_a, n_a - events_a], [events_b, n_b - events_b]], float)
    total = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    if expected.min() < 1:
        return _fisher_p(events_a, n_a, events_b, n_b), "Fisher exact"
    chi2 = float(np.sum((table - expected) ** 2 / expected)) * (total - 1) / total
    return float(stats.chi2.sf(chi2, 1)), "'N - 1' chi-squared"


def two_counts(events_a: int, n_a: int, events_b: int, n_b: int) -> str:
    """Note of a difference of two proportions."""
    p_value = _fisher_p(events_a, n_a, events_b, n_b)
    return f"{events_a}/{n_a} against {events_b}/{n_b}; Fisher exact p {p_value:.3g}"
