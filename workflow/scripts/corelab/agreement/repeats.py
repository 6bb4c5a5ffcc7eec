"""Intra-reader against inter-reader: how far a reader is from himself, and from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from corelab.agreement import second
from corelab.agreement.differences import ReplicatedLimits, bland_altman_replicated
from corelab.agreement.estimates import (
    NORMAL_95,
    Estimate,
    Floats,
    quantile_t,
)
from corelab.agreement.groups import GroupStatistics
from corelab.agreement.guards import one_per_cell
from corelab.agreement.icc import intraclass_correlation
from corelab.agreement.metrology import repeatability
from corelab.measurement.selection import NotComputable

Row = dict[str, Any]


def cube(values: pd.DataFrame, sources: Sequence[str]) -> tuple[Floats, pd.Index]:
    """Readings as (targets, sources, repeats), NaN where there is none, and the targets' names.

    Examples
    --------
    >>> rows = pd.DataFrame({"participant_id": "1", "visit": "a", "source": ["x", "x", "y"],
    ...                      "repeat": [1, 2, 1], "value": [1.0, 2.0, 3.0]})
    >>> cube(rows, ["x", "y"])[0].tolist()
    [[[1.0, 2.0], [3.0, nan]]]
    """
    own = values[values["source"].isin(list(sources))]
    wide = one_per_cell(own, ["participant_id", "visit"], ["source", "repeat"])
    repeats = sorted(own["repeat"].unique())
    columns = pd.MultiIndex.from_product([list(sources), repeats], names=["source", "repeat"])
    table = wide.reindex(columns=columns)
    return table.to_numpy(float).reshape(len(table), len(sources), len(repeats)), table.index


def _pooled(readings: Floats) -> tuple[Floats, Floats]:
    """Sums of squares within, and degrees of freedom, of each target over the last axis."""
    counts = (~np.isnan(readings)).sum(axis=-1)
    sums = np.nansum(readings, axis=-1)
    means = sums / np.maximum(counts, 1)
    squares = np.nansum((readings - means[..., None]) ** 2, axis=-1)
    return np.where(counts > 1, squares, 0.0), np.maximum(counts - 1, 0).astype(np.float64)


def inter_intra_ratio(readings: Floats, *, alpha: float = 0.05) -> Estimate:
    """SD between readers over SD of a reader from himself, for single readings of one target.

    Between: pooled over targets, of the first readings of all readers (reader bias and the
    interaction of reader and target are part of it, and so is the reader's own variation, so that
    the ratio is 1 where another reader is no worse than the same one again). Within: pooled over
    targets and readers, of repeated readings. Interval: jackknife over targets of the logarithm, t.

    Parameters
    ----------
    readings
        (targets, readers, repeats), NaN where there is none.
    alpha
        1 - confidence level.

    Raises
    ------
    NotComputable
        Without repeated readings, without targets read by two readers, or where repeats are equal.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.normal(50, 10, (200, 1, 1))
    >>> readings = truth + rng.normal(0, 2, (200, 3, 1)) + rng.normal(0, 1, (200, 3, 2))
    >>> found = inter_intra_ratio(readings)
    >>> found.ci_low < 5 ** 0.5 < found.ci_high
    True
    """
    inside, df_inside = _pooled(readings)
    inside, df_inside = inside.sum(axis=1), df_inside.sum(axis=1)
    between, df_between = _pooled(readings[:, :, 0])
    used = (df_inside > 0) | (df_between > 0)
    inside, df_inside, between, df_between = (
        part[used] for part in (inside, df_inside, between, df_between)
    )
    if df_inside.sum() < 1 or df_between.sum() < 1:
        raise NotComputable("repeated readings and targets read by two readers are both needed")
    if inside.sum() <= 1e-24 * max(between.sum(), 1e-300):
        raise NotComputable("repeated readings are all equal: no ratio to them")
    if between.sum() <= 0:
        raise NotComputable("readers agree exactly: the ratio is 0 and has no interval")

    def logarithm(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            top = (weights @ between) / (weights @ df_between)
            return 0.5 * np.log(top / ((weights @ inside) / (weights @ df_inside)))

    n = int(used.sum())
    method = "pooled SD between readers over within a reader; jackknife of the logarithm, t"
    estimate = float(logarithm(np.ones((1, n)))[0])
    left_out = logarithm(1.0 - np.eye(n))
    if n < 3 or not np.isfinite(left_out).all():
        note = "interval not defined: it hangs on one target"
        return Estimate(float(np.exp(estimate)), n=n, method=method, note=note)
    pseudo = n * estimate - (n - 1) * left_out
    half = quantile_t(n - 1, alpha) * float(pseudo.std(ddof=1)) / np.sqrt(n)
    limits = np.exp([estimate, estimate - half, estimate + half])
    return Estimate(float(limits[0]), float(limits[1]), float(limits[2]), n=n, method=method)


def intra_inter_rows(
    analysis: Mapping[str, Any],
    endpoint: str,
    visit: str,
    sources: Sequence[str],
    values: pd.DataFrame,
) -> list[Row]:
    """The table of intra-reader against inter-reader figures; empty where nothing is repeated.

    Statistics: ``intra_reader_sd``, ``intra_reader_repeatability`` and ``intra_reader_icc`` (group
    = source, ``all`` pooled), ``inter_reader_sd``, ``inter_reader_reproducibility`` and
    ``inter_reader_icc`` (``all``), ``inter_intra_sd_ratio`` (``all``).
    """
    if len(values) == 0 or values["repeat"].nunique() < 2 or len(sources) < 2:
        return []
    readings, _ = cube(values, sources)
    every = GroupStatistics(analysis, endpoint, visit, "all")
    n, k, m = readings.shape
    rows: list[Row] = []
    for j, source in enumerate(sources):
        maker = GroupStatistics(analysis, endpoint, visit, source)
        rows += _figures(maker, readings[:, j], "intra_reader", "repeatability")
    # A target and reader is one unit here: readers differ, their own variation is pooled.
    pooled = readings.reshape(n * k, m)
    rows += _figures(every, pooled, "intra_reader", "repeatability", with_icc=False)
    rows += _figures(every, readings[:, :, 0], "inter_reader", "reproducibility")
    ratio = partial(inter_intra_ratio, readings, alpha=every.alpha)
    return [*rows, every.attempt("inter_intra_sd_ratio", ratio)]


def _figures(
    maker: GroupStatistics, table: Floats, prefix: str, kind: str, *, with_icc: bool = True
) -> list[Row]:
    names = (f"{prefix}_sd", f"{prefix}_{kind}")
    try:
        found = repeatability(table, alpha=maker.alpha)
    except NotComputable as error:
        rows = [maker.attempt(name, error) for name in names]
    else:
        check = partial(second.second_within_sd, table)
        rows = [
            maker.attempt(names[0], found["within_sd"], check),
            maker.attempt(names[1], found["repeatability_coefficient"]),
        ]
    if not with_icc:
        return rows
    form = str(maker.analysis.get("icc_form", "icc_a_1"))
    twice = table[(~np.isnan(table)).sum(axis=1) >= 2]
    try:
        if len(twice) < 3:
            raise NotComputable(f"{len(twice)} targets read twice, at least 3 are needed")
        one = intraclass_correlation(twice, alpha=maker.alpha)[form]
    except NotComputable as error:
        return [*rows, maker.attempt(f"{prefix}_icc", error)]
    icc = Estimate(one.estimate, one.ci_low, one.ci_high, one.p_value, one.n, one.method, one.note)
    return [*rows, maker.attempt(f"{prefix}_icc", icc)]


def replicated_rows(
    analysis: Mapping[str, Any],
    endpoint: str,
    visit: str,
    pair: tuple[str, str],
    values: pd.DataFrame,
) -> list[Row]:
    """Limits of agreement of single readings from all repeats of two sources, where there are any.

    ``linked: true`` in the plan takes repeat i of one source with repeat i of the other.
    """
    own = values[values["source"].isin(pair)]
    if own.groupby("source")["repeat"].nunique().reindex(list(pair)).fillna(0).min() < 2:
        return []
    maker = GroupStatistics(analysis, endpoint, visit, "|".join(pair))
    names = ("bias_replicated", "loa_lower_replicated", "loa_upper_replicated")
    readings, _ = cube(own, pair)
    try:
        found = bland_altman_replicated(
            readings[:, 0],
            readings[:, 1],
            linked=bool(analysis.get("linked", False)),
            alpha=maker.alpha,
        )
    except NotComputable as error:
        return [maker.attempt(name, error) for name in names]
    return [maker.attempt(name, one) for name, one in zip(names, _limits(found), strict=True)]


def _limits(found: ReplicatedLimits) -> list[Estimate]:
    method = f"{NORMAL_95} SD of single readings; {found.method}"
    return [
        Estimate(found.bias, *found.bias_ci, n=found.n, method=method),
        Estimate(found.loa_lower, *found.loa_lower_ci, n=found.n, method=method),
        Estimate(found.loa_upper, *found.loa_upper_ci, n=found.n, method=method),
    ]
