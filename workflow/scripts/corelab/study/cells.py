"""Numbers and codes in the cells of a sheet: one reading for the preflight and every analysis."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any

import pandas as pd

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: Digits that are no number: zeros in front, or more of them than a number of 64 bits keeps.
_CODE = re.compile(r"0\d+|\d{16,}", re.ASCII)
_CAPPED = re.compile(r"(?:>=?|≥)\s*(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?)\s*\+", re.ASCII)
#: Columns in which a cap such as ``89+`` is a value: ages are capped to protect privacy (HIPAA).
CAPPED_COLUMNS = frozenset({"age"})
#: Participants columns that are labels even where they are written as numbers.
LABEL_COLUMNS = frozenset(
    {"arm", "site", "centre", "center", "country", "scanner", "sex", "reader"}
)


def number(value: Any, *, capped: bool = False) -> float:
    """The number in a cell.

    Parameters
    ----------
    value
        Text of a sheet (ASCII digits, a decimal point), or a number, which passes through.
    capped
        Whether ``89+``, ``>89`` and ``>=89`` are read as 89 (:data:`CAPPED_COLUMNS`).

    Raises
    ------
    ValueError
        With what is wrong, if the cell is no finite number.

    Examples
    --------
    >>> number(" 1.5e3"), number("89+", capped=True)
    (1500.0, 89.0)
    >>> number("１２")
    Traceback (most recent call last):
    ValueError: not a number: it has digits of another script (write 12)
    """
    if not isinstance(value, str):
        found = float(value)
    else:
        text = value.strip()
        if capped and (match := _CAPPED.fullmatch(text)):
            text = match[1] or match[2]
        if not _NUMBER.fullmatch(text):
            raise ValueError(_problem(text))
        found = float(text)
    if not math.isfinite(found):
        raise ValueError("not a finite number")
    return found


#: What is wrong with a cell that is nearly a number, the first that fits.
_NEARLY = (
    (r"#[A-Z/0!?#]*", "it is the error of a spreadsheet program (write the number, or n/a)"),
    (r"[<>≤≥].*", "it is a limit, and no value (write the value, or name it in the key recode)"),
    (r"[^%]*%", "it has a percent sign (write the number alone)"),
    (r"[+-]?\d+,\d+", "it has a comma (write a decimal point, and no mark for thousands)"),
    (r"[+-]?\d[\d.,' ]*", "it has marks for thousands (write digits and a decimal point alone)"),
    (r"[+-]?\d[\d.,]* ?[^\d.,eE].*", "it has a unit or a word (write the number alone)"),
)


def _problem(text: str) -> str:
    """What is wrong with a cell that is no number."""
    plain = unicodedata.normalize("NFKC", text).translate({0x2212: "-", 0x2013: "-"})
    plain = "".join(str(unicodedata.digit(c, c)) for c in plain)
    if plain != text and _NUMBER.fullmatch(plain):
        other = "digits" if any(c.isdigit() and not c.isascii() for c in text) else "a minus sign"
        return f"not a number: it has {other} of another script (write {plain})"
    for form, problem in _NEARLY:
        if re.fullmatch(form, plain, re.ASCII):
            return f"not a number: {problem}"
    if re.fullmatch(r"[+-]?(nan|inf(inity)?)", text, re.IGNORECASE):
        return "not a finite number"
    return "not a number (write a decimal point, no unit, n/a for missing)"


def is_capped(value: str) -> bool:
    """Whether a cell is a capped value: ``89+``, ``>89``, ``>=90``.

    Examples
    --------
    >>> is_capped("89+"), is_capped("89")
    (True, False)
    """
    return _CAPPED.fullmatch(value.strip()) is not None


def is_missing(value: Any) -> bool:
    """Whether a cell is missing: empty or ``n/a``. ``none``, ``NA`` and ``nan`` are words.

    Examples
    --------
    >>> is_missing(None), is_missing("n/a"), is_missing("none")
    (True, True, False)
    """
    if isinstance(value, str):
        return value.strip() in {"", "n/a"}
    return bool(pd.isna(value))


def level_text(value: Any) -> str:
    """Text of a level, the same whether its column was read as numbers or not: ``1.0`` is ``1``.

    Examples
    --------
    >>> level_text("1.0"), level_text(1.0), level_text("01"), level_text("none")
    ('1', '1', '01', 'none')
    """
    text = str(value)
    if _CODE.fullmatch(text.strip()):
        return text
    try:
        return f"{number(value if isinstance(value, str) else float(value)):.15g}"
    except (ValueError, TypeError):
        return text


def numbers(cells: pd.Series, *, capped: bool = False) -> pd.Series:
    """Float64 of a column: NaN where a cell is missing or no number. Index kept.

    Examples
    --------
    >>> numbers(pd.Series(["1", "n/a", "12,5", None])).tolist()
    [1.0, nan, nan, nan]
    """
    if pd.api.types.is_numeric_dtype(cells):
        return cells.astype("float64")
    known: dict[Any, float] = {}
    for value in cells.dropna().unique():
        try:
            known[value] = number(value, capped=capped)
        except (ValueError, TypeError):
            known[value] = math.nan
    return cells.map(known).astype("float64")


def is_numeric(cells: pd.Series, *, capped: bool = False) -> bool:
    """Whether a column holds numbers: every present cell is one, and none is a code such as 01.

    Examples
    --------
    >>> is_numeric(pd.Series(["1", "2.5", "n/a"])), is_numeric(pd.Series(["01", "12"]))
    (True, False)
    """
    present = cells[~cells.map(is_missing)]
    if present.empty or any(isinstance(v, str) and _CODE.fullmatch(v.strip()) for v in present):
        return False
    return bool(numbers(present, capped=capped).notna().all())


def odd_cells(cells: pd.Series, *, capped: bool = False) -> pd.Series:
    """Cells that are no number in a column where most are: a slip, not the level of a factor.

    Examples
    --------
    >>> odd_cells(pd.Series(["4", "11", ">21", "n/a"])).to_dict()
    {2: '>21'}
    >>> odd_cells(pd.Series(["none", "1", "aspirin"])).empty
    True
    """
    present = cells[~cells.map(is_missing)]
    read = numbers(present, capped=capped)
    if 2 * int(read.notna().sum()) <= len(present):
        return present[:0]
    return present[read.isna()]
