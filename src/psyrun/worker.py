"""``python -m psyrun.worker WORKDIR PLAN``: the supervisor of the child processes that run items of a plan.

It never runs user code and stays single-threaded. It claims tokens, deals their items to its children in blocks,
beats, starts children that died again, and blames an item only for a death that it saw itself.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from psyrun.child import FAILED, FINISHED, POSITION, PROBLEM, READY, Child, die_with_parent, receive, send
from psyrun.claims import HELD, OPEN, Beat, Observer, Token, new_worker_id, this_host
from psyrun.errors import FencedError, TemporaryError
from psyrun.parts import Failure, Writer, read
from psyrun.plan import Plan, WorkList
from psyrun.workdir import Workdir

Counters = npt.NDArray[np.int64]

_BLOCK_SECONDS = 0.05
_MOST_CHARGES = 3
_MOST_STARTS = 3
_SYNC_SECONDS = 5.0
_GRACE = 0.5


def beat_seconds() -> float:
    """Return the seconds between heartbeats (``PSYRUN_BEAT``)."""
    return float(os.environ.get("PSYRUN_BEAT", "15"))


def ttl_seconds() -> float:
    """Return the seconds without a heartbeat after which a worker is taken for dead (``PSYRUN_TTL``)."""
    return float(os.environ.get("PSYRUN_TTL", "180"))


def shared_counters(n: int) -> Counters:
    """Return n rows of counters in memory that forked processes share."""
    return np.frombuffer(mmap.mmap(-1, max(n, 1) * 3 * 8), dtype=np.int64).reshape(-1, 3)


@dataclass
class _Holding:
    """A token of ours: positions not dealt yet, how many are with children, and whose parts they went to."""

    token: Token
    pending: deque[tuple[int, int]]
    dealt: int = 0
    parts: set[int] = field(default_factory=set)


@dataclass
class _Process:
    """A child process, as its supervisor sees it."""

    number: int
    pid: int
    channel: socket.socket
    part: int
    path: Path
    ready: bool = False
    ended: int | None = None
    block: tuple[int, int] | None = None
    holding: _Holding | None = None


class Supervisor:
    """Runs items of one plan until nothing is left to claim.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
    n_children : int
        How many items run at a time.
    counters : array of int64, shape (n_children, 3)
        Shared memory that shows what the children do.
    notify : int
        Descriptor to tell finished chunks to (-1: to nobody), as lines ``done FIRST LAST``.
    silent : dict, optional
        Workers known to be silent, see `Observer`.
    """

    def __init__(
        self,
        workdir: Workdir,
        plan: Plan,
        n_children: int,
        counters: Counters,
        notify: int = -1,
        silent: Mapping[str, int] | None = None,
    ):
        self.workdir = workdir
        self.plan = plan
        self.id = new_worker_id()
        self._n_children = n_children
        self._counters = counters
        self._notify = notify
        self._claims = plan.claims(self.id)
        self._beat = Beat(workdir.beats, self.id, beat_seconds())
        self._observer = Observer(workdir.beats, ttl_seconds(), silent)
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, _Process] = {}
        self._starts = [0] * n_children
        self._starts_failed = 0
        self._holdings: list[_Holding] = []
        self._candidates: deque[Token] = deque()
        self._charges: dict[int, int] = {}
        self._unsynced: set[int] = set()
        self._next_sync = 0.0
        self._seconds_per_item = 0.0
        self._stop = False
        self._status = 0
        self._own_part: Writer | None = None
        self._log = workdir.logs / f"{plan.id}-{self.id}.log"

    def run(self) -> int:
        """Work; return the exit status: 0 nothing left to claim, 75 temporary trouble, 130 told to stop."""
        self._parent = os.getppid()
        self._beat.beat()
        try:
            self._listen_to_signals()
            if self._more_to_do():
                for number in range(self._n_children):
                    self._start(number)
            while not self._stop and self._children:
                self._check_still_ours()
                self._beat.beat()
                self._sync_in_time()
                for ready, _ in self._selector.select(min(1.0, self._beat.due())):
                    if ready.data is None:
                        self._wakeup[0].recv(4096)
                    else:
                        self._hear(ready.data)
                self._bury_the_dead()
                self._deal()
                if os.getppid() != self._parent:
                    self._stop = True
        except TemporaryError as error:
            self._report(error)
        except OSError as error:
            self._report(TemporaryError(f"{error.filename or self.workdir.path}: {error.strerror}"))
        finally:
            self._shut_down()
        return 130 if self._stop else self._status

    def _listen_to_signals(self) -> None:
        """Note a signal, and wake up for it: a wait would go on otherwise."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wakeup = ours, theirs
        signal.set_wakeup_fd(theirs.fileno())
        self._selector.register(ours, selectors.EVENT_READ, None)
        signal.signal(signal.SIGTERM, self._told_to_stop)
        signal.signal(signal.SIGINT, self._told_to_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes up, too: a pipe stays open if the child had children

    def _told_to_stop(self, *_: object) -> None:
        self._stop = True

    def _report(self, error: TemporaryError) -> None:
        self._status = error.exit_code
        self._tell(f"problem {json.dumps(str(error))}")

    def _tell(self, line: str) -> None:
        if self._notify >= 0:
            try:
                os.write(self._notify, line.encode() + b"\n")
            except BrokenPipeError:
                self._stop = True

    # Children

    def _start(self, number: int) -> None:
        """Fork a child, with a part of its own."""
        count = self._starts[number]
        self._starts[number] += 1
        path = self.workdir.parts / f"{self.id}-{number}-{count}"
        part = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        Writer(part).header(self._header(number, count))
        ours, theirs = socket.socketpair()
        self._counters[number, POSITION] = -1
        me = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._be_child(number, part, ours, theirs, me)
        theirs.close()
        child = _Process(number, pid, ours, part, path)
        self._children[number] = child
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _header(self, number: int, count: int) -> dict[str, Any]:
        plan = self.plan
        about = {"worker": self.id, "child": number, "attempt": count, "host": this_host()}
        return about | {"plan": plan.uid, "code": plan.code, "space": plan.space, "keys": plan.content["keys"]}

    def _be_child(self, number: int, part: int, ours: socket.socket, theirs: socket.socket, parent: int) -> None:
        try:
            os.setpgid(0, 0)  # so that what user code starts can be ended with it
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number_ in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number_, signal.SIG_DFL)
            ours.close()
            for other in self._children.values():
                other.channel.close()
                os.close(other.part)
            self._redirect()
            os.environ["PSYRUN_CHILDREN"] = str(self._n_children)
            Child(self.plan, number, theirs, part, self._counters[number]).run()
        finally:
            os._exit(70)

    def _redirect(self) -> None:
        """Send the output of user code to the log."""
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace")
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
        if self._notify >= 0:
            os.close(self._notify)

    def _hear(self, child: _Process) -> None:
        """Take in a message of a child, or that it closed its end."""
        if self._children.get(child.number) is not child:
            return  # buried since
        message = receive(child.channel)
        if message is None:
            status = child.ended if child.ended is not None else os.waitpid(child.pid, 0)[1]
            self._bury(child, status)
            return
        kind, content = message
        if kind == READY:
            child.ready = True
            self._starts_failed = 0
        elif kind == FINISHED:
            self._finished(child, content)
        elif kind == PROBLEM:
            raise TemporaryError(content)

    def _finished(self, child: _Process, seconds: float) -> None:
        first, last = child.block or (0, -1)
        n = last - first + 1
        self._seconds_per_item = 0.5 * (self._seconds_per_item + seconds / max(n, 1))
        holding = child.holding
        child.block = child.holding = None
        if holding is not None:
            holding.dealt -= n
            self._finish_if_done(holding)

    def _finish_if_done(self, holding: _Holding) -> None:
        if holding.dealt or holding.pending:
            return
        self._sync(holding.parts)
        self._claims.finish(holding.token)
        self._holdings.remove(holding)
        self._tell(f"done {holding.token.first} {holding.token.last}")

    def _bury_the_dead(self) -> None:
        """See to children that ended while something they started keeps their pipe open."""
        for child in list(self._children.values()):
            if child.ended is None:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if not pid:
                    continue
                child.ended = status
            # What it said before it ended comes first.
            if not select.select([child.channel], [], [], 0)[0]:
                self._bury(child, child.ended)

    def _bury(self, child: _Process, status: int) -> None:
        """See to a child that ended by itself: charge the item in hand, deal the rest of its block again."""
        _end_group(child.pid)
        self._forget(child)
        in_hand = int(self._counters[child.number, POSITION])
        if child.block is not None and child.holding is not None:
            if in_hand >= 0:
                self._charge(in_hand, status)
            rest = self._not_on_record(child.block, [child.path])
            first, last = child.block
            child.holding.dealt -= last - first + 1
            child.holding.pending.extendleft(reversed(rest))
            os.fsync(child.part)
            self._finish_if_done(child.holding)
        else:
            self._starts_failed += 1
        os.close(child.part)
        if self._starts_failed >= _MOST_STARTS:
            raise TemporaryError(
                f"processes end before they run an item ({_ending(status)}); see {self._log} "
                f"or: psy-doit logs {self.plan.content['task']}"
            )
        if self._more_to_do():
            self._start(child.number)

    def _forget(self, child: _Process) -> None:
        self._selector.unregister(child.channel)
        child.channel.close()
        self._unsynced.discard(child.part)
        del self._children[child.number]

    def _charge(self, position: int, status: int) -> None:
        """Blame the item in hand; give it up after three deaths."""
        self._charges[position] = self._charges.get(position, 0) + 1
        if self._charges[position] < _MOST_CHARGES:
            return
        index = next(self.plan.work().indices(position, position))[0]
        told = f"the process {_ending(status)} in this item {_MOST_CHARGES} times"
        self._writer().fail(Failure((0, 0), index, time.time(), 0.0, "Crash", told, "", told))
        for number in range(self._n_children):
            if self._counters[number, POSITION] == position:
                self._counters[number, FAILED] += 1

    def _writer(self) -> Writer:
        """Return the supervisor's own part, for what it records itself."""
        if self._own_part is None:
            path = self.workdir.parts / f"{self.id}-s-0"
            part = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            self._own_part = Writer(part)
            self._own_part.header(self._header(-1, 0))
        return self._own_part

    # Tokens

    def _more_to_do(self) -> bool:
        return any(h.pending or h.dealt for h in self._holdings) or self._claim()

    def _deal(self) -> None:
        """Give every idle child a block; end children when nothing is left for them."""
        for child in list(self._children.values()):
            if not child.ready or child.block is not None:
                continue
            holding = next((h for h in self._holdings if h.pending), None)
            if holding is None and self._claim():
                holding = next((h for h in self._holdings if h.pending), None)
            if holding is not None:
                self._give(child, holding)
            elif not self._holdings:
                self._dismiss(child)

    def _give(self, child: _Process, holding: _Holding) -> None:
        first, last = holding.pending.popleft()
        left = last - first + 1 + sum(b - a + 1 for a, b in holding.pending)
        size = max(1, min(-(-left // self._n_children), self._block_size()))
        end = min(last, first + size - 1)
        if end < last:
            holding.pending.appendleft((end + 1, last))
        child.block, child.holding = (first, end), holding
        holding.dealt += end - first + 1
        holding.parts.add(child.part)
        self._unsynced.add(child.part)
        with suppress(ConnectionError):
            send(child.channel, 1, [first, end])

    def _block_size(self) -> int:
        """Return how many items take about 50 ms; one at first."""
        if self._seconds_per_item <= 0:
            return 1
        return int(min(1e6, _BLOCK_SECONDS / self._seconds_per_item))

    def _dismiss(self, child: _Process) -> None:
        """End a child that has nothing left to do."""
        self._forget(child)
        if child.ended is None:
            os.waitpid(child.pid, 0)
        _end_group(child.pid)
        os.close(child.part)

    def _claim(self) -> bool:
        """Claim an open token, or take over that of a dead worker; return whether there was one."""
        for _ in range(2):
            while self._candidates:
                token = self._claims.claim(self._candidates.popleft())
                if token is not None:
                    self._hold(token)
                    return True
            self._candidates.extend(self._claims.tokens(OPEN))
        for held in self._claims.tokens(HELD):
            if held.worker != self.id and self._observer.dead(held.worker):
                token = self._claims.take_over(held)
                if token is not None:
                    self._hold(token)
                    return True
        return False

    def _hold(self, token: Token) -> None:
        pending = [(token.first, token.last)]
        if token.epoch:  # somebody began it: run only what no part of this plan has
            pending = self._not_on_record(pending[0], self.workdir.part_paths())
        holding = _Holding(token, deque(pending))
        self._holdings.append(holding)
        self._finish_if_done(holding)

    def _not_on_record(self, block: tuple[int, int], paths: Iterable[Path]) -> list[tuple[int, int]]:
        """Return the runs of positions in a block that parts of this plan say nothing of."""
        work = self.plan.work()
        seen: set[int] = set()
        for path in [*paths, *self.workdir.parts.glob(f"{self.id}-s-0")]:
            part = read(path)
            if part.header.get("plan") == self.plan.uid:
                seen.update(part.indices.tolist())
                seen.update(f.index for f in part.failures)
        return _absent(work, block, seen)

    def _check_still_ours(self) -> None:
        """After a long sleep (a stopped process, a suspended laptop) see whether others took what we held."""
        if self._beat.overdue() > ttl_seconds():
            held = set(self._claims.tokens(HELD))
            for holding in self._holdings:
                if holding.token not in held:
                    first, last = holding.token.first, holding.token.last
                    raise FencedError(f"chunk {first}-{last} was taken over by another worker")

    # Durability and the end

    def _sync(self, parts: Iterable[int]) -> None:
        for part in set(parts) & self._unsynced:
            os.fsync(part)
        busy = {c.part for c in self._children.values() if c.block is not None}
        self._unsynced -= set(parts) - busy

    def _sync_in_time(self) -> None:
        if time.monotonic() >= self._next_sync:
            for part in self._unsynced:
                os.fsync(part)
            self._next_sync = time.monotonic() + _SYNC_SECONDS

    def _shut_down(self) -> None:
        """End all children, hand back what is not finished, and leave."""
        for child in self._children.values():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        for child in self._children.values():
            if child.ended is None:
                _reap(child.pid, deadline)
            _end_group(child.pid)
            with suppress(OSError):
                os.fsync(child.part)
        for holding in self._holdings:
            with suppress(OSError):
                self._claims.hand_back(holding.token)
        with suppress(OSError):
            self._beat.stop()
            if not self._log.stat().st_size:
                self._log.unlink()


def _absent(work: WorkList, block: tuple[int, int], seen: set[int]) -> list[tuple[int, int]]:
    """Return the runs of positions in a block whose indices were not seen."""
    runs: list[tuple[int, int]] = []
    position = block[0]
    for start, stop in work.indices(*block):
        for index in range(start, stop):
            if index not in seen:
                if runs and runs[-1][1] == position - 1:
                    runs[-1] = (runs[-1][0], position)
                else:
                    runs.append((position, position))
            position += 1
    return runs


def _ending(status: int) -> str:
    """Return how a process ended, in words."""
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"


def _end_group(pid: int) -> None:
    """End what a child started and left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _reap(pid: int, deadline: float) -> None:
    """Wait for a process until a moment of the monotonic clock, then kill it."""
    while time.monotonic() < deadline:
        found, _ = os.waitpid(pid, os.WNOHANG)
        if found:
            return
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@click.command()
@click.argument("workdir", type=click.Path(path_type=Path))
@click.argument("plan")
@click.option("--children", default=1, show_default=True, help="How many items run at a time.")
@click.option("--notify", default=-1, hidden=True)
@click.option("--silent", multiple=True, type=(str, int), hidden=True)
def main(workdir: Path, plan: str, children: int, notify: int, silent: tuple[tuple[str, int], ...]) -> None:
    """Run items of a plan until nothing is left to claim."""
    place = Workdir(workdir)
    counters = shared_counters(children)
    try:
        supervisor = Supervisor(place, Plan.read(place.plans / plan), children, counters, notify, dict(silent))
        sys.exit(supervisor.run())
    except FencedError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
