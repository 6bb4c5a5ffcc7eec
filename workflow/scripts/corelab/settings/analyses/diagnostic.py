"""Diagnostic accuracy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from corelab.settings.analyses.base import (
    DERIVED,
    RATIO,
    Alternative,
    AnalysisType,
    Baseline,
    ComparePairs,
    Endpoint,
    OneValue,
    Outcome,
    OutcomeVisit,
    Source,
    Sources,
    Zeros,
    several,
    without,
)
from corelab.settings.base import Absent, Number


class DiagnosticSpec(OneValue):
    """How well an endpoint tells a condition."""

    kind: ClassVar = AnalysisType(
        "diagnostic",
        "Diagnostic accuracy",
        headline=("auc", "auc_difference", "sensitivity", "specificity"),
    )

    type: Literal["diagnostic"]
    endpoint: Endpoint | Absent = None  # type: ignore[assignment]
    outcome: Outcome | Absent = None
    outcome_visit: OutcomeVisit | Absent = None
    alternative: Alternative = "two-sided"
    sources: Sources | Absent = None
    source: Annotated[Source | Absent, without("sources")] = None
    baseline: Annotated[Baseline | Absent, DERIVED] = None
    zeros: Annotated[Zeros | Absent, RATIO] = None
    positive_above: Number | Absent = None
    """Diagnostic: the condition is present where the outcome lies above this value (for an outcome
    that is not 0/1)
    """
    positive_from: Number | Absent = None
    """Diagnostic: the test is positive where the endpoint has this value or more; gives
    sensitivity, specificity and predictive values
    """
    ci: Literal["delong", "logit"] = "delong"
    """Interval of the AUC: delong (default, raw scale) or logit"""
    compare_pairs: Annotated[ComparePairs, several("endpoint", 2, "two endpoints or more")] = True
