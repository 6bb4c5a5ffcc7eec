"""The certificate: other forms of a statistic, descriptions, arithmetic of the sources."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY

from corelab.agreement import bland_altman, intraclass_correlation
from corelab.provenance.arithmetic import ArithmeticFault, evaluate
from corelab.provenance.certificate import certificate
from corelab.provenance.products import read_table

#: Shrout and Fleiss 1979: six targets by four judges.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
#: Bland and Altman, Lancet 1986: first Wright and first mini peak flow, 17 people.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def _row(statistic, estimate, low=np.nan, high=np.nan, n=10, **more):
    row = {"analysis_id": "a", "participant_id": "all", "group": "x|y", "endpoint": "e"}
    row |= {"visit": "all", "statistic": statistic, "estimate": estimate, "ci_low": low}
    return {**row, "ci_high": high, "n": n, "method": "m", "note": "", **more}


def _published(**cells):
    return pd.DataFrame([{"published_id": "p", "analysis_id": "a", **cells}])


def _one(published, rows, **more):
    return certificate(published, pd.DataFrame(rows), numeric_tolerance=1e-8, **more).iloc[0]


def test_another_icc_form_is_named_and_the_verdict_stays():
    # Shrout and Fleiss: ICC(2,1) is 0.29, ICC(3,1) is 0.71.
    forms = intraclass_correlation(SHROUT_FLEISS)
    rows = [_row(name, forms[name].estimate) for name in forms]
    found = _one(_published(statistic="icc_a_1", estimate="0.71"), rows)
    assert found["verdict"] == "different" and found["fits"] == "icc_c_1"
    assert found["fits_value"] == pytest.approx(0.7148, abs=5e-5)
    assert _one(_published(statistic="icc_c_1", estimate="0.71"), rows)["fits"] == ""


def test_limits_of_two_standard_deviations_are_recognised():
    # Printed limits: -79.7 and 75.5, with 2 SD; ours have 1.96 SD.
    found = bland_altman(np.array(WRIGHT, float), np.array(MINI, float))
    rows = [_row(n, getattr(found, n)) for n in ("bias", "loa_lower", "loa_upper")]
    for name, printed in (("loa_lower", "-79.7"), ("loa_upper", "75.5")):
        judged = _one(_published(statistic=name, estimate=printed, tolerance="0.1"), rows)
        assert (judged["verdict"], judged["fits"]) == ("different", "2 SD"), name


def test_exchanged_groups_and_the_interval_of_a_rounded_r():
    found = _one(_published(statistic="hazard_ratio", estimate="2.00"), [_row("hazard_ratio", 0.5)])
    assert found["fits"] == "groups exchanged"
    rows = [_row("pearson_r", 0.5838, 0.4912, 0.6633, n=213)]
    sheet = _published(statistic="pearson_r", estimate="0.58", ci_low="0.48")
    table = certificate(sheet, pd.DataFrame(rows), numeric_tolerance=1e-8)
    assert table["verdict"].tolist() == ["within_rounding", "different"]
    assert table["fits"].tolist() == ["", "interval of the printed, rounded r"]


VALUES = [1.0, 2.0, 4.0, 8.0, 16.0]


@pytest.fixture
def measurements():
    rows = [
        {"participant_id": str(k), "visit": "v", "endpoint": "e", "source": "pipeline"}
        | {"repeat": "1", "region": "all", "value": value, "status": "ok"}
        for k, value in enumerate(VALUES)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("statistic", "printed", "verdict", "fits"),
    [
        ("median", "4.0", "reproduced", ""),
        ("quartile_1", "2.0", "reproduced", ""),
        ("quartile_1", "1.50", "different", "percentile type 6"),
        ("sd", "6.10", "within_rounding", ""),
        ("sd", "5.46", "different", "population SD"),
        ("sd", "7.77", "different", ""),
        ("mode", "1", "not_computable", ""),
    ],
)
def test_descriptions_of_measured_values(measurements, statistic, printed, verdict, fits):
    sheet = _published(statistic=statistic, estimate=printed, endpoint="e", visit="v")
    sheet["analysis_id"] = "description"
    found = _one(sheet, [_row("x", 1.0)], measurements=measurements)
    assert (found["verdict"], found["fits"]) == (verdict, fits)


def test_descriptions_by_arm(measurements):
    sheet = _published(statistic="mean", estimate="9", endpoint="e", group="pipeline|high")
    sheet["analysis_id"] = "description"
    arms = {"1": "high", "4": "high"}
    found = _one(sheet, [_row("x", 1.0)], measurements=measurements, arms=arms)
    assert found["verdict"] == "reproduced" and found["recomputed"] == 9.0


@pytest.mark.parametrize("text", ["__import__('os')", "a + 1", "1 +", "1 ** 9", "1 / 0", "9" * 500])
def test_what_is_not_arithmetic_is_refused(text):
    with pytest.raises(ArithmeticFault):
        evaluate(text)


def test_shipped_example_calls_out_what_contradicts_itself():
    # Requirements section 5: matches and mismatches of the sources' own arithmetic.
    sheet = read_table(REPOSITORY / "config/examples/published/published.tsv")
    sums = sheet[sheet["analysis_id"] == "arithmetic"]
    table = certificate(sums, pd.DataFrame([_row("x", 1.0)]), numeric_tolerance=1e-8)
    verdicts = table.set_index("published_id")["verdict"]
    wrong = {"dwi_q3_h", "n_early", "end_sequential_iqr", "population"}
    assert set(verdicts[verdicts == "different"].index) == wrong
    assert set(verdicts[verdicts == "not_computable"].index) == {"jcog_rs_postop_gd"}
    assert sums.set_index("published_id").loc[sorted(wrong), "source_note"].notna().all()


def test_limits_that_only_an_unrounded_r_gives_are_recognised():
    # Published reference: r = 0.58 (0.49 to 0.67), n = 213 follows from an r of 0.5827 to 0.5850.
    sheet = _published(statistic="pearson_r", estimate="0.58", ci_low="0.49", ci_high="0.67")
    rows = [_row("pearson_r", 0.58, 0.48325, 0.66276, n=213)]
    table = certificate(sheet, pd.DataFrame(rows), numeric_tolerance=1e-8)
    assert table["verdict"].tolist() == ["reproduced", "different", "different"]
    for fits in table["fits"][1:]:
        assert fits == "interval of an r of 0.5827 to 0.5850, which rounds to the printed"
    # No r that rounds to 0.58 has these limits.
    sheet = _published(statistic="pearson_r", estimate="0.58", ci_low="0.52", ci_high="0.67")
    assert certificate(sheet, pd.DataFrame(rows), numeric_tolerance=1e-8)["fits"][1] == ""
