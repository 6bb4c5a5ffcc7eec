"""One function from a signal and an artery to perfusion maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TypedDict, Unpack

import numpy as np

from corelab.perfusion import bayes, deconvolution
from corelab.perfusion.accelerated import Device, find_device
from corelab.perfusion.concentration import (
    TISSUE_FACTOR,
    Baseline,
    PerfusionError,
    bolus_arrival,
    checked_echo_time,
    checked_times,
    find_baseline,
    regular_times,
    resample,
    temporal_noise,
    to_concentration,
)
from corelab.perfusion.parallel import over_blocks
from corelab.terms.plugins import registry

MODALITIES = ("dsc", "ctp", "concentration")
#: A curve with more missing frames than this share has no value.
MOST_MISSING_FRAMES = 0.2


@dataclass(frozen=True)
class PerfusionMaps:
    """Maps of one fit: arrays of ``signal.shape[:-1]``, NaN where there is no value.

    Attributes
    ----------
    cbf_ml_100g_min, cbv_ml_100g, mtt_s
        Blood flow, blood volume and mean transit time (their ratio).
    tmax_s
        Time of the residue function's peak (``bayes``: delay + MTT / 2); negative where the
        tissue is earlier than the chosen artery.
    ttp_s
        Time of the tissue curve's peak, by a parabola, after bolus arrival.
    delay_s, *_sd
        Delay and posterior SDs, of ``bayes`` only, else None.
    method, interval_s, sigma, family_weights
        Engine, frame interval that it worked on; noise SD and share of each residue function in
        the prior (``bayes``).
    """

    cbf_ml_100g_min: np.ndarray
    cbv_ml_100g: np.ndarray
    mtt_s: np.ndarray
    tmax_s: np.ndarray
    ttp_s: np.ndarray
    method: str
    interval_s: float
    tissue_factor: float
    delay_s: np.ndarray | None = None
    cbf_sd_ml_100g_min: np.ndarray | None = None
    cbv_sd_ml_100g: np.ndarray | None = None
    mtt_sd_s: np.ndarray | None = None
    tmax_sd_s: np.ndarray | None = None
    delay_sd_s: np.ndarray | None = None
    sigma: float | None = None
    family_weights: tuple[float, ...] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The maps by name, without those that the engine does not give."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, np.ndarray)}


class EngineOptions(TypedDict, total=False):
    """Options of the engines; no result depends on ``threads``.

    Attributes
    ----------
    sigma
        SD of the noise of a tissue curve for ``bayes``, in the unit of concentration; default:
        from the frames before the bolus.
    oscillation_index
        Limit of ``osvd``; default 0.05 per second of frame interval, within 0.035 to 0.095.
    families
        Residue functions of ``bayes``; default :data:`corelab.perfusion.bayes.FAMILIES`.
    prior
        Weights of the grid of ``bayes``, see :func:`corelab.perfusion.bayes.estimate`; default:
        learned from the curves. With ``sigma`` it is all by which a value depends on other voxels.
    nuisance
        (k, t) courses of which every curve may hold an unknown multiple, for ``bayes``.
    threads
        Default: the cores that this process may use.
    """

    sigma: float | None
    oscillation_index: float | None
    families: tuple[str, ...] | None
    prior: np.ndarray | None
    nuisance: np.ndarray | None
    threads: int | None


def fit_perfusion(
    signal: np.ndarray,
    times_s: np.ndarray,
    aif: np.ndarray,
    modality: str = "dsc",
    method: str = "osvd",
    echo_time_s: float | None = None,
    mask: np.ndarray | None = None,
    *,
    baseline_frames: int | None = None,
    tissue_factor: float | None = None,
    device: str = "cpu",
    **options: Unpack[EngineOptions],
) -> PerfusionMaps:
    """Perfusion maps of a bolus passage by deconvolution with an arterial input.

    Parameters
    ----------
    signal
        (..., t): raw signal (``dsc``, ``ctp`` in HU) or ``concentration`` in any unit.
    times_s
        (t,) time of every frame in seconds. Unequal intervals are resampled to the median
        interval, at most 1.5 s.
    aif
        (t,) arterial curve of the same kind and unit as the signal.
    modality, echo_time_s
        ``dsc`` (with the echo time), ``ctp`` or ``concentration``.
    method
        A name of :data:`ENGINES`, see :mod:`corelab.perfusion.deconvolution` and
        :mod:`corelab.perfusion.bayes`.
    mask
        (...) voxels to fit; the others are NaN.
    baseline_frames
        Number of frames before the bolus; default: found on the arterial curve. For
        ``concentration``: that the mean of these was subtracted; default: the level is exact.
    tissue_factor
        k_H / rho, blood per tissue. Default 0.705 (haematocrit 0.45 and 0.25, density 1.04
        g/mL) for ``ctp``, where both curves are in HU; 1 for ``dsc`` and ``concentration``,
        where the calibration of tissue against artery is the caller's (relaxivities differ).
    device, options
        ``cpu``, or ``cuda`` by CuPy or PyTorch where one is installed: the same maps to 1e-4. Of
        the engines: :class:`EngineOptions`.

    Raises
    ------
    PerfusionError
        If frames, times and artery do not fit together, the artery shows no bolus, or a value
        that the modality needs is missing or implausible.
    DeviceError
        If there is no card for ``cuda``.

    Notes
    -----
    ``CBF = 6000 f max R``, ``CBV = 100 f sum(C) / sum(Ca)``, ``MTT = 60 CBV / CBF`` with the
    tissue factor ``f``. Up to 20 % missing (non-finite) frames of a voxel are interpolated; a
    voxel with more has no value. Methods: Ostergaard 1996 (Magn Reson Med 36:715), Wu 2003 (Magn
    Reson Med 50:164), Boutelier 2012 (IEEE Trans Med Imaging 31:1381).

    Examples
    --------
    A tissue of CBV 4 mL/100g and MTT 6 s, box-shaped residue, noise-free.

    >>> t = np.arange(0, 60, 1.0); fine = np.arange(0, 60, 0.01)
    >>> bolus = lambda x: np.clip(x - 10, 0, None) ** 3 * np.exp(-(x - 10) / 1.5)
    >>> area = np.cumsum(bolus(fine)) * 0.01
    >>> tissue = 0.04 / 6 * (np.interp(t, fine, area) - np.interp(t - 6, fine, area))
    >>> maps = fit_perfusion(tissue, t, bolus(t), modality="concentration", method="bayes")
    >>> round(float(maps.cbv_ml_100g), 1), bool(abs(maps.mtt_s - 6) < 1)
    (4.0, True)
    """
    signal, artery, times = _checked_input(signal, times_s, aif, modality, method, echo_time_s)
    chosen = _chosen_voxels(signal.shape[:-1], mask)
    curves = signal.reshape(-1, signal.shape[-1])
    curves = curves if chosen.all() else curves[chosen]
    usable, curves = _without_gaps(curves, times)
    curves, artery, baseline = _as_concentration(
        curves, artery, modality, echo_time_s, baseline_frames
    )
    if modality == "dsc":
        # A voxel without signal at baseline has no concentration.
        alive = np.isfinite(curves[:, 0])
        curves, usable[usable] = curves[alive], alive
    # The level of a concentration is exact, unless it came from frames before the bolus.
    subtracted = modality != "concentration" or baseline_frames is not None
    card = find_device(device)
    given = Problem(curves, artery, times, baseline, subtracted=subtracted, device=card, **options)
    default = TISSUE_FACTOR if modality == "ctp" else 1.0
    tissue_factor = default if tissue_factor is None else tissue_factor
    index = np.flatnonzero(chosen)[usable]
    return _maps(_sampled(given), method, tissue_factor, index, signal.shape[:-1])


def _maps(
    problem: Problem, method: str, factor: float, index: np.ndarray, shape: tuple[int, ...]
) -> PerfusionMaps:
    """Maps of one engine; its curves lie at ``index`` of the flattened grid."""
    area, top = _summary(problem.curves, problem.threads)
    noise, shares = None, None
    found = ENGINES[method](problem)
    if isinstance(found, bayes.Posterior):
        values = _bayes_maps(found, factor)
        noise, shares = found.sigma, tuple(found.prior.sum(axis=(1, 2)))
    else:
        values = _residue_maps(found, area / problem.artery.sum(), factor)
    values["ttp_s"] = _peak_times(problem.curves, top, problem.times) - problem.arrival_s
    maps = {name: _placed(v, index, shape) for name, v in values.items()}
    return PerfusionMaps(
        **maps, method=method, interval_s=problem.interval_s, tissue_factor=float(factor),
        sigma=noise, family_weights=shares,
    )  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What an engine gets: concentrations and their artery at equally spaced times.

    Attributes
    ----------
    curves, artery, times
        (n, t) tissue concentrations, finite; (t,) arterial concentration; (t,) seconds.
    nuisance, sigma, oscillation_index, families, prior, threads
        See :class:`EngineOptions`.
    subtracted
        Whether the mean of the baseline's frames was subtracted.
    device
        A graphics card, or None.
    arrival_s
        Time of the frame at which the bolus arrives, before any resampling.
    """

    curves: np.ndarray
    artery: np.ndarray
    times: np.ndarray
    baseline: Baseline
    nuisance: np.ndarray | None = None
    subtracted: bool = True
    sigma: float | None = None
    oscillation_index: float | None = None
    families: tuple[str, ...] | None = None
    prior: np.ndarray | None = None
    threads: int | None = None
    device: Device | None = None
    arrival_s: float = 0.0

    @property
    def interval_s(self) -> float:
        """Interval of the frames in seconds."""
        return float((self.times[-1] - self.times[0]) / (len(self.times) - 1))

    def noise(self) -> float:
        """SD of the frames before the bolus."""
        first = min(self.baseline.start, self.baseline.stop)
        return temporal_noise(self.curves[:, first : self.baseline.stop])


