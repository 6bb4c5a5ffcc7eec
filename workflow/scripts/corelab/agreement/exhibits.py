"""Figures of planned analyses of agreement and overlap, as exhibits of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from corelab.agreement import figures, guards
from corelab.agreement.clusters import clusters_of, labels_of
from corelab.agreement.drift import drift_by_thirds
from corelab.agreement.overlays import draw_contours
from corelab.agreement.plan import readings, with_grades, with_investigators
from corelab.agreement.sources import chosen_sources
from corelab.agreement.strata import reading_places
from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.provenance.exhibits import Drawn
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.overlap import OverlapSpec
from corelab.terms.endpoints import unit_of
from corelab.terms.statistics import statistic
from corelab.terms.words import endpoint_words, group_words, in_sentence

#: Pairs in one figure; more could not be read.
MOST_PAIRS = 6
MOST_LINES = 40


@dataclass(frozen=True)
class _Values:
    """What an analysis reads of one endpoint: first repeats wide, and all rows."""

    endpoint: str
    wide: pd.DataFrame
    rows: pd.DataFrame
    analysis: AgreementSpec

    @property
    def words(self) -> str:
        """The endpoint as people read it."""
        return in_sentence(endpoint_words(self.endpoint))

    @property
    def unit(self) -> str:
        """Unit of the values as they are analysed."""
        if self.analysis.scale != "identity":
            return self.analysis.scale.replace("_", " ")
        derived = self.analysis.derivation
        if derived in {"percent_change", "log_ratio"}:
            return derived.replace("_", " ")
        unit = unit_of(self.endpoint)
        return "" if unit == "score" else unit


def _values(analysis: AgreementSpec, given: Tables) -> Iterator[_Values]:
    tables = with_investigators(given, analysis)
    for endpoint in as_list(analysis.endpoint):
        own = with_grades(analysis, tables, endpoint)
        there = tables.measurements.loc[tables.measurements["endpoint"] == endpoint, "source"]
        sources = chosen_sources(own, list(there.dropna()))
        try:
            rows = readings(own, tables, endpoint, sources)
        except NotComputable:
            continue
        if not len(rows):
            continue
        first = rows[rows["repeat"] == rows["repeat"].min()]
        wide = guards.one_per_cell(first, ["participant_id", "visit"], "source")
        yield _Values(endpoint, wide.reindex(columns=sources), rows, own)


def _pairs(analysis: AgreementSpec, tables: Tables) -> Iterator[figures.Pair]:
    """Pairs of sources (or repeats 1 and 2 of one source) with three targets or more."""
    labels = labels_of(analysis, tables)
    for found in _values(analysis, tables):
        if analysis.repeats == "within":
            for source, own in found.rows.groupby("source", sort=False):
                wide = guards.one_per_cell(own, ["participant_id", "visit"], "repeat")
                if wide.shape[1] < 2 or len(wide.dropna()) < 3:
                    continue
                names = (f"{source}, repeat {wide.columns[0]}", f"repeat {wide.columns[1]}")
                yield figures.Pair(
                    wide.iloc[:, 0], wide.iloc[:, 1], names, found.unit, found.words,
                    clusters_of(wide.index, labels),
                )  # fmt: skip
            continue
        for a, b in combinations(found.wide.columns, 2):
            pair = found.wide[[a, b]].dropna()
            if len(pair) >= 3:
                who = clusters_of(pair.index, labels)
                yield figures.Pair(pair[a], pair[b], (a, b), found.unit, found.words, who)


def _some(pairs: list[figures.Pair]) -> tuple[list[figures.Pair], str]:
    if len(pairs) <= MOST_PAIRS:
        return pairs, ""
    return pairs[:MOST_PAIRS], f" The first {MOST_PAIRS} of {len(pairs)} pairs of the plan."


TITLES = {
    "pairs": "Sources against each other",
    "confusion": "Grades of each pair",
    "matrix": "Coefficient of all pairs",
    "forest": "Coefficient by pair and stratum",
    "drift": "Agreement by thirds of the reading sequence",
    "contours": "Contours of the sources on the scan",
}


def _pair_words(pair: figures.Pair, rows: pd.DataFrame) -> str:
    """A pair with its bias and limits, as the rows have them."""
    text = f"{pair.title}: {pair.names[0]} against {pair.names[1]}"
    named = {"|".join(pair.names), pair.names[0].partition(", repeat ")[0]}
    own = rows[rows["group"].isin(named) & rows["estimate"].notna()]
    found = own.drop_duplicates("statistic").set_index("statistic")["estimate"]
    results = [
        f"{statistic(name).inline} {found[name]:.3g} {pair.unit}".strip()
        for name in ("bias", "loa_lower", "loa_upper")
        if name in found
    ]
    return ", ".join([text, *results])


def draw_pairs(analysis: AgreementSpec, tables: Tables, rows: pd.DataFrame) -> Drawn:
    """Scatter with identity and Bland-Altman plot of each pair."""
    every = list(_pairs(analysis, tables))
    if not every:
        raise NotComputable("no two sources have three targets in common")
    pairs, more = _some(every)
    delta = analysis.delta
    limits = figures.Limits(
        analysis.alpha,
        analysis.limits_ci,
        analysis.limits_coverage,
    )
    figure = figures.plot_pairs(pairs, delta=delta, limits=limits)
    caption = (
        "Left: one point per subject and visit, grey the identity, orange the Deming line. Right: "
        "differences against means with bias, 95 % limits of agreement and their intervals."
    )
    named = f"{pairs[0].names[0]} against {pairs[0].names[1]}" if len(every) == 1 else ""
    return Drawn(
        figure,
        named or TITLES["pairs"],
        caption + (" Green: accepted." if delta is not None else "") + more,
        "; ".join(_pair_words(pair, rows) for pair in pairs),
    )


def draw_confusion(analysis: AgreementSpec, tables: Tables, _: pd.DataFrame) -> Drawn:
    """Table of grades of each pair, on the scale of the charter."""
    every = list(_pairs(analysis, tables))
    whole = [p for p in every if not np.mod(np.concatenate([p.a, p.b]), 1).any()]
    if not whole:
        raise NotComputable("no two sources have three targets in common that are grades")
    pairs, more = _some(whole)
    endpoint = as_list(analysis.endpoint)[0]
    labels = tables.grades.get(endpoint) or analysis.categories
    if endpoint not in tables.grades and labels is not None:
        # Scores are drawn at their place on the charter's scale.
        place = {float(one): float(k) for k, one in enumerate(labels)}
        pairs = [
            figures.Pair(
                [place[float(v)] for v in np.asarray(p.a)],
                [place[float(v)] for v in np.asarray(p.b)],
                p.names,
                p.unit,
                p.title,
            )
            for p in pairs
        ]
    return Drawn(
        figures.plot_confusion(pairs, labels),
        TITLES["confusion"],
        "Subjects and visits by both grades; the outlined diagonal is agreement." + more,
        "; ".join(f"{p.names[0]} against {p.names[1]}" for p in pairs),
    )


def draw_matrix(analysis: AgreementSpec, _: Tables, rows: pd.DataFrame) -> Drawn:
    """Heat map of the planned coefficient of all pairs."""
    form = analysis.form
    endpoint = as_list(analysis.endpoint)[0]
    own = rows[(rows["endpoint"] == endpoint) & (rows["visit"] == rows["visit"].iloc[0])]
    pairs = figures.coefficient_pairs(own.dropna(subset=["estimate"]), form)
    if len(pairs) < 3:
        raise NotComputable("fewer than three pairs have the coefficient")
    words = statistic(form).words
    return Drawn(
        figures.plot_matrix(pairs, title=f"{words}, {in_sentence(endpoint_words(endpoint))}"),
        f"{words} of all pairs",
        f"{len(pairs)} pairs of sources; the intervals stand in the table.",
        "; ".join(f"{a} and {b} {value:.2f}" for (a, b), value in pairs.items()),
    )


def draw_forest(analysis: AgreementSpec, _: Tables, rows: pd.DataFrame) -> Drawn:
    """Estimates and intervals of the planned coefficient, pairs and strata."""
    form = analysis.form
    names = [form, "intra_reader_icc", "inter_reader_icc"]
    own = rows[rows["statistic"].isin(names) & ~rows["group"].str.contains(" - ", regex=False)]
    lines: list[tuple[str, float, float, float]] = []
    places = own[["endpoint", "visit"]].drop_duplicates()
    for row in own.head(MOST_LINES).to_dict("records"):
        group = group_words(row["group"]) or "all sources"
        label = {
            "intra_reader_icc": f"{group}, repeated",
            "inter_reader_icc": "all readers, once each",
        }.get(row["statistic"], group)
        if len(places) > 1:
            at = "" if row["visit"] == "all" else f" {row['visit']}"
            label = f"{endpoint_words(row['endpoint'])}{at}: {label}"
        numbers = float(row["estimate"]), float(row["ci_low"]), float(row["ci_high"])
        # With two sources all of them are their pair, which stands there already.
        if row["group"] != "all" or not any(numbers == line[1:] for line in lines):
            lines.append((label, *numbers))
    if not lines:
        raise NotComputable("no group has the coefficient")
    level = 100 * (1 - analysis.alpha)
    more = f" The first {MOST_LINES} of {len(own)}." if len(own) > MOST_LINES else ""
    return Drawn(
        figures.plot_forest(lines, xlabel=f"{statistic(form).words} with {level:g} % interval"),
        f"{statistic(form).words} by pair and stratum",
        "Pairs of sources, all sources together, and the strata of the plan." + more,
        "; ".join(f"{label} {value:.2f}" for label, value, *_ in lines),
    )


def draw_drift(analysis: AgreementSpec, tables: Tables, _: pd.DataFrame) -> Drawn:
    """The planned coefficient by thirds of the reading sequence."""
    drifts, reasons = {}, []
    labels = labels_of(analysis, tables)
    for found in _values(analysis, tables):
        for a, b in list(combinations(found.wide.columns, 2))[:MOST_PAIRS]:
            pair = found.wide[[a, b]].dropna()
            places = reading_places(tables, found.endpoint, [a, b]).reindex(pair.index)
            try:
                drifts[f"{found.words}: {a}|{b}"] = drift_by_thirds(
                    pair.to_numpy(),
                    places,
                    form=analysis.form,
                    alpha=analysis.alpha,
                    resamples=analysis.resamples,
                    seed=analysis.seed,
                    clusters=clusters_of(pair.index, labels),
                )
            except NotComputable as error:
                reasons.append(str(error))
    if not drifts:
        raise NotComputable("; ".join(dict.fromkeys(reasons)) or "no pair of sources")
    return Drawn(
        figures.plot_drift(drifts, ylabel=statistic(analysis.form).words),
        TITLES["drift"],
        "Does agreement change from the first reads to the last? p: bootstrap of the last third "
        "minus the first.",
        "; ".join(f"{name} {d.change.estimate:+.2f}" for name, d in drifts.items()),
    )


_DRAW: dict[str, Callable[[AgreementSpec, Tables, pd.DataFrame], Drawn]] = {
    "pairs": draw_pairs,
    "confusion": draw_confusion,
    "matrix": draw_matrix,
    "forest": draw_forest,
    "drift": draw_drift,
}


def drawn_figure(
    analysis: AgreementSpec | OverlapSpec,
    tables: Tables,
    rows: pd.DataFrame,
    kind: str,
    folder: Path,
) -> Drawn:
    """One figure of an analysis; without a figure and with the reason where the data give none.

    Parameters
    ----------
    analysis
        One entry of the plan.
    tables
        As for the analysis itself.
    rows
        Its statistics rows.
    kind
        One of :data:`corelab.study.plan_figures.KINDS`.
    folder
        The study's results folder.
    """
    shown = rows[~rows["group"].str.startswith("re-review: ")]
    try:
        if isinstance(analysis, OverlapSpec):
            drawn = draw_contours(analysis, tables, folder)
        else:
            drawn = _DRAW[kind](analysis, tables, shown)
    except NotComputable as reason:
        return Drawn(None, TITLES[kind], str(reason))
    return replace(drawn, name=kind)
