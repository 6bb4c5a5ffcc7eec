"""Rows of survival methods beyond Kaplan-Meier, log-rank and Cox: interval-censored times, adjusted
restricted means, and imaging endpoints that change with time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import NotComputable, Tables, as_list, not_computable
from corelab.pharmacodynamics.analysis_set import (
    Design,
    alpha_of,
    design,
    endpoint_by_visit,
    join_notes,
    levels_of,
    participant_columns,
    with_covariates,
)
from corelab.pharmacodynamics.interval_censored import fit_weibull, score_test, turnbull
from corelab.pharmacodynamics.proportional_odds import LARGEST_LOG
from corelab.pharmacodynamics.survival import fit_cox
from corelab.pharmacodynamics.survival_measures import (
    Separation,
    adjusted_restricted_mean,
    royston_d,
    uno_concordance,
)
from corelab.provenance.two_computations import ITERATIVE, LIFELINES_NEWTON, attempt, compare
from corelab.settings.analyses.survival import SurvivalSpec

#: Column of the frames: label of the stratum, of the key ``strata``.
STRATUM = "_stratum"


def with_strata(frame: pd.DataFrame, analysis: SurvivalSpec, tables: Tables) -> pd.DataFrame:
    """The frame with :data:`STRATUM`, the combination of the levels of the key ``strata``."""
    names = list(analysis.strata)
    if not names:
        return frame
    labelled = analysis.changed(categorical=[*analysis.categorical, *names])
    levels = participant_columns(labelled, tables, names).reindex(frame.index)
    label = levels.astype(str).agg(", ".join, axis=1).where(levels.notna().all(axis=1))
    return frame.assign(**{STRATUM: label})


def ratio_columns(log: float, error: float, alpha: float, term: str) -> dict[str, float]:
    """Ratio with Wald limits and p of its logarithm.

    Raises
    ------
    NotComputable
        If the ratio or a limit is no number that fits.

    Examples
    --------
    >>> {k: round(v, 3) for k, v in ratio_columns(0.0, 1.0, 0.05, "x").items()}
    {'estimate': 1.0, 'ci_low': 0.141, 'ci_high': 7.099, 'p_value': 1.0}
    """
    z = float(scipy.stats.norm.ppf(1 - alpha / 2))
    if not error > 0 or abs(log) + z * error > LARGEST_LOG:
        raise NotComputable(f"the log ratio per unit is {log:.3g}: give {term} in another unit")
    return {
        "estimate": math.exp(log),
        "ci_low": math.exp(log - z * error),
        "ci_high": math.exp(log + z * error),
        "p_value": float(2 * scipy.stats.norm.sf(abs(log) / error)),
    }


# ------------------------------------------------------------------------- interval-censored times


def intervals_of(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the intervals of a frame of ``time_days``, ``event`` and ``last_free_days``.

    Raises
    ------
    NotComputable
        If an event has no last visit without it, or one after it.

    Examples
    --------
    >>> frame = pd.DataFrame({"time_days": [80.0, 90], "event": [1.0, 0]})
    >>> frame["last_free_days"] = [40.0, 9]
    >>> [ends.tolist() for ends in intervals_of(frame)]
    [[40.0, 90.0], [80.0, inf]]
    """
    if "last_free_days" not in frame:
        raise NotComputable(
            "interval-censored times need the column last_free_days in the events sheet (last "
            "visit without the event; time_days itself where the date is exact)"
        )
    seen = frame["event"] == 1
    free = frame["last_free_days"].astype(float)
    unknown = frame.index[seen & free.isna()]
    if len(unknown):
        raise NotComputable(
            f"{len(unknown)} events have no last_free_days (first {unknown[0]}): give the last "
            "visit without the event, 0 if there was none, time_days where the date is exact"
        )
    wrong = frame.index[seen & ((free > frame["time_days"]) | (free < 0))]
    if len(wrong):
        raise NotComputable(f"last_free_days of {wrong[0]} is negative or after time_days")
    left = free.where(seen, frame["time_days"]).to_numpy(float)
    return left, frame["time_days"].where(seen, np.inf).to_numpy(float)


