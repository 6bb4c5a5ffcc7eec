"""Random heads to train on: an image of a contrast that nobody has seen, and where its brain is.

The template's tissues are given a random skull, scalp, face and neck, random lesions, and one
random value for every class, or values of a CT. The head is moved, scaled and bent, and becomes a
scan: field, blur, thick slices, noise, ghosts, a cut field of view, a brain without its head.
After Billot et al., Med Image Anal 2023;86:102789 and Hoopes et al., NeuroImage 2022;260:119474.

Nothing here comes from a patient: the template is an average, all else is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging import kernels
from corelab.imaging.geometry import distance_mm
from corelab.imaging.template import tissue_maps
from corelab.imaging.values import CT_WINDOW_HU, scaled
from corelab.learned.brain import SHAPE
from corelab.learned.unet import STEP_MM
from corelab.phantom.head import ORIGIN_MM, arteries, load_head, veins

Array = NDArray[np.float32]

#: Air added to the template's grid on each side, mm: neck below, scalp elsewhere.
_BELOW_MM, _AROUND_MM = 90, 16
#: Values of a CT in HU: least and greatest of each class.
_HU = {
    "grey": (30, 44), "white": (22, 36), "csf": (-2, 15), "film": (0, 25), "bone": (500, 1600),
    "marrow": (150, 700), "scalp": (-110, 60), "muscle": (30, 75), "fat": (-120, -60),
    "eye": (0, 25), "air": (-1020, -980), "vein": (40, 90), "artery": (35, 60),
}  # fmt: skip
_CLASSES = tuple(_HU)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The template on a 2 mm grid with air around it.

    Attributes
    ----------
    brain, tissue, white, veins, arteries
        Fractions; ``white`` is the share of white matter in the tissue.
    depth
        Distance from the smoothed brain, mm, negative inside.
    axes
        World coordinates in mm, sparse.
    origin
        World coordinates of the first voxel, mm.
    """

    brain: Array
    tissue: Array
    white: Array
    veins: Array
    arteries: Array
    depth: Array
    axes: tuple[Array, Array, Array]
    origin: Array


def _halved(field: Array) -> Array:
    """Means of 2 x 2 x 2 voxels."""
    x, y, z = (n // 2 for n in field.shape)
    even = field[: 2 * x, : 2 * y, : 2 * z]
    return even.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5), dtype=np.float32)


@cache
def anatomy() -> Anatomy:
    """The template's anatomy, computed once per process."""
    head = load_head()
    around = [(_AROUND_MM, _AROUND_MM)] * 2 + [(_BELOW_MM, _AROUND_MM)]
    origin = np.array(ORIGIN_MM) - [pair[0] for pair in around]
    # The raw shares: sharpening is drawn for each head.
    grey, white = tissue_maps()
    fields = (head.brain, grey + white, white, veins(head), arteries())
    brain, tissue, pure, venous, arterial = (_halved(np.pad(one, around)) for one in fields)
    inside = brain > 0.5
    near = distance_mm(~inside, STEP_MM) <= 14
    hull = ndimage.binary_fill_holes((distance_mm(near, STEP_MM) > 14) | inside)
    depth = distance_mm(~hull, STEP_MM) - distance_mm(hull, STEP_MM)
    axes = [origin[a] + 0.5 + STEP_MM * np.arange(n) for a, n in enumerate(brain.shape)]
    return Anatomy(
        brain, tissue, pure / np.maximum(tissue, 1e-3), venous, arterial,
        ndimage.gaussian_filter(depth.astype(np.float32), 1.0) - 1,
        tuple(np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)),
        (origin + 0.5).astype(np.float32),
    )  # fmt: skip


