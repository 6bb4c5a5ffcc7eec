"""Statistics rows of planned overlap analyses: per subject, and over subjects."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from corelab.agreement.clusters import Codes, clusters_of, codes_of, labels_of, number_of, sums
from corelab.agreement.estimates import Floats, quantile_t
from corelab.agreement.limits import quantile
from corelab.agreement.second import confirm
from corelab.agreement.sources import by_visits, chosen_sources
from corelab.measurement.overlap import MANY_METRIC, METRICS
from corelab.measurement.selection import (
    NotComputable,
    Tables,
    as_list,
    population,
)
from corelab.settings.analyses.overlap import OverlapSpec
from corelab.terms.results import Estimate, Second, StatisticRow, join_notes, not_computable

_DEFINITIONS = {
    "dice": "2|A and B| / (|A| + |B|)",
    "jaccard": "|A and B| / |A or B|",
    "hd95_mm": "larger of the two directed 95th percentiles of surface distances",
    "assd_mm": "mean of surface distances, both surfaces pooled",
    "nsd": "share of both surfaces within the tolerance",
    "volume_difference_ml": "volume of the first minus volume of the second",
    "lesion_sensitivity": "share of the second's lesions (26-connected) that the first touches",
    "lesion_precision": "share of the first's lesions (26-connected) that touch the second",
    "lesion_f1": "harmonic mean of lesion sensitivity and precision",
    MANY_METRIC: "2 sum |Ai and Aj| / sum (|Ai| + |Aj|) over all pairs of sources",
}
#: The median of a metric over subjects is a statistic of its own name; its mean keeps the metric's.
MEDIAN = "_median"
#: Fewer cases than this have no interval of their mean: they are listed.
FEWEST_FOR_INTERVAL = 5
#: Least and largest value that a metric can have; an interval is cut there.
_RANGES = {
    **dict.fromkeys(("hd95_mm", "assd_mm"), (0.0, np.inf)),
    "volume_difference_ml": (-np.inf, np.inf),
}
_SHARE = (0.0, 1.0)
#: What a metric becomes where the roles of the two masks are exchanged.
_TURNED = {"lesion_sensitivity": "lesion_precision", "lesion_precision": "lesion_sensitivity"}


def _oriented(rows: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Rows of one pair of sources, in plan order whichever way they were measured."""
    straight = rows[(rows["source_a"] == a) & (rows["source_b"] == b)]
    turned = rows[(rows["source_a"] == b) & (rows["source_b"] == a)].copy()
    signed = turned["metric"] == "volume_difference_ml"
    turned.loc[signed, "value"] = -turned.loc[signed, "value"]
    turned["metric"] = turned["metric"].replace(_TURNED)
    return pd.concat([straight, turned]) if len(turned) else straight


def overlap_rows(analysis: OverlapSpec, tables: Tables) -> list[StatisticRow]:
    """Rows of one overlap analysis: a row per subject and visit, then mean and median over them.

    Population rows pool visits unless ``by_visit``. The mean has the metric's name and the median
    ``<metric>_median``; fewer than 5 cases have no interval of their mean, and an interval ends at
    the metric's range. Only the first repeat of each pair counts. Infinite distances (one mask
    empty) rank last: they enter the median and make the mean not computable. Several visits of a
    subject (key ``cluster``): the mean is that of the subjects' means, t over subjects, and the
    interval of the median counts subjects (Woodruff 1952).

    Examples
    --------
    >>> table = pd.DataFrame({"participant_id": ["1", "2"], "visit": "d0", "label": "infarct",
    ...     "source_a": "x", "source_b": "y", "repeat": 1, "metric": "dice", "value": [0.8, 0.6],
    ...     "status": "ok", "reason": None, "scan_ids": ""})
    >>> tables = Tables(pd.DataFrame(), pd.DataFrame({"participant_id": ["1", "2"]}), table)
    >>> rows = overlap_rows(OverlapSpec(id="o", type="overlap", label="infarct"), tables)
    >>> [(row.participant_id, round(row.estimate, 2)) for row in rows]
    [('1', 0.8), ('2', 0.6), ('all', 0.7), ('all', 0.7)]
    """
    place = {"endpoint": analysis.label}
    try:
        analysis = analysis.with_labels(labels_of(analysis, tables))
        rows = _chosen(analysis, tables)
    except NotComputable as error:
        return [not_computable("dice", str(error), **place)]
    many = rows[rows["metric"] == MANY_METRIC]
    rows = rows[rows["metric"] != MANY_METRIC]
    sources = chosen_sources(analysis, [*rows["source_a"], *rows["source_b"]])
    found: list[StatisticRow] = []
    for a, b in combinations(sources, 2):
        pair = _oriented(rows, a, b)
        group = {**place, "group": f"{a}|{b}"}
        if not len(pair):
            found.append(
                not_computable("dice", f"no subject has masks of both {a} and {b}", **group)
            )
            continue
        found += _subjects(pair, group)
        for visit, part in by_visits(analysis, tables, pair):
            found += _population(part, {**group, "visit": visit}, analysis)
    return found + _of_all(analysis, many, place)


