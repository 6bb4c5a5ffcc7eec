"""Double read and adjudication: from the reads of several readers to one final read per case.

The rule comes from the imaging charter (config ``reading.adjudication``); nothing is assumed
where the charter says nothing. A final value is the readers' where they agree, the adjudicator's
(or, by the method ``consensus``, what the readers agreed on together) where they do not, and
missing with a reason in every other case. Nothing of a reader's own value is ever changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from corelab.measurement.rows import rows_frame
from corelab.settings.reading import AdjudicationRule
from corelab.terms.endpoints import in_own_unit, unit_of
from corelab.terms.results import column, columns_of


@dataclass(frozen=True)
class FinalRead:
    """Row of the final reads."""

    participant_id: str = column("Subject identifier")
    visit: str = column("Visit name")
    endpoint: str = column("Name of the endpoint")
    value: float | str | None = column("The final value, n/a where there is none")
    unit: str | None = column("Unit of the value")
    how: str = column("concordant (readers agree), adjudicated, consensus, or missing")
    readers: str | None = column("Readers of the case, separated by commas")
    adjudicator: str | None = column("Who decided, where the readers did not agree")
    reason: str | None = column("Why there is no value, or how it was had")


@dataclass(frozen=True)
class Adjudication:
    """Row of the adjudication table."""

    participant_id: str = column("Subject identifier")
    visit: str = column("Visit name")
    endpoint: str = column("Name of the endpoint")
    state: str = column(
        "needed, adjudicated, consensus, or not_needed (an adjudicator's read of a concordant case)"
    )
    readers: str | None = column("Readers of the case, separated by commas")
    values: str = column("Their values in the same order")
    difference: float | None = column(
        "Largest absolute difference between two readers, unit of the endpoint"
    )
    relative_difference: float | None = column("The same over the mean of the absolute values")
    discordant_by: str | None = column("Which limit of the charter was passed")
    adjudicator: str | None = column(
        "Who adjudicated; consensus for what the readers agreed on together"
    )
    value: float | str | None = column("The adjudicator's value, or that of the consensus")
    agrees_with: str | None = column("Readers whose value is concordant with the adjudicator's")


FINAL_READS, ADJUDICATION = columns_of(FinalRead), columns_of(Adjudication)
#: Values closer than this (relative) are the same number, written with other digits.
SAME_NUMBER = 1e-9


class AdjudicationFault(ValueError):
    """Reads that the charter's rule does not allow; every fault is named in the message."""


class Rule(AdjudicationRule):
    """Adjudication rule of one endpoint, with the meaning of its absent keys.

    ``either_of_two``: the adjudicator chooses one reader's value; ``independent_third`` (default):
    the adjudicator's own value stands; ``consensus``: the readers settle it together, and a row
    with the role ``consensus`` has the result.
    """

    @property
    def needed(self) -> int:
        """Number of readers that a case needs."""
        return self.readers or (3 if self.method == "consensus" else 2)

    @property
    def decider(self) -> str:
        """Role of the row that decides a discordant case."""
        return "consensus" if self.method == "consensus" else "adjudicator"

    def discordance(self, values: Sequence[float | str]) -> str | None:
        """Limit that the values exceed, None if they are concordant.

        Examples
        --------
        >>> rule = Rule(endpoint="infarct_volume", absolute_above=5.0, relative_above=0.2)
        >>> rule.discordance([100.0, 104.0]), rule.discordance([10.0, 14.0])
        (None, 'relative difference 0.333333 above 0.2')
        """
        if self.grades_differ:
            return None if len({_grade(value) for value in values}) == 1 else "grades differ"
        difference, relative = _differences(values)
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
    return float(value) if is_number(value) else str(value)


def is_number(value: Any) -> bool:
    """Whether a cell holds a number.

    Examples
    --------
    >>> is_number("8.5"), is_number("2b"), is_number(None)
    (True, False, False)
    """
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _differences(values: Sequence[float | str]) -> tuple[float, float]:
    """Largest absolute difference, and that over the mean of the absolute values."""
    numbers = [float(value) for value in values]
    difference = max(numbers) - min(numbers)
    size = sum(abs(number) for number in numbers) / len(numbers)
    return difference, (difference / size if size > 0 else 0.0)


@dataclass(frozen=True)
class Reading:
    """One row of the reads sheet, its volume in mL."""

    participant_id: str
    visit: str
    endpoint: str
    reader: str
    role: str
    value: float | str | None
    unit: str | None
    repeat: int = 1


