"""What no lesion can be: larger than a head holds, most of the brain, outside of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from corelab.imaging.geometry import distance_mm, mask_volume_ml, voxel_sizes_mm
from corelab.study.columns import LARGEST_LESION_ML

#: MNI152 is a large head: its brain with fluid has 1.9 L, where that of most people has 1.4 L.
_TEMPLATE_SCALE = 1.4
#: A malignant infarct with its swelling takes half of the brain, a glioma with oedema a third.
LARGEST_SHARE = 0.6
#: A lesion at the cortex may pass the border of an automatic brain mask by this much.
_BORDER_MM = 3.0
#: Volume further outside that is reported: at least this, and this share of the lesion.
_OUTSIDE_ML, _OUTSIDE_SHARE = 0.2, 0.02


def volume_fault(
    volume_ml: float, brain_ml: float | None = None, *, in_template: bool = False
) -> str | None:
    """Why a lesion cannot have a volume; None where it can.

    Parameters
    ----------
    volume_ml
        Volume of the lesion.
    brain_ml
        Volume of the brain mask on the lesion's image, where there is one. A slab of the head has
        a part of both.
    in_template
        Whether the lesion is in MNI152.

    Examples
    --------
    >>> volume_fault(120.0, 1400.0), volume_fault(1600.0, in_template=True)
    (None, None)
    >>> volume_fault(1600.0)
    'the mask holds 1600 mL, more than a head does (1500 mL)'
    >>> volume_fault(1114.0, 1403.0)
    'the mask holds 1114 mL, 79 % of the brain mask (1403 mL): no lesion takes so much'
    """
    largest = LARGEST_LESION_ML * (_TEMPLATE_SCALE if in_template else 1.0)
    if volume_ml > largest:
        return f"the mask holds {volume_ml:.0f} mL, more than a head does ({largest:.0f} mL)"
    if brain_ml and volume_ml > LARGEST_SHARE * brain_ml:
        return (
            f"the mask holds {volume_ml:.0f} mL, {volume_ml / brain_ml:.0%}".replace("%", " %")
            + f" of the brain mask ({brain_ml:.0f} mL): no lesion takes so much"
        )
    return None


def outside_brain(mask: Any, brain: Any) -> str | None:
    """What of a supplied mask lies outside of the brain mask; None where it is too little to tell.

    Parameters
    ----------
    mask, brain
        nibabel images, which need not be on one grid.

    Examples
    --------
    >>> import nibabel as nib
    >>> brain, lesion = np.zeros((2, 30, 30, 30), np.uint8)
    >>> brain[5:25, 5:25, 5:25] = 1; lesion[20:28, 8:16, 8:16] = 1
    >>> brain, lesion = (nib.Nifti1Image(one, np.diag([2.0, 2, 2, 1])) for one in (brain, lesion))
    >>> outside_brain(lesion, brain)
    '1.0 mL (25 %) of the mask lie more than 3 mm outside of the brain mask: check the mask, ...'
    >>> outside_brain(brain, brain)
    """

    voxels = np.argwhere(np.asanyarray(mask.dataobj) > 0)
    total = mask_volume_ml(mask)
    least = max(_OUTSIDE_ML, _OUTSIDE_SHARE * total)
    held = np.asanyarray(brain.dataobj) > 0
    to_brain = np.linalg.inv(brain.affine) @ mask.affine
    places = np.rint(apply_affine(to_brain, voxels)).astype(int)
    clipped = np.clip(places, 0, np.array(held.shape) - 1)
    beyond = (clipped != places).any(axis=1)
    places = clipped[beyond | ~held[tuple(clipped.T)]]
    voxel_ml = total / max(len(voxels), 1)
    if len(places) * voxel_ml < least:
        return None
    # Around the mask alone: further away the distance is not needed.
    sizes = voxel_sizes_mm(brain.affine)
    margin = np.ceil(2 * _BORDER_MM / sizes).astype(int)
    start, stop = np.maximum(places.min(0) - margin, 0), places.max(0) + margin + 1
    near = held[tuple(slice(low, high) for low, high in zip(start, stop, strict=True))]
    far = np.full(near.shape, np.inf)
    if near.any():
        far = distance_mm(~near, sizes)
    outside = float((far[tuple((places - start).T)] > _BORDER_MM).sum()) * voxel_ml
    if outside < least:
        return None
    return (
        f"{outside:.1f} mL ({100 * outside / total:.0f} %) of the mask lie more than "
        f"{_BORDER_MM:g} mm outside of the brain mask: check the mask, its header (is it mirrored "
        "or shifted?) and the brain mask"
    )
