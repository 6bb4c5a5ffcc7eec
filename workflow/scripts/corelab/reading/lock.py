"""The lock of a read: sha256 of every row of the reads, of final reads and of readers' contours.

A lock is never written anew: later runs compare the rows with it. A change counts
only with its entries in the change log, which are undone one by one until the row has the
locked hash again; what cannot be undone is named, and the reads are INVALID. With a signing
key (``reading.signing_key``) the lock bears an HMAC that cannot be made without the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from corelab.provenance.products import format_cell, plain, read_json
from corelab.reading.change_log import LogFault, head_path, verify_log
from corelab.reading.conduct import times

_KEY = ("participant_id", "visit", "endpoint", "reader", "repeat", "role")
FINAL_KEY = ("participant_id", "visit", "endpoint")
AUDIT = {
    "row": "Key of a row of the reads sheet, or contour|<scan> for a reader's contour",
    "verdict": "locked (unchanged), explained (changed, every change logged) or INVALID",
    "changes": "Number of log entries about it",
    "sha256": "SHA-256 of the row as it is now; n/a for a row that was taken out",
    "locked_sha256": "SHA-256 of the row at the lock; n/a for a row that came later",
    "fault": "What is not explained, n/a where everything is",
}
CONTOUR = "contour"


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


def _rows(sheet: pd.DataFrame | None, contours: Mapping[str, str] | None = None) -> dict[str, str]:
    """Key -> canonical text of every row of the reads and of every reader's contour."""
    rows = {
        f"{CONTOUR}|{name}": row_text({"sha256": digest})
        for name, digest in (contours or {}).items()
    }
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
    content = {key: value for key, value in lock.items() if key not in {"lock_sha256", "signature"}}
    return _sha256(json.dumps(plain(content), sort_keys=True, ensure_ascii=False))


def read_key(path: str | Path) -> bytes:
    """The signing key: all bytes of a file of at least 32.

    Raises
    ------
    ValueError
        If the file is missing or too short to be a key.
    """
    file = Path(path).expanduser()
    content = file.read_bytes() if file.is_file() else b""
    if len(content) < 32:
        raise ValueError(
            f"reading.signing_key: {path} is missing or has fewer than 32 bytes; make one with "
            "head -c 32 /dev/urandom > FILE and keep it outside the study"
        )
    return content


def signature_of(lock: Mapping[str, Any], key: bytes) -> dict[str, str]:
    """HMAC-SHA256 (RFC 2104) of a lock's own hash, with the fingerprint of the key.

    Examples
    --------
    >>> signature_of({"lock_sha256": "00"}, b"k" * 32)["method"]
    'HMAC-SHA256'
    """
    value = hmac.new(key, str(lock["lock_sha256"]).encode("utf-8"), hashlib.sha256).hexdigest()
    name = hashlib.sha256(b"corelab lock key\x1f" + key).hexdigest()[:16]
    return {"method": "HMAC-SHA256", "key": name, "value": value}


