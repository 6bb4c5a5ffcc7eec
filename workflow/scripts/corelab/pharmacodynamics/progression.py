"""Progression by two criteria side by side: agreement of call and date, and survival on each.

For example progression-free survival by local RECIST and by central RANO. Both are assessed in the
same participants, so tests and intervals of their difference are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads its submodules when they are used

from corelab.measurement.selection import NotComputable, Tables
from corelab.pharmacodynamics.correlation import bca_limits
from corelab.pharmacodynamics.estimates import (
    exponentiated,
    guarded,
    normal_estimate,
    t_estimate,
)
from corelab.pharmacodynamics.proportions import wilson_interval
from corelab.pharmacodynamics.survival import fit_cox, score_residuals
from corelab.pharmacodynamics.time_to_event import event_times, median_row
from corelab.pharmacodynamics.two_samples import second_t
from corelab.provenance.two_computations import LIFELINES_NEWTON, compare
from corelab.settings.analyses.base import RESAMPLES
from corelab.settings.analyses.progression import ProgressionSpec
from corelab.terms.results import (
    NOT_COMPUTABLE,
    Estimate,
    Second,
    StatisticRow,
    join_notes,
    not_computable,
)


def _squared_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """R2 of the straight line of y on x."""
    u, v = x - x.mean(), y - y.mean()
    norm = (u @ u) * (v @ v)
    return float((u @ v) ** 2 / norm) if norm > 0 else math.nan


def _paired_log_rank(
    time_a: Any, event_a: Any, time_b: Any, event_b: Any
) -> tuple[float, float, float, float]:
    """Log hazard ratio a / b, its robust error, log-rank z and p of two times per participant.

    Marginal Cox model with the grouped robust variance (Lee, Wei and Amato 1992); p is the robust
    score test, the log-rank test for clustered pairs.
    """
    n = len(np.asarray(time_a))
    t = np.concatenate([np.asarray(time_a, float), np.asarray(time_b, float)])
    e = np.concatenate([np.asarray(event_a, float), np.asarray(event_b, float)])
    x = np.repeat([1.0, 0.0], n)[:, None]
    pairs = np.tile(np.arange(n), 2)
    fit = fit_cox(t, e, x, clusters=pairs)
    # Score residuals at no effect: observed less expected, by participant.
    residuals = score_residuals(np.zeros(1), t, e, x)[:, 0]
    grouped = np.bincount(pairs, residuals)
    spread = math.sqrt(float(grouped @ grouped))
    if spread == 0:
        raise NotComputable("the two criteria give identical times and events")
    z = float(grouped.sum()) / spread
    return (
        float(fit.coefficients[0]),
        float(fit.standard_errors[0]),
        z,
        float(2 * scipy.stats.norm.sf(abs(z))),
    )


def confirmed_events(
    tables: Tables, endpoint: str, within_days: float | None
) -> tuple[Tables, dict[str, str]]:
    """Events under the rule that an early progression counts only if it was confirmed.

    Enhancement within 12 weeks of irradiation may be pseudoprogression (RANO, J Clin Oncol
    2010;28:1963). A progression up to ``within_days`` whose ``confirmed`` is 0 is replaced by
    ``later_time_days`` and ``later_event``. Returns the tables, and criterion -> what changed.

    Raises
    ------
    ValueError
        If an early progression was not confirmed and the later time is missing.

    Examples
    --------
    >>> events = pd.DataFrame({"participant_id": ["1"], "endpoint": ["pfs"], "time_days": [60.0],
    ...     "event": [1.0], "criterion": ["RECIST"], "confirmed": [0.0],
    ...     "later_time_days": [200.0], "later_event": [1.0]})
    >>> tables = Tables(pd.DataFrame(), pd.DataFrame({"participant_id": ["1"]}), events=events)
    >>> confirmed_events(tables, "pfs", 84)[0].events["time_days"].tolist()
    [200.0]
    """
    rows = tables.events
    if within_days is None:
        return tables, {}
    if "confirmed" not in rows:
        raise NotComputable(
            "confirm_within_days needs the column confirmed in the events sheet (with "
            "later_time_days and later_event where it is 0)"
        )
    early = (rows["endpoint"] == endpoint) & (rows["event"] == 1)
    early &= rows["time_days"] <= float(within_days)
    pseudo = early & (rows["confirmed"] == 0)
    unknown = early & rows["confirmed"].isna()
    later = rows.reindex(columns=["later_time_days", "later_event"])
    if later[pseudo].isna().any(axis=None):
        who = rows.loc[pseudo & later.isna().any(axis=1), "participant_id"].iloc[0]
        raise ValueError(
            f"participant {who}: an early progression was not confirmed, and the events sheet has "
            "no later_time_days and later_event for it"
        )
    changed = rows.copy()
    changed.loc[pseudo, "time_days"] = later.loc[pseudo, "later_time_days"]
    changed.loc[pseudo, "event"] = later.loc[pseudo, "later_event"]
    notes = {}
    for criterion in set(rows["criterion"].dropna()):
        own = rows["criterion"] == criterion
        notes[str(criterion)] = (
            f"{int((pseudo & own).sum())} progressions up to {float(within_days):g} days not "
            f"confirmed: the later time stands; {int((unknown & own).sum())} without that "
            "information count"
        )
    return replace(tables, events=changed), notes


def discordance(
    both: pd.DataFrame, window_days: float, early_days: float
) -> tuple[pd.Series, pd.Series]:
    """Participants whose two assessments differ, and those in whom they do so early.

    They differ if one has progression and the other none, or both have and the dates are further
    apart than ``window_days``; early if the first of the two dates is at most ``early_days``.

    Examples
    --------
    >>> both = pd.DataFrame({"time_days_a": [60.0, 300.0], "event_a": [1.0, 1.0],
    ...                      "time_days_b": [200.0, 310.0], "event_b": [1.0, 1.0]})
    >>> [flags.tolist() for flags in discordance(both, 28, 84)]
    [[True, False], [True, False]]
    """
    calls = both["event_a"] != both["event_b"]
    apart = (both["time_days_a"] - both["time_days_b"]).abs() > window_days
    differ = calls | ((both["event_a"] == 1) & apart)
    # The date of a progression counts, not that of a censoring.
    dates = pd.concat(
        [both[f"time_days_{k}"].where(both[f"event_{k}"] == 1) for k in "ab"], axis=1
    ).min(axis=1)
    return differ, differ & (dates <= early_days)


def analyse(analysis: ProgressionSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``progression``."""
    criteria, endpoint = list(analysis.criteria), analysis.event_endpoint
    pair = {"endpoint": endpoint, "group": "|".join(criteria)}
    frames = {}
    tables, rule = confirmed_events(tables, endpoint, analysis.confirm_within_days)
    for criterion in criteria:
        place = {"endpoint": endpoint, "group": criterion}
        try:
            frames[criterion] = event_times(analysis, tables, endpoint, criterion=criterion)
            times, events = frames[criterion]["time_days"], frames[criterion]["event"]
            row = median_row(times, events, analysis.alpha).within(**place)
            yield row.noted(rule.get(criterion, ""))
        except NotComputable as reason:
            yield not_computable("median_days", str(reason), **place)
    if len(frames) < 2:
        for statistic in ("kappa", "r_squared"):
            yield not_computable(statistic, "one criterion has no times", **pair)
        return
    a, b = (frames[criterion] for criterion in criteria)
    both = a.join(b, how="inner", lsuffix="_a", rsuffix="_b")
    kernels = {
        "kappa": _call_rows,
        "bias": _date_rows,
        "early_discordance_percent": _early_rows,
        "logrank_p": _pair_test_rows,
    }
    for statistic, kernel in kernels.items():
        for row in guarded(kernel(analysis, both), statistic, **pair):
            yield row if row.note.startswith(NOT_COMPUTABLE) else row.within(n=len(both))
    yield from guarded(_surrogacy_rows(analysis, tables, both, criteria), "r_squared", **pair)


