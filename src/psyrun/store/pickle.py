"""Python's pickle: holds any object, and must be read only from files that one trusts."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from psyrun import columns as _columns
from psyrun.arrays import Array
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store.base import Store
from psyrun.streams import Column, whole

PROTOCOL = 4
"""Every Python that runs psyrun reads it, and NumPy writes it too."""


def pickled(name: str, value: Any) -> bytes:
    """Return a pickle of what a column holds.

    Raises
    ------
    UnsupportedValueError
        Pickle cannot write it, or not read what it wrote, as with many exceptions of one's own.
    """
    try:
        content = pickle.dumps(value, PROTOCOL)
        pickle.loads(content)  # noqa: S301 - written just now
    except MemoryError:
        raise
    except Exception as error:  # objects define what is run here
        raise UnsupportedValueError(f"column {name!r} holds what cannot be pickled and read back: {error}") from error
    return content


def unpickled(content: bytes) -> Any:
    """Return what was pickled; this can run any code that the writer put there."""
    return pickle.loads(content)  # noqa: S301 - asked for with allow_pickle=True


class PickleStore(Store):
    """Results as ``.pkl``. Loading such a file can run any code that its writer put there.

    Files of psyrun 0.8 are read too: dicts of lists, in which None stands for no value.
    """

    ext: ClassVar[str] = ".pkl"
    holds_objects = True

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        columns = {name: whole(column) for name, column in data.items()}
        for name, column in columns.items():
            if column.dtype.hasobject:
                pickled(name, column)
        with path.open("xb") as file:
            pickle.dump(columns, file, PROTOCOL)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        with path.open("rb") as file:
            content = pickle.load(file)  # noqa: S301 - the documented nature of this store
        if not isinstance(content, Mapping):
            raise StoreError(f"{path}: holds no columns, but {type(content).__name__}")
        data: dict[str, Array] = {}
        for name, column in content.items():
            if names is None or name in names:
                data |= {name: column} if isinstance(column, np.ndarray) else _of_rows(name, column)
        return data


def _of_rows(name: str, rows: Any) -> dict[str, Array]:
    """Return the column for what psyrun 0.8 wrote: a list, or text that stands for one row."""
    single = isinstance(rows, (str, bytes)) or not hasattr(rows, "__len__")
    return _columns.settled(name, [rows] if single else rows, objects_ok=True)
