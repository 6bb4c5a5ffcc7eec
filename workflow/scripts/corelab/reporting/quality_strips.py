"""Every quality metric of a study by site: one strip of points each, which lead to the subjects.

The form is that of MRIQC's group report (Esteban et al., PLoS One 2017;12:e0184661).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import escape

from corelab.provenance.figure_style import AMBER, BLUE, GREY, RED, on_a_page
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
#: Points (1/72 inch): width of the scale, height above it, height of a strip without sites and of a
#: site, and width of a letter.
_WIDTH, _TOP, _LEAST_HEIGHT, _SITE_HEIGHT, _LETTER = 200.0, 7.2, 27.7, 11.1, 4.4


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
    sites = sorted(set(rows["site"]))
    most = max(MAX_POINTS // len(sites), LEAST_POINTS)
    boxes: list[tuple[int, float, float, float]] = []
    points: list[_Point] = []
    for place, site in enumerate(sites):
        own = rows[rows["site"] == site].sort_values("value", kind="stable")
        if len(own) >= LEAST_FOR_BOX:
            low, middle, high = np.percentile(own["value"], [25, 50, 75])
            boxes.append((place, low, middle, high))
        drawn = own[own["verdict"].isin(list(_VERDICTS))]
        rest = own.drop(drawn.index)
        if len(rest) > most:
            rest = pd.concat([rest.head(most // 2), rest.tail(most // 2)])
        for part in (rest, drawn):
            at = place + 0.22 * np.cos(2.4 * np.arange(len(part)))
            values = zip(part["verdict"], part["participant_id"], part["value"], at, strict=True)
            for verdict, who, x, y in values:
                words, colour = _VERDICTS.get(str(verdict), ("", BLUE))
                text = f"{who}, {site}: {x:.4g}" + (f", {words}" if words else "")
                points.append(_Point(text, x, y, colour, pages.get(who)))
    n = f"{len(rows)} values" + (f", {outside} outside or doubtful" if outside else "")
    key = "strip-" + "".join(c if c.isalnum() else "-" for c in metric)
    svg = on_a_page(_drawing(sites, boxes, points), key, f"{metric} by site: {n}")
    return Shown(metric[0].upper() + metric[1:], n, svg, "", "", "", None)


@dataclass(frozen=True)
class _Point:
    """A value: its text, place, colour, and the page that it leads to."""

    text: str
    x: float
    y: float
    colour: str
    page: str | None

    def drawn(self, x: float, y: float) -> str:
        """The point as SVG, at a place in points of the picture."""
        tag = f'a xlink:href="{escape(self.page)}"' if self.page else 'g role="img"'
        return (
            f'<{tag} class="point"><title>{escape(self.text)}</title>'
            f'<circle cx="{x:.2f}" cy="{y:.2f}" r="1.9"'
            f' style="fill: {self.colour}" opacity="0.75"/>'
            f'<use xlink:href="#at" x="{x:.2f}" y="{y:.2f}"/></{tag[0]}>'
        )


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round values between two, at most six, with their texts.

    Examples
    --------
    >>> _ticks(-0.02, 0.11)
    [(0.0, '0.00'), (0.05, '0.05'), (0.1, '0.10')]
    """
    least = (high - low) / 5
    power = math.floor(math.log10(least))
    step = next(s for m in (1.0, 2.0, 2.5, 5.0, 10.0) if (s := m * 10.0**power) >= least)
    digits = next((d for d in range(5) if math.isclose(round(step, d), step)), 5)
    values = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    form = f".{digits}f" if digits < 5 else ".3g"
    return [(value, f"{value:{form}}".replace("-", "\N{MINUS SIGN}")) for value in values]


def _drawing(
    sites: Sequence[str], boxes: Sequence[tuple[int, float, float, float]], points: Sequence[_Point]
) -> str:
    """A strip as SVG: quartiles and points of each site, over one scale."""
    values = [point.x for point in points]
    rim = 0.05 * (max(values) - min(values))
    low, high = min(values) - rim, max(values) + rim
    left = 14 + _LETTER * max(map(len, sites))
    right, bottom = left + _WIDTH, _TOP + _LEAST_HEIGHT + _SITE_HEIGHT * len(sites)
    pitch = (bottom - _TOP) / (len(sites) + 0.2)

    def across(value: float) -> float:
        return left + _WIDTH * (value - low) / (high - low)

    def down(place: float) -> float:
        return _TOP + pitch * (place + 0.6)

    axes = f"M{left:.2f} {_TOP}V{bottom:.2f}H{right:.2f}"
    words = []
    for value, text in _ticks(low, high):
        x = across(value)
        axes += f"M{x:.2f} {bottom:.2f}v3.5"
        words.append(f'<text x="{x:.2f}" y="{bottom + 13:.2f}">{text}</text>')
    for place, site in enumerate(sites):
        y = down(place)
        axes += f"M{left:.2f} {y:.2f}h-3.5"
        words.append(
            f'<text x="{left - 7:.2f}" y="{y + 3:.2f}" text-anchor="end">{escape(site)}</text>'
        )
    quartiles = "".join(
        f'<path d="M{across(first):.2f} {down(place):.2f}H{across(third):.2f}" stroke-width="5"'
        f' opacity="0.3"/><path d="M{across(middle):.2f} {down(place) - 4.5:.2f}v9"'
        ' stroke-width="1.4"/>'
        for place, first, middle, third in boxes
    )
    return (
        f'<svg viewBox="0 0 {right + 7.2:.2f} {bottom + 22.2:.2f}">'
        '<defs><circle id="at" r="3.8" fill-opacity="0"/></defs>'
        f'<path d="{axes}" fill="none" style="stroke: #000000" stroke-width="0.8"/>'
        f'<g font-size="8" text-anchor="middle">{"".join(words)}</g>'
        f'<g style="stroke: {GREY}">{quartiles}</g>'
        f"{''.join(one.drawn(across(one.x), down(one.y)) for one in points)}</svg>"
    )
