"""Comparison of arms: t, Welch, Mann-Whitney with Hodges-Lehmann, ANCOVA, MMRM."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.measurement.selection import NotComputable, Tables, as_list, zeros_rule
from corelab.pharmacodynamics import skewed, stratified
from corelab.pharmacodynamics.analysis_set import (
    Arms,
    Design,
    arms_of,
    each_visit,
    endpoint_by_visit,
    endpoints_of,
    participant_columns,
    strata_of,
    zeros_words,
)
from corelab.pharmacodynamics.estimates import guarded
from corelab.pharmacodynamics.linear import (
    LinearFit,
    fit_linear,
    influence,
    second_ols,
    with_hc3,
)
from corelab.pharmacodynamics.missing_visits import analyse_imputed
from corelab.pharmacodynamics.mmrm import analyse_mmrm
from corelab.pharmacodynamics.modelling import max_abs_t
from corelab.pharmacodynamics.repeated_grades import analyse_grades
from corelab.pharmacodynamics.scales import covariate_words, covariates_of, scaled
from corelab.pharmacodynamics.two_samples import second_t, student_t, two_samples, welch_t
from corelab.provenance.two_computations import CLOSED_FORM, compare
from corelab.settings.analyses.comparison import ComparisonSpec
from corelab.terms.results import Estimate, StatisticRow, join_notes


@dataclass(frozen=True)
class _RankComparison:
    """Mann-Whitney test: ``shift`` is Hodges-Lehmann's, the median of all differences a - b with
    limits by inverting the test; ``probability`` is P(a > b) + P(a = b) / 2.
    """

    shift: Estimate
    probability: float
    exact: bool
    ties_percent: float


@cache
def _null_shares(n: int, m: int) -> np.ndarray:
    """Share of the arrangements of n and m values that give U = 0, 1, ... n m."""
    # Gaussian binomial coefficient: product of (1 - q^(m+i)) / (1 - q^i).
    counts = np.zeros(n * m + 1)
    counts[0] = 1.0
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            counts[u] -= counts[u - m - i]
        for u in range(i, n * m + 1):
            counts[u] += counts[u - i]
    shares = counts / counts.sum()
    shares.flags.writeable = False
    return shares


def _mann_whitney(a: Any, b: Any, alpha: float = 0.05) -> _RankComparison:
    """Exact without ties and below 50 values per arm; otherwise normal with tie and continuity
    correction, as R's ``wilcox.test``.
    """
    a, b = two_samples(a, b, least=1)
    n, m = a.size, b.size
    differences = np.sort((a[:, None] - b[None, :]).ravel())
    ties = float(np.mean(differences == 0))
    u = float(np.sum(differences > 0) + 0.5 * np.sum(differences == 0))
    together = np.concatenate([a, b])
    _, counts = np.unique(together, return_counts=True)
    total = n + m
    if counts.size == 1:
        raise NotComputable(f"no variance: every value is {together[0]:g}")
    exact = bool(counts.max() == 1 and n < 50 and m < 50)
    if exact:
        null = _null_shares(n, m)
        smaller = min(u, n * m - u)
        p_value = min(1.0, 2 * float(np.sum(null[: int(smaller) + 1])))
        rank = int(np.searchsorted(np.cumsum(null), alpha / 2, side="left"))
    else:
        variance = n * m / 12 * (total + 1 - np.sum(counts**3 - counts) / (total * (total - 1)))
        z = max(abs(u - n * m / 2) - 0.5, 0.0) / math.sqrt(variance)
        p_value = float(2 * stats.norm.sf(z))
        half = float(stats.norm.ppf(1 - alpha / 2)) * math.sqrt(variance)
        rank = math.floor(n * m / 2 - half + 0.5)
    rank = max(rank, 1)
    low, high = float(differences[rank - 1]), float(differences[n * m - rank])
    shift = Estimate(float(np.median(differences)), low, high, p_value)
    return _RankComparison(shift, u / (n * m), exact, 100 * ties)


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: ComparisonSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``comparison``.

    The contrast ``arm=high|arm=placebo`` is high minus placebo. ANCOVA of a derivation against
    baseline has the baseline value as covariate, as its name says. ``gamma``, ``two_part``,
    ``rank`` and ``binary`` are in :mod:`.skewed`, ``gee`` and ``glmm`` in :mod:`.repeated_grades`,
    ``mmrm`` in :mod:`.mmrm`, ``multiple_imputation`` in :mod:`.missing_visits`.
    """
    if analysis.derivation == "change" and analysis.scale == "log":
        # The change of a logarithm is the log ratio.
        analysis = analysis.changed(derivation="log_ratio", scale="identity")
    for endpoint in endpoints_of(analysis):
        for method in as_list(analysis.method):
            yield from _kernel(analysis, tables, endpoint, method)(analysis, tables, endpoint)


