"""Ordinal outcomes: proportional odds, generalised odds ratio, win ratio, dichotomies.

Direction: a common or generalised odds ratio above 1 means that the first group has the *higher*
category (on the modified Rankin scale: the worse); a win ratio above 1 means that it does
*better*, and which end is better is stated (``better: low`` unless the plan says ``high``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.measurement.selection import NotComputable, Tables
from corelab.pharmacodynamics.analysis_set import (
    Arms,
    Design,
    adjusted_words,
    arms_of,
    complete_cases,
    design,
    each_visit,
    endpoints_of,
    levels_of,
    participant_columns,
    sheet_values,
    strata_of,
    with_covariates,
    with_labels,
)
from corelab.pharmacodynamics.estimates import (
    LARGEST_LOG,
    contrast_of,
    guarded,
    normal_estimate,
    ratio_estimate,
)
from corelab.pharmacodynamics.partial_odds import odds_by_cut_rows
from corelab.pharmacodynamics.proportional_odds import (
    ProportionalOdds,
    brant_test,
    fit_proportional_odds,
    proportional_odds_score_test,
)
from corelab.pharmacodynamics.proportions import risk_difference, two_counts
from corelab.pharmacodynamics.two_samples import welch_t
from corelab.provenance.two_computations import attempt, compare
from corelab.settings.analyses.ordinal import OrdinalSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes, not_computable


def _generalised_odds_ratio(
    a: Any, b: Any, alpha: float = 0.05, *, ties: str = "split"
) -> Estimate:
    """Agresti's generalised odds ratio: odds that a value of a exceeds one of b, ties split (win
    odds) or dropped. Error by the delta method for concordance over discordance (Goodman and
    Kruskal), as R genodds.
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


@dataclass(frozen=True)
class _Wins:
    """Wins over losses, the same with ties split, P(win) - P(loss), and numbers of pairs."""

    win_ratio: Estimate | None
    win_odds: Estimate | None
    net_benefit: Estimate
    wins: int
    losses: int
    ties: int

    @property
    def words(self) -> str:
        """Numbers of pairs, for notes."""
        return f"{self.wins} wins, {self.losses} losses, {self.ties} ties"


