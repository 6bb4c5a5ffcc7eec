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
import pandas as pd
from scipy import stats

from corelab.measurement.selection import NotComputable, not_computable
from corelab.pharmacodynamics.analysis_set import Design, alpha_of, join_notes
from corelab.pharmacodynamics.linear import Estimate, fit_linear, second_ols, t_estimate
from corelab.pharmacodynamics.ordinal import (
    exact_interval,
    fisher_p,
    risk_difference,
    two_shares_p,
    wilson_interval,
)
from corelab.provenance.two_computations import ITERATIVE, attempt, compare
from corelab.settings.analyses.comparison import ComparisonSpec

#: A logistic coefficient beyond this is separation, not an effect.
SEPARATED = 10.0


@dataclass(frozen=True)
class LogLinkFit:
    """A generalised linear model: coefficients on the scale of the link.

    Attributes
    ----------
    coefficients, covariance
        (p,) and (p, p).
    dispersion
        Pearson's; 1 for a binomial model.
    df
        Residual degrees of freedom; inf where the dispersion is known.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    dispersion: float
    df: float

    def term(self, position: int, alpha: float = 0.05) -> Estimate:
        """Coefficient with Wald interval and test."""
        error = math.sqrt(float(self.covariance[position, position]))
        return t_estimate(float(self.coefficients[position]), error, self.df, alpha)


def fit_gamma(matrix: Any, values: Any) -> LogLinkFit:
    """Gamma regression with a log link by Fisher scoring; Pearson dispersion, as R's ``glm``.

    Parameters
    ----------
    matrix
        (n, p) design with intercept.
    values
        (n,) responses above 0.

    Raises
    ------
    NotComputable
        For a response of 0 or below, or too few participants.

    Examples
    --------
    Two groups: the coefficients are the logarithms of the means.

    >>> fit = fit_gamma([[1, 0], [1, 0], [1, 1], [1, 1]], [2.0, 4.0, 8.0, 16.0])
    >>> np.exp(fit.coefficients).round(6).tolist()
    [3.0, 4.0]
    """
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
    return LogLinkFit(beta, dispersion * inverse, dispersion, float(n - p))


def fit_logistic(matrix: Any, events: Any) -> LogLinkFit:
    """Logistic regression by Newton's method.

    Raises
    ------
    NotComputable
        If events and non-events are separated by the design, so that no maximum exists.

    Examples
    --------
    >>> x = [[1, 0]] * 4 + [[1, 1]] * 4
    >>> fit = fit_logistic(x, [1, 0, 0, 0, 1, 1, 1, 0])
    >>> round(float(np.exp(fit.coefficients[1])), 6)
    9.0
    """
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
    return LogLinkFit(beta / scale, covariance / np.outer(scale, scale), 1.0, math.inf)


@dataclass(frozen=True)
class TwoPart:
    """Odds of any lesion, ratio of the sizes of lesions, and both together.

    Attributes
    ----------
    odds
        Log odds ratio of a value above 0.
    size
        Log ratio of means among values above 0.
    mean_ratio, ci_low, ci_high
        Ratio of the overall means (covariates standardised over all participants) with the
        percentile interval of a bootstrap within arms.
    chi2, p_value
        Joint Wald test of both parts, two degrees of freedom (Lachenbruch 1976).
    """

    odds: Estimate
    size: Estimate
    mean_ratio: float
    ci_low: float
    ci_high: float
    chi2: float
    p_value: float


def _overall_ratio(
    x: np.ndarray, y: np.ndarray, position: int, others: Sequence[int] = ()
) -> float:
    logistic, gamma = fit_logistic(x, y > 0), fit_gamma(x[y > 0], y[y > 0])
    means = []
    for value in (1.0, 0.0):
        at = x.copy()
        # Everybody in one arm: the indicators of further arms are 0.
        at[:, list(others)] = 0.0
        at[:, position] = value
        share = 1 / (1 + np.exp(-at @ logistic.coefficients))
        means.append(float(np.mean(share * np.exp(at @ gamma.coefficients))))
    return means[0] / means[1]


def fit_two_part(
    matrix: Any,
    values: Any,
    position: int,
    alpha: float = 0.05,
    *,
    resamples: int = 1000,
    seed: int = 20240229,
    others: Sequence[int] = (),
) -> TwoPart:
    """Two-part model of a volume that is 0 in some: logistic, and gamma among the others.

    Parameters
    ----------
    matrix
        (n, p) design with intercept.
    values
        (n,) values of 0 or more.
    position
        Column of the 0/1 term that is tested.
    alpha, resamples, seed
        Level and bootstrap.
    others
        Columns that indicate further arms.

    Examples
    --------
    >>> x = np.column_stack([np.ones(12), np.repeat([0.0, 1.0], 6)])
    >>> y = np.array([0, 0, 2, 4, 3, 3, 0, 0, 0, 0, 1, 2.0])
    >>> fit = fit_two_part(x, y, 1, resamples=50)
    >>> round(fit.mean_ratio, 6), round(math.exp(fit.size.estimate), 6)
    (0.25, 0.5)
    """
    x, y = np.asarray(matrix, float), np.asarray(values, float)
    if np.any(y < 0):
        raise NotComputable(f"{int(np.sum(y < 0))} values are below 0; a two-part model has none")
    if np.all(y > 0):
        raise NotComputable("no value is 0; use method gamma")
    odds = fit_logistic(x, y > 0).term(position, alpha)
    size = fit_gamma(x[y > 0], y[y > 0]).term(position, alpha)
    chi2, p_value = joint_test(odds, size)
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
    return TwoPart(
        odds,
        size,
        _overall_ratio(x, y, position, others),
        low,
        high,
        chi2,
        p_value,
    )


def joint_test(odds: Estimate, size: Estimate) -> tuple[float, float]:
    """Joint Wald test of both parts of a two-part model, 2 df (Lachenbruch 1976): chi2 and p.

    Examples
    --------
    >>> chi2, p = joint_test(t_estimate(1.0, 0.5, 40), t_estimate(0.6, 0.3, 20))
    >>> round(chi2, 6), round(p, 4)
    (8.0, 0.0183)
    """
    chi2 = math.fsum((part.estimate / part.standard_error) ** 2 for part in (odds, size))
    return float(chi2), float(stats.chi2.sf(chi2, 2))


def rank_ancova(
    values: Any, indicator: Any, covariates: Any = None, alpha: float = 0.05
) -> Estimate:
    """Analysis of covariance of ranks (Quade 1967): adjusted difference of mean ranks over n.

    Values and covariates are ranked over both arms; the residuals of the ranks on the ranked
    covariates are compared between the arms. Without covariates the estimate is P(a > b) +
    P(a = b) / 2 - 1/2, the effect that a Mann-Whitney test is about, and the test is its t form.

    Parameters
    ----------
    values
        (n,).
    indicator
        (n,) 1 in the arm of interest.
    covariates
        (n, q) or None.
    alpha
        1 - confidence level.

    Examples
    --------
    >>> result = rank_ancova([1, 2, 3, 9, 4, 5], [0, 0, 0, 1, 1, 1])
    >>> round(result.estimate, 6)
    0.5
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
    """One level of ``by`` against the reference, complete cases.

    Attributes
    ----------
    plan, frame
        Design and rows of the two levels (and of all others for a common model).
    by, level, reference, names
        Grouping column, its two levels, and covariates.
    """

    plan: Design
    frame: pd.DataFrame
    by: str
    level: str
    reference: str
    names: Sequence[str]

    @property
    def group(self) -> str:
        """Group as statistics rows have it."""
        return f"{self.by}={self.level}|{self.by}={self.reference}"

    @property
    def position(self) -> int:
        """Column of the contrast in the design."""
        return self.plan.index(f"{self.by}={self.level}")

    @property
    def other_positions(self) -> list[int]:
        """Columns of the further arms."""
        arms = [k for k, t in enumerate(self.plan.terms) if t.startswith(f"{self.by}=")]
        return [k for k in arms if k != self.position]

    def arm(self, level: str) -> np.ndarray:
        """Values of one level."""
        return self.frame.loc[self.frame[self.by].map(str) == level, "value"].to_numpy(float)


