"""Correlation of an imaging endpoint with an outcome, an exposure or a second endpoint."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen
from pydantic import Field

from corelab.settings.analyses.base import (
    DERIVED,
    RATIO,
    RESAMPLES,
    SEED,
    WITH_BY,
    WITH_COVARIATES,
    AnalysisType,
    Baseline,
    Categorical,
    ComparePairs,
    Covariates,
    Endpoint,
    Exposure,
    ExposureVisit,
    Modelled,
    OneOrMany,
    OneValue,
    Outcome,
    OutcomeVisit,
    Reference,
    Reliability,
    Resamples,
    ScaleOfValues,
    Seed,
    Texts,
    Zeros,
    given,
    one_of,
    several,
    without,
)
from corelab.settings.base import Absent, Number, Settings

PARTIAL = one_of("method", "partial", "partial_spearman", "semi_partial")
ATTENUATION = one_of("method", "attenuation")
RESAMPLED = one_of("ci", "bootstrap", "bca", "percentile")
WITH_SECOND = given("endpoint_y")


class Summary(Settings):
    """A correlation of which only r and n are known."""

    name: Annotated[str, MinLen(1)]
    """Stands in the column group"""
    r: Number = Field(ge=-1, le=1)
    """Correlation as printed"""
    n: int = Field(ge=4)
    """Number of pairs"""
    decimals: int = Field(2, ge=0)
    """Decimals that r is printed with; default 2"""


class CorrelationSpec(OneValue, Modelled):
    """Correlation of two variables."""

    kind: ClassVar = AnalysisType(
        "correlation",
        "Correlation",
        number="14.2.5",
        headline=("pearson_r", "spearman_rho", "kendall_tau", "partial_r", "rm_r"),
        by_participant=True,
    )
    require: ClassVar = ("endpoint",)
    require_one: ClassVar = ("outcome", "exposure", "endpoint_y")
    instead: ClassVar = "summaries"

    type: Literal["correlation"]
    endpoint: Endpoint | Absent = None  # type: ignore[assignment]
    endpoint_y: str | Absent = None
    """Second endpoint of a correlation"""
    outcome: Outcome | Absent = None
    exposure: Exposure | Absent = None
    scale: ScaleOfValues = "identity"
    method: OneOrMany[
        Literal[
            "pearson",
            "spearman",
            "kendall",
            "partial",
            "partial_spearman",
            "semi_partial",
            "repeated",
            "attenuation",
        ]
    ] = "pearson"
    """Coefficient, or a list of them (docs/pharmacodynamics.md)"""
    ci: Literal["fisher", "bonett_wright", "bootstrap", "bca", "percentile"] | Absent = None
    """Interval where a method has several: fisher, bonett_wright (Spearman, Kendall), bootstrap or
    bca, percentile
    """
    summaries: list[Summary] | Absent = None
    """Correlations of which only r and n are known"""
    source_y: Annotated[str | Absent, WITH_SECOND] = None
    """Source of the second endpoint"""
    visit_y: Annotated[str | Absent, WITH_SECOND] = None
    """Visit of the second endpoint or outcome"""
    baseline: Annotated[Baseline | Absent, DERIVED] = None
    zeros: Annotated[Zeros | Absent, RATIO] = None
    outcome_visit: Annotated[OutcomeVisit | Absent, given("outcome")] = None
    exposure_visit: Annotated[ExposureVisit | Absent, given("exposure")] = None
    covariates: Annotated[Covariates, PARTIAL] = []
    categorical: Annotated[Categorical, PARTIAL & WITH_COVARIATES] = []
    reference: Annotated[Reference | Absent, WITH_BY] = None
    compare_pairs: Annotated[ComparePairs, several("endpoint", 2, "two endpoints or more")] = False
    resamples: Annotated[Resamples, RESAMPLED] = RESAMPLES
    seed: Annotated[Seed, RESAMPLED] = SEED
    reliability: Annotated[Reliability | Absent, ATTENUATION] = None
    reliability_y: Annotated[Number, ATTENUATION] = Field(1.0, gt=0, le=1)
    """Reliability of the other variable of a correlation, 0 to 1; default 1"""
    reliability_sources: Annotated[Texts | Absent, ATTENUATION & without("reliability")] = None
    """Readers (or one reader with repeats) whose ICC(A,1) is the reliability"""
