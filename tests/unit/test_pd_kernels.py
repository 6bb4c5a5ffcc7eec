"""Numbers of the kernels: published, computed by hand or exact by construction."""

import math

import numpy as np
import pandas as pd
import pytest

from corelab.measurement.selection import Tables
from corelab.pharmacodynamics import scales
from corelab.pharmacodynamics.analysis_figures import _told_apart
from corelab.pharmacodynamics.analysis_set import adjusted_words, complete_cases, with_labels
from corelab.pharmacodynamics.comparison import _mann_whitney
from corelab.pharmacodynamics.correlation import (
    _corrected_for_attenuation,
    _difference_dependent,
    _difference_independent,
    _kendall,
    _on_scale,
    _pearson,
    _repeated,
    _spearman_variance,
    resampled,
)
from corelab.pharmacodynamics.diagnostic import _accuracy, _mcnemar, _roc_area, _roc_difference
from corelab.pharmacodynamics.dose_response import (
    _candidate_models,
    _CandidateModel,
    _fit_emax,
    _jonckheere,
    _multiple_contrasts,
    _profile_limits,
)
from corelab.pharmacodynamics.estimates import exponentiated, t_estimate
from corelab.pharmacodynamics.exclusion_sensitivity import _side_by_side
from corelab.pharmacodynamics.figures import _number
from corelab.pharmacodynamics.interval_censored import _check_intervals, turnbull
from corelab.pharmacodynamics.linear import level_of, second_ols
from corelab.pharmacodynamics.mediation import _limits_and_p, _mediation_paths, _unit_effects
from corelab.pharmacodynamics.missing_visits import (
    _draw_normal,
    _impute_normal,
    _reference_based,
    _rubin,
)
from corelab.pharmacodynamics.mmrm import _fit_mmrm
from corelab.pharmacodynamics.modelling import _fit_model, _williams_tail, saturation
from corelab.pharmacodynamics.multiplicity import _adjust, _graph_adjust, _hypotheses, _widened
from corelab.pharmacodynamics.ordinal import (
    _generalised_odds_ratio,
    _hierarchical_scores,
    _win_statistics,
)
from corelab.pharmacodynamics.partial_odds import _fit_partial_odds
from corelab.pharmacodynamics.progression import _paired_log_rank, _squared_correlation
from corelab.pharmacodynamics.proportional_odds import (
    category_scores,
    fit_proportional_odds,
    logistic,
    minimum,
)
from corelab.pharmacodynamics.proportions import _fisher_p, _two_shares_p, two_counts
from corelab.pharmacodynamics.quantile import (
    _check_loss,
    _cluster_bootstrap,
    _fit_quantile,
    _hall_sheather_bandwidth,
    _quantile_coefficients,
    _slopes,
)
from corelab.pharmacodynamics.rank_inversion import rank_interval
from corelab.pharmacodynamics.repeated_grades import _fit_binary_gee, _fit_grades
from corelab.pharmacodynamics.sample_size import (
    _icc_exceeding,
    _icc_precision,
    _kappa_precision,
    _limits_precision,
    _mmrm_per_arm,
    _ordinal_total,
    _per_arm_with_error,
    _power_two_arms,
    _shifted_shares,
    _two_arm_means,
)
from corelab.pharmacodynamics.skewed import (
    _fit_gamma,
    _fit_logistic,
    _fit_two_part,
    _joint_test,
    _rank_ancova,
)
from corelab.pharmacodynamics.stratified import _common_risk_difference
from corelab.pharmacodynamics.supervised_components import (
    _cox_scores,
    _folds,
    _threshold_grid,
    scaled,
)
from corelab.pharmacodynamics.survival import _restricted_cubic_spline, restricted_mean_difference
from corelab.pharmacodynamics.survival_rows import strata_words
from corelab.pharmacodynamics.two_samples import student_t, two_samples, welch_t
from corelab.settings.analyses.base import AnalysisSpec, OneValue
from corelab.settings.analyses.comparison import ComparisonSpec
from corelab.settings.analyses.correlation import CorrelationSpec
from corelab.settings.analyses.dose_response import DoseResponseSpec
from corelab.terms.results import Estimate


