"""Intraclass correlation: six forms, exact limits, incomplete designs, comparison of two.

Names after McGraw and Wong 1996 (Psychol Methods 1:30 and the correction 1:390): 1 one-way,
A absolute agreement, C consistency; 1 for a single reading, k for the mean of k readings. They are
Shrout and Fleiss' ICC(1,1), (2,1), (3,1), (1,k), (2,k), (3,k).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from corelab.agreement.estimates import (
    NORMAL_95,
    SEED,
    Estimate,
    Floats,
    bootstrap_interval,
)
from corelab.measurement.selection import NotComputable

FORMS = ("icc_1_1", "icc_a_1", "icc_c_1", "icc_1_k", "icc_a_k", "icc_c_k")

_MEANING = {
    "icc_1_1": "ICC(1,1) one-way random, single reading",
    "icc_a_1": "ICC(A,1) two-way random, absolute agreement, single reading",
    "icc_c_1": "ICC(C,1) two-way mixed, consistency, single reading",
    "icc_1_k": "ICC(1,k) one-way random, mean of k readings",
    "icc_a_k": "ICC(A,k) two-way random, absolute agreement, mean of k readings",
    "icc_c_k": "ICC(C,k) two-way mixed, consistency, mean of k readings",
}


@dataclass(frozen=True)
class IntraclassCorrelation:
    """One form of the intraclass correlation.

    Attributes
    ----------
    f, df1, df2, p_value
        Test that targets do not differ (ICC = 0): MSB / MSW for the one-way forms, MSB / MSE for
        the others. It is no test of reader bias.
    df2_satterthwaite, p_value_satterthwaite
        The same F of ICC(A,.) with the denominator df of its interval, as R irr prints it.
    n, k
        Targets and readers.
    """

    form: str
    estimate: float
    ci_low: float
    ci_high: float
    f: float
    df1: float
    df2: float
    p_value: float
    n: int
    k: int
    ci_level: float = 0.95
    method: str = ""
    note: str = ""
    df2_satterthwaite: float = np.nan
    p_value_satterthwaite: float = np.nan


class IntraclassCorrelations(NamedTuple):
    """Arrays of one form over many features."""

    estimate: Floats
    ci_low: Floats
    ci_high: Floats
    f: Floats
    p_value: Floats


class MeanSquares(NamedTuple):
    """Mean squares of a two-way layout without replication, and their degrees of freedom."""

    targets: Floats
    readers: Floats
    residual: Floats
    within: Floats
    df_residual: float
    df_within: float


def mean_squares(ratings: Floats) -> MeanSquares:
    """Two-way and one-way mean squares of complete ratings (..., n targets, k readers).

    Examples
    --------
    >>> squares = mean_squares(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    >>> float(squares.targets), float(squares.readers), float(squares.residual)
    (8.0, 1.5, 0.0)
    """
    n, k = ratings.shape[-2:]
    centred = ratings - ratings.mean(axis=(-2, -1), keepdims=True)
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
    return MeanSquares(
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
    squares: MeanSquares, n: float, k: float, df1: float, df_readers: float, alpha: float
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
    squares: MeanSquares,
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
    averaged = {
        name.replace("_1", "_k") if name != "icc_1_1" else "icc_1_k": limits._replace(
            estimate=_stepped_up(limits.estimate, readers),
            low=_stepped_up(limits.low, readers),
            high=_stepped_up(limits.high, readers),
        )
        for name, limits in single.items()
    }
    return {**single, **averaged}


def intraclass_correlation_many(
    ratings: ArrayLike, *, alpha: float = 0.05
) -> dict[str, IntraclassCorrelations]:
    """All six intraclass correlations of many features at once, without a loop.

    Parameters
    ----------
    ratings
        (features, n targets, k readers), complete.
    alpha
        1 - confidence level.

    Returns
    -------
    dict
        Form -> arrays of length ``features``; NaN where a feature does not vary at all.

    Raises
    ------
    ValueError
        If the array is not three-dimensional, or not finite.

    Examples
    --------
    >>> table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8],
    ...          [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> many = intraclass_correlation_many([table, table])
    >>> many["icc_a_1"].estimate.round(4)
    array([0.2898, 0.2898])
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
    forms = _six_forms(
        mean_squares(values), n=n, k=k, readers=k, df1=n - 1, df_readers=k - 1, alpha=alpha
    )
    result = {}
    for name, form in forms.items():
        df2 = n * (k - 1) if name.startswith("icc_1") else (n - 1) * (k - 1)
        p_value = np.where(np.isposinf(form.f), 0.0, special.fdtrc(n - 1, df2, form.f))
        result[name] = IntraclassCorrelations(form.estimate, form.low, form.high, form.f, p_value)
    return result


def _checked(ratings: ArrayLike) -> Floats:
    values = np.asarray(ratings, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"ratings of shape {values.shape}: one row per target and one column per reader"
        )
    if np.isinf(values).any():
        raise ValueError("infinite ratings: mark what could not be measured as missing (NaN)")
    seen = ~np.isnan(values)
    values = values[seen.any(axis=1)][:, seen.any(axis=0)]
    n, k = values.shape
    if k < 2:
        raise NotComputable("single reader: an intraclass correlation compares two or more")
    if n < 2:
        raise NotComputable("single target: an intraclass correlation needs two or more")
    known = values[~np.isnan(values)]
    if np.ptp(known) == 0:
        raise NotComputable(f"no variance: all {known.size} ratings are {known[0]:g}")
    return values


def intraclass_correlation(
    ratings: ArrayLike, *, alpha: float = 0.05
) -> dict[str, IntraclassCorrelation]:
    """All six intraclass correlations with F test and confidence interval.

    Complete ratings: mean squares and the limits of McGraw and Wong 1996, at full precision (the
    limits of the averaged forms are the stepped-up limits of the single ones). Ratings with
    missing cells (NaN): variance components by REML from all that is there, and the same limits
    with effective numbers of targets and readers; ``method`` says so. Nothing is imputed.

    Parameters
    ----------
    ratings
        (n targets, k readers); NaN where a reader has no value.
    alpha
        1 - confidence level.

    Returns
    -------
    dict
        ``icc_1_1 icc_a_1 icc_c_1 icc_1_k icc_a_k icc_c_k`` -> :class:`IntraclassCorrelation`. A
        negative single form is reported as it is; its averaged form is then NaN with a note.

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
    >>> round(icc["icc_a_1"].ci_low, 4), round(icc["icc_a_1"].ci_high, 4)
    (0.0188, 0.7611)
    """
    values = _checked(ratings)
    if np.isnan(values).any():
        return _incomplete(values, alpha)
    n, k = values.shape
    squares = mean_squares(values)
    forms = _six_forms(squares, n=n, k=k, readers=k, df1=n - 1, df_readers=k - 1, alpha=alpha)
    note = "perfect agreement: limits by continuity" if squares.within == 0 else ""
    return {
        name: _reported(name, forms, squares, n, k, alpha, "McGraw-Wong 1996 F limits", note)
        for name in FORMS
    }


def _reported(
    name: str,
    forms: Mapping[str, _Limits],
    squares: MeanSquares,
    n: int,
    k: int,
    alpha: float,
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
    df2_other = float(form.df2)
    p_other = 0.0 if np.isposinf(f) else float(special.fdtrc(form.df1, df2_other, f))
    return IntraclassCorrelation(
        form=name,
        estimate=estimate,
        ci_low=low,
        ci_high=high,
        f=f,
        df1=float(form.df1),
        df2=float(df2),
        p_value=p_value,
        n=n,
        k=k,
        ci_level=1.0 - alpha,
        method=f"{_MEANING[name]}; {method}",
        note="; ".join(notes),
        df2_satterthwaite=df2_other,
        p_value_satterthwaite=p_other,
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
    """-2 REML log likelihood and residual variance at two variance ratios (targets absorbed)."""
    seen = ~np.isnan(values)
    y = np.where(seen, values, 0.0)
    per_target = seen.sum(axis=1)
    total = int(per_target.sum())
    weight = ratio_target / (1.0 + ratio_target * per_target)
    sums = y.sum(axis=1)
    ones = total - np.sum(weight * per_target**2)
    ones_y = y.sum() - np.sum(weight * per_target * sums)
    y_y = np.sum(y**2) - np.sum(weight * sums**2)
    log_det = float(np.sum(np.log1p(ratio_target * per_target)))
    if with_readers and ratio_reader > 0:
        mask = seen.astype(np.float64)
        gram = np.diag(mask.sum(axis=0)) - mask.T @ (weight[:, None] * mask)
        system = np.eye(mask.shape[1]) + ratio_reader * gram
        z_one = mask.sum(axis=0) - mask.T @ (weight * per_target)
        z_y = y.sum(axis=0) - mask.T @ (weight * sums)
        solved = ratio_reader * np.linalg.solve(system, np.column_stack([z_one, z_y]))
        ones -= float(z_one @ solved[:, 0])
        ones_y -= float(z_one @ solved[:, 1])
        y_y -= float(z_y @ solved[:, 1])
        log_det += float(np.linalg.slogdet(system)[1])
    residual = max((y_y - ones_y**2 / ones) / (total - 1), 1e-300)
    deviance = (total - 1) * (np.log(2.0 * np.pi * residual) + 1.0) + log_det + np.log(ones)
    return float(deviance), float(residual)


def _without_residual(values: Floats, readers: bool) -> VarianceComponents | None:
    """Components of readings that targets and readers explain entirely: REML has no maximum."""
    seen = ~np.isnan(values)
    target, reader = np.nonzero(seen)
    y = values[seen] - values[seen].mean()
    n, k = values.shape
    # Deviation coding of readers: with the targets' own means they make a full-rank design.
    codes = (
        np.vstack([np.eye(k - 1), -np.ones(k - 1)])[reader] if readers else np.zeros((y.size, 0))
    )
    design = np.column_stack([np.eye(n)[target], codes])
    solution, _, _, _ = np.linalg.lstsq(design, y, rcond=None)
    if np.sum((y - design @ solution) ** 2) > 1e-20 * np.sum(y**2):
        return None
    effects = np.append(solution[n:], -solution[n:].sum()) if readers else np.zeros(2)
    return VarianceComponents(
        float(np.var(solution[:n], ddof=1)), float(np.var(effects, ddof=1)), 0.0, np.inf
    )


def variance_components(ratings: ArrayLike, *, readers: bool = True) -> VarianceComponents:
    """REML variance components of crossed targets and readers, missing cells left out.

    Parameters
    ----------
    ratings
        (n targets, k readers), NaN where there is no value.
    readers
        Whether readers are an effect of their own (two-way) or part of the residual (one-way).

    Examples
    --------
    On complete data with positive components REML equals the analysis of variance:

    >>> table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8],
    ...          [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> parts = variance_components(table)
    >>> round(parts.target, 4), round(parts.reader, 4), round(parts.residual, 4)
    (2.5556, 5.2444, 1.0194)
    """
    from scipy import optimize

    values = _checked(ratings)
    exact = _without_residual(values, readers)
    if exact is not None:
        return exact
    scale = float(np.nanstd(values))
    standard = (values - np.nanmean(values)) / scale

    def deviance(log_ratios: Floats) -> float:
        ratios = np.where(log_ratios < -18.0, 0.0, np.exp(np.clip(log_ratios, -18.0, 27.0)))
        return _absorbed(standard, ratios[0], readers, ratios[1] if readers else 0.0)[0]

    # The profile over the ratios is smooth: a coarse grid finds the hill, the simplex its top.
    # Below -18 a ratio counts as 0, so that the edge of the parameter space can be the answer.
    steps = np.array([-19.0, -6.0, -3.0, -1.0, 0.0, 1.0, 2.0, 3.0, 5.0, 8.0])
    grid = [np.array(point) for point in itertools.product(steps, repeat=2 if readers else 1)]
    start: Floats = min(grid, key=deviance)
    simplex = np.vstack([start, start + 1.5 * np.eye(start.size)])
    found = optimize.minimize(
        deviance,
        start,
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000, "initial_simplex": simplex},
    )
    ratios = np.where(found.x < -18.0, 0.0, np.exp(found.x))
    ratio_reader = float(ratios[1]) if readers else 0.0
    reml, residual = _absorbed(standard, float(ratios[0]), readers, ratio_reader)
    residual *= scale**2
    total = int((~np.isnan(values)).sum())
    return VarianceComponents(
        target=float(ratios[0]) * residual,
        reader=ratio_reader * residual,
        residual=residual,
        reml=-0.5 * (reml + 2.0 * (total - 1) * np.log(scale)),
    )


def _test_of_targets(values: Floats, with_readers: bool) -> tuple[float, int, int]:
    """Exact F of targets (after readers) by least squares, with its degrees of freedom."""
    seen = ~np.isnan(values)
    rows, columns = np.nonzero(seen)
    y = values[seen]
    base = np.eye(values.shape[1])[columns] if with_readers else np.ones((y.size, 1))
    full = np.column_stack([base, np.eye(values.shape[0])[rows]])

    def residual(design: Floats) -> tuple[float, int]:
        solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
        return float(np.sum((y - design @ solution) ** 2)), int(rank)

    rss_full, rank_full = residual(full)
    rss_base, rank_base = residual(base)
    df1, df2 = rank_full - rank_base, y.size - rank_full
    if df2 <= 0:
        raise NotComputable("no target has been read twice: readers cannot be compared")
    if rss_full <= 1e-20 * rss_base:
        return np.inf, df1, df2
    return (rss_base - rss_full) / df1 / (rss_full / df2), df1, df2


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
    two_way = MeanSquares(
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
    note = f"incomplete: {total} of {n * k} readings there, none imputed"
    method = "REML variance components; McGraw-Wong F limits with effective numbers"
    return {name: _reported(name, forms, two_way, n, k, alpha, method, note) for name in FORMS}


def standard_error_of_measurement(
    ratings: ArrayLike, *, alpha: float = 0.05
) -> dict[str, Estimate]:
    """Standard error of measurement and minimal detectable change, both definitions.

    ``sem`` (agreement) = sqrt(reader + residual variance), which is SD * sqrt(1 - ICC(A,1));
    ``sem_consistency`` = sqrt(MSE). ``minimal_detectable_change`` = 1.96 sqrt(2) sem (de Vet 2006,
    J Clin Epidemiol 59:1033). Limits: Satterthwaite chi-square.

    Examples
    --------
    >>> sem = standard_error_of_measurement([[1, 2], [3, 3], [5, 7], [6, 6]])
    >>> round(sem["sem"].estimate, 4), round(sem["minimal_detectable_change"].estimate, 3)
    (0.7906, 2.191)
    """
    values = _checked(ratings)
    values = values[~np.isnan(values).any(axis=1)]
    n, k = values.shape
    if n < 2:
        raise NotComputable(f"{n} complete targets, at least 2 are needed")
    squares = mean_squares(values)
    j, e = float(squares.readers), float(squares.residual)
    reader = max((j - e) / n, 0.0)
    variance = reader + e
    # Satterthwaite: variance = j / n + e (n - 1) / n where the reader component is positive.
    parts = [(j / n, k - 1.0), (e * (n - 1.0) / n, squares.df_residual)]
    bottom = sum(value**2 / df for value, df in parts)
    df = variance**2 / bottom if reader > 0 and bottom > 0 else squares.df_residual
    result = {}
    for name, value, freedom in (
        ("sem", variance, df),
        ("sem_consistency", e, squares.df_residual),
    ):
        sem = float(np.sqrt(value))
        low, high = _chi_square_limits(sem, freedom, alpha)
        result[name] = Estimate(sem, low, high, n=n, method=f"{name}; Satterthwaite chi-square")
    sem_row = result["sem"]
    factor = float(NORMAL_95 * np.sqrt(2.0))
    result["minimal_detectable_change"] = Estimate(
        factor * sem_row.estimate,
        factor * sem_row.ci_low,
        factor * sem_row.ci_high,
        n=n,
        method="1.96 sqrt(2) SEM(agreement); Satterthwaite chi-square",
    )
    return result


def _chi_square_limits(sd: float, df: float, alpha: float) -> tuple[float, float]:
    from corelab.agreement.estimates import standard_deviation_interval

    return standard_deviation_interval(sd, df, alpha)


def compare_intraclass_correlations(
    first: ArrayLike,
    second: ArrayLike,
    *,
    form: str = "icc_a_1",
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = SEED,
) -> Estimate:
    """Difference of two intraclass correlations on the same targets (paired bootstrap).

    Targets are resampled; both coefficients are computed on every resample, so their dependence is
    kept. Interval: BCa; p value: twice the smaller tail of the resampled differences around 0.

    Parameters
    ----------
    first, second
        (n targets, k readers) each, rows are the same targets, complete.
    form
        One of :data:`FORMS`.
    alpha
        1 - confidence level.
    resamples, seed
        Of the bootstrap.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(size=(60, 1))
    >>> good, poor = truth + rng.normal(0, 0.2, (60, 2)), truth + rng.normal(0, 1.0, (60, 2))
    >>> difference = compare_intraclass_correlations(good, poor, resamples=500)
    >>> difference.ci_low > 0
    True
    """
    x, y = _checked(first), _checked(second)
    if len(x) != len(y) or np.isnan(x).any() or np.isnan(y).any():
        raise NotComputable("two complete tables of the same targets are needed")
    n = len(x)
    drawn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    left_out = np.array([np.delete(np.arange(n), i) for i in range(n)])

    def difference(index: np.ndarray) -> Floats:
        ours = intraclass_correlation_many(x[index])[form].estimate
        theirs = intraclass_correlation_many(y[index])[form].estimate
        return ours - theirs

    estimate = float(difference(np.arange(n)[None])[0])
    values = difference(drawn)
    low, high = bootstrap_interval(values, estimate, difference(left_out), alpha)
    finite = values[np.isfinite(values)]
    tail = min(
        (np.sum(finite <= 0) + 1) / (finite.size + 1), (np.sum(finite >= 0) + 1) / (finite.size + 1)
    )
    note = "" if np.isfinite(low) else "interval not defined: too few resamples have a coefficient"
    return Estimate(
        estimate,
        low,
        high,
        note=note,
        p_value=float(min(1.0, 2.0 * tail)),
        n=n,
        method=f"difference of two {form}; paired bootstrap of targets, BCa, {resamples} resamples",
    )