def contrast_rows(
    analysis: ComparisonSpec, method: str, contrast: Contrast
) -> Iterator[dict[str, Any]]:
    """Statistics rows of one contrast by one of :data:`METHODS`."""
    kernel = {
        "gamma": _gamma_rows,
        "two_part": _two_part_rows,
        "rank": _rank_rows,
        "binary": _binary_rows,
    }[method]
    for row in kernel(analysis, contrast):
        arms = contrast.frame[contrast.by].map(str)
        both = int(arms.isin([contrast.level, contrast.reference]).sum())
        if both < len(arms):
            words = f"model of {len(arms)} participants of all arms"
            row = {**row, "note": f"{row['note']}; {words}" if row.get("note") else words}
        yield {"group": contrast.group, "n": both, **row}


def _adjusted(names: Sequence[str]) -> str:
    return f"; covariates {', '.join(names)}" if names else ""


def _exponentiated(result: Estimate) -> dict[str, float]:
    return {
        "estimate": math.exp(result.estimate),
        "ci_low": math.exp(result.ci_low),
        "ci_high": math.exp(result.ci_high),
        "p_value": result.p_value,
    }


def _gamma_check(x: np.ndarray, y: np.ndarray, position: int, ours: Estimate) -> dict[str, Any]:
    import statsmodels.api as sm

    model = sm.GLM(y, x, family=sm.families.Gamma(sm.families.links.Log()))
    theirs, failed = attempt(lambda: model.fit(tol=1e-13), "statsmodels GLM, Gamma, log")
    if theirs is None:
        return {"second_method": failed}
    compare(
        ours.standard_error, float(theirs.bse[position]), "statsmodels GLM", tolerance=ITERATIVE
    )
    value = math.exp(float(theirs.params[position]))
    return compare(math.exp(ours.estimate), value, "statsmodels GLM, Gamma, log", tolerance=1e-6)


