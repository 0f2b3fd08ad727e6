"""The recorder: every finished item is written once, in order, soon, whatever thread writes it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psyrun import recorder, scan
from psyrun.errors import TemporaryError
from psyrun.parts import Failure, Writer
from psyrun.recorder import BUFFERED, Recorder, may_wait

N = 5000


class Recorded:
    """A recorder on a new part, and what stands in it."""

    def __init__(self, path: Path):
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        writer = Writer(self.descriptor)
        writer.header({"code": "c"})
        self.failed = 0
        self.recorder = Recorder(writer, self._count)
        indices = np.arange(N) * 2
        keys = np.stack([indices, indices + 1], axis=1).astype(np.uint64)
        self.recorder.begin(keys, indices, {"x": indices * 0.5})
        self.recorder.resume(time.perf_counter())

    def _count(self, failure: Failure, succeeded: int, number: int) -> None:
        assert failure.type
        self.failed += 1

    def add(self, *values: Any) -> None:
        """Add a finished item."""
        for column, value in zip(self.recorder.columns, values, strict=True):
            column.append(value)
        self.recorder.ends.append(time.perf_counter())

    def rows(self) -> list[tuple[Any, ...]]:
        """Return index, parameter and outputs of all rows."""
        found: list[tuple[Any, ...]] = []
        for batch in scan.read(self.path).batches:
            columns = [batch.column(name) for name, _, _ in batch.schema.columns]
            found += zip(batch.indices.tolist(), *(map(_plain, c) for c in columns if c is not None), strict=True)
        return found


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    """A recorder without rows."""
    made = Recorded(tmp_path / "part")
    yield made
    os.close(made.descriptor)


def test_rows_stand_at_their_index_with_their_times(recorded: Recorded) -> None:
    """An item begins where the one before ended, or when it was said to."""
    recorded.recorder.expect(("y", "name"))
    before = time.time()
    for i in range(5):
        recorded.add(i * i, "ab"[i % 2])
    recorded.recorder.flush()
    assert recorded.rows() == [(2 * i, float(i), i * i, "ab"[i % 2]) for i in range(5)]
    part = scan.read(recorded.path)
    start, duration = part.joined("start"), part.joined("duration")
    np.testing.assert_allclose(start[1:], (start + duration)[:-1], atol=1e-5)
    assert (duration >= 0).all() and before - 1 < start[0] < time.time()
    assert part.keys[:, 0].tolist() == [0, 2, 4, 6, 8]


def test_other_names_are_other_records(recorded: Recorded) -> None:
    """What waits under the names before is written first."""
    recorded.recorder.expect(("y",))
    recorded.add(1)
    recorded.recorder.expect(("z", "y"))
    recorded.add(2, 3)
    recorded.recorder.expect(())
    recorded.add()
    recorded.recorder.flush()
    assert recorded.rows() == [(0, 0.0, 1), (2, 1.0, 2, 3), (4, 2.0)]


def test_a_failure_stands_between_rows(recorded: Recorded) -> None:
    """The rows before it are written first, those after it keep their numbers."""
    recorded.recorder.expect(("y",))
    recorded.add(1)
    recorded.recorder.fail(1, time.perf_counter(), ValueError("no"))
    recorded.add(2)
    recorded.recorder.flush()
    assert recorded.rows() == [(0, 0.0, 1), (4, 2.0, 2)]
    (failure,) = scan.read(recorded.path).failures
    assert (failure.index, failure.key, failure.message) == (2, (2, 3), "no")


def test_a_peak_is_noted_when_it_grew(recorded: Recorded) -> None:
    """By a tenth; the largest counts."""
    sizes = []
    for n_bytes in (1000, 1000, 1090, 1101, 900, 5000, 5100):
        recorded.recorder.note_peak(n_bytes)
        sizes.append(recorded.path.stat().st_size)
    assert [b > a for a, b in pairwise(sizes)] == [False, False, True, False, True, False]
    assert scan.read(recorded.path).peak == 5000


def test_a_value_that_cannot_be_kept_fails_alone(recorded: Recorded) -> None:
    """Its neighbours in the batch are written."""
    recorded.recorder.expect(("y",))
    for value in (1, object(), 3):
        recorded.add(value)
    recorded.recorder.flush()
    assert recorded.rows() == [(0, 0.0, 1), (4, 2.0, 3)]
    assert recorded.failed == 1
    assert scan.read(recorded.path).failures[0].index == 2


def test_what_waits_is_written_while_the_next_item_runs(recorded: Recorded) -> None:
    """By another thread, soon; and again after that."""
    recorded.recorder.expect(("y",))
    for i in range(3):
        assert recorded.recorder.asleep
        recorded.add(i)
        recorded.recorder.wake()
        deadline = time.monotonic() + 100 * BUFFERED
        while len(recorded.rows()) <= i:
            assert time.monotonic() < deadline
            time.sleep(BUFFERED / 4)
        while not recorded.recorder.asleep:
            time.sleep(0)


def test_two_threads_write_every_row_once_and_in_order(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are added while the other thread takes what waits."""
    monkeypatch.setattr("psyrun.recorder.BUFFERED", 0.0001)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    recorded.recorder.expect(("y", "z"))
    for i in range(N):
        recorded.add(i, str(i))
        if recorded.recorder.asleep:
            recorded.recorder.wake()
        if i % 997 == 0:
            recorded.recorder.flush()
    sys.setswitchinterval(interval)
    recorded.recorder.flush()
    assert recorded.rows() == [(2 * i, float(i), i, str(i)) for i in range(N)]
    assert len(scan.read(recorded.path).batches) > 10


