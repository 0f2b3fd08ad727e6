"""Running one task: make or join a plan, have its chunks worked on, merge. `psyrun.steps` shows this to doit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from psyrun.claims import Claims, Observer, ttl_seconds
from psyrun.collect import merge
from psyrun.dealing import Dealing, dealing_of
from psyrun.errors import RefusedError, TaskError, TemporaryError
from psyrun.local import LocalWorker
from psyrun.plan import Draft, Indices, Mask, Plan
from psyrun.progress import Progress
from psyrun.provenance import provenance
from psyrun.questions import check_not_paused, check_parameters, check_python, check_selection, cost_of, size_of
from psyrun.record import Placement, read_parts
from psyrun.retire import retire
from psyrun.scan import Part, read
from psyrun.selection import Selection
from psyrun.state import Held, State, held_tokens, look, lookup_of
from psyrun.tasks import Task
from psyrun.work import Work

if TYPE_CHECKING:
    from psyrun.forecast import Forecast

KEEP, FRESH, QUIT = "keep", "fresh", "quit"

_MOST_PLANS = 10
_POLL = 0.2


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
    confirm: Callable[[str], bool] | None = None
    new_seed: bool = False
    dry_run: bool = False
    selection: Selection = field(default_factory=Selection)


class Step(NamedTuple):
    """A step of a run, and whether there is nothing to do for it."""

    name: str
    action: Callable[[], None]
    up_to_date: bool = False


class Run:
    """One command's work on one task.

    Parameters
    ----------
    task : Task
    choices : Choices
    worker : LocalWorker, optional
        Forked before the task was loaded. Without, nothing can be run.
    """

    def __init__(self, task: Task, choices: Choices, worker: LocalWorker | None = None):
        self.task = task
        self.workdir = task.workdir
        self.progress: Progress | None = None
        self._choices = choices
        # What the command line says wins over the task file, and that over a question.
        self._about_code = choices.code or (FRESH if task.options["overwrite_dirty"] else "")
        self._worker = worker
        # One for the whole command: it must watch a silent worker for as long as it takes.
        self._observer = Observer(self.workdir.beats, ttl_seconds())
        self._plan: Plan | None = None
        self._work: Work | None = None
        self._dealing: Dealing | None = None
        self._n_queues = 1
        self.stopped = ""
        self._seed = int.from_bytes(os.urandom(8), "big") >> 1

    # Before doit

    def prepare(self) -> None:
        """Look where the task stands and decide what to do; nothing is written.

        Raises
        ------
        RefusedError
            Rows are done with other code, and nobody said what to do with them; or the task is paused.
        TaskError
            The result cannot be written where it should go, or the store cannot hold a parameter.
        """
        check_not_paused(self.task)
        if self.task.result.exists() and not self.task.result.is_file():
            raise TaskError(f"resultfile = {str(self.task.result)!r}: is there already, and is not a file")
        check_python(self.task)
        self.n_workers = self._n_workers()
        self._confirm(size_of(self.task, self.n_workers))
        state = look(self.task, self._observer)
        check_parameters(self.task)
        self._choose(state)
        check_selection(state, self._choices.selection, self.chosen, self._about_code)
        self.found_other_code = state.conflict
        if state.conflict:
            if not self._about_code:
                self._about_code = self._choices.ask(state) if self._choices.ask else ""
            state = look(self.task, self._observer, self._accepts(state))
        todo = self._todo(state)
        self.joins = state.joins()
        if self.joins and self._choices.new_seed:
            raise RefusedError(f"{self.task.name}: workers are computing items of it, with the seed of their plan")
        self.plans = not self.joins and (not state.fits() or bool(todo.any()))
        self.works = self.plans or self.joins or bool(state.running.any())
        self.merges = self.works or not state.merged
        self.n_missing = int(todo.sum())
        if self.joins and state.plan is not None:
            self.n_chunks = state.plan.n_chunks
        else:
            if self.plans:
                self._confirm(cost_of(state, self.n_missing, self._dealer(todo).total(todo)))
            self.n_chunks = len(self._dealt(state, todo)[1])
        self._plan = state.plan

    def forecast(self) -> Forecast:
        """Return what a run would do; nothing is written, and nobody asked."""
        from psyrun.forecast import Forecast

        check_python(self.task)
        self.n_workers = self._n_workers()
        state = look(self.task, self._observer, rows=True)
        check_parameters(self.task)
        self._choose(state)
        todo = self._todo(state)
        refused = ""
        try:
            check_selection(state, self._choices.selection, self.chosen, self._about_code)
        except RefusedError as error:
            refused = str(error)
        if state.conflict and self._about_code == FRESH:
            todo = np.ones_like(todo)
        total = self._dealer(todo).total(todo)
        asks = cost_of(state, int(todo.sum()), total)
        sizes = self._dealt(state, todo)[1]
        return Forecast(state, sizes, self.n_workers, state.joins(), refused, asks, total)

    def _choose(self, state: State) -> None:
        """Find out which items are selected: once, for what is failed or missing changes while they run."""
        self.chosen = self._choices.selection.chosen(state)
        self._again = self._choices.selection.again

    def _n_workers(self) -> int:
        return self._choices.n_workers or self.task.scheduler.n_workers() * self.task.options["pool_size"]

    def _todo(self, state: State) -> Mask:
        """Return which items this run computes."""
        open_to = state.missing | state.done if self._again else state.missing
        return open_to & self.chosen

    def _confirm(self, told: str) -> None:
        """Ask, if there is something to be asked.

        Raises
        ------
        RefusedError
            Nobody could be asked, or the answer was no.
        """
        if told and (self._choices.confirm is None or not self._choices.confirm(told)):
            yes = self.task.command(self.task.name, "--yes")
            raise RefusedError(f"{told} Nothing was started. To go on, type it again with --yes: {yes}")

    def _is_served(self, state: State) -> bool:
        """Whether the newest plan leaves nothing to plan."""
        return state.fits() and not self._todo(state).any()

    def _accepts(self, state: State) -> list[str]:
        """Return the code digests whose rows are to count.

        Raises
        ------
        RefusedError
            Rows are done with other code, and nobody said what to do with them.
        """
        code, task = self.task.code, self.task
        if code in state.accepts:
            return state.accepts
        if not state.conflict or self._about_code == FRESH:
            return [code]
        if self._about_code == KEEP:
            return sorted({*state.accepts, code})
        raise RefusedError(
            f"{task.name}: {int(state.done.sum())} of {len(state.done)} items were computed with other code than "
            f"{task.path.name} has now. Keep them and compute only the others: {task.command(task.name, '--keep')}. "
            f"Put them into the archive and compute all again: {task.command(task.name, '--fresh')}"
        )

    def preview(self) -> str:
        """Return what a queue would be given; '' for nothing."""
        return ""

    def summary(self) -> str:
        """Return what a queue has of the task after this command; '' if nothing is left to it."""
        return ""

    # The steps

    def steps(self) -> list[Step]:
        """Return the steps that this run takes, in order."""
        found = [Step("split", self.split, not self.plans)]
        if self.plans or self.joins:
            found += [Step(f"process:{i}", partial(self.process, i)) for i in range(self.n_chunks)]
        return [*found, Step("merge", self.merge, not self.merges)]

    def split(self) -> None:
        """Put a plan in place, unless another command just did.

        Nothing of an older plan can be started between counting what runs and planning the rest: first its open
        tokens are taken out of reach, then it is counted. If a newer plan came in between, all begins again.
        """
        self.workdir.create()
        for _ in range(_MOST_PLANS):
            before = look(self.task, self._observer)
            accepts = self._accepts(before)
            check_selection(before, self._choices.selection, self.chosen & self._again, self._about_code)
            if before.joins() or (self._is_served(before) and accepts == before.accepts):
                self._plan = before.plan
                return
            if before.newest is not None:
                Claims(self.workdir.plans / before.newest).withdraw()
            state = look(self.task, self._observer, accepts, rows=True)
            if state.newest != before.newest:
                continue
            if state.unknown:
                self._wait_for(state.unknown)
                continue
            if before.conflict and self.task.code not in before.accepts and len(accepts) == 1:
                self._archive(accepts)
            if self._again:
                self._retire(state)
                self._again = False
                continue
            if self._put_in_place(self._draft(state, accepts), state.newest):
                return
        raise TemporaryError(f"{self.workdir.path}: other commands keep making plans. Try again when they are done")

    def _put_in_place(self, draft: Draft, after: str | None) -> bool:
        with self.workdir.new_plan(after) as place:
            draft.write(place, self.task, provenance(self.task.cwd))
            if not place.commit():
                return False
        self._plan = Plan.read(place.path)
        return True

    def _archive(self, accepts: list[str]) -> None:
        """Put the record of other code and its result out of the way; nothing is removed."""
        parts = [path for path in self.workdir.part_paths() if read(path).header.get("code") not in accepts]
        self.workdir.archived(self.task.result, self.workdir.manifest, *parts)

    def _retire(self, state: State) -> None:
        """Put the rows of selected items that are done into the archive."""
        if state.held:
            raise RefusedError(
                f"{self.task.name}: workers began to compute items of it. Type it again when they are done"
            )
        parts = [part for part in read_parts(self.workdir) if part.header.get("code") in state.accepts]
        n = retire(self.workdir, parts, self._items_of, state.done & self.chosen)
        self._say(f"{self.task.name}: {n} rows put into {self.workdir.archive}")

    def _items_of(self, part: Part) -> Indices:
        """Return which items of the task's space the rows of a part are."""
        if part.header.get("space") == self.task.pspace.digest:
            return part.indices
        return lookup_of(self.task)(part.keys)

    def _draft(self, state: State, accepts: list[str]) -> Draft:
        elsewhere = state.placement.elsewhere if state.placement is not None else []
        keys = np.concatenate([np.empty((0, 2), np.uint64), *(part.keys for part in elsewhere)])
        index = lookup_of(self.task)(keys)
        inside = index >= 0
        todo = self._todo(state)
        seed = self._seed if self._choices.new_seed else self.task.options["seed"]
        if self._choices.new_seed:
            self._say(f"{self.task.name}: seed {seed}")
        n_done = state.codes.get(self.task.code, 0)
        ranges, sizes, groups = self._dealt(state, todo)
        more = groups, self.task.backend.balances, *self._dealer(todo).expected
        return Draft(ranges, sizes, accepts, keys[inside], index[inside], seed, n_done, *more)

    def _dealt(self, state: State, todo: Mask) -> tuple[Indices, list[int], list[list[int]]]:
        """Return the work list, the sizes of the chunks, and the groups of these."""
        # Untried ones first: a run that stops early is to get further each time.
        return *self._dealer(todo).deal(todo & ~state.failed, todo & state.failed), []

    def _dealer(self, todo: Mask) -> Dealing:
        """Return how items are dealt, from what is known of them before any row is put into the archive."""
        if self._dealing is None:
            max_jobs = self.task.options["max_jobs"] * self._n_queues
            self._dealing = dealing_of(self.task, max_jobs, self.n_workers, todo, lookup_of(self.task))
        return self._dealing

    def process(self, number: int) -> None:
        """Return when a chunk of the plan is worked on to its end."""
        self._working().wait_for(number)

    def merge(self) -> None:
        """Return when all items are worked on, by whomever, and the result is in place."""
        self._see_to_all()
        if self.joins and not self.stopped and look(self.task, self._observer).untried.any():
            self.joins, self.plans = False, True  # that plan was of a part of the items
            self._plan_again()
            self._see_to_all()
        placement = merge(self.workdir, self._current(), self.task, lookup_of(self.task))
        for _ in range(self._current().retries["unreadable"]):
            if self.stopped or not self.plans or not self._are_unreadable(placement):
                break
            self._say(f"{self.task.name}: rows of this run cannot be read; computing them again")
            self._plan_again()
            self._see_to_all()
            placement = merge(self.workdir, self._current(), self.task, lookup_of(self.task))

    def _see_to_all(self) -> None:
        """Return when all items are worked on, by whomever."""
        for _ in range(_MOST_PLANS if self.works and not self.stopped else 0):
            if self.plans or self.joins:
                self._working().wait_for_all()
            if not self._lost_by_others():
                break
            self._say(f"{self.task.name}: computing what was lost with another worker")
            self.plans = True
            self._plan_again()

    def _are_unreadable(self, placement: Placement) -> bool:
        """Whether items of this command's plan have neither row nor failure, though all its chunks are done."""
        plan = self._current()
        planned = plan.work().mask(plan.tokens(), plan.n_items)
        planned &= ~placement.done
        planned[list(placement.failures)] = False
        return bool(planned.any())

    def _lost_by_others(self) -> bool:
        """Wait for workers of earlier plans that hold items of this space; return whether they left any behind."""
        if not held_tokens(self.workdir, self._observer):
            return False
        accepts = self._current().accepts
        state = look(self.task, self._observer, accepts)
        if not state.held:
            return False
        self._wait_for(state.held)
        return bool((look(self.task, self._observer, accepts).untried & state.running).any())

    def _plan_again(self) -> None:
        """Plan what is missing after this command's own plan; a newer one is of somebody who knows better."""
        if self.workdir.plan_ids()[-1:] != [self._current().id]:
            raise TemporaryError(f"{self.workdir.path}: another command made a newer plan, and computes the rest")
        self.split()
        self._work = None

    def _wait_for(self, held: list[Held]) -> None:
        """Return when tokens are done, handed back, or their holders are dead."""
        workers = sorted({token.worker for _, token in held})
        for worker in workers:
            beat = self._observer.read(worker)
            where = f"on {beat['host']}, process {beat['pid']}" if beat else "that gives no sign"
            self._say(f"{self.task.name}: waiting for a worker of an earlier command ({where})")
        while set(held) & set(held_tokens(self.workdir, self._observer)):
            time.sleep(_POLL)

    def _say(self, line: str) -> None:
        if self.progress is not None:
            self.progress.say(line)

    def _current(self) -> Plan:
        if self._plan is None:
            raise TemporaryError(
                f"{self.workdir.path}: the plan is gone. Type it again: {self.task.command(self.task.name)}"
            )
        return self._plan

    def _working(self) -> Work:
        if self._worker is None:
            raise TemporaryError(f"{self.task.name}: there is no worker to run it")
        if self._work is None:
            if self.joins:
                self._say(f"{self.task.name}: somebody is at work on it already; this command computes, too")
            self._work = Work(self.task, self._current(), self._worker, self.n_workers, self._observer, self.progress)
        return self._work
