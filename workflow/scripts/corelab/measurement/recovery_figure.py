"""Figure of the recovery of planted lesions: volumes found, and detection by size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from corelab.provenance.figure_style import AMBER, BLUE, GREEN, RED

#: Colours that colour-blind people can distinguish (Okabe and Ito), and markers by site.
_SITES = {
    "deep": (BLUE, "o"),
    "cortical": (AMBER, "s"),
    "bone": (RED, "^"),
    "posterior_fossa": (GREEN, "D"),
}
#: Undetected lesions are drawn at this share of the smallest planted volume.
_FLOOR = 0.3


def draw_recovery(table: pd.DataFrame, summary: pd.DataFrame, path: str | Path) -> Path:
    """Draw, for each kind of scan and endpoint, found against planted volume and detection.

    ``table`` and ``summary`` are those of :mod:`corelab.measurement.recovery`, ``path`` a PNG.

    Examples
    --------
    >>> import tempfile
    >>> from corelab.measurement.recovery import recovery_summary, recovery_table
    >>> table = recovery_table([])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_recovery(table, recovery_summary(table), Path(folder, "a.png")).name
    'a.png'
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    done = table[table["status"] == "ok"]
    groups = list(done.groupby(["kind", "endpoint"], sort=True))
    with mpl.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Canvas(figsize=(9.5, 3.9 * max(len(groups), 1)), facecolor="white")
        if not groups:
            figure.text(0.5, 0.5, "no lesion could be planted", ha="center", va="center")
        for row, ((kind, endpoint), part) in enumerate(groups):
            left = figure.add_subplot(len(groups), 2, 2 * row + 1)
            right = figure.add_subplot(len(groups), 2, 2 * row + 2)
            title = f"{str(endpoint).replace('_', ' ')} on {kind}"
            _volumes(left, part, title)
            chosen = (summary["kind"] == kind) & (summary["endpoint"] == endpoint)
            _detection(right, summary[chosen & summary["size_ml"].notna() & (summary["n"] > 0)])
        figure.tight_layout()
        figure.savefig(path, dpi=110, metadata={"Software": None})
    return Path(path)


def _volumes(axes: Any, part: pd.DataFrame, title: str) -> None:
    planted = part["planted_ml"].astype(float)
    floor = _FLOOR * float(planted.min())
    found = part["found_ml"].astype(float).clip(lower=floor)
    high = 1.5 * float(max(planted.max(), found.max()))
    axes.plot([floor, high], [floor, high], color="0.6", linewidth=0.8)
    for site, (colour, marker) in _SITES.items():
        here = part["site"] == site
        if here.any():
            axes.plot(
                planted[here], found[here], marker, color=colour, markersize=4, alpha=0.7,
                linestyle="none", label=site.replace("_", " "),
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="planted, mL", ylabel="found, mL", title=title)
    axes.set_ylim(0.8 * floor, high)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _detection(axes: Any, rows: pd.DataFrame) -> None:
    for site, (colour, _) in _SITES.items():
        here = rows[rows["site"] == site].sort_values("size_ml")
        if len(here):
            axes.plot(here["size_ml"], here["detection_rate"], color=colour, linewidth=0.9)
    whole = rows[rows["site"] == "all"].sort_values("size_ml")
    rate = whole["detection_rate"].to_numpy(float)
    low = rate - whole["detection_ci_low"].to_numpy(float)
    high = whole["detection_ci_high"].to_numpy(float) - rate
    errors = np.clip([low, high], 0.0, None)
    axes.errorbar(
        whole["size_ml"], rate, yerr=errors, color="black", marker="o", markersize=4, capsize=3,
        label="all sites, 95 % CI",
    )  # fmt: skip
    axes.set(xscale="log", xlabel="planted, mL", ylabel="detected", title="detection rate")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
