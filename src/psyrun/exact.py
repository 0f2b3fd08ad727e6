"""Comparisons and arithmetic of whole columns, with the results that Python has value by value.

NumPy alone would compare 2**53 + 1 and 2.0**53 as equal, let integers run over, and divide by zero. Where it could
differ, each value is computed by itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np

from psyrun.arrays import Array, objects, plain

Operand: TypeAlias = Any
"""An array of one value a row, as `operand_of` gives it, or a constant: a number, text, a truth value or None."""

_EXACT = 2**53
_MOST_BITS = 4096
_INTEGERS, _FLOATS, _TEXT, _TIMES = "integers", "floats", "text", "times"
_FAMILIES = {**dict.fromkeys("bi", _INTEGERS), "f": _FLOATS, "U": _TEXT, "M": _TIMES}
_CONSTANTS: dict[type, str] = {bool: _INTEGERS, int: _INTEGERS, float: _FLOATS, str: _TEXT}
_ORDERED = ("a number", "text", "bytes", "a time", "a duration")
_NUMBERS = ("a number", "a complex number")
_KINDS = {bool: "a number", int: "a number", float: "a number", str: "text", type(None): "None"}
_KINDS_IN_GENERAL: list[tuple[Any, str]] = [
    (str, "text"),
    (bytes, "bytes"),
    ((complex, np.complexfloating), "a complex number"),
    (np.datetime64, "a time"),
    (np.timedelta64, "a duration"),  # NumPy counts them among the integers
    ((int, float, np.number, np.bool_), "a number"),
]

Function: TypeAlias = Callable[[Any, Any], Any]


class OddValuesError(Exception):
    """An operation has no result for the values of a row.

    Attributes
    ----------
    row : int
        Which of the rows that were computed.
    values : tuple
        What met there.
    why : str
    """

    def __init__(self, row: int, values: tuple[Any, ...], why: str):
        super().__init__(why)
        self.row, self.values, self.why = row, values, why


def kind_of(value: Any) -> str:
    """Return what a value is, as far as values of one kind can be compared."""
    known = _KINDS.get(type(value))
    if known is None:
        found = next((name for kind, name in _KINDS_IN_GENERAL if isinstance(value, kind)), None)
        return found or f"a {type(value).__name__}"
    return known


def operand_of(column: Array) -> Array:
    """Return a column of one value a row as an operand; each value is the same afterwards.

    >>> operand_of(np.array([0.5], 'f4')).dtype, operand_of(np.array([2**63], 'u8')).dtype
    (dtype('float64'), dtype('O'))
    """
    kind, size = column.dtype.kind, column.dtype.itemsize
    if kind in "bUM" or (kind == "f" and size == 8) or (kind == "i" and size == 8):
        return column
    if kind == "i" or (kind == "u" and (not column.size or column.max() < 2**63)):
        return column.astype(np.int64)
    if kind == "f" and size < 8:
        return column.astype(np.float64)
    return objects([plain(value) for value in column])


def compare(function: Function, left: Operand, right: Operand, n: int) -> Operand:
    """Return a comparison of n rows: an array of truth values, or one if both sides are constants.

    Parameters
    ----------
    function : callable
        One of the module `operator`: eq, ne, lt, le, gt, ge.

    Raises
    ------
    OddValuesError
        Values of different kinds have no order. They are never equal.
    """
    families = _family(left), _family(right)
    alike = _as_one(left, right, families)
    if alike is not None and _is_array(left, right):
        found: Array = function(*alike)
        return found
    one_value = _equality(function) if function in (operator.eq, operator.ne) else _order(function)
    values = each(one_value, left, right, n)
    return np.array(values, dtype=bool) if _is_array(left, right) else values[0]


def compute(function: Function, left: Operand, right: Operand, n: int) -> Operand:
    """Return the result of arithmetic in n rows.

    Parameters
    ----------
    function : callable
        One of the module `operator`: add, sub, mul, truediv, floordiv, mod, pow.

    Raises
    ------
    OddValuesError
        The values are no numbers, or have no result; an integer of more than 4096 bits is none.
    """
    if _is_array(left, right):
        pair = _safe(function, left, right)
        if pair is not None:
            with np.errstate(all="ignore"):
                result: Array = function(*pair)
                return result
    values = each(_arithmetic(function), left, right, n)
    return _packed(values) if _is_array(left, right) else values[0]


def change_sign(value: Operand, n: int) -> Operand:
    """Return -value."""
    return compute(operator.mul, value, -1, n)


def magnitude(value: Operand, n: int) -> Operand:
    """Return abs(value)."""
    values = each(_arithmetic(lambda a, _: abs(a)), value, 0, n)
    return _packed(values) if _is_array(value) else values[0]


def each(function: Function, left: Operand, right: Operand, n: int) -> list[Any]:
    """Return what a function of two values gives, row by row; one value for two constants."""
    results: list[Any] = []
    pair: tuple[Any, ...] = ()
    try:
        for pair in (
            zip(_values(left, n), _values(right, n), strict=True) if _is_array(left, right) else [(left, right)]
        ):
            results.append(function(*pair))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise OddValuesError(len(results), pair, str(error)) from error
    return results


def _is_array(*operands: Operand) -> bool:
    return any(isinstance(operand, np.ndarray) for operand in operands)


def _values(operand: Operand, n: int) -> Iterator[Any]:
    if not _is_array(operand):
        return repeat(operand, n)
    return iter(operand if operand.dtype.kind == "M" else operand.tolist())


def _family(operand: Operand) -> str | None:
    if isinstance(operand, np.ndarray):
        return _FAMILIES.get(operand.dtype.kind)
    return _CONSTANTS.get(type(operand))


def _as_one(left: Operand, right: Operand, families: tuple[str | None, str | None]) -> tuple[Array, Array] | None:
    """Return both sides in a dtype in which NumPy compares them exactly, if there is one."""
    if families == (_TEXT, _TEXT):
        # NumPy drops a NUL at the end of text.
        ends = [side for side in (left, right) if isinstance(side, str) and side.endswith("\0")]
        return None if ends else (np.asarray(left), np.asarray(right))
    if families == (_TIMES, _TIMES):
        return left, right
    if _TIMES in families and _TEXT in families:
        return (
            (left, _time(right)) if isinstance(right, str) else (_time(left), right) if isinstance(left, str) else None
        )
    if not {*families} <= {_INTEGERS, _FLOATS}:
        return None
    most = 2**63 - 1 if families == (_INTEGERS, _INTEGERS) else _EXACT
    if any(f == _INTEGERS and _largest(side) > most for f, side in zip(families, (left, right), strict=True)):
        return None
    dtype = np.int64 if families == (_INTEGERS, _INTEGERS) else np.float64
    return np.asarray(left, dtype), np.asarray(right, dtype)


def _time(text: str) -> Array:
    try:
        return np.asarray(np.datetime64(text))
    except ValueError:
        raise OddValuesError(0, (), f"{text!r} is no time; it takes such as '2020-01-31'") from None


def _largest(side: Operand) -> int:
    """Return the largest magnitude among integers."""
    if not isinstance(side, np.ndarray):
        return abs(int(side))
    return max(abs(int(side.min())), abs(int(side.max()))) if side.size else 0


def _safe(function: Function, left: Operand, right: Operand) -> tuple[Array, Array] | None:
    """Return both sides as NumPy computes with them what Python does; None where it takes a closer look."""
    families = _family(left), _family(right)
    pair = _as_one(left, right, families) if {*families} <= {_INTEGERS, _FLOATS} else None
    if pair is None:
        return None
    divides = function in (operator.truediv, operator.floordiv, operator.mod)
    if divides and not np.asarray(right).all():
        return None
    if families != (_INTEGERS, _INTEGERS):
        return pair if function in (operator.add, operator.sub, operator.mul, operator.truediv) else None
    a, b = _largest(left), _largest(right)
    if function is operator.truediv:
        return pair if max(a, b) <= _EXACT else None
    if function is operator.pow:
        whole = type(right) is int and 0 <= right < 64
        return pair if whole and a**right < 2**63 else None
    bound = a * b if function is operator.mul else a + b
    return pair if bound < 2**63 else None


def _packed(values: Sequence[Any]) -> Array:
    """Return values as an array of one type, of objects where they have several."""
    types = set(map(type, values))
    if types == {float}:
        return np.array(values, dtype=np.float64)
    if types == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return np.array(values, dtype=np.int64)
    return objects(values)


def _equality(function: Function) -> Function:
    def equal(a: Any, b: Any) -> bool:
        kinds = kind_of(a), kind_of(b)
        same = kinds[0] == kinds[1] or (kinds[0] in _NUMBERS and kinds[1] in _NUMBERS)
        return bool(function(a, b)) if same else function is operator.ne

    return equal


def _order(function: Function) -> Function:
    def ordered(a: Any, b: Any) -> bool:
        kinds = kind_of(a), kind_of(b)
        if kinds[0] != kinds[1] or kinds[0] not in _ORDERED:
            raise TypeError("they have no order")
        return bool(function(a, b))

    return ordered


def _arithmetic(function: Function) -> Function:
    is_power = function is operator.pow

    def computed(a: Any, b: Any) -> Any:
        if kind_of(a) not in _NUMBERS or kind_of(b) not in _NUMBERS:
            raise TypeError("it takes numbers")
        if is_power and isinstance(a, int) and isinstance(b, int) and abs(a) > 1 and b * a.bit_length() > _MOST_BITS:
            raise OverflowError(f"the result has more than {_MOST_BITS} bits")
        if isinstance(a, int) and isinstance(b, int) and a.bit_length() + b.bit_length() > _MOST_BITS:
            raise OverflowError(f"the result may have more than {_MOST_BITS} bits")
        return function(a, b)

    return computed
