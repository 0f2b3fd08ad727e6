"""HDF5, written and read with h5py by one process: node ``/psyrun``, one data set a column."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import numpy as np

from psyrun.arrays import Array, objects
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store.base import Store
from psyrun.store.disk import new_file
from psyrun.store.pickle import pickled, unpickled
from psyrun.streams import Column, pieces_of, rows_per_piece, whole

NODE = "psyrun"
TABLE = "table"
"""Below the node: the table of a `psyrun.store.table.TableStore`, each field a column."""
ARRAYS = "arrays"
"""Below the node: the group of the columns beside a table."""
POSITION = "position"
"""Attribute of these: which column of all it is; fields of the table have the places between."""
DTYPE = "numpy_dtype"
"""Attribute: the dtype of a column, where HDF5 holds it as another."""


class H5Store(Store):
    """Results as ``.h5``, which h5py, PyTables, MATLAB, R and Julia read.

    Files of psyrun 0.8 and of a `psyrun.TableStore` are read too.

    Parameters
    ----------
    allow_pickle : bool
        Whether to hold any Python object, each in a pickle. Loading objects can run any code that the writer of the
        file put there; without this, nothing is ever pickled or unpickled.
    """

    ext: ClassVar[str] = ".h5"
    streams = True

    def __init__(self, allow_pickle: bool = False):
        self.holds_objects = allow_pickle

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        import h5py

        with new_file(path) as disk, h5py.File(disk, "w") as file:
            group = file.create_group(NODE, track_order=True)
            for name, column in data.items():
                write_column(group, name, column)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        with columns_in(path) as columns:
            return {
                name: self._restored(path, name, column, column.content())
                for name, column in columns.items()
                if names is None or name in names
            }

    def _pieces(self, path: Path, name: str) -> Iterator[Array]:
        with columns_in(path) as columns:
            column = columns[name]
            for content in column.pieces():
                yield self._restored(path, name, column, content)

    def _restored(self, path: Path, name: str, column: Stored, content: Array) -> Array:
        dtype = column.dtype
        if dtype.hasobject and not self.holds_objects:
            raise StoreError(
                f"{path}: column {name!r} holds Python objects, which allow_pickle=False never loads. "
                "If you trust who wrote the file: psyrun.H5Store(allow_pickle=True)"
            )
        return restored(content, dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'allow_pickle=True' if self.holds_objects else ''})"


@dataclass
class Stored:
    """A column as a file holds it: a data set, or a field of a table.

    Attributes
    ----------
    node : h5py.Dataset
    field : str
        Empty for a data set.
    """

    node: Any
    field: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that the column had when it was saved."""
        import h5py

        said = self.node.attrs.get(f"{DTYPE}_{self.field}" if self.field else DTYPE)
        if said is not None:
            return np.dtype(str(said))
        if not self.field and isinstance(self.node.id.get_type(), h5py.h5t.TypeBitfieldID):
            return np.dtype(bool)  # as PyTables writes truth values
        dtype: np.dtype[Any] = self.node.dtype[self.field] if self.field else self.node.dtype
        if dtype.hasobject:
            raise StoreError(
                f"{self.node.name} has values of variable length, which are read only as psyrun writes them"
            )
        return dtype

    def content(self, rows: Any = ()) -> Array:
        """Return rows as they are in the file."""
        return np.asarray((self.node.fields(self.field) if self.field else self.node)[rows])

    def pieces(self) -> Iterator[Array]:
        """Yield all rows in pieces."""
        shape = self.node.shape
        if not self.node.size or not shape:
            yield self.content()
            return
        rows = rows_per_piece(self.node.dtype, shape)
        for first in range(0, shape[0], rows):
            yield self.content(slice(first, first + rows))


@contextmanager
def columns_in(path: Path) -> Iterator[dict[str, Stored]]:
    """Give the columns of a file while it is open, in their order."""
    import h5py

    with h5py.File(path, "r") as file:
        if NODE not in file:
            raise StoreError(f"{path}: HDF5, but without the node /{NODE}")
        group = file[NODE]
        if not _has_table(group):
            yield {_name(group[node], node): Stored(group[node]) for node in group}
            return
        fields = iter(group[TABLE].dtype.names)
        beside = {int(node.attrs[POSITION]): (name, node) for name, node in group.get(ARRAYS, {}).items()}
        columns: dict[str, Stored] = {}
        for position in range(len(group[TABLE].dtype.names) + len(beside)):
            if position in beside:
                name, node = beside[position]
                columns[unquote(name)] = Stored(node)
            else:
                field = next(fields)
                columns[field] = Stored(group[TABLE], field)
        yield columns


