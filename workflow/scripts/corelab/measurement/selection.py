"""Data of an analysis: measurement rows joined to population, visits and sources.

Every statistic in ``agreement`` and ``pharmacodynamics`` starts here, so that populations,
derivations and missing values mean the same thing in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from corelab.settings.acquisition import PhantomQaSettings
from corelab.settings.analyses.base import AnalysisSpec, Offset
from corelab.study.columns import STATISTICS
from corelab.study.expression import decide, flag_name, names_in, select, undecided
from corelab.terms.results import StatisticRow
from corelab.terms.statistics import registered


class NotComputable(ValueError):
    """A statistic that these data cannot give; the message is the reason shown to people."""


def _empty(*columns: str) -> pd.DataFrame:
    return pd.DataFrame({column: pd.Series(dtype=object) for column in columns})


@dataclass(frozen=True)
class Tables:
    """The tables that an analysis may use; absent ones are empty frames.

    ``measurements`` and ``overlap`` are the endpoint tables, ``value`` float64, everything else
    text; the sheets have numeric columns as float64 (``dose``, ``value``, ``time_days``,
    ``event``). ``default_sources`` are those that an analysis without one uses, the first that has
    values; ``grades`` is endpoint -> its grades in words, lowest first: values are places on that
    list, from 0; ``radiomics`` the feature table; ``dose_unit`` empty where the study names none;
    ``phantoms`` the measured inserts (``endpoints/phantoms.tsv``, else the sheet), ``phantom_qa``
    their limits.
    """

    measurements: pd.DataFrame
    participants: pd.DataFrame
    overlap: pd.DataFrame = field(default_factory=lambda: _empty("participant_id"))
    outcomes: pd.DataFrame = field(
        default_factory=lambda: _empty("participant_id", "visit", "outcome", "value")
    )
    exposures: pd.DataFrame = field(
        default_factory=lambda: _empty("participant_id", "visit", "exposure", "value")
    )
    events: pd.DataFrame = field(
        default_factory=lambda: _empty("participant_id", "endpoint", "time_days", "event")
    )
    phantoms: pd.DataFrame = field(default_factory=lambda: _empty("site"))
    reads: pd.DataFrame = field(default_factory=lambda: _empty("participant_id", "reader"))
    radiomics: pd.DataFrame = field(default_factory=lambda: _empty("participant_id"))
    phantom_qa: PhantomQaSettings = field(default_factory=PhantomQaSettings)
    visit_order: tuple[str, ...] = ()
    baseline: str | None = None
    default_sources: tuple[str, ...] = ("pipeline", "supplied")
    grades: Mapping[str, Sequence[str]] = field(default_factory=dict)
    dose_unit: str = ""


def as_list(value: Any) -> list[Any]:
    """None -> [], a scalar -> [scalar], a sequence -> list.

    Examples
    --------
    >>> as_list(None), as_list("a"), as_list(["a", "b"])
    ([], ['a'], ['a', 'b'])
    """
    if value is None:
        return []
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
        return [value]
    return list(value)


#: Derivations that divide by the baseline: a value of 0 has no place on their scale.
RATIOS = frozenset({"percent_change", "log_ratio"})
#: In every note that counts values of 0; the report looks for it.
ZERO_WORDS = "have a value of 0"


def cube_root(values: pd.Series) -> pd.Series:
    """Cube roots, rounded from extended precision: `np.cbrt` depends on the processor.

    Examples
    --------
    >>> cube_root(pd.Series([27.0, -8.0, 0.0])).tolist()
    [3.0, -2.0, 0.0]
    """
    roots = np.cbrt(values.to_numpy(np.longdouble)).astype(float)
    return pd.Series(roots, values.index, name=values.name)


def zeros_rule(analysis: AnalysisSpec) -> tuple[str, float]:
    """Handling of values of 0 on a ratio scale: the rule and the offset.

    ``refuse`` (no estimate), ``rank`` (a vanished lesion is the lowest, one that appeared the
    highest, both by rank) or ``offset`` (added to every value). The default is ``refuse`` for a
    primary analysis, so that nothing but the planned estimate is primary, and ``rank`` elsewhere.

    Examples
    --------
    >>> from corelab.settings.analyses.base import OneValue
    >>> plan = OneValue(id="a", type="", endpoint="v")
    >>> zeros_rule(plan), zeros_rule(plan.changed(zeros="offset: 0.5"))
    (('rank', 0.0), ('offset', 0.5))
    """
    given = analysis.zeros
    if given is None:
        return ("refuse" if analysis.objective == "primary" else "rank"), 0.0
    if isinstance(given, Offset):
        return "offset", float(given.offset)
    rule, _, number = str(given).partition(":")
    return (rule, float(number)) if number else (rule, 0.0)


def uses_ranks(analysis: AnalysisSpec) -> bool:
    """Whether every method of an analysis needs the order of the values only, or can be so.

    Examples
    --------
    >>> uses_ranks(AnalysisSpec(id="a", type="comparison"))
    True
    >>> uses_ranks(AnalysisSpec(id="a", type="quantile"))
    False
    """
    kind = analysis.type
    if kind == "dose_response":
        return set(as_list(analysis.models)) == {"trend"}
    if kind == "correlation":
        methods = set(as_list(analysis.method))
        return bool(methods) and methods <= {"spearman", "kendall"}
    return kind in {"comparison", "diagnostic"}


def with_status_flags(
    participants: pd.DataFrame, measurements: pd.DataFrame, expressions: Sequence[str | None]
) -> pd.DataFrame:
    """Participants with the imaging status that expressions use.

    ``has_<endpoint>_<visit>`` is true where any source gave a value; ``<endpoint>_<visit>`` is the
    value: the pipeline's, else the supplied one, else that of the only source (missing where
    several sources differ). Columns of the sheet go before them.

    Parameters
    ----------
    participants
        One row per participant.
    measurements
        Columns of measurements.tsv.
    expressions
        Populations and criteria that will be evaluated.

    Examples
    --------
    >>> people = pd.DataFrame({"participant_id": ["1", "2"]})
    >>> rows = pd.DataFrame({"participant_id": ["1"], "visit": ["day1"], "endpoint": ["tici"],
    ...     "source": ["r1"], "repeat": 1, "region": "all", "status": ["ok"], "value": [3.0]})
    >>> flagged = with_status_flags(people, rows, ["tici_day1 >= 3"])
    >>> select("tici_day1 >= 3", flagged).tolist()
    [True, False]
    """
    wanted = set().union(*(names_in(e) for e in expressions)) - set(participants.columns)
    if not wanted or measurements.empty:
        return participants
    rows = measurements[(measurements["status"] == "ok") & (measurements["region"] == "all")]
    added: dict[str, pd.Series] = {}
    ids = participants["participant_id"]
    for (endpoint, visit), part in rows.groupby(["endpoint", "visit"], sort=True):
        name = flag_name(str(endpoint), str(visit))
        if not {name, f"has_{name}"} & wanted:
            continue
        first = part.sort_values("repeat").drop_duplicates(["participant_id", "source"])
        wide = first.set_index(["participant_id", "source"])["value"].unstack("source")  # noqa: PD010
        same = wide.max(axis=1).where(wide.max(axis=1) == wide.min(axis=1))
        for source in ("supplied", "pipeline"):
            if source in wide:
                same = wide[source].combine_first(same)
        added[name] = ids.map(same.astype(float))
        added[f"has_{name}"] = ids.isin(set(part["participant_id"]))
    return participants.assign(**{name: added[name] for name in sorted(wanted & set(added))})


def population(analysis: AnalysisSpec, tables: Tables) -> pd.DataFrame:
    """Participants of the analysis: rows of the participants sheet that satisfy ``population``.

    Examples
    --------
    >>> people = pd.DataFrame({"participant_id": ["1", "2"], "arm": ["a", "b"]})
    >>> tables = Tables(pd.DataFrame(), people)
    >>> plan = AnalysisSpec(id="a", type="", population='arm == "b"')
    >>> population(plan, tables)["participant_id"].tolist()
    ['2']
    """
    chosen = select(analysis.population, tables.participants)
    return tables.participants[chosen].reset_index(drop=True)


def undecided_words(analysis: AnalysisSpec, tables: Tables) -> str:
    """Number of participants that the population excludes because a value is missing.

    Examples
    --------
    >>> people = pd.DataFrame({"participant_id": ["1", "2"], "mrs": [1.0, None]})
    >>> plan = AnalysisSpec(id="a", type="", population="not mrs > 2")
    >>> undecided_words(plan, Tables(pd.DataFrame(), people))
    'population: 1 of 2 participants left out, for whom "not mrs > 2" has a missing value'
    """
    expression = analysis.population
    number = undecided(expression, tables.participants)
    if not number:
        return ""
    return (
        f"population: {number} of {len(tables.participants)} participants left out, for whom "
        f'"{expression}" has a missing value'
    )


def measured(
    analysis: AnalysisSpec,
    tables: Tables,
    *,
    endpoint: str,
    sources: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Rows with a value (status ``ok``) of one endpoint in the analysis population.

    Parameters
    ----------
    analysis, tables
        The planned analysis and what it may use.
    endpoint
        Name of the endpoint.
    sources
        Keep these sources only; None keeps all.

    Returns
    -------
    pandas.DataFrame
        participant_id, visit, endpoint, source, repeat (int), region, value; one row per key.
        ``region`` is ``analysis.region``, default ``all``. Visits are restricted to
        ``analysis.visit`` unless the analysis has a ``derivation`` (that reads the baseline
        too).
    """
    rows = tables.measurements
    region = analysis.region
    keep = (
        (rows["endpoint"] == endpoint)
        & (rows["status"] == "ok")
        & (rows["region"] == region)
        & rows["participant_id"].isin(population(analysis, tables)["participant_id"])
    )
    if sources is not None:
        keep &= rows["source"].isin(list(sources))
    visits = as_list(analysis.visit)
    if visits and analysis.derivation == "value":
        keep &= rows["visit"].isin(visits)
    columns = ["participant_id", "visit", "endpoint", "source", "repeat", "region", "value"]
    found = rows.loc[keep, columns].copy()
    found["value"] = found["value"].astype(float)
    found["repeat"] = pd.to_numeric(found["repeat"]).astype(int)
    found = found[np.isfinite(found["value"])]
    doubled = found.duplicated([c for c in columns if c != "value"], keep=False)
    if doubled.any():
        first = found[doubled].iloc[0]
        raise ValueError(
            "measurements hold two values for one key: "
            f"{first['participant_id']} {first['visit']} {endpoint} {first['source']} "
            f"repeat {first['repeat']}; duplicates are never averaged"
        )
    return found.sort_values(columns[:-1]).reset_index(drop=True)


