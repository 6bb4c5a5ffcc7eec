"""Overlap of two or more masks on one grid, every distance in mm of the grid.

Definitions, because programs differ (Maier-Hein 2024, Nat Methods 21:195, "Metrics reloaded"):
the surface of a mask is its voxels with a face neighbour outside; HD95 is the larger of the two
directed 95th percentiles (MONAI, BraTS; not the percentile of the pooled distances of MedPy);
ASSD is the mean over both surfaces pooled; NSD the share of both surfaces within the tolerance.

Empty masks: both empty, nothing can overlap, so Dice, Jaccard, NSD and distances are not defined
and the volume difference is 0. One empty: Dice, Jaccard and NSD are 0 and distances are infinite,
the worst rank, rather than left out (a miss must not improve a mean).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

METRICS = (
    "dice",
    "jaccard",
    "hd95_mm",
    "assd_mm",
    "nsd",
    "volume_difference_ml",
    "lesion_sensitivity",
    "lesion_precision",
    "lesion_f1",
)
#: Of three or more sources together.
MANY_METRIC = "generalised_dice"

BOTH_EMPTY = "both masks are empty"
ONE_EMPTY = "one mask is empty: counted as the worst"
NO_LESION = "the mask has no lesion: nothing to detect"
SHEARED = "the grid is sheared: distances along its axes are no distances in mm"

Mask = NDArray[np.bool_]


def _checked(a: ArrayLike, b: ArrayLike) -> tuple[Mask, Mask]:
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape:
        raise ValueError(
            f"masks of shapes {first.shape} and {second.shape}: resample them to one grid first"
        )
    return first.astype(bool), second.astype(bool)


def _spacing(affine_or_spacing: ArrayLike) -> tuple[NDArray[np.float64], bool]:
    """Voxel size in mm and whether the axes are at right angles."""
    given = np.asarray(affine_or_spacing, dtype=np.float64)
    if given.ndim == 1:
        if (given <= 0).any():
            raise ValueError(f"voxel size {given.tolist()}: every side must be above 0 mm")
        return given, True
    matrix = given[:-1, :-1]
    size = np.linalg.norm(matrix, axis=0)
    if (size <= 0).any():
        raise ValueError("the affine has a side of length 0")
    cosines = (matrix / size).T @ (matrix / size)
    return size, bool(np.abs(cosines - np.eye(len(size))).max() < 1e-3)


def _jaccard(a: ArrayLike, b: ArrayLike) -> float:
    """Jaccard index, |A and B| / |A or B|; NaN if both are empty (Jaccard 1912)."""
    first, second = _checked(a, b)
    size = int((first | second).sum())
    return int((first & second).sum()) / size if size else float("nan")


def _volume_difference_ml(a: ArrayLike, b: ArrayLike, affine: ArrayLike) -> float:
    """Volume of ``a`` minus volume of ``b`` in mL."""
    first, second = _checked(a, b)
    given = np.asarray(affine, dtype=np.float64)
    voxel_mm3 = float(np.prod(given)) if given.ndim == 1 else abs(np.linalg.det(given[:-1, :-1]))
    return float((int(first.sum()) - int(second.sum())) * voxel_mm3 / 1000.0)


def _surface(mask: ArrayLike) -> Mask:
    """Voxels of a mask that have a face neighbour outside it (or outside the image)."""
    from scipy import ndimage

    inside = np.asarray(mask).astype(bool)
    return inside & ~ndimage.binary_erosion(inside, border_value=0)


def _cropped(first: Mask, second: Mask) -> tuple[Mask, Mask]:
    """Both masks cut to the box that holds them: distances inside it stay exact."""
    both = first | second
    box = []
    for axis in range(both.ndim):
        used = np.flatnonzero(both.any(axis=tuple(i for i in range(both.ndim) if i != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return first[tuple(box)], second[tuple(box)]


@dataclass(frozen=True)
class _SurfaceDistances:
    """Distances in mm from every surface voxel of one mask to the surface of the other."""

    first_to_second_mm: NDArray[np.float64]
    second_to_first_mm: NDArray[np.float64]

    @property
    def hd95_mm(self) -> float:
        """Larger of the two directed 95th percentiles (linear interpolation)."""
        both = self.first_to_second_mm, self.second_to_first_mm
        return max(float(np.percentile(distances, 95)) for distances in both)

    @property
    def assd_mm(self) -> float:
        """Mean over both surfaces pooled."""
        total = self.first_to_second_mm.sum() + self.second_to_first_mm.sum()
        return float(total / (self.first_to_second_mm.size + self.second_to_first_mm.size))

    def nsd(self, tolerance_mm: float) -> float:
        """Share of both surfaces that lies within ``tolerance_mm`` of the other."""
        within = int((self.first_to_second_mm <= tolerance_mm).sum()) + int(
            (self.second_to_first_mm <= tolerance_mm).sum()
        )
        return within / (self.first_to_second_mm.size + self.second_to_first_mm.size)


def _surface_distances(a: ArrayLike, b: ArrayLike, spacing_mm: ArrayLike) -> _SurfaceDistances:
    """Distances between the surfaces of two masks that are not empty."""
    from scipy import ndimage

    first, second = _checked(a, b)
    if not first.any() or not second.any():
        raise ValueError("distances between surfaces need two masks that are not empty")
    first, second = _cropped(first, second)
    edge_first, edge_second = _surface(first), _surface(second)
    sampling = np.asarray(spacing_mm, dtype=np.float64)
    to_second = ndimage.distance_transform_edt(~edge_second, sampling=sampling)
    to_first = ndimage.distance_transform_edt(~edge_first, sampling=sampling)
    return _SurfaceDistances(to_second[edge_first], to_first[edge_second])


class Metric(NamedTuple):
    """A metric of overlap: None where it is not defined, with the reason."""

    value: float | None
    status: str
    reason: str | None


def _result(value: float, reason: str | None = None) -> Metric:
    if np.isnan(value):
        return Metric(None, "not_computable", reason)
    return Metric(float(value), "ok", reason)


def overlap_metrics(
    a: ArrayLike, b: ArrayLike, affine: ArrayLike, *, nsd_tolerance_mm: float = 2.0
) -> dict[str, Metric]:
    """All overlap metrics of two masks on one grid, with a reason where one is not defined.

    ``affine`` is that of the grid, or its voxel size in mm. Distances to an empty mask are
    infinite, with status ``ok``; see the head of this module.

    Raises ValueError if the shapes differ or the voxel size is not positive.

    Examples
    --------
    >>> a, b = np.zeros((4, 4, 4)), np.zeros((4, 4, 4))
    >>> a[1:3, 1:3, 1:3] = 1; b[1:3, 1:3, 2:4] = 1
    >>> result = overlap_metrics(a, b, np.diag([1.0, 1.0, 3.0, 1.0]))
    >>> [result[name].value for name in ("dice", "hd95_mm", "volume_difference_ml")]
    [0.5, 3.0, 0.0]
    """
    first, second = _checked(a, b)
    spacing, right_angled = _spacing(affine)
    difference = _result(_volume_difference_ml(first, second, affine))
    empty = int(not first.any()) + int(not second.any())
    if empty == 2:
        nothing = _result(float("nan"), BOTH_EMPTY)
        return {**dict.fromkeys(METRICS, nothing), "volume_difference_ml": difference}
    if empty == 1:
        worst = {"dice": 0.0, "jaccard": 0.0, "hd95_mm": np.inf, "assd_mm": np.inf, "nsd": 0.0}
        return {
            **{metric: _result(value, ONE_EMPTY) for metric, value in worst.items()},
            "volume_difference_ml": difference,
            **_detection(first, second),
        }
    result = {
        "dice": _result(generalised_dice([first, second])),
        "jaccard": _result(_jaccard(first, second)),
    }
    if right_angled:
        distances = _surface_distances(first, second, spacing)
        result["hd95_mm"] = _result(distances.hd95_mm)
        result["assd_mm"] = _result(distances.assd_mm)
        result["nsd"] = _result(distances.nsd(nsd_tolerance_mm))
    else:
        for metric in ("hd95_mm", "assd_mm", "nsd"):
            result[metric] = _result(float("nan"), SHEARED)
    result["volume_difference_ml"] = difference
    return {**result, **_detection(first, second)}


def _detection(candidate: Mask, reference: Mask) -> dict[str, Metric]:
    """Lesion-wise detection of the second mask's lesions by the first mask."""
    found = _detect_lesions(candidate, reference)
    return {
        "lesion_sensitivity": _result(found.sensitivity, None if found.n_reference else NO_LESION),
        "lesion_precision": _result(found.precision, None if found.n_candidates else NO_LESION),
        "lesion_f1": _result(found.f1),
    }


