"""Planned analyses as the page shows them: their tables, figures and parts of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from corelab.measurement.selection import as_list
from corelab.reporting import certificate_view, exhibits, page
from corelab.reporting.arrange import arrange
from corelab.reporting.attention import (
    is_not_computable,
)
from corelab.reporting.methods import (
    analysis_sentence,
)
from corelab.reporting.numbers import (
    count,
    estimate,
    interval,
    is_number,
    p_value,
)
from corelab.reporting.page import Cell, Column, Table, heads
from corelab.reporting.results import (
    NOT_COMPUTABLE,
    Results,
)
from corelab.reporting.traces import statistic_link
from corelab.reporting.vocabulary import statistic_decimals, statistic_unit
from corelab.settings.analyses.base import AnalysisSpec
from corelab.terms.statistics import statistic
from corelab.terms.words import endpoint_words, group_words, in_sentence

#: Parts of the report that analyses belong to: name, title, and what stands where none does.
PARTS = (
    (
        "reproducibility",
        "Reproducibility",
        "No agreement or overlap analysis is in the plan.",
    ),
    (
        "pharmacodynamics",
        "Pharmacodynamics",
        "No pharmacodynamic analysis is in the plan.",
    ),
    (
        "survival",
        "Time to event and radiomics",
        "No time-to-event or radiomics analysis is in the plan.",
    ),
    ("phantom", "Phantom scans", "No phantom analysis is in the plan."),
)


@dataclass(frozen=True)
class AnalysisView:
    """One analysis as the page shows it."""

    id: str
    title: str
    objective: str
    sentence: str
    note: str
    twin: str
    table: Table | None
    more: Table | None


def analysis_title(analysis: AnalysisSpec) -> str:
    """Title of an analysis: as planned, else from what it does.

    Examples
    --------
    >>> from corelab.settings.analyses import spec_of
    >>> analysis_title(spec_of({"id": "a", "type": "agreement", "endpoint": "infarct_volume",
    ...     "sources": "all"}))
    'Agreement: infarct volume'
    """
    given = analysis.title
    if given:
        return str(given)
    kind = analysis.kind.title
    what = in_sentence(endpoint_words(",".join(map(str, as_list(analysis.endpoint)))))
    what = what or str(analysis.label or analysis.outcome or "")
    return f"{kind}: {what}" if what else kind


def _how(row: Any) -> Markup:
    return page.more("method", _how_lines(row))


def _how_lines(row: Any) -> Markup:
    """What stands behind one number: definition, second computation, full precision, note."""
    note = "" if row.note is None or pd.isna(row.note) else str(row.note)
    if note.startswith(NOT_COMPUTABLE):
        note = ""
    second = ""
    if is_number(row.second_estimate):
        second = f"{float(row.second_estimate):.10g} by {row.second_method}"
    population = row.population if row.population not in (None, "all") else ""
    return page.lines(
        [
            ("definition", row.method if isinstance(row.method, str) else ""),
            ("estimate", f"{float(row.estimate):.10g}" if is_number(row.estimate) else ""),
            ("second computation", second),
            ("population", population),
            ("note", note),
            ("rows", f"statistics/{row.table}.tsv, analysis_id {row.analysis_id}"),
        ]
    )


def number_text(row: Any) -> str:
    """The estimate of a row with the decimals of its statistic."""
    decimals = statistic_decimals(str(row.statistic), row.endpoint, row.estimate)
    return estimate(row.estimate, row.ci_low, row.ci_high, decimals)


def interval_text(row: Any) -> str:
    """The interval of a row with the decimals of its statistic."""
    decimals = statistic_decimals(str(row.statistic), row.endpoint, row.estimate)
    return interval(row.ci_low, row.ci_high, decimals)


def _number_cell(row: Any, failed: bool) -> Any:
    if failed:
        return Cell("not computable", "")
    shown = statistic_link(row, number_text(row))
    return Cell(shown, row.estimate)


def _long_table(rows: pd.DataFrame, caption: str, label: str) -> Table:
    """One row per statistic; a column that says the same in every row goes into the caption."""
    groups = list(dict.fromkeys(group_words(group) for group in rows["group"]))
    visits = ["pooled" if v == "all" else str(v) for v in dict.fromkeys(rows["visit"])]
    several = len(set(rows["endpoint"])) > 1
    # A column that is empty in every row is not shown.
    columns = heads(
        "Statistic | Endpoint | Group | Visit | *Estimate | >CI | >p | >p adjusted | >n | ?=Method"
    )
    body = []
    for row, failed in zip(rows.itertuples(), is_not_computable(rows), strict=True):
        unit = statistic_unit(str(row.statistic), row.endpoint)
        behind: Any = _how(row)
        if failed:
            behind = str(row.note).removeprefix(NOT_COMPUTABLE).lstrip(": ")
        visit = "pooled" if row.visit == "all" else row.visit
        body.append(
            [
                statistic(row.statistic).words + (f", {unit}" if unit else ""),
                endpoint_words(row.endpoint) if several else "",
                (group_words(row.group) or "all") if len(groups) > 1 else "",
                visit if len(visits) > 1 else "",
                _number_cell(row, failed),
                Cell(interval_text(row), row.ci_low),
                Cell(p_value(row.p_value), row.p_value),
                p_value(getattr(row, "p_adjusted", None)),
                Cell(count(row.n), row.n),
                behind,
            ]
        )
    texts = [groups[0] if len(groups) == 1 else "", visits[0] if len(visits) == 1 else ""]
    texts.append(_levels(rows))
    note = "; ".join(text for text in texts if text and text != "pooled")
    return Table(caption, columns, body, f"({note})" if note else "", "", label)


def _levels(rows: pd.DataFrame) -> str:
    levels = sorted({float(v) for v in rows["ci_level"] if is_number(v)})
    return "intervals " + ", ".join(f"{100 * v:g} %" for v in levels) if levels else ""


def _side_by_side(rows: pd.DataFrame, groups: Sequence[str], caption: str, label: str) -> Table:
    """One row per statistic, one column per group: estimate and interval."""
    cells: dict[str, dict[str, Any]] = {}
    for row in rows.itertuples():
        cells.setdefault(str(row.statistic), {})[str(row.group)] = row
    columns = [
        Column("Statistic"),
        *(Column(group_words(group) or "all sources", "number") for group in groups),
        Column("Method", "why", sortable=False),
    ]
    body = []
    for name, found in cells.items():
        first = next(iter(found.values()))
        unit = statistic_unit(name, first.endpoint)
        shown: list[Any] = []
        for group in groups:
            one = found.get(group)
            if one is None:
                shown.append("")
            elif not is_number(one.estimate):
                reason = str(one.note).removeprefix(NOT_COMPUTABLE).lstrip(": ")
                shown.append(Markup('not computable<span class="sub">{}</span>').format(reason))
            else:
                text = Markup("<b>{}</b> {}").format(
                    statistic_link(one, number_text(one)),
                    interval_text(one),
                )
                shown.append(Cell(text, one.estimate))
        words = statistic(name).words + (f", {unit}" if unit else "")
        body.append([words, *shown, page.more("method", _behind(found, groups))])
    numbers = rows.groupby("group", sort=False)["n"].max()
    texts = [
        f"n = {count(numbers[group])}"
        + (f" ({group_words(group) or 'all sources'})" if len(groups) > 1 else "")
        for group in groups
        if group in numbers and is_number(numbers[group])
    ]
    if len(set(numbers.dropna())) == 1:
        texts = [f"n = {count(numbers.iloc[0])}"]
    note = "; ".join(text for text in (*texts, _levels(rows)) if text)
    return Table(caption, columns, body, f"({note})" if note else "", "", label)


def _behind(found: Mapping[str, Any], groups: Sequence[str]) -> Markup:
    parts = []
    for group in groups:
        row = found.get(group)
        if row is not None:
            name = group_words(group) or "all sources"
            parts.append(Markup("<p><b>{}</b><br>{}</p>").format(name, _how_lines(row)))
    return Markup("").join(parts)


def statistics_tables(
    results: Results, analysis: AnalysisSpec
) -> tuple[Table | None, Table | None]:
    """The main table of an analysis and the table of its further statistics."""
    found = arrange(results, analysis)
    if found is None:
        return None, None
    label = f"Estimates of {analysis.id}"
    refused = "; ".join(f"{group_words(g) or 'all sources'}: {why}" for g, why in found.refused)
    if found.groups:
        core = _side_by_side(found.core, found.groups, "Estimates", label)
    else:
        core = _long_table(found.core, "Estimates", label)
    if refused:
        core = replace(core, note=f"{core.note} Not computable: {refused}.")
    if found.note:
        core = replace(core, note=f"{core.note} {found.note}".strip())
    if found.more.empty:
        return core, None
    return core, _long_table(found.more, "Further statistics", f"Further {label.lower()}")


def twins(results: Results) -> dict[str, str]:
    """Analysis -> sentence on an earlier one with the same results in every row.

    A per-protocol analysis of a study whose participants all kept to the protocol is one: its
    figures would be those of the other.
    """
    seen: dict[str, AnalysisSpec] = {}
    found = {}
    for entry in results.analyses:
        rows = results.statistics_of(entry.id)
        key = rows[["endpoint", "visit", "group", "statistic", "estimate", "n"]].to_csv(index=False)
        same = seen.setdefault(key.partition("\n")[2], entry)
        # Without any number, equal rows say nothing of the participants.
        if rows["estimate"].notna().any() and same is not entry:
            found[entry.id] = f"Same participants and results as: {analysis_title(same)}."
    return found


def analysis_view(results: Results, analysis: AnalysisSpec) -> AnalysisView:
    """An analysis as the page shows it: title, sentence and tables."""
    return AnalysisView(
        analysis.id,
        analysis_title(analysis),
        str(analysis.objective or "planned"),
        analysis_sentence(analysis) if analysis.type else "Not in the plan.",
        str(analysis.note or ""),
        results.once(twins).get(analysis.id, ""),
        *statistics_tables(results, analysis),
    )


@dataclass(frozen=True)
class Part:
    """A part of the page of analyses: ``empty`` stands where the plan leaves it empty."""

    id: str
    title: str
    intro: str = ""
    analyses: Sequence[AnalysisView] = ()
    tables: Sequence[Table] = ()
    empty: str = ""


def report_parts(results: Results) -> list[Part]:
    """Parts of the page that hold analyses, in order; further ones where an exhibit names them.

    Survival and phantom stand only where the plan has them; statistics that are not in the plan
    stand under "Exploratory".
    """
    parts = []
    planned = {entry.id for entry in results.analyses}
    for part_id, title, empty in PARTS:
        entries = [entry for entry in results.analyses if entry.kind.part == part_id]
        if entries or part_id not in {"survival", "phantom"}:
            views = [analysis_view(results, entry) for entry in entries]
            parts.append(Part(part_id, title, analyses=views, empty=empty))
    extra = sorted(set(results.all_statistics["analysis_id"]) - planned)
    if extra:
        views = [analysis_view(results, results.analysis(str(name))) for name in extra]
        intro = "These analyses are not in the plan."
        parts.append(Part("exploratory", "Exploratory", intro, views))
    if results.certificate is not None:
        odd = certificate_view.not_reproduced(results.certificate)
        link = Markup('{} <a href="{}">The whole certificate</a>.').format(
            certificate_view.summary(results.certificate), certificate_view.PAGE
        )
        parts.append(Part("certificate", "Certificate of reproduced numbers", link, tables=odd))
    known = {part.id for part in parts}
    for section, title in {**exhibits.TITLES, **{p[0]: p[1] for p in PARTS}}.items():
        if section not in known and exhibits.of_section(results, section):
            parts.append(Part(section, title))
    return parts
