"""One table: what jobs measured, what readers read and what other software gave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from corelab.measurement.longitudinal import (
    Given,
    change_rows,
    ghost_core_rows,
    mismatch_rows,
    missing_rows,
    without_known,
)
from corelab.measurement.rows import measurement_row, rows_frame
from corelab.measurement.schedule import TrialScan, trial_rows
from corelab.measurement.time_windows import serial_rows
from corelab.provenance.decisions import (
    Decision,
    DecisionFault,
    exclusions,
    read_decisions,
    without_excluded,
)
from corelab.provenance.job import UserError
from corelab.provenance.manifest import row_identifier
from corelab.provenance.products import read_table, write_merged, write_part, write_table
from corelab.records.images import AcquisitionRow, DicomListing, Prepared, Scan, ScanRow
from corelab.records.measured import (
    Measured,
    MeasuredSupplied,
    MeasurementRow,
    OverlapRow,
    SuppliedScan,
)
from corelab.settings.measurement import MeasurementSettings, SerialImagingSettings
from corelab.study.columns import (
    ACQUISITION,
    FLOW,
    IMAGE_FINDINGS,
    MEASUREMENT_KEY,
    MEASUREMENTS,
    OVERLAP,
    RADIOMICS_PREFIX,
)
from corelab.study.model import Study
from corelab.terms.endpoints import ENDPOINTS, in_own_unit

#: Participants whose rows are in memory at one time.
AT_ONCE = 200
_Row = TypeVar("_Row", MeasurementRow, OverlapRow, AcquisitionRow, SuppliedScan, ScanRow)


def _number(cell: Any) -> float | None:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return None
    return float(cell)


def _value(
    cells: Mapping[Any, Any], grades: Mapping[str, Sequence[str]] | None
) -> tuple[float | None, str | None, str | None]:
    """Value, unit and remark of a row; a grade in words is its place on the config's list."""
    cell, endpoint = cells["value"], cells["endpoint"]
    if grades is None or endpoint not in grades or cell is None:
        return *in_own_unit(_number(cell), cells.get("unit"), endpoint), None
    text = str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)
    return float(list(grades[endpoint]).index(text)), "grade", f"grade {text}"


def _supplied(
    cells: Mapping[Any, Any],
    source: str,
    value: float | None,
    unit: str | None,
    reason: str | None,
    *,
    status: str = "ok",
    **more: Any,
) -> MeasurementRow:
    """Row of a sheet as a measurement row."""
    return measurement_row(
        *(cells["participant_id"], cells.get("visit") or "all", cells["endpoint"]),
        *(source, value, unit),
        status="missing" if value is None and status == "ok" else status,
        reason=reason,
        supplied=True,
        **more,
    )


def _repeat(cells: Mapping[Any, Any]) -> int:
    return int(float(cells.get("repeat") or 1))


def _read_rows(
    sheet: pd.DataFrame | None,
    grades: Mapping[str, Sequence[str]] | None = None,
    *,
    prefix: str = "",
) -> list[MeasurementRow]:
    """Rows of the reads sheet as measurement rows; the source is ``prefix`` and the reader."""
    rows = []
    for cells in [] if sheet is None else sheet.to_dict("records"):
        value, unit, remark = _value(cells, grades)
        why = cells.get("not_evaluable_reason")
        none = f"not evaluable: {why}" if why else "the reader gave no value"
        reason = remark if value is not None else none
        source = prefix + cells["reader"]
        rows.append(_supplied(cells, source, value, unit, reason, repeat=_repeat(cells)))
    return rows


def _final_rows(
    table: pd.DataFrame | None,
    grades: Mapping[str, Sequence[str]] | None = None,
    *,
    source: str = "final",
) -> list[MeasurementRow]:
    """Final reads as measurement rows; the readers' own rows stand beside them."""
    rows = []
    for cells in [] if table is None else table.to_dict("records"):
        value, unit, remark = _value(cells, grades)
        words = f"{cells['how']} of {cells['readers']}"
        if cells["adjudicator"]:
            words = f"{cells['how']} by {cells['adjudicator']}"
        reason = cells["reason"] if value is None else f"{words}: {cells['reason']}"
        reason = f"{remark}; {reason}" if remark else reason
        rows.append(_supplied(cells, source, value, unit, reason))
    return rows


