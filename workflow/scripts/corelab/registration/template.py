"""The template (:mod:`corelab.imaging.template`) and volumes left and right of its midplane."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from corelab.imaging.template import (
    TEMPLATE_FILE,
    template_brain_mask,
    template_image,
    template_path,
    template_ventricles,
)

__all__ = [
    "TEMPLATE_FILE",
    "mni_left_right",
    "template_brain_mask",
    "template_image",
    "template_path",
    "template_ventricles",
]


def mni_left_right(mask_image: nib.Nifti1Image) -> tuple[float, float]:
    """Volumes (mL) of a template-space mask left and right of the midplane x = 0.

    Parameters
    ----------
    mask_image
        Mask in MNI space; what is not 0 counts. Voxels whose centre lies on the plane are
        shared equally. Left is the subject's left, x < 0, whatever the voxel order.

    Returns
    -------
    tuple of float
        (left, right) in mL.

    Examples
    --------
    >>> data = np.zeros((3, 1, 1), np.uint8); data[0] = 1
    >>> affine = np.eye(4); affine[0, 3] = -1            # voxels at x = -1, 0, 1
    >>> mni_left_right(nib.Nifti1Image(data, affine))
    (0.001, 0.0)
    """
    voxels = np.argwhere(np.asarray(mask_image.dataobj) != 0)
    x_mm = voxels @ mask_image.affine[0, :3] + mask_image.affine[0, 3]
    voxel_ml = abs(float(np.linalg.det(mask_image.affine[:3, :3]))) / 1000.0
    middle = np.abs(x_mm) < 1e-6
    left = float(((x_mm < 0) & ~middle).sum() + 0.5 * middle.sum()) * voxel_ml
    right = float(((x_mm > 0) & ~middle).sum() + 0.5 * middle.sum()) * voxel_ml
    return left, right
