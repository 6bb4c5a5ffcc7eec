"""Preflight: the findings of a study, headers of its images included, in seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from corelab.study.findings import SEVERITIES, Finding
from corelab.study.model import Study

FOUR_D_KINDS = {"ctp", "dsc"}


def header_findings(scans: Sequence[Mapping[str, Any]], sheet: str) -> list[Finding]:
    """What the headers of the listed images say against their rows.

    A fault of one file is a warning: the file's values become missing with the reason, the rest
    of the study goes on. Scans that the workflow simulates are not there yet and are passed over.

    Parameters
    ----------
    scans
        Rows of :class:`corelab.study.model.Study`.
    sheet
        File name of the scans sheet for the findings.
    """
    found: list[Finding] = []
    for row in scans:
        if row["exists"] and not row["simulated"]:
            found += _header(row, sheet)
    return found


def _header(row: Mapping[str, Any], sheet: str) -> Iterator[Finding]:
    import nibabel as nib
    import numpy as np

    def fault(message: str, remedy: str) -> Finding:
        return Finding("warning", sheet, row["line"], "path", row["source"], message, remedy)

    path = row["path"]
    if row["kind"] == "dicom":
        if not os.path.isdir(path):  # noqa: PTH112
            yield fault("kind dicom needs a folder", "name the folder of the series")
        return
    if row["kind"] == "aif":
        return
    if os.path.isdir(path):  # noqa: PTH112
        yield fault("a folder where a file is due", "name the file, or use kind dicom")
        return
    try:
        image: Any = nib.load(path)
        shape = image.shape
        affine = np.asarray(image.affine)
    except Exception as error:  # a reader may fail in any way on a damaged file
        yield fault(
            f"the header cannot be opened ({type(error).__name__}: {str(error)[:120]})",
            "export or copy the file again",
        )
        return
    frames = shape[3] if len(shape) > 3 else 1
    if row["kind"] in FOUR_D_KINDS and frames < 2:
        yield fault(
            f"shape {shape}: a time series (4D) is due for {row['kind']}",
            "name the 4D file, or correct the kind",
        )
    elif row["kind"] not in FOUR_D_KINDS and frames > 1:
        yield fault(
            f"shape {shape}: 4D where 3D is due for {row['kind']}",
            "name the 3D file, or correct the kind",
        )
    elif len(shape) < 3:
        yield fault(f"shape {shape}: a volume (3D) is due", "name the volume, not a slice")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        yield fault(
            "the header gives no usable voxel size and orientation",
            "export the image again with its geometry",
        )
    header = image.header
    if hasattr(header, "get_qform") and int(header["qform_code"]) and int(header["sform_code"]):
        corners = np.array([[0, 0, 0, 1], [*(s - 1 for s in shape[:3]), 1]], float).T
        if len(shape) >= 3:
            apart = np.abs((header.get_qform() - header.get_sform()) @ corners)[:3].max()
            if apart > 0.5:
                yield fault(
                    f"qform and sform of the header disagree by {apart:.1f} mm; programs "
                    "differ in which they use (here: sform)",
                    "export the image again",
                )


def preflight_findings(study: Study) -> list[Finding]:
    """All findings of a study: config, sheets, cross-row checks and headers.

    Returns
    -------
    list of Finding
        The run may go on if none is an ``error``.
    """
    name = study.sheet_paths["scans"].name if "scans" in study.sheet_paths else "scans"
    return [*study.findings, *header_findings(study.scans, name)]


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
    corelab.provenance.job.Plain
        With all findings, if one of them is an error.
    """
    from corelab.provenance.job import Plain
    from corelab.provenance.products import read_table, write_json

    table = read_table(findings_path)
    lines = []
    for cells in table.to_dict("records"):
        row: dict[str, Any] = {str(name): cell for name, cell in cells.items()}
        lines.append(str(Finding(**{**row, "row": int(row["row"]) if row["row"] else None})))
    counts = {severity: int((table["severity"] == severity).sum()) for severity in SEVERITIES}
    if counts["error"]:
        raise Plain(
            "\n".join(lines) + f"\n{counts['error']} errors in the input: nothing is computed. "
            f"The findings are in {findings_path}"
        )
    print("\n".join(lines) or "No findings.")
    write_json({"findings": counts}, passed_path)