def test_comparison_mann_whitney():
    # Hollander and Wolfe (1973), p. 69, permeability constants; R gives p = 0.2544 and a shift of
    # 0.305 (-0.15 to 0.76).
    x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    result = _mann_whitney(x, [1.15, 0.88, 0.90, 0.74, 1.21]).shift
    assert [
        round(v, 4) for v in (result.p_value, result.estimate, result.ci_low, result.ci_high)
    ] == [0.2544, 0.305, -0.15, 0.76]


def test_correlation_pearson():
    assert _pearson([1, 2, 3, 4], [1, 3, 2, 4]).estimate == 0.8


def test_correlation_spearman_variance():
    assert round(_spearman_variance(0.8, 60), 5) == 0.02316


def test_correlation_kendall():
    assert round(_kendall([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]).estimate, 3) == 0.6


def test_correlation_repeated():
    result = _repeated([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3], [5, 6, 7, 1, 2, 4])
    assert (round(result.estimate, 4), result.df) == (0.9682, 3)


def test_correlation_corrected_for_attenuation():
    r = Estimate(0.4, 0.2, 0.6, 0.01, 40, "Pearson")
    assert round(_corrected_for_attenuation(r, 0.64).estimate, 3) == 0.5
    wide = _corrected_for_attenuation(r, 0.64, icc_x_limits=(0.5, 0.75))
    assert wide.ci_low < 0.25 and wide.ci_high > 0.75


def test_correlation_difference_independent():
    d = _difference_independent(0.49, 145, 0.36, 87)
    assert (round(d.ci_low, 3), round(d.ci_high, 3)) == (-0.087, 0.359)


def test_correlation_difference_dependent():
    d = _difference_dependent(0.63, -0.03, -0.19, 15)
    assert d.p_value < 0.1


def test_correlation_on_scale():
    rows = pd.DataFrame({"endpoint": ["v"], "value": [8.0], "status": ["ok"]})
    plan = CorrelationSpec(id="a", type="correlation", endpoint="v", outcome="y", scale="cube_root")
    tables = _on_scale(plan, Tables(rows, pd.DataFrame()))
    assert float(tables.measurements["value"].iloc[0]) == 2.0


def test_diagnostic_roc_area():
    found = _roc_area([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1])
    assert (round(found.estimate, 4), round(found.ci_low, 4), found.ci_high) == (
        0.8889,
        0.5809,
        1.0,
    )


def test_diagnostic_roc_difference():
    truth = [0, 0, 1, 0, 1, 1]
    assert (
        round(_roc_difference([1, 2, 3, 4, 5, 6], [6, 2, 3, 4, 5, 1], truth).estimate, 4) == 0.5556
    )


def test_diagnostic_accuracy():
    found = _accuracy([1, 1, 0, 0, 1], [1, 1, 1, 0, 0])["sensitivity"]
    assert (found.note, found.n) == ("2/3", 3)


def test_diagnostic_mcnemar():
    assert _mcnemar([1, 1, 1, 1, 0], [0, 0, 0, 0, 0]) == (4, 0, 0.125)


def test_dose_response_fit_emax():
    dose = np.repeat([0.0, 1, 2, 4, 8], 2)
    fit = _fit_emax(dose, 1 + 10 * dose / (2 + dose) + np.tile([0.1, -0.1], 5))
    assert (round(fit.e0, 3), round(fit.emax, 3), round(fit.ed50, 3)) == (1.0, 10.0, 2.0)


