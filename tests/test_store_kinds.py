"""What each store does with values of every kind, and which store a file gets."""

from __future__ import annotations

import pickle
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import psyrun
from psyrun.arrays import Array
from psyrun.columns import restored
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store import AutodetectStore, H5Store, NpzStore, PickleStore, Store, TableStore

OF_ARRAYS = [NpzStore(), H5Store(), TableStore()]
OF_OBJECTS = [PickleStore(), NpzStore(allow_pickle=True), H5Store(allow_pickle=True), TableStore(allow_pickle=True)]
every_store = pytest.mark.parametrize("store", [*OF_ARRAYS, *OF_OBJECTS], ids=repr)


def there_and_back(store: Store, tmp_path: Path, **columns: Any) -> dict[str, Array]:
    path = tmp_path / f"result{store.ext}"
    store.save(path, columns)
    return store.load(path)


# What a store is


@pytest.mark.parametrize(
    ("store", "shown", "ext", "abilities"),
    [
        (NpzStore(), "NpzStore()", ".npz", "streams"),
        (NpzStore(allow_pickle=True), "NpzStore(allow_pickle=True)", ".npz", "streams holds_objects"),
        (H5Store(), "H5Store()", ".h5", "streams"),
        (H5Store(allow_pickle=True), "H5Store(allow_pickle=True)", ".h5", "streams holds_objects"),
        (PickleStore(), "PickleStore()", ".pkl", "holds_objects"),
        (TableStore(), "TableStore()", ".h5", "queries"),
        (AutodetectStore(), "AutodetectStore()", ".npz", ""),
    ],
)
def test_a_store_says_what_it_can(store: Store, shown: str, ext: str, abilities: str) -> None:
    """By its attributes; shown, it is what one writes in a task file."""
    assert (repr(store), store.ext) == (shown, ext)
    assert {name for name in ("streams", "holds_objects", "queries") if getattr(store, name)} == set(abilities.split())
    assert type(store) is getattr(psyrun, type(store).__name__)


class Passing:
    """A column of 8 pieces that counts how many of them are alive at a time."""

    def __init__(self) -> None:
        self.dtype: np.dtype[Any] = np.dtype(float)
        self.shape: tuple[int, ...] = (8000,)
        self.most = 0

    def pieces(self) -> Iterator[Array]:
        given: list[weakref.ref[Array]] = []
        for number in range(8):
            piece = np.full(1000, float(number))
            given.append(weakref.ref(piece))
            yield piece
            del piece
            self.most = max(self.most, sum(reference() is not None for reference in given))


@every_store
def test_stores_that_stream_hold_a_piece_at_a_time(store: Store, tmp_path: Path) -> None:
    """The others hold whole columns."""
    column = Passing()
    store.save_verified(tmp_path / "result", {"x": column})
    assert column.most <= 2 if store.streams else column.most == 8


@pytest.mark.parametrize("store", [*OF_ARRAYS[:2], *OF_OBJECTS[:3]], ids=repr)
def test_stores_without_queries_name_the_one_that_has_them(store: Store, tmp_path: Path) -> None:
    """The file is none of a TableStore."""
    path = tmp_path / f"result{store.ext}"
    store.save(path, {"x": [1]})
    with pytest.raises(StoreError, match=r"takes no where; .* psyrun\.TableStore\(\)"):
        store.load(path, where="x == 1")


# Every dtype


def samples(code: str) -> Iterator[Array]:
    """Yield columns of a dtype: extremes, both byte orders, rows of several values or none, no rows."""
    dtype = np.dtype({"S": "S3", "U": "U3", "V": "V3"}.get(code, code))
    values: Array = (1 + np.arange(8 * dtype.itemsize) % 251).astype(np.uint8).view(f"V{dtype.itemsize}")
    if dtype.kind in "fcgG" or dtype.char in "gG":
        values = np.array([0.1, -0.0, np.inf, -np.inf, np.nan, 1e-7, 3, 1 / 3]).astype(dtype)
    elif dtype.kind == "U":
        values = np.array(["aä", "", "数\U0001f600", "\ud800", "a b", "\t", "%", "é\0!"])
    elif dtype.kind == "b":
        values = np.array([True, False] * 4)
    else:
        values = values.view(dtype)
    for dtype in (values.dtype, values.dtype.newbyteorder("<"), values.dtype.newbyteorder(">")):
        column = values.astype(dtype)
        yield from (column, column[:0], column.reshape(4, 2), column.reshape(2, 2, 2), column[:0].reshape(3, 0))
    if dtype.kind in "Mm":
        yield values.view(f"{dtype.kind}8[25s]")
        yield values.view(f"{dtype.kind}8[D]")
        yield np.full(3, "NaT", f"{dtype.kind}8[ns]")
    if dtype.kind in "USV":
        yield np.ndarray((3,), dtype=f"{dtype.kind}0")


