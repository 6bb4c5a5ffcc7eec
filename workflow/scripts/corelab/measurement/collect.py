"""One table: what jobs measured, what readers read and what other software gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from corelab.measurement.longitudinal import (
    change_rows,
    ghost_core_rows,
    mismatch_rows,
    missing_rows,
    without_known,
)
from corelab.provenance.manifest import row_identifier
from corelab.provenance.products import read_json, write_table
from corelab.study.checks import VOLUME_UNITS_ML
from corelab.study.columns import (
    ACQUISITION,
    ENDPOINT_UNITS,
    FLOW,
    MEASUREMENT_KEY,
    MEASUREMENTS,
    OVERLAP,
)
from corelab.study.model import Study


def endpoint_unit(endpoint: str) -> str | None:
    """Unit of a named endpoint, None where its name fixes none.

    Examples
    --------
    >>> endpoint_unit("infarct_volume"), endpoint_unit("lesion_volume:cavity"), endpoint_unit("x")
    ('mL', 'mL', None)
    """
    return ENDPOINT_UNITS.get(endpoint.split(":")[0])


def _in_unit(
    value: float | None, unit: str | None, endpoint: str
) -> tuple[float | None, str | None]:
    """A supplied value in the endpoint's own unit."""
    wanted = endpoint_unit(endpoint)
    if wanted == "mL" and value is not None and unit in VOLUME_UNITS_ML:
        return value * VOLUME_UNITS_ML[unit], "mL"
    return value, wanted or unit


def _number(cell: Any) -> float | None:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return None
    return float(cell)


