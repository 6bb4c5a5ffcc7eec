"""Figures of one planned analysis as an exhibit of the report."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from corelab.measurement.selection import Tables
from corelab.plan.failures import NOT_DRAWN
from corelab.provenance.exhibits import Alarm, Drawing, Drawn, write_exhibit
from corelab.provenance.figure_style import save_figure
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.overlap import OverlapSpec

#: Draws figures that stand or fall together.
Draw = Callable[[], Iterable[Drawn]]


def drawers(
    analysis: AnalysisSpec,
    tables: Tables,
    rows: pd.DataFrame,
    kinds: Sequence[str],
    folder: Path,
) -> list[Draw]:
    """What draws the figures of an analysis.

    The imports are inside, so that the methods of one kind of analysis are loaded.

    Parameters
    ----------
    analysis, tables, rows
        The planned analysis, its tables, and its statistics rows.
    kinds
        Of an analysis of agreement or overlap, see
        :func:`corelab.study.plan_figures.figure_kinds`.
    folder
        The study's results folder.
    """
    if isinstance(analysis, AgreementSpec | OverlapSpec):
        from corelab.agreement.exhibits import drawn_figure

        def one(kind: str) -> list[Drawn]:
            return [drawn_figure(analysis, tables, rows, kind, folder)]

        return [partial(one, kind) for kind in kinds]
    if analysis.kind.figure == "drawings":
        from corelab.pharmacodynamics.outcome_figures import drawn_figures

        return [lambda: drawn_figures(analysis, tables, rows.fillna({"note": ""}))]
    from corelab.pharmacodynamics.analysis_figures import drawn_figure as all_panels

    return [lambda: [all_panels(analysis, tables, rows)]]


def write_figures(
    analysis: AnalysisSpec,
    draws: Callable[[], Iterable[Draw]],
    exhibit: str | Path,
    figures: str | Path,
    *,
    section: str = "",
    source: str = "",
) -> list[str]:
    """Draw and write; an unexpected error becomes an alarm, and its traceback is printed.

    Gives why a figure was not drawn.

    Parameters
    ----------
    analysis
        The planned analysis.
    draws
        Gives what :func:`drawers` gives.
    exhibit, figures
        JSON in the folder of exhibits, and the folder beside it for the SVG files.
    section, source
        Of the exhibit; the analysis and its table where they are not given.
    """
    place = Path(figures)
    place.mkdir(parents=True, exist_ok=True)
    made: list[Drawing] = []
    reasons: list[str] = []
    failures: list[str] = []

    def draw_one(draw: Draw) -> None:
        for one in draw():
            if one.figure is None:
                reasons.append(f"{one.title}: not drawn, {one.caption}.")
                continue
            file = place / f"{analysis.id}_{one.name}.svg"
            save_figure(one.figure, file, tight=one.tight)
            alt = (one.alt or f"{one.title}. {one.caption}")[:1000]
            path = file.relative_to(Path(exhibit).parent).as_posix()
            made.append(Drawing(path, one.title, one.caption, alt))

    def attempt(action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            traceback.print_exception(error)
            failures.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    tasks: list[Draw] = []
    attempt(lambda: tasks.extend(draws()))
    for task in tasks:
        attempt(partial(draw_one, task))
    if not made and not reasons and not failures:
        reasons.append("Nothing to draw: the statistics say why.")
    write_exhibit(
        exhibit,
        section=section or f"analysis:{analysis.id}",
        title=str(analysis.title or analysis.id),
        caption=" ".join([*(f"{NOT_DRAWN}{cause}" for cause in failures), *reasons]),
        drawings=made,
        source=source or f"statistics/by_analysis/{analysis.id}.tsv",
        alarms=[
            Alarm("error", f"Figure of analysis {analysis.id} not drawn: {cause}")
            for cause in failures
        ],
        order=20,
    )
    return reasons
