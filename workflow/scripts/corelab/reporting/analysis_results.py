"""The analysis-results table: one row per statistic, from which everything printed is rendered.

Pages, PDF, RTF and HTML tables, the ADaM results data set, the ARS file and the certificate all
read these rows: no number is printed that is not one of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from corelab.reporting.descriptive import descriptions, is_variant
from corelab.reporting.numbers import estimate, interval, is_number
from corelab.reporting.results import Results

ANALYSIS_RESULTS = {
    "result_id": "Identifier of the statistic, made of its key: stable over runs",
    "analysis_id": "Analysis of the plan; 'description' for plain descriptions",
    "objective": "primary, secondary, exploratory or description",
    "population": "Population expression",
    "endpoint": "Imaging endpoint",
    "visit": "Visit, 'all' where visits are pooled",
    "participant_id": "Subject for a per-subject row, else 'all'",
    "group": "Pair, level or term",
    "statistic": "Name of the statistic",
    "value": "At full precision",
    "ci_low": "Lower confidence limit",
    "ci_high": "Upper confidence limit",
    "ci_level": "Confidence level",
    "p_value": "p value",
    "n": "Number behind it",
    "shown": "As printed",
    "shown_interval": "Interval as printed",
    "method": "Definition",
    "second_value": "By an independent program",
    "second_method": "That program",
    "note": "Reason or warning",
    "table": "File that holds the row",
    "table_number": "Number of the table in the report",
}
#: Number of the table of the endpoints by other cut-offs and engines.
VARIANTS_NUMBER = "14.2.1.1"
_KEY = (
    "analysis_id",
    "population",
    "endpoint",
    "visit",
    "participant_id",
    "group",
    "statistic",
    "method",
)
_DESCRIBED = ("n", "mean", "sd", "median", "q1", "q3", "low", "high")
_NAMES = {"low": "minimum", "high": "maximum", "q1": "quartile_1", "q3": "quartile_3"}


def result_id(row: Mapping[Any, Any]) -> str:
    """Identifier of a statistic.

    Examples
    --------
    >>> result_id({"analysis_id": "a", "statistic": "bias", "group": "x|y"})
    's-9d484611cc54'
    """
    key = "\x1f".join("" if row.get(k) is None else str(row.get(k)) for k in _KEY)
    return "s-" + hashlib.sha256(key.encode()).hexdigest()[:12]


def _described(results: Results) -> list[dict[str, Any]]:
    rows = []
    for d in results.once(descriptions):
        for name in _DESCRIBED:
            value = getattr(d, name)
            rows.append(
                {
                    "analysis_id": "description",
                    "objective": "description",
                    "population": "all",
                    "endpoint": d.endpoint,
                    "visit": d.visit,
                    "participant_id": "all",
                    "group": f"{d.source}|{d.group}",
                    "statistic": _NAMES.get(name, name),
                    "value": float(value),
                    "n": float(d.n),
                    "shown": estimate(value),
                    "shown_interval": "",
                    "method": "quartiles by linear interpolation; SD with n - 1",
                    "table": "endpoints/measurements.tsv",
                    "table_number": VARIANTS_NUMBER if is_variant(d.source) else "14.2.1",
                    "note": "" if is_number(value) else "not_computable: too few values",
                }
            )
    return rows


def analysis_results(results: Results, numbers: Mapping[str, str]) -> pd.DataFrame:
    """Every statistic in the columns of :data:`ANALYSIS_RESULTS`, with its table's number."""
    rows = _described(results)
    for row in results.all_statistics.to_dict("records"):
        name = str(row["analysis_id"])
        entry = results.analysis(name)
        rows.append(
            {
                **{key: row.get(key) for key in _KEY},
                "objective": entry.objective or "planned",
                "value": row["estimate"],
                **{k: row[k] for k in ("ci_low", "ci_high", "ci_level", "p_value", "n", "note")},
                "shown": estimate(row["estimate"], row["ci_low"], row["ci_high"]),
                "shown_interval": interval(row["ci_low"], row["ci_high"]),
                "second_value": row["second_estimate"],
                "second_method": row["second_method"],
                "table": f"statistics/{row['table']}.tsv",
                "table_number": numbers.get(name, ""),
            }
        )
    frame = pd.DataFrame(rows, columns=[c for c in ANALYSIS_RESULTS if c != "result_id"])
    frame.insert(0, "result_id", [result_id(row) for row in frame.to_dict("records")])
    return frame
