"""The study: config and sheets, with all findings about them.

``load_study`` reads and checks everything; it never opens an image. It is called while the
Snakefile is parsed and again by the preflight job, so both see the same rows. Other jobs get the
part that they use (:meth:`Study.part`) as a parameter and read its sheets with ``read_study``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import MISSING
from corelab.records import InsertRow, ScanRow
from corelab.settings.config import Config
from corelab.settings.study import InputSettings
from corelab.study import checks
from corelab.study.columns import RADIOMICS_PREFIX, window_names
from corelab.study.findings import Finding, errors, grouped_lines, in_config
from corelab.study.models import model_findings
from corelab.study.naming import session_entity, subject_entity
from corelab.study.presets import preset_names, with_preset
from corelab.study.schema import config_findings, sheet_findings
from corelab.study.units import common_units, unify
from corelab.terms.kinds import IMAGE_KINDS, PERFUSION_KINDS

SHEETS = (
    "participants",
    "scans",
    "reads",
    "outcomes",
    "exposures",
    "events",
    "phantoms",
    "rereads",
    "reference_cases",
)
SCAN_NUMBERS = ("echo_time_s", "repetition_time_s", "b_value", "scan_duration_s")
SCAN_COLUMNS = (
    *("participant_id", "visit", "kind", "path", "reader", "repeat", "space", "label_values"),
    *("acquired_at", "scanner", "sequence", "contrast_phase"),
)
MAX_SHEET_BYTES = 512 * 1024 * 1024
#: Blocks of the config that every job needs which reads the study.
EVERY_JOB = ("study", "results_dir", "visits", "grades", "recode")


class PartOfConfig(Config):
    """The blocks of a config that a job was given; to read another one is an error.

    Its defaults would be there, and be taken for what the study says.

    Examples
    --------
    >>> part = PartOfConfig.model_validate({"study": {"id": "a"}, "reading": {}})
    >>> part.reading.presentation
    'single_time_point'
    >>> part.visits
    Traceback (most recent call last):
    ...
    LookupError: the job was not given the block 'visits' of the config: its rule has to name it
    """

    inputs: InputSettings = InputSettings(participants="n/a")

    def __getattribute__(self, name: str) -> Any:
        """A block that the job was given."""
        if name in Config.model_fields and name not in self.model_fields_set:
            raise LookupError(
                f"the job was not given the block {name!r} of the config: its rule has to name it"
            )
        return super().__getattribute__(name)


class StudyError(ValueError):
    """A study that cannot be read; carries every finding."""

    def __init__(self, findings: Iterable[Finding]):
        self.findings = list(findings)
        super().__init__("\n".join(grouped_lines(self.findings)))


def _scan_identifier(row: Mapping[str, Any], run: int) -> str:
    """Identifier of a scan, made of what makes its row unique.

    Examples
    --------
    >>> row = {"participant_id": "1", "visit": "day5", "kind": "mask-infarct", "reader": "r1"}
    >>> _scan_identifier(row, 2)
    'sub-1_ses-day5_mask-infarct_reader-r1_run-2'
    """
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


class _Cells(dict[str, str | None]):
    """Cell as written -> without blanks around it, None where missing; equal cells are one object.

    Of 100 000 rows most cells are repeated: one object for all takes a third of the memory.
    """

    def __missing__(self, written: str) -> str | None:
        cell = written.strip()
        self[written] = known = None if cell in ("", MISSING) else cell
        return known


def _any_quoted(cells: Iterable[str | None]) -> bool:
    return any(cell and len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells)


def read_sheet(path: Path, name: str) -> tuple[pd.DataFrame | None, list[Finding]]:
    """Read a sheet as text; the index is the line number in the file.

    Returns
    -------
    frame
        None if the file cannot be read at all.
    findings
        What kept it from being read, or what is odd about its shape.
    """

    def wrong(message: str, remedy: str, row: int | None = None) -> Finding:
        return Finding("error", name, row, None, None, message, remedy)

    if not _exists(path) or not path.is_file():
        return None, [
            wrong(f"the sheet {str(path)[:300]} is not there", "correct the path in inputs")
        ]
    if path.stat().st_size > MAX_SHEET_BYTES:
        return None, [wrong("the sheet is larger than 512 MiB", "split the study")]
    content = path.read_bytes()
    if other := next((what for mark, what in _FILE_MARKS if content.startswith(mark)), None):
        return None, [wrong(f"the file is {other}", "save it as tab-separated UTF-8 text")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return None, [
            wrong(f"not UTF-8 text (byte {error.start})", "save it as tab-separated UTF-8 text")
        ]
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
    quoted = [cell for cell in header if len(cell) > 1 and cell[0] == cell[-1] == '"']
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
        in_quotes = [n for n, cells in zip(numbers, rows, strict=True) if _any_quoted(cells)]
    if in_quotes:
        message = f"cells in quotation marks ({len(in_quotes)} rows), which count as a part of them"
        remedy = "save it tab-separated without quotation marks"
        found.append(Finding("warning", name, in_quotes[0], None, None, message, remedy))
    frame = pd.DataFrame(rows, columns=header, index=pd.Index(numbers, name="line"), dtype=object)
    return frame, found


@dataclass(frozen=True)
class Study:
    """A study as read: resolved config, sheets of text, and the findings about them.

    Attributes
    ----------
    config
        With defaults, as plain data: parameters of jobs and the record of the plan.
    sheets
        Name -> frame of text cells (None for missing); a sheet that is not given is absent.
    scans
        Usable rows of the scans sheet, sorted by scan_id.
    findings
        From config and sheets; headers of images are checked by the preflight job.
    visit_order
        Visits in order: as configured, then in the order of first appearance in the sheets.
    units
        Quantities of several units, of :func:`corelab.study.units.common_units`.
    phantoms
        Rows of the phantoms sheet, paths absolute (or ``simulated``), values float.
    """

    config: dict[str, Any]
    sheets: dict[str, pd.DataFrame]
    scans: tuple[ScanRow, ...]
    findings: tuple[Finding, ...] = ()
    sheet_paths: dict[str, Path] = field(default_factory=dict)
    visit_order: tuple[str, ...] = ()
    units: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    phantoms: tuple[InsertRow, ...] = ()

    @cached_property
    def settings(self) -> Config:
        """The same config as typed blocks."""
        whole = self.config.keys() >= Config.model_fields.keys()
        return (Config if whole else PartOfConfig).model_validate(self.config)

    @property
    def id(self) -> str:
        """Name of the study."""
        return self.settings.study.id

    @property
    def folder(self) -> Path:
        """Results folder of the study, as configured."""
        return Path(self.settings.results_dir) / self.id

    @property
    def sound(self) -> bool:
        """Whether nothing found stops the run."""
        return not errors(self.findings)

    @property
    def central_read(self) -> bool:
        """Whether reads are adjudicated, and locked before anything is computed from them."""
        return bool(self.settings.reading.adjudication)

    def part(self, *blocks: str, sheets: Iterable[str] = ()) -> dict[str, Any]:
        """The part of the study that a job reads, as a parameter of the job.

        Parameters
        ----------
        blocks
            Keys of the config, besides those that every job needs. They are resolved: with
            defaults and absolute paths.
        sheets
            Names of sheets; ``covariates`` are joined to the participants.

        Returns
        -------
        dict
            Plain values for :func:`read_study`. It changes with the named blocks alone, so an edit
            of another block reruns nothing.
        """
        names = set(sheets)
        return {
            "config": {key: self.config[key] for key in (*EVERY_JOB, *blocks)},
            "sheets": {
                key: os.fspath(path)
                for key, path in self.sheet_paths.items()
                if key.split("[")[0] in names
            },
            "visit_order": list(self.visit_order),
            "units": self.units,
            "folders": [folder and os.fspath(folder) for folder in _scan_folders(self.settings)],
        }

    @cached_property
    def participants(self) -> tuple[str, ...]:
        """Subject ids of the participants sheet, sorted."""
        frame = self.sheets.get("participants")
        if frame is None or "participant_id" not in frame:
            return ()
        return tuple(sorted(frame["participant_id"].dropna().unique()))

    @cached_property
    def _by_visit(self) -> dict[tuple[str, str], list[ScanRow]]:
        table: dict[tuple[str, str], list[ScanRow]] = {}
        for row in self.scans:
            table.setdefault(row.key, []).append(row)
        return table

    def visit_rows(self, participant_id: str, visit: str) -> list[ScanRow]:
        """Scan rows of one visit."""
        return self._by_visit.get((participant_id, visit), [])

    @cached_property
    def image_visits(self) -> tuple[tuple[str, str], ...]:
        """Visits with at least one image to process (not only masks that others supplied)."""
        return tuple(
            sorted(
                key
                for key, rows in self._by_visit.items()
                if any(row.kind in IMAGE_KINDS for row in rows)
            )
        )

    @cached_property
    def perfusion_visits(self) -> frozenset[tuple[str, str]]:
        """Visits with perfusion images or perfusion maps."""
        return frozenset(
            key
            for key, rows in self._by_visit.items()
            if any(row.kind in PERFUSION_KINDS for row in rows)
        )

    @cached_property
    def radiomics_visits(self) -> tuple[tuple[str, str], ...]:
        """Visits with images that features are computed of."""
        wanted = self.settings.radiomics
        if not wanted.series:
            return ()
        visits = wanted.visits
        return tuple(key for key in self.image_visits if not visits or key[1] in visits)

    @property
    def has_features(self) -> bool:
        """Whether features are computed, supplied or analysed."""
        if self.radiomics_visits or any(a["type"] == "radiomics" for a in self.config["analyses"]):
            return True
        rows = self.sheets.get("measurements")
        return (
            rows is not None
            and "endpoint" in rows
            and bool(rows["endpoint"].fillna("").str.startswith(RADIOMICS_PREFIX).any())
        )

    @cached_property
    def image_subjects(self) -> dict[str, tuple[str, ...]]:
        """Subject with images -> its visits with images, in visit order."""
        subjects: dict[str, list[str]] = {}
        for participant_id, visit in self.image_visits:
            subjects.setdefault(participant_id, []).append(visit)
        rank = {visit: number for number, visit in enumerate(self.visit_order)}
        return {
            subject: tuple(sorted(visits, key=lambda v: (rank.get(v, len(rank)), v)))
            for subject, visits in sorted(subjects.items())
        }

    @cached_property
    def mask_batches(self) -> tuple[tuple[ScanRow, ...], ...]:
        """Supplied masks of visits without images, in batches of subjects for one job each."""
        with_images = set(self.image_visits)
        by_subject: dict[str, list[ScanRow]] = {}
        for (participant_id, visit), rows in sorted(self._by_visit.items()):
            if (participant_id, visit) not in with_images:
                by_subject.setdefault(participant_id, []).extend(rows)
        size = self.settings.measurement.batch_size
        subjects = list(by_subject.values())
        return tuple(
            tuple(row for rows in subjects[start : start + size] for row in rows)
            for start in range(0, len(subjects), size)
        )

    @property
    def baseline(self) -> str | None:
        """The baseline visit: as configured, else the first."""
        configured = self.settings.visits.baseline
        if configured:
            return configured
        return self.visit_order[0] if self.visit_order else None

    @cached_property
    def mask_labels(self) -> tuple[str, ...]:
        """Labels of masks that supplied scans or the pipeline can give, for frequency maps."""
        kinds = {row.kind for row in self.scans}
        labels = {row.label for row in self.scans if row.is_mask} - {"brain"}
        stroke = self.settings.study.disease == "stroke"
        if stroke and kinds & {"dwi", "adc", "FLAIR", "ncct"}:
            labels.add("infarct")
        if stroke and kinds & {"ncct", "gre"}:
            labels.add("haematoma")
        if stroke and kinds & set(PERFUSION_KINDS):
            labels |= {"core", "hypoperfused"}
        if not stroke and "T1c" in kinds:
            labels.add("enhancing")
        if not stroke and kinds & {"FLAIR", "T2w"}:
            labels |= {"oedema", "whole-tumour"}
            if "T1c" in kinds:
                labels |= {"necrosis", "tumourcore"}
        return tuple(sorted(labels))

    def onset_to_ct_minutes(self, participant_id: str) -> float | None:
        """Minutes from onset to CT, from the participants column named in the config."""
        column = self.settings.measurement.onset_to_ct_column
        frame = self.sheets.get("participants")
        if frame is None or column not in frame:
            return None
        cells = frame.loc[frame["participant_id"] == participant_id, column].dropna()
        try:
            return float(cells.iloc[0]) if len(cells) else None
        except ValueError:
            return None


def _visit_order(settings: Config, sheets: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """Visits in order: as configured, then in the order of first appearance."""
    order = list(settings.visits.order)
    for name in ("scans", "reads", "outcomes", "measurements", "exposures"):
        frame = sheets.get(name)
        if frame is not None and "visit" in frame:
            order.extend(v for v in frame["visit"].dropna().unique() if v not in order)
    # Windows of serial imaging are visits of the measurements too.
    names = window_names(settings.serial_imaging)
    return (*order, *(name for name in names if name not in order))


def _scan_folders(settings: Config) -> tuple[Path | None, Path | None]:
    """Folders of relative paths in the scans sheet: of the data, and of simulated scans."""
    given = settings.data_dir or settings.inputs.data_dir
    simulated = Path(settings.results_dir) / settings.study.id / "phantom"
    return Path(given).expanduser().absolute() if given else None, (
        simulated if settings.phantom else None
    )


def _exists(path: Path) -> bool:
    """Whether a file is there; a name that no file can have is of none."""
    try:
        return path.exists()
    except OSError:
        return False


def _input_path(text: str, data_dir: Path | None) -> Path:
    """An input of the config: absolute, or from the working directory, or else from data_dir."""
    path = Path(text).expanduser()
    if path.is_absolute() or data_dir is None or _exists(path):
        return path.absolute()
    beside = data_dir / path
    return (beside if _exists(beside) else path).absolute()


#: An absolute path that :class:`pathlib.Path` would leave as it is: for 27 000 rows it takes 1 s.
_IN_NORMAL_FORM = re.compile(r"(?:/(?!\.?(?:/|$))[^/]+)+")


def _scan_rows(
    frame: pd.DataFrame, sheet_path: Path, data_dir: Path | None, simulated_folder: Path | None
) -> list[ScanRow]:
    rows: list[ScanRow] = []
    paths: dict[str, str] = {}
    columns = [name for name in SCAN_COLUMNS if name in frame]
    numeric = [name for name in SCAN_NUMBERS if name in frame]
    for line, cells in zip(frame.index, frame.to_dict("records"), strict=True):
        given: dict[str, Any] = {name: cells[name] for name in columns if cells[name]}
        if not {"participant_id", "visit", "kind", "path"} <= given.keys():
            continue
        found, simulated = given["path"], False
        if not _IN_NORMAL_FORM.fullmatch(found):
            path = Path(found).expanduser()
            if not path.is_absolute():
                if simulated_folder is not None:
                    path, simulated = simulated_folder / path, True
                elif data_dir is not None and _exists(data_dir / path):
                    path = data_dir / path
                else:
                    beside = sheet_path.parent / path
                    path = beside if data_dir is None or _exists(beside) else data_dir / path
            found = os.fspath(path if simulated else path.absolute())
        size = _size(found) if not simulated else None
        given["repeat"] = int(float(given["repeat"])) if _whole(given.get("repeat")) else 1
        given |= {name: _number(cells[name]) for name in numeric}
        given |= {"path": found, "source": given["path"]}
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


def _phantom_rows(
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
            text = row.get(key)
            row[key] = None
            if not text:
                continue
            path = Path(text).expanduser()
            if not path.is_absolute() and simulated_folder is not None:
                row[key], row["simulated"] = os.fspath(simulated_folder / path), True
                continue
            near = [data_dir / path] if data_dir is not None else []
            near = [path] if path.is_absolute() else [*near, sheet_path.parent / path]
            row[key] = os.fspath(next((p for p in near if p.exists()), near[0]).absolute())
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
                yield Finding("note", name, line, column, word, message, "nothing to do")


def load_study(config: Mapping[str, Any]) -> Study:
    """Read and check a study's config and sheets; nothing is computed and no image is opened.

    Parameters
    ----------
    config
        As parsed from the config file.

    Returns
    -------
    Study
        With ``findings``; a study that is not ``sound`` must not be computed.

    Raises
    ------
    StudyError
        If the config itself violates its schema: then there is nothing to build on.
    """
    config = with_preset(config)
    wrong = config_findings(config)
    if wrong:
        raise StudyError(wrong)
    given = Config.model_validate(config)
    full, (data_dir, simulated) = given.plain(), _scan_folders(given)
    findings = _resolved_inputs(full, data_dir)
    paths = _named_sheets(full, data_dir)
    sheets, found = _read_sheets(paths, full["recode"], check=True)
    findings += found
    scans: list[ScanRow] = []
    if "scans" in sheets:
        scans = _scan_rows(sheets["scans"], paths["scans"], data_dir, simulated)
    phantoms: list[InsertRow] = []
    if "phantoms" in sheets:
        phantoms = _phantom_rows(sheets["phantoms"], paths["phantoms"], data_dir, simulated)
    names = {k: p.name for k, p in paths.items()}
    scan_paths = [(row.line, row.path) for row in scans]
    more_paths = [(row.line, row.path or "") for row in phantoms]
    if braces := list(
        _braces(full, paths, [*scan_paths, *more_paths], names.get("scans", "scans"))
    ):
        raise StudyError(braces)
    settings, units = Config.model_validate(full), common_units(sheets)
    findings = [*checks.weighed(findings, settings, names), *unify(sheets, names, units)]
    findings += checks.cross_findings(settings, sheets, scans, names)
    findings += checks.phantom_findings(phantoms, names.get("phantoms", "phantoms"))
    return Study(
        full,
        sheets,
        tuple(scans),
        tuple(checks.said_once(findings)),
        paths,
        _visit_order(settings, sheets),
        units,
        tuple(phantoms),
    )


def read_study(part: Mapping[str, Any]) -> Study:
    """Read the part of a study that a job uses; it was checked when the Snakefile was parsed.

    Parameters
    ----------
    part
        Of :meth:`Study.part`.

    Returns
    -------
    Study
        With the blocks of the config and the sheets that the part names, and no others.
    """
    config = dict(part["config"])
    paths = {key: Path(path) for key, path in part["sheets"].items()}
    sheets, _ = _read_sheets(paths, config["recode"], check=False)
    scans: list[ScanRow] = []
    if "scans" in sheets:
        data_dir, simulated = (folder and Path(folder) for folder in part["folders"])
        scans = _scan_rows(sheets["scans"], paths["scans"], data_dir, simulated)
    list(unify(sheets, {}, part["units"]))
    order = tuple(part["visit_order"])
    return Study(config, sheets, tuple(scans), (), paths, order, part["units"])


def _braces(
    full: Mapping[str, Any],
    paths: Mapping[str, Path],
    rows: Iterable[tuple[int, str]],
    sheet: str,
) -> Iterator[Finding]:
    """Paths with braces: the workflow takes {batch1} in a path for a wildcard."""
    message = "the path has braces, which the workflow takes for a wildcard"
    remedy = "rename the file or folder without { and }"
    places = {"results_dir": full["results_dir"], **{f"inputs.{k}": p for k, p in paths.items()}}
    for key, path in places.items():
        if "{" in str(path) or "}" in str(path):
            yield in_config(key, str(path), message, remedy)
    for line, path in rows:
        if "{" in path or "}" in path:
            yield Finding("error", sheet, line, "path", path, message, remedy)


def _resolved_inputs(full: dict[str, Any], data_dir: Path | None) -> list[Finding]:
    """Make paths of the config absolute, in place; what is wrong with them and the preset."""
    found: list[Finding] = []

    def wrong(column: str, value: Any, message: str, remedy: str) -> None:
        found.append(in_config(column, value, message, remedy))

    if full["preset"] and full["preset"] not in preset_names():
        known = "known: " + ", ".join(preset_names())
        wrong("preset", full["preset"], "there is no such preset", known)
    if data_dir is not None and not data_dir.is_dir():
        wrong(
            "data_dir",
            str(full["data_dir"] or full["inputs"]["data_dir"]),
            "the folder is not there",
            "correct inputs.data_dir, or give --config data_dir=FOLDER",
        )
    for atlas in full["atlases"]:
        for key in ("path", "labels"):
            atlas[key] = os.fspath(_input_path(atlas[key], data_dir))
    if full["locked_plan"]:
        full["locked_plan"] = os.fspath(_input_path(full["locked_plan"], data_dir))
        if not Path(full["locked_plan"]).is_file():
            wrong(
                "locked_plan",
                full["locked_plan"],
                "the file is missing",
                "give the copy of statistics/plan.json that was kept at the lock",
            )
    for part in (full["brain_extraction"], *full["segmentation"]["external"]):
        if part.get("weights"):
            part["weights"] = os.fspath(_input_path(part["weights"], data_dir))
    found += model_findings(Config.model_validate(full))
    if full["registration"]["ct_template"]:
        template = _input_path(full["registration"]["ct_template"], data_dir)
        full["registration"]["ct_template"] = os.fspath(template)
    return found


def _named_sheets(full: Mapping[str, Any], data_dir: Path | None) -> dict[str, Path]:
    """Key -> path of the sheets that the config names."""
    inputs = full["inputs"]
    named = {name: inputs[name] for name in SHEETS} | {"published": full["published"]}
    for name in ("measurements", "covariates"):
        named |= {f"{name}[{number}]": text for number, text in enumerate(inputs[name])}
    return {key: _input_path(text, data_dir) for key, text in named.items() if text}


def _read_sheets(
    paths: Mapping[str, Path], recode: Mapping[str, Mapping[str, float]], *, check: bool
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
            findings += sheet_findings(frame, kind, path.name)
        if kind == "measurements":
            tables.append(frame.assign(_sheet=path.name, _line=frame.index))
        elif kind != "covariates":
            sheets[kind] = frame
        elif "participants" in sheets:
            people, found = checks.join_covariates(sheets["participants"], frame, path.name)
            sheets["participants"] = people
            findings += found
    if tables:
        joined = pd.concat(tables, ignore_index=True).astype(object)
        sheets["measurements"] = joined.where(joined.notna(), None)
    return sheets, findings