def assert_exactly(found: Array, expected: Array) -> None:
    """Fail if anything differs, but for the order of bytes, and the padding of extended floats and records."""
    found, expected = (array.astype(array.dtype.newbyteorder("=")) for array in (found, expected))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.dtype.char in "gG" or expected.dtype.names or not expected.dtype.itemsize:
        np.testing.assert_array_equal(found, expected)
    else:
        assert found.tobytes() == expected.tobytes()


@every_store
@pytest.mark.parametrize("code", sorted(set(np.typecodes["All"]) - {"O"}))
def test_every_dtype_comes_back_exactly(store: Store, code: str, tmp_path: Path) -> None:
    """Bit by bit; where rows are added, by its values."""
    path = tmp_path / f"result{store.ext}"
    for column in samples(code):
        store.save_verified(path, {"x": column})
        assert_exactly(store.load(path)["x"], column)
        store.append(path, {"x": column})
        np.testing.assert_array_equal(store.load(path)["x"], np.concatenate([column, column]))


RECORDS: list[tuple[Any, str]] = [
    ([("a", "i4"), ("b", "S3")], ""),
    ([("a", "f8", (2, 3)), ("b", "?")], ""),
    ([("数", "c16"), ("b", [("c", "u1")])], ""),
    (np.dtype([("a", "i1"), ("b", "f8")], align=True), ""),
    ([("a", "U3")], "HDF5 has no type for"),
    ([("a", "M8[s]")], "HDF5 has no type for"),
    ([("r", "f8"), ("i", "f8")], "HDF5 makes complex128 of"),
]


@every_store
@pytest.mark.parametrize(("dtype", "refusal"), RECORDS)
def test_records_come_back_or_are_refused(store: Store, dtype: Any, refusal: str, tmp_path: Path) -> None:
    """HDF5 lacks some; the error names the column, and there is no file."""
    column = np.zeros(3, dtype)
    if refusal and isinstance(store, H5Store):
        with pytest.raises(UnsupportedValueError, match=f"column 'x': {refusal}"):
            there_and_back(store, tmp_path, x=column)
        assert list(tmp_path.iterdir()) == []
    else:
        assert_exactly(there_and_back(store, tmp_path, x=column)["x"], column)


@every_store
def test_records_of_objects_are_objects(store: Store, tmp_path: Path) -> None:
    """Refused, or held as they are."""
    column = np.array([(1, None), (2, {"a": 1})], dtype=[("n", int), ("o", object)])
    if store.holds_objects:
        assert there_and_back(store, tmp_path, x=column)["x"].tolist() == list(column)
    else:
        with pytest.raises(UnsupportedValueError, match="column 'x' holds void"):
            store.save(tmp_path / "result", {"x": column})


@every_store
@pytest.mark.parametrize(
    "column",
    [
        np.arange(6)[::-2],
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        np.broadcast_to(np.arange(2), (3, 2)),
        np.zeros(2, [("a", int), ("b", float)]).view(np.recarray),
        np.ma.array([1, 2]),
    ],
    ids=lambda column: type(column).__name__,
)
def test_arrays_may_lie_in_memory_as_they_like(store: Store, column: Array, tmp_path: Path) -> None:
    """Reversed, in the order of Fortran, repeated, or of a class of their own."""
    assert_exactly(there_and_back(store, tmp_path, x=column)["x"], np.array(column))


@every_store
def test_masked_values_are_none(store: Store, tmp_path: Path) -> None:
    """A mask of parts of rows is refused."""
    path = tmp_path / f"result{store.ext}"
    store.save(
        path,
        {
            "x": np.ma.array([1, 2, 3], mask=[False, True, False]),
            "s": np.ma.array(["a", "b", "c"], mask=[False, False, True]),
        },
    )
    data = store.load(path, keys=True)
    assert (restored("x", data), restored("s", data)) == ([1, None, 3], ["a", "b", None])
    with pytest.raises(UnsupportedValueError, match="column 'x' masks parts of rows"):
        store.save(path, {"x": np.ma.array([[1, 2]], mask=[[False, True]])})


@every_store
def test_a_number_is_no_column(store: Store, tmp_path: Path) -> None:
    """An array without dimensions has no rows."""
    with pytest.raises(UnsupportedValueError, match=r"column 'x' is array.*takes a list or array"):
        store.save(tmp_path / "result", {"x": np.array(3)})


