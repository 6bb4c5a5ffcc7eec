"""Published answers T15 to T29 of references.json, each at its own tolerance.

The data are tables of R packages (see the source of each row); they are read from the reference
folder and never copied here.
"""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from helpers import data_folder, run

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics import (
    correlation,
    dose_response,
    mmrm,
    multiplicity,
    ordinal,
    proportional_odds,
    quantile,
    sample_size,
    supervised_components,
    survival,
    survival_measures,
)
from corelab.pharmacodynamics.linear import fit_linear
from corelab.pharmacodynamics.rank_inversion import rank_interval

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def reference():
    rows = json.loads((data_folder("statistics") / "references.json").read_text())
    return {row["id"]: (row["expected"], row["tolerance"]) for row in rows}


def table(name: str, **options) -> pd.DataFrame:
    return pd.read_csv(data_folder("statistics") / "tables" / name, **options)


def close(ours, theirs, tolerance):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_t15_repeated_measures_correlation_as_rmcorr(reference):
    """Bland and Altman 1995, pH and PaCO2; R rmcorr 0.7.0 (interval of 0.5.4 and later)."""
    expected, tolerance = reference["T15"]
    data = table("bland1995.csv")
    result = correlation._repeated(data["Subject"], data["PaCO2"], data["pH"])
    close(result.estimate, expected["r"], tolerance)
    assert result.df == expected["df"]
    close(result.p_value, expected["p"], tolerance)
    close([result.ci_low, result.ci_high], expected["ci"], tolerance)


def test_t16_freireich_log_rank_cox_ties_and_medians(reference):
    """Freireich 1963 (MASS::gehan); R survival. The printed chi2 16.793 has three decimals."""
    expected, tolerance = reference["T16"]
    data = table("gehan.csv")
    test = survival.log_rank(data["time"], data["cens"], data["treat"])
    close(test.chi_squared, expected["logrank_chi2"], 5e-4)
    x = (data["treat"] == "control").to_numpy(float)
    for ties in ("efron", "breslow", "exact"):
        fit = survival.fit_cox(data["time"], data["cens"], x, ties=ties)
        close([fit.coefficients[0], fit.standard_errors[0]], expected[ties], tolerance)
    for treat, median, interval in zip(
        ("6-MP", "control"),
        expected["medians"],
        (expected["ci_6mp"], expected["ci_ctrl"]),
        strict=True,
    ):
        part = data[data["treat"] == treat]
        curve = survival.kaplan_meier(part["time"], part["cens"])
        assert curve.quantile() == median
        wanted = [math.nan if limit is None else limit for limit in interval]
        np.testing.assert_equal(list(curve.quantile_interval()), wanted)


def test_t17_lung_median_log_rank_cox_and_concordance(reference):
    """survival::lung; R survival 3.5-3; the SAS default interval is log-log."""
    expected, tolerance = reference["T17"]
    data = table("lung.csv")
    event = data["status"] - 1
    curve = survival.kaplan_meier(data["time"], event)
    assert curve.quantile() == expected["median"]
    assert list(curve.quantile_interval(transform="log")) == expected["ci_log"]
    assert list(curve.quantile_interval(transform="loglog")) == expected["ci_loglog"]
    test = survival.log_rank(data["time"], event, data["sex"])
    close(test.chi_squared, expected["logrank"], tolerance)
    close(test.p_value, expected["p"], tolerance)
    full = data.dropna(subset=["ph.ecog"])
    x = full[["age", "sex", "ph.ecog"]].to_numpy(float)
    fit = survival.fit_cox(full["time"], full["status"] - 1, x)
    close(fit.coefficients, expected["efron_coef"], tolerance)
    close(fit.standard_errors, expected["efron_se"], tolerance)
    c = survival.concordance(full["time"], full["status"] - 1, x @ fit.coefficients)
    close(c.estimate, expected["C"], tolerance)


