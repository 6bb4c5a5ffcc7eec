"""Imaging as SDTM tabulates it: PR (procedures), NV (nervous system) and TR (tumour results).

SDTM's MI is microscopic findings, so imaging findings of the brain stand in NV, those of a tumour
in TR, and the scans themselves in PR. The domains are SDTM-like: they hold what the pipeline
knows, and no date of birth, visit day or investigator that it was never given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from corelab.reporting.adam import measures_tumour
from corelab.reporting.datasets import (
    Column,
    Dataset,
    ParameterCodes,
    make_dataset,
    number_or_nan,
    unique_subjects,
    with_records,
)
from corelab.reporting.results import Results
from corelab.terms.kinds import kind_words
from corelab.terms.words import endpoint_words

#: Unit as Corelab writes it -> term of CDISC's code list UNIT; others are extensions.
UNIT_TERMS = {"mL": "mL", "percent": "%", "%": "%", "mm": "mm", "s": "s", "min": "min", "h": "h"}
_MODALITY = {"ncct": "CT SCAN", "ctp": "PERFUSION CT", "dsc": "PERFUSION MRI", "aif": "PERFUSION"}


def _unit_term(unit: Any) -> str | None:
    """Term of the code list UNIT, or the unit as it is."""
    if unit is None or (isinstance(unit, float) and math.isnan(unit)):
        return None
    return UNIT_TERMS.get(str(unit), str(unit))


def _head(results: Results, domain: str, people: Sequence[object]) -> list[Column]:
    """Study, domain, subject, and the number of the record within the subject."""
    subjects = pd.Series(unique_subjects(results, people), dtype=object)
    numbers = subjects.groupby(subjects).cumcount() + 1
    head = [("STUDYID", results.study.id), ("DOMAIN", domain)]
    return [*head, ("USUBJID", list(subjects)), (f"{domain}SEQ", list(numbers))]


def _visits(results: Results, visits: Iterable[object]) -> list[Column]:
    """Number of the visit, from 1, and its name."""
    order = {visit: number for number, visit in enumerate(results.tables.visit_order, start=1)}
    names = list(visits)
    return [("VISITNUM", [order.get(str(name)) for name in names]), ("VISIT", names)]


def pr(results: Results) -> Dataset:
    """Procedures: one record per scan that was read."""
    found = [
        (visit, scan) for visit in results.visits for scan in visit.scans if scan.label is None
    ]
    scans, done = [scan for _, scan in found], [scan.status == "ok" for _, scan in found]
    reasons = [None if ok else scan.reason for ok, scan in zip(done, scans, strict=True)]
    return make_dataset(
        "PR",
        pd.RangeIndex(len(scans)),
        [
            *_head(results, "PR", [visit.participant_id for visit, _ in found]),
            ("PRREFID", [scan.scan_id for scan in scans]),
            ("PRTRT", [_MODALITY.get(scan.kind, "MRI") for scan in scans]),
            ("PRDECOD", [kind_words(scan.kind) for scan in scans]),
            ("PRCAT", "IMAGING"),
            ("PRSTAT", [None if ok else "NOT DONE" for ok in done]),
            ("PRREASND", reasons),
            *_visits(results, (visit.visit for visit, _ in found)),
            ("PRDTC", [scan.metadata.get("acquired_at") for scan in scans]),
        ],
    )


def _findings(results: Results, domain: str, tumour: bool) -> Dataset:
    code, rows = ParameterCodes(), results.measurements
    endpoints = rows["endpoint"].map(str)
    rows = rows[endpoints.map(measures_tumour).astype(bool) == tumour]
    endpoints, known = endpoints[rows.index], rows["status"] == "ok"
    units = pd.Series([_unit_term(unit) for unit in rows["unit"]], rows.index, dtype=object)
    values = rows["value"].where(known)
    found: list[tuple[str, object]] = [
        ("TESTCD", [code(name) for name in endpoints]),
        ("TEST", [*endpoints.map({e: endpoint_words(e)[:40] for e in set(endpoints)})]),
        (
            "ORRES",
            [f"{v:.15g}" if ok else None for v, ok in zip(values, known, strict=True)],
        ),
        ("ORRESU", units.where(known)),
        ("STRESN", values),
        ("STRESU", units.where(known)),
        ("STAT", [None if ok else "NOT DONE" for ok in known]),
        ("REASND", rows["reason"].where(~known)),
        ("LOC", rows["region"].where(rows["region"] != "all")),
        ("EVAL", "INDEPENDENT ASSESSOR"),
        ("EVALID", rows["source"]),
        ("REPNUM", rows["repeat"].map(number_or_nan)),
    ]
    return make_dataset(
        domain,
        rows.index,
        [
            *_head(results, domain, list(rows["participant_id"])),
            *((f"{domain}{name}", cells) for name, cells in found),
            *_visits(results, rows["visit"]),
        ],
    )


def tabulations(results: Results) -> Iterator[Dataset]:
    """The domains of a study, made when it is their turn; one without records is left out."""
    yield from with_records(pr(results))
    yield from with_records(_findings(results, "NV", False))
    yield from with_records(_findings(results, "TR", True))