def source_of(analysis: AnalysisSpec, tables: Tables, endpoint: str) -> str:
    """The source an analysis of one endpoint uses: as planned, else the study's default.

    By default final reads come first where reads are adjudicated, then the pipeline, then supplied
    masks.

    Raises NotComputable if the measurements have the endpoint from none of them.
    """
    rows = tables.measurements
    there = sorted(
        rows.loc[(rows["endpoint"] == endpoint) & (rows["status"] == "ok"), "source"].unique()
    )
    planned = analysis.source
    candidates = [planned] if planned else list(tables.default_sources)
    for candidate in candidates:
        if candidate in there:
            return str(candidate)
    if not planned and len(there) == 1:
        return str(there[0])
    raise NotComputable(
        f"no value of {endpoint} from {' or '.join(map(str, candidates))}"
        + (f"; there are values from {', '.join(there)}" if there else "")
    )


def one_value(analysis: AnalysisSpec, tables: Tables, *, endpoint: str) -> pd.DataFrame:
    """One value per participant and visit: the first repeat of the analysis' source, derived.

    Columns participant_id, visit, value and, with a derivation, ``baseline`` (the baseline visit's
    value). With a derivation only visits other than baseline remain, restricted to
    ``analysis.visit``; a participant without a baseline value is not among them. Of a ratio
    (:data:`RATIOS`) there is also ``zero``: the value has no number on this scale and is infinite
    (what to do is :func:`zeros_rule`'s), and the ``baseline`` of a log ratio is its logarithm.
    """
    source = source_of(analysis, tables, endpoint)
    rows = measured(analysis, tables, endpoint=endpoint, sources=[source])
    rows = rows.sort_values("repeat").drop_duplicates(["participant_id", "visit"])
    rows = rows[["participant_id", "visit", "value"]].sort_values(["participant_id", "visit"])
    derivation = analysis.derivation
    if derivation == "value":
        return rows.reset_index(drop=True)
    baseline = analysis.baseline or tables.baseline
    if baseline is None:
        raise NotComputable(f"derivation {derivation} needs a baseline visit (visits.baseline)")
    base = rows[rows["visit"] == baseline].set_index("participant_id")["value"]
    later = rows[rows["visit"] != baseline].copy()
    visits = as_list(analysis.visit)
    if visits:
        later = later[later["visit"].isin(visits)]
    later["baseline"] = later["participant_id"].map(base)
    later = later.dropna(subset=["baseline"])
    if derivation == "change":
        later["value"] = later["value"] - later["baseline"]
    elif derivation in RATIOS:
        later = _ratios(later, derivation, zeros_rule(analysis)[1])
    elif derivation == "responder":
        later = _responders(analysis, tables, later)
    else:
        raise ValueError(f"unknown derivation '{derivation}'")
    return later.reset_index(drop=True)


