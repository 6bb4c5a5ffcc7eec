"""What a report is made from: the tables and records of one study's results folder.

Absent files give empty tables: a study with tables only has no images, one without a plan has no
statistics, and the report says so instead of failing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pandas as pd

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics.exclusion_sensitivity import EXCLUSIONS, SENSITIVITY
from corelab.provenance.certificate import CERTIFICATE
from corelab.provenance.exhibits import Exhibit, read_exhibits
from corelab.provenance.products import read_json, read_table
from corelab.records.images import Prepared, Scan, Segmented
from corelab.records.perfusion import Gate, Perfused
from corelab.records.subjects import Normalised
from corelab.records.visits import VisitMask, visit_masks
from corelab.settings.analyses import STATISTICS_TABLES, specs_of
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.config import Config
from corelab.settings.study import StudySettings
from corelab.study.columns import (
    ACQUISITION,
    FINDINGS,
    FLOW,
    MEASUREMENTS,
    OVERLAP,
    STATISTICS,
    STATISTICS_NUMBERS,
)
from corelab.study.mask_flags import FLAGS
from corelab.study.naming import subject_entity
from corelab.study.schema import shown_columns

#: Pages of subjects at most, so that a study of tables alone does not write tens of thousands.
MAX_SUBJECT_PAGES = 1000
NOT_COMPUTABLE = "not_computable"
#: Columns of the table of what does not conform in the submission.
CONFORMANCE = {
    "severity": "error, warning or note",
    "dataset": "Data set",
    "variable": "Variable",
    "rule": "What is checked",
    "value": "What was found",
    "records": "Number of records concerned",
}
_WITH_AND_WITHOUT = (
    *("estimate", "ci_low", "ci_high", "n"),
    *("estimate_without", "ci_low_without", "ci_high_without", "n_without", "difference"),
)


def empty_table(columns: Iterable[str]) -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})


def _table(path: Path, columns: Mapping[str, str], numeric: Sequence[str] = ()) -> pd.DataFrame:
    if not path.is_file():
        return empty_table(columns).astype(dict.fromkeys(numeric, float))
    frame = read_table(path, numeric=numeric)
    for name in columns:
        if name not in frame:
            frame[name] = math.nan if name in numeric else None
    return frame


#: Kind of a stage's record, and what a function makes of results.
_Kind = TypeVar("_Kind", Prepared, Segmented, Perfused, Normalised)
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Visit:
    """The stage records of one visit; a stage that did not run is None."""

    participant_id: str
    visit: str
    prepare: Prepared | None = None
    segment: Segmented | None = None
    perfuse: Perfused | None = None

    @cached_property
    def masks(self) -> tuple[VisitMask, ...]:
        """Native masks of the visit that can be drawn, those of the pipeline first."""
        found = visit_masks(
            *(self.prepare, self.segment, self.perfuse), space="native", usable=True
        )
        return tuple(sorted(found, key=lambda mask: mask.origin == Prepared.stage))

    @property
    def scans(self) -> tuple[Scan, ...]:
        """Scans of the visit as the prepare stage recorded them."""
        return self.prepare.scans if self.prepare else ()

    @property
    def faults(self) -> list[tuple[str, str]]:
        """(what, reason) of each stage, scan or mask that failed."""
        stages = [one for one in (self.prepare, self.perfuse) if one is not None]
        masks = visit_masks(None, self.segment, self.perfuse)
        failed = [(f"stage {one.stage}", one) for one in stages if one.status == "failed"]
        found = [(what, one.reason or "") for what, one in failed]
        found += [(f"scan {s.kind}", s.reason or "") for s in self.scans if s.status == "failed"]
        found += [(f"mask {m.label}", m.reason or "") for m in masks if m.status == "failed"]
        return found

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Quality gates of the perfusion series."""
        return self.perfuse.gates if self.perfuse else ()


