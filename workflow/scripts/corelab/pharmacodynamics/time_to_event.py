"""Analyses of type ``survival``: medians, log-rank, Cox, restricted means, by arm or along an
imaging endpoint. The methods are in :mod:`corelab.pharmacodynamics.survival`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import NotComputable, Tables, as_list, population
from corelab.pharmacodynamics.analysis_set import (
    Design,
    complete_cases,
    each_visit,
    endpoints_of,
    levels_of,
    with_covariates,
    with_labels,
)
from corelab.pharmacodynamics.competing import (
    cumulative_incidence,
    fit_fine_gray,
    gray_test,
    status_of,
)
from corelab.pharmacodynamics.correlation import spearman
from corelab.pharmacodynamics.estimates import guarded, normal_estimate, ratio_of_log
from corelab.pharmacodynamics.survival import (
    HazardCurve,
    check_times,
    concordance,
    fit_cox,
    hazard_along,
    kaplan_meier,
    log_rank,
    proportional_hazards_test,
    restricted_mean,
    restricted_mean_difference,
    risk_order,
)
from corelab.pharmacodynamics.survival_rows import (
    STRATUM,
    Groups,
    adjusted_mean_rows,
    discrimination_rows,
    interval_rows,
    lifelines_cox,
    ratio_row,
    strata_words,
    terms_of,
    time_varying_rows,
    with_strata,
)
from corelab.provenance.two_computations import ITERATIVE, attempt, compare
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.survival import SurvivalSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes, not_computable

#: Quantiles of an endpoint at which its hazard ratio is given.
CURVE_QUANTILES = (0.1, 0.25, 0.75, 0.9)
#: Statistic of a method that is not computable.
_MAIN = {
    "km": "median_days",
    "logrank": "logrank_p",
    "rmst": "rmst_days",
    "cox": "hazard_ratio",
    "cuminc": "cumulative_incidence",
    "interval": "interval_median_days",
    "finegray": "subdistribution_hazard_ratio",
}


def event_times(
    analysis: AnalysisSpec,
    tables: Tables,
    endpoint: str,
    *,
    criterion: str | None = None,
) -> pd.DataFrame:
    """Time and event per participant of the population, indexed by participant_id.

    Rows are those of ``endpoint``, restricted to ``criterion`` and ``assessor`` of the analysis
    where it names them.

    Raises
    ------
    NotComputable
        If there are no such rows, or several per participant.
    """
    rows = tables.events
    rows = rows[rows["endpoint"] == endpoint]
    for column, wanted in (
        ("criterion", criterion or analysis.criterion),
        ("assessor", analysis.assessor),
    ):
        if wanted is None:
            continue
        if column not in rows.columns:
            raise NotComputable(f"the events sheet has no column {column}")
        rows = rows[rows[column] == wanted]
    rows = rows[rows["participant_id"].isin(population(analysis, tables)["participant_id"])]
    rows = rows.dropna(subset=["time_days", "event"])
    if rows.empty:
        known = ", ".join(sorted(set(map(str, tables.events["endpoint"])))) or "none"
        named = f" by {criterion}" if criterion else ""
        raise NotComputable(
            f"no time to {endpoint}{named} in this population; the events sheet has {known}"
        )
    if rows["participant_id"].duplicated().any():
        ways = [
            f"{column}: {', '.join(sorted(set(rows[column].dropna().map(str))))}"
            for column in ("criterion", "assessor")
            if column in rows.columns and len(set(rows[column].dropna())) > 1
        ]
        raise NotComputable(
            f"several rows of {endpoint} per participant; name one "
            + (" or ".join(ways) or "(they differ in nothing: remove the duplicates)")
        )
    columns = ["time_days", "event", *[c for c in ("last_free_days",) if c in rows.columns]]
    frame = rows.set_index("participant_id")[columns].astype(float)
    check_times(frame["time_days"], frame["event"])
    return frame.sort_index()


def analyse(analysis: SurvivalSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``survival``.

    Who is still without the event at ``landmark_days`` is followed from there: a response seen by
    then is no time-dependent term. ``tau_days`` is by default the shortest of the arms' longest
    follow-ups. An imaging ``endpoint`` enters the Cox model per unit, at each visit, with a spline
    to test that the effect is linear, and by Spearman's correlation among those with the event.
    """
    methods, event = as_list(analysis.method), analysis.event_endpoint
    imaging = [name for name in endpoints_of(analysis) if name != event]
    try:
        times, landmark = _with_landmark(event_times(analysis, tables, event), analysis)
    except NotComputable as reason:
        yield not_computable("median_days", str(reason), endpoint=event)
        return
    # An imaging endpoint has a Cox model of its own; one without any term is not requested.
    grouped = bool(analysis.by or analysis.covariates) or not imaging
    whole = [m for m in methods if m != "time_varying" and (m != "cox" or grouped)]
    if "time_varying" in methods and not imaging:
        needed = "method time_varying needs an imaging endpoint"
        yield not_computable("hazard_ratio", needed, method="time_varying", endpoint=event)
    rows: list[Iterator[StatisticRow]] = []
    if whole or not methods:
        rows.append(_group_rows(analysis, tables, times, whole))
    if not methods or "cox" in methods:
        rows += [_imaging_rows(analysis, tables, times, name) for name in imaging]
    if "time_varying" in methods:
        rows += [time_varying_rows(analysis, tables, times, name) for name in imaging]
    for row in itertools.chain(*rows):
        yield row.within(endpoint=event).noted(landmark)