def ramp(value: Array, width: float) -> Array:
    """0 below -width/2, 1 above width/2, linear between."""
    return np.clip(value * np.float32(1 / width) + np.float32(0.5), 0, 1)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], step: float, octaves: int = 1
) -> Array:
    """Random field of unit variance whose knots are ``step`` voxels apart; finer octaves halve."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        apart = max(step / 2**octave, 1.5)
        knots = rng.standard_normal([int(np.ceil(n / apart)) + 3 for n in shape], np.float32)
        knots = ndimage.gaussian_filter(knots, 0.6)
        start = rng.uniform(0, 1, len(shape))
        total += _between(knots, shape, apart, start) * np.float32(0.5**octave)
    return total / np.float32(total.std() + 1e-6)


def _between(
    knots: Array, shape: tuple[int, ...], apart: float, start: NDArray[np.float64]
) -> Array:
    """Linear interpolation of a coarse grid, axis by axis."""
    out = knots
    for axis, n in enumerate(shape):
        place = start[axis] + np.arange(n) / apart
        low = place.astype(int)
        share = (place - low).astype(np.float32)
        share = share.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        out = out.take(low, axis) * (1 - share) + out.take(low + 1, axis) * share
    return out


def _values(rng: np.random.Generator) -> tuple[dict[str, float], bool]:
    """A value for every class, and whether they are HU."""
    if rng.random() < 0.2:
        found = {name: float(rng.uniform(*pair)) for name, pair in _HU.items()}
        if rng.random() < 0.3:  # contrast agent
            found["vein"], found["artery"] = rng.uniform(80, 300, 2).tolist()
        return found, True
    found = {name: float(rng.uniform(0.0, 1.0)) for name in _CLASSES}
    found["air"] = 0.0 if rng.random() < 0.9 else float(rng.uniform(0, 0.15))
    if rng.random() < 0.8:
        found["bone"] = float(rng.uniform(0, 0.15))
    draw = rng.random()
    if draw < 0.25:  # fat is suppressed and all but the brain dark: diffusion, perfusion
        for name in ("scalp", "marrow", "fat", "muscle", "eye"):
            found[name] *= float(rng.uniform(0, 0.5))
        tissue = rng.uniform(0.5, 1)
        found["grey"], found["white"] = tissue * rng.uniform(0.8, 1.2, 2)
    elif draw < 0.4:  # fluid bright, as on T2 and b0
        found["csf"] = float(rng.uniform(0.8, 1.2))
        found["film"] = found["csf"] * float(rng.uniform(0.6, 1.1))
    elif draw < 0.75:  # fluid dark, as on T1, FLAIR and DWI
        found["csf"] = float(rng.uniform(0, 0.3))
        found["film"] = found["csf"] * float(rng.uniform(0.3, 1.3))
        found["grey"], found["white"] = rng.uniform(0.35, 0.9, 2)
        if rng.random() < 0.5:
            found["scalp"] = float(rng.uniform(0.6, 1.6))
            found["marrow"] = float(rng.uniform(0.3, 1.2))
    return found, False


def _exterior(rng: np.random.Generator, known: Anatomy, value: dict[str, float]) -> Array:
    """Everything outside of the brain, of random thickness and shape."""
    shape = known.depth.shape
    x, y, z = known.axes
    noise = [smooth_noise(rng, shape, 14, 2) for _ in range(3)]
    film = np.float32(rng.uniform(0.5, 4.5)) + noise[0] * np.float32(rng.uniform(0, 1.0))
    film = np.maximum(film, 0.3)
    skull = film + np.maximum(rng.uniform(3.5, 9) + noise[1] * rng.uniform(0, 1.5), 2)
    skull = skull + np.float32(rng.uniform(0, 4)) * ramp(-y - 70, 60)
    scalp = skull + np.maximum(rng.uniform(2.5, 11) + noise[2] * rng.uniform(0, 2), 1.5)
    scalp = scalp + np.float32(rng.uniform(0, 8)) * ramp(-z - 10, 60)
    # Muscle beside the temporal lobes, and of the neck below the occiput.
    ends = rng.uniform((0, 30, 40), (30, 55, 65))
    cheek = ramp(np.abs(x) - 36, 14) * ramp(ends[0] - z, 16)
    cheek = cheek * ramp(y + ends[1], 16) * ramp(ends[2] - y, 16)
    nape = ramp(-y - 30, 24) * ramp(-z - np.float32(rng.uniform(15, 45)), 16)
    flesh = np.float32(rng.uniform(2, 26)) * cheek + np.float32(rng.uniform(0, 30)) * nape
    scalp = scalp + flesh
    depth = known.depth
    image = np.full(shape, value["air"], np.float32)

    def paint(name: str, share: Array) -> None:
        image[...] += share * (np.float32(value[name]) - image)

    # Face and neck: a mixture of muscle, fat, bone and air below and before the brain.
    wide = rng.uniform(0.8, 1.2, 5)
    face = ramp(
        1 - np.sqrt(
            (x / (66 * wide[0])) ** 2 + ((y - 38) / (58 * wide[1])) ** 2
            + ((z + 66) / (56 * wide[2])) ** 2
        ), 0.05,
    )  # fmt: skip
    neck = ramp(1 - np.sqrt((x / (58 * wide[3])) ** 2 + ((y + 22) / (62 * wide[4])) ** 2), 0.05)
    soft = np.maximum(face, neck * ramp(-z - np.float32(rng.uniform(35, 60)), 8))
    within = np.maximum(soft, ramp(scalp - depth, 2))
    paint("scalp", within)
    parts = smooth_noise(rng, shape, rng.uniform(4, 10), 2)
    other = smooth_noise(rng, shape, rng.uniform(4, 12), 2)
    beside = ramp(depth - skull, 2) * ramp(skull + flesh - depth, 2)
    inner = np.maximum(soft * ramp(depth - film, 2), beside)
    deep = ndimage.uniform_filter(within, 5) > 0.98
    paint("muscle", inner * ramp(parts + 0.8, 0.3) * deep)
    paint("fat", inner * ramp(other - 0.6, 0.3) * deep)
    paint("bone", inner * ramp(-other - 1.0, 0.2) * ramp(-parts + 0.5, 0.3) * deep)
    _spine(rng, known, paint)
    lowest = np.float32(rng.uniform(-80, -56))
    paint("bone", ramp(depth - film, 2) * ramp(skull - depth, 2) * ramp(z - lowest, 6))
    table = (skull - film) * np.float32(rng.uniform(0.15, 0.45))
    if rng.random() < 0.85:
        share = ramp(depth - film - table, 2) * ramp(skull - table - depth, 2)
        paint("marrow", share * ramp(z - lowest, 6))
    # Orbits, nose, sinuses, air cells.
    outside = ramp(depth - film - 2, 2)
    side = rng.normal(0, 2, 3)
    for sign in (-1, 1):
        away = np.sqrt(
            (x - sign * (32 + side[0])) ** 2 + (y - 66 - side[1]) ** 2 + (z + 42 - side[2]) ** 2
        )
        paint("fat", ramp(rng.uniform(15, 20) - away, 2) * outside)
        paint("eye", ramp(rng.uniform(10, 13) - away, 2) * outside)
    nose = np.sqrt((x / 14) ** 2 + ((y - 52) / 34) ** 2 + ((z + 60) / rng.uniform(14, 24)) ** 2)
    paint("air", ramp(1 - nose, 0.1) * outside * ramp(parts + rng.uniform(0, 1), 0.4))
    if rng.random() < 0.7:
        front = np.sqrt((x / rng.uniform(8, 28)) ** 2 + ((y - 74) / 8) ** 2 + ((z + 22) / 14) ** 2)
        paint("air", ramp(1 - front, 0.2) * ramp(depth - film - 2, 2))
    for sign in (-1, 1):
        cells = np.sqrt((x - sign * 56) ** 2 + (y + 30) ** 2 + (z + 36) ** 2)
        paint("air", ramp(rng.uniform(4, 16) - cells, 4) * outside * ramp(other, 0.4))
    paint("film", ramp(film - depth, 2))
    paint("vein", known.veins * np.float32(rng.uniform(0, 1)))
    return image


def _spine(rng: np.random.Generator, known: Anatomy, paint: Callable[[str, Array], None]) -> None:
    """Vertebrae, fluid and cord, which is no brain, below the end of the template's brain stem."""
    x, y, z = known.axes
    lean = np.float32(rng.uniform(-0.35, 0.15))
    away = np.hypot(x, y + 42 - lean * (z + 72)) + 0 * z
    below = ramp(-z - np.float32(rng.uniform(64, 74)), 4)
    paint("bone", ramp(np.float32(rng.uniform(15, 24)) - away, 3) * below)
    paint("film", ramp(np.float32(rng.uniform(8, 11)) - away, 2) * below)
    paint("white", ramp(np.float32(rng.uniform(4.5, 6.5)) - away, 2) * ramp(-z - 70, 2))


