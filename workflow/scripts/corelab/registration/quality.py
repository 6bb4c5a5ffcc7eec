"""Figures that say whether a registration worked, and the limits that make it a failed one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from corelab.imaging.geometry import linear_at, smoothed
from corelab.imaging.template import template_image, template_ventricles
from corelab.registration.preparation import centred, widened
from corelab.registration.registrar import Fit, Transform
from corelab.registration.transforms import (
    Affine,
    Step,
    Warp,
    jacobian_determinant,
    transform_points,
)
from corelab.settings.registration import RegistrationLimits

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
    values[inside] = linear_at(data, voxel[:, inside], mode="nearest")
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
    """Start of a rigid fit within a subject: the headers or the centres of mass.

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
    score = _score_of_starts(fixed, moving)
    candidates = [(np.eye(4), "headers"), (np.asarray(centred), "centres of mass")]
    # Slightly different is not better: the headers win unless the centres are clearly ahead.
    scores = [score(candidates[0][0]), score(candidates[1][0]) - 0.002]
    return candidates[int(np.argmax(scores))]


#: Rotations (degrees about x, y, z) from which an affine fit may start: nodding is what heads do
#: most in a scanner.
TILTS_DEG = tuple(
    (pitch, roll, yaw)
    for pitch in (0, -15, 15, -30, 30, -45, 45)
    for roll, yaw in ((0, 0), (-20, 0), (20, 0), (0, -20), (0, 20))
)


def tilted_start(
    fixed: nib.Nifti1Image, moving: nib.Nifti1Image, at_centre: np.ndarray
) -> np.ndarray | None:
    """Rotation about the centre of mass from which a fit to the template should start.

    A fit from the centres of mass finds rotations of up to about 20 degrees. Of the rotations in
    :data:`TILTS_DEG` the one with the most mutual information is taken; None where no rotation
    is clearly better than none.

    Examples
    --------
    >>> data = np.random.default_rng(1).uniform(1, 2, (12, 12, 12)).astype(np.float32)
    >>> image = nib.Nifti1Image(data, np.eye(4))
    >>> tilted_start(image, image, np.eye(4)) is None
    True
    """
    score = _score_of_starts(fixed, moving)
    voxel = ndimage.center_of_mass(np.maximum(np.asarray(fixed.dataobj, dtype=float), 0))
    centre = Affine(fixed.affine)(np.array([voxel]))[0]
    starts = []
    for tilt in TILTS_DEG:
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
        turn[:3, 3] = centre - turn[:3, :3] @ centre
        starts.append(np.asarray(at_centre) @ turn)
    scores = np.array([score(start) for start in starts])
    scores[0] += 0.002
    best = int(np.argmax(scores))
    return starts[best] if best else None


def tilted_affine_start(fit: Fit) -> np.ndarray | None:
    """Start of a fit; an affine fit without one starts at the best of several rotations."""
    if fit.start is None and fit.kind.startswith("affine"):
        return tilted_start(fit.fixed, fit.moving, centred(fit.fixed, fit.moving))
    return fit.start


def _score_of_starts(
    fixed: nib.Nifti1Image, moving: nib.Nifti1Image
) -> Callable[[np.ndarray], float]:
    """Mutual information at a matrix, where what the moving image does not show counts as 0."""
    points = sample_points(np.asarray(fixed.dataobj) != 0, fixed.affine)
    here, _ = values_at(fixed, points)

    def score(matrix: np.ndarray) -> float:
        there, _ = values_at(moving, Affine(matrix)(points))
        # A start without overlap has no information.
        information = normalised_mutual_information(here, there)
        return information if np.isfinite(information) else 0.0

    return score


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


#: How far to both sides of the ventricles' wall the scan's own wall is looked for, mm.
WALL_REACH_MM = 8.0
#: Edge (mm) of the patches in which offsets of the wall are summarised, and how many points of the
#: wall make a patch.
WALL_PATCH_MM = 12.0
WALL_LEAST_POINTS = 40