def _group_rows(
    analysis: SurvivalSpec, tables: Tables, times: pd.DataFrame, methods: list[str]
) -> Iterator[StatisticRow]:
    by, names = analysis.by or "", list(analysis.covariates)
    column = [by] * bool(by)
    try:
        labelled = with_labels(analysis, by)
        frame = with_covariates(times, labelled, tables, endpoint=None, names=[*column, *names])
        frame = with_strata(frame, analysis, tables)
        needed = [*column, *[STRATUM] * (STRATUM in frame)]
        whole, note = complete_cases(frame, needed, analysis, tables)
        reference, others, said = (
            levels_of(whole[by], by, analysis.reference) if by else ("", (), "")
        )
    except NotComputable as reason:
        yield not_computable("median_days", str(reason))
        return
    arms = Groups(whole, by, reference, others)
    every = replace(arms, frame=frame)
    for method in methods or ["km", *["logrank"] * bool(by), *["cox"] * bool(by or names)]:
        if method == "km":
            rows = _median_rows(arms, analysis.alpha)
        elif method == "logrank":
            rows = _logrank_rows(arms)
        elif method in {"cuminc", "finegray"}:
            rows = _competing_rows(analysis, tables, every, method)
        elif method == "rmst":
            rows = _restricted_mean_rows(analysis, arms)
        elif method == "interval":
            rows = interval_rows(analysis, arms, names)
        else:
            rows = _cox_rows(analysis, tables, every)
        placed = _placed(rows, whole, (said, note), STRATUM in frame and method != "cox")
        yield from guarded(placed, _MAIN[method], method=method)


def _placed(
    rows: Iterable[StatisticRow], whole: pd.DataFrame, words: tuple[str, ...], strata: bool
) -> Iterator[StatisticRow]:
    """Rows with their words and number, and what ignores the strata says so."""
    tested = {"logrank_p", "interval_logrank_p", "gray_p"}
    for row in rows:
        plain = "without the strata" * (strata and row.statistic not in tested)
        yield row.within(*words, plain, n=len(whole))


def median_row(time: Any, event: Any, alpha: float) -> StatisticRow:
    """Median with its log-log interval, cross-checked with lifelines."""
    from lifelines import KaplanMeierFitter

    t, e = check_times(time, event)
    curve = kaplan_meier(t, e)
    median = curve.quantile()
    low, high = curve.quantile_interval(alpha=alpha)
    theirs = KaplanMeierFitter().fit(t, e)
    # The whole curve is compared: the median of a flat piece is a convention.
    gap = np.abs(theirs.survival_function_at_times(curve.time).to_numpy() - curve.survival).max()
    compare(float(gap), 0.0, "lifelines.KaplanMeierFitter", tolerance=1e-10, scale=1.0)
    other = float(theirs.median_survival_time_)
    reached = "" if math.isfinite(median) else "median not reached"
    return Estimate(median, low, high, n=t.size).row(
        "median_days",
        Second(other if math.isfinite(other) else math.nan, "lifelines.KaplanMeierFitter"),
        method="Kaplan-Meier, log-log interval (Brookmeyer-Crowley)",
        note=join_notes(f"{int(e.sum())} events in {t.size}", reached),
    )


