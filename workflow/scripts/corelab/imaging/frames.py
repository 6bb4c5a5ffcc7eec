"""A 4D series as a whole: gaps in time that can be filled, and whether the last axis is time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Another axis changes by less than this share of what the last one does from step to step: it
#: is the one that is time.
_STEADIER = 0.5


def without_gaps(
    series: NDArray[Any], times: NDArray[np.floating] | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Series without NaN and Inf, and which slices of which frames held hardly anything else.

    Parameters
    ----------
    series
        (x, y, z, t).
    times
        (t,); without them frames count as equally spaced.

    Returns
    -------
    (series, lost)
        The same array where it is finite, else a copy with the gaps interpolated in time (a
        voxel without any value is 0), and ``lost`` (z, t): slices of which more than half had no
        value in a frame.

    Examples
    --------
    >>> series = np.ones((2, 2, 1, 5)); series[..., 2] = np.nan
    >>> filled, lost = without_gaps(series)
    >>> bool((filled == 1).all()), lost[0].tolist()
    (True, [False, False, True, False, False])
    """
    bad = ~np.isfinite(series)
    lost = np.asarray(bad.mean(axis=(0, 1)) > 0.5)
    if not bad.any():
        return series, lost
    at = np.arange(series.shape[3]) if times is None else times
    filled = np.array(series)
    for where in np.argwhere(bad.any(axis=3)):
        place = tuple(where)
        seen = ~bad[place]
        known = np.interp(at, at[seen], series[place][seen]) if seen.any() else np.zeros(len(at))
        filled[place] = np.where(seen, series[place], known)
    return filled, lost


def last_axis_fault(series: NDArray[Any]) -> str | None:
    """Reason why the last axis cannot be time, or None.

    Neighbouring frames are nearly the same picture; neighbouring slices, rows and columns are not.

    Examples
    --------
    >>> rng = np.random.default_rng(0); head = rng.normal(0, 100, (9, 8, 7, 1))
    >>> last_axis_fault(head + rng.normal(0, 5, (9, 8, 7, 12)))
    >>> last_axis_fault(np.moveaxis(head + rng.normal(0, 5, (9, 8, 7, 12)), 3, 0))[:36]
    'the last axis (7 long) is not time: '
    """
    steps = np.full(4, np.inf)
    thin = series[tuple(slice(None, None, max(1, n // 64)) for n in series.shape[:2])]
    for axis in range(4):
        if series.shape[axis] > 2:
            source = np.moveaxis(series if axis < 2 else thin, axis, 0)
            middle = source[max(0, len(source) // 2 - 12) :][:24].astype(np.float32)
            steps[axis] = float(np.abs(np.diff(middle, axis=0)).mean(dtype=np.float64))
    best = int(steps.argmin())
    if best == 3 or series.shape[3] < 3 or not steps[best] < _STEADIER * steps[3]:
        return None
    return (
        f"the last axis ({series.shape[3]} long) is not time: pictures beside each other along "
        f"axis {best + 1} ({series.shape[best]} long) differ far less, as frames do. Read so, "
        "slices would be frames, and volumes would be those of another grid"
    )
