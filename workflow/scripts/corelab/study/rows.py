"""Rows of the scans sheet, resolved: what the study, its rules and its jobs know of a scan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScanRow:
    """A row of the scans sheet.

    Attributes
    ----------
    participant_id, visit, kind
        As in the sheet; ``mask-<label>`` is the kind of a mask.
    path, source
        File, absolute; and as the sheet names it.
    scan_id
        Identifier, unique in the study.
    reader, repeat, space, label_values
        Of a mask: who drew it, number of the reading from 1, ``native`` or ``MNI152``, and the
        values of its voxels that count.
    acquired_at, scanner, sequence, contrast_phase
        Acquisition, as text.
    echo_time_s, repetition_time_s, b_value, scan_duration_s
        Acquisition; the b value in s/mm2.
    line
        Line in the sheet.
    simulated
        Whether the workflow makes the file.
    exists, bytes
        Whether the file exists, and its size.
    """

    participant_id: str
    visit: str
    kind: str
    path: str
    scan_id: str = ""
    source: str = ""
    reader: str | None = None
    repeat: int = 1
    space: str = "native"
    label_values: str | None = None
    acquired_at: str | None = None
    scanner: str | None = None
    sequence: str | None = None
    contrast_phase: str | None = None
    echo_time_s: float | None = None
    repetition_time_s: float | None = None
    b_value: float | None = None
    scan_duration_s: float | None = None
    line: int = 0
    simulated: bool = False
    exists: bool = True
    bytes: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Participant and visit."""
        return self.participant_id, self.visit

    @property
    def label(self) -> str | None:
        """What a mask outlines; None for an image."""
        return self.kind.removeprefix("mask-") if self.kind.startswith("mask-") else None
