"""Rows of survival methods beyond Kaplan-Meier, log-rank and Cox: interval-censored times, adjusted
restricted means, and imaging endpoints that change with time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from corelab.measurement.selection import NotComputable, Tables
from corelab.pharmacodynamics.analysis_set import (
    Design,
    Levels,
    design,
    endpoint_by_visit,
    levels_of,
    strata_of,
    with_covariates,
    with_labels,
)
from corelab.pharmacodynamics.estimates import guarded, ratio_of_log
from corelab.pharmacodynamics.interval_censored import fit_weibull, score_test, turnbull
from corelab.pharmacodynamics.survival import fit_cox
from corelab.pharmacodynamics.survival_measures import (
    adjusted_restricted_mean,
    explained_variation,
    royston_d,
    uno_concordance,
)
from corelab.provenance.two_computations import ITERATIVE, LIFELINES_NEWTON, attempt, compare
from corelab.settings.analyses.survival import SurvivalSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes, not_computable

#: Column of the frames: label of the stratum, of the key ``strata``.
STRATUM = "_stratum"


@dataclass(frozen=True)
class Groups(Levels):
    """Times of participants: ``time_days``, ``event`` and, with strata, :data:`STRATUM`."""

    @property
    def levels(self) -> tuple[str, ...]:
        """All levels, the reference first; ``all`` without arms."""
        return (self.reference, *self.others) if self.by else ("all",)

    def name(self, level: str) -> str:
        """Group of a row on one level."""
        return f"{self.by}={level}" if self.by else "all"

    def term(self, term: str) -> str:
        """Group of a row on a term of a model."""
        own = self.by and term.startswith(f"{self.by}=")
        return f"{term}|{self.by}={self.reference}" if own else term

    def pairs(self) -> Iterator[tuple[str, list[str], np.ndarray]]:
        """Group, levels and participants of each test: against the reference, then all together."""
        found = [(self.group(level), [level, self.reference]) for level in self.others]
        if len(found) > 1:
            found.append((self.by, [*self.others, self.reference]))
        labels = self.labels.to_numpy()
        for group, levels in found:
            yield group, levels, np.isin(labels, levels)

    def strata(self, inside: Any = slice(None)) -> np.ndarray | None:
        """Stratum of each participant; None without strata."""
        return self.frame[STRATUM].to_numpy()[inside] if STRATUM in self.frame else None


def with_strata(frame: pd.DataFrame, analysis: SurvivalSpec, tables: Tables) -> pd.DataFrame:
    """The frame with :data:`STRATUM`, the combination of the levels of the key ``strata``."""
    strata = strata_of(analysis, tables, frame)
    return frame if strata is None else frame.assign(**{STRATUM: strata})


def strata_words(strata: np.ndarray | None) -> tuple[str, str]:
    """Words before and after the name of a test that may be stratified."""
    return ("", "") if strata is None else ("stratified ", f", {len(set(strata))} strata")


def lifelines_cox(frame: pd.DataFrame, plan: Design) -> tuple[np.ndarray | None, str]:
    """Cox coefficients by lifelines at full precision; None and the words where it fails.

    ``frame`` has ``time_days`` or, where covariates change with time, ``start`` and ``stop``.
    """
    from lifelines import CoxPHFitter, CoxTimeVaryingFitter

    # Standardised columns: its convergence test is absolute.
    scale = plan.matrix.std(axis=0)
    table = pd.DataFrame(plan.matrix / scale, columns=[f"x{k}" for k in range(len(plan.terms))])
    columns = [c for c in ("time_days", "start", "stop", "event") if c in frame]
    table = table.assign(**{name: frame[name].to_numpy() for name in columns})
    more: dict[str, Any] = {"event_col": "event", "fit_options": LIFELINES_NEWTON}
    if STRATUM in frame:
        table["stratum"], more["strata"] = pd.factorize(frame[STRATUM], sort=True)[0], ["stratum"]
    fitter: Any = CoxPHFitter
    if "start" in frame:
        table["id"], more["id_col"], fitter = (
            pd.factorize(frame.index)[0],
            "id",
            CoxTimeVaryingFitter,
        )
    else:
        more["duration_col"] = "time_days"
    fit, failed = attempt(lambda: fitter().fit(table, **more), f"lifelines.{fitter.__name__}")
    return (None, failed) if fit is None else (np.asarray(fit.params_, float) / scale, "")


def terms_of(analysis: SurvivalSpec, groups: Groups, *first: str) -> Design:
    """Design of arms and covariates without intercept."""
    return design(
        groups.frame,
        by=groups.by or None,
        reference=groups.reference or None,
        covariates=[*first, *analysis.covariates],
        reference_levels=analysis.reference_levels,
    ).slopes()


def ratio_row(
    statistic: str,
    log: float,
    error: float,
    alpha: float,
    term: str,
    *,
    theirs: float | None = None,
    library: str = "",
    tolerance: float = ITERATIVE,
    group: str,
    n: float,
    **columns: Any,
) -> StatisticRow:
    """Row of a ratio whose logarithm a model gives per unit of a term, or why there is none.

    ``theirs`` is the logarithm by lifelines, compared in units of the error; None where it failed,
    ``library`` then has the words.

    Examples
    --------
    >>> row = ratio_row("hazard_ratio", 0.0, 1.0, 0.05, "x", theirs=0.0, group="x", n=9)
    >>> row.estimate, row.second_estimate
    (1.0, 1.0)
    """
    try:
        ratio = ratio_of_log(log, error, alpha, term)
    except NotComputable as reason:
        return not_computable(statistic, str(reason), group=group, n=n)
    second = Second(method=library)
    if theirs is not None:
        compare(log, theirs, "lifelines", tolerance=tolerance, scale=error)
        second = Second(math.exp(theirs), library)
    return ratio.row(statistic, second, group=group, n=n, **columns)


# ------------------------------------------------------------------------- interval-censored times


def intervals_of(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the intervals of a frame of ``time_days``, ``event`` and ``last_free_days``.

    Raises
    ------
    NotComputable
        If an event has no last visit without it, or one after it.

    Examples -------- >>> frame = pd.DataFrame({"time_days": [80.0, 90], "event": [1.0, 0],
    "last_free_days": [40.0, 9]}) >>> [ends.tolist() for ends in intervals_of(frame)] [[40.0, 90.0],
    [80.0, inf]]
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
    analysis: SurvivalSpec, groups: Groups, names: Sequence[str]
) -> Iterator[StatisticRow]:
    """Medians, test and hazard ratios of interval-censored times.

    ``groups`` has complete cases of the arm; participants without a covariate leave the model only.
    """
    if analysis.landmark_days is not None:
        raise NotComputable("method interval takes no landmark_days")
    left, right = intervals_of(groups.frame)
    labels = groups.labels.to_numpy()
    for level in groups.levels:
        inside = labels == level
        row = _median(left[inside], right[inside], analysis.alpha)
        yield row.within(group=groups.name(level))
    for group, pair, inside in groups.pairs():
        directed = pair[0] if len(pair) == 2 else None
        part = (left[inside], right[inside], labels[inside], groups.strata(inside))
        place = {"group": group, "n": int(inside.sum())}
        yield from guarded(_test(*part, directed), "interval_logrank_p", **place)
    if groups.by or names:
        rows = _weibull_rows(analysis, groups, names)
        yield from guarded(rows, "interval_hazard_ratio", method="interval")


def _median(left: np.ndarray, right: np.ndarray, alpha: float) -> StatisticRow:
    estimate, low, high = turnbull(left, right).quantile()
    inside = f"it lies after day {low:g}, up to day {high:g}" if low < high else ""
    reached = inside if math.isfinite(estimate) else "median not reached"
    try:
        found = fit_weibull(left, right).median(alpha)
        model = f"Weibull median {found.estimate:.4g} ({found.ci_low:.4g} to {found.ci_high:.4g})"
    except (NotComputable, OverflowError) as reason:
        model = f"no Weibull median: {reason}"
    ends = np.isfinite(right)
    counts = f"{int(ends.sum())} events in {left.size}, {int((left == right).sum())} exactly dated"
    return Estimate(estimate, n=left.size).row(
        "interval_median_days",
        method="Turnbull's estimate for interval-censored times, interpolated in its interval",
        note=join_notes(counts, reached, model),
    )


def _test(
    left: np.ndarray,
    right: np.ndarray,
    labels: np.ndarray,
    strata: np.ndarray | None,
    level: str | None,
) -> Iterator[StatisticRow]:
    result = score_test(left, right, labels, strata)
    scores = dict(zip(result.groups, result.scores, strict=True))
    first, last = strata_words(strata)
    yield Estimate(result.p_value, p_value=result.p_value).row(
        "interval_logrank_p",
        method=f"{first}log-rank test of interval-censored times, Sun's scores, permutation "
        f"variance, chi2 {result.chi_squared:.6g}, df {result.df}{last}",
        note="score " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()),
        above_null=None if level is None else bool(scores[level] > 0),
    )


def _weibull_rows(
    analysis: SurvivalSpec, groups: Groups, names: Sequence[str]
) -> Iterator[StatisticRow]:
    groups = replace(groups, frame=groups.frame.dropna(subset=list(names)))
    left, right = intervals_of(groups.frame)
    plan = terms_of(analysis, groups)
    fit = fit_weibull(left, right, plan.matrix)
    theirs, failed = _lifelines_weibull(left, right, plan.matrix)
    if theirs is not None and theirs[1] < fit.log_likelihood - 1e-3:
        theirs, failed = None, "lifelines.WeibullAFTFitter stopped short of the maximum"
    library = failed or "lifelines.WeibullAFTFitter, interval censoring"
    for k, term in enumerate(plan.terms):
        yield ratio_row(
            "interval_hazard_ratio",
            float(fit.coefficients[k]),
            math.sqrt(float(fit.covariance[2 + k, 2 + k])),
            analysis.alpha,
            term,
            theirs=None if theirs is None else float(theirs[0][k]),
            library=library,
            # Its optimiser stops near the maximum.
            tolerance=1e-2,
            group=groups.term(term),
            n=left.size,
            method="Weibull proportional hazards of interval-censored times, Wald interval; "
            f"terms {', '.join(plan.terms)}; shape {fit.shape:.4g}, log likelihood "
            f"{fit.log_likelihood:.4f}",
            note=f"{int(np.isfinite(right).sum())} events",
        )


def _lifelines_weibull(
    left: np.ndarray, right: np.ndarray, matrix: np.ndarray
) -> tuple[tuple[np.ndarray, float] | None, str]:
    """Log hazard ratios and log likelihood by lifelines' accelerated failure time model."""
    from lifelines import WeibullAFTFitter

    # Its optimiser needs comparable columns around 0.
    scale = matrix.std(axis=0)
    columns = [f"x{k}" for k in range(matrix.shape[1])]
    table = pd.DataFrame((matrix - matrix.mean(axis=0)) / scale, columns=columns)
    table = table.assign(left=left, right=right, exact=(left == right).astype(int))

    def fit() -> tuple[np.ndarray, float]:
        model = WeibullAFTFitter().fit_interval_censoring(table, "left", "right", event_col="exact")
        shape = math.exp(float(model.params_["rho_", "Intercept"]))
        own = model.params_["lambda_"].drop("Intercept").to_numpy(float)
        return -own * shape / scale, float(model.log_likelihood_)

    return attempt(fit, "lifelines.WeibullAFTFitter")


