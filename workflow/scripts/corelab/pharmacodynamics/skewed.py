"""Volumes that are zero in some and skewed in the rest, and responders: models for both.

Gamma regression (log link), the two-part model, analysis of covariance of ranks, and proportions
with exact and score intervals. All kernels take plain arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.analysis_set import Arms, Design, adjusted_words
from corelab.pharmacodynamics.estimates import exponentiated, t_estimate
from corelab.pharmacodynamics.linear import fit_linear, second_ols
from corelab.pharmacodynamics.proportions import (
    exact_interval,
    risk_difference,
    two_counts,
    wilson_interval,
)
from corelab.provenance.two_computations import ITERATIVE, attempt, compare
from corelab.settings.analyses.base import SEED
from corelab.settings.analyses.comparison import ComparisonSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes, not_computable

#: A logistic coefficient beyond this is separation, not an effect.
SEPARATED = 10.0


@dataclass(frozen=True)
class _LogLinkFit:
    """A generalised linear model on the scale of its link; Pearson's dispersion (1 of a binomial
    model), ``df`` is inf where it is known.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    dispersion: float
    df: float

    def term(self, position: int, alpha: float = 0.05) -> Estimate:
        """Coefficient with Wald interval and test."""
        error = math.sqrt(float(self.covariance[position, position]))
        return t_estimate(float(self.coefficients[position]), error, self.df, alpha)


def _fit_gamma(matrix: Any, values: Any) -> _LogLinkFit:
    """Gamma regression with a log link by Fisher scoring; Pearson dispersion, as R's ``glm``."""
    x, y = np.asarray(matrix, float), np.asarray(values, float)
    n, p = x.shape
    if n <= p:
        raise NotComputable(f"{n} participants for {p} terms leave no residual degrees of freedom")
    if np.any(y <= 0):
        raise NotComputable(
            f"{int(np.sum(y <= 0))} values are 0 or below, which a gamma model does not have; "
            "use method two_part or rank"
        )
    # With a log link and variance mu^2 the weights are 1: X'X does for every step.
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ np.log(y)
    for _ in range(200):
        mu = np.exp(x @ beta)
        step = inverse @ x.T @ ((y - mu) / mu)
        beta = beta + step
        if np.max(np.abs(step)) < 1e-12 * (1 + np.max(np.abs(beta))):
            break
    else:
        raise NotComputable("the gamma model did not converge")
    mu = np.exp(x @ beta)
    dispersion = float(np.sum(((y - mu) / mu) ** 2) / (n - p))
    if dispersion < 1e-20:
        raise NotComputable("the model reproduces every value exactly: no residual variance")
    return _LogLinkFit(beta, dispersion * inverse, dispersion, float(n - p))


def _fit_logistic(matrix: Any, events: Any) -> _LogLinkFit:
    """Logistic regression by Newton's method."""
    x, y = np.asarray(matrix, float), np.asarray(events, float)
    if y.min() == y.max():
        raise NotComputable(f"every participant {'has' if y[0] else 'is without'} the event")
    scale = np.maximum(np.abs(x).max(axis=0), 1e-300)
    z, beta = x / scale, np.zeros(x.shape[1])
    for _ in range(60):
        mu = 1 / (1 + np.exp(-np.clip(z @ beta, -30, 30)))
        hessian = z.T @ (z * (mu * (1 - mu))[:, None])
        try:
            step = np.linalg.solve(hessian, z.T @ (y - mu))
        except np.linalg.LinAlgError:
            raise NotComputable("events are separated by the terms of the model") from None
        beta = beta + step
        if np.max(np.abs(z @ beta)) > 3 * SEPARATED:
            raise NotComputable("events are separated by the terms of the model")
        if np.max(np.abs(step)) < 1e-11 * (1 + np.max(np.abs(beta))):
            break
    mu = 1 / (1 + np.exp(-z @ beta))
    covariance = np.linalg.inv(z.T @ (z * (mu * (1 - mu))[:, None]))
    return _LogLinkFit(beta / scale, covariance / np.outer(scale, scale), 1.0, math.inf)


@dataclass(frozen=True)
class _TwoPart:
    """Log odds ratio of a value above 0, log ratio of means among these, ratio of the overall means
    (covariates standardised over all participants), and chi2 of the joint Wald test of both parts.
    """

    odds: Estimate
    size: Estimate
    ratio: Estimate
    chi2: float


