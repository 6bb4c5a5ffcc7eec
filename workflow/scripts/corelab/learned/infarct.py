"""Infarct on DWI, with or without an ADC, by a network that was trained on synthesised scans."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import resample_to, smoothed, voxel_sizes_mm
from corelab.imaging.values import ADC_TISSUE_MM2_S, histogram_mode
from corelab.learned.unet import STEP_MM, UNet, grid_around, mirrored_logits, shipped
from corelab.provenance.places import own_weights

#: Voxels of the network's grid along right, anterior and superior.
SHAPE = (80, 104, 80)
#: Logits are cut here, so that interpolation follows the surface and not how sure the inside is.
_MOST = 4.0


def channels(
    dwi: NDArray[np.floating], adc: NDArray[np.floating] | None, brain: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Input of the network: DWI in units of the brain's median, ADC in units of normal tissue's.

    Outside of the brain both are 0; without an ADC (mm2/s) the second channel is 0 everywhere.

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
    return np.where(brain, np.stack([first, second]), 0).astype(np.float32)


@cache
def limit_factor() -> float:
    """Half width of the limits of a volume in units of its spread, chosen by the training."""
    facts = own_weights("infarct").with_name("training.json").read_text(encoding="utf-8")
    return float(json.loads(facts)["limits"]["factor"])


def volume_spread(straight: NDArray[Any], mirrored: NDArray[Any], voxel_ml: float) -> float:
    """How unsure the volume of an outline is, mL: the unit of its limits.

    Half of what lies between logits of -1 and 1, half of what the head and its mirror image differ
    by, 2 % of the volume and 0.05 mL. Limits at a multiple of it that was chosen on other scans
    cover as they say (Lei et al., J Am Stat Assoc 2018;113:1094, section 5.2).

    Parameters
    ----------
    straight, mirrored
        Logits from the head and from its mirror image, turned back.
    voxel_ml
        Volume of a voxel.

    Examples
    --------
    >>> logit = np.array([3.0, 0.5, -0.5, -3.0])
    >>> round(volume_spread(logit, logit, 1.0), 2)
    1.09
    """
    logit = (straight + mirrored) / 2
    unsure = int((np.abs(logit) < 1).sum())
    flipped = abs(int((straight > 0).sum()) - int((mirrored > 0).sum()))
    volume = int((logit > 0).sum())
    return voxel_ml * (unsure / 2 + flipped / 2 + 0.02 * volume) + 0.05


@dataclass(frozen=True, eq=False)
class Outlined:
    """What a network outlines on the image's own grid.

    Attributes
    ----------
    mask
        More likely than not.
    volume_ml, low_ml, high_ml
        Its volume, and limits that enclose the true one in 90 % of simulated scans.
    flipped_dice
        Dice of the masks from the head and from its mirror image; None where both are empty.
    """

    mask: NDArray[np.bool_]
    volume_ml: float
    low_ml: float
    high_ml: float
    flipped_dice: float | None


def outlined_infarct(
    dwi: NDArray[Any],
    adc: NDArray[Any] | None,
    brain: NDArray[np.bool_],
    affine: NDArray[np.floating],
    network: UNet | None = None,
    factor: float | None = None,
) -> Outlined:
    """Outline infarcts.

    Parameters
    ----------
    dwi, adc
        On one grid; the ADC in any unit (its most frequent value in the brain is that of normal
        tissue, :data:`corelab.imaging.values.ADC_TISSUE_MM2_S`), or None.
    brain
        Brain mask, not empty.
    affine
        Voxel to world of the grid, in any orientation.
    network, factor
        Default: the network that is part of Corelab (``resources/models/infarct``), and
        :func:`limit_factor`.

    Returns
    -------
    Outlined
        The mask has the shape of ``brain``.

    Raises
    ------
    ValueError
        If more than 1 % of the brain mask lies beyond the network's grid.
    """
    inside = np.argwhere(brain)
    ends = nib.affines.apply_affine(affine, np.stack([inside.min(0), inside.max(0)]))
    away = np.abs(nib.affines.apply_affine(affine, inside) - ends.mean(0))
    beyond = float((away > STEP_MM * np.array(SHAPE) / 2).any(axis=1).mean())
    if beyond > 0.01:
        raise ValueError(
            f"{beyond:.0%} of the brain mask lies beyond the network's 160 x 208 x 160 mm; look "
            "at the brain mask"
        )
    grid = grid_around(ends.mean(0), SHAPE)
    native = nib.Nifti1Image(np.broadcast_to(np.uint8(0), brain.shape), affine)
    # Half the width of the grid's voxels, so that noise is averaged and not picked.
    sigma = 0.35 * np.sqrt(np.maximum((STEP_MM / voxel_sizes_mm(affine)) ** 2 - 1, 0))

    def on_grid(values: NDArray[Any]) -> NDArray[np.float32]:
        values = np.asarray(values, np.float32)
        image = nib.Nifti1Image(smoothed(values, sigma) if sigma.any() else values, affine)
        return np.asarray(resample_to(image, grid, order=1).dataobj)

    if adc is not None:
        positive = adc[brain & (adc > 0)]
        usual = histogram_mode(positive) if positive.size else 0.0
        adc = adc * (ADC_TISSUE_MM2_S / usual) if usual > 0 else None
    given = channels(on_grid(dwi), None if adc is None else on_grid(adc), on_grid(brain) > 0.5)
    logits = []
    for logit in mirrored_logits(network or shipped("infarct"), given):
        # Outside of the grid is no lesion: 0 would be undecided.
        lifted = nib.Nifti1Image(np.clip(logit, -_MOST, _MOST) + np.float32(_MOST), grid.affine)
        back = np.asarray(resample_to(lifted, native, order=1).dataobj) - _MOST
        logits.append(np.where(brain, back, -_MOST))
    mask = logits[0] + logits[1] > 0
    one, other = (part > 0 for part in logits)
    both = int(one.sum() + other.sum())
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    volume_ml = int(mask.sum()) * voxel_ml
    width = volume_spread(logits[0], logits[1], voxel_ml)
    width *= limit_factor() if factor is None else factor
    return Outlined(
        *(mask, volume_ml, max(volume_ml - width, 0.0), volume_ml + width),
        2 * int((one & other).sum()) / both if both else None,
    )