def _call_rows(analysis: ProgressionSpec, both: pd.DataFrame) -> Iterator[StatisticRow]:
    """Agreement whether there was progression."""
    from statsmodels.stats.inter_rater import cohens_kappa

    if both.empty:
        raise NotComputable("no participant was assessed by both criteria")
    ea, eb = both["event_a"].to_numpy(), both["event_b"].to_numpy()
    table = np.array([[np.sum((ea == i) & (eb == j)) for j in (0, 1)] for i in (0, 1)], float)
    n = table.sum()
    agree = float(np.trace(table) / n)
    yield Estimate(100 * agree).row(
        "percent_agreement", method="share with the same call (progression or none)"
    )
    rows, columns = table.sum(axis=1) / n, table.sum(axis=0) / n
    chance = float(rows @ columns)
    if chance >= 1:
        raise NotComputable("every call is the same: kappa is not defined")
    kappa = (agree - chance) / (1 - chance)
    theirs = cohens_kappa(table)
    yield normal_estimate(kappa, float(theirs.std_kappa), analysis.alpha).row(
        "kappa",
        compare(kappa, float(theirs.kappa), "statsmodels cohens_kappa"),
        p_value=math.nan,
        method="Cohen's kappa of the call, asymptotic standard error",
    )


def _date_rows(analysis: ProgressionSpec, both: pd.DataFrame) -> Iterator[StatisticRow]:
    """Difference of dates among those with progression by both."""
    window = float(analysis.window_days)
    seen = both[(both["event_a"] == 1) & (both["event_b"] == 1)]
    if len(seen) < 2:
        raise NotComputable(f"{len(seen)} participants have progression by both criteria")
    gap = (seen["time_days_a"] - seen["time_days_b"]).to_numpy()
    early, late = int(np.sum(gap < -window)), int(np.sum(gap > window))
    yield Estimate(100 * float(np.mean(np.abs(gap) <= window)), n=len(seen)).row(
        "percent_within_window",
        method=f"dates within {window:g} days, progression by both",
        note=f"first criterion earlier in {early}, later in {late}",
    )
    if np.ptp(gap) == 0:
        yield Estimate(float(gap[0]), n=len(seen)).row(
            "bias",
            method="mean difference of dates, days",
            note="the same difference in every participant",
        )
        return
    error, alpha = gap.std(ddof=1) / math.sqrt(gap.size), analysis.alpha
    result = t_estimate(gap.mean(), error, gap.size - 1, alpha)
    theirs = scipy.stats.ttest_1samp(gap, 0.0)
    yield result.row(
        "bias",
        second_t(result, theirs, "scipy.stats.ttest_1samp", alpha),
        n=len(seen),
        method="mean difference of dates, days, progression by both; paired t interval",
    )


