"""Record of the lesion frequency maps of one entry of ``measurement.frequency_maps``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corelab.records.base import Record, many, omitted, one


@dataclass(frozen=True, slots=True)
class SideShare(Record):
    """Share of participants whose lesion lies mostly on the left, 0 to 1; None without any.

    Attributes
    ----------
    left, ci_low, ci_high, ci_level
        The share and its interval.
    n
        Participants with a lesion that the midline does not halve.
    mean_left_fraction
        Mean share of the lesion on the left.
    """

    left: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    ci_level: float | None = omitted()
    mean_left_fraction: float | None = omitted()
    method: str | None = omitted()


@dataclass(frozen=True, slots=True)
class LevelMap(Record):
    """Map of one level of a comparison, and its sidecar.

    Attributes
    ----------
    compare, level
        Compared column and level; None where nothing is compared.
    denominator, n
        What the counts are divided by, ``enrolled`` or ``mapped``, and its number.
    n_mapped
        Participants with a mask in MNI152 space.
    path
        ``maps/<name>.nii.gz``.
    """

    label: str
    compare: str | None
    level: str | None
    visit: str | None
    source: str | None
    denominator: str
    n: int
    n_enrolled: int
    n_mapped: int
    largest_fraction: float
    largest_count: int
    sides: SideShare = field(metadata=one(SideShare))
    participants: tuple[str, ...]
    unit: str = "fraction"
    description: str = "share of participants with lesion at each voxel"
    status: str = "ok"
    path: str | None = omitted()


@dataclass(frozen=True, slots=True)
class MapDifference(Record):
    """Difference of the maps of two levels among the mapped, with its permutation test.

    Attributes
    ----------
    n
        Participants of the first and second level; pairs where ``paired``.
    threshold_abs_z
        |z| from which a voxel is significant; None where no permutation reaches it.
    exact
        Whether all permutations were carried out.
    """

    first: str
    second: str
    status: str = "ok"
    reason: str | None = None
    n: tuple[int, ...] | None = omitted()
    paired: bool | None = omitted()
    largest_difference: float | None = omitted()
    threshold_abs_z: float | None = omitted()
    alpha: float | None = omitted()
    smallest_p_corrected: float | None = omitted()
    voxels_tested: int | None = omitted()
    voxels_significant: int | None = omitted()
    permutations: int | None = omitted()
    exact: bool | None = omitted()
    method: str | None = omitted()
    difference_path: str | None = omitted()
    p_corrected_path: str | None = omitted()


@dataclass(frozen=True, slots=True)
class FrequencyMaps(Record):
    """``maps/<id>_maps.json``; ``settings`` is the entry of the config, ``sha256`` of the maps."""

    id: str
    settings: Mapping[str, Any]
    status: str = "ok"
    reason: str | None = None
    maps: tuple[LevelMap, ...] = many(LevelMap)
    difference: MapDifference | None = field(default=None, metadata=one(MapDifference))
    sha256: Mapping[str, str] = field(default_factory=dict)
