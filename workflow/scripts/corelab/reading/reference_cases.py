"""Reference cases: mixed into the readers' sequence, their truth known, with limits to pass.

After the CDE guideline on independent imaging review: test images are seeded among the cases so
that a reader who drifts is noticed, trained again or replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.reading.adjudication import is_number
from corelab.reading.presentation import Case
from corelab.reading.rates import rate_row
from corelab.study.checks import VOLUME_UNITS_ML
from corelab.study.model import Study
from corelab.terms.endpoints import unit_of

REFERENCE_VISIT = "reference"
REFERENCE_READS = {
    "reference_id": "Reference case",
    "endpoint": "What was read",
    "reader": "Reader",
    "value": "As the reader gave it",
    "unit": "Unit",
    "truth": "As the sheet of reference cases says, in the same unit",
    "difference": "value - truth, n/a for grades",
    "tolerance": "Largest difference that passes, 0 where none is given",
    "passed": "yes or no",
    "part": "Consecutive part of the reader's sequence, from 1",
    "repeat": "Number of the read, from 1",
}
PERFORMANCE = {
    "endpoint": "Name of the endpoint, or all",
    "statistic": "reference_pass_rate",
    "group": "reader=<id>, or reader=<id>|part=<number>",
    "count": "Reference cases passed",
    "n": "Reference cases read",
    "estimate": "count / n",
    "ci_low": "Lower confidence limit",
    "ci_high": "Upper confidence limit",
    "ci_level": "Confidence level",
    "method": "Interval method",
    "limit": "Limit of the charter",
    "verdict": "within or outside the charter's limit; n/a without a limit",
    "interval_verdict": "within or outside if the whole interval is, else not decided",
    "action": "none, or retrain where the rate is outside the charter's limit",
}


def reference_cases(study: Study) -> list[Case]:
    """The reference cases as they are shown; none without a sheet."""
    sheet = study.sheets.get("reference_cases")
    names = [] if sheet is None else sorted(set(sheet["reference_id"].dropna()))
    return [Case(name, REFERENCE_VISIT, 1, True) for name in names]


def reference_images(study: Study) -> dict[str, list[tuple[str, str]]]:
    """reference_id -> kinds and absolute paths of its images, each once."""
    sheet = study.sheets.get("reference_cases")
    if sheet is None or not {"path", "kind"} <= set(sheet.columns):
        return {}
    beside = study.sheet_paths["reference_cases"].parent
    found: dict[str, set[tuple[str, str]]] = {}
    for row in sheet.dropna(subset=["path", "kind"]).to_dict("records"):
        path = Path(row["path"]).expanduser()
        full = path if path.is_absolute() else beside / path
        found.setdefault(row["reference_id"], set()).add((row["kind"], str(full)))
    return {name: sorted(images) for name, images in sorted(found.items())}


def _in_unit(cell: Any, unit: Any, endpoint: str) -> Any:
    """A number in the endpoint's own unit, text as it is."""
    if not is_number(cell):
        return cell
    volume = unit_of(endpoint) == "mL"
    return float(cell) * (VOLUME_UNITS_ML.get(unit, 1.0) if volume else 1.0)


def judged_reads(
    lines: Iterable[Mapping[str, Any]], sheet: pd.DataFrame, parts: int
) -> pd.DataFrame:
    """Reference reads held against their truth; columns :data:`REFERENCE_READS`.

    Parameters
    ----------
    lines
        reference_id, endpoint, reader, value, unit, repeat, position (in the reader's sequence)
        and last (the last position of that reader's sequence).
    sheet
        reference_id, endpoint, value, and if given unit and tolerance (unit of the endpoint).
    parts
        Consecutive parts of a sequence.

    Examples
    --------
    >>> truth = pd.DataFrame({"reference_id": ["x"], "endpoint": ["aspects"], "value": ["8"],
    ...                       "tolerance": ["1"]})
    >>> line = {"reference_id": "x", "endpoint": "aspects", "reader": "r1", "value": "6",
    ...         "unit": None, "repeat": 1, "position": 5, "last": 9}
    >>> judged_reads([line], truth, 3)[["difference", "passed", "part"]].values.tolist()
    [[-2.0, 'no', 2]]
    """
    truths = {
        (row["reference_id"], row["endpoint"]): (
            _in_unit(row["value"], row.get("unit"), row["endpoint"]),
            float(row.get("tolerance") or 0.0),
        )
        for row in sheet.to_dict("records")
    }
    rows = []
    for line in lines:
        key = (line["reference_id"], line["endpoint"])
        if key not in truths:
            continue
        truth, tolerance = truths[key]
        value = _in_unit(line["value"], line["unit"], line["endpoint"])
        numeric = isinstance(value, float) and isinstance(truth, float)
        difference = value - truth if numeric else None
        if difference is None:
            passed = value is not None and str(value) == str(truth)
        else:
            passed = abs(difference) <= tolerance * (1 + 1e-12)
        part = parts * (int(line["position"]) - 1) // max(int(line["last"]), 1) + 1
        cells = (
            *key, line["reader"], value, line["unit"], truth, difference, tolerance,
            "yes" if passed else "no", part, line["repeat"],
        )  # fmt: skip
        rows.append(dict(zip(REFERENCE_READS, cells, strict=True)))
    return pd.DataFrame(rows, columns=list(REFERENCE_READS), dtype=object)


def performance(reads: pd.DataFrame, limits: Mapping[str, float]) -> pd.DataFrame:
    """Share of reference cases that each reader passed, by endpoint and part of the sequence.

    Parameters
    ----------
    reads
        Of :func:`judged_reads`.
    limits
        ``reference_pass_rate_min`` or ``_max`` -> limit, 0 to 1.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`PERFORMANCE`; a reader outside the limit has the action ``retrain``.
    """
    rows: list[dict[str, Any]] = []

    def add(endpoint: str, group: str, own: pd.DataFrame) -> None:
        names = {"endpoint": endpoint, "statistic": "reference_pass_rate", "group": group}
        row = rate_row(names, int((own["passed"] == "yes").sum()), len(own), limits)
        rows.append({**row, "action": "retrain" if row["verdict"] == "outside" else "none"})

    for reader, own in reads.groupby("reader", sort=True):
        add("all", f"reader={reader}", own)
        for part, some in own.groupby("part", sort=True):
            add("all", f"reader={reader}|part={part}", some)
        by_endpoint = own.groupby("endpoint", sort=True)
        for endpoint, some in by_endpoint if len(by_endpoint) > 1 else ():
            add(str(endpoint), f"reader={reader}", some)
    return pd.DataFrame(rows, columns=list(PERFORMANCE), dtype=object)
