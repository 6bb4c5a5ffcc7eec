"""Several visits of one participant are no independent targets; incomplete readings; thresholds."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from helpers import run

from corelab.agreement import categorical, differences, icc, limits, metrology
from corelab.measurement.selection import Tables

COLUMNS = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value", "status"]
PEOPLE, VISITS, SHARED, OWN = 30, 4, 2.0, 1.0
TARGET = 5.0**2 + 3.0**2
ERROR = SHARED**2 + OWN**2
SD = np.sqrt(2 * ERROR)


def readings(rng, readers=2):
    """30 participants at 4 visits; a reader errs alike (SD 2) at all visits of a participant."""
    who = np.repeat(np.arange(PEOPLE), VISITS)
    truth = rng.normal(50, 5, PEOPLE)[who] + rng.normal(0, 3, who.size)
    own = rng.normal(0, SHARED, (PEOPLE, readers))[who] + rng.normal(0, OWN, (who.size, readers))
    return truth[:, None] + own, who


def statistics(table, who):
    """Intervals of one simulated study, with the value that each is about."""
    a, b = table.T
    found = differences.bland_altman(a, b, clusters=who)
    forms = icc.intraclass_correlation(table, clusters=who)
    pooled = icc.intraclass_correlation(table, clusters=who, pooled=True)
    ccc = differences.concordance_by_components(table, clusters=who)
    within = metrology.repeatability(table, clusters=who)["within_sd"]
    ratio = TARGET / (TARGET + ERROR)
    return {
        "bias": (*found.bias_ci, 0.0),
        "upper limit": (*found.loa_upper_ci, 1.96 * SD),
        "icc_a_1": (forms["icc_a_1"].ci_low, forms["icc_a_1"].ci_high, ratio),
        "pooled icc": (pooled["icc_a_1"].ci_low, pooled["icc_a_1"].ci_high, ratio),
        "ccc": (ccc.ci_low, ccc.ci_high, ratio),
        "within sd": (within.ci_low, within.ci_high, np.sqrt(ERROR)),
    }


def test_intervals_cover_where_independent_targets_would_not():
    """Nominal 95 %; taken as 120 independent targets they covered 67 to 75 % (audit)."""
    rng, runs = np.random.default_rng(7), 120
    covered, naive = dict.fromkeys(statistics(*readings(rng)), 0), 0
    for _ in range(runs):
        table, who = readings(rng)
        for name, (low, high, truth) in statistics(table, who).items():
            covered[name] += low <= truth <= high
        low, high = differences.bland_altman(*table.T).bias_ci
        naive += low <= 0 <= high
    # Binomial of 120 at 0.93 to 0.97, one in 1000 at each side.
    assert all(102 <= hits <= 120 for hits in covered.values()), covered
    assert naive < 100


def study(table, who, endpoint="infarct_volume", readers=("r1", "r2", "r3"), people=None):
    rows = []
    for place, person in enumerate(who):
        visit = f"v{int(np.sum(who[:place] == person))}"
        for source, value in zip(readers, table[place], strict=False):
            if np.isfinite(value):
                rows.append((f"s{person:03d}", visit, endpoint, source, 1, "all", value, "ok"))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    known = people
    if known is None:
        known = pd.DataFrame({"participant_id": sorted(set(frame["participant_id"]))})
    return Tables(frame, known, visit_order=("v0", "v1", "v2", "v3"), baseline="v0")


def plan(**keys):
    return {
        "id": "a", "type": "agreement", "endpoint": "infarct_volume", "sources": "all",
        "resamples": 50,
    } | keys  # fmt: skip


def look(frame, group, statistic):
    rows = frame[(frame["group"] == group) & (frame["statistic"] == statistic)]
    assert len(rows) == 1, (group, statistic, len(rows))
    return rows.iloc[0]


def test_rows_say_what_was_done_and_count_both():
    table, who = readings(np.random.default_rng(1))
    found = run(plan(), study(table, who))
    for name in ("bias", "loa_upper", "icc_a_1", "ccc", "within_sd", "deming_slope"):
        row = look(found, "r1|r2", name)
        assert (row["n"], row["n_clusters"]) == (120, 30), name
        assert "cluster" in row["method"], name
    alone = run(plan(cluster="none"), study(table, who))
    row = look(alone, "r1|r2", "bias")
    assert row["n_clusters"] == 120 and "cluster" not in row["method"]
    wide = look(found, "r1|r2", "bias")
    assert wide["ci_high"] - wide["ci_low"] > 1.4 * (row["ci_high"] - row["ci_low"])
    pooled = look(run(plan(clustering="pooled"), study(table, who)), "r1|r2", "icc_a_1")
    assert "pooled" in pooled["method"] and "jackknife over 30 clusters" in pooled["method"]


def test_a_second_program_finds_the_coefficients_of_several_visits():
    """Balanced: the analysis of variance is REML, which MixedLM maximises for itself."""
    table, who = readings(np.random.default_rng(1))
    table = table + [0.0, 1.5]
    row = look(run(plan(), study(table, who)), "r1|r2", "icc_a_1")
    assert "MixedLM" in row["second_method"]
    assert row["second_estimate"] == pytest.approx(row["estimate"], abs=1e-3)
    fewer = look(run(plan(), study(table[1:], who[1:])), "r1|r2", "icc_a_1")
    assert "unequal numbers of visits" in fewer["second_method"]


@pytest.mark.parametrize("level", ["ratio", "ordinal"])
def test_one_visit_each_is_the_analysis_of_independent_targets(level):
    table, _ = readings(np.random.default_rng(2), 3)
    table = np.round(table[:40] / 5) if level == "ordinal" else table[:40]
    tables = study(table, np.arange(40))
    keys = {"measure_level": level, "strata": ["size"], "compare_pairs": True}
    one, other = run(plan(**keys), tables), run(plan(cluster="none", **keys), tables)
    pd.testing.assert_frame_equal(one, other)


def test_a_participants_column_names_the_patient_of_two_hemispheres():
    table, who = readings(np.random.default_rng(3))
    people = pd.DataFrame(
        {"participant_id": [f"s{i:03d}" for i in range(120)], "patient": [f"p{w}" for w in who]}
    )
    tables = study(table, np.arange(120), people=people)
    assert look(run(plan(), tables), "r1|r2", "bias")["n_clusters"] == 120
    assert look(run(plan(cluster="patient"), tables), "r1|r2", "bias")["n_clusters"] == 30
    wrong = run(plan(cluster="eye"), tables)
    assert wrong["note"].str.contains("no column 'eye'").all() and len(wrong)


ZOU_X = [[7.83, 7.42, 7.89, 7.12, 7.88, np.nan], [6.16, 7.26, 6.71, 6.54, np.nan, np.nan],
         [4.75, 5.24, 4.86, 4.78, 6.05, 5.42], [4.21, 3.61, 3.72, 3.87, 3.92, np.nan]]  # fmt: skip
ZOU_Y = [[6.57, 5.62, 6.9, 6.57, np.nan, np.nan], [4.06, 4.29, 4.26, np.nan, np.nan, np.nan],
         [4.71, 5.5, 5.08, 5.02, 6.01, 5.67], [4.14, 4.2, 4.61, 4.68, 5.04, np.nan]]  # fmt: skip


def test_linked_pairs_weigh_bias_and_interval_alike():
    """Zou 2013 in SimplyAgree: agree_nest prints a bias of 0.7101, agree_reps 0.7152."""
    found = differences.bland_altman_replicated(ZOU_X, ZOU_Y, linked=True)
    assert found.bias == pytest.approx(0.7101, abs=5e-5)
    assert np.mean(found.bias_ci) == pytest.approx(found.bias)
    apart = differences.bland_altman_replicated(ZOU_X, ZOU_Y)
    assert apart.bias == pytest.approx(0.7152, abs=5e-5)
    assert apart.bias_ci == pytest.approx((-1.5287, 2.9591), abs=5e-5)


def grades(text):
    return np.array([[np.nan if c == "." else float(c) for c in row] for row in text])


#: R irrCAC: cac.raw.g1g2 (14 units, 4 raters) and cac.raw5obser (15 units, 5 observers).
G1G2 = grades(["11.1", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", ".555",
               "..11", "..3.", "2232", "2132"]) - 1  # fmt: skip
OBSERVERS = grades(["112.2", "1101.", "2333.", ".00.0", "000.0", "000.0", "102.1", "1.20.",
                    "222.2", "2111.", ".100.", "0000.", "1222.", "33223", "111.1"])  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "table", "categories", "weights", "expected"),
    [
        ("fleiss", G1G2, 5, "none", (0.65725, 0.33337, 0.98112)),
        ("conger", G1G2, 5, "none", (0.65859, 0.34318, 0.974)),
        ("brennan_prediger", G1G2, 5, "none", (0.67949, 0.38516, 0.97381)),
        ("gwet", G1G2, 5, "none", (0.6846, 0.39612, 0.97308)),
        ("fleiss", OBSERVERS, 4, "none", (0.45762, 0.19928, 0.71596)),
        ("fleiss", OBSERVERS, 4, "quadratic", (0.75072, 0.54199, 0.95945)),
        ("conger", OBSERVERS, 4, "linear", (0.62405, 0.39698, 0.85112)),
        ("gwet", OBSERVERS, 4, "quadratic", (0.83043, 0.70551, 0.95536)),
    ],
)
def test_gaps_as_irrcac_prints_them(kind, table, categories, weights, expected):
    scale = list(range(categories))
    found = categorical.chance_corrected(table, kind, scale, weights=weights)
    assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx(expected, abs=6e-6)
    assert found.n == len(table) and "readings" in found.note


def test_every_statistic_of_incomplete_readings_uses_them_and_says_so():
    tables = study(OBSERVERS, np.arange(15), "score", tuple("abcde"))
    found = run(plan(endpoint="score", measure_level="ordinal", categories=[0, 1, 2, 3]), tables)
    own = found[(found["group"] == "all") & found["estimate"].notna()]
    assert {"icc_a_1", "sem", "ccc", "kappa_fleiss", "kappa_conger", "gwet_ac1",
            "alpha_krippendorff", "percent_agreement"} <= set(own["statistic"])  # fmt: skip
    counted = own[own["statistic"] != "reader_effect_f"]
    assert counted["note"].str.contains("58 of 75 readings of 15 targets").all()
    assert look(found, "all", "percent_agreement")["estimate"] == pytest.approx(61.55556, abs=5e-5)


def test_reml_may_be_negative_as_the_analysis_of_variance_is():
    rng = np.random.default_rng(4)
    base = rng.normal(0, 1, 12)
    table = np.column_stack([base, -base + rng.normal(0, 0.3, 12), rng.normal(0, 0.3, 12)])
    complete = icc.intraclass_correlation(table)["icc_c_1"].estimate
    parts = icc.variance_components(table)
    squares = icc._mean_squares(table)
    assert complete < 0 and parts.target == pytest.approx(
        float(squares.targets - squares.residual) / 3, abs=0.02
    )
    table[0, 2] = np.nan
    gap = icc.intraclass_correlation(table)["icc_c_1"].estimate
    assert gap == pytest.approx(complete, abs=0.1)


def test_threshold_test_is_the_counterpart_of_the_limits():
    table = readings(np.random.default_rng(5), 3)[0][:30]
    found = icc.intraclass_correlation(table, alpha=0.05)["icc_c_1"]
    at_limit = icc.icc_exceeds(table, found.ci_low, form="icc_c_1")
    assert at_limit.p_value == pytest.approx(0.025, abs=1e-9)
    rows = run(plan(exceeds=0.75), study(table, np.arange(30)))
    row = look(rows, "r1|r2", "icc_a_1_exceeds")
    assert 0 < row["p_value"] < 1 and "one-sided" in row["method"]


def test_threshold_test_keeps_its_level():
    """Type I error of the one-sided F test at 5 %: ICC(C,1) 0.75 against 0.75."""
    rng, runs, rejected = np.random.default_rng(11), 400, 0
    for _ in range(runs):
        table = rng.normal(0, np.sqrt(3), (25, 1)) + rng.normal(0, 1, (25, 3))
        rejected += icc.icc_exceeds(table, 0.75, form="icc_c_1").p_value < 0.05
    assert 0.02 * runs <= rejected <= 0.085 * runs


def test_kappa_test_and_interval_agree():
    """A table of which the null error said .035 while the interval held 0."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        a = rng.integers(0, 3, 40)
        b = np.where(rng.random(40) < 0.25, a, rng.integers(0, 3, 40))
        found = categorical.weighted_kappa(a, b, "none")
        assert (found.p_value < 0.05) == (found.ci_low > 0 or found.ci_high < 0)
        assert -1 <= found.ci_low <= found.ci_high <= 1
    close = categorical.weighted_kappa([1] * 19 + [2] * 4, [1] * 18 + [2] * 5, "none")
    assert close.ci_high == 1.0 and "cut" in close.note


