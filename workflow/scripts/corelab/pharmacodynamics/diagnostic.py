"""Diagnostic accuracy: ROC area with DeLong's interval, sensitivity, predictive values, McNemar.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837; mid-rank algorithm of Sun and Xu,
IEEE Signal Process Lett 2014;21:1389.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    measured,
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


@dataclass(frozen=True)
class Roc:
    """Area under the ROC curve with DeLong's interval on the logit scale."""

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


def roc_area(score: Any, truth: Any, alpha: float = 0.05) -> Roc:
    """Area under the ROC curve: P(score of a case > score of a non-case), ties half.

    Examples
    --------
    >>> round(roc_area([1, 2, 3, 4, 5, 6], [0, 0, 1, 0, 1, 1]).area, 4)
    0.8889
    """
    positive, negative = _by_truth(score, truth)
    v10, v01 = _placements(positive, negative)
    area = float(v10.mean())
    error = math.sqrt(v10.var(ddof=1) / v10.size + v01.var(ddof=1) / v01.size)
    if not 0 < area < 1 or error == 0:
        return Roc(area, error, math.nan, math.nan, math.nan)
    z = stats.norm.ppf(1 - alpha / 2)
    logit, spread = math.log(area / (1 - area)), error / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-(logit + sign * z * spread))) for sign in (-1, 1))
    return Roc(area, error, low, high, float(2 * stats.norm.sf(abs(area - 0.5) / error)))


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


def analyse(analysis: Mapping[str, Any], tables: Tables) -> Iterator[dict[str, Any]]:
    """Rows of an analysis of type ``diagnostic``.

    Keys: ``endpoint`` (the score); the condition is ``outcome`` (0/1, or ``positive_above`` a
    value); ``sources`` (each gets its ROC; two are compared); ``positive_from`` (a value from
    which a score counts as positive: adds sensitivity and the others, and McNemar between
    sources).
    """
    outcome = analysis.get("outcome")
    if not outcome:
        raise ValueError(f"analysis {analysis['id']}: a diagnostic analysis needs outcome")
    for endpoint in endpoints_of(analysis):
        head = {"endpoint": endpoint}
        try:
            for visit, frame, note in _scores(analysis, tables, endpoint, str(outcome)):
                for row in _visit_rows(analysis, frame):
                    notes = join_notes(note, str(row.get("note", "")))
                    yield {**head, "visit": visit, "n": len(frame), **row, "note": notes}
        except NotComputable as reason:
            yield not_computable("auc", str(reason), **head)


def _scores(
    analysis: Mapping[str, Any], tables: Tables, endpoint: str, outcome: str
) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Per visit: one column per source and ``truth``."""
    sources = [str(name) for name in as_list(analysis.get("sources"))]
    frames: dict[str, pd.DataFrame] = {}
    if sources:
        rows = measured(analysis, tables, endpoint=endpoint, sources=sources)
        rows = rows.sort_values("repeat").drop_duplicates(["participant_id", "visit", "source"])
        for visit, part in rows.groupby("visit", sort=True):
            wide = part.pivot_table(
                index="participant_id", columns="source", values="value", aggfunc="first"
            )
            frames[str(visit)] = wide.reindex(columns=sources)
    else:
        for visit, part in endpoint_by_visit(analysis, tables, endpoint):
            frames[visit] = part[["value"]].rename(columns={"value": "score"})
    if not frames:
        raise NotComputable(f"no value of {endpoint} from {', '.join(sources)}")
    for visit, frame in frames.items():
        values, at = outcome_values(analysis, tables, outcome, visit)
        cut = analysis.get("positive_above")
        truth = values if cut is None else (values > float(cut)).astype(float)
        columns = list(frame.columns)
        frame = frame.assign(truth=truth.reindex(frame.index))
        frame, note = complete_cases(frame, [*columns, "truth"], analysis, tables)
        if not frame["truth"].isin([0.0, 1.0]).all():
            raise NotComputable(f"outcome {outcome} is not 0/1; name positive_above")
        yield visit, frame, join_notes(f"{outcome} at {at}", note)


def _visit_rows(analysis: Mapping[str, Any], frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    alpha = alpha_of(analysis)
    truth = frame["truth"].to_numpy(float)
    sources = [column for column in frame.columns if column != "truth"]
    for source in sources:
        score = frame[source].to_numpy(float)
        roc = roc_area(score, truth, alpha)
        u = stats.mannwhitneyu(score[truth == 1], score[truth == 0]).statistic
        yield {
            "statistic": "auc",
            "group": "all" if source == "score" else source,
            "estimate": roc.area,
            "ci_low": roc.ci_low,
            "ci_high": roc.ci_high,
            "p_value": roc.p_value,
            "method": "area under the ROC curve, DeLong, logit interval",
            **compare(
                roc.area,
                float(u) / (np.sum(truth == 1) * np.sum(truth == 0)),
                "scipy.stats.mannwhitneyu",
            ),
        }
    if len(sources) == 2:
        gap = roc_difference(frame[sources[0]], frame[sources[1]], truth, alpha)
        yield {
            "statistic": "auc_difference",
            "group": "|".join(sources),
            "estimate": gap.area,
            "ci_low": gap.ci_low,
            "ci_high": gap.ci_high,
            "p_value": gap.p_value,
            "method": "difference of ROC areas in the same participants, DeLong",
        }
    cut = analysis.get("positive_from")
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