def test_dose_response_profile_limits():
    dose = np.repeat([0.0, 1, 2, 4, 8], 2)
    y = 1 + 10 * dose / (2 + dose) + np.tile([0.1, -0.1], 5)
    low, high = _profile_limits(dose, y, _fit_emax(dose, y), "ed50")
    assert 1.7 < low < 2 < high < 2.4
    dose = np.repeat([0.0, 1, 2, 4, 8, 16], 2)
    y = 1 + 10 * dose**2 / (9 + dose**2) + np.tile([0.1, -0.1], 6)
    low, high = _profile_limits(dose, y, _fit_emax(dose, y, sigmoid=True), "ed50")
    assert 2.5 < low < 3 < high < 3.5


def test_dose_response_jonckheere():
    # Hollander and Wolfe (1999), table 6.6 (motivation of workers): J = 79 of 108 pairs, null
    # variance 150.29 with ties (153 without, which is the z of 2.02 found in print).
    none = [40, 35, 38, 43, 44, 41]
    rough, exact = [38, 40, 47, 44, 40, 42], [48, 40, 45, 43, 46, 44]
    z, _, share = _jonckheere(np.repeat([0, 1, 2], 6), none + rough + exact)
    assert (round(share * 108), round(z, 2)) == (79, 2.04)


def test_dose_response_multiple_contrasts():
    result = _multiple_contrasts([0.0, 1.0, 2.0], np.eye(3) / 10, 27, {"linear": [0.0, 1.0, 2.0]})
    assert (round(result.tests[0].t, 3), round(result.critical_value, 3)) == (4.472, 2.052)


def test_dose_response_candidate_models():
    plan = DoseResponseSpec(
        id="a",
        type="dose_response",
        endpoint="v",
        dose="dose",
        models="mcpmod",
        candidates=["linear", {"model": "emax", "ed50": 3}],
    )
    assert _candidate_models(plan, 10.0)["emax"] == _CandidateModel(
        model="emax", guesses={"ed50": 3.0}
    )
    early = {"early": {"model": "emax", "ed50": 1}}
    assert _candidate_models(plan.changed(candidates=early), 10.0) == {
        "early": _CandidateModel(model="emax", guesses={"ed50": 1.0})
    }


def test_exclusion_sensitivity_side_by_side():
    row = {
        "analysis_id": "a",
        "endpoint": "e",
        "visit": "v",
        "participant_id": "all",
        "group": "g",
        "statistic": "slope",
        "method": "m",
        "estimate": 1.0,
        "ci_low": -0.1,
        "ci_high": 2.1,
        "n": 9.0,
    }
    other = {**row, "estimate": 1.2, "ci_low": 0.1, "n": 10.0}
    assert _side_by_side(pd.DataFrame([row]), pd.DataFrame([other]))["verdict"].tolist() == [
        "crossed"
    ]


def test_figures_number():
    assert (_number(-0.12345), _number(float("nan")), _number(1234.5)) == ("−0.123", "n/a", "1230")


def test_interval_censored_check_intervals():
    with pytest.raises(Exception, match="an interval from 5 to 4 ends before it s"):
        _check_intervals([5], [4])


def test_mediation_mediation_paths():
    t = np.tile([0.0, 1.0], 6)
    m = 2 * t + np.arange(12) % 5
    y = 3 * m + t + np.array([0.1, -0.1, 0, 0.2, -0.2, 0, 0.1, 0, -0.1, 0.2, 0, -0.2])
    paths = _mediation_paths(t, m, y)
    assert bool(abs(paths.total.estimate - paths.direct.estimate - paths.indirect) < 1e-9)


def test_mediation_limits_and_p():
    values = np.arange(20.0) - 4
    low, high, p = _limits_and_p(lambda rows: values[rows].mean(), 20, resamples=500)
    assert (bool(low < values.mean() < high), p < 0.05) == (True, True)


def test_mediation_unit_effects():
    t = np.tile([0.0, 0, 0, 1, 1, 1], 3)
    u = np.repeat(["a", "b", "c"], 6)
    s = t * np.repeat([1.0, 2, 3], 6)
    assert round(_unit_effects(t, s, 2 * s + 1, u).r_squared, 6) == 1.0


