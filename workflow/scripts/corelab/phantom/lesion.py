"""Lesions in the territory of one middle cerebral artery, nested and of known size.

One smooth potential (mm, in template space) rises from the depth of the territory outwards. The
core, the final infarct, the penumbra and the oligaemia are its sublevel sets, so each contains
the one before. A level is found by bisection so that brain tissue below it has the wanted volume
in the participant's own space.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging import load_image
from corelab.imaging.geometry import voxel_sizes_mm
from corelab.imaging.shapes import Shape, draw_shape, mask_shape
from corelab.phantom.anatomy import Anatomy
from corelab.phantom.head import ORIGIN_MM, Head, bisect, linear, linear_placed, template_axes
from corelab.phantom.seeds import generator

#: Width (mm) over which a border goes from inside to outside.
BORDER_MM = 1.5
_GRID_MM = 2.0
PATTERNS = ("territory", "shower", "lacune")
#: Where lacunes lie, right side, MNI mm: lenticular nucleus, thalamus, corona radiata, pons.
_LACUNES_MM = ((26, 0, 2), (14, -18, 8), (27, -10, 28), (6, -26, -34))


@dataclass(frozen=True)
class LesionPlan:
    """Planned volumes, in mL of the participant's own brain tissue.

    Attributes
    ----------
    side
        +1 right hemisphere (positive x), -1 left.
    core_ml
        Infarct core at baseline.
    infarct_ml
        Final infarct: the core and the part of the penumbra that was lost.
    hypoperfused_ml
        Core and penumbra.
    oligaemia_ml
        Mildly delayed tissue around it.
    shapes
        Where the shape of the infarct comes from: files of masks, or ``("model",)`` for the
        model of :mod:`corelab.imaging.shapes`; empty for the smooth territory of one artery.
    haematoma_ml
        Blood within the final infarct at follow-up; 0 for none.
    pattern
        ``territory``: one infarct in the territory of the middle cerebral artery; ``shower``:
        emboli scattered over the hemispheres; ``lacune``: one small deep infarct.
    """

    side: int
    core_ml: float
    infarct_ml: float
    hypoperfused_ml: float
    oligaemia_ml: float
    shapes: tuple[str, ...] = field(default=(), kw_only=True)
    haematoma_ml: float = 0.0
    pattern: str = "territory"

    def __post_init__(self) -> None:
        nested = 0 < self.core_ml <= self.infarct_ml <= self.hypoperfused_ml
        if not nested or self.side not in (-1, 1) or min(self.oligaemia_ml, self.haematoma_ml) < 0:
            raise ValueError(f"the lesion's volumes are not nested or its side is not +-1: {self}")
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern {self.pattern!r} is not one of {', '.join(PATTERNS)}")


@dataclass(frozen=True, eq=False)
class Lesion:
    """A lesion whose borders are known at any template point.

    Potentials (mm) lie on every second voxel of the template grid; ``levels_mm`` has the border
    level of ``core``, ``infarct``, ``hypoperfused``, ``oligaemia`` and ``haematoma``.
    """

    plan: LesionPlan
    potential_mm: NDArray[np.float32]
    haematoma_potential_mm: NDArray[np.float32]
    levels_mm: dict[str, float]

    def potential_at(self, template_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """The lesion's potential (mm) at template points (3, ...)."""
        return _sample(self.potential_mm, template_mm)

    def fractions(self, template_mm: NDArray[np.float32], *names: str) -> NDArray[np.float32]:
        """Indicator (0 to 1, soft over 1.5 mm) of named regions at template points: (names, ...).

        Nothing is said about tissue here: ventricles and sulci inside a border count as inside.
        """
        from corelab.imaging.kernels import soft_shares

        levels = np.array([self.levels_mm[name] for name in names], np.float32)
        out = np.empty((len(names), *template_mm.shape[1:]), np.float32)
        points = np.ascontiguousarray(template_mm.reshape(3, -1))
        grid = (np.asarray(ORIGIN_MM, np.float32), np.float32(_GRID_MM))
        width = np.float32(BORDER_MM)
        box = self._box_mm(float(levels.max()) + BORDER_MM)
        flat = out.reshape(len(names), -1)
        soft_shares(self.potential_mm, points, *grid, box, levels, width, flat)
        return out

    def _box_mm(self, level: float) -> NDArray[np.float64]:
        """Lowest and highest place (mm) between which the potential may lie below a level."""
        below, low, high = self.potential_mm < level, [], []
        for axis, size in enumerate(below.shape):
            seen = np.flatnonzero(below.any(axis=tuple({0, 1, 2} - {axis})))
            # The edge's value holds beyond it.
            low.append(seen[0] - 1 if len(seen) and seen[0] > 0 else -np.inf)
            high.append(seen[-1] + 1 if len(seen) and seen[-1] < size - 1 else np.inf)
        return np.asarray(ORIGIN_MM) + _GRID_MM * np.array([low, high])

    def blood(self, template_mm: NDArray[np.float32]) -> NDArray[np.float32]:
        """Indicator of the haematoma, as :meth:`fractions`."""
        found = _sample(self.haematoma_potential_mm, template_mm)
        return _inside(found, self.levels_mm["haematoma"])


