"""NumPy's own format: a zip file of arrays, without compression."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.lib import format as npy

from psyrun.arrays import Array
from psyrun.store.base import Store
from psyrun.streams import Column, pieces_of, raw, rows_per_piece


class NpzStore(Store):
    """Results as ``.npz``, read by ``numpy.load`` too. Never pickles, and never unpickles.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'result.npz'
    >>> NpzStore().save(path, {'x': [1, 2], 'name': ['a', 'b']})
    >>> NpzStore().load(path)
    {'x': array([1, 2]), 'name': array(['a', 'b'], dtype='<U1')}
    """

    ext: ClassVar[str] = ".npz"

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, column in data.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    head = {"descr": npy.dtype_to_descr(column.dtype), "fortran_order": False, "shape": column.shape}
                    npy.write_array_header_1_0(member, head)
                    for piece in pieces_of(column):
                        member.write(raw(piece))

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        data: dict[str, Array] = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                if names is None or name in names:
                    with archive.open(member) as file:
                        data[name] = npy.read_array(file, allow_pickle=False)
                        file.read()  # the checksum is compared at the end
        return data

    def _pieces(self, path: Path, name: str) -> Iterator[Array]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            npy.read_magic(file)
            shape, _, dtype = npy.read_array_header_1_0(file)
            size = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            if not shape or not shape[0] * size:
                yield np.frombuffer(file.read(), dtype).reshape(shape)
                return
            while content := file.read(rows_per_piece(dtype, shape) * size):
                yield np.frombuffer(content, dtype).reshape(-1, *shape[1:])
