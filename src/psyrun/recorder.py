"""From finished items to records of a part: in batches where items are fast, at once where they are slow."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from psyrun.arrays import Array
from psyrun.axes import Indices
from psyrun.errors import TemporaryError, UnsupportedValueError, text_of
from psyrun.keys import Lanes
from psyrun.parts import Failure, Writer

BUFFERED = 0.02
"""Seconds that a finished item may wait for its write."""
FAST = 0.001
"""Seconds below which an item may wait at all."""

_OWN = str(Path(__file__).parent) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_MOST_BYTES_COPIED = 2**16
_GREW = 1.1

# Values of these types cannot change while they wait.
CONSTANT = frozenset({int, float, bool, complex, str, bytes, type(None), np.float64, np.int64, np.bool_, np.float32})


class Recorder:
    """Collects finished items and appends them to the part: slow ones at once, fast ones within 20 ms.

    Items are numbered from the one that `begin` was told of. What waits are rows of one kind: names of outputs are set
    by `expect`, times of one item begin where those of the one before end, unless `resume` says otherwise.

    A finished item is added by appending its values to `columns`, and then the time to `ends`. These are single steps,
    and so is taking the first rows of a list: the thread that flushes may do so at any time, without a lock.

    Parameters
    ----------
    writer : Writer
    failed : callable
        Called after each failure was appended: with it, how many rows were since the one before, and the item's number.

    Attributes
    ----------
    ends : list of float
        When the items that wait ended, by `time.perf_counter`.
    columns : list of list
        Their values, by output.
    asleep : bool
        Whether nobody sees to what waits, if no flush comes; then call `wake`.
    """

    def __init__(self, writer: Writer, failed: Callable[[Failure, int, int], None]):
        self._writer = writer
        self._failed = failed
        self.ends: list[float] = []
        self.columns: list[list[Any]] = []
        self.asleep = True
        self._names: tuple[str, ...] = ()
        self._number = 0
        self._began = 0.0
        self._succeeded = 0
        self._peak = 0
        self._lock = threading.Lock()
        self._waiting = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: TemporaryError | None = None

    def begin(self, keys: Lanes, indices: Indices, given: Mapping[str, Array]) -> None:
        """Say which items come next: their keys, shape (n, 2), their indices, their parameters as columns."""
        self.flush()
        self._keys, self._indices, self._given = keys, indices, given
        self._number = 0
        self._clock_began = time.time() - time.perf_counter()

    def expect(self, names: tuple[str, ...]) -> None:
        """Say what the outputs of the next items are; there are new columns then."""
        if names != self._names:
            self.flush()
            self.columns = [[] for _ in names]  # first: a signal handler of the task may raise in between
            self._names = names

    def resume(self, now: float) -> None:
        """Say that the next item begins now; nothing may wait."""
        self._began = now

    def fail(self, number: int, ended: float, error: BaseException) -> None:
        """Record that an item raised."""
        self.flush()
        with self._lock:
            self._fail(self._failure(error, number, self._began, ended), number)
            self._number = number + 1

    def _fail(self, failure: Failure, number: int) -> None:
        self._writer.fail(failure)
        self._failed(failure, self.succeeded(), number)

    def succeeded(self) -> int:
        """Return how many rows were appended since the last call, or the last failure."""
        n, self._succeeded = self._succeeded, 0
        return n

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
        n = len(self.ends)
        if not n:
            return
        number = self._number
        try:
            times = [self._began, *_taken(self.ends, n)]
            columns = [_taken(column, n) for column in self.columns]
            self._number, self._began = number + n, times[-1]
            self._write(number, times, columns)
        except TemporaryError as error:
            self._error = error
            raise
        except BaseException as error:  # whatever it is: these rows are not on record, and no others may follow
            self._error = TemporaryError(
                f"finished items could not be recorded: {error!r}. (Does a signal handler of the task raise that after "
                "execute has returned?)"
            )
            raise

    def _write(self, number: int, times: list[float], columns: list[list[Any]]) -> None:
        """Write rows; where one has a value that the store does not take, this one fails."""
        n = len(times) - 1
        at = slice(number, number + n)
        clock = np.array(times)
        system = {
            "key": self._keys[at],
            "index": self._indices[at],
            "start": clock[:-1] + self._clock_began,
            "duration": np.diff(clock),
        }
        outputs = dict(zip(self._names, columns, strict=True))
        try:
            self._writer.rows(system, outputs, {name: column[at] for name, column in self._given.items()})
        except UnsupportedValueError as error:
            if n == 1:
                self._fail(self._failure(error, number, *times), number)
                return
            for i in range(n):
                self._write(number + i, times[i : i + 2], [column[i : i + 1] for column in columns])
        else:
            self._succeeded += n

    def _failure(self, error: BaseException, number: int, began: float, ended: float) -> Failure:
        start = began + self._clock_began
        return failure_of(error, self._keys[number], int(self._indices[number]), start, ended - began)

    def note_peak(self, n_bytes: int) -> None:
        """Append how much memory this process used at most, if that is a tenth more than when it was noted last."""
        if n_bytes > _GREW * self._peak:
            with self._lock:
                self._writer.peak(n_bytes)
            self._peak = n_bytes

    def wake(self) -> None:
        """Have a thread append the fast items if no more of them come: the next one may be slow."""
        self.asleep = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_late, daemon=True, name="psyrun-flush")
            self._thread.start()
        self._waiting.set()

    def _flush_late(self) -> None:
        while True:
            self._waiting.wait()
            self._waiting.clear()
            time.sleep(BUFFERED)
            self.asleep = True  # before the flush: what is added from now on wakes it up again
            try:
                self.flush()
            except TemporaryError:
                return  # kept in _error: the main thread meets it at the next item


def _taken(values: list[Any], n: int) -> list[Any]:
    """Return the first n values of a list, which has them no longer."""
    taken = values[:n]
    del values[:n]
    return taken


def may_wait(value: Any) -> bool:
    """Whether a copy of a value can wait, as user code may change what it returned: an array that it uses again."""
    if type(value) is np.ndarray:
        return value.nbytes <= _MOST_BYTES_COPIED and not value.dtype.hasobject
    return type(value) in CONSTANT


def user_trace(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception from the first frame that is not psyrun's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN):
        trace = trace.tb_next
    return trace


def failure_of(error: BaseException, key: Any, index: int, start: float, duration: float) -> Failure:
    """Return what to record of an exception: its traceback begins in the user's code."""
    trace = user_trace(error)
    told = traceback.TracebackException(type(error), error, trace)
    own = [frame for frame in told.stack if not any(part in frame.filename for part in _INSTALLED)]
    last = (own or list(told.stack))[-1:]
    return Failure(
        key=(int(key[0]), int(key[1])),
        index=index,
        start=start,
        duration=duration,
        type=type(error).__name__,
        message=text_of(error),
        where=f"{last[0].filename}:{last[0].lineno}" if last else "",
        traceback="".join(told.format(chain=trace is not None)),
    )
