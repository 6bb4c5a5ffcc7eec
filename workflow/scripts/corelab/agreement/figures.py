"""Figures of agreement: what a statistician looks for first, with intervals in the picture.

Every function returns a matplotlib Figure (no pyplot, no global state).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from corelab.agreement.clusters import paired
from corelab.agreement.differences import bland_altman, deming
from corelab.agreement.drift import Drift
from corelab.agreement.estimates import limits_multiplier, paired_columns
from corelab.measurement.selection import NotComputable
from corelab.provenance.figure_style import (
    BLUE,
    COLOURS,
    FAINT,
    GREEN,
    GREY,
    ON_LIGHT,
    RED,
    name_points,
    new_figure,
    panel,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _targets(a: ArrayLike, b: ArrayLike) -> Sequence[object]:
    """Names of the targets with both values: the index of the first, or their numbers from 1."""
    both = np.isfinite(np.asarray(a, dtype=np.float64) + np.asarray(b, dtype=np.float64))
    index = a.index if isinstance(a, pd.Series) else pd.RangeIndex(1, both.size + 1)
    return list(index[both])


def _draw_bland_altman(
    axes: Axes, pair: Pair, delta: float | None = None, limits: Limits | None = None
) -> None:
    """Differences against means, with bias, limits, their bands and the acceptance limit."""
    limits = limits or Limits()
    x, y, own = paired(pair.a, pair.b, pair.clusters)
    kinds: dict[str, Any] = {
        "limits_ci": limits.interval,
        "multiplier": limits.multiplier,
        "alpha": limits.alpha,
    }
    try:
        found = bland_altman(x, y, clusters=own, **kinds)
    except NotComputable:
        # Too few clusters for an interval: the limits are drawn, the table says why it has none.
        found = bland_altman(x, y, **kinds)
    middle, difference = (x + y) / 2.0, x - y
    right: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"),
        "textcoords": "offset points",
        "va": "center",
    }
    for value, band, colour, name in (
        (found.bias, found.bias_ci, BLUE, "bias"),
        (found.loa_upper, found.loa_upper_ci, RED, f"+{limits.multiplier:.3g} SD"),
        (found.loa_lower, found.loa_lower_ci, RED, f"\u2212{limits.multiplier:.3g} SD"),
    ):
        axes.axhspan(*band, color=colour, alpha=0.13, linewidth=0)
        axes.axhline(value, color=colour, linewidth=1.2, linestyle="-" if name == "bias" else "--")
        axes.annotate(f"{name} {value:.3g}".replace("-", "\u2212"), (1.0, value), xytext=(4, 0),
                      fontsize=8, color=colour, **right)  # fmt: skip
    axes.axhline(0.0, color=GREY, linewidth=0.7)
    if delta is not None:
        for limit in (-delta, delta):
            axes.axhline(limit, color=GREEN, linewidth=1.0, linestyle=":")
        axes.annotate(
            f"accepted \u00b1{delta:g}",
            (0.01, delta),
            va="bottom",
            fontsize=8,
            color=GREEN,
            xycoords=("axes fraction", "data"),
        )
    axes.scatter(middle, difference, s=16, color="black", alpha=0.65, linewidths=0)
    people = f" in {found.n_clusters} clusters" if found.n_clusters < found.n else ""
    axes.set_xlabel(f"Mean of {' and '.join(pair.names)}{pair.suffix}", fontsize=9)
    axes.set_ylabel(f"{' - '.join(pair.names)}{pair.suffix}", fontsize=9)
    name_points(axes, _targets(pair.a, pair.b), middle, difference)
    axes.set_title(
        f"n = {found.n}{people}; bands: {100 * (1 - limits.alpha):g} % intervals",
        fontsize=8, loc="left",
    )  # fmt: skip


def _draw_scatter(axes: Axes, pair: Pair) -> None:
    """Two sources against each other with the identity and the Deming line, equal axes."""
    caption = pair.title
    x, y = paired_columns(pair.a, pair.b, at_least=3)
    both = np.concatenate([x, y])
    margin = 0.05 * (np.ptp(both) or 1.0)
    low, high = float(both.min() - margin), float(both.max() + margin)
    axes.plot([low, high], [low, high], color=GREY, linewidth=1.0, label="identity")
    try:
        line = deming(x, y)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, line.intercept.estimate + line.slope.estimate * ends, color=RED,
                  linewidth=1.4, label=f"Deming, slope {line.slope.estimate:.3f}")  # fmt: skip
    except NotComputable as error:
        caption = f"{caption} no line: {error}".strip()
    axes.scatter(x, y, s=16, color=BLUE, alpha=0.7, linewidths=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel(f"{pair.names[0]}{pair.suffix}", fontsize=9)
    axes.set_ylabel(f"{pair.names[1]}{pair.suffix}", fontsize=9)
    name_points(axes, _targets(pair.a, pair.b), x, y)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.set_title(f"n = {x.size}" + (f"; {caption}" if caption else ""), fontsize=8, loc="left")


@dataclass(frozen=True)
class Pair:
    """Two columns to draw, with their names and unit."""

    a: ArrayLike
    b: ArrayLike
    names: tuple[str, str] = ("a", "b")
    unit: str = "mL"
    title: str = ""
    clusters: ArrayLike | None = None

    @property
    def suffix(self) -> str:
        """Unit behind the name of an axis."""
        return f" ({self.unit})" if self.unit else ""


@dataclass(frozen=True)
class Limits:
    """How limits of agreement are drawn: level, kind of interval, share of differences inside."""

    alpha: float = 0.05
    interval: str = "auto"
    share: float = 0.95

    @property
    def multiplier(self) -> float:
        """SDs from the bias to a limit."""
        return limits_multiplier(self.share)


def plot_pairs(
    pairs: Sequence[Pair], *, delta: float | None = None, limits: Limits | None = None
) -> Figure:
    """For each pair of sources a row: scatter with identity, and Bland-Altman.

    Examples
    --------
    >>> figure = plot_pairs([Pair([1, 2, 3, 4], [1.1, 1.8, 3.3, 3.9])])
    >>> figure.axes[0].get_xlabel(), figure.axes[1].get_ylabel()
    ('a (mL)', 'a - b (mL)')
    """
    figure = new_figure(7.2, 3.2 * len(pairs))
    for row, pair in enumerate(pairs):
        left = panel(figure, len(pairs), 2, 2 * row + 1)
        _draw_scatter(left, pair)
        right = panel(figure, len(pairs), 2, 2 * row + 2)
        _draw_bland_altman(right, pair, delta, limits)
    return figure


def plot_matrix(pairs: Mapping[tuple[str, str], float], *, title: str = "ICC(A,1)") -> Figure:
    """Heat map of one coefficient for all pairs of sources, each once, in plan order.

    Examples
    --------
    >>> figure = plot_matrix({("a", "b"): 0.9, ("a", "c"): 0.5, ("b", "c"): 0.7})
    >>> figure.axes[0].get_title(loc="left")
    'ICC(A,1)'
    """
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    table = np.full((len(names), len(names)), np.nan)
    for (a, b), value in pairs.items():
        i, j = sorted((names.index(a), names.index(b)))
        table[j, i] = value
    rows, columns = names[1:], names[:-1]
    table = table[1:, :-1]
    size = 1.6 + 0.62 * len(columns)
    figure = new_figure(size + 1.8, size)
    axes = panel(figure)
    image = axes.imshow(table, cmap="cividis", vmin=0.0, vmax=1.0)
    for i, j in zip(*np.nonzero(np.isfinite(table)), strict=True):
        axes.text(
            j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8,
            color=ON_LIGHT if table[i, j] > 0.55 else "white",
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=9, loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=0.7)
    bar.ax.tick_params(labelsize=8)
    return figure


def plot_forest(
    rows: Sequence[tuple[str, float, float, float]],
    *,
    xlabel: str = "ICC(A,1) with 95 % interval",
) -> Figure:
    """Estimates with intervals, one line each, first row on top.

    Rows are (label, estimate, lower, upper); NaN is shown as "not computable".

    Examples
    --------
    >>> figure = plot_forest([("r1|r2", 0.8, 0.7, 0.9), ("r1|r3", 0.6, 0.4, 0.75)])
    >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    ['r1|r2', 'r1|r3']
    """
    figure = new_figure(5.6, 0.9 + 0.27 * len(rows))
    axes = panel(figure)
    places = np.arange(len(rows))
    for place, (_, estimate, low, high) in zip(places, rows, strict=True):
        if not np.isfinite(estimate):
            axes.annotate("not computable", (0.02, place), xycoords=("axes fraction", "data"),
                          va="center", fontsize=8, color=GREY)  # fmt: skip
            continue
        if np.isfinite(low) and np.isfinite(high):
            axes.plot([low, high], [place, place], color=BLUE, linewidth=1.5)
        axes.plot(estimate, place, "s", color=BLUE, markersize=5)
        axes.annotate(
            f"{estimate:.2f} ({low:.2f} to {high:.2f})",
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(places, [label for label, *_ in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    return figure


def plot_drift(drifts: Mapping[str, Drift], *, ylabel: str = "ICC(A,1)") -> Figure:
    """ICC by thirds of the reading sequence, one line per pair of sources.

    Examples
    --------
    >>> from corelab.agreement.drift import drift_by_thirds
    >>> ratings = np.random.default_rng(0).normal([0, 0.1], 1, (30, 2))
    >>> drift = drift_by_thirds(ratings, np.arange(30), resamples=50)
    >>> plot_drift({"r1|r2": drift}).axes[0].get_ylabel()
    'ICC(A,1) with 95 % interval'
    """
    figure = new_figure(4.8, 3.6)
    axes = panel(figure)
    for index, (name, drift) in enumerate(drifts.items()):
        x = np.arange(3) + 0.06 * (index - (len(drifts) - 1) / 2.0)
        estimates = np.array([one.estimate for one in drift.by_third])
        low = estimates - np.array([one.ci_low for one in drift.by_third])
        high = np.array([one.ci_high for one in drift.by_third]) - estimates
        p = drift.change.p_value
        axes.errorbar(
            x, estimates, yerr=[np.maximum(low, 0), np.maximum(high, 0)], fmt="o-", capsize=3,
            color=COLOURS[index % len(COLOURS)], markersize=4, linewidth=1.2,
            label=f"{name}: last - first {drift.change.estimate:+.2f}, p {p:.2g}",
        )  # fmt: skip
    axes.set_xticks(range(3), ["first third", "second third", "last third"])
    axes.set_ylabel(f"{ylabel} with 95 % interval", fontsize=9)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    return figure


def plot_confusion(pairs: Sequence[Pair], labels: Sequence[Any] | None = None) -> Figure:
    """Tables of grades (numbers) of two readers, side by side; the diagonal is agreement.

    ``labels`` names the grades 0, 1, ... of the whole scale; None shows the numbers that occur.

    Examples
    --------
    >>> plot_confusion([Pair([0, 1, 1, 2], [0, 1, 2, 2])]).axes[0].get_xlabel()
    'b'
    """
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    levels = (
        np.arange(len(labels), dtype=float)
        if labels is not None
        else np.unique(
            np.concatenate([np.concatenate(paired_columns(p.a, p.b, at_least=1)) for p in pairs])
        )
    )
    names = [str(one) for one in labels] if labels is not None else [f"{one:g}" for one in levels]
    side = 1.3 + 0.36 * len(levels)
    figure = new_figure((side + 0.4) * columns, (side + 0.2) * rows)
    for place, pair in enumerate(pairs, start=1):
        axes = panel(figure, rows, columns, place)
        x, y = paired_columns(pair.a, pair.b, at_least=1)
        hit = (x[:, None, None] == levels[:, None]) & (y[:, None, None] == levels)
        counts = hit.sum(axis=0)
        axes.imshow(counts, cmap="Blues", vmin=0, vmax=max(int(counts.max()), 1))
        for i in range(len(levels)):
            axes.add_patch(_outline(i))
            for j in range(len(levels)):
                if counts[i, j]:
                    dark = counts[i, j] > 0.6 * counts.max()
                    axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=8,
                              color="white" if dark else ON_LIGHT)  # fmt: skip
        axes.set_xticks(range(len(levels)), names)
        axes.set_yticks(range(len(levels)), names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(pair.names[1], fontsize=9)
        axes.set_ylabel(pair.names[0], fontsize=9)
        same = 100.0 * float(np.mean(x == y))
        axes.set_title(f"n = {x.size}, {same:.0f} % identical", fontsize=8, loc="left")
    return figure


def _outline(index: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, edgecolor=RED, linewidth=1.2)


@dataclass(frozen=True)
class Overlay:
    """A scan (x, y, z) in RAS order, several sources' masks and the voxel size in mm."""

    image: ArrayLike
    masks: Mapping[str, ArrayLike]
    spacing_mm: Sequence[float]
    title: str = ""