def test_missing_visits_impute_normal():
    y = np.array([[1.0, 1.1], [2, 2.1], [3, 2.9], [4, 4.2], [5, np.nan], [6, 6.1]])
    drawn = _impute_normal(y, 40)
    assert (
        drawn.shape,
        bool(abs(drawn[:, 4, 1].mean() - 5) < 0.4),
        bool((drawn[:, 0] == y[0]).all()),
    ) == ((40, 6, 2), True, True)


def test_missing_visits_draw_normal():
    y = np.array([[1.0, 1.1], [2, 2.1], [3, 2.9], [4, 4.2], [5, np.nan], [6, 6.1]])
    found = _draw_normal(y, 3)
    assert (found.completed.shape, found.means.shape, found.covariances.shape) == (
        (3, 6, 2),
        (3, 2),
        (3, 2, 2),
    )


def test_missing_visits_reference_based():
    rng = np.random.default_rng(0)
    arm = np.repeat([0.0, 1.0], 40)
    y = np.column_stack([arm, rng.normal(size=80), rng.normal(size=80) + 9 * arm])
    y[40:60, 2] = np.nan
    drawn = _draw_normal(y, 20)
    new = _reference_based(drawn, [2], [1], [0], np.isnan(y[:, 2:]), "j2r", seed=1)
    assert (
        bool(drawn.completed[:, 40:60, 2].mean() > 8),
        bool(abs(new[:, 40:60, 2].mean()) < 1),
    ) == (True, True)


def test_missing_visits_rubin():
    # Within 1, between 1 (of five): total 1 + 1.2, old df 4 (1 + 1 / 1.2)^2 = 13.44.
    pooled, _ = _rubin([1, 2, 3, 2, 2 + 2**0.5 - 2**0.5], [1.0] * 5)
    assert (round(pooled.estimate, 6), round(pooled.se**2, 6)) == (2.0, 1.6)


def test_mmrm_fit_mmrm():
    # Complete pairs: the difference between visits is the paired t test's.
    y = np.array([1.0, 2.0, 2.5, 4.0, 3.0, 3.5, 6.0, 8.0])
    visit = np.tile([0, 1], 4)
    x = np.column_stack([np.ones(8), visit])
    model = _fit_mmrm(np.repeat([1, 2, 3, 4], 2), visit, y, x, ["Intercept", "visit"])
    result = model.contrast([0, 1])
    assert (round(result.estimate, 4), round(result.se, 4), round(result.df, 2)) == (
        1.25,
        0.3227,
        3.0,
    )


def test_modelling_fit_model():
    dose = np.repeat([0.0, 1, 2, 4, 8], 2)
    fit = _fit_model("emax", dose, 1 + 10 * dose / (2 + dose) + np.tile([0.1, -0.1], 5))
    assert (round(fit.parameters["ed50"], 3), round(fit.target_dose(5.0, 0.0, 8.0), 3)) == (
        2.0,
        2.0,
    )


def test_modelling_williams_tail():
    # Williams (1971), one-sided 5 % points of 3 doses, known variance: 1.739.
    assert round(_williams_tail(1.739, [1, 1, 1, 1], 0), 3) == 0.05


def test_multiplicity_adjust():
    assert [round(p, 3) for p in _adjust([0.01, 0.04, 0.03], "holm").tolist()] == [0.03, 0.06, 0.06]
    assert _adjust([0.01, 0.20, 0.03], "fixed_sequence").tolist() == [0.01, 0.2, 0.2]