def _kernel(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, method: str
) -> Callable[[ComparisonSpec, Tables, str], Iterator[StatisticRow]]:
    if method in {"gee", "glmm"}:
        return partial(analyse_grades, method=method)
    if method in {"mmrm", "multiple_imputation"} and not _ranked(analysis, tables, endpoint):
        return analyse_mmrm if method == "mmrm" else analyse_imputed
    return partial(_each_visit, method=method)


def _ranked(analysis: ComparisonSpec, tables: Tables, endpoint: str) -> bool:
    """Whether values of 0 leave a visit its order only."""
    try:
        frames = [frame for _, frame in endpoint_by_visit(analysis, tables, endpoint)]
        return any(
            frame.attrs["ranks"] or _log_zeros(analysis, frame)[0] == "rank" for frame in frames
        )
    except NotComputable:
        return False


def _log_zeros(analysis: ComparisonSpec, frame: pd.DataFrame) -> tuple[str, str]:
    """Rule and words for values of 0 on the log scale; empty where there are none."""
    if analysis.scale != "log":
        return "", ""
    offset = zeros_rule(analysis)[1]
    columns = [c for c in ("value", "baseline") if c in frame.columns]
    zeros = int((frame[columns] + offset <= 0).any(axis=1).sum())
    if zeros:
        return "rank", zeros_words(analysis, zeros, len(frame))
    return (
        ("offset", f"{offset:g} added to every value before the logarithm") if offset else ("", "")
    )


def _each_visit(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, method: str
) -> Iterator[StatisticRow]:
    def rows(frame: pd.DataFrame) -> Iterator[StatisticRow]:
        rule, logs = _log_zeros(analysis, frame)
        texts, used, planned = join_notes(frame.attrs["said"], logs), method, analysis
        if frame.attrs["ranks"] or rule == "rank":
            used, planned = "rank", analysis.changed(scale="identity")
            if method in {"t", "welch", "mann_whitney"}:
                # These have no covariates, so the ranks have no baseline either.
                planned = planned.changed(derivation="value", covariates=[])
            texts += f" instead of {method}" * (method != "rank")
        kernel = _two_sample_rows
        if used in skewed.METHODS or used == "ancova":
            kernel = _ancova_rows if used == "ancova" else _model_rows
        for row in kernel(planned, tables, endpoint, frame, used):
            yield row.within(texts)

    def of_visit(visit: str, frame: pd.DataFrame) -> Iterator[StatisticRow]:
        yield from guarded(rows(frame), skewed.MAIN.get(method, "mean_difference"))

    for row in each_visit(analysis, tables, endpoint, of_visit, "mean_difference"):
        yield row.within(method=method)


def _once(rows: Iterable[StatisticRow], given: set[tuple[str, str]]) -> Iterator[StatisticRow]:
    """Rows whose statistic and group were not given before."""
    for row in rows:
        key = (row.statistic, row.group)
        if key not in given:
            given.add(key)
            yield row


def _model_rows(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, frame: pd.DataFrame, method: str
) -> Iterator[StatisticRow]:
    """Rows of the models for skewed volumes and responders."""
    arms = arms_of(analysis, tables, endpoint, frame, covariates_of(analysis))
    if analysis.scale != "identity":
        raise NotComputable(f"method {method} has its own scale; leave out the key scale")
    plan = arms.design()
    strata = strata_of(analysis, tables, arms.frame)
    if method == "binary" and strata is not None:
        for level in arms.others:
            part, inside = arms.part(level, strata.notna())
            rows = stratified.risk_rows(part["value"], inside, strata[part.index], analysis.alpha)
            yield from guarded(rows, "stratified_risk_difference", group=arms.group(level))
    # The reference arm's share belongs to every contrast and is one row.
    given: set[tuple[str, str]] = set()
    for level in arms.others:
        contrast = skewed.Contrast(plan, arms, level)
        rows = _once(skewed.contrast_rows(analysis, method, contrast), given)
        place = {"group": arms.group(level), "method": method}
        yield from guarded(rows, skewed.MAIN[method], arms.note, **place)


