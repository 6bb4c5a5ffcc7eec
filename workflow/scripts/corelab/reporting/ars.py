"""Analysis results in the shape of CDISC's Analysis Results Standard (ARS 1.0), as JSON.

A reporting event lists the analyses with their method, population and data, and under each its
results: raw value, formatted value, operation and groups. Names follow the standard's logical
model; what it has no class for (the second computation) stands as an extension with our name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.measurement.selection import as_list
from corelab.provenance.products import write_json
from corelab.reporting.analysis_view import analysis_title
from corelab.reporting.documents import DataTable, program
from corelab.reporting.methods import analysis_sentence, estimand_rows
from corelab.reporting.results import Results
from corelab.reporting.table_files import file_stem
from corelab.settings.analyses import SPECS
from corelab.settings.analyses.base import AnalysisSpec
from corelab.terms.statistics import statistic

#: Rows that belong to no analysis of the plan.
_NO_ANALYSIS = AnalysisSpec.unchecked(id="", type="")
#: What rows of no analysis are: plain descriptions.
_DESCRIPTION = "description"
#: Columns whose values are the groups of a result.
_GROUPINGS = ("group", "endpoint", "visit", "participant_id")
#: Purpose of an objective, in the standard's terms.
PURPOSES = {
    "primary": "PRIMARY OUTCOME MEASURE",
    "secondary": "SECONDARY OUTCOME MEASURE",
    "exploratory": "EXPLORATORY OUTCOME MEASURE",
}


def _id(prefix: str, text: str) -> str:
    return f"{prefix}_" + re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").upper()


def _method(kind: str, statistics: list[str]) -> dict[str, Any]:
    return {
        "id": _id("MTH", kind),
        "name": SPECS[kind].kind.title if kind in SPECS else kind or "description",
        "operations": [
            {
                "id": _id(f"OP_{kind}", name),
                "name": name,
                "label": statistic(name).words,
                "order": order,
            }
            for order, name in enumerate(statistics, start=1)
        ],
    }


def _number(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else repr(float(value))


def _result(row: Mapping[Any, Any], kind: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        "operationId": _id(f"OP_{kind}", str(row["statistic"])),
        "rawValue": _number(row["value"]),
        "formattedValue": row["shown"],
        "resultGroups": [
            {"groupingId": _id("GRP", name), "groupValue": str(row[name])}
            for name in _GROUPINGS
            if row[name] not in (None, "", "all")
        ],
        "corelab": {
            "resultId": row["result_id"],
            "ciLow": _number(row["ci_low"]),
            "ciHigh": _number(row["ci_high"]),
            "pValue": _number(row["p_value"]),
            "n": _number(row["n"]),
            "definition": row["method"] or None,
            "secondValue": _number(row["second_value"]),
            "secondMethod": row["second_method"] or None,
            "note": row["note"] or None,
        },
    }
    return content


#: Folder of the tables, as seen from the file of the event (submission/datasets/ars.json).
_TABLES = "../../report/tables"


def _output(number: str, title: str) -> dict[str, Any]:
    """The numbered table of an analysis as an output: its files and its display."""
    stem = file_stem(DataTable(number, title, (), ()))
    return {
        "id": _id("OUT", number),
        "name": f"Table {number}",
        "version": 1,
        "fileSpecifications": [
            {
                "name": f"{stem}.{suffix}",
                "fileType": {"controlledTerm": suffix},
                "location": f"{_TABLES}/{stem}.{suffix}",
            }
            for suffix in ("rtf", "html")
        ],
        "displays": [
            {
                "order": 1,
                "display": {
                    "id": _id("DSP", number),
                    "name": f"Table {number}",
                    "version": 1,
                    "displayTitle": title,
                },
            }
        ],
    }


def _analysis(
    name: str, own: pd.DataFrame, entry: AnalysisSpec, datasets: list[str], analysis_set: str
) -> dict[str, Any]:
    """One analysis with its results; ``own`` has its rows of the analysis results."""
    kind = entry.type or _DESCRIPTION
    return {
        "id": _id("AN", name),
        "name": name,
        "label": analysis_sentence(entry) if entry.type else "Plain description",
        "version": 1,
        "reason": "SPECIFIED IN SAP" if entry.type else "SPONSOR DEFINED",
        "purpose": PURPOSES.get(str(entry.objective), "SPONSOR DEFINED"),
        "analysisSetId": analysis_set,
        "dataset": datasets[0] if datasets else None,
        "corelabDatasets": datasets,
        "corelabEndpoints": as_list(entry.endpoint),
        "methodId": _id("MTH", kind),
        "corelabEstimand": [
            {"attribute": word, "text": text} for word, text in estimand_rows(entry)
        ],
        "corelabOutputs": [_id("OUT", number) for number in _numbers(own)],
        "corelabSource": sorted(set(own["table"].dropna())),
        "results": [_result(row, kind) for row in own.to_dict("records")],
    }


def _numbers(own: pd.DataFrame) -> list[str]:
    """Numbers of the tables that print the rows of an analysis."""
    return [str(number) for number in dict.fromkeys(own["table_number"].dropna())]


def _contents(analyses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The list of contents: each analysis with its outputs."""
    items = [
        {
            "name": item["name"],
            "level": 1,
            "order": order,
            "analysisId": item["id"],
            "sublist": {
                "listItems": [
                    {"name": output, "level": 2, "order": place, "outputId": output}
                    for place, output in enumerate(item["corelabOutputs"], start=1)
                ]
            },
        }
        for order, item in enumerate(analyses, start=1)
    ]
    return {"name": "Analyses", "contentsList": {"listItems": items}}


