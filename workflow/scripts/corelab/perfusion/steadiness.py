"""Frames and slices that a scanner or an export disturbed, and levels that drift.

A bolus changes the mean of a part of the brain smoothly. A frame, or one slice of it, that
departs from what its neighbours in time predict is odd: it is replaced by that prediction. Tissue
that does not enhance (fluid, fat, the soft tissue outside the skull) should keep its level; what
it gains or loses smoothly in time, every voxel does, and it is subtracted from CT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import ndimage

#: Departure of a frame that is odd, as a share of the rise of the brain's median: of the whole
#: brain, and of a quarter of a slice against the whole brain. Measured on undisturbed heads with
#: frames of 1 to 2 s: at most 0.11 and 0.25; 0.26 and 0.42 at 3 s.
ODD_BRAIN, ODD_PART = 0.22, 0.38
#: Departures are at least this many times their own noise.
ODD_NOISE = 7.0
#: The limits hold for gaps up to this (s) between the frames beside an odd one, and grow with it.
_GAP_S = 4.0
#: Scatter of the voxels of a slice in a frame, against the usual one of that slice, that is odd,
#: and the least excess as a share of the rise.
ODD_SCATTER, ODD_SCATTER_RISE = 2.0, 0.6
#: Voxels of a quarter of a slice, and of a reference, that suffice for a level.
_PART_VOXELS, _REFERENCE_VOXELS = 25, 40
#: At most this many voxels make up a level: more do not change a median.
_ENOUGH_VOXELS = 400
#: Rises (HU; -log of signal for DSC) below this are no bolus to compare with.
_LEAST_RISE = {"ctp": 1.0, "dsc": 0.02}
#: Drift that is corrected, as a share of the rise, of all slices and of one against the others.
CORRECTED_DRIFT, UNEVEN_DRIFT = 0.07, 0.10
#: Departure from a smooth drift, as a share of the rise, from which the level is followed frame by
#: frame; and the most that reference tissue may share of the brain's enhancement.
STEPPED_DRIFT, MOST_ENHANCEMENT = 0.10, 0.3
#: Drift and jumps beyond these, as shares of the rise, are not believed and not corrected.
LARGEST_DRIFT, LARGEST_JUMP = 1.0, 0.35
#: A slice drifts by itself only beyond this many times what noise makes of it (two SDs): a scan has
#: many slices, and one of twenty is beyond twice that by chance in every fifth scan.
UNLIKELY = 3.0
#: Slope (HU per mm) above which a voxel lies at a border.
STEEP_HU_MM = 7.0


# --- slices without values ---------------------------------------------------------------------


def empty_slices(series: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Slices (z,) of the brain that hold one value only: lost by the export.

    Examples
    --------
    >>> series = np.random.default_rng(0).normal(size=(4, 4, 3, 2)); series[:, :, 1] = 0
    >>> empty_slices(series, np.ones((4, 4, 3), bool)).tolist()
    [False, True, False]
    """
    flat = series.reshape(-1, *series.shape[2:])
    return np.asarray((np.ptp(flat, axis=0).max(axis=1) == 0) & brain.any(axis=(0, 1)))


# --- prediction from neighbours in time --------------------------------------------------------


def _weights(times_s: np.ndarray, good: np.ndarray, run: range) -> np.ndarray:
    """Weights (len(run), t) that predict a run of frames from the good frames around it."""
    return _kept_weights(times_s.tobytes(), good.tobytes(), run)


