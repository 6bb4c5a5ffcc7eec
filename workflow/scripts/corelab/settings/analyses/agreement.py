"""Agreement of readers, software and repeats."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, ClassVar, Literal

from corelab.settings.analyses.base import (
    DERIVED,
    RESAMPLES,
    WITH_BY,
    AnalysisType,
    Baseline,
    By,
    ByVisit,
    Clustered,
    ComparePairs,
    Exceeds,
    LimitsCoverage,
    Need,
    OneOrMany,
    Placed,
    Reference,
    Resamples,
    ScaleOfValues,
    Seed,
    Sources,
    Strata,
    several,
    texts,
)
from corelab.settings.base import Absent, Number, Positive
from corelab.terms.endpoints import ENDPOINT_UNITS

#: Seed of resampling where the plan gives none.
SEED = 20240464
MeasureLevel = Literal["ratio", "interval", "ordinal", "nominal"]
IccForm = Literal["icc_1_1", "icc_a_1", "icc_c_1", "icc_1_k", "icc_a_k", "icc_c_k"]
Category = Number | str
BETWEEN = Need(lambda a, _: a.repeats != "within", "repeats between")
GRADED = Need(lambda a, g: bool(a.levels(g) & {"ordinal", "nominal"}), "measure_level ordinal")
NUMERIC = Need(lambda a, g: a.levels(g) != {"nominal"}, "a measure_level other than nominal")


class AgreementSpec(Placed, Clustered):
    """Agreement of sources, or of the repeats of each source."""

    kind: ClassVar = AnalysisType(
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
    )

    type: Literal["agreement"]
    sources: Sources
    derivation: Literal["value", "change", "percent_change", "log_ratio"] = "value"
    """How a value is derived from two visits"""
    baseline: Annotated[Baseline | Absent, DERIVED] = None
    by_visit: ByVisit = False
    repeats: Literal["between", "within"] = "between"
    """Between sources, or within each source"""
    scale: ScaleOfValues = "identity"
    measure_level: MeasureLevel | Absent = None
    """Level of measurement"""
    clustering: Literal["model", "pooled"] = "model"
    """Agreement of several visits per participant: a model with participants and visits (default),
    or pooled targets with an interval over clusters
    """
    delta: Number | Absent = None
    """Acceptance limit in units of the endpoint"""
    exceeds: Exceeds | Absent = None
    by: Annotated[By | Absent, BETWEEN] = None
    reference: Annotated[Reference | Absent, WITH_BY] = None
    strata: Annotated[Strata, BETWEEN] = []
    no_worse_ratio: Annotated[Positive | Absent, BETWEEN] = None
    """Largest ratio of the SD between readers to that within a reader that counts as no worse: adds
    a one-sided test
    """
    unit_check: Annotated[Literal["likely", "refuse", "checked"], BETWEEN] = "likely"
    """Volumes of two sources that differ by a factor near 1000: likely (default) refuses what must
    be a unit error and notes what may be a missed lesion, refuse refuses both, checked where values
    have been checked
    """
    linked: Annotated[bool, BETWEEN] = False
    """Repeat i of one source belongs to repeat i of the other (the true value changes between
    repeats)
    """
    weights: Annotated[Literal["none", "linear", "quadratic"] | Absent, GRADED] = None
    """Weights of kappa"""
    categories: Annotated[list[Category] | Absent, GRADED] = None
    """Every category of a graded endpoint"""
    icc_form: Annotated[IccForm | Absent, NUMERIC] = None
    """Pre-specified form of the ICC"""
    limits_ci: Annotated[Literal["auto", "exact", "approximate"], NUMERIC] = "auto"
    """Interval of limits of agreement; auto (default) is exact below 100 pairs, approximate from
    there on
    """
    limits_coverage: Annotated[LimitsCoverage, NUMERIC] = 0.95
    method: Annotated[
        OneOrMany[Literal["parametric", "regression", "quantile", "tolerance"]] | Absent, NUMERIC
    ] = None
    """Limits of agreement beside the usual ones (regression, quantile, tolerance)"""
    resamples: Annotated[Resamples, BETWEEN | GRADED] = RESAMPLES
    seed: Annotated[Seed, BETWEEN | GRADED] = SEED
    compare_pairs: Annotated[
        ComparePairs, BETWEEN & several("sources", 3, "three sources or more")
    ] = False

    @property
    def form(self) -> IccForm:
        """Planned form of the ICC."""
        return self.icc_form or "icc_a_1"

    @property
    def within(self) -> bool:
        """Whether the repeats of each source are compared, not the sources."""
        return self.repeats == "within"

    def level_of(self, endpoint: str, grades: Collection[str] = ()) -> MeasureLevel:
        """Level of measurement: as planned, else ordinal for scores and grades, ratio for the rest.

        Parameters
        ----------
        endpoint
            Name of the endpoint.
        grades
            Endpoints that are graded in words.

        Examples
        --------
        >>> spec = AgreementSpec(id="a", type="agreement", endpoint="aspects", sources="all")
        >>> spec.level_of("aspects"), spec.level_of("infarct_volume")
        ('ordinal', 'ratio')
        """
        graded = endpoint in grades or ENDPOINT_UNITS.get(endpoint) == "score"
        return self.measure_level or ("ordinal" if graded else "ratio")

    def levels(self, grades: Collection[str]) -> set[str]:
        """Levels of measurement of its endpoints."""
        return {self.level_of(one, grades) for one in texts(self.endpoint)}
