"""Quantile regression."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corelab.settings.analyses.base import (
    SEED,
    WITH_COVARIATES,
    AnalysisType,
    Cluster,
    Dose,
    Exposure,
    ExposureVisit,
    Modelled,
    OneValue,
    Outcome,
    OutcomeVisit,
    ReferenceLevels,
    Resamples,
    Seed,
    Share,
    given,
)


class QuantileSpec(OneValue, Modelled):
    """Quantiles of an imaging endpoint by arm, dose, exposure and covariates."""

    kind: ClassVar = AnalysisType(
        "quantile",
        "Quantile regression",
        number="14.2.7",
        headline=("quantile_coefficient",),
        by_participant=True,
    )

    type: Literal["quantile"]
    quantiles: list[Share] = Field(description="Quantiles, 0 to 1")
    dose: Dose | None = None
    exposure: Exposure | None = None
    exposure_visit: Annotated[ExposureVisit | None, given("exposure")] = None
    outcome: Outcome | None = None
    outcome_visit: Annotated[OutcomeVisit | None, given("outcome")] = None
    reference_levels: Annotated[ReferenceLevels | None, WITH_COVARIATES] = None
    cluster: Cluster | None = None
    resamples: Resamples | None = None
    seed: Annotated[Seed, given("resamples", "cluster")] = SEED
