"""Decisions of the review desk: an append-only table whose lines form a hash chain.

Nothing is ever deleted: a decision that was wrong is followed by another one, and the latest of
a subject, visit and endpoint counts. A line that was edited, dropped from the middle or put in
another order breaks the chain, and the workflow refuses the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = {
    "number": "Place in the file, from 1",
    "participant_id": "Subject",
    "visit": "Visit",
    "endpoint": "Endpoint that is decided on; 'all' for every value of the visit",
    "decision": "accept, review (somebody else is to look), exclude, or opened (values were shown)",
    "reason": "Why; required for review and exclude",
    "decided_by": "Who decided",
    "decided_at": "When, ISO 8601, UTC",
    "previous_sha256": "sha256 of the line before; 64 zeros for the first",
    "sha256": "SHA-256 of this line's other cells, joined by tabs (UTF-8)",
}
#: Recorded when the values of a visit were shown to a reviewer; it decides nothing.
OPENED = "opened"
DECISIONS = ("accept", "review", "exclude", OPENED)
_NEED_REASON = ("review", "exclude")
FIRST = "0" * 64


class DecisionFault(ValueError):
    """A table of decisions that cannot be relied on; the message says where and what to do."""


@dataclass(frozen=True)
class Decision:
    """One line of the table, as in :data:`COLUMNS`."""

    number: int
    participant_id: str
    visit: str
    endpoint: str
    decision: str
    reason: str
    decided_by: str
    decided_at: str
    previous_sha256: str
    sha256: str

    @property
    def cells(self) -> list[str]:
        """Its cells in file order."""
        return [str(getattr(self, name)) for name in COLUMNS]


def _line_digest(cells: Sequence[str]) -> str:
    """SHA-256 of a line's cells without its own digest."""
    return hashlib.sha256("\t".join(cells).encode("utf-8")).hexdigest()


def _cell(text: object) -> str:
    return " ".join(str(text).split())


def read_decisions(path: str | Path) -> list[Decision]:
    """Read a table of decisions and check its chain; a missing file has no decision.

    :class:`DecisionFault` if a line does not follow from the one before.
    """
    path = Path(path)
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n").split("\n")
    if lines[0].split("\t") != list(COLUMNS):
        raise DecisionFault(f"{path}: line 1 has to be the columns {', '.join(COLUMNS)}")
    found: list[Decision] = []
    previous = FIRST
    for row, text in enumerate(lines[1:], start=2):
        if not text:
            continue
        cells = text.split("\t")
        where = f"{path}: line {row}"
        if len(cells) != len(COLUMNS):
            raise DecisionFault(f"{where} has {len(cells)} cells, not {len(COLUMNS)}")
        named = dict(zip(COLUMNS, cells, strict=True))
        remedy = "; nothing may be edited: restore the file, then add a decision that corrects it"
        if named["sha256"] != _line_digest(cells[:-1]):
            raise DecisionFault(f"{where} was changed after it was written{remedy}")
        if named["previous_sha256"] != previous or named["number"] != str(len(found) + 1):
            raise DecisionFault(f"{where} does not follow the line before{remedy}")
        if named["decision"] not in DECISIONS:
            raise DecisionFault(f"{where}: decision '{named['decision']}' is none of {DECISIONS}")
        previous = named["sha256"]
        number = int(named.pop("number"))
        found.append(Decision(number=number, **named))
    return found


