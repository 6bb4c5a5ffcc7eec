"""From raw signal to tracer concentration: frame times, baseline, bolus arrival, noise.

CT: the tracer raises attenuation linearly, so concentration is the HU difference from baseline.
MR (DSC): the tracer raises the transverse relaxation rate, ``dR2* = -ln(S / S0) / TE``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Difference of haematocrit between arteries and capillaries, (1 - 0.45) / (1 - 0.25).
HAEMATOCRIT_FACTOR = (1.0 - 0.45) / (1.0 - 0.25)
#: Density of brain tissue in g/mL.
TISSUE_DENSITY_G_ML = 1.04
#: k_H / rho: turns a ratio of curves into mL of blood per g of tissue.
TISSUE_FACTOR = HAEMATOCRIT_FACTOR / TISSUE_DENSITY_G_ML

#: Frame intervals that differ by less than this share of their median count as equal.
INTERVAL_TOLERANCE = 0.02
#: Irregular frames are resampled to their median interval, but to no longer one than this.
LONGEST_RESAMPLED_INTERVAL_S = 1.5
#: A gap longer than this cannot be bridged by interpolation: the bolus may pass within it.
LONGEST_GAP_S = 60.0
#: Frames of a resampled series beyond which its times cannot be right (25 min at 1.5 s).
MOST_RESAMPLED_FRAMES = 1000
#: The lowest share of S0 that a DSC signal is taken to have (noise floor of a saturated artery).
SIGNAL_FLOOR = 1e-3


class PerfusionError(ValueError):
    """Perfusion data that cannot be analysed; the message says what, why and how to fix it."""


@dataclass(frozen=True)
class Baseline:
    """Frames before the bolus.

    Attributes
    ----------
    start
        First frame used; frames before it had not reached steady state.
    stop
        First frame that is no longer baseline.
    arrival
        Last frame before the bolus raises the curve (bolus arrival).
    """

    start: int
    stop: int
    arrival: int

    @property
    def n_frames(self) -> int:
        """Number of baseline frames."""
        return self.stop - self.start


def checked_times(times_s: np.ndarray, n_frames: int) -> np.ndarray:
    """Frame times as float64, finite and increasing, one per frame; else PerfusionError.

    Examples
    --------
    >>> checked_times([0, 2, 2, 4, 6], 5)
    Traceback (most recent call last):
    corelab.perfusion.concentration.PerfusionError: frame times do not increase at frame 3 ...
    """
    times = np.asarray(times_s, dtype=float).ravel()
    if times.size != n_frames:
        raise PerfusionError(
            f"{times.size} frame times for {n_frames} frames: every frame needs its time; "
            "give as many times as the last axis of the signal has frames"
        )
    if n_frames < 5:
        raise PerfusionError(
            f"{n_frames} frames are too few to follow a bolus; at least 5 are needed"
        )
    if not np.isfinite(times).all():
        raise PerfusionError("a frame time is not a finite number; fix the frame times")
    backward = np.flatnonzero(np.diff(times) <= 0)
    if backward.size:
        raise PerfusionError(
            f"frame times do not increase at frame {backward[0] + 2} "
            f"({times[backward[0]]:g} s then {times[backward[0] + 1]:g} s): sort the frames by "
            "acquisition time and drop duplicates"
        )
    return times


def regular_times(times_s: np.ndarray) -> np.ndarray | None:
    """Uniform times to resample to, or None if the frames are already equally spaced.

    PerfusionError if a gap is longer than :data:`LONGEST_GAP_S`, or resampling would give more than
    :data:`MOST_RESAMPLED_FRAMES` frames.

    Examples
    --------
    >>> regular_times(np.array([0.0, 1.0, 2.0, 4.0, 6.0]))
    array([0. , 1.5, 3. , 4.5, 6. ])
    """
    intervals = np.diff(times_s)
    median = float(np.median(intervals))
    longest = int(intervals.argmax())
    if intervals[longest] > LONGEST_GAP_S:
        raise PerfusionError(
            f"frames {longest + 1} and {longest + 2} are {intervals[longest]:g} s apart, more than "
            f"the {LONGEST_GAP_S:g} s that can be interpolated: check that the frame times are in "
            "seconds and of one series"
        )
    if np.abs(intervals - median).max() <= INTERVAL_TOLERANCE * median:
        return None
    step = min(median, LONGEST_RESAMPLED_INTERVAL_S)
    count = int(np.floor((times_s[-1] - times_s[0]) / step + 1e-9)) + 1
    if count > MOST_RESAMPLED_FRAMES:
        raise PerfusionError(
            f"the frames span {times_s[-1] - times_s[0]:g} s at a usual interval of {median:g} s: "
            f"{count} frames would result, more than {MOST_RESAMPLED_FRAMES}; check that the frame "
            "times are in seconds"
        )
    return times_s[0] + step * np.arange(count)


def _interpolation_matrix(times_s: np.ndarray, new_times_s: np.ndarray) -> np.ndarray:
    """Weights ``w`` (new, old) of linear interpolation: ``new = curves @ w.T``."""
    identity = np.eye(len(times_s))
    return np.stack([np.interp(new_times_s, times_s, row) for row in identity], axis=1)


def resample(curves: np.ndarray, times_s: np.ndarray, new_times_s: np.ndarray) -> np.ndarray:
    """Curves (..., t) at new times by linear interpolation."""
    weights = _interpolation_matrix(times_s, new_times_s).astype(curves.dtype)
    return curves @ weights.T


def aligned_slices(
    series: np.ndarray, times_s: np.ndarray, slice_times_s: np.ndarray
) -> np.ndarray:
    """Series whose slices, acquired one after the other, are brought to common frame times.

    A cubic spline through each curve: straight lines between frames would flatten an arterial peak.
    Before the first and after the last frame of a slice its value is held. ``slice_times_s`` (z,)
    are the seconds from the start of a frame to the slice.

    Examples
    --------
    >>> t = np.arange(0, 30, 1.5); bolus = lambda x: np.exp(-((x - 12) ** 2) / 20)
    >>> two = np.stack([bolus(t), bolus(t + 0.75)])[None, None]
    >>> bool(np.abs(np.diff(aligned_slices(two, t, np.array([0.0, 0.75])), axis=2)).max() < 0.01)
    True
    """
    from scipy.interpolate import CubicSpline

    aligned = np.array(series, dtype=np.float32)
    for late in np.unique(slice_times_s):
        if late == 0:
            continue
        known = times_s + late
        spline = CubicSpline(known, np.eye(len(times_s)))
        weights = spline(np.clip(times_s, known[0], known[-1])).astype(np.float32)
        slices = np.flatnonzero(slice_times_s == late)
        aligned[:, :, slices] = aligned[:, :, slices] @ weights.T
    return aligned


def bolus_arrival(curve: np.ndarray) -> int:
    """Last frame before a curve (t,), which rises with the tracer, rises to its peak.

    The rise is what stands above the first frames' level by more than three of their SD or 5 % of
    the peak, whichever is higher, without interruption up to the peak.

    Examples
    --------
    >>> bolus_arrival(np.array([0, 0.1, -0.1, 0, 0.1, 4, 9, 6, 3, 2]))
    4
    """
    curve = np.asarray(curve, dtype=float)
    peak = int(np.argmax(curve))
    first = max(3, min(peak // 2, len(curve) // 6))
    level = float(np.median(curve[:first]))
    # The MAD of differences is blind to a slow drift and to one odd frame.
    steps = np.diff(curve[: max(first, 4)])
    spread = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / np.sqrt(2.0)
    threshold = level + max(3.0 * spread, 0.05 * (curve[peak] - level))
    frame = peak
    while frame > 0 and curve[frame - 1] > threshold:
        frame -= 1
    return max(frame - 1, 0)


def _steady_state_start(curve: np.ndarray, arrival: int) -> int:
    """First frame in steady state: early MR frames can be far brighter than the baseline."""
    before = np.asarray(curve, dtype=float)[: arrival + 1]
    if len(before) < 5:
        return 0
    settled = before[len(before) // 2 :]
    level = float(np.median(settled))
    spread = 1.4826 * float(np.median(np.abs(settled - level)))
    start = 0
    while start < min(4, len(before) - 3) and abs(before[start] - level) > max(
        0.05 * abs(level), 5.0 * spread
    ):
        start += 1
    return start


def find_baseline(curve: np.ndarray, modality: str) -> Baseline:
    """Baseline frames of a raw signal curve (t,), an artery or the mean of the brain.

    Examples
    --------
    >>> find_baseline(np.array([100, 101, 99, 100, 100, 60, 30, 50, 80, 90.0]), "dsc")
    Baseline(start=0, stop=5, arrival=4)
    """
    curve = np.asarray(curve, dtype=float)
    rising = -curve if modality == "dsc" else curve
    start = _steady_state_start(curve, bolus_arrival(rising)) if modality == "dsc" else 0
    arrival = start + bolus_arrival(rising[start:])
    return Baseline(start=start, stop=max(arrival + 1, start + 1), arrival=arrival)


def to_concentration(
    signal: np.ndarray,
    modality: str,
    baseline: Baseline,
    *,
    echo_time_s: float | None = None,
) -> np.ndarray:
    """Tracer concentration of raw signal curves (..., t), float32.

    ``ctp``: HU minus the mean of the baseline, in HU. ``dsc``: ``-ln(S / S0) / TE``, in 1/s; NaN
    where a voxel has no signal at baseline.

    Examples
    --------
    >>> base = Baseline(0, 2, 1)
    >>> to_concentration(np.array([100, 100, 100 / np.e]), "dsc", base, echo_time_s=0.03).round(2)
    array([-0.  , -0.  , 33.33], dtype=float32)
    """
    signal = np.asarray(signal, dtype=np.float32)
    level = signal[..., baseline.start : baseline.stop].mean(
        axis=-1, keepdims=True, dtype=np.float64
    )
    if modality == "ctp":
        return signal - level.astype(np.float32)
    if modality != "dsc":
        raise ValueError(f"modality '{modality}' has no conversion; known: ctp, dsc")
    checked_echo_time(echo_time_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(level > 0, signal / level, np.nan)
        logarithm = np.log(np.maximum(ratio, SIGNAL_FLOOR))
    return (-logarithm / float(echo_time_s or 1.0)).astype(np.float32)


def checked_echo_time(echo_time_s: float | None) -> float:
    """The echo time if it is one in seconds.

    PerfusionError if it is missing, not positive, or was given in milliseconds.

    Examples
    --------
    >>> checked_echo_time(30)
    Traceback (most recent call last):
    corelab.perfusion.concentration.PerfusionError: echo time 30 s is implausible ...
    """
    if echo_time_s is None:
        raise PerfusionError(
            "DSC signal needs its echo time, because concentration is -ln(S/S0)/TE: give "
            "echo_time_s (for example 0.03)"
        )
    if not 0.0 < echo_time_s < 1.0:
        raise PerfusionError(
            f"echo time {echo_time_s:g} s is implausible (expected 0.005 to 0.1 s): "
            "give seconds, not milliseconds"
        )
    return float(echo_time_s)


def temporal_noise(curves: np.ndarray) -> float:
    """SD of the noise of curves (n, t), from differences of neighbouring baseline frames.

    sqrt(pi) / 2 times the mean absolute difference (which, unlike a median, does not jump in steps
    where CT numbers are whole); NaN with fewer than 2 frames.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(0, 2.0, (20000, 5))
    >>> round(temporal_noise(noise), 1)
    2.0
    """
    if curves.shape[-1] < 2 or not len(curves):
        return float("nan")
    steps = np.diff(curves, axis=-1)
    return float(0.5 * np.sqrt(np.pi) * np.abs(steps).mean(dtype=np.float64))
