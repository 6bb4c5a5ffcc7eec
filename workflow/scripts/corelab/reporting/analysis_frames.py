"""What each analysis was computed from: one row per participant or target, used or why not.

Built with the functions that the analyses themselves use; the number of rows used is held against
the number that the statistics state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from corelab.measurement.selection import NotComputable, as_list, measured, population, source_of
from corelab.pharmacodynamics.analysis_set import (
    baseline_values,
    endpoint_by_visit,
    endpoints_of,
    participant_columns,
    sheet_values,
)
from corelab.pharmacodynamics.scales import covariates_of
from corelab.reporting.results import Results
from corelab.settings.analyses.base import AnalysisSpec
from corelab.study.expression import ExpressionError

NOT_IN_POPULATION = "not in the analysis population"


@dataclass(frozen=True)
class AnalysisFrame:
    """The rows of one analysis: participant, visit, the values by name (``values``, the endpoint
    first), used (yes or no) and why not, and the measurement row of the first value; ``agrees``
    where the number used is the ``n`` of the statistics.
    """

    rows: pd.DataFrame
    values: tuple[str, ...]
    agrees: bool


def analysis_frame(results: Results, analysis: AnalysisSpec) -> AnalysisFrame | None:
    """Rows of an analysis; None for a type whose rows are not one value each, or without values."""
    try:
        if analysis.kind.by_participant:
            return _by_participant(results, analysis)
        if analysis.type == "agreement" and not analysis.endpoint_y:
            return _readings(results, analysis)
    except (NotComputable, ExpressionError, KeyError, ValueError):
        # The statistics say why nothing could be computed.
        return None
    return None


def _second_endpoint(results: Results, analysis: AnalysisSpec, name: str, visit: str) -> pd.Series:
    source = analysis.source_y or analysis.source
    second = analysis.changed(source=source, visit=None)
    found = dict(endpoint_by_visit(second, results.tables, name))
    at = str(analysis.visit_y or visit)
    return found[at if at in found else next(iter(found))]["value"]


def _others(
    results: Results, analysis: AnalysisSpec, endpoint: str | None, visit: str
) -> dict[str, pd.Series]:
    """Every other variable of the analysis by name, indexed by participant."""
    tables = results.tables
    found: dict[str, pd.Series] = {}
    dose = as_list(analysis.dose)
    names = [*dose, *map(str, as_list(analysis.by))]
    if analysis.type == "quantile" and not names:
        names = ["arm"]
    for name in names:
        found[name] = participant_columns(analysis, tables, [name])[name]
    for kind in ("exposure", "outcome"):
        for name in map(str, as_list(getattr(analysis, kind))):
            found[name] = sheet_values(analysis, tables, kind, name, visit or None)[0]
    for name in map(str, as_list(analysis.endpoint_y)):
        found[name] = _second_endpoint(results, analysis, name, visit)
    for name in covariates_of(analysis):
        if name == "baseline" and endpoint:
            found["baseline"] = baseline_values(analysis, tables, endpoint)
        elif name != "baseline":
            found[name] = participant_columns(analysis, tables, [name])[name]
    return found


def _by_participant(results: Results, analysis: AnalysisSpec) -> AnalysisFrame | None:
    people = pd.Index([str(name) for name in results.participants["participant_id"]])
    inside = people.isin(population(analysis, results.tables)["participant_id"].map(str))
    why = dict(zip(results.measurements["row_id"], results.measurements["reason"], strict=True))
    frames: list[pd.DataFrame] = []
    agrees, values = True, tuple[str, ...]()
    outcomes = {str(name) for name in as_list(analysis.outcome)}
    endpoints = [name for name in endpoints_of(analysis) if name not in outcomes]
    parts: list[tuple[str | None, str, dict[str, pd.Series]]] = [
        (name, visit, {name: frame["value"]})
        for name in endpoints
        for visit, frame in endpoint_by_visit(analysis, results.tables, name)
    ]
    for endpoint, visit, first in parts or [(None, str(analysis.outcome_visit or ""), {})]:
        columns = {**first, **_others(results, analysis, endpoint, visit)}
        rows = pd.DataFrame({name: column.reindex(people) for name, column in columns.items()})
        missing = rows.isna()
        row_ids = _row_ids(results, analysis, endpoint, visit, people)
        reasons = [
            _reason(gone[gone].index, why.get(str(row_id))) if here else NOT_IN_POPULATION
            for here, row_id, (_, gone) in zip(inside, row_ids, missing.iterrows(), strict=True)
        ]
        values = tuple(dict.fromkeys([*values, *columns]))
        rows = rows.assign(participant_id=people, visit=visit, reason=reasons)
        rows["used"] = ["no" if reason else "yes" for reason in reasons]
        rows["row_id"] = row_ids
        agrees &= _agrees(results, analysis, endpoint, visit, int((rows["used"] == "yes").sum()))
        frames.append(rows)
    if not values:
        return None
    order = ["participant_id", "visit", *values, "used", "reason", "row_id"]
    joined = pd.concat(frames, ignore_index=True)
    return AnalysisFrame(joined.reindex(columns=order), values, agrees)


def _reason(missing: Iterable[Any], why: Any) -> str:
    """Which values are missing, with the reason of the first where the measurements have one."""
    words = ", ".join(f"no {str(name).replace('_', ' ')}" for name in missing)
    return f"{words} ({why})" if words and isinstance(why, str) and why else words


def _agrees(
    results: Results, analysis: AnalysisSpec, endpoint: str | None, visit: str, used: int
) -> bool:
    stated = results.statistics_of(analysis.id)
    if endpoint is not None:
        mine = stated["endpoint"].fillna("").map(lambda text: endpoint in str(text).split(","))
        stated = stated[mine & stated["visit"].isin([visit, "all"])]
    stated = stated[stated["estimate"].notna() & stated["n"].notna()]
    if stated.empty:
        return False
    # Where every row is of one or two arms, the arms together are everybody.
    arms = stated[~stated["group"].astype(str).str.contains("|", regex=False)]
    each = arms.groupby(["statistic", "method"], dropna=False)["n"].sum()
    return used == int(stated["n"].max()) or used in set(each.astype(int))


def _row_ids(
    results: Results,
    analysis: AnalysisSpec,
    endpoint: str | None,
    visit: str,
    people: pd.Index,
) -> pd.Series:
    """Row of measurements.tsv behind the endpoint's value of each participant."""
    rows = results.measurements
    if endpoint is None:
        return pd.Series(None, index=people, dtype=object)
    source = source_of(analysis, results.tables, endpoint)
    region = analysis.region
    own = rows[
        (rows["endpoint"] == endpoint)
        & (rows["visit"] == visit)
        & (rows["source"] == source)
        & (rows["region"] == region)
    ]
    own = own.assign(_repeat=pd.to_numeric(own["repeat"], errors="coerce"))
    own = own.sort_values("_repeat").drop_duplicates("participant_id")
    return own.set_index("participant_id")["row_id"].reindex(people)