def generalised_dice(masks: Sequence[ArrayLike]) -> float:
    """Dice of two or more readers: 2 sum |Ai and Aj| / sum (|Ai| + |Aj|) over all pairs.

    The pairwise form of Kouwenhoven 2009 (Phys Med Biol 54:N479), for Dice; equals Dice for two.

    Examples
    --------
    >>> generalised_dice([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    0.6666666666666666
    """
    stack = [np.asarray(mask).astype(bool) for mask in masks]
    if len(stack) < 2 or any(mask.shape != stack[0].shape for mask in stack):
        raise ValueError("two or more masks of one shape are needed")
    votes = np.zeros(stack[0].shape, dtype=np.int64)
    for mask in stack:
        votes += mask
    size = int(votes.sum()) * (len(stack) - 1)
    return float(np.sum(votes * (votes - 1))) / size if size else float("nan")


@dataclass(frozen=True)
class _LesionDetection:
    """Detection of the lesions of a reference; NaN where there is no denominator."""

    n_reference: int
    n_found: int
    n_candidates: int
    n_false: int
    sensitivity: float
    precision: float
    f1: float


def _detect_lesions(candidate: ArrayLike, reference: ArrayLike) -> _LesionDetection:
    """Lesion-wise sensitivity, precision and F1; a lesion is a 26-connected component.

    A reference lesion is found if at least one voxel of it is covered by the candidate mask; a
    candidate lesion is false if no voxel of it touches the reference.
    """
    from scipy import ndimage

    mask, truth = _checked(candidate, reference)
    everywhere = np.ones((3,) * mask.ndim)
    truth_labels, lesions = ndimage.label(truth, structure=everywhere)
    mask_labels, candidates = ndimage.label(mask, structure=everywhere)
    shared = mask & truth
    found, true = (np.unique(labels[shared]).size for labels in (truth_labels, mask_labels))
    sensitivity = found / lesions if lesions else float("nan")
    precision = true / candidates if candidates else float("nan")
    both = sensitivity + precision
    if np.isnan(both):
        f1 = float("nan") if not lesions and not candidates else 0.0
    else:
        f1 = 2.0 * sensitivity * precision / both if both else 0.0
    return _LesionDetection(
        lesions, found, candidates, candidates - true, sensitivity, precision, f1
    )
