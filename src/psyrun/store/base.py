"""What every store does the same: columns of equal length, written whole or not at all."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from psyrun import columns as _columns
from psyrun.arrays import Array
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.files import replacing
from psyrun.streams import Column, Summary, Watched, is_stream, whole


class Store(ABC):
    """A file format for results: a dict of columns, all of the same number of rows.

    Attributes
    ----------
    ext : str
        The suffix of its files.
    holds_objects : bool
        Whether it holds any Python object, or numbers, text, times and arrays of these only.
    streams : bool
        Whether columns are written and verified in pieces, so that a result need not fit into memory.
    queries : bool
        Whether `load` takes ``where``.
    """

    ext: ClassVar[str]
    holds_objects: bool = False
    streams: bool = False
    queries: bool = False
    KEYS: ClassVar[str] = _columns.KEYS

    @abstractmethod
    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        """Write columns to a new file. Those that are streams should be written piece by piece."""

    @abstractmethod
    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        """Return the columns of a file, hidden ones included: all, or those of the names that it has.

        An exception means to `load` that the file is damaged.
        """

    def _pieces(self, path: Path, name: str) -> Iterator[Array]:
        """Yield the rows of one column in pieces, in order."""
        yield self._read(path, [name])[name]

    def _query(self, path: Path, where: str, names: Collection[str] | None) -> tuple[dict[str, Array], int]:
        """Return the rows of some columns that meet a condition, and how many rows the file has. See `_read`."""
        raise StoreError(f"{path}: {self!r} takes no where; save the columns with psyrun.TableStore(), which does")

    def save(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Column]) -> None:
        """Write columns to a file, in place of what it held.

        Parameters
        ----------
        filename : path
        data : dict of sequences
            All of the same length n; values as `psyrun.columns.settled` takes them, or a `psyrun.streams.Stream` of
            numbers or times.

        Raises
        ------
        ValueError
            Columns of unequal length.
        UnsupportedValueError
            Values that the format cannot hold; the file is then as it was.
        """
        settled = self._settled(data)
        with replacing(filename) as beside:
            self._write(beside, settled)

    def save_verified(self, filename: str | Path, data: Mapping[str, Column]) -> None:
        """Write columns to a new file and read it back; neither file nor columns need to fit into memory.

        Raises
        ------
        StoreError
            What was read is not what was written.
        """
        path = Path(filename)
        watched = {name: Watched(column) for name, column in data.items()}
        self.save(path, watched)
        for name, column in watched.items():
            found = Summary()
            try:
                for piece in self._pieces(path, name):
                    found.add(piece)
            except (OSError, MemoryError):
                raise
            except Exception as error:
                raise StoreError(f"{path}: column {name!r} cannot be read back: {error}") from error
            if found != column.summary:
                raise StoreError(f"{path}: reading the new file back gave another column {name!r}")

    def load(
        self,
        filename: str | Path,
        row: int | slice | None = None,
        columns: Sequence[str] | None = None,
        keys: bool = False,
        where: str | None = None,
    ) -> dict[str, Array]:
        """Return the columns of a file.

        Parameters
        ----------
        filename : path
        row : int or slice, optional
            Which rows; default all.
        columns : sequence of str, optional
            Which columns; default all.
        keys : bool
            Whether to return the hidden columns (names begin with ``__psyrun_``) too.
        where : str, optional
            Only rows for which this holds, such as ``'(D == 3) & (rmse < .1)'``; ``row`` counts among these. For
            stores that have ``queries``, see `psyrun.store.table.TableStore`.

        Returns
        -------
        dict of arrays
            Each of shape (n, ...), or the shape of one row where ``row`` is an int. A result that lacks items gives
            a warning that counts them.

        Raises
        ------
        StoreError
            The file is not of this format, or damaged; or the condition is wrong.
        """
        data, warning = self._loaded(Path(filename), row, columns, keys, where)
        if warning:
            warnings.warn(warning, stacklevel=2)
        return data

    def _loaded(
        self, path: Path, row: int | slice | None, columns: Sequence[str] | None, keys: bool, where: str | None = None
    ) -> tuple[dict[str, Array], str]:
        """Return what `load` does, and a warning if there is one."""
        if not path.exists():
            raise StoreError(f"{path}: no such file. A run writes it when it is done: psy-doit <task>")
        names = columns if columns is None else {*columns, _columns.KEYS, _columns.N_ITEMS}
        if where is None:
            data = self._whole(path, names)
            rows = _columns.height(data)
        else:
            data, rows = self._asked(path, where, names)
        n_items = int(data.get(_columns.N_ITEMS, rows))
        warning = f"{path}: {rows} of {n_items} items. The command psy-doit <task> computes the others."
        if columns is not None and not data.keys() >= set(columns):
            data = self._whole(path)  # for the message
        return _columns.chosen(data, str(path), row, columns, keys), warning if rows < n_items and not keys else ""

    def append(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Array]) -> None:
        """Add rows to a file, or make it; a column that either lacks has no value in its rows."""
        path = Path(filename)
        new = {name: whole(column) for name, column in self._settled(data).items()}
        old = self._whole(path) if path.exists() else {}
        self.save(path, _columns.stacked(old, new, self.holds_objects) if old else new)

    def _settled(self, data: Mapping[str, Sequence[Any] | Column]) -> dict[str, Column]:
        """Return the columns as arrays, checked; streams as they are."""
        settled: dict[str, Column] = {}
        for name, values in data.items():
            if not isinstance(name, str) or not name or not name.isprintable():
                raise UnsupportedValueError(f"{name!r} cannot name a column; it takes text that can be printed")
            if is_stream(values):
                settled[name] = values
            elif name == _columns.N_ITEMS:
                settled[name] = np.asarray(values)
            else:
                settled |= _columns.settled(name, _rows(name, values), self.holds_objects)
        heights = {name: column.shape[0] for name, column in settled.items() if name != _columns.N_ITEMS}
        if len(set(heights.values())) > 1:
            told = ", ".join(f"{name} has {n}" for name, n in heights.items())
            raise ValueError(f"columns of one file need the same number of rows: {told}")
        return settled

    def _whole(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        """Return what `_read` does, or raise a StoreError."""
        with self._damage_told(path):
            return self._read(path, names)

    def _asked(self, path: Path, where: str, names: Collection[str] | None) -> tuple[dict[str, Array], int]:
        """Return what `_query` does, or raise a StoreError."""
        with self._damage_told(path):
            return self._query(path, where, names)

    @contextmanager
    def _damage_told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (StoreError, MemoryError):
            raise
        except Exception as error:  # a damaged file can raise nearly anything
            raise StoreError(f"{path}: cannot be read as a {self.ext} file: {error or type(error).__name__}") from error

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _rows(name: str, values: Any) -> Sequence[Any] | Array:
    """Return what are values of rows, None where an array masks them."""
    no_sequence = isinstance(values, (str, bytes, Mapping, AbstractSet)) or not hasattr(values, "__len__")
    if no_sequence or (isinstance(values, np.ndarray) and not values.ndim):
        raise UnsupportedValueError(f"column {name!r} is {values!r:.60}; it takes a list or array, a value a row")
    if not isinstance(values, np.ma.MaskedArray):
        return values  # type: ignore[no-any-return]
    if values.ndim > 1 and np.ma.is_masked(values):
        raise UnsupportedValueError(f"column {name!r} masks parts of rows, which no store can keep; use NaN there")
    return [None if value is np.ma.masked else value for value in values] if np.ma.is_masked(values) else values.data
