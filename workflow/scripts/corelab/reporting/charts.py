"""Charts as inline SVG: they need no script, follow light and dark, print, and are deterministic.

Marks carry their text in ``data-tip`` (shown on hover by the page's script) and in ``<title>``.
Series differ in colour and in shape. Nothing is computed here but positions on the page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from corelab.reporting.numbers import MINUS

WIDTH = 440.0
HEIGHT = 300.0
SHAPES = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Point:
    """A mark: position, what hovering tells, and the number of its series."""

    x: float
    y: float
    tip: str
    series: int = 0


@dataclass(frozen=True)
class Line:
    """A horizontal line with the band of its interval."""

    y: float
    text: str
    low: float | None = None
    high: float | None = None
    strong: bool = False


def nice_ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Round numbers that cover an interval.

    Examples
    --------
    >>> nice_ticks(0.3, 9.6), nice_ticks(-0.42, 0.37, 4)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [-0.6, -0.4, -0.2, 0.0, 0.2, 0.4])
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return [0.0, 1.0]
    if high <= low:
        half = abs(low) * 0.5 or 0.5
        low, high = low - half, high + half
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's number.

    Examples
    --------
    >>> tick_text(-2.0), tick_text(0.25), tick_text(150000.0)
    ('−2', '0.25', '150000')
    """
    return f"{value:.10g}".replace("-", MINUS)