def _ancova_rows(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, frame: pd.DataFrame, method: str
) -> Iterator[StatisticRow]:
    alpha, names = analysis.alpha, covariates_of(analysis)
    arms = arms_of(analysis, tables, endpoint, frame, names)
    arms = replace(arms, frame=scaled(analysis, arms.frame))
    plan, values = arms.design(), arms.frame["value"]
    fit = fit_linear(plan.matrix, values)
    robust = bool(analysis.robust)
    if robust:
        fit = with_hc3(fit, plan.matrix, values)
    checks = influence(plan.matrix, values)
    second = second_ols(plan.matrix, values)
    definition = f"ANCOVA by least squares, {analysis.scale} scale; terms "
    definition += ", ".join(covariate_words(analysis, plan.terms[1:]))
    if not names:
        definition = f"one-way analysis of variance, {analysis.scale} scale"
    definition += "; HC3 standard errors" * robust + f"; t interval, df {fit.df}"
    diagnostics = (
        f"residuals: Shapiro-Wilk p {checks.shapiro_p:.3g}, Breusch-Pagan p "
        f"{checks.breusch_pagan_p:.3g}, largest Cook's distance {checks.max_cooks_distance:.3g}"
    )
    all_arms = f"model of {fit.n} participants of all arms" * (len(arms.others) > 1)
    positions = {level: plan.index(f"{arms.by}={level}") for level in arms.others}
    for level, position in positions.items():
        result = fit.term(position, alpha)
        check = compare(
            result.estimate,
            float(second[position]),
            "statsmodels OLS",
            scale=result.se,
            tolerance=CLOSED_FORM * 100,
        )
        yield result.row(
            "mean_difference",
            check,
            group=arms.group(level),
            n=arms.size(level, arms.reference),
            method=definition,
            note=join_notes(arms.note, all_arms, diagnostics, arms.few(level)),
        )
    if analysis.subgroups:
        split = participant_columns(
            analysis.changed(categorical=as_list(analysis.subgroups)),
            tables,
            list(analysis.subgroups),
        ).add_prefix("_")
        yield from stratified.subgroup_rows(
            analysis, replace(arms, frame=arms.frame.join(split)), alpha
        )
    if _dunnett(analysis):
        for row in _dunnett_rows(fit, positions, arms, alpha, definition):
            yield row.within(n=fit.n)
    for level in (arms.reference, *arms.others):
        yield fit.contrast(_least_squares_mean(plan, arms.by, level), alpha).row(
            "adjusted_mean",
            group=f"{arms.by}={level}",
            p_value=math.nan,
            n=arms.size(level),
            method=definition,
            note="covariates at their means, levels of a factor weighted equally",
        )


def _dunnett(analysis: ComparisonSpec) -> bool:
    from corelab.pharmacodynamics.multiplicity import family_of

    named = family_of(analysis)
    return analysis.adjustment == "dunnett" or (named is not None and named[1] == "dunnett")


def _dunnett_rows(
    fit: LinearFit, positions: Mapping[str, int], arms: Arms, alpha: float, definition: str
) -> Iterator[StatisticRow]:
    """Many-to-one comparisons with limits and p of the multivariate t of their contrasts."""
    at = list(positions.values())
    values, spread = fit.coefficients[at], fit.covariance[np.ix_(at, at)]
    errors = np.sqrt(np.diag(spread))
    p, critical = max_abs_t(values / errors, spread / np.outer(errors, errors), fit.df, alpha)
    for level, value, half, own in zip(positions, values, critical * errors, p, strict=True):
        yield Estimate(float(value), float(value - half), float(value + half), float(own)).row(
            "mean_difference_simultaneous",
            group=arms.group(level),
            method=f"{definition}; Dunnett, two-sided, critical value {critical:.4f}",
        )


