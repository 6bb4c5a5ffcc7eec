"""A 4D series in memory: raw signal -> maps, tissue, arterial input and what the gates look at."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from corelab.imaging.brain import LARGEST_BRAIN_ML, brain_limits_ml
from corelab.imaging.frames import last_axis_fault, without_gaps
from corelab.perfusion import arterial, coarse, leakage, motion, steadiness, tissue
from corelab.perfusion.concentration import (
    TISSUE_FACTOR,
    Baseline,
    PerfusionError,
    aligned_slices,
    checked_times,
    find_baseline,
    to_concentration,
)
from corelab.perfusion.fit import PerfusionMaps, fit_perfusion
from corelab.perfusion.tissue import Plane

#: Engines that the pipeline runs on every series.
ENGINES = ("osvd", "bayes")
#: A voxel of DSC whose peak exceeds the tissue's median peak this many times is a vessel.
VESSEL_TIMES_TISSUE = 3.5
#: A voxel of CT with less than this many times the median blood volume is no vessel: where the
#: scale of the artery failed, most of the tissue lies above the absolute limit.
LEAST_VESSEL_TIMES_TISSUE = 2.25

#: An arterial voxel of DSC has at least this share of the brain's median baseline signal.
LEAST_SIGNAL = 0.4
#: Share of the largest motion that may be left after correction, and the change of signal by it, as
#: a share of the range of the image, from which a voxel is no candidate for an artery.
LEFT_MOTION, EDGE_CHANGE = 0.25, 0.015
#: At most this many replaced frames are named in a message.
_FRAMES_NAMED = 8
#: Where the median of a brain lies on CT (HU).
BRAIN_HU = (5.0, 75.0)


@dataclass(frozen=True)
class Series:
    """A perfusion series after everything that does not depend on a threshold.

    Attributes
    ----------
    tissue
        Grey and white matter without fluid and vessels.
    grey
        Grey matter among it.
    baseline_image
        Mean signal before the bolus.
    concentration
        Smoothed, (x, y, z, t), 0 outside tissue.
    motion, motion_corrected
        Displacement of every frame, and whether it was corrected.
    odd
        (z, t) slices of frames that were replaced for another reason than motion.
    drift
        Change of level of tissue that does not enhance.
    empty_slices
        (z,) slices without any signal.
    pattern_share, uneven_tail_share
        Pattern that a slice takes on after the baseline, and difference of late enhancement
        between slices, as shares of the brain's rise.
    vessel_hu
        Baseline of the vessels on CT: blood has 35 to 60 HU, contrast of an earlier injection more.
    """

    modality: str
    affine: np.ndarray
    times_s: np.ndarray
    baseline: Baseline
    maps: dict[str, PerfusionMaps]
    brain: np.ndarray
    tissue: np.ndarray
    grey: np.ndarray
    baseline_image: np.ndarray
    concentration: np.ndarray
    noise: float
    raw_noise: float
    smoothing_mm: float
    input: arterial.ArterialInput
    plane: Plane
    motion: motion.Motion
    motion_corrected: bool
    odd: np.ndarray
    drift: steadiness.Drift
    empty_slices: np.ndarray
    pattern_share: float
    uneven_tail_share: float
    vessel_hu: float

    @property
    def replaced(self) -> np.ndarray:
        """(z, t) slices of frames that hold no measurement: odd, or the head moved in them."""
        replaced = self.odd.copy()
        replaced[:, self.motion.bad_frames] = True
        return replaced

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


@dataclass(frozen=True)
class SeriesOptions:
    """What is known of a series besides its voxels, and what is done with it.

    Attributes
    ----------
    echo_time_s
        For ``dsc``.
    aif
        (t,) arterial concentration to use in place of the one found.
    engines, device
        Of :func:`corelab.perfusion.fit_perfusion`.
    correct_motion
        Correct where motion is found; it is measured in any case.
    correct_leakage
        Of DSC in enhancing lesions; see :mod:`corelab.perfusion.leakage`.
    slice_times_s
        (z,) seconds from the start of a frame to each slice, where they are not simultaneous
        (a table that shuttles between two positions, 2D acquisition).
    lost
        (z, t) slices of frames without signal that were filled in before.
    """

    echo_time_s: float | None = None
    aif: np.ndarray | None = None
    engines: tuple[str, ...] = ENGINES
    correct_motion: bool = True
    correct_leakage: bool = False
    slice_times_s: np.ndarray | None = None
    threads: int | None = None
    device: str = "cpu"
    lost: np.ndarray | None = None


_DEFAULTS = SeriesOptions()


def analyse_series(
    signal: np.ndarray,
    affine: np.ndarray,
    times_s: np.ndarray,
    modality: str,
    brain: np.ndarray,
    options: SeriesOptions = _DEFAULTS,
) -> Series:
    """Everything from raw signal to maps.

    Parameters
    ----------
    signal
        (x, y, z, t) HU (``ctp``) or MR signal (``dsc``).
    affine
        Voxel to world (RAS) in mm.
    times_s
        (t,) seconds.
    modality
        ``ctp`` or ``dsc``.
    brain
        Brain mask.
    options
        What else is known, and what is done.

    Raises
    ------
    PerfusionError
        If the series holds no bolus or no tissue.
    """
    times = checked_times(times_s, signal.shape[3])
    if not brain.any():
        raise PerfusionError("the brain mask is empty: supply one as a scan of kind mask-brain")
    along = coarse.blocks(affine, signal.shape)
    if along != (1, 1):
        series = analyse_series(
            coarse.averaged(signal, along), coarse.coarse_affine(affine, along), times_s, modality,
            coarse.averaged(brain, along) >= 0.5, options,
        )  # fmt: skip
        return coarse.refined(series, along, brain, affine)
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    ready = _steadied(signal, affine, times, modality, brain, options)
    brain, baseline = ready.brain, ready.baseline
    image = ready.signal[..., baseline.start : baseline.stop].mean(axis=-1)
    conc = to_concentration(ready.signal, modality, baseline, echo_time_s=options.echo_time_s)
    np.nan_to_num(conc, copy=False, nan=0.0)
    if options.slice_times_s is not None:
        conc = aligned_slices(conc, times, np.asarray(options.slice_times_s, float))
    plane = tissue.midsagittal_plane(image, affine, brain)
    if options.aif is None:
        around = _search_region(ready, image, sizes, modality)
        source = arterial.find_arterial_input(
            conc, times, around, baseline, affine, plane, threads=options.threads
        )
    else:
        source = arterial.supplied_input(np.asarray(options.aif, float), times)
    box = tissue.bounding_box(brain)
    support, aim = _support(conc, image, brain, sizes, modality, box, options.threads)
    clean = tissue.denoise(conc[box], support[box], sizes, baseline, aim, threads=options.threads)
    conc = np.zeros_like(conc)
    conc[box] = clean.concentration
    if options.correct_leakage and modality == "dsc":
        curves = conc[support]
        steady = leakage.non_enhancing(curves, clean.noise, baseline.arrival)
        conc[support] = leakage.correct_leakage(curves, times, steady).corrected
    maps = {
        # The pipeline reports physical units for both modalities; see docs/perfusion.md.
        engine: fit_perfusion(
            conc, times, source.curve, "concentration", engine, mask=support,
            baseline_frames=baseline.stop, tissue_factor=TISSUE_FACTOR, sigma=clean.noise,
            nuisance=motion.main_course(ready.motion, baseline.stop) if ready.corrected else None,
            threads=options.threads, device=options.device,
        )
        for engine in options.engines
    }  # fmt: skip
    inside = _without_vessels(next(iter(maps.values())), support, modality)
    odd = ready.odd if options.lost is None else ready.odd | options.lost
    return Series(
        modality, affine, times, baseline, maps, brain, inside,
        _grey_matter(image, inside, sizes), image, conc, clean.noise, clean.raw_noise,
        clean.guide_mm, source, plane, ready.motion, ready.corrected, odd, ready.drift,
        ready.empty, ready.pattern, ready.tail, _vessel_level(source, image, modality),
    )  # fmt: skip


def _search_region(
    ready: _Steady, image: np.ndarray, sizes: np.ndarray, modality: str
) -> np.ndarray:
    """Where vessels are looked for: the brain and its surroundings."""
    around = ndimage.binary_dilation(ready.brain, np.ones((3, 3, 1), bool), iterations=4)
    if modality == "ctp":
        around &= image < tissue.BONE_HU
    else:
        # Where there is hardly any signal, noise alone looks like a strong bolus.
        around &= image > LEAST_SIGNAL * np.median(image[ready.brain])
    if ready.corrected:
        around &= ~_at_edges(image, sizes, ready.motion)
    return np.asarray(around)


def _without_vessels(maps: PerfusionMaps, support: np.ndarray, modality: str) -> np.ndarray:
    """Tissue without voxels that are mostly blood."""
    volume = np.nan_to_num(maps.cbv_ml_100g)
    typical = float(np.median(volume[support]))
    if modality == "dsc":
        # The scale of DSC rests on an artery that saturates: only ratios are to be trusted.
        most = VESSEL_TIMES_TISSUE * typical
    else:
        most = max(tissue.VESSEL_CBV_ML_100G, LEAST_VESSEL_TIMES_TISSUE * typical)
    return np.asarray(support & (volume < most))


def _at_edges(image: np.ndarray, sizes: np.ndarray, moved: motion.Motion) -> np.ndarray:
    """Voxels at borders so steep that what motion correction leaves looks like a bolus there."""
    left_mm = LEFT_MOTION * max(
        moved.largest_mm, np.deg2rad(moved.largest_degrees) * motion.HEAD_RADIUS_MM
    )
    axes = [axis for axis in range(3) if image.shape[axis] > 1]
    steep = sum((np.gradient(image, axis=axis) / sizes[axis]) ** 2 for axis in axes)
    return np.asarray(
        np.sqrt(steep) * left_mm > EDGE_CHANGE * np.ptp(np.percentile(image, [1, 99]))
    )


@dataclass(frozen=True)
class _Steady:
    """A series with its odd frames replaced, its motion corrected and its drift subtracted."""

    signal: np.ndarray
    brain: np.ndarray
    baseline: Baseline
    motion: motion.Motion
    corrected: bool
    odd: np.ndarray
    drift: steadiness.Drift
    empty: np.ndarray
    pattern: float
    tail: float


def _steadied(
    signal: np.ndarray,
    affine: np.ndarray,
    times: np.ndarray,
    modality: str,
    brain: np.ndarray,
    options: SeriesOptions,
) -> _Steady:
    """What a scanner, an export or a patient disturbed, repaired where that can be done."""
    fault = last_axis_fault(signal)
    if fault:
        raise PerfusionError(f"{fault}: export the series again with time as the fourth axis")
    signal, odd = without_gaps(signal, times)
    empty = steadiness.empty_slices(signal, brain)
    brain = brain & ~empty
    _check_brain(signal, brain, affine, modality)
    odd = odd | steadiness.odd_levels(signal, times, brain, modality)
    signal = steadiness.replaced(signal, odd, times)
    curve = signal[brain].mean(axis=0, dtype=np.float64)
    baseline = find_baseline(curve, modality)
    _check_baseline(curve, baseline, modality)
    baseline = _early(baseline)
    before = slice(baseline.start, baseline.stop)
    moved = motion.estimate_motion(signal, affine, baseline.stop, modality)
    corrected = options.correct_motion and moved.found
    more = np.zeros_like(odd)
    if corrected:
        signal = motion.correct_motion(
            signal, affine, moved, before, modality, threads=options.threads
        )
        more[:, moved.bad_frames] = True
        signal = steadiness.replaced(signal, more, times)
        more = steadiness.odd_levels(signal, times, brain, modality)
    more = more | steadiness.odd_scatter(signal, times, brain, modality)
    signal = steadiness.replaced(signal, more, times)
    drift = steadiness.Drift()
    if modality == "ctp":
        sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        drift = steadiness.find_drift(signal, times, brain, sizes, baseline.stop, moved=corrected)
        if drift.course is not None:
            signal = signal - drift.course.astype(np.float32)
    pattern = float("nan")
    if modality == "ctp":
        rise = steadiness.rise_of(steadiness.brain_level(signal, brain, modality), modality)
        pattern = steadiness.pattern_share(signal, brain, before, rise)
    tail = steadiness.uneven_tail(signal, brain, before, modality)
    return _Steady(
        signal, brain, baseline, moved, corrected, odd | more, drift, empty, pattern, tail
    )


def _check_brain(signal: np.ndarray, brain: np.ndarray, affine: np.ndarray, modality: str) -> None:
    """Refuse a brain that no head holds, and CT numbers that no brain has."""
    volume_ml = float(brain.sum() * abs(np.linalg.det(affine[:3, :3]))) / 1000.0
    if not brain.any():
        raise PerfusionError("every slice of the brain is empty: export the series again")
    if volume_ml > LARGEST_BRAIN_ML:
        raise PerfusionError(
            f"the brain mask holds {volume_ml:.0f} mL and no brain is larger than "
            f"{LARGEST_BRAIN_ML:.0f} mL: the axes or the voxel sizes of the series are wrong (is "
            "time the fourth axis?), or the mask is; export the series again"
        )
    middle = float(np.median(signal[brain][:, ::4]))
    if modality == "ctp" and not BRAIN_HU[0] <= middle <= BRAIN_HU[1]:
        offset = " This is the offset of 1024 HU of stored values." if 950 < middle < 1150 else ""
        raise PerfusionError(
            f"the median of the brain is {middle:.0f}, a brain has {BRAIN_HU[0]:.0f} to "
            f"{BRAIN_HU[1]:.0f} HU: the series is not in HU, and HU identify tissue.{offset} "
            "Convert it again with rescale slope and intercept applied"
        )


def _check_baseline(curve: np.ndarray, baseline: Baseline, modality: str) -> None:
    """Refuse a series that begins after the arrival of contrast."""
    rising = curve if modality == "ctp" else -curve
    rising = rising[baseline.start :]
    noise = 1.4826 * np.median(np.abs(np.diff(rising, n=2))) / np.sqrt(6.0)
    rise = rising.max() - np.median(np.sort(rising)[: max(3, len(rising) // 5)])
    early = rising[2] - rising[0]
    if rise > 8.0 * noise and (rising.argmax() <= 1 or early > max(0.15 * rise, 5.0 * noise)):
        raise PerfusionError(
            "the series has no frame before the bolus: the brain brightens from its first frame "
            "on. Concentration is the change from the baseline, so nothing can be measured; "
            "export all frames, or check that the first ones were not cut off"
        )


def _vessel_level(source: arterial.ArterialInput, image: np.ndarray, modality: str) -> float:
    """Lower median baseline (HU) of artery and vein: contrast before the first frame lifts both.

    The vein alone may lie beside bone (the superior sagittal sinus at the inner table).
    """
    if modality != "ctp" or source.supplied:
        return float("nan")
    vessels = [v for v in (source.artery, source.vein) if v is not None and len(v.voxels)]
    return min(float(np.median(image[tuple(v.voxels.T)])) for v in vessels)


def _early(baseline: Baseline) -> Baseline:
    """Baseline without its last frame where there are enough: arteries fill before the brain."""
    if baseline.n_frames < 5:
        return baseline
    return replace(baseline, stop=baseline.stop - 1)


def _support(
    conc: np.ndarray,
    image: np.ndarray,
    brain: np.ndarray,
    sizes: np.ndarray,
    modality: str,
    box: tuple[slice, ...],
    threads: int | None,
) -> tuple[np.ndarray, float]:
    """Tissue whose curves may be mixed, and the noise to aim at."""
    inner = tissue.parenchyma(image, conc.mean(axis=-1), brain, sizes, modality)
    peak = np.zeros(brain.shape, np.float32)
    peak[box] = tissue.smoothed(conc[box], brain[box], sizes, 1.0, threads).max(axis=-1)
    if not inner.any():
        raise PerfusionError(
            "no voxel of the brain mask has the signal of grey or white matter: check the unit "
            "of the series (CT in HU) and its brain mask"
        )
    if modality == "ctp":
        support = inner & (peak < tissue.VESSEL_PEAK_HU)
        mean = conc[support].mean(axis=0, dtype=np.float64) if support.any() else np.zeros(1)
        aim = min(tissue.NOISE_AIM_HU, tissue.NOISE_AIM_SHARE * float(mean.max()))
        return support, aim
    typical = float(np.median(peak[inner]))
    return inner & (peak < VESSEL_TIMES_TISSUE * typical), tissue.NOISE_AIM_SHARE * typical


def _grey_matter(image: np.ndarray, inside: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Grey matter by the brightness of the baseline (denser on CT, brighter on MR)."""
    from skimage.filters import threshold_otsu

    if inside.sum() < 100:
        return inside.copy()
    smooth = tissue.smoothed(image, inside, sizes, 1.6)
    return np.asarray(inside & (smooth > threshold_otsu(smooth[inside])))


