"""Figures of the plan, where an unexpected error becomes an alarm of the report."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corelab.pharmacodynamics.analysis_figures import new_figure
from corelab.plan.failures import NOT_DRAWN
from corelab.provenance.exhibits import Alarm, write_exhibit
from corelab.provenance.figure_style import save_figure
from corelab.settings.analyses.base import AnalysisSpec


def draw_or_report(
    draw: Callable[[], Any],
    analysis: AnalysisSpec,
    exhibit: str | Path,
    figure: str | Path | None = None,
) -> None:
    """Draw; an unexpected error becomes an exhibit with an alarm, and its traceback is printed.

    Parameters
    ----------
    draw
        Writes the exhibit and the figure.
    analysis
        The planned analysis.
    exhibit, figure
        Files that the rule declares.
    """
    try:
        draw()
    except Exception as error:
        traceback.print_exception(error)
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        more: dict[str, Any] = {}
        if figure is not None:
            blank = new_figure(7.0, 1.0)
            blank.text(0.02, 0.5, f"Not drawn: {cause}"[:110], va="center")
            save_figure(blank, figure, tight=True)
            more = {"figure": Path(figure).name, "alt": f"Not drawn: {cause}"}
        write_exhibit(
            exhibit,
            section=f"analysis:{analysis.id}",
            title=str(analysis.title or analysis.id),
            caption=f"{NOT_DRAWN}{cause}",
            alarms=[Alarm("error", f"Figure of analysis {analysis.id} not drawn: {cause}")],
            **more,
        )
