"""The imaging charter: its twelve blocks, what the study fills and what only people can.

Structure after the Chinese regulator's guideline on independent imaging review (CDE, appendix 1).
A block that the study cannot fill stays empty and is listed; it is never made up. Statements that
only a person can make are NOT ATTESTED until a person makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corelab.measurement.selection import as_list
from corelab.reading.charter import NOT_ATTESTED, STATEMENTS
from corelab.reporting.documents import Block, Bullets, DataTable, Definitions, Heading, Paragraph
from corelab.reporting.methods import analysis_sentence, estimand_rows, methods_text
from corelab.reporting.numbers import observed, plural
from corelab.reporting.results import Results
from corelab.reporting.vocabulary import criterion_words, limits_for
from corelab.terms.endpoints import unit_of
from corelab.terms.kinds import kind_words
from corelab.terms.words import endpoint_words

EMPTY = "Empty: to be written by the sponsor."

#: Limits on rates that a charter has to fix (CDE guideline, C53), as keys of ``reading.limits``.
REQUIRED_LIMITS = {
    "double_read_agreement_min": "double-read agreement",
    "adjudicator_agreement_min": "agreement with the adjudicator",
}


@dataclass(frozen=True)
class Attestation:
    """A statement that only a person can make: its row of ``docs/guideline_checklist.md``, who has
    to make it, and who made it when (ISO date) and where; empty until somebody did.
    """

    key: str
    statement: str
    who: str
    by: str = ""
    at: str = ""
    document: str = ""

    @property
    def given(self) -> bool:
        """Whether somebody stated it."""
        return bool(self.by and self.at)


def attestations(results: Results) -> list[Attestation]:
    """Every statement, with who gave it as the config records."""
    given = results.settings.attestations
    found = []
    for key, (statement, who) in STATEMENTS.items():
        one = given.get(key)
        made = (one.by, one.at, one.document or "") if one else ()
        found.append(Attestation(key, statement, who, *made))
    return found


def _charter_text(results: Results, name: str) -> str:
    """A text of the config's ``charter`` block, or nothing."""
    return str(getattr(results.settings.charter, name)).strip()


def people_of(results: Results) -> dict[str, str]:
    """Role -> name, as the config's charter names them."""
    return {role: name for role, name in results.settings.charter.people.items() if name}


def unfixed_limits(results: Results) -> list[str]:
    """Limits that the charter has to fix and the config does not."""
    given = results.settings.reading.limits
    left = [words for key, words in REQUIRED_LIMITS.items() if given.get(key) is None]
    if results.settings.charter.intra_reader_cv_percent_max is None:
        left.append("difference within a reader")
    return left


@dataclass(frozen=True)
class Section:
    """A heading of the charter, numbered as in the guideline; without blocks the study says
    nothing.
    """

    number: str
    title: str
    mandatory: bool
    blocks: tuple[Block, ...]

    @property
    def state(self) -> str:
        """``filled``, ``empty`` (mandatory) or ``not applicable`` (optional, nothing said)."""
        if self.blocks:
            return "filled"
        return "empty" if self.mandatory else "not stated"


GLOSSARY = (
    ("ADC", "Apparent diffusion coefficient"),
    ("BICR", "Blinded independent central review"),
    ("CI", "Confidence interval"),
    ("DWI", "Diffusion-weighted imaging"),
    ("ICC", "Intraclass correlation coefficient"),
    ("MNI152", "Template space of the Montreal Neurological Institute"),
    ("NE", "Not evaluable"),
    ("SAP", "Statistical analysis plan"),
    ("Tmax", "Time to the maximum of the residue function"),
)


def _overview(results: Results) -> tuple[Block, ...]:
    study = results.study
    endpoints = list(dict.fromkeys(str(e) for a in results.analyses for e in as_list(a.endpoint)))
    blocks: list[Block] = [
        Definitions(
            (
                ("Study", study.id),
                ("Title", results.title),
                ("Disease", study.disease),
                ("Analysis plan", study.sap_version or "no version stated"),
                ("Visits", ", ".join(results.tables.visit_order) or "not stated"),
                ("Imaging endpoints", endpoint_words(",".join(endpoints)) or "none planned"),
            )
        )
    ]
    if results.analyses:
        sentences = tuple(f"{a.id}: {analysis_sentence(a)}" for a in results.analyses)
        blocks.append(Bullets(sentences))
        stated = tuple(
            (a.id, word, text) for a in results.analyses for word, text in estimand_rows(a)
        )
        if stated:
            columns = ("Analysis", "Attribute", "As planned")
            blocks.append(DataTable("", "Estimands and missing data", columns, stated))
    return tuple(blocks)


