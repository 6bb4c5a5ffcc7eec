"""Competing events: cumulative incidence and the subdistribution hazard of Fine and Gray.

Cumulative incidence: Aalen-Johansen, variance by the delta method (Marubini and Valsecchi 1995).
Fine and Gray (JASA 1999;94:496): who had the competing event stays at risk with the weight
G(t-) / G(T-) of the censoring curve; robust variance from the score residuals, the weights taken as
known, as R's ``finegray`` with ``coxph`` gives it. Gray's test: Ann Stat 1988;16:1141.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import stats

from corelab.agreement.estimates import quantile_normal
from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.linear import standardised
from corelab.pharmacodynamics.survival import kaplan_meier
from corelab.terms.results import Estimate


def status_of(
    time: Any, event: Any, other_time: Any, other_event: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Time to the first of two events, and which it was: 1, 2, or 0 for neither.

    Examples
    --------
    >>> time, status = status_of([5.0, 5, 5], [1, 0, 0], [9.0, 3, 9], [1, 1, 0])
    >>> time.tolist(), status.tolist()
    ([5.0, 3.0, 5.0], [1, 2, 0])
    """
    t, e, u, d = (np.asarray(v, float) for v in (time, event, other_time, other_event))
    first = (e == 1) & ((d == 0) | (t <= u))
    second = ~first & (d == 1)
    # Somebody censored for the event before the other one is still followed for the other.
    return np.where(second, u, t), np.where(first, 1, np.where(second, 2, 0))


def cumulative_incidence(time: Any, status: Any, at: float, alpha: float = 0.05) -> Estimate:
    """Probability of the event (status 1) by a time, beside a competing one (2); log-log limits.

    Raises
    ------
    NotComputable
        If nobody has the event by then.

    Examples
    --------
    Without censoring it is the share of participants.

    >>> result = cumulative_incidence([1, 2, 3, 4], [1, 2, 1, 2], 3.5)
    >>> result.estimate, round(result.se, 4)
    (0.5, 0.25)
    """
    t, s = np.asarray(time, float), np.asarray(status, int)
    times = np.unique(t[(s > 0) & (t <= at)])
    at_risk = np.array([np.sum(t >= now) for now in times], float)
    own = np.array([np.sum((t == now) & (s == 1)) for now in times], float)
    every = np.array([np.sum((t == now) & (s > 0)) for now in times], float)
    if own.sum() == 0:
        raise NotComputable(f"nobody has the event by {at:g} days")
    survival = np.cumprod(1 - every / at_risk)
    before = np.concatenate([[1.0], survival[:-1]])
    curve = np.cumsum(before * own / at_risk)
    value = float(curve[-1])
    left = value - curve
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(at_risk > every, left**2 * every / (at_risk * (at_risk - every)), 0.0)
    second = before**2 * own * (at_risk - own) / at_risk**3
    cross = left * before * own / at_risk**2
    error = math.sqrt(max(float(np.sum(first + second - 2 * cross)), 0.0))
    if not 0 < value < 1 or error == 0:
        return Estimate(value, se=error)
    width = quantile_normal(alpha) * error / (value * abs(math.log(value)))
    return Estimate(value, value ** math.exp(width), value ** math.exp(-width), se=error)


def gray_test(time: Any, status: Any, group: Any, strata: Any = None) -> tuple[float, int, float]:
    """(Stratified) test of Gray that groups have one cumulative incidence of the event (status 1).

    ``time`` and ``status`` (n,) are of :func:`status_of`; scores and variances of the strata are
    added up. Returns chi squared, degrees of freedom and p.

    Raises
    ------
    NotComputable
        With one group, or no event.

    Notes
    -----
    The score compares events with those expected from the share of each group in the risk set of
    the subdistribution, Y (1 - F) / S; its variance is that of the martingales of the event and of
    the competing event, with the incidence pooled under the hypothesis, as R cmprsk.

    Examples
    --------
    >>> chi, df, p = gray_test([1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 2, 1, 0, 1, 0, 2], list("aaaabbbb"))
    >>> round(chi, 3), df
    (3.774, 1)
    """
    t, s = np.asarray(time, float), np.asarray(status, int)
    names, code = np.unique(np.asarray(group).astype(str), return_inverse=True)
    k = names.size
    if k < 2:
        raise NotComputable("Gray's test needs two groups")
    if not (s == 1).any():
        raise NotComputable("nobody has the event in any group")
    layer = np.zeros(t.size, int) if strata is None else np.unique(strata, return_inverse=True)[1]
    score, covariance = np.zeros(k), np.zeros((k, k))
    for stratum in range(layer.max() + 1):
        inside = layer == stratum
        one = _gray_score(t[inside], s[inside], code[inside], k)
        score, covariance = score + one[0], covariance + one[1]
    try:
        chi = float(score[:-1] @ np.linalg.solve(covariance[:-1, :-1], score[:-1]))
    except np.linalg.LinAlgError:
        raise NotComputable("the groups are never at risk together") from None
    if not math.isfinite(chi):
        raise NotComputable("the groups are never at risk together")
    return chi, k - 1, float(stats.chi2.sf(chi, k - 1))


