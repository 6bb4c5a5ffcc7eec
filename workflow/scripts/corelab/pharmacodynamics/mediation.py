"""Does the drug act on the outcome through the imaging endpoint? Mediation and surrogacy.

Mediation: the product of coefficients with a bootstrap interval (Preacher and Hayes 2008).
Surrogacy: Prentice's criteria (Stat Med 1989;8:431), the proportion explained (Freedman et al.
1992) with bootstrap limits, the relative effect and adjusted association, and R2 at the
level of the individual and of the trial or centre (Buyse et al., Biostatistics 2000;1:49).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.pharmacodynamics.analysis_set import (
    adjusted_words,
    arms_of,
    design,
    endpoint_by_visit,
    endpoints_of,
    participant_columns,
    sheet_values,
    with_labels,
)
from corelab.pharmacodynamics.correlation import bca_limits, fisher_interval, partial, resampled
from corelab.pharmacodynamics.estimates import guarded
from corelab.pharmacodynamics.linear import fit_linear, second_ols
from corelab.pharmacodynamics.scales import covariates_of, scaled
from corelab.provenance.two_computations import CLOSED_FORM, compare
from corelab.settings.analyses.base import RESAMPLES, SEED
from corelab.settings.analyses.mediation import MediationSpec, SurrogacySpec
from corelab.terms.results import Estimate, StatisticRow, join_notes

#: Fewer units than this make an R2 between trials a number of little meaning.
FEW_UNITS = 10
CAVEAT = (
    "assumes that nothing unmeasured affects both imaging endpoint and outcome: randomisation "
    "does not make the endpoint comparable between participants"
)


@dataclass(frozen=True)
class _Paths:
    """Effects of treatment on the mediator (a), of the mediator on the outcome given treatment (b),
    of treatment on the outcome given the mediator (direct) and at all: total = direct + a b.
    """

    a: Estimate
    b: Estimate
    direct: Estimate
    total: Estimate

    @property
    def indirect(self) -> float:
        """Effect of treatment through the mediator, a b."""
        return self.a.estimate * self.b.estimate

    @property
    def proportion(self) -> float:
        """Share of the total effect that goes through the mediator."""
        return self.indirect / self.total.estimate


def _mediation_paths(
    treatment: Any, mediator: Any, outcome: Any, covariates: Any = None, alpha: float = 0.05
) -> _Paths:
    """Least-squares paths of one treatment (n,) through a mediator; covariates in every model."""
    t, m, y = (np.asarray(v, float) for v in (treatment, mediator, outcome))
    rest = np.empty((t.size, 0)) if covariates is None else np.asarray(covariates, float)
    x, both = _designs(t, m, rest)
    full = fit_linear(both, y)
    return _Paths(
        fit_linear(x, m).term(1, alpha),
        full.term(2, alpha),
        full.term(1, alpha),
        fit_linear(x, y).term(1, alpha),
    )


def _designs(t: np.ndarray, m: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Designs of the models of the mediator, and of the outcome given the mediator."""
    one = np.ones(t.size)
    return np.column_stack([one, t, rest]), np.column_stack([one, t, m, rest])


def _limits_and_p(
    statistic: Callable[[np.ndarray], float],
    n: int,
    alpha: float = 0.05,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float, float]:
    """BCa limits, and as p of 0 twice the smaller share of resamples on one side of it."""
    draws = resampled(statistic, n, resamples, seed)
    low, high = bca_limits(statistic, n, alpha, resamples=resamples, draws=draws)
    if draws.size < resamples // 2:
        return low, high, math.nan
    tail = min(np.sum(draws <= 0) + 1, np.sum(draws >= 0) + 1) / (draws.size + 1)
    return low, high, float(min(1.0, 2 * tail))


@dataclass(frozen=True)
class _Units:
    """Trials or centres with participants enough, and the weighted R2 of their effects on the
    outcome given those on the endpoint.
    """

    names: tuple[str, ...]
    r_squared: float


def _unit_effects(treatment: Any, endpoint: Any, outcome: Any, unit: Any, least: int = 3) -> _Units:
    """Effects per unit with ``least`` participants in each arm, and their weighted R2."""
    t, s, y = (np.asarray(v, float) for v in (treatment, endpoint, outcome))
    labels = np.asarray(unit).astype(str)
    names, a, b, weights = [], [], [], []
    for name in sorted(set(labels)):
        one, zero = (labels == name) & (t == 1), (labels == name) & (t == 0)
        if one.sum() < least or zero.sum() < least:
            continue
        names.append(name)
        a.append(s[one].mean() - s[zero].mean())
        b.append(y[one].mean() - y[zero].mean())
        weights.append(float(one.sum() + zero.sum()))
    if len(names) < 3:
        raise NotComputable(
            f"{len(names)} units have {least} participants in each arm; an R2 between units "
            "needs three"
        )
    x, z, w = np.array(a), np.array(b), np.array(weights)
    mx, mz = np.average(x, weights=w), np.average(z, weights=w)
    sxz = np.sum(w * (x - mx) * (z - mz))
    sxx, szz = np.sum(w * (x - mx) ** 2), np.sum(w * (z - mz) ** 2)
    if sxx == 0 or szz == 0:
        raise NotComputable("the effects do not vary between units")
    return _Units(tuple(names), float(sxz**2 / (sxx * szz)))


