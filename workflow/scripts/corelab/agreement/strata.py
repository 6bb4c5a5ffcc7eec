"""Rows of an agreement analysis by strata: site, visit, lesion size, third of the reading sequence.

Planned with ``strata``: names of participants columns, or ``visit``, ``size`` (thirds of the mean
reading) and ``third`` (thirds of the reading sequence, from ``presentation_order`` or ``read_at``
of the reads). ``compare_pairs: true`` adds the comparison of every two pairs' coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd

from corelab.agreement.drift import drift_by_thirds, reader_effects, thirds
from corelab.agreement.groups import GroupStatistics
from corelab.agreement.icc import compare_intraclass_correlations
from corelab.agreement.second import second_reader_effect
from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.reading.reader_list import reading_order
from corelab.terms.results import Estimate, StatisticRow

#: What is shown per stratum; the whole list would bury the reader.
SHOWN = ("bias", "loa_lower", "loa_upper", "kappa_quadratic", "within_sd")


def reading_places(tables: Tables, endpoint: str, sources: Sequence[str]) -> pd.Series:
    """Mean relative place (0 to 1) of each target in the sources' reading sequences.

    Sequence: ``presentation_order`` of the reads, else their ``read_at``; first repeats only. Index
    (participant_id, visit); empty where the reads have no order.

    Examples
    --------
    >>> len(reading_places(Tables(pd.DataFrame(), pd.DataFrame()), "aspects", ["r1"]))
    0
    """
    empty = pd.Series(dtype=float)
    reads = getattr(tables, "reads", None)
    if reads is None or not len(reads) or "reader" not in reads:
        return empty
    own = reads[(reads["endpoint"] == endpoint) & reads["reader"].isin(list(sources))].copy()
    if "repeat" in own:
        repeat = pd.to_numeric(own["repeat"]).fillna(1)
        own = own[repeat == repeat.min()]
    key = reading_order(own)
    if key is None:
        return empty
    own["place"] = key.groupby(own["reader"]).rank(method="first", pct=True)
    return own.groupby(["participant_id", "visit"])["place"].mean()


def _levels(name: str, wide: pd.DataFrame, tables: Tables, endpoint: str) -> pd.Series:
    """Stratum of each target."""
    if name == "visit":
        return pd.Series(wide.index.get_level_values("visit"), index=wide.index)
    if name == "size":
        labels = np.array(["small", "medium", "large"])
        return pd.Series(labels[thirds(np.nanmean(wide.to_numpy(), axis=1)) - 1], index=wide.index)
    if name == "third":
        places = reading_places(tables, endpoint, list(wide.columns)).reindex(wide.index).dropna()
        if len(places) < 9:
            raise NotComputable("the reads have no presentation_order or read_at for 9 targets")
        return pd.Series(thirds(places.to_numpy()), index=places.index)
    if name not in tables.participants.columns:
        raise NotComputable(f"the participants sheet has no column '{name}'")
    people = tables.participants.set_index("participant_id")[name]
    own = people.reindex(wide.index.get_level_values("participant_id"))
    return pd.Series(own.to_numpy(), index=wide.index).dropna()


def stratified_rows(
    whole: GroupStatistics, tables: Tables, wide: pd.DataFrame
) -> list[StatisticRow]:
    """Rows of every planned stratum for every pair of sources, and tests of drift.

    ``wide`` is targets (participant_id, visit) x sources. Group names: ``a|b|site=S1``.
    """
    rows: list[StatisticRow] = []
    shown = (whole.analysis.form, *SHOWN)
    for name in as_list(whole.analysis.strata):
        for a, b in combinations(wide.columns, 2):
            pair = wide[[a, b]].dropna()
            if not len(pair):
                continue
            try:
                levels = _levels(name, pair, tables, whole.endpoint)
            except NotComputable as error:
                rows.append(whole.of(f"{a}|{b}|{name}").attempt(shown[0], error))
                continue
            for level in sorted(set(levels), key=str):
                maker = whole.of(f"{a}|{b}|{name}={level}")
                part = pair.loc[levels.index[levels == level]]
                rows += [row for row in maker.pair(part, []) if row.statistic in shown]
            if name == "third":
                rows += _drift_rows(whole, tables, pair)
    return rows


def _drift_rows(whole: GroupStatistics, tables: Tables, pair: pd.DataFrame) -> list[StatisticRow]:
    a, b = pair.columns
    maker = whole.of(f"{a}|{b}").over(pair)
    form = whole.analysis.form
    places = reading_places(tables, whole.endpoint, [a, b]).reindex(pair.index)
    names = (f"{form}_drift", "bias_drift_slope", "learning_slope")
    notes = (
        "last third - first third",
        "from the first to the last read",
        "log |a - b| on log place",
    )

    def drifts() -> Iterable[Estimate]:
        found = drift_by_thirds(pair.to_numpy(), places, form=form, **maker.resampled)
        return found.change, found.bias_slope, found.learning_slope

    return maker.attempts(names, drifts, extras=notes)


def reader_effect_rows(whole: GroupStatistics, wide: pd.DataFrame) -> list[StatisticRow]:
    """Systematic effect of every source (mixed model), and the test that none differs."""
    present = wide.dropna(axis=1, how="all")
    present = present[present.notna().sum(axis=1) >= 2]
    every = whole.over(present)
    try:
        found = reader_effects(present, **every.how)
    except NotComputable as error:
        return [every.attempt("reader_effect_f", error)]
    rows = [
        whole.of(source)
        .over(present)
        .attempt("reader_effect", one, partial(second_reader_effect, present, source, found.ratio))
        for source, one in found.effects.items()
    ]
    n = len(present)
    over = "" if every.codes is None else f", cluster-robust over {every.n_clusters} clusters"
    method = f"F({found.df1}, {found.df2}) of no systematic difference between sources{over}"
    test = Estimate(found.f, p_value=found.p_value, n=n, method=method)
    return [*rows, every.attempt("reader_effect_f", test)]


def comparison_rows(whole: GroupStatistics, wide: pd.DataFrame) -> list[StatisticRow]:
    """Every two pairs' ICC compared on their common targets, p values adjusted after Holm.

    Planned with ``compare_pairs: true``; group = ``a|b - c|d``.
    """
    from statsmodels.stats.multitest import multipletests

    if not whole.analysis.compare_pairs:
        return []
    form = whole.analysis.form
    rows, found = [], []
    for group, first, second, index in _two_pairs(wide):
        maker = whole.of(group).over(index)
        try:
            one = compare_intraclass_correlations(first, second, form=form, **maker.resampled)
        except NotComputable as error:
            rows.append(maker.attempt(f"{form}_difference", error))
            continue
        found.append((maker, one))
    if found:
        adjusted = multipletests([one.p_value for _, one in found], method="holm")[1]
        for (maker, one), p_value in zip(found, adjusted, strict=True):
            note = f"p after Holm over {len(found)} comparisons {p_value:.6g}"
            rows.append(maker.attempt(f"{form}_difference", one, None, note))
    return rows


def _two_pairs(wide: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, np.ndarray, pd.Index]]:
    pairs = list(combinations(wide.columns, 2))
    for one, other in combinations(pairs, 2):
        both = wide[list(dict.fromkeys([*one, *other]))].dropna()
        if len(both) >= 3:
            name = f"{'|'.join(one)} - {'|'.join(other)}"
            yield name, both[list(one)].to_numpy(), both[list(other)].to_numpy(), both.index
