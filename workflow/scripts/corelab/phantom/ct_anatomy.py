"""Head CT beside brain: sinuses, dura, petrous bone, calcification, streaks.

The plain simulated head (:mod:`corelab.phantom.head`) is brain in a smooth shell. On real CTs
without blood, 10 of 11 false haematomas lie where that head has nothing: in venous sinuses, the
falx, the tentorium and beside the bone of the skull base. Everything here varies with the seed:
courses are turned, scaled and shifted by several millimetres, one transverse sinus dominates,
haematocrit sets the density of every vessel. Coordinates are MNI mm, courses after the textbook.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.phantom.anatomy import rotation
from corelab.phantom.head import ORIGIN_MM, Head, _stamp, arteries, composite
from corelab.phantom.seeds import generator

Array = NDArray[np.float32]
Point = tuple[float, float, float]

#: Hounsfield units; air is -1000.
HU = {"grey": 37.0, "white": 29.0, "csf": 7.0}
HU_SHELL = {"film": 10, "bone": 1100, "marrow": 420, "scalp": 5, "muscle": 52, "eye": 14}

# Right side; the left is the mirror image. Courses and where a radius (mm) applies.
_TRANSVERSE = [(1, -93, -20), (18, -92, -18), (36, -82, -17), (50, -64, -19), (56, -50, -25)]
_SIGMOID = [(56, -50, -25), (54, -42, -36), (46, -42, -48), (34, -38, -55), (26, -34, -60)]
_STRAIGHT = [(0, -42, 6), (0, -56, -2), (0, -74, -13), (0, -92, -21)]
_PETROUS = [(10, -17, -40), (22, -25, -39), (36, -30, -38), (54, -38, -38)]
_RIDGES = {
    "sphenoid": ([(10, 10, -18), (26, 14, -18), (44, 18, -14)], 4.0),
    "orbit roof": ([(14, 34, -24), (30, 44, -19), (40, 40, -16)], 4.5),
    "clivus": ([(0, -8, -26), (0, -18, -38), (0, -26, -54)], 6.0),
    "occipital crest": ([(0, -92, -22), (0, -86, -40), (0, -74, -54)], 3.5),
    "crista galli": ([(0, 52, -26), (0, 58, -12)], 2.0),
}
_CELLS = [(52, -38, -44), (56, -44, -40), (48, -34, -50), (6, 12, -34), (8, 40, -34)]
#: Lower, free edge of the falx in the median plane: y, z.
_FALX_EDGE = ((68, -8), (40, 18), (20, 38), (-10, 44), (-38, 34), (-44, 10), (-95, -20))
_CALCIFIED = {"pineal": (0, -29, 2), "choroid": (25, -42, 10), "pallidum": (18, -4, 0)}


@dataclass(frozen=True)
class CtAnatomy:
    """One participant's own parts of a head CT.

    Attributes
    ----------
    blood_hu
        Of veins and sinuses (haematocrit); arteries are 5 HU below.
    sinus_mm
        Radius of the superior sagittal sinus at its end, of the right and left transverse sinus
        and of the straight sinus.
    falx_mm, tentorium_mm
        Thickness of the sheets, which have ``dura_hu``.
    turn, shift_mm, scale
        How courses depart from those of this module (about the middle of the head).
    plaques, calcified
        Centre, radii (mm) and HU of plaques on the dura, and of calcified choroid plexus, pineal
        and pallidum.
    petrous_mm
        Radius of the petrous bone; ``cells`` are air cells (centre, radius).
    streak
        Strength of beam hardening by bone (0 none, 1 a usual scanner, 2 bad).
    """

    blood_hu: float = 55.0
    sinus_mm: tuple[float, float, float, float] = (4.0, 4.0, 2.5, 2.5)
    falx_mm: float = 1.5
    tentorium_mm: float = 1.5
    dura_hu: float = 52.0
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shift_mm: Point = (0.0, 0.0, 0.0)
    scale: Point = (1.0, 1.0, 1.0)
    petrous_mm: float = 8.0
    plaques: tuple[tuple[Point, Point, float], ...] = ()
    calcified: tuple[tuple[Point, Point, float], ...] = ()
    cells: tuple[tuple[Point, float], ...] = ()
    streak: float = 1.0

    def place(self, course: Sequence[Point], side: int = 1) -> NDArray[np.float64]:
        """A course of this module where this participant has it, (n, 3) mm."""
        points = np.asarray(course, float) * (side, 1, 1) - (0, -20, 0)
        moved = points * self.scale @ rotation(self.turn).T
        return np.asarray(moved + (0, -20, 0) + np.asarray(self.shift_mm), np.float64)


def draw_ct_anatomy(seed: int, participant_id: str) -> CtAnatomy:
    """Draw a participant's sinuses, dura, bone and calcifications.

    Examples
    --------
    >>> a, b = (draw_ct_anatomy(1, name) for name in ("001", "002"))
    >>> a == draw_ct_anatomy(1, "001"), a == b, 42 < a.blood_hu < 68
    (True, False, True)
    """
    rng = generator(seed, participant_id, "ct-anatomy")
    dominant = rng.choice([-1, 0, 1], p=[0.25, 0.25, 0.5])
    wide, narrow = rng.uniform(3.5, 5.5), rng.uniform(1.0, 3.0)
    sides = {1: (wide, narrow), -1: (narrow, wide), 0: (wide, wide)}[int(dominant)]
    end, straight = float(rng.uniform(3.0, 5.5)), float(rng.uniform(1.5, 3.5))
    base = CtAnatomy(
        blood_hu=float(np.clip(rng.normal(56, 5), 44, 68)),
        sinus_mm=(end, float(sides[0]), float(sides[1]), straight),
        falx_mm=float(rng.uniform(0.8, 2.6)),
        tentorium_mm=float(rng.uniform(0.8, 2.6)),
        dura_hu=float(rng.uniform(46, 62)),
        turn=tuple(map(float, rng.uniform(-2, 2, 3))),  # type: ignore[arg-type]
        shift_mm=tuple(map(float, rng.uniform(-3, 3, 3) * (0.7, 1, 1))),  # type: ignore[arg-type]
        scale=tuple(map(float, rng.uniform(0.96, 1.04, 3))),  # type: ignore[arg-type]
        petrous_mm=float(rng.uniform(6.0, 9.5)),
        streak=float(rng.uniform(0.4, 1.6)),
    )
    return replace(
        base,
        plaques=_plaques(rng),
        calcified=_calcified(rng),
        cells=_cells(rng),
    )


def _about(rng: np.random.Generator, centre: Sequence[float], sd_mm: float) -> Point:
    return cast(Point, tuple(float(c + rng.normal(0, sd_mm)) for c in centre))


def _radii(rng: np.random.Generator, low: float, high: float) -> Point:
    return cast(Point, tuple(map(float, rng.uniform(low, high, 3))))


def _plaques(rng: np.random.Generator) -> tuple[tuple[Point, Point, float], ...]:
    made = []
    for _ in range(int(rng.integers(0, 5))):
        y, z = rng.uniform(-60, 55), rng.uniform(35, 68)
        size = (float(rng.uniform(1.0, 2.5)), *map(float, rng.uniform(2, 6, 2)))
        made.append(((float(rng.normal(0, 1.5)), float(y), float(z)), size, rng.uniform(90, 400)))
    for _ in range(int(rng.integers(0, 3))):
        side = rng.choice([-1, 1])
        centre = (side * rng.uniform(14, 26), rng.uniform(-50, -25), rng.uniform(-18, -10))
        made.append((_about(rng, centre, 1.0), _radii(rng, 1.0, 3.0), rng.uniform(90, 300)))
    return tuple((c, cast(Point, r), float(hu)) for c, r, hu in made)


def _calcified(rng: np.random.Generator) -> tuple[tuple[Point, Point, float], ...]:
    made = []
    for name, chance in (("pineal", 0.7), ("choroid", 0.7), ("pallidum", 0.25)):
        if rng.random() > chance:
            continue
        for side in (1,) if name == "pineal" else (1, -1):
            x, y, z = _CALCIFIED[name]
            if name == "choroid" and rng.random() < 0.15:
                continue  # on one side alone
            size = _radii(rng, 1.2, 3.5) if name == "pineal" else _radii(rng, 1.5, 4.5)
            density = rng.uniform(55, 110) if name == "pallidum" else rng.uniform(70, 350)
            made.append((_about(rng, (side * x, y, z), 2.0), size, float(density)))
    return tuple(made)


def _cells(rng: np.random.Generator) -> tuple[tuple[Point, float], ...]:
    made = []
    for x, y, z in _CELLS:
        for side in (1, -1):
            for _ in range(4):
                made.append((_about(rng, (side * x, y, z), 5.0), float(rng.uniform(1.5, 4.5))))
    return tuple(made)


def _blob(centre: Point, radii: Point, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], Array]:
    """Fraction of an ellipsoid with an edge of 1 mm, and the box of the 1 mm grid it lies in."""
    at = np.asarray(centre) - ORIGIN_MM
    low = np.maximum(np.floor(at - np.asarray(radii) - 2), 0).astype(int)
    high = np.minimum(np.ceil(at + np.asarray(radii) + 2).astype(int) + 1, shape)
    box = tuple(slice(int(a), int(max(a, b))) for a, b in zip(low, high, strict=True))
    grids = np.ogrid[box]
    far = np.sqrt(sum(((g - c) / r) ** 2 for g, c, r in zip(grids, at, radii, strict=True)))
    return box, np.clip((1 - far) * min(radii) + 0.5, 0, 1).astype(np.float32)


def _mix(image: Array, fraction: NDArray[np.floating], value: float) -> None:
    image += fraction * (np.float32(value) - image)


def sinuses(head: Head, anatomy: CtAnatomy) -> Array:
    """Fraction of venous blood in the dural sinuses, 1 mm template grid.

    Examples
    --------
    >>> from corelab.phantom.head import load_head
    >>> bool(5 < sinuses(load_head(), draw_ct_anatomy(1, "001")).sum() / 1000 < 60)
    True
    """
    blood = np.zeros(head.brain.shape, np.float32)
    end, right, left, straight = anatomy.sinus_mm
    midline = head.brain[93:104].max(axis=0) > 0.5
    course = []
    for z in np.arange(-16, 74, 4.0):
        rows = np.flatnonzero(midline[:, int(z - ORIGIN_MM[2])])
        course.append((0.0, ORIGIN_MM[1] + rows[0] - 1.0, z))
    for y in np.arange(-60, 66, 5.0):
        rows = np.flatnonzero(midline[int(y - ORIGIN_MM[1])])
        course.append((0.0, y, ORIGIN_MM[2] + rows[-1] + 1.0))
    # Only sideways: along the bone the sinus goes where the bone is.
    sagittal = np.asarray(course, float) + (anatomy.shift_mm[0], 0, 0)
    for n in range(len(sagittal) - 1):
        _stamp(blood, sagittal[n : n + 2], end * (1 - 0.6 * n / len(sagittal)))
    for side, radius in ((1, right), (-1, left)):
        _stamp(blood, anatomy.place(_TRANSVERSE, side), radius)
        _stamp(blood, anatomy.place(_SIGMOID, side), 0.9 * radius)
    _stamp(blood, anatomy.place(_STRAIGHT), straight)
    _stamp(blood, anatomy.place([(0, -90, -19), (0, -94, -22)]), end + 1.0)  # the confluence
    return blood


def dura(head: Head, anatomy: CtAnatomy) -> Array:
    """Fraction of falx and tentorium, 1 mm template grid."""
    shape = head.brain.shape
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    x, y, z = (grid + np.float32(o) for grid, o in zip((x, y, z), ORIGIN_MM, strict=True))
    edge = np.asarray(_FALX_EDGE, float)
    order = np.argsort(edge[:, 0])
    free = np.interp(y[0, :, 0], edge[order, 0], edge[order, 1])[None, :, None]
    bend = anatomy.shift_mm[0] + 1.5 * np.sin(y / 40 + anatomy.turn[0])
    falx = np.clip(anatomy.falx_mm / 2 + 0.5 - np.abs(x - bend), 0, 1)
    falx = falx * np.clip(z - free, 0, 1)
    # The tentorium: a tent, high along the straight sinus, low at its lateral attachment.
    ridge = 5 - 0.58 * np.clip(-42 - y, 0, 52)
    across = np.abs(x - anatomy.shift_mm[0])
    height = np.where(across < 22, ridge + (-17 - ridge) * across / 22, -17 - 0.25 * (across - 22))
    height = height + anatomy.shift_mm[2]
    sheet = np.clip(anatomy.tentorium_mm / 2 + 0.5 - np.abs(z - height) * 0.8, 0, 1)
    behind = np.clip(-26 - 0.9 * np.clip(22 - across, 0, 22) - y + across * 0.25, 0, 1)
    return np.maximum(falx, sheet * behind).astype(np.float32)


def hounsfield_head(head: Head, anatomy: CtAnatomy) -> Array:
    """HU of the whole head without lesions, 1 mm template grid.

    Examples
    --------
    >>> from corelab.phantom.head import load_head
    >>> hu = hounsfield_head(load_head(), draw_ct_anatomy(1, "001"))
    >>> hu.shape, bool(hu.max() > 900)
    ((197, 233, 189), True)
    """
    image = composite(head, {k: v + 1000.0 for k, v in {**HU, **HU_SHELL}.items()}) - 1000
    inside = np.clip(image + 200, 0, 200) / 200  # nothing is drawn into the air around the head
    bone = np.zeros(image.shape, np.float32)
    for side in (1, -1):
        _stamp(bone, anatomy.place(_PETROUS, side), anatomy.petrous_mm)
        for course, radius in _RIDGES.values():
            _stamp(bone, anatomy.place(course, side), radius)
    _mix(image, dura(head, anatomy) * inside * (image < 200), anatomy.dura_hu)
    _mix(image, bone * inside, 1000.0)
    _mix(image, arteries() * inside * (image < 200), anatomy.blood_hu - 5)
    _mix(image, sinuses(head, anatomy) * inside, anatomy.blood_hu)
    for centre, radii, hu in (*anatomy.plaques, *anatomy.calcified):
        box, share = _blob(centre, radii, image.shape)
        _mix(image[box], share * head.brain[box], hu)
    for centre, radius in anatomy.cells:
        box, share = _blob(centre, (radius,) * 3, image.shape)
        _mix(image[box], share * (image[box] > 200), -900.0)
    return image


def beam_hardening(hu: Array, voxel_size_mm: Sequence[float], strength: float) -> Array:
    """Error in HU that bone causes: dark bands between dense bones, cupping, fine streaks.

    A scanner corrects for water; the path through bone then measures too little by a share that
    grows with its square. That error is projected and reconstructed, slice by slice.

    Method: Joseph and Spital, J Comput Assist Tomogr 1978;2:100.

    Examples
    --------
    >>> hu = np.full((60, 60, 1), 35.0, np.float32); hu[10:18, 26:34] = hu[42:50, 26:34] = 1200.0
    >>> error = beam_hardening(hu, (3.0, 3.0, 5.0), 1.0)
    >>> bool(error[30, 30, 0] < -1.0)
    True
    """
    from skimage.transform import iradon, radon

    zoom = [voxel_size_mm[axis] / _STEP_MM for axis in (0, 1)]
    angles = np.linspace(0, 180, 90, endpoint=False)
    out = np.zeros(hu.shape, np.float32)
    for k in range(hu.shape[2]):
        coarse = ndimage.zoom(
            ndimage.gaussian_filter(hu[:, :, k], 0.5 / np.asarray(zoom)), zoom, order=1
        )
        size = max(coarse.shape)
        pad = [((size - n) // 2, size - n - (size - n) // 2) for n in coarse.shape]
        bone = np.pad(np.clip(coarse - 150, 0, 1500), pad)
        if bone.max() <= 0:
            continue
        path = radon(bone, angles, circle=False) * _STEP_MM / 1e4  # about cm of bone
        error = iradon(path**2, angles, filter_name="hann", circle=False, output_size=size)
        error = error[tuple(slice(a, a + n) for (a, _), n in zip(pad, coarse.shape, strict=True))]
        error = (
            error - np.median(error[np.abs(coarse) < 80]) if (np.abs(coarse) < 80).any() else error
        )
        scaled = ndimage.zoom(
            error, [m / n for m, n in zip(hu.shape[:2], error.shape, strict=True)], order=1
        )
        out[:, :, k] = -strength * _HARDENING_HU * scaled
    return out


#: HU of error per unit of the reconstructed square of bone paths: 1.0 gives bands of 5 to 15 HU
#: between petrous bones of usual size.
_HARDENING_HU = 25.0
#: Pixels in which bone is projected.
_STEP_MM = 3.0
