"""Sensitivity grid: one analysis under every alternative that the plan lists.

Thresholds and engines are sources (``pipeline:<threshold id>``), readers are sources too; further
alternatives are populations, methods, scales, derivations, covariates, visits and cut points. The
planned specification is always among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    statistics_frame,
)
from corelab.plan.failures import failed_frame
from corelab.settings.analyses import spec_of
from corelab.settings.analyses.base import AnalysisSpec
from corelab.study.columns import STATISTICS
from corelab.terms.results import not_computable
from corelab.terms.statistics import conclusion_order, family_of

COLUMNS = {
    "analysis_id": STATISTICS["analysis_id"],
    "specification": "What differs from the plan, as key=value; 'planned' for the plan itself",
    "planned": "1 for the planned specification, else 0",
    "choices": "Value of every key of the grid, as key=value separated by '; '",
    **{key: words for key, words in STATISTICS.items() if key != "analysis_id"},
}
PLANNED = "planned"


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " + ".join(map(str, value)) or "none"
    return "all" if value in (None, "") else str(value)


def _available_sources(analysis: AnalysisSpec, tables: Tables) -> list[str]:
    """Sources that have the analysis' endpoints, in order of name; pipeline first."""
    rows = tables.measurements
    endpoints = as_list(analysis.endpoint)
    inside = rows["endpoint"].isin(endpoints) & (rows["status"] == "ok")
    found = sorted(set(rows.loc[inside, "source"]))
    return sorted(found, key=lambda name: (name != "pipeline", name))


@dataclass(frozen=True)
class Specification:
    """A variant of an analysis: the choices that differ from the plan, and its entry."""

    changes: Mapping[str, Any]
    entry: Mapping[str, Any]

    def __str__(self) -> str:
        """The choices in words."""
        return "; ".join(f"{k}={_words(v)}" for k, v in self.changes.items()) or PLANNED


def specifications(analysis: AnalysisSpec, tables: Tables) -> list[Specification]:
    """Every specification of an analysis with a key ``sensitivity``; the planned one first.

    Examples
    --------
    >>> analysis = spec_of({"id": "a", "type": "comparison", "endpoint": "e", "by": "arm",
    ...     "method": "ancova", "sensitivity": {"method": ["t"], "scale": ["log"]}})
    >>> [str(one) for one in specifications(analysis, Tables(pd.DataFrame(), None))]
    ['planned', 'scale=log', 'method=t', 'method=t; scale=log']
    """
    plain = analysis.as_given()
    grid = dict(plain.pop("sensitivity"))
    design = grid.pop("design", "factorial")
    alternatives: dict[str, list[Any]] = {}
    for key, values in grid.items():
        listed = list(values)
        if key == "source" and "all" in listed:
            listed = _available_sources(analysis, tables)
        planned = plain.get(key)
        if key == "source" and planned is None:
            # The default of a source is the pipeline, so naming it is no alternative.
            listed = [v for v in listed if v != "pipeline"]
        alternatives[key] = [v for v in dict.fromkeys(map(_hashable, listed)) if v != planned]
    changes: list[dict[str, Any]] = []
    if design == "one_at_a_time":
        changes = [{}, *({key: v} for key, values in alternatives.items() for v in values)]
    else:
        keys = list(alternatives)
        for combination in itertools.product(*([PLANNED, *alternatives[k]] for k in keys)):
            changes.append(
                {k: v for k, v in zip(keys, combination, strict=True) if v is not PLANNED}
            )
    return [
        Specification(
            change,
            {**plain, **{k: list(v) if isinstance(v, tuple) else v for k, v in change.items()}},
        )
        for change in changes
    ]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def conclusions(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the statistic that an analysis concludes with; a failed analysis' own row."""
    rows = frame[~frame["group"].astype(str).str.endswith("Intercept")]
    # A statistic without a test is descriptive where the analysis has one with a test.
    tested = rows[rows["p_value"].notna()] if "p_value" in rows else rows
    for part in (tested, rows):
        for statistic in conclusion_order():
            chosen = part[part["statistic"] == statistic]
            if len(chosen):
                return chosen
    return rows.head(1)


def run_grid(
    analysis: AnalysisSpec,
    tables_of: Callable[[AnalysisSpec], Tables],
    run: Callable[[AnalysisSpec, Tables], pd.DataFrame],
) -> pd.DataFrame:
    """Run every specification of an analysis: columns of :data:`COLUMNS`.

    A specification that these data cannot give is a row with the reason. ``tables_of`` gives the
    tables of a specification, ``run`` carries it out.
    """
    grid = [key for key in analysis.as_given()["sensitivity"] if key != "design"]
    frames = []
    for one in specifications(analysis, tables_of(analysis)):
        rows = conclusions(_run_one(analysis, one, tables_of, run))
        choices = "; ".join(f"{key}={_words(one.entry.get(key))}" for key in grid)
        planned = int(not one.changes)
        frames.append(rows.assign(specification=str(one), planned=planned, choices=choices))
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _run_one(
    analysis: AnalysisSpec,
    variant: Specification,
    tables_of: Callable[[AnalysisSpec], Tables],
    run: Callable[[AnalysisSpec, Tables], pd.DataFrame],
) -> pd.DataFrame:
    try:
        analysis = spec_of(variant.entry)
        return run(analysis, tables_of(analysis))
    except (NotComputable, ValueError) as reason:
        # A combination that makes no sense (a method without covariates) is reported, not fatal.
        return statistics_frame(analysis, [not_computable(analysis.type, str(reason))])
    except Exception as error:
        return failed_frame(analysis, error, f"logs/specifications/{analysis.id}.log")


def one_question(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that answer the question of the planned specification: its first group and visit.

    Alternatives of visit, endpoint or method keep their own visit and statistic; rows on another
    scale (ratios beside differences) cannot share an axis and are left out.
    """
    planned = table[table["planned"] == 1]
    if planned.empty:
        return table
    first = planned.iloc[0]
    rows = table[table["group"] == first["group"]]
    if "visit" in table and (rows["visit"] == first["visit"]).any():
        same = rows["visit"] == first["visit"]
        # A specification about another visit has no row at the planned one.
        lacking = ~rows["specification"].isin(set(rows.loc[same, "specification"]))
        rows = rows[same | lacking]
    name = str(first["statistic"])
    kinds = family_of(name) or (name,)
    rows = rows[rows["statistic"].isin(kinds)]
    if "choices" in table:
        rows = rows[[_unit_of(c) == _unit_of(first["choices"]) for c in rows["choices"]]]
    single: pd.DataFrame = rows.drop_duplicates("specification")
    return single


def _unit_of(choices: str) -> list[str]:
    """Choices that change the unit of the estimate."""
    return [c for c in choices.split("; ") if c.startswith(("derivation=", "scale=", "endpoint="))]


def choices_of(rows: pd.DataFrame) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Key, its values and (values, rows) which row has which value; for the figure."""
    parsed = [dict(part.split("=", 1) for part in text.split("; ")) for text in rows["choices"]]
    for key in parsed[0] if parsed else ():
        values = list(dict.fromkeys(choice[key] for choice in parsed))
        yield key, values, np.array([[c[key] == value for c in parsed] for value in values])
