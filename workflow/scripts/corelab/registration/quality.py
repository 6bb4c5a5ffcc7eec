"""Figures that say whether a registration worked, and the limits that make it a failed one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.registration.registrar import Transform
from corelab.registration.transforms import (
    Affine,
    Step,
    Warp,
    jacobian_determinant,
    transform_points,
)

#: Bins of the joint histogram.
BINS = 32


def normalised_mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Normalised mutual information (H(a) + H(b)) / H(a, b): 1 independent, 2 one-to-one.

    Parameters
    ----------
    first, second
        Values at the same places, one-dimensional, equal length; 32 bins between the 0.5th and
        99.5th percentile of each.

    Returns
    -------
    float
        NaN for fewer than 100 values or a constant image.

    References
    ----------
    Studholme C et al., Pattern Recognition 1999;32:71-86.

    Examples
    --------
    >>> values = np.arange(1000.0)
    >>> round(normalised_mutual_information(values, -values), 6)
    2.0
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values against {len(second)}")
    if len(first) < 100:
        return float("nan")
    binned = []
    for values in (first, second):
        low, high = np.percentile(values, [0.5, 99.5])
        if not high > low:
            return float("nan")
        scaled = (np.asarray(values, dtype=float) - low) / (high - low) * BINS
        binned.append(np.clip(scaled.astype(int), 0, BINS - 1))
    joint = np.bincount(binned[0] * BINS + binned[1], minlength=BINS**2).reshape(BINS, BINS)

    def entropy(counts: np.ndarray) -> float:
        share = counts[counts > 0] / len(first)
        return float(-(share * np.log(share)).sum())

    return (entropy(joint.sum(1)) + entropy(joint.sum(0))) / entropy(joint)


def sample_points(mask: np.ndarray, affine: np.ndarray, *, wanted: int = 40000) -> np.ndarray:
    """World points of every n-th voxel of a mask, at most about ``wanted``; shape (n, 3).

    Examples
    --------
    >>> sample_points(np.ones((4, 1, 1), bool), np.eye(4), wanted=2)[:, 0].tolist()
    [0.0, 2.0]
    """
    places = np.flatnonzero(mask)
    places = places[:: max(1, len(places) // wanted)]
    voxel = np.stack(np.unravel_index(places, mask.shape), axis=1)
    return Affine(affine)(voxel.astype(float))


def values_at(image: nib.Nifti1Image, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of an image at world points (linear) and whether they lie in its field of view.

    Examples
    --------
    >>> image = nib.Nifti1Image(np.arange(3.0).reshape(3, 1, 1), np.eye(4))
    >>> values, inside = values_at(image, np.array([[0.5, 0, 0], [9, 0, 0]]))
    >>> values.tolist(), inside.tolist()
    ([0.5, 0.0], [True, False])
    """
    voxel = Affine(np.linalg.inv(image.affine))(points_mm).T
    limits = np.array(image.shape[:3])[:, None] - 0.5
    inside = np.all((voxel >= -0.5) & (voxel <= limits), axis=0)
    data = np.asarray(image.dataobj, dtype=np.float32)
    values = np.zeros(len(points_mm), np.float32)
    values[inside] = ndimage.map_coordinates(data, voxel[:, inside], order=1, mode="nearest")
    return values, inside


def overlap(
    fixed_mask: nib.Nifti1Image,
    moving_mask: nib.Nifti1Image,
    to_fixed: Sequence[Step],
    to_moving: Sequence[Step],
) -> tuple[float, float]:
    """Dice of two brain masks where both images look, and the share of fixed that is seen.

    Evaluated on samples of both masks, so that images of any size cost the same:
    with a = share of fixed (in moving's field of view) that falls into moving, b the reverse,
    Dice = (a nf + b nm) / (nf + nm), nf and nm the volumes of the two within the common field.

    Examples
    --------
    >>> data = np.zeros((20, 20, 20), np.uint8); data[5:15, 5:15, 5:15] = 1
    >>> mask = nib.Nifti1Image(data, np.eye(4))
    >>> overlap(mask, mask, [], [])
    (1.0, 1.0)
    """
    volumes, shares, seen = [], [], []
    for here, there, steps in (
        (fixed_mask, moving_mask, to_fixed),
        (moving_mask, fixed_mask, to_moving),
    ):
        data = np.asarray(here.dataobj) != 0
        points = sample_points(data, here.affine)
        if not len(points):
            return 0.0, 0.0
        values, inside = values_at(there, transform_points(points, list(steps)))
        voxel_mm3 = abs(np.linalg.det(here.affine[:3, :3]))
        volumes.append(float(data.sum() * voxel_mm3 * inside.mean()))
        shares.append(float((values[inside] >= 0.5).mean()) if inside.any() else 0.0)
        seen.append(float(inside.mean()))
    if sum(volumes) == 0:
        return 0.0, 0.0
    dice = float(np.dot(volumes, shares) / math.fsum(volumes))
    return dice, seen[0]


