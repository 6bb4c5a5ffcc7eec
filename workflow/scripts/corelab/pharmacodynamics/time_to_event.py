"""Analyses of type ``survival``: medians, log-rank, Cox, restricted means, by arm or along an
imaging endpoint. The methods are in :mod:`corelab.pharmacodynamics.survival`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    not_computable,
    population,
)
from corelab.pharmacodynamics.analysis_set import (
    Design,
    alpha_of,
    complete_cases,
    design,
    endpoint_by_visit,
    endpoints_of,
    join_notes,
    levels_of,
    with_covariates,
)
from corelab.pharmacodynamics.competing import (
    cumulative_incidence,
    fit_fine_gray,
    gray_test,
    status_of,
)
from corelab.pharmacodynamics.correlation import spearman
from corelab.pharmacodynamics.proportional_odds import LARGEST_LOG
from corelab.pharmacodynamics.survival import (
    CoxFit,
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
    adjusted_mean_rows,
    discrimination_rows,
    interval_rows,
    ratio_columns,
    time_varying_rows,
    with_strata,
)
from corelab.provenance.two_computations import ITERATIVE, LIFELINES_NEWTON, attempt, compare
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.survival import SurvivalSpec

#: Quantiles of an endpoint at which its hazard ratio is given.
CURVE_QUANTILES = (0.1, 0.25, 0.75, 0.9)


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


def analyse(analysis: SurvivalSpec, tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``survival``.

    Keys: ``event_endpoint`` (one or a list), ``criterion``, ``assessor``; ``by`` (``reference``),
    ``covariates``; ``method`` (one or a list of km, logrank, cox, rmst, cuminc, finegray, interval
    and, of an imaging endpoint, time_varying; default km, logrank and cox where they apply);
    ``strata`` (columns of participants: stratified Cox model, log-rank tests and test of Gray);
    ``landmark_days`` (only who is still without the event then, and time counts from there: a
    response seen by the landmark is no time-dependent term); ``tau_days`` of the restricted mean
    (default: the shortest of the arms' longest follow-ups).
    An imaging ``endpoint`` enters the Cox model per unit, at each visit, with a spline to test
    that the effect is linear, and by Spearman's correlation among those with the event.
    """
    methods, events = as_list(analysis.method), [analysis.event_endpoint]
    imaging = [name for name in endpoints_of(analysis) if name not in events]
    for event in events:
        head = {"endpoint": event}
        try:
            times, landmark = _with_landmark(event_times(analysis, tables, event), analysis)
        except NotComputable as reason:
            yield not_computable("median_days", str(reason), **head)
            continue
        grouped = bool(analysis.by or analysis.covariates)
        # An imaging endpoint has a Cox model of its own; one without any term is not requested.
        whole = [m for m in methods if m != "cox" or grouped or not imaging]
        if "time_varying" in methods and not imaging:
            needed = "method time_varying needs an imaging endpoint"
            yield not_computable("hazard_ratio", needed, method="time_varying", **head)
        whole = [m for m in whole if m != "time_varying"]
        rows: list[Iterator[dict[str, Any]]] = []
        if whole or not methods:
            rows.append(_group_rows(analysis, tables, times, event, whole))
        if not methods or "cox" in methods:
            rows += [_imaging_rows(analysis, tables, times, event, name) for name in imaging]
        if "time_varying" in methods:
            rows += [time_varying_rows(analysis, tables, times, event, name) for name in imaging]
        for row in itertools.chain(*rows):
            yield {**row, "note": join_notes(str(row.get("note", "")), landmark)}