def _inside(potential: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    return np.clip((np.float32(level) - potential) / np.float32(BORDER_MM) + np.float32(0.5), 0, 1)


def _sample(field: NDArray[np.float32], template_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    return linear_placed(field, template_mm, _GRID_MM)


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_mm: float
) -> NDArray[np.float32]:
    """Random field of unit variance, smooth over ``sigma_mm``; drawn on a 4 mm grid."""
    coarse = tuple((n + 1) // 2 + 1 for n in shape)
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse), sigma_mm / (2 * _GRID_MM))
    noise /= noise.std()
    where = np.meshgrid(*(np.arange(n) / 2 for n in shape), indexing="ij", sparse=False)
    return linear(noise, where, "constant")


def _shaped_potential(
    rng: np.random.Generator, grid: tuple[int, ...], plan: LesionPlan
) -> NDArray[np.float32]:
    """Distance to the border of a shape of the model or of a mask, near the insula."""
    x, y, z = template_axes(grid, _GRID_MM)
    centre = rng.uniform((30, -20, 4), (44, 8, 26)) * (plan.side, 1, 1)
    shape: Shape
    if plan.shapes == ("model",):
        shape = draw_shape(rng, plan.infarct_ml)
    else:
        image = load_image(plan.shapes[int(rng.integers(len(plan.shapes)))], kind="mask-lesion")
        mask = np.asarray(image.dataobj) > 0.5
        shape = mask_shape(mask, voxel_sizes_mm(image.affine), plan.infarct_ml)
    points = np.stack(np.broadcast_arrays(x - centre[0], y - centre[1], z - centre[2]))
    return _bounded(shape.potential(points), x * plan.side, y, z)


def _territory_potential(
    rng: np.random.Generator, shape: tuple[int, ...], side: int
) -> NDArray[np.float32]:
    """Rises from near the insula outwards, steeply where other arteries supply the brain."""
    x, y, z = template_axes(shape, _GRID_MM)
    x = x * side
    centre = rng.uniform((35, -14, 10), (41, 4, 22))
    across = np.where(x > centre[0], (x - centre[0]) * 0.8, centre[0] - x)
    along = (y - centre[1]) / rng.uniform(1.15, 1.45)
    upward = (z - centre[2]) / rng.uniform(1.0, 1.25)
    potential = np.sqrt(across**2 + along**2 + upward**2)
    potential = (
        potential + 4.0 * _smooth_noise(rng, shape, 9.0) + 1.2 * _smooth_noise(rng, shape, 4.0)
    )
    return _bounded(potential, x, y, z)


def _bounded(potential: NDArray[Any], x: Any, y: Any, z: Any) -> NDArray[np.float32]:
    """A potential that rises steeply where other arteries supply the brain; x points outwards."""
    for excess, slope in (
        (14 - x, 2.0),  # anterior cerebral artery and midline
        (-68 - y, 1.5),  # posterior cerebral artery
        (z - 54, 2.5),  # the two rims of a perfusion slab
        (-12 - z, 2.5),
    ):
        potential = potential + slope * np.maximum(excess, 0)
    return potential.astype(np.float32)


