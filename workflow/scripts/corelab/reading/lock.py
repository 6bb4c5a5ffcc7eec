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
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import cast

import pandas as pd

from corelab.provenance.products import format_cell, plain, read_json
from corelab.reading.change_log import LogFault, head_path, verify_log
from corelab.reading.conduct import times
from corelab.records.base import RecordError
from corelab.records.reading import Change, Charter, Lock, LogState, Signature, Validity
from corelab.settings.reading import ReadingSettings

#: A row of a sheet.
Cells = Mapping[str, str | float | None]

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


def row_key(cells: Cells) -> str:
    """Key of a row of the reads sheet.

    Examples
    --------
    >>> row_key({"participant_id": "001", "visit": "day5", "endpoint": "aspects", "reader": "r1"})
    '001|day5|aspects|r1|1|reader'
    """
    default = {"repeat": "1", "role": "reader"}
    return "|".join(str(cells.get(name) or default.get(name)) for name in _KEY)


def row_text(cells: Cells) -> str:
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


def _records(frame: pd.DataFrame | None) -> list[Cells]:
    return [] if frame is None else cast("list[Cells]", frame.to_dict("records"))


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


def _self_digest(lock: Lock) -> str:
    content = replace(lock, lock_sha256=None, signature=None).to_json()
    return _sha256(json.dumps(plain(content), sort_keys=True, ensure_ascii=False))


def read_key(path: str | Path) -> bytes:
    """The signing key: all bytes of a file of at least 32.

    Raises ValueError if the file is missing or too short to be a key.
    """
    file = Path(path).expanduser()
    content = file.read_bytes() if file.is_file() else b""
    if len(content) < 32:
        raise ValueError(
            f"reading.signing_key: {path} is missing or has fewer than 32 bytes; make one with "
            "head -c 32 /dev/urandom > FILE and keep it outside the study"
        )
    return content


def _signature_of(lock: Lock, key: bytes) -> Signature:
    """HMAC-SHA256 (RFC 2104) of a lock's own hash, with the fingerprint of the key."""
    value = hmac.new(key, str(lock.lock_sha256).encode("utf-8"), hashlib.sha256).hexdigest()
    name = hashlib.sha256(b"corelab lock key\x1f" + key).hexdigest()[:16]
    return Signature("HMAC-SHA256", name, value)


def make_lock(
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    settings: ReadingSettings,
    *,
    contours: Mapping[str, str] | None = None,
    key: bytes | None = None,
    open_at_lock: Sequence[str] = (),
) -> Lock:
    """The lock of the reads as they are.

    ``settings`` say what was fixed before, who locked and when; without ``locked_at`` the lock is
    free of any clock. ``contours`` is scan identifier -> SHA-256 of a reader's contour; without a
    ``key`` the lock is unsigned; ``open_at_lock`` is what was not settled when it was locked.

    Examples
    --------
    >>> sheet = pd.DataFrame([{"participant_id": "1", "visit": "a", "endpoint": "aspects",
    ...                        "reader": "r1", "value": "8"}])
    >>> final = pd.DataFrame(columns=list(FINAL_KEY))
    >>> lock = make_lock(sheet, final, ReadingSettings(), key=b"k" * 32)
    >>> list(lock.reads), lock.signature.method, _check_lock(lock, sheet, final, [])
    (['1|a|aspects|r1|1|reader'], 'HMAC-SHA256', [])
    """
    rows = _rows(sheet, contours)
    lock = Lock(
        {name: _sha256(text) for name, text in sorted(rows.items())},
        dict(sorted(_finals(final).items())),
        _charter(settings),
        LogState(0, None),
        tuple(open_at_lock) or None,
        settings.locked_at,
        settings.locked_by,
    )
    lock = replace(lock, lock_sha256=_self_digest(lock))
    return lock if key is None else replace(lock, signature=_signature_of(lock, key))


def _charter(settings: ReadingSettings) -> Charter:
    given = settings.plain()
    return Charter.from_json({one.name: given[one.name] for one in fields(Charter)})


