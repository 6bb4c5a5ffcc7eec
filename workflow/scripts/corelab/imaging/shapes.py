"""Lesion shapes: drawn from a statistical model of real infarcts, or taken from supplied masks.

A shape is a potential in mm around its centre: ellipsoids (a main one and its satellites) whose
border is roughened by a Gaussian random field of two scales. A lesion is the set below one level,
chosen so that it has the requested volume on the grid that it is put on, so any shape can have any
volume and can be confined to any tissue. The parameters of the model are numbers in
``resources/shapes/soop.json``, fitted by ``tools/fit_lesion_shapes.py`` to public masks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.geometry import distance_mm
from corelab.provenance.places import ROOT

MODEL_FILE = ROOT / "resources" / "shapes" / "soop.json"
#: Points per lattice edge of the random field, which repeats beyond it.
_LATTICE = 40
#: Lattice points per correlation length of the finer scale.
_PER_LENGTH = 1.5
#: A voxel is divided until its parts are about this long (mm).
_PART_MM = 1.2
#: How far beyond its nominal border (share of the radius, plus mm) tissue may make a lesion grow.
_GROWTH = (0.7, 5.0)


@dataclass(frozen=True)
class Territory:
    """Sites of lesions of an arterial territory: share of lesions, centre and SD in MNI (mm)."""

    name: str
    probability: float
    centre_mm: tuple[float, float, float]
    sd_mm: tuple[float, float, float]


@dataclass(frozen=True)
class ShapeModel:
    """Parameters of the shape model; lengths in mm, logarithms natural.

    Attributes
    ----------
    log_volume_ml
        Mean and SD of ln(volume in mL).
    log_elongation, log_flatness
        Mean and SD of ln(first / second) and ln(second / third) semi-axis of the ellipsoids.
    roughness_mm, roughness_power, roughness_log_sd
        SD of the random field for a lesion of 10 mm radius, its power law in the radius, and the
        SD of its logarithm between lesions.
    correlation_mm, fine_share
        Correlation length of the coarse scale (the fine one is 0.4 of it), and the share of the
        variance that the fine scale has.
    single_probability, satellites_mean
        Share of lesions of one part; mean number of satellites of the others (geometric).
    minor_share
        Mean share of the volume that lies in satellites (exponential, at most 0.7).
    scatter_mm
        Mean gap between the main part and a satellite (exponential).
    territories
        Where lesions lie.
    """

    log_volume_ml: tuple[float, float]
    log_elongation: tuple[float, float]
    log_flatness: tuple[float, float]
    roughness_mm: float
    roughness_power: float
    roughness_log_sd: float
    correlation_mm: float
    fine_share: float
    single_probability: float
    satellites_mean: float
    minor_share: float
    scatter_mm: float
    territories: tuple[Territory, ...] = ()


@lru_cache(maxsize=2)
def shape_model(path: Path = MODEL_FILE) -> ShapeModel:
    """The shipped model, or another file of the same form.

    Examples
    --------
    >>> round(sum(place.probability for place in shape_model().territories), 6)
    1.0
    """
    given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["parameters"]
    places = tuple(
        Territory(t["name"], t["probability"], tuple(t["centre_mm"]), tuple(t["sd_mm"]))
        for t in given.pop("territories")
    )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    return ShapeModel(**values, territories=places)


@dataclass(frozen=True, eq=False)
class DrawnShape:
    """A shape of the model: ellipsoids with a rough border; see :func:`draw_shape`.

    Attributes
    ----------
    centres_mm, radii_mm, axes
        Of each part: centre (k, 3), mean radius (k), and the matrix (k, 3, 3) that turns a
        point into units of its semi-axes.
    field
        Random field of unit variance on a lattice of ``step_mm`` that repeats.
    roughness_mm
        SD of the border.
    reach_mm
        Nothing of the lesion lies further from the centre.
    """

    centres_mm: NDArray[np.float64]
    radii_mm: NDArray[np.float64]
    axes: NDArray[np.float64]
    field: NDArray[np.float32]
    step_mm: float
    roughness_mm: float
    reach_mm: float

    def potential(self, points_mm: NDArray[np.floating]) -> NDArray[np.float32]:
        """Potential (mm) at points (3, ...) relative to the centre; the border is at about 0."""
        points = np.asarray(points_mm, np.float32)
        least = np.full(points.shape[1:], np.float32(1e6))
        for centre, radius, matrix in zip(self.centres_mm, self.radii_mm, self.axes, strict=True):
            moved = points - centre.astype(np.float32).reshape(3, *[1] * (points.ndim - 1))
            squares = np.zeros_like(least)
            for row in matrix.astype(np.float32):
                squares += (row[0] * moved[0] + row[1] * moved[1] + row[2] * moved[2]) ** 2
            np.minimum(least, np.float32(radius) * (np.sqrt(squares) - 1), out=least)
        # Far outside, the roughness cannot matter, and is not looked up.
        near = least < _most(_ball_ml(float(self.radii_mm[0]))) + 5.0 * self.roughness_mm
        least[near] -= np.float32(self.roughness_mm) * ndimage.map_coordinates(
            self.field, points[:, near] / self.step_mm, order=1, mode="grid-wrap", output=np.float32
        )
        return least


@dataclass(frozen=True, eq=False)
class MaskShape:
    """A supplied mask as a shape: its signed distance, scaled to the wanted volume."""

    distance: NDArray[np.float32]
    step_mm: float
    scale: float
    reach_mm: float

    def potential(self, points_mm: NDArray[np.floating]) -> NDArray[np.float32]:
        """As that of :class:`DrawnShape`."""
        middle = (np.asarray(self.distance.shape) - 1) / 2
        points = np.asarray(points_mm, np.float32) / (self.scale * self.step_mm)
        where = points + middle.reshape(3, *[1] * (points.ndim - 1)).astype(np.float32)
        found = ndimage.map_coordinates(
            self.distance, where, order=1, mode="nearest", output=np.float32
        )
        return np.asarray(found * np.float32(self.scale), np.float32)


#: What can be put on a grid.
Shape = DrawnShape | MaskShape


def radius_mm(volume_ml: float) -> float:
    """Radius of the ball of a volume.

    Examples
    --------
    >>> round(radius_mm(4.18879), 3)
    10.0
    """
    return float((3000.0 * volume_ml / (4.0 * np.pi)) ** (1.0 / 3.0))


def _ball_ml(radius: float) -> float:
    return 4.0 * np.pi * radius**3 / 3000.0


def _most(volume_ml: float) -> float:
    """Highest level (mm) up to which a lesion may grow to reach its volume."""
    return _GROWTH[0] * radius_mm(volume_ml) + _GROWTH[1]


def draw_shape(
    random: np.random.Generator,
    volume_ml: float,
    *,
    model: ShapeModel | None = None,
    compact: bool = False,
) -> DrawnShape:
    """Draw a shape for a lesion of a volume.

    Parameters
    ----------
    random
        Source of everything random.
    volume_ml
        Volume that the lesion will have, mL: large infarcts are rougher than small ones.
    model
        Default: the shipped one.
    compact
        One part with half of the roughness, as a haematoma.

    Examples
    --------
    >>> shape = draw_shape(np.random.default_rng(1), 10.0)
    >>> again = draw_shape(np.random.default_rng(1), 10.0)
    >>> bool((shape.field == again.field).all()), len(shape.radii_mm) >= 1
    (True, True)
    """
    model = model or shape_model()
    single = compact or random.random() < model.single_probability
    satellites = 0 if single else int(random.geometric(1.0 / max(model.satellites_mean, 1.0)))
    minor = 0.0 if single else float(min(0.7, random.exponential(model.minor_share)))
    volumes = [volume_ml * (1.0 - minor)]
    volumes += list(volume_ml * minor * random.dirichlet(np.ones(satellites))) * bool(satellites)
    # A satellite of less than 0.02 mL would be no voxel of a clinical scan.
    volumes = volumes[:1] + [part for part in volumes[1:] if part >= 0.02]
    radii = np.array([radius_mm(part) for part in volumes])
    axes = np.array([_ellipsoid(random, radius, model) for radius in radii])
    centres = np.zeros((len(radii), 3))
    for k in range(1, len(radii)):
        direction = random.normal(size=3)
        gap = radii[0] + radii[k] + random.exponential(model.scatter_mm)
        centres[k] = gap * direction / np.linalg.norm(direction)
    spread = float(np.exp(random.normal(0.0, model.roughness_log_sd)))
    rough = model.roughness_mm * spread * (radii[0] / 10.0) ** model.roughness_power
    rough = float(min(rough, 0.6 * radii[0])) * (0.5 if compact else 1.0)
    step = 0.4 * model.correlation_mm / _PER_LENGTH
    field = _random_field(random, model.correlation_mm / step, model.fine_share)
    longest = np.array([1.0 / np.linalg.svd(matrix, compute_uv=False)[-1] for matrix in axes])
    reach = float((np.linalg.norm(centres, axis=1) + longest).max()) + 2.5 * rough
    growth = _GROWTH[0] * radii[0] + _GROWTH[1]
    return DrawnShape(centres, radii, axes, field, step, rough, reach + growth)


def _ellipsoid(random: np.random.Generator, radius: float, model: ShapeModel) -> NDArray[Any]:
    """Matrix that turns mm into units of the semi-axes of a randomly turned ellipsoid."""
    elongation = max(0.0, random.normal(*model.log_elongation))
    flatness = max(0.0, random.normal(*model.log_flatness))
    logs = np.array([elongation, 0.0, -flatness])
    semi = radius * np.exp(logs - logs.mean())
    turn, upper = np.linalg.qr(random.normal(size=(3, 3)))
    return np.asarray((turn * np.sign(np.diag(upper))).T / semi[:, None])


def _random_field(
    random: np.random.Generator, length: float, fine_share: float
) -> NDArray[np.float32]:
    """Periodic Gaussian field of unit variance, of two correlation lengths (lattice points)."""
    field = np.zeros((_LATTICE,) * 3)
    for share, sigma in ((1.0 - fine_share, length / 2.0), (fine_share, 0.4 * length / 2.0)):
        part = ndimage.gaussian_filter(random.standard_normal(field.shape), sigma, mode="wrap")
        field += np.sqrt(share) * (part - part.mean()) / part.std()
    return np.asarray(field / field.std(), np.float32)


def mask_shape(
    mask: NDArray[np.bool_], voxel_size_mm: Sequence[float] | NDArray[Any], volume_ml: float
) -> MaskShape:
    """A supplied mask as a shape that is scaled to a volume.

    Parameters
    ----------
    mask
        Boolean, not empty.
    voxel_size_mm
        Of its three axes.
    volume_ml
        Volume that the lesion will have.

    Raises
    ------
    ValueError
        If the mask is empty.

    Examples
    --------
    >>> ball = np.hypot(*np.meshgrid(np.arange(-9, 10.0), np.arange(-9, 10.0))) < 7
    >>> shape = mask_shape(np.stack([ball] * 3, axis=2), (1, 1, 4), 4.0)
    >>> bool(shape.potential(np.zeros((3, 1)))[0] < 0)
    True
    """
    if not mask.any():
        raise ValueError("the mask of a shape is empty; supply masks that hold a lesion")
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    sizes = np.asarray(voxel_size_mm, float)
    step = float(min(sizes.min(), 2.0))
    margin = np.ceil(6.0 / sizes).astype(int) + 1
    padded = np.pad(mask[box], [(int(m), int(m)) for m in margin])
    outside = distance_mm(~padded, sizes)
    distance = outside - distance_mm(padded, sizes)
    even = ndimage.zoom(distance, sizes / step, order=1).astype(np.float32)
    scale = float((volume_ml / (mask.sum() * sizes.prod() / 1000.0)) ** (1.0 / 3.0))
    reach = 0.5 * step * scale * float(np.linalg.norm(even.shape))
    return MaskShape(even, step, scale, reach)


@dataclass(frozen=True, eq=False)
class Placed:
    """A lesion on a grid.

    Attributes
    ----------
    box
        Slices of the part of the grid that it can touch.
    fraction
        Share of each voxel of the box that is lesion, 0 to 1, float32. It is 0 where the weight
        is 0.
    volume_ml
        Sum of ``fraction`` times the voxel's volume.
    """

    box: tuple[slice, slice, slice]
    fraction: NDArray[np.float32]
    volume_ml: float

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Voxels of the whole grid that are lesion by half or more."""
        whole = np.zeros(shape, bool)
        whole[self.box] = self.fraction >= 0.5
        return whole