def _early_rows(analysis: ProgressionSpec, both: pd.DataFrame) -> Iterator[StatisticRow]:
    """How often the criteria differ at all, and how often early after irradiation."""
    if both.empty:
        raise NotComputable("no participant was assessed by both criteria")
    window, early_days = float(analysis.window_days), float(analysis.early_days)
    differ, early = discordance(both, window, early_days)
    sooner = int((early & (both["time_days_a"] < both["time_days_b"])).sum())
    for statistic, flags, what, also in (
        ("discordance_percent", differ, f"call differs, or dates by more than {window:g} days", ""),
        (
            "early_discordance_percent",
            early,
            f"the same with the earlier progression up to {early_days:g} days",
            f", first criterion earlier in {sooner}",
        ),
    ):
        low, high = wilson_interval(int(flags.sum()), len(flags), analysis.alpha)
        yield Estimate(100 * float(flags.mean()), 100 * low, 100 * high).row(
            statistic,
            method=f"share of participants: {what}; Wilson interval",
            note=f"{int(flags.sum())} of {len(flags)}{also}",
        )


def _pair_test_rows(analysis: ProgressionSpec, both: pd.DataFrame) -> Iterator[StatisticRow]:
    from lifelines import CoxPHFitter

    log, error, score, p_value = _paired_log_rank(
        both["time_days_a"], both["event_a"], both["time_days_b"], both["event_b"]
    )
    table = pd.DataFrame(
        {
            "time": np.concatenate([both["time_days_a"], both["time_days_b"]]),
            "event": np.concatenate([both["event_a"], both["event_b"]]),
            "x": np.repeat([1.0, 0.0], len(both)),
        }
    )
    fit = CoxPHFitter().fit(table, "time", "event", fit_options=LIFELINES_NEWTON)
    theirs = float(fit.params_["x"])
    compare(log, theirs, "lifelines", tolerance=1e-5)
    yield exponentiated(normal_estimate(log, error, analysis.alpha)).row(
        "hazard_ratio",
        Second(math.exp(theirs), "lifelines.CoxPHFitter, precision 1e-12"),
        method="marginal Cox model of both times, participants as clusters, robust interval",
    )
    yield Estimate(p_value, p_value=p_value).row(
        "logrank_p", method=f"log-rank test for clustered pairs (robust score test, z {score:.4g})"
    )


