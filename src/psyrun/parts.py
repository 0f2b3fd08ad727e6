"""The part log: one append-only file a child process, with every finished and failed item in it.

A part is a sequence of framed records, each with a CRC32 over its place, header and payload. A torn tail (the writer
was killed) is dropped; damage inside is skipped up to the next whole record, and reported. ``docs/formats.md`` has the
layout.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array
from psyrun.cells import FIXED_KINDS, cell, fixed_cells, plain_dtype, value_of
from psyrun.errors import TemporaryError, UnsupportedValueError
from psyrun.files import write_all
from psyrun.keys import Lanes

FORMAT = 1
MAGIC = b"\xf0psy"
PART, SCHEMA, ROWS, FAIL, END = range(1, 6)

# magic, kind of record, flags, number of the schema, crc32, rows, length of the payload
_FRAME = struct.Struct("<4sBBHIIQ")
_SYSTEM: list[Any] = [("key", "<u8", (2,)), ("index", "<i8"), ("start", "<f8"), ("duration", "<f8")]
_VARIABLE = "var"
_SHAPES_OF_ONE_COLUMN = 3
_MOST_SCHEMAS = 2**16 - 1


@dataclass(frozen=True)
class Schema:
    """The columns of a row: (name, dtype, shape) where every row takes the same bytes, dtype 'var' elsewhere."""

    columns: tuple[tuple[str, str, tuple[int, ...]], ...]

    def dtype(self) -> np.dtype[Any]:
        """Return the packed dtype of a row; a variable column holds the end of its bytes in the batch's tail."""
        fields: list[Any] = list(_SYSTEM)
        for i, (_, dtype, shape) in enumerate(self.columns):
            fields.append((f"c{i}", "<u8") if dtype == _VARIABLE else (f"c{i}", dtype, shape))
        return np.dtype(fields)

    def to_json(self) -> bytes:
        """Return the payload of a SCHEMA record."""
        return json.dumps({"columns": [[n, d, list(s)] for n, d, s in self.columns]}).encode()

    @classmethod
    def from_json(cls, payload: bytes) -> Schema:
        """Return the schema of a SCHEMA record; only dtypes of plain numbers and times are taken."""
        columns = [(str(n), str(d), tuple(map(int, s))) for n, d, s in json.loads(payload)["columns"]]
        for _, dtype, _ in columns:
            if dtype != _VARIABLE:
                plain_dtype(dtype)
        return cls(tuple(columns))


@dataclass
class Failure:
    """One attempt at an item that raised."""

    key: tuple[int, int]
    index: int
    start: float
    duration: float
    type: str
    message: str
    where: str
    traceback: str


