"""HDF5 with a PyTables table that can be asked for rows: ``/psyrun/table``, other columns beside it."""

from __future__ import annotations

import io
import keyword
import re
import stat
import unicodedata
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from psyrun.arrays import Array
from psyrun.columns import HIDDEN
from psyrun.errors import StoreError
from psyrun.store.h5 import ARRAYS, DTYPE, NODE, POSITION, TABLE, H5Store, Stored, columns_in, storable, write_column
from psyrun.store.trust import check_for_pytables
from psyrun.store.where import Condition, condition
from psyrun.streams import Column, rows_per_piece, whole

MOST_COLUMNS = 256
MOST_LETTERS = 64
"""The header of a table takes 64 KiB in HDF5, names included."""
LEAST_INDEXED = 10_000
"""Rows of a table that is indexed; less are looked through at once."""
MOST_BYTES = 1024
"""Of a value in a table: rows are read whole."""
WINDOW = 2**20
"""Bytes of a column that are read at a time where only some rows are wanted."""

_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "f4", "f8", "c8", "c16")
_RESERVED = re.compile("_[cfgv]_|__members__$")


class TableStore(H5Store):
    """Results as ``.h5`` that are asked for rows on disk: ``load(path, where='(D == 3) & (rmse < .1)')``.

    Columns of one number, truth value, text or time a row make up a PyTables table, as far as their names are
    identifiers; all others are arrays beside it. In tables of 10000 rows and more, integers and floats without NaN are
    indexed. See `psyrun.store.where.condition` for what can be asked. A row without a value is asked for what `load`
    shows there: NaN, '' or, among integers that no float can hold, 0.

    Without ``where``, a file is read as by `psyrun.H5Store`, which reads it too. With it, PyTables opens the file. That
    could run code that others put there, so it must belong to you, and nobody else may be able to write to it.

    Parameters
    ----------
    allow_pickle : bool
        As for `psyrun.H5Store`; it does not make any difference to what is opened with PyTables.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'result.h5'
    >>> TableStore().save(path, {'D': [1, 3, 3], 'rmse': [.05, .05, .5], 'spikes': [[1, 2], [3, 4], [5, 6]]})
    >>> TableStore().load(path, where='(D == 3) & (rmse < .1)', columns=['spikes'])
    {'spikes': array([[3, 4]])}
    """

    streams = False
    queries = True

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        import h5py

        columns = {name: whole(column) for name, column in data.items()}
        fields = [name for name, column in columns.items() if _can_be_asked_for(name, column)][:MOST_COLUMNS]
        if not fields:
            super()._write(path, columns)
        else:
            # In memory first: of errors of the disk, HDF5 and its libraries do not tell all.
            content = io.BytesIO(_with_table(path, {name: columns[name] for name in fields}))
            with h5py.File(content, "r+") as file:
                _say_dtypes(file[NODE][TABLE], columns)
                group = file[NODE].create_group(ARRAYS)
                for position, (name, column) in enumerate(columns.items()):
                    if name not in fields:
                        write_column(group, name, column).attrs[POSITION] = position
            with path.open("xb") as disk:
                disk.write(content.getbuffer())
            path.chmod(path.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH))

    def _query(self, path: Path, where: str, names: Collection[str] | None) -> tuple[dict[str, Array], int]:
        with columns_in(path) as columns:
            fields = {name: column.dtype for name, column in columns.items() if column.field}
        if not fields:
            raise StoreError(f"{path}: has no table that takes a where; {self!r}.save makes one of columns of numbers")
        asked = condition(where, fields)
        check_for_pytables(path)
        rows, n_rows = _rows_that_meet(path, asked, where)
        with columns_in(path) as columns:
            chosen = {name: column for name, column in columns.items() if names is None or name in names}
            data = {n: self._restored(path, n, column, _taken(column, rows)) for n, column in chosen.items()}
        return data, n_rows


def _can_be_asked_for(name: str, column: Array) -> bool:
    """Whether PyTables takes the name of a column, and numexpr compares its values as NumPy does."""
    named = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith(HIDDEN)
    # Python reads identifiers in this form; PyTables keeps some for itself.
    named = named and name == unicodedata.normalize("NFKC", name) and not _RESERVED.match(name)
    named = named and len(name.encode()) <= MOST_LETTERS
    dtype = column.dtype
    comparable = dtype.str[1:] in _NUMBERS or dtype.kind in "US" or (dtype.kind == "M" and dtype.str[1:] != "M8")
    in_a_row = column.ndim == 1 and 0 < dtype.itemsize <= MOST_BYTES
    return named and comparable and in_a_row and not (dtype.kind in "US" and _has_inner_nul(column))


