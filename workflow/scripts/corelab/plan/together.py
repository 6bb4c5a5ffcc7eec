"""Analyses and their figures, many in one job: each with its log, result and own reuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from corelab.plan.drawing import Draw, drawers, write_figures
from corelab.plan.failures import FAILED
from corelab.plan.runner import run_analysis, tables_of
from corelab.provenance.files import file_sha256
from corelab.provenance.job import print_to_terminal
from corelab.provenance.ledger import Place
from corelab.provenance.parts import Part, run_part
from corelab.provenance.products import read_table, write_table
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.base import fingerprint
from corelab.study.columns import STATISTICS, STATISTICS_NUMBERS
from corelab.study.model import Study
from corelab.study.plan_figures import figure_kinds


@dataclass(frozen=True)
class Given:
    """What the analyses of one job read.

    Attributes
    ----------
    study
        Its part with the sheets of all of them.
    rule, code
        Rule of an analysis in the ledger, and digest of its code.
    measurements, overlap
        Tables of the endpoints.
    features, phantoms
        Tables that analyses of features and of phantoms read as well; none where there is none.
    every
        Further files that concern each of them: the lock of the reads, the locked plan.
    """

    study: Study
    rule: str
    code: str
    measurements: str
    overlap: str
    features: Sequence[str] = ()
    phantoms: Sequence[str] = ()
    every: Sequence[str] = ()

    def features_of(self, analysis: AnalysisSpec) -> Sequence[str]:
        """The features, for an analysis of features."""
        return self.features if analysis.type == "radiomics" else ()

    def study_of(self, analysis: AnalysisSpec) -> Study:
        """The study with the sheets that an analysis reads, so that it cannot read another."""
        given, wanted = self.study, set(analysis.sheets)
        return replace(
            given,
            sheets={k: v for k, v in given.sheets.items() if k.split("[")[0] in wanted},
            sheet_paths={k: v for k, v in given.sheet_paths.items() if k.split("[")[0] in wanted},
        )

    def part(
        self,
        analysis: AnalysisSpec,
        more: Sequence[str],
        outputs: Sequence[str],
        settings: Sequence[str] = (),
    ) -> Part:
        """An analysis as part of the job: made from its entry, the config and these files."""
        phantoms = self.phantoms if analysis.type == "phantom" else ()
        sheets = [str(path) for path in self.study_of(analysis).sheet_paths.values()]
        files = [self.measurements, self.overlap, *self.features_of(analysis), *phantoms]
        files += [*(path for path in sheets if Path(path).is_file()), *self.every, *more]
        contents = [(path, _sha256(path)) for path in files]
        made_from = [analysis.as_given(), self.study.config, self.study.visit_order, *settings]
        return Part(
            Place(self.study.folder, self.rule, analysis.id),
            fingerprint([*made_from, self.study.units, self.code, contents]),
            files,
            outputs,
            self.code,
        )


#: A file that many parts read is read once.
_sha256 = cache(file_sha256)


def analyse_together(plan: Sequence[AnalysisSpec], given: Given, rows: Sequence[str]) -> None:
    """Run analyses, one after the other; an unexpected error in one stops none of the others.

    Parameters
    ----------
    plan
        The analyses.
    given
        What they read.
    rows
        The table of each.
    """

    def analyse(analysis: AnalysisSpec, table: str) -> None:
        log = f"logs/{given.rule}/{analysis.id}.log"
        frame = run_analysis(
            analysis,
            given.study_of(analysis),
            given.measurements,
            given.overlap,
            features=given.features_of(analysis),
            log=log,
        )
        write_table(frame, table, list(STATISTICS), sort=False)
        if frame["note"].fillna("").str.contains(FAILED, regex=False).any():
            print_to_terminal(f"Analysis {analysis.id} ended in an unexpected error: {log}")

    for analysis, table in zip(plan, rows, strict=True):
        run_part(given.part(analysis, [], [table]), partial(analyse, analysis, table))


def draw_together(
    plan: Sequence[AnalysisSpec],
    given: Given,
    rows: Sequence[str],
    records: Sequence[str],
    outputs: Sequence[tuple[str, str]],
    images: bool,
) -> None:
    """Draw the figures of analyses, one after the other.

    Parameters
    ----------
    plan, given, rows
        As for :func:`analyse_together`; the tables are read.
    records
        Of the stages whose scans and masks figures of contours show.
    outputs
        Exhibit and folder of figures of each.
    images
        Whether the study has images.
    """

    def draw(analysis: AnalysisSpec, table: str, kinds: Sequence[str], made: Sequence[str]) -> None:
        study = given.study_of(analysis)

        def draws() -> list[Draw]:
            files = (given.measurements, given.overlap, given.features_of(analysis))
            tables = tables_of(analysis, study, *files)
            statistics = read_table(table, numeric=STATISTICS_NUMBERS)
            return drawers(analysis, tables, statistics, kinds, study.folder)

        for reason in write_figures(analysis, draws, made[0], made[1]):
            print_to_terminal(f"{analysis.id}: {reason}")

    for analysis, table, made in zip(plan, rows, outputs, strict=True):
        kinds = figure_kinds(analysis, grades=given.study.settings.grades, images=images)
        shown = records if "contours" in kinds else ()
        part = given.part(analysis, [table, *shown], made, kinds)
        run_part(part, partial(draw, analysis, table, kinds, made))
