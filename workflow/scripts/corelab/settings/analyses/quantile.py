"""Quantile regression."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

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
    OpenShare,
    Outcome,
    OutcomeVisit,
    ReferenceLevels,
    Resamples,
    Seed,
    given,
)
from corelab.settings.base import Absent


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
    quantiles: list[OpenShare]
    """Quantiles, 0 to 1"""
    dose: Dose | Absent = None
    exposure: Exposure | Absent = None
    exposure_visit: Annotated[ExposureVisit | Absent, given("exposure")] = None
    outcome: Outcome | Absent = None
    outcome_visit: Annotated[OutcomeVisit | Absent, given("outcome")] = None
    reference_levels: Annotated[ReferenceLevels | Absent, WITH_COVARIATES] = None
    cluster: Cluster | Absent = None
    resamples: Resamples | Absent = None
    seed: Annotated[Seed, given("resamples", "cluster")] = SEED
