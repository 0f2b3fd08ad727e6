"""A worker on this machine, forked before any user code is loaded.

Forking a process that has loaded a task was seen to repeat random numbers and to hang under OpenMP. So the command
calls `prefork` first; the process made there waits until it is told which plan to work on.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click

from psyrun.child import DONE, FAILED, POSITION, RECORDING, preload
from psyrun.claims import Observer, ttl_seconds
from psyrun.errors import PsyrunError, TemporaryError
from psyrun.interrupts import be_over
from psyrun.plan import Plan
from psyrun.processes import RECORDING_GRACE, adopt_orphans, die_with_parent, end_orphans, wait_for
from psyrun.supervisor import Supervisor
from psyrun.terms import Quota
from psyrun.watch import shared_counters
from psyrun.workdir import Workdir

_MOST_CHILDREN = 1024
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Event:
    """What a worker told.

    ``done`` (first and last position), ``problem`` (exit status, text), ``ran`` (items, failed), ``pid`` or ``exit``.
    """

    kind: str
    first: int = 0
    last: int = 0
    text: str = ""


def interrupted(worker: LocalWorker) -> int:
    """Stop a worker in order after Ctrl-C, at once if there is a second one; return the exit status."""
    try:
        click.echo("psy-doit: interrupted; stopping (Ctrl-C again: at once)", err=True)
        worker.stop()
    except KeyboardInterrupt:
        be_over()
        worker.kill()
    be_over()
    again = shlex.join(sys.argv[1:])
    click.echo(f"psy-doit: interrupted; what is finished is on record. To go on: psy-doit {again}", err=True)
    return 130


class LocalWorker:
    """The one worker that a command runs on its own machine; started once or several times, one after another."""

    def __init__(self) -> None:
        self._counters = shared_counters(_MOST_CHILDREN)
        self._orders, theirs = os.pipe()
        theirs, self._orders = self._orders, theirs
        self._events, notify = os.pipe()
        self._rest = b""
        self._supervisor = 0
        self.running = False
        command = os.getpid()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy's idle threads; they survive a fork
            self._pid = os.fork()
        if self._pid == 0:
            os.close(self._orders)
            os.close(self._events)
            self._wait_for_orders(theirs, notify, command)
        os.close(theirs)
        os.close(notify)

    def start(
        self,
        workdir: Path,
        plan: str,
        n_children: int,
        python: str | None = None,
        silent: Mapping[str, int] | None = None,
        items: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Start a worker for a plan.

        Parameters
        ----------
        workdir : Path
        plan : str
            The plan's id.
        n_children : int
            How many items run at a time.
        python : str, optional
            Another interpreter to run it with.
        silent : dict, optional
            Workers known to be silent, see `psyrun.claims.Observer`.
        items, seconds : optional
            The most that it may begin, and until when, see `psyrun.terms.Quota`.
        """
        self._counters[:] = (-1, 0, 0, 0, 0)
        order = {"workdir": str(workdir), "plan": plan, "children": min(n_children, _MOST_CHILDREN)}
        order |= {"python": python, "silent": dict(silent or {}), "quota": [items, seconds]}
        try:
            os.write(self._orders, json.dumps(order).encode() + b"\n")
        except BrokenPipeError as error:
            raise TemporaryError("the process that starts workers was killed. Type the command again") from error
        self.running = True

    def counts(self) -> tuple[int, int]:
        """Return how many items this worker ran, and how many of them failed."""
        total = self._counters.sum(axis=0)
        return int(total[DONE]), int(total[FAILED])

    def in_hand(self) -> list[int]:
        """Return the positions of the work list that are being computed."""
        return [p for p in self._counters[:, POSITION].tolist() if p >= 0]

    def events(self, timeout: float) -> Iterator[Event]:
        """Yield what the worker told, after waiting up to so many seconds for it."""
        if not select.select([self._events], [], [], timeout)[0]:
            return
        data = os.read(self._events, 2**16)
        if not data:
            self.running = False
            yield Event("exit", 1)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield self._event(line.decode())

    def _event(self, line: str) -> Event:
        kind, _, rest = line.partition(" ")
        if kind == "problem":
            status, _, text = rest.partition(" ")
            return Event(kind, int(status), text=json.loads(text))
        numbers = [int(n) for n in rest.split()]
        if kind == "pid":
            self._supervisor = numbers[0]
        elif kind == "exit":
            self.running = False
            self._supervisor = 0
        return Event(kind, numbers[0], numbers[-1])

    def stop(self) -> None:
        """Have the worker put what is finished on record, hand back the rest, and end; kill it if it does not."""
        self._signal(signal.SIGTERM)
        began = time.monotonic()
        while self.running and time.monotonic() - began < self._patience():
            if any(event.kind == "pid" for event in self.events(0.1)):
                self._signal(signal.SIGTERM)  # it was only being started
        self._signal(signal.SIGKILL)

    def _patience(self) -> float:
        """Return how many seconds to wait for the worker's end: recording what is finished may take a while."""
        return RECORDING_GRACE + _STOP_SECONDS if self._counters[:, RECORDING].any() else _STOP_SECONDS

    def kill(self) -> None:
        """End the worker at once. What is finished is on record, but for what the last 20 ms brought."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.running and self._supervisor:
            with suppress(ProcessLookupError):
                os.kill(self._supervisor, number)
                os.kill(self._supervisor, signal.SIGCONT)

    def close(self) -> None:
        """End the process that was forked."""
        self.stop()
        with suppress(BrokenPipeError):
            os.write(self._orders, b"null\n")  # the end of file does not come if user code forked: the copy has it open
        os.close(self._orders)
        os.close(self._events)
        with suppress(ChildProcessError):  # a task file may have SIGCHLD ignored
            os.waitpid(self._pid, 0)

    def _wait_for_orders(self, orders: int, notify: int, command: int) -> NoReturn:
        """Start a worker for every order, in this process's stead; end with the command."""
        status = 1
        try:
            os.setsid()  # Ctrl-C is for the command, which stops its worker in order
            signal.signal(signal.SIGTERM, self._pass_on)
            adopt_orphans()
            die_with_parent(command, signal.SIGTERM)
            preload()
            with os.fdopen(orders) as lines:
                for order in map(json.loads, lines):
                    if order is None:
                        break
                    self._obey(order, notify)
            status = 0
        finally:
            os._exit(status)

    def _obey(self, order: dict[str, Any], notify: int) -> None:
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
                die_with_parent(parent, signal.SIGTERM)
                status = self._work(order, notify)
            finally:
                sys.stderr.flush()
                os._exit(status)
        self._supervisor = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        with suppress(BrokenPipeError):
            os.write(notify, b"pid %d\n" % pid)
        status = wait_for(pid)
        self._supervisor = 0
        end_orphans()
        os.write(notify, b"exit %d\n" % os.waitstatus_to_exitcode(status))

    def _pass_on(self, *_: object) -> None:
        """The command is gone: have the supervisor end in order, or end if there is none."""
        if not self._supervisor:
            os._exit(0)
        with suppress(ProcessLookupError):
            os.kill(self._supervisor, signal.SIGTERM)

    def _work(self, order: dict[str, Any], notify: int) -> int:
        if order["python"]:
            os.set_inheritable(notify, True)
            told = ["--children", str(order["children"]), "--notify", str(notify)]
            for worker, count in order["silent"].items():
                told += ["--silent", worker, str(count)]
            for option, most in zip(("--items", "--seconds"), order["quota"], strict=True):
                told += [] if most is None else [option, str(most)]
            arguments = [order["python"], "-m", "psyrun.worker", *told, order["workdir"], order["plan"]]
            os.execvp(order["python"], arguments)  # noqa: S606 - no shell: the interpreter that the task names
        workdir = Workdir(Path(order["workdir"]))
        try:
            plan = Plan.read(workdir.plans / order["plan"])
        except PsyrunError as error:
            os.write(notify, f"problem {error.exit_code} {json.dumps(str(error))}\n".encode())
            return error.exit_code
        counters = self._counters[: order["children"]]
        observer = Observer(workdir.beats, ttl_seconds(), order["silent"])
        quota = Quota(*order["quota"])
        return Supervisor(workdir, plan, order["children"], counters, notify, observer, quota=quota).run()