def _surrogacy_rows(
    analysis: ProgressionSpec, tables: Tables, both: pd.DataFrame, criteria: list[str]
) -> Iterator[StatisticRow]:
    """R2 of survival on time to progression by each criterion, and their difference."""
    survival, alpha = analysis.survival_endpoint, analysis.alpha
    overall = event_times(analysis.changed(assessor=None), tables, survival)
    frame = both.join(overall, how="inner")
    wrong = (frame["time_days_a"] > frame["time_days"]) | (
        frame["time_days_b"] > frame["time_days"]
    )
    late = f"{int(wrong.sum())} participants have a time beyond {survival}" if wrong.any() else ""
    frame = frame[(frame["event"] == 1) & (frame["event_a"] == 1) & (frame["event_b"] == 1)]
    if len(frame) < 4:
        raise NotComputable(
            f"{len(frame)} participants have {survival} and both progressions observed"
        )
    y = frame["time_days"].to_numpy()
    note = join_notes(f"participants with {survival} and both progressions observed", late)

    def of_column(name: str) -> Callable[[np.ndarray], float]:
        x = frame[name].to_numpy()
        return lambda rows: _squared_correlation(x[rows], y[rows])

    everybody = np.arange(y.size)
    first, second = of_column("time_days_a"), of_column("time_days_b")
    for criterion, r2_of, name in zip(criteria, (first, second), "ab", strict=True):
        group, r2 = f"{criterion}|{survival}", r2_of(everybody)
        if not math.isfinite(r2):
            yield not_computable("r_squared", "no variance of the times", group=group)
            continue
        line = scipy.stats.linregress(frame[f"time_days_{name}"].to_numpy(), y)
        limits = bca_limits(r2_of, y.size, alpha)
        yield Estimate(r2, *limits, float(line.pvalue), y.size).row(
            "r_squared",
            compare(r2, float(line.rvalue**2), "scipy.stats.linregress"),
            group=group,
            method=f"R2 of {survival} on time to progression, least squares; BCa bootstrap, "
            f"{RESAMPLES} resamples",
            note=note,
        )

    def difference(rows: np.ndarray) -> float:
        return first(rows) - second(rows)

    gap = difference(everybody)
    if math.isfinite(gap):
        yield Estimate(gap, *bca_limits(difference, y.size, alpha), n=y.size).row(
            "r_squared_difference",
            method=f"difference of R2, same participants; BCa bootstrap, {RESAMPLES} resamples",
            note=note,
        )