def _ratios(later: pd.DataFrame, derivation: str, offset: float) -> pd.DataFrame:
    """Percent changes or log ratios; ``zero`` where the scale has no number.

    Growth from 0 is above every growth, a lesion that vanished below every log ratio, and 0 to 0
    is no change.
    """
    before, after = later["baseline"] + offset, later["value"] + offset
    with np.errstate(divide="ignore", invalid="ignore"):
        if derivation == "percent_change":
            zero = before == 0
            ratio = 100.0 * (after - before) / before
            level = before
        else:
            zero = (before <= 0) | (after <= 0)
            level = np.log(before.where(before > 0, 0.0))
            ratio = np.log(after.where(after > 0, 0.0)) - level
    ratio = ratio.mask(zero & (np.maximum(before, 0) == np.maximum(after, 0)), 0.0)
    return later.assign(value=ratio, baseline=level, zero=zero)


def _responders(analysis: AnalysisSpec, tables: Tables, later: pd.DataFrame) -> pd.DataFrame:
    """1 for participants who satisfy the responder rule at a visit, 0 for the others.

    The rule may use ``value``, ``baseline``, ``change``, ``percent_change`` and ``log_ratio``.
    Where it cannot be decided (a percent change from 0 does not exist) the participant is left
    out. With ``nonresponder_imputation`` such participants, and those of the population without a
    value at the visit, count as non-responders (``imputed``).
    """
    rule = analysis.responder
    if not rule:
        raise NotComputable("derivation responder needs a rule in responder")
    value, before = later["value"], later["baseline"]
    with np.errstate(divide="ignore", invalid="ignore"):
        known = later.assign(
            change=value - before,
            percent_change=(100.0 * (value - before) / before).where(before != 0),
            log_ratio=np.log((value / before).where((before > 0) & (value > 0))),
        )
    decided = decide(str(rule), known)
    later = later.assign(value=decided.astype("Float64").astype(float), imputed=False)
    if not analysis.nonresponder_imputation:
        return later.dropna(subset=["value"]).drop(columns="imputed")
    people = population(analysis, tables)["participant_id"]
    frames = [later.assign(imputed=later["value"].isna()).fillna({"value": 0.0})]
    for visit in as_list(analysis.visit) or sorted(set(later["visit"])):
        lost = people[~people.isin(later.loc[later["visit"] == visit, "participant_id"])]
        frames.append(
            pd.DataFrame(
                {"participant_id": lost, "visit": visit, "value": 0.0, "imputed": True}
            ).astype({"imputed": bool})
        )
    every = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    return every.sort_values(["participant_id", "visit"])


