"""Columns hold what the rows held, or say that they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from psyrun.arrays import Array
from psyrun.columns import KEYS, N_ITEMS, NONE, SHAPE, filled, height, restored, settled, stacked
from psyrun.errors import UnsupportedValueError
from psyrun.testing import COLUMNS, identities


@given(COLUMNS, st.booleans())
def test_a_column_gives_back_its_values_or_refuses_them(rows: list[Any], objects_ok: bool) -> None:
    """Whatever is accepted comes back equal, absent values as None; a store of objects accepts all."""
    try:
        data = settled("x", rows, objects_ok)
    except UnsupportedValueError as error:
        assert not objects_ok
        assert "column 'x'" in str(error) and "PickleStore" in str(error)
        return
    assert {len(column) for column in data.values()} == {len(rows)}
    assert objects_ok or all(column.dtype != object for column in data.values())
    assert identities(restored("x", data)) == identities(rows)


@given(COLUMNS, COLUMNS, COLUMNS)
def test_rows_are_stacked_below_each_other(upper: list[Any], lower: list[Any], other: list[Any]) -> None:
    """A name that one side lacks is None in its rows."""
    n = min(len(lower), len(other))
    first, second = settled("x", upper, True), settled("x", lower[:n], True) | settled("y", other[:n], True)
    try:
        data = stacked(first, second, True)
    except UnsupportedValueError:
        return
    assert identities(restored("x", data)) == identities([*upper, *lower[:n]])
    assert identities(restored("y", data)) == identities([None] * len(upper) + other[:n])


@given(npst.arrays(npst.scalar_dtypes(), npst.array_shapes(max_dims=2, min_side=0, max_side=3)))
def test_typed_arrays_stay_as_they_are(column: Array) -> None:
    """Nothing is converted that is an array already."""
    assert settled("x", column)["x"] is column


@pytest.mark.parametrize(
    ("rows", "dtype", "filler"),
    [
        ([1, None], "float64", np.nan),
        ([True, None], "float64", np.nan),
        ([1.5, None], "float64", np.nan),
        ([np.float32(1), None], "float32", np.nan),
        ([1j, None], "complex128", np.nan),
        (["ab", None], "<U2", ""),
        ([b"ab", None], "|S2", b""),
        ([np.datetime64(0, "s"), None], "<M8[s]", np.datetime64("NaT", "s")),
        ([2**60 + 1, None], "int64", 0),
        ([None, None], "float64", np.nan),
        ([[1, 2], None], "float64", np.nan),
    ],
)
def test_absent_values_are_filled_and_marked(rows: list[Any], dtype: str, filler: Any) -> None:
    """NaN among numbers, '' among text; integers that no float holds stay themselves, with a 0."""
    data = settled("x", rows)
    assert data["x"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(data["x"][1], np.broadcast_to(filler, data["x"].shape[1:]))
    assert data[NONE + "x"].tolist() == [row is None for row in rows]


def test_arrays_of_differing_shapes_are_padded() -> None:
    """To the largest, with NaN; the true shapes are kept beside."""
    data = settled("x", [[1, 2, 3], [4], np.zeros(0), None])
    np.testing.assert_array_equal(data["x"], [[1, 2, 3], [4, np.nan, np.nan], [np.nan] * 3, [np.nan] * 3])
    assert data[SHAPE + "x"].tolist() == [[3], [1], [0], [0]]
    assert [None if v is None else v.tolist() for v in restored("x", data)] == [[1, 2, 3], [4], [], None]


def test_single_numbers_among_arrays_stay_single() -> None:
    """A number is not an array of one."""
    data = settled("x", [1, [2, 3], [4]])
    np.testing.assert_array_equal(data["x"], [[1, np.nan], [2, 3], [4, np.nan]])
    assert [np.ndim(v) for v in restored("x", data)] == [0, 1, 1]


def test_lists_of_text_may_be_empty() -> None:
    """An empty list says nothing of what would be in it."""
    assert settled("x", [["a", "bc"], []])["x"].tolist() == [["a", "bc"], ["", ""]]


@pytest.mark.parametrize(
    "rows",
    [
        [1, "a"],
        ["a", b"a"],
        [{"a": 1}],
        [object()],
        ["a\0"],
        [2**53 + 1, 0.5],
        [2**64],
        [[1], [[1]]],
        [["a"], [1]],
        [["a"], [b"b", b"c"]],
        [[2**53 + 1], [0.5, 1]],
        [np.timedelta64(1, "s"), 1],
        [np.timedelta64(1, "s"), 0.5],
        [np.datetime64(0, "s"), np.datetime64(0, "D")],
    ],
)
def test_what_would_change_is_refused(rows: list[Any]) -> None:
    """The error names the column and the store that holds anything."""
    with pytest.raises(UnsupportedValueError, match=r"column 'y' holds .*store = psyrun\.PickleStore\(\)"):
        settled("y", rows)
    assert settled("y", rows, objects_ok=True)["y"].tolist() == rows


def test_hidden_columns_are_stacked_where_both_have_them() -> None:
    """Half a column of keys would tell nothing; the number of items is not that of more rows."""
    keys = np.ones((1, 2), dtype=np.uint64)
    with_keys = {"x": np.ones(1), KEYS: keys, N_ITEMS: np.array(5)}
    assert list(stacked(with_keys, {"x": np.ones(1)}, False)) == ["x"]
    both = stacked(with_keys, with_keys, False)
    assert list(both) == ["x", KEYS]
    assert both[KEYS].dtype == np.uint64 and both[KEYS].shape == (2, 2)


def test_height_is_the_number_of_rows() -> None:
    """Of the first column; none has no rows."""
    assert height({N_ITEMS: np.array(9), "x": np.zeros(3)}) == 3
    assert height({}) == 0


@given(npst.arrays(st.sampled_from(["?", "i4", "u8", "f4", "c8", "U3", "S3", "M8[s]", "m8[s]"]), (2, 3)))
def test_fillers_have_the_shape_and_hold_the_values(like: Array) -> None:
    """n rows, in a dtype into which the values of the column fit unchanged."""
    rows = filled(4, like)
    assert rows.shape == (4, 3)
    assert identities(like.astype(rows.dtype)) == identities(like)
