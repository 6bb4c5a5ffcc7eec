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
from corelab.agreement.plan import by_endpoint, with_investigators
from corelab.agreement.sources import chosen_sources
from corelab.agreement.strata import reading_places
from corelab.imaging.geometry import resample_to
from corelab.measurement.selection import NotComputable, Tables, as_list, population
from corelab.provenance.exhibits import Drawn
from corelab.records.visits import VisitRecords, read_visits
from corelab.settings.analyses.agreement import AgreementSpec
from corelab.settings.analyses.overlap import OverlapSpec
from corelab.study.naming import session_entity, subject_entity
from corelab.terms.endpoints import unit_of
from corelab.terms.labels import label as mask_label
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
    for own, endpoint, sources, rows in by_endpoint(analysis, tables):
        if isinstance(rows, NotComputable) or not len(rows):
            continue
        first = rows[rows["repeat"] == rows["repeat"].min()]
        wide = guards.one_per_cell(first, ["participant_id", "visit"], "source")
        yield _Values(endpoint, wide.reindex(columns=sources), rows, own)


def _columns(found: _Values) -> Iterator[tuple[pd.DataFrame, tuple[str, str]]]:
    """Two sources, or repeats 1 and 2 of one source, and their names."""
    if found.analysis.repeats != "within":
        for a, b in combinations(found.wide.columns, 2):
            yield found.wide[[a, b]], (a, b)
        return
    for source, own in found.rows.groupby("source", sort=False):
        wide = guards.one_per_cell(own, ["participant_id", "visit"], "repeat")
        if wide.shape[1] > 1 and len(wide.dropna()) >= 3:
            names = (f"{source}, repeat {wide.columns[0]}", f"repeat {wide.columns[1]}")
            yield wide.iloc[:, :2], names


def _pairs(analysis: AgreementSpec, tables: Tables) -> Iterator[figures.Pair]:
    """Pairs of sources (or repeats 1 and 2 of one source) with three targets or more."""
    labels = labels_of(analysis, tables)
    for found in _values(analysis, tables):
        for columns, names in _columns(found):
            pair = columns.dropna()
            if len(pair) >= 3:
                who = clusters_of(pair.index, labels)
                a, b = pair.iloc[:, 0], pair.iloc[:, 1]
                yield figures.Pair(a, b, names, found.unit, found.words, who)


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


def _draw_pairs(analysis: AgreementSpec, tables: Tables, rows: pd.DataFrame) -> Drawn:
    """Scatter with identity and Bland-Altman plot of each pair."""
    every = list(_pairs(analysis, tables))
    if not every:
        raise NotComputable("no two sources have three targets in common")
    pairs, more = _some(every)
    delta = analysis.delta
    limits = figures.Limits(analysis.alpha, analysis.limits_ci, analysis.limits_coverage)
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


def _draw_confusion(analysis: AgreementSpec, tables: Tables, _: pd.DataFrame) -> Drawn:
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
        placed = np.vectorize(place.__getitem__, otypes=[float])
        pairs = [replace(p, a=placed(np.asarray(p.a)), b=placed(np.asarray(p.b))) for p in pairs]
    return Drawn(
        figures.plot_confusion(pairs, labels),
        TITLES["confusion"],
        "Subjects and visits by both grades; the outlined diagonal is agreement." + more,
        "; ".join(f"{p.names[0]} against {p.names[1]}" for p in pairs),
    )


def _coefficient_pairs(table: pd.DataFrame, statistic: str) -> dict[tuple[str, str], float]:
    """(source, source) -> estimate of one statistic, from statistics rows of one analysis."""
    # Strata (a|b|site=S1), contrasts of pairs (a|b - c|d) and re-reviews are no pairs of sources.
    plain = table["group"].str.count(r"\|").eq(1) & ~table["group"].str.contains("re-review: ")
    own = table[(table["statistic"] == statistic) & plain]
    pairs = {}
    for group, estimate in zip(own["group"], own["estimate"], strict=True):
        first, second = group.split("|")
        pairs[first, second] = float(estimate)
    return pairs


def _draw_matrix(analysis: AgreementSpec, _: Tables, rows: pd.DataFrame) -> Drawn:
    """Heat map of the planned coefficient of all pairs."""
    form = analysis.form
    endpoint = as_list(analysis.endpoint)[0]
    own = rows[(rows["endpoint"] == endpoint) & (rows["visit"] == rows["visit"].iloc[0])]
    pairs = _coefficient_pairs(own.dropna(subset=["estimate"]), form)
    if len(pairs) < 3:
        raise NotComputable("fewer than three pairs have the coefficient")
    words = statistic(form).words
    return Drawn(
        figures.plot_matrix(pairs, title=f"{words}, {in_sentence(endpoint_words(endpoint))}"),
        f"{words} of all pairs",
        f"{len(pairs)} pairs of sources; the intervals stand in the table.",
        "; ".join(f"{a} and {b} {value:.2f}" for (a, b), value in pairs.items()),
    )


