"""Automatic arterial input and venous output.

Vessels stand out by their peak; arteries among them by being early and narrow, veins by being
late and large (Mouridsen 2006, Magn Reson Med 55:524; Peruzzo 2011, Comput Methods Programs
Biomed 104:e148). The artery fills its voxels only in part, the large vein wholly, and the area
under both curves is the same where no blood is lost: their ratio is the partial-volume scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from corelab.perfusion.concentration import Baseline, PerfusionError
from corelab.perfusion.parallel import over_frames
from corelab.perfusion.tissue import Plane, bounding_box

#: Voxels that make up the arterial and the venous curve.
ARTERY_VOXELS = 6
VEIN_VOXELS = 10
#: The scale by the venous output is believed within these limits.
SCALE_LIMITS = (1.0, 12.0)
#: Arteries rise within this time of the earliest vessels.
ARTERIAL_WINDOW_S = 1.8
#: A vein rises at least this long after the artery.
VENOUS_LAG_S = 1.0
#: Correlation of a venous curve with the artery, dispersed and delayed.
LEAST_VENOUS_LIKENESS = 0.85


@dataclass(frozen=True)
class Vessel:
    """A vessel's curve and where it was read.

    Attributes
    ----------
    curve
        (t,) mean concentration of its voxels.
    voxels
        (n, 3) indices.
    peak, time_to_peak_s, width_s, arrival_s, centroid_s, area
        Of the curve: height, its time from the first frame, full width at half maximum, time of
        half maximum on the way up, centroid of the first pass, and area.
    """

    curve: np.ndarray
    voxels: np.ndarray
    peak: float
    time_to_peak_s: float
    width_s: float
    arrival_s: float
    centroid_s: float
    area: float


@dataclass(frozen=True)
class ArterialInput:
    """Arterial input with its partial-volume scale.

    Attributes
    ----------
    artery, vein
        As measured; ``vein`` is None where none was found or needed.
    scale
        Factor of the partial volume, 1 where there is no vein.
    raw_scale
        The ratio of areas before it was clipped.
    supplied
        Whether the curve was given and not found.
    """

    artery: Vessel
    vein: Vessel | None
    scale: float
    raw_scale: float
    supplied: bool = False

    @property
    def curve(self) -> np.ndarray:
        """The arterial curve that deconvolution uses."""
        return np.asarray(self.artery.curve * self.scale)


def _half_rise_s(curves: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Time at which each curve first reaches half of its peak, interpolated."""
    curves = np.atleast_2d(curves)
    peak = curves.argmax(axis=1)
    half = 0.5 * curves.max(axis=1)
    rising = np.arange(curves.shape[1])[None, :] <= peak[:, None]
    # The last frame below half before the peak: noise in the baseline does not count.
    below = (curves < half[:, None]) & rising
    last = np.where(below.any(axis=1), curves.shape[1] - 1 - below[:, ::-1].argmax(axis=1), 0)
    after = np.minimum(last + 1, curves.shape[1] - 1)
    rows = np.arange(len(curves))
    low, high = curves[rows, last], curves[rows, after]
    share = np.clip((half - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
    return np.asarray(times_s[last] + share * (times_s[after] - times_s[last]))


def width_s(curve: np.ndarray, times_s: np.ndarray) -> float:
    """Full width at half maximum; NaN where the curve does not fall to half.

    Examples
    --------
    >>> width_s(np.array([0, 5, 10, 5, 0.0]), np.arange(5.0))
    2.0
    """
    peak = int(curve.argmax())
    half = 0.5 * curve[peak]
    start = float(_half_rise_s(curve, times_s)[0])
    falling = np.flatnonzero(curve[peak:] <= half)
    if not falling.size:
        return float("nan")
    k = peak + int(falling[0])
    share = (curve[k - 1] - half) / (curve[k - 1] - curve[k])
    return float(times_s[k - 1] + share * (times_s[k] - times_s[k - 1]) - start)


def describe(curve: np.ndarray, times_s: np.ndarray, voxels: np.ndarray) -> Vessel:
    """Measure a vessel's curve."""
    peak = int(np.argmax(curve))
    first_pass = np.clip(curve, 0.0, None) * (curve >= 0.1 * curve[peak])
    # The second pass begins where the curve has fallen and rises again: stop at its first low.
    tail = np.flatnonzero(curve[peak:] < 0.25 * curve[peak])
    if tail.size:
        first_pass[peak + int(tail[0]) :] = 0.0
    return Vessel(
        curve=np.asarray(curve, float),
        voxels=np.asarray(voxels, int).reshape(-1, 3),
        peak=float(curve[peak]),
        time_to_peak_s=float(times_s[peak] - times_s[0]),
        width_s=width_s(curve, times_s),
        arrival_s=float(_half_rise_s(curve, times_s)[0]),
        centroid_s=float((first_pass * times_s).sum() / first_pass.sum()),
        area=float(np.trapezoid(curve, times_s)),
    )


def _candidates(
    concentration: np.ndarray, search: np.ndarray, baseline: Baseline
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and curves of voxels that look like vessels."""
    index = np.argwhere(search)
    steady = concentration[search].astype(np.float32)
    # Light temporal smoothing, for finding only.
    steady[:, 1:-1] = 0.25 * steady[:, :-2] + 0.5 * steady[:, 1:-1] + 0.25 * steady[:, 2:]
    peak = steady.max(axis=1)
    typical = float(np.median(peak))
    noise = float(np.median(np.abs(steady[:, baseline.start : baseline.stop]))) * 1.4826
    limit = max(3.0 * typical, 8.0 * noise, 0.2 * float(np.percentile(peak, 99.95)))
    bright = peak > limit
    # A peak in the first or last frames, or a curve that does not come back, is no bolus.
    at = steady.argmax(axis=1)
    frames = steady.shape[1]
    passing = (at > baseline.arrival) & (at < frames - 2)
    tail = steady[:, -3:].mean(axis=1)
    keep = bright & passing & (tail < 0.6 * peak)
    return index[keep], steady[keep].astype(np.float64)


def _find_artery(
    concentration: np.ndarray,
    times_s: np.ndarray,
    search: np.ndarray,
    baseline: Baseline,
) -> tuple[Vessel, np.ndarray, np.ndarray]:
    """Arterial curve of the voxels that are bright, early, narrow and alike.

    ``concentration`` is (x, y, z, t), lightly smoothed at most: smoothing dilutes small arteries.
    ``search`` is the brain and its surroundings, no bone. Gives the artery, and indices and curves
    of all voxels that look like vessels; PerfusionError if none looks like a bolus in a vessel.
    """
    index, curves = _candidates(concentration, search, baseline)
    if len(index) < 3:
        raise PerfusionError(
            f"{len(index)} voxels show a bolus like a vessel's, at least 3 are needed for an "
            "arterial input: check that the series holds the bolus, or supply the arterial "
            "curve as a scan of kind 'aif'"
        )
    arrival = _half_rise_s(curves, times_s)
    peak = curves.max(axis=1)
    # The earliest vessels; a percentile, so that a few odd voxels do not set the clock.
    first = float(np.percentile(arrival, 5))
    early = arrival <= first + ARTERIAL_WINDOW_S
    widths = np.array([width_s(curve, times_s) for curve in curves])
    rough = (np.diff(curves, n=2, axis=1) ** 2).sum(axis=1) / peak**2
    usable = early & np.isfinite(widths) & (arrival >= first - ARTERIAL_WINDOW_S)
    if usable.sum() < 3:
        usable = early
        widths = np.where(np.isfinite(widths), widths, np.nanmax(widths, initial=30.0))
    usable &= rough <= np.percentile(rough[usable], 90)
    score = np.where(usable, peak / (np.maximum(widths, 1.0) * (arrival - times_s[0] + 1.0)), 0.0)
    best = int(score.argmax())
    likeness = _correlation(curves, curves[best])
    chosen = np.argsort(-np.where(likeness > 0.96, score, 0.0), kind="stable")[:ARTERY_VOXELS]
    chosen = chosen[(score[chosen] > 0.3 * score[best]) & (likeness[chosen] > 0.96)]
    voxels = index[chosen]
    curve = concentration[tuple(voxels.T)].astype(float).mean(axis=0)
    return describe(curve, times_s, voxels), index, curves


def _correlation(curves: np.ndarray, one: np.ndarray) -> np.ndarray:
    centred = curves - curves.mean(axis=1, keepdims=True)
    other = one - one.mean()
    norm = np.linalg.norm(centred, axis=1) * np.linalg.norm(other)
    return np.asarray(centred @ other / np.maximum(norm, 1e-12))


def _find_vein(
    concentration: np.ndarray,
    times_s: np.ndarray,
    artery: Vessel,
    index: np.ndarray,
    curves: np.ndarray,
    affine: np.ndarray,
    plane: Plane | None,
) -> Vessel | None:
    """Venous curve: late, the largest area, behind and near the midline where there is one."""
    arrival = _half_rise_s(curves, times_s)
    area = curves.sum(axis=1)
    late = arrival >= artery.arrival_s + VENOUS_LAG_S
    late &= _venous_shape(curves, times_s, artery, arrival) > LEAST_VENOUS_LIKENESS
    if plane is not None and late.any():
        world = index @ affine[:3, :3].T + affine[:3, 3]
        distance = world @ np.asarray(plane.normal) - plane.offset_mm
        behind = world[:, 1] < np.median(world[:, 1])
        midline = late & (np.abs(distance) < 15.0) & behind
        if midline.sum() >= 3 and area[midline].max() >= 0.6 * area[late].max():
            late = midline
    if late.sum() < 3:
        return None
    order = np.argsort(-np.where(late, area, -np.inf), kind="stable")[:VEIN_VOXELS]
    order = order[late[order]]
    order = order[area[order] >= 0.7 * area[order[0]]]
    voxels = index[order]
    curve = concentration[tuple(voxels.T)].astype(float).mean(axis=0)
    return describe(curve, times_s, voxels)


def _venous_shape(
    curves: np.ndarray, times_s: np.ndarray, artery: Vessel, arrival_s: np.ndarray
) -> np.ndarray:
    """Correlation of each curve with the artery, dispersed by 3 s and moved to its arrival.

    At the edge of bone a moving head makes curves that are large and late, but no bolus.
    """
    fine = np.arange(times_s[0], times_s[-1] + 0.25, 0.25)
    spread = np.exp(-(fine - fine[0]) / 3.0)
    shape = np.convolve(np.interp(fine, times_s, artery.curve), spread / spread.sum())[: len(fine)]
    start = float(_half_rise_s(shape, fine)[0])
    moved = np.stack([np.interp(times_s - (a - start), fine, shape) for a in arrival_s])
    centred = curves - curves.mean(axis=1, keepdims=True)
    other = moved - moved.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((centred * other).sum(axis=1) / np.maximum(norm, 1e-12))


def partial_volume_scale(artery: Vessel, vein: Vessel | None) -> tuple[float, float]:
    """Scale of the artery by the vein, clipped to 1..12, and the unclipped ratio of areas.

    Examples
    --------
    >>> t = np.arange(40.0); curve = t**3 * np.exp(-t / 2)
    >>> artery = describe(curve, t, np.zeros((1, 3)))
    >>> scale, raw = partial_volume_scale(artery, describe(20 * curve, t, np.zeros((1, 3))))
    >>> scale, round(raw, 3)
    (12.0, 20.0)
    >>> partial_volume_scale(artery, None)
    (1.0, nan)
    """
    if vein is None or artery.area <= 0:
        return 1.0, float("nan")
    ratio = vein.area / artery.area
    return float(np.clip(ratio, *SCALE_LIMITS)), float(ratio)


def find_arterial_input(
    concentration: np.ndarray,
    times_s: np.ndarray,
    search: np.ndarray,
    baseline: Baseline,
    affine: np.ndarray,
    plane: Plane | None,
    *,
    threads: int | None = 1,
) -> ArterialInput:
    """Artery, vein and partial-volume scale of a series."""
    light = np.zeros_like(concentration)
    # Nothing but the search region is looked at, and the filter reaches two voxels.
    box = bounding_box(search, margin=2) if search.any() else ...

    def smooth(frame: int) -> None:
        plain = np.ascontiguousarray(concentration[..., frame][box])
        light[..., frame][box] = ndimage.gaussian_filter(plain, (0.5, 0.5, 0))

    over_frames(smooth, concentration.shape[3], threads)
    artery, index, curves = _find_artery(light, times_s, search, baseline)
    vein = _find_vein(light, times_s, artery, index, curves, affine, plane)
    scale, raw = partial_volume_scale(artery, vein)
    return ArterialInput(artery, vein, scale, raw)


def supplied_input(curve: np.ndarray, times_s: np.ndarray) -> ArterialInput:
    """An arterial input that was given: used as it is, not scaled."""
    if not np.isfinite(curve).all() or curve.max() <= 0:
        raise PerfusionError(
            "the supplied arterial curve has no positive finite peak: give the concentration "
            "(HU above baseline, or dR2* in 1/s) in columns time_s and value"
        )
    return replace(
        ArterialInput(describe(curve, times_s, np.zeros((0, 3))), None, 1.0, float("nan")),
        supplied=True,
    )
