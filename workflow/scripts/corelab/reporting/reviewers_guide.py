"""The analysis data reviewer's guide: what a reviewer needs to know before opening a data set."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from corelab.reporting.datasets import Written
from corelab.reporting.documents import (
    Block,
    Bullets,
    DataTable,
    Definitions,
    Heading,
    Paragraph,
    program,
)
from corelab.reporting.methods import analysis_sentence, software_versions
from corelab.reporting.numbers import plural
from corelab.reporting.results import Results

_COLUMNS = ("Data set", "Label", "Structure", "Class", "Key", ">Records")


def _introduction() -> list[Block]:
    """What was written by what, by which standards."""
    return [
        Heading("1 Introduction"),
        Paragraph(
            "This guide belongs to the imaging data sets of the study. They were written by "
            f"{program()} from endpoints/measurements.tsv and the statistics tables; define.xml "
            "describes every variable."
        ),
        Definitions(
            (
                ("Standards", "ADaMIG 1.3; SDTMIG 3.4 (names and structure of PR, NV and TR)"),
                ("Exchange", "SAS transport (XPORT v5) and Dataset-JSON 1.1, the same records"),
                ("Definitions", "Define-XML 2.1"),
                ("Results", "ars.json: every statistic with its method and data, ARS 1.0 shape"),
            )
        ),
    ]


def _study(results: Results) -> list[Block]:
    """The study and its plan in short."""
    plan = tuple(f"{a.id}: {analysis_sentence(a)}" for a in results.analyses)
    visits = ", ".join(results.tables.visit_order) or "none named"
    return [
        Heading("2 The study"),
        Definitions(
            (
                ("Study", results.study.id),
                ("Title", results.title),
                ("Visits, in order", visits),
                ("Baseline", str(results.tables.baseline or "none")),
                ("Plan fingerprint", results.fingerprint),
            )
        ),
        Bullets(plan) if plan else Paragraph("No analysis was planned."),
    ]


def _considerations() -> list[Block]:
    """What a reader of the data sets has to know, and how they were made."""
    return [
        Heading("3 Considerations"),
        Bullets(
            (
                "AVISITN is the order of the visit, not a study day: the study has no dates here.",
                "ANL01FL marks the primary source, whole lesion, with a value.",
                "Missing or non-evaluable values keep their record, with STATUS and REASND; "
                "nothing is imputed.",
                "CNSR is 1 - event: 0 is an event.",
                "ROWID leads from a record to measurements.tsv and to provenance/trace.tsv.",
                "SDTM's MI is microscopic findings: imaging findings of the brain stand in NV, of "
                "a tumour in TR, the scans in PR.",
                "Age above the limit of de-identification and dates of birth are not in the data.",
            )
        ),
        Heading("4 How the data sets were made"),
        Paragraph(
            "measurements.tsv is one row per number. ADIMG holds the pipeline's rows and those of "
            "supplied masks, ADREAD those of readers and of other software, ADSEG the overlap of "
            "masks, ADTR both for tumours, ADPD outcomes and exposures, ADTTE and ADRS the events "
            "sheet, ADRISK the pre-validated radiomic risk, ADARD every statistic."
        ),
    ]


def _listed(found: Sequence[Written]) -> tuple[tuple[str, ...], ...]:
    """One row per data set."""
    return tuple(
        (
            d.name,
            d.label,
            d.structure,
            d.adam_class.capitalize(),
            ", ".join(v.name for v in sorted(d.variables, key=lambda v: v.key) if v.key),
            str(d.records),
        )
        for d in found
    )


def _conformance(issues: pd.DataFrame) -> list[Block]:
    """What does not conform, counted and listed."""
    if issues.empty:
        return [
            Paragraph("Keys, controlled terms, labels, lengths and references: nothing to report.")
        ]
    tally = issues["severity"].value_counts()
    text = ", ".join(
        plural(int(tally[s]), s) for s in ("error", "warning", "note") if s in tally.index
    )
    rows = tuple(tuple(str(cell) for cell in row) for row in issues.head(200).to_numpy())
    heads = ("Severity", "Data set", "Variable", "Rule", "Found", ">Records")
    return [
        Paragraph(f"{text}. The full list is datasets/conformance.tsv."),
        DataTable("", "What does not conform", heads, rows, "datasets/conformance.tsv"),
    ]


def guide_blocks(
    results: Results, found: Sequence[Written], issues: pd.DataFrame
) -> tuple[Block, ...]:
    """The guide to a study's data sets, in the chapters of the usual template (ADRG)."""
    blocks = [*_introduction(), *_study(results), *_considerations(), Heading("5 Data sets")]
    for title, tabulation in (("Analysis data sets", False), ("Tabulation domains", True)):
        those = [d for d in found if d.tabulation == tabulation]
        if those or not tabulation:
            rows = _listed(those)
            blocks.append(DataTable("", title, _COLUMNS, rows, "datasets/define.xml"))
    blocks += [Heading("6 Conformance"), *_conformance(issues)]
    blocks += [
        Heading("7 Programs"),
        Paragraph(
            "The programs are the workflow itself; provenance/manifest.json has the digest of "
            "every rule's code, provenance/REPRODUCE.md the command that repeats the run."
        ),
        Definitions(tuple(software_versions())),
    ]
    return tuple(blocks)
