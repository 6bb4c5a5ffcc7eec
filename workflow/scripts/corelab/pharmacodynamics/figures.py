"""Figures of pharmacodynamics: forest, exposure-response, spaghetti, waterfall, Kaplan-Meier,
Rankin bars, quantile coefficients, ROC, specification curve.

Each function draws on axes that it is given and returns them, and computes no statistic beyond
what the method modules give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from corelab.pharmacodynamics.analysis_set import in_order
from corelab.pharmacodynamics.dose_response import response_band
from corelab.pharmacodynamics.survival import kaplan_meier
from corelab.provenance.figure_style import COLOURS, ON_LIGHT, name_points
from corelab.terms.words import group_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colours of the modified Rankin scale, 0 (none) to 6 (dead): light to dark, then black.
RANKIN_COLOURS = ("#f7fbff", "#d3e3f3", "#a6cde4", "#6aaed6", "#3787c0", "#105ba4", "#1a1a1a")


def without_frame(axes: Axes) -> Axes:
    """Axes without their upper and right spine."""
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _beside(axes: Axes, text: str, place: tuple[float, float], within: Any, **more: Any) -> None:
    """Small text outside the axes."""
    axes.annotate(
        text,
        place,
        xycoords=within,
        va="center",
        fontsize="small",
        annotation_clip=False,
        **more,
    )


def _number(value: float, digits: int = 3) -> str:
    """Significant digits, true minus sign, n/a for missing."""
    if not np.isfinite(value):
        return "n/a"
    text = f"{float(f'{value:.{digits}g}'):g}"
    return text.replace("-", "\N{MINUS SIGN}")


def forest(
    axes: Axes,
    rows: pd.DataFrame,
    *,
    labels: Sequence[str] | None = None,
    null: float = 0.0,
    logarithmic: bool = False,
    xlabel: str = "",
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Estimates with intervals, one line per row of a statistics table, numbers at the right.

    ``rows`` has estimate, ci_low, ci_high and n; rows without an estimate say so. ``labels`` name
    the lines (default the column ``group``), ``null`` is the value of no effect, ``logarithmic`` is
    for ratios, ``limits`` are the ends of the axis.
    """
    names = list(rows["group"] if labels is None else labels)
    places = np.arange(len(rows))[::-1]
    for place, (_, row) in zip(places, rows.iterrows(), strict=True):
        if not np.isfinite(row["estimate"]):
            text = "not computable"
        else:
            low, high = row["ci_low"], row["ci_high"]
            if np.isfinite(low) and np.isfinite(high):
                axes.plot([low, high], [place, place], color=COLOURS[0], lw=1.8, zorder=2)
            axes.plot(row["estimate"], place, "s", color=COLOURS[0], ms=6, zorder=3)
            text = f"{_number(row['estimate'])} ({_number(low)} to {_number(high)})"
        count = f"  n = {int(row['n'])}" if np.isfinite(row["n"]) else ""
        _beside(axes, text + count, (1.02, place), ("axes fraction", "data"))
    axes.axvline(null, color="0.4", lw=1, ls="--", zorder=1)
    if logarithmic:
        axes.set_xscale("log")
        decimal_log_ticks(axes)
    axes.set_yticks(places, names)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.set_xlabel(xlabel)
    if limits is not None:
        axes.set_xlim(*limits)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return without_frame(axes)


