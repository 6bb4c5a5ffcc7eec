"""Intraclass correlation: six forms, exact limits, incomplete designs, comparison of two.

Names after McGraw and Wong 1996 (Psychol Methods 1:30 and the correction 1:390): 1 one-way,
A absolute agreement, C consistency; 1 for a single reading, k for the mean of k readings. They are
Shrout and Fleiss' ICC(1,1), (2,1), (3,1), (1,k), (2,k), (3,k).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from corelab.agreement import clusters as groups_of
from corelab.agreement.clusters import Codes
from corelab.agreement.estimates import (
    NORMAL_95,
    Floats,
    bootstrap_interval,
    bootstrap_p,
    bootstrap_weights,
    quantile_t,
    standard_deviation_interval,
)
from corelab.measurement.selection import NotComputable
from corelab.settings.analyses.agreement import SEED
from corelab.terms.results import Estimate

#: More targets than this, and incomplete readings are jackknifed in this many groups.
LARGE, GROUPS_IF_LARGE = 2000, 25

FORMS = ("icc_1_1", "icc_a_1", "icc_c_1", "icc_1_k", "icc_a_k", "icc_c_k")

_MEANING = {
    "icc_1_1": "ICC(1,1) one-way random, single reading",
    "icc_a_1": "ICC(A,1) two-way random, absolute agreement, single reading",
    "icc_c_1": "ICC(C,1) two-way mixed, consistency, single reading",
    "icc_1_k": "ICC(1,k) one-way random, mean of k readings",
    "icc_a_k": "ICC(A,k) two-way random, absolute agreement, mean of k readings",
    "icc_c_k": "ICC(C,k) two-way mixed, consistency, mean of k readings",
}


_PERFECT = "perfect agreement: limits by continuity"


@dataclass(frozen=True, kw_only=True)
class IntraclassCorrelation(Estimate):
    """One form of the intraclass correlation; ``n`` are targets, ``k`` readers.

    ``f``, ``df1``, ``df2`` and ``p_value`` test that targets do not differ (ICC = 0): MSB / MSW for
    the one-way forms, MSB / MSE for the others. It is no test of reader bias.
    ``p_value_satterthwaite`` is the same F of ICC(A,.) with the denominator df of its interval, as
    R irr prints it. ``n_clusters`` equals ``n`` where every target is its own cluster.
    """

    form: str
    f: float
    df1: float
    df2: float
    k: int
    p_value_satterthwaite: float = np.nan
    n_clusters: int = 0

    def tested(self) -> IntraclassCorrelation:
        """The same with its test in the words of the method."""
        test = f"F({self.df1:.6g}, {self.df2:.6g}) = {self.f:.6g} of no difference between targets"
        text = test if np.isfinite(self.df2) else "p of no agreement"
        return replace(self, method=f"{self.method}; {text}")


class IntraclassCorrelations(NamedTuple):
    """Arrays of one form over many features."""

    estimate: Floats
    ci_low: Floats
    ci_high: Floats
    f: Floats
    p_value: Floats


class _MeanSquares(NamedTuple):
    """Mean squares of a two-way layout without replication, and their degrees of freedom."""

    targets: Floats
    readers: Floats
    residual: Floats
    within: Floats
    df_residual: float
    df_within: float


def _mean_squares(ratings: Floats) -> _MeanSquares:
    """Mean squares of complete ratings (..., n targets, k readers)."""
    n, k = ratings.shape[-2:]
    centred = ratings - ratings.mean(axis=(-2, -1), keepdims=True)
    # The mean of values far from 0 is rounded: its error would look like a difference of readers.
    centred = centred - centred.mean(axis=(-2, -1), keepdims=True)
    rows = centred.mean(axis=-1)
    columns = centred.mean(axis=-2)
    residual = centred - rows[..., :, None] - columns[..., None, :]
    total = np.sum(centred**2, axis=(-2, -1))
    # Rounding leaves 1e-30 where readers agree exactly; that must not look like a residual.
    floor = 1e-28 * (total + np.max(ratings**2, axis=(-2, -1)) * n * k * 1e-2)
    targets = k * np.sum(rows**2, axis=-1)
    readers = n * np.sum(columns**2, axis=-1)
    errors = np.sum(residual**2, axis=(-2, -1))
    targets, readers, errors = (np.where(s <= floor, 0.0, s) for s in (targets, readers, errors))
    df_residual, df_within = (n - 1) * (k - 1), n * (k - 1)
    return _MeanSquares(
        targets / (n - 1),
        readers / (k - 1),
        errors / df_residual,
        (readers + errors) / df_within,
        df_residual,
        df_within,
    )


def _stepped_up(single: Floats, k: float) -> Floats:
    """Spearman-Brown: reliability of the mean of k readings; undefined at or below -1/(k-1)."""
    denominator = 1.0 + (k - 1.0) * single
    return np.where(denominator > 0, k * single / np.where(denominator > 0, denominator, 1), np.nan)


class _Limits(NamedTuple):
    estimate: Floats
    low: Floats
    high: Floats
    f: Floats
    df1: float
    df2: Floats


def _averaged(limits: _Limits, k: float) -> _Limits:
    """The form of the mean of k readings."""
    estimate, low, high = (
        _stepped_up(one, k) for one in (limits.estimate, limits.low, limits.high)
    )
    return limits._replace(estimate=estimate, low=low, high=high)


def _ratio_limits(
    targets: Floats, error: Floats, df1: float, df2: float, k: float, alpha: float
) -> _Limits:
    """ICC that depends on one F ratio: exact limits (Shrout and Fleiss 1979)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        f = np.where((targets == 0) & (error == 0), np.nan, targets / error)

        def icc(ratio: Floats) -> Floats:
            return 1.0 - k / (ratio + k - 1.0)

        low = icc(f / special.fdtri(df1, df2, 1.0 - alpha / 2.0))
        high = icc(f * special.fdtri(df2, df1, 1.0 - alpha / 2.0))
        return _Limits(icc(f), low, high, f, df1, np.full_like(f, df2))


