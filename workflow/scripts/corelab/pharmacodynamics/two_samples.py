"""Difference of the means of two samples by Student's and Welch's t."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.estimates import t_estimate
from corelab.provenance.two_computations import compare
from corelab.terms.results import Estimate, Second


def two_samples(a: Any, b: Any, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both samples as floats.

    Raises
    ------
    NotComputable
        If one has fewer than ``least`` values.
    """
    first, second = np.asarray(a, float).ravel(), np.asarray(b, float).ravel()
    for values in (first, second):
        if not np.isfinite(values).all():
            raise ValueError("a sample holds a missing or infinite value")
        if values.size < least:
            raise NotComputable(f"{values.size} values in one arm; the comparison needs {least}")
    return first, second


def student_t(a: Any, b: Any, alpha: float = 0.05) -> Estimate:
    """Difference of means a - b, pooled variance."""
    a, b = two_samples(a, b)
    df = a.size + b.size - 2
    pooled = (np.sum((a - a.mean()) ** 2) + np.sum((b - b.mean()) ** 2)) / df
    error = math.sqrt(pooled * (1 / a.size + 1 / b.size))
    return t_estimate(float(a.mean() - b.mean()), error, df, alpha)


def welch_t(a: Any, b: Any, alpha: float = 0.05) -> Estimate:
    """Difference of means a - b, unequal variances, Welch-Satterthwaite degrees of freedom."""
    a, b = two_samples(a, b)
    va, vb = a.var(ddof=1) / a.size, b.var(ddof=1) / b.size
    if va + vb == 0:
        raise NotComputable("no variance in either arm")
    df = (va + vb) ** 2 / (va**2 / (a.size - 1) + vb**2 / (b.size - 1))
    return t_estimate(float(a.mean() - b.mean()), math.sqrt(va + vb), df, alpha)


def second_t(result: Estimate, theirs: Any, library: str, alpha: float) -> Second:
    """Mean by a t test of scipy, the middle of its interval, after p and mean were compared."""
    compare(result.p_value, float(theirs.pvalue), library)
    interval = theirs.confidence_interval(1 - alpha)
    middle = (float(interval.low) + float(interval.high)) / 2
    scale = max(result.se, abs(result.estimate))
    return compare(result.estimate, middle, library, scale=scale)
