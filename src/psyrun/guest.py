"""A worker that joins a run under way: `psy-doit work` makes this machine one, `psy-doit grow` adds some."""

from __future__ import annotations

import time
from pathlib import Path

from psyrun import __version__
from psyrun.activity import Lookout
from psyrun.claims import HELD, OPEN, Observer, Token, ttl_seconds
from psyrun.collect import merge
from psyrun.errors import EarlyStopError, PsyrunError, RefusedError, TaskError, TemporaryError
from psyrun.local import LocalWorker
from psyrun.orders import is_drained, share
from psyrun.plan import Plan
from psyrun.progress import progress
from psyrun.questions import check_not_paused, check_python
from psyrun.scheduler import queues_of
from psyrun.state import State, look, lookup_of
from psyrun.tasks import Task

_POLL = 0.5
_PATIENCE = 5.0
"""Seconds until workers share: they look for orders, and at what is open, about once a second."""
_TOLD_TO_STOP = 130


def plan_to_join(task: Task, state: State) -> Plan:
    """Return the newest plan of a task.

    Raises
    ------
    RefusedError
        There is none, or nothing is left in it, or its workers do something else than those of this task would.
    """
    check_not_paused(task)
    plan, again = state.plan, task.command(task.name)
    if state.complete and not state.conflict:
        raise RefusedError(f"{task.name}: nothing is left to claim; all {len(state.done)} items are done")
    if plan is None:
        raise RefusedError(f"{task.name}: nothing is left to claim; there is no plan. To make one: {again}")
    why = _what_differs(task, state, plan)
    if why:
        raise RefusedError(f"{task.name}: no worker can join {plan.path}: {why}")
    return plan


def _what_differs(task: Task, state: State, plan: Plan) -> str:
    """Return why workers of a task cannot join a plan, and what to do; '' if they can."""
    new = f"Or have a new plan made: {task.command(task.name)}"
    if plan.psyrun != __version__:
        made = f"it was made by psyrun {plan.psyrun or 'of another version'}, this is psyrun {__version__}"
        return f"{made}. Use that one. {new}"
    if is_drained(plan.path):
        return f"it was drained. To go on: {task.command(task.name)}"
    if plan.code != task.code:
        codes = f"other code ({plan.code[:8]}) than {task.path.name} and what it imports have here ({task.code[:8]})"
        return f"it is of {codes}. Make these the same. {new}"
    if plan.space != task.pspace.digest:
        items = f"{plan.n_items} items, {plan.space[:8]}; here {len(task.pspace)}, {task.pspace.digest[:8]}"
        return f"it is of another parameter space ({items}). Make these the same. {new}"
    if not state.fits():
        return f"it is of other values of `added`. Make these the same. {new}"
    if not Path(plan.content["cwd"]).is_dir():
        return f"its directory {plan.content['cwd']} is not on this machine. Have it there under the same path"
    return ""