def interval_rows(
    analysis: SurvivalSpec,
    frame: pd.DataFrame,
    by: str | None,
    reference: str,
    others: tuple[str, ...],
    names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Medians, test and hazard ratios of interval-censored times.

    ``frame`` has complete cases of the arm; participants without a covariate leave the model only.
    """
    if analysis.landmark_days is not None:
        raise NotComputable("method interval takes no landmark_days")
    alpha = alpha_of(analysis)
    left, right = intervals_of(frame)
    labels = frame[by].map(str).to_numpy() if by else np.full(len(frame), "all")
    strata = frame[STRATUM].to_numpy() if STRATUM in frame else None
    for level in (reference, *others) if by else ("all",):
        inside = labels == level
        yield {
            "group": f"{by}={level}" if by else "all",
            **_median(left[inside], right[inside], alpha),
        }
    pairs = [(f"{by}={level}|{by}={reference}", [level, reference]) for level in others]
    if len(others) > 1:
        pairs.append((str(by), [*others, reference]))
    for group, pair in pairs:
        inside = np.isin(labels, pair)
        head = {"group": group, "n": int(inside.sum())}
        try:
            part = (left[inside], right[inside], labels[inside])
            layer = None if strata is None else strata[inside]
            yield {**head, **_test(*part, layer, pair[0], len(pair) == 2)}
        except NotComputable as reason:
            yield not_computable("interval_logrank_p", str(reason), **head)
    if by or names:
        try:
            yield from _weibull_rows(analysis, frame, by, reference, names)
        except NotComputable as reason:
            yield not_computable("interval_hazard_ratio", str(reason), method="interval")


def _median(left: np.ndarray, right: np.ndarray, alpha: float) -> dict[str, Any]:
    estimate, low, high = turnbull(left, right).quantile()
    inside = f"it lies after day {low:g}, up to day {high:g}" if low < high else ""
    reached = inside if math.isfinite(estimate) else "median not reached"
    try:
        z = float(scipy.stats.norm.ppf(1 - alpha / 2))
        value, lower, upper = fit_weibull(left, right).median(z)
        model = f"Weibull median {value:.4g} ({lower:.4g} to {upper:.4g})"
    except (NotComputable, OverflowError) as reason:
        model = f"no Weibull median: {reason}"
    ends = np.isfinite(right)
    counts = f"{int(ends.sum())} events in {left.size}, {int((left == right).sum())} exactly dated"
    return {
        "statistic": "interval_median_days",
        "estimate": estimate,
        "n": left.size,
        "method": "Turnbull's estimate for interval-censored times, interpolated in its interval",
        "note": join_notes(counts, reached, model),
    }


def _test(
    left: np.ndarray,
    right: np.ndarray,
    labels: np.ndarray,
    strata: np.ndarray | None,
    level: str,
    directed: bool,
) -> dict[str, Any]:
    result = score_test(left, right, labels, strata)
    scores = dict(zip(result.groups, result.scores, strict=True))
    return {
        "statistic": "interval_logrank_p",
        "estimate": result.p_value,
        "p_value": result.p_value,
        "method": ("" if strata is None else "stratified ")
        + "log-rank test of interval-censored times, Sun's scores, permutation variance, "
        + f"chi2 {result.chi_squared:.6g}, df {result.df}"
        + ("" if strata is None else f", {len(set(strata))} strata"),
        "note": "score " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()),
        "above_null": bool(scores[level] > 0) if directed else None,
    }


def _weibull_rows(
    analysis: SurvivalSpec,
    frame: pd.DataFrame,
    by: str | None,
    reference: str,
    names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    frame = frame.dropna(subset=list(names))
    left, right = intervals_of(frame)
    full = design(
        frame,
        by=by,
        reference=reference or None,
        covariates=names,
        reference_levels=analysis.reference_levels,
    )
    plan = Design(full.matrix[:, 1:], full.terms[1:])
    fit = fit_weibull(left, right, plan.matrix)
    theirs, failed = _lifelines_weibull(left, right, plan.matrix)
    if theirs is not None and theirs[1] < fit.log_likelihood - 1e-3:
        theirs, failed = None, "lifelines.WeibullAFTFitter stopped short of the maximum"
    for k, term in enumerate(plan.terms):
        log, error = float(fit.coefficients[k]), math.sqrt(float(fit.covariance[2 + k, 2 + k]))
        own = by is not None and term.startswith(f"{by}=")
        head = {"group": f"{term}|{by}={reference}" if own else term, "n": len(frame)}
        second: dict[str, Any] = {"second_method": failed}
        if theirs is not None:
            # Its optimiser stops near the maximum: coefficients are compared by their error.
            value = float(theirs[0][k])
            compare(log, value, "lifelines", tolerance=1e-2, scale=error)
            second = {
                "second_estimate": math.exp(value),
                "second_method": "lifelines.WeibullAFTFitter, interval censoring",
            }
        try:
            columns = ratio_columns(log, error, alpha, term)
        except NotComputable as reason:
            yield not_computable("interval_hazard_ratio", str(reason), **head)
            continue
        yield {
            "statistic": "interval_hazard_ratio",
            **head,
            **columns,
            "method": "Weibull proportional hazards of interval-censored times, Wald interval; "
            f"terms {', '.join(plan.terms)}; shape {fit.shape:.4g}, log likelihood "
            f"{fit.log_likelihood:.4f}",
            **second,
            "note": f"{int(np.isfinite(right).sum())} events",
        }


def _lifelines_weibull(
    left: np.ndarray, right: np.ndarray, matrix: np.ndarray
) -> tuple[tuple[np.ndarray, float] | None, str]:
    """Log hazard ratios and log likelihood by lifelines' accelerated failure time model."""
    import warnings

    from lifelines import WeibullAFTFitter

    # Its optimiser needs comparable columns around 0.
    scale = matrix.std(axis=0)
    columns = [f"x{k}" for k in range(matrix.shape[1])]
    table = pd.DataFrame((matrix - matrix.mean(axis=0)) / scale, columns=columns)
    table = table.assign(left=left, right=right, exact=(left == right).astype(int))

    def fit() -> tuple[np.ndarray, float]:
        with warnings.catch_warnings():
            # Its warnings concern convergence, which the likelihood decides.
            warnings.simplefilter("ignore")
            model = WeibullAFTFitter().fit_interval_censoring(
                table, "left", "right", event_col="exact"
            )
        shape = math.exp(float(model.params_["rho_", "Intercept"]))
        own = model.params_["lambda_"].drop("Intercept").to_numpy(float)
        return -own * shape / scale, float(model.log_likelihood_)

    return attempt(fit, "lifelines.WeibullAFTFitter")


# ------------------------------------------------------------------------ adjusted restricted means


def adjusted_mean_rows(
    analysis: SurvivalSpec,
    frame: pd.DataFrame,
    by: str,
    reference: str,
    others: tuple[str, ...],
    names: Sequence[str],
    tau: float,
) -> Iterator[dict[str, Any]]:
    """Differences of restricted means adjusted for covariates (Tian, Zhao and Wei 2014)."""
    alpha = alpha_of(analysis)
    frame = frame.dropna(subset=list(names))
    for level in others:
        part = frame[frame[by].map(str).isin([level, reference])]
        head = {"group": f"{by}={level}|{by}={reference}", "n": len(part)}
        try:
            plan = design(part, by=by, reference=reference, covariates=names)
            result = adjusted_restricted_mean(
                part["time_days"],
                part["event"],
                part[by].map(str),
                plan.matrix,
                tau,
                plan.index(f"{by}={level}"),
                alpha,
            )
        except (NotComputable, np.linalg.LinAlgError) as reason:
            yield not_computable("rmst_difference_adjusted_days", str(reason), **head)
            continue
        yield {
            "statistic": "rmst_difference_adjusted_days",
            **head,
            **result.columns(),
            "method": f"difference of restricted means up to {tau:g} days adjusted for "
            f"{', '.join(names)}; least squares weighed by the censoring curve of the arm (Tian); "
            f"t interval, df {result.df:.6g}",
        }


# ------------------------------------------------------------------------------- discrimination


def discrimination_rows(
    time: np.ndarray,
    event: np.ndarray,
    risk: np.ndarray,
    tau: float | None,
    alpha: float,
    head: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    """Uno's C and Royston and Sauerbrei's R2 of a Cox model.

    Parameters
    ----------
    time, event, risk
        (n,) times, event flags and linear predictor.
    tau
        Horizon of Uno's C; None for the last event.
    alpha
        1 - confidence level.
    head
        Columns of every row.
    """
    z = float(scipy.stats.norm.ppf(1 - alpha / 2))
    horizon = float(time[event == 1].max()) if tau is None else tau
    try:
        # The pair of the last event and a later censoring counts too.
        c, error = uno_concordance(time, event, risk, np.nextafter(horizon, np.inf))
        yield {
            **head,
            "statistic": "c_index_uno",
            "estimate": c,
            "ci_low": max(0.0, c - z * error),
            "ci_high": min(1.0, c + z * error),
            "method": f"Uno's concordance of the Cox model up to {horizon:g} days, censoring "
            "weights taken as known, infinitesimal jackknife; apparent",
        }
    except NotComputable as reason:
        yield not_computable("c_index_uno", str(reason), **head)
    try:
        found = royston_d(time, event, risk)
    except NotComputable as reason:
        yield not_computable("r_squared_royston", str(reason), **head)
        return
    low, high = found.d - z * found.standard_error, found.d + z * found.standard_error
    yield {
        **head,
        "statistic": "r_squared_royston",
        "estimate": Separation.explained(found.d),
        "ci_low": Separation.explained(low),
        "ci_high": Separation.explained(high),
        "method": "explained variation of the Cox model from Royston and Sauerbrei's D, Wald "
        "interval of D; apparent",
        "note": f"D {found.d:.4g} ({low:.4g} to {high:.4g})",
    }


# ------------------------------------------------------------------ endpoints that change with time


def time_varying_rows(
    analysis: SurvivalSpec,
    tables: Tables,
    times: pd.DataFrame,
    event: str,
    endpoint: str,
) -> Iterator[dict[str, Any]]:
    """Cox model of an imaging endpoint as it changes: each value holds until the next visit.

    ``visit_days`` names the day of each visit. A participant is at risk from the first value on; a
    response (derivation ``responder``) is absent before its first assessment.
    """
    alpha = alpha_of(analysis)
    by = analysis.by if analysis.by else None
    covariates = list(analysis.covariates)
    group = f"{endpoint}|{event}"
    head = {"endpoint": endpoint, "visit": "all"}
    try:
        rows, said = _periods(analysis, tables, times, endpoint)
        labelled = analysis.changed(
            categorical=[*analysis.categorical, *as_list(by)],
        )
        names = [*as_list(by), *covariates]
        rows = with_covariates(rows, labelled, tables, endpoint=endpoint, names=names)
        reference = levels_of(rows[by], by, analysis.reference)[0] if by else None
        rows = with_strata(rows, analysis, tables)
        strata = [STRATUM] * (STRATUM in rows)
        rows = rows.dropna(subset=["value", *names, *strata])
        full = design(
            rows,
            by=by,
            reference=reference,
            covariates=["value", *covariates],
            reference_levels=analysis.reference_levels,
        )
        plan = Design(full.matrix[:, 1:], full.terms[1:])
        stop, flag, start = (rows[c].to_numpy(float) for c in ("stop", "event", "start"))
        layer = rows[STRATUM].to_numpy() if strata else None
        fit = fit_cox(stop, flag, plan.matrix, entry=start, strata=layer)
        theirs, failed = _lifelines_periods(rows, plan, layer)
        people = rows.index.nunique()
        values = rows.groupby(level=0)["value"]
        changed = int((values.max() > values.min()).sum())
        counts = (
            f"{fit.events} events, {people} of {len(times)} participants in {len(rows)} periods, "
            f"the value changes in {changed}"
        )
        for k, term in enumerate(plan.terms):
            log, error = float(fit.coefficients[k]), float(fit.standard_errors[k])
            own = f"{term}|{by}={reference}" if by and term.startswith(f"{by}=") else term
            second: dict[str, Any] = {"second_method": failed}
            if theirs is not None:
                compare(log, float(theirs[k]), "lifelines", tolerance=ITERATIVE, scale=error)
                second = {
                    "second_estimate": math.exp(float(theirs[k])),
                    "second_method": "lifelines.CoxTimeVaryingFitter",
                }
            yield {
                **head,
                "statistic": "hazard_ratio",
                "group": group if term == "value" else f"{own} given {endpoint}",
                **ratio_columns(log, error, alpha, term),
                "n": people,
                "method": f"Cox regression with {endpoint} changing with time, per unit, each "
                "value until the next visit; Efron ties, Wald interval; terms "
                + ", ".join(endpoint if t == "value" else t for t in plan.terms)
                + (f"; stratified, {len(set(layer))} strata" if layer is not None else ""),
                **second,
                "note": join_notes(counts, said),
            }
    except NotComputable as reason:
        yield not_computable("hazard_ratio", str(reason), group=group, **head)


def _periods(
    analysis: SurvivalSpec, tables: Tables, times: pd.DataFrame, endpoint: str
) -> tuple[pd.DataFrame, str]:
    """One row per participant and period: value, start, stop, event."""
    days = {str(k): float(v) for k, v in (analysis.visit_days or {}).items()}
    if not days:
        raise NotComputable("method time_varying needs visit_days (visit: day)")
    if analysis.landmark_days is not None:
        raise NotComputable("method time_varying takes no landmark_days")
    by_visit = endpoint_by_visit(analysis, tables, endpoint)
    unnamed = [visit for visit, _ in by_visit if visit not in days]
    if unnamed:
        raise NotComputable(f"visit_days has no day of the visit {', '.join(unnamed)}")
    response = analysis.derivation == "responder"
    found, said = [], []
    for visit, frame in by_visit:
        if frame.attrs["ranks"]:
            raise NotComputable("values of 0 leave ranks only; name zeros: {offset: ...}")
        said.append(frame.attrs["said"] and f"{visit}: {frame.attrs['said']}")
        found.append(frame[["value"]].dropna().assign(start=days[visit]))
    long = pd.concat(found)
    if response:
        before = times.index[times.index.isin(long.index)]
        long = pd.concat([pd.DataFrame({"value": 0.0, "start": 0.0}, index=before), long])
        long = long[~long.set_index("start", append=True).index.duplicated(keep="last")]
    long = long.rename_axis("participant_id").reset_index()
    long = long.sort_values(["participant_id", "start"]).set_index("participant_id")
    joined = long.join(times, how="inner")
    joined = joined[joined["start"] < joined["time_days"]]
    if joined.empty:
        raise NotComputable(f"no participant has a value of {endpoint} before the end of follow-up")
    following = joined.groupby(level=0)["start"].shift(-1)
    last = following.isna()
    return (
        joined[["value", "start"]].assign(
            stop=following.fillna(joined["time_days"]),
            event=joined["event"].where(last, 0.0),
        ),
        "; ".join(filter(None, said)),
    )


def _lifelines_periods(
    rows: pd.DataFrame, plan: Design, strata: np.ndarray | None
) -> tuple[np.ndarray | None, str]:
    import warnings

    from lifelines import CoxTimeVaryingFitter

    scale = plan.matrix.std(axis=0)
    table = pd.DataFrame(plan.matrix / scale, columns=[f"x{k}" for k in range(len(plan.terms))])
    more = {}
    if strata is not None:
        table["stratum"], more = pd.factorize(strata)[0], {"strata": ["stratum"]}
    table = table.assign(
        id=pd.factorize(rows.index)[0],
        **{name: rows[name].to_numpy() for name in ("start", "stop", "event")},
    )

    def fitted() -> Any:
        with warnings.catch_warnings():
            # Its warnings are about separation, which our fit decides.
            warnings.simplefilter("ignore")
            return CoxTimeVaryingFitter().fit(
                table, event_col="event", id_col="id", fit_options=LIFELINES_NEWTON, **more
            )

    fit, failed = attempt(fitted, "lifelines.CoxTimeVaryingFitter")
    return (None, failed) if fit is None else (np.asarray(fit.params_, float) / scale, "")