def append_decision(
    path: str | Path,
    *,
    participant_id: str,
    visit: str,
    decision: str,
    decided_by: str,
    reason: str = "",
    endpoint: str = "all",
    decided_at: str = "",
) -> Decision:
    """Add a decision at the end of the table.

    Parameters
    ----------
    path
        ``qc_decisions.tsv``; created if it is missing.
    participant_id, visit, endpoint, decision, reason, decided_by, decided_at
        As in :data:`COLUMNS`; the time is now where none is given.

    Raises
    ------
    DecisionFault
        For an unknown decision, no name, or no reason where one is needed; or a broken chain.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp(), "qc_decisions.tsv")
    >>> who = {"participant_id": "001", "visit": "day5", "decided_by": "A. Reader"}
    >>> _ = append_decision(path, **who, decision="exclude", reason="motion")
    >>> _ = append_decision(path, **who, decision="accept", decided_at="2026-01-02T03:04:05Z")
    >>> [d.decision for d in read_decisions(path)], current(read_decisions(path))[0].decision
    (['exclude', 'accept'], 'accept')
    """
    path = Path(path)
    if decision not in DECISIONS:
        raise DecisionFault(f"decision '{decision}' is none of {', '.join(DECISIONS)}")
    given = {"participant_id": participant_id, "visit": visit, "decided_by": decided_by}
    for name, value in given.items():
        if not _cell(value):
            raise DecisionFault(f"a decision needs {name}")
    if decision in _NEED_REASON and not _cell(reason):
        raise DecisionFault(f"'{decision}' needs a reason")
    known = read_decisions(path)
    when = decided_at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cells = [
        str(len(known) + 1),
        _cell(participant_id),
        _cell(visit),
        _cell(endpoint) or "all",
        decision,
        _cell(reason),
        _cell(decided_by),
        when,
        known[-1].sha256 if known else FIRST,
    ]
    cells.append(_line_digest(cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\t".join(cells) + "\n"
    if not path.is_file():
        text = "\t".join(COLUMNS) + "\n" + text
    with path.open("a", encoding="utf-8", newline="") as handle:
        handle.write(text)
    return read_decisions(path)[-1]


def current(decisions: Sequence[Decision]) -> list[Decision]:
    """The decision that counts for each subject, visit and endpoint: the latest."""
    decided = (d for d in decisions if d.decision != OPENED)
    latest = {(d.participant_id, d.visit, d.endpoint): d for d in decided}
    return sorted(latest.values(), key=lambda d: (d.participant_id, d.visit, d.endpoint))


def exclusions(decisions: Sequence[Decision]) -> dict[tuple[str, str, str], Decision]:
    """(subject, visit, endpoint) -> the decision that excludes it."""
    return {
        (d.participant_id, d.visit, d.endpoint): d
        for d in current(decisions)
        if d.decision == "exclude"
    }


def exclusion_of(
    row: Mapping[Any, Any], excluded: Mapping[tuple[str, str, str], Decision]
) -> Decision | None:
    """The decision that excludes a row, if there is one.

    Examples
    --------
    >>> made = Decision(1, "1", "day5", "all", "exclude", "motion", "A", "2026-01-01", "", "")
    >>> row = {"participant_id": "1", "visit": "day5", "endpoint": "infarct_volume"}
    >>> exclusion_of(row, {("1", "day5", "all"): made}).reason
    'motion'
    """
    subject, visit = str(row["participant_id"]), str(row["visit"])
    for endpoint in ("all", str(row.get("endpoint", "all"))):
        if (subject, visit, endpoint) in excluded:
            return excluded[subject, visit, endpoint]
    return None


def without_excluded(
    frame: pd.DataFrame, excluded: Mapping[tuple[str, str, str], Decision]
) -> pd.DataFrame:
    """Rows with the excluded values taken out: status ``excluded`` and the reason, value missing.

    Parameters
    ----------
    frame
        Rows with ``participant_id``, ``visit``, ``value``, ``status`` and ``reason``; rows without
        a value keep their own status.
    excluded
        Of :func:`exclusions`.
    """
    if not excluded or frame.empty:
        return frame
    frame = frame.copy()
    for place, row in zip(frame.index, frame.to_dict("records"), strict=True):
        made = exclusion_of(row, excluded)
        if made is not None and row["status"] == "ok":
            frame.loc[place, "value"] = float("nan")
            frame.loc[place, "status"] = "excluded"
            frame.loc[place, "reason"] = (
                f"excluded by {made.decided_by} on {made.decided_at[:10]}: {made.reason} "
                f"(decision {made.number})"
            )
    return frame