def _chosen(analysis: OverlapSpec, tables: Tables) -> pd.DataFrame:
    """First repeats of the label in the population and at the visits of the analysis."""
    rows = tables.overlap
    if "label" in rows:
        people = population(analysis, tables)["participant_id"]
        keep = (rows["label"] == analysis.label) & rows["participant_id"].isin(people)
        visits = as_list(analysis.visit)
        if visits:
            keep &= rows["visit"].isin(visits)
        rows = rows[keep]
    if "label" not in rows or not len(rows):
        raise NotComputable(f"no two masks of {analysis.label} to compare")
    repeat = pd.to_numeric(rows["repeat"]).astype(int)
    return rows.assign(value=rows["value"].astype(float), repeat=repeat)[repeat == 1]


def _of_all(analysis: OverlapSpec, many: pd.DataFrame, place: dict[str, str]) -> list[StatisticRow]:
    """Generalised Dice of all sources of a visit; only where the plan asks for all of them."""
    if not len(many) or "all" not in as_list(analysis.sources):
        return []
    group = {**place, "group": "all"}
    return [*_subjects(many, group), *_population(many, {**group, "visit": "all"}, analysis)]


def _subjects(pair: pd.DataFrame, group: dict[str, str]) -> list[StatisticRow]:
    doubled = pair.duplicated(["participant_id", "visit", "metric"], keep=False)
    if doubled.any():
        first = pair[doubled].iloc[0]
        raise ValueError(
            f"two overlap values for {first['participant_id']} {first['visit']} {first['metric']} "
            f"{group['group']}; duplicates are never averaged"
        )
    rows = []
    ordered = pair.sort_values(["participant_id", "visit", "metric"])
    for one in ordered.to_dict("records"):
        base = {**group, "participant_id": one["participant_id"], "visit": one["visit"]}
        reason = one["reason"] if isinstance(one["reason"], str) else ""
        if one["status"] != "ok" or np.isnan(one["value"]):
            rows.append(not_computable(one["metric"], reason or str(one["status"]), n=1, **base))
            continue
        method = _DEFINITIONS.get(one["metric"], "")
        found = Estimate(one["value"], n=1, method=method, note=reason)
        rows.append(found.row(one["metric"], **base))
    return rows


def _population(
    part: pd.DataFrame, group: dict[str, str], analysis: OverlapSpec
) -> list[StatisticRow]:
    alpha = analysis.alpha
    rows: list[StatisticRow] = []
    for metric in (*METRICS, MANY_METRIC):
        own = part[part["metric"] == metric]
        if not len(own):
            continue
        given = own[(own["status"] == "ok") & own["value"].notna()]
        values = given["value"].to_numpy(dtype=np.float64)
        span = _RANGES.get(metric, _SHARE)
        undefined = len(own) - values.size
        notes = [f"{undefined} of {len(own)} not defined"] if undefined else []
        if not values.size:
            rows.append(not_computable(metric, "not defined in any subject", n=0, **group))
            continue
        people = pd.MultiIndex.from_frame(given[["participant_id", "visit"]])
        codes = codes_of(clusters_of(people, analysis.labels), values.size)
        counted: dict[str, Any] = {**group, "n_clusters": number_of(codes, values.size)}
        infinite = int(np.isinf(values).sum())
        note = "; ".join([*notes, f"{infinite} infinite, ranked last"] if infinite else notes)
        if infinite:
            reason = f"{infinite} infinite distances (one mask empty) have no mean"
            rows.append(
                not_computable(
                    metric, "; ".join([reason, *notes]), n=values.size, method="mean", **counted
                )
            )
        else:
            found = _mean(values, alpha, codes, span)
            checked = _second_mean(values, codes, found.estimate)
            rows.append(
                found.row(
                    metric,
                    note="; ".join(["mean", *notes]),
                    second_estimate=checked.estimate,
                    second_method=checked.method,
                    **counted,
                )
            )
        found = _median(values, alpha, codes)
        words = join_notes("median", note)
        rows.append(found.row(metric + MEDIAN, note=words, **counted))
    return rows


def _mean(values: Floats, alpha: float, codes: Codes | None, span: tuple[float, float]) -> Estimate:
    method, n = "mean; t interval", values.size
    if codes is not None:
        values = sums(values, codes) / np.bincount(codes)
        method = f"mean of {values.size} subjects' means; t interval over subjects"
    mean = float(values.mean())
    if values.size < FEWEST_FOR_INTERVAL:
        method = f"{method.partition(';')[0]}; no interval of fewer than 5 cases"
        return Estimate(mean, n=n, method=method)
    half = quantile_t(values.size - 1, alpha) * float(values.std(ddof=1)) / values.size**0.5
    low, high = max(mean - half, span[0]), min(mean + half, span[1])
    if (low, high) != (mean - half, mean + half):
        method = f"{method}, cut at the range of the metric"
    return Estimate(mean, low, high, n=n, method=method)


def _second_mean(values: Floats, codes: Codes | None, ours: float) -> Second:
    from statsmodels.stats.weightstats import DescrStatsW

    own = values if codes is None else sums(values, codes) / np.bincount(codes)
    if own.size < 2:
        return Second()
    return confirm(ours, float(DescrStatsW(own).mean), "statsmodels.DescrStatsW")


def _median(values: Floats, alpha: float, codes: Codes | None) -> Estimate:
    middle, n = float(np.median(values)), values.size
    text = "median; exact order-statistic interval"
    if codes is not None:
        text = f"median; Woodruff's interval over {number_of(codes, n)} subjects"
    try:
        found = quantile(values, 0.5, alpha=alpha, codes=codes)
    except NotComputable:
        return Estimate(middle, n=n, method="median; too few subjects for an interval")
    return Estimate(middle, found.ci_low, found.ci_high, n=n, method=text)