def test_multiplicity_graph_adjust():
    # The successive graph of graphicalMCP's vignette "shortcut-testing": H1, H2 and H4 are rejected
    # at 0.025.
    assert _graph_adjust(
        [0.018, 0.01, 0.105, 0.006],
        [0.5, 0.5, 0, 0],
        [[0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5], [0, 1, 0, 0], [1, 0, 0, 0]],
    ).round(3).tolist() == [0.024, 0.02, 0.105, 0.024]
    # Equal weights that pass to all others are Holm's procedure.
    g = (np.ones((3, 3)) - np.eye(3)) / 2
    assert _graph_adjust([0.01, 0.04, 0.03], [1 / 3] * 3, g).round(3).tolist() == [0.03, 0.06, 0.06]


def test_multiplicity_widened():
    row = {
        "estimate": 2.0,
        "ci_low": 0.04,
        "ci_high": 3.96,
        "ci_level": 0.95,
        "p_value": 0.0455,
        "method": "Wald interval",
        "note": "",
        "statistic": "slope",
    }
    assert [round(v, 2) for v in _widened(row, 2)] == [-0.24, 4.24]


def test_multiplicity_hypotheses():
    frame = pd.DataFrame(
        {
            "analysis_id": "a",
            "statistic": "mean_difference",
            "visit": ["w1", "w2", "w1", "w2"],
            "p_value": 0.01,
            "group": ["arm=x|arm=p", "arm=x|arm=p", "arm=y|arm=p", "arm=y|arm=p"],
        }
    )
    plan = AnalysisSpec(id="a", type="")
    assert _hypotheses(frame, plan) == [1, 3]
    assert _hypotheses(frame, plan.changed(primary_contrast="y", primary_visit="w1")) == [2]


def test_ordinal_generalised_odds_ratio():
    assert round(_generalised_odds_ratio([2, 3, 4], [1, 2, 3]).estimate, 3) == 3.5


def test_ordinal_win_statistics():
    result = _win_statistics([[1, 1, 0], [1, -1, 1], [0, 1, 1]])
    assert (result.wins, result.losses, result.ties, result.win_ratio.estimate) == (6, 1, 2, 6.0)


def test_ordinal_hierarchical_scores():
    assert _hierarchical_scores([[0, 5.0]], [[0, 7.0], [1, 1.0]], ["low", "low"]).tolist() == [
        [1, 1]
    ]


def test_partial_odds_fit_partial_odds():
    # One binary term and nothing else: the odds ratio of each dichotomy.
    w, y = [[0], [0], [0], [0], [1], [1], [1], [1]], [0, 1, 2, 0, 1, 2, 2, 0]
    assert np.exp(_fit_partial_odds(w, np.empty((8, 0)), y).by_cut).round(3).ravel().tolist() == [
        3.0,
        3.0,
    ]


def test_progression_squared_correlation():
    assert round(_squared_correlation(np.array([1.0, 2, 3]), np.array([1.0, 2, 4])), 4) == 0.9643


def test_progression_paired_log_rank():
    t = np.arange(1.0, 21.0)
    log, error, _, p = _paired_log_rank(t, np.ones(20), t + 0.5, np.ones(20))
    assert log > 0 and error < 0.1 and p < 0.05


def test_proportions_fisher_p():
    assert round(_fisher_p(56, 70, 48, 80), 4) == 0.0125


def test_proportions_two_shares_p():
    p, name = _two_shares_p(56, 70, 48, 80)
    assert (round(p, 5), name) == (0.00826, "'N - 1' chi-squared")
    assert _two_shares_p(3, 3, 0, 3)[1] == "'N - 1' chi-squared"
    assert _two_shares_p(1, 40, 0, 40)[1] == "Fisher exact"


def test_quantile_check_loss():
    assert _check_loss(np.array([-1.0, 2.0]), 0.25) == 1.25


def test_quantile_quantile_coefficients():
    assert _quantile_coefficients([[1.0], [1.0], [1.0]], [1.0, 5.0, 9.0], 0.5).tolist() == [5.0]


def test_quantile_hall_sheather_bandwidth():
    assert round(_hall_sheather_bandwidth(0.5, 235), 4) == 0.1574