def _overall_ratio(
    x: np.ndarray, y: np.ndarray, position: int, others: Sequence[int] = ()
) -> float:
    logistic, gamma = _fit_logistic(x, y > 0), _fit_gamma(x[y > 0], y[y > 0])
    means = []
    for value in (1.0, 0.0):
        at = x.copy()
        # Everybody in one arm: the indicators of further arms are 0.
        at[:, list(others)] = 0.0
        at[:, position] = value
        share = 1 / (1 + np.exp(-at @ logistic.coefficients))
        means.append(float(np.mean(share * np.exp(at @ gamma.coefficients))))
    return means[0] / means[1]


def _fit_two_part(
    matrix: Any,
    values: Any,
    position: int,
    alpha: float = 0.05,
    *,
    resamples: int = 1000,
    seed: int = SEED,
    others: Sequence[int] = (),
) -> _TwoPart:
    """Two-part model of a volume that is 0 in some: logistic, and gamma among the others.

    ``position`` is the column of the 0/1 term that is tested, ``others`` indicate further arms; the
    ratio has the percentile interval of a bootstrap within arms.
    """
    x, y = np.asarray(matrix, float), np.asarray(values, float)
    if np.any(y < 0):
        raise NotComputable(f"{int(np.sum(y < 0))} values are below 0; a two-part model has none")
    if np.all(y > 0):
        raise NotComputable("no value is 0; use method gamma")
    odds = _fit_logistic(x, y > 0).term(position, alpha)
    size = _fit_gamma(x[y > 0], y[y > 0]).term(position, alpha)
    chi2, p_value = _joint_test(odds, size)
    generator = np.random.default_rng(seed)
    _, label = np.unique(x[:, [position, *others]], axis=0, return_inverse=True)
    arms = [np.flatnonzero(label.ravel() == k) for k in range(label.max() + 1)]
    draws = []
    for _ in range(resamples):
        rows = np.concatenate([generator.choice(arm, arm.size) for arm in arms])
        try:
            draws.append(_overall_ratio(x[rows], y[rows], position, others))
        except (NotComputable, np.linalg.LinAlgError):
            continue
    low, high = math.nan, math.nan
    if len(draws) >= 0.9 * resamples:
        low, high = (float(v) for v in np.quantile(draws, [alpha / 2, 1 - alpha / 2]))
    ratio = Estimate(_overall_ratio(x, y, position, others), low, high, p_value)
    return _TwoPart(odds, size, ratio, chi2)


def _joint_test(odds: Estimate, size: Estimate) -> tuple[float, float]:
    """Joint Wald test of both parts of a two-part model, 2 df (Lachenbruch 1976): chi2 and p."""
    chi2 = math.fsum((part.estimate / part.se) ** 2 for part in (odds, size))
    return float(chi2), float(stats.chi2.sf(chi2, 2))


def _rank_ancova(
    values: Any, indicator: Any, covariates: Any = None, alpha: float = 0.05
) -> Estimate:
    """Analysis of covariance of ranks (Quade 1967): adjusted difference of mean ranks over n.

    The residuals of the ranks on the ranked covariates are compared between the arms. Without
    covariates the estimate is P(a > b) + P(a = b) / 2 - 1/2, the test Mann-Whitney's as t.
    """
    y, arm = stats.rankdata(values), np.asarray(indicator, float)
    n = y.size
    residuals = y - y.mean()
    if covariates is not None and np.size(covariates):
        block = np.apply_along_axis(stats.rankdata, 0, np.asarray(covariates, float))
        block = block - block.mean(axis=0)
        residuals = residuals - block @ np.linalg.lstsq(block, residuals, rcond=None)[0]
    fit = fit_linear(np.column_stack([np.ones(n), arm]), residuals / n)
    return fit.contrast([0.0, 1.0], alpha)


# ------------------------------------------------------------------------------------- the plan

#: Method of a comparison -> rows of one contrast.
METHODS = ("gamma", "two_part", "rank", "binary")
MAIN = {
    "gamma": "mean_ratio",
    "two_part": "mean_ratio",
    "rank": "rank_difference",
    "binary": "risk_difference",
}


