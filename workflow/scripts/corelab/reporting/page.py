"""Building blocks of the offline pages: tables, sizes, the security policy, the templates.

Every text that came from input passes Jinja's escaping; only :mod:`charts` and this module make
markup, and they escape what they are given.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from corelab.reporting.documents import DataTable
from corelab.reporting.numbers import is_number

HERE = Path(__file__).parent
#: Rows that a table on a page shows; the file it names has them all.
MAX_ROWS = 400


#: Pages of the study, with their titles.
STUDY_PAGES = {
    "index.html": "Results",
    "analyses.html": "Analyses",
    "endpoints.html": "Endpoints",
    "images.html": "Images",
    "quality.html": "Quality",
    "methods.html": "Methods",
}
#: Sections -> page; a section that is not named stands with the analyses.
_SECTIONS = {
    **dict.fromkeys(("glance", "participants", "images", "all-analyses"), "index.html"),
    "endpoints": "endpoints.html",
    "maps": "images.html",
    **dict.fromkeys(
        ("quality", "acquisition", "gates", "unavailable", "findings", "failures"), "quality.html"
    ),
    **dict.fromkeys(("methods", "limits", "deviations", "reference"), "methods.html"),
    "conformance": "../submission/datasets/conformance.tsv",
}


def place(address: str) -> str:
    """Address of a section from any page of the report; other addresses stay.

    Examples
    --------
    >>> place("#gates"), place("#analysis-a"), place("review.html")
    ('quality.html#gates', 'analyses.html#analysis-a', 'review.html')
    """
    if not address.startswith("#"):
        return address
    section = address[1:].removeprefix("exhibit-")
    file = _SECTIONS.get(section, "analyses.html")
    return file if file.startswith("..") else file + address


@dataclass(frozen=True)
class Column:
    """A column: its heading and how its cells look (``text``, ``number``, ``why``, ``wide``)."""

    title: str
    css: str = "text"
    sortable: bool = True


#: Signs before a heading and what they mean for its cells.
_SIGNS = {">": "number", "*": "number main", "?": "why", "~": "wide", "#": "first"}


def heads(*titles: str) -> list[Column]:
    """Columns by their headings, one or several (with ``|`` between) in a text.

    Signs before a heading: ``>`` a number, ``*`` the main number, ``?`` soft text, ``~`` wide text,
    ``#`` the first column; ``=`` cannot be sorted by.

    Examples
    --------
    >>> [(one.css, one.sortable) for one in heads("Visit", "*Value | ?~Notes | >=Range")]
    [('text', True), ('number main', True), ('why wide', True), ('number', False)]
    """
    found = []
    for head in (part for text in titles for part in text.split(" | ")):
        title = head.lstrip("".join(_SIGNS) + "=")
        signs = head[: len(head) - len(title)]
        css = " ".join(_SIGNS[sign] for sign in signs if sign in _SIGNS)
        found.append(Column(title, css or "text", "=" not in signs))
    return found


@dataclass(frozen=True)
class Cell:
    """A cell whose text is not what it sorts by."""

    text: Any
    sort: Any = None


@dataclass(frozen=True)
class Table:
    """A table with its caption.

    Attributes
    ----------
    caption
        What the table shows.
    columns
        The first column holds row headings.
    rows
        Cells: text, markup or :class:`Cell`.
    note
        After the caption, in softer type.
    source
        File that holds every row.
    label
        Name for screen readers where several tables have one caption.
    limit
        Rows that the page shows.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    source: str = ""
    label: str = ""
    limit: int = MAX_ROWS


def tag(text: str, css: str | None = None) -> Markup:
    """A short status text with its colour.

    Examples
    --------
    >>> str(tag("ok"))
    '<span class="tag ok">ok</span>'
    """
    words = escape(text.replace("_", " "))
    return Markup(f'<span class="tag {escape(css or text)}">{words}</span>')


def link(href: str, text: Any) -> Markup:
    """A link inside the report.

    Examples
    --------
    >>> str(link("sub-+3C.html", "<"))
    '<a href="sub-%2B3C.html">&lt;</a>'
    """
    path, mark, anchor = href.partition("#")
    safe = quote(path) + (f"#{quote(anchor, safe='')}" if mark else "")
    return Markup(f'<a href="{safe}">{escape(text)}</a>')


