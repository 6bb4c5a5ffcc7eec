"""Double read and adjudication by the charter's rule, and its rates."""

import pandas as pd
import pytest

from corelab.reading.adjudication import AdjudicationFault, adjudicate, rules_of
from corelab.reading.rates import (
    _against_limits,
    adjudication_rates,
    intra_reader_rates,
    p_chart,
    wilson_interval,
)
from corelab.reading.reader_list import busy_days, certification_faults
from corelab.settings.reading import AdjudicationRule

VOLUME = {"endpoint": "infarct_volume", "absolute_above": 5, "relative_above": 0.2}
GRADE = {"endpoint": "aspects", "grades_differ": True, "method": "either_of_two"}


def sheet(text):
    """Lines 'participant endpoint reader value [role [unit]]'."""
    rows = []
    for line in text.strip().splitlines():
        cells = [None if cell == "n/a" else cell for cell in line.split()]
        cells += [None] * (6 - len(cells))
        rows.append([cells[0], "day5", *cells[1:]])
    columns = ["participant_id", "visit", "endpoint", "reader", "value", "role", "unit"]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def final_of(text, *rules):
    final, table = adjudicate(sheet(text), rules_of(AdjudicationRule(**rule) for rule in rules))
    return final.iloc[0], table


def test_concordant_numbers_give_their_mean():
    row, table = final_of("1 infarct_volume r1 100\n1 infarct_volume r2 104", VOLUME)
    assert (row["value"], row["how"], row["readers"]) == (102.0, "concordant", "r1,r2")
    assert table.empty


def test_units_are_brought_together():
    row, _ = final_of(
        "1 infarct_volume r1 100000 reader mm3\n1 infarct_volume r2 104 reader mL", VOLUME
    )
    assert (row["value"], row["unit"]) == (102.0, "mL")


@pytest.mark.parametrize(
    ("values", "combine", "how"),
    [
        (("10", "14"), "any", "missing"),  # 4 mL, 33 %: relative limit passed
        (("10", "14"), "all", "concordant"),
        (("100", "106"), "any", "missing"),  # 6 mL, 5.8 %: absolute limit passed
        (("20", "30"), "all", "missing"),  # both
        (("100", "105"), "any", "concordant"),  # at the limit is not above it
    ],
)
def test_limits(values, combine, how):
    a, b = values
    text = f"1 infarct_volume r1 {a}\n1 infarct_volume r2 {b}"
    row, table = final_of(text, {**VOLUME, "combine": combine})
    assert row["how"] == how
    assert len(table) == (how == "missing")
    if how == "missing":
        assert row["value"] is None and "needs adjudication" in row["reason"]
        assert table.loc[0, "state"] == "needed"


def test_independent_third_stands():
    text = "1 infarct_volume r1 10\n1 infarct_volume r2 30\n1 infarct_volume r3 28 adjudicator"
    row, table = final_of(text, VOLUME)
    assert (row["value"], row["how"], row["adjudicator"]) == (28.0, "adjudicated", "r3")
    assert table.loc[0, "agrees_with"] == "r2"


def test_either_of_two_must_choose_one():
    text = "1 aspects r1 8\n1 aspects r2 6\n1 aspects r3 {} adjudicator"
    row, _ = final_of(text.format(6), GRADE)
    assert (row["value"], row["how"]) == (6.0, "adjudicated")
    with pytest.raises(AdjudicationFault, match="neither reader's"):
        final_of(text.format(7), GRADE)


def test_text_grades():
    row, _ = final_of("1 response r1 PD\n1 response r2 PD", {**GRADE, "endpoint": "response"})
    assert (row["value"], row["how"]) == ("PD", "concordant")


def test_one_reader_is_missing_with_reason():
    row, table = final_of("1 infarct_volume r1 10", VOLUME)
    assert row["how"] == "missing" and row["reason"].startswith("only r1 read this case")
    assert table.empty


def test_not_evaluable_by_one_reader_needs_adjudication():
    text = "1 infarct_volume r1 10\n1 infarct_volume r2 n/a"
    row, _ = final_of(text, VOLUME)
    assert row["how"] == "missing" and "not evaluable by r2" in row["reason"]
    row, _ = final_of(text + "\n1 infarct_volume r3 11 adjudicator", VOLUME)
    assert (row["value"], row["how"]) == (11.0, "adjudicated")
    row, _ = final_of("1 infarct_volume r1 n/a\n1 infarct_volume r2 n/a", VOLUME)
    assert row["reason"] == "no reader could give a value"


def test_no_rule_means_no_judgement():
    row, _ = final_of("1 infarct_volume r1 10\n1 infarct_volume r2 10")
    assert row["how"] == "concordant"
    row, table = final_of("1 infarct_volume r1 10\n1 infarct_volume r2 10.1")
    assert row["how"] == "missing" and "no rule" in row["reason"] and table.empty