def _acquisition_limits(results: Results) -> tuple[tuple[str, ...], ...]:
    """Rows of the acquisition standard: scan, criterion, limit, checked, outside."""
    rows = []
    frame = results.acquisition
    for (kind, criterion), group in frame.groupby(["kind", "criterion"], sort=True):
        name, unit, direction = criterion_words(str(criterion))
        limits = ", ".join(dict.fromkeys(observed(v) for v in group["limit"]))
        tally = group["verdict"].value_counts()
        rows.append(
            (
                kind_words(kind),
                f"{name}, {unit}" if unit else name,
                f"{direction} {limits}".strip(),
                str(len(group)),
                str(int(tally.get("fail", 0))),
                str(int(tally.get("not_assessable", 0))),
            )
        )
    return tuple(rows)


def acquisition_table(results: Results) -> tuple[Block, ...]:
    """The acquisition standard as a table; nothing where no scan was checked."""
    rows = _acquisition_limits(results)
    if not rows:
        return ()
    columns = ("Scan", "Criterion", "Limit", ">Checked", ">Outside", ">Not assessable")
    table = DataTable("", "Limits of the charter", columns, rows, "endpoints/acquisition.tsv")
    return (table,)


def _processing(results: Results) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for passage in methods_text(results):
        if passage.heading != "Analysis plan":
            blocks += [Heading(passage.heading, 3), *map(Paragraph, passage.paragraphs)]
    return tuple(blocks)


def _criteria(results: Results) -> tuple[Block, ...]:
    endpoints = sorted(set(results.measurements["endpoint"].dropna()))
    if not endpoints:
        return ()
    rows = tuple((endpoint_words(name), unit_of(name) or "see the sheet") for name in endpoints)
    return (Definitions(rows),)


def readers(results: Results) -> list[tuple[str, str, int]]:
    """(reader or software, what it gave, number of values), from the measurements."""
    frame = results.measurements
    frame = frame[~frame["source"].fillna("").str.match(r"(pipeline|supplied|consensus)")]
    found = []
    for source, rows in frame.groupby("source", sort=True):
        endpoints = endpoint_words(",".join(sorted(set(rows["endpoint"].dropna()))))
        found.append((str(source), endpoints, len(rows)))
    return found


def _reading(results: Results) -> tuple[Block, ...]:
    found = readers(results)
    if not found:
        return ()
    repeats = results.measurements["repeat"].dropna().map(str)
    text = (
        f"{plural(len(found), 'reader or software', 'readers or software')} gave values; "
        f"the highest number of repeats is {max(map(int, map(float, repeats)), default=1)}. "
        "The order of presentation and the blinding of readers are part of the reads sheet."
    )
    return (Paragraph(text),)


def _stability(results: Results) -> tuple[Block, ...]:
    planned = [a for a in results.analyses if a.kind.part == "reproducibility"]
    if not planned:
        return ()
    texts = tuple(f"{a.id}: {analysis_sentence(a)}" for a in planned)
    return (Paragraph("Stability of the readers, see document 08:"), Bullets(texts))


def _assurance(results: Results) -> tuple[Block, ...]:
    text = (
        "Every product has a SHA-256 in provenance/manifest.json, every number a row in "
        "trace.tsv. Inputs are checked before any computing (preflight/findings.tsv), scans "
        "against the limits of the charter, perfusion series by gates. Statistics that carry a "
        "conclusion are computed by two independent programs; a difference beyond tolerance "
        "stops the run. Missing or non-evaluable values stay in the tables with their reason."
    )
    return (Paragraph(text),)


def _transfer(results: Results) -> tuple[Block, ...]:
    scans = [scan for visit in results.visits for scan in visit.scans if scan.sha256]
    if not scans:
        return ()
    return (
        Paragraph(
            f"{plural(len(scans), 'file')} were identified by their SHA-256 on receipt; the "
            "digests stand in the stage records and in provenance/manifest.json."
        ),
    )


def _references(results: Results) -> tuple[Block, ...]:
    limits = limits_for(sorted(set(results.measurements["endpoint"].dropna())))
    sources = tuple(dict.fromkeys(limit.source for limit in limits if limit.source))
    return (Bullets(sources),) if sources else ()


def _people(results: Results) -> tuple[Block, ...]:
    named = people_of(results)
    return (Definitions(tuple(named.items())),) if named else ()


