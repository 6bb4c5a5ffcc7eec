"""Conformance of the data sets: keys, controlled terms, standard labels, references to subjects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import pandas as pd

from corelab.reporting.datasets import CODELISTS, Dataset, refused_cells
from corelab.reporting.results import CONFORMANCE
from corelab.reporting.tabulation import UNIT_TERMS

#: Labels that the standard fixes (ADaMIG 1.3, SDTMIG 3.4).
LABELS = {
    "STUDYID": "Study Identifier",
    "USUBJID": "Unique Subject Identifier",
    "SUBJID": "Subject Identifier for the Study",
    "SITEID": "Study Site Identifier",
    "TRT01P": "Planned Treatment for Period 01",
    "TRTP": "Planned Treatment",
    "ITTFL": "Intent-To-Treat Population Flag",
    "FASFL": "Full Analysis Set Population Flag",
    "SAFFL": "Safety Population Flag",
    "PPROTFL": "Per-Protocol Population Flag",
    "AGE": "Age",
    "AGEU": "Age Units",
    "SEX": "Sex",
    "PARAM": "Parameter",
    "PARAMCD": "Parameter Code",
    "AVISIT": "Analysis Visit",
    "AVISITN": "Analysis Visit (N)",
    "BASE": "Baseline Value",
    "CHG": "Change from Baseline",
    "ABLFL": "Baseline Record Flag",
    "ANL01FL": "Analysis Flag 01",
    "CNSR": "Censor",
    "DOMAIN": "Domain Abbreviation",
    "VISITNUM": "Visit Number",
    "VISIT": "Visit Name",
}
_UNITS = ("AVALU", "NVORRESU", "NVSTRESU", "TRORRESU", "TRSTRESU")


@dataclass(frozen=True)
class Issue:
    """One thing that does not conform, as in :data:`CONFORMANCE`."""

    severity: str
    dataset: str
    variable: str
    rule: str
    value: str
    records: int


def _terms(dataset: Dataset) -> Iterator[Issue]:
    for variable in dataset.variables:
        column = dataset.frame[variable.name].astype(object)
        known = set(CODELISTS.get(variable.codelist, ()))
        if variable.codelist:
            values = column.dropna()
            texts = values.map(lambda v: str(int(v)) if isinstance(v, float) else str(v))
            for value, number in texts[~texts.isin(known)].value_counts().sort_index().items():
                rule = f"term of code list {variable.codelist}"
                yield Issue("error", dataset.name, variable.name, rule, str(value), int(number))
        if variable.name in _UNITS:
            units = column.dropna().map(str)
            known_units = set(UNIT_TERMS) | set(UNIT_TERMS.values())
            odd = units[~units.isin(known_units)].value_counts().sort_index()
            for value, number in odd.items():
                rule = "term of CDISC code list UNIT, else a sponsor's extension"
                yield Issue("note", dataset.name, variable.name, rule, str(value), int(number))


def _structure(dataset: Dataset, subjects: Collection[str]) -> Iterator[Issue]:
    frame = dataset.frame
    keys = [v.name for v in sorted((v for v in dataset.variables if v.key), key=lambda v: v.key)]
    doubled = int(frame.duplicated(keys).sum()) if keys else 0
    if doubled:
        rule = "one record per key"
        yield Issue("error", dataset.name, " ".join(keys), rule, "repeated key", doubled)
    if "USUBJID" in frame:
        strange = frame["USUBJID"][~frame["USUBJID"].isin(subjects)].astype(object)
        for value, number in strange.value_counts().sort_index().items():
            yield Issue(
                "error", dataset.name, "USUBJID", "subject of ADSL", str(value), int(number)
            )
    if {"PARAM", "PARAMCD"} <= set(frame.columns):
        pairs = frame[["PARAMCD", "PARAM"]].drop_duplicates()
        for name in pairs["PARAMCD"][pairs["PARAMCD"].duplicated()].unique():
            rule = "one PARAM per PARAMCD"
            yield Issue("error", dataset.name, "PARAMCD", rule, str(name), 1)
    for variable in dataset.variables:
        wanted = LABELS.get(variable.name)
        if wanted and variable.label != wanted:
            rule = f"label of the standard: {wanted}"
            yield Issue("error", dataset.name, variable.name, rule, variable.label, 1)


def conformance(datasets: Sequence[Dataset]) -> pd.DataFrame:
    """Everything that does not conform, errors first.

    Parameters
    ----------
    datasets
        Analysis data sets and tabulation domains.

    Examples
    --------
    >>> from corelab.reporting.datasets import Variable
    >>> frame = pd.DataFrame({"USUBJID": ["a"], "SEX": ["x"]})
    >>> people = Dataset("ADSL", "l", "s", "c", (Variable("USUBJID",
    ...     "Unique Subject Identifier", key=1), Variable("SEX", "Sex", codelist="SEX")), frame)
    >>> conformance([people])[["severity", "variable", "value"]].values.tolist()
    [['error', 'SEX', 'x']]
    """
    people = next((d for d in datasets if d.name == "ADSL"), None)
    subjects = set(people.frame["USUBJID"]) if people is not None else set()
    return issues_table(chain.from_iterable(dataset_issues(d, subjects) for d in datasets))


def dataset_issues(dataset: Dataset, subjects: Collection[str]) -> list[Issue]:
    """What does not conform in a data set; ``subjects`` are those of ADSL."""
    found = [*_terms(dataset), *_structure(dataset, subjects)]
    cells = Counter((cell.variable, cell.reason) for cell in refused_cells(dataset))
    for (variable, reason), number in sorted(cells.items()):
        rule = "text that SAS transport can hold; whole in Dataset-JSON"
        found.append(Issue("warning", dataset.name, variable, rule, reason, number))
    return found


def document_issues(documents: Mapping[str, Sequence[str]]) -> list[Issue]:
    """Faults of files that describe data sets, of :mod:`corelab.reporting.exchange_checks`."""
    rule = "structure of the standard, and references that resolve"
    return [
        Issue("error", name, "", rule, fault, 1)
        for name, faults in documents.items()
        for fault in faults
    ]


def issues_table(found: Iterable[Issue]) -> pd.DataFrame:
    """Issues as a table, errors first."""
    frame = pd.DataFrame([asdict(issue) for issue in found], columns=list(CONFORMANCE))
    rank = frame["severity"].map({"error": 0, "warning": 1, "note": 2})
    return (
        frame.assign(_rank=rank)
        .sort_values(["_rank", "dataset", "variable", "value"], kind="stable")
        .drop(columns="_rank")
        .reset_index(drop=True)
    )
