"""Findings: what is wrong with the input, in words that say where, why and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

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


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that stop a run.

    Examples
    --------
    >>> errors([Finding("note", "a", None, None, None, "m", "r")])
    []
    """
    return [finding for finding in findings if finding.severity == "error"]


def findings_frame(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as the table ``preflight/findings.tsv``, errors first.

    Examples
    --------
    >>> findings_frame([Finding("note", "a", None, None, None, "m", "r")]).shape
    (1, 7)
    """
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
