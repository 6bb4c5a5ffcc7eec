"""Reference cases: mixed into the readers' sequence, their truth known, with limits to pass.

After the CDE guideline on independent imaging review: test images are seeded among the cases so
that a reader who drifts is noticed, trained again or replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.measurement.rows import rows_frame
from corelab.reading.adjudication import is_number
from corelab.reading.presentation import Case
from corelab.reading.rates import RATES, Rate, rate
from corelab.study.model import Study
from corelab.terms.endpoints import in_own_unit

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
PERFORMANCE = RATES | {
    "endpoint": "Name of the endpoint, or all",
    "statistic": "reference_pass_rate",
    "group": "reader=<id>, or reader=<id>|part=<number>",
    "count": "Reference cases passed",
    "n": "Reference cases read",
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
    return in_own_unit(float(cell), unit, endpoint)[0] if is_number(cell) else cell


@dataclass(frozen=True)
class ReferenceRead:
    """A read of a reference case: its place in the reader's sequence, and the last place of it."""

    reference_id: str
    endpoint: str
    reader: str
    value: str | None
    unit: str | None
    repeat: str
    position: int
    last: int


def judged_reads(reads: Iterable[ReferenceRead], sheet: pd.DataFrame, parts: int) -> pd.DataFrame:
    """Reference reads held against their truth; columns :data:`REFERENCE_READS`.

    ``sheet`` has reference_id, endpoint, value, and if given unit and tolerance (unit of the
    endpoint); ``parts`` are consecutive parts of a sequence.

    Examples
    --------
    >>> truth = pd.DataFrame({"reference_id": ["x"], "endpoint": ["aspects"], "value": ["8"],
    ...                       "tolerance": ["1"]})
    >>> read = ReferenceRead("x", "aspects", "r1", "6", None, "1", position=5, last=9)
    >>> judged_reads([read], truth, 3)[["difference", "passed", "part"]].values.tolist()
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
    for read in reads:
        key = (read.reference_id, read.endpoint)
        if key not in truths:
            continue
        truth, tolerance = truths[key]
        value = _in_unit(read.value, read.unit, read.endpoint)
        numeric = isinstance(value, float) and isinstance(truth, float)
        difference = value - truth if numeric else None
        if difference is None:
            passed = value is not None and str(value) == str(truth)
        else:
            passed = abs(difference) <= tolerance * (1 + 1e-12)
        part = parts * (read.position - 1) // max(read.last, 1) + 1
        cells = (
            *key, read.reader, value, read.unit, truth, difference, tolerance,
            "yes" if passed else "no", part, read.repeat,
        )  # fmt: skip
        rows.append(cells)
    return pd.DataFrame(rows, columns=list(REFERENCE_READS), dtype=object)


def performance(reads: pd.DataFrame, limits: Mapping[str, float]) -> pd.DataFrame:
    """Share of reference cases that each reader passed, by endpoint and part of the sequence.

    A reader outside the limit (``reference_pass_rate_min`` or ``_max``) has the action ``retrain``.
    """
    rates: list[Rate] = []

    def add(endpoint: str, group: str, own: pd.DataFrame) -> None:
        passed = int((own["passed"] == "yes").sum())
        rates.append(rate(endpoint, "reference_pass_rate", group, passed, len(own), limits))

    for reader, own in reads.groupby("reader", sort=True):
        add("all", f"reader={reader}", own)
        for part, some in own.groupby("part", sort=True):
            add("all", f"reader={reader}|part={part}", some)
        by_endpoint = own.groupby("endpoint", sort=True)
        for endpoint, some in by_endpoint if len(by_endpoint) > 1 else ():
            add(str(endpoint), f"reader={reader}", some)
    table = rows_frame(rates, PERFORMANCE, object)
    table["action"] = ["retrain" if one.verdict == "outside" else "none" for one in rates]
    return table
