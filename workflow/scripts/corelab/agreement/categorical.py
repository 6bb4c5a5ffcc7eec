"""Agreement of grades and categories: kappas, Gwet's coefficients, alpha, concordance of ranks.

All chance-corrected coefficients have the form 1 - D_observed / D_expected with a distance between
two categories: 0/1 (nominal), |a - b| (linear), (a - b)^2 (quadratic). Written so, a weighted kappa
needs no table: grades that are not integers (a score averaged over regions) have one too, the
"moment form", and for integer grades it equals the usual table on the full scale. Standard errors
follow from the influence of each target (delta method); for Cohen's kappa they are exactly those of
Fleiss, Cohen and Everitt 1969 (Psychol Bull 72:323).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from corelab.agreement.estimates import (
    SEED,
    Estimate,
    Floats,
    bootstrap_interval,
    bootstrap_weights,
    p_from_normal,
    quantile_normal,
    quantile_t,
)
from corelab.measurement.selection import NotComputable

WEIGHTS = ("none", "linear", "quadratic")
LEVELS = ("nominal", "ordinal", "interval", "ratio")


@dataclass(frozen=True)
class Kappa:
    """A kappa of two readers.

    Attributes
    ----------
    estimate, ci_low, ci_high, se
        Coefficient, asymptotic normal interval, standard error.
    p_value
        Test of kappa = 0 with its null standard error.
    bootstrap_ci
        Percentile interval over targets, fixed seed; NaN if not asked for.
    percent_agreement
        100 times the share of identical grades.
    prevalence_index, bias_index
        Byrt 1993; two categories only, else NaN.
    moment_form
        True where scores are not integers and the coefficient is taken from moments.
    """

    estimate: float
    ci_low: float
    ci_high: float
    se: float
    p_value: float
    n: int
    weights: str
    percent_agreement: float
    bootstrap_ci: tuple[float, float] = (np.nan, np.nan)
    prevalence_index: float = np.nan
    bias_index: float = np.nan
    maximum: float = np.nan
    moment_form: bool = False
    method: str = ""
    note: str = ""


def _codes(
    columns: Sequence[ArrayLike], categories: Sequence[Any] | None, ordered: bool
) -> tuple[list[Floats], bool]:
    """Scores as numbers: positions in ``categories``, or the numbers themselves."""
    arrays = [np.asarray(column, dtype=object) for column in columns]
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        raise ValueError("one-dimensional columns of one length are needed")
    missing = [np.asarray(pd.isna(array)) for array in arrays]
    if categories is not None:
        return _positions(arrays, missing, list(categories)), False
    try:
        numbers = [
            np.array([np.nan if m else float(v) for v, m in zip(a, gone, strict=True)])
            for a, gone in zip(arrays, missing, strict=True)
        ]
    except (TypeError, ValueError):
        if ordered:
            raise ValueError(
                "grades are text: pass `categories` in their order, because alphabetical order is "
                "no order of grades"
            ) from None
        there = [v for a, m in zip(arrays, missing, strict=True) for v in a[~m]]
        return _positions(arrays, missing, sorted(set(map(str, there)))), False
    known = np.concatenate([n[~np.isnan(n)] for n in numbers])
    if np.isinf(known).any():
        raise ValueError("infinite grades cannot be compared")
    return numbers, bool((known != np.round(known)).any())


def _positions(
    arrays: Sequence[np.ndarray], missing: Sequence[np.ndarray], categories: list[Any]
) -> list[Floats]:
    if len(set(map(str, categories))) != len(categories) or len(categories) < 2:
        raise ValueError(f"categories {categories}: two or more different ones are needed")
    place: dict[Any, float] = {}
    for index, category in enumerate(categories):
        place[category] = place[str(category)] = float(index)
    result = []
    for array, gone in zip(arrays, missing, strict=True):
        column = np.full(len(array), np.nan)
        for i, value in enumerate(array):
            if gone[i]:
                continue
            whole = isinstance(value, float) and value.is_integer()
            key = value if value in place else str(int(value) if whole else value)
            if key not in place:
                raise ValueError(f"grade {value!r} is not one of the categories {categories}")
            column[i] = place[key]
        result.append(column)
    return result


def _distance(x: Floats, y: Floats, weights: str) -> Floats:
    if weights == "none":
        return (x != y).astype(np.float64)
    if weights == "linear":
        return np.abs(x - y)
    if weights == "quadratic":
        return (x - y) ** 2
    raise ValueError(f"unknown weights '{weights}': none, linear or quadratic")


def weighted_kappa(
    a: ArrayLike,
    b: ArrayLike,
    weights: str | None = "quadratic",
    categories: Sequence[Any] | None = None,
    *,
    alpha: float = 0.05,
    resamples: int = 0,
    seed: int = SEED,
) -> Kappa:
    """Cohen's kappa of two readers, plain, linear or quadratic, with interval.

    Parameters
    ----------
    a, b
        One grade per target; targets with a missing grade are left out.
    weights
        ``none`` (or None), ``linear`` or ``quadratic``.
    categories
        All grades of the scale in their order; needed for text. Distances are then between
        positions in it. Without it numbers are taken as they are, so levels that nobody used still
        count in the distance, and scores that are not integers get the moment form.
    alpha
        1 - confidence level.
    resamples, seed
        Bootstrap resamples for ``bootstrap_ci`` (0: none) and their seed.

    Raises
    ------
    NotComputable
        Fewer than 2 targets, or both readers gave one and the same grade throughout.
    ValueError
        A grade outside ``categories``; text without ``categories`` for ordered weights.

    Examples
    --------
    >>> a = [0] * 50 + [1] * 30 + [2] * 20
    >>> b = [0]*44 + [1]*5 + [2]*1 + [0]*7 + [1]*20 + [2]*3 + [0]*9 + [1]*5 + [2]*6
    >>> kappa = weighted_kappa(a, b)
    >>> round(kappa.estimate, 4), round(kappa.ci_low, 4), round(kappa.ci_high, 4)
    (0.4545, 0.2703, 0.6387)
    """
    weights = weights or "none"
    if weights == "unweighted":
        weights = "none"
    (x, y), moment = _codes((a, b), categories, ordered=weights != "none")
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    n = x.size
    if n < 2:
        raise NotComputable(f"{n} targets graded by both, at least 2 are needed")
    levels, place = np.unique(np.concatenate([x, y]), return_inverse=True)
    if levels.size == 1:
        raise NotComputable(f"no variance: both readers gave {levels[0]:g} to all {n} targets")
    pair = _Pair(place[:n], place[n:], _distance(levels[:, None], levels[None, :], weights))
    kappa, se, null_se = pair.kappa(), pair.standard_error(), pair.null_error()
    half = quantile_normal(alpha) * se
    kind = {"none": "Cohen's kappa", "linear": "linear weights", "quadratic": "quadratic weights"}
    prevalence, bias = pair.indices()
    return Kappa(
        estimate=kappa,
        ci_low=kappa - half,
        ci_high=kappa + half,
        se=se,
        p_value=p_from_normal(kappa / null_se) if null_se > 0 else np.nan,
        n=n,
        weights=weights,
        percent_agreement=100.0 * float(np.mean(x == y)),
        bootstrap_ci=_kappa_bootstrap(pair, resamples, seed, alpha)
        if resamples
        else (np.nan, np.nan),
        prevalence_index=prevalence,
        bias_index=bias,
        maximum=_largest_kappa(pair.row, pair.column) if weights == "none" else np.nan,
        moment_form=moment,
        method=f"{kind[weights]}; Fleiss-Cohen-Everitt 1969 asymptotic interval"
        + ("; moment form (scores are not integers)" if moment else ""),
    )


@dataclass(frozen=True)
class _Pair:
    """Two readers' grades as places among the levels, and the distance between levels."""

    i: np.ndarray
    j: np.ndarray
    distance: Floats

    @cached_property
    def row(self) -> Floats:
        """Shares of the levels by the first reader."""
        return np.bincount(self.i, minlength=len(self.distance)) / self.i.size

    @cached_property
    def column(self) -> Floats:
        """Shares of the levels by the second reader."""
        return np.bincount(self.j, minlength=len(self.distance)) / self.j.size

    @cached_property
    def observed(self) -> Floats:
        """Distance of every target."""
        return self.distance[self.i, self.j]

    @cached_property
    def expected(self) -> float:
        """Mean distance of readers with these shares who know nothing of each other."""
        return float(self.row @ self.distance @ self.column)

    def kappa(self) -> float:
        """1 - observed / expected distance."""
        return 1.0 - float(self.observed.mean()) / self.expected

    def standard_error(self) -> float:
        """By the influence of each target, which is Fleiss, Cohen and Everitt's."""
        to_column, to_row = self.distance @ self.column, self.row @ self.distance
        influence = -(self.observed - self.observed.mean()) / self.expected + (
            1.0 - self.kappa()
        ) / self.expected * (to_column[self.i] + to_row[self.j] - 2.0 * self.expected)
        return float(np.sqrt(np.mean(influence**2) / self.i.size))

    def null_error(self) -> float:
        """Standard error where kappa is 0."""
        to_column, to_row = self.distance @ self.column, self.row @ self.distance
        null = -(self.distance - self.expected) + (
            to_column[:, None] + to_row[None, :] - 2.0 * self.expected
        )
        return float(np.sqrt(self.row @ null**2 @ self.column / self.i.size)) / self.expected

    def indices(self) -> tuple[float, float]:
        """Prevalence and bias index (Byrt 1993); two levels only."""
        if len(self.distance) != 2:
            return np.nan, np.nan
        same = np.mean(self.i == self.j) - 2 * np.mean((self.i == 0) & (self.j == 0))
        return float(same), float(self.row[0] - self.column[0])


