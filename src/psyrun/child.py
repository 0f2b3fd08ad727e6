"""The process that runs user code: load the plan's task, run the items it is told to, append them to its part."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import numpy as np

from psyrun.arrays import Array
from psyrun.errors import IneffectiveExcludeWarning, PsyrunError, TemporaryError, UnsupportedValueError
from psyrun.keys import Lanes
from psyrun.parts import Failure, Writer
from psyrun.plan import Plan
from psyrun.tasks import Task

READY, BLOCK, FINISHED, PROBLEM = range(4)
_HEAD = struct.Struct("<BI")

POSITION, DONE, FAILED = range(3)
"""Columns of the counters that a child shares with its supervisor and the command."""

_BUFFERED = 0.02
_FAST = 0.001
_CHECK_PARENT = 64

_Row = tuple[int, float, float, dict[str, Any]]
# Values of these types cannot change while they wait.
_CONSTANT = frozenset({int, float, bool, complex, str, bytes, type(None), np.float64, np.int64, np.bool_, np.float32})


def send(channel: socket.socket, kind: int, content: Any = None) -> None:
    """Send one message."""
    payload = json.dumps(content).encode()
    channel.sendall(_HEAD.pack(kind, len(payload)) + payload)


def receive(channel: socket.socket) -> tuple[int, Any] | None:
    """Return the next message, or None when the other end is gone."""
    head = _exactly(channel, _HEAD.size)
    if head is None:
        return None
    kind, size = _HEAD.unpack(head)
    payload = _exactly(channel, size)
    return None if payload is None else (kind, json.loads(payload))


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            more = channel.recv(size - len(data))
        except ConnectionError:
            return None
        if not more:
            return None
        data += more
    return data


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have the system signal this process when its parent ends, and end now if it has already.

    Linux only; elsewhere parents are polled.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(number), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


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
        except UnsupportedValueError:
            for row in rows:
                self._append_one(row)
        except TemporaryError as error:
            self._error = error
            raise

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


class Child:
    """Runs items of a plan for a supervisor.

    Parameters
    ----------
    plan : Plan
    number : int
        The child's number, passed to the task's setup.
    channel : socket
        To the supervisor.
    part : int
        Open descriptor of the part, its header written.
    counters : array of int64, shape (3,)
        Shared memory: position in hand, items done, items failed.
    """

    def __init__(self, plan: Plan, number: int, channel: socket.socket, part: int, counters: Any):
        self._plan = plan
        self._number = number
        self._channel = channel
        self._part = part
        self._counters = counters
        self._supervisor = os.getppid()
        self._pid = os.getpid()
        self._stopping = False

    def run(self) -> NoReturn:
        """Serve until the supervisor is gone or says so; never returns."""
        status = 0
        try:
            self._prepare()
            self._serve()
        except TemporaryError as error:
            send(self._channel, PROBLEM, str(error))
            status = 75
        except PsyrunError as error:
            send(self._channel, PROBLEM, str(error))
            status = 2
        except BaseException:
            traceback.print_exc()
            status = 70
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)

    def _prepare(self) -> None:
        from threadpoolctl import threadpool_limits

        from psyrun.scheduler import available_cores

        os.chdir(self._plan.content["cwd"])
        task = self._plan.task()
        if task.code != self._plan.code or task.pspace.digest != self._plan.space:
            what = "code" if task.code != self._plan.code else "parameter space"
            raise TemporaryError(
                f"the {what} of {task.name} is not the plan's any more (a module that it imports was edited, or it "
                f"differs each time it is loaded); nothing was run. Type the command again: psy-doit {task.name}"
            )
        self._task: Task = task
        self._work = self._plan.work()
        self._excluded = set(task.options["exclude_from_result"])
        self._warned: set[str] = set()
        self._recorder = Recorder(Writer(self._part, task.store.holds_objects), self._count_failed)
        self._extra = self._set_up()
        per_child = max(1, available_cores() // max(1, int(os.environ.get("PSYRUN_CHILDREN", "1"))))
        self._limits = threadpool_limits(limits=per_child)
        signal.signal(signal.SIGTERM, self._terminated)

    def _set_up(self) -> dict[str, Any]:
        if self._task.setup is None:
            return {}
        try:
            extra = self._task.setup(self._number)
        except Exception as error:
            traceback.print_exc()
            raise PsyrunError(f"setup({self._number}) raised {type(error).__name__}: {error}") from error
        if extra is None:
            return {}
        if not isinstance(extra, Mapping):
            raise PsyrunError(f"setup({self._number}) returned {extra!r:.60}; it takes a dict or None")
        return dict(extra)

    def _terminated(self, *_: object) -> None:
        """Leave at once, with what is finished on record."""
        self._stopping = True
        if self._recorder.flush_if_free():
            os._exit(0)

    def _count_failed(self) -> None:
        self._counters[FAILED] += 1

    def _serve(self) -> None:
        send(self._channel, READY)
        while (message := receive(self._channel)) is not None:
            _, (first, last) = message
            began = time.perf_counter()
            for start, stop in self._work.indices(first, last):
                self._run_items(first, start, stop)
                first += stop - start
            self._recorder.flush()
            sys.stdout.flush()
            self._counters[POSITION] = -1
            send(self._channel, FINISHED, time.perf_counter() - began)

    def _run_items(self, position: int, start: int, stop: int) -> None:
        space = self._task.pspace
        keys: Lanes = space.item_keys(start, stop)
        seeds = (keys[:, 0] & np.uint64(0xFFFFFFFF)).tolist()
        given = {n: c for n, c in space.columns(start, stop).items() if n not in self._excluded}
        self._recorder.begin(keys, start, given)
        for i, assignment in enumerate(space.iterate(start, stop)):
            if self._stopping or (i % _CHECK_PARENT == 0 and os.getppid() != self._supervisor):
                self._recorder.flush()
                os._exit(0)
            self._counters[POSITION] = position + i
            random.seed(seeds[i])
            np.random.seed(seeds[i])
            self._run_item(i, assignment)
            self._counters[DONE] += 1

    def _run_item(self, i: int, assignment: dict[str, Any]) -> None:
        start = time.time()
        clock = time.perf_counter()
        try:
            outputs = self._task.execute(**assignment, **self._extra)
            duration = time.perf_counter() - clock
            self._end_copy(0)
            row = self._row(assignment, outputs)
        except BaseException as error:  # sys.exit() in execute ends the item, not the worker
            self._end_copy(1)
            self._recorder.fail(i, start, time.perf_counter() - clock, error)
            self._counters[FAILED] += 1
            return
        self._recorder.add(i, start, duration, row)

    def _end_copy(self, status: int) -> None:
        """End a process that user code forked: it must not write to the part, nor run items."""
        if os.getpid() != self._pid:
            os._exit(status)

    def _row(self, assignment: dict[str, Any], outputs: Any) -> dict[str, Any]:
        """Return what to record beside the parameters."""
        check_outputs(outputs, assignment)
        row = {**self._extra, **outputs} if self._extra else outputs
        if self._excluded:
            self._warn_of_ineffective(row)
        return {n: value for n, value in row.items() if n not in self._excluded and n not in assignment}

    def _warn_of_ineffective(self, row: Mapping[str, Any]) -> None:
        absent = self._excluded - set(row) - set(self._task.pspace.parameters) - self._warned
        if absent:
            self._warned |= absent
            told = f"excluded from the result, but not in it: {', '.join(sorted(absent))}"
            warnings.warn(told, IneffectiveExcludeWarning, stacklevel=2)


def check_outputs(outputs: Any, assignment: Mapping[str, Any]) -> None:
    """Check what execute returned.

    Raises
    ------
    UnsupportedValueError
        It is no dict of names, or gives a parameter another value.
    """
    if not isinstance(outputs, Mapping):
        raise UnsupportedValueError(
            f"execute returned {outputs!r:.60} (a {type(outputs).__name__}); it takes a dict, such as {{'y': y}}"
        )
    for name in outputs:
        if not isinstance(name, str) or name.startswith("__psyrun_"):
            raise UnsupportedValueError(
                f"execute returned the key {name!r}; it takes text that does not begin with __psyrun_"
            )
        if name in assignment and outputs[name] is not assignment[name]:
            raise UnsupportedValueError(
                f"execute returned {name!r}, which is the name of a parameter. Use another name"
            )


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
        traceback="".join(traceback.format_exception(type(error), error, trace)),
    )


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as worse:
        return f"(its text cannot be had: {type(worse).__name__})"
