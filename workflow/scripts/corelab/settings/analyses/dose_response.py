"""Dose-response."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from corelab.settings.analyses.base import (
    SEED,
    WITH_COVARIATES,
    Alternative,
    AnalysisType,
    Categorical,
    Covariates,
    Dose,
    Exposure,
    ExposureVisit,
    OneOrMany,
    OneValue,
    ReferenceLevels,
    Resamples,
    Seed,
    given,
    one_of,
)
from corelab.settings.base import Absent, Number

Model = Literal["linear", "mixed", "trend", "emax", "sigmoid_emax", "mcpmod", "williams"]
Candidate = str | dict[str, Any]
MCPMOD = one_of("models", "mcpmod")
TARGET = MCPMOD & given("target_effect")


class DoseResponseSpec(OneValue):
    """Relation of an imaging endpoint to dose or exposure."""

    kind: ClassVar = AnalysisType(
        "dose_response",
        "Dose-response",
        number="14.2.3",
        headline=("slope", "emax", "ed50", "target_dose", "mcp_t", "williams_t"),
        by_participant=True,
    )
    require_one: ClassVar = ("dose", "exposure")

    type: Literal["dose_response"]
    dose: Dose | Absent = None
    exposure: Exposure | Absent = None
    exposure_visit: Annotated[ExposureVisit | Absent, given("exposure")] = None
    covariates: Covariates = []
    categorical: Categorical = []
    alternative: Alternative = "two-sided"
    models: OneOrMany[Model] = "linear"
    """Dose-response models"""
    reference_levels: Annotated[
        ReferenceLevels | Absent, one_of("models", "linear", "mixed") & WITH_COVARIATES
    ] = None
    candidates: Annotated[list[Candidate] | dict[str, Any] | Absent, MCPMOD] = None
    """Dose-response shapes of MCP-Mod: names of models, or blocks {model: emax, ed50: 3} with
    guesses in units of the dose; a list, or a mapping of names to blocks
    """
    direction: Annotated[
        Literal["increasing", "decreasing"], one_of("models", "mcpmod", "williams")
    ] = "increasing"
    """Direction of a dose response"""
    target_effect: Annotated[Number | Absent, MCPMOD] = None
    """Effect over the lowest dose whose dose MCP-Mod estimates, unit of the endpoint"""
    resamples: Annotated[Resamples, TARGET] = 500
    seed: Annotated[Seed, TARGET] = SEED
