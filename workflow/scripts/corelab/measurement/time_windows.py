"""Pairing of scans by the time between them, and reversal of lesions between scans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from corelab.measurement.rows import measurement_row, rows_frame
from corelab.records.images import ScanRow
from corelab.records.measured import MeasurementRow
from corelab.settings.measurement import SerialImagingSettings

#: Windows of the two published series, hours after the first scan; lower bound in, upper out,
#: unless it is the end of the last window (24 to 168 h, 24 to 196 h include their end).
EARLY_DELAYED = {"early": (0.0, 24.0), "delayed": (24.0, 168.0)}
IMMEDIATE_DELAYED = {"immediate": (0.0, 3.0), "delayed": (24.0, 196.0)}


#: Names that the config may use for them.
PUBLISHED_WINDOWS = {"early_delayed": EARLY_DELAYED, "immediate_delayed": IMMEDIATE_DELAYED}


def _window_of(hours: float, windows: Mapping[str, tuple[float, float]]) -> str | None:
    """Window that holds a time: low <= t < high, and t = high in the last window.

    Examples
    --------
    >>> [_window_of(t, IMMEDIATE_DELAYED) for t in (2.99, 3, 24, 196)]
    ['immediate', None, 'delayed', 'delayed']
    """
    if not np.isfinite(hours):
        return None
    last = max(windows, key=lambda name: windows[name][1])
    for name, (low, high) in windows.items():
        if low <= hours < high or (name == last and hours == high):
            return name
    return None


def _pair_by_window(
    index: pd.DataFrame,
    later: pd.DataFrame,
    windows: Mapping[str, tuple[float, float]],
) -> pd.DataFrame:
    """First later scan of each participant in each window after the index scan; sorted.

    ``index`` has participant_id and acquired_at (datetime), one row per participant, ``later`` also
    scan_id; windows are name -> (hours from, hours to).
    """
    doubled = index["participant_id"][index["participant_id"].duplicated()]
    if len(doubled):
        raise ValueError(f"two index scans of participant {doubled.iloc[0]}; choose one")
    start = index.set_index("participant_id")["acquired_at"]
    rows = later[later["participant_id"].isin(start.index)].copy()
    gap = rows["acquired_at"] - rows["participant_id"].map(start)
    rows["hours"] = gap.dt.total_seconds() / 3600
    rows["window"] = [_window_of(hours, windows) for hours in rows["hours"]]
    rows = rows.dropna(subset=["window"]).sort_values(["participant_id", "hours", "scan_id"])
    rows = rows.drop_duplicates(["participant_id", "window"])
    return rows[["participant_id", "window", "scan_id", "hours"]].reset_index(drop=True)


class Reversal(NamedTuple):
    """Voxels of two masks on one grid: only in the first, in both, only in the second; mL."""

    reversed_ml: float
    persisting_ml: float
    new_ml: float


def lesion_reversal(first: np.ndarray, second: np.ndarray, voxel_volume_ml: float) -> Reversal:
    """Reversal and growth between two masks on one grid.

    Examples
    --------
    >>> lesion_reversal(np.array([1, 1, 1, 0]), np.array([0, 1, 1, 0]), 0.5)
    Reversal(reversed_ml=0.5, persisting_ml=1.0, new_ml=0.0)
    """
    a, b = np.asarray(first) > 0, np.asarray(second) > 0
    if a.shape != b.shape:
        raise ValueError(f"masks of shapes {a.shape} and {b.shape} are not on one grid")
    return Reversal(*(float(np.sum(m)) * voxel_volume_ml for m in (a & ~b, a & b, ~a & b)))


def _windows_of(
    serial: SerialImagingSettings | None,
) -> dict[str, tuple[float, float]]:
    """Windows of the config block ``serial_imaging``, hours; none without the block."""
    if not serial:
        return {}
    given = serial.windows
    if isinstance(given, str):
        return dict(PUBLISHED_WINDOWS[given])
    return {str(name): (float(low), float(high)) for name, (low, high) in given.items()}


def _window_visits(
    scans: Iterable[ScanRow], serial: SerialImagingSettings, baseline: str | None
) -> pd.DataFrame:
    """Visits of participants in windows after the index scan.

    The first scan of the ``baseline`` visit is the index where ``index_kind`` is not given.
    """
    columns = ["participant_id", "window", "visit", "scan_id", "hours"]
    names = ("participant_id", "visit", "kind", "scan_id", "acquired_at")
    table = rows_frame(scans, names)
    times = pd.to_datetime(table["acquired_at"], errors="coerce", utc=True, format="ISO8601")
    table = table.assign(acquired_at=times).dropna(subset=["acquired_at"])
    kind = serial.index_kind
    first = table[(table["kind"] == kind) if kind else (table["visit"] == baseline)]
    first = first.sort_values(["participant_id", "acquired_at", "scan_id"])
    first = first.drop_duplicates("participant_id")
    kinds = set(serial.scan_kinds)
    later = table[table["kind"].isin(kinds) & ~table["scan_id"].isin(first["scan_id"])]
    if first.empty or later.empty:
        return pd.DataFrame(columns=columns)
    found = _pair_by_window(first, later, _windows_of(serial))
    visit = table.drop_duplicates("scan_id").set_index("scan_id")["visit"]
    return found.assign(visit=found["scan_id"].map(visit))[columns]


def serial_pairs(
    scans: Iterable[ScanRow], serial: SerialImagingSettings | None, baseline: str | None
) -> dict[tuple[str, str], str]:
    """Visits in a later window, each with the same participant's visit in the first window.

    Parameters
    ----------
    scans, serial, baseline
        As for ``_window_visits``.

    Examples
    --------
    >>> serial_pairs([], None, "base")
    {}
    """
    if not serial:
        return {}
    found = _window_visits(scans, serial, baseline)
    earliest = next(iter(_windows_of(serial)))
    first = found[found["window"] == earliest].set_index("participant_id")["visit"]
    later = found[(found["window"] != earliest) & found["participant_id"].isin(first.index)]
    return {
        (str(person), str(visit)): str(first[person])
        for person, visit in zip(later["participant_id"], later["visit"], strict=True)
    }


def serial_rows(
    rows: pd.DataFrame,
    scans: Iterable[ScanRow],
    serial: SerialImagingSettings | None,
    baseline: str | None,
) -> list[MeasurementRow]:
    """Measurement rows of windows: a window is a visit of its own.

    Every whole-lesion value of the visit that falls into a window is repeated under the window's
    name, with the hours after the index scan (``hours_after_index``). Between the first window
    and each later one ``infarct_percent_change`` = 100 (V2 - V1) / V1 and ``infarct_reversal`` (1
    where the lesion shrank, 0 where it did not) are added for each source.

    Examples
    --------
    >>> serial_rows(pd.DataFrame(), [], None, "base")
    []
    """
    if not serial:
        return []
    made: list[MeasurementRow] = []
    usable = rows[rows["region"] == "all"]
    places = usable.groupby(["participant_id", "visit"], sort=False).indices
    for pair in _window_visits(scans, serial, baseline).to_dict("records"):
        at = usable.iloc[places.get((pair["participant_id"], pair["visit"]), [])]
        when = f"visit {pair['visit']}, {pair['hours']:.2f} h after the index scan"
        for row in at.to_dict("records"):
            reason = f"{when}; {row['reason']}" if row["reason"] else when
            cells = {str(name): cell for name, cell in row.items()}
            made.append(MeasurementRow(**cells | {"visit": pair["window"], "reason": reason}))
        made.append(
            measurement_row(
                *(pair["participant_id"], pair["window"], "hours_after_index", "pipeline"),
                *(pair["hours"], "h"),
                reason=when,
                scan_ids=pair["scan_id"],
            )
        )
    return made + _changes_between(made, list(_windows_of(serial)))


def _changes_between(made: Sequence[MeasurementRow], windows: list[str]) -> list[MeasurementRow]:
    """Percent change and reversal of infarct volume from the first window to each later one."""
    volumes = {
        (row.participant_id, row.source, row.repeat, row.visit): row
        for row in made
        if row.endpoint == "infarct_volume" and row.status == "ok" and row.value is not None
    }
    changes: list[MeasurementRow] = []
    for (person, source, repeat, visit), later in volumes.items():
        first = volumes.get((person, source, repeat, windows[0]))
        if visit == windows[0] or first is None:
            continue
        before, after = float(first.value or 0.0), float(later.value or 0.0)
        known = before > 0
        ids = sorted({i for i in (first.scan_ids, later.scan_ids) if isinstance(i, str)})
        common = replace(later, scan_ids=",".join(ids) or None)
        changes += [
            replace(
                common,
                endpoint="infarct_percent_change",
                unit="percent",
                value=100 * (after - before) / before if known else None,
                status="ok" if known else "not_computable",
                reason=later.reason if known else f"no lesion at {windows[0]}",
            ),
            replace(common, endpoint="infarct_reversal", unit="flag", value=float(after < before)),
        ]
    return changes