def _largest_kappa(row: Floats, column: Floats) -> float:
    """Largest kappa that these margins allow (Umesh 1989)."""
    expected = float(row @ column)
    return float((np.minimum(row, column).sum() - expected) / (1.0 - expected))


def _kappa_bootstrap(pair: _Pair, resamples: int, seed: int, alpha: float) -> tuple[float, float]:
    n, levels = pair.i.size, len(pair.distance)
    drawn = bootstrap_weights(n, resamples=resamples, seed=seed) / n
    rows, columns = drawn @ np.eye(levels)[pair.i], drawn @ np.eye(levels)[pair.j]
    expected = np.sum((rows @ pair.distance) * columns, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = 1.0 - (drawn @ pair.observed) / np.where(expected > 0, expected, np.nan)
    return bootstrap_interval(values, pair.kappa(), None, alpha)


def _grades(ratings: ArrayLike, categories: Sequence[Any] | None) -> Floats:
    """Ratings (targets, readers) as numbers, NaN for missing; targets without a grade left out."""
    values = np.asarray(ratings, dtype=object)
    if values.ndim != 2:
        raise ValueError(f"ratings of shape {values.shape}: (targets, readers) is needed")
    columns, _ = _codes([values[:, c] for c in range(values.shape[1])], categories, ordered=False)
    numbers = np.column_stack(columns)
    return numbers[(~np.isnan(numbers)).any(axis=1)]


def _counts(grades: Floats, categories: Sequence[Any] | None = None) -> tuple[Floats, Floats]:
    """Readers per category for each target, and the categories as numbers."""
    if categories is None:
        levels = np.unique(grades[~np.isnan(grades)])
    else:
        levels = np.arange(len(categories), dtype=np.float64)
    counts = (grades[:, :, None] == levels).sum(axis=1).astype(np.float64)
    return counts, levels


def _linearised(
    value: float, influence: Floats, alpha: float, method: str, note: str = ""
) -> Estimate:
    """Interval from the influence of each target, t with n - 1 df (Gwet 2014)."""
    n = influence.size
    se = float(np.sqrt(np.sum((influence - influence.mean()) ** 2) / (n * (n - 1))))
    half = quantile_t(n - 1, alpha) * se
    p_value = float(2 * special.stdtr(n - 1, -abs(value / se))) if se > 0 else np.nan
    return Estimate(value, value - half, min(value + half, 1.0), p_value, n, method, note, se)


def fleiss_kappa(
    ratings: ArrayLike, categories: Sequence[Any] | None = None, *, alpha: float = 0.05
) -> Estimate:
    """Fleiss' kappa of several readers (1971); interval by linearisation, t.

    ``p_value`` is the classical test of 0 with the null error of Fleiss, Nee and Landis 1979.
    Targets with a missing grade are left out (never a category of their own).

    Examples
    --------
    >>> round(fleiss_kappa([[1, 1, 1], [1, 2, 1], [2, 2, 2], [3, 3, 2]]).estimate, 4)
    0.4667
    """
    grades = _grades(ratings, categories)
    complete = grades[~np.isnan(grades).any(axis=1)]
    dropped = len(grades) - len(complete)
    n, k = complete.shape
    if n < 2 or k < 2:
        raise NotComputable(f"{n} complete targets and {k} readers: 2 of each are needed")
    counts, _ = _counts(complete)
    share = counts.sum(axis=0) / (n * k)
    if share.size == 1:
        raise NotComputable("no variance: all grades are equal")
    agreement = (np.sum(counts**2, axis=1) - k) / (k * (k - 1))
    observed, expected = float(agreement.mean()), float(np.sum(share**2))
    kappa = (observed - expected) / (1.0 - expected)
    influence = (
        (agreement - observed) * (1.0 - expected)
        - (1.0 - observed) * 2.0 * ((counts / k - share) @ share)
    ) / (1.0 - expected) ** 2
    note = f"{dropped} targets with a missing grade left out" if dropped else ""
    result = _linearised(kappa, influence, alpha, "Fleiss 1971; linearised interval, t", note)
    both = share * (1.0 - share)
    null = (
        2.0
        / (np.sum(both) ** 2 * n * k * (k - 1))
        * (np.sum(both) ** 2 - np.sum(both * (1.0 - 2.0 * share)))
    )
    return Estimate(
        kappa,
        result.ci_low,
        result.ci_high,
        p_from_normal(kappa / np.sqrt(null)),
        n,
        result.method + "; p with null error of Fleiss 1979",
        note,
        float(np.sqrt(null)),
    )


def conger_kappa(ratings: ArrayLike, categories: Sequence[Any] | None = None) -> Estimate:
    """Conger's exact kappa (1980): Fleiss' with each reader's own margins.

    Examples
    --------
    >>> round(conger_kappa([[1, 1, 1], [1, 2, 1], [2, 2, 2], [3, 3, 2]]).estimate, 4)
    0.4839
    """
    grades = _grades(ratings, categories)
    grades = grades[~np.isnan(grades).any(axis=1)]
    counts, levels = _counts(grades)
    n, k = grades.shape
    if n < 2 or levels.size < 2:
        raise NotComputable("no variance or fewer than 2 complete targets")
    observed = float(np.mean((np.sum(counts**2, axis=1) - k) / (k * (k - 1))))
    margins = np.stack([(grades == level).mean(axis=0) for level in levels])
    expected = float(
        np.sum((margins.sum(axis=1) / k) ** 2) - np.sum(margins.var(axis=1, ddof=1) / k)
    )
    return Estimate((observed - expected) / (1.0 - expected), n=n, method="Conger 1980")


def light_kappa(
    ratings: ArrayLike, weights: str = "none", categories: Sequence[Any] | None = None
) -> Estimate:
    """Light's kappa (1971): mean of Cohen's kappas of all pairs of readers.

    Examples
    --------
    >>> round(light_kappa([[1, 1, 1], [1, 2, 1], [2, 2, 2], [3, 3, 2]]).estimate, 4)
    0.4788
    """
    grades = _grades(ratings, categories)
    pairs = [
        weighted_kappa(grades[:, i], grades[:, j], weights).estimate
        for i, j in combinations(range(grades.shape[1]), 2)
    ]
    return Estimate(float(np.mean(pairs)), n=len(grades), method=f"Light 1971, {weights} weights")


def gwet_ac(
    ratings: ArrayLike,
    weights: str = "none",
    categories: Sequence[Any] | None = None,
    *,
    alpha: float = 0.05,
) -> Estimate:
    """Gwet's AC1 (no weights) or AC2 (linear, quadratic), missing grades allowed.

    Gwet 2008 (Br J Math Stat Psychol 61:29) and 2014, chapter 5; interval: linearisation, t.
    Defined also where all grades are equal but the scale has more categories.

    Examples
    --------
    >>> round(gwet_ac([[1, 1, 1], [1, 2, 1], [2, 2, 2], [3, 3, 2]]).estimate, 4)
    0.5152
    """
    grades = _grades(ratings, categories)
    counts, levels = _counts(grades, categories)
    q = levels.size
    if q < 2:
        raise NotComputable("one category only: pass the scale's `categories`")
    distance = _distance(levels[:, None], levels[None, :], weights)
    weight = 1.0 - distance / distance.max()
    per_target = counts.sum(axis=1)
    twice = per_target >= 2
    n = len(counts)
    if twice.sum() < 2:
        raise NotComputable("fewer than 2 targets graded by two readers")
    weighted = counts @ weight
    pairs = np.where(twice, per_target * (per_target - 1), 1.0)
    agreement = np.where(twice, np.sum(counts * (weighted - 1.0), axis=1) / pairs, 0.0)
    share = (counts / per_target[:, None]).mean(axis=0)
    factor = float(weight.sum()) / (q * (q - 1))
    observed = float(agreement[twice].mean())
    expected = factor * float(np.sum(share * (1.0 - share)))
    value = (observed - expected) / (1.0 - expected)
    n_twice = int(twice.sum())
    part = np.where(twice, n / n_twice * (agreement - expected) / (1.0 - expected), 0.0)
    local = factor * ((counts / per_target[:, None]) @ (1.0 - share))
    influence = part - 2.0 * (1.0 - value) * (local - expected) / (1.0 - expected)
    name = "AC1" if weights == "none" else f"AC2, {weights} weights"
    return _linearised(value, influence, alpha, f"Gwet {name}; linearised interval, t")


def percent_agreement(
    ratings: ArrayLike, categories: Sequence[Any] | None = None, *, alpha: float = 0.05
) -> Estimate:
    """Percent of pairs of readers that give a target the same grade, with interval.

    Two readers: Wilson interval of a proportion; more: linearised over targets, t.

    Examples
    --------
    >>> result = percent_agreement([[1, 1], [2, 2], [1, 2], [3, 3]])
    >>> result.estimate
    75.0
    """
    from corelab.agreement.metrology import proportion

    grades = _grades(ratings, categories)
    counts, _ = _counts(grades)
    per_target = counts.sum(axis=1)
    counts, per_target = counts[per_target >= 2], per_target[per_target >= 2]
    n = len(counts)
    if n < 2:
        raise NotComputable("fewer than 2 targets graded by two readers")
    same = (np.sum(counts**2, axis=1) - per_target) / (per_target * (per_target - 1))
    if (per_target == 2).all():
        found = proportion(round(float(same.sum())), n, alpha=alpha)
        return found.times(100.0, "percent identical; Wilson interval")
    mean = float(same.mean())
    half = quantile_t(n - 1, alpha) * float(same.std(ddof=1)) / np.sqrt(n)
    return Estimate(
        100 * mean,
        100 * max(mean - half, 0.0),
        100 * min(mean + half, 1.0),
        n=n,
        method="percent of identical pairs of readers; t over targets",
    )


def _alpha_distance(levels: Floats, totals: Floats, level: str) -> Floats:
    x, y = levels[:, None], levels[None, :]
    if level == "nominal":
        return (x != y).astype(np.float64)
    if level == "interval":
        return (x - y) ** 2
    if level == "ratio":
        both = x + y
        return np.where(both == 0, 0.0, (x - y) / np.where(both == 0, 1.0, both)) ** 2
    if level == "ordinal":
        running = np.cumsum(totals)
        middle = running - totals / 2.0
        return (middle[:, None] - middle[None, :]) ** 2
    raise ValueError(f"unknown level '{level}': {', '.join(LEVELS)}")


def krippendorff_alpha(
    ratings: ArrayLike,
    level: str = "nominal",
    *,
    categories: Sequence[Any] | None = None,
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = SEED,
) -> Estimate:
    """Krippendorff's alpha of any number of readers with gaps, bootstrap over targets.

    Krippendorff 2011 (Computing Krippendorff's alpha-reliability); interval: BCa over targets with
    a fixed seed (for ``ordinal`` the distances are kept as in the sample).

    Parameters
    ----------
    ratings
        (targets, readers), NaN where there is none; targets with one grade do not count.
    level
        ``nominal``, ``ordinal``, ``interval`` or ``ratio``.
    categories
        All grades of the scale, for text grades.
    alpha
        1 - confidence level.
    resamples, seed
        Of the bootstrap; 0 resamples give no interval.

    Examples
    --------
    >>> table = [[1, 1], [2, 2], [3, 3], [3, 4], [2, 2], [1, 2], [4, 4]]
    >>> round(krippendorff_alpha(table, "ordinal", resamples=200).estimate, 4)
    0.8902
    """
    grades = _grades(ratings, categories)
    grades = grades[(~np.isnan(grades)).sum(axis=1) >= 2]
    n = len(grades)
    if n < 2:
        raise NotComputable("fewer than 2 targets with two readings")
    counts, levels = _counts(grades)
    if levels.size < 2:
        raise NotComputable("no variance: all readings are equal")
    per_target = counts.sum(axis=1)
    distance = _alpha_distance(levels, counts.sum(axis=0), level)
    observed = np.sum((counts @ distance) * counts, axis=1) / (per_target - 1.0)

    def coefficient(totals: Floats, size: Floats, disagreement: Floats) -> Floats:
        expected = np.sum((totals @ distance) * totals, axis=1) / (size - 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1.0 - disagreement / np.where(expected > 0, expected, np.nan)

    totals, size, disagreement = counts.sum(axis=0), per_target.sum(), observed.sum()
    value = float(coefficient(totals[None], size[None], disagreement[None])[0])
    low = high = np.nan
    if resamples:
        drawn = bootstrap_weights(n, resamples=resamples, seed=seed)
        resampled = coefficient(drawn @ counts, drawn @ per_target, drawn @ observed)
        left_out = coefficient(totals - counts, size - per_target, disagreement - observed)
        low, high = bootstrap_interval(resampled, value, left_out, alpha)
    method = f"Krippendorff 2011, {level}; BCa over targets, {resamples} resamples"
    if resamples and not low <= value <= high:
        note = "interval not defined: the resampled values do not surround the estimate"
        return Estimate(value, n=n, method=method, note=note)
    return Estimate(value, low, high, n=n, method=method)


def kendall_w(ratings: ArrayLike) -> Estimate:
    """Kendall's coefficient of concordance W with tie correction; chi-square test.

    Examples
    --------
    >>> round(kendall_w([[1, 2, 1], [2, 1, 3], [3, 3, 2], [4, 4, 4]]).estimate, 4)
    0.7778
    """
    from scipy import stats

    values = np.asarray(ratings, dtype=np.float64)
    values = values[~np.isnan(values).any(axis=1)]
    n, k = values.shape
    if n < 3 or k < 2:
        raise NotComputable(f"{n} complete targets and {k} readers: 3 and 2 are needed")
    ranks = np.apply_along_axis(stats.rankdata, 0, values)
    ties = sum(
        float(np.sum(c**3 - c))
        for c in (np.unique(ranks[:, j], return_counts=True)[1] for j in range(k))
    )
    sums = ranks.sum(axis=1)
    bottom = k**2 * (n**3 - n) - k * ties
    if bottom <= 0:
        raise NotComputable("no variance: every reader tied all targets")
    w = 12.0 * float(np.sum((sums - sums.mean()) ** 2)) / bottom
    return Estimate(
        w,
        p_value=float(special.chdtrc(n - 1, k * (n - 1) * w)),
        n=n,
        method="Kendall's W, corrected for ties; chi-square test",
    )
