"""Conditions on rows of a table: read as Python's syntax, checked, and written anew for numexpr."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from psyrun.arrays import Array
from psyrun.errors import StoreError

KINDS = {"b": "truth", **dict.fromkeys("iuf", "number"), "c": "complex", "U": "text", "S": "bytes", "M": "time"}
"""What a column is in a condition, by the kind of its dtype."""

_ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.Pow: ("**", operator.pow),
}
_COMPARISONS = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_TURNED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_JOINTS = {ast.BitAnd: "&", ast.BitOr: "|"}


@dataclass
class Condition:
    """A condition for numexpr.

    Attributes
    ----------
    text : str
        In names that `columns` and `constants` explain, and no other.
    columns : dict of str to str
    constants : dict of str to array
    """

    text: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)


def condition(where: str, dtypes: Mapping[str, np.dtype[Any]]) -> Condition:
    """Return a condition that is safe to evaluate.

    Parameters
    ----------
    where : str
        Comparisons of columns with each other, numbers or text, joined by ``&``, ``|``, ``~`` and parentheses.
        Numbers may be computed by ``+ - * / **``, in 64 bits. Truth values, complex numbers, text and bytes are
        compared by ``==`` and ``!=`` only; times with text such as ``'2020-01-31'``.
    dtypes : dict of str to dtype
        The columns that can be asked for.

    Raises
    ------
    StoreError
        It is anything else.

    Examples
    --------
    >>> condition('(D == 3) & (rmse < .1)', {'D': np.dtype(int), 'rmse': np.dtype(float)}).text
    '((c0 == k0) & (c1 < k1))'
    """
    writer = _Writer(where, dtypes)
    if not isinstance(where, str):
        writer.refuse("it takes text")
    try:
        part = writer.part(ast.parse(where.strip(), mode="eval").body, needed=True)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        writer.refuse(f"it cannot be read: {error}")
    if part.kind != "truth" or not writer.condition.columns:
        writer.refuse("it has to be true or false, row by row")
    writer.condition.text = part.text
    return writer.condition


@dataclass
class _Part:
    """A part of a condition: what to write, what it is, its dtype if it is a column, its value if it is a constant."""

    text: str
    kind: str
    dtype: np.dtype[Any] | None = None
    value: Any = None


class _Writer:
    def __init__(self, where: str, dtypes: Mapping[str, np.dtype[Any]]):
        self._where, self._dtypes = where, dtypes
        self._names: dict[str, str] = {}
        self.condition = Condition()

    def refuse(self, why: str) -> NoReturn:
        known = f"It takes conditions on {', '.join(self._dtypes)}, such as '(D == 3) & (rmse < .1)'"
        raise StoreError(f"where={self._where!r}: {why}. {known}")

    def part(self, node: ast.expr, needed: bool = False) -> _Part:
        """Return a part; it is needed if only rows that meet it can meet the whole."""
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, ast.Constant):
            return self._constant(node.value)
        if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
            return self._not(node) if isinstance(node.op, ast.Invert) else self._signed(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _JOINTS:
            return self._joined(node, needed and isinstance(node.op, ast.BitAnd))
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._computed(node)
        if isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
            return self._compared(node, needed)
        if isinstance(node, (ast.BoolOp, ast.UnaryOp)):
            self.refuse("it takes & for and, | for or, ~ for not, and parentheses around what they join")
        return self.refuse(f"{ast.unparse(node)!r} is more than it takes")

    def _column(self, name: str) -> _Part:
        dtype = self._dtypes.get(name)
        if dtype is None:
            self.refuse(f"there is no column {name!r} that can be asked for")
        columns = self.condition.columns
        short = next((short for short, known in columns.items() if known == name), f"c{len(columns)}")
        columns[short] = name
        if dtype.kind in "iuf" and dtype.itemsize < 8:
            # numexpr would compute in 32 bits, also with integers of 64.
            short = f"({short} * {self._named(1.0 if dtype.kind == 'f' else 1)})"
        return _Part(short, KINDS[dtype.kind], dtype)

    def _constant(self, value: Any) -> _Part:
        if isinstance(value, str):
            return _Part(self._named(value.encode("utf-8", "surrogatepass")), "text", value=value)
        if isinstance(value, bytes):
            return _Part(self._named(value), "bytes", value=value)
        if isinstance(value, bool):
            return _Part(self._named(value), "truth", value=value)
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return _Part(self._named(value), "number", value=value)
        if isinstance(value, (float, complex)) and np.isfinite(value):
            return _Part(self._named(value), "number" if isinstance(value, float) else "complex", value=value)
        return self.refuse(f"{value!r} is no number or text that it takes")

    def _named(self, value: Any) -> str:
        """Return the name that stands for a constant, the same for the same: numexpr takes few."""
        short = self._names.setdefault(repr(value), f"k{len(self._names)}")
        self.condition.constants[short] = np.asarray(value)
        return short

    def _signed(self, node: ast.UnaryOp) -> _Part:
        part = self._number(node.operand)
        if isinstance(node.op, ast.UAdd):
            return part
        return _Part(f"(-{part.text})", part.kind) if part.value is None else self._constant(-part.value)

    def _number(self, node: ast.expr) -> _Part:
        part = self.part(node)
        if part.kind not in ("number", "complex"):
            self.refuse(f"{ast.unparse(node)!r} is no number to compute with")
        return part

    def _computed(self, node: ast.BinOp) -> _Part:
        left, right = self._number(node.left), self._number(node.right)
        kind = "complex" if "complex" in (left.kind, right.kind) else "number"
        if isinstance(node.op, ast.Pow):
            # numexpr has no power of integers; by a number it is computed in floats.
            if kind == "complex" or right.value is None:
                self.refuse(f"{ast.unparse(node)!r} has to be a power of real numbers by one that is written out")
            right = self._constant(float(right.value))
        sign, compute = _ARITHMETIC[type(node.op)]
        if left.value is not None and right.value is not None:
            return self._constant(compute(left.value, right.value))
        return _Part(f"({left.text} {sign} {right.text})", kind)

    def _joined(self, node: ast.BinOp, needed: bool) -> _Part:
        left, right = self._truth(node.left, needed), self._truth(node.right, needed)
        return _Part(f"({left.text} {_JOINTS[type(node.op)]} {right.text})", "truth")

    def _not(self, node: ast.UnaryOp) -> _Part:
        return _Part(f"(~{self._truth(node.operand).text})", "truth")

    def _truth(self, node: ast.expr, needed: bool = False) -> _Part:
        part = self.part(node, needed)
        if part.kind != "truth":
            self.refuse(f"{ast.unparse(node)!r} is no comparison; each takes its own parentheses around it")
        return part

    def _compared(self, node: ast.Compare, needed: bool) -> _Part:
        parts = [self.part(side) for side in (node.left, *node.comparators)]
        signs = [_COMPARISONS[type(op)] for op in node.ops]
        pairs = [self._pair(parts[i], sign, parts[i + 1], needed) for i, sign in enumerate(signs)]
        return _Part(pairs[0] if len(pairs) == 1 else f"({' & '.join(pairs)})", "truth")

    def _pair(self, left: _Part, sign: str, right: _Part, needed: bool) -> str:
        if "time" in (left.kind, right.kind):
            return self._of_times(left, sign, right)
        kinds = {left.kind, right.kind}
        if len(kinds) > 1 and kinds != {"number", "complex"}:
            self.refuse(f"{left.kind} cannot be compared with {right.kind}")
        if sign not in ("==", "!=") and kinds != {"number"}:
            self.refuse(f"{left.kind} can be compared by == and != only")
        if kinds == {"number"}:
            return f"({self._side(left, right, needed)} {sign} {self._side(right, left, needed)})"
        return f"({left.text} {sign} {right.text})"

    def _side(self, part: _Part, other: _Part, needed: bool) -> str:
        """Return what to write for a number, so that PyTables looks into an index only where it finds all rows.

        It mixes up the indices of comparisons that are joined in more ways than by ``&``, negates some wrongly, and
        fails for values of another column and for floats among integers.
        """
        if part.dtype is None:
            return part.text
        of_its_kind = other.value is not None and (part.dtype.kind == "f" or type(other.value) is int)
        return part.text if needed and of_its_kind else f"({part.text} + {self._named(0)})"

    def _of_times(self, left: _Part, sign: str, right: _Part) -> str:
        """Return the comparison of a column of times with text, in the integers that the times are counted in."""
        if left.kind != "time":
            left, sign, right = right, _TURNED[sign], left
        if left.dtype is None or not isinstance(right.value, str):
            self.refuse("times are compared with text such as '2020-01-31'")
        time = np.datetime64(right.value)
        count = time.astype(left.dtype)
        if np.isnat(time) or count != time:
            self.refuse(f"{right.value!r} is no time that a column of {left.dtype} can hold")
        text = f"({left.text} {sign} {self._named(int(count.astype(np.int64)))})"
        # No time is less than another by its integer, but by the rules of times it compares with none.
        no_time = self._named(np.iinfo(np.int64).min)
        return f"({text} & ({left.text} != {no_time}))" if sign in ("<", "<=") else text