def test_quantile_fit_quantile():
    x = np.column_stack([np.ones(40), np.arange(40.0)])
    y = x[:, 1] * 2 + np.tile([-3.0, -1.0, 1.0, 3.0], 10) * (1 + x[:, 1] / 40)
    fit = _fit_quantile(x, y, 0.5)
    assert (round(float(fit.coefficients[1]), 2), fit.df) == (2.08, 38)


def test_quantile_cluster_bootstrap():
    x = np.column_stack([np.ones(12), np.arange(12.0)])
    assert _cluster_bootstrap(x, np.arange(12.0) ** 1.1, 0.5, resamples=5).shape == (5, 2)


def test_quantile_slopes():
    x = np.column_stack([np.ones(40), np.arange(40.0)])
    y = x[:, 1] * 2 + np.tile([-3.0, -1.0, 1.0, 3.0], 10) * (1 + x[:, 1] / 40)
    _, (_, slope), _ = _slopes(x, y, 0.5)
    assert slope.ci_low < 2 < slope.ci_high


def test_repeated_grades_fit_binary_gee():
    x = np.column_stack([np.ones(12), np.tile([0, 1], 6)])
    y = [0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1]
    fit = _fit_binary_gee(np.repeat(range(6), 2), y, x)
    assert (fit.coefficients.round(3).tolist(), fit.clusters) == ([-0.693, 1.386], 6)


def test_repeated_grades_fit_grades():
    # Each participant once: the robust covariance of one value each.
    x = np.array([[0], [0], [0], [1], [1], [1.0]])
    fit = _fit_grades(range(6), [0, 1, 2, 1, 2, 2], x)
    assert fit.coefficients.round(3).tolist() == [1.724]


def test_sample_size_two_arm_means():
    assert round(_two_arm_means(0.5, 1.0), 4) == 85.0313


def test_sample_size_ordinal_total():
    # Whitehead (Stat Med 1993;12:2257): control 0.2, 0.5, 0.2, 0.1, log odds ratio 0.887: 187.

    control = [0.2, 0.5, 0.2, 0.1]
    treated = _shifted_shares(control, math.exp(0.887))
    mean = [(c + t) / 2 for c, t in zip(control, treated, strict=True)]
    assert round(_ordinal_total(math.exp(0.887), mean), 2) == 186.99


def test_sample_size_shifted_shares():
    assert [round(v, 3) for v in _shifted_shares([0.5, 0.5], 3.0)] == [0.75, 0.25]


def test_sample_size_icc_precision():
    assert round(_icc_precision(0.85, 4, 0.2), 3) == 19.154


def test_sample_size_per_arm_with_error():
    # How many a rise of the ICC from 0.7 to 0.9 saves:
    assert (round(_per_arm_with_error(5, 10, 0.7)), round(_per_arm_with_error(5, 10, 0.9))) == (
        121,
        94,
    )


def test_sample_size_power_two_arms():
    assert round(_power_two_arms(0.5, 1.0, 85.0313), 4) == 0.9


def test_sample_size_icc_exceeding():
    # Walter et al. (Stat Med 1998;17:101), table II: 0.8 against 0.6, two raters, power 0.8: 39.
    assert round(_icc_exceeding(0.8, 0.6, 2, power=0.8), 1) == 38.6


def test_sample_size_kappa_precision():
    assert round(_kappa_precision(0.6, [0.5, 0.5], 0.2), 1) == 245.9


def test_sample_size_limits_precision():
    # Bland's web page: 100 pairs give a limit to within 0.34 SD (1.96 sqrt(3 / n) SD).
    assert round(_limits_precision(1.0, 0.68)) == 100


def test_sample_size_mmrm_per_arm():
    # One visit without loss is the two-sample z test (2 (1.96 + 1.28)^2 / 0.25); a second visit helps
    # only where people are lost:
    assert (
        round(_mmrm_per_arm(0.5, 1.0, 0.5, [1.0]), 1),
        round(_mmrm_per_arm(0.5, 1, 0.5, [1, 0.8]), 1),
    ) == (84.1, 99.8)


