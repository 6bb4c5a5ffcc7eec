"""Dense structures of a head CT without blood: a parametric map in MNI152 millimetres.

Venous sinuses, falx, tentorium, the skull base, and the places that calcify are described by
short courses and surfaces after the textbook, checked against an average head CT in MNI space
(not copied from an atlas). A head is brought to them by an affine fit
(:func:`corelab.imaging.head_fit.fit_voxels`), so a structure is found within some 5 mm: the
tolerances say so. They are places where density proves nothing, not places without blood.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from corelab.imaging.geometry import distance_mm, linear_at
from corelab.imaging.head_fit import HeadFit, fit_voxels
from corelab.imaging.template import template_brain_mask
from corelab.segmentation.scans import Image
from corelab.settings.segmentation import HaematomaThresholds

Points = NDArray[np.floating]

#: Courses of the right side, MNI mm; the left side is their mirror image.
_TRANSVERSE = ((0, -91, -23), (20, -91, -20), (38, -80, -19), (52, -62, -22), (56, -48, -30))
_SIGMOID = ((56, -48, -30), (50, -42, -44), (38, -38, -54), (26, -36, -62))
_STRAIGHT = ((0, -38, 4), (0, -50, 0), (0, -74, -14), (0, -91, -23))
_CAROTID_BASILAR = ((0, -22, -36), (0, -18, -18), (12, 2, -20), (34, 4, -16))
#: The lower edge of the falx in the median plane: y, z.
_FALX_EDGE = ((-95, -22), (-44, 8), (-38, 30), (-10, 38), (20, 32), (42, 12), (68, -14))
#: What calcifies: centre (right side) and radius with tolerance, mm.
_CALCIFYING = {
    "pineal gland": ((0, -28, 2), 9.0),
    "choroid plexus": ((24, -41, 9), 11.0),
    "pallidum": ((18, -4, 0), 10.0),
    "dentate nucleus": ((14, -57, -34), 10.0),
}
#: Structures that explain a small cluster only: blood lies there too.
SMALL = tuple(_CALCIFYING)
#: Below this plane (mm, rising to the front) bone lies in and between the slices.
_BASE_Z_MM, _BASE_RISE = -14.0, 0.15
#: The thickest sheet of dura with what lies on it, and what noise adds to smoothed voxels.
_SHEET_MM, _NOISE_HU = 4.0, 6.0
#: What a fit must reach for the map to be used (see :class:`corelab.imaging.head_fit.HeadFit`).
LEAST_SCORE = 0.08


def template_coordinates(
    hu: Image, affine: NDArray[np.floating], fit: HeadFit | None = None
) -> tuple[dict[str, NDArray[np.float32]], float]:
    """MNI coordinates of every voxel of a head CT, as three images, and the fit's score.

    Parameters
    ----------
    hu
        The whole head, HU.
    affine
        Voxel indices to mm (RAS+).
    fit
        The template on this very image, where it is known.

    Returns
    -------
    images, score
        ``mni_x``, ``mni_y``, ``mni_z`` in mm on the grid of ``hu``; no images where the score is
        below :data:`LEAST_SCORE`.

    Examples
    --------
    >>> template_coordinates(np.full((20, 20, 20), -1000.0), np.diag([9.0, 9, 9, 1]))
    ({}, 0.0)
    """
    fit = fit or fit_voxels(np.asarray(hu, np.float32), np.asarray(affine, float), "ncct")
    if fit.score < LEAST_SCORE:
        return {}, fit.score
    rows = fit.to_mni(affine).astype(np.float32)
    i, j, k = np.ogrid[tuple(slice(n) for n in hu.shape)]
    images = {
        name: row[0] * i + row[1] * j + row[2] * k + row[3]
        for name, row in zip(("mni_x", "mni_y", "mni_z"), rows[:3], strict=True)
    }
    return {name: image.astype(np.float32) for name, image in images.items()}, fit.score


def distance_to_course(points: Points, course: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Distance (n,) of points (n, 3) to a polyline, mm.

    Examples
    --------
    >>> distance_to_course(np.array([[5.0, 3.0, 0.0]]), [(0, 0, 0), (10, 0, 0)]).tolist()
    [3.0]
    """
    line = np.asarray(course, float)
    best = np.full(len(points), np.inf)
    for start, end in pairwise(line):
        along = end - start
        share = np.clip((points - start) @ along / (along @ along), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - start - share[:, None] * along, axis=1))
    return best


def tentorium_height(x: Points, y: Points) -> NDArray[np.float64]:
    """Height (MNI z) of the tentorium over a place: a ridge in the middle that falls to the sides.

    Examples
    --------
    >>> tentorium_height(np.array([0.0, 30.0]), np.array([-50.0, -60.0])).round(0).tolist()
    [0.0, -18.0]
    """
    across = np.abs(x)
    ridge = 5.0 - 0.58 * np.clip(-42.0 - y, 0, 50)
    fall = np.exp(-((across / 13.0) ** 2))
    return np.asarray(-18.0 - 0.2 * np.clip(across - 35.0, 0, None) + (ridge + 18.0) * fall)


