"""Arithmetic that a printed source invites: sums, differences, ratios, and order.

A published table can be checked against itself: 1534 - 168 is to be 1366, a median is to lie
between its quartiles. The expression is evaluated without Python's eval.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
}
MAX_LENGTH = 400


class ArithmeticFault(ValueError):
    """An expression that is not plain arithmetic; the message says what is not understood."""


def _value(node: ast.expr, text: str) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand, text)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left, text), _value(node.right, text))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "sqrt" and len(node.args) == 1:
        return math.sqrt(_value(node.args[0], text))
    if isinstance(node, ast.Compare):
        values = [_value(item, text) for item in (node.left, *node.comparators)]
        pairs = zip(node.ops, values, values[1:], strict=False)
        if all(type(op) in _ORDER for op in node.ops):
            return float(all(_ORDER[type(op)](a, b) for op, a, b in pairs))
    raise ArithmeticFault(
        f"'{text}': only numbers, + - * /, brackets, sqrt() and < <= > >= == are understood"
    )


def evaluate(text: str) -> float:
    """Value of an arithmetic expression; a comparison gives 1 (true) or 0.

    :class:`ArithmeticFault` if it is anything else.

    Examples
    --------
    >>> evaluate("1534 - 168"), evaluate("sqrt(0.25)"), evaluate("-92.4 <= 62.62 <= -10.2")
    (1366.0, 0.5, 0.0)
    >>> evaluate("open(1)")
    Traceback (most recent call last):
    corelab.provenance.arithmetic.ArithmeticFault: 'open(1)': only numbers, + - * /, brackets, ...
    """
    if len(text) > MAX_LENGTH:
        raise ArithmeticFault(f"the expression is longer than {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ArithmeticFault(f"'{text}' is not an expression: {error.msg}") from None
    try:
        return _value(tree.body, text)
    except (ZeroDivisionError, ValueError) as error:
        if isinstance(error, ArithmeticFault):
            raise
        raise ArithmeticFault(f"'{text}' has no value: {error}") from None
