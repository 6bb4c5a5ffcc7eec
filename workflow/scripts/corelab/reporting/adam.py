"""ADaM data sets of a study: subjects, images, reads, overlap, outcomes, events, risk, results."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from corelab.provenance.job import UserError
from corelab.reporting.attention import is_not_computable
from corelab.reporting.datasets import (
    Dataset,
    ParameterCodes,
    Variable,
    ascii_label,
    make_dataset,
    number_or_nan,
    unique_subject,
    variable_name,
)
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.study.expression import ExpressionError, select
from corelab.terms.labels import volume_endpoint
from corelab.terms.words import endpoint_words

#: Ways in which sheets write a sex -> term of CDISC's code list SEX.
_SEXES = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M", "u": "U"}
#: Endpoints that measure a tumour.
TUMOUR_ENDPOINTS = (
    "enhancing_volume",
    "oedema_volume",
    "whole_tumour_volume",
    "extent_of_resection",
    *(volume_endpoint(label) for label in ("necrosis", "nonenhancing", "tumourcore")),
)


def measures_tumour(endpoint: str) -> bool:
    """Whether an endpoint measures a tumour, with or without a label after its name.

    Examples
    --------
    >>> measures_tumour("extent_of_resection:oedema"), measures_tumour("lesion_volume:necrosis")
    (True, True)
    >>> measures_tumour("lesion_volume:cavity")
    False
    """
    return endpoint in TUMOUR_ENDPOINTS or endpoint.partition(":")[0] in TUMOUR_ENDPOINTS


def sex_term(text: Any) -> str | None:
    """Term of the code list for a sex as a sheet writes it; what is not known stays as it is.

    Examples
    --------
    >>> sex_term("female"), sex_term("M"), sex_term("x"), sex_term(None)
    ('F', 'M', 'x', None)
    """
    if text is None or pd.isna(text):
        return None
    return _SEXES.get(str(text).strip().lower(), str(text))


#: A variable with its values: a column, or one value for every record.
Column = tuple[Variable, object]


def _head(results: Results, people: pd.Series) -> list[Column]:
    subject = Variable("USUBJID", "Unique Subject Identifier", comment="STUDYID, hyphen, subject",
                       key=1)  # fmt: skip
    return [
        (
            Variable("STUDYID", "Study Identifier", comment="study.id of the config"),
            results.study.id,
        ),
        (subject, [unique_subject(results, one) for one in people]),
    ]


#: Flags of the populations of a trial, with the labels of ADaMIG 1.3.
_SETS = {
    "ITTFL": "Intent-To-Treat Population Flag",
    "FASFL": "Full Analysis Set Population Flag",
    "SAFFL": "Safety Population Flag",
    "PPROTFL": "Per-Protocol Population Flag",
}


def analysis_sets(results: Results) -> list[tuple[str, str, str, pd.Series]]:
    """Flag, label, rule and members of each population that the study defines.

    Raises
    ------
    corelab.provenance.job.UserError
        If an expression of ``analysis_sets`` cannot be read.
    """
    people = results.participants
    given = results.settings.analysis_sets.plain()
    found = []
    for flag, label in _SETS.items():
        if flag in given:
            try:
                members = select(str(given[flag]), people)
            except ExpressionError as error:
                if results.codes:
                    continue  # a column that a blinded study withholds
                raise UserError(f"config analysis_sets.{flag}: {error}") from None
            found.append((flag, label, f"Participants sheet: {given[flag]}", members))
        elif flag == "ITTFL" and "arm" in people:
            members = people["arm"].notna()
            found.append((flag, label, "Planned arm in the participants sheet", members))
    return found


def adsl(results: Results) -> Dataset:
    """Subject level: one record per participant.

    Columns of the participants sheet that nothing in the config names are left out: they can
    identify a person.
    """
    people = results.participants
    images = set(results.image_subjects)
    sets = analysis_sets(results)
    who = people["participant_id"].map(str)
    age = _numbers(_given(people, "age"))
    columns: list[Column] = [
        *_head(results, people["participant_id"]),
        (Variable("SUBJID", "Subject Identifier for the Study", origin="Predecessor"), who),
        (Variable("SITEID", "Study Site Identifier", origin="Predecessor"), _given(people, "site")),
        (
            Variable("TRT01P", "Planned Treatment for Period 01", origin="Predecessor"),
            _given(people, "arm"),
        ),
        (
            Variable("DOSE01P", "Planned Treatment Dose for Period 01", "float", "Predecessor"),
            _numbers(_given(people, "dose")),
        ),
        (Variable("AGE", "Age", "float", "Predecessor"), age),
        (Variable("AGEU", "Age Units"), [None if math.isnan(one) else "YEARS" for one in age]),
        (
            Variable("SEX", "Sex", origin="Predecessor", codelist="SEX"),
            [sex_term(one) for one in _given(people, "sex")],
        ),
        *(
            (Variable(flag, label, "text", "Derived", rule, codelist="NY"), _yes_no(members))
            for flag, label, rule, members in sets
        ),
        (
            Variable("IMGFL", "Images Processed Flag", origin="Derived", codelist="NY"),
            _yes_no(who.isin(images)),
        ),
    ]
    known = {"participant_id", "site", "arm", "dose", "age", "sex"}
    names = [variable.name for variable, _ in columns]
    for column in results.shown_columns:
        if column in known:
            continue
        names.append(variable_name(str(column), names))
        numeric = pd.to_numeric(people[column], errors="coerce")
        is_number = bool((numeric.notna() == people[column].notna()).all())
        kind = "float" if is_number and numeric.notna().any() else "text"
        label = ascii_label(str(column).replace("_", " ").capitalize())
        values = numeric if kind == "float" else people[column]
        columns.append((Variable(names[-1], label, kind, "Predecessor"), values))
    return make_dataset(
        "ADSL",
        "Subject-Level Analysis Dataset",
        "One record per subject",
        "SUBJECT LEVEL ANALYSIS DATASET",
        people.index,
        columns,
    )


def _given(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column of a sheet, empty where the sheet has none."""
    return frame[name] if name in frame else pd.Series(None, index=frame.index, dtype=object)


