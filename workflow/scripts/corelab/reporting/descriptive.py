"""Plain description of the endpoints by visit and arm, for the table that every report has first.

Counts and order statistics only; statistics that carry a conclusion come from the plan's analyses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from corelab.reporting.arms import arms_of
from corelab.reporting.results import Results

#: Sources described by arm; others are described over all subjects.
PRIMARY_SOURCES = ("pipeline", "supplied")


@dataclass(frozen=True)
class Description:
    """Values of one endpoint, visit, source and group: order statistics (quartiles by linear
    interpolation; NaN where n is 0), and mean and sample SD (NaN where n is below 2).
    """

    endpoint: str
    visit: str
    source: str
    group: str
    unit: str
    n: int
    unavailable: int
    median: float
    q1: float
    q3: float
    low: float
    high: float
    mean: float
    sd: float


def describe(values: np.ndarray) -> dict[str, float]:
    """Order statistics and moments of finite values.

    Examples
    --------
    >>> d = describe(np.array([1.0, 2.0, 3.0, 10.0]))
    >>> d["median"], d["q1"], d["q3"], d["high"], d["mean"]
    (2.5, 1.75, 4.75, 10.0, 4.0)
    """
    names = ("low", "q1", "median", "q3", "high")
    if values.size == 0:
        return dict.fromkeys((*names, "mean", "sd"), float("nan"))
    found = dict(zip(names, np.percentile(values, [0, 25, 50, 75, 100]).tolist(), strict=True))
    found["mean"] = float(values.mean())
    found["sd"] = float(values.std(ddof=1)) if values.size > 1 else float("nan")
    return found


def is_variant(source: str) -> bool:
    """Whether a source is the pipeline with another cut-off or engine."""
    return source.startswith("pipeline:")


def descriptions(results: Results) -> list[Description]:
    """Every whole-lesion endpoint by visit, source and arm; first repeats only."""
    rows = results.measurements
    rows = rows[(rows["region"] == "all") & rows["repeat"].isin(["1", 1, "1.0"])]
    arms = arms_of(results)
    people = results.participants
    arm_of = dict(zip(people["participant_id"], people["arm"], strict=True)) if arms else {}
    rank = {visit: number for number, visit in enumerate(results.tables.visit_order)}
    found = []
    groups = rows.groupby(["endpoint", "visit", "source"], sort=False, dropna=False)
    ordered = sorted(
        groups, key=lambda item: (str(item[0][0]), rank.get(str(item[0][1]), 99), str(item[0][2]))
    )
    for (endpoint, visit, source), group in ordered:
        levels = ["all"]
        if arms and source in PRIMARY_SOURCES:
            levels = [*arms, "all"]
        owner = group["participant_id"].map(arm_of)
        for level in levels:
            inside = group if level == "all" else group[owner == level]
            if inside.empty:
                continue
            good = inside[(inside["status"] == "ok") & inside["value"].notna()]
            values = good["value"].to_numpy(dtype=float)
            unit = next((str(u) for u in inside["unit"] if u is not None and pd.notna(u)), "")
            found.append(
                Description(
                    str(endpoint),
                    str(visit),
                    str(source),
                    level,
                    unit,
                    len(good),
                    len(inside) - len(good),
                    **describe(values),
                )
            )
    return found