@dataclass(frozen=True)
class FrequencyMap:
    """A lesion frequency map and its sidecar."""

    label: str
    path: Path
    sidecar: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Results:
    """All content of the report of one study.

    Attributes
    ----------
    folder
        ``results/<study>``.
    settings
        The resolved config.
    tables
        What the analyses saw; measurements with float64 ``value``.
    acquisition, flow, overlap, findings
        Empty frames where the file is missing.
    statistics
        Table name -> frame with float64 numbers.
    certificate
        None where nothing published is to be reproduced.
    visits
        Stage records, by subject and visit order.
    normalised
        Subject -> record of the normalisation to MNI.
    maps
        Lesion frequency maps.
    exhibits
        Figures, tables and alerts of other packages.
    sensitivity, exclusions
        Statistics and values with and without the exclusions of the review desk.
    conformance
        What does not conform in the submission's data sets; empty where they were not written.
    conformance_known
        Whether they were written and checked.
    codes
        Arm -> code of a blinded study; empty otherwise.
    """

    folder: Path
    settings: Config
    tables: Tables
    acquisition: pd.DataFrame
    flow: pd.DataFrame
    overlap: pd.DataFrame
    statistics: dict[str, pd.DataFrame]
    findings: pd.DataFrame
    certificate: pd.DataFrame | None
    visits: tuple[Visit, ...]
    normalised: dict[str, Normalised]
    maps: tuple[FrequencyMap, ...]
    exhibits: tuple[Exhibit, ...] = ()
    sensitivity: pd.DataFrame = field(default_factory=pd.DataFrame)
    exclusions: pd.DataFrame = field(default_factory=pd.DataFrame)
    conformance: pd.DataFrame = field(default_factory=pd.DataFrame)
    conformance_known: bool = False
    codes: Mapping[str, str] = field(default_factory=dict)

    @property
    def participants(self) -> pd.DataFrame:
        """Participants sheet."""
        return self.tables.participants

    @property
    def measurements(self) -> pd.DataFrame:
        """Rows of measurements.tsv."""
        return self.tables.measurements

    @property
    def study(self) -> StudySettings:
        """The ``study`` block of the config."""
        return self.settings.study

    @property
    def title(self) -> str:
        """Title of the study, else its id."""
        return self.study.title or self.study.id

    @cached_property
    def analyses(self) -> list[AnalysisSpec]:
        """The plan."""
        return specs_of(self.settings)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the plan."""
        return self.settings.plan_fingerprint

    @cached_property
    def all_statistics(self) -> pd.DataFrame:
        """All statistics rows with their table's name in ``table``."""
        frames = [frame.assign(table=name) for name, frame in self.statistics.items() if len(frame)]
        if not frames:
            return pd.DataFrame(columns=[*STATISTICS, "table"])
        return pd.concat(frames, ignore_index=True)

    def analysis(self, analysis_id: str) -> AnalysisSpec:
        """The plan's entry of an id; an id that is not in the plan is exploratory."""
        for entry in self.analyses:
            if entry.id == analysis_id:
                return entry
        return AnalysisSpec.unchecked(id=analysis_id, type="", objective="exploratory")

    def statistics_of(self, analysis_id: str) -> pd.DataFrame:
        """Statistics rows of one analysis, without its per-subject rows."""
        rows = self.all_statistics
        return rows[(rows["analysis_id"] == analysis_id) & (rows["participant_id"] == "all")]

    @cached_property
    def image_subjects(self) -> list[str]:
        """Subjects that have stage records."""
        return list(dict.fromkeys(visit.participant_id for visit in self.visits))

    @cached_property
    def _visits(self) -> dict[str, list[Visit]]:
        found: dict[str, list[Visit]] = {}
        for visit in self.visits:
            found.setdefault(visit.participant_id, []).append(visit)
        return found

    def visits_of(self, participant_id: str) -> list[Visit]:
        """Visits of a subject, in study order."""
        return self._visits.get(participant_id, [])

    @cached_property
    def shown_columns(self) -> list[str]:
        """Participants columns that may be shown."""
        return shown_columns(self.settings, list(self.participants.columns))

    def once(self, build: Callable[[Results], _Found]) -> _Found:
        """What a function makes of these results, made once."""
        made = self.__dict__.setdefault("_made", {})
        if build not in made:
            made[build] = build(self)
        return made[build]

    def rows_of(self, table: str, participant_id: str) -> pd.DataFrame:
        """Rows of one subject in ``measurements``, ``acquisition`` or ``overlap``."""
        places = self.__dict__.setdefault("_places", {})
        frame: pd.DataFrame = getattr(self, table)
        if table not in places:
            places[table] = frame.groupby("participant_id", sort=False).indices
        return frame.iloc[places[table].get(participant_id, [])]

    @cached_property
    def subjects(self) -> list[str]:
        """Every subject of the sheet or of the results, in order."""
        listed = [str(p) for p in self.participants["participant_id"]]
        others = {*self.measurements["participant_id"].dropna(), *self.image_subjects}
        return listed + sorted(others - set(listed))

    @cached_property
    def pages(self) -> dict[str, str]:
        """Subject -> address of its page; of very many, those with images have one."""
        names = self.subjects
        if len(names) > MAX_SUBJECT_PAGES:
            images = set(self.image_subjects)
            names = sorted(names, key=lambda name: name not in images)[:MAX_SUBJECT_PAGES]
        return {name: quote(subject_page(name)) for name in names}


