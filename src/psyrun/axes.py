"""The values of one parameter, and selections of rows: what parameter spaces are made of."""

from __future__ import annotations

import copy
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from functools import cached_property
from itertools import repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array, exact_array, is_masked, plain, plain_list, same_number
from psyrun.keys import Lanes, value_lanes

Indices = npt.NDArray[np.int64]

Selection: TypeAlias = range | Indices
"""Row numbers, all of them valid: a range of step 1, for which there are shorter ways, or any numbers in an array."""

# Values of these kinds are copied on the way in and out; a tuple may hold others of them.
_CAN_CHANGE = (list, tuple, Mapping, set, np.ndarray)


def indices_of(at: Selection) -> Indices:
    """Return row numbers as an array."""
    return np.arange(at.start, at.stop, at.step) if isinstance(at, range) else at


def where(at: Selection) -> slice | Indices:
    """Return what an array takes between its brackets for these rows."""
    return slice(at.start, at.stop) if isinstance(at, range) else at


class Axis:
    """The values of one name in a `Param`: as written, as an array, as lanes. A scalar is held once."""

    def __init__(self, name: str, value: Any, length: int):
        self.name = name
        self._length = length
        self._scalar = not is_sequence(value)
        self._values: Sequence[Any] | Array
        if isinstance(value, np.ndarray) and value.dtype != object:
            self._values = np.array(value)
            self._values.setflags(write=False)
            self.mutable = value.ndim > 1
        elif isinstance(value, range) and all(-(2**63) <= n < 2**63 for n in (value.start, value.stop, value.step)):
            self._values = value
            self.mutable = False
        else:
            values = [value] if self._scalar else list(value)
            self.mutable = any(issubclass(t, _CAN_CHANGE) for t in set(map(type, values)))
            self._values = copy.deepcopy(values) if self.mutable else values

    def rows(self, at: Selection, as_plain: bool) -> Iterable[Any]:
        """Return the values of rows, as written or as Python scalars."""
        own = self._values
        if self._scalar:
            return repeat(plain(own[0]) if as_plain else own[0], len(at))
        values: Sequence[Any] | Array
        if isinstance(own, np.ndarray):
            values = own[where(at)]
        else:
            values = own[at.start : at.stop] if isinstance(at, range) else [own[i] for i in at.tolist()]
        return plain_list(values) if as_plain and not isinstance(values, range) else values

    def column(self, at: Selection) -> Array:
        """Return the values of rows as an array."""
        column: Array = self._array[where(at)]
        return copy.deepcopy(column) if column.dtype == object and self.mutable else column

    @cached_property
    def _array(self) -> Array:
        if isinstance(self._values, range):
            array: Array = np.arange(self._values.start, self._values.stop, self._values.step, dtype=np.int64)
        else:
            array = self._values if isinstance(self._values, np.ndarray) else exact_array(self._values)
        array.setflags(write=False)
        return self._spread(array)

    def lanes(self, at: Selection) -> Lanes:
        """Return the hashes of the values of rows, shape (n, 2)."""
        if self._is_numbers and len(at) < self._length // 2:
            return value_lanes(self.name, self._array[where(at)])  # workers ask for a few at a time
        return self._lanes[where(at)]

    @property
    def _is_numbers(self) -> bool:
        return not self._scalar and self._array.dtype.kind in "biuf" and self._array.ndim == 1

    @cached_property
    def _lanes(self) -> Lanes:
        own = self._array[: len(self._values)]
        return self._spread(value_lanes(self.name, own if own.dtype.kind in "biuf" else self._values))

    def digest(self) -> bytes:
        """Return what differs where name or values do; nearly always it is the same where they are."""
        name = value_lanes(self.name, ["name"]).tobytes()
        if self._is_numbers:
            numbers = _in_one_type(self._array)
            return name + numbers.dtype.str.encode() + numbers.tobytes()
        return name + self._lanes.tobytes()

    @property
    def distinct(self) -> bool:
        """Whether no value stands here twice, as far as one look tells: numbers that only rise or only fall."""
        if not self._is_numbers:
            return False
        first, second = self._array[:-1], self._array[1:]
        return bool((first < second).all() or (first > second).all())

    def _spread(self, array: Array) -> Array:
        return np.broadcast_to(array, (self._length, *array.shape[1:])) if self._scalar else array


def _in_one_type(numbers: Array) -> Array:
    """Return numbers as int64 where they are whole, as float64 elsewhere, if these types hold them."""
    if numbers.dtype.kind in "biu" and same_number(numbers, np.dtype(np.int64)):
        return numbers.astype(np.int64)
    if numbers.dtype.kind == "f" and numbers.dtype.itemsize <= 8:
        numbers = numbers.astype(np.float64)
        if bool((np.abs(numbers) < 2.0**53).all()) and bool((numbers == np.floor(numbers)).all()):
            return numbers.astype(np.int64)
    return numbers


def is_sequence(value: Any) -> bool:
    """Whether a value is one for each row; text, bytes and dicts are one for all."""
    if isinstance(value, (str, bytes, Mapping)):
        return False
    return hasattr(value, "__len__") and hasattr(value, "__getitem__")


def materialised(name: str, value: Any) -> Any:
    """Return series as arrays, iterators as lists and arrays without axes as scalars; refuse what has no order."""
    if isinstance(value, (set, frozenset)):
        raise TypeError(f"parameter {name!r} is a set, which has no order; give it as sorted(...)")
    if is_masked(value):
        raise TypeError(f"parameter {name!r} is a masked array; give its compressed() or filled(...)")
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, np.ndarray) and not value.ndim:
        return value[()]
    if isinstance(value, (Iterator, KeysView, ValuesView, ItemsView)):
        return list(value)
    return value
