"""Pairing of scans by the time between them, and reversal of lesions between scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Windows of the two published series, hours after the first scan; lower bound in, upper out,
#: unless it is the end of the last window (24 to 168 h, 24 to 196 h include their end).
EARLY_DELAYED = {"early": (0.0, 24.0), "delayed": (24.0, 168.0)}
IMMEDIATE_DELAYED = {"immediate": (0.0, 3.0), "delayed": (24.0, 196.0)}


def window_of(hours: float, windows: Mapping[str, tuple[float, float]]) -> str | None:
    """Window that holds a time: low <= t < high, and t = high in the last window.

    Examples
    --------
    >>> [window_of(t, EARLY_DELAYED) for t in (0, 23.99, 24, 168, 168.01, -1)]
    ['early', 'early', 'delayed', 'delayed', None, None]
    >>> [window_of(t, IMMEDIATE_DELAYED) for t in (2.99, 3, 24, 196)]
    ['immediate', None, 'delayed', 'delayed']
    """
    if not np.isfinite(hours):
        return None
    last = max(windows, key=lambda name: windows[name][1])
    for name, (low, high) in windows.items():
        if low <= hours < high or (name == last and hours == high):
            return name
    return None


def pair_by_window(
    index: pd.DataFrame,
    later: pd.DataFrame,
    windows: Mapping[str, tuple[float, float]],
) -> pd.DataFrame:
    """First later scan of each participant in each window after the index scan.

    Parameters
    ----------
    index
        participant_id, acquired_at (datetime); one row per participant.
    later
        participant_id, acquired_at, scan_id.
    windows
        Name -> (hours from, hours to).

    Returns
    -------
    pandas.DataFrame
        participant_id, window, scan_id, hours; sorted. Of several scans in one window the earliest
        is taken.

    Raises
    ------
    ValueError
        For two index scans of one participant.

    Examples
    --------
    >>> first = pd.to_datetime(["2024-01-01"])
    >>> index = pd.DataFrame({"participant_id": ["a"], "acquired_at": first})
    >>> later = pd.DataFrame({"participant_id": ["a", "a"], "scan_id": ["s2", "s1"],
    ...     "acquired_at": pd.to_datetime(["2024-01-01 05:00", "2024-01-01 02:00"])})
    >>> pair_by_window(index, later, EARLY_DELAYED)[["window", "scan_id", "hours"]].values.tolist()
    [['early', 's1', 2.0]]
    """
    doubled = index["participant_id"][index["participant_id"].duplicated()]
    if len(doubled):
        raise ValueError(f"two index scans of participant {doubled.iloc[0]}; choose one")
    start = index.set_index("participant_id")["acquired_at"]
    rows = later[later["participant_id"].isin(start.index)].copy()
    gap = rows["acquired_at"] - rows["participant_id"].map(start)
    rows["hours"] = gap.dt.total_seconds() / 3600
    rows["window"] = [window_of(hours, windows) for hours in rows["hours"]]
    rows = rows.dropna(subset=["window"]).sort_values(["participant_id", "hours", "scan_id"])
    rows = rows.drop_duplicates(["participant_id", "window"])
    return rows[["participant_id", "window", "scan_id", "hours"]].reset_index(drop=True)


@dataclass(frozen=True)
class Reversal:
    """How a lesion changed between two masks on one grid, volumes in mL.

    Attributes
    ----------
    reversed_ml, persisting_ml, new_ml
        Voxels only in the first, in both, only in the second.
    percent_change
        100 (second - first) / first; nan where the first is empty.
    """

    reversed_ml: float
    persisting_ml: float
    new_ml: float
    percent_change: float

    @property
    def shrank(self) -> bool:
        """Whether the second lesion is smaller than the first (reversal by volume)."""
        return self.new_ml < self.reversed_ml


def lesion_reversal(first: np.ndarray, second: np.ndarray, voxel_volume_ml: float) -> Reversal:
    """Reversal and growth between two masks on one grid.

    Raises
    ------
    ValueError
        If the grids differ.

    Examples
    --------
    >>> change = lesion_reversal(np.array([1, 1, 1, 0]), np.array([0, 1, 1, 0]), 0.5)
    >>> change.reversed_ml, round(change.percent_change, 1)
    (0.5, -33.3)
    """
    a, b = np.asarray(first) > 0, np.asarray(second) > 0
    if a.shape != b.shape:
        raise ValueError(f"masks of shapes {a.shape} and {b.shape} are not on one grid")
    gone, kept, new = (float(np.sum(m)) * voxel_volume_ml for m in (a & ~b, a & b, ~a & b))
    before = gone + kept
    return Reversal(gone, kept, new, 100 * (new - gone) / before if before else float("nan"))


def ghost_core_volume(core: np.ndarray, follow_up: np.ndarray, voxel_volume_ml: float) -> float:
    """Volume called core at baseline that is not infarcted on the early follow-up, mL.

    Examples
    --------
    >>> ghost_core_volume(np.array([1, 1, 0]), np.array([0, 1, 1]), 2.0)
    2.0
    """
    return lesion_reversal(core, follow_up, voxel_volume_ml).reversed_ml


def core_cutoff(
    minutes_onset_to_ct: float,
    *,
    below: float = 0.30,
    early_below: float = 0.20,
    early_minutes: float = 90.0,
) -> float:
    """Relative CBF below which tissue is core: stricter in the first 90 minutes.

    A cut-off of 20 % within 90 minutes removed the overestimation of the core in SELECT. The time
    missing (nan) means the ordinary cut-off.

    Examples
    --------
    >>> core_cutoff(60), core_cutoff(90), core_cutoff(91), core_cutoff(float("nan"))
    (0.2, 0.2, 0.3, 0.3)
    """
    return early_below if minutes_onset_to_ct <= early_minutes else below
