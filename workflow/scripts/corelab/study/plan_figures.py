"""Which figures an analysis of agreement or overlap gives: known from the plan alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from corelab.terms.endpoints import ENDPOINT_UNITS

KINDS = ("pairs", "confusion", "matrix", "forest", "drift", "contours")


def measure_level(analysis: Mapping[str, Any], endpoint: str, grades: Collection[str] = ()) -> str:
    """Level of measurement: as planned, else ordinal for scores and grades, ratio for the rest.

    Examples
    --------
    >>> measure_level({}, "aspects"), measure_level({}, "infarct_volume")
    ('ordinal', 'ratio')
    """
    planned = analysis.get("measure_level")
    if planned:
        return str(planned)
    graded = endpoint in grades or ENDPOINT_UNITS.get(endpoint) == "score"
    return "ordinal" if graded else "ratio"


def figure_kinds(
    analysis: Mapping[str, Any], *, grades: Collection[str] = (), images: bool = False
) -> list[str]:
    """Kinds of figures of an analysis.

    Parameters
    ----------
    analysis
        One entry of the plan.
    grades
        Endpoints that are graded in words.
    images
        Whether the study has images, on which contours can be drawn.

    Examples
    --------
    >>> figure_kinds({"type": "agreement", "endpoint": "aspects", "sources": "all"})
    ['pairs', 'confusion', 'matrix', 'forest']
    >>> figure_kinds({"type": "overlap", "label": "infarct"}, images=True)
    ['contours']
    """
    if analysis["type"] == "overlap":
        return ["contours"] * images
    if analysis["type"] != "agreement":
        return []
    endpoint = analysis["endpoint"]
    endpoints = [endpoint] if isinstance(endpoint, str) else list(endpoint)
    levels = {measure_level(analysis, one, grades) for one in endpoints}
    numeric, graded = levels != {"nominal"}, bool(levels & {"nominal", "ordinal"})
    between = analysis.get("repeats", "between") != "within"
    sources = analysis.get("sources", "all")
    # Up to four sources stand in the forest; a matrix of three cells adds nothing.
    many = sources == "all" or (not isinstance(sources, str) and len(sources) > 4)
    drift = numeric and between and "third" in analysis.get("strata", [])
    wanted = {
        "pairs": numeric,
        "confusion": graded and between,
        "matrix": numeric and between and many,
        "forest": numeric,
        "drift": drift,
    }
    return [kind for kind, whether in wanted.items() if whether]