def _win_statistics(score: Any, alpha: float = 0.05) -> _Wins:
    """Win ratio, win odds and net benefit of (n_a, n_b) pairwise results: 1 a win of a, -1 a loss,
    0 a tie. U-statistic variances (Dong et al., Pharm Stat 2016;15:430), ratios on the log scale.
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
    return _Wins(
        ratio,
        odds,
        normal_estimate(net, net_error, alpha),
        int(win.sum()),
        int(loss.sum()),
        int(s.size - win.sum() - loss.sum()),
    )


def _hierarchical_scores(a: Any, b: Any, better: Sequence[str]) -> np.ndarray:
    """Pairwise results of (n, k) and (m, k) outcomes, the most important first: the next one
    decides where one is tied; a missing value ties. ``better`` is ``low`` or ``high`` of each.
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


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: OrdinalSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``ordinal``.

    By arm, unless an imaging endpoint without ``by`` is to be related to the outcome: then the
    common odds ratio is per unit of the endpoint.
    """
    outcome = analysis.outcome
    endpoints = [name for name in endpoints_of(analysis) if name != outcome]
    if analysis.by or not endpoints:
        rows = _arm_rows(analysis, tables, outcome)
        yield from guarded(rows, "common_odds_ratio", endpoint=outcome)
        return
    for endpoint in endpoints:
        rows = _endpoint_rows(analysis, tables, outcome, endpoint)
        yield from guarded(rows, "common_odds_ratio", endpoint=endpoint)


def _odds_row(
    fit: ProportionalOdds, second: np.ndarray | None, plan: Design, term: str, alpha: float
) -> StatisticRow:
    position = plan.index(term)
    log, error = float(fit.coefficients[position]), float(fit.standard_errors[position])
    if abs(log) + 10 * error > LARGEST_LOG:
        raise NotComputable(
            f"the log odds ratio per unit is {log:.3g}: give {term} in another unit"
        )
    ratio = fit.odds(position, alpha)
    check = Second()
    if second is not None:
        other, name = float(second[position]), "statsmodels OrderedModel"
        compare(log, other, name, tolerance=1e-3, scale=max(error, abs(log)))
        check = compare(ratio.estimate, math.exp(other), name, tolerance=1e-3)
    return ratio.row("common_odds_ratio", check, n=len(plan.matrix))


def _ordered_model(plan: Design, y: np.ndarray) -> np.ndarray | None:
    """Coefficients by statsmodels; None where it does not converge."""
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    codes = np.unique(y, return_inverse=True)[1]
    # Its optimiser needs comparable columns: standardise and turn back.
    centre, scale = plan.matrix.mean(axis=0), plan.matrix.std(axis=0)
    fit, _ = attempt(
        lambda: OrderedModel(codes, (plan.matrix - centre) / scale, distr="logit").fit(
            method="bfgs", disp=False, maxiter=2000, gtol=1e-8
        ),
        "statsmodels OrderedModel",
    )
    gradient = math.inf if fit is None else np.abs(fit.model.score(fit.params)).max()
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


def _arm_rows(analysis: OrdinalSpec, tables: Tables, outcome: str) -> Iterator[StatisticRow]:
    alpha, by, names = analysis.alpha, analysis.arms, list(analysis.covariates)
    values, visit = sheet_values(analysis, tables, "outcome", outcome)
    labelled = with_labels(analysis, by)
    frame = participant_columns(labelled, tables, [by])
    frame["value"] = values.reindex(frame.index)
    worst = ""
    if analysis.nonresponder_imputation:
        frame, worst = _worst_grade(frame, by, values, outcome, analysis.better)
    arms = arms_of(labelled, tables, None, frame.drop(columns=by), names)
    arms = replace(arms, said=join_notes(worst, arms.said))
    head = {"endpoint": outcome, "visit": visit}
    rows = _common_odds_rows(analysis, arms, arms.design().slopes(), outcome)
    yield from guarded(rows, "common_odds_ratio", **head)
    words = f"without the covariates {', '.join(names)}" if names else ""
    strata = strata_of(analysis, tables, arms.frame)
    for level in arms.others:
        a, b = arms.values(level), arms.values(arms.reference)
        place = {**head, "group": arms.group(level), "n": a.size + b.size}
        for row in _pair_rows(analysis, a, b, outcome, alpha):
            yield row.within(arms.note, words, **place)
        if strata is not None:
            part, inside = arms.part(level, strata.notna())
            rows = _pooled_rows(part["value"], inside, strata[part.index], outcome, alpha)
            yield from guarded(rows, "stratified_generalised_odds_ratio", arms.note, words, **place)
    if analysis.hierarchy:
        for row in _hierarchy_rows(analysis, tables, labelled, by, alpha):
            yield row.within(arms.said, words, endpoint=outcome)


def _common_odds_rows(
    analysis: OrdinalSpec, arms: Arms, plan: Design, outcome: str
) -> Iterator[StatisticRow]:
    """Proportional odds of the arms, and the odds ratio at every cut where that is planned."""
    y = arms.frame["value"].to_numpy(float)
    fit = fit_proportional_odds(plan.matrix, y)
    second, assumption = _ordered_model(plan, y), _assumption(plan, y, fit)
    terms = {f"{arms.by}={level}": arms.group(level) for level in arms.others}
    method = f"proportional odds, odds of a higher {outcome}; Wald interval"
    for term, group in terms.items():
        yield replace(
            _odds_row(fit, second, plan, term, analysis.alpha),
            group=group,
            method=method + adjusted_words(arms.names),
            note=join_notes(arms.note, assumption),
        )
    if analysis.odds_by_cut:
        for row in odds_by_cut_rows(plan, y, fit, terms, outcome, analysis.alpha):
            yield row.within(note=arms.note)


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
) -> Iterator[StatisticRow]:
    better, cut = analysis.better, analysis.cut
    yield from guarded(_odds_of_pairs(a, b, outcome, alpha), "generalised_odds_ratio")
    yield from guarded(_win_rows(a, b, better, alpha), "win_ratio")
    if analysis.utilities:
        rows = _utility_rows(analysis.utilities, a, b, outcome, alpha)
        yield from guarded(rows, "mean_utility_difference")
    if cut is not None:
        good_a, good_b = ((v <= cut if better == "low" else v >= cut) for v in (a, b))
        counts = (int(good_a.sum()), a.size, int(good_b.sum()), b.size)
        found = risk_difference(*counts, alpha)
        sign = "<=" if better == "low" else ">="
        yield found.row(
            "risk_difference",
            method=f"share with {outcome} {sign} {cut:g}; Newcombe hybrid score interval; "
            f"p: {found.method}",
            note=two_counts(*counts),
        )


def _odds_of_pairs(
    a: np.ndarray, b: np.ndarray, outcome: str, alpha: float
) -> Iterator[StatisticRow]:
    odds = _generalised_odds_ratio(a, b, alpha)
    # P(a > b) + P(ties) / 2 is Mann-Whitney's U / (n m).
    share = float(stats.mannwhitneyu(a, b).statistic) / (a.size * b.size)
    yield odds.row(
        "generalised_odds_ratio",
        compare(odds.estimate, share / (1 - share), "scipy.stats.mannwhitneyu"),
        method=f"generalised odds ratio of a higher {outcome}, ties split; delta method",
    )


def _pooled_rows(
    values: pd.Series, inside: pd.Series, strata: pd.Series, outcome: str, alpha: float
) -> Iterator[StatisticRow]:
    """Inverse-variance mean of the strata's log generalised odds ratios, as R genodds."""
    found = []
    for level in sorted(set(strata)):
        own = strata == level
        try:
            found.append(_generalised_odds_ratio(values[own & inside], values[own & ~inside]))
        except NotComputable:
            continue
    if not found:
        raise NotComputable("no stratum has both arms and grades that overlap")
    logs = np.array([math.log(one.estimate) for one in found])
    weights = np.array([one.se**-2.0 for one in found])
    mean = float(weights @ logs / weights.sum())
    q, df = float(weights @ (logs - mean) ** 2), len(found) - 1
    p = f"{stats.chi2.sf(q, df):.3g}" if df else "n/a"
    yield ratio_estimate(math.exp(mean), 1 / math.sqrt(weights.sum()), alpha).row(
        "stratified_generalised_odds_ratio",
        n=len(values),
        method=f"generalised odds ratio of a higher {outcome}, ties split; inverse-variance mean "
        f"of {len(found)} strata",
        note=f"{len(found)} of {strata.nunique()} strata; heterogeneity Q {q:.4g}, df {df}, p {p}",
    )