def test_investigator_and_software_take_no_part():
    text = "1 infarct_volume r1 10\n1 infarct_volume r2 10\n1 infarct_volume pi 90 investigator"
    row, _ = final_of(text, VOLUME)
    assert row["readers"] == "r1,r2"


def test_an_adjudicator_who_read_the_case_is_an_error():
    """Also where he read another endpoint of it, and where the readers agreed."""
    text = (
        "1 infarct_volume r1 10\n1 infarct_volume r2 10\n1 infarct_volume r3 9 adjudicator\n"
        "1 aspects r3 8\n1 aspects r2 8"
    )
    with pytest.raises(AdjudicationFault, match="1 day5 infarct_volume: the adjudicator r3 was"):
        final_of(text, VOLUME, GRADE)


def test_every_fault_is_named():
    text = (
        "1 infarct_volume r1 10\n1 infarct_volume r1 11\n1 infarct_volume r2 10\n"
        "2 infarct_volume r1 1\n2 infarct_volume r2 9\n"
        "2 infarct_volume r3 9 adjudicator\n2 infarct_volume r4 9 adjudicator"
    )
    with pytest.raises(AdjudicationFault) as caught:
        final_of(text, VOLUME)
    assert "two reads by r1" in str(caught.value) and "2 adjudications (r3, r4)" in str(
        caught.value
    )


def test_an_unneeded_adjudication_is_told_and_not_used():
    text = "1 infarct_volume r1 10\n1 infarct_volume r2 10\n1 infarct_volume r3 90 adjudicator"
    row, table = final_of(text, VOLUME)
    assert row["value"] == 10.0 and table.loc[0, "state"] == "not_needed"


def test_rules_without_a_limit_are_refused():
    with pytest.raises(ValueError, match="without a limit"):
        rules_of([AdjudicationRule(endpoint="x")])
    with pytest.raises(ValueError, match="two rules"):
        rules_of([AdjudicationRule(**GRADE)] * 2)


