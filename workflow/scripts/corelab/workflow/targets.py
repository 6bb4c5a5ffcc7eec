"""Files of a study in its results folder, and the files that each target consists of."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corelab.measurement.recovery_targets import targets_of
from corelab.provenance.failures import SOURCE_STAGES, by_stage
from corelab.provenance.ledger import invalidated_outputs
from corelab.records.images import ScanRow
from corelab.settings.analyses import STATISTICS_TABLES, specs_of
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.measurement import FrequencyMap
from corelab.study.model import Study
from corelab.study.naming import session_entity, subject_entity
from corelab.study.plan_figures import figure_kinds
from corelab.workflow.cohort import Cohort
from corelab.workflow.costs import (
    MOST_PARTICIPANTS,
    MOST_TOGETHER,
    Limits,
    first_subject,
    takes_long,
)

#: Series and masks of one visit of the simulated glioblastoma trial, which one job writes.
GLIOMA_SCANS = ("T1w", "T1c", "T2w", "FLAIR") + tuple(
    f"mask-{label}_{reader}"
    for label in ("enhancing", "whole-tumour")
    for reader in ("reader-1", "reader-2")
)
#: Reportlets of the central read.
READING = ("standing", "rates", "p_chart", "conduct", "turnaround", "attestations")
#: Stages with one record for all visits of a participant.
_OF_SUBJECTS = ("normalise", "measure")


@dataclass(frozen=True, eq=False)
class Targets:
    """Paths of a study's products, as rules declare them.

    Attributes
    ----------
    study
        The study.
    cohort
        Visits and participants whose images are processed.
    """

    study: Study
    cohort: Cohort

    @functools.cached_property
    def folder(self) -> str:
        """Results folder of the study."""
        return self.study.folder.as_posix()

    def under(self, *parts: str) -> str:
        """A path in the results folder."""
        return "/".join([self.folder, *parts])

    def listed(self, pattern: str, names: Iterable[str]) -> list[str]:
        """A path for each name; ``{}`` in the pattern is the name."""
        return [self.under(pattern.format(name)) for name in names]

    def stage(self, name: str, subject: str, session: str | None = None) -> str:
        """Record of a stage: the declared output of its job; it lists the job's other files."""
        return self.under("derivatives", subject, *([session] if session else []), f"{name}.json")

    def perfused(self, subject: str, session: str) -> list[str]:
        """Record of the perfusion stage, if the visit has perfusion."""
        has = self.cohort.visits[subject, session] in self.study.perfusion_visits
        return [self.stage("perfuse", subject, session)] * has

    def records(self, *names: str) -> list[str]:
        """Stage records of all visits, and of all participants for stages of participants."""
        found: list[str] = []
        for subject, session in self.cohort.visits:
            for name in names:
                if name == "perfuse":
                    found += self.perfused(subject, session)
                elif name not in _OF_SUBJECTS:
                    found.append(self.stage(name, subject, session))
        for name in names:
            if name in _OF_SUBJECTS:
                found += [self.stage(name, subject) for subject in self.cohort.subjects]
        return found

    def subject_records(self, subject: str) -> list[str]:
        """Stage records of all visits of a participant."""
        return [
            record
            for session in map(session_entity, self.cohort.subjects[subject][1])
            for record in (
                self.stage("prepare", subject, session),
                self.stage("segment", subject, session),
                *self.perfused(subject, session),
            )
        ]

    @functools.cached_property
    def batches(self) -> list[str]:
        """Numbers of the batches of supplied masks."""
        return [f"{number:04d}" for number in range(len(self.study.mask_batches))]

    def batch_records(self) -> list[str]:
        """Records of supplied masks of visits without images."""
        return self.listed("endpoints/batches/{}.json", self.batches)

    def measured_records(self) -> list[str]:
        """Records that hold measurement rows."""
        return self.records("measure") + self.batch_records()

    def status_records(self) -> list[str]:
        """Records with the status of scans, masks and registrations."""
        return [
            path for name in SOURCE_STAGES for path in self.records(name)
        ] + self.measured_records()

    def stage_records(self) -> dict[str, list[str]]:
        """Records that the study should have by stage, relative to its folder."""
        return by_stage(self.study.folder, self.status_records())

    @functools.cached_property
    def first(self) -> list[str]:
        """The participant whose images come first, for a first result; none without images."""
        if not self.cohort.subjects:
            return []
        return [first_subject(self.cohort, Limits(self.study, self.cohort).scans_mb)]

    def quality_records(self) -> list[str]:
        """Records of the quality figures; none if the config has figures off."""
        return self.quality_records_of(self.cohort.subjects)

    def quality_records_of(self, subjects: Iterable[str]) -> list[str]:
        """Those of some participants."""
        wanted = self.study.settings.registration.figures
        return [self.stage("quality", subject) for subject in subjects if wanted]

    def noise_repeats(self) -> list[str]:
        """Records of the repeats for computational repeatability; none without chosen subjects."""
        chosen = self.study.settings.noise_floor
        return [
            self.under("noise_floor", f"{subject}_seed-{seed}.json")
            for subject, (name, _) in self.cohort.subjects.items()
            if name in chosen.subjects
            for seed in range(1, chosen.seeds + 1)
        ]

    def planted_records(self) -> list[str]:
        """Records of the visits that lesions are planted into."""
        settings = self.study.settings.recovery
        disease = self.study.settings.study.disease
        found = []
        for key, ids in self.cohort.visits.items():
            kinds = {row.kind for row in self.study.visit_rows(*ids)}
            # The series of a DICOM folder are known once it is prepared.
            served = "dicom" in kinds or targets_of(disease, kinds, settings)
            # A participant who is named gets a row in any case, with the reason.
            if ids[0] in settings.subjects or (served and not settings.subjects):
                found.append(key)
        return [
            self.under("recovery", f"{subject}_{session}.json")
            for subject, session in found[: settings.max_visits]
        ]

    def feature_tables(self) -> list[str]:
        """Feature tables of all visits."""
        return [
            self.under("derivatives", subject_entity(s), session_entity(v), "radiomics.tsv")
            for s, v in self.study.radiomics_visits
        ]

    # Single products

    @functools.cached_property
    def preflight(self) -> list[str]:
        """The passed preflight, which jobs of a study with errors wait for.

        The findings are known while the Snakefile is parsed, so only these studies need it: as an
        input of others it would rerun everything after an edit of a sheet (and as ``ancient()``
        hide that edit for one run).
        """
        return [] if self.study.sound else [self.under("preflight", "passed.json")]

    @functools.cached_property
    def lock(self) -> list[str]:
        """The lock of the reads and its verification, which jobs that use reads wait for."""
        names = ("lock.json", "validity.json")
        return self.listed("reading/{}", names) * self.study.central_read

    @functools.cached_property
    def final_reads(self) -> list[str]:
        """Final reads of the cases and of their second reading."""
        names = ("final_reads.tsv", "rereview_final_reads.tsv")
        return self.listed("reading/{}", names) * self.study.central_read

    @functools.cached_property
    def reading_exhibits(self) -> list[str]:
        """Reportlets of the central read."""
        return self.listed("exhibits/reading_{}.json", READING)

    @functools.cached_property
    def statistics_tables(self) -> list[str]:
        """Tables of all analyses by part of the report."""
        return self.listed("statistics/{}.tsv", STATISTICS_TABLES)

    @functools.cached_property
    def quality(self) -> dict[str, str]:
        """Tables of image quality by site and scanner."""
        names = {
            "summary": "acquisition_summary",
            "charts": "control_charts",
            "requests": "repeat_requests",
            "completeness": "completeness",
            "phantom_verdicts": "phantom_verdicts",
            "phantom_sites": "phantom_sites",
        }
        return {key: self.under("endpoints", f"{name}.tsv") for key, name in names.items()}

    @functools.cached_property
    def quality_exhibits(self) -> list[str]:
        """Reportlets of image quality; a study without scans or phantoms has none."""
        names = ["charts", "summary", "requests", "findings"] * bool(self.cohort.visits)
        names += ["completeness"] * bool(self.study.settings.acquisition.trial.complete)
        phantoms = ["phantom_sites", "phantom_verdicts"] * bool(self.study.phantoms)
        return [*self.listed("exhibits/quality_{}.json", names),
                *self.listed("exhibits/{}.json", phantoms)]  # fmt: skip

    @functools.cached_property
    def perfusion_cutoffs(self) -> dict[str, str]:
        """Comparison of perfusion cut-offs with the infarct."""
        return {
            "table": self.under("statistics", "perfusion_cutoffs.tsv"),
            "figure": self.under("exhibits", "perfusion_cutoffs.svg"),
            "exhibit": self.under("exhibits", "perfusion_cutoffs.json"),
        }

    def cutoffs(self) -> list[str]:
        """The same, if the study has perfusion."""
        return list(self.perfusion_cutoffs.values()) if self.study.perfusion_visits else []

    def contact_sheets(self) -> list[str]:
        """Table and sheet of all registrations, if figures are on."""
        names = ["registration.tsv", "contact_sheet.png"] if self.quality_records() else []
        return self.listed("quality/{}", names)

    def quality_products(self) -> list[str]:
        """Tables of registrations and of the noise floor that pages of the report show."""
        floor = [self.under("endpoints", "noise_floor.tsv")] if self.noise_repeats() else []
        return [*self.contact_sheets(), *floor]

    def map_files(self) -> list[str]:
        """Lesion frequency maps: of each label, and those that the config lists."""
        located = bool(self.cohort.subjects) or any(
            row.space == "MNI152" for row in self.study.scans
        )
        labels = [label.replace("-", "") for label in self.study.mask_labels if located]
        return [*self.listed("maps/{}_frequency.nii.gz", labels),
                *self.listed("maps/{}_maps.json", self.frequency_maps)]  # fmt: skip

    # Simulated scans and analyses

    @functools.cached_property
    def simulated(self) -> dict[str, ScanRow]:
        """Path of each simulated scan -> its row."""
        return {row.path: row for row in self.study.scans if row.simulated}

    @functools.cached_property
    def simulated_phantoms(self) -> set[str]:
        """Images and masks of the simulated phantom scans."""
        rows = [row for row in self.study.phantoms if row.simulated]
        return {path for row in rows for path in (row.path, row.mask_path) if path}

    @functools.cached_property
    def analyses(self) -> dict[str, AnalysisSpec]:
        """Analyses of the plan by id."""
        return {analysis.id: analysis for analysis in specs_of(self.study.settings)}

    @functools.cached_property
    def together(self) -> list[str]:
        """Analyses that share a job: those that are little more than the start of one."""
        small = len(self.study.participants) <= MOST_PARTICIPANTS
        found = [name for name, one in self.analyses.items() if small and not takes_long(one)]
        return found[:MOST_TOGETHER]

    @functools.cached_property
    def alone(self) -> list[str]:
        """Analyses that have a job of their own."""
        return [name for name in self.analyses if name not in self.together]

    @functools.cached_property
    def drawn(self) -> list[str]:
        """Analyses with figures."""
        return [n for n, one in self.analyses.items() if one.kind.figure or self.figure_kinds(n)]

    @functools.cached_property
    def drawn_together(self) -> list[str]:
        """Those of them whose figures one job draws."""
        return [name for name in self.together if name in self.drawn]

    def any_of(self, kind: str, names: Iterable[str]) -> bool:
        """Whether one of the analyses is of that type."""
        return any(self.analyses[name].type == kind for name in names)

    @functools.cached_property
    def frequency_maps(self) -> dict[str, FrequencyMap]:
        """Frequency maps that the config lists, by id."""
        return {one.id: one for one in self.study.settings.measurement.frequency_maps}

    @functools.cached_property
    def grids(self) -> list[str]:
        """Analyses with a sensitivity grid."""
        return [name for name, analysis in self.analyses.items() if analysis.sensitivity]

    @functools.cached_property
    def flows(self) -> list[str]:
        """Names of the cohort flows."""
        return [flow.name for flow in self.study.settings.cohort_flows]

    # Review desk

    def decisions_path(self) -> str:
        """Path of the decisions of the review desk; the file may be missing."""
        given = self.study.settings.review.decisions
        return str(given) if given else self.under("review", "qc_decisions.tsv")

    def decision_files(self) -> list[str]:
        """The decisions, if there are any."""
        return [path for path in [self.decisions_path()] if Path(path).is_file()]

    def anything_excluded(self) -> bool:
        """Whether reviewers excluded anything."""
        return any(
            "\texclude\t" in Path(path).read_text(encoding="utf-8")
            for path in self.decision_files()
        )

    def sensitivity_analyses(self) -> list[str]:
        """Analyses to run again without exclusions: all of them, once anything is excluded."""
        return list(self.analyses) if self.anything_excluded() else []

    # Targets

    def figure_kinds(self, analysis: str) -> list[str]:
        """Kinds of figures of an analysis of agreement or overlap."""
        return figure_kinds(
            self.analyses[analysis],
            grades=self.study.settings.grades,
            images=bool(self.cohort.subjects),
        )

    def exhibits(self) -> list[str]:
        """Figures, tables and alerts of the report: one line for each kind.

        Each is a JSON file that :func:`corelab.provenance.exhibits.write_exhibit` writes and that
        a rule declares as output. The report waits for those that are listed here.
        """
        settings = self.study.settings
        single = {
            "registration": bool(self.quality_records()),
            "noise_floor": bool(self.noise_repeats()),
            "recovery": bool(settings.recovery.report),
            "plan": True,
            "trial": bool(settings.trial),
        }
        return [
            *self.reading_exhibits * self.study.central_read,
            *self.cutoffs(),
            *self.quality_exhibits,
            self.under("exhibits", "failures.json"),
            *self.listed("exhibits/map_{}.json", self.frequency_maps),
            *self.listed("exhibits/{}.json", [name for name, wanted in single.items() if wanted]),
            *self.listed("exhibits/analysis_{}.json", self.drawn),
            *self.listed("exhibits/specifications_{}.json", self.grids),
            *self.listed("exhibits/flow_{}.json", self.flows),
        ]

    def targets(self, *names: str) -> list[str]:
        """Files of the named targets; only the preflight if the study has errors."""
        study, under = self.study, self.under
        truth = [under("phantom", "truth.tsv")] if self.simulated else []
        parts = {
            "phantom": [*self.simulated, *sorted(self.simulated_phantoms), *truth],
            "images": [*self.records(*SOURCE_STAGES), *self.contact_sheets()],
            "recovery": [
                under("quality", "recovery.tsv"),
                under("quality", "recovery_summary.tsv"),
                under("exhibits", "recovery.json"),
            ],
            "endpoints": [
                under("endpoints", "measurements.tsv"),
                *self.listed("endpoints/{}.tsv", ("acquisition", "flow", "overlap", "phantoms")),
                *self.quality.values(),
                *self.quality_products(),
                *self.map_files(),
                *[under("endpoints", "features.tsv")] * study.has_features,
                *truth,
                *self.cutoffs(),
            ],
            "statistics": [
                *self.statistics_tables,
                under("statistics", "plan.json"),
                under("statistics", "plan_deviations.tsv"),
                under("statistics", "specifications.tsv"),
                under("statistics", "cohort_flow.tsv"),
                under("statistics", "sensitivity.tsv"),
                under("endpoints", "exclusions.tsv"),
                *self.exhibits(),
            ],
            "report": [under("report", "index.html"), under("report", "report.pdf")],
            "submission": [under("submission", "index.json")],
            "verify": [
                under("verification", "certificate.tsv"),
                under("provenance", "manifest.json"),
                under("provenance", "trace.tsv"),
                under("provenance", "ro-crate-metadata.json"),
                under("verification", "verified.tsv"),
            ],
        }
        wanted = [path for name in names for path in parts[name]] if study.sound else []
        return [under("preflight", "passed.json"), *wanted]

    def upstream(self, *names: str) -> list[str]:
        """An output of every job upstream of a target, beyond the target's own files."""
        settings, under = self.study.settings, self.under
        images = [
            under("preflight", "findings.tsv"),
            *self.simulated,
            *self.records(*SOURCE_STAGES),
            *self.quality_records(),
        ]
        features = [*self.feature_tables(), under("endpoints", "features.tsv")]
        measured = [
            *sorted(self.simulated_phantoms),
            *self.measured_records(),
            under("endpoints", "measurements.tsv"),
            *self.noise_repeats(),
            *features * self.study.has_features,
            *[under("reading", "returned_reads.tsv")] * bool(settings.reading.forms),
            *self.final_reads,
            *self.lock,
        ]
        analysed = [
            *self.listed("statistics/by_analysis/{}.tsv", self.analyses),
            *self.listed("statistics/without_exclusions/{}.tsv", self.sensitivity_analyses()),
            *self.listed("statistics/by_specification/{}.tsv", self.grids),
        ]
        found = images * (names != ("phantom",))
        found += measured * bool({"endpoints", "statistics"} & set(names))
        planted = settings.recovery.report and "statistics" in names
        found += self.planted_records() * bool("recovery" in names or planted)
        return found + analysed * ("statistics" in names)

    def steps(self, rules: Iterable[Any]) -> list[str]:
        """Names of the rules whose jobs this study has, of all that the workflow has.

        Parameters
        ----------
        rules
            Rules of Snakemake. Those made for one simulated subject count as ``simulate_visit``.
        """
        names = ("phantom", "images", "endpoints", "statistics", "report", "submission", "verify")
        # One file of a stage stands for those of all visits.
        paths: dict[tuple[str, str], str] = {}
        for path in [*self.targets(*names), *self.upstream(*names)]:
            parts = path.split("/")
            same = parts[-1] if "derivatives" in parts else "/".join(parts[-2:])
            paths.setdefault((parts[-2] * ("derivatives" not in parts), same), path)
        ran = [rule.name for rule in rules if any(map(rule.is_producer, paths.values()))]
        return sorted({"simulate_visit" if "_sub-" in name else name for name in ran})

    def requested(self, *names: str) -> list[str]:
        """Files of a target as its rule requests them: quarantined files upstream come again.

        Rules take :meth:`targets`, so that their inputs do not depend on what was quarantined.
        To request always all that lies upstream would cost a large plan a quarter more memory.
        """
        again = invalidated_outputs(self.study.folder) if self.study.sound else set()
        lost = [path for path in self.upstream(*names) if path in again] if again else []
        return [*self.targets(*names), *lost]