def gate_values(series: Series) -> dict[str, float]:
    """What the quality gates look at (see :mod:`corelab.perfusion.gates`)."""
    times, source, base = series.times_s, series.input, series.baseline
    intervals = np.diff(times)
    sizes = np.sqrt((series.affine[:3, :3] ** 2).sum(axis=0))
    coverage = float(series.brain.shape[2] * sizes[2])
    brain_ml = float(series.brain.sum()) * series.voxel_ml
    artery = source.artery
    before = artery.curve[base.start : base.stop]
    before = before[before < 0.05 * artery.peak]
    replaced = series.replaced
    white = series.tissue & ~series.grey
    curve = series.concentration[white if white.sum() >= 100 else series.tissue].mean(
        axis=0, dtype=np.float64
    )
    values = {
        "frame_interval_s": float(np.median(intervals)),
        "duration_s": float(times[-1] - times[0] + np.median(intervals)),
        "frames": float(len(times)),
        "baseline_frames": float(base.n_frames),
        "aif_width_s": artery.width_s,
        "aif_time_to_peak_s": artery.time_to_peak_s,
        "after_aif_peak_s": float(times[-1] - times[0]) - artery.time_to_peak_s,
        "aif_snr": float(artery.peak / before.std(ddof=1)) if len(before) > 1 else float("nan"),
        "tissue_cnr": float(curve.max() / series.noise),
        "second_rise_share": _second_rise(curve),
        "motion_mm": series.motion.largest_mm,
        "motion_degrees": series.motion.largest_degrees,
        "replaced_frames_share": float(replaced.mean()),
        "replaced_frames_in_a_row": float(max(_longest_run(np.flatnonzero(z)) for z in replaced)),
        "missing_slices_share": float(series.empty_slices.mean()),
        "drift_share": series.drift.share,
        "level_jump_share": series.drift.jump_share,
        "uneven_drift_share": series.drift.uneven_share,
        "pattern_share": series.pattern_share,
        "uneven_tail_share": series.uneven_tail_share,
        "coverage_mm": coverage,
        "brain_volume_share": brain_ml / brain_limits_ml(coverage)[1],
        "aif_peak_hu": artery.peak * source.scale,
        "aif_peak_unscaled_hu": artery.peak,
        "residual_noise_hu": series.noise,
        "vessel_baseline_hu": series.vessel_hu,
        "normal_mtt_s": _normal_mtt(series),
    }
    if source.vein is not None:
        values["vof_minus_aif_s"] = source.vein.centroid_s - artery.centroid_s
        values["vof_peak_hu"] = source.vein.peak
        values["vof_tail_share"] = _first_pass_tail(source.vein.curve, times)
    return values


