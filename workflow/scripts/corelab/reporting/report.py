"""The study report: one offline page for the study and one for each subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from corelab import __version__
from corelab.measurement.selection import Tables, as_list
from corelab.provenance.products import write_text
from corelab.reporting import charts, page, pictures, viewer
from corelab.reporting.arrange import arrange, first_screen
from corelab.reporting.attention import (
    Attention,
    attention,
    counts,
    flagged_subjects,
    flow_steps,
    is_not_computable,
)
from corelab.reporting.descriptive import descriptions
from corelab.reporting.figures import Figure, arms_of, course, figures_of
from corelab.reporting.methods import (
    DICTIONARY,
    analysis_sentence,
    definitions,
    deviations,
    methods_text,
    software_versions,
)
from corelab.reporting.numbers import (
    count,
    estimate,
    file_size,
    interval,
    is_number,
    observed,
    p_value,
    significant,
)
from corelab.reporting.page import Cell, Column, Table
from corelab.reporting.results import (
    NOT_COMPUTABLE,
    Results,
    read_results,
    subject_page,
)
from corelab.reporting.vocabulary import (
    ANALYSIS_WORDS,
    KIND_WORDS,
    LABEL_WORDS,
    RATIO_STATISTICS,
    VERDICT_WORDS,
    criterion_words,
    endpoint_words,
    group_words,
    limits_for,
    statistic_unit,
    statistic_words,
)

#: Bytes of pictures on the study's page; further subjects have theirs on their own pages.
PICTURE_BUDGET_BYTES = 3_400_000
#: Charts per analysis on the study's page.
MAX_FIGURES = 8
MAX_SUBJECT_PAGES = 1000

#: Parts of the report that analyses belong to.
PARTS = (
    (
        "reproducibility",
        "Reproducibility",
        ("agreement", "overlap"),
        "No agreement or overlap analysis is in the plan.",
    ),
    (
        "pharmacodynamics",
        "Pharmacodynamics",
        ("correlation", "comparison", "dose_response", "ordinal", "quantile"),
        "No pharmacodynamic analysis is in the plan.",
    ),
    (
        "survival",
        "Time to event and radiomics",
        ("survival", "progression", "radiomics"),
        "No time-to-event or radiomics analysis is in the plan.",
    ),
    ("phantom", "Phantom scans", ("phantom",), "No phantom analysis is in the plan."),
)


@dataclass(frozen=True)
class AnalysisView:
    """One analysis as the page shows it."""

    id: str
    title: str
    objective: str
    sentence: str
    note: str
    table: Table | None
    more: Table | None
    figures: list[Figure]


@dataclass(frozen=True)
class Card:
    """A subject in the gallery."""

    name: str
    page: str
    facts: str
    flag: str
    caption: str
    picture: pictures.Picture | None


def analysis_title(analysis: Mapping[str, Any]) -> str:
    """Title of an analysis: as planned, else from what it does.

    Examples
    --------
    >>> analysis_title({"id": "a", "type": "agreement", "endpoint": "infarct_volume"})
    'Agreement: infarct volume'
    """
    given = analysis.get("title")
    if given:
        return str(given)
    kind = ANALYSIS_WORDS.get(str(analysis.get("type")), str(analysis.get("type") or "Analysis"))
    what = endpoint_words(",".join(map(str, as_list(analysis.get("endpoint"))))).lower()
    what = what or str(analysis.get("label") or analysis.get("outcome") or "")
    return f"{kind}: {what}" if what else kind


def _how(row: Any) -> Markup:
    return page.more("how", _how_lines(row))


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


def _number_cell(row: Any, failed: bool) -> Any:
    if failed:
        return Cell("not computable", "")
    return Cell(estimate(row.estimate, row.ci_low, row.ci_high), row.estimate)


def _long_table(rows: pd.DataFrame, caption: str, label: str) -> Table:
    """One row per statistic; a column that says the same in every row goes into the caption."""
    groups = list(dict.fromkeys(group_words(group) for group in rows["group"]))
    visits = ["pooled" if v == "all" else str(v) for v in dict.fromkeys(rows["visit"])]
    several = len(set(rows["endpoint"])) > 1
    tested = rows["p_value"].notna().any()
    has_adjusted = "p_adjusted" in rows and any(map(is_number, rows["p_adjusted"]))
    columns = [
        Column("Statistic"),
        *([Column("Endpoint")] if several else []),
        *([Column("Group")] if len(groups) > 1 else []),
        *([Column("Visit")] if len(visits) > 1 else []),
        Column("Estimate", "number main"),
        Column("CI", "number"),
        *([Column("p", "number")] if tested else []),
        *([Column("p adjusted", "number")] if has_adjusted else []),
        Column("n", "number"),
        Column("How", "why", sortable=False),
    ]
    body = []
    for row, failed in zip(rows.itertuples(), is_not_computable(rows), strict=True):
        unit = statistic_unit(str(row.statistic), row.endpoint)
        words = statistic_words(str(row.statistic)) + (f", {unit}" if unit else "")
        behind: Any = _how(row)
        if failed:
            behind = str(row.note).removeprefix(NOT_COMPUTABLE).lstrip(": ")
        body.append(
            [
                words,
                *([endpoint_words(row.endpoint)] if several else []),
                *([group_words(row.group) or "all"] if len(groups) > 1 else []),
                *(["pooled" if row.visit == "all" else row.visit] if len(visits) > 1 else []),
                _number_cell(row, failed),
                Cell(interval(row.ci_low, row.ci_high), row.ci_low),
                *([Cell(p_value(row.p_value), row.p_value)] if tested else []),
                *([p_value(row.p_adjusted)] if has_adjusted else []),
                Cell(count(row.n), row.n),
                behind,
            ]
        )
    told = [groups[0] if len(groups) == 1 else "", visits[0] if len(visits) == 1 else ""]
    told.append(_levels(rows))
    note = "; ".join(text for text in told if text and text != "pooled")
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
        Column("How", "why", sortable=False),
    ]
    body = []
    for statistic, found in cells.items():
        first = next(iter(found.values()))
        unit = statistic_unit(statistic, first.endpoint)
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
                    estimate(one.estimate, one.ci_low, one.ci_high),
                    interval(one.ci_low, one.ci_high),
                )
                shown.append(Cell(text, one.estimate))
        words = statistic_words(statistic) + (f", {unit}" if unit else "")
        body.append([words, *shown, page.more("how", _behind(found, groups))])
    numbers = rows.groupby("group", sort=False)["n"].max()
    told = [
        f"n = {count(numbers[group])}" + (f" ({group_words(group)})" if len(groups) > 1 else "")
        for group in groups
        if group in numbers and is_number(numbers[group])
    ]
    if len(set(numbers.dropna())) == 1:
        told = [f"n = {count(numbers.iloc[0])}"]
    note = "; ".join(text for text in (*told, _levels(rows)) if text)
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
    results: Results, analysis: Mapping[str, Any]
) -> tuple[Table | None, Table | None]:
    """The main table of an analysis and the table of its further statistics."""
    found = arrange(results, analysis)
    if found is None:
        return None, None
    label = f"Estimates of {analysis['id']}"
    refused = "; ".join(f"{group_words(g) or 'all sources'}: {why}" for g, why in found.refused)
    if found.groups:
        core = _side_by_side(found.core, found.groups, "Estimates", label)
    else:
        core = _long_table(found.core, "Estimates", label)
    if refused:
        core = replace(core, note=f"{core.note} Not computable: {refused}.")
    if found.more.empty:
        return core, None
    return core, _long_table(found.more, "Further statistics", f"Further {label.lower()}")


def _analysis_view(results: Results, analysis: Mapping[str, Any]) -> AnalysisView:
    return AnalysisView(
        str(analysis["id"]),
        analysis_title(analysis),
        str(analysis.get("objective") or "planned"),
        analysis_sentence(analysis) if analysis.get("type") else "Not in the plan.",
        str(analysis.get("note") or ""),
        *statistics_tables(results, analysis),
        figures_of(results, analysis)[:MAX_FIGURES],
    )


def _primary(results: Results) -> tuple[str, Table | None]:
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
            value: Any = Markup("<b>{}</b> {}").format(
                estimate(row.estimate, row.ci_low, row.ci_high), interval(row.ci_low, row.ci_high)
            )
        else:
            note = str(row.note or "").removeprefix(NOT_COMPUTABLE).lstrip(": ")
            value = Markup('not computable<span class="sub">{}</span>').format(note)
        body.append([name, value, drawn, p_value(row.p_value), count(row.n)])
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


def _facts(results: Results) -> list[tuple[str, str]]:
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


def _counts(results: Results) -> list[tuple[str, str, str]]:
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


def participants_table(results: Results) -> Table:
    """Participants by arm: how many, their age and sex, their sites."""
    people = results.participants
    groups = [(arm, people[people["arm"].map(str) == arm]) for arm in arms_of(results)]
    groups.append(("all", people))
    with_images = set(results.image_subjects)
    body = []
    for name, rows in groups:
        empty = pd.Series(dtype=float)
        age = pd.to_numeric(rows["age"], errors="coerce").dropna() if "age" in rows else empty
        age_text = (
            f"{significant(age.median())} ({significant(age.min())} to {significant(age.max())})"
            if len(age)
            else ""
        )
        sexes = rows["sex"].dropna().map(str) if "sex" in rows else empty
        sex = {str(k): int(v) for k, v in sexes.value_counts().sort_index().items()}
        body.append(
            [
                name,
                len(rows),
                sum(str(p) in with_images for p in rows["participant_id"]),
                age_text,
                ", ".join(f"{k} {v}" for k, v in sex.items()),
                rows["site"].dropna().nunique() if "site" in rows else "",
            ]
        )
    columns = [
        Column("Arm"),
        Column("Participants", "number"),
        Column("With images", "number"),
        Column("Age, median (range)", "number", sortable=False),
        Column("Sex", sortable=False),
        Column("Sites", "number"),
    ]
    return Table("Participants by arm", columns, body)


def _endpoints_table(results: Results, *, variants: bool) -> Table | None:
    """Endpoints by visit, source and arm; or the pipeline's variants (other cut-offs) alone."""
    found = [d for d in descriptions(results) if d.source.startswith("pipeline:") == variants]
    if not found:
        return None
    body = []
    for d in found:
        spread = f"{significant(d.q1)} to {significant(d.q3)}" if d.n else ""
        body.append(
            [
                endpoint_words(d.endpoint),
                d.visit,
                d.source,
                d.group,
                d.n,
                d.unavailable or "",
                Cell(significant(d.median), d.median) if d.n else "",
                spread,
                f"{significant(d.low)} to {significant(d.high)}" if d.n else "",
                d.unit,
            ]
        )
    columns = [
        Column("Endpoint"),
        Column("Visit"),
        Column("Source"),
        Column("Arm"),
        Column("n", "number"),
        Column("Not available", "number"),
        Column("Median", "number main"),
        Column("Quartiles", "number", sortable=False),
        Column("Range", "number", sortable=False),
        Column("Unit"),
    ]
    return Table(
        "The same endpoints by other cut-offs and engines"
        if variants
        else "Endpoints by visit, source and arm",
        columns,
        body,
        "Whole lesion, first repeat.",
        "endpoints/measurements.tsv",
    )


