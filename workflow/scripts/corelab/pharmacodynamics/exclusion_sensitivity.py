"""Results with and without the exclusions of the review desk, side by side.

A decision to exclude is a choice made by a person who has seen the images; what it moves is
reported for every value and every statistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from corelab.provenance.products import read_table, write_table
from corelab.study.columns import MEASUREMENT_KEY
from corelab.terms.statistics import statistic

SENSITIVITY = {
    "analysis_id": "Analysis of the plan",
    "endpoint": "Imaging endpoint",
    "visit": "Visit",
    "group": "Pair, level or term",
    "statistic": "Name of the statistic",
    "method": "Definition",
    "estimate": "As planned, excluded values left out",
    "ci_low": "Lower confidence limit",
    "ci_high": "Upper confidence limit",
    "n": "Number behind it",
    "estimate_without": "Without exclusions: every value used",
    "ci_low_without": "Lower confidence limit without exclusions",
    "ci_high_without": "Upper confidence limit without exclusions",
    "n_without": "Number behind it without exclusions",
    "difference": "estimate_without - estimate",
    "verdict": "same, moved, or crossed: the interval's side of no effect changes",
}
EXCLUSIONS = {
    **dict.fromkeys(MEASUREMENT_KEY, "As in measurements.tsv"),
    "row_id": "Row of measurements.tsv",
    "status": "excluded, or not_computable where it follows from an excluded value",
    "reason": "Who excluded it, when and why",
    "value_without": "The value without exclusions",
    "unit": "Unit",
}
_KEY = ["analysis_id", "endpoint", "visit", "group", "statistic", "method"]
_NUMBERS = ("estimate", "ci_low", "ci_high", "n")


def _side(low: float, high: float, null: float) -> int:
    """-1, 0 or 1: the interval lies below, over or above no effect."""
    return int(low > null) - int(high < null)


def _verdict(row: pd.Series) -> str:
    first, second = row["estimate"], row["estimate_without"]
    if (np.isnan(first) and np.isnan(second)) or first == second:
        return "same"
    null = statistic(row["statistic"]).no_effect
    with_low, with_high = row["ci_low"], row["ci_high"]
    low, high = row["ci_low_without"], row["ci_high_without"]
    known = not np.isnan([with_low, with_high, low, high]).any()
    crossed = known and _side(with_low, with_high, null) != _side(low, high, null)
    return "crossed" if crossed else "moved"


def _side_by_side(primary: pd.DataFrame, without: pd.DataFrame) -> pd.DataFrame:
    """Statistics of the plan beside those without exclusions; no rows of single subjects."""
    frames = []
    for frame in (primary, without):
        own = frame[frame["participant_id"] == "all"] if len(frame) else frame
        frames.append(own[[*_KEY, *_NUMBERS]].drop_duplicates(_KEY))
    both = frames[0].merge(frames[1], on=_KEY, how="outer", suffixes=("", "_without"))
    both["difference"] = both["estimate_without"] - both["estimate"]
    both["verdict"] = [_verdict(row) for _, row in both.iterrows()] if len(both) else []
    return both[list(SENSITIVITY)]


def _excluded_values(measurements: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Values that decisions took out, with what they are without exclusions."""
    key = list(MEASUREMENT_KEY)
    again = whole.loc[whole["status"] == "ok", [*key, "value"]]
    again = again.rename(columns={"value": "value_without"})
    gone = measurements[measurements["status"] != "ok"].merge(again, on=key, how="inner")
    return gone[list(EXCLUSIONS)]


def write_sensitivity(
    primary: Sequence[str],
    without: Sequence[str],
    measurements: str | Path,
    whole: str | Path,
    *,
    statistics: str | Path,
    values: str | Path,
) -> None:
    """Write ``statistics/sensitivity.tsv`` and ``endpoints/exclusions.tsv``.

    ``without`` are the tables of the analyses run without exclusions; where nothing is excluded
    they are none, and the tables have a header only. ``measurements`` and ``whole`` are
    ``measurements.tsv`` with and without exclusions.
    """

    def read(paths: Sequence[str]) -> pd.DataFrame:
        frames = [read_table(path, numeric=_NUMBERS, text_missing=True) for path in paths]
        frames = [frame for frame in frames if len(frame)]
        return (
            pd.concat(frames, ignore_index=True)
            if frames
            else pd.DataFrame(columns=[*_KEY, *_NUMBERS, "participant_id"])
        )

    if without:
        planned = read(primary)
        again = read(without)
        planned = planned[planned["analysis_id"].isin(set(again["analysis_id"]))]
        table = _side_by_side(planned, again)
    else:
        table = pd.DataFrame(columns=list(SENSITIVITY))
    write_table(table, statistics, SENSITIVITY)
    needed = [*MEASUREMENT_KEY, "value", "status"]
    found = read_table(measurements, columns=EXCLUSIONS)
    again = read_table(whole, numeric=["value"], columns=needed)
    write_table(_excluded_values(found, again), values, EXCLUSIONS)
