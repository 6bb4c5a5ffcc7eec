"""Every quality metric of a study by site: one strip of points each, which lead to the subjects.

The form is that of MRIQC's group report (Esteban et al., PLoS One 2017;12:e0184661).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from corelab.provenance.figure_style import (
    AMBER,
    BLUE,
    GREY,
    RED,
    name_points,
    on_a_page,
    svg_of,
)
from corelab.provenance.products import read_table
from corelab.reporting.exhibits import Shown
from corelab.reporting.results import Results
from corelab.reporting.vocabulary import criterion_words
from corelab.terms.kinds import kind_words

#: Points of a strip, shared by its sites, and of a site at least: those nearest the ends are drawn,
#: and a box of the rest.
MAX_POINTS, LEAST_POINTS = 120, 6
#: Values of a site from which its quartiles are drawn.
LEAST_FOR_BOX = 5
#: Columns of the table of fits that are metrics.
_FITS = ("dice", "mutual_information", "edge_correlation", "inverse_consistency_mm")
_VERDICTS = {"fail": ("outside", RED), "warning": ("doubtful", AMBER)}
_SITE_INCHES, _HEAD_INCHES, _WIDTH_INCHES = 0.2, 0.5, 3.6


def quality_metrics(results: Results) -> pd.DataFrame:
    """Numeric quality metrics of scans and fits: metric (with unit), site, participant, verdict.

    Metrics that are the same for every scan are left out: they tell sites apart in nothing.
    """
    scans = results.acquisition
    rows = pd.DataFrame(
        {
            "metric": [
                _metric(str(kind), str(criterion))
                for kind, criterion in zip(scans["kind"], scans["criterion"], strict=True)
            ],
            "site": scans["site"],
            "participant_id": scans["participant_id"].astype(str),
            "value": pd.to_numeric(scans["value"], errors="coerce"),
            "verdict": scans["verdict"],
        }
    )
    path = results.folder / "quality" / "registration.tsv"
    if path.is_file():
        fits = read_table(path, numeric=list(_FITS))
        people = results.participants
        site = (
            dict(zip(people["participant_id"].astype(str), people["site"], strict=True))
            if ("site" in people)
            else {}
        )
        who = fits["participant_id"].astype(str)
        for name in _FITS:
            words, unit, _ = criterion_words(name)
            own = {"metric": f"registration: {words}" + (f", {unit}" if unit else "")}
            rows = pd.concat(
                [
                    rows,
                    pd.DataFrame(
                        {
                            **own,
                            "site": who.map(site),
                            "participant_id": who,
                            "value": fits[name],
                            "verdict": fits["status"].map({"failed": "fail"}),
                        }
                    ),
                ]
            )
    rows = rows[np.isfinite(rows["value"].astype(float))]
    rows["site"] = rows["site"].fillna("no site").astype(str)
    differ = rows.groupby("metric")["value"].transform("nunique") > 1
    return rows[differ].reset_index(drop=True)


def _metric(kind: str, criterion: str) -> str:
    words, unit, _ = criterion_words(criterion)
    unit = "mL" if criterion == "brain_mask" else unit
    return f"{kind_words(kind)}: {words}" + (f", {unit}" if unit else "")


def quality_strips(results: Results) -> list[Shown]:
    """One small figure per metric, worst first; a click on a point opens the subject's page."""
    rows = quality_metrics(results)
    found = []
    for metric, own in rows.groupby("metric", sort=True):
        outside = int(own["verdict"].isin(list(_VERDICTS)).sum())
        found.append((-outside, str(metric), _strip(str(metric), own, results.pages, outside)))
    return [shown for _, _, shown in sorted(found, key=lambda item: item[:2])]


def _strip(metric: str, rows: pd.DataFrame, pages: Mapping[str, str], outside: int) -> Shown:
    from matplotlib.figure import Figure

    sites = sorted(set(rows["site"]))
    figure = Figure(figsize=(_WIDTH_INCHES, _HEAD_INCHES + _SITE_INCHES * len(sites)))
    axes = figure.add_subplot()
    named: list[tuple[str, float, float, str | None]] = []
    for place, site in enumerate(sites):
        own = rows[rows["site"] == site].sort_values("value", kind="stable")
        low, middle, high = np.percentile(own["value"], [25, 50, 75])
        if len(own) >= LEAST_FOR_BOX:
            axes.plot([low, high], [place] * 2, color=GREY, lw=5, alpha=0.3, solid_capstyle="butt")
            axes.plot([middle], [place], "|", color=GREY, ms=9, mew=1.4)
        drawn = own[own["verdict"].isin(list(_VERDICTS))]
        rest = own.drop(drawn.index)
        most = max(MAX_POINTS // len(sites), LEAST_POINTS)
        if len(rest) > most:
            rest = pd.concat([rest.head(most // 2), rest.tail(most // 2)])
        for part in (rest, drawn):
            verdicts = [_VERDICTS.get(str(v), ("", BLUE)) for v in part["verdict"]]
            at = place + 0.22 * np.cos(2.4 * np.arange(len(part)))
            colours = [colour for _, colour in verdicts]
            axes.scatter(part["value"], at, s=14, c=colours, alpha=0.75, linewidths=0, zorder=3)
            for (words, _), who, x, y in zip(
                verdicts, part["participant_id"], part["value"], at, strict=True
            ):
                text = f"{who}, {site}: {x:.4g}" + (f", {words}" if words else "")
                named.append((text, x, y, pages.get(who)))
    axes.set_yticks(range(len(sites)), sites, fontsize=8)
    axes.set_ylim(len(sites) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.locator_params(axis="x", nbins=5)
    axes.spines[["top", "right"]].set_visible(False)
    texts, x, y, links = zip(*named, strict=True)
    name_points(axes, texts, x, y, used="", links=links)
    n = f"{len(rows)} values" + (f", {outside} outside or doubtful" if outside else "")
    key = "strip-" + "".join(c if c.isalnum() else "-" for c in metric)
    svg = on_a_page(svg_of(figure), key, f"{metric} by site: {n}")
    return Shown(metric[0].upper() + metric[1:], n, svg, "", "", "", None)
