"""Which items of a space a user means: by their numbers, or by a condition on their parameters."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array, plain
from psyrun.conditions import ARITHMETIC, COMPARISONS, MEMBERSHIP, listed, parsed, refused
from psyrun.errors import SelectionError
from psyrun.exact import OddValuesError, Operand, change_sign, compare, compute, kind_of, magnitude, operand_of
from psyrun.pspace import ParameterSpace

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_WINDOW = 2**16


def items_of(text: str, n: int) -> Mask:
    """Return which of n items are listed.

    Parameters
    ----------
    text : str
        Numbers and ranges, both ends included.
    n : int

    Returns
    -------
    array of bool, shape (n,)

    Raises
    ------
    SelectionError
        It is no such list, or there is no item of a number.

    Examples
    --------
    >>> np.flatnonzero(items_of('3, 1, 6-8', 10))
    array([1, 3, 6, 7, 8])
    """
    chosen = np.zeros(n, dtype=bool)
    for term in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?", term)
        if match is None:
            raise SelectionError(f"items {text!r}: {term.strip()!r} is no number; it takes a list such as 3,17,40-60")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise SelectionError(f"items {text!r}: {term.strip()} runs backwards; it takes {last}-{first}")
        if last >= n:
            there = f"there are {n} items, numbered 0 to {n - 1}" if n else "there are no items"
            raise SelectionError(f"items {text!r}: there is no item {last}; {there}")
        chosen[first : last + 1] = True
    return chosen


def matching(text: str, space: ParameterSpace) -> Mask:
    """Return which items of a space meet a condition.

    The condition is never run as code: it is read as an expression, and computed column by column, as Python would for
    each item. What stands right of ``and`` and ``or`` counts only for items that the left side does not decide.

    Parameters
    ----------
    text : str
        Comparisons of parameters, numbers, text, True, False and None by ``== != < <= > >=``, also in chains, and with
        ``in`` and ``not in`` a list; joined by ``and``, ``or`` and ``not``. Numbers may be computed by
        ``+ - * / // % **`` and ``abs()``. Values of different kinds are never equal, and have no order. Parameters that
        are times compare with text such as ``'2020-01-31'``.
    space : ParameterSpace

    Returns
    -------
    array of bool, shape (n,)

    Raises
    ------
    SelectionError
        It is no such condition, or has no result for an item.

    Examples
    --------
    >>> from psyrun import Param
    >>> matching('D > 2 and N in [10, 50]', Param(D=[2, 3]) * Param(N=[10, 50, 100]))
    array([False, False, False,  True,  True, False])
    """
    tree = parsed(text, space.parameters)
    chosen = np.zeros(len(space), dtype=bool)
    for first in range(0, len(space), _WINDOW):
        stop = min(first + _WINDOW, len(space))
        chosen[first:stop] = _Window(text, first, space.columns(first, stop)).met(tree, np.arange(stop - first))
    return chosen


class _Window:
    """Some items of a space, on which a condition is computed.

    Parameters
    ----------
    text : str
        The condition, for messages.
    first : int
        The number of the first of them.
    columns : dict of arrays
    """

    def __init__(self, text: str, first: int, columns: Mapping[str, Array]):
        self._text, self._first = text, first
        self._columns = columns
        self._operands: dict[str, Array] = {}

    def met(self, node: ast.expr, at: Rows) -> Mask:
        """Return which of some rows meet an expression that is true or false."""
        value = self._value(node, at)
        values = value.tolist() if isinstance(value, np.ndarray) and value.dtype != bool else [value]
        if isinstance(value, np.ndarray) and (value.dtype == bool or all(type(v) is bool for v in values)):
            return value.astype(bool)
        if isinstance(value, bool):
            return np.full(len(at), value)
        row = next(i for i, v in enumerate(values) if type(v) is not bool)
        raise self._odd(node, OddValuesError(row, (values[row],), "it has to be true or false; compare it"), at, [node])

    def _value(self, node: ast.expr, at: Rows) -> Operand:
        """Return an expression in some rows: an array, or a constant."""
        n = len(at)
        match node:
            case ast.BoolOp(op=joint, values=values):
                return self._joined(values, at, isinstance(joint, ast.And))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self.met(operand, at)
            case ast.UnaryOp(op=sign, operand=operand):
                value = self._value(operand, at)
                change = change_sign if isinstance(sign, ast.USub) else _unchanged
                return self._told(node, at, [operand], change, value, n)
            case ast.BinOp(left=left, op=operation, right=right):
                function, sides = ARITHMETIC[type(operation)], (self._value(left, at), self._value(right, at))
                return self._told(node, at, [left, right], compute, function, *sides, n)
            case ast.Compare():
                return self._compared(node, at)
            case ast.Call(args=[operand]):
                value = self._value(operand, at)
                return self._told(node, at, [operand], magnitude, value, n)
            case ast.Name(id=name):
                return self._operand(name)[at]
        return node.value if isinstance(node, ast.Constant) else None

    def _joined(self, parts: list[ast.expr], at: Rows, are_all: bool) -> Mask:
        """Join parts by ``and`` or ``or``; each is computed only where those before it leave it open."""
        result = np.full(len(at), are_all)
        open_rows = np.arange(len(at))
        for part in parts:
            found = self.met(part, at[open_rows]) if len(open_rows) else np.empty(0, dtype=bool)
            result[open_rows] = found
            open_rows = open_rows[found == are_all]
        return result

    def _compared(self, node: ast.Compare, at: Rows) -> Mask:
        """Return a comparison or chain of such; each is computed only where those before it hold."""
        result = np.zeros(len(at), dtype=bool)
        holds = np.arange(len(at))
        left, value = node.left, self._value(node.left, at)
        for sign, right in zip(node.ops, node.comparators, strict=True):
            rows = at[holds]
            if isinstance(sign, MEMBERSHIP):
                found = self._told(node, rows, [left], self._among, value, right, len(rows))
                found, other = found == isinstance(sign, ast.In), None
            else:
                other = self._value(right, rows)
                function = COMPARISONS[type(sign)]
                found = self._told(node, rows, [left, right], compare, function, value, other, len(rows))
            if not isinstance(found, np.ndarray):
                found = np.full(len(rows), found)
            holds = holds[found]
            left, value = right, other[found] if isinstance(other, np.ndarray) else other
            if not len(holds):
                return result
        result[holds] = True
        return result

    def _among(self, value: Operand, node: ast.expr, n: int) -> Mask:
        found = np.zeros(n, dtype=bool)
        for element in listed(node, self._text):
            found |= compare(operator.eq, value, element, n)
        return found

    def _operand(self, name: str) -> Array:
        if name not in self._operands:
            column = self._columns[name]
            held = [type(v) for v in column] if column.dtype == object else []
            if column.ndim > 1 or any(issubclass(t, (list, tuple, Mapping, np.ndarray)) for t in held):
                raise refused(self._text, f"{name} has lists, arrays or dicts, which it does not compare")
            self._operands[name] = operand_of(column)
        return self._operands[name]

    def _told(
        self, node: ast.expr, at: Rows, sides: Sequence[ast.expr], function: Callable[..., Operand], *given: Operand
    ) -> Operand:
        """Return what a function gives; if values do not go together, say which, and in which item."""
        try:
            return function(*given)
        except OddValuesError as error:
            raise self._odd(node, error, at, sides) from None

    def _odd(self, node: ast.expr, error: OddValuesError, at: Rows, sides: Sequence[ast.expr]) -> SelectionError:
        told = [_shown(side, plain(value)) for side, value in zip(sides, error.values, strict=False)]
        hint = ""
        if any(value is None for value in error.values):
            name = next((side.id for side in sides if isinstance(side, ast.Name)), "x")
            hint = f". To leave such items out: {name} != None and ..."
        where = f"{ast.unparse(node)!r:.60} in item {self._first + int(at[error.row])}"
        return refused(self._text, f"{where}: {' and '.join(told)}{'; ' if told else ''}{error.why}{hint}")


def _shown(side: ast.expr, value: Operand) -> str:
    """Return what an expression is, and its value where that says more."""
    more = "" if isinstance(side, ast.Constant) or value is None else f" ({value!r:.40})"
    return f"{ast.unparse(side)} is {kind_of(value)}{more}"


def _unchanged(value: Operand, n: int) -> Operand:
    """Return +value."""
    return compute(operator.mul, value, 1, n)
