"""ADaM data sets of a study: subjects, images, reads, overlap, outcomes, events, risk, results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from corelab.provenance.job import UserError
from corelab.reporting.attention import is_not_computable
from corelab.reporting.datasets import (
    Column,
    Dataset,
    ParameterCodes,
    Variable,
    ascii_label,
    make_dataset,
    number_or_nan,
    unique_subjects,
    variable_name,
    with_records,
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


def _sex_term(text: Any) -> str | None:
    """Term of the code list for a sex as a sheet writes it; what is not known stays as it is."""
    if text is None or pd.isna(text):
        return None
    return _SEXES.get(str(text).strip().lower(), str(text))


def _head(results: Results, people: pd.Series) -> list[Column]:
    return [("STUDYID", results.study.id), ("USUBJID", unique_subjects(results, people))]


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
        ("SUBJID", who),
        ("SITEID", _given(people, "site")),
        ("TRT01P", _given(people, "arm")),
        ("DOSE01P", _numbers(_given(people, "dose"))),
        ("AGE", age),
        ("AGEU", [None if math.isnan(one) else "YEARS" for one in age]),
        ("SEX", [_sex_term(one) for one in _given(people, "sex")]),
        *(
            (Variable(flag, label, "text", "Derived", rule, codelist="NY"), _yes_no(members))
            for flag, label, rule, members in sets
        ),
        ("IMGFL", _yes_no(who.isin(images))),
    ]
    known = {"participant_id", "site", "arm", "dose", "age", "sex"}
    names = [one if isinstance(one, str) else one.name for one, _ in columns]
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
    return make_dataset("ADSL", people.index, columns)


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
    units = rows["unit"].fillna("").map(str)
    pairs = list(zip(rows["endpoint"], units, strict=True))
    # Texts are made once: cells of equal content are one object.
    words = {(e, u): endpoint_words(e) + (f" ({u})" if u else "") for e, u in set(pairs)}
    named = [words[pair] for pair in pairs]
    people = results.participants
    arms = dict(zip(people["participant_id"].map(str), _given(people, "arm"), strict=True))
    return [
        *_head(results, rows["participant_id"]),
        ("TRTP", [arms.get(str(one)) for one in rows["participant_id"]]),
        ("AVISIT", [visit or "all" for visit in visits]),
        ("AVISITN", visits.map(_visits(results))),
        ("PARAMCD", [code(str(endpoint)) for endpoint in rows["endpoint"]]),
        ("PARAM", named),
    ]


def _values(rows: pd.DataFrame) -> list[Column]:
    """The value of a measurement and its unit."""
    units = [str(unit) if pd.notna(unit) and unit else None for unit in rows["unit"]]
    return [("AVAL", rows["value"].where(rows["status"] == "ok")), ("AVALU", units)]


def _source(rows: pd.DataFrame) -> list[Column]:
    """Source, repeat and region of a measurement: the end of its key."""
    repeats = _numbers(rows["repeat"])
    return [("SRC", rows["source"]), ("READSEQ", repeats), ("REGION", rows["region"])]


def _tail(rows: pd.DataFrame) -> list[Column]:
    """What every record of a measurement ends with."""
    names = {"STATUS": "status", "REASND": "reason", "SCANIDS": "scan_ids", "ROWID": "row_id"}
    return [(name, rows[column]) for name, column in names.items()]


def _is_primary(source: Any) -> bool:
    return str(source).partition(":")[0] in {"pipeline", "supplied", "consensus"}


def _adread(results: Results, code: ParameterCodes) -> Dataset:
    """Reads: one record per subject, visit, parameter, reader and repeat."""
    roles = {scan.reader for visit in results.visits for scan in visit.scans if scan.reader}
    rows = results.measurements
    rows = rows[~rows["source"].map(_is_primary).astype(bool)]
    sources = rows["source"].map(str)
    is_reader = sources.isin(roles) | sources.str.lower().str.contains("reader", regex=False)
    _, sequence, region = _source(rows)
    return make_dataset(
        "ADREAD",
        rows.index,
        [
            *_value_columns(results, rows, code),
            ("READERID", sources),
            ("ROLE", ["READER" if one else "SOFTWARE" for one in is_reader]),
            sequence,
            region,
            *_values(rows),
            ("ACPTFL", _yes_no(rows["status"] == "ok")),
            *_tail(rows),
        ],
    )


def _adimg(results: Results, code: ParameterCodes) -> Dataset:
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
    return make_dataset(
        "ADIMG",
        rows.index,
        [
            *_value_columns(results, rows, code),
            *_source(rows),
            *_values(rows),
            ("BASE", start),
            ("CHG", (rows["value"].where(known) - start).where(~first)),
            ("ABLFL", _yes_no(first & known, None)),
            ("ANL01FL", _yes_no(whole & known, None)),
            *_tail(rows),
        ],
    )


def _adseg(results: Results) -> Dataset:
    """Overlap of masks, case by case."""
    rows = results.overlap
    names = {metric: variable_name(str(metric), []) for metric in set(rows["metric"])}
    codes = [names[metric] for metric in rows["metric"]]
    return make_dataset(
        "ADSEG",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            ("AVISIT", rows["visit"]),
            ("PARAMCD", codes),
            ("PARAM", rows["metric"].map(str)),
            ("LABEL", rows["label"]),
            ("SRCA", rows["source_a"]),
            ("SRCB", rows["source_b"]),
            ("READSEQ", _numbers(rows["repeat"])),
            ("AVAL", _numbers(rows["value"])),
            ("STATUS", rows["status"]),
            ("REASND", rows["reason"]),
        ],
    )


def _adpd(results: Results) -> Dataset:
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
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            ("AVISIT", visits.fillna("all")),
            ("AVISITN", visits.map(_visits(results))),
            ("PARCAT1", rows["category"]),
            ("PARAMCD", [code(str(name)) for name in rows["name"]]),
            ("PARAM", rows["name"].map(str)),
            ("AVAL", _numbers(rows["value"])),
            ("AVALU", _texts(rows, "unit")),
        ],
    )


def _adtr(results: Results, code: ParameterCodes) -> Dataset:
    """Tumour results: the records of ADIMG and ADREAD that measure a tumour."""
    rows = results.measurements
    tumour = rows["endpoint"].map(str).map(measures_tumour).astype(bool)
    rows = rows[tumour & (rows["region"] == "all")]
    return make_dataset(
        "ADTR",
        rows.index,
        [
            *_value_columns(results, rows, code),
            *_source(rows)[:2],
            *_values(rows),
            *_tail(rows),
        ],
    )


def _criterion(text: str) -> str:
    for name in ("RECIST", "RANO"):
        if name in text.upper():
            return name
    return "OTHER"


def _adrs(results: Results) -> Dataset:
    """Response and progression by criterion, from the events sheet: RECIST and RANO apart."""
    rows = results.tables.events
    rows = rows[_texts(rows, "criterion").notna()]
    criteria, events = _texts(rows, "criterion"), _numbers(rows["event"])
    named = zip(rows["endpoint"], criteria, strict=True)
    return make_dataset(
        "ADRS",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            ("PARCAT1", [_criterion(one) for one in criteria]),
            ("PARAMCD", [variable_name(f"PD{one}", []) for one in criteria]),
            ("PARAM", [f"{what} by {one}" for what, one in named]),
            ("ASSESSOR", _texts(rows, "assessor")),
            ("AVAL", _numbers(rows["time_days"])),
            ("AVALC", [None if math.isnan(one) else "Y" if one == 1 else "N" for one in events]),
        ],
    )


def _adrisk(results: Results) -> Dataset:
    """Radiomic risk: pre-validated score and group of each subject and analysis."""
    rows = results.all_statistics
    rows = rows[(rows["table"] == "radiomics") & (rows["statistic"] == "risk_score")]
    groups = [str(group).partition("=")[2].upper() or None for group in rows["group"]]
    return make_dataset(
        "ADRISK",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            ("ANALID", rows["analysis_id"]),
            ("PARAMCD", "RISK"),
            ("PARAM", "Pre-validated radiomic risk score"),
            ("AVAL", rows["estimate"]),
            ("RISKGRP", groups),
            ("METHOD", rows["method"]),
        ],
    )


def _adtte(results: Results) -> Dataset:
    """Times to events."""
    code, rows = ParameterCodes(), results.tables.events
    return make_dataset(
        "ADTTE",
        rows.index,
        [
            *_head(results, rows["participant_id"]),
            ("PARAMCD", [code(str(name)) for name in rows["endpoint"]]),
            ("PARAM", [f"Time to {one} (days)" for one in rows["endpoint"]]),
            ("PARCAT1", _texts(rows, "criterion")),
            ("ASSESSOR", _texts(rows, "assessor")),
            ("AVAL", _numbers(rows["time_days"])),
            ("CNSR", 1 - _numbers(rows["event"])),
        ],
    )


def _adard(results: Results) -> Dataset:
    """Analysis results: one record per statistic, full precision."""
    rows = results.all_statistics
    failed = is_not_computable(rows)
    notes = [note if isinstance(note, str) else "" for note in rows["note"]]
    stripped = [
        note.removeprefix(NOT_COMPUTABLE).lstrip(": ") if gone else note
        for note, gone in zip(notes, failed, strict=True)
    ]
    return make_dataset(
        "ADARD",
        rows.index,
        [
            ("STUDYID", results.study.id),
            ("ANALID", rows["analysis_id"]),
            ("POPEXPR", rows["population"]),
            ("ENDPT", rows["endpoint"]),
            ("AVISIT", rows["visit"]),
            ("SUBJ", rows["participant_id"]),
            ("GRP", rows["group"]),
            ("STATNM", rows["statistic"]),
            ("STAT", rows["estimate"]),
            ("CILOW", rows["ci_low"]),
            ("CIHIGH", rows["ci_high"]),
            ("CILEVEL", rows["ci_level"]),
            ("PVALUE", rows["p_value"]),
            ("NSUBJ", rows["n"]),
            ("METHOD", rows["method"]),
            ("STAT2", rows["second_estimate"]),
            ("METHOD2", rows["second_method"]),
            ("STATUS", [NOT_COMPUTABLE if gone else "ok" for gone in failed]),
            ("NOTE", stripped),
        ],
    )


def datasets(results: Results) -> Iterator[Dataset]:
    """The data sets of a study, each made when it is its turn; one without records is left out."""
    code = ParameterCodes()
    yield adsl(results)
    yield from with_records(_adimg(results, code))
    yield from with_records(_adread(results, code))
    yield from with_records(_adseg(results))
    yield from with_records(_adpd(results))
    yield from with_records(_adtr(results, code))
    for make in (_adrs, _adtte, _adrisk, _adard):
        yield from with_records(make(results))
