"""Supervised principal components for survival (Bair and Tibshirani, PLoS Biol 2004;2:E108).

Features are scored by a standardised univariate Cox score with an exchangeability constant; those
beyond a threshold give principal components, and the first of them is the risk score. The scores
are those of R superpc 1.12. Only two risk classes exist: superpc's three-class code never gives
three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.survival import check_times, concordance, fit_cox


def _cox_scores(features: np.ndarray, time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """(p,) Cox scores of (p, n) features, score / (sd + s0), s0 the median sd; Breslow ties."""
    t, e = check_times(time, event)
    x = np.asarray(features, float)
    if x.ndim != 2 or x.shape[1] != t.size:
        raise ValueError(f"features have shape {x.shape}; wanted (p, {t.size})")
    if e.sum() == 0:
        raise NotComputable("no event: features cannot be scored")
    order = np.argsort(t, kind="stable")
    t, e, x = t[order], e[order], x[:, order]
    # Centring changes no score, and keeps sums of squares from cancelling.
    x = x - x.mean(axis=1, keepdims=True)
    tail = x[:, ::-1].cumsum(axis=1)[:, ::-1]
    squares = (x**2)[:, ::-1].cumsum(axis=1)[:, ::-1]
    times = np.unique(t[e == 1])
    first = np.searchsorted(t, times)
    at_risk = t.size - first
    index = np.searchsorted(times, t[e == 1])
    deaths = np.bincount(index, minlength=times.size)
    mean = tail[:, first] / at_risk
    variance = squares[:, first] / at_risk - mean**2
    score = x[:, e == 1].sum(axis=1) - mean @ deaths
    sd = np.sqrt(np.maximum(variance @ deaths, 0.0))
    s0 = float(np.median(sd))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sd + s0 > 0, score / (sd + s0), 0.0)


@dataclass(frozen=True)
class SupervisedComponents:
    """A trained model of the first c components.

    ``selected`` (k,) features beyond the threshold with their training ``means``; (k, c) left
    singular vectors and values; ``directions`` (c,) +1 or -1, so that a higher component is a
    higher hazard; Cox ``coefficients`` (c,); ``cut``, the median of the training risk; ``scores``
    (p,) of all features.
    """

    selected: np.ndarray
    loadings: np.ndarray
    singular_values: np.ndarray
    means: np.ndarray
    directions: np.ndarray
    coefficients: np.ndarray
    cut: float
    scores: np.ndarray

    def components(self, features: np.ndarray) -> np.ndarray:
        """Components of new participants, (n, c); features are (p, n) as in training."""
        chosen = np.asarray(features, float)[self.selected]
        raw = (chosen - self.means[:, None]).T @ self.loadings / self.singular_values
        return raw * self.directions

    def risk(self, features: np.ndarray) -> np.ndarray:
        """Continuous risk score, (n,): Cox-weighted sum of the components."""
        return self.components(features) @ np.abs(self.coefficients)

    def high_risk(self, features: np.ndarray) -> np.ndarray:
        """Whether the risk score exceeds the training median."""
        return self.risk(features) > self.cut

    def importance(self, features: np.ndarray) -> np.ndarray:
        """(p,) correlation of every feature with the first component."""
        component = self.components(features)[:, 0]
        x = np.asarray(features, float)
        x = x - x.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(x, axis=1) * np.linalg.norm(component - component.mean())
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(norm > 0, x @ (component - component.mean()) / norm, 0.0)


def train(
    features: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    threshold: float,
    n_components: int = 1,
    scored: np.ndarray | None = None,
) -> SupervisedComponents:
    """Train supervised components at a threshold; ``scored`` are the features' scores if known.

    Raises
    ------
    NotComputable
        If fewer features than components pass the threshold.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 60))
    >>> 0 in train(x, rng.exponential(np.exp(-x[0])), np.ones(60), 1.5).selected
    True
    """
    # Scores do not depend on the threshold: whoever tries several gives them.
    found = _cox_scores(features, time, event) if scored is None else scored
    x = np.asarray(features, float)
    selected = np.flatnonzero(np.abs(found) >= threshold)
    if selected.size < n_components:
        raise NotComputable(
            f"{selected.size} features have a Cox score of at least {threshold:g} (largest "
            f"{np.abs(found).max():.3g}); {n_components} component(s) need more"
        )
    means = x[selected].mean(axis=1)
    u, d, _ = np.linalg.svd(x[selected] - means[:, None], full_matrices=False)
    if np.sum(d > 1e-10 * d[0]) < n_components:
        raise NotComputable("the selected features span fewer components than requested")
    u, d = u[:, :n_components], d[:n_components]
    # A singular vector's sign is arbitrary: the hazard gives it one.
    raw = (x[selected] - means[:, None]).T @ u / d
    fit = fit_cox(time, event, raw)
    directions = np.where(fit.coefficients < 0, -1.0, 1.0)
    risk = raw * directions @ np.abs(fit.coefficients)
    return SupervisedComponents(
        selected,
        u,
        d,
        means,
        directions,
        fit.coefficients * directions,
        float(np.median(risk)),
        found,
    )


def _folds(event: np.ndarray, k: int, seed: int) -> np.ndarray:
    """(n,) fold numbers, balanced over events and censored."""
    generator = np.random.default_rng(seed)
    number = np.empty(len(event), int)
    start = 0
    for value in (1, 0):
        rows = generator.permutation(np.flatnonzero(np.asarray(event) == value))
        number[rows] = (start + np.arange(rows.size)) % k
        start += rows.size
    return number


def _threshold_grid(scores: np.ndarray, points: int = 20) -> np.ndarray:
    """Thresholds over quantiles of |score|, from the median up to where few features remain."""
    return np.quantile(np.abs(scores), np.linspace(0.5, max(0.5, 0.94), points))


def scaled(features: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Features in units of their mean and SD over the training participants (``inside``).

    A feature that is constant there becomes 0 everywhere: it cannot be selected.
    """
    x = np.asarray(features, float)
    mean = x[:, inside].mean(axis=1, keepdims=True)
    spread = x[:, inside].std(axis=1, keepdims=True)
    return np.where(spread > 0, (x - mean) / np.where(spread > 0, spread, 1.0), 0.0)