def _utility_rows(
    utilities: Mapping[float | str, float], a: np.ndarray, b: np.ndarray, outcome: str, alpha: float
) -> Iterator[StatisticRow]:
    """Difference of mean utilities of the grades (utility-weighted mRS), Welch."""
    worth = {float(grade): float(value) for grade, value in utilities.items()}
    lacking = sorted(set(np.concatenate([a, b])) - set(worth))
    if lacking:
        raise NotComputable(f"no utility of grade {lacking[0]:g}")
    first, second = (np.array([worth[float(v)] for v in part]) for part in (a, b))
    result = welch_t(first, second, alpha)
    theirs = stats.ttest_ind(first, second, equal_var=False)
    compare(result.p_value, float(theirs.pvalue), "scipy.stats.ttest_ind")
    yield result.row(
        "mean_utility_difference",
        method=f"difference of mean utilities of {outcome}, Welch t, df {result.df:.6g}",
        note=f"mean utility {first.mean():.3f} against {second.mean():.3f}",
    )


def _hierarchy_rows(
    analysis: OrdinalSpec, tables: Tables, labelled: OrdinalSpec, by: str, alpha: float
) -> Iterator[StatisticRow]:
    """Win ratio of a hierarchy of outcomes, the most important first."""
    levels = [
        (item, "low") if isinstance(item, str) else (item.outcome, item.better)
        for item in analysis.hierarchy or ()
    ]
    names = [name for name, _ in levels]
    frame = participant_columns(labelled, tables, [by]).dropna()
    for name in names:
        frame[name] = sheet_values(analysis, tables, "outcome", name)[0].reindex(frame.index)
    frame = frame[frame[names].notna().any(axis=1)]
    reference, others, _ = levels_of(frame[by], by, analysis.reference)
    labels = frame[by].map(str)
    for level in others:
        parts = [frame.loc[labels == arm, names].to_numpy(float) for arm in (level, reference)]
        group = f"{contrast_of(by, level, reference)}|hierarchy"
        rows = _hierarchy_of(parts[0], parts[1], levels, alpha)
        yield from guarded(rows, "win_ratio", group=group, n=sum(len(part) for part in parts))


