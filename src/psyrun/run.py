"""Running one task: make or join a plan, have its chunks worked on, merge. `psyrun.steps` shows this to doit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from psyrun.claims import DONE, HELD, OPEN, Observer, Token
from psyrun.collect import merge
from psyrun.errors import RefusedError, TemporaryError
from psyrun.local import LocalWorker
from psyrun.plan import Draft, Mask, Plan, ranges_of
from psyrun.progress import Progress
from psyrun.provenance import provenance
from psyrun.status import State, look, lookup_of
from psyrun.tasks import Task
from psyrun.worker import ttl_seconds

KEEP, FRESH, QUIT = "keep", "fresh", "quit"

_MOST_RESTARTS = 5
_POLL = 0.5


class AskAboutCode(Protocol):
    """Asks what to do with rows that other code computed."""

    def __call__(self, state: State) -> str:
        """Return KEEP, FRESH or QUIT."""


@dataclass
class Choices:
    """What the command line says about a run."""

    n_workers: int | None = None
    code: str = ""
    ask: AskAboutCode | None = None


@dataclass
class _Chunk:
    token: Token
    left: int = 0
    covered: set[tuple[int, int]] = field(default_factory=set)


class Run:
    """One command's work on one task.

    Parameters
    ----------
    task : Task
    choices : Choices
    worker : LocalWorker
        Forked before the task was loaded.
    """

    def __init__(self, task: Task, choices: Choices, worker: LocalWorker):
        self.task = task
        self.workdir = task.workdir
        self._choices = choices
        self._worker = worker
        self.progress: Progress | None = None
        self._plan: Plan | None = None
        self._chunks: list[_Chunk] = []
        self._restarts = 0
        self._ran_before = 0
        self._told: set[str] = set()
        self._problem = ""

    # Before doit

    def prepare(self) -> None:
        """Look where the task stands and decide what to do; nothing is written.

        Raises
        ------
        RefusedError
            Rows are done with other code, and nobody said what to do with them.
        """
        self.n_workers = self._choices.n_workers or self.task.scheduler.n_workers() * self.task.options["pool_size"]
        self.state = look(self.task)
        self.fresh = self.state.conflict and self._about_code() == FRESH
        self.joins = self.state.joins() and not self.fresh
        todo = np.ones(len(self.task.pspace), dtype=bool) if self.fresh else self.state.missing
        plan = self.state.plan
        self.plans = not self.joins and (
            bool(todo.any())
            or plan is None
            or plan.space != self.task.pspace.digest
            or self.task.code not in plan.accepts
        )
        if self.joins and plan is not None:
            self.n_chunks = plan.n_chunks
        else:
            self.n_chunks = len(self._sizes(todo))
        self.merges = self.plans or self.joins or not self.state.merged

    def _about_code(self) -> str:
        """Return KEEP or FRESH for rows that other code computed."""
        if self._choices.code:
            return self._choices.code
        if self.task.options["overwrite_dirty"]:
            return FRESH
        answer = self._choices.ask(self.state) if self._choices.ask else QUIT
        if answer == QUIT:
            n_done = int(self.state.done.sum())
            raise RefusedError(
                f"{self.task.name}: {n_done} of {len(self.state.done)} items were computed with other code than "
                f"{self.task.path.name} has now. Keep them and compute only the others: psy-doit {self.task.name} --keep. "
                f"Put them into the archive and compute all again: psy-doit {self.task.name} --fresh"
            )
        return answer

    def _sizes(self, todo: Mask) -> list[int]:
        options = self.task.options
        return self.task.backend.sizes(int(todo.sum()), options["max_jobs"], options["min_items"])

    # The steps

    def split(self) -> None:
        """Put a plan in place, unless another command just did."""
        self.workdir.create()
        if self.fresh:
            self._archive()
        for _ in range(10):
            if self.state.plan is not None:
                # First nothing of the old plan can be started any more, then it is counted what was.
                self.state.plan.claims().withdraw()
            self.state = look(self.task)
            if self.state.joins():
                self._plan = self.state.plan
                return
            draft = self._draft()
            with self.workdir.new_plan(self.state.plan.id if self.state.plan else None) as place:
                draft.write(place, self.task, provenance(self.task.cwd))
                if place.commit():
                    self._plan = Plan.read(place.path)
                    return
        raise TemporaryError(f"{self.workdir.path}: other commands keep making plans. Try again when they are done")

    def _archive(self) -> None:
        """Put the old record and result out of the way; nothing is removed."""
        if self.state.plan is not None:
            self.state.plan.claims().withdraw()
        for path in (self.workdir.parts, self.workdir.manifest, self.task.result):
            self.workdir.archived(path)
        self.workdir.create()

    def _draft(self) -> Draft:
        state, task = self.state, self.task
        keep = state.conflict or task.code in state.accepts
        accepts = sorted({*state.accepts, task.code}) if keep else [task.code]
        todo = state.missing
        elsewhere = state.placement.elsewhere if state.placement is not None else []
        keys = np.concatenate([np.empty((0, 2), np.uint64), *(part.keys for part in elsewhere)])
        index = lookup_of(task)(keys) if len(keys) else np.empty(0, np.int64)
        inside = index >= 0
        return Draft(ranges_of(todo), self._sizes(todo), accepts, keys[inside], index[inside])

    def process(self, number: int) -> None:
        """Return when a chunk of the plan is worked on to its end."""
        self._load_plan()
        if number < len(self._chunks):
            self._until(lambda: self._chunks[number].left <= 0)

    def merge(self) -> None:
        """Return when all chunks are worked on and the result is in place."""
        plan = self._load_plan()
        if self._chunks:
            self._until(lambda: all(chunk.left <= 0 for chunk in self._chunks))
            self._wait_for_exit()
        merge(self.workdir, plan, self.task.result, self.task.store, lookup_of(self.task))

    def stop(self) -> None:
        """Have the worker stop; what is finished is on record."""
        self._worker.stop()

    def _load_plan(self) -> Plan:
        if self._plan is None:
            self._plan = self.state.plan
        if self._plan is None:
            raise TemporaryError(f"{self.workdir.path}: there is no plan")
        if not self._chunks and (self.plans or self.joins):
            self._chunks = [_Chunk(token, len(token)) for token in self._plan.tokens()]
            self._firsts = np.array([chunk.token.first for chunk in self._chunks])
            self._read_done()
        return self._plan

    # Waiting

    def _until(self, finished: Callable[[], bool]) -> None:
        while not finished():
            if not self._worker.running:
                self._read_done()
                if finished():
                    return
                self._start_or_wait()
            self._listen()

    def _listen(self) -> None:
        for event in self._worker.events(_POLL):
            if event.kind == "done":
                self._cover(event.first, event.last)
                self._restarts = 0
            elif event.kind == "problem":
                self._problem = event.text
            elif event.kind == "exit":
                self._exited(event.first)
        if self.progress is not None:
            done, failed = self._worker.counts()
            self.progress.show(self._ran_before + done, failed)

    def _exited(self, status: int) -> None:
        self._ran_before += self._worker.counts()[0]
        if self._problem:
            raise TemporaryError(f"{self.task.name}: {self._problem}")
        if status == 0:
            return
        self._restarts += 1
        if self._restarts > _MOST_RESTARTS:
            raise TemporaryError(
                f"{self.task.name}: the worker ended {self._restarts} times (status {status}) without finishing a "
                f"chunk. What it finished is on record; see psy-doit logs {self.task.name}, then run it again"
            )
        self._say(f"{self.task.name}: the worker ended (status {status}); starting another for what is left")

    def _wait_for_exit(self) -> None:
        while self._worker.running:
            self._listen()

    def _start_or_wait(self) -> None:
        """Start a worker if it would find a chunk; else wait for those that hold the rest."""
        plan = self._load_plan()
        claims = plan.claims()
        observer = self._observer()
        held = claims.tokens(HELD)
        if claims.tokens(OPEN) or any(observer.dead(token.worker) for token in held):
            workers = min(self.n_workers, max(1, plan.n_work))
            self._worker.start(self.workdir.path, plan.id, workers, self.task.options["python"])
            return
        for token in held:
            beat = observer.read(token.worker)
            where = f"{beat['host']}, process {beat['pid']}" if beat else "host unknown"
            self._say(f"{self.task.name}: waiting for another worker ({where}) to finish {len(token)} items")
        if not held:
            self._read_done()
            if any(chunk.left > 0 for chunk in self._chunks):
                raise TemporaryError(
                    f"{self.task.name}: another command replaced the plan. Type it again: psy-doit {self.task.name}"
                )

    def _observer(self) -> Observer:
        if not hasattr(self, "_watching"):
            self._watching = Observer(self.workdir.beats, ttl_seconds())
        return self._watching

    def _say(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            if self.progress is not None:
                self.progress.say(line)
            else:
                print(line, file=sys.stderr)

    def _read_done(self) -> None:
        for token in self._load_plan().claims().tokens(DONE):
            self._cover(token.first, token.last)

    def _cover(self, first: int, last: int) -> None:
        """Count positions first..last, which are one chunk's, as worked on."""
        chunk = self._chunks[int(np.searchsorted(self._firsts, first, side="right")) - 1]
        if (first, last) not in chunk.covered:
            chunk.covered.add((first, last))
            chunk.left -= last - first + 1