def read_rows(sheet: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows of the reads sheet as measurement rows; the source is the reader.

    Examples
    --------
    >>> sheet = pd.DataFrame([{"participant_id": "1", "visit": "a", "endpoint": "infarct_volume",
    ...                        "reader": "r1", "value": "12000", "unit": "mm3"}])
    >>> row = read_rows(sheet)[0]; row["value"], row["unit"], row["source"], row["repeat"]
    (12.0, 'mL', 'r1', 1)
    """
    if sheet is None:
        return []
    rows = []
    for cells in sheet.to_dict("records"):
        value, unit = _in_unit(_number(cells["value"]), cells.get("unit"), cells["endpoint"])
        rows.append(
            {
                "participant_id": cells["participant_id"],
                "visit": cells["visit"],
                "endpoint": cells["endpoint"],
                "source": cells["reader"],
                "repeat": int(float(cells.get("repeat") or 1)),
                "region": "all",
                "value": value,
                "unit": unit,
                "status": "ok" if value is not None else "missing",
                "reason": None if value is not None else "the reader gave no value",
                "scan_ids": None,
            }
        )
    return rows


def supplied_rows(sheet: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows of measurements sheets (other software, earlier readings) as measurement rows."""
    if sheet is None:
        return []
    rows = []
    for cells in sheet.to_dict("records"):
        value, unit = _in_unit(_number(cells["value"]), cells.get("unit"), cells["endpoint"])
        status = cells.get("status") or ("ok" if value is not None else "missing")
        rows.append(
            {
                "participant_id": cells["participant_id"],
                "visit": cells.get("visit") or "all",
                "endpoint": cells["endpoint"],
                "source": cells["source"],
                "repeat": int(float(cells.get("repeat") or 1)),
                "region": cells.get("region") or "all",
                "value": value if status == "ok" else None,
                "unit": unit,
                "status": status,
                "reason": cells.get("reason") or (None if status == "ok" else "no value given"),
                "scan_ids": cells.get("scan_ids"),
            }
        )
    return rows


def collect_measurements(
    records: Iterable[Path],
    *,
    reads: pd.DataFrame | None,
    supplied: pd.DataFrame | None,
    listed: Sequence[tuple[str, str]],
    visit_order: Sequence[str],
    baseline: str | None,
    settings: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """Collect all rows of a study.

    Parameters
    ----------
    records
        ``measure.json`` of visits and batches.
    reads, supplied
        Sheets as text.
    listed
        (participant_id, visit) of the scans sheet.
    visit_order, baseline
        Visits in time.
    settings
        ``measurement`` of the config.

    Returns
    -------
    dict
        ``measurements``, ``overlap``, ``acquisition`` frames in the columns of the contract.

    Raises
    ------
    ValueError
        If one key has two values.
    """
    rows: list[dict[str, Any]] = []
    overlaps: list[dict[str, Any]] = []
    acquisition: list[dict[str, Any]] = []
    for path in records:
        record = read_json(path)
        rows += record["rows"]
        overlaps += record["overlap"]
        acquisition += record["acquisition"]
    rows = _contours_first(rows, read_rows(reads)) + supplied_rows(supplied)
    columns = [c for c in MEASUREMENTS if c != "row_id"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["value"] = frame["value"].astype(float)
    for made in (
        mismatch_rows(frame),
        change_rows(frame, baseline),
        ghost_core_rows(frame, baseline, above_ml=settings["ghost_core_above_ml"]),
    ):
        frame = _append(frame, without_known(made, frame))
    frame = _append(frame, without_known(missing_rows(frame, listed, visit_order), frame))
    doubled = frame.duplicated(list(MEASUREMENT_KEY), keep=False)
    if doubled.any():
        first = frame[doubled].iloc[0]
        raise ValueError(
            "two values for one key: "
            + ", ".join(f"{key}={first[key]}" for key in MEASUREMENT_KEY)
            + "; duplicates are never averaged. Number repeated reads in the column repeat, or "
            "give the sources different names"
        )
    frame["row_id"] = [
        row_identifier(*map(str, key))
        for key in frame[list(MEASUREMENT_KEY)].itertuples(index=False, name=None)
    ]
    return {
        "measurements": frame[list(MEASUREMENTS)],
        "overlap": pd.DataFrame(overlaps, columns=list(OVERLAP)),
        "acquisition": pd.DataFrame(acquisition, columns=list(ACQUISITION)),
    }


def _contours_first(
    measured: list[dict[str, Any]], read: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of both; where a reader's contour and a reader's number share a key, the contour.

    The contour can be measured again by anybody, the number cannot; it is kept in the reason.
    """

    def key(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in MEASUREMENT_KEY)

    by_key = {key(row): row for row in measured if row["status"] == "ok"}
    kept = []
    for row in read:
        contour = by_key.get(key(row))
        if contour is None:
            kept.append(row)
        elif row["value"] is not None:
            contour["reason"] = (
                f"measured on the reader's contour; the reads sheet says {row['value']:g}"
            )
    failed = {key(row) for row in kept}
    # A contour that could not be read does not hide the number that the reader gave.
    return [row for row in measured if key(row) not in failed] + kept


def _append(frame: pd.DataFrame, made: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    if not made:
        return frame
    more = pd.DataFrame(made, columns=frame.columns)
    more["value"] = more["value"].astype(float)
    return more if frame.empty else pd.concat([frame, more], ignore_index=True)


def flow_rows(
    participants: Sequence[str],
    scans: Sequence[Mapping[str, Any]],
    scan_status: Mapping[str, tuple[str, str | None]],
    measurements: pd.DataFrame,
) -> pd.DataFrame:
    """The flow from scans listed to scans measured, and of participants to those with values.

    Parameters
    ----------
    participants
        Subject ids of the study.
    scans
        Scan rows with ``scan_id`` and ``exists``.
    scan_status
        scan_id -> (status, reason) as the jobs found it.
    measurements
        The collected rows.

    Returns
    -------
    pandas.DataFrame
        Columns of flow.tsv. In every stage n_in - sum of n_excluded = n_out, and the next stage
        of the same chain begins with that n_out.

    Examples
    --------
    >>> rows = pd.DataFrame({"participant_id": ["1"], "status": ["ok"], "scan_ids": ["a"]})
    >>> flow = flow_rows(["1", "2"], [{"scan_id": "a", "exists": True}], {"a": ("ok", None)}, rows)
    >>> flow[["stage", "n_in", "n_excluded", "n_out"]].values.tolist()[0]
    ['scans listed: file there', 1, 0, 1]
    """
    made: list[dict[str, Any]] = []

    def stage(name: str, entering: Sequence[str], leaving: Mapping[str, str]) -> list[str]:
        out = [item for item in entering if item not in leaving]
        reasons = sorted({leaving[item] for item in entering if item in leaving})
        for reason in reasons or ["none leaves"]:
            made.append(
                {
                    "stage": name,
                    "n_in": len(entering),
                    "n_out": len(out),
                    "reason": reason,
                    "n_excluded": sum(leaving.get(item) == reason for item in entering),
                }
            )
        return out

    listed = [row["scan_id"] for row in scans]
    if listed:
        there = stage(
            "scans listed: file there",
            listed,
            {row["scan_id"]: "file not there" for row in scans if not row["exists"]},
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
    return pd.DataFrame(made, columns=list(FLOW))


def collect_study(
    study: Study, records: Sequence[str], prepared: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """All endpoint tables of a study.

    Parameters
    ----------
    study
        As read from config and sheets.
    records
        ``measure.json`` of visits and batches.
    prepared
        ``prepare.json`` of visits, for the status of each scan.

    Returns
    -------
    dict
        ``measurements``, ``overlap``, ``acquisition``, ``flow``.
    """
    tables = collect_measurements(
        [Path(path) for path in records],
        reads=study.sheets.get("reads"),
        supplied=study.sheets.get("measurements"),
        listed=[(row["participant_id"], row["visit"]) for row in study.scans],
        visit_order=study.visit_order,
        baseline=study.baseline,
        settings=study.config["measurement"],
    )
    status: dict[str, tuple[str, str | None]] = {}
    for path in [*records, *prepared]:
        for scan in read_json(path).get("scans", []):
            status[scan["scan_id"]] = (scan["status"], scan.get("reason"))
    tables["flow"] = flow_rows(study.participants, study.scans, status, tables["measurements"])
    return tables


def write_endpoints(tables: Mapping[str, pd.DataFrame], paths: Any) -> None:
    """Write the endpoint tables with their data dictionaries.

    Parameters
    ----------
    tables
        Of :func:`collect_study`.
    paths
        Object with the attributes ``measurements``, ``overlap``, ``acquisition``, ``flow``.
    """
    write_table(tables["measurements"], paths.measurements, MEASUREMENTS)
    write_table(tables["overlap"], paths.overlap, OVERLAP)
    write_table(tables["acquisition"], paths.acquisition, ACQUISITION)
    write_table(tables["flow"], paths.flow, FLOW, sort=False)
