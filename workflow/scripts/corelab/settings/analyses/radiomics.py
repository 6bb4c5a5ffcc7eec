"""Radiomic features and their survival score."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corelab.settings.analyses.base import (
    WITH_COVARIATES,
    AnalysisSpec,
    AnalysisType,
    Assessor,
    Categorical,
    Covariates,
    Criterion,
    EventEndpoint,
    ReferenceLevels,
    Seed,
    Source,
    Sources,
    Texts,
    Visit,
    one_of,
)
from corelab.settings.base import Absent, Number

SUPERPC = one_of("model", "superpc")


class RadiomicsSpec(AnalysisSpec):
    """Repeatability of features, and a score of them for a time to event."""

    kind: ClassVar = AnalysisType(
        "radiomics",
        "Radiomics",
        table="radiomics",
        part="survival",
        number="14.2.11",
        figure="drawings",
        headline=("hazard_ratio", "c_index", "logrank_p"),
        sheets=("events",),
        datasets=("ADRISK", "ADTTE"),
    )

    type: Literal["radiomics"]
    series: Texts
    """Series for radiomics"""
    labels: Texts
    """Mask labels for radiomics"""
    visit: Visit | Absent = None
    sources: Sources | Absent = None
    model: Literal["superpc", "none"] = "none"
    """Radiomics model"""
    source: Annotated[Source | Absent, SUPERPC] = None
    min_icc: Annotated[Number | Absent, SUPERPC] = None
    """Features below this ICC are left out"""
    event_endpoint: Annotated[EventEndpoint, SUPERPC] = "os"
    criterion: Annotated[Criterion | Absent, SUPERPC] = None
    assessor: Annotated[Assessor | Absent, SUPERPC] = None
    folds: Annotated[int, SUPERPC] = Field(10, ge=2)
    """Folds of the outer cross-validation"""
    seed: Annotated[Seed, SUPERPC] = 1
    threshold: Annotated[Number | None, SUPERPC] = None
    """Feature-score threshold of superpc"""
    permutations: Annotated[int, SUPERPC] = Field(0, ge=0)
    """Permutations of the whole procedure"""
    covariates: Annotated[Covariates, SUPERPC] = []
    categorical: Annotated[Categorical, SUPERPC & WITH_COVARIATES] = []
    reference_levels: Annotated[ReferenceLevels | Absent, SUPERPC & WITH_COVARIATES] = None
