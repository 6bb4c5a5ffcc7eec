"""Two definitions of a brain mask: with the fluid around the brain, and without.

References differ: masks of networks and of readers often reach to the inner skull, others follow
the pial surface. Taking the outer fluid out of both masks, by one rule, tells whether they differ
in brain or in definition only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

#: Contrasts by the look of fluid; CT is in HU.
_CT = ("ncct", "ctp")
_BRIGHT = ("T2w", "b0", "adc", "ADC", "dsc", "DSC")
_CT_FLUID_BELOW_HU = 15.0
#: Fluid against the median of the deep brain: below the first if dark, above the second if bright.
_DARK, _BRIGHTER = 0.5, 1.5
#: Fluid is followed this far into the mask: sulci and cisterns, but not through to ventricles.
_REACH_MM = 10.0


def without_outer_fluid(image: Any, kind: str, mask: np.ndarray) -> np.ndarray:
    """A brain mask less the fluid that is connected with its surface.

    Parameters
    ----------
    image
        nibabel image, 3D or 4D (of which the mean is taken).
    kind
        Kind of scan: says whether fluid is dark or bright.
    mask
        Boolean, shape of the first three axes. Ventricles and cavities that lie deeper than
        10 mm, or that no fluid connects with the surface, stay in.

    Examples
    --------
    >>> import nibabel as nib
    >>> away = np.sqrt(sum((np.indices((40, 40, 40)) - 19.5) ** 2))
    >>> hu = np.where((away < 4) | (away > 15), 5.0, 35.0)          # ventricle and outer fluid
    >>> head = nib.Nifti1Image(hu, np.diag([4.0, 4.0, 4.0, 1.0]))
    >>> kept = without_outer_fluid(head, "ncct", away < 17)
    >>> bool((kept == (away <= 15)).all())
    True
    """
    voxels = np.asarray(image.dataobj, dtype=np.float32)
    voxels = voxels.mean(axis=3) if voxels.ndim == 4 else voxels
    mask = np.asarray(mask) > 0
    sizes = np.sqrt((np.asarray(image.affine)[:3, :3] ** 2).sum(axis=0))
    # The border of the array is no surface: a brain that it cuts has no fluid there.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"), sampling=sizes)
    depth = depth[1:-1, 1:-1, 1:-1]
    deep = depth > _REACH_MM
    if not deep.any():
        return mask
    # A voxel's noise is no fluid.
    smooth = ndimage.gaussian_filter(voxels, np.where(sizes < 2.0, 0.7 / sizes, 0.0))
    typical = float(np.median(voxels[deep]))
    if kind in _CT:
        fluid = smooth < _CT_FLUID_BELOW_HU
    elif kind in _BRIGHT:
        fluid = smooth > _BRIGHTER * typical
    else:
        fluid = smooth < _DARK * typical
    near = mask & fluid & ~deep
    rim = ndimage.binary_dilation(~mask, ndimage.generate_binary_structure(3, 1))
    return mask & ~ndimage.binary_propagation(near & rim, mask=near)