def test_skewed_fit_gamma():
    # Two groups: the coefficients are the logarithms of the means.
    fit = _fit_gamma([[1, 0], [1, 0], [1, 1], [1, 1]], [2.0, 4.0, 8.0, 16.0])
    assert np.exp(fit.coefficients).round(6).tolist() == [3.0, 4.0]


def test_skewed_fit_logistic():
    x = [[1, 0]] * 4 + [[1, 1]] * 4
    fit = _fit_logistic(x, [1, 0, 0, 0, 1, 1, 1, 0])
    assert round(float(np.exp(fit.coefficients[1])), 6) == 9.0


def test_skewed_fit_two_part():
    x = np.column_stack([np.ones(12), np.repeat([0.0, 1.0], 6)])
    y = np.array([0, 0, 2, 4, 3, 3, 0, 0, 0, 0, 1, 2.0])
    fit = _fit_two_part(x, y, 1, resamples=50)
    assert (round(fit.ratio.estimate, 6), round(math.exp(fit.size.estimate), 6)) == (0.25, 0.5)


def test_skewed_joint_test():
    chi2, p = _joint_test(t_estimate(1.0, 0.5, 40), t_estimate(0.6, 0.3, 20))
    assert (round(chi2, 6), round(p, 4)) == (8.0, 0.0183)


def test_skewed_rank_ancova():
    result = _rank_ancova([1, 2, 3, 9, 4, 5], [0, 0, 0, 1, 1, 1])
    assert round(result.estimate, 6) == 0.5


def test_stratified_common_risk_difference():
    # Newcombe (Stat Med 1998;17:873), example (a), method 6: 0.0528 to 0.3382.
    d = _common_risk_difference([56], [70], [48], [80])
    assert [round(v, 4) for v in (d.estimate, d.ci_low, d.ci_high, d.p_value)] == [
        0.2,
        0.0528,
        0.3382,
        0.0083,
    ]


