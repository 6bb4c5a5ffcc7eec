"""Blocks of the config from masks to numbers: atlases, measurement, recovery and others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from corelab.settings.base import (
    UNIQUE,
    Absent,
    Count,
    NotNegative,
    Number,
    OneOrMore,
    Positive,
    Settings,
    Share,
    Text,
    Texts,
    pattern,
)


class AspectsLabels(Settings):
    """Labels of the ten ASPECTS regions of each side; gives the pipeline's infarcts an aspects
    row.
    """

    left: Annotated[tuple[int, ...], Field(min_length=10, max_length=10), UNIQUE]
    """Ten labels"""
    right: Annotated[tuple[int, ...], Field(min_length=10, max_length=10), UNIQUE]
    """Ten labels"""


class McaLabels(Settings):
    """Labels of the territory of the middle cerebral artery of each side; gives mca_fraction and
    mca_above_third.
    """

    left: Annotated[tuple[int, ...], Field(min_length=1), UNIQUE]
    """Labels"""
    right: Annotated[tuple[int, ...], Field(min_length=1), UNIQUE]
    """Labels"""


class AtlasSettings(Settings):
    """A region atlas."""

    name: Annotated[str, pattern(r"^[A-Za-z0-9_-]+$")]
    """Short name"""
    path: str
    """Label image"""
    labels: str
    """TSV with index and name, or lines 1|NAME|..."""
    space: Literal["MNI152"] = "MNI152"
    """Space of the label image"""
    aspects: AspectsLabels | Absent = None
    mca: McaLabels | Absent = None


class FrequencyMap(Settings):
    """Lesion frequency of one visit or source, or of two groups compared."""

    id: Annotated[str, pattern(r"^[A-Za-z0-9][A-Za-z0-9-]{0,40}$")]
    """Name of the maps: maps/<id>_frequency.nii.gz, and maps/<id>_<level>_frequency.nii.gz for
    groups
    """
    label: Text
    """Mask label"""
    visit: str | Absent = None
    """Visit; default the first with a mask"""
    source: str | Absent = None
    """Source of the masks; default pipeline, else supplied, else the first reader"""
    compare: str | Absent = None
    """What is compared: visit (the same participants before and after), a participants column, or
    risk:<id of a radiomics analysis>
    """
    permutations: Annotated[int, Field(ge=99)] = 999
    """Permutations of the difference map's test"""
    alpha: Annotated[Number, Field(gt=0, lt=1)] = 0.05
    """Familywise error of the difference map"""
    seed: Count = 1
    """Seed of the permutations"""


class MeasurementSettings(Settings):
    """From masks to numbers."""

    frequency_denominator: Literal["enrolled", "mapped"] = "mapped"
    """Lesion frequency is divided by subjects enrolled or mapped"""
    frequency_maps: tuple[FrequencyMap, ...] = ()
    """Further lesion frequency maps: at one visit, of one source, or two groups compared"""
    nsd_tolerance_mm: Positive = 2.0
    """Tolerance of the surface Dice, mm"""
    ghost_core_above_ml: NotNegative = 10.0
    """A CT core larger than the later infarct by more than this is a ghost core, mL"""
    aspects_min_share: Annotated[Number, Field(ge=0, lt=1)] = 0.2
    """An ASPECTS region is hit when more than this share of it is infarct"""
    shown_by: Mapping[str, Texts] = {}
    """Label -> further kinds of scan that may show it in this study (a haematoma on T2w, say)"""
    onset_to_ct_column: str = "onset_to_ct_min"
    """Participants column with minutes from onset to CT"""
    batch_size: OneOrMore = 40
    """Subjects whose supplied masks one job measures"""


class SerialImagingSettings(Settings):
    """Scans paired by the time after the index scan; a window becomes a visit of the measurements,
    with percent change, reversal and ghost core.
    """

    index_kind: str | Absent = None
    """Kind of the index scan, hours are counted from it; default the first scan of the baseline
    visit
    """
    scan_kinds: Texts = ("dwi", "adc", "mask-infarct", "FLAIR")
    """Kinds of scan that count as a later scan"""
    windows: (
        Literal["early_delayed", "immediate_delayed"]
        | Annotated[Mapping[str, tuple[NotNegative, NotNegative]], Field(min_length=1)]
    )
    """Name -> [from, to] in hours after the index scan, the upper limit excluded but for the last
    window; or the name of a published set
    """


class NoiseFloorSettings(Settings):
    """Registration, segmentation and measurement of some subjects are repeated with other seeds;
    endpoints/noise_floor.tsv holds what that alone changes.
    """

    subjects: Annotated[Texts, UNIQUE] = ()
    """Participants that are repeated; none means that no noise floor is computed"""
    seeds: Annotated[int, Field(ge=2, le=100)] = 5
    """How many repeats, each with a seed of its own (1, 2, ...)"""
    added_noise: NotNegative = 1.0
    """SD of the noise added to every image of a repeat, as a share of the noise that it has; 0
    changes the seed of the registration alone
    """


class RecoverySettings(Settings):
    """Target recovery: lesions of known shape are planted into the study's own scans, one at a
    time, and segmented; quality/recovery_summary.tsv says how well they are found by site and size.
    """

    subjects: Annotated[Texts, UNIQUE] = ()
    """Participants whose scans are planted into; default all, up to max_visits"""
    max_visits: OneOrMore = 20
    """At most so many visits, in the order of the scans sheet"""
    kinds: Annotated[tuple[Literal["dwi", "FLAIR", "ncct"], ...], Field(min_length=1), UNIQUE] = (
        "dwi",
        "FLAIR",
        "ncct",
    )
    """Kinds of scan that are planted into: dwi (infarct; ADC and b0 change with it), FLAIR
    (infarct, in glioma oedema), ncct (haematoma, infarct)
    """
    labels: Annotated[
        tuple[Literal["infarct", "haematoma", "oedema"], ...], Field(min_length=1), UNIQUE
    ] = ("infarct", "haematoma", "oedema")
    """Labels that are planted"""
    sizes_ml: Annotated[
        tuple[Annotated[Number, Field(gt=0, le=300)], ...], Field(min_length=1), UNIQUE
    ] = (0.5, 1, 2, 5, 15, 40)
    """Volumes, mL"""
    sites: Annotated[
        tuple[Literal["deep", "cortical", "bone", "posterior_fossa"], ...],
        Field(min_length=1),
        UNIQUE,
    ] = ("deep", "cortical", "bone", "posterior_fossa")
    """Where: deep (2 cm and more below the brain's surface), cortical, bone (the border touches the
    edge of the brain, in its lower two thirds), posterior_fossa; they take turns
    """
    per_size: Annotated[int, Field(ge=1, le=1000)] = 4
    """Plantings per visit, lesion and size"""
    detected_share: Share = 0.1
    """A lesion is detected when at least this share of it is segmented"""
    seed: Count = 1
    """Seed of shapes, places and contrasts"""
    shapes: Annotated[Texts, UNIQUE] = ()
    """Masks (NIfTI) whose shapes are planted, scaled to the sizes; default shapes of a model fitted
    to public masks
    """
    report: bool = False
    """Whether the report waits for it and shows it"""
