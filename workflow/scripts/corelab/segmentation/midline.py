"""The median plane of a head: that of the template fitted to it, then refined on the head itself.

A search that starts at the grid's own left-right axis may end at a lesion's edge or stay at a
turned head's old axis; the fit of the template knows the head's pose before the search begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import smoothed
from corelab.segmentation.scans import Image, Mask
from corelab.segmentation.tissue import (
    MidPlane,
    find_midplane,
    most_symmetric,
    symmetry_feature,
)

#: How far the refined plane may leave the template's: mm, degrees. An affine fit is that good.
_REACH_MM, _REACH_DEGREES = 5.0, 5.0
_GRID_MM = 3.0
#: SD of the Gaussian before sides are compared.
_SMOOTH_MM = 4.0


def template_midplane(mni_x: NDArray[np.floating], voxel_size_mm: Sequence[float]) -> MidPlane:
    """The plane x = 0 of the template on a grid whose voxels have the MNI x of ``mni_x``.

    Examples
    --------
    >>> x = np.arange(20.0)[:, None, None] * 2 - 11 + np.zeros((20, 4, 4))
    >>> plane = template_midplane(x, (2.0, 2.0, 5.0))
    >>> plane.normal, round(plane.point_mm[0], 6)
    ((1.0, 0.0, 0.0), 11.0)
    """
    first = float(mni_x[0, 0, 0])
    step = [float(mni_x[tuple(np.eye(3, dtype=int)[axis])]) - first for axis in range(3)]
    slope = np.asarray(step) / np.asarray(voxel_size_mm, float)
    middle = (np.asarray(mni_x.shape) - 1) / 2 * np.asarray(voxel_size_mm, float)
    value = first + float(slope @ middle)
    length = float(np.linalg.norm(slope))
    x, y, z = middle - value * slope / length**2
    nx, ny, nz = slope / length
    return MidPlane((float(x), float(y), float(z)), (float(nx), float(ny), float(nz)), 0.0)


def median_plane(
    image: Image, brain: Mask, voxel_size_mm: Sequence[float], mni_x: NDArray[np.floating] | None
) -> MidPlane:
    """Plane of best mirror symmetry within a few millimetres and degrees of the template's.

    Without coordinates (``mni_x`` None) the plane is searched from the grid's own axis
    (:func:`corelab.segmentation.tissue.find_midplane`).

    Parameters
    ----------
    image
        Clipped contrast; only what lies in ``brain`` counts.
    brain
        Brain mask.
    voxel_size_mm
        Edges of a voxel.
    mni_x
        MNI x of every voxel, from an affine fit.

    Returns
    -------
    MidPlane
        With ``symmetry``: correlation of shape and contrast with their mirror image.
    """
    if mni_x is None:
        return find_midplane(image, brain, voxel_size_mm)
    feature, _, coarse = symmetry_feature(image, brain, voxel_size_mm, _GRID_MM)
    start = template_midplane(mni_x, voxel_size_mm)
    normal = np.asarray(start.normal)
    across = np.linalg.svd(normal[None])[2][1:]

    def plane(v: NDArray[np.float64]) -> MidPlane:
        turned = normal + np.tan(np.deg2rad(v[1:])) @ across
        x, y, z = np.asarray(start.point_mm) + v[0] * normal
        nx, ny, nz = turned / np.linalg.norm(turned)
        return MidPlane((float(x), float(y), float(z)), (float(nx), float(ny), float(nz)), 0.0)

    def penalty(v: NDArray[np.float64]) -> float:
        beyond = np.abs(v) / (_REACH_MM, _REACH_DEGREES, _REACH_DEGREES) - 1.0
        return float(np.clip(beyond, 0, None).sum())

    corners = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], float)
    best = most_symmetric(plane, feature, coarse, corners, 80, penalty)
    return MidPlane(best.point_mm, best.normal, symmetry_of(feature, best, coarse))


def symmetry_of(
    feature: NDArray[np.floating], plane: MidPlane, voxel_size_mm: Sequence[float] | NDArray[Any]
) -> float:
    """Correlation of an image with its mirror image, without noise and without a lesion.

    Noise lowers the correlation of single voxels on the most symmetric head, and so does a lesion:
    both images are smoothed by :data:`_SMOOTH_MM`, and the tenth of the head whose sides differ
    most is left out. A plane that is off moves every edge of the head, which is more than that.

    Examples
    --------
    >>> random = np.random.default_rng(1)
    >>> x, y, z = np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij")
    >>> head = 4.0 * (x**2 + y**2 + z**2 < 225) + random.normal(0, 1, x.shape)
    >>> straight, turned = (MidPlane((p, 60.0, 60.0), (1.0, 0.0, 0.0), 0.0) for p in (60.0, 66.0))
    >>> found = symmetry_of(head, straight, (3, 3, 3)), symmetry_of(head, turned, (3, 3, 3))
    >>> found[0] > 0.99 > 0.96 > found[1]
    True
    """
    sigma = [_SMOOTH_MM / edge if edge <= 2.0 * _SMOOTH_MM else 0.0 for edge in voxel_size_mm]
    own = smoothed(np.asarray(feature, np.float32), sigma)
    other = plane.reflect(own, voxel_size_mm)
    apart = np.abs(own - other)
    head = (np.abs(own) > 0.5) | (np.abs(other) > 0.5)
    used = ~head | (apart <= np.quantile(apart[head], 0.9)) if head.any() else ~head
    return float(np.corrcoef(own[used], other[used])[0, 1])
