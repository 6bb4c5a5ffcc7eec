"""Disturbances of a CT perfusion series, and what a run of the pipeline makes of each.

Every disturbance takes a simulated head and gives what a scanner, an export or a patient would
have made of it. A disturbed run is judged against the undisturbed run of the same head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from perfusion_heads import HeadCase, HeadPhantom, simulate_head, slice_times_s
from scipy import ndimage

from corelab.perfusion import gates, lesions
from corelab.perfusion.concentration import PerfusionError
from corelab.perfusion.series import SeriesOptions, analyse_series, gate_values
from corelab.perfusion.visit import _volume_gates
from corelab.settings.perfusion import PerfusionSettings

#: A disturbed run is wrong beyond these differences from the undisturbed one.
CORE_SHARE, CORE_ML, LATE_SHARE = 0.25, 3.0, 0.20


@dataclass
class Scan:
    """What reaches the pipeline."""

    signal: np.ndarray
    times_s: np.ndarray
    affine: np.ndarray
    brain: np.ndarray
    slice_times_s: np.ndarray | None = None


@dataclass(frozen=True)
class Run:
    """What the pipeline made of a scan: volumes in mL, verdicts by criterion, or a refusal."""

    core_ml: float = float("nan")
    late_ml: float = float("nan")
    verdicts: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None


def scan_of(head: HeadPhantom) -> Scan:
    """Series and brain, which holds its fluid spaces as the pipeline's mask does."""
    brain = ndimage.binary_closing(head.tissue, np.ones((5, 5, 1), bool)) | head.tissue
    for z in range(brain.shape[2]):
        brain[:, :, z] = ndimage.binary_fill_holes(brain[:, :, z])
    return Scan(head.signal.copy(), head.times_s.copy(), head.affine, brain)


def analysed(scan: Scan, settings: dict[str, Any] | None = None) -> Run:
    """The pipeline's default core and hypoperfusion, and its gates, without files."""
    core_rule, late_rule = PerfusionSettings().core, PerfusionSettings().hypoperfusion
    try:
        found = analyse_series(
            scan.signal, scan.affine, scan.times_s, "ctp", scan.brain,
            SeriesOptions(slice_times_s=scan.slice_times_s, threads=1),
        )  # fmt: skip
    except PerfusionError as error:
        return Run(refused=str(error))
    timed_by = found.maps[late_rule.engine]
    timing = timed_by.tmax_s
    unread = lesions.untimed_tissue(found.tissue, timed_by.cbf_ml_100g_min, timed_by.tmax_sd_s)
    late = lesions.delayed_tissue(
        timing, found.tissue, late_rule.tmax_s_above, found.voxel_ml, unread
    )  # fmt: skip
    sides = lesions.hemispheres(found.plane, scan.affine, found.tissue, late, found.voxel_ml)
    normal = sides.healthy & (np.nan_to_num(timing, nan=np.inf) < lesions.NORMAL_TMAX_S)
    flow = found.maps[core_rule.engine].cbf_ml_100g_min
    reference = lesions.reference_value(flow, normal, rule=core_rule.reference, tissue=found.tissue)
    values = gate_values(found)
    level = lesions.level_in_noise(core_rule.below, values["tissue_cnr"])
    core = lesions.reduced_flow(flow, reference, level, late, found.tissue, found.voxel_ml)
    reach = lesions.volume_range(
        timing, found.tissue, late_rule.tmax_s_above, found.voxel_ml, unread
    )  # fmt: skip
    values |= _volume_gates(core, late, found.tissue, reach, found.voxel_ml)
    values["hypoperfused_wrong_share"] = lesions.likely_wrong_delay(
        timing, timed_by.tmax_sd_s, late, found.tissue,
        late_rule.tmax_s_above,
    )  # fmt: skip
    values["core_wrong_share"] = lesions.likely_wrong_core(
        flow, found.maps[core_rule.engine].cbf_sd_ml_100g_min, core, level * reference.values
    )
    rows = gates.judge("ctp", values, settings or {})
    return Run(
        float(core.sum()) * found.voxel_ml,
        float(late.sum()) * found.voxel_ml,
        {row.criterion: row.verdict for row in rows},
        values,
    )


