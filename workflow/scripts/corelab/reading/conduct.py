"""Conduct of a central read: readers, load, independence, confirmation, turnaround.

Each check is one row with what was seen, the limit and a verdict; nothing here changes a read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from corelab.measurement.rows import rows_frame
from corelab.reading.charter import CONDUCT, Check, charter_checks, visit_checks
from corelab.reading.rates import wilson_interval
from corelab.reading.reader_list import by_roles, days_of_reads
from corelab.records.images import ScanRow
from corelab.settings.reading import ReadingSettings

TURNAROUND = {
    "group": "reader=<id>, or all",
    "n": "Reads with both times",
    "without_times": "Reads without one of the times",
    "median_days": "Median of days from receipt (received_at, else acquired_at of the scans) to "
    "confirmation (confirmed_at, else read_at)",
    "q1_days": "First quartile",
    "q3_days": "Third quartile",
    "longest_days": "Longest",
    "count_within": "Reads within the limit, n/a without one",
    "share_within": "Their share",
    "ci_low": "Lower Wilson limit of the share",
    "ci_high": "Upper Wilson limit of the share",
    "limit_days": "Limit of the charter (reading.turnaround_days), n/a where it has none",
    "verdict": "pass if every read is within the limit, else fail; n/a without a limit",
}
#: Reads of one case this close in time on one workstation were looked at together.
TOGETHER_MINUTES = 30.0


def _central_rows(sheet: pd.DataFrame | None) -> pd.DataFrame:
    """Rows of readers and of those who decide."""
    if sheet is None:
        return pd.DataFrame(columns=["participant_id", "visit", "endpoint", "reader", "value"])
    return by_roles(sheet, "reader", "adjudicator", "consensus")


def times(frame: pd.DataFrame, *columns: str) -> pd.Series:
    """First of some columns that is given, row by row, as UTC times (local times as they are)."""
    found = pd.Series(None, index=frame.index, dtype=object)
    for column in columns:
        if column in frame:
            found = found.where(found.notna(), frame[column])
    return pd.to_datetime(found, utc=True, errors="coerce", format="ISO8601")


def turnaround(
    sheet: pd.DataFrame | None,
    received: Mapping[tuple[str, str], str] | None = None,
    *,
    limit_days: float | None = None,
) -> pd.DataFrame:
    """Days from the receipt of the images to the confirmed read, by reader and for all.

    ``received_at`` and ``confirmed_at`` (else ``read_at``) of the reads sheet are used;
    ``received`` is (participant_id, visit) -> time, where the sheet has no ``received_at``;
    ``limit_days`` is that of the charter. Columns :data:`TURNAROUND`.

    Examples
    --------
    >>> reads = pd.DataFrame({"participant_id": ["1", "2"], "visit": ["a", "a"],
    ...     "reader": ["r1", "r1"], "received_at": ["2025-01-01", "2025-01-01"],
    ...     "read_at": ["2025-01-03", "2025-01-09T12:00:00Z"]})
    >>> table = turnaround(reads, limit_days=7)
    >>> table.loc[0, ["group", "median_days", "count_within", "verdict"]].tolist()
    ['all', 5.25, 1, 'fail']
    """
    own = _central_rows(sheet)
    rows: list[tuple[Any, ...]] = []
    if not len(own):
        return pd.DataFrame(rows, columns=list(TURNAROUND), dtype=object)
    started = times(own, "received_at")
    if received:
        keys = zip(own["participant_id"], own["visit"], strict=True)
        given = pd.Series([received.get(key) for key in keys], index=own.index, dtype=object)
        started = started.where(started.notna(), times(pd.DataFrame({"a": given}), "a"))
    days = (times(own, "confirmed_at", "read_at") - started).dt.total_seconds() / 86400.0
    groups = [("all", days)]
    groups += [(f"reader={name}", days[part.index]) for name, part in own.groupby("reader")]
    for group, part in groups:
        known = part.dropna()
        n = len(known)
        within = None if limit_days is None else int((known <= limit_days).sum())
        low, high = (None, None) if within is None else wilson_interval(within, n)
        q1, median, q3 = known.quantile([0.25, 0.5, 0.75]) if n else (None, None, None)
        cells = (
            group, n, len(part) - n, median, q1, q3, known.max() if n else None, within,
            within / n if within is not None and n else None, low, high, limit_days,
            None if within is None or not n else "pass" if within == n else "fail",
        )  # fmt: skip
        rows.append(cells)
    return pd.DataFrame(rows, columns=list(TURNAROUND), dtype=object)


def _certificates(own: pd.DataFrame, certified: Mapping[str, str]) -> list[Check]:
    if not certified:
        text = "no certificates are given (reading.certified)"
        return [Check("certified before the first read", "C24", "all", None, None, None, text)]
    first = times(own, "read_at").groupby(own["reader"]).min()
    return [
        Check("certified before the first read", "C24", str(reader),
             None if pd.isna(when) else str(when.date()), certified.get(str(reader)), False,
             "every read came after the certificate")
        for reader, when in first.items()
    ]  # fmt: skip


def _load(own: pd.DataFrame, limit: int | None) -> list[Check]:
    found = []
    for reader, days in days_of_reads(own).items():
        most, day = max((number, day) for day, number in days.items())
        over = sorted(day for day, number in days.items() if limit is not None and number > limit)
        text = f"most cases on one day: {most} on {day}"
        if over:
            text += f"; above the limit on {', '.join(over)}"
        failed = None if limit is None else bool(over)
        found.append(Check("cases per day", "C23", reader, most, limit, failed, text))
    return found


def _independence(sheet: pd.DataFrame) -> list[Check]:
    """A central reader is no investigator of the trial."""
    if "role" not in sheet:
        return []
    central = set(_central_rows(sheet)["reader"].dropna())
    others = set(sheet.loc[sheet["role"] == "investigator", "reader"].dropna())
    both = sorted(central & others)
    text = (
        f"{', '.join(both)} read as investigator and centrally"
        if both
        else "no central reader is an investigator"
    )
    return [
        Check("readers independent of investigators", "C37", "all", len(both), 0, bool(both), text)
    ]


def _together(own: pd.DataFrame) -> list[Check]:
    """Two readers who looked at one case on one workstation at the same time (guideline: avoid)."""
    name = "readers not at one screen"
    if "workstation" not in own or not own["workstation"].notna().any():
        text = "the reads have no column workstation"
        return [Check(name, "C18", "all", None, 0, None, text)]
    when = times(own, "confirmed_at", "read_at")
    found = []
    for station, rows in (
        own.assign(_when=when)
        .dropna(subset=["workstation", "_when"])
        .groupby("workstation", sort=True)
    ):
        pairs = rows.merge(rows, on=["participant_id", "visit"], suffixes=("", "_other"))
        pairs = pairs[pairs["reader"] < pairs["reader_other"]]
        gap = (pairs["_when"] - pairs["_when_other"]).abs().dt.total_seconds() / 60.0
        close = pairs[gap < TOGETHER_MINUTES]
        cases = sorted(set(zip(close["participant_id"], close["visit"], strict=True)))
        text = f"{len(cases)} cases read by two readers within {TOGETHER_MINUTES:g} minutes"
        if cases:
            text += ": " + ", ".join(" ".join(case) for case in cases[:5])
        found.append(Check(name, "C18", str(station), len(cases), 0, bool(cases), text))
    return found


def _confirmed(own: pd.DataFrame, locked_at: str | None) -> list[Check]:
    name = "confirmed before the lock"
    when = times(own, "confirmed_at", "read_at")
    if locked_at is None or not when.notna().any():
        text = "the reads have no times, or reading.locked_at is not given"
        return [Check(name, "C35", "all", None, locked_at, None, text)]
    lock = pd.to_datetime(locked_at, utc=True)
    late, silent = int((when > lock).sum()), int(when.isna().sum())
    text = f"{late} reads confirmed after the lock, {silent} without a time"
    return [Check(name, "C35", "all", late, locked_at, bool(late or silent), text)]


def _quality_reader(named: Sequence[str]) -> list[Check]:
    name = "a reader for quality control"
    text = f"named: {', '.join(named)}" if named else "none is named (reading.quality_readers)"
    return [Check(name, "C27", "all", len(named), 1, not named, text)]


def conduct_table(
    sheet: pd.DataFrame | None,
    settings: ReadingSettings,
    *,
    scans: Sequence[ScanRow] = (),
    baseline: str | None = None,
) -> pd.DataFrame:
    """All checks of a read (the reads sheet as text); columns :data:`CONDUCT`."""
    own = _central_rows(sheet)
    rows: list[Check] = []
    if sheet is not None and len(own):
        rows += _certificates(own, settings.certified)
        rows += _load(own, settings.reads_per_day)
        rows += _independence(sheet)
        rows += _together(own)
        rows += _confirmed(own, settings.locked_at)
        rows += _quality_reader(settings.quality_readers)
        rows += charter_checks(settings)
    rows += visit_checks(scans, settings.visit_windows, baseline)
    return rows_frame(rows, CONDUCT, object)