def _parts(results: Results) -> list[dict[str, Any]]:
    parts = []
    planned = {str(entry["id"]) for entry in results.analyses}
    for part_id, title, kinds, empty in PARTS:
        entries = [entry for entry in results.analyses if entry.get("type") in kinds]
        views = [_analysis_view(results, entry) for entry in entries]
        if not views and part_id in {"survival", "phantom"}:
            continue
        parts.append(
            {
                "id": part_id,
                "title": title,
                "intro": "",
                "analyses": views,
                "tables": [],
                "empty": empty,
            }
        )
    extra = sorted(set(results.all_statistics["analysis_id"]) - planned)
    if extra:
        views = [_analysis_view(results, results.analysis(str(name))) for name in extra]
        parts.append(
            {
                "id": "exploratory",
                "title": "Exploratory",
                "intro": "These analyses are not in the plan.",
                "analyses": views,
                "tables": [],
                "empty": "",
            }
        )
    if results.certificate is not None:
        parts.append(
            {
                "id": "certificate",
                "title": "Certificate of reproduced numbers",
                "intro": "",
                "analyses": [],
                "tables": [_certificate(results.certificate)],
                "empty": "",
            }
        )
    return parts


def _certificate(frame: pd.DataFrame) -> Table:
    rank = {"different": 0, NOT_COMPUTABLE: 1, "within_rounding": 2, "reproduced": 3}
    rows = frame.assign(_rank=frame["verdict"].map(rank)).sort_values("_rank", kind="stable")
    names = [name for name in frame.columns if name != "verdict"]
    body = [[*(getattr(r, n) for n in names), page.tag(str(r.verdict))] for r in rows.itertuples()]
    reproduced = frame["verdict"].isin(["reproduced", "within_rounding"]).sum()
    columns = [Column(name.replace("_", " ").capitalize()) for name in [*names, "verdict"]]
    return Table(
        f"{reproduced} of {len(frame)} published numbers reproduced",
        columns,
        [["" if cell is None else cell for cell in row] for row in body],
        "",
        "verification/certificate.tsv",
    )