#: Of one problem: peak of each curve's residue function, or its posterior.
Engine = Callable[[Problem], deconvolution.Residue | bayes.Posterior]


def _posterior(problem: Problem) -> bayes.Posterior:
    return bayes.estimate(
        problem.curves, problem.artery, problem.interval_s,
        sigma=problem.noise() if problem.sigma is None else problem.sigma,
        families=problem.families or bayes.FAMILIES, prior=problem.prior,
        baseline_frames=problem.baseline.stop if problem.subtracted else None,
        nuisance=problem.nuisance, threads=problem.threads, device=problem.device,
    )  # fmt: skip


def _residue(problem: Problem, method: str) -> deconvolution.Residue:
    return deconvolution.deconvolve(
        problem.curves, problem.artery, problem.interval_s, method,
        oscillation_index=problem.oscillation_index, threads=problem.threads,
        device=problem.device,
    )  # fmt: skip


#: Engines by their names in the config.
ENGINES: Mapping[str, Engine] = registry(
    "engines",
    {
        "bayes": _posterior,
        **{name: partial(_residue, method=name) for name in ("osvd", "bsvd", "ssvd", "tikhonov")},
    },
)


def _sampled(given: Problem) -> Problem:
    """The problem at equally spaced times."""
    given = replace(given, arrival_s=float(given.times[given.baseline.arrival]))
    uniform = regular_times(given.times)
    if uniform is None:
        return given
    before = int((uniform <= given.times[given.baseline.stop - 1]).sum())
    nuisance = given.nuisance
    return replace(
        given,
        curves=resample(given.curves, given.times, uniform),
        artery=resample(given.artery, given.times, uniform),
        times=uniform,
        baseline=replace(given.baseline, stop=before),
        nuisance=None if nuisance is None else resample(nuisance, given.times, uniform),
    )


