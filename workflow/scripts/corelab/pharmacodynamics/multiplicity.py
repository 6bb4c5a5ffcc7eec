"""Multiplicity: p values of one family adjusted together.

Procedures: Bonferroni, Holm (1979), Hochberg (1988), Benjamini-Hochberg (1995), Benjamini-
Yekutieli, the fixed sequence (each hypothesis tested only while all before it held), Dunnett, and
graphs of weighted Bonferroni tests (Bretz, Maurer, Brannath, Posch, Stat Med 2009;28:586), which
hold gatekeeping procedures as special cases.

One analysis states one hypothesis per contrast and endpoint, at one visit: a covariate, a second
method, a further visit and the candidates of MCP-Mod are none (:func:`_hypotheses`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy  # loads its submodules when they are used

from corelab.provenance.two_computations import compare
from corelab.settings.analyses.base import AnalysisSpec
from corelab.terms.statistics import conclusion_order

_STATSMODELS = {
    "bonferroni": "bonferroni",
    "holm": "holm",
    "hochberg": "simes-hochberg",
    "benjamini_hochberg": "fdr_bh",
    "benjamini_yekutieli": "fdr_by",
}
PROCEDURES = (*_STATSMODELS, "fixed_sequence")
#: Procedures that need more than the p values: the graph, or the contrasts' correlation.
OTHER_PROCEDURES = ("graphical", "dunnett")
_ALIASES = {
    "bh": "benjamini_hochberg",
    "fdr": "benjamini_hochberg",
    "by": "benjamini_yekutieli",
    "fixed": "fixed_sequence",
}


def _adjust(p_values: Any, method: str = "holm") -> np.ndarray:
    """Adjusted p values in the order given, for ``fixed_sequence`` that of testing."""
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"p values must be finite and in [0, 1], got {p_values!r}")
    method = _ALIASES.get(method, method)
    if method not in PROCEDURES:
        raise ValueError(f"unknown multiplicity procedure '{method}'; known: {PROCEDURES}")
    m = p.size
    if m == 0:
        return p.copy()
    if method == "fixed_sequence":
        return np.maximum.accumulate(p)
    if method == "bonferroni":
        return np.minimum(1.0, m * p)
    order = np.argsort(p, kind="stable")
    rank = np.arange(1, m + 1)
    adjusted = np.empty(m)
    if method == "holm":
        steps = np.maximum.accumulate((m - rank + 1) * p[order])
    else:
        factors = {
            "hochberg": m - rank + 1.0,
            "benjamini_hochberg": m / rank,
            "benjamini_yekutieli": m / rank * np.sum(1.0 / rank),
        }[method]
        steps = np.minimum.accumulate((factors * p[order])[::-1])[::-1]
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted


def _graph_adjust(p_values: Any, weights: Any, transitions: Any) -> np.ndarray:
    """Adjusted p values of a graph of weighted Bonferroni tests (Bretz et al. 2009).

    ``transitions`` (m, m) are shares of a rejected hypothesis' weight that go to each other one.
    """
    p, w = np.asarray(p_values, float), np.array(weights, float)
    g = np.array(transitions, float)
    if (
        np.any(w < 0)
        or w.sum() > 1 + 1e-9
        or np.any(g < 0)
        or np.any(np.diag(g) != 0)
        or np.any(g.sum(axis=1) > 1 + 1e-9)
    ):
        raise ValueError(
            "a graph needs weights and transitions of 0 or more, weights of sum 1 at most, "
            "transitions from one hypothesis of sum 1 at most and none to itself"
        )
    left = list(range(p.size))
    adjusted, reached = np.ones(p.size), 0.0
    while left:
        ratio = np.array([p[j] / w[j] if w[j] > 0 else np.inf for j in left])
        first = left[int(np.argmin(ratio))]
        reached = max(reached, float(min(1.0, ratio.min())))
        if not np.isfinite(ratio.min()):
            break
        adjusted[first] = reached
        left.remove(first)
        w[left] += w[first] * g[first, left]
        new = np.zeros_like(g)
        for i in left:
            for j in left:
                loop = g[i, first] * g[first, i]
                if i != j and loop < 1:
                    new[i, j] = (g[i, j] + g[i, first] * g[first, j]) / (1 - loop)
        g = new
    return adjusted


def family_of(analysis: AnalysisSpec) -> tuple[str, str] | None:
    """Name and procedure of the family of an analysis; None without one.

    ``family`` is a name or ``name:procedure``; the procedure may also be given as ``adjustment``.
    A name that is itself a procedure means it. The default is Holm.

    Examples
    --------
    >>> plan = AnalysisSpec(id="a", type="", family="arms")
    >>> family_of(plan.changed(family="secondary:hochberg")), family_of(plan)
    (('secondary', 'hochberg'), ('arms', 'holm'))
    """
    family = analysis.family
    if family in (None, ""):
        return None
    name, _, method = str(family).partition(":")
    method = method or str(analysis.adjustment or "")
    if not method:
        method = name if _ALIASES.get(name, name) in PROCEDURES else "holm"
    method = _ALIASES.get(str(method), str(method))
    if method not in (*PROCEDURES, *OTHER_PROCEDURES):
        raise ValueError(
            f"analysis {analysis.id}: unknown multiplicity procedure '{method}'; known: "
            + ", ".join((*PROCEDURES, *OTHER_PROCEDURES))
        )
    return name, method


def adjust_families(frame: pd.DataFrame, analyses: Sequence[AnalysisSpec]) -> pd.DataFrame:
    """Add ``family``, ``p_adjusted`` and simultaneous limits to statistics rows.

    Rows keep their order and their own ``p_value``; only rows of :func:`_hypotheses` get an
    adjusted one. In a fixed sequence the order is that of the plan. ``ci_low_adjusted`` and
    ``ci_high_adjusted`` exist where the procedure has compatible intervals: Bonferroni and Dunnett.

    Raises
    ------
    ValueError
        If the analyses of one family name different procedures.

    Examples
    --------
    >>> frame = pd.DataFrame({"analysis_id": ["a", "b"], "statistic": ["slope", "slope"],
    ...     "group": ["all", "all"], "p_value": [0.01, 0.04]})
    >>> plan = [AnalysisSpec(id=name, type="", family="f") for name in "ab"]
    >>> adjust_families(frame, plan)["p_adjusted"].tolist()
    [0.02, 0.04]
    """
    result = frame.copy()
    result["family"] = ""
    for column in ("p_adjusted", "ci_low_adjusted", "ci_high_adjusted"):
        result[column] = np.nan
    families: dict[str, dict[str, list[AnalysisSpec]]] = {}
    for analysis in analyses:
        named = family_of(analysis)
        if named is not None:
            families.setdefault(named[0], {}).setdefault(named[1], []).append(analysis)
    for name, methods in families.items():
        if len(methods) > 1:
            text = (f"{m}: {', '.join(a.id for a in ours)}" for m, ours in methods.items())
            raise ValueError(
                f"family '{name}' has analyses with different procedures: " + "; ".join(text)
            )
        ((method, members),) = methods.items()
        inside = result["analysis_id"].isin([a.id for a in members])
        result.loc[inside, "family"] = f"{name} ({method})"
        rows = {a.id: _hypotheses(result, a) for a in members}
        if method == "dunnett":
            _simultaneous(result, [row for own in rows.values() for row in own])
        elif method == "graphical":
            _by_graph(result, members, rows)
        else:
            _by_p_values(result, [row for own in rows.values() for row in own], method)
    return result


def _by_p_values(result: pd.DataFrame, rows: list[Any], method: str) -> None:
    if not rows:
        return
    p = result.loc[rows, "p_value"].to_numpy(float)
    adjusted = _adjust(p, method)
    if method in _STATSMODELS:
        from statsmodels.stats.multitest import multipletests

        theirs = multipletests(p, method=_STATSMODELS[method])[1]
        for ours, other in zip(adjusted, theirs, strict=True):
            compare(float(ours), float(other), "statsmodels multipletests", tolerance=1e-12)
    result.loc[rows, "p_adjusted"] = adjusted
    if method == "bonferroni" and "ci_low" in result:
        for row in rows:
            limits = _widened(result.loc[row], len(rows))
            result.loc[row, ["ci_low_adjusted", "ci_high_adjusted"]] = limits


def _by_graph(
    result: pd.DataFrame, members: Sequence[AnalysisSpec], rows: Mapping[str, list[Any]]
) -> None:
    """Graph whose nodes are analyses; one without a result keeps its weight (p = 1)."""
    names = [a.id for a in members]
    several = [name for name in names if len(rows[name]) > 1]
    if several:
        raise ValueError(
            f"analysis {several[0]} has {len(rows[several[0]])} hypotheses, and a node of a graph "
            "is one; name it by primary_contrast and primary_visit"
        )
    p = [float(result.loc[rows[n][0], "p_value"]) if rows[n] else 1.0 for n in names]
    weights = [float(a.weight or 0.0) for a in members]
    transitions = np.array(
        [[float((a.passes_to or {}).get(n, 0.0)) for n in names] for a in members]
    )
    for name, value in zip(names, _graph_adjust(p, weights, transitions), strict=True):
        result.loc[rows[name], "p_adjusted"] = value


def _simultaneous(result: pd.DataFrame, rows: list[Any]) -> None:
    """Copy what the analysis computed from the correlation of its contrasts (Dunnett)."""
    keys = [c for c in ("analysis_id", "endpoint", "visit", "group") if c in result]
    found = result[result["statistic"] == "mean_difference_simultaneous"].set_index(keys)
    for row in rows:
        key = tuple(result.loc[row, keys])
        if key in found.index:
            own = found.loc[[key]].iloc[0]
            result.loc[row, ["p_adjusted", "ci_low_adjusted", "ci_high_adjusted"]] = [
                own["p_value"],
                own["ci_low"],
                own["ci_high"],
            ]


def _widened(row: Any, number: int) -> tuple[float, float]:
    """Limits of a row at the level alpha / number; nan where they are not of normal or t form.

    The standard error is the width of the limits over twice the t quantile, with the degrees of
    freedom that the row prints. A ratio is taken on the log scale.
    """
    low, high, level = (float(row[c]) for c in ("ci_low", "ci_high", "ci_level"))
    ratio = str(row["statistic"]).endswith("_ratio")
    if not np.isfinite([low, high, level]).all() or (ratio and low <= 0):
        return np.nan, np.nan
    text = f"{row['method']}; {row['note']}"
    if not re.search(r"t interval|Wald|normal|MMRM|Rubin|t test", text):
        return np.nan, np.nan
    printed = re.search(r"\bdf ([0-9.]+)", text)
    df = float(printed.group(1).rstrip(".")) if printed else np.inf
    ends = np.log([low, high]) if ratio else np.array([low, high])
    alpha = 1 - level
    half = (ends[1] - ends[0]) / 2
    half *= scipy.stats.t.ppf(1 - alpha / number / 2, df) / scipy.stats.t.ppf(1 - alpha / 2, df)
    limits = ends.mean() + half * np.array([-1, 1])
    low, high = np.exp(limits) if ratio else limits
    return float(low), float(high)


def _hypotheses(frame: pd.DataFrame, analysis: AnalysisSpec) -> list[Any]:
    """Rows (index labels) of the hypotheses of an analysis.

    One statistic, ``primary_statistic`` or the first of the conclusions that it has; of its first
    method; at ``primary_visit``, else its last visit; of the contrast ``primary_contrast``, else of
    every contrast of ``by``. Terms of covariates are none. The candidates of MCP-Mod are one
    hypothesis: their p are adjusted for each other.
    """
    rows = frame[(frame["analysis_id"] == analysis.id) & frame["p_value"].notna()]
    groups = rows["group"].astype(str)
    own = ~groups.str.endswith("Intercept") & ~groups.str.contains(" given ", regex=False)
    rows = rows[own]
    named = analysis.primary_statistic
    chosen = rows.iloc[:0]
    for statistic in (named,) if named else conclusion_order():
        chosen = rows[rows["statistic"] == statistic]
        if len(chosen):
            break
    if chosen.empty:
        return []
    chosen = _contrasts(chosen, analysis)
    if "visit" in chosen and len(chosen):
        visit = analysis.primary_visit or chosen["visit"].iloc[-1]
        chosen = chosen[chosen["visit"] == visit]
    if len(chosen) and chosen["statistic"].iloc[0] == "mcp_t":
        return [chosen["p_value"].idxmin()]
    keys = [c for c in ("endpoint", "visit", "group") if c in chosen]
    return list(chosen.drop_duplicates(keys).index)


def _contrasts(chosen: pd.DataFrame, analysis: AnalysisSpec) -> pd.DataFrame:
    """Rows about a contrast of ``by`` where the analysis has one; the one that is named."""
    groups, by = chosen["group"].astype(str), analysis.arms
    pairs = groups.str.contains(f"{by}=", regex=False) & groups.str.contains("|", regex=False)
    if by and pairs.any():
        chosen, groups = chosen[pairs], groups[pairs]
    elif analysis.endpoint and (groups.str.contains("|", regex=False)).any():
        # Survival along an endpoint: per unit of it, not its covariates and not along its curve.
        pairs = groups.str.contains("|", regex=False) & ~groups.str.contains("=", regex=False)
        chosen, groups = (chosen[pairs], groups[pairs]) if pairs.any() else (chosen, groups)
    named = analysis.primary_contrast
    if named:
        first = groups.str.split("|").str[0]
        chosen = chosen[(groups == str(named)) | (first == f"{by}={named}") | (first == str(named))]
    return chosen
