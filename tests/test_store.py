"""What every store promises, and what each does in its own way."""

from __future__ import annotations

import errno
import os
import pickle
import stat
import zipfile
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.files import replacing
from psyrun.store import H5Store, NpzStore, PickleStore, TableStore
from psyrun.testing import StoreTests, assert_same


class TestNpz(StoreTests):
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


class TestH5(StoreTests):
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


class TestNpzOfObjects(StoreTests):
    store = NpzStore(allow_pickle=True)


class TestH5OfObjects(StoreTests):
    store = H5Store(allow_pickle=True)


class TestTable(StoreTests):
    store = TableStore()


class TestPickle(StoreTests):
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