def _person(value: str, pages: Mapping[str, str]) -> Any:
    return Markup('<a href="{}">{}</a>').format(pages[value], value) if value in pages else value


def _acquisition_table(
    results: Results, pages: Mapping[str, str], subject: str | None = None
) -> Table | None:
    frame = results.acquisition
    if subject is not None:
        frame = frame[frame["participant_id"] == subject]
    if frame.empty:
        return None
    rank = {"fail": 0, "not_assessable": 1, "pass": 2}
    rows = frame.assign(_rank=frame["verdict"].map(rank)).sort_values(
        ["_rank", "participant_id", "visit", "kind", "criterion"], kind="stable"
    )
    body = []
    for row in rows.itertuples():
        name, unit, direction = criterion_words(str(row.criterion))
        body.append(
            [
                _person(str(row.participant_id), pages),
                row.visit,
                KIND_WORDS.get(str(row.kind), row.kind),
                f"{name}, {unit}" if unit else name,
                observed(row.value),
                f"{direction} {observed(row.limit)}".strip(),
                page.tag(VERDICT_WORDS.get(str(row.verdict), str(row.verdict)), str(row.verdict)),
            ]
        )
    tally = frame["verdict"].value_counts()
    note = ", ".join(f"{tally[name]} {VERDICT_WORDS[name]}" for name in rank if name in tally.index)
    columns = [
        Column("Subject"),
        Column("Visit"),
        Column("Scan"),
        Column("Criterion"),
        Column("Observed", "number"),
        Column("Charter", "number"),
        Column("Verdict"),
    ]
    return Table("Acquisition checks", columns, body, f"{note}.", "endpoints/acquisition.tsv")


