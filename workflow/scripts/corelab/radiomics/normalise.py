"""Grey levels: an MR image without units becomes 256 levels that can be compared.

The re-analysed trial brought T1w, T1c and FLAIR to 256 levels after removing the brightest 0.1 %
of the voxels, and T2w over its full range. It does not say whether removed voxels are left out or
held at the top level, nor over which voxels the share counts: both are arguments here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Level of a voxel that has none: outside the reference region or excluded as too bright.
NO_LEVEL = -1
TOP_MODES = ("exclude", "clip", "full")
_TOP_BY_SERIES = {"T1w": "exclude", "T1c": "exclude", "FLAIR": "exclude", "T2w": "full"}


@dataclass(frozen=True)
class GreyLevels:
    """An image in grey levels: int16, 0 to ``n_levels - 1``, or ``NO_LEVEL``.

    ``low``, ``high``: intensities that became level 0 and the top level (units of the image).
    ``n_reference``: voxels over which the range was taken. ``n_top``: voxels brighter than
    ``high``, excluded or clipped. ``top``: ``exclude``, ``clip`` or ``full``.
    """

    levels: NDArray[np.int16]
    low: float
    high: float
    n_reference: int
    n_top: int
    n_levels: int
    top: str


def top_mode(series: str) -> str:
    """Default treatment of the brightest voxels of a series.

    Derived images (edge, z-score) have heavy upper tails too and are treated like T1w.

    Examples
    --------
    >>> top_mode("T1c"), top_mode("T2w")
    ('exclude', 'full')
    """
    return _TOP_BY_SERIES.get(series, "exclude")


def grey_levels(
    values: Any,
    *,
    mask: Any = None,
    top: str = "exclude",
    top_share: float = 0.001,
    n_levels: int = 256,
) -> GreyLevels:
    """Bring intensities linearly to ``n_levels`` grey levels of equal width.

    The ``floor(top_share * n)`` brightest of the n voxels of ``mask`` (the brain; None: all) are
    the top. The brightest voxel that is left is ``high``, the darkest ``low``, and ``level =
    floor(n_levels * (value - low) / (high - low))``, with ``high`` itself in the top level. Voxels
    equal to ``high`` are never top (a tie is not broken by position), so that with ties fewer
    voxels than the share may go; voxels outside the mask have no level. As in the radiomics of
    JCOG0911A2 (256 levels). ``top``: ``exclude``, top voxels get no level (the word of the source,
    "removed"); ``clip``, they get the highest level; ``full``, there is no top.

    Raises ValueError if the reference region is empty, not finite or constant, or an argument is
    out of range.

    Examples
    --------
    >>> ramp = grey_levels(np.arange(1000.0))
    >>> int((ramp.levels >= 0).sum()), len(set(ramp.levels[:999].tolist())), ramp.n_top
    (999, 256, 1)
    """
    if top not in TOP_MODES:
        raise ValueError(f"top is '{top}'; it is one of {', '.join(TOP_MODES)}")
    if not 0.0 <= top_share < 1.0:
        raise ValueError(
            f"top_share is {top_share}; it is a share of the voxels, 0 to below 1 (0.1 % is 0.001)"
        )
    if not 2 <= n_levels <= np.iinfo(np.int16).max:
        raise ValueError(f"n_levels is {n_levels}; it is 2 to {np.iinfo(np.int16).max}")
    image = np.asarray(values, dtype=np.float64)
    region = _region(image, mask)
    inside = image[region]
    # The tiny term undoes the rounding of the product: 0.1 % of 3000 is 3, never 2.
    n_share = 0 if top == "full" else math.floor(top_share * inside.size + 1e-9)
    kept = inside.size - n_share
    if kept < 1:
        raise ValueError(f"top_share {top_share} leaves none of {inside.size} voxels")
    low = float(inside.min())
    high = float(np.partition(inside, kept - 1)[kept - 1])
    if not high > low:
        raise ValueError(
            f"all {kept} reference voxels have the value {low:g}: a constant image has no grey "
            "levels; check that this is the right series and that its mask lies on it"
        )
    levels = np.full(image.shape, NO_LEVEL, dtype=np.int16)
    scaled = np.floor(n_levels * ((inside - low) / (high - low)))
    found = np.clip(scaled, 0, n_levels - 1).astype(np.int16)
    above = inside > high
    if top == "exclude":
        found[above] = NO_LEVEL
    levels[region] = found
    return GreyLevels(levels, low, high, int(inside.size), int(above.sum()), n_levels, top)


def _region(image: NDArray[np.float64], mask: Any) -> NDArray[np.bool_]:
    region = np.ones(image.shape, bool) if mask is None else np.asarray(mask) > 0.5
    if region.shape != image.shape:
        raise ValueError(
            f"the mask has shape {region.shape}, the image {image.shape}; resample the mask to "
            "the image first"
        )
    if not region.any():
        raise ValueError("the reference mask is empty: there are no voxels to take a range from")
    bad = int(np.count_nonzero(~np.isfinite(image[region])))
    if bad:
        raise ValueError(
            f"{bad} voxels of the reference region are not finite, so the range is undefined; "
            "load the image through corelab.imaging or leave them out of the mask"
        )
    return region
