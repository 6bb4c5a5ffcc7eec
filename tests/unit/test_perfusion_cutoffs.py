"""Cut-offs against the infarct: the table, its plot and the report's part, from rows alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from corelab.agreement import bland_altman
from corelab.agreement.cutoffs import COLUMNS, _chosen_references, _cutoff_table, write_cutoffs
from corelab.provenance.exhibits import read_exhibits

PEOPLE = [f"{k:02d}" for k in range(12)]
VISITS = ["early", "baseline", "day5"]


def rows(visit, endpoint, source, values, **more):
    return pd.DataFrame(
        {
            "participant_id": PEOPLE[: len(values)], "visit": visit, "endpoint": endpoint,
            "source": source, "repeat": "1", "region": "all", "value": values, "status": "ok",
            "reason": None, **more,
        }
    )  # fmt: skip


@pytest.fixture
def measured():
    rng = np.random.default_rng(0)
    infarct = rng.uniform(5, 60, 12)
    parts = [rows("day5", "infarct_volume", "reader-1", infarct)]
    parts.append(rows("day5", "infarct_volume", "pipeline", infarct[:9] + 1.0))
    parts.append(rows("baseline", "infarct_volume", "pipeline", infarct[:5] - 2.0))
    parts.append(rows("early", "infarct_volume", "pipeline", infarct))
    for percent in range(10, 51, 5):
        core = infarct + 0.5 * (percent - 30) + rng.normal(0, 2.0, 12)
        source, rule = f"pipeline:rcbf{percent}", f"rcbf < {percent / 100:g}, engine osvd"
        parts.append(rows("baseline", "core_volume", source, core, reason=rule))
    parts.append(rows("baseline", "core_volume", "pipeline:cereda2016", infarct + 4, reason="c"))
    parts.append(rows("baseline", "core_volume", "pipeline", infarct + 1))
    parts.append(rows("baseline", "core_volume", "software-b", infarct + 9))
    table = pd.concat(parts, ignore_index=True)
    table.loc[table["participant_id"] == "11", "status"] = "missing"
    return table


def one(table, cutoff, visit, source):
    found = table[
        (table["cutoff"] == cutoff)
        & (table["reference_visit"] == visit)
        & (table["reference_source"] == source)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_bias_and_limits_are_those_of_the_pairs(measured):
    table = _cutoff_table(measured, VISITS)
    row = one(table, "pipeline:rcbf40", "day5", "reader-1")
    ok = measured[measured["status"] == "ok"]
    a = ok[ok["source"] == "pipeline:rcbf40"]["value"].to_numpy()
    b = ok[(ok["visit"] == "day5") & (ok["source"] == "reader-1")]["value"].to_numpy()
    expected = bland_altman(a, b)
    assert row["n"] == expected.n == 11
    assert row["bias_ml"] == pytest.approx(expected.bias) and abs(row["bias_ml"] - 5) < 1.5
    assert row["loa_lower_ml"] == pytest.approx(expected.bias - 1.96 * expected.sd, rel=1e-4)
    assert row["loa_upper_ml"] == expected.loa_upper
    assert row["mean_absolute_difference_ml"] == pytest.approx(np.abs(a - b).mean())
    assert row["rule"] == "rcbf < 0.4, engine osvd" and row["percent"] == 40


def test_every_core_meets_every_infarct_that_is_not_earlier(measured):
    table = _cutoff_table(measured, VISITS)
    assert set(table["cutoff"]) == {
        "pipeline", "pipeline:cereda2016", *(f"pipeline:rcbf{p}" for p in range(10, 51, 5))
    }  # fmt: skip
    references = set(
        table[["reference_visit", "reference_source"]].itertuples(index=False, name=None)
    )
    assert references == {("baseline", "pipeline"), ("day5", "pipeline"), ("day5", "reader-1")}
    assert len(table) == 11 * 3
    assert one(table, "pipeline:rcbf30", "baseline", "pipeline")["n"] == 5


def test_too_few_pairs_keep_the_bias_and_say_why():
    table = _cutoff_table(
        pd.concat(
            [
                rows("a", "core_volume", "pipeline:rcbf30", [10.0, 20.0]),
                rows("a", "infarct_volume", "reader-1", [8.0, 16.0]),
            ]
        ),
        ["a"],
    )
    assert table.loc[0, "bias_ml"] == 3.0 and np.isnan(table.loc[0, "loa_upper_ml"])
    assert "no limits of agreement" in table.loc[0, "note"]


def test_plot_takes_the_wanted_reference_else_the_fullest(measured):
    table = _cutoff_table(measured, VISITS)
    sources = {c["reference_visit"]: c["reference_source"] for c in _chosen_references(table)}
    assert sources == {"baseline": "pipeline", "day5": "reader-1"}
    wanted = _chosen_references(table, "pipeline")
    assert {c["reference_source"] for c in wanted} == {"pipeline"}


def paths(folder):
    (folder / "statistics").mkdir(parents=True)
    (folder / "exhibits").mkdir()
    return SimpleNamespace(
        table=folder / "statistics" / "perfusion_cutoffs.tsv",
        figure=folder / "exhibits" / "perfusion_cutoffs.svg",
        exhibit=folder / "exhibits" / "perfusion_cutoffs.json",
    )


def test_files_are_written_twice_alike_and_make_an_exhibit(measured, tmp_path):
    first, second = paths(tmp_path / "a"), paths(tmp_path / "b")
    for places in (first, second):
        write_cutoffs(measured, VISITS, None, places)
    for name in ("table", "figure", "exhibit"):
        one, other = getattr(first, name), getattr(second, name)
        assert one.read_bytes() == other.read_bytes() and one.stat().st_size > 300
    (exhibit,) = read_exhibits(tmp_path / "a")
    assert exhibit.section == "endpoints" and exhibit.figure == "perfusion_cutoffs.svg"
    assert set(exhibit.columns) <= set(COLUMNS)
    assert "for the infarct at day5" in exhibit.caption


def test_without_a_core_there_is_an_empty_table_and_a_plot_that_says_so(tmp_path):
    empty = rows("a", "infarct_volume", "reader-1", [8.0, 16.0])
    places = paths(tmp_path)
    assert write_cutoffs(empty, ["a"], None, places).empty
    assert places.figure.stat().st_size > 500
