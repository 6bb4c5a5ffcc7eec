"""Records of the image stages ``prepare`` and ``segment``.

Paths are relative to the study's results folder, volumes are in mL, sizes in mm. A ``status`` is
``ok``, ``failed`` (a fault of a file, with its ``reason``) or ``not_computable``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from corelab.records.base import Record, by_key, many, omitted, one, settings_used

#: Source of a mask that names no reader.
SUPPLIED = "supplied"
#: First words of the reasons of DICOM files that should be exported again.
DAMAGED = ("damaged", "truncated", "empty")
#: Criteria of the acquisition table whose rows have a reason.
_EXPLAINED = ("readable", "left_right", "brain_mask", "brain_in_field")


@dataclass(frozen=True, slots=True)
class ScanRow(Record):
    """Row of the scans sheet.

    Attributes
    ----------
    kind, participant_id, visit
        As in the sheet; ``mask-<label>`` is the kind of a mask.
    path, source
        File, absolute; and as the sheet names it.
    scan_id
        Identifier, unique in the study.
    reader, repeat, space, label_values
        Of a mask: who drew it, number of the reading from 1, ``native`` or ``MNI152``, and the
        values of its voxels that count.
    acquired_at, echo_time_s, repetition_time_s, b_value, scan_duration_s
        Acquisition; the b value in s/mm2.
    scanner, sequence, contrast_phase
        Acquisition, in words.
    line, simulated, exists, bytes
        Line in the sheet; whether the workflow makes the file, whether it exists, and its size.
        Not known to jobs.
    """

    kind: str
    path: str
    scan_id: str
    participant_id: str = ""
    visit: str = ""
    source: str = ""
    reader: str | None = None
    repeat: int = 1
    space: str = "native"
    label_values: str | None = None
    acquired_at: str | None = None
    echo_time_s: float | None = None
    repetition_time_s: float | None = None
    b_value: float | None = None
    scanner: str | None = None
    sequence: str | None = None
    contrast_phase: str | None = None
    scan_duration_s: float | None = None
    line: int = 0
    simulated: bool = False
    exists: bool = True
    bytes: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Participant and visit."""
        return self.participant_id, self.visit

    @property
    def is_mask(self) -> bool:
        """Whether the file is a supplied mask."""
        return self.kind.startswith("mask-")

    @property
    def label(self) -> str:
        """Label of a mask."""
        return self.kind.removeprefix("mask-")


@dataclass(frozen=True, slots=True)
class InsertRow(Record):
    """Row of the phantoms sheet: one insert, with the paths of its image and its mask.

    ``line`` and ``simulated`` are as in :class:`ScanRow`.
    """

    site: str
    scanner: str
    acquired_at: str
    kind: str
    insert: str
    unit: str
    certified_value: float | None = None
    role: str | None = None
    path: str | None = None
    mask_path: str | None = None
    label_values: str | None = None
    measured_value: float | None = None
    line: int = 0
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Conversion(Record):
    """How a DICOM series became an image; ``pixels`` says whether stored values stayed the same."""

    pixels: str
    command: str
    dcm2niix: str


@dataclass(frozen=True, slots=True)
class DicomSeries(Record):
    """A series of a DICOM folder; ``kind`` is None for one that is not analysed."""

    number: int | None
    description: str | None
    modality: str | None
    kind: str | None
    images: int
    lossy: bool
    conversion: Conversion | None = field(default=None, metadata=one(Conversion))


@dataclass(frozen=True, slots=True)
class LeftOut(Record):
    """Files of a DICOM folder that were not used for one reason; the first are named."""

    reason: str
    count: int
    files: tuple[str, ...]

    @property
    def damaged(self) -> bool:
        """Whether the files should be exported again."""
        return self.reason.startswith(DAMAGED)


