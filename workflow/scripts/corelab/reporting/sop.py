"""The standard operating procedure: what is done, in which order, by which rule, how set.

Everything in it comes from the resolved config, the installed versions and the workflow's own
rules, so that the same study gives the same bytes, and an edit of a rule another procedure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from markupsafe import escape

from corelab.provenance.ledger import QUERIES
from corelab.provenance.rules import Rule, workflow_rules
from corelab.reporting.documents import (
    Block,
    Bullets,
    DataTable,
    Definitions,
    Heading,
    Paragraph,
    Plate,
    program,
)
from corelab.reporting.methods import flatten, methods_text, software_versions
from corelab.reporting.results import Results
from corelab.settings.reading import AdjudicationRule


def _direct(rules: Sequence[Rule]) -> dict[str, set[str]]:
    """For each rule the ones right before it: those that no other one before it needs."""
    above: dict[str, set[str]] = {}
    for rule in rules:
        above[rule.name] = set(rule.after).union(*(above.get(a, set()) for a in rule.after))
    return {
        rule.name: set(rule.after).difference(*(above.get(a, set()) for a in rule.after))
        for rule in rules
    }


def _dag_svg(rules: tuple[Rule, ...]) -> bytes:
    """The rules as a graph in layers, as an SVG file."""
    drawn = [rule for rule in rules if rule.name not in QUERIES]
    names = {rule.name for rule in drawn}
    layer: dict[str, int] = {}
    for rule in drawn:
        layer[rule.name] = 1 + max((layer[a] for a in rule.after if a in names), default=-1)
    columns: dict[int, list[str]] = {}
    for name, number in layer.items():
        columns.setdefault(number, []).append(name)
    wide, high, gap_x, gap_y = 138, 26, 34, 12
    tallest = max(len(column) for column in columns.values())
    place = {}
    for number, column in columns.items():
        offset = (tallest - len(column)) * (high + gap_y) / 2
        for row, name in enumerate(column):
            place[name] = (10 + number * (wide + gap_x), 10 + offset + row * (high + gap_y))
    width = 20 + len(columns) * (wide + gap_x) - gap_x
    height = 20 + tallest * (high + gap_y) - gap_y
    direct = _direct(drawn)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" '
        f'width="{width}" height="{height:g}" font-family="sans-serif" font-size="11">'
    ]
    for rule in drawn:
        for before in sorted(direct[rule.name]):
            if before in place:
                x1, y1 = place[before][0] + wide, place[before][1] + high / 2
                x2, y2 = place[rule.name][0], place[rule.name][1] + high / 2
                bend = (x1 + x2) / 2
                parts.append(
                    f'<path d="M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}" '
                    'fill="none" stroke="#8aa0b2" stroke-width="1"/>'
                )
    for name, (x, y) in place.items():
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide}" height="{high}" rx="4" fill="#eef3f7" '
            f'stroke="#0b5a8a"/><text x="{x + wide / 2:g}" y="{y + 17:g}" text-anchor="middle" '
            f'fill="#1a2027">{escape(name)}</text>'
        )
    return "".join([*parts, "</svg>"]).encode()


#: Roles of a central imaging analysis and their tasks.
_ROLES = (
    ("Sponsor", "Provides images, sheets and the analysis plan; approves this procedure."),
    ("Imaging scientist", "Writes the config, runs the workflow, answers findings on images."),
    ("Independent readers", "Read blinded packages; their reads are locked before unblinding."),
    ("Statistician", "Approves and locks the plan; reviews the statistics and the certificate."),
    ("Quality assurance", "Verifies products against the manifest; keeps the audit trail."),
)
#: Config blocks that say where files lie, not what is done.
_PLACES = ("inputs", "results_dir", "data_dir", "row", "bids", "compare_with", "attestations")


def sop_blocks(results: Results, ran: Collection[str] | None = None) -> tuple[Block, ...]:
    """The procedure as blocks; ``ran`` are the rules that the study runs, None: all."""
    rules = tuple(rule for rule in workflow_rules() if ran is None or rule.name in {*ran, *QUERIES})
    names = {rule.name for rule in rules}
    steps = tuple(
        (str(number), rule.name, rule.text, ", ".join(a for a in rule.after if a in names))
        for number, rule in enumerate((r for r in rules if r.name not in QUERIES), start=1)
    )
    asked = tuple(f"{rule.name}: {rule.text}" for rule in rules if rule.name in QUERIES)
    settings = [
        (name, text)
        for key, block in sorted(results.settings.plain().items())
        if key not in _PLACES
        for name, text in flatten(block, key)
    ]
    blocks: list[Block] = [
        Heading("Purpose and scope"),
        Paragraph(
            "From the images, reads and tables of the study to its imaging endpoints, their "
            "reproducibility and their relation to drug and outcome. The program is not a medical "
            "device; nothing it writes is a basis for treating a patient."
        ),
        Heading("Roles"),
        DataTable("", "Who does what", ("Role", "Tasks"), _ROLES),
        Heading("Before the first run"),
        Bullets(
            (
                "Install the locked environment (make env); its versions are listed below.",
                "Write the study's config and sheets; snakemake preflight names every fault.",
                "Fix the analysis plan; its fingerprint stands on every page.",
            )
        ),
        Heading("Steps"),
        Plate(
            "",
            "Rules that this study runs, from left to right",
            _dag_svg(rules),
            "svg",
            "Graph of the rules that this study runs",
            "A line: the rule on the right takes what the one on the left made.",
            100,
        ),
        DataTable("", "Steps in order", (">No", "Rule", "What it does", "After"), steps),
        Heading("Queries at any time"),
        Bullets(asked),
        Heading("Faults"),
        Paragraph(
            "A fault of one file becomes a status with its reason, and the run goes on; a fault of "
            "the program stops its job. The same command, given again, does what is left to do. "
            "Nothing half-written counts. Exclusions are decisions of people at the review desk, "
            "written to a hash-chained table; every result is computed without them too."
        ),
        Heading("Repeating and verifying"),
        Paragraph(
            "Equal inputs, config and versions give equal bytes: provenance/REPRODUCE.md has the "
            "command and the digests to compare. snakemake verify hashes every product again."
        ),
        Heading("Methods"),
    ]
    for passage in methods_text(results):
        blocks += [Heading(passage.heading, 2), *map(Paragraph, passage.paragraphs)]
    blocks += [
        Heading("Settings of this study"),
        Definitions(tuple(settings)),
        Heading("Versions"),
        Definitions(tuple(software_versions())),
        Heading("Version history and approval"),
        DataTable(
            "",
            "Version history",
            ("Version", "Plan fingerprint", "Date", "Author", "Change"),
            ((program(), results.fingerprint or "none", "", "", "First version"), ("",) * 5),
            notes=("Written by hand; each change of the plan has another fingerprint.",),
        ),
        DataTable(
            "",
            "Approval",
            ("Role", "Name", "Signature", "Date"),
            tuple((role, "", "", "") for role, _ in _ROLES),
        ),
    ]
    return tuple(blocks)


def read_flow(results: Results) -> tuple[Block, ...]:
    """The flow of central reading, where the study has readers."""
    reading = results.settings.reading
    rows = [
        ("Presentation", reading.presentation.replace("_", " ")),
        ("Readers", ", ".join(reading.readers) or "those of the reads sheet"),
        ("Adjudication", "; ".join(_adjudication(rule) for rule in reading.adjudication)),
        ("Repeated cases", f"{100 * reading.repeat_share:g} %"),
    ]
    kept = tuple((name, text) for name, text in rows if text)
    return (Heading("Central reading"), Definitions(kept))


def _adjudication(rule: AdjudicationRule) -> str:
    limits = ", ".join(
        f"{key.replace('_', ' ')} {value}"
        for key, value in rule.plain().items()
        if key not in {"endpoint", "method"}
    )
    return f"{rule.endpoint} ({limits})"