def _gates_table(
    results: Results, pages: Mapping[str, str], subject: str | None = None
) -> Table | None:
    rank = {"FAIL": 0, "WARN": 1, "PASS": 2}
    rows = [
        (rank.get(str(gate.get("verdict")).upper(), 3), visit, gate)
        for visit in results.visits
        if subject in (None, visit.participant_id)
        for gate in visit.gates
    ]
    if not rows:
        return None
    rows.sort(key=lambda item: (item[0], item[1].participant_id, item[1].visit))
    body = [
        [
            _person(visit.participant_id, pages),
            visit.visit,
            ", ".join(t for t in criterion_words(str(gate.get("criterion", "")))[:2] if t),
            observed(gate.get("value")),
            observed(gate.get("limit")),
            page.tag(str(gate.get("verdict", "")).lower()),
        ]
        for _, visit, gate in rows
    ]
    columns = [
        Column("Subject"),
        Column("Visit"),
        Column("Gate"),
        Column("Observed", "number"),
        Column("Limit", "number"),
        Column("Verdict"),
    ]
    return Table("Quality gates of perfusion series", columns, body)


def _registration_table(results: Results, pages: Mapping[str, str]) -> Table | None:
    if not results.normalised:
        return None
    names: list[str] = []
    for record in results.normalised.values():
        numbers = [k for k, v in (record.get("quality") or {}).items() if is_number(v)]
        names += [name for name in numbers if name not in names]
    names = names[:6]
    rows = sorted(
        results.normalised.items(), key=lambda item: (item[1].get("status") == "ok", item[0])
    )
    body = [
        [
            _person(subject, pages),
            record.get("method") or "",
            (record.get("anchor") or {}).get("kind", ""),
            *(significant((record.get("quality") or {}).get(name)) for name in names),
            page.tag(str(record.get("status", ""))),
            record.get("reason") or "",
        ]
        for subject, record in rows
    ]
    columns = [
        Column("Subject"),
        Column("Method"),
        Column("Anchor"),
        *(Column(name.replace("_", " "), "number") for name in names),
        Column("Status"),
        Column("Reason", "why"),
    ]
    return Table("Registration of each subject, failures first", columns, body)


