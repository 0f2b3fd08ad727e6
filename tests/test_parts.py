"""Parts: whatever happens to the file, rows are read as they were written, or not at all."""

from __future__ import annotations

import enum
import errno
import json
import os
import shutil
import struct
import tempfile
import threading
import tracemalloc
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from psyrun import cells, scan
from psyrun.arrays import exact_array
from psyrun.errors import TemporaryError, UnsupportedValueError
from psyrun.parts import Failure, Writer
from psyrun.scan import Part
from rows import write_rows

Row = dict[str, Any]

HEADER = {"worker": "0123456789abcdef", "plan": "0001", "code": "c", "space": "s"}


# A part, and what is in it


@contextmanager
def directory() -> Iterator[Path]:
    """A directory for one example."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@contextmanager
def writer(path: Path, objects_ok: bool = False) -> Iterator[Writer]:
    """A new part, its header written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    try:
        new = Writer(descriptor, objects_ok)
        new.header(HEADER)
        yield new
    finally:
        os.close(descriptor)


def system(first: int, n: int) -> dict[str, Any]:
    """What is recorded with rows first..first+n-1."""
    index = np.arange(first, first + n)
    keys = np.stack([index * 7, index * 11], axis=1).astype(np.uint64)
    return {"key": keys, "index": index, "start": index + 0.5, "duration": index / 8}


def add(log: Writer, first: int, rows: Sequence[Row]) -> None:
    """Write rows first, first+1 and so on."""
    write_rows(log, system(first, len(rows)), rows)


def write(path: Path, batches: Sequence[Sequence[Row]], objects_ok: bool = False) -> None:
    """Write a whole part."""
    with writer(path, objects_ok) as log:
        first = 0
        for rows in batches:
            add(log, first, rows)
            first += len(rows)
        log.end()


def rows_of(part: Part, objects_ok: bool = False) -> list[tuple[int, Row]]:
    """Return the index and the outputs of every row."""
    found: list[tuple[int, Row]] = []
    for batch in part.batches:
        columns = {name: batch.column(name, objects_ok) for name, _, _ in batch.schema.columns}
        for i, index in enumerate(batch.rows["index"].tolist()):
            found.append((index, {n: c[i] for n, c in columns.items() if c is not None}))
    return found


def same(written: Any, found: Any) -> bool:
    """Whether a value came back as it was; lists come back as arrays."""
    for kind in (str, bytes, type(None)):
        if isinstance(written, kind):
            return type(found) is kind and bool(found == written)
    a = exact_array(list(written)) if isinstance(written, (list, tuple)) else np.asarray(written)
    b = np.asarray(found)
    a = a.astype(a.dtype.newbyteorder("<"))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def same_rows(written: Sequence[Row], found: Sequence[tuple[int, Row]]) -> bool:
    """Whether each row that was found is the one that was written with its index."""
    return all(
        list(row) == list(written[i]) and all(same(value, row[name]) for name, value in written[i].items())
        for i, row in found
    )


# Values

DTYPES = ["?", "i1", "<i4", ">i4", "<i8", "<u8", "<f2", "<f4", "<f8", ">f8", "<c8", "<c16", "<M8[ns]", "<m8[s]"]
NUMPY_SCALARS = st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(np.dtype(d), ())).map(lambda a: a[()])
TEXT = st.text(st.characters(), max_size=5)
FIXED_ARRAYS = st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(np.dtype(d), (2, 3)))
RAGGED_ARRAYS = st.sampled_from([*DTYPES, "<U3", "S3"]).flatmap(
    lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=3))
)
LISTS = st.one_of(
    st.lists(st.floats(), max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    st.lists(st.booleans(), min_size=1, max_size=3),
    st.lists(st.text("ab", max_size=2), min_size=1, max_size=3),
    st.lists(st.tuples(st.floats(), st.floats()), min_size=1, max_size=3),
)
KINDS = [
    st.floats(),
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.complex_numbers(),
    NUMPY_SCALARS,
    FIXED_ARRAYS,
    RAGGED_ARRAYS,
    TEXT,
    TEXT.map(np.str_),
    st.binary(max_size=5),
    st.none(),
    LISTS,
]
VALUES = st.one_of(KINDS)
NAMES = st.sampled_from(["x", "y", "ключ", "a\0b", "\ud800", ""])
COLUMN_KINDS = st.one_of(st.sampled_from(KINDS), st.just(VALUES))
REGULAR_ROWS = st.dictionaries(NAMES, COLUMN_KINDS, max_size=4).flatmap(
    lambda columns: st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=6)
)
CHANGING_ROWS = st.lists(st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=6)
BATCHES = st.lists(REGULAR_ROWS | CHANGING_ROWS, max_size=4)