def cross_validate(
    features: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    *,
    n_folds: int = 10,
    seed: int = 1,
) -> float:
    """Threshold chosen by cross-validation: scores and components from training folds only.

    It has the largest likelihood-ratio chi-squared of the pre-validated risk score in a Cox model
    stratified by fold. Features, whose units differ, are standardised by each training set.

    Raises
    ------
    NotComputable
        If no threshold works in any fold.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> x = rng.normal(size=(30, 60))
    >>> t = rng.exponential(np.exp(-x[:3].sum(axis=0)))
    >>> bool(cross_validate(x, t, np.ones(60), n_folds=5) > 0)
    True
    """
    x = np.asarray(features, float)
    everybody = scaled(x, np.ones(len(time), bool))
    grid = _threshold_grid(_cox_scores(everybody, time, event))
    number = _folds(event, n_folds, seed)
    validated = np.full((grid.size, len(time)), np.nan)
    for fold in range(n_folds):
        inside = number != fold
        own = scaled(x, inside)
        training = own[:, inside], time[inside], event[inside]
        scored = _cox_scores(*training)
        for row, threshold in enumerate(grid):
            try:
                model = train(*training, float(threshold), scored=scored)
            except NotComputable:
                continue
            validated[row, ~inside] = model.risk(own[:, ~inside])
    statistic = np.full(grid.size, np.nan)
    for row, risk in enumerate(validated):
        there = np.isfinite(risk)
        if there.all() and np.ptp(risk) > 0:
            try:
                fit = fit_cox(time, event, risk[:, None], strata=number)
            except NotComputable:
                continue
            # A risk score that points the wrong way out of sample is no evidence for it.
            gain = 2 * (fit.log_likelihood[0] - fit.log_likelihood[1])
            statistic[row] = math.copysign(gain, fit.coefficients[0])
    if not np.isfinite(statistic).any():
        raise NotComputable("no threshold leaves features in every fold of the cross-validation")
    return float(grid[int(np.nanargmax(statistic))])


@dataclass(frozen=True)
class Prevalidated:
    """Risk of every participant from a model that did not see that participant."""

    risk: np.ndarray
    high_risk: np.ndarray


def prevalidate(
    features: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    *,
    n_folds: int = 10,
    threshold: float | None = None,
    seed: int = 1,
) -> Prevalidated:
    """Outer cross-validation of the whole procedure, the choice of the threshold included.

    A ``threshold`` is fixed, such as 1.54; None chooses one in five folds of each training set.
    Risk scores are standardised within the training set of each fold, as they are compared over
    folds; high risk is above the training median.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> x = rng.normal(size=(20, 60))
    >>> t = rng.exponential(np.exp(-x[0] * 2))
    >>> result = prevalidate(x, t, np.ones(60), n_folds=5, threshold=1.5)
    >>> concordance(t, np.ones(60), result.risk).estimate > 0.7
    True
    """
    x = np.asarray(features, float)
    number = _folds(event, n_folds, seed)
    risk, high = np.zeros(len(time)), np.zeros(len(time), bool)
    for fold in range(n_folds):
        inside = number != fold
        own = scaled(x, inside)
        try:
            value = threshold
            if value is None:
                value = cross_validate(
                    x[:, inside], time[inside], event[inside], n_folds=5, seed=seed + fold
                )
            model = train(own[:, inside], time[inside], event[inside], value)
        except NotComputable:
            # No feature passes in this training set: everybody has the average risk.
            continue
        trained = model.risk(own[:, inside])
        risk[~inside] = (model.risk(own[:, ~inside]) - trained.mean()) / trained.std()
        high[~inside] = model.high_risk(own[:, ~inside])
    return Prevalidated(risk, high)


def permutation_p(
    features: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    *,
    permutations: int = 199,
    n_folds: int = 10,
    threshold: float | None = None,
    seed: int = 1,
) -> tuple[float, float]:
    """Concordance of the pre-validated risk, and its permutation p for the whole procedure.

    Times (with their events) are permuted against features, and everything is repeated.

    Returns
    -------
    concordance, p_value

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> x = rng.normal(size=(20, 60))
    >>> t = rng.exponential(np.exp(-x[0] * 2))
    >>> permutation_p(x, t, np.ones(60), permutations=9, n_folds=5, threshold=1.5)[1]
    0.1
    """
    generator = np.random.default_rng(seed)

    def performance(order: np.ndarray) -> float:
        t, e = np.asarray(time, float)[order], np.asarray(event, float)[order]
        result = prevalidate(features, t, e, n_folds=n_folds, threshold=threshold, seed=seed)
        return concordance(t, e, result.risk).estimate

    observed = performance(np.arange(len(time)))
    beyond = sum(
        performance(generator.permutation(len(time))) >= observed for _ in range(permutations)
    )
    return observed, (1 + beyond) / (1 + permutations)
