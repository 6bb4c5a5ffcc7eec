"""Checks across rows and sheets: what a schema cannot see."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from corelab.records.images import InsertRow, ScanRow
from corelab.settings.analyses.base import listed
from corelab.settings.analyses.keys import unread
from corelab.settings.config import Config
from corelab.settings.reading import Panel
from corelab.study.assessors import final_assessments
from corelab.study.cells import (
    CAPPED_COLUMNS,
    LABEL_COLUMNS,
    is_missing,
    level_text,
    numbers,
    odd_cells,
)
from corelab.study.central import central_findings
from corelab.study.columns import LARGEST_LESION_ML, window_names
from corelab.study.expression import ExpressionError, flag_name, names_in, select
from corelab.study.findings import Finding, at, in_config
from corelab.study.naming import subject_entity
from corelab.study.sheets import MANY, doubled
from corelab.terms.endpoints import (
    ENDPOINT_LABELS,
    ENDPOINT_UNITS,
    ENDPOINTS,
    SCALES,
    VOLUME_UNITS_ML,
    unit_of,
)
from corelab.terms.kinds import DATATYPES
from corelab.terms.labels import SHOWN_BY

#: analysis_id of published numbers that no analysis recomputes.
PUBLISHED_BESIDES = {"description", "arithmetic"}
#: Kinds of scan that a variant of the pipeline is named after.
IMAGE_WORDS = tuple(DATATYPES)


#: Participants columns whose cells the schema checks although a study need not use them.
_OPTIONAL_COLUMNS = frozenset({"age", "dose"})
#: Blocks of the config that can name a participants column.
_NAMING_BLOCKS = ("analyses", "cohort_flows", "measurement", "acquisition", "study", "phantom")


def weighed(findings: Sequence[Finding], config: Config, names: Mapping[str, str]) -> list[Finding]:
    """Findings of the sheets, in which a bad cell of a column that nothing uses is a warning.

    A column is used where a block of the config has its name as a word.

    Examples
    --------
    >>> bad = Finding("error", "p.tsv", 2, "age", "old", "not a number", "correct it")
    >>> config = {"study": {"id": "s"}, "inputs": {"participants": "p.tsv"}}
    >>> weighed([bad], Config(**config), {"participants": "p.tsv"})[0].severity
    'warning'
    """
    naming = json.dumps(config.plain(*_NAMING_BLOCKS), default=str)
    unused = _OPTIONAL_COLUMNS - set(re.findall(r"\w+", naming))
    return [
        replace(
            finding,
            severity="warning",
            message=f"{finding.message}; nothing in the config uses the column",
        )
        if finding.severity == "error"
        and finding.sheet == names.get("participants")
        and finding.row is not None
        and finding.column in unused
        else finding
        for finding in findings
    ]


def said_once(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without those that say again that a cell is no number.

    Examples
    --------
    >>> one = Finding("error", "m.tsv", 2, "value", "x", "not a number (write ...)", "correct it")
    >>> again = replace(one, message="not a number, so no statistic can use it")
    >>> [finding.message for finding in said_once([one, again])]
    ['not a number (write ...)']
    """
    kept: list[Finding] = []
    seen: set[tuple[Any, ...]] = set()
    for finding in findings:
        cell = (finding.sheet, finding.row, finding.column, finding.severity)
        if finding.message.startswith("not a number") and finding.row is not None:
            if cell in seen:
                continue
            seen.add(cell)
        kept.append(finding)
    return kept


def _participants(frame: pd.DataFrame, name: str) -> Iterator[Finding]:
    ids = frame["participant_id"].dropna()
    for participant_id, group in frame.loc[ids.index].groupby("participant_id", sort=False):
        if len(group) == 1:
            continue
        arms = sorted(set(group["arm"].dropna())) if "arm" in group else []
        what = f"the participant is listed {len(group)} times"
        what += f" with the arms {' and '.join(arms)}" * (len(arms) > 1)
        message = f"{what} (first in row {group.index[0]}), so it is not known which row holds"
        remedy = "keep one row per participant"
        yield at(name, group.index[1], "participant_id", participant_id, message, remedy)
    entities: dict[str, str] = {}
    folded: dict[str, str] = {}
    for one in dict.fromkeys(ids):
        entity, alike = subject_entity(one), _looks_like(one)
        if entity in entities:
            message = f"the ids '{one}' and '{entities[entity]}' would share the folder {entity}"
            yield at(name, None, "participant_id", one, message, "rename one of them")
        entities[entity] = one
        if folded.setdefault(alike, one) != one:
            message = f"looks like the id '{folded[alike]}' of another participant"
            remedy = "check that they are two people"
            yield at(name, None, "participant_id", one, message, remedy, "warning")


#: Letters of other scripts that look like Latin ones: Cyrillic and Greek.
_LATIN = str.maketrans(
    "аеорсухіјѕԁһԛԝАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορυ",
    "aeopcyxijsdhqwABEKMHOPCTYXIJSABEZHIKMNOPTYXaivopu",
)