SAMPLE: list[Row] = [
    {"x": 1, "y": 2.5, "name": "a", "z": np.arange(3)},
    {"x": 2, "y": 3.5, "name": "b\0", "z": np.arange(2)},
    {"x": 3, "other": b"\xf0psy", "none": None},
]


# Laws


@given(BATCHES)
def test_rows_come_back_as_they_were_written(batches: list[list[Row]]) -> None:
    """Values, types, names and order; keys, indices and times with them."""
    written = [row for rows in batches for row in rows]
    with directory() as path:
        write(path / "part", batches)
        part = scan.read(path / "part")
        found = rows_of(part)
        assert [i for i, _ in found] == list(range(len(written)))
        assert same_rows(written, found)
        for name, values in system(0, len(written)).items():
            assert np.array_equal(part.joined(name), values)
    assert part.header == {"format": 1, **HEADER}
    assert (part.damage, part.size) == ([], part.file_size)


PARAMETERS = st.fixed_dictionaries({}, optional={n: st.sampled_from(KINDS) for n in ("p", "q", "r")})


@given(st.lists(CHANGING_ROWS, max_size=3), st.data())
def test_parameters_come_as_columns(batches: list[list[Row]], data: st.DataObject) -> None:
    """They stand before the outputs of their rows, and are recorded as the outputs are."""
    kinds = data.draw(PARAMETERS)
    written = []
    first = 0
    with directory() as path:
        with writer(path / "part") as log:
            for rows in batches:
                columns = {name: [data.draw(kind) for _ in rows] for name, kind in kinds.items()}
                given_ = {name: exact_array(column) for name, column in columns.items()}
                write_rows(log, system(first, len(rows)), rows, given_)
                first += len(rows)
                for i, row in enumerate(rows):
                    written.append({name: column[i] for name, column in columns.items()} | row)
        found = rows_of(scan.read(path / "part"))
    assert [i for i, _ in found] == list(range(len(written)))
    assert all(list(row) == list(written[i]) for i, row in found)
    for i, row in found:
        for name, value in written[i].items():
            assert same(value, row[name]) if name not in kinds else equal(value, row[name])


def equal(written: Any, found: Any) -> bool:
    """Whether a value is the same in the dtype of its column."""
    a, b = exact_array([written]), exact_array([found])
    if a.dtype == object or b.dtype == object:
        return bool(written == found)
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind in "fcMm")


OBJECTS = st.one_of(
    st.sets(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.floats(allow_nan=False), max_size=2),
    st.integers(2**64, 2**70),
    st.fractions(),
    st.lists(st.one_of(st.integers(), st.text(min_size=1)), min_size=2, max_size=4).filter(
        lambda v: len(set(map(type, v))) == 2
    ),
)


@given(st.lists(st.fixed_dictionaries({"o": OBJECTS, "v": VALUES}), min_size=1, max_size=5))
def test_any_object_comes_back_where_the_store_holds_objects(rows: list[Row]) -> None:
    """Equal and of the same type, beside values of the usual kinds."""
    with directory() as path:
        write(path / "part", [rows], objects_ok=True)
        found = rows_of(scan.read(path / "part"), objects_ok=True)
    assert len(found) == len(rows)
    for written, (_, row) in zip(rows, found, strict=True):
        assert (type(row["o"]), row["o"]) == (type(written["o"]), written["o"])
        assert same(written["v"], row["v"])


@given(OBJECTS)
def test_an_object_is_refused_elsewhere_and_nothing_is_written(value: Any) -> None:
    """The message names the column and the way out."""
    with directory() as path, writer(path / "part") as log:
        before = (path / "part").read_bytes()
        with pytest.raises(UnsupportedValueError, match=r"(?s)^'o' is .*PickleStore"):
            add(log, 0, [{"o": 1}, {"o": value}])
        assert (path / "part").read_bytes() == before
        add(log, 0, [{"x": 1}])
        assert rows_of(scan.read(path / "part")) == [(0, {"x": 1})]


