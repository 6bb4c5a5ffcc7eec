"""Progression by two criteria."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import MaxLen, MinLen
from pydantic import Field

from corelab.settings.analyses.base import (
    AnalysisSpec,
    AnalysisType,
    Assessor,
    EventEndpoint,
)
from corelab.settings.base import Absent, Number, Positive


class ProgressionSpec(AnalysisSpec):
    """Times of progression by two criteria of the events sheet."""

    kind: ClassVar = AnalysisType(
        "progression",
        "Progression criteria",
        table="survival",
        part="survival",
        number="14.2.9",
        figure="drawings",
        headline=("kappa", "r_squared"),
        sheets=("events",),
        datasets=("ADTTE",),
    )

    type: Literal["progression"]
    criteria: Annotated[list[str], MinLen(2), MaxLen(2)]
    """Two criteria of the events sheet"""
    event_endpoint: EventEndpoint = "pfs"
    survival_endpoint: str = "os"
    """Events endpoint that progression is related to"""
    assessor: Assessor | Absent = None
    window_days: Annotated[Number, Field(ge=0)] = 28.0
    """Two dates within this window count as the same, days"""
    early_days: Positive = 84.0
    """Discordance this early is counted apart (radiotherapy changes), days"""
    confirm_within_days: Positive | Absent = None
    """A progression up to this day counts only if confirmed (pseudoprogression rule), days"""