def _supplied_rows(
    sheet: pd.DataFrame | None, grades: Mapping[str, Sequence[str]] | None = None
) -> list[MeasurementRow]:
    """Rows of measurements sheets (other software, earlier readings) as measurement rows."""
    if sheet is None:
        return []
    rows = []
    # Features go to a table of their own (features.tsv): there are thousands of them.
    feature = sheet["endpoint"].fillna("").str.startswith(RADIOMICS_PREFIX)
    for cells in sheet[~feature].to_dict("records"):
        value, unit, remark = _value(cells, grades)
        status = cells.get("status") or ("ok" if value is not None else "missing")
        known = status == "ok"
        rows.append(
            _supplied(
                *(cells, cells["source"], value if known else None, unit),
                cells.get("reason") or (remark if known else "no value given"),
                status=status,
                repeat=_repeat(cells),
                region=cells.get("region") or "all",
                scan_ids=cells.get("scan_ids"),
            )
        )
    return rows


def collect_measurements(
    records: Iterable[Measured | MeasuredSupplied],
    *,
    listed: Sequence[tuple[str, str]],
    visit_order: Sequence[str],
    **given: Any,
) -> dict[str, pd.DataFrame]:
    """Collect all rows of a study that fits into memory.

    Parameters
    ----------
    records
        Of visits and batches.
    listed
        (participant_id, visit) of the scans sheet.
    visit_order
        Visits in time.
    **given
        Of ``_rows_given``.

    Returns
    -------
    dict
        ``measurements``, ``overlap``, ``acquisition`` frames in the columns of the contract.

    Raises
    ------
    ValueError
        If one key has two values.
    """
    tables = _rows_given(list(records), **given)
    frame = tables["measurements"]
    frame = _append(frame, missing_rows(Given().add(frame), listed, visit_order))
    return {**tables, "measurements": _identified(frame)}


def _rows_given(
    records: Sequence[Measured | MeasuredSupplied],
    *,
    reads: pd.DataFrame | None,
    supplied: pd.DataFrame | None,
    baseline: str | None,
    settings: MeasurementSettings,
    scans: Sequence[ScanRow] = (),
    serial: SerialImagingSettings | None = None,
    further: Sequence[MeasurementRow] = (),
    grades: Mapping[str, Sequence[str]] | None = None,
    excluded: Mapping[tuple[str, str, str], Decision] | None = None,
) -> dict[str, pd.DataFrame]:
    """Rows that are given or follow from given ones, without those for missing values.

    Parameters
    ----------
    records
        Of visits and batches.
    reads, supplied
        Sheets as text.
    baseline
        First visit.
    settings
        ``measurement`` of the config.
    scans, serial
        Rows of the scans sheet and ``serial_imaging`` of the config, for windows.
    further
        Rows of the central read (``_central_rows``).
    grades
        Endpoint -> its grades in words, lowest first.
    excluded
        Values that people excluded; what follows from them is not computable.
    """
    rows = [row for record in records for row in record.rows]
    rows = _contours_first(rows, _read_rows(reads, grades)) + _supplied_rows(supplied, grades)
    columns = [c for c in MEASUREMENTS if c != "row_id"]
    frame = rows_frame([*rows, *further], columns)
    frame["value"] = frame["value"].astype(float)
    frame = without_excluded(frame, _with_dependents(excluded or {}))
    # After exclusions, so that a window does not bring an excluded value back.
    made = serial_rows(frame, scans, serial, baseline)
    frame = _append(frame, without_known(made, frame))
    for made in (
        mismatch_rows(frame),
        change_rows(frame, baseline),
        ghost_core_rows(frame, baseline, above_ml=settings.ghost_core_above_ml),
    ):
        frame = _append(frame, without_known(made, frame))
    return {
        "measurements": frame,
        "overlap": without_excluded(
            rows_frame((row for record in records for row in record.overlap), OVERLAP),
            _whole_visits(excluded or {}),
        ),
        "acquisition": rows_frame(
            (row for record in records for row in record.acquisition), ACQUISITION
        ),
    }