def _gamma_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[dict[str, Any]]:
    x, y = contrast.plan.matrix, contrast.frame["value"].to_numpy(float)
    fit = fit_gamma(x, y)
    result = fit.term(contrast.position, alpha_of(analysis))
    yield {
        "statistic": "mean_ratio",
        **_exponentiated(result),
        "method": "gamma regression, log link, Pearson dispersion, Wald t interval, "
        f"df {fit.df:g}{_adjusted(contrast.names)}",
        **_gamma_check(x, y, contrast.position, result),
        "note": f"dispersion {fit.dispersion:.3g}",
    }


def _two_part_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[dict[str, Any]]:
    import statsmodels.api as sm

    alpha = alpha_of(analysis)
    x, y = contrast.plan.matrix, contrast.frame["value"].to_numpy(float)
    fit = fit_two_part(
        x,
        y,
        contrast.position,
        alpha,
        resamples=analysis.resamples,
        seed=analysis.seed,
        others=contrast.other_positions,
    )
    zeros = f"{int(np.sum(y == 0))} of {y.size} values are 0"
    yield {
        "statistic": "mean_ratio",
        "estimate": fit.mean_ratio,
        "ci_low": fit.ci_low,
        "ci_high": fit.ci_high,
        "p_value": fit.p_value,
        "method": "two-part model (logistic, gamma): ratio of overall means, covariates "
        "standardised; percentile bootstrap within arms; p: joint Wald test, 2 df"
        + _adjusted(contrast.names),
        "note": join_notes(zeros, f"joint chi2 {fit.chi2:.4g}"),
    }
    logit = sm.GLM((y > 0).astype(float), x, family=sm.families.Binomial()).fit(tol=1e-13)
    yield {
        "statistic": "odds_ratio",
        **_exponentiated(fit.odds),
        "method": f"two-part model: odds of a value above 0, Wald{_adjusted(contrast.names)}",
        **compare(
            math.exp(fit.odds.estimate),
            math.exp(float(logit.params[contrast.position])),
            "statsmodels GLM, binomial",
            tolerance=1e-6,
        ),
        "note": zeros,
    }
    positive = y > 0
    yield {
        "statistic": "mean_ratio_of_positive",
        **_exponentiated(fit.size),
        "n": int(positive.sum()),
        "method": "two-part model: ratio of means among values above 0, gamma, log link"
        + _adjusted(contrast.names),
        **_gamma_check(x[positive], y[positive], contrast.position, fit.size),
    }


