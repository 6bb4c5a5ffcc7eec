"""Overlap of masks."""

from __future__ import annotations

from typing import ClassVar, Literal

from corelab.settings.analyses.base import (
    AnalysisType,
    ByVisit,
    Clustered,
    Sources,
    Visit,
)
from corelab.settings.base import Absent


class OverlapSpec(Clustered):
    """Overlap of the masks of several sources."""

    kind: ClassVar = AnalysisType(
        "overlap",
        "Overlap of masks",
        table="overlap",
        part="reproducibility",
        number="14.4.7",
        figure="",
        headline=("dice", "dice_median", "hd95_mm_median", "volume_difference_ml"),
        main=("dice", "dice_median", "hd95_mm_median", "volume_difference_ml"),
        datasets=("ADSEG",),
    )

    type: Literal["overlap"]
    label: str
    """Mask label of an overlap analysis; elsewhere a title"""
    visit: Visit | Absent = None
    sources: Sources = "all"
    by_visit: ByVisit = False
