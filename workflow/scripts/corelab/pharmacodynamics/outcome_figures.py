"""Figures of survival, progression and radiomics analyses, drawn from their rows and tables.

:func:`write_figures` is what the workflow calls: an exhibit of the report with its SVG
files, and PNG for slides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from corelab.measurement.selection import NotComputable, Tables, as_list
from corelab.pharmacodynamics import figures
from corelab.pharmacodynamics.analysis_figures import axis_words
from corelab.pharmacodynamics.analysis_set import (
    design,
    endpoint_by_visit,
    in_order,
    participant_columns,
    with_covariates,
)
from corelab.pharmacodynamics.interval_censored import turnbull
from corelab.pharmacodynamics.progression import (
    confirmed_events,
    discordance,
)
from corelab.pharmacodynamics.survival import hazard_along
from corelab.pharmacodynamics.survival_rows import intervals_of
from corelab.pharmacodynamics.time_to_event import event_times
from corelab.provenance.exhibits import Drawn
from corelab.provenance.figure_style import COLOURS, STYLE, name_points
from corelab.settings.analyses.base import AnalysisSpec
from corelab.settings.analyses.progression import ProgressionSpec
from corelab.settings.analyses.radiomics import RadiomicsSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _canvas(width: float, height: float, **more: Any) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(width, height), facecolor="white")
    return figure, figure.subplots(**more)


def _kaplan_meier_panel(
    times: pd.DataFrame, groups: Any, what: str, reference: Any = None
) -> Figure:
    """Kaplan-Meier curves with numbers at risk on a canvas of their own."""
    names = 1 if groups is None else len(set(groups))
    figure, axes = _canvas(6.8, 4.3 + 0.22 * names)
    figure.subplots_adjust(left=0.17, right=0.97, top=0.96, bottom=0.26 + 0.05 * names)
    figures.kaplan_meier_figure(
        axes,
        times["time_days"],
        times["event"],
        groups,
        order=None if groups is None else in_order(groups, reference),
        ylabel=f"Without event ({what})",
    )
    axes.xaxis.set_label_coords(0.5, -0.11)
    return figure


def _turnbull_panel(
    frame: pd.DataFrame, groups: pd.Series | None, what: str, reference: Any = None
) -> Figure:
    """Turnbull's curves of interval-censored times; a sloping piece has its fall somewhere."""
    figure, axes = _canvas(6.8, 4.3)
    figure.subplots_adjust(left=0.13, right=0.97, top=0.96, bottom=0.14)
    left, right = intervals_of(frame)
    labels = np.full(len(frame), "") if groups is None else groups.to_numpy(str)
    for place, level in enumerate(in_order(labels, reference)):
        fit = turnbull(left[labels == level], right[labels == level])
        colour = COLOURS[place % len(COLOURS)]
        before, day, name = 1.0, 0.0, level or None
        for low, high, mass in zip(fit.left, fit.right, fit.mass, strict=True):
            axes.plot([day, low], [before, before], color=colour, lw=1.8, label=name)
            name = None
            if not np.isfinite(high):
                break
            axes.plot([low, high], [before, before - mass], color=colour, lw=1.2, ls=":")
            before, day = before - mass, high
    axes.set(xlabel="Days", ylabel=f"Without event ({what})", ylim=(0, 1.02), xlim=(0, None))
    figures.without_frame(axes)
    if groups is not None:
        axes.legend(frameon=False)
    return figure


def _survival(analysis: AnalysisSpec, tables: Tables, rows: pd.DataFrame) -> Iterator[Drawn]:
    by = analysis.by
    imaging = as_list(analysis.endpoint)
    methods = set(map(str, as_list(analysis.method)))
    for event in map(str, as_list(analysis.event_endpoint)):
        times = event_times(analysis, tables, event)
        if by or not imaging:
            groups = None
            if by:
                levels = participant_columns(analysis, tables, [by])[str(by)].reindex(times.index)
                times = times[levels.notna().to_numpy()]
                groups = levels.dropna().map(str)
            reference = analysis.reference
            if methods != {"interval"}:
                figure = _kaplan_meier_panel(times, groups, event, reference)
                caption = "Kaplan-Meier, log-log bands, ticks: censored; numbers at risk below."
                yield Drawn(figure, f"Time to {event}", caption, name=f"km_{event}")
            if "interval" in methods:
                yield from _turnbull(times, groups, event, reference)
        # A static model is not what an analysis of a changing endpoint plans.
        for endpoint in imaging if not methods or "cox" in methods else []:
            yield from _hazard_curves(analysis, tables, times, event, endpoint)
    for endpoint in imaging:
        if endpoint.startswith("extent_of_resection"):
            yield from _waterfalls(analysis, tables, endpoint)