@lru_cache(maxsize=1024)
def _kept_weights(times: bytes, marked: bytes, run: range) -> np.ndarray:
    # Every part of every slice asks for the same ones.
    times_s, good = np.frombuffer(times), np.frombuffer(marked, bool)
    frames = np.flatnonzero(good)
    before, after = frames[frames < run.start], frames[frames >= run.stop]
    weights = np.zeros((len(run), len(times_s)))
    if not len(before) or not len(after):
        near = after[:3] if len(after) else before[:-4:-1]
        near = near[[0, -1]] if len(near) > 1 else near
        before, after = near[:1], near[1:]
    elif len(before) < 2 or len(after) < 2 or len(run) > 2:
        before, after = before[-1:], after[:1]
    else:
        before, after = before[-2:], after[:2]
    known = np.concatenate([before, after])
    at, t = times_s[list(run)], times_s[known]
    for k, frame in enumerate(known):
        others = np.delete(t, k)
        weights[:, frame] = np.prod((at[:, None] - others) / (t[k] - others), axis=1)
    return weights


def _runs_of(frames: np.ndarray) -> Iterator[range]:
    """Consecutive frames among marked ones (t,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], frames.astype(np.int8), [0]])))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield range(int(start), int(stop))


def replaced(series: np.ndarray, odd: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Series (x, y, z, t) with odd frames replaced by what the frames before and after predict.

    Up to two frames in a row by a cubic through two frames on either side, more by a line; at the
    ends by the line through the nearest and the third. ``odd`` are slices of frames (z, t), or
    whole frames (t,).

    Examples
    --------
    >>> series = np.array([0.0, 1, 99, 3, 4])[None, None, None]
    >>> replaced(series, np.array([0, 0, 1, 0, 0], bool), np.arange(5.0))[0, 0, 0].round(6).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    odd = np.broadcast_to(odd, series.shape[2:])
    if not odd.any():
        return series
    whole = np.asarray(odd.all(axis=0))
    result = series.copy()
    partly = np.asarray(odd.any(axis=0))
    good = ~whole if partly.all() else ~partly
    for run in _runs_of(whole):
        weights = _weights(times_s, good, run)
        result[..., run.start : run.stop] = _predicted(series, weights)
    for z in np.flatnonzero((odd & ~whole).any(axis=1)):
        for run in _runs_of(odd[z] & ~whole):
            weights = _weights(times_s, ~odd[z], run)
            result[:, :, z, run.start : run.stop] = _predicted(series[:, :, z], weights)
    return result


def _predicted(series: np.ndarray, weights: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(weights.any(axis=0))
    return series[..., used] @ weights[:, used].T.astype(series.dtype)


def _odd_frames(
    curve: np.ndarray, times_s: np.ndarray, limit: float, good: np.ndarray | None = None
) -> np.ndarray:
    """Frames (t,) of a level that depart from what the frames around them predict.

    The run of one or two frames that departs most is taken out first, and the rest is judged again
    without it. ``limit`` is the departure that is odd, where the frames beside are no more than 4 s
    apart; ``good`` (t,) are the frames to judge and to predict from.
    """
    good = np.ones(len(curve), bool) if good is None else good.copy()
    odd = np.zeros(len(curve), bool)
    curve = np.array(curve)
    for _ in range(len(curve) // 2):
        best, found, there = 0.0, None, np.zeros(0)
        for length in (1, 2):
            for start in range(len(curve) - length + 1):
                run = list(range(start, start + length))
                if not good[run].all():
                    continue
                near = good.copy()
                near[run] = False
                expected = _weights(times_s, near, range(start, start + length)) @ curve
                away = curve[run] - expected
                gap = times_s[min(run[-1] + 1, len(curve) - 1)] - times_s[max(start - 1, 0)]
                most = limit * max(1.0, gap / _GAP_S)
                if np.abs(away).min() <= most or np.ptp(np.sign(away)):
                    continue
                # What makes the whole curve smoothest is the odd one, not the frames beside it.
                without = curve.copy()
                without[run] = expected
                gain = _bends(curve, times_s) - _bends(without, times_s) - (length - 1) * most
                if gain > best:
                    best, found, there = gain, run, without
        if found is None:
            break
        odd[found], good[found], curve = True, False, there
    return odd


def _bends(curve: np.ndarray, times_s: np.ndarray) -> float:
    """Sum of the distances of every frame from the line between its neighbours."""
    share = (times_s[1:-1] - times_s[:-2]) / (times_s[2:] - times_s[:-2])
    return float(np.abs(curve[1:-1] - (1 - share) * curve[:-2] - share * curve[2:]).sum())


# --- levels ------------------------------------------------------------------------------------


def _thinned(voxels: np.ndarray) -> np.ndarray:
    return voxels[:: max(1, len(voxels) // _ENOUGH_VOXELS)]


def level(voxels: np.ndarray, modality: str) -> np.ndarray:
    """Median over voxels (n, t): HU, or -log of the signal, which rises with the tracer too."""
    middle = np.median(_thinned(voxels), axis=0).astype(np.float64)
    return middle if modality == "ctp" else -np.log(np.maximum(middle, 1e-3))


def brain_level(series: np.ndarray, brain: np.ndarray, modality: str) -> np.ndarray:
    """Change of the brain's level: the median over slices, so that one lost slice is not seen.

    Examples
    --------
    >>> series = np.zeros((3, 3, 3, 4)); series[..., 2] = 5; series[:, :, 0, 1] = 99
    >>> brain_level(series, np.ones((3, 3, 3), bool), "ctp").tolist()
    [0.0, 0.0, 5.0, 0.0]
    """
    slices = np.flatnonzero(brain.any(axis=(0, 1)))
    levels = np.array([level(series[:, :, z][brain[:, :, z]], modality) for z in slices])
    levels -= np.median(levels, axis=1, keepdims=True)
    counts = brain.sum(axis=(0, 1))[slices]
    return np.asarray(np.median(levels[counts >= 0.25 * counts.max()], axis=0))


def rise_of(curve: np.ndarray, modality: str) -> float:
    """Rise of a level over its lowest fifth, blind to up to two odd frames.

    Examples
    --------
    >>> rise_of(np.array([0, 0, 0, 0, 4, 8, 9, 8, 6, 4, 3, 2, 50.0]), "ctp")
    8.0
    """
    steady = ndimage.median_filter(curve, 3, mode="nearest")
    low = np.median(np.sort(steady)[: max(3, len(steady) // 5)])
    return max(float(np.sort(steady)[-2] - low), _LEAST_RISE[modality])


def _noise_of(curve: np.ndarray) -> float:
    """SD of the noise of a curve from its second differences, blind to a few large ones."""
    bends = np.diff(curve, n=2)
    return float(1.4826 * np.median(np.abs(bends)) / np.sqrt(6.0))


def _parts(brain: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Quarters of every slice: (slice, flat indices of its voxels in the slice)."""
    parts = []
    for z in range(brain.shape[2]):
        at = np.argwhere(brain[:, :, z])
        if len(at) < 4 * _PART_VOXELS:
            continue
        right, front = (at > np.median(at, axis=0)).T
        for quarter in (right & front, right & ~front, ~right & front, ~right & ~front):
            if quarter.sum() >= _PART_VOXELS:
                parts.append((z, _thinned(at[quarter])))
    return parts


