"""Having the chunks of a plan worked on: by a worker of this command, or by those that hold them already."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from psyrun.claims import DONE, HELD, OPEN, Observer, Token, ttl_seconds
from psyrun.errors import DrainedError, EarlyStopError, PsyrunError, TaskError, TemporaryError
from psyrun.local import LocalWorker
from psyrun.orders import is_drained, is_paused
from psyrun.plan import Plan
from psyrun.progress import Progress
from psyrun.tasks import Task

_POLL = 0.5


@dataclass
class _Chunk:
    """A chunk as it was dealt, how many of its positions are not worked on, and which tokens were."""

    token: Token
    left: int
    covered: set[tuple[int, int]] = field(default_factory=set)

    def cover(self, first: int, last: int) -> None:
        """Count positions as worked on: some maybe twice, if a worker was killed while it shared them."""
        if (first, last) not in self.covered:
            self.covered.add((first, last))
            end = self.token.first - 1
            self.left = len(self.token)
            for begin, stop in sorted(self.covered):
                self.left -= max(0, stop - max(begin, end + 1) + 1)
                end = max(end, stop)


class Work:
    """The work on one plan, as the command that waits for it sees it.

    Parameters
    ----------
    task : Task
    plan : Plan
    worker : LocalWorker
    n_workers : int
        How many items run at a time.
    observer : Observer
    progress : Progress, optional
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        worker: LocalWorker,
        n_workers: int,
        observer: Observer,
        progress: Progress | None,
    ):
        self._task = task
        self._plan = plan
        self._worker = worker
        self._n_workers = n_workers
        self._progress = progress
        self._chunks = [_Chunk(token, len(token)) for token in plan.tokens()]
        self._firsts = np.array([chunk.token.first for chunk in self._chunks], dtype=np.int64)
        self._observer = observer
        self._restarts = 0
        self._ran_before = 0
        self._told: set[str] = set()
        self._problem: PsyrunError | None = None
        self._unseen_since = math.inf
        self._read_done()

    def wait_for(self, number: int) -> None:
        """Return when a chunk is worked on to its end; at once if the plan has none of that number."""
        if number < len(self._chunks):
            self._until(lambda: self._chunks[number].left <= 0)

    def wait_for_all(self) -> None:
        """Return when all chunks are worked on and the worker has left."""
        self._until(lambda: all(chunk.left <= 0 for chunk in self._chunks))
        while self._worker.running:
            self._listen()

    def _until(self, finished: Callable[[], bool]) -> None:
        while not finished():
            if not self._worker.running:
                self._read_done()
                if finished():
                    return
                self._check_not_drained()
                self._start_or_wait()
            self._listen()

    def _listen(self) -> None:
        """Take in what the worker tells, or let half a second pass."""
        for event in self._worker.events(_POLL):
            if event.kind == "done":
                self._cover(event.first, event.last)
                self._restarts = 0
            elif event.kind == "problem":
                kind = next((k for k in (TaskError, EarlyStopError) if k.exit_code == event.first), TemporaryError)
                again = "" if "psy-doit" in event.text else f". To go on: {self._task.command(self._task.name)}"
                self._problem = kind(f"{self._task.name}: {event.text}{again if kind is TemporaryError else ''}")
            elif event.kind == "exit":
                self._exited(event.first)
        if is_paused(self._task.workdir):
            self._say(f"{self._task.name}: paused. To go on: {self._task.command('resume', self._task.name)}")
        if self._progress is not None:
            done, failed = self._worker.counts() if self._worker.running else (0, 0)
            self._progress.show(self._ran_before + done, failed)

    def _exited(self, status: int) -> None:
        self._ran_before += self._worker.counts()[0]
        self._task.workdir.check_there()
        if self._problem is not None:
            raise self._problem
        self._check_not_drained()
        self._restarts += 1  # also when it found nothing to claim, so that no trouble makes this go round for ever
        name = self._task.name
        if self._restarts > self._plan.retries["lost"]:
            raise TemporaryError(
                f"{name}: the worker ended {self._restarts} times (status {status}) without finishing a chunk. "
                f"What it finished is on record; see {self._task.command('logs', name)}, then run it again"
            )
        if status:
            self._say(f"{name}: the worker ended (status {status}); another one takes what is left")

    def _check_not_drained(self) -> None:
        """Raise if workers were told to leave, and something is left."""
        if not is_drained(self._plan.path):
            return
        self._read_done()
        if any(chunk.left > 0 for chunk in self._chunks):
            name = self._task.name
            told = f"{name}: drained; what is finished is on record. To go on: {self._task.command(name)}"
            raise DrainedError(told)

    def _start_or_wait(self) -> None:
        """Start a worker if it would find a chunk; else wait for those that hold the rest."""
        claims = self._plan.claims()
        held = claims.tokens(HELD)
        silent = [token for token in held if self._observer.dead(token.worker)]
        if held or claims.tokens(OPEN):
            self._unseen_since = math.inf
        if claims.tokens(OPEN) or silent:
            self._start()
            return
        for token in held:
            beat = self._observer.read(token.worker)
            where = f"on {beat['host']}, process {beat['pid']}" if beat else "on a host that is not known"
            self._say(f"{self._task.name}: waiting for a worker {where} to finish {len(token)} items")
        if not held:
            self._check_not_withdrawn()

    def _start(self) -> None:
        python = self._task.options["python"]
        n_children = min(self._n_workers, max(1, self._plan.n_work))
        silent = self._observer.silent()
        self._worker.start(self._task.workdir.path, self._plan.id, n_children, python and str(python), silent)

    def _check_not_withdrawn(self) -> None:
        """Raise if nobody holds what is left and nobody can: another command made a newer plan.

        On network file systems a token that was just made or moved may be seen nowhere for a while.
        """
        self._read_done()
        if all(chunk.left <= 0 for chunk in self._chunks):
            return
        name, again = self._task.name, self._task.command(self._task.name)
        self._task.workdir.check_there()
        if not (self._plan.path / OPEN).is_dir():
            raise TemporaryError(f"{name}: another command replaced the plan. Type it again: {again}")
        self._unseen_since = min(self._unseen_since, time.monotonic())
        if time.monotonic() - self._unseen_since > ttl_seconds():
            raise TemporaryError(f"{self._plan.path}: chunks are nowhere. To make a new plan of them: {again}")

    def _say(self, line: str) -> None:
        if self._progress is not None and line not in self._told:
            self._told.add(line)
            self._progress.say(line)

    def _read_done(self) -> None:
        for token in self._plan.claims().tokens(DONE):
            self._cover(token.first, token.last)

    def _cover(self, first: int, last: int) -> None:
        """Count positions first..last, which are one chunk's, as worked on."""
        self._chunks[int(np.searchsorted(self._firsts, first, side="right")) - 1].cover(first, last)
