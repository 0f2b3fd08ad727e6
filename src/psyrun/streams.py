"""Columns whose rows come in pieces, so that a result need not fit into memory to be written or verified."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from psyrun.arrays import Array

if TYPE_CHECKING:
    from typing_extensions import TypeIs

PIECE_BYTES = 2**23
"""About how many bytes of a column are held at a time."""


class Stream(Protocol):
    """A column in pieces: arrays of rows, in order, as often as they are asked for."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def pieces(self) -> Iterator[Array]:
        """Yield arrays of this dtype; together they have this shape."""


Column = Array | Stream


def is_stream(column: object) -> TypeIs[Stream]:
    """Whether something is a column in pieces."""
    return hasattr(column, "pieces")


def pieces_of(column: Column) -> Iterator[Array]:
    """Yield the rows of a column in pieces; an array is one."""
    if is_stream(column):
        yield from column.pieces()
    else:
        yield np.asarray(column)


def whole(column: Column) -> Array:
    """Return a column as one array."""
    pieces = list(pieces_of(column))
    if len(pieces) == 1 and pieces[0].shape == column.shape:
        return pieces[0]
    result = np.empty(column.shape, column.dtype)
    return np.concatenate(pieces, out=result) if pieces else result


def rows_per_piece(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return how many rows of a column of n rows, shape (n, ...), make a piece.

    >>> rows_per_piece(np.dtype('f8'), (10**9, 16))
    65536
    """
    row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    return max(1, PIECE_BYTES // max(1, row))


def raw(array: Array) -> memoryview:
    """Return the bytes of an array, without a copy where they are in order."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data if flat.nbytes else memoryview(b"")


@dataclass
class Summary:
    """What tells a column from another: the kind and number of its rows, and a checksum of their values."""

    row: tuple[str, tuple[int, ...]] | None = None
    n_rows: int = 0
    checksum: int = 0

    def add(self, piece: Array) -> None:
        """Take in the next rows."""
        self.row = (piece.dtype.newbyteorder("=").str, piece.shape[1:])
        self.n_rows += len(piece) if piece.ndim else 1
        self.checksum = _checksum(piece, self.checksum)


class Watched:
    """A column that summarises what passes through.

    Parameters
    ----------
    column : array or Stream
    """

    def __init__(self, column: Column):
        self._column = column
        self.dtype: np.dtype[Any] = column.dtype
        self.shape: tuple[int, ...] = column.shape
        self.summary = Summary()

    def pieces(self) -> Iterator[Array]:
        """Yield the pieces; the summary begins anew."""
        self.summary = Summary()
        for piece in pieces_of(self._column):
            self.summary.add(piece)
            yield piece


def _checksum(array: Array, before: int) -> int:
    """Return the CRC32 of values, going on from that of the rows before.

    Byte order does not count. Of extended floats only what a double holds counts: their padding is arbitrary. Of
    objects nothing counts.
    """
    if array.dtype.hasobject:
        return before
    if array.dtype.char in "gG":
        with np.errstate(all="ignore"):
            array = array.astype(np.complex128 if array.dtype.char == "G" else np.float64)
    return zlib.crc32(raw(array.astype(array.dtype.newbyteorder("<"), copy=False)), before)
