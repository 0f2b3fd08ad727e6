"""The part log: one append-only file a child process, with every finished and failed item in it.

A part is a sequence of framed records, each with a CRC32 over its place, header and payload. ``docs/formats.md`` has
the layout; `psyrun.scan` reads it.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psyrun.arrays import Array
from psyrun.cells import FIXED_KINDS, cell, fixed_cells, plain_dtype
from psyrun.errors import TemporaryError, UnsupportedValueError, trouble
from psyrun.files import write_all

FORMAT = 1
MAGIC = b"\xf0psy"
PART, SCHEMA, ROWS, FAIL, END, PEAK = range(1, 7)

# magic, kind of record, flags, number of the schema, crc32, rows, length of the payload
FRAME = struct.Struct("<4sBBHIIQ")
SYSTEM: list[Any] = [("key", "<u8", (2,)), ("index", "<i8"), ("start", "<f8"), ("duration", "<f8")]
VARIABLE = "var"
_SHAPES_OF_ONE_COLUMN = 3
_MOST_SCHEMAS = 2**16 - 1


@dataclass(frozen=True)
class Schema:
    """The columns of a row: (name, dtype, shape) where every row takes the same bytes, dtype 'var' elsewhere."""

    columns: tuple[tuple[str, str, tuple[int, ...]], ...]

    def dtype(self) -> np.dtype[Any]:
        """Return the packed dtype of a row; a variable column holds the end of its bytes in the batch's tail."""
        fields: list[Any] = list(SYSTEM)
        for i, (_, dtype, shape) in enumerate(self.columns):
            fields.append((f"c{i}", "<u8") if dtype == VARIABLE else (f"c{i}", dtype, shape))
        return np.dtype(fields)

    def cells(self, name: str) -> tuple[str, tuple[int, ...]] | None:
        """Return dtype and shape of the cells of a column, or None if the rows lack it."""
        return next(((dtype, shape) for own, dtype, shape in self.columns if own == name), None)

    def to_json(self) -> bytes:
        """Return the payload of a SCHEMA record."""
        return json.dumps({"columns": [[n, d, list(s)] for n, d, s in self.columns]}).encode()

    @classmethod
    def from_json(cls, payload: bytes) -> Schema:
        """Return the schema of a SCHEMA record; only dtypes of plain numbers and times are taken."""
        columns = [(str(n), str(d), tuple(map(int, s))) for n, d, s in json.loads(payload)["columns"]]
        for _, dtype, _ in columns:
            if dtype != VARIABLE:
                plain_dtype(dtype)
        return cls(tuple(columns))


@dataclass
class Failure:
    """One attempt at an item that raised; rung: of the ladders of resources that its job had."""

    key: tuple[int, int]
    index: int
    start: float
    duration: float
    type: str
    message: str
    where: str
    traceback: str
    rung: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return vars(self) | {"key": list(self.key)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Failure:
        """Return what `to_json` gave."""
        return cls(**{**content, "key": (int(content["key"][0]), int(content["key"][1]))})


def cause_of(kind: str, where: str, message: str) -> tuple[str, str]:
    """Return what failures of one cause have in common: exception and line, or its text but for numbers.

    >>> cause_of("ValueError", "model.py:3", "bad 7"), cause_of("UnsupportedValueError", "", "execute returned 7")
    (('ValueError', 'model.py:3'), ('UnsupportedValueError', 'execute returned #'))
    """
    return kind, where or re.sub(r"0x[0-9a-f]+|\d+", "#", message.partition("\n")[0])


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
        self._process = os.getpid()
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
        self._record(FAIL, json.dumps(failure.to_json()).encode("utf-8", "backslashreplace"))

    def end(self) -> None:
        """Write that no more will come."""
        self._record(END, b"")

    def peak(self, n_bytes: int) -> None:
        """Write how much memory the process used at most until now."""
        self._record(PEAK, json.dumps({"peak": n_bytes}).encode())

    def rows(
        self,
        system: Mapping[str, Array],
        outputs: Mapping[str, Sequence[Any]],
        given: Mapping[str, Array] | None = None,
    ) -> None:
        """Write finished items.

        Parameters
        ----------
        system : dict of arrays, each of n rows
            ``key`` (n, 2), ``index``, ``start`` (seconds since 1970) and ``duration`` (seconds).
        outputs : dict of sequences of n values
            What to record of the items, by column.
        given : dict of arrays, each of n rows, optional
            More columns, the parameters; they stand before those of the outputs.

        Raises
        ------
        UnsupportedValueError
            A value that the store cannot hold; nothing was written.
        TemporaryError
            The file cannot be written; it is not touched any more.
        """
        columns = {name: self._given(name, column) for name, column in (given or {}).items()}
        columns |= {name: self._column(name, values) for name, values in outputs.items()}
        schema = Schema(tuple(_cells_of(name, column) for name, column in columns.items()))
        packed = np.empty(len(system["index"]), dtype=schema.dtype())
        for name, data in system.items():
            packed[name] = data
        tail = _tail(packed, list(columns.values()))
        self._record(ROWS, packed.tobytes() + tail, self._number(schema), len(packed))

    def copy(self, schema: Schema, packed: Array, tail: bytes) -> None:
        """Write rows as they stand in another part, with the bytes of their variable cells."""
        self._record(ROWS, packed.tobytes() + tail, self._number(schema), len(packed))

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

    def _column(self, name: str, values: Sequence[Any]) -> Array | list[bytes]:
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
        if os.getpid() != self._process:
            raise TemporaryError("the part belongs to another process")
        try:
            if self._end < 0:
                self._end = os.fstat(self._descriptor).st_size
            crc = checksum(self._end, kind, 0, schema, rows, payload)
            frame = FRAME.pack(MAGIC, kind, 0, schema, crc, rows, len(payload))
            self._broken = True  # whatever ends the next line: nothing may follow a torn record
            write_all(self._descriptor, frame + payload)
        except OSError as error:
            raise trouble(self._path(), error, "the record cannot be written") from error
        self._end += len(frame) + len(payload)
        self._broken = False

    def _path(self) -> str:
        """Return the path of the part, where the system tells."""
        try:
            return str(Path(f"/proc/self/fd/{self._descriptor}").readlink())
        except OSError:
            return "the part"


def checksum(offset: int, kind: int, flags: int, schema: int, rows: int, payload: bytes | memoryview) -> int:
    """Return the CRC32 of a record; bytes that look like a record inside the payload of another fail it."""
    frame = FRAME.pack(MAGIC, kind, flags, schema, 0, rows, len(payload))
    return zlib.crc32(payload, zlib.crc32(frame, offset & 0xFFFFFFFF))


def _cells_of(name: str, column: Array | list[bytes]) -> tuple[str, str, tuple[int, ...]]:
    """Return what a schema says of a column."""
    return (name, VARIABLE, ()) if isinstance(column, list) else (name, column.dtype.str, column.shape[1:])


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
