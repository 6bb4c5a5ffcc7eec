"""Course of an endpoint over the visits."""

from __future__ import annotations

from corelab.pharmacodynamics.analysis_figures import new_figure
from corelab.pharmacodynamics.figures import spaghetti
from corelab.provenance.figure_style import on_a_page, svg_of
from corelab.reporting.arms import arm_of, arms_of
from corelab.reporting.exhibits import Shown
from corelab.reporting.results import Results
from corelab.terms.endpoints import unit_of
from corelab.terms.words import endpoint_words


def course(results: Results, endpoint: str) -> Shown | None:
    """Course of an endpoint over the visits, one line per subject, means by arm.

    The pipeline's values where it has any, else supplied ones; None with fewer than two visits.
    """
    rows = results.measurements
    rows = rows[
        (rows["endpoint"] == endpoint) & (rows["region"] == "all") & (rows["status"] == "ok")
    ]
    for source in ("pipeline", "supplied"):
        if (rows["source"] == source).any():
            rows = rows[rows["source"] == source]
            break
    else:
        return None
    rows = rows.drop_duplicates(["participant_id", "visit"])
    visits = [visit for visit in results.tables.visit_order if (rows["visit"] == visit).any()]
    if len(visits) < 2:
        return None
    words, unit = endpoint_words(endpoint), unit_of(endpoint)
    figure = new_figure(6.0, 3.4)
    spaghetti(
        figure.add_subplot(),
        rows.assign(value=rows["value"].astype(float))[["participant_id", "visit", "value"]],
        visits,
        groups=arm_of(results),
        order=arms_of(results),
        ylabel=f"{words}, {unit}" if unit else words,
    )
    alt = f"Course of {words.lower()} of {rows['participant_id'].nunique()} subjects"
    return Shown(
        f"{words} over time",
        f"One line per subject (source {rows['source'].iloc[0]}); means with 95 % intervals.",
        on_a_page(svg_of(figure), f"course-{endpoint.replace('_', '-')}", alt),
        "",
        "",
        alt,
        None,
    )