def similarity(
    fixed: nib.Nifti1Image, moving: nib.Nifti1Image, steps: Sequence[Step]
) -> dict[str, float]:
    """Normalised mutual information and correlation over the brain of the fixed image.

    Both images are 0 outside the brain; points count where both are not.

    Examples
    --------
    >>> data = np.random.default_rng(1).uniform(1, 2, (12, 12, 12)).astype(np.float32)
    >>> image = nib.Nifti1Image(data, np.eye(4))
    >>> found = similarity(image, image, [])
    >>> round(found["mutual_information"], 3), round(found["correlation"], 3)
    (2.0, 1.0)
    """
    points = sample_points(np.asarray(fixed.dataobj) != 0, fixed.affine)
    here, _ = values_at(fixed, points)
    there, inside = values_at(moving, transform_points(points, list(steps)))
    both = inside & (there != 0)
    information = normalised_mutual_information(here[both], there[both])
    varied = both.sum() > 2 and np.ptp(here[both]) > 0 and np.ptp(there[both]) > 0
    correlation = float(np.corrcoef(here[both], there[both])[0, 1]) if varied else float("nan")
    return {"mutual_information": information, "correlation": correlation}


def best_start(
    fixed: nib.Nifti1Image, moving: nib.Nifti1Image, centred: np.ndarray
) -> tuple[np.ndarray, str]:
    """Where a rigid fit within a subject begins: the headers or the centres of mass.

    Scans of one session share the scanner's coordinates, those of two machines do not; a partial
    field of view moves the centre of mass. The start with the larger overlap-weighted mutual
    information is taken.

    Examples
    --------
    >>> data = np.random.default_rng(1).uniform(1, 2, (12, 12, 12)).astype(np.float32)
    >>> image = nib.Nifti1Image(data, np.eye(4))
    >>> best_start(image, image, np.diag([1.0, 1, 1, 1]))[1]
    'headers'
    """
    points = sample_points(np.asarray(fixed.dataobj) != 0, fixed.affine)
    here, _ = values_at(fixed, points)

    def score(matrix: np.ndarray) -> float:
        there, _ = values_at(moving, Affine(matrix)(points))
        # What is not seen counts as 0, so that a start without overlap has no information.
        information = normalised_mutual_information(here, there)
        return information if np.isfinite(information) else 0.0

    candidates = [(np.eye(4), "headers"), (np.asarray(centred), "centres of mass")]
    # Slightly different is not better: the headers win unless the centres are clearly ahead.
    scores = [score(candidates[0][0]), score(candidates[1][0]) - 0.002]
    return candidates[int(np.argmax(scores))]


def rotation_deg(matrix: np.ndarray) -> float:
    """Angle of the rotation in a matrix (polar decomposition), degrees.

    Examples
    --------
    >>> turn = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    >>> round(rotation_deg(turn), 6)
    90.0
    """
    left, _, right = np.linalg.svd(np.asarray(matrix)[:3, :3])
    rotation = left @ right
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))


