"""Ordinal outcomes: proportional odds, generalised odds ratio, win ratio, dichotomies.

Direction: a common or generalised odds ratio above 1 means that the first group has the *higher*
category (on the modified Rankin scale: the worse); a win ratio above 1 means that it does
*better*, and which end is better is stated (``better: low`` unless the plan says ``high``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.measurement.selection import NotComputable, Tables, not_computable
from corelab.pharmacodynamics.analysis_set import (
    Design,
    alpha_of,
    complete_cases,
    design,
    endpoint_by_visit,
    endpoints_of,
    join_notes,
    levels_of,
    outcome_values,
    participant_columns,
    with_covariates,
)
from corelab.pharmacodynamics.partial_odds import odds_by_cut_rows
from corelab.pharmacodynamics.proportional_odds import (
    LARGEST_LOG,
    ProportionalOdds,
    RatioEstimate,
    brant_test,
    fit_proportional_odds,
    odds_estimate,
    proportional_odds_score_test,
    ratio_estimate,
)
from corelab.pharmacodynamics.two_samples import welch_t
from corelab.provenance.two_computations import compare
from corelab.settings.analyses.ordinal import OrdinalSpec


def generalised_odds_ratio(
    a: Any, b: Any, alpha: float = 0.05, *, ties: str = "split"
) -> RatioEstimate:
    """Agresti's generalised odds ratio: odds that a value of a exceeds one of b.

    Parameters
    ----------
    a, b
        Values of the two groups.
    alpha
        1 - confidence level.
    ties
        ``split`` (half to each side, the win odds) or ``drop`` (Agresti 1980).

    Notes
    -----
    Standard error by the delta method for the ratio of concordance to discordance probabilities
    (Goodman and Kruskal), the estimator of R genodds.

    Examples
    --------
    >>> round(generalised_odds_ratio([2, 3, 4], [1, 2, 3]).estimate, 3)
    3.5
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.size == 0 or second.size == 0:
        raise NotComputable("one group has no value")
    levels = np.unique(np.concatenate([first, second]))
    table = np.array([[np.sum(second == level), np.sum(first == level)] for level in levels], float)
    n = table.sum()
    share = table / n
    above = share[::-1].cumsum(axis=0)[::-1] - share
    below = share.cumsum(axis=0) - share
    # For a member of b: concordant with values of a above it; for a member of a: b below it.
    concordant = np.column_stack([above[:, 1], below[:, 0]])
    discordant = np.column_stack([below[:, 1], above[:, 0]])
    if ties == "split":
        concordant = concordant + 0.5 * share[:, ::-1]
        discordant = discordant + 0.5 * share[:, ::-1]
    elif ties != "drop":
        raise ValueError(f"ties must be split or drop, not '{ties}'")
    pc, pd_ = float(np.sum(share * concordant)), float(np.sum(share * discordant))
    if pc <= 0 or pd_ <= 0:
        raise NotComputable("the groups do not overlap: the odds ratio has no finite estimate")
    odds = pc / pd_
    error = 2 / pc * math.sqrt(float(np.sum(share * (odds * discordant - concordant) ** 2)) / n)
    return ratio_estimate(odds, error, alpha)


def pooled_odds_ratio(
    strata: Sequence[RatioEstimate], alpha: float = 0.05
) -> tuple[RatioEstimate, float, int, float]:
    """Inverse-variance pooled odds ratio over strata with the test of heterogeneity.

    Returns
    -------
    pooled, q, df, p_heterogeneity

    Examples
    --------
    >>> one = generalised_odds_ratio([2, 3, 4], [1, 2, 3])
    >>> round(pooled_odds_ratio([one, one])[0].estimate, 3)
    3.5
    """
    logs = np.array([math.log(stratum.estimate) for stratum in strata])
    weights = np.array([stratum.log_standard_error**-2.0 for stratum in strata])
    mean = float(weights @ logs / weights.sum())
    q = float(weights @ (logs - mean) ** 2)
    df = len(strata) - 1
    pooled = ratio_estimate(math.exp(mean), 1 / math.sqrt(weights.sum()), alpha)
    return pooled, q, df, float(stats.chi2.sf(q, df)) if df else math.nan


