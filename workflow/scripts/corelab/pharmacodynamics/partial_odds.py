"""Partial proportional odds: some terms have an odds ratio at every cut of the outcome.

Peterson and Harrell (J R Stat Soc C 1990;39:205): logit P(Y > j) = a_j + w g_j + x b, the terms w
with coefficients per cut, the terms x with one, as R VGAM's ``cumulative(parallel = FALSE ~ w)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from corelab.measurement.selection import NotComputable
from corelab.pharmacodynamics.analysis_set import Design
from corelab.pharmacodynamics.estimates import ratio_of_log
from corelab.pharmacodynamics.proportional_odds import (
    ProportionalOdds,
    fit_proportional_odds,
    logistic,
    minimum,
)
from corelab.terms.results import Estimate, StatisticRow, not_computable


@dataclass(frozen=True)
class _PartialOdds:
    """Log odds ratios above each cut (c - 1, k) of the terms with one per cut, and of the others
    (p,); ``covariance`` is of (coefficients, thresholds, by_cut row by row).
    """

    by_cut: np.ndarray
    coefficients: np.ndarray
    thresholds: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    categories: np.ndarray

    def errors(self) -> np.ndarray:
        """(c - 1, k) standard errors of ``by_cut``."""
        free = self.covariance.shape[0] - self.by_cut.size
        return np.sqrt(np.diag(self.covariance)[free:]).reshape(self.by_cut.shape)


def _fit_partial_odds(varying: Any, matrix: Any, outcome: Any, weights: Any = None) -> _PartialOdds:
    """Maximum likelihood by Newton's method from the proportional fit.

    ``varying`` (n, k) has coefficients per cut, ``matrix`` (n, p) one; ``weights`` are frequencies.
    """
    y = np.asarray(outcome, float)
    w, x = (np.asarray(part, float).reshape(y.size, -1) for part in (varying, matrix))
    n = np.ones(y.size) if weights is None else np.asarray(weights, float)
    start = fit_proportional_odds(np.column_stack([x, w]), y, n)
    categories = start.categories
    if categories.size < 3:
        raise NotComputable("a model with odds ratios by cut needs three categories")
    p, k, q = x.shape[1], w.shape[1], categories.size - 1
    code = np.searchsorted(categories, y)
    theta = np.concatenate(
        [start.coefficients[:p], start.thresholds, np.tile(start.coefficients[p:], q)]
    )
    theta, value, gradient, hessian = minimum(
        lambda at: _derivatives(at, w, x, code, n, q), theta, (1e-12, 1e-6)
    )
    if np.abs(gradient).max() > 1e-4 or np.linalg.eigvalsh(hessian).min() <= 1e-8:
        raise NotComputable(
            "the model with odds ratios by cut has no finite maximum: too few participants above "
            "or below a cut, or the curves of two cuts cross"
        )
    covariance = np.linalg.inv(hessian)
    by_cut = theta[p + q :].reshape(q, k)
    errors = np.sqrt(np.diag(covariance)[p + q :]).reshape(q, k)
    span = np.ptp(w, axis=0)
    if np.any((np.abs(by_cut) * span > 12) | (errors * span > 50)):
        raise NotComputable("a cut separates the arms: its odds ratio has no finite estimate")
    return _PartialOdds(by_cut, theta[:p], theta[p : p + q], covariance, -value, categories)


def _derivatives(
    theta: np.ndarray, w: np.ndarray, x: np.ndarray, code: np.ndarray, n: np.ndarray, q: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Negative log likelihood, gradient, Hessian; infinite where a probability is negative."""
    p, k = x.shape[1], w.shape[1]
    beta, zeta, gamma = theta[:p], theta[p : p + q], theta[p + q :].reshape(q, k)
    rows, size = np.arange(code.size), theta.size
    fixed = x @ beta
    sums, slopes, bends, jacobians = [], [], [], []
    for place, there in ((code, code < q), (code - 1, code > 0)):
        at = np.clip(place, 0, q - 1)
        eta = zeta[at] - fixed - np.einsum("ik,ik->i", w, gamma[at])
        share = logistic(eta)
        sums.append(np.where(there, share, 1.0 if place is code else 0.0))
        slopes.append(np.where(there, share * (1 - share), 0.0))
        bends.append(slopes[-1] * (1 - 2 * share))
        jacobian = np.zeros((code.size, size))
        jacobian[:, :p] = -x
        jacobian[rows, p + at] = 1
        for j in range(k):
            jacobian[rows, p + q + at * k + j] = -w[:, j]
        jacobians.append(jacobian * there[:, None])
    prob = sums[0] - sums[1]
    if np.any(prob <= 0):
        return math.inf, np.zeros(size), np.eye(size)
    upper, lower = jacobians
    slope = (slopes[0][:, None] * upper - slopes[1][:, None] * lower) / prob[:, None]
    hessian = (slope * n[:, None]).T @ slope
    hessian -= (upper * (n * bends[0] / prob)[:, None]).T @ upper
    hessian += (lower * (n * bends[1] / prob)[:, None]).T @ lower
    return -float(np.sum(n * np.log(prob))), -(n @ slope), hessian


# ------------------------------------------------------------------------------------- the plan


def odds_by_cut_rows(
    plan: Design,
    y: np.ndarray,
    common: ProportionalOdds,
    groups: Mapping[str, str],
    outcome: str,
    alpha: float,
) -> Iterator[StatisticRow]:
    """Odds ratio of each arm at every cut, and the test that they are one.

    ``plan`` is the design without intercept, ``y`` the (n,) grades, ``common`` the proportional fit
    of the same terms; ``groups`` has the terms of the arms with the groups printed.
    """
    own = [plan.index(term) for term in groups]
    rest = [k for k in range(len(plan.terms)) if k not in own]
    try:
        fit = _fit_partial_odds(plan.matrix[:, own], plan.matrix[:, rest], y)
    except NotComputable as reason:
        yield not_computable("odds_ratio_by_cut", str(reason))
        return
    gain = max(2 * (fit.log_likelihood - common.log_likelihood), 0.0)
    df = fit.by_cut.size - len(own)
    p = float(stats.chi2.sf(gain, df))
    others = [term for term in plan.terms if term not in groups]
    method = f"partial proportional odds of {outcome}, arms by cut"
    method += f", one odds ratio of {', '.join(others)}" if others else ""
    yield Estimate(p, p_value=p, n=y.size).row(
        "proportional_odds_p",
        group="|".join(dict.fromkeys(group.split("=")[0] for group in groups.values())),
        method="likelihood-ratio test that the odds ratios of all cuts are one, chi2 "
        f"{gain:.4g}, df {df}; {method}",
    )
    errors = fit.errors()
    for cut, grade in enumerate(fit.categories[:-1]):
        for k, group in enumerate(groups.values()):
            head = {"group": f"{group}|{outcome}>{grade:g}", "n": y.size}
            try:
                log, error = float(fit.by_cut[cut, k]), float(errors[cut, k])
                ratio = ratio_of_log(log, error, alpha, group)
            except NotComputable:
                yield not_computable("odds_ratio_by_cut", "no finite estimate", **head)
                continue
            yield ratio.row(
                "odds_ratio_by_cut",
                method=f"odds of {outcome} above {grade:g}; {method}; Wald interval",
                **head,
            )