def test_supervised_components_cox_scores():
    x = np.array([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    assert _cox_scores(x, np.array([1.0, 2, 3, 4]), np.ones(4)).round(3).tolist() == [1.139, -0.332]


def test_supervised_components_folds():
    assert np.bincount(_folds(np.array([1, 1, 1, 1, 0, 0]), 2, 1)).tolist() == [3, 3]


def test_supervised_components_threshold_grid():
    assert _threshold_grid(np.arange(100.0), 3).round(2).tolist() == [49.5, 71.28, 93.06]


def test_survival_restricted_cubic_spline():
    assert _restricted_cubic_spline([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]).round(3).tolist() == [
        [0.0, 0.0],
        [1.0, 0.25],
        [2.0, 1.5],
    ]


def test_analysis_figures_told_apart():
    assert _told_apart(["a", "b", "a"], ["ANCOVA by least squares", "x", "Welch; descriptive"]) == [
        "a (ANCOVA)",
        "b",
        "a (Welch)",
    ]


def test_analysis_set_complete_cases():
    people = pd.DataFrame({"participant_id": ["1", "2", "3"]})
    frame = pd.DataFrame({"value": [1.0, np.nan]}, index=["1", "2"])
    plan = AnalysisSpec(id="a", type="")
    assert (
        complete_cases(frame, ["value"], plan, Tables(pd.DataFrame(), people))[1]
        == "complete cases: 1 of 3 participants"
    )


def test_analysis_set_with_labels():

    plan = ComparisonSpec(id="a", type="comparison", endpoint="v", by="arm")
    assert with_labels(plan, "arm", None).categorical == ["arm"]


def test_analysis_set_adjusted_words():
    assert (adjusted_words(["age"]), adjusted_words([])) == ("; covariates age", "")


def test_correlation_resampled():
    assert resampled(lambda rows: float(rows.size), 4, resamples=2).tolist() == [4.0, 4.0]


def test_estimates_exponentiated():
    assert exponentiated(Estimate(0.0, -1.0, 1.0)).estimate == 1.0


def test_interval_censored_turnbull_survival():
    assert turnbull([0, 2], [2, 4]).survival([0, 2, 3, 4]).tolist() == [1.0, 0.5, 0.5, 0.0]


def test_linear_second_ols():
    assert second_ols([[1, 0], [1, 1], [1, 2], [1, 3]], [1.0, 3.0, 4.0, 8.0]).round(3).tolist() == [
        0.7,
        2.2,
    ]


def test_linear_level_of():
    assert (level_of([[1, 5], [1, 6]], [2.0, 4.0]), level_of([[0, 1], [1, 0]], [2.0, 4.0])) == (
        3.0,
        0.0,
    )


def test_modelling_saturation():
    assert saturation(np.array([0.0, 1.0, 3.0]), ed50=1.0, hill=1.0).tolist() == [0.0, 0.5, 0.75]


def test_proportional_odds_minimum():
    def square(v):
        return float(v @ v), 2 * v, 2 * np.eye(1)

    assert minimum(square, np.array([3.0]), (1e-12, 1e-6))[0].tolist() == [0.0]


def test_proportional_odds_category_scores():
    x, y = [[0], [0], [0], [1], [1], [1]], [0, 1, 2, 1, 2, 2]
    assert bool(np.abs(category_scores(fit_proportional_odds(x, y), x, y).sum(axis=0)).max() < 1e-6)


def test_proportional_odds_logistic():
    assert logistic(np.array([0.0, 1e9])).tolist() == [0.5, 1.0]


def test_proportions_two_counts():
    assert two_counts(56, 70, 48, 80) == "56/70 against 48/80; Fisher exact p 0.0125"


def test_rank_inversion_rank_interval():

    x = np.column_stack([np.ones(30), np.arange(30.0)])
    y = 2 * x[:, 1] + 9 * np.sin(5 * x[:, 1])
    low, high = rank_interval(x, y, _quantile_coefficients(x, y, 0.5), 1, 0.5)
    assert low < 2 < high


def test_scales_scaled():
    frame = pd.DataFrame({"value": [8.0, 27.0]})

    plan = ComparisonSpec(id="a", type="comparison", endpoint="v", by="arm", scale="cube_root")
    assert scales.scaled(plan, frame)["value"].round(6).tolist() == [2.0, 3.0]


def test_scales_covariate_words():

    plan = OneValue(id="a", type="", endpoint="v", derivation="log_ratio")
    assert scales.covariate_words(plan, ["baseline", "age"]) == ["log baseline", "age"]


def test_supervised_components_scaled():
    assert scaled(np.array([[1.0, 3.0, 5.0]]), np.array([True, True, False])).tolist() == [
        [-1.0, 1.0, 3.0]
    ]


def test_survival_restricted_mean_difference():
    found = restricted_mean_difference(Estimate(2.5, se=0.3), Estimate(2.0, se=0.4))
    assert (found.estimate, round(found.se, 6), round(found.p_value, 4)) == (0.5, 0.5, 0.3173)


def test_survival_rows_strata_words():
    assert (strata_words(None), strata_words(np.array(["a", "b"]))) == (
        ("", ""),
        ("stratified ", ", 2 strata"),
    )


def test_two_samples_two_samples():
    assert [sample.tolist() for sample in two_samples([1, 2], [3, 4, 5])] == [
        [1.0, 2.0],
        [3.0, 4.0, 5.0],
    ]


def test_two_samples_student_t():
    assert student_t([3, 4, 5], [1, 2, 3]).estimate == 2.0


def test_two_samples_welch_t():
    assert round(welch_t([3, 4, 5, 9], [1, 2, 3]).df, 2) == 4.04
