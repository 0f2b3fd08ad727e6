"""From finished items to records of a part: in batches where items are fast, at once where they are slow."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from itertools import groupby
from operator import itemgetter
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
_MOST_BYTES_COPIED = 2**16

_Row = tuple[int, float, float, tuple[str, ...], tuple[Any, ...]]
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
        # Appending to it and taking from it are single steps: the other thread may do so at any time.
        self._rows: deque[_Row] = deque()
        self._oldest = 0.0
        self._names: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._waiting = threading.Event()
        self._asleep = True
        self._thread: threading.Thread | None = None
        self._error: TemporaryError | None = None

    def begin(self, keys: Lanes, first: int, given: Mapping[str, Array]) -> None:
        """Say which items come next: their keys, shape (n, 2), the index of the first, their parameters as columns."""
        self.flush()
        self._keys, self._first, self._given = keys, first, given
        self._clock_began = time.time() - time.perf_counter()

    def add(self, i: int, began: float, ended: float, outputs: Mapping[str, Any]) -> None:
        """Record that the i-th of these items is finished; times are those of `time.perf_counter`."""
        names, values = tuple(outputs), tuple(outputs.values())
        if names == self._names:
            names = self._names  # the same object: comparing is quick then
        else:
            self._names = names
        late = ended - began >= _FAST
        for value in values:
            if type(value) not in _CONSTANT:
                values, late = _kept(values)
                break
        if not self._rows:
            self._oldest = began
        self._rows.append((i, began, ended, names, values))
        if late or ended - self._oldest >= _BUFFERED:
            self.flush()
        elif self._asleep:
            self._wake()

    def fail(self, i: int, began: float, ended: float, error: BaseException) -> None:
        """Record that the i-th of these items raised."""
        self.flush()
        with self._lock:
            self._writer.fail(self._failure(error, i, began, ended))

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
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        for names, alike in groupby(rows, key=itemgetter(3)):
            self._append_alike(names, list(alike))

    def _append_alike(self, names: tuple[str, ...], rows: list[_Row]) -> None:
        try:
            self._write(names, rows)
        except TemporaryError as error:
            self._error = error
            raise
        except UnsupportedValueError as error:
            if len(rows) > 1:  # it is to be found out which
                for row in rows:
                    self._append_alike(names, [row])
                return
            i, began, ended, _, _ = rows[0]
            self._writer.fail(self._failure(error, i, began, ended))
            self._failed()

    def _write(self, names: tuple[str, ...], rows: list[_Row]) -> None:
        numbers, began, ended, _, values = zip(*rows, strict=True)
        at: Any = np.array(numbers)
        if numbers[-1] - numbers[0] == len(numbers) - 1:
            at = slice(numbers[0], numbers[-1] + 1)
        start = np.array(began)
        system = {
            "key": self._keys[at],
            "index": self._first + np.array(numbers),
            "start": start + self._clock_began,
            "duration": np.array(ended) - start,
        }
        outputs = dict(zip(names, zip(*values, strict=True), strict=True))
        self._writer.rows(system, outputs, {name: column[at] for name, column in self._given.items()})

    def _failure(self, error: BaseException, i: int, began: float, ended: float) -> Failure:
        return failure_of(error, self._keys[i], self._first + i, began + self._clock_began, ended - began)

    def _wake(self) -> None:
        """Have a thread append the fast items if no more of them come: the next one may be slow."""
        self._asleep = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_late, daemon=True, name="psyrun-flush")
            self._thread.start()
        self._waiting.set()

    def _flush_late(self) -> None:
        while True:
            self._waiting.wait()
            self._waiting.clear()
            time.sleep(_BUFFERED)
            self._asleep = True  # before the flush: what is added from now on wakes it up again
            try:
                self.flush()
            except TemporaryError:
                return  # kept in _error: the main thread meets it at the next item


def _kept(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """Return values that do not change with those of user code, and whether that took more than copies.

    User code may change what it returned, for example an array that it uses again.
    """
    small = (type(v) in _CONSTANT or (type(v) is np.ndarray and v.nbytes <= _MOST_BYTES_COPIED) for v in values)
    if not all(small):
        return values, True
    return tuple(v.copy() if type(v) is np.ndarray else v for v in values), False


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