def _readings(results: Results, analysis: AnalysisSpec) -> AnalysisFrame | None:
    """Readings of each target (participant and visit), one column per source and repeat."""
    within = analysis.repeats == "within"
    sources = [str(name) for name in as_list(analysis.sources) if name != "all"]
    frames: list[pd.DataFrame] = []
    values: tuple[str, ...] = ()
    for endpoint in endpoints_of(analysis):
        rows = measured(analysis, results.tables, endpoint=endpoint, sources=sources or None)
        if not within:
            rows = rows[
                rows["repeat"]
                == rows.groupby(["participant_id", "visit", "source"])["repeat"].transform("min")
            ]
        many = within and len(set(rows["repeat"])) > 1
        names = rows["source"] + (", reading " + rows["repeat"].map(str) if many else "")
        wide = rows.assign(name=names).pivot_table(
            index=["participant_id", "visit"], columns="name", values="value", aggfunc="first"
        )
        by_source = rows.groupby(["participant_id", "visit", "source"]).size().groupby(level=[0, 1])
        enough = by_source.max() if within else by_source.size()
        used = enough.reindex(wide.index) >= 2
        values = tuple(dict.fromkeys([*values, *map(str, wide.columns)]))
        wide = wide.assign(
            endpoint=endpoint,
            used=["yes" if one else "no" for one in used],
            reason=["" if one else "a single reading" for one in used],
            row_id=None,
        )
        frames.append(wide.reset_index())
    if not values or not any(map(len, frames)):
        return None
    joined = pd.concat(frames, ignore_index=True)
    order = ["participant_id", "visit", "endpoint", *values, "used", "reason", "row_id"]
    agrees = within or len(values) > 2 or _pairs_agree(results, analysis, joined)
    return AnalysisFrame(joined.reindex(columns=order), values, agrees)


def _pairs_agree(results: Results, analysis: AnalysisSpec, rows: pd.DataFrame) -> bool:
    stated = results.statistics_of(analysis.id)
    numbers = stated.loc[stated["group"].astype(str).str.contains("|", regex=False), "n"].dropna()
    return bool(len(numbers)) and int(numbers.max()) == int((rows["used"] == "yes").sum())