def _texts(frame: pd.DataFrame, name: str) -> pd.Series:
    """Texts of a column of a sheet; what is no text is missing."""
    return _given(frame, name).map(lambda cell: cell if isinstance(cell, str) else None)


def _numbers(column: pd.Series) -> pd.Series:
    return column.map(number_or_nan).astype(float)


def _yes_no(flags: pd.Series, no: str | None = "N") -> list[str | None]:
    return ["Y" if flag else no for flag in flags]


def _visits(results: Results) -> dict[str, int]:
    return {visit: number for number, visit in enumerate(results.tables.visit_order)}


def _value_columns(results: Results, rows: pd.DataFrame, code: ParameterCodes) -> list[Column]:
    """What every record of a measurement begins with."""
    visits = rows["visit"].fillna("").map(str)
    words = rows["endpoint"].map(endpoint_words)
    units = rows["unit"].fillna("").map(str)
    named = [f"{w} ({u})" if u else w for w, u in zip(words, units, strict=True)]
    people = results.participants
    arms = dict(zip(people["participant_id"].map(str), _given(people, "arm"), strict=True))
    order = Variable(
        "AVISITN", "Analysis Visit (N)", "integer", "Derived", "Order of the visit, from 0"
    )
    return [
        *_head(results, rows["participant_id"]),
        (
            Variable("TRTP", "Planned Treatment", origin="Predecessor"),
            [arms.get(str(one)) for one in rows["participant_id"]],
        ),
        (Variable("AVISIT", "Analysis Visit", key=2), [visit or "all" for visit in visits]),
        (order, visits.map(_visits(results))),
        (
            Variable("PARAMCD", "Parameter Code", key=3),
            [code(str(endpoint)) for endpoint in rows["endpoint"]],
        ),
        (Variable("PARAM", "Parameter"), named),
    ]


def _values(rows: pd.DataFrame, origin: str, comment: str = "") -> list[Column]:
    """The value of a measurement and its unit."""
    units = [str(unit) if pd.notna(unit) and unit else None for unit in rows["unit"]]
    return [
        (
            Variable("AVAL", "Analysis Value", "float", origin, comment),
            rows["value"].where(rows["status"] == "ok"),
        ),
        (Variable("AVALU", "Analysis Value Unit"), units),
    ]


def _source(rows: pd.DataFrame, *, sequence: str = "Read", region: bool = True) -> list[Column]:
    """Source, repeat and region of a measurement: the end of its key."""
    found: list[Column] = [
        (Variable("SRC", "Source of the Value", key=4), rows["source"]),
        (
            Variable("READSEQ", f"Sequence of the {sequence}", "integer", key=5),
            _numbers(rows["repeat"]),
        ),
        (Variable("REGION", "Atlas Region", key=6), rows["region"]),
    ]
    return found if region else found[:2]