@dataclass(frozen=True)
class _Axes:
    """Scales from data to the page."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 52.0
    right: float = 12.0
    top: float = 12.0
    bottom: float = 44.0
    width: float = WIDTH
    height: float = HEIGHT
    cube_root: bool = False

    def px(self, value: float) -> float:
        share = (value - self.x[0]) / (self.x[1] - self.x[0])
        return self.left + share * (self.width - self.left - self.right)

    def py(self, value: float) -> float:
        low, high = self.y
        if self.cube_root:
            value, low, high = (math.copysign(abs(v) ** (1 / 3), v) for v in (value, low, high))
        share = (value - low) / (high - low)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, **attributes: str) -> Markup:
    extra = Markup("").join(
        Markup(' {}="{}"').format(key.replace("_", "-").rstrip("-"), value)
        for key, value in attributes.items()
    )
    return Markup('<text x="{}" y="{}"{}>{}</text>').format(_n(x), _n(y), extra, text)


def _mark(x: float, y: float, series: int, tip: str, size: float = 4.0) -> Markup:
    shape = SHAPES[series % len(SHAPES)]
    css = f"mark s{series % 8}"
    if shape == "circle":
        body = Markup('<circle cx="{}" cy="{}" r="{}"').format(_n(x), _n(y), _n(size))
    else:
        corners = {
            "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
            "triangle": ((0, -1.15), (1.05, 0.85), (-1.05, 0.85)),
            "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        }[shape]
        points = " ".join(f"{_n(x + a * size)},{_n(y + b * size)}" for a, b in corners)
        body = Markup('<polygon points="{}"').format(points)
    return body + Markup(' class="{}" data-tip="{}"><title>{}</title></{}>').format(
        css, tip, tip, "circle" if shape == "circle" else "polygon"
    )


def _svg(axes: _Axes, body: Sequence[Markup], label: str) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_n(axes.width), _n(axes.height), label, Markup("").join(body))


def _grid(
    axes: _Axes,
    xticks: Sequence[tuple[float, str]],
    yticks: Sequence[float],
    xlabel: str,
    ylabel: str,
) -> list[Markup]:
    body: list[Markup] = []
    bottom = axes.height - axes.bottom
    for tick in yticks:
        y = axes.py(tick)
        body.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _n(axes.left), _n(axes.width - axes.right), _n(y), _n(y)
            )
        )
        body.append(_text(axes.left - 6, y + 3.5, tick_text(tick), text_anchor="end"))
    for tick, text in xticks:
        body.append(_text(axes.px(tick), bottom + 15, text, text_anchor="middle"))
    body.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _n(axes.left), _n(axes.width - axes.right), _n(bottom), _n(bottom)
        )
    )
    if xlabel:
        middle = (axes.left + axes.width - axes.right) / 2
        body.append(_text(middle, axes.height - 8, xlabel, text_anchor="middle", class_="label"))
    ymid = (axes.top + bottom) / 2
    body.append(
        _text(
            13,
            ymid,
            ylabel,
            text_anchor="middle",
            class_="label",
            transform=f"rotate(-90 13 {_n(ymid)})",
        )
    )
    return body


def skewed(values: Sequence[float]) -> bool:
    """Whether values (none negative) need an axis that spreads the small ones.

    Examples
    --------
    >>> skewed([1, 2, 3, 4, 180.0]), skewed([1, 2, 3, 4, 5.0]), skewed([-1, 1, 1, 1, 200.0])
    (True, False, False)
    """
    if len(values) < 5 or min(values) < 0:
        return False
    middle = sorted(values)[len(values) // 2]
    return max(values) > 8 * max(middle, 1e-9)


def cube_root_ticks(high: float) -> list[float]:
    """Round numbers from 0 to beyond ``high`` for a cube-root axis.

    Examples
    --------
    >>> cube_root_ticks(174.0)
    [0.0, 2.0, 20.0, 100.0, 200.0]
    """
    steps = [10.0**k * m for k in range(-4, 7) for m in (1, 2, 5)]
    top = next(step for step in steps if step >= high)
    kept = [t for t in steps if t <= top]
    chosen = [kept[-1]]
    for step in reversed(kept[:-1]):
        if chosen[-1] ** (1 / 3) - step ** (1 / 3) > 0.18 * top ** (1 / 3):
            chosen.append(step)
    while chosen and chosen[-1] ** (1 / 3) < 0.1 * top ** (1 / 3):
        chosen.pop()
    return [0.0, *reversed(chosen)]


def _span(values: Sequence[float]) -> tuple[list[float], tuple[float, float]]:
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    ticks = nice_ticks(min(finite), max(finite))
    return ticks, (ticks[0], ticks[-1])


def scatter(
    points: Sequence[Point],
    *,
    xlabel: str,
    ylabel: str,
    label: str,
    lines: Sequence[Line] = (),
) -> Markup:
    """Points, with horizontal lines and their intervals (Bland-Altman).

    Examples
    --------
    >>> text = scatter([Point(1, 2, "<b>")], xlabel="x", ylabel="y", label="one point")
    >>> "<b>" in text, "&lt;b&gt;" in text
    (False, True)
    """
    xticks, xspan = _span([point.x for point in points])
    levels = [v for line in lines for v in (line.y, line.low, line.high) if v is not None]
    yticks, yspan = _span([*(point.y for point in points), *levels])
    cube_root = not lines and skewed([point.y for point in points])
    if cube_root:
        yticks = cube_root_ticks(max(point.y for point in points))
        yspan, ylabel = (yticks[0], yticks[-1]), f"{ylabel} (cube-root axis)"
    axes = _Axes(xspan, yspan, right=78.0 if lines else 12.0, cube_root=cube_root)
    body = _grid(axes, [(tick, tick_text(tick)) for tick in xticks], yticks, xlabel, ylabel)
    right = axes.width - axes.right
    for line in lines:
        if line.low is not None and line.high is not None:
            body.append(
                Markup('<rect class="band" x="{}" y="{}" width="{}" height="{}"/>').format(
                    _n(axes.left),
                    _n(axes.py(line.high)),
                    _n(right - axes.left),
                    _n(abs(axes.py(line.low) - axes.py(line.high))),
                )
            )
        y = axes.py(line.y)
        body.append(
            Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                "level strong" if line.strong else "level", _n(axes.left), _n(right), _n(y), _n(y)
            )
        )
        body.append(_text(right + 5, y + 3.5, line.text, class_="level-text"))
    body += [_mark(axes.px(p.x), axes.py(p.y), p.series, p.tip) for p in points]
    return _svg(axes, body, label)


def _jitter(number: int) -> float:
    """A fixed spread in [-0.5, 0.5) that looks random (golden-ratio sequence)."""
    return (number * 0.6180339887498949) % 1.0 - 0.5


def strips(
    groups: Sequence[tuple[str, Sequence[tuple[float, str]]]],
    *,
    ylabel: str,
    label: str,
    middles: Sequence[float | None] = (),
    series: Sequence[int] = (),
) -> Markup:
    """Every value as a dot, by group; ``middles`` draws one short line per group.

    Examples
    --------
    >>> "<svg" in strips([("placebo", [(1.0, "S-01")])], ylabel="mL", label="values")
    True
    """
    yticks, yspan = _span([0.0, *(value for _, values in groups for value, _ in values)])
    axes = _Axes((-0.5, len(groups) - 0.5), yspan, bottom=24.0)
    names = [(float(k), f"{name} (n = {len(values)})") for k, (name, values) in enumerate(groups)]
    body = _grid(axes, names, yticks, "", ylabel)
    for k, (_, values) in enumerate(groups):
        number = series[k] if series else k
        for j, (value, tip) in enumerate(values):
            body.append(_mark(axes.px(k + 0.45 * _jitter(j + 1)), axes.py(value), number, tip, 3.6))
        middle = middles[k] if k < len(middles) else None
        if middle is not None and math.isfinite(middle):
            y = _n(axes.py(middle))
            body.append(
                Markup('<line class="middle" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                    _n(axes.px(k - 0.3)), _n(axes.px(k + 0.3)), y, y
                )
            )
    return _svg(axes, body, label)


def trajectories(
    subjects: Sequence[tuple[str, int, Sequence[float | None]]],
    visits: Sequence[str],
    *,
    ylabel: str,
    label: str,
) -> Markup:
    """One line per subject over the visits; gaps where a value is missing.

    Examples
    --------
    >>> svg = trajectories([("S-01", 0, [1.0, None])], ["a", "b"], ylabel="mL", label="course")
    >>> svg.count("<circle")
    1
    """
    every = [v for _, _, values in subjects for v in values if v is not None]
    yticks, yspan = _span([0.0, *every])
    cube_root = skewed(every)
    if cube_root:
        yticks = cube_root_ticks(max(every))
        yspan, ylabel = (yticks[0], yticks[-1]), f"{ylabel} (cube-root axis)"
    axes = _Axes((-0.25, len(visits) - 0.75), yspan, bottom=24.0, cube_root=cube_root)
    body = _grid(axes, [(float(k), visit) for k, visit in enumerate(visits)], yticks, "", ylabel)
    for tip, series, values in subjects:
        known = [(k, value) for k, value in enumerate(values) if value is not None]
        if len(known) > 1:
            path = " ".join(f"{_n(axes.px(k))},{_n(axes.py(value))}" for k, value in known)
            body.append(
                Markup('<polyline class="course s{}" points="{}" data-tip="{}"/>').format(
                    series % 8, path, tip
                )
            )
        body += [
            _mark(axes.px(k), axes.py(v), series, f"{tip}, {visits[k]}: {v:.4g}", 3.2)
            for k, v in known
        ]
    return _svg(axes, body, label)


def stacked(
    groups: Sequence[tuple[str, Sequence[int]]], levels: Sequence[str], *, label: str
) -> Markup:
    """Counts of ordered levels as horizontal bars of equal length (Grotta bar).

    Examples
    --------
    >>> svg = stacked([("placebo", [1, 3])], ["0", "1"], label="mRS")
    >>> "25 %" in svg
    True
    """
    height = 34.0 + 40.0 * len(groups)
    axes = _Axes((0.0, 1.0), (0.0, 1.0), left=96.0, top=8.0, bottom=26.0, height=height)
    body: list[Markup] = []
    steps = max(len(levels) - 1, 1)
    for row, (name, numbers) in enumerate(groups):
        total = sum(numbers)
        y = axes.top + 40.0 * row
        body.append(_text(axes.left - 8, y + 20, f"{name} (n = {total})", text_anchor="end"))
        start = 0.0
        for level, number in enumerate(numbers):
            if not number:
                continue
            x, end = axes.px(start / total), axes.px((start + number) / total)
            tip = f"{name}, {levels[level]}: {number} of {total} ({100 * number / total:.0f} %)"
            shade = round(8 * level / steps)
            body.append(
                Markup(
                    '<rect class="level-{}" x="{}" y="{}" width="{}" height="32" data-tip="{}">'
                    "<title>{}</title></rect>"
                ).format(shade, _n(x), _n(y), _n(max(end - x - 1, 0.5)), tip, tip)
            )
            if end - x > 16:
                css = "on-dark" if shade > 4 else "on-light"
                body.append(
                    _text((x + end) / 2, y + 20, levels[level], text_anchor="middle", class_=css)
                )
            start += number
    return _svg(axes, body, label)


def steps(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    label: str,
) -> Markup:
    """Falling step curves from 1 (survival), one per group.

    Parameters
    ----------
    curves
        Name, times of the steps, level just after each of them.
    xlabel, ylabel, label
        Words of the axes, and of the chart for those who cannot see it.

    Examples
    --------
    >>> "polyline" in steps([("a", [1.0], [0.5])], xlabel="days", ylabel="share", label="l")
    True
    """
    xticks, xspan = _span([0.0, *(t for _, times, _ in curves for t in times)])
    axes = _Axes(xspan, (0.0, 1.0))
    body = _grid(
        axes, [(t, tick_text(t)) for t in xticks], [0.0, 0.25, 0.5, 0.75, 1.0], xlabel, ylabel
    )
    for number, (name, times, levels) in enumerate(curves):
        points, before = [f"{_n(axes.px(0.0))},{_n(axes.py(1.0))}"], 1.0
        for time, level in zip(times, levels, strict=True):
            points.append(f"{_n(axes.px(time))},{_n(axes.py(before))}")
            points.append(f"{_n(axes.px(time))},{_n(axes.py(level))}")
            before = level
        body.append(
            Markup('<polyline class="step s{}" points="{}" data-tip="{}"/>').format(
                number % 8, " ".join(points), name
            )
        )
    return _svg(axes, body, label)


def intervals(
    rows: Sequence[tuple[str, float, float | None, float | None, int]], *, ylabel: str, label: str
) -> Markup:
    """Estimates with vertical intervals along named positions, by series.

    Examples
    --------
    >>> "mark" in intervals([("0.5", -3.0, -5.0, -1.0, 0)], ylabel="mL", label="l")
    True
    """
    names = list(dict.fromkeys(row[0] for row in rows))
    values = [v for _, *three, _ in rows for v in three if v is not None]
    yticks, yspan = _span([0.0, *values])
    axes = _Axes((-0.5, len(names) - 0.5), yspan, bottom=24.0)
    body = _grid(axes, [(float(k), name) for k, name in enumerate(names)], yticks, "", ylabel)
    none = _n(axes.py(0.0))
    body.append(
        Markup('<line class="level strong" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _n(axes.left), _n(axes.width - axes.right), none, none
        )
    )
    several = max((row[4] for row in rows), default=0) + 1
    for name, estimate, low, high, series in rows:
        x = axes.px(names.index(name) + 0.16 * (series - (several - 1) / 2))
        if low is not None and high is not None:
            body.append(
                Markup('<line class="course s{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                    series % 8, _n(x), _n(x), _n(axes.py(low)), _n(axes.py(high))
                )
            )
        body.append(_mark(x, axes.py(estimate), series, f"{name}: {estimate:.4g}"))
    return _svg(axes, body, label)


def interval_axis(rows: Sequence[tuple[float, float, float]], ratio: bool) -> tuple[float, float]:
    """Common axis of a forest: covers all intervals and the line of no effect.

    Examples
    --------
    >>> interval_axis([(-5.0, -8.0, -1.5)], False)
    (-8.0, 0.0)
    """
    none = 1.0 if ratio else 0.0
    values = [none, *(v for row in rows for v in row if math.isfinite(v) and (v > 0 or not ratio))]
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 1.0, high + 1.0)


def forest_mark(
    estimate: float, low: float | None, high: float | None, axis: tuple[float, float], ratio: bool
) -> Markup:
    """The mark of one row of a forest: interval, estimate and the line of no effect.

    Examples
    --------
    >>> 'class="ci"' in forest_mark(-5.0, -8.0, -1.5, (-8.0, 0.0), False)
    True
    """

    def scale(value: float) -> float:
        if ratio:
            value, first, last = (math.log(max(v, 1e-9)) for v in (value, *axis))
        else:
            first, last = axis
        return 6.0 + 148.0 * (value - first) / (last - first)

    none = scale(1.0 if ratio else 0.0)
    axis_lines = [Markup('<line class="none" x1="{0}" x2="{0}" y1="0" y2="18"/>').format(_n(none))]
    return _interval_mark(axis_lines, scale, estimate, low, high)


def _interval_mark(
    axis: Sequence[Markup],
    scale: Callable[[float], float],
    estimate: float,
    low: float | None,
    high: float | None,
) -> Markup:
    """A row's picture: the lines of its axis, interval and estimate."""
    body = list(axis)
    if low is not None and high is not None:
        body.append(
            Markup('<line class="ci" x1="{}" x2="{}" y1="9" y2="9"/>').format(
                _n(scale(low)), _n(scale(high))
            )
        )
    body.append(
        Markup('<rect class="point" x="{}" y="5.5" width="7" height="7"/>').format(
            _n(scale(estimate) - 3.5)
        )
    )
    return Markup(
        '<svg class="forest" viewBox="0 0 160 18" width="160" height="18" aria-hidden="true">'
        "{}</svg>"
    ).format(Markup("").join(body))


