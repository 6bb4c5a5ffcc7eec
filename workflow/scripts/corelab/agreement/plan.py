"""From one planned analysis to statistics rows: types agreement, overlap and phantom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from corelab.agreement import guards, repeats, strata
from corelab.agreement.clusters import labels_of
from corelab.agreement.direction import direction_rows
from corelab.agreement.groups import GroupStatistics
from corelab.agreement.sources import INVESTIGATOR, by_visits, chosen_sources
from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    cube_root,
    measured,
)
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.terms.results import StatisticRow, not_computable


def readings(
    analysis: AgreementSpec, tables: Tables, endpoint: str, sources: Sequence[str] | None
) -> pd.DataFrame:
    """Values of an endpoint, transformed and derived as planned, one row per reading."""
    rows = measured(analysis, tables, endpoint=endpoint, sources=sources)
    scale = analysis.scale
    derivation = analysis.derivation
    # Each visit is transformed, then the difference taken, as in the other analyses.
    if scale != "identity" and derivation not in {"value", "change"}:
        raise NotComputable(f"scale {scale} has no meaning for derivation {derivation}")
    if scale == "log":
        if (rows["value"] <= 0).any():
            count = int((rows["value"] <= 0).sum())
            raise NotComputable(f"logarithm of a value that is not positive ({count} readings)")
        rows["value"] = np.log(rows["value"])
    elif scale == "cube_root":
        rows["value"] = cube_root(rows["value"])
    elif scale != "identity":
        raise ValueError(f"unknown scale '{scale}': identity, log or cube_root")
    if derivation != "value":
        rows = _derived(analysis, tables, rows, derivation)
    return rows


def _derived(
    analysis: AgreementSpec, tables: Tables, rows: pd.DataFrame, derivation: str
) -> pd.DataFrame:
    baseline = analysis.baseline or tables.baseline
    if baseline is None:
        raise NotComputable(f"derivation {derivation} needs a baseline visit (visits.baseline)")
    key = ["participant_id", "source", "repeat"]
    base = rows[rows["visit"] == baseline].set_index(key)["value"].rename("baseline")
    later = rows[rows["visit"] != baseline]
    visits = as_list(analysis.visit)
    if visits:
        later = later[later["visit"].isin(visits)]
    later = later.join(base, on=key).dropna(subset=["baseline"]).copy()
    if derivation == "change":
        later["value"] -= later["baseline"]
        return later
    if derivation == "percent_change":
        zeros = later["baseline"] == 0
        words = "percent change from a baseline of 0"
    elif derivation == "log_ratio":
        zeros = (later["baseline"] <= 0) | (later["value"] <= 0)
        words = "log ratio of a value that is not positive"
    else:
        raise NotComputable(f"derivation {derivation} is not available in an agreement analysis")
    if zeros.any():
        raise NotComputable(f"{words} ({int(zeros.sum())} readings): derivation change keeps zeros")
    if derivation == "percent_change":
        later["value"] = 100.0 * (later["value"] - later["baseline"]) / later["baseline"]
    else:
        later["value"] = np.log(later["value"] / later["baseline"])
    return later


def with_investigators(tables: Tables, analysis: AgreementSpec) -> Tables:
    """Measurements in which the reads of all investigators bear one name, where planned.

    Every site has an investigator of its own; against the central read they are one source.
    """
    rows, reads = tables.measurements, tables.reads
    known = "role" in reads and {"reader", "endpoint"} <= set(reads.columns)
    if INVESTIGATOR not in as_list(analysis.sources) or not known:
        return tables
    mine = reads[reads["role"] == INVESTIGATOR]
    keys = ["participant_id", "visit", "endpoint", "reader"]
    listed = set(mine[keys].itertuples(index=False, name=None))
    place = [c if c != "reader" else "source" for c in keys]
    hit = [key in listed for key in rows[place].itertuples(index=False, name=None)]
    renamed = rows.assign(source=rows["source"].where(~np.array(hit, dtype=bool), INVESTIGATOR))
    return replace(tables, measurements=renamed)


def with_grades(analysis: AgreementSpec, tables: Tables, endpoint: str) -> AgreementSpec:
    """The analysis with the scale of an endpoint that is graded in words.

    Examples
    --------
    >>> tables = Tables(pd.DataFrame(), pd.DataFrame(), grades={"tici": ["0", "2b", "3"]})
    >>> plan = AgreementSpec(id="a", type="agreement", endpoint="tici", sources="all",
    ...     categories=["0", "2b", "3"])
    >>> found = with_grades(plan, tables, "tici")
    >>> found.categories, found.measure_level
    ([0, 1, 2], 'ordinal')
    """
    if endpoint not in tables.grades:
        return analysis
    scale = list(range(len(tables.grades[endpoint])))
    level = analysis.measure_level or "ordinal"
    return analysis.changed(categories=scale, measure_level=level)


def by_endpoint(
    planned: AgreementSpec, tables: Tables
) -> Iterator[tuple[AgreementSpec, str, list[str], pd.DataFrame | NotComputable]]:
    """For each endpoint the analysis, its name, its sources and readings, or why there are none."""
    for endpoint in as_list(planned.endpoint):
        analysis = with_grades(planned, tables, endpoint)
        there = tables.measurements.loc[tables.measurements["endpoint"] == endpoint, "source"]
        sources = chosen_sources(analysis, list(there.dropna()))
        try:
            yield analysis, endpoint, sources, readings(analysis, tables, endpoint, sources)
        except NotComputable as error:
            yield analysis, endpoint, sources, error


def agreement_rows(planned_analysis: AgreementSpec, given: Tables) -> list[StatisticRow]:
    """Rows of an analysis of type ``agreement``: statistics of each pair and of all sources."""
    rows: list[StatisticRow] = []
    tables = with_investigators(given, planned_analysis)
    reason = None
    try:
        planned_analysis = planned_analysis.with_labels(labels_of(planned_analysis, tables))
    except NotComputable as error:
        reason = error
    for analysis, endpoint, sources, found in by_endpoint(planned_analysis, tables):
        values = reason or found
        if isinstance(values, NotComputable):
            rows += GroupStatistics(analysis, endpoint, "all", "all").refuse(str(values))
            continue
        for visit, part in by_visits(analysis, tables, values) or [("all", values)]:
            whole = GroupStatistics(analysis, endpoint, visit, "all")
            if analysis.repeats == "within":
                rows += _within(whole, sources, part)
            else:
                rows += _between(whole, tables, sources, part)
    return rows


def _wide(values: pd.DataFrame, columns: str) -> pd.DataFrame:
    """Targets (participant x visit) x sources or repeats."""
    return guards.one_per_cell(values, ["participant_id", "visit"], columns)


def _between(
    whole: GroupStatistics, tables: Tables, sources: Sequence[str], values: pd.DataFrame
) -> list[StatisticRow]:
    first = values[values["repeat"] == values["repeat"].min()] if len(values) else values
    wide = _wide(first, "source").reindex(columns=list(sources))
    if len(sources) < 2:
        name = ", ".join(sources) or "none"
        return whole.refuse(f"single source ({name}): agreement compares two or more")
    noted = whole.noted(*guards.sources_alike(sources))
    rows: list[StatisticRow] = []
    for a, b in combinations(sources, 2):
        group = noted.of(f"{a}|{b}")
        absent = [s for s in (a, b) if wide[s].notna().sum() == 0]
        if absent:
            rows += group.refuse(f"no value of {whole.endpoint} from {' and '.join(absent)}")
            continue
        rows += group.pair(wide[[a, b]], _swapped(values, a, b))
        if whole.level != "nominal":
            rows += repeats.replicated_rows(whole, (a, b), values)
            rows += direction_rows(whole, tables, wide[[a, b]])
    rows += noted.several(wide)
    if whole.level != "nominal":
        rows += strata.reader_effect_rows(whole, wide)
        rows += strata.comparison_rows(whole, wide)
        rows += repeats.intra_inter_rows(whole, sources, values)
    return rows + strata.stratified_rows(whole, tables, wide)


def _swapped(values: pd.DataFrame, a: str, b: str) -> list[str]:
    pair = values[values["source"].isin([a, b])]
    if pair["repeat"].nunique() < 2:
        return []
    wide = guards.one_per_cell(pair, ["participant_id", "visit"], ["source", "repeat"])
    repeats = sorted(pair["repeat"].unique())[:2]
    columns = [[(source, repeat) for repeat in repeats] for source in (a, b)]
    if not all(column in wide.columns for two in columns for column in two):
        return []
    return guards.swapped_between_repeats(
        wide[columns[0]].to_numpy(), wide[columns[1]].to_numpy(), list(wide.index)
    )


def _within(
    whole: GroupStatistics, sources: Sequence[str], values: pd.DataFrame
) -> list[StatisticRow]:
    rows: list[StatisticRow] = []
    for source in sources:
        group = whole.of(source)
        own = values[values["source"] == source]
        wide = _wide(own, "repeat") if len(own) else pd.DataFrame()
        wide = wide[wide.notna().sum(axis=1) >= 2] if len(wide) else wide
        if not len(wide):
            rows += group.refuse(f"no repeated reading of {whole.endpoint} by {source}")
            continue
        rows += group.repeats(wide.dropna(axis=1, how="all"))
    if not sources:
        reason = f"no source has {whole.endpoint}"
        rows.append(not_computable("icc_a_1", reason, endpoint=whole.endpoint))
    return rows