@settings(max_examples=settings().max_examples // 6)
@given(BATCHES)
def test_a_part_cut_at_any_byte_is_a_prefix_of_its_rows(batches: list[list[Row]]) -> None:
    """Nothing but the cut record is lost, and it is no damage: a killed writer leaves such a tail."""
    written = [row for rows in batches for row in rows]
    with directory() as path:
        write(path / "part", batches)
        last = len(written)
        for length in reversed(range((path / "part").stat().st_size)):
            os.truncate(path / "part", length)
            part = scan.read(path / "part")
            found = rows_of(part)
            assert [i for i, _ in found] == list(range(len(found)))
            assert same_rows(written, found)
            assert len(found) <= last
            assert part.damage == []
            assert part.size <= part.file_size == length
            last = len(found)
        assert last == 0


def test_no_flipped_bit_gives_a_wrong_row() -> None:
    """What is left is as it was written, and that something is gone can be seen."""
    with directory() as path:
        write(path / "inner", [SAMPLE[:1]])
        rows: list[Row] = [*SAMPLE, {"x": (path / "inner").read_bytes()}]  # bytes that look like records
        write(path / "part", [[row] for row in rows])
        whole = (path / "part").read_bytes()
        with (path / "part").open("r+b", buffering=0) as file:
            for at in range(len(whole)):
                for bit in (0, 3, 7):
                    os.pwrite(file.fileno(), bytes([whole[at] ^ 1 << bit]), at)
                    part = scan.read(path / "part")
                    found = rows_of(part)
                    assert len({i for i, _ in found}) == len(found)
                    assert same_rows(rows, found)
                    assert part.damage or part.size < part.file_size
                os.pwrite(file.fileno(), whole[at : at + 1], at)


def test_damage_inside_costs_one_record() -> None:
    """The rows before and after it are read, and the stretch is reported."""
    with directory() as path:
        write(path / "part", [[{"x": i}] for i in range(5)])
        data = bytearray((path / "part").read_bytes())
        (rows,) = scan.read(path / "part").batches
        offsets = [rows.offset + i * rows.stride for i in range(5)]
        data[offsets[2] + 30] ^= 1
        (path / "part").write_bytes(data)
        part = scan.read(path / "part")
        assert [i for i, _ in rows_of(part)] == [0, 1, 3, 4]
        assert part.damage == [(offsets[2], offsets[3])]


def test_without_its_header_nothing_of_a_part_counts() -> None:
    """Nobody knows then what computed its rows."""
    with directory() as path:
        write(path / "part", [SAMPLE])
        data = bytearray((path / "part").read_bytes())
        data[40] ^= 1
        (path / "part").write_bytes(data)
        part = scan.read(path / "part")
        assert (part.header, rows_of(part)) == ({}, [])
        assert part.damage


# The disk


class Disk:
    """Stands in for os.write: takes few bytes at a time, and none when it is full."""

    def __init__(self, room: int, at_a_time: int = 5, error: BaseException | None = None):
        self.room = room
        self.at_a_time = at_a_time
        self.error = error or OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._write = os.write

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of the data."""
        if not self.room:
            raise self.error
        taken = self._write(descriptor, data[: min(self.room, self.at_a_time)])
        self.room -= taken
        return taken


def test_short_writes_are_continued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system may take one byte at a time."""
    monkeypatch.setattr(os, "write", Disk(10**6, at_a_time=1).write)
    write(tmp_path / "part", [SAMPLE])
    assert same_rows(SAMPLE, rows_of(scan.read(tmp_path / "part")))


def test_on_a_full_disk_what_was_acknowledged_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it fills up; and after that nothing is written any more."""
    with directory() as path:
        write(path / "whole", [[row] for row in SAMPLE])
        total = (path / "whole").stat().st_size
    for room in range(150, total, 3):
        disk = Disk(room)
        acknowledged = []
        with directory() as path, monkeypatch.context() as patch:
            patch.setattr(os, "write", disk.write)
            with writer(path / "part") as log:
                with pytest.raises(TemporaryError, match="No space left"):
                    for i, row in enumerate([*SAMPLE, *SAMPLE]):
                        add(log, i, [row])
                        acknowledged.append(row)
                disk.room = 10**6
                full = (path / "part").stat().st_size
                with pytest.raises(TemporaryError):
                    add(log, 0, [{"x": 1}])
                assert (path / "part").stat().st_size == full
            part = scan.read(path / "part")
            found = rows_of(part)
            assert len(found) == len(acknowledged)
            assert same_rows(acknowledged, found)
            assert part.damage == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_nothing_follows_a_record_that_an_exception_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException
) -> None:
    """A signal handler may raise in the middle of a write."""
    with writer(tmp_path / "part") as log:
        add(log, 0, [{"x": 1}])
        disk = Disk(20, error=error)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", disk.write)
            with pytest.raises(type(error)):
                add(log, 1, [{"x": 2}])
        with pytest.raises(TemporaryError):
            add(log, 1, [{"x": 2}])
    part = scan.read(tmp_path / "part")
    assert rows_of(part) == [(0, {"x": 1})]
    assert part.damage == []


def test_a_disk_that_takes_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And no endless loop."""
    with writer(tmp_path / "part") as log:
        monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
        with pytest.raises(TemporaryError):
            add(log, 0, [{"x": 1}])


def test_a_part_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    """Every reader sees a prefix that only grows."""
    n = 600
    with writer(tmp_path / "part") as log:

        def work() -> None:
            for i in range(n):
                add(log, i, [{"x": i, "text": "a" * (i % 50)}])

        thread = threading.Thread(target=work)
        thread.start()
        seen = 0
        while seen < n:
            part = scan.read(tmp_path / "part")
            found = rows_of(part)
            assert part.damage == []
            assert [i for i, _ in found] == [row["x"] for _, row in found] == list(range(len(found)))
            assert len(found) >= seen
            seen = len(found)
        thread.join()


def test_a_copy_of_a_part_has_the_same_rows(tmp_path: Path) -> None:
    """Nothing in it depends on its name; `place` counts the rows once."""
    write(tmp_path / "part", [SAMPLE])
    shutil.copy(tmp_path / "part", tmp_path / "copy")
    assert same_rows(SAMPLE, rows_of(scan.read(tmp_path / "copy")))


# The format, as docs/formats.md has it

FRAME = struct.Struct("<4sBBHIIQ")


def record(at: int, kind: int, payload: bytes, schema: int = 0, rows: int = 0) -> bytes:
    """Return a record for an offset."""
    frame = FRAME.pack(b"\xf0psy", kind, 0, schema, 0, rows, len(payload))
    crc = zlib.crc32(payload, zlib.crc32(frame, at))
    return FRAME.pack(b"\xf0psy", kind, 0, schema, crc, rows, len(payload)) + payload


def forged(*records: tuple[int, bytes, int, int]) -> bytes:
    """Return a part of these records (kind, payload, schema, rows), with a header."""
    data = record(0, 1, json.dumps({"format": 1, **HEADER}).encode())
    for kind, payload, schema, rows in records:
        data += record(len(data), kind, payload, schema, rows)
    return data


SYSTEM = struct.Struct("<QQqdd")


def test_the_bytes_of_a_part_are_those_of_the_documentation(tmp_path: Path) -> None:
    """Files of today are read by the psyrun of tomorrow."""
    rows: list[Row] = [{"x": 7, "t": "é", "v": np.array([1.5])}, {"x": 8, "t": None, "v": np.array([2.5])}]
    with writer(tmp_path / "part") as log:
        write_rows(log, system(3, 2), rows)
        log.fail(Failure((1, 2), 5, 1.5, 0.25, "ValueError", "no", "f.py:3", "Traceback"))
        log.peak(123456789)
        log.end()
    schema = {"columns": [["x", "<i8", []], ["t", "var", []], ["v", "<f8", [1]]]}
    text = "é".encode()
    cells = [
        SYSTEM.pack(21, 33, 3, 3.5, 0.375) + struct.pack("<qQd", 7, 3, 1.5),
        SYSTEM.pack(28, 44, 4, 4.5, 0.5) + struct.pack("<qQd", 8, 4, 2.5),
    ]
    failure = {"key": [1, 2], "index": 5, "start": 1.5, "duration": 0.25, "type": "ValueError", "message": "no"}
    failure |= {"where": "f.py:3", "traceback": "Traceback", "rung": 0}
    assert (tmp_path / "part").read_bytes() == forged(
        (2, json.dumps(schema).encode(), 0, 0),
        (3, b"".join(cells) + b"s" + text + b"n", 0, 2),
        (4, json.dumps(failure).encode(), 0, 0),
        (6, b'{"peak": 123456789}', 0, 0),
        (5, b"", 0, 0),
    )
    assert scan.read(tmp_path / "part").peak == 123456789


def test_a_kind_of_record_that_nobody_knows_is_overlooked(tmp_path: Path) -> None:
    """So are peaks that are no numbers; what stands beside them is read."""
    infinite = (6, b'{"peak": Infinity}', 0, 0)
    (tmp_path / "part").write_bytes(forged((7, b"later", 0, 0), infinite, (6, b'{"peak": 5}', 0, 0)))
    part = scan.read(tmp_path / "part")
    assert (part.peak, len(part.damage), part.header["code"]) == (5, 1, "c")


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (None, b"n"),
        ("a\0", b"sa\0"),
        ("\ud800", b"s\xed\xa0\x80"),
        (b"\n", b"b\n"),
        (2**63, b'a["<u8", []]\n' + struct.pack("<Q", 2**63)),
        ([1.0, 2.0], b'a["<f8", [2]]\n' + struct.pack("<2d", 1, 2)),
        (np.zeros((0, 2), ">i4"), b'a["<i4", [0, 2]]\n'),
        (["ab"], b'a["<U2", [1]]\na\0\0\0b\0\0\0'),
        (np.datetime64("1970-01-02"), b'a["<M8[D]", []]\n\1' + bytes(7)),
    ],
)
def test_the_bytes_of_a_cell_are_those_of_the_documentation(value: Any, cell: bytes) -> None:
    """A letter, then the content."""
    assert cells.cell("x", value, objects_ok=False) == cell
    assert same(value, cells.value_of(cell, objects_ok=False))


