"""The log of changes after the lock: append-only lines, each sealed by the hash of the one before.

A line says what was changed (row, field, old, new), why (one of the three reasons that the
guideline allows), who did it and when (UTC). Beside the log lies its head (number of lines and
last hash), so that a cut end is seen too. Append a line with
``python -m corelab.reading.change_log LOG --help``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from corelab.provenance.products import write_text
from corelab.records.base import RecordError
from corelab.records.reading import Change, LogState, What, Why

#: After the lock nothing may change but for these.
REASONS = {
    "new_key_image": "a new key image came in after the lock",
    "gross_violation": "a gross violation of the protocol or the criteria",
    "charter_listed": "a reason that the charter lists",
}
GENESIS = "0" * 64
_UTC = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")


class LogFault(ValueError):
    """A log that was edited, cut or is incomplete; every line is named."""


def _sealed(change: Change) -> Change:
    """Entry with its hash."""
    content = {key: value for key, value in change.to_json().items() if key != "sha256"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return replace(change, sha256=hashlib.sha256(text.encode("utf-8")).hexdigest())


def head_path(path: Path) -> Path:
    """Path of the head of a log.

    Examples
    --------
    >>> head_path(Path("reading/change_log.jsonl")).name
    'change_log.head.json'
    """
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.head.json")


def _evidence_faults(change: Change) -> list[str]:
    """Missing parts of an entry (what, why, who, when)."""
    faults = []
    if change.what.old == change.what.new:
        faults.append("'what' changes nothing: old and new are equal")
    if change.why.reason not in REASONS:
        faults.append(f"'why' must have one of the reasons {', '.join(REASONS)}")
    elif not str(change.why.text or "").strip():
        faults.append("'why' must say in words what happened")
    if not str(change.who or "").strip():
        faults.append("'who' is empty")
    if not _UTC.fullmatch(str(change.when)):
        faults.append("'when' must be UTC, as 2025-03-01T12:00:00Z")
    return faults


def _parsed(line: str) -> Change:
    """Entry of a line; LogFault if it is no JSON, or lacks a part."""
    try:
        change = Change.from_json(json.loads(line))
        if not (isinstance(change.what, What) and isinstance(change.why, Why)):
            raise RecordError("a part is empty")
    except json.JSONDecodeError:
        raise LogFault("is no whole entry") from None
    except (RecordError, AttributeError):
        raise LogFault(
            "was edited: an entry has number, what (row, field, old, new), why (reason, text), "
            "who, when, previous and sha256, and nothing else"
        ) from None
    return change


def append_change(
    path: Path,
    *,
    row: str,
    field: str,
    old: str | None,
    new: str | None,
    reason: str,
    text: str,
    who: str,
    when: str,
) -> Change:
    """Append one change; the log is verified first, so nothing is built on a broken one.

    ``row`` is its key (:func:`corelab.reading.lock.row_key`), ``field`` a column of the reads
    sheet, or ``row`` for a row that is added (``old`` None) or taken out (``new`` None), the other
    side being :func:`corelab.reading.lock.row_text`. ``reason`` is one of :data:`REASONS`, ``text``
    what happened, ``when`` UTC, ISO 8601 with Z.

    Raises LogFault if the log is broken, or the entry lacks one of the four evidences.
    """
    entries = verify_log(path)
    change = _sealed(
        Change(
            *(len(entries) + 1, What(row, field, old, new), Why(reason, text), who, when),
            entries[-1].sha256 if entries else GENESIS,
        )
    )
    faults = _evidence_faults(change)
    if entries and when < entries[-1].when:
        faults.append(f"'when' lies before the last entry ({entries[-1].when})")
    if faults:
        raise LogFault("The change is not logged: " + "; ".join(faults))
    lines = path.read_text(encoding="utf-8") if entries else ""
    line = json.dumps(change.to_json(), sort_keys=True, ensure_ascii=False)
    write_text(f"{lines}{line}\n", path)
    LogState(change.number, change.sha256).write(head_path(path))
    return change


def verify_log(path: Path) -> list[Change]:
    """Entries of a log whose chain holds; none where there is neither a log nor its head.

    Raises LogFault naming each line that was edited, does not follow the one before, or lacks
    evidence, and a log whose end was cut.
    """
    head = head_path(path)
    if not path.is_file():
        if head.is_file():
            raise LogFault(f"{path.name} is missing, but its head exists: the log was removed")
        return []
    entries: list[Change] = []
    faults: list[str] = []
    previous, last = GENESIS, ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"line {number}"
        try:
            change = _parsed(line)
        except LogFault as fault:
            faults.append(f"{where} {fault}")
            previous = ""
            continue
        if change != _sealed(change):
            faults.append(f"{where} was edited: its content does not have its hash")
        elif change.previous != previous:
            faults.append(f"{where} does not follow the line before: lines were cut or moved")
        faults += [f"{where}: {fault}" for fault in _evidence_faults(change)]
        if str(change.when) < last:
            faults.append(f"{where}: earlier than the line before")
        previous, last = str(change.sha256), str(change.when)
        entries.append(change)
    if not head.is_file():
        faults.append(f"its head {head.name} is missing")
    else:
        expected = LogState.read(head)
        if expected != LogState(len(entries), previous):
            faults.append(
                f"the head lists {expected.entries} entries, the last with the hash "
                f"{str(expected.sha256)[:12]}; the log has {len(entries)}: its end was cut or "
                "changed"
            )
    if faults:
        raise LogFault("\n".join([f"The change log {path.name} is INVALID:", *faults]))
    return entries


def main(arguments: Sequence[str] | None = None) -> None:
    """Append one change from the command line."""
    parser = argparse.ArgumentParser(description="Append one change after the lock")
    parser.add_argument("log", type=Path)
    for name in ("row", "field", "text", "who", "when"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--reason", required=True, choices=sorted(REASONS))
    for name in ("old", "new"):
        parser.add_argument(f"--{name}", help="leave out for a missing value")
    given = vars(parser.parse_args(arguments))
    append_change(given.pop("log"), **given)


if __name__ == "__main__":
    main()
