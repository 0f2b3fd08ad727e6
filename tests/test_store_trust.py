"""PyTables unpickles what it finds in attributes; no file with something in them is opened with it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from psyrun.errors import StoreError
from psyrun.store import H5Store, TableStore

STORE = TableStore()


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a table, an index and an array beside."""
    path = tmp_path / "result.h5"
    n = 10_000
    STORE.save(path, {"x": np.arange(n), "name": ["a"] * n, "z": np.zeros(n, complex), "wide": np.zeros((n, 2))})
    return path


def as_fixed(node: Any, content: bytes) -> None:
    node.attrs["trap"] = np.bytes_(content)


def as_fixed_behind_a_nul(node: Any, content: bytes) -> None:
    """Write a pickle that begins with empty bytes, dropped again: a NUL, at which text ends for h5py."""
    content = content[:2] + b"C\0" + b"0" + content[2:]
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(content))
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    attribute = h5py.h5a.create(node.id, b"trap", kind, h5py.h5s.create(h5py.h5s.SCALAR))
    attribute.write(np.frombuffer(content, f"V{len(content)}").reshape(()).copy(), mtype=kind)


def as_variable(node: Any, content: bytes) -> None:
    node.attrs.create("trap", content, dtype=h5py.string_dtype("ascii"))


def sprung_by_pytables(path: Path) -> None:
    import tables

    with tables.open_file(path) as file:
        for node in file.walk_nodes("/"):
            _ = node._v_attrs
        file.root.psyrun.table.get_where_list("x == 3")


BELOW = ["", "/table", "/arrays", "/arrays/wide", "/_i_table", "/_i_table/x", "/_i_table/x/sorted"]


@pytest.mark.parametrize("node", ["/", *(f"/psyrun{node}" for node in BELOW)])
@pytest.mark.parametrize("put", [as_fixed, as_fixed_behind_a_nul, as_variable])
def test_a_pickle_in_an_attribute_is_never_loaded(put: Callable[[Any, bytes], None], node: str, path: Path) -> None:
    """PyTables does so as it comes by; a query does not come by, and a load without one needs no PyTables."""
    trap = path.parent / "sprung"
    with h5py.File(path, "r+") as file:
        put(file[node], pickle.dumps(Trap(trap), 0 if put is as_variable else 4))
    sprung_by_pytables(path)
    assert trap.exists()  # otherwise the test would show nothing
    trap.rmdir()
    with pytest.raises(StoreError, match=r"attribute 'trap' at /.* not opened for a query.*psyrun\.H5Store\(\)"):
        STORE.load(path, where="x == 3")
    for store in (STORE, H5Store()):
        assert len(store.load(path)["x"]) == 10_000
    assert not trap.exists()


@pytest.mark.parametrize(
    "value", ["text.", b"bytes.", np.array(["text."], dtype=h5py.string_dtype()), [b"b", b"a."], np.void(b"a.")]
)
def test_what_could_be_one_is_not_opened_either(value: Any, path: Path) -> None:
    """Whatever ends in a dot, or is of a kind that neither psyrun nor PyTables writes."""
    with h5py.File(path, "r+") as file:
        if isinstance(value, str):
            file["psyrun"].attrs.create("a", value, dtype=h5py.string_dtype("ascii"))
        else:
            file["psyrun"].attrs["a"] = value
    if isinstance(value, np.ndarray):
        assert STORE.load(path, where="x == 3")["x"].tolist() == [3]  # text in UTF-8 is text for PyTables
        return
    with pytest.raises(StoreError, match="attribute 'a' at /psyrun"):
        STORE.load(path, where="x == 3")


def test_a_damaged_name_is_an_error(path: Path) -> None:
    """PyTables would end Python itself at a name that is no UTF-8."""
    with h5py.File(path, "r+") as file:
        h5py.h5a.create(file["psyrun"].id, b"\xdf", h5py.h5t.NATIVE_INT8, h5py.h5s.create(h5py.h5s.SCALAR))
    with pytest.raises(StoreError, match=r"cannot be read as a \.h5 file: 'utf-8' codec"):
        STORE.load(path, where="x == 3")


@pytest.mark.parametrize(
    ("link", "told"),
    [
        (h5py.SoftLink("/psyrun/table"), "link 'more' at /psyrun"),
        (h5py.ExternalLink("other.h5", "/"), "link 'more' at /psyrun"),
    ],
)
def test_links_out_of_the_file_are_not_followed(link: Any, told: str, path: Path) -> None:
    """What they lead to was not looked at."""
    with h5py.File(path, "r+") as file:
        file["psyrun"]["more"] = link
    with pytest.raises(StoreError, match=told):
        STORE.load(path, where="x == 3")


def test_values_in_other_files_are_not_read(path: Path) -> None:
    """Neither raw nor of another HDF5 file."""
    with h5py.File(path, "r+") as file:
        file.create_dataset("raw", (1,), "u1", external=[("/etc/hostname", 0, 1)])
    with pytest.raises(StoreError, match="values of /raw in another file"):
        STORE.load(path, where="x == 3")
    layout = h5py.VirtualLayout((1,), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "x", (1,))
    with h5py.File(path, "r+") as file:
        del file["raw"]
        file.create_virtual_dataset("virtual", layout)
    with pytest.raises(StoreError, match="values of /virtual in another file"):
        STORE.load(path, where="x == 3")


def test_files_of_others_are_not_asked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor those that others can write to."""
    path.chmod(0o664)
    with pytest.raises(StoreError, match="can be written by other users"):
        STORE.load(path, where="x == 3")
    path.chmod(0o644)
    assert STORE.load(path, where="x == 3")["x"].tolist() == [3]
    if os.getuid() == 0:
        os.chown(path, 1, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreError, match="belongs to another user"):
        STORE.load(path, where="x == 3")
    assert len(STORE.load(path)["x"]) == 10_000


def test_only_their_owner_can_write_to_tables(path: Path) -> None:
    """Whatever new files allow others otherwise; who may read them does not change."""
    before = os.umask(0o002)
    try:
        STORE.append(path, {"x": [1]})
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert STORE.load(path, where="x == 1")["x"].tolist() == [1, 1]