def _unavailable_table(results: Results, pages: Mapping[str, str]) -> Table | None:
    frame = results.measurements
    rows = frame[frame["status"].notna() & (frame["status"] != "ok")]
    if rows.empty:
        return None
    rank = {"failed": 0, "excluded": 1, "missing": 2, NOT_COMPUTABLE: 3}
    rows = rows.assign(_rank=rows["status"].map(rank)).sort_values(
        ["_rank", "participant_id", "visit", "endpoint"], kind="stable"
    )
    body = [
        [
            _person(str(row.participant_id), pages),
            row.visit or "",
            endpoint_words(row.endpoint),
            row.source or "",
            "" if row.region == "all" else row.region,
            page.tag(str(row.status)),
            row.reason or "",
        ]
        for row in rows.itertuples()
    ]
    columns = [
        Column("Subject"),
        Column("Visit"),
        Column("Endpoint"),
        Column("Source"),
        Column("Region"),
        Column("Status"),
        Column("Reason", "why"),
    ]
    return Table("Values that could not be had", columns, body, "", "endpoints/measurements.tsv")


def _findings_table(results: Results) -> Table | None:
    frame = results.findings.fillna("")
    if frame.empty:
        return None
    rank = {"error": 0, "warning": 1, "note": 2}
    rows = frame.assign(_rank=frame["severity"].map(rank)).sort_values("_rank", kind="stable")
    body = [
        [
            page.tag(str(row.severity)),
            row.sheet,
            row.row,
            row.column,
            row.value,
            row.message,
            row.remedy,
        ]
        for row in rows.itertuples()
    ]
    columns = [
        Column("Severity"),
        Column("Sheet"),
        Column("Row", "number"),
        Column("Column"),
        Column("Value"),
        Column("What is wrong", "wide"),
        Column("How to mend it", "why"),
    ]
    return Table("Findings in sheets and headers", columns, body, "", "preflight/findings.tsv")


def _files_table(results: Results) -> Table:
    known = {
        "endpoints/measurements.tsv": "every number, one row each",
        "endpoints/overlap.tsv": "overlap of masks, case by case",
        "endpoints/acquisition.tsv": "scans against the imaging charter",
        "endpoints/flow.tsv": "flow from scans listed to values",
        "preflight/findings.tsv": "findings in sheets and headers",
        "verification/certificate.tsv": "published numbers, recomputed",
        **{f"statistics/{name}.tsv": f"{name} statistics" for name in results.statistics},
        **{f"maps/{m.path.name}": f"frequency of {m.label}" for m in results.maps},
    }
    body = []
    for name, what in known.items():
        path = results.folder / name
        if path.is_file():
            href = Markup('<a href="../{}">{}</a>').format(quote(name), name)
            size = path.stat().st_size
            body.append([href, what, Cell(file_size(size), size)])
    columns = [Column("File"), Column("What it holds"), Column("Size", "number")]
    return Table("Tables and maps beside this report", columns, body)


def _limits(results: Results) -> list[Any]:
    return limits_for(sorted(set(results.measurements["endpoint"].dropna())))


def _maps(results: Results) -> list[dict[str, Any]]:
    found = []
    for frequency in results.maps:
        picture, peak = pictures.frequency_picture(frequency)
        side = frequency.sidecar
        number = side.get("n", side.get("n_subjects", side.get("denominator_n")))
        basis = side.get("denominator")
        parts = [f"highest {100 * peak:.0f} %"]
        if number is not None:
            parts.insert(0, f"{number} subjects" + (f" {basis}" if basis else ""))
        words = LABEL_WORDS.get(frequency.label, frequency.label)
        found.append(
            {
                "title": f"Frequency of {words}",
                "caption": "Share of subjects at each voxel of MNI152 space: "
                + ", ".join(parts)
                + ".",
                "picture": picture,
                "peak": f"{100 * peak:.0f} %",
            }
        )
    return found


def _subject_facts(results: Results, subject: str) -> list[tuple[str, str]]:
    people = results.participants
    rows = people[people["participant_id"] == subject]
    if rows.empty:
        return []
    row = rows.iloc[0]
    facts = []
    for name in people.columns:
        value = row[name]
        if name != "participant_id" and value is not None and not pd.isna(value):
            text = significant(value) if isinstance(value, float) else str(value)
            facts.append((name.replace("_", " "), text))
    return facts


