"""Comparison of arms: t, Welch, Mann-Whitney with Hodges-Lehmann, ANCOVA, MMRM."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    not_computable,
    zeros_rule,
)
from corelab.pharmacodynamics import skewed, stratified
from corelab.pharmacodynamics.analysis_set import (
    Design,
    alpha_of,
    complete_cases,
    design,
    endpoint_by_visit,
    endpoints_of,
    join_notes,
    levels_of,
    participant_columns,
    with_covariates,
    zeros_words,
)
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
from corelab.pharmacodynamics.two_samples import student_t, two_samples, welch_t
from corelab.provenance.two_computations import CLOSED_FORM, compare
from corelab.settings.analyses.comparison import ComparisonSpec


@dataclass(frozen=True)
class RankComparison:
    """Mann-Whitney test with the shift it is about.

    Attributes
    ----------
    shift, ci_low, ci_high
        Hodges-Lehmann estimate, the median of all differences a - b, and its limits by inverting
        the test.
    probability
        P(a > b) + P(a = b) / 2.
    p_value
        Two-sided.
    exact
        Whether the null distribution is exact (no ties, fewer than 50 values per arm).
    u
        Mann-Whitney U of a.
    ties_percent
        Share of tied pairs between the arms.
    """

    shift: float
    ci_low: float
    ci_high: float
    probability: float
    p_value: float
    exact: bool
    u: float
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


def mann_whitney(a: Any, b: Any, alpha: float = 0.05) -> RankComparison:
    """Mann-Whitney test and Hodges-Lehmann shift a - b.

    Exact without ties and below 50 values per arm; otherwise normal with tie and continuity
    correction, as R's ``wilcox.test``.

    Examples
    --------
    Hollander and Wolfe (1973), p. 69, permeability constants; R gives p = 0.2544 and a shift of
    0.305 (-0.15 to 0.76).

    >>> x = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    >>> result = mann_whitney(x, [1.15, 0.88, 0.90, 0.74, 1.21])
    >>> [round(v, 4) for v in (result.p_value, result.shift, result.ci_low, result.ci_high)]
    [0.2544, 0.305, -0.15, 0.76]
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
    return RankComparison(
        float(np.median(differences)),
        float(differences[rank - 1]),
        float(differences[n * m - rank]),
        u / (n * m),
        p_value,
        exact,
        u,
        100 * ties,
    )


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: ComparisonSpec, tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``comparison``.

    Keys: ``endpoint``, ``by`` (default ``arm``), ``reference``, ``method`` (default ``ancova``),
    ``covariates`` (columns of participants, or ``baseline``), ``scale``. ANCOVA of a derivation
    against baseline has the baseline value as covariate, as its name says. The contrast
    ``arm=high|arm=placebo`` is high minus placebo. ``gamma``, ``two_part`` and ``rank`` are for
    skewed volumes with zeros, ``binary`` for responders (:mod:`.skewed`), ``gee`` and ``glmm`` for
    responders and grades at several visits (:mod:`.repeated_grades`);
    ``multiple_imputation`` and ``tipping_point`` for missing visits (:mod:`.missing_visits`).
    """
    if analysis.derivation == "change" and analysis.scale == "log":
        # The change of a logarithm is the log ratio.
        analysis = analysis.changed(derivation="log_ratio", scale="identity")
    for endpoint in endpoints_of(analysis):
        for method in as_list(analysis.method):
            if method in {"gee", "glmm"} or (
                method in {"mmrm", "multiple_imputation"}
                and not _ranked(analysis, tables, endpoint)
            ):
                yield from _of_all_visits(method)(analysis, tables, endpoint)
            else:
                yield from _each_visit(analysis, tables, endpoint, method)


def _of_all_visits(method: str) -> Callable[..., Iterator[dict[str, Any]]]:
    if method in {"gee", "glmm"}:
        return partial(analyse_grades, method=method)
    return analyse_mmrm if method == "mmrm" else analyse_imputed


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
) -> Iterator[dict[str, Any]]:
    head = {"endpoint": endpoint}
    try:
        by_visit = endpoint_by_visit(analysis, tables, endpoint)
    except NotComputable as reason:
        yield not_computable("mean_difference", str(reason), method=method, **head)
        return
    for visit, frame in by_visit:
        try:
            rule, logs = _log_zeros(analysis, frame)
            texts, used, planned = join_notes(frame.attrs["said"], logs), method, analysis
            if frame.attrs["ranks"] or rule == "rank":
                used, planned = "rank", analysis.changed(scale="identity")
                if method in {"t", "welch", "mann_whitney"}:
                    # These have no covariates, so the ranks have no baseline either.
                    planned = planned.changed(derivation="value", covariates=[])
                texts += f" instead of {method}" * (method != "rank")
            for row in _kernel(used)(planned, tables, endpoint, frame, used):
                note = str(row.get("note", ""))
                if texts and not note.startswith("not_computable"):
                    note = join_notes(texts, note)
                yield {**head, "visit": visit, **row, "note": note}
        except NotComputable as reason:
            main = skewed.MAIN.get(method, "mean_difference")
            yield not_computable(main, str(reason), method=method, visit=visit, **head)


def _kernel(method: str) -> Callable[..., Iterator[dict[str, Any]]]:
    if method in skewed.METHODS:
        return _model_rows
    return _ancova_rows if method == "ancova" else _two_sample_rows


def _arms(
    analysis: ComparisonSpec, tables: Tables, frame: pd.DataFrame
) -> tuple[str, pd.DataFrame]:
    by = analysis.arms
    column = participant_columns(
        analysis.changed(categorical=[*analysis.categorical, by]), tables, [by]
    )
    return by, frame.join(column, how="inner")


def _model_rows(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, frame: pd.DataFrame, method: str
) -> Iterator[dict[str, Any]]:
    """Rows of the models for skewed volumes and responders."""
    by, frame = _arms(analysis, tables, frame)
    names = covariates_of(analysis)
    frame = with_covariates(frame, analysis, tables, endpoint=endpoint, names=names)
    frame, note = complete_cases(frame, ["value", by, *names], analysis, tables)
    if analysis.scale != "identity":
        raise NotComputable(f"method {method} has its own scale; leave out the key scale")
    reference, others, said = levels_of(frame[by], by, analysis.reference)
    plan = design(frame, by=by, reference=reference, covariates=names)
    text: set[tuple[str, str]] = set()
    strata = strata_of(analysis, tables, frame)
    if method == "binary" and strata is not None:
        yield from _stratified_risks(analysis, frame, by, reference, others, strata)
    for level in others:
        contrast = skewed.Contrast(plan, frame, by, level, reference, names)
        try:
            for row in skewed.contrast_rows(analysis, method, contrast):
                # The reference arm's share belongs to every contrast and is one row.
                key = (row["statistic"], row["group"])
                if key in text:
                    continue
                text.add(key)
                notes = join_notes(said, note, str(row.get("note", "")))
                if str(row.get("note", "")).startswith("not_computable"):
                    notes = str(row["note"])
                yield {**row, "note": notes}
        except NotComputable as reason:
            yield not_computable(
                skewed.MAIN[method], str(reason), group=contrast.group, method=method
            )


def _stratified_risks(
    analysis: ComparisonSpec,
    frame: pd.DataFrame,
    by: str,
    reference: str,
    others: Sequence[str],
    strata: pd.Series,
) -> Iterator[dict[str, Any]]:
    labels = frame[by].map(str)
    for level in others:
        group = f"{by}={level}|{by}={reference}"
        inside = labels.isin([level, reference]) & strata.notna()
        part = frame[inside]
        try:
            row = stratified.risk_row(
                part["value"], labels[inside] == level, strata[inside], alpha_of(analysis)
            )
            yield {"group": group, **row}
        except NotComputable as reason:
            yield not_computable("stratified_risk_difference", str(reason), group=group)


def _ancova_rows(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, frame: pd.DataFrame, method: str
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    by, frame = _arms(analysis, tables, frame)
    names = covariates_of(analysis)
    frame = with_covariates(frame, analysis, tables, endpoint=endpoint, names=names)
    frame, note = complete_cases(frame, ["value", by, *names], analysis, tables)
    scale = analysis.scale
    frame = scaled(analysis, frame)
    reference, others, said = levels_of(frame[by], by, analysis.reference)
    plan = design(frame, by=by, reference=reference, covariates=names)
    fit = fit_linear(plan.matrix, frame["value"])
    robust = str(analysis.robust or "")
    if robust:
        fit = with_hc3(fit, plan.matrix, frame["value"])
    checks = influence(plan.matrix, frame["value"])
    second = second_ols(plan.matrix, frame["value"])
    definition = f"ANCOVA by least squares, {scale} scale; terms "
    definition += ", ".join(covariate_words(analysis, plan.terms[1:]))
    if not names:
        definition = f"one-way analysis of variance, {scale} scale"
    definition += "; HC3 standard errors" * bool(robust) + f"; t interval, df {fit.df}"
    diagnostics = (
        f"residuals: Shapiro-Wilk p {checks['shapiro_p']:.3g}, Breusch-Pagan p "
        f"{checks['breusch_pagan_p']:.3g}, largest Cook's distance "
        f"{checks['max_cooks_distance']:.3g}"
    )
    common = {"n": fit.n, "method": definition}
    for level in others:
        weights = np.zeros(len(plan.terms))
        weights[plan.index(f"{by}={level}")] = 1
        result = fit.contrast(weights, alpha)
        yield {
            **common,
            "statistic": "mean_difference",
            "group": f"{by}={level}|{by}={reference}",
            **result.columns(),
            "n": int(frame[by].map(str).isin([level, reference]).sum()),
            **compare(
                result.estimate,
                float(second[plan.index(f"{by}={level}")]),
                "statsmodels OLS",
                scale=result.standard_error,
                tolerance=CLOSED_FORM * 100,
            ),
            "note": join_notes(
                said,
                note,
                f"model of {fit.n} participants of all arms" if len(others) > 1 else "",
                diagnostics,
                _few(frame[by], (level, reference)),
            ),
        }
    if analysis.subgroups:
        split = participant_columns(
            analysis.changed(categorical=as_list(analysis.subgroups)),
            tables,
            list(analysis.subgroups),
        ).add_prefix("_")
        yield from stratified.subgroup_rows(
            analysis, frame.join(split), by, reference, others, names, alpha
        )
    if _dunnett(analysis):
        positions = {level: plan.index(f"{by}={level}") for level in others}
        yield from _dunnett_rows(fit, positions, by, reference, alpha, common)
    for level in (reference, *others):
        weights = _least_squares_mean(plan, by, level)
        result = fit.contrast(weights, alpha)
        yield {
            **common,
            "statistic": "adjusted_mean",
            "group": f"{by}={level}",
            **result.columns(),
            "p_value": math.nan,
            "n": int(np.sum(frame[by].map(str) == level)),
            "note": "covariates at their means, levels of a factor weighted equally",
        }


def _dunnett(analysis: ComparisonSpec) -> bool:
    from corelab.pharmacodynamics.multiplicity import family_of

    named = family_of(analysis)
    return analysis.adjustment == "dunnett" or (named is not None and named[1] == "dunnett")


def _dunnett_rows(
    fit: LinearFit,
    positions: Mapping[str, int],
    by: str,
    reference: str,
    alpha: float,
    common: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Many-to-one comparisons with limits and p of the multivariate t of their contrasts."""
    at = list(positions.values())
    values, spread = fit.coefficients[at], fit.covariance[np.ix_(at, at)]
    errors = np.sqrt(np.diag(spread))
    p, critical = max_abs_t(values / errors, spread / np.outer(errors, errors), fit.df, alpha)
    for k, level in enumerate(positions):
        yield {
            **common,
            "statistic": "mean_difference_simultaneous",
            "group": f"{by}={level}|{by}={reference}",
            "estimate": float(values[k]),
            "ci_low": float(values[k] - critical * errors[k]),
            "ci_high": float(values[k] + critical * errors[k]),
            "p_value": float(p[k]),
            "method": f"{common['method']}; Dunnett, two-sided, critical value {critical:.4f}",
        }


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


