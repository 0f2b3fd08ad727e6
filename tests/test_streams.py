"""Columns in pieces: the same rows as in one array, and a summary that tells columns apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from psyrun.arrays import Array
from psyrun.streams import Watched, is_stream, pieces_of, raw, rows_per_piece, whole

DTYPES = ["?", "i1", ">i4", "u8", "f4", ">f8", "g", "c16", "M8[s]", "m8[D]", "U3", "S2"]
COLUMNS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
)


class Pieces:
    """An array in pieces of n rows."""

    def __init__(self, array: Array, n: int):
        self.array, self.n = array, n
        self.dtype, self.shape = array.dtype, array.shape

    def pieces(self) -> Iterator[Array]:
        for first in range(0, max(1, len(self.array)), self.n):
            yield self.array[first : first + self.n]


@given(COLUMNS, st.integers(1, 5))
def test_pieces_are_the_column(column: Array, n: int) -> None:
    """However large they are; each time they are asked for."""
    stream = Pieces(column, n)
    assert is_stream(stream) and not is_stream(column)
    for _ in range(2):
        found = whole(stream)
        assert (found.dtype, found.shape) == (column.dtype, column.shape)
        np.testing.assert_array_equal(found, column)
    assert whole(column) is column


@given(COLUMNS, st.integers(1, 5))
def test_the_summary_does_not_depend_on_the_pieces(column: Array, n: int) -> None:
    """Nor on the order of bytes."""
    first, second = Watched(column), Watched(Pieces(column, n))
    third = Watched(column.astype(column.dtype.newbyteorder()))
    for watched in (first, second, third):
        list(watched.pieces())
    assert first.summary == second.summary == third.summary
    assert first.summary.n_rows == len(column)


@pytest.mark.parametrize(
    "other",
    [
        [1.0, 2.0, 4.0],
        [1.0, 3.0, 2.0],
        [1.0, 2.0],
        [1.0, 2.0, 3.0, 0.0],
        [[1.0], [2.0], [3.0]],
        [1, 2, 3],
        ["1", "2", "3"],
    ],
)
def test_the_summary_tells_columns_apart(other: Any) -> None:
    """Values, order, number, shape and type of the rows."""
    columns = Watched(np.array([1.0, 2.0, 3.0])), Watched(np.array(other))
    for column in columns:
        list(column.pieces())
    assert columns[0].summary != columns[1].summary


def test_a_column_that_nobody_read_has_no_summary() -> None:
    """A store that wrote nothing is noticed."""
    read = Watched(np.zeros(0))
    list(read.pieces())
    assert read.summary != Watched(np.zeros(0)).summary


@given(COLUMNS)
def test_raw_bytes_are_those_of_the_array(column: Array) -> None:
    """In order, whatever the layout in memory."""
    assert bytes(raw(column)) == column.tobytes()
    assert bytes(raw(column[::-1])) == column[::-1].tobytes()
    assert bytes(raw(column.T)) == column.T.tobytes()


def test_a_piece_has_a_row_at_least() -> None:
    """Of rows of any size."""
    assert rows_per_piece(np.dtype("f8"), (5, 10**9)) == 1
    assert rows_per_piece(np.dtype("f8"), (5, 0)) > 1
    assert next(pieces_of(np.arange(3))).tolist() == [0, 1, 2]