# ------------------------------------------------------------------------ adjusted restricted means


def adjusted_mean_rows(
    analysis: SurvivalSpec, groups: Groups, tau: float
) -> Iterator[StatisticRow]:
    """Differences of restricted means adjusted for covariates (Tian, Zhao and Wei 2014)."""
    by, reference, names = groups.by, groups.reference, list(analysis.covariates)
    frame = groups.frame.dropna(subset=names)
    for level in groups.others:
        part = frame[frame[by].map(str).isin([level, reference])]
        head = {"group": groups.group(level), "n": len(part)}
        try:
            plan = design(part, by=by, reference=reference, covariates=names)
            result = adjusted_restricted_mean(
                part["time_days"],
                part["event"],
                part[by].map(str),
                plan.matrix,
                tau,
                plan.index(f"{by}={level}"),
                analysis.alpha,
            )
        except (NotComputable, np.linalg.LinAlgError) as reason:
            yield not_computable("rmst_difference_adjusted_days", str(reason), **head)
            continue
        yield result.row(
            "rmst_difference_adjusted_days",
            method=f"difference of restricted means up to {tau:g} days adjusted for "
            f"{', '.join(names)}; least squares weighed by the censoring curve of the arm (Tian); "
            f"t interval, df {result.df:.6g}",
            **head,
        )


