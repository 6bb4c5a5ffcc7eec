"""Rates of a central read against the limits of its charter, each with its interval, and p-charts.

What they are: Ford et al. 2016 (adjudication rate and reader disagreement index), the Chinese
regulator's guideline on independent imaging review (agreement of two readers, of adjudicator and
reader, difference of a reader from himself); control limits after Shewhart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from corelab.measurement.rows import rows_frame
from corelab.reading.adjudication import Rule, readings_of
from corelab.reading.reader_list import by_roles, reading_order
from corelab.terms.results import column, columns_of

P_CHART = {
    "endpoint": "Name of the endpoint",
    "statistic": "reader_disagreement_index or adjudication_rate",
    "reader": "Reader, or all",
    "part": "Consecutive part of that reader's sequence, from 1",
    "count": "Numerator",
    "n": "Denominator",
    "estimate": "count / n",
    "centre": "Rate over all readers and parts: the centre line",
    "lower": "centre - 3 standard errors of a rate of n cases, no less than 0",
    "upper": "centre + 3 standard errors of a rate of n cases, no more than 1",
    "verdict": "in_control or out_of_control",
}


#: Confidence level of the intervals.
LEVEL = 0.95


def wilson_interval(count: int, n: int) -> tuple[float | None, float | None]:
    """Score interval of a proportion (Wilson 1927), None where n is 0.

    Examples
    --------
    >>> low, high = wilson_interval(8, 10); round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    from scipy.stats import binomtest

    if n == 0:
        return None, None
    interval = binomtest(count, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _against_limits(
    statistic: str,
    estimate: float | None,
    interval: tuple[float | None, float | None],
    limits: Mapping[str, float],
) -> tuple[str | None, str | None, str | None]:
    """Limit of the charter as text, and the verdicts of the estimate and of its interval."""
    texts: list[str] = []
    inside: list[tuple[bool, bool, bool]] = []
    low, high = interval
    for suffix, sign in (("min", 1.0), ("max", -1.0)):
        limit = limits.get(f"{statistic}_{suffix}")
        if limit is None:
            continue
        texts.append(f"{suffix} {limit:g}")
        if estimate is not None and low is not None and high is not None:
            worst, best = (low, high) if suffix == "min" else (high, low)
            inside.append(
                (sign * (estimate - limit) >= 0, sign * (worst - limit) >= 0,
                 sign * (best - limit) < 0)
            )  # fmt: skip
    text = ", ".join(texts) or None
    if not inside:
        return text, None, None
    verdict = "within" if all(one[0] for one in inside) else "outside"
    if all(one[1] for one in inside):
        return text, verdict, "within"
    return text, verdict, "outside" if any(one[2] for one in inside) else "not decided"


@dataclass(frozen=True)
class Rate:
    """A rate with its Wilson interval and verdicts."""

    endpoint: str = column("Name of the endpoint")
    statistic: str = column(
        "double_read_agreement, adjudication_rate, adjudication_done, adjudicator_agreement, "
        "reader_disagreement_index or intra_reader_difference"
    )
    group: str = column("reader=<id> or adjudicator=<id> where the rate is of one person, else all")
    count: int = column("Numerator")
    n: int = column("Denominator")
    estimate: float | None = column("count / n, n/a where n is 0")
    ci_low: float | None = column("Lower confidence limit")
    ci_high: float | None = column("Upper confidence limit")
    ci_level: float = column("Confidence level")
    method: str = column("Interval method")
    limit: str | None = column("Limit of the charter")
    verdict: str | None = column(
        "within or outside the charter's limit, by the estimate; n/a without a limit"
    )
    interval_verdict: str | None = column(
        "within or outside if the whole interval is, else not decided"
    )


RATES = columns_of(Rate)


def rate(
    endpoint: str,
    statistic: str,
    group: str,
    count: int,
    n: int,
    limits: Mapping[str, float],
) -> Rate:
    """A rate against the limits of the charter.

    Examples
    --------
    >>> rate("aspects", "adjudication_rate", "all", 3, 10, {"adjudication_rate_max": 0.4}).verdict
    'within'
    """
    interval = wilson_interval(count, n)
    estimate = count / n if n else None
    limit, verdict, of_interval = _against_limits(statistic, estimate, interval, limits)
    return Rate(
        *(endpoint, statistic, group, count, n, estimate, *interval, LEVEL, "Wilson score"),
        *(limit, verdict, of_interval),
    )


def _named(cell: Any) -> set[str]:
    return set(str(cell).split(",")) if cell is not None else set()


def _of_endpoint(
    endpoint: str, final: pd.DataFrame, adjudication: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cases that enough readers read and the rule could judge; the discordant ones of them."""
    cases = final[final["endpoint"] == endpoint]
    own = adjudication["endpoint"] == endpoint
    discordant = adjudication[own & (adjudication["state"] != "not_needed")]
    keys = set(zip(discordant["participant_id"], discordant["visit"], strict=True))
    hit = [key in keys for key in zip(cases["participant_id"], cases["visit"], strict=True)]
    judged = (cases["how"] == "concordant") | pd.Series(hit, index=cases.index, dtype=bool)
    return cases[judged], discordant


def _against(done: pd.DataFrame, reader: str) -> pd.Series:
    """Of a reader's adjudicated cases, whether the decision went against that reader."""
    mine = done[done["readers"].map(lambda cell: reader in _named(cell)).astype(bool)]
    return mine["agrees_with"].map(lambda cell: reader not in _named(cell)).astype(bool)


def adjudication_rates(
    final: pd.DataFrame,
    adjudication: pd.DataFrame,
    *,
    limits: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Rates of a double read by endpoint, with Wilson intervals, against the charter's limits.

    ``double_read_agreement`` and ``adjudication_rate`` are over cases that the readers read and
    the rule could judge; ``adjudicator_agreement`` is the share of a reader's adjudicated cases
    in which the decision confirmed that reader (group ``adjudicator=<id>``: of that adjudicator's
    cases in which any reader was confirmed); ``reader_disagreement_index`` is adjudicated cases
    that went against the reader over all judged cases of that reader (Ford et al. 2016).
    ``limits``: ``<statistic>_min`` or ``<statistic>_max`` -> limit, 0 to 1.
    """
    rows: list[Rate] = []

    def add(endpoint: str, statistic: str, group: str, count: int, n: int) -> None:
        rows.append(rate(endpoint, statistic, group, count, n, limits or {}))

    for endpoint in sorted(final["endpoint"].unique()):
        judged, discordant = _of_endpoint(endpoint, final, adjudication)
        done = discordant[discordant["state"] != "needed"]
        n = len(judged)
        add(endpoint, "double_read_agreement", "all", n - len(discordant), n)
        add(endpoint, "adjudication_rate", "all", len(discordant), n)
        add(endpoint, "adjudication_done", "all", len(done), len(discordant))
        valued = done[done["agrees_with"].notna()]
        for person in sorted(set(valued["adjudicator"])):
            cells = valued.loc[valued["adjudicator"] == person, "agrees_with"]
            confirmed = int((cells != "none").sum())
            add(endpoint, "adjudicator_agreement", f"adjudicator={person}", confirmed, len(cells))
        for reader in sorted(set().union(*map(_named, judged["readers"]))):
            read = int(judged["readers"].map(lambda c, r=reader: r in _named(c)).sum())
            against = _against(valued, reader)
            group, lost = f"reader={reader}", int(against.sum())
            add(endpoint, "adjudicator_agreement", group, len(against) - lost, len(against))
            add(endpoint, "reader_disagreement_index", group, lost, read)
    return rows_frame(rows, RATES, object)


def intra_reader_rates(
    sheet: pd.DataFrame | None,
    rules: Mapping[str, Rule],
    *,
    limits: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Intra-reader difference: repeats 1 and 2 of the reads sheet, judged by the charter's rule.

    An endpoint without a rule is different where the values are not equal.

    Examples
    --------
    >>> reads = pd.DataFrame([(p, "a", "aspects", "r1", v, k) for p, k, v in
    ...     [("1", "1", "8"), ("1", "2", "7"), ("2", "1", "8"), ("2", "2", "8")]],
    ...     columns=["participant_id", "visit", "endpoint", "reader", "value", "repeat"])
    >>> table = intra_reader_rates(reads, {"aspects": Rule(endpoint="aspects", grades_differ=True)})
    >>> table[["group", "count", "n"]].values.tolist()
    [['all', 1, 2], ['reader=r1', 1, 2]]
    """
    reads = [read for read in readings_of(sheet) if read.role == "reader"]
    first: dict[tuple[str, str, str, str], Any] = {}
    again: dict[tuple[str, str, str, str], Any] = {}
    for read in reads:
        place = {1: first, 2: again}.get(read.repeat)
        if place is not None:
            place[(read.endpoint, read.reader, read.participant_id, read.visit)] = read.value
    verdicts: dict[tuple[str, str], list[bool]] = {}
    for key in sorted(set(first) & set(again)):
        endpoint, reader = key[:2]
        different = _differ(first[key], again[key], rules.get(endpoint))
        for group in ("all", f"reader={reader}"):
            verdicts.setdefault((endpoint, group), []).append(different)
    rows = [
        rate(endpoint, "intra_reader_difference", group, sum(found), len(found), limits or {})
        for (endpoint, group), found in sorted(verdicts.items())
    ]
    return rows_frame(rows, RATES, object)


def _differ(one: float | str | None, other: float | str | None, rule: Rule | None) -> bool:
    if one is None or other is None:
        return (one is None) != (other is None)
    if one == other or rule is None:
        return one != other
    return rule.discordance([one, other]) is not None


def _sequence_parts(sheet: pd.DataFrame | None, parts: int) -> dict[tuple[str, str, str, str], int]:
    """(reader, participant_id, visit, endpoint) -> part of that reader's sequence, from 1.

    The sequence is ``presentation_order``, else ``read_at``; empty where the sheet has neither for
    every row of the readers.
    """
    if sheet is None or not len(sheet):
        return {}
    own = by_roles(sheet, "reader")
    order = reading_order(own)
    if order is None:
        return {}
    found = {}
    for (reader, endpoint), rows in own.groupby(["reader", "endpoint"], sort=True):
        if "repeat" in rows:
            rows = rows[pd.to_numeric(rows["repeat"]).fillna(1) == 1]
        places = np.argsort(np.argsort(order[rows.index].to_numpy(), kind="stable"), kind="stable")
        numbers = parts * places // max(len(rows), 1) + 1
        for number, person, visit in zip(
            numbers, rows["participant_id"], rows["visit"], strict=True
        ):
            found[str(reader), str(person), str(visit), str(endpoint)] = int(number)
    return found


def p_chart(
    final: pd.DataFrame, adjudication: pd.DataFrame, sheet: pd.DataFrame | None, *, parts: int = 3
) -> pd.DataFrame:
    """Reader disagreement index of every reader in consecutive parts of his sequence.

    Centre: all readers and parts together. Limits: 3 standard errors of a binomial rate (Shewhart
    p-chart); a part outside them is no chance. Without an order of reading there is one part.
    """
    part_of = _sequence_parts(sheet, parts)
    rows: list[tuple[Any, ...]] = []
    for endpoint in sorted(final["endpoint"].unique()):
        judged, discordant = _of_endpoint(endpoint, final, adjudication)
        valued = discordant[discordant["agrees_with"].notna()]
        lost = {
            (row["participant_id"], row["visit"], reader)
            for row in valued.to_dict("records")
            for reader in _named(row["readers"]) - _named(row["agrees_with"])
        }
        cells: dict[tuple[str, int], list[int]] = {}
        for row in judged.to_dict("records"):
            for reader in _named(row["readers"]):
                key = (reader, row["participant_id"], row["visit"], endpoint)
                hit = (row["participant_id"], row["visit"], reader) in lost
                cells.setdefault((reader, part_of.get(key, 1)), []).append(hit)
        rows += _chart_rows(endpoint, "reader_disagreement_index", cells)
    return pd.DataFrame(rows, columns=list(P_CHART), dtype=object)


def _chart_rows(
    endpoint: str, statistic: str, cells: Mapping[tuple[str, int], Sequence[int]]
) -> list[tuple[Any, ...]]:
    everything = [hit for hits in cells.values() for hit in hits]
    if not everything:
        return []
    centre = sum(everything) / len(everything)
    rows = []
    for (reader, part), hits in sorted(cells.items()):
        n, count = len(hits), int(sum(hits))
        spread = 3.0 * float(np.sqrt(centre * (1.0 - centre) / n))
        lower, upper = max(centre - spread, 0.0), min(centre + spread, 1.0)
        held = lower - 1e-12 <= count / n <= upper + 1e-12
        verdict = "in_control" if held else "out_of_control"
        values = (endpoint, statistic, reader, part, count, n, count / n, centre, lower, upper)
        rows.append((*values, verdict))
    return rows