def _scans_table(results: Results, subject: str) -> Table:
    body = []
    for visit in results.visits_of(subject):
        for scan in visit.scans:
            size = scan.get("voxel_size_mm") or []
            shape = scan.get("shape") or []
            told = [scan.get("reason"), scan.get("remedy"), *(scan.get("notes") or [])]
            body.append(
                [
                    Markup('<span class="mono" id="{}">{}</span>').format(
                        f"scan-{scan['scan_id']}", scan["scan_id"]
                    ),
                    visit.visit,
                    KIND_WORDS.get(str(scan.get("kind")), scan.get("kind")),
                    scan.get("reader") or "",
                    page.tag(str(scan.get("status", "ok"))),
                    " x ".join(str(n) for n in shape),
                    " x ".join(f"{float(v):.2f}" for v in size),
                    Markup('<span class="mono" title="{}">{}</span>').format(
                        scan.get("sha256") or "", str(scan.get("sha256") or "")[:12]
                    ),
                    ". ".join(str(text) for text in told if text),
                ]
            )
    columns = [
        Column("Scan"),
        Column("Visit"),
        Column("Kind"),
        Column("Reader"),
        Column("Status"),
        Column("Voxels", "number", sortable=False),
        Column("Voxel size, mm", "number", sortable=False),
        Column("SHA-256"),
        Column("What to know", "why wide"),
    ]
    return Table("Scans as they were read", columns, body)


def _values_table(frame: pd.DataFrame, caption: str, scans: set[str]) -> Table | None:
    if frame.empty:
        return None
    body = []
    for row in frame.itertuples():
        ids = [text for text in str(row.scan_ids or "").split(",") if text]
        links = Markup(", ").join(
            Markup('<a href="#scan-{}">{}</a>').format(text, text) if text in scans else text
            for text in ids
        )
        behind = page.lines(
            [
                ("row", row.row_id or ""),
                ("full value", f"{row.value:.12g}" if is_number(row.value) else ""),
                ("scans", links),
            ]
        )
        known = row.status == "ok"
        body.append(
            [
                endpoint_words(row.endpoint),
                row.visit or "",
                row.source or "",
                row.repeat or "",
                "" if row.region == "all" else row.region,
                Cell(significant(row.value), row.value) if known else page.tag(str(row.status)),
                row.unit or "",
                row.reason or "",
                page.more("trace", behind),
            ]
        )
    columns = [
        Column("Endpoint"),
        Column("Visit"),
        Column("Source"),
        Column("Repeat", "number"),
        Column("Region"),
        Column("Value", "number main"),
        Column("Unit"),
        Column("Reason", "why"),
        Column("Behind it", "why", sortable=False),
    ]
    return Table(caption, columns, body, "", "endpoints/measurements.tsv")


def _overlap_table(frame: pd.DataFrame) -> Table | None:
    if frame.empty:
        return None
    body = [
        [
            row.label or "",
            row.visit or "",
            f"{row.source_a} vs {row.source_b}",
            row.metric,
            Cell(significant(row.value), row.value),
            row.reason or "",
        ]
        for row in frame.itertuples()
    ]
    columns = [
        Column("Label"),
        Column("Visit"),
        Column("Masks"),
        Column("Measure"),
        Column("Value", "number main"),
        Column("Reason", "why"),
    ]
    return Table("Overlap of masks", columns, body, "", "endpoints/overlap.tsv")


def _common(results: Results) -> dict[str, Any]:
    return {
        "version": __version__,
        "css": Markup(page.asset("report.css")),
        "script": Markup(page.asset("report.js")),
        "study_id": str(results.study.get("id", "")),
        "sap_version": str(results.study.get("sap_version") or ""),
        "fingerprint": results.fingerprint,
    }


