"""Double read and adjudication: from the reads of two readers to one final read per case.

The rule comes from the imaging charter (config ``reading.adjudication``); nothing is assumed
where the charter says nothing. A final value is the readers' where they agree, the adjudicator's
where they do not, and missing with a reason in every other case.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from corelab.measurement.collect import endpoint_unit
from corelab.study.checks import VOLUME_UNITS_ML

FINAL_READS = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "endpoint": "Name of the endpoint",
    "value": "The final value, n/a where there is none",
    "unit": "Unit of the value",
    "how": "concordant (readers agree), adjudicated, or missing",
    "readers": "Readers of the case, separated by commas",
    "adjudicator": "Who decided, where the readers did not agree",
    "reason": "Why there is no value, or how it was had",
}
ADJUDICATION = {
    "participant_id": "Subject identifier",
    "visit": "Visit name",
    "endpoint": "Name of the endpoint",
    "state": "needed, adjudicated, or not_needed (an adjudicator's read of a concordant case)",
    "readers": "Readers of the case, separated by commas",
    "values": "Their values in the same order",
    "difference": "Largest absolute difference between two readers, unit of the endpoint",
    "relative_difference": "The same over the mean of the absolute values",
    "discordant_by": "Which limit of the charter was passed",
    "adjudicator": "Who adjudicated",
    "value": "The adjudicator's value",
    "agrees_with": "Readers whose value is concordant with the adjudicator's",
}
RATES = {
    "endpoint": "Name of the endpoint",
    "statistic": "double_read_agreement, adjudication_rate, adjudication_done, "
    "adjudicator_agreement or reader_disagreement_index",
    "group": "reader=<id> where the rate is of one reader, else all",
    "count": "Numerator",
    "n": "Denominator",
    "estimate": "count / n, n/a where n is 0",
    "ci_low": "Lower confidence limit",
    "ci_high": "Upper confidence limit",
    "ci_level": "Confidence level",
    "method": "Interval method",
    "limit": "Limit of the charter",
    "verdict": "within or outside the charter's limit, by the estimate; n/a without a limit",
}
METHODS = ("either_of_two", "independent_third")
#: Values closer than this (relative) are the same number, written with other digits.
SAME_NUMBER = 1e-9


class AdjudicationFault(ValueError):
    """Reads that the charter's rule does not allow; every fault is named in the message."""


@dataclass(frozen=True)
class Rule:
    """Adjudication rule of one endpoint.

    Attributes
    ----------
    endpoint
        Whose rule it is.
    method
        ``either_of_two``: the adjudicator chooses one reader's value;
        ``independent_third``: the adjudicator's own value stands.
    absolute_above
        Discordant above this difference, unit of the endpoint.
    relative_above
        Discordant above this difference over the mean of the absolute values.
    combine
        ``any``: one limit passed is enough; ``all``: both must be.
    grades_differ
        Values are grades: any difference is discordant.
    repeat
        Which repeated read counts (2 for the second part of a hybrid presentation).
    """

    endpoint: str
    method: str = "independent_third"
    absolute_above: float | None = None
    relative_above: float | None = None
    combine: str = "any"
    grades_differ: bool = False
    repeat: int = 1

    def __post_init__(self) -> None:
        limits = (self.absolute_above, self.relative_above)
        if self.method not in METHODS:
            raise ValueError(f"{self.endpoint}: unknown method {self.method!r}; known: {METHODS}")
        if self.grades_differ == any(limit is not None for limit in limits):
            raise ValueError(
                f"reading.adjudication, {self.endpoint}: give absolute_above or relative_above "
                "for a number, or grades_differ for a grade, and not both: without a limit "
                "nothing says which reads are discordant"
            )

    def discordance(self, values: Sequence[float | str]) -> str | None:
        """Which limit the values pass, None if they are concordant.

        Examples
        --------
        >>> rule = Rule("infarct_volume", absolute_above=5.0, relative_above=0.2)
        >>> rule.discordance([100.0, 104.0]), rule.discordance([10.0, 14.0])
        (None, 'relative difference 0.333333 above 0.2')
        """
        if self.grades_differ:
            return None if len({_grade(value) for value in values}) == 1 else "grades differ"
        difference, relative = differences(values)
        passed = []
        if self.absolute_above is not None:
            above = difference > self.absolute_above
            passed.append((above, f"difference {difference:g} above {self.absolute_above:g}"))
        if self.relative_above is not None:
            above = relative > self.relative_above
            passed.append(
                (above, f"relative difference {relative:g} above {self.relative_above:g}")
            )
        hits = [text for above, text in passed if above]
        enough = len(hits) == len(passed) if self.combine == "all" else bool(hits)
        return " and ".join(hits) if enough else None


