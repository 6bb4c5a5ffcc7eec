"""Rows of the study's sheets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class ScanRow:
    """A row of the scans sheet, as the study reads it.

    Attributes
    ----------
    kind
        Kind of scan; ``mask-<label>`` for a supplied mask.
    path, source
        The file, absolute and as listed.
    repeat
        Number of the scan or of the reading, from 1.
    space
        ``native`` or ``MNI152``.
    label_values
        Values of a mask that count, as text.
    exists, simulated
        Whether there is a file, and whether the workflow makes it.
    """

    participant_id: str
    visit: str
    kind: str
    scan_id: str
    path: str = ""
    source: str = ""
    repeat: int = 1
    space: str = "native"
    reader: str | None = None
    acquired_at: str | None = None
    label_values: str | None = None
    exists: bool = True
    simulated: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Row from the cells of the sheet; other columns are left out.

        Examples
        --------
        >>> cells = {"participant_id": "1", "visit": "a", "kind": "dwi", "scan_id": "s", "line": 2}
        >>> ScanRow.of(cells).kind
        'dwi'
        """
        return cls(**{one.name: row[one.name] for one in fields(cls) if one.name in row})

    @property
    def is_mask(self) -> bool:
        """Whether the file is a supplied mask."""
        return self.kind.startswith("mask-")

    @property
    def label(self) -> str:
        """Label of a mask."""
        return self.kind.removeprefix("mask-")