def make_lock(
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    *,
    charter: Mapping[str, Any],
    log: Iterable[Mapping[str, Any]] = (),
    locked_at: str | None = None,
    locked_by: str | None = None,
    contours: Mapping[str, str] | None = None,
    key: bytes | None = None,
    open_at_lock: Sequence[str] = (),
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
    locked_by
        Who locked.
    contours
        Scan identifier -> SHA-256 of a reader's contour.
    key
        Signing key; None leaves the lock unsigned.
    open_at_lock
        What was not settled when it was locked.

    Examples
    --------
    >>> sheet = pd.DataFrame([{"participant_id": "1", "visit": "a", "endpoint": "aspects",
    ...                        "reader": "r1", "value": "8"}])
    >>> lock = make_lock(sheet, pd.DataFrame(columns=list(FINAL_KEY)), charter={})
    >>> list(lock["reads"]), check_lock(lock, sheet, pd.DataFrame(columns=list(FINAL_KEY)), [])
    (['1|a|aspects|r1|1|reader'], [])
    """
    entries = list(log)
    rows = _rows(sheet, contours)
    lock: dict[str, Any] = {
        "reads": {name: _sha256(text) for name, text in sorted(rows.items())},
        "final_reads": dict(sorted(_finals(final).items())),
        "charter": plain(charter),
        "log": {"entries": len(entries), "sha256": entries[-1]["sha256"] if entries else None},
    }
    if open_at_lock:
        lock["open_at_lock"] = list(open_at_lock)
    if locked_at is not None:
        lock["locked_at"] = locked_at
    if locked_by is not None:
        lock["locked_by"] = locked_by
    lock["lock_sha256"] = _self_digest(lock)
    if key is not None:
        lock["signature"] = signature_of(lock, key)
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
            faults.append(f"{where} changes a row that does not exist")
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
    contours: Mapping[str, str] | None = None,
    key: bytes | None = None,
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
    contours
        Scan identifier -> SHA-256 of a reader's contour as it is now.
    key
        Signing key; None does not verify a signature.

    Returns
    -------
    list of str
        One sentence per fault with the row's key; empty if the lock holds.
    """
    if lock.get("lock_sha256") != _self_digest(lock):
        return ["the lock itself was edited: its content does not have its hash"]
    if key is not None:
        expected = signature_of(lock, key)
        if not hmac.compare_digest(
            str((lock.get("signature") or {}).get("value")), expected["value"]
        ):
            return ["the lock does not bear the signature of reading.signing_key: another lock"]
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
    before, misfits = _undone(_rows(sheet, contours), since)
    faults += misfits
    named = {fault.split(":")[0] for fault in misfits}
    then: dict[str, str] = lock["reads"]
    for row in sorted({*before, *then} - named):
        locked = then.get(row)
        if row not in before:
            faults.append(f"{row}: the row was taken out without an entry in the change log")
        elif locked is None:
            faults.append(f"{row}: the row was added without an entry in the change log")
        elif _sha256(before[row]) != locked:
            faults.append(f"{row}: the row was changed without an entry in the change log")
    # A logged change may alter the final read of its own case and endpoint, and no other.
    touched = {"|".join(entry["what"]["row"].split("|")[:3]) for entry in since}
    now = _finals(final)
    decided: dict[str, str] = lock["final_reads"]
    for row in sorted({*now, *decided} - touched):
        if now.get(row) != decided.get(row):
            faults.append(f"{row}: the final read changed, but no logged change concerns it")
    return faults


def audit_table(
    lock: Mapping[str, Any],
    sheet: pd.DataFrame | None,
    log: list[dict[str, Any]],
    *,
    contours: Mapping[str, str] | None = None,
    faults: Iterable[str] = (),
) -> pd.DataFrame:
    """Every row with its standing against a lock; columns :data:`AUDIT`.

    Faults (of :func:`check_lock`) that name no row have a row of their own, called ``lock``.
    """
    rows = {key: _sha256(text) for key, text in _rows(sheet, contours).items()}
    locked = lock.get("reads") or {}
    since = log[int((lock.get("log") or {}).get("entries") or 0) :]
    named: dict[str, list[str]] = {}
    for fault in faults:
        key, _, text = fault.partition(": ")
        known = key in rows or key in locked
        named.setdefault(key if known else "lock", []).append(text if known else fault)
    made: list[tuple[Any, ...]] = []
    for key in sorted({*rows, *locked} | ({"lock"} & set(named))):
        changes = sum(entry["what"]["row"] == key for entry in since)
        wrong = "; ".join(named.get(key, [])) or None
        verdict = "INVALID" if wrong else "explained" if changes else "locked"
        made.append((key, verdict, changes, rows.get(key), locked.get(key), wrong))
    return pd.DataFrame(made, columns=list(AUDIT), dtype=object)


@dataclass(frozen=True)
class Standing:
    """Result of comparing reads with their lock.

    Attributes
    ----------
    state
        ``valid``, ``invalid`` or ``open`` (nothing is locked yet).
    faults
        What is not explained; each makes the results INVALID.
    open
        What had to be settled before the lock, or was open at the lock.
    audit
        Columns :data:`AUDIT`.
    changes
        Logged changes since the lock.
    lock
        As read; empty where it cannot be read.
    """

    state: str
    faults: tuple[str, ...]
    open: tuple[str, ...]
    audit: pd.DataFrame
    changes: int
    lock: Mapping[str, Any]


def read_lock(path: Path) -> tuple[dict[str, Any], str | None]:
    """A lock, and why it cannot be read (then it is empty)."""
    try:
        lock = read_json(path)
        if not isinstance(lock, dict) or not (lock.get("open") or "reads" in lock):
            raise ValueError("it holds no reads")
    except (OSError, ValueError) as error:
        return {}, f"the lock itself was edited or is gone: {error}"
    return lock, None


def log_without_lock(log_path: Path) -> str | None:
    """Reason why no new lock may be made: a log of changes shows that there was one before."""
    if not log_path.is_file() and not head_path(log_path).is_file():
        return None
    return (
        f"{log_path.name} logs changes after a lock, but the lock is gone: restore "
        "reading/lock.json"
    )


def verify_lock(
    path: Path,
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    log_path: Path,
    *,
    charter: Mapping[str, Any],
    contours: Mapping[str, str] | None = None,
    key: bytes | None = None,
    expected_sha256: str | None = None,
    rereview: Sequence[str] = (),
) -> Standing:
    """Compare reads, final reads and contours with their lock.

    Parameters
    ----------
    path
        ``reading/lock.json``.
    sheet, final
        Reads and final reads as they are now.
    log_path
        The change log.
    charter, contours, key
        As in :func:`check_lock`.
    expected_sha256
        The lock's own hash as it was noted when it was made; another lock is a fault.
    rereview
        Faults of a re-review (:func:`corelab.reading.rereview.rereview_faults`).
    """
    lock, unreadable = read_lock(path)
    if not unreadable and "reads" not in lock:
        gone = log_without_lock(log_path)
        wrong = (*([gone] if gone else []), *rereview)
        state, audit = "invalid" if wrong else "open", audit_table({}, None, [], faults=wrong)
        return Standing(state, wrong, tuple(lock["open"]), audit, 0, lock)
    faults = [unreadable] if unreadable else []
    log: list[dict[str, Any]] = []
    try:
        log = verify_log(log_path)
    except LogFault as fault:
        faults += str(fault).splitlines()
    if not faults:
        faults += check_lock(lock, sheet, final, log, charter=charter, contours=contours, key=key)
    if expected_sha256 and lock.get("lock_sha256") != expected_sha256:
        faults.append("the lock is not the one whose hash is in reading.lock_sha256")
    faults += _read_late(lock, sheet, log) + list(rereview)
    return Standing(
        "invalid" if faults else "valid",
        tuple(faults),
        tuple(lock.get("open_at_lock") or ()),
        audit_table(lock, sheet, log, contours=contours, faults=faults),
        len(log) - int((lock.get("log") or {}).get("entries") or 0),
        lock,
    )


def _read_late(
    lock: Mapping[str, Any], sheet: pd.DataFrame | None, log: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Reads whose own time lies after the lock and that no entry explains."""
    if sheet is None or not lock.get("locked_at"):
        return []
    when = times(sheet, "confirmed_at", "read_at")
    late = sheet[when > pd.to_datetime(lock["locked_at"], utc=True)]
    logged = {entry["what"]["row"] for entry in log}
    return [
        f"{row_key(cells)}: read after the lock of {lock['locked_at']} without an entry; a re-read "
        "goes into inputs.rereads with its evidences (reading.rereview)"
        for cells in _records(late)
        if row_key(cells) not in logged
    ]
