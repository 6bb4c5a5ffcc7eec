"""The submission folder: nine documents, the data sets, and an index with every digest."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import file_sha256, write_json, write_table
from corelab.reporting import page
from corelab.reporting.adam import datasets
from corelab.reporting.analysis_results import analysis_results
from corelab.reporting.ars import write_event
from corelab.reporting.attention import attention, counts
from corelab.reporting.charter import (
    NOT_ATTESTED,
    acquisition_table,
    attestation_table,
    attestations,
    charter_blocks,
    charter_sections,
    empty_sections,
    people_of,
    readers,
    unfixed_limits,
)
from corelab.reporting.conformance import (
    CONFORMANCE,
    Issue,
    dataset_issues,
    document_issues,
    issues_table,
)
from corelab.reporting.datasets import (
    Dataset,
    RefusedCell,
    Written,
    refused_cells,
    text_length,
    write_dataset_json,
    write_transport,
)
from corelab.reporting.define import write_define
from corelab.reporting.documents import (
    Block,
    Bullets,
    DataTable,
    Definitions,
    Document,
    Heading,
    Paragraph,
    program,
    write_document_pdf,
    write_markdown,
)
from corelab.reporting.exchange_checks import ars_faults, define_faults
from corelab.reporting.numbers import plural
from corelab.reporting.results import Results
from corelab.reporting.reviewers_guide import guide_blocks
from corelab.reporting.sop import read_flow, sop_blocks
from corelab.reporting.study_tables import acquisition_table as scans_outside
from corelab.reporting.study_tables import deviations_table
from corelab.reporting.tabulation import tabulations
from corelab.reporting.tlf import analysis_blocks, study_facts, table_numbers


@dataclass(frozen=True)
class Entry:
    """One of the nine documents, and what a regulator takes from it (``basis``)."""

    number: int
    name: str
    title: str
    basis: str
    on_demand: bool = False

    @property
    def stem(self) -> str:
        """Name of its files without ending."""
        return f"{self.number:02d}_{self.name}" if self.number else self.name


ENTRIES = (
    Entry(1, "charter", "Independent imaging review charter", "basis of scientific inspection"),
    Entry(2, "acquisition_standard", "Imaging acquisition standard", "basis of the data standard"),
    Entry(3, "team", "Team list", "responsible persons"),
    Entry(4, "procedures", "Study-specific procedures", "operational compliance"),
    Entry(5, "issues", "Issue report", "on demand", on_demand=True),
    Entry(6, "deviations", "Deviation report", "on demand", on_demand=True),
    Entry(7, "database", "Independent assessment database", "data"),
    Entry(8, "stability", "Stability and consistency analysis", "basis of data stability"),
    Entry(9, "summary", "Summary of the independent review", "index"),
)

#: What describes the data sets.
DEFINITIONS = (
    *("define.xml", "define.xsl", "define.html"),
    *("refused.tsv", "conformance.tsv", "ars.json"),
)
_REFUSED = {
    "dataset": "Data set",
    "record": "Number of the record, from 1",
    "variable": "Variable that is blank in the transport file",
    "reason": "Why the text does not fit",
    "kept_in": "File that has the text",
}


def write_datasets(results: Results, folder: str | Path) -> tuple[list[Written], pd.DataFrame]:
    """Write every data set as ``.xpt`` and ``.json``, and what describes them.

    ``define.xml`` with its stylesheet and as a page, ``refused.tsv`` (texts that SAS transport
    cannot hold), ``conformance.tsv`` (keys, controlled terms, labels, faults of define.xml and
    ars.json) and ``ars.json`` (every result with its method). One data set at a time is in memory;
    returned is what was written, and what of the data sets does not conform.
    """
    target = Path(folder)
    refused: list[RefusedCell] = []
    wrong: list[Issue] = []
    subjects: set[str] = set()

    def write(dataset: Dataset) -> Written:
        name = dataset.name.lower()
        if dataset.name == "ADSL":
            subjects.update(dataset.frame["USUBJID"])
        write_transport(dataset, target / f"{name}.xpt")
        write_dataset_json(dataset, results.study.id, target / f"{name}.json")
        refused.extend(refused_cells(dataset))
        wrong.extend(dataset_issues(dataset, subjects))
        return Written(
            *(dataset.name, dataset.label, dataset.structure, dataset.adam_class),
            *(dataset.variables, len(dataset.frame)),
            {one.name: text_length(dataset, one) for one in dataset.variables},
        )

    # A loop's variable would hold a data set while the next one is made.
    found = list(map(write, chain(datasets(results), tabulations(results))))
    frame = pd.DataFrame(refused, columns=list(_REFUSED))
    write_table(frame, target / "refused.tsv", list(_REFUSED))
    names = frozenset(dataset.name for dataset in found)
    rows = analysis_results(results, table_numbers(results))
    event = write_event(results, rows, target / "ars.json", names)
    define = write_define(found, results, target / "define.xml")
    faults = {
        "define.xml": define_faults(ET.parse(define).getroot()),
        "ars.json": ars_faults(event, names),
    }
    issues = issues_table([*wrong, *document_issues(faults)])
    write_table(issues, target / "conformance.tsv", list(CONFORMANCE), sort=False)
    return found, issues_table(wrong)


def _acquisition(results: Results) -> tuple[Block, ...]:
    blocks: list[Block] = [
        Paragraph(
            "A scan outside a limit is flagged for exactly that limit; it is not excluded by the "
            "program. What cannot be read from a file is not assessable, and not a pass."
        )
    ]
    table = acquisition_table(results)
    blocks += table or (Paragraph("No scan of this study was checked.", soft=True),)
    failed = scans_outside(results, passed=False)
    if failed is not None:
        blocks.append(page.printed(failed, title="Scans outside the standard or not assessable"))
    return tuple(blocks)


def _team(results: Results) -> tuple[Block, ...]:
    stated = {
        item.key: "ATTESTED" if item.given else NOT_ATTESTED for item in attestations(results)
    }
    rows = tuple(
        (name, what, str(number), stated["C20"], stated["C23"])
        for name, what, number in readers(results)
    )
    blocks: list[Block] = [
        Paragraph(
            "Names and roles as the data show them. Who they are, what qualifies them and whether "
            "they are independent can only be stated by people."
        )
    ]
    if rows:
        columns = (
            "Reader or software",
            "Gave",
            ">Values",
            "Qualification",
            "Conflicts of interest",
        )
        blocks.append(
            DataTable("", "Sources of the values", columns, rows, "endpoints/measurements.tsv")
        )
    else:
        blocks.append(Paragraph("No reader gave a value in this study.", soft=True))
    roles = ("Sponsor", "Imaging core laboratory", "Imaging manager", "Adjudicator", "Statistician")
    named = people_of(results)
    people = tuple(
        (role, named.get(role, ""), "" if role in named else "NOT NAMED") for role in roles
    )
    blocks.append(DataTable("", "Roles to be named", ("Role", "Name", "State"), people))
    return tuple(blocks)


def _issues(results: Results) -> tuple[Block, ...]:
    items = results.once(attention)
    if not items:
        return (Paragraph("No issue was found."),)
    rows = tuple((i.severity, i.topic, i.text, ", ".join(i.subjects)) for i in items)
    return (
        Paragraph(f"{plural(len(rows), 'issue')}, most serious first."),
        DataTable("", "Issues", ("Severity", "Topic", "What", "Subjects"), rows),
    )


def _deviations(results: Results) -> tuple[Block, ...]:
    table = deviations_table(results)
    if table is None:
        return (Paragraph("No deviation from plan or charter was found."),)
    printed = page.printed(table, title="Deviations from plan and charter")
    return (Paragraph(f"{plural(len(printed.rows), 'deviation')}."), printed)


def _database(found: list[Written]) -> tuple[Block, ...]:
    rows = tuple(
        (d.name, d.label, d.structure, str(d.records), f"datasets/{d.name.lower()}.xpt, .json")
        for d in found
    )
    columns = ("Data set", "Label", "Structure", ">Records", "Files")
    blocks: list[Block] = [
        Paragraph(
            "SAS transport files (XPORT v5) and Dataset-JSON 1.1 hold the same records; "
            "datasets/define.xml (Define-XML 2.1) describes them. Texts that the transport format "
            "cannot hold are blank there, listed in datasets/refused.tsv and whole in Dataset-JSON."
        ),
        DataTable("", "Data sets", columns, rows, "datasets/define.xml"),
        Heading("Codebook"),
    ]
    for dataset in found:
        variables = tuple(
            (v.name, v.label, v.kind, v.codelist, v.origin, v.comment) for v in dataset.variables
        )
        names = ("Variable", "Label", "Type", "Code list", "Origin", "How")
        blocks.append(DataTable("", f"{dataset.name}: {dataset.label}", names, variables))
    return tuple(blocks)


def _stability(results: Results) -> tuple[Block, ...]:
    blocks = analysis_blocks(results, "14.4", table_numbers(results))
    if not blocks:
        return (Paragraph("No agreement, overlap or phantom analysis is in the plan.", soft=True),)
    text = (
        "Agreement between and within readers and of the software with them. High agreement is not "
        "by itself a proof of validity; its size depends on the spread of the subjects."
    )
    return (Paragraph(text), *blocks)


def _summary(results: Results, done: list[tuple[Entry, list[Path]]]) -> tuple[Block, ...]:
    found = counts(results)
    left = empty_sections(charter_sections(results))
    rows = tuple(
        (
            f"{entry.number:02d}",
            entry.title,
            "on demand" if entry.on_demand else "always",
            path.name,
            file_sha256(path)[:16],
        )
        for entry, paths in done
        for path in paths
    )
    blocks: list[Block] = [
        Heading("What was reviewed"),
        Definitions(
            (
                ("Participants", f"{found.participants}, of whom {found.with_images} with images"),
                ("Visits with images", str(len(results.visits))),
                ("Scans read", f"{found.scans}, of which {found.failed_scans} failed"),
                ("Values", f"{found.values}, and {found.unavailable} not evaluable"),
                ("Subjects flagged", str(found.flagged_subjects)),
            )
        ),
        Heading("Primary analyses"),
    ]
    numbers = table_numbers(results)
    primary = [a.id for a in results.analyses if a.objective == "primary"]
    shown = analysis_blocks(results, "14", {k: v for k, v in numbers.items() if k in primary})
    tables = [block for block in shown if isinstance(block, DataTable)]
    blocks += tables or [Paragraph("The plan names no primary analysis.", soft=True)]
    if results.certificate is not None:
        tally = results.certificate["verdict"].value_counts()
        text = ", ".join(f"{n} {str(v).replace('_', ' ')}" for v, n in tally.items())
        blocks += [Heading("Reproduced numbers"), Paragraph(f"{text}.")]
    blocks += [
        Heading("Documents"),
        DataTable(
            "", "The other documents", ("No", "Document", "Handed in", "File", "SHA-256"), rows
        ),
        Heading("What is still open"),
    ]
    if left:
        blocks += [Paragraph("Mandatory blocks of the charter left empty:"), Bullets(tuple(left))]
    limits = unfixed_limits(results)
    if limits:
        blocks += [
            Paragraph("Limits that the charter has to fix and does not:"),
            Bullets(tuple(limits)),
        ]
    blocks.append(attestation_table(results))
    return tuple(blocks)


def _write(results: Results, entry: Entry, blocks: tuple[Block, ...], target: Path) -> list[Path]:
    document = Document(
        entry.title,
        results.title,
        f"Study {results.study.id}",
        study_facts(results),
        blocks,
        f"{program()}; plan fingerprint {results.fingerprint}",
        contents=False,
        landscape=entry.name in {"stability", "database", "issues", "deviations"},
    )
    return [
        write_document_pdf(document, target / f"{entry.stem}.pdf"),
        write_markdown(document, target / f"{entry.stem}.md"),
    ]


def write_submission(results: Results, steps: Collection[str] | None = None) -> Path:
    """Write ``submission/``: nine documents (PDF and Markdown), data sets, ``index.json``.

    Parameters
    ----------
    results
        Of :func:`corelab.reporting.results.read_results`.
    steps
        Rules that the study runs, for the procedure; None: all.

    Returns
    -------
    Path
        ``submission/index.json``: every document and data set with its SHA-256.
    """
    target = results.folder / "submission"
    found, issues = write_datasets(results, target / "datasets")
    procedure = sop_blocks(results, steps)
    writers: dict[str, Callable[[], tuple[Block, ...]]] = {
        "charter": lambda: charter_blocks(results),
        "acquisition_standard": lambda: _acquisition(results),
        "team": lambda: _team(results),
        "procedures": lambda: (*procedure, *read_flow(results)),
        "issues": lambda: _issues(results),
        "deviations": lambda: _deviations(results),
        "database": lambda: _database(found),
        "stability": lambda: _stability(results),
    }
    done: list[tuple[Entry, list[Path]]] = []
    for entry in ENTRIES[:-1]:
        done.append((entry, _write(results, entry, writers[entry.name](), target)))
    done.append((ENTRIES[-1], _write(results, ENTRIES[-1], _summary(results, done), target)))

    guide = Entry(0, "reviewers_guide", "Reviewer's guide to the data sets", "data")
    guides = _write(results, guide, guide_blocks(results, found, issues), target / "datasets")
    sop = Entry(0, "sop", "Standard operating procedure", "operational compliance")
    sops = _write(results, sop, procedure, target)

    def described(path: Path) -> dict[str, Any]:
        name = path.relative_to(target).as_posix()
        return {"path": name, "sha256": file_sha256(path), "size_bytes": path.stat().st_size}

    index = {
        "study": results.study.id,
        "plan_fingerprint": results.fingerprint,
        "program": program(),
        "documents": [
            {
                "number": entry.number,
                "title": entry.title,
                "basis": entry.basis,
                "on_demand": entry.on_demand,
                "files": [described(path) for path in paths],
            }
            for entry, paths in done
        ],
        "datasets": [
            {
                "name": dataset.name,
                "label": dataset.label,
                "records": dataset.records,
                "files": [
                    described(target / "datasets" / f"{dataset.name.lower()}{suffix}")
                    for suffix in (".xpt", ".json")
                ],
            }
            for dataset in found
        ],
        "definitions": [described(target / "datasets" / name) for name in DEFINITIONS]
        + [described(path) for path in (*guides, *sops)],
        "charter_blocks_left_empty": empty_sections(charter_sections(results)),
        "charter_limits_not_fixed": unfixed_limits(results),
        "attestations": {
            item.key: "ATTESTED" if item.given else NOT_ATTESTED for item in attestations(results)
        },
    }
    return write_json(index, target / "index.json")
