"""The study: config and sheets, as the Snakefile and jobs use them.

It is read and checked by :func:`corelab.study.loading.load_study`. Jobs get the part that they use
(:meth:`Study.part`) as a parameter and read its sheets with :func:`read_study`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.records.images import InsertRow, ScanRow
from corelab.settings.config import Config
from corelab.settings.study import InputSettings
from corelab.study.columns import RADIOMICS_PREFIX, window_names
from corelab.study.findings import Finding, errors
from corelab.study.sheets import read_sheets, scan_rows
from corelab.study.units import unify
from corelab.terms.kinds import IMAGE_KINDS, PERFUSION_KINDS

#: Blocks of the config that every job needs which reads the study.
EVERY_JOB = ("study", "results_dir", "visits", "grades", "recode")


class PartOfConfig(Config):
    """The blocks of a config that a job was given; to read another one is an error.

    Its defaults would be taken for what the study says.

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
        """The part of the study that a job reads, as a parameter of the job for :func:`read_study`.

        It changes with the named blocks alone, so an edit of another block reruns nothing.

        Parameters
        ----------
        blocks
            Keys of the config, besides those that every job needs; resolved, with defaults and
            absolute paths.
        sheets
            Names of sheets; ``covariates`` are joined to the participants.
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
            "folders": [folder and os.fspath(folder) for folder in scan_folders(self.settings)],
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


def visits_in_order(settings: Config, sheets: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """Visits in order: as configured, then in the order of first appearance."""
    order = list(settings.visits.order)
    for name in ("scans", "reads", "outcomes", "measurements", "exposures"):
        frame = sheets.get(name)
        if frame is not None and "visit" in frame:
            order.extend(v for v in frame["visit"].dropna().unique() if v not in order)
    # Windows of serial imaging are visits of the measurements too.
    names = window_names(settings.serial_imaging)
    return (*order, *(name for name in names if name not in order))


def scan_folders(settings: Config) -> tuple[Path | None, Path | None]:
    """Folders of relative paths in the scans sheet: of the data, and of simulated scans."""
    given = settings.data_dir or settings.inputs.data_dir
    simulated = Path(settings.results_dir) / settings.study.id / "phantom"
    return Path(given).expanduser().absolute() if given else None, (
        simulated if settings.phantom else None
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
    sheets, _ = read_sheets(paths, config["recode"])
    scans: list[ScanRow] = []
    if "scans" in sheets:
        data_dir, simulated = (folder and Path(folder) for folder in part["folders"])
        scans = scan_rows(sheets["scans"], paths["scans"], data_dir, simulated)
    list(unify(sheets, {}, part["units"]))
    order = tuple(part["visit_order"])
    return Study(config, sheets, tuple(scans), (), paths, order, part["units"])