def odd_levels(
    series: np.ndarray, times_s: np.ndarray, brain: np.ndarray, modality: str
) -> np.ndarray:
    """Slices of frames (z, t) whose brightness departs from the frames around them.

    ``series`` (x, y, z, t) is raw signal, finite. The first four frames of DSC may be brighter: no
    steady state yet.

    Examples
    --------
    >>> rng = np.random.default_rng(0); series = 30 + rng.normal(0, 2, (20, 20, 3, 30))
    >>> series += 9 * np.exp(-(((np.arange(30.0) - 12) / 5) ** 2))
    >>> series[:, :, 1, 7] = 0
    >>> np.argwhere(odd_levels(series, np.arange(30.0), np.ones((20, 20, 3), bool), "ctp"))
    array([[1, 7]])
    """
    middle = brain_level(series, brain, modality)
    rise = rise_of(middle, modality)
    judged = np.ones(len(times_s), bool)
    if modality == "dsc":
        judged[:4] = False
    whole = _odd_frames(
        middle, times_s, max(ODD_BRAIN * rise, ODD_NOISE * _noise_of(middle)), judged
    )
    odd = np.broadcast_to(whole, series.shape[2:]).copy()
    for z, at in _parts(brain):
        own = level(series[at[:, 0], at[:, 1], z], modality)
        apart = own - middle
        limit = max(ODD_PART * rise, ODD_NOISE * _noise_of(apart))
        odd[z] |= _odd_frames(apart, times_s, limit, judged & ~whole)
    return odd