def _grade(value: float | str) -> float | str:
    return float(value) if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def differences(values: Sequence[float | str]) -> tuple[float, float]:
    """Largest absolute difference, and that over the mean of the absolute values.

    Examples
    --------
    >>> differences([10.0, 14.0]), differences([0.0, 0.0])
    ((4.0, 0.3333333333333333), (0.0, 0.0))
    """
    numbers = [float(value) for value in values]
    difference = max(numbers) - min(numbers)
    size = sum(abs(number) for number in numbers) / len(numbers)
    return difference, (difference / size if size > 0 else 0.0)


@dataclass(frozen=True)
class _Read:
    participant_id: str
    visit: str
    endpoint: str
    reader: str
    role: str
    value: float | str | None
    unit: str | None


def rules_of(settings: Iterable[Mapping[str, Any]]) -> dict[str, Rule]:
    """Rules by endpoint from ``reading.adjudication`` of the config.

    Examples
    --------
    >>> rules_of([{"endpoint": "aspects", "grades_differ": True}])["aspects"].method
    'independent_third'
    """
    rules: dict[str, Rule] = {}
    for entry in settings:
        rule = Rule(**entry)
        if rule.endpoint in rules:
            raise ValueError(f"reading.adjudication has two rules for {rule.endpoint}: keep one")
        rules[rule.endpoint] = rule
    return rules


def _reads(sheet: pd.DataFrame | None, rules: Mapping[str, Rule]) -> list[_Read]:
    """The reads that count, in the endpoint's own unit."""
    found: list[_Read] = []
    for cells in [] if sheet is None else sheet.to_dict("records"):
        role = cells.get("role") or "reader"
        rule = rules.get(cells["endpoint"])
        wanted = rule.repeat if rule else 1
        if role not in {"reader", "adjudicator"}:
            continue
        # An adjudicator reads once, whichever of the readers' repeats counts.
        if role == "reader" and int(float(cells.get("repeat") or 1)) != wanted:
            continue
        value, unit = cells["value"], cells.get("unit")
        if _is_number(value) and float(value) == float(value):
            value = float(value)
            if endpoint_unit(cells["endpoint"]) == "mL" and unit in VOLUME_UNITS_ML:
                value, unit = value * VOLUME_UNITS_ML[unit], "mL"
        elif not isinstance(value, str):
            value = None
        found.append(
            _Read(
                participant_id=str(cells["participant_id"]),
                visit=str(cells["visit"]),
                endpoint=str(cells["endpoint"]),
                reader=str(cells["reader"]),
                role=role,
                value=value,
                unit=unit or endpoint_unit(cells["endpoint"]),
            )
        )
    return found


def _faults(groups: Mapping[tuple[str, str, str], list[_Read]]) -> list[str]:
    """What no adjudication may have."""
    faults = []
    read_by: dict[tuple[str, str], set[str]] = {}
    for (participant_id, visit, _), reads in groups.items():
        readers = {read.reader for read in reads if read.role == "reader"}
        read_by.setdefault((participant_id, visit), set()).update(readers)
    for key, reads in groups.items():
        where = f"{key[0]} {key[1]} {key[2]}"
        adjudicators = [read.reader for read in reads if read.role == "adjudicator"]
        both = sorted(set(adjudicators) & read_by[key[:2]])
        if both:
            faults.append(
                f"{where}: the adjudicator {both[0]} was a reader of this case; the case needs "
                "an adjudicator who has not read it"
            )
        if len(adjudicators) > 1:
            faults.append(
                f"{where}: {len(adjudicators)} adjudications ({', '.join(sorted(adjudicators))}); "
                "keep the one that the charter counts"
            )
        names = [read.reader for read in reads if read.role == "reader"]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            faults.append(f"{where}: two reads by {doubled[0]}; number them in the column repeat")
        units = sorted({str(read.unit) for read in reads if read.value is not None})
        if len(units) > 1:
            faults.append(f"{where}: reads in {' and '.join(units)}; give all in one unit")
    return faults


def _same(a: float | str, b: float | str) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= SAME_NUMBER * max(1.0, abs(a), abs(b))
    return _grade(a) == _grade(b)