def test_a_missed_lesion_is_a_finding_for_the_pair_and_for_all():
    rng = np.random.default_rng(6)
    truth = rng.lognormal(3, 0.5, 40)
    table = truth[:, None] * np.exp(rng.normal(0, 0.1, (40, 2)))
    table[7] = 60.0, 0.08
    tables = study(table, np.arange(40))
    found = run(plan(), tables)
    for group in ("r1|r2", "all"):
        row = look(found, group, "icc_a_1")
        assert np.isfinite(row["estimate"]) and "missed lesion" in row["note"]
        assert "s007" in row["note"] and "0.08" in row["note"]
    off = run(plan(unit_check="checked"), tables)
    assert "factor" not in look(off, "r1|r2", "icc_a_1")["note"]
    refused = run(plan(unit_check="refuse"), tables)
    for group in ("r1|r2", "all"):
        assert "not_computable" in look(refused, group, "icc_a_1")["note"]
    table[7] = 60_000.0, 60.0
    sure = run(plan(), study(table, np.arange(40)))
    for group in ("r1|r2", "all"):
        assert "mL against mm3" in look(sure, group, "icc_a_1")["note"]


def test_limits_are_exact_below_100_pairs():
    table = readings(np.random.default_rng(8))[0]
    few, many = study(table[:20], np.arange(20)), study(table, np.arange(120))
    assert "exact of limits" in look(run(plan(), few), "r1|r2", "loa_upper")["method"]
    assert "approximate" in look(run(plan(), many), "r1|r2", "loa_upper")["method"]
    asked = look(run(plan(limits_ci="approximate"), few), "r1|r2", "loa_upper")
    assert "approximate of limits" in asked["method"]
    share = look(run(plan(limits_coverage=0.8), few), "r1|r2", "loa_upper")
    bias = look(run(plan(), few), "r1|r2", "bias")["estimate"]
    sd = float(np.std(table[:20, 0] - table[:20, 1], ddof=1))
    assert share["estimate"] == pytest.approx(bias + 1.2815515655446004 * sd)


