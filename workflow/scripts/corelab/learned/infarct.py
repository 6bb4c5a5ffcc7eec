"""Infarct on DWI, with or without an ADC, by a network that was trained on synthesised scans."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import resample_to, smoothed, voxel_sizes_mm
from corelab.imaging.values import ADC_TISSUE_MM2_S
from corelab.learned.unet import STEP_MM, UNet, grid_around, mirrored_logits, shipped

#: Voxels of the network's grid along right, anterior and superior.
SHAPE = (80, 104, 80)
#: Logits are cut here, so that interpolation follows the surface.
_MOST = 4.0
#: Logits at which the limits of the volume lie, either side of 0.
LIMIT_LOGIT = 1.0


def channels(
    dwi: NDArray[np.floating], adc: NDArray[np.floating] | None, brain: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Input of the network: DWI in units of the brain's median, ADC in units of normal tissue's.

    Outside of the brain both are 0; without an ADC the second channel is 0 everywhere.

    Examples
    --------
    >>> dwi, brain = np.full((2, 2, 2), 50.0), np.ones((2, 2, 2), bool)
    >>> channels(dwi, None, brain)[:, 0, 0, 0].tolist()
    [0.5, 0.0]
    """
    inside = dwi[brain]
    level = float(np.median(inside)) if inside.size else 1.0
    first = np.clip(dwi / max(level, 1e-9), 0, 4) / 2
    second = np.zeros_like(first) if adc is None else np.clip(adc / ADC_TISSUE_MM2_S, 0, 4) / 2
    return np.stack([first * brain, second * brain]).astype(np.float32)


def _on(grid: nib.Nifti1Image, values: NDArray[Any], affine: NDArray[Any]) -> NDArray[np.float32]:
    """An image on the network's grid; finer voxels are averaged."""
    finer = STEP_MM / voxel_sizes_mm(affine)
    sigma = 0.35 * np.sqrt(np.maximum(finer**2 - 1, 0))
    values = np.asarray(values, np.float32)
    image = nib.Nifti1Image(smoothed(values, sigma) if sigma.any() else values, affine)
    return np.asarray(resample_to(image, grid, order=1).dataobj)


def infarct_logits(
    dwi: NDArray[Any],
    adc: NDArray[Any] | None,
    brain: NDArray[np.bool_],
    affine: NDArray[np.floating],
    network: UNet | None = None,
) -> list[NDArray[np.float32]]:
    """Logit of infarct in each voxel, from the scan and from its mirror image.

    Parameters
    ----------
    dwi, adc
        On one grid; the ADC in mm2/s, or None.
    brain
        Brain mask, not empty.
    affine
        Voxel to world of the grid.
    network
        Default: the one that is part of Corelab (``resources/models/infarct``).

    Returns
    -------
    list of NDArray
        Two arrays of the shape of ``dwi``; -4 outside of the brain.
    """
    inside = np.argwhere(brain)
    ends = nib.affines.apply_affine(affine, np.stack([inside.min(0), inside.max(0)]))
    grid = grid_around(ends.mean(0), SHAPE)
    given = channels(
        _on(grid, dwi, affine),
        None if adc is None else _on(grid, adc, affine),
        _on(grid, brain, affine) > 0.5,
    )
    native = nib.Nifti1Image(np.broadcast_to(np.uint8(0), brain.shape), affine)
    found = []
    for logit in mirrored_logits(network or shipped("infarct"), given):
        lifted = nib.Nifti1Image(np.clip(logit, -_MOST, _MOST) + np.float32(_MOST), grid.affine)
        back = np.asarray(resample_to(lifted, native, order=1).dataobj) - np.float32(_MOST)
        found.append(np.where(brain, back, -_MOST).astype(np.float32))
    return found
