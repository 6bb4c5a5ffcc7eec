"""Every numbered table of the report as a file of its own: RTF for word processors, HTML for pages.

Both are made here from the rows that the PDF prints. The RTF is laid out as rtflite does
(https://merck.github.io/rtflite), the open-source form of the tables of a clinical study report.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from corelab.provenance.figure_style import font_folder
from corelab.provenance.products import atomic_path, write_text
from corelab.reporting.documents import DataTable, program

#: Rows of one file; the table's source file has them all.
MAX_ROWS = 600
#: Look of a table's page.
_CSS = (
    "body{font:16px/1.25 system-ui,sans-serif;color:#333;background:#fff}"
    "div{overflow-x:auto}"
    "table{border-collapse:collapse;margin:10px auto}"
    "caption{padding:5px;border-top:2px solid #a8a8a8;border-bottom:2px solid #d3d3d3}"
    "caption span{display:block;font-size:125%;font-weight:normal}"
    "th,td{padding:8px 5px;text-align:left;border-top:1px solid #d3d3d3}"
    "th{font-weight:normal;vertical-align:bottom;border-bottom:2px solid #d3d3d3}"
    ".n{text-align:right;font-variant-numeric:tabular-nums}"
    "tfoot td{font-size:90%;border:0;padding:4px 5px}"
    "tfoot tr:first-child td{border-top:2px solid #d3d3d3}"
    "tfoot tr:last-child td{border-bottom:2px solid #a8a8a8}"
)


def file_stem(table: DataTable) -> str:
    """Name of a table's files.

    Examples
    --------
    >>> file_stem(DataTable("14.2.1", "t", (), ())), file_stem(DataTable("16.2.6.1", "t", (), (),
    ...     kind="Listing"))
    ('t-14-2-1', 'l-16-2-6-1')
    """
    return f"{table.kind[0].lower()}-{re.sub(r'[^0-9A-Za-z]+', '-', table.number).strip('-')}"


def _notes(table: DataTable) -> list[str]:
    notes = list(table.notes)
    if len(table.rows) > MAX_ROWS:
        notes.append(f"The first {MAX_ROWS} of {len(table.rows)} rows.")
    if table.source:
        notes.append(f"Source: {table.source}")
    return notes


def html_table(table: DataTable, footer: str) -> str:
    """A table as one HTML page without scripts."""
    name = escape(f"{table.kind} {table.number}")
    css = [' class="n"' * column.startswith(">") for column in table.columns]
    heads = "".join(
        f'<th scope="col"{one}>{escape(column.lstrip(">"))}</th>'
        for column, one in zip(table.columns, css, strict=True)
    )
    rows = "\n".join(
        f"<tr>{''.join(f'<td{one}>{escape(v)}</td>' for v, one in zip(row, css, strict=True))}</tr>"
        for row in table.rows[:MAX_ROWS]
    )
    notes = "\n".join(
        f'<tr><td colspan="{len(css)}">{escape(note)}</td></tr>'
        for note in [*_notes(table), footer]
    )
    return Markup(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{_CSS}</style></head>\n"
        f"<body><div><table><caption><span>{name}</span>{escape(table.title)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n"
        f"<tfoot>\n{notes}\n</tfoot></table></div></body></html>\n"
    )


# --- RTF ---------------------------------------------------------------------------------------

#: Width of a table in twips (1/1440 inch), points of its text, and lines of a page, which are
#: shared by the heading, rows, notes and footer.
_WIDTH, _POINTS, _LINES = 12240, 9, 24
#: The widest column is no wider than so many characters.
_MOST_CHARACTERS = 44
_START = r"""{\rtf1\ansi
\deff0\deflang1033
{\fonttbl{\f0\froman\fcharset1\fprq2 Times New Roman;}}
"""
_PAGE = r"""\paperw15840\paperh12240\landscape
\margl1440\margr1440\margt2880\margb1800\headery1800\footery1800
"""
_PAGE_BREAK = r"{\pard\fs2\par}\page{\pard\fs2\par}" + "\n"
_CELL = r"\pard\hyphpar0\sb15\sa15\fi0\li0\ri0\q%s\fs18{\f0 %s}\cell"
_LINE, _DOUBLE = r"\brdrs", r"\brdrdb"


def _rtf_text(text: str) -> str:
    r"""Text that RTF does not read as commands; beyond ASCII as signed 16-bit code units.

    Examples
    --------
    >>> print(_rtf_text("{a} \N{GREEK SMALL LETTER KAPPA}"))
    \{a\} \u954?
    """
    units = memoryview(re.sub(r"([\\{}])", r"\\\1", text).encode("utf-16-le")).cast("h")
    return "".join(chr(unit) if 0 <= unit < 128 else f"\\u{unit}?" for unit in units)


@cache
def _font() -> Any:
    """The font by which lines are counted: it has the widths of Times New Roman."""
    from PIL import ImageFont

    return ImageFont.truetype(str(font_folder() / "STIXGeneral.ttf"), _POINTS)


def _row(
    cells: Sequence[str],
    align: Sequence[str],
    edges: Sequence[int],
    *,
    top: str = "",
    bottom: str = "",
    upright: str = "t",
) -> str:
    """A row of a table: cells with their alignment and right edges in twips, and its lines."""
    borders = [
        rf"\clbrdrl{_LINE}\brdrw15\clbrdrt{top}\brdrw15"
        + rf"\clbrdrr{_LINE}\brdrw15" * (edge == edges[-1])
        + rf"\clbrdrb{bottom}\brdrw15\clvertal{upright}\cellx{edge}"
        for edge in edges
    ]
    texts = [_CELL % (side, text) for side, text in zip(align, cells, strict=True)]
    return "\n".join([r"\trowd\trgaph108\trleft0\trqc", *borders, *texts, r"\intbl\row\pard", ""])


def _pages(rows: Sequence[Sequence[str]], edges: Sequence[int]) -> Iterator[list[Sequence[str]]]:
    """The rows of each page, by the lines that they take."""
    widths = [(b - a) / 1440 * 72 for a, b in zip([0, *edges], edges, strict=False)]
    page: list[Sequence[str]] = []
    used = 0
    for row in rows:
        lines = max(
            int(_font().getlength(v) / width) + 1 for v, width in zip(row, widths, strict=True)
        )
        if page and used + lines > _LINES - 3:
            yield page
            page, used = [], 0
        page.append(row)
        used += lines
    yield page


def rtf_table(table: DataTable, footer: str) -> str:
    """A table as RTF, landscape, its title and heading repeated on every page."""
    rows = table.rows[:MAX_ROWS]
    align = ["r" if name.startswith(">") else "l" for name in table.columns]
    # Widths follow the longest cell, within reason.
    longest = [
        min(max(len(text) for text in column), _MOST_CHARACTERS)
        for column in zip(table.columns, *rows, strict=True)
    ]
    edges = [round(_WIDTH * part / sum(longest)) for part in accumulate(longest)]
    title = (
        r"{\pard\hyphpar\sb180\sa180\fi0\li0\ri0\qc\fs24"
        rf"{{\f0 {table.kind} {_rtf_text(table.number)}}}\line\fs24{{\f0 {_rtf_text(table.title)}}}"
        "\\par}\n"
    )
    heads = [_rtf_text(name.lstrip(">")) for name in table.columns]
    made = [_START]
    for number, page in enumerate(pages := list(_pages(rows, edges))):
        made += [_PAGE_BREAK * bool(number), _PAGE, title]
        made.append(_row(heads, align, edges, top=_LINE if number else _DOUBLE, upright="b"))
        # The notes have a line above them.
        last = len(page) - 1 if number < len(pages) - 1 else -1
        for place, row in enumerate(page):
            cells = [_rtf_text(text) for text in row]
            top, bottom = _LINE * (place == 0), _LINE * (place == last)
            made.append(_row(cells, align, edges, top=top, bottom=bottom))
    notes = r"\line ".join(map(_rtf_text, _notes(table)))
    made.append(_row([notes], "l", [_WIDTH], top=_LINE, bottom=_DOUBLE))
    made.append(
        rf"{{\pard\hyphpar\sb15\sa15\fi0\li0\ri0\qc\fs18{{\f0 {_rtf_text(footer)}}}\par}}" + "\n}\n"
    )
    return "".join(made)


def write_table_files(
    tables: Sequence[DataTable], folder: str | Path, *, footer: str = ""
) -> list[Path]:
    """Write every numbered table as ``.rtf`` and ``.html``; earlier files there are removed."""
    target = Path(folder)
    if target.is_dir():
        shutil.rmtree(target)
    written: list[Path] = []
    taken: set[str] = set()
    shown: list[tuple[DataTable, str]] = []
    for table in tables:
        stem = file_stem(table)
        if not table.number or not table.rows or stem in taken:
            continue
        taken.add(stem)
        written.append(write_text(html_table(table, footer or program()), target / f"{stem}.html"))
        path = target / f"{stem}.rtf"
        with atomic_path(path) as temporary:
            temporary.write_text(rtf_table(table, footer or program()), encoding="ascii")
        written.append(path)
        shown.append((table, stem))
    written.append(write_text(_index(shown), target / "index.html"))
    return written


def _index(tables: Sequence[tuple[DataTable, str]]) -> str:
    """A page that links to every table."""
    rows = "\n".join(
        f"<li>{table.kind} {table.number}: {html.escape(table.title)} "
        f'(<a href="{stem}.html">HTML</a>, <a href="{stem}.rtf">RTF</a>)</li>'
        for table, stem in tables
    )
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>Tables</title></head>\n'
        f'<body><main><h1>Tables</h1>\n<p><a href="../index.html">Report</a></p>\n'
        f"<ul>\n{rows}\n</ul></main></body></html>\n"
    )
