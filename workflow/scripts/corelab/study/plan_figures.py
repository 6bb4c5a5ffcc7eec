"""Which figures an analysis of agreement or overlap gives: known from the plan alone."""

from __future__ import annotations

from collections.abc import Collection

from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.base import AnalysisSpec, listed

KINDS = ("pairs", "confusion", "matrix", "forest", "drift", "contours")


def figure_kinds(
    analysis: AnalysisSpec, *, grades: Collection[str] = (), images: bool = False
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
    >>> from corelab.settings.analyses import spec_of
    >>> plan = {"id": "a", "type": "agreement", "endpoint": "aspects", "sources": "all"}
    >>> figure_kinds(spec_of(plan))
    ['pairs', 'confusion', 'matrix', 'forest']
    """
    if analysis.type == "overlap":
        return ["contours"] * images
    if not isinstance(analysis, AgreementSpec):
        return []
    levels = analysis.levels(grades)
    numeric, graded = levels != {"nominal"}, bool(levels & {"nominal", "ordinal"})
    between = analysis.repeats != "within"
    # Up to four sources stand in the forest; a matrix of three cells adds nothing.
    many = analysis.sources == "all" or len(listed(analysis.sources)) > 4
    wanted = {
        "pairs": numeric,
        "confusion": graded and between,
        "matrix": numeric and between and many,
        "forest": numeric,
        "drift": numeric and between and "third" in analysis.strata,
    }
    return [kind for kind, whether in wanted.items() if whether]
