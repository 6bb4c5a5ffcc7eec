"""Sample size."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen
from pydantic import Field

from corelab.settings.analyses.agreement import SEED
from corelab.settings.analyses.base import (
    RESAMPLES,
    AnalysisType,
    Exceeds,
    LimitsCoverage,
    Need,
    OneOrMany,
    OpenShare,
    Placed,
    Region,
    Reliability,
    Resamples,
    Seed,
    Sources,
    Visit,
    texts,
    without,
)
from corelab.settings.base import Absent, Fraction, Number, Positive, Share

Method = Literal["means", "icc", "icc_exceeds", "kappa", "limits", "mmrm", "ordinal", "survival"]


def _of(*methods: str) -> Need:
    def holds(analysis: Any, _: Collection[str]) -> bool:
        return bool(set(methods) & set(analysis.methods))

    return Need(holds, "method " + " or ".join(methods))


MEASURED = _of("means") & without("reliability")


class SampleSizeSpec(Placed):
    """Participants that a trial needs."""

    kind: ClassVar = AnalysisType(
        "sample_size", "Sample size", headline=("n_total", "n_per_arm", "power")
    )

    type: Literal["sample_size"]
    method: OneOrMany[Method] | Absent = None
    """Sample size of: means (default), icc (default where a width is given without a difference),
    icc_exceeds, kappa, limits, mmrm, ordinal, survival
    """
    visit: Annotated[Visit | Absent, MEASURED] = None
    region: Annotated[Region, MEASURED] = "all"
    sources: Annotated[Sources | Absent, MEASURED] = None
    resamples: Annotated[Resamples, MEASURED] = RESAMPLES
    seed: Annotated[Seed, MEASURED] = SEED
    difference: Annotated[Number | Absent, _of("means", "mmrm")] = None
    """Difference to be detected, unit of the endpoint"""
    sd: Annotated[Positive | Absent, _of("means", "mmrm", "limits")] = None
    """SD of one read of the endpoint, its unit; default measured"""
    per_arm: Annotated[Number | Absent, _of("means")] = Field(None, gt=1)
    """Participants per arm whose power is wanted"""
    icc_targets: Annotated[list[Share] | Absent, _of("means")] = None
    """Better reliabilities whose saving of participants is wanted"""
    reads: Annotated[list[Annotated[int, Field(ge=1)]], _of("means")] = [1, 2]
    """Numbers of reads that are averaged; default 1 and 2"""
    reliability: Annotated[Reliability | Absent, _of("means", "icc", "icc_exceeds", "kappa")] = None
    power: Annotated[OpenShare, _of("means", "icc_exceeds", "mmrm", "ordinal", "survival")] = 0.9
    """Power of a sample size, 0 to 1; default 0.9"""
    width: Annotated[Positive | Absent, _of("icc", "kappa", "limits")] = None
    """Sample size: full width of the confidence interval that is wanted"""
    raters: Annotated[int, _of("icc", "icc_exceeds")] = Field(2, ge=2)
    """Sample size of an ICC: readings per participant; default 2"""
    exceeds: Annotated[Exceeds | Absent, _of("icc_exceeds")] = None
    shares: Annotated[
        Annotated[list[Fraction], MinLen(2)] | Absent,
        _of("kappa", "ordinal"),
    ] = None
    """Sample size: expected share of each category (of the control arm for ordinal); they add up to
    1
    """
    odds_ratio: Annotated[Positive | Absent, _of("ordinal")] = None
    """Sample size of an ordinal outcome: common odds ratio to be detected"""
    correlation: Annotated[Number | Absent, _of("mmrm")] = Field(None, gt=-1, lt=1)
    """Sample size of an MMRM: correlation of two visits of a participant"""
    retention: Annotated[Annotated[list[Share], MinLen(1)] | Absent, _of("mmrm")] = None
    """Sample size of an MMRM: share of participants who remain at each visit after baseline"""
    hazard_ratio: Annotated[Positive | Absent, _of("survival")] = None
    """Sample size of a log-rank test: hazard ratio to be detected"""
    event_share: Annotated[Number, _of("survival")] = Field(1.0, gt=0, le=1)
    """Sample size of a log-rank test: share of participants with an event; default 1"""
    limits_coverage: Annotated[LimitsCoverage, _of("limits")] = 0.95

    @property
    def methods(self) -> list[str]:
        """As planned, else an ICC where a width without a difference is given, else means."""
        precise = self.width is not None and self.difference is None
        return texts(self.method) or ["icc" if precise else "means"]
