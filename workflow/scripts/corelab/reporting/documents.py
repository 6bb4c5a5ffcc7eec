"""A document as data, and its two renditions: PDF by typst and Markdown.

What is printed reaches typst as JSON, never as markup: no text of an input is interpreted.
"""

from __future__ import annotations

import html
import os
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corelab import __version__
from corelab.provenance.figure_style import font_folder
from corelab.provenance.products import atomic_path, write_text
from corelab.reporting.numbers import plural

TEMPLATES = Path(__file__).parent / "templates"
#: Characters that the notice about missing ones names.
MAX_NAMED = 12
#: Unicode blocks that the fonts inside typst cover, as far as they were tried.
_COVERED = (
    (0x20, 0x7E),
    (0xA0, 0x17F),
    (0x391, 0x3A1),
    (0x3A3, 0x3A9),
    (0x3B1, 0x3C9),
    (0x410, 0x44F),
    (0x2010, 0x2015),
    (0x2018, 0x201E),
    (0x2020, 0x2022),
)
_COVERED_SIGNS = (
    "\u2026\u2030\u2032\u2033\u20ac\u2122\u2190\u2191\u2192"
    "\u2193\u2212\u221a\u221e\u2248\u2260\u2264\u2265"
)
#: Any other character.
_NOT_COVERED = re.compile(
    "[^" + "".join(f"\\u{low:04x}-\\u{high:04x}" for low, high in _COVERED) + _COVERED_SIGNS + "]"
)


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 begins a part."""

    text: str
    level: int = 1


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; ``soft`` for what is secondary."""

    text: str
    soft: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Definitions:
    """Names with their texts."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DataTable:
    """A numbered table.

    Attributes
    ----------
    number
        ``14.2.1``; empty for a table without a number.
    title, columns, rows
        Texts; a column whose name begins with ``>`` is set to the right.
    source
        File that the rows came from.
    notes
        Below the table.
    kind
        ``Table`` or ``Listing``.
    """

    number: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    kind: str = "Table"


@dataclass(frozen=True)
class Plate:
    """A numbered figure: bytes of an SVG or PNG file."""

    number: str
    title: str
    data: bytes
    suffix: str
    alt: str
    caption: str = ""
    width_percent: int = 60


Block = Heading | Paragraph | Bullets | Definitions | DataTable | Plate


@dataclass(frozen=True)
class Document:
    """A document.

    Attributes
    ----------
    title, subtitle
        On its first page.
    study
        In the running head.
    facts
        Names and values below the title.
    blocks
        The content.
    footer
        Program and fingerprint, at the foot of each page.
    contents
        Whether a list of headings, tables and figures stands first.
    landscape
        Wide pages, as tables of a clinical study report.
    """

    title: str
    subtitle: str
    study: str
    facts: tuple[tuple[str, str], ...]
    blocks: tuple[Block, ...]
    footer: str
    contents: bool = True
    landscape: bool = False


def printable(text: Any) -> str:
    """Text that the vendored fonts can show; other characters as ``[U+XXXX]``.

    Examples
    --------
    >>> printable("ρ = −0.35, 한"), printable(None)
    ('ρ = −0.35, [U+D55C]', '')
    """
    return "" if text is None else _NOT_COVERED.sub(_named, str(text))


def _named(match: re.Match[str]) -> str:
    """A space or the number of a character that the fonts lack."""
    return " " if match[0].isspace() else f"[U+{ord(match[0]):04X}]"


def _plain_svg(data: bytes) -> bytes:
    """A drawing whose words the vendored fonts can show; without strange words, the same bytes."""

    def shown(match: re.Match[str]) -> str:
        words = html.unescape(match[1])
        if not _strange(words):
            return match[0]
        return f">{html.escape(printable(words), quote=False)}<"

    return re.sub(r">([^<]+)<", shown, data.decode("utf-8")).encode("utf-8")


def _strange(value: Any) -> set[str]:
    """Characters of texts, however nested, that the vendored fonts cannot show."""
    if isinstance(value, str):
        return {char for char in _NOT_COVERED.findall(value) if not char.isspace()}
    items = value.values() if isinstance(value, dict) else value
    return set().union(*map(_strange, items)) if isinstance(value, (dict, list, tuple)) else set()


def characters_told(document: Document) -> str:
    """A sentence about characters that the PDF's fonts lack; empty where they have all.

    Examples
    --------
    >>> characters_told(Document("T", chr(0xD55C), "x", (), (), "f"))
    'The fonts of this file lack 1 character of the study: [U+D55C] hangul syllable han. ...'
    """
    words: list[Any] = [asdict(document)]
    for block in document.blocks:
        if isinstance(block, Plate) and block.suffix == "svg":
            texts = re.findall(r">([^<]+)<", block.data.decode("utf-8"))
            words += [html.unescape(text) for text in texts]
    found = sorted(_strange(words))
    if not found:
        return ""
    named = [f"[U+{ord(c):04X}] {unicodedata.name(c, 'unnamed').lower()}" for c in found]
    rest = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return (
        f"The fonts of this file lack {plural(len(found), 'character')} of the study: "
        f"{', '.join(named[:MAX_NAMED])}{rest}. Each stands as its number in Unicode; the pages "
        "(HTML), Markdown, RTF and the tables have them as they are."
    )


def _plain_text(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _plain_text(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_text(item) for item in value]
    return value


def epoch() -> datetime:
    """Date inside the files: SOURCE_DATE_EPOCH where set, else 1970: never the time of day.

    Examples
    --------
    >>> import os; _ = os.environ.pop("SOURCE_DATE_EPOCH", None)
    >>> epoch().isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)