class Writer:
    """Appends records to a part.

    Parameters
    ----------
    descriptor : int
        The open file; this process is its only writer.
    objects_ok : bool
        Whether values of any type may be pickled, as the task's store asks for.
    """

    def __init__(self, descriptor: int, objects_ok: bool = False):
        self._descriptor = descriptor
        self._objects_ok = objects_ok
        self._schemas: dict[Schema, int] = {}
        self._shapes: dict[str, set[tuple[int, ...]]] = {}
        self._end = -1
        self._broken = False

    def header(self, content: Mapping[str, Any]) -> None:
        """Write the first record: whose part this is, and of what plan."""
        self._record(PART, json.dumps({"format": FORMAT, **content}).encode())

    def fail(self, failure: Failure) -> None:
        """Write that an item raised."""
        self._record(FAIL, json.dumps(vars(failure)).encode("utf-8", "backslashreplace"))

    def end(self) -> None:
        """Write that no more will come."""
        self._record(END, b"")

    def rows(
        self,
        system: Mapping[str, Array],
        outputs: Sequence[Mapping[str, Any]],
        given: Mapping[str, Array] | None = None,
    ) -> None:
        """Write finished items.

        Parameters
        ----------
        system : dict of arrays, each of n rows
            ``key`` (n, 2), ``index``, ``start`` (seconds since 1970) and ``duration`` (seconds).
        outputs : sequence of n dicts
            What to record of each item.
        given : dict of arrays, each of n rows, optional
            More columns, the parameters; they stand before those of the outputs.

        Raises
        ------
        UnsupportedValueError
            A value that the store cannot hold; nothing was written.
        TemporaryError
            The file cannot be written; it is not touched any more.
        """
        batches = []
        first = 0
        for _, run in groupby(outputs, key=tuple):
            batch = list(run)
            last = first + len(batch)
            part_of_system = {name: column[first:last] for name, column in system.items()}
            part_of_given = {name: column[first:last] for name, column in (given or {}).items()}
            batches.append(self._packed(part_of_system, batch, part_of_given))
            first = last
        for schema, payload, n_rows in batches:
            self._record(ROWS, payload, self._number(schema), n_rows)

    def _packed(
        self, system: Mapping[str, Array], outputs: Sequence[Mapping[str, Any]], given: Mapping[str, Array]
    ) -> tuple[Schema, bytes, int]:
        columns: list[tuple[str, str, tuple[int, ...]]] = []
        values: list[Array | list[bytes]] = []
        for name in [*given, *outputs[0]]:
            column = self._given(name, given[name]) if name in given else self._column(name, [r[name] for r in outputs])
            if isinstance(column, list):
                columns.append((name, _VARIABLE, ()))
            else:
                columns.append((name, column.dtype.str, column.shape[1:]))
            values.append(column)
        schema = Schema(tuple(columns))
        packed = np.empty(len(outputs), dtype=schema.dtype())
        for name, data in system.items():
            packed[name] = data
        tail = _tail(packed, values)
        return schema, packed.tobytes() + tail, len(outputs)

    def _number(self, schema: Schema) -> int:
        if schema not in self._schemas:
            number = len(self._schemas)
            if number > _MOST_SCHEMAS:
                raise UnsupportedValueError("execute returns too many kinds of dicts for one part")
            self._record(SCHEMA, schema.to_json(), number)
            self._schemas[schema] = number
        return self._schemas[schema]

    def _given(self, name: str, column: Array) -> Array | list[bytes]:
        if column.dtype.kind in FIXED_KINDS and column.size:
            return column.astype(column.dtype.newbyteorder("<"), copy=False)
        return self._column(name, list(column))

    def _column(self, name: str, values: list[Any]) -> Array | list[bytes]:
        """Return an array of fixed-size cells, or the bytes of each cell."""
        fixed = fixed_cells(values)
        if fixed is not None:
            shapes = self._shapes.setdefault(name, set())
            shapes.add(fixed.shape[1:])
            if len(shapes) <= _SHAPES_OF_ONE_COLUMN:
                return fixed
        return [cell(name, value, self._objects_ok) for value in values]

    def _record(self, kind: int, payload: bytes, schema: int = 0, rows: int = 0) -> None:
        if self._broken:
            raise TemporaryError("the part could not be written before")
        try:
            if self._end < 0:
                self._end = os.fstat(self._descriptor).st_size
            crc = _checksum(self._end, kind, 0, schema, rows, payload)
            frame = _FRAME.pack(MAGIC, kind, 0, schema, crc, rows, len(payload))
            self._broken = True  # whatever ends the next line: nothing may follow a torn record
            write_all(self._descriptor, frame + payload)
        except OSError as error:
            raise TemporaryError(f"the record cannot be written: {error.strerror}") from error
        self._end += len(frame) + len(payload)
        self._broken = False


def _checksum(offset: int, kind: int, flags: int, schema: int, rows: int, payload: bytes) -> int:
    """Return the CRC32 of a record; bytes that look like a record inside the payload of another fail it."""
    frame = _FRAME.pack(MAGIC, kind, flags, schema, 0, rows, len(payload))
    return zlib.crc32(payload, zlib.crc32(frame, offset & 0xFFFFFFFF))


def _tail(packed: Array, values: Sequence[Array | list[bytes]]) -> bytes:
    """Fill the columns of a batch; return the bytes of its variable cells, row by row."""
    cells = [(i, column) for i, column in enumerate(values) if isinstance(column, list)]
    for i, column in enumerate(values):
        if not isinstance(column, list):
            packed[f"c{i}"] = column
    if not cells:
        return b""
    rows = list(zip(*(column for _, column in cells), strict=True))
    sizes = np.array([[len(c) for c in row] for row in rows], dtype=np.uint64)
    ends = np.cumsum(sizes.reshape(-1)).reshape(sizes.shape)
    for column_number, (i, _) in enumerate(cells):
        packed[f"c{i}"] = ends[:, column_number]
    return b"".join(c for row in rows for c in row)


