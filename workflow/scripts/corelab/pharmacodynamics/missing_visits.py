"""Missing visits: multiple imputation under missing at random, and the tipping point beyond it.

The values of all visits of one arm are jointly normal (on the scale of the analysis); what is
missing is drawn given what was seen, with the parameters drawn too (data augmentation: Tanner and
Wong 1987; Schafer 1997, chapter 5). Each completed data set is analysed by ANCOVA; estimates are
combined by Rubin's rules with the degrees of freedom of Barnard and Rubin (Biometrika 1999;86:948).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    not_computable,
    population,
)
from corelab.pharmacodynamics.analysis_set import (
    alpha_of,
    design,
    endpoint_by_visit,
    join_notes,
    levels_of,
    participant_columns,
    with_covariates,
)
from corelab.pharmacodynamics.linear import Estimate, fit_linear, t_estimate

DEFAULT_IMPUTATIONS = 50
DEFAULT_SEED = 20240229
BURN_IN, THINNING = 200, 10


def impute_normal(
    values: Any,
    imputations: int = DEFAULT_IMPUTATIONS,
    *,
    seed: int = DEFAULT_SEED,
) -> np.ndarray:
    """Draws of a matrix with missing cells completed, jointly normal columns.

    Parameters
    ----------
    values
        (n, m) with nan for missing; a row needs no value seen.
    imputations
        Number of completed matrices.
    seed
        Of the draws.

    Returns
    -------
    numpy.ndarray
        (imputations, n, m); cells that were seen are as given.

    Raises
    ------
    NotComputable
        If fewer than m + 2 rows are there to estimate the covariance.

    Examples
    --------
    >>> y = np.array([[1.0, 1.1], [2, 2.1], [3, 2.9], [4, 4.2], [5, np.nan], [6, 6.1]])
    >>> drawn = impute_normal(y, 40)
    >>> drawn.shape, bool(abs(drawn[:, 4, 1].mean() - 5) < 0.4), bool((drawn[:, 0] == y[0]).all())
    ((40, 6, 2), True, True)
    """
    y = np.asarray(values, float)
    n, m = y.shape
    gone = np.isnan(y)
    if not gone.any():
        return np.repeat(y[None], imputations, axis=0)
    complete = int(np.sum(~gone.any(axis=1)))
    if complete < m + 2:
        raise NotComputable(
            f"{complete} participants of an arm have every visit; imputing {m} visits needs {m + 2}"
        )
    generator = np.random.default_rng(seed)
    # Numbers of comparable size: the scale is taken out and put back.
    centre, scale = np.nanmean(y, axis=0), np.nanstd(y, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    z = np.where(gone, 0.0, (y - centre) / scale)
    patterns = {tuple(row) for row in gone[gone.any(axis=1)]}
    members = {p: np.flatnonzero((gone == np.array(p)).all(axis=1)) for p in sorted(patterns)}
    drawn = np.empty((imputations, n, m))
    for step in range(BURN_IN + imputations * THINNING):
        mean, covariance = _draw_parameters(z, generator)
        for pattern, rows in members.items():
            _draw_missing(z, rows, np.array(pattern), mean, covariance, generator)
        kept, rest = divmod(step - BURN_IN, THINNING)
        if step >= BURN_IN and rest == 0:
            drawn[kept] = np.where(gone, centre + scale * z, y)
    return drawn


def _draw_parameters(
    z: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance given complete data, Jeffreys' prior."""
    n, m = z.shape
    mean = z.mean(axis=0)
    scatter = (z - mean).T @ (z - mean) + 1e-9 * np.eye(m)
    # Inverse Wishart by Bartlett's decomposition of the Wishart of its inverse.
    factor = np.linalg.cholesky(np.linalg.inv(scatter))
    bartlett = np.tril(generator.normal(size=(m, m)), -1)
    bartlett[np.diag_indices(m)] = np.sqrt(generator.chisquare(n - 1 - np.arange(m)))
    root = factor @ bartlett
    covariance = np.linalg.inv(root @ root.T)
    covariance = (covariance + covariance.T) / 2
    return generator.multivariate_normal(mean, covariance / n, method="cholesky"), covariance


def _draw_missing(
    z: np.ndarray,
    rows: np.ndarray,
    gone: np.ndarray,
    mean: np.ndarray,
    covariance: np.ndarray,
    generator: np.random.Generator,
) -> None:
    """Draw the missing cells of the rows of one pattern, given their seen cells; in place."""
    seen = ~gone
    weights = np.linalg.solve(
        covariance[np.ix_(seen, seen)], covariance[np.ix_(seen, gone)]
    )  # empty if nothing is seen: the unconditional distribution
    rest = covariance[np.ix_(gone, gone)] - covariance[np.ix_(gone, seen)] @ weights
    root = np.linalg.cholesky((rest + rest.T) / 2 + 1e-12 * np.eye(int(gone.sum())))
    expected = mean[gone] + (z[np.ix_(rows, seen)] - mean[seen]) @ weights
    noise = generator.normal(size=(rows.size, int(gone.sum()))) @ root.T
    z[np.ix_(rows, gone)] = expected + noise


