"""Lesions by a network that was trained on synthesised heads: gliomas on MR."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import resample_to, smoothed, voxel_sizes_mm
from corelab.learned.unet import STEP_MM, UNet, grid_around, scores, shipped
from corelab.provenance.places import own_weights
from corelab.terms.learned import LEARNED

Array = NDArray[np.float32]

#: Voxels of the network's grid along right, anterior and superior.
SHAPE = (80, 104, 80)
#: Logits are cut here, so that interpolation follows the surface and not how sure the inside is.
_MOST = 4.0


def _standard(image: NDArray[np.floating], brain: NDArray[np.bool_]) -> Array:
    """Z scores by what is usual in the brain, a third of them; 0 outside."""
    inside = image[brain]
    if not inside.size:
        return np.zeros(image.shape, np.float32)
    usual = np.clip(inside, *np.quantile(inside, [0.02, 0.98]))
    z = (image - usual.mean()) / (float(usual.std()) or 1.0)
    return np.where(brain, np.clip(z, -4, 6) / 3, 0).astype(np.float32)


def tumour_channels(images: Sequence[NDArray[np.floating]], brain: NDArray[np.bool_]) -> Array:
    """Input for gliomas: z scores of T1 after contrast and of FLAIR within the brain.

    Examples
    --------
    >>> image, brain = np.arange(8.0).reshape(2, 2, 2), np.ones((2, 2, 2), bool)
    >>> tumour_channels([image, image], brain).shape
    (2, 2, 2, 2)
    """
    return np.stack([_standard(image, brain) for image in images])


@cache
def limit_logit(task: str, label: str) -> float:
    """Logit at which the limits of a volume lie, as the training calibrated it."""
    facts = json.loads(own_weights(task).with_name("training.json").read_text(encoding="utf-8"))
    return float(facts["limits"][label]["logit"])


@dataclass(frozen=True, eq=False)
class Outlined:
    """What a network says of one label on the image's own grid.

    Attributes
    ----------
    mask
        More likely than not.
    low, high
        Masks whose volumes enclose 90 % of simulated ones.
    flipped_dice
        Dice of the masks from the head and from its mirror image; None where both are empty.
    """

    mask: NDArray[np.bool_]
    low: NDArray[np.bool_]
    high: NDArray[np.bool_]
    flipped_dice: float | None


def logit_of(score: Array, classes: Sequence[int]) -> Array:
    """Logit of some classes against all others, from the scores (classes, ...) of each.

    Examples
    --------
    >>> logit_of(np.zeros((4, 1), np.float32), [1, 2]).round(3).tolist()
    [0.0]
    """
    others = [one for one in range(len(score)) if one not in classes]

    def together(some: Sequence[int]) -> Array:
        most = score[list(some)].max(0)
        return most + np.log(np.exp(score[list(some)] - most).sum(0))

    return np.clip(together(classes) - together(others), -_MOST, _MOST)


def outlined(
    label: str,
    images: Sequence[NDArray[Any]],
    brain: NDArray[np.bool_],
    affine: NDArray[np.floating],
    network: UNet | None = None,
    limit: float | None = None,
) -> Outlined:
    """Outline a label on images of one grid.

    Parameters
    ----------
    label
        Of :data:`corelab.terms.learned.LEARNED`.
    images
        Of the label's kinds of scan, in order.
    brain
        Brain mask, not empty.
    affine
        Voxel to world of the grid, in any orientation.
    network
        Default: the one that is part of Corelab (``resources/models``).
    limit
        Logit at which the limits of the volume lie, either side of 0; default: as calibrated for
        that network.

    Returns
    -------
    Outlined
        Masks of the shape of ``brain``.
    """
    task = LEARNED[label]
    inside = np.argwhere(brain)
    ends = nib.affines.apply_affine(affine, np.stack([inside.min(0), inside.max(0)]))
    grid = grid_around(ends.mean(0), SHAPE)
    native = nib.Nifti1Image(np.broadcast_to(np.uint8(0), brain.shape), affine)
    sizes = voxel_sizes_mm(affine)
    # Half the width of the grid's voxels, so that noise is averaged and not picked.
    sigma = 0.35 * np.sqrt(np.maximum((STEP_MM / sizes) ** 2 - 1, 0))

    def on_grid(values: NDArray[Any]) -> Array:
        values = np.asarray(values, np.float32)
        image = nib.Nifti1Image(smoothed(values, sigma) if sigma.any() else values, affine)
        return np.asarray(resample_to(image, grid, order=1).dataobj)

    given = tumour_channels([on_grid(one) for one in images], on_grid(brain) > 0.5)
    network = network or shipped(task.name)
    logits = []
    for turn in (1, -1):
        score = scores(network, np.ascontiguousarray(given[:, ::turn]))[:, ::turn]
        # Outside of the grid is no lesion: 0 would be undecided.
        lifted = nib.Nifti1Image(logit_of(score, task.classes[label]) + _MOST, grid.affine)
        logits.append(np.asarray(resample_to(lifted, native, order=1).dataobj) - _MOST)
    logit = np.where(brain, (logits[0] + logits[1]) / 2, -_MOST)
    masks = [(one > 0) & brain for one in logits]
    both = int(masks[0].sum() + masks[1].sum())
    limit = limit_logit(task.name, label) if limit is None else limit
    flipped_dice = 2 * int((masks[0] & masks[1]).sum()) / both if both else None
    return Outlined(logit > 0, logit > limit, logit > -limit, flipped_dice)
