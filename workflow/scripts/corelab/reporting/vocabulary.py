"""Words for people: what endpoints and statistics are called, and what limits a biomarker has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from corelab.reporting.numbers import is_number
from corelab.reporting.page import asset_rows
from corelab.terms import statistics as registry
from corelab.terms.endpoints import unit_of
from corelab.terms.words import in_sentence, label_words

VERDICT_WORDS = {
    "pass": "within limits",
    "fail": "outside limits",
    "not_assessable": "not assessable",
}
#: Stages and reasons of endpoints/flow.tsv in the words of the page.
FLOW_WORDS = {
    "scans listed: file there": "scans listed and found",
    "scans there: usable": "scans readable",
    "scans usable: behind a value": "scans used for a value",
    "participants enrolled: any measurement listed": "participants with a measurement planned",
    "participants measured: at least one value": "participants with a value",
    "serves alignment or preparation only, or gave no value": (
        "not used for a measurement (for alignment only, or no result)"
    ),
    "file not there": "file missing",
}


def flow_words(text: str) -> str:
    """A stage or reason of the flow of scans, for people.

    Examples
    --------
    >>> flow_words("scans there: usable"), flow_words("other")
    ('scans readable', 'other')
    """
    return FLOW_WORDS.get(text, text)


_CRITERION_UNITS = {
    **{name: name for name in ("mm", "s", "ms", "degrees")},
    **{"ml": "mL", "deg": "degrees", "hu": "HU"},
}


def statistic_unit(statistic: str, endpoint: object) -> str:
    """Unit of a statistic of an endpoint; empty where it has none.

    Examples
    --------
    >>> statistic_unit("bias", "core_volume"), statistic_unit("icc_a_1", "core_volume")
    ('mL', '')
    """
    return unit_of(endpoint) if registry.statistic(statistic).scale == "endpoint" else ""


#: Decimals of a value in a unit, and of what has none: what TLG tables print.
_SCALE_DECIMALS = {
    "percent": 1,
    "reliability": 3,
    "coefficient": 3,
    "ratio": 2,
    "mm": 1,
    "mL": 1,
}
_UNIT_DECIMALS = {"mL": 1, "%": 1, "mm": 1, "s": 1, "days": 0, "": 2}


def statistic_decimals(statistic: str, endpoint: object, estimate: object = None) -> int | None:
    """Decimals of a statistic wherever it is printed; None where its interval decides.

    A value that would be printed as 0 keeps the digits of its interval.

    Examples
    --------
    >>> statistic_decimals("icc_a_1", "core_volume"), statistic_decimals("slope", "x")
    (3, None)
    >>> statistic_decimals("bias", "core_volume"), statistic_decimals("bias", "core_volume", 0.012)
    (1, None)
    """
    scale = registry.statistic(statistic).scale
    found = _SCALE_DECIMALS.get(scale)
    if scale == "endpoint" and unit_of(endpoint):
        found = _UNIT_DECIMALS.get(unit_of(endpoint))
    if found is not None and is_number(estimate):
        value = abs(float(str(estimate)))
        if 0 < value < 0.5 * 10.0**-found:
            return None
    return found


def value_decimals(unit: str, values: Iterable[object]) -> int:
    """Decimals of the values of an endpoint in a column; none where all of them are whole.

    Examples
    --------
    >>> value_decimals("mL", [42.0, 38.25]), value_decimals("", [7.0]), value_decimals("", [0.5])
    (1, 0, 2)
    """
    numbers = [float(str(value)) for value in values if is_number(value)]
    if unit != "mL" and all(number.is_integer() for number in numbers):
        return 0
    least = min((abs(number) for number in numbers if number), default=1.0)
    floor = 3 if not unit and least < 0.01 else 0
    return max(_UNIT_DECIMALS.get(unit, 2), floor)


def criterion_words(criterion: str) -> tuple[str, str, str]:
    """Name, unit and direction of a criterion of the charter or a gate of perfusion series.

    Examples
    --------
    >>> criterion_words("slice_thickness_mm_max"), criterion_words("gate:aif_snr")
    (('slice thickness', 'mm', 'at most'), ('AIF SNR', '', ''))
    """
    parts = criterion.removeprefix("gate:").split("_")
    direction = {"max": "at most", "min": "at least"}.get(parts[-1], "")
    if direction:
        parts = parts[:-1]
    unit = _CRITERION_UNITS.get(parts[-1].lower(), "") if len(parts) > 1 else ""
    if unit:
        parts = parts[:-1]
    name = "left and right" if criterion == "left_right" else " ".join(parts)
    return in_sentence(label_words(name)), unit, direction


def endpoint_decimals(rows: pd.DataFrame) -> dict[str, int]:
    """Decimals of the values of each endpoint among measurement rows."""
    known = rows[rows["status"] == "ok"]
    return {
        str(name): value_decimals(unit_of(name), own["value"])
        for name, own in known.groupby("endpoint", sort=False)
    }


@dataclass(frozen=True)
class Limit:
    """A known limit of a biomarker: stems of its endpoints, what a reader must know, its
    publication.
    """

    endpoints: tuple[str, ...]
    title: str
    text: str
    source: str


LIMITS = tuple(
    Limit(tuple(row["endpoints"].split()), row["title"], row["text"], row["source"])
    for row in asset_rows("limits")
)


def limits_for(endpoints: list[str]) -> list[Limit]:
    """Known limits of the biomarkers that a study used, in a fixed order.

    Examples
    --------
    >>> [limit.title for limit in limits_for(["aspects"])]
    ['ASPECTS is a coarse grade']
    """
    stems = {str(name).partition(":")[0] for name in endpoints}
    return [limit for limit in LIMITS if stems & set(limit.endpoints)]
