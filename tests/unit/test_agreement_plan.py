"""agreement.run: rows of the contract, and defined behaviour on readings that are not right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.agreement import guards, intraclass_correlation, second
from corelab.measurement.selection import NotComputable, Tables
from corelab.study.columns import STATISTICS

CONTRACT_RATIO = {
    "icc_1_1", "icc_a_1", "icc_c_1", "icc_1_k", "icc_a_k", "icc_c_k", "ccc", "bias", "loa_lower",
    "loa_upper", "within_sd", "within_cv_percent", "repeatability_coefficient",
    "repeatability_coefficient_percent",
}  # fmt: skip
COLUMNS = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value", "status"]


def study(values, endpoint="infarct_volume", overlap=None, visit="baseline", **sheets):
    """values: source -> array (n,) or (n, repeats), NaN = missing."""
    rows = []
    for source, column in values.items():
        table = np.asarray(column, float)
        table = table[:, None] if table.ndim == 1 else table
        n = len(table)
        for i, repeats in enumerate(table):
            for r, value in enumerate(repeats, start=1):
                if np.isfinite(value):
                    rows.append((f"{i:03d}", visit, endpoint, source, r, "all", value, "ok"))
    people = pd.DataFrame({"participant_id": [f"{i:03d}" for i in range(n)]})
    extra = {} if overlap is None else {"overlap": overlap}
    return Tables(pd.DataFrame(rows, columns=COLUMNS), people, **extra, **sheets)


def volumes(n=20, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.lognormal(3, 0.8, n)
    return truth, truth * np.exp(rng.normal(0, 0.1, n)), truth * np.exp(rng.normal(0.1, 0.1, n))


def plan(**keys):
    return {"id": "a", "type": "agreement", "endpoint": "infarct_volume", "sources": "all"} | keys


def look(table, group, statistic):
    rows = table[(table["group"] == group) & (table["statistic"] == statistic)]
    assert len(rows) == 1, (group, statistic, len(rows))
    return rows.iloc[0]


def test_every_statistic_of_the_contract_for_every_pair_in_plan_order():
    _, a, b = volumes()
    tables = study({"pipeline": a, "reader-1": b, "reader-2": b * 1.1})
    found = run(plan(sources=["reader-2", "pipeline", "reader-1"], icc_form="icc_a_1"), tables)
    assert list(found.columns) == list(STATISTICS)
    pairs = ["reader-2|pipeline", "reader-2|reader-1", "pipeline|reader-1"]
    effects = found["statistic"].str.startswith("reader_effect")
    assert list(dict.fromkeys(found.loc[~effects, "group"])) == [*pairs, "all"]
    for group in pairs:
        there = found.loc[found["group"] == group, "statistic"]
        assert set(there) >= CONTRACT_RATIO
        assert there.is_unique
        for name in CONTRACT_RATIO:
            row = look(found, group, name)
            assert np.isfinite([row["estimate"], row["ci_low"], row["ci_high"]]).all(), name
            assert row["ci_low"] <= row["estimate"] <= row["ci_high"]
            assert row["n"] == 20 and row["visit"] == "all" and row["participant_id"] == "all"
            assert row["ci_level"] == 0.95
        for name in ("icc_a_1", "bias", "loa_lower", "within_sd"):
            row = look(found, group, name)
            assert row["second_estimate"] == pytest.approx(row["estimate"], rel=1e-7)
    bias = look(found, "reader-2|pipeline", "bias")["estimate"]
    assert bias == pytest.approx(np.mean(1.1 * b - a))
    assert "pre-specified" in look(found, "all", "icc_a_1")["note"]


def test_visits_are_pooled_unless_by_visit():
    _, a, b = volumes()
    one, two = study({"r1": a, "r2": b}), study({"r1": a * 2, "r2": b}, visit="day5")
    tables = Tables(
        pd.concat([one.measurements, two.measurements]),
        one.participants,
        visit_order=("baseline", "day5"),
    )
    pooled = run(plan(), tables)
    assert look(pooled, "r1|r2", "bias")["n"] == 40
    assert set(pooled["visit"]) == {"all"}
    apart = run(plan(by_visit=True), tables)
    bias = apart[(apart["statistic"] == "bias")].set_index("visit")["n"]
    assert bias.to_dict() == {"baseline": 20, "day5": 20}
    day5 = run(plan(visit="day5"), tables)
    assert look(day5, "r1|r2", "bias")["visit"] == "day5"
    change = run(plan(derivation="change", baseline="baseline"), tables)
    assert look(change, "r1|r2", "bias")["estimate"] == pytest.approx(np.mean(a))


def test_within_sources_uses_the_repeats():
    _, a, b = volumes()
    again = a * 1.02
    again[::3] = np.nan
    tables = study({"r1": np.column_stack([a, again]), "r2": b})
    found = run(plan(repeats="within"), tables)
    kept = np.isfinite(again)
    expected = intraclass_correlation(np.column_stack([a, again])[kept])["icc_1_1"].estimate
    assert look(found, "r1", "icc_1_1")["estimate"] == pytest.approx(expected)
    assert look(found, "r1", "bias")["n"] == kept.sum()
    assert "no repeated reading" in look(found, "r2", "icc_a_1")["note"]
    between = run(plan(), tables)
    assert look(between, "r1|r2", "bias")["estimate"] == pytest.approx(np.mean(a - b))


def test_all_sources_incomplete_uses_reml_and_says_so():
    truth, a, b = volumes(30)
    c = truth.copy()
    a[:4], b[5:8] = np.nan, np.nan
    found = run(plan(), study({"r1": a, "r2": b, "r3": c}))
    row = look(found, "all", "icc_a_1")
    assert "REML" in row["method"] and "none imputed" in row["note"]
    assert row["n"] == 30
    assert row["second_method"].startswith("statsmodels MixedLM")
    assert look(found, "all", "icc_a_1_complete_cases")["n"] == 23
    pair = look(found, "r1|r2", "icc_a_1")
    assert pair["n"] == 23 and "7 of 30 targets lack" in pair["note"]


def test_grades_have_kappas():
    rng = np.random.default_rng(1)
    truth = rng.integers(3, 11, 60)
    readers = {f"r{i}": np.clip(truth + rng.integers(-1, 2, 60), 0, 10) for i in (1, 2, 3)}
    tables = study(readers, endpoint="aspects")
    found = run(
        plan(endpoint="aspects", weights="quadratic", categories=list(range(11)), resamples=200),
        tables,
    )
    for name in ("kappa", "kappa_linear", "kappa_quadratic", "percent_agreement",
                 "alpha_krippendorff"):  # fmt: skip
        row = look(found, "r1|r2", name)
        assert row["second_estimate"] == pytest.approx(row["estimate"], abs=1e-9)
        assert row["ci_low"] < row["estimate"] < row["ci_high"]
    assert "pre-specified" in look(found, "r1|r2", "kappa_quadratic")["note"]
    assert look(found, "all", "kappa_fleiss")["second_method"] == "statsmodels.fleiss_kappa"
    assert look(found, "all", "kendall_w")["p_value"] < 1e-6
    assert "ratio scale" in look(found, "r1|r2", "within_cv_percent")["note"]
    nominal = run(plan(endpoint="aspects", measure_level="nominal", resamples=100), tables)
    assert "no order" in look(nominal, "r1|r2", "kappa_quadratic")["note"]
    assert "icc_a_1" not in set(nominal["statistic"])
    wrong = run(plan(endpoint="aspects", categories=list(range(6))), tables)
    assert "not one of the categories" in look(wrong, "r1|r2", "kappa")["note"]


def test_run_is_deterministic():
    _, a, b = volumes()
    tables = study({"r1": a, "r2": b})
    pd.testing.assert_frame_equal(run(plan(), tables), run(plan(), tables))


def test_absent_and_single_source():
    _, a, b = volumes()
    tables = study({"r1": a, "r2": b})
    found = run(plan(sources=["r1", "r9"]), tables)
    assert "no value of infarct_volume from r9" in look(found, "r1|r9", "icc_a_1")["note"]
    alone = run(plan(sources=["r1"]), tables)
    assert "single source (r1)" in look(alone, "all", "icc_a_1")["note"]
    nobody = run(plan(endpoint="core_volume"), tables)
    assert nobody["note"].str.startswith("not_computable").all() and len(nobody)


def test_duplicates_stop_the_analysis():
    _, a, b = volumes()
    tables = study({"r1": a, "r2": b})
    doubled = Tables(pd.concat([tables.measurements] * 2), tables.participants)
    with pytest.raises(ValueError, match="never averaged"):
        run(plan(), doubled)


def test_few_targets():
    _, a, b = volumes(2)
    found = run(plan(), study({"r1": a, "r2": b}))
    assert "2 targets with both sources" in look(found, "r1|r2", "bias")["note"]
    _, a, b = volumes(6)
    found = run(plan(), study({"r1": a, "r2": b}))
    assert "only 6 targets" in look(found, "r1|r2", "bias")["note"]


def test_all_equal_values_are_not_computable_but_bias_is():
    found = run(plan(), study({"r1": np.full(12, 5.0), "r2": np.full(12, 5.0)}))
    for name in ("icc_a_1", "ccc"):
        assert "no variance" in look(found, "r1|r2", name)["note"]
    assert look(found, "r1|r2", "bias")["estimate"] == 0.0
    assert look(found, "r1|r2", "within_sd")["estimate"] == 0.0


def test_perfect_agreement_is_one():
    _, a, _ = volumes()
    found = run(plan(), study({"r1": a, "r2": a}))
    row = look(found, "r1|r2", "icc_a_1")
    assert (row["estimate"], row["ci_low"], row["ci_high"]) == (1, 1, 1)
    assert look(found, "r1|r2", "ccc")["estimate"] == 1.0


def test_zero_volumes_count_in_differences_not_in_ratios():
    _, a, b = volumes()
    a[:2] = b[:2] = 0.0
    a[2] = 0.0
    found = run(plan(), study({"r1": a, "r2": b}))
    assert look(found, "r1|r2", "bias")["n"] == 20
    assert "positive" in look(found, "r1|r2", "ratio")["note"]
    assert "2 targets with readings of 0 only" in look(found, "r1|r2", "within_cv_percent")["note"]


@pytest.mark.parametrize("whole", [True, False])
def test_unit_mix_up_is_refused(whole):
    _, a, b = volumes()
    a = a * 1000 if whole else np.where(np.arange(20) == 7, a * 1000, a)
    found = run(plan(), study({"r1": a, "r2": b}))
    note = look(found, "r1|r2", "icc_a_1")["note"]
    assert "factor near 1000" in note
    assert whole or "007" in note


def test_a_missed_lesion_is_no_unit_mix_up():
    a, b = np.linspace(1, 40, 20), np.linspace(1, 40, 20) * 1.1
    b[4] = 0.005
    assert guards.units_mixed(a, b, range(20)) == []


def test_negative_and_huge_volumes():
    _, a, b = volumes()
    b[3] = -1.0
    found = run(plan(), study({"r1": a, "r2": b}))
    assert "negative volume, first at 003" in look(found, "r1|r2", "bias")["note"]
    growth = run(
        plan(endpoint="infarct_growth"), study({"r1": a, "r2": b}, endpoint="infarct_growth")
    )
    assert np.isfinite(look(growth, "r1|r2", "bias")["estimate"])
    _, a, b = volumes()
    a[0], b[0] = 1800.0, 1750.0
    found = run(plan(), study({"r1": a, "r2": b}))
    assert "above 1500 mL" in look(found, "r1|r2", "bias")["note"]


def test_readers_exchanged_at_a_repeat_are_named():
    truth, _, _ = volumes(24, 3)
    rng = np.random.default_rng(3)
    a = truth[:, None] + rng.normal(0, 0.5, (24, 2))
    b = truth[:, None] + 9 + rng.normal(0, 0.5, (24, 2))
    a[5, 1], b[5, 1] = b[5, 1], a[5, 1]
    found = run(plan(), study({"r1": a, "r2": b}))
    assert "exchanged at 005" in look(found, "r1|r2", "icc_a_1")["note"]


def test_one_reader_written_in_two_ways():
    _, a, b = volumes()
    found = run(plan(), study({"Reader 1": a, "reader-01": b}))
    assert "two ways" in look(found, "Reader 1|reader-01", "bias")["note"]


def test_acceptance_limit_is_judged_with_its_interval():
    _, a, b = volumes()
    found = run(plan(delta=1000.0), study({"r1": a, "r2": b}))
    assert "verdict" not in look(found, "r1|r2", "loa_lower")["note"]
    assert "within +-1000" in look(found, "r1|r2", "loa_lower")["note"]
    found = run(plan(delta=0.1), study({"r1": a, "r2": b}))
    assert "not shown" in look(found, "r1|r2", "loa_upper")["note"]


def test_disagreeing_computations_stop():
    with pytest.raises(second.ComputationsDisagree, match="one of the two programs is wrong"):
        second.confirm(0.5, 0.51, "a library")
    with pytest.raises(second.ComputationsDisagree):
        second.confirm(0.5, float("nan"), "a library")


WITHOUT_INTERVAL = {
    "kendall_w", "kappa_light", "kappa_maximum", "kappa_prevalence_index", "kappa_bias_index",
    "reader_effect_f",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["volumes", "zeros", "binary", "grades", "shifted", "constant"])
@pytest.mark.parametrize("level", ["ratio", "ordinal", "nominal"])
@pytest.mark.filterwarnings("error")
def test_odd_readings_give_a_number_or_a_reason(kind, level):
    """Ties, empty masks, readers who never vary, gaps: never NaN or an interval without a word."""
    for seed in range(4):
        rng = np.random.default_rng([seed, 11])
        n, k = int(rng.integers(3, 25)), int(rng.integers(2, 5))
        truth = rng.lognormal(2, 1, n)[:, None]
        table = {
            "volumes": truth * np.exp(rng.normal(0, 0.3, (n, k))),
            "zeros": np.where(rng.random((n, k)) < 0.7, 0.0, truth),
            "binary": rng.integers(0, 2, (n, k)) * 10.0,
            "grades": rng.integers(0, 4, (n, k)).astype(float),
            "shifted": truth + np.arange(k),
            "constant": np.full((n, k), 7.0),
        }[kind]
        if seed % 2:
            table = np.where(rng.random((n, k)) < 0.2, np.nan, table)
        readers = {f"r{j}": table[:, j] for j in range(k)}
        found = run(
            plan(endpoint="aspects", measure_level=level, resamples=50),
            study(readers, endpoint="aspects"),
        )
        output = found["note"].str.startswith("not_computable")
        assert (found["estimate"].isna() == output).all()
        given = found[~output]
        assert np.isfinite(given["estimate"].astype(float)).all()
        silent = given["ci_low"].isna() & (given["note"] == "")
        assert set(given.loc[silent, "statistic"]) <= WITHOUT_INTERVAL
        ordered = given[given["ci_low"].notna()]
        assert (ordered["ci_low"] <= ordered["estimate"] + 1e-9).all()
        assert (ordered["ci_high"] >= ordered["estimate"] - 1e-9).all()


def test_unknown_type():
    with pytest.raises(ValueError, match="is not one of"):
        run({"id": "x", "type": "mystery"}, study({"r1": [1.0, 2.0]}))


def overlap_table(dice, volume, sources=("pipeline", "reader-1"), hd=None):
    rows = []
    for i, value in enumerate(dice):
        base = (f"{i:03d}", "baseline", "infarct", *sources, 1)
        rows.append((*base, "dice", value, "ok", None, ""))
        rows.append((*base, "volume_difference_ml", volume[i], "ok", None, ""))
        if hd is not None:
            rows.append((*base, "hd95_mm", hd[i], "ok", None, ""))
    columns = (
        "participant_id visit label source_a source_b repeat metric value status reason scan_ids"
    )
    return pd.DataFrame(rows, columns=columns.split())


def test_overlap_rows_per_subject_and_over_subjects():
    dice = [0.9, 0.8, 0.7, 0.6, 0.85, 0.75, 0.65]
    table = overlap_table(dice, [1.0, -2.0, 0.5, 0.1, 0.2, 0.3, 0.4])
    tables = study({"pipeline": np.ones(7)}, overlap=table)
    found = run({"id": "o", "type": "overlap", "label": "infarct", "sources": "all"}, tables)
    own = found[(found["statistic"] == "dice") & (found["participant_id"] != "all")]
    assert own["estimate"].tolist() == dice
    people = found[found["participant_id"] == "all"].set_index("statistic")
    mean, median = people.loc["dice"], people.loc["dice_median"]
    assert mean["method"].startswith("mean") and median["method"].startswith("median")
    assert mean["estimate"] == pytest.approx(np.mean(dice)) and mean["n"] == 7
    assert median["estimate"] == 0.75
    assert mean["ci_low"] < mean["estimate"] < mean["ci_high"]
    turned = run(
        {"id": "o", "type": "overlap", "label": "infarct", "sources": ["reader-1", "pipeline"]},
        tables,
    )
    row = turned[(turned["statistic"] == "volume_difference_ml")].iloc[0]
    assert row["group"] == "reader-1|pipeline" and row["estimate"] == -1.0


def test_overlap_infinite_distance_ranks_last():
    table = overlap_table([0.5, 0.0, 0.7], [0, 0, 0], hd=[3.0, np.inf, 5.0])
    tables = study({"pipeline": np.ones(3)}, overlap=table)
    found = run({"id": "o", "type": "overlap", "label": "infarct"}, tables)
    people = found[found["participant_id"] == "all"].set_index("statistic")
    assert "no mean" in people.loc["hd95_mm", "note"]
    assert np.isnan(people.loc["hd95_mm", "estimate"])
    assert people.loc["hd95_mm_median", "estimate"] == 5.0


@pytest.mark.parametrize("number", [2, 4, 5, 8])
def test_an_overlap_has_one_row_per_name_and_no_impossible_interval(number):
    table = overlap_table(
        [0.3] + [1.0] * (number - 1), [0.1] * number, hd=[9.0] + [0.1] * (number - 1)
    )
    tables = study({"pipeline": np.ones(number)}, overlap=table)
    found = run({"id": "o", "type": "overlap", "label": "infarct"}, tables)
    people = found[found["participant_id"] == "all"]
    assert not people.duplicated(["analysis_id", "group", "visit", "statistic"]).any()
    mean = people.set_index("statistic").loc["dice"]
    assert np.isnan(mean["ci_low"]) == (number < 5)
    if number >= 5:
        assert 0 <= mean["ci_low"] < mean["estimate"] < mean["ci_high"] == 1
        assert people.set_index("statistic").loc["hd95_mm", "ci_low"] == 0
        assert "cut at the range" in mean["method"]


def test_overlap_not_there():
    tables = study({"pipeline": np.ones(3)})
    found = run({"id": "o", "type": "overlap", "label": "infarct"}, tables)
    assert found["note"].str.contains("no two masks").all()


def test_phantom_of_simulated_truth():
    truth, _, _ = volumes()
    tables = study({"truth": truth, "pipeline": 1.1 * truth})
    found = run(
        {"id": "p", "type": "phantom", "truth": "truth", "endpoint": "infarct_volume"}, tables
    )
    assert look(found, "pipeline", "slope")["estimate"] == pytest.approx(1.1)
    assert look(found, "pipeline", "bias_percent")["estimate"] == pytest.approx(10.0)
    assert "no insert was measured twice" in look(found, "pipeline", "within_sd")["note"]


def test_ten_percent_scale_error_of_one_scanner_shows():
    rows = []
    for scanner, factor in (("A", 1.0), ("B", 1.1)):
        for day in ("1", "2"):
            for insert, certified in (("s", 5.0), ("m", 20.0), ("l", 60.0)):
                shift = 0.01 if day == "1" else -0.01
                rows.append(("site", scanner, day, insert, certified, certified * factor + shift))
    columns = ["site", "scanner", "acquired_at", "insert", "certified_value", "measured_value"]
    tables = study({"r": np.ones(3)}, phantoms=pd.DataFrame(rows, columns=columns))
    found = run({"id": "p", "type": "phantom", "truth": "certified_value"}, tables)
    good, bad = (look(found, f"site/{s}", "slope") for s in "AB")
    assert good["ci_low"] < 1 < good["ci_high"] and bad["ci_low"] > 1.05
    assert look(found, "site/A", "within_sd")["estimate"] == pytest.approx(0.01 * np.sqrt(2))


def test_guard_functions_name_the_reason():
    with pytest.raises(NotComputable, match="negative"):
        guards.volumes_plausible(pd.DataFrame({"a": [-1.0]}), "core_volume")