def odd_scatter(
    series: np.ndarray, times_s: np.ndarray, brain: np.ndarray, modality: str
) -> np.ndarray:
    """Slices of frames (z, t) whose voxels scatter about the frames beside them far too much.

    Impulse noise, a frame with little dose, a displaced slice: their mean may be as expected.

    Examples
    --------
    >>> rng = np.random.default_rng(0); series = 30 + rng.normal(0, 2, (20, 20, 2, 30))
    >>> series += 9 * np.exp(-(((np.arange(30.0) - 12) / 5) ** 2))
    >>> series[:, :, 0, 20] += rng.normal(0, 12, (20, 20))
    >>> np.argwhere(odd_scatter(series, np.arange(30.0), np.ones((20, 20, 2), bool), "ctp"))
    array([[ 0, 20]])
    """
    rise = rise_of(brain_level(series, brain, modality), modality)
    odd = np.zeros(series.shape[2:], bool)
    inner = ndimage.binary_erosion(brain, np.ones((3, 3, 1), bool))
    frames = np.arange(len(times_s))
    beside = np.clip(frames[:, None] + np.array([-2, -1, 1, 2]), 0, len(frames) - 1)
    for z in np.flatnonzero(inner.sum(axis=(0, 1)) >= 4 * _PART_VOXELS):
        voxels = series[:, :, z][inner[:, :, z]]
        voxels = voxels[:: max(1, len(voxels) // (4 * _ENOUGH_VOXELS))].astype(np.float64)
        if modality == "dsc":
            voxels = -np.log(np.maximum(voxels, 1e-3))
        # Vessels change fast and much.
        reach = np.subtract(*np.percentile(voxels, [90, 10], axis=1))
        voxels = voxels[reach <= 4.0 * np.median(reach)]
        apart = voxels - np.median(voxels[:, beside], axis=2)
        scatter = (apart - apart.mean(axis=0)).std(axis=0)
        usual = float(np.median(scatter))
        excess = np.sqrt(np.maximum(scatter**2 - usual**2, 0.0))
        odd[z] = (scatter > ODD_SCATTER * usual) & (excess > ODD_SCATTER_RISE * rise)
    return odd


# --- tissue that does not enhance --------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """Change of level of tissue that does not enhance.

    Attributes
    ----------
    share
        Largest departure from the baseline of the smooth course, as a share of the rise of the
        brain's median; NaN where there is no such tissue.
    jump_share
        Largest departure of the level from that smooth course: a step, not a drift.
    uneven_share
        Largest difference of the drift of a slice from that of all.
    course
        (z, t) HU to subtract, or None where nothing is to be corrected.
    """

    share: float = float("nan")
    jump_share: float = float("nan")
    uneven_share: float = float("nan")
    course: np.ndarray | None = field(default=None, repr=False)


def _reference_tissue(
    series: np.ndarray, brain: np.ndarray, sizes_mm: np.ndarray, *, deep: bool = False
) -> np.ndarray:
    """Voxels of CT (x, y, z) that do not enhance: fluid of the brain, and fat.

    In slices with few of them, the soft tissue outside the skull joins; it enhances little. Only
    voxels away from borders count: where the picture is steep, the least motion changes it.
    ``deep`` keeps those alone that have their like on every side, for series that were moved back.
    """
    middle = np.median(series[..., :: max(1, series.shape[3] // 15)], axis=3)
    plane = np.ones((3, 3, 1), bool)
    blur = (1.2 / sizes_mm[0], 1.2 / sizes_mm[1], 0)
    smooth = ndimage.gaussian_filter(middle, blur)
    steep = np.hypot(
        np.gradient(smooth, axis=0) / sizes_mm[0], np.gradient(smooth, axis=1) / sizes_mm[1]
    )
    flat = (steep < STEEP_HU_MM) & ~ndimage.binary_dilation(smooth > 120, plane)
    outside = flat & ~ndimage.binary_dilation(brain, plane, iterations=2)
    fluid = flat & brain & (smooth > -5) & (smooth < 13)
    fat = outside & (smooth > -140) & (smooth < -40)
    soft = outside & (smooth > 5) & (smooth < 80)
    if deep:
        inside = np.ones((3, 3, 3 if series.shape[2] > 1 else 1), bool)
        fluid, fat, soft = (ndimage.binary_erosion(part, inside) for part in (fluid, fat, soft))
    reference = fluid | fat
    few = reference.sum(axis=(0, 1)) < 2 * _REFERENCE_VOXELS
    return np.asarray(reference | soft & few)


def find_drift(
    series: np.ndarray,
    times_s: np.ndarray,
    brain: np.ndarray,
    sizes_mm: np.ndarray,
    baseline_stop: int,
    *,
    moved: bool = False,
) -> Drift:
    """Drift of a CT series.

    The level of tissue that does not enhance is fitted by a share of the brain's own curve
    (partial volume, slight enhancement) and a cubic in time.

    Parameters
    ----------
    series
        (x, y, z, t) HU, finite, without odd frames.
    times_s, brain, sizes_mm
        Times, brain mask and voxel edges.
    baseline_stop
        First frame that is no longer baseline.
    moved
        Whether frames were moved back.
    """
    reference = _reference_tissue(series, brain, sizes_mm, deep=moved)
    if reference.sum() < _REFERENCE_VOXELS:
        return Drift()
    middle = brain_level(series, brain, "ctp")
    rise = rise_of(middle, "ctp")
    curve = _mean_level(series[reference])
    course, left = _course(curve, middle, times_s, baseline_stop)
    jump = float(np.abs(ndimage.median_filter(left, 3, mode="nearest")).max())
    # The highest of some forty medians of three frames that noise alone makes is no step.
    jump = max(jump - 2.0 * _noise_of(left), 0.0)
    if jump > STEPPED_DRIFT * rise:
        # No smooth course: the level itself, frame by frame.
        course = course + left - left[:baseline_stop].mean()
    per_slice, uneven = np.tile(course, (series.shape[2], 1)), 0.0
    for z in range(series.shape[2]):
        own = reference[:, :, z]
        if own.sum() < _REFERENCE_VOXELS:
            continue
        there = _mean_level(series[:, :, z][own])
        apart = _line(_course(there, middle, times_s, baseline_stop)[0] - course, times_s)
        apart -= apart[:baseline_stop].mean()
        if np.abs(apart).max() > max(UNEVEN_DRIFT * rise, UNLIKELY * _chance(there)):
            per_slice[z] += apart
            uneven = max(uneven, float(np.abs(apart).max()))
    # What the noise of the reference alone makes is no drift.
    share = max(float(np.abs(per_slice).max()) - 2.0 * _chance(curve), 0.0) / rise
    correct = (
        CORRECTED_DRIFT < share <= LARGEST_DRIFT
        and jump <= LARGEST_JUMP * rise
        and uneven <= LARGEST_DRIFT * rise
    )
    return Drift(share, jump / rise, uneven / rise, per_slice if correct else None)


def uneven_tail(series: np.ndarray, brain: np.ndarray, baseline: slice, modality: str) -> float:
    """Largest difference of late enhancement between slices beside each other, share of the rise.

    Of the half of each slice that has less of it: a lesion, which is late, lies on one side.

    Examples
    --------
    >>> series = np.zeros((8, 8, 3, 20)); series[..., 8:12] = 10; series[:, :, 2, 12:] = 5
    >>> uneven_tail(series, np.ones((8, 8, 3), bool), slice(0, 6), "ctp")
    0.5
    """
    rise = rise_of(brain_level(series, brain, modality), modality)
    last = max(3, series.shape[3] // 7)
    tails = []
    for z in range(series.shape[2]):
        at = np.argwhere(brain[:, :, z])
        right = at[:, 0] > np.median(at[:, 0]) if len(at) else np.zeros(0, bool)
        halves = [
            level(series[half[:, 0], half[:, 1], z], modality)
            for half in (at[right], at[~right])
            if len(half) >= _PART_VOXELS
        ]
        if halves:
            tails.append(min(float(h[-last:].mean() - h[baseline].mean()) for h in halves))
    return float(np.abs(np.diff(tails)).max()) / rise if len(tails) > 1 else float("nan")


def _mean_level(voxels: np.ndarray) -> np.ndarray:
    """Mean without the tenth of voxels that changes most, which may hold a vessel."""
    change = np.ptp(ndimage.uniform_filter1d(voxels.astype(np.float64), 5, axis=1), axis=1)
    return np.asarray(voxels[change <= np.percentile(change, 90)].mean(axis=0, dtype=np.float64))


def _course(
    curve: np.ndarray, middle: np.ndarray, times_s: np.ndarray, baseline_stop: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth drift (t,), 0 at baseline, and what is left of the level beside it."""
    x = 2.0 * (times_s - times_s[0]) / (times_s[-1] - times_s[0]) - 1.0
    powers = np.polynomial.legendre.legvander(x, 3)
    design = np.column_stack([middle - middle[:baseline_stop].mean(), powers])
    found = np.linalg.lstsq(design, curve, rcond=None)[0]
    share = float(np.clip(found[0], 0.0, MOST_ENHANCEMENT))
    rest = (curve - share * design[:, 0]) / (1.0 - share)
    smooth = powers @ np.linalg.lstsq(powers, rest, rcond=None)[0]
    return smooth - smooth[:baseline_stop].mean(), rest - smooth


def _line(curve: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    return np.asarray(np.polyval(np.polyfit(times_s, curve, 1), times_s))


def _chance(curve: np.ndarray) -> float:
    """What the noise of a level alone makes of a line at its end, two SDs; one of a cubic."""
    return 4.0 * _noise_of(curve) / float(np.sqrt(len(curve)))


def pattern_share(series: np.ndarray, brain: np.ndarray, baseline: slice, rise: float) -> float:
    """Pattern that a slice takes on after the baseline: rings, streaks, another position.

    The change from the baseline to the rest of the series is smooth in space but for noise: the SD
    of its differences between neighbouring voxels of a slice, beyond that of noise, as a share of
    the rise. The largest of all slices.

    Examples
    --------
    >>> rng = np.random.default_rng(0); series = rng.normal(0, 2, (20, 20, 2, 30))
    >>> series[::2, :, 1, 15:] += 12
    >>> pattern_share(series, np.ones((20, 20, 2), bool), slice(0, 8), 8.0) > 0.5
    True
    """
    before, after = series[..., baseline], series[..., baseline.stop :]
    n, m = before.shape[3], after.shape[3]
    change = after.mean(axis=3, dtype=np.float64) - before.mean(axis=3, dtype=np.float64)
    worst = 0.0
    for z in np.flatnonzero(brain.sum(axis=(0, 1)) >= 4 * _PART_VOXELS):
        both = brain[1:, :, z] & brain[:-1, :, z]
        apart = np.diff(change[:, :, z], axis=0)[both]
        noise = np.diff(np.diff(series[:, :, z], axis=2)[..., ::2], axis=0)[both]
        expected = np.median(np.abs(noise)) / np.sqrt(2.0) * np.sqrt(1 / n + 1 / m)
        seen = np.median(np.abs(apart))
        worst = max(worst, 1.4826 * float(np.sqrt(max(seen**2 - expected**2, 0.0))))
    return worst / rise
