"""The analysis plan, run: one analysis at a time, then the tables of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.measurement.selection import NotComputable, Tables, not_computable, statistics_frame
from corelab.provenance.products import read_table, write_table
from corelab.study.columns import STATISTICS
from corelab.study.model import Study

#: Analysis type -> table that its rows go to.
TABLE_OF_TYPE = {
    "agreement": "agreement",
    "overlap": "overlap",
    "correlation": "pharmacodynamics",
    "comparison": "pharmacodynamics",
    "dose_response": "pharmacodynamics",
    "ordinal": "pharmacodynamics",
    "quantile": "pharmacodynamics",
    "survival": "survival",
    "progression": "survival",
    "radiomics": "radiomics",
    "phantom": "phantom",
}
NUMERIC = ("estimate", "ci_low", "ci_high", "ci_level", "p_value", "n", "second_estimate")


def _numbers(frame: pd.DataFrame | None, *columns: str) -> pd.DataFrame | None:
    if frame is None:
        return None
    frame = frame.reset_index(drop=True).copy()
    for column in columns:
        if column in frame:
            frame[column] = pd.to_numeric(frame[column]).astype(float)
    return frame


def tables_of(study: Study, measurements: str | Path, overlap: str | Path) -> Tables:
    """What analyses may use: collected rows and the sheets of a study.

    Parameters
    ----------
    study
        As read from config and sheets.
    measurements, overlap
        ``endpoints/measurements.tsv`` and ``endpoints/overlap.tsv``.
    """
    rows = read_table(measurements, numeric=["value"])
    participants = _numbers(study.sheets.get("participants"), "dose", "age")
    assert participants is not None  # a study without participants is not sound
    others = {
        "outcomes": _numbers(study.sheets.get("outcomes"), "value"),
        "exposures": _numbers(study.sheets.get("exposures"), "value"),
        "events": _numbers(study.sheets.get("events"), "time_days", "event"),
        "phantoms": _numbers(study.sheets.get("phantoms"), "certified_value", "measured_value"),
    }
    return Tables(
        measurements=rows,
        participants=participants,
        overlap=read_table(overlap, numeric=["value"]),
        visit_order=study.visit_order,
        baseline=study.baseline,
        **{name: frame for name, frame in others.items() if frame is not None},
    )


def run_analysis(
    analysis: Mapping[str, Any], study: Study, measurements: str | Path, overlap: str | Path
) -> pd.DataFrame:
    """Run one analysis; one that these data cannot give is a row with the reason.

    Returns
    -------
    pandas.DataFrame
        Columns of the statistics tables.
    """
    from corelab import agreement, pharmacodynamics

    tables = tables_of(study, measurements, overlap)
    room = (
        agreement
        if TABLE_OF_TYPE[analysis["type"]] in {"agreement", "overlap", "phantom"}
        else (pharmacodynamics)
    )
    try:
        frame = room.run(analysis, tables)
    except NotComputable as reason:
        frame = statistics_frame(analysis, [not_computable(analysis["type"], str(reason))])
    if analysis.get("objective") == "exploratory" and len(frame):
        # What is not pre-specified as primary or secondary is labelled so in every row.
        frame["note"] = [
            f"exploratory; {note}" if note else "exploratory" for note in frame["note"].fillna("")
        ]
    return frame


def write_statistics(
    paths: Sequence[str], analyses: Sequence[Mapping[str, Any]], tables: Sequence[str]
) -> None:
    """Write the six statistics tables; a type that the plan lacks gives a header-only file.

    Parameters
    ----------
    paths
        Tables of single analyses.
    analyses
        The plan.
    tables
        Paths of the six tables, named after :data:`TABLE_OF_TYPE`'s values.
    """
    from corelab.pharmacodynamics.multiplicity import adjust_families

    frames = [read_table(path, numeric=NUMERIC) for path in paths]
    every = (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(STATISTICS))
    )
    every = every.fillna({"method": "", "note": "", "second_method": ""})
    adjusted = adjust_families(every, analyses) if len(every) else every
    kinds = {analysis["id"]: TABLE_OF_TYPE[analysis["type"]] for analysis in analyses}
    for path in tables:
        name = Path(path).stem
        own = adjusted[adjusted["analysis_id"].map(kinds) == name] if len(adjusted) else adjusted
        more = {
            column: text
            for column, text in {
                "family": "Multiplicity family of the plan",
                "p_adjusted": "p value adjusted within the family",
            }.items()
            if column in own.columns
        }
        write_table(own, path, {**STATISTICS, **more})