def test_adjusted_restricted_mean_as_survrm2():
    """survRM2 vignette, PBC of survival: rmst2(time, status, arm, tau = 10, covariates = x)."""
    path = data_folder("statistics") / "tables" / "pbc.csv"
    if not path.exists():
        pytest.skip("the reference folder has no pbc.csv (survival::pbc)")
    data = pd.read_csv(path).iloc[:312]
    arm = (data["trt"] == 1).astype(float)
    x = np.column_stack([np.ones(312), arm, data["age"], data["bili"], data["albumin"]])
    printed = [(2.743, 2.134), (-0.210, 0.343), (-0.069, 0.018), (-0.325, 0.039), (2.550, 0.472)]
    for position, (coefficient, error) in enumerate(printed):
        found = survival_measures.adjusted_restricted_mean(
            data["time"] / 365.25, data["status"] == 2, arm, x, 10.0, position, small_sample=False
        )
        close([found.estimate, found.se], [coefficient, error], 6e-4)


def test_t17_proportional_hazards_test_as_cox_zph():
    """R survival 3 cox.zph on lung: 0.188, 2.305, 2.054, GLOBAL 4.464 (statistics.md D16)."""
    data = table("lung.csv").dropna(subset=["ph.ecog"])
    x = data[["age", "sex", "ph.ecog"]].to_numpy(float)
    fit = survival.fit_cox(data["time"], data["status"] - 1, x)
    test = survival.proportional_hazards_test(data["time"], data["status"] - 1, x, fit)
    close(test.chi_squared, [0.188, 2.305, 2.054], 6e-4)
    close(test.global_chi_squared, 4.464, 6e-4)


def test_peto_weights_are_those_of_rho_one():
    """R survdiff(rho = 1) on lung by sex: 12.714 (statistics.md D17)."""
    data = table("lung.csv")
    test = survival.log_rank(data["time"], data["status"] - 1, data["sex"], rho=1)
    close(test.chi_squared, 12.714, 6e-4)


def test_ovarian_cox_needs_the_full_precision():
    """R on survival::ovarian: 0.147327, -0.803973; an early stop gives 0.147320, -0.803878."""
    data = table("ovarian.csv")
    fit = survival.fit_cox(data["futime"], data["fustat"], data[["age", "rx"]])
    close(fit.coefficients, [0.147327, -0.803973], 1e-6)


def test_t20_proportional_odds_as_polr(reference):
    """MASS::housing; R MASS polr (Venables and Ripley)."""
    expected, tolerance = reference["T20"]
    data = table("housing.csv")
    columns = {
        "InflMedium": data["Infl"] == "Medium",
        "InflHigh": data["Infl"] == "High",
        "TypeApartment": data["Type"] == "Apartment",
        "TypeAtrium": data["Type"] == "Atrium",
        "TypeTerrace": data["Type"] == "Terrace",
        "ContHigh": data["Cont"] == "High",
    }
    x = np.column_stack([column.to_numpy(float) for column in columns.values()])
    y = data["Sat"].map({"Low": 0, "Medium": 1, "High": 2})
    fit = proportional_odds.fit_proportional_odds(x, y, data["Freq"])
    close(fit.coefficients, [expected[name] for name in columns], tolerance)
    close(fit.thresholds, expected["zeta"], tolerance)
    close(fit.standard_errors[0], expected["se_InflMedium"], tolerance)
    close(-2 * fit.log_likelihood, expected["deviance"], tolerance)


def test_t21_quantile_regression_with_the_standard_errors_of_quantreg(reference):
    """Engel's food data; R quantreg 5.94, se = "nid"."""
    expected, tolerance = reference["T21"]
    data = table("engel.csv")
    x = np.column_stack([np.ones(len(data)), data["income"]])
    for name, q in (("tau.25", 0.25), ("tau.5", 0.5), ("tau.75", 0.75), ("tau.9", 0.9)):
        close(quantile._fit_quantile(x, data["foodexp"], q).coefficients, expected[name], tolerance)
    median = quantile._fit_quantile(x, data["foodexp"], 0.5)
    close(np.sqrt(np.diag(median.covariance)), expected["se_nid_tau.5"], tolerance)
    # quantreg's interval by rank inversion has level 90 % unless asked otherwise.
    limits = rank_interval(x, data["foodexp"], median.coefficients, 1, 0.5, alpha=0.1)
    close(limits, expected["rank_ci_tau.5_income"], tolerance)


