"""Analyses and figures that ended in an unexpected error: their rows, and how they are found."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from corelab.measurement.selection import statistics_frame
from corelab.settings.analyses.base import AnalysisSpec
from corelab.terms.results import StatisticRow

#: Before the cause of an analysis that ended in an unexpected error.
FAILED = "not_computable: failed ("
#: Before the caption of a figure that could not be drawn.
NOT_DRAWN = "Not drawn, failed: "


def failed_frame(analysis: AnalysisSpec, error: Exception, log: str = "") -> pd.DataFrame:
    """The row of an analysis that ended in an unexpected error; the traceback goes to the log."""
    traceback.print_exception(error)
    cause = " ".join(str(error).split())[:300]
    text = f"{type(error).__name__}: {cause}" + (f"; log: {log}" if log else "")
    return statistics_frame(analysis, [StatisticRow(analysis.type, note=f"{FAILED}{text})")])


def failed_products(folder: str | Path) -> dict[str, tuple[str, str]]:
    """Products of a study that hold an unexpected error.

    Parameters
    ----------
    folder
        The study's folder.

    Returns
    -------
    dict
        Path -> (analysis, cause), of tables of analyses and of exhibits.
    """
    found = {}
    for kind in ("by_analysis", "without_exclusions", "by_specification"):
        for path in sorted((Path(folder) / "statistics" / kind).glob("*.tsv")):
            text = path.read_text(encoding="utf-8")
            if FAILED in text:
                cause = text.split(FAILED, 1)[1].split("\n", 1)[0].split("\t", 1)[0]
                found[path.as_posix()] = (path.stem, cause.removesuffix(")"))
    for path in sorted((Path(folder) / "exhibits").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        caption = str(content.get("caption") or "")
        if caption.startswith(NOT_DRAWN):
            name = str(content.get("section")).partition(":")[2] or path.stem
            found[path.as_posix()] = (f"{name} (figure)", caption.removeprefix(NOT_DRAWN))
    return found


def failure_words(found: Mapping[str, tuple[str, str]]) -> str:
    """What the end of a run says about analyses that failed."""
    number = len(found)
    lines = [
        f"{number} analys{'is' if number == 1 else 'es'} ended in an unexpected error; every other "
        "result and the report are made.",
        *(f"  {name}: {cause}" for name, cause in found.values()),
        "The same command runs them again. Please report the log.",
    ]
    return "\n".join(lines)