def _tail(rows: pd.DataFrame) -> list[Column]:
    """What every record of a measurement ends with."""
    row_id = Variable(
        "ROWID", "Row of measurements.tsv", comment="row_id, key of the provenance trace"
    )
    return [
        (Variable("STATUS", "Status of the Value", codelist="STATUS"), rows["status"]),
        (Variable("REASND", "Reason Not Done or Note"), rows["reason"]),
        (Variable("SCANIDS", "Scans Behind the Value"), rows["scan_ids"]),
        (row_id, rows["row_id"]),
    ]


def _is_primary(source: Any) -> bool:
    return str(source).partition(":")[0] in {"pipeline", "supplied", "consensus"}


def adread(results: Results, code: ParameterCodes) -> Dataset:
    """Reads: one record per subject, visit, parameter, reader and repeat."""
    roles = {scan.reader for visit in results.visits for scan in visit.scans if scan.reader}
    rows = results.measurements
    rows = rows[~rows["source"].map(_is_primary).astype(bool)]
    sources = rows["source"].map(str)
    is_reader = sources.isin(roles) | sources.str.lower().str.contains("reader", regex=False)
    _, sequence, region = _source(rows)
    return make_dataset(
        "ADREAD",
        "Imaging Reads Analysis Dataset",
        "One record per subject, visit, parameter, reader, read and region",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_value_columns(results, rows, code),
            (Variable("READERID", "Reader or Software Identifier", key=4), sources),
            (
                Variable("ROLE", "Role of the Source", origin="Derived", codelist="ROLE"),
                ["READER" if one else "SOFTWARE" for one in is_reader],
            ),
            sequence,
            region,
            *_values(rows, "Predecessor"),
            (
                Variable("ACPTFL", "Accepted Record Flag", origin="Derived", codelist="NY"),
                _yes_no(rows["status"] == "ok"),
            ),
            *_tail(rows),
        ],
    )


def adimg(results: Results, code: ParameterCodes) -> Dataset:
    """Imaging endpoints: the analysis values of the pipeline and of supplied masks."""
    rows = results.measurements
    rows = rows[rows["source"].map(_is_primary).astype(bool)]
    known, first = rows["status"] == "ok", rows["visit"] == results.tables.baseline
    key = ["participant_id", "endpoint", "source", "repeat", "region"]
    at_baseline = rows[first & known]
    base = dict(
        zip(at_baseline[key].itertuples(index=False, name=None), at_baseline["value"], strict=True)
    )
    mine = rows[key].itertuples(index=False, name=None)
    start = pd.Series([number_or_nan(base.get(one)) for one in mine], rows.index, dtype=float)
    whole = rows["source"].isin(["pipeline", "supplied"]) & (rows["region"].fillna("all") == "all")
    flag = Variable(
        *("ANL01FL", "Analysis Flag 01", "text", "Derived"),
        comment="Primary source, whole lesion, value there",
        codelist="NY",
    )
    return make_dataset(
        "ADIMG",
        "Imaging Endpoints Analysis Dataset",
        "One record per subject, visit, parameter, source and region",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_value_columns(results, rows, code),
            *_source(rows, sequence="Analysis"),
            *_values(rows, "Derived", "Measured on the mask of the source"),
            (
                Variable(
                    "BASE", "Baseline Value", "float", "Derived", "AVAL at the baseline visit"
                ),
                start,
            ),
            (
                Variable("CHG", "Change from Baseline", "float", "Derived", "AVAL - BASE"),
                (rows["value"].where(known) - start).where(~first),
            ),
            (
                Variable("ABLFL", "Baseline Record Flag", origin="Derived", codelist="NY"),
                _yes_no(first & known, None),
            ),
            (flag, _yes_no(whole & known, None)),
            *_tail(rows),
        ],
    )


def adseg(results: Results) -> Dataset:
    """Overlap of masks, case by case."""
    rows = results.overlap
    codes = [variable_name(str(metric), []) for metric in rows["metric"]]
    return make_dataset(
        "ADSEG",
        "Segmentation Overlap Analysis Dataset",
        "One record per subject, visit, label, pair and measure",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            (Variable("AVISIT", "Analysis Visit", key=2), rows["visit"]),
            (Variable("PARAMCD", "Parameter Code", key=3), codes),
            (Variable("PARAM", "Parameter"), rows["metric"].map(str)),
            (Variable("LABEL", "What the Masks Outline", key=4), rows["label"]),
            (Variable("SRCA", "Source of the First Mask", key=5), rows["source_a"]),
            (Variable("SRCB", "Source of the Second Mask", key=6), rows["source_b"]),
            (
                Variable("READSEQ", "Sequence of the Read", "integer", key=7),
                _numbers(rows["repeat"]),
            ),
            (Variable("AVAL", "Analysis Value", "float", "Derived"), _numbers(rows["value"])),
            (Variable("STATUS", "Status of the Value", codelist="STATUS"), rows["status"]),
            (Variable("REASND", "Reason Not Done or Note"), rows["reason"]),
        ],
    )


