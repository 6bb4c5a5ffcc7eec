"""Results with and without the exclusions of the review desk, for pages and documents."""

from __future__ import annotations

from corelab.reporting import page
from corelab.reporting.documents import Block, Heading
from corelab.reporting.numbers import count, estimate, interval, significant
from corelab.reporting.page import Cell, Table, heads
from corelab.reporting.results import Results
from corelab.reporting.traces import analysis_page
from corelab.terms.statistics import statistic
from corelab.terms.words import endpoint_words, group_words

NOTHING = "No values were excluded at review: results with and without exclusions are the same."
_RANK = {"crossed": 0, "moved": 1, "same": 2}


def exclusions_table(results: Results) -> Table | None:
    """Values that people excluded, and what follows from them."""
    frame = results.exclusions
    if frame.empty:
        return None
    body = []
    for row in frame.itertuples():
        body.append(
            [
                page.person_link(str(row.participant_id), results.pages),
                row.visit or "",
                endpoint_words(row.endpoint),
                row.source or "",
                Cell(significant(row.value_without), row.value_without),
                row.unit or "",
                page.tag(str(row.status)),
                row.reason or "",
            ]
        )
    columns = heads(
        "Subject | Visit | Endpoint | Source | *Value without exclusions | Unit | Status | "
        "?~Who, when, why"
    )
    return Table("Excluded values", columns, body, "", "endpoints/exclusions.tsv")


def statistics_table(results: Results) -> Table | None:
    """Statistics that moved, those whose interval crosses no effect first."""
    frame = results.sensitivity
    if frame.empty:
        return None
    rows = frame.assign(_rank=frame["verdict"].map(_RANK)).sort_values("_rank", kind="stable")
    same = int((rows["verdict"] == "same").sum())
    body = []
    for row in rows[rows["verdict"] != "same"].itertuples():
        name = str(row.analysis_id)
        body.append(
            [
                page.link(analysis_page(name), name),
                statistic(row.statistic).words,
                endpoint_words(row.endpoint),
                group_words(row.group),
                Cell(estimate(row.estimate, row.ci_low, row.ci_high), row.estimate),
                interval(row.ci_low, row.ci_high),
                count(row.n),
                Cell(
                    estimate(row.estimate_without, row.ci_low_without, row.ci_high_without),
                    row.estimate_without,
                ),
                interval(row.ci_low_without, row.ci_high_without),
                count(row.n_without),
                page.tag(str(row.verdict), "warning" if row.verdict == "crossed" else "note"),
            ]
        )
    columns = heads(
        "Analysis | Statistic | Endpoint | Group | *As planned | >CI | >n | "
        "*Without exclusions | >CI | >n | Verdict"
    )
    note = f"{same} further statistics are the same." if same else ""
    caption = "Statistics that exclusions move"
    return Table(caption, columns, body, note, "statistics/sensitivity.tsv")


def sensitivity_blocks(results: Results) -> list[Block]:
    """The same for the PDF: T-14.2.13."""
    table = statistics_table(results)
    if table is None:
        return []
    title = "Statistics that the exclusions of the review desk move"
    notes = ["crossed: the interval's side of no effect changes."]
    return [
        Heading("14.2.13 Sensitivity to exclusions", 2),
        page.printed(table, "14.2.13", title, notes),
    ]