def _adjudication(results: Results) -> tuple[Block, ...]:
    texts = tuple(
        f"{endpoint_words(rule.endpoint)}: "
        + ", ".join(
            f"{key.replace('_', ' ')} {value}"
            for key, value in rule.plain().items()
            if key != "endpoint"
        )
        for rule in results.settings.reading.adjudication
    )
    return (Bullets(texts),) if texts else ()


def charter_sections(results: Results) -> list[Section]:
    """The twelve blocks (glossary and chapters 1 to 11) with their headings."""
    flow = (
        "Scans are listed, checked and brought to a common orientation; aligned within the visit; "
        "segmented; measured in native space; normalised for location; compared between sources; "
        "related to dose, exposure and outcome; reported. Each stage leaves a record; a file that "
        "fails is a status with a reason, and the flow adds up."
    )

    def section(
        number: str,
        title: str,
        fill: Callable[[Results], tuple[Block, ...]] | None = None,
        mandatory: bool = True,
        text: str = "",
    ) -> Section:
        written = _charter_text(results, text) if text else ""
        blocks = tuple(Paragraph(part) for part in written.split("\n\n") if part.strip())
        return Section(number, title, mandatory, blocks + (fill(results) if fill else ()))

    return [
        section("0", "Glossary", lambda _: (Definitions(GLOSSARY),)),
        section(
            "1",
            "Summary",
            lambda r: (Paragraph(f"Imaging charter of {r.title}."),),
            text="summary",
        ),
        section("2", "Study overview", _overview, text="study_overview"),
        section("3", "Responsibilities", _people, text="responsibilities"),
        section("4.1", "Site qualification", text="site_qualification"),
        section("4.2", "Acquisition standard", acquisition_table),
        section("4.3", "Submission of images", text="image_submission"),
        section("4.4", "Processing principles", _processing),
        section(
            "4.5",
            "Quality assurance, monitoring and correction plan",
            text="quality_assurance_plan",
        ),
        section("5", "Clinical data given to readers", mandatory=False, text="clinical_data"),
        section("6", "Assessment criteria", _criteria, text="assessment_criteria"),
        section("7.1", "Flow of the review", lambda _: (Paragraph(flow),)),
        section("7.2", "Assessment of visits", _reading, text="visit_assessment"),
        section("7.3", "Adjudication", _adjudication, text="adjudication"),
        section("7.4", "Clinical assessment", mandatory=False, text="clinical_assessment"),
        section("8", "Quality control of readers", _stability, text="reader_quality"),
        section("9", "Transfer and storage", _transfer, text="transfer_and_storage"),
        section(
            "10",
            "Quality assurance of the assessment",
            _assurance,
            text="assessment_quality",
        ),
        section("11", "References", _references, text="references"),
    ]


def empty_sections(sections: list[Section]) -> list[str]:
    """Mandatory headings that the study leaves empty."""
    return [f"{s.number} {s.title}" for s in sections if s.state == "empty"]


def attestation_table(results: Results) -> DataTable:
    """What only people can state, and whether they did; none of it is stated by the program."""
    rows = tuple(
        (
            item.statement,
            item.who,
            "ATTESTED" if item.given else NOT_ATTESTED,
            ", ".join(text for text in (item.by, item.at, item.document) if text),
        )
        for item in attestations(results)
    )
    columns = ("Statement", "By", "State", "Name, date, document")
    return DataTable("", "Statements that only people can make", columns, rows)


def charter_blocks(results: Results) -> tuple[Block, ...]:
    """The charter as blocks of a document."""
    sections = charter_sections(results)
    left = empty_sections(sections)
    blocks: list[Block] = [Heading("Completeness")]
    states = tuple((s.number, s.title, "yes" if s.mandatory else "no", s.state) for s in sections)
    blocks.append(
        DataTable("", "State of each block", ("Block", "Title", "Mandatory", "State"), states)
    )
    if left:
        blocks += [Paragraph("Mandatory blocks left empty:"), Bullets(tuple(left))]
    chapter = ""
    chapters = {
        "4": "Acquisition, submission and processing",
        "7": "Flow of the blinded independent central review",
    }
    for section in sections:
        first, _, rest = section.number.partition(".")
        if rest and first != chapter:
            blocks.append(Heading(f"{first} {chapters[first]}"))
        chapter = first
        blocks.append(Heading(f"{section.number} {section.title}", 2 if rest else 1))
        nothing = (
            EMPTY if section.mandatory else "Not stated; may be not applicable, with a reason."
        )
        blocks += section.blocks or (Paragraph(nothing, soft=True),)
    blocks += [Heading("Attestations"), attestation_table(results)]
    return tuple(blocks)
