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
from itertools import islice
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array, evaluable, exact_array, join, plain_list
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

Indices = npt.NDArray[np.int64]

_SHOWN_ROWS = 1000
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

    # What a kind of space defines. Indices are arrays of int64 between 0 and len(self) - 1.

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def _row(self, i: int) -> dict[str, Any]: ...

    @abstractmethod
    def _rows(self, start: int, stop: int, plain: bool) -> Iterator[dict[str, Any]]: ...

    @abstractmethod
    def _columns_at(self, at: Indices) -> dict[str, Array]: ...

    @abstractmethod
    def _lanes_at(self, at: Indices, names: frozenset[str]) -> Lanes: ...

    @abstractmethod
    def _digest(self) -> bytes: ...

    def _columns(self, start: int, stop: int) -> dict[str, Array]:
        return self._columns_at(np.arange(start, stop))

    def _lanes(self, start: int, stop: int, names: frozenset[str]) -> Lanes:
        return self._lanes_at(np.arange(start, stop), names)

    @cached_property
    def _distinct(self) -> bool:
        """Whether no row stands here twice."""
        return not self._ranks.any()

    @cached_property
    def _ranks(self) -> npt.NDArray[np.int64]:
        """The occurrence numbers of all rows, for spaces that have no shorter way to them."""
        return occurrences(self._lanes(0, len(self), frozenset(self.parameters)))

    def _occurrences_at(self, at: Indices) -> npt.NDArray[np.int64]:
        return self._ranks[at]

    def _multiplicities_at(self, at: Indices) -> npt.NDArray[np.int64]:
        """Return how often the row at each index stands in the whole space."""
        lanes = self._lanes(0, len(self), frozenset(self.parameters))
        _, group, counts = np.unique(lanes, axis=0, return_inverse=True, return_counts=True)
        result: npt.NDArray[np.int64] = counts[group.reshape(-1)[at]]
        return result

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
            return self.columns()[item]
        return self._row(range(len(self))[item])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.iterate()

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[dict[str, Any]]:
        """Iterate over rows start..stop-1 as dicts of the values as they were written."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return self._rows(start, stop, plain=False)

    def build(self) -> dict[str, list[Any]]:
        """Return all rows as a dict of lists of Python scalars."""
        columns: dict[str, list[Any]] = {name: [] for name in self.parameters}
        pairs = [(columns[name].append, name) for name in self.parameters]
        for row in self._rows(0, len(self), plain=True):
            for append, name in pairs:
                append(row[name])
        return columns

    def columns(self, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Return rows start..stop-1 as arrays, each of shape (stop - start, ...); see `exact_array` for dtypes."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return self._columns(start, max(start, stop))

    def columns_at(self, at: Indices) -> dict[str, Array]:
        """Return the rows of these numbers as arrays, in their order."""
        return self._columns_at(np.asarray(at, dtype=np.int64))

    def item_keys(self, start: int = 0, stop: int | None = None) -> Lanes:
        """Return the identity keys of rows start..stop-1, shape (n, 2); no two rows of a space share one."""
        start, stop, _ = slice(start, stop).indices(len(self))
        stop = max(start, stop)
        lanes = self._lanes(start, stop, frozenset(self.parameters))
        return finish(lanes, 0 if self._distinct else self._occurrences_at(np.arange(start, stop)))

    def item_keys_at(self, at: Indices) -> Lanes:
        """Return the identity keys of the rows of these numbers, shape (len(at), 2)."""
        at = np.asarray(at, dtype=np.int64)
        lanes = self._lanes_at(at, frozenset(self.parameters))
        return finish(lanes, 0 if self._distinct else self._occurrences_at(at))

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

    def _text(self, show: Callable[[Any], str], names: Sequence[str], pattern: str, end: str) -> str:
        rows = dict_concat(self._rows(0, min(len(self), _SHOWN_ROWS), plain=True))
        more = ", ..." if len(self) > _SHOWN_ROWS else ""
        parts = [pattern.format(n, f"[{', '.join(map(show, rows.get(n, ())))}{more}]") for n in names]
        return ", ".join(parts) + end

    def __str__(self) -> str:
        return f"Param({self._text(repr, sorted(self.parameters), '{}={}', ')')}"

    def __repr__(self) -> str:
        if not self.parameters and len(self) != 1:
            return " + ".join(["Param()"] * len(self)) or "Param()[:0]"
        items = self._text(evaluable, self.parameters, "{0!r}: {1}", "})")
        return f"Param(**{{{items}"


def _unknown_names(unknown: Iterable[str], space: ParameterSpace) -> str:
    return f"unknown parameters {', '.join(sorted(unknown))}: the space has {', '.join(space.parameters) or 'none'}"


class _Axis:
    """The values of one name in a `Param`: as written, as Python scalars, as an array, as lanes."""

    def __init__(self, name: str, values: Sequence[Any] | Array):
        self.name = name
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    @cached_property
    def values(self) -> list[Any]:
        return list(self._values)

    @cached_property
    def plain(self) -> list[Any]:
        return plain_list(self._values)

    @cached_property
    def array(self) -> Array:
        if isinstance(self._values, np.ndarray):
            return self._values if self._values.dtype != object else exact_array(self.values)
        if isinstance(self._values, range):
            return np.arange(self._values.start, self._values.stop, self._values.step, dtype=np.int64)
        return exact_array(self._values)

    @cached_property
    def lanes(self) -> Lanes:
        typed = isinstance(self._values, (np.ndarray, range)) and self.array.dtype.kind in "biuf"
        return value_lanes(self.name, self.array if typed else self.values)

    @cached_property
    def mutable(self) -> bool:
        return any(isinstance(v, (list, dict, np.ndarray)) for v in self.values)


def _axis(name: str, value: Any, length: int) -> _Axis:
    if not _is_sequence(value):
        return _Axis(name, [value] * length)
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.setflags(write=False)
        return _Axis(name, value)
    return _Axis(name, value if isinstance(value, range) else list(value))


def _is_sequence(value: Any) -> bool:
    if isinstance(value, (str, bytes, Mapping)):
        return False
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _materialised(name: str, value: Any) -> Any:
    """Return series as arrays and iterators as lists; refuse what has no order."""
    if isinstance(value, (set, frozenset)):
        raise TypeError(f"parameter {name!r} is a set, which has no order; give it as sorted(...)")
    if hasattr(value, "to_numpy"):
        return value.to_numpy()
    if isinstance(value, Iterator) or hasattr(value, "mapping"):
        return list(value)
    return value


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

    def __init__(self, **params: Any):
        params = {name: _materialised(name, value) for name, value in params.items()}
        lengths = {name: len(value) for name, value in params.items() if _is_sequence(value)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
            raise ValueError(f"parameters of one Param need the same number of values: {told}. Join them with * ?")
        self._length = next(iter(lengths.values()), 1)
        self.parameters = tuple(params)
        self._axes = {name: _axis(name, value, self._length) for name, value in params.items()}

    def __len__(self) -> int:
        return self._length

    def _row(self, i: int) -> dict[str, Any]:
        row = {name: axis.values[i] for name, axis in self._axes.items()}
        return self._protected(row)

    def _protected(self, row: dict[str, Any]) -> dict[str, Any]:
        for name in self._mutable:
            row[name] = copy.deepcopy(row[name])
        return row

    @cached_property
    def _mutable(self) -> list[str]:
        return [name for name, axis in self._axes.items() if axis.mutable]

    def _rows(self, start: int, stop: int, plain: bool) -> Iterator[dict[str, Any]]:
        names = self.parameters
        if not names:
            yield from ({} for _ in range(start, stop))
            return
        axes = self._axes.values()
        columns = [islice(a.plain if plain else a.values, start, stop) for a in axes]
        for values in zip(*columns, strict=True):
            row = dict(zip(names, values, strict=True))
            yield self._protected(row) if self._mutable else row

    def _columns_at(self, at: Indices) -> dict[str, Array]:
        return {name: axis.array[at] for name, axis in self._axes.items()}

    def _columns(self, start: int, stop: int) -> dict[str, Array]:
        return {name: axis.array[start:stop] for name, axis in self._axes.items()}

    def _lanes_at(self, at: Indices, names: frozenset[str]) -> Lanes:
        return self._sums(names)[at]

    def _lanes(self, start: int, stop: int, names: frozenset[str]) -> Lanes:
        return self._sums(names)[start:stop]

    def _sums(self, names: frozenset[str]) -> Lanes:
        total = np.zeros((len(self), 2), dtype=np.uint64)
        for axis in self._axes.values():
            if axis.name in names:
                total = total + axis.lanes
        return total

    def _digest(self) -> bytes:
        state = blake2b(b"Param %d" % len(self), digest_size=16)
        for name, axis in self._axes.items():
            state.update(value_lanes(name, ["name"]).tobytes() + axis.lanes.tobytes())
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

    def _row(self, i: int) -> dict[str, Any]:
        outer, inner = divmod(i, len(self.right))
        return self.left._row(outer) | self.right._row(inner)

    def _rows(self, start: int, stop: int, plain: bool) -> Iterator[dict[str, Any]]:
        width = len(self.right)
        if stop <= start:
            return
        first, last = start // width, (stop - 1) // width
        for outer, left in enumerate(self.left._rows(first, last + 1, plain), start=first):
            low = start - outer * width if outer == first else 0
            high = stop - outer * width if outer == last else width
            for right in self.right._rows(low, high, plain):
                yield left | right

    def _columns_at(self, at: Indices) -> dict[str, Array]:
        outer, inner = np.divmod(at, max(len(self.right), 1))
        return self.left._columns_at(outer) | self.right._columns_at(inner)

    def _columns(self, start: int, stop: int) -> dict[str, Array]:
        width = len(self.right)
        if stop - start < width or not width:
            return self._columns_at(np.arange(start, stop))
        first, last = start // width, -(-stop // width)
        low, high = start - first * width, stop - first * width
        left = {n: np.repeat(c, width, axis=0)[low:high] for n, c in self.left._columns(first, last).items()}
        right = self.right._columns(0, width)
        return left | {n: _tiled(c, last - first)[low:high] for n, c in right.items()}

    def _lanes_at(self, at: Indices, names: frozenset[str]) -> Lanes:
        outer, inner = np.divmod(at, max(len(self.right), 1))
        return self.left._lanes_at(outer, names) + self.right._lanes_at(inner, names)

    def _lanes(self, start: int, stop: int, names: frozenset[str]) -> Lanes:
        width = len(self.right)
        if stop - start < width or not width:
            return self._lanes_at(np.arange(start, stop), names)
        first, last = start // width, -(-stop // width)
        left, right = self.left._lanes(first, last, names), self.right._lanes(0, width, names)
        both: Lanes = (left[:, np.newaxis, :] + right[np.newaxis, :, :]).reshape(-1, 2)
        return both[start - first * width : stop - first * width]

    def _digest(self) -> bytes:
        return _combined(b"*", self.left, self.right)

    @cached_property
    def _distinct(self) -> bool:
        return not len(self) or (self.left._distinct and self.right._distinct)

    def _occurrences_at(self, at: Indices) -> npt.NDArray[np.int64]:
        # Equal rows before (i, j): those of an earlier equal i, with all equals of j; then those of i itself.
        outer, inner = np.divmod(at, max(len(self.right), 1))
        times = self.right._multiplicities_at(inner)
        return self.left._occurrences_at(outer) * times + self.right._occurrences_at(inner)

    def _multiplicities_at(self, at: Indices) -> npt.NDArray[np.int64]:
        outer, inner = np.divmod(at, max(len(self.right), 1))
        return self.left._multiplicities_at(outer) * self.right._multiplicities_at(inner)


def _tiled(column: Array, times: int) -> Array:
    return np.tile(column, (times,) + (1,) * (column.ndim - 1))


def _combined(operator: bytes, left: ParameterSpace, right: ParameterSpace) -> bytes:
    return blake2b(operator + left._digest() + right._digest(), digest_size=16).digest()


class Sum(ParameterSpace):
    """The rows of the left space, then those of the right one; a name that one of them lacks is NaN in its rows."""

    def __init__(self, left: ParameterSpace, right: ParameterSpace):
        self.parameters = tuple(dict.fromkeys(left.parameters + right.parameters))
        self.left, self.right = left, right

    def __len__(self) -> int:
        return len(self.left) + len(self.right)

    def _row(self, i: int) -> dict[str, Any]:
        split = len(self.left)
        row = self.left._row(i) if i < split else self.right._row(i - split)
        return {name: row.get(name, _NAN) for name in self.parameters}

    def _rows(self, start: int, stop: int, plain: bool) -> Iterator[dict[str, Any]]:
        split = len(self.left)
        absent = dict.fromkeys(self.parameters, _NAN)
        for space, low, high in ((self.left, start, min(stop, split)), (self.right, max(start, split), stop)):
            offset = 0 if space is self.left else split
            if low < high:
                for row in space._rows(low - offset, high - offset, plain):
                    yield absent | row

    def _columns_at(self, at: Indices) -> dict[str, Array]:
        split = len(self.left)
        in_left = at < split
        left, right = self.left._columns_at(at[in_left]), self.right._columns_at(at[~in_left] - split)
        back = np.argsort(np.argsort(~in_left, kind="stable"), kind="stable")
        absent = {True: np.full(int(in_left.sum()), _NAN), False: np.full(int((~in_left).sum()), _NAN)}
        pairs = {n: (left.get(n, absent[True]), right.get(n, absent[False])) for n in self.parameters}
        return {name: _joined(a, b)[back] for name, (a, b) in pairs.items()}

    def _lanes_at(self, at: Indices, names: frozenset[str]) -> Lanes:
        split = len(self.left)
        in_left = at < split
        lanes = np.empty((len(at), 2), dtype=np.uint64)
        lanes[in_left] = self.left._lanes_at(at[in_left], names) + self._absent(self.left, names)
        lanes[~in_left] = self.right._lanes_at(at[~in_left] - split, names) + self._absent(self.right, names)
        return lanes

    def _absent(self, space: ParameterSpace, names: frozenset[str]) -> Lanes:
        """Return the lanes of the NaN that stand for the names that one of the two spaces lacks."""
        total = np.zeros((1, 2), dtype=np.uint64)
        for name in (names & set(self.parameters)) - set(space.parameters):
            total = total + value_lanes(name, [_NAN])
        return total

    def _digest(self) -> bytes:
        return _combined(b"+", self.left, self.right)


def _joined(left: Array, right: Array) -> Array:
    if not len(left) or not len(right):
        return right if not len(left) else left
    return join([left, right])


class Rows(ParameterSpace):
    """A view: some rows of another space, by their numbers."""

    _base: ParameterSpace

    def __init__(self, base: ParameterSpace, at: range | Indices):
        if isinstance(base, Rows) and isinstance(base._at, range) and isinstance(at, range) and at.step > 0:
            base, at = base._base, base._at[at.start : at.stop : at.step]
        self.parameters = base.parameters
        self._base, self._given = base, at

    @property
    def _at(self) -> range | Indices:
        return self._given

    def __len__(self) -> int:
        return len(self._at)

    def _numbers(self, at: Indices) -> Indices:
        if isinstance(self._at, range):
            return self._at.start + at * self._at.step
        return self._at[at]

    def _row(self, i: int) -> dict[str, Any]:
        return self._base._row(int(self._at[i]))

    def _rows(self, start: int, stop: int, plain: bool) -> Iterator[dict[str, Any]]:
        if isinstance(self._at, range) and self._at.step == 1:
            yield from self._base._rows(self._at.start + start, self._at.start + stop, plain)
            return
        for i in self._at[start:stop]:
            row = self._base._row(int(i))
            yield dict(zip(row, plain_list(list(row.values())), strict=True)) if plain else row

    def _columns_at(self, at: Indices) -> dict[str, Array]:
        return self._base._columns_at(self._numbers(at))

    def _columns(self, start: int, stop: int) -> dict[str, Array]:
        if isinstance(self._at, range) and self._at.step == 1:
            return self._base._columns(self._at.start + start, self._at.start + stop)
        return super()._columns(start, stop)

    def _lanes_at(self, at: Indices, names: frozenset[str]) -> Lanes:
        return self._base._lanes_at(self._numbers(at), names)

    def _digest(self) -> bytes:
        at = self._at
        told = b"%d:%d:%d" % (at.start, at.stop, at.step) if isinstance(at, range) else at.tobytes()
        return blake2b(b"[" + self._base._digest() + told, digest_size=16).digest()

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

    @property
    def _at(self) -> Indices:
        return self._kept

    @cached_property
    def _kept(self) -> Indices:
        names = frozenset(self._subtrahend.parameters)
        rows = self._base._lanes(0, len(self._base), names)
        return np.flatnonzero(find(rows, self._subtrahend._lanes(0, len(self._subtrahend), names)) < 0)


def missing(space: ParameterSpace, done: ParameterSpace | Mapping[str, Any]) -> ParameterSpace:
    """Return the rows of a space that are not done; a row that is there twice and done once is missing once.

    Parameters
    ----------
    space : ParameterSpace
        What is wanted.
    done : ParameterSpace or dict of sequences
        What there is: rows with the same names.

    Raises
    ------
    AmbiguousOperationError
        The names differ.

    Examples
    --------
    >>> print(missing(Param(a=[1, 2]) * Param(b=[1, 2]), Param(a=[1, 2], b=[1, 2])))
    Param(a=[1, 2], b=[2, 1])
    """
    if not isinstance(done, ParameterSpace):
        done = Param(**done)
    if not len(done):
        return space
    differing = set(space.parameters) ^ set(done.parameters)
    if differing:
        raise AmbiguousOperationError(
            f"what is done and what is wanted differ in {', '.join(sorted(differing))}: rows are compared whole. "
            "Select the parameters' columns first"
        )
    return Rows(space, np.flatnonzero(find(space.item_keys(), done.item_keys()) < 0))