def _painted(rng: np.random.Generator, known: Anatomy) -> tuple[Array, bool, float]:
    """The head on the template's grid, whether it is a CT, and its value of air."""
    value, ct = _values(rng)
    image = _exterior(rng, known, value)
    shape = image.shape
    low = rng.uniform(0.15, 0.5)
    tissue = np.clip((known.tissue - low) / rng.uniform(0.25, 0.5), 0, 1)
    white = np.clip((known.white - 0.5) * rng.uniform(1, 3) + rng.uniform(0.35, 0.65), 0, 1)
    spread = 0.03 * abs(value["grey"]) + (2 if ct else 0.01)
    # Tissue is not of one value: a slow variation of each class, other for the cerebellum.
    slow = smooth_noise(rng, shape, rng.uniform(8, 24), 2) * np.float32(spread * rng.uniform(0, 3))
    own = value["csf"] + tissue * (value["grey"] - value["csf"])
    own = own + tissue * white * (value["white"] - value["grey"]) + tissue * slow
    _, y, z = known.axes
    if rng.random() < 0.5:
        low_back = ramp(-z - 18, 8) * ramp(-y - 30, 16)
        own = own * (1 + low_back * np.float32(rng.uniform(-0.15, 0.15)))
    own += known.arteries * np.float32(rng.uniform(0, 1)) * (value["artery"] - own)
    for _ in range(rng.integers(0, 4)):
        own += _lesion(rng, known) * (np.float32(_lesion_value(rng, value, ct)) - own)
    image += known.brain * (own - image)
    return image, ct, value["air"]