def repairs(series: Series) -> list[str]:
    """What was wrong with a series and was repaired or left, in sentences.

    Frames are counted from 1, slices from 1 at the bottom.
    """
    said = []
    replaced = series.replaced if series.motion_corrected else series.odd
    if replaced.any():
        shown = []
        for frame in np.flatnonzero(replaced.any(axis=0)):
            slices = np.flatnonzero(replaced[:, frame]) + 1
            where = (
                "all slices"
                if len(slices) == len(replaced)
                else (f"slice {', '.join(map(str, slices))}")
            )
            shown.append(f"frame {frame + 1} ({series.times_s[frame]:g} s, {where})")
        more = f" and {len(shown) - _FRAMES_NAMED} more" if len(shown) > _FRAMES_NAMED else ""
        said.append(
            f"{'; '.join(shown[:_FRAMES_NAMED])}{more}: brightness or position departs from the "
            "frames beside, or there was no signal; interpolated in time"
        )
    empty = np.flatnonzero(series.empty_slices) + 1
    if len(empty):
        said.append(
            f"slice {', '.join(map(str, empty))} holds no signal: its tissue is in no volume, so "
            "volumes are too small; export the series again"
        )
    drift = series.drift
    if drift.course is not None:
        largest = float(drift.course.ravel()[np.abs(drift.course).argmax()])
        said.append(
            f"the level of tissue that does not enhance drifts by {largest:+.1f} HU; it was "
            "subtracted from every voxel, since a drift looks like a change of blood volume"
        )
    elif drift.share > steadiness.LARGEST_DRIFT:
        said.append(
            "the level of tissue that does not enhance changes by more than the bolus does, and "
            "not smoothly or not everywhere alike: it was left, and volumes are not reliable"
        )
    return said


