"""ADaM data sets of a study: subjects, images, reads, overlap, outcomes, events, risk, results."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from corelab.reporting.vocabulary import endpoint_words
from corelab.study.expression import ExpressionError, select
from corelab.terms.labels import volume_endpoint

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


def _head(results: Results) -> list[Variable]:
    return [
        Variable("STUDYID", "Study Identifier", comment="study.id of the config"),
        Variable("USUBJID", "Unique Subject Identifier", comment="STUDYID, hyphen, subject", key=1),
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
    variables = [
        *_head(results),
        Variable("SUBJID", "Subject Identifier for the Study", origin="Predecessor"),
        Variable("SITEID", "Study Site Identifier", origin="Predecessor"),
        Variable("TRT01P", "Planned Treatment for Period 01", origin="Predecessor"),
        Variable("DOSE01P", "Planned Treatment Dose for Period 01", "float", "Predecessor"),
        Variable("AGE", "Age", "float", "Predecessor"),
        Variable("AGEU", "Age Units"),
        Variable("SEX", "Sex", origin="Predecessor", codelist="SEX"),
        *(
            Variable(flag, label, "text", "Derived", rule, codelist="NY")
            for flag, label, rule, _ in sets
        ),
        Variable("IMGFL", "Images Processed Flag", origin="Derived", codelist="NY"),
    ]
    known = {"participant_id", "site", "arm", "dose", "age", "sex"}
    names = [v.name for v in variables]
    covariates = {}
    for column in results.shown_columns:
        if column in known:
            continue
        name = variable_name(str(column), names)
        names.append(name)
        numeric = pd.to_numeric(people[column], errors="coerce")
        is_number = bool((numeric.notna() == people[column].notna()).all())
        kind = "float" if is_number and numeric.notna().any() else "text"
        label = ascii_label(str(column).replace("_", " ").capitalize())
        variables.append(Variable(name, label, kind, "Predecessor"))
        covariates[name] = (column, kind)
    rows = []
    for place, person in enumerate(people.to_dict("records")):
        age = number_or_nan(person.get("age"))
        row = {
            "STUDYID": results.study.id,
            "USUBJID": unique_subject(results, person["participant_id"]),
            "SUBJID": str(person["participant_id"]),
            "SITEID": person.get("site"),
            "TRT01P": person.get("arm"),
            "DOSE01P": number_or_nan(person.get("dose")),
            "AGE": age,
            "AGEU": None if math.isnan(age) else "YEARS",
            "SEX": sex_term(person.get("sex")),
            **{flag: "Y" if members.iloc[place] else "N" for flag, _, _, members in sets},
            "IMGFL": "Y" if str(person["participant_id"]) in images else "N",
        }
        for name, (column, kind) in covariates.items():
            row[name] = number_or_nan(person[column]) if kind == "float" else person[column]
        rows.append(row)
    return make_dataset(
        "ADSL",
        "Subject-Level Analysis Dataset",
        "One record per subject",
        "SUBJECT LEVEL ANALYSIS DATASET",
        variables,
        pd.DataFrame(rows),
    )


def _visits(results: Results) -> dict[str, int]:
    return {visit: number for number, visit in enumerate(results.tables.visit_order)}


def _value_variables(results: Results) -> list[Variable]:
    return [
        *_head(results),
        Variable("TRTP", "Planned Treatment", origin="Predecessor"),
        Variable("AVISIT", "Analysis Visit", key=2),
        Variable(
            "AVISITN", "Analysis Visit (N)", "integer", "Derived", "Order of the visit, from 0"
        ),
        Variable("PARAMCD", "Parameter Code", key=3),
        Variable("PARAM", "Parameter"),
    ]


def _value_row(
    results: Results, row: Any, code: ParameterCodes, arms: Mapping[str, Any]
) -> dict[str, Any]:
    words = endpoint_words(row.endpoint)
    unit = str(row.unit) if row.unit is not None and pd.notna(row.unit) else ""
    visit = "" if row.visit is None or pd.isna(row.visit) else str(row.visit)
    return {
        "STUDYID": results.study.id,
        "USUBJID": unique_subject(results, row.participant_id),
        "TRTP": arms.get(str(row.participant_id)),
        "AVISIT": visit or "all",
        "AVISITN": _visits(results).get(visit),
        "PARAMCD": code(str(row.endpoint)),
        "PARAM": f"{words} ({unit})" if unit else words,
        "AVAL": row.value if row.status == "ok" else math.nan,
        "AVALU": unit or None,
        "STATUS": row.status,
        "REASND": row.reason,
        "SCANIDS": row.scan_ids,
        "ROWID": row.row_id,
    }


_TAIL = (
    Variable("STATUS", "Status of the Value", codelist="STATUS"),
    Variable("REASND", "Reason Not Done or Note"),
    Variable("SCANIDS", "Scans Behind the Value"),
    Variable("ROWID", "Row of measurements.tsv", comment="row_id, key of the provenance trace"),
)


def _arms(results: Results) -> dict[str, Any]:
    people = results.participants
    if "arm" not in people:
        return {}
    return dict(zip(people["participant_id"].map(str), people["arm"], strict=True))


def _is_primary(source: Any) -> bool:
    return str(source).partition(":")[0] in {"pipeline", "supplied", "consensus"}


def adread(results: Results, code: ParameterCodes) -> Dataset:
    """Reads: one record per subject, visit, parameter, reader and repeat."""
    arms = _arms(results)
    roles = {scan.reader for visit in results.visits for scan in visit.scans if scan.reader}
    rows = []
    for row in results.measurements.itertuples():
        if _is_primary(row.source):
            continue
        source = str(row.source)
        reader = source in roles or "reader" in source.lower()
        rows.append(
            {
                **_value_row(results, row, code, arms),
                "READERID": source,
                "ROLE": "READER" if reader else "SOFTWARE",
                "READSEQ": number_or_nan(row.repeat),
                "REGION": row.region,
                "ACPTFL": "Y" if row.status == "ok" else "N",
            }
        )
    variables = [
        *_value_variables(results),
        Variable("READERID", "Reader or Software Identifier", key=4),
        Variable("ROLE", "Role of the Source", origin="Derived", codelist="ROLE"),
        Variable("READSEQ", "Sequence of the Read", "integer", key=5),
        Variable("REGION", "Atlas Region", key=6),
        Variable("AVAL", "Analysis Value", "float", "Predecessor"),
        Variable("AVALU", "Analysis Value Unit"),
        Variable("ACPTFL", "Accepted Record Flag", origin="Derived", codelist="NY"),
        *_TAIL,
    ]
    return make_dataset(
        "ADREAD",
        "Imaging Reads Analysis Dataset",
        "One record per subject, visit, parameter, reader, read and region",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def adimg(results: Results, code: ParameterCodes) -> Dataset:
    """Imaging endpoints: the analysis values of the pipeline and of supplied masks."""
    arms = _arms(results)
    frame = results.measurements
    frame = frame[frame["source"].map(_is_primary).astype(bool)]
    baseline = results.tables.baseline
    first = frame[(frame["visit"] == baseline) & (frame["status"] == "ok")]
    key = ["participant_id", "endpoint", "source", "repeat", "region"]
    base = dict(zip(first[key].itertuples(index=False, name=None), first["value"], strict=True))
    rows = []
    for row in frame.itertuples():
        mine = (row.participant_id, row.endpoint, row.source, row.repeat, row.region)
        start = number_or_nan(base.get(mine))
        value = number_or_nan(row.value) if row.status == "ok" else math.nan
        whole = str(row.source) in {"pipeline", "supplied"} and row.region in (None, "all")
        rows.append(
            {
                **_value_row(results, row, code, arms),
                "SRC": row.source,
                "READSEQ": number_or_nan(row.repeat),
                "REGION": row.region,
                "BASE": start,
                "CHG": value - start if row.visit != baseline else math.nan,
                "ABLFL": "Y" if row.visit == baseline and row.status == "ok" else None,
                "ANL01FL": "Y" if whole and row.status == "ok" else None,
            }
        )
    variables = [
        *_value_variables(results),
        Variable("SRC", "Source of the Value", key=4),
        Variable("READSEQ", "Sequence of the Analysis", "integer", key=5),
        Variable("REGION", "Atlas Region", key=6),
        Variable(
            "AVAL", "Analysis Value", "float", "Derived", "Measured on the mask of the source"
        ),
        Variable("AVALU", "Analysis Value Unit"),
        Variable("BASE", "Baseline Value", "float", "Derived", "AVAL at the baseline visit"),
        Variable("CHG", "Change from Baseline", "float", "Derived", "AVAL - BASE"),
        Variable("ABLFL", "Baseline Record Flag", origin="Derived", codelist="NY"),
        Variable(
            "ANL01FL",
            "Analysis Flag 01",
            origin="Derived",
            comment="Primary source, whole lesion, value there",
            codelist="NY",
        ),
        *_TAIL,
    ]
    return make_dataset(
        "ADIMG",
        "Imaging Endpoints Analysis Dataset",
        "One record per subject, visit, parameter, source and region",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def adseg(results: Results) -> Dataset:
    """Overlap of masks, case by case."""
    rows = [
        {
            "STUDYID": results.study.id,
            "USUBJID": unique_subject(results, row.participant_id),
            "AVISIT": row.visit,
            "PARAMCD": variable_name(str(row.metric), []),
            "PARAM": str(row.metric),
            "LABEL": row.label,
            "SRCA": row.source_a,
            "SRCB": row.source_b,
            "READSEQ": number_or_nan(row.repeat),
            "AVAL": number_or_nan(row.value),
            "STATUS": row.status,
            "REASND": row.reason,
        }
        for row in results.overlap.itertuples()
    ]
    variables = [
        *_head(results),
        Variable("AVISIT", "Analysis Visit", key=2),
        Variable("PARAMCD", "Parameter Code", key=3),
        Variable("PARAM", "Parameter"),
        Variable("LABEL", "What the Masks Outline", key=4),
        Variable("SRCA", "Source of the First Mask", key=5),
        Variable("SRCB", "Source of the Second Mask", key=6),
        Variable("READSEQ", "Sequence of the Read", "integer", key=7),
        Variable("AVAL", "Analysis Value", "float", "Derived"),
        Variable("STATUS", "Status of the Value", codelist="STATUS"),
        Variable("REASND", "Reason Not Done or Note"),
    ]
    return make_dataset(
        "ADSEG",
        "Segmentation Overlap Analysis Dataset",
        "One record per subject, visit, label, pair and measure",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def adpd(results: Results) -> Dataset:
    """Clinical outcomes and drug exposures, as supplied."""
    rows = []
    order = _visits(results)
    code = ParameterCodes()
    for category, frame, name in (
        ("OUTCOME", results.tables.outcomes, "outcome"),
        ("EXPOSURE", results.tables.exposures, "exposure"),
    ):
        for row in frame.to_dict("records"):
            visit = row.get("visit")
            unit = row.get("unit")
            rows.append(
                {
                    "STUDYID": results.study.id,
                    "USUBJID": unique_subject(results, row["participant_id"]),
                    "AVISIT": visit if isinstance(visit, str) else "all",
                    "AVISITN": order.get(str(visit)),
                    "PARCAT1": category,
                    "PARAMCD": code(str(row[name])),
                    "PARAM": str(row[name]),
                    "AVAL": number_or_nan(row["value"]),
                    "AVALU": unit if isinstance(unit, str) else None,
                }
            )
    variables = [
        *_head(results),
        Variable("AVISIT", "Analysis Visit", key=2),
        Variable("AVISITN", "Analysis Visit (N)", "integer", "Derived"),
        Variable("PARCAT1", "Parameter Category 1", codelist="PARCAT", key=3),
        Variable("PARAMCD", "Parameter Code", key=4),
        Variable("PARAM", "Parameter"),
        Variable("AVAL", "Analysis Value", "float", "Predecessor"),
        Variable("AVALU", "Analysis Value Unit"),
    ]
    return make_dataset(
        "ADPD",
        "Outcomes and Exposures Analysis Dataset",
        "One record per subject, visit and parameter",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def adtr(results: Results, code: ParameterCodes) -> Dataset:
    """Tumour results: the records of ADIMG and ADREAD that measure a tumour."""
    arms = _arms(results)
    rows = []
    for row in results.measurements.itertuples():
        if not measures_tumour(str(row.endpoint)) or row.region != "all":
            continue
        rows.append(
            {
                **_value_row(results, row, code, arms),
                "SRC": row.source,
                "READSEQ": number_or_nan(row.repeat),
            }
        )
    variables = [
        *_value_variables(results),
        Variable("SRC", "Source of the Value", key=4),
        Variable("READSEQ", "Sequence of the Read", "integer", key=5),
        Variable("AVAL", "Analysis Value", "float", "Predecessor"),
        Variable("AVALU", "Analysis Value Unit"),
        *_TAIL,
    ]
    return make_dataset(
        "ADTR",
        "Tumor Results Analysis Dataset",
        "One record per subject, visit, parameter, source and read",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def _criterion(text: str) -> str:
    for name in ("RECIST", "RANO"):
        if name in text.upper():
            return name
    return "OTHER"


def adrs(results: Results) -> Dataset:
    """Response and progression by criterion, from the events sheet: RECIST and RANO apart."""
    rows = []
    for row in results.tables.events.to_dict("records"):
        criterion = row.get("criterion")
        if not isinstance(criterion, str):
            continue
        event = number_or_nan(row["event"])
        known = not math.isnan(event)
        rows.append(
            {
                "STUDYID": results.study.id,
                "USUBJID": unique_subject(results, row["participant_id"]),
                "PARCAT1": _criterion(criterion),
                "PARAMCD": variable_name(f"PD{criterion}", []),
                "PARAM": f"{row['endpoint']} by {criterion}",
                "ASSESSOR": row.get("assessor") if isinstance(row.get("assessor"), str) else None,
                "AVAL": number_or_nan(row["time_days"]),
                "AVALC": ("Y" if event == 1 else "N") if known else None,
            }
        )
    variables = [
        *_head(results),
        Variable("PARCAT1", "Parameter Category 1", codelist="CRITERIA", key=2),
        Variable("PARAMCD", "Parameter Code", key=3),
        Variable("PARAM", "Parameter"),
        Variable("ASSESSOR", "Assessor", key=4),
        Variable("AVAL", "Analysis Value (days)", "float", "Predecessor"),
        Variable("AVALC", "Analysis Value (C)", origin="Derived", codelist="NY"),
    ]
    return make_dataset(
        "ADRS",
        "Response Analysis Dataset",
        "One record per subject, criterion, event and assessor",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def adrisk(results: Results) -> Dataset:
    """Radiomic risk: pre-validated score and group of each subject and analysis."""
    frame = results.statistics.get("radiomics", pd.DataFrame(columns=["statistic"]))
    own = frame[frame["statistic"] == "risk_score"]
    rows = [
        {
            "STUDYID": results.study.id,
            "USUBJID": unique_subject(results, row.participant_id),
            "ANALID": row.analysis_id,
            "PARAMCD": "RISK",
            "PARAM": "Pre-validated radiomic risk score",
            "AVAL": row.estimate,
            "RISKGRP": str(row.group).partition("=")[2].upper() or None,
            "METHOD": row.method,
        }
        for row in own.itertuples()
    ]
    variables = [
        *_head(results),
        Variable("ANALID", "Analysis Identifier", key=2),
        Variable("PARAMCD", "Parameter Code", key=3),
        Variable("PARAM", "Parameter"),
        Variable(
            "AVAL", "Analysis Value", "float", "Derived", "Score of a model that did not see it"
        ),
        Variable("RISKGRP", "Risk Group", origin="Derived", codelist="RISKGRP"),
        Variable("METHOD", "Definition of the Score"),
    ]
    return make_dataset(
        "ADRISK",
        "Radiomic Risk Analysis Dataset",
        "One record per subject and analysis",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def adtte(results: Results) -> Dataset:
    """Times to events."""
    code = ParameterCodes()
    rows = [
        {
            "STUDYID": results.study.id,
            "USUBJID": unique_subject(results, row["participant_id"]),
            "PARAMCD": code(str(row["endpoint"])),
            "PARAM": f"Time to {row['endpoint']} (days)",
            "PARCAT1": row.get("criterion") if isinstance(row.get("criterion"), str) else None,
            "ASSESSOR": row.get("assessor") if isinstance(row.get("assessor"), str) else None,
            "AVAL": number_or_nan(row["time_days"]),
            "CNSR": None
            if math.isnan(number_or_nan(row["event"]))
            else 1 - int(number_or_nan(row["event"])),
        }
        for row in results.tables.events.to_dict("records")
    ]
    variables = [
        *_head(results),
        Variable("PARAMCD", "Parameter Code", key=2),
        Variable("PARAM", "Parameter"),
        Variable("PARCAT1", "Criterion", key=3),
        Variable("ASSESSOR", "Assessor", key=4),
        Variable("AVAL", "Analysis Value (days)", "float", "Predecessor"),
        Variable("CNSR", "Censor", "integer", "Derived", "1 - event: 0 is an event", "CNSR"),
    ]
    return make_dataset(
        "ADTTE",
        "Time-to-Event Analysis Dataset",
        "One record per subject, event, criterion and assessor",
        "BASIC DATA STRUCTURE",
        variables,
        pd.DataFrame(rows),
    )


def adard(results: Results) -> Dataset:
    """Analysis results: one record per statistic, full precision."""
    frame = results.all_statistics
    failed = is_not_computable(frame)
    rows = []
    for row, gone in zip(frame.itertuples(), failed, strict=True):
        note = row.note if isinstance(row.note, str) else ""
        rows.append(
            {
                "STUDYID": results.study.id,
                "ANALID": row.analysis_id,
                "POPEXPR": row.population,
                "ENDPT": row.endpoint,
                "AVISIT": row.visit,
                "SUBJ": row.participant_id,
                "GRP": row.group,
                "STATNM": row.statistic,
                "STAT": row.estimate,
                "CILOW": row.ci_low,
                "CIHIGH": row.ci_high,
                "CILEVEL": row.ci_level,
                "PVALUE": row.p_value,
                "NSUBJ": row.n,
                "METHOD": row.method,
                "STAT2": row.second_estimate,
                "METHOD2": row.second_method,
                "STATUS": NOT_COMPUTABLE if gone else "ok",
                "NOTE": note.removeprefix(NOT_COMPUTABLE).lstrip(": ") if gone else note,
            }
        )
    variables = [
        Variable("STUDYID", "Study Identifier"),
        Variable("ANALID", "Analysis Identifier", key=1),
        Variable("POPEXPR", "Population Expression", key=2),
        Variable("ENDPT", "Endpoint", key=3),
        Variable("AVISIT", "Analysis Visit", key=4),
        Variable("SUBJ", "Subject or all", key=5),
        Variable("GRP", "Pair, Level or Term", key=6),
        Variable("STATNM", "Statistic Name", key=7),
        Variable("STAT", "Estimate", "float", "Derived"),
        Variable("CILOW", "Lower Confidence Limit", "float", "Derived"),
        Variable("CIHIGH", "Upper Confidence Limit", "float", "Derived"),
        Variable("CILEVEL", "Confidence Level", "float"),
        Variable("PVALUE", "P Value", "float", "Derived"),
        Variable("NSUBJ", "Number of Subjects or Targets", "integer", "Derived"),
        Variable("METHOD", "Definition of the Statistic"),
        Variable("STAT2", "Estimate by a Second Program", "float", "Derived"),
        Variable("METHOD2", "Second Program"),
        Variable("STATUS", "Status of the Statistic", codelist="STATUS"),
        Variable("NOTE", "Reason or Warning"),
    ]
    return make_dataset(
        "ADARD",
        "Analysis Results Dataset",
        "One record per statistic",
        "ADAM OTHER",
        variables,
        pd.DataFrame(rows),
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
