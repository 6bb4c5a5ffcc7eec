"""Time to event."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corelab.settings.analyses.base import (
    WITH_COVARIATES,
    AnalysisType,
    Assessor,
    Criterion,
    EventEndpoint,
    MaybeOneValue,
    Modelled,
    OneOrMany,
    ReferenceLevels,
    Strata,
    one_of,
)
from corelab.settings.base import Absent, Number, Positive

Method = Literal["km", "logrank", "cox", "rmst", "cuminc", "finegray", "interval", "time_varying"]


TO_TIME = one_of("method", "rmst", "cuminc", "cox", unset=True)


class SurvivalSpec(MaybeOneValue, Modelled):
    """Time to an event of the events sheet."""

    kind: ClassVar = AnalysisType(
        "survival",
        "Time to event",
        table="survival",
        part="survival",
        number="14.2.8",
        figure="drawings",
        headline=(
            *("hazard_ratio", "subdistribution_hazard_ratio", "interval_hazard_ratio"),
            *("median_days", "interval_median_days", "rmst_difference_adjusted_days"),
            *("rmst_difference_days", "logrank_p", "interval_logrank_p", "gray_p"),
        ),
        sheets=("events",),
        datasets=("ADTTE",),
    )

    type: Literal["survival"]
    event_endpoint: EventEndpoint
    criterion: Criterion | Absent = None
    assessor: Assessor | Absent = None
    method: OneOrMany[Method] | Absent = None
    """Estimator, or a list of them (docs/pharmacodynamics.md); default km, logrank and cox where
    they apply
    """
    reference_levels: Annotated[ReferenceLevels | Absent, WITH_COVARIATES] = None
    strata: Annotated[
        Strata, one_of("method", "logrank", "cox", "cuminc", "interval", unset=True)
    ] = []
    landmark_days: Annotated[
        Positive | Absent, one_of("method", "km", "logrank", "cox", "rmst", unset=True)
    ] = None
    """Survival of participants without the event at this day, counted from it, days"""
    tau_days: Annotated[Positive | Absent, TO_TIME] = None
    """Horizon of the restricted mean, the cumulative incidence or Uno's concordance, days"""
    visit_days: Annotated[
        dict[str, Annotated[Number, Field(ge=0)]] | Absent, one_of("method", "time_varying")
    ] = None
    """Day of each visit for an imaging endpoint that changes with time: visit -> day since the
    start of follow-up
    """
    competing_endpoint: Annotated[str | Absent, one_of("method", "cuminc", "finegray")] = None
    """Endpoint of the events sheet that precludes the event (death before progression)"""