def test_exact_limits_cover_at_both_ends():
    """n = 10: the approximate outer limit misses on its side 6.5 % (audit), the exact one 2.5 %."""
    rng, runs = np.random.default_rng(9), 1500
    missed = {"exact": 0, "approximate": 0}
    for _ in range(runs):
        a = rng.normal(size=10)
        for kind in missed:
            found = differences.bland_altman(a, np.zeros(10), limits_ci=kind)
            missed[kind] += found.loa_upper_ci[1] < 1.96
    assert missed["exact"] < 0.04 * runs < missed["approximate"]


def test_regression_quantile_and_tolerance_limits():
    rng = np.random.default_rng(10)
    truth = rng.uniform(10, 100, 300)
    table = truth[:, None] * (1 + rng.normal(0, 0.1, (300, 2)))
    found = run(plan(method=["regression", "quantile", "tolerance"]), study(table, np.arange(300)))
    slope = look(found, "r1|r2", "loa_sd_slope")
    assert slope["ci_low"] < 0.1 * np.sqrt(2) < slope["ci_high"] and slope["p_value"] < 1e-6
    for name in ("loa_lower_quantile", "loa_upper_quantile", "tolerance_upper"):
        assert np.isfinite(look(found, "r1|r2", name)["estimate"])
    upper = found[found["statistic"] == "loa_upper_regression"].sort_values("group")
    assert len(upper) == 3 and upper["estimate"].nunique() == 3
    # Howe 1969: factor 2.752 of 20 values, content and confidence 95 %.
    values = np.repeat([-1.0, 1.0], 10) * np.sqrt(19 / 20)
    (_, _, high) = limits._tolerance_limits(values, np.zeros(20))[1]
    assert high.estimate == pytest.approx(2.752, abs=2e-3)


