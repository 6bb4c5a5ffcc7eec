"""The first screen of the report: what was studied, the primary results, what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from markupsafe import Markup

from corelab.measurement.selection import as_list
from corelab.provenance.decisions import Decision, current
from corelab.reporting import marks, page
from corelab.reporting.analysis_view import analysis_title, interval_text, number_text
from corelab.reporting.arms import arms_of
from corelab.reporting.arrange import first_screen
from corelab.reporting.attention import counts
from corelab.reporting.numbers import (
    count,
    estimate_decimals,
    fixed,
    interval,
    is_number,
    p_value,
)
from corelab.reporting.page import Cell, Column, Table, heads
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.reporting.traces import statistic_link
from corelab.reporting.vocabulary import statistic_unit
from corelab.settings.analyses.base import AnalysisSpec
from corelab.terms.endpoints import unit_of
from corelab.terms.statistics import statistic
from corelab.terms.words import endpoint_words, group_words, in_sentence, label_words

MAX_PER_ANALYSIS = 6
MAX_ROWS = 12
#: Second computations agree within this share of the estimate: what iterative fits of two
#: programs differ by. An analysis whose programs differ by more than its own tolerance stops.
AGREES_WITHIN = 1e-3

Headline = tuple[AnalysisSpec, Any]


def headlines(results: Results) -> tuple[list[Headline], list[Headline], bool]:
    """(effects, reliability, whether any analysis is called primary): what comes first.

    Without a primary analysis the first statistic of every analysis stands for it.
    """
    primary = [a for a in results.analyses if a.objective == "primary"]
    effects: list[Headline] = []
    reliability: list[Headline] = []
    for analysis in primary or results.analyses:
        kept = first_screen(results, analysis)
        if not primary:
            kept = kept[kept["estimate"].notna()].head(1)
        rows = [(analysis, row) for row in kept.head(MAX_PER_ANALYSIS).itertuples()]
        (reliability if analysis.kind.reliability else effects).extend(rows)
    return effects[:MAX_ROWS], reliability[:MAX_ROWS], bool(primary)


def _source(results: Results, analysis: AnalysisSpec) -> str:
    """Who measured the endpoint, as planned; empty where the plan leaves it to the default."""
    return ", ".join(map(str, as_list(analysis.source)))


def _people(results: Results, row: Any) -> str:
    total = len(results.participants)
    if not is_number(row.n):
        return ""
    return f"{int(row.n)} of {total} participants" if row.n <= total else f"n = {int(row.n)}"


def _where(results: Results, analysis: AnalysisSpec, row: Any) -> tuple[str, str]:
    visit = str(row.visit) if row.visit not in ("all", None) else ""
    said = (_source(results, analysis), _people(results, row))
    return (f" at {visit}" if visit else ""), "; ".join(text for text in said if text)


def _signed_interval(low: float, high: float, decimals: int, down: str, up: str) -> str:
    """Limits of a difference that is said as less or more."""
    if low < 0 < high:
        return f"{fixed(-low, decimals)} {down} to {fixed(high, decimals)} {up}"
    first, last = sorted((abs(low), abs(high)))
    return f"{fixed(first, decimals)} to {fixed(last, decimals)}"


def effect_sentence(results: Results, analysis: AnalysisSpec, row: Any) -> str:
    """What an effect says, with unit, interval, p, source, visit and n of N.

    Empty where the statistic cannot be said as a sentence; its row in the table says it.
    """
    if not is_number(row.estimate):
        return ""
    value, kind = float(row.estimate), statistic(row.statistic)
    decimals = estimate_decimals(row.estimate, row.ci_low, row.ci_high)
    unit = unit_of(row.endpoint)
    what = in_sentence(endpoint_words(row.endpoint))
    if analysis.derivation == "change":
        what = f"change of {what}"
    at, said = _where(results, analysis, row)
    more = "more" if value > 0 else "less"
    size = f"{fixed(abs(value), decimals)}{f' {unit}' if unit else ''}"
    if row.statistic == "slope" and analysis.type == "dose_response":
        step = results.study.dose_unit if analysis.dose else ""
        driver = in_sentence(label_words(row.group)) if row.group not in (None, "all") else "dose"
        head = f"Each further {step}" if step else f"Each further unit of {driver}"
        text = f"{head}: {size} {more} {what}{at}"
    elif kind.null == 0 and kind.scale == "endpoint" and "|" in str(row.group):
        text = f"{group_words(row.group).capitalize()}: {size} {more} {what}{at}"
    elif kind.ratio:
        name = kind.inline
        text = f"{group_words(row.group).capitalize() or endpoint_words(row.endpoint)}: {name} "
        text += f"{fixed(value, decimals)} for {what}{at}"
        more = ""
    else:
        groups = group_words(row.group)
        text = f"{groups.capitalize()}: {kind.inline} " if groups else f"{kind.words} "
        text += f"{fixed(value, decimals)} for {what}{at}"
        more = ""
    limits = []
    if is_number(row.ci_low) and is_number(row.ci_high):
        low, high = float(row.ci_low), float(row.ci_high)
        shown = (
            _signed_interval(low, high, decimals, "less", "more")
            if more
            else f"{fixed(low, decimals)} to {fixed(high, decimals)}"
        )
        limits.append(f"{100 * float(row.ci_level):g} % CI {shown}")
    p = _p_words(row)
    limits += [p] if p else []
    shown = f" ({'; '.join(limits)})" if limits else ""
    return f"{text}{shown}{f', {said}' if said else ''}."


def _p_words(row: Any) -> str:
    """The p of a row in words: the adjusted one of a family, else its own."""
    adjusted = getattr(row, "p_adjusted", None)
    text = p_value(adjusted if is_number(adjusted) else row.p_value)
    if not text:
        return ""
    sign, number = (f"{text[0]} ", text[1:]) if text[0] in "<>" else ("", text)
    equals = f"{sign}{number}" if sign else f"= {number}"
    return f"p adjusted {sign}{number}" if is_number(adjusted) else f"p {equals}"


def sentences(results: Results) -> list[Markup]:
    """The primary effects as sentences, each leading to its trace."""
    found = []
    for analysis, row in headlines(results)[0]:
        text = effect_sentence(results, analysis, row)
        if text and analysis.objective == "primary":
            head, _, rest = text.partition(" (")
            found.append(Markup("{}{}").format(statistic_link(row, head), f" ({rest}" * bool(rest)))
    return found


def _unit(results: Results, analysis: AnalysisSpec, row: Any) -> str:
    unit = statistic_unit(str(row.statistic), row.endpoint)
    if row.statistic == "slope" and analysis.type == "dose_response":
        per = results.study.dose_unit if analysis.dose else ""
        own = unit_of(row.endpoint)
        per = per or f"unit of {in_sentence(label_words(row.group))}"
        unit = f"{own or 'units'} per {per}"
    return unit


def _name(results: Results, analysis: AnalysisSpec, row: Any) -> Markup:
    visit = row.visit if row.visit != "all" else ""
    group = _group(analysis, row)
    source = _source(results, analysis)
    details = (statistic(row.statistic).words, group, visit, source)
    return Markup('{}<span class="sub">{}</span>').format(
        page.link(page.place(f"#analysis-{analysis.id}"), analysis_title(analysis)),
        ", ".join(text for text in details if text),
    )


def _value(results: Results, analysis: AnalysisSpec, row: Any) -> Any:
    if not is_number(row.estimate):
        note = str(row.note or "").removeprefix(NOT_COMPUTABLE).lstrip(": ")
        return Markup('not computable<span class="sub">{}</span>').format(note)
    unit = _unit(results, analysis, row)
    return Markup('<b>{}</b> {}{}<span class="sub">{}</span>').format(
        statistic_link(row, number_text(row)),
        interval_text(row),
        _adjusted_limits(row),
        unit,
    )


def _levels(rows: Sequence[Headline]) -> str:
    level = sorted({f"{100 * float(r.ci_level):g} %" for _, r in rows if is_number(r.ci_level)})
    return f"Estimates with confidence intervals ({', '.join(level)})" if level else "Estimates"


def primary_table(results: Results) -> tuple[str, Table | None]:
    """Effects of the primary analyses, or of the whole plan where none is called primary."""
    rows, _, any_primary = headlines(results)
    title = "Primary endpoints" if any_primary else "Main results"
    spans: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for analysis, row in rows:
        if all(is_number(v) for v in (row.estimate, row.ci_low, row.ci_high)):
            spans.setdefault((analysis.id, row.statistic), []).append(
                (float(row.estimate), float(row.ci_low), float(row.ci_high))
            )

    def drawn(analysis: AnalysisSpec, row: Any) -> Any:
        own, ratio = spans.get((analysis.id, row.statistic)), statistic(row.statistic).ratio
        if not own or not is_number(row.ci_low):
            return ""
        limits = float(row.ci_low), float(row.ci_high)
        return marks.forest_mark(
            float(row.estimate), *limits, marks.interval_axis(own, ratio), ratio
        )

    return title, _headline_table(results, rows, drawn, "Interval, no effect dotted", tested=True)


def reliability_table(results: Results) -> Table | None:
    """How well the primary endpoints were measured: coefficients on 0 to 1, without tests."""

    def drawn(analysis: AnalysisSpec, row: Any) -> Any:
        if statistic(row.statistic).scale != "reliability" or not is_number(row.estimate):
            return ""
        low, high = (float(v) if is_number(v) else None for v in (row.ci_low, row.ci_high))
        return marks.share_mark(float(row.estimate), low, high)

    table = _headline_table(results, headlines(results)[1], drawn, "0 to 1", tested=False)
    return table and replace(table, label="Reliability of the primary endpoints")


def _headline_table(
    results: Results,
    rows: Sequence[Headline],
    drawn: Callable[[AnalysisSpec, Any], Any],
    scale: str,
    *,
    tested: bool,
) -> Table | None:
    """Rows of the first screen: analysis, estimate, its picture on a scale, p where tested, n."""
    if not rows:
        return None
    body = []
    for one in rows:
        cells = [_name(results, *one), _value(results, *one), drawn(*one)]
        body.append([*cells, *[_p_cell(one[1])] * tested, count(one[1].n)])
    columns = [
        *heads("#=Analysis"),
        Column("Estimate [CI]", "number estimate", sortable=False),
        Column(scale, "drawn", sortable=False),
        *heads(*[">=p"] * tested, ">=n"),
    ]
    return Table(_levels(rows), columns, body)


def overview_table(results: Results) -> Table | None:
    """Every analysis with its first results, primary ones first."""
    order = {"primary": 0, "secondary": 1}
    entries = sorted(results.analyses, key=lambda a: order.get(str(a.objective), 2))
    body: list[list[Any]] = []
    for analysis in entries:
        kept = first_screen(results, analysis)
        rows = kept[kept["estimate"].notna()] if len(kept) else kept
        rows = rows.head(1 if analysis.kind.reliability else 2)
        name = page.link(page.place(f"#analysis-{analysis.id}"), analysis_title(analysis))
        objective = page.tag(str(analysis.objective or "planned"))
        if rows.empty:
            body.append([name, objective, "no result", "", "", "", ""])
        for row in rows.itertuples():
            message = (statistic(row.statistic).words, _group(analysis, row))
            tested = statistic(row.statistic).scale != "reliability"
            shown = Markup("<b>{}</b> {}").format(
                statistic_link(row, number_text(row)),
                interval_text(row),
            )
            body.append(
                [
                    name,
                    objective,
                    ", ".join(text for text in message if text),
                    Cell(shown, row.estimate),
                    _unit(results, analysis, row),
                    _p_cell(row) if tested else "",
                    count(row.n),
                ]
            )
    if not body:
        return None
    columns = heads("#Analysis", "Objective", "~Statistic", ">Estimate [CI]", "Unit", ">p", ">n")
    return Table("The first result of every planned analysis", columns, body)


def _group(analysis: AnalysisSpec, row: Any) -> str:
    """Group of a row, unless it is the dose that the analysis is of."""
    return "" if row.group == analysis.dose else group_words(row.group)


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


@dataclass(frozen=True)
class Status:
    """One statement of the status strip, and where its details are; ``css`` is ``good``, ``warn``,
    ``bad`` or empty, ``script`` a file beside the page with the value as it is known later.
    """

    name: str
    value: str
    css: str
    href: str
    script: str = ""


def second_agreement(results: Results) -> tuple[int, int]:
    """How many second computations agree with the estimate, and how many there are."""
    rows = results.all_statistics
    if rows.empty:
        return 0, 0
    pairs = rows[["estimate", "second_estimate"]].apply(pd.to_numeric, errors="coerce").dropna()
    gap = (pairs["estimate"] - pairs["second_estimate"]).abs()
    scale = pairs["estimate"].abs().clip(lower=1.0)
    return int((gap <= AGREES_WITHIN * scale).sum()), len(pairs)


def status_strip(results: Results, decisions: Sequence[Decision] = ()) -> list[Status]:
    """What the numbers rest on: plan, second program, products, data sets, reads, review."""
    found = [_plan_status(results)]
    same, total = second_agreement(results)
    if total:
        css = "good" if same == total else "bad"
        found.append(Status("Second program agrees", f"{same} of {total}", css, "#methods"))
    # The products are hashed again after this page was written, which is one of them.
    table = "../verification/verified.tsv"
    found.append(
        Status("Products", "not yet verified (snakemake verify)", "", table, "verified.js")
    )
    if results.conformance_known:
        errors = int((results.conformance["severity"] == "error").sum())
        value = f"{errors} errors" if errors else "no error"
        css, href = "bad" if errors else "good", "../submission/datasets/conformance.tsv"
        found.append(Status("Submission data sets", value, css, href))
    lock = next((e for e in results.exhibits if e.section == "reading" and "lock" in e.title), None)
    if lock is not None:
        state = lock.caption.partition(". ")[0].rstrip(".")
        css = "bad" if lock.banner else "good"
        found.append(Status("Reads", state or lock.title, css, "#reading"))
    if results.visits:
        decided = {(d.participant_id, d.visit) for d in current(decisions)}
        there = {(visit.participant_id, visit.visit) for visit in results.visits}
        value = f"{len(decided & there)} of {len(there)} visits"
        css = "good" if there <= decided else "warn"
        found.append(Status("Review decided", value, css, "review.html"))
    return found


def _plan_status(results: Results) -> Status:
    plan = next((e for e in results.exhibits if e.name == "plan"), None)
    if not results.settings.locked_plan:
        return Status("Plan", "not locked", "warn", "#methods")
    title = plan.title if plan else ""
    changed = "deviations" in title
    value = title.partition(" from ")[0] if changed else "locked, as run"
    return Status("Plan", value, "warn" if changed else "good", "#methods")


def glance_facts(results: Results) -> list[tuple[str, str]]:
    """What was studied, for the first screen: pairs of a word and its value."""
    people = results.participants
    facts = [("Study", results.study.id)]
    facts.append(("Disease", results.study.disease))
    if results.study.sap_version:
        facts.append(("Analysis plan", results.study.sap_version))
    for name, word in (("arm", "Arms"), ("site", "Sites")):
        if name in people and people[name].notna().any():
            levels = (
                arms_of(results) if name == "arm" else sorted(set(people[name].dropna().map(str)))
            )
            facts.append((word, ", ".join(levels) if len(levels) <= 4 else str(len(levels))))
    if results.tables.visit_order:
        facts.append(("Visits", ", ".join(results.tables.visit_order)))
    return facts


def count_tiles(results: Results) -> list[tuple[str, str, str, str]]:
    """Counts of the first screen.

    Returns
    -------
    list of tuple
        Word, number, ``warn`` or ``bad`` where the number asks for a look, and the section.
    """
    found = counts(results)

    def css(number: int, word: str) -> str:
        return word if number else ""

    unavailable, charter = found.unavailable, found.out_of_charter
    return [
        ("participants", str(found.participants), "", "#participants"),
        ("with images", str(found.with_images), "", "#images"),
        ("visits", str(found.visits), "", "#images"),
        ("scans read", str(found.scans), "", "#images"),
        ("values", str(found.values), "", "#endpoints"),
        ("values missing", str(unavailable), css(unavailable, "warn"), "#unavailable"),
        ("scans failed", str(found.failed_scans), css(found.failed_scans, "bad"), "#failures"),
        ("scans outside charter", str(charter), css(charter, "warn"), "#acquisition"),
        (
            "subjects flagged",
            str(found.flagged_subjects),
            css(found.flagged_subjects, "warn"),
            "#images",
        ),
    ]


@dataclass(frozen=True)
class Download:
    """A product that the page links to: words and address from the page."""

    words: str
    href: str


#: Products of the study beside the report. The last ones are written after it, from it.
_DOWNLOADS = (
    ("Report (PDF)", "report.pdf"),
    ("Tables (RTF, HTML)", "tables/index.html"),
    ("Every statistic (TSV)", "analysis_results.tsv"),
    ("Every number (TSV)", "../endpoints/measurements.tsv"),
)
_SUBMISSION = (
    ("Submission summary (PDF)", "../submission/09_summary.pdf"),
    ("Imaging charter (PDF)", "../submission/01_charter.pdf"),
    ("SOP (PDF)", "../submission/sop.pdf"),
    ("Reviewer's guide (PDF)", "../submission/datasets/reviewers_guide.pdf"),
    ("Data definitions", "../submission/datasets/define.html"),
    ("define.xml", "../submission/datasets/define.xml"),
    ("ARS (JSON)", "../submission/datasets/ars.json"),
)
_PROVENANCE = (
    ("How to reproduce", "../provenance/REPRODUCE.md"),
    ("Manifest", "../provenance/manifest.json"),
    ("RO-Crate", "../ro-crate-metadata.json"),
    ("Verification", "../verification/verified.tsv"),
)


def downloads(results: Results) -> list[tuple[str, list[Download]]]:
    """What can be downloaded, by group; the submission only where this run wrote one."""
    groups: list[tuple[str, Sequence[tuple[str, str]]]] = [("Report", _DOWNLOADS)]
    if results.conformance_known:
        groups.append(("Submission", _SUBMISSION))
    groups.append(("Provenance", _PROVENANCE))
    return [(name, [Download(*item) for item in items]) for name, items in groups]
