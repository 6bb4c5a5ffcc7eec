"""Agreement of grades and categories: kappas, Gwet's coefficients, alpha, concordance of ranks.

All chance-corrected coefficients have the form 1 - D_observed / D_expected with a distance between
two categories: 0/1 (nominal), |a - b| (linear), (a - b)^2 (quadratic). Written so, a weighted kappa
needs no table: grades that are not integers (a score averaged over regions) have one too, the
"moment form", and for integer grades it equals the usual table on the full scale. Standard errors
follow from the influence of each target (delta method); for Cohen's kappa they are exactly those of
Fleiss, Cohen and Everitt 1969 (Psychol Bull 72:323).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from corelab.agreement import clusters as groups_of
from corelab.agreement.clusters import Codes
from corelab.agreement.estimates import (
    Floats,
    bootstrap_interval,
    bootstrap_weights,
    p_from_normal,
    p_from_t,
    quantile_normal,
    quantile_t,
)
from corelab.agreement.metrology import proportion
from corelab.measurement.selection import NotComputable
from corelab.settings.analyses.agreement import SEED
from corelab.terms.results import Estimate, join_notes

#: More different values than this are no grades; a table of their distances would fill the memory.
MOST_LEVELS = 1000
LEVELS = ("nominal", "ordinal", "interval", "ratio")


@dataclass(frozen=True, kw_only=True)
class Kappa(Estimate):
    """A kappa of two readers; its interval is asymptotic, not beyond -1 and 1.

    ``p_value`` tests kappa = 0 with the standard error of the interval; ``method`` has that with
    the standard error under kappa = 0 (Fleiss, Cohen and Everitt 1969), as R vcd and SAS print it.
    ``bootstrap_ci``: percentile interval, NaN if not requested. ``prevalence_index`` and
    ``bias_index``: Byrt 1993, two categories only. ``maximum``: the largest kappa that the margins
    allow (Umesh 1989), without weights only.
    """

    weights: str
    bootstrap_ci: tuple[float, float] = (np.nan, np.nan)
    prevalence_index: float = np.nan
    bias_index: float = np.nan
    maximum: float = np.nan
    n_clusters: int = 0


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
    clusters: ArrayLike | None = None,
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
        positions in it. Without it numbers are taken as they are, and scores that are not integers
        get the moment form.
    resamples, seed
        Of the bootstrap for ``bootstrap_ci``; 0 resamples give none.
    alpha, clusters
        With clusters: standard error from the sums of influences of each cluster, t over clusters;
        the bootstrap draws clusters.

    Raises
    ------
    NotComputable
        Fewer than 2 targets, or both readers gave one and the same grade throughout.
    ValueError
        A grade outside ``categories``; text without ``categories`` for ordered weights.

    Examples
    --------
    >>> round(weighted_kappa([0, 0, 1, 2, 2], [0, 1, 1, 2, 2]).estimate, 4)
    0.8571
    """
    weights = "none" if weights is None or weights == "unweighted" else weights
    (x, y), moment = _codes((a, b), categories, ordered=weights != "none")
    both = ~(np.isnan(x) | np.isnan(y))
    codes = groups_of.subset(groups_of.codes_of(clusters, both.size), both)
    x, y = x[both], y[both]
    n = x.size
    if n < 2:
        raise NotComputable(f"{n} targets graded by both, at least 2 are needed")
    levels, place = np.unique(np.concatenate([x, y]), return_inverse=True)
    if levels.size == 1:
        raise NotComputable(f"no variance: both readers gave {levels[0]:g} to all {n} targets")
    _few_enough(levels)
    pair = _Pair(place[:n], place[n:], _distance(levels[:, None], levels[None, :], weights))
    kappa, null_se = pair.kappa(), pair.null_error()
    se, df = pair.standard_error(codes)
    half = (quantile_normal(alpha) if codes is None else quantile_t(df, alpha)) * se
    p_null = p_from_normal(kappa / null_se) if null_se > 0 else np.nan
    p_value = p_null if codes is None else np.nan
    if se > 0:
        p_value = p_from_normal(kappa / se) if codes is None else p_from_t(kappa / se, df)
    kind = {"none": "Cohen's kappa", "linear": "linear weights", "quadratic": "quadratic weights"}
    prevalence, bias = pair.indices()
    return Kappa(
        estimate=kappa,
        ci_low=max(kappa - half, -1.0),
        ci_high=min(kappa + half, 1.0),
        se=se,
        p_value=p_value,
        n=n,
        weights=weights,
        bootstrap_ci=_kappa_bootstrap(pair, resamples, seed, alpha, codes),
        prevalence_index=prevalence,
        bias_index=bias,
        maximum=_largest_kappa(pair.row, pair.column) if weights == "none" else np.nan,
        method=f"{kind[weights]}; {_kappa_words(codes, df, p_null)}"
        + ("; moment form (scores are not integers)" if moment else ""),
        note=_beyond(kappa, half),
        n_clusters=groups_of.number_of(codes, n),
    )


