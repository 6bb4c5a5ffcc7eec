"""Grid-Bayes: posterior of blood volume, transit time and delay over a grid of model curves.

Every pair of transit time and delay gives one model curve (atom): the arterial curve convolved
with a residue function of that mean transit time, moved by that delay. A voxel's amplitude on an
atom has a closed form, so the likelihood of each atom is ``exp((c . b)^2 / 2 sigma^2)`` for
unit-length ``b``; means and SDs over the grid need no sampling and no starting values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincc

from corelab.perfusion import accelerated
from corelab.perfusion.accelerated import Device
from corelab.perfusion.concentration import bolus_arrival
from corelab.perfusion.parallel import over_blocks

#: Mean transit times of the grid in s; shorter ones lift CBF without being resolvable.
TRANSIT_TIMES_S = np.geomspace(2.5, 30.0, 24)
#: Where learning of the prior starts: a log-normal transit time with this median (s) and SD of the
#: logarithm (95 % between 1 and 35 s), any delay. Without it the posterior of a noisy curve reaches
#: to the end of the grid, and its mean is late; a narrower one draws the core's flow to normal.
TRANSIT_PRIOR = (6.0, 0.9)
#: Delays of the grid in s; tissue may be earlier than the chosen artery.
DELAYS_S = np.arange(-3.0, 12.01, 0.5)
#: Residue functions whose atoms share the grid, by the spread of the transit times: one well-mixed
#: compartment (coefficient of variation 1), a shortest transit time followed by mixing (0.65),
#: transit times of equal frequency (0.58), plug flow (0).
FAMILIES = ("exponential", "plug0.35", "linear", "box")
#: Curves that the prior is learned from; rounds of learning of the residue functions, and of
#: transit times and delays (few: many would leave peaks that noise made).
LEARNED_FROM = 2000
FAMILY_ROUNDS, GRID_ROUNDS = 150, 10
#: Share of the prior that stays as it was before learning: a lesion of few voxels keeps its chance.
UNLEARNED = 0.3
#: A family that holds less than this share of the curves is left out.
LEAST_SHARE = 0.02
#: Parameters of a model curve: family, transit time, delay, area.
PARAMETERS = 4
#: Share of the curves' 95th percentile peak below which noise is not believed.
LEAST_NOISE = 0.01
_FINE_STEP_S = 0.05


@dataclass(frozen=True)
class Posterior:
    """Posterior means and SDs of each voxel, before the tissue factor.

    Attributes
    ----------
    area, area_sd
        Blood volume as a fraction (ratio of areas).
    flow_per_s, flow_sd_per_s
        ``area / E[MTT]`` in 1/s, and the posterior SD of flow.
    mtt_s, mtt_sd_s, delay_s, delay_sd_s
        Transit time and delay.
    tmax_s, tmax_sd_s
        ``delay + MTT / 2``.
    sigma
        SD of the noise that the likelihood used, in the unit of the curves.
    prior
        (families, transit times, delays) prior that was used.
    """

    area: np.ndarray
    mtt_s: np.ndarray
    delay_s: np.ndarray
    tmax_s: np.ndarray
    flow_per_s: np.ndarray
    area_sd: np.ndarray
    mtt_sd_s: np.ndarray
    delay_sd_s: np.ndarray
    tmax_sd_s: np.ndarray
    flow_sd_per_s: np.ndarray
    sigma: float
    prior: np.ndarray


def _residue_function(family: str, times_s: np.ndarray, mtt_s: float) -> np.ndarray:
    """Residue function with R(0) = 1 and area MTT.

    ``exponential``, ``linear`` (falls to 0 at twice the MTT), ``box``, ``gamma<alpha>`` (transit
    times gamma-distributed with shape alpha: ``gamma1`` is exponential) or ``plug<share>`` (nothing
    leaves for that share of the MTT, then exponential).
    """
    if family == "exponential":
        return np.exp(-times_s / mtt_s)
    if family == "linear":
        return np.maximum(1.0 - times_s / (2.0 * mtt_s), 0.0)
    if family == "box":
        return (times_s < mtt_s).astype(float)
    if family.startswith("gamma"):
        shape = float(family.removeprefix("gamma"))
        return gammaincc(shape, times_s * shape / mtt_s)
    if family.startswith("plug"):
        share = float(family.removeprefix("plug"))
        mixing = np.maximum(times_s - share * mtt_s, 0.0) / ((1.0 - share) * mtt_s)
        return np.exp(-mixing)
    raise ValueError(f"unknown residue family '{family}'")


def _model_curves(
    aif: np.ndarray,
    interval_s: float,
    *,
    families: tuple[str, ...] = FAMILIES,
    transit_times_s: np.ndarray = TRANSIT_TIMES_S,
    delays_s: np.ndarray = DELAYS_S,
) -> tuple[np.ndarray, np.ndarray]:
    """Atoms (m, t) for unit blood volume, and their (m, 2) transit times and delays."""
    times = np.arange(len(aif)) * interval_s
    fine = np.arange(0.0, times[-1] + _FINE_STEP_S, _FINE_STEP_S)
    artery = np.interp(fine, times, aif)
    length = 1 << (2 * len(fine) - 1).bit_length()
    spectrum = np.fft.rfft(artery, length)
    atoms, grid = [], []
    for family in families:
        for mtt in transit_times_s:
            residue = _residue_function(family, fine, mtt)
            # Normalised by its own sum, so that the area is exact on this grid.
            full = np.fft.irfft(spectrum * np.fft.rfft(residue / residue.sum(), length), length)
            full = full[: len(fine)]
            if residue[-1] > 0.0:
                full = full * residue.sum() * _FINE_STEP_S / mtt
            for delay in delays_s:
                atoms.append(np.interp(times - delay, fine, full, left=0.0))
                grid.append((mtt, delay))
    return np.array(atoms), np.array(grid)


def estimate(
    curves: np.ndarray,
    aif: np.ndarray,
    interval_s: float,
    *,
    sigma: float,
    families: tuple[str, ...] = FAMILIES,
    prior: np.ndarray | None = None,
    baseline_frames: int | None = None,
    nuisance: np.ndarray | None = None,
    transit_times_s: np.ndarray = TRANSIT_TIMES_S,
    delays_s: np.ndarray = DELAYS_S,
    threads: int | None = None,
    device: Device | None = None,
) -> Posterior:
    """Posterior over the grid for every curve.

    Parameters
    ----------
    curves
        (n, t) tissue concentration, finite.
    aif
        (t,) arterial concentration in the same unit.
    interval_s
        Frame interval.
    sigma
        SD of the curves' noise; taken as at least 1 % of a high tissue peak, because a
        model curve is never exact, and for a curve as no less than what its best model leaves.
    families, transit_times_s, delays_s
        The grid.
    prior
        (families, transit times, delays) weights of the grid; default: learned from the curves.
    baseline_frames
        Number of frames whose mean was subtracted as the level of the baseline. Its noise is in
        every frame of a curve, where it may outweigh the blood volume of a core. Default: the
        level is exact.
    nuisance
        (k, t) courses of which every curve may hold an unknown multiple.
    threads
        The result does not depend on it.
    device
        A graphics card; None for the compiled loops. The same to 1e-4.

    Examples
    --------
    >>> t = np.arange(40.0); artery = t**3 * np.exp(-t / 1.5)
    >>> atoms, grid = _model_curves(artery, 1.0)
    >>> found = estimate(0.04 * atoms[[400]], artery, 1.0, sigma=0.0)
    >>> bool(abs(found.mtt_s[0] - grid[400, 0]) < 0.3), round(float(found.area[0]), 3)
    (True, 0.04)
    """
    from corelab.perfusion import kernels

    curves = np.array(curves, dtype=np.float32, order="C")
    high = float(np.percentile(curves.max(axis=1), 95)) if len(curves) else 1.0
    floor = LEAST_NOISE * max(high, 1e-12)
    sigma = max(sigma, floor) if np.isfinite(sigma) else floor
    if len(delays_s) > kernels.GROUP:
        raise ValueError(f"{len(delays_s)} delays; the grid holds at most {kernels.GROUP}")
    atoms, grid = _model_curves(
        _steady_artery(aif), interval_s, families=families, transit_times_s=transit_times_s,
        delays_s=delays_s,
    )  # fmt: skip
    whitening = _whitening(curves.shape[1], baseline_frames, nuisance)
    curves = curves @ whitening.astype(np.float32)
    atoms = atoms @ whitening
    freedom = float(max(np.linalg.matrix_rank(whitening) - PARAMETERS, 1))
    shape = (len(families), len(transit_times_s), len(delays_s))
    if prior is None:
        prior = _learned_prior(curves, atoms, _start(shape, transit_times_s), sigma, freedom)
    elif prior.shape != shape:
        raise ValueError(f"the prior has shape {prior.shape}, the grid {shape}")
    used = np.repeat(prior.sum(axis=(1, 2)) > 0, shape[1] * shape[2])
    atoms, grid, weight = atoms[used], grid[used], (prior.ravel() / prior.max())[used]
    padding = -curves.shape[1] % kernels.STRIDE if device is None else 0
    layout = _grouped(atoms, grid, weight, len(delays_s), kernels.GROUP, padding)
    if device is not None:
        out = accelerated.posterior(device, curves, *layout, sigma, freedom)
    else:
        out = np.zeros((len(curves), 10), np.float32)
        padded = np.pad(curves, ((0, 3), (0, padding)))
        over_blocks(kernels.posterior, len(curves), threads, padded, *layout, sigma, freedom, out)
    area, mtt, delay, tmax, flow, area_sd, mtt_sd, delay_sd, tmax_sd, flow_sd = out.T
    return Posterior(
        area, mtt, delay, tmax, flow, area_sd, mtt_sd, delay_sd, tmax_sd, flow_sd, sigma,
        prior,
    )  # fmt: skip


def _start(shape: tuple[int, int, int], transit_times_s: np.ndarray) -> np.ndarray:
    """Prior before learning: a log-normal transit time, any delay, any residue function."""
    centre, spread = TRANSIT_PRIOR
    start = np.exp(-0.5 * (np.log(transit_times_s / centre) / spread) ** 2)
    return np.broadcast_to(start[:, None], shape)


def _whitening(frames: int, baseline_frames: int | None, nuisance: np.ndarray | None) -> np.ndarray:
    """Matrix (t, t) after which noise, error of the level and nuisances together are white.

    Courses of unknown size (flat prior) are projected out. The level has the variance of the noise
    over the number of frames that it is the mean of, so the mean over time is scaled down.
    """
    courses = np.zeros((0, frames)) if nuisance is None else np.atleast_2d(nuisance)
    courses = courses[np.linalg.norm(courses, axis=1) > 1e-9]
    axes = np.linalg.qr(np.vstack([courses, np.ones((1, frames))]).T)[0]
    weights = np.ones(axes.shape[1])
    if baseline_frames is not None:
        weights[-1] = 1.0 - 1.0 / np.sqrt(1.0 + frames / baseline_frames)
    else:
        weights[-1] = 0.0
    return np.asarray(np.eye(frames) - (axes * weights) @ axes.T)


def _steady_artery(aif: np.ndarray) -> np.ndarray:
    """Arterial curve with less noise: 0 before the bolus, then towards parabolas of five frames.

    Noise of the artery is common to all voxels, so thousands of curves do not average it out: it
    makes residue functions look wider than they are, and Tmax late. The local parabola (Savitzky
    and Golay 1964) moves a frame by no more than the SD of the frames before the bolus: a larger
    difference is the shape of the bolus, not noise. A bolus of fewer than six frames at half its
    height is left as it is.
    """
    steady = np.array(aif, dtype=float)
    arrival = bolus_arrival(steady)
    before = steady[:arrival]
    if len(before) >= 3 and (steady > 0.5 * steady.max()).sum() >= 6:
        spread = float(before.std(ddof=1))
        steady += np.clip(_local_parabolas(steady) - steady, -spread, spread)
    steady[:arrival] = 0.0
    return steady


def _local_parabolas(curve: np.ndarray) -> np.ndarray:
    """Curve (t,) with every frame on the parabola through the five frames around it.

    scipy.signal has it, and takes a second to import.
    """
    powers = np.vander(np.arange(-2.0, 3.0), 3)
    fitted = powers @ np.linalg.pinv(powers)
    steady = np.convolve(curve, fitted[2], mode="same")
    steady[:2], steady[-2:] = fitted[:2] @ curve[:5], fitted[3:] @ curve[-5:]
    return np.asarray(steady)


def _learned_prior(
    curves: np.ndarray, atoms: np.ndarray, start: np.ndarray, sigma: float, freedom: float
) -> np.ndarray:
    """Prior over residue function, transit time and delay by expectation maximisation.

    One noisy curve hardly tells an exponential residue function from a plug with another delay, and
    the two differ by MTT / 4 in Tmax; thousands of curves of one scan do. First the shares of the
    residue functions are learned, with the transit times of each (with fixed ones, the family whose
    fitted transit times are likely would win), then the grid within them. At most 2000 curves (n,
    t), evenly spaced, are used; ``atoms`` (m, t) are in the order of ``start``, the prior before
    learning. Its sum is 1, rounded so that it does not depend on the last bits of a processor; 0
    for a family that the scan does not show.
    """
    start = start / start.sum()
    if not len(curves):
        return start
    some = curves[np.unique(np.linspace(0, len(curves) - 1, LEARNED_FROM).astype(int))]
    length = np.linalg.norm(atoms, axis=1)
    kept = length > 1e-6 * length.max()
    shapes = (atoms / np.where(kept, length, 1.0)[:, None]).astype(np.float32)
    likely = np.empty((len(some), len(atoms)), np.float32)
    for first in range(0, len(some), 500):
        match = np.maximum(some[first : first + 500] @ shapes.T, 0.0)
        best = match.max(axis=1, keepdims=True)
        left = (some[first : first + 500] ** 2).sum(axis=1, keepdims=True) - best**2
        variance = np.maximum(left / np.float32(freedom), np.float32(sigma**2))
        likely[first : first + 500] = kept * np.exp(
            (match - best) * (match + best) / (2 * variance)
        )
    families, _, delays = start.shape
    by_transit = likely.reshape(len(some), -1, delays).mean(axis=2, dtype=np.float64)
    weights = _learned(by_transit, start.sum(axis=2).ravel(), FAMILY_ROUNDS)
    shares = weights.reshape(families, -1).sum(axis=1)
    shares[shares < LEAST_SHARE] = 0.0
    before = start * (shares / shares.sum() / start.sum(axis=(1, 2)))[:, None, None]
    grid = _learned(likely, before.ravel(), GRID_ROUNDS).reshape(start.shape)
    prior = (1.0 - UNLEARNED) * grid + UNLEARNED * before
    return np.round(prior / prior.max(), 6) / np.round(prior / prior.max(), 6).sum()


def _learned(likelihood: np.ndarray, weights: np.ndarray, rounds: int) -> np.ndarray:
    """Mixture weights after some rounds of expectation maximisation."""
    for _ in range(rounds):
        evidence = np.maximum(likelihood @ weights, 1e-30)
        weights = weights * ((1.0 / evidence) @ likelihood) / len(likelihood)
        weights = weights / weights.sum()
    return weights


def _grouped(
    atoms: np.ndarray,
    grid: np.ndarray,
    prior: np.ndarray,
    n_delays: int,
    group: int,
    padding: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Atoms as the compiled loop wants them: unit length, in full groups of one transit time."""
    length = np.linalg.norm(atoms, axis=1)
    # A delay that moves the whole bolus out of the scan leaves no curve to compare with.
    kept = length > 1e-6 * length.max()
    unit = np.divide(1.0, length, out=np.zeros_like(length), where=kept)
    fill = ((0, 0), (0, group - n_delays))
    shapes = (atoms * unit[:, None]).T.reshape(atoms.shape[1], -1, n_delays)
    shapes = np.pad(shapes, ((0, padding), *fill))
    return (
        np.ascontiguousarray(shapes.reshape(len(shapes), -1), dtype=np.float32),
        np.ascontiguousarray(grid[::n_delays, 0]),
        np.pad(grid[:n_delays, 1], (0, group - n_delays)).astype(np.float32),
        np.pad(unit.reshape(-1, n_delays), fill).astype(np.float32),
        np.pad((prior * kept).reshape(-1, n_delays).astype(np.float32), fill),
    )