@dataclass
class Batch:
    """Rows of one ROWS record: a packed array and the bytes of the variable cells."""

    schema: Schema
    rows: Array
    tail: bytes
    offset: int

    def column(self, name: str, objects_ok: bool = False) -> Array | list[Any] | None:
        """Return the values of a column, or None if these rows lack it."""
        for i, (own, dtype, _) in enumerate(self.schema.columns):
            if own == name:
                data: Array = self.rows[f"c{i}"]
                return self._cells(i, objects_ok) if dtype == _VARIABLE else data
        return None

    def _cells(self, i: int, objects_ok: bool) -> list[Any]:
        variable = [j for j, (_, dtype, _) in enumerate(self.schema.columns) if dtype == _VARIABLE]
        ends = self.rows[f"c{i}"].tolist()
        if variable[0] == i:
            starts = [0, *self.rows[f"c{variable[-1]}"].tolist()[:-1]]
        else:
            starts = self.rows[f"c{variable[variable.index(i) - 1]}"].tolist()
        return [value_of(self.tail[a:b], objects_ok) for a, b in zip(starts, ends, strict=True)]


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
    """

    name: str
    header: dict[str, Any] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    damage: list[tuple[int, int]] = field(default_factory=list)
    size: int = 0
    file_size: int = 0

    def joined(self, name: str) -> Array:
        """Return a system column (key, index, start, duration) of all rows."""
        if self.batches:
            return np.concatenate([b.rows[name] for b in self.batches])
        return np.empty(0, dtype=np.dtype(_SYSTEM))[name]

    @property
    def keys(self) -> Lanes:
        """The keys of all rows, shape (n, 2)."""
        return self.joined("key")

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """The indices of all rows in the space that the header names."""
        return self.joined("index")


def read(path: Path) -> Part:
    """Read a part, as far as it is whole. The writer may be at work."""
    data = path.read_bytes()
    part = Part(path.name, file_size=len(data))
    schemas: dict[int, Schema] = {}
    for kind, number, rows, payload, offset in _records(data, part):
        try:
            if kind == PART:
                part.header = json.loads(payload)
            elif kind == SCHEMA:
                schemas[number] = Schema.from_json(payload)
            elif kind == ROWS:
                schema = schemas[number]
                dtype = schema.dtype()
                packed = np.frombuffer(payload, dtype=dtype, count=rows)
                part.batches.append(Batch(schema, packed, payload[rows * dtype.itemsize :], offset))
            elif kind == FAIL:
                content = json.loads(payload)
                part.failures.append(Failure(**content | {"key": tuple(content["key"])}))
        except (KeyError, ValueError, TypeError):
            part.damage.append((offset, offset + len(payload)))
    if part.header.get("format") != FORMAT:
        part.header, part.batches, part.failures = {}, [], []
    return part


def _records(data: bytes, part: Part) -> Iterator[tuple[int, int, int, bytes, int]]:
    """Yield kind, schema number, rows, payload and offset of each whole record; note damage and size."""
    at = 0
    while at < len(data):
        record = _record_at(data, at)
        if record is None:
            found = at + 1
            while (found := data.find(MAGIC, found)) >= 0 and _record_at(data, found) is None:
                found += 1
            if found < 0:
                return
            part.damage.append((at, found))
            at = found
            continue
        kind, schema, rows, payload = record
        yield kind, schema, rows, payload, at
        at += _FRAME.size + len(payload)
        part.size = at


def _record_at(data: bytes, at: int) -> tuple[int, int, int, bytes] | None:
    if len(data) - at < _FRAME.size:
        return None
    magic, kind, flags, schema, crc, rows, length = _FRAME.unpack_from(data, at)
    start = at + _FRAME.size
    if magic != MAGIC or length > len(data) - start:
        return None
    payload = data[start : start + length]
    if _checksum(at, kind, flags, schema, rows, payload) != crc:
        return None
    return kind, schema, rows, payload