def _median_rows(arms: Groups, alpha: float) -> Iterator[StatisticRow]:
    for level in arms.levels:
        part = arms.frame[arms.labels == level]
        row = median_row(part["time_days"], part["event"], alpha)
        yield replace(row, group=arms.name(level))


def logrank_row(
    time: Any, event: Any, group: Any, strata: Any = None, level: str | None = None
) -> StatisticRow:
    """A (stratified) log-rank test, cross-checked with lifelines or statsmodels.

    ``above_null`` says whether ``level`` has more events than expected, for a one-sided plan.
    """
    from lifelines.statistics import multivariate_logrank_test
    from statsmodels.duration.survfunc import survdiff

    result = log_rank(time, event, group, strata=strata)
    t, e = np.asarray(time, float), np.asarray(event, float)
    labels = np.asarray(group).astype(str)
    if strata is None:
        theirs = multivariate_logrank_test(t, labels, e)
        chi, p, library = theirs.test_statistic, theirs.p_value, "lifelines.statistics"
        library += ".multivariate_logrank_test"
    else:
        found, library = attempt(
            lambda: survdiff(t, e, labels, strata=np.asarray(strata).astype(str)),
            "statsmodels survdiff, strata",
        )
        chi, p = found if found is not None else (math.nan, math.nan)
        library = library or "statsmodels.duration.survfunc.survdiff"
    if math.isfinite(chi):
        compare(result.chi_squared, float(chi), library, tolerance=1e-7)
    beyond = dict(zip(result.groups, result.observed - result.expected, strict=True))
    first, last = strata_words(strata)
    return Estimate(result.p_value, p_value=result.p_value, n=t.size).row(
        "logrank_p",
        Second(float(p), library),
        method=f"{first}log-rank test, chi2 {result.chi_squared:.6g}, df {result.df}{last}",
        note=", ".join(
            f"{name} {int(o)} observed {x:.2f} expected"
            for name, o, x in zip(result.groups, result.observed, result.expected, strict=True)
        ),
        above_null=None if level is None else bool(beyond[level] > 0),
    )


def _logrank_rows(arms: Groups) -> Iterator[StatisticRow]:
    if not arms.by:
        raise NotComputable("a log-rank test needs by")
    for group, pair, inside in arms.pairs():
        part, layer = arms.frame[inside], arms.strata(inside)
        labels, level = arms.labels[inside], pair[0] if len(pair) == 2 else None
        row = logrank_row(part["time_days"], part["event"], labels, layer, level)
        yield replace(row, group=group)


def _with_landmark(times: pd.DataFrame, analysis: SurvivalSpec) -> tuple[pd.DataFrame, str]:
    """Participants still without the event at the landmark; time counts from there."""
    landmark = analysis.landmark_days
    if landmark is None:
        return times, ""
    later = times[times["time_days"] > float(landmark)]
    if later.empty:
        raise NotComputable(f"nobody is followed beyond the landmark of {landmark:g} days")
    said = f"landmark {landmark:g} days: {len(later)} of {len(times)} participants are beyond it"
    return later.assign(time_days=later["time_days"] - float(landmark)), said


def _restricted_mean_rows(analysis: SurvivalSpec, arms: Groups) -> Iterator[StatisticRow]:
    from lifelines import KaplanMeierFitter
    from lifelines.utils import restricted_mean_survival_time

    alpha, labels = analysis.alpha, arms.labels
    last = (arms.frame["time_days"][labels == level].max() for level in arms.levels)
    tau = float(analysis.tau_days or min(last))
    found: dict[str, Estimate] = {}
    for level in arms.levels:
        part = arms.frame[labels == level]
        result = found[level] = restricted_mean(part["time_days"], part["event"], tau, alpha)
        curve = KaplanMeierFitter().fit(part["time_days"], part["event"])
        theirs = float(restricted_mean_survival_time(curve, t=tau))
        library = "lifelines.utils.restricted_mean_survival_time"
        yield result.row(
            "rmst_days",
            compare(result.estimate, theirs, library, tolerance=1e-7),
            group=arms.name(level),
            p_value=math.nan,
            n=len(part),
            method=f"restricted mean up to {tau:g} days, Greenwood-type standard error",
        )
    for level in arms.others:
        group = arms.group(level)
        try:
            gap = restricted_mean_difference(found[level], found[arms.reference], alpha)
        except NotComputable:
            reason = f"nobody in either arm has an event before {tau:g} days"
            yield not_computable("rmst_difference_days", reason, group=group)
            continue
        yield gap.row(
            "rmst_difference_days",
            group=group,
            n=int(labels.isin([level, arms.reference]).sum()),
            method=f"difference of restricted means up to {tau:g} days, normal",
        )
    if arms.by and analysis.covariates:
        yield from adjusted_mean_rows(analysis, arms, tau)


