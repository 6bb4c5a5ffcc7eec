"""The imaging charter across scans: timing, equipment and completeness.

Each criterion is a block of ``acquisition.trial`` in the config and gives rows like those of
:mod:`corelab.imaging.acquisition`: one per scan, or per visit with the kind ``all``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corelab.records.images import AcquisitionRow
from corelab.settings.acquisition import TrialCriteria
from corelab.terms.verdicts import FAIL, NOT_ASSESSABLE, PASS

#: From which kind of scan a biomarker is taken, best first (the pipeline's own order).
SCAN_OF_BIOMARKER = {
    "infarct": ("dwi", "adc", "FLAIR", "ncct"),
    "haematoma": ("ncct", "gre"),
    "perfusion": ("ctp", "dsc"),
    "enhancing": ("T1c",),
    "oedema": ("FLAIR", "T2w"),
}
#: Numbers that differ by less than this share are the same setting.
_SAME_SHARE = 0.01


@dataclass(frozen=True)
class TrialScan:
    """A native image of a visit, or a place where one is missing."""

    participant_id: str
    visit: str
    kind: str
    scan_id: str | None = None
    status: str = "ok"
    reason: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def trial_rows(
    scans: Sequence[TrialScan],
    settings: TrialCriteria,
    *,
    participants: Mapping[str, Mapping[Any, Any]],
    visit_order: Sequence[str],
    baseline: str | None,
) -> list[AcquisitionRow]:
    """Rows of every criterion that looks at more than one scan, or at the calendar.

    Parameters
    ----------
    scans
        Native images; of ``metadata`` it uses ``acquired_at`` (ISO 8601), ``scan_duration_s`` and
        what ``constant`` names.
    settings
        ``acquisition.trial`` of the config.
    participants
        Participant -> row of the participants sheet.
    visit_order, baseline
        Visits in time.

    Examples
    --------
    >>> scans = [TrialScan("1", visit, "dwi", "s", metadata={"acquired_at": day})
    ...          for visit, day in (("base", "2025-01-01"), ("day5", "2025-01-09"))]
    >>> settings = TrialCriteria(windows={"day5": {"day": 5, "before": 1, "after": 2}})
    >>> rows = trial_rows(scans, settings, participants={"1": {}}, visit_order=["base", "day5"],
    ...                   baseline="base")
    >>> [(row.criterion, row.value, row.limit, row.verdict) for row in rows]
    [('visit_day_max', 8, 7, 'fail'), ('visit_day_min', 8, 4, 'pass')]
    """
    rank = {visit: number for number, visit in enumerate(visit_order)}
    ordered = sorted(
        scans,
        key=lambda scan: (
            scan.participant_id,
            rank.get(scan.visit, len(rank)),
            scan.visit,
            str(scan.scan_id),
        ),
    )
    scans_of: dict[str, list[TrialScan]] = {}
    for scan in ordered:
        scans_of.setdefault(scan.participant_id, []).append(scan)
    rows: list[AcquisitionRow] = []
    for participant_id in participants:
        own = scans_of.get(participant_id, [])
        person = participants[participant_id]
        rows += _window_rows(own, settings, person, baseline)
        rows += _constant_rows(own, settings)
        rows += _modality_rows(own, settings)
        rows += _complete_rows(participant_id, own, settings)
        rows += _timing_rows(own, settings, person, baseline)
    return sorted(
        rows,
        key=lambda row: (
            *(str(row.participant_id), str(row.visit)),
            *(row.scan_id or "", row.kind, row.criterion),
        ),
    )


def _row(
    scan: TrialScan, criterion: str, value: Any, limit: Any, ok: bool | None, reason: Any
) -> AcquisitionRow:
    return AcquisitionRow(
        *(scan.kind, criterion, value, limit),
        *(NOT_ASSESSABLE if ok is None else PASS if ok else FAIL, reason, scan.scan_id),
        *(scan.participant_id, scan.visit),
    )


def moment(text: Any) -> datetime.datetime | None:
    """Time of an ISO 8601 text without its zone; None where there is none.

    Examples
    --------
    >>> moment("2025-01-22T16:53:00Z"), moment("n/a")
    (datetime.datetime(2025, 1, 22, 16, 53), None)
    """
    try:
        return datetime.datetime.fromisoformat(str(text)).replace(tzinfo=None)
    except ValueError:
        return None


def _acquired(scan: TrialScan) -> datetime.datetime | None:
    return moment(scan.metadata.get("acquired_at"))


def _first(scans: Iterable[TrialScan]) -> datetime.datetime | None:
    return min((when for scan in scans if (when := _acquired(scan)) is not None), default=None)


# --- when --------------------------------------------------------------------------------------


def _window_rows(
    scans: Sequence[TrialScan],
    settings: TrialCriteria,
    person: Mapping[str, Any],
    baseline: str | None,
) -> list[AcquisitionRow]:
    """Scheduled day (or hour) and tolerance; the bounds themselves are inside.

    Days are calendar days, as protocols count them; hours are elapsed time. Both count from the
    participants column ``day_zero_column`` where it is filled, else from the first baseline scan.
    """
    windows = settings.windows or {}
    column = settings.day_zero_column
    start = moment(person.get(column)) if column else None
    if start is None:
        start = _first(scan for scan in scans if scan.visit == baseline)
    rows = []
    for scan in scans:
        window = windows.get(scan.visit)
        if window is None:
            continue
        unit, due = ("hour", window.hour) if window.day is None else ("day", window.day)
        assert due is not None
        low, high = due - window.before, due + window.after
        when = _acquired(scan)
        value: float | None = None
        reason = None
        if start is None or when is None:
            missing = "day zero" if start is None else "the time of the scan"
            reason = f"{missing} is not known"
        elif unit == "day":
            value = (when.date() - start.date()).days
        else:
            value = round((when - start).total_seconds() / 3600, 4)
        for side, limit in (("min", low), ("max", high)):
            ok = None if value is None else value >= low if side == "min" else value <= high
            message = reason
            if ok is False and value is not None:
                late = value - high if side == "max" else low - value
                word = "late" if side == "max" else "early"
                message = f"{late:g} {unit}{'s' if late != 1 else ''} too {word}"
            rows.append(_row(scan, f"visit_{unit}_{side}", value, limit, ok, message))
    return rows


def _timing_rows(
    scans: Sequence[TrialScan],
    settings: TrialCriteria,
    person: Mapping[str, Any],
    baseline: str | None,
) -> list[AcquisitionRow]:
    """Duration of imaging at each visit, and delay of treatment after baseline imaging."""
    rows = []
    longest = settings.imaging_duration_minutes_max
    delay = settings.imaging_to_treatment_minutes_max
    for visit in dict.fromkeys(scan.visit for scan in scans):
        own = [scan for scan in scans if scan.visit == visit]
        place = TrialScan(own[0].participant_id, visit, "all")
        start = _first(own)
        if longest is not None:
            ends = [
                when + datetime.timedelta(seconds=_number(scan.metadata.get("scan_duration_s")))
                for scan in own
                if (when := _acquired(scan)) is not None
            ]
            taken = (max(ends) - start).total_seconds() / 60 if ends and start else None
            enough = taken is not None and len(ends) == len(own)
            value = round(taken, 3) if enough and taken is not None else None
            reason = None if enough else "the time of a scan is not known"
            ok = None if value is None else value <= longest
            rows.append(_row(place, "imaging_duration_minutes_max", value, longest, ok, reason))
        if delay is not None and visit == baseline:
            treated = moment(person.get(settings.treated_at))
            value = ok = None
            reason = "the time of treatment or of imaging is not known"
            if treated is not None and start is not None:
                value = round((treated - start).total_seconds() / 60, 3)
                ok, reason = value <= delay, None
                if value < 0:
                    ok, reason = None, "treated before imaging: imaging cannot have delayed it"
            rows.append(_row(place, "imaging_to_treatment_minutes_max", value, delay, ok, reason))
    return rows


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


# --- with what ---------------------------------------------------------------------------------


def _constant_rows(scans: Sequence[TrialScan], settings: TrialCriteria) -> list[AcquisitionRow]:
    """Fields that must equal those of the subject's first scan of the kind."""
    rows = []
    first: dict[tuple[str, str], Any] = {}
    for scan in scans:
        for name in settings.constant or ():
            value = scan.metadata.get(name)
            key = (scan.kind, name)
            if key not in first:
                # Later scans are compared with the first scan that has the value.
                if value is not None:
                    first[key] = value
                continue
            ok = None if value is None else _same(value, first[key])
            message = f"was {first[key]} at the first scan" if ok is False else None
            rows.append(_row(scan, f"same_{name}", value, first[key], ok, message))
    return rows