def more(summary: str, body: Any) -> Markup:
    """Text that opens on demand; nothing where there is no text."""
    if not body:
        return Markup("")
    return Markup(f"<details><summary>{escape(summary)}</summary>{escape(body)}</details>")


def lines(parts: Iterable[tuple[str, str]]) -> Markup:
    """``name: text`` lines, leaving out the empty ones.

    Examples
    --------
    >>> str(lines([("method", "OLS"), ("note", "")]))
    '<b>method</b>: OLS'
    """
    kept = [f"<b>{escape(name)}</b>: {escape(text)}" for name, text in parts if text]
    return Markup("<br>".join(kept))


def _file(source: str) -> Markup:
    """A file of the study as a link from a page of the report."""
    return link(
        source.removeprefix("report/") if source.startswith("report/") else f"../{source}", source
    )


#: Cells up to so many characters stay on one line, on paper and on a phone too.
_SHORT_CHARACTERS = 18
#: Columns with longer cells are never squeezed to a narrow strip.
_LONG_CHARACTERS = 60


def _content(cell: Any) -> str:
    """What a cell holds, as markup."""
    return str(escape(cell.text if isinstance(cell, Cell) else cell))


def _length(content: str) -> int:
    """Characters of the visible text of a cell."""
    return len(Markup(content).striptags()) if "<" in content or "&" in content else len(content)


def _class(column: Column, contents: Iterable[str]) -> str:
    """Class of a column by its longest cell: short texts stay whole, long ones wrap."""
    longest = max(map(_length, contents), default=0)
    if longest <= _SHORT_CHARACTERS and column.css in ("text", "number", "number main"):
        return f"{column.css} nowrap"
    return f"{column.css} long" if longest > _LONG_CHARACTERS else column.css


def _sort_key(cell: Any) -> str:
    """Attribute with what a cell sorts by; empty where that is its text."""
    if not isinstance(cell, Cell) or cell.sort is None:
        return ""
    known = is_number(cell.sort) or isinstance(cell.sort, str)
    return f' data-sort="{escape(cell.sort) if known else ""}"'


def _column(column: Column, cells: Sequence[Any], first: bool) -> tuple[str, list[str]]:
    """Head of a column, and its cells; no head where every cell is empty."""
    contents = [_content(cell) for cell in cells]
    if not first and contents and not any(contents):
        return "", []
    name, css = "th" if first else "td", _class(column, contents).removeprefix("text").strip()
    css = f' class="{css}"' if css else ""
    scope = ' scope="row"' if first else ""
    body = [
        f"<{name}{scope}{css}{_sort_key(cell)}>{content}</{name}>"
        for cell, content in zip(cells, contents, strict=True)
    ]
    title, aria = str(escape(column.title)), ' aria-sort="none"' * column.sortable
    title = f'<button type="button">{title}</button>' if column.sortable else title
    return f'<th scope="col" class="{column.css}"{aria}>{title}</th>', body


def render_table(table: Table) -> Markup:
    """A sortable table as HTML, without columns that are empty in every row.

    Examples
    --------
    >>> text = render_table(Table("A", [Column("x")], [["<b>"]]))
    >>> "&lt;b&gt;" in text, 'aria-sort="none"' in text
    (True, True)
    """
    shown = table.rows[: table.limit]
    columns = [
        _column(column, [row[number] for row in shown], number == 0)
        for number, column in enumerate(table.columns)
    ]
    row = "".join(head for head, _ in columns)
    body = "".join(
        f"<tr>{''.join(cells)}</tr>"
        for cells in zip(*(cells for head, cells in columns if head), strict=True)
    )
    notes = [escape(table.note)] if table.note else []
    if len(table.rows) > table.limit:
        notes.append(Markup(f"The first {table.limit} of {len(table.rows)} rows."))
    if table.source:
        notes.append(Markup("File: {}.").format(_file(table.source)))
    note = f' <span class="soft">{" ".join(notes)}</span>' if notes else ""
    label, caption = escape(table.label or table.caption), escape(table.caption)
    return Markup(
        f'<div class="table"><div class="scroll" tabindex="0" role="region" aria-label="{label}">'
        f"<table data-sortable><caption>{caption}{note}</caption><thead><tr>{row}</tr></thead>"
        f"<tbody>{body}</tbody></table></div></div>"
    )