def _few(column: pd.Series, levels: tuple[str, ...]) -> str:
    sizes = {level: int(np.sum(column.map(str) == level)) for level in levels}
    smallest = min(sizes, key=lambda level: sizes[level])
    if sizes[smallest] < 5:
        return f"only {sizes[smallest]} participants in {column.name}={smallest}"
    return ""


def _two_sample_rows(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, frame: pd.DataFrame, method: str
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    if analysis.covariates:
        raise NotComputable(f"method {method} takes no covariates; use ancova or mmrm")
    by, frame = _arms(analysis, tables, frame)
    frame, note = complete_cases(frame, ["value", by], analysis, tables)
    frame = scaled(analysis, frame)
    reference, others, said = levels_of(frame[by], by, analysis.reference)
    labels = frame[by].map(str)
    strata = strata_of(analysis, tables, frame)
    b = frame.loc[labels == reference, "value"].to_numpy()
    for level in others:
        a = frame.loc[labels == level, "value"].to_numpy()
        head = {
            "group": f"{by}={level}|{by}={reference}",
            "n": a.size + b.size,
            "note": join_notes(said, note, _few(frame[by], (level, reference))),
        }
        try:
            yield from _two_samples_of(a, b, method, alpha, head)
            if method == "mann_whitney" and strata is not None:
                inside = labels.isin([level, reference]) & strata.notna()
                z, p = stratified.van_elteren(
                    frame.loc[inside, "value"], labels[inside] == level, strata[inside]
                )
                yield {
                    **head,
                    "statistic": "van_elteren_z",
                    "estimate": z,
                    "p_value": p,
                    "n": int(inside.sum()),
                    "method": f"van Elteren's stratified Wilcoxon test, {strata.nunique()} strata, "
                    "weights 1 / (n + 1)",
                }
        except NotComputable as reason:
            yield not_computable(
                "mean_difference", str(reason), group=head["group"], n=head["n"], method=method
            )


def strata_of(analysis: ComparisonSpec, tables: Tables, frame: pd.DataFrame) -> pd.Series | None:
    """Combination of the levels of the key ``strata`` per participant; None without it."""
    names = list(analysis.strata)
    if not names:
        return None
    levels = participant_columns(analysis.changed(categorical=names), tables, names)
    levels = levels.reindex(frame.index)
    return levels.astype(str).agg(", ".join, axis=1).where(levels.notna().all(axis=1))


def _two_samples_of(
    a: np.ndarray, b: np.ndarray, method: str, alpha: float, head: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if method in {"t", "welch"}:
        result = (student_t if method == "t" else welch_t)(a, b, alpha)
        theirs = stats.ttest_ind(a, b, equal_var=method == "t")
        compare(result.p_value, float(theirs.pvalue), "scipy.stats.ttest_ind")
        interval = theirs.confidence_interval(1 - alpha)
        middle = (float(interval.low) + float(interval.high)) / 2
        name = "Student, pooled variance" if method == "t" else "Welch, unequal variances"
        yield {
            **head,
            "statistic": "mean_difference",
            **result.columns(),
            "method": f"t test ({name}), df {result.df:.6g}",
            **compare(
                result.estimate,
                middle,
                "scipy.stats.ttest_ind",
                scale=max(result.standard_error, abs(result.estimate)),
            ),
        }
        return
    ranks = mann_whitney(a, b, alpha)
    test = stats.mannwhitneyu(a, b, method="exact" if ranks.exact else "asymptotic")
    compare(ranks.p_value, float(test.pvalue), "scipy.stats.mannwhitneyu")
    how = "exact" if ranks.exact else "normal approximation with tie and continuity correction"
    definition = f"Mann-Whitney, {how}"
    tied = f"{ranks.ties_percent:.1f} % of pairs tied" if ranks.ties_percent else ""
    yield {
        **head,
        "statistic": "hodges_lehmann_shift",
        "estimate": ranks.shift,
        "ci_low": ranks.ci_low,
        "ci_high": ranks.ci_high,
        "p_value": ranks.p_value,
        "method": f"Hodges-Lehmann median of pairwise differences, CI by inversion; {definition}",
        "note": join_notes(head["note"], tied),
    }
    yield {
        **head,
        "statistic": "probability_of_superiority",
        "estimate": ranks.probability,
        "p_value": ranks.p_value,
        "method": f"P(a > b) + P(a = b) / 2; {definition}",
        **compare(
            ranks.probability,
            float(test.statistic) / (a.size * b.size),
            "scipy.stats.mannwhitneyu",
        ),
        "note": join_notes(head["note"], tied),
    }
    if a.size > 1 and b.size > 1:
        mean = welch_t(a, b, alpha)
        yield {
            **head,
            "statistic": "mean_difference",
            **mean.columns(),
            "p_value": math.nan,
            "method": "difference of means, Welch interval; descriptive",
            "note": join_notes(head["note"], "the test of this analysis is that of the shift"),
        }
