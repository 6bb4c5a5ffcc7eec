"""The report as PDF: tables, listings and figures numbered as in a clinical study report.

Numbers follow ICH E3: 14.1 disposition, 14.2 pharmacodynamics, 14.4 measurement quality (a block
of ours), 16.1.9 methods, 16.2.6 listings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import write_table
from corelab.reporting import exhibits, pictures
from corelab.reporting.analysis_results import ANALYSIS_RESULTS, analysis_results
from corelab.reporting.analysis_view import analysis_title, interval_text, number_text
from corelab.reporting.arrange import arrange
from corelab.reporting.attention import attention, counts, flow_steps, is_not_computable
from corelab.reporting.certificate_view import certificate_blocks
from corelab.reporting.descriptive import descriptions
from corelab.reporting.documents import (
    Block,
    Bullets,
    DataTable,
    Definitions,
    Document,
    Heading,
    Paragraph,
    Plate,
    program,
    write_document_pdf,
)
from corelab.reporting.methods import (
    analysis_sentence,
    definitions,
    deviations,
    methods_text,
    software_versions,
)
from corelab.reporting.numbers import (
    count,
    fixed,
    is_number,
    observed,
    p_value,
    significant,
)
from corelab.reporting.references import as_text, references_of
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.reporting.sensitivity import sensitivity_blocks
from corelab.reporting.study_tables import participants_table
from corelab.reporting.table_files import write_table_files
from corelab.reporting.vocabulary import (
    VERDICT_WORDS,
    criterion_words,
    endpoint_words,
    group_words,
    limits_for,
    statistic_unit,
    value_decimals,
)
from corelab.settings.analyses.base import AnalysisSpec
from corelab.terms.kinds import kind_words
from corelab.terms.labels import label
from corelab.terms.statistics import statistic

#: Rows of one listing; the file named below it has them all.
MAX_LISTING = 600


def table_number(analysis: AnalysisSpec) -> str:
    """Number of the table of an analysis.

    Examples
    --------
    >>> from corelab.settings.analyses import spec_of
    >>> plan = {"id": "a", "endpoint": "infarct_volume"}
    >>> table_number(spec_of({**plan, "type": "correlation", "exposure": "auc"}))
    '14.2.4'
    >>> more = {"type": "agreement", "sources": "all", "repeats": "within"}
    >>> table_number(spec_of({**plan, **more}))
    '14.4.8'
    """
    kind = analysis.kind
    if kind.name in {"correlation", "dose_response"} and analysis.exposure:
        return "14.2.4"
    if kind.name == "agreement" and analysis.repeats == "within":
        return "14.4.8"
    return kind.number


def table_numbers(results: Results) -> dict[str, str]:
    """Analysis -> number; several analyses of one number get letters."""
    by_number: dict[str, list[str]] = {}
    for entry in results.analyses:
        number = table_number(entry)
        by_number.setdefault(number, []).append(entry.id)
    numbers = {}
    for number, ids in by_number.items():
        for position, name in enumerate(ids):
            letters = "" if len(ids) == 1 else "." + str(position + 1)
            numbers[name] = number + letters
    return numbers


def _footer(results: Results) -> str:
    return f"{program()}; plan fingerprint {results.fingerprint}"


def _definitions(rows: pd.DataFrame, analysis: AnalysisSpec) -> list[str]:
    methods: dict[str, str] = {}
    for named, method in zip(rows["statistic"], rows["method"], strict=True):
        if isinstance(method, str) and method:
            methods.setdefault(method, statistic(named).words)
    notes = [analysis_sentence(analysis)]
    notes += [f"{name}: {method}" for method, name in list(methods.items())[:6]]
    if rows["estimate"].isna().any():
        notes.append("NE: not evaluable, with its reason.")
    return notes


def _side_by_side(rows: pd.DataFrame, groups: tuple[str, ...]) -> tuple[Any, Any]:
    cells: dict[str, dict[str, str]] = {}
    words: dict[str, str] = {}
    for row in rows.itertuples():
        name = str(row.statistic)
        unit = statistic_unit(name, row.endpoint)
        words[name] = statistic(name).words + (f", {unit}" if unit else "")
        text = f"{number_text(row)} {interval_text(row)}".strip()
        if not is_number(row.estimate):
            text = "NE"
        cells.setdefault(name, {})[str(row.group)] = text
    columns = ("Statistic", *(">" + (group_words(group) or "all sources") for group in groups))
    body = [(words[k], *(found.get(g, "") for g in groups)) for k, found in cells.items()]
    numbers = rows.groupby("group", sort=False)["n"].max()
    body.append(("n", *(count(numbers.get(group)) for group in groups)))
    return columns, tuple(body)


def _long(rows: pd.DataFrame) -> tuple[Any, Any]:
    body: list[tuple[str, ...]] = []
    for row, failed in zip(rows.itertuples(), is_not_computable(rows), strict=True):
        unit = statistic_unit(str(row.statistic), row.endpoint)
        shown = (
            number_text(row),
            interval_text(row),
        )
        if failed:
            shown = ("NE", str(row.note).removeprefix(NOT_COMPUTABLE).lstrip(": "))
        body.append(
            (
                statistic(row.statistic).words + (f", {unit}" if unit else ""),
                endpoint_words(row.endpoint),
                group_words(row.group),
                "pooled" if row.visit == "all" else str(row.visit),
                *shown,
                p_value(row.p_value),
                count(row.n),
            )
        )
    columns = ("Statistic", "Endpoint", "Group", "Visit", ">Estimate", ">CI", ">p", ">n")
    return columns, tuple(body)


def _statistics(results: Results, analysis: AnalysisSpec, number: str) -> list[DataTable]:
    """The main table of an analysis and, where there are any, its further statistics."""
    found = arrange(results, analysis)
    title = f"{analysis_title(analysis)} ({analysis.id})"
    if found is None:
        nothing = (("No results: see the deviations.",),)
        return [DataTable(number, title, ("Result",), nothing)]
    source = f"statistics/{found.core['table'].iloc[0]}.tsv, analysis_id {analysis.id}"
    columns, body = _side_by_side(found.core, found.groups) if found.groups else _long(found.core)
    notes = tuple(_definitions(found.core, analysis))
    notes += tuple(f"NE, {group_words(group) or 'all'}: {why}." for group, why in found.refused)
    notes += (found.note,) if found.note else ()
    tables = [DataTable(number, title, columns, body, source, notes)]
    if len(found.more):
        columns, body = _long(found.more)
        more = f"{title}, further statistics"
        tables.append(DataTable(f"{number}.x", more, columns, body, source))
    return tables


def _disposition(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading("14.1 Disposition and completeness of imaging")]
    steps = flow_steps(results)
    rows = [
        (
            step.stage,
            str(step.n_in),
            str(step.n_out),
            "; ".join(f"{number} {reason}" for reason, number in step.exclusions),
        )
        for step in steps
    ]
    columns = ("Stage", ">In", ">Out", "Leaving")
    if rows:
        blocks.append(
            DataTable("14.1.1", "Flow of scans", columns, tuple(rows), "endpoints/flow.tsv")
        )
    people = participants_table(results)
    blocks.append(
        DataTable(
            "14.1.2",
            "Participants",
            tuple((">" if "number" in c.css else "") + c.title for c in people.columns),
            tuple(tuple(str(cell) for cell in row) for row in people.rows),
            "participants sheet",
        )
    )
    differ = tuple(deviations(results))
    if differ:
        blocks.append(
            DataTable(
                "14.1.3",
                "Deviations from the plan and the charter",
                ("Kind", "What", "How"),
                differ,
            )
        )
    return blocks


def _endpoints(results: Results) -> list[Block]:
    found = descriptions(results)
    if not found:
        return []
    rows = []
    for d in found:
        digits = value_decimals(d.unit, (d.low, d.high))
        mean = fixed(d.mean, digits + 1)
        if d.n > 1:
            mean = f"{mean} ({fixed(d.sd, digits + 1)})"
        rows.append(
            (
                endpoint_words(d.endpoint) + (f", {d.unit}" if d.unit else ""),
                d.visit,
                d.source,
                d.group,
                str(d.n),
                str(d.unavailable),
                mean if d.n else "",
                f"{fixed(d.median, digits)} ({fixed(d.q1, digits)} to {fixed(d.q3, digits)})"
                if d.n
                else "",
                f"{fixed(d.low, digits)} to {fixed(d.high, digits)}" if d.n else "",
            )
        )
    columns = (
        "Endpoint",
        "Visit",
        "Source",
        "Arm",
        ">n",
        ">NE",
        ">Mean (SD)",
        ">Median (quartiles)",
        ">Range",
    )
    return [
        DataTable(
            "14.2.1",
            "Endpoints by visit and arm",
            columns,
            tuple(rows),
            "endpoints/measurements.tsv",
            ("Whole lesion, first repeat. NE: missing or non-evaluable.",),
        )
    ]


def analysis_blocks(results: Results, prefix: str, numbers: Mapping[str, str]) -> list[Block]:
    """Tables and figures of the analyses whose number begins with ``prefix``, in that order."""
    blocks: list[Block] = []
    entries = [e for e in results.analyses if numbers.get(e.id, "").startswith(prefix)]
    entries.sort(key=lambda entry: [int(part) for part in table_number(entry).split(".")])
    for entry in entries:
        number = numbers[entry.id]
        blocks += _statistics(results, entry, number)
        own = exhibits.of_section(results, f"analysis:{entry.id}")
        blocks += exhibits.exhibit_blocks(results, own, number, analysis_title(entry))
    return blocks


def _maps(results: Results) -> list[Block]:
    scale = pictures.frequency_scale(map(pictures.subjects_of_map, results.maps))
    return [
        Plate(
            f"14.2.1.{position + 1}",
            f"Frequency of {label(frequency.label).words} in MNI152 space",
            pictures.encode_png(pictures.frequency_rgb(frequency, scale)),
            "png",
            pictures.frequency_caption(frequency),
            pictures.frequency_caption(frequency)
            + f" Dark to light: 1 to {scale[-1][0]} subjects or more, the same on every map. The"
            " patient's right is on the left.",
            86,
        )
        for position, frequency in enumerate(results.maps)
    ]


def _listing(
    number: str, title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], source: str
) -> DataTable:
    notes = (f"The first {MAX_LISTING} of {len(rows)} rows.",) if len(rows) > MAX_LISTING else ()
    return DataTable(number, title, columns, tuple(rows[:MAX_LISTING]), source, notes, "Listing")


def _text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and pd.isna(value)) else str(value)


def _listings(results: Results) -> list[Block]:
    blocks: list[Block] = [Heading("16.2.6 Listings")]
    body: list[tuple[str, ...]]
    frame = results.measurements
    whole = frame[frame["region"].fillna("all") == "all"]
    reads = whole[~whole["source"].fillna("").str.match(r"(pipeline|supplied)")]
    columns = ("Subject", "Visit", "Endpoint", "Source", ">Repeat", ">Value", "Unit")
    for number, title, rows in (
        ("16.2.6.1", "Reads and numbers of other software", reads),
        ("16.2.6.2", "Values of the pipeline", whole[~whole.index.isin(reads.index)]),
    ):
        body = [
            (
                _text(row.participant_id),
                _text(row.visit),
                endpoint_words(row.endpoint),
                _text(row.source),
                _text(row.repeat),
                significant(row.value, 4),
                _text(row.unit),
            )
            for row in rows[rows["status"] == "ok"].itertuples()
        ]
        if body:
            blocks.append(_listing(number, title, columns, body, "endpoints/measurements.tsv"))
    gone = frame[frame["status"].notna() & (frame["status"] != "ok")]
    body = [
        (
            _text(row.participant_id),
            _text(row.visit),
            endpoint_words(row.endpoint),
            _text(row.source),
            str(row.status).replace("_", " "),
            _text(row.reason),
        )
        for row in gone.itertuples()
    ]
    if body:
        names = ("Subject", "Visit", "Endpoint", "Source", "Status", "Reason")
        title = "Values excluded or not evaluable, with the reason"
        blocks.append(_listing("16.2.6.3", title, names, body, "endpoints/measurements.tsv"))
    failed = results.acquisition[results.acquisition["verdict"] != "pass"]
    body = []
    for row in failed.itertuples():
        name, unit, direction = criterion_words(str(row.criterion))
        body.append(
            (
                _text(row.participant_id),
                _text(row.visit),
                kind_words(row.kind),
                f"{name}, {unit}" if unit else name,
                observed(row.value),
                f"{direction} {observed(row.limit)}".strip(),
                VERDICT_WORDS.get(str(row.verdict), str(row.verdict)),
            )
        )
    if body:
        heads = ("Subject", "Visit", "Scan", "Criterion", ">Observed", "Charter", "Verdict")
        title = "Scans outside the charter or not assessable"
        blocks.append(_listing("16.2.6.4", title, heads, body, "endpoints/acquisition.tsv"))
    return blocks if len(blocks) > 1 else []


def methods_blocks(results: Results) -> list[Block]:
    """Methods, definitions, limits and software as blocks of a document."""
    blocks: list[Block] = [Heading("16.1.9 Methods")]
    for passage in methods_text(results):
        blocks.append(Heading(passage.heading, 2))
        blocks += [Paragraph(text) for text in passage.paragraphs]
        if passage.settings:
            blocks.append(Definitions(passage.settings))
    blocks += [
        Heading("References", 2),
        Bullets(tuple(f"{as_text(one)} ({one.use})" for one in references_of(results))),
    ]
    message = definitions(results)
    if message:
        blocks += [Heading("Definitions of the statistics", 2), Definitions(tuple(message))]
    limits = limits_for(sorted(set(results.measurements["endpoint"].dropna())))
    if limits:
        blocks.append(Heading("Known limits of the biomarkers", 2))
        for limit in limits:
            source = f" ({limit.source})" if limit.source else ""
            blocks.append(Paragraph(f"{limit.title}. {limit.text}{source}"))
    blocks += [Heading("Software", 2), Definitions(tuple(software_versions()))]
    return blocks


def study_facts(results: Results) -> tuple[tuple[str, str], ...]:
    """What stands below the title of a document of the study."""
    found = counts(results)
    study = results.study
    facts = [
        ("Study", study.id),
        ("Title", results.title),
        ("Disease", study.disease),
        ("Statistical analysis plan", study.sap_version or "no version stated"),
        ("Plan fingerprint", results.fingerprint),
        ("Participants", f"{found.participants}, of whom {found.with_images} with images"),
        ("Values", f"{found.values}, and {found.unavailable} not evaluable"),
        ("Program", program()),
    ]
    if study.blinded:
        facts.append(("Blinding", "arms are shown as codes; doses and exposures are withheld"))
    return tuple(facts)


def report_document(results: Results) -> Document:
    """The whole report as a document."""
    numbers = table_numbers(results)
    blocks: list[Block] = []
    items = results.once(attention)
    if items:
        rows = tuple((i.severity, i.text, ", ".join(i.subjects[:12])) for i in items)
        blocks.append(Heading("What needs attention"))
        blocks.append(
            DataTable("", "Findings, most serious first", ("Severity", "What", "Subjects"), rows)
        )
    blocks += _disposition(results)
    blocks.append(Heading("14.2 Endpoints and pharmacodynamics"))
    blocks += _endpoints(results) + _maps(results) + analysis_blocks(results, "14.2", numbers)
    blocks += sensitivity_blocks(results)
    quality = analysis_blocks(results, "14.4", numbers)
    if quality:
        blocks += [Heading("14.4 Quality of measurement"), *quality]
    blocks += exhibits.report_blocks(results) + certificate_blocks(results)
    blocks += methods_blocks(results) + _listings(results)
    return Document(
        "Imaging report",
        results.title,
        f"Study {results.study.id}",
        study_facts(results),
        tuple(blocks),
        _footer(results),
        contents=True,
        landscape=True,
    )


def write_pdf(results: Results) -> Path:
    """Write ``report/report.pdf`` (PDF/A-2b), its tables as RTF and HTML, and their numbers.

    ``report/tables/`` has every numbered table, ``report/analysis_results.tsv`` every statistic
    that is printed anywhere, one row each. Equal results give equal bytes.

    Parameters
    ----------
    results
        Of :func:`corelab.reporting.results.read_results`.
    """
    document = report_document(results)
    target = results.folder / "report"
    tables_shown = [block for block in document.blocks if isinstance(block, DataTable)]
    write_table_files(tables_shown, target / "tables", footer=document.footer)
    frame = analysis_results(results, table_numbers(results))
    write_table(frame, target / "analysis_results.tsv", ANALYSIS_RESULTS, sort=False)
    return write_document_pdf(document, target / "report.pdf")
