"""Head CTs with haematomas, acquired in different ways: images with known truth for the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.phantom.anatomy import make_anatomy, rigid
from corelab.phantom.ct_anatomy import Array, Point, beam_hardening
from corelab.phantom.head import ORIGIN_MM, Head
from corelab.phantom.seeds import generator


@dataclass(frozen=True)
class Acquisition:
    """How a CT of the head is acquired.

    Attributes
    ----------
    in_plane_mm, slice_mm
        Voxel size; slices are integrals over their thickness.
    tilt_degrees
        Pitch of the slices, roll and yaw of the head.
    kernel
        ``soft``, ``standard`` or ``sharp``: blur and the noise that goes with it.
    noise_hu
        SD of the standard kernel's noise.
    """

    in_plane_mm: float = 0.9
    slice_mm: float = 5.0
    tilt_degrees: Point = (0.0, 0.0, 0.0)
    kernel: str = "standard"
    noise_hu: float = 3.5


_KERNELS = {"soft": (0.75, 0.7, 0.0), "standard": (0.5, 1.0, 0.0), "sharp": (0.4, 1.6, 0.5)}


@dataclass(frozen=True, eq=False)
class SimulatedCt:
    """A simulated head CT: HU on its grid, the grid, truth masks by name, and what it shows."""

    hu: Array
    affine: NDArray[np.float64]
    masks: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Edges of a voxel."""
        return cast(Point, tuple(np.sqrt((self.affine[:3, :3] ** 2).sum(0))))


def acquire_ct(
    head_hu: Array,
    fractions: dict[str, Array],
    seed: int,
    participant_id: str,
    acquisition: Acquisition,
    *,
    streak: float = 1.0,
) -> SimulatedCt:
    """Scan a head: the participant's own shape, tilt, slice integration, streaks, kernel, noise.

    Parameters
    ----------
    head_hu
        On the 1 mm template grid (:func:`hounsfield_head`, lesions mixed in).
    fractions
        Name -> fraction field on the same grid; truth is where it fills half of a voxel.
    seed, participant_id
        Of the participant's shape (:func:`corelab.phantom.anatomy.make_anatomy`) and the noise.
    acquisition
        Of the scan.
    streak
        Strength of :func:`beam_hardening`.
    """
    shape = make_anatomy(seed, participant_id)
    sizes = np.array([acquisition.in_plane_mm] * 2 + [acquisition.slice_mm])
    samples = max(2, round(acquisition.slice_mm / 1.6))
    count = tuple(
        int(np.ceil(extent / size)) for extent, size in zip((190, 226, 165), sizes, strict=True)
    )
    placed = rigid(acquisition.tilt_degrees, (0, -16, 4))
    affine = placed @ np.diag([*sizes, 1.0])
    affine[:3, 3] = placed[:3, 3] - affine[:3, :3] @ ((np.array(count) - 1) / 2)
    fine = np.eye(4)
    fine[2, 2], fine[2, 3] = 1 / samples, (1 / samples - 1) / 2
    points = shape.grid_to_template(affine @ fine, (count[0], count[1], count[2] * samples))
    where = [points[axis] - np.float32(ORIGIN_MM[axis]) for axis in range(3)]

    def scan(values: Array, outside: float) -> Array:
        sampled = ndimage.map_coordinates(
            values, where, order=1, mode="constant", cval=outside, output=np.float32
        )
        return cast(Array, sampled.reshape(*count, samples).mean(-1))

    hu = scan(head_hu, -1000.0)
    masks = {name: scan(values, 0.0) >= 0.5 for name, values in fractions.items()}
    hu += beam_hardening(hu, sizes.tolist(), streak)
    blur, noise_gain, edge = _KERNELS[acquisition.kernel]
    spread = [blur / size for size in sizes[:2]] + [0.0]
    hu = ndimage.gaussian_filter(hu, spread)
    if edge:
        hu = hu + np.float32(edge) * (
            hu - ndimage.gaussian_filter(hu, [1.2 / s for s in sizes[:2]] + [0])
        )
    rng = generator(seed, participant_id, "ct-noise")
    noise = ndimage.gaussian_filter(rng.standard_normal(count, np.float32), [0.6, 0.6, 0])
    hu += noise * np.float32(acquisition.noise_hu * noise_gain / noise.std())
    return SimulatedCt(np.clip(np.rint(hu), -1024, 3071).astype(np.float32), affine, masks)


#: Where a haematoma lies: centre (right side) and how far it varies, mm.
_PLACES: dict[str, tuple[Point, Point]] = {
    "deep": ((27, -4, 4), (5, 10, 8)),
    "lobar": ((44, -30, 34), (6, 35, 14)),
    "cerebellar": ((24, -64, -38), (8, 6, 5)),
    "brain stem": ((1, -26, -32), (3, 2, 5)),
    "ventricle": ((16, -20, 20), (4, 15, 4)),
}