def _agreement_limits(
    squares: _MeanSquares, n: float, k: float, df1: float, df_readers: float, alpha: float
) -> _Limits:
    """ICC(A,1) with McGraw and Wong's limits (Satterthwaite df; table 7, case 2)."""
    b, j, e = squares.targets, squares.readers, squares.residual
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = (b - e) / (b + (k - 1.0) * e + k / n * (j - e))
        # Their a and b, both times (1 - ICC), so that ICC = 1 does not divide by zero.
        weight_j = k * estimate / n * j
        weight_e = ((1.0 - estimate) + k * estimate * (n - 1.0) / n) * e
        df2 = (weight_j + weight_e) ** 2 / (
            weight_j**2 / df_readers + weight_e**2 / squares.df_residual
        )
        df2 = np.where(np.isfinite(df2) & (df2 > 0), df2, squares.df_residual)
        f_low = special.fdtri(df1, df2, 1.0 - alpha / 2.0)
        f_high = special.fdtri(df2, df1, 1.0 - alpha / 2.0)
        spread = k * j + (k * n - k - n) * e
        low = n * (b - f_low * e) / (f_low * spread + n * b)
        high = n * (f_high * b - e) / (spread + n * f_high * b)
        f = np.where((b == 0) & (e == 0), np.nan, b / e)
    return _Limits(estimate, low, high, f, df1, df2)


def _six_forms(
    squares: _MeanSquares,
    *,
    n: float,
    k: float,
    readers: float,
    df1: float,
    df_readers: float,
    alpha: float,
) -> dict[str, _Limits]:
    """All forms; ``n`` and ``k`` may be effective numbers, ``readers`` is how many are averaged."""
    single = {
        "icc_1_1": _ratio_limits(squares.targets, squares.within, df1, squares.df_within, k, alpha),
        "icc_a_1": _agreement_limits(squares, n, k, df1, df_readers, alpha),
        "icc_c_1": _ratio_limits(
            squares.targets, squares.residual, df1, squares.df_residual, k, alpha
        ),
    }
    return single | {f"{name[:-1]}k": _averaged(one, readers) for name, one in single.items()}


def _complete_forms(values: Floats, alpha: float = 0.05) -> tuple[dict[str, _Limits], _MeanSquares]:
    """All forms of complete ratings (..., n targets, k readers), and their mean squares."""
    n, k = values.shape[-2:]
    squares = _mean_squares(values)
    forms = _six_forms(squares, n=n, k=k, readers=k, df1=n - 1, df_readers=k - 1, alpha=alpha)
    return forms, squares


def intraclass_correlation_many(
    ratings: ArrayLike, *, alpha: float = 0.05
) -> dict[str, IntraclassCorrelations]:
    """All six intraclass correlations of many features at once: form -> arrays over features.

    ``ratings`` are (features, n targets, k readers), complete; NaN where a feature does not vary.

    Raises ValueError if the array is not three-dimensional, or not finite.

    Examples
    --------
    >>> many = intraclass_correlation_many([[[1, 2], [3, 4], [5, 6]]] * 2)
    >>> many["icc_a_1"].estimate.round(4)
    array([0.8889, 0.8889])
    """
    values = np.asarray(ratings, dtype=np.float64)
    if values.ndim != 3 or values.shape[1] < 2 or values.shape[2] < 2:
        raise ValueError(
            f"ratings of shape {values.shape}: (features, at least 2 targets, at least 2 readers) "
            "are needed"
        )
    if not np.isfinite(values).all():
        raise ValueError("ratings are not all finite: fit incomplete features one at a time")
    n, k = values.shape[1:]
    result = {}
    for name, form in _complete_forms(values, alpha)[0].items():
        df2 = n * (k - 1) if name.startswith("icc_1") else (n - 1) * (k - 1)
        p_value = np.where(np.isposinf(form.f), 0.0, special.fdtrc(n - 1, df2, form.f))
        result[name] = IntraclassCorrelations(form.estimate, form.low, form.high, form.f, p_value)
    return result


