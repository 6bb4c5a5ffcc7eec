"""Diagnostic accuracy."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corelab.settings.analyses.base import (
    DERIVED,
    RATIO,
    Alternative,
    AnalysisType,
    Baseline,
    ComparePairs,
    Endpoint,
    Number,
    OneValue,
    Outcome,
    OutcomeVisit,
    Source,
    Sources,
    Zeros,
    several,
    without,
)


class DiagnosticSpec(OneValue):
    """How well an endpoint tells a condition."""

    kind: ClassVar = AnalysisType(
        "diagnostic",
        "Diagnostic accuracy",
        headline=("auc", "auc_difference", "sensitivity", "specificity"),
    )

    type: Literal["diagnostic"]
    endpoint: Endpoint | None = None  # type: ignore[assignment]
    outcome: Outcome | None = None
    outcome_visit: OutcomeVisit | None = None
    alternative: Alternative = "two-sided"
    sources: Sources | None = None
    source: Annotated[Source | None, without("sources")] = None
    baseline: Annotated[Baseline | None, DERIVED] = None
    zeros: Annotated[Zeros | None, RATIO] = None
    positive_above: Number | None = Field(
        None,
        description="Diagnostic: the condition is present where the outcome lies above this value "
        "(for an outcome that is not 0/1)",
    )
    positive_from: Number | None = Field(
        None,
        description="Diagnostic: the test is positive where the endpoint has this value or more; "
        "gives sensitivity, specificity and predictive values",
    )
    ci: Literal["delong", "logit"] = Field(
        "delong", description="Interval of the AUC: delong (default, raw scale) or logit"
    )
    compare_pairs: Annotated[ComparePairs, several("endpoint", 2, "two endpoints or more")] = True
