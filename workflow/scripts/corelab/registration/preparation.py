"""Preparation of images for registration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.imaging.geometry import box_of, distance_mm, linear_grid, smoothed
from corelab.imaging.laterality import BRAIN_WINDOW_HU, CT_KINDS
from corelab.records.images import Scan
from corelab.terms.kinds import TEMPLATE_ORDER

#: Kinds on which a deformable fit is allowed, and the thickest voxel (mm) for it: a deformable
#: fit of 5 mm slices is worse than an affine one (registration error 4.0 against 3.6 mm).
DEFORMABLE_KINDS = ("T1w", "T1c")
DEFORMABLE_VOXEL_MM = 1.6


def best_scan(scans: Sequence[Scan], grid: str) -> Scan | None:
    """Scan of a grid by which it is registered; None if the grid has no usable image.

    Examples
    --------
    >>> scans = [Scan(kind, kind, grid="g1", path="x") for kind in ("adc", "dwi", "b0")]
    >>> best_scan(scans, "g1").kind
    'b0'
    """
    usable = [
        scan
        for scan in scans
        if scan.grid == grid
        and scan.status == "ok"
        and scan.label is None
        and scan.space == "native"
        and scan.kind != "aif"
    ]
    order = {kind: rank for rank, kind in enumerate(TEMPLATE_ORDER)}
    # Equal kinds: the order of the sheet decides, so that the choice does not hang on ids.
    ranked = sorted(usable, key=lambda scan: order.get(scan.kind, len(order)))
    return ranked[0] if ranked else None


def windowed(image: Any, kind: str) -> nib.Nifti1Image:
    """3D image to register: the mean of a time series, CT in its brain window.

    Examples
    --------
    >>> series = nib.Nifti1Image(np.full((2, 2, 2, 3), 250.0, np.float32), np.eye(4))
    >>> float(windowed(series, "ctp").get_fdata().max())
    100.0
    """
    data = np.asarray(image.dataobj, dtype=np.float32)
    if data.ndim == 4:
        data = data.mean(axis=3)
    if kind in CT_KINDS:
        data = np.clip(data, *BRAIN_WINDOW_HU)
    return nib.Nifti1Image(data, image.affine)


def voxel_mm(affine: np.ndarray) -> np.ndarray:
    """Voxel sizes in mm, shape (3,).

    Examples
    --------
    >>> voxel_mm(np.diag([1.0, -2, 5, 1])).tolist()
    [1.0, 2.0, 5.0]
    """
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def dilated(mask: np.ndarray, affine: np.ndarray, by_mm: float) -> np.ndarray:
    """Mask grown by a distance in mm.

    Examples
    --------
    >>> point = np.zeros((7, 7, 7), bool); point[3, 3, 3] = True
    >>> int(dilated(point, np.eye(4), 1.0).sum())
    7
    """
    if by_mm <= 0 or not mask.any():
        return mask.astype(bool)
    # The distance transform of the whole head is dear: only the mask's surroundings are asked.
    margin = np.ceil(by_mm / voxel_mm(affine)).astype(int) + 1
    box = _box(mask, margin)
    grown = np.zeros(mask.shape, bool)
    grown[box] = distance_mm(~mask[box], voxel_mm(affine)) <= by_mm
    return grown


def brain_only(
    image: nib.Nifti1Image, mask: np.ndarray, *, margin_mm: float
) -> tuple[nib.Nifti1Image, tuple[slice, ...]]:
    """Image with 0 outside the (grown) brain, cropped to it with a rim of 10 mm.

    Returns
    -------
    tuple
        The image and the slices that were cut out, to cut masks of the same grid alike.

    Examples
    --------
    >>> mask = np.zeros((40, 40, 40), bool); mask[18:22, 18:22, 18:22] = True
    >>> cut, box = brain_only(nib.Nifti1Image(np.ones(mask.shape), np.eye(4)), mask, margin_mm=0)
    >>> cut.shape, int(cut.get_fdata().sum())
    ((24, 24, 24), 64)
    """
    brain = dilated(mask, image.affine, margin_mm)
    box = _box(brain, np.ceil(10.0 / voxel_mm(image.affine)).astype(int))
    data = np.where(brain[box], np.asarray(image.dataobj, dtype=np.float32)[box], np.float32(0))
    return nib.Nifti1Image(data, _moved_origin(image.affine, box)), box


def coarsened(image: nib.Nifti1Image, spacing_mm: float) -> nib.Nifti1Image:
    """Image on voxels of about ``spacing_mm``, smoothed so that nothing is aliased.

    Axes that are coarse already stay as they are: thick slices are never cut thinner.

    Examples
    --------
    >>> fine = nib.Nifti1Image(np.ones((20, 20, 5), np.float32), np.diag([1.0, 1, 4, 1]))
    >>> coarse = coarsened(fine, 2.0)
    >>> coarse.shape, voxel_mm(coarse.affine).tolist()
    ((10, 10, 5), [2.0, 2.0, 4.0])
    """
    factors = np.maximum(spacing_mm / voxel_mm(image.affine), 1.0)
    factors[factors < 1.25] = 1.0
    data = np.asarray(image.dataobj, dtype=np.float32)
    if np.all(factors == 1.0):
        return nib.Nifti1Image(data, image.affine)
    # Gaussian with the width of the new voxel: full width at half maximum = its size.
    sigmas = np.where(factors > 1.0, factors / 2.355, 0.0)
    smooth = smoothed(data, sigmas)
    shape = tuple(int(np.floor((n - 1) / f)) + 1 for n, f in zip(data.shape, factors, strict=True))
    result = linear_grid(smooth, np.diag(factors), np.zeros(3), shape, mode="nearest")
    return nib.Nifti1Image(result, image.affine @ np.diag([*factors, 1.0]))


def centred(fixed: nib.Nifti1Image, moving: nib.Nifti1Image) -> np.ndarray:
    """Translation that brings the centres of mass of two images together (fixed to moving).

    Examples
    --------
    >>> data = np.zeros((9, 9, 9), np.float32); data[4, 4, 4] = 1
    >>> shifted = np.eye(4); shifted[0, 3] = 7
    >>> centred(nib.Nifti1Image(data, np.eye(4)), nib.Nifti1Image(data, shifted))[:3, 3].tolist()
    [7.0, 0.0, 0.0]
    """
    centres = []
    for image in (fixed, moving):
        voxel = ndimage.center_of_mass(np.maximum(np.asarray(image.dataobj, dtype=float), 0))
        centres.append(image.affine[:3, :3] @ np.array(voxel) + image.affine[:3, 3])
    start = np.eye(4)
    start[:3, 3] = centres[1] - centres[0]
    return start


def widened(box: Sequence[slice], margin: np.ndarray, shape: Sequence[int]) -> tuple[slice, ...]:
    """Box with a margin (voxels of each axis) around it, within the image.

    Examples
    --------
    >>> widened((slice(1, 3), slice(5, 9)), np.array([2, 2]), (10, 10))
    (slice(0, 5, None), slice(3, 10, None))
    """
    return tuple(
        slice(max(0, part.start - int(rim)), min(size, part.stop + int(rim)))
        for part, rim, size in zip(box, margin, shape, strict=True)
    )


def _box(mask: np.ndarray, margin: np.ndarray) -> tuple[slice, ...]:
    if not mask.any():
        return tuple(slice(0, size) for size in mask.shape)
    return widened(box_of(mask), margin, mask.shape)


def _moved_origin(affine: np.ndarray, box: Sequence[slice]) -> np.ndarray:
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.array([part.start for part in box]) + affine[:3, 3]
    return moved
