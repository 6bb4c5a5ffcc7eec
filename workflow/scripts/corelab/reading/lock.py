"""The lock of a read: sha256 of every row of the reads and of the final reads.

Once there, a lock is never written anew: later runs hold the rows against it. A change counts
only with its entries in the change log, which are undone one by one until the row has the
locked hash again; whatever cannot be undone is named, and the reads are INVALID.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd

from corelab.provenance.products import format_cell, plain, read_json
from corelab.reading.change_log import LogFault, verify_log

_KEY = ("participant_id", "visit", "endpoint", "reader", "repeat", "role")
FINAL_KEY = ("participant_id", "visit", "endpoint")
AUDIT = {
    "row": "Key of a row of the reads sheet",
    "verdict": "locked (unchanged), or explained (changed, every change logged)",
    "changes": "Number of log entries about it",
    "sha256": "SHA-256 of the row as it is now; n/a for a row that was taken out",
    "locked_sha256": "SHA-256 of the row at the lock; n/a for a row that came later",
}


class LockFault(ValueError):
    """Reads that differ from their lock without an entry in the log; each is named."""


def row_key(cells: Mapping[str, Any]) -> str:
    """Key of a row of the reads sheet.

    Examples
    --------
    >>> row_key({"participant_id": "001", "visit": "day5", "endpoint": "aspects", "reader": "r1"})
    '001|day5|aspects|r1|1|reader'
    """
    default = {"repeat": "1", "role": "reader"}
    return "|".join(str(cells.get(name) or default.get(name)) for name in _KEY)


def row_text(cells: Mapping[str, Any]) -> str:
    """A row as canonical JSON: sorted keys, missing cells left out.

    Examples
    --------
    >>> row_text({"b": "2", "a": "1", "c": None})
    '{"a":"1","b":"2"}'
    """
    kept = {
        str(name): format_cell(cell) for name, cell in cells.items() if format_cell(cell) != "n/a"
    }
    return json.dumps(kept, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _records(frame: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if frame is None else cast(list[dict[str, Any]], frame.to_dict("records"))


def _rows(sheet: pd.DataFrame | None) -> dict[str, str]:
    """Row key -> canonical text."""
    rows: dict[str, str] = {}
    for cells in _records(sheet):
        key = row_key(cells)
        if key in rows:
            raise ValueError(f"two reads have the key {key}; number them in the column repeat")
        rows[key] = row_text(cells)
    return rows


def _finals(final: pd.DataFrame) -> dict[str, str]:
    return {
        "|".join(str(cells[name]) for name in FINAL_KEY): _sha256(row_text(cells))
        for cells in _records(final)
    }


def _self_digest(lock: Mapping[str, Any]) -> str:
    content = {key: value for key, value in lock.items() if key != "lock_sha256"}
    return _sha256(json.dumps(plain(content), sort_keys=True, ensure_ascii=False))


def make_lock(
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    *,
    charter: Mapping[str, Any],
    log: Iterable[Mapping[str, Any]] = (),
    locked_at: str | None = None,
) -> dict[str, Any]:
    """The lock of the reads as they are.

    Parameters
    ----------
    sheet
        The reads sheet as text.
    final
        Final reads.
    charter
        What was fixed before: presentation, seed, adjudication rules.
    log
        Entries of the change log that came before the lock; normally none.
    locked_at
        Time to write into it; None leaves the lock free of any clock.

    Examples
    --------
    >>> sheet = pd.DataFrame([{"participant_id": "1", "visit": "a", "endpoint": "aspects",
    ...                        "reader": "r1", "value": "8"}])
    >>> lock = make_lock(sheet, pd.DataFrame(columns=list(FINAL_KEY)), charter={})
    >>> list(lock["reads"]), check_lock(lock, sheet, pd.DataFrame(columns=list(FINAL_KEY)), [])
    (['1|a|aspects|r1|1|reader'], [])
    """
    entries = list(log)
    lock: dict[str, Any] = {
        "reads": {key: _sha256(text) for key, text in sorted(_rows(sheet).items())},
        "final_reads": dict(sorted(_finals(final).items())),
        "charter": plain(charter),
        "log": {"entries": len(entries), "sha256": entries[-1]["sha256"] if entries else None},
    }
    if locked_at is not None:
        lock["locked_at"] = locked_at
    lock["lock_sha256"] = _self_digest(lock)
    return lock


def _undone(
    rows: dict[str, str], entries: Iterable[Mapping[str, Any]]
) -> tuple[dict[str, str], list[str]]:
    """Rows with logged changes taken back, newest first, and entries that do not fit them."""
    before, faults = dict(rows), []
    for entry in reversed(list(entries)):
        what = entry["what"]
        key, field, old, new = what["row"], what["field"], what["old"], what["new"]
        where = f"{key}: log entry {entry['number']}"
        if field == "row":
            if before.get(key) != new:
                faults.append(f"{where} says the whole row became {new}, which it is not")
            if old is None:
                before.pop(key, None)
            else:
                before[key] = old
            continue
        if key not in before:
            faults.append(f"{where} changes a row that is not there")
            continue
        cells = json.loads(before[key])
        if cells.get(field) != new:
            faults.append(
                f"{where} says {field} became {new}, but it is {cells.get(field)}: a change "
                "without an entry"
            )
        before[key] = row_text({**cells, field: old})
    return before, faults


def check_lock(
    lock: Mapping[str, Any],
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    log: list[dict[str, Any]],
    *,
    charter: Mapping[str, Any] | None = None,
) -> list[str]:
    """Everything in which reads and final reads differ from the lock without explanation.

    Parameters
    ----------
    lock
        As :func:`make_lock` made it.
    sheet, final
        Reads and final reads as they are now.
    log
        Verified entries of the change log.
    charter
        The charter's settings now; None does not compare them.

    Returns
    -------
    list of str
        One sentence per fault with the row's key; empty if the lock holds.
    """
    if lock.get("lock_sha256") != _self_digest(lock):
        return ["the lock itself was edited: its content does not have its hash"]
    count = lock["log"]["entries"]
    if len(log) < count or (count and log[count - 1]["sha256"] != lock["log"]["sha256"]):
        return ["the change log is not the one of the lock: entries from before it are gone"]
    faults: list[str] = []
    if charter is not None and plain(charter) != lock["charter"]:
        changed = sorted(
            key
            for key in {*charter, *lock["charter"]}
            if plain(charter).get(key) != lock["charter"].get(key)
        )
        faults.append(f"the charter's settings changed after the lock: {', '.join(changed)}")
    since = log[count:]
    before, misfits = _undone(_rows(sheet), since)
    faults += misfits
    named = {fault.split(":")[0] for fault in misfits}
    for key in sorted({*before, *lock["reads"]} - named):
        locked = lock["reads"].get(key)
        if key not in before:
            faults.append(f"{key}: the row was taken out without an entry in the change log")
        elif locked is None:
            faults.append(f"{key}: the row was added without an entry in the change log")
        elif _sha256(before[key]) != locked:
            faults.append(f"{key}: the row was changed without an entry in the change log")
    # A logged change may alter the final read of its own case and endpoint, and no other.
    touched = {"|".join(entry["what"]["row"].split("|")[:3]) for entry in since}
    now = _finals(final)
    for key in sorted({*now, *lock["final_reads"]} - touched):
        if now.get(key) != lock["final_reads"].get(key):
            faults.append(f"{key}: the final read changed, but no logged change concerns it")
    return faults


def audit_table(
    lock: Mapping[str, Any], sheet: pd.DataFrame | None, log: list[dict[str, Any]]
) -> pd.DataFrame:
    """Every row with its standing against a lock that holds; columns :data:`AUDIT`."""
    rows = {key: _sha256(text) for key, text in _rows(sheet).items()}
    since = log[lock["log"]["entries"] :]
    made = []
    for key in sorted({*rows, *lock["reads"]}):
        changes = sum(entry["what"]["row"] == key for entry in since)
        verdict = "explained" if changes else "locked"
        made.append((key, verdict, changes, rows.get(key), lock["reads"].get(key)))
    return pd.DataFrame(made, columns=list(AUDIT), dtype=object)


def lock_reads(
    path: Path,
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    log_path: Path,
    *,
    charter: Mapping[str, Any],
    locked_at: str | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Lock the reads, or hold them against the lock that is there.

    Parameters
    ----------
    path
        ``reading/lock.json``.
    sheet, final
        Reads and final reads.
    log_path
        The change log.
    charter, locked_at
        As in :func:`make_lock`.

    Returns
    -------
    lock, audit
        The lock as first made, and :func:`audit_table`.

    Raises
    ------
    LockFault
        If the log is broken, or anything differs from the lock without an entry.
    """
    try:
        log = verify_log(log_path)
    except LogFault as fault:
        raise LockFault(str(fault)) from None
    if path.is_file():
        lock = read_json(path)
        faults = check_lock(lock, sheet, final, log, charter=charter)
        if faults:
            raise LockFault(
                "\n".join(
                    [
                        "The reads are INVALID: they differ from their lock.",
                        *faults,
                        "Restore them, or log each change: "
                        "python -m corelab.reading.change_log LOG --help",
                    ]
                )
            )
    else:
        lock = make_lock(sheet, final, charter=charter, log=log, locked_at=locked_at)
    return lock, audit_table(lock, sheet, log)
