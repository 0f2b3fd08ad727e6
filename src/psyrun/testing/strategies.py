"""Values, columns and arrays that results are made of, as Hypothesis strategies."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from psyrun.arrays import Array
from psyrun.keys import canonical

law = settings(
    deadline=None,
    # Classes that derive from the contract run its laws each with its own store.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
"""How laws about files are tested: without deadlines, because disks pause."""

_INTEGERS = st.integers(-3, 3) | st.integers() | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63)])
_FLOATS = st.floats() | st.sampled_from([0.1, 0.5, 1.0, -0.0, 2.0**53, 2.0**63, 1e300])
_NUMBERS = st.booleans() | _INTEGERS | _FLOATS | st.builds(complex, _FLOATS, st.sampled_from([0.0, 1.0]))
_TEXTS = st.text(max_size=3) | st.sampled_from(["1", "a", "a\0", "\ud800", "None"])
_TIMES = st.builds(
    lambda count, unit, kind: kind(count, unit),
    st.integers(-(10**6), 10**6) | st.just("NaT"),
    st.sampled_from(["D", "h", "s", "ns"]),
    st.sampled_from([np.datetime64, np.timedelta64]),
)
_THIRDS = st.integers(-(10**6), 10**6).map(lambda n: np.longdouble(n) / 3)
_SHAPES = npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)

VALUES: st.SearchStrategy[Any] = st.recursive(
    _NUMBERS | _THIRDS | _TEXTS | st.binary(max_size=2) | _TIMES | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(_NUMBERS, max_size=3).map(np.array)
        | st.dictionaries(_INTEGERS | _TEXTS, inner, max_size=3)
    ),
    max_leaves=5,
)
"""Anything that identifies an item: numbers, text, bytes, times, None, and lists, arrays and dicts of these."""

_ELEMENTS: list[st.SearchStrategy[Any]] = [
    st.integers(-3, 3),
    _INTEGERS,
    _FLOATS,
    st.booleans(),
    _NUMBERS,
    _THIRDS,
    st.text(max_size=3),
    st.text(max_size=30),
    st.binary(max_size=3),
    st.builds(np.datetime64, st.integers(-9, 9), st.just("s")),
    st.builds(np.timedelta64, st.integers(-9, 9), st.sampled_from(["s", "h"])),
    npst.arrays(st.sampled_from(["f8", "i8", "u8", "?", "f4"]), _SHAPES),
    npst.arrays(st.sampled_from(["U2", "S1"]), _SHAPES),
    npst.arrays("M8[D]", _SHAPES),
    st.lists(st.integers(0, 3), max_size=3),
    st.lists(st.sampled_from("ab"), max_size=3),
    st.lists(st.lists(st.floats(), min_size=2, max_size=2), max_size=2),
    st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=2),
    VALUES,
]
COLUMNS = st.sampled_from(_ELEMENTS).flatmap(lambda e: st.lists(e, max_size=4) | st.lists(e | st.none(), max_size=4))
"""Lists of up to four values, each column of one kind of values; in some, rows have none."""

DTYPES = ["?", "i1", ">i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", ">f8", "f8", "g", "c8", "c16", "G"]
DTYPES += ["U1", "U4", "S1", "S4", "M8[s]", "M8[D]", "m8[ns]"]
"""All kinds of arrays that every store holds as they are, and some sizes and orders of each."""

ARRAYS = npst.arrays(st.sampled_from(DTYPES), _SHAPES.map(lambda shape: (3, *shape)))
"""Columns of three rows as arrays, of numbers, text, bytes and times."""


def identities(values: Iterable[Any]) -> list[Any]:
    """Return for each value something that is equal for two values exactly when they are the same.

    As for the keys of items: 1 and 1.0 and True are one number, NaN is NaN, and a list is an array of its elements.

    >>> identities([1, float('nan'), [1, 2]]) == identities([1.0, np.float32('nan'), np.array([1, 2])])
    True
    >>> identities([1, 'a', 2**53 + 1]) == identities(['1', 'a', 2.0**53])
    False
    """
    return [canonical(value) for value in values]


class Pieces:
    """A column that comes in several pieces (a `psyrun.streams.Stream`).

    Parameters
    ----------
    column : array, shape (n, ...)
    n_pieces : int
        At most n.

    Attributes
    ----------
    most_held : int
        How many of them were held at a time at most.
    """

    def __init__(self, column: Array, n_pieces: int):
        self._pieces = np.array_split(column, n_pieces)
        self.dtype: np.dtype[Any] = column.dtype
        self.shape: tuple[int, ...] = column.shape
        self.most_held = 0

    def pieces(self) -> Iterator[Array]:
        """Yield the pieces, each an array of its own."""
        given = []
        for part in self._pieces:
            piece = part.copy()
            given.append(weakref.ref(piece))
            yield piece
            del piece
            self.most_held = max(self.most_held, sum(held() is not None for held in given))