def plot_contours(overlays: Sequence[Overlay], *, slices: int = 3) -> Figure:
    """Contours of several sources on axial slices, one row per scan, radiological convention.

    The ``slices`` are spread evenly through the outlined area.

    Examples
    --------
    >>> image = np.zeros((8, 8, 4)); mask = np.zeros((8, 8, 4)); mask[2:5, 2:5, 1:3] = 1
    >>> len(plot_contours([Overlay(image, {"r1": mask, "r2": mask}, (1, 1, 5))], slices=2).axes)
    2
    """
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(name for one in overlays for name in one.masks))
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    figure = new_figure(2.6 * slices, 2.9 * len(overlays) + 0.4)
    rows = figure.subfigures(len(overlays), 1, squeeze=False)[:, 0]
    for row, overlay in zip(rows, overlays, strict=True):
        _draw_slices(row, overlay, colour, slices)
    handles = [Line2D([], [], color=colour[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _draw_slices(figure: Any, overlay: Overlay, colour: Mapping[str, str], slices: int) -> None:
    volume = np.asarray(overlay.image, dtype=np.float64)
    outlines = {name: np.asarray(mask).astype(bool) for name, mask in overlay.masks.items()}
    area = np.sum([m.sum(axis=(0, 1)) for m in outlines.values()], axis=0)
    if area.any():
        # Evenly through the lesion by area: its ends alone would show little.
        share = np.cumsum(area) / area.sum()
        chosen = np.unique(np.searchsorted(share, (np.arange(slices) + 0.5) / slices))
    else:
        chosen = np.array([volume.shape[2] // 2])
    box = _around(np.any(list(outlines.values()), axis=0), overlay.spacing_mm)
    volume = volume[box]
    low, high = np.percentile(volume[..., chosen], [1, 99.5])
    aspect = overlay.spacing_mm[1] / overlay.spacing_mm[0]
    figure.suptitle(overlay.title, fontsize=9, x=0.01, ha="left")
    for place, z in enumerate(chosen):
        axes = figure.add_subplot(1, max(slices, len(chosen)), place + 1)
        # Rows run down from anterior, columns from the patient's right: turned twice from RAS.
        axes.imshow(volume[::-1, ::-1, z].T, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        for name, mask in outlines.items():
            shown = mask[box][::-1, ::-1, z].T.astype(float)
            if shown.any():
                axes.contour(shown, levels=[0.5], colors=[colour[name]], linewidths=1.3)
        axes.set_title(f"slice {z}", fontsize=8)
        axes.axis("off")


def _around(mask: Any, spacing_mm: Sequence[float]) -> tuple[slice, slice]:
    """Box in x and y around a mask with 30 mm beside it; the whole plane for an empty mask."""
    if not mask.any():
        return slice(None), slice(None)
    found = []
    for axis in (0, 1):
        used = np.flatnonzero(mask.any(axis=tuple(i for i in range(3) if i != axis)))
        margin = int(np.ceil(30.0 / spacing_mm[axis]))
        found.append(slice(max(int(used[0]) - margin, 0), int(used[-1]) + margin + 1))
    return found[0], found[1]