def _undone(rows: dict[str, str], entries: Iterable[Change]) -> tuple[dict[str, str], list[str]]:
    """Rows with logged changes taken back, newest first, and entries that do not fit them."""
    before, faults = dict(rows), []
    for entry in reversed(list(entries)):
        key, field, new = entry.what.row, entry.what.field, entry.what.new
        old = entry.what.old
        where = f"{key}: log entry {entry.number}"
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


def _check_lock(
    lock: Lock,
    sheet: pd.DataFrame | None,
    final: pd.DataFrame,
    log: Sequence[Change],
    *,
    settings: ReadingSettings | None = None,
    contours: Mapping[str, str] | None = None,
    key: bytes | None = None,
) -> list[str]:
    """Everything in which reads and final reads differ from the lock without explanation.

    One sentence per fault with the row's key. ``log``: verified entries of the change log. None for
    ``settings`` does not compare them, None for ``key`` does not verify a signature.
    """
    if lock.lock_sha256 != _self_digest(lock):
        return ["the lock itself was edited: its content does not have its hash"]
    if key is not None:
        signed = lock.signature.value if lock.signature else None
        if not hmac.compare_digest(str(signed), _signature_of(lock, key).value):
            return ["the lock does not bear the signature of reading.signing_key: another lock"]
    count = lock.log.entries
    if len(log) < count or (count and log[count - 1].sha256 != lock.log.sha256):
        return ["the change log is not the one of the lock: entries from before it are gone"]
    faults: list[str] = []
    charter = lock.charter if settings is None else _charter(settings)
    if charter != lock.charter:
        names = sorted(one.name for one in fields(Charter))
        changed = [one for one in names if getattr(charter, one) != getattr(lock.charter, one)]
        faults.append(f"the charter's settings changed after the lock: {', '.join(changed)}")
    since = log[count:]
    before, misfits = _undone(_rows(sheet, contours), since)
    faults += misfits
    named = {fault.split(":")[0] for fault in misfits}
    then = lock.reads
    for row in sorted({*before, *then} - named):
        locked = then.get(row)
        if row not in before:
            faults.append(f"{row}: the row was taken out without an entry in the change log")
        elif locked is None:
            faults.append(f"{row}: the row was added without an entry in the change log")
        elif _sha256(before[row]) != locked:
            faults.append(f"{row}: the row was changed without an entry in the change log")
    # A logged change may alter the final read of its own case and endpoint, and no other.
    touched = {"|".join(entry.what.row.split("|")[:3]) for entry in since}
    now = _finals(final)
    decided = lock.final_reads
    for row in sorted({*now, *decided} - touched):
        if now.get(row) != decided.get(row):
            faults.append(f"{row}: the final read changed, but no logged change concerns it")
    return faults


def _audit_table(
    lock: Lock | None,
    sheet: pd.DataFrame | None,
    log: Sequence[Change],
    *,
    contours: Mapping[str, str] | None = None,
    faults: Iterable[str] = (),
) -> pd.DataFrame:
    """Every row with its standing against a lock; columns :data:`AUDIT`.

    Faults (of :func:`_check_lock`) that name no row have a row of their own, called ``lock``.
    """
    rows = {key: _sha256(text) for key, text in _rows(sheet, contours).items()}
    locked = lock.reads if lock else {}
    since = log[lock.log.entries if lock else 0 :]
    named: dict[str, list[str]] = {}
    for fault in faults:
        key, _, text = fault.partition(": ")
        known = key in rows or key in locked
        named.setdefault(key if known else "lock", []).append(text if known else fault)
    made = []
    for key in sorted({*rows, *locked} | ({"lock"} & set(named))):
        changes = sum(entry.what.row == key for entry in since)
        wrong = "; ".join(named.get(key, [])) or None
        verdict = "INVALID" if wrong else "explained" if changes else "locked"
        made.append((key, verdict, changes, rows.get(key), locked.get(key), wrong))
    return pd.DataFrame(made, columns=list(AUDIT), dtype=object)


