"""Imaging as SDTM tabulates it: PR (procedures), NV (nervous system) and TR (tumour results).

SDTM's MI is microscopic findings, so imaging findings of the brain stand in NV, those of a tumour
in TR, and the scans themselves in PR. The domains are SDTM-like: they hold what the pipeline
knows, and no date of birth, visit day or investigator that it was never given.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from corelab.reporting.adam import measures_tumour
from corelab.reporting.datasets import (
    Dataset,
    ParameterCodes,
    Variable,
    make_dataset,
    number_or_nan,
    unique_subject,
)
from corelab.reporting.results import Results
from corelab.reporting.vocabulary import endpoint_words
from corelab.terms.kinds import kind_words

#: Unit as Corelab writes it -> term of CDISC's code list UNIT; others are extensions.
UNIT_TERMS = {"mL": "mL", "percent": "%", "%": "%", "mm": "mm", "s": "s", "min": "min", "h": "h"}
_MODALITY = {"ncct": "CT SCAN", "ctp": "PERFUSION CT", "dsc": "PERFUSION MRI", "aif": "PERFUSION"}


def unit_term(unit: Any) -> str | None:
    """Term of the code list UNIT, or the unit as it is.

    Examples
    --------
    >>> unit_term("percent"), unit_term("ratio"), unit_term(None)
    ('%', 'ratio', None)
    """
    if unit is None or (isinstance(unit, float) and math.isnan(unit)):
        return None
    return UNIT_TERMS.get(str(unit), str(unit))


def _visit_numbers(results: Results) -> dict[str, int]:
    return {visit: number for number, visit in enumerate(results.tables.visit_order, start=1)}


def _numbered(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Sequence numbers within each subject, as every SDTM domain has them."""
    counters: dict[str, int] = {}
    for row in rows:
        counters[row["USUBJID"]] = counters.get(row["USUBJID"], 0) + 1
        row[name] = counters[row["USUBJID"]]
    return rows


def pr(results: Results) -> Dataset:
    """Procedures: one record per scan that was read."""
    order = _visit_numbers(results)
    rows: list[dict[str, Any]] = []
    for visit in results.visits:
        for scan in visit.scans:
            kind = scan.kind
            if scan.label is not None:
                continue
            rows.append(
                {
                    "STUDYID": results.study.id,
                    "DOMAIN": "PR",
                    "USUBJID": unique_subject(results, visit.participant_id),
                    "PRREFID": scan.scan_id,
                    "PRTRT": _MODALITY.get(kind, "MRI"),
                    "PRDECOD": kind_words(kind),
                    "PRCAT": "IMAGING",
                    "PRSTAT": None if scan.status == "ok" else "NOT DONE",
                    "PRREASND": None if scan.status == "ok" else scan.reason,
                    "VISITNUM": order.get(visit.visit),
                    "VISIT": visit.visit,
                    "PRDTC": scan.metadata.get("acquired_at"),
                }
            )
    variables = [
        Variable("STUDYID", "Study Identifier"),
        Variable("DOMAIN", "Domain Abbreviation"),
        Variable("USUBJID", "Unique Subject Identifier", key=1),
        Variable("PRSEQ", "Sequence Number", "integer", "Derived", key=2),
        Variable("PRREFID", "Reference ID", comment="scan_id of the stage records"),
        Variable("PRTRT", "Reported Name of Procedure"),
        Variable("PRDECOD", "Standardized Procedure Name"),
        Variable("PRCAT", "Category"),
        Variable("PRSTAT", "Completion Status"),
        Variable("PRREASND", "Reason Not Done"),
        Variable("VISITNUM", "Visit Number", "integer"),
        Variable("VISIT", "Visit Name"),
        Variable("PRDTC", "Start Date/Time of Procedure", origin="Predecessor"),
    ]
    label, structure = "Procedures", "One record per scan"
    return make_dataset(
        "PR", label, structure, "INTERVENTIONS", variables, pd.DataFrame(_numbered(rows, "PRSEQ"))
    )


def _findings(results: Results, domain: str, tumour: bool) -> Dataset:
    order = _visit_numbers(results)
    code = ParameterCodes()
    rows: list[dict[str, Any]] = []
    for row in results.measurements.itertuples():
        endpoint = str(row.endpoint)
        if measures_tumour(endpoint) != tumour:
            continue
        known = row.status == "ok"
        unit = unit_term(row.unit)
        rows.append(
            {
                "STUDYID": results.study.id,
                "DOMAIN": domain,
                "USUBJID": unique_subject(results, row.participant_id),
                f"{domain}TESTCD": code(endpoint),
                f"{domain}TEST": endpoint_words(endpoint)[:40],
                f"{domain}ORRES": f"{row.value:.15g}" if known else None,
                f"{domain}ORRESU": unit if known else None,
                f"{domain}STRESN": number_or_nan(row.value) if known else math.nan,
                f"{domain}STRESU": unit if known else None,
                f"{domain}STAT": None if known else "NOT DONE",
                f"{domain}REASND": None if known else row.reason,
                f"{domain}LOC": None if row.region in (None, "all") else row.region,
                f"{domain}EVAL": "INDEPENDENT ASSESSOR",
                f"{domain}EVALID": row.source,
                f"{domain}REPNUM": number_or_nan(row.repeat),
                "VISITNUM": order.get(str(row.visit)),
                "VISIT": row.visit,
            }
        )
    texts = (
        ("TESTCD", "Short Name of Test"),
        ("TEST", "Name of Test"),
        ("ORRES", "Result or Finding in Original Units"),
        ("ORRESU", "Original Units"),
    )
    variables = [
        Variable("STUDYID", "Study Identifier"),
        Variable("DOMAIN", "Domain Abbreviation"),
        Variable("USUBJID", "Unique Subject Identifier", key=1),
        Variable(f"{domain}SEQ", "Sequence Number", "integer", "Derived", key=2),
        *(Variable(f"{domain}{name}", label) for name, label in texts),
        Variable(f"{domain}STRESN", "Numeric Result/Finding in Standard Units", "float"),
        Variable(f"{domain}STRESU", "Standard Units"),
        Variable(f"{domain}STAT", "Completion Status"),
        Variable(f"{domain}REASND", "Reason Not Done"),
        Variable(f"{domain}LOC", "Location", comment="Atlas region"),
        Variable(f"{domain}EVAL", "Evaluator"),
        Variable(f"{domain}EVALID", "Evaluator Identifier", comment="Pipeline, reader or software"),
        Variable(f"{domain}REPNUM", "Repetition Number", "integer"),
        Variable("VISITNUM", "Visit Number", "integer"),
        Variable("VISIT", "Visit Name"),
    ]
    label = "Tumor/Lesion Results" if tumour else "Nervous System Findings"
    structure = "One record per finding, visit, evaluator and repetition"
    rows = _numbered(rows, f"{domain}SEQ")
    return make_dataset(domain, label, structure, "FINDINGS", variables, pd.DataFrame(rows))


def tabulations(results: Results) -> list[Dataset]:
    """The domains of a study; one without records is left out."""
    found = [pr(results), _findings(results, "NV", False), _findings(results, "TR", True)]
    return [dataset for dataset in found if len(dataset.frame)]
