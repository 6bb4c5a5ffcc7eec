"""Numbers as people read them: digits by their uncertainty, intervals in brackets.

Full precision stays in the tables; here a number keeps two significant digits of its standard
error, so that no digit is shown that the data do not support.
"""

from __future__ import annotations

import math
from typing import Any

MINUS = "\N{MINUS SIGN}"
NOT_AVAILABLE = "n/a"
#: Half-width of a 95 % normal interval in standard errors.
_Z = 1.959963984540054
MAX_DECIMALS = 6


def is_number(value: Any) -> bool:
    """Whether a table cell holds a finite number.

    Examples
    --------
    >>> is_number("1.5"), is_number("n/a"), is_number(None), is_number(float("nan"))
    (True, False, False, False)
    """
    if value is None or isinstance(value, bool):
        return False
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def fixed(value: Any, decimals: int) -> str:
    """A number with so many decimals and a true minus sign; never a negative zero.

    Examples
    --------
    >>> fixed(-1.25, 1), fixed(-0.001, 1), fixed("n/a", 2)
    ('−1.2', '0.0', 'n/a')
    """
    if not is_number(value):
        return NOT_AVAILABLE
    text = f"{float(value):.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def _decimals_for(standard_error: float) -> int:
    """Decimals that keep two significant digits of a standard error."""
    if not (standard_error > 0 and math.isfinite(standard_error)):
        return 3
    return int(min(max(1 - math.floor(math.log10(standard_error)), 0), MAX_DECIMALS))


def significant(value: Any, digits: int = 3) -> str:
    """A number to some significant digits, without an exponent where it can be helped.

    Examples
    --------
    >>> significant(12.345), significant(0.00012345), significant(123456), significant(2)
    ('12.3', '0.000123', '123456', '2')
    """
    if not is_number(value):
        return NOT_AVAILABLE
    number = float(value)
    if number.is_integer() and abs(number) < 1e6:
        return fixed(number, 0)
    magnitude = math.floor(math.log10(abs(number)))
    if magnitude < -5 or magnitude > 6:
        return f"{number:.{digits - 1}e}".replace("-", MINUS)
    return fixed(number, max(digits - 1 - magnitude, 0))


def observed(value: Any, digits: int = 5) -> str:
    """A number as it was observed, without digits that it does not have; text stays text.

    Examples
    --------
    >>> observed(6.5), observed("5"), observed("axial"), observed(None)
    ('6.5', '5', 'axial', '')
    """
    if not is_number(value):
        return "" if value is None or value != value else str(value)
    return f"{float(value):.{digits}g}".replace("-", MINUS)


def estimate_decimals(value: Any, low: Any = None, high: Any = None) -> int:
    """Decimals of an estimate: by its interval, else three significant digits.

    Examples
    --------
    >>> estimate_decimals(-6.98, -9.1, -4.9), estimate_decimals(12.3456), estimate_decimals(0)
    (1, 1, 2)
    """
    if is_number(low) and is_number(high):
        return _decimals_for((float(high) - float(low)) / (2 * _Z))
    number = abs(float(value))
    return max(2 - math.floor(math.log10(number)), 0) if number else 2


def estimate(value: Any, low: Any = None, high: Any = None, decimals: int | None = None) -> str:
    """An estimate; ``decimals``, else its interval, decides the decimals.

    Examples
    --------
    >>> estimate(0.943217, 0.9121, 0.9651), estimate(12.3456), estimate(None)
    ('0.943', '12.3', 'n/a')
    >>> estimate(-5.4321, -9.2, -1.6), estimate(0.97312, 0.9471, 0.9862, decimals=3)
    ('−5.4', '0.973')
    """
    if not is_number(value):
        return NOT_AVAILABLE
    if decimals is not None:
        return fixed(value, decimals)
    if is_number(low) and is_number(high):
        return fixed(value, _decimals_for((float(high) - float(low)) / (2 * _Z)))
    return significant(value)


def interval(low: Any, high: Any, decimals: int | None = None) -> str:
    """A confidence interval in brackets, or nothing.

    Examples
    --------
    >>> interval(0.9121, 0.9651), interval(-9.2, -1.6), interval(None, 2)
    ('[0.912, 0.965]', '[−9.2, −1.6]', '')
    """
    if not (is_number(low) and is_number(high)):
        return ""
    if decimals is None:
        decimals = _decimals_for((float(high) - float(low)) / (2 * _Z))
    return f"[{fixed(low, decimals)}, {fixed(high, decimals)}]"


def p_value(value: Any) -> str:
    """A p value; never zero, never more digits than anybody uses, never across the level.

    Examples
    --------
    >>> [p_value(p) for p in (0.00004, 0.0234, 0.234, 0.9999, None, 0.0496, 0.04999, 0.05)]
    ['<0.001', '0.023', '0.23', '>0.99', '', '0.0496', '<0.05', '0.050']
    """
    if not is_number(value):
        return ""
    number = float(value)
    if number < 0.001:
        return "<0.001"
    if number > 0.99:
        return ">0.99"
    text = fixed(number, 3 if number < 0.1 else 2)
    if text == "0.050" and number < 0.05:
        # Rounding must not take a value across the level.
        text = fixed(number, 4) if number < 0.04995 else "<0.05"
    return text


def count(value: Any) -> str:
    """A count.

    Examples
    --------
    >>> count(36.0), count(None), count("12")
    ('36', '', '12')
    """
    return fixed(value, 0) if is_number(value) else ""


def plural(number: int, noun: str, several: str | None = None) -> str:
    """A count with its noun.

    Examples
    --------
    >>> plural(1, "scan"), plural(3, "scan"), plural(2, "analysis", "analyses")
    ('1 scan', '3 scans', '2 analyses')
    """
    return f"{number} {noun if number == 1 else several or noun + 's'}"


def file_size(size_bytes: int) -> str:
    """A file size.

    Examples
    --------
    >>> file_size(512), file_size(20_480), file_size(3_400_000)
    ('512 B', '20 kB', '3.4 MB')
    """
    if size_bytes < 1000:
        return f"{size_bytes} B"
    if size_bytes < 1_000_000:
        return f"{size_bytes / 1000:.0f} kB"
    return f"{size_bytes / 1e6:.1f} MB"