#: Columns that have no place on paper: cells that open on demand, and anchors of rows.
_NOT_PRINTED = ("Method", "Trace", "Row")


def printed(
    table: Table,
    number: str = "",
    title: str = "",
    notes: Sequence[str] = (),
    *,
    kind: str = "Table",
    limit: int | None = None,
) -> DataTable:
    """A table of a page as that of a document, without columns that are empty or open on demand.

    Its caption is the title where none is given; ``limit`` rows are printed, all by default.

    Examples
    --------
    >>> table = Table("A", [Column("x"), Column("y", "number")], [["<b>", Cell("1.0", 1.02)]])
    >>> printed(table, "14.1").columns, printed(table, "14.1").rows
    (('x', '>y'), (('<b>', '1.0'),))
    """
    cells = [[_plain(cell) for cell in row] for row in table.rows[:limit]]
    kept = [
        place
        for place, column in enumerate(table.columns)
        if column.title not in _NOT_PRINTED and (not cells or any(row[place] for row in cells))
    ]
    more = [table.note] if table.note else []
    if limit is not None and len(table.rows) > limit:
        more.append(f"The first {limit} of {len(table.rows)} rows.")
    return DataTable(
        number,
        title or table.caption,
        tuple(">" * ("number" in table.columns[n].css) + table.columns[n].title for n in kept),
        tuple(tuple(row[n] for n in kept) for row in cells),
        table.source,
        (*more, *notes),
        kind,
    )


def _plain(cell: Any) -> str:
    """Text of a cell on paper."""
    content = _content(cell)
    return Markup(re.sub(r"<(br|span)", r" <\1", content)).striptags()


@cache
def asset(name: str) -> str:
    """Text of a file of ``assets/``."""
    return (HERE / "assets" / name).read_text(encoding="utf-8")


def asset_rows(name: str) -> list[dict[str, str]]:
    """Rows of a table of ``assets/``, by column."""
    head, *rows = (line.split("\t") for line in asset(f"{name}.tsv").splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def _script_hash(source: str) -> str:
    """How a content security policy names a script."""
    digest = hashlib.sha256(source.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def security_policy(scripts: Sequence[str], *, files: bool = False) -> str:
    """Policy of a page: nothing from outside, and only the scripts that this page brings.

    With ``files`` also scripts and pictures that lie beside the page.

    Examples
    --------
    >>> "file:" in security_policy([]), "file:" in security_policy([], files=True)
    (False, True)
    """
    hashes = " ".join(_script_hash(script) for script in scripts)
    beside = " 'self' file:" if files else ""
    return (
        f"default-src 'none'; script-src {hashes}{beside}; style-src 'unsafe-inline'; "
        f"img-src data: blob:{beside}; "
        "connect-src data: blob:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )


#: Figures beside a table are together no higher than so many times their width.
_MOST_RATIO = 1.5


def _tall(figures: Sequence[Any]) -> bool:
    """Whether figures would leave much paper empty below the table that they stand beside."""
    boxes = (re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', one.svg) for one in figures)
    return sum(float(box[2]) / float(box[1]) for box in boxes if box) > _MOST_RATIO


@cache
def environment() -> jinja2.Environment:
    """Jinja with escaping on and undefined names as errors."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["table"] = render_table
    env.filters["place"] = place
    env.filters["tall"] = _tall
    env.filters["joint_legend"] = lambda pictures: dict.fromkeys(
        tuple(item) for picture in pictures for item in picture.legend
    )
    return env


def render(template: str, common: object, **content: Any) -> str:
    """A page from a file of ``templates/``: what every page has, and what this one has besides."""
    return environment().get_template(template).render({**vars(common), **content}) + "\n"


def person_link(value: str, pages: Mapping[str, str]) -> Any:
    """A subject's id, as a link where the subject has a page.

    Examples
    --------
    >>> str(person_link("001", {"001": "sub-001.html"})), person_link("002", {})
    ('<a href="sub-001.html">001</a>', '002')
    """
    return Markup('<a href="{}">{}</a>').format(pages[value], value) if value in pages else value