def _group_rows(
    analysis: SurvivalSpec,
    tables: Tables,
    times: pd.DataFrame,
    event: str,
    methods: list[str],
) -> Iterator[dict[str, Any]]:
    by = analysis.by if analysis.by else None
    names = list(analysis.covariates)
    head = {"endpoint": event}
    try:
        labelled = analysis.changed(
            categorical=[*analysis.categorical, *as_list(by)],
        )
        frame = with_covariates(
            times, labelled, tables, endpoint=None, names=[*as_list(by), *names]
        )
        frame = with_strata(frame, analysis, tables)
        needed = [*as_list(by), *[STRATUM] * (STRATUM in frame)]
        whole, note = complete_cases(frame, needed, analysis, tables)
        reference, others, said = (
            levels_of(whole[by], by, analysis.reference) if by else ("", (), "")
        )
    except NotComputable as reason:
        yield not_computable("median_days", str(reason), **head)
        return
    wanted = methods or ["km", *(["logrank"] if by else []), *(["cox"] if by or names else [])]
    levels = (reference, *others) if by else ()
    for method in wanted:
        try:
            if method == "km":
                rows = _median_rows(analysis, whole, by, levels)
            elif method == "logrank":
                rows = _logrank_rows(whole, by, reference, others)
            elif method in {"cuminc", "finegray"}:
                rows = _competing_rows(analysis, tables, frame, by, reference, others, method)
            elif method == "rmst":
                rows = _restricted_mean_rows(analysis, whole, by, reference, others)
            elif method == "interval":
                rows = interval_rows(analysis, whole, by, reference, others, names)
            else:
                rows = _cox_rows(analysis, tables, frame, by, reference, names)
            for row in rows:
                tested = {"logrank_p", "interval_logrank_p", "gray_p"}
                plain = STRATUM in frame and method != "cox" and row["statistic"] not in tested
                yield {
                    **head,
                    "n": len(whole),
                    **row,
                    "note": join_notes(
                        said, note, "without the strata" * plain, str(row.get("note", ""))
                    ),
                }
        except NotComputable as reason:
            statistic = {
                "km": "median_days",
                "logrank": "logrank_p",
                "rmst": "rmst_days",
                "cox": "hazard_ratio",
                "cuminc": "cumulative_incidence",
                "interval": "interval_median_days",
                "finegray": "subdistribution_hazard_ratio",
            }[method]
            yield not_computable(statistic, str(reason), method=method, **head)


def median_row(time: Any, event: Any, alpha: float) -> dict[str, Any]:
    """Columns of a median with its log-log interval, cross-checked with lifelines."""
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
    counts = f"{int(e.sum())} events in {t.size}"
    reached = "" if math.isfinite(median) else "median not reached"
    return {
        "statistic": "median_days",
        "estimate": median,
        "ci_low": low,
        "ci_high": high,
        "n": t.size,
        "method": "Kaplan-Meier, log-log interval (Brookmeyer-Crowley)",
        "second_estimate": other if math.isfinite(other) else math.nan,
        "second_method": "lifelines.KaplanMeierFitter",
        "note": join_notes(counts, reached),
    }