@cache
def _outside_template() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Distance to the template's brain on a 2 mm grid (negative inside), and MNI to its voxels."""
    image = template_brain_mask()
    brain = np.pad(np.asarray(image.dataobj)[::2, ::2, ::2] > 0, 10)
    away = distance_mm(~brain, 2.0)
    away -= distance_mm(brain, 2.0)
    affine = np.array(image.affine, float)
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, 20.0)
    affine[:3, :3] *= 2.0
    return away.astype(np.float32), np.linalg.inv(affine)


def outside_brain_mm(points: Points) -> NDArray[np.float32]:
    """Distance (n,) of MNI points to the template's brain, negative inside.

    Examples
    --------
    >>> outside_brain_mm(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 95.0]])) > 0
    array([False,  True])
    """
    away, to_voxel = _outside_template()
    where = to_voxel[:3, :3] @ points.T + to_voxel[:3, 3:]
    return linear_at(away, where, mode="nearest")


def below_base(y: Points, z: Points) -> NDArray[np.bool_]:
    """Points (MNI y, z in mm) at the level of the skull base: petrous bone, sphenoid, orbits.

    Examples
    --------
    >>> below_base(np.array([-60.0, -60.0]), np.array([-40.0, 10.0])).tolist()
    [True, False]
    """
    return np.asarray(z < _BASE_Z_MM + _BASE_RISE * y)


def explanations(
    mni: Points,
    bone_mm: Points,
    excess_hu: Points,
    slice_mm: float,
    parameters: HaematomaThresholds,
) -> dict[str, NDArray[np.bool_]]:
    """Dense structure that a place may belong to.

    Parameters
    ----------
    mni
        Points (n, 3), MNI mm.
    bone_mm
        Distance (n,) of each to the nearest bone, mm, in 3D.
    excess_hu
        Density (n,) above brain tissue. A sheet of dura fills a thick slice in part, so it
        cannot be as dense there as blood is.
    slice_mm
        Distance of the slices: half of it is added to every vertical tolerance.
    parameters
        ``prior_tolerance_mm``, ``sheet_tolerance_mm``, ``sheet_excess_hu`` (dura above tissue).

    Returns
    -------
    dict
        Name of a structure -> (n,) True where it may lie. Structures that follow bone are looked
        for beside bone only.

    Examples
    --------
    >>> rules = HaematomaThresholds()
    >>> where = np.array([[2.0, -100.0, 20.0], [40.0, -20.0, 30.0]])
    >>> found = explanations(where, np.array([3.0, 20.0]), np.full(2, 25.0), 5.0, rules)
    >>> {name: hit.tolist() for name, hit in found.items() if hit.any()}
    {'superior sagittal sinus': [True, False], 'falx': [True, False]}
    """
    x, y, z = mni.T
    right = np.column_stack([np.abs(x), y, z])
    reach = parameters.prior_tolerance_mm
    sheet = parameters.sheet_tolerance_mm
    outer = np.maximum(outside_brain_mm(mni), -99.0)
    dura = parameters.sheet_excess_hu
    edge = np.asarray(_FALX_EDGE, float)
    above_falx_edge = z > np.interp(y, edge[:, 0], edge[:, 1]) - slice_mm / 2
    found = {
        "outside the brain": outer > reach,
        "superior sagittal sinus": (
            (np.abs(x) < 4.0 + sheet) & (bone_mm < 9.0 + sheet) & above_falx_edge & (y < 70)
        ),
        "transverse or sigmoid sinus": (
            (
                np.minimum(
                    distance_to_course(right, _TRANSVERSE), distance_to_course(right, _SIGMOID)
                )
                < 5.0 + reach
            )
            & (bone_mm < 5.0 + reach)
        ),
        "straight sinus": distance_to_course(mni, _STRAIGHT) < 2.0 + reach,
        "falx": ((np.abs(x) < 1.5 + sheet) & above_falx_edge & (excess_hu < dura + _NOISE_HU)),
        "tentorium": (
            (np.abs(z - tentorium_height(x, y)) < 1.5 + sheet + slice_mm / 2)
            & (y < -24 - 0.5 * np.clip(24 - right[:, 0], 0, None))
            & (right[:, 0] < 62)
            & (y > -96)
            & (excess_hu < dura * min(1.0, _SHEET_MM / slice_mm) + _NOISE_HU)
        ),
        "skull base": below_base(y, z) & (bone_mm < reach),
        "basal arteries": distance_to_course(right, _CAROTID_BASILAR) < 3.0 + 0.5 * reach,
    }
    for name, (centre, radius) in _CALCIFYING.items():
        found[name] = np.linalg.norm(right - np.asarray(centre, float), axis=1) < radius
    return found
