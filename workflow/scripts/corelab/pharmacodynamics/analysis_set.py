"""The rows that one analysis is about: endpoint joined with arm, dose, exposure and outcome.

One value per participant and visit, complete cases, nothing imputed and nothing averaged: a
participant without one of the values is left out and counted in the note of the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from corelab.measurement.selection import (
    ZERO_WORDS,
    NotComputable,
    Tables,
    as_list,
    one_value,
    population,
    uses_ranks,
    visits_of,
    zeros_rule,
)
from corelab.pharmacodynamics.estimates import contrast_of
from corelab.settings.analyses.base import AnalysisSpec, Level
from corelab.study.cells import (
    CAPPED_COLUMNS,
    LABEL_COLUMNS,
    is_missing,
    is_numeric,
    numbers,
    odd_cells,
)
from corelab.terms.results import StatisticRow, join_notes, not_computable

Spec = TypeVar("Spec", bound=AnalysisSpec)

#: Arms that are taken as the reference when the plan names none.
USUAL_REFERENCES = ("placebo", "control", "standard", "vehicle", "0")


@dataclass(frozen=True)
class Design:
    """Design matrix (n, p), and its columns by name: ``Intercept``, ``arm=high``, ``age`` ..."""

    matrix: np.ndarray
    terms: tuple[str, ...]

    def index(self, term: str) -> int:
        """Position of a term."""
        return self.terms.index(term)

    def slopes(self) -> Design:
        """The design without its intercept."""
        return Design(self.matrix[:, 1:], self.terms[1:])


def typed(series: pd.Series, *, categorical: bool = False) -> pd.Series:
    """Float64 where every value present is a number, otherwise text; missing stays missing.

    Codes such as 01 are text, and so are the levels none and NA (:mod:`corelab.study.cells`).

    Raises
    ------
    NotComputable
        If most of the values are numbers and one is not.

    Examples
    --------
    >>> typed(pd.Series(["1", "2.5", "n/a"])).tolist()
    [1.0, 2.5, nan]
    """
    capped = series.name in CAPPED_COLUMNS
    text = series.astype(object).map(lambda value: None if is_missing(value) else value)
    if not categorical:
        if is_numeric(text, capped=capped) or not text.notna().any():
            return numbers(text, capped=capped)
        odd = odd_cells(text, capped=capped)
        if len(odd):
            raise NotComputable(
                f"the column {series.name} holds numbers and {odd.iloc[0]!r}; correct the cell, "
                f"write n/a, or list {series.name} under categorical if its values are labels"
            )
    return text.map(lambda value: None if value is None else _level(value)).astype(object)


def _level(value: Any) -> str:
    """Text of a level; 1.0 read from a sheet is level '1'."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def participant_columns(
    analysis: AnalysisSpec, tables: Tables, names: Sequence[str]
) -> pd.DataFrame:
    """Columns of the participants sheet for the analysis population, indexed by participant.

    Raises
    ------
    NotComputable
        If the sheet lacks a column.
    """
    people = population(analysis, tables).set_index("participant_id")
    absent = [name for name in names if name not in people.columns]
    if absent:
        raise NotComputable(
            f"the participants sheet has no column {', '.join(absent)}; "
            f"it has {', '.join(map(str, people.columns)) or 'none'}"
        )
    labels = LABEL_COLUMNS | set(analysis.categorical)
    return pd.DataFrame(
        {name: typed(people[name], categorical=name in labels) for name in names},
        index=people.index,
    )


def endpoint_by_visit(
    analysis: AnalysisSpec, tables: Tables, endpoint: str
) -> list[tuple[str, pd.DataFrame]]:
    """Values of an endpoint, one frame per visit in study order.

    Returns
    -------
    list of (visit, DataFrame)
        Frames indexed by participant_id with ``value`` and, with a derivation, ``baseline``;
        ``attrs["said"]`` tells of values of 0 on a ratio scale and of imputed non-responders, and
        ``attrs["ranks"]`` is true where only the order of the values has a meaning.

    Raises
    ------
    NotComputable
        If no participant of the population has a value at a planned visit.
    """
    rows = one_value(analysis, tables, endpoint=endpoint)
    visits = visits_of(analysis, tables, rows)
    if not visits:
        planned = ", ".join(map(str, as_list(analysis.visit))) or "any visit"
        raise NotComputable(
            f"no participant of the population has {endpoint} ({analysis.derivation}) at {planned}"
        )
    found = []
    for visit in visits:
        frame = rows[rows["visit"] == visit].drop(columns="visit").set_index("participant_id")
        found.append((visit, _settled(analysis, frame)))
    return found


