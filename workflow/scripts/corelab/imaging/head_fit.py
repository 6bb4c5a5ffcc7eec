"""Affine fit of the template to a head, independent of the contrast.

The template is reduced to a few classes (white matter, grey matter, fluid, and shells around the
brain where skull, scalp and air are found). The pose wanted is the one under which the classes
say most about the image's intensities: their mutual information, which is the likelihood of
the image when every class has an intensity distribution of its own, read off the image itself.
Bright or dark fluid, CT or MR, with a scalp or without: it makes no difference.

Mutual information for registration: Wells et al., Med Image Anal 1:35-51 (1996). As all points
of the image take part, whether the template reaches them or not, a slab cannot win by leaving the
head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import distance_mm, smoothed, voxel_sizes_mm
from corelab.imaging.template import template_brain_mask, tissue_maps

Array = NDArray[np.floating]

#: Kinds in Hounsfield units.
CT_KINDS = ("ncct", "ctp")

#: Edge of the class map's voxels, and how far it reaches beyond the template.
_MAP_MM, _AROUND_MM = 2, 40
#: Distances from the brain that part its surroundings: fluid, skull, scalp, far away.
_SHELLS_MM = (3.0, 9.0, 20.0)
#: Below this plane (MNI z, at y = 0, and its rise per mm towards the back) a skull base and a face
#: lie around the brain, not shells.
_BASE_Z_MM, _BASE_RISE = -22.0, 0.12
#: The template's own centre, and the voxel edges of the two levels of the fit.
_CENTRE_MM = (0.0, -18.0, 10.0)
_GRIDS_MM = (7.0, 4.0)
_BINS = 24
#: Spread of shift (mm), rotation (radians), log scale and shear in patients: a weak prior. Brains
#: are smaller than the template, which is an average of nonlinear warps.
_SPREAD = (60.0,) * 3 + (0.25,) * 3 + (0.08,) * 3 + (0.04,) * 3
_LOG_SCALE = -0.05
_PRIOR_WEIGHT = 2e-3


@dataclass(frozen=True)
class HeadFit:
    """The template on a head.

    Attributes
    ----------
    matrix
        4 x 4, MNI mm to the image's world mm (RAS+).
    score
        Mutual information in nats between the template's classes and the image; about 0.2 and
        more on a head, below 0.05 where there is none.
    """

    matrix: NDArray[np.float64]
    score: float

    def to_mni(self, affine: Array) -> NDArray[np.float64]:
        """4 x 4 from voxel indices of a grid with that affine to MNI mm."""
        return np.asarray(np.linalg.inv(self.matrix) @ affine, dtype=np.float64)


def fit_head(image: Any, kind: str) -> HeadFit:
    """Fit the MNI template to a head by an affine map, from several starts.

    Parameters
    ----------
    image
        nibabel image (3D, or 4D, of which the mean is taken) with a right affine up to 30 degrees.
    kind
        Kind of scan; only whether it is a CT (in HU) matters.

    Returns
    -------
    HeadFit
        Identity and score 0 where the image is flat.

    Examples
    --------
    >>> from corelab.imaging.template import template_image
    >>> found = fit_head(template_image().slicer[::3, ::3, ::3], "T1w")
    >>> bool(np.abs(found.matrix - np.eye(4))[:3, 3].max() < 4)
    True
    """
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels = voxels.mean(axis=3) if voxels.ndim == 4 else voxels
    return fit_voxels(voxels, np.asarray(image.affine, dtype=np.float64), kind)


def fit_voxels(voxels: NDArray[np.float32], affine: Array, kind: str) -> HeadFit:
    """:func:`fit_head` for an array and its affine."""
    levels = [_sampled(voxels, affine, kind, grid_mm) for grid_mm in _GRIDS_MM]
    if levels[0] is None or levels[1] is None:
        return HeadFit(np.eye(4), 0.0)
    coarse, fine = levels[0], levels[1]
    starts = _starts(coarse)
    ranked = sorted(starts, key=coarse.cost)[:3]
    best = min((_descended(coarse, start, 7) for start in ranked), key=coarse.cost)
    best = _descended(fine, _descended(coarse, best, 12), 12)
    return HeadFit(_matrix(best, fine.centre_mm), float(fine.information(best)))


@dataclass(frozen=True)
class _Points:
    """Points of an image in mm and the bins of their intensities."""

    points: NDArray[np.float32]
    bins: NDArray[np.uint8]
    centre_mm: NDArray[np.float64]
    #: Extent of the head downwards and upwards from the centre, mm.
    reach_mm: tuple[float, float]

    def information(self, pose: Array) -> float:
        """Mutual information of class and intensity under a pose, nats."""
        from corelab.imaging.kernels import class_counts

        table, shape, origin = _class_map()
        inverse = np.linalg.inv(_matrix(pose, self.centre_mm))[:3].astype(np.float32)
        counts = np.zeros((_CLASSES, _BINS), np.int64)
        per_mm = np.float32(1 / _MAP_MM)
        class_counts(inverse, self.points, origin, per_mm, table, shape, self.bins, counts)
        joint = counts / len(self.bins)
        apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
        there = joint > 0
        shares = joint[there]
        return float((shares * np.log(shares / apart[there])).sum())

    def cost(self, pose: Array) -> float:
        away = (np.asarray(pose) - _EXPECTED) / np.asarray(_SPREAD)
        return _PRIOR_WEIGHT * float((away**2).sum()) - self.information(pose)


_EXPECTED = np.array([0.0] * 6 + [_LOG_SCALE] * 3 + [0.0] * 3)
_CLASSES = 9


@dataclass(frozen=True)
class WideTemplate:
    """The template on voxels of 2 mm, with 40 mm around it.

    Attributes
    ----------
    brain, grey, white
        Its brain, and the shares of grey and white matter.
    away_mm
        Distance of what is not brain to it.
    origin_mm
        MNI mm of the first voxel.
    """

    brain: NDArray[np.bool_]
    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    away_mm: NDArray[np.float64]
    origin_mm: NDArray[np.float64]


@cache
def wide_template() -> WideTemplate:
    """The template as head fit and brain masks use it; made once in a process.

    Examples
    --------
    >>> wide_template().brain.shape
    (139, 157, 135)
    """
    whole = template_brain_mask()
    parts = (np.asarray(whole.dataobj)[::_MAP_MM, ::_MAP_MM, ::_MAP_MM] > 0, *tissue_maps(_MAP_MM))
    brain, grey, white = (np.pad(part, _AROUND_MM // _MAP_MM) for part in parts)
    away_mm = distance_mm(~brain, _MAP_MM)
    return WideTemplate(brain, grey, white, away_mm, whole.affine[:3, 3] - _AROUND_MM)


@cache
def _class_map() -> tuple[NDArray[np.uint8], tuple[int, int, int], NDArray[np.float32]]:
    """Class of every voxel (flat), shape of the map, MNI mm of its first voxel."""

    template = wide_template()
    brain, away, origin = template.brain, template.away_mm, template.origin_mm
    classes = 3 + np.digitize(away, _SHELLS_MM)
    _, y, z = (
        origin[axis] + _MAP_MM * np.arange(size).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, size in enumerate(brain.shape)
    )
    below = np.broadcast_to(z < _BASE_Z_MM - _BASE_RISE * y, brain.shape)
    classes[below] = np.where(away[below] < _SHELLS_MM[-1], 7, 8)
    white, grey = template.white[brain], template.grey[brain]
    classes[brain] = np.argmax([white, grey, 1.0 - white - grey], axis=0)
    return classes.ravel().astype(np.uint8), brain.shape, origin.astype(np.float32)


def _sampled(
    voxels: NDArray[np.float32], affine: Array, kind: str, grid_mm: float
) -> _Points | None:
    """Means over blocks of about ``grid_mm``, in the box of the head."""
    from scipy import ndimage

    sizes = voxel_sizes_mm(affine)
    sigma = [0.35 * grid_mm / size if size < 0.7 * grid_mm else 0.0 for size in sizes]
    smooth = smoothed(np.nan_to_num(voxels), sigma)
    steps = np.clip(np.round(grid_mm / sizes), 1, voxels.shape).astype(int)
    # Thick slices are split, so that every part of the head has the same weight.
    splits = np.maximum(1, np.round(sizes / grid_mm)).astype(int)
    thinned = smooth[tuple(slice(int(step // 2), None, int(step)) for step in steps)]
    spread, floor = spread_and_floor(thinned, kind)
    if spread is None:
        return None
    head = ndimage.binary_opening(spread > floor, np.ones((2, 2, 1), dtype=bool))
    if not head.any():
        return None
    box = tuple(slice(max(0, where.min() - 2), where.max() + 3) for where in np.nonzero(head))
    index = [
        np.arange(size)[part] * step + step // 2
        for size, part, step in zip(thinned.shape, box, steps, strict=True)
    ]
    values = spread[box]
    for axis, split in enumerate(splits):
        values = np.repeat(values, split, axis=axis)
        offsets = (np.arange(split) + 0.5) / split - 0.5
        index[axis] = (index[axis][:, None] + offsets).ravel()
    grid = np.stack([part.ravel() for part in np.meshgrid(*index, indexing="ij")])
    world = affine[:3, :3] @ grid + affine[:3, 3:]
    inside = values.ravel() > floor
    limits = np.quantile(values.ravel()[inside], np.linspace(0, 1, _BINS - 2)[1:-1])
    bins = np.digitize(
        values.ravel(),
        [floor / 2, floor, *limits] if kind not in CT_KINDS else [-500.0, floor, *limits],
    )
    low, high = (float(v) for v in np.percentile(world[2][inside], [0.5, 99.5]))
    middle = np.median(world[:, inside], axis=1)
    reach_mm = (low - middle[2], high - middle[2])
    return _Points(world.astype(np.float32), bins.astype(np.uint8), middle, reach_mm)


def spread_and_floor(
    thinned: NDArray[np.float32], kind: str
) -> tuple[NDArray[np.float32] | None, float]:
    """Values with outliers clipped, and what is air."""
    from skimage.filters import threshold_otsu

    if kind in CT_KINDS:
        return np.clip(thinned, -1000, 1000), -200.0
    low, high = (float(v) for v in np.percentile(thinned, [0.5, 99.8]))
    if not high > low:
        return None, 0.0
    clipped = np.clip(thinned, low, high) - low
    # Half of Otsu's threshold: dark tissue belongs to the head too.
    return clipped, 0.5 * float(threshold_otsu(clipped.ravel()))


def _matrix(pose: Array, centre_mm: Array) -> NDArray[np.float64]:
    """MNI mm to image mm: scale and shear about the template's centre, turn, shift."""
    shift, turn, scale, shear = np.asarray(pose, float).reshape(4, 3)
    stretch = np.array([[1, shear[0], shear[1]], [0, 1, shear[2]], [0, 0, 1]]) * np.exp(scale)
    (cx, cy, cz), (sx, sy, sz) = np.cos(turn), np.sin(turn)
    rotation = (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
    out = np.eye(4)
    out[:3, :3] = rotation @ stretch
    out[:3, 3] = np.asarray(centre_mm) + shift - out[:3, :3] @ np.asarray(_CENTRE_MM)
    return out


def _starts(points: _Points) -> list[NDArray[np.float64]]:
    """Poses over the head's height, nodded, leaning and of two sizes."""
    low, high = points.reach_mm
    heights = np.arange(min(low, high - 90.0), max(high, low + 60) + 1, 15.0)
    starts = []
    for z, nod, lean, y in product(heights, (-0.35, 0.0, 0.35), (-0.3, 0.0, 0.3), (-20, 0, 20)):
        pose = _EXPECTED.copy()
        pose[1], pose[2], pose[3], pose[4] = y, z, nod, lean
        starts.append(pose)
    return starts


def _descended(points: _Points, start: Array, free: int) -> NDArray[np.float64]:
    """Best pose near a start. With 7 free parameters all axes are scaled alike."""
    from scipy.optimize import minimize

    steps = np.array([6.0] * 3 + [0.08] * 3 + [0.04] * 3 + [0.03] * 3)

    def full(values: Array) -> NDArray[np.float64]:
        pose = np.array(start, dtype=np.float64)
        pose[:6] += values[:6] * steps[:6]
        pose[6:9] += values[6] * steps[6] if free == 7 else values[6:9] * steps[6:9]
        if free == 12:
            pose[9:] += values[9:] * steps[9:]
        return pose

    found = minimize(  # type: ignore[call-overload]  # the stubs know no Powell options
        lambda values: points.cost(full(values)),
        np.zeros(free),
        method="Powell",
        options={"xtol": 0.05, "ftol": 2e-4, "maxiter": 5},
    )
    return full(found.x)