@dataclass(frozen=True, slots=True)
class DicomListing(Record):
    """Content of a DICOM folder; ``identifying_tags`` gives the number of files by tag."""

    series: tuple[DicomSeries, ...] = many(DicomSeries)
    left_out: tuple[LeftOut, ...] = many(LeftOut)
    identifying_tags: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scan(Record):
    """A scan of the scans sheet as it was read; a DICOM row gives one per kind found.

    Attributes
    ----------
    scan_id
        Of the row.
    kind
        Kind of scan; ``mask-<label>`` for a supplied mask.
    label, reader
        Of a supplied mask; None for images, and where no reader is named.
    repeat
        Number of the scan or of the reading, from 1.
    space
        ``native`` or ``MNI152``.
    source, sha256
        File as listed, and its digest.
    path
        The conformed file; None where the scan failed.
    unit, shape, voxel_size_mm
        Of the conformed image.
    grid
        Id of its grid in the visit: ``g1``, ``g2`` ... or ``mni1`` ...
    on_kind
        Kind of the image on whose grid a mask lies.
    status, reason, remedy
        What is wrong with the file and how to correct it.
    notes, warnings
        What was changed on reading, and what is doubtful.
    metadata
        Acquisition facts, units in their names (``echo_time_s``, ``frame_times_s``).
    dicom
        Listing of the DICOM folder.
    volume_ml
        Of a mask.
    """

    scan_id: str
    kind: str
    label: str | None = None
    reader: str | None = None
    repeat: int = 1
    space: str = "native"
    source: str = ""
    sha256: str | None = None
    path: str | None = None
    unit: str | None = None
    shape: tuple[int, ...] | None = None
    voxel_size_mm: tuple[float, ...] | None = None
    grid: str | None = None
    on_kind: str | None = None
    status: str = "ok"
    reason: str | None = None
    remedy: str | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    dicom: DicomListing | None = field(default=None, metadata=one(DicomListing))
    volume_ml: float | None = omitted()

    @property
    def usable(self) -> bool:
        """Whether there is a conformed file."""
        return self.status == "ok" and self.path is not None

    @property
    def file(self) -> str:
        """Path of the conformed file of a usable scan."""
        assert self.path is not None, f"scan {self.scan_id} has no conformed file"
        return self.path

    @property
    def mask_source(self) -> str:
        """Source of the rows of a supplied mask."""
        return self.reader or SUPPLIED


@dataclass(frozen=True, slots=True)
class Cut(Record):
    """A side at which the field of view ends within the brain."""

    side: str
    area_cm2: float
    outside_mm: float


@dataclass(frozen=True, slots=True)
class HeadPose(Record):
    """Affine fit of the template to a head, for the stages after the one that made it.

    Attributes
    ----------
    scan_id
        The image that was fitted.
    matrix
        The 16 numbers of the 4 x 4, row by row: MNI mm to the image's world mm.
    score
        See :class:`corelab.imaging.head_fit.HeadFit`.
    """

    scan_id: str
    matrix: tuple[float, ...]
    score: float


@dataclass(frozen=True, slots=True)
class BrainQuality(Record):
    """Judgement of a brain mask.

    Attributes
    ----------
    source
        ``supplied``, the kind that the mask was made from, or ``<kind> of <grid>``.
    kind
        Kind of the image on its grid.
    volume_ml, limits_ml
        Its volume, and the range in which it passes.
    verdict
        See :mod:`corelab.terms.verdicts`.
    cut
        Sides at which the brain is cut off.
    method
        Method of the brain extraction.
    own_volume_ml
        What the image alone gave, of a mask that was brought from another image.
    disagrees_dice
        Dice with the mask of another image, where they disagree.
    head
        Fit of the template that the mask rests on.
    """

    source: str
    kind: str | None = None
    volume_ml: float = 0.0
    limits_ml: tuple[float, ...] = ()
    verdict: str = "pass"
    cut: tuple[Cut, ...] = many(Cut)
    method: str | None = omitted()
    own_volume_ml: float | None = omitted()
    disagrees_dice: float | None = omitted()
    head: HeadPose | None = field(default=None, metadata={**one(HeadPose), "omitted": True})