def _scattered_potential(
    rng: np.random.Generator, head: Head, side: int, pattern: str
) -> NDArray[np.float32]:
    """Distance to the nearest of some centres in tissue, each scaled: small ones stay small."""
    shape = head.shell["bone"].shape
    x, y, z = template_axes(shape, _GRID_MM)
    if pattern == "lacune":
        place = _LACUNES_MM[int(rng.integers(len(_LACUNES_MM)))]
        centres = [np.asarray(place) * (side, 1, 1) + rng.normal(0, 1.5, 3)]
    else:
        tissue = head.tissue[::2, ::2, ::2]
        possible = np.argwhere((tissue > 0.8) & (np.abs(x) > 14) & (z > -30) & (z < 65))
        # Most of a shower lies on one side, and in the cortex and the border zones.
        right = ORIGIN_MM[0] + _GRID_MM * possible[:, 0] > 0
        weight = np.where(right == (side > 0), 4.0, 1.0)
        chosen = rng.choice(
            len(possible), int(rng.integers(7, 13)), replace=False, p=weight / weight.sum()
        )
        centres = list(np.asarray(ORIGIN_MM) + _GRID_MM * possible[chosen])
    potential = np.full(shape, np.float32(1e3))
    for a, b, c in centres:
        away = np.sqrt((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) * rng.uniform(0.7, 1.6)
        potential = np.minimum(potential, away).astype(np.float32)
    return (potential + 0.8 * _smooth_noise(rng, shape, 4.0)).astype(np.float32)


def subject_points(anatomy: Anatomy, *, step_mm: float = 2.0) -> NDArray[np.float32]:
    """Template coordinates (3, ...) of a regular grid over the head in subject space."""
    matrix = np.diag([step_mm, step_mm, step_mm, 1.0])
    matrix[:3, 3] = (-96, -136, -90)
    shape = tuple(int(n // step_mm) for n in (192, 232, 192))
    return anatomy.grid_to_template(matrix, cast(tuple[int, int, int], shape))


def tissue_at(head: Head, template_mm: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fraction of grey and white matter at template points (3, ...)."""
    return linear_placed(head.tissue, template_mm, mode="constant")


def _level(
    potential: NDArray[np.float32], weight_ml: NDArray[np.float32], volume_ml: float, name: str
) -> float:
    """Level below which ``volume_ml`` lies."""
    low, high = float(potential.min()) - 5, 90.0
    done = 0.0

    def below(level: float) -> float:
        return done + float((_inside(potential, level) * weight_ml).sum(dtype=np.float64))

    near = (potential < high + BORDER_MM) & (weight_ml > 0)
    potential, weight_ml = potential[near], weight_ml[near]
    if below(high) < volume_ml:
        raise ValueError(f"the territory has no {volume_ml:.1f} mL of tissue for the {name}")
    for steps in (4, 4, 32):
        # What lies clear of the interval that is left is wholly inside or outside for good.
        low, high = bisect(below, volume_ml, low, high, steps)
        within = potential < low - BORDER_MM
        done += float(weight_ml[within].sum(dtype=np.float64))
        near = ~within & (potential < high + BORDER_MM)
        potential, weight_ml = potential[near], weight_ml[near]
    return (low + high) / 2


def make_lesion(seed: int, anatomy: Anatomy, head: Head, plan: LesionPlan) -> Lesion:
    """Draw a lesion whose volumes in the participant's own space are those of the plan.

    Volumes are of grey and white matter (of anything, for the haematoma), mL. ValueError if the
    territory is too small for the plan.

    Examples
    --------
    >>> from corelab.phantom.anatomy import make_anatomy
    >>> from corelab.phantom.head import load_head
    >>> anatomy, head = make_anatomy(1, "001"), load_head()
    >>> lesion = make_lesion(1, anatomy, head, LesionPlan(1, 20.0, 30.0, 90.0, 30.0))
    >>> points = subject_points(anatomy)
    >>> core = lesion.fractions(points, "core")[0] * tissue_at(head, points)
    >>> round(float(core.sum()) * 0.008, 1)
    20.0
    """
    rng = generator(seed, anatomy.participant_id, "lesion")
    shape = head.shell["bone"].shape
    if plan.pattern == "territory":
        potential = _territory_potential(rng, shape, plan.side)
    else:
        potential = _scattered_potential(rng, head, plan.side, plan.pattern)
    points = subject_points(anatomy)
    if plan.shapes:
        potential = _shaped_potential(rng, shape, plan)
    sampled = _sample(potential, points)
    weight_ml = tissue_at(head, points) * np.float32(_GRID_MM**3 / 1000)
    volumes = {
        "core": plan.core_ml,
        "infarct": plan.infarct_ml,
        "hypoperfused": plan.hypoperfused_ml,
        "oligaemia": plan.hypoperfused_ml + plan.oligaemia_ml,
    }
    levels = {name: _level(sampled, weight_ml, volume, name) for name, volume in volumes.items()}
    blood = np.full(shape, np.float32(1e3))
    if plan.haematoma_ml > 0:
        x, y, z = template_axes(shape, _GRID_MM)
        # Deep in the infarct and rather medial, where reperfusion bleeds: the lenticular nucleus.
        deep = potential + 0.6 * np.maximum(np.abs(template_axes(shape, _GRID_MM)[0]) - 28, 0)
        start = np.asarray(np.unravel_index(int(deep.argmin()), shape)) * _GRID_MM
        a, b, c = start + np.asarray(ORIGIN_MM)
        blood = np.sqrt((x - a) ** 2 + ((y - b) / 1.2) ** 2 + (z - c) ** 2)
        blood = (blood + 1.2 * _smooth_noise(rng, shape, 5.0)).astype(np.float32)
        everywhere = np.full(points.shape[1:], np.float32(_GRID_MM**3 / 1000))
        levels["haematoma"] = _level(
            _sample(blood, points), everywhere, plan.haematoma_ml, "haematoma"
        )
    else:
        levels["haematoma"] = -1e3
    return Lesion(plan, potential, blood, levels)
