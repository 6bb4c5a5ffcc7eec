"""Comparison of arms."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from annotated_types import MinLen
from pydantic import Field

from corelab.settings.analyses.base import (
    DERIVED,
    SEED,
    AnalysisType,
    Baseline,
    By,
    Modelled,
    OneOrMany,
    OneValue,
    Resamples,
    ScaleOfValues,
    Seed,
    Strata,
    one_of,
)
from corelab.settings.base import Absent, Number

Method = Literal[
    "ancova",
    "t",
    "welch",
    "mann_whitney",
    "mmrm",
    "gamma",
    "two_part",
    "rank",
    "binary",
    "multiple_imputation",
    "gee",
    "glmm",
]
Structure = Literal["us", "toeph", "ar1h", "csh", "adh", "toep", "ar1", "cs"]
#: Covariance structures of an MMRM.
STRUCTURES = get_args(Structure)
#: Completed data sets of multiple imputation.
IMPUTATIONS = 50
Shifts = list[Number | dict[str, Number]]
IMPUTED = one_of("method", "multiple_imputation")
MMRM = one_of("method", "mmrm")
ANCOVA = one_of("method", "ancova")
REPEATED = one_of("method", "mmrm", "gee", "glmm")


class ComparisonSpec(OneValue, Modelled):
    """Comparison of an imaging endpoint between arms."""

    kind: ClassVar = AnalysisType(
        "comparison",
        "Comparison of arms",
        number="14.2.2",
        headline=(
            *("mean_difference", "hodges_lehmann_shift", "rank_difference", "mean_ratio"),
            *("risk_difference", "stratified_risk_difference", "odds_ratio", "risk_ratio"),
            *("rate_ratio", "win_ratio"),
        ),
        by_participant=True,
    )

    type: Literal["comparison"]
    by: By  # type: ignore[assignment]
    method: OneOrMany[Method] = "ancova"
    """Estimator, or a list of them (docs/pharmacodynamics.md)"""
    scale: ScaleOfValues = "identity"
    baseline: Annotated[Baseline | Absent, DERIVED | one_of("covariates", "baseline") | IMPUTED] = (
        None
    )
    covariance: Annotated[OneOrMany[Structure], MMRM] = "us"
    """Covariance of an MMRM, or a pre-specified ladder of them"""
    covariance_by_arm: Annotated[bool, MMRM] = False
    """MMRM with a covariance of its own for each arm; default one for all"""
    df: Annotated[Literal["satterthwaite", "kenward_roger"] | Absent, MMRM] = None
    """Degrees of freedom of an MMRM"""
    interactions: Annotated[list[str] | Absent, REPEATED] = None
    """Covariates of an MMRM or GEE with an effect per visit; default the baseline in an MMRM, none
    in a GEE
    """
    overall: Annotated[bool, REPEATED] = False
    """Also the mean effect over the visits of an MMRM or GEE"""
    contrasts: Annotated[dict[str, Annotated[dict[str, Number], MinLen(1)]] | Absent, REPEATED] = (
        None
    )
    """Named contrasts of the visits of an MMRM or GEE: name -> visit -> weight"""
    strata: Annotated[Strata, one_of("method", "binary", "mann_whitney")] = []
    subgroups: Annotated[list[str], ANCOVA] = []
    """Participants columns in whose levels the effect is also given, with the test of interaction
    """
    robust: Annotated[Literal["hc3"] | Absent, ANCOVA] = None
    """Heteroscedasticity-consistent covariance of an ANCOVA"""
    imputations: Annotated[int, IMPUTED] = Field(IMPUTATIONS, ge=2)
    """Number of completed data sets of multiple imputation; default 50"""
    imputation: Annotated[Literal["mar", "j2r", "cr", "cir"], IMPUTED] = "mar"
    """Assumption about values after the last one seen: missing at random, jump to reference, copy
    reference, copy increments in reference; default mar
    """
    imputation_model: Annotated[Literal["joint", "within_arm"], IMPUTED] = "joint"
    """One joint model with the arm, or one model within each arm; default joint"""
    auxiliary: Annotated[list[str], IMPUTED] = []
    """Participants columns that only the imputation model has"""
    deltas: Annotated[Shifts | Absent, IMPUTED] = None
    """Shifts of the imputed values of an arm, unit of the endpoint on its scale, one row each; a
    mapping visit -> shift concerns that visit
    """
    deltas_reference: Annotated[Shifts | Absent, IMPUTED] = None
    """Shifts of the imputed values of the reference arm; one row for every pair with deltas"""
    tipping_point: Annotated[bool, IMPUTED] = False
    """Search the shift of imputed values at which significance is lost"""
    resamples: Annotated[Resamples, one_of("method", "two_part")] = 1000
    seed: Annotated[Seed, one_of("method", "two_part", "multiple_imputation")] = SEED
