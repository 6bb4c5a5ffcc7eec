"""Records of measuring: rows of the measurements table, and overlaps of masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from corelab.records.base import Record, many, omitted
from corelab.records.images import AcquisitionRow


@dataclass(frozen=True, slots=True)
class MeasurementRow(Record):
    """A row of ``measurements.tsv``.

    Attributes
    ----------
    endpoint
        Registered in :mod:`corelab.terms.endpoints`, or named by the study.
    source
        ``pipeline``, ``pipeline:<variant>``, ``supplied``, a reader or other software.
    repeat
        Number of the reading, from 1.
    region
        ``all``, or a territory or hemisphere.
    value, unit
        None where the status is not ``ok``.
    scan_ids
        Scans behind the value, joined by commas.
    row_id
        Of the collected table.
    """

    participant_id: str
    visit: str
    endpoint: str
    source: str
    repeat: int
    region: str
    value: float | None
    unit: str | None
    status: str
    reason: str | None
    scan_ids: str | None
    row_id: str | None = omitted()

    @property
    def key(self) -> tuple[str, str, str, str, int, str]:
        """What identifies the row."""
        return (
            *(self.participant_id, self.visit, self.endpoint),
            *(self.source, self.repeat, self.region),
        )


@dataclass(frozen=True, slots=True)
class OverlapRow(Record):
    """A row of ``overlap.tsv``: one metric of two sources of a label."""

    participant_id: str
    visit: str
    label: str
    source_a: str
    source_b: str
    repeat: int
    metric: str
    value: float | str | None
    status: str
    reason: str | None
    scan_ids: str | None


@dataclass(frozen=True, slots=True)
class SuppliedScan(Record):
    """File of a supplied mask of a visit without images, with what was found on reading it."""

    participant_id: str
    visit: str
    kind: str
    scan_id: str
    source: str
    status: str = "ok"
    reason: str | None = None
    sha256: str | None = None
    remedy: str | None = omitted()
    notes: tuple[str, ...] | None = omitted()
    warnings: tuple[str, ...] | None = omitted()


@dataclass(frozen=True, slots=True)
class UnmeasuredVisit(Record):
    """A visit whose measurement ended in an unexpected error, with its cause."""

    visit: str
    reason: str
    status: str = "failed"


@dataclass(frozen=True, slots=True)
class Measured(Record):
    """Record of the stage ``measure``: all visits of a participant.

    Attributes
    ----------
    unmeasured
        Visits that could not be measured.
    sources
        Records of the stages before, relative to the study's folder.
    """

    stage: ClassVar[str] = "measure"
    participant_id: str
    rows: tuple[MeasurementRow, ...] = many(MeasurementRow)
    overlap: tuple[OverlapRow, ...] = many(OverlapRow)
    acquisition: tuple[AcquisitionRow, ...] = many(AcquisitionRow)
    unmeasured: tuple[UnmeasuredVisit, ...] = many(UnmeasuredVisit)
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MeasuredSupplied(Record):
    """Record of the rule ``measure_supplied``: masks of many visits without images."""

    stage: ClassVar[str] = "measure_supplied"
    rows: tuple[MeasurementRow, ...] = many(MeasurementRow)
    overlap: tuple[OverlapRow, ...] = many(OverlapRow)
    scans: tuple[SuppliedScan, ...] = many(SuppliedScan)
    acquisition: tuple[AcquisitionRow, ...] = many(AcquisitionRow)


@dataclass(frozen=True, slots=True)
class Repeated(Record):
    """Record of the rule ``noise_repeat``: rows of a subject that was measured with a seed."""

    stage: ClassVar[str] = "noise_repeat"
    participant_id: str
    seed: int
    rows: tuple[MeasurementRow, ...] = many(MeasurementRow)


@dataclass(frozen=True, slots=True)
class Recovered(Record):
    """Record of the rule ``plant_lesions``; rows as in ``quality/recovery.tsv``."""

    stage: ClassVar[str] = "recovery"
    participant_id: str
    visit: str
    rows: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Featured(Record):
    """Record of the stage ``radiomics``; ``combinations`` say what became of each series."""

    stage: ClassVar[str] = "radiomics"
    participant_id: str
    visit: str
    status: str = "ok"
    reason: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    combinations: tuple[Mapping[str, Any], ...] = ()
    products: Mapping[str, str] | None = omitted()
