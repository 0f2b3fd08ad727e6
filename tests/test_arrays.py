"""Arrays keep values as they were written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from psyrun.arrays import Array, evaluable, exact_array, join, objects, plain, plain_list, same_number
from test_keys import identity, numbers, scalars, values

# Arrays of three rows, of all that exact_array makes.
COLUMNS = npst.arrays(
    st.sampled_from(["?", "i1", "i8", "u8", "f4", "f8", "c8", "c16", "U2", "S2", "M8[s]", "m8[D]"]),
    st.tuples(st.integers(0, 3)) | st.tuples(st.just(3), st.integers(0, 2)),
)


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal and alike in being text, truth value, or sequence."""
    truth = (bool, np.bool_)
    return identity(first) == identity(second) and isinstance(first, truth) == isinstance(second, truth)


@given(st.lists(values, max_size=4) | st.lists(numbers, max_size=4) | st.lists(scalars, max_size=4))
def test_exact_array_changes_no_value(rows: list[Any]) -> None:
    """Each element of the array is the value that was given."""
    array = exact_array(rows)
    assert len(array) == len(rows)
    assert all(map(same, array, rows))


@given(st.lists(values, max_size=4))
def test_objects_are_the_very_same(rows: list[Any]) -> None:
    """One dimension, whatever the values are."""
    array = objects(rows)
    assert array.shape == (len(rows),)
    assert all(a is b for a, b in zip(array, rows, strict=True))


@given(st.lists(COLUMNS, min_size=1, max_size=3))
def test_join_changes_no_value(columns: list[Array]) -> None:
    """The rows of the arrays, one after another."""
    joined = join(columns)
    rows = [row for column in columns for row in column]
    assert len(joined) == len(rows)
    assert all(map(same, joined, rows))


@given(values)
def test_evaluable_text_gives_an_equal_value(value: Any) -> None:
    """What is printed can be typed."""
    assert identity(eval(evaluable(value), {"np": np})) == identity(value)


@given(COLUMNS)
def test_plain_list_has_python_scalars(column: Array) -> None:
    """NumPy's scalars become Python's where Python has the same; arrays and times stay."""
    rows = plain_list(column)
    assert all(map(same, rows, column))
    kinds = np.ndarray if column.ndim > 1 else (np.datetime64, np.timedelta64, bool, int, float, complex, str, bytes)
    assert all(isinstance(row, kinds) and type(row) is type(plain(row)) for row in rows)


@given(COLUMNS.filter(lambda a: a.dtype.kind in "biufc"), st.sampled_from(["f4", "f8", "c16", "i8", "u1", "g"]))
def test_same_number_tells_whether_a_conversion_is_exact(column: Array, dtype: str) -> None:
    """It says yes only if converting changes nothing."""
    if same_number(column, np.dtype(dtype)):
        converted = column.astype(dtype)
        assert [identity(v) for v in converted.ravel()] == [identity(v) for v in column.ravel()]


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, 0.5], "float64"),
        ([2**63], "uint64"),
        ([2**64], "object"),
        ([-1, 2**63], "object"),
        ([2**53 + 1, 0.5], "object"),
        ([True, False], "bool"),
        ([True, 2], "object"),
        (["a", "bc"], "<U2"),
        (["a", 1], "object"),
        (["a\0"], "object"),
        ([b"a", b"\0"], "object"),
        ([np.float32(1), np.float32(2)], "float32"),
        ([np.int8(1), np.int16(1)], "object"),
        ([[1, 2], [3, 4]], "int64"),
        ([[1, 2], [3]], "object"),
        ([[1, "a"], [2, "b"]], "object"),
        ([None], "object"),
    ],
)
def test_the_dtype_is_the_one_that_holds_all_unchanged(rows: list[Any], dtype: str) -> None:
    """Numbers, truth values and text stay what they are; where no dtype allows that, objects, one a row."""
    array = exact_array(rows)
    assert array.dtype == np.dtype(dtype)
    assert array.dtype != object or array.shape == (len(rows),)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([np.float64(0.5), 0.0], "f8"),
        ([np.float32(0.1), 1], "f8"),
        ([np.int64(1), 2], "i8"),
        ([np.uint8(1), 2.5], "f8"),
        ([np.int64(2**53 + 1), 0.5], "O"),
        ([np.float64(0.5), True], "O"),
        ([np.timedelta64(1, "s"), 1], "O"),
        ([np.longdouble(1), 1.0], "O"),
    ],
)
def test_numbers_of_numpy_and_of_python_share_an_array(values: list[Any], dtype: str) -> None:
    """As means and constants do in one list; where one would change they do not."""
    array = exact_array(values)
    assert array.dtype == np.dtype(dtype)
    assert all(a == b for a, b in zip(array, values, strict=True))