def _lesion_value(rng: np.random.Generator, value: dict[str, float], ct: bool) -> float:
    if ct:
        return float(rng.uniform(0, 90))
    return float(rng.choice([rng.uniform(0, 1.5), value["csf"], 1.4 * value["grey"]]))


def _lesion(rng: np.random.Generator, known: Anatomy) -> Array:
    """Soft indicator of a lesion anywhere in the brain, up to a third of a hemisphere."""
    x, y, z = known.axes
    at = rng.uniform((-65, -95, -50), (65, 65, 75))
    radius = rng.uniform(3, 38) * rng.uniform(0.6, 1.4, 3)
    away = np.sqrt(
        ((x - at[0]) / radius[0]) ** 2 + ((y - at[1]) / radius[1]) ** 2
        + ((z - at[2]) / radius[2]) ** 2
    )  # fmt: skip
    if rng.random() < 0.7:
        away = away * (1 + np.float32(0.25) * smooth_noise(rng, away.shape, 8, 2))
    share = ramp(1 - away, float(rng.uniform(0.05, 0.5)))
    return share * np.float32(rng.uniform(0.5, 1))


def rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix of three angles, about x, then y, then z."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()


def places(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    middle: NDArray[np.float64],
    turned: tuple[float, ...],
    shifted: tuple[float, ...],
) -> Array:
    """Template coordinates (mm) of every voxel of a network's grid: moved, scaled and bent.

    ``middle`` is where the grid's middle lies on average; ``turned`` (degrees) and ``shifted`` (mm)
    are standard deviations.
    """
    centred = [STEP_MM * (np.arange(n) - (n - 1) / 2) for n in shape]
    grid = np.stack(np.meshgrid(*centred, indexing="ij")).astype(np.float32)
    matrix = rotation(rng.normal(0, turned))
    scale = rng.uniform(0.86, 1.2) * rng.uniform(0.92, 1.08, 3)
    matrix = np.diag(scale) @ (np.eye(3) + rng.normal(0, 0.04, (3, 3))) @ matrix
    shift = (middle + rng.normal(0, shifted)).astype(np.float32)
    points = np.tensordot(matrix.astype(np.float32), grid, 1) + shift[:, None, None, None]
    for step, size_mm in ((24, 7.0), (10, 2.5)):
        amplitude = np.float32(rng.uniform(0, size_mm))
        for axis in range(3):
            points[axis] += amplitude * smooth_noise(rng, shape, step)
    return np.ascontiguousarray(points, np.float32)


def sampled(field: Array, points: Array, origin: Array, beyond: float) -> Array:
    """A field of the template's 2 mm grid at points, ``beyond`` outside of it."""
    out = np.empty(points.shape[1:], np.float32)
    kernels.linear_placed(
        np.ascontiguousarray(field), points.reshape(3, -1), origin, np.float32(STEP_MM),
        kernels.CONSTANT, beyond, out.reshape(-1),
    )  # fmt: skip
    return out


def _holder(rng: np.random.Generator, image: Array) -> None:
    """The holder of a CT's table behind the head, in place."""
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    radius, thick = rng.uniform(45, 70), rng.uniform(0.8, 2.5)
    away = np.hypot(x - SHAPE[0] / 2 + rng.normal(0, 4), y - radius - rng.uniform(0, 6))
    share = ramp(thick - np.abs(away - radius), 1).astype(np.float32) * (y < radius)
    share = share[..., None] * (image < -600)
    image += share * (np.float32(rng.uniform(-400, 300)) - image)


def thick_slices(image: Array, axis: int, thick: float, start: float) -> Array:
    """Means over slices of ``thick`` voxels, put back on the grid by interpolation.

    ``start`` (0 to 1) is where the first one lies, in slices.
    """
    blurred = ndimage.gaussian_filter1d(image, 0.35 * thick, axis)
    n = image.shape[axis]
    at = np.arange(start * thick, n - 1, thick)
    low = at.astype(int)
    share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    slices = blurred.take(low, axis) * (1 - share) + blurred.take(low + 1, axis) * share
    place = np.clip((np.arange(n) - at[0]) / thick, 0, len(at) - 1.001)
    low = place.astype(int)
    share = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return slices.take(low, axis) * (1 - share) + slices.take(low + 1, axis) * share


