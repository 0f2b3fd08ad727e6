"""NumPy's own format: a zip file of arrays, without compression."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from psyrun.arrays import Array
from psyrun.store.base import Store


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

    def _write(self, path: Path, data: Mapping[str, Array]) -> None:
        with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, column in data.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(column), allow_pickle=False)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        data: dict[str, Array] = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                if names is None or name in names:
                    with archive.open(member) as file:
                        data[name] = np.lib.format.read_array(file, allow_pickle=False)
                        file.read()  # the checksum is compared at the end
        return data