def test_one_schema_serves_all_rows_of_a_kind(tmp_path: Path) -> None:
    """Also when rows of another kind came between; a fourth shape of a column makes its size variable."""
    ragged = [{"v": np.zeros(n)} for n in range(1, 9)]
    write(tmp_path / "part", [[{"x": 1}], [{"x": 2}], [{"y": 2}], [{"x": 3}], [{"x": 1.5}], *[[row] for row in ragged]])
    data = (tmp_path / "part").read_bytes()
    assert data.count(b'"columns"') == 3 + 3 + 1
    assert len(rows_of(scan.read(tmp_path / "part"))) == 13


def test_failures_come_back(tmp_path: Path) -> None:
    """With any text in them."""
    failure = Failure((2**64 - 1, 0), 7, 1.5, 0.5, "ValueError", "\ud800\0\n", "f.py:3", "é")
    with writer(tmp_path / "part") as log:
        log.fail(failure)
    assert scan.read(tmp_path / "part").failures == [failure]


# Files that somebody made up


def schema_of(dtype: str, shape: Sequence[int] = ()) -> tuple[int, bytes, int, int]:
    """Return the record of a schema with one column."""
    return 2, json.dumps({"columns": [["x", dtype, list(shape)]]}).encode(), 0, 0


@pytest.mark.parametrize("dtype", ["|O", "O", "V8", "f8,f8", "<U3", "rubbish", "f8, O"])
def test_a_schema_takes_numbers_and_times_only(tmp_path: Path, dtype: str) -> None:
    """An object dtype would turn bytes into pointers."""
    row = SYSTEM.pack(1, 2, 0, 0, 0)
    (tmp_path / "part").write_bytes(forged(schema_of(dtype), (3, row + bytes(8), 0, 1), (3, row + bytes(16), 0, 1)))
    part = scan.read(tmp_path / "part")
    assert rows_of(part) == []
    assert len(part.damage) == 3


