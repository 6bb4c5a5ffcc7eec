"""Analysis data sets as ADaM has them: SAS transport (XPORT v5), Dataset-JSON 1.1, Define-XML 2.1.

XPORT v5 can hold names of 8 characters, labels of 40 and ASCII texts of 200: what does not fit is
refused there, listed, and carried whole in Dataset-JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from corelab import __version__
from corelab.provenance.products import atomic_path, json_text, plain
from corelab.reporting import page
from corelab.reporting.documents import epoch
from corelab.reporting.results import Results
from corelab.study.naming import bids_label
from corelab.terms.endpoints import ENDPOINTS

MAX_NAME, MAX_LABEL, MAX_TEXT = 8, 40, 200
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,7}")
_TIME_STAMP = re.compile(rb"\d{2}[A-Z]{3}\d{2}:\d{2}:\d{2}:\d{2}")

CODELISTS: dict[str, dict[str, str]] = {
    "NY": {"Y": "Yes", "N": "No"},
    "SEX": {"F": "Female", "M": "Male", "U": "Unknown"},
    "STATUS": {
        "ok": "Value exists",
        "missing": "Not acquired",
        "failed": "Could not be computed from the file",
        "excluded": "Left out by decision",
        "not_computable": "Not defined for these data",
    },
    "ROLE": {"READER": "Human reader", "SOFTWARE": "Other software"},
    "CNSR": {"0": "Event", "1": "Censored"},
    "RISKGRP": {"HIGH": "High risk", "LOW": "Low risk"},
    "CRITERIA": {"RANO": "RANO", "RECIST": "RECIST", "OTHER": "Another criterion"},
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
class Description:
    """A data set without its records."""

    name: str
    label: str
    structure: str
    adam_class: str
    variables: tuple[Variable, ...]

    @property
    def tabulation(self) -> bool:
        """Whether it is an SDTM-like domain (a name of two letters)."""
        return len(self.name) == 2


@dataclass(frozen=True)
class Dataset(Description):
    """A data set: variables and their records.

    Columns of texts may be categorical; what is missing is None or NaN.
    """

    frame: pd.DataFrame


@dataclass(frozen=True)
class Written(Description):
    """A data set that was written; its records, of which there can be millions, are not held.

    ``lengths`` has the bytes of the longest text of each variable, 8 for a number.
    """

    records: int
    lengths: Mapping[str, int]


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
            code = ENDPOINTS[name].adam if name in ENDPOINTS else ""
            stem = re.sub(r"[^A-Z0-9]", "", name.upper()) or "P"
            stem = stem if stem[0].isalpha() else f"P{stem}"
            number = 0
            while not code or code in self.taken.values():
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


def ascii_label(text: str) -> str:
    """A label as SAS transport files take it: ASCII, at most 40 characters, never empty.

    Examples
    --------
    >>> ascii_label("Größe, cm"), ascii_label("")
    ('Gr__e, cm', 'Variable')
    """
    kept = text.encode("ascii", "replace").decode("ascii").replace("?", "_")
    return kept[:MAX_LABEL].strip() or "Variable"


def unique_subject(results: Results, participant_id: Any) -> str:
    """USUBJID: a key has to be ASCII, so what is not becomes its reversible BIDS form."""
    text = str(participant_id)
    safe = text if text.isascii() and len(text) <= 100 else bids_label(text)
    return f"{results.study.id}-{safe}"


def unique_subjects(results: Results, people: Iterable[Any]) -> list[str]:
    """USUBJID of each record; those of one subject are one object."""
    ids = list(people)
    known = {one: unique_subject(results, one) for one in set(ids)}
    return [known[one] for one in ids]


def with_records(dataset: Dataset) -> Iterator[Dataset]:
    """The data set, if it has records; it is not held when the next one is made."""
    if len(dataset.frame):
        yield dataset


def number_or_nan(value: Any) -> float:
    """A cell as a number, NaN where it holds none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


#: A variable, or the name of one in ``variables.tsv``, with its values: a Series, a list, or one
#: value for every record.
Column = tuple[str | Variable, object]


@cache
def _variables() -> dict[tuple[str, str], Variable]:
    """Variables of all data sets, by data set and name."""
    found = {}
    for row in page.asset_rows("variables"):
        dataset, name, label, kind, origin, comment, codelist, key = row.values()
        more = (kind, origin, comment, codelist, int(key or 0))
        found[dataset, name] = Variable(name, label, *more)
    return found


def make_dataset(name: str, index: pd.Index, columns: Sequence[Column]) -> Dataset:
    """A data set of typed columns, sorted by its key.

    Parameters
    ----------
    name
        Of a data set in ``datasets.tsv``.
    index
        Of the records.
    columns
        In order; a name is looked up among the variables of the data set.
    """
    variables = tuple(_variables()[name, v] if isinstance(v, str) else v for v, _ in columns)
    values: dict[str, pd.Series] = {}
    for variable, (_, cells) in zip(variables, columns, strict=True):
        column = pd.Series(cells, index)
        if variable.kind == "text":
            # Texts repeat: of each record a code is held, not a reference. Identifiers do not.
            texts = column.astype(object)
            coded = texts.astype("category")
            few = 2 * len(coded.cat.categories) < len(coded)
            values[variable.name] = coded if few else texts
        else:
            values[variable.name] = pd.to_numeric(column, errors="coerce").astype(float)
    frame = pd.DataFrame(values, index=index, copy=False)
    keys = [v.name for v in sorted((v for v in variables if v.key), key=lambda v: v.key)]
    frame = frame.sort_values(keys, kind="stable", na_position="first").reset_index(drop=True)
    (row,) = (row for row in page.asset_rows("datasets") if row["dataset"] == name)
    return Dataset(name, row["label"], row["structure"], row["class"], variables, frame)


