"""Every statistic that a row of ``statistics/*.tsv`` can hold.

To add a statistic: one entry of :data:`STATISTICS`. A name that is not registered is refused by
:func:`corelab.measurement.selection.statistics_frame`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from corelab.terms.plugins import registry

#: Suffixes of statistics that are made of another: `icc_a_1_exceeds`, `dice_median`.
SUFFIXES = ("_median", "_exceeds", "_complete_cases", "_difference", "_drift", "_bootstrap")
#: Beginning of the verdict of a phantom's limit: `conformance:bias`.
CONFORMANCE = "conformance:"

_PROPER = {"Deming", "Dice,", "Emax", "Hausdorff", "Jaccard,", "Kendall", "Pearson", "Spearman"}


@dataclass(frozen=True)
class Statistic:
    """One statistic.

    Attributes
    ----------
    name, label
        In tables, and in print; without a label the name with spaces.
    scale
        ``reliability`` (coefficient between sources, at most 1), ``coefficient``, ``ratio`` (drawn
        on a logarithmic axis around 1), ``endpoint`` (unit of the endpoint), ``percent``, ``mm``,
        ``mL``; empty: another.
    null
        Value of no effect about which the two-sided p value is symmetric: only such a p can be
        turned one-sided.
    conclusion
        Rank among the statistics whose p value is the conclusion of an analysis, which states one
        hypothesis; 0: none.
    forest
        Statistics of the same word share a forest plot.
    family
        Statistics of the same word are printed for one another in publications.
    signed
        Its sign changes when the two groups are exchanged.
    """

    name: str
    label: str = ""
    scale: str = ""
    null: float | None = None
    conclusion: int = 0
    forest: str = ""
    family: str = ""
    signed: bool = False

    @property
    def words(self) -> str:
        """How it is printed."""
        return self.label or self.name.replace("_", " ").capitalize()

    @property
    def inline(self) -> str:
        """How it is printed within a sentence."""
        first = self.words.partition(" ")[0]
        proper = first in _PROPER or "'" in first or first[1:] != first[1:].lower()
        return self.words if proper else self.words[:1].lower() + self.words[1:]

    @property
    def ratio(self) -> bool:
        """Whether its value of no effect is 1, on a logarithmic axis."""
        return self.scale == "ratio"

    @property
    def no_effect(self) -> float:
        """Value of no effect; 0 where none is registered."""
        return 1.0 if self.ratio else self.null or 0.0


# fmt: off
_TABLE = (
    Statistic("icc_1_1", "ICC(1,1)", scale="reliability", family="icc"),
    Statistic("icc_a_1", "ICC(A,1)", scale="reliability", conclusion=36, family="icc"),
    Statistic("icc_c_1", "ICC(C,1)", scale="reliability", family="icc"),
    Statistic("icc_1_k", "ICC(1,k)", scale="reliability", family="icc"),
    Statistic("icc_a_k", "ICC(A,k)", scale="reliability", family="icc"),
    Statistic("icc_c_k", "ICC(C,k)", scale="reliability", family="icc"),
    Statistic("kappa", "Cohen's κ", scale="reliability", conclusion=38, family="graded"),
    Statistic("kappa_linear", "κ, linear weights", scale="reliability", family="graded"),
    Statistic("kappa_quadratic", "κ, quadratic weights", scale="reliability", conclusion=37,
              family="graded"),
    Statistic("kappa_fleiss", "Fleiss' κ", scale="reliability", family="graded"),
    Statistic("kappa_fleiss_linear", "Fleiss' κ, linear weights", scale="reliability"),
    Statistic("kappa_fleiss_quadratic", "Fleiss' κ, quadratic weights", scale="reliability"),
    Statistic("kappa_conger", "Conger's κ", scale="reliability"),
    Statistic("kappa_conger_linear", "Conger's κ, linear weights", scale="reliability"),
    Statistic("kappa_conger_quadratic", "Conger's κ, quadratic weights", scale="reliability"),
    Statistic("kappa_brennan_prediger", "Brennan-Prediger coefficient", scale="reliability"),
    Statistic("kappa_brennan_prediger_linear", "Brennan-Prediger coefficient, linear weights",
              scale="reliability"),
    Statistic("kappa_brennan_prediger_quadratic",
              "Brennan-Prediger coefficient, quadratic weights", scale="reliability"),
    Statistic("alpha_krippendorff", "Krippendorff's α", scale="reliability", family="graded"),
    Statistic("ccc", "Concordance correlation (Lin)", scale="reliability", family="icc"),
    Statistic("bias", "Bias (mean difference)", scale="endpoint", conclusion=39, signed=True),
    Statistic("loa_lower", "Lower limit of agreement", scale="endpoint"),
    Statistic("loa_upper", "Upper limit of agreement", scale="endpoint"),
    Statistic("within_sd", "Within-subject SD", scale="endpoint"),
    Statistic("within_cv_percent", "Within-subject CV, %", scale="percent"),
    Statistic("repeatability_coefficient", "Repeatability coefficient", scale="endpoint"),
    Statistic("repeatability_coefficient_percent", "Repeatability coefficient, %", scale="percent"),
    Statistic("reproducibility_sd", "Reproducibility SD", scale="endpoint"),
    Statistic("reproducibility_cv_percent", "Reproducibility CV, %", scale="percent"),
    Statistic("reproducibility_coefficient", "Reproducibility coefficient", scale="endpoint"),
    Statistic("reproducibility_coefficient_percent", "Reproducibility coefficient, %",
              scale="percent"),
    Statistic("interchangeability_index", "Interchangeability of readers (squared units)"),
    Statistic("inter_no_worse_than_intra", "Ratio of SDs between and within readers, no worse"),
    Statistic("loa_bias_intercept", "Regression limits, bias: intercept"),
    Statistic("loa_bias_slope", "Regression limits, bias: slope"),
    Statistic("loa_sd_intercept", "Regression limits, SD: intercept"),
    Statistic("loa_sd_slope", "Regression limits, SD: slope"),
    Statistic("loa_lower_regression", "Lower limit of agreement, regression", scale="endpoint"),
    Statistic("loa_upper_regression", "Upper limit of agreement, regression", scale="endpoint"),
    Statistic("loa_lower_quantile", "Lower limit of agreement, quantile", scale="endpoint"),
    Statistic("loa_upper_quantile", "Upper limit of agreement, quantile", scale="endpoint"),
    Statistic("tolerance_lower", "Lower tolerance limit", scale="endpoint"),
    Statistic("tolerance_upper", "Upper tolerance limit", scale="endpoint"),
    Statistic("auc", "Area under the ROC curve", scale="coefficient", null=0.5, conclusion=35),
    Statistic("auc_difference", "Difference of ROC areas", scale="coefficient", null=0.0),
    Statistic("n_per_arm", "Participants per arm", forest="size"),
    Statistic("n_total", "Participants"),
    Statistic("percent_agreement", "Exact agreement, %", scale="percent"),
    Statistic("dice", "Dice, mean", scale="reliability", conclusion=40),
    Statistic("jaccard", "Jaccard, mean", scale="reliability"),
    Statistic("hd95_mm", "Hausdorff distance, 95th percentile, mean, mm", scale="mm"),
    Statistic("assd_mm", "Average symmetric surface distance, mean, mm", scale="mm"),
    Statistic("nsd", "Normalised surface Dice, mean", scale="reliability"),
    Statistic("lesion_sensitivity", "Lesions found, share, mean", scale="coefficient"),
    Statistic("lesion_precision", "Lesions confirmed, share, mean", scale="coefficient"),
    Statistic("lesion_f1", "F1 of lesions, mean", scale="coefficient"),
    Statistic("volume_difference_ml", "Volume difference, mean, mL", scale="mL", signed=True),
    Statistic("pearson_r", "Pearson r", scale="coefficient", null=0.0, conclusion=27,
              forest="correlation", family="correlation"),
    Statistic("spearman_rho", "Spearman ρ", scale="coefficient", null=0.0, conclusion=28,
              forest="correlation", family="correlation"),
    Statistic("kendall_tau", "Kendall τ", scale="coefficient", null=0.0, conclusion=29,
              forest="correlation", family="correlation"),
    Statistic("partial_r", "Partial r", scale="coefficient", null=0.0, conclusion=30,
              forest="correlation", family="correlation"),
    Statistic("rm_r", "Repeated-measures r", scale="coefficient", null=0.0, conclusion=33,
              forest="correlation", family="correlation"),
    Statistic("slope", "Slope", null=0.0, conclusion=3, forest="slope", signed=True),
    Statistic("emax", "Emax", scale="endpoint", conclusion=7, forest="emax"),
    Statistic("ed50", "ED50"),
    Statistic("mean_difference", "Mean difference", scale="endpoint", null=0.0, conclusion=1,
              forest="difference", signed=True),
    Statistic("common_odds_ratio", "Common odds ratio", scale="ratio", null=1.0, conclusion=8,
              forest="grades"),
    Statistic("odds_ratio_by_cut", "Odds ratio at a cut", scale="ratio", null=1.0, forest="grades"),
    Statistic("proportional_odds_p", "Test of one odds ratio for all cuts"),
    Statistic("quantile_coefficient", "Quantile coefficient", scale="endpoint", null=0.0,
              conclusion=17),
    Statistic("win_ratio", "Win ratio", scale="ratio", null=1.0, conclusion=10, forest="grades"),
    Statistic("median_days", "Median, days", conclusion=41),
    Statistic("hazard_ratio", "Hazard ratio", scale="ratio", null=1.0, conclusion=19,
              forest="hazard", family="ties"),
    Statistic("logrank_p", "Log-rank test", conclusion=18),
    Statistic("r_squared", "R²", scale="coefficient"),
    Statistic("c_index", "Concordance index", scale="coefficient"),
    Statistic("c_index_uno", "Uno's concordance index", scale="coefficient"),
    Statistic("r_squared_royston", "R², Royston", scale="coefficient"),
    Statistic("gray_p", "Gray's test", conclusion=24),
    Statistic("interval_median_days", "Median, interval-censored, days"),
    Statistic("interval_logrank_p", "Log-rank test, interval-censored", conclusion=21),
    Statistic("interval_hazard_ratio", "Hazard ratio, interval-censored", scale="ratio", null=1.0,
              conclusion=22, forest="hazard"),
    Statistic("rmst_difference_days", "Difference of restricted means, days", null=0.0,
              conclusion=26, forest="rmst"),
    Statistic("rmst_difference_adjusted_days", "Adjusted difference of restricted means, days",
              null=0.0, conclusion=25, forest="rmst"),
    Statistic("adjusted_mean", "Adjusted mean", scale="endpoint"),
    Statistic("hodges_lehmann_shift", "Hodges-Lehmann shift", scale="endpoint", null=0.0,
              conclusion=2, forest="difference", signed=True),
    Statistic("probability_of_superiority", "Probability of superiority"),
    Statistic("generalised_odds_ratio", "Generalised odds ratio", scale="ratio", null=1.0,
              conclusion=9, forest="grades"),
    Statistic("stratified_generalised_odds_ratio", "Generalised odds ratio over strata",
              scale="ratio", null=1.0, forest="grades"),
    Statistic("net_benefit", "Net benefit", null=0.0),
    Statistic("gwet_ac1", "Gwet's AC1", scale="reliability", family="graded"),
    Statistic("gwet_ac2", "Gwet's AC2", scale="reliability"),
    Statistic("kappa_light", "Light's κ", scale="reliability"),
    Statistic("kappa_bias_index", "Bias index of κ", scale="reliability"),
    Statistic("kappa_prevalence_index", "Prevalence index of κ", scale="reliability"),
    Statistic("kappa_maximum", "Largest κ for these margins", scale="reliability"),
    Statistic("kappa_bootstrap", "Cohen's κ, bootstrap interval", scale="reliability"),
    Statistic("kappa_linear_bootstrap", "κ, linear weights, bootstrap interval",
              scale="reliability"),
    Statistic("kappa_quadratic_bootstrap", "κ, quadratic weights, bootstrap interval",
              scale="reliability"),
    Statistic("kendall_w", "Kendall's W", scale="coefficient"),
    Statistic("sem", "Standard error of measurement", scale="endpoint"),
    Statistic("minimal_detectable_change", "Minimal detectable change", scale="endpoint"),
    Statistic("total_deviation_index", "Total deviation index", scale="endpoint"),
    Statistic("bias_percent", "Bias, %", scale="percent"),
    Statistic("loa_lower_percent", "Lower limit of agreement, %", scale="percent"),
    Statistic("loa_upper_percent", "Upper limit of agreement, %", scale="percent"),
    Statistic("ratio", "Ratio of the two"),
    Statistic("ratio_loa_lower", "Ratio, lower limit of agreement"),
    Statistic("ratio_loa_upper", "Ratio, upper limit of agreement"),
    Statistic("proportional_bias_slope", "Slope of difference on mean"),
    Statistic("deming_intercept", "Deming intercept", scale="endpoint"),
    Statistic("deming_slope", "Deming slope"),
    Statistic("passing_bablok_intercept", "Passing-Bablok intercept", scale="endpoint"),
    Statistic("passing_bablok_slope", "Passing-Bablok slope"),
    Statistic("within_cv_log_percent", "Within-subject CV from logarithms, %", scale="percent"),
    Statistic("repeatability_coefficient_percent_lower", "Repeatability, lower limit, %",
              scale="percent"),
    Statistic("repeatability_coefficient_percent_upper", "Repeatability, upper limit, %",
              scale="percent"),
    Statistic("reader_effect", "Effect of the reader", scale="endpoint"),
    Statistic("reader_effect_f", "F test of the readers"),
    Statistic("intercept", "Intercept", scale="endpoint"),
    Statistic("trend_z", "Test of trend, z", conclusion=4),
    Statistic("mcp_t", "MCP-Mod, contrast test", conclusion=5),
    Statistic("williams_t", "Williams' test", conclusion=6),
    Statistic("risk_difference", conclusion=11, forest="proportion"),
    Statistic("odds_ratio", scale="ratio", null=1.0, conclusion=12, forest="ratio"),
    Statistic("mean_ratio", scale="ratio", conclusion=13, forest="ratio"),
    Statistic("rank_difference", null=0.0, conclusion=14, forest="ranks"),
    Statistic("indirect_effect", null=0.0, conclusion=15, forest="paths"),
    Statistic("proportion_explained", conclusion=16, forest="surrogacy"),
    Statistic("subdistribution_hazard_ratio", scale="ratio", null=1.0, conclusion=20,
              forest="hazard"),
    Statistic("incidence_difference", null=0.0, conclusion=23),
    Statistic("partial_rho", "Partial ρ", scale="coefficient", null=0.0, conclusion=31,
              forest="correlation"),
    Statistic("semi_partial_r", "Semi-partial r", null=0.0, conclusion=32, forest="correlation"),
    Statistic("disattenuated_r", "Disattenuated r", null=0.0, conclusion=34, forest="correlation"),
    Statistic("proportion", conclusion=42, forest="proportion"),
    Statistic("win_odds", scale="ratio"),
    Statistic("rate_ratio", scale="ratio"),
    Statistic("risk_ratio", scale="ratio", null=1.0, forest="ratio"),
    Statistic("mean_ratio_of_positive", scale="ratio", null=1.0, forest="ratio"),
    Statistic("mean_difference_at_delta", null=0.0, forest="difference"),
    Statistic("correlation_difference", null=0.0, forest="correlation"),
    Statistic("direct_effect", null=0.0, forest="paths"),
    Statistic("total_effect", null=0.0, forest="paths"),
    Statistic("stratified_risk_difference", null=0.0, forest="proportion"),
    Statistic("van_elteren_z", "van Elteren test, z", null=0.0),
    Statistic("r_squared_individual", "R², individual level", scale="coefficient",
              forest="surrogacy"),
    Statistic("r_squared_trial", "R², trial level", scale="coefficient", forest="surrogacy"),
    Statistic("sensitivity", forest="accuracy"),
    Statistic("specificity", forest="accuracy"),
    Statistic("positive_predictive_value", forest="accuracy"),
    Statistic("negative_predictive_value", forest="accuracy"),
    Statistic("mean", family="centre"),
    Statistic("median", family="centre"),
    Statistic("hazard_ratio_breslow", family="ties"),
    Statistic("hazard_ratio_exact", family="ties"),
    Statistic("cumulative_incidence"),
    Statistic("rmst_days", "Restricted mean, days"),
    Statistic("quartile_1"),
    Statistic("quartile_3"),
    Statistic("minimum"),
    Statistic("maximum"),
    Statistic("sd", "SD"),
    Statistic("permutation_p", "Permutation test"),
    Statistic("importance"),
    Statistic("risk_score"),
    Statistic("risk_group"),
    Statistic("n_selected"),
    Statistic("percent_within_window", "Within the window, %", scale="percent"),
    Statistic("discordance_percent", "Discordance, %", scale="percent"),
    Statistic("early_discordance_percent", "Early discordance, %", scale="percent"),
    Statistic("r_squared_difference", "Difference of R²", scale="coefficient"),
    Statistic("bias_replicated", "Bias, repeated readings", scale="endpoint"),
    Statistic("loa_lower_replicated", "Lower limit of agreement, repeated readings",
              scale="endpoint"),
    Statistic("loa_upper_replicated", "Upper limit of agreement, repeated readings",
              scale="endpoint"),
    Statistic("inter_intra_sd_ratio", "Ratio of SDs between and within readers"),
    Statistic("inter_reader_icc", "ICC(A,1) between readers", scale="reliability"),
    Statistic("inter_reader_reproducibility", "Reproducibility between readers", scale="endpoint"),
    Statistic("inter_reader_sd", "SD between readers", scale="endpoint"),
    Statistic("intra_reader_icc", "ICC(A,1) within a reader", scale="reliability"),
    Statistic("intra_reader_repeatability", "Repeatability within a reader", scale="endpoint"),
    Statistic("intra_reader_sd", "SD within a reader", scale="endpoint"),
    Statistic("interaction_p", "Test of interaction"),
    Statistic("subgroup_difference", forest="difference"),
    Statistic("path_a", "Path a"),
    Statistic("path_b", "Path b"),
    Statistic("prentice_1"),
    Statistic("prentice_2"),
    Statistic("prentice_3"),
    Statistic("prentice_4"),
    Statistic("relative_effect"),
    Statistic("proportion_mediated"),
    Statistic("mcnemar_p", "McNemar's test"),
    Statistic("proportion_exact"),
    Statistic("tipping_delta"),
    Statistic("model_weight"),
    Statistic("power"),
    Statistic("target_dose"),
    Statistic("e0", "E0"),
    Statistic("hill"),
    Statistic("mean_difference_simultaneous"),
    Statistic("mean_utility_difference"),
    Statistic("curvature"),
    Statistic("rmse", "RMSE"),
    Statistic("drift_per_year", "Drift per year"),
    Statistic("largest_error"),
    Statistic("largest_error_percent", "Largest error, %", scale="percent"),
    Statistic("drift_percent_per_year", "Drift per year, %", scale="percent"),
    Statistic("snr", "SNR"),
    Statistic("uniformity_percent", "Uniformity, %", scale="percent"),
    Statistic("uniformity_range"),
    Statistic("generalised_dice", "Generalised Dice"),
    Statistic("bias_in_group"),
    Statistic("differential_bias"),
    Statistic("differential_bias_f", "F test of differential bias"),
    Statistic("differential_direction"),
    Statistic("differential_discordance"),
    Statistic("discordance_rate"),
    Statistic("discordance_upward"),
    Statistic("bias_drift_slope"),
    Statistic("learning_slope"),
)
# fmt: on
#: Name -> statistic, in the order in which a report lists them.
STATISTICS: Mapping[str, Statistic] = registry("statistics", {one.name: one for one in _TABLE})


@cache
def conclusion_order() -> tuple[str, ...]:
    """Statistics whose p value is a conclusion, in order of preference.

    An analysis that gives both a hazard ratio and a log-rank p states one hypothesis, not two.

    Examples
    --------
    >>> conclusion_order()[:2]
    ('mean_difference', 'hodges_lehmann_shift')
    """
    ranked = sorted(STATISTICS.values(), key=lambda one: one.conclusion)
    return tuple(one.name for one in ranked if one.conclusion)


def registered(name: str) -> Statistic | None:
    """The statistic of a name, also of one with a suffix of :data:`SUFFIXES`; None if unknown.

    Examples
    --------
    >>> registered("hazard_ratio").null, registered("hd95_mm_median").scale, registered("biass")
    (1.0, 'mm', None)
    >>> registered("icc_a_1_complete_cases").words
    'ICC(A,1), complete cases'
    """
    if name in STATISTICS:
        return STATISTICS[name]
    if name.startswith(CONFORMANCE):
        return Statistic(name)
    for suffix in SUFFIXES:
        base = STATISTICS.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if base:
            words = suffix[1:].replace("_", " ")
            label = base.label.replace(", mean", ", median") if suffix == "_median" else ""
            label = label if label not in ("", base.label) else f"{base.words}, {words}"
            return Statistic(name, label, base.scale)
    return None


def statistic(name: object) -> Statistic:
    """The statistic of a name; one without properties if the name is not registered.

    Examples
    --------
    >>> statistic("risk_ratio").ratio, statistic("risk_ratio").no_effect, statistic("new").words
    (True, 1.0, 'New')
    """
    return registered(str(name)) or Statistic(str(name))


def family_of(name: str, key: str = "forest") -> tuple[str, ...]:
    """Names of the statistics that share ``forest`` or ``family`` with this one."""
    word = getattr(statistic(name), key)
    return tuple(one.name for one in STATISTICS.values() if word and getattr(one, key) == word)