def decimal_log_ticks(axes: Axes, which: str = "x") -> None:
    """Ticks 0.25, 0.5, 1, 2 ... instead of powers of ten, where the range is short."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    ticks = [
        t for t in (0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 10, 20, 50, 100) if low <= t <= high
    ]
    if len(ticks) >= 2:
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()


def _shown(labels: Any, order: Sequence[str] | None) -> list[str]:
    """The groups of the rows, in the order given; those that it lacks come last."""
    present = in_order(labels)
    first = [name for name in order or [] if name in present]
    return first + [name for name in present if name not in first]


def exposure_response(
    axes: Axes,
    driver: Any,
    response: Any,
    *,
    model: str = "linear",
    groups: Any = None,
    order: Sequence[str] | None = None,
    xlabel: str,
    ylabel: str,
) -> Axes:
    """Points with the fitted curve and its pointwise confidence band; ``order`` of the groups."""
    x, y = np.asarray(driver, float), np.asarray(response, float)
    labels = np.full(x.size, "") if groups is None else np.asarray(groups).astype(str)
    for colour, name in zip(COLOURS, _shown(labels, order), strict=False):
        inside = labels == name
        axes.plot(
            x[inside], y[inside], "o", ms=4.5, alpha=0.75, color=colour, mew=0, label=name or None
        )
    band = response_band(x, y, model=model)
    axes.fill_between(band.driver, band.low, band.high, color="0.5", alpha=0.25, lw=0)
    axes.plot(band.driver, band.mean, color="black", lw=1.6)
    if y.min() <= 0 <= y.max():
        axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if isinstance(response, pd.Series):
        name_points(axes, response.index, x, y)
    if groups is not None:
        axes.legend(frameon=False, fontsize="small")
    return without_frame(axes)


def spaghetti(
    axes: Axes,
    long: pd.DataFrame,
    visits: Sequence[str],
    *,
    groups: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
    ylabel: str = "",
) -> Axes:
    """One thin line per participant over the visits, and the mean with its 95 % t interval.

    ``long`` has participant_id, visit and value; visits are spaced evenly; ``groups`` has the group
    of each participant, ``order`` is that of the groups.
    """
    from scipy import stats

    place = {visit: k for k, visit in enumerate(visits)}
    rows = long[long["visit"].isin(visits)].assign(place=lambda f: f["visit"].map(place))
    names = rows["participant_id"].map(groups) if groups else pd.Series("", index=rows.index)
    shown = _shown(names.dropna(), order)
    for colour, (k, name) in zip(COLOURS, enumerate(shown), strict=False):
        part = rows[names == name]
        for _, one in part.groupby("participant_id"):
            one = one.sort_values("place")
            axes.plot(one["place"], one["value"], color=colour, lw=0.6, alpha=0.3)
        shift = 0.06 * (k - (len(shown) - 1) / 2)
        means, halves, at = [], [], []
        for visit in visits:
            values = part.loc[part["visit"] == visit, "value"].to_numpy(float)
            if values.size < 2:
                continue
            at.append(place[visit] + shift)
            means.append(float(values.mean()))
            halves.append(float(stats.t.ppf(0.975, values.size - 1) * stats.sem(values)))
        axes.errorbar(
            at, means, halves, color=colour, lw=2.2, capsize=3, marker="o", ms=5, label=name or None
        )
    axes.set_xticks(range(len(visits)), list(visits))
    axes.set_xlim(-0.25, len(visits) - 0.75)
    axes.set_ylabel(ylabel)
    named = rows[names.notna() & rows["value"].notna()]
    who = zip(named["participant_id"], named["visit"], strict=True)
    name_points(axes, who, named["place"], named["value"], used="")
    if groups:
        # Above the axes: lines cross all of them.
        axes.legend(
            frameon=False,
            fontsize="small",
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=max(len(shown), 1),
        )
    return without_frame(axes)


def waterfall(
    axes: Axes,
    values: Any,
    *,
    groups: Any = None,
    order: Sequence[str] | None = None,
    ylabel: str,
) -> Axes:
    """One bar per participant, sorted."""
    v = np.asarray(values, float)
    labels = np.full(v.size, "") if groups is None else np.asarray(groups).astype(str)
    falling = np.argsort(-v, kind="stable")
    for colour, name in zip(COLOURS, _shown(labels, order), strict=False):
        inside = np.flatnonzero(labels[falling] == name)
        axes.bar(inside, v[falling][inside], width=0.9, color=colour, label=name or None)
    axes.axhline(0, color="black", lw=0.8)
    axes.set_xticks([])
    axes.set_xlabel(f"Participants (n = {v.size})")
    axes.set_ylabel(ylabel)
    if isinstance(values, pd.Series):
        name_points(axes, values.index[falling], np.arange(v.size), v[falling])
    if groups is not None:
        axes.legend(frameon=False, fontsize="small")
    return without_frame(axes)


def kaplan_meier_figure(
    axes: Axes,
    time_days: Any,
    event: Any,
    groups: Any = None,
    *,
    order: Sequence[str] | None = None,
    ylabel: str,
) -> Axes:
    """Kaplan-Meier curves with log-log bands, censoring marks and the numbers at risk below."""
    t, e = np.asarray(time_days, float), np.asarray(event, float)
    labels = np.full(t.size, "all") if groups is None else np.asarray(groups).astype(str)
    names = _shown(labels, order)
    # Six ticks or fewer, at round numbers.
    size = 10 ** np.floor(np.log10(max(t.max() / 5, 1e-9)))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size * 5 >= t.max())
    at = np.arange(0, t.max() + step / 2, step)
    for k, (colour, name) in enumerate(zip(COLOURS, names, strict=False)):
        inside = labels == name
        curve = kaplan_meier(t[inside], e[inside])
        low, high = curve.band()
        x = np.concatenate([[0.0], curve.time])
        axes.step(
            x,
            np.concatenate([[1.0], curve.survival]),
            where="post",
            color=colour,
            lw=1.8,
            label=f"{name} ({int(e[inside].sum())}/{inside.sum()})",
        )
        axes.fill_between(
            x,
            np.concatenate([[1.0], low]),
            np.concatenate([[1.0], high]),
            step="post",
            color=colour,
            alpha=0.15,
            lw=0,
        )
        gone = curve.time[curve.censored > 0]
        axes.plot(gone, curve.survival_at(gone), "|", color=colour, ms=7, mew=1.2)
        line = -0.24 - 0.075 * k
        for moment in at:
            followed, where = str(int(np.sum(t[inside] >= moment))), ("data", "axes fraction")
            _beside(axes, followed, (moment, line), where, ha="center", color=colour)
        _beside(axes, name, (-0.08, line), "axes fraction", ha="right", color=colour)
    _beside(axes, "At risk", (-0.08, -0.165), "axes fraction", ha="right")
    axes.set_xticks(at)
    axes.set(xlabel="Days from randomisation", ylabel=ylabel)
    axes.set(ylim=(0, 1.02), xlim=(0, t.max() * 1.02))
    axes.legend(frameon=False, fontsize="small", title="events/n", title_fontsize="small")
    return without_frame(axes)


def rankin_bars(
    axes: Axes,
    scores: Any,
    groups: Any,
    *,
    categories: Sequence[int] = tuple(range(7)),
    order: Sequence[str] | None = None,
    name: str = "mRS",
) -> Axes:
    """Stacked bars of an ordinal scale per group ("Grotta bars"), shares in the boxes."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    y, labels = np.asarray(scores, float), np.asarray(groups).astype(str)
    names = list(order or in_order(labels))
    if len(categories) == len(RANKIN_COLOURS):
        colours: Sequence[Any] = RANKIN_COLOURS
    else:
        from matplotlib import colormaps

        colours = [colormaps["Blues"](v) for v in np.linspace(0.05, 0.95, len(categories))]
    edges = []
    for k, group in enumerate(names[::-1]):
        inside = y[labels == group]
        left, cuts = 0.0, []
        for colour, category in zip(colours, categories, strict=True):
            share = 100 * float(np.mean(inside == category)) if inside.size else 0.0
            axes.barh(k, share, left=left, height=0.55, color=colour, edgecolor="0.25", lw=0.7)
            if share >= 4:
                dark = np.mean(to_rgb(colour)) < 0.5
                axes.text(
                    left + share / 2,
                    k,
                    f"{share:.0f}",
                    ha="center",
                    va="center",
                    color="white" if dark else ON_LIGHT,
                    fontsize="small",
                )
            left += share
            cuts.append(left)
        edges.append(cuts)
    for k in range(len(edges) - 1):
        for a, b in zip(edges[k][:-1], edges[k + 1][:-1], strict=True):
            axes.plot([a, b], [k + 0.275, k + 0.725], color="0.5", lw=0.7)
    axes.set_yticks(range(len(names)), [f"{g} (n = {np.sum(labels == g)})" for g in names[::-1]])
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.5, len(names) - 0.3)
    axes.set_xlabel("Participants, %")
    handles = [
        Patch(facecolor=colour, edgecolor="0.25", label=str(category))
        for colour, category in zip(colours, categories, strict=True)
    ]
    axes.legend(
        handles=handles,
        ncols=len(categories),
        title=name,
        frameon=False,
        fontsize="small",
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        handlelength=1.0,
        columnspacing=1.0,
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return without_frame(axes)


def quantile_coefficients_figure(
    axes: Axes, rows: pd.DataFrame, term: str, *, ylabel: str = "Coefficient"
) -> Axes:
    """Quantile-regression coefficients of one term over the quantiles with their intervals."""
    chosen = rows[rows["group"].str.endswith(f"|{term}")]
    q = chosen["group"].str.extract(r"^q=([0-9.]+)\|")[0].astype(float).to_numpy()
    order = np.argsort(q)
    part = chosen.iloc[order]
    axes.fill_between(
        q[order], part["ci_low"], part["ci_high"], color=COLOURS[0], alpha=0.2, lw=0, zorder=1
    )
    axes.plot(q[order], part["estimate"], "o-", color=COLOURS[0], lw=1.6, zorder=2)
    axes.axhline(0, color="0.4", lw=1, ls="--")
    axes.set_xticks(q[order])
    axes.set(xlabel="Quantile", ylabel=ylabel, title=group_words(term))
    return without_frame(axes)


def roc_figure(axes: Axes, curves: Mapping[str, tuple[Any, Any]]) -> Axes:
    """ROC curves; ``curves`` maps a name to (false-positive rate, sensitivity)."""
    for colour, (name, (false, hit)) in zip(COLOURS, curves.items(), strict=False):
        axes.step(false, hit, where="post", color=colour, lw=1.8, label=name)
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, ls="--")
    axes.set(xlabel="1 - specificity", ylabel="Sensitivity", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return without_frame(axes)


def specification_curve(
    axes: Axes, rows: pd.DataFrame, *, null: float = 0.0, ylabel: str = "Estimate"
) -> Axes:
    """Estimates of one question under all specifications, sorted; significant ones filled.

    ``rows`` has estimate, ci_low and ci_high; ``null`` is the value of no effect.
    """
    part = rows[np.isfinite(rows["estimate"])].sort_values("estimate", kind="stable")
    x = np.arange(len(part))
    clear = (part["ci_low"] > null) | (part["ci_high"] < null)
    axes.vlines(x, part["ci_low"], part["ci_high"], color="0.7", lw=1.2)
    axes.scatter(
        x,
        part["estimate"],
        c=[COLOURS[0] if yes else "white" for yes in clear],
        edgecolors=COLOURS[0],
        s=22,
        zorder=3,
    )
    if "planned" in part:
        at = np.flatnonzero(part["planned"].to_numpy() == 1)
        axes.scatter(
            x[at], part["estimate"].to_numpy()[at], marker="D", s=42, c=COLOURS[1], zorder=4
        )
    axes.axhline(null, color="0.4", lw=1, ls="--")
    axes.set_xticks([])
    axes.set(xlabel=f"Specifications (n = {len(part)}), sorted", ylabel=ylabel)
    if "specification" in part:
        name_points(axes, part["specification"], x, part["estimate"], used="")
    return without_frame(axes)


def specification_choices(
    axes: Axes, rows: pd.DataFrame, choices: Sequence[tuple[str, list[str], np.ndarray]]
) -> Axes:
    """Which specification makes which choice, one line per choice, below a specification curve.

    ``rows`` are in the order of the curve; a choice is a key, its values and (values, rows)
    booleans.
    """
    x = np.arange(len(rows))
    labels: list[str] = []
    places: list[float] = []
    place = 0.0
    for key, values, made in choices:
        for value, chosen in zip(values, made, strict=True):
            axes.plot(x, np.full(x.size, place), ".", color="0.88", ms=5)
            axes.plot(x[chosen], np.full(int(chosen.sum()), place), "o", color="0.2", ms=4)
            labels.append(f"{key}: {value if len(value) < 42 else value[:39] + '...'}")
            places.append(place)
            place -= 1
        place -= 0.6
    axes.set_yticks(places, labels, fontsize="small")
    axes.set_xticks([])
    axes.set_ylim(place + 1, 0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    return without_frame(axes)