def _competing_rows(
    analysis: SurvivalSpec, tables: Tables, arms: Groups, method: str
) -> Iterator[StatisticRow]:
    """Cumulative incidence, or Fine and Gray's model, with the key ``competing_endpoint``."""
    competing = analysis.competing_endpoint
    if not competing:
        raise NotComputable(f"method {method} needs competing_endpoint, of the events sheet")
    own = analysis.changed(criterion=None, assessor=None)
    if "endpoint" in tables.events and analysis.landmark_days is not None:
        raise NotComputable(f"method {method} takes no landmark_days")
    frame = arms.frame
    second = event_times(own, tables, str(competing)).reindex(frame.index)
    names = list(analysis.covariates)
    strata = [STRATUM] if STRATUM in frame and method == "cuminc" else []
    needed = [*[arms.by] * bool(arms.by), *(names if method == "finegray" else []), *strata]
    frame = frame.assign(_time=second.time_days, _event=second.event)
    frame, note = complete_cases(frame, [*needed, "_time", "_event"], analysis, tables)
    arms = replace(arms, frame=frame)
    t, s = status_of(frame["time_days"], frame["event"], frame["_time"], frame["_event"])
    counts = f"{int(np.sum(s == 1))} events, {int(np.sum(s == 2))} competing ({competing})"
    if method == "cuminc":
        rows = _incidence_rows(analysis, arms, t, s)
    else:
        rows = _fine_gray_rows(analysis, arms, t, s)
    for row in rows:
        yield row.within(note, counts)


def _fine_gray_rows(
    analysis: SurvivalSpec, arms: Groups, t: np.ndarray, s: np.ndarray
) -> Iterator[StatisticRow]:
    if not (arms.by or analysis.covariates):
        raise NotComputable("Fine and Gray's model needs by or covariates")
    plan = terms_of(analysis, arms)
    fit = fit_fine_gray(t, s, plan.matrix)
    for k, term in enumerate(plan.terms):
        yield ratio_row(
            "subdistribution_hazard_ratio",
            float(fit.coefficients[k]),
            math.sqrt(float(fit.covariance[k, k])),
            analysis.alpha,
            term,
            group=arms.term(term),
            n=fit.n,
            method="Fine and Gray, weights of the censoring curve, Breslow ties, robust Wald "
            f"interval; terms {', '.join(plan.terms)}",
        )


def _incidence_rows(
    analysis: SurvivalSpec, arms: Groups, t: np.ndarray, s: np.ndarray
) -> Iterator[StatisticRow]:
    labels, alpha = arms.labels.to_numpy(), analysis.alpha
    at = float(analysis.tau_days or min(t[labels == level].max() for level in arms.levels))
    found: dict[str, Estimate] = {}
    for level in arms.levels:
        inside, group = labels == level, arms.name(level)
        try:
            found[level] = cumulative_incidence(t[inside], s[inside], at, alpha)
        except NotComputable as reason:
            yield not_computable("cumulative_incidence", str(reason), group=group)
            continue
        yield found[level].row(
            "cumulative_incidence",
            group=group,
            n=int(inside.sum()),
            method=f"Aalen-Johansen, by {at:g} days, log-log interval",
        )
    for level in arms.others:
        if level in found and arms.reference in found:
            one, two = found[level], found[arms.reference]
            error = math.hypot(one.se, two.se)
            yield normal_estimate(one.estimate - two.estimate, error, alpha).row(
                "incidence_difference",
                group=arms.group(level),
                method=f"difference of Aalen-Johansen estimates by {at:g} days, normal",
            )
    if arms.by:
        yield from _gray_rows(arms, t, s)


def _gray_rows(arms: Groups, t: np.ndarray, s: np.ndarray) -> Iterator[StatisticRow]:
    """Gray's test of each arm against the reference, and of all arms where there are more."""
    labels = arms.labels.to_numpy()
    for group, _, inside in arms.pairs():
        layer = arms.strata(inside)
        try:
            chi, df, p = gray_test(t[inside], s[inside], labels[inside], layer)
        except NotComputable as reason:
            yield not_computable("gray_p", str(reason), group=group)
            continue
        first, last = strata_words(layer)
        yield Estimate(p, p_value=p, n=int(inside.sum())).row(
            "gray_p",
            group=group,
            method=f"{first}Gray's test of equal cumulative incidence, chi2 {chi:.6g}, df {df}"
            + last,
        )