# ------------------------------------------------------------------------------- discrimination


def discrimination_rows(
    time: np.ndarray, event: np.ndarray, risk: np.ndarray, tau: float | None, alpha: float
) -> Iterator[StatisticRow]:
    """Uno's C up to ``tau`` (default the last event), Royston and Sauerbrei's R2 of a Cox model.

    ``time``, ``event`` and the linear predictor ``risk`` are (n,).
    """
    horizon = float(time[event == 1].max()) if tau is None else tau

    def uno() -> Iterator[StatisticRow]:
        # The pair of the last event and a later censoring counts too.
        c = uno_concordance(time, event, risk, np.nextafter(horizon, np.inf))
        yield c.within_bounds(alpha).row(
            "c_index_uno",
            method=f"Uno's concordance of the Cox model up to {horizon:g} days, censoring "
            "weights taken as known, infinitesimal jackknife; apparent",
        )

    def royston() -> Iterator[StatisticRow]:
        d = royston_d(time, event, risk, alpha)
        value, low, high = (explained_variation(v) for v in (d.estimate, d.ci_low, d.ci_high))
        yield Estimate(value, low, high).row(
            "r_squared_royston",
            method="explained variation of the Cox model from Royston and Sauerbrei's D, Wald "
            "interval of D; apparent",
            note=f"D {d.estimate:.4g} ({d.ci_low:.4g} to {d.ci_high:.4g})",
        )

    yield from guarded(uno(), "c_index_uno")
    yield from guarded(royston(), "r_squared_royston")


