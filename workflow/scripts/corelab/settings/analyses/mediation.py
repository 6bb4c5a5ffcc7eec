"""Mediation and surrogacy: the effect of an arm on an outcome through an imaging endpoint."""

from __future__ import annotations

from typing import ClassVar, Literal

from corelab.settings.analyses.base import (
    RESAMPLES,
    SEED,
    AnalysisType,
    Cluster,
    Modelled,
    OneValue,
    Outcome,
    OutcomeVisit,
    Resamples,
    ScaleOfValues,
    Seed,
)
from corelab.settings.base import Absent


class _ThroughEndpoint(OneValue, Modelled):
    outcome: Outcome
    outcome_visit: OutcomeVisit | Absent = None
    scale: ScaleOfValues = "identity"
    resamples: Resamples = RESAMPLES
    seed: Seed = SEED


class MediationSpec(_ThroughEndpoint):
    """Effect of the arm on an outcome that passes through an imaging endpoint."""

    kind: ClassVar = AnalysisType(
        "mediation", "Mediation", headline=("indirect_effect", "proportion_mediated")
    )

    type: Literal["mediation"]


class SurrogacySpec(_ThroughEndpoint):
    """How well an imaging endpoint stands for an outcome."""

    kind: ClassVar = AnalysisType(
        "surrogacy",
        "Surrogacy",
        headline=("proportion_explained", "r_squared_individual", "r_squared_trial"),
    )

    type: Literal["surrogacy"]
    cluster: Cluster | Absent = None
