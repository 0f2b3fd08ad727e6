"""The process that runs user code: load the plan's task, run the items it is told to, append them to its part."""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

from psyrun.axes import Selection, indices_of
from psyrun.columns import is_name
from psyrun.errors import (
    IneffectiveExcludeWarning,
    PsyrunError,
    TaskError,
    TemporaryError,
    UnsupportedValueError,
    text_of,
)
from psyrun.keys import Lanes
from psyrun.parts import Failure, Writer
from psyrun.plan import Plan
from psyrun.processes import FINISHED, PROBLEM, RAISED, READY, peak_memory, receive, send
from psyrun.recorder import BUFFERED, CONSTANT, FAST, Recorder, may_wait, user_trace
from psyrun.retries import class_of
from psyrun.seeding import SEED, arguments, asked_for
from psyrun.tasks import Task

POSITION, DONE, FAILED, RECORDING, ATTEMPT = range(5)
"""Columns of the counters that a child shares with its supervisor and the command."""
MOST_BLOCK = 2**16
"""How many items a block has at most."""
_MOST_TOLD = 500
_MOST_SECONDS = 1e8


def preload() -> None:
    """Import what children need, while the command that is to give orders still plans."""
    import numpy.random  # noqa: F401
    import threadpoolctl  # noqa: F401

    import psyrun.scheduler  # noqa: F401


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
    counters : array of int64, shape (5,)
        Shared memory: position in hand, items done, items failed, whether finished items are being recorded, how often
        an item was tried again.
    keys : array of uint64, shape (MOST_BLOCK, 2)
        Shared memory: the keys of the items of the block in hand.
    """

    def __init__(self, plan: Plan, number: int, channel: socket.socket, part: int, counters: Any, keys: Lanes):
        self._plan = plan
        self._number = number
        self._channel = channel
        self._part = part
        self._counters = memoryview(counters)
        self._keys = keys
        self._supervisor = os.getppid()
        self._is_copy = False
        self._stopping = False
        # Names of outputs that need no closer look.
        self._usual: tuple[str, ...] | None = None

    def run(self) -> NoReturn:
        """Serve until the supervisor is gone or says so; never returns."""
        status = 0
        try:
            self._prepare()
            self._serve()
        except PsyrunError as error:
            send(self._channel, PROBLEM, [error.exit_code, str(error)])
            status = error.exit_code
        except BaseException:
            traceback.print_exc()
            status = 70
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):
                    stream.flush()
            os._exit(status)

    def _prepare(self) -> None:
        from threadpoolctl import threadpool_limits

        from psyrun.scheduler import available_cores

        self._log = os.dup(2)  # user code may close the other, or put something else in its place
        faulthandler.enable(self._log)  # says in the log where it was, if it crashes
        os.chdir(self._plan.content["cwd"])
        np.random.seed()  # with a state of its own: that of the process it was forked from is every child's
        task = self._plan.task()
        self._check_same(task)
        self._task: Task = task
        self._work = self._plan.work()
        self._excluded = set(task.options["exclude_from_result"])
        self._warned: set[str] = set()
        self._recorder = Recorder(Writer(self._part, task.store.holds_objects), self._tell_failed)
        self._extra = self._set_up()
        self._random = asked_for(task.execute, {*task.pspace.parameters, *self._extra})
        self._seed: int = self._plan.content.get("seed", 0)
        self._budgets: dict[int, dict[str, int]] = {}
        self._again: list[int] = []
        self._unsaid = 0
        self._retrying = False
        self._may_draw = task.may_draw
        self._timeout = self._plan.content.get("timeout")
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._became_copy
        )
        per_child = max(1, available_cores() // max(1, int(os.environ.get("PSYRUN_CHILDREN", "1"))))
        self._limits = threadpool_limits(limits=per_child)
        signal.signal(signal.SIGTERM, self._terminated)

    def _check_same(self, task: Task) -> None:
        """Raise unless code and space are the plan's."""
        again = f"Type the command again: {task.command(task.name)}"
        if task.code != self._plan.code:
            raise TemporaryError(
                f"the code of {task.name} is not the plan's any more (a module that it imports, or a file of file_dep, "
                f"was edited); nothing was run. {again}"
            )
        if task.pspace.digest != self._plan.space:
            raise TaskError(
                f"pspace of {task.name} differs each time the task file is loaded, so no one could tell which items "
                "are done; nothing was run. If it draws random numbers, give them a seed: "
                f"np.random.default_rng(1). If it reads a file that was just edited: {task.command(task.name)}"
            )

    def _set_up(self) -> dict[str, Any]:
        if self._task.setup is None:
            return {}
        try:
            extra = self._task.setup(self._number)
        except (Exception, SystemExit) as error:
            trace = user_trace(error)
            traceback.print_exception(type(error), error, trace)
            raise TaskError(
                f"setup({self._number}) raised {type(error).__name__}: {text_of(error)}. "
                f"To look at it: {self._task.command('test', self._task.name, '--pdb')}"
            ) from error
        return checked_extra(extra, self._task.pspace.parameters)

    def _terminated(self, *_: object) -> None:
        """Leave at once, with what is finished on record."""
        self._stopping = True
        if self._recorder.flush_if_free():
            os._exit(0)

    def _tell_failed(self, failure: Failure, succeeded: int, number: int) -> None:
        """Have an item tried again, or tell that it failed."""
        position, what = self._first + number, class_of(failure.type)
        left = self._budgets.setdefault(position, dict(self._plan.retries))
        self._unsaid += succeeded
        if left[what]:
            left[what] -= 1
            self._again.append(position)
            return
        self._counters[FAILED] += 1
        with suppress(ConnectionError):
            send(self._channel, RAISED, [self._said(), failure.type, failure.where, failure.message[:_MOST_TOLD]])

    def _serve(self) -> None:
        send(self._channel, READY)
        while (message := receive(self._channel)) is not None:
            _, (first, last) = message
            began = time.perf_counter()
            self._block_first = first
            self._run_items(first, self._work.selection(first, last))
            self._see_to_failed()
            self._recorder.note_peak(peak_memory())
            with suppress(Exception):  # it is the user's
                sys.stdout.flush()
            self._counters[POSITION] = -1
            send(self._channel, FINISHED, [time.perf_counter() - began, self._recorder.succeeded() + self._said()])

    def _said(self) -> int:
        """Return how many items succeeded that the supervisor was not told of yet; now it is."""
        n, self._unsaid = self._unsaid, 0
        return n

    def _see_to_failed(self) -> None:
        """Run items that failed once more, until they succeed or no budget is left for failures of their class."""
        self._retrying = True
        while self._again:
            position = self._again.pop()
            self._counters[ATTEMPT] += 1
            self._run_items(position, self._work.selection(position, position))
        self._retrying = False
        self._budgets.clear()

    def _run_items(self, position: int, at: Selection) -> None:
        """Run the items of these indices, which stand at consecutive positions of the work list.

        This is the loop that short items spend their time in: what need not be done for each is done when the rows
        are appended, every 20 ms.
        """
        execute, seeds = self._begin(position, at)
        space, recorder, counters = self._task.pspace, self._recorder, self._counters
        clock, constant, ends, columns = time.perf_counter, CONSTANT, recorder.ends, recorder.columns
        n_seeded = len(seeds) if self._may_draw else 1
        done = counters[DONE] - (len(at) if self._retrying else 0)
        began = oldest = clock()
        recorder.resume(began)
        self._say_where_in_time()
        for i, assignment in enumerate(space.iterate_at(at)):
            counters[POSITION] = position + i
            if i < n_seeded:
                random.seed(seeds[i])
                np.random.seed(seeds[i])
            try:
                outputs = execute(**assignment)
                ended = clock()
                if type(outputs) is not dict or tuple(outputs) != self._usual:
                    outputs = self._row(assignment, outputs)
                    recorder.expect(tuple(outputs))
                    columns = recorder.columns
            except BaseException as error:  # sys.exit() in execute ends the item, not the worker
                self._end_copy(1)
                self._usual = None  # it may have been raised by a signal handler, while the names were changed
                recorder.fail(i, clock(), error)
                late = True
            else:
                late = ended - began >= FAST or ended - oldest >= BUFFERED
                for column, value in zip(columns, outputs.values(), strict=True):
                    if type(value) in constant:
                        column.append(value)
                    else:
                        waits = may_wait(value)
                        late = late or not waits
                        column.append(value.copy() if waits else value)
                ends.append(ended)
                began = ended
            if late:
                counters[RECORDING] = 1
                recorder.flush()
                counters[RECORDING] = 0
                counters[DONE] = done + i + 1
                if self._stopping or os.getppid() != self._supervisor:
                    os._exit(0)
                self._say_where_in_time()
                began = oldest = clock()
                recorder.resume(began)
            elif recorder.asleep:
                recorder.wake()
        recorder.flush()
        faulthandler.cancel_dump_traceback_later()
        counters[DONE] = done + len(at)

    def _say_where_in_time(self) -> None:
        """Have the log say where an item is when its time is over. No signal does that: it would disturb what waits."""
        if self._timeout is not None:
            faulthandler.dump_traceback_later(min(self._timeout, _MOST_SECONDS), file=self._log)

    def _begin(self, position: int, at: Selection) -> tuple[Callable[..., Any], list[int]]:
        """Say which items come next; return what to call for each, and seeds for the global generators."""
        space = self._task.pspace
        keys: Lanes = space.item_keys_at(at)
        place = position - self._block_first
        self._keys[place : place + len(keys)] = keys
        given = {n: c for n, c in space.columns_at(at).items() if n not in self._excluded}
        if self._random:
            given[SEED] = np.full(len(keys), self._seed, dtype=np.uint64)
        self._recorder.begin(keys, indices_of(at), given)
        self._first = position
        return self._execute_with(keys), (keys[:, 0] & np.uint64(0xFFFFFFFF)).tolist()

    def _execute_with(self, keys: Lanes) -> Callable[..., Any]:
        """Return execute, to be called once for each key: with what setup returned, and its random numbers, too."""
        execute: Callable[..., Any] = self._task.execute
        extra = self._extra
        if not self._random:
            return (lambda **assignment: execute(**assignment, **extra)) if extra else execute
        random = (arguments(self._random, self._seed, key) for key in keys.tolist())
        return lambda **assignment: execute(**assignment, **extra, **next(random))

    def _before_fork(self) -> None:
        """Have SIGTERM wait until a process that user code forks is not taken for this one."""
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _became_copy(self) -> None:
        """Note that this is a process that user code forked: it must not write to the part, nor run items."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._is_copy = True
        self._usual = None  # so that the next outputs are looked at
        self._after_fork()

    def _end_copy(self, status: int) -> None:
        if self._is_copy:
            os._exit(status)

    def _row(self, assignment: dict[str, Any], outputs: Any) -> dict[str, Any]:
        """Return what to record beside the parameters."""
        self._end_copy(0)
        check_outputs(outputs, assignment)
        row = {**self._extra, **outputs} if self._extra else outputs
        if self._excluded:
            self._warn_of_ineffective(row)
        kept = {n: value for n, value in row.items() if n not in self._excluded and n not in assignment}
        # Always set: the columns that rows go to are those of the last that came by here.
        self._usual = tuple(kept) if not self._excluded and list(kept) == list(outputs) else None
        return kept

    def _warn_of_ineffective(self, row: Mapping[str, Any]) -> None:
        absent = self._excluded - set(row) - set(self._task.pspace.parameters) - self._warned
        if absent:
            self._warned |= absent
            told = f"excluded from the result, but not in it: {', '.join(sorted(absent))}"
            warnings.warn(told, IneffectiveExcludeWarning, stacklevel=2)


def checked_extra(extra: Any, parameters: Collection[str]) -> dict[str, Any]:
    """Return what setup returned, as a dict.

    Raises
    ------
    TaskError
        It is no dict of names, or has a parameter.
    """
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        raise TaskError(f"setup returned {extra!r:.60} (a {type(extra).__name__}); it takes a dict or None")
    for name in extra:
        if not is_name(name):
            raise TaskError(
                f"setup returned the key {name!r}; it takes printable text that does not begin with __psyrun_"
            )
        if name in parameters:
            raise TaskError(f"setup returned {name!r}, which is the name of a parameter. Use another name")
    return dict(extra)


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
        if not is_name(name):
            raise UnsupportedValueError(
                f"execute returned the key {name!r}; it takes printable text that does not begin with __psyrun_"
            )
        if name in assignment and outputs[name] is not assignment[name]:
            raise UnsupportedValueError(
                f"execute returned {name!r}, which is the name of a parameter. Use another name"
            )
