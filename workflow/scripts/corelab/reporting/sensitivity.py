"""Results with and without the exclusions of the review desk, for pages and documents."""

from __future__ import annotations

from corelab.reporting import page
from corelab.reporting.documents import Block, DataTable, Heading
from corelab.reporting.numbers import count, estimate, interval, significant
from corelab.reporting.page import Cell, Column, Table
from corelab.reporting.results import Results
from corelab.reporting.traces import analysis_page
from corelab.reporting.vocabulary import endpoint_words, group_words
from corelab.terms.statistics import statistic

NOTHING = (
    "Nobody excluded a value at the review desk: results with and without exclusions are the same."
)
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
    columns = [
        Column("Subject"),
        Column("Visit"),
        Column("Endpoint"),
        Column("Source"),
        Column("Value without exclusions", "number main"),
        Column("Unit"),
        Column("Status"),
        Column("Who, when, why", "why wide"),
    ]
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
    columns = [
        Column("Analysis"),
        Column("Statistic"),
        Column("Endpoint"),
        Column("Group"),
        Column("As planned", "number main"),
        Column("CI", "number"),
        Column("n", "number"),
        Column("Without exclusions", "number main"),
        Column("CI", "number"),
        Column("n", "number"),
        Column("Verdict"),
    ]
    note = f"{same} further statistics are the same." if same else ""
    caption = "Statistics that exclusions move"
    return Table(caption, columns, body, note, "statistics/sensitivity.tsv")


def sensitivity_blocks(results: Results) -> list[Block]:
    """The same for the PDF: T-14.2.13."""
    table = statistics_table(results)
    if table is None:
        return []
    frame = results.sensitivity[results.sensitivity["verdict"] != "same"]
    rows = tuple(
        (
            str(row.analysis_id),
            statistic(row.statistic).words,
            group_words(row.group),
            f"{estimate(row.estimate, row.ci_low, row.ci_high)} "
            f"{interval(row.ci_low, row.ci_high)}".strip(),
            count(row.n),
            f"{estimate(row.estimate_without, row.ci_low_without, row.ci_high_without)} "
            f"{interval(row.ci_low_without, row.ci_high_without)}".strip(),
            count(row.n_without),
            str(row.verdict),
        )
        for row in frame.itertuples()
    )
    columns = (
        "Analysis",
        "Statistic",
        "Group",
        ">As planned",
        ">n",
        ">Without exclusions",
        ">n",
        "Verdict",
    )
    return [
        Heading("14.2.13 Sensitivity to exclusions", 2),
        DataTable(
            "14.2.13",
            "Statistics that the exclusions of the review desk move",
            columns,
            rows,
            "statistics/sensitivity.tsv",
            ("crossed: the interval's side of no effect changes.",),
        ),
    ]