def write_event(
    results: Results, frame: pd.DataFrame, path: str | Path, there: Collection[str] | None = None
) -> Path:
    """Write the reporting event of a study.

    Parameters
    ----------
    results, frame
        The study, and :func:`corelab.reporting.analysis_results.analysis_results`.
    path, there
        ``ars.json``, and names of the data sets that stand beside it; None: all of them.
    """
    frame = frame.astype(object).where(frame.notna(), None)
    study = results.study.id
    entries = {entry.id: entry for entry in results.analyses}
    methods: dict[str, list[str]] = {}
    populations: dict[str, str] = {"all": "ANS_ALL"}
    analyses: list[dict[str, Any]] = []
    outputs: dict[str, dict[str, Any]] = {}
    for name, own in frame.groupby("analysis_id", sort=False):
        entry = entries.get(str(name), _NO_ANALYSIS)
        known = methods.setdefault(entry.type or _DESCRIPTION, [])
        known += [s for s in dict.fromkeys(own["statistic"]) if s not in known]
        expression = str(entry.population or "all")
        population = populations.setdefault(expression, _id("ANS", expression))
        datasets = [dataset for dataset in entry.kind.datasets if there is None or dataset in there]
        title = analysis_title(entry) if entry.type else "Endpoints by visit and arm"
        for number in _numbers(own):
            outputs.setdefault(number, _output(number, title))
        analyses.append(_analysis(str(name), own, entry, datasets, population))
    event = {
        "id": _id("RE", study),
        "name": f"Imaging report of {study}",
        "version": 1,
        "description": f"Plan fingerprint {results.fingerprint}; {program()}",
        "mainListOfContents": _contents(analyses),
        "analysisSets": [
            {"id": identifier, "name": expression, "level": 1, "order": order}
            for order, (expression, identifier) in enumerate(populations.items(), start=1)
        ],
        "analysisGroupings": [
            {"id": _id("GRP", name), "name": name, "dataDriven": True} for name in _GROUPINGS
        ],
        "methods": [_method(kind, statistics) for kind, statistics in methods.items()],
        "analyses": analyses,
        "outputs": list(outputs.values()),
    }
    return write_json(event, path)
