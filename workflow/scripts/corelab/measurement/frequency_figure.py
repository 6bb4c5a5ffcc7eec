"""Figure of lesion frequency maps: axial mosaics and three planes on the MNI152 brain.

The patient's right is on the left, as in all pictures of the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corelab.registration import template_image

#: Axial slices of a mosaic.
SLICES = 8


def mosaic(
    path: Path,
    planes: Sequence[tuple[str, Any, Any]],
    *,
    alpha: float = 0.05,
    reason: str = "",
) -> None:
    """Draw maps below each other: three planes through the highest voxel, then axial slices.

    ``planes`` are title, map on the template's grid (fraction), and corrected p for a difference
    (else None), outlined up to ``alpha``. Maps share one colour bar from 0 to the highest
    percentage; differences have their own. ``reason`` is said where there is no map.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Canvas(figsize=(15.5, 0.5 + 2.1 * max(len(planes), 1)), facecolor="white")
        if not planes:
            figure.text(0.5, 0.5, reason or "no map", ha="center", va="center")
        else:
            _draw(figure, planes, alpha)
        figure.savefig(path, dpi=110, metadata={"Software": None})


def _cut(volume: Any, axis: int, index: int) -> Any:
    """A slice as it is shown: front or top up, right on the left."""
    cut = np.take(volume, index, axis=axis).T
    return cut if axis == 0 else cut[:, ::-1]


def _draw(figure: Any, planes: Sequence[tuple[str, Any, Any]], alpha: float) -> None:
    image = template_image()
    brain = np.asanyarray(image.dataobj).astype(np.float32)
    brain = brain / np.percentile(brain[brain > 0], 99.5)
    offset, step = image.affine[:3, 3], np.diag(image.affine)[:3]
    low = [int(hit.min()) for hit in np.nonzero(brain > 0.05)]
    high = [int(hit.max()) + 1 for hit in np.nonzero(brain > 0.05)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    peak = max((float(m.max()) for _, m, p in planes if p is None), default=0.0)
    grid = figure.add_gridspec(
        len(planes),
        3 + SLICES + 1,
        left=0.01,
        right=0.955,
        top=1 - 0.35 / figure.get_figheight(),
        bottom=0.02,
        wspace=0.03,
        hspace=0.3,
        width_ratios=[1.22, 1.22, 1, *[1] * SLICES, 0.09],
    )
    union = np.any([np.abs(m) > 0 for _, m, _ in planes], axis=0)
    rows = np.flatnonzero(union.any(axis=(0, 1)))
    span = (rows[0], rows[-1]) if rows.size else (low[2], high[2] - 1)
    levels = np.linspace(span[0], span[1], SLICES + 2)[1:-1].round().astype(int)
    for row, (title, values, p_value) in enumerate(planes):
        difference = p_value is not None
        top = float(np.abs(values).max()) or 1.0
        limits = (-100 * top, 100 * top) if difference else (0.0, 100 * (peak or 1.0))
        cmap = "RdBu_r" if difference else "inferno"
        at = np.unravel_index(int(np.argmax(np.abs(values))), values.shape)
        cuts = [(name, axis, int(at[axis])) for axis, name in enumerate("xyz")]
        cuts += [("z", 2, int(level)) for level in levels]
        shown = None
        for column, (name, axis, index) in enumerate(cuts):
            axes = figure.add_subplot(grid[row, column])
            under, over = (_cut(v[box], axis, index - low[axis]) for v in (brain, values))
            axes.imshow(under, origin="lower", cmap="gray", vmin=0, vmax=1.15)
            masked = np.ma.masked_where(np.abs(over) < 1e-6, 100 * over)
            shown = axes.imshow(masked, origin="lower", cmap=cmap, vmin=limits[0], vmax=limits[1])
            if difference:
                inside = alpha >= _cut(p_value[box], axis, index - low[axis])
                if inside.any():
                    axes.contour(inside, [0.5], colors="lime", linewidths=1.0)
            mm = offset[axis] + step[axis] * index
            axes.set_axis_off()
            axes.text(0.03, 0.02, f"{name} = {mm:.0f}", transform=axes.transAxes, color="white",
                      fontsize=7.5)  # fmt: skip
            if axis != 0:
                axes.text(0.03, 0.91, "R", transform=axes.transAxes, color="white", fontsize=7.5)
        # Above the whole row: the first picture is lower than its neighbours, which would cover it.
        above = grid[row, 0].get_position(figure).y1 + 0.04 / figure.get_figheight()
        figure.text(0.01, above, title, fontsize=10, ha="left", va="bottom")
        bar = figure.colorbar(shown, cax=figure.add_subplot(grid[row, 3 + SLICES]))
        bar.set_label("difference, %" if difference else "participants, %", fontsize=8)
