"""Diagnostic accuracy: ROC area with DeLong's interval, sensitivity, predictive values, McNemar.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837; mid-rank algorithm of Sun and Xu,
IEEE Signal Process Lett 2014;21:1389.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    not_computable,
)
from corelab.pharmacodynamics.analysis_set import (
    alpha_of,
    complete_cases,
    endpoint_by_visit,
    endpoints_of,
    join_notes,
    outcome_values,
)
from corelab.pharmacodynamics.ordinal import exact_interval
from corelab.provenance.two_computations import compare
from corelab.settings.analyses.diagnostic import DiagnosticSpec

#: Scales of the interval and test of an ROC area.
SCALES = ("delong", "logit")


@dataclass(frozen=True)
class Roc:
    """Area under the ROC curve, or a difference of two, with interval and test on one scale."""

    area: float
    standard_error: float
    ci_low: float
    ci_high: float
    p_value: float


def _placements(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    m, n = positive.size, negative.size
    everything = stats.rankdata(np.concatenate([positive, negative]))
    v10 = (everything[:m] - stats.rankdata(positive)) / n
    v01 = 1 - (everything[m:] - stats.rankdata(negative)) / m
    return v10, v01


def _by_truth(score: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    s, d = np.asarray(score, float), np.asarray(truth, float)
    if not np.isin(d, (0.0, 1.0)).all():
        raise ValueError("truth must be 0 or 1")
    if not np.isfinite(s).all():
        raise ValueError("a score is missing or infinite")
    positive, negative = s[d == 1], s[d == 0]
    if positive.size < 2 or negative.size < 2:
        raise NotComputable(f"{positive.size} with and {negative.size} without the condition")
    return positive, negative


def roc_area(score: Any, truth: Any, alpha: float = 0.05, ci: str = "delong") -> Roc:
    """Area under the ROC curve: P(score of a case > score of a non-case), ties half.

    Parameters
    ----------
    score, truth
        (n,) values and 0/1.
    alpha
        1 - confidence level.
    ci
        ``delong``: area -/+ z SE, cut at 0 and 1, as R pROC; ``logit``: the same on the logit
        scale, which stays inside and covers better near 1. The test of 0.5 is on the same scale,
        so that p is below alpha where the interval leaves 0.5 out.

    Examples
    --------
    >>> found = roc_area([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1])
    >>> round(found.area, 4), round(found.ci_low, 4), found.ci_high
    (0.8889, 0.5809, 1.0)
    """
    if ci not in SCALES:
        raise ValueError(f"unknown interval '{ci}' of an ROC area: {', '.join(SCALES)}")
    positive, negative = _by_truth(score, truth)
    v10, v01 = _placements(positive, negative)
    area = float(v10.mean())
    error = math.sqrt(v10.var(ddof=1) / v10.size + v01.var(ddof=1) / v01.size)
    if not 0 < area < 1 or error == 0:
        return Roc(area, error, math.nan, math.nan, math.nan)
    z = float(stats.norm.ppf(1 - alpha / 2))
    if ci == "delong":
        low, high = max(area - z * error, 0.0), min(area + z * error, 1.0)
        return Roc(area, error, low, high, float(2 * stats.norm.sf(abs(area - 0.5) / error)))
    logit, spread = math.log(area / (1 - area)), error / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-(logit + sign * z * spread))) for sign in (-1, 1))
    return Roc(area, error, low, high, float(2 * stats.norm.sf(abs(logit) / spread)))


def roc_difference(score_a: Any, score_b: Any, truth: Any, alpha: float = 0.05) -> Roc:
    """Difference of two ROC areas in the same participants (DeLong), a - b.

    Examples
    --------
    >>> truth = [0, 0, 1, 0, 1, 1]
    >>> round(roc_difference([1, 2, 3, 4, 5, 6], [6, 2, 3, 4, 5, 1], truth).area, 4)
    0.5556
    """
    pa, na = _by_truth(score_a, truth)
    pb, nb = _by_truth(score_b, truth)
    a10, a01 = _placements(pa, na)
    b10, b01 = _placements(pb, nb)
    gap = float(a10.mean() - b10.mean())
    error = math.sqrt((a10 - b10).var(ddof=1) / a10.size + (a01 - b01).var(ddof=1) / a01.size)
    if error == 0:
        return Roc(gap, 0.0, math.nan, math.nan, math.nan)
    z = stats.norm.ppf(1 - alpha / 2)
    return Roc(
        gap, error, gap - z * error, gap + z * error, float(2 * stats.norm.sf(abs(gap) / error))
    )


def roc_curve(score: Any, truth: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False-positive rate, sensitivity and threshold (positive: score >= threshold).

    Examples
    --------
    >>> [part.tolist() for part in roc_curve([1, 2, 3, 4], [0, 0, 1, 1])[:2]]
    [[0.0, 0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0, 1.0]]
    """
    positive, negative = _by_truth(score, truth)
    cuts = np.unique(np.concatenate([positive, negative]))[::-1]
    hit = np.array([np.mean(positive >= cut) for cut in cuts])
    false = np.array([np.mean(negative >= cut) for cut in cuts])
    return np.append(0.0, false), np.append(0.0, hit), np.append(np.inf, cuts)


