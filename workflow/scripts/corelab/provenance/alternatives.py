"""Other forms of a statistic: when a published number differs, which definition would give it.

A published ICC is often another of the six forms, an SD the population's, a quartile another
percentile type, a limit of agreement 2 SD and not 1.96. Each alternative is named; none changes
the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation

import numpy as np
import pandas as pd

from corelab.terms.statistics import family_of, statistic

#: Percentile types of Hyndman and Fan (1996) as numpy names them; 7 is the default here.
PERCENTILE_TYPES = {
    "percentile type 1": "inverted_cdf",
    "percentile type 2": "averaged_inverted_cdf",
    "percentile type 3": "closest_observation",
    "percentile type 4": "interpolated_inverted_cdf",
    "percentile type 5": "hazen",
    "percentile type 6": "weibull",
    "percentile type 8": "median_unbiased",
    "percentile type 9": "normal_unbiased",
}
#: Quantile of the normal distribution for 95 %.
_Z = 1.959963984540054
PERCENTILES = {"quartile_1": 25.0, "median": 50.0, "quartile_3": 75.0}


def half_last_digit(printed: str) -> float:
    """Half a unit of the last printed digit: what rounding alone can account for.

    Examples
    --------
    >>> half_last_digit("0.797"), half_last_digit("12"), half_last_digit("1.5e3")
    (0.0005, 0.5, 50.0)
    """
    try:
        exponent = Decimal(printed.strip()).as_tuple().exponent
    except InvalidOperation:
        return 0.0
    return 0.5 * 10.0 ** int(exponent) if isinstance(exponent, int) else 0.0


def describe(values: np.ndarray) -> dict[str, float]:
    """Plain description: quartiles of type 7, SD with n - 1."""
    if values.size == 0:
        return {"n": 0.0}
    found = {
        "n": float(values.size),
        "mean": float(values.mean()),
        "minimum": float(values.min()),
        "maximum": float(values.max()),
    }
    if values.size > 1:
        found["sd"] = float(values.std(ddof=1))
    for name, percent in PERCENTILES.items():
        found[name] = float(np.percentile(values, percent))
    return found


def of_values(statistic: str, values: np.ndarray) -> Iterator[tuple[str, float]]:
    """Other forms of a description of values.

    Examples
    --------
    >>> dict(of_values("quartile_1", np.array([1.0, 2.0, 3.0, 10.0])))["percentile type 6"]
    1.25
    """
    if statistic == "sd" and values.size > 1:
        yield "population SD", float(values.std())
    if statistic in PERCENTILES and values.size:
        for name, method in PERCENTILE_TYPES.items():
            yield name, float(np.percentile(values, PERCENTILES[statistic], method=method))  # type: ignore[call-overload]
    if statistic == "mean" and values.size and (values > 0).all():
        yield "geometric mean", float(np.exp(np.log(values).mean()))


def fisher_interval(r: float, n: float) -> tuple[float, float]:
    """Fisher's 95 % interval of a correlation.

    Examples
    --------
    >>> [round(v, 4) for v in fisher_interval(0.68, 524)]
    [0.6311, 0.7235]
    """
    if not (abs(r) < 1 and n > 3):
        return math.nan, math.nan
    half = _Z / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def _unrounded_r(r: str, low: str, high: str, n: float) -> tuple[float, float] | None:
    """Least and largest r that round to the printed one and give the printed limits (Fisher's z);
    None without one.
    """
    if n <= 3:
        return None
    half = _Z / math.sqrt(n - 3)
    least, largest = -1.0, 1.0
    for text, shift in ((r, 0.0), (low, half), (high, -half)):
        value, rounding = float(text), half_last_digit(text)
        if not abs(value) + rounding < 1:
            return None
        # An r with this limit: Fisher's z of the limit, moved by half the interval.
        least = max(least, math.tanh(math.atanh(value - rounding) + shift))
        largest = min(largest, math.tanh(math.atanh(value + rounding) + shift))
    return (least, largest) if least <= largest else None


def _limits(match: Mapping[str, float], statistic: str) -> Iterator[tuple[str, float]]:
    """Limits of agreement with 2 SD, and the bias with the difference taken the other way."""
    bias, other = match.get("bias", math.nan), match.get(statistic, math.nan)
    if statistic in {"loa_lower", "loa_upper"}:
        # 1.96 SD here; Bland and Altman (1986) printed 2 SD.
        yield "2 SD", bias + (other - bias) * 2 / _Z
        mirror = match.get("loa_upper" if statistic == "loa_lower" else "loa_lower", math.nan)
        yield "difference taken the other way", -mirror


def alternatives(
    cells: Mapping[str, object], part: str, row: Mapping[str, object], same: pd.DataFrame
) -> Iterator[tuple[str, float]]:
    """Name and value of other forms of a statistic of the plan.

    Parameters
    ----------
    cells
        Row of the published sheet.
    part
        ``estimate``, ``ci_low`` or ``ci_high``.
    row
        The statistics row that recomputes it.
    same
        Statistics rows of the same analysis, endpoint, visit and group.
    """
    name = str(cells["statistic"])
    family = family_of(name, "family")
    for other in same[same["statistic"].isin(family)].to_dict("records"):
        if other["statistic"] != name:
            yield str(other["statistic"]), float(other[part])
    for other in same[same["statistic"] == name].to_dict("records"):
        if other.get("method") != row.get("method"):
            yield f"definition: {other.get('method')}", float(other[part])
    value = float(row[part])  # type: ignore[arg-type]
    if part == "estimate" and row.get("second_estimate") is not None:
        yield "second program", float(row["second_estimate"])  # type: ignore[arg-type]
    estimates = dict(zip(same["statistic"], same["estimate"].astype(float), strict=True))
    if part == "estimate":
        yield from _limits(estimates, name)
    if statistic(name).ratio and value > 0:
        other_part = {"ci_low": "ci_high", "ci_high": "ci_low"}.get(part, part)
        yield "groups exchanged", 1.0 / float(row[other_part])  # type: ignore[arg-type]
    if statistic(name).signed:
        other_part = {"ci_low": "ci_high", "ci_high": "ci_low"}.get(part, part)
        yield "difference taken the other way", -float(row[other_part])  # type: ignore[arg-type]
    if name == "pearson_r" and part != "estimate" and cells.get("estimate") is not None:
        low, high = fisher_interval(float(str(cells["estimate"])), float(row["n"]))  # type: ignore[arg-type]
        yield "interval of the printed, rounded r", low if part == "ci_low" else high
        texts = [str(cells[key]) for key in ("estimate", "ci_low", "ci_high") if cells.get(key)]
        known = None
        if len(texts) == 3:
            known = _unrounded_r(texts[0], texts[1], texts[2], float(row["n"]))  # type: ignore[arg-type]
        if known:
            low, high = fisher_interval(sum(known) / 2, float(row["n"]))  # type: ignore[arg-type]
            name = (
                f"interval of an r of {known[0]:.4f} to {known[1]:.4f}, which rounds to the printed"
            )
            yield name, low if part == "ci_low" else high
    yield "percent", 100.0 * value
    yield "fraction", value / 100.0
