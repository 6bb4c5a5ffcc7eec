"""Cohort of 4D perfusion heads with known lesions: 24 cases, four of them without a lesion.

A geometric head (ellipsoids, a folded cortical ribbon, tubes for vessels) rather than a
template: the truth is a formula, every case is written in seconds, and nothing that the pipeline
uses to find its way (an atlas, a template) is built into what it is tested on. Values after
``docs/perfusion.md``, section "Phantoms".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from perfusion_tiles import gamma_bolus
from scipy import ndimage
from scipy.signal import fftconvolve

from corelab.perfusion.bayes import _residue_function
from corelab.perfusion.concentration import TISSUE_FACTOR
from corelab.phantom.seeds import generator

FAMILIES = ("exponential", "linear", "gamma4")
#: Core and whole hypoperfused volume (mL) of the four sizes.
SIZES_ML = ((8.0, 60.0), (18.0, 110.0), (35.0, 170.0), (60.0, 240.0))
WITHOUT_LESION = (0, 7, 14, 17)
#: True Tmax that parts hypoperfused from other tissue where the rim is graded.
TMAX_LIMIT_S = 6.0
#: Mean radius of the territory's ellipsoid, which turns its distance field into mm.
TERRITORY_MM = 42.0
AIR, CSF, GREY, WHITE, BONE, SCALP = range(6)
_HU = np.array([-1000.0, 6.0, 37.0, 29.0, 900.0, 20.0], np.float32)
_S0 = np.array([0.0, 900.0, 500.0, 430.0, 15.0, 120.0], np.float32)
_CBF = np.array([0.0, 0.0, 60.0, 25.0, 1.0, 3.0], np.float32)
_MTT = np.array([5.0, 5.0, 4.0, 4.8, 6.0, 6.0], np.float32)
_FINE_STEP_S = 0.05


@dataclass(frozen=True)
class HeadCase:
    """What one simulated head is.

    Attributes
    ----------
    name, family, side
        ``side`` is ``left`` or ``right`` (the patient's), or ``none`` for a case without lesion.
    core_ml, hypoperfused_ml
        Volumes aimed at; the truth masks hold the exact ones.
    modality
        ``ctp`` or ``dsc``.
    noise
        SD per voxel and frame in HU (``ctp``); S0 / SD in grey matter is ``100 / noise * 5``
        for ``dsc``.
    interval_s, duration_s
        Sampling; a short duration truncates the bolus.
    bolus_arrival_s, artery_peak_hu
        Of the arterial input.
    motion_mm, motion_degrees, motion_from_s
        A nod: the head is displaced by this from that time on.
    shuttle_s
        The upper half of the slices is acquired this long after the lower: the table shuttles.
    artery_shape, artery_scale_s, second_pass
        Gamma variate of the first pass (:func:`gamma_bolus`), and peak of the second pass as a
        share of it.
    vein_lag_s, vein_spread_s
        The vein is the artery this much later, dispersed by an exponential of this time.
    artery_fill
        Share of an arterial voxel that blood fills (partial volume), times that of its tube.
    rim_mm
        0: between penumbra and normal tissue lies an oligaemic rim of one severity, a step on
        either side. Above 0: severity falls from penumbra to normal over this distance, and
        hypoperfused is where the true Tmax (delay + MTT / 2) is above 6 s.
    shape, voxel_mm
        Grid.
    seed
        Of anatomy and noise.
    """

    name: str
    family: str = "linear"
    side: str = "left"
    core_ml: float = 18.0
    hypoperfused_ml: float = 110.0
    modality: str = "ctp"
    noise: float = 5.0
    interval_s: float = 1.5
    duration_s: float = 60.0
    bolus_arrival_s: float = 8.0
    artery_peak_hu: float = 320.0
    motion_mm: float = 0.0
    motion_degrees: float = 0.0
    motion_from_s: float = 22.0
    shuttle_s: float = 0.0
    artery_shape: float = 3.6
    artery_scale_s: float = 1.7
    second_pass: float = 0.12
    vein_lag_s: float = 2.0
    vein_spread_s: float = 3.0
    artery_fill: float = 1.0
    rim_mm: float = 0.0
    shape: tuple[int, int, int] = (160, 192, 16)
    voxel_mm: tuple[float, float, float] = (1.2, 1.2, 5.0)
    seed: int = 0


@dataclass(frozen=True)
class HeadPhantom:
    """A simulated series and its truth, all on one grid (RAS).

    Attributes
    ----------
    signal
        (x, y, z, t) float32, HU or MR signal.
    core, hypoperfused, tissue
        Truth masks: core; core and penumbra; grey and white matter.
    cbf_ml_100g_min, cbv_ml_100g, mtt_s, delay_s
        Truth maps, 0 outside tissue.
    arteries, veins
        Blood fraction of arteries and veins per voxel.
    aif, vof
        True curves in HU (CT) or 1/s (MR).
    """

    case: HeadCase
    signal: np.ndarray
    affine: np.ndarray
    times_s: np.ndarray
    aif: np.ndarray
    vof: np.ndarray
    core: np.ndarray
    hypoperfused: np.ndarray
    tissue: np.ndarray
    cbf_ml_100g_min: np.ndarray
    cbv_ml_100g: np.ndarray
    mtt_s: np.ndarray
    delay_s: np.ndarray
    arteries: np.ndarray
    veins: np.ndarray

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


def cohort(**changes: Any) -> tuple[HeadCase, ...]:
    """The 24 cases: three residue families x four sizes x two sides, four without lesion.

    Parameters
    ----------
    **changes
        Fields of :class:`HeadCase` to set in every case (noise, modality, motion_mm ...).

    Examples
    --------
    >>> cases = cohort(noise=4.0)
    >>> len(cases), sum(case.side == "none" for case in cases), cases[5].name
    (24, 4, 'case06')
    """
    cases = []
    for number in range(24):
        core, whole = SIZES_ML[(number // 2) % 4]
        case = HeadCase(
            name=f"case{number + 1:02d}",
            family=FAMILIES[number // 8],
            side="none" if number in WITHOUT_LESION else ("left", "right")[number % 2],
            core_ml=core,
            hypoperfused_ml=whole,
            # Timing and strength of the bolus vary as in patients.
            bolus_arrival_s=6.0 + (number * 5 % 7),
            artery_peak_hu=220.0 + 30.0 * (number * 3 % 8),
            seed=100 + number,
        )
        cases.append(replace(case, **changes))
    return tuple(cases)


def clinical_cases(
    seed: int, count: int, families: Sequence[str], **changes: Any
) -> tuple[HeadCase, ...]:
    """Heads whose arterial input has a shape as seen in patients, with a graded rim.

    Ranges of 93 real CT perfusion scans: peak of the scaled artery 45 to 350 HU, width 8 to 28 s,
    time to peak 8 to 28 s, 43 to 64 s of scanning (tails unfinished), arteries that fill 35 to
    100 % of a voxel. Low, broad and late boluses are among them.

    Parameters
    ----------
    seed, count
        Of the draw; cases with other seeds are independent.
    families
        Residue functions, taken in turn.
    **changes
        Fields of :class:`HeadCase` to set in every case.

    Examples
    --------
    >>> a, b = clinical_cases(1, 2, ["exponential"])
    >>> 45 <= a.artery_peak_hu <= 350, a.artery_shape != b.artery_shape
    (True, True)
    """
    rng = generator(seed, "clinical-cases")
    cases = []
    for number in range(count):
        shape, scale_s, arrival_s = _clinical_bolus(rng)
        core, whole = SIZES_ML[int(rng.integers(4))]
        case = HeadCase(
            name=f"clinical{seed}_{number + 1:02d}",
            family=families[number % len(families)],
            side=("left", "right")[int(rng.integers(2))],
            core_ml=core,
            hypoperfused_ml=whole,
            noise=float(rng.uniform(3.0, 8.0)),
            duration_s=float(rng.integers(43, 65)),
            bolus_arrival_s=arrival_s,
            artery_peak_hu=float(np.clip(np.exp(rng.normal(np.log(160.0), 0.5)), 45.0, 350.0)),
            artery_shape=shape,
            artery_scale_s=scale_s,
            second_pass=float(rng.uniform(0.10, 0.30)),
            vein_lag_s=float(rng.uniform(1.0, 4.0)),
            vein_spread_s=float(rng.uniform(2.0, 5.0)),
            artery_fill=float(rng.uniform(0.35, 1.0)),
            rim_mm=float(rng.uniform(8.0, 20.0)),
            seed=int(rng.integers(2**31)),
        )
        cases.append(replace(case, **changes))
    return tuple(cases)


def _clinical_bolus(rng: Any) -> tuple[float, float, float]:
    """Shape, scale (s) and arrival (s) of a gamma-variate bolus within the clinical ranges."""
    while True:
        width_s = float(np.exp(rng.normal(np.log(11.5), 0.28)))
        shape = float(np.exp(rng.normal(np.log(4.3), 0.45)))
        arrival_s = float(rng.uniform(3.0, 12.0))
        # The full width at half maximum of a gamma variate is near that of a normal curve.
        scale_s = width_s / (2.355 * np.sqrt(shape))
        if 8.0 <= width_s <= 28.0 and 8.0 <= arrival_s + shape * scale_s <= 28.0:
            return shape, scale_s, arrival_s


def simulate_head(case: HeadCase) -> HeadPhantom:
    """Simulate one head.

    Examples
    --------
    >>> small = HeadCase("tiny", shape=(40, 48, 4), voxel_mm=(4.8, 4.8, 20.0), interval_s=3.0)
    >>> head = simulate_head(small)
    >>> head.signal.shape, bool((head.core <= head.hypoperfused).all())
    ((40, 48, 4, 20), True)
    """
    x, y, z = _coordinates(case)
    rng = generator(case.seed, "head-cohort")
    labels = _anatomy(case, x, y, z, rng)
    tissue = (labels == GREY) | (labels == WHITE)
    core, hypoperfused, oligaemia, severity = _lesion(case, x, y, z, tissue, rng)
    cbf, mtt, delay = _kinetics(case, labels, core, hypoperfused, oligaemia, severity, rng)
    if case.rim_mm:
        hypoperfused = tissue & (delay + 0.5 * mtt > TMAX_LIMIT_S)
        core = core & hypoperfused
    arteries, veins = _vessels(case, x, y, z)
    arteries = arteries * (labels != BONE) * np.float32(case.artery_fill)
    veins = veins * (labels != BONE)
    times = np.arange(0.0, case.duration_s - 1e-9, case.interval_s)
    fine = np.arange(0.0, case.duration_s + case.shuttle_s + _FINE_STEP_S, _FINE_STEP_S)
    artery, vein = _boluses(case, fine)
    aif, vof = np.interp(times, fine, artery), np.interp(times, fine, vein)
    blood = np.clip(arteries + veins, 0.0, 1.0)
    signal = np.empty((*case.shape, len(times)), np.float32)
    offsets = slice_times_s(case)
    for late in np.unique(offsets):
        part = np.s_[:, :, offsets == late]
        seen = times + late
        curves = _enhancement(case, seen, fine, artery, cbf[part], mtt[part], delay[part])
        curves *= (1.0 - blood[part])[..., None]
        for vessel, curve in ((arteries, artery), (veins, vein)):
            curves += vessel[part][..., None] * np.interp(seen, fine, curve).astype(np.float32)
        signal[part] = curves
    signal = _scanned(case, signal, labels, blood, times, rng)
    brain = tissue.astype(np.float32)
    affine = np.diag([*case.voxel_mm, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * v for n, v in zip(case.shape, case.voxel_mm, strict=True)]
    scale = 1.0 if case.modality == "ctp" else _RELAXATION_PER_HU
    return HeadPhantom(
        case, signal, affine, times, aif * scale, vof * scale, core, hypoperfused, tissue,
        cbf * brain, cbf * mtt / 60.0 * brain, mtt * brain, delay * brain, arteries, veins,
    )  # fmt: skip


#: dR2* (1/s) per HU of the same bolus: grey matter then peaks near 7 /s.
_RELAXATION_PER_HU = 0.55


def slice_times_s(case: HeadCase) -> np.ndarray:
    """Seconds from the start of a frame to each slice, (z,).

    Examples
    --------
    >>> slice_times_s(HeadCase("x", shape=(8, 8, 4), shuttle_s=1.5)).tolist()
    [0.0, 0.0, 1.5, 1.5]
    """
    upper = np.arange(case.shape[2]) >= case.shape[2] // 2
    return np.where(upper, case.shuttle_s, 0.0)


def _coordinates(case: HeadCase) -> list[np.ndarray]:
    axes = [
        (np.arange(n, dtype=np.float32) - (n - 1) / 2) * v
        for n, v in zip(case.shape, case.voxel_mm, strict=True)
    ]
    return list(np.meshgrid(*axes, indexing="ij", sparse=True))


def _smooth_noise(shape: tuple[int, ...], sigma: Sequence[float], rng: Any) -> np.ndarray:
    """Smooth noise with mean 0 and SD 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray((field - field.mean()) / field.std())


def _radius(x: Any, y: Any, z: Any, semi_axes_mm: Sequence[float]) -> np.ndarray:
    a, b, c = semi_axes_mm
    return np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)


