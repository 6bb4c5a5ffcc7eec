"""Where the brain is, by intensity and shape alone: no weights, no atlas, no registration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import voxel_sizes_mm


def brain_mask(image: Any, kind: str) -> NDArray[np.bool_]:
    """Mask of the brain (with its fluid spaces) on the image's own grid."""
    from scipy import ndimage

    voxels = np.asanyarray(image.dataobj, dtype=np.float32)
    if voxels.ndim == 4:
        voxels = voxels.mean(axis=3)
    sizes = voxel_sizes_mm(image.affine)
    if (voxels == voxels.flat[0]).mean() > 0.3:
        return np.asarray(ndimage.binary_fill_holes(voxels != voxels.flat[0]))
    if kind in ("ncct", "ctp"):
        tissue = (ndimage.gaussian_filter(voxels, 1.0 / sizes) > -5) & (voxels < 110)
    else:
        from skimage.filters import threshold_otsu

        tissue = ndimage.gaussian_filter(voxels, 1.0 / sizes) > 0.7 * threshold_otsu(voxels)
    depth = ndimage.distance_transform_edt(tissue, sampling=sizes)
    parts, count = ndimage.label(depth > 4.0)
    if count == 0:
        return np.zeros(voxels.shape, bool)
    core = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    grown = (ndimage.distance_transform_edt(~core, sampling=sizes) <= 5.0) & tissue
    return np.asarray(ndimage.binary_fill_holes(grown))


#: Volume of a whole adult brain with its fluid spaces, in mL.
BRAIN_ML = (900.0, 1800.0)
#: Height of the brain in mm; a scan that covers less sees a part of the volume.
BRAIN_HEIGHT_MM = 130.0


def brain_volume_verdict(volume_ml: float, coverage_mm: float) -> str:
    """Whether a brain mask has a volume that a brain can have, given the coverage.

    Parameters
    ----------
    volume_ml
        Volume of the mask.
    coverage_mm
        Slices times their distance; below :data:`BRAIN_HEIGHT_MM` the limits shrink with it.

    Returns
    -------
    str
        ``pass``, ``warn`` (up to 200 mL outside, scaled alike) or ``fail``.

    Examples
    --------
    >>> [brain_volume_verdict(ml, mm) for ml, mm in ((1400, 160), (750, 160), (900, 80))]
    ['pass', 'warn', 'pass']
    """
    scale = min(1.0, coverage_mm / BRAIN_HEIGHT_MM)
    low, high = BRAIN_ML
    if low * scale <= volume_ml <= high * max(scale, 0.3):
        return "pass"
    near = (low - 200) * scale <= volume_ml <= (high + 200) * max(scale, 0.3)
    return "warn" if near else "fail"