def _checked_input(
    signal: np.ndarray,
    times_s: np.ndarray,
    aif: np.ndarray,
    modality: str,
    method: str,
    echo_time_s: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if modality not in MODALITIES:
        raise PerfusionError(f"unknown modality '{modality}'; known: {', '.join(MODALITIES)}")
    if method not in ENGINES:
        raise PerfusionError(f"unknown method '{method}'; known: {', '.join(ENGINES)}")
    if modality == "dsc":
        checked_echo_time(echo_time_s)
    signal = np.asarray(signal, dtype=np.float32)
    if signal.ndim < 1:
        raise PerfusionError("the signal has no time axis; give an array (..., frames)")
    times = checked_times(times_s, signal.shape[-1])
    artery = np.asarray(aif, dtype=float).ravel()
    if artery.size != times.size:
        raise PerfusionError(
            f"the arterial curve has {artery.size} values for {times.size} frames: give it at "
            "the frame times of the signal"
        )
    if not np.isfinite(artery).all():
        raise PerfusionError("the arterial curve has values that are not finite: correct them")
    return signal, artery, times


def _chosen_voxels(shape: tuple[int, ...], mask: np.ndarray | None) -> np.ndarray:
    if mask is None:
        return np.ones(int(np.prod(shape, dtype=int)), bool)
    mask = np.asarray(mask)
    if mask.shape != shape:
        raise PerfusionError(
            f"the mask has shape {mask.shape}, the signal's voxels {shape}: a mask must lie on "
            "the grid of the signal; resample it"
        )
    return mask.astype(bool).ravel()


def _summary(curves: np.ndarray, threads: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Sum of every curve, and index of its highest frame."""
    from corelab.perfusion import kernels

    area, top = np.zeros(len(curves)), np.zeros(len(curves), np.int64)
    over_blocks(kernels.summary, len(curves), threads, np.ascontiguousarray(curves), area, top)
    return area, top


def _peak_times(curves: np.ndarray, top: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Time of the peak of curves (n, t): the top of the parabola through the three highest frames.

    Times are equally spaced. Whole frames would shift every share of tissue below a limit.
    """
    inner = np.clip(top, 1, len(times) - 2)
    rows = np.arange(len(curves))
    before, at, after = (curves[rows, inner + k].astype(np.float64) for k in (-1, 0, 1))
    bend = before - 2.0 * at + after
    share = np.divide(before - after, 2.0 * bend, out=np.zeros(len(at)), where=bend < 0)
    share = np.where(inner == top, np.clip(share, -0.5, 0.5), 0.0)
    return np.asarray(times[top] + share * (times[1] - times[0]))


def _without_gaps(curves: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which curves have a value, and these curves with their few missing frames interpolated."""
    # A sum is finite only where every frame is.
    suspect = np.flatnonzero(~np.isfinite(curves.sum(axis=1, dtype=np.float64)))
    usable = np.ones(len(curves), bool)
    if not len(suspect):
        return usable, curves
    finite = np.isfinite(curves[suspect])
    usable[suspect] = finite.mean(axis=1) >= 1.0 - MOST_MISSING_FRAMES
    curves = curves.copy()
    for row, seen in zip(suspect, finite, strict=True):
        if usable[row]:
            curves[row] = np.interp(times, times[seen], curves[row, seen])
    return usable, curves[usable]


def _as_concentration(
    curves: np.ndarray,
    artery: np.ndarray,
    modality: str,
    echo_time_s: float | None,
    baseline_frames: int | None,
) -> tuple[np.ndarray, np.ndarray, Baseline]:
    if modality == "concentration":
        arrival = bolus_arrival(artery)
        baseline = Baseline(0, max(arrival + 1, 1), arrival)
    else:
        baseline = find_baseline(artery, modality)
    if baseline_frames is not None:
        if not 1 <= baseline_frames < len(artery):
            raise PerfusionError(
                f"baseline_frames = {baseline_frames} of {len(artery)} frames; at least 1 frame "
                "must come before the bolus and some after it"
            )
        baseline = Baseline(0, baseline_frames, baseline_frames - 1)
    if modality != "concentration":
        artery = to_concentration(artery, modality, baseline, echo_time_s=echo_time_s).astype(float)
        curves = to_concentration(curves, modality, baseline, echo_time_s=echo_time_s)
    if not np.isfinite(artery).all() or artery.sum() <= 0 or artery.max() <= 0:
        raise PerfusionError(
            "the arterial curve shows no bolus (its area over baseline is not positive): without "
            "an arterial input there is no perfusion; choose another artery, and check that its "
            f"unit and direction are those of '{modality}'"
        )
    return curves, artery, baseline


def _bayes_maps(found: bayes.Posterior, factor: float) -> dict[str, np.ndarray]:
    flow_unit, volume_unit = 6000.0 * factor, 100.0 * factor
    return {
        "cbf_ml_100g_min": found.flow_per_s * flow_unit,
        "cbv_ml_100g": found.area * volume_unit,
        "mtt_s": found.mtt_s,
        "tmax_s": found.tmax_s,
        "delay_s": found.delay_s,
        "cbf_sd_ml_100g_min": found.flow_sd_per_s * flow_unit,
        "cbv_sd_ml_100g": found.area_sd * volume_unit,
        "mtt_sd_s": found.mtt_sd_s,
        "tmax_sd_s": found.tmax_sd_s,
        "delay_sd_s": found.delay_sd_s,
    }


def _residue_maps(
    residue: deconvolution.Residue, area: np.ndarray, factor: float
) -> dict[str, np.ndarray]:
    flow = np.maximum(residue.flow_per_s.astype(np.float64), 0.0)
    # Where noise leaves no flow, the transit time has no meaning.
    mtt = np.divide(area, flow, out=np.full_like(area, np.nan), where=flow > 1e-9)
    return {
        "cbf_ml_100g_min": flow * (6000.0 * factor),
        "cbv_ml_100g": area * (100.0 * factor),
        "mtt_s": mtt,
        "tmax_s": residue.tmax_s,
    }


def _placed(values: np.ndarray, index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    full = np.full(int(np.prod(shape, dtype=int)), np.nan, np.float32)
    full[index] = values
    return full.reshape(shape)