def hazard_rows(
    frame: pd.DataFrame,
    plan: Design,
    alpha: float,
    groups: Mapping[str, str],
    definition: str,
    tau: float | None = None,
) -> Iterator[StatisticRow]:
    """Hazard ratios of a Cox model, its concordance and its test of proportional hazards.

    ``frame`` has ``time_days`` and ``event``, ``plan`` is the design without intercept, ``groups``
    names the group printed of a term (default the term), ``definition`` what the model holds;
    ``tau`` is the horizon of Uno's concordance, default the last event.
    """
    t, e = frame["time_days"].to_numpy(), frame["event"].to_numpy()
    strata = frame[STRATUM].to_numpy() if STRATUM in frame else None
    fit = fit_cox(t, e, plan.matrix, strata=strata)
    if strata is not None:
        definition += f"; stratified{strata_words(strata)[1]}"
    theirs, failed = lifelines_cox(frame, plan)
    check = proportional_hazards_test(t, e, plan.matrix, fit, strata=strata)
    per_term = "fewer than 5 events per term" if fit.events < 5 * len(plan.terms) else ""
    for position, term in enumerate(plan.terms):
        proportional = "proportional hazards not testable: all events are at one time"
        if math.isfinite(check.global_p_value):
            proportional = (
                f"proportional hazards p {check.p_value[position]:.3g} "
                f"(score test, all terms {check.global_p_value:.3g})"
            )
        yield ratio_row(
            "hazard_ratio",
            float(fit.coefficients[position]),
            float(fit.standard_errors[position]),
            alpha,
            term,
            theirs=None if theirs is None else float(theirs[position]),
            library=failed or "lifelines.CoxPHFitter, precision 1e-12",
            group=groups.get(term, term),
            n=fit.n,
            method=f"Cox regression, Efron ties, Wald interval; {definition}",
            note=join_notes(f"{fit.events} events; {proportional}", per_term),
        )
    # Risks of different strata are not comparable.
    if strata is None:
        group = groups.get(plan.terms[0], plan.terms[0]) if len(plan.terms) == 1 else "all"
        risk = plan.matrix @ fit.coefficients
        method = "Harrell's concordance of the Cox model, infinitesimal jackknife; apparent; "
        harrell = concordance_row(t, e, risk, alpha, method + definition)
        for row in (harrell, *discrimination_rows(t, e, risk, tau, alpha)):
            yield replace(row, group=group, n=fit.n)


def concordance_row(
    t: np.ndarray, e: np.ndarray, risk: np.ndarray, alpha: float, method: str
) -> StatisticRow:
    """Harrell's concordance of a risk score, cross-checked with lifelines."""
    from lifelines.utils import concordance_index

    c = concordance(t, e, risk)
    theirs = float(concordance_index(t, -risk_order(risk), e))
    second = compare(c.estimate, theirs, "lifelines.utils.concordance_index")
    return c.within_bounds(alpha).row("c_index", second, n=t.size, method=method)


def _cox_rows(analysis: SurvivalSpec, tables: Tables, arms: Groups) -> Iterator[StatisticRow]:
    names = [*[arms.by] * bool(arms.by), *analysis.covariates]
    if not names:
        raise NotComputable("a Cox model needs by, covariates or an imaging endpoint")
    needed = [*names, *[STRATUM] * (STRATUM in arms.frame)]
    frame, note = complete_cases(arms.frame, needed, analysis, tables)
    arms = replace(arms, frame=frame)
    plan = terms_of(analysis, arms)
    groups = {term: arms.term(term) for term in plan.terms}
    words = f"terms {', '.join(plan.terms)}"
    for row in hazard_rows(frame, plan, analysis.alpha, groups, words, analysis.tau_days):
        yield row.noted(note)


def _imaging_rows(
    analysis: SurvivalSpec, tables: Tables, times: pd.DataFrame, endpoint: str
) -> Iterator[StatisticRow]:
    pair = f"{endpoint}|{analysis.event_endpoint}"

    def of_visit(visit: str, values: pd.DataFrame) -> Iterator[StatisticRow]:
        try:
            yield from _along(analysis, tables, values, times, endpoint)
        except NotComputable as reason:
            yield not_computable("hazard_ratio", str(reason), group=pair)
        frame = values.join(times, how="inner")
        group = f"{pair} among those with the event"
        rows = _among_events(frame, analysis.alpha)
        yield from guarded(rows, "spearman_rho", group=group)

    yield from each_visit(analysis, tables, endpoint, of_visit, "hazard_ratio", group=pair)