def fev():
    data = table("fev.csv").dropna(subset=["FEV1"])
    visit = data["AVISIT"].map({f"VIS{k + 1}": k for k in range(4)}).to_numpy()
    treated = (data["ARMCD"] == "TRT").to_numpy(float)
    columns = {
        "Intercept": np.ones(len(data)),
        "black": (data["RACE"] == "Black or African American").to_numpy(float),
        "white": (data["RACE"] == "White").to_numpy(float),
        "female": (data["SEX"] == "Female").to_numpy(float),
        **{f"VIS{k + 1}": (visit == k).astype(float) for k in (1, 2, 3)},
        **{f"TRT:VIS{k + 1}": treated * (visit == k) for k in range(4)},
    }
    return data, visit, columns


def test_t22_mmrm_as_sas_proc_mixed(reference):
    """openpharma/mmrm fev_data; SAS PROC MIXED, REML, unstructured, Satterthwaite.

    SAS prints df without decimals and stops its iterations 6e-6 above our minimum.
    """
    expected, tolerance = reference["T22"]
    data, visit, columns = fev()
    x, terms = np.column_stack(list(columns.values())), list(columns)
    model = mmrm._fit_mmrm(data["USUBJID"], visit, data["FEV1"], x, terms)
    close(model.fit.minus_two_log_likelihood, expected["m2RLL"], tolerance)
    for term, name in (("TRT:VIS4", "VIS4_TRT_PBO"), ("TRT:VIS3", "VIS3"), ("TRT:VIS1", "VIS1")):
        result = model.contrast([float(t == term) for t in terms])
        estimate, error, df, low, high = expected[name][:5]
        close([result.estimate, result.se], [estimate, error], tolerance)
        assert math.floor(result.df + 0.5) == df
        close([result.ci_low, result.ci_high], [low, high], tolerance)
    close(model.contrast(np.eye(11)[10]).p_value, 0.0099, 5e-5)
    # Estimated R of the SAS listing, visits 2, 1, 3, 4 there.
    sas = {(1, 1): 26.5692, (0, 0): 40.5509, (2, 2): 14.8970, (3, 3): 95.5528, (0, 1): 14.3982}
    for place, value in sas.items():
        assert model.visit_covariance[place] == pytest.approx(value, abs=5e-3)


@pytest.mark.parametrize("structure", ["ar1", "cs", "csh", "toep", "adh"])
def test_t22_structured_covariances_as_sas(reference, structure):
    """-2 restricted log likelihood of SAS PROC MIXED for each structure."""
    expected, tolerance = reference["T22"]
    data, visit, columns = fev()
    x = np.column_stack(list(columns.values()))
    model = mmrm._fit_mmrm(
        data["USUBJID"], visit, data["FEV1"], x, list(columns), covariance=structure
    )
    close(model.fit.minus_two_log_likelihood, expected[structure], tolerance)


def test_t23_linear_mixed_model_as_lme4(reference):
    """lme4::sleepstudy (Belenky 2003); R lme4 and lmerTest."""
    expected, tolerance = reference["T23"]
    data = table("sleepstudy.csv", dtype={"Subject": str})
    x = np.column_stack([np.ones(len(data)), data["Days"]])
    fit, random, residual = mmrm.fit_linear_mixed(data["Subject"], data["Reaction"], x, x)
    close(fit.coefficients, expected["fixef"], tolerance)
    results = [fit.satterthwaite(weights) for weights in np.eye(2)]
    close([r.se for r in results], expected["se"], tolerance)
    close([r.df for r in results], expected["df_satt"], tolerance)
    sd = [*np.sqrt(np.diag(random)), math.sqrt(residual)]
    close(sd, expected["sd"], tolerance)
    close(random[0, 1] / (sd[0] * sd[1]), expected["corr"], tolerance)
    close(-fit.minus_two_log_likelihood / 2, expected["REML"], tolerance)
    # Balanced data: Kenward-Roger changes nothing (pbkrtest gives SE 1.5458, df 17 as well).
    kr = fit.kenward_roger([0, 1])
    close([kr.se, kr.df], [expected["se"][1], 17.0], tolerance)
    by_ml, _, _ = mmrm.fit_linear_mixed(data["Subject"], data["Reaction"], x, x, ml=True)
    close(-by_ml.minus_two_log_likelihood / 2, expected["ML"], tolerance)


