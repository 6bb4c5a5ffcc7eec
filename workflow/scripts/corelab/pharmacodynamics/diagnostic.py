"""Diagnostic accuracy: ROC area with DeLong's interval, sensitivity, predictive values, McNemar.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837; mid-rank algorithm of Sun and Xu,
IEEE Signal Process Lett 2014;21:1389.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from corelab.agreement.estimates import p_from_normal
from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.pharmacodynamics.analysis_set import (
    complete_cases,
    endpoint_by_visit,
    endpoints_of,
    sheet_values,
)
from corelab.pharmacodynamics.estimates import guarded, normal_estimate
from corelab.pharmacodynamics.proportions import exact_interval
from corelab.provenance.two_computations import compare
from corelab.settings.analyses.diagnostic import DiagnosticSpec
from corelab.terms.results import Estimate, StatisticRow, join_notes, not_computable

#: Scales of the interval and test of an ROC area.
SCALES = ("delong", "logit")


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


def _roc_area(score: Any, truth: Any, alpha: float = 0.05, ci: str = "delong") -> Estimate:
    """P(score of a case > score of a non-case), ties half, with DeLong's standard error.

    ``delong``: area -/+ z SE, cut at 0 and 1, as R pROC; ``logit``: on the logit scale, which
    covers better near 1. The test of 0.5 is on the scale of the limits, so that both decide alike.
    """
    if ci not in SCALES:
        raise ValueError(f"unknown interval '{ci}' of an ROC area: {', '.join(SCALES)}")
    positive, negative = _by_truth(score, truth)
    v10, v01 = _placements(positive, negative)
    area = float(v10.mean())
    error = math.sqrt(v10.var(ddof=1) / v10.size + v01.var(ddof=1) / v01.size)
    if not 0 < area < 1 or error == 0:
        return Estimate(area, se=error)
    if ci == "delong":
        found = normal_estimate(area, error, alpha, low=0.0, high=1.0)
        return replace(found, p_value=p_from_normal((area - 0.5) / error))
    logit = normal_estimate(math.log(area / (1 - area)), error / (area * (1 - area)), alpha)
    low, high = (1 / (1 + math.exp(-limit)) for limit in (logit.ci_low, logit.ci_high))
    return Estimate(area, low, high, logit.p_value, se=error)


def _roc_difference(score_a: Any, score_b: Any, truth: Any, alpha: float = 0.05) -> Estimate:
    """Difference of two ROC areas in the same participants (DeLong), a - b."""
    pa, na = _by_truth(score_a, truth)
    pb, nb = _by_truth(score_b, truth)
    a10, a01 = _placements(pa, na)
    b10, b01 = _placements(pb, nb)
    gap = float(a10.mean() - b10.mean())
    error = math.sqrt((a10 - b10).var(ddof=1) / a10.size + (a01 - b01).var(ddof=1) / a01.size)
    return normal_estimate(gap, error, alpha) if error else Estimate(gap, se=0.0)


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


def _accuracy(test: Any, truth: Any, alpha: float = 0.05) -> dict[str, Estimate]:
    """Sensitivity, specificity and predictive values by name, with exact intervals; n may be 0."""
    a, d = np.asarray(test, bool), np.asarray(truth, bool)
    result: dict[str, Estimate] = {}
    for name, hits, among in (
        ("sensitivity", a, d),
        ("specificity", ~a, ~d),
        ("positive_predictive_value", d, a),
        ("negative_predictive_value", ~d, ~a),
    ):
        k, n = int(np.sum(hits & among)), int(among.sum())
        result[name] = Estimate(math.nan)
        if n:
            result[name] = Estimate(k / n, *exact_interval(k, n, alpha), n=n, note=f"{k}/{n}")
    return result


def _mcnemar(a: Any, b: Any) -> tuple[int, int, float]:
    """McNemar's exact test of two paired dichotomies: only a, only b, p."""
    first, second = np.asarray(a, bool), np.asarray(b, bool)
    only_a, only_b = int(np.sum(first & ~second)), int(np.sum(~first & second))
    n = only_a + only_b
    p = 1.0 if n == 0 else float(stats.binomtest(only_a, n, 0.5).pvalue)
    return only_a, only_b, p


# ------------------------------------------------------------------------------------- the plan


def analyse(analysis: DiagnosticSpec, tables: Tables) -> Iterator[StatisticRow]:
    """Rows of an analysis of type ``diagnostic``.

    Several endpoints are compared with each other, every pair in the participants who have both.
    """
    outcome = analysis.outcome
    if not outcome:
        raise ValueError(f"analysis {analysis.id}: a diagnostic analysis needs outcome")
    endpoints = endpoints_of(analysis)
    for endpoint in endpoints:
        yield from guarded(_rows(analysis, tables, endpoint, outcome), "auc", endpoint=endpoint)
    if analysis.compare_pairs:
        for pair in combinations(endpoints, 2):
            rows = _two_markers(analysis, tables, pair, outcome)
            place = {"endpoint": ",".join(pair), "group": "|".join(pair)}
            yield from guarded(rows, "auc_difference", **place)


def _rows(
    analysis: DiagnosticSpec, tables: Tables, endpoint: str, outcome: str
) -> Iterator[StatisticRow]:
    for visit, frame, note in scores(analysis, tables, endpoint, outcome):
        for row in _visit_rows(analysis, frame):
            yield row.within(note, visit=visit, n=len(frame))


