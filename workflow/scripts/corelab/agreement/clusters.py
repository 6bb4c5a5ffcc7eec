"""Targets that belong together: visits of one participant, lesions or hemispheres of one patient.

Two targets of one participant are not independent: a reader who draws one of them large draws the
other large too. Every interval and p value of this module therefore counts clusters. Where every
cluster holds one target the statistics are those of independent targets, to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from corelab.agreement.estimates import Floats, p_from_t, paired_columns, quantile_t, t_estimate
from corelab.measurement.selection import NotComputable, Tables
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.overlap import OverlapSpec
from corelab.terms.results import Estimate, join_notes

Codes = NDArray[np.int64]

#: Deletion groups of a jackknife; more clusters are deleted in groups.
MOST_GROUPS = 100
#: Fewest clusters that carry a cluster-robust interval.
FEWEST_CLUSTERS = 3


def codes_of(clusters: ArrayLike | None, n: int) -> Codes | None:
    """Clusters as numbers from 0 in their order of appearance; None where none holds two targets.

    Examples
    --------
    >>> codes_of(["b", "a", "b"], 3), codes_of(["a", "b"], 2), codes_of(None, 5)
    (array([0, 1, 0]), None, None)
    """
    if clusters is None:
        return None
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ValueError(f"{labels.size} cluster labels for {n} targets: one per target is needed")
    codes, levels = pd.factorize(labels)
    return None if len(levels) == n else codes.astype(np.int64)


def number_of(codes: Codes | None, n: int) -> int:
    """Number of clusters among ``n`` targets.

    Examples
    --------
    >>> number_of(np.array([0, 1, 0]), 3), number_of(None, 5)
    (2, 5)
    """
    return n if codes is None else np.unique(codes).size


def enough_clusters(codes: Codes) -> int:
    """Number of clusters; NotComputable below :data:`FEWEST_CLUSTERS`."""
    a = int(codes.max()) + 1
    if a < FEWEST_CLUSTERS:
        raise NotComputable(f"{a} clusters (key cluster), at least {FEWEST_CLUSTERS} are needed")
    return a


def subset(codes: Codes | None, keep: ArrayLike) -> Codes | None:
    """Clusters of some of the targets, numbered anew.

    Examples
    --------
    >>> subset(np.array([0, 0, 1, 2, 2]), np.array([False, True, True, True, True]))
    array([0, 1, 2, 2])
    """
    if codes is None:
        return None
    own = codes[np.asarray(keep)]
    return codes_of(own, own.size)


def paired(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike | None, *, at_least: int = 3
) -> tuple[Floats, Floats, Codes | None]:
    """Complete pairs of two columns and their clusters, numbered anew; see ``paired_columns``.

    Examples
    --------
    >>> paired([1, 2, None, 4], [1, 3, 4, 5], ["x", "x", "y", "z"])[2]
    array([0, 0, 1])
    """
    first, second = paired_columns(a, b, at_least=at_least)
    if clusters is None:
        return first, second, None
    both = np.isfinite(np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64))
    return first, second, subset(codes_of(clusters, both.size), both)


def sums(values: Floats, codes: Codes | None) -> Floats:
    """Sums over the targets (first axis) of each cluster.

    Examples
    --------
    >>> sums(np.array([1.0, 2.0, 4.0]), np.array([0, 1, 0]))
    array([5., 2.])
    """
    if codes is None:
        return values
    result = np.zeros((int(codes.max()) + 1, *values.shape[1:]))
    np.add.at(result, codes, values)
    return result


def linear_error(influence: Floats, codes: Codes | None) -> tuple[float, int]:
    """Standard error of a mean from the influence of each target, and the number of clusters.

    Examples
    --------
    >>> linear_error(np.array([-1.0, 1.0]), None)
    (1.0, 2)
    """
    own = sums(influence, codes)
    a = own.size
    return float(np.sqrt(a / max(a - 1, 1) * np.sum(own**2)) / influence.size), a


def mean_of(
    values: Floats, alpha: float, codes: Codes | None = None, method: str = "mean difference, t"
) -> Estimate:
    """Mean with its t interval and test of 0; mean of cluster means in clusters.

    Examples
    --------
    >>> found = mean_of(np.array([1.0, 2.0, 3.0]), 0.05)
    >>> round(found.ci_low, 3), round(found.ci_high, 3)
    (-0.484, 4.484)
    """
    n = values.size
    if codes is not None:
        values = sums(values, codes) / np.bincount(codes)
        method = f"{method} over {values.size} clusters"
    se = float(values.std(ddof=1) / np.sqrt(values.size))
    return t_estimate(float(values.mean()), se, values.size - 1, alpha, n=n, method=method)


def labels_of(analysis: AgreementSpec | OverlapSpec, tables: Tables) -> dict[str, str] | None:
    """Cluster of each participant after the key ``cluster``; None where targets are independent.

    ``participant_id`` (default): all targets of a participant belong together. A participants
    column: rows with one value in it belong together (rows are lesions or hemispheres, the column
    names the patient). ``none``: every target counts as independent. NotComputable if the sheet
    lacks the column, or a participant has no value in it.

    Examples
    --------
    >>> people = pd.DataFrame({"participant_id": ["1L", "1R"], "patient": ["1", "1"]})
    >>> plan = OverlapSpec(id="o", type="overlap", label="infarct", cluster="patient")
    >>> labels_of(plan, Tables(pd.DataFrame(), people))
    {'1L': '1', '1R': '1'}
    """
    key = analysis.cluster
    if key == "none":
        return None
    people = tables.participants
    if key not in people.columns:
        raise NotComputable(
            f"the participants sheet has no column '{key}' (key cluster); it has "
            f"{', '.join(map(str, people.columns))}; visits need no column: participant_id is the "
            "default"
        )
    gone = people.loc[people[key].isna(), "participant_id"]
    if len(gone):
        raise NotComputable(f"participant {gone.iloc[0]} has no value in {key} (key cluster)")
    ids = people["participant_id"].astype(str)
    return dict(zip(ids, people[key].astype(str), strict=True))


def clusters_of(index: pd.Index, labels: Mapping[str, str] | None) -> np.ndarray | None:
    """Cluster label of every target of a table indexed by (participant_id, visit).

    Examples
    --------
    >>> index = pd.MultiIndex.from_tuples([("1", "a"), ("1", "b")],
    ...                                   names=["participant_id", "visit"])
    >>> clusters_of(index, {}).tolist(), clusters_of(index, None)
    (['1', '1'], None)
    """
    if labels is None or "participant_id" not in index.names:
        return None
    people = index.get_level_values("participant_id").astype(str)
    return np.array([labels.get(one, one) for one in people], dtype=object)


def deletion_groups(codes: Codes | None, n: int) -> Codes:
    """Group in which each target is left out: its cluster, or every 100th cluster together.

    Examples
    --------
    >>> deletion_groups(np.array([0, 0, 1]), 3), int(deletion_groups(None, 1000).max()) + 1
    (array([0, 0, 1]), 100)
    """
    own = np.arange(n) if codes is None else codes
    return own % MOST_GROUPS if own.max() >= MOST_GROUPS else own


def jackknife(statistic: Callable[[np.ndarray], ArrayLike], n: int, codes: Codes | None) -> Floats:
    """Values of a statistic with one cluster (or group of them) left out; NaN where it has none.

    ``statistic`` takes the boolean mask of the targets that are kept, and gives a number or a
    vector.

    Examples
    --------
    >>> values = np.array([1.0, 2.0, 6.0])
    >>> jackknife(lambda kept: float(values[kept].mean()), 3, np.array([0, 0, 1]))
    array([6. , 1.5])
    """
    groups = deletion_groups(codes, n)
    found: list[ArrayLike | None] = [None] * (int(groups.max()) + 1)
    # With one cluster nothing is left when it is left out.
    for group in range(len(found) if len(found) > 1 else 0):
        with suppress(NotComputable):
            found[group] = statistic(groups != group)
    none = np.full(np.shape(next((one for one in found if one is not None), np.nan)), np.nan)
    return np.array([none if one is None else one for one in found], dtype=np.float64)


def _as_is(values: Any) -> Any:
    return values


#: Scale of a jackknife: to it, back, and in words.
_SCALES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], str]] = {
    "raw": (_as_is, _as_is, ""),
    "log": (np.log, np.exp, " of the logarithm"),
    "fisher": (np.arctanh, np.tanh, " of Fisher's z"),
}


def jackknife_estimate(
    value: float,
    left_out: Floats,
    *,
    alpha: float,
    scale: str,
    n: int,
    method: str,
    codes: Codes | None = None,
    null: float | None = None,
    note: str = "",
) -> Estimate:
    """Estimate with the interval of a jackknife over clusters on a transformed scale, t.

    ``value`` is the statistic, ``left_out`` its values without one cluster; ``scale`` is ``raw``,
    ``log`` (positive statistics) or ``fisher`` (between -1 and 1); ``method`` that of the
    estimator, to which the interval's is added; ``codes`` are None where each target is its own
    cluster. Without a ``null`` value there is no p.

    Examples
    --------
    >>> found = jackknife_estimate(0.9, np.array([0.89, 0.9, 0.91]), alpha=0.05, scale="fisher",
    ...                            n=6, method="x", null=0.0)
    >>> found.ci_low < 0.9 < found.ci_high
    True
    """
    forth, back, words = _SCALES[scale]
    over = "targets" if codes is None else f"{int(codes.max()) + 1} clusters"
    text = f"{method}; jackknife over {over}{words}, t"
    with np.errstate(invalid="ignore", divide="ignore"):
        centre, others = forth(np.float64(value)), forth(left_out)
    if left_out.size < FEWEST_CLUSTERS or not np.isfinite([centre, *others]).all():
        reason = (
            f"interval not defined: {left_out.size} clusters"
            if left_out.size < FEWEST_CLUSTERS
            else "interval not defined: it hangs on one cluster or stands at the limit of its scale"
        )
        return Estimate(value, n=n, method=text, note=join_notes(note, reason))
    df = others.size - 1
    se = float(np.sqrt(df / others.size * float(np.sum((others - others.mean()) ** 2))))
    half = quantile_t(df, alpha) * se
    p_value = np.nan
    if null is not None:
        distance = float(centre - forth(np.float64(null)))
        p_value = p_from_t(distance / se, df) if se > 0 else float(distance == 0)
    low, high = float(back(centre - half)), float(back(centre + half))
    return Estimate(value, low, high, p_value, n, text, note, se)