def accuracy(test: Any, truth: Any, alpha: float = 0.05) -> dict[str, tuple[float, ...]]:
    """Sensitivity, specificity and predictive values with exact intervals.

    Returns
    -------
    dict
        name -> (estimate, low, high, successes, trials); nan where there are no trials.

    Examples
    --------
    >>> accuracy([1, 1, 0, 0, 1], [1, 1, 1, 0, 0])["sensitivity"][3:]
    (2, 3)
    """
    a, d = np.asarray(test, bool), np.asarray(truth, bool)
    result: dict[str, tuple[float, ...]] = {}
    for name, hits, among in (
        ("sensitivity", a, d),
        ("specificity", ~a, ~d),
        ("positive_predictive_value", d, a),
        ("negative_predictive_value", ~d, ~a),
    ):
        k, n = int(np.sum(hits & among)), int(among.sum())
        limits = exact_interval(k, n, alpha) if n else (math.nan, math.nan)
        result[name] = (k / n if n else math.nan, *limits, k, n)
    return result


def mcnemar(a: Any, b: Any) -> tuple[int, int, float]:
    """McNemar's exact test of two paired dichotomies.

    Returns
    -------
    only_a, only_b, p_value

    Examples
    --------
    >>> mcnemar([1, 1, 1, 1, 0], [0, 0, 0, 0, 0])
    (4, 0, 0.125)
    """
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(~first & second))
    n = only_a + only_b
    p = 1.0 if n == 0 else float(stats.binomtest(only_a, n, 0.5).pvalue)
    return only_a, only_b, p


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: DiagnosticSpec, tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``diagnostic``.

    Keys: ``endpoint`` (the score, or several markers); the condition is ``outcome`` (0/1, or above
    ``positive_above``); ``sources`` (each gets its ROC; two are compared); ``positive_from`` (a
    value from which a score counts as positive: adds sensitivity and the others, and McNemar
    between two); ``ci`` (``delong`` or ``logit``). Several endpoints are compared with each other,
    every pair in the participants who have both, unless ``compare_pairs: false``.
    """
    outcome = analysis.outcome
    if not outcome:
        raise ValueError(f"analysis {analysis.id}: a diagnostic analysis needs outcome")
    endpoints = endpoints_of(analysis)
    for endpoint in endpoints:
        head = {"endpoint": endpoint}
        try:
            for visit, frame, note in _scores(analysis, tables, endpoint, outcome):
                for row in _visit_rows(analysis, frame):
                    notes = join_notes(note, str(row.get("note", "")))
                    yield {**head, "visit": visit, "n": len(frame), **row, "note": notes}
        except NotComputable as reason:
            yield not_computable("auc", str(reason), **head)
    if analysis.compare_pairs:
        for first, second in combinations(endpoints, 2):
            yield from _two_markers(analysis, tables, (first, second), outcome)


def _by_source(analysis: DiagnosticSpec, tables: Tables, endpoint: str) -> dict[str, pd.DataFrame]:
    """Per visit one column per source (``score`` where the plan names none), derived as planned."""
    sources = as_list(analysis.sources)
    if not sources:
        return {
            visit: part[["value"]].rename(columns={"value": "score"}).assign(
                said=str(part.attrs.get("said", ""))
            )
            for visit, part in endpoint_by_visit(analysis, tables, endpoint)
        }  # fmt: skip
    columns: dict[str, dict[str, pd.Series]] = {}
    reported: dict[str, str] = {}
    for source in sources:
        one = analysis.changed(source=source)
        for visit, part in endpoint_by_visit(one, tables, endpoint):
            columns.setdefault(visit, {})[source] = part["value"]
            reported[visit] = join_notes(reported.get(visit, ""), str(part.attrs.get("said", "")))
    return {
        visit: pd.DataFrame(found).reindex(columns=sources).assign(said=reported[visit])
        for visit, found in columns.items()
    }


def _scores(
    analysis: DiagnosticSpec, tables: Tables, endpoint: str, outcome: str
) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Per visit: one column per source and ``truth``."""
    for visit, frame in _by_source(analysis, tables, endpoint).items():
        said = str(frame["said"].iloc[0]) if len(frame) else ""
        frame = frame.drop(columns="said")
        columns = list(frame.columns)
        frame, at = _with_truth(analysis, tables, frame, outcome, visit)
        frame, note = complete_cases(frame, [*columns, "truth"], analysis, tables)
        yield visit, frame, join_notes(f"{outcome} at {at}", said, note)