#: Rows and columns of a table that stands beside the figure after it, on a wide page.
BESIDE_ROWS, BESIDE_COLUMNS = 18, 7


def _beside(block: Block, after: Block | None) -> bool:
    """Whether a table is small enough to stand beside the figure of the same number."""
    return (
        isinstance(block, DataTable)
        and isinstance(after, Plate)
        and bool(block.number)
        and after.number.startswith(f"{block.number}.")
        and len(block.rows) <= BESIDE_ROWS
        and len(block.columns) <= BESIDE_COLUMNS
    )


def typeset(document: Document, **options: Any) -> bytes | list[bytes] | None:
    """Set a document with typst; ``options`` are those of ``typst.Compiler.compile``.

    Raises
    ------
    typst.TypstError
        If the template does not compile: an error of ours.
    """
    import json

    import typst

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        blocks = []
        text = characters_told(document)
        notice = [Paragraph(text, soft=True)] if text else []
        every = [*notice, *document.blocks]
        beside = False
        for number, (block, after) in enumerate(zip(every, [*every[1:], None], strict=True)):
            content = {
                "block": type(block).__name__,
                **{k: v for k, v in asdict(block).items() if k != "data"},
                **({"width_percent": 100} if beside else {}),
            }
            content["beside"] = beside = document.landscape and _beside(block, after)
            if isinstance(block, Plate):
                name = f"plate{number:03d}.{block.suffix}"
                (root / name).write_bytes(
                    _plain_svg(block.data) if block.suffix == "svg" else block.data
                )
                content["file"] = name
            blocks.append(_plain_text(content))
        date = epoch()
        head = _plain_text({**asdict(document), "blocks": []})
        head |= {"blocks": blocks, "date": [date.year, date.month, date.day]}
        (root / "document.json").write_text(json.dumps(head, sort_keys=True), encoding="utf-8")
        main = root / "main.typ"
        main.write_bytes((TEMPLATES / "document.typ").read_bytes())
        # Figures are set in the font that Matplotlib measured.
        fonts = [str(font_folder())]
        compiler = typst.Compiler(
            str(main), root=str(root), font_paths=fonts, ignore_system_fonts=True
        )
        return compiler.compile(timestamp=int(date.timestamp()), **options)


def write_document_pdf(document: Document, path: str | Path) -> Path:
    """Write a document as PDF/A-2b: embedded fonts, the same bytes for the same content."""
    data = typeset(document, format="pdf", pdf_standards=["a-2b"])
    if not isinstance(data, bytes):
        raise TypeError("typst gave pages instead of one document")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def _cell(text: str) -> str:
    return (
        str(text).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
    )


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    heads = [column.lstrip(">") for column in columns]
    marks = ["---:" if column.startswith(">") else "---" for column in columns]
    return [
        "| " + " | ".join(map(_cell, heads)) + " |",
        "|" + "|".join(marks) + "|",
        *("| " + " | ".join(map(_cell, row)) + " |" for row in rows),
        "",
    ]


def markdown(document: Document) -> str:
    """The document as Markdown; figures are named, not shown.

    Examples
    --------
    >>> text = markdown(Document("T", "S", "x", (("a", "b"),), (Paragraph("p <i>"),), "f"))
    >>> print(text.splitlines()[0], "p &lt;i>" in text)
    # T True
    """
    out = [f"# {_cell(document.title)}", "", _cell(document.subtitle), ""]
    out += [f"- {_cell(name)}: {_cell(value)}" for name, value in document.facts]
    out.append("")
    for block in document.blocks:
        if isinstance(block, Heading):
            out += [f"{'#' * (block.level + 1)} {_cell(block.text)}", ""]
        elif isinstance(block, Paragraph):
            out += [_cell(block.text), ""]
        elif isinstance(block, Bullets):
            out += [*(f"- {_cell(item)}" for item in block.items), ""]
        elif isinstance(block, Definitions):
            out += [*(f"- {_cell(name)}: {_cell(text)}" for name, text in block.rows), ""]
        elif isinstance(block, DataTable):
            name = f"{block.kind} {block.number}. " if block.number else ""
            out += [f"**{name}{_cell(block.title)}**", ""]
            out += _markdown_table(block.columns, block.rows)
            out += [f"{_cell(note)}" for note in block.notes]
            out += [f"Source: {_cell(block.source)}", ""] if block.source else [""]
        else:
            out += [f"Figure {block.number}. {_cell(block.title)} ({_cell(block.alt)})", ""]
    out += [_cell(document.footer), ""]
    return "\n".join(out)


def write_markdown(document: Document, path: str | Path) -> Path:
    """Write a document as Markdown."""
    return write_text(markdown(document), path)


def program() -> str:
    """The program, for footers."""
    return f"corelab {__version__}"