@dataclass(frozen=True)
class Contrast:
    """A level of complete cases against the reference, with the design of all arms."""

    plan: Design
    arms: Arms
    level: str

    @property
    def values(self) -> np.ndarray:
        """Values of all arms."""
        return self.arms.frame["value"].to_numpy(float)

    @property
    def position(self) -> int:
        """Column of the contrast in the design."""
        return self.plan.index(f"{self.arms.by}={self.level}")

    @property
    def other_positions(self) -> list[int]:
        """Columns of the further arms."""
        arms = [k for k, t in enumerate(self.plan.terms) if t.startswith(f"{self.arms.by}=")]
        return [k for k in arms if k != self.position]

    @property
    def adjusted(self) -> str:
        """Words for the covariates."""
        return adjusted_words(self.arms.names)


def contrast_rows(
    analysis: ComparisonSpec, method: str, contrast: Contrast
) -> Iterator[StatisticRow]:
    """Statistics rows of one contrast by one of :data:`METHODS`."""
    kernel = {
        "gamma": _gamma_rows,
        "two_part": _two_part_rows,
        "rank": _rank_rows,
        "binary": _binary_rows,
    }[method]
    arms = contrast.arms
    both, everybody = arms.size(contrast.level, arms.reference), len(arms.frame)
    words = f"model of {everybody} participants of all arms" * (both < everybody)
    for row in kernel(analysis, contrast):
        yield row.within(group=arms.group(contrast.level), n=both).noted(words)


def _gamma_check(x: np.ndarray, y: np.ndarray, position: int, ours: Estimate) -> Second:
    import statsmodels.api as sm

    model = sm.GLM(y, x, family=sm.families.Gamma(sm.families.links.Log()))
    theirs, failed = attempt(lambda: model.fit(tol=1e-13), "statsmodels GLM, Gamma, log")
    if theirs is None:
        return Second(method=failed)
    compare(ours.se, float(theirs.bse[position]), "statsmodels GLM", tolerance=ITERATIVE)
    value = math.exp(float(theirs.params[position]))
    return compare(math.exp(ours.estimate), value, "statsmodels GLM, Gamma, log", tolerance=1e-6)


def _gamma_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[StatisticRow]:
    x, y = contrast.plan.matrix, contrast.values
    fit = _fit_gamma(x, y)
    result = fit.term(contrast.position, analysis.alpha)
    yield exponentiated(result).row(
        "mean_ratio",
        _gamma_check(x, y, contrast.position, result),
        method="gamma regression, log link, Pearson dispersion, Wald t interval, "
        f"df {fit.df:g}{contrast.adjusted}",
        note=f"dispersion {fit.dispersion:.3g}",
    )


def _two_part_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[StatisticRow]:
    import statsmodels.api as sm

    x, y, position = contrast.plan.matrix, contrast.values, contrast.position
    fit = _fit_two_part(
        x,
        y,
        position,
        analysis.alpha,
        resamples=analysis.resamples,
        seed=analysis.seed,
        others=contrast.other_positions,
    )
    zeros = f"{int(np.sum(y == 0))} of {y.size} values are 0"
    yield fit.ratio.row(
        "mean_ratio",
        method="two-part model (logistic, gamma): ratio of overall means, covariates "
        "standardised; percentile bootstrap within arms; p: joint Wald test, 2 df"
        + contrast.adjusted,
        note=join_notes(zeros, f"joint chi2 {fit.chi2:.4g}"),
    )
    logit = sm.GLM((y > 0).astype(float), x, family=sm.families.Binomial()).fit(tol=1e-13)
    odds, theirs = exponentiated(fit.odds), math.exp(float(logit.params[position]))
    yield odds.row(
        "odds_ratio",
        compare(odds.estimate, theirs, "statsmodels GLM, binomial", tolerance=1e-6),
        method=f"two-part model: odds of a value above 0, Wald{contrast.adjusted}",
        note=zeros,
    )
    positive = y > 0
    yield exponentiated(fit.size).row(
        "mean_ratio_of_positive",
        _gamma_check(x[positive], y[positive], position, fit.size),
        n=int(positive.sum()),
        method="two-part model: ratio of means among values above 0, gamma, log link"
        + contrast.adjusted,
    )


