"""Running one task: make or join a plan, have its chunks worked on, merge. `psyrun.steps` shows this to doit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from psyrun.collect import merge
from psyrun.errors import RefusedError, TemporaryError
from psyrun.local import LocalWorker
from psyrun.plan import Draft, Mask, Plan, ranges_of
from psyrun.progress import Progress
from psyrun.provenance import provenance
from psyrun.status import State, look, lookup_of
from psyrun.tasks import Task
from psyrun.work import Work

KEEP, FRESH, QUIT = "keep", "fresh", "quit"

_MOST_PLANS = 10


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
        self._work: Work | None = None

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
        serves = plan is not None and plan.space == self.task.pspace.digest and self.task.code in plan.accepts
        self.plans = not self.joins and (bool(todo.any()) or not serves)
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
                f"{self.task.path.name} has now. "
                f"Keep them and compute only the others: psy-doit {self.task.name} --keep. "
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
        for _ in range(_MOST_PLANS):
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
        self._working().wait_for(number)

    def merge(self) -> None:
        """Return when all chunks are worked on and the result is in place."""
        if self.plans or self.joins:
            self._working().wait_for_all()
        merge(self.workdir, self._current(), self.task.result, self.task.store, lookup_of(self.task))

    def stop(self) -> None:
        """Have the worker stop; what is finished is on record."""
        self._worker.stop()

    def _current(self) -> Plan:
        plan = self._plan or self.state.plan
        if plan is None:
            raise TemporaryError(f"{self.workdir.path}: the plan is gone. Type it again: psy-doit {self.task.name}")
        return plan

    def _working(self) -> Work:
        if self._work is None:
            self._work = Work(self.task, self._current(), self._worker, self.n_workers, self.progress)
        return self._work