def _by_source(
    analysis: DiagnosticSpec, tables: Tables, endpoint: str
) -> dict[str, tuple[pd.DataFrame, str]]:
    """Per visit one column per source (``score`` where the plan names none), and words on them."""
    columns: dict[str, dict[str, pd.Series]] = {}
    words: dict[str, str] = {}
    for source in as_list(analysis.sources) or ["score"]:
        one = analysis.changed(source=source) if analysis.sources else analysis
        for visit, part in endpoint_by_visit(one, tables, endpoint):
            columns.setdefault(visit, {})[source] = part["value"]
            words[visit] = join_notes(words.get(visit, ""), str(part.attrs["said"]))
    names = as_list(analysis.sources) or ["score"]
    return {
        visit: (pd.DataFrame(found).reindex(columns=names), words[visit])
        for visit, found in columns.items()
    }


def scores(
    analysis: DiagnosticSpec, tables: Tables, endpoint: str, outcome: str
) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Per visit: one column per source and ``truth``."""
    for visit, (frame, said) in _by_source(analysis, tables, endpoint).items():
        columns = list(frame.columns)
        frame, at = _with_truth(analysis, tables, frame, outcome, visit)
        frame, note = complete_cases(frame, [*columns, "truth"], analysis, tables)
        yield visit, frame, join_notes(f"{outcome} at {at}", said, note)


def _with_truth(
    analysis: DiagnosticSpec, tables: Tables, frame: pd.DataFrame, outcome: str, visit: str
) -> tuple[pd.DataFrame, str]:
    values, at = sheet_values(analysis, tables, "outcome", outcome, visit)
    cut = analysis.positive_above
    truth = values if cut is None else (values > float(cut)).astype(float)
    if not truth.dropna().isin([0.0, 1.0]).all():
        raise NotComputable(f"outcome {outcome} is not 0/1; name positive_above")
    return frame.assign(truth=truth.reindex(frame.index)), at


def _two_markers(
    analysis: DiagnosticSpec, tables: Tables, pair: tuple[str, str], outcome: str
) -> Iterator[StatisticRow]:
    """Difference of the ROC areas of two endpoints in the same participants, by visit."""
    own = analysis.changed(sources=None)
    if len(as_list(analysis.sources)) == 1:
        own = own.changed(source=as_list(analysis.sources)[0])
    elif analysis.sources:
        raise NotComputable(
            "several sources and several endpoints: which are compared is not clear"
        )
    first, second = (_by_source(own, tables, endpoint) for endpoint in pair)
    shared = [visit for visit in first if visit in second]
    if not shared:
        raise NotComputable(f"{pair[0]} and {pair[1]} share no visit")
    for visit in shared:
        both = first[visit], second[visit]
        frame = pd.DataFrame(
            {name: one["score"] for name, (one, _) in zip("ab", both, strict=True)}
        )
        words = [f"{e}: {said}" for e, (_, said) in zip(pair, both, strict=True) if said]
        frame, at = _with_truth(analysis, tables, frame, outcome, visit)
        frame, note = complete_cases(frame, ["a", "b", "truth"], analysis, tables)
        row = _difference_row(frame["a"], frame["b"], frame["truth"], analysis.alpha)
        yield row.within(f"{outcome} at {at}", *words, note, visit=visit, n=len(frame))


def _difference_row(a: pd.Series, b: pd.Series, truth: pd.Series, alpha: float) -> StatisticRow:
    method = "difference of ROC areas in the same participants, DeLong"
    return _roc_difference(a, b, truth, alpha).row("auc_difference", method=method)


def _visit_rows(analysis: DiagnosticSpec, frame: pd.DataFrame) -> Iterator[StatisticRow]:
    truth = frame["truth"].to_numpy(float)
    sources = [column for column in frame.columns if column != "truth"]
    names = {source: "all" if source == "score" else source for source in sources}
    pair = "|".join(sources)
    for source in sources:
        row = _auc_row(frame[source].to_numpy(float), truth, analysis)
        yield row.within(group=names[source])
    if len(sources) == 2:
        a, b = (frame[source] for source in sources)
        yield _difference_row(a, b, frame["truth"], analysis.alpha).within(group=pair)
    cut = analysis.positive_from
    if cut is None:
        return
    calls = {source: frame[source].to_numpy(float) >= float(cut) for source in sources}
    for source, call in calls.items():
        for name, share in _accuracy(call, truth, analysis.alpha).items():
            if share.n == 0:
                yield not_computable(name, "no participant to count", group=names[source])
                continue
            yield share.row(
                name,
                group=names[source],
                method=f"positive from {float(cut):g}; Clopper-Pearson interval",
            )
    if len(sources) == 2:
        only_a, only_b, p = _mcnemar(*(calls[source] for source in sources))
        yield Estimate(p, p_value=p).row(
            "mcnemar_p",
            group=pair,
            method="McNemar's exact test of the calls",
            note=f"positive by the first only {only_a}, by the second only {only_b}",
        )


def _auc_row(score: np.ndarray, truth: np.ndarray, analysis: DiagnosticSpec) -> StatisticRow:
    scale = analysis.ci
    words = {"delong": "interval and p on the raw scale", "logit": "interval and p on the logit"}
    roc = _roc_area(score, truth, analysis.alpha, scale)
    u = float(stats.mannwhitneyu(score[truth == 1], score[truth == 0]).statistic)
    note = ""
    if math.isnan(roc.ci_low):
        note = "no interval: the scores separate the groups, or do not vary within them"
    elif scale == "delong" and abs(roc.estimate - 0.5) > 0.4:
        note = "near 0 or 1 the logit interval covers better (ci: logit)"
    theirs = u / (np.sum(truth == 1) * np.sum(truth == 0))
    return roc.row(
        "auc",
        compare(roc.estimate, theirs, "scipy.stats.mannwhitneyu"),
        method=f"area under the ROC curve, DeLong, {words[scale]}",
        note=note,
    )