def _rank_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[StatisticRow]:
    arms = contrast.arms
    inside = arms.labels.isin([contrast.level, arms.reference])
    y = arms.frame.loc[inside, "value"].to_numpy(float)
    arm = (arms.labels[inside] == contrast.level).to_numpy(float)
    own = [
        k
        for k, term in enumerate(contrast.plan.terms)
        if term != "Intercept" and not term.startswith(f"{arms.by}=")
    ]
    block = contrast.plan.matrix[inside.to_numpy()][:, own] if own else None
    result = _rank_ancova(y, arm, block, analysis.alpha)
    if block is None:
        u = float(stats.mannwhitneyu(y[arm == 1], y[arm == 0]).statistic)
        share = u / (np.sum(arm == 1) * np.sum(arm == 0)) - 0.5
        second = compare(result.estimate, share, "scipy.stats.mannwhitneyu")
    else:
        ranked = np.apply_along_axis(stats.rankdata, 0, block)
        ranks = stats.rankdata(y)
        both = np.column_stack([np.ones(y.size), ranked])
        left = (ranks - both @ second_ols(both, ranks)) / y.size
        theirs = float(left[arm == 1].mean() - left[arm == 0].mean())
        second = compare(result.estimate, theirs, "statsmodels OLS of the ranks")
    yield result.row(
        "rank_difference",
        second,
        n=y.size,
        method="difference of mean ranks over n"
        + (" adjusted as Quade (1967)" if own else ", equal to P(a > b) + P(a = b) / 2 - 1/2")
        + f"; t interval, df {result.df:g}{contrast.adjusted}",
        note=f"{100 * (1 - np.unique(y).size / y.size):.0f} % of values tied",
    )


def _arm_share(values: np.ndarray, label: str, alpha: float) -> Iterator[StatisticRow]:
    from statsmodels.stats.proportion import proportion_confint

    k, n = int(values.sum()), values.size
    for statistic, limits, words, name in (
        ("proportion", wilson_interval(k, n, alpha), "Wilson score interval", "wilson"),
        ("proportion_exact", exact_interval(k, n, alpha), "Clopper-Pearson interval", "beta"),
    ):
        theirs = proportion_confint(k, n, alpha, method=name)
        for ours, other in zip(limits, theirs, strict=True):
            if math.isfinite(float(other)):
                compare(ours, float(other), "statsmodels proportion_confint", tolerance=1e-7)
        yield Estimate(k / n, *limits, n=n).row(
            statistic, group=label, method=words, note=f"{k}/{n}"
        )


def _binary_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[StatisticRow]:
    alpha, arms = analysis.alpha, contrast.arms
    a, b = arms.values(contrast.level), arms.values(arms.reference)
    odd = set(np.unique(np.concatenate([a, b]))) - {0.0, 1.0}
    if odd:
        raise NotComputable(
            f"a value is {min(odd):g}; method binary needs 0 and 1 (derivation: responder makes "
            "them of volumes)"
        )
    for values, level in ((a, contrast.level), (b, arms.reference)):
        yield from _arm_share(values, f"{arms.by}={level}", alpha)
    yield _difference_row(a, b, alpha)
    yield _ratio_row(a, b, alpha)
    try:
        fit = _fit_logistic(contrast.plan.matrix, arms.frame["value"])
        yield exponentiated(fit.term(contrast.position, alpha)).row(
            "odds_ratio", method=f"logistic regression, Wald interval{contrast.adjusted}"
        )
    except NotComputable as reason:
        yield not_computable("odds_ratio", str(reason))


def _difference_row(a: np.ndarray, b: np.ndarray, alpha: float) -> StatisticRow:
    from statsmodels.stats.proportion import confint_proportions_2indep

    counts = (int(a.sum()), a.size, int(b.sum()), b.size)
    result = risk_difference(*counts, alpha)
    theirs = confint_proportions_2indep(*counts, method="newcomb", alpha=alpha)
    compare(
        result.ci_low, float(theirs[0]), "statsmodels confint_proportions_2indep", tolerance=1e-7
    )
    return result.row(
        "risk_difference",
        n=a.size + b.size,
        method="difference of proportions, Newcombe hybrid score interval; p: " + result.method,
        note=two_counts(*counts),
    )


def _ratio_row(a: np.ndarray, b: np.ndarray, alpha: float) -> StatisticRow:
    ka, kb = int(a.sum()), int(b.sum())
    if not ka or not kb:
        return not_computable("risk_ratio", "an arm without any event")
    log = math.log(ka / a.size * b.size / kb)
    error = math.sqrt(1 / ka - 1 / a.size + 1 / kb - 1 / b.size)
    ratio = Estimate(math.exp(log))
    if error != 0:
        ratio = exponentiated(t_estimate(log, error, math.inf, alpha))
    return ratio.row(
        "risk_ratio",
        n=a.size + b.size,
        method="ratio of proportions, logarithmic interval (Katz 1978)",
        note=f"{ka}/{a.size} against {kb}/{b.size}",
    )
