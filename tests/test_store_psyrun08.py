"""Files of psyrun 0.8 load, and rows are added to them and to ours by its rules."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psyrun.arrays import Array
from psyrun.columns import KEYS, restored
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store import AutodetectStore, H5Store, NpzStore, PickleStore, Store, TableStore

# What 0.8 could put into files of numbers, as it was given to it.
NUMBERS: dict[str, Any] = {
    "i": [1, 2, 3],
    "f": [0.5, np.nan, -np.inf],
    "b": [True, False, True],
    "c": [1j, 2 + 0.5j, 3],
    "a": np.arange(12.0).reshape(3, 2, 2),
    "i2": np.array([1, -2, 3], dtype=">i2"),
    "f4": np.array([0.1, 2, 3], dtype="f4"),
    "bb": np.array([[True, False], [False, False], [True, True]]),
}


def assert_same(found: Array, expected: Any) -> None:
    expected = np.asarray(expected)
    assert found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, expected)


def save_with_pytables(path: Path, data: dict[str, Any]) -> None:
    """Write arrays of one piece each."""
    import tables

    with tables.open_file(path, "w") as file:
        for name, column in data.items():
            file.create_array("/psyrun", name, column, createparents=True)


def append_with_pytables(path: Path, data: dict[str, Any], **options: Any) -> None:
    """Write arrays in chunks, which can grow."""
    import tables

    with tables.open_file(path, "a") as file:
        for name, column in data.items():
            array = np.asarray(column)
            if f"/psyrun/{name}" in file:
                file.get_node("/psyrun", name).append(array)
            else:
                shape = (0, *array.shape[1:])
                file.create_earray("/psyrun", name, obj=array, shape=shape, createparents=True, **options)


def save_with_numpy(path: Path, data: dict[str, Any]) -> None:
    np.savez(path, **data)


FORMATS: list[tuple[str, Callable[[Path, dict[str, Any]], None]]] = [
    ("result.h5", save_with_pytables),
    ("result.h5", append_with_pytables),
    ("result.npz", save_with_numpy),
]


@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_files_of_numbers_load(name: str, write: Callable[[Path, dict[str, Any]], None], tmp_path: Path) -> None:
    """Each column in its dtype; PyTables has truth values as fields of bits, and complex numbers as records."""
    path = tmp_path / name
    write(path, NUMBERS)
    loaded = AutodetectStore().load(path, keys=True)
    assert sorted(loaded) == sorted(NUMBERS)
    for column in NUMBERS:
        assert_same(loaded[column], NUMBERS[column])
    assert AutodetectStore().load(path, row=1, columns=["b", "c"]) == {"b": False, "c": 2 + 0.5j}


@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_rows_are_added_to_files_of_numbers(
    name: str, write: Callable[[Path, dict[str, Any]], None], tmp_path: Path
) -> None:
    """The file is then one of ours, with what both had."""
    path = tmp_path / name
    write(path, NUMBERS)
    AutodetectStore().append(path, NUMBERS | {"new": [1, 2, 3]})
    loaded = AutodetectStore().load(path)
    for column in NUMBERS:
        assert_same(loaded[column], np.concatenate([NUMBERS[column], NUMBERS[column]]))
    assert_same(loaded["new"], [np.nan, np.nan, np.nan, 1, 2, 3])


def test_many_small_appends_in_compressed_chunks_load(tmp_path: Path) -> None:
    """As a queue of jobs left them."""
    import tables

    path = tmp_path / "result.h5"
    for first in range(0, 5000, 500):
        numbers = np.arange(first, first + 500)
        data = {"x": numbers, "b": numbers % 2 == 0, "wide": np.stack([numbers / 7] * 50, 1)}
        append_with_pytables(path, data, filters=tables.Filters(6, "zlib", shuffle=True), chunkshape=None)
    for loaded in (H5Store().load(path), TableStore().load(path)):
        assert_same(loaded["x"], np.arange(5000))
        assert_same(loaded["b"], np.arange(5000) % 2 == 0)
        assert_same(loaded["wide"], np.stack([np.arange(5000) / 7] * 50, 1))


def test_files_without_rows_load(tmp_path: Path) -> None:
    """Of any width."""
    save_with_pytables(tmp_path / "result.h5", {"x": np.empty(0), "wide": np.empty((0, 3)), "empty": np.empty((3, 0))})
    loaded = H5Store().load(tmp_path / "result.h5")
    assert {name: column.shape for name, column in loaded.items()} == {"x": (0,), "wide": (0, 3), "empty": (3, 0)}


def test_names_stand_in_files_of_pytables_as_they_are(tmp_path: Path) -> None:
    """In ours they are encoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_with_pytables(tmp_path / "result.h5", {"100%25": [1], "a b": [2]})
    assert list(H5Store().load(tmp_path / "result.h5")) == ["100%25", "a b"]
    H5Store().append(tmp_path / "result.h5", {"100%25": [3]})
    assert H5Store().load(tmp_path / "result.h5")["100%25"].tolist() == [1, 3]