class Guest:
    """Works on the newest plan of a task, whoever made it.

    Parameters
    ----------
    task : Task
    worker : LocalWorker
        Forked before the task was loaded.
    n_children : int, optional
        How many items run at a time; default as the task says of this machine, or of each job.
    items : int, optional
        The most items that are begun.
    seconds : float, optional
        When none is begun any more.
    """

    def __init__(
        self,
        task: Task,
        worker: LocalWorker,
        n_children: int | None = None,
        items: int | None = None,
        seconds: float | None = None,
    ):
        self.task = task
        self._worker = worker
        n_jobs = 1 if queues_of(task.scheduler) else task.scheduler.n_workers()
        self._n_children = n_children or n_jobs * task.options["pool_size"]
        self._items = items
        self._seconds = seconds
        self._observer = Observer(task.workdir.beats, ttl_seconds())
        self._problem: PsyrunError | None = None
        self._n_claimable = 0
        self._ran = 0, 0

    def prepare(self) -> None:
        """Find out what there is to do; nothing is written.

        Raises
        ------
        RefusedError
            Nothing, or not by this worker.
        """
        check_python(self.task)
        self._plan = plan_to_join(self.task, look(self.task, self._observer))
        self._n_claimable = sum(map(len, self._claimable()))
        if not self._n_claimable:
            activity = Lookout(self.task.workdir).look()
            told = f"At work on the rest: {activity.who()}" if activity.at_work else "What failed or is not planned"
            raise RefusedError(f"{self.task.name}: nothing is left to claim. {told}: {self._next(activity.at_work)}")

    def _next(self, at_work: bool) -> str:
        """Return what to type."""
        name = self.task.name
        return self.task.command("wait", name) if at_work else self.task.command(name)

    def _claimable(self) -> list[Token]:
        """Return what is open, or left by the dead, or can be shared by others."""
        claims = self._plan.claims()
        held = claims.tokens(HELD)
        return claims.tokens(OPEN) + [t for t in held if len(t) > 1 or self._observer.dead(t.worker)]

    def _have_shared(self) -> None:
        """Have those at work share their chunks, and wait until they do, unless there is something to claim already."""
        share(self._plan)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end and not self._plan.claims().has(OPEN):
            held = self._plan.claims().tokens(HELD)
            if not held or any(self._observer.dead(token.worker) for token in held):
                break
            time.sleep(_POLL)

    def work(self) -> int:
        """Work until nothing is left to claim or the quota is used up; return the exit status.

        Raises
        ------
        TaskError, TemporaryError
            The worker cannot go on.
        """
        self._have_shared()
        most = min(self._n_claimable, self._items or self._n_claimable)
        python = self.task.options["python"]
        n_children = min(self._n_children, most)
        silent = self._observer.silent()
        path = self.task.workdir.path
        words = (path, self._plan.id, n_children, python and str(python), silent, self._items, self._seconds)
        status = 0
        with progress(self.task.name, most) as shown:
            self._worker.start(*words)
            while self._worker.running:
                for event in self._worker.events(_POLL):
                    if event.kind == "problem":
                        kinds = (TaskError, EarlyStopError)
                        kind = next((k for k in kinds if k.exit_code == event.first), TemporaryError)
                        self._problem = kind(f"{self.task.name}: {event.text}")
                    elif event.kind == "ran":  # another interpreter shares no counters
                        self._ran = event.first, event.last
                    elif event.kind == "exit":
                        status = event.first
                shown.show(*self._worker.counts())
        return self._ended(status)

    def _ended(self, status: int) -> int:
        self.task.workdir.check_there()
        if self._problem is not None and not isinstance(self._problem, EarlyStopError):
            raise self._problem
        if status not in (0, EarlyStopError.exit_code, _TOLD_TO_STOP):
            raise TemporaryError(
                f"{self.task.name}: the worker was ended (status {status}); what it finished is on record. "
                f"What else is known: {self.task.command('logs', self.task.name)}"
            )
        return status or int(self._ran[1] > 0)

    def leave(self) -> list[str]:
        """Merge, if nobody else will; return what to tell."""
        task, name = self.task, self.task.name
        # This worker's heart beats no more, so of several that leave at once the one that looks last sees nobody. If
        # others merge at the same time, each writes beside, and they agree.
        activity = Lookout(task.workdir).look()
        newest = Plan.read(task.workdir.plans / task.workdir.plan_ids()[-1])
        same, claims = newest.id == self._plan.id, newest.claims()
        over = same and (is_drained(newest.path) or self._problem is not None)
        if not activity.at_work and (over or not (claims.has(OPEN) or claims.has(HELD))):
            merging = task if same else newest.task()
            merge(task.workdir, newest, merging, lookup_of(merging))
        n, n_failed = self._ran
        state = look(task, self._observer)
        n_done = int(state.done.sum())
        found = [f"{name}: {n} items finished here{f', {n_failed} of them failed' if n_failed else ''}"]
        if self._problem is not None:
            found.append(str(self._problem))
        found.append(f"{name}: {n_done} of {len(state.done)} items done")
        if not state.complete or not state.merged:
            found[-1] += f", {len(state.done) - n_done} left; at work: {activity.who()}. {self._next(activity.at_work)}"
        return found