def _case(
    key: tuple[str, str, str], reads: Sequence[_Read], rule: Rule | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Final read of one case and endpoint, and its row of the adjudication table."""
    read = sorted((r for r in reads if r.role == "reader"), key=lambda r: r.reader)
    third = next((r for r in reads if r.role == "adjudicator"), None)
    valued = [r for r in read if r.value is not None]
    silent = [r.reader for r in read if r.value is None]
    values: list[float | str] = [r.value for r in valued if r.value is not None]
    final: dict[str, Any] = {
        **dict(zip(("participant_id", "visit", "endpoint"), key, strict=True)),
        "value": None,
        "unit": next((r.unit for r in reads if r.unit), None),
        "how": "missing",
        "readers": ",".join(r.reader for r in read) or None,
        "adjudicator": None,
        "reason": None,
    }
    if len(read) < 2:
        names = f"only {read[0].reader} read this case" if read else "no reader read this case"
        return {**final, "reason": f"{names}; the charter's rule needs two readers"}, None
    if not valued:
        return {**final, "reason": "no reader could give a value"}, None
    text = [v for v in values if not isinstance(v, float)]
    if rule is not None and not rule.grades_differ and text:
        raise AdjudicationFault(
            f"{' '.join(key)}: the value {text[0]!r} is no number, so limits on differences mean "
            "nothing; correct it, or set grades_differ in reading.adjudication"
        )
    if silent:
        discordant: str | None = "not evaluable by " + ", ".join(silent)
    elif all(_same(values[0], value) for value in values[1:]):
        discordant = None
    elif rule is None:
        reason = (
            "the readers differ and the charter has no rule for this endpoint "
            "(reading.adjudication)"
        )
        return {**final, "reason": reason}, None
    else:
        discordant = rule.discordance(values)
    numeric = not text and not (rule is not None and rule.grades_differ)
    row: dict[str, Any] = {
        **{name: final[name] for name in ("participant_id", "visit", "endpoint", "readers")},
        "state": "needed",
        "values": ",".join("n/a" if r.value is None else f"{r.value}" for r in read),
        "difference": differences(values)[0] if numeric and len(values) > 1 else None,
        "relative_difference": differences(values)[1] if numeric and len(values) > 1 else None,
        "discordant_by": discordant,
        "adjudicator": third.reader if third else None,
        "value": third.value if third else None,
        "agrees_with": _agreeing(valued, third, rule),
    }
    if discordant is None:
        value = sum(map(float, values)) / len(values) if numeric else values[0]
        how = "mean of the readers' values" if numeric else "the readers' grade"
        final |= {"value": value, "how": "concordant", "reason": how}
        return final, {**row, "state": "not_needed"} if third else None
    if third is None:
        return {**final, "reason": f"needs adjudication: {discordant}"}, row
    if rule is None:
        raise AdjudicationFault(
            f"{' '.join(key)}: adjudicated, but reading.adjudication has no rule for this endpoint"
        )
    row["state"] = "adjudicated"
    final["adjudicator"] = third.reader
    if third.value is None:
        return {**final, "reason": f"not evaluable by the adjudicator; {discordant}"}, row
    if rule.method == "either_of_two" and not any(_same(third.value, v) for v in values):
        raise AdjudicationFault(
            f"{' '.join(key)}: the adjudicator's value {third.value} is neither reader's "
            f"({row['values']}); the charter's method is either_of_two"
        )
    return {**final, "value": third.value, "how": "adjudicated", "reason": discordant}, row


def _agreeing(valued: Sequence[_Read], third: _Read | None, rule: Rule | None) -> str | None:
    """Readers whose value the adjudicator's confirms: chosen, or concordant by the rule."""
    if third is None or third.value is None:
        return None
    value = third.value
    if rule is None or rule.method == "either_of_two":
        names = [r.reader for r in valued if r.value is not None and _same(r.value, value)]
    else:
        names = [
            r.reader
            for r in valued
            if r.value is not None and rule.discordance([r.value, value]) is None
        ]
    return ",".join(names) or "none"


def adjudicate(
    sheet: pd.DataFrame | None, rules: Mapping[str, Rule]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Final reads of a study, and the cases that need or had an adjudicator.

    Parameters
    ----------
    sheet
        The reads sheet as text; rows of investigators and software take no part.
    rules
        By endpoint, see :func:`rules_of`. An endpoint without a rule is concordant only where
        its readers gave the same value.

    Returns
    -------
    final, adjudication
        Columns :data:`FINAL_READS` and :data:`ADJUDICATION`.

    Raises
    ------
    AdjudicationFault
        Naming every case whose adjudicator was its reader, that has two adjudications, two
        reads of one reader, mixed units, or (``either_of_two``) a value of neither reader.

    Examples
    --------
    >>> sheet = pd.DataFrame([("1", "a", "aspects", "r1", "8", None), ("1", "a", "aspects", "r2",
    ...     "6", None), ("1", "a", "aspects", "r3", "6", "adjudicator")],
    ...     columns=["participant_id", "visit", "endpoint", "reader", "value", "role"])
    >>> rule = {"endpoint": "aspects", "grades_differ": True, "method": "either_of_two"}
    >>> final, table = adjudicate(sheet, rules_of([rule]))
    >>> final[["value", "how", "adjudicator"]].values.tolist(), table["agrees_with"].tolist()
    ([[6.0, 'adjudicated', 'r3']], ['r2'])
    """
    groups: dict[tuple[str, str, str], list[_Read]] = {}
    for read in _reads(sheet, rules):
        groups.setdefault((read.participant_id, read.visit, read.endpoint), []).append(read)
    faults = _faults(groups)
    finals: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for key, reads in sorted(groups.items()):
        try:
            final, row = _case(key, reads, rules.get(key[2]))
        except AdjudicationFault as fault:
            faults.append(str(fault))
            continue
        finals.append(final)
        rows += [row] if row else []
    if faults:
        raise AdjudicationFault("\n".join(["The reads cannot be adjudicated:", *faults]))
    return (
        pd.DataFrame(finals, columns=list(FINAL_READS), dtype=object),
        pd.DataFrame(rows, columns=list(ADJUDICATION), dtype=object),
    )


def wilson_interval(count: int, n: int, level: float = 0.95) -> tuple[float | None, float | None]:
    """Score interval of a proportion (Wilson 1927), None where n is 0.

    Examples
    --------
    >>> low, high = wilson_interval(8, 10); round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    from scipy.stats import binomtest

    if n == 0:
        return None, None
    interval = binomtest(count, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def adjudication_rates(
    final: pd.DataFrame,
    adjudication: pd.DataFrame,
    *,
    limits: Mapping[str, float] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Rates of a double read by endpoint, with Wilson intervals, against the charter's limits.

    ``double_read_agreement`` and ``adjudication_rate`` are over cases that two readers read and
    the rule could judge; ``adjudicator_agreement`` is the share of a reader's adjudicated cases
    in which the adjudicator confirmed that reader; ``reader_disagreement_index`` is adjudicated
    cases that went against the reader over all judged cases of that reader (Ford et al. 2016).

    Parameters
    ----------
    final, adjudication
        Of :func:`adjudicate`.
    limits
        ``<statistic>_min`` or ``<statistic>_max`` -> limit, 0 to 1.
    level
        Confidence level.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`RATES`.
    """
    rows: list[dict[str, Any]] = []

    def add(endpoint: str, statistic: str, group: str, count: int, n: int) -> None:
        low, high = wilson_interval(count, n, level)
        estimate = count / n if n else None
        limit, verdict = _verdict(statistic, estimate, limits or {})
        cells = (endpoint, statistic, group, count, n, estimate, low, high, level)
        rows.append(dict(zip(RATES, (*cells, "Wilson score", limit, verdict), strict=True)))

    def named(cell: Any) -> set[str]:
        return set(str(cell).split(",")) if cell is not None else set()

    for endpoint in sorted(final["endpoint"].unique()):
        cases = final[final["endpoint"] == endpoint]
        discordant = adjudication[
            (adjudication["endpoint"] == endpoint) & (adjudication["state"] != "not_needed")
        ]
        done = discordant[discordant["state"] == "adjudicated"]
        keys = set(zip(discordant["participant_id"], discordant["visit"], strict=True))
        judged = cases[
            (cases["how"] == "concordant")
            | pd.Series(
                [key in keys for key in zip(cases["participant_id"], cases["visit"], strict=True)],
                index=cases.index,
                dtype=bool,
            )
        ]
        n = len(judged)
        add(endpoint, "double_read_agreement", "all", n - len(discordant), n)
        add(endpoint, "adjudication_rate", "all", len(discordant), n)
        add(endpoint, "adjudication_done", "all", len(done), len(discordant))
        valued = done[done["agrees_with"].notna()]
        for reader in sorted(set().union(*map(named, judged["readers"]))):
            read = judged["readers"].map(lambda c, r=reader: r in named(c)).sum()
            mine = valued[valued["readers"].map(lambda c, r=reader: r in named(c)).astype(bool)]
            with_me = sum(reader in named(cell) for cell in mine["agrees_with"])
            group = f"reader={reader}"
            add(endpoint, "adjudicator_agreement", group, with_me, len(mine))
            against = len(mine) - with_me
            add(endpoint, "reader_disagreement_index", group, against, int(read))
    return pd.DataFrame(rows, columns=list(RATES), dtype=object)


def _verdict(
    statistic: str, estimate: float | None, limits: Mapping[str, float]
) -> tuple[str | None, str | None]:
    texts, outside = [], False
    for suffix, sign in (("min", 1.0), ("max", -1.0)):
        limit = limits.get(f"{statistic}_{suffix}")
        if limit is not None:
            texts.append(f"{suffix} {limit:g}")
            outside |= estimate is not None and sign * (estimate - limit) < 0
    if not texts or estimate is None:
        return ", ".join(texts) or None, None
    return ", ".join(texts), "outside" if outside else "within"
