"""Intra-reader against inter-reader, replicated limits, direction of disagreement by arm."""

import numpy as np
import pandas as pd
import pytest
from helpers import run
from scipy import stats

from corelab.agreement.direction import _newcombe, _welch
from corelab.agreement.drift import reader_effects
from corelab.agreement.repeats import _inter_intra_ratio
from corelab.measurement.selection import NotComputable, Tables

COLUMNS = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value", "status"]


def tables_of(rows, people=None, **more):
    frame = pd.DataFrame(rows, columns=COLUMNS)
    known = people if people is not None else pd.DataFrame(
        {"participant_id": sorted(set(frame["participant_id"]))}
    )  # fmt: skip
    return Tables(frame, known, **more)


def row(person, source, value, repeat=1, endpoint="infarct_volume", visit="d0"):
    return (person, visit, endpoint, source, repeat, "all", float(value), "ok")


def plan(**more):
    return {"id": "a", "type": "agreement", "endpoint": "infarct_volume", "resamples": 300,
            "sources": ["r1", "r2"], **more}  # fmt: skip


def crossed(rng, n=40, readers=2, repeats=2, reader_sd=2.0, own_sd=1.0):
    truth = rng.uniform(10, 80, (n, 1, 1))
    return (
        truth
        + rng.normal(0, reader_sd, (n, readers, 1))
        + rng.normal(0, own_sd, (n, readers, repeats))
    )


def as_rows(readings):
    return [
        row(f"{i:03d}", f"r{j + 1}", readings[i, j, m], m + 1)
        for i, j, m in np.argwhere(~np.isnan(readings))
    ]


def test_intra_and_inter_reader_table_recovers_what_was_simulated():
    readings = crossed(np.random.default_rng(3), n=400, readers=3)
    found = run(plan(sources=["r1", "r2", "r3"]), tables_of(as_rows(readings)))
    table = found.set_index(["group", "statistic"])
    for reader in ("r1", "r2", "r3"):
        own = table.loc[(reader, "intra_reader_sd")]
        assert own["ci_low"] < 1.0 < own["ci_high"] and own["estimate"] == pytest.approx(1, abs=0.1)
    assert table.loc[("all", "intra_reader_sd"), "estimate"] == pytest.approx(1.0, abs=0.05)
    between = table.loc[("all", "inter_reader_sd")]
    assert between["estimate"] == pytest.approx(5**0.5, abs=0.12)
    ratio = table.loc[("all", "inter_intra_sd_ratio")]
    assert ratio["ci_low"] < 5**0.5 < ratio["ci_high"]
    assert (
        table.loc[("all", "inter_reader_icc"), "estimate"]
        < table.loc[("r1", "intra_reader_icc"), "estimate"]
    )


def test_ratio_is_that_of_the_analysis_of_variance():
    """Balanced: the pooled variances are the mean squares of two one-way layouts."""
    readings = crossed(np.random.default_rng(0), n=12)
    own = readings.reshape(24, 2)
    within = np.mean([np.var(cell, ddof=1) for cell in own])
    between = np.mean([np.var(cell, ddof=1) for cell in readings[:, :, 0]])
    found = _inter_intra_ratio(readings)
    assert found.estimate == pytest.approx((between / within) ** 0.5, rel=1e-12)


def test_ratio_of_unbalanced_readings_and_what_has_none():
    readings = crossed(np.random.default_rng(1), n=60)
    readings[::3, 0, 1] = np.nan
    readings[1::4, 1] = np.nan
    found = _inter_intra_ratio(readings)
    assert found.ci_low < found.estimate < found.ci_high
    once = readings.copy()
    once[:, :, 1] = np.nan
    with pytest.raises(NotComputable, match="both needed"):
        _inter_intra_ratio(once)
    with pytest.raises(NotComputable, match="all equal"):
        _inter_intra_ratio(np.repeat(readings[:, :, :1], 2, axis=2))


def test_replicated_limits_appear_with_repeats_only():
    rng = np.random.default_rng(5)
    with_repeats = run(plan(), tables_of(as_rows(crossed(rng))))
    names = set(with_repeats["statistic"])
    assert {"loa_lower_replicated", "loa_upper_replicated", "bias_replicated"} <= names
    assert "1999" in with_repeats.set_index("statistic").loc["bias_replicated", "method"]
    linked = run(plan(linked=True), tables_of(as_rows(crossed(rng))))
    assert "linked" in linked.set_index("statistic").loc["bias_replicated", "method"]
    once = run(plan(), tables_of(as_rows(crossed(rng, repeats=1))))
    assert not any("replicated" in name or "intra" in name for name in once["statistic"])


