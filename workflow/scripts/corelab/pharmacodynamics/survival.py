"""Time to event: Kaplan-Meier, log-rank, Cox, restricted mean, proportional hazards, concordance.

Kernels of our own; lifelines is the second program (with its Newton precision at 1e-9: its
default stops early). Time is in days unless the caller says otherwise; ``event`` is 1 for an
event and 0 for censoring, nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.estimates import normal_estimate, t_estimate
from corelab.pharmacodynamics.linear import standardised
from corelab.terms.results import Estimate


def check_times(time: Any, event: Any) -> tuple[np.ndarray, np.ndarray]:
    """Validated time and event arrays.

    Raises
    ------
    ValueError
        For a negative or missing time, or an event that is not 0 or 1 (status coded 1/2, or the
        censoring flag CNSR of ADaM, which is the reverse).

    Examples
    --------
    >>> check_times([1, 2], [1, 2])
    Traceback (most recent call last):
    ValueError: event holds 2; it must be 1 for an event and 0 for censoring ...
    """
    t, e = np.asarray(time, float).ravel(), np.asarray(event, float).ravel()
    if t.shape != e.shape:
        raise ValueError(f"{t.size} times and {e.size} event flags")
    wrong = e[~np.isin(e, (0.0, 1.0))]
    if wrong.size:
        raise ValueError(
            f"event holds {wrong[0]:g}; it must be 1 for an event and 0 for censoring (recode a "
            "status of 1/2, and turn ADaM's CNSR round)"
        )
    if not np.isfinite(t).all() or np.any(t < 0):
        raise ValueError("a time is missing or negative; times count from randomisation")
    return t, e


@dataclass(frozen=True)
class KaplanMeier:
    """Product-limit estimate at distinct rising times: counts at risk, of events and censored,
    survival just after each time and its Greenwood standard error.
    """

    time: np.ndarray
    at_risk: np.ndarray
    events: np.ndarray
    censored: np.ndarray
    survival: np.ndarray
    standard_error: np.ndarray

    def band(self, alpha: float = 0.05, transform: str = "loglog") -> tuple[np.ndarray, np.ndarray]:
        """Pointwise limits; ``loglog`` (SAS, lifelines) or ``log`` (R survival)."""
        z = scipy.stats.norm.ppf(1 - alpha / 2)
        s = self.survival
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = self.standard_error / s
            if transform == "log":
                low, high = s * np.exp(-z * relative), s * np.exp(z * relative)
            elif transform == "loglog":
                spread = z * relative / np.log(s)
                low, high = s ** np.exp(-spread), s ** np.exp(spread)
            else:
                raise ValueError(f"transform must be loglog or log, not '{transform}'")
        # At survival 1 both limits are 1; at 0 they do not exist and the last ones hold.
        low, high = np.where(s == 1, 1.0, low), np.where(s == 1, 1.0, high)
        zero = s <= 0
        low[zero] = np.nan
        high[zero] = np.nan
        return np.clip(low, 0, 1), np.clip(high, 0, 1)

    def quantile(self, share: float = 0.5) -> float:
        """Time by which ``share`` have had the event; nan if that is not reached."""
        return _first_below(self.time, self.survival, 1 - share)

    def quantile_interval(
        self, share: float = 0.5, alpha: float = 0.05, transform: str = "loglog"
    ) -> tuple[float, float]:
        """Limits of the quantile: where the band crosses (Brookmeyer and Crowley 1982)."""
        low, high = self.band(alpha, transform)
        lower_limit = np.where(np.isnan(low), 0.0, low)
        return (
            _first_below(self.time, lower_limit, 1 - share),
            _first_below(self.time, np.where(np.isnan(high), np.inf, high), 1 - share),
        )

    def survival_at(self, when: Any, *, just_before: bool = False) -> np.ndarray:
        """Survival just after (or just before) given times."""
        side: Any = "left" if just_before else "right"
        position = np.searchsorted(self.time, np.asarray(when, float), side=side)
        return np.concatenate([[1.0], self.survival])[position]


def _first_below(time: np.ndarray, curve: np.ndarray, level: float) -> float:
    """First time at which a falling curve is at or below a level; mid of a flat piece there."""
    tolerance = 1e-10
    below = np.flatnonzero(curve <= level + tolerance)
    if not below.size:
        return math.nan
    first = below[0]
    if abs(curve[first] - level) <= tolerance:
        # The curve lies on the level: the convention of R is the middle of that step.
        after = np.flatnonzero(curve < level - tolerance)
        if after.size:
            return float((time[first] + time[after[0]]) / 2)
    return float(time[first])


def kaplan_meier(time: Any, event: Any) -> KaplanMeier:
    """Product-limit estimate of survival.

    Examples
    --------
    >>> curve = kaplan_meier([1, 2, 2, 3, 4], [1, 1, 0, 1, 0])
    >>> curve.survival.round(3).tolist(), curve.quantile()
    ([0.8, 0.6, 0.3, 0.3], 3.0)
    """
    t, e = check_times(time, event)
    if not t.size:
        raise NotComputable("no participant has a time")
    times, inverse = np.unique(t, return_inverse=True)
    deaths = np.bincount(inverse, e)
    leaving = np.bincount(inverse)
    at_risk = t.size - np.concatenate([[0], np.cumsum(leaving)[:-1]])
    survival = np.cumprod(1 - deaths / at_risk)
    with np.errstate(divide="ignore", invalid="ignore"):
        hazard = np.cumsum(np.where(deaths > 0, deaths / (at_risk * (at_risk - deaths)), 0.0))
        error = np.where(survival > 0, survival * np.sqrt(hazard), np.nan)
    return KaplanMeier(times, at_risk, deaths, leaving - deaths, survival, error)


@dataclass(frozen=True)
class LogRank:
    """Log-rank test: chi-squared, df, p, observed and expected events per group."""

    chi_squared: float
    df: int
    p_value: float
    groups: tuple[str, ...]
    observed: np.ndarray
    expected: np.ndarray


def log_rank(time: Any, event: Any, group: Any, *, strata: Any = None, rho: float = 0.0) -> LogRank:
    """(Stratified) log-rank test of two or more groups.

    Parameters
    ----------
    time, event, group
        (n,) times, event flags and labels.
    strata
        (n,) labels of strata.
    rho
        Weights S(t-)^rho of Harrington and Fleming; 0 is the log-rank test, 1 the Peto-Peto form.

    Raises
    ------
    NotComputable
        With fewer than two groups or no event.

    Examples
    --------
    >>> result = log_rank([1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1], list("aaabbb"))
    >>> round(result.chi_squared, 3), result.df
    (5.052, 1)
    """
    t, e = check_times(time, event)
    labels = np.asarray(group).astype(str)
    names, code = np.unique(labels, return_inverse=True)
    k = names.size
    if k < 2:
        raise NotComputable("a log-rank test needs two groups")
    if e.sum() == 0:
        raise NotComputable("no event in any group")
    layer = np.zeros(t.size, int) if strata is None else np.unique(strata, return_inverse=True)[1]
    observed, expected, covariance = np.zeros(k), np.zeros(k), np.zeros((k, k))
    gap = np.zeros(k)
    for stratum in range(layer.max() + 1):
        inside = layer == stratum
        ts, es, cs = t[inside], e[inside], code[inside]
        survival = 1.0
        for now in np.unique(ts[es == 1]):
            at_risk = np.bincount(cs[ts >= now], minlength=k).astype(float)
            deaths = np.bincount(cs[(ts == now) & (es == 1)], minlength=k).astype(float)
            n, d = at_risk.sum(), deaths.sum()
            weight = survival**rho
            share = at_risk / n
            observed += deaths
            expected += d * share
            gap += weight * (deaths - d * share)
            if n > 1:
                spread = np.diag(share) - np.outer(share, share)
                covariance += weight**2 * d * (n - d) / (n - 1) * spread
            survival *= 1 - d / n
    chi = float(gap[:-1] @ np.linalg.pinv(covariance[:-1, :-1]) @ gap[:-1])
    df = int(np.linalg.matrix_rank(covariance))
    if df == 0:
        raise NotComputable("the groups are never at risk together")
    return LogRank(
        chi, df, float(scipy.stats.chi2.sf(chi, df)), tuple(map(str, names)), observed, expected
    )


@dataclass(frozen=True)
class CoxFit:
    """Cox regression: log hazard ratios with their covariance, partial log likelihood at the
    maximum and at zero; ``robust_covariance`` is of clusters (Lin and Wei 1989).
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    log_likelihood: tuple[float, float]
    ties: str
    n: int
    events: int
    robust_covariance: np.ndarray | None = None

    @property
    def standard_errors(self) -> np.ndarray:
        """Model-based standard errors, robust ones where clusters were given."""
        used = self.covariance if self.robust_covariance is None else self.robust_covariance
        return np.sqrt(np.diag(used))