#: What stands above every page and table whose reads are not locked, or not as they were locked.
BANNERS = {
    "invalid": "INVALID: the reads differ from their lock",
    "open": "PRELIMINARY: the reads are not locked yet",
}


def _validity(
    state: str, faults: Sequence[str], open_: Sequence[str], lock: Lock | None, changes: int = 0
) -> Validity:
    return Validity(
        *(state, BANNERS.get(state), tuple(faults), tuple(open_)),
        *(len(lock.reads) if lock else 0, changes),
        *((lock.lock_sha256, lock.locked_at, lock.locked_by) if lock else (None, None, None)),
        signed=bool(lock and lock.signature),
    )


@dataclass(frozen=True)
class LockFile:
    """File of a lock: the lock, or what has to be settled before it, or why it is not readable."""

    lock: Lock | None = None
    open: tuple[str, ...] = ()
    fault: str | None = None


def read_lock(path: Path) -> LockFile:
    """Read the file of a lock."""
    try:
        content = read_json(path)
        if isinstance(content, dict) and content.get("open"):
            return LockFile(open=tuple(content["open"]))
        if not isinstance(content, dict) or "reads" not in content:
            raise ValueError("it holds no reads")
        return LockFile(Lock.from_json(content))
    except RecordError:
        fault = "the lock itself was edited: it does not have the keys of a lock"
    except (OSError, ValueError) as error:
        fault = f"the lock itself was edited or is gone: {error}"
    return LockFile(fault=fault)


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
    settings: ReadingSettings,
    *,
    contours: Mapping[str, str] | None = None,
    key: bytes | None = None,
    rereview: Sequence[str] = (),
) -> tuple[Validity, pd.DataFrame]:
    """Compare reads, final reads and contours, as they are now, with the lock; and the audit.

    ``rereview`` are faults of a re-review (:func:`corelab.reading.rereview.rereview_faults`). A
    lock other than that of ``lock_sha256`` of the settings is a fault.
    """
    found = read_lock(path)
    lock = found.lock
    if found.open:
        gone = log_without_lock(log_path)
        wrong = (*([gone] if gone else []), *rereview)
        standing = _validity("invalid" if wrong else "open", wrong, found.open, None)
        return standing, _audit_table(None, None, [], faults=wrong)
    faults = [found.fault] if found.fault else []
    log: list[Change] = []
    try:
        log = verify_log(log_path)
    except LogFault as fault:
        faults += str(fault).splitlines()
    if lock and not faults:
        faults += _check_lock(
            lock, sheet, final, log, settings=settings, contours=contours, key=key
        )
    if settings.lock_sha256 and (lock is None or lock.lock_sha256 != settings.lock_sha256):
        faults.append("the lock is not the one whose hash is in reading.lock_sha256")
    faults += [*(_read_late(lock, sheet, log) if lock else []), *rereview]
    changes = len(log) - (lock.log.entries if lock else 0)
    open_at_lock = (lock.open_at_lock if lock else None) or ()
    standing = _validity("invalid" if faults else "valid", faults, open_at_lock, lock, changes)
    return standing, _audit_table(lock, sheet, log, contours=contours, faults=faults)


def _read_late(lock: Lock, sheet: pd.DataFrame | None, log: Sequence[Change]) -> list[str]:
    """Reads whose own time lies after the lock and that no entry explains."""
    if sheet is None or not lock.locked_at:
        return []
    when = times(sheet, "confirmed_at", "read_at")
    late = sheet[when > pd.to_datetime(lock.locked_at, utc=True)]
    logged = {entry.what.row for entry in log}
    return [
        f"{row_key(cells)}: read after the lock of {lock.locked_at} without an entry; a re-read "
        "goes into inputs.rereads with its evidences (reading.rereview)"
        for cells in _records(late)
        if row_key(cells) not in logged
    ]