def _rank_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[dict[str, Any]]:
    inside = contrast.frame[contrast.by].map(str).isin([contrast.level, contrast.reference])
    y = contrast.frame.loc[inside, "value"].to_numpy(float)
    arm = (contrast.frame.loc[inside, contrast.by].map(str) == contrast.level).to_numpy(float)
    own = [
        k
        for k, term in enumerate(contrast.plan.terms)
        if term != "Intercept" and not term.startswith(f"{contrast.by}=")
    ]
    block = contrast.plan.matrix[inside.to_numpy()][:, own] if own else None
    result = rank_ancova(y, arm, block, alpha_of(analysis))
    second: dict[str, Any] = {}
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
    yield {
        "statistic": "rank_difference",
        **result.columns(),
        "n": y.size,
        "method": "difference of mean ranks over n"
        + (" adjusted as Quade (1967)" if own else ", equal to P(a > b) + P(a = b) / 2 - 1/2")
        + f"; t interval, df {result.df:g}{_adjusted(contrast.names)}",
        **second,
        "note": f"{100 * (1 - np.unique(y).size / y.size):.0f} % of values tied",
    }


def _arm_share(values: np.ndarray, label: str, alpha: float) -> Iterator[dict[str, Any]]:
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
        yield {
            "statistic": statistic,
            "group": label,
            "n": n,
            "estimate": k / n,
            "ci_low": limits[0],
            "ci_high": limits[1],
            "method": words,
            "note": f"{k}/{n}",
        }


def _binary_rows(analysis: ComparisonSpec, contrast: Contrast) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    a, b = contrast.arm(contrast.level), contrast.arm(contrast.reference)
    odd = set(np.unique(np.concatenate([a, b]))) - {0.0, 1.0}
    if odd:
        raise NotComputable(
            f"a value is {min(odd):g}; method binary needs 0 and 1 (derivation: responder makes "
            "them of volumes)"
        )
    for values, level in ((a, contrast.level), (b, contrast.reference)):
        yield from _arm_share(values, f"{contrast.by}={level}", alpha)
    yield _difference_row(a, b, alpha)
    yield _ratio_row(a, b, alpha)
    try:
        fit = fit_logistic(contrast.plan.matrix, contrast.frame["value"])
        yield {
            "statistic": "odds_ratio",
            **_exponentiated(fit.term(contrast.position, alpha)),
            "method": f"logistic regression, Wald interval{_adjusted(contrast.names)}",
        }
    except NotComputable as reason:
        yield not_computable("odds_ratio", str(reason))


def _difference_row(a: np.ndarray, b: np.ndarray, alpha: float) -> dict[str, Any]:
    from statsmodels.stats.proportion import confint_proportions_2indep

    ka, kb = int(a.sum()), int(b.sum())
    d, low, high = risk_difference(ka, a.size, kb, b.size, alpha)
    theirs = confint_proportions_2indep(ka, a.size, kb, b.size, method="newcomb", alpha=alpha)
    compare(low, float(theirs[0]), "statsmodels confint_proportions_2indep", tolerance=1e-7)
    p_value, test = two_shares_p(ka, a.size, kb, b.size)
    return {
        "statistic": "risk_difference",
        "n": a.size + b.size,
        "estimate": d,
        "ci_low": low,
        "ci_high": high,
        "p_value": p_value,
        "method": f"difference of proportions, Newcombe hybrid score interval; p: {test}",
        "note": f"{ka}/{a.size} against {kb}/{b.size}; "
        f"Fisher exact p {fisher_p(ka, a.size, kb, b.size):.3g}",
    }


def _ratio_row(a: np.ndarray, b: np.ndarray, alpha: float) -> dict[str, Any]:
    ka, kb = int(a.sum()), int(b.sum())
    if not ka or not kb:
        return not_computable("risk_ratio", "an arm without any event")
    log = math.log(ka / a.size * b.size / kb)
    error = math.sqrt(1 / ka - 1 / a.size + 1 / kb - 1 / b.size)
    row = {
        "statistic": "risk_ratio",
        "n": a.size + b.size,
        "method": "ratio of proportions, logarithmic interval (Katz 1978)",
        "note": f"{ka}/{a.size} against {kb}/{b.size}",
    }
    if error == 0:
        return {**row, "estimate": math.exp(log)}
    return {**row, **_exponentiated(t_estimate(log, error, math.inf, alpha))}