def _anatomy(case: HeadCase, x: Any, y: Any, z: Any, rng: Any) -> np.ndarray:
    size = 1.0 + 0.04 * rng.uniform(-1, 1)
    scalp = _radius(x, y, z, (82 * size, 100 * size, 84 * size))
    bone = _radius(x, y, z, (76 * size, 94 * size, 78 * size))
    inside = _radius(x, y, z, (70 * size, 88 * size, 72 * size))
    folds = 0.018 * np.sin(x / 4.1 + 2 * np.sin(z / 13)) * np.sin(y / 4.7 + np.cos(z / 11))
    ribbon = inside + folds + 0.006 * _smooth_noise(case.shape, (3, 3, 1), rng)
    labels = np.full(case.shape, AIR, np.uint8)
    labels[scalp <= 1] = SCALP
    labels[bone <= 1] = BONE
    labels[inside <= 1] = CSF
    labels[ribbon <= 0.965] = GREY
    gyri = 0.055 * np.sin(x / 5.3 + np.cos(z / 15)) * np.sin(y / 6.1 + np.sin(z / 12))
    labels[ribbon + gyri <= 0.66] = WHITE
    # Sulci reach into the ribbon; the fissure parts the hemispheres.
    labels[(folds > 0.0155) & (ribbon > 0.90) & (inside <= 1)] = CSF
    labels[(np.abs(x) < 1.3) & (inside <= 1) & ((y > 25) | (y < -45) | (z > 30))] = CSF
    for side in (-1, 1):
        nuclei = _radius(x - side * 24, y - 6, z - 2, (8, 20, 14))
        thalamus = _radius(x - side * 11, y + 12, z - 4, (8, 13, 11))
        labels[(nuclei <= 1) | (thalamus <= 1)] = GREY
        horn = _radius(x - side * (9 + 0.06 * np.abs(y)), y, z - 14, (5.5, 34, 11))
        labels[horn <= 1] = CSF
    return labels


