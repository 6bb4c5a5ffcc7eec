"""A whole head in template space: tissues, a shell of skull and scalp, and the great vessels.

Brain tissue comes from the MNI152 2009a symmetric template that nilearn packages (Fonov et al.
2011, NeuroImage 54:313). That template is skull-stripped; what lies outside the brain here (CSF
film, skull with marrow, scalp, orbits, sinuses, neck) is a smooth invention, good enough to make
brain extraction a task with something to extract from, and no more.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.geometry import distance_mm, linear_at
from corelab.phantom.seeds import generator

Array = NDArray[np.float32]

#: World coordinates (mm) of voxel (0, 0, 0) of the 1 mm template, whose axes are the world's.
ORIGIN_MM = (-98.0, -134.0, -72.0)

#: Shape of the 1 mm template grid.
TEMPLATE_SHAPE = (197, 233, 189)

#: Classes whose fractions make up a voxel.
TISSUES = ("grey", "white", "csf")
SHELL = ("film", "bone", "marrow", "scalp", "muscle", "eye")

# Vessel trees in MNI mm, right side (mirrored for the left), with radii in mm. Courses follow the
# textbook (carotid siphon, M1 along the sylvian stem, M2 over the insula, pericallosal A2); radii
# are generous, because a 1.2 x 1.2 x 5 mm voxel has to hold some pure blood.
_CAROTID = [(15, -8, -72), (17, -8, -55), (22, -4, -42), (16, 4, -30), (13, 4, -19)]
_M1 = [(13, 4, -19), (22, 5, -18), (31, 5, -16), (37, 4, -13)]
_M2_SUPERIOR = [(37, 4, -13), (41, 9, -2), (44, 9, 10), (50, 2, 20), (56, -6, 34)]
_M2_INFERIOR = [(37, 4, -13), (43, -8, -6), (46, -22, 4), (54, -36, 14), (58, -44, 26)]
_ANTERIOR = [(13, 4, -19), (4, 14, -16), (2, 28, -8), (2, 38, 4), (2, 32, 20), (2, 12, 34)]
_ANTERIOR += [(2, -14, 42), (2, -34, 52)]
_ARTERIES = {
    "carotid": (_CAROTID, 2.6),
    "mca_stem": (_M1, 2.1),
    "mca_superior": (_M2_SUPERIOR, 1.7),
    "mca_inferior": (_M2_INFERIOR, 1.7),
    "anterior": (_ANTERIOR, 1.7),
}
_SINUS_RADIUS_MM = 3.6


@dataclass(frozen=True)
class Head:
    """Fractions of tissue on the 1 mm template grid and of shell classes on a 2 mm grid.

    Attributes
    ----------
    grey, white, csf
        Fractions 0 to 1, shape (197, 233, 189); they add up to the brain fraction.
    brain
        Brain fraction 0 to 1, ventricles and sulci included.
    t1
        Template T1 intensity, 0 to 1.
    shell
        Class -> fraction on every second voxel; what neither brain nor shell fills is air.
    """

    grey: Array
    white: Array
    csf: Array
    brain: Array
    t1: Array
    shell: Mapping[str, Array]

    @cached_property
    def tissue(self) -> Array:
        """Fraction of grey and white matter."""
        return self.grey + self.white


def _template_folder() -> Path:
    """Folder of nilearn's packaged template (nilearn itself is not imported: it costs 4 s)."""
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        raise FileNotFoundError(
            "nilearn is not installed, and with it the MNI152 template that the simulated heads "
            "are made from; install the locked environment (make env)"
        )
    return Path(found.origin).parent / "datasets" / "data"


def _read(name: str) -> Array:
    path = _template_folder() / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    voxels = np.ascontiguousarray(nib.load(path).dataobj)  # type: ignore[attr-defined]
    return voxels.astype(np.float32) / np.float32(255)