def _subject_html(
    results: Results,
    subject: str,
    panels: Sequence[Sequence[pictures.Panel]],
    neighbours: tuple[str, str],
    pages: Mapping[str, str],
    concerns: Sequence[Attention],
) -> str:
    """One subject's page."""
    visits = results.visits_of(subject)
    shown: list[pictures.Picture] = []
    for group in panels:
        for panel in group:
            outlined = ", ".join(o.name for o in panel.outlines) or "nothing"
            name = KIND_WORDS.get(panel.kind, panel.kind)
            alt = f"Axial slices of {subject}, {panel.visit}, {name}; outlined: {outlined}"
            drawn = pictures.mosaic([panel], slices=7, tile=176, alt=alt)
            shown.append(
                pictures.Picture(
                    drawn.data,
                    drawn.width,
                    drawn.height,
                    alt,
                    drawn.legend,
                    f"{panel.visit}: {name}",
                )
            )
    scans, left = viewer.viewer_scans(panels)
    rows = results.measurements[results.measurements["participant_id"] == subject]
    whole = rows[rows["region"].fillna("all") == "all"]
    regions = rows[rows["region"].fillna("all") != "all"]
    scan_ids = {str(scan["scan_id"]) for visit in visits for scan in visit.scans}
    record = results.normalised.get(subject, {})
    registration = [
        (key, str(record[key]))
        for key in ("method", "status", "reason", "preset")
        if record.get(key)
    ]
    registration += [
        (key.replace("_", " "), significant(value))
        for key, value in (record.get("quality") or {}).items()
        if is_number(value)
    ]
    contents = [("subject", "Subject")]
    if visits:
        contents += [("images", "Images"), ("scans", "Scans")]
    contents.append(("values", "Values"))
    scripts = [page.asset("report.js")]
    extra: list[str] = []
    if scans:
        scripts.append(page.asset("viewer.js"))
        extra.append(f"'sha256-{viewer.niivue_sha256()}'")
    return page.render(
        "subject.html.j2",
        **_common(results),
        policy=page.security_policy(scripts, extra),
        page_title=f"{subject}, {results.study.get('id', '')}",
        name=subject,
        contents=contents,
        previous=neighbours[0],
        next=neighbours[1],
        pages=pages,
        facts=_subject_facts(results, subject),
        attention=[Attention(a.severity, a.topic, a.text, (), "") for a in concerns],
        has_images=bool(visits),
        volumes=Markup(viewer.volumes_json(scans)) if scans else "",
        volumes_left=left,
        niivue=Markup(viewer.niivue_source()) if scans else "",
        viewer_script=Markup(page.asset("viewer.js")),
        pictures=shown,
        scans=_scans_table(results, subject),
        acquisition=_acquisition_table(results, {}, subject),
        gates=_gates_table(results, {}, subject),
        registration=registration,
        values=_values_table(whole, "Values of the whole lesion", scan_ids),
        regions=_values_table(regions, "Values by atlas region", scan_ids),
        overlap=_overlap_table(results.overlap[results.overlap["participant_id"] == subject]),
    )


def _write_subjects(
    results: Results, folder: Path, pages: Mapping[str, str], flags: Mapping[str, str]
) -> tuple[list[Card], int]:
    """Write the subjects' pages; give the cards of those with images, flagged ones first."""
    concerns: dict[str, list[Attention]] = {}
    for item in attention(results):
        for subject in item.subjects:
            concerns.setdefault(subject, []).append(item)
    rank = {"error": 0, "warning": 1}
    names = list(pages)
    image_names = set(results.image_subjects)
    order = sorted(names, key=lambda name: rank.get(flags.get(name, ""), 2))
    cards, spent, left = [], 0, 0
    for name in order:
        panels = [pictures.visit_panels(v, results.folder) for v in results.visits_of(name)]
        position = names.index(name)
        neighbours = (
            pages[names[position - 1]] if position > 0 else "",
            pages[names[position + 1]] if position + 1 < len(names) else "",
        )
        html = _subject_html(results, name, panels, neighbours, pages, concerns.get(name, []))
        write_text(html, folder / subject_page(name))
        if name not in image_names:
            continue
        picture = pictures.subject_picture(name, panels)
        caption = picture.caption if picture else "no image could be shown"
        if picture and spent + len(picture.uri) > PICTURE_BUDGET_BYTES:
            picture, left = None, left + 1
        spent += len(picture.uri) if picture else 0
        facts = ", ".join(
            text for key, text in _subject_facts(results, name) if key in {"arm", "site"}
        )
        cards.append(Card(name, pages[name], facts, flags.get(name, ""), caption, picture))
    return cards, left


