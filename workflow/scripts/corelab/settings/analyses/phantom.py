"""Bias and precision by inserts of known size."""

from __future__ import annotations

from typing import ClassVar, Literal

from corelab.settings.analyses.base import (
    AnalysisSpec,
    AnalysisType,
    Endpoint,
    Region,
    Sources,
    Visit,
)
from corelab.settings.base import Absent


class PhantomSpec(AnalysisSpec):
    """Measurements of phantoms against their certified values."""

    kind: ClassVar = AnalysisType(
        "phantom",
        "Phantom",
        table="phantom",
        part="phantom",
        number="14.4.6",
        figure="",
        headline=("bias", "slope", "within_cv_percent"),
        sheets=("phantoms",),
        datasets=(),
    )

    type: Literal["phantom"]
    truth: str
    """Column of the certified value"""
    endpoint: Endpoint | Absent = None
    sources: Sources | Absent = None
    visit: Visit | Absent = None
    region: Region = "all"
