"""What a reader must not know, and the check that a package does not contain it."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import pandas as pd

from corelab.provenance.products import MISSING, read_table
from corelab.study.model import Study
from corelab.terms.kinds import IMAGE_KINDS

CASE_PATTERN = r"case-[0-9a-f]{16}"
SUBJECT_PATTERN = r"subject-[0-9a-f]{16}"
#: Columns whose cells are of a closed form, so that they cannot carry anything else.
CLOSED = {
    "position": r"\d+",
    "part": r"[12]",
    "screen": r"\d+",
    "time_point": r"\d+",
    "case": CASE_PATTERN,
    "subject": SUBJECT_PATTERN,
    "kind": "|".join(IMAGE_KINDS),
    "image": rf"images/{CASE_PATTERN}_(?:{'|'.join(IMAGE_KINDS)})(?:-\d+)?\.nii\.gz",
}
#: Free text of a NIfTI-1 header.
TEXT_FIELDS = ("data_type", "db_name", "descrip", "aux_file", "intent_name")
#: A token this long cannot stand among voxels by chance.
SURE_BYTES = 8
_DATE = re.compile(
    r"(?<!\d)(?:19|20)\d{2}[-/.]?(?:0[1-9]|1[0-2])[-/.]?(?:0[1-9]|[12]\d|3[01])(?!\d)"
)


class BlindingFault(ValueError):
    """A package that contains what a reader must not know; every place is named."""


def forbidden_tokens(study: Study) -> dict[str, str]:
    """Texts that must not stand in a package, with what each of them is.

    Subject ids, visit names, arm, dose and site (and ``reading.hidden_columns``), dates of scans
    and reads, names of the scan files, and who else gave values (investigators, software) with
    their values.
    """
    tokens: dict[str, str] = {}

    def add(cells: Iterable[object], what: str) -> None:
        for cell in cells:
            if isinstance(cell, str) and cell.strip():
                tokens.setdefault(cell.strip().casefold(), what)

    hidden = ("arm", "dose", "site", *study.settings.reading.hidden_columns)
    for name in ("participants", "covariates"):
        frame = study.sheets.get(name)
        for column in hidden:
            if frame is not None and column in frame:
                add(frame[column].dropna().unique(), column)
    add(study.participants, "subject id")
    add(study.visit_order, "visit name")
    for row in study.scans:
        add([row.acquired_at, (row.acquired_at or "")[:10]], "date of a scan")
        add([Path(row.source).name.split(".")[0]], "name of a scan file")
    references = study.sheets.get("reference_cases")
    if references is not None:
        add(references["reference_id"].dropna().unique(), "id of a reference case")
        if "path" in references:
            names = {Path(path).name.split(".")[0] for path in references["path"].dropna()}
            add(sorted(names), "name of a scan file")
    reads = study.sheets.get("reads")
    if reads is not None:
        if "read_at" in reads:
            add(reads["read_at"].dropna().str[:10].unique(), "date of a read")
        if "role" in reads:
            others = reads[reads["role"].isin(["investigator", "software"])]
            add(others["reader"].dropna().unique(), "investigator or software")
            add(others["value"].dropna().unique(), "result of an investigator or software")
    return tokens


def blinded_nifti(content: bytes) -> bytes:
    """An uncompressed NIfTI-1 file without free text and extensions; voxels and place unchanged.

    Raises ValueError if it is no single-file NIfTI-1.

    Examples
    --------
    >>> import numpy as np
    >>> image = nib.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4))
    >>> image.header["descrip"] = b"site 4, arm B"
    >>> clean = nib.Nifti1Image.from_bytes(blinded_nifti(image.to_bytes()))
    >>> clean.header["descrip"].item(), float(clean.get_fdata().sum())
    (b'', 8.0)
    """
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
    if header["magic"].item() != b"n+1":
        raise ValueError("only single-file NIfTI-1 images go into a package")
    start = int(header["vox_offset"])
    for field in TEXT_FIELDS:
        header[field] = b""
    header.extensions.clear()
    header["vox_offset"] = 352
    return header.binaryblock + bytes(4) + content[start:]


def _pattern(tokens: Iterable[str]) -> re.Pattern[str] | None:
    listed = sorted({token.casefold() for token in tokens}, key=lambda t: (-len(t), t))
    if not listed:
        return None
    words = "|".join(map(re.escape, listed))
    return re.compile(rf"(?<![0-9a-z])(?:{words})(?![0-9a-z])")


def _in_text(text: str, pattern: re.Pattern[str] | None, tokens: Mapping[str, str]) -> str | None:
    """Information that a text gives away, None if nothing."""
    found = pattern.search(text.casefold()) if pattern else None
    if found:
        return f"{found.group()!r} ({tokens[found.group()]})"
    date = _DATE.search(text)
    return f"{date.group()!r} (a date)" if date else None


def _table_faults(
    path: Path,
    columns: Sequence[str],
    closed: Mapping[str, str],
    pattern: re.Pattern[str] | None,
    tokens: Mapping[str, str],
) -> Iterator[str]:
    frame: pd.DataFrame = read_table(path, text_missing=True)
    for column in frame.columns:
        if column not in columns:
            yield f"{path.name}: the column {column!r} does not belong there"
            continue
        form = re.compile(closed[column]) if column in closed else None
        for cell in frame[column].unique():
            if cell == MISSING or (form is not None and form.fullmatch(cell)):
                continue
            if form is not None:
                yield f"{path.name}, column {column}: {cell!r} has not the form of this column"
            finding = _in_text(cell, pattern, tokens)
            if finding:
                yield f"{path.name}, column {column}: {finding}"


def _image_faults(path: Path, tokens: Mapping[str, str]) -> Iterator[str]:
    packed = path.read_bytes()
    # RFC 1952: byte 3 flags a file name or comment, bytes 4 to 7 are a time.
    if packed[3] != 0 or any(packed[4:8]):
        yield f"{path.name}: the compressed file carries a name, a comment or a time"
    content = gzip.decompress(packed)
    header = nib.Nifti1Header.from_fileobj(io.BytesIO(content), check=False)
    for field in TEXT_FIELDS:
        if header[field].item():
            yield f"{path.name}: the header field {field} says {header[field].item()!r}"
    if int(header["vox_offset"]) != 352 or any(content[348:352]):
        yield f"{path.name}: the header has extensions"
    folded = content.lower()
    for token, what in tokens.items():
        raw = token.encode("utf-8")
        if len(raw) >= SURE_BYTES and raw in folded:
            yield f"{path.name}: {token!r} ({what})"


def check_package(
    folder: Path,
    tables: Mapping[str, Sequence[str]],
    dictionaries: Mapping[str, bytes],
    tokens: Mapping[str, str],
    closed: Mapping[str, str] = CLOSED,
) -> None:
    """Search everything in the package of one reader for what he must not know.

    ``tables`` may hold only the columns that are listed; cells are either of a ``closed`` form
    (counters, pseudonyms, kinds; column -> regular expression) or searched for every token as a
    word, without regard to case, and for dates. ``dictionaries`` are fixed texts. Images may hold
    no free text in their headers, no extension and no file name; long tokens are searched for in
    all their bytes. No other file may exist.

    Raises BlindingFault naming every file and column with what it gives away.
    """
    pattern = _pattern(tokens)
    faults: list[str] = []
    for path in sorted(item for item in folder.rglob("*") if not item.is_dir()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            faults.append(f"{name}: a link, which shows where the file comes from")
        elif name in tables:
            faults += _table_faults(path, tables[name], closed, pattern, tokens)
        elif name in dictionaries:
            if path.read_bytes() != dictionaries[name]:
                faults.append(f"{name}: differs from the data dictionary of its table")
        elif re.fullmatch(closed["image"], name):
            faults += _image_faults(path, tokens)
        else:
            finding = _in_text(name, pattern, tokens)
            faults.append(
                f"{name}: the file does not belong there" + (f": {finding}" if finding else "")
            )
    if faults:
        raise BlindingFault(
            "\n".join(
                [
                    f"The package {folder.name} is not blinded; it must not be sent:",
                    *faults[:50],
                    "Fix the input, or rename an endpoint that bears the name of an arm or site.",
                ]
            )
        )