def _has_inner_nul(column: Array) -> bool:
    """Whether text goes on behind a NUL, where it ends for those who read a table of PyTables."""
    letter = np.dtype(np.uint8 if column.dtype.kind == "S" else np.uint32)
    letters = np.ascontiguousarray(column).view(letter).reshape(-1, column.dtype.itemsize // letter.itemsize)
    return bool(((letters[:, :-1] == 0) & (letters[:, 1:] != 0)).any())


def _can_be_indexed(column: Array) -> bool:
    """Whether an index of PyTables finds all rows: of NaN it loses some, and on other dtypes some limits fail."""
    return column.dtype.str[1:] == "i8" or (column.dtype.str[1:] == "f8" and not np.isnan(column).any())


def _with_table(path: Path, columns: Mapping[str, Array]) -> bytes:
    """Return the content of a file with a table of columns."""
    stored = {name: whole(storable(name, column)[0]) for name, column in columns.items()}
    dtype = np.dtype([(name, column.dtype.newbyteorder("=")) for name, column in stored.items()])
    n_rows = len(next(iter(columns.values())))
    with _opened(path, "w", driver="H5FD_CORE", driver_core_backing_store=0) as file:
        table = file.create_table(f"/{NODE}", TABLE, dtype, expectedrows=n_rows, createparents=True, track_times=False)
        for first in range(0, n_rows, step := rows_per_piece(dtype, (n_rows,))):
            piece = np.empty(min(step, n_rows - first), dtype)
            for name, column in stored.items():
                piece[name] = column[first : first + step]
            table.append(piece)
        table.flush()
        for name, column in columns.items():
            if n_rows >= LEAST_INDEXED and _can_be_indexed(column):
                # Sorted slice by slice of the rows. More order takes three times as long and finds no sooner.
                table.cols._f_col(name).create_index(optlevel=0, kind="light")
        file.flush()
        return bytes(file.get_file_image())


def _say_dtypes(table: Any, columns: Mapping[str, Array]) -> None:
    """Note the dtypes of columns that fields of a table hold as something else."""
    for name, dtype in table.dtype.fields.items():
        if dtype[0] != columns[name].dtype:
            table.attrs[f"{DTYPE}_{name}"] = columns[name].dtype.str


def _rows_that_meet(path: Path, asked: Condition, where: str) -> tuple[Array, int]:
    """Return the numbers of the rows that meet a condition, in order, and how many rows there are."""
    with _opened(path, "r") as file:
        table = file.get_node(f"/{NODE}/{TABLE}")
        columns = {short: table.cols._f_col(name) for short, name in asked.columns.items()}
        try:
            rows = table.get_where_list(asked.text, {**columns, **asked.constants}, sort=True)
        except (ValueError, TypeError, NotImplementedError, RecursionError) as error:
            raise StoreError(f"{path}: where={where!r} is too much for numexpr: {error}") from error
        return np.asarray(rows, dtype=np.int64), int(table.nrows)


@contextmanager
def _opened(path: Path, mode: str, **options: Any) -> Iterator[Any]:
    import tables

    with warnings.catch_warnings():
        # About names that cannot be typed as attributes of Python objects, which nobody does here.
        warnings.simplefilter("ignore", tables.NaturalNameWarning)
        with tables.open_file(path, mode, **options) as file:
            yield file


def _taken(column: Stored, rows: Array) -> Array:
    """Return some rows of a column; rows in between are read with them where they are few."""
    if not column.node.shape:
        return column.content()
    size = column.node.dtype.itemsize * int(np.prod(column.node.shape[1:], dtype=np.int64))
    window = max(1, WINDOW // max(1, size))
    pieces = [column.content(slice(0, 0))]
    for inside in np.split(rows, 1 + np.flatnonzero(np.diff(rows // window))) if len(rows) else ():
        first = int(inside[0])
        pieces.append(column.content(slice(first, int(inside[-1]) + 1))[inside - first])
    return np.concatenate(pieces)