@pytest.mark.parametrize(
    ("count", "n", "low", "high"),
    # Newcombe 1998 (Stat Med 17:857), table I, method 3 (score, no continuity correction).
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_published(count, n, low, high):
    found = wilson_interval(count, n)
    assert found == pytest.approx((low, high), abs=5e-5)


def test_rates():
    lines = []
    for n in range(1, 11):
        lines += [f"{n} aspects r1 8", f"{n} aspects r2 {8 if n > 4 else 6}"]
    lines += [f"{n} aspects r3 {6 if n < 3 else 8} adjudicator" for n in range(1, 4)]
    lines += ["11 aspects r1 8"]
    final, table = adjudicate(sheet("\n".join(lines)), rules_of([AdjudicationRule(**GRADE)]))
    rates = adjudication_rates(final, table, limits={"adjudication_rate_max": 0.3})
    found = {
        (row.statistic, row.group): (row.count_, row.n)
        for row in rates.rename(columns={"count": "count_"}).itertuples()
    }
    assert found == {
        ("double_read_agreement", "all"): (6, 10),
        ("adjudication_rate", "all"): (4, 10),
        ("adjudication_done", "all"): (3, 4),
        ("adjudicator_agreement", "adjudicator=r3"): (3, 3),
        ("adjudicator_agreement", "reader=r1"): (1, 3),
        ("adjudicator_agreement", "reader=r2"): (2, 3),
        ("reader_disagreement_index", "reader=r1"): (2, 10),
        ("reader_disagreement_index", "reader=r2"): (1, 10),
    }
    row = rates[rates["statistic"] == "adjudication_rate"].iloc[0]
    assert (row["limit"], row["verdict"]) == ("max 0.3", "outside")
    assert row["interval_verdict"] == "not decided"
    assert (row["ci_low"], row["ci_high"]) == wilson_interval(4, 10)


CONSENSUS = {"endpoint": "rano", "grades_differ": True, "method": "consensus"}


def test_three_readers_and_their_consensus():
    """Unanimous reads stand; others need what the three settled together (JCOG0911A2)."""
    row, table = final_of("1 rano r1 PD\n1 rano r2 PD\n1 rano r3 PD", CONSENSUS)
    assert (row["value"], row["how"], row["readers"]) == ("PD", "concordant", "r1,r2,r3")
    assert table.empty
    text = "1 rano r1 PD\n1 rano r2 SD\n1 rano r3 PD"
    row, table = final_of(text, CONSENSUS)
    assert row["how"] == "missing" and row["reason"].startswith("needs a consensus")
    assert table.loc[0, "state"] == "needed"
    row, table = final_of(text + "\n1 rano panel PD consensus", CONSENSUS)
    assert (row["value"], row["how"], row["adjudicator"]) == ("PD", "consensus", "panel")
    assert table.loc[0, ["state", "agrees_with"]].tolist() == ["consensus", "r1,r3"]
    row, _ = final_of("1 rano r1 PD\n1 rano r2 PD", CONSENSUS)
    assert "only r1 and r2 read this case" in row["reason"] and "three readers" in row["reason"]


def test_consensus_and_adjudication_are_not_mixed_up():
    text = "1 rano r1 PD\n1 rano r2 SD\n1 rano r3 PD\n1 rano r9 PD adjudicator"
    with pytest.raises(AdjudicationFault, match="method is consensus"):
        final_of(text, CONSENSUS)
    text = "1 aspects r1 8\n1 aspects r2 7\n1 aspects panel 8 consensus"
    with pytest.raises(AdjudicationFault, match="method is either_of_two"):
        final_of(text, GRADE)
    twice = "1 rano r1 PD\n1 rano r2 SD\n1 rano r3 PD\n1 rano a PD consensus\n1 rano b SD consensus"
    with pytest.raises(AdjudicationFault, match="2 rows of consensus"):
        final_of(twice, CONSENSUS)


def test_a_reader_against_himself():
    reads = pd.concat([sheet("1 aspects r1 8\n2 aspects r1 7\n3 aspects r1 6\n3 aspects r2 6")] * 2)
    reads = reads.reset_index(drop=True).assign(repeat=["1"] * 4 + ["2"] * 4)
    reads.loc[5, "value"] = "9"
    reads.loc[7, "repeat"] = "3"
    table = intra_reader_rates(
        reads, rules_of([AdjudicationRule(**GRADE)]), limits={"intra_reader_difference_max": 0.2}
    )
    assert table[["group", "count", "n"]].values.tolist() == [["all", 1, 3], ["reader=r1", 1, 3]]
    assert table["verdict"].tolist() == ["outside"] * 2
    assert table.loc[0, "ci_high"] == wilson_interval(1, 3)[1]
    assert intra_reader_rates(None, {}).empty


def test_verdict_of_the_interval():
    limits = {"rate_max": 0.3}
    assert _against_limits("rate", 0.1, (0.05, 0.2), limits)[1:] == ("within", "within")
    assert _against_limits("rate", 0.5, (0.4, 0.6), limits)[1:] == ("outside", "outside")
    assert _against_limits("rate", 0.25, (0.1, 0.4), limits)[1:] == ("within", "not decided")
    assert _against_limits("rate", None, (None, None), limits) == ("max 0.3", None, None)


def test_p_chart_finds_the_part_in_which_a_reader_drifted():
    """Montgomery's p-chart: centre +- 3 sqrt(c (1 - c) / n), computed here by hand."""
    lines = []
    for n in range(1, 31):
        wrong = n > 20 and n % 10 < 8
        lines += [f"{n} aspects r1 {6 if wrong else 8}", f"{n} aspects r2 8"]
        lines += [f"{n} aspects r3 8 adjudicator"] if wrong else []
    reads = sheet("\n".join(lines))
    reads["presentation_order"] = reads["participant_id"]
    final, table = adjudicate(reads, rules_of([AdjudicationRule(**GRADE)]))
    chart = p_chart(final, table, reads, parts=3).set_index(["reader", "part"])
    assert chart["n"].tolist() == [10] * 6
    centre = 8 / 60
    assert chart["centre"].unique().tolist() == [centre]
    upper = centre + 3 * (centre * (1 - centre) / 10) ** 0.5
    assert chart["upper"].unique().tolist() == pytest.approx([upper])
    assert chart["lower"].unique().tolist() == [0.0]
    verdicts = chart["verdict"]
    assert verdicts["r1", 3] == "out_of_control"
    assert set(verdicts.drop(("r1", 3))) == {"in_control"}


def test_no_reads_give_empty_tables():
    final, table = adjudicate(None, {})
    assert final.empty and table.empty and adjudication_rates(final, table).empty


def test_roster():
    reads = sheet("1 aspects r1 8\n1 aspects r2 8\n2 aspects r1 8")
    reads["read_at"] = ["2025-01-10T09:00:00Z", None, "2025-01-10"]
    faults = certification_faults(reads, {"r1": "2025-01-10"})
    assert faults == ["r2 read 1 day5 without a certificate (reading.certified)"]
    assert (
        "without a date" in certification_faults(reads, {"r1": "2025-01-10", "r2": "2025-01-01"})[0]
    )
    assert busy_days(reads, 1) == ["r1 read 2 cases on 2025-01-10, more than 1"]
    assert busy_days(reads, 2) == []