def checked(ratings: ArrayLike, clusters: ArrayLike | None = None) -> tuple[Floats, Codes | None]:
    """Ratings without empty rows and columns, and the clusters of what is left.

    Raises NotComputable: one reader, one target, or no variance at all.

    Examples
    --------
    >>> checked([[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]])[0].tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    values = np.asarray(ratings, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"ratings of shape {values.shape}: one row per target and one column per reader"
        )
    if np.isinf(values).any():
        raise ValueError("infinite ratings: mark what could not be measured as missing (NaN)")
    seen = ~np.isnan(values)
    used = seen.any(axis=1)
    codes = groups_of.subset(groups_of.codes_of(clusters, len(values)), used)
    values = values[used][:, seen.any(axis=0)]
    n, k = values.shape
    if k < 2:
        raise NotComputable("single reader: an intraclass correlation compares two or more")
    if n < 2:
        raise NotComputable("single target: an intraclass correlation needs two or more")
    if codes is not None and codes.max() == 0:
        raise NotComputable("all targets belong to one cluster (key cluster): two are needed")
    known = values[~np.isnan(values)]
    if np.ptp(known) == 0:
        raise NotComputable(f"no variance: all {known.size} ratings are {known[0]:g}")
    return values, codes


def intraclass_correlation(
    ratings: ArrayLike,
    *,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
    pooled: bool = False,
) -> dict[str, IntraclassCorrelation]:
    """All six intraclass correlations with F test and confidence interval.

    Complete ratings: mean squares and the limits of McGraw and Wong 1996, at full precision (the
    limits of the averaged forms are the stepped-up limits of the single ones). Missing cells:
    variance components by REML of all readings, and the same limits with effective numbers of
    targets and readers; nothing is imputed.

    Several targets of one cluster (visits of a participant): a model with effects of participants,
    visits within participants, readers, and readers by participants. The coefficient is still that
    of a target. Mean squares of unweighted cluster means (Burdick and Graybill 1992), limits of
    McGraw and Wong generalised by Satterthwaite's degrees of freedom; with one visit each they are
    the usual ones. With ``pooled``, or with missing cells, the estimate is that of pooled targets
    and the interval a jackknife over clusters on Fisher's z scale.

    Parameters
    ----------
    ratings
        (n targets, k readers); NaN where a reader has no value.
    alpha, clusters, pooled
        ``pooled``: estimate of pooled targets where there are clusters.

    Returns
    -------
    dict
        Form of :data:`FORMS` -> coefficient. A negative single form is reported as it is; its
        averaged form is then NaN with a note.

    Raises
    ------
    NotComputable
        One reader, one target, or no variance at all.
    ValueError
        Not a table, or infinite values.

    Examples
    --------
    Shrout and Fleiss 1979, table 2:

    >>> table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8],
    ...          [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> icc = intraclass_correlation(table)
    >>> [round(icc[form].estimate, 2) for form in FORMS]
    [0.17, 0.29, 0.71, 0.44, 0.62, 0.91]
    """
    values, codes = checked(ratings, clusters)
    gaps = bool(np.isnan(values).any())
    if codes is not None and (gaps or pooled):
        return _robust(values, codes, alpha)
    if gaps:
        return _incomplete(values, alpha)
    if codes is not None:
        return _nested(values, codes, alpha)
    n, k = values.shape
    forms, squares = _complete_forms(values, alpha)
    note = _PERFECT if squares.within == 0 else ""
    return {
        name: _reported(name, forms, squares, n, k, "McGraw-Wong 1996 F limits", note)
        for name in FORMS
    }


class _Part(NamedTuple):
    """A mean square with its weight in a sum, and its degrees of freedom."""

    weight: float
    square: float
    df: float


def _total(parts: list[_Part]) -> tuple[float, float]:
    """A weighted sum of mean squares and its Satterthwaite degrees of freedom."""
    value = math.fsum(p.weight * p.square for p in parts)
    bottom = math.fsum((p.weight * p.square) ** 2 / p.df for p in parts if p.df > 0)
    return value, value**2 / bottom if bottom > 0 else max(p.df for p in parts)


class _Nested(NamedTuple):
    """Layout of readers by participants with visits within participants, from cluster means.

    Sums of mean squares: ``signal`` - ``noise`` estimates k times the variance between targets,
    ``error`` the variance of a reading around its target.
    """

    k: int
    signal: list[_Part]
    noise: list[_Part]
    error: list[_Part]

    def components(self) -> tuple[float, float]:
        """Variance between targets and variance of a reading around its target."""
        return (_total(self.signal)[0] - _total(self.noise)[0]) / self.k, _total(self.error)[0]

    def _against(self, icc: float) -> tuple[float, float]:
        """What ``signal`` would be at an ICC, with its degrees of freedom."""
        odds = self.k * icc / (1.0 - icc) if icc < 1 else 0.0
        merged: dict[tuple[float, float], float] = {}
        for factor, parts in ((odds, self.error), (1.0, self.noise)):
            for part in parts:
                place = (part.square, part.df)
                merged[place] = merged.get(place, 0.0) + factor * part.weight
        return _total([_Part(weight, *place) for place, weight in merged.items()])

    def limits(self, alpha: float) -> _Limits:
        """Estimate with McGraw and Wong's limits, their df by Satterthwaite."""
        between, error = self.components()
        whole = between + error
        estimate = between / whole if whole > 0 else np.nan
        signal, df1 = _total(self.signal)
        noise, _ = _total(self.noise)
        _, df2 = self._against(estimate)

        def icc(value: float) -> float:
            shared = (value - noise) / self.k
            return shared / (shared + error) if shared + error > 0 else np.nan

        low = icc(signal / float(special.fdtri(df1, df2, 1.0 - alpha / 2.0)))
        high = icc(signal * float(special.fdtri(df2, df1, 1.0 - alpha / 2.0)))
        _, df_noise = _total(self.noise)
        f = signal / noise if noise > 0 else np.inf
        a, b, c, d = (np.asarray(v) for v in (estimate, low, high, f))
        return _Limits(a, b, c, d, df1, np.asarray(df_noise))

    def above(self, threshold: float) -> float:
        """One-sided p value of an ICC at or below ``threshold``."""
        expected, df2 = self._against(threshold)
        signal, df1 = _total(self.signal)
        return float(special.fdtrc(df1, df2, signal / expected)) if expected > 0 else 0.0


def nested_layouts(values: Floats, codes: Codes | None) -> dict[str, _Nested]:
    """Layouts of the three single forms; one visit per participant where ``codes`` is None.

    Examples
    --------
    >>> table = np.array([[9.0, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6]])
    >>> layout = nested_layouts(table, None)["icc_c_1"]
    >>> round(float(layout.limits(0.05).estimate), 4)
    0.637
    """
    n, k = values.shape
    own = np.arange(n) if codes is None else codes
    counts = np.bincount(own).astype(np.float64)
    a = counts.size
    means = groups_of.sums(values, own) / counts[:, None]
    squares = _mean_squares(means)
    share = 1.0 - float(np.mean(1.0 / counts))
    inside = values - means[own]
    visit = inside.mean(axis=1)
    left = inside - visit[:, None]
    df_visit = float(n - a)
    floor = 1e-28 * float(np.sum((values - values.mean()) ** 2))
    ss_visit, ss_left = (
        0.0 if s <= floor else s for s in (k * float(np.sum(visit**2)), float(np.sum(left**2)))
    )
    divisor = max(df_visit, 1.0)
    visits = _Part(share, ss_visit / divisor, df_visit)
    rest = _Part(share, ss_left / divisor / (k - 1), df_visit * (k - 1))
    more = df_visit > 0
    signal = [_Part(1.0, float(squares.targets), a - 1.0), *[visits] * more]
    residual = _Part(1.0, float(squares.residual), squares.df_residual)
    within = _Part(1.0, float(squares.within), squares.df_within)
    readers = _Part(1.0 / a, float(squares.readers), k - 1.0)
    error_agreement = [readers, residual._replace(weight=1.0 - 1.0 / a), *[rest] * more]
    noise = [residual, *[rest] * more]
    one_way = [within, *[rest] * more]
    return {
        "icc_1_1": _Nested(k, signal, one_way, one_way),
        "icc_a_1": _Nested(k, signal, noise, error_agreement),
        "icc_c_1": _Nested(k, signal, noise, noise),
    }


def _nested(values: Floats, codes: Codes, alpha: float) -> dict[str, IntraclassCorrelation]:
    """Six forms by the model with participants and visits within them."""
    n, k = values.shape
    a = int(codes.max()) + 1
    forms = {name: one.limits(alpha) for name, one in nested_layouts(values, codes).items()}
    forms |= {f"{name[:-1]}k": _averaged(one, k) for name, one in forms.items()}
    squares = _mean_squares(values)
    method = (
        f"effects of {a} participants (clusters), visits within them and reader by participant; "
        "McGraw-Wong limits with Satterthwaite df"
    )
    note = _PERFECT if squares.within == 0 else ""
    found = {}
    for name in FORMS:
        df2 = float(forms[name].df2)
        own = squares._replace(df_within=df2, df_residual=df2)
        one = _reported(name, forms, own, n, k, method, note)
        found[name] = replace(one, n_clusters=a)
    return found


def _reml_forms(two: VarianceComponents, one: VarianceComponents) -> dict[str, float]:
    def share(target: float, *others: float) -> float:
        whole = target + math.fsum(others)
        return target / whole if whole > 0 else np.nan

    return {
        "icc_1_1": share(one.target, one.residual),
        "icc_a_1": share(two.target, two.reader, two.residual),
        "icc_c_1": share(two.target, two.residual),
        "ccc": share(two.target, max(two.reader, 0.0), two.residual),
        "sem": float(np.sqrt(max(two.reader, 0.0) + two.residual)),
        "sem_consistency": float(np.sqrt(two.residual)),
    }


@functools.lru_cache(maxsize=2)
def _reml_left_out(
    values: bytes, shape: tuple[int, int], codes: bytes | None
) -> dict[str, tuple[float, ...]]:
    """Coefficients of incomplete readings with one cluster left out; several statistics use it."""
    table = np.frombuffer(values).reshape(shape)
    own = None if codes is None else np.frombuffer(codes, dtype=np.int64)
    groups = groups_of.deletion_groups(own, shape[0])
    if shape[0] > LARGE:
        groups = groups % GROUPS_IF_LARGE
    two, one = variance_components(table), variance_components(table, readers=False)
    rows = []
    for group in range(int(groups.max()) + 1):
        try:
            kept, _ = checked(table[groups != group])
            rows.append(
                _reml_forms(
                    variance_components(kept, near=two),
                    variance_components(kept, readers=False, near=one),
                )
            )
        except NotComputable:
            rows.append(dict.fromkeys(rows[0] if rows else ("icc_a_1",), np.nan))
    return {name: tuple(row.get(name, np.nan) for row in rows) for name in _reml_forms(two, one)}


def left_out_of_incomplete(values: Floats, codes: Codes | None) -> dict[str, Floats]:
    """REML coefficients (single forms, ``ccc``, ``sem``, ``sem_consistency``) without each cluster.

    ``values`` are (n targets, k readers) without an empty row or column, NaN for missing.

    Examples
    --------
    >>> table = np.array([[9.0, 2, 5], [6, 1, 3], [8, 4, np.nan], [7, 1, 2], [10, 5, 6]])
    >>> left_out_of_incomplete(table, None)["sem"].size
    5
    """
    own = None if codes is None else np.ascontiguousarray(codes, dtype=np.int64).tobytes()
    table = np.ascontiguousarray(values, dtype=np.float64)
    found = _reml_left_out(table.tobytes(), (table.shape[0], table.shape[1]), own)
    return {name: np.array(part) for name, part in found.items()}


def _robust(values: Floats, codes: Codes, alpha: float) -> dict[str, IntraclassCorrelation]:
    """Six forms of pooled targets with an interval and p from the jackknife over clusters."""
    n, k = values.shape
    gaps = bool(np.isnan(values).any())
    base = _incomplete(values, alpha) if gaps else intraclass_correlation(values, alpha=alpha)
    if gaps:
        left_out = left_out_of_incomplete(values, codes)
    else:

        def forms(kept: np.ndarray) -> list[float]:
            return [float(one.estimate) for one in _complete_forms(values[kept])[0].values()]

        left_out = dict(zip(FORMS, groups_of.jackknife(forms, n, codes).T, strict=True))
    kind = "REML variance components" if gaps else "pooled targets"
    result = {}
    for name in FORMS:
        single = f"{name[:-1]}1"
        one = groups_of.jackknife_estimate(
            base[single].estimate, left_out[single], alpha=alpha, codes=codes, scale="fisher", n=n,
            method=kind, null=0.0,
        )  # fmt: skip
        limits = np.array([one.ci_low, one.ci_high])
        if name.endswith("k"):
            limits = _stepped_up(limits, k)
        notes = [v for v in (base[name].note, one.note) if v]
        known = np.isfinite(base[name].estimate)
        result[name] = replace(
            base[name],
            ci_low=float(limits[0]) if known else np.nan,
            ci_high=float(limits[1]) if known else np.nan,
            f=np.nan,
            df1=np.nan,
            df2=np.nan,
            p_value=one.p_value,
            method=f"{_MEANING[name]}; {one.method}",
            note="; ".join(dict.fromkeys(notes)),
            n_clusters=int(codes.max()) + 1,
        )
    return result


def icc_exceeds(
    ratings: ArrayLike,
    threshold: float,
    *,
    form: str = "icc_a_1",
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
    pooled: bool = False,
) -> Estimate:
    """Test that an intraclass correlation exceeds a threshold, one-sided.

    The F test of McGraw and Wong 1996 (their table 8; R irr::icc with ``r0``): p is below alpha / 2
    where the two-sided lower limit lies above the threshold, but for the degrees of freedom, which
    are taken at the threshold. Missing cells, and pooled clusters: jackknife on Fisher's z.

    Examples
    --------
    >>> table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6]]
    >>> icc_exceeds(table, 0.0, form="icc_c_1").p_value < 0.01
    True
    """
    values, codes = checked(ratings, clusters)
    found = intraclass_correlation(values, alpha=alpha, clusters=codes, pooled=pooled)[form]
    k = values.shape[1]
    single = threshold / (k - (k - 1.0) * threshold) if form.endswith("k") else threshold
    if np.isnan(values).any() or (codes is not None and pooled):
        own = found if form.endswith("1") else None
        if own is None or not np.isfinite(own.ci_low):
            raise NotComputable("no interval of this form, so no test of a threshold")
        half = 0.5 * (np.arctanh(own.ci_high) - np.arctanh(own.ci_low))
        df = (own.n_clusters or own.n) - 1
        se = half / quantile_t(df, alpha)
        statistic = (np.arctanh(own.estimate) - np.arctanh(single)) / se
        p_value = float(special.stdtr(df, -statistic))
        how = "Fisher's z of the interval, t"
    else:
        p_value = nested_layouts(values, codes)[f"{form[:-1]}1"].above(single)
        how = "F test at the threshold (McGraw-Wong 1996)"
    method = f"{found.method}; one-sided p of {form} <= {threshold:g}: {how}"
    return replace(found, p_value=p_value, method=method)


def _reported(
    name: str,
    forms: Mapping[str, _Limits],
    squares: _MeanSquares,
    n: int,
    k: int,
    method: str,
    note: str,
) -> IntraclassCorrelation:
    form = forms[name]
    estimate, low, high = (float(x) for x in (form.estimate, form.low, form.high))
    single = float(forms[name[:-1] + "1"].estimate)
    notes = [note] if note else []
    if name.endswith("k") and single < 0:
        estimate = low = high = np.nan
        notes.append("not defined: the single-reading form is negative")
    elif single < 0:
        notes.append("negative: readers differ more within than between targets")
    if np.isfinite(estimate) and not low <= estimate <= high:
        low = high = np.nan
        notes.append("interval not defined for this estimate")
    df2 = squares.df_within if name.startswith("icc_1") else squares.df_residual
    f = float(form.f)
    p_value = 0.0 if np.isposinf(f) else float(special.fdtrc(form.df1, df2, f))
    p_other = 0.0 if np.isposinf(f) else float(special.fdtrc(form.df1, form.df2, f))
    return IntraclassCorrelation(
        *(estimate, low, high, p_value, n, f"{_MEANING[name]}; {method}", "; ".join(notes)),
        form=name,
        f=f,
        df1=float(form.df1),
        df2=float(df2),
        k=k,
        p_value_satterthwaite=p_other,
        n_clusters=n,
    )


@dataclass(frozen=True)
class VarianceComponents:
    """Variances between targets, between readers and of the residual, in squared units."""

    target: float
    reader: float
    residual: float
    reml: float


def _absorbed(
    values: Floats, ratio_target: float, with_readers: bool, ratio_reader: float
) -> tuple[float, float]:
    """-2 REML log likelihood and residual variance at two variance ratios (targets absorbed).

    Ratios may be negative as long as the covariance stays positive definite, which the caller sees
    to: a negative variance between targets is what the analysis of variance reports too.
    """
    seen = ~np.isnan(values)
    y = np.where(seen, values, 0.0)
    per_target = seen.sum(axis=1)
    total = int(per_target.sum())
    weight = ratio_target / (1.0 + ratio_target * per_target)
    sums = y.sum(axis=1)
    ones = total - np.sum(weight * per_target**2)
    ones_y = y.sum() - np.sum(weight * per_target * sums)
    y_y = np.sum(y**2) - np.sum(weight * sums**2)
    log_det, sign = float(np.sum(np.log1p(ratio_target * per_target))), 1.0
    if with_readers and ratio_reader != 0:
        mask = seen.astype(np.float64)
        gram = np.diag(mask.sum(axis=0)) - mask.T @ (weight[:, None] * mask)
        system = np.eye(mask.shape[1]) + ratio_reader * gram
        z_one = mask.sum(axis=0) - mask.T @ (weight * per_target)
        z_y = y.sum(axis=0) - mask.T @ (weight * sums)
        # The grand mean, which REML leaves out, may have a negative eigenvalue: two signs change.
        sign, size = np.linalg.slogdet(system)
        if sign == 0:
            # Singular at this point to the last digit: no valid covariance.
            return 1e300, np.nan
        solved = ratio_reader * np.linalg.solve(system, np.column_stack([z_one, z_y]))
        ones -= float(z_one @ solved[:, 0])
        ones_y -= float(z_one @ solved[:, 1])
        y_y -= float(z_y @ solved[:, 1])
        log_det += float(size)
    if sign * ones <= 0:
        return 1e300, np.nan
    residual = max((y_y - ones_y**2 / ones) / (total - 1), 1e-300)
    deviance = (total - 1) * (np.log(2.0 * np.pi * residual) + 1.0) + log_det + np.log(abs(ones))
    return float(deviance), float(residual)


class _TwoWay(NamedTuple):
    """Least squares of readings on targets and readers, targets absorbed."""

    rss: float
    targets: Floats
    readers: Floats
    rank_readers: int


def _two_way(values: Floats, readers: bool) -> _TwoWay:
    seen = ~np.isnan(values)
    mask, y = seen.astype(np.float64), np.where(seen, values, 0.0)
    per_target = mask.sum(axis=1)
    means = y.sum(axis=1) / per_target
    effects = np.zeros(values.shape[1])
    rank = 0
    if readers:
        gram = np.diag(mask.sum(axis=0)) - mask.T @ (mask / per_target[:, None])
        right = (y - mask * means[:, None]).sum(axis=0)
        effects, _, rank, _ = np.linalg.lstsq(gram, right, rcond=1e-10)
        effects = effects - effects.mean()
    targets = (y - mask * effects).sum(axis=1) / per_target
    residual = mask * (y - targets[:, None] - effects)
    return _TwoWay(float(np.sum(residual**2)), targets, effects, int(rank))


def _without_residual(values: Floats, readers: bool) -> VarianceComponents | None:
    """Components of readings that targets and readers explain entirely: REML has no maximum."""
    fit = _two_way(values - np.nanmean(values), readers)
    if fit.rss > 1e-20 * float(np.nansum((values - np.nanmean(values)) ** 2)):
        return None
    reader = float(np.var(fit.readers, ddof=1)) if readers else 0.0
    return VarianceComponents(float(np.var(fit.targets, ddof=1)), reader, 0.0, np.inf)


def variance_components(
    ratings: ArrayLike,
    *,
    readers: bool = True,
    near: VarianceComponents | None = None,
) -> VarianceComponents:
    """REML variance components of crossed targets and readers, missing cells left out.

    Components may be negative, as in the analysis of variance of complete readings: one rule for
    complete and incomplete designs. Without ``readers`` they are part of the residual (one-way).
    The search starts ``near`` the components of nearly the same ratings (jackknife).

    Examples
    --------
    >>> parts = variance_components([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6]])
    >>> parts.target > 0 and parts.reader > 0 and parts.residual > 0
    True
    """
    values, _ = checked(ratings)
    if near is not None:
        return _reml(values, readers, near)
    table = np.ascontiguousarray(values)
    return _reml_once(table.tobytes(), (table.shape[0], table.shape[1]), readers)


@functools.lru_cache(maxsize=4)
def _reml_once(values: bytes, shape: tuple[int, int], readers: bool) -> VarianceComponents:
    """Several statistics of one table need the same components."""
    return _reml(np.frombuffer(values).reshape(shape), readers, None)


def _reml(values: Floats, readers: bool, near: VarianceComponents | None) -> VarianceComponents:
    from scipy import optimize

    exact = _without_residual(values, readers)
    if exact is not None:
        return exact
    scale = float(np.nanstd(values))
    standard = (values - np.nanmean(values)) / scale
    seen = ~np.isnan(values)
    # A ratio above minus one over the most readings that share an effect is a valid covariance.
    edges = 1.0 / np.array([seen.sum(axis=1).max(), seen.sum(axis=0).max()], dtype=np.float64)

    def ratios_at(point: Floats) -> Floats:
        ratios: Floats = np.exp(np.clip(point, -25.0, 27.0)) - edges[: point.size]
        return ratios

    def deviance(point: Floats) -> float:
        ratios = ratios_at(point)
        return _absorbed(standard, ratios[0], readers, ratios[1] if readers else 0.0)[0]

    # The profile over the ratios is smooth: a coarse grid finds the hill, the simplex its top.
    steps = np.array([-9.0, -6.0, -3.0, -1.0, 0.0, 1.0, 2.0, 3.0, 5.0, 8.0])
    if near is None or near.residual <= 0:
        grid = [np.array(point) for point in itertools.product(steps, repeat=2 if readers else 1)]
        start: Floats = min(grid, key=deviance)
        tolerance, flat, most, step = 1e-8, 1e-11, 500, 1.5
    else:
        ratios = np.array([near.target, near.reader])[: 2 if readers else 1] / near.residual
        start = np.log(np.maximum(ratios + edges[: ratios.size], 1e-8))
        tolerance, flat, most, step = 1e-4, 1e-8, 120, 0.2
    simplex = np.vstack([start, start + step * np.eye(start.size)])
    found = optimize.minimize(
        deviance,
        start,
        method="Nelder-Mead",
        options={
            "xatol": tolerance,
            "fatol": flat,
            "maxiter": most,
            "initial_simplex": simplex,
        },
    )
    ratios = ratios_at(found.x)
    ratio_reader = float(ratios[1]) if readers else 0.0
    reml, residual = _absorbed(standard, float(ratios[0]), readers, ratio_reader)
    residual *= scale**2
    total = int(seen.sum())
    return VarianceComponents(
        target=float(ratios[0]) * residual,
        reader=ratio_reader * residual,
        residual=residual,
        reml=-0.5 * (reml + 2.0 * (total - 1) * np.log(scale)),
    )


def _test_of_targets(values: Floats, with_readers: bool) -> tuple[float, int, int]:
    """Exact F of targets (after readers) by least squares, with its degrees of freedom."""
    seen = ~np.isnan(values)
    n, k = values.shape
    total = int(seen.sum())
    fit = _two_way(values - np.nanmean(values), with_readers)
    centre = np.nanmean(values, axis=0) if with_readers else np.nanmean(values)
    rss_base = float(np.nansum((values - centre) ** 2))
    rank_full = n + (fit.rank_readers if with_readers else 0)
    df1, df2 = rank_full - (k if with_readers else 1), total - rank_full
    if df2 <= 0 or df1 <= 0:
        raise NotComputable("no target has been read twice: readers cannot be compared")
    if fit.rss <= 1e-20 * rss_base:
        return np.inf, df1, df2
    return (rss_base - fit.rss) / df1 / (fit.rss / df2), df1, df2


def _incomplete(values: Floats, alpha: float) -> dict[str, IntraclassCorrelation]:
    """REML estimates; McGraw-Wong limits with effective numbers (exact when complete)."""
    seen = ~np.isnan(values)
    n, k = values.shape
    total = int(seen.sum())
    per_target, per_reader = seen.sum(axis=1), seen.sum(axis=0)
    effective_k = (total - np.sum(per_target**2) / total) / (n - 1)
    effective_n = (total - np.sum(per_reader**2) / total) / (k - 1)
    f_two, df1, df2 = _test_of_targets(values, with_readers=True)
    f_one, df1_one, df2_one = _test_of_targets(values, with_readers=False)
    two, one = variance_components(values), variance_components(values, readers=False)
    two_way = _MeanSquares(
        np.asarray(effective_k * two.target + two.residual),
        np.asarray(effective_n * two.reader + two.residual),
        np.asarray(two.residual),
        np.asarray(one.residual),
        df2,
        df2_one,
    )
    numbers = {"n": effective_n, "k": effective_k, "readers": k, "df_readers": k - 1.0}
    forms = _six_forms(two_way, df1=df1, alpha=alpha, **numbers)
    one_way = two_way._replace(targets=np.asarray(effective_k * one.target + one.residual))
    forms_one = _six_forms(one_way, df1=df1_one, alpha=alpha, **numbers)
    for name in ("icc_1_1", "icc_1_k"):
        forms[name] = forms_one[name]._replace(f=np.asarray(f_one))
    for name in ("icc_a_1", "icc_c_1", "icc_a_k", "icc_c_k"):
        forms[name] = forms[name]._replace(f=np.asarray(f_two))
    note = f"incomplete: {total} of {n * k} readings of {n} targets there, none imputed"
    method = "REML variance components; McGraw-Wong F limits with effective numbers"
    return {name: _reported(name, forms, two_way, n, k, method, note) for name in FORMS}


def standard_error_of_measurement(
    ratings: ArrayLike, *, alpha: float = 0.05, clusters: ArrayLike | None = None
) -> dict[str, Estimate]:
    """Standard error of measurement and minimal detectable change, both definitions.

    ``sem`` (agreement) = sqrt(reader + residual variance), which is SD * sqrt(1 - ICC(A,1));
    ``sem_consistency`` = sqrt(MSE). ``minimal_detectable_change`` = 1.96 sqrt(2) sem (de Vet 2006,
    J Clin Epidemiol 59:1033). Limits: Satterthwaite chi-square. Clusters: the mean squares of the
    model of :func:`intraclass_correlation`. Missing cells: REML components of all readings, limits
    by a jackknife over clusters (or targets) of the logarithm.

    Examples
    --------
    >>> sem = standard_error_of_measurement([[1, 2], [3, 3], [5, 7], [6, 6]])
    >>> round(sem["sem"].estimate, 4), round(sem["minimal_detectable_change"].estimate, 3)
    (0.7906, 2.191)
    """
    values, codes = checked(ratings, clusters)
    gaps = bool(np.isnan(values).any())
    result = _incomplete_errors(values, codes, alpha) if gaps else _sems(values, codes, alpha)
    factor = float(NORMAL_95 * np.sqrt(2.0))
    sem = result["sem"]
    words = sem.method.removeprefix("sem; ")
    change = sem.times(factor, f"1.96 sqrt(2) SEM(agreement); {words}")
    return {**result, "minimal_detectable_change": change}


def _sems(values: Floats, codes: Codes | None, alpha: float) -> dict[str, Estimate]:
    layouts = nested_layouts(values, codes)
    readers, residual, *rest = layouts["icc_a_1"].error
    a = round(1.0 / readers.weight)
    component = max((readers.square - residual.square) / a, 0.0)
    consistency = layouts["icc_c_1"].noise
    # Satterthwaite: with a positive reader component its mean square enters, else the rest alone.
    agreement = (
        [readers, residual._replace(weight=1.0 - 1.0 / a), *rest] if component > 0 else consistency
    )
    text = "Satterthwaite chi-square" + (f" over {a} clusters" if codes is not None else "")
    result = {}
    for name, parts in (("sem", agreement), ("sem_consistency", consistency)):
        value, df = _total(parts)
        sem = float(np.sqrt(value))
        low, high = standard_deviation_interval(sem, df, alpha)
        result[name] = Estimate(sem, low, high, n=len(values), method=f"{name}; {text}")
    return result


def _incomplete_errors(values: Floats, codes: Codes | None, alpha: float) -> dict[str, Estimate]:
    two, one = variance_components(values), variance_components(values, readers=False)
    found, left_out = _reml_forms(two, one), left_out_of_incomplete(values, codes)
    return {
        name: groups_of.jackknife_estimate(
            found[name], left_out[name], alpha=alpha, codes=codes, scale="log", n=len(values),
            method=f"{name}; REML of all readings",
        )
        for name in ("sem", "sem_consistency")
    }  # fmt: skip


def compare_intraclass_correlations(
    first: ArrayLike,
    second: ArrayLike,
    *,
    form: str = "icc_a_1",
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = SEED,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Difference of two intraclass correlations on the same targets (paired bootstrap).

    Clusters (or targets) are resampled; both coefficients, those of pooled targets, are computed on
    every resample, so their dependence is kept. Interval: BCa; p value: twice the smaller tail of
    the resampled differences around 0. ``first`` and ``second`` are (n targets, k readers),
    complete, rows the same targets; ``form`` is one of :data:`FORMS`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(60, 1))
    >>> good, poor = truth + rng.normal(0, 0.2, (60, 2)), truth + rng.normal(0, 1.0, (60, 2))
    >>> compare_intraclass_correlations(good, poor, resamples=500).ci_low > 0
    True
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise NotComputable("two complete tables of the same targets are needed")
    for table in (x, y):
        checked(table)
    n, codes = len(x), groups_of.codes_of(clusters, len(x))

    def difference(weights: Floats) -> Floats:
        return weighted_icc(x, weights, form) - weighted_icc(y, weights, form)

    estimate = float(difference(np.ones((1, n)))[0])
    drawn = bootstrap_weights(n, resamples=resamples, seed=seed, codes=codes)
    values = np.concatenate([difference(part) for part in drawn])
    groups = groups_of.deletion_groups(codes, n)
    masks = (np.array([groups != g]).astype(np.float64) for g in range(int(groups.max()) + 1))
    left_out = np.concatenate([difference(mask) for mask in masks])
    low, high = bootstrap_interval(values, estimate, left_out, alpha)
    note = "" if np.isfinite(low) else "interval not defined: too few resamples have a coefficient"
    unit = "targets" if codes is None else f"{int(codes.max()) + 1} clusters"
    return Estimate(
        estimate,
        low,
        high,
        note=note,
        p_value=bootstrap_p(values),
        n=n,
        method=f"difference of two {form}; paired bootstrap of {unit}, BCa, {resamples} resamples",
    )


def weighted_icc(values: Floats, weights: Floats, form: str) -> Floats:
    """An intraclass correlation of complete readings whose targets count several times.

    ``values`` are (n targets, k readers), ``weights`` (resamples, n): how often each target counts.

    Examples
    --------
    >>> table = np.array([[9.0, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6]])
    >>> weighted_icc(table, np.ones((1, 4)), "icc_c_1").round(4)
    array([0.637])
    """
    k = values.shape[1]
    centred = values - values.mean()
    rows = centred.mean(axis=1)
    size = weights.sum(axis=1)
    columns = (weights @ centred) / size[:, None]
    grand = columns.mean(axis=1)
    squares = weights @ np.column_stack([np.sum(centred**2, axis=1), rows**2])
    total = squares[:, 0] - k * size * grand**2
    targets = k * (squares[:, 1] - size * grand**2)
    readers = size * np.sum((columns - grand[:, None]) ** 2, axis=1)
    errors = total - targets - readers
    floor = 1e-13 * np.maximum(squares[:, 0], 1e-300)
    targets, readers, errors = (np.where(s <= floor, 0.0, s) for s in (targets, readers, errors))
    ms_targets, ms_error = targets / (size - 1.0), errors / ((size - 1.0) * (k - 1))
    if form.startswith("icc_1"):
        ms_error = (readers + errors) / (size * (k - 1))
    bottom = ms_targets + (k - 1.0) * ms_error
    if form.startswith("icc_a"):
        bottom = bottom + k / size * (readers / (k - 1) - ms_error)
    with np.errstate(invalid="ignore", divide="ignore"):
        single = np.where(bottom > 0, (ms_targets - ms_error) / bottom, np.nan)
    return _stepped_up(single, k) if form.endswith("k") else single