def _others_table(
    results: Results, pages: Mapping[str, str], flags: Mapping[str, str]
) -> Table | None:
    """Subjects without images of their own."""
    images = set(results.image_subjects)
    names = [name for name in results.subjects if name not in images]
    if not names:
        return None
    rows = results.measurements
    ok = rows[rows["status"] == "ok"]["participant_id"].value_counts()
    gone = rows[rows["status"].notna() & (rows["status"] != "ok")]["participant_id"].value_counts()
    facts = {name: dict(_subject_facts(results, name)) for name in names}
    shown = [key for key in ("arm", "site") if any(key in f for f in facts.values())]
    body = [
        [
            _person(name, pages),
            *(facts[name].get(key, "") for key in shown),
            int(ok.get(name, 0)),
            int(gone.get(name, 0)) or "",
            page.tag(flags[name]) if name in flags else "",
        ]
        for name in names
    ]
    columns = [
        Column("Subject"),
        *(Column(key.capitalize()) for key in shown),
        Column("Values", "number"),
        Column("Not available", "number"),
        Column("Flag"),
    ]
    return Table("Subjects with values from tables only", columns, body)


def write_report(
    folder: str | Path,
    config: Mapping[str, Any],
    participants: pd.DataFrame,
    *,
    tables: Tables | None = None,
) -> Path:
    """Write the study's page and the subjects' pages.

    Parameters
    ----------
    folder
        ``<results_dir>/<study.id>``.
    config
        The resolved config.
    participants
        The participants sheet.
    tables
        What the analyses saw; where it is None, the sheets named in the config are read.

    Returns
    -------
    Path
        ``report/index.html``. Every page is one file below 6 MB that asks no network; equal
        results give equal bytes.
    """
    results = read_results(folder, config, participants, tables=tables)
    target = results.folder / "report"
    names = results.subjects
    if len(names) > MAX_SUBJECT_PAGES:
        images = set(results.image_subjects)
        names = sorted(names, key=lambda name: name not in images)[:MAX_SUBJECT_PAGES]
    pages = {name: quote(subject_page(name)) for name in names}
    if target.is_dir():
        for stale in target.glob("sub-*.html"):
            stale.unlink()
    flags = flagged_subjects(results)
    cards, left = _write_subjects(results, target, pages, flags)
    write_text(_index_html(results, pages, flags, cards, left), target / "index.html")
    return target / "index.html"


def _index_html(
    results: Results,
    pages: Mapping[str, str],
    flags: Mapping[str, str],
    cards: Sequence[Card],
    left: int,
) -> str:
    """The study's page."""
    primary_title, primary = _primary(results)
    parts = _parts(results)
    endpoints = list(dict.fromkeys(results.measurements["endpoint"].dropna()))
    courses = [c for c in (course(results, name) for name in endpoints) if c is not None]
    differ = [[kind, what, detail] for kind, what, detail in deviations(results)]
    contents = [
        ("glance", "At a glance"),
        ("participants", "Participants"),
        ("images", "Images"),
        ("maps", "Lesion maps"),
        ("endpoints", "Endpoints"),
        *((part["id"], part["title"]) for part in parts),
        ("quality", "Quality"),
        ("methods", "Methods"),
        ("limits", "Known limits"),
        ("deviations", "Deviations"),
        ("reference", "Dictionary, software"),
    ]
    return page.render(
        "index.html.j2",
        **_common(results),
        policy=page.security_policy([page.asset("report.js")]),
        page_title=f"{results.title}: imaging report",
        title=results.title,
        blinded=bool(results.study.get("blinded")),
        contents=contents,
        facts=_facts(results),
        counts=_counts(results),
        primary_title=primary_title,
        primary=primary,
        flow=flow_steps(results),
        attention=attention(results),
        pages=pages,
        participants_table=participants_table(results),
        courses=courses[:MAX_FIGURES],
        cards=cards,
        pictures_left=left,
        other_subjects=_others_table(results, pages, flags),
        maps=_maps(results),
        ramp=Markup(pictures.heat_css()),
        endpoints_table=_endpoints_table(results, variants=False),
        variants_table=_endpoints_table(results, variants=True),
        parts=parts,
        acquisition=_acquisition_table(results, pages),
        gates=_gates_table(results, pages),
        registration=_registration_table(results, pages),
        unavailable=_unavailable_table(results, pages),
        findings=_findings_table(results),
        methods=methods_text(results),
        definitions=definitions(results),
        limits=_limits(results),
        deviations=Table(
            "What did not go as planned",
            [Column("Kind"), Column("What"), Column("How", "wide")],
            differ,
        )
        if differ
        else None,
        files=_files_table(results),
        dictionary=DICTIONARY,
        software=software_versions(),
    )