def new_flags(run: Run, base: Run) -> list[str]:
    """Criteria whose verdict is worse than in the undisturbed run."""
    rank = {"warn": 1, "fail": 2}
    return [
        f"{name} {verdict}"
        for name, verdict in run.verdicts.items()
        if rank.get(verdict, 0) > rank.get(base.verdicts.get(name, "pass"), 0)
    ]


def is_wrong(run: Run, base: Run) -> bool:
    """Whether core or hypoperfusion is off by more than the limits."""
    core = abs(run.core_ml - base.core_ml)
    late = abs(run.late_ml - base.late_ml)
    return (core > CORE_ML and core > CORE_SHARE * base.core_ml) or late > LATE_SHARE * base.late_ml


# --- disturbances of the voxels ----------------------------------------------------------------


def peak_frame(scan: Scan) -> int:
    """The frame in which the brain is brightest."""
    return int(scan.signal[scan.brain].mean(axis=0).argmax())


def added(hu: float, frames: Callable[[int], list[int]], slices: Any = slice(None)) -> Any:
    """Frames (given the frame of the brain's peak) that are brighter by ``hu``."""

    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        for frame in frames(peak_frame(scan)):
            if 0 <= frame < scan.signal.shape[3]:
                scan.signal[:, :, slices, frame] += np.float32(hu)
        return scan

    return disturb


def drift(course: Callable[[np.ndarray], np.ndarray], slices: Any = slice(None)) -> Any:
    """A level that changes: HU as a function of time (s)."""

    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        scan.signal[:, :, slices] += course(scan.times_s).astype(np.float32)
        return scan

    return disturb


def _set(scan: Scan, where: Any, value: Any) -> Scan:
    scan.signal[where] = value
    return scan


def _frozen(scan: Scan, rng: np.random.Generator) -> Scan:
    at = peak_frame(scan)
    scan.signal[:, :, 2, at : at + 2] = scan.signal[:, :, 2, at - 1 : at]
    return scan


def _swapped_halves(scan: Scan, rng: np.random.Generator) -> Scan:
    at, half = peak_frame(scan), scan.signal.shape[2] // 2
    frame = scan.signal[..., at].copy()
    scan.signal[:, :, :half, at], scan.signal[:, :, -half:, at] = (
        frame[:, :, -half:], frame[:, :, :half],
    )  # fmt: skip
    return scan


def _kept(scan: Scan, keep: np.ndarray, times: np.ndarray | None = None) -> Scan:
    times = scan.times_s[keep] if times is None else times
    return replace(scan, signal=np.ascontiguousarray(scan.signal[..., keep]), times_s=times)


def _irregular(scan: Scan, rng: np.random.Generator) -> Scan:
    frames = np.arange(scan.signal.shape[3])
    late = len(frames) // 2
    return _kept(scan, frames[(frames < late) | ((frames - late) % 2 == 0)])


def _first_missing(extra: int) -> Any:
    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        curve = scan.signal[scan.brain].mean(axis=0)
        curve = curve - np.median(curve[:4])
        rise = int(np.argmax(curve > 0.1 * curve.max()))
        return _kept(scan, np.arange(rise + extra, len(curve)), scan.times_s[: -rise - extra])

    return disturb


def _noisier(factor: float, frames: Any = slice(None)) -> Any:
    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        first = scan.signal[scan.brain][:, :4]
        sd = float(np.diff(first, axis=1).std() / np.sqrt(2))
        more = sd * np.sqrt(factor**2 - 1)
        shape = scan.signal[..., frames].shape
        scan.signal[..., frames] += more * rng.standard_normal(shape, dtype=np.float32)
        return scan

    return disturb


def _spikes(scan: Scan, rng: np.random.Generator) -> Scan:
    for frame in rng.choice(scan.signal.shape[3], 4, replace=False):
        hit = rng.random(scan.signal.shape[:3]) < 0.03
        scan.signal[..., frame][hit] += rng.choice([-300.0, 300.0], int(hit.sum()))
    return scan


