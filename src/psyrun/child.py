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


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the system to signal this process when its parent ends. Linux only; elsewhere parents are polled."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1  # prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(number), 0, 0, 0)


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
        self._rows: list[tuple[Any, int, float, float, dict[str, Any]]] = []
        self._oldest = 0.0
        self._lock = threading.Lock()
        self._waiting = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: TemporaryError | None = None

    def add(self, key: Any, index: int, start: float, duration: float, row: dict[str, Any]) -> None:
        """Record a finished item."""
        if not self._rows:
            self._oldest = start
        self._rows.append((key, index, start, duration, row))
        if duration >= _FAST or start + duration - self._oldest >= _BUFFERED:
            self.flush()
        elif not self._waiting.is_set():
            self._wake()

    def fail(self, failure: Failure) -> None:
        """Record an item that raised."""
        self.flush()
        with self._lock:
            self._writer.fail(failure)

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
            self._writer.rows(*_batch(rows))
        except UnsupportedValueError:
            for row in rows:
                self._append_one(row)
        except TemporaryError as error:
            self._error = error
            raise

    def _append_one(self, row: tuple[Any, int, float, float, dict[str, Any]]) -> None:
        try:
            self._writer.rows(*_batch([row]))
        except UnsupportedValueError as error:
            key, index, start, duration, _ = row
            told = Failure((int(key[0]), int(key[1])), index, start, duration, "UnsupportedValue", str(error), "", "")
            self._writer.fail(told)
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


def _batch(rows: list[tuple[Any, int, float, float, dict[str, Any]]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    keys, indices, starts, durations, outputs = zip(*rows, strict=True)
    return {"key": np.array(keys), "index": indices, "start": starts, "duration": durations}, list(outputs)


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
        for i, assignment in enumerate(space.iterate(start, stop)):
            if self._stopping or os.getppid() != self._supervisor:
                self._recorder.flush()
                os._exit(0)
            self._counters[POSITION] = position + i
            random.seed(seeds[i])
            np.random.seed(seeds[i])
            self._run_item(keys[i], start + i, assignment)
            self._counters[DONE] += 1

    def _run_item(self, key: Any, index: int, assignment: dict[str, Any]) -> None:
        start = time.time()
        clock = time.perf_counter()
        try:
            outputs = self._task.execute(**assignment, **self._extra)
            duration = time.perf_counter() - clock
            row = self._row(assignment, outputs)
        except BaseException as error:  # sys.exit() in execute ends the item, not the worker
            duration = time.perf_counter() - clock
            self._recorder.fail(failure_of(error, key, index, start, duration))
            self._counters[FAILED] += 1
            return
        self._recorder.add(key, index, start, duration, row)

    def _row(self, assignment: dict[str, Any], outputs: Any) -> dict[str, Any]:
        row = checked_row(assignment | self._extra, outputs, assignment)
        if self._excluded:
            absent = self._excluded - set(row)
            if absent:
                self._excluded -= absent
                told = f"excluded from the result, but not in it: {', '.join(sorted(absent))}"
                warnings.warn(told, IneffectiveExcludeWarning, stacklevel=2)
            row = {name: value for name, value in row.items() if name not in self._excluded}
        return row


def checked_row(given: Mapping[str, Any], outputs: Any, assignment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to record of an item.

    Raises
    ------
    UnsupportedValueError
        What execute returned is no dict of names, or has the name of a parameter.
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
    return {**given, **outputs}


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
        message=str(error),
        where=f"{last[0].filename}:{last[0].lineno}" if last else "",
        traceback="".join(traceback.format_exception(type(error), error, trace)),
    )