def columns_at_root(path: Path) -> dict[str, Array] | None:
    """Return the data sets at the root of a file that another program wrote; None if it has the node of ours.

    Raises
    ------
    StoreError
        It is no HDF5, or has values of a kind that is not read.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if NODE in file:
                return None
            nodes = {name: node for name, node in file.items() if isinstance(node, h5py.Dataset)}
            return {name: _of_others(node) for name, node in nodes.items()}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as HDF5: {error}") from error


def _of_others(node: Any) -> Array:
    import h5py

    if h5py.check_string_dtype(node.dtype) is None:
        return Stored(node).content().astype(Stored(node).dtype, copy=False)
    return np.asarray(node.asstr()[()], dtype=object)


def has_table(path: Path) -> bool:
    """Whether a file is one of a `psyrun.store.table.TableStore`."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return NODE in file and _has_table(file[NODE])
    except OSError:
        return False


def _has_table(group: Any) -> bool:
    # A column can be named "table", too; PyTables marks its tables.
    return TABLE in group and group[TABLE].attrs.get("CLASS") == b"TABLE"


def _name(node: Any, name: str) -> str:
    """Return the column that a data set holds; PyTables, for psyrun 0.8, wrote names as they are."""
    return name if "CLASS" in node.attrs else unquote(name)


def _escaped(name: str) -> str:
    """Return the name of a node; HDF5 takes '/' and a single '.' for paths. `unquote` is the way back."""
    return "%2E" if name == "." else name.replace("%", "%25").replace("/", "%2F")


def write_column(group: Any, name: str, column: Column) -> Any:
    """Make a data set of a column, and return it.

    Raises
    ------
    UnsupportedValueError
        HDF5 has no type for it.
    """
    stored, dtype = storable(name, column)
    try:
        node = group.create_dataset(_escaped(name), shape=stored.shape, dtype=stored.dtype)
    except TypeError as error:
        raise UnsupportedValueError(f"column {name!r}: HDF5 has no type for {column.dtype}") from error
    if node.dtype.newbyteorder("=") != stored.dtype.newbyteorder("="):
        raise UnsupportedValueError(f"column {name!r}: HDF5 makes {node.dtype} of {column.dtype}")
    if dtype:
        node.attrs[DTYPE] = dtype
    if not node.shape:
        node[()] = whole(stored)
        return node
    at = 0
    for piece in pieces_of(stored):
        if piece.dtype.hasobject:  # h5py would take several of one length for an array of two dimensions
            for row, content in enumerate(piece, at):
                node[row] = content
        elif piece.size:
            # h5py has no complex long double of the other byte order, and does not convert it either.
            node[at : at + len(piece)] = piece.astype(node.dtype, copy=False)
        at += len(piece)
    return node


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


def storable(name: str, column: Column) -> tuple[Column, str]:
    """Return what HDF5 has a type for, and the dtype to come back to where that is another one."""
    kind, dtype = column.dtype.kind, column.dtype.str
    if not column.dtype.itemsize:
        return np.zeros(whole(column).shape, "S1"), dtype
    if kind == "U":
        text = whole(column)
        return np.char.encode(text, "utf-8", "surrogatepass") if text.size else text.astype("S1"), dtype
    if kind in "Mm":
        return _AsIntegers(column), dtype
    if kind == "O":
        return _pickles(name, whole(column)), dtype
    return column, ""


def _pickles(name: str, column: Array) -> Array:
    """Return one pickle a row, as bytes of variable length."""
    import h5py

    rows = [np.frombuffer(pickled(name, value), np.uint8) for value in column]
    return objects(rows).astype(h5py.vlen_dtype(np.uint8))


def restored(content: Array, dtype: np.dtype[Any]) -> Array:
    """Return values as they were before `storable`; objects are unpickled."""
    if not dtype.itemsize:
        return np.ndarray(content.shape, dtype)
    if dtype.hasobject:
        return objects([unpickled(row.tobytes()) for row in content])
    if dtype.kind == "U" and content.size:
        return np.char.decode(content, "utf-8", "surrogatepass").astype(dtype)
    return content.astype(dtype, copy=False)