def test_t24_emax_and_mcp_mod_as_dosefinding(reference):
    """DoseFinding::biom (Bretz 2005); R DoseFinding 1.4-1. The contrast t have three decimals."""
    expected, tolerance = reference["T24"]
    data = table("biom.csv")
    fit = dose_response._fit_emax(data["dose"], data["resp"])
    close([fit.e0, fit.emax, fit.ed50], [expected[k] for k in ("e0", "eMax", "ed50")], tolerance)
    close(fit.standard_errors, expected["se"], tolerance)
    close(fit.rss, expected["RSS"], tolerance)
    doses = np.sort(data["dose"].unique())
    means = fit_linear((data["dose"].to_numpy()[:, None] == doses).astype(float), data["resp"])
    shapes = {
        "emax2": dose_response.standard_shape("emax", doses, ed50=0.2),
        "emax1": dose_response.standard_shape("emax", doses, ed50=0.05),
        "linear": doses,
        "linInt": np.array([0.0, 1, 1, 1, 1]),
    }
    result = dose_response._multiple_contrasts(
        means.coefficients, means.covariance, means.df, shapes
    )
    for test in result.tests:
        close(test.t, expected["mcpmod_t"][test.candidate], 6e-4)


def test_target_doses_as_dosefinding_prints_them():
    """DoseFinding ?MCPMod, biom, Delta = 0.5: linear 0.8951, emax 0.2886, emax selected by AIC."""
    data = table("biom.csv")
    ids = [f"p{k:03d}" for k in range(len(data))]
    rows = pd.DataFrame({"participant_id": ids, "value": data["resp"], "visit": "d"})
    rows = rows.assign(endpoint="v", source="pipeline", repeat=1, region="all", status="ok")
    people = pd.DataFrame({"participant_id": ids, "dose": data["dose"]})
    analysis = {"id": "a", "type": "dose_response", "endpoint": "v", "dose": "dose"}
    analysis |= {"models": ["mcpmod"], "target_effect": 0.5, "resamples": 100}
    analysis["candidates"] = ["linear", {"model": "emax", "ed50": 0.2}]
    found = run(analysis, Tables(rows, people, visit_order=("d",), baseline="d"))
    doses = found[found["statistic"] == "target_dose"].set_index("group")
    close(doses.loc["dose|linear", "estimate"], 0.8951, 5e-5)
    close(doses.loc["dose|emax", "estimate"], 0.2886, 5e-5)
    assert "selected by AIC" in doses.loc["dose|emax", "note"]
    assert doses.loc["dose|emax", "ci_low"] < 0.2886


def test_t25_generalised_odds_ratio_as_genodds(reference):
    """Alteplase mRS by time to treatment (Lees 2010, n = 3669); README of CRAN genodds."""
    expected, tolerance = reference["T25"]
    data = table("alteplase.csv")
    strata = {}
    for time, part in data.groupby("time"):
        treated = part["treat"] == "Alteplase"
        strata[time] = ordinal._generalised_odds_ratio(
            part.loc[treated, "mRS"], part.loc[~treated, "mRS"]
        )
    for time, result in strata.items():
        ours = [result.estimate, result.ci_low, result.ci_high, result.p_value]
        close(ours, expected[time], tolerance)
    treated = data["treat"] == "Alteplase"
    (pooled,) = ordinal._pooled_rows(data["mRS"], treated, data["time"], "mrs", 0.05)
    close(
        [pooled.estimate, pooled.ci_low, pooled.ci_high, pooled.p_value],
        expected["pooled"],
        tolerance,
    )
    q, df, p = re.search(r"Q ([0-9.]+), df ([0-9]+), p ([0-9.]+)", pooled.note).groups()
    close(float(q), expected["heterogeneity"][0], 5e-3)
    assert int(df) == expected["heterogeneity"][1]
    close(float(p), expected["heterogeneity"][2], tolerance)