def _shifted_slice(scan: Scan, rng: np.random.Generator) -> Scan:
    at = peak_frame(scan)
    scan.signal[:, :, 3, at] = np.roll(scan.signal[:, :, 3, at], 3, axis=1)
    return scan


def _displaced(frames: Callable[[int, int], Any], shift_voxels: tuple[float, float, float]) -> Any:
    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        for frame in frames(peak_frame(scan), scan.signal.shape[3]):
            scan.signal[..., frame] = ndimage.shift(
                scan.signal[..., frame], shift_voxels, order=1, mode="nearest"
            )
        return scan

    return disturb


def _oscillating(scan: Scan, rng: np.random.Generator) -> Scan:
    for frame, time in enumerate(scan.times_s):
        move = 0.8 * np.sin(2 * np.pi * time / 4.0) / abs(scan.affine[1, 1])
        scan.signal[..., frame] = ndimage.shift(
            scan.signal[..., frame], (0, move, 0), order=1, mode="nearest"
        )
    return scan


def _half_slice_lost(scan: Scan, rng: np.random.Generator) -> Scan:
    at = peak_frame(scan)
    scan.signal[: scan.signal.shape[0] // 2, :, 2, at] = -1000.0
    return scan


def _rings(scan: Scan, rng: np.random.Generator) -> Scan:
    x, y = np.indices(scan.signal.shape[:2])
    radius = np.hypot(x - scan.signal.shape[0] / 2, y - scan.signal.shape[1] / 2)
    ring = 12.0 * np.cos(radius / 1.2).astype(np.float32)
    for frame in range(peak_frame(scan), scan.signal.shape[3]):
        scan.signal[:, :, 2, frame] += ring
    return scan


def _swapped_frames(scan: Scan, rng: np.random.Generator) -> Scan:
    at = peak_frame(scan) - 2
    scan.signal[..., [at, at + 1]] = scan.signal[..., [at + 1, at]]
    return scan


def _duplicated(scan: Scan, rng: np.random.Generator) -> Scan:
    at = peak_frame(scan)
    scan.signal[..., at] = scan.signal[..., at - 1]
    return scan


def _lost_frame(scan: Scan, rng: np.random.Generator) -> Scan:
    keep = np.delete(np.arange(scan.signal.shape[3]), peak_frame(scan) - 1)
    return _kept(scan, keep, scan.times_s[:-1])


def _blood_before(hu: float, decay_s: float) -> Any:
    """Contrast of an earlier injection: brighter vessels and tissue that fade."""

    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        enhancement = scan.signal.max(axis=3) - scan.signal[..., :3].mean(axis=3)
        share = np.clip(ndimage.gaussian_filter(enhancement, (0.6, 0.6, 0)) / 250.0, 0, 1)
        share[~ndimage.binary_dilation(scan.brain, np.ones((3, 3, 1), bool), iterations=4)] = 0
        fading = hu * np.exp(-scan.times_s / decay_s)
        scan.signal += (share[..., None] * fading).astype(np.float32)
        return scan

    return disturb


def _second_bolus(scan: Scan, rng: np.random.Generator) -> Scan:
    """The injection is repeated at 60 % after 24 s."""
    later = int(np.rint(24.0 / np.median(np.diff(scan.times_s))))
    change = scan.signal - scan.signal[..., :3].mean(axis=3, keepdims=True)
    change = ndimage.gaussian_filter(change, (0.7, 0.7, 0, 0))
    scan.signal[..., later:] += 0.6 * change[..., :-later]
    return scan


def _flipped(axis: int) -> Any:
    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        at = peak_frame(scan)
        scan.signal[..., at] = np.flip(scan.signal[..., at], axis)
        return scan

    return disturb


def _time_first(scan: Scan, rng: np.random.Generator) -> Scan:
    signal = np.ascontiguousarray(np.moveaxis(scan.signal, 3, 0))
    frames = signal.shape[3]
    brain = signal.mean(axis=3) > 0
    return replace(scan, signal=signal, times_s=1.5 * np.arange(frames), brain=brain)


def _bone_in_mask(scan: Scan, rng: np.random.Generator) -> Scan:
    cross = ndimage.generate_binary_structure(2, 1)[..., None]
    return replace(scan, brain=ndimage.binary_dilation(scan.brain, cross, iterations=3))


def _no_bolus(scan: Scan, rng: np.random.Generator) -> Scan:
    noise = scan.signal[..., 1] - scan.signal[..., 0]
    for frame in range(scan.signal.shape[3]):
        scan.signal[..., frame] = scan.signal[..., 0] + 0.7 * np.roll(noise, 7 * frame, axis=0)
    return scan


def _nan_voxels(share: float) -> Any:
    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        scan.signal[rng.random(scan.signal.shape) < share] = np.nan
        return scan

    return disturb


def _gain(factor: float, frames: Callable[[int], list[int]]) -> Any:
    def disturb(scan: Scan, rng: np.random.Generator) -> Scan:
        for frame in frames(peak_frame(scan)):
            scan.signal[..., frame] = (scan.signal[..., frame] + 1000) * factor - 1000
        return scan

    return disturb


def _clipped(scan: Scan, rng: np.random.Generator) -> Scan:
    scan.signal = np.minimum(scan.signal, 127.0)
    return scan


# --- the lists ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disturbance:
    """A change of the simulated acquisition (fields of HeadCase), of its voxels, or both.

    ``tolerated``: the result is right, so that a FAIL would be a false alarm.
    """

    name: str
    voxels: Any = None
    case: dict[str, Any] = field(default_factory=dict)
    timing: bool = False
    tolerated: bool = False

    def scan(self, case: HeadCase) -> Scan:
        """The disturbed scan of a head."""
        changed = replace(case, **self.case)
        scan = scan_of(simulate_head(changed))
        if self.timing:
            scan.slice_times_s = slice_times_s(changed)
        rng = np.random.default_rng(case.seed)
        return scan if self.voxels is None else self.voxels(scan, rng)


def _one(at: int) -> list[int]:
    return [at]


#: The 38 of the review that reach the analysis; those of headers are tests of ``prepare``.
REVIEWED = (
    Disturbance("frames 1.5 then 3 s", _irregular, tolerated=True),
    Disturbance("frames 2 s", case={"interval_s": 2.0}, tolerated=True),
    Disturbance("frames 3 s", case={"interval_s": 3.0}),
    Disturbance("cut at 45 s", case={"duration_s": 45.0}, tolerated=True),
    Disturbance("cut at 30 s", case={"duration_s": 30.0}),
    Disturbance("bolus 15 s later", case={"bolus_arrival_s": 23.0}, tolerated=True),
    Disturbance("no baseline", _first_missing(1)),
    Disturbance("no baseline and no upslope", _first_missing(3)),
    Disturbance("artery 120 HU", case={"artery_peak_hu": 120.0}),
    Disturbance("artery 60 HU", case={"artery_peak_hu": 60.0}),
    Disturbance("motion 2 mm 1 deg", case={"motion_mm": 2.0, "motion_degrees": 1.0},
                tolerated=True),
    Disturbance("motion 4 mm 3 deg", case={"motion_mm": 4.0, "motion_degrees": 3.0},
                tolerated=True),
    Disturbance("motion 4 mm in 3 frames",
                _displaced(lambda at, n: range(at + 3, at + 6), (0, 1.33, 0)), tolerated=True),
    Disturbance("slice zero", lambda s, r: _set(s, np.s_[:, :, 2], 0.0)),
    Disturbance("slice zero in one frame",
                lambda s, r: _set(s, np.s_[:, :, 2, peak_frame(s)], 0.0), tolerated=True),
    Disturbance("slice frozen for 2 frames", _frozen),
    Disturbance("halves of the slab swapped in one frame", _swapped_halves, tolerated=True),
    *(Disturbance(f"frame +{hu} HU", added(hu, _one), tolerated=True) for hu in (5, 10, 20, 60)),
    Disturbance("baseline frame +10 HU", added(10, lambda at: [2]), tolerated=True),
    *(Disturbance(f"drift +{hu} HU", drift(lambda t, hu=hu: hu * t / 60), tolerated=True)
      for hu in (1, 2, 3, 6)),
    Disturbance("noise x 3", _noisier(3.0)),
    Disturbance("shuttle, no timing", case={"interval_s": 3.0, "shuttle_s": 1.5}),
    Disturbance("shuttle with timing", case={"interval_s": 3.0, "shuttle_s": 1.5}, timing=True),
    Disturbance("bone in the mask", _bone_in_mask, tolerated=True),
    Disturbance("3 s declared 1.5 s",
                lambda s, r: replace(s, times_s=s.times_s / 2), case={"interval_s": 3.0}),
    Disturbance("Inf block", lambda s, r: _set(s, np.s_[20:22, 30:32, 2, 5], np.inf),
                tolerated=True),
    Disturbance("1 % NaN", _nan_voxels(0.01)),
    Disturbance("one frame NaN", lambda s, r: _set(s, np.s_[..., peak_frame(s)], np.nan),
                tolerated=True),
    Disturbance("HU + 1024", lambda s, r: replace(s, signal=s.signal + 1024)),
    Disturbance("time first", _time_first),
    Disturbance("frames reversed", lambda s, r: replace(s, signal=s.signal[..., ::-1].copy())),
    Disturbance("no bolus", _no_bolus),
)  # fmt: skip
#: Further ones.
FURTHER = (
    Disturbance("two bright frames", added(8, lambda at: [at, at + 1]), tolerated=True),
    Disturbance("three bright frames apart", added(9, lambda at: [at - 6, at, at + 9]),
                tolerated=True),
    Disturbance("dark frame", added(-8, _one), tolerated=True),
    Disturbance("upslope frame +6", added(6, lambda at: [at - 2]), tolerated=True),
    Disturbance("tail frame +12", added(12, lambda at: [at + 8]), tolerated=True),
    Disturbance("first frame +20", added(20, lambda at: [0]), tolerated=True),
    Disturbance("last frame +20", lambda s, r: added(20, lambda at: [s.signal.shape[3] - 1])(s, r),
                tolerated=True),
    Disturbance("slice +15 in one frame", added(15, _one, slice(2, 3)), tolerated=True),
    Disturbance("two slices -12 in one frame", added(-12, _one, slice(1, 3)), tolerated=True),
    Disturbance("a fifth of the frames +15",
                lambda s, r: added(15, lambda at: list(
                    r.choice(s.signal.shape[3], s.signal.shape[3] // 5, replace=False)))(s, r)),
    Disturbance("every second frame +4",
                lambda s, r: added(4, lambda at: list(range(0, s.signal.shape[3], 2)))(s, r)),
    Disturbance("gain +1 % in one frame", _gain(1.01, _one), tolerated=True),
    Disturbance("gain -1 % from the tail on",
                lambda s, r: _gain(0.99, lambda at: list(range(at + 6, s.signal.shape[3])))(s, r)),
    Disturbance("step +5 HU", drift(lambda t: 5.0 * (t > 0.45 * t[-1]))),
    Disturbance("slice shifted in one frame", _shifted_slice, tolerated=True),
    Disturbance("spikes", _spikes),
    Disturbance("noise x 6 in one frame",
                lambda s, r: _noisier(6.0, slice(peak_frame(s), peak_frame(s) + 1))(s, r),
                tolerated=True),
    Disturbance("drift quadratic +5 HU", drift(lambda t: 5 * (t / 60) ** 2)),
    Disturbance("drift -4 HU", drift(lambda t: -4 * t / 60)),
    Disturbance("drift settling 6 HU", drift(lambda t: 6 * (1 - np.exp(-t / 12)))),
    Disturbance("drift +5 HU in lower slices", drift(lambda t: 5 * t / 60, slice(0, 3))),
    Disturbance("drift +8 then back", drift(lambda t: 8 * np.sin(np.pi * t / 60) ** 2)),
    Disturbance("duplicated frame", _duplicated),
    Disturbance("lost frame", _lost_frame),
    Disturbance("swapped frames", _swapped_frames),
    Disturbance("half a slice lost in one frame", _half_slice_lost, tolerated=True),
    Disturbance("rings appear", _rings),
    Disturbance("table step 4 mm", _displaced(lambda at, n: range(at + 4, n), (0, 0, 0.4))),
    Disturbance("oscillation 0.8 mm", _oscillating),
    Disturbance("motion 8 mm 5 deg", case={"motion_mm": 8.0, "motion_degrees": 5.0}),
    Disturbance("contrast before, 40 HU fading", _blood_before(40.0, 60.0)),
    Disturbance("contrast before, 150 HU fading", _blood_before(150.0, 40.0)),
    Disturbance("second bolus", _second_bolus),
    Disturbance("one frame upside down", _flipped(1), tolerated=True),
    Disturbance("one frame left to right", _flipped(0), tolerated=True),
    Disturbance("clipped at 127 HU", _clipped),
    Disturbance("table step of one slice", _displaced(lambda at, n: range(at + 4, n), (0, 0, 1))),
    Disturbance("slice NaN in two frames",
                lambda s, r: _set(s, np.s_[:, :, 2, peak_frame(s) : peak_frame(s) + 2], np.nan),
                tolerated=True),
)  # fmt: skip


# --- heads --------------------------------------------------------------------------------------

#: Heads that the limits were chosen on, and heads that they are judged on.
DEVELOPED, JUDGED = range(1, 6), range(101, 107)
UNDISTURBED_DEVELOPED, UNDISTURBED_JUDGED = range(24), range(300, 340)


def drawn_case(seed: int) -> HeadCase:
    """A small head to disturb."""
    rng = np.random.default_rng(seed)
    return HeadCase(
        f"disturbed{seed}",
        family=("exponential", "linear", "gamma4")[seed % 3],
        side=("left", "right")[seed % 2],
        core_ml=float(rng.uniform(18, 45)),
        hypoperfused_ml=float(rng.uniform(100, 190)),
        shape=(60, 72, 6),
        voxel_mm=(3.0, 3.0, 10.0),
        noise=float(rng.uniform(2.2, 4.0)),
        bolus_arrival_s=float(rng.uniform(7, 12)),
        artery_peak_hu=float(rng.uniform(230, 400)),
        seed=seed,
    )


def undisturbed_case(seed: int) -> HeadCase:
    """A small head as clinics have them: other intervals, lengths, slabs, noise, slight motion."""
    rng = np.random.default_rng(9000 + seed)
    width = float(rng.uniform(1.0, 2.0))
    broad = {"artery_scale_s": 1.7 * width}
    return HeadCase(
        f"undisturbed{seed}",
        family=("exponential", "linear", "gamma4")[seed % 3],
        side=("left", "right", "none")[min(seed % 5 // 2, 2) if seed % 7 else 2],
        core_ml=float(rng.uniform(5, 50)),
        hypoperfused_ml=float(rng.uniform(60, 220)),
        shape=(60, 72, int(rng.integers(4, 9))),
        voxel_mm=(3.0, 3.0, float(rng.choice([5, 8, 10]))),
        noise=float(rng.uniform(1.5, 4.5)),
        interval_s=float(rng.choice([1, 1.5, 2.0])),
        duration_s=float(rng.uniform(43, 64)),
        bolus_arrival_s=float(rng.uniform(5, 12)),
        artery_peak_hu=float(rng.uniform(200, 420)),
        motion_mm=float(rng.uniform(0, 1)),
        motion_degrees=float(rng.uniform(0, 0.7)),
        motion_from_s=float(rng.uniform(12, 40)),
        seed=seed,
        **(broad if "artery_scale_s" in HeadCase.__dataclass_fields__ else {}),
    )