def _draw_forest(analysis: AgreementSpec, _: Tables, rows: pd.DataFrame) -> Drawn:
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


def _draw_drift(analysis: AgreementSpec, tables: Tables, _: pd.DataFrame) -> Drawn:
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


def _visit(folder: Path, participant_id: str, visit: str) -> VisitRecords | None:
    here = folder / "derivatives" / subject_entity(participant_id) / session_entity(visit)
    names = ("prepare.json", "segment.json", "perfuse.json")
    return next(iter(read_visits(here / name for name in names if (here / name).is_file())), None)


def _label_masks(visit: VisitRecords, label: str) -> dict[str, str]:
    """Source -> mask file of one label, relative to the folder: readers' and the pipeline's."""
    found: dict[str, str] = {}
    for mask in visit.masks(labels=[label], repeat=1, space="native", usable=True):
        found.setdefault(mask.source, mask.file)
    return found


def _background(visit: VisitRecords, label: str) -> str | None:
    scans = [scan for scan in visit.prepare.scans if scan.usable and scan.label is None]
    for kind in mask_label(label).drawn_on:
        for scan in scans:
            if scan.kind == kind:
                return scan.path
    return scans[0].path if scans else None


def _cases(analysis: OverlapSpec, tables: Tables) -> list[tuple[str, str, float]]:
    """Subject, visit and mean Dice over pairs of: the least, the middle and the best."""
    rows = tables.overlap
    people = population(analysis, tables)["participant_id"]
    own = rows[
        (rows["label"] == analysis.label)
        & (rows["metric"] == "dice")
        & (rows["status"] == "ok")
        & rows["participant_id"].isin(people)
    ]
    sources = chosen_sources(analysis, [*own["source_a"], *own["source_b"]])
    own = own[own["source_a"].isin(sources) & own["source_b"].isin(sources)]
    mean = own.groupby(["participant_id", "visit"])["value"].mean().sort_values(kind="stable")
    if not len(mean):
        raise NotComputable("no two masks of the label on one scan")
    places = sorted({0, len(mean) // 2, len(mean) - 1})
    return [(*mean.index[place], float(mean.iloc[place])) for place in places]


def _draw_contours(analysis: OverlapSpec, tables: Tables, folder: Path) -> Drawn:
    """Contours of the sources of an overlap analysis on three subjects' scans."""
    import nibabel as nib

    label, panels = analysis.label, []
    for participant_id, visit, dice in _cases(analysis, tables):
        records = _visit(folder, participant_id, visit)
        path = _background(records, label) if records else None
        masks = _label_masks(records, label) if records else {}
        wanted = chosen_sources(analysis, list(masks))
        if path is None or not masks:
            continue
        image = nib.as_closest_canonical(nib.load(folder / path))
        outlines = {
            source: np.asanyarray(
                resample_to(nib.load(folder / masks[source]), image, order=0).dataobj
            )
            > 0
            for source in wanted
            if source in masks
        }
        spacing = [float(v) for v in np.linalg.norm(image.affine[:3, :3], axis=0)]
        volume = np.asanyarray(image.dataobj, dtype=np.float32)
        panels.append(
            figures.Overlay(
                volume, outlines, spacing, f"{participant_id}, {visit}: Dice {dice:.2f}"
            )
        )
    if not panels:
        raise NotComputable("no subject has a scan under its masks")
    titles = "; ".join(panel.title for panel in panels)
    return Drawn(
        figures.plot_contours(panels),
        TITLES["contours"],
        "The subjects of least, middle and best mean overlap; three slices evenly through the "
        "outlined area, radiological convention (the patient's right is on the left).",
        titles,
    )


_DRAW: dict[str, Callable[[AgreementSpec, Tables, pd.DataFrame], Drawn]] = {
    "pairs": _draw_pairs,
    "confusion": _draw_confusion,
    "matrix": _draw_matrix,
    "forest": _draw_forest,
    "drift": _draw_drift,
}


def drawn_figure(
    analysis: AgreementSpec | OverlapSpec,
    tables: Tables,
    rows: pd.DataFrame,
    kind: str,
    folder: Path,
) -> Drawn:
    """One figure of an analysis; without a figure and with the reason where the data give none.

    ``rows`` are the statistics rows of the analysis, ``kind`` is one of
    :data:`corelab.study.plan_figures.KINDS`, ``folder`` the study's results folder.
    """
    shown = rows[~rows["group"].str.startswith("re-review: ")]
    try:
        if isinstance(analysis, OverlapSpec):
            drawn = _draw_contours(analysis, tables, folder)
        else:
            drawn = _DRAW[kind](analysis, tables, shown)
    except NotComputable as reason:
        return Drawn(None, TITLES[kind], str(reason))
    return replace(drawn, name=kind)
