"""Does agreement change: by thirds of the reading sequence, by site, lesion size, visit, reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from corelab.agreement import clusters as groups_of
from corelab.agreement.clusters import Codes
from corelab.agreement.differences import regression_slope
from corelab.agreement.estimates import (
    Floats,
    bootstrap_interval,
    bootstrap_p,
    bootstrap_weights,
    t_estimate,
)
from corelab.agreement.icc import (
    IntraclassCorrelation,
    intraclass_correlation,
    weighted_icc,
)
from corelab.measurement.selection import NotComputable
from corelab.settings.analyses.agreement import SEED
from corelab.terms.results import Estimate


def thirds(order: ArrayLike) -> np.ndarray:
    """1, 2 or 3 for every target, by its place in an order; ties by position.

    Examples
    --------
    >>> thirds([10, 40, 20, 60, 50, 30]).tolist()
    [1, 2, 1, 3, 3, 2]
    """
    places = np.argsort(np.argsort(np.asarray(order, dtype=np.float64), kind="stable"))
    return (3 * places) // len(places) + 1


@dataclass(frozen=True)
class Drift:
    """Agreement of two readers over their reading sequence.

    ``by_third``: ICC of the targets in each third. ``change``: ICC of the last third minus that of
    the first, bootstrap. ``bias_slope``: change of a - b from the first to the last read (slope on
    relative place, 0 to 1). ``learning_slope``: slope of log abs(a - b) on log place, negative
    where readers get better.
    """

    by_third: tuple[IntraclassCorrelation, ...]
    change: Estimate
    bias_slope: Estimate
    learning_slope: Estimate


def drift_by_thirds(
    ratings: ArrayLike,
    order: ArrayLike,
    *,
    form: str = "icc_a_1",
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = SEED,
    clusters: ArrayLike | None = None,
) -> Drift:
    """Agreement of two readers by thirds of the reading sequence, and tests of a trend.

    ``ratings`` are (n targets, 2 readers), complete; ``order`` is the place of each target in the
    sequence (of a reader, or the mean of both readers' places). The bootstrap draws clusters over
    all thirds; without them, targets within thirds.

    Raises NotComputable: fewer than 9 targets: a third needs 3.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> noise = np.repeat([1.0, 8.0], [60, 30])
    >>> ratings = rng.normal(30, 8, (90, 1)) + noise[:, None] * rng.normal(size=(90, 2))
    >>> drift_by_thirds(ratings, np.arange(90), resamples=300).change.ci_high < 0
    True
    """
    values = np.asarray(ratings, dtype=np.float64)
    places = np.asarray(order, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or len(places) != len(values):
        raise ValueError("(targets, 2 readers) and one place per target are needed")
    known = ~(np.isnan(values).any(axis=1) | np.isnan(places))
    codes = groups_of.subset(groups_of.codes_of(clusters, len(values)), known)
    values, places = values[known], places[known]
    n = len(values)
    if n < 9:
        raise NotComputable(f"{n} targets with a place in the sequence, 9 are needed for thirds")
    part = thirds(places)
    inside = [part == third for third in (1, 2, 3)]
    own = [groups_of.subset(codes, one) for one in inside]
    found = tuple(
        intraclass_correlation(values[one], alpha=alpha, clusters=code)[form]
        for one, code in zip(inside, own, strict=True)
    )
    difference = values[:, 0] - values[:, 1]
    relative = np.argsort(np.argsort(places, kind="stable")) / (n - 1.0)
    distance = np.abs(difference - np.median(difference))
    floor = np.min(distance[distance > 0], initial=1.0) / 2.0
    return Drift(
        found,
        _change(values, part, codes, form, alpha, resamples, seed),
        regression_slope(relative, difference, alpha=alpha, clusters=codes),
        regression_slope(
            np.log(relative * (n - 1) + 1),
            np.log(np.maximum(distance, floor)),
            alpha=alpha,
            clusters=codes,
        ),
    )


def _change(
    values: Floats,
    part: np.ndarray,
    codes: Codes | None,
    form: str,
    alpha: float,
    resamples: int,
    seed: int,
) -> Estimate:
    first, last = values[part == 1], values[part == 3]
    if codes is None:
        # Thirds of independent targets are resampled apart, one after the other.
        rng = np.random.default_rng(seed)
        resampled = []
        for group in (first, last):
            drawn = rng.integers(0, len(group), size=(resamples, len(group)))
            weights = np.stack([np.bincount(row, minlength=len(group)) for row in drawn])
            resampled.append(weighted_icc(group, weights.astype(np.float64), form))
        found = resampled[1] - resampled[0]
    else:
        chunks = bootstrap_weights(len(values), resamples=resamples, seed=seed, codes=codes)
        found = np.concatenate(
            [
                weighted_icc(last, weights[:, part == 3], form)
                - weighted_icc(first, weights[:, part == 1], form)
                for weights in chunks
            ]
        )
    before, after = (
        float(weighted_icc(group, np.ones((1, len(group))), form)[0]) for group in (first, last)
    )
    over = "" if codes is None else f" of {int(codes.max()) + 1} clusters"
    method = (
        f"{form} of the last third minus the first; percentile bootstrap{over}, "
        f"{resamples} resamples"
    )
    n = len(first) + len(last)
    low, high = bootstrap_interval(found, after - before, None, alpha)
    if not np.isfinite([low, high, after - before]).all():
        note = "interval not defined: too few resamples have a coefficient"
        return Estimate(after - before, n=n, method=method, note=note)
    return Estimate(after - before, low, high, bootstrap_p(found), n, method)


@dataclass(frozen=True)
class ReaderEffects:
    """How far each reader is from the mean of all readers, targets held constant.

    ``effects``: reader -> deviation with t interval. ``f``, ``df1``, ``df2`` and ``p_value``: test
    that no reader differs (systematic bias), MSJ / MSE, which no ICC test is. ``ratio``: variance
    between targets over that of the residual.
    """

    effects: Mapping[str, Estimate]
    f: float
    df1: int
    df2: int
    p_value: float
    ratio: float


def reader_effects(
    wide: pd.DataFrame, *, alpha: float = 0.05, clusters: ArrayLike | None = None
) -> ReaderEffects:
    """Systematic effect of each reader: mixed model, readers fixed and targets random, REML.

    Complete readings give what the analysis of variance gives; where cells are missing, targets
    read by few readers count for what they tell. Degrees of freedom are those within targets. In
    clusters (visits of a participant, on which a reader errs alike) the same estimates have a
    cluster-robust covariance, t and Hotelling's F over clusters. ``wide`` is targets x readers.

    Raises NotComputable if no degrees of freedom are left or readers share no targets.

    Examples
    --------
    >>> wide = pd.DataFrame({"r1": [1.0, 2.0, 3.1], "r2": [2.0, 3.1, 4.0]})
    >>> {name: round(one.estimate, 3) for name, one in reader_effects(wide).effects.items()}
    {'r1': -0.5, 'r2': 0.5}
    """
    from scipy import optimize, special

    values = wide.to_numpy(dtype=np.float64)
    twice = (~np.isnan(values)).sum(axis=1) >= 2
    codes = groups_of.subset(groups_of.codes_of(clusters, len(values)), twice)
    values = values[twice]
    n, k = values.shape
    if n < 2 or k < 2:
        raise NotComputable(f"{n} targets read by two of {k} readers: 2 of each are needed")
    seen = ~np.isnan(values)
    df2 = int(seen.sum()) - n - k + 1
    if df2 < 1 or np.linalg.matrix_rank(_laplacian(seen)) < k - 1:
        raise NotComputable("readers share too few targets to separate their effects")
    scale = float(np.nanstd(values)) or 1.0
    centred = (values - np.nanmean(values)) / scale

    def deviance(log_ratio: float) -> float:
        return _mixed(centred, float(np.exp(log_ratio))).deviance

    grid = np.linspace(-12.0, 18.0, 31)
    best = grid[int(np.argmin([deviance(one) for one in grid]))]
    found = optimize.minimize_scalar(
        deviance, bounds=(best - 1.0, best + 1.0), method="bounded", options={"xatol": 1e-10}
    )
    fit = _mixed(centred, float(np.exp(found.x)))
    contrast = np.eye(k) - 1.0 / k
    estimates = scale * contrast @ fit.effects
    covariance = scale**2 * contrast @ fit.covariance @ contrast.T
    method = "deviation from the mean of readers, mixed model with random targets (REML); t"
    if codes is not None:
        a = int(codes.max()) + 1
        if a <= k:
            raise NotComputable(f"{a} clusters (key cluster) for {k} readers: more are needed")
        covariance = scale**2 * contrast @ fit.robust(codes) @ contrast.T
        df2 = a - 1
        method += f", cluster-robust over {a} clusters"
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    effects = {
        str(name): t_estimate(float(value), float(se), df2, alpha, n=n, method=method)
        for name, value, se in zip(wide.columns, estimates, errors, strict=True)
    }
    tested = float(fit.residual) > 1e-24
    inverse = np.linalg.pinv(covariance[:-1, :-1])
    f = float(estimates[:-1] @ inverse @ estimates[:-1]) / (k - 1) if tested else np.inf
    if codes is not None:
        # Hotelling: k - 1 contrasts whose covariance comes from as many clusters.
        f, df2 = f * (df2 - k + 2) / df2, df2 - k + 2
    p_value = float(special.fdtrc(k - 1, df2, f)) if np.isfinite(f) else 0.0
    return ReaderEffects(effects, float(f), k - 1, df2, p_value, float(np.exp(found.x)))


def _laplacian(seen: np.ndarray) -> Floats:
    """Whom of the readers shared targets connect: rank k - 1 where all are."""
    mask = seen.astype(np.float64)
    shared = mask.T @ mask
    np.fill_diagonal(shared, 0.0)
    return np.diag(shared.sum(axis=1)) - shared


@dataclass(frozen=True)
class _Mixed:
    """Generalised least squares of readers at one ratio of target to residual variance."""

    deviance: float
    residual: float
    effects: Floats
    covariance: Floats
    bread: Floats
    scores: Floats

    def robust(self, codes: Codes) -> Floats:
        """Covariance of the effects from the sums of scores of each cluster."""
        own = groups_of.sums(self.scores, codes)
        a = len(own)
        found: Floats = a / (a - 1) * self.bread @ (own.T @ own) @ self.bread
        return found


def _mixed(values: Floats, ratio: float) -> _Mixed:
    """-2 REML log likelihood (but for a constant) with targets absorbed; readers are fixed."""
    seen = ~np.isnan(values)
    mask, y = seen.astype(np.float64), np.where(seen, values, 0.0)
    per_target = mask.sum(axis=1)
    weight = ratio / (1.0 + ratio * per_target)
    sums = y.sum(axis=1)
    normal = np.diag(mask.sum(axis=0)) - mask.T @ (weight[:, None] * mask)
    right = y.sum(axis=0) - mask.T @ (weight * sums)
    effects = np.linalg.solve(normal, right)
    df = int(seen.sum()) - values.shape[1]
    rss = float(np.sum(y**2) - np.sum(weight * sums**2) - effects @ right)
    residual = max(rss / df, 1e-30)
    log_det = float(np.sum(np.log1p(ratio * per_target)) + np.linalg.slogdet(normal)[1])
    bread = np.linalg.inv(normal)
    rest = mask * (y - effects)
    scores = rest - mask * (weight * rest.sum(axis=1))[:, None]
    deviance = df * float(np.log(residual)) + log_det
    return _Mixed(deviance, residual, effects, residual * bread, bread, scores)