def bisect(
    measure: Callable[[float], float], wanted: float, low: float, high: float, steps: int
) -> tuple[float, float]:
    """Interval, halved ``steps`` times, in which a rising measure reaches what is wanted."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if measure(middle) < wanted else (low, middle)
    return low, high


def linear(field: NDArray[np.floating], where: Any, mode: str = "nearest") -> Array:
    """Linear interpolation of a field at places (3, ...) in its voxels, as float32."""
    return linear_at(field, where, mode=mode).astype(np.float32, copy=False)


def linear_placed(
    field: NDArray[np.floating], template_mm: Array, step_mm: float = 1.0, mode: str = "nearest"
) -> Array:
    """:func:`linear` at template points (3, ...) in mm, of a grid that begins as the template's.

    Examples
    --------
    >>> field, points = np.zeros((3, 3, 3), np.float32), np.zeros((3, 1), np.float32)
    >>> field[1], points[0] = 1, ORIGIN_MM[0] + 1
    >>> linear_placed(field, points, 2.0).tolist()
    [0.5]
    """
    from corelab.imaging import kernels

    out = np.empty(template_mm.shape[1:], np.float32)
    grid = (np.asarray(ORIGIN_MM, np.float32), np.float32(step_mm))
    beyond = {"nearest": kernels.NEAREST, "constant": kernels.CONSTANT}[mode]
    points = np.ascontiguousarray(template_mm.reshape(3, -1))
    values = np.ascontiguousarray(field)
    kernels.linear_placed(values, points, *grid, beyond, 0.0, out.reshape(-1))
    return out


def template_axes(
    shape: tuple[int, ...], step_mm: float = 1.0, dtype: type[np.floating] = np.float32
) -> list[NDArray[np.floating]]:
    """World coordinates (mm) along each axis of a grid that begins as the template's, sparse."""
    axes = [(ORIGIN_MM[a] + step_mm * np.arange(n)).astype(dtype) for a, n in enumerate(shape)]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _ramp(value: NDArray[np.floating], width: float) -> Array:
    """0 below -width/2, 1 above width/2, linear between."""
    return np.clip(value / width + 0.5, 0, 1).astype(np.float32)


