"""All statistics rows of one group: a pair of sources, all sources, or one source's repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, repeat
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from scipy import special

from corelab.agreement import (
    categorical,
    clusters,
    differences,
    guards,
    limits,
    metrology,
    second,
)
from corelab.agreement.estimates import Floats, limits_multiplier, quantile_normal, quantile_t
from corelab.agreement.icc import (
    FORMS,
    icc_exceeds,
    intraclass_correlation,
    standard_error_of_measurement,
)
from corelab.measurement.selection import NotComputable, as_list
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.terms.endpoints import unit_of
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes, not_computable

Check = Callable[[float], Second]

#: A row that no second program has checked.
UNCHECKED = Second()
_LIMITS = ("bias", "loa_lower", "loa_upper")
#: Scale of relative differences -> their bias and limits.
_RELATIVE = {
    "percent": ("bias_percent", "loa_lower_percent", "loa_upper_percent"),
    "log": ("ratio", "ratio_loa_lower", "ratio_loa_upper"),
}
_WEIGHTED = {"none": "kappa", "linear": "kappa_linear", "quadratic": "kappa_quadratic"}

NUMERIC = (
    *FORMS, "ccc", "bias", "loa_lower", "loa_upper", "within_sd", "within_cv_percent",
    "repeatability_coefficient", "repeatability_coefficient_percent",
)  # fmt: skip
#: Between sources the pooled SD is no repeatability: the same number under its proper name.
REPRODUCIBILITY = {
    "within_sd": "reproducibility_sd",
    "within_cv_percent": "reproducibility_cv_percent",
    "repeatability_coefficient": "reproducibility_coefficient",
    "repeatability_coefficient_percent": "reproducibility_coefficient_percent",
}
NO_GRADES = "values are no grades: no two need be equal"
GRADED = ("percent_agreement", *_WEIGHTED.values(), "alpha_krippendorff")


class How(TypedDict):
    """What every statistic takes: 1 - confidence level, and the cluster of each target."""

    alpha: float
    clusters: clusters.Codes | None


class Resampled(How):
    """The same with resamples and seed of a bootstrap."""

    resamples: int
    seed: int


@dataclass(frozen=True)
class GroupStatistics:
    """Maker of the rows of one group (``a|b``, ``all`` or a source) of one endpoint and visit.

    ``notes`` are warnings that every row carries; ``codes`` the cluster of each target, None where
    every target is its own; ``n_clusters`` the number of clusters (participants) among them.
    """

    analysis: AgreementSpec
    endpoint: str
    visit: str
    group: str
    notes: tuple[str, ...] = ()
    codes: clusters.Codes | None = None
    n_clusters: int = 0

    @property
    def level(self) -> str:
        """Level of measurement."""
        return self.analysis.level_of(self.endpoint)

    @property
    def alpha(self) -> float:
        """1 - confidence level."""
        return self.analysis.alpha

    @property
    def how(self) -> How:
        """Level and clusters, as every statistic takes them."""
        return {"alpha": self.alpha, "clusters": self.codes}

    @property
    def resampled(self) -> Resampled:
        """The same, with resamples and seed of the bootstrap."""
        return {**self.how, "resamples": self.analysis.resamples, "seed": self.analysis.seed}

    @property
    def is_volume(self) -> bool:
        """Whether values are volumes in mL, untransformed."""
        plain = self.analysis.derivation == "value" and self.analysis.scale == "identity"
        return plain and unit_of(self.endpoint) == "mL"

    @property
    def pooled(self) -> bool:
        """Whether targets of a cluster are pooled in the coefficient, not modelled."""
        return self.analysis.clustering == "pooled"

    @property
    def multiplier(self) -> float:
        """SDs from the bias to a limit of agreement."""
        return limits_multiplier(self.analysis.limits_coverage)

    def over(self, wide: pd.DataFrame | pd.Index) -> GroupStatistics:
        """The same group with the clusters of these targets (participant_id, visit)."""
        index = wide.index if isinstance(wide, pd.DataFrame) else wide
        labels = clusters.clusters_of(index, self.analysis.labels)
        codes = clusters.codes_of(labels, len(index))
        return replace(self, codes=codes, n_clusters=clusters.number_of(codes, len(index)))

    def expected(self) -> list[str]:
        """Statistics of the contract that this group must have a row for."""
        names = [] if self.level == "nominal" else list(NUMERIC)
        if self.level in ("ordinal", "nominal"):
            names += GRADED
        if self.group == "all":
            pairwise = {"bias", "loa_lower", "loa_upper", *_WEIGHTED.values()}
            names = [name for name in names if name not in pairwise]
            if self.level in ("ordinal", "nominal"):
                names.append("kappa_fleiss")
            elif "alpha_krippendorff" not in names:
                names.append("alpha_krippendorff")
        return names

    def refuse(self, reason: str) -> list[StatisticRow]:
        """A row with the reason for every statistic that is due."""
        return [self.attempt(name, NotComputable(reason)) for name in self.expected()]

    def row(
        self, statistic: str, found: Estimate, checked: Second = UNCHECKED, extra: str = ""
    ) -> StatisticRow:
        """One statistics row; an estimate that is no number becomes ``not_computable``."""
        own = [n for n in (found.note, extra) if n]
        text = "incomplete: " in found.note
        notes = [*own, *(n for n in self.notes if not (text and n.startswith("incomplete: ")))]
        if not np.isfinite(found.estimate):
            reason = "; ".join(notes) or "not defined for these readings"
            return not_computable(statistic, reason, n=found.n, method=found.method, **self._place)
        return found.row(
            statistic,
            n_clusters=min(self.n_clusters, found.n) if self.n_clusters else np.nan,
            second_estimate=checked.estimate,
            second_method=checked.method,
            note="; ".join(notes),
            **self._place,
        )

    @property
    def _place(self) -> dict[str, str]:
        return {"group": self.group, "endpoint": self.endpoint, "visit": self.visit}

    def attempt(
        self,
        statistic: str,
        found: Estimate | NotComputable | Callable[[], Estimate],
        check: Check | None = None,
        extra: str = "",
    ) -> StatisticRow:
        """Compute, compute a second time, and say why where it cannot be done."""
        try:
            if isinstance(found, NotComputable):
                raise found
            one = found if isinstance(found, Estimate) else found()
        except NotComputable as error:
            return not_computable(statistic, "; ".join([str(error), *self.notes]), **self._place)
        checked = check(one.estimate) if check and np.isfinite(one.estimate) else UNCHECKED
        return self.row(statistic, one, checked, extra)

    def attempts(
        self,
        names: Sequence[str],
        compute: Callable[[], Iterable[Estimate]],
        *,
        checks: Sequence[Check | None] = (),
        extras: Sequence[str] = (),
    ) -> list[StatisticRow]:
        """Rows of statistics that one computation gives, each with its check and remark."""
        try:
            found = list(compute())
        except NotComputable as error:
            return [self.attempt(name, error) for name in names]
        return [
            self.attempt(name, one, check, extra)
            for name, one, check, extra in zip(
                names, found, checks or repeat(None), extras or repeat(""), strict=False
            )
        ]

    def of(self, group: str, n_clusters: int = 0) -> GroupStatistics:
        """The same of another group."""
        return replace(self, group=group, n_clusters=n_clusters)

    def noted(self, *notes: str) -> GroupStatistics:
        """The same with further warnings."""
        kept = tuple(dict.fromkeys([*self.notes, *(n for n in notes if n)]))
        return replace(self, notes=kept)

    def _rows_of(
        self, wide: pd.DataFrame, made: Callable[[GroupStatistics, Floats], list[StatisticRow]]
    ) -> list[StatisticRow]:
        """Rows of the values of these targets, or the reason why they cannot be right."""
        maker = self.over(wide)
        try:
            maker = maker._screened(wide)
        except NotComputable as error:
            return maker.refuse(str(error))
        return made(maker, wide.to_numpy(dtype=np.float64))

    @property
    def _numbers(self) -> bool:
        return self.level != "nominal"

    @property
    def _graded(self) -> bool:
        return self.level in ("ordinal", "nominal")

    def _screened(self, wide: pd.DataFrame) -> GroupStatistics:
        """The same group with warnings about its values; refuses what cannot be right."""
        notes = guards.volumes_plausible(wide, self.endpoint) if self.is_volume else []
        if self.is_volume and self.analysis.repeats != "within":
            keep = self.analysis.unit_check
            values = wide.to_numpy(dtype=np.float64)
            for i, j in combinations(range(values.shape[1]), 2):
                notes += guards.units_mixed(values[:, i], values[:, j], list(wide.index), keep=keep)
            notes = list(dict.fromkeys(notes))
        if self.level in ("ordinal", "nominal"):
            guards.grades_known(wide, self.analysis.categories)
        if len(wide) < guards.FEW_TARGETS:
            notes.append(f"only {len(wide)} targets")
        return self.noted(*notes)

    def pair(self, wide: pd.DataFrame, swapped: list[str]) -> list[StatisticRow]:
        """Rows of two sources (columns) over targets (rows), complete cases."""
        either = int(wide.notna().any(axis=1).sum())
        complete = wide.dropna()
        lost = either - len(complete)
        maker = self
        if either and lost / either > 0.1:
            maker = maker.noted(f"{lost} of {either} targets lack one of the two sources")
        if swapped:
            maker = maker.noted(f"sources may be exchanged at {', '.join(swapped[:5])}")
        if len(complete) < guards.FEWEST_TARGETS:
            return maker.refuse(
                f"{len(complete)} targets with both sources, at least {guards.FEWEST_TARGETS} "
                "are needed"
            )
        return maker._rows_of(complete, GroupStatistics._of_two)

    def _of_two(self, values: Floats) -> list[StatisticRow]:
        rows = self._numeric(values) + self._difference(values) if self._numbers else []
        return rows + (self._grades_of_two(values) if self._graded else [])

    def several(self, wide: pd.DataFrame) -> list[StatisticRow]:
        """Rows of all sources together; missing cells are left missing, every reading is used."""
        present = wide.dropna(axis=1, how="all").dropna(axis=0, how="all")
        twice = int((present.notna().sum(axis=1) >= 2).sum())
        absent = [str(c) for c in wide.columns if c not in present.columns]
        maker = self.noted(f"no value from {', '.join(absent)}" if absent else "")
        if present.shape[1] < 2:
            return maker.refuse("fewer than two sources have values")
        if twice < guards.FEWEST_TARGETS:
            return maker.refuse(f"{twice} targets with two or more sources")
        return maker._rows_of(present, GroupStatistics._of_several)

    def _of_several(self, values: Floats) -> list[StatisticRow]:
        total, maker = int((~np.isnan(values)).sum()), self
        if total < values.size:
            maker = maker.noted(
                f"incomplete: {total} of {values.size} readings of {len(values)} targets there, "
                "none imputed"
            )
        rows = maker._numeric(values) if maker._numbers else []
        more = maker._grades_of_several(values) if maker._graded else [maker._alpha_row(values)]
        return rows + more

    def repeats(self, wide: pd.DataFrame) -> list[StatisticRow]:
        """Rows of one source's repeated readings (columns are repeats)."""
        if len(wide) < guards.FEWEST_TARGETS:
            return self.refuse(f"{len(wide)} targets read twice, at least 3 are needed")
        two = wide.shape[1] == 2
        return self._rows_of(wide, GroupStatistics._of_two if two else GroupStatistics._of_repeats)

    def _of_repeats(self, values: Floats) -> list[StatisticRow]:
        rows = self._numeric(values) if self._numbers else []
        return rows + (self._grades_of_several(values) if self._graded else [])

    def _numeric(self, values: Floats) -> list[StatisticRow]:
        rows = self._icc_rows(values)
        if self.codes is not None or np.isnan(values).any():
            ccc = partial(differences.concordance_by_components, values, **self.how)
        elif values.shape[1] == 2:
            ccc = partial(differences.concordance_correlation, *values.T, alpha=self.alpha)
        else:
            ccc = partial(differences.overall_concordance, values, alpha=self.alpha)
        rows.append(self.attempt("ccc", ccc))
        return rows + self._metrology_rows(values)

    def _icc_rows(self, values: Floats) -> list[StatisticRow]:
        errors = ("sem", "minimal_detectable_change")
        how: dict[str, Any] = {**self.how, "pooled": self.pooled}
        try:
            found = intraclass_correlation(values, **how)
        except NotComputable as error:
            return [self.attempt(name, error) for name in (*FORMS, *errors)]
        planned = self.analysis.form
        ours = {form: found[form].estimate for form in FORMS}
        if self.codes is None or self.pooled or np.isnan(values).any():
            checked = second.second_iccs(values, ours)
        else:
            checked = second.second_nested_iccs(values, self.codes, ours)
        rows = [
            self.row(
                form,
                self._exchangeable(form, found[form].tested()),
                checked.get(form, UNCHECKED),
                "pre-specified form" if form == self.analysis.icc_form else "",
            )
            for form in FORMS
        ]
        threshold = self.analysis.exceeds
        if threshold is not None:
            test = partial(icc_exceeds, values, float(threshold), form=planned, **how)
            rows.append(self.attempt(f"{planned}_exceeds", test))

        def both() -> Iterable[Estimate]:
            made = standard_error_of_measurement(values, **self.how)
            return [made[name] for name in errors]

        rows += self.attempts(errors, both)
        return rows + (self._complete_cases(values) if np.isnan(values).any() else [])

    def _exchangeable(self, form: str, found: Estimate) -> Estimate:
        """Repeats have no order of their own: only the one-way form is their coefficient."""
        if self.analysis.repeats != "within" or form.startswith("icc_1"):
            return found
        text = "repeat number as a factor: the repeats of one reader are exchangeable, see icc_1_1"
        return replace(found, note=join_notes(found.note, text))

    def _complete_cases(self, values: Floats) -> list[StatisticRow]:
        """Sensitivity to the missing cells: the same coefficient from complete targets only."""
        name = f"{self.analysis.form}_complete_cases"
        complete, maker = self._complete(values)
        maker = replace(maker, notes=())
        try:
            if len(complete) < guards.FEWEST_TARGETS:
                raise NotComputable(f"{len(complete)} complete targets")
            found = intraclass_correlation(complete, **maker.how, pooled=self.pooled)
        except NotComputable as error:
            return [self.attempt(name, error)]
        form, checked = self.analysis.form, UNCHECKED
        if maker.codes is None:
            ours = {f: found[f].estimate for f in FORMS}
            checked = second.second_iccs(complete, ours).get(form, UNCHECKED)
        return [maker.row(name, found[form].tested(), checked, "sensitivity: complete cases")]

    def _complete(self, values: Floats) -> tuple[Floats, GroupStatistics]:
        """Targets without a missing cell, and the maker of their rows."""
        kept = ~np.isnan(values).any(axis=1)
        codes, n = clusters.subset(self.codes, kept), int(kept.sum())
        return values[kept], replace(self, codes=codes, n_clusters=clusters.number_of(codes, n))

    def _metrology_rows(self, values: Floats) -> list[StatisticRow]:
        between = self.analysis.repeats != "within"
        extra = (
            "over sources: their bias is part of it, it is the reproducibility" if between else ""
        )
        try:
            found = metrology.repeatability(values, **self.how)
        except NotComputable as error:
            return [self.attempt(name, error) for name in NUMERIC[-4:]]
        rows = []
        for name, one in found.items():
            if self.level != "ratio" and "percent" in name:
                if name not in NUMERIC:
                    continue
                one = Estimate(np.nan, n=one.n, note="a percentage needs a ratio scale")
            check = partial(second.second_within_sd, values) if name == "within_sd" else None
            said = self._claim(one) if name == "repeatability_coefficient_percent" else ""
            rows.append(self.attempt(name, one, check, said or extra))
            if between and name in REPRODUCIBILITY:
                rows.append(self.attempt(REPRODUCIBILITY[name], one, check))
        return rows

    def _claim(self, percent: Estimate) -> str:
        """The sentence of a QIBA profile, for repeated readings by one source."""
        if self.analysis.repeats != "within" or not np.isfinite(percent.ci_high):
            return ""
        return (
            f"A change of {self.endpoint.replace('_', ' ')} by more than {percent.estimate:.1f} % "
            f"(95 % CI {percent.ci_low:.1f} to {percent.ci_high:.1f}) is real with 95 % confidence "
            f"({percent.n} targets read again; {unit_of(self.endpoint, 'own unit')})."
        )

    def _relative(self, a: Floats, b: Floats, scale: str) -> Iterable[Estimate]:
        return self._limits_of(a, b, scale).estimates()

    def _limits_of(self, a: Floats, b: Floats, scale: str = "raw") -> differences.BlandAltman:
        return differences.bland_altman(
            a, b, scale=scale, multiplier=self.multiplier, limits_ci=self.analysis.limits_ci,
            **self.how,
        )  # fmt: skip

    def _difference(self, values: Floats) -> list[StatisticRow]:
        complete, maker = self._complete(values)
        return replace(maker, n_clusters=self.n_clusters)._difference_rows(*complete.T)

    def _difference_rows(self, a: Floats, b: Floats) -> list[StatisticRow]:
        try:
            found = self._limits_of(a, b)
        except NotComputable as error:
            return [self.attempt(name, error) for name in _LIMITS]
        delta = self.analysis.delta
        rows = []
        size = float(np.abs(a).max() + np.abs(b).max())
        for name, one in zip(_LIMITS, found.estimates(), strict=True):
            extra = ""
            if delta is not None and name != "bias":
                inside = max(abs(one.ci_low), abs(one.ci_high)) <= float(delta)
                verdict = "within" if inside else "not shown to be within"
                extra = f"limit with its interval {verdict} +-{delta:g}"
            check = partial(
                second.second_bland_altman, a - b, name, size, multiplier=self.multiplier,
                codes=self.codes,
            )  # fmt: skip
            rows.append(self.attempt(name, one, check, extra))
        rows += self._further_limits(a, b)
        assert found.slope is not None
        check_slope = partial(second.second_slope, (a + b) / 2.0, a - b)
        rows.append(self.attempt("proportional_bias_slope", found.slope, check_slope))
        if self.level == "ratio":
            for scale, names in _RELATIVE.items():
                rows += self.attempts(names, partial(self._relative, a, b, scale))
        deviation = partial(differences.total_deviation_index, a, b, **self.how)
        rows.append(self.attempt("total_deviation_index", deviation))
        return rows + self._lines(a, b)

    def _further_limits(self, a: Floats, b: Floats) -> list[StatisticRow]:
        """Limits of the plan's ``method`` beside those of a constant normal spread."""
        share = self.analysis.limits_coverage
        rows: list[StatisticRow] = []
        for kind in as_list(self.analysis.method):
            if kind == "parametric":
                continue
            names, compute = limits.KINDS[str(kind)]
            try:
                made = compute(a, b, share=share, **self.how)
            except NotComputable as error:
                rows += [self.attempt(name, error) for name in names]
                continue
            for name, where, one in made:
                maker = self.of(f"{self.group}|{where}", self.n_clusters) if where else self
                rows.append(maker.attempt(name, one))
        return rows

    def _lines(self, a: Floats, b: Floats) -> list[StatisticRow]:
        """Deming and Passing-Bablok lines a = intercept + slope b."""
        parts = ("slope", "intercept")
        checks = [partial(second.second_deming, b, a, part) for part in parts]
        return self.attempts(
            [f"deming_{part}" for part in parts],
            partial(differences.deming, b, a, **self.how),
            checks=checks,
        ) + self.attempts(
            [f"passing_bablok_{part}" for part in parts],
            partial(differences.passing_bablok, b, a, **self.how),
        )

    def _grades_of_two(self, values: Floats) -> list[StatisticRow]:
        complete, maker = self._complete(values)
        return maker._two_graded(complete)

    def _two_graded(self, complete: Floats) -> list[StatisticRow]:
        a, b = complete.T
        integer = _integers(complete)
        rows = [self._percent_row(complete)]
        for weights, name in _WEIGHTED.items():
            reason = ""
            if weights != "none" and self.level == "nominal":
                reason = "categories have no order"
            elif weights == "none" and not integer:
                reason = NO_GRADES
            if reason:
                rows.append(self.attempt(name, NotComputable(reason)))
            else:
                rows += self._kappa_rows(a, b, weights, name)
        rows.append(self._alpha_row(complete))
        return rows + self._gwet_rows(complete)

    def _kappa_rows(self, a: Floats, b: Floats, weights: str, name: str) -> list[StatisticRow]:
        planned = "pre-specified weights" if weights == self.analysis.weights else ""
        # A score that is no integer is on no list of grades: its distances are taken as they are.
        scale = self.analysis.categories if _integers(np.stack([a, b])) else None
        try:
            found = categorical.weighted_kappa(a, b, weights, scale, **self.resampled)
        except NotComputable as error:
            return [self.attempt(name, error)]
        n = found.n
        unit = "targets" if self.codes is None else f"{self.n_clusters} clusters"
        number = self.analysis.resamples
        method = f"{weights} weights; percentile bootstrap, {number} resamples of {unit}"
        bootstrap = Estimate(found.estimate, *found.bootstrap_ci, n=n, method=method)
        check = partial(second.second_kappa, a, b, weights) if _evenly_spaced(scale) else None
        rows = [
            self.attempt(name, found, check, planned),
            self.attempt(f"{name}_bootstrap", bootstrap, None, planned),
            *self._exceeds(name, found, weights),
        ]
        if weights == "none":
            rows.append(self.attempt("kappa_maximum", Estimate(found.maximum, n=n, method="Umesh")))
            for index in ("prevalence_index", "bias_index"):
                index_value = getattr(found, index)
                if np.isfinite(index_value):
                    one = Estimate(index_value, n=n, method="Byrt 1993")
                    rows.append(self.attempt(f"kappa_{index}", one))
        return rows

    def _exceeds(self, name: str, found: Estimate, weights: str) -> list[StatisticRow]:
        """One-sided test that the planned kappa exceeds the threshold of the plan."""
        threshold = self.analysis.exceeds
        planned = self.analysis.weights or ("none" if self.level == "nominal" else "quadratic")
        if threshold is None or weights != planned:
            return []
        half = 0.5 * (found.ci_high - found.ci_low)
        if found.ci_high >= 1.0:
            # The upper limit may have been cut at 1; the lower one tells the standard error.
            half = found.estimate - found.ci_low
        quantile = quantile_normal(self.alpha)
        df = self.n_clusters - 1
        if self.codes is not None:
            quantile = quantile_t(df, self.alpha)
        if not half > 0:
            return [self.attempt(f"{name}_exceeds", NotComputable("no standard error"))]
        statistic = (found.estimate - float(threshold)) / (half / quantile)
        tail = float(special.ndtr(-statistic))
        if self.codes is not None:
            tail = float(special.stdtr(df, -statistic))
        method = f"{found.method}; one-sided p of {name} <= {threshold:g}, standard error of the CI"
        one = replace(found, p_value=tail, method=method)
        return [self.attempt(f"{name}_exceeds", one)]

    def _percent_row(self, values: Floats) -> StatisticRow:
        if not _integers(values):
            return self.attempt("percent_agreement", NotComputable(NO_GRADES))
        compute = partial(categorical.percent_agreement, values, **self.how)
        check = partial(second.second_percent, values, self.alpha)
        return self.attempt("percent_agreement", compute, check)

    def _alpha_row(self, values: Floats) -> StatisticRow:
        if self.level == "nominal" and not _integers(values):
            return self.attempt("alpha_krippendorff", NotComputable(NO_GRADES))
        compute = partial(categorical.krippendorff_alpha, values, self.level, **self.resampled)
        check = partial(second.second_alpha, values, self.level)
        return self.attempt("alpha_krippendorff", compute, check)

    @property
    def _weightings(self) -> list[str]:
        """No weights, and the planned ones where grades have an order."""
        if self.level != "ordinal":
            return ["none"]
        planned = str(self.analysis.weights or "quadratic")
        return ["none", "quadratic" if planned == "none" else planned]

    def _gwet_rows(self, values: Floats) -> list[StatisticRow]:
        if not _integers(values):
            return []
        names = dict(zip(("gwet_ac1", "gwet_ac2"), self._weightings, strict=False))
        return [
            self.attempt(name, self._corrected(values, "gwet", weights))
            for name, weights in names.items()
        ]

    def _grades_of_several(self, values: Floats) -> list[StatisticRow]:
        rows = [self._percent_row(values)]
        if _integers(values):
            for weights in self._weightings:
                rows += self._multi_rater(values, weights)
            rows.append(self.attempt("kappa_light", partial(categorical.light_kappa, values)))
        else:
            rows.append(self.attempt("kappa_fleiss", NotComputable(NO_GRADES)))
        rows.append(self._alpha_row(values))
        rows += self._gwet_rows(values)
        if self.level == "ordinal":
            check = partial(second.second_kendall_w, values)
            compute = partial(categorical.kendall_w, values, clusters=self.codes)
            rows.append(self.attempt("kendall_w", compute, check))
        return rows

    def _corrected(self, values: Floats, kind: str, weights: str) -> Callable[[], Estimate]:
        given: dict[str, Any] = {
            "categories": self.analysis.categories,
            "weights": weights,
            **self.how,
        }
        return partial(categorical.chance_corrected, values, kind, **given)

    def _multi_rater(self, values: Floats, weights: str) -> list[StatisticRow]:
        """Kappas of several readers: Fleiss, Conger, Brennan and Prediger."""
        tail, check = ("", second.second_fleiss) if weights == "none" else (f"_{weights}", None)
        checks = {"fleiss": check and partial(check, values)}
        return [
            self.attempt(
                f"kappa_{kind}{tail}", self._corrected(values, kind, weights), checks.get(kind)
            )
            for kind in ("fleiss", "conger", "brennan_prediger")
        ]


def _integers(values: Floats) -> bool:
    known = values[~np.isnan(values)]
    return bool((known == np.round(known)).all())


def _evenly_spaced(categories: Any) -> bool:
    if categories is None:
        return True
    try:
        numbers = [float(c) for c in categories]
    except (TypeError, ValueError):
        return False
    return len(set(np.diff(numbers))) <= 1
