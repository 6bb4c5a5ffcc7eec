"""A statistic's estimate, and its row in the statistics tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

#: The note of a row without a number begins with it.
NOT_COMPUTABLE = "not_computable"


def join_notes(*notes: str) -> str:
    """Notes that say something, separated by semicolons."""
    return "; ".join(note for note in notes if note)


def column(words: str, **default: Any) -> Any:
    """Field of a row class that is a column of its table, with these words in the dictionary."""
    return field(metadata={"words": words}, **default)


def columns_of(row: type) -> dict[str, str]:
    """Columns of the table that a row class stands for, with their words."""
    return {one.name: one.metadata["words"] for one in fields(row) if "words" in one.metadata}


def _column(words: str, default: Any = math.nan) -> Any:
    return column(words, default=default)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticRow:
    """A row of ``statistics/*.tsv``: the fields with words are its columns, in their order.

    What an analysis gives; :func:`corelab.measurement.selection.statistics_frame` writes it. An
    empty ``analysis_id``, ``population`` or ``endpoint`` is that of the analysis.

    Attributes
    ----------
    above_null
        No column: whether the effect is above its null value, where the estimate is no effect (a
        log-rank test) and its p value may be turned one-sided; None where it may not.

    Examples
    --------
    >>> StatisticRow("bias", estimate=1.5, n=3).group
    'all'
    """

    analysis_id: str = _column("Identifier of the analysis in the plan", "")
    population: str = _column("Population expression, 'all' for everybody", "")
    endpoint: str = _column("Imaging endpoint", "")
    visit: str = _column("Visit, 'all' where visits are pooled or do not apply", "all")
    participant_id: str = _column("Subject for a per-subject row, else 'all'", "all")
    group: str = _column("Pair, level or term that the statistic is about", "all")
    statistic: str = field(kw_only=False, metadata={"words": "Name of the statistic"})
    estimate: float = _column("Estimate at full precision")
    ci_low: float = _column("Lower confidence limit")
    ci_high: float = _column("Upper confidence limit")
    ci_level: float = _column("Confidence level of the interval")
    p_value: float = _column("Two-sided p value unless the note says otherwise")
    n: float = _column("Number of subjects (or targets) behind the estimate")
    method: str = _column("Definition: estimator, interval method, variant", "")
    second_estimate: float = _column("The same statistic by an independent library")
    second_method: str = _column("That library and function", "")
    note: str = _column("Reason where the statistic is not_computable, and warnings", "")
    n_clusters: float = _column(
        "Number of clusters (participants, key cluster) among the n targets"
    )
    above_null: bool | None = None

    @classmethod
    def of(cls, row: StatisticRow | Mapping[str, Any]) -> StatisticRow:
        """A row of an analysis type of another package, which may be a plain mapping.

        ValueError if it has a column that the tables do not have, or names no statistic.
        """
        if isinstance(row, StatisticRow):
            return row
        known = [one.name for one in fields(cls)]
        if unknown := sorted(set(row) - set(known)):
            raise ValueError(
                f"a statistics row has unknown columns {', '.join(unknown)}; "
                f"the columns are {', '.join(COLUMNS)}"
            )
        if "statistic" not in row:
            raise ValueError(f"a statistics row names no statistic; it has {', '.join(row)}")
        return cls(**row)

    def cells(self) -> list[Any]:
        """Values of the columns, in their order."""
        return [getattr(self, name) for name in COLUMNS]

    def within(self, *words: str, **columns: Any) -> StatisticRow:
        """The row with columns that it does not have itself, and words before its note.

        A row without a number keeps its note, which is the reason.

        Examples
        --------
        >>> row = StatisticRow("bias", group="a|b", note="few").within("odd", group="c", n=3)
        >>> row.group, row.n, row.note
        ('a|b', 3, 'odd; few')
        """
        own = {name: value for name, value in columns.items() if self._is_default(name)}
        if not self.note.startswith(NOT_COMPUTABLE):
            own["note"] = join_notes(*words, own.get("note", self.note))
        return replace(self, **own)

    def noted(self, *words: str) -> StatisticRow:
        """The row with words after its note."""
        return replace(self, note=join_notes(self.note, *words))

    def _is_default(self, name: str) -> bool:
        value, default = getattr(self, name), _DEFAULTS[name]
        return bool(value == default or (value != value and default != default))


#: Columns of the statistics tables with their words, in the order of the files.
COLUMNS = columns_of(StatisticRow)
_DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(StatisticRow)}
#: Those that are numbers.
NUMBERS = tuple(
    one.name for one in fields(StatisticRow) if one.name in COLUMNS and one.type == "float"
)


def not_computable(statistic: str, reason: str, **columns: Any) -> StatisticRow:
    """A row that says why there is no number.

    Examples
    --------
    >>> not_computable("icc_a_1", "single reader").note
    'not_computable: single reader'
    """
    return StatisticRow(statistic, note=f"{NOT_COMPUTABLE}: {reason}", **columns)


@dataclass(frozen=True)
class Second:
    """A statistic by an independent library; NaN without one, and why in ``method``."""

    estimate: float = math.nan
    method: str = ""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its interval and its definition.

    Attributes
    ----------
    estimate, ci_low, ci_high
        In the unit of the statistic; limits are NaN where ``note`` says why.
    p_value
        Two-sided unless ``method`` says otherwise; NaN where no test is defined.
    n
        Targets or participants behind the estimate; 0 where the caller knows them.
    method
        Estimator and interval method.
    note
        Warnings for people.
    se
        Standard error that the interval rests on: of the estimate, or of the logarithm of a ratio.
    df
        Degrees of freedom of that error; infinite for a normal interval.
    """

    estimate: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    p_value: float = math.nan
    n: int = 0
    method: str = ""
    note: str = ""
    se: float = math.nan
    df: float = math.nan

    def times(self, factor: float, method: str | None = None) -> Estimate:
        """The same statistic in another unit (``factor`` above 0)."""
        return replace(
            self,
            estimate=factor * self.estimate,
            ci_low=factor * self.ci_low,
            ci_high=factor * self.ci_high,
            se=factor * self.se,
            method=self.method if method is None else method,
        )

    def row(self, statistic: str, second: Second = Second(), /, **columns: Any) -> StatisticRow:
        """The row of the estimate and its second computation; ``columns`` stand above its own."""
        own = {
            "estimate": self.estimate,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "p_value": self.p_value,
            "n": self.n or math.nan,
            "method": self.method,
            "note": self.note,
            "second_estimate": second.estimate,
            "second_method": second.method,
        }
        return StatisticRow(statistic, **{**own, **columns})