@dataclass(frozen=True)
class Pooled:
    """Estimates of completed data sets combined by Rubin's rules.

    Attributes
    ----------
    result
        Estimate with t interval and test.
    fraction_missing
        Share of the information that is missing.
    """

    result: Estimate
    fraction_missing: float


def rubin(
    estimates: Any, variances: Any, complete_df: float = math.inf, alpha: float = 0.05
) -> Pooled:
    """Combine the estimates of completed data sets.

    Parameters
    ----------
    estimates, variances
        One each per completed data set.
    complete_df
        Degrees of freedom that the complete data would have had.
    alpha
        1 - confidence level.

    Examples
    --------
    Within 1, between 1 (of five): total 1 + 1.2, old df 4 (1 + 1 / 1.2)^2 = 13.44.

    >>> pooled = rubin([1, 2, 3, 2, 2 + 2**0.5 - 2**0.5], [1.0] * 5)
    >>> round(pooled.result.estimate, 6), round(pooled.result.standard_error**2, 6)
    (2.0, 1.6)
    """
    q, u = np.asarray(estimates, float), np.asarray(variances, float)
    m = q.size
    within, between = float(u.mean()), float(q.var(ddof=1)) if m > 1 else 0.0
    total = within + (1 + 1 / m) * between
    share = (1 + 1 / m) * between / total
    if between <= 1e-14 * within:
        df = complete_df
    else:
        old = (m - 1) / share**2
        if math.isinf(complete_df):
            df = old
        else:
            seen = (complete_df + 1) / (complete_df + 3) * complete_df * (1 - share)
            df = old * seen / (old + seen)
    return Pooled(t_estimate(float(q.mean()), math.sqrt(total), df, alpha), share)


# ------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class _Arms:
    """Participants of an analysis with their visits, completed many times."""

    frame: pd.DataFrame
    visits: list[str]
    drawn: np.ndarray
    gone: np.ndarray
    by: str
    reference: str
    others: tuple[str, ...]
    names: list[str]
    note: str


def analyse_imputed(
    analysis: Mapping[str, Any], tables: Tables, endpoint: str
) -> Iterator[dict[str, Any]]:
    """Rows of a comparison by multiple imputation, and its tipping point.

    Keys beyond those of a comparison: ``imputations`` (default 50), ``seed``,
    ``tipping_point: true`` (search) or a list of ``deltas`` (units of the analysis scale).
    """
    head = {"endpoint": endpoint}
    try:
        arms = _completed(analysis, tables, endpoint)
        for place, visit in enumerate(arms.visits):
            if place == 0 or (analysis.get("visit") and visit not in as_list(analysis["visit"])):
                continue
            for level in arms.others:
                for row in _contrast_rows(analysis, arms, place, level):
                    yield {**head, "visit": visit, **row}
    except NotComputable as reason:
        yield not_computable("mean_difference", str(reason), method="multiple_imputation", **head)


def _completed(analysis: Mapping[str, Any], tables: Tables, endpoint: str) -> _Arms:
    from corelab.pharmacodynamics.comparison import covariates_of, on_scale

    baseline = analysis.get("baseline") or tables.baseline
    if baseline is None:
        raise NotComputable("multiple imputation needs a baseline visit (visits.baseline)")
    raw = {**analysis, "derivation": "value", "visit": None}
    found = {v: frame["value"] for v, frame in endpoint_by_visit(raw, tables, endpoint)}
    if baseline not in found:
        raise NotComputable(f"no value of {endpoint} at the baseline visit {baseline}")
    visits = [baseline, *(v for v in found if v != baseline)]
    if len(visits) < 2:
        raise NotComputable(f"{endpoint} has values at {baseline} only")
    by = str(analysis.get("by", "arm"))
    labelled = {**analysis, "categorical": [*as_list(analysis.get("categorical")), by]}
    names = [name for name in covariates_of(analysis) if name != "baseline"]
    frame = participant_columns(labelled, tables, [by]).dropna()
    frame = with_covariates(frame, labelled, tables, endpoint=endpoint, names=names)
    frame = frame.dropna(subset=names).sort_index()
    wide = pd.DataFrame({v: found[v].reindex(frame.index) for v in visits})
    # Who has no value at all tells nothing about a visit, and is counted out.
    frame, wide = frame[wide.notna().any(axis=1)], wide[wide.notna().any(axis=1)]
    scale = str(analysis.get("scale", "identity"))
    wide = pd.DataFrame(
        {v: on_scale(pd.DataFrame({"value": wide[v]}), scale)["value"] for v in visits}
    )
    reference, others, said = levels_of(frame[by], by, analysis.get("reference"))
    imputations = int(analysis.get("imputations", DEFAULT_IMPUTATIONS))
    seed = int(analysis.get("seed", DEFAULT_SEED))
    drawn = np.empty((imputations, *wide.shape))
    labels = frame[by].map(str).to_numpy()
    for k, level in enumerate((reference, *others)):
        inside = labels == level
        drawn[:, inside] = impute_normal(
            wide.to_numpy(float)[inside], imputations, seed=seed + 1000 * k
        )
    total = len(population(analysis, tables))
    lost = "" if len(frame) == total else f"{len(frame)} of {total} participants have any value"
    gone = wide.isna().to_numpy()
    return _Arms(frame, visits, drawn, gone, by, reference, others, names, join_notes(said, lost))


