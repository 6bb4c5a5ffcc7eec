"""Random brains with gliomas and metastases: T1 after contrast and FLAIR, without skull.

The template's tissues are bent and given values of both sequences. A tumour is a rough lump with a
rim that takes up contrast, a core that does not, and oedema that follows the white matter; beside
it stands what only looks like one: vessels, choroid plexus, dura, leukoaraiosis, old lesions.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.learned.lesions import SHAPE, tumour_channels
from train.heads import Array, anatomy, places, ramp, rotation, sampled, smooth_noise, thick_slices

#: As in :mod:`corelab.terms.learned`.
_NECROSIS, _OEDEMA, _ENHANCING = 1, 2, 3
#: Each bent brain is painted so many times.
_PAINTED = 3


@lru_cache(maxsize=1)
def _bent(seed: int) -> tuple[Array, ...]:
    """Brain, tissue, white share, vessels, depth and left-right place on the network's grid."""
    rng = np.random.default_rng([seed, 1])
    known = anatomy()
    points = places(rng, SHAPE, np.array([0.0, -18.0, 4.0]), (6, 4, 4), (4, 4, 4))
    fields = (known.brain, known.tissue, known.white, known.veins, known.arteries)
    found = [sampled(one, points, known.origin, 0.0) for one in fields]
    return (*found, sampled(known.depth, points, known.origin, 60.0), points[0])


def _lump(rng: np.random.Generator, at: NDArray[np.float64], radius: float) -> Array:
    """Depth in mm below the rough surface of one to three joined ellipsoids."""
    grid = [2.0 * np.arange(n, dtype=np.float32) for n in SHAPE]
    x, y, z = np.meshgrid(*grid, indexing="ij", sparse=True)
    best = np.full(SHAPE, -1e3, np.float32)
    for _ in range(rng.integers(1, 4)):
        middle = at + rng.normal(0, 0.45 * radius, 3)
        axes = rotation(rng.uniform(0, 180, 3)) * (1 / rng.uniform(0.65, 1.35, 3))
        away = np.zeros(SHAPE, np.float32)
        for row in axes.T:
            a, b, c = row.astype(np.float32)
            away = away + (a * (x - middle[0]) + b * (y - middle[1]) + c * (z - middle[2])) ** 2
        best = np.maximum(best, radius * rng.uniform(0.6, 1.0) - np.sqrt(away))
    rough = smooth_noise(rng, SHAPE, max(2.5, radius / 4), 2) * np.float32(radius * 0.14)
    return best + rough


