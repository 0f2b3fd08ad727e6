"""HDF5 on a disk that refuses: no error is lost, whatever HDF5 and h5py make of it."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psyrun.store import H5Store, Store, TableStore
from psyrun.store.disk import new_file


@contextmanager
def at_most(n_bytes: int) -> Iterator[None]:
    """Have the system refuse what would make a file larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_error_is_raised_in_the_end(tmp_path: Path) -> None:
    """Also where somebody caught it, and all went well afterwards."""
    with pytest.raises(OSError, match="File too large"), new_file(tmp_path / "file") as file:
        with at_most(10), pytest.raises(OSError, match="File too large"):
            file.truncate(100)
        file.write(b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_without_an_error_it_is_a_file_as_any(tmp_path: Path) -> None:
    """But a new one."""
    with new_file(tmp_path / "file") as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"
    with pytest.raises(FileExistsError), new_file(tmp_path / "file"):
        pass
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "other"):
        _ = 1 / 0


# h5py prints what it meets when it closes objects.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("store", [H5Store(), TableStore()], ids=repr)
def test_no_refused_write_is_lost(store: Store, tmp_path: Path) -> None:
    """Wherever the disk is full: an error is raised that says so, and the old file stays."""
    path = tmp_path / "result.h5"
    data: dict[str, Any] = {"x": np.arange(3000), "name": ["abc"] * 3000, "wide": np.ones((3000, 2))}
    store.save(path, data)
    size = path.stat().st_size
    store.save(path, {"x": [1]})
    before = path.read_bytes()
    for limit in [*range(0, size, 4999), size - 1]:
        with pytest.raises(OSError, match="File too large") as caught, at_most(limit):
            store.save(path, data)
        assert caught.value.errno == errno.EFBIG
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]
    with at_most(size):
        store.save(path, data)
    assert len(store.load(path)["x"]) == 3000
