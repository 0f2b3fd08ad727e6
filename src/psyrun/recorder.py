"""From finished items to records of a part: in batches where items are fast, at once where they are slow."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from psyrun.arrays import Array
from psyrun.errors import TemporaryError, UnsupportedValueError
from psyrun.keys import Lanes
from psyrun.parts import Failure, Writer

_BUFFERED = 0.02
_FAST = 0.001

_Row = tuple[int, float, float, dict[str, Any]]
# Values of these types cannot change while they wait.
_CONSTANT = frozenset({int, float, bool, complex, str, bytes, type(None), np.float64, np.int64, np.bool_, np.float32})


class Recorder:
    """Collects finished items and appends them to the part: slow ones at once, fast ones within 20 ms.

    Parameters
    ----------
    writer : Writer
    failed : callable
        Called with each item that failed although execute returned, because its values cannot be recorded.
    """

    def __init__(self, writer: Writer, failed: Callable[[], None]):
        self._writer = writer
        self._failed = failed
        self._rows: list[_Row] = []
        self._oldest = 0.0
        self._lock = threading.Lock()
        self._waiting = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: TemporaryError | None = None

    def begin(self, keys: Lanes, first: int, given: Mapping[str, Array]) -> None:
        """Say which items come next: their keys, shape (n, 2), the index of the first, their parameters as columns."""
        self.flush()
        self._keys, self._first, self._given = keys, first, given

    def add(self, i: int, start: float, duration: float, outputs: dict[str, Any]) -> None:
        """Record that the i-th of these items is finished."""
        if not self._rows:
            self._oldest = start
        with self._lock:
            self._rows.append((i, start, duration, outputs))
        late = duration >= _FAST or start + duration - self._oldest >= _BUFFERED
        # User code may change what it returned, for example an array that it uses again.
        if late or not all(type(value) in _CONSTANT for value in outputs.values()):
            self.flush()
        elif not self._waiting.is_set():
            self._wake()

    def fail(self, i: int, start: float, duration: float, error: BaseException) -> None:
        """Record that the i-th of these items raised."""
        self.flush()
        with self._lock:
            self._writer.fail(failure_of(error, self._keys[i], self._first + i, start, duration))

    def flush(self) -> None:
        """Append what waits."""
        with self._lock:
            self._append()

    def flush_if_free(self) -> bool:
        """Append what waits, unless an append is under way; for signal handlers."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._append()
        finally:
            self._lock.release()
        return True

    def _append(self) -> None:
        if self._error is not None:
            raise self._error
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:
            self._write(rows)
            return
        except UnsupportedValueError:
            pass  # it is to be found out which rows
        except TemporaryError as error:
            self._error = error
            raise
        for row in rows:
            self._append_one(row)

    def _write(self, rows: list[_Row]) -> None:
        numbers, starts, durations, outputs = zip(*rows, strict=True)
        at = np.array(numbers)
        system = {
            "key": self._keys[at],
            "index": self._first + at,
            "start": np.array(starts),
            "duration": np.array(durations),
        }
        self._writer.rows(system, outputs, {name: column[at] for name, column in self._given.items()})

    def _append_one(self, row: _Row) -> None:
        try:
            self._write([row])
        except UnsupportedValueError as error:
            i, start, duration, _ = row
            self._writer.fail(failure_of(error, self._keys[i], self._first + i, start, duration))
            self._failed()

    def _wake(self) -> None:
        """Have a thread append the fast items if no more of them come: the next one may be slow."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_late, daemon=True, name="psyrun-flush")
            self._thread.start()
        self._waiting.set()

    def _flush_late(self) -> None:
        while True:
            self._waiting.wait()
            time.sleep(_BUFFERED)
            self._waiting.clear()
            try:
                self.flush()
            except TemporaryError:
                return  # kept in _error: the main thread meets it at the next item


def user_trace(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception from the first frame that is not psyrun's."""
    trace = error.__traceback__
    own = Path(__file__).parent
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).is_relative_to(own):
        trace = trace.tb_next
    return trace


def failure_of(error: BaseException, key: Any, index: int, start: float, duration: float) -> Failure:
    """Return what to record of an exception: its traceback begins in the user's code."""
    trace = user_trace(error)
    frames = traceback.extract_tb(trace)
    own = [f for f in frames if not {"site-packages", "dist-packages"} & set(Path(f.filename).parts)]
    last = (own or list(frames))[-1:]
    return Failure(
        key=(int(key[0]), int(key[1])),
        index=index,
        start=start,
        duration=duration,
        type=type(error).__name__,
        message=_text_of(error),
        where=f"{last[0].filename}:{last[0].lineno}" if last else "",
        traceback="".join(traceback.format_exception(type(error), error, trace, chain=trace is not None)),
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:
        return f"(its text cannot be had: {type(worse).__name__})"