def _median_rows(
    analysis: SurvivalSpec, frame: pd.DataFrame, by: str | None, levels: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    if by is None:
        yield {"group": "all", **median_row(frame["time_days"], frame["event"], alpha)}
        return
    for level in levels:
        part = frame[frame[by].map(str) == level]
        yield {"group": f"{by}={level}", **median_row(part["time_days"], part["event"], alpha)}


def logrank_row(
    time: Any, event: Any, group: Any, strata: Any = None, level: str | None = None
) -> dict[str, Any]:
    """Columns of a (stratified) log-rank test, cross-checked with lifelines or statsmodels.

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
    counts = ", ".join(
        f"{name} {int(o)} observed {x:.2f} expected"
        for name, o, x in zip(result.groups, result.observed, result.expected, strict=True)
    )
    return {
        "statistic": "logrank_p",
        "estimate": result.p_value,
        "p_value": result.p_value,
        "n": len(np.asarray(time)),
        "method": ("" if strata is None else "stratified ")
        + f"log-rank test, chi2 {result.chi_squared:.6g}, df {result.df}"
        + ("" if strata is None else f", {len(set(np.asarray(strata)))} strata"),
        "second_estimate": float(p),
        "second_method": library,
        "note": counts,
        "above_null": None
        if level is None
        else bool(
            dict(zip(result.groups, result.observed - result.expected, strict=True))[level] > 0
        ),
    }


def _logrank_rows(
    frame: pd.DataFrame, by: str | None, reference: str, others: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    if by is None:
        raise NotComputable("a log-rank test needs by")
    labels = frame[by].map(str)
    for level in others:
        part = frame[labels.isin([level, reference])]
        yield {
            "group": f"{by}={level}|{by}={reference}",
            **logrank_row(
                part["time_days"], part["event"], part[by].map(str), _strata(part), level
            ),
        }
    if len(others) > 1:
        strata = _strata(frame)
        yield {"group": by, **logrank_row(frame["time_days"], frame["event"], labels, strata)}


def _strata(frame: pd.DataFrame) -> Any:
    return frame[STRATUM].to_numpy() if STRATUM in frame else None


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


def _restricted_mean_rows(
    analysis: SurvivalSpec,
    frame: pd.DataFrame,
    by: str | None,
    reference: str,
    others: tuple[str, ...],
) -> Iterator[dict[str, Any]]:
    from lifelines import KaplanMeierFitter
    from lifelines.utils import restricted_mean_survival_time

    alpha = alpha_of(analysis)
    labels = frame[by].map(str) if by else pd.Series("all", index=frame.index)
    levels = (reference, *others) if by else ("all",)
    tau = float(analysis.tau_days or min(frame["time_days"][labels == lv].max() for lv in levels))
    z = scipy.stats.norm.ppf(1 - alpha / 2)
    found = {}
    for level in levels:
        part = frame[labels == level]
        result = found[level] = restricted_mean(part["time_days"], part["event"], tau)
        curve = KaplanMeierFitter().fit(part["time_days"], part["event"])
        yield {
            "statistic": "rmst_days",
            "group": f"{by}={level}" if by else "all",
            "estimate": result.estimate,
            "ci_low": result.estimate - z * result.standard_error,
            "ci_high": result.estimate + z * result.standard_error,
            "n": len(part),
            "method": f"restricted mean up to {tau:g} days, Greenwood-type standard error",
            **compare(
                result.estimate,
                float(restricted_mean_survival_time(curve, t=tau)),
                "lifelines.utils.restricted_mean_survival_time",
                tolerance=1e-7,
            ),
        }
    for level in others:
        group = f"{by}={level}|{by}={reference}"
        try:
            gap = restricted_mean_difference(found[level], found[reference], alpha)
        except NotComputable:
            reason = f"nobody in either arm has an event before {tau:g} days"
            yield not_computable("rmst_difference_days", reason, group=group)
            continue
        yield {
            "statistic": "rmst_difference_days",
            "group": group,
            **gap.columns(),
            "n": int(labels.isin([level, reference]).sum()),
            "method": f"difference of restricted means up to {tau:g} days, normal",
        }
    names = list(analysis.covariates)
    if by and names:
        yield from adjusted_mean_rows(analysis, frame, by, reference, others, names, tau)


def _competing_rows(
    analysis: SurvivalSpec,
    tables: Tables,
    frame: pd.DataFrame,
    by: str | None,
    reference: str,
    others: tuple[str, ...],
    method: str,
) -> Iterator[dict[str, Any]]:
    """Cumulative incidence, or Fine and Gray's model, with the key ``competing_endpoint``."""
    competing = analysis.competing_endpoint
    if not competing:
        raise NotComputable(f"method {method} needs competing_endpoint, of the events sheet")
    own = analysis.changed(criterion=None, assessor=None)
    if "endpoint" in tables.events and analysis.landmark_days is not None:
        raise NotComputable(f"method {method} takes no landmark_days")
    second = event_times(own, tables, str(competing)).reindex(frame.index)
    names = list(analysis.covariates)
    strata = [STRATUM] if STRATUM in frame and method == "cuminc" else []
    needed = [*as_list(by), *(names if method == "finegray" else []), *strata]
    frame = frame.assign(_time=second.time_days, _event=second.event)
    frame, note = complete_cases(frame, [*needed, "_time", "_event"], analysis, tables)
    t, s = status_of(frame["time_days"], frame["event"], frame["_time"], frame["_event"])
    counts = f"{int(np.sum(s == 1))} events, {int(np.sum(s == 2))} competing ({competing})"
    text = join_notes(note, counts)
    z = float(scipy.stats.norm.ppf(1 - alpha_of(analysis) / 2))
    if method == "cuminc":
        yield from _incidence_rows(analysis, frame, by, (reference, *others), (t, s), z, text)
        return
    if by is None and not names:
        raise NotComputable("Fine and Gray's model needs by or covariates")
    full = design(
        frame,
        by=by,
        reference=reference or None,
        covariates=names,
        reference_levels=analysis.reference_levels,
    )
    fit = fit_fine_gray(t, s, full.matrix[:, 1:])
    for k, term in enumerate(full.terms[1:]):
        log, error = float(fit.coefficients[k]), math.sqrt(float(fit.covariance[k, k]))
        try:
            columns = ratio_columns(log, error, alpha_of(analysis), term)
        except NotComputable as reason:
            yield not_computable("subdistribution_hazard_ratio", str(reason), group=term)
            continue
        yield {
            "statistic": "subdistribution_hazard_ratio",
            "group": f"{term}|{by}={reference}" if term.startswith(f"{by}=") else term,
            **columns,
            "n": fit.n,
            "method": "Fine and Gray, weights of the censoring curve, Breslow ties, robust Wald "
            f"interval; terms {', '.join(full.terms[1:])}",
            "note": text,
        }


def _incidence_rows(
    analysis: SurvivalSpec,
    frame: pd.DataFrame,
    by: str | None,
    levels: tuple[str, ...],
    observed: tuple[np.ndarray, np.ndarray],
    z: float,
    note: str,
) -> Iterator[dict[str, Any]]:
    t, s = observed
    labels = frame[by].map(str).to_numpy() if by else np.full(t.size, "all")
    levels = levels if by else ("all",)
    at = float(analysis.tau_days or min(t[labels == level].max() for level in levels))
    found = {}
    for level in levels:
        group = f"{by}={level}" if by else "all"
        try:
            result = cumulative_incidence(t[labels == level], s[labels == level], at, z)
        except NotComputable as reason:
            yield not_computable("cumulative_incidence", str(reason), group=group)
            continue
        found[level] = result
        yield {
            "statistic": "cumulative_incidence",
            "group": group,
            "estimate": result.estimate,
            "ci_low": result.ci_low,
            "ci_high": result.ci_high,
            "n": int(np.sum(labels == level)),
            "method": f"Aalen-Johansen, by {at:g} days, log-log interval",
            "note": note,
        }
    for level in levels[1:]:
        if level not in found or levels[0] not in found:
            continue
        gap = found[level].estimate - found[levels[0]].estimate
        error = math.hypot(found[level].standard_error, found[levels[0]].standard_error)
        yield {
            "statistic": "incidence_difference",
            "group": f"{by}={level}|{by}={levels[0]}",
            "estimate": gap,
            "ci_low": gap - z * error,
            "ci_high": gap + z * error,
            "p_value": float(2 * scipy.stats.norm.sf(abs(gap) / error)) if error > 0 else math.nan,
            "method": f"difference of Aalen-Johansen estimates by {at:g} days, normal",
            "note": note,
        }
    if by:
        yield from _gray_rows(t, s, labels, by, levels, note, _strata(frame))


def _gray_rows(
    t: np.ndarray,
    s: np.ndarray,
    labels: np.ndarray,
    by: str,
    levels: tuple[str, ...],
    note: str,
    strata: np.ndarray | None,
) -> Iterator[dict[str, Any]]:
    """Gray's test of each arm against the reference, and of all arms where there are more."""
    pairs = [(f"{by}={level}|{by}={levels[0]}", [level, levels[0]]) for level in levels[1:]]
    for group, pair in [*pairs, *([(by, list(levels))] if len(pairs) > 1 else [])]:
        inside = np.isin(labels, pair)
        try:
            layer = None if strata is None else strata[inside]
            chi, df, p = gray_test(t[inside], s[inside], labels[inside], layer)
        except NotComputable as reason:
            yield not_computable("gray_p", str(reason), group=group)
            continue
        yield {
            "statistic": "gray_p",
            "group": group,
            "estimate": p,
            "p_value": p,
            "n": int(inside.sum()),
            "method": ("" if layer is None else "stratified ")
            + f"Gray's test of equal cumulative incidence, chi2 {chi:.6g}, df {df}"
            + ("" if layer is None else f", {len(set(layer))} strata"),
            "note": note,
        }


def lifelines_cox(frame: pd.DataFrame, plan: Design) -> tuple[np.ndarray | None, str]:
    """Cox coefficients by lifelines at full precision; None and the words where it fails."""
    from lifelines import CoxPHFitter

    # Standardised columns: its convergence test is absolute.
    scale = plan.matrix.std(axis=0)
    table = pd.DataFrame(
        plan.matrix / scale, columns=[f"x{i}" for i in range(plan.matrix.shape[1])]
    )
    table["time"] = frame["time_days"].to_numpy()
    table["event"] = frame["event"].to_numpy()
    strata = _strata(frame)
    more: dict[str, Any] = {}
    if strata is not None:
        table["stratum"] = strata
        more = {"strata": ["stratum"]}
    fit, failed = attempt(
        lambda: CoxPHFitter().fit(table, "time", "event", fit_options=LIFELINES_NEWTON, **more),
        "lifelines.CoxPHFitter",
    )
    return (None, failed) if fit is None else (np.asarray(fit.params_, float) / scale, "")


def hazard_rows(
    frame: pd.DataFrame,
    plan: Design,
    alpha: float,
    groups: Mapping[str, str],
    definition: str,
    tau: float | None = None,
) -> Iterator[dict[str, Any]]:
    """Hazard ratios of a Cox model, its concordance and its test of proportional hazards.

    Parameters
    ----------
    frame
        ``time_days`` and ``event``.
    plan
        Design without intercept.
    groups
        Term -> group printed; a term that is not in it is printed as it is.
    alpha
        1 - confidence level.
    definition
        What the model holds, for the method column.
    tau
        Horizon of Uno's concordance; default the last event.
    """
    t, e = frame["time_days"].to_numpy(), frame["event"].to_numpy()
    strata = _strata(frame)
    fit: CoxFit = fit_cox(t, e, plan.matrix, strata=strata)
    if strata is not None:
        definition += f"; stratified, {len(set(strata))} strata"
    theirs, failed = lifelines_cox(frame, plan)
    check = proportional_hazards_test(t, e, plan.matrix, fit, strata=strata)
    z = scipy.stats.norm.ppf(1 - alpha / 2)
    per_term = "fewer than 5 events per term" if fit.events < 5 * len(plan.terms) else ""
    for position, term in enumerate(plan.terms):
        log, error = float(fit.coefficients[position]), float(fit.standard_errors[position])
        group = groups.get(term, term)
        if abs(log) + z * error > LARGEST_LOG:
            yield not_computable(
                "hazard_ratio",
                f"the log hazard ratio per unit is {log:.3g}: give {term} in another unit",
                group=group,
                n=fit.n,
            )
            continue
        second: dict[str, Any] = {"second_method": failed}
        if theirs is not None:
            compare(log, float(theirs[position]), "lifelines", tolerance=ITERATIVE, scale=error)
            second = {
                "second_estimate": math.exp(float(theirs[position])),
                "second_method": "lifelines.CoxPHFitter, precision 1e-12",
            }
        proportional = "proportional hazards not testable: all events are at one time"
        if math.isfinite(check.global_p_value):
            proportional = (
                f"proportional hazards p {check.p_value[position]:.3g} "
                f"(score test, all terms {check.global_p_value:.3g})"
            )
        yield {
            "statistic": "hazard_ratio",
            "group": group,
            "estimate": math.exp(log),
            "ci_low": math.exp(log - z * error),
            "ci_high": math.exp(log + z * error),
            "p_value": float(2 * scipy.stats.norm.sf(abs(log) / error)),
            "n": fit.n,
            "method": f"Cox regression, Efron ties, Wald interval; {definition}",
            **second,
            "note": join_notes(
                f"{fit.events} events; {proportional}",
                per_term,
            ),
        }
    # Risks of different strata are not comparable.
    if strata is None:
        head = {"n": fit.n, "group": "all"}
        if len(plan.terms) == 1:
            head["group"] = groups.get(plan.terms[0], plan.terms[0])
        risk = plan.matrix @ fit.coefficients
        yield from _concordance_rows(t, e, risk, alpha, definition, head)
        yield from discrimination_rows(t, e, risk, tau, alpha, head)


def _concordance_rows(
    t: np.ndarray,
    e: np.ndarray,
    risk: np.ndarray,
    alpha: float,
    definition: str,
    head: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    from lifelines.utils import concordance_index

    c, z = concordance(t, e, risk), scipy.stats.norm.ppf(1 - alpha / 2)
    yield {
        "statistic": "c_index",
        **head,
        "estimate": c.estimate,
        "ci_low": max(0.0, c.estimate - z * c.standard_error),
        "ci_high": min(1.0, c.estimate + z * c.standard_error),
        "method": "Harrell's concordance of the Cox model, infinitesimal jackknife; apparent; "
        + definition,
        **compare(
            c.estimate,
            float(concordance_index(t, -risk_order(risk), e)),
            "lifelines.utils.concordance_index",
        ),
    }


def _cox_rows(
    analysis: SurvivalSpec,
    tables: Tables,
    frame: pd.DataFrame,
    by: str | None,
    reference: str,
    names: list[str],
) -> Iterator[dict[str, Any]]:
    if by is None and not names:
        raise NotComputable("a Cox model needs by, covariates or an imaging endpoint")
    needed = [*as_list(by), *names, *[STRATUM] * (STRATUM in frame)]
    frame, note = complete_cases(frame, needed, analysis, tables)
    full = design(
        frame,
        by=by,
        reference=reference or None,
        covariates=names,
        reference_levels=analysis.reference_levels,
    )
    plan = Design(full.matrix[:, 1:], full.terms[1:])
    groups = {term: f"{term}|{by}={reference}" for term in plan.terms if term.startswith(f"{by}=")}
    for row in hazard_rows(
        frame,
        plan,
        alpha_of(analysis),
        groups,
        f"terms {', '.join(plan.terms)}",
        analysis.tau_days,
    ):
        yield {**row, "note": join_notes(str(row.get("note", "")), note)}


def _imaging_rows(
    analysis: SurvivalSpec,
    tables: Tables,
    times: pd.DataFrame,
    event: str,
    endpoint: str,
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    by = analysis.by if analysis.by else None
    covariates = list(analysis.covariates)
    names = [*as_list(by), *covariates]
    head = {"endpoint": endpoint}
    try:
        by_visit = endpoint_by_visit(analysis, tables, endpoint)
    except NotComputable as reason:
        yield not_computable("hazard_ratio", str(reason), group=f"{endpoint}|{event}", **head)
        return
    for visit, values in by_visit:
        here = {**head, "visit": visit}
        pair = f"{endpoint}|{event}"
        try:
            labelled = analysis.changed(
                categorical=[*analysis.categorical, *as_list(by)],
            )
            frame = values.join(times, how="inner")
            frame = with_covariates(frame, labelled, tables, endpoint=endpoint, names=names)
            frame = with_strata(frame, analysis, tables)
            needed = ["value", *names, *[STRATUM] * (STRATUM in frame)]
            frame, note = complete_cases(frame, needed, analysis, tables)
            if frame.empty:
                raise NotComputable(f"no participant has both {endpoint} and {event}")
            note = join_notes(values.attrs["said"], note)
            reference = levels_of(frame[by], by, analysis.reference)[0] if by else None
            full = design(
                frame,
                by=by,
                reference=reference,
                covariates=["value", *covariates],
                reference_levels=analysis.reference_levels,
            )
            plan = Design(full.matrix[:, 1:], full.terms[1:])
            groups = {"value": pair}
            for term in plan.terms:
                if by and term.startswith(f"{by}="):
                    groups[term] = f"{term}|{by}={reference} given {endpoint}"
                elif term != "value":
                    groups[term] = f"{term} given {endpoint}"
            adjusted = f"; adjusted for {', '.join(names)}" if names else ""
            curve, linear = _curve(frame, plan) if STRATUM not in frame else (None, "")
            text = f"per unit of {endpoint}{adjusted}"
            tau = analysis.tau_days
            for row in hazard_rows(frame, plan, alpha, groups, text, tau):
                extra = linear if row["group"] == pair else ""
                yield {**here, **row, "note": join_notes(str(row.get("note", "")), extra, note)}
            for row in _curve_rows(frame, curve, endpoint, alpha):
                yield {**here, "n": len(frame), **row, "note": note}
        except NotComputable as reason:
            yield not_computable("hazard_ratio", str(reason), group=pair, **here)
        yield from _among_events(values.join(times, how="inner"), event, endpoint, alpha, here)


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
    frame: pd.DataFrame, curve: HazardCurve | None, endpoint: str, alpha: float
) -> Iterator[dict[str, Any]]:
    """Hazard ratios at quantiles of the endpoint against its median."""
    if curve is None:
        return
    terms = tuple(f"x{k}" for k in range(curve.matrix.shape[1]))
    theirs, _ = lifelines_cox(frame, Design(curve.matrix, terms))
    for mine, other, error in zip(
        curve.fit.coefficients,
        curve.fit.coefficients if theirs is None else theirs,
        curve.fit.standard_errors,
        strict=True,
    ):
        compare(float(mine), float(other), "lifelines", tolerance=ITERATIVE, scale=float(error))
    z = scipy.stats.norm.ppf(1 - alpha / 2)
    knots = ", ".join(f"{knot:.4g}" for knot in curve.knots)
    for at, log, error in zip(curve.at, curve.log_hazard_ratio, curve.standard_error, strict=True):
        if at == curve.reference or abs(log) + z * error > LARGEST_LOG:
            continue
        yield {
            "statistic": "hazard_ratio",
            "group": f"{endpoint}={at:.4g}|{endpoint}={curve.reference:.4g}",
            "estimate": math.exp(log),
            "ci_low": math.exp(log - z * error),
            "ci_high": math.exp(log + z * error),
            "p_value": float(2 * scipy.stats.norm.sf(abs(log) / error)) if error > 0 else math.nan,
            "method": f"Cox regression, restricted cubic spline, knots {knots}; quantile of the "
            "endpoint against its median",
        }


def _among_events(
    frame: pd.DataFrame, event: str, endpoint: str, alpha: float, head: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    died = frame[frame["event"] == 1].dropna(subset=["value"])
    group = f"{endpoint}|{event} among those with the event"
    try:
        result = spearman(died["value"], died["time_days"], alpha)
    except NotComputable as reason:
        yield not_computable("spearman_rho", str(reason), group=group, **head)
        return
    yield {
        **head,
        "statistic": "spearman_rho",
        "group": group,
        "estimate": result.estimate,
        "ci_low": result.ci_low,
        "ci_high": result.ci_high,
        "p_value": result.p_value,
        "n": result.n,
        "method": f"{result.method}; censored participants left out, which biases: descriptive",
        **compare(
            result.estimate,
            float(scipy.stats.spearmanr(died["value"], died["time_days"]).statistic),
            "scipy.stats.spearmanr",
        ),
    }
