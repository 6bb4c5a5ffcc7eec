"""The first screen: effects as sentences, reliability apart, and what the numbers rest on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from fabricated_study import fabricated_results, fabricated_study, with_config
from helpers import planned

from corelab.provenance.decisions import Decision
from corelab.reporting import glance
from corelab.reporting.page import STUDY_PAGES, Column, Table, place, render_table
from corelab.reporting.study_tables import participants_table


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder, config, people = fabricated_study(tmp_path_factory.mktemp("glance"))
    config["study"]["dose_unit"] = "mg/kg"
    return fabricated_results(folder, config, people)


def _row(**more):
    base = {"statistic": "slope", "endpoint": "infarct_growth", "visit": "day5", "group": "dose"}
    base |= {"estimate": -6.98, "ci_low": -9.108, "ci_high": -4.859, "ci_level": 0.95}
    base |= {"p_value": 1e-7, "n": 34, "note": None, "analysis_id": "a", "participant_id": "all"}
    return SimpleNamespace(**{**base, "family": None, "p_adjusted": None, **more})


PLAN = {"type": "dose_response", "endpoint": "infarct_growth"}
PLAN |= {"dose": "dose", "source": "reader-1"}


@pytest.mark.parametrize(
    ("plan", "row", "said"),
    [
        (
            PLAN,
            _row(),
            "Each further mg/kg: 7.0 mL less infarct growth at day5 (95 % CI 4.9 to 9.1; "
            "p < 0.001), reader-1; 34 of 36 participants.",
        ),
        (
            {**PLAN, "dose": None, "exposure": "auc"},
            _row(group="auc", estimate=2.0, ci_low=-1.0, ci_high=5.0, p_value=0.2),
            "Each further unit of AUC: 2.0 mL more infarct growth at day5 (95 % CI 1.0 less to "
            "5.0 more; p = 0.20), reader-1; 34 of 36 participants.",
        ),
        (
            {"type": "comparison", "endpoint": "infarct_volume", "derivation": "change"},
            _row(
                statistic="mean_difference", group="arm=high|arm=placebo", endpoint="infarct_volume",
                p_value=0.01, p_adjusted=0.02, family="arms",
            ),
            "High vs placebo: 7.0 mL less change of infarct volume at day5 (95 % CI 4.9 to 9.1; "
            "p adjusted 0.020), 34 of 36 participants.",
        ),
        (
            {"type": "comparison", "endpoint": "haematoma"},
            _row(statistic="odds_ratio", group="arm=high|arm=placebo", endpoint="haematoma",
                 estimate=0.5, ci_low=0.25, ci_high=1.0, p_value=None, visit="all"),
            "High vs placebo: odds ratio 0.50 for haematoma (95 % CI 0.25 to 1.00), "
            "34 of 36 participants.",
        ),
    ],
)  # fmt: skip
def test_an_effect_is_a_sentence_with_unit_interval_p_source_and_n(results, plan, row, said):
    assert glance.effect_sentence(results, planned(plan), row) == said


def test_effects_come_before_reliability_which_has_no_test(results):
    entries = [a.as_given() for a in results.analyses]
    entries[2]["objective"] = "primary"
    found = with_config(results, analyses=entries[::-1])
    effects, reliability, primary = glance.headlines(found)
    assert primary and {a.type for a, _ in effects} == {"comparison", "dose_response"}
    assert {a.id for a, _ in reliability} == {"readers"}
    table = glance.reliability_table(found)
    assert "p" not in [column.title for column in table.columns]
    assert 'class="axis"' in str(table.rows[0][2])


@pytest.mark.parametrize("statistic", ["odds_ratio", "risk_difference", "something_new"])
def test_no_primary_analysis_vanishes_from_the_first_screen(results, statistic):
    rows = results.statistics["pharmacodynamics"]
    own = rows[rows["analysis_id"] == "growth-by-arm"].head(1).assign(statistic=statistic)
    others = rows[rows["analysis_id"] != "growth-by-arm"]
    found = replace(results, statistics={"pharmacodynamics": pd.concat([own, others])})
    effects, _, _ = glance.headlines(found)
    assert statistic in {row.statistic for a, row in effects if a.id == "growth-by-arm"}


def test_the_strip_states_plan_second_program_data_sets_and_review(results):
    visits = [(visit.participant_id, visit.visit) for visit in results.visits]
    decided = [
        Decision(1, *visits[0], "all", "accept", "", "A", "t", "0", "1"),
        Decision(2, *visits[1], "all", "opened", "", "A", "t", "1", "2"),
    ]
    found = {one.name: one for one in glance.status_strip(results, decided)}
    assert found["Plan"].value == "not locked" and found["Plan"].css == "warn"
    # Showing values decides nothing.
    assert found["Review decided"].value == f"1 of {len(visits)} visits"
    assert "Submission data sets" not in found
    row = {"severity": "error", "dataset": "X", "variable": "", "rule": "r", "value": "v"}
    issues = pd.DataFrame([{**row, "records": 3}])
    failed = replace(results, conformance=issues, conformance_known=True)
    strip = {one.name: one for one in glance.status_strip(failed)}
    assert strip["Submission data sets"].css == "bad"
    rows = results.statistics["pharmacodynamics"].assign(second_estimate=lambda f: f["estimate"])
    rows.loc[rows.index[0], "second_estimate"] += 1.0
    other = replace(results, statistics={"pharmacodynamics": rows})
    same, total = glance.second_agreement(other)
    assert same == total - 1


def test_table_one_says_what_the_sheet_and_the_baseline_visit_say(results):
    table = participants_table(results)
    arms = [column.title for column in table.columns[1:]]
    rows = {row[0]: dict(zip(arms, row[1:], strict=True)) for row in table.rows}
    people = results.participants
    high = people[people["arm"] == "high"]
    age = pd.to_numeric(high["age"])
    assert rows["Participants"]["high"] == str(len(high)) and arms[-1] == "all"
    assert rows["Age"]["high"].endswith(f"({age.min():.0f} to {age.max():.0f})")
    assert rows["Age"]["high"].startswith(f"{age.median():g} (")
    assert rows["Sex: F"]["all"] == str(int((people["sex"] == "F").sum()))
    (volume,) = [name for name in rows if name.startswith("Infarct volume, mL, at baseline by")]
    found = results.measurements
    own = found[(found["endpoint"] == "infarct_volume") & (found["visit"] == "baseline")]
    own = own[(own["source"] == volume.rpartition(" ")[2]) & (own["region"] == "all")]
    assert f"({own['value'].min():.1f} to {own['value'].max():.1f})" in rows[volume]["all"]
    assert "dose" not in " ".join(rows).lower()


def test_sections_have_one_page_each():
    assert {place(f"#{name}").partition("#")[0] for name in (
        "glance", "analysis-x", "endpoints", "maps", "quality", "methods",
        "exhibit-analysis-x", "exhibit-quality",
    )} <= set(STUDY_PAGES)  # fmt: skip


def test_columns_that_are_empty_in_every_row_are_not_shown():
    columns = [Column("a"), Column("b"), Column("c")]
    text = str(render_table(Table("t", columns, [["", "", 0], ["", "", ""]])))
    assert ">a<" in text and ">b<" not in text and ">c<" in text