def ventricle_offset_mm(
    moving: nib.Nifti1Image, to_fixed: Sequence[Step], lesion: nib.Nifti1Image | None = None
) -> float:
    """Distance of the walls of the lateral ventricles from the template's, where they fit least.

    The overlap of the brains and the mean similarity of the images hardly see a ventricle that
    stays millimetres off, for instance one that is widened beside a cavity. Here the scan is read
    along lines across the template's wall; the distance to the nearest place where it changes
    from fluid to tissue (half-way between the two intensities) is the offset. Patches of 12 mm that
    face one way have their median, and the largest of these medians is given.

    Parameters
    ----------
    moving
        Scan on which fluid is dark (T1w, T1c), brain only.
    to_fixed
        Steps that map template points to the scan.
    lesion
        Mask in the scan's world; lines that meet it do not count, since a cavity is fluid too.

    Returns
    -------
    float
        Millimetres, at most :data:`WALL_REACH_MM`; NaN if fluid and tissue look alike.

    Examples
    --------
    >>> from corelab.imaging.template import template_image
    >>> ventricle_offset_mm(template_image(), []) < 1.0
    True
    """
    wall, normals = _ventricle_wall()
    reach = np.arange(-WALL_REACH_MM, WALL_REACH_MM + 0.25, 0.5)
    lines = wall[:, None] + reach[:, None] * normals[:, None]
    points = transform_points(lines.reshape(-1, 3), list(to_fixed))
    values, seen = values_at(moving, points)
    seen &= values != 0
    if lesion is not None:
        seen &= values_at(lesion, points)[0] == 0
    values, seen = values.reshape(lines.shape[:2]), seen.reshape(lines.shape[:2])
    if seen.sum() < 100:
        return float("nan")
    # Single lines are noisy: 2 mm along them and their neighbours in the median decide.
    values = ndimage.uniform_filter1d(values, 5, axis=1)
    tissue = float(np.median(values[:, reach > 3][seen[:, reach > 3]]))
    fluid = float(np.percentile(values[seen], 5))
    if not fluid < 0.8 * tissue:
        return float("nan")
    dark = values < 0.5 * (fluid + tissue)
    border = dark[:, :-1] & ~dark[:, 1:]
    offsets = np.where(border, np.abs(reach[:-1] + 0.25), WALL_REACH_MM).min(axis=1)
    # A line counts if all of it that lies nearer than the wall found was seen.
    clear = (seen | (np.abs(reach) > offsets[:, None])).all(axis=1)
    # Roof and side of a block apart: a wall that moves along itself shows nothing.
    facing = np.abs(normals).argmax(axis=1)
    side = 2 * facing + (np.take_along_axis(normals, facing[:, None], 1)[:, 0] > 0)
    blocks = np.column_stack([np.floor(wall / WALL_PATCH_MM).astype(int), side])[clear]
    _, block = np.unique(blocks, axis=0, return_inverse=True)
    count = np.bincount(block.ravel())
    medians = ndimage.median(offsets[clear], block.ravel(), np.arange(len(count)))
    medians = np.asarray(medians)[count >= WALL_LEAST_POINTS]
    return float(medians.max()) if len(medians) else float("nan")


def ventricle_warning(offset_mm: float, limit_mm: float) -> str | None:
    """Warning about ventricles that lie off the template's; None within the limit.

    Examples
    --------
    >>> ventricle_warning(5.0, 3.0).split(":")[0]
    "part of the ventricles' wall lies 5.0 mm off the template's (limit 3 mm)"
    >>> ventricle_warning(1.0, 3.0) is None
    True
    """
    if not offset_mm > limit_mm:
        return None
    return (
        f"part of the ventricles' wall lies {offset_mm:.1f} mm off the template's (limit "
        f"{limit_mm:g} mm): positions and volumes in MNI152 beside it are uncertain by as much; "
        "look at the figure of the fit"
    )