def visits_of(analysis: AnalysisSpec, tables: Tables, rows: pd.DataFrame) -> list[str]:
    """Visits in study order that occur in the rows: each is analysed apart."""
    present = set(rows["visit"])
    ordered = [visit for visit in tables.visit_order if visit in present]
    return ordered + sorted(present - set(ordered))


def statistics_frame(analysis: AnalysisSpec, rows: Sequence[StatisticRow]) -> pd.DataFrame:
    """Statistics rows of one analysis in the columns of the contract.

    Examples
    --------
    >>> plan = AnalysisSpec(id="a1", type="")
    >>> frame = statistics_frame(plan, [StatisticRow("bias", estimate=1.0, n=3)])
    >>> frame.loc[0, ["analysis_id", "population", "group", "statistic"]].tolist()
    ['a1', 'all', 'all', 'bias']
    """
    # An analysis that fails as a whole has one row, under the name of its type.
    names = {str(row.statistic) for row in rows} - {analysis.type}
    unknown = sorted(name for name in names if registered(name) is None)
    if unknown:
        raise ValueError(f"statistics {unknown} are not registered in corelab/terms/statistics.py")
    filled = [
        replace(
            row,
            analysis_id=row.analysis_id or analysis.id,
            population=row.population or analysis.population or "all",
            endpoint=row.endpoint or ",".join(as_list(analysis.endpoint)) or "n/a",
            ci_level=1.0 - analysis.alpha
            if np.isfinite(float(row.ci_low)) and not np.isfinite(float(row.ci_level))
            else row.ci_level,
        )
        for row in rows
    ]
    return pd.DataFrame([row.cells() for row in filled], columns=list(STATISTICS))