def share_mark(estimate: float, low: float | None, high: float | None) -> Markup:
    """The mark of a coefficient on an axis from 0 to 1: interval and estimate, ticks at the ends.

    Examples
    --------
    >>> share_mark(0.96, 0.76, 0.99).count("<line")
    4
    """

    def scale(value: float) -> float:
        return 6.0 + 148.0 * min(max(value, 0.0), 1.0)

    axis_lines = [
        Markup('<line class="axis" x1="{}" x2="{}" y1="9" y2="9"/>').format(_n(6.0), _n(154.0)),
        *(
            Markup('<line class="axis" x1="{0}" x2="{0}" y1="5" y2="13"/>').format(_n(scale(end)))
            for end in (0.0, 1.0)
        ),
    ]
    return _interval_mark(axis_lines, scale, estimate, low, high)


def legend(names: Sequence[str]) -> Markup:
    """Legend of series: shape, colour and name.

    Examples
    --------
    >>> "placebo" in legend(["placebo"])
    True
    """
    items = [
        Markup(
            '<li><svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">{}</svg>{}</li>'
        ).format(_mark(6, 6, number, ""), escape(name))
        for number, name in enumerate(names)
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def standalone(svg: Markup) -> bytes:
    """A chart as an SVG file of its own, with its colours inside and its hover texts left out.

    Examples
    --------
    >>> file = standalone(scatter([Point(1, 2, "tip")], xlabel="x", ylabel="y", label="l"))
    >>> b"xmlns" in file, b"tip" in file
    (True, False)
    """
    text = re.sub(r"<title>.*?</title>", "", str(svg), flags=re.DOTALL)
    text = re.sub(r' (data-tip|aria-label|role)="[^"]*"', "", text)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    width, height = (float(size[1]), float(size[2])) if size else (WIDTH, HEIGHT)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}"'
    text = text.replace("<svg", head, 1)
    # The page's colours (light) come from a file of their own.
    style = (Path(__file__).parent / "assets" / "chart.css").read_text(encoding="utf-8")
    return text.replace(">", f"><style>{style}</style>", 1).encode("utf-8")
