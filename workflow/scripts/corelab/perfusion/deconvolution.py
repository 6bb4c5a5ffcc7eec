"""Deconvolution: from a tissue curve and an arterial curve to the flow-scaled residue function.

``C(t) = (rho / k_H) CBF * integral Ca(s) R(t - s) ds``. Sampled at equal intervals this is a
matrix equation. Four ways to invert it without drowning in noise:

``ssvd``
    Lower triangular (Toeplitz) matrix, singular values below 20 % of the largest dropped
    (Ostergaard 1996). Depends on the delay between artery and tissue.
``bsvd``
    Block-circulant matrix, zero-padded to twice the length, truncated at 10 % (Wu 2003). A
    circulant matrix is diagonal under the Fourier transform, so this is division of spectra.
``osvd``
    As bsvd, the truncation raised voxel by voxel until the residue function oscillates less
    than a limit (Wu 2003). The limit that serves best grows with the frame interval.
``tikhonov``
    Circulant, with a smooth filter ``A* / (|A|^2 + (lambda max|A|)^2)`` instead of truncation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import toeplitz

from corelab.perfusion import accelerated
from corelab.perfusion.accelerated import Device
from corelab.perfusion.parallel import over_blocks

SSVD_TRUNCATION = 0.20
BSVD_TRUNCATION = 0.10
TIKHONOV_LAMBDA = 0.10
#: Oscillation limit per second of frame interval (0.05 at 1 s, 0.095 near 2 s).
OSCILLATION_PER_S = 0.05
OSCILLATION_RANGE = (0.035, 0.095)
#: The time of the peak is read from a residue function held to this share of the limit: what
#: leaves the height of a peak least biased leaves its time noisier than need be. On noise-free
#: curves of three residue families a delay is then recovered to 0.3 s (at most 0.9 s with the
#: full limit), and on the Lund phantom its steps to 0.35 s (0.55 s).
TIMING_SHARE = 0.4
#: Truncation levels that osvd tries, highest first.
OSVD_LEVELS = np.linspace(0.95, 0.01, 20)


@dataclass(frozen=True)
class Residue:
    """Peak of the flow-scaled residue function of each voxel.

    Attributes
    ----------
    flow_per_s
        Its height in 1/s (mL of blood per mL and second before the tissue factor).
    tmax_s
        Time of its peak, sub-sample, negative where tissue is earlier than the artery.
    truncation
        Share of the largest singular value below which others were dropped.
    """

    flow_per_s: np.ndarray
    tmax_s: np.ndarray
    truncation: np.ndarray


def _oscillation_limit(interval_s: float) -> float:
    """Oscillation index that osvd allows at a frame interval."""
    return float(np.clip(OSCILLATION_PER_S * interval_s, *OSCILLATION_RANGE))


def _smoothed_arterial(aif: np.ndarray) -> np.ndarray:
    """Simpson-weighted artery ``(a[k-1] + 4 a[k] + a[k+1]) / 6``: second-order convolution."""
    smooth = np.array(aif, dtype=float)
    smooth[1:-1] = (aif[:-2] + 4.0 * aif[1:-1] + aif[2:]) / 6.0
    return smooth


def _padded_spectrum(aif: np.ndarray, interval_s: float) -> tuple[np.ndarray, int]:
    length = 2 * len(aif)
    padded = np.zeros(length)
    padded[: len(aif)] = aif
    return np.fft.rfft(_smoothed_arterial(padded)) * interval_s, length


def _circulant_operator(filter_: np.ndarray, n_frames: int, length: int) -> np.ndarray:
    kernel = np.fft.irfft(filter_, length)
    index = (np.arange(length)[None, :] - np.arange(n_frames)[:, None]) % length
    return kernel[index]


def _linear_operator(aif: np.ndarray, interval_s: float, method: str) -> np.ndarray:
    """Matrix (t, L) with ``residue = curve @ matrix`` for ``ssvd``, ``bsvd`` and ``tikhonov``."""
    n_frames = len(aif)
    if method == "ssvd":
        matrix = toeplitz(_smoothed_arterial(aif), np.zeros(n_frames)) * interval_s
        u, s, vt = np.linalg.svd(matrix)
        kept = np.where(s >= SSVD_TRUNCATION * s[0], 1.0 / np.where(s > 0, s, 1.0), 0.0)
        return (u * kept) @ vt
    spectrum, length = _padded_spectrum(aif, interval_s)
    strength = np.abs(spectrum)
    if method == "bsvd":
        kept = strength >= BSVD_TRUNCATION * strength.max()
        filter_ = np.where(kept, 1.0 / np.where(kept, spectrum, 1.0), 0.0)
    elif method == "tikhonov":
        filter_ = np.conj(spectrum) / (strength**2 + (TIKHONOV_LAMBDA * strength.max()) ** 2)
    else:
        raise ValueError(f"no linear operator for '{method}'")
    return _circulant_operator(filter_, n_frames, length)


def _fourier_factors(
    aif: np.ndarray, interval_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Analysis (t, 2f), synthesis (2f, L) of circulant deconvolution, strongest frequency first.

    Third: how many basis functions each of OSVD_LEVELS keeps.
    """
    spectrum, length = _padded_spectrum(aif, interval_s)
    strength = np.abs(spectrum)
    order = np.argsort(-strength, kind="stable")
    frequency = 2.0 * np.pi * order / length
    weight = np.where((order == 0) | (2 * order == length), 1.0, 2.0) / length
    frames = np.exp(-1j * np.outer(np.arange(len(aif)), frequency))
    safe = np.where(strength > 0, spectrum, 1.0)[order]
    coefficients = frames * (weight / safe)
    analysis = np.empty((len(aif), 2 * len(order)))
    analysis[:, 0::2] = coefficients.real
    analysis[:, 1::2] = -coefficients.imag
    samples = np.outer(frequency, np.arange(length))
    synthesis = np.empty((2 * len(order), length))
    synthesis[0::2] = np.cos(samples)
    synthesis[1::2] = np.sin(samples)
    counts = np.array([2 * int((strength >= x * strength.max()).sum()) for x in OSVD_LEVELS])
    return analysis, synthesis, counts