def rules_of(settings: Iterable[AdjudicationRule]) -> dict[str, Rule]:
    """Rules by endpoint from ``reading.adjudication`` of the config.

    Examples
    --------
    >>> rules_of([AdjudicationRule(endpoint="aspects", grades_differ=True)])["aspects"].decider
    'adjudicator'
    """
    rules: dict[str, Rule] = {}
    for entry in settings:
        rule = Rule.model_validate(entry.plain())
        limits = (rule.absolute_above, rule.relative_above)
        if bool(rule.grades_differ) == any(limit is not None for limit in limits):
            raise ValueError(
                f"reading.adjudication, {rule.endpoint}: give absolute_above or relative_above "
                "for a number, or grades_differ for a grade, and not both: without a limit "
                "nothing says which reads are discordant"
            )
        if rule.endpoint in rules:
            raise ValueError(f"reading.adjudication has two rules for {rule.endpoint}: keep one")
        rules[rule.endpoint] = rule
    return rules


def readings_of(sheet: pd.DataFrame | None) -> list[Reading]:
    """Rows of readers and of those who decide, in the endpoint's own unit; others left out."""
    found: list[Reading] = []
    for cells in [] if sheet is None else sheet.to_dict("records"):
        role = cells.get("role") or "reader"
        if role not in {"reader", "adjudicator", "consensus"}:
            continue
        value, unit = cells["value"], cells.get("unit")
        if is_number(value) and float(value) == float(value):
            value, unit = in_own_unit(float(value), unit, cells["endpoint"])
        elif not isinstance(value, str):
            value = None
        found.append(
            Reading(
                participant_id=str(cells["participant_id"]),
                visit=str(cells["visit"]),
                endpoint=str(cells["endpoint"]),
                reader=str(cells["reader"]),
                role=role,
                value=value,
                unit=unit or unit_of(cells["endpoint"]) or None,
                repeat=int(float(cells.get("repeat") or 1)),
            )
        )
    return found


def _counting(sheet: pd.DataFrame | None, rules: Mapping[str, Rule]) -> list[Reading]:
    """The reads that count: who decides does so once, whichever of the readers' repeats counts."""
    wanted = {endpoint: rule.repeat or 1 for endpoint, rule in rules.items()}
    return [
        read
        for read in readings_of(sheet)
        if read.role != "reader" or read.repeat == wanted.get(read.endpoint, 1)
    ]


def _wrong_decisions(where: str, reads: Sequence[Reading], rule: Rule | None) -> list[str]:
    """Deciding rows that the charter's method does not know, and several of one consensus."""
    faults = []
    together = [read for read in reads if read.role == "consensus"]
    if together and (rule is None or rule.decider != "consensus"):
        faults.append(
            f"{where}: a row with the role consensus, but the charter's method is "
            f"{rule.method or 'independent_third' if rule else 'not given'} (reading.adjudication)"
        )
    if len(together) > 1:
        faults.append(f"{where}: {len(together)} rows of consensus; keep the one that counts")
    if rule is not None and rule.decider == "consensus":
        faults += [
            f"{where}: an adjudication by {read.reader}, but the charter's method is consensus: "
            "give what the readers agreed on as one row with the role consensus"
            for read in reads
            if read.role == "adjudicator"
        ]
    return faults


def _faults(
    groups: Mapping[tuple[str, str, str], list[Reading]], rules: Mapping[str, Rule]
) -> list[str]:
    """Faults that no adjudication may have."""
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
        faults += _wrong_decisions(where, reads, rules.get(key[2]))
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


@dataclass(frozen=True)
class _Case:
    """The reads of one case and endpoint, sorted, with what follows from them."""

    key: tuple[str, str, str]
    reads: tuple[Reading, ...]
    rule: Rule | None

    @property
    def read(self) -> list[Reading]:
        """By readers, in the order of their names."""
        return sorted((r for r in self.reads if r.role == "reader"), key=lambda r: r.reader)

    @property
    def valued(self) -> list[Reading]:
        """Those with a value."""
        return [r for r in self.read if r.value is not None]

    @property
    def values(self) -> list[float | str]:
        """Their values."""
        return [r.value for r in self.valued if r.value is not None]

    @property
    def third(self) -> Reading | None:
        """Role that decides."""
        role = self.rule.decider if self.rule else "adjudicator"
        return next((r for r in self.reads if r.role == role), None)

    @property
    def numeric(self) -> bool:
        """Whether the values are numbers and no grades."""
        graded = self.rule is not None and self.rule.grades_differ
        return not graded and all(isinstance(value, float) for value in self.values)

    def final(self, reason: str | None = None) -> FinalRead:
        """Final read before anything is decided."""
        unit = next((r.unit for r in self.reads if r.unit), None)
        readers = ",".join(r.reader for r in self.read) or None
        return FinalRead(*self.key, None, unit, "missing", readers, None, reason)

    def incomplete(self) -> str | None:
        """Reason why the case cannot be judged, None if it can."""
        needed = self.rule.needed if self.rule else 2
        if len(self.read) < needed:
            who = " and ".join(r.reader for r in self.read)
            names = f"only {who} read this case" if self.read else "no reader read this case"
            words = {2: "two", 3: "three"}.get(needed, str(needed))
            return f"{names}; the charter's rule needs {words} readers"
        return None if self.valued else "no reader could give a value"

    def discordant_by(self) -> str | None:
        """Limit that the reads exceed; None if they are concordant."""
        text = [value for value in self.values if not isinstance(value, float)]
        if self.rule is not None and not self.rule.grades_differ and text:
            raise AdjudicationFault(
                f"{' '.join(self.key)}: the value {text[0]!r} is no number, so limits on "
                "differences mean nothing; correct it, or set grades_differ in "
                "reading.adjudication"
            )
        silent = [r.reader for r in self.read if r.value is None]
        if silent:
            return "not evaluable by " + ", ".join(silent)
        if self.rule is None or all(_same(self.values[0], value) for value in self.values[1:]):
            return None
        return self.rule.discordance(self.values)

    def row(self, discordant: str | None) -> Adjudication:
        """Row of the adjudication table before anything is decided."""
        third = self.third
        compared = self.numeric and len(self.values) > 1
        difference, relative = _differences(self.values) if compared else (None, None)
        return Adjudication(
            *self.key,
            state="needed",
            readers=self.final().readers,
            values=",".join("n/a" if r.value is None else f"{r.value}" for r in self.read),
            difference=difference,
            relative_difference=relative,
            discordant_by=discordant,
            adjudicator=third.reader if third else None,
            value=third.value if third else None,
            agrees_with=_agreeing(self.valued, third, self.rule),
        )


