"""What a store gives back: values, columns and rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.arrays import Array
from psyrun.columns import KEYS, N_ITEMS, NONE, restored
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store import Store
from psyrun.testing.machine import follows_the_model
from psyrun.testing.strategies import ARRAYS, COLUMNS, DTYPES, Pieces, identities, law

NAMES = ["x", "file", "self", "a/b", "a\\b", "/", ".", "..", "./a", "a.npy", "%2F", "a b", "ä", "数", "__init__", "-"]
NAMES += ["x" * 200]


def assert_same(first: Array, second: Array) -> None:
    """Fail if two arrays differ in values, shape or dtype; byte order does not count."""
    assert first.dtype.newbyteorder("=") == second.dtype.newbyteorder("=")
    np.testing.assert_array_equal(first, second)


@dataclass
class _Thing:
    """No number, text or array."""

    size: int


class Contents:
    """What is saved and appended comes back, all of it or what is asked for."""

    store: Store

    @law
    @given(st.lists(ARRAYS, min_size=1, max_size=3))
    def test_arrays_come_back_as_they_were(
        self, tmp_path_factory: pytest.TempPathFactory, columns: list[Array]
    ) -> None:
        """Values, shapes, dtypes, and the order of columns."""
        path = tmp_path_factory.mktemp("store") / f"result{self.store.ext}"
        data = {f"{i}": column for i, column in enumerate(columns)}
        self.store.save(path, data)
        loaded = self.store.load(path)
        assert list(loaded) == list(data)
        for name in data:
            assert_same(loaded[name], data[name])

    def test_every_dtype_comes_back(self, path: Path) -> None:
        """Of numbers, text, bytes and times."""
        data = {dtype: np.array([1, 0, 1]).astype(dtype) for dtype in DTYPES}
        self.store.save(path, data)
        loaded = self.store.load(path)
        for dtype, column in data.items():
            assert_same(loaded[dtype], column)

    @law
    @given(COLUMNS)
    def test_values_come_back_or_are_refused(self, tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
        """Lists as arrays; what an array cannot hold is refused with a word on the store that can."""
        path = tmp_path_factory.mktemp("store") / f"result{self.store.ext}"
        try:
            self.store.save(path, {"x": rows})
        except UnsupportedValueError as error:
            assert not self.store.holds_objects
            assert "column 'x'" in str(error) and "PickleStore" in str(error)
            assert list(path.parent.iterdir()) == []
            return
        assert identities(restored("x", self.store.load(path, keys=True))) == identities(rows)

    @law
    @given(ARRAYS.filter(lambda column: column.dtype.kind not in "US"), st.integers(1, 3))
    def test_columns_may_come_in_pieces(
        self, tmp_path_factory: pytest.TempPathFactory, column: Array, n_pieces: int
    ) -> None:
        """Of numbers and times; the file is that of whole columns, and is read back as it was written."""
        path = tmp_path_factory.mktemp("store") / f"result{self.store.ext}"
        self.store.save_verified(path, {"x": Pieces(column, n_pieces), "whole": column})
        loaded = self.store.load(path)
        assert list(loaded) == ["x", "whole"]
        assert_same(loaded["x"], column)
        assert_same(loaded["whole"], column)

    def test_a_store_that_streams_holds_few_pieces(self, path: Path) -> None:
        """It writes one before it asks for the next."""
        column = Pieces(np.arange(50.0), 50)
        self.store.save(path, {"x": column})
        assert column.most_held <= 3 or not self.store.streams

    def test_any_sequence_of_calls_gives_what_plain_lists_hold(self) -> None:
        """Save, append, interrupted writes, loads of all kinds: after each, the file holds what the model does."""
        follows_the_model(self.store)

    @pytest.mark.parametrize(
        "values",
        [[_Thing(1), None], [{"a": 1}, 2], [1, "a"], [len, len], [[1, "a"], []], [np.array([None])] * 2],
        ids=repr,
    )
    def test_objects_come_back_or_are_refused(self, path: Path, values: list[Any]) -> None:
        """A refusal names the column and the store that holds them, and leaves the file as it was."""
        self.store.save(path, {"x": [1]})
        before = path.read_bytes()
        for write in (self.store.append, self.store.save):
            if self.store.holds_objects:
                write(path, {"x": [2, 3], "y": values})
                assert self.store.load(path, row=-1) == {"x": 3, "y": values[-1]}
                continue
            with pytest.raises(UnsupportedValueError, match=r"column 'y' holds .*store = psyrun\.PickleStore\(\)"):
                write(path, {"x": [2, 3], "y": values})
            with pytest.raises(UnsupportedValueError, match="column 'x' holds int64 and str_"):
                self.store.append(path, {"x": ["text"]})
            assert path.read_bytes() == before

    def test_columns_may_have_any_printable_name(self, path: Path) -> None:
        """Slashes, dots, keywords of functions, other scripts."""
        data = {name: np.array([i]) for i, name in enumerate(NAMES)}
        self.store.save(path, data)
        assert self.store.load(path) == data

    @pytest.mark.parametrize("name", ["", "a\0", "a\nb", "\ud800", 1, None])
    def test_names_that_cannot_be_printed_are_refused(self, path: Path, name: Any) -> None:
        """The error shows what was given."""
        with pytest.raises(UnsupportedValueError, match="cannot name a column"):
            self.store.save(path, {name: [1]})
        assert not path.exists()

    def test_no_columns_and_no_rows_are_a_file_too(self, path: Path) -> None:
        """An empty result is a result."""
        self.store.save(path, {})
        assert self.store.load(path) == {}
        self.store.save(path, {"x": []})
        assert self.store.load(path)["x"].shape == (0,)
        self.store.append(path, {"x": ["a"]})
        assert self.store.load(path)["x"].tolist() == ["a"]

    def test_hundreds_of_columns_keep_their_order(self, path: Path) -> None:
        """As they were written."""
        names = [f"c{i * 7919 % 300}" for i in range(300)]
        self.store.save(path, {name: [0] for name in names})
        assert list(self.store.load(path)) == names

    def test_many_rows_are_all_there(self, path: Path) -> None:
        """A hundred thousand; some more are added."""
        numbers = np.arange(100_000)
        self.store.save(path, {"x": numbers, "name": numbers.astype("U")})
        self.store.append(path, {"x": numbers[:10], "name": ["a"] * 10})
        loaded = self.store.load(path)
        np.testing.assert_array_equal(loaded["x"], [*numbers, *range(10)])
        np.testing.assert_array_equal(loaded["name"], [*numbers.astype("U"), *"aaaaaaaaaa"])

    def test_append_adds_rows(self, path: Path) -> None:
        """To a file, or a new one; columns that either lacks have no value there."""
        self.store.append(path, {"x": [1], "gone": ["a"]})
        self.store.append(path, {"x": [2, 3], "new": [0.5, 1]})
        self.store.append(path, {"x": [4]})
        data = self.store.load(path)
        assert data["x"].tolist() == [1, 2, 3, 4]
        assert data["gone"].tolist() == ["a", "", "", ""]
        np.testing.assert_array_equal(data["new"], [np.nan, 0.5, 1, np.nan])

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ([1], [2], [1, 2]),
            ([1], [0.5], [1.0, 0.5]),
            (["a"], ["bcd"], ["a", "bcd"]),
            ([True], [None], [1.0, np.nan]),
            ([[1, 2]], [[3, 4]], [[1, 2], [3, 4]]),
            ([[1, 2]], [[3]], [[1, 2], [3, np.nan]]),
        ],
    )
    def test_append_joins_without_changing_a_value(
        self, path: Path, first: list[Any], second: list[Any], expected: list[Any]
    ) -> None:
        """Wider text, longer arrays, other numbers."""
        self.store.append(path, {"x": first})
        self.store.append(path, {"x": second})
        np.testing.assert_array_equal(self.store.load(path)["x"], expected)

    def test_append_keeps_keys(self, path: Path) -> None:
        """Exactly; where one side has none, there are none."""
        keys = np.array([[2**64 - 1, 1], [2, 2**63 + 1]], dtype=np.uint64)
        self.store.append(path, {"x": [1], KEYS: keys[:1]})
        self.store.append(path, {"x": [2], KEYS: keys[1:]})
        assert_same(self.store.load(path, keys=True)[KEYS], keys)
        self.store.append(path, {"x": [3]})
        assert list(self.store.load(path, keys=True)) == ["x"]

    def test_rows_and_columns_can_be_chosen(self, path: Path) -> None:
        """One row, a slice, some columns; an unknown one is an error that names those there are."""
        self.store.save(path, {"x": [1, 2, 3], "y": [[1, 2], [3, 4], [5, 6]]})
        assert self.store.load(path, row=1)["x"] == 2
        assert self.store.load(path, row=-1)["y"].tolist() == [5, 6]
        assert self.store.load(path, row=slice(1, None))["x"].tolist() == [2, 3]
        assert list(self.store.load(path, columns=["y"])) == ["y"]
        assert list(self.store.load(path, columns=["y", "x"])) == ["y", "x"]
        with pytest.raises(StoreError, match="no column z; it has x, y"):
            self.store.load(path, columns=["z"])

    def test_rows_are_queried_or_another_store_is_named(self, path: Path) -> None:
        """Where a store has queries; else the error says which has."""
        self.store.save(path, {"x": [1, 2, 3], "y": [0.5, 2.5, 0.25]})
        if self.store.queries:
            assert self.store.load(path, where="(x >= 2) & (y < 1)")["x"].tolist() == [3]
        else:
            with pytest.raises(StoreError, match="TableStore"):
                self.store.load(path, where="x >= 2")

    def test_hidden_columns_are_shown_on_demand(self, path: Path) -> None:
        """Keys and masks are not results."""
        self.store.save(path, {"x": [1, None], KEYS: np.ones((2, 2), dtype=np.uint64), N_ITEMS: np.array(2)})
        assert list(self.store.load(path)) == ["x"]
        assert {KEYS, N_ITEMS, "x", NONE + "x"} == set(self.store.load(path, keys=True))

    def test_an_incomplete_result_says_so(self, path: Path) -> None:
        """One warning at the caller's line, with both counts; none where keys are asked for or nothing is missing."""
        self.store.save(path, {"x": range(5), N_ITEMS: np.array(6)})
        with pytest.warns(UserWarning, match="5 of 6 items") as caught:
            assert self.store.load(path)["x"].tolist() == [0, 1, 2, 3, 4]
        assert [w.filename for w in caught] == [__file__]
        with pytest.warns(UserWarning, match="5 of 6 items"):
            self.store.load(path, row=0, columns=["x"])
        with warnings.catch_warnings(record=True) as default:
            warnings.simplefilter("default")
            for _ in range(3):
                self.store.load(path)
        assert len(default) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.store.load(path, keys=True)
            self.store.save(path, {"x": range(6), N_ITEMS: np.array(6)})
            self.store.load(path)