def test_inter_no_worse_than_intra():
    rng = np.random.default_rng(12)
    truth = rng.normal(50, 10, (80, 1, 1))
    same = truth + rng.normal(0, 1, (80, 2, 2))
    worse = same + rng.normal(0, 2, (80, 2, 1))
    p_values = []
    for cube in (same, worse):
        rows = [
            (f"s{i:03d}", "v0", "infarct_volume", f"r{j + 1}", m + 1, "all", cube[i, j, m], "ok")
            for i, j, m in np.ndindex(cube.shape)
        ]
        people = pd.DataFrame({"participant_id": [f"s{i:03d}" for i in range(80)]})
        tables = Tables(pd.DataFrame(rows, columns=COLUMNS), people)
        found = run(plan(no_worse_ratio=1.3), tables)
        p_values.append(look(found, "all", "inter_no_worse_than_intra")["p_value"])
    assert p_values[0] < 0.05 and p_values[1] > 0.9


def test_many_different_values_leave_the_second_program_out(monkeypatch):
    rng = np.random.default_rng(13)
    table = rng.lognormal(3, 1, (400, 1)) * np.exp(rng.normal(0, 0.2, (400, 3)))
    start = time.perf_counter()
    found = run(plan(), study(table, np.arange(400)))
    assert time.perf_counter() - start < 60
    row = look(found, "all", "alpha_krippendorff")
    assert np.isfinite(row["estimate"]) and "left out" in row["second_method"]
    monkeypatch.setattr(categorical, "MOST_LEVELS", 5000)
    exact = categorical._by_counts(table, "ratio")
    whole = exact.alpha(exact.sums.sum(axis=0)[None], exact.observed.sum()[None])
    assert row["estimate"] == pytest.approx(float(whole[0]), abs=1e-12)


def test_ranks_of_slopes_by_counting_are_those_by_sorting():
    rng = np.random.default_rng(14)
    # Whole numbers: equal values, vertical slopes and slopes of -1 occur, and sums are exact.
    u = np.round(rng.normal(40, 10, 200))
    v = u + np.round(rng.normal(0, 4, 200))
    sort, count = differences._AllSlopes(u, v), differences._CountedSlopes(u, v)
    assert sort.m == count.m
    shift = count.below - sort.below
    for place in (sort.m // 4, sort.m // 2, 3 * sort.m // 4):
        assert count.at(place + shift) == pytest.approx(sort.at(place), abs=1e-9)