# ------------------------------------------------------------------ endpoints that change with time


def time_varying_rows(
    analysis: SurvivalSpec, tables: Tables, times: pd.DataFrame, endpoint: str
) -> Iterator[StatisticRow]:
    """Cox model of an imaging endpoint as it changes: each value holds until the next visit.

    ``visit_days`` names the day of each visit. A participant is at risk from the first value on; a
    response (derivation ``responder``) is absent before its first assessment.
    """
    group = f"{endpoint}|{analysis.event_endpoint}"
    rows = _changing_rows(analysis, tables, times, endpoint, group)
    yield from guarded(rows, "hazard_ratio", endpoint=endpoint, group=group)


def _changing_rows(
    analysis: SurvivalSpec, tables: Tables, times: pd.DataFrame, endpoint: str, group: str
) -> Iterator[StatisticRow]:
    by = analysis.by or ""
    names = [*[by] * bool(by), *analysis.covariates]
    rows, said = _periods(analysis, tables, times, endpoint)
    rows = with_covariates(rows, with_labels(analysis, by), tables, endpoint=endpoint, names=names)
    reference = levels_of(rows[by], by, analysis.reference)[0] if by else ""
    rows = with_strata(rows, analysis, tables)
    rows = rows.dropna(subset=["value", *names, *[STRATUM] * (STRATUM in rows)])
    groups = Groups(rows, by, reference)
    plan, layer = terms_of(analysis, groups, "value"), groups.strata()
    stop, flag, start = (rows[c].to_numpy(float) for c in ("stop", "event", "start"))
    fit = fit_cox(stop, flag, plan.matrix, entry=start, strata=layer)
    theirs, failed = lifelines_cox(rows, plan)
    people = rows.index.nunique()
    values = rows.groupby(level=0)["value"]
    counts = (
        f"{fit.events} events, {people} of {len(times)} participants in {len(rows)} periods, "
        f"the value changes in {int((values.max() > values.min()).sum())}"
    )
    method = f"Cox regression with {endpoint} changing with time, per unit, each "
    method += "value until the next visit; Efron ties, Wald interval; terms "
    method += ", ".join(endpoint if t == "value" else t for t in plan.terms)
    method += f"; stratified{strata_words(layer)[1]}" if layer is not None else ""
    for k, term in enumerate(plan.terms):
        yield ratio_row(
            "hazard_ratio",
            float(fit.coefficients[k]),
            float(fit.standard_errors[k]),
            analysis.alpha,
            term,
            theirs=None if theirs is None else float(theirs[k]),
            library=failed or "lifelines.CoxTimeVaryingFitter",
            group=group if term == "value" else f"{groups.term(term)} given {endpoint}",
            n=people,
            method=method,
            note=join_notes(counts, said),
        )


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