def _least_squares_mean(plan: Design, by: str, level: str) -> np.ndarray:
    """Weights of a least-squares mean: numbers at their mean, factor levels equally."""
    weights = plan.matrix.mean(axis=0)
    factors: dict[str, list[int]] = {}
    for position, term in enumerate(plan.terms):
        if "=" in term:
            factors.setdefault(term.split("=", 1)[0], []).append(position)
    for name, positions in factors.items():
        weights[positions] = 0.0 if name == by else 1.0 / (len(positions) + 1)
    if f"{by}={level}" in plan.terms:
        weights[plan.index(f"{by}={level}")] = 1.0
    return weights


def _two_sample_rows(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, frame: pd.DataFrame, method: str
) -> Iterator[StatisticRow]:
    if analysis.covariates:
        raise NotComputable(f"method {method} takes no covariates; use ancova or mmrm")
    arms = arms_of(analysis, tables, endpoint, frame, [])
    arms = replace(arms, frame=scaled(analysis, arms.frame))
    strata = strata_of(analysis, tables, arms.frame)
    b = arms.values(arms.reference)
    for level in arms.others:
        a = arms.values(level)
        rows = [(_t_rows if method in {"t", "welch"} else _rank_rows)(a, b, method, analysis.alpha)]
        if method == "mann_whitney" and strata is not None:
            rows.append(_stratified_rank_rows(arms, level, strata))
        note = join_notes(arms.note, arms.few(level))
        for row in guarded(
            itertools.chain(*rows), "mean_difference", group=arms.group(level), n=a.size + b.size
        ):
            yield row.within(note)


def _stratified_rank_rows(arms: Arms, level: str, strata: pd.Series) -> Iterator[StatisticRow]:
    part, inside = arms.part(level, strata.notna())
    z, p = stratified.van_elteren(part["value"], inside, strata[part.index])
    yield Estimate(z, p_value=p, n=len(part)).row(
        "van_elteren_z",
        method=f"van Elteren's stratified Wilcoxon test, {strata.nunique()} strata, "
        "weights 1 / (n + 1)",
    )


def _t_rows(a: np.ndarray, b: np.ndarray, method: str, alpha: float) -> Iterator[StatisticRow]:
    result = (student_t if method == "t" else welch_t)(a, b, alpha)
    theirs = stats.ttest_ind(a, b, equal_var=method == "t")
    name = "Student, pooled variance" if method == "t" else "Welch, unequal variances"
    yield result.row(
        "mean_difference",
        second_t(result, theirs, "scipy.stats.ttest_ind", alpha),
        method=f"t test ({name}), df {result.df:.6g}",
    )


def _rank_rows(a: np.ndarray, b: np.ndarray, method: str, alpha: float) -> Iterator[StatisticRow]:
    ranks = _mann_whitney(a, b, alpha)
    test = stats.mannwhitneyu(a, b, method="exact" if ranks.exact else "asymptotic")
    compare(ranks.shift.p_value, float(test.pvalue), "scipy.stats.mannwhitneyu")
    how = "exact" if ranks.exact else "normal approximation with tie and continuity correction"
    definition = f"Mann-Whitney, {how}"
    tied = f"{ranks.ties_percent:.1f} % of pairs tied" if ranks.ties_percent else ""
    yield ranks.shift.row(
        "hodges_lehmann_shift",
        method=f"Hodges-Lehmann median of pairwise differences, CI by inversion; {definition}",
        note=tied,
    )
    share = float(test.statistic) / (a.size * b.size)
    yield Estimate(ranks.probability, p_value=ranks.shift.p_value).row(
        "probability_of_superiority",
        compare(ranks.probability, share, "scipy.stats.mannwhitneyu"),
        method=f"P(a > b) + P(a = b) / 2; {definition}",
        note=tied,
    )
    if a.size > 1 and b.size > 1:
        yield welch_t(a, b, alpha).row(
            "mean_difference",
            p_value=math.nan,
            method="difference of means, Welch interval; descriptive",
            note="the test of this analysis is that of the shift",
        )
