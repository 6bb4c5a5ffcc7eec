"""Figures of one visit: maps with fixed windows, lesions, curves, motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from corelab.perfusion.tissue import bounding_box
from corelab.provenance.figure_style import PNG_OPTIONS
from corelab.provenance.products import atomic_path

if TYPE_CHECKING:
    from corelab.perfusion.series import Series

#: Quantity -> whose engine, title, window. Fixed, so that two patients can be compared by eye.
WINDOWS: dict[str, tuple[str, str, float, float]] = {
    "cbf_ml_100g_min": ("flow", "CBF (mL/100g/min)", 0.0, 80.0),
    "cbv_ml_100g": ("flow", "CBV (mL/100g)", 0.0, 6.0),
    "mtt_s": ("flow", "MTT (s)", 0.0, 14.0),
    "tmax_s": ("timing", "Tmax (s)", 0.0, 12.0),
    "cbf_sd_ml_100g_min": ("bayes", "SD of CBF (mL/100g/min)", 0.0, 20.0),
}
#: Usual limit of hypoperfused tissue, s: marked on the scale of Tmax.
LATE_S = 6.0
CORE_COLOUR, PENUMBRA_COLOUR = "#d7263d", "#1b998b"
_SLICES = 6


def _canvas(
    rows: int, columns: int, size: tuple[float, float], **margins: float
) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Fixed margins: measuring every label to find them takes longer than drawing.
    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins)


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        # No time stamp and no version in the file: same input, same bytes.
        figure.savefig(
            temporary, dpi=110, format="png", metadata={"Software": None}, pil_kwargs=PNG_OPTIONS
        )


def _slices(mask: np.ndarray) -> np.ndarray:
    seen = np.flatnonzero(mask.sum(axis=(0, 1)) > 0.35 * mask.sum(axis=(0, 1)).max())
    return np.unique(np.linspace(seen[0], seen[-1], _SLICES).round().astype(int))


def _side_by_side(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Slices of a volume as one picture (rows, columns), as radiologists look at it.

    The patient's left is on the viewer's right.
    """
    return np.concatenate([values[::-1, :, level].T for level in levels], axis=1)


def _show(axis: Any, picture: np.ndarray, sizes: np.ndarray, **keywords: Any) -> Any:
    axis.set_axis_off()
    return axis.imshow(
        picture, origin="lower", aspect=sizes[1] / sizes[0], interpolation="nearest", **keywords
    )


def draw_visit(
    series: Series,
    masks: Mapping[str, np.ndarray],
    folder: Path,
    name: Callable[[str], str],
    *,
    flow: str = "bayes",
    timing: str = "bayes",
) -> dict[str, str]:
    """Draw all figures of a visit.

    Parameters
    ----------
    series
        Analysed series.
    masks
        ``core`` and ``hypoperfused``.
    folder
        Results folder.
    name
        Gives the path (relative to the folder) of a figure by its short name.
    flow, timing
        Engines of the maps of flow and of time.

    Returns
    -------
    dict
        ``figure_maps``, ``figure_lesions``, ``figure_arterial``, ``figure_displacement`` -> path
        relative to the folder.
    """
    box = bounding_box(series.brain)
    sizes = np.sqrt((series.affine[:3, :3] ** 2).sum(axis=0))
    figures = {
        "maps": _maps(series, {"flow": flow, "timing": timing, "bayes": "bayes"}, box, sizes),
        "lesions": _lesions(series, masks, box, sizes),
        "arterial": _arterial(series, box, sizes),
        "displacement": _motion(series),
    }
    written = {}
    for key, figure in figures.items():
        written[f"figure_{key}"] = name(key)
        _save(figure, Path(folder) / name(key))
    return written