@every_store
@pytest.mark.skipif(not hasattr(np, "dtypes") or not hasattr(np.dtypes, "StringDType"), reason="NumPy 1")
def test_text_of_variable_width_is_text(store: Store, tmp_path: Path) -> None:
    """As it is in lists."""
    column = np.array(["a", "", "longer"], dtype=np.dtypes.StringDType())
    assert_exactly(there_and_back(store, tmp_path, x=column)["x"], np.array(["a", "", "longer"]))


# Objects


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class UnreadableError(Exception):
    """Can be pickled, but not read back, as many exceptions that take more than a message."""

    def __init__(self, code: int, reason: str):
        super().__init__(reason)


OBJECTS = [{"a": 1}, None, "text", [1, [2, "b"]], 2**70, len, np.arange(3), 1.5, {1, 2}, np.datetime64(1, "s"), "a\0"]


@pytest.mark.parametrize("store", OF_OBJECTS, ids=repr)
def test_objects_come_back_as_from_pickle(store: Store, tmp_path: Path) -> None:
    """The same values in the same arrays, where pickles are allowed."""
    found = there_and_back(store, tmp_path, x=OBJECTS, y=range(len(OBJECTS)))
    expected = there_and_back(PickleStore(), tmp_path, x=OBJECTS, y=range(len(OBJECTS)))
    assert found["x"].shape == (len(OBJECTS),) and found["x"].dtype == object
    for one, other, written in zip(found["x"], expected["x"], OBJECTS, strict=True):
        assert type(one) is type(other) is type(written)
        np.testing.assert_equal(one, other)
    assert_exactly(found["y"], expected["y"])


@pytest.mark.parametrize("store", OF_OBJECTS[1:], ids=repr)
def test_objects_are_loaded_only_where_it_is_allowed(store: Store, tmp_path: Path) -> None:
    """Otherwise an error names column and remedy, nothing is run, and the other columns can be had."""
    path = tmp_path / f"result{store.ext}"
    store.save(path, {"x": [1, 2], "traps": [{"a": 1}, len]})
    store.append(path, {"x": [3], "traps": [Trap(tmp_path / "sprung")]})
    (tmp_path / "sprung").unlink()  # by reading back what was written
    plain = type(store)()
    with pytest.raises(StoreError, match=r"result.*column 'traps' .* objects.*psyrun\.\w+\(allow_pickle=True\)"):
        plain.load(path)
    assert plain.load(path, columns=["x"])["x"].tolist() == [1, 2, 3]
    assert not (tmp_path / "sprung").exists()
    assert store.load(path)["traps"][:2].tolist() == [{"a": 1}, len]
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("store", OF_OBJECTS, ids=repr)
@pytest.mark.parametrize("value", [lambda: 1, threading.Lock(), UnreadableError(3, "no")], ids=type)
def test_what_could_not_be_read_back_is_refused(store: Store, value: Any, tmp_path: Path) -> None:
    """The error names the column; the file is as it was."""
    path = tmp_path / f"result{store.ext}"
    store.save(path, {"x": [1], "y": [{}]})
    before = path.read_bytes()
    for write in (store.save, store.append):
        with pytest.raises(UnsupportedValueError, match="column 'y' holds what cannot be pickled and read back: "):
            write(path, {"x": [2], "y": [value]})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_numpy_reads_the_objects_of_npz(tmp_path: Path) -> None:
    """As it wrote them itself."""
    NpzStore(allow_pickle=True).save(tmp_path / "result.npz", {"x": [{"a": 1}, None]})
    with np.load(tmp_path / "result.npz", allow_pickle=True) as data:
        assert data["x"].tolist() == [{"a": 1}, None]


def test_hdf5_has_one_pickle_a_row(tmp_path: Path) -> None:
    """An attribute says so."""
    H5Store(allow_pickle=True).save(tmp_path / "result.h5", {"x": [{"a": 1}, None]})
    with h5py.File(tmp_path / "result.h5") as file:
        assert file["psyrun/x"].attrs["numpy_dtype"] == "|O"
        assert [pickle.loads(row.tobytes()) for row in file["psyrun/x"]] == [{"a": 1}, None]


def test_text_that_others_put_into_hdf5_is_not_unpickled(tmp_path: Path) -> None:
    """Values of variable length are pickles only where the attribute says so."""
    with h5py.File(tmp_path / "result.h5", "w") as file:
        file["psyrun/x"] = [pickle.dumps(Trap(tmp_path / "sprung"), 0)]
    with pytest.raises(StoreError, match="/psyrun/x has values of variable length"):
        H5Store(allow_pickle=True).load(tmp_path / "result.h5")
    assert not (tmp_path / "sprung").exists()