def _painted(
    rng: np.random.Generator, fields: tuple[Array, ...]
) -> tuple[Array, Array, NDArray[np.uint8]]:
    """Both sequences and the labels."""
    brain, tissue, white, veins, arteries, depth, side = fields
    low = rng.uniform(0.2, 0.5)
    tissue = np.clip((tissue - low) / rng.uniform(0.3, 0.5), 0, 1) * (brain > 0.02)
    white = np.clip((white - 0.5) * rng.uniform(1, 2.5) + rng.uniform(0.4, 0.6), 0, 1)
    normal = rng.random() < 0.9
    grey1 = rng.uniform(0.6, 0.95) if normal else rng.uniform(0.9, 1.15)
    fluid1 = rng.uniform(0.1, 0.5)
    white2, fluid2 = rng.uniform(0.7, 1.03), rng.uniform(0.05, 0.5)
    t1 = np.float32(grey1) + white * np.float32(1 - grey1)
    flair = 1 + white * np.float32(white2 - 1)
    for one in (t1, flair):
        one *= 1 + np.float32(rng.uniform(0, 0.08)) * smooth_noise(
            rng, SHAPE, rng.uniform(5, 14), 2
        )

    def change(share: Array, first: float | Array, second: float | Array) -> None:
        t1[...] += share * (first - t1)
        flair[...] += share * (second - flair)

    # Leukoaraiosis, on both sides; old infarcts and cavities.
    if rng.random() < 0.5:
        patches = ramp(smooth_noise(rng, SHAPE, 6, 2) - rng.uniform(0.9, 1.8), 0.6) * white
        if rng.random() < 0.5:
            patches = patches * ramp(-depth - rng.uniform(15, 30), 8)
        both = np.maximum(patches, patches[::-1])
        change(both, rng.uniform(0.7, 0.95), rng.uniform(1.15, 1.7))
    inside = np.flatnonzero(tissue > 0.5)

    def somewhere() -> NDArray[np.float64]:
        return 2.0 * np.array(np.unravel_index(rng.choice(inside), SHAPE), float)

    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        old = ramp(_lump(rng, somewhere(), float(rng.uniform(3, 16))), 3) * tissue
        change(old, rng.uniform(fluid1, 0.7), rng.choice([fluid2, rng.uniform(0.9, 1.5)]))
    # Vessels, plexus and dura take up contrast.
    gain = rng.uniform(1.2, 3.0)
    t1 += np.maximum(veins * rng.uniform(0, 1), arteries * rng.uniform(0, 1)) * (gain - t1)
    fluid = np.full(SHAPE, np.float32(fluid1))
    plexus = ramp(smooth_noise(rng, SHAPE, 3) - rng.uniform(1.2, 2.2), 0.6) * ramp(-depth - 22, 6)
    fluid += plexus * np.float32(rng.uniform(0, 1.6))
    fluid_flair = np.full(SHAPE, np.float32(fluid2))
    if rng.random() < 0.4:  # inflow
        fluid_flair += np.maximum(smooth_noise(rng, SHAPE, 5), 0) * np.float32(rng.uniform(0, 0.6))
    dura = ramp(depth + rng.uniform(0.5, 4), 3) * ramp(
        smooth_noise(rng, SHAPE, 8) - rng.uniform(0, 2), 0.5
    )
    # The tumour.
    labels = np.zeros(SHAPE, np.uint8)
    draw = rng.random()
    if draw < 0.08:
        number, radii = 0, (1.0, 2.0)
    elif draw < 0.8:
        number, radii = int(rng.choice([1, 1, 1, 2])), (8.0, 34.0)
    else:
        number, radii = int(rng.integers(2, 6)), (3.5, 12.0)
    enhances = rng.random() < 0.88
    swelling = np.full(SHAPE, -1e3, np.float32)
    core = np.full(SHAPE, -1e3, np.float32)
    for _ in range(number):
        radius = float(np.exp(rng.uniform(*np.log(radii))))
        at = somewhere()
        lump = _lump(rng, at, radius)
        core = np.maximum(core, lump)
        reach = rng.uniform(0, 28)
        # Across the midline only through white matter.
        home = np.sign(
            np.interp(at[0], 2.0 * np.arange(SHAPE[0]), side[:, SHAPE[1] // 2, SHAPE[2] // 2])
        )
        other = ramp(-home * side - 2, 4)
        slowed = (0.25 + 0.75 * white) * (1 - other * np.float32(rng.choice([0.3, 0.9])))
        wide = reach * np.exp(rng.uniform(0.1, 0.6) * smooth_noise(rng, SHAPE, 9, 2))
        swelling = np.maximum(swelling, lump + wide * slowed)
    if number:
        room = np.clip(tissue + ramp(core - 3, 4), 0, 1) * brain
        share = ramp(swelling, rng.uniform(2, 6)) * np.maximum(tissue, ramp(core, 2))
        uneven = 1 + rng.uniform(0, 0.12) * smooth_noise(rng, SHAPE, 5, 2)
        wet = rng.uniform(1.15, 2.1) * uneven
        dry = rng.uniform(0.55, 0.95) * uneven
        if rng.random() < 0.7:  # fading outwards: readers draw its border where it ends
            least = rng.uniform(0.25, 0.8)
            near = least + (1 - least) * np.clip(swelling / rng.uniform(4, 18), 0, 1)
            wet, dry = 1 + (wet - 1) * near, 1 + (dry - 1) * near
        change(share, dry, wet)
        labels[(share > 0.4) & (brain > 0.5)] = _OEDEMA
        filled = ramp(core, rng.uniform(1.5, 3.5)) * room
        thick = rng.uniform(1.5, 10) * np.exp(
            rng.uniform(0.1, 0.7) * smooth_noise(rng, SHAPE, 6, 2)
        )
        if rng.random() < 0.35:  # solid, with pockets
            thick = thick + 60 * ramp(smooth_noise(rng, SHAPE, 6, 2) + rng.uniform(-0.5, 1.5), 0.4)
        rim = filled * ramp(thick - core, 2)
        if rng.random() < 0.5:  # parts of it take up none
            rim = rim * ramp(smooth_noise(rng, SHAPE, 7, 2) + rng.uniform(0.3, 2), 0.6)
        if not enhances:
            rim = rim * 0
        if not enhances and rng.random() < 0.5:
            filled = filled * 0
        if rng.random() < 0.08:
            dead1, dead2 = fluid1, fluid2
        else:
            dead1, dead2 = rng.uniform(0.25, 0.85), rng.uniform(0.35, 1.9)
        mixed = 1 + rng.uniform(0, 0.15) * smooth_noise(rng, SHAPE, 4, 2)
        change(filled, dead1 * mixed, dead2 * mixed)
        labels[(filled > 0.5) & (brain > 0.5)] = _NECROSIS
        bright = rng.uniform(1.1, 2.4) * (1 + rng.uniform(0, 0.3) * smooth_noise(rng, SHAPE, 4, 2))
        change(rim, np.maximum(bright, 1.02), rng.uniform(0.85, 1.8) * mixed)
        labels[(rim > 0.5) & (brain > 0.5)] = _ENHANCING
        tissue = np.maximum(tissue, filled)
        tissue = np.minimum(tissue, brain)
    t1 = tissue * t1 + (brain - tissue).clip(0) * fluid
    t1 += brain * dura * (np.float32(gain * rng.uniform(0.4, 1)) - t1)
    flair = tissue * flair + (brain - tissue).clip(0) * fluid_flair
    return t1.astype(np.float32), flair.astype(np.float32), labels


def tumour_sample(seed: int) -> tuple[Array, NDArray[np.uint8]]:
    """One patient.

    Parameters
    ----------
    seed
        Of the patient; the same seed gives the same bytes.

    Returns
    -------
    tuple
        T1 after contrast and FLAIR as for inference, (2, x, y, z), and the classes.

    Examples
    --------
    >>> image, labels = tumour_sample(1)
    >>> image.shape[1:] == labels.shape, len(image)
    (True, 2)
    """
    rng = np.random.default_rng(seed)
    fields = _bent(seed // _PAINTED)
    brain = fields[0].copy()
    t1, flair, labels = _painted(rng, fields)
    inside = brain > 0.5
    made = []
    for image in (t1, flair):
        if made and rng.random() < 0.3:
            image = ndimage.shift(image, rng.normal(0, 0.4, 3), order=1, mode="nearest")
        if rng.random() < 0.5:
            image = ndimage.gaussian_filter(image, rng.uniform(0, 0.7, 3))
        if rng.random() < 0.6:
            axis = int(rng.choice([2, 2, 2, 1, 0]))
            image = thick_slices(image, axis, float(rng.uniform(1.2, 3.2)), float(rng.random()))
        image = np.maximum(image, 0) ** np.float32(np.exp(rng.normal(0, 0.25)))
        image = image * np.exp(
            smooth_noise(rng, SHAPE, rng.uniform(25, 50)) * np.float32(rng.uniform(0, 0.2))
        )
        level = float(np.median(image[inside]))
        sigma = np.float32(level * np.exp(rng.uniform(np.log(0.005), np.log(0.08))))
        a, b = rng.standard_normal((2, *SHAPE), np.float32) * sigma
        if rng.random() < 0.4:
            a, b = (1.8 * ndimage.gaussian_filter(part, 0.6) for part in (a, b))
        made.append(np.sqrt((image + a) ** 2 + b**2))
    mask = ndimage.gaussian_filter(brain, 0.8) > rng.uniform(0.25, 0.75)
    if rng.random() < 0.2:  # the field of view ends
        axis, upper = int(rng.choice([1, 2, 2])), rng.random() < 0.5
        n = int(rng.uniform(0.05, 0.35) * SHAPE[axis])
        cut: list[slice] = [slice(None)] * 3
        cut[axis] = slice(SHAPE[axis] - n, None) if upper else slice(0, n)
        mask[tuple(cut)] = False
    image = tumour_channels(made, mask)
    labels = labels * mask
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(labels)
