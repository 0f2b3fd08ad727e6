"""What every store promises, and what each does in its own way."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from psyrun.arrays import Array
from psyrun.columns import KEYS, N_ITEMS, restored
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.files import replacing
from psyrun.store import H5Store, NpzStore, PickleStore, Store
from test_columns import COLUMNS, identities

DTYPES = ["?", "i1", ">i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", ">f8", "f8", "g", "c8", "c16", "G"]
DTYPES += ["U1", "U4", "S1", "S4", "M8[s]", "M8[D]", "m8[ns]"]
TYPED = npst.arrays(
    st.sampled_from(DTYPES), npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3).map(lambda s: (3, *s))
)
NAMES = [
    "x",
    "file",
    "self",
    "a/b",
    "a\\b",
    "/",
    ".",
    "..",
    "./a",
    "a.npy",
    "%2F",
    "a b",
    "ä",
    "数",
    "__init__",
    "-",
    "x" * 200,
]


def assert_same(first: Array, second: Array) -> None:
    assert first.dtype.newbyteorder("=") == second.dtype.newbyteorder("=")
    np.testing.assert_array_equal(first, second)


class Contract:
    """What holds for every store; a store is done when a class of this kind with its own `store` passes."""

    store: Store

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / f"result{self.store.ext}"

    @given(st.lists(TYPED, min_size=1, max_size=3))
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

    def test_append_adds_rows(self, path: Path) -> None:
        """To a file, or a new one; columns that either lacks have no value there."""
        self.store.append(path, {"x": [1], "gone": ["a"]})
        self.store.append(path, {"x": [2, 3], "new": [0.5, 1]})
        self.store.append(path, {"x": [[4, 5]] if self.store.holds_objects else [4]})
        data = self.store.load(path)
        assert data["gone"].tolist() == ["a", "", "", ""]
        np.testing.assert_array_equal(data["new"], [np.nan, 0.5, 1, np.nan])
        assert data["x"].tolist()[:3] == [1, 2, 3] or data["x"].ndim == 2

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

    def test_hidden_columns_are_shown_on_demand(self, path: Path) -> None:
        """Keys and masks are not results."""
        self.store.save(path, {"x": [1, None], KEYS: np.ones((2, 2), dtype=np.uint64), N_ITEMS: np.array(2)})
        assert list(self.store.load(path)) == ["x"]
        assert {KEYS, N_ITEMS, "x", "__psyrun_none_x"} == set(self.store.load(path, keys=True))

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
        self.store.load(path, keys=True)
        self.store.save(path, {"x": range(6), N_ITEMS: np.array(6)})
        self.store.load(path)

    def test_columns_of_unequal_length_are_refused(self, path: Path) -> None:
        """The error names them; the file is as it was."""
        self.store.save(path, {"x": [1]})
        for write in (self.store.save, self.store.append):
            with pytest.raises(ValueError, match="x has 2, y has 3"):
                write(path, {"x": [1, 2], "y": [1, 2, 3]})
        assert self.store.load(path)["x"].tolist() == [1]

    @pytest.mark.parametrize("values", [3, "text", b"bytes", {"a": 1}, {1, 2}, iter([1])])
    def test_a_column_is_a_sequence(self, path: Path, values: Any) -> None:
        """A scalar, text, a dict or a set is not; the error names the column."""
        with pytest.raises(UnsupportedValueError, match=r"column 'x' is .*takes a list or array"):
            self.store.save(path, {"x": values})

    def test_a_file_that_is_not_there_is_an_error_that_helps(self, path: Path) -> None:
        """It says how such a file comes about."""
        with pytest.raises(StoreError, match=r"no such file.*psy-doit"):
            self.store.load(path)

    @given(st.data())
    def test_a_cut_file_is_an_error(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """However much of it is left."""
        path = tmp_path_factory.mktemp("store") / f"result{self.store.ext}"
        self.store.save(path, {"x": np.arange(50.0), "name": ["a", "b"] * 25})
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(StoreError, match="result"):
            self.store.load(path)
        with pytest.raises(StoreError, match="result"):
            self.store.append(path, {"x": [1]})

    @pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"x = 1\n", b"\x80\x04]."])
    def test_another_file_is_an_error(self, path: Path, content: bytes) -> None:
        """That names it."""
        path.write_bytes(content)
        with pytest.raises(StoreError, match="result"):
            self.store.load(path)

    @pytest.mark.parametrize("where", ["fsync", "replace", "write"])
    def test_an_interrupted_write_leaves_the_old_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        """Whole, and nothing beside it."""
        self.store.save(path, {"x": [1]})

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            if where == "fsync":
                patched.setattr(os, "fsync", refuse)
            elif where == "replace":
                patched.setattr(Path, "replace", refuse)
            else:
                patched.setattr(type(self.store), "_write", _half(refuse))
            for write in (self.store.save, self.store.append):
                with pytest.raises(OSError, match="No space left"):
                    write(path, {"x": [2, 3]})
        assert self.store.load(path)["x"].tolist() == [1]
        assert list(path.parent.iterdir()) == [path]

    def test_what_is_written_is_synced_before_it_takes_its_place(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """File, rename, directory: in this order a crash leaves the old one or the new one."""
        steps: list[str] = []

        def noted(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                steps.append(step)
                return function(*args)

            return call

        monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
        monkeypatch.setattr(Path, "replace", noted("replace", Path.replace))
        self.store.save(path, {"x": [1]})
        assert steps == ["fsync", "replace", "fsync"]

    def test_it_is_shown_as_it_is_written(self) -> None:
        """In a task file: store = psyrun.NpzStore()."""
        assert repr(self.store) == f"{type(self.store).__name__}()"


def _half(refuse: Callable[[], None]) -> Callable[..., None]:
    def write(self: Store, path: Path, data: Any) -> None:
        path.write_bytes(b"half of it")
        refuse()

    return write


class ArrayContract(Contract):
    """What holds for stores of arrays only."""

    @pytest.mark.parametrize("values", [[object()], [{"a": 1}], [1, "a"], [len], [[1, "a"]], [np.array([None])]])
    def test_objects_are_refused(self, path: Path, values: list[Any]) -> None:
        """The error names the column and the store that holds them; the file is as it was."""
        self.store.save(path, {"x": [1]})
        before = path.read_bytes()
        for write in (self.store.save, self.store.append):
            with pytest.raises(UnsupportedValueError, match=r"column 'y' holds .*store = psyrun\.PickleStore\(\)"):
                write(path, {"x": [1], "y": values})
        with pytest.raises(UnsupportedValueError, match="column 'x' holds int64 and str_"):
            self.store.append(path, {"x": ["text"]})
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


class TestNpz(ArrayContract):
    store = NpzStore()

    def test_numpy_reads_it(self, path: Path) -> None:
        """Without psyrun."""
        self.store.save(path, {"x": [1, 2], "file": ["a", "b"]})
        with np.load(path) as data:
            assert data["x"].tolist() == [1, 2]
            assert data["file"].tolist() == ["a", "b"]

    def test_it_reads_what_numpy_wrote(self, path: Path) -> None:
        """Compressed too."""
        np.savez_compressed(path, x=np.arange(3))
        assert self.store.load(path)["x"].tolist() == [0, 1, 2]

    def test_it_never_unpickles(self, path: Path) -> None:
        """A file with objects is not read, and nothing in it is run."""
        np.savez(path, x=np.array([_Trap(path.parent / "sprung")], dtype=object))
        with pytest.raises(StoreError, match="allow_pickle=False"):
            self.store.load(path)
        assert not (path.parent / "sprung").exists()

    @given(st.data())
    def test_a_flipped_bit_is_noticed(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """Either the file is refused, or all values are right."""
        path = tmp_path_factory.mktemp("store") / "result.npz"
        written = {"x": np.arange(20.0), "name": np.array(["a", "b"] * 10)}
        self.store.save(path, written)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        try:
            loaded = self.store.load(path)
        except StoreError:
            return
        for name, column in loaded.items():
            assert_same(column, written[name])

    def test_columns_are_read_alone(self, path: Path) -> None:
        """Damage elsewhere does not matter then."""
        self.store.save(path, {"x": [1], "y": [2.5]})
        content = path.read_bytes().replace(np.array([2.5]).tobytes(), np.array([3.5]).tobytes())
        path.write_bytes(content)
        assert self.store.load(path, columns=["x"])["x"].tolist() == [1]
        with pytest.raises(StoreError, match="CRC"):
            self.store.load(path)

    def test_a_header_that_tells_of_fewer_rows_is_noticed(self, path: Path) -> None:
        """The checksum is that of the whole column, also where less of it is asked for."""
        self.store.save(path, {"x": np.arange(20)})
        path.write_bytes(path.read_bytes().replace(b"(20,)", b"(10,)"))
        with pytest.raises(StoreError, match="CRC"):
            self.store.load(path)

    def test_it_is_a_zip_without_compression(self, path: Path) -> None:
        """Columns can be mapped into memory by whoever wants that."""
        self.store.save(path, {"x": [1]})
        with zipfile.ZipFile(path) as archive:
            assert [(m.filename, m.compress_type) for m in archive.infolist()] == [("x.npy", zipfile.ZIP_STORED)]


class TestH5(ArrayContract):
    store = H5Store()

    def test_h5py_reads_it(self, path: Path) -> None:
        """One data set a column below /psyrun, text as UTF-8."""
        self.store.save(path, {"x": [1, 2], "name": ["a", "ü"]})
        with h5py.File(path) as file:
            assert file["psyrun/x"][()].tolist() == [1, 2]
            assert file["psyrun/name"][()].tolist() == [b"a", "ü".encode()]

    def test_pytables_reads_it(self, path: Path) -> None:
        """The library that the first psyrun wrote with."""
        import tables

        self.store.save(path, {"x": [1, 2], "b": [True, False], "c": [1j, 2j], "s": ["a", "b"]})
        with tables.open_file(path) as file:
            assert file.root.psyrun.x.read().tolist() == [1, 2]
            assert file.root.psyrun.s.read().tolist() == [b"a", b"b"]

    def test_another_hdf5_file_is_an_error(self, path: Path) -> None:
        """It has no /psyrun."""
        with h5py.File(path, "w") as file:
            file["x"] = 1
        with pytest.raises(StoreError, match="without the node /psyrun"):
            self.store.load(path)

    def test_dtypes_that_hdf5_lacks_are_refused(self, path: Path) -> None:
        """By the name of the column."""
        with pytest.raises(UnsupportedValueError, match="column 'x': HDF5 has no type"):
            self.store.save(path, {"x": np.zeros(1, dtype=[("a", "M8[s]")])})


class TestPickle(Contract):
    store = PickleStore()

    def test_it_holds_anything(self, path: Path) -> None:
        """Objects, mixed kinds, ragged lists of these, and None as it is."""
        values = [{"a": 1}, None, "text", [1, [2, "b"]], 2**70, len]
        self.store.save(path, {"x": values})
        self.store.append(path, {"x": [3.5]})
        assert self.store.load(path)["x"].tolist() == [*values, 3.5]

    def test_a_file_of_something_else_is_an_error(self, path: Path) -> None:
        """A pickle need not be a result."""
        path.write_bytes(pickle.dumps([1, 2]))
        with pytest.raises(StoreError, match="result"):
            self.store.load(path)


class _Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_the_trap_works(tmp_path: Path) -> None:
    """Otherwise a test that it is not sprung would show nothing."""
    pickle.loads(pickle.dumps(_Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_a_file_in_place_of_another_is_whole_or_not_there(tmp_path: Path) -> None:
    """Any exception leaves the old one, and no other."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as beside:
        beside.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "fatal"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_need_not_know_fsync_of_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, fatal: bool
) -> None:
    """Some answer EINVAL or ENOTSUP; other errors are told."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=os.strerror(number)) if fatal else nullcontext():
        NpzStore().save(tmp_path / "result.npz", {"x": [1]})
