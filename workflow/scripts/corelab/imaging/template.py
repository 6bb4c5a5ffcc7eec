"""The template: MNI152 (2009a, symmetric, skull-stripped) as nilearn packages it, 1 mm."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from corelab.imaging.geometry import without_holes

TEMPLATE_FILE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


def template_path() -> Path:
    """File of the template; nilearn is located, not imported (importing it costs seconds).

    Raises
    ------
    FileNotFoundError
        If nilearn is not installed or does not package the template any more.

    Examples
    --------
    >>> template_path().name
    'mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz'
    """
    found = find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("the MNI152 template comes with nilearn: pip install nilearn")
    path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / TEMPLATE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"nilearn has no {path}; install nilearn 0.13")
    return path


@cache
def template_image() -> nib.Nifti1Image:
    """Template T1, brain only, 197 x 233 x 189 voxels of 1 mm, RAS, float32.

    Examples
    --------
    >>> template_image().shape
    (197, 233, 189)
    """
    stored: Any = nib.load(template_path())
    return nib.Nifti1Image(np.asarray(stored.dataobj, dtype=np.float32), stored.affine)


@cache
def template_brain_mask() -> nib.Nifti1Image:
    """Brain of the template: what is not 0, with its holes filled, uint8.

    Examples
    --------
    >>> round(float(np.asarray(template_brain_mask().dataobj).sum()) / 1000)   # mL
    1887
    """
    template = template_image()
    brain = without_holes(np.asarray(template.dataobj) > 0)
    return nib.Nifti1Image(brain.astype(np.uint8), template.affine)


@cache
def tissue_maps(every: int = 1) -> tuple[Any, Any]:
    """Shares of grey and white matter in the template's voxels, float32 (nilearn packages both).

    Parameters
    ----------
    every
        2 gives every second voxel along each axis.

    Examples
    --------
    >>> grey, white = tissue_maps(every=2)
    >>> grey.shape, white.shape
    ((99, 117, 95), (99, 117, 95))
    """
    folder = template_path().parent
    images: list[Any] = [
        nib.load(folder / TEMPLATE_FILE.replace("_t1_", f"_{name}_")) for name in ("gm", "wm")
    ]
    whole = [np.asarray(image.dataobj) for image in images]
    shares = (part[::every, ::every, ::every] / part.max() for part in whole)
    return tuple(np.clip(part, 0, 1).astype(np.float32) for part in shares)  # type: ignore[return-value]


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