def test_after_a_write_that_failed_nothing_more_is_taken(recorded: Recorded) -> None:
    """The error comes again, so that no item counts as recorded."""
    recorded.recorder.expect(("y",))
    os.close(recorded.descriptor)
    recorded.descriptor = os.open(recorded.path, os.O_RDONLY)  # the same number: writing to it fails
    recorded.add(1)
    for _ in range(2):
        with pytest.raises(TemporaryError):
            recorded.recorder.flush()


def test_whatever_ends_a_write_of_the_other_thread_is_met(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that it had taken are not on record, so that nothing may go on as if they were."""

    def full(*args: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    monkeypatch.setattr(Writer, "rows", full)
    recorded.recorder.expect(("y",))
    recorded.add(1)
    recorded.recorder.wake()
    while recorded.recorder.ends:
        time.sleep(BUFFERED / 4)
    with pytest.raises(TemporaryError, match="could not be recorded: MemoryError"):
        while True:
            recorded.recorder.flush()
            time.sleep(0)


@pytest.mark.parametrize("value", [1, 2.5, "a", b"b", None, True, np.float64(1), np.zeros(3)])
def test_values_that_do_not_change_may_wait(value: Any) -> None:
    """And small arrays, of which a copy is kept."""
    assert may_wait(value)


@pytest.mark.parametrize("value", [[1], {"a": 1}, np.zeros(10**5), np.ma.masked_array([1]), {1}])
def test_values_that_may_change_are_written_at_once(value: Any) -> None:
    """User code may use them again."""
    assert not may_wait(value)


def test_rows_of_an_interrupted_append_never_mix_with_later_ones(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler of the task raises after some columns were taken and others were not: nothing follows."""
    recorded.recorder.expect(("a", "b", "c"))
    for i in range(3):
        recorded.add(i, i, i)
    taken = recorder._taken
    calls = []

    def interrupted(values: list[Any], n: int) -> list[Any]:
        calls.append(n)
        if len(calls) == 3:
            raise ValueError("late")
        return taken(values, n)

    monkeypatch.setattr(recorder, "_taken", interrupted)
    with pytest.raises(ValueError, match="late"):
        recorded.recorder.flush()
    recorded.add(7, 7, 7)
    with pytest.raises(TemporaryError, match="signal handler"):
        recorded.recorder.flush()
    assert recorded.rows() == []
