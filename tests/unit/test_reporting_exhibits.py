"""Exhibits: what a package hands to the report arrives on the pages, in the PDF and among alarms."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from fabricated_study import fabricated_results, fabricated_study
from matplotlib.figure import Figure

from corelab.pharmacodynamics import figures
from corelab.pharmacodynamics.outcome_figures import _progression_scatter
from corelab.provenance.exhibits import Alarm, Drawing, write_exhibit
from corelab.provenance.figure_style import on_a_page, svg_of
from corelab.provenance.products import write_table
from corelab.reporting.attention import attention, flagged_subjects
from corelab.reporting.exhibits import report_blocks
from corelab.reporting.report import write_report
from corelab.reporting.results import subject_page

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle r="4"/></svg>'


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder, config, people = fabricated_study(tmp_path_factory.mktemp("exhibits"))
    (folder / "exhibits").mkdir()
    (folder / "exhibits" / "chart.svg").write_bytes(SVG)
    frame = pd.DataFrame({"site": ["007", "<b>"], "bias_ml": [1.23456, -2.0]})
    write_table(frame, folder / "statistics" / "chart.tsv", ["site", "bias_ml"])
    write_exhibit(
        folder / "exhibits" / "chart.json",
        section="phantom",
        title="Control chart",
        caption="Bias by date.",
        figure="chart.svg",
        alt="one circle",
        table="statistics/chart.tsv",
        columns={"site": "Site", "bias_ml": "Bias, mL"},
        alarms=[Alarm("error", "Site 7 drifts", ("S-02",))],
        banner="INVALID: the lock is broken",
    )
    (folder / "exhibits" / "second.svg").write_bytes(SVG.replace(b"4", b"3"))
    people_table = pd.DataFrame(
        {"participant_id": ["007", "S-02", "1"], "rank": [10, 2, 1], "code": ["01", "2", "3"]}
    )
    write_table(people_table, folder / "quality" / "fits.tsv", list(people_table), sort=False)
    write_exhibit(
        folder / "exhibits" / "fits.json",
        section="quality",
        title="Fits",
        drawings=[
            Drawing("chart.svg", "First drawing", "One.", "a circle"),
            Drawing("second.svg", "Second drawing", "Two.", "a small circle"),
        ],
        table="quality/fits.tsv",
        sort="rank",
    )
    write_exhibit(
        folder / "exhibits" / "own.json",
        section="images",
        title="Only for one",
        participant_id="S-01",
    )
    return folder, config, people, write_report(fabricated_results(folder, config, people))


def test_an_exhibit_brings_its_own_section_figure_and_table(study):
    text = study[3].with_name("analyses.html").read_text(encoding="utf-8")
    part = text.split('id="phantom"')[1].split("</section>")[0]
    assert '<circle r="4"/>' in part and 'aria-label="one circle"' in part
    assert "Bias, mL" in part and "&lt;b&gt;" in part
    # Columns stand in the order that the package gave, which is not the alphabet's.
    assert part.index(">Site<") < part.index(">Bias, mL<")
    # An id stays text; a number is rounded for reading and sorts by its own value.
    assert ">007<" in part and 'data-sort="1.23456"' in part


def test_a_banner_stands_on_every_page(study):
    for page in study[3].parent.glob("*.html"):
        assert "INVALID: the lock is broken" in page.read_text(encoding="utf-8"), page.name


def test_a_subjects_exhibit_is_on_its_page_alone(study):
    folder = study[3].parent
    assert "Only for one" in (folder / subject_page("S-01")).read_text(encoding="utf-8")
    assert "Only for one" not in (folder / subject_page("S-02")).read_text(encoding="utf-8")
    assert "Only for one" not in study[3].read_text(encoding="utf-8")


def test_alarms_need_attention_and_flag_subjects(study):
    results = fabricated_results(*study[:3])
    assert ("error", "Site 7 drifts") in {(a.severity, a.text) for a in attention(results)}
    assert flagged_subjects(results)["S-02"] == "error"


def test_the_pdf_numbers_them(study):
    blocks = report_blocks(fabricated_results(*study[:3]))
    numbers = [getattr(block, "number", "") for block in blocks]
    # Figures and tables are two series, each without gaps.
    assert numbers == ["", "14.5.1", "14.5.1", "14.5.2", "14.5.3", "14.5.2"]
    assert [block.title for block in blocks[3:]] == ["First drawing", "Second drawing", "Fits"]


def test_an_exhibit_may_have_several_drawings_and_a_sorted_table(study):
    text = study[3].with_name("quality.html").read_text(encoding="utf-8")
    part = text.split('id="exhibit-quality"')[1].split("</section>")[0]
    assert part.index("First drawing") < part.index("Second drawing")
    assert part.count("<table") == 1
    # 1, 2, 10 by number; ids and codes with leading zeros are texts; a known subject has a link.
    assert part.index(">1<") < part.index("S-02") < part.index("007")
    assert ">01<" in part and 'href="sub-S+2D02.html"' in part.replace("%2B", "+")


def test_only_exhibits_of_this_run_are_shown(study):
    assert fabricated_results(*study[:3], exhibits=[]).exhibits == ()


@pytest.mark.parametrize(
    ("more", "output"),
    [
        ({"section": "nowhere"}, "unknown section"),
        ({"figure": "absent.svg", "alt": "a"}, "does not lie beside it"),
        ({"figure": "there.svg"}, "needs 'alt'"),
        ({"drawings": [Drawing("there.svg", "t", "c", "")]}, "needs 'alt'"),
        ({"alarms": [Alarm("fatal", "x")]}, "unknown severity"),
    ],
)
def test_faults_are_told_when_written(tmp_path, more, output):
    (tmp_path / "there.svg").write_bytes(SVG)
    with pytest.raises(ValueError, match=output):
        write_exhibit(tmp_path / "x.json", **{"section": "quality", "title": "t", **more})


def test_points_have_texts_with_participant_and_values_and_no_arm():
    figure = Figure(figsize=(3, 3))
    axes = figure.add_subplot()
    dose = pd.Series([0.0, 1.0, 2.0, 3.0], index=["S-1", "S-2", "S-3", "S<4>"])
    figures.exposure_response(
        axes, dose, dose * 2 + [0.1, -0.1, 0.2, 0.0], groups=["placebo", "placebo", "high", "high"],
        xlabel="Dose", ylabel="Growth, mL",
    )  # fmt: skip
    titles = re.findall("<title>(.*?)</title>", str(on_a_page(svg_of(figure), "a", "b")))
    assert titles[0] == "S-1; Dose 0; Growth, mL 0.1; used" and len(titles) == 4
    assert titles[3].startswith("S&lt;4&gt;; ") and not any("placebo" in text for text in titles)
    waterfall = Figure(figsize=(3, 3))
    figures.waterfall(waterfall.add_subplot(), dose, ylabel="Change, mL")
    titles = re.findall("<title>(.*?)</title>", svg_of(waterfall))
    assert titles[1] == "S-3; Change, mL 2; used"


def test_points_of_progression_and_specifications_are_named():
    both = pd.DataFrame(
        {"time_days_a": [10.0, 50.0], "time_days_b": [12.0, 80.0], "event_a": 1, "event_b": [1, 0]},
        index=["S-1", "S-2"],
    )
    drawn = svg_of(_progression_scatter(both, ["RECIST", "RANO"], 14, 60))
    assert "<title>S-2; RECIST, days 50; RANO, days 80; used</title>" in drawn
    figure = Figure(figsize=(3, 3))
    rows = pd.DataFrame(
        {"specification": ["planned", "b"], "estimate": [2.0, 1.0], "ci_low": 0.5, "ci_high": 3.0}
    )
    figures.specification_curve(figure.add_subplot(), rows, ylabel="Slope")
    assert "<title>b; Slope 1</title>" in svg_of(figure)