@pytest.mark.parametrize("dtype", ["|O", "O8", "V8"])
def test_a_cell_takes_numbers_text_and_times_only(dtype: str) -> None:
    """Here too."""
    with pytest.raises(ValueError, match="dtype"):
        cells.value_of(b"a" + json.dumps([dtype, [1]]).encode() + b"\n" + bytes(8), objects_ok=True)


@pytest.mark.parametrize(
    "lie",
    [
        FRAME.pack(b"\xf0psy", 3, 0, 0, 0, 1, 2**63),
        FRAME.pack(b"\xf0psy", 3, 0, 0, 0, 2**32 - 1, 2**40) + bytes(100),
        forged(schema_of("<f8"), (3, bytes(56), 0, 2**32 - 1)),
        forged(schema_of("<f8", [2**40]), (3, bytes(56), 0, 1)),
        forged(schema_of("<f8", [2**31, 2**31]), (3, bytes(56), 0, 1)),
        forged(schema_of("<f8", [-1]), (3, bytes(56), 0, 1)),
    ],
)
def test_sizes_that_lie_cost_no_memory(tmp_path: Path, lie: bytes) -> None:
    """Nothing is allocated before the bytes are known to be there."""
    (tmp_path / "part").write_bytes(lie)
    tracemalloc.start()
    try:
        assert rows_of(scan.read(tmp_path / "part")) == []
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


