"""The report as PDF: tables, listings and figures numbered as in a clinical study report.

Numbers follow ICH E3: 14.1 disposition, 14.2 pharmacodynamics, 14.4 measurement quality (a block
of ours), 16.1.9 methods, 16.2.6 listings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from corelab.provenance.products import write_table
from corelab.reporting import exhibits, page, pictures
from corelab.reporting.analysis_results import (
    ANALYSIS_RESULTS,
    VARIANTS_NUMBER,
    analysis_results,
)
from corelab.reporting.analysis_view import analysis_title, statistics_tables, twins
from corelab.reporting.arrange import arrange
from corelab.reporting.attention import attention, counts, flow_steps
from corelab.reporting.certificate_view import certificate_blocks
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
    methods_text,
    software_versions,
)
from corelab.reporting.references import as_text, references_of
from corelab.reporting.results import Results
from corelab.reporting.sensitivity import sensitivity_blocks
from corelab.reporting.study_tables import (
    acquisition_table,
    deviations_table,
    endpoints_table,
    participants_table,
    unavailable_table,
)
from corelab.reporting.table_files import write_table_files
from corelab.reporting.traces import listed_values
from corelab.reporting.vocabulary import (
    limits_for,
)
from corelab.settings.analyses.base import AnalysisSpec
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
    return notes


def _statistics(results: Results, analysis: AnalysisSpec, number: str) -> list[DataTable]:
    """The main table of an analysis and, where there are any, its further statistics."""
    title = f"{analysis_title(analysis)} ({analysis.id})"
    found = arrange(results, analysis)
    core, more = statistics_tables(results, analysis)
    if core is None or found is None:
        nothing = (("No results: see the deviations.",),)
        return [DataTable(number, title, ("Result",), nothing)]
    source = f"statistics/{found.core['table'].iloc[0]}.tsv, analysis_id {analysis.id}"
    tables = [page.printed(core, number, title, _definitions(found.core, analysis))]
    if more is not None:
        tables.append(page.printed(more, f"{number}.1", f"{title}, further statistics"))
    return [replace(table, source=source) for table in tables]


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
    people = replace(participants_table(results), source="participants sheet")
    blocks.append(page.printed(people, "14.1.2", "Participants"))
    differ = deviations_table(results)
    if differ is not None:
        title = "Deviations from the plan and the charter"
        blocks.append(page.printed(differ, "14.1.3", title))
    return blocks


def analysis_blocks(results: Results, prefix: str, numbers: Mapping[str, str]) -> list[Block]:
    """Tables and figures of the analyses whose number begins with ``prefix``, in that order."""
    blocks: list[Block] = []
    entries = [e for e in results.analyses if numbers.get(e.id, "").startswith(prefix)]
    entries.sort(key=lambda entry: [int(part) for part in table_number(entry).split(".")])
    for entry in entries:
        number = numbers[entry.id]
        core, *more = _statistics(results, entry, number)
        same = results.once(twins).get(entry.id)
        own = [] if same else exhibits.of_section(results, f"analysis:{entry.id}")
        title = analysis_title(entry)
        figures = exhibits.exhibit_blocks(results, own, number, title, tables=1 + len(more))
        core = replace(core, notes=(same, *core.notes)) if same else core
        blocks += [core, *figures, *more]
    return blocks


def _maps(results: Results) -> list[Block]:
    scale, drawn = results.once(pictures.frequency_pictures)
    return [
        Plate(
            f"14.2.1.{position + 1}",
            f"Frequency of {label(frequency.label).words} in MNI152 space",
            pictures.encode_png(rgb),
            "png",
            pictures.frequency_caption(frequency),
            pictures.frequency_caption(frequency)
            + f" Dark to light: 1 to {scale[-1][0]} subjects or more, the same on every map. The"
            " patient's right is on the left.",
            86,
        )
        for position, (frequency, rgb) in enumerate(zip(results.maps, drawn, strict=True))
    ]


def _listings(results: Results) -> list[Block]:
    frame = results.measurements
    whole = frame[(frame["region"].fillna("all") == "all") & (frame["status"] == "ok")]
    source = whole["source"].fillna("")
    is_own = source.isin(["pipeline", "supplied"])
    is_read = ~source.str.match(r"(pipeline|supplied)")
    reads, own = (listed_values(results, whole[part], "") for part in (is_read, is_own))
    if own is not None and (~is_own & ~is_read).any():
        own = replace(own, note="Without those of other cut-offs and engines.")
    outside = acquisition_table(results, passed=False)
    tables = [
        ("16.2.6.1", "Reads and numbers of other software", reads),
        ("16.2.6.2", "Values of the pipeline", own),
        (
            "16.2.6.3",
            "Values excluded or not evaluable, with the reason",
            unavailable_table(results),
        ),
        ("16.2.6.4", "Scans outside the charter or not assessable", outside),
    ]
    blocks = [
        page.printed(table, number, title, kind="Listing", limit=MAX_LISTING)
        for number, title, table in tables
        if table is not None
    ]
    return [Heading("16.2.6 Listings"), *blocks] if blocks else []


def _methods_blocks(results: Results) -> list[Block]:
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
    endpoints = endpoints_table(results, variants=False)
    if endpoints is not None:
        blocks.append(page.printed(endpoints, "14.2.1", "Endpoints by visit and arm"))
    blocks += _maps(results)
    variants = endpoints_table(results, variants=True)
    if variants is not None:
        blocks.append(page.printed(variants, VARIANTS_NUMBER))
    blocks += analysis_blocks(results, "14.2", numbers)
    blocks += sensitivity_blocks(results)
    quality = analysis_blocks(results, "14.4", numbers)
    if quality:
        blocks += [Heading("14.4 Quality of measurement"), *quality]
    blocks += exhibits.report_blocks(results) + certificate_blocks(results)
    blocks += _methods_blocks(results) + _listings(results)
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
