"""Analysis data sets as ADaM has them: SAS transport (XPORT v5), Dataset-JSON 1.1, Define-XML 2.1.

XPORT v5 can hold names of 8 characters, labels of 40 and ASCII texts of 200: what does not fit is
refused there, listed, and carried whole in Dataset-JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from corelab import __version__
from corelab.provenance.products import atomic_path
from corelab.reporting.attention import is_not_computable
from corelab.reporting.documents import epoch
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.reporting.vocabulary import endpoint_words
from corelab.study.naming import bids_label

MAX_NAME, MAX_LABEL, MAX_TEXT = 8, 40, 200
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,7}")
_TIME_STAMP = re.compile(rb"\d{2}[A-Z]{3}\d{2}:\d{2}:\d{2}:\d{2}")

PARAMETER_CODES = {
    "infarct_volume": "INFVOL",
    "core_volume": "COREVOL",
    "hypoperfused_volume": "HYPVOL",
    "penumbra_volume": "PENVOL",
    "mismatch_ratio": "MMRATIO",
    "hypoperfusion_intensity_ratio": "HIR",
    "haematoma_volume": "HAEVOL",
    "infarct_growth": "INFGROW",
    "haematoma_growth": "HAEGROW",
    "reperfusion_percent": "REPERF",
    "ghost_core_volume": "GHOST",
    "aspects": "ASPECTS",
    "net_water_uptake": "NWU",
    "enhancing_volume": "ENHVOL",
    "oedema_volume": "OEDVOL",
    "whole_tumour_volume": "WTVOL",
    "extent_of_resection": "EOR",
    "territory_fraction": "TERRFR",
    "lesion_volume": "LESVOL",
}
CODELISTS: dict[str, dict[str, str]] = {
    "NY": {"Y": "Yes", "N": "No"},
    "SEX": {"F": "Female", "M": "Male", "U": "Unknown"},
    "STATUS": {
        "ok": "Value is there",
        "missing": "Not acquired",
        "failed": "Could not be computed from the file",
        "excluded": "Left out by decision",
        "not_computable": "Not defined for these data",
    },
    "ROLE": {"READER": "Human reader", "SOFTWARE": "Other software"},
    "CNSR": {"0": "Event", "1": "Censored"},
    "PARCAT": {"OUTCOME": "Clinical outcome", "EXPOSURE": "Drug exposure"},
}


class TransportRefusal(ValueError):
    """A data set that XPORT v5 cannot hold; the message says what is wrong with which variable."""


@dataclass(frozen=True)
class Variable:
    """A variable of a data set.

    Attributes
    ----------
    name, label
        As XPORT wants them: at most 8 and 40 ASCII characters.
    kind
        ``text``, ``integer`` or ``float``.
    origin
        ``Assigned``, ``Derived`` or ``Predecessor`` (Define-XML).
    comment
        How it comes about; shown in define.xml.
    codelist
        Key of :data:`CODELISTS`.
    key
        Position in the data set's key; 0 for none.
    """

    name: str
    label: str
    kind: str = "text"
    origin: str = "Assigned"
    comment: str = ""
    codelist: str = ""
    key: int = 0


@dataclass(frozen=True)
class Dataset:
    """A data set: variables and their records."""

    name: str
    label: str
    structure: str
    adam_class: str
    variables: tuple[Variable, ...]
    frame: pd.DataFrame


@dataclass
class ParameterCodes:
    """Codes of at most 8 characters for endpoint names; a name keeps its code."""

    taken: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str) -> str:
        """Code of a parameter.

        Examples
        --------
        >>> code = ParameterCodes()
        >>> code("infarct_volume"), code("lesion_volume:cavity"), code("lesion_volume:cavern")
        ('INFVOL', 'LESIONVO', 'LESIONV1')
        """
        if name not in self.taken:
            code = PARAMETER_CODES.get(name)
            stem = re.sub(r"[^A-Z0-9]", "", name.upper()) or "P"
            stem = stem if stem[0].isalpha() else f"P{stem}"
            number = 0
            while code is None or code in self.taken.values():
                tail = str(number) if number else ""
                code = stem[: MAX_NAME - len(tail)] + tail
                number += 1
            self.taken[name] = code
        return self.taken[name]


def variable_name(text: str, taken: Sequence[str]) -> str:
    """A free variable name of at most 8 characters for a column of a sheet.

    Examples
    --------
    >>> variable_name("onset_to_ct_min", []), variable_name("age (years)", ["AGEYEARS"])
    ('ONSETTOC', 'AGEYEAR1')
    """
    stem = re.sub(r"[^A-Z0-9]", "", text.upper()) or "COVAR"
    stem = stem if stem[0].isalpha() else f"C{stem}"
    name, number = stem[:MAX_NAME], 0
    while name in taken:
        number += 1
        name = stem[: MAX_NAME - len(str(number))] + str(number)
    return name


def _ascii_label(text: str) -> str:
    kept = text.encode("ascii", "replace").decode("ascii").replace("?", "_")
    return kept[:MAX_LABEL].strip() or "Variable"


def _subject(results: Results, participant_id: Any) -> str:
    """USUBJID: a key has to be ASCII, so what is not becomes its reversible BIDS form."""
    text = str(participant_id)
    safe = text if text.isascii() and len(text) <= 100 else bids_label(text)
    return f"{results.study.get('id', 'STUDY')}-{safe}"


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _head(results: Results) -> list[Variable]:
    return [
        Variable("STUDYID", "Study Identifier", comment="study.id of the config"),
        Variable("USUBJID", "Unique Subject Identifier", comment="STUDYID, hyphen, subject", key=1),
    ]


def adsl(results: Results) -> Dataset:
    """Subject level: one record per participant."""
    people = results.participants
    images = set(results.image_subjects)
    variables = [
        *_head(results),
        Variable("SUBJID", "Subject Identifier for the Study", origin="Predecessor"),
        Variable("SITEID", "Study Site Identifier", origin="Predecessor"),
        Variable("TRT01P", "Planned Treatment for Period 01", origin="Predecessor"),
        Variable("DOSE01P", "Planned Treatment Dose for Period 01", "float", "Predecessor"),
        Variable("AGE", "Age", "float", "Predecessor"),
        Variable("AGEU", "Age Units"),
        Variable("SEX", "Sex", origin="Predecessor", codelist="SEX"),
        Variable("IMGFL", "Images Processed Flag", origin="Derived", codelist="NY"),
    ]
    known = {"participant_id", "site", "arm", "dose", "age", "sex"}
    names = [v.name for v in variables]
    covariates = {}
    for column in people.columns:
        if column in known:
            continue
        name = variable_name(str(column), names)
        names.append(name)
        numeric = pd.to_numeric(people[column], errors="coerce")
        is_number = bool((numeric.notna() == people[column].notna()).all())
        kind = "float" if is_number and numeric.notna().any() else "text"
        label = _ascii_label(str(column).replace("_", " ").capitalize())
        variables.append(Variable(name, label, kind, "Predecessor"))
        covariates[name] = (column, kind)
    rows = []
    for person in people.to_dict("records"):
        age = _number(person.get("age"))
        row = {
            "STUDYID": str(results.study.get("id", "")),
            "USUBJID": _subject(results, person["participant_id"]),
            "SUBJID": str(person["participant_id"]),
            "SITEID": person.get("site"),
            "TRT01P": person.get("arm"),
            "DOSE01P": _number(person.get("dose")),
            "AGE": age,
            "AGEU": None if math.isnan(age) else "YEARS",
            "SEX": person.get("sex"),
            "IMGFL": "Y" if str(person["participant_id"]) in images else "N",
        }
        for name, (column, kind) in covariates.items():
            row[name] = _number(person[column]) if kind == "float" else person[column]
        rows.append(row)
    return _dataset(
        "ADSL",
        "Subject-Level Analysis Dataset",
        "One record per subject",
        "SUBJECT LEVEL ANALYSIS DATASET",
        variables,
        rows,
    )


def _visits(results: Results) -> dict[str, int]:
    return {visit: number for number, visit in enumerate(results.tables.visit_order)}


def _value_variables(results: Results) -> list[Variable]:
    return [
        *_head(results),
        Variable("TRT01P", "Planned Treatment for Period 01", origin="Predecessor"),
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
        "STUDYID": str(results.study.get("id", "")),
        "USUBJID": _subject(results, row.participant_id),
        "TRT01P": arms.get(str(row.participant_id)),
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
    roles = {
        str(visit.get("reader")) for v in results.visits for visit in v.scans if visit.get("reader")
    }
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
                "READSEQ": _number(row.repeat),
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
    return _dataset(
        "ADREAD",
        "Imaging Reads Analysis Dataset",
        "One record per subject, visit, parameter, reader, read and region",
        "BASIC DATA STRUCTURE",
        variables,
        rows,
    )


def adimg(results: Results, code: ParameterCodes) -> Dataset:
    """Imaging endpoints: the analysis values of the pipeline and of supplied masks."""
    arms = _arms(results)
    frame = results.measurements
    frame = frame[frame["source"].map(_is_primary)]
    baseline = results.tables.baseline
    first = frame[(frame["visit"] == baseline) & (frame["status"] == "ok")]
    key = ["participant_id", "endpoint", "source", "repeat", "region"]
    base = dict(zip(first[key].itertuples(index=False, name=None), first["value"], strict=True))
    rows = []
    for row in frame.itertuples():
        mine = (row.participant_id, row.endpoint, row.source, row.repeat, row.region)
        start = _number(base.get(mine))
        value = _number(row.value) if row.status == "ok" else math.nan
        whole = str(row.source) in {"pipeline", "supplied"} and row.region in (None, "all")
        rows.append(
            {
                **_value_row(results, row, code, arms),
                "SRC": row.source,
                "READSEQ": _number(row.repeat),
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
    return _dataset(
        "ADIMG",
        "Imaging Endpoints Analysis Dataset",
        "One record per subject, visit, parameter, source and region",
        "BASIC DATA STRUCTURE",
        variables,
        rows,
    )


def adseg(results: Results) -> Dataset:
    """Overlap of masks, case by case."""
    rows = [
        {
            "STUDYID": str(results.study.get("id", "")),
            "USUBJID": _subject(results, row.participant_id),
            "AVISIT": row.visit,
            "PARAMCD": variable_name(str(row.metric), []),
            "PARAM": str(row.metric),
            "LABEL": row.label,
            "SRCA": row.source_a,
            "SRCB": row.source_b,
            "READSEQ": _number(row.repeat),
            "AVAL": _number(row.value),
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
    return _dataset(
        "ADSEG",
        "Segmentation Overlap Analysis Dataset",
        "One record per subject, visit, label, pair and measure",
        "BASIC DATA STRUCTURE",
        variables,
        rows,
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
                    "STUDYID": str(results.study.get("id", "")),
                    "USUBJID": _subject(results, row["participant_id"]),
                    "AVISIT": visit if isinstance(visit, str) else "all",
                    "AVISITN": order.get(str(visit)),
                    "PARCAT1": category,
                    "PARAMCD": code(str(row[name])),
                    "PARAM": str(row[name]),
                    "AVAL": _number(row["value"]),
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
    return _dataset(
        "ADPD",
        "Outcomes and Exposures Analysis Dataset",
        "One record per subject, visit and parameter",
        "BASIC DATA STRUCTURE",
        variables,
        rows,
    )


def adtte(results: Results) -> Dataset:
    """Times to events."""
    code = ParameterCodes()
    rows = [
        {
            "STUDYID": str(results.study.get("id", "")),
            "USUBJID": _subject(results, row["participant_id"]),
            "PARAMCD": code(str(row["endpoint"])),
            "PARAM": f"Time to {row['endpoint']} (days)",
            "PARCAT1": row.get("criterion") if isinstance(row.get("criterion"), str) else None,
            "ASSESSOR": row.get("assessor") if isinstance(row.get("assessor"), str) else None,
            "AVAL": _number(row["time_days"]),
            "CNSR": None if math.isnan(_number(row["event"])) else 1 - int(_number(row["event"])),
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
    return _dataset(
        "ADTTE",
        "Time-to-Event Analysis Dataset",
        "One record per subject, event, criterion and assessor",
        "BASIC DATA STRUCTURE",
        variables,
        rows,
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
                "STUDYID": str(results.study.get("id", "")),
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
    return _dataset(
        "ADARD",
        "Analysis Results Dataset",
        "One record per statistic",
        "ADAM OTHER",
        variables,
        rows,
    )


def _dataset(
    name: str,
    label: str,
    structure: str,
    adam_class: str,
    variables: Sequence[Variable],
    rows: Sequence[Mapping[str, Any]],
) -> Dataset:
    frame = pd.DataFrame(rows, columns=[variable.name for variable in variables])
    for variable in variables:
        if variable.kind == "text":
            column = frame[variable.name].astype(object)
            frame[variable.name] = column.where(column.notna(), None)
        else:
            frame[variable.name] = pd.to_numeric(frame[variable.name], errors="coerce").astype(
                float
            )
    keys = [v.name for v in sorted((v for v in variables if v.key), key=lambda v: v.key)]
    frame = frame.sort_values(keys, kind="stable", na_position="first").reset_index(drop=True)
    return Dataset(name, label, structure, adam_class, tuple(variables), frame)


def datasets(results: Results) -> list[Dataset]:
    """The data sets of a study; one without records is left out (ADSL never)."""
    code = ParameterCodes()
    found = [
        adsl(results),
        adimg(results, code),
        adread(results, code),
        adseg(results),
        adpd(results),
        adtte(results),
        adard(results),
    ]
    return [dataset for dataset in found if len(dataset.frame) or dataset.name == "ADSL"]


def check_transport(dataset: Dataset) -> None:
    """Whether names and labels fit XPORT v5.

    Raises
    ------
    TransportRefusal
        Naming every variable that does not fit.

    Examples
    --------
    >>> frame = pd.DataFrame({"TOOLONGNAME": ["x"]})
    >>> check_transport(Dataset("AD", "l", "s", "c", (Variable("TOOLONGNAME", "l"),), frame))
    Traceback (most recent call last):
    corelab.reporting.datasets.TransportRefusal: AD: name TOOLONGNAME is not 1 to 8 of A-Z 0-9 _
    """
    wrong = []
    if not _NAME.fullmatch(dataset.name):
        wrong.append(f"data set name {dataset.name}")
    if len(dataset.label) > MAX_LABEL or not dataset.label.isascii():
        wrong.append(f"data set label '{dataset.label}'")
    for variable in dataset.variables:
        if not _NAME.fullmatch(variable.name):
            wrong.append(f"name {variable.name} is not 1 to 8 of A-Z 0-9 _")
        if len(variable.label) > MAX_LABEL or not variable.label.isascii():
            wrong.append(f"label '{variable.label}' is over {MAX_LABEL} characters or not ASCII")
    if wrong:
        raise TransportRefusal(f"{dataset.name}: " + "; ".join(wrong))


def refused_cells(dataset: Dataset) -> list[dict[str, Any]]:
    r"""Texts that XPORT v5 cannot hold: which record, which variable, and why.

    Examples
    --------
    >>> frame = pd.DataFrame({"A": ["ok", "\ud55c", "x" * 201]})
    >>> found = refused_cells(Dataset("AD", "l", "s", "c", (Variable("A", "a"),), frame))
    >>> [(cell["record"], cell["reason"]) for cell in found]
    [(2, 'not ASCII'), (3, '201 characters, 200 fit')]
    """
    found = []
    for variable in dataset.variables:
        if variable.kind != "text":
            continue
        for number, value in enumerate(dataset.frame[variable.name], start=1):
            if value is None:
                continue
            text = str(value)
            reason = ""
            if not text.isascii():
                reason = "not ASCII"
            elif len(text) > MAX_TEXT:
                reason = f"{len(text)} characters, {MAX_TEXT} fit"
            if reason:
                found.append(
                    {
                        "dataset": dataset.name,
                        "record": number,
                        "variable": variable.name,
                        "reason": reason,
                        "kept_in": f"{dataset.name.lower()}.json",
                    }
                )
    return found


def write_transport(dataset: Dataset, path: str | Path) -> Path:
    """Write XPORT v5 with a fixed time in its headers; refused cells are blank there.

    Raises
    ------
    TransportRefusal
        If names or labels do not fit.
    """
    import pyreadstat

    check_transport(dataset)
    blank = {(cell["record"], cell["variable"]) for cell in refused_cells(dataset)}
    frame = pd.DataFrame(index=dataset.frame.index)
    for variable in dataset.variables:
        column = dataset.frame[variable.name]
        if variable.kind == "text":
            texts = [
                "" if value is None or (number, variable.name) in blank else str(value)
                for number, value in enumerate(column, start=1)
            ]
            frame[variable.name] = pd.Series(texts, index=frame.index, dtype=object)
        else:
            frame[variable.name] = column.astype(float)
    with atomic_path(path) as temporary:
        pyreadstat.write_xport(
            frame,
            str(temporary),
            file_label=dataset.label,
            column_labels={v.name: v.label for v in dataset.variables},
            table_name=dataset.name,
            file_format_version=5,
        )
        data = temporary.read_bytes()
        stamp = epoch().strftime("%d%b%y:%H:%M:%S").upper().encode("ascii")
        # The two header blocks (library and member) end before the first namestr.
        head, tail = data[:1200], data[1200:]
        temporary.write_bytes(_TIME_STAMP.sub(stamp, head) + tail)
    return Path(path)


def _data_type(variable: Variable) -> str:
    return {"text": "string", "integer": "integer", "float": "float"}[variable.kind]


def text_length(dataset: Dataset, variable: Variable) -> int:
    if variable.kind != "text":
        return 8
    lengths = [len(str(v).encode("utf-8")) for v in dataset.frame[variable.name] if v is not None]
    return max([1, *lengths])


def _json_value(value: Any, kind: str) -> Any:
    if kind == "text":
        return None if value is None else str(value)
    if value is None or math.isnan(float(value)):
        return None
    return int(value) if kind == "integer" and float(value).is_integer() else float(value)


def dataset_json(dataset: Dataset, study_id: str) -> dict[str, Any]:
    """A data set as Dataset-JSON 1.1."""
    columns = []
    for variable in dataset.variables:
        column: dict[str, Any] = {
            "itemOID": f"IT.{dataset.name}.{variable.name}",
            "name": variable.name,
            "label": variable.label,
            "dataType": _data_type(variable),
        }
        if variable.kind == "text":
            column["length"] = text_length(dataset, variable)
        if variable.key:
            column["keySequence"] = variable.key
        columns.append(column)
    kinds = [variable.kind for variable in dataset.variables]
    return {
        "datasetJSONCreationDateTime": epoch().strftime("%Y-%m-%dT%H:%M:%S"),
        "datasetJSONVersion": "1.1.0",
        "fileOID": f"{study_id}.{dataset.name}",
        "originator": "corelab",
        "sourceSystem": {"name": "corelab", "version": __version__},
        "studyOID": f"STUDY.{study_id}",
        "metaDataVersionOID": f"MDV.{study_id}",
        "metaDataRef": "define.xml",
        "itemGroupOID": f"IG.{dataset.name}",
        "records": len(dataset.frame),
        "name": dataset.name,
        "label": dataset.label,
        "columns": columns,
        "rows": [
            [_json_value(value, kind) for value, kind in zip(row, kinds, strict=True)]
            for row in dataset.frame.itertuples(index=False, name=None)
        ],
    }