def fit_cox(
    time: Any,
    event: Any,
    matrix: Any,
    *,
    ties: str = "efron",
    strata: Any = None,
    clusters: Any = None,
    entry: Any = None,
) -> CoxFit:
    """Cox proportional-hazards regression by Newton's method.

    Parameters
    ----------
    time, event, matrix
        (n,) times and event flags, (n, p) covariates without intercept.
    ties
        ``efron``, ``breslow`` or ``exact`` (the discrete conditional likelihood).
    strata, clusters
        (n,) labels with baselines of their own, and of observations with a robust covariance.
    entry
        (n,) times from which a row is at risk (after them), for covariates that change with time;
        Efron's or Breslow's ties, without clusters.

    Raises
    ------
    NotComputable
        With no event, a term without variance, or separation (no finite maximum).

    Examples
    --------
    >>> fit = fit_cox([4, 3, 1, 2, 5, 6], [1, 1, 1, 0, 1, 1], [[0], [1], [1], [1], [1], [0]])
    >>> round(float(fit.coefficients[0]), 3)
    1.157
    """
    t, e = check_times(time, event)
    x = np.asarray(matrix, float).reshape(t.size, -1)
    if not np.isfinite(x).all():
        raise ValueError("a covariate is missing; give complete rows")
    if e.sum() == 0:
        raise NotComputable("no event: a hazard ratio cannot be estimated")
    if ties not in {"efron", "breslow", "exact"}:
        raise ValueError(f"ties must be efron, breslow or exact, not '{ties}'")
    z, _, scale = standardised(x)
    layer = np.zeros(t.size, int) if strata is None else np.unique(strata, return_inverse=True)[1]
    start = None if entry is None else np.asarray(entry, float)
    if start is not None and (clusters is not None or ties == "exact" or np.any(start >= t)):
        raise ValueError("entry needs rows that end after they start, without clusters")
    if ties == "exact":
        derivatives = partial(_exact_derivatives, t=t, e=e, z=z, layer=layer)
    else:
        derivatives = partial(_cox_derivatives, z=z, sets=_risk_sets(t, e, z, layer, ties, start))
    beta, value, null, information = _cox_maximum(derivatives, z.shape[1])
    span = np.ptp(z, axis=0)
    errors = np.sqrt(np.diag(np.linalg.pinv(information)))
    if np.any((np.abs(beta) * span > 12) & (errors * span > 20)) or np.abs(beta).max() > 50:
        raise NotComputable(
            "a term separates those with from those without events: its hazard ratio has no "
            "finite estimate"
        )
    if np.linalg.cond(information) > 1e12:
        raise NotComputable("the terms of the Cox model are linearly dependent")
    covariance = np.linalg.inv(information) / np.outer(scale, scale)
    robust = None
    if clusters is not None:
        # Score residuals per unit of the covariates, summed over each cluster.
        residuals = score_residuals(beta, t, e, z, layer, ties) * scale
        names, code = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
        grouped = np.zeros((names.size, x.shape[1]))
        np.add.at(grouped, code, residuals)
        dfbeta = grouped @ covariance
        robust = dfbeta.T @ dfbeta
    return CoxFit(beta / scale, covariance, (value, null), ties, t.size, int(e.sum()), robust)


