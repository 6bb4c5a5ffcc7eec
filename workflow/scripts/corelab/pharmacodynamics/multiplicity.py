"""Multiplicity: p values of one family adjusted together.

Procedures: Bonferroni, Holm (1979), Hochberg (1988), Benjamini-Hochberg (1995), Benjamini-
Yekutieli, and the fixed sequence (each hypothesis tested only while all before it held).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from corelab.provenance.two_computations import compare

PROCEDURES = (
    "bonferroni",
    "holm",
    "hochberg",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "fixed_sequence",
)
_STATSMODELS = {
    "bonferroni": "bonferroni",
    "holm": "holm",
    "hochberg": "simes-hochberg",
    "benjamini_hochberg": "fdr_bh",
    "benjamini_yekutieli": "fdr_by",
}
_ALIASES = {
    "bh": "benjamini_hochberg",
    "fdr": "benjamini_hochberg",
    "by": "benjamini_yekutieli",
    "fixed": "fixed_sequence",
}

#: Statistics whose p value is the conclusion of an analysis, in order of preference: an analysis
#: that gives both a hazard ratio and a log-rank p states one hypothesis, not two.
CONCLUSIONS = (
    "mean_difference",
    "hodges_lehmann_shift",
    "slope",
    "trend_z",
    "mcp_t",
    "emax",
    "common_odds_ratio",
    "generalised_odds_ratio",
    "win_ratio",
    "risk_difference",
    "mean_ratio",
    "rank_difference",
    "indirect_effect",
    "proportion_explained",
    "quantile_coefficient",
    "logrank_p",
    "hazard_ratio",
    "rmst_difference_days",
    "pearson_r",
    "spearman_rho",
    "kendall_tau",
    "partial_r",
    "partial_rho",
    "semi_partial_r",
    "rm_r",
    "disattenuated_r",
    "auc",
)


def adjust(p_values: Any, method: str = "holm") -> np.ndarray:
    """Adjusted p values in the order given.

    Parameters
    ----------
    p_values
        Finite values in [0, 1]; a missing one is not a hypothesis and must be left out before.
    method
        One of :data:`PROCEDURES`. For ``fixed_sequence`` the order is the order of testing.

    Raises
    ------
    ValueError
        If a p value is missing or outside [0, 1], or the method is unknown.

    Examples
    --------
    >>> [round(p, 3) for p in adjust([0.01, 0.04, 0.03], "holm").tolist()]
    [0.03, 0.06, 0.06]
    >>> adjust([0.01, 0.20, 0.03], "fixed_sequence").tolist()
    [0.01, 0.2, 0.2]
    """
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


def family_of(analysis: Mapping[str, Any]) -> tuple[str, str] | None:
    """Name and procedure of the family of an analysis; None without one.

    ``family`` is a name, ``name:procedure``, or a mapping with ``name`` and ``method``; the
    procedure may also be given as ``adjustment`` (or ``multiplicity``). A name that is itself a
    procedure means it. The default is Holm.

    Examples
    --------
    >>> family_of({"family": "secondary:hochberg"}), family_of({"family": "arms"})
    (('secondary', 'hochberg'), ('arms', 'holm'))
    >>> family_of({"family": "arms", "adjustment": "bh"})
    ('arms', 'benjamini_hochberg')
    """
    family = analysis.get("family")
    if family in (None, ""):
        return None
    if isinstance(family, Mapping):
        name, method = str(family["name"]), family.get("method")
    else:
        name, _, method = str(family).partition(":")
    method = method or analysis.get("adjustment") or analysis.get("multiplicity")
    if not method:
        method = name if _ALIASES.get(name, name) in PROCEDURES else "holm"
    method = _ALIASES.get(str(method), str(method))
    if method not in PROCEDURES:
        raise ValueError(
            f"analysis {analysis.get('id')}: unknown multiplicity procedure '{method}'; known: "
            + ", ".join(PROCEDURES)
        )
    return name, method


def adjust_families(frame: pd.DataFrame, analyses: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Add ``family`` and ``p_adjusted`` to statistics rows.

    One analysis states its hypotheses by one statistic, the first of :data:`CONCLUSIONS` that
    it has (all its groups and visits are hypotheses; an intercept is none). Rows keep their
    order and their own ``p_value``. In a fixed sequence the order is that of the plan.

    Raises
    ------
    ValueError
        If the analyses of one family name different procedures.

    Examples
    --------
    >>> frame = pd.DataFrame({"analysis_id": ["a", "b"], "statistic": ["slope", "slope"],
    ...     "group": ["all", "all"], "p_value": [0.01, 0.04]})
    >>> plan = [{"id": "a", "family": "f"}, {"id": "b", "family": "f"}]
    >>> adjust_families(frame, plan)["p_adjusted"].tolist()
    [0.02, 0.04]
    """
    result = frame.copy()
    result["family"] = ""
    result["p_adjusted"] = np.nan
    families: dict[str, dict[str, list[str]]] = {}
    for analysis in analyses:
        named = family_of(analysis)
        if named is not None:
            families.setdefault(named[0], {}).setdefault(named[1], []).append(str(analysis["id"]))
    for name, methods in families.items():
        if len(methods) > 1:
            raise ValueError(
                f"family '{name}' has analyses with different procedures: "
                + "; ".join(f"{method}: {', '.join(ids)}" for method, ids in methods.items())
            )
        ((method, ids),) = methods.items()
        rows = [row for identifier in ids for row in _hypotheses(result, identifier)]
        result.loc[result["analysis_id"].isin(ids), "family"] = f"{name} ({method})"
        if rows:
            p = result.loc[rows, "p_value"].to_numpy(float)
            adjusted = adjust(p, method)
            _check_against_statsmodels(p, adjusted, method)
            result.loc[rows, "p_adjusted"] = adjusted
    return result


def _hypotheses(frame: pd.DataFrame, identifier: str) -> list[Any]:
    rows = frame[(frame["analysis_id"] == identifier) & frame["p_value"].notna()]
    rows = rows[~rows["group"].astype(str).str.endswith("Intercept")]
    for statistic in CONCLUSIONS:
        chosen = rows[rows["statistic"] == statistic]
        if len(chosen):
            return list(chosen.index)
    return []


def _check_against_statsmodels(p: np.ndarray, adjusted: np.ndarray, method: str) -> None:
    if method not in _STATSMODELS:
        return
    from statsmodels.stats.multitest import multipletests

    theirs = multipletests(p, method=_STATSMODELS[method])[1]
    for ours, other in zip(adjusted, theirs, strict=True):
        compare(float(ours), float(other), "statsmodels multipletests", tolerance=1e-12)
