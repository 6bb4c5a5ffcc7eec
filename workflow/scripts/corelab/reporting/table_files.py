"""Every numbered table of the report as a file of its own: RTF for word processors, HTML for pages.

RTF is written by rtflite, HTML by great-tables; both from the rows that the PDF prints.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from corelab.provenance.products import atomic_path, write_text
from corelab.reporting.documents import DataTable, program

#: Rows of one file; the table's source file has them all.
MAX_ROWS = 600


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


def _frame(table: DataTable) -> pd.DataFrame:
    # Headings need not be unique; columns of a frame do.
    names = [f"c{k}" for k in range(len(table.columns))]
    return pd.DataFrame([list(row) for row in table.rows[:MAX_ROWS]], columns=names)


def _right(table: DataTable) -> list[bool]:
    return [name.startswith(">") for name in table.columns]


def html_table(table: DataTable, footer: str) -> str:
    """A table as one HTML page without scripts."""
    from great_tables import GT
    from great_tables import html as raw

    frame = _frame(table)
    made = GT(frame, id=f"corelab-{file_stem(table)}")
    heads: dict[str, Any] = {f"c{k}": name.lstrip(">") for k, name in enumerate(table.columns)}
    made = made.tab_header(
        title=f"{table.kind} {table.number}", subtitle=raw(html.escape(table.title))
    ).cols_label(heads)
    right = [f"c{k}" for k, flag in enumerate(_right(table)) if flag]
    left = [f"c{k}" for k, flag in enumerate(_right(table)) if not flag]
    if right:
        made = made.cols_align("right", right)
    if left:
        made = made.cols_align("left", left)
    for note in [*_notes(table), footer]:
        made = made.tab_source_note(raw(html.escape(note)))
    body = made.as_raw_html()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(f'{table.kind} {table.number}')}</title></head>\n"
        f"<body>{body}</body></html>\n"
    )


def _rtf_text(text: str) -> str:
    r"""Text that RTF does not read as commands."""
    return re.sub(r"([\\{}])", r"\\\1", text)


def _escaped(text: str) -> str:
    r"""Characters beyond ASCII as RTF's signed 16-bit code units."""
    units = memoryview(text.encode("utf-16-le")).cast("h")
    return "".join(chr(unit) if 0 <= unit < 128 else f"\\u{unit}?" for unit in units)


def rtf_table(table: DataTable, footer: str) -> str:
    """A table as RTF, landscape, its heading repeated on every page."""
    import polars
    import rtflite as rtf

    frame = _frame(table).fillna("").astype(str)
    align = ["r" if flag else "l" for flag in _right(table)]
    # Widths follow the longest cell, within reason; rtflite scales them to the page.
    widths = [
        float(min(max([len(name), *(len(v) for v in frame[column])], default=4), 44))
        for name, column in zip(table.columns, frame.columns, strict=True)
    ]
    cells = {name: [_rtf_text(v) for v in frame[name]] for name in frame.columns}
    heads = [_rtf_text(name.lstrip(">")) for name in table.columns]
    notes = [_rtf_text(note) for note in _notes(table)] or [""]
    title = [f"{table.kind} {table.number}", _rtf_text(table.title)]
    # rtflite reads LaTeX and markup in texts unless that is switched off.
    plain = {"text_convert": False}
    document = rtf.RTFDocument(
        # rtflite 2.6 takes pandas only with an older narwhals.
        df=polars.DataFrame(cells),
        rtf_page=rtf.RTFPage(orientation="landscape"),
        rtf_title=rtf.RTFTitle(text=title, **plain),
        rtf_column_header=[
            rtf.RTFColumnHeader(text=heads, col_rel_width=widths, text_justification=align, **plain)
        ],
        rtf_body=rtf.RTFBody(col_rel_width=widths, text_justification=align, **plain),
        rtf_footnote=rtf.RTFFootnote(text=notes, **plain),
        rtf_source=rtf.RTFSource(text=[_rtf_text(footer)], **plain),
    )
    # rtflite itself writes some characters that RTF has to escape (a squared sign, say).
    return _escaped(document.rtf_encode())


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