def _cox_maximum(
    derivatives: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]], p: int
) -> tuple[np.ndarray, float, float, np.ndarray]:
    """Maximum of a partial likelihood by Newton's method with halved steps.

    Returns coefficients, log likelihood there and at zero, and information.
    """
    beta = np.zeros(p)
    value, gradient, information = derivatives(beta)
    null = value
    for _ in range(100):
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            raise NotComputable("the terms of the Cox model are linearly dependent") from None
        length = 1.0
        # At the maximum of a sum of thousands of terms a step is lost in its rounding.
        rounding = 1e-13 * (abs(value) + 1)
        while True:
            new = derivatives(beta + length * step)
            if (math.isfinite(new[0]) and new[0] >= value - rounding) or length < 1e-8:
                break
            length /= 2
        beta = beta + length * step
        settled = abs(new[0] - value) < rounding and np.abs(new[1]).max() < 1e-8
        value, gradient, information = new
        if settled or np.abs(beta).max() > 50:
            break
    return beta, value, null, information


def _tied(
    t: np.ndarray, e: np.ndarray, layer: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Per stratum and event time: rows at risk, rows of deaths, time."""
    sets = []
    for stratum in range(layer.max() + 1):
        inside = np.flatnonzero(layer == stratum)
        inside = inside[np.argsort(t[inside], kind="stable")]
        times = t[inside]
        for now in np.unique(times[e[inside] == 1]):
            first, last = np.searchsorted(times, now), np.searchsorted(times, now, "right")
            tied = inside[first:last]
            # A view of the sorted rows: a copy for each time would be a square.
            sets.append((inside[first:], tied[e[tied] == 1], float(now)))
    return sets


def _moments(
    z: np.ndarray, w: np.ndarray, at_risk: np.ndarray, deaths: np.ndarray, share: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Weighted sum, mean and covariance over the risk set with ``share`` of the deaths gone."""
    zr, zd = z[at_risk], z[deaths]
    wr, wd = w[at_risk], share * w[deaths]
    total = wr.sum() - wd.sum()
    mean = (wr @ zr - wd @ zd) / total
    cr, cd = zr - mean, zd - mean
    spread = ((cr * wr[:, None]).T @ cr - (cd * wd[:, None]).T @ cd) / total
    return float(total), mean, spread


@dataclass(frozen=True)
class _RiskSets:
    """One stratum of a Cox model, sorted by time: what no step of Newton's method changes.

    ``rows`` sorts the stratum; ``columns`` are 1, the covariates and their products of each row;
    ``dying`` are its deaths, ``group`` the event time of each, ``share`` the part of its ties that
    leaves before it; ``first`` is the first row at risk at each event time. ``entry`` sorts the
    rows by entry, ``entered`` counts those before each event time; None without entry times.
    """

    rows: np.ndarray
    columns: np.ndarray
    dying: np.ndarray
    group: np.ndarray
    share: np.ndarray
    first: np.ndarray
    entry: np.ndarray | None
    entered: np.ndarray | None


def _risk_sets(
    t: np.ndarray,
    e: np.ndarray,
    z: np.ndarray,
    layer: np.ndarray,
    ties: str,
    entry: np.ndarray | None = None,
) -> list[_RiskSets]:
    """Strata with a death, for Efron's or Breslow's ties."""
    p = z.shape[1]
    sets = []
    for stratum in range(layer.max() + 1):
        inside = np.flatnonzero(layer == stratum)
        inside = inside[np.argsort(t[inside], kind="stable")]
        ts, zs = t[inside], z[inside]
        dying = np.flatnonzero(e[inside] == 1)
        if not dying.size:
            continue
        products = np.einsum("ij,ik->ijk", zs, zs).reshape(-1, p * p)
        times, first, group = np.unique(ts[dying], return_index=True, return_inverse=True)
        # The k-th of d tied deaths: Efron takes k/d of their weight out of the risk set.
        share = np.zeros(dying.size)
        if ties == "efron":
            share = (np.arange(dying.size) - first[group]) / np.bincount(group)[group]
        order = entered = None
        if entry is not None:
            order = np.argsort(entry[inside], kind="stable")
            entered = np.searchsorted(entry[inside][order], times)
        columns = np.column_stack([np.ones(inside.size), zs, products])
        at = np.searchsorted(ts, times)
        sets.append(_RiskSets(inside, columns, dying, group, share, at, order, entered))
    return sets


def _cox_derivatives(
    beta: np.ndarray, z: np.ndarray, sets: list[_RiskSets]
) -> tuple[float, np.ndarray, np.ndarray]:
    """Partial log likelihood (Efron or Breslow), score and information.

    Sums over risk sets are running sums from the last time backwards, one stratum at a time, so
    that no loop goes over the deaths.
    """
    eta = z @ beta
    eta = eta - eta.max()
    p = z.shape[1]
    value, score, information = 0.0, np.zeros(p), np.zeros((p, p))
    for one in sets:
        etas = eta[one.rows]
        weighted = one.columns * np.exp(etas)[:, None]
        sums = weighted[::-1].cumsum(axis=0)[::-1][one.first]
        if one.entry is not None:
            # Less the rows that have not entered yet.
            later = weighted[one.entry][::-1].cumsum(axis=0)[::-1]
            sums = sums - np.vstack([later, np.zeros(later.shape[1])])[one.entered]
        if one.first.size == one.dying.size:
            # No ties: each death is its own group, and none leaves before it.
            sums = sums[one.group]
        else:
            dead = np.zeros((one.first.size, weighted.shape[1]))
            np.add.at(dead, one.group, weighted[one.dying])
            sums = sums[one.group] - one.share[:, None] * dead[one.group]
        total = sums[:, 0]
        mean = sums[:, 1 : p + 1] / total[:, None]
        square = (sums[:, p + 1 :] / total[:, None]).sum(axis=0).reshape(p, p)
        value += float(etas[one.dying].sum() - np.log(total).sum())
        score += (one.columns[one.dying, 1 : p + 1] - mean).sum(axis=0)
        information += square - mean.T @ mean
    return value, score, information


def _exact_derivatives(
    beta: np.ndarray, t: np.ndarray, e: np.ndarray, z: np.ndarray, layer: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Discrete conditional likelihood: elementary symmetric functions with their derivatives."""
    eta = z @ beta
    w = np.exp(eta)
    value, p = 0.0, z.shape[1]
    score, information = np.zeros(p), np.zeros((p, p))
    for at_risk, deaths, _ in _tied(t, e, layer):
        d = deaths.size
        b = np.zeros(d + 1)
        b[0] = 1.0
        db, ddb = np.zeros((d + 1, p)), np.zeros((d + 1, p, p))
        for row in at_risk:
            zi, wi = z[row], w[row]
            outer = np.outer(zi, zi)
            cross = zi[None, :, None] * db[:-1, None, :]
            ddb[1:] += wi * (
                ddb[:-1] + cross + cross.transpose(0, 2, 1) + b[:-1, None, None] * outer
            )
            db[1:] += wi * (db[:-1] + b[:-1, None] * zi)
            b[1:] += wi * b[:-1]
        mean = db[d] / b[d]
        value += float(eta[deaths].sum() - math.log(b[d]))
        score += z[deaths].sum(axis=0) - mean
        information += ddb[d] / b[d] - np.outer(mean, mean)
    return value, score, information


def score_residuals(
    beta: np.ndarray,
    t: np.ndarray,
    e: np.ndarray,
    z: np.ndarray,
    layer: np.ndarray | None = None,
    ties: str = "efron",
) -> np.ndarray:
    """(n, p) score residuals of Lin and Wei, Efron's or Breslow's ties; they add up to the score.

    Examples
    --------
    >>> one = np.ones(2)
    >>> float(score_residuals(np.zeros(1), np.array([1.0, 2]), one, np.array([[1.0], [0]])).sum())
    0.5
    """
    w = np.exp(z @ beta - (z @ beta).max())
    residuals = np.zeros_like(z)
    for at_risk, deaths, _ in _tied(t, e, np.zeros(t.size, int) if layer is None else layer):
        d = deaths.size
        dying = np.isin(at_risk, deaths)
        for k in range(d):
            share = k / d if ties == "efron" else 0.0
            total, mean, _ = _moments(z, w, at_risk, deaths, share)
            residuals[deaths] += (z[deaths] - mean) / d
            weight = w[at_risk] * np.where(dying, 1 - share, 1.0) / total
            residuals[at_risk] -= weight[:, None] * (z[at_risk] - mean)
    return residuals


@dataclass(frozen=True)
class ProportionalHazardsTest:
    """Score test of Grambsch and Therneau, per term and for all terms together."""

    chi_squared: np.ndarray
    p_value: np.ndarray
    global_chi_squared: float
    global_p_value: float


def proportional_hazards_test(
    time: Any,
    event: Any,
    matrix: Any,
    fit: CoxFit,
    *,
    strata: Any = None,
) -> ProportionalHazardsTest:
    """Test that hazard ratios do not change with time, as R's ``cox.zph`` (survival 3).

    Time is taken as 1 - Kaplan-Meier just before it.

    Parameters
    ----------
    time, event, matrix
        As they were fitted.
    fit
        Result of :func:`fit_cox`.
    strata
        (n,) labels with baselines of their own, as they were fitted.

    Examples
    --------
    >>> t, e, x = [4, 3, 1, 2, 5, 6], [1, 1, 1, 0, 1, 1], [[0], [1], [1], [1], [1], [0]]
    >>> proportional_hazards_test(t, e, x, fit_cox(t, e, x)).chi_squared.shape
    (1,)
    """
    t, e = check_times(time, event)
    z = np.asarray(matrix, float).reshape(t.size, -1)
    p = z.shape[1]
    z = z - z.mean(axis=0)
    layer = np.zeros(t.size, int) if strata is None else np.unique(strata, return_inverse=True)[1]
    sets = _tied(t, e, layer)
    moments = np.array([now for _, _, now in sets])
    g = 1 - kaplan_meier(t, e).survival_at(moments, just_before=True)
    deaths_at = np.array([deaths.size for _, deaths, _ in sets])
    g = g - np.average(g, weights=deaths_at)
    w = np.exp(z @ fit.coefficients)
    u = np.zeros(p)
    i11, i12, i22 = np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p))
    for (at_risk, deaths, _), gi in zip(sets, g, strict=True):
        d = deaths.size
        u += gi * z[deaths].sum(axis=0)
        for k in range(d):
            share = k / d if fit.ties == "efron" else 0.0
            _, mean, spread = _moments(z, w, at_risk, deaths, share)
            u -= gi * mean
            i11 += spread
            i12 += gi * spread
            i22 += gi**2 * spread
    if np.ptp(moments) == 0:
        # Every event is at one time: hazards cannot change between times.
        nothing = np.full(p, np.nan)
        return ProportionalHazardsTest(nothing, nothing, math.nan, math.nan)
    # Each term alone is added to the fitted model; the score of the model itself is zero.
    full = i22 - i12 @ np.linalg.solve(i11, i12)
    chi = np.array(
        [u[j] ** 2 / (i22[j, j] - i12[j] @ np.linalg.solve(i11, i12[j])) for j in range(p)]
    )
    together = float(u @ np.linalg.solve(full, u))
    return ProportionalHazardsTest(
        chi, scipy.stats.chi2.sf(chi, 1), together, float(scipy.stats.chi2.sf(together, p))
    )


def restricted_mean(time: Any, event: Any, tau: float, alpha: float = 0.05) -> Estimate:
    """Area under the Kaplan-Meier curve up to tau, Greenwood-type standard error.

    Raises
    ------
    NotComputable
        If follow-up ends before tau while the curve is above 0.

    Examples
    --------
    >>> result = restricted_mean([1, 2, 3, 4], [1, 1, 1, 1], 4)
    >>> result.estimate, round(result.se, 4)
    (2.5, 0.559)
    """
    t, e = check_times(time, event)
    curve = kaplan_meier(t, e)
    if t.max() < tau and curve.survival[-1] > 0:
        raise NotComputable(f"follow-up ends at {t.max():g}, before tau {tau:g}")
    inside = curve.time < tau
    edges = np.concatenate([[0.0], curve.time[inside], [tau]])
    heights = np.concatenate([[1.0], curve.survival[inside]])
    pieces = np.diff(edges) * heights
    area = float(pieces.sum())
    beyond = pieces[::-1].cumsum()[::-1][1:]
    deaths, at_risk = curve.events[inside], curve.at_risk[inside]
    left = at_risk - deaths
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where((deaths > 0) & (left > 0), beyond**2 * deaths / (at_risk * left), 0.0)
    return normal_estimate(area, float(np.sqrt(terms.sum())), alpha)


def restricted_mean_difference(a: Estimate, b: Estimate, alpha: float = 0.05) -> Estimate:
    """Difference a - b of restricted means of different participants, normal."""
    error = math.hypot(a.se, b.se)
    return t_estimate(a.estimate - b.estimate, error, math.inf, alpha)


@dataclass(frozen=True)
class Concordance:
    """Harrell's C with its counts; ties in risk count half."""

    estimate: float
    standard_error: float
    tied_risk: float

    def within_bounds(self, alpha: float = 0.05) -> Estimate:
        """Normal interval, cut at 0 and 1."""
        found = normal_estimate(self.estimate, self.standard_error, alpha, low=0.0, high=1.0)
        return replace(found, p_value=math.nan)


def risk_order(risk: Any) -> np.ndarray:
    """Place of each score in their order, from 0; scores closer than 1e-9 of their range share it.

    Participants with the same covariates must tie in any order that a processor's matrix product
    adds in.

    Examples
    --------
    >>> risk_order([0.3, 2.0, 0.1 + 0.2, -1.0]).tolist()
    [1.0, 2.0, 1.0, 0.0]
    """
    r = np.asarray(risk, float).ravel()
    places, order = np.zeros(r.size), np.argsort(r, kind="stable")
    places[order[1:]] = np.cumsum(np.diff(r[order]) > 1e-9 * np.ptp(r))
    return places


def concordance(time: Any, event: Any, risk: Any) -> Concordance:
    """Harrell's concordance of a risk score (higher = earlier event) with time to event.

    Standard error by the infinitesimal jackknife over participants. Which scores are tied is
    stated by :func:`risk_order`.

    Examples
    --------
    >>> concordance([1, 2, 3, 4], [1, 1, 0, 1], [4, 3, 2, 1]).estimate
    1.0
    """
    t, e = check_times(time, event)
    return weighted_concordance(t, e, risk_order(risk), e)


def weighted_concordance(
    t: np.ndarray, e: np.ndarray, r: np.ndarray, weight: np.ndarray
) -> Concordance:
    """Share of ordered pairs in which the earlier event has the higher score (ties made equal).

    ``weight`` (n,) is that of the pairs in which a participant has the earlier event; 0 for none.

    Raises
    ------
    NotComputable
        If no pair can be ordered.
    """
    n = t.size
    pairs, scores = np.zeros(n), np.zeros(n)
    good = bad = 0.0
    rows = np.flatnonzero(weight > 0)
    # A block of rows at a time: all pairs of 10 000 participants would need gigabytes.
    for start in range(0, rows.size, 256):
        own = rows[start : start + 256]
        w, mine = weight[own], t[own][:, None]
        # Pair (i, j): i had the event, and j was still without one after it.
        later = (mine < t) | ((mine == t) & (e == 0))
        higher, lower = later & (r[own][:, None] > r), later & (r[own][:, None] < r)
        value = higher + 0.5 * (later & ~higher & ~lower)
        pairs[own] += w * later.sum(axis=1)
        scores[own] += w * value.sum(axis=1)
        pairs += w @ later
        scores += w @ value
        good, bad = good + float(w @ higher.sum(axis=1)), bad + float(w @ lower.sum(axis=1))
    total = pairs.sum() / 2
    if total == 0:
        raise NotComputable("no pair of participants can be ordered by their times")
    c = float(scores.sum() / 2 / total)
    error = float(np.sqrt(np.sum((scores - c * pairs) ** 2)) / total)
    return Concordance(c, error, float(total - good - bad))


def _restricted_cubic_spline(values: Any, knots: Sequence[float]) -> np.ndarray:
    """(n, k - 1) basis of Harrell's restricted cubic spline; its first column are the values."""
    x, k = np.asarray(values, float), np.asarray(knots, float)
    if k.size < 3 or np.any(np.diff(k) <= 0):
        raise NotComputable("a spline needs three distinct knots")
    norm = (k[-1] - k[0]) ** 2

    def cube(knot: float) -> np.ndarray:
        return np.maximum(x - knot, 0) ** 3

    columns = [x]
    for j in range(k.size - 2):
        columns.append(
            (
                cube(k[j])
                - cube(k[-2]) * (k[-1] - k[j]) / (k[-1] - k[-2])
                + cube(k[-1]) * (k[-2] - k[j]) / (k[-1] - k[-2])
            )
            / norm
        )
    return np.column_stack(columns)


@dataclass(frozen=True)
class HazardCurve:
    """Hazard ratio along a continuous covariate ``at`` values against a reference.

    ``nonlinearity_p`` is the likelihood-ratio p of the restricted cubic spline with these ``knots``
    against a straight line; its columns come last in the ``matrix`` of the Cox ``fit``.
    """

    at: np.ndarray
    log_hazard_ratio: np.ndarray
    standard_error: np.ndarray
    reference: float
    knots: tuple[float, ...]
    nonlinearity_p: float
    fit: CoxFit
    matrix: np.ndarray


def hazard_along(
    time: Any, event: Any, values: Any, at: Any, *, others: Any = None, reference: Any = None
) -> HazardCurve:
    """Hazard ratio along a covariate, by a restricted cubic spline in a Cox model.

    Parameters
    ----------
    time, event, values
        (n,) times, event flags and covariate.
    at
        Where the curve is wanted.
    others
        (n, p) further covariates.
    reference
        Value with hazard ratio 1; default the median.

    Raises
    ------
    NotComputable
        If the values have fewer than three distinct knots, or the model cannot be fitted.

    Notes
    -----
    Knots at the 5th, 35th, 65th and 95th percentile (Harrell, Regression modeling strategies).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> x = rng.uniform(0, 4, 300)
    >>> curve = hazard_along(rng.exponential(np.exp(-0.5 * x)), np.ones(300), x, [1.0, 3.0])
    >>> bool(abs(np.diff(curve.log_hazard_ratio)[0] - 1.0) < 0.3)
    True
    """
    x = np.asarray(values, float)
    knots = np.unique(np.quantile(x, [0.05, 0.35, 0.65, 0.95]))
    centre = float(np.median(x)) if reference is None else float(reference)
    basis = _restricted_cubic_spline(x, knots.tolist())
    columns = np.zeros((x.size, 0)) if others is None else np.asarray(others, float)
    matrix = np.column_stack([columns, basis])
    line = fit_cox(time, event, matrix[:, : columns.shape[1] + 1])
    fit = fit_cox(time, event, matrix)
    where = np.asarray(at, float)
    gap = _restricted_cubic_spline(where, knots.tolist()) - _restricted_cubic_spline(
        np.array([centre]), knots.tolist()
    )
    own = slice(columns.shape[1], None)
    variance = np.einsum("ij,jk,ik->i", gap, fit.covariance[own, own], gap)
    gain = 2 * (fit.log_likelihood[0] - line.log_likelihood[0])
    return HazardCurve(
        where,
        gap @ fit.coefficients[own],
        np.sqrt(np.maximum(variance, 0.0)),
        centre,
        tuple(map(float, knots)),
        float(scipy.stats.chi2.sf(gain, basis.shape[1] - 1)),
        fit,
        matrix,
    )


def schoenfeld_events(hazard_ratio: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Events that a log-rank test of two equal arms needs (Schoenfeld 1983).

    Examples
    --------
    >>> round(schoenfeld_events(0.5), 1)
    65.3
    """
    z = scipy.special.ndtri(1 - alpha / 2) + scipy.special.ndtri(power)
    return float(z**2 / (0.25 * math.log(hazard_ratio) ** 2))