@cache
def _ventricle_wall() -> tuple[np.ndarray, np.ndarray]:
    """Points on the wall of the template's lateral ventricles and the normals outwards.

    The template's voxels are 1 mm and its axes are those of MNI152.
    """
    ventricles = template_ventricles()
    data = np.asarray(ventricles.dataobj) != 0
    box = widened(ndimage.find_objects(data.astype(np.uint8))[0], np.array([6, 6, 6]), data.shape)
    part = data[box]
    outwards = -np.stack(np.gradient(smoothed(part.astype(np.float32), 1.5)), -1)
    place = part & ~ndimage.binary_erosion(part)
    length = np.linalg.norm(outwards, axis=-1)
    place &= length > 0.02  # at thin edges the direction is undecided
    start = np.array([side.start for side in box])
    voxel, normals = np.argwhere(place), outwards[place] / length[place][:, None]
    # Where the fluid or what divides it is thin, another wall would be taken for this one.
    template = np.asarray(template_image().dataobj)
    tissue = template[box] > 0.65 * np.percentile(template[template > 0], 95)
    clear = np.ones(len(voxel), bool)
    for away_mm in (1.0, 2.0, 3.0, 4.0):
        for side, reached in ((-away_mm, part), (1.0 + away_mm, tissue)):
            at = (voxel + side * normals).T
            clear &= linear_at(reached, at) > 0.5
    # From the centre of the outermost voxel of fluid to half-way between fluid and tissue.
    border = (voxel + start + 0.75 * normals)[clear]
    return Affine(ventricles.affine)(border), normals[clear]


def local_scale(warp: Warp | None) -> nib.Nifti1Image | None:
    """Jacobian determinant of a displacement field as an image; None without a field."""
    return None if warp is None else nib.Nifti1Image(jacobian_determinant(warp), warp.affine)


def expected_volume_ml(
    mask: nib.Nifti1Image,
    to_template: Sequence[Step],
    jacobian: nib.Nifti1Image | None,
    scale: float,
) -> float:
    """Volume that a native mask has in template space by the Jacobian of the fit, mL.

    Parameters
    ----------
    mask
        On its native grid.
    to_template
        Steps that map its points to the template.
    jacobian, scale
        Of the fit to the template: :func:`local_scale` of its displacement field (None for an
        affine fit) and the determinant of its matrix.

    Examples
    --------
    >>> mask = nib.Nifti1Image(np.ones((10, 10, 10), np.uint8), np.eye(4))
    >>> expected_volume_ml(mask, [Affine(np.diag([0.5, 1, 1, 1]))], None, 2.0)
    0.5
    """
    data = np.asarray(mask.dataobj) != 0
    voxel_ml = abs(float(np.linalg.det(mask.affine[:3, :3]))) / 1000.0
    if jacobian is None or not data.any():
        return float(data.sum()) * voxel_ml / scale
    points = sample_points(data, mask.affine)
    local, inside = values_at(jacobian, transform_points(points, list(to_template)))
    local = np.where(inside, local, 1.0)
    # Folded or collapsed places would divide by 0; they are counted by the share of folds.
    return float(data.sum()) * voxel_ml / scale * float(np.mean(1.0 / np.maximum(local, 0.05)))


def verdict(
    quality: Mapping[str, float | str | None],
    limits: RegistrationLimits,
    checks: Mapping[str, str],
) -> str | None:
    """First limits that a registration breaks, in words; None if it keeps all.

    Parameters
    ----------
    quality
        Figure -> value; a figure that is NaN or None breaks its limit.
    limits
        Their names end in ``_min`` or ``_max``.
    checks
        Limit -> the figure that it limits.

    Examples
    --------
    >>> verdict({"dice": 0.4}, RegistrationLimits(), {"dice_min": "dice"})
    'dice 0.4 is below its limit 0.85'
    """
    broken = []
    for limit, figure in checks.items():
        value, allowed = quality.get(figure), getattr(limits, limit)
        if value is None or isinstance(value, str) or not np.isfinite(value):
            broken.append(f"{figure} cannot be computed")
        elif limit.endswith("_min") and value < allowed:
            broken.append(f"{figure} {value:.4g} is below its limit {allowed:g}")
        elif limit.endswith("_max") and value > allowed:
            broken.append(f"{figure} {value:.4g} is above its limit {allowed:g}")
    return "; ".join(broken) if broken else None


def rounded(
    quality: Mapping[str, float | str | None], digits: int = 6
) -> dict[str, float | str | None]:
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
