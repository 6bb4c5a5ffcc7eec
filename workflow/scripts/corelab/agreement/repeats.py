"""Intra-reader against inter-reader: how far a reader is from himself, and from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from corelab.agreement import clusters as groups_of
from corelab.agreement import second
from corelab.agreement.clusters import Codes
from corelab.agreement.differences import bland_altman_replicated
from corelab.agreement.estimates import Floats
from corelab.agreement.groups import GroupStatistics
from corelab.agreement.guards import one_per_cell
from corelab.agreement.icc import intraclass_correlation
from corelab.agreement.metrology import repeatability
from corelab.measurement.selection import NotComputable
from corelab.terms.results import Estimate, StatisticRow


def _cube(values: pd.DataFrame, sources: Sequence[str]) -> tuple[Floats, pd.Index]:
    """Readings as (targets, sources, repeats), NaN where there is none, and the targets."""
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


def _between_and_within(
    readings: Floats, clusters: ArrayLike | None
) -> tuple[Floats, Codes | None]:
    """Sums of squares and df within readers, and between them, of each target; clusters."""
    inside, df_inside = _pooled(readings)
    inside, df_inside = inside.sum(axis=1), df_inside.sum(axis=1)
    between, df_between = _pooled(readings[:, :, 0])
    used = (df_inside > 0) | (df_between > 0)
    codes = groups_of.subset(groups_of.codes_of(clusters, len(readings)), used)
    parts = np.column_stack([inside, df_inside, between, df_between])[used]
    if min(parts.sum(axis=0)[[1, 3]]) < 1:
        raise NotComputable("repeated readings and targets read by two readers are both needed")
    return parts, codes


def _inter_intra_ratio(
    readings: Floats,
    *,
    alpha: float = 0.05,
    clusters: ArrayLike | None = None,
    margin: float | None = None,
) -> Estimate:
    """SD between readers over SD of a reader from himself, for single readings of one target.

    Between: pooled over targets, of the first readings of all readers (reader bias and the
    interaction of reader and target are part of it, and so is the reader's own variation, so that
    the ratio is 1 where another reader is no worse than the same one again). Within: pooled over
    targets and readers, of repeated readings. Interval: jackknife of the logarithm, t. With a
    ``margin``, the largest ratio that still counts as no worse, p is that of being at the margin
    (Obuchowski 2014, Acad Radiol 21:1483, whose index is the difference of the two variances).
    """
    parts, codes = _between_and_within(readings, clusters)
    inside, _, between, _ = parts.sum(axis=0)
    if inside <= 1e-24 * max(between, 1e-300):
        raise NotComputable("repeated readings are all equal: no ratio to them")
    if between <= 0:
        raise NotComputable("readers agree exactly: the ratio is 0 and has no interval")
    return _jackknifed(
        lambda within, others: np.sqrt(others / within), parts, codes, alpha=alpha, scale="log",
        null=margin, method="pooled SD between readers over within a reader",
    )  # fmt: skip


def _jackknifed(
    statistic: Callable[[Floats, Floats], Floats], parts: Floats, codes: Codes | None, **how: Any
) -> Estimate:
    """Jackknife of a statistic of the variances within and between readers."""

    def of(totals: Floats) -> Floats:
        inside, df_inside, between, df_between = totals.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return statistic(inside / df_inside, between / df_between)

    whole = parts.sum(axis=0)
    left_out = of(whole - groups_of.sums(parts, codes))
    value = float(of(whole[None])[0])
    return groups_of.jackknife_estimate(value, left_out, codes=codes, n=len(parts), **how)


def _no_worse(ratio: Callable[..., Estimate], margin: float) -> Estimate:
    """The ratio with the one-sided p of being at or above the margin."""
    found = ratio(margin=margin)
    half = found.p_value / 2.0
    p_value = half if found.estimate < margin else 1.0 - half
    text = f"one-sided p of a ratio of {margin:g} or more (Obuchowski 2014)"
    return replace(found, p_value=p_value, method=f"{found.method}; {text}")


def _interchangeability(
    readings: Floats, *, alpha: float = 0.05, clusters: ArrayLike | None = None
) -> Estimate:
    """Mean squared difference between two readers minus that of a reader from himself.

    The index of individual equivalence of Obuchowski 2014, in squared units of the endpoint: 0
    where another reader is no worse than the same one again. Interval: jackknife, t.
    """
    parts, codes = _between_and_within(readings, clusters)
    return _jackknifed(
        lambda within, others: 2.0 * (others - within), parts, codes, alpha=alpha, scale="raw",
        null=0.0,
        method="mean squared difference between readers minus within a reader (Obuchowski 2014)",
    )  # fmt: skip


def intra_inter_rows(
    whole: GroupStatistics, sources: Sequence[str], values: pd.DataFrame
) -> list[StatisticRow]:
    """The table of intra-reader against inter-reader figures; empty where nothing is repeated.

    Statistics: ``intra_reader_sd``, ``intra_reader_repeatability`` and ``intra_reader_icc`` (group
    = source, ``all`` pooled), ``inter_reader_sd``, ``inter_reader_reproducibility`` and
    ``inter_reader_icc`` (``all``), ``inter_intra_sd_ratio`` and ``interchangeability_index``
    (``all``); with ``no_worse_ratio`` in the plan ``inter_no_worse_than_intra``.
    """
    if len(values) == 0 or values["repeat"].nunique() < 2 or len(sources) < 2:
        return []
    readings, index = _cube(values, sources)
    every = whole.over(index)
    n, k, m = readings.shape
    rows: list[StatisticRow] = []
    for j, source in enumerate(sources):
        maker = whole.of(source).over(index)
        rows += _figures(maker, readings[:, j], "intra_reader", "repeatability")
    # A target and reader is one unit here: readers differ, their own variation is pooled.
    pooled = readings.reshape(n * k, m)
    # Readings of one participant by two readers are still readings of one participant.
    own = np.arange(n) if every.codes is None else every.codes
    pool = replace(every, codes=np.repeat(own, k) if every.codes is not None else None)
    rows += _figures(pool, pooled, "intra_reader", "repeatability", with_icc=False)
    rows += _figures(every, readings[:, :, 0], "inter_reader", "reproducibility")
    ratio = partial(_inter_intra_ratio, readings, **every.how)
    rows.append(every.attempt("inter_intra_sd_ratio", ratio))
    index_of = partial(_interchangeability, readings, **every.how)
    rows.append(every.attempt("interchangeability_index", index_of))
    margin = whole.analysis.no_worse_ratio
    if margin is not None:
        compared = partial(_no_worse, ratio, float(margin))
        rows.append(every.attempt("inter_no_worse_than_intra", compared))
    return rows


def _figures(
    maker: GroupStatistics, table: Floats, prefix: str, kind: str, *, with_icc: bool = True
) -> list[StatisticRow]:
    def spread() -> Iterable[Estimate]:
        found = repeatability(table, **maker.how)
        return found["within_sd"], found["repeatability_coefficient"]

    names = (f"{prefix}_sd", f"{prefix}_{kind}")
    check = partial(second.second_within_sd, table)
    rows = maker.attempts(names, spread, checks=(check, None))
    if not with_icc:
        return rows
    form = maker.analysis.form
    keep = (~np.isnan(table)).sum(axis=1) >= 2
    twice, codes = table[keep], groups_of.subset(maker.codes, keep)
    try:
        if len(twice) < 3:
            raise NotComputable(f"{len(twice)} targets read twice, at least 3 are needed")
        how: dict[str, Any] = {**maker.how, "clusters": codes, "pooled": maker.pooled}
        found = intraclass_correlation(twice, **how)
    except NotComputable as error:
        return [*rows, maker.attempt(f"{prefix}_icc", error)]
    return [*rows, maker.attempt(f"{prefix}_icc", found[form])]


def replicated_rows(
    whole: GroupStatistics, pair: tuple[str, str], values: pd.DataFrame
) -> list[StatisticRow]:
    """Limits of agreement of single readings from all repeats of two sources, where there are any.

    ``linked: true`` in the plan takes repeat i of one source with repeat i of the other.
    """
    own = values[values["source"].isin(pair)]
    if own.groupby("source")["repeat"].nunique().reindex(list(pair)).fillna(0).min() < 2:
        return []
    readings, index = _cube(own, pair)
    maker = whole.of("|".join(pair)).over(index)
    names = ("bias_replicated", "loa_lower_replicated", "loa_upper_replicated")

    def limits() -> Iterable[Estimate]:
        found = bland_altman_replicated(
            *(readings[:, 0], readings[:, 1]),
            linked=whole.analysis.linked,
            multiplier=maker.multiplier,
            **maker.how,
        )
        method = f"{maker.multiplier:.4g} SD of single readings; {found.method}"
        return replace(found, method=method).estimates()

    return maker.attempts(names, limits)