def test_welch_is_scipys():
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 1, 14), rng.normal(0, 3, 9)
    found, theirs = _welch(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert found.p_value == pytest.approx(theirs.pvalue, rel=1e-10)
    assert [found.ci_low, found.ci_high] == pytest.approx(list(theirs.confidence_interval()))


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    # Newcombe 1998 (Stat Med 17:873), table II, method 10, contrasts a to e.
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((10, 10, 0, 20), 0.6791, 1.0),
        ((5, 56, 0, 29), -0.0381, 0.1926),
    ],
)
def test_newcombe_published(cells, low, high):
    found = _newcombe(*cells)
    assert [found.ci_low, found.ci_high] == pytest.approx([low, high], abs=5e-5)


def biased(rng, shift, n=60):
    """Investigators who see the treated arm's lesions smaller by ``shift`` mL."""
    people = pd.DataFrame(
        {
            "participant_id": [f"{i:03d}" for i in range(n)],
            "arm": ["active", "placebo"] * (n // 2),
            "site": ["S1", "S1", "S2", "S2"] * (n // 4),
        }
    )
    rows, reads = [], []
    for person, arm, site in people.itertuples(index=False):
        truth = rng.uniform(10, 60)
        doctor = f"Dr{site}"
        rows.append(row(person, "final", truth + rng.normal(0, 1)))
        rows.append(row(person, doctor, truth + rng.normal(0, 1) - shift * (arm == "active")))
        reads.append((person, "d0", "infarct_volume", doctor, "investigator"))
    sheet = pd.DataFrame(reads, columns=["participant_id", "visit", "endpoint", "reader", "role"])
    return tables_of(rows, people, reads=sheet)


def test_investigators_who_favour_an_arm_are_found():
    against = plan(sources=["final", "investigator"], by="arm")
    found = run(against, biased(np.random.default_rng(7), 3.0))
    table = found.set_index(["group", "statistic"])
    bias = table.loc[("final|investigator|arm=active - placebo", "differential_bias")]
    assert bias["ci_low"] < 3.0 < bias["ci_high"] and bias["p_value"] < 0.001
    assert bias["second_method"].startswith("scipy")
    upward = "discordance_upward"
    shares = {
        arm: table.loc[(f"final|investigator|arm={arm}", upward), "estimate"]
        for arm in ("active", "placebo")
    }
    assert shares["active"] > shares["placebo"] + 0.2
    direction = table.loc[("final|investigator|arm=active - placebo", "differential_direction")]
    assert direction["p_value"] < 0.05 and direction["ci_low"] > 0
    assert table.loc[("final|investigator", "bias"), "n"] == 60


def test_the_test_of_differential_bias_holds_its_level():
    """Under no bias 5 % of 400 trials are significant, within 5 standard errors."""
    rng = np.random.default_rng(8)
    hits = sum(
        _welch(rng.normal(0, 1, 20), rng.normal(0, 3, 30)).p_value < 0.05 for _ in range(400)
    )
    assert abs(hits / 400 - 0.05) < 5 * (0.05 * 0.95 / 400) ** 0.5


def test_direction_says_why_there_is_none():
    given = biased(np.random.default_rng(9), 0.0)
    one = run(plan(sources=["final", "investigator"], by="nothing"), given)
    reason = one.set_index("statistic").loc["differential_bias", "note"]
    assert "no column 'nothing'" in reason
    same = given.participants.assign(arm="active")
    found = run(plan(sources=["final", "investigator"], by="arm"),
                Tables(given.measurements, same, reads=given.reads))  # fmt: skip
    assert "1 level" in found.set_index("statistic").loc["differential_bias", "note"]


def test_two_investigators_of_one_case_are_an_error():
    given = biased(np.random.default_rng(9), 0.0)
    extra = given.measurements.iloc[[1]].assign(source="DrX")
    reads = pd.concat([given.reads, given.reads.iloc[[0]].assign(reader="DrX")])
    doubled = Tables(
        pd.concat([given.measurements, extra], ignore_index=True), given.participants, reads=reads
    )
    with pytest.raises(ValueError, match="duplicates are never averaged"):
        run(plan(sources=["final", "investigator"]), doubled)


def test_final_reads_are_not_among_all():
    given = biased(np.random.default_rng(9), 0.0)
    more = given.measurements.assign(source=lambda f: f["source"].replace("final", "r1"))
    both = Tables(pd.concat([given.measurements, more[more["source"] == "r1"]]), given.participants)
    groups = set(run(plan(sources="all"), both)["group"])
    assert not any("final" in group for group in groups)


def test_grades_in_words_are_compared_on_their_scale():
    scale = ["0", "1", "2a", "2b", "2c", "3"]
    rng = np.random.default_rng(4)
    first = rng.integers(0, 6, 40)
    second = np.clip(first + rng.integers(-1, 2, 40), 0, 5)
    second[first == 5] = 4  # the highest grade is used by one reader only
    rows = []
    for i in range(40):
        rows += [row(f"{i:02d}", "r1", first[i], endpoint="tici"),
                 row(f"{i:02d}", "r2", second[i], endpoint="tici")]  # fmt: skip
    given = tables_of(rows, grades={"tici": scale})
    found = run({**plan(), "endpoint": "tici"}, given).set_index(["group", "statistic"])
    from corelab.agreement import weighted_kappa

    expected = weighted_kappa(first, second, "quadratic", range(6))
    kappa = found.loc[("r1|r2", "kappa_quadratic")]
    assert kappa["estimate"] == pytest.approx(expected.estimate, abs=1e-12)
    assert found.loc[("r1|r2", "gwet_ac2"), "n"] == 40


def test_reader_effects_of_a_mixed_model_use_what_is_there():
    """Incomplete: equal to statsmodels' MixedLM with random targets."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    rng = np.random.default_rng(6)
    table = rng.normal(30, 6, (50, 1)) + np.array([0, 1.5, -1]) + rng.normal(0, 2, (50, 3))
    table[rng.random(table.shape) < 0.3] = np.nan
    wide = pd.DataFrame(table, columns=["a", "b", "c"])
    found = reader_effects(wide)
    kept = table[(~np.isnan(table)).sum(axis=1) >= 2]
    target, reader = np.nonzero(~np.isnan(kept))
    fit = MixedLM(kept[target, reader], np.eye(3)[reader], groups=target).fit(reml=True)
    theirs = fit.fe_params - fit.fe_params.mean()
    ours = [found.effects[name].estimate for name in "abc"]
    assert ours == pytest.approx(list(theirs), abs=2e-3)


EDGES = {
    "one reader": ([row(str(i), "r1", i) for i in range(5)], "no value of infarct_volume from r2"),
    "two targets": (
        [row(p, s, v) for p, v in (("1", 3), ("2", 5)) for s in ("r1", "r2")],
        "2 targets with both sources",
    ),
    "all equal": ([row(str(i), s, 7) for i in range(6) for s in ("r1", "r2")], "no variance"),
    "mm3 for mL": (
        [row(str(i), s, v) for i in range(1, 9) for s, v in (("r1", i), ("r2", 1000.0 * i + i))],
        "factor near 1000",
    ),
    "negative": (
        [row(str(i), s, v) for i in range(1, 9) for s, v in (("r1", i), ("r2", -i))],
        "negative volume",
    ),
}


@pytest.mark.parametrize("name", sorted(EDGES))
def test_edges_have_a_reason_and_no_bare_gap(name):
    rows, reason = EDGES[name]
    found = run(plan(), tables_of(rows))
    pair = found[(found["group"] == "r1|r2") & (found["statistic"] == "icc_a_1")]
    assert len(pair) == 1 and reason in pair["note"].iloc[0]
    silent = found[found["estimate"].isna()]
    assert silent["note"].str.contains("not_computable").all()


def test_zero_volumes_leave_the_logarithm_and_not_the_rest():
    rng = np.random.default_rng(2)
    truth = np.r_[np.zeros(4), rng.uniform(5, 50, 20)]
    rows = []
    for i, t in enumerate(truth):
        rows += [row(f"{i:02d}", "r1", t), row(f"{i:02d}", "r2", t * 1.1)]
    found = run(plan(), tables_of(rows)).set_index(["group", "statistic"])
    assert np.isfinite(found.loc[("r1|r2", "bias"), "estimate"])
    assert "positive" in found.loc[("r1|r2", "ratio"), "note"]
    assert "readings of 0" in found.loc[("r1|r2", "within_cv_percent"), "note"]


def test_ties_and_perfect_agreement():
    rows = []
    for i in range(12):
        rows += [row(f"{i:02d}", "r1", i // 4), row(f"{i:02d}", "r2", i // 4)]
    found = run(plan(measure_level="ordinal"), tables_of(rows)).set_index(["group", "statistic"])
    icc = found.loc[("r1|r2", "icc_a_1")]
    assert (icc["estimate"], icc["ci_low"], icc["ci_high"]) == (1.0, 1.0, 1.0)
    kappa = found.loc[("r1|r2", "kappa_quadratic")]
    assert (kappa["estimate"], kappa["ci_low"]) == (1.0, 1.0)