@dataclass(frozen=True)
class Wins:
    """Pairwise comparison of two groups.

    Attributes
    ----------
    win_ratio, win_odds
        Wins over losses; with ties counted half to each.
    net_benefit, net_benefit_ci
        P(win) - P(loss).
    wins, losses, ties
        Numbers of pairs.
    """

    win_ratio: RatioEstimate | None
    win_odds: RatioEstimate | None
    net_benefit: float
    net_benefit_ci: tuple[float, float]
    net_benefit_p: float
    wins: int
    losses: int
    ties: int


def win_statistics(score: Any, alpha: float = 0.05) -> Wins:
    """Win ratio, win odds and net benefit from a matrix of pairwise results.

    Parameters
    ----------
    score
        (n_a, n_b) with 1 where the member of a wins, -1 where it loses, 0 for a tie. A hierarchy
        of outcomes is put into it by :func:`hierarchical_scores`.
    alpha
        1 - confidence level.

    Notes
    -----
    Variances by U-statistics (Bebchuk and Lachin; Dong et al., Pharm Stat 2016;15:430), log scale
    for the ratios.

    Examples
    --------
    >>> result = win_statistics([[1, 1, 0], [1, -1, 1], [0, 1, 1]])
    >>> result.wins, result.losses, result.ties, result.win_ratio.estimate
    (6, 1, 2, 6.0)
    """
    s = np.asarray(score)
    n, m = s.shape
    if n < 2 or m < 2:
        raise NotComputable("each group needs two participants")
    win, loss = s > 0, s < 0
    pw, pl = win.mean(), loss.mean()

    def cov(f: np.ndarray, g: np.ndarray) -> float:
        rows = np.cov(f.mean(axis=1), g.mean(axis=1), ddof=1)[0, 1] / n
        columns = np.cov(f.mean(axis=0), g.mean(axis=0), ddof=1)[0, 1] / m
        return float(rows + columns)

    vw, vl, vwl = cov(win, win), cov(loss, loss), cov(win, loss)
    z = stats.norm.ppf(1 - alpha / 2)
    net = float(pw - pl)
    net_error = math.sqrt(max(vw + vl - 2 * vwl, 0.0))
    ratio = odds = None
    if pw > 0 and pl > 0:
        log_variance = vw / pw**2 + vl / pl**2 - 2 * vwl / (pw * pl)
        if log_variance > 0:
            ratio = ratio_estimate(float(pw / pl), math.sqrt(log_variance), alpha)
    share = (1 + net) / 2
    if 0 < share < 1 and net_error > 0:
        odds = ratio_estimate(share / (1 - share), net_error / 2 / (share * (1 - share)), alpha)
    return Wins(
        ratio,
        odds,
        net,
        (net - z * net_error, net + z * net_error),
        float(2 * stats.norm.sf(abs(net) / net_error)) if net_error > 0 else math.nan,
        int(win.sum()),
        int(loss.sum()),
        int(s.size - win.sum() - loss.sum()),
    )


def hierarchical_scores(a: Any, b: Any, better: Sequence[str]) -> np.ndarray:
    """Pairwise results of a hierarchy of outcomes: the next one decides where one is tied.

    Parameters
    ----------
    a, b
        (n, k) and (m, k) outcomes, the most important first; a missing value ties.
    better
        k words ``low`` or ``high``.

    Examples
    --------
    >>> hierarchical_scores([[0, 5.0]], [[0, 7.0], [1, 1.0]], ["low", "low"]).tolist()
    [[1, 1]]
    """
    first, second = np.atleast_2d(np.asarray(a, float)), np.atleast_2d(np.asarray(b, float))
    # A matrix of small integers: 10,000 participants are 25 million pairs.
    result = np.zeros((first.shape[0], second.shape[0]), np.int8)
    for k, end in enumerate(better):
        if end not in {"low", "high"}:
            raise ValueError(f"better must be low or high, not '{end}'")
        x, y = (v[:, k] if end == "high" else -v[:, k] for v in (first, second))
        # Comparisons with a missing value are false: a tie.
        sign = (x[:, None] > y).astype(np.int8) - (x[:, None] < y)
        result = np.where(result == 0, sign, result)
    return result