def _shell(brain_half: NDArray[np.bool_]) -> dict[str, Array]:
    """Fractions of the shell classes on the 2 mm grid, from the distance to a smoothed brain."""
    rng = generator(0, "head-shell")
    shape = brain_half.shape
    x, y, z = template_axes(shape, 2.0, np.float64)
    # Closing bridges the fissures, so that the skull is smooth where the brain is not.
    near = distance_mm(~brain_half, 2.0) <= 14
    hull = distance_mm(near, 2.0) > 14
    hull = _filled(hull | brain_half)
    depth = distance_mm(~hull, 2.0).astype(np.float32)
    depth = ndimage.gaussian_filter(depth, 1.0)
    depth -= 1.0
    noise = ndimage.gaussian_filter(rng.standard_normal((2, *shape), np.float32), (0, 9, 9, 9))
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    film = 2.0 + 0.4 * noise[0]
    skull = film + 6.5 + 0.9 * noise[1] + 2.0 * _ramp(-y - 70, 60)
    scalp = skull + 5.5 + 0.8 * noise[0] + 2.0 * _ramp(-z - 10, 60)
    fractions = {
        "film": _ramp(film - depth, 2),
        "bone": _ramp(depth - film, 2) * _ramp(skull - depth, 2),
        "scalp": _ramp(depth - skull, 2) * _ramp(scalp - depth, 2),
    }
    table = (skull - film) * 0.3
    marrow = _ramp(depth - film - table, 2) * _ramp(skull - table - depth, 2)
    fractions["marrow"] = marrow * fractions["bone"]
    fractions["bone"] = fractions["bone"] - fractions["marrow"]
    # Face and neck: muscle within an ellipsoid below and before the brain, orbits, nasal air.
    face = _ramp(1 - np.sqrt((x / 66) ** 2 + ((y - 38) / 56) ** 2 + ((z + 62) / 46) ** 2), 0.05)
    neck = _ramp(1 - np.sqrt((x / 58) ** 2 + ((y + 25) / 62) ** 2), 0.05) * _ramp(-z - 48, 6)
    outside = _ramp(depth - film - 4, 2)
    muscle = np.maximum(face, neck) * outside
    orbit = np.zeros(shape, np.float32)
    eye = np.zeros(shape, np.float32)
    for side in (-1, 1):
        distance = np.sqrt((x - side * 32) ** 2 + (y - 66) ** 2 + (z + 42) ** 2)
        orbit = np.maximum(orbit, _ramp(18 - distance, 2))
        eye = np.maximum(eye, _ramp(11.5 - distance, 2))
    orbit *= outside
    eye *= outside
    nose = _ramp(1 - np.sqrt((x / 13) ** 2 + ((y - 52) / 34) ** 2 + ((z + 60) / 20) ** 2), 0.1)
    nose *= outside
    for name in ("bone", "marrow", "scalp"):
        fractions[name] = fractions[name] * (1 - muscle * (name != "bone"))
    free = np.clip(1 - sum(fractions.values()), 0, 1)
    fractions["muscle"] = muscle * free
    for name in ("bone", "marrow", "scalp", "muscle"):
        fractions[name] = fractions[name] * (1 - orbit) * (1 - nose)
    fractions["scalp"] = fractions["scalp"] + (orbit - eye) * (1 - nose)  # orbital fat
    fractions["eye"] = eye * (1 - nose)
    return {name: fractions[name].astype(np.float32) for name in SHELL}


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``scipy.ndimage.binary_fill_holes``: all but the parts outside that reach the edge."""
    parts, _ = ndimage.label(~mask)
    edges = [np.moveaxis(parts, axis, 0)[side] for axis in range(3) for side in (0, -1)]
    open_parts = np.unique(np.concatenate([edge.ravel() for edge in edges]))
    outside = np.zeros(int(parts.max()) + 1, bool)
    outside[open_parts] = True
    outside[0] = False
    return ~outside[parts]


@lru_cache(maxsize=1)
def load_head() -> Head:
    """Build the head from the packaged template.

    Examples
    --------
    >>> head = load_head()
    >>> head.grey.shape, bool(1500 < head.brain.sum() / 1000 < 2000)
    ((197, 233, 189), True)
    """
    t1, grey, white = _read("t1"), _read("gm"), _read("wm")
    mask = _filled(t1 > 0.02)
    brain = ndimage.uniform_filter(mask.astype(np.float32), 3)
    tissue = grey + white
    # The template is an average of many brains, so sulci and cortex are blurred mixtures. A voxel
    # of one person's brain is purer: stretch the parenchyma fraction, keep the grey:white split.
    stretched = np.clip((tissue - 0.35) / 0.4, 0, 1) * brain
    share = white / np.maximum(tissue, np.float32(1e-3))
    share = np.clip((share - 0.5) * 1.5 + 0.5, 0, 1)
    return Head(
        grey=stretched * (1 - share),
        white=stretched * share,
        csf=brain - stretched,
        brain=brain,
        t1=t1,
        shell=_shell(mask[::2, ::2, ::2]),
    )


def composite(head: Head, values: Mapping[str, float]) -> Array:
    """Mix class values by fraction: an ideal image of the whole head on the 1 mm template grid.

    A class that ``values`` leave out counts as air, 0.

    Examples
    --------
    >>> image = composite(load_head(), {"white": 2.0})
    >>> image.shape, round(float(image.max()), 2)
    ((197, 233, 189), 2.0)
    """
    from corelab.imaging.kernels import composed

    outer = np.zeros(head.shell["bone"].shape, np.float32)
    for name in SHELL:
        if values.get(name):
            outer += head.shell[name] * np.float32(values[name])
    image = np.empty(head.brain.shape, np.float32)
    fractions = (head.brain, head.grey, head.white, head.csf)
    own = np.array([values.get(name) or 0 for name in TISSUES], np.float32)
    composed(outer, fractions, own, image)
    return image


def _stamp(field: Array, course: NDArray[np.float64], radius_mm: float) -> None:
    """Fill a tube along a polyline into a 1 mm field of fractions, in place."""
    from corelab.imaging.kernels import stamp_tube

    reach = int(np.ceil(radius_mm)) + 2
    for start, end in pairwise(course):
        steps = max(int(np.ceil(np.linalg.norm(end - start) / 0.7)), 1)
        points = start + (end - start) * np.linspace(0, 1, steps + 1)[:, None]
        stamp_tube(field, points - np.asarray(ORIGIN_MM), float(radius_mm), reach)


def arteries(occluded_side: int = 0) -> Array:
    """Fraction of arterial blood on the 1 mm template grid.

    ``occluded_side`` +1 leaves out the middle cerebral artery of the right (positive x), -1 that of
    the left, 0 none.

    Examples
    --------
    >>> both, one = arteries(), arteries(occluded_side=1)
    >>> bool(one.sum() < both.sum()), float(both.max())
    (True, 1.0)
    """
    field = np.zeros(TEMPLATE_SHAPE, np.float32)
    for name, (course, radius_mm) in _ARTERIES.items():
        for side in (-1, 1):
            if name.startswith("mca") and side == occluded_side:
                continue
            _stamp(field, np.asarray(course, float) * (side, 1, 1), radius_mm)
    return field


def veins(head: Head) -> Array:
    """Fraction of venous blood: the superior sagittal sinus behind and above the brain.

    Examples
    --------
    >>> float(veins(load_head()).max())
    1.0
    """
    field = np.zeros(TEMPLATE_SHAPE, np.float32)
    midline = head.brain[93:104].max(axis=0) > 0.5  # 10 mm slab: the fissure itself is not brain
    course = []
    for z in np.arange(-8, 82, 4.0):
        rows = np.flatnonzero(midline[:, int(z - ORIGIN_MM[2])])
        if rows.size:
            course.append((0.0, ORIGIN_MM[1] + rows[0] - 2.0, z))
    for y in np.arange(-50, 50, 5.0):
        rows = np.flatnonzero(midline[int(y - ORIGIN_MM[1])])
        if rows.size:
            course.append((0.0, y, ORIGIN_MM[2] + rows[-1] + 2.0))
    _stamp(field, np.asarray(course), _SINUS_RADIUS_MM)
    return field
