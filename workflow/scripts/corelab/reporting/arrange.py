"""The order in which statistics are read: what matters first, the rest on demand.

An agreement analysis gives dozens of statistics per pair; a reader wants the ICCs, bias and limits
side by side for all pairs, and the others only when requested.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from corelab.reporting.attention import is_not_computable
from corelab.reporting.results import NOT_COMPUTABLE, Results
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.base import AnalysisSpec, AnalysisType
from corelab.terms.statistics import STATISTICS

#: Groups side by side; more than these are listed below each other.
MAX_SIDE_BY_SIDE = 4
#: A statistic of features or participants that has more rows than this is folded away.
MAX_OF_ONE_KIND = 20
#: Rows shown of an analysis that consists of such a statistic: the lowest.
LOWEST_SHOWN = 10


@dataclass(frozen=True)
class Arranged:
    """Rows of one analysis: the main table and the rest, (group, reason) of groups of which
    nothing could be computed, groups to set side by side (none: below each other), and which
    rows were chosen.
    """

    core: pd.DataFrame
    more: pd.DataFrame
    groups: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    note: str = ""


def ordered(rows: pd.DataFrame, kind: AnalysisType) -> pd.DataFrame:
    """Rows with headlines first and what could not be computed last."""
    core = kind.main or kind.headline
    labelled = (name for name, one in STATISTICS.items() if one.label)
    rank = {name: k for k, name in enumerate(dict.fromkeys((*core, *labelled)))}
    order = rows["statistic"].map(lambda name: rank.get(name, len(rank)))
    order = order + (len(rank) + 1) * is_not_computable(rows)
    return rows.assign(_order=order).sort_values(["endpoint", "_order"], kind="stable")


def _without_echo(rows: pd.DataFrame) -> pd.DataFrame:
    """With two sources, what is said of ``all`` is said of their pair: said once, of the pair."""
    pairs = [g for g in dict.fromkeys(rows["group"]) if "|" in str(g)]
    if len(pairs) != 1:
        return rows
    key = ["endpoint", "visit", "statistic"]
    pair = rows[rows["group"] == pairs[0]].set_index(key)["estimate"]
    known = dict(zip(pair.index, pair, strict=True))
    kept, groups = [], []
    for group, estimate, *where in zip(
        rows["group"], rows["estimate"], *(rows[name] for name in key), strict=True
    ):
        there = tuple(where) in known
        other = known.get(tuple(where), float("nan"))
        same = (pd.isna(other) and pd.isna(estimate)) or (
            abs(other - estimate) <= 1e-9 * max(abs(other), 1e-12)
        )
        kept.append(not (group == "all" and there and same))
        groups.append(pairs[0] if group == "all" and not there else group)
    return rows.assign(group=groups)[kept]


def arrange(results: Results, analysis: AnalysisSpec) -> Arranged | None:
    """Rows of an analysis for a table; None where it has none."""
    rows = results.statistics_of(analysis.id)
    if rows.empty:
        return None
    kind = analysis.kind
    rows = ordered(_without_echo(rows), kind)
    if kind.name == "radiomics":
        return _folded(rows)
    is_core = rows["statistic"].isin(kind.main)
    if kind.name == "overlap":
        return Arranged(rows[is_core], rows[~is_core], ()) if is_core.any() else _folded(rows)
    if not kind.main:
        return Arranged(rows, rows[:0], ())
    core = rows[is_core]
    if core.empty:
        return Arranged(rows, rows[:0], ())
    refused = []
    for group, own in core.groupby("group", sort=False):
        if own["estimate"].isna().all():
            note = str(own["note"].iloc[0] or "")
            refused.append((str(group), note.removeprefix(NOT_COMPUTABLE).lstrip(": ")))
    if len(refused) < len(set(core["group"])):
        core = core[~core["group"].isin([group for group, _ in refused])]
    else:
        refused = []
    one_table = len(set(core["endpoint"])) == 1 and len(set(core["visit"])) == 1
    groups = list(dict.fromkeys(core["group"].map(str)))
    # Pairs in the plan's order, then all sources together.
    groups.sort(key=lambda group: group == "all")
    unique = not core.duplicated(["group", "statistic"]).any()
    side = tuple(groups) if one_table and unique and len(groups) <= MAX_SIDE_BY_SIDE else ()
    return Arranged(core, rows[~is_core], side, tuple(refused))


def _folded(rows: pd.DataFrame) -> Arranged:
    """What an analysis of features says as a whole; rows of single features behind it."""
    many = rows.groupby("statistic")["statistic"].transform("size") > MAX_OF_ONE_KIND
    if not many.all():
        return Arranged(rows[~many], rows[many], ())
    lowest = rows["estimate"].nsmallest(LOWEST_SHOWN).index
    note = f"The {LOWEST_SHOWN} lowest of {len(rows)}."
    return Arranged(rows.loc[lowest], rows.drop(lowest), (), note=note)


def first_screen(results: Results, analysis: AnalysisSpec) -> pd.DataFrame:
    """The few rows of an analysis that the first screen shows."""
    rows = results.statistics_of(analysis.id)
    kind = analysis.kind
    if rows.empty:
        return rows
    rows = ordered(_without_echo(rows), kind)
    wanted = kind.headline
    if isinstance(analysis, AgreementSpec):
        graded = analysis.measure_level in {"ordinal", "nominal"} or analysis.categories
        form = analysis.form
        wanted = ("kappa_quadratic", "kappa", form) if graded else (form, "bias")
        if sum("|" in str(group) for group in set(rows["group"])) > 3:
            rows = rows[(rows["group"] == "all") | (rows["statistic"] == "bias")]
    if kind.name == "quantile":
        rows = rows[~rows["group"].astype(str).str.endswith("Intercept")]
    chosen = rows[rows["statistic"].isin(wanted)]
    if chosen.empty:
        # No primary analysis vanishes: what it has first is shown.
        computed = rows[rows["estimate"].notna()]
        first = (computed if len(computed) else rows)["statistic"].iloc[:1]
        chosen, wanted = rows[rows["statistic"].isin(first)], tuple(first)
    rows = chosen
    return rows.assign(
        _rank=rows["statistic"].map({n: k for k, n in enumerate(wanted)})
    ).sort_values("_rank", kind="stable")