def test_columns_that_ended_before_others_load_but_take_no_rows(tmp_path: Path) -> None:
    """0.8 did not fill what was absent in arrays: nobody can tell to which rows such values belong."""
    path = tmp_path / "result.npz"
    np.savez(path, x=[1, 2, 3], late=[0.5])
    before = path.read_bytes()
    assert NpzStore().load(path)["late"].tolist() == [0.5]
    with pytest.raises(ValueError, match="the same number of rows: x has 4, late has 2"):
        NpzStore().append(path, {"x": [4], "late": [1.5]})
    assert path.read_bytes() == before


def test_objects_in_npz_load_where_it_is_allowed(tmp_path: Path) -> None:
    """NumPy pickled them."""
    np.savez(tmp_path / "result.npz", x=np.array([1, None, "a"], dtype=object))
    with pytest.raises(StoreError, match=r"column 'x' holds Python objects.*NpzStore\(allow_pickle=True\)"):
        NpzStore().load(tmp_path / "result.npz")
    assert NpzStore(allow_pickle=True).load(tmp_path / "result.npz")["x"].tolist() == [1, None, "a"]


PICKLED: dict[str, tuple[Any, Any]] = {
    "i": ([1, 2, 3], [1, 2, 3]),
    "b": ([True, False, True], [True, False, True]),
    "none": ([1, None, 3], [1, np.nan, 3]),
    "text": (["a", None, "bcd"], ["a", "", "bcd"]),
    "nested": ([[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 4], [5, 6]]),
    "ragged": ([[1.0], [2.0, 3.0], []], [[1, np.nan], [2, 3], [np.nan, np.nan]]),
    "scalars": ([np.float32(1), np.float32(2), np.float32(3)], np.array([1, 2, 3], "f4")),
    "arrays": ([np.arange(2), np.arange(2), np.arange(2)], [[0, 1]] * 3),
    "array": (np.arange(3.0), np.arange(3.0)),
    "objects": ([{}, None, {1}], np.array([{}, None, {1}], dtype=object)),
    "mixed": ([1, "a", None], np.array([1, "a", None], dtype=object)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"numpy._core", b"numpy.core"])
def test_pickles_of_lists_load(protocol: int, core: bytes, tmp_path: Path) -> None:
    """Of any protocol and NumPy: as arrays, with NaN or '' for None, which is known to be none."""
    path = tmp_path / "result.pkl"
    content = pickle.dumps({name: written for name, (written, _) in PICKLED.items()}, protocol)
    # With lengths before names, only the older protocols can be given those of an older NumPy.
    path.write_bytes(content.replace(b"numpy._core", core) if protocol < 4 else content)
    data = PickleStore().load(path, keys=True)
    for name, (written, expected) in PICKLED.items():
        assert_same(data[name], expected)
        assert [value is None for value in restored(name, data)] == [value is None for value in written]
    assert PickleStore().load(path, columns=["none"], row=2) == {"none": 3}
    PickleStore().append(path, {"i": [4], "objects": ["b"]})
    assert PickleStore().load(path)["i"].tolist() == [1, 2, 3, 4]
    assert PickleStore().load(path)["objects"].tolist() == [{}, None, {1}, "b"]


def test_a_pickle_of_one_row_of_text_loads(tmp_path: Path) -> None:
    """0.8 took text for one value."""
    (tmp_path / "result.pkl").write_bytes(pickle.dumps({"x": "abc", "y": [1]}))
    data = PickleStore().load(tmp_path / "result.pkl")
    assert {name: column.tolist() for name, column in data.items()} == {"x": ["abc"], "y": [1]}


# Rows are added by the rules of 0.8

STORES: list[Store] = [NpzStore(), H5Store(), TableStore(), PickleStore()]
every_store = pytest.mark.parametrize("store", STORES, ids=repr)
NAT = np.datetime64("NaT", "s")


