"""Style of every drawn figure: palette, canvas, SVG writer, and the form that a page embeds.

A figure is drawn once, with Matplotlib. Its SVG file goes into the PDF as it is; a page embeds
the same drawing with the palette as CSS variables, so that it is readable in dark mode.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike

from corelab.provenance.products import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Series of arms, sources and curves, in this order everywhere. After Okabe and Ito (2008), which
#: stay apart for the colour-blind, darkened to a contrast of 3:1 or more on white (WCAG 1.4.11).
COLOURS = (
    "#0072b2",
    "#c98500",
    "#008a66",
    "#b8588f",
    "#2d8fc4",
    "#c04f00",
    "#8a7f00",
    "#6b6b6b",
)
BLUE, AMBER, GREEN, PINK, SKY, RED = COLOURS[:6]
#: Lines and words that are no series, grid lines, and words on a light cell.
GREY, FAINT, ON_LIGHT = "#5a5a5a", "#dddddd", "#10202e"
#: Settings under which figures are made and written: text stays text, and bytes repeat.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "corelab",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
}
#: How figures of many pixels are packed: half the time of Pillow's default, and no larger.
PNG_OPTIONS = {"compress_level": 3}
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
#: Colours that a page replaces: the palette, ink, and the two greys.
_ON_A_PAGE = {
    **{colour: f"var(--s{place})" for place, colour in enumerate(COLOURS)},
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    **dict.fromkeys((GREY, "#4d4d4d", "#808080"), "var(--soft)"),
    **dict.fromkeys((FAINT, "#b3b3b3"), "var(--line)"),
}


def font_folder() -> Path:
    """Folder of the TrueType fonts that figures are set in (they come with Matplotlib)."""
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf"


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, without pyplot and its global state."""
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width, height), layout="constrained", dpi=150)


def panel(figure: Figure, rows: int = 1, columns: int = 1, place: int = 1) -> Axes:
    """Axes of a grid without the frame's top and right."""
    axes = figure.add_subplot(rows, columns, place)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return axes


def save_figure(figure: Figure, path: str | PathLike[str], *, tight: bool = False) -> Path:
    """Write a figure atomically as PNG, SVG or PDF (by suffix), without dates or versions.

    Parameters
    ----------
    figure
        Matplotlib figure.
    path
        File to write.
    tight
        Crop to what is drawn.

    Examples
    --------
    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> path = save_figure(Figure(figsize=(1, 1)), Path(tempfile.mkdtemp(), "empty.png"))
    >>> path.stat().st_size > 100
    True
    """
    import matplotlib as mpl

    box: dict[str, Any] = {"bbox_inches": "tight"} if tight else {}
    suffix = Path(path).suffix
    with mpl.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=_METADATA[suffix], **box)
        if suffix == ".svg":
            temporary.write_text(_titled(temporary.read_text("utf-8")), encoding="utf-8")
    return Path(path)


def svg_of(figure: Figure) -> str:
    """The SVG of a figure as text."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata=_METADATA[".svg"], bbox_inches="tight")
    return _titled(buffer.getvalue().decode("utf-8"))


#: Begins the address of a point that has a text; Matplotlib writes no titles, but addresses.
_POINT = "point:"


def name_points(
    axes: Axes,
    names: Iterable[object],
    x: ArrayLike,
    y: ArrayLike,
    *,
    used: str = "used",
    links: Iterable[str | None] = (),
) -> None:
    """Give drawn points texts that a page shows under the pointer and on focus.

    The text has the name, the values with the labels of the axes, and whether the point was used:
    name points when both axes have their labels. What is drawn does not change.

    Parameters
    ----------
    axes
        That the points are drawn on.
    names
        Of each point: a participant, or a tuple of participant and visit. Never an arm.
    x, y
        Where the points are; the value of an axis without ticks or label is not named.
    used
        Said of each point; empty for nothing.
    links
        Page that each point leads to.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(2, 2))
    >>> axes = figure.add_subplot(xlabel="Dose", ylabel="Growth, mL")
    >>> name_points(axes, ["007"], [2.0], [5.25])
    >>> "<title>007; Dose 2; Growth, mL 5.25; used</title>" in svg_of(figure)
    True
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    labels = [
        axis.get_label_text() * bool(len(axis.get_ticklocs())) for axis in (axes.xaxis, axes.yaxis)
    ]
    texts = []
    for name, *place in zip(names, x, y, strict=True):
        who = ", ".join(map(str, name)) if isinstance(name, tuple) else str(name)
        values = [
            f"{label} {value:.4g}" for label, value in zip(labels, place, strict=True) if label
        ]
        texts.append("; ".join(text for text in (who, *values, used) if text))
    points = axes.scatter(x, y, s=45, c="black", alpha=0, linewidths=0, zorder=6)
    addresses = zip_longest(texts, links, fillvalue="")
    points.set_urls([f"{_POINT}{quote(text)}|{link or ''}" for text, link in addresses])


def _titled(svg: str) -> str:
    """The drawing with named points as groups, or links, with titles."""

    def titled(match: re.Match[str]) -> str:
        text, link, drawn = escape(unquote(match[1])), match[2], match[3]
        tag = f'a xlink:href="{link}"' if link else 'g role="img"'
        return f'<{tag} class="point"><title>{text}</title>{drawn}</{tag[0]}>'

    pattern = rf'<a xlink:href="{_POINT}([^"|]*)\|([^"]*)"[^>]*>(.*?)</a>'
    return re.sub(pattern, titled, svg, flags=re.DOTALL)


def on_a_page(svg: str, name: str, alt: str) -> Markup:
    """An SVG of :func:`save_figure` as an element of an HTML page.

    Colours become the CSS variables of the page, words take its font, ids get ``name`` before
    them so that several figures can stand on one page.

    Parameters
    ----------
    svg
        Content of the file.
    name
        Unique on the page.
    alt
        What the figure shows, for readers that do not see it.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(1, 1))
    >>> line = figure.add_subplot().plot([0, 1], color=COLOURS[0])
    >>> text = on_a_page(svg_of(figure), "a", "A line")
    >>> "var(--s0)" in text, 'aria-label="A line"' in text, "<?xml" in text
    (True, True, False)
    """
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*|<style.*?</style>", "", text, flags=re.DOTALL)
    # Groups carry ids that nothing refers to; clip paths, markers and glyphs are referred to.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"#[0-9a-fA-F]{6}\b", lambda m: _ON_A_PAGE.get(m[0].lower(), m[0]), text)
    # White words stand on a filled cell, which keeps its colour.
    text = re.sub(r"(<text[^>]*?)var\(--paper\)", r"\g<1>#ffffff", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    width = f"{float(box[1]) * 4 / 3:.0f}px" if box else "100%"
    # Links and points within a picture are reached only where it is a group.
    role = "group" if "<a " in text or "<title" in text else "img"
    head = (
        f'<svg class="drawn" role="{role}" aria-label="{escape(alt)}" style="max-width: {width}"'
        + (f' viewBox="{box[0][9:-1]}"' if box else "")
        + ">"
    )
    return Markup(re.sub(r"<svg[^>]*>", lambda _: head, text, count=1))


__all__ = [
    *("AMBER", "BLUE", "COLOURS", "FAINT", "GREEN", "GREY", "ON_LIGHT", "PINK", "RED", "SKY"),
    "PNG_OPTIONS",
    *("STYLE", "font_folder", "name_points", "on_a_page", "save_figure", "svg_of"),
]
