"""Agreement kernels against published and independently recomputed answers (references.json)."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from helpers import data_folder

from corelab.agreement import categorical, differences, icc, metrology
from corelab.agreement.icc import intraclass_correlation

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def references():
    rows = json.loads((data_folder("statistics") / "references.json").read_text())
    return {row["id"]: row for row in rows}


def table(name):
    return pd.read_csv(data_folder("statistics") / name)


def close(value, expected, row):
    assert value == pytest.approx(expected, abs=row["tolerance"], rel=0)


def test_t01_shrout_fleiss_six_forms(references):
    row = references["T01"]
    ratings = table("shrout_fleiss_1979.csv").iloc[:, 1:].to_numpy(float)
    result = intraclass_correlation(ratings)
    names = {
        "ICC1": "icc_1_1",
        "ICC2": "icc_a_1",
        "ICC3": "icc_c_1",
        "ICC1k": "icc_1_k",
        "ICC2k": "icc_a_k",
        "ICC3k": "icc_c_k",
    }
    for theirs, ours in names.items():
        close(result[ours].estimate, row["expected"][theirs], row)
        low, high = row["expected"][f"CI_{theirs}"]
        close(result[ours].ci_low, low, row)
        close(result[ours].ci_high, high, row)


def test_t02_anxiety(references):
    row = references["T02"]
    result = intraclass_correlation(table("anxiety.csv").to_numpy(float))
    expected = row["expected"]
    close(result["icc_a_1"].estimate, expected["ICC_A1"], row)
    close([result["icc_a_1"].ci_low, result["icc_a_1"].ci_high], expected["CI_A1"], row)
    # R irr tests ICC(A,1) with the Satterthwaite df of its interval.
    close(result["icc_a_1"].p_value_satterthwaite, expected["p_A1"], row)
    close(result["icc_c_1"].estimate, expected["ICC_C1"], row)
    close([result["icc_c_1"].ci_low, result["icc_c_1"].ci_high], expected["CI_C1"], row)
    assert result["icc_a_1"].f == pytest.approx(1.827, abs=5e-4)


def test_t03_weighted_kappa(references):
    row = references["T03"]
    counts = np.array([[44, 5, 1], [7, 20, 3], [9, 5, 6]])
    a, b = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices((3, 3)))
    expected = row["expected"]
    plain = categorical.weighted_kappa(a, b, None)
    linear = categorical.weighted_kappa(a, b, "linear")
    quadratic = categorical.weighted_kappa(a, b)
    z = 1.959963984540054
    close(plain.estimate, expected["kappa"], row)
    close(plain.se, expected["ASE"], row)
    close([plain.ci_low, plain.ci_high], expected["CI"], row)
    close(linear.estimate, expected["linear"], row)
    close([linear.ci_low, linear.ci_high], expected["CI_lin"], row)
    close(quadratic.estimate, expected["quadratic"], row)
    close(quadratic.se, expected["ASE_q"], row)
    close([quadratic.ci_low, quadratic.ci_high], expected["CI_q"], row)
    assert quadratic.ci_high - quadratic.estimate == pytest.approx(z * quadratic.se)


def test_t05_fleiss_light_conger(references):
    row = references["T05"]
    grades = table("diagnoses.csv").to_numpy(object)
    fleiss = categorical.chance_corrected(grades, "fleiss")
    close(fleiss.estimate, row["expected"]["fleiss"], row)
    close(fleiss.estimate / fleiss.se, row["expected"]["z"], row)
    close(categorical.light_kappa(grades).estimate, row["expected"]["light"], row)
    close(
        categorical.chance_corrected(grades, "conger").estimate,
        row["expected"]["conger_exact"],
        row,
    )


def test_t06_krippendorff(references):
    row = references["T06"]
    nan = np.nan
    coders = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ]
    for level, expected in row["expected"].items():
        close(categorical.krippendorff_alpha(np.array(coders).T, level).estimate, expected, row)


def test_t08_bland_altman(references):
    row = references["T08"]
    data = table("bland_altman_1986_pefr.csv")
    result = differences.bland_altman(data["WrightFirst"], data["MiniWrightFirst"])
    two = differences.bland_altman(data["WrightFirst"], data["MiniWrightFirst"], multiplier=2.0)
    expected = row["expected"]
    close(result.bias, expected["bias"], row)
    close(result.sd, expected["sd"], row)
    close([result.loa_lower, result.loa_upper], expected["loa_1.96"], row)
    close([two.loa_lower, two.loa_upper], expected["loa_2sd"], row)
    close(result.bias_ci, expected["ci_bias"], row)


def test_t09_sbp(references):
    row = references["T09"]
    data = table("tables/sbp.csv")
    wide = data.pivot_table(index="item", columns=["meth", "repl"], values="y")
    result = differences.bland_altman(wide["J", 1], wide["S", 1])
    expected = row["expected"]
    close(result.bias, expected["bias_J1S1"], row)
    close(result.sd, expected["sd"], row)
    close([result.loa_lower, result.loa_upper], expected["loa"], row)
    for method in "JS":
        found = metrology.repeatability(wide[method].to_numpy())
        close(found["within_sd"].estimate, expected[f"sw_{method}"], row)
        close(found["repeatability_coefficient"].estimate, expected[f"RC_{method}"], row)


def test_sbp_replicated_limits_as_printed():
    """Bland and Altman 1999, section 5.1: variance 438.86, limits -56.68 to 25.44."""
    data = table("tables/sbp.csv")
    wide = data.pivot_table(index="item", columns=["meth", "repl"], values="y")
    result = differences.bland_altman_replicated(wide["J"].to_numpy(), wide["S"].to_numpy())
    assert result.bias == pytest.approx(-15.62, abs=5e-3)
    assert result.sd == pytest.approx(20.95, abs=5e-3)
    assert [result.loa_lower, result.loa_upper] == pytest.approx([-56.68, 25.44], abs=1e-2)


def test_t14_concordance(references):
    row = references["T14"]
    data = table("bland_altman_1986_pefr.csv")
    a, b = data["WrightFirst"], data["MiniWrightFirst"]
    result = differences.concordance_correlation(a, b)
    close([result.estimate, result.ci_low, result.ci_high], row["expected"]["pefr"], row)


def test_overall_concordance_of_two_is_lins():
    data = table("bland_altman_1986_pefr.csv")
    both = data[["WrightFirst", "MiniWrightFirst"]].to_numpy(float)
    overall = differences.overall_concordance(both).estimate
    assert overall == pytest.approx(
        differences.concordance_correlation(*both.T).estimate, abs=1e-12
    )


def test_reml_of_complete_data_is_the_analysis_of_variance():
    ratings = table("shrout_fleiss_1979.csv").iloc[:, 1:].to_numpy(float)
    parts = icc.variance_components(ratings)
    squares = icc._mean_squares(ratings)
    expected = [
        (squares.targets - squares.residual) / 4,
        (squares.readers - squares.residual) / 6,
        squares.residual,
    ]
    assert [parts.target, parts.reader, parts.residual] == pytest.approx(expected, rel=1e-5)
