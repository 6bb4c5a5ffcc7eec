"""Random diffusion scans of brains with infarcts, and of brains with what only looks like one.

Signal without and with diffusion weighting is mixed by tissue fraction, so that partial volume acts
on both and the ADC follows from them, as on a scanner. Lesions have the shapes of the model in
``resources/shapes`` (fitted to masks of SOOP of which every fourth was left out).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from corelab.imaging.shapes import draw_shape
from corelab.learned.infarct import SHAPE, channels
from train.heads import (
    Anatomy,
    Array,
    anatomy,
    places,
    ramp,
    sampled,
    smooth_noise,
    thick_slices,
)

_B = 1.0  # ADC is in 1e-3 mm2/s here
#: Where air cells bend the field: above the frontal and ethmoid sinuses, the petrous bones, mm.
_CELLS = (
    *((0, 62, -22), (44, -22, -38), (-44, -22, -38)),
    *((0, -30, -50), (28, 30, -28), (-28, 30, -28)),
)


def _both(rng: np.random.Generator, field: Array) -> Array:
    """A field that is mostly the same on both sides: normal variation is."""
    share = np.float32(rng.uniform(0.6, 1.0) if rng.random() < 0.8 else 0)
    return (1 - share / 2) * field + share / 2 * field[::-1]


def _region(rng: np.random.Generator, volume_ml: float, weight: Array) -> Array:
    """Share of each voxel that a lesion of about this volume fills, within a weight."""
    out = np.zeros(weight.shape, np.float32)
    inside = np.flatnonzero(weight > 0.5)
    if not len(inside):
        return out
    at = np.array(np.unravel_index(rng.choice(inside), weight.shape))
    shape = draw_shape(rng, volume_ml)
    reach = int(np.ceil(min(shape.reach_mm, 90) / 2))
    low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, weight.shape)
    axes = [2.0 * (np.arange(a, b) - c) for a, b, c in zip(low, high, at, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    width = float(rng.choice([2.0, 2.0, 4.0, 7.0]))
    out[box] = ramp(-shape.potential(points), width) * weight[box]
    return out


def _no_infarct(
    rng: np.random.Generator, known: Anatomy, tissue: Array, white: Array, s0: Array, d: Array
) -> None:
    """Change signal and ADC by what is no infarct."""
    x, y, z = known.axes
    shape = tissue.shape

    def change(share: Array, signal: float, diffusion: float) -> None:
        s0[...] *= 1 + share * np.float32(signal - 1)
        d[...] *= 1 + share * np.float32(diffusion - 1)

    # The posterior fossa is often brighter; tracts that run along one axis are bright or dark.
    low_back = ramp(-z - 18, 8) * ramp(-y - 30, 16)
    change(low_back, rng.uniform(0.9, 1.25), rng.uniform(0.82, 1.05))
    if rng.random() < 0.7:
        reach = rng.uniform(4, 9)
        for side in (-1, 1):  # corticospinal tract, from the internal capsule to the pons
            along = np.abs(x) - (24 + np.clip(z, -40, 30) * 0.4)
            tract = np.exp(-((along / reach) ** 2) - ((y + 18 - 0.15 * z) / reach) ** 2)
            tract = tract * ramp(z + 40, 10) * ramp(60 - z, 20) * (np.sign(x) == side)
            change(tract.astype(np.float32), rng.uniform(1.0, 1.15), rng.uniform(0.85, 1.05))
    if rng.random() < 0.5:  # cortex of the cingulum and the insula, hippocampi: brighter on DWI
        field = _both(rng, smooth_noise(rng, shape, rng.uniform(8, 16), 1))
        change(ramp(field - 0.7, 0.8) * (1 - white), rng.uniform(1.0, 1.25), rng.uniform(0.85, 1.1))
    if rng.random() < 0.4:  # leukoaraiosis
        patches = ramp(smooth_noise(rng, shape, 7, 2) - rng.uniform(0.8, 1.8), 0.5) * white
        change(_both(rng, patches), rng.uniform(1.1, 1.6), rng.uniform(1.1, 1.6))
    if rng.random() < 0.3:  # iron of the deep nuclei
        away = ((np.abs(x) - 22) / 10) ** 2 + ((y - 2) / 20) ** 2 + (z / 14) ** 2
        change(np.exp(-away).astype(np.float32), rng.uniform(0.4, 0.9), rng.uniform(0.9, 1.1))
    for _ in range(rng.choice([0, 0, 1, 2, 3])):
        share = _region(rng, float(np.exp(rng.uniform(-2.5, 4.0))), tissue)
        kind = rng.random()
        if kind < 0.5:  # gliosis and oedema, which shine through
            change(share, rng.uniform(1.1, 1.8), rng.uniform(1.15, 1.9))
        elif kind < 0.8:  # cavities
            change(share, rng.uniform(1.2, 2.5), rng.uniform(2.0, 3.6))
        else:  # old blood
            change(share, rng.uniform(0.1, 0.6), rng.uniform(0.7, 1.2))


def _infarcts(rng: np.random.Generator, tissue: Array, s0: Array, d: Array) -> Array:
    """Add infarcts; their share of each voxel."""
    infarct = np.zeros(tissue.shape, np.float32)
    draw = rng.random()
    number = 0 if draw < 0.2 else 1 if draw < 0.6 else int(rng.integers(2, 9))
    for one in range(number):
        most = 5.4 if one == 0 else 2.0
        volume = float(np.exp(rng.uniform(-2.5, most)))
        infarct = np.maximum(infarct, _region(rng, volume, tissue * (infarct < 0.1)))
    if number:
        uneven = smooth_noise(rng, tissue.shape, rng.uniform(4, 10), 2)
        depth = np.float32(rng.uniform(0.2, 0.62))
        depth = depth * np.clip(1 + np.float32(rng.uniform(0, 0.3)) * uneven, 0.5, 1.5)
        d *= 1 - infarct * np.minimum(depth, 0.75)
        bright = np.clip(1 + np.float32(rng.uniform(0, 0.5)) * uneven, 0.2, 1.8)
        more = rng.uniform(-0.05, 0.7) if rng.random() < 0.7 else rng.uniform(0.5, 1.8)
        s0 *= 1 + infarct * np.float32(more) * bright
    return infarct


def _signals(rng: np.random.Generator, known: Anatomy) -> tuple[Array, Array, Array]:
    """Signal without and with diffusion weighting on the template's grid, and infarct's share."""
    shape = known.brain.shape
    low = rng.uniform(0.2, 0.5)
    tissue = np.clip((known.tissue - low) / rng.uniform(0.3, 0.5), 0, 1) * (known.brain > 0.02)
    white = np.clip((known.white - 0.5) * rng.uniform(1, 2.5) + rng.uniform(0.4, 0.6), 0, 1)
    white = white.astype(np.float32)
    t2 = {"grey": 1.0, "white": rng.uniform(0.65, 1.0), "csf": rng.uniform(1.3, 3.5)}
    adc = {"grey": rng.uniform(0.72, 0.92), "white": rng.uniform(0.65, 0.85)}
    s0 = t2["grey"] + white * np.float32(t2["white"] - t2["grey"])
    s0 = s0 * (1 + np.float32(rng.uniform(0, 0.14)) * _both(rng, smooth_noise(rng, shape, 8, 3)))
    d = adc["grey"] + white * np.float32(adc["white"] - adc["grey"])
    d = d * (1 + np.float32(rng.uniform(0, 0.12)) * _both(rng, smooth_noise(rng, shape, 6, 3)))
    vessel = known.arteries * np.float32(rng.uniform(0, 1))
    _no_infarct(rng, known, tissue, white, s0, d)
    infarct = _infarcts(rng, tissue, s0, d)
    csf, csf_d = np.float32(t2["csf"]), np.float32(rng.uniform(2.2, 3.3))
    fluid = csf * (1 + np.float32(0.1) * smooth_noise(rng, shape, 10))
    film = ramp(np.float32(rng.uniform(0.5, 5)) - known.depth, 2)
    other = np.float32(rng.uniform(0, 0.3)) * ramp(14 - known.depth, 4)
    wet = (known.brain - tissue).clip(0) + film * (1 - known.brain)
    dry = (1 - tissue - wet).clip(0) * other
    still = 1 - vessel
    plain = (tissue * s0 + wet * fluid + dry) * still
    weighted = tissue * s0 * np.exp(-d) + wet * fluid * np.exp(-csf_d) + dry * np.float32(0.4)
    weighted *= still
    if rng.random() < 0.6:
        _susceptibility(rng, known, plain, weighted)
    return plain, weighted, infarct * (tissue > 0.3)


def _susceptibility(
    rng: np.random.Generator, known: Anatomy, plain: Array, weighted: Array
) -> None:
    """Signal moved above air cells: bright and dark sheets, much the same on both images."""
    x, y, z = known.axes
    change, strength = np.zeros(plain.shape, np.float32), rng.uniform(0.2, 1)
    for cell in _CELLS:
        at = np.array(cell) + rng.normal(0, 6, 3)
        reach = rng.uniform(8, 20)
        across = ((x - at[0]) / reach) ** 2 + ((z - at[2]) / (0.6 * reach)) ** 2
        bright = np.exp(-across - ((y - at[1] + 6) / rng.uniform(3, 8)) ** 2)
        dark = np.exp(-across - ((y - at[1] - 3) / 6) ** 2)
        change += np.float32(rng.uniform(0, 1.5)) * bright - np.float32(0.8) * dark
    gain = np.maximum(1 + change * np.float32(strength), 0.05)
    plain *= gain
    weighted *= gain * (1 + np.float32(rng.uniform(-0.1, 0.15)) * change)


def infarct_sample(seed: int) -> tuple[Array, NDArray[np.uint8]]:
    """One scan.

    Parameters
    ----------
    seed
        Of the scan; the same seed gives the same bytes.

    Returns
    -------
    tuple
        DWI and ADC as for inference, (2, x, y, z), and the infarct (0 or 1).

    Examples
    --------
    >>> image, infarct = infarct_sample(1)
    >>> image.shape[1:] == infarct.shape, len(image)
    (True, 2)
    """
    rng = np.random.default_rng(seed)
    known = anatomy()
    plain, weighted, infarct = _signals(rng, known)
    points = places(rng, SHAPE, np.array([0.0, -18.0, 4.0]), (6, 4, 4), (4, 4, 4))
    plain, weighted, infarct, brain = (
        sampled(one, points, known.origin, 0.0) for one in (plain, weighted, infarct, known.brain)
    )
    if rng.random() < 0.3:  # eddy currents, motion between the two
        weighted = ndimage.shift(weighted, rng.normal(0, 0.4, 3), order=1, mode="nearest")
    blur = rng.uniform(0, 0.8, 3) if rng.random() < 0.5 else None
    thick = None
    if rng.random() < 0.8:
        axis = 2 if rng.random() < 0.85 else int(rng.integers(0, 2))
        thick = (axis, float(rng.uniform(1.2, 3.5)), float(rng.random()))
    bias = np.exp(smooth_noise(rng, SHAPE, rng.uniform(25, 50)) * np.float32(rng.uniform(0, 0.35)))
    level = float(np.median(weighted[brain > 0.5]))
    sigma = np.float32(level * np.exp(rng.uniform(np.log(0.008), np.log(0.1))))
    # Slices measured one after the other differ a little.
    jitter = 1 + np.float32(rng.choice([0, 0.02, 0.05])) * rng.standard_normal(SHAPE[2], np.float32)
    coarse = rng.random() < 0.4  # noise of a scan that was interpolated
    made = []
    for image in (plain, weighted):
        if blur is not None:
            image = ndimage.gaussian_filter(image, blur)
        if thick is not None:
            image = thick_slices(image, *thick)
        a, b = rng.standard_normal((2, *SHAPE), np.float32) * sigma
        if coarse:
            a, b = (1.8 * ndimage.gaussian_filter(part, 0.6) for part in (a, b))
        made.append(np.sqrt((np.maximum(image, 0) * bias + a) ** 2 + b**2))
    made[1] *= jitter
    adc = np.log(np.maximum(made[0], 1e-4) / np.maximum(made[1], 1e-4)) / np.float32(_B)
    # Gains of the two images may differ; then the ADC is shifted.
    shift = rng.uniform(-0.3, 0.6) if rng.random() < 0.15 else 0.0
    adc = np.clip((adc + np.float32(shift)) * np.float32(rng.uniform(0.92, 1.08)), 0, 4)
    wide = ndimage.gaussian_filter(brain, 1.5) > rng.uniform(0.3, 0.7)
    given = None if rng.random() < 0.25 else adc * np.float32(1e-3)
    image = channels(made[1], given, wide)
    truth = (infarct > 0.5) & wide
    if rng.random() < 0.5:
        image, truth = image[:, ::-1], truth[::-1]
    return np.ascontiguousarray(image), np.ascontiguousarray(truth).astype(np.uint8)
