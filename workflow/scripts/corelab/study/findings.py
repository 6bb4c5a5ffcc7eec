"""Findings: what is wrong with the input, in words that say where, why and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from corelab.study.columns import FINDINGS

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One finding; ``error`` stops the run before anything is computed.

    Examples
    --------
    >>> print(Finding("error", "scans.tsv", 4, "kind", "DWI", "unknown kind", "write dwi"))
    error: scans.tsv, row 4, column kind, value 'DWI': unknown kind. Remedy: write dwi.
    """

    severity: str
    sheet: str
    row: int | None
    column: str | None
    value: str | None
    message: str
    remedy: str

    def __str__(self) -> str:
        """One line for a person."""
        place = [self.sheet]
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.column:
            place.append(f"column {self.column}")
        if self.value is not None:
            shown = str(self.value)
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            place.append(f"value {shown!r}")
        return f"{self.severity}: {', '.join(place)}: {self.message}. Remedy: {self.remedy}."


def at(
    sheet: str,
    row: Any,
    column: str | None,
    value: Any,
    message: str,
    remedy: str,
    severity: str = "error",
) -> Finding:
    """A finding about a sheet: its row may be any label that is a number, its value any cell."""
    line = None if row is None else int(row)
    shown = None if value is None else str(value)
    return Finding(severity, sheet, line, column, shown, message, remedy)


def in_config(
    key: str | None, value: str | None, message: str, remedy: str, severity: str = "error"
) -> Finding:
    """A finding about a key of the config."""
    return Finding(severity, "config", None, key, value, message, remedy)


#: Rows of one kind of finding that are printed; the table has them all.
SHOWN_OF_A_KIND = 3
_SPECIFIC = re.compile(r"'[^']*'|\([^)]*\)|\S*\d\S*")


def grouped_lines(findings: Iterable[Finding]) -> list[str]:
    """Findings as lines for a person: of many of one kind the first three and their number.

    One kind are findings of one severity, sheet and column whose messages differ in ids, numbers
    and quoted text alone.

    Examples
    --------
    >>> many = [Finding("error", "s.tsv", n, "path", None, f"file of s{n}", "r") for n in range(9)]
    >>> len(grouped_lines(many)), grouped_lines(many)[-1]
    (4, 'error: s.tsv, column path: and 6 more like these in findings.tsv')
    """
    kinds: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        words = _SPECIFIC.sub("#", finding.message)
        key = (finding.severity, finding.sheet, finding.column or "", words)
        kinds.setdefault(key, []).append(finding)
    lines: list[str] = []
    for alike in kinds.values():
        lines += map(str, alike[:SHOWN_OF_A_KIND])
        if len(alike) > SHOWN_OF_A_KIND:
            first = alike[0]
            place = first.sheet + (f", column {first.column}" if first.column else "")
            more = len(alike) - SHOWN_OF_A_KIND
            lines.append(f"{first.severity}: {place}: and {more:,} more like these in findings.tsv")
    return lines


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that stop a run."""
    return [finding for finding in findings if finding.severity == "error"]


def findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as the table ``preflight/findings.tsv``, errors first."""
    ordered = sorted(
        findings,
        key=lambda f: (
            SEVERITIES.index(f.severity),
            f.sheet,
            f.row or 0,
            f.column or "",
            f.message,
        ),
    )
    return pd.DataFrame([asdict(finding) for finding in ordered], columns=list(FINDINGS))
