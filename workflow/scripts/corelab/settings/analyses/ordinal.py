"""Ordinal outcomes."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from annotated_types import MinLen

from corelab.settings.analyses.base import (
    RESPONDER,
    AnalysisType,
    Better,
    MaybeOneValue,
    Modelled,
    Outcome,
    OutcomeVisit,
    Strata,
    given,
    without,
)
from corelab.settings.base import Absent, Number, Settings, Text

PAIRED_ARMS = given("by") | without("endpoint")


class OutcomeInOrder(Settings):
    """An outcome of a hierarchical win ratio."""

    outcome: Text
    """Outcome of the outcomes sheet"""
    better: Better = "low"
    """Which end is better"""


Hierarchy = Annotated[list[Text | OutcomeInOrder], MinLen(1)]


class OrdinalSpec(MaybeOneValue, Modelled):
    """A graded outcome by arm, or by an imaging endpoint."""

    kind: ClassVar = AnalysisType(
        "ordinal",
        "Ordinal model",
        number="14.2.6",
        headline=("common_odds_ratio", "risk_difference", "win_ratio"),
        by_participant=True,
    )

    type: Literal["ordinal"]
    outcome: Outcome
    outcome_visit: OutcomeVisit | Absent = None
    better: Better = "low"
    """Which end of a scale is better"""
    cut: Number | Absent = None
    """Cut point of a graded outcome"""
    utilities: Annotated[dict[Number | str, Number] | Absent, PAIRED_ARMS] = None
    """Utility of each grade of the outcome (utility-weighted mRS): grade -> utility"""
    hierarchy: Annotated[Hierarchy | Absent, PAIRED_ARMS] = None
    """Outcomes of a hierarchical win ratio, the most important first; a name (low is better), or a
    block
    """
    strata: Annotated[Strata, PAIRED_ARMS] = []
    odds_by_cut: Annotated[bool, PAIRED_ARMS] = False
    """Ordinal outcome: also the odds ratio of the arms at every cut (partial proportional odds),
    with the test that they are one
    """
    nonresponder_imputation: Annotated[bool, PAIRED_ARMS | RESPONDER] = False
    """Participants of the population without a value at the visit count as non-responders; of a
    graded outcome by arm: take the worst grade that anybody has; default false
    """