def _derived(analysis: Mapping[str, Any], before: np.ndarray, after: np.ndarray) -> np.ndarray:
    derivation = analysis.get("derivation", "value")
    if derivation == "value":
        return after
    if derivation == "change":
        return after - before
    raise NotComputable(
        f"multiple imputation takes derivation value or change, not {derivation}; use scale: log "
        "for ratios"
    )


def _fit_all(
    analysis: Mapping[str, Any], arms: _Arms, place: int, level: str, delta: float
) -> Pooled:
    """ANCOVA of every completed data set; imputed values of the level are shifted by delta."""
    labels = arms.frame[arms.by].map(str).to_numpy()
    shift = delta * (arms.gone[:, place] & (labels == level))
    adjust = analysis.get("derivation", "value") != "value" or "baseline" in as_list(
        analysis.get("covariates")
    )
    estimates, variances, df = [], [], math.inf
    for one in arms.drawn:
        before, after = one[:, 0], one[:, place] + shift
        frame = arms.frame.assign(baseline=before)
        names: Sequence[str] = ["baseline", *arms.names] if adjust else arms.names
        plan = design(frame, by=arms.by, reference=arms.reference, covariates=names)
        fit = fit_linear(plan.matrix, _derived(analysis, before, after))
        position = plan.index(f"{arms.by}={level}")
        estimates.append(float(fit.coefficients[position]))
        variances.append(float(fit.covariance[position, position]))
        df = float(fit.df)
    return rubin(estimates, variances, df, alpha_of(analysis))


def _contrast_rows(
    analysis: Mapping[str, Any], arms: _Arms, place: int, level: str
) -> Iterator[dict[str, Any]]:
    labels = arms.frame[arms.by].map(str)
    pooled = _fit_all(analysis, arms, place, level, 0.0)
    imputed = {
        name: int(arms.gone[(labels == name).to_numpy(), place].sum())
        for name in (level, arms.reference)
    }
    group = f"{arms.by}={level}|{arms.by}={arms.reference}"
    counted = ", ".join(f"{n} of {name}" for name, n in imputed.items())
    head = {"group": group, "n": int(labels.isin([level, arms.reference]).sum())}
    method = (
        f"multiple imputation within arms, missing at random, {len(arms.drawn)} imputations; "
        f"ANCOVA, {analysis.get('scale', 'identity')} scale; Rubin's rules, df "
        f"{pooled.result.df:.4g}"
    )
    yield {
        **head,
        "statistic": "mean_difference",
        **pooled.result.columns(),
        "method": method,
        "note": join_notes(
            arms.note,
            f"imputed: {counted}",
            f"missing information {100 * pooled.fraction_missing:.1f} %",
        ),
    }
    for delta in as_list(analysis.get("deltas")):
        moved = _fit_all(analysis, arms, place, level, float(delta))
        yield {
            **head,
            "group": f"{group}|delta={float(delta):g}",
            "statistic": "mean_difference_at_delta",
            **moved.result.columns(),
            "method": f"{method}; imputed values of {level} shifted by {float(delta):g}",
        }
    if analysis.get("tipping_point"):
        yield {**head, **_tipping_row(analysis, arms, place, level, pooled, imputed[level])}


def _tipping_row(
    analysis: Mapping[str, Any],
    arms: _Arms,
    place: int,
    level: str,
    pooled: Pooled,
    imputed: int,
) -> dict[str, Any]:
    """Shift of the imputed values of an arm at which its effect is no longer significant."""
    alpha = alpha_of(analysis)
    if pooled.result.p_value >= alpha:
        return not_computable("tipping_delta", "no significant effect to tip")
    if not imputed:
        return not_computable("tipping_delta", f"no value of {level} is imputed")
    # Against the effect: imputed patients of the arm do worse than those seen.
    sign = -math.copysign(1.0, pooled.result.estimate)
    spread = float(np.std(arms.drawn[:, :, place]))

    def p_at(size: float) -> float:
        result = _fit_all(analysis, arms, place, level, sign * size).result
        crossed = math.copysign(1.0, result.estimate) == sign
        return 1.0 if crossed else result.p_value

    low, high = 0.0, spread
    while p_at(high) < alpha:
        low, high = high, 2 * high
        if high > 100 * spread:
            return not_computable("tipping_delta", "no shift up to 100 SD tips the conclusion")
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if p_at(middle) >= alpha else (middle, high)
    return {
        "statistic": "tipping_delta",
        "estimate": sign * high,
        "method": f"smallest shift of the imputed values of {level} (against its effect) at which "
        f"p reaches {alpha:g}; multiple imputation, delta-adjusted",
        "note": f"{imputed} values imputed; SD of the values {spread:.4g}",
    }