@dataclass(frozen=True, slots=True)
class Transform(Record):
    """Rigid transform of a grid within its visit.

    Attributes
    ----------
    to
        Reference grid.
    path
        ITK matrix, reference to grid points; None for the identity.
    method
        ``identity``, ``rigid`` or ``header``.
    quality
        Metrics of the fit.
    """

    to: str
    path: str | None = None
    method: str = "identity"
    quality: Mapping[str, Any] = field(default_factory=dict)
    status: str = "ok"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AcquisitionRow(Record):
    """Row of the acquisition table; ``participant_id`` and ``visit`` are added by ``measure``.

    Attributes
    ----------
    criterion
        Limit of the charter, or ``gate:<criterion>`` of a perfusion series.
    value, limit
        Observed and allowed, number or words.
    verdict
        ``pass``, ``fail`` or ``not_assessable``.
    """

    kind: str
    criterion: str
    value: float | str | None
    limit: float | str | None
    verdict: str
    reason: str | None = None
    scan_id: str | None = omitted()
    participant_id: str | None = omitted()
    visit: str | None = omitted()

    @property
    def unwritten(self) -> tuple[str, ...]:
        """Limits of the charter and gates have no ``reason``."""
        return () if self.criterion in _EXPLAINED else ("reason",)


@dataclass(frozen=True, slots=True)
class Mask(Record):
    """A mask of the stages ``segment`` and ``perfuse``.

    Attributes
    ----------
    label, source
        What is outlined, and by what: ``pipeline``, ``pipeline:<variant>``, ``consensus:<method>``
        or a reader.
    desc
        Entity ``desc`` of the file's name.
    path
        None where there is no mask.
    kind, grid
        Scan that it was drawn on.
    scan_ids
        Scans that it came from.
    parameters, quality
        Settings of the method, and its figures (``volume_ml``, ``flags`` ...).
    """

    label: str
    source: str
    desc: str | None = None
    path: str | None = None
    kind: str | None = None
    grid: str | None = None
    scan_ids: tuple[str, ...] = ()
    status: str = "ok"
    reason: str | None = None
    parameters: Mapping[str, Any] = settings_used()
    quality: Mapping[str, Any] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether there is a file."""
        return self.status == "ok" and self.path is not None

    @property
    def file(self) -> str:
        """Path of a usable mask."""
        assert self.path is not None, f"mask {self.label} ({self.source}) has no file"
        return self.path


@dataclass(frozen=True, slots=True)
class Prepared(Record):
    """Record of the stage ``prepare``.

    Attributes
    ----------
    scans
        In the order of the sheet.
    brain_masks, brain_mask_quality
        By grid.
    reference
        Grid that the others are aligned to; None without an image.
    acquisition
        Verdicts on the acquisition.
    transforms
        By grid; empty before the alignment.
    products
        File -> sha256 of everything that the record names; None before it is written.
    """

    stage: ClassVar[str] = "prepare"
    participant_id: str
    visit: str
    status: str = "ok"
    reason: str | None = None
    scans: tuple[Scan, ...] = many(Scan)
    brain_masks: Mapping[str, str] = field(default_factory=dict)
    brain_mask_quality: Mapping[str, BrainQuality] = by_key(BrainQuality)
    reference: str | None = None
    acquisition: tuple[AcquisitionRow, ...] = many(AcquisitionRow)
    transforms: Mapping[str, Transform] = by_key(Transform)
    products: Mapping[str, str] | None = omitted()


@dataclass(frozen=True, slots=True)
class Segmented(Record):
    """Record of the stage ``segment``: one mask per lesion and source, also where it failed."""

    stage: ClassVar[str] = "segment"
    participant_id: str
    visit: str
    masks: tuple[Mask, ...] = many(Mask)
    products: Mapping[str, str] | None = omitted()
