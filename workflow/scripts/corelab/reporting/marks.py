"""Marks of intervals for the cells of a table, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


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