def _hierarchy_of(
    a: np.ndarray, b: np.ndarray, levels: Sequence[tuple[str, str]], alpha: float
) -> Iterator[StatisticRow]:
    order = ", then ".join(f"{name} ({better} is better)" for name, better in levels)
    wins = _win_statistics(_hierarchical_scores(a, b, [better for _, better in levels]), alpha)
    for statistic, ratio in (("win_ratio", wins.win_ratio), ("win_odds", wins.win_odds)):
        if ratio is None:
            yield not_computable(statistic, f"no wins or no losses ({wins.words})")
            continue
        yield ratio.row(
            statistic,
            method=f"{statistic.replace('_', ' ')}, hierarchy {order}; all pairs, missing ties; "
            "U-statistic variance, log scale",
            note=wins.words,
        )


def _win_rows(a: np.ndarray, b: np.ndarray, better: str, alpha: float) -> Iterator[StatisticRow]:
    method = f"all pairs, {better} is better; U-statistic variance"
    wins = _win_statistics(_hierarchical_scores(a[:, None], b[:, None], [better]), alpha)
    u = float(stats.mannwhitneyu(a, b).statistic)
    u_better = u if better == "high" else a.size * b.size - u
    if wins.win_ratio is None:
        yield not_computable("win_ratio", f"no wins or no losses ({wins.words})")
    else:
        theirs = (u_better - wins.ties / 2) / (a.size * b.size - u_better - wins.ties / 2)
        library = "scipy.stats.mannwhitneyu less half the ties"
        yield wins.win_ratio.row(
            "win_ratio",
            compare(wins.win_ratio.estimate, theirs, library),
            method=f"win ratio, {method}, log scale",
            note=wins.words,
        )
    net, theirs = wins.net_benefit, 2 * u_better / (a.size * b.size) - 1
    yield net.row(
        "net_benefit",
        compare(net.estimate, theirs, "scipy.stats.mannwhitneyu"),
        method=f"P(win) - P(loss), {method}",
        note=wins.words,
    )


def _endpoint_rows(
    analysis: OrdinalSpec, tables: Tables, outcome: str, endpoint: str
) -> Iterator[StatisticRow]:
    names = list(analysis.covariates)

    def rows(visit: str, values: pd.DataFrame) -> Iterator[StatisticRow]:
        scores, at = sheet_values(analysis, tables, "outcome", outcome, visit)
        frame = values.rename(columns={"value": "imaging"})
        frame["outcome"] = scores.reindex(frame.index)
        frame = with_covariates(frame, analysis, tables, endpoint=endpoint, names=names)
        frame, note = complete_cases(frame, ["imaging", "outcome", *names], analysis, tables)
        plan = design(frame, covariates=["imaging", *names]).slopes()
        y = frame["outcome"].to_numpy(float)
        fit = fit_proportional_odds(plan.matrix, y)
        said = values.attrs["said"]
        yield replace(
            _odds_row(fit, _ordered_model(plan, y), plan, "imaging", analysis.alpha),
            method=f"proportional odds of a higher {outcome} per unit of {endpoint}; "
            f"Wald interval{adjusted_words(names)}",
            note=join_notes(f"{outcome} at {at}", said, note, _assumption(plan, y, fit)),
        )

    def of_visit(visit: str, values: pd.DataFrame) -> Iterator[StatisticRow]:
        group = f"{endpoint}|{outcome}"
        yield from guarded(rows(visit, values), "common_odds_ratio", group=group)

    yield from each_visit(analysis, tables, endpoint, of_visit, "common_odds_ratio")
