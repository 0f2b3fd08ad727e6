"""Conditions on parameters: read as Python's syntax, and refused unless all in them is harmless."""

from __future__ import annotations

import ast
import difflib
import operator
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from psyrun.errors import SelectionError
from psyrun.exact import Function

_MOST_LETTERS = 10_000
_MOST_DEPTH = 50

ARITHMETIC: dict[type[ast.operator], Function] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARISONS: dict[type[ast.cmpop], Function] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
MEMBERSHIP = (ast.In, ast.NotIn)
_CONSTANTS = (bool, int, float, str, type(None))


def refused(text: str, why: str) -> SelectionError:
    """Return the error that says why a condition is not taken."""
    return SelectionError(f"condition {text!r:.200}: {why}")


def parsed(text: str, names: Sequence[str]) -> ast.expr:
    """Return the tree of a condition that has nothing in it but what is taken."""
    if len(text) > _MOST_LETTERS:
        raise refused(text, f"it is longer than {_MOST_LETTERS} letters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about backslashes in text
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise refused(text, f"it cannot be read: {why}. It takes such as 'D > 3 and N == 50'") from None
    level = [tree]
    for _ in range(_MOST_DEPTH):
        level = [inner for node in level for inner in _operands(node, text, names)]
        if not level:
            return tree
    raise refused(text, f"it is nested deeper than {_MOST_DEPTH} levels")


def _operands(node: ast.expr, text: str, names: Sequence[str]) -> Iterator[ast.expr]:
    """Yield the parts of an expression.

    Raises
    ------
    SelectionError
        It is more than a condition takes, or names no parameter.
    """
    match node:
        case ast.BoolOp(values=values):
            yield from values
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=operand):
            yield operand
        case ast.BinOp(op=operation, left=left, right=right) if type(operation) in ARITHMETIC:
            yield from (left, right)
        case ast.Compare(left=left, ops=signs, comparators=right_sides):
            yield left
            for number, (sign, side) in enumerate(zip(signs, right_sides, strict=True), 1):
                if isinstance(sign, MEMBERSHIP) and number == len(signs):
                    listed(side, text)
                elif type(sign) in COMPARISONS:
                    yield side
                else:
                    why = (
                        "in a chain 'in' comes last" if isinstance(sign, MEMBERSHIP) else "it takes == in place of 'is'"
                    )
                    raise refused(text, why)
        case ast.Call(func=ast.Name(id="abs"), args=[operand], keywords=[]):
            yield operand
        case ast.Name(id=name):
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                meant = f" Did you mean {close[0]}?" if close else ""
                known = ", ".join(names) or "none"
                raise refused(text, f"there is no parameter {name!r}.{meant} There are: {known}")
        case ast.Constant(value=value) if isinstance(value, _CONSTANTS):
            pass
        case _:
            raise refused(
                text,
                f"{ast.unparse(node)!r:.60} is more than it takes: comparisons of parameters, joined by and, or, not",
            )


def listed(node: ast.expr, text: str) -> list[Any]:
    """Return the values of a list or tuple that is written out."""
    values = []
    for element in node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]:
        match element:
            case ast.Constant(value=value) if isinstance(value, _CONSTANTS) and element is not node:
                values.append(value)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                values.append(-value)
            case _:
                raise refused(text, f"'in' takes a list of numbers or text, such as [1, 2]; not {ast.unparse(node)}")
    return values
