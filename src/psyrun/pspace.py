"""Parameter spaces: an algebra of rows that are computed when asked for.

``Param(a=[1, 2]) * Param(b=[3, 4])`` is kept as its factors, so 10**9 points cost kilobytes. Rows are numbered in
the order written; ``*`` lets the right factor vary fastest.

Examples
--------
>>> space = Param(a=[1, 2]) * Param(b=[3, 4])
>>> print(space)
Param(a=[1, 1, 2, 2], b=[3, 4, 3, 4])
>>> space[2]
{'a': 2, 'b': 3}
>>> print(space - Param(a=1))
Param(a=[2, 2], b=[3, 4])
>>> print(Param(a=[1]) + Param(b=[2]))
Param(a=[1, nan], b=[nan, 2])
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import repeat
from operator import or_
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array, evaluable, join, objects
from psyrun.axes import Axis, Indices, Selection, indices_of, is_sequence, materialised, where
from psyrun.errors import AmbiguousOperationError
from psyrun.keys import Lanes, find, finish, occurrences, value_lanes

__all__ = [
    "AmbiguousOperationError",
    "Difference",
    "Param",
    "ParameterSpace",
    "Product",
    "Rows",
    "Sum",
    "dict_concat",
    "missing",
]

_SHOWN_ROWS = 1000
# As many rows of an inner factor are kept while the outer one advances, and numbers of a view made at a time.
_KEPT_ROWS = 1 << 14
_NAN = float("nan")


def dict_concat(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the rows as a dict of lists; keys that a row lacks are None in it.

    >>> dict_concat([{'a': 1}, {'a': 2, 'b': 3}])
    {'a': [1, 2], 'b': [None, 3]}
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


class ParameterSpace(ABC):
    """Rows (assignments of values to names), sized, indexed and lazy.

    Attributes
    ----------
    parameters : tuple of str
        The names, in the order written.
    """

    parameters: tuple[str, ...]

    # What a kind of space defines.

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _rows(self, at: Selection, plain: bool) -> Iterator[dict[str, Any]]:
        """Yield rows; they may share lists, dicts and arrays with the space and with each other."""

    @abstractmethod
    def _columns(self, at: Selection) -> dict[str, Array]: ...

    @abstractmethod
    def _lanes(self, at: Selection, names: frozenset[str]) -> Lanes: ...

    @abstractmethod
    def _digest(self) -> bytes: ...

    @property
    @abstractmethod
    def _mutable(self) -> frozenset[str]:
        """The names that have lists, dicts or arrays among their values."""

    @cached_property
    def _distinct(self) -> bool:
        """Whether no row stands here twice."""
        return not self._ranks.any()

    @cached_property
    def _ranks(self) -> npt.NDArray[np.int64]:
        """The occurrence numbers of all rows, for spaces that have no shorter way to them."""
        return occurrences(self._all_lanes())

    @cached_property
    def _multiplicities(self) -> npt.NDArray[np.int64]:
        """How often each row stands in the whole space."""
        _, group, counts = np.unique(self._all_lanes(), axis=0, return_inverse=True, return_counts=True)
        result: npt.NDArray[np.int64] = counts[group.reshape(-1)]
        return result

    def _occurrences(self, at: Indices) -> npt.NDArray[np.int64]:
        return self._ranks[at]

    def _times(self, at: Indices) -> npt.NDArray[np.int64]:
        return self._multiplicities[at]

    def _all_lanes(self) -> Lanes:
        return self._lanes(range(len(self)), frozenset(self.parameters))

    def _keys(self, at: Selection) -> Lanes:
        lanes = self._lanes(at, frozenset(self.parameters))
        return finish(lanes, 0 if self._distinct else self._occurrences(indices_of(at)))

    def _range(self, start: int, stop: int | None) -> range:
        start, stop, _ = slice(start, stop).indices(len(self))
        return range(start, max(start, stop))

    def _checked(self, at: Sequence[int] | Indices) -> Selection:
        if isinstance(at, range) and at.step == 1 and 0 <= at.start <= at.stop <= len(self):
            return at
        numbers = np.asarray(at, dtype=np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"row numbers {numbers.min()} to {numbers.max()}: the space has rows 0 to {len(self) - 1}")
        return numbers

    # What users call.

    def keys(self) -> list[str]:
        """Return the names of the parameters."""
        return list(self.parameters)

    @overload
    def __getitem__(self, item: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, item: slice) -> ParameterSpace: ...
    @overload
    def __getitem__(self, item: str) -> Array: ...

    def __getitem__(self, item: int | slice | str) -> dict[str, Any] | ParameterSpace | Array:
        """Return a row (by number), a view (by slice) or a column (by name)."""
        if isinstance(item, slice):
            return Rows(self, range(len(self))[item])
        if isinstance(item, str):
            if item not in self.parameters:
                raise AmbiguousOperationError(_unknown_names([item], self))
            return self.columns()[item]
        number = range(len(self))[item]
        return next(self._own_rows(range(number, number + 1), plain=False))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.iterate()

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """Iterate over rows start..stop-1 as dicts of the values as they were written."""
        return self._own_rows(self._range(start, stop), plain=False)

    def iterate_at(self, at: Sequence[int] | Indices) -> Iterator[dict[str, Any]]:
        """Iterate over the rows of these numbers."""
        return self._own_rows(self._checked(at), plain=False)

    def _own_rows(self, at: Selection, plain: bool) -> Iterator[dict[str, Any]]:
        """Iterate over rows that share nothing that can be changed."""
        rows, mutable = self._rows(at, plain), self._mutable
        return (row | {n: copy.deepcopy(row[n]) for n in mutable} for row in rows) if mutable else rows

    def build(self) -> dict[str, list[Any]]:
        """Return all rows as a dict of lists of Python scalars."""
        columns: dict[str, list[Any]] = {name: [] for name in self.parameters}
        pairs = [(columns[name].append, name) for name in self.parameters]
        for row in self._own_rows(range(len(self)), plain=True):
            for append, name in pairs:
                append(row[name])
        return columns

    def columns(self, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Return rows start..stop-1 as arrays, each of shape (stop - start, ...); see `exact_array` for dtypes.

        Arrays that are the space's own can only be read.
        """
        return self._columns(self._range(start, stop))

    def columns_at(self, at: Sequence[int] | Indices) -> dict[str, Array]:
        """Return the rows of these numbers as arrays, in their order."""
        return self._columns(self._checked(at))

    def item_keys(self, start: int = 0, stop: int | None = None) -> Lanes:
        """Return the identity keys of rows start..stop-1, shape (n, 2); no two rows of a space share one."""
        return self._keys(self._range(start, stop))

    def item_keys_at(self, at: Sequence[int] | Indices) -> Lanes:
        """Return the identity keys of the rows of these numbers, shape (len(at), 2)."""
        return self._keys(self._checked(at))

    @cached_property
    def digest(self) -> str:
        """Text that two spaces share only if they have the same rows in the same order."""
        return self._digest().hex()

    def where(self, predicate: Callable[..., Any]) -> ParameterSpace:
        """Return a view of the rows for which predicate(name=value, ...) is true.

        The predicate is given the parameters that its signature names, or all if it takes ``**kwargs``.

        >>> print(Param(a=[1, 2, 3], b=4).where(lambda a: a > 1))
        Param(a=[2, 3], b=[4, 4])
        """
        wanted = inspect.signature(predicate).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in wanted):
            names = self.parameters
        else:
            names = tuple(p.name for p in wanted if p.name in self.parameters)
            unknown = [p.name for p in wanted if p.name not in self.parameters and p.default is p.empty]
            if unknown:
                raise AmbiguousOperationError(_unknown_names(unknown, self))
        rows = enumerate(self.iterate())
        return Rows(self, np.array([i for i, r in rows if predicate(**{n: r[n] for n in names})], dtype=np.int64))

    def __add__(self, other: ParameterSpace) -> ParameterSpace:
        return Sum(self, other) if isinstance(other, ParameterSpace) else NotImplemented

    def __mul__(self, other: ParameterSpace) -> ParameterSpace:
        return Product(self, other) if isinstance(other, ParameterSpace) else NotImplemented

    def __sub__(self, other: ParameterSpace) -> ParameterSpace:
        return Difference(self, other) if isinstance(other, ParameterSpace) else NotImplemented

    def __eq__(self, other: object) -> bool:
        """Whether both have the same names and the same rows in the same order."""
        if not isinstance(other, ParameterSpace):
            return NotImplemented
        if set(self.parameters) != set(other.parameters) or len(self) != len(other):
            return False
        return self.digest == other.digest or bool(np.array_equal(self.item_keys(), other.item_keys()))

    __hash__ = None  # type: ignore[assignment]

    def _text(self, show: Callable[[Any], str], names: Sequence[str], pattern: str) -> str:
        rows = dict_concat(self._rows(range(min(len(self), _SHOWN_ROWS)), plain=True))
        more = ", ..." if len(self) > _SHOWN_ROWS else ""
        return ", ".join(pattern.format(n, f"[{', '.join(map(show, rows.get(n, ())))}{more}]") for n in names)

    def __str__(self) -> str:
        return f"Param({self._text(repr, sorted(self.parameters), '{}={}')})"

    def __repr__(self) -> str:
        if not self.parameters and len(self) != 1:
            return " + ".join(["Param()"] * min(len(self), _SHOWN_ROWS)) or "Param()[:0]"
        return f"Param(**{{{self._text(evaluable, self.parameters, '{!r}: {}')}}})"