def _with_truth(
    analysis: DiagnosticSpec, tables: Tables, frame: pd.DataFrame, outcome: str, visit: str
) -> tuple[pd.DataFrame, str]:
    values, at = outcome_values(analysis, tables, outcome, visit)
    cut = analysis.positive_above
    truth = values if cut is None else (values > float(cut)).astype(float)
    if not truth.dropna().isin([0.0, 1.0]).all():
        raise NotComputable(f"outcome {outcome} is not 0/1; name positive_above")
    return frame.assign(truth=truth.reindex(frame.index)), at


def _two_markers(
    analysis: DiagnosticSpec, tables: Tables, pair: tuple[str, str], outcome: str
) -> Iterator[dict[str, Any]]:
    """Difference of the ROC areas of two endpoints in the same participants, by visit."""
    head = {"endpoint": ",".join(pair), "group": "|".join(pair)}
    own = analysis.changed(sources=None)
    if len(as_list(analysis.sources)) == 1:
        own = own.changed(source=as_list(analysis.sources)[0])
    elif analysis.sources:
        reason = "several sources and several endpoints: which are compared is not clear"
        yield not_computable("auc_difference", reason, **head)
        return
    try:
        first, second = (_by_source(own, tables, endpoint) for endpoint in pair)
        shared = [visit for visit in first if visit in second]
        if not shared:
            raise NotComputable(f"{pair[0]} and {pair[1]} share no visit")
        for visit in shared:
            frame = pd.DataFrame({"a": first[visit]["score"], "b": second[visit]["score"]})
            words = [
                f"{endpoint}: {found['said'].iloc[0]}"
                for endpoint, found in zip(pair, (first[visit], second[visit]), strict=True)
                if len(found) and found["said"].iloc[0]
            ]
            frame, at = _with_truth(analysis, tables, frame, outcome, visit)
            frame, note = complete_cases(frame, ["a", "b", "truth"], analysis, tables)
            row = _difference_row(frame["a"], frame["b"], frame["truth"], alpha_of(analysis))
            notes = join_notes(f"{outcome} at {at}", *words, note)
            yield {**head, "visit": visit, "n": len(frame), **row, "note": notes}
    except NotComputable as reason:
        yield not_computable("auc_difference", str(reason), **head)


def _difference_row(a: pd.Series, b: pd.Series, truth: pd.Series, alpha: float) -> dict[str, Any]:
    gap = roc_difference(a, b, truth, alpha)
    return {
        "statistic": "auc_difference",
        "estimate": gap.area,
        "ci_low": gap.ci_low,
        "ci_high": gap.ci_high,
        "p_value": gap.p_value,
        "method": "difference of ROC areas in the same participants, DeLong",
    }


def _visit_rows(analysis: DiagnosticSpec, frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    alpha, scale = alpha_of(analysis), analysis.ci
    words = {"delong": "interval and p on the raw scale", "logit": "interval and p on the logit"}
    truth = frame["truth"].to_numpy(float)
    sources = [column for column in frame.columns if column != "truth"]
    for source in sources:
        score = frame[source].to_numpy(float)
        roc = roc_area(score, truth, alpha, scale)
        u = stats.mannwhitneyu(score[truth == 1], score[truth == 0]).statistic
        near = "near 0 or 1 the logit interval covers better (ci: logit)" * (scale == "delong")
        extreme = "no interval: the scores separate the groups, or do not vary within them"
        yield {
            "statistic": "auc",
            "group": "all" if source == "score" else source,
            "estimate": roc.area,
            "ci_low": roc.ci_low,
            "ci_high": roc.ci_high,
            "p_value": roc.p_value,
            "method": f"area under the ROC curve, DeLong, {words[scale]}",
            **compare(
                roc.area,
                float(u) / (np.sum(truth == 1) * np.sum(truth == 0)),
                "scipy.stats.mannwhitneyu",
            ),
            "note": extreme if math.isnan(roc.ci_low) else near * (abs(roc.area - 0.5) > 0.4),
        }
    if len(sources) == 2:
        a, b = (frame[source] for source in sources)
        yield {**_difference_row(a, b, frame["truth"], alpha), "group": "|".join(sources)}
    cut = analysis.positive_from
    if cut is None:
        return
    calls = {source: frame[source].to_numpy(float) >= float(cut) for source in sources}
    for source, call in calls.items():
        for name, (value, low, high, k, n) in accuracy(call, truth, alpha).items():
            group = "all" if source == "score" else source
            if n == 0:
                yield not_computable(name, "no participant to count", group=group)
                continue
            yield {
                "statistic": name,
                "group": group,
                "estimate": value,
                "ci_low": low,
                "ci_high": high,
                "n": n,
                "method": f"positive from {float(cut):g}; Clopper-Pearson interval",
                "note": f"{int(k)}/{int(n)}",
            }
    if len(sources) == 2:
        only_a, only_b, p = mcnemar(*(calls[source] for source in sources))
        yield {
            "statistic": "mcnemar_p",
            "group": "|".join(sources),
            "estimate": p,
            "p_value": p,
            "method": "McNemar's exact test of the calls",
            "note": f"positive by the first only {only_a}, by the second only {only_b}",
        }
