"""Passage of contrast agent: arterial input, residue functions, tissue curves.

The model is that of ``C(t) = (rho / k_H) CBF (Ca * R)(t)`` (Ostergaard et al. 1996, MRM 36:715)
with R(0) = 1 and the integral of R equal to the mean transit time, shifted by the arterial delay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, special

#: Haematocrit factor (1 - 0.45) / (1 - 0.25) and brain density (g/mL).
HAEMATOCRIT_FACTOR = (1 - 0.45) / (1 - 0.25)
DENSITY_G_ML = 1.04
FAMILIES = ("exponential", "gamma", "linear", "box")
_FINE_S = 0.05


@dataclass(frozen=True)
class Bolus:
    """Arterial input: a gamma variate and a broad second pass.

    Attributes
    ----------
    start_s, alpha, beta_s
        Onset, shape and scale of the first pass; its peak lies ``alpha * beta_s`` after onset.
    peak
        Peak in the unit of the signal's change (HU, or 1/s).
    second_pass
        Peak of the second pass as a share of the first.
    """

    start_s: float = 8.0
    alpha: float = 3.4
    beta_s: float = 1.7
    peak: float = 320.0
    second_pass: float = 0.14

    def arterial(self, times_s: ArrayLike) -> NDArray[np.float64]:
        """Arterial enhancement at times (s).

        Examples
        --------
        >>> bolus = Bolus(start_s=5, alpha=3, beta_s=2, peak=100, second_pass=0)
        >>> bolus.arterial([0, 5, 11]).tolist()
        [0.0, 0.0, 100.0]
        """
        t = np.asarray(times_s, dtype=np.float64)
        first = _gamma_variate(t - self.start_s, self.alpha, self.beta_s)
        later = _gamma_variate(t - self.start_s - 9.0, self.alpha, 3 * self.beta_s)
        return np.asarray(self.peak * (first + self.second_pass * later))

    def venous(self, times_s: ArrayLike) -> NDArray[np.float64]:
        """Enhancement of the sagittal sinus: dispersed by exp(-t / 3 s), its centroid 5 s later."""
        t = np.asarray(times_s, dtype=np.float64)
        fine = np.arange(0, float(t.max()) + _FINE_S, _FINE_S)
        kernel = np.exp(-fine / 3.0)
        curve = _convolved(self.arterial(fine), kernel / kernel.sum())[: fine.size]
        return np.interp(t - 2.0, fine, curve, left=0.0)


def _gamma_variate(t: NDArray[np.float64], alpha: float, beta_s: float) -> NDArray[np.float64]:
    scaled = np.maximum(t, 0) / (alpha * beta_s)
    return cast(NDArray[np.float64], scaled**alpha * np.exp(alpha * (1 - scaled)))


def residue(family: str, times_s: ArrayLike, mtt_s: float) -> NDArray[np.float64]:
    """Residue function: 1 at time 0, integral ``mtt_s`` (times in s).

    ``gamma``: transit times gamma-distributed with shape 3; ``linear``: to zero at twice the mean
    transit time.

    Examples
    --------
    >>> t = np.arange(0, 200, 0.01)
    >>> [round(float(residue(f, t, 4.0).sum() * 0.01), 1) for f in FAMILIES]
    [4.0, 4.0, 4.0, 4.0]
    """
    t = np.asarray(times_s, dtype=np.float64)
    if family == "exponential":
        return cast(NDArray[np.float64], np.exp(-t / mtt_s))
    if family == "gamma":
        # The survival function of scipy.stats.gamma, which takes long to load.
        return np.asarray(special.gammaincc(3.0, t / (mtt_s / 3.0)))
    if family == "linear":
        return cast(NDArray[np.float64], np.maximum(1 - t / (2 * mtt_s), 0))
    if family == "box":
        return (t < mtt_s).astype(np.float64)
    raise ValueError(f"unknown family of residue functions {family!r}; known: {FAMILIES}")


def tissue_curves(
    cbv_ml_100g: NDArray[np.floating],
    mtt_s: NDArray[np.floating],
    delay_s: NDArray[np.floating],
    times_s: ArrayLike,
    bolus: Bolus,
    family: str,
) -> NDArray[np.float32]:
    """Tissue enhancement of many voxels, (n, t), in the unit of the bolus.

    Curves are interpolated from a table over mean transit time (48 log-spaced values from 1 to
    40 s, so that the error is below 0.1 percent of the peak) and time.

    Parameters
    ----------
    cbv_ml_100g, mtt_s, delay_s
        (n,) truth.
    times_s
        (t,) frame times.
    bolus, family
        Arterial input and residue family.

    Examples
    --------
    >>> t = np.arange(0, 120, 0.5)
    >>> c = tissue_curves(np.array([4.0]), np.array([5.0]), np.array([1.0]), t, Bolus(), "linear")
    >>> ratio = c[0].sum() / Bolus().arterial(t).sum()
    >>> round(float(100 * ratio * HAEMATOCRIT_FACTOR / DENSITY_G_ML), 2)
    4.0
    """
    from corelab.imaging.kernels import table_curves

    t = np.asarray(times_s, dtype=np.float64)
    knots = np.geomspace(1.0, 40.0, 48)
    fine = np.arange(0, float(t.max()) + _FINE_S, _FINE_S)
    arterial = bolus.arterial(fine)
    table = np.empty((knots.size, fine.size), dtype=np.float32)
    for row, mtt in enumerate(knots):
        kernel = residue(family, fine, mtt)
        kernel[0] *= 0.5  # trapezoid
        scale = DENSITY_G_ML / HAEMATOCRIT_FACTOR / (100 * mtt)
        table[row] = _convolved(arterial, kernel)[: fine.size] * _FINE_S * scale
    place = np.log(np.clip(mtt_s, 1.0, 40.0)) / np.log(40.0) * (knots.size - 1)
    out = np.empty((len(cbv_ml_100g), t.size), dtype=np.float32)
    amplitude = np.asarray(cbv_ml_100g, dtype=np.float32)
    delay = np.asarray(delay_s, dtype=np.float64)
    table_curves(table, np.asarray(place, np.float64), delay, t, _FINE_S, amplitude, out)
    return out


def _convolved(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """``scipy.signal.fftconvolve`` of two curves; scipy.signal takes long to load."""
    size = len(first) + len(second) - 1
    padded = fft.next_fast_len(size, True)
    spectrum = fft.rfft(first, padded) * fft.rfft(second, padded)
    return np.asarray(fft.irfft(spectrum, padded)[:size])