def field_quality(transform: Transform, brain: nib.Nifti1Image) -> dict[str, float]:
    """Jacobian range, share of folds and inverse consistency of a fit, over the fixed brain.

    The Jacobian is that of the whole map from fixed to moving: above 1 the structure is larger
    in the subject than in the template. Inverse consistency is the mean distance by which a
    template point misses itself after going to the subject and back.

    Examples
    --------
    >>> brain = nib.Nifti1Image(np.ones((5, 5, 5), np.uint8), np.eye(4))
    >>> field_quality(Transform("affine", np.diag([2.0, 1, 1, 1])), brain)["scale"]
    2.0
    """
    scale = float(np.linalg.det(transform.matrix[:3, :3]))
    found = {
        "scale": scale,
        "jacobian_min": scale,
        "jacobian_max": scale,
        "folds": 0.0,
        "inverse_consistency_mm": 0.0,
    }
    if transform.warp is None:
        return found
    points = sample_points(np.asarray(brain.dataobj) != 0, brain.affine)
    jacobian = scale * jacobian_determinant(transform.warp)
    at_brain, _ = values_at(nib.Nifti1Image(jacobian, transform.warp.affine), points)
    found |= {
        "jacobian_min": float(at_brain.min()),
        "jacobian_max": float(at_brain.max()),
        "folds": float((at_brain <= 0).mean()),
    }
    there = transform_points(points, transform.to_fixed)
    back = transform_points(there, transform.to_moving)
    found["inverse_consistency_mm"] = float(np.linalg.norm(back - points, axis=1).mean())
    return found


def expected_volume_ml(
    mask: nib.Nifti1Image,
    to_template: Sequence[Step],
    warp: Warp | None,
    scale: float,
) -> float:
    """Volume that a native mask has in template space by the Jacobian of the fit, mL.

    Parameters
    ----------
    mask
        On its native grid.
    to_template
        Steps that map its points to the template.
    warp, scale
        Of the fit to the template: its displacement field and the determinant of its matrix.

    Examples
    --------
    >>> mask = nib.Nifti1Image(np.ones((10, 10, 10), np.uint8), np.eye(4))
    >>> expected_volume_ml(mask, [Affine(np.diag([0.5, 1, 1, 1]))], None, 2.0)
    0.5
    """
    data = np.asarray(mask.dataobj) != 0
    voxel_ml = abs(float(np.linalg.det(mask.affine[:3, :3]))) / 1000.0
    if warp is None or not data.any():
        return float(data.sum()) * voxel_ml / scale
    points = sample_points(data, mask.affine)
    jacobian = nib.Nifti1Image(jacobian_determinant(warp), warp.affine)
    local, inside = values_at(jacobian, transform_points(points, list(to_template)))
    local = np.where(inside, local, 1.0)
    # Folded or collapsed places would divide by 0; they are counted by the share of folds.
    return float(data.sum()) * voxel_ml / scale * float(np.mean(1.0 / np.maximum(local, 0.05)))


def verdict(
    quality: Mapping[str, Any], limits: Mapping[str, float], checks: Mapping[str, str]
) -> str | None:
    """First limits that a registration breaks, in words; None if it keeps all.

    Parameters
    ----------
    quality
        Figure -> value; a figure that is NaN or None breaks its limit.
    limits
        Limit -> value; the name ends in ``_min`` or ``_max``.
    checks
        Limit -> the figure that it limits.

    Examples
    --------
    >>> verdict({"dice": 0.4}, {"dice_min": 0.85}, {"dice_min": "dice"})
    'dice 0.4 is below its limit 0.85'
    """
    broken = []
    for limit, figure in checks.items():
        value = quality.get(figure)
        if value is None or not np.isfinite(value):
            broken.append(f"{figure} cannot be computed")
        elif limit.endswith("_min") and value < limits[limit]:
            broken.append(f"{figure} {value:.4g} is below its limit {limits[limit]:g}")
        elif limit.endswith("_max") and value > limits[limit]:
            broken.append(f"{figure} {value:.4g} is above its limit {limits[limit]:g}")
    return "; ".join(broken) if broken else None


def rounded(quality: Mapping[str, Any], digits: int = 6) -> dict[str, Any]:
    """Figures as the record keeps them.

    Examples
    --------
    >>> rounded({"dice": 0.123456789, "start": "headers", "x": float("nan")})
    {'dice': 0.123457, 'start': 'headers', 'x': None}
    """
    return {
        key: (
            (round(float(value), digits) if np.isfinite(value) else None)
            if isinstance(value, (float, np.floating))
            else value
        )
        for key, value in quality.items()
    }