def _settled(analysis: AnalysisSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """One visit with its values of 0 on a ratio scale treated, and its imputed values counted."""
    said, ranks = "", False
    rule, offset = zeros_rule(analysis)
    if "zero" in frame.columns:
        zero = frame["zero"].to_numpy(bool)
        frame = frame.drop(columns="zero")
        if rule == "offset":
            said = f"{offset:g} added to every value before the ratio"
        if zero.any():
            said, ranks = zeros_words(analysis, int(zero.sum()), len(frame)), True
            frame = frame.assign(
                value=_in_order(frame["value"]), baseline=_in_order(frame["baseline"])
            )
    if "imputed" in frame.columns:
        number = int(frame["imputed"].sum())
        frame = frame.drop(columns="imputed")
        said = f"{number} of {len(frame)} participants imputed as non-responders" * (number > 0)
    frame.attrs.update(said=said, ranks=ranks)
    return frame


def zeros_words(analysis: AnalysisSpec, zeros: int, total: int) -> str:
    """What is done with values of 0 where the scale has none.

    Raises
    ------
    NotComputable
        If the rule is ``refuse``, or ``rank`` and the method needs more than the order.
    """
    rule, offset = zeros_rule(analysis)
    counted = (
        f"{zeros} of {total} participants {ZERO_WORDS}"
        + (" or below" if rule == "offset" else "")
        + f" (baseline or follow-up{f', with the offset {offset:g}' if rule == 'offset' else ''}), "
        "which has no ratio and no logarithm"
    )
    if rule == "rank" and uses_ranks(analysis):
        return f"{counted}; compared by ranks (zeros: rank)"
    how = "name zeros: rank, zeros: {offset: ...}, derivation: change or scale: cube_root"
    if rule == "rank":
        how = "this method needs more than ranks; name zeros: {offset: ...} or derivation: change"
    raise NotComputable(f"{counted}; {how}")


def _in_order(values: pd.Series) -> pd.Series:
    """Infinite values just beyond the finite ones, so that ranks are right."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return values.replace({-np.inf: low - 1.0, np.inf: high + 1.0})


def sheet_values(
    analysis: AnalysisSpec, tables: Tables, kind: str, name: str, visit: str | None = None
) -> tuple[pd.Series, str]:
    """Clinical outcome or drug exposure (``kind``) per participant, and the visit it is of.

    The visit is that of the plan (``outcome_visit``, ``exposure_visit``), else ``visit`` if it was
    taken there, else the last visit at which it was; ``all`` where the sheet has no visits.

    Raises
    ------
    NotComputable
        If nobody has the value (at the planned visit).
    """
    sheet, planned = getattr(tables, f"{kind}s"), getattr(analysis, f"{kind}_visit")
    rows = sheet[sheet[kind] == name]
    rows = rows[pd.to_numeric(rows["value"], errors="coerce").notna()]
    if rows.empty:
        known = ", ".join(sorted(set(map(str, sheet[kind])))) or "none"
        raise NotComputable(f"no value of {kind} {name}; the {kind}s sheet has {known}")
    if "visit" not in rows.columns:
        rows = rows.assign(visit="all")
    visits = rows["visit"].astype(object).where(rows["visit"].notna(), "all").map(str)
    there = set(visits)
    if planned is not None:
        if planned not in there:
            raise NotComputable(
                f"no value of {kind} {name} at {planned}; there is one at "
                + ", ".join(sorted(there))
            )
        chosen = planned
    elif visit in there:
        chosen = str(visit)
    else:
        ranked = [v for v in tables.visit_order if v in there] or sorted(there)
        chosen = ranked[-1]
    rows = rows[visits == chosen]
    doubled = rows["participant_id"][rows["participant_id"].duplicated()]
    if len(doubled):
        raise ValueError(
            f"two values of {kind} {name} at {chosen} for participant {doubled.iloc[0]}: "
            "duplicates are never averaged; remove one or give it a visit of its own"
        )
    return rows.set_index("participant_id")["value"].astype(float), chosen


def baseline_values(analysis: AnalysisSpec, tables: Tables, endpoint: str) -> pd.Series:
    """Value of the endpoint at the baseline visit, per participant."""
    baseline = analysis.baseline or tables.baseline
    if baseline is None:
        raise NotComputable("covariate baseline needs a baseline visit (visits.baseline)")
    at = analysis.changed(visit=baseline, derivation="value")
    rows = one_value(at, tables, endpoint=endpoint)
    if rows.empty:
        raise NotComputable(f"no value of {endpoint} at the baseline visit {baseline}")
    return rows.set_index("participant_id")["value"]


def with_covariates(
    frame: pd.DataFrame,
    analysis: AnalysisSpec,
    tables: Tables,
    *,
    endpoint: str | None,
    names: Sequence[str],
) -> pd.DataFrame:
    """Add columns of the participants sheet; ``baseline`` is the endpoint's baseline value."""
    people = [name for name in names if name != "baseline"]
    joined = frame.join(participant_columns(analysis, tables, people), how="inner")
    if "baseline" in names and "baseline" not in joined.columns:
        if endpoint is None:
            raise NotComputable("covariate baseline needs an imaging endpoint")
        joined["baseline"] = baseline_values(analysis, tables, endpoint).reindex(joined.index)
    return joined


def complete_cases(
    frame: pd.DataFrame, columns: Sequence[str], analysis: AnalysisSpec, tables: Tables
) -> tuple[pd.DataFrame, str]:
    """Rows with all columns, and a note that counts who of the population is not among them."""
    chosen = frame.dropna(subset=list(columns)).sort_index()
    total = len(population(analysis, tables))
    note = "" if len(chosen) == total else f"complete cases: {len(chosen)} of {total} participants"
    return chosen, note


def levels_of(
    column: pd.Series, by: str, reference: Any = None
) -> tuple[str, tuple[str, ...], str]:
    """Reference level, the other levels, and a note where the plan named no reference.

    Raises
    ------
    NotComputable
        If there are fewer than two levels or the reference is not among them.

    Examples
    --------
    >>> levels_of(pd.Series(["low", "placebo", "high"]), "arm")
    ('placebo', ('high', 'low'), 'reference placebo taken by name')
    """
    present = sorted(set(map(str, column.dropna())))
    if len(present) < 2:
        raise NotComputable(
            f"{by} has {len(present)} level{'s' if len(present) != 1 else ''} among participants "
            f"with a value ({', '.join(present) or 'none'}); a comparison needs two"
        )
    note = ""
    if reference is not None:
        chosen = _level(reference)
        if chosen not in present:
            raise NotComputable(
                f"reference {by}={chosen} has no participant with a value; levels: "
                + ", ".join(present)
            )
    else:
        usual = [level for level in present if level.lower() in USUAL_REFERENCES]
        chosen = usual[0] if usual else present[0]
        note = f"reference {chosen} taken {'by name' if usual else 'as the first in order'}"
    return chosen, tuple(level for level in present if level != chosen), note


def in_order(
    levels: Iterable[str], reference: Any = None, doses: Mapping[str, float] | None = None
) -> list[str]:
    """Levels in the order of figures and tables: the reference, then by dose, number or name.

    Without ``reference`` it is a usual one (placebo, control ...); ``doses`` has that of each
    level.

    Examples
    --------
    >>> in_order(["high", "placebo", "low"], doses={"placebo": 0, "low": 10, "high": 20})
    ['placebo', 'low', 'high']
    >>> in_order(["10", "9", "0"]), in_order(["a", "b"], reference="b")
    (['0', '9', '10'], ['b', 'a'])
    """
    present = sorted(set(map(str, levels)))
    first = {_level(reference)} if reference is not None else set(USUAL_REFERENCES)

    def rank(level: str) -> tuple[bool, float, float, str]:
        number = float(level) if re.fullmatch(r"-?\d+(\.\d+)?", level) else np.inf
        named = level in first or (reference is None and level.lower() in first)
        return not named, (doses or {}).get(level, np.inf), number, level

    return sorted(present, key=rank)


def design(
    frame: pd.DataFrame,
    *,
    by: str | None = None,
    reference: str | None = None,
    covariates: Sequence[str] = (),
    reference_levels: Mapping[str, Level] | None = None,
) -> Design:
    """Treatment-coded design matrix of complete rows.

    The reference level of a factor among the covariates is that of ``reference_levels``, else the
    first in order.

    Raises
    ------
    NotComputable
        If the columns are linearly dependent or there are too few participants.

    Examples
    --------
    >>> frame = pd.DataFrame({"arm": ["p", "h", "p", "h"], "age": [1.0, 2.0, 3.0, 5.0]})
    >>> design(frame, by="arm", reference="p", covariates=["age"]).terms
    ('Intercept', 'arm=h', 'age')
    """
    columns: list[np.ndarray] = [np.ones(len(frame))]
    terms = ["Intercept"]
    if by is not None:
        labels = frame[by].map(str)
        _, others, _ = levels_of(labels, by, reference)
        for level in others:
            columns.append((labels == level).to_numpy(float))
            terms.append(f"{by}={level}")
    for name in covariates:
        for term, column in coded(frame[name], (reference_levels or {}).get(name)):
            columns.append(column)
            terms.append(term)
    matrix = np.column_stack(columns)
    require_full_rank(matrix, terms)
    return Design(matrix, tuple(terms))


def coded(column: pd.Series, first: Level | None = None) -> list[tuple[str, np.ndarray]]:
    """Terms of a covariate with their (n,) columns, missing as nan: a number as it is, of labels an
    indicator of each level but the ``first``, by default in order.

    Examples
    --------
    >>> [(term, part.tolist()) for term, part in coded(pd.Series(["f", "m"], name="sex"))]
    [('sex=m', [0.0, 1.0])]
    """
    name = str(column.name)
    if column.dtype != object:
        return [(name, column.to_numpy(float))]
    known = column.notna()
    present = sorted(set(column[known]))
    reference = _level(first) if first is not None else next(iter(present), "")
    if present and reference not in present:
        raise NotComputable(
            f"reference level {reference} of {name} has no participant; levels: "
            + ", ".join(present)
        )
    return [
        (f"{name}={level}", (column == level).where(known).to_numpy(float))
        for level in present
        if level != reference
    ]


def require_full_rank(matrix: np.ndarray, terms: Sequence[str]) -> None:
    """Raise :class:`NotComputable` where a term is a combination of those before it."""
    n, p = matrix.shape
    if n <= p:
        raise NotComputable(f"{n} participants with all values for {p} terms ({', '.join(terms)})")
    norms = np.linalg.norm(matrix, axis=0)
    if np.any(norms == 0):
        bad = terms[int(np.argmin(norms))]
        raise NotComputable(f"term {bad} is zero for all participants")
    scaled = matrix / norms
    if np.linalg.matrix_rank(scaled, tol=1e-10) < p:
        for last in range(1, p + 1):
            if np.linalg.matrix_rank(scaled[:, :last], tol=1e-10) < last:
                raise NotComputable(
                    f"term {terms[last - 1]} is determined by {', '.join(terms[: last - 1])}; "
                    "remove one of them from the covariates"
                )


def endpoints_of(analysis: AnalysisSpec) -> list[str]:
    """Endpoints of an analysis as a list."""
    return as_list(analysis.endpoint)


def with_labels(analysis: Spec, *names: str | None) -> Spec:
    """The analysis with the values of further columns taken as labels."""
    return analysis.changed(categorical=[*analysis.categorical, *filter(None, names)])


def adjusted_words(names: Sequence[str]) -> str:
    """Words of a method for the covariates that a model has."""
    return f"; covariates {', '.join(names)}" if names else ""


def each_visit(
    analysis: AnalysisSpec,
    tables: Tables,
    endpoint: str,
    kernel: Callable[[str, pd.DataFrame], Iterable[StatisticRow]],
    statistic: str,
    **columns: Any,
) -> Iterator[StatisticRow]:
    """Rows of a kernel at each visit of an endpoint, whose frame it is given.

    ``statistic`` and ``columns`` are those of the row where a visit, or every visit, is not
    computable.
    """
    try:
        by_visit = endpoint_by_visit(analysis, tables, endpoint)
    except NotComputable as reason:
        yield not_computable(statistic, str(reason), endpoint=endpoint, **columns)
        return
    for visit, frame in by_visit:
        place = {"endpoint": endpoint, "visit": visit}
        try:
            for row in kernel(visit, frame):
                yield row.within(**place)
        except NotComputable as reason:
            yield not_computable(statistic, str(reason), **place, **columns)


def strata_of(analysis: AnalysisSpec, tables: Tables, frame: pd.DataFrame) -> pd.Series | None:
    """Combination of the levels of the key ``strata`` per participant; None without it."""
    names = list(analysis.strata)
    if not names:
        return None
    levels = participant_columns(with_labels(analysis, *names), tables, names)
    levels = levels.reindex(frame.index)
    return levels.astype(str).agg(", ".join, axis=1).where(levels.notna().all(axis=1))


@dataclass(frozen=True)
class Levels:
    """Rows of participants by the levels of the column ``by`` (empty: one group of all)."""

    frame: pd.DataFrame
    by: str = ""
    reference: str = ""
    others: tuple[str, ...] = ()

    @property
    def labels(self) -> pd.Series:
        """Level of each row."""
        return self.frame[self.by].map(str) if self.by else pd.Series("all", self.frame.index)

    def group(self, level: str) -> str:
        """Group of a statistics row on a level against the reference."""
        return contrast_of(self.by, level, self.reference)

    def size(self, *levels: str) -> int:
        """Rows of some levels."""
        return int(self.labels.isin(levels).sum())


@dataclass(frozen=True)
class Arms(Levels):
    """Complete cases of the arms of an analysis, one row per participant with ``value``.

    ``names`` are the covariates; ``said`` and ``left_out`` tell how the reference was chosen, and
    who is left out.
    """

    names: Sequence[str] = ()
    said: str = ""
    left_out: str = ""

    @property
    def note(self) -> str:
        """Both notes."""
        return join_notes(self.said, self.left_out)

    def values(self, level: str) -> np.ndarray:
        """Values of one level."""
        return self.frame.loc[self.labels == level, "value"].to_numpy(float)

    def part(self, level: str, among: pd.Series | None = None) -> tuple[pd.DataFrame, pd.Series]:
        """Rows of a level and the reference (``among`` some), and which are of the level."""
        labels = self.labels
        inside = labels.isin([level, self.reference])
        inside = inside if among is None else inside & among
        return self.frame[inside], labels[inside] == level

    def few(self, level: str) -> str:
        """Warning where the level or the reference has fewer than five participants."""
        sizes = {name: self.size(name) for name in (level, self.reference)}
        smallest = min(sizes, key=lambda name: sizes[name])
        if sizes[smallest] >= 5:
            return ""
        return f"only {sizes[smallest]} participants in {self.by}={smallest}"

    def design(self) -> Design:
        """Design of arms and covariates."""
        return design(self.frame, by=self.by, reference=self.reference, covariates=self.names)


def arms_of(
    analysis: AnalysisSpec,
    tables: Tables,
    endpoint: str | None,
    frame: pd.DataFrame,
    names: Sequence[str],
) -> Arms:
    """Complete cases of a frame with the column of the arms and covariates.

    Raises
    ------
    NotComputable
        If a column is missing or fewer than two arms have participants.
    """
    by = analysis.arms
    labelled = with_labels(analysis, by)
    frame = with_covariates(frame, labelled, tables, endpoint=endpoint, names=[by, *names])
    frame, note = complete_cases(frame, ["value", by, *names], analysis, tables)
    reference, others, said = levels_of(frame[by], by, analysis.reference)
    return Arms(frame, by, reference, others, names, said, note)