def _lesion(
    case: HeadCase, x: Any, y: Any, z: Any, tissue: np.ndarray, rng: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nested core, core and penumbra, and oligaemic rim, in the territory of one MCA.

    Fourth: severity, 1 in the penumbra and 0 in normal tissue, which differs from a step where the
    case has a graded rim.
    """
    if case.side == "none":
        empty = np.zeros(case.shape, bool)
        return empty, empty.copy(), empty.copy(), np.zeros(case.shape, np.float32)
    sign = -1.0 if case.side == "left" else 1.0
    distance = _radius(x - sign * 44, y + 4, z - 6, (34, 52, 42))
    distance = distance + 0.07 * _smooth_noise(case.shape, (7, 7, 2), rng)
    allowed = tissue & (sign * x > 4)
    voxel_ml = float(np.prod(case.voxel_mm)) / 1000.0
    inner = _radius(x - sign * 36, y - 2, z - 4, (30, 44, 38))
    inner = inner + 0.08 * _smooth_noise(case.shape, (6, 6, 2), rng)
    hypoperfused = _nearest(distance, allowed, case.hypoperfused_ml / voxel_ml)
    core = _nearest(inner, hypoperfused, case.core_ml / voxel_ml)
    if case.rim_mm:
        border = float(distance[hypoperfused].max())
        severity = 0.5 + (border - distance) * TERRITORY_MM / case.rim_mm
        severity = np.where(allowed, np.clip(severity, 0.0, 1.0), 0.0).astype(np.float32)
        return core, severity >= 1.0, np.zeros(case.shape, bool), severity
    oligaemia = _nearest(distance, allowed, 1.25 * case.hypoperfused_ml / voxel_ml)
    return core, hypoperfused, oligaemia & ~hypoperfused, hypoperfused.astype(np.float32)


def _nearest(distance: np.ndarray, allowed: np.ndarray, count: float) -> np.ndarray:
    values = np.sort(distance[allowed])
    limit = values[min(round(count), len(values)) - 1]
    return np.asarray(allowed & (distance <= limit))


def _kinetics(
    case: HeadCase,
    labels: np.ndarray,
    core: np.ndarray,
    hypoperfused: np.ndarray,
    oligaemia: np.ndarray,
    severity: np.ndarray,
    rng: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CBF, MTT and delay of every voxel."""
    cbf, mtt = _CBF[labels].copy(), _MTT[labels].copy()
    delay = 0.6 + 0.3 * _smooth_noise(case.shape, (8, 8, 2), rng)
    penumbra = hypoperfused & ~core
    white = labels == WHITE
    if case.rim_mm:
        graded = severity * ~core * (severity < 1.0)
        cbf *= 1.0 - graded * np.where(white, 0.15, 0.50)
        mtt *= 1.0 + graded
        delay += graded * (5.4 - 0.5 * delay)
    for region, flow, flow_white, transit, late in (
        (oligaemia, 0.80, 0.95, 1.3, 1.7),
        (penumbra, 0.50, 0.85, 2.0, 5.4),
        (core, 0.15, 0.20, 2.4, 7.2),
    ):
        cbf[region] *= np.where(white, flow_white, flow)[region]
        mtt[region] *= transit
        delay[region] = late + 0.5 * delay[region]
    cbf *= np.exp(0.08 * _smooth_noise(case.shape, (4, 4, 1.5), rng))
    mtt *= np.exp(0.06 * _smooth_noise(case.shape, (4, 4, 1.5), rng))
    return cbf, mtt, np.maximum(delay, 0.0).astype(np.float32)


def _tube(x: Any, y: Any, z: Any, course: Sequence[Sequence[float]], radius: float) -> Any:
    """Blood fraction of a tube along a polyline, with a soft edge of a voxel."""
    nearest: Any = np.float32(1e6)
    for start, end in pairwise(course):
        a, d = np.array(start, float), np.array(end, float) - np.array(start, float)
        along = ((x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2]) / (d @ d)
        along = np.clip(along, 0.0, 1.0)
        gap = (x - a[0] - along * d[0]) ** 2 + (y - a[1] - along * d[1]) ** 2
        # A slice is thick: blood that is off its centre still fills part of it.
        gap = gap + np.maximum(np.abs(z - a[2] - along * d[2]) - 1.0, 0.0) ** 2
        nearest = np.minimum(nearest, np.sqrt(gap))
    return np.clip((radius + 0.6 - nearest) / 1.2, 0.0, 1.0).astype(np.float32)


def _vessels(case: HeadCase, x: Any, y: Any, z: Any) -> tuple[np.ndarray, np.ndarray]:
    arteries = np.zeros(case.shape, np.float32)
    for name, sign in (("left", -1), ("right", 1)):
        stem = [(sign * 10, 8, -40), (sign * 12, 10, -20), (sign * 40, 8, -18)]
        branch = [(sign * 40, 8, -18), (sign * 48, 0, 0), (sign * 54, -12, 22)]
        front = [(sign * 12, 10, -20), (sign * 3, 34, -10), (sign * 2.5, 52, 10)]
        front += [(sign * 2.5, 40, 34)]
        arteries = np.maximum(arteries, 0.85 * _tube(x, y, z, front, 1.3))
        arteries = np.maximum(arteries, _tube(x, y, z, stem[:2], 2.2))
        if name != case.side:
            # The stem lies within a slice and fills part of its thickness.
            arteries = np.maximum(arteries, 0.75 * _tube(x, y, z, stem[1:], 1.7))
            arteries = np.maximum(arteries, 0.9 * _tube(x, y, z, branch, 1.3))
    sinus = [(0, -84, -40), (0, -85.5, -10), (0, -82, 15), (0, -72, 40), (0, -60, 60)]
    veins = _tube(x, y, z, sinus, 4.0)
    straight = _tube(x, y, z, [(0, -30, 8), (0, -62, 0), (0, -84, -8)], 1.6)
    return arteries, np.maximum(veins, 0.8 * straight)


def _boluses(case: HeadCase, fine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arterial and venous enhancement in HU; the vein is the artery, late and dispersed."""
    start = case.bolus_arrival_s
    peak = case.artery_peak_hu
    artery = gamma_bolus(
        fine, arrival_s=start, shape=case.artery_shape, scale_s=case.artery_scale_s, peak=peak
    )
    broad = case.artery_scale_s / 1.7
    artery += gamma_bolus(
        fine, arrival_s=start + 10 * broad, shape=3.0, scale_s=5.0 * broad,
        peak=case.second_pass * peak,
    )  # fmt: skip
    spread = np.exp(-fine / case.vein_spread_s)
    vein = fftconvolve(artery, spread / spread.sum())[: len(fine)]
    return artery, np.interp(fine - case.vein_lag_s, fine, vein, left=0.0)


def transit_residue(family: str, times_s: np.ndarray, mtt_s: float) -> np.ndarray:
    """Residue function of :func:`_residue_function`, or of a family outside the engine's grid.

    ``lognormal<cv>`` and ``weibull<shape>`` are the distributions of the transit times.

    Examples
    --------
    >>> t = np.arange(0, 400, 0.01)
    >>> [round(float(transit_residue(f, t, 4.0).sum() * 0.01), 1)
    ...  for f in ("lognormal0.7", "weibull1.5", "gamma3")]
    [4.0, 4.0, 4.0]
    """
    from scipy import special, stats

    if family.startswith("lognormal"):
        variance = np.log1p(float(family.removeprefix("lognormal")) ** 2)
        score = (np.log(np.maximum(times_s, 1e-9) / mtt_s) + variance / 2) / np.sqrt(variance)
        return np.asarray(stats.norm.sf(score))
    if family.startswith("weibull"):
        shape = float(family.removeprefix("weibull"))
        scale_s = mtt_s / special.gamma(1.0 + 1.0 / shape)
        return np.asarray(np.exp(-((times_s / scale_s) ** shape)))
    return _residue_function(family, times_s, mtt_s)


def _enhancement(
    case: HeadCase,
    times: np.ndarray,
    fine: np.ndarray,
    artery: np.ndarray,
    cbf: np.ndarray,
    mtt: np.ndarray,
    delay: np.ndarray,
) -> np.ndarray:
    """Tissue enhancement in HU by looking curves up on a fine grid of MTT and delay."""
    grid_mtt = np.geomspace(2.0, 16.0, 60)
    step = 0.1
    i_mtt = np.rint(np.interp(np.log(mtt), np.log(grid_mtt), np.arange(60))).astype(int)
    i_delay = np.rint(delay / step).astype(int)
    delays = step * np.arange(i_delay.max() + 1)
    table = np.empty((60, len(delays), len(times)), np.float32)
    for k, transit in enumerate(grid_mtt):
        residue = transit_residue(case.family, fine, transit)
        curve = fftconvolve(artery, residue)[: len(fine)] * _FINE_STEP_S
        for j, late in enumerate(delays):
            table[k, j] = np.interp(times - late, fine, curve, left=0.0)
    curves = table[i_mtt, i_delay]
    curves *= (cbf / np.float32(6000.0 * TISSUE_FACTOR))[..., None]
    return curves


def _scanned(
    case: HeadCase,
    enhancement: np.ndarray,
    labels: np.ndarray,
    blood: np.ndarray,
    times: np.ndarray,
    rng: Any,
) -> np.ndarray:
    """Signal of the scanner: background, motion, noise."""
    if case.modality == "ctp":
        base = _HU[labels] * (1 - blood) + 45.0 * blood
        signal = enhancement
        signal += base[..., None]
    else:
        base = _S0[labels] * (1 - blood) + 350.0 * blood
        signal = base[..., None] * np.exp(-0.03 * _RELAXATION_PER_HU * enhancement)
    for frame in np.flatnonzero(times >= case.motion_from_s):
        if case.motion_mm or case.motion_degrees:
            signal[..., frame] = _moved(case, signal[..., frame])
    for frame in range(len(times)):
        noise = rng.standard_normal(case.shape, dtype=np.float32)
        if case.modality == "ctp":
            noise = ndimage.gaussian_filter(noise, (0.5, 0.5, 0))
            signal[..., frame] += case.noise / noise.std() * noise
        else:
            sd = 500.0 * case.noise / 500.0
            other = rng.standard_normal(case.shape, dtype=np.float32)
            signal[..., frame] = np.hypot(signal[..., frame] + sd * noise, sd * other)
    return signal.astype(np.float32, copy=False)


def _moved(case: HeadCase, frame: np.ndarray) -> np.ndarray:
    """A nod about the left-right axis and a shift along the body and to the front."""
    angle = np.deg2rad(case.motion_degrees)
    rotation = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    voxel = np.diag(case.voxel_mm)
    matrix = np.linalg.inv(voxel) @ rotation @ voxel
    centre = (np.array(case.shape) - 1) / 2.0
    shift = np.array([0.0, 0.8, 0.6]) * case.motion_mm / np.array(case.voxel_mm)
    offset = centre - matrix @ centre - shift
    return np.asarray(ndimage.affine_transform(frame, matrix, offset, order=1, mode="nearest"))


def write_head(head: HeadPhantom, folder: Path) -> list[Path]:
    """Write a series and its truth (masks, maps, curves) with sidecars.

    Returns
    -------
    list of Path
        ``<name>_<modality>.nii.gz``, truth masks and maps ``<name>_truth-*.nii.gz`` and
        ``<name>_truth-curves.tsv``.
    """
    import pandas as pd

    from corelab.imaging import save_image
    from corelab.provenance.products import write_table

    folder, case = Path(folder), head.case
    series = nib.Nifti1Image(head.signal, head.affine)
    series.header.set_zooms((*case.voxel_mm, case.interval_s))
    series.header.set_xyzt_units("mm", "sec")
    parameters = {field: getattr(case, field) for field in case.__dataclass_fields__}
    sidecar: dict[str, Any] = {"FrameTimes": head.times_s, "parameters": parameters}
    if case.modality == "dsc":
        sidecar["EchoTime"] = 0.03
    if case.shuttle_s:
        sidecar["SliceTiming"] = slice_times_s(case).tolist()
    written = [save_image(series, folder / f"{case.name}_{case.modality}.nii.gz", sidecar=sidecar)]
    masks = ("core", "hypoperfused", "tissue")
    for name in (*masks, "cbf_ml_100g_min", "cbv_ml_100g", "mtt_s", "delay_s", "arteries", "veins"):
        values = getattr(head, name)
        image = nib.Nifti1Image(
            values.astype(np.uint8 if name in masks else np.float32), head.affine
        )
        volume = float(values.sum() * head.voxel_ml) if name in masks else None
        path = folder / f"{case.name}_truth-{name.split('_')[0]}.nii.gz"
        written.append(save_image(image, path, sidecar={"volume_ml": volume}))
    curves = pd.DataFrame({"time_s": head.times_s, "aif": head.aif, "vof": head.vof})
    described = {"time_s": "Time", "aif": "True arterial curve", "vof": "True venous curve"}
    written.append(write_table(curves, folder / f"{case.name}_truth-curves.tsv", described))
    return written
