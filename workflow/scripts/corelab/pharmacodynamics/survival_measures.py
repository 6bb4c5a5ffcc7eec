"""Discrimination, explained variation and adjusted restricted means of censored times.

Uno's C: Stat Med 2011;30:1105. Royston and Sauerbrei's D and R2: Stat Med 2004;23:723, Royston,
Stata J 2006;6:83. Adjusted restricted mean: Tian, Zhao and Wei, Biostatistics 2014;15:222.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import stats

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.estimates import normal_estimate, t_estimate
from corelab.pharmacodynamics.survival import (
    Concordance,
    check_times,
    fit_cox,
    kaplan_meier,
    risk_order,
    weighted_concordance,
)
from corelab.terms.results import Estimate


def uno_concordance(time: Any, event: Any, risk: Any, tau: float) -> Concordance:
    """Uno's C of a score (higher = earlier event) over pairs whose earlier event is before ``tau``.

    Its error is that of the infinitesimal jackknife, the censoring weights taken as known.

    Raises
    ------
    NotComputable
        If no pair can be ordered.

    Examples
    --------
    Without censoring it is Harrell's C.

    >>> round(uno_concordance([1, 2, 3, 4], [1, 1, 1, 1], [4, 3, 1, 2], 5.0).estimate, 4)
    0.8333
    """
    t, e = check_times(time, event)
    r = risk_order(risk)
    free = kaplan_meier(t, 1 - e).survival_at(t, just_before=True)
    counts = (e == 1) & (t < tau)
    weight = np.where(counts, 1 / np.maximum(free, 1e-12) ** 2, 0.0)
    return weighted_concordance(t, e, r, weight)


def explained_variation(d: float) -> float:
    """Royston and Sauerbrei's R2 of a value of D.

    Examples
    --------
    >>> round(explained_variation(math.sqrt(8 / math.pi)), 3), explained_variation(-1.0)
    (0.378, 0.0)
    """
    square = max(d, 0.0) ** 2 / (8 / math.pi)
    return square / (math.pi**2 / 6 + square)


def royston_d(time: Any, event: Any, risk: Any, alpha: float = 0.05) -> Estimate:
    """Separation of a prognostic score: the log hazard ratio of its two halves, were it normal.

    Raises
    ------
    NotComputable
        If a Cox model of the score cannot be fitted.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> risk = rng.normal(size=400)
    >>> found = royston_d(rng.exponential(np.exp(-risk)), np.ones(400), risk)
    >>> bool(abs(found.estimate - math.sqrt(8 / math.pi)) < 0.25)
    True
    """
    rank = stats.rankdata(risk_order(risk))
    kappa = math.sqrt(8 / math.pi)
    score = stats.norm.ppf((rank - 3 / 8) / (rank.size + 1 / 4)) / kappa
    fit = fit_cox(time, event, score[:, None])
    return normal_estimate(float(fit.coefficients[0]), float(fit.standard_errors[0]), alpha)


def adjusted_restricted_mean(
    time: Any,
    event: Any,
    group: Any,
    matrix: Any,
    tau: float,
    position: int,
    alpha: float = 0.05,
    *,
    small_sample: bool = True,
) -> Estimate:
    """One coefficient of a linear model of the restricted survival time, by weighted least squares.

    Parameters
    ----------
    time, event
        (n,) times and event flags.
    group
        (n,) labels of the arms, each with a censoring curve of its own.
    matrix
        (n, p) design with its intercept.
    tau
        Horizon.
    position
        Column whose coefficient is wanted, as the indicator of an arm.
    alpha
        1 - confidence level.
    small_sample
        Covariance times n / (n - p) and t with n - p degrees of freedom; False for the normal form
        of R survRM2, whose level at 60 participants is 7 % instead of 5 %.

    Raises
    ------
    NotComputable
        If nobody of an arm is followed to tau or has the event.

    Notes
    -----
    Weights are the inverse of the censoring curve of the arm at min(time, tau), as R survRM2; the
    sandwich covariance holds the estimation of these weights.

    Examples
    --------
    Without censoring it is least squares with its robust error.

    >>> x = np.column_stack([np.ones(6), [0, 0, 0, 1, 1, 1]])
    >>> found = adjusted_restricted_mean([1, 2, 3, 2, 4, 6], [1] * 6, list("aaabbb"), x, 5.0, 1)
    >>> round(found.estimate, 4)
    1.6667
    """
    t, e = check_times(time, event)
    x = np.asarray(matrix, float)
    y = np.minimum(t, tau)
    seen = np.where(t >= tau, 1.0, e)
    labels = np.asarray(group).astype(str)
    weight = np.zeros(t.size)
    for level in np.unique(labels):
        inside = labels == level
        if t[inside].max() < tau and e[inside][t[inside] == t[inside].max()].min() == 0:
            raise NotComputable(f"follow-up of {level} ends before tau {tau:g}")
        free = kaplan_meier(y[inside], 1 - seen[inside]).survival_at(y[inside])
        weight[inside] = seen[inside] / np.maximum(free, 1e-12)
    weighted = x * weight[:, None]
    beta = np.linalg.solve(weighted.T @ x, weighted.T @ y)
    score = weighted * (y - x @ beta)[:, None]
    influence = score.copy()
    for level in np.unique(labels):
        inside = np.flatnonzero(labels == level)
        yi, lost = y[inside], 1 - seen[inside]
        times, place = np.unique(yi, return_inverse=True)
        later = np.zeros((times.size, x.shape[1]))
        np.add.at(later, place, score[inside])
        later = later[::-1].cumsum(axis=0)[::-1]
        at_risk = np.bincount(place)[::-1].cumsum()[::-1].astype(float)
        mean = later / at_risk[:, None]
        gone = np.bincount(place, lost) / at_risk
        influence[inside] += lost[:, None] * mean[place] - (mean * gone[:, None]).cumsum(0)[place]
    bread = np.linalg.inv(x.T @ x)
    covariance = bread @ influence.T @ influence @ bread
    n, p = x.shape
    df = n - p if small_sample else math.inf
    scale = n / (n - p) if small_sample else 1.0
    error = math.sqrt(scale * float(covariance[position, position]))
    return t_estimate(float(beta[position]), error, df, alpha)
