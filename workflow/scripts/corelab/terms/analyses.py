"""Types of analysis: what every part of the program has to know of them.

Their functions are in :func:`corelab.plan.run.analysis_types`, their keys in
:mod:`corelab.study.analysis_keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AnalysisType:
    """A type of analysis.

    Attributes
    ----------
    name, title
        ``type`` in the plan, and in print.
    table
        ``statistics/<table>.tsv``, which its rows go to.
    part
        Section of the report.
    number
        Number of its table in the PDF.
    figure
        ``panels``: one figure; ``drawings``: several; empty: by its endpoints, or none.
    headline
        Statistics that a reader looks for first, in order.
    main
        Statistics of its main table, where that is not all of them.
    sheets
        Sheets that it reads whatever its keys are.
    by_participant
        Whether it uses one value per participant and visit.
    datasets
        ADaM data sets that it rests on.
    """

    name: str
    title: str
    table: str = "pharmacodynamics"
    part: str = "pharmacodynamics"
    number: str = "14.2.13"
    figure: str = "panels"
    headline: tuple[str, ...] = ()
    main: tuple[str, ...] = ()
    sheets: tuple[str, ...] = ()
    by_participant: bool = False
    datasets: tuple[str, ...] = ("ADIMG", "ADPD")

    @property
    def reliability(self) -> bool:
        """Whether it says how well something was measured, and nothing of a treatment."""
        return self.table in {"agreement", "overlap", "phantom"}


_TABLE = (
    AnalysisType(
        "agreement",
        "Agreement",
        table="agreement",
        part="reproducibility",
        number="14.4.1",
        figure="",
        headline=(
            *("icc_a_1", "kappa_quadratic", "kappa", "kappa_fleiss", "alpha_krippendorff"),
            *("bias", "reproducibility_coefficient", "repeatability_coefficient"),
        ),
        main=(
            *("icc_a_1", "icc_c_1", "icc_1_1", "icc_a_k", "icc_c_k", "icc_1_k"),
            *("kappa_quadratic", "kappa_linear", "kappa", "kappa_fleiss", "alpha_krippendorff"),
            *("percent_agreement", "ccc", "bias", "loa_lower", "loa_upper", "within_sd"),
            *("within_cv_percent", "repeatability_coefficient"),
            "repeatability_coefficient_percent",
        ),
        sheets=("reads",),
        datasets=("ADREAD", "ADIMG"),
    ),
    AnalysisType(
        "overlap",
        "Overlap of masks",
        table="overlap",
        part="reproducibility",
        number="14.4.7",
        figure="",
        headline=("dice", "dice_median", "hd95_mm_median", "volume_difference_ml"),
        main=("dice", "dice_median", "hd95_mm_median", "volume_difference_ml"),
        datasets=("ADSEG",),
    ),
    AnalysisType(
        "correlation",
        "Correlation",
        number="14.2.5",
        headline=("pearson_r", "spearman_rho", "kendall_tau", "partial_r", "rm_r"),
        by_participant=True,
    ),
    AnalysisType(
        "comparison",
        "Comparison of arms",
        number="14.2.2",
        headline=(
            *("mean_difference", "hodges_lehmann_shift", "rank_difference", "mean_ratio"),
            *("risk_difference", "stratified_risk_difference", "odds_ratio", "risk_ratio"),
            *("rate_ratio", "win_ratio"),
        ),
        by_participant=True,
    ),
    AnalysisType(
        "dose_response",
        "Dose-response",
        number="14.2.3",
        headline=("slope", "emax", "ed50", "target_dose", "mcp_t", "williams_t"),
        by_participant=True,
    ),
    AnalysisType(
        "ordinal",
        "Ordinal model",
        number="14.2.6",
        headline=("common_odds_ratio", "risk_difference", "win_ratio"),
        by_participant=True,
    ),
    AnalysisType(
        "quantile",
        "Quantile regression",
        number="14.2.7",
        headline=("quantile_coefficient",),
        by_participant=True,
    ),
    AnalysisType(
        "diagnostic",
        "Diagnostic accuracy",
        headline=("auc", "auc_difference", "sensitivity", "specificity"),
    ),
    AnalysisType("mediation", "Mediation", headline=("indirect_effect", "proportion_mediated")),
    AnalysisType(
        "surrogacy",
        "Surrogacy",
        headline=("proportion_explained", "r_squared_individual", "r_squared_trial"),
    ),
    AnalysisType("sample_size", "Sample size", headline=("n_total", "n_per_arm", "power")),
    AnalysisType(
        "survival",
        "Time to event",
        table="survival",
        part="survival",
        number="14.2.8",
        figure="drawings",
        headline=(
            *("hazard_ratio", "subdistribution_hazard_ratio", "interval_hazard_ratio"),
            *("median_days", "interval_median_days", "rmst_difference_adjusted_days"),
            *("rmst_difference_days", "logrank_p", "interval_logrank_p", "gray_p"),
        ),
        sheets=("events",),
        datasets=("ADTTE",),
    ),
    AnalysisType(
        "progression",
        "Progression criteria",
        table="survival",
        part="survival",
        number="14.2.9",
        figure="drawings",
        headline=("kappa", "r_squared"),
        sheets=("events",),
        datasets=("ADTTE",),
    ),
    AnalysisType(
        "radiomics",
        "Radiomics",
        table="radiomics",
        part="survival",
        number="14.2.11",
        figure="drawings",
        headline=("hazard_ratio", "c_index", "logrank_p"),
        sheets=("events",),
        datasets=("ADRISK", "ADTTE"),
    ),
    AnalysisType(
        "phantom",
        "Phantom",
        table="phantom",
        part="phantom",
        number="14.4.6",
        figure="",
        headline=("bias", "slope", "within_cv_percent"),
        sheets=("phantoms",),
        datasets=(),
    ),
)
ANALYSIS_TYPES = {one.name: one for one in _TABLE}
#: Sheet that a key of an analysis needs.
_SHEET_OF_KEY = {"outcome": "outcomes", "hierarchy": "outcomes", "exposure": "exposures"}
#: Sheets that analyses can read.
SHEETS = (
    *("participants", "covariates", "outcomes", "exposures"),
    *("events", "reads", "phantoms"),
)
#: Tables of ``statistics/``.
STATISTICS_TABLES = tuple(dict.fromkeys(one.table for one in _TABLE))


def type_of(analysis: Mapping[str, Any]) -> AnalysisType:
    """Type of an entry of the plan; one without properties if it has none.

    Examples
    --------
    >>> type_of({"type": "survival"}).title, type_of({}).title
    ('Time to event', 'Analysis')
    """
    name = str(analysis.get("type") or "")
    return ANALYSIS_TYPES.get(name) or AnalysisType(name, name or "Analysis", "", "", figure="")


def sheets_of(analysis: Mapping[str, Any]) -> list[str]:
    """Sheets that an analysis reads.

    Examples
    --------
    >>> sheets_of({"type": "survival", "outcome": "mrs"})
    ['participants', 'covariates', 'outcomes', 'events']
    """
    named = [name for key, name in _SHEET_OF_KEY.items() if analysis.get(key)]
    return list(dict.fromkeys(["participants", "covariates", *named, *type_of(analysis).sheets]))
