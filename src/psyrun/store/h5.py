"""HDF5, written and read with h5py by one process: node ``/psyrun``, one data set a column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from psyrun.arrays import Array
from psyrun.errors import StoreError
from psyrun.store.base import Store

NODE = "psyrun"
_DTYPE = "numpy_dtype"


class H5Store(Store):
    """Results as ``.h5``, which h5py, PyTables, MATLAB, R and Julia read."""

    ext: ClassVar[str] = ".h5"

    def _write(self, path: Path, data: Mapping[str, Array]) -> None:
        import h5py

        with h5py.File(path, "x", track_order=True) as file:
            group = file.create_group(NODE, track_order=True)
            for name, column in data.items():
                stored, dtype = _storable(np.asanyarray(column))
                node = group.create_dataset(name.replace("/", "\\"), data=stored)
                if dtype:
                    node.attrs[_DTYPE] = dtype

    def _read(self, path: Path) -> dict[str, Array]:
        import h5py

        try:
            with h5py.File(path, "r") as file:
                if NODE not in file:
                    raise StoreError(f"{path}: HDF5, but without the node /{NODE}")
                return {name.replace("\\", "/"): _loaded(node) for name, node in file[NODE].items()}
        except OSError as error:
            raise StoreError(f"{path}: not a whole HDF5 file ({error})") from error


def _storable(column: Array) -> tuple[Array, str]:
    """Return what HDF5 has a type for, and the dtype to come back to where that is another one."""
    if column.dtype.kind == "U":
        return np.char.encode(column, "utf-8") if column.size else column.astype("S1"), column.dtype.str
    if column.dtype.kind in "Mm":
        return column.astype(np.int64), column.dtype.str
    return column, ""


def _loaded(node: object) -> Array:
    column: Array = np.asarray(node[()])  # type: ignore[index]
    dtype = node.attrs.get(_DTYPE)  # type: ignore[attr-defined]
    if dtype is None:
        return column
    target = np.dtype(str(dtype))
    if target.kind == "U":
        return np.char.decode(column, "utf-8").astype(target)
    return column.astype(target)
