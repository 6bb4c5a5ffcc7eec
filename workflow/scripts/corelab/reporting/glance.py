"""The first screen of the report: what was studied, the counts, the primary endpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from corelab.reporting import charts, page
from corelab.reporting.analysis_view import analysis_title
from corelab.reporting.arrange import first_screen
from corelab.reporting.attention import (
    counts,
)
from corelab.reporting.figures import arms_of
from corelab.reporting.numbers import (
    count,
    estimate,
    interval,
    is_number,
    p_value,
)
from corelab.reporting.page import Column, Table
from corelab.reporting.results import (
    NOT_COMPUTABLE,
    Results,
)
from corelab.reporting.traces import statistic_link
from corelab.reporting.vocabulary import (
    RATIO_STATISTICS,
    group_words,
    statistic_unit,
    statistic_words,
)


def primary_table(results: Results) -> tuple[str, Table | None]:
    """Headlines of the primary analyses, or of the whole plan where none is called primary."""
    primary = [a for a in results.analyses if a.get("objective") == "primary"]
    title = "Primary endpoints" if primary else "Main results"
    chosen = primary or results.analyses
    rows: list[tuple[Mapping[str, Any], Any]] = []
    for analysis in chosen:
        kept = first_screen(results, analysis)
        if not primary:
            kept = kept[kept["estimate"].notna()].head(1)
        rows += [(analysis, row) for row in kept.head(6).itertuples()]
    if not rows:
        return title, None
    axes: dict[tuple[str, str], tuple[float, float]] = {}
    spans: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for analysis, row in rows:
        if all(is_number(v) for v in (row.estimate, row.ci_low, row.ci_high)):
            spans.setdefault((str(analysis["id"]), row.statistic), []).append(
                (float(row.estimate), float(row.ci_low), float(row.ci_high))
            )
    for key, values in spans.items():
        axes[key] = charts.interval_axis(values, key[1] in RATIO_STATISTICS)
    body = []
    for analysis, row in rows[:12]:
        ratio = row.statistic in RATIO_STATISTICS
        axis = axes.get((str(analysis["id"]), row.statistic))
        drawn: Any = ""
        if axis and is_number(row.ci_low):
            low, high = float(row.ci_low), float(row.ci_high)
            drawn = charts.forest_mark(float(row.estimate), low, high, axis, ratio)
        unit = statistic_unit(str(row.statistic), row.endpoint)
        visit = row.visit if row.visit != "all" else ""
        details = (statistic_words(str(row.statistic)), unit, group_words(row.group), visit)
        name = Markup('{}<span class="sub">{}</span>').format(
            page.link(f"#analysis-{analysis['id']}", analysis_title(analysis)),
            ", ".join(text for text in details if text),
        )
        if is_number(row.estimate):
            value: Any = Markup("<b>{}</b> {}{}").format(
                statistic_link(row, estimate(row.estimate, row.ci_low, row.ci_high)),
                interval(row.ci_low, row.ci_high),
                _adjusted_limits(row),
            )
        else:
            note = str(row.note or "").removeprefix(NOT_COMPUTABLE).lstrip(": ")
            value = Markup('not computable<span class="sub">{}</span>').format(note)
        body.append([name, value, drawn, _p_cell(row), count(row.n)])
    columns = [
        Column("Analysis", "first", sortable=False),
        Column("Estimate [CI]", "number estimate", sortable=False),
        Column("Interval", "drawn", sortable=False),
        Column("p", "number", sortable=False),
        Column("n", "number", sortable=False),
    ]
    level = {f"{100 * float(r.ci_level):g} %" for _, r in rows if is_number(r.ci_level)}
    caption = "Estimates with confidence intervals" + (
        f" ({', '.join(sorted(level))})" if level else ""
    )
    return title, Table(caption, columns, body)


def _p_cell(row: Any) -> Any:
    """The adjusted p of a hypothesis of a family; elsewhere the p of the row."""
    adjusted = getattr(row, "p_adjusted", None)
    if not is_number(adjusted):
        return p_value(row.p_value)
    words = f"adjusted, {row.family}; unadjusted {p_value(row.p_value)}"
    return Markup('{}<span class="sub">{}</span>').format(p_value(adjusted), words)


def _adjusted_limits(row: Any) -> Any:
    low, high = (getattr(row, f"ci_{end}_adjusted", None) for end in ("low", "high"))
    if not (is_number(low) and is_number(high)):
        return ""
    return Markup('<span class="sub">simultaneous {}</span>').format(interval(low, high))


def glance_facts(results: Results) -> list[tuple[str, str]]:
    """What was studied, for the first screen: pairs of a word and its value."""
    people = results.participants
    facts = [("Study", str(results.study.get("id", "")))]
    facts.append(("Disease", str(results.study.get("disease", "stroke"))))
    if results.study.get("sap_version"):
        facts.append(("Analysis plan", str(results.study["sap_version"])))
    for name, word in (("arm", "Arms"), ("site", "Sites")):
        if name in people and people[name].notna().any():
            levels = (
                arms_of(results) if name == "arm" else sorted(set(people[name].dropna().map(str)))
            )
            facts.append((word, ", ".join(levels) if len(levels) <= 4 else str(len(levels))))
    if results.tables.visit_order:
        facts.append(("Visits", ", ".join(results.tables.visit_order)))
    facts.append(("Plan fingerprint", results.fingerprint))
    return facts


def count_tiles(results: Results) -> list[tuple[str, str, str]]:
    """Counts of the first screen.

    Returns
    -------
    list of tuple
        Word, number, and ``warn`` or ``bad`` where the number asks for a look.
    """
    found = counts(results)

    def css(number: int, word: str) -> str:
        return word if number else ""

    return [
        ("participants", str(found.participants), ""),
        ("with images", str(found.with_images), ""),
        ("visits", str(found.visits), ""),
        ("scans read", str(found.scans), ""),
        ("values", str(found.values), ""),
        ("values not available", str(found.unavailable), css(found.unavailable, "warn")),
        ("scans failed", str(found.failed_scans), css(found.failed_scans, "bad")),
        ("scans outside charter", str(found.out_of_charter), css(found.out_of_charter, "warn")),
        ("subjects flagged", str(found.flagged_subjects), css(found.flagged_subjects, "warn")),
    ]