def _normal_mtt(series: Series) -> float:
    """Median transit time (s) of tissue that is not late."""
    maps = series.maps.get("bayes") or next(iter(series.maps.values()))
    with np.errstate(invalid="ignore"):
        early = series.tissue & (maps.tmax_s < np.nanmedian(maps.tmax_s[series.tissue]))
    return float(np.nanmedian(maps.mtt_s[early])) if early.any() else float("nan")


def _longest_run(frames: np.ndarray) -> int:
    """Number of frames in the longest run of consecutive ones."""
    parts = np.split(np.asarray(frames), np.flatnonzero(np.diff(frames) != 1) + 1)
    return max(len(part) for part in parts)


def _second_rise(curve: np.ndarray) -> float:
    """By how much a curve rises again after its peak, as a share of the peak: a second bolus."""
    after = curve[int(curve.argmax()) :]
    return float((after - np.minimum.accumulate(after)).max() / curve.max())


def _first_pass_tail(curve: np.ndarray, times_s: np.ndarray) -> float:
    """Share of the peak that the first pass still has in the last frame.

    Recirculation keeps a raw curve up, so the falling limb (80 % to 35 % of the peak) is continued
    as an exponential; a curve that never falls so far is taken as it is.
    """
    peak = int(curve.argmax())
    share = curve[peak:] / curve[peak]
    low = np.flatnonzero(share < 0.35)
    last = float(max(share[-1], 0.0))
    if not low.size:
        return last
    limb = np.arange(len(share)) < low[0]
    limb &= share < 0.8
    if limb.sum() < 2:
        limb = np.arange(len(share)) <= low[0]
    time = times_s[peak:][limb]
    if len(time) < 2:
        return last
    slope, level = np.polyfit(time, np.log(np.maximum(share[limb], 1e-6)), 1)
    return float(min(last, np.exp(level + slope * times_s[-1])))
