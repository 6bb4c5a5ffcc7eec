"""The analysis plan, run: one analysis at a time, then the tables of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pandas as pd

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    statistics_frame,
    with_status_flags,
)
from corelab.pharmacodynamics.multiplicity import adjust_families
from corelab.plan.failures import FAILED, failed_frame
from corelab.plan.record import PlanRecord
from corelab.plan.run import run
from corelab.plan.specifications import run_grid
from corelab.provenance.products import read_table, write_table
from corelab.settings.acquisition import PhantomQaSettings
from corelab.settings.analyses.base import AnalysisSpec
from corelab.study.assessors import final_assessments
from corelab.study.cells import CAPPED_COLUMNS, LABEL_COLUMNS, is_numeric, numbers
from corelab.study.columns import MEASUREMENTS, OVERLAP, STATISTICS, STATISTICS_NUMBERS
from corelab.study.model import Study
from corelab.terms.results import not_computable

#: Columns of ``statistics/analyses.tsv``.
ANALYSES = {
    "analysis_id": "Identifier of the analysis in the plan",
    "type": "Kind of analysis",
    "status": "ok, not_computable (no row has a number) or failed (an unexpected error)",
    "statistics": "Number of its rows with a number",
    "cause": "Why rows have no number; n/a where all have",
    "log": "Its log, relative to the study's folder",
}
#: Before the groups of rows that rest on a re-review.
REREVIEW = "re-review: "


#: An analysis of everybody, for tables that serve no single one.
EVERY = AnalysisSpec.unchecked(id="every", type="")


def study_tables(study: Study) -> Tables:
    """Measurements and sheets of a study whose endpoints are collected, as reports show them."""
    measurements = study.folder / "endpoints" / "measurements.tsv"
    tables = tables_of(EVERY, study, measurements, None)
    _parsed.cache_clear()
    return replace(tables, measurements=read_table(measurements, numeric=["value"]))


def _numbers(frame: pd.DataFrame | None, *columns: str) -> pd.DataFrame | None:
    if frame is None:
        return None
    frame = frame.reset_index(drop=True).copy()
    for column in columns:
        if column in frame:
            frame[column] = numbers(frame[column])
    return frame


#: Columns of the tables of endpoints that analyses use: not where a value comes from.
_ANALYSED = frozenset({*MEASUREMENTS, *OVERLAP} - {"scan_ids", "row_id"})


@lru_cache(maxsize=2)
def _parsed(path: str, mtime_ns: int, size: int) -> pd.DataFrame:
    return read_table(path, numeric=["value"], columns=_ANALYSED)


def _endpoint_table(path: str | Path) -> pd.DataFrame:
    """A table of endpoints; the analyses of one job read the file once."""
    status = Path(path).stat()
    # Analyses change copies of rows alone: the cells of ten thousand visits are held once.
    return _parsed(str(path), status.st_mtime_ns, status.st_size).copy(deep=False)


def _phantoms(study: Study) -> pd.DataFrame | None:
    """Inserts as measured, where that was done; else the sheet with values of others."""
    measured = study.folder / "endpoints" / "phantoms.tsv"
    if measured.is_file():
        return _numbers(read_table(measured), "certified_value", "measured_value")
    return _numbers(study.sheets.get("phantoms"), "certified_value", "measured_value")


def _from_participants(
    analysis: AnalysisSpec, key: str, sheet: pd.DataFrame | None, participants: pd.DataFrame
) -> pd.DataFrame | None:
    """The outcomes (or exposures) sheet, with a participants column of that name if it lacks it."""
    name = getattr(analysis, key)
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
            "value": numbers(column[name], capped=name in CAPPED_COLUMNS),
        }
    ).dropna(subset=["value"])
    return rows if sheet is None else pd.concat([sheet, rows], ignore_index=True)


def _final_events(analysis: AnalysisSpec, study: Study) -> pd.DataFrame | None:
    """The events sheet; of a panel of assessors its final row, unless the plan names one."""
    events = study.sheets.get("events")
    panel = study.settings.reading.panel
    if events is not None and panel.assessors and not analysis.assessor:
        events = final_assessments(events, panel)[0]
    days = ("time_days", "later_time_days", "last_free_days")
    return _numbers(events, *days, "event", "confirmed", "later_event")


def tables_of(
    analysis: AnalysisSpec,
    study: Study,
    measurements: str | Path,
    overlap: str | Path | None,
    features: Sequence[str | Path] = (),
) -> Tables:
    """What analyses may use: collected rows and the sheets of a study.

    Parameters
    ----------
    analysis
        Of the plan; its outcome and exposure may be participants columns.
    study
        As read from config and sheets.
    measurements, overlap
        ``endpoints/measurements.tsv`` and ``endpoints/overlap.tsv`` (None: not needed).
    features
        ``endpoints/features.tsv``, where the analysis is about features.
    """
    rows = _endpoint_table(measurements)
    participants = study.sheets["participants"].reset_index(drop=True).copy()
    for column in participants.columns.drop("participant_id"):
        capped = column in CAPPED_COLUMNS
        # Codes stay text: the population site != "01" is to select as it did in the preflight.
        if column not in LABEL_COLUMNS and is_numeric(participants[column], capped=capped):
            participants[column] = numbers(participants[column], capped=capped)
    participants = with_status_flags(participants, rows, [analysis.population])
    others = {
        "outcomes": _from_participants(
            analysis, "outcome", _numbers(study.sheets.get("outcomes"), "value"), participants
        ),
        "exposures": _from_participants(
            analysis, "exposure", _numbers(study.sheets.get("exposures"), "value"), participants
        ),
        "events": _final_events(analysis, study),
        "phantoms": _phantoms(study),
        "reads": _numbers(study.sheets.get("reads"), "presentation_order"),
        "radiomics": read_table(features[0], numeric=["value"]) if features else None,
    }
    if overlap is not None:
        others["overlap"] = _endpoint_table(overlap)
    return Tables(
        measurements=rows,
        participants=participants,
        visit_order=study.visit_order,
        baseline=study.baseline,
        phantom_qa=study.settings.phantom_qa if analysis.type == "phantom" else PhantomQaSettings(),
        default_sources=default_sources(study),
        grades=study.settings.grades,
        dose_unit=study.settings.study.dose_unit,
        **{name: frame for name, frame in others.items() if frame is not None},
    )


def default_sources(study: Study) -> tuple[str, ...]:
    """Sources that an analysis without one uses, the first that has values."""
    first = study.central_read and study.settings.reading.final_reads == "primary"
    return ("final",) * first + ("pipeline", "supplied")


def _rereview_of(analysis: AnalysisSpec, tables: Tables) -> AnalysisSpec | None:
    """The same analysis of the re-reviewed reads; None where it does not rest on final reads.

    A re-review is a sensitivity analysis: its rows stand beside the original's, never in place.
    """
    rows = tables.measurements
    read_again = set(rows.loc[rows["source"] == "final:rereview", "endpoint"])
    if not read_again & set(as_list(analysis.endpoint)):
        return None
    sources = as_list(analysis.sources)
    if sources:
        if "final" not in sources:
            return None
        return analysis.changed(sources=[f"{s}:rereview" if s == "final" else s for s in sources])
    if "source" not in type(analysis).model_fields:
        return None
    source = analysis.source or tables.default_sources[0]
    return analysis.changed(source="final:rereview") if source == "final" else None


def _with_rereview(analysis: AnalysisSpec, tables: Tables, frame: pd.DataFrame) -> pd.DataFrame:
    again = _rereview_of(analysis, tables)
    if again is None:
        return frame
    try:
        more = run(again, tables)
    except NotComputable as reason:
        more = statistics_frame(again, [not_computable(analysis.type, str(reason))])
    words = "sensitivity: the re-review in place of the locked reads"
    more["group"] = [f"{REREVIEW}{group}" for group in more["group"]]
    more["note"] = [f"{words}; {note}" if note else words for note in more["note"].fillna("")]
    return pd.concat([frame, more], ignore_index=True)


def run_analysis(
    analysis: AnalysisSpec,
    study: Study,
    measurements: str | Path,
    overlap: str | Path,
    *,
    features: Sequence[str | Path] = (),
    log: str = "",
) -> pd.DataFrame:
    """Run one analysis: columns of the statistics tables.

    One that these data cannot give is a row with the reason, and so is an unexpected error
    (:data:`FAILED`), so that the other analyses and the report are made; :func:`failed_products`
    finds it, and the run ends with an error.
    """
    try:
        tables = tables_of(analysis, study, measurements, overlap, features)
        frame = _with_rereview(analysis, tables, run(analysis, tables))
    except NotComputable as reason:
        frame = statistics_frame(analysis, [not_computable(analysis.type, str(reason))])
    except Exception as error:
        frame = failed_frame(analysis, error, log)
    locked = study.settings.locked_plan
    changed = bool(locked) and not PlanRecord.read(str(locked)).has(analysis)
    if (changed or analysis.objective == "exploratory") and len(frame):
        # What is not pre-specified as primary or secondary is labelled so in every row.
        said = "exploratory: not in the locked plan" if changed else "exploratory"
        frame["note"] = [f"{said}; {note}" if note else said for note in frame["note"].fillna("")]
    return frame


def run_sensitivity(
    analysis: AnalysisSpec, study: Study, measurements: str | Path, overlap: str | Path
) -> pd.DataFrame:
    """Run an analysis under every alternative of its key ``sensitivity``.

    Columns of :data:`corelab.plan.specifications.COLUMNS`.
    """
    return run_grid(
        analysis,
        lambda variant: tables_of(variant, study, measurements, overlap),
        run,
    )


def write_statistics(
    paths: Sequence[str],
    analyses: Sequence[AnalysisSpec],
    tables: Sequence[str],
    banner: str | None = None,
    summary: str | Path | None = None,
) -> None:
    """Write the six statistics tables; a type that the plan lacks gives a header-only file.

    Parameters
    ----------
    paths
        Tables of single analyses.
    analyses
        The plan.
    tables
        Paths of the six tables; their names are those of :mod:`corelab.settings.analyses`.
    banner
        First words of every row's note: that the reads are not as they were locked.
    summary
        Path of ``statistics/analyses.tsv``: status of every analysis.
    """
    frames = [read_table(path, numeric=STATISTICS_NUMBERS) for path in paths]
    every = (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(STATISTICS))
    )
    every = every.fillna({"method": "", "note": "", "second_method": ""})
    # What was read again is no hypothesis of the plan.
    again = every["group"].fillna("").str.startswith(REREVIEW)
    adjusted = adjust_families(every[~again], analyses) if len(every) else every
    if again.any():
        adjusted = pd.concat([adjusted, every[again]]).sort_index()
    if banner and len(adjusted):
        adjusted["note"] = [
            f"{banner}; {note}" if note else banner for note in adjusted["note"].fillna("")
        ]
    if summary is not None:
        write_table(_summary(adjusted, analyses), summary, ANALYSES, sort=False)
    kinds = {analysis.id: analysis.kind.table for analysis in analyses}
    for path in tables:
        name = Path(path).stem
        own = adjusted[adjusted["analysis_id"].map(kinds) == name] if len(adjusted) else adjusted
        more = {
            column: text
            for column, text in {
                "family": "Multiplicity family of the plan",
                "p_adjusted": "p value adjusted within the family; hypotheses only",
                "ci_low_adjusted": "Lower simultaneous limit, where the procedure has one",
                "ci_high_adjusted": "Upper simultaneous limit, where the procedure has one",
            }.items()
            if column in own.columns
        }
        write_table(own, path, {**STATISTICS, **more})


def _summary(frame: pd.DataFrame, analyses: Sequence[AnalysisSpec]) -> pd.DataFrame:
    """Status of every analysis of the plan, its cause and its log."""
    rows = []
    for analysis in analyses:
        own = frame[frame["analysis_id"] == analysis.id]
        notes = own["note"].fillna("").astype(str)
        # A banner or the word exploratory may stand before the reason.
        reasons = [n.split("not_computable: ", 1)[1] for n in notes if "not_computable: " in n]
        numbers = int(pd.to_numeric(own["estimate"]).notna().sum())
        failed = notes.str.contains(FAILED, regex=False).any()
        status = "failed" if failed else "ok" if numbers else "not_computable"
        cause = "; ".join(dict.fromkeys(reasons)) or None
        log = f"logs/analyse/{analysis.id}.log"
        rows.append((analysis.id, analysis.type, status, numbers, cause, log))
    return pd.DataFrame(rows, columns=list(ANALYSES))