@every_store
@pytest.mark.parametrize(
    ("values", "filled"),
    [
        ([1, 2], [1.0, 2.0, np.nan]),
        ([True, False], [1.0, 0.0, np.nan]),
        (np.array([1, 2], "u1"), [1.0, 2.0, np.nan]),
        ([0.5, np.inf], [0.5, np.inf, np.nan]),
        (np.array([0.5, 2], "f4"), np.array([0.5, 2, np.nan], "f4")),
        ([1j, 2], np.array([1j, 2, np.nan])),
        (["ab", "c"], ["ab", "c", ""]),
        ([b"ab", b"c"], [b"ab", b"c", b""]),
        (np.array([1, 2], "M8[s]"), np.array([1, 2, NAT], "M8[s]")),
        ([[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0], [np.nan, np.nan]]),
        ([["a"], ["b"]], [["a"], ["b"], [""]]),
        ([2**60 + 1, 5], [2**60 + 1, 5, 0]),  # no float holds the first; a mask says which row has none
    ],
    ids=repr,
)
def test_a_column_that_is_new_or_absent_is_filled(store: Store, values: Any, filled: Any, tmp_path: Path) -> None:
    """NaN in numbers, '' in text; and it stays known that there was no value."""
    path = tmp_path / f"result{store.ext}"
    store.save(path, {"x": values, "n": [1, 2]})
    store.append(path, {"n": [3]})
    data = store.load(path, keys=True)
    assert_same(data["x"], filled)
    assert restored("x", data)[2] is None
    store.save(path, {"n": [3]})
    store.append(path, {"x": values, "n": [1, 2]})
    data = store.load(path, keys=True)
    assert_same(data["x"], np.roll(np.asarray(filled), 1, axis=0))
    assert restored("x", data)[0] is None
    assert data["n"].tolist() == [3, 1, 2]


@every_store
@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ([[1.0]], [[2.0, 3.0]], [[1, np.nan], [2, 3]]),
        ([[1j]], [[2j, 3j]], np.array([[1j, np.nan], [2j, 3j]])),
        ([[1]], [[2, 3]], [[1, np.nan], [2, 3]]),
        ([[True]], [[False, True]], [[1, np.nan], [0, 1]]),
        ([["a"]], [["b", "cd"]], [["a", ""], ["b", "cd"]]),
        (np.zeros((1, 1, 2)), np.ones((1, 2, 1)), [[[0, 0], [np.nan, np.nan]], [[1, np.nan], [1, np.nan]]]),
        (np.array([[1]], "i4"), np.array([[2**60 + 1]], "i8"), [[1], [2**60 + 1]]),
        ([1], [0.5], [1, 0.5]),
        (["a"], ["bcd"], ["a", "bcd"]),
    ],
    ids=repr,
)
def test_arrays_of_differing_shapes_are_padded(
    store: Store, first: Any, second: Any, joined: Any, tmp_path: Path
) -> None:
    """To the larger in each dimension; the true shapes are kept."""
    path = tmp_path / f"result{store.ext}"
    store.append(path, {"x": first})
    store.append(path, {"x": second})
    data = store.load(path, keys=True)
    assert_same(data["x"], joined)
    assert [np.shape(value) for value in restored("x", data)] == [np.shape(first)[1:], np.shape(second)[1:]]


def test_objects_are_filled_with_none(tmp_path: Path) -> None:
    """Arrays of objects are kept as they are, whatever their shape."""
    path = tmp_path / "result.pkl"
    PickleStore().append(path, {"x": [{"a": 1}], "ragged": [[{}]]})
    PickleStore().append(path, {"y": [{2}], "ragged": [[{}, {}]]})
    data = PickleStore().load(path)
    assert (data["x"].tolist(), data["y"].tolist()) == ([{"a": 1}, None], [None, {2}])
    assert data["ragged"].tolist() == [[{}], [{}, {}]]


@pytest.mark.parametrize("store", STORES[:3], ids=repr)
@pytest.mark.parametrize(("value", "told"), [("a", "int64 and str_"), ({}, "dict,"), (2**70, "int,")])
def test_what_does_not_go_together_leaves_the_file_as_it_was(
    store: Store, value: Any, told: str, tmp_path: Path
) -> None:
    """The error names column, kinds and remedy."""
    path = tmp_path / f"result{store.ext}"
    store.save(path, {"x": [1], KEYS: np.ones((1, 2), np.uint64)})
    before = path.read_bytes()
    with pytest.raises(UnsupportedValueError, match=rf"column 'x' holds {told}.*PickleStore\(\)"):
        store.append(path, {"new": [1], "x": [value]})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
