"""Images derived from a series before features are taken: T2 edges and contrast enhancement."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import same_grid, voxel_sizes_mm

#: A median absolute deviation times this is the standard deviation of normal data.
_MAD_TO_SD = 1.4826022185056018
_OUTLIER_SD = 3.0
_FIT_ROUNDS = 10
_MIN_REFERENCE_VOXELS = 50


def t2_edge(image: Any, *, dimensions: int = 2, unit: str = "voxel") -> nib.Nifti1Image:
    """Edges of an image (3D, usually T2w): magnitude of the Prewitt gradient, float32.

    ``dimensions`` 2: within slices, that is across the two axes other than the one with the largest
    voxels (the last axis if all are equal); 3: in the volume. The source names the filter but not
    its dimension; slices of a clinical T2w are far apart, hence 2. ``unit`` ``voxel``: change of
    intensity per voxel, the usual form of the filter; ``mm``: per millimetre, which weighs
    directions equally when voxels are not cubes (use it with 3).

    Prewitt, Object enhancement and extraction, 1970. Along each axis the difference between the
    next and the last voxel is halved and averaged over the 3 (2D) or 9 (3D) lines: a ramp of slope
    s gives s, a step of height h gives h/2 in the two voxels beside it. Masks of a library that
    leaves out the averaging (Matlab) give 6 times these values in 2D, and 18 times in 3D.

    Raises ValueError if the image is not 3D or not finite, or an argument is none of its values.

    Examples
    --------
    >>> step = np.zeros((6, 5, 4), np.float32)
    >>> step[3:] = 10
    >>> t2_edge(nib.Nifti1Image(step, np.eye(4))).get_fdata()[:, 2, 2].tolist()
    [0.0, 0.0, 5.0, 5.0, 0.0, 0.0]
    """
    from scipy import ndimage

    if dimensions not in (2, 3):
        raise ValueError(f"dimensions is {dimensions}; the Prewitt filter is taken in 2 or 3")
    if unit not in ("voxel", "mm"):
        raise ValueError(f"unit is '{unit}'; it is 'voxel' or 'mm'")
    values = _finite_volume(image, "the image")
    sizes = voxel_sizes_mm(image.affine)
    axes = [0, 1, 2]
    if dimensions == 2:
        thick = int(sizes.size - 1 - np.argmax(np.round(sizes[::-1], 3)))
        axes.remove(thick)
    squared = np.zeros(values.shape)
    for axis in axes:
        gradient = ndimage.correlate1d(values, [-0.5, 0.0, 0.5], axis=axis, mode="nearest")
        for other in axes:
            if other != axis:
                gradient = ndimage.uniform_filter1d(gradient, 3, axis=other, mode="nearest")
        if unit == "mm":
            gradient /= sizes[axis]
        squared += gradient**2
    return nib.Nifti1Image(np.sqrt(squared).astype(np.float32), image.affine)


def gd_zscore(t1: Any, t1c: Any, *, reference: Any) -> nib.Nifti1Image:
    """Contrast enhancement by voxel, in standard deviations of tissue that does not enhance.

    ``z = (T1c - (a + b T1)) / s``: how far T1c lies above what T1 foretells in reference tissue.
    a, b: least squares over the reference voxels, repeated without the voxels whose residual is
    further than 3 s from the median (vessels, choroid plexus, pituitary). s: 1.4826 times the
    median absolute deviation of the residuals of all reference voxels. Thus z, a float32 image
    defined everywhere, does not change when either image is scaled or shifted. The source names a
    "Gd z-score" from T1w and T1c without a formula: this one is Corelab's own. ``reference`` is an
    array or image on the grid of both: the brain without the lesion.

    Raises ValueError if grids differ, the reference has fewer than 50 voxels, T1 is constant in
    it, or T1c is an exact linear function of T1 in it (there is no spread to measure against).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> before = rng.normal(100, 10, (12, 12, 12))
    >>> after = 2 * before + rng.normal(0, 5, before.shape)
    >>> after[6, 6, 6] = 2 * before[6, 6, 6] + 50
    >>> images = (nib.Nifti1Image(x, np.eye(4)) for x in (before, after))
    >>> round(float(gd_zscore(*images, reference=before > 0).get_fdata()[6, 6, 6]))
    10
    """
    before = _finite_volume(t1, "T1")
    after = _finite_volume(t1c, "T1c")
    _require_grid(t1, t1c, "T1c", "T1")
    if hasattr(reference, "affine"):
        _require_grid(t1, reference, "the reference mask", "T1")
    tissue = np.asanyarray(getattr(reference, "dataobj", reference)) > 0.5
    if tissue.shape != before.shape:
        raise ValueError(f"the reference mask has shape {tissue.shape}, T1 {before.shape}")
    n_tissue = int(tissue.sum())
    if n_tissue < _MIN_REFERENCE_VOXELS:
        raise ValueError(
            f"the reference tissue has {n_tissue} voxels, fewer than {_MIN_REFERENCE_VOXELS}: "
            "too few to distinguish enhancement from noise; give the brain mask without the lesion"
        )
    offset, slope, spread = _expected(before[tissue], after[tissue])
    z = (after - (offset + slope * before)) / spread
    return nib.Nifti1Image(z.astype(np.float32), t1.affine)


def _expected(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Offset, slope and robust spread of y on x, outliers left out of the fit."""
    keep = np.ones(x.size, bool)
    offset = slope = spread = 0.0
    for _ in range(_FIT_ROUNDS):
        centred = x[keep] - x[keep].mean()
        variance = float(centred @ centred)
        if variance <= 1e-12 * max(1.0, float(x[keep] @ x[keep])):
            raise ValueError(
                "T1 is constant in the reference tissue, so it foretells nothing; check T1 and "
                "its mask"
            )
        slope = float(centred @ y[keep]) / variance
        offset = float(y[keep].mean() - slope * x[keep].mean())
        residual = y - (offset + slope * x)
        middle = float(np.median(residual))
        spread = _MAD_TO_SD * float(np.median(np.abs(residual - middle)))
        if spread <= 1e-9 * float(np.abs(y).max()):
            raise ValueError(
                "T1c is a linear function of T1 in the reference tissue (residual spread "
                f"{spread:g}): there is nothing to measure enhancement against; check that the "
                "two files are not the same scan"
            )
        within = np.abs(residual - middle) <= _OUTLIER_SD * spread
        if np.array_equal(within, keep):
            break
        keep = within
    return offset, slope, spread


def _finite_volume(image: Any, name: str) -> NDArray[np.float64]:
    values = np.asarray(image.dataobj, dtype=np.float64)
    if values.ndim != 3:
        raise ValueError(f"{name} has {values.ndim} dimensions (shape {values.shape}); it needs 3")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(f"{bad} voxels of {name} are not finite; load it through corelab.imaging")
    return values


def _require_grid(first: Any, second: Any, name: str, other: str) -> None:
    if not same_grid(first, second):
        raise ValueError(
            f"{name} is not on the grid of {other} (shapes {second.shape} and {first.shape}); "
            "resample it with corelab.imaging.resample_to first"
        )
