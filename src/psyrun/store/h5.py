"""HDF5, written and read with h5py by one process: node ``/psyrun``, one data set a column."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import numpy as np

from psyrun.arrays import Array
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store.base import Store
from psyrun.streams import Column, pieces_of, rows_per_piece, whole

NODE = "psyrun"
_DTYPE = "numpy_dtype"


class H5Store(Store):
    """Results as ``.h5``, which h5py, PyTables, MATLAB, R and Julia read."""

    ext: ClassVar[str] = ".h5"

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        import h5py

        with h5py.File(path, "x") as file:
            group = file.create_group(NODE, track_order=True)
            for name, column in data.items():
                stored, dtype = _storable(column)
                try:
                    node = group.create_dataset(_escaped(name), shape=stored.shape, dtype=stored.dtype)
                except TypeError as error:
                    raise UnsupportedValueError(f"column {name!r}: HDF5 has no type for {column.dtype}") from error
                if dtype:
                    node.attrs[_DTYPE] = dtype
                _fill(node, stored)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        import h5py

        with h5py.File(path, "r") as file:
            nodes = _nodes(file, path)
            return {name: _loaded(node, node[()]) for name, node in nodes.items() if names is None or name in names}

    def _pieces(self, path: Path, name: str) -> Iterator[Array]:
        import h5py

        with h5py.File(path, "r") as file:
            node = _nodes(file, path)[name]
            if not node.size or not node.shape:
                yield _loaded(node, node[()])
                return
            rows = rows_per_piece(node.dtype, node.shape)
            for first in range(0, node.shape[0], rows):
                yield _loaded(node, node[first : first + rows])


def _fill(node: Any, column: Column) -> None:
    at = 0
    for piece in pieces_of(column):
        if not node.shape:
            node[()] = piece
            return
        node[at : at + len(piece)] = piece
        at += len(piece)


def _nodes(file: Any, path: Path) -> dict[str, Any]:
    """Return the data sets of a file, by column."""
    if NODE not in file:
        raise StoreError(f"{path}: HDF5, but without the node /{NODE}")
    return {unquote(node): file[NODE][node] for node in file[NODE]}


def _escaped(name: str) -> str:
    """Return the name of a node; HDF5 takes '/' and a single '.' for paths. `unquote` is the way back."""
    return "%2E" if name == "." else name.replace("%", "%25").replace("/", "%2F")


@dataclass
class _AsIntegers:
    """A column of times as the integers that they are counted in."""

    column: Column

    def __post_init__(self) -> None:
        self.shape, self.dtype = self.column.shape, np.dtype(np.int64)

    def pieces(self) -> Iterator[Array]:
        """Yield the integers."""
        for piece in pieces_of(self.column):
            yield piece.astype(np.int64)


def _storable(column: Column) -> tuple[Column, str]:
    """Return what HDF5 has a type for, and the dtype to come back to where that is another one."""
    if column.dtype.kind == "U":
        text = whole(column)
        return np.char.encode(text, "utf-8", "surrogatepass") if text.size else text.astype("S1"), text.dtype.str
    if column.dtype.kind in "Mm":
        return _AsIntegers(column), column.dtype.str
    return column, ""


def _loaded(node: Any, content: Any) -> Array:
    """Return values of a data set in the dtype that they had."""
    column: Array = np.asarray(content)
    dtype = node.attrs.get(_DTYPE)
    if dtype is None:
        return column
    target = np.dtype(str(dtype))
    if target.kind == "U" and column.size:
        return np.char.decode(column, "utf-8", "surrogatepass").astype(target)
    return column.astype(target)
