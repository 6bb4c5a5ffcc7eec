"""Tile phantom of perfusion, after Kudo 2013 (Radiology 267:201): exact truth in every tile.

Three residue functions x five blood volumes give 15 slices; in each slice seven rows of delay
(0 to 3 s) x seven columns of mean transit time (24 to 3.4 s). CBF follows from CBV and MTT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

from corelab.perfusion.bayes import _residue_function
from corelab.perfusion.concentration import TISSUE_FACTOR

FAMILIES = ("exponential", "linear", "box")
CBV_ML_100G = np.arange(1.0, 6.0)
MTT_S = np.array([24.0, 12.0, 8.0, 6.0, 4.8, 4.0, 24.0 / 7.0])
DELAY_S = np.arange(0.0, 3.01, 0.5)
_FINE_STEP_S = 0.01


@dataclass(frozen=True)
class TilePhantom:
    """Signal and truth of the tile phantom.

    Attributes
    ----------
    signal
        (rows, columns, 15 slices, t) enhancement in HU; 7 x 7 tiles of ``tile``
        pixels.
    times_s, aif
        Frame times and the arterial curve, noise-free.
    cbf_ml_100g_min, cbv_ml_100g, mtt_s, delay_s, tmax_s
        Truth of every tile, (7, 7, 15); Tmax = delay + MTT / 2.
    tile
        Pixels along a tile's edge.
    """

    signal: np.ndarray
    times_s: np.ndarray
    aif: np.ndarray
    cbf_ml_100g_min: np.ndarray
    cbv_ml_100g: np.ndarray
    mtt_s: np.ndarray
    delay_s: np.ndarray
    tmax_s: np.ndarray
    tile: int

    def tile_means(self, values: np.ndarray, margin: int = 4) -> np.ndarray:
        """Mean of a map over the inside of each tile, (7, 7, 15)."""
        n = values.shape[0] // self.tile
        blocks = values.reshape(n, self.tile, n, self.tile, values.shape[2])
        inner = slice(margin, self.tile - margin)
        return np.nanmean(blocks[:, inner, :, inner], axis=(1, 3))


def gamma_bolus(
    times_s: np.ndarray, *, arrival_s: float, shape: float, scale_s: float, peak: float
) -> np.ndarray:
    """Gamma-variate bolus with a given peak.

    Examples
    --------
    >>> t = np.arange(0, 40, 0.5)
    >>> bolus = gamma_bolus(t, arrival_s=10, shape=3, scale_s=1.5, peak=250)
    >>> float(t[bolus.argmax()]), round(float(bolus.max()), 6)
    (14.5, 250.0)
    """
    x = np.maximum(np.asarray(times_s, float) - arrival_s, 0.0) / (shape * scale_s)
    return peak * x**shape * np.exp(shape * (1.0 - x))


def arterial_curve(times_s: np.ndarray, peak: float = 250.0) -> np.ndarray:
    """Arterial enhancement: a first pass and a broad second pass of 15 %.

    Examples
    --------
    >>> round(float(arterial_curve(np.arange(0, 60, 0.1)).max()), 0)
    250.0
    """
    first = gamma_bolus(times_s, arrival_s=10.0, shape=3.0, scale_s=1.5, peak=peak)
    second = gamma_bolus(times_s, arrival_s=18.0, shape=3.0, scale_s=4.5, peak=0.15 * peak)
    return first + second


def tissue_curve(
    family: str,
    times_s: np.ndarray,
    *,
    cbv_ml_100g: float,
    mtt_s: float,
    delay_s: float,
    peak: float = 250.0,
) -> np.ndarray:
    """Enhancement of a tissue: the artery convolved with its residue function.

    Examples
    --------
    The area is that of the artery times CBV over the tissue factor.

    >>> t = np.arange(0, 200, 0.1)
    >>> c = tissue_curve("box", t, cbv_ml_100g=4, mtt_s=5, delay_s=1)
    >>> round(float(c.sum() / arterial_curve(t).sum() * TISSUE_FACTOR), 3)
    0.04
    """
    fine = np.arange(0.0, times_s[-1] + _FINE_STEP_S, _FINE_STEP_S)
    residue = _residue_function(family, fine, mtt_s)
    flow_per_s = cbv_ml_100g / 100.0 / mtt_s / TISSUE_FACTOR
    curve = fftconvolve(arterial_curve(fine, peak), residue)[: len(fine)] * _FINE_STEP_S
    return np.interp(times_s - delay_s, fine, curve * flow_per_s, left=0.0)


def tile_phantom(
    *,
    interval_s: float = 2.0,
    n_frames: int = 30,
    noise_hu: float = 5.0,
    tile: int = 32,
    peak_hu: float = 250.0,
    seed: int = 0,
) -> TilePhantom:
    """Simulate the tile phantom.

    Parameters
    ----------
    interval_s, n_frames
        Sampling.
    noise_hu
        SD of Gaussian noise per pixel and frame.
    tile
        Pixels along the edge of a tile.
    peak_hu
        Peak of the artery.
    seed
        Of the noise.

    Examples
    --------
    >>> phantom = tile_phantom(tile=2, n_frames=10)
    >>> phantom.signal.shape, phantom.mtt_s.shape
    ((14, 14, 15, 10), (7, 7, 15))
    """
    times = np.arange(n_frames) * interval_s
    shape = (len(DELAY_S), len(MTT_S), len(FAMILIES) * len(CBV_ML_100G))
    curves = np.zeros((*shape, n_frames), np.float32)
    truth = {name: np.zeros(shape) for name in ("cbv", "mtt", "delay")}
    for k, (family, cbv) in enumerate((f, v) for f in FAMILIES for v in CBV_ML_100G):
        for j, mtt in enumerate(MTT_S):
            for i, delay in enumerate(DELAY_S):
                curves[i, j, k] = tissue_curve(
                    family,
                    times,
                    cbv_ml_100g=float(cbv),
                    mtt_s=mtt,
                    delay_s=float(delay),
                    peak=peak_hu,
                )
                truth["cbv"][i, j, k], truth["mtt"][i, j, k] = cbv, mtt
                truth["delay"][i, j, k] = delay
    signal = np.repeat(np.repeat(curves, tile, axis=0), tile, axis=1)
    rng = np.random.default_rng(seed)
    signal += rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(noise_hu)
    return TilePhantom(
        signal=signal,
        times_s=times,
        aif=arterial_curve(times, peak_hu),
        cbf_ml_100g_min=60.0 * truth["cbv"] / truth["mtt"],
        cbv_ml_100g=truth["cbv"],
        mtt_s=truth["mtt"],
        delay_s=truth["delay"],
        tmax_s=truth["delay"] + truth["mtt"] / 2.0,
        tile=tile,
    )
