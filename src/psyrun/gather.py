"""Columns of placed rows, read from the parts piece by piece in the order of the space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array
from psyrun.columns import KEYS
from psyrun.record import Placement
from psyrun.scan import Batch, opened
from psyrun.streams import rows_per_piece

_MOST_BYTES_TOGETHER = 2**24
_SYSTEM = {KEYS: "key"}

Cells = tuple[np.dtype[Any], tuple[int, ...]]
"""Dtype and shape of the cells of a column."""


@dataclass
class _Source:
    """The rows of a batch that are in the result.

    Attributes
    ----------
    rows : array or None
        Their numbers in the batch, in the order of the result; None where that is the order of the batch.
    places : array
        Their places in the result, ascending.
    fields : dict of str to str
        Field of the packed rows, by column.
    """

    batch: Batch
    rows: Array | None
    places: Array
    fields: dict[str, str]


class Gather:
    """Reads columns whose cells are of one size.

    Small columns are read together, large ones in windows of rows, so that memory stays bounded and no part is read
    more often than that takes.

    Parameters
    ----------
    placement : Placement
    fields : dict of str to Cells
        The columns of the parts, and ``__psyrun_key``.
    """

    def __init__(self, placement: Placement, fields: Mapping[str, Cells]):
        self._fields = dict(fields)
        self._n = placement.n_done
        self._sources = list(_sources(placement, self._fields))
        self._low = np.array([source.places[0] for source in self._sources], dtype=np.int64)
        self._high = np.array([source.places[-1] for source in self._sources], dtype=np.int64)
        self._together = self._groups()
        self._read_ahead: dict[str, Array] = {}

    def column(self, name: str) -> Gathered:
        """Return a column as a stream."""
        dtype, shape = self._fields[name]
        return Gathered(self, name, dtype, (self._n, *shape))

    def _groups(self) -> dict[str, list[str]]:
        """Return for each small column those that are read with it."""
        groups: dict[str, list[str]] = {}
        group: list[str] = []
        size = 0
        for name, (dtype, shape) in self._fields.items():
            own = self._n * dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            if own > _MOST_BYTES_TOGETHER:
                continue
            if size + own > _MOST_BYTES_TOGETHER:
                group, size = [], 0
            group.append(name)
            size += own
            groups[name] = group
        return groups

    def pieces(self, name: str) -> Iterator[Array]:
        """Yield the rows of a column."""
        if name in self._together:
            if name not in self._read_ahead:
                self._read_ahead = {}  # before there is more
                self._read_ahead = self._window(self._together[name], 0, self._n)
            yield self._read_ahead.pop(name)
            return
        dtype, shape = self._fields[name]
        rows = rows_per_piece(dtype, (self._n, *shape))
        for first in range(0, self._n, rows):
            yield self._window([name], first, min(first + rows, self._n))[name]

    def _window(self, names: list[str], first: int, stop: int) -> dict[str, Array]:
        """Return rows first..stop-1 of columns."""
        window = {name: np.empty((stop - first, *self._fields[name][1]), self._fields[name][0]) for name in names}
        touched = np.flatnonzero((self._high >= first) & (self._low < stop)).tolist()
        for _, group in groupby((self._sources[number] for number in touched), key=lambda s: id(s.batch.path)):
            sources = list(group)
            with opened(sources[0].batch.path) as file:
                for source in sources:
                    _put(window, source, file, first, stop)
        return window


def _sources(placement: Placement, names: Mapping[str, Cells]) -> Iterator[_Source]:
    """Yield what each batch gives to the result."""
    ranks: npt.NDArray[Any] | None = None
    if not placement.done.all():
        ranks = np.cumsum(placement.done, dtype=np.int32 if len(placement.done) < 2**31 else np.int64) - 1
    fields: dict[int, dict[str, str]] = {}
    for batch, items in placement.batches:
        own = fields.setdefault(id(batch.schema), {n: batch.field_of(n) or _SYSTEM.get(n, "") for n in names})
        if bool((items[1:] > items[:-1]).all()) and items[0] >= 0:
            rows, placed = None, items
        else:
            rows = np.argsort(items, kind="stable")
            rows = rows[np.searchsorted(items, 0, sorter=rows) :]
            placed = items[rows]
        yield _Source(batch, rows, placed if ranks is None else ranks[placed], own)


def _put(window: Mapping[str, Array], source: _Source, file: int, first: int, stop: int) -> None:
    """Read the rows of a batch that are in a window, and put them there."""
    begin, end = np.searchsorted(source.places, (first, stop)).tolist()
    if begin == end:
        return
    places: Any = source.places[begin:end] - first
    if places[-1] - places[0] == end - begin - 1:
        places = slice(int(places[0]), int(places[-1]) + 1)
    if source.rows is None:
        packed = source.batch.read(file, begin, end)
    else:
        rows = source.rows[begin:end]
        low = int(rows.min())
        packed = source.batch.read(file, low, int(rows.max()) + 1)[rows - low]
    for name, column in window.items():
        column[places] = packed[source.fields[name]]


@dataclass
class Gathered:
    """A column of a `Gather` as a stream."""

    gather: Gather
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def pieces(self) -> Iterator[Array]:
        """Yield the rows."""
        yield from self.gather.pieces(self.name)


class Numbers:
    """The numbers of the true values of a mask, as a stream.

    Parameters
    ----------
    mask : array of bool, shape (n,)
    """

    def __init__(self, mask: npt.NDArray[np.bool_]):
        self._mask = mask
        self.dtype: np.dtype[Any] = np.dtype(np.int64)
        self.shape: tuple[int, ...] = (int(np.count_nonzero(mask)),)

    def pieces(self) -> Iterator[Array]:
        """Yield the numbers."""
        rows = rows_per_piece(self.dtype, self._mask.shape)
        for first in range(0, max(1, len(self._mask)), rows):
            yield np.flatnonzero(self._mask[first : first + rows]) + first