def _turnbull(
    times: pd.DataFrame, groups: pd.Series | None, event: str, reference: Any
) -> Iterator[Drawn]:
    try:
        figure = _turnbull_panel(times, groups, event, reference)
    except NotComputable:
        return
    caption = (
        "Turnbull's estimate for times known to lie between two visits; along a dotted piece the "
        "data do not say where the curve falls."
    )
    yield Drawn(figure, f"Time to {event}, interval-censored", caption, name=f"interval_{event}")


def _hazard_curves(
    analysis: AnalysisSpec, tables: Tables, times: pd.DataFrame, event: str, endpoint: str
) -> Iterator[Drawn]:
    """Hazard ratio along the endpoint against its median, one panel per visit."""
    names = [str(n) for n in [*as_list(analysis.by), *as_list(analysis.covariates)]]
    panels = []
    for visit, values in endpoint_by_visit(analysis, tables, endpoint):
        frame = values.join(times, how="inner")
        frame = with_covariates(frame, analysis, tables, endpoint=endpoint, names=names).dropna()
        try:
            others = design(frame, covariates=names).matrix[:, 1:] if names else None
            low, high = np.quantile(frame["value"], [0.02, 0.98])
            at = np.linspace(low, high, 120)
            curve = hazard_along(
                frame["time_days"], frame["event"], frame["value"], at, others=others
            )
        except (NotComputable, ValueError):
            continue
        panels.append((visit, frame, curve))
    if not panels:
        return
    figure, grid = _canvas(4.6 * len(panels) + 0.6, 3.7, ncols=len(panels), squeeze=False)
    figure.subplots_adjust(left=0.8 / figure.get_figwidth(), right=0.98, top=0.9, bottom=0.17)
    for axes, (visit, frame, curve) in zip(grid[0], panels, strict=True):
        low, high = (
            np.exp(curve.log_hazard_ratio + s * 1.96 * curve.standard_error) for s in (-1, 1)
        )
        axes.fill_between(curve.at, low, high, color=COLOURS[0], alpha=0.18, lw=0)
        axes.plot(curve.at, np.exp(curve.log_hazard_ratio), color=COLOURS[0], lw=1.8)
        axes.plot(
            frame["value"], np.full(len(frame), 0.02), "|", color="0.4", ms=9,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
        axes.axhline(1, color="0.4", lw=1, ls="--")
        axes.set_yscale("log")
        axes.set_ylim(max(low.min(), 0.1), min(high.max(), 10.0))
        figures.decimal_log_ticks(axes, "y")
        axes.set_xlabel(axis_words(endpoint))
        axes.set_title(f"{visit} (n = {len(frame)})", fontsize=10)
        figures.without_frame(axes)
    grid[0][0].set_ylabel(f"Hazard ratio of {event}, against the median")
    yield Drawn(
        figure,
        f"Hazard of {event} along {endpoint.replace('_', ' ').replace(':', ', ')}",
        "Cox model with a restricted cubic spline (4 knots), 95 % band; ticks below: participants.",
        name=f"hazard_{_file(endpoint)}_{event}",
    )


def _waterfalls(analysis: AnalysisSpec, tables: Tables, endpoint: str) -> Iterator[Drawn]:
    """Extent of resection, one bar per participant; a growth points down."""
    for visit, values in endpoint_by_visit(analysis, tables, endpoint):
        figure, axes = _canvas(7.6, 3.7)
        figure.subplots_adjust(left=0.1, right=0.99, top=0.95, bottom=0.12)
        resected = values["value"].dropna()
        groups = np.where(resected < 0, "larger than before", np.where(
            resected >= 99.5, "complete", "partial"))  # fmt: skip
        figures.waterfall(axes, resected, groups=groups, ylabel="Extent of resection, %")
        caption = (
            f"{len(resected)} participants at {visit}; median {resected.median():.0f} %, quartiles "
            f"{resected.quantile(0.25):.0f} to {resected.quantile(0.75):.0f} %."
        )
        yield Drawn(
            figure, "Extent of resection", caption, name=f"waterfall_{_file(endpoint)}_{visit}"
        )


def _progression(analysis: ProgressionSpec, tables: Tables, rows: pd.DataFrame) -> Iterator[Drawn]:
    criteria = list(analysis.criteria)
    endpoint = analysis.event_endpoint
    window = float(analysis.window_days)
    early = float(analysis.early_days)
    tables, _ = confirmed_events(tables, endpoint, analysis.confirm_within_days)
    a, b = (event_times(analysis, tables, endpoint, criterion=name) for name in criteria)
    stacked = pd.concat([a, b])
    labels = np.repeat(criteria, [len(a), len(b)])
    yield Drawn(
        _kaplan_meier_panel(stacked, labels, endpoint),
        f"Time to {endpoint} by both criteria",
        "Kaplan-Meier of the same participants, log-log bands; numbers at risk below.",
        name="km",
    )
    both = a.join(b, how="inner", lsuffix="_a", rsuffix="_b")
    yield Drawn(
        _progression_scatter(both, criteria, window, early),
        f"{criteria[0]} against {criteria[1]}",
        f"One mark per participant. Band: dates within {window:g} days; shaded: first progression "
        f"up to {early:g} days. Open marks: censored by one or both.",
        name="scatter",
    )


def _progression_scatter(
    both: pd.DataFrame, criteria: list[str], window_days: float, early_days: float
) -> Figure:
    """Dates by two criteria against each other, discordant participants marked."""
    differ, soon = discordance(both, window_days, early_days)
    figure, axes = _canvas(6.0, 5.6)
    figure.subplots_adjust(left=0.13, right=0.97, top=0.97, bottom=0.1)
    x, y = both["time_days_a"], both["time_days_b"]
    top = 1.05 * float(max(x.max(), y.max()))
    line = np.array([0.0, top])
    axes.fill_between(line, line - window_days, line + window_days, color="0.85", lw=0, zorder=0)
    axes.plot(line, line, color="0.5", lw=0.8, zorder=1)
    axes.axvspan(0, early_days, color=COLOURS[4], alpha=0.13, lw=0, zorder=0)
    axes.axhspan(0, early_days, color=COLOURS[4], alpha=0.13, lw=0, zorder=0)
    seen = (both["event_a"] == 1) & (both["event_b"] == 1)
    for name, flags, colour, marker in (
        ("agree", ~differ, COLOURS[0], "o"),
        ("discordant", differ & ~soon, COLOURS[1], "s"),
        ("discordant, early", soon, COLOURS[3], "D"),
    ):
        for full in (True, False):
            chosen = flags & (seen if full else ~seen)
            axes.plot(
                x[chosen], y[chosen], marker, color=colour, ms=5.5, alpha=0.85,
                mfc=colour if full else "none", label=f"{name} (n = {int(flags.sum())})"
                if full else None,
            )  # fmt: skip
    axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axes.set_xlabel(f"{criteria[0]}, days")
    axes.set_ylabel(f"{criteria[1]}, days")
    name_points(axes, both.index, x, y)
    axes.legend(frameon=False, loc="upper left", fontsize="small")
    figures.without_frame(axes)
    return figure


def _radiomics(analysis: RadiomicsSpec, tables: Tables, rows: pd.DataFrame) -> Iterator[Drawn]:
    icc = rows[(rows["statistic"] == "icc_a_1") & rows["estimate"].notna()]
    kinds = icc["group"].str.partition("|")[2].replace("", "masks of readers")
    for kind, part in icc.groupby(kinds, sort=True):
        least = analysis.min_icc
        n = f"{int(part['n'].min())} to {int(part['n'].max())}"
        caption = f"ICC(A,1) over {kind}, {len(part)} features, {n} participants" + (
            f"; crossed out: below {least:g}, not modelled." if least is not None else "."
        )
        yield Drawn(
            _icc_heat_map(part, least),
            f"Reproducibility of features over {kind}",
            caption,
            name=f"icc_{_file(str(kind))}",
        )
    chosen = rows[rows["statistic"] == "importance"]
    if len(chosen):
        yield Drawn(
            _importance_bars(chosen),
            "Importance of the selected features",
            "Correlation with the first supervised component; orange: more means higher risk.",
            name="importance",
        )
    groups = rows[rows["statistic"] == "risk_group"].set_index("participant_id")["estimate"]
    if len(groups):
        times = event_times(analysis, tables, analysis.event_endpoint)
        times = times[times.index.isin(groups.index)]
        labels = np.where(groups.reindex(times.index) > 0.5, "high risk", "low risk")
        yield Drawn(
            _kaplan_meier_panel(times, labels, analysis.event_endpoint),
            "Survival by radiomic risk group",
            "Each participant's group is from a model that did not see the participant.",
            name="km_risk",
        )


def _icc_heat_map(icc: pd.DataFrame, least: float | None = None) -> Figure:
    """ICC of every feature: features by series and volume; those below ``least`` crossed out.

    ``group`` of the statistics rows is ``<series>/<label>/<feature>``, with ``|<kind>`` or without.
    """
    parts = icc["group"].str.partition("|")[0].str.split("/", n=2, expand=True)
    table = pd.DataFrame(
        {
            "column": parts[0] + "\n" + parts[1],
            "feature": parts[2].str.replace(r"_(3D|2D|2_5D)(_comb|_avg)?$", "", regex=True),
            "estimate": icc["estimate"].to_numpy(float),
        }
    )
    # Families together, each in alphabetical order, shape (which has few columns) last.
    wide = table.pivot_table(index="feature", columns="column", values="estimate", aggfunc="first")
    order = sorted(wide.index, key=lambda name: (name.startswith("morph"), name))
    wide = wide.loc[order, sorted(wide.columns, key=lambda c: (c.startswith("mask"), c))]
    tall = len(wide) > 45
    height = 0.085 if tall else 0.24
    figure, axes = _canvas(2.6 + 0.72 * wide.shape[1], 1.5 + height * len(wide))
    figure.subplots_adjust(
        left=2.0 / figure.get_figwidth(),
        right=1 - 0.25 / figure.get_figwidth(),
        top=1 - 0.1 / figure.get_figheight(),
        bottom=1.15 / figure.get_figheight(),
    )
    shown = axes.imshow(wide.to_numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_xticks(range(wide.shape[1]), wide.columns, rotation=90, fontsize=8)
    axes.set_yticks(range(len(wide)), wide.index, fontsize=5 if tall else 8)
    axes.tick_params(length=0)
    if least is not None:
        y, x = np.nonzero(wide.to_numpy() < least)
        axes.plot(x, y, "x", color="white", ms=4 if tall else 7, mew=1.6)
    bar = figure.colorbar(shown, ax=axes, pad=0.015, fraction=0.035)
    bar.set_label("ICC(A,1)")
    return figure


def _importance_bars(rows: pd.DataFrame, most: int = 30) -> Figure:
    """Features by importance, the ``most`` important ones."""
    order = rows["estimate"].abs().sort_values(ascending=False, kind="stable").index[:most]
    part = rows.loc[order[::-1]]
    figure, axes = _canvas(7.4, 0.9 + 0.26 * len(part))
    figure.subplots_adjust(
        left=0.5, right=0.97, top=1 - 0.08 / figure.get_figheight(),
        bottom=0.55 / figure.get_figheight(),
    )  # fmt: skip
    colours = [COLOURS[1 if "high risk" in note else 0] for note in part["note"]]
    axes.barh(range(len(part)), part["estimate"].abs(), color=colours, height=0.7)
    axes.set_yticks(range(len(part)), part["group"], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="Importance, |correlation with the component|", xlim=(0, 1))
    axes.set_ylim(-0.6, len(part) - 0.4)
    figures.without_frame(axes)
    return figure


def _file(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)


_BUILDERS: dict[str, Callable[..., Iterator[Drawn]]] = {
    "survival": _survival,
    "progression": _progression,
    "radiomics": _radiomics,
}


def drawn_figures(analysis: AnalysisSpec, tables: Tables, rows: pd.DataFrame) -> list[Drawn]:
    """Figures of one analysis of survival, progression or radiomics.

    One that these data cannot give is left out: its statistics rows say why.
    """
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        try:
            return list(_BUILDERS[analysis.type](analysis, tables, rows))
        except NotComputable:
            return []