def place(
    shape: Shape,
    volumes_ml: Sequence[float],
    centre_mm: Sequence[float],
    affine: NDArray[np.floating],
    weight: NDArray[np.floating],
) -> list[Placed]:
    """Put a shape on a grid so that it has each of several volumes there.

    Voxels are divided into parts of about 1.2 mm, so thick slices and borders hold a share of
    the lesion (partial volume). The level of the potential is found by bisection.

    Parameters
    ----------
    shape
        Of :func:`draw_shape` or :func:`mask_shape`.
    volumes_ml
        Wanted volumes; each lesion encloses the smaller ones.
    centre_mm
        World coordinates of its centre.
    affine
        Of the grid.
    weight
        Share (0 to 1) of each voxel of the grid that can become lesion.

    Raises
    ------
    ValueError
        If a volume does not fit near the centre.

    Examples
    --------
    >>> shape = draw_shape(np.random.default_rng(3), 5.0)
    >>> whole = np.ones((60, 60, 30))
    >>> [found] = place(shape, [5.0], (60, 60, 60), np.diag([2.0, 2, 4, 1]), whole)
    >>> round(found.volume_ml, 2)
    5.0
    """
    sizes = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    middle = np.linalg.solve(affine, [*centre_mm, 1.0])[:3]
    low = np.maximum(np.floor(middle - shape.reach_mm / sizes), 0).astype(int)
    high = np.minimum(np.ceil(middle + shape.reach_mm / sizes) + 1, weight.shape).astype(int)
    if (high <= low).any():
        raise ValueError("the centre lies outside the grid")
    box = (
        slice(int(low[0]), int(high[0])),
        slice(int(low[1]), int(high[1])),
        slice(int(low[2]), int(high[2])),
    )
    divided = np.maximum(1, np.rint(sizes / _PART_MM)).astype(int)
    axes = [
        (a + (np.arange((b - a) * n) + 0.5) / n - 0.5 - m).astype(np.float32)
        for a, b, n, m in zip(low, high, divided, middle, strict=True)
    ]
    matrix = np.asarray(affine, np.float32)[:3, :3]
    i, j, k = np.meshgrid(*axes, indexing="ij", sparse=True)
    points = np.stack([row[0] * i + row[1] * j + row[2] * k for row in matrix])
    potential = shape.potential(points)
    inside = np.asarray(weight[box], np.float32)
    voxel_ml = float(sizes.prod()) / 1000.0
    # Width over which a part of a voxel goes from outside to inside.
    width = max(float((sizes / divided).min()), 0.5)
    shares = inside / np.float32(divided.prod())
    spread = shares.repeat(divided[0], 0).repeat(divided[1], 1).repeat(divided[2], 2)
    found = []
    for volume in volumes_ml:
        most = _most(volume)
        near = (potential < most + width) & (spread > 0)
        level = _level(potential[near], spread[near], width, volume / voxel_ml, most)
        soft = _soft(potential, level, width)
        parts = soft.reshape([n for pair in zip(inside.shape, divided, strict=True) for n in pair])
        fraction = np.asarray(parts.mean(axis=(1, 3, 5)) * inside, np.float32)
        total = float(fraction.sum(dtype=np.float64)) * voxel_ml
        found.append(Placed(box, fraction, total))
    return found


def _soft(potential: NDArray[np.float32], level: float, width: float) -> NDArray[np.float32]:
    """Indicator of the lesion, soft over ``width``."""
    inside = (np.float32(level) - potential) / np.float32(width) + np.float32(0.5)
    return np.asarray(np.clip(inside, 0, 1), np.float32)


def _level(
    potential: NDArray[np.float32],
    share: NDArray[np.float32],
    width: float,
    voxels: float,
    most: float,
) -> float:
    """Level at which the shares of the voxels inside sum to a number of voxels."""

    def total(level: float) -> float:
        return float((_soft(potential, level, width) * share).sum(dtype=np.float64))

    if not len(potential) or total(most) < voxels:
        raise ValueError("the tissue around the centre has no space for this volume")
    low, high = float(potential.min()) - width, most
    for _ in range(24):
        middle = 0.5 * (low + high)
        reached = total(middle)
        if abs(reached - voxels) < 0.001 * voxels:
            return middle
        low, high = (middle, high) if reached < voxels else (low, middle)
    return 0.5 * (low + high)