BENJAMINI_HOCHBERG_1995 = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
    0.5719, 0.6528, 0.7590, 1.0000,
]  # fmt: skip


def test_t27_multiplicity(reference):
    """Benjamini and Hochberg, JRSS-B 1995;57:289, 15 p values of the thrombolysis example."""
    expected, tolerance = reference["T27"]
    for method, name in (
        ("bonferroni", "bonferroni"),
        ("holm", "holm"),
        ("hochberg", "hochberg"),
        ("benjamini_hochberg", "BH"),
    ):
        adjusted = multiplicity._adjust(BENJAMINI_HOCHBERG_1995, method)
        assert int(np.sum(adjusted <= 0.05)) == expected[name]
    close(multiplicity._adjust(BENJAMINI_HOCHBERG_1995, "holm")[3], expected["p_holm4"], tolerance)
    bh = multiplicity._adjust(BENJAMINI_HOCHBERG_1995, "benjamini_hochberg")
    close(bh[3], expected["p_bh4"], tolerance)


def test_t28_sample_size(reference):
    """Whitehead 1993 (187), Bonett 2002 (19.2), t test d = 0.5 with 90 % power."""
    expected, tolerance = reference["T28"]
    control = [0.2, 0.5, 0.2, 0.1]
    odds = math.exp(0.887)
    treated = sample_size._shifted_shares(control, odds)
    mean = [(a + b) / 2 for a, b in zip(control, treated, strict=True)]
    close(sample_size._ordinal_total(odds, mean), expected["Whitehead1993"], tolerance)
    close(sample_size._icc_precision(0.85, 4, 0.2), expected["Bonett2002_rho.85_k4_w.2"], tolerance)
    close(sample_size._two_arm_means(0.5, 1.0), expected["ttest_d.5_90pct_per_arm"], tolerance)


def superpc_data():
    x = table("superpc_x.csv.gz").to_numpy(float).T
    y = table("superpc_y.csv")
    return x, y["y"].to_numpy(float), y["c"].to_numpy(float)


def test_t29_supervised_components_scores_as_superpc(reference):
    """R superpc 1.12, recipe of its manual, seed 464: every score to 1e-10."""
    expected, tolerance = reference["T29"]
    x, time, event = superpc_data()
    scores = supervised_components._cox_scores(x, time, event)
    close(scores, table("superpc_scores.csv")["x"], 1e-10)
    close(scores[:6], expected["scores_1_6"], tolerance)
    close(np.quantile(np.abs(scores), [0.5, 0.9, 0.99]), expected["q50_90_99_abs"], tolerance)


def test_t29_components_as_superpc_predict():
    """superpc.predict with threshold 0.7 and three components, turned by the Cox coefficients.

    superpc divides each component by its singular value and by sum |u| / d; ours by d alone.
    """
    x, time, event = superpc_data()
    model = supervised_components.train(x, time, event, 0.7, 3)
    scale = np.abs(model.loadings).sum(axis=0) / model.singular_values
    ours = model.components(x) / scale
    theirs = table("superpc_vpred.csv", index_col=0).to_numpy(float)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_published_correlation_intervals_with_their_verdicts():
    """Requirements R1 to R6: six Fisher intervals of the source, three only within rounding of r."""
    rows = json.loads((data_folder("statistics") / "published_endpoints.json").read_text())
    rows = [row for row in rows if row["kind"] == "pearson_fisher_ci"]
    assert len(rows) == 6
    for row in rows:
        low, high = correlation.fisher_interval(row["inputs"]["r"], row["inputs"]["n"])
        close(
            [low, high], [row["reported"]["lo"], row["reported"]["hi"]], row["tolerance"]["ci_abs"]
        )
        rounded = round(low, 2) == row["reported"]["lo"] and round(high, 2) == row["reported"]["hi"]
        assert rounded == (row["seed_check"] == "match"), row["id"]
