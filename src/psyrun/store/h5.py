"""HDF5, written and read with h5py by one process: node ``/psyrun``, one data set a column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import numpy as np

from psyrun.arrays import Array
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store.base import Store

NODE = "psyrun"
_DTYPE = "numpy_dtype"


class H5Store(Store):
    """Results as ``.h5``, which h5py, PyTables, MATLAB, R and Julia read."""

    ext: ClassVar[str] = ".h5"

    def _write(self, path: Path, data: Mapping[str, Array]) -> None:
        import h5py

        with h5py.File(path, "x") as file:
            group = file.create_group(NODE, track_order=True)
            for name, column in data.items():
                stored, dtype = _storable(np.asanyarray(column))
                try:
                    node = group.create_dataset(_escaped(name), data=stored)
                except TypeError as error:
                    raise UnsupportedValueError(f"column {name!r}: HDF5 has no type for {column.dtype}") from error
                if dtype:
                    node.attrs[_DTYPE] = dtype

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        import h5py

        with h5py.File(path, "r") as file:
            if NODE not in file:
                raise StoreError(f"{path}: HDF5, but without the node /{NODE}")
            nodes = {unquote(node): node for node in file[NODE]}
            return {name: _loaded(file[NODE][node]) for name, node in nodes.items() if names is None or name in names}


def _escaped(name: str) -> str:
    """Return the name of a node; HDF5 takes '/' and a single '.' for paths. `unquote` is the way back."""
    return "%2E" if name == "." else name.replace("%", "%25").replace("/", "%2F")


def _storable(column: Array) -> tuple[Array, str]:
    """Return what HDF5 has a type for, and the dtype to come back to where that is another one."""
    if column.dtype.kind == "U":
        return np.char.encode(column, "utf-8", "surrogatepass") if column.size else column.astype(
            "S1"
        ), column.dtype.str
    if column.dtype.kind in "Mm":
        return column.astype(np.int64), column.dtype.str
    return column, ""


def _loaded(node: object) -> Array:
    column: Array = np.asarray(node[()])  # type: ignore[index]
    dtype = node.attrs.get(_DTYPE)  # type: ignore[attr-defined]
    if dtype is None:
        return column
    target = np.dtype(str(dtype))
    if target.kind == "U" and column.size:
        return np.char.decode(column, "utf-8", "surrogatepass").astype(target)
    return column.astype(target)