def _check_transport(dataset: Dataset) -> None:
    """Whether names and labels fit XPORT v5.

    Raises
    ------
    TransportRefusal
        Naming every variable that does not fit.

    Examples
    --------
    >>> frame = pd.DataFrame({"TOOLONGNAME": ["x"]})
    >>> _check_transport(Dataset("AD", "l", "s", "c", (Variable("TOOLONGNAME", "l"),), frame))
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


class RefusedCell(NamedTuple):
    """A text that XPORT v5 cannot hold, why, and the file that has it; records count from 1."""

    dataset: str
    record: int
    variable: str
    reason: str
    kept_in: str


def _refusal(text: str) -> str:
    """Why XPORT v5 cannot hold a text; empty if it can."""
    if not text.isascii():
        return "not ASCII"
    return f"{len(text)} characters, {MAX_TEXT} fit" if len(text) > MAX_TEXT else ""


def refused_cells(dataset: Dataset) -> list[RefusedCell]:
    r"""Texts that XPORT v5 cannot hold: which record, which variable, and why.

    Examples
    --------
    >>> frame = pd.DataFrame({"A": ["ok", "\ud55c", "x" * 201]})
    >>> found = refused_cells(Dataset("AD", "l", "s", "c", (Variable("A", "a"),), frame))
    >>> [(cell.record, cell.reason) for cell in found]
    [(2, 'not ASCII'), (3, '201 characters, 200 fit')]
    """
    found = []
    for variable in dataset.variables:
        if variable.kind != "text":
            continue
        column = dataset.frame[variable.name]
        # Texts repeat: each is looked at once, the records only where one is refused.
        reasons = {value: _refusal(str(value)) for value in column.dropna().unique()}
        if not any(reasons.values()):
            continue
        kept_in = f"{dataset.name.lower()}.json"
        found += [
            RefusedCell(dataset.name, number, variable.name, reason, kept_in)
            for number, value in enumerate(column, start=1)
            if (reason := reasons.get(value, ""))
        ]
    return found


def write_transport(dataset: Dataset, path: str | Path) -> Path:
    """Write XPORT v5 with a fixed time in its headers; refused cells are blank there.

    Raises
    ------
    TransportRefusal
        If names or labels do not fit.
    """
    import pyreadstat

    _check_transport(dataset)
    blank = {(cell.record, cell.variable) for cell in refused_cells(dataset)}
    columns: dict[str, pd.Series] = {}
    for variable in dataset.variables:
        column = dataset.frame[variable.name]
        if variable.kind == "text":
            texts = [
                "" if gone or (number, variable.name) in blank else str(value)
                for number, (value, gone) in enumerate(zip(column, column.isna(), strict=True), 1)
            ]
            columns[variable.name] = pd.Series(texts, column.index, dtype=object)
        else:
            columns[variable.name] = column
    frame = pd.DataFrame(columns, index=dataset.frame.index, copy=False)
    with atomic_path(path) as temporary:
        pyreadstat.write_xport(
            frame,
            str(temporary),
            file_label=dataset.label,
            column_labels={v.name: v.label for v in dataset.variables},
            table_name=dataset.name,
            file_format_version=5,
        )
        stamp = epoch().strftime("%d%b%y:%H:%M:%S").upper().encode("ascii")
        with open(temporary, "r+b") as file:
            # The two header blocks (library and member) end before the first namestr.
            head = file.read(1200)
            file.seek(0)
            file.write(_TIME_STAMP.sub(stamp, head))
    return Path(path)


def _data_type(variable: Variable) -> str:
    return {"text": "string", "integer": "integer", "float": "float"}[variable.kind]


def text_length(dataset: Dataset, variable: Variable) -> int:
    """Bytes of the longest text of a variable, at least 1; 8 for a number (SAS).

    Examples
    --------
    >>> frame = pd.DataFrame({"A": ["ab", "\u03ba"], "N": [1.0, 2.0]})
    >>> given = (Variable("A", "a"), Variable("N", "n", "float"))
    >>> made = Dataset("AD", "l", "s", "c", given, frame)
    >>> [text_length(made, variable) for variable in made.variables]
    [2, 8]
    """
    if variable.kind != "text":
        return 8
    texts = map(str, dataset.frame[variable.name].dropna().unique())
    return max([1, *(len(text.encode("utf-8")) for text in texts)])


def _encoded(cell: Any) -> str:
    return json.dumps(plain(cell), ensure_ascii=False, allow_nan=False)


def _json_value(value: Any, kind: str) -> Any:
    if value is None or value != value:
        return None
    if kind == "text":
        return str(value)
    return int(value) if kind == "integer" and float(value).is_integer() else float(value)


def write_dataset_json(dataset: Dataset, study_id: str, path: str | Path) -> Path:
    """Write a data set as Dataset-JSON 1.1, record by record."""
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
    content = {
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
        "rows": [],
    }
    before, empty, after = json_text(content).partition('"rows": []')
    records = dataset.frame.itertuples(index=False, name=None)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(before + empty[:-1])
        for number, record in enumerate(records):
            cells = [_json_value(value, kind) for value, kind in zip(record, kinds, strict=True)]
            lines = ",\n      ".join(map(_encoded, cells))
            file.write(f"{',' * bool(number)}\n    [\n      {lines}\n    ]")
        file.write("\n  " * bool(len(dataset.frame)) + "]" + after)
    return Path(path)