def haematoma(
    head: Head, seed: int, participant_id: str, place: str, volume_ml: float
) -> tuple[Array, float]:
    """Fraction field of a haematoma on the 1 mm template grid, and its HU.

    Parameters
    ----------
    head
        The head; blood stays within brain and the film of fluid around it.
    seed, participant_id
        Of its shape.
    place
        ``deep``, ``lobar``, ``cerebellar``, ``brain stem``, ``ventricle``, or beside bone:
        ``cortical``, ``temporal pole``, ``occipital``, ``subdural`` (a crescent of 5 to 9 mm).
    volume_ml
        Wanted volume in template space.

    Examples
    --------
    >>> from corelab.phantom.head import load_head
    >>> field, hu = haematoma(load_head(), 1, "001", "lobar", 5.0)
    >>> bool(abs(field.sum() / 1000 - 5.0) < 0.1), 50 < hu < 90
    (True, True)
    """
    rng = generator(seed, participant_id, "ct-haematoma", place)
    side = float(rng.choice([-1, 1]))
    film = np.repeat(np.repeat(np.repeat(head.shell["film"], 2, 0), 2, 1), 2, 2)
    intracranial = np.clip(head.brain + film[tuple(slice(n) for n in head.brain.shape)], 0, 1)
    hull = ndimage.binary_fill_holes(intracranial > 0.5)
    step = 2
    depth = ndimage.distance_transform_edt(hull[::step, ::step, ::step], sampling=step)
    x, y, z = np.ogrid[tuple(slice(0, n, step) for n in hull.shape)]
    x, y, z = (g + float(o) for g, o in zip((x, y, z), ORIGIN_MM, strict=True))
    noise = ndimage.gaussian_filter(rng.standard_normal(depth.shape), 3.5)
    noise /= noise.std()
    radius = (volume_ml * 750 / np.pi) ** (1 / 3)
    if place == "subdural":
        thickness = rng.uniform(5.0, 9.0)
        centre = _on_surface(depth, rng, side, (30, 62), (-60, 40), (5, 60))
        far = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        wide = max(np.sqrt(volume_ml * 1000 / (thickness * np.pi)), thickness)
        potential = np.maximum(far * thickness / wide, depth) + 0.4 * noise
    else:
        if place in _PLACES:
            base, reach = _PLACES[place]
            centre = np.asarray(base) + np.asarray(reach) * rng.uniform(-1, 1, 3)
            centre = centre * (side, 1, 1)
        else:
            area = {
                "cortical": ((20, 70), (-70, 55), (0, 70)),
                "temporal pole": ((30, 62), (-10, 20), (-40, -15)),
                "occipital": ((8, 45), (-110, -75), (-20, 25)),
            }[place]
            centre = _on_surface(depth, rng, side, *area, depth_mm=0.75 * radius)
        a, b, c = rng.uniform(0.8, 1.25, 3)
        far = np.sqrt(
            ((x - centre[0]) / a) ** 2 + ((y - centre[1]) / b) ** 2 + ((z - centre[2]) / c) ** 2
        )
        potential = far + 0.1 * radius * noise
    fine = ndimage.zoom(
        potential, [n / m for n, m in zip(hull.shape, potential.shape, strict=True)], order=1
    )
    allowed = intracranial if place != "ventricle" else intracranial * (head.csf > 0.5)
    low, high = -20.0, 90.0
    for _ in range(30):
        level = (low + high) / 2
        volume = float((np.clip(level - fine + 0.5, 0, 1) * allowed).sum()) / 1000
        low, high = (level, high) if volume < volume_ml else (low, level)
    return (np.clip(level - fine + 0.5, 0, 1) * allowed).astype(np.float32), float(
        np.clip(rng.normal(65, 6), 54, 82)
    )


def _on_surface(
    depth: NDArray[np.float64],
    rng: np.random.Generator,
    side: float,
    across: tuple[float, float],
    along: tuple[float, float],
    upward: tuple[float, float],
    *,
    depth_mm: float = 2.0,
) -> NDArray[np.float64]:
    """A point of the 2 mm grid about ``depth_mm`` below the surface and in a box, MNI mm."""
    places = np.argwhere(np.abs(depth - depth_mm) < 1.6) * 2.0 + np.asarray(ORIGIN_MM)
    x, y, z = places[:, 0] * side, places[:, 1], places[:, 2]
    fits = (x > across[0]) & (x < across[1]) & (y > along[0]) & (y < along[1])
    fits &= (z > upward[0]) & (z < upward[1])
    # Not where the hull bridges the fissures: outwards means outwards.
    return cast(NDArray[np.float64], rng.choice(places[fits]))