PIECES = st.binary(max_size=40) | st.just(b"\xf0psy") | st.just(FRAME.pack(b"\xf0psy", 3, 0, 0, 0, 0, 0))


@given(st.lists(PIECES))
def test_any_bytes_are_read_without_an_exception(pieces: list[bytes]) -> None:
    """They have no rows."""
    with directory() as path:
        (path / "part").write_bytes(b"".join(pieces))
        assert rows_of(scan.read(path / "part")) == []


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_are_loaded_only_for_a_store_that_asks_for_them(tmp_path: Path) -> None:
    """A part that came from elsewhere must not run code."""
    trap = tmp_path / "sprung"
    write(tmp_path / "part", [[{"x": Trap(trap)}]], objects_ok=True)
    part = scan.read(tmp_path / "part")
    with pytest.raises(UnsupportedValueError, match="PickleStore"):
        rows_of(part)
    assert not trap.exists()
    rows_of(part, objects_ok=True)
    assert trap.exists()


# Values that need care


def test_an_object_that_cannot_be_pickled_is_refused(tmp_path: Path) -> None:
    """It costs its item, not the process."""
    with (
        writer(tmp_path / "part", objects_ok=True) as log,
        pytest.raises(UnsupportedValueError, match="'x' is a function that cannot be stored"),
    ):
        add(log, 0, [{"x": lambda: None}])


class Rude:
    """Raises whatever it is asked."""

    def __array__(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError("no array")


def test_an_object_that_raises_when_it_is_asked_is_refused(tmp_path: Path) -> None:
    """The message has what it said."""
    with writer(tmp_path / "part") as log, pytest.raises(UnsupportedValueError, match="no array"):
        add(log, 0, [{"x": Rude()}])


class Point(NamedTuple):
    """A tuple with a name."""

    x: int
    label: str


@pytest.mark.parametrize("value", [Point(1, "a"), deque([True, 2]), (1, "a"), [2**53 + 1, 0.5]])
def test_no_member_of_a_sequence_becomes_something_else(tmp_path: Path, value: Any) -> None:
    """NumPy would make text of the numbers beside text, and floats of large numbers."""
    with writer(tmp_path / "part") as log, pytest.raises(UnsupportedValueError):
        add(log, 0, [{"x": value}])
    write(tmp_path / "objects", [[{"x": value}]], objects_ok=True)
    assert rows_of(scan.read(tmp_path / "objects"), objects_ok=True) == [(0, {"x": value})]


def test_a_masked_array_is_refused(tmp_path: Path) -> None:
    """Its mask would be lost, and the masked values taken for results."""
    values = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    with writer(tmp_path / "part") as log, pytest.raises(UnsupportedValueError, match="MaskedArray"):
        add(log, 0, [{"x": values}])
    write(tmp_path / "objects", [[{"x": values}]], objects_ok=True)
    ((_, row),) = rows_of(scan.read(tmp_path / "objects"), objects_ok=True)
    assert row["x"].mask.tolist() == [False, True]


class Colour(str, enum.Enum):
    """Text with a class of its own."""

    RED = "red\0"


class Rank(enum.IntEnum):
    """A number with a class of its own."""

    FIRST = 1


def test_members_of_enumerations_are_recorded_as_what_they_are_too(tmp_path: Path) -> None:
    """Text with all its characters, and numbers."""
    write(tmp_path / "part", [[{"c": Colour.RED, "r": Rank.FIRST}]])
    ((_, row),) = rows_of(scan.read(tmp_path / "part"))
    assert row == {"c": "red\0", "r": 1}


def test_long_doubles_keep_all_their_digits(tmp_path: Path) -> None:
    """As far as this machine has them."""
    value = np.longdouble(1) / 3
    write(tmp_path / "part", [[{"x": value}]])
    ((_, row),) = rows_of(scan.read(tmp_path / "part"))
    assert row["x"] == value
