"""Reading parts: an index of what a part holds, and its rows on demand.

Parts are read in pieces and never mapped: a file that shrinks or goes away under a reader is an error, not a signal.
A torn tail (the writer was killed) is dropped; damage inside is skipped up to the next whole record, and reported.
"""

from __future__ import annotations

import json
import operator
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array
from psyrun.cells import value_of
from psyrun.errors import TemporaryError
from psyrun.keys import Lanes
from psyrun.parts import (
    FAIL,
    FORMAT,
    FRAME,
    MAGIC,
    PART,
    PEAK,
    ROWS,
    SCHEMA,
    SYSTEM,
    VARIABLE,
    Failure,
    Schema,
    checksum,
)

_WINDOW = 2**20
_INDEX_OF_ROW = struct.Struct("<q")


@dataclass
class Batch:
    """Where rows of one schema stand in a part: those of one record, or single rows of records in a row.

    Attributes
    ----------
    offset : int
        Of the first record.
    start, stride : int
        Bytes to the first row, and from row to row.
    n_rows : int
    tail : (int, int)
        Place and length of the variable cells.
    indices : array of int64, shape (n_rows,)
        Of the rows in the space that the part's header names.
    """

    path: Path
    schema: Schema
    dtype: np.dtype[Any]
    offset: int
    start: int
    stride: int
    n_rows: int
    tail: tuple[int, int]
    indices: npt.NDArray[np.int64]

    @property
    def rows(self) -> Array:
        """All rows, as a packed array."""
        with opened(self.path) as file:
            return self.read(file, 0, self.n_rows)

    def read(self, file: int, first: int, stop: int) -> Array:
        """Return rows first..stop-1 of an open part as a packed array."""
        size = (stop - first - 1) * self.stride + self.dtype.itemsize
        content = _exactly(file, self.path, size, self.start + first * self.stride)
        return np.ndarray((stop - first,), self.dtype, content, strides=(self.stride,))

    def cut(self, offset: int) -> list[Batch]:
        """Return the rows whose records begin before an offset, and the others, as far as there are any."""
        n = -(-(offset - self.offset) // self.stride) if self.n_rows > 1 else self.n_rows
        if self.start - self.offset + self.dtype.itemsize != self.stride or not 0 < n < self.n_rows:
            return [self]
        first = replace(self, n_rows=n, indices=self.indices[:n])
        at, start = self.offset + n * self.stride, self.start + n * self.stride
        return [first, replace(self, offset=at, start=start, n_rows=self.n_rows - n, indices=self.indices[n:])]

    def field_of(self, name: str) -> str | None:
        """Return the field of the packed rows that holds a column, or None if these rows lack it."""
        return next((f"c{i}" for i, (own, _, _) in enumerate(self.schema.columns) if own == name), None)

    def column(self, name: str, objects_ok: bool = False) -> Array | list[Any] | None:
        """Return the values of a column, or None if these rows lack it."""
        for i, (own, dtype, _) in enumerate(self.schema.columns):
            if own == name:
                data: Array = self.rows[f"c{i}"]
                return self._cells(i, objects_ok) if dtype == VARIABLE else data
        return None

    def kept(self, mask: npt.NDArray[np.bool_]) -> tuple[Array, bytes]:
        """Return some of the rows as a record holds them: packed, and the bytes of their variable cells."""
        with opened(self.path) as file:
            rows = self.read(file, 0, self.n_rows)
            tail = _exactly(file, self.path, self.tail[1], self.tail[0])
        packed = rows[mask].copy()
        variable = [f"c{i}" for i, (_, dtype, _) in enumerate(self.schema.columns) if dtype == VARIABLE]
        if not variable:
            return packed, b""
        ends = rows[variable[-1]]
        starts = np.concatenate([np.zeros(1, ends.dtype), ends[:-1]])
        sizes = (ends - starts)[mask]
        moved = starts[mask] - (np.cumsum(sizes) - sizes)
        for name in variable:
            packed[name] -= moved
        return packed, b"".join(tail[a:b] for a, b in zip(starts[mask].tolist(), ends[mask].tolist(), strict=True))

    def _cells(self, i: int, objects_ok: bool) -> list[Any]:
        variable = [j for j, (_, dtype, _) in enumerate(self.schema.columns) if dtype == VARIABLE]
        with opened(self.path) as file:
            rows = self.read(file, 0, self.n_rows)
            tail = _exactly(file, self.path, self.tail[1], self.tail[0])
        ends = rows[f"c{i}"].tolist()
        if variable[0] == i:
            starts = [0, *rows[f"c{variable[-1]}"].tolist()[:-1]]
        else:
            starts = rows[f"c{variable[variable.index(i) - 1]}"].tolist()
        return [value_of(tail[a:b], objects_ok) for a, b in zip(starts, ends, strict=True)]


@dataclass
class Part:
    """What a part file holds.

    Attributes
    ----------
    name : str
    header : dict
        Worker, host, plan, space and code digests; empty if it is not readable, and then nothing else counts.
    size, file_size : int
        Bytes up to the end of the last whole record, and in all.
    damage : list of (int, int)
        Ranges of bytes inside that are no records.
    schemas : dict of int to (Schema, dtype)
        Those seen so far, by number.
    peak : int
        Bytes of memory that the writer used at most, as far as it was noted; 0 if it was not.
    """

    name: str
    header: dict[str, Any] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    damage: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0
    file_size: int = 0
    schemas: dict[int, tuple[Schema, np.dtype[Any]]] = field(default_factory=dict)
    peak: int = 0

    def joined(self, name: str) -> Array:
        """Return a system column (key, index, start, duration) of all rows."""
        columns = [np.empty(0, dtype=np.dtype(SYSTEM))[name]]
        if self.batches:
            with opened(self.batches[0].path) as file:
                columns += [b.read(file, 0, b.n_rows)[name] for b in self.batches]
        return np.concatenate(columns)

    @property
    def keys(self) -> Lanes:
        """The keys of all rows, shape (n, 2)."""
        return self.joined("key")

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """The indices of all rows in the space that the header names."""
        return np.concatenate([np.empty(0, np.int64), *(b.indices for b in self.batches)])


class opened:  # noqa: N801 - a context manager
    """An open file, closed at the end."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> int:
        self._file = os.open(self._path, os.O_RDONLY)
        return self._file

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)


def _exactly(file: int, path: Path, size: int, offset: int) -> bytes:
    content = os.pread(file, size, offset)
    if len(content) != size:
        raise TemporaryError(f"{path}: became shorter while it was read. Type the command again")
    return content


class _Record(NamedTuple):
    kind: int
    schema: int
    rows: int
    payload: memoryview
    offset: int


class _Records:
    """The whole records of an open part; notes in the Part what it skips."""

    def __init__(self, file: int, part: Part):
        self._file = file
        self._part = part
        self._window = memoryview(b"")
        self._begin = 0

    def __iter__(self) -> Iterator[_Record]:
        part, at = self._part, self._part.size
        while at < part.file_size:
            record = self._at(at)
            if record is None:
                found = self._next(at + 1)
                if found is None:
                    return
                part.damage.append((at, found.offset))
                record = found
            at = record.offset + FRAME.size + len(record.payload)
            part.size = at
            yield record

    def _bytes(self, offset: int, size: int) -> memoryview:
        """Return bytes of the file; fewer at its end."""
        start = offset - self._begin
        if start < 0 or start + size > len(self._window):
            wanted = min(max(size, _WINDOW), self._part.file_size - offset)
            self._window = memoryview(os.pread(self._file, wanted, offset))
            self._begin, start = offset, 0
        return self._window[start : start + size]

    def _at(self, at: int) -> _Record | None:
        """Return the record that begins at a byte, if one does."""
        head = self._bytes(at, FRAME.size)
        if len(head) < FRAME.size:
            return None
        magic, kind, flags, schema, crc, rows, length = FRAME.unpack(head)
        start = at + FRAME.size
        if magic != MAGIC or length > self._part.file_size - start:
            return None
        payload = self._bytes(start, length)
        if len(payload) < length or checksum(at, kind, flags, schema, rows, payload) != crc:
            return None
        return _Record(kind, schema, rows, payload, at)

    def _next(self, at: int) -> _Record | None:
        """Return the first record that begins at a byte or later."""
        while at < self._part.file_size:
            window = bytes(self._bytes(at, _WINDOW))
            found = window.find(MAGIC)
            while found >= 0:
                record = self._at(at + found)
                if record is not None:
                    return record
                found = window.find(MAGIC, found + 1)
            at += max(1, len(window) - len(MAGIC) + 1)
        return None


class _Batches:
    """Takes in ROWS records; single rows that follow one another become one batch."""

    def __init__(self, path: Path, found: list[Batch]):
        self._path = path
        self._found = found
        self._singles: list[int] = []

    def add(self, record: _Record, schema: Schema, dtype: np.dtype[Any]) -> None:
        start = record.offset + FRAME.size
        size = record.rows * dtype.itemsize
        if size > len(record.payload):
            raise ValueError("a record of fewer rows than it tells of")
        if self._continues(record, schema, dtype):
            self._singles += self._index_of(record)
            return
        self.close()
        indices = np.ndarray((record.rows,), dtype, record.payload)["index"].copy()
        tail = start + size, len(record.payload) - size
        stride = dtype.itemsize if record.rows > 1 else FRAME.size + dtype.itemsize
        self._found.append(
            Batch(self._path, schema, dtype, record.offset, start, stride, record.rows, tail, indices),
        )
        if record.rows == 1 and not tail[1]:
            self._singles = indices.tolist()

    def _continues(self, record: _Record, schema: Schema, dtype: np.dtype[Any]) -> bool:
        n = len(self._singles)
        if not n or record.rows != 1 or len(record.payload) != dtype.itemsize or n * len(record.payload) > _WINDOW:
            return False
        last = self._found[-1]
        return last.schema is schema and last.offset + n * last.stride == record.offset

    def _index_of(self, record: _Record) -> tuple[int, ...]:
        return _INDEX_OF_ROW.unpack_from(record.payload, 16)

    def close(self) -> None:
        """Put the indices of single rows into their batch."""
        if len(self._singles) > 1:
            batch = self._found[-1]
            batch.n_rows = len(self._singles)
            batch.indices = np.array(self._singles, dtype=np.int64)
        self._singles = []


def read(path: Path, before: Part | None = None) -> Part:
    """Read a part, as far as it is whole. The writer may be at work.

    Parameters
    ----------
    path : Path
    before : Part, optional
        What was read of it before: then only what came after that is read, and returned.
    """
    with opened(path) as file:
        part = Part(path.name, file_size=os.fstat(file).st_size)
        if before is not None:
            part.header, part.size, part.schemas = before.header, before.size, before.schemas
        schemas = part.schemas
        batches = _Batches(path, part.batches)
        for record in _Records(file, part):
            try:
                if record.kind == PART:
                    part.header = json.loads(bytes(record.payload))
                elif record.kind == SCHEMA:
                    schema = Schema.from_json(bytes(record.payload))
                    schemas[record.schema] = schema, schema.dtype()
                elif record.kind == ROWS:
                    batches.add(record, *schemas[record.schema])
                elif record.kind == FAIL:
                    part.failures.append(Failure.from_json(json.loads(bytes(record.payload))))
                elif record.kind == PEAK:
                    part.peak = max(part.peak, operator.index(json.loads(bytes(record.payload))["peak"]))
            except (KeyError, IndexError, ValueError, TypeError):
                part.damage.append((record.offset, record.offset + len(record.payload)))
        batches.close()
    if part.header.get("format") != FORMAT:
        part.header, part.batches, part.failures = {}, [], []
    return part
