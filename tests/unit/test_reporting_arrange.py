"""Which statistics stand where, and which values a figure shows."""

from __future__ import annotations

from types import SimpleNamespace

import pandas as pd
import pytest
from fabricated_study import fabricated_results, fabricated_study
from helpers import planned

from corelab.agreement.exhibits import _draw_pairs
from corelab.plan.drawing import drawers, write_figures
from corelab.provenance.products import read_table, write_table
from corelab.reporting.analysis_view import statistics_tables, twins
from corelab.reporting.arrange import arrange, first_screen
from corelab.reporting.report import write_report
from corelab.reporting.tlf import analysis_blocks, table_numbers
from corelab.study.columns import STATISTICS


@pytest.fixture
def study(tmp_path):
    return fabricated_study(tmp_path, images=False)


def _add(folder, rows):
    path = folder / "statistics/agreement.tsv"
    frame = pd.concat([read_table(path), pd.DataFrame(rows)], ignore_index=True)
    write_table(frame, path, list(STATISTICS))


def _row(group, statistic, estimate, note=""):
    found = dict.fromkeys(STATISTICS)
    return {
        **found,
        "analysis_id": "readers",
        "endpoint": "infarct_volume",
        "visit": "all",
        "participant_id": "all",
        "group": group,
        "statistic": statistic,
        "estimate": estimate,
        "n": 18,
        "note": note,
    }


def test_agreement_shows_its_core_and_keeps_the_rest(study):
    folder, config, people = study
    _add(folder, [_row("reader-1|reader-2", "total_deviation_index", 2.4)])
    results = fabricated_results(folder, config, people)
    found = arrange(results, results.analysis("readers"))
    assert found.groups == ("reader-1|reader-2",)
    assert found.core["statistic"].iloc[0] == "icc_a_1"
    assert found.core["statistic"].iloc[-1] == "kappa"  # what could not be computed comes last
    assert set(found.more["statistic"]) == {"total_deviation_index"}


FEATURES = planned({"id": "readers", "type": "radiomics", "series": "all", "labels": "all"})


def test_hundreds_of_features_are_folded_away():
    rows = pd.DataFrame(
        [_row(f"T1w/enhancing/f{k}", "icc_a_1", 1 - k / 100) for k in range(40)]
        + [_row("risk|os", "c_index", 0.7)]
    )
    results = SimpleNamespace(statistics_of=lambda name: rows)
    found = arrange(results, FEATURES)
    assert list(found.core["statistic"]) == ["c_index"] and len(found.more) == 40
    results = SimpleNamespace(statistics_of=lambda name: rows[:40])
    found = arrange(results, FEATURES)
    assert list(found.core["estimate"])[:2] == pytest.approx([0.61, 0.62])
    assert len(found.more) == 30 and found.note == "The 10 lowest of 40."


def test_group_of_which_nothing_is_computable_becomes_one_remark(study):
    folder, config, people = study
    note = "not_computable: no value of infarct_volume from robot"
    _add(folder, [_row("robot|reader-1", name, None, note) for name in ("icc_a_1", "bias")])
    results = fabricated_results(folder, config, people)
    table, _ = statistics_tables(results, results.analysis("readers"))
    assert [c.title for c in table.columns] == ["Statistic", "reader-1 vs reader-2", "Method"]
    assert "robot vs reader-1: no value of infarct_volume from robot" in table.note


def test_first_screen_shows_the_planned_form_of_the_icc(study):
    folder, config, people = study
    config["analyses"][2]["icc_form"] = "icc_c_1"
    results = fabricated_results(folder, config, people)
    shown = first_screen(results, results.analysis("readers"))
    assert shown["statistic"].tolist() == ["icc_c_1", "bias"]


def test_bland_altman_shows_first_repeats_between_and_both_repeats_within(study):
    folder, config, people = study
    results = fabricated_results(folder, config, people)
    plan = results.analysis("readers")
    for more, names in (
        ({}, "reader-1 against reader-2"),
        ({"repeats": "within"}, "reader-1, repeat 1 against repeat 2"),
    ):
        rows = results.statistics_of("readers")
        drawn = _draw_pairs(plan.changed(**more), results.tables, rows)
        assert names in drawn.alt
        # The text of a figure names its result.
        assert more or "bias (mean difference) -1.18 mL" in drawn.alt
        differences = drawn.figure.axes[1]
        assert len(differences.collections[-1].get_offsets()) == 18


def test_page_embeds_the_figure_of_the_pdf_in_its_own_colours(study):
    folder, config, people = study
    results = fabricated_results(folder, config, people)
    analysis = results.analysis("readers")
    given = (analysis, results.tables, results.statistics_of("readers"), ["pairs"], folder)
    place = folder / "exhibits" / "analysis_readers"
    write_figures(analysis, lambda: drawers(*given), place.with_suffix(".json"), place)
    file = (place / "readers_pairs.svg").read_text(encoding="utf-8")
    assert "#0072b2" in file and ">reader-1" in file  # words stay words
    results = fabricated_results(folder, config, people)
    plates = [
        b for b in analysis_blocks(results, "14.4", table_numbers(results)) if hasattr(b, "data")
    ]
    assert [(plate.number, plate.data.decode("utf-8")) for plate in plates] == [("14.4.1.1", file)]
    assert plates[0].title.endswith(": reader-1 against reader-2")
    index = write_report(fabricated_results(folder, config, people))
    text = index.with_name("analyses.html").read_text(encoding="utf-8")
    drawing = text.split('<svg class="drawn"')[1].split("</svg>")[0]
    assert "var(--s0)" in drawing and "var(--ink)" in drawing
    assert "#0072b2" not in drawing and "#ffffff" not in drawing
    assert "reader-1 against reader-2" in drawing.split(">")[0]


def test_an_analysis_with_the_results_of_another_says_so():
    rows = pd.DataFrame([_row("all", "slope", -7.0), _row("all", "r_squared", 0.6)])
    plans = [planned({"id": name, "type": "radiomics", "series": "all", "labels": "all",
                      "title": f"Plan {name}"}) for name in "abcde"]  # fmt: skip
    none = rows.assign(estimate=float("nan"))
    found = {"a": rows, "b": rows, "c": rows.assign(estimate=-6.9), "d": none, "e": none}
    same = twins(SimpleNamespace(analyses=plans, statistics_of=found.__getitem__))
    assert same == {"b": "Same participants and results as: Plan a."}
