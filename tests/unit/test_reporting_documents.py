"""The PDF and its numbering."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from fabricated_study import fabricated_results, fabricated_study, tables_only, with_config
from PIL import Image

from corelab.reporting.documents import (
    Bullets,
    DataTable,
    Definitions,
    Document,
    Heading,
    Paragraph,
    Plate,
    characters_told,
    markdown,
    printable,
    typeset,
    write_document_pdf,
)
from corelab.reporting.report import write_report
from corelab.reporting.tlf import report_document, table_numbers, write_pdf


def _document(*blocks, **more):
    return Document("Title", "Subtitle", "Study x", (("A", "b"),), tuple(blocks), "program", **more)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return fabricated_results(*fabricated_study(tmp_path_factory.mktemp("documents")))


def test_pdf_is_the_same_bytes_and_archival(tmp_path):
    folder, config, people = fabricated_study(tmp_path)
    first = write_pdf(fabricated_results(folder, config, people)).read_bytes()
    second = write_pdf(fabricated_results(folder, config, people)).read_bytes()
    assert first == second and first.startswith(b"%PDF-")
    assert b"pdfaid:part>2<" in first and b"pdfaid:conformance>B<" in first


@pytest.mark.parametrize("landscape", [True, False])
@pytest.mark.parametrize("size", [(100, 400), (300, 300), (900, 100)])
def test_a_figure_stays_whole_on_its_page_above_the_footer(landscape, size):
    """A red picture of any shape keeps its shape, and nothing is drawn where the footer stands."""
    wide, high = size
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
        f'height="{high}"><rect width="{wide}" height="{high}" fill="#f00"/></svg>'
    )
    caption = "A caption of some length, which says what is shown. " * 8
    plate = Plate("1", "A figure", svg.encode(), "svg", "red", caption, 80)
    document = _document(Paragraph("Before."), plate, Paragraph("After."), landscape=landscape)
    found = typeset(document, format="png", ppi=50.8)
    pages = [found] if isinstance(found, bytes) else found
    mm = 2  # pixels
    seen = 0
    for data in pages:
        page = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        red = (page[..., 0] > 200) & (page[..., 1] < 60)
        if red.any():
            seen += 1
            rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
            assert rows[0] >= 24 * mm and rows[-1] < page.shape[0] - 22 * mm
            ratio = (columns[-1] - columns[0] + 1) / (rows[-1] - rows[0] + 1)
            assert ratio == pytest.approx(wide / high, rel=0.05)
        dark = page.sum(axis=2) < 600
        assert not dark[page.shape[0] - 21 * mm : page.shape[0] - 18 * mm].any()
    assert seen == 1


def test_a_short_table_stands_beside_its_figure_and_a_long_one_above(results):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 6"><rect width="9" height="6" \
fill="#f00"/></svg>'
    plate = Plate("14.2.2.1", "Figure", svg, "svg", "red", "c", 80)
    left = []
    for rows in (3, 30):
        table = DataTable("14.2.2", "Table", ("a", ">b"), (("x", "1"),) * rows)
        found = typeset(_document(table, plate, landscape=True), format="png", ppi=50.8)
        pages = [found] if isinstance(found, bytes) else found
        drawn = [
            np.asarray(Image.open(io.BytesIO(page)).convert("RGB")).astype(int) for page in pages
        ]
        (red,) = (here for page in drawn if (here := page[..., 0] - page[..., 1] > 150).any())
        left.append(np.flatnonzero(red.any(0))[0] / red.shape[1])
    assert left[0] > 0.45 and left[1] < 0.1


def test_source_date_epoch_sets_the_date_inside(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    path = write_document_pdf(_document(Paragraph("x")), tmp_path / "a.pdf")
    assert b"D:20231114" in path.read_bytes()


def test_markup_of_typst_in_a_text_is_text(tmp_path):
    evil = '#panic("no") *bold* $x$ @ref <label> \\ ` [ ] { } "q" // c'
    blocks = (
        Heading(evil),
        Paragraph(evil),
        Bullets((evil,)),
        Definitions(((evil, evil),)),
        DataTable("1", evil, (evil, ">n"), ((evil, "1"),), evil, (evil,)),
    )
    assert write_document_pdf(_document(*blocks), tmp_path / "a.pdf").stat().st_size > 1000


def test_every_character_that_counts_as_covered_is_covered(tmp_path):
    # typst refuses a PDF/A with a character that no font has.
    text = "".join(chr(code) for code in range(0x20, 0x2700) if printable(chr(code)) == chr(code))
    assert "ρ" in text and "κ" in text and "−" in text and "é" in text
    blocks = (Paragraph(text), Heading(text, 2), DataTable("", text, (text,), ((text,),)))
    write_document_pdf(_document(*blocks), tmp_path / "a.pdf")


def test_text_outside_the_fonts_is_shown_by_its_code(tmp_path):
    blocks = (Paragraph("환자 007 \U0001f9e0"),)
    write_document_pdf(_document(*blocks), tmp_path / "a.pdf")
    assert printable("환") == "[U+D658]"


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 99 9"><text y="9">{}</text></svg>'


def test_characters_that_the_fonts_lack_are_told_and_never_boxes(tmp_path):
    # typst refuses a PDF/A with a glyph that it has not, in a drawing too.
    drawing = SVG.format("患者 &lt; 007").encode()
    plate = Plate("1", "t", drawing, "svg", "a", "c", 40)
    document = _document(Paragraph("환자 007"), plate)
    write_document_pdf(document, tmp_path / "a.pdf")
    output = characters_told(document)
    assert "lack 4 characters" in output and "[U+D658] hangul syllable hwan" in output
    assert "[U+60A3] cjk unified ideograph-60a3" in output
    assert characters_told(_document(Paragraph("κ ≥ 0.8, é"))) == ""
    # The notice is printed: the file with it is the file without strange text plus that sentence.
    same = _document(Paragraph(output, soft=True), Paragraph("[U+D658][U+C790] 007"),
                     Plate("1", "t", SVG.format("[U+60A3][U+8005] &lt; 007").encode(), "svg", "a",
                           "c", 40))  # fmt: skip
    write_document_pdf(same, tmp_path / "b.pdf")
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_the_report_of_subjects_with_korean_and_japanese_names(tmp_path):
    folder, config, people = tables_only(tmp_path)
    named = people.assign(participant_id=["환자-1", "患者-2"])
    path = folder / "endpoints/measurements.tsv"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"(?m)^1\t", "환자-1\t", re.sub(r"(?m)^2\t", "患者-2\t", text)), "utf-8")
    assert write_pdf(fabricated_results(folder, config, named)).is_file()
    images = write_report(fabricated_results(folder, config, named)).with_name("images.html")
    assert "환자-1" in images.read_text(encoding="utf-8")


def test_numbers_follow_the_clinical_study_report(results):
    numbers = table_numbers(results)
    assert numbers["growth-by-arm"] == "14.2.2"
    assert numbers["growth-by-dose"] == "14.2.3"
    assert numbers["growth-exposure"] == "14.2.4"
    assert numbers["volume-mrs"] == "14.2.5"
    assert numbers["mrs-shift"] == "14.2.6"
    assert numbers["readers"] == "14.4.1"
    assert numbers["masks"] == "14.4.7"


def test_every_table_has_its_own_number_source_and_cells(results):
    document = report_document(results)
    tables = [block for block in document.blocks if isinstance(block, DataTable)]
    numbered = [table.number for table in tables if table.number]
    assert len(numbered) == len(set(numbered))
    assert {"14.1.1", "14.1.2", "14.1.3", "14.2.1", "16.2.6.1", "16.2.6.3"} <= set(numbered)
    for table in tables:
        assert all(len(row) == len(table.columns) for row in table.rows), table.title
        assert all(isinstance(cell, str) for row in table.rows for cell in row), table.title
    for table in tables:
        if table.number.startswith(("14.2", "14.4")):
            assert table.source
    figures = [block.number for block in document.blocks if isinstance(block, Plate)]
    assert "14.2.1.1" in figures and len(figures) == len(set(figures))


def test_two_analyses_of_one_kind_are_told_apart(results):
    entries = [one.as_given() for one in results.analyses]
    again = with_config(results, analyses=[*entries, {**entries[2], "id": "again"}])
    numbers = table_numbers(again)
    assert (numbers["readers"], numbers["again"]) == ("14.4.1.1", "14.4.1.2")


def test_tables_only_study_has_a_pdf(tmp_path):
    assert write_pdf(fabricated_results(*tables_only(tmp_path))).is_file()


def test_markdown_says_the_same(results):
    text = markdown(report_document(results))
    assert "**Table 14.2.2. Infarct growth by arm (growth-by-arm)**" in text
    assert re.search(
        r"\| Mean difference, mL \|.*\| −4.8 \| \[−8.1, −1.5\] \| 0.005 \| 35 \|", text
    )
    assert "<script>" not in text