def _identified(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with their identifier; two rows of one key are refused."""
    doubled = frame.duplicated(list(MEASUREMENT_KEY), keep=False)
    if doubled.any():
        first = frame[doubled].iloc[0]
        raise ValueError(
            "two values for one key: "
            + ", ".join(f"{key}={first[key]}" for key in MEASUREMENT_KEY)
            + "; duplicates are never averaged. Number repeated reads in the column repeat, or "
            "give the sources different names"
        )
    keys = frame[list(MEASUREMENT_KEY)].itertuples(index=False, name=None)
    frame["row_id"] = [row_identifier(*map(str, key)) for key in keys]
    return frame[list(MEASUREMENTS)]


_Exclusions = Mapping[tuple[str, str, str], Decision]


def _with_dependents(excluded: _Exclusions) -> dict[tuple[str, str, str], Decision]:
    found = dict(excluded)
    for (subject, visit, endpoint), decision in excluded.items():
        for name, one in ENDPOINTS.items():
            if endpoint in one.after:
                found.setdefault((subject, visit, name), decision)
    return found


def _whole_visits(excluded: _Exclusions) -> dict[tuple[str, str, str], Decision]:
    # Overlap rows have no endpoint: they leave with the whole visit only.
    return {key: decision for key, decision in excluded.items() if key[2] == "all"}


def _kept_in_sight(frame: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Rows that exist only without exclusions, as rows that cannot be computed with them."""
    gone = whole[~whole["row_id"].isin(frame["row_id"])].copy()
    if gone.empty:
        return frame
    gone["value"], gone["status"] = float("nan"), "not_computable"
    gone["reason"] = "follows from an excluded value"
    return pd.concat([frame, gone], ignore_index=True)


def _contours_first(
    measured: Sequence[MeasurementRow], read: Sequence[MeasurementRow]
) -> list[MeasurementRow]:
    """Rows of both; where a reader's contour and a reader's number share a key, the contour.

    The contour can be measured again by anybody, the number cannot; it is kept in the reason.
    """
    named = {row.key for row in read}
    contours = {row.key for row in measured if row.status == "ok" and row.key in named}
    numbers = {row.key: row.value for row in read if row.value is not None and row.key in contours}
    kept = [row for row in read if row.key not in contours]
    # A contour that could not be read does not hide the number that the reader gave.
    failed = {row.key for row in kept}
    words = "measured on the reader's contour; the reads sheet says"
    return [
        replace(row, reason=f"{words} {numbers[row.key]:g}")
        if row.status == "ok" and row.key in numbers
        else row
        for row in measured
        if row.key not in failed
    ] + kept


def _append(frame: pd.DataFrame, made: Sequence[MeasurementRow]) -> pd.DataFrame:
    if not made:
        return frame
    more = rows_frame(made, frame.columns)
    more["value"] = more["value"].astype(float)
    return more if frame.empty else pd.concat([frame, more], ignore_index=True)


def _flow_rows(
    participants: Sequence[str],
    scans: Sequence[ScanRow],
    scan_status: Mapping[str, tuple[str, str | None]],
    measurements: pd.DataFrame,
) -> pd.DataFrame:
    """The flow from scans listed to scans measured, and of participants to those with values.

    ``scan_status`` is scan_id -> (status, reason) as the jobs found it. In every stage n_in - sum
    of n_excluded = n_out, and the next stage of the same chain begins with that n_out.
    """
    made: list[tuple[str, int, int, str, int]] = []

    def stage(name: str, entering: Sequence[str], leaving: Mapping[str, str]) -> list[str]:
        out = [item for item in entering if item not in leaving]
        reasons = sorted({leaving[item] for item in entering if item in leaving})
        for reason in reasons or ["none leaves"]:
            gone = sum(leaving.get(item) == reason for item in entering)
            made.append((name, len(entering), len(out), reason, gone))
        return out

    listed = [row.scan_id for row in scans]
    if listed:
        there = stage(
            "scans listed: file there",
            listed,
            {row.scan_id: "file missing" for row in scans if not row.exists},
        )
        faults = {
            scan_id: reason or "not readable"
            for scan_id, (status, reason) in scan_status.items()
            if status != "ok"
        }
        usable = stage("scans there: usable", there, faults)
        valued = measurements[measurements["status"] == "ok"]["scan_ids"].dropna()
        used = {part for cell in valued.unique() for part in cell.split(",")}
        stage(
            "scans usable: behind a value",
            usable,
            {
                scan_id: "serves alignment or preparation only, or gave no value"
                for scan_id in usable
                if scan_id not in used
            },
        )
    subjects = list(participants)
    ok = set(measurements.loc[measurements["status"] == "ok", "participant_id"])
    anything = set(measurements["participant_id"])
    with_data = stage(
        "participants enrolled: any measurement listed",
        subjects,
        {s: "nothing was measured or supplied" for s in subjects if s not in anything},
    )
    stage(
        "participants measured: at least one value",
        with_data,
        {s: "every value is missing or failed" for s in with_data if s not in ok},
    )
    names = ("stage", "n_in", "n_out", "reason", "n_excluded")
    return pd.DataFrame(made, columns=list(names))[list(FLOW)]


def _known_visits(decided: _Exclusions, study: Study, scans: Sequence[ScanRow]) -> None:
    known = {(row.participant_id, row.visit) for row in scans}
    for name in ("reads", "measurements"):
        sheet = study.sheets.get(name)
        if sheet is not None and "visit" in sheet:
            known |= set(zip(sheet["participant_id"], sheet["visit"].fillna("all"), strict=True))
    for (subject, visit, _), decision in decided.items():
        if (subject, visit) not in known:
            raise UserError(
                f"decision {decision.number} excludes {subject} at {visit}, but the study has no "
                "such subject and visit; add a decision 'accept' for it, or correct the sheets"
            )


def _central_rows(study: Study, final: Sequence[str | Path]) -> list[MeasurementRow]:
    """Rows of the central read: final reads, and a re-review beside them where it may count.

    Sources: ``final``; ``rereview:<reader>`` for what was read again after the lock, and
    ``final:rereview``, which is the re-review's final read where there is one, else the original.
    """
    if not final:
        return []
    grades = study.settings.grades
    original, again = (read_table(path) for path in final)
    rows = _final_rows(original, grades)
    if not len(again):
        return rows
    rows += _read_rows(study.sheets.get("rereads"), grades, prefix="rereview:")
    key = ["participant_id", "visit", "endpoint"]
    both = pd.concat([again, original]).drop_duplicates(key).astype(object)
    both = both.where(both.notna(), None)
    return rows + _final_rows(both, grades, source="final:rereview")


@dataclass(frozen=True)
class _Group:
    """Some participants, and their records."""

    participants: frozenset[str]
    measured: tuple[Measured, ...]
    batches: tuple[MeasuredSupplied, ...]

    @property
    def sources(self) -> list[str]:
        """Records of the stages before."""
        return [source for record in self.measured for source in record.sources]

    def own(self, rows: Iterable[_Row]) -> tuple[_Row, ...]:
        """Rows of these participants."""
        return tuple(row for row in rows if row.participant_id in self.participants)

    def sheet(self, study: Study, name: str) -> pd.DataFrame | None:
        """Rows of these participants in a sheet."""
        sheet = study.sheets.get(name)
        return None if sheet is None else sheet[sheet["participant_id"].isin(self.participants)]


def _groups(
    study: Study, records: Sequence[str], batches: Sequence[str], further: Sequence[MeasurementRow]
) -> Iterator[_Group]:
    """Participants in turn, so many that their rows fit into memory: first those with images."""
    supplied = [MeasuredSupplied.read(path) for path in batches]
    left = {*study.participants, *(row.participant_id for row in study.scans)}
    left |= {row.participant_id for row in further}
    for name in ("reads", "measurements"):
        if name in study.sheets:
            left |= set(study.sheets[name]["participant_id"].dropna())
    for batch in supplied:
        left |= {row.participant_id for row in batch.rows}
        left |= {row.participant_id for row in batch.overlap}
        left |= {scan.participant_id for scan in batch.scans}
        left |= {str(row.participant_id) for row in batch.acquisition}

    def group(measured: Sequence[Measured], participants: Iterable[str]) -> _Group:
        whole = _Group(frozenset(participants), tuple(measured), ())
        parts = (
            replace(
                batch,
                rows=whole.own(batch.rows),
                overlap=whole.own(batch.overlap),
                scans=whole.own(batch.scans),
                acquisition=whole.own(batch.acquisition),
            )
            for batch in supplied
        )
        return replace(whole, batches=tuple(parts))

    for start in range(0, len(records), AT_ONCE):
        measured = [Measured.read(path) for path in records[start : start + AT_ONCE]]
        people = {record.participant_id for record in measured}
        left -= people
        yield group(measured, people)
    others = sorted(left)
    for start in range(0, len(others) or int(not records), AT_ONCE):
        yield group((), others[start : start + AT_ONCE])


def _group_rows(
    group: _Group, study: Study, further: Sequence[MeasurementRow], excluded: _Exclusions
) -> dict[str, pd.DataFrame]:
    return _rows_given(
        [*group.measured, *group.batches],
        reads=group.sheet(study, "reads"),
        supplied=group.sheet(study, "measurements"),
        baseline=study.baseline,
        settings=study.settings.measurement,
        scans=group.own(study.scans),
        serial=study.settings.serial_imaging,
        further=group.own(further),
        grades=study.settings.grades,
        excluded=excluded,
    )


def collect_study(
    study: Study,
    records: Sequence[str],
    batches: Sequence[str] = (),
    final: Sequence[str | Path] = (),
    decisions: str | Path | None = None,
    failed: Mapping[str, str] | None = None,
) -> Iterator[dict[str, pd.DataFrame]]:
    """All endpoint tables of a study, as they are and without exclusions, part by part.

    ``records`` are ``measure.json`` of participants, ``batches`` records of supplied masks; the
    records of ``prepare`` that the former name tell the status of each scan. ``final`` are the
    final reads and those of a re-review (empty where nothing is adjudicated), ``decisions`` the
    table of the review desk, ``failed`` ``participant_id|visit`` -> cause, for visits whose jobs
    failed and that the study is to be finished without.

    A part has rows of some participants in some tables; a value is missing only by what others
    have, so that measurements follow when all participants were seen, and the flow at last.

    Raises UserError if the chain of decisions is broken, or one names an unknown subject or visit.
    """
    try:
        decided = exclusions(read_decisions(decisions)) if decisions else {}
    except DecisionFault as fault:
        raise UserError(str(fault)) from None
    _known_visits(decided, study, study.scans)
    further = _central_rows(study, final)
    failed, status = dict(failed or {}), dict[str, tuple[str, str | None]]()
    # As it is, and last with exclusions; without any these are the same.
    exclusion_sets: list[_Exclusions] = [{}, decided] if decided else [{}]
    given = [Given() for _ in exclusion_sets]
    people: list[frozenset[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for group in _groups(study, records, batches, further):
            tables = [_group_rows(group, study, further, one) for one in exclusion_sets]
            for which, table in enumerate(tables):
                given[which].add(table["measurements"])
                table["measurements"].to_pickle(Path(folder, f"{len(people)}-{which}"))
            people.append(group.participants)
            images = list(_prepared_scans(study.folder, group.sources))
            supplied = [(s.participant_id, s.visit, s) for b in group.batches for s in b.scans]
            status |= {scan.scan_id: (scan.status, scan.reason) for _, _, scan in supplied}
            status |= {scan.scan_id: (scan.status, scan.reason) for _, _, scan in images}
            failed |= {
                f"{record.participant_id}|{one.visit}": f"the job measure failed: {one.reason}"
                for record in group.measured
                for one in record.unmeasured
            }
            acquisition = _acquisition(
                tables[-1]["acquisition"], images, study, group.sheet(study, "participants")
            )
            yield {
                "overlap": tables[-1]["overlap"],
                "overlap_without_exclusions": tables[0]["overlap"],
                "acquisition": acquisition,
                "image_findings": image_findings([*images, *supplied]),
            }
        for row in study.scans:
            cause = failed.get(f"{row.participant_id}|{row.visit}")
            if cause and row.scan_id not in status:
                status[row.scan_id] = ("failed", cause)
        seen = []
        listed = [(row.participant_id, row.visit) for row in study.scans]
        for number, participants in enumerate(people):
            frames = []
            for which, known in enumerate(given):
                frame = pd.read_pickle(Path(folder, f"{number}-{which}"))
                missing = missing_rows(known, listed, study.visit_order, participants)
                frames.append(_identified(_append(frame, missing)))
            kept = _kept_in_sight(frames[-1], frames[0]) if decided else frames[0]
            kept = _with_causes(kept, failed)
            seen.append(kept[["participant_id", "status", "scan_ids"]].drop_duplicates())
            yield {"measurements": kept, "without_exclusions": frames[0]}
    yield {"flow": _flow_rows(study.participants, study.scans, status, pd.concat(seen))}


def _with_causes(frame: pd.DataFrame, failed: Mapping[str, str]) -> pd.DataFrame:
    """Missing values of the pipeline at visits whose jobs failed, with the cause."""
    if not failed:
        return frame
    cause = (frame["participant_id"] + "|" + frame["visit"]).map(failed)
    hit = cause.notna() & (frame["source"] == "pipeline") & (frame["status"] == "missing")
    return frame.assign(
        status=frame["status"].where(~hit, "failed"), reason=frame["reason"].where(~hit, cause)
    )


def image_findings(scans: Iterable[tuple[str, str, Scan | SuppliedScan]]) -> pd.DataFrame:
    """Findings about the image files: faults, what was fixed, what was left out.

    Parameters
    ----------
    scans
        Participant, visit and scan.

    Examples
    --------
    >>> scan = Scan("s", "adc", notes=("ADC was in m2/s",))
    >>> image_findings([("1", "v", scan)])[["severity", "message"]].values.tolist()
    [['note', 'ADC was in m2/s']]
    """
    rows: list[tuple[str | None, ...]] = []
    listed: set[tuple[str, str, str]] = set()
    for participant_id, visit, scan in scans:
        found: list[tuple[str, str, str | None]] = []
        if scan.status != "ok":
            found.append(("fault", str(scan.reason), scan.remedy))
        found += [("warning", text, None) for text in scan.warnings or ()]
        found += [("note", note, None) for note in scan.notes or ()]
        # One folder gives scans of several kinds; its listing is reported once.
        key = (participant_id, visit, scan.scan_id)
        if isinstance(scan, Scan) and scan.dicom and key not in listed:
            listed.add(key)
            found += _folder_findings(scan.dicom)
        rows += [(participant_id, visit, scan.kind, scan.scan_id, *one) for one in found]
    place = ("participant_id", "visit", "kind", "scan_id")
    frame = pd.DataFrame(rows, columns=[*place, "severity", "message", "remedy"])
    return frame[list(IMAGE_FINDINGS)]


def _folder_findings(listing: DicomListing) -> list[tuple[str, str, str | None]]:
    """Contents of a DICOM folder besides the series that were used."""
    found: list[tuple[str, str, str | None]] = []
    for part in listing.left_out:
        more = "" if part.count == len(part.files) else " ..."
        message = f"left out, {part.reason}: {', '.join(part.files)}{more}"
        remedy = "export these files again" if part.damaged else None
        found.append(("warning" if part.damaged else "note", message, remedy))
    for series in listing.series:
        if series.lossy:
            message = f"series {series.number} was compressed with loss"
            found.append(("warning", message, "export it without compression"))
        if series.kind is None:
            what = f"series {series.number} '{series.description}'"
            message = f"{what} ({series.images} images) shows no kind that is analysed"
            found.append(("note", message, None))
    if listing.identifying_tags:
        tags = listing.identifying_tags.items()
        shown = ", ".join(f"{tag} ({count} files)" for tag, count in tags)
        message = f"identifying tags are filled: {shown}"
        found.append(("warning", message, "de-identify the files before they are sent on"))
    return found


def _prepared_scans(folder: Path, sources: Iterable[str]) -> Iterator[tuple[str, str, Scan]]:
    """Participant, visit and scan of the records of ``prepare``; of each record the scans alone."""
    for source in sources:
        if source.endswith(f"/{Prepared.stage}.json"):
            visit = Prepared.read(folder / source)
            for scan in visit.scans:
                yield visit.participant_id, visit.visit, scan


def _acquisition(
    frame: pd.DataFrame,
    images: Iterable[tuple[str, str, Scan]],
    study: Study,
    sheet: pd.DataFrame | None,
) -> pd.DataFrame:
    """Criteria of single scans and of the trial, with site, scanner and time of each scan."""
    scans = [
        TrialScan(
            *(participant_id, visit, scan.kind, scan.scan_id),
            *(scan.status, scan.reason, scan.metadata),
        )
        for participant_id, visit, scan in images
        if scan.label is None and scan.kind != "aif" and scan.space == "native"
    ]
    rows_of_people = [] if sheet is None else sheet.to_dict("records")
    people: dict[str, Any] = {str(row["participant_id"]): row for row in rows_of_people}
    rows = trial_rows(
        scans,
        study.settings.acquisition.trial,
        participants=people,
        visit_order=study.visit_order,
        baseline=study.baseline,
    )
    if rows:
        made = rows_frame(rows, frame.columns, object)
        frame = made if frame.empty else pd.concat([frame.astype(object), made], ignore_index=True)
    facts = {(scan.scan_id, scan.kind): scan.metadata for scan in scans}
    own = [
        facts.get((scan_id, kind), {})
        for scan_id, kind in zip(frame["scan_id"], frame["kind"], strict=True)
    ]
    frame = frame.astype(object)
    frame["site"] = [people.get(str(one), {}).get("site") for one in frame["participant_id"]]
    frame["scanner"] = [fact.get("scanner") for fact in own]
    frame["acquired_at"] = [fact.get("acquired_at") for fact in own]
    return frame


#: Tables that a study is collected to, and the columns of their files.
TABLES = {
    "without_exclusions": MEASUREMENTS,
    "overlap_without_exclusions": OVERLAP,
    "measurements": MEASUREMENTS,
    "overlap": OVERLAP,
    "acquisition": ACQUISITION,
    "image_findings": IMAGE_FINDINGS,
}


def write_endpoints(parts: Iterable[Mapping[str, pd.DataFrame]], paths: Any) -> None:
    """Write the endpoint tables with their data dictionaries.

    Parameters
    ----------
    parts
        Of :func:`collect_study`.
    paths
        Object with the attributes ``measurements``, ``without_exclusions``, ``overlap``,
        ``overlap_without_exclusions``, ``acquisition``, ``image_findings`` and ``flow``.
    """
    written: dict[str, list[Path]] = {name: [] for name in TABLES}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            for name, frame in part.items():
                if name == "flow":
                    write_table(frame, paths.flow, FLOW, sort=False)
                    continue
                path = Path(folder, f"{name}-{len(written[name])}")
                written[name].append(write_part(frame, path, TABLES[name]))
        for name, columns in TABLES.items():
            write_merged(written[name], getattr(paths, name), columns)
