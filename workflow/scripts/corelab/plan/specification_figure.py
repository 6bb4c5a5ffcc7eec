"""Figure of the sensitivity grid of an analysis: the specification curve."""

from __future__ import annotations

import numpy as np
import pandas as pd

from corelab.pharmacodynamics import figures
from corelab.pharmacodynamics.analysis_figures import new_figure
from corelab.plan.specifications import choices_of, one_question
from corelab.provenance.exhibits import Drawn
from corelab.terms.statistics import statistic
from corelab.terms.words import group_words


def specification_figure(table: pd.DataFrame) -> Drawn:
    """The specification curve of one sensitivity grid: rows of one analysis, columns of
    ``COLUMNS``.
    """
    rows = one_question(table)
    identifier = str(table["analysis_id"].iloc[0])
    found = rows[np.isfinite(rows["estimate"])].sort_values(
        ["estimate", "specification"], kind="stable"
    )
    title = f"Specification curve of {identifier}"
    if not len(found):
        return Drawn(None, title, "no specification can be computed from these data")
    lines = sum(len(values) + 1 for _, values, _ in choices_of(found))
    drawn = new_figure(7.6, 3.0 + 0.26 * lines)
    ratio = statistic(found["statistic"].iloc[0]).ratio
    # The planned statistic first: an alternative method may give another on the same scale.
    names = found.sort_values("planned", ascending=False, kind="stable")["statistic"]
    words = " /\n".join(statistic(name).inline for name in dict.fromkeys(names))
    contrast = group_words(found["group"].iloc[0]) or "all"
    upper, lower = drawn.subplots(
        2, 1, sharex=True, height_ratios=[2.6, 0.26 * lines], gridspec_kw={"hspace": 0.08}
    )
    figures.specification_curve(
        upper, found, null=1.0 if ratio else 0.0, ylabel=words[0].upper() + words[1:]
    )
    figures.specification_choices(lower, found, list(choices_of(found)))
    upper.set_xlabel("")
    message = f"{contrast}: {len(found)} of {len(rows)} specifications; diamond: as planned"
    upper.set_title(message, loc="left")
    return Drawn(
        drawn,
        title,
        "Estimates with confidence intervals of all specifications, sorted; below, what each of "
        "them chooses. Filled: the interval excludes no effect.",
        f"{len(found)} specifications of {identifier}, sorted by estimate",
        name="specifications",
        tight=True,
    )