def _looks_like(text: str) -> str:
    """The form that a person sees: invisible characters gone, look-alike letters as Latin ones."""
    # An accent may be a letter's own or stand behind it: composed, both are the letter's own.
    composed = unicodedata.normalize("NFC", text)
    seen = "".join(c for c in composed if unicodedata.category(c) not in {"Cf", "Mn"})
    return unicodedata.normalize("NFKC", seen.translate(_LATIN)).casefold()


#: Columns whose values are names that several rows and sheets share.
_NAMES = ("arm", "site", "visit", "endpoint", "outcome", "exposure", "source")


def _look_alikes(sheets: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    """Names of one thing that differ in case, blanks or look-alike letters, over all sheets."""
    for what in _NAMES:
        forms: dict[str, tuple[str, str]] = {}
        for sheet, frame in sheets.items():
            if what not in frame or sheet == "published":
                continue
            for value in sorted(frame[what].dropna().unique()):
                plain = re.sub(r"\s", "", _looks_like(str(value)))
                first, where = forms.setdefault(plain, (value, sheet))
                if first != value:
                    message = (
                        f"looks like the {what} '{first}' (in {where}) written otherwise: they "
                        f"would be treated as two {what}s"
                    )
                    remedy = f"write one form of the name, unless they are two {what}s"
                    line = _line(frame, frame.index[frame[what] == value][0])
                    yield at(sheet, line, what, value, message, remedy, "warning")


def _bare_id(text: str) -> str:
    """An id without what spreadsheets and BIDS add or take: prefix, leading zeros, ``.0``."""
    return re.sub(r"^sub-|\.0+$", "", _looks_like(text).strip()).lstrip("0")


def _unlisted(frame: pd.DataFrame, name: str, known: set[str]) -> Iterator[Finding]:
    ids = frame["participant_id"].dropna()
    unlisted = ids[~ids.isin(known)]
    listed = sorted(known) if len(unlisted) else []
    by_bare = {_bare_id(one): one for one in reversed(listed)}
    for number, (participant_id, group) in enumerate(unlisted.groupby(ids, sort=False)):
        bare = _bare_id(str(participant_id))
        near = [by_bare[bare]] if bare in by_bare else []
        if not near and number < MANY:  # each is compared with all participants
            near = difflib.get_close_matches(str(participant_id), listed, 1, 0.7)
        remedy = "add it to the participants sheet, or remove the rows"
        if near:
            remedy = f"add it there, or correct the id (did you mean '{near[0]}'?)"
        message = (
            f"not in the participants sheet ({len(group)} row"
            f"{'s' if len(group) > 1 else ''}), so its arm and population are unknown"
        )
        yield at(name, group.index[0], "participant_id", participant_id, message, remedy)


def _scans(scans: Sequence[ScanRow], name: str) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    files: dict[str, ScanRow] = {}
    for row in sorted(scans, key=lambda r: r.line):
        if row.scan_id in seen:
            message = f"the scan is listed twice (first in row {seen[row.scan_id]})"
            remedy = "keep one of the rows, or number them in the column repeat"
            yield at(name, row.line, "kind", row.scan_id, message, remedy)
        seen.setdefault(row.scan_id, row.line)
        other = files.get(row.path)
        if other is not None and not row.label_values and other.key != row.key:
            message = (
                f"the file belongs to {' '.join(other.key)} already (row {other.line}): one "
                "image cannot be two scans"
            )
            remedy = "correct one of the paths"
            yield at(name, row.line, "path", row.source, message, remedy)
        files.setdefault(row.path, row)
    absent = [row for row in scans if not row.exists]
    if absent and len(absent) == len(scans):
        message = f"none of the {len(scans)} files exists (looked for {absent[0].path})"
        remedy = "correct inputs.data_dir or the paths"
        yield at(name, None, "path", absent[0].source, message, remedy)
        return
    for row in absent:
        message = f"the file is missing ({row.path}); its values will be missing"
        remedy = "correct the path, or remove the row if the scan was never made"
        yield at(name, row.line, "path", row.source, message, remedy, "warning")


def _times(scans: Sequence[ScanRow], baseline: str | None, name: str) -> Iterator[Finding]:
    first: dict[str, str] = {}
    for row in scans:
        if row.visit == baseline and row.acquired_at:
            kept = first.get(row.participant_id)
            first[row.participant_id] = min(kept, row.acquired_at) if kept else row.acquired_at
    for row in scans:
        start = first.get(row.participant_id)
        if row.visit != baseline and row.acquired_at and start and row.acquired_at < start:
            message = f"earlier than the baseline scan of {start}"
            remedy = "check visit and time of acquisition"
            yield at(name, row.line, "acquired_at", row.acquired_at, message, remedy, "warning")


def _values(
    frame: pd.DataFrame, name: str, source_column: str, grades: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    if not {"endpoint", "value"} <= set(frame.columns):
        return
    graded = frame["endpoint"].isin(list(grades))
    yield from _grades(frame[graded], name, grades)
    read = numbers(frame["value"].where(~graded, None))
    given, nan = frame["value"].notna(), _is_nan(frame["value"]) & ~graded
    units = frame["unit"] if "unit" in frame else pd.Series(None, index=frame.index, dtype=object)
    volumes = frame["endpoint"].isin(
        [one for one in frame["endpoint"].unique() if unit_of(str(one)) == "mL"]
    )
    ml = read * units.map(VOLUME_UNITS_ML).fillna(1.0)
    signed = frame["endpoint"].isin([name for name, one in ENDPOINTS.items() if one.signed])
    known = ", ".join(VOLUME_UNITS_ML)
    yield from _cells(
        frame, given & read.isna() & ~graded & ~nan, name, "value",
        "not a number, so no statistic can use it",
        "write a number with a decimal point, n/a if there is none; for grades in words list them "
        "in the config under grades",
    )  # fmt: skip
    yield from _cells(
        frame, given & nan, name, "value", "not a finite number, so no statistic can use it",
        "write the number, n/a if there is none",
    )  # fmt: skip
    yield from _cells(
        frame, volumes & units.notna() & ~units.isin(list(VOLUME_UNITS_ML)), name, "unit",
        "unknown unit of a volume", f"write one of {known}",
    )  # fmt: skip
    yield from _cells(
        frame, volumes & ~signed & (ml < 0), name, "value", "a volume cannot be negative",
        "correct the value",
    )  # fmt: skip
    yield from _cells(
        frame, volumes & (ml.abs() > LARGEST_LESION_ML), name, "value",
        lambda line: f"{ml[line]:.0f} mL is more than a brain holds (is it in mm3?)",
        "check the unit; write mm3 in the column unit if so", "warning",
    )  # fmt: skip
    yield from _scales(frame, "endpoint", read, name)
    yield from _unit_mixup(frame.assign(_ml=ml.where(volumes)), name, source_column)


def _cells(
    frame: pd.DataFrame,
    where: pd.Series,
    name: str,
    column: str,
    message: str | Callable[[Any], str],
    remedy: str,
    severity: str = "error",
) -> Iterator[Finding]:
    """A finding for each of the first rows that have a fault; a message may differ by line."""
    for line in frame.index[where.fillna(False).astype(bool)][:MANY]:
        words = message if isinstance(message, str) else message(line)
        value = frame.loc[line, column]
        yield at(name, _line(frame, line), column, value, words, remedy, severity)


def _scales(frame: pd.DataFrame, column: str, read: pd.Series, name: str) -> Iterator[Finding]:
    """Values outside the scale of their endpoint or outcome."""
    for scale, (low, high) in SCALES.items():
        hit = frame[column].str.lower().eq(scale) & ((read < low) | (read > high))
        message = f"{scale} runs from {low} to {high}"
        yield from _cells(frame, hit, name, "value", message, "correct the value")


def _is_nan(cells: pd.Series) -> pd.Series:
    """Cells that say NaN or infinity in words: numbers for a parser, none for a statistic."""
    text = cells.astype("string").str.strip().str.lower().str.lstrip("+-")
    return text.isin(["nan", "inf", "infinity"]).fillna(False).astype(bool)


def _grades(
    frame: pd.DataFrame, name: str, grades: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Grades in words that the config does not list."""
    for line, endpoint, value in zip(frame.index, frame["endpoint"], frame["value"], strict=True):
        if value is not None and value not in grades[endpoint]:
            known = ", ".join(grades[endpoint])
            message = f"no grade of {endpoint}"
            remedy = f"write one of {known}, or list it in the config under grades"
            yield at(name, _line(frame, line), "value", value, message, remedy)


def _line(frame: pd.DataFrame, label: Any) -> int:
    return int(frame.loc[label, "_line"]) if "_line" in frame else int(label)


def _unit_mixup(frame: pd.DataFrame, name: str, source_column: str) -> Iterator[Finding]:
    """A source whose volumes are about 1000 times those of the others has its units mixed up."""
    if source_column not in frame or "participant_id" not in frame:
        return
    rows = frame[frame["_ml"] > 0]
    keys = [c for c in ("participant_id", "visit", "endpoint") if c in rows]
    for source in rows[source_column].dropna().unique():
        own = rows[rows[source_column] == source].groupby(keys)["_ml"].median()
        others = rows[rows[source_column] != source].groupby(keys)["_ml"].median()
        both = pd.concat([own, others], axis=1, join="inner", keys=["own", "others"])
        if len(both) < 3:
            continue
        factor = float(np.exp(np.median(np.log(both["own"] / both["others"]))))
        if 300 < factor < 3000:
            message = (
                f"the volumes of {source} are about {factor:.0f} times those of the other "
                f"sources in {len(both)} cases: mm3 read as mL"
            )
            remedy = "write mm3 in the column unit of these rows"
            yield at(name, None, "unit", source, message, remedy)


def _readers(frame: pd.DataFrame, name: str) -> Iterator[Finding]:
    forms: dict[str, str] = {}
    for reader in sorted(frame["reader"].dropna().unique()):
        plain = "".join(c for c in reader.casefold() if c.isalnum()).replace("0", "")
        if plain in forms:
            message = (
                f"looks like the reader '{forms[plain]}' written otherwise: they would be "
                "treated as two readers"
            )
            yield at(name, None, "reader", reader, message, "write one form of the id", "warning")
        forms.setdefault(plain, reader)


def _events(frame: pd.DataFrame, name: str) -> Iterator[Finding]:
    if not {"endpoint", "time_days", "participant_id"} <= set(frame.columns):
        return
    times = numbers(frame["time_days"])
    if "last_free_days" in frame:
        for line in frame.index[numbers(frame["last_free_days"]) > times]:
            message = f"the last visit without the event is after the event (day {times[line]:g})"
            yield at(
                name,
                line,
                "last_free_days",
                frame.loc[line, "last_free_days"],
                message,
                "correct one of the days",
            )
    survival = frame["endpoint"].str.lower() == "os"
    ends = times[survival].groupby(frame.loc[survival, "participant_id"]).max()
    for line in frame.index[frame["endpoint"].str.lower() == "pfs"]:
        end = ends.get(frame.loc[line, "participant_id"])
        if end is not None and times[line] > end:
            message = f"progression-free survival is longer than survival ({end:g} days)"
            yield at(
                name,
                line,
                "time_days",
                frame.loc[line, "time_days"],
                message,
                "correct one of the times",
            )


def phantom_findings(rows: Sequence[InsertRow], name: str) -> list[Finding]:
    """What is wrong with the phantoms sheet across its rows and with its files."""
    found: list[Finding] = []
    if not rows:
        return found

    def add(severity: str, row: InsertRow, column: str, message: str, remedy: str) -> None:
        value = getattr(row, column)
        shown = None if value is None else str(value)
        found.append(at(name, row.line, column, shown, message, remedy, severity))

    for role in ("infarct", "haemorrhage"):
        if not any(row.role == role and row.certified_value is not None for row in rows):
            message = f"no insert with a certified value stands for {role}: both are required"
            remedy = f"give an insert the role {role} and its certified value"
            found.append(at(name, None, "role", None, message, remedy))
    seen: dict[tuple[Any, ...], int] = {}
    for row in rows:
        key = tuple(
            getattr(row, k) for k in ("site", "scanner", "acquired_at", "kind", "unit", "insert")
        )
        if key in seen:
            message = f"the insert is listed twice for one scan (first in row {seen[key]})"
            add("error", row, "insert", message, "keep one of the rows, or correct acquired_at")
        seen.setdefault(key, row.line)
        volume = row.unit in VOLUME_UNITS_ML
        if row.path and not row.mask_path:
            remedy = "fill in mask_path (and label_values, for a mask of several inserts)"
            add("error", row, "mask_path", "an image without a mask of its insert", remedy)
        measurable = row.path or (row.mask_path and volume)
        if not measurable and row.measured_value is None:
            message = "neither an image nor a measured value: nothing can be compared"
            add("error", row, "path", message, "fill in path and mask_path, or measured_value")
        if row.simulated:
            continue
        for column in ("path", "mask_path"):
            path = getattr(row, column)
            if path and not Path(path).is_file():
                message = "the file is missing; the insert will have no value"
                add("warning", row, column, message, "correct the path")
    return found


def _shown_by(config: Config) -> dict[str, tuple[str, ...]]:
    """Label -> kinds of scan that can show it, with those that the study allows besides."""
    given = config.measurement.shown_by
    return {label: (*kinds, *given.get(label, ())) for label, kinds in SHOWN_BY.items()}


def _drawn_on(scans: Sequence[ScanRow], config: Config, name: str) -> Iterator[Finding]:
    """Masks drawn on scans that cannot show what they outline."""
    shown_by = _shown_by(config)
    kinds: dict[tuple[str, str], set[str]] = {}
    for row in scans:
        if not row.kind.startswith("mask-") and row.kind != "aif":
            kinds.setdefault(row.key, set()).add(row.kind)
    for row in scans:
        label = row.kind.removeprefix("mask-")
        there = kinds.get(row.key, set())
        if label == row.kind or label not in shown_by or row.space == "MNI152":
            continue
        if not there or "dicom" in there or there & set(shown_by[label]):
            continue
        message = f"{_cannot_show(label, there, shown_by)}, so the mask cannot be what it says"
        remedy = (
            f"list the scan that the mask was drawn on, correct the kind, or name the kind under "
            f"measurement.shown_by.{label} if the charter allows it"
        )
        yield at(name, row.line, "kind", row.kind, message, remedy)


def _cannot_show(label: str, there: Iterable[str], shown_by: Mapping[str, tuple[str, ...]]) -> str:
    able = ", ".join(dict.fromkeys(shown_by[label]))
    return f"{', '.join(sorted(there))} cannot show {label} ({able} can)"


def _asked_of(
    config: Config,
    sheets: Mapping[str, pd.DataFrame],
    scans: Sequence[ScanRow],
) -> Iterator[Finding]:
    """Endpoints that the plan asks of scans that cannot show them."""
    shown_by = _shown_by(config)
    images = {row.kind for row in scans if not row.kind.startswith("mask-")} - {"aif"}
    supplied = {row.kind.removeprefix("mask-") for row in scans} - images
    read: set[str] = set()
    for sheet in ("reads", "measurements"):
        frame = sheets.get(sheet)
        if frame is not None and "endpoint" in frame:
            read |= set(frame["endpoint"].dropna())
    given = read | supplied
    for number, analysis in enumerate(config.analyses):
        for key, source_key in (("endpoint", "source"), ("endpoint_y", "source_y")):
            sources = _texts(analysis.get(source_key) or analysis.get("sources"))
            for endpoint in _texts(analysis.get(key)):
                label = ENDPOINT_LABELS.get(endpoint)
                if label is None:
                    continue
                unable = _unable(sources, shown_by[label], images, bool({endpoint, label} & given))
                if unable:
                    able = ", ".join(dict.fromkeys(shown_by[label]))
                    message = f"asked of {', '.join(sorted(unable))}, which cannot show {label}"
                    remedy = f"list scans that can ({able}), or name another source or endpoint"
                    yield in_config(f"analyses.{number}.{key}", endpoint, message, remedy)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(one) for one in value or ()]


def _unable(sources: Sequence[str], able: Sequence[str], images: set[str], given: bool) -> set[str]:
    """Kinds that an endpoint is asked of and that cannot show it; empty where all is well."""
    for source in sources:
        variant = source.removeprefix("pipeline:")
        kind = next((kind for kind in IMAGE_WORDS if kind.casefold() == variant), None)
        if variant != source and kind is not None and kind not in able:
            return {kind}
    asked = "pipeline" in sources or not (sources or given)
    # What a DICOM folder holds is known only when it is read.
    known = bool(images) and "dicom" not in images
    return images if asked and known and not images & set(able) else set()


def _trial_criteria(
    config: Config,
    sheets: Mapping[str, pd.DataFrame],
    scans: Sequence[ScanRow],
) -> Iterator[Finding]:
    """Visits, kinds and columns of ``acquisition.trial`` that the sheets do not have."""
    trial = config.acquisition.trial
    visits = {row.visit for row in scans} | set(config.visits.order)
    for block, named in (("windows", trial.windows), ("complete", trial.complete)):
        for visit in named or ():
            if visit not in visits:
                message = "no such visit, so nothing would be checked"
                remedy = "known visits: " + ", ".join(sorted(visits))
                yield in_config(f"acquisition.trial.{block}.{visit}", visit, message, remedy)
    timed = trial.imaging_to_treatment_minutes_max is not None
    wanted = {
        "day_zero_column": trial.day_zero_column,
        "treated_at_column": trial.treated_at if timed else None,
    }
    columns = set(sheets.get("participants", pd.DataFrame()).columns)
    for key, column in wanted.items():
        if column and column not in columns:
            message = "no such column in the participants sheet"
            remedy = "add it, with times in ISO 8601"
            yield in_config(f"acquisition.trial.{key}", column, message, remedy)


def _panel(frame: pd.DataFrame, name: str, panel: Panel) -> Iterator[Finding]:
    """Events on which a panel of assessors differs without a consensus."""
    if not panel.assessors or not {"participant_id", "endpoint", "assessor"} <= set(frame):
        return
    for event in final_assessments(frame, panel)[1]:
        message = f"{event.endpoint}: {event.reason}"
        remedy = f"add the row of {panel.consensus}, or correct the assessors' rows"
        yield at(name, event.line, "assessor", event.participant_id, message, remedy)


def _frequency_maps(config: Config, sheets: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    """Ids of frequency maps, and what they compare."""
    people = sheets.get("participants", pd.DataFrame())
    models = {a["id"] for a in config.analyses if a["type"] == "radiomics" and a.get("model")}
    seen: set[str] = set()
    for number, entry in enumerate(config.measurement.frequency_maps):
        where = f"measurement.frequency_maps.{number}"
        compare = entry.compare or "visit"
        kind, _, name = compare.partition(":")
        problem = None
        if entry.id in seen:
            problem = ("id", entry.id, "another map has this id", "rename one of them")
        elif kind == "risk" and name not in models:
            known = ", ".join(sorted(models)) or "none"
            remedy = f"radiomics analyses with a model: {known}"
            problem = ("compare", compare, "no radiomics analysis with a model", remedy)
        elif kind not in ("visit", "risk") and compare not in people.columns:
            remedy = "visit, risk:<analysis> or a column: " + ", ".join(map(str, people.columns))
            problem = ("compare", compare, "no such column in the participants sheet", remedy)
        seen.add(entry.id)
        if problem:
            key, value, message, remedy = problem
            yield in_config(f"{where}.{key}", value, message, remedy)


def _columns_of(analysis: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if analysis["type"] in {"agreement", "overlap"} and analysis.get("cluster", "none") != "none":
        yield "cluster", analysis["cluster"]
    for key in ("by", "dose"):
        if analysis.get(key):
            yield key, analysis[key]
    stratified = analysis["type"] in {"survival", "comparison"}
    keys = ("covariates", "auxiliary", "subgroups", *["strata"] * stratified)
    for key in keys:
        for column in listed(analysis.get(key)):
            yield key, column


def _with_possible_flags(
    config: Config, sheets: Mapping[str, pd.DataFrame], expressions: Iterable[str | None]
) -> pd.DataFrame:
    """Participants with every status flag that expressions name and the study may have, empty."""
    participants = sheets.get("participants", pd.DataFrame())
    wanted = set().union(*map(names_in, expressions)) - set(participants.columns)
    if not wanted:
        return participants
    visits, endpoints = set(config.visits.order), set(ENDPOINT_UNITS)
    for frame in sheets.values():
        visits |= set(frame["visit"].dropna()) if "visit" in frame else set()
        endpoints |= set(frame["endpoint"].dropna()) if "endpoint" in frame else set()
    visits |= {"all", *window_names(config.serial_imaging)}
    possible = {flag_name(e, v) for e in endpoints for v in visits}
    possible |= {f"has_{name}" for name in possible}
    return participants.assign(**dict.fromkeys(sorted(wanted & possible)))


def _flows(config: Config, sheets: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    """Criteria that cannot be read, and flows that refer to missing flows."""
    flows = config.cohort_flows
    criteria = [one.exclude for flow in flows for one in flow.criteria or ()]
    participants = _with_possible_flags(config, sheets, criteria)
    names: list[str] = []
    for number, flow in enumerate(flows):
        where = f"cohort_flows.{number}"
        for place, one in enumerate(flow.criteria or ()):
            key = f"{where}.criteria.{place}.exclude"
            yield from _expression(key, one.exclude, participants)
        others = [*(flow.pooled or ()), *([flow.subsets.flow] if flow.subsets else [])]
        for other in [name for name in others if name not in names]:
            message = "no flow of this name stands before"
            yield in_config(where, other, message, "put that flow first, or correct the name")
        if flow.name in names:
            message = "two flows share this name"
            yield in_config(f"{where}.name", flow.name, message, "rename one of them")
        names.append(flow.name)


def _expression(key: str, expression: str | None, table: pd.DataFrame) -> Iterator[Finding]:
    try:
        select(expression, table)
    except ExpressionError as error:
        yield in_config(key, expression, str(error), "correct the expression")


def _numbers_of_plan(
    analysis: Mapping[str, Any], sheets: Mapping[str, pd.DataFrame], sheet_name: str
) -> Iterator[Finding]:
    """Cells of participants columns that a planned analysis needs as numbers and that are none."""
    participants = sheets.get("participants", pd.DataFrame())
    labels = LABEL_COLUMNS | set(analysis.get("categorical") or [])
    wanted = {name: "covariates" for name in analysis.get("covariates", []) if name not in labels}
    if isinstance(analysis.get("dose"), str):
        wanted[analysis["dose"]] = "dose"
    for key, sheet in (("outcome", "outcomes"), ("exposure", "exposures")):
        frame, name = sheets.get(sheet), analysis.get(key)
        if name and not (frame is not None and key in frame and (frame[key] == name).any()):
            wanted[name] = key
    for name, key in wanted.items():
        if name not in participants:
            continue
        cells, capped = participants[name], name in CAPPED_COLUMNS
        if key == "covariates":
            odd = odd_cells(cells, capped=capped)
            remedy = (
                f"write a number or n/a; or list {name} under categorical in the analysis, if its "
                "values are labels"
            )
        else:
            present = cells[~cells.map(is_missing)]
            odd = present[numbers(present, capped=capped).isna()]
            remedy = "write a number (a grade, the limit of quantification), n/a if there is none"
        for line, value in odd.head(MANY).items():
            message = f"not a number, and the analysis {analysis['id']} needs one ({key})"
            yield at(sheet_name, line, name, value, message, remedy)


def _levels_of_plan(
    analysis: Mapping[str, Any], participants: pd.DataFrame
) -> Iterator[tuple[str, str, str, str]]:
    """Levels that the plan names and no participant has: key, value, message and remedy.

    YAML reads a code without quotes as a number and drops its zeros (01 is 1, 010 even 8).
    """
    named = [("reference", analysis.get("by"), analysis.get("reference"))]
    named += [
        (f"reference_levels.{column}", column, value)
        for column, value in (analysis.get("reference_levels") or {}).items()
    ]
    for key, column, value in named:
        if value is None or column not in participants:
            continue
        cells = participants[column]
        levels = sorted(set(cells[~cells.map(is_missing)].map(level_text)))
        number = isinstance(value, (int, float))
        # With codes such as 012 in the column nobody knows what a number was before YAML read it.
        padded = number and any(re.match(r"0\d", level) for level in levels)
        if not levels or (level_text(value) in levels and not padded):
            continue
        shown = ", ".join(levels[:10]) + ", ..." * (len(levels) > 10)
        if number:
            yield (
                key,
                str(value),
                f"YAML reads what is written here as the number {value}, which drops zeros in "
                f"front; {column} has other codes",
                f"put the code in quotes, as the sheet has it: {shown}",
            )
        else:
            close = difflib.get_close_matches(str(value), levels, n=1)
            remedy = f"did you mean '{close[0]}'?" if close else f"known: {shown}"
            yield key, str(value), f"no participant has this {column}", remedy


def _plan(
    config: Config, sheets: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> Iterator[Finding]:
    grids = [a.get("sensitivity", {}).get("population", []) for a in config.analyses]
    participants = _with_possible_flags(
        config,
        sheets,
        [*(a.get("population") for a in config.analyses), *(p for grid in grids for p in grid)],
    )
    seen: set[str] = set()
    for number, analysis in enumerate(config.analyses):
        where = f"analyses.{number}"

        def wrong(key: str, value: str, message: str, remedy: str, where: str = where) -> Finding:
            return in_config(f"{where}.{key}", value, message, remedy)

        if analysis["id"] in seen:
            yield wrong("id", analysis["id"], "another analysis has this id", "rename one of them")
        seen.add(analysis["id"])
        for key, message, remedy in unread(analysis, config.grades):
            yield wrong(key, str(analysis[key]), message, remedy)
        for key, expression in (
            ("population", analysis.get("population")),
            *(("sensitivity.population", e) for e in grids[number]),
        ):
            yield from _expression(f"{where}.{key}", expression, participants)
        yield from _numbers_of_plan(analysis, sheets, names.get("participants", "participants"))
        for key, column in _columns_of(analysis) if "participant_id" in participants else ():
            # Baseline of the endpoint is a covariate of its own kind.
            if column not in participants.columns and column != "baseline":
                message = "no such column in the participants sheet"
                known_columns = ", ".join(map(str, participants.columns))
                yield wrong(key, column, message, f"known columns: {known_columns}")
        for problem in _levels_of_plan(analysis, participants):
            yield wrong(*problem)
        for key, sheet, column in (
            ("outcome", "outcomes", "outcome"),
            ("exposure", "exposures", "exposure"),
            ("event_endpoint", "events", "endpoint"),
        ):
            name, frame = analysis.get(key), sheets.get(sheet)
            known = set(frame[column].dropna()) if frame is not None and column in frame else set()
            of_people = sheet != "events"
            if not name or name in known or (of_people and name in participants.columns):
                continue
            message = f"not in the {sheet} sheet"
            if of_people:
                message = f"neither in the {sheet} sheet nor a participants column"
            remedy = f"give a sheet in inputs.{sheet}"
            yield wrong(
                key, name, message, f"known: {', '.join(sorted(known))}" * bool(known) or remedy
            )
    published = sheets.get("published")
    if published is not None and "analysis_id" in published:
        for line, name in published["analysis_id"].dropna().items():
            if name not in seen | PUBLISHED_BESIDES:
                message = "the plan has no such analysis"
                remedy = "correct the id, or add the analysis"
                yield at("published", line, "analysis_id", name, message, remedy)


def _subjects(config: Config, scans: Sequence[ScanRow]) -> Iterator[Finding]:
    """Participants chosen for the noise floor or the target recovery who have no scans."""
    known = {scan.participant_id for scan in scans}
    for block in ("noise_floor", "recovery"):
        for number, subject in enumerate(getattr(config, block).subjects):
            if subject not in known:
                message = "no participant with scans has this id"
                remedy = "name participants of the scans sheet"
                yield in_config(f"{block}.subjects.{number}", subject, message, remedy)


def _files(config: Config) -> Iterator[Finding]:
    """Files of atlases and of lesion shapes that are missing, and names and shapes that clash."""
    phantom, shapes = config.phantom, {"recovery": config.recovery.shapes}
    if phantom and phantom.shapes and phantom.trial != "stroke":
        message = f"the trial {phantom.trial} has no infarcts that could take a shape"
        remedy = "leave the key out, or choose the trial stroke"
        yield in_config("phantom.shapes", ", ".join(phantom.shapes), message, remedy)
    if phantom:
        shapes["phantom"] = phantom.shapes
    files = {
        f"{block}.shapes.{number}": path
        for block, paths in shapes.items()
        for number, path in enumerate(paths)
        if (block, path) != ("phantom", "model")
    }
    names = [atlas.name for atlas in config.atlases]
    for number, atlas in enumerate(config.atlases):
        if names.count(atlas.name) > 1:
            message = "two atlases share this name"
            yield in_config(f"atlases.{number}.name", atlas.name, message, "rename one of them")
        files |= {f"atlases.{number}.path": atlas.path, f"atlases.{number}.labels": atlas.labels}
    for key, path in files.items():
        if not Path(path).expanduser().is_file():
            yield in_config(key, path, "the file is missing", "correct the path")


def cross_findings(
    config: Config,
    sheets: Mapping[str, pd.DataFrame],
    scans: Sequence[ScanRow],
    names: Mapping[str, str],
) -> list[Finding]:
    """Everything that is wrong between rows and between sheets.

    ``sheets`` by name, indexed by line number; ``names``: sheet -> file name for the findings.
    """
    found = list(_people(sheets, names))
    found += _look_alikes(sheets)
    found += _scans(scans, names.get("scans", "scans"))
    found += _visits(config, sheets, scans, names)
    found += _repeated_values(sheets, names)
    if "measurements" in sheets:
        name = names.get("measurements[0]", "measurements")
        found += _repeated_measurements(sheets["measurements"])
        found += _values(sheets["measurements"], name, "source", config.grades)
    for kind in ("reads", "rereads"):
        reads = sheets.get(kind)
        if reads is not None and {"reader", "endpoint", "value"} <= set(reads.columns):
            found += _values(reads, names[kind], "reader", config.grades)
            found += _readers(reads, names[kind])
    found += central_findings(config, sheets, names)
    if "outcomes" in sheets:
        found += _outcomes(sheets["outcomes"], names["outcomes"])
    if "events" in sheets:
        found += _events(sheets["events"], names["events"])
        found += _panel(sheets["events"], names["events"], config.reading.panel)
    found += _drawn_on(scans, config, names.get("scans", "scans"))
    found += _asked_of(config, sheets, scans)
    found += _trial_criteria(config, sheets, scans)
    found += _plan(config, sheets, names)
    found += _flows(config, sheets)
    found += _frequency_maps(config, sheets)
    found += _subjects(config, scans)
    found += _files(config)
    return found


def _people(sheets: Mapping[str, pd.DataFrame], names: Mapping[str, str]) -> Iterator[Finding]:
    """Participants among themselves, and ids that one sheet has and another lacks."""
    participants = sheets.get("participants")
    if participants is None or "participant_id" not in participants:
        return
    yield from _participants(participants, names["participants"])
    known = set(participants["participant_id"].dropna())
    others = {
        name: frame
        for name, frame in sheets.items()
        if name not in {"participants", "published", "phantoms", "reference_cases"}
        and "participant_id" in frame
    }
    for name, frame in others.items():
        if name == "measurements":
            for sheet, rows in frame.groupby("_sheet", sort=False):
                yield from _unlisted(rows.set_index("_line"), str(sheet), known)
        else:
            yield from _unlisted(frame, names[name], known)
    with_data = {one for frame in others.values() for one in frame["participant_id"].dropna()}
    bare = sorted(known - with_data)
    if bare and others:
        shown = ", ".join(bare[:5]) + (" ..." if len(bare) > 5 else "")
        message = f"{len(bare)} participants have no row in any other sheet"
        remedy = "nothing to do if they were never scanned"
        name = names["participants"]
        yield at(name, None, "participant_id", shown, message, remedy, "note")


def _visits(
    config: Config,
    sheets: Mapping[str, pd.DataFrame],
    scans: Sequence[ScanRow],
    names: Mapping[str, str],
) -> Iterator[Finding]:
    order = config.visits.order
    baseline = config.visits.baseline or (order[0] if order else None)
    yield from _times(scans, baseline, names.get("scans", "scans"))
    message = "the visit is not in visits.order; it is put last"
    for name in ("scans", "reads", "measurements") if order else ():
        frame = sheets.get(name)
        if frame is not None and "visit" in frame:
            for visit in sorted(set(frame["visit"].dropna()) - set(order)):
                sheet = names.get(name, name)
                remedy = "add it there, or correct the name"
                yield at(sheet, None, "visit", visit, message, remedy, "warning")


def _repeated_values(
    sheets: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> Iterator[Finding]:
    keys = {
        "reads": ["participant_id", "visit", "endpoint", "reader", "repeat"],
        "rereads": ["participant_id", "visit", "endpoint", "reader", "repeat"],
        "outcomes": ["participant_id", "visit", "outcome"],
        "exposures": ["participant_id", "visit", "exposure"],
        "events": ["participant_id", "endpoint", "criterion", "assessor"],
    }
    for name, key in keys.items():
        frame = sheets.get(name)
        if frame is None or "participant_id" not in frame:
            continue
        if "repeat" in key:
            repeat = frame.get("repeat")
            frame = frame.assign(repeat="1" if repeat is None else repeat.fillna("1"))
        yield from doubled(frame, key, names[name], "the same value is given twice")


def _repeated_measurements(frame: pd.DataFrame) -> Iterator[Finding]:
    if not {"participant_id", "endpoint", "source"} <= set(frame.columns):
        return
    key = ["participant_id", "visit", "endpoint", "source", "repeat", "region"]
    filled = frame.reindex(columns=[*key, "_sheet", "_line"])
    filled = filled.fillna({"visit": "all", "repeat": "1", "region": "all"})
    message = "the same value is given twice; duplicates are never averaged"
    remedy = "keep one of the rows, or number them in the column repeat"
    for row in filled[filled.duplicated(key)].head(MANY).to_dict("records"):
        shown = ", ".join(f"{c}={row[c]}" for c in key)
        sheet, line = str(row["_sheet"]), int(row["_line"])
        yield at(sheet, line, "participant_id", shown, message, remedy)


def _outcomes(frame: pd.DataFrame, name: str) -> Iterator[Finding]:
    if not {"outcome", "value"} <= set(frame.columns):
        return
    yield from _scales(frame, "outcome", numbers(frame["value"]), name)
