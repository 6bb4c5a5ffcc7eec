"""Figures of one analysis: which kinds belong to it, from its rows and the values that it saw.

One figure per analysis with one panel per kind: forest plot, exposure-response with band, profile
of means with every participant, waterfall, stacked grades, quantile coefficients, ROC, and
Kaplan-Meier curves. No statistic is computed here beyond the curves that the method modules give.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from corelab.measurement.selection import NotComputable, Tables, as_list, population
from corelab.pharmacodynamics import figures
from corelab.pharmacodynamics.analysis_set import (
    endpoint_by_visit,
    endpoints_of,
    in_order,
    sheet_values,
)
from corelab.provenance.exhibits import Drawn
from corelab.provenance.figure_style import COLOURS, STYLE, name_points
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.correlation import CorrelationSpec
from corelab.settings.analyses.diagnostic import DiagnosticSpec
from corelab.settings.analyses.dose_response import DoseResponseSpec
from corelab.terms.endpoints import unit_of
from corelab.terms.statistics import conclusion_order, family_of, statistic
from corelab.terms.words import endpoint_words, group_words, in_sentence, label_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_LINES = 16
#: Results that the text of a figure names.
MAX_RESULTS = 4


@dataclass(frozen=True)
class _Panel:
    """One part of a figure: ``draw`` on axes that it is given, ``kind`` in words for the caption,
    ``height`` and ``below`` (for what hangs under the axes) in inches, ``margin`` at the right for
    numbers as a share of the width.
    """

    draw: Callable[[Axes], object]
    kind: str
    height: float = 3.4
    margin: float = 0.0
    below: float = 0.0


@dataclass(frozen=True)
class _Drawing:
    """A planned analysis, its tables and its statistics rows."""

    analysis: AnalysisSpec
    tables: Tables
    rows: pd.DataFrame

    def groups(self) -> dict[str, str]:
        """Participant -> group; empty where the sheet has no such column."""
        people = population(self.analysis, self.tables)
        if self.analysis.arms not in people:
            return {}
        known = people.dropna(subset=[self.analysis.arms])
        return {
            str(p): str(int(g)) if isinstance(g, float) and g.is_integer() else str(g)
            for p, g in zip(known["participant_id"], known[self.analysis.arms], strict=True)
        }

    def order(self) -> list[str]:
        """Groups as every figure shows them: the reference, then by dose where arms have one."""
        groups = self.groups()
        people = population(self.analysis, self.tables).set_index("participant_id")
        doses: dict[str, float] = {}
        if "dose" in people:
            dose = pd.to_numeric(people["dose"], errors="coerce")
            given = dose.groupby(people.index.map(groups)).agg(["min", "max"])
            one = given.loc[given["min"] == given["max"], "min"]
            doses = {str(group): float(value) for group, value in one.items()}
        return in_order(groups.values(), self.analysis.reference, doses)

    def values(self, endpoint: str, **changes: Any) -> list[tuple[str, pd.Series]]:
        """Values of the endpoint by visit, as the analysis takes them."""
        try:
            frames = endpoint_by_visit(self.analysis.changed(**changes), self.tables, endpoint)
        except NotComputable:
            return []
        return [(visit, frame["value"].astype(float)) for visit, frame in frames]


def axis_words(endpoint: str, derivation: str = "value") -> str:
    """Endpoint with its unit, for an axis.

    Examples
    --------
    >>> axis_words("infarct_volume", "percent_change")
    'Change of infarct volume, %'
    """
    words, unit = endpoint_words(endpoint), unit_of(endpoint)
    unit = {"percent": "%", "ratio": "", "flag": "", "score": ""}.get(unit, unit)
    if derivation == "change":
        words = f"Change of {in_sentence(words)}"
    elif derivation == "percent_change":
        words, unit = f"Change of {in_sentence(words)}", "%"
    elif derivation == "log_ratio":
        words, unit = f"Log ratio of {in_sentence(words)}", ""
    return f"{words}, {unit}" if unit else words


def _label(row: Any, statistics: int, visits: int) -> str:
    parts = [] if row.group == "all" else [group_words(row.group)]
    if visits > 1:
        parts.append("all visits" if row.visit == "all" else str(row.visit))
    if statistics > 1 or not parts:
        parts.append(statistic(row.statistic).inline)
    return ", ".join(parts)


def _told_apart(labels: list[str], methods: Sequence[str]) -> list[str]:
    """Labels that occur more than once, with the method that tells them apart."""
    return [
        f"{label} ({re.split(r'[,;]| by ', str(method))[0]})" if labels.count(label) > 1 else label
        for label, method in zip(labels, methods, strict=True)
    ]


def _forests(drawing: _Drawing, least: int) -> list[_Panel]:
    """One forest of ``least`` rows or more per scale of the statistics, the first two."""
    panels = []
    rank = {name: place for place, name in enumerate(conclusion_order())}
    # The scale of the conclusion comes first.
    scales = {family_of(name) for name in drawing.rows["statistic"]} - {()}
    for statistics in sorted(
        scales, key=lambda scale: (min(rank.get(name, len(rank)) for name in scale), scale)
    ):
        rows = drawing.rows[drawing.rows["statistic"].isin(statistics)]
        rows = rows[rows["estimate"].notna() & rows["ci_low"].notna()].head(MAX_LINES)
        if len(rows) < least:
            continue
        kinds, visits = rows["statistic"].nunique(), rows["visit"].nunique()
        labels = [_label(row, kinds, visits) for row in rows.itertuples()]
        words = " / ".join(statistic(name).inline for name in dict.fromkeys(rows["statistic"]))
        ratio = statistic(rows["statistic"].iloc[0]).ratio
        draw = partial(
            figures.forest,
            rows=rows,
            labels=_told_apart(labels, list(rows["method"])),
            null=1.0 if ratio else 0.0,
            logarithmic=ratio,
            xlabel=words[0].upper() + words[1:],
            # A share has no sense far outside 0 to 1; the numbers stand beside.
            limits=(-0.5, 1.5) if "proportion explained" in words else None,
        )
        panels.append(_Panel(draw, "forest plot", 1.1 + 0.3 * len(rows), 0.34))
    return panels[:2]


def _comparison(drawing: _Drawing) -> list[_Panel]:
    panels: list[_Panel] = []
    groups = drawing.groups()
    if not groups:
        return panels
    derivation = drawing.analysis.derivation
    for endpoint in endpoints_of(drawing.analysis)[:1]:
        everywhere = drawing.values(endpoint, derivation="value", visit=None)
        visits = [visit for visit, _ in everywhere]
        if len(visits) > 1:
            long = pd.concat(
                [
                    pd.DataFrame({"participant_id": v.index, "visit": visit, "value": v.to_numpy()})
                    for visit, v in everywhere
                ]
            )
            draw = partial(
                figures.spaghetti,
                long=long[long["participant_id"].isin(groups)],
                visits=visits,
                groups=groups,
                order=drawing.order(),
                ylabel=axis_words(endpoint),
            )
            panels.append(_Panel(draw, "every participant and mean with 95 % interval"))
        if derivation in {"change", "percent_change", "log_ratio"} or endpoint.endswith(
            ("growth", "percent", "change")
        ):
            panels += _waterfalls(drawing, endpoint, groups, derivation)
        elif len(visits) <= 1 and derivation != "responder":
            panels += _distributions(drawing, endpoint, groups)
    return panels


def _waterfalls(
    drawing: _Drawing, endpoint: str, groups: Mapping[str, str], derivation: str
) -> list[_Panel]:
    panels = []
    for visit, values in drawing.values(endpoint)[-1:]:
        inside = values[values.index.isin(groups)]
        draw = partial(
            figures.waterfall,
            values=inside,
            groups=[groups[p] for p in inside.index],
            order=drawing.order(),
            ylabel=f"{axis_words(endpoint, derivation)} ({visit})",
        )
        panels.append(_Panel(draw, "waterfall of every participant", 2.9))
    return panels


def _distributions(drawing: _Drawing, endpoint: str, groups: Mapping[str, str]) -> list[_Panel]:
    found = drawing.values(endpoint)
    if not found:
        return []
    visit, values = found[-1]
    inside = values[values.index.isin(groups)]
    if set(inside.unique()) <= {0.0, 1.0}:
        return []

    def draw(axes: Axes) -> None:
        labels = pd.Series([groups[p] for p in inside.index], index=inside.index)
        names = [name for name in drawing.order() if name in set(labels)]
        drawn: list[tuple[object, float, float]] = []
        for k, name in enumerate(names):
            own = inside[labels == name].sort_values(kind="stable")
            spread = 0.32 * (((np.arange(own.size) * 0.618034) % 1) - 0.5)
            colour = COLOURS[k % len(COLOURS)]
            axes.plot(k + spread, own, "o", ms=4, alpha=0.6, mew=0, color=colour)
            drawn += zip(own.index, k + spread, own, strict=True)
            axes.hlines(np.median(own), k - 0.28, k + 0.28, color="black", lw=2)
        axes.set_xticks(range(len(names)), names)
        axes.set_ylabel(f"{axis_words(endpoint)} ({visit})")
        name_points(axes, *zip(*drawn, strict=True))
        figures.without_frame(axes)

    return [_Panel(draw, "every participant and median", 3.0)]


def _dose_response(drawing: _Drawing) -> list[_Panel]:
    from corelab.pharmacodynamics.dose_response import Driver

    panels = []
    analysis, tables = drawing.analysis, drawing.tables
    assert isinstance(analysis, DoseResponseSpec)
    kind = "exposure" if analysis.exposure else "dose"
    name = str(getattr(analysis, kind))
    models = as_list(analysis.models)
    model = next((m for m in ("sigmoid_emax", "emax") if m in models), "linear")
    unit = f", {tables.dose_unit}" if name == "dose" and tables.dose_unit else ""
    groups, alone = drawing.groups(), analysis.changed(covariates=[])
    for endpoint in endpoints_of(analysis)[:1]:
        try:
            by_visit = endpoint_by_visit(analysis, tables, endpoint)
        except NotComputable:
            return []
        for visit, values in by_visit[-2:]:
            try:
                frame, _, _ = Driver(alone, tables, endpoint, kind, name).frame(visit, values)
            except NotComputable:
                continue
            draw = partial(
                figures.exposure_response,
                driver=frame["driver"],
                response=frame["value"],
                model=model,
                groups=[groups.get(p, "n/a") for p in frame.index] if groups else None,
                order=drawing.order(),
                xlabel=f"{axis_words(name)}{unit}",
                ylabel=f"{axis_words(endpoint, analysis.derivation)} ({visit})",
            )
            panels.append(_Panel(draw, f"{model.replace('_', ' ')} response with 95 % band"))
    return panels


def _correlation(drawing: _Drawing) -> list[_Panel]:
    from corelab.pharmacodynamics.correlation import joined

    analysis, tables = drawing.analysis, drawing.tables
    assert isinstance(analysis, CorrelationSpec)
    if analysis.summaries:
        return []
    kind = next(k for k in ("outcome", "exposure", "endpoint_y") if getattr(analysis, k))
    name = str(getattr(analysis, kind))
    groups = drawing.groups() if analysis.by else {}
    panels = []
    for endpoint in endpoints_of(analysis)[:2]:
        try:
            visit, values = endpoint_by_visit(analysis, tables, endpoint)[-1]
            frame, at = joined(analysis, tables, values, visit, kind, name)
        except NotComputable:
            continue
        frame = frame.dropna(subset=["value", "other"])
        if len(frame) < 4 or np.ptp(frame["other"]) == 0 or np.ptp(frame["value"]) == 0:
            continue
        # The first note names the visit; the others stand in the table.
        _, _, at = at.partition("; ")[0].partition("second variable at ")
        draw = partial(
            figures.exposure_response,
            driver=frame["other"],
            response=frame["value"],
            groups=[groups.get(p, "n/a") for p in frame.index] if groups else None,
            order=drawing.order(),
            xlabel=f"{axis_words(name)} ({at})" if at else axis_words(name),
            ylabel=f"{axis_words(endpoint, analysis.derivation)} ({visit})",
        )
        panels.append(_Panel(draw, "every participant, linear fit with 95 % band"))
    return panels


def _ordinal(drawing: _Drawing) -> list[_Panel]:
    groups = drawing.groups()
    outcome = str(drawing.analysis.outcome)
    if not groups:
        return []
    try:
        values, at = sheet_values(drawing.analysis, drawing.tables, "outcome", outcome)
    except NotComputable:
        return []
    inside = values[values.index.isin(groups)].dropna()
    if inside.empty or inside.nunique() > 12 or (inside % 1 != 0).any():
        return []
    top = max(int(inside.max()), 6 if outcome == "mrs" else 0)
    categories = range(min(int(inside.min()), 0 if outcome == "mrs" else 99), top + 1)
    labels = [groups[p] for p in inside.index]
    names = [name for name in drawing.order() if name in set(labels)]
    draw = partial(
        figures.rankin_bars,
        scores=inside.to_numpy(),
        groups=labels,
        categories=list(categories),
        name=f"{label_words(outcome)} at {at}",
        order=names,
    )
    return [_Panel(draw, "distribution of grades", 1.6 + 0.55 * len(names))]


def _quantile(drawing: _Drawing) -> list[_Panel]:
    rows = drawing.rows[drawing.rows["statistic"] == "quantile_coefficient"]
    rows = rows[rows["estimate"].notna()]
    if rows.empty:
        return []
    rows = rows[rows["visit"] == rows["visit"].iloc[-1]]
    terms = [t for t in dict.fromkeys(rows["group"].str.split("|").str[1]) if t != "Intercept"]
    words = axis_words(str(rows["endpoint"].iloc[0]), drawing.analysis.derivation)
    draw = partial(figures.quantile_coefficients_figure, rows=rows, ylabel=words)
    return [_Panel(partial(draw, term=term), "coefficients by quantile", 2.6) for term in terms[:3]]


def _diagnostic(drawing: _Drawing) -> list[_Panel]:
    from corelab.pharmacodynamics.diagnostic import roc_curve, scores

    analysis = drawing.analysis
    assert isinstance(analysis, DiagnosticSpec)
    endpoint, outcome = endpoints_of(analysis)[0], str(analysis.outcome)
    try:
        visit, frame, _ = list(scores(analysis, drawing.tables, endpoint, outcome))[-1]
    except NotComputable:
        return []
    areas = drawing.rows[
        (drawing.rows["statistic"] == "auc") & (drawing.rows["visit"] == visit)
    ].set_index("group")
    curves = {}
    for column in [c for c in frame.columns if c != "truth"]:
        name = "all" if column == "score" else column
        if name not in areas.index or not np.isfinite(areas["estimate"]).loc[name]:
            continue
        area = areas.loc[name]
        shown = endpoint_words(endpoint) if column == "score" else column
        text = f"{shown}: {area['estimate']:.2f} ({area['ci_low']:.2f} to {area['ci_high']:.2f})"
        false, hit, _ = roc_curve(frame[column], frame["truth"])
        curves[text] = (false, hit)
    draw = partial(figures.roc_figure, curves=curves)
    return [_Panel(draw, "ROC curves with area and DeLong interval", 4.2)] if curves else []


def _sample_size(drawing: _Drawing) -> list[_Panel]:
    rows = drawing.rows[drawing.rows["statistic"] == "n_per_arm"].dropna(subset=["estimate"])
    if rows.empty:
        return []

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))[::-1]
        axes.barh(places, rows["estimate"], color=COLOURS[0], height=0.6)
        for place, value in zip(places, rows["estimate"], strict=True):
            axes.text(value, place, f" {value:.0f}", va="center")
        axes.set_yticks(places, list(rows["group"]))
        axes.set_xlabel("Participants per arm")
        figures.without_frame(axes)

    return [_Panel(draw, "participants per arm", 1.0 + 0.35 * len(rows))]


_PANELS: dict[str, Callable[[_Drawing], list[_Panel]]] = {
    "comparison": _comparison,
    "dose_response": _dose_response,
    "correlation": _correlation,
    "ordinal": _ordinal,
    "quantile": _quantile,
    "diagnostic": _diagnostic,
    "sample_size": _sample_size,
}


def _panels_of(analysis: AnalysisSpec, tables: Tables, rows: pd.DataFrame) -> list[_Panel]:
    """Panels that an analysis has, forest plots last; none where nothing can be drawn."""
    drawing = _Drawing(analysis, tables, rows)
    own = _PANELS.get(analysis.type, lambda _: [])(drawing)
    if analysis.type in {"quantile", "sample_size"}:
        return own
    # A forest of one row adds nothing to another panel.
    return [*own, *_forests(drawing, 2 if own else 1)]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in the common style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(STYLE)
    return Figure(figsize=(width, height), layout=None)


def _draw_panels(panels: list[_Panel]) -> Figure:
    """One figure with the panels below each other, lettered where there are several."""
    gap = 0.75
    heights = [panel.height for panel in panels]
    total = sum(heights) + sum(panel.below for panel in panels) + gap * len(panels) + 0.3
    figure = new_figure(7.6, total)
    top = total - 0.3
    for k, panel in enumerate(panels):
        bottom = top - panel.height
        width_share = 0.72 * (1 - panel.margin)
        axes = figure.add_axes((0.24, bottom / total, width_share, panel.height / total))
        panel.draw(axes)
        if len(panels) > 1:
            figure.text(0.01, (top + 0.12) / total, "ABCDEFGH"[k], weight="bold", size=12)
        top = bottom - gap - panel.below
    return figure


def drawn_figure(analysis: AnalysisSpec, tables: Tables, rows: pd.DataFrame) -> Drawn:
    """The figure of an analysis: all its panels; without a figure where nothing can be drawn."""
    name = str(analysis.title or analysis.id)
    panels = _panels_of(analysis, tables, rows)
    if not panels:
        reasons = [str(note) for note in rows["note"].dropna() if str(note).startswith("not_comp")]
        reason = reasons[0].removeprefix("not_computable: ") if reasons else "no estimate"
        return Drawn(None, name, reason)
    kinds = list(dict.fromkeys(panel.kind for panel in panels))
    caption = ". ".join(kind[0].upper() + kind[1:] for kind in kinds) + "."
    known = rows[rows["estimate"].notna()].head(MAX_RESULTS)
    results = [
        _label(row, 2, 1) + f" {value:.3g}" + (f" ({low:.3g} to {high:.3g})" if low == low else "")
        for row, (value, low, high) in zip(
            known.itertuples(),
            known[["estimate", "ci_low", "ci_high"]].to_numpy(float),
            strict=True,
        )
    ]
    alt = f"{name}. {caption} {'; '.join(results)}"
    return Drawn(_draw_panels(panels), name, caption, alt, tight=True)