def _gray_score(
    t: np.ndarray, s: np.ndarray, code: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(k,) scores of the groups and their (k, k) covariance, of one stratum."""
    score, carried, pooled = np.zeros(k), np.zeros((k, k)), 0.0
    survival, incidence = np.ones(k), np.zeros(k)
    # Per jump: (weights of the own event, of the competing one) at the jump, and what is carried.
    terms: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for now in np.unique(t[s > 0]):
        at_risk = np.bincount(code[t >= now], minlength=k).astype(float)
        own, other = (
            np.bincount(code[(t == now) & (s == j)], minlength=k).astype(float) for j in (1, 2)
        )
        there = at_risk > 0
        risk = np.divide(at_risk, survival, out=np.zeros(k), where=there & (survival > 0))
        total, events = risk.sum(), own.sum()
        before, incidence_before = survival.copy(), incidence.copy()
        share = np.divide(own + other, at_risk, out=np.zeros(k), where=there)
        survival = survival * (1 - share)
        incidence = incidence + before * np.divide(own, at_risk, out=np.zeros(k), where=there)
        after = pooled + events / total
        open_share = risk * (1 - incidence_before)
        score += own - events * open_share / open_share.sum()
        weight = np.diag(risk) - np.outer(risk, risk) / total
        carried = carried + weight * events / (total * (1 - pooled))
        lost = np.divide(1 - after, survival, out=np.zeros(k), where=survival > 0)
        for r in np.flatnonzero(there):
            if events:
                ties = 1 - (events - 1) / (total * before[r] - 1) if events > 1 else 1.0
                size = ties * before[r] * events / (total * at_risk[r])
                kept = 1 - lost[r] if survival[r] > 0 else 1.0
                # weight + kept (C - carried), C the sum at the end.
                terms.append((weight[:, r] - kept * carried[:, r], np.array([r, kept]), size))
            if other[r] and survival[r] > 0:
                ties = 1 - (other[r] - 1) / (at_risk[r] - 1) if other[r] > 1 else 1.0
                size = ties * before[r] ** 2 * other[r] / at_risk[r] ** 2
                terms.append((lost[r] * carried[:, r], np.array([r, -lost[r]]), size))
        pooled = after
    covariance = np.zeros((k, k))
    for fixed, (r, factor), size in terms:
        column = fixed + factor * carried[:, int(r)]
        covariance += size * np.outer(column, column)
    return score, covariance


@dataclass(frozen=True)
class FineGray:
    """Log subdistribution hazard ratios with their robust covariance."""

    coefficients: np.ndarray
    covariance: np.ndarray
    events: int
    n: int


def fit_fine_gray(time: Any, status: Any, matrix: Any) -> FineGray:
    """Fine and Gray's model by Newton's method, Breslow ties.

    ``time`` and ``status`` (n,) are of :func:`status_of`, ``matrix`` (n, p) has no intercept.

    Raises
    ------
    NotComputable
        With no event, or a term that has no finite estimate.

    Notes
    -----
    The weight G(t-) / G(T-) is a product, so that sums over the risk sets are running sums over
    time (Kawaguchi et al., J Comput Graph Stat 2021;30:685): memory grows with n, not its square.

    Examples
    --------
    >>> x = [[0], [1], [0], [1], [0], [1], [1], [0]]
    >>> fit_fine_gray([1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 2, 1, 0, 1, 0, 1], x).events
    5
    """
    t, s = np.asarray(time, float), np.asarray(status, int)
    x = np.asarray(matrix, float).reshape(t.size, -1)
    if not (s == 1).any():
        raise NotComputable("no event: a subdistribution hazard ratio cannot be estimated")
    z, _, scale = standardised(x)
    # Probability of no censoring just before a time.
    free = partial(kaplan_meier(t, (s == 0).astype(float)).survival_at, just_before=True)
    order = np.argsort(t, kind="stable")
    t, s, z = t[order], s[order], z[order]
    moments, deaths = np.unique(t[s == 1], return_counts=True)
    place, kept = np.searchsorted(t, moments), free(moments)
    # Weight of who had the competing event, less the factor of the moment (``kept``).
    late = np.where(s == 2, 1 / np.maximum(free(t), 1e-12), 0.0)

    def at_risk(values: np.ndarray) -> np.ndarray:
        """Weighted sums over the risk set of each moment: running sums from both ends of time."""
        after = values[::-1].cumsum(axis=0)[::-1]
        before = np.vstack([np.zeros(values.shape[1]), (late[:, None] * values).cumsum(axis=0)])
        return after[place] + kept[:, None] * before[place]

    p = z.shape[1]
    columns = np.column_stack([np.ones(t.size), z, np.einsum("ij,ik->ijk", z, z).reshape(-1, p**2)])
    beta = np.zeros(p)
    for _ in range(60):
        risk = np.exp(z @ beta)
        sums = at_risk(columns * risk[:, None])
        total, mean = sums[:, 0], sums[:, 1 : p + 1] / sums[:, :1]
        second = (deaths @ (sums[:, p + 1 :] / total[:, None])).reshape(p, p)
        gradient = z[s == 1].sum(axis=0) - deaths @ mean
        information = second - mean.T @ (deaths[:, None] * mean)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            raise NotComputable("the terms of the model are linearly dependent") from None
        beta = beta + np.clip(step, -2, 2)
        if np.abs(beta).max() > 50:
            raise NotComputable("a term separates those with from those without the event")
        if np.abs(step).max() < 1e-11:
            break
    # Score residual: own event less what the weighted risk accumulates, both about the mean.
    steps = (deaths / total)[:, None] * np.column_stack([np.ones(moments.size), mean])
    gone = np.searchsorted(moments, t, side="right")
    until = np.vstack([np.zeros(p + 1), steps.cumsum(axis=0)])
    later = np.vstack([np.zeros(p + 1), (kept[:, None] * steps).cumsum(axis=0)])
    met = risk[:, None] * (until[gone] + late[:, None] * (later[-1] - later[gone]))
    residuals = met[:, 1:] - met[:, :1] * z
    own = s == 1
    residuals[own] += z[own] - mean[np.searchsorted(moments, t[own])]
    inverse = np.linalg.inv(information)
    covariance = inverse @ (residuals.T @ residuals) @ inverse / np.outer(scale, scale)
    return FineGray(beta / scale, covariance, int(deaths.sum()), t.size)
