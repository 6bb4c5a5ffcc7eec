"""Exhibits of the other packages in the report: on the pages, in the PDF and among the alarms."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from corelab import __version__
from corelab.provenance.exhibits import FOLDER, Drawing, Exhibit
from corelab.provenance.figure_style import on_a_page
from corelab.provenance.products import read_table
from corelab.reporting import page
from corelab.reporting.documents import Block, DataTable, Heading, Paragraph, Plate
from corelab.reporting.numbers import is_number, significant
from corelab.reporting.page import Cell, Column, Table, person_link
from corelab.reporting.results import Results, recode

#: Bytes of exhibits' figures on the study's page; further ones are linked to.
FIGURE_BUDGET_BYTES = 1_200_000
#: A table of an exhibit with more rows is named in the PDF, not printed.
MAX_PDF_ROWS = 120
#: How columns look that are no numbers.
_CSS = {"log": "mono", "retry": "mono wide", "reason": "why wide", "cause": "wide"}
#: Headings for exhibits whose section the study's page would not have otherwise.
TITLES = {"reading": "Central reading"}


@dataclass(frozen=True)
class Shown:
    """An exhibit ready for a page: ``svg`` for a drawing, ``uri`` for a picture as data; what does
    not fit the budget has neither, and its file ``href`` relative to the report.
    """

    title: str
    caption: str
    svg: Markup
    uri: str
    href: str
    alt: str
    table: Table | None


def _is_code(name: str, texts: pd.Series) -> bool:
    """Whether a column names things: ids, or digits with a leading zero as in ``007``."""
    return name.endswith("_id") or bool(texts.str.match(r"0\d").any())


def _cell(text: object) -> object:
    if text is None:
        return ""
    try:
        number = float(str(text))
    except ValueError:
        return str(text)
    return Cell(significant(number), number) if is_number(number) else ""


@dataclass(frozen=True)
class _Rows:
    """An exhibit's table: name, heading and cells of each column, and which are numbers."""

    names: list[str]
    heads: list[str]
    body: list[list[object]]
    numeric: list[bool]


def _rows(results: Results, exhibit: Exhibit) -> _Rows | None:
    """The table of an exhibit; None where it has none, or no row."""
    path = results.folder / exhibit.table
    if not exhibit.table or not path.is_file():
        return None
    frame = read_table(path)
    heads = dict(exhibit.columns or {name: name.replace("_", " ") for name in frame.columns})
    heads = {name: words for name, words in heads.items() if name in frame.columns}
    if frame.empty:
        return None
    by = exhibit.sort.removeprefix("-")
    if by in frame:
        keys = pd.to_numeric(frame[by], errors="coerce")
        falling = exhibit.sort.startswith("-")
        order = keys.sort_values(ascending=not falling, na_position="last", kind="stable").index
        frame = frame.loc[order]
    texts = frame[list(heads)].fillna("")
    columns, numeric = [], []
    for name in heads:
        cells = [_cell(text) for text in frame[name]]
        numbers = any(isinstance(cell, Cell) for cell in cells) and all(
            isinstance(cell, Cell) or cell == "" for cell in cells
        )
        # Only a column of numbers is rounded for reading; "007" in an id's column stays itself.
        numeric.append(numbers and not _is_code(name, texts[name]))
        words = [recode(str(text), results.codes) for text in texts[name]]
        columns.append(cells if numeric[-1] else words)
    body = [list(row) for row in zip(*columns, strict=True)]
    return _Rows(list(heads), list(heads.values()), body, numeric)


def _table(results: Results, exhibit: Exhibit) -> Table | None:
    rows = _rows(results, exhibit)
    if rows is None:
        return None
    columns = [
        Column(head, "number" if number else _CSS.get(name, "text"))
        for name, head, number in zip(rows.names, rows.heads, rows.numeric, strict=True)
    ]
    body = rows.body
    if "participant_id" in rows.names and not exhibit.participant_id:
        place = rows.names.index("participant_id")
        for row in body:
            row[place] = person_link(str(row[place]), results.pages)
    return Table(exhibit.title, columns, body, "", exhibit.table)


def _drawings(exhibit: Exhibit) -> list[Drawing]:
    """All figures of an exhibit, its own first."""
    own = Drawing(exhibit.figure, exhibit.title, exhibit.caption, exhibit.alt)
    return [*[own] * bool(exhibit.figure), *exhibit.drawings]


def _figure_path(results: Results, drawing: Drawing) -> Path | None:
    path = results.folder / FOLDER / drawing.figure
    return path if path.is_file() else None


