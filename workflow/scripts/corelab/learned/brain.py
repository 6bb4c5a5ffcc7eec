"""Brain mask of any MR contrast and of CT by a network that was trained on synthesised heads."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import resample_to, smoothed, voxel_sizes_mm, without_holes
from corelab.imaging.head_fit import CT_KINDS
from corelab.imaging.values import CT_WINDOW_HU, scaled
from corelab.learned.unet import STEP_MM, UNet, grid_around, mirrored_logits, shipped

#: Voxels of the network's grid along right, anterior and superior.
SHAPE = (96, 120, 104)
#: From the top of a head to the middle of the grid, as in training.
_TOP_TO_MIDDLE_MM = 92.0
#: What is above this share of the 98th percentile is head; noise lies below.
_HEAD_ABOVE = 0.2
#: Logits are cut here, so that interpolation follows the surface and not how sure the inside is.
_MOST = 4.0
#: The grid is moved once if the brain is further than this from where training had it on average:
#: its middle along the first two axes and its top, against the middle of the grid.
_WELL_PLACED_MM = 12.0
_BRAIN_MM = np.array([0.0, -2.0, 78.0])


def _plain(image: Any, kind: str) -> nib.Nifti1Image:
    """The image with air (or its least value) at 0, smoothed where it is finer than the grid.

    Its axes run to the right, forward and up, so that the mask does not depend on their order.
    """
    values = np.asarray(image.dataobj, dtype=np.float32)
    if values.ndim == 4:
        values = values.mean(axis=3, dtype=np.float32)
    image = nib.as_closest_canonical(nib.Nifti1Image(values, image.affine))
    values = np.asarray(image.dataobj)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if kind in CT_KINDS:
        values = np.clip(values, *CT_WINDOW_HU)
    values = values - np.float32(values.min())
    finer = STEP_MM / voxel_sizes_mm(image.affine)
    # Half the width of the grid's voxels, so that noise is averaged and not picked.
    sigma = 0.35 * np.sqrt(np.maximum(finer**2 - 1, 0))
    return nib.Nifti1Image(smoothed(values, sigma) if sigma.any() else values, image.affine)


def _head_middle(plain: nib.Nifti1Image) -> NDArray[np.float64] | None:
    """World coordinates where the middle of the grid belongs; None without a head."""
    values = np.asarray(plain.dataobj)
    bright = float(np.quantile(values, 0.98)) or float(values.max())
    head = smoothed(values, 3.0 / voxel_sizes_mm(plain.affine)) > _HEAD_ABOVE * bright
    if bright <= 0 or not head.any():
        return None
    places = nib.affines.apply_affine(plain.affine, np.argwhere(head)[::7])
    top = float(np.quantile(places[:, 2], 0.999))
    upper = places[places[:, 2] > top - 1.5 * _TOP_TO_MIDDLE_MM]
    low, high = np.quantile(upper[:, :2], [0.01, 0.99], axis=0)
    return np.array([*((low + high) / 2), top - _TOP_TO_MIDDLE_MM])


def _logit(network: UNet, plain: nib.Nifti1Image, middle: NDArray[np.float64]) -> nib.Nifti1Image:
    """Logit of brain on the network's grid around a place; mean of the head and its mirror."""
    grid = grid_around(middle, SHAPE)
    volume = scaled(np.asarray(resample_to(plain, grid, order=1).dataobj))
    straight, mirrored = mirrored_logits(network, volume[None])
    return nib.Nifti1Image(np.clip((straight + mirrored) / 2, -_MOST, _MOST), grid.affine)


def brain_mask(image: Any, kind: str, network: UNet | None = None) -> NDArray[np.bool_]:
    """Mask of a brain on the image's own grid, ventricles and sulci included.

    Parameters
    ----------
    image
        3D, or 4D (the mean over time is used), in any orientation.
    kind
        Kind of scan; CT (``ncct``, ``ctp``) is clipped to -100 to 300 HU.
    network
        Default: the one that is part of Corelab (``resources/models/brain``).

    Returns
    -------
    NDArray of bool
        Shape of the image's first three axes. Empty for an image without contrast.
    """
    from scipy import ndimage

    network = network or shipped("brain")
    plain = _plain(image, kind)
    middle = _head_middle(plain)
    if middle is None:
        return np.zeros(image.shape[:3], bool)
    found = _logit(network, plain, middle)
    inside = np.argwhere(np.asarray(found.dataobj) > 0)
    if not len(inside):
        return np.zeros(image.shape[:3], bool)
    seen = nib.affines.apply_affine(found.affine, inside)
    low, high = seen.min(0), seen.max(0)
    moved = np.array([*((low + high)[:2] / 2), high[2]]) - _BRAIN_MM - middle
    if np.linalg.norm(moved) > _WELL_PLACED_MM:
        found = _logit(network, plain, middle + moved)
    native = nib.Nifti1Image(np.broadcast_to(np.uint8(0), image.shape[:3]), image.affine)
    # Outside of the grid is no brain: 0 would be undecided.
    lifted = nib.Nifti1Image(np.asarray(found.dataobj) + np.float32(_MOST), found.affine)
    mask = np.asarray(resample_to(lifted, native, order=1).dataobj) > _MOST
    parts, count = ndimage.label(mask)
    if count > 1:
        mask = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    return without_holes(mask)