def adpd(results: Results) -> Dataset:
    """Clinical outcomes and drug exposures, as supplied."""
    outcomes, exposures = results.tables.outcomes, results.tables.exposures
    rows = pd.concat(
        [
            outcomes.rename(columns={"outcome": "name"}).assign(category="OUTCOME"),
            exposures.rename(columns={"exposure": "name"}).assign(category="EXPOSURE"),
        ],
        ignore_index=True,
    )
    code, visits = ParameterCodes(), _texts(rows, "visit")
    return make_dataset(
        "ADPD",
        "Outcomes and Exposures Analysis Dataset",
        "One record per subject, visit and parameter",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            (Variable("AVISIT", "Analysis Visit", key=2), visits.fillna("all")),
            (
                Variable("AVISITN", "Analysis Visit (N)", "integer", "Derived"),
                visits.map(_visits(results)),
            ),
            (
                Variable("PARCAT1", "Parameter Category 1", codelist="PARCAT", key=3),
                rows["category"],
            ),
            (
                Variable("PARAMCD", "Parameter Code", key=4),
                [code(str(name)) for name in rows["name"]],
            ),
            (Variable("PARAM", "Parameter"), rows["name"].map(str)),
            (Variable("AVAL", "Analysis Value", "float", "Predecessor"), _numbers(rows["value"])),
            (Variable("AVALU", "Analysis Value Unit"), _texts(rows, "unit")),
        ],
    )


def adtr(results: Results, code: ParameterCodes) -> Dataset:
    """Tumour results: the records of ADIMG and ADREAD that measure a tumour."""
    rows = results.measurements
    tumour = rows["endpoint"].map(str).map(measures_tumour).astype(bool)
    rows = rows[tumour & (rows["region"] == "all")]
    return make_dataset(
        "ADTR",
        "Tumor Results Analysis Dataset",
        "One record per subject, visit, parameter, source and read",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_value_columns(results, rows, code),
            *_source(rows, region=False),
            *_values(rows, "Predecessor"),
            *_tail(rows),
        ],
    )


def _criterion(text: str) -> str:
    for name in ("RECIST", "RANO"):
        if name in text.upper():
            return name
    return "OTHER"


def adrs(results: Results) -> Dataset:
    """Response and progression by criterion, from the events sheet: RECIST and RANO apart."""
    rows = results.tables.events
    rows = rows[_texts(rows, "criterion").notna()]
    criteria, events = _texts(rows, "criterion"), _numbers(rows["event"])
    named = zip(rows["endpoint"], criteria, strict=True)
    return make_dataset(
        "ADRS",
        "Response Analysis Dataset",
        "One record per subject, criterion, event and assessor",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            (
                Variable("PARCAT1", "Parameter Category 1", codelist="CRITERIA", key=2),
                [_criterion(one) for one in criteria],
            ),
            (
                Variable("PARAMCD", "Parameter Code", key=3),
                [variable_name(f"PD{one}", []) for one in criteria],
            ),
            (Variable("PARAM", "Parameter"), [f"{what} by {one}" for what, one in named]),
            (Variable("ASSESSOR", "Assessor", key=4), _texts(rows, "assessor")),
            (
                Variable("AVAL", "Analysis Value (days)", "float", "Predecessor"),
                _numbers(rows["time_days"]),
            ),
            (
                Variable("AVALC", "Analysis Value (C)", origin="Derived", codelist="NY"),
                [None if math.isnan(one) else "Y" if one == 1 else "N" for one in events],
            ),
        ],
    )