# ------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class _Case:
    """Complete cases of one contrast."""

    treatment: np.ndarray
    endpoint: np.ndarray
    outcome: np.ndarray
    rest: np.ndarray
    unit: np.ndarray | None
    adjusted: str
    resamples: int
    seed: int
    alpha: float

    def bootstrap(self, statistic: Callable[..., float]) -> tuple[float, float, float]:
        """Limits of a statistic of (treatment, endpoint, outcome, rest)."""

        def of_rows(rows: np.ndarray) -> float:
            if np.ptp(self.treatment[rows]) == 0 or np.ptp(self.endpoint[rows]) == 0:
                return math.nan
            return statistic(
                self.treatment[rows], self.endpoint[rows], self.outcome[rows], self.rest[rows]
            )

        return _limits_and_p(
            of_rows, self.outcome.size, self.alpha, resamples=self.resamples, seed=self.seed
        )


def analyse(analysis: MediationSpec | SurrogacySpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``mediation`` or ``surrogacy``."""
    main = "indirect_effect" if analysis.type == "mediation" else "proportion_explained"
    for endpoint, name in itertools.product(endpoints_of(analysis), as_list(analysis.outcome)):
        rows = _case_rows(analysis, tables, endpoint, str(name))
        yield from guarded(rows, main, endpoint=endpoint)


def _case_rows(
    analysis: MediationSpec | SurrogacySpec, tables: Tables, endpoint: str, outcome: str
) -> Iterator[StatisticRow]:
    """Rows of each visit and contrast."""
    kernel = _surrogacy_rows if analysis.type == "surrogacy" else _mediation_rows
    names = covariates_of(analysis)
    cluster = [analysis.cluster] if analysis.cluster else []
    labelled = with_labels(analysis, *cluster)
    for visit, values in endpoint_by_visit(analysis, tables, endpoint):
        scores, at = sheet_values(analysis, tables, "outcome", outcome, None)
        frame = values.join(participant_columns(labelled, tables, cluster), how="inner")
        frame["outcome"] = scores.reindex(frame.index)
        frame = frame.dropna(subset=["outcome", *cluster])
        arms = arms_of(labelled, tables, endpoint, frame, names)
        arms = replace(arms, frame=scaled(analysis, arms.frame))
        words = (arms.said, f"{outcome} at {at}", values.attrs["said"], arms.left_out)
        for level in arms.others:
            part, treated = arms.part(level)
            case = _Case(
                treated.to_numpy(float),
                part["value"].to_numpy(float),
                part["outcome"].to_numpy(float),
                design(part, covariates=names).matrix[:, 1:],
                part[cluster[0]].map(str).to_numpy() if cluster else None,
                adjusted_words(names),
                analysis.resamples,
                analysis.seed,
                analysis.alpha,
            )
            for row in kernel(case):
                yield row.within(*words, visit=visit, group=arms.group(level), n=len(part))


def _path_estimates(
    t: np.ndarray, m: np.ndarray, y: np.ndarray, rest: np.ndarray
) -> tuple[float, float, float]:
    """The paths a and b and the total effect, for resamples."""
    x, both = _designs(t, m, rest)
    a, total = np.linalg.lstsq(x, np.column_stack([m, y]), rcond=None)[0][1]
    b = np.linalg.lstsq(both, y, rcond=None)[0][2]
    return float(a), float(b), float(total)


def _mediation_rows(case: _Case) -> Iterator[StatisticRow]:
    paths = _mediation_paths(case.treatment, case.endpoint, case.outcome, case.rest, case.alpha)
    x, both = _designs(case.treatment, case.endpoint, case.rest)
    a = float(second_ols(x, case.endpoint)[1])
    full = second_ols(both, case.outcome)
    method = f"linear mediation{case.adjusted}"
    second = compare(
        paths.indirect,
        a * float(full[2]),
        "statsmodels OLS, product of coefficients",
        tolerance=CLOSED_FORM * 100,
        scale=max(abs(paths.indirect), abs(paths.a.se * paths.b.se)),
    )

    def through(*data: np.ndarray) -> float:
        a, b, _ = _path_estimates(*data)
        return a * b

    limits = case.bootstrap(through)
    yield Estimate(paths.indirect, *limits).row(
        "indirect_effect",
        second,
        method=f"{method}: effect through the endpoint, a b; BCa bootstrap, "
        f"{case.resamples} resamples; bootstrap p",
        note=CAVEAT,
    )
    for name, result, words in (
        ("path_a", paths.a, "effect of treatment on the endpoint"),
        ("path_b", paths.b, "effect of the endpoint on the outcome given treatment"),
        ("direct_effect", paths.direct, "effect of treatment given the endpoint"),
        ("total_effect", paths.total, "effect of treatment on the outcome"),
    ):
        yield result.row(name, method=f"{method}: {words}; t interval")
    yield _share_row(case, "proportion_mediated", paths, method)


def _share_row(case: _Case, statistic: str, paths: _Paths, method: str) -> StatisticRow:
    """Share of the total effect; meaningless where the total effect may be 0."""

    def share(*data: np.ndarray) -> float:
        a, b, total = _path_estimates(*data)
        return a * b / total if total else math.nan

    low, high, _ = case.bootstrap(share)
    weak = paths.total.p_value >= case.alpha
    return Estimate(paths.proportion, low, high).row(
        statistic,
        method=f"{method}: indirect over total effect; BCa bootstrap",
        note="the total effect is not significant, so its share is unstable" * weak,
    )


def _surrogacy_rows(case: _Case) -> Iterator[StatisticRow]:
    paths = _mediation_paths(case.treatment, case.endpoint, case.outcome, case.rest, case.alpha)
    alone = fit_linear(_designs(case.endpoint, case.endpoint, case.rest)[0], case.outcome)
    criteria = (
        ("prentice_1", paths.a, "treatment affects the endpoint", True),
        ("prentice_2", paths.total, "treatment affects the outcome", True),
        (
            "prentice_3",
            alone.term(1, case.alpha),
            "the endpoint is related to the outcome",
            True,
        ),
        ("prentice_4", paths.direct, "no effect of treatment given the endpoint", False),
    )
    for name, result, words, wanted in criteria:
        met = (result.p_value < case.alpha) == wanted
        said = "met" if met else "not met"
        if not wanted and met:
            said += " (not significant is no proof of no effect)"
        yield result.row(
            name,
            method=f"Prentice criterion: {words}; linear models, t test{case.adjusted}",
            note=said,
        )
    yield _share_row(case, "proportion_explained", paths, f"Freedman{case.adjusted}")

    def relative(*data: np.ndarray) -> float:
        a, _, total = _path_estimates(*data)
        return total / a if a else math.nan

    low, high, _ = case.bootstrap(relative)
    yield Estimate(paths.total.estimate / paths.a.estimate, low, high).row(
        "relative_effect",
        method="effect on the outcome per unit of effect on the endpoint; BCa bootstrap",
    )
    yield _individual_row(case)
    yield from guarded(_trial_rows(case), "r_squared_trial")


def _individual_row(case: _Case) -> StatisticRow:
    """Squared correlation of endpoint and outcome given treatment (and unit)."""
    blocks = [case.treatment[:, None], case.rest]
    if case.unit is not None:
        names = sorted(set(case.unit))[1:]
        units = np.column_stack([(case.unit == name).astype(float) for name in names] or [[]])
        blocks += [units, units * case.treatment[:, None]] if names else []
    block = np.column_stack([b for b in blocks if b.size])
    kept = block[:, np.linalg.norm(block, axis=0) > 0]
    result = partial(case.endpoint, case.outcome, kept, case.alpha)
    low, high = fisher_interval(result.estimate, result.df + 2, case.alpha)
    square = (0.0 if low <= 0 <= high else min(low**2, high**2), max(low**2, high**2))
    return Estimate(result.estimate**2, *square, result.p_value).row(
        "r_squared_individual",
        method="squared partial correlation of endpoint and outcome given treatment"
        + (", unit and their product" if case.unit is not None else "")
        + f"; Fisher z limits squared{case.adjusted}",
    )


def _trial_rows(case: _Case) -> Iterator[StatisticRow]:
    if case.unit is None:
        raise NotComputable("name the column of trials or centres in cluster")
    units = _unit_effects(case.treatment, case.endpoint, case.outcome, case.unit)
    k = len(units.names)
    low, high = fisher_interval(math.sqrt(units.r_squared), k, case.alpha)
    few = f"{k} units: fewer than {FEW_UNITS} say little" if k < FEW_UNITS else f"{k} units"
    yield Estimate(units.r_squared, max(low, 0.0) ** 2, high**2, n=k).row(
        "r_squared_trial",
        method="weighted R2 of unit effects on the outcome given those on the endpoint, two "
        "stages; Fisher z limits squared",
        note=join_notes(
            few,
            "errors of the unit effects are not taken out, which lowers R2; centres of one trial "
            "are no independent trials",
        ),
    )