def _decided(case: _Case) -> tuple[FinalRead, Adjudication | None]:
    """Final read of one case and endpoint, and its row of the adjudication table."""
    reason = case.incomplete()
    if reason:
        return case.final(reason), None
    discordant = case.discordant_by()
    values, rule, third = case.values, case.rule, case.third
    differ = not all(_same(values[0], value) for value in values[1:])
    if discordant is None and rule is None and differ:
        reason = (
            "the readers differ and the charter has no rule for this endpoint "
            "(reading.adjudication)"
        )
        return case.final(reason), None
    row = case.row(discordant)
    if discordant is None:
        value = math.fsum(map(float, values)) / len(values) if case.numeric else values[0]
        how = "mean of the readers' values" if case.numeric else "the readers' grade"
        final = replace(case.final(how), value=value, how="concordant")
        return final, replace(row, state="not_needed") if third else None
    if third is None:
        way = "a consensus" if rule is not None and rule.decider == "consensus" else "adjudication"
        return case.final(f"needs {way}: {discordant}"), row
    if rule is None:
        raise AdjudicationFault(
            f"{' '.join(case.key)}: adjudicated, but reading.adjudication has no rule for this "
            "endpoint"
        )
    how = "consensus" if rule.decider == "consensus" else "adjudicated"
    row = replace(row, state=how)
    final = replace(case.final(discordant), adjudicator=third.reader)
    if third.value is None:
        who = "by consensus" if how == "consensus" else "by the adjudicator"
        return replace(final, reason=f"not evaluable {who}; {discordant}"), row
    if rule.method == "either_of_two" and not any(_same(third.value, v) for v in values):
        raise AdjudicationFault(
            f"{' '.join(case.key)}: the adjudicator's value {third.value} is neither reader's "
            f"({row.values}); the charter's method is either_of_two"
        )
    return replace(final, value=third.value, how=how), row


def _agreeing(valued: Sequence[Reading], third: Reading | None, rule: Rule | None) -> str | None:
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

    Rows of investigators and software in the reads sheet take no part. An endpoint without a rule
    is concordant only where its readers gave the same value.

    Raises AdjudicationFault naming every case whose adjudicator was its reader, that has two
    adjudications, two reads of one reader, mixed units, a consensus where the charter has none, or
    (``either_of_two``) a value of neither reader.

    Examples
    --------
    >>> sheet = pd.DataFrame({"participant_id": "1", "visit": "a", "endpoint": "aspects",
    ...     "reader": ["r1", "r2", "r3"], "value": ["8", "6", "6"],
    ...     "role": [None, None, "adjudicator"]})
    >>> final, table = adjudicate(sheet, {"aspects": Rule(endpoint="aspects", grades_differ=True)})
    >>> final[["value", "how", "adjudicator"]].values.tolist(), table["agrees_with"].tolist()
    ([[6.0, 'adjudicated', 'r3']], ['r2'])
    """
    groups: dict[tuple[str, str, str], list[Reading]] = {}
    for read in _counting(sheet, rules):
        groups.setdefault((read.participant_id, read.visit, read.endpoint), []).append(read)
    faults = _faults(groups, rules)
    finals: list[FinalRead] = []
    rows: list[Adjudication] = []
    for key, reads in sorted(groups.items()):
        try:
            final, row = _decided(_Case(key, tuple(reads), rules.get(key[2])))
        except AdjudicationFault as fault:
            faults.append(str(fault))
            continue
        finals.append(final)
        rows += [row] if row else []
    if faults:
        raise AdjudicationFault("\n".join(["The reads cannot be adjudicated:", *faults]))
    return rows_frame(finals, FINAL_READS, object), rows_frame(rows, ADJUDICATION, object)