def _along(
    analysis: SurvivalSpec,
    tables: Tables,
    values: pd.DataFrame,
    times: pd.DataFrame,
    endpoint: str,
) -> Iterator[StatisticRow]:
    """Cox model along the endpoint at one visit, per unit and by a spline."""
    by, event = analysis.by or "", analysis.event_endpoint
    names = [*[by] * bool(by), *analysis.covariates]
    frame = values.join(times, how="inner")
    frame = with_covariates(
        frame, with_labels(analysis, by), tables, endpoint=endpoint, names=names
    )
    frame = with_strata(frame, analysis, tables)
    needed = ["value", *names, *[STRATUM] * (STRATUM in frame)]
    frame, note = complete_cases(frame, needed, analysis, tables)
    if frame.empty:
        raise NotComputable(f"no participant has both {endpoint} and {event}")
    note = join_notes(values.attrs["said"], note)
    reference = levels_of(frame[by], by, analysis.reference)[0] if by else ""
    arms = Groups(frame, by, reference, ())
    plan = terms_of(analysis, arms, "value")
    pair = f"{endpoint}|{event}"
    groups = {term: f"{arms.term(term)} given {endpoint}" for term in plan.terms}
    groups["value"] = pair
    curve, linear = _curve(frame, plan) if STRATUM not in frame else (None, "")
    words = f"per unit of {endpoint}" + (f"; adjusted for {', '.join(names)}" if names else "")
    for row in hazard_rows(frame, plan, analysis.alpha, groups, words, analysis.tau_days):
        yield row.noted(linear * (row.group == pair), note)
    if curve is not None:
        for row in _curve_rows(frame, curve, endpoint, analysis.alpha):
            yield row.within(note, n=len(frame))


def _curve(frame: pd.DataFrame, plan: Design) -> tuple[HazardCurve | None, str]:
    """Hazard ratio along the endpoint, and its test against a straight line."""
    try:
        curve = hazard_along(
            frame["time_days"],
            frame["event"],
            frame["value"],
            np.unique(np.quantile(frame["value"], CURVE_QUANTILES)),
            others=plan.matrix[:, [term != "value" for term in plan.terms]],
        )
    except NotComputable:
        return None, ""
    return curve, f"test that log hazard is linear: p {curve.nonlinearity_p:.3g}"


def _curve_rows(
    frame: pd.DataFrame, curve: HazardCurve, endpoint: str, alpha: float
) -> Iterator[StatisticRow]:
    """Hazard ratios at quantiles of the endpoint against its median."""
    terms = tuple(f"x{k}" for k in range(curve.matrix.shape[1]))
    theirs, _ = lifelines_cox(frame, Design(curve.matrix, terms))
    if theirs is not None:
        for mine, other, error in zip(
            curve.fit.coefficients, theirs, curve.fit.standard_errors, strict=True
        ):
            compare(float(mine), float(other), "lifelines", tolerance=ITERATIVE, scale=float(error))
    knots = ", ".join(f"{knot:.4g}" for knot in curve.knots)
    for at, log, error in zip(curve.at, curve.log_hazard_ratio, curve.standard_error, strict=True):
        try:
            ratio = ratio_of_log(float(log), float(error), alpha, endpoint)
        except NotComputable:
            continue
        yield ratio.row(
            "hazard_ratio",
            group=f"{endpoint}={at:.4g}|{endpoint}={curve.reference:.4g}",
            method=f"Cox regression, restricted cubic spline, knots {knots}; quantile of the "
            "endpoint against its median",
        )


def _among_events(frame: pd.DataFrame, alpha: float) -> Iterator[StatisticRow]:
    died = frame[frame["event"] == 1].dropna(subset=["value"])
    result = spearman(died["value"], died["time_days"], alpha)
    theirs = float(scipy.stats.spearmanr(died["value"], died["time_days"]).statistic)
    yield result.row(
        "spearman_rho",
        compare(result.estimate, theirs, "scipy.stats.spearmanr"),
        method=f"{result.method}; censored participants left out, which biases: descriptive",
    )
