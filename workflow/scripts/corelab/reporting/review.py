"""The review desk: a contact sheet of every visit with a form to accept, question or exclude it.

The page works alone: opened as a file it gives the table of decisions as a download. Served by
``snakemake review`` it writes each decision at once. It never shows an arm, and links to pages
without arms and results only: who rates must not know. Values are hidden until they are opened,
which is recorded. The workflow applies what was decided, and computes everything without
exclusions too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from corelab.provenance.decisions import (
    COLUMNS,
    FIRST,
    OPENED,
    Decision,
    DecisionFault,
    read_decisions,
)
from corelab.provenance.job import UserError
from corelab.provenance.products import write_text
from corelab.reporting import page
from corelab.reporting.attention import SEVERITIES, Finding, by_participant, findings_of
from corelab.reporting.exhibits import common_content
from corelab.reporting.numbers import significant
from corelab.reporting.pictures import Picture
from corelab.reporting.quality_figures import WITH_VALUES, QualityFigure
from corelab.reporting.results import Results, Visit, blinded_page
from corelab.reporting.subject_images import SubjectImages
from corelab.terms.words import endpoint_words

#: Pictures of a visit.
_ROWS = 2


@dataclass(frozen=True)
class Sheet:
    """One visit on the desk: concerns in words, values and endpoints as (name, words), and figures
    that print no value; ``flag`` is the worst severity, or nothing.
    """

    participant_id: str
    visit: str
    page: str
    flag: str
    concerns: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    endpoints: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]
    figures: tuple[QualityFigure, ...] = ()


def _concerns(results: Results) -> dict[tuple[str, str], list[Finding]]:
    """(participant, visit) -> what concerns this visit, or the participant as a whole."""
    found = by_participant(
        one for one in results.once(findings_of) if one.severity != "note" and one.topic != "values"
    )
    return {
        (visit.participant_id, visit.visit): sorted(
            (one for one in found.get(visit.participant_id, ()) if one.visit in ("", visit.visit)),
            key=lambda one: SEVERITIES.index(one.severity),
        )
        for visit in results.visits
    }


def sheets(results: Results, drawn: Mapping[str, SubjectImages]) -> list[Sheet]:
    """Every visit with images, those with something to look at first; ``drawn`` by subject."""
    concerns = _concerns(results)
    rank = {"error": 0, "warning": 1}

    def worst(visit: Visit) -> int:
        found = concerns[visit.participant_id, visit.visit]
        return min((rank[one.severity] for one in found), default=2)

    found = []
    for visit in sorted(results.visits, key=lambda v: (worst(v), v.participant_id)):
        rows = results.rows_of("measurements", visit.participant_id)
        own = rows[
            (rows["source"] == "pipeline")
            & (rows["region"] == "all")
            & (rows["visit"] == visit.visit)
        ]
        names = list(dict.fromkeys(own["endpoint"].dropna()))
        values = tuple(
            (
                endpoint_words(row.endpoint),
                f"{significant(row.value)} {row.unit or ''!s}".strip()
                if row.status == "ok"
                else str(row.status).replace("_", " "),
            )
            for row in own.itertuples()
        )
        images = drawn.get(visit.participant_id, SubjectImages())
        own_concerns = concerns[visit.participant_id, visit.visit]
        found.append(
            Sheet(
                visit.participant_id,
                visit.visit,
                blinded_page(visit.participant_id),
                own_concerns[0].severity if own_concerns else "",
                tuple(dict.fromkeys(one.text for one in own_concerns)),
                values,
                tuple((name, endpoint_words(name)) for name in names),
                tuple(images.of_visit(visit.visit)[:_ROWS]),
                tuple(
                    figure
                    for figure in images.figures
                    if figure.visit == visit.visit and figure.name not in WITH_VALUES
                ),
            )
        )
    return found


def _script_json(content: Any) -> Markup:
    r"""JSON for a script element: nothing in it can end the element."""
    text = json.dumps(content, sort_keys=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def desk_html(
    results: Results, drawn: Mapping[str, SubjectImages], decisions: Sequence[Decision]
) -> str:
    """The desk as a page; its pictures are those of the subjects' pages."""
    scripts = [page.asset("report.js"), page.asset("review.js")]
    policy = page.security_policy(scripts, files=True)
    policy = policy.replace("connect-src", "connect-src 'self'")
    known = {
        "columns": list(COLUMNS),
        "first": FIRST,
        "opened": OPENED,
        "decisions": [asdict(decision) for decision in decisions],
    }
    return page.render(
        "review.html.j2",
        common_content(results, None),
        policy=policy,
        page_title=f"{results.title}: review desk",
        sheets=sheets(results, drawn),
        known=_script_json(known),
        review_script=Markup(page.asset("review.js")),
    )


def desk_decisions(path: str | Path | None) -> list[Decision]:
    """Decisions of the review desk so far.

    Raises
    ------
    corelab.provenance.job.UserError
        If the chain of decisions is broken.
    """
    try:
        return read_decisions(path) if path else []
    except DecisionFault as fault:
        raise UserError(str(fault)) from None


def write_desk(
    results: Results, drawn: Mapping[str, SubjectImages], decisions: Sequence[Decision]
) -> Path:
    """Write ``report/review.html``."""
    html = desk_html(results, drawn, decisions)
    return write_text(html, results.folder / "report" / "review.html")