# ------------------------------------------------------------------------------- dichotomies


def wilson_interval(events: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson score limits of a proportion.

    Examples
    --------
    >>> [round(v, 4) for v in wilson_interval(264, 414)]
    [0.5903, 0.6825]
    """
    z2 = stats.norm.ppf(1 - alpha / 2) ** 2
    p = events / n
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def exact_interval(events: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Clopper-Pearson limits of a proportion.

    Examples
    --------
    >>> [round(v, 4) for v in exact_interval(0, 10)]
    [0.0, 0.3085]
    """
    low = 0.0 if events == 0 else float(stats.beta.ppf(alpha / 2, events, n - events + 1))
    high = 1.0 if events == n else float(stats.beta.ppf(1 - alpha / 2, events + 1, n - events))
    return low, high


def risk_difference(
    events_a: int, n_a: int, events_b: int, n_b: int, alpha: float = 0.05
) -> tuple[float, float, float]:
    """Difference of proportions a - b with Newcombe's (1998) hybrid score interval.

    Examples
    --------
    Newcombe (Stat Med 1998;17:873), example (a): 56/70 - 48/80, method 10: 0.0524 to 0.3339.

    >>> [round(v, 4) for v in risk_difference(56, 70, 48, 80)]
    [0.2, 0.0524, 0.3339]
    """
    pa, pb = events_a / n_a, events_b / n_b
    (la, ua), (lb, ub) = (
        wilson_interval(events_a, n_a, alpha),
        wilson_interval(events_b, n_b, alpha),
    )
    d = pa - pb
    return d, d - math.hypot(pa - la, ub - pb), d + math.hypot(ua - pa, pb - lb)


def fisher_p(events_a: int, n_a: int, events_b: int, n_b: int) -> float:
    """Two-sided p of Fisher's exact test of two proportions.

    Examples
    --------
    >>> round(fisher_p(56, 70, 48, 80), 4)
    0.0125
    """
    table = np.array([[events_a, n_a - events_a], [events_b, n_b - events_b]])
    return float(stats.fisher_exact(table)[1])


def two_shares_p(events_a: int, n_a: int, events_b: int, n_b: int) -> tuple[float, str]:
    """Two-sided p that two proportions are equal, and the name of the test.

    The chi-squared test with factor (N - 1) / N where every expected count is 1 or more, else
    Fisher's exact test (Campbell, Stat Med 2007;26:3661): at 60 participants Fisher's test has
    half its nominal level.

    Examples
    --------
    >>> p, name = two_shares_p(56, 70, 48, 80)
    >>> round(p, 5), name
    (0.00826, "'N - 1' chi-squared")
    >>> two_shares_p(3, 3, 0, 3)[1]
    "'N - 1' chi-squared"
    >>> two_shares_p(1, 40, 0, 40)[1]
    'Fisher exact'
    """
    table = np.array([[events_a, n_a - events_a], [events_b, n_b - events_b]], float)
    total = table.sum()
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / total
    if expected.min() < 1:
        return fisher_p(events_a, n_a, events_b, n_b), "Fisher exact"
    chi2 = float(np.sum((table - expected) ** 2 / expected)) * (total - 1) / total
    return float(stats.chi2.sf(chi2, 1)), "'N - 1' chi-squared"


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: OrdinalSpec, tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``ordinal``.

    Keys: ``outcome`` (``outcome_visit``); ``by`` (default ``arm`` unless an imaging endpoint is
    to be related to the outcome); ``reference``; ``covariates``; ``better`` (``low`` or ``high``
    end of the scale, default ``low``); ``cut`` (highest category of a good outcome: adds the
    risk difference); ``utilities`` (grade -> utility: adds the difference of mean utilities);
    ``hierarchy`` (outcomes, the most important first: adds their win ratio);
    ``odds_by_cut`` (partial proportional odds: an odds ratio of the arms at every cut);
    ``nonresponder_imputation`` (who has no outcome takes the worst grade). With ``endpoint`` and
    no ``by`` the common odds ratio is per unit of the endpoint.
    """
    outcomes = [analysis.outcome]
    endpoints = [name for name in endpoints_of(analysis) if name not in outcomes]
    for outcome in outcomes:
        if analysis.by or not endpoints:
            yield from _guarded(_arm_rows, analysis, tables, outcome, None)
        else:
            for endpoint in endpoints:
                yield from _guarded(_endpoint_rows, analysis, tables, outcome, endpoint)


def _guarded(
    kernel: Any,
    analysis: OrdinalSpec,
    tables: Tables,
    outcome: str,
    endpoint: str | None,
) -> Iterator[dict[str, Any]]:
    head = {"endpoint": endpoint or outcome}
    try:
        yield from kernel(analysis, tables, outcome, endpoint)
    except NotComputable as reason:
        yield not_computable("common_odds_ratio", str(reason), **head)


def _odds_row(
    fit: ProportionalOdds, plan: Design, term: str, alpha: float, second: np.ndarray | None
) -> dict[str, Any]:
    position = plan.index(term)
    log, error = float(fit.coefficients[position]), float(fit.standard_errors[position])
    if abs(log) + 10 * error > LARGEST_LOG:
        raise NotComputable(
            f"the log odds ratio per unit is {log:.3g}: give {term} in another unit"
        )
    ratio = odds_estimate(fit, position, alpha)
    check: dict[str, Any] = {}
    if second is not None:
        compare(
            log,
            float(second[position]),
            "statsmodels OrderedModel",
            tolerance=1e-3,
            scale=max(error, abs(log)),
        )
        check = compare(
            ratio.estimate,
            math.exp(float(second[position])),
            "statsmodels OrderedModel",
            tolerance=1e-3,
        )
    return {
        "statistic": "common_odds_ratio",
        "estimate": ratio.estimate,
        "ci_low": ratio.ci_low,
        "ci_high": ratio.ci_high,
        "p_value": ratio.p_value,
        **check,
    }


def _ordered_model(plan: Design, y: np.ndarray) -> np.ndarray | None:
    """Coefficients by statsmodels; None where it does not converge."""
    import warnings

    from statsmodels.miscmodels.ordinal_model import OrderedModel

    codes = np.unique(y, return_inverse=True)[1]
    # Its optimiser needs comparable columns: standardise and turn back.
    centre, scale = plan.matrix.mean(axis=0), plan.matrix.std(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = OrderedModel(codes, (plan.matrix - centre) / scale, distr="logit").fit(
            method="bfgs", disp=False, maxiter=2000, gtol=1e-8
        )
    gradient = np.abs(fit.model.score(fit.params)).max()
    if not np.isfinite(gradient) or gradient > 1e-3:
        return None
    return np.asarray(fit.params)[: plan.matrix.shape[1]] / scale


def _assumption(plan: Design, y: np.ndarray, fit: ProportionalOdds) -> str:
    said = []
    for name, test in (
        ("Brant", lambda: brant_test(plan.matrix, y)),
        ("score", lambda: proportional_odds_score_test(plan.matrix, y, fit)),
    ):
        try:
            chi, df, p = test()
            said.append(f"{name} test chi2 {chi:.3g}, df {df}, p {p:.3g}")
        except (NotComputable, np.linalg.LinAlgError):
            said.append(f"{name} test not computable (too few participants in a category)")
    return "proportional odds: " + ", ".join(said)


def _arm_rows(
    analysis: OrdinalSpec, tables: Tables, outcome: str, endpoint: str | None
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    by = analysis.arms
    names = list(analysis.covariates)
    values, visit = outcome_values(analysis, tables, outcome)
    labelled = analysis.changed(categorical=[*analysis.categorical, by])
    frame = participant_columns(labelled, tables, [by])
    frame["value"] = values.reindex(frame.index)
    worst = ""
    if analysis.nonresponder_imputation:
        frame, worst = _worst_grade(frame, by, values, outcome, analysis.better)
    frame = with_covariates(frame, labelled, tables, endpoint=endpoint, names=names)
    frame, note = complete_cases(frame, ["value", by, *names], analysis, tables)
    reference, others, said = levels_of(frame[by], by, analysis.reference)
    said = join_notes(worst, said)
    full = design(frame, by=by, reference=reference, covariates=names)
    plan = Design(full.matrix[:, 1:], full.terms[1:])
    y = frame["value"].to_numpy(float)
    head = {"endpoint": outcome, "visit": visit}
    adjusted = f"; covariates {', '.join(names)}" if names else ""
    pairs = f"without the covariates {', '.join(names)}" if names else ""
    try:
        fit = fit_proportional_odds(plan.matrix, y)
        second = _ordered_model(plan, y)
        assumption = _assumption(plan, y, fit)
        for level in others:
            yield {
                **head,
                "group": f"{by}={level}|{by}={reference}",
                "n": len(frame),
                **_odds_row(fit, plan, f"{by}={level}", alpha, second),
                "method": f"proportional odds, odds of a higher {outcome}; Wald interval{adjusted}",
                "note": join_notes(said, note, assumption),
            }
        if analysis.odds_by_cut:
            groups = {f"{by}={level}": f"{by}={level}|{by}={reference}" for level in others}
            for row in odds_by_cut_rows(plan, y, fit, groups, outcome, alpha):
                text = str(row.get("note", ""))
                yield {**head, **row, "note": text or join_notes(said, note)}
    except NotComputable as reason:
        yield not_computable("common_odds_ratio", str(reason), **head)
    labels = frame[by].map(str)
    b = frame.loc[labels == reference, "value"].to_numpy(float)
    for level in others:
        a = frame.loc[labels == level, "value"].to_numpy(float)
        group = {**head, "group": f"{by}={level}|{by}={reference}", "n": a.size + b.size}
        for row in _pair_rows(analysis, a, b, outcome, alpha):
            yield {**group, **row, "note": join_notes(said, note, pairs, str(row.get("note", "")))}
    if analysis.hierarchy:
        for row in _hierarchy_rows(analysis, tables, labelled, by, alpha):
            text = join_notes(said, pairs, str(row.get("note", "")))
            yield {"endpoint": outcome, **row, "note": text}


def _worst_grade(
    frame: pd.DataFrame, by: str, values: pd.Series, outcome: str, better: str
) -> tuple[pd.DataFrame, str]:
    """Participants of an arm without the outcome get the worst grade that anybody has."""
    gone = frame["value"].isna() & frame[by].notna()
    worst = float(values.max() if better == "low" else values.min())
    said = f"{int(gone.sum())} of {len(frame)} participants without {outcome} take grade {worst:g}"
    return frame.assign(value=frame["value"].mask(gone, worst)), said if gone.any() else ""


def _pair_rows(
    analysis: OrdinalSpec, a: np.ndarray, b: np.ndarray, outcome: str, alpha: float
) -> Iterator[dict[str, Any]]:
    better = analysis.better
    try:
        odds = generalised_odds_ratio(a, b, alpha)
        # P(a > b) + P(ties) / 2 is Mann-Whitney's U / (n m).
        share = float(stats.mannwhitneyu(a, b).statistic) / (a.size * b.size)
        yield {
            "statistic": "generalised_odds_ratio",
            "estimate": odds.estimate,
            "ci_low": odds.ci_low,
            "ci_high": odds.ci_high,
            "p_value": odds.p_value,
            "method": f"generalised odds ratio of a higher {outcome}, ties split; delta method",
            **compare(odds.estimate, share / (1 - share), "scipy.stats.mannwhitneyu"),
        }
    except NotComputable as reason:
        yield not_computable("generalised_odds_ratio", str(reason))
    yield from _win_rows(a, b, better, alpha)
    if analysis.utilities:
        yield _utility_row(analysis.utilities, a, b, outcome, alpha)
    cut = analysis.cut
    if cut is not None:
        good_a, good_b = ((v <= cut if better == "low" else v >= cut) for v in (a, b))
        counts = (int(good_a.sum()), a.size, int(good_b.sum()), b.size)
        d, low, high = risk_difference(*counts, alpha)
        p_value, test = two_shares_p(*counts)
        sign = "<=" if better == "low" else ">="
        yield {
            "statistic": "risk_difference",
            "estimate": d,
            "ci_low": low,
            "ci_high": high,
            "p_value": p_value,
            "method": f"share with {outcome} {sign} {cut:g}; Newcombe hybrid score interval; "
            f"p: {test}",
            "note": f"{counts[0]}/{a.size} against {counts[2]}/{b.size}; "
            f"Fisher exact p {fisher_p(*counts):.3g}",
        }


def _utility_row(
    utilities: Mapping[Any, Any], a: np.ndarray, b: np.ndarray, outcome: str, alpha: float
) -> dict[str, Any]:
    """Difference of mean utilities of the grades (utility-weighted mRS), Welch."""
    worth = {float(grade): float(value) for grade, value in utilities.items()}
    lacking = sorted(set(np.concatenate([a, b])) - set(worth))
    if lacking:
        return not_computable("mean_utility_difference", f"no utility of grade {lacking[0]:g}")
    first, second = (np.array([worth[float(v)] for v in part]) for part in (a, b))
    try:
        result = welch_t(first, second, alpha)
    except NotComputable as reason:
        return not_computable("mean_utility_difference", str(reason))
    theirs = stats.ttest_ind(first, second, equal_var=False)
    compare(result.p_value, float(theirs.pvalue), "scipy.stats.ttest_ind")
    return {
        "statistic": "mean_utility_difference",
        **result.columns(),
        "method": f"difference of mean utilities of {outcome}, Welch t, df {result.df:.6g}",
        "note": f"mean utility {first.mean():.3f} against {second.mean():.3f}",
    }


def _hierarchy_rows(
    analysis: OrdinalSpec,
    tables: Tables,
    labelled: OrdinalSpec,
    by: str,
    alpha: float,
) -> Iterator[dict[str, Any]]:
    """Win ratio of a hierarchy of outcomes, the most important first."""
    levels = [
        (item, "low") if isinstance(item, str) else (item.outcome, item.better)
        for item in analysis.hierarchy or ()
    ]
    names = [name for name, _ in levels]
    frame = participant_columns(labelled, tables, [by]).dropna()
    for name in names:
        frame[name] = outcome_values(analysis, tables, name)[0].reindex(frame.index)
    frame = frame[frame[names].notna().any(axis=1)]
    reference, others, _ = levels_of(frame[by], by, analysis.reference)
    labels = frame[by].map(str)
    for level in others:
        parts = [frame.loc[labels == arm, names].to_numpy(float) for arm in (level, reference)]
        group = f"{by}={level}|{by}={reference}|hierarchy"
        head = {"group": group, "n": sum(len(part) for part in parts)}
        method = (
            "hierarchy "
            + ", then ".join(f"{name} ({better} is better)" for name, better in levels)
            + "; all pairs, missing ties; U-statistic variance"
        )
        try:
            score = hierarchical_scores(parts[0], parts[1], [better for _, better in levels])
            wins = win_statistics(score, alpha)
        except NotComputable as reason:
            yield not_computable("win_ratio", str(reason), **head)
            continue
        count = f"{wins.wins} wins, {wins.losses} losses, {wins.ties} ties"
        for statistic, ratio in (("win_ratio", wins.win_ratio), ("win_odds", wins.win_odds)):
            if ratio is None:
                yield not_computable(statistic, f"no wins or no losses ({count})", **head)
                continue
            yield {
                **head,
                "statistic": statistic,
                "estimate": ratio.estimate,
                "ci_low": ratio.ci_low,
                "ci_high": ratio.ci_high,
                "p_value": ratio.p_value,
                "method": f"{statistic.replace('_', ' ')}, {method}, log scale",
                "note": count,
            }


def _win_rows(a: np.ndarray, b: np.ndarray, better: str, alpha: float) -> Iterator[dict[str, Any]]:
    method = f"all pairs, {better} is better; U-statistic variance"
    try:
        wins = win_statistics(hierarchical_scores(a[:, None], b[:, None], [better]), alpha)
    except NotComputable as reason:
        yield not_computable("win_ratio", str(reason))
        return
    count = f"{wins.wins} wins, {wins.losses} losses, {wins.ties} ties"
    u = float(stats.mannwhitneyu(a, b).statistic)
    u_better = u if better == "high" else a.size * b.size - u
    if wins.win_ratio is None:
        yield not_computable("win_ratio", f"no wins or no losses ({count})")
    else:
        theirs = (u_better - wins.ties / 2) / (a.size * b.size - u_better - wins.ties / 2)
        yield {
            "statistic": "win_ratio",
            "estimate": wins.win_ratio.estimate,
            "ci_low": wins.win_ratio.ci_low,
            "ci_high": wins.win_ratio.ci_high,
            "p_value": wins.win_ratio.p_value,
            "method": f"win ratio, {method}, log scale",
            **compare(
                wins.win_ratio.estimate, theirs, "scipy.stats.mannwhitneyu less half the ties"
            ),
            "note": count,
        }
    yield {
        "statistic": "net_benefit",
        "estimate": wins.net_benefit,
        "ci_low": wins.net_benefit_ci[0],
        "ci_high": wins.net_benefit_ci[1],
        "p_value": wins.net_benefit_p,
        "method": f"P(win) - P(loss), {method}",
        **compare(
            wins.net_benefit, 2 * u_better / (a.size * b.size) - 1, "scipy.stats.mannwhitneyu"
        ),
        "note": count,
    }


def _endpoint_rows(
    analysis: OrdinalSpec, tables: Tables, outcome: str, endpoint: str | None
) -> Iterator[dict[str, Any]]:
    assert endpoint is not None
    alpha = alpha_of(analysis)
    names = list(analysis.covariates)
    for visit, values in endpoint_by_visit(analysis, tables, endpoint):
        said = values.attrs["said"]
        head = {"endpoint": endpoint, "visit": visit, "group": f"{endpoint}|{outcome}"}
        try:
            scores, at = outcome_values(analysis, tables, outcome, visit)
            frame = values.rename(columns={"value": "imaging"})
            frame["outcome"] = scores.reindex(frame.index)
            frame = with_covariates(frame, analysis, tables, endpoint=endpoint, names=names)
            frame, note = complete_cases(frame, ["imaging", "outcome", *names], analysis, tables)
            full = design(frame, covariates=["imaging", *names])
            plan = Design(full.matrix[:, 1:], full.terms[1:])
            y = frame["outcome"].to_numpy(float)
            fit = fit_proportional_odds(plan.matrix, y)
            yield {
                **head,
                "n": len(frame),
                **_odds_row(fit, plan, "imaging", alpha, _ordered_model(plan, y)),
                "method": f"proportional odds of a higher {outcome} per unit of {endpoint}; "
                "Wald interval" + (f"; covariates {', '.join(names)}" if names else ""),
                "note": join_notes(f"{outcome} at {at}", said, note, _assumption(plan, y, fit)),
            }
        except NotComputable as reason:
            yield not_computable("common_odds_ratio", str(reason), **head)