def _same(one: Any, other: Any) -> bool:
    try:
        first, second = float(one), float(other)
    except (TypeError, ValueError):
        return str(one).strip().casefold() == str(other).strip().casefold()
    return abs(first - second) <= _SAME_SHARE * max(abs(first), abs(second))


def _modality_rows(scans: Sequence[TrialScan], settings: TrialCriteria) -> list[AcquisitionRow]:
    """The same kind of scan shows a biomarker at all time points.

    Kinds that the charter counts as the same are listed under the biomarker.
    """
    rows = []
    for biomarker, alike in sorted(
        settings.same_modality.plain().items() if settings.same_modality else ()
    ):
        first: str | None = None
        for visit in dict.fromkeys(scan.visit for scan in scans):
            own = [scan for scan in scans if scan.visit == visit and scan.status == "ok"]
            kinds = {scan.kind for scan in own}
            used = next((kind for kind in SCAN_OF_BIOMARKER[biomarker] if kind in kinds), None)
            if used is None:
                continue
            if first is None:
                first = used
                continue
            scan = next(scan for scan in own if scan.kind == used)
            ok = used == first or {used, first} <= set(alike)
            message = None if ok else f"{biomarker} was shown by {first} before"
            rows.append(_row(scan, f"same_modality:{biomarker}", used, first, ok, message))
    return rows


# --- completeness ------------------------------------------------------------------------------


def _complete_rows(
    participant_id: str, scans: Sequence[TrialScan], settings: TrialCriteria
) -> list[AcquisitionRow]:
    """One row per kind that is due at a visit: there, unreadable, or missing."""
    rows = []
    for visit, kinds in (settings.complete or {}).items():
        for kind in kinds:
            own = [scan for scan in scans if scan.visit == visit and scan.kind == kind]
            good = [scan for scan in own if scan.status == "ok"]
            best = next(iter(good or own), TrialScan(participant_id, visit, kind))
            reason = None if good else best.reason or "no scan is listed"
            value = "there" if good else "unreadable" if own else "missing"
            rows.append(_row(best, "present", value, "there", bool(good), reason))
    return rows
