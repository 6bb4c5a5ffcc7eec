"""Population expressions: a small safe grammar, never ``eval``.

An expression compares columns of the participants table (and status flags) with numbers and
quoted text: ``arm == "high" and age >= 18 and not withdrawn``. Python's parser reads it and only
the nodes listed here are walked; calls, attributes and subscripts are refused.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import Any

import pandas as pd

from corelab.study.cells import CAPPED_COLUMNS, level_text, numbers


class ExpressionError(ValueError):
    """An expression that cannot be understood, with what is wrong in it."""


_COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
MAX_LENGTH = 2000
#: Whole numbers beyond this are not exact as the floating-point numbers of a column.
LARGEST_WHOLE = 10**15


def _column(name: str, table: pd.DataFrame) -> pd.Series:
    if name not in table.columns:
        raise ExpressionError(
            f"unknown column '{name}'; known columns: {', '.join(map(str, table.columns))}"
        )
    return table[name]


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool)):
        if type(node.value) is int and abs(node.value) > LARGEST_WHOLE:
            raise ExpressionError("a number with more than 15 digits")
        return node.value
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and isinstance(node.operand.value, (int, float))
    ):
        return -_literal(node.operand)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_literal(item) for item in node.elts]
    raise ExpressionError(f"expected a number or quoted text, found '{ast.unparse(node)}'")


def _compare(left: pd.Series, op: ast.cmpop, right: Any) -> pd.Series:
    if isinstance(op, (ast.In, ast.NotIn)):
        if not isinstance(right, list):
            raise ExpressionError('\'in\' needs a list: arm in ["low", "high"]')
        inside = left.astype(object).map(level_text).isin([level_text(item) for item in right])
        return _known(inside if isinstance(op, ast.In) else ~inside, left.notna())
    function = _COMPARISONS.get(type(op))
    if function is None:
        raise ExpressionError(f"unknown comparison '{type(op).__name__}'")
    if isinstance(right, bool):
        return _known(function(_truth(left), right), _there(left))
    if isinstance(right, (int, float)):
        values = numbers(left, capped=left.name in CAPPED_COLUMNS)
        return _known(function(values, right), values.notna())
    if isinstance(right, str):
        if not isinstance(op, (ast.Eq, ast.NotEq)):
            raise ExpressionError("text can be compared with == and != only")
        same = function(left.astype(object).map(level_text), level_text(right))
        return _known(same, left.notna())
    raise ExpressionError("a column can be compared with a number or with quoted text")


def _truth(series: pd.Series) -> pd.Series:
    if series.dtype == bool:
        return series
    return (
        series.astype(object)
        .map(lambda value: str(value).strip().lower() in {"true", "1", "1.0", "yes", "y"})
        .astype(bool)
    )


def _there(series: pd.Series) -> pd.Series:
    """Cells with a value; an empty cell of text is none."""
    return series.notna() & (series.astype(object).map(lambda v: str(v).strip()) != "")


def _known(result: pd.Series, known: pd.Series) -> pd.Series:
    """Three-valued: missing where the comparison has a missing value."""
    return result.astype("boolean").mask(~known.astype(bool))


def _walk(node: ast.expr, table: pd.DataFrame) -> pd.Series:
    if isinstance(node, ast.BoolOp):
        parts = [_walk(value, table) for value in node.values]
        result = parts[0]
        for part in parts[1:]:
            result = (result & part) if isinstance(node.op, ast.And) else (result | part)
        return result
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_walk(node.operand, table)
    if isinstance(node, ast.Name):
        column = _column(node.id, table)
        return _known(_truth(column), _there(column))
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return pd.Series(node.value, index=table.index, dtype="boolean")
    if isinstance(node, ast.Compare):
        # 18 <= age < 80 is (18 <= age) and (age < 80).
        terms = [node.left, *node.comparators]
        result = pd.Series(True, index=table.index, dtype="boolean")
        mirrored = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
        for first, op, second in zip(terms, node.ops, terms[1:], strict=False):
            if isinstance(first, ast.Name):
                result &= _compare(_column(first.id, table), op, _literal(second))
            elif isinstance(second, ast.Name):
                flipped = mirrored.get(type(op), type(op))()
                result &= _compare(_column(second.id, table), flipped, _literal(first))
            else:
                raise ExpressionError(f"no column in '{ast.unparse(node)}'")
        return result
    raise ExpressionError(f"'{ast.unparse(node)}' is not allowed in an expression")


def select(expression: str | None, table: pd.DataFrame) -> pd.Series:
    """Rows of a table that satisfy an expression.

    A comparison with a missing value is neither true nor false, and neither is its ``not``: such
    a row is not selected (three-valued logic, as SQL's). :func:`undecided` counts them.

    Parameters
    ----------
    expression
        For example ``arm in ["low", "high"] and age >= 18``; None or ``all`` selects all rows.
    table
        One row per participant.

    Returns
    -------
    pandas.Series
        Booleans with the table's index.

    Raises
    ------
    ExpressionError
        With the reason, if the expression uses anything but comparisons, ``and``, ``or``,
        ``not``, column names, numbers and quoted text.

    Examples
    --------
    >>> table = pd.DataFrame({"arm": ["low", "high", None], "age": ["70", "81", "60"]})
    >>> select('arm == "high" or age < 65', table).tolist()
    [False, True, True]
    >>> select('not arm == "high"', table).tolist()
    [True, False, False]
    """
    return decide(expression, table).fillna(False).astype(bool)


def undecided(expression: str | None, table: pd.DataFrame) -> int:
    """Rows for which an expression is neither true nor false, because a value is missing.

    Examples
    --------
    >>> undecided("not mrs > 2", pd.DataFrame({"mrs": [1.0, None, 4.0]}))
    1
    """
    return int(decide(expression, table).isna().sum())


def decide(expression: str | None, table: pd.DataFrame) -> pd.Series:
    """As :func:`select`, with ``pandas.NA`` where the expression cannot be decided.

    Examples
    --------
    >>> decide("not mrs > 2", pd.DataFrame({"mrs": [1.0, None, 4.0]})).tolist()
    [True, <NA>, False]
    """
    if expression is None or expression.strip() in {"", "all"}:
        return pd.Series(True, index=table.index, dtype="boolean")
    if len(expression) > MAX_LENGTH:
        raise ExpressionError(f"longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"not understood: {error}") from None
    try:
        return _walk(tree.body, table).astype("boolean")
    except RecursionError:
        raise ExpressionError("nested too deeply") from None


def names_in(expression: str | None) -> set[str]:
    """Columns that an expression names; none where it cannot be understood.

    Examples
    --------
    >>> sorted(names_in('arm == "high" and not withdrawn'))
    ['arm', 'withdrawn']
    """
    try:
        tree = ast.parse((expression or "").strip() or "True", mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"all"}


def flag_name(endpoint: str, visit: str) -> str:
    """How an expression names the value of an endpoint at a visit; ``has_`` before it asks for one.

    Examples
    --------
    >>> flag_name("infarct_volume", "day5"), flag_name("lesion_volume:cavity", "day 90")
    ('infarct_volume_day5', 'lesion_volume_cavity_day_90')
    """
    return re.sub(r"\W", "_", f"{endpoint}_{visit}")