def deconvolve(
    curves: np.ndarray,
    aif: np.ndarray,
    interval_s: float,
    method: str,
    *,
    oscillation_index: float | None = None,
    threads: int | None = None,
    device: Device | None = None,
) -> Residue:
    """Peak of the residue function of every curve.

    Parameters
    ----------
    curves
        (n, t) tissue concentration, finite.
    aif
        (t,) arterial concentration in the same unit.
    interval_s
        Frame interval.
    method
        ``ssvd``, ``bsvd``, ``osvd`` or ``tikhonov``.
    oscillation_index
        Limit of osvd; default ``_oscillation_limit``.
    threads
        The result does not depend on it.
    device
        A graphics card; None for the compiled loops. The same to 1e-4.

    Examples
    --------
    >>> t = np.arange(40.0); artery = t**3 * np.exp(-t / 1.5)
    >>> tissue = 0.01 * np.roll(artery, 3)[None]; tissue[:, :3] = 0
    >>> found = deconvolve(tissue, artery, 1.0, "osvd")
    >>> bool(abs(found.tmax_s[0] - 3) < 0.1)
    True
    """
    from corelab.perfusion import kernels

    curves = np.ascontiguousarray(curves, dtype=np.float32)
    n = len(curves)
    height = np.zeros(n, np.float32)
    position = np.zeros(n, np.float32)
    if method == "osvd":
        analysis, synthesis, counts = _fourier_factors(aif, interval_s)
        limit = oscillation_index or _oscillation_limit(interval_s)
        level = np.zeros(n, np.int32)
        terms = (
            analysis.astype(np.float32),
            synthesis.astype(np.float32),
            counts,
            np.array([limit, TIMING_SHARE * limit], np.float32),
        )
        if device is not None:
            height, position, level = accelerated.oscillation(device, curves, *terms)
        else:
            over_blocks(kernels.oscillation, n, threads, curves, *terms, height, position, level)
        truncation = OSVD_LEVELS[level]
    else:
        operator = _linear_operator(aif, interval_s, method).astype(np.float32)
        wrap = method != "ssvd"
        if device is not None:
            height, position = accelerated.linear(device, curves, operator, wrap)
        else:
            over_blocks(kernels.linear, n, threads, curves, operator, wrap, height, position)
        cut = {"ssvd": SSVD_TRUNCATION, "bsvd": BSVD_TRUNCATION, "tikhonov": TIKHONOV_LAMBDA}
        truncation = np.full(n, cut[method])
    return Residue(height, position * np.float32(interval_s), truncation)