def shown(results: Results, exhibits: Iterable[Exhibit]) -> list[Shown]:
    """Exhibits for a page; a figure that does not fit the page's budget is linked to."""
    found: list[Shown] = []
    spent = 0
    for exhibit in exhibits:
        table = _table(results, exhibit)
        drawn = [(_figure_path(results, one), one) for one in _drawings(exhibit)]
        for path, one in drawn:
            if path is None:
                continue
            data, uri, svg = path.read_bytes(), "", Markup()
            if spent + len(data) <= FIGURE_BUDGET_BYTES:
                spent += len(data)
                if path.suffix == ".svg":
                    svg = on_a_page(data.decode("utf-8"), re.sub(r"\W", "-", path.stem), one.alt)
                else:
                    uri = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
            href = f"../{FOLDER}/{one.figure}"
            found.append(Shown(one.title, one.caption, svg, uri, href, one.alt, table))
            table = None  # it stands once, below the first figure
        undrawn = bool(exhibit.caption) and not exhibit.figure
        if table is not None or undrawn or not any(path for path, _ in drawn):
            found.append(Shown(exhibit.title, exhibit.caption, Markup(), "", "", "", table))
    return found


def of_section(results: Results, section: str, participant_id: str = "") -> list[Exhibit]:
    """Exhibits of a section of the study's page, or of a subject's page."""
    return [
        exhibit
        for exhibit in results.exhibits
        if exhibit.section == section and exhibit.participant_id == participant_id
    ]


def banners(results: Results) -> list[str]:
    """Sentences for the head of every page."""
    return list(dict.fromkeys(exhibit.banner for exhibit in results.exhibits if exhibit.banner))


def exhibit_blocks(
    results: Results, exhibits: Iterable[Exhibit], prefix: str, subject: str = "", tables: int = 1
) -> list[Block]:
    """Exhibits as figures and tables of a document, each numbered in its own series without gaps.

    Parameters
    ----------
    results, exhibits
        The study, and what to show of it.
    prefix, tables
        Of the numbers, as in ``14.4.20``, and the last part of the first table's.
    subject
        Put before each title that does not begin with it: the analysis that they belong to.
    """

    def titled(title: str) -> str:
        return title if not subject or title.startswith(subject) else f"{subject}: {title}"

    blocks: list[Block] = []
    figure_numbers, table_numbers = count(1), count(tables)
    for exhibit in exhibits:
        for one in _drawings(exhibit):
            path = _figure_path(results, one)
            if path is not None:
                number, data, kind = (
                    f"{prefix}.{next(figure_numbers)}",
                    path.read_bytes(),
                    path.suffix[1:],
                )
                blocks.append(
                    Plate(number, titled(one.title), data, kind, one.alt, one.caption, 80)
                )
        rows = _rows(results, exhibit)
        if rows is not None:
            titles = [f">{h}" if n else h for h, n in zip(rows.heads, rows.numeric, strict=True)]
            cells = [
                tuple(str(c.text) if isinstance(c, Cell) else str(c) for c in row)
                for row in rows.body
            ]
            notes = [exhibit.caption] if exhibit.caption and not exhibit.figure else []
            if len(cells) > MAX_PDF_ROWS:
                text = f"{titled(exhibit.title)}: the {len(cells)} rows are in {exhibit.table}."
                blocks.append(Paragraph(" ".join([text, *notes]), soft=True))
                continue
            blocks.append(
                DataTable(
                    f"{prefix}.{next(table_numbers)}",
                    titled(exhibit.title),
                    tuple(titles),
                    tuple(cells),
                    exhibit.table,
                    tuple(notes),
                )
            )
    return blocks


def report_blocks(results: Results) -> list[Block]:
    """Exhibits of the study, not of a subject or an analysis, for the end of the tables."""
    studywide = [
        exhibit
        for exhibit in results.exhibits
        if not exhibit.participant_id and not exhibit.section.startswith("analysis:")
    ]
    blocks = exhibit_blocks(results, studywide, "14.5")
    return [Heading("14.5 Further figures and tables"), *blocks] if blocks else []


@dataclass(frozen=True)
class Common:
    """What every page has: head, foot, style, program, and exhibits by section."""

    banners: list[str]
    exhibits: dict[str, list[Shown]]
    version: str
    css: Markup
    script: Markup
    study_id: str
    sap_version: str
    fingerprint: str


def common_content(results: Results, participant_id: str | None = "") -> Common:
    """What every page has: style, script, study, banners; exhibits of the study or of a subject."""
    sections: dict[str, list[Shown]] = {}
    for exhibit in results.exhibits:
        if exhibit.participant_id == participant_id and exhibit.section not in sections:
            own = of_section(results, exhibit.section, exhibit.participant_id)
            sections[exhibit.section] = shown(results, own)
    return Common(
        banners(results),
        sections,
        __version__,
        Markup(page.asset("report.css")),
        Markup(page.asset("report.js")),
        results.study.id,
        results.study.sap_version,
        results.fingerprint,
    )