def _order_key(order: Sequence[str]) -> Any:
    rank = {visit: number for number, visit in enumerate(order)}
    return lambda visit: (rank.get(visit, len(rank)), visit)


#: Parts of records that only the stages use; rows of acquisition are in the study's table.
_NOT_SHOWN: dict[str, dict[str, Any]] = {
    Prepared.stage: {"acquisition": (), "brain_mask_quality": {}, "transforms": {}},
    Segmented.stage: {},
    Perfused.stage: {"registry": None, "quantities": ()},
    Normalised.stage: {"transforms": {}},
}


def _whole_records(kind: type[_Kind], paths: Iterable[Path]) -> Iterator[_Kind]:
    """Records that can be read; a damaged one is none, and ``status`` names it."""
    for path in sorted(paths):
        try:
            record = kind.read(path)
        except ValueError:
            continue
        # Held for every visit of the study: without what no page shows.
        yield replace(record, products=None, **_NOT_SHOWN[record.stage], **_shown_parts(record))


#: Of a scan's metadata and of a mask's quality, what pages show.
_METADATA = frozenset({"acquired_at"})
_QUALITY = frozenset({"flags", *(flag.figure for flag in FLAGS.values() if flag.figure)})


def _shown_parts(record: Prepared | Segmented | Perfused | Normalised) -> dict[str, Any]:
    """Scans or masks of a record with what pages show of them."""

    def some(found: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
        return {name: value for name, value in found.items() if name in names}

    if isinstance(record, Prepared):
        scans = (replace(scan, metadata=some(scan.metadata, _METADATA)) for scan in record.scans)
        return {"scans": tuple(scans)}
    if isinstance(record, (Segmented, Perfused)):
        masks = (replace(mask, quality=some(mask.quality, _QUALITY)) for mask in record.masks)
        return {"masks": tuple(masks)}
    return {}


def read_visits(
    folder: Path, visit_order: Sequence[str] = (), subject: str = "sub-*"
) -> tuple[Visit, ...]:
    """Stage records below ``derivatives/``, by subject and visit order; of one subject entity."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    places = folder / "derivatives"
    records: list[Prepared | Segmented | Perfused] = [
        *_whole_records(Prepared, places.glob(f"{subject}/ses-*/prepare.json")),
        *_whole_records(Segmented, places.glob(f"{subject}/ses-*/segment.json")),
        *_whole_records(Perfused, places.glob(f"{subject}/ses-*/perfuse.json")),
    ]
    for record in records:
        found.setdefault((record.participant_id, record.visit), {})[record.stage] = record
    rank = _order_key(visit_order)
    keys = sorted(found, key=lambda key: (key[0], rank(key[1])))
    return tuple(Visit(pid, visit, **found[pid, visit]) for pid, visit in keys)


def _arm_codes(study: str, participants: pd.DataFrame) -> dict[str, str]:
    """Arm -> code; the order of the codes follows a digest, so that it gives no arm away."""
    if "arm" not in participants:
        return {}
    arms = sorted(
        {str(arm) for arm in participants["arm"].dropna()},
        key=lambda arm: hashlib.sha256(f"{study}|{arm}".encode()).hexdigest(),
    )
    return {arm: f"Group {chr(ord('A') + number % 26)}" for number, arm in enumerate(arms)}


#: Keys whose values are names of ours, independent of the names of arms.
_FIXED = ("id", "type", "better", "strategy", "assumption", "design", "zeros")


def recode(value: Any, codes: Mapping[str, str]) -> Any:
    """Words with codes for arms, however nested; ids and types of analyses stay.

    Examples
    --------
    >>> recode({"id": "high", "by": ["high dose", "highest"]}, {"high": "Group A"})
    {'id': 'high', 'by': ['Group A dose', 'highest']}
    """
    if isinstance(value, str):
        for arm in sorted(codes, key=len, reverse=True):
            value = re.sub(rf"(?<![\w-]){re.escape(arm)}(?![\w-])", codes[arm], value)
        return value
    if isinstance(value, Mapping):
        return {k: v if k in _FIXED else recode(v, codes) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [recode(item, codes) for item in value]
    return value


#: Sections whose exhibits are drawn by arm, in pictures that cannot be recoded.
_BY_ARM = ("participants", "maps", "pharmacodynamics", "survival", "sensitivity")
#: What a plan says of its control arm: with the codes beside it, it would name that arm.
_CONTROL = ("reference", "dose", "exposure")


def gives_arm_away(people: pd.DataFrame, column: str) -> bool:
    """Whether a participants column parts the subjects just as the arms do (a dose, a drug)."""
    if column in ("dose", "arm_description"):
        return True
    if "arm" not in people or column not in people:
        return False
    if column in ("participant_id", "arm") or people["arm"].nunique() < 2:
        return False
    pairs = people[["arm", column]].dropna().astype(str).drop_duplicates()
    return bool(len(pairs) > 1 and pairs["arm"].is_unique and pairs[column].is_unique)


def _blind_exhibits(results: Results, codes: Mapping[str, str]) -> tuple[Exhibit, ...]:
    """Exhibits without an arm: figures of analyses by arm are withheld, words are recoded."""
    kept = []
    for exhibit in results.exhibits:
        section, _, analysis = exhibit.section.partition(":")
        entry = results.analysis(analysis)
        if section in _BY_ARM or (
            analysis
            and (not entry.kind.reliability or "arm" in json.dumps([entry.strata, entry.by]))
        ):
            continue
        words = {
            name: recode(getattr(exhibit, name), codes)
            for name in ("title", "caption", "alt", "banner")
        }
        alarms = tuple(replace(a, text=recode(a.text, codes)) for a in exhibit.alarms)
        kept.append(replace(exhibit, **words, alarms=alarms))
    return tuple(kept)


def blind(results: Results) -> Results:
    """The same results with codes for arms and without what would give them away.

    Doses and drug exposures, and analyses of them, are withheld until the study is unblinded; so
    are figures drawn by arm, the control arm of each analysis, and participants columns that part
    the subjects as the arms do.
    """
    codes = _arm_codes(results.study.id, results.participants)
    people = results.participants
    if "arm" in people:
        texts = [column for column in people if gives_arm_away(people, str(column))]
        people = people.drop(columns=texts).assign(arm=people["arm"].map(codes))
    withheld = {
        entry.id
        for entry in results.analyses
        if entry.type == "dose_response" or entry.dose or entry.exposure
    }

    def recoded(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
        kept = frame[~frame["analysis_id"].isin(withheld)].copy()
        for column in columns:
            kept[column] = kept[column].map(lambda text: recode(text, codes))
        return kept.reset_index(drop=True)

    plan = [
        {
            key: value if entry.choices(key) else recode({key: value}, codes)[key]
            for key, value in entry.as_given().items()
            if key not in _CONTROL
        }
        for entry in results.analyses
    ]
    certificate = results.certificate
    blinded = replace(
        results,
        settings=results.settings.model_copy(update={"analyses": tuple(plan)}),
        tables=replace(results.tables, participants=people, exposures=results.tables.exposures[:0]),
        statistics={
            name: recoded(frame, "group", "population", "note", "method")
            for name, frame in results.statistics.items()
        },
        sensitivity=recoded(results.sensitivity, "group", "method"),
        certificate=None if certificate is None else recoded(certificate, "group", "note"),
        exhibits=_blind_exhibits(results, codes),
        codes=codes,
    )
    # The fingerprint is that of the plan as registered, not of its blinded wording.
    blinded.__dict__["fingerprint"] = results.fingerprint
    return blinded


def read_measurements(folder: Path) -> pd.DataFrame:
    """Rows of ``endpoints/measurements.tsv``, none where it was not written."""
    return _table(folder / "endpoints/measurements.tsv", MEASUREMENTS, ["value"])


def read_results(
    folder: str | Path,
    settings: Config,
    tables: Tables,
    *,
    exhibits: Iterable[str | Path] | None = None,
    conformance: str | Path | None = None,
) -> Results:
    """Read a study's results folder; a blinded study comes with codes for its arms.

    Parameters
    ----------
    folder
        ``<results_dir>/<study.id>``.
    settings
        The resolved config.
    tables
        What the analyses saw.
    exhibits
        Exhibit files of this run; where it is None, all that lie in the folder.
    conformance
        ``submission/datasets/conformance.tsv`` of this run; None where it was not written.

    Returns
    -------
    Results
    """
    root = Path(folder)
    certificate = _table(
        root / "verification/certificate.tsv",
        CERTIFICATE,
        ("recomputed", "difference", "tolerance", "fits_value"),
    )
    maps = []
    # Maps that the config lists have an exhibit of their own.
    listed = [one.id for one in settings.measurement.frequency_maps]
    for path in sorted((root / "maps").glob("*_frequency.nii.gz")):
        if any(path.name.startswith(f"{name}_") for name in listed):
            continue
        sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        maps.append(
            FrequencyMap(
                path.name.removesuffix("_frequency.nii.gz"),
                path,
                read_json(sidecar) if sidecar.is_file() else {},
            )
        )
    normalised = {
        record.participant_id: record
        for record in _whole_records(
            Normalised, (root / "derivatives").glob("sub-*/normalise.json")
        )
    }
    results = Results(
        folder=root,
        settings=settings,
        tables=tables,
        acquisition=_table(root / "endpoints/acquisition.tsv", ACQUISITION),
        flow=_table(root / "endpoints/flow.tsv", FLOW, ["n_in", "n_out", "n_excluded"]),
        overlap=_table(root / "endpoints/overlap.tsv", OVERLAP, ["value"]),
        statistics={
            name: _table(root / f"statistics/{name}.tsv", STATISTICS, STATISTICS_NUMBERS)
            for name in STATISTICS_TABLES
        },
        findings=_table(root / "preflight/findings.tsv", FINDINGS),
        certificate=certificate if len(certificate) else None,
        visits=read_visits(root, tables.visit_order),
        normalised=normalised,
        maps=tuple(maps),
        exhibits=tuple(read_exhibits(root, exhibits)),
        sensitivity=_table(root / "statistics/sensitivity.tsv", SENSITIVITY, _WITH_AND_WITHOUT),
        exclusions=_table(root / "endpoints/exclusions.tsv", EXCLUSIONS, ["value_without"]),
        conformance=_table(Path(conformance or "absent.tsv"), CONFORMANCE, ["records"]),
        conformance_known=conformance is not None and Path(conformance).is_file(),
    )
    return blind(results) if results.study.blinded else results


def subject_page(participant_id: str) -> str:
    """File name of a subject's page.

    Examples
    --------
    >>> subject_page("01"), subject_page("<b>")
    ('sub-01.html', 'sub-+3Cb+3E.html')
    """
    return subject_entity(participant_id) + ".html"


def blinded_page(participant_id: str) -> str:
    """File name of a subject's page for the review desk: without arm, values and results.

    Examples
    --------
    >>> blinded_page("01")
    'blinded-01.html'
    """
    return "blinded-" + subject_page(participant_id).removeprefix("sub-")
