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
    "diagnostic": "pharmacodynamics",
    "survival": "survival",
    "progression": "survival",
    "radiomics": "radiomics",
    "phantom": "phantom",
}
NUMERIC = ("estimate", "ci_low", "ci_high", "ci_level", "p_value", "n", "second_estimate")


def study_tables(study: Study) -> Tables:
    """The tables of a study whose endpoints are collected, for reports and submission files."""
    endpoints = study.folder / "endpoints"
    return tables_of({}, study, endpoints / "measurements.tsv", endpoints / "overlap.tsv")


def _numbers(frame: pd.DataFrame | None, *columns: str) -> pd.DataFrame | None:
    if frame is None:
        return None
    frame = frame.reset_index(drop=True).copy()
    for column in columns:
        if column in frame:
            frame[column] = pd.to_numeric(frame[column]).astype(float)
    return frame


def _from_participants(
    analysis: Mapping[str, Any], key: str, sheet: pd.DataFrame | None, participants: pd.DataFrame
) -> pd.DataFrame | None:
    """The outcomes (or exposures) sheet, with a participants column of that name if it lacks it."""
    name = analysis.get(key)
    known = sheet is not None and key in sheet and (sheet[key] == name).any()
    if name is None or known or name not in participants:
        return sheet
    column = participants[["participant_id", name]].dropna()
    rows = pd.DataFrame(
        {
            "participant_id": column["participant_id"],
            # It belongs to the participant, so it has the same standing at every visit.
            "visit": "participants sheet",
            key: name,
            "value": pd.to_numeric(column[name], errors="coerce").astype(float),
        }
    ).dropna(subset=["value"])
    return rows if sheet is None else pd.concat([sheet, rows], ignore_index=True)


def tables_of(
    analysis: Mapping[str, Any], study: Study, measurements: str | Path, overlap: str | Path
) -> Tables:
    """What analyses may use: collected rows and the sheets of a study.

    Parameters
    ----------
    analysis
        Of the plan; its outcome and exposure may be participants columns.
    study
        As read from config and sheets.
    measurements, overlap
        ``endpoints/measurements.tsv`` and ``endpoints/overlap.tsv``.
    """
    rows = read_table(measurements, numeric=["value"])
    participants = study.sheets["participants"].reset_index(drop=True).copy()
    for column in participants.columns.drop("participant_id"):
        # A column is a number if every cell is; ages such as 89+ leave it text.
        numbers = pd.to_numeric(participants[column], errors="coerce")
        if numbers.notna().equals(participants[column].notna()) and numbers.notna().any():
            participants[column] = numbers.astype(float)
    others = {
        "outcomes": _from_participants(
            analysis, "outcome", _numbers(study.sheets.get("outcomes"), "value"), participants
        ),
        "exposures": _from_participants(
            analysis, "exposure", _numbers(study.sheets.get("exposures"), "value"), participants
        ),
        "events": _numbers(study.sheets.get("events"), "time_days", "event"),
        "phantoms": _numbers(study.sheets.get("phantoms"), "certified_value", "measured_value"),
        "reads": _numbers(study.sheets.get("reads"), "presentation_order"),
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

    tables = tables_of(analysis, study, measurements, overlap)
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
