"""The template (:mod:`corelab.imaging.template`) and volumes left and right of its midplane."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from corelab.imaging.template import (
    TEMPLATE_FILE,
    template_brain_mask,
    template_image,
    template_path,
)

__all__ = [
    "TEMPLATE_FILE",
    "mni_left_right",
    "template_brain_mask",
    "template_image",
    "template_path",
]


@cache
def template_ventricles() -> nib.Nifti1Image:
    """Lateral ventricles of the template, uint8: its fluid within a box around them.

    Temporal horns are as thin as the blur of an average head and are mostly missing.

    Examples
    --------
    >>> 12 < float(np.asarray(template_ventricles().dataobj).sum()) / 1000 < 20   # mL
    True
    """
    template = template_image()
    data = np.asarray(template.dataobj)
    corners = np.array([[-38, -62, -12], [39, 41, 41]]) - template.affine[:3, 3]
    box = tuple(slice(int(low), int(high)) for low, high in corners.T)
    fluid = data[box] < 0.5 * np.percentile(data[data > 0], 95)
    parts, _ = ndimage.label(ndimage.binary_opening(fluid))
    sizes = np.bincount(parts.ravel())
    kept = np.zeros(data.shape, np.uint8)
    for part in np.flatnonzero(sizes > 2000):
        x_mm = ndimage.center_of_mass(parts == part)[0] + corners[0, 0] + template.affine[0, 3]
        if part and 5 < abs(x_mm) < 25:
            kept[box] |= (parts == part).astype(np.uint8)
    return nib.Nifti1Image(kept, template.affine)


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