def _beyond(kappa: float, half: float) -> str:
    cut = max(abs(kappa - half), abs(kappa + half)) > 1.0
    return "limit cut at the end of the scale" if cut else ""


def _kappa_words(codes: Codes | None, df: int, p_null: float) -> str:
    if codes is not None:
        return f"cluster-robust interval and p over {df + 1} clusters, t"
    null = f"p with the null standard error {p_null:.4g}"
    return f"Fleiss-Cohen-Everitt 1969 asymptotic interval and p ({null})"


def _few_enough(levels: Floats) -> None:
    if levels.size > MOST_LEVELS:
        raise NotComputable(
            f"{levels.size} different values are no grades; the ICC is the counterpart of the "
            "quadratic kappa"
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

    def standard_error(self, codes: Codes | None = None) -> tuple[float, int]:
        """By the influence of each target (Fleiss, Cohen and Everitt's) or cluster, and its df."""
        to_column, to_row = self.distance @ self.column, self.row @ self.distance
        influence = -(self.observed - self.observed.mean()) / self.expected + (
            1.0 - self.kappa()
        ) / self.expected * (to_column[self.i] + to_row[self.j] - 2.0 * self.expected)
        n = self.i.size
        if codes is None:
            return float(np.sqrt(np.mean(influence**2) / n)), n - 1
        se, a = groups_of.linear_error(influence, codes)
        if a < 2:
            raise NotComputable("all targets belong to one cluster: two or more are needed")
        return se, a - 1

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


def _kappa_bootstrap(
    pair: _Pair, resamples: int, seed: int, alpha: float, codes: Codes | None
) -> tuple[float, float]:
    if not resamples:
        return np.nan, np.nan
    n, unit = pair.i.size, np.eye(len(pair.distance))
    values = []
    for part in bootstrap_weights(n, resamples=resamples, seed=seed, codes=codes):
        drawn = part / part.sum(axis=1, keepdims=True)
        rows, columns = drawn @ unit[pair.i], drawn @ unit[pair.j]
        expected = np.sum((rows @ pair.distance) * columns, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(1.0 - (drawn @ pair.observed) / np.where(expected > 0, expected, np.nan))
    return bootstrap_interval(np.concatenate(values), pair.kappa(), None, alpha)


def _grades(
    ratings: ArrayLike, categories: Sequence[Any] | None, clusters: ArrayLike | None = None
) -> tuple[Floats, Codes | None]:
    """Ratings (targets, readers) as numbers, NaN for missing, and clusters; empty targets out."""
    values = np.asarray(ratings, dtype=object)
    if values.ndim != 2:
        raise ValueError(f"ratings of shape {values.shape}: (targets, readers) is needed")
    columns, _ = _codes([values[:, c] for c in range(values.shape[1])], categories, ordered=False)
    numbers = np.column_stack(columns)
    used = (~np.isnan(numbers)).any(axis=1)
    return numbers[used], groups_of.subset(groups_of.codes_of(clusters, len(values)), used)


def _counts(grades: Floats, categories: Sequence[Any] | None = None) -> tuple[Floats, Floats]:
    """Readers per category for each target, and the categories as numbers."""
    if categories is None:
        levels = np.unique(grades[~np.isnan(grades)])
    else:
        levels = np.arange(len(categories), dtype=np.float64)
    _few_enough(levels)
    counts = (grades[:, :, None] == levels).sum(axis=1).astype(np.float64)
    return counts, levels


@dataclass(frozen=True)
class _Table:
    """Grades of several readers as Gwet counts them: gaps allowed, targets graded once kept.

    A target with one grade tells about the shares of the categories, not about agreement.
    """

    grades: Floats
    levels: Floats
    counts: Floats
    weight: Floats
    codes: Codes | None

    @property
    def per_target(self) -> Floats:
        """Grades of each target."""
        return np.asarray(self.counts.sum(axis=1))

    @cached_property
    def twice(self) -> np.ndarray:
        """Targets with two or more grades."""
        return np.asarray(self.per_target >= 2)

    @cached_property
    def agreement(self) -> Floats:
        """Weighted share of agreeing pairs of readers of each target; 0 where it has one grade."""
        weighted = self.counts @ self.weight
        pairs = np.where(self.twice, self.per_target * (self.per_target - 1), 1.0)
        return np.where(self.twice, np.sum(self.counts * (weighted - 1.0), axis=1) / pairs, 0.0)

    @property
    def observed(self) -> float:
        """Mean agreement of targets with two or more grades."""
        return float(self.agreement[self.twice].mean())

    @cached_property
    def share(self) -> Floats:
        """Share of each category, every target weighing alike."""
        return np.asarray((self.counts / self.per_target[:, None]).mean(axis=0))

    def coefficient(self, expected: float, local: Floats, alpha: float, method: str) -> Estimate:
        """(observed - expected) / (1 - expected), Gwet's linearisation.

        ``local`` is the chance agreement of each target whose mean is ``expected`` (for the squared
        shares of Fleiss' kappa and AC1; 0 where chance agreement is a constant).
        """
        if expected >= 1.0:
            raise NotComputable("no variance: all grades are equal")
        value = (self.observed - expected) / (1.0 - expected)
        factor = len(self.counts) / int(self.twice.sum())
        part = np.where(self.twice, factor * (self.agreement - expected) / (1.0 - expected), 0.0)
        influence = part - 2.0 * (1.0 - value) * local / (1.0 - expected)
        se, a = groups_of.linear_error(influence - influence.mean(), self.codes)
        if a < 2:
            raise NotComputable("all targets belong to one cluster: two or more are needed")
        half = quantile_t(a - 1, alpha) * se
        p_value = p_from_t(value / se, a - 1) if se > 0 else np.nan
        over = "linearised interval" if self.codes is None else f"linearised over {a} clusters"
        limits = max(value - half, -1.0), min(value + half, 1.0)
        text = f"{method}; {over}, t"
        return Estimate(value, *limits, p_value, influence.size, text, self.gaps(), se)

    def gaps(self) -> str:
        """How many targets and readings there are, where some are missing."""
        n, k = self.grades.shape
        total = int(self.per_target.sum())
        if total == n * k:
            return ""
        return (
            f"incomplete: {total} of {n * k} readings of {n} targets, {int(self.twice.sum())} of "
            "them with two or more"
        )


def _table(
    ratings: ArrayLike,
    weights: str,
    categories: Sequence[Any] | None,
    clusters: ArrayLike | None,
    *,
    used_only: bool = False,
) -> _Table:
    """Counts with agreement weights; ``used_only`` keeps to the categories that occur."""
    grades, codes = _grades(ratings, categories, clusters)
    counts, levels = _counts(grades, categories)
    if used_only and levels.size > 1:
        seen = counts.sum(axis=0) > 0
        if seen.sum() == 1:
            raise NotComputable("no variance: all grades are equal")
    if levels.size < 2:
        reason = "no variance: all grades are equal" if used_only else (
            "one category only: pass the scale's `categories`"
        )  # fmt: skip
        raise NotComputable(reason)
    distance = _distance(levels[:, None], levels[None, :], weights)
    table = _Table(grades, levels, counts, 1.0 - distance / distance.max(), codes)
    if table.twice.sum() < 2:
        raise NotComputable("fewer than 2 targets graded by two readers")
    return table


def _fleiss(table: _Table) -> tuple[float, Floats]:
    share = table.share
    expected = float(share @ table.weight @ share)
    own = table.counts / table.per_target[:, None]
    return expected, own @ (table.weight @ share) - expected


def _conger(table: _Table) -> tuple[float, Floats]:
    n, k = table.grades.shape
    parts = (table.grades[:, :, None] == table.levels).astype(np.float64)
    margins = parts.sum(axis=0)
    size = margins.sum(axis=1)
    if (size == 0).any():
        raise NotComputable("a reader has no grade")
    margins = margins / size[:, None]
    whole = margins.sum(axis=0)
    own = float(np.sum((margins @ table.weight) * margins))
    expected = (float(whole @ table.weight @ whole) - own) / (k * (k - 1))
    graded = (~np.isnan(table.grades)).astype(np.float64) - size / n
    around = (parts - graded[:, :, None] * margins) @ table.weight * (n / size)[None, :, None]
    return expected, np.sum(around * (whole - margins), axis=(1, 2)) / (k * (k - 1)) - expected


def _brennan_prediger(table: _Table) -> tuple[float, Floats]:
    return float(table.weight.mean()), np.zeros(len(table.counts))


def _gwet(table: _Table) -> tuple[float, Floats]:
    q, share = table.counts.shape[1], table.share
    factor = float(table.weight.sum()) / (q * (q - 1))
    expected = factor * float(np.sum(share * (1.0 - share)))
    own = table.counts / table.per_target[:, None]
    return expected, factor * (own @ (1.0 - share)) - expected


#: Kind of coefficient -> name, and agreement by chance: in the mean, and of each target.
CHANCE: dict[str, tuple[str, Callable[[_Table], tuple[float, Floats]]]] = {
    "fleiss": ("Fleiss 1971", _fleiss),
    "conger": ("Conger 1980", _conger),
    "brennan_prediger": ("Brennan-Prediger 1981", _brennan_prediger),
    "gwet": ("Gwet AC2", _gwet),
}


def chance_corrected(
    ratings: ArrayLike,
    kind: str,
    categories: Sequence[Any] | None = None,
    *,
    weights: str = "none",
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Chance-corrected agreement of several readers, weights and missing grades allowed.

    ``fleiss`` (1971): chance agreement of the pooled margins; ``conger`` (1980): of each reader's
    own, with two readers Cohen's kappa; ``brennan_prediger`` (1981): of a uniform guess; ``gwet``:
    AC1 (no weights) or AC2 (Br J Math Stat Psychol 2008;61:29), defined also where all grades are
    equal but the scale has more categories. Interval and p: linearisation, t (Gwet 2014, chapter
    5, as R irrCAC). ``se`` of Fleiss' kappa is the null error of Fleiss, Nee and Landis 1979 where
    readings are complete and unweighted (R irr prints z with it; ``method`` says it).

    Examples
    --------
    >>> grades = [[1, 1, 1], [1, 2, 1], [2, 2, 2], [3, 3, 2]]
    >>> [round(chance_corrected(grades, kind).estimate, 4) for kind in CHANCE]
    [0.4667, 0.4839, 0.5, 0.5152]
    """
    name, chance = CHANCE[kind]
    # Undefined where only one category occurs, however many the scale has.
    used_only = kind in ("fleiss", "conger")
    table = _table(ratings, weights, categories, clusters, used_only=used_only)
    text = name if weights == "none" else f"{name}, {weights} weights"
    if kind == "gwet" and weights == "none":
        text = "Gwet AC1"
    result = table.coefficient(*chance(table), alpha, text)
    if kind != "fleiss" or weights != "none" or table.gaps() or table.codes is not None:
        return result
    k, both = table.grades.shape[1], table.share * (1.0 - table.share)
    null = (
        2.0
        / (np.sum(both) ** 2 * result.n * k * (k - 1))
        * (np.sum(both) ** 2 - np.sum(both * (1.0 - 2.0 * table.share)))
    )
    z = result.estimate / np.sqrt(null)
    text = f"{result.method} (with the null error of Fleiss 1979 z = {z:.4g})"
    return replace(result, method=text, se=float(np.sqrt(null)))


def light_kappa(ratings: ArrayLike) -> Estimate:
    """Light's kappa (1971): mean of Cohen's kappas of all pairs of readers, each on its pairs.

    Examples
    --------
    >>> round(light_kappa([[1, 1, 1], [1, 2, 1], [2, 2, 2], [3, 3, 2]]).estimate, 4)
    0.4788
    """
    grades, _ = _grades(ratings, None)
    pairs, without = [], []
    for i, j in combinations(range(grades.shape[1]), 2):
        try:
            pairs.append(weighted_kappa(grades[:, i], grades[:, j], "none").estimate)
        except NotComputable as reason:
            without.append(str(reason))
    if not pairs:
        raise NotComputable(without[0] if without else "a single reader")
    note = f"{len(without)} of {len(without) + len(pairs)} pairs left out: {without[0]}" if (
        without
    ) else ""  # fmt: skip
    method = "Light 1971, none weights"
    return Estimate(float(np.mean(pairs)), n=len(grades), method=method, note=note)


def percent_agreement(
    ratings: ArrayLike,
    categories: Sequence[Any] | None = None,
    *,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Percent of pairs of readers that give a target the same grade, with interval.

    Two readers: Wilson interval of a proportion (with clusters of the effective number of targets,
    Korn and Graubard 1998); more: linearised over targets or clusters, t.

    Examples
    --------
    >>> result = percent_agreement([[1, 1], [2, 2], [1, 2], [3, 3]])
    >>> result.estimate
    75.0
    """
    grades, codes = _grades(ratings, categories, clusters)
    counts, _ = _counts(grades)
    per_target = counts.sum(axis=1)
    twice = per_target >= 2
    codes = groups_of.subset(codes, twice)
    dropped = int((~twice).sum())
    counts, per_target = counts[twice], per_target[twice]
    n = len(counts)
    if n < 2:
        raise NotComputable("fewer than 2 targets graded by two readers")
    same = (np.sum(counts**2, axis=1) - per_target) / (per_target * (per_target - 1))
    mean = float(same.mean())
    note = f"{dropped} targets with one grade say nothing about agreement" if dropped else ""
    error, a = groups_of.linear_error(same - mean, codes)
    if (per_target == 2).all():
        if codes is None:
            found = proportion(round(float(same.sum())), n, alpha=alpha)
            text = "percent identical; Wilson interval"
        else:
            # Without any spread each cluster tells as much as one target.
            size = min(mean * (1.0 - mean) / error**2, float(n)) if error > 0 else float(a)
            found = proportion(mean * size, size, alpha=alpha)
            text = (
                f"percent identical; Wilson interval of {size:.4g} effective targets in {a} "
                "clusters"
            )
        return replace(found.times(100.0, text), n=n, note=note)
    half = quantile_t(a - 1, alpha) * error
    over = "targets" if codes is None else f"{a} clusters"
    return Estimate(
        100 * mean,
        100 * max(mean - half, 0.0),
        100 * min(mean + half, 1.0),
        n=n,
        method=f"percent of identical pairs of readers; t over {over}",
        note=note,
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


@dataclass(frozen=True)
class _Disagreement:
    """Sums over targets from which alpha follows: 1 - observed / expected disagreement.

    ``sums`` (targets, columns) hold what expected disagreement needs; ``expected`` turns their sums
    into it.
    """

    sums: Floats
    observed: Floats
    expected: Callable[[Floats], Floats]

    def alpha(self, sums: Floats, observed: Floats) -> Floats:
        """Alpha of summed targets."""
        expected = self.expected(sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1.0 - observed / np.where(expected > 0, expected, np.nan)


def _by_moments(values: Floats) -> _Disagreement:
    """Squared distances need no table of values: moments say the same."""
    known = ~np.isnan(values)
    x = np.where(known, values - np.nanmean(values), 0.0)
    m = known.sum(axis=1).astype(np.float64)
    first, second = x.sum(axis=1), np.sum(x**2, axis=1)
    observed = 2.0 * (m * second - first**2) / (m - 1.0)

    def expected(sums: Floats) -> Floats:
        size, one, two = sums.T
        return 2.0 * (size * two - one**2) / (size - 1.0)

    return _Disagreement(np.column_stack([m, first, second]), observed, expected)


def _by_counts(grades: Floats, level: str) -> _Disagreement:
    counts, levels = _counts(grades)
    distance = _alpha_distance(levels, counts.sum(axis=0), level)
    m = counts.sum(axis=1)
    observed = np.sum((counts @ distance) * counts, axis=1) / (m - 1.0)

    def expected(sums: Floats) -> Floats:
        return np.sum((sums @ distance) * sums, axis=1) / (sums.sum(axis=1) - 1.0)

    return _Disagreement(counts, observed, expected)


def _mid_ranks(grades: Floats) -> Floats:
    """Grades as the middles of their ranks, whose squared distances are the ordinal ones."""
    known = ~np.isnan(grades)
    levels, place, totals = np.unique(grades[known], return_inverse=True, return_counts=True)
    result = np.full(grades.shape, np.nan)
    result[known] = (np.cumsum(totals) - totals / 2.0)[place.ravel()]
    return result if levels.size else grades


def _ratio_alpha(grades: Floats, codes: Codes | None, alpha: float, resamples: int) -> Estimate:
    """Ratio distances of very many different values: no table of them, jackknife over clusters."""
    known = ~np.isnan(grades)
    n, m = len(grades), known.sum(axis=1).astype(np.float64)
    x = grades[known]
    row = np.nonzero(known)[0]

    def sums_to(one: Floats, other: Floats) -> Floats:
        """Sum of the distances of each of ``one`` to all of ``other``."""
        both = one[:, None] + other[None, :]
        gap = one[:, None] - other[None, :]
        np.divide(gap, both, out=gap, where=both != 0)
        # Two zeros, and a value and its negative, have no ratio: no distance, as in the table form.
        gap[both == 0] = 0.0
        return np.einsum("ij,ij->i", gap, gap)

    step = max(1, 100_000 // x.size)
    to_all = np.concatenate([sums_to(x[i : i + step], x) for i in range(0, x.size, step)])
    observed = np.zeros(n)
    for i, j in combinations(range(grades.shape[1]), 2):
        both, gap = grades[:, i] + grades[:, j], grades[:, i] - grades[:, j]
        with np.errstate(invalid="ignore", divide="ignore"):
            pair = (gap / both) ** 2
        observed += 2.0 * np.where(np.isnan(both) | (both == 0), 0.0, pair)
    whole, size = float(to_all.sum()), float(x.size)
    value = 1.0 - float(np.sum(observed / (m - 1.0))) / (whole / (size - 1.0))
    method = "Krippendorff 2011, ratio"
    if not resamples:
        return Estimate(value, n=n, method=method)
    groups = groups_of.deletion_groups(codes, n)
    left_out = []
    for group in range(int(groups.max()) + 1):
        gone = groups == group
        values = x[gone[row]]
        rest = whole - 2.0 * float(to_all[gone[row]].sum()) + float(sums_to(values, values).sum())
        number = size - values.size
        disagreement = float(np.sum((observed / (m - 1.0))[~gone]))
        left_out.append(1.0 - disagreement / (rest / (number - 1.0)))
    return groups_of.jackknife_estimate(
        value, np.array(left_out), alpha=alpha, codes=codes, scale="raw", n=n, method=method
    )


def krippendorff_alpha(
    ratings: ArrayLike,
    level: str = "nominal",
    *,
    categories: Sequence[Any] | None = None,
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = SEED,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Krippendorff's alpha of any number of readers with gaps, bootstrap over targets.

    Krippendorff 2011 (Computing Krippendorff's alpha-reliability); interval: BCa over targets
    with a fixed seed (for ``ordinal`` the distances are kept as in the sample). With clusters, and
    with more than 1,000 different values of a ``ratio`` scale: jackknife, t.

    Parameters
    ----------
    ratings
        (targets, readers), NaN where there is none; targets with one grade do not count.
    level
        ``nominal``, ``ordinal``, ``interval`` or ``ratio``.
    categories
        All grades of the scale, for text grades.
    resamples, seed
        Of the bootstrap; 0 resamples give no interval.
    alpha, clusters
        As everywhere in :mod:`corelab.agreement`.

    Examples
    --------
    >>> table = [[1, 1], [2, 2], [3, 3], [3, 4], [2, 2], [1, 2], [4, 4]]
    >>> round(krippendorff_alpha(table, "ordinal", resamples=200).estimate, 4)
    0.8902
    """
    if level not in LEVELS:
        raise ValueError(f"unknown level '{level}': {', '.join(LEVELS)}")
    grades, codes = _grades(ratings, categories, clusters)
    twice = (~np.isnan(grades)).sum(axis=1) >= 2
    grades, codes = grades[twice], groups_of.subset(codes, twice)
    n = len(grades)
    if n < 2:
        raise NotComputable("fewer than 2 targets with two readings")
    different = np.unique(grades[~np.isnan(grades)]).size
    if different < 2:
        raise NotComputable("no variance: all readings are equal")
    dropped = int((~twice).sum())
    gone = f"{dropped} targets with one reading say nothing about agreement" if dropped else ""
    if level == "ratio" and different > MOST_LEVELS:
        return replace(_ratio_alpha(grades, codes, alpha, resamples), note=gone)
    if level in ("interval", "ordinal"):
        parts = _by_moments(grades if level == "interval" else _mid_ranks(grades))
    else:
        parts = _by_counts(grades, level)
    totals, disagreement = parts.sums.sum(axis=0), parts.observed.sum()
    value = float(parts.alpha(totals[None], disagreement[None])[0])
    low = high = np.nan
    if resamples and codes is not None:
        # A bootstrap of few clusters covers too little (92 %), t does not.
        own = groups_of.deletion_groups(codes, n)
        sizes = [own == g for g in range(int(own.max()) + 1)]
        left = np.array([parts.sums[g].sum(axis=0) for g in sizes])
        less = np.array([parts.observed[g].sum() for g in sizes])
        left_out = parts.alpha(totals - left, disagreement - less)
        return groups_of.jackknife_estimate(
            value, left_out, alpha=alpha, codes=codes, scale="raw", n=n, note=gone,
            method=f"Krippendorff 2011, {level}",
        )  # fmt: skip
    if resamples:
        chunks = bootstrap_weights(n, resamples=resamples, seed=seed)
        resampled = np.concatenate(
            [parts.alpha(drawn @ parts.sums, drawn @ parts.observed) for drawn in chunks]
        )
        left_out = parts.alpha(totals - parts.sums, disagreement - parts.observed)
        low, high = bootstrap_interval(resampled, value, left_out, alpha)
    method = f"Krippendorff 2011, {level}; BCa over targets, {resamples} resamples"
    if resamples and not low <= value <= high:
        note = "interval not defined: the resampled values do not surround the estimate"
        return Estimate(value, n=n, method=method, note=join_notes(gone, note))
    return Estimate(value, low, high, n=n, method=method, note=gone)


def kendall_w(ratings: ArrayLike, *, clusters: ArrayLike | None = None) -> Estimate:
    """Kendall's coefficient of concordance W with tie correction; chi-square test.

    Targets without all grades are left out and counted: W has no form with gaps. The test is of
    independent targets; with clusters there is no p value.

    Examples
    --------
    >>> round(kendall_w([[1, 2, 1], [2, 1, 3], [3, 3, 2], [4, 4, 4]]).estimate, 4)
    0.7778
    """
    from scipy import stats

    values = np.asarray(ratings, dtype=np.float64)
    complete = ~np.isnan(values).any(axis=1)
    codes = groups_of.subset(groups_of.codes_of(clusters, len(values)), complete)
    lost, values = int((~complete).sum()), values[complete]
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
    notes = [f"{lost} targets without all grades left out"] if lost else []
    method = "Kendall's W, corrected for ties"
    if codes is not None:
        notes.append("no p value: its test is of independent targets")
        return Estimate(w, n=n, method=method, note="; ".join(notes))
    return Estimate(
        w,
        p_value=float(special.chdtrc(n - 1, k * (n - 1) * w)),
        n=n,
        method=f"{method}; chi-square test",
        note="; ".join(notes),
    )
