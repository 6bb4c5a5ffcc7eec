"""Preflight: the findings of a study, headers of its images included, in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from corelab.provenance.job import UserError
from corelab.provenance.products import read_table, write_json
from corelab.records.images import ScanRow
from corelab.study.findings import SEVERITIES, Finding, grouped_lines
from corelab.study.model import Study
from corelab.terms.kinds import KINDS

#: Reads a header: (path, kind=, ndim=) -> notes, or a fault with message and remedy.
HeaderCheck = Callable[..., tuple[str, ...]]


def _header_findings(
    scans: Sequence[ScanRow],
    sheet: str,
    check: HeaderCheck,
    orientation: str | None = None,
) -> list[Finding]:
    """Messages of the headers of the listed images about their rows.

    A fault of one file is a warning: the file's values become missing with the reason, the rest of
    the study goes on. Scans that the workflow simulates do not exist yet and are passed over.
    ``sheet`` is the file name of the scans sheet, ``orientation`` the key
    ``acquisition.orientation``.
    """
    found: list[Finding] = []
    for row in scans:
        if row.exists and not row.simulated and row.kind != "aif":
            found += _header(row, sheet, check, orientation)
    return found


def _header(
    row: ScanRow, sheet: str, check: HeaderCheck, orientation: str | None
) -> Iterator[Finding]:
    def finding(severity: str, message: str, remedy: str) -> Finding:
        return Finding(severity, sheet, row.line, "path", row.source, message, remedy)

    path, kind = Path(row.path), row.kind
    if kind == "dicom":
        if not path.is_dir():
            yield finding("warning", "kind dicom needs a folder", "name the folder of the series")
        return
    if path.exists() and not path.is_file() and not path.is_dir():
        yield finding("warning", "not a regular file (a device or a pipe)", "name the file")
        return
    try:
        ndim = 4 if kind in KINDS and KINDS[kind].series else 3
        notes = check(path, kind=kind, ndim=ndim, orientation=orientation)
    except ValueError as fault:
        message, remedy = getattr(fault, "message", str(fault)), getattr(fault, "remedy", "")
        yield finding("warning", message, remedy or "export or copy the file again")
        return
    for note in notes:
        yield finding("note", note, "nothing to do if this is known; else export the image again")


def preflight_findings(study: Study, check: HeaderCheck) -> list[Finding]:
    """All findings of a study: config, sheets, cross-row checks and headers.

    Parameters
    ----------
    study
        As read from config and sheets.
    check
        As for ``_header_findings``.

    Returns
    -------
    list of Finding
        The run may go on if none is an ``error``.
    """
    name = study.sheet_paths["scans"].name if "scans" in study.sheet_paths else "scans"
    orientation = study.settings.acquisition.orientation
    return [*study.findings, *_header_findings(study.scans, name, check, orientation)]


def gate(findings_path: str, passed_path: str) -> None:
    """Print the findings; write the proof of passing if none is an error.

    Parameters
    ----------
    findings_path
        ``preflight/findings.tsv``.
    passed_path
        Where the counts of findings are written; its existence lets the study be computed.

    Raises
    ------
    corelab.provenance.job.UserError
        With all findings, if one of them is an error.
    """
    table = read_table(findings_path)
    found = []
    for cells in table.to_dict("records"):
        row: dict[str, Any] = {str(name): cell for name, cell in cells.items()}
        found.append(Finding(**{**row, "row": int(row["row"]) if row["row"] else None}))
    lines = grouped_lines(found)
    counts = {severity: int((table["severity"] == severity).sum()) for severity in SEVERITIES}
    if counts["error"]:
        raise UserError(
            "\n".join(lines) + f"\n{counts['error']} errors in the input: nothing is computed. "
            f"The findings are in {findings_path}"
        )
    print("\n".join(lines) or "No findings.")
    write_json({"findings": counts}, passed_path)
