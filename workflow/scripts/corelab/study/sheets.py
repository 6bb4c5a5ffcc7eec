"""Sheets as text: read, joined, and as rows with the files that they name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import MISSING
from corelab.records.images import InsertRow, ScanRow
from corelab.study.findings import Finding, at
from corelab.study.naming import session_entity, subject_entity

SCAN_NUMBERS = ("echo_time_s", "repetition_time_s", "b_value", "scan_duration_s")
SCAN_COLUMNS = (
    *("participant_id", "visit", "kind", "path", "reader", "repeat", "space", "label_values"),
    *("acquired_at", "scanner", "sequence", "contrast_phase"),
)
MAX_SHEET_BYTES = 512 * 1024 * 1024
#: First bytes of files that are no text of UTF-8, and what they are.
_FILE_MARKS = (
    (b"PK\x03\x04", "an Excel workbook (or another archive)"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook of the old kind"),
    (b"\xff\xfe", "UTF-16 text, as of Excel's 'Unicode text'"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)
_SEPARATORS = {",": "commas", ";": "semicolons", "|": "bars", "  ": "blanks"}
#: Findings of one kind in a sheet at most.
MANY = 20


class _Cells(dict[str, str | None]):
    """Cell as written -> without blanks around it, None where missing; equal cells are one object.

    Of 100 000 rows most cells are repeated: one object for all takes a third of the memory.
    """

    def __missing__(self, written: str) -> str | None:
        cell = written.strip()
        self[written] = known = None if cell in ("", MISSING) else cell
        return known


def _quoted(cell: str | None) -> bool:
    return cell is not None and len(cell) > 1 and cell[0] == cell[-1] == '"'


def read_sheet(path: Path, name: str) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Read a sheet as text; the index is the line number in the file.

    None if the file cannot be read at all; the findings say why, or what is odd about its shape.
    """

    def wrong(message: str, remedy: str, row: int | None = None) -> Finding:
        return at(name, row, None, None, message, remedy)

    if not exists(path) or not path.is_file():
        message = f"the sheet {str(path)[:300]} is missing"
        return None, [wrong(message, "correct the path in inputs")]
    if path.stat().st_size > MAX_SHEET_BYTES:
        return None, [wrong("the sheet is larger than 512 MiB", "split the study")]
    content = path.read_bytes()
    if other := next((what for mark, what in _FILE_MARKS if content.startswith(mark)), None):
        return None, [wrong(f"the file is {other}", "save it as tab-separated UTF-8 text")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text (byte {error.start})"
        return None, [wrong(message, "save it as tab-separated UTF-8 text")]
    if "\x00" in text:
        return None, [wrong("the sheet holds NUL bytes", "save it again as plain text")]
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    header = [cell.strip() for cell in lines[0].split("\t")]
    found: list[Finding] = []
    if not lines[0].strip():
        return None, [wrong("the sheet is empty", "write a header line")]
    for mark, name_of_mark in _SEPARATORS.items() if len(header) == 1 else ():
        if mark in header[0] and not lines[0].startswith("#"):
            message = f"the header has {name_of_mark} and no tabs"
            return None, [wrong(message, "save it tab-separated")]
    quoted = [cell for cell in header if _quoted(cell)]
    if quoted:
        message = f"names of columns are in quotation marks ({', '.join(quoted[:3])})"
        return None, [wrong(message, "save it tab-separated without quotation marks", 1)]
    unnamed = len(header) - len("\t".join(header).rstrip("\t").split("\t"))
    below = lines[1].split("\t") if len(lines) > 1 else []
    if "participant_id" in below and "participant_id" not in header:
        message = "a title, a remark or merged cells stand above the names of the columns"
        return None, [wrong(message, "let the first line be the names of the columns", 1)]
    if unnamed > 1:
        message = f"the header line ends in {unnamed} tabs, which begin columns without a name"
        return None, [wrong(message, "delete the tabs at the ends of all lines", 1)]
    if header.count("") > 1:
        message = f"{header.count('')} columns have no name (merged cells?)"
        return None, [wrong(message, "give every column a name", 1)]
    doubled = sorted({cell for cell in header if header.count(cell) > 1})
    if doubled:
        return None, [wrong(f"the columns {doubled} occur twice", "keep one of each", 1)]
    rows, numbers = [], []
    known = _Cells()
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = [known[cell] for cell in line.split("\t")]
        if len(cells) != len(header):
            over = len(cells) - len(header)
            message = f"the row has {len(cells)} cells where the header has {len(header)}"
            remedy = "add or remove tabs; write n/a for a missing cell"
            if over > 0 and not any(map(str.strip, line.split("\t")[len(header) :])):
                message = f"the row ends in {over} tab{'s' if over > 1 else ''} too many"
                remedy = "delete the tabs at the end of the line"
            found.append(wrong(message, remedy, number))
            cells = (cells + [None] * len(header))[: len(header)]
        rows.append(cells)
        numbers.append(number)
    in_quotes = []
    if '"' in text:
        in_quotes = [n for n, cells in zip(numbers, rows, strict=True) if any(map(_quoted, cells))]
    if in_quotes:
        message = f"cells in quotation marks ({len(in_quotes)} rows), which count as a part of them"
        remedy = "save it tab-separated without quotation marks"
        found.append(at(name, in_quotes[0], None, None, message, remedy, "warning"))
    frame = pd.DataFrame(rows, columns=header, index=pd.Index(numbers, name="line"), dtype=object)
    return frame, found


def doubled(frame: pd.DataFrame, key: Sequence[str], name: str, message: str) -> Iterator[Finding]:
    """An error for each row whose ``key`` an earlier row has, at most :data:`MANY`.

    The first column of ``key`` that the sheet has must not be empty; empty cells of the others are
    equal. ``name`` is of the sheet.
    """
    present = [column for column in key if column in frame]
    rows = frame.dropna(subset=[present[0]])
    lines = rows.index[rows.duplicated(present)][:MANY]
    firsts: dict[tuple[Any, ...], Any] = {}
    if len(lines):
        cells = rows[present].fillna("").itertuples(index=False, name=None)
        for line, key_cells in zip(rows.index, cells, strict=True):
            firsts.setdefault(key_cells, line)
    for line in lines:
        row = rows.loc[line]
        first = firsts[tuple(row[present].fillna(""))]
        shown = ", ".join(f"{c}={row[c]}" for c in present if row[c] is not None)
        words = f"{message} (first in row {first}); duplicates are never averaged"
        remedy = "keep one of the rows, or number them in the column repeat"
        yield at(name, line, present[0], shown, words, remedy)


def join_covariates(
    participants: pd.DataFrame, covariates: pd.DataFrame, name: str
) -> tuple[pd.DataFrame, list[Finding]]:
    """Left-join a further table to the participants sheet by participant_id.

    Examples
    --------
    >>> left = pd.DataFrame({"participant_id": ["1", "2"]}, index=[2, 3])
    >>> right = pd.DataFrame({"participant_id": ["2"], "nihss": ["7"]}, index=[2])
    >>> join_covariates(left, right, "c.tsv")[0]["nihss"].tolist()
    [None, '7']
    """
    if "participant_id" not in participants or "participant_id" not in covariates:
        return participants, []
    found = list(doubled(covariates, ["participant_id"], name, "the participant is listed twice"))
    taken = [c for c in covariates if c in participants and c != "participant_id"]
    for column in taken:
        message = "the participants sheet has this column already"
        found.append(at(name, 1, str(column), None, message, "rename one of them"))
    table = covariates.drop(columns=taken).drop_duplicates("participant_id")
    table = table.set_index("participant_id")
    joined = participants.copy()
    for column in table:
        values = joined["participant_id"].map(table[column])
        joined[column] = values.astype(object).where(values.notna(), None)
    return joined, found


def _recoded(
    frame: pd.DataFrame, schema: str, name: str, recode: Mapping[str, Mapping[str, float]]
) -> Iterator[Finding]:
    """Write, in place, the numbers that words stand for (``dead`` is grade 6), with a note each."""
    naming = {"outcomes": "outcome", "exposures": "exposure"}.get(schema)
    for quantity, meanings in recode.items():
        if naming is not None and {naming, "value"} <= set(frame.columns):
            column, rows = "value", frame[naming] == quantity
        elif schema in {"participants", "covariates"} and quantity in frame:
            column, rows = quantity, pd.Series(True, index=frame.index)
        else:
            continue
        for word, value in meanings.items():
            hit = rows & (frame[column] == word)
            if hit.any():
                frame.loc[hit, column] = f"{value:g}"
                message = f"{int(hit.sum())} cells of {quantity} were read as {value:g} (recode)"
                line = int(frame.index[hit][0])
                yield at(name, line, column, word, message, "nothing to do", "note")


def read_sheets(
    paths: Mapping[str, Path],
    recode: Mapping[str, Mapping[str, float]],
    check: Callable[[pd.DataFrame, str, str], list[Finding]] | None = None,
) -> tuple[dict[str, pd.DataFrame], list[Finding]]:
    """Sheets by name: tables of measurements joined, covariates joined to the participants."""
    sheets: dict[str, pd.DataFrame] = {}
    tables, findings = [], []
    for key, path in paths.items():
        kind = key.split("[")[0]
        frame, found = read_sheet(path, path.name)
        findings += found
        if frame is None:
            continue
        findings += _recoded(frame, kind, path.name, recode)
        if check:
            findings += check(frame, kind, path.name)
        if kind == "measurements":
            tables.append(frame.assign(_sheet=path.name, _line=frame.index))
        elif kind != "covariates":
            sheets[kind] = frame
        elif "participants" in sheets:
            people, found = join_covariates(sheets["participants"], frame, path.name)
            sheets["participants"] = people
            findings += found
    if tables:
        joined = pd.concat(tables, ignore_index=True).astype(object)
        sheets["measurements"] = joined.where(joined.notna(), None)
    return sheets, findings


def exists(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is of none."""
    try:
        return path.exists()
    except OSError:
        return False


def _scan_identifier(row: Mapping[str, Any], run: int) -> str:
    """Identifier of a scan, made of what makes its row unique."""
    parts = [subject_entity(row["participant_id"]), session_entity(row["visit"]), row["kind"]]
    parts += [f"reader-{row['reader']}"] if row.get("reader") else []
    parts += [f"run-{run}"] if run != 1 else []
    return "_".join([*parts, *["space-MNI152"] * (row.get("space") == "MNI152")])


def _own_identifier(row: Mapping[str, Any], known: Mapping[str, str]) -> str:
    """Identifier of a scan; a second DICOM folder of a visit has the next free run number.

    Its ``repeat`` stays 1: two folders are two parts of an examination, not a repeated one.
    ``known`` are the paths of the rows before, by identifier.
    """
    run = row["repeat"]
    identifier = _scan_identifier(row, run)
    while row["kind"] == "dicom" and known.get(identifier, row["path"]) != row["path"]:
        run += 1
        identifier = _scan_identifier(row, run)
    return identifier


#: An absolute path that :class:`pathlib.Path` leaves as it is; for 27 000 rows that takes 1 s.
_IN_NORMAL_FORM = re.compile(r"(?:/(?!\.?(?:/|$))[^/]+)+")


def _found(
    text: str, sheet_path: Path, data_dir: Path | None, simulated_folder: Path | None
) -> tuple[str, bool]:
    """Path of a file that a sheet names, absolute or simulated, and whether it is simulated.

    A relative path is of the simulated scans, or else below ``data_dir``, or beside the sheet.
    """
    if _IN_NORMAL_FORM.fullmatch(text):
        return text, False
    path = Path(text).expanduser()
    if not path.is_absolute():
        if simulated_folder is not None:
            return os.fspath(simulated_folder / path), True
        near = [*([data_dir / path] if data_dir else []), sheet_path.parent / path]
        path = next((one for one in near if exists(one)), near[0])
    return os.fspath(path.absolute()), False


def scan_rows(
    frame: pd.DataFrame, sheet_path: Path, data_dir: Path | None, simulated_folder: Path | None
) -> list[ScanRow]:
    """Rows of a scans sheet (index: line of the file) whose required cells are filled.

    Paths are looked for in ``data_dir`` and beside the sheet; one that is found nowhere stays on
    its row, as a scan that does not exist. Scans below ``simulated_folder`` are made by the run.
    """
    rows: list[ScanRow] = []
    paths: dict[str, str] = {}
    columns = [name for name in SCAN_COLUMNS if name in frame]
    numeric = [name for name in SCAN_NUMBERS if name in frame]
    for line, cells in zip(frame.index, frame.to_dict("records"), strict=True):
        given: dict[str, Any] = {name: cells[name] for name in columns if cells[name]}
        if not {"participant_id", "visit", "kind", "path"} <= given.keys():
            continue
        found, simulated = _found(given["path"], sheet_path, data_dir, simulated_folder)
        given["repeat"] = int(float(given["repeat"])) if _whole(given.get("repeat")) else 1
        given |= {name: _number(cells[name]) for name in numeric}
        given |= {"path": found, "source": given["path"]}
        size = _size(found) if not simulated else None
        row = ScanRow(
            **given,
            scan_id=_own_identifier(given, paths),
            line=int(line),
            simulated=simulated,
            exists=simulated or size is not None,
            bytes=size,
        )
        paths[row.scan_id] = row.path
        rows.append(row)
    return sorted(rows, key=lambda row: row.scan_id)


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return None


def insert_rows(
    frame: pd.DataFrame, sheet_path: Path, data_dir: Path | None, simulated_folder: Path | None
) -> list[InsertRow]:
    """Rows of the phantoms sheet with paths as those of the scans sheet are found."""
    needed = ("site", "scanner", "acquired_at", "insert", "kind", "unit")
    rows = []
    for line, cells in zip(frame.index, frame.to_dict("records"), strict=True):
        row: dict[str, Any] = {str(name): cell for name, cell in cells.items()}
        if not all(row.get(key) for key in needed):
            continue
        row["line"], row["simulated"] = int(line), False
        for key in ("path", "mask_path"):
            text, row[key] = row.get(key), None
            if text:
                row[key], made = _found(text, sheet_path, data_dir, simulated_folder)
                row["simulated"] |= made
        for number in ("certified_value", "measured_value"):
            row[number] = _number(row.get(number))
        rows.append(InsertRow.from_row(row))
    return rows


def _number(cell: str | None) -> float | None:
    try:
        return float(cell) if cell is not None else None
    except ValueError:
        return None


def _whole(cell: str | None) -> bool:
    number = _number(cell)
    return number is not None and number >= 1
