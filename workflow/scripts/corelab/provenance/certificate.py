"""The certificate: published numbers beside what this study recomputes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from corelab.provenance.alternatives import (
    alternatives,
    describe,
    half_last_digit,
    of_values,
)
from corelab.provenance.arithmetic import ArithmeticFault, evaluate
from corelab.provenance.products import read_table

CERTIFICATE = {
    "published_id": "Identifier of the published number",
    "statistic": "Statistic; ' ci_low' or ' ci_high' is added for an interval's limits",
    "published": "The number as printed",
    "recomputed": "The number of this study at full precision",
    "difference": "recomputed - published",
    "tolerance": "Largest difference that counts as reproduced",
    "verdict": "reproduced, within_rounding, different or not_computable",
    "fits": "Another form of the statistic that the published number fits, where this one differs",
    "fits_value": "The number in that form",
    "group": "Pair, level or term",
    "analysis_id": "Analysis that recomputes it",
    "citation": "Where it is printed",
    "source_note": "What the sheet says about the source, such as that it contradicts itself",
    "note": "Why it is not computable, or how it is defined here",
}


def verdict(printed: str, recomputed: float, tolerance: float | None, numeric: float) -> str:
    """Compare a printed number with a recomputed one.

    ``reproduced``: within the tolerance given (the numeric one if none is given);
    ``within_rounding``: not that close, but rounding of the printed number explains it;
    ``different`` otherwise.

    Examples
    --------
    >>> verdict("0.68", 0.6815, None, 1e-8), verdict("0.68", 0.6815, 0.002, 1e-8)
    ('within_rounding', 'reproduced')
    >>> verdict("0.68", 0.70, 0.002, 1e-8), verdict("0.68", float("nan"), 0.002, 1e-8)
    ('different', 'not_computable')
    """
    if not math.isfinite(recomputed):
        return "not_computable"
    difference = abs(recomputed - float(printed))
    # 1e-12 keeps a difference that equals the tolerance from falling on the wrong side.
    if difference <= (numeric if tolerance is None else tolerance) + 1e-12:
        return "reproduced"
    return "within_rounding" if difference <= half_last_digit(printed) + 1e-12 else "different"


#: analysis_id of numbers that are plain descriptions of measured values, and of printed sums.
DESCRIPTION, ARITHMETIC = "description", "arithmetic"


@dataclass(frozen=True)
class Recomputed:
    """A number of this study beside a published one.

    NaN where it is not computable, with the reason as ``note``, which else says how it is defined;
    ``others`` are other forms of the statistic, by name.
    """

    value: float
    note: str = ""
    others: tuple[tuple[str, float], ...] = ()


def _statistic(cells: Mapping[Any, Any], part: str, statistics: pd.DataFrame) -> Recomputed:
    """From the statistics of the plan."""
    same = statistics[
        (statistics["analysis_id"] == cells["analysis_id"])
        & (statistics["participant_id"] == "all")
    ]
    for name in ("group", "endpoint", "visit"):
        if cells.get(name):
            same = same[same[name] == cells[name]]
    match = same[same["statistic"] == cells["statistic"]]
    if match.empty:
        where = f" for {cells['group']}" if cells.get("group") else ""
        return Recomputed(math.nan, f"the analysis gave no such statistic{where}")
    if len(match) > 1:
        groups = ", ".join(match["group"][:4])
        note = f"{len(match)} rows match: name the group ({groups} ...), endpoint or visit"
        return Recomputed(math.nan, note)
    row = match.iloc[0].to_dict()
    value = float(row[part])
    if not math.isfinite(value):
        return Recomputed(math.nan, str(row.get("note") or "not computable"))
    full = {"n": math.nan, "ci_low": math.nan, "ci_high": math.nan, **row}
    same = same.assign(**{name: math.nan for name in ("ci_low", "ci_high") if name not in same})
    return Recomputed(value, "", tuple(alternatives(cells, part, full, same)))


def _description(
    cells: Mapping[Any, Any], measurements: pd.DataFrame | None, arms: Mapping[str, str]
) -> Recomputed:
    """From measured values: ``group`` is a source, or ``source|arm``."""
    if measurements is None or not cells.get("endpoint"):
        return Recomputed(math.nan, "a description needs the endpoint (and visit) in the sheet")
    source, _, arm = str(cells.get("group") or "pipeline").partition("|")
    rows = measurements[
        (measurements["endpoint"] == cells["endpoint"])
        & (measurements["source"] == source)
        & (measurements["status"] == "ok")
        & (measurements["region"] == "all")
        & (measurements["repeat"].astype(str) == "1")
    ]
    if cells.get("visit"):
        rows = rows[rows["visit"] == cells["visit"]]
    if arm and arm != "all":
        rows = rows[rows["participant_id"].map(arms) == arm]
    values = rows["value"].to_numpy(dtype=float)
    statistic = str(cells["statistic"])
    value = describe(values).get(statistic, math.nan)
    if not math.isfinite(value):
        return Recomputed(math.nan, f"no {statistic} of {values.size} values")
    return Recomputed(value, f"of {values.size} values", tuple(of_values(statistic, values)))


def _arithmetic(cells: Mapping[Any, Any]) -> Recomputed:
    """From the expression in the sheet."""
    text = str(cells.get("expression") or "")
    if not text:
        return Recomputed(math.nan, "the sheet gives no expression: something is not printed")
    try:
        return Recomputed(evaluate(text), text)
    except ArithmeticFault as fault:
        return Recomputed(math.nan, str(fault))


def _fitting(
    printed: str, found: Recomputed, tolerance: float | None, numeric: float
) -> tuple[str, float | None]:
    """The first other form that the published number fits; nothing where none does."""
    for name, value in found.others:
        if verdict(printed, value, tolerance, numeric) in {"reproduced", "within_rounding"}:
            return name, value
    return "", None


def certificate(
    published: pd.DataFrame | None,
    statistics: pd.DataFrame,
    *,
    numeric_tolerance: float,
    measurements: pd.DataFrame | None = None,
    arms: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The certificate's table, columns of :data:`CERTIFICATE`.

    A number that differs is searched among other forms of its statistic; one that fits is named,
    and the verdict stays ``different``.

    Parameters
    ----------
    published
        The sheet as text, or None.
    statistics
        All statistics rows of the study; numbers as float64.
    numeric_tolerance
        For published numbers without a tolerance of their own.
    measurements, arms
        ``measurements.tsv`` and the arm of each subject, for published descriptions.

    Examples
    --------
    >>> published = pd.DataFrame([{"published_id": "p1", "analysis_id": "a", "statistic": "bias",
    ...                            "estimate": "-2.1"}])
    >>> statistics = pd.DataFrame({"analysis_id": ["a"], "statistic": ["bias"], "group": ["x|y"],
    ...                            "participant_id": ["all"], "estimate": [-2.1176], "note": [""]})
    >>> certificate(published, statistics, numeric_tolerance=1e-8)["verdict"].tolist()
    ['within_rounding']
    """
    rows = []
    sheet = published if published is not None else pd.DataFrame()
    for cells in sheet.to_dict("records"):
        tolerance = float(cells["tolerance"]) if cells.get("tolerance") else None
        for part in ("estimate", "ci_low", "ci_high"):
            printed = cells.get(part)
            if printed is None:
                continue
            if cells["analysis_id"] == ARITHMETIC:
                found = _arithmetic(cells)
            elif cells["analysis_id"] == DESCRIPTION:
                found = _description(cells, measurements, arms or {})
            else:
                found = _statistic(cells, part, statistics)
            judged = verdict(printed, found.value, tolerance, numeric_tolerance)
            other: tuple[str, float | None] = ("", None)
            if judged == "different":
                other = _fitting(printed, found, tolerance, numeric_tolerance)
            rows.append(
                {
                    "published_id": cells["published_id"],
                    "statistic": cells["statistic"] + ("" if part == "estimate" else f" {part}"),
                    "published": printed,
                    "recomputed": found.value,
                    "difference": found.value - float(printed),
                    "tolerance": numeric_tolerance if tolerance is None else tolerance,
                    "verdict": judged,
                    "fits": other[0],
                    "fits_value": other[1],
                    "group": cells.get("group"),
                    "analysis_id": cells["analysis_id"],
                    "citation": cells.get("citation"),
                    "source_note": cells.get("source_note"),
                    "note": found.note,
                }
            )
    return pd.DataFrame(rows, columns=list(CERTIFICATE))


def read_statistics(paths: Iterable[str]) -> pd.DataFrame:
    """All statistics tables of a study as one frame, numbers as float64."""
    numeric = ("estimate", "ci_low", "ci_high", "ci_level", "p_value", "n", "second_estimate")
    return pd.concat([read_table(path, numeric=numeric) for path in paths], ignore_index=True)
