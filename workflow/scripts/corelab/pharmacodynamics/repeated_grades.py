"""Responders and grades at several visits: marginal models, and models within a participant.

Responders: logistic GEE, exchangeable working correlation, robust covariance (Liang and Zeger,
Biometrika 1986;73:13), below 50 participants with the correction of Mancl and DeRouen (Biometrics
2001;57:126), which at 60 has an error rate of 3.5 % instead of 5 %; by statsmodels. Grades:
proportional odds with the independence working model, covariance summed by participant. Both are
unbiased where values are missing completely at random. The model within a participant is
:mod:`.random_intercept`; statsmodels has an approximate Bayesian one only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from corelab.measurement.selection import NotComputable, Tables
from corelab.pharmacodynamics.estimates import LARGEST_LOG, exponentiated, guarded, t_estimate
from corelab.pharmacodynamics.mmrm import fixed_effects, long_table, visit_contrasts, weights_of
from corelab.pharmacodynamics.proportional_odds import category_scores, fit_proportional_odds
from corelab.pharmacodynamics.random_intercept import fit_random_intercept
from corelab.settings.analyses.comparison import ComparisonSpec
from corelab.terms.results import Estimate, StatisticRow, join_notes, not_computable

#: Participants below which the covariance of a GEE has the correction of Mancl and DeRouen.
FEW = 50
#: More distinct values than this are no grades.
MOST_GRADES = 12


@dataclass(frozen=True)
class _Marginal:
    """Log odds ratios with their covariance, and the model in words."""

    coefficients: np.ndarray
    covariance: np.ndarray
    clusters: int
    words: str
    correlation: float = math.nan


def _fit_binary_gee(cluster: Any, outcome: Any, matrix: Any) -> _Marginal:
    """Logistic GEE, exchangeable correlation; the (n, p) design has its intercept or visits."""
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_estimating_equations import GEE

    y, x = np.asarray(outcome, float), np.asarray(matrix, float)
    if np.unique(y).size < 2:
        raise NotComputable(f"every value is {y[0]:g}")
    # Separation is a matter of the independence model, whose fit tells of it.
    _finite_odds(x, y)
    _, code = np.unique(np.asarray(cluster).astype(str), return_inverse=True)
    with warnings.catch_warnings():
        # Convergence is checked below.
        warnings.simplefilter("ignore")
        try:
            model = GEE(y, x, groups=code, family=Binomial(), cov_struct=Exchangeable())
            number = int(code.max()) + 1
            kind = "bias_reduced" if number < FEW else "robust"
            fit = model.fit(cov_type=kind, scale=1.0, maxiter=200)
        except (np.linalg.LinAlgError, ValueError, FloatingPointError) as error:
            raise NotComputable(f"the estimating equations have no solution ({error})") from None
    coefficients, covariance = np.asarray(fit.params), np.asarray(fit.cov_params())
    if not (np.isfinite(covariance).all() and np.abs(coefficients).max() < 30):
        raise NotComputable("a term separates the responders: it has no finite estimate")
    correlation = float(np.asarray(model.cov_struct.dep_params))
    words = f"logistic GEE, exchangeable correlation {correlation:.4f}, robust covariance"
    words += " corrected after Mancl and DeRouen" * (number < FEW) + " (statsmodels)"
    return _Marginal(coefficients, covariance, number, words, correlation)


def _finite_odds(x: np.ndarray, y: np.ndarray) -> None:
    """Raise where a logistic model of these rows has no finite estimate."""
    constant = np.flatnonzero(np.ptp(x, axis=0) == 0)
    if constant.size:
        fit_proportional_odds(np.delete(x, constant[0], axis=1), y)
        return
    # Indicators of every visit span the constant: the first makes room for the thresholds.
    fit_proportional_odds(x[:, 1:], y)


def _fit_grades(cluster: Any, outcome: Any, matrix: Any) -> _Marginal:
    """Proportional odds of repeated grades, covariance summed by participant, times g / (g - 1) for
    g of them; the (n, p) design has no intercept.
    """
    y, x = np.asarray(outcome, float), np.asarray(matrix, float)
    fit = fit_proportional_odds(x, y)
    scores = category_scores(fit, x, y)
    _, code = np.unique(np.asarray(cluster).astype(str), return_inverse=True)
    number = int(code.max()) + 1
    if number < 2:
        raise NotComputable("one participant only")
    grouped = np.zeros((number, scores.shape[1]))
    np.add.at(grouped, code, scores)
    meat = grouped.T @ grouped * number / (number - 1)
    covariance = fit.covariance @ meat @ fit.covariance
    p = fit.coefficients.size
    words = "independence working model, covariance by participant"
    return _Marginal(fit.coefficients, covariance[:p, :p], number, words)


def _fit_within(cluster: Any, outcome: Any, matrix: Any) -> _Marginal:
    """Log odds ratios within a participant, of :func:`fit_random_intercept`."""
    fit = fit_random_intercept(cluster, outcome, matrix)
    words = (
        "random intercept of the participant (odds ratios are those within a participant), SD "
        f"{fit.spread:.4f} log odds, adaptive quadrature, log likelihood {fit.log_likelihood:.4f}"
    )
    return _Marginal(fit.coefficients, fit.covariance, fit.clusters, words)


# ------------------------------------------------------------------------------------- the plan


def analyse_grades(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, method: str
) -> Iterator[StatisticRow]:
    """Rows of a comparison by method ``gee`` or ``glmm``: odds ratios of the arms by visit.

    A responder gives ``odds_ratio``, a grade ``common_odds_ratio`` of a higher one.
    """
    statistic = "odds_ratio" if analysis.derivation == "responder" else "common_odds_ratio"
    rows = _rows(analysis, tables, endpoint, statistic, method)
    yield from guarded(rows, statistic, endpoint=endpoint, method=method)


def _rows(
    analysis: ComparisonSpec, tables: Tables, endpoint: str, statistic: str, kind: str
) -> Iterator[StatisticRow]:
    binary, within = statistic == "odds_ratio", kind == "glmm"
    if analysis.scale != "identity":
        raise NotComputable(f"method {kind} has its own scale; leave out the key scale")
    long = long_table(analysis, tables, endpoint)
    y, subject = long.frame["value"].to_numpy(float), long.frame.index
    grades = np.unique(y)
    if not binary and (grades.size > MOST_GRADES or np.any(grades != np.round(grades))):
        raise NotComputable(
            f"{endpoint} is no grade ({grades.size} different values): method {kind} is for grades "
            "and for derivation responder; use mmrm"
        )
    matrix, terms = fixed_effects(long, analysis.interactions or [])
    if binary and not within:
        fit = _fit_binary_gee(subject, y, matrix)
        model, df = fit.words, fit.clusters - len(terms)
    else:
        # The thresholds take the place of the first visit's indicator.
        matrix, terms = matrix[:, 1:], terms[1:]
        fit = (_fit_within if within else _fit_grades)(subject, y, matrix)
        what = "logistic model" if binary else f"proportional odds of a higher {endpoint}"
        model, df = f"{what}, {fit.words}", fit.clusters - len(terms) - grades.size + 1
    if df < 1:
        raise NotComputable(f"{fit.clusters} participants for {len(terms)} terms")
    method = f"{model}; visit, {long.by} x visit" + "".join(f", {name}" for name in long.names)
    missing = "missing visits: at random" if within else "missing visits: completely at random"
    planned = visit_contrasts(analysis, long.visits)
    for name, shares in {**planned, **{v: {v: 1.0} for v in long.visits}}.items():
        for level in long.others:
            weights = weights_of(terms, long.by, level, shares)
            place = {"visit": name, "group": long.group(level)}
            try:
                ratio = _odds_ratio(fit, weights, df, analysis.alpha)
            except NotComputable as reason:
                yield not_computable(statistic, str(reason), **place)
                continue
            yield ratio.row(
                statistic,
                n=long.people([level, long.reference], name),
                method=f"{method}; t interval, df {df}",
                note=join_notes(long.said, long.note, missing),
                **place,
            )


def _odds_ratio(fit: _Marginal, weights: np.ndarray, df: int, alpha: float) -> Estimate:
    log = float(weights @ fit.coefficients)
    error = math.sqrt(float(weights @ fit.covariance @ weights))
    result = t_estimate(log, error, df, alpha)
    if abs(log) + 20 * error > LARGEST_LOG:
        raise NotComputable("the odds ratio has no finite estimate")
    return exponentiated(result)