def _scanned(rng: np.random.Generator, image: Array, brain: Array, ct: bool, air: float) -> Array:
    """The head as a scan of it: resolution, field, noise, artefacts, field of view."""
    if ct:
        _holder(rng, image)
    if rng.random() < 0.5:
        image = ndimage.gaussian_filter(image, rng.uniform(0, 0.9, 3))
    if rng.random() < 0.6:
        axis = int(rng.choice([2, 2, 2, 1, 0]))
        image = thick_slices(image, axis, float(rng.uniform(1.2, 4.0)), float(rng.random()))
    if ct:
        image += smooth_noise(rng, SHAPE, 20) * np.float32(rng.uniform(0, 6))
        noise = rng.standard_normal(SHAPE, np.float32)
        if rng.random() < 0.5:
            noise = 2 * ndimage.gaussian_filter(noise, 0.6)
        image += noise * np.float32(rng.uniform(0, 10))
    else:
        image = np.maximum(image, 0)
        if rng.random() < 0.5:
            image = image ** np.float32(np.exp(rng.normal(0, 0.3)))
        bias = smooth_noise(rng, SHAPE, rng.uniform(30, 60)) * np.float32(rng.uniform(0, 0.45))
        image *= np.exp(bias)
        if rng.random() < 0.2:  # a ghost of the head, moved along y
            moved = np.roll(image, int(rng.integers(20, 100)), 1)
            image += np.float32(rng.uniform(0.02, 0.15)) * moved
        if rng.random() < 0.2:  # signal lost and piled up above air
            field = smooth_noise(rng, SHAPE, 8)
            low = ramp(40 - np.arange(SHAPE[2], dtype=np.float32), 20)
            image *= np.exp(-np.maximum(field * low * rng.uniform(0, 1.5), -1))
        level = float(np.median(image[brain > 0.5])) if (brain > 0.5).any() else 1.0
        sigma = np.float32(level * rng.choice([0.01, 0.03, 0.06, 0.12]) * rng.uniform(0.5, 1.5))
        a, b = rng.standard_normal((2, *SHAPE), np.float32) * sigma
        image = np.sqrt((image + a) ** 2 + b**2)
    least = float(image.min()) if ct else 0.0
    draw = rng.random()
    if draw < 0.1:  # the head was taken off
        mask = ndimage.gaussian_filter(brain, 1) > rng.uniform(0.05, 0.6)
        image = np.where(mask, image, least)
    elif draw < 0.4:  # the field of view ends
        for _ in range(rng.integers(1, 3)):
            axis, side = int(rng.choice([0, 1, 2, 2, 2])), int(rng.integers(0, 2))
            n = int(rng.uniform(0, 0.3) * SHAPE[axis])
            cut = [slice(None)] * 3
            cut[axis] = slice(0, n) if side == 0 else slice(SHAPE[axis] - n, None)
            image[tuple(cut)] = least
            brain[tuple(cut)] = 0
    elif draw < 0.5 and not ct:  # background set to 0
        image[image < np.quantile(image, 0.5) * rng.uniform(0.2, 1)] = 0
    if ct:
        image = np.clip(image, *CT_WINDOW_HU) - np.float32(CT_WINDOW_HU[0])
    return image


def brain_sample(seed: int) -> tuple[Array, NDArray[np.uint8]]:
    """One head.

    Parameters
    ----------
    seed
        Of the head; the same seed gives the same bytes.

    Returns
    -------
    tuple
        Image, scaled as for inference, and brain (0 or 1), both of the network's grid.

    Examples
    --------
    >>> image, brain = brain_sample(1)
    >>> image.shape == brain.shape, 0 <= image.min() <= image.max() <= 1
    (True, True)
    """
    rng = np.random.default_rng(seed)
    known = anatomy()
    painted, ct, air = _painted(rng, known)
    points = places(rng, SHAPE, np.array([0.0, -16.0, 0.0]), (12, 8, 8), (6, 8, 14))
    image = sampled(painted, points, known.origin, air)
    brain = sampled(known.brain, points, known.origin, 0.0)
    image = _scanned(rng, image, brain, ct, air)
    if rng.random() < 0.5:
        image, brain = image[::-1], brain[::-1]
    return scaled(np.ascontiguousarray(image)), np.ascontiguousarray(brain > 0.5).astype(np.uint8)
