"""Leakage correction of DSC in enhancing lesions (Boxerman, Schmainda, Weisskoff 2006).

Where the blood-brain barrier leaks, ``dR2*(t) = K1 m(t) - K2 integral of m``, with ``m`` the mean
curve of tissue that does not enhance; T1 effects of leaked tracer give a positive K2. The
corrected blood volume is the measured area plus ``K2`` times the double integral of ``m``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from corelab.perfusion.concentration import PerfusionError


@dataclass(frozen=True)
class Leakage:
    """Fit of every voxel.

    Attributes
    ----------
    corrected
        (..., t) curves without the leakage term.
    k1, k2
        Scale of the tissue curve, and leakage in 1/s.
    """

    corrected: np.ndarray
    k1: np.ndarray
    k2: np.ndarray


def non_enhancing(curves: np.ndarray, noise: float, arrival: int) -> np.ndarray:
    """Curves (n, t) whose last frames stay within two SDs of noise of the middle of all.

    ``noise`` is the temporal SD of one frame, ``arrival`` the last frame before the bolus.

    Examples
    --------
    >>> flat = np.zeros((2, 20)); flat[:, 5:8] = 9
    >>> leaky = flat[:1] - np.linspace(0, 4, 20)
    >>> non_enhancing(np.vstack([flat, leaky]), 0.5, 4).tolist()
    [True, True, False]
    """
    last = max(3, (curves.shape[1] - arrival) // 5)
    tail = curves[:, -last:].mean(axis=1)
    # Recirculation leaves a little tracer everywhere: the middle of all voxels is no leakage.
    return np.asarray(np.abs(tail - np.median(tail)) < 2.0 * noise)


def correct_leakage(curves: np.ndarray, times_s: np.ndarray, reference: np.ndarray) -> Leakage:
    """Remove leakage from DSC concentration curves (n, t), dR2* in 1/s.

    The mean of ``reference`` (n,), voxels that do not enhance, is the reference curve;
    PerfusionError if there are none, or it is flat. Boxerman 2006 (AJNR 27:859), with this
    reference as in the OSIPI code collection.

    Examples
    --------
    >>> t = np.arange(0, 60, 1.5); m = np.exp(-((t - 20) ** 2) / 30)
    >>> leaky = 2 * m - 0.01 * np.cumsum(m) * 1.5
    >>> found = correct_leakage(np.vstack([m, leaky]), t, np.array([True, False]))
    >>> round(float(found.k1[1]), 1), round(float(found.k2[1]), 2)
    (2.0, 0.01)
    """
    if not reference.any():
        raise PerfusionError(
            "no tissue without enhancement is left as the reference of the leakage correction"
        )
    mean = curves[reference].mean(axis=0, dtype=np.float64)
    steps = np.diff(times_s, prepend=times_s[0])
    integral = np.cumsum(0.5 * (mean + np.concatenate([[0.0], mean[:-1]])) * steps)
    design = np.column_stack([mean, -integral])
    if np.linalg.matrix_rank(design) < 2:
        raise PerfusionError("the reference curve of the leakage correction is flat")
    solution = curves @ np.linalg.pinv(design).T
    k1, k2 = solution[:, 0], solution[:, 1]
    corrected = curves + k2[:, None] * integral
    return Leakage(corrected.astype(np.float32), k1, k2)
