"""NumPy's own format: a zip file of arrays, without compression."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
from numpy.lib import format as npy

from psyrun.arrays import Array
from psyrun.errors import StoreError
from psyrun.store.base import Store
from psyrun.store.pickle import pickled
from psyrun.streams import Column, pieces_of, raw, rows_per_piece, whole


class NpzStore(Store):
    """Results as ``.npz``, read by ``numpy.load`` too.

    Parameters
    ----------
    allow_pickle : bool
        Whether to hold any Python object, as NumPy does: in a pickle. Loading objects can run any code that the
        writer of the file put there; without this, nothing is ever pickled or unpickled.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'result.npz'
    >>> NpzStore().save(path, {'x': [1, 2], 'name': ['a', 'b']})
    >>> NpzStore().load(path)
    {'x': array([1, 2]), 'name': array(['a', 'b'], dtype='<U1')}
    """

    ext: ClassVar[str] = ".npz"
    streams = True

    def __init__(self, allow_pickle: bool = False):
        self.holds_objects = allow_pickle

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, column in data.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    _write_column(member, name, column)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        data: dict[str, Array] = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                if names is None or name in names:
                    with archive.open(member) as file:
                        data[name] = self._column(file, f"{path}: column {name!r}")
        return data

    def _column(self, file: IO[bytes], what: str) -> Array:
        try:
            column = npy.read_array(file, allow_pickle=self.holds_objects)
        except ValueError as error:
            if "allow_pickle=False" not in str(error):
                raise
            raise StoreError(
                f"{what} holds Python objects, which allow_pickle=False never loads. "
                "If you trust who wrote the file: psyrun.NpzStore(allow_pickle=True)"
            ) from error
        file.read()  # the checksum is compared at the end
        return column

    def _pieces(self, path: Path, name: str) -> Iterator[Array]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            if npy.read_magic(file) == (1, 0):
                shape, _, dtype = npy.read_array_header_1_0(file)
                size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
                if shape and shape[0] * size and not dtype.hasobject:
                    while content := file.read(rows_per_piece(dtype, shape) * size):
                        yield np.frombuffer(content, dtype).reshape(-1, *shape[1:])
                    return
        yield self._read(path, [name])[name]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'allow_pickle=True' if self.holds_objects else ''})"


def _write_column(file: IO[bytes], name: str, column: Column) -> None:
    """Write what `numpy.save` writes: a header, and the rows piece by piece where they have no parts."""
    if column.dtype.hasobject:
        pickled(name, whole(column))
        npy.write_array(file, whole(column), allow_pickle=True)
    elif column.dtype.names is not None:
        npy.write_array(file, whole(column), version=(3, 0))  # names of fields may be of any script
    else:
        head = {"descr": npy.dtype_to_descr(column.dtype), "fortran_order": False, "shape": column.shape}
        npy.write_array_header_1_0(file, head)
        for piece in pieces_of(column):
            file.write(raw(piece))