def adrisk(results: Results) -> Dataset:
    """Radiomic risk: pre-validated score and group of each subject and analysis."""
    rows = results.all_statistics
    rows = rows[(rows["table"] == "radiomics") & (rows["statistic"] == "risk_score")]
    groups = [str(group).partition("=")[2].upper() or None for group in rows["group"]]
    score = Variable(
        "AVAL", "Analysis Value", "float", "Derived", "Score of a model that did not see it"
    )
    return make_dataset(
        "ADRISK",
        "Radiomic Risk Analysis Dataset",
        "One record per subject and analysis",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            (Variable("ANALID", "Analysis Identifier", key=2), rows["analysis_id"]),
            (Variable("PARAMCD", "Parameter Code", key=3), "RISK"),
            (Variable("PARAM", "Parameter"), "Pre-validated radiomic risk score"),
            (score, rows["estimate"]),
            (Variable("RISKGRP", "Risk Group", origin="Derived", codelist="RISKGRP"), groups),
            (Variable("METHOD", "Definition of the Score"), rows["method"]),
        ],
    )


def adtte(results: Results) -> Dataset:
    """Times to events."""
    code, rows = ParameterCodes(), results.tables.events
    return make_dataset(
        "ADTTE",
        "Time-to-Event Analysis Dataset",
        "One record per subject, event, criterion and assessor",
        "BASIC DATA STRUCTURE",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            (
                Variable("PARAMCD", "Parameter Code", key=2),
                [code(str(name)) for name in rows["endpoint"]],
            ),
            (Variable("PARAM", "Parameter"), [f"Time to {one} (days)" for one in rows["endpoint"]]),
            (Variable("PARCAT1", "Criterion", key=3), _texts(rows, "criterion")),
            (Variable("ASSESSOR", "Assessor", key=4), _texts(rows, "assessor")),
            (
                Variable("AVAL", "Analysis Value (days)", "float", "Predecessor"),
                _numbers(rows["time_days"]),
            ),
            (
                Variable(
                    "CNSR", "Censor", "integer", "Derived", "1 - event: 0 is an event", "CNSR"
                ),
                1 - _numbers(rows["event"]),
            ),
        ],
    )


def adard(results: Results) -> Dataset:
    """Analysis results: one record per statistic, full precision."""
    rows = results.all_statistics
    failed = is_not_computable(rows)
    notes = [note if isinstance(note, str) else "" for note in rows["note"]]
    stripped = [
        note.removeprefix(NOT_COMPUTABLE).lstrip(": ") if gone else note
        for note, gone in zip(notes, failed, strict=True)
    ]
    number = Variable("NSUBJ", "Number of Subjects or Targets", "integer", "Derived")
    return make_dataset(
        "ADARD",
        "Analysis Results Dataset",
        "One record per statistic",
        "ADAM OTHER",
        rows.index,
        [
            (Variable("STUDYID", "Study Identifier"), results.study.id),
            (Variable("ANALID", "Analysis Identifier", key=1), rows["analysis_id"]),
            (Variable("POPEXPR", "Population Expression", key=2), rows["population"]),
            (Variable("ENDPT", "Endpoint", key=3), rows["endpoint"]),
            (Variable("AVISIT", "Analysis Visit", key=4), rows["visit"]),
            (Variable("SUBJ", "Subject or all", key=5), rows["participant_id"]),
            (Variable("GRP", "Pair, Level or Term", key=6), rows["group"]),
            (Variable("STATNM", "Statistic Name", key=7), rows["statistic"]),
            (Variable("STAT", "Estimate", "float", "Derived"), rows["estimate"]),
            (Variable("CILOW", "Lower Confidence Limit", "float", "Derived"), rows["ci_low"]),
            (Variable("CIHIGH", "Upper Confidence Limit", "float", "Derived"), rows["ci_high"]),
            (Variable("CILEVEL", "Confidence Level", "float"), rows["ci_level"]),
            (Variable("PVALUE", "P Value", "float", "Derived"), rows["p_value"]),
            (number, rows["n"]),
            (Variable("METHOD", "Definition of the Statistic"), rows["method"]),
            (
                Variable("STAT2", "Estimate by a Second Program", "float", "Derived"),
                rows["second_estimate"],
            ),
            (Variable("METHOD2", "Second Program"), rows["second_method"]),
            (
                Variable("STATUS", "Status of the Statistic", codelist="STATUS"),
                [NOT_COMPUTABLE if gone else "ok" for gone in failed],
            ),
            (Variable("NOTE", "Reason or Warning"), stripped),
        ],
    )


def datasets(results: Results) -> list[Dataset]:
    """The data sets of a study; one without records is left out (ADSL never)."""
    code = ParameterCodes()
    found = [
        adsl(results),
        adimg(results, code),
        adread(results, code),
        adseg(results),
        adpd(results),
        adtr(results, code),
        adrs(results),
        adtte(results),
        adrisk(results),
        adard(results),
    ]
    return [dataset for dataset in found if len(dataset.frame) or dataset.name == "ADSL"]