def _unknown_names(unknown: Iterable[str], space: ParameterSpace) -> str:
    return f"unknown parameters {', '.join(sorted(unknown))}: the space has {', '.join(space.parameters) or 'none'}"


class Param(ParameterSpace):
    """Rows written out: sequences of one length, and scalars that go with every row.

    Parameters
    ----------
    **params
        Values by name. Lists, tuples, ranges and arrays (by their first axis) are sequences; text, bytes and dicts
        are scalars. Only scalars make one row; ``Param()`` is one row without names, neutral in products.

    Raises
    ------
    ValueError
        Sequences of unequal length.

    Examples
    --------
    >>> print(Param(a=[1, 2], b=3))
    Param(a=[1, 2], b=[3, 3])
    """

    def __init__(self, /, **params: Any):
        params = {name: materialised(name, value) for name, value in params.items()}
        lengths = {name: len(value) for name, value in params.items() if is_sequence(value)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
            raise ValueError(f"parameters of one Param need the same number of values: {told}. Join them with * ?")
        self._length = next(iter(lengths.values()), 1)
        self.parameters = tuple(params)
        self._axes = [Axis(name, value, self._length) for name, value in params.items()]

    def __len__(self) -> int:
        return self._length

    def _rows(self, at: Selection, plain: bool) -> Iterator[dict[str, Any]]:
        if not self.parameters:
            return ({} for _ in range(len(at)))
        values = zip(*(axis.rows(at, plain) for axis in self._axes), strict=True)
        return map(dict, map(zip, repeat(self.parameters), values))

    def _columns(self, at: Selection) -> dict[str, Array]:
        return {axis.name: axis.column(at) for axis in self._axes}

    def _lanes(self, at: Selection, names: frozenset[str]) -> Lanes:
        total = np.zeros((len(at), 2), dtype=np.uint64)
        for axis in self._axes:
            if axis.name in names:
                total += axis.lanes(at)
        return total

    @cached_property
    def _distinct(self) -> bool:
        return any(axis.distinct for axis in self._axes) or not self._ranks.any()

    @cached_property
    def _mutable(self) -> frozenset[str]:
        return frozenset(axis.name for axis in self._axes if axis.mutable)

    def _digest(self) -> bytes:
        state = blake2b(b"Param %d" % len(self), digest_size=16)
        for axis in self._axes:
            state.update(axis.digest())
        return state.digest()


class Product(ParameterSpace):
    """Every row of the left space with every row of the right one, which varies fastest.

    Raises
    ------
    AmbiguousOperationError
        The spaces share a name.
    """

    def __init__(self, left: ParameterSpace, right: ParameterSpace):
        shared = set(left.parameters) & set(right.parameters)
        if shared:
            raise AmbiguousOperationError(
                f"both factors have {', '.join(sorted(shared))}: the names of a product must differ. "
                "Give the values in one Param, or concatenate with +"
            )
        self.parameters = left.parameters + right.parameters
        self.left, self.right = left, right

    def __len__(self) -> int:
        return len(self.left) * len(self.right)

    def _rows(self, at: Selection, plain: bool) -> Iterator[dict[str, Any]]:
        if not isinstance(at, range):
            outer, inner = self._factors(at)
            return map(or_, self.left._rows(outer, plain), self.right._rows(inner, plain))
        return self._nested_rows(at, plain) if len(at) else iter(())

    def _nested_rows(self, at: range, plain: bool) -> Iterator[dict[str, Any]]:
        width = len(self.right)
        lefts, part = self._outer(at)
        kept: list[dict[str, Any]] = []
        for outer, left in enumerate(self.left._rows(lefts, plain)):
            wanted = range(max(part.start - outer * width, 0), min(part.stop - outer * width, width))
            rights: Iterable[dict[str, Any]] = kept
            if not kept or len(wanted) < width:
                rights = self.right._rows(wanted, plain)
                if len(wanted) == width <= _KEPT_ROWS:
                    rights = kept = list(rights)
            yield from map(or_, repeat(left), rights)

    def _columns(self, at: Selection) -> dict[str, Array]:
        width = len(self.right)
        if not isinstance(at, range) or not 0 < width <= len(at):
            outer, inner = self._factors(indices_of(at))
            return self.left._columns(outer) | self.right._columns(inner)
        lefts, part = self._outer(at)
        left, right = self.left._columns(lefts), self.right._columns(range(width))
        repeated = {n: np.repeat(c, width, axis=0)[part] for n, c in left.items()}
        return repeated | {n: np.tile(c, (len(lefts),) + (1,) * (c.ndim - 1))[part] for n, c in right.items()}

    def _lanes(self, at: Selection, names: frozenset[str]) -> Lanes:
        width = len(self.right)
        if not isinstance(at, range) or not 0 < width <= len(at):
            outer, inner = self._factors(indices_of(at))
            return self.left._lanes(outer, names) + self.right._lanes(inner, names)
        lefts, part = self._outer(at)
        left, right = self.left._lanes(lefts, names), self.right._lanes(range(width), names)
        both: Lanes = (left[:, np.newaxis, :] + right[np.newaxis, :, :]).reshape(-1, 2)
        return both[part]

    def _outer(self, at: range) -> tuple[range, slice]:
        """Return the rows of the left factor that take part, and where among their products the wanted rows are."""
        width = len(self.right)
        outer = range(at.start // width, -(-at.stop // width))
        return outer, slice(at.start - outer.start * width, at.stop - outer.start * width)

    def _factors(self, at: Indices) -> tuple[Indices, Indices]:
        return np.divmod(at, max(len(self.right), 1))

    @property
    def _mutable(self) -> frozenset[str]:
        return self.left._mutable | self.right._mutable

    def _digest(self) -> bytes:
        return _combined(b"*", self.left, self.right)

    @cached_property
    def _distinct(self) -> bool:
        return not len(self) or (self.left._distinct and self.right._distinct)

    def _occurrences(self, at: Indices) -> npt.NDArray[np.int64]:
        # Equal rows before (i, j): those of an earlier equal i, with all equals of j; then those of i itself.
        outer, inner = self._factors(at)
        return self.left._occurrences(outer) * self.right._times(inner) + self.right._occurrences(inner)

    def _times(self, at: Indices) -> npt.NDArray[np.int64]:
        outer, inner = self._factors(at)
        return self.left._times(outer) * self.right._times(inner)


def _combined(operator: bytes, *spaces: ParameterSpace) -> bytes:
    return blake2b(operator + b"".join(space._digest() for space in spaces), digest_size=16).digest()


class Sum(ParameterSpace):
    """The rows of the left space, then those of the right one; a name that one of them lacks is NaN in its rows."""

    def __init__(self, left: ParameterSpace, right: ParameterSpace):
        self.parameters = tuple(dict.fromkeys(left.parameters + right.parameters))
        # Sums are often built in loops: kept flat, they nest no deeper with each turn.
        self._terms: list[ParameterSpace] = []
        for side in (left, right):
            self._terms += side._terms if isinstance(side, Sum) else [side]

    @cached_property
    def _ends(self) -> Indices:
        return np.cumsum([len(term) for term in self._terms])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _parts(self, at: Selection) -> Iterator[tuple[ParameterSpace, Selection]]:
        """Yield the terms that have some of the rows, with their own numbers of these; terms in order."""
        if not isinstance(at, range):
            which = np.searchsorted(self._ends, at, side="right")
            for i in np.unique(which).tolist():
                yield self._terms[i], at[which == i] - (self._ends[i] - len(self._terms[i]))
            return
        for i in range(int(np.searchsorted(self._ends, at.start, side="right")), len(self._terms)):
            begin = int(self._ends[i]) - len(self._terms[i])
            if begin >= at.stop:
                return
            if part := range(max(at.start - begin, 0), min(at.stop - begin, len(self._terms[i]))):
                yield self._terms[i], part

    def _back(self, at: Selection) -> slice | Indices:
        """Return how to order rows that came by terms as they were asked for."""
        if isinstance(at, range):
            return slice(None)
        return np.argsort(np.argsort(np.searchsorted(self._ends, at, side="right"), kind="stable"))

    def _rows(self, at: Selection, plain: bool) -> Iterator[dict[str, Any]]:
        absent = dict.fromkeys(self.parameters, _NAN)
        rows = (row for term, part in self._parts(at) for row in map(or_, repeat(absent), term._rows(part, plain)))
        return rows if isinstance(at, range) else iter(objects(list(rows))[self._back(at)].tolist())

    def _columns(self, at: Selection) -> dict[str, Array]:
        found = [(len(part), term._columns(part)) for term, part in self._parts(at)] or [(0, {})]
        back = self._back(at)
        return {n: join([c.get(n, np.full(size, _NAN)) for size, c in found])[back] for n in self.parameters}

    def _lanes(self, at: Selection, names: frozenset[str]) -> Lanes:
        found = [term._lanes(part, names) + self._absent(term, names) for term, part in self._parts(at)]
        return np.concatenate(found or [np.empty((0, 2), dtype=np.uint64)])[self._back(at)]

    def _absent(self, term: ParameterSpace, names: frozenset[str]) -> Lanes:
        """Return the lanes of the NaN that stand for the names that a term lacks."""
        total = np.zeros((1, 2), dtype=np.uint64)
        for name in (names & set(self.parameters)) - set(term.parameters):
            total += value_lanes(name, [_NAN])
        return total

    @property
    def _mutable(self) -> frozenset[str]:
        return frozenset().union(*(term._mutable for term in self._terms))

    def _digest(self) -> bytes:
        return _combined(b"+", *self._terms)


class Rows(ParameterSpace):
    """A view: some rows of another space, by their numbers."""

    _base: ParameterSpace

    def __init__(self, base: ParameterSpace, at: range | Indices):
        if type(base) is Rows and isinstance(base._at, range) and isinstance(at, range):
            start, step = base._at.start, base._at.step
            at = range(start + at.start * step, start + at.stop * step, at.step * step)
            base = base._base
        self.parameters = base.parameters
        self._base, self._given = base, at

    @cached_property
    def _at(self) -> range | Indices:
        return self._given

    def __len__(self) -> int:
        return len(self._at)

    def _numbers(self, at: Selection) -> Selection:
        own = self._at
        if not isinstance(own, range):
            return own[where(at)]
        if own.step == 1 and isinstance(at, range):
            return range(own.start + at.start, own.start + at.stop)
        return own.start + indices_of(at) * own.step

    def _rows(self, at: Selection, plain: bool) -> Iterator[dict[str, Any]]:
        if isinstance(at, range) and isinstance(self._at, range) and self._at.step == 1:
            return self._base._rows(self._numbers(at), plain)
        pieces = (self._numbers(at[low : low + _KEPT_ROWS]) for low in range(0, len(at), _KEPT_ROWS))
        return (row for piece in pieces for row in self._base._rows(piece, plain))

    def _columns(self, at: Selection) -> dict[str, Array]:
        return self._base._columns(self._numbers(at))

    def _lanes(self, at: Selection, names: frozenset[str]) -> Lanes:
        return self._base._lanes(self._numbers(at), names)

    @property
    def _mutable(self) -> frozenset[str]:
        return self._base._mutable

    def _digest(self) -> bytes:
        at = self._at
        told = b"[%d:%d:%d" % (at.start, at.stop, at.step) if isinstance(at, range) else b"(" + at.tobytes()
        return blake2b(told + self._base._digest(), digest_size=16).digest()

    @cached_property
    def _distinct(self) -> bool:
        return self._base._distinct or not self._ranks.any()


class Difference(Rows):
    """The rows of the minuend that match no row of the subtrahend in the subtrahend's names.

    Raises
    ------
    AmbiguousOperationError
        The subtrahend has a name that the minuend lacks.
    """

    def __init__(self, minuend: ParameterSpace, subtrahend: ParameterSpace):
        unknown = set(subtrahend.parameters) - set(minuend.parameters)
        if unknown:
            raise AmbiguousOperationError(_unknown_names(unknown, minuend))
        self.parameters = minuend.parameters
        self._base, self._subtrahend = minuend, subtrahend

    @cached_property
    def _at(self) -> Indices:
        names = frozenset(self._subtrahend.parameters)
        rows = self._base._lanes(range(len(self._base)), names)
        return np.flatnonzero(find(rows, self._subtrahend._lanes(range(len(self._subtrahend)), names)) < 0)


def missing(space: ParameterSpace, done: ParameterSpace | Mapping[str, Any]) -> ParameterSpace:
    """Return the rows of a space that are not done; a row that is there twice and done once is missing once.

    Parameters
    ----------
    space : ParameterSpace
        What is wanted.
    done : ParameterSpace or dict of sequences
        What there is. Names that the space lacks, such as those of outputs, do not count.

    Raises
    ------
    AmbiguousOperationError
        What is done lacks a name of the space.

    Examples
    --------
    >>> print(missing(Param(a=[1, 2]) * Param(b=[1, 2]), Param(a=[1, 2], b=[1, 2])))
    Param(a=[1, 2], b=[2, 1])
    """
    lacking = sorted(set(space.parameters) - set(done.keys()))
    if not done.keys() and lacking:
        return space
    if lacking:
        raise AmbiguousOperationError(
            f"what is done lacks {', '.join(lacking)}: rows are compared in all names of the space. "
            "Exclude no parameter from the results"
        )
    if not isinstance(done, ParameterSpace):
        done = Param(**{name: done[name] for name in space.parameters})
    lanes = done._lanes(range(len(done)), frozenset(space.parameters))
    return Rows(space, np.flatnonzero(find(space.item_keys(), finish(lanes, occurrences(lanes))) < 0))
