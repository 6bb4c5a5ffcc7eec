"""Drift, strata, reader effects, comparison of pairs, and figures."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.agreement import figures
from corelab.agreement.drift import drift_by_thirds, reader_effects, thirds
from corelab.agreement.icc import _mean_squares
from corelab.measurement.selection import NotComputable, Tables
from corelab.provenance.figure_style import save_figure

COLUMNS = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value", "status"]


@dataclass(frozen=True)
class TablesWithReads(Tables):
    reads: pd.DataFrame = field(default_factory=pd.DataFrame)


def readings(n=60, seed=0, growing=0.0, bias=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(60, 130, n)
    noise = 1.0 + growing * (np.arange(n) >= 2 * n / 3)
    shift = bias * np.arange(n) / n
    a = truth + noise * rng.normal(size=n)
    return np.column_stack([a, truth + shift + noise * rng.normal(size=n)])


def tables_of(table, names=("r1", "r2"), reads=None, **columns):
    people = [f"{i:03d}" for i in range(len(table))]
    rows = [
        (person, "d0", "infarct_volume", name, 1, "all", table[i, j], "ok")
        for i, person in enumerate(people)
        for j, name in enumerate(names)
    ]
    sheet = pd.DataFrame({"participant_id": people, **columns})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    return Tables(frame, sheet) if reads is None else TablesWithReads(frame, sheet, reads=reads)


def plan(**keys):
    return {"id": "a", "type": "agreement", "endpoint": "infarct_volume", "sources": "all",
            "resamples": 200} | keys  # fmt: skip


def test_thirds_are_equal_parts():
    assert np.bincount(thirds(np.random.default_rng(0).permutation(30))).tolist() == [0, 10, 10, 10]


def test_drift_is_found_and_absence_of_drift_is_not():
    worse = drift_by_thirds(readings(growing=12.0), np.arange(60), resamples=400)
    assert worse.change.ci_high < 0 and worse.change.p_value < 0.05
    steady = drift_by_thirds(readings(), np.arange(60), resamples=400)
    assert steady.change.ci_low < 0 < steady.change.ci_high
    trend = drift_by_thirds(readings(bias=10.0), np.arange(60), resamples=100)
    assert trend.bias_slope.ci_low < -10.0 < trend.bias_slope.ci_high
    assert trend.bias_slope.p_value < 1e-6
    with pytest.raises(NotComputable, match="9 are needed"):
        drift_by_thirds(readings(8), np.arange(8))


def test_learning_curve():
    rng = np.random.default_rng(1)
    order = np.arange(1, 121)
    table = np.column_stack([np.zeros(120), 8.0 / order**0.5 * rng.normal(size=120)])
    table += rng.uniform(10, 50, (120, 1))
    found = drift_by_thirds(table, order, resamples=50).learning_slope
    assert found.ci_low < -0.5 < found.ci_high and found.p_value < 0.01


def test_reader_effects_balanced_is_the_analysis_of_variance():
    rng = np.random.default_rng(2)
    table = rng.normal(50, 10, (30, 1)) + np.array([0.0, 1.0, 3.0]) + rng.normal(size=(30, 3))
    found = reader_effects(pd.DataFrame(table, columns=["a", "b", "c"]))
    means = table.mean(axis=0) - table.mean()
    assert [e.estimate for e in found.effects.values()] == pytest.approx(list(means))
    squares = _mean_squares(table)
    assert found.f == pytest.approx(float(squares.readers / squares.residual))
    assert found.effects["a"].se == pytest.approx(np.sqrt(squares.residual * 2 / 3 / 30))


def test_reader_effects_of_incomplete_readings():
    rng = np.random.default_rng(3)
    table = rng.normal(50, 10, (90, 1)) + np.array([-1.0, 0.0, 1.0]) + rng.normal(size=(90, 3))
    table[np.arange(90), np.arange(90) % 3] = np.nan
    effects = reader_effects(pd.DataFrame(table, columns=["a", "b", "c"])).effects
    for name, truth in (("a", -1.0), ("b", 0.0), ("c", 1.0)):
        assert effects[name].ci_low < truth < effects[name].ci_high


def test_strata_by_site_and_size():
    table = readings()
    tables = tables_of(table, site=["S1"] * 30 + ["S2"] * 30)
    found = run(plan(strata=["site", "size", "centre"]), tables)
    bias = found[found["statistic"] == "bias"].set_index("group")["estimate"]
    assert bias["r1|r2|site=S2"] == pytest.approx(np.mean(table[30:, 0] - table[30:, 1]))
    assert {"r1|r2|size=small", "r1|r2|size=medium", "r1|r2|size=large"} <= set(bias.index)
    absent = found[found["group"] == "r1|r2|centre"].iloc[0]
    assert "no column 'centre'" in absent["note"]


@pytest.mark.parametrize("column", ["presentation_order", "read_at"])
def test_thirds_through_the_plan(column):
    table = readings(growing=12.0)
    order = np.arange(1, 61)
    when = [f"2024-01-01T{i // 60:02d}:{i % 60:02d}:00Z" for i in order]
    reads = pd.DataFrame(
        [
            (
                f"{i:03d}",
                "d0",
                "infarct_volume",
                reader,
                order[i] if column != "read_at" else when[i],
            )
            for reader in ("r1", "r2")
            for i in range(60)
        ],
        columns=["participant_id", "visit", "endpoint", "reader", column],
    )
    found = run(plan(strata=["third"]), tables_of(table, reads=reads))
    icc = found[found["statistic"] == "icc_a_1"].set_index("group")["estimate"]
    assert icc["r1|r2|third=1"] > icc["r1|r2|third=3"]
    drift = found[found["statistic"] == "icc_a_1_drift"].iloc[0]
    assert drift["estimate"] == pytest.approx(icc["r1|r2|third=3"] - icc["r1|r2|third=1"])
    without = run(plan(strata=["third"]), tables_of(table))
    row = without[without["group"] == "r1|r2|third"].iloc[0]
    assert "no presentation_order" in row["note"]


def test_reader_effect_rows():
    table = readings() + np.array([0.0, 2.0])
    found = run(plan(), tables_of(table))
    effects = found[found["statistic"] == "reader_effect"].set_index("group")
    assert effects.loc["r2", "estimate"] == pytest.approx(-effects.loc["r1", "estimate"])
    test = found[found["statistic"] == "reader_effect_f"].iloc[0]
    assert test["p_value"] < 1e-6


def test_comparison_of_pairs_is_adjusted():
    rng = np.random.default_rng(4)
    truth = rng.uniform(10, 80, (50, 1))
    table = truth + np.array([1.0, 1.0, 20.0]) * rng.normal(size=(50, 3))
    found = run(plan(compare_pairs=True), tables_of(table, names=("r1", "r2", "r3")))
    rows = found[found["statistic"] == "icc_a_1_difference"].set_index("group")
    assert len(rows) == 3
    best = rows.loc["r1|r2 - r1|r3"]
    assert best["ci_low"] > 0 and "Holm over 3" in best["note"]


def test_figures_are_the_same_bytes_twice(tmp_path):
    a, b = readings().T
    drift = drift_by_thirds(readings(), np.arange(60), resamples=50)
    image = np.random.default_rng(0).random((20, 20, 6))
    mask = np.zeros((20, 20, 6))
    mask[5:9, 5:9, 2:5] = 1
    made = {
        "pairs": lambda: figures.plot_pairs([figures.Pair(a, b)], delta=5.0),
        "matrix": lambda: figures.plot_matrix(
            {("a", "b"): 0.9, ("a", "c"): np.nan, ("b", "c"): 0.2}
        ),
        "forest": lambda: figures.plot_forest([("a|b", 0.9, 0.8, 0.95), ("a|c", np.nan, 0, 0)]),
        "drift": lambda: figures.plot_drift({"a|b": drift}),
        "confusion": lambda: figures.plot_confusion([figures.Pair([1, 2, 3], [1, 2, 2])], range(5)),
        "contours": lambda: figures.plot_contours(
            [figures.Overlay(image, {"r1": mask, "r2": 0 * mask}, (1, 1, 5), "one")]
        ),
    }
    for name, make in made.items():
        first = save_figure(make(), tmp_path / f"{name}.png").read_bytes()
        again = save_figure(make(), tmp_path / f"{name}.png").read_bytes()
        assert first == again and len(first) > 2000, name
    one = save_figure(made["forest"](), tmp_path / "f.svg").read_bytes()
    assert one == save_figure(made["forest"](), tmp_path / "f.svg").read_bytes()