def _maps(
    series: Series, engines: Mapping[str, str], box: tuple[slice, ...], sizes: np.ndarray
) -> Any:
    from matplotlib import colormaps

    levels = _slices(series.tissue[box])
    rows = [
        (quantity, engines[role], title, low, high)
        for quantity, (role, title, low, high) in WINDOWS.items()
        if engines[role] in series.maps
    ]
    width, height = 1.75 * len(levels) + 1.2, 2.05 * len(rows)
    figure, axes = _canvas(
        len(rows), 1, (width, height), left=0.01, right=0.99 - 1.0 / width, bottom=0.01,
        top=1.0 - 0.25 / height, hspace=0.02,
    )  # fmt: skip
    colours = colormaps["inferno"].with_extremes(bad="black")
    tissue = series.tissue[box]
    for axis, (quantity, engine, title, low, high) in zip(axes[:, 0], rows, strict=True):
        values = np.where(tissue, getattr(series.maps[engine], quantity)[box], np.nan)
        picture = _side_by_side(values, levels)
        if not quantity.endswith("_s"):
            # Flow and volume of MR have no fixed scale: normal tissue stays within the colours.
            usual, high = high, max(high, 2 * float(np.nanmedian(values)))
            engine = f"not calibrated, {engine}" if high > usual else engine
        shown = _show(axis, picture, sizes, vmin=low, vmax=high, cmap=colours)
        place = axis.get_position()
        strip = figure.add_axes(
            (
                place.x1 + 0.1 / width,
                place.y0 + 0.05 * place.height,
                0.12 / width,
                0.9 * place.height,
            )
        )
        bar = figure.colorbar(shown, cax=strip, extend="max")
        if quantity == "tmax_s":
            bar.ax.axhline(LATE_S, color="white", lw=1.6)
        bar.set_label(f"{title}\n{engine}", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    for k, level in enumerate(levels):
        axes[0][0].text(
            (k + 0.5) / len(levels), 1.01, _at(series, level + box[2].start), ha="center",
            va="bottom", transform=axes[0][0].transAxes, fontsize=8,
        )  # fmt: skip
    _mark_sides(axes[0][0])
    return figure


def _at(series: Series, level: int) -> str:
    """Position of a slice in millimetres, at the middle of its plane."""
    x, y = (size / 2 for size in series.brain.shape[:2])
    return f"z {(series.affine @ [x, y, level, 1.0])[2]:.0f} mm"


def _mark_sides(axis: Any) -> None:
    for letter, x in (("R", 0.005), ("L", 0.985)):
        axis.text(x, 0.03, letter, color="white", transform=axis.transAxes, fontsize=11)


def _lesions(
    series: Series, masks: Mapping[str, np.ndarray], box: tuple[slice, ...], sizes: np.ndarray
) -> Any:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    late = masks["hypoperfused"][box]
    levels = _slices(late if late.any() else series.tissue[box])
    figure, axes = _canvas(
        1, 1, (2.0 * len(levels), 2.9), left=0.005, right=0.995, bottom=0.12, top=0.99
    )
    image = ndimage.gaussian_filter(series.baseline_image[box], (0.7, 0.7, 0))
    low, high = np.percentile(image[series.tissue[box]], [2, 98])
    grey = np.clip((_side_by_side(image, levels) - 2 * low + high) / (2 * (high - low)), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=2)
    core = masks["core"][box]
    for mask, colour in ((late & ~core, PENUMBRA_COLOUR), (core, CORE_COLOUR)):
        here = _side_by_side(mask, levels)
        picture[here] = 0.45 * picture[here] + 0.55 * np.array(to_rgb(colour))
    _show(axes[0][0], picture, sizes)
    core_ml = float(masks["core"].sum()) * series.voxel_ml
    late_ml = float(masks["hypoperfused"].sum()) * series.voxel_ml
    labels = [
        Patch(color=CORE_COLOUR, label=f"core {core_ml:.1f} mL"),
        Patch(color=PENUMBRA_COLOUR, label=f"penumbra {late_ml - core_ml:.1f} mL"),
    ]
    _mark_sides(axes[0][0])
    figure.legend(handles=labels, loc="lower center", ncols=2, fontsize=9, frameon=False)
    return figure


def _arterial(series: Series, box: tuple[slice, ...], sizes: np.ndarray) -> Any:
    figure, axes = _canvas(
        1, 3, (12, 3.6), left=0.01, right=0.99, bottom=0.14, top=0.92, wspace=0.16
    )
    source, times = series.input, series.times_s
    vessels = [
        ("arterial input", source.artery, "#d7263d"),
        ("venous output", source.vein, "#1f6feb"),
    ]
    for axis, (title, vessel, colour) in zip(axes[0][:2], vessels, strict=True):
        axis.set_title(title, fontsize=9)
        if vessel is None or not len(vessel.voxels):
            axis.set_axis_off()
            axis.text(0.5, 0.5, "supplied" if source.supplied else "none found", ha="center")
            continue
        level = int(np.bincount(vessel.voxels[:, 2]).argmax())
        image = series.baseline_image[box]
        low, high = np.percentile(series.baseline_image[series.tissue], [1, 99])
        picture = _side_by_side(image, np.array([level]))
        _show(axis, picture, sizes, cmap="gray", vmin=low - (high - low), vmax=1.3 * high)
        here = vessel.voxels[vessel.voxels[:, 2] == level]
        width = image.shape[0]
        axis.plot(
            width - 1 - (here[:, 0] - box[0].start), here[:, 1] - box[1].start, "s",
            markersize=4, markerfacecolor="none", markeredgecolor=colour,
        )  # fmt: skip
        axis.set_title(f"{title}, {_at(series, level)}", fontsize=9)
    axis = axes[0][2]
    unit = "HU" if series.modality == "ctp" else "1/s"
    axis.plot(times, source.artery.curve, color="#d7263d", ls=":", label="artery as measured")
    axis.plot(times, source.curve, color="#d7263d", label=f"artery x {source.scale:.2f}")
    if source.vein is not None:
        axis.plot(times, source.vein.curve, color="#1f6feb", label="vein")
    tissue = series.concentration[series.tissue].mean(axis=0, dtype=np.float64)
    axis.plot(times, 10 * tissue, color="#444444", label="tissue x 10")
    axis.axvline(times[series.baseline.arrival], color="#999999", lw=0.8)
    axis.set(xlabel="time (s)", ylabel=f"concentration ({unit})")
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _motion(series: Series) -> Any:
    figure, axes = _canvas(1, 2, (9, 2.8), left=0.07, right=0.99, bottom=0.17, top=0.9, wspace=0.2)
    for axis, values, unit in (
        (axes[0][0], series.motion.translation_mm, "translation (mm)"),
        (axes[0][1], series.motion.rotation_degrees, "rotation (degrees)"),
    ):
        for k, (name, colour) in enumerate((("x", "#d7263d"), ("y", "#1b998b"), ("z", "#1f6feb"))):
            axis.plot(series.times_s, values[:, k], color=colour, label=name)
        axis.axhspan(-1, 1, color="#000000", alpha=0.06, lw=0)
        axis.set(xlabel="time (s)", ylabel=unit)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, ncols=3)
        limit = max(1.5, 1.1 * float(np.abs(values).max()))
        axis.set_ylim(-limit, limit)
    state = "corrected" if series.motion_corrected else "not corrected"
    figure.suptitle(f"Displacement from the baseline, {state}", fontsize=9)
    return figure
