"""A run whose items are computed by jobs of a queue: it submits what is missing, and returns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from psyrun.claims import HELD, OPEN
from psyrun.collect import merge
from psyrun.errors import PsyrunError, TaskError, TemporaryError
from psyrun.jobreport import job_lines
from psyrun.jobs import JobObserver, Jobs, shown_ids
from psyrun.nodes import broken_nodes
from psyrun.parts import Failure
from psyrun.plan import Indices, Mask, Plan
from psyrun.postmortem import record_ends
from psyrun.questions import check_not_paused
from psyrun.queues import recipe_of
from psyrun.record import read_parts
from psyrun.retries import class_of
from psyrun.run import Choices, Run, Step
from psyrun.scheduler import Job, JobId, JobState, Queue, QueueError, Scheduler, SubmitError, queues_of
from psyrun.scheduler.resources import n_rungs, resolved
from psyrun.state import Held, State, lookup_of
from psyrun.submissions import COMMAND, GROWN, Submission, next_number
from psyrun.tasks import Task
from psyrun.terms import JOB_TIME
from psyrun.workdir import Workdir

if TYPE_CHECKING:
    from psyrun.forecast import Forecast

_MOST_TRIES = 20
"""How often a number may be lost to another command; each time one of them got its jobs."""

Group = list[int]
"""First and last position, and rung of the ladders of resources."""
Wanted = tuple[Queue, Group, int]
"""Which queue gets how many jobs for which group."""


class QueuedRun(Run):
    """One command's work on one task, or that of a job that carries on.

    Parameters
    ----------
    task : Task
    choices : Choices
    scheduler : Scheduler
        The queue that its jobs go to, or several.
    cause : str
        Why it submits, see `psyrun.submissions`.
    """

    def __init__(self, task: Task, choices: Choices, scheduler: Scheduler, cause: str = COMMAND):
        super().__init__(task, choices)
        self.queues: Sequence[Queue] = queues_of(scheduler)
        self._n_queues = len(self.queues)  # jobs of all are to find something
        self.jobs = Jobs(scheduler, self.workdir)
        self._observer = JobObserver(self.jobs)
        self._cause = cause
        self.submitted: list[JobId] = []
        self.told: list[str] = []

    def prepare(self) -> None:
        """Look where the task stands, and what the queues have of it; only what they have is noted.

        Raises
        ------
        QueueError
            None gives an answer. Nothing is submitted then: jobs may be there.
        """
        if self._choices.n_workers is not None:
            raise TaskError(
                f"{self.task.name}: -n is for runs on this machine; how many jobs {self.task.scheduler!r} gets is said "
                f"by max_jobs in {self.task.path.name}, and how many items each runs at a time by pool_size"
            )
        check_not_paused(self.task)
        if not self._choices.dry_run:
            self._keep_to(self._check_programs)
        with suppress(QueueError):
            self.jobs.settle()
        with suppress(QueueError):
            self.jobs.ask()
        self._keep_to(self._check_answer)
        super().prepare()
        self._wanted = self._all_wanted() if self.plans or self.joins else []
        self._keep_to(self._check_submission)
        self._wanted = [wanted for wanted in self._wanted if wanted[0] in self.queues]
        self.n_jobs = sum(n for _, _, n in self._wanted)

    def _keep_to(self, check: Callable[[Queue], None]) -> None:
        """Leave out the queues that a check raises an error for, and say so; with none left it is raised."""
        kept: list[Queue] = []
        errors: list[PsyrunError] = []
        for queue in self.queues:
            try:
                check(queue)
                kept.append(queue)
            except PsyrunError as error:
                errors.append(error)
                self.told.append(f"{queue!r} gets no jobs: {error}")
        if not kept:
            raise errors[0]
        self.queues = kept

    def _check_programs(self, queue: Queue) -> None:
        absent = [program for program in queue.programs if shutil.which(program) is None]
        if absent:
            raise TaskError(
                f"scheduler = {queue!r}: there is no {absent[0]} on this machine. Type it on a login node of the "
                f"cluster, or have the items computed here: scheduler = psyrun.Multiprocessing() in "
                f"{self.task.path.name}"
            )

    def _check_answer(self, queue: Queue) -> None:
        why = self.jobs.silent(queue)
        if why:
            raise QueueError(why)

    def _check_submission(self, queue: Queue) -> None:
        n = sum(n for where, _, n in self._wanted if where is queue)
        if n:
            queue.check_submission(self.job(queue, 0, n, "", ""))

    def forecast(self) -> Forecast:
        """Return what a run would do; nothing is written, and nobody asked."""
        self.jobs.look()
        found = super().forecast()
        most = max(1, len(found.sizes)) * self.task.options["pool_size"]
        return replace(found, n_workers=min(found.n_workers, most))

    def _n_workers(self) -> int:
        return int(self.task.options["max_jobs"] * self.task.options["pool_size"])

    def split(self) -> None:
        """Put a plan in place; items that ended their job are told from what the queue says of it."""
        n = record_ends(self.task, self.jobs)
        if n:
            more = self.task.command("status", self.task.name, "-v")
            self.told.append(f"{n} items ended their job, for want of memory or time: {more}")
        super().split()

    def steps(self) -> list[Step]:
        """Return the steps: split and one submission; or the merge, where nothing is left to compute."""
        found = [Step("split", self.split, not self.plans)]
        if self.n_jobs:
            found.append(Step(f"process:0-{self.n_jobs - 1}" if self.n_jobs > 1 else "process:0", self.submit))
        elif not self.works or (self.plans and not self.n_chunks):
            found.append(Step("merge", self.merge, not self.merges))
        return found

    def merge(self) -> None:
        """Put the result in place; this waits for nobody. Jobs that wait would find nothing to do."""
        plan = self._current()
        merge(self.workdir, plan, self.task, lookup_of(self.task))
        self._cancel_the_rest(plan)

    def _cancel_the_rest(self, plan: Plan) -> None:
        """Take jobs of a plan that wait from the queue if it has nothing left; tell of trouble."""
        if plan.claims().has(OPEN) or plan.claims().has(HELD):
            return
        self.jobs.look_anew()
        cancelled, why_not = self.jobs.cancel_waiting(plan)
        self.told += [f"nothing is left for {len(cancelled)} of the jobs; cancelled"] if cancelled else []
        self.told += [f"jobs for which nothing is left cannot be cancelled: {why_not}"] if why_not else []

    def _wait_for(self, held: list[Held]) -> None:
        """Return at once, with an error: jobs may take days."""
        task = self.task
        raise TemporaryError(
            f"{task.name}: jobs of a plan that cannot be read are at work, so it is not known on what. Type it again "
            f"when they are done ({task.command('wait', task.name)}), or end them: {task.command('kill', task.name)}"
        )

    def _dealt(self, state: State, todo: Mask) -> tuple[Indices, list[int], list[Group]]:
        """Return work list, sizes and groups: items that need more than the others are chunks of their own."""
        rungs = np.zeros(len(todo), dtype=np.int64)
        top = top_rung(self.task)
        for item, failure in (state.placement.failures if state.placement is not None else {}).items():
            rungs[item] = min(top, failure.rung + needs_more(failure))
        dealing = self._dealer(todo)
        ranges, sizes, groups, first = [np.empty((0, 2), np.int64)], [], [], 0
        for rung in sorted(set(rungs[todo].tolist())):
            some = todo & (rungs == rung)
            some_ranges, some_sizes = dealing.deal(some & ~state.failed, some & state.failed)
            ranges.append(some_ranges)
            sizes += some_sizes
            groups.append([first, sum(sizes) - 1, rung])
            first = sum(sizes)
        return np.concatenate(ranges), sizes, groups

    def _all_wanted(self) -> list[Wanted]:
        """Return how many jobs more each queue should have for each group of the plan: twins, where there are several.

        Which of them start first do the work, so none waits for a queue that is full.
        """
        if not self.joins:
            return [(queue, [0, self.n_chunks - 1, 0], self._most(self.n_chunks)) for queue in self.queues]
        return self._wanted_by(self._current())

    def _most(self, n_chunks: int) -> int:
        return min(int(self.task.options["max_jobs"]), n_chunks)

    def _wanted_by(self, plan: Plan) -> list[Wanted]:
        found = [
            (queue, group, self._n_wanted(plan, queue, group))
            for group in plan.groups
            for queue in self._queues_for(group[2])
        ]
        return [wanted for wanted in found if wanted[2] > 0]

    def _n_wanted(self, plan: Plan, queue: Queue, group: Group) -> int:
        """Return how many jobs more a queue should have: one for each chunk but those that jobs elsewhere are at."""
        first = group[0]
        mine, others = 0, 0
        for submission in self.jobs.submissions:
            if (submission.uid, submission.first) == (plan.uid, first):
                alive = self.jobs.alive(lambda s, submission=submission: s is submission)  # type: ignore[misc]
                if len(self.jobs.queues.given) == 1 or self.jobs.queues.has(queue, submission):
                    mine += len(alive)
                else:
                    others += sum(status.state is JobState.RUNNING for status in alive.values())
        return max(0, self._most(_n_left(plan, group) - others) - mine)

    def _queues_for(self, rung: int) -> Sequence[Queue]:
        """Return the queues that offer more at a rung of the ladders than at those below, if there are such."""
        args = self.task.options["scheduler_args"]
        return [queue for queue in self.queues if n_rungs(queue.asks(args)) > rung] or self.queues

    def submit(self) -> None:
        """Give the jobs that the plan wants to the queues.

        Raises
        ------
        SubmitError
            No queue took any.
        """
        plan = self._current()
        # Counted before it is asked what is there: of two commands that see the same, one gets the number.
        begin = next_number(self.workdir, plan)
        self._look_again()
        self._submit_all(plan, begin, self._wanted_by(plan), self.queues)
        if self.submitted:  # the first ones may have been quick
            self._cancel_the_rest(plan)

    def join(self, plan: Plan) -> None:
        """Take a plan that is under way for its own, instead of `prepare`; only queues with programs here count."""
        self._keep_to(self._check_programs)
        self._plan = plan

    def submit_more(self, n: int, queues: Sequence[Queue] | None = None) -> None:
        """Give more jobs for the newest plan to queues, however many there are; after `prepare` or `join`.

        Parameters
        ----------
        n : int
            For each queue, and each group of the plan with chunks left.
        queues : sequence of Queue, optional
            Some of the task's that are not left out; default all of these.

        Raises
        ------
        SubmitError
            No queue took any.
        """
        plan = self._current()
        begin = next_number(self.workdir, plan)
        self._look_again()
        chosen = [queue for queue in self.queues if queues is None or queue in queues]
        groups = [group for group in plan.groups if _n_left(plan, group)]
        wanted = [(queue, g, n) for g in groups for queue in self._queues_for(g[2]) if queue in chosen]
        self._submit_all(plan, begin, wanted, chosen)

    def _look_again(self) -> None:
        with suppress(QueueError):
            self.jobs.settle()
        if self.jobs.has_more():
            with suppress(QueueError):
                self.jobs.ask()
        self._keep_to(self._check_answer)

    def _submit_all(self, plan: Plan, begin: int, wanted: Sequence[Wanted], queues: Sequence[Queue]) -> None:
        """Submit what is wanted; what one queue does not take is told, and an error if none of them takes a group."""
        errors: list[tuple[Group, PsyrunError]] = []
        for number, (queue, group, n) in enumerate(wanted, begin):
            try:
                self._submit(plan, number, queue, group, n)
            except (SubmitError, QueueError, TaskError) as error:
                errors.append((group, error))
                self.told.append(f"{queue!r} took no jobs: {error}")
        self.jobs.tidy()
        for group in plan.groups:
            able = [queue for queue in self._queues_for(group[2]) if queue in queues]
            failed = [error for which, error in errors if which == group]
            if failed and len(failed) == len(able):
                raise failed[0]

    def _submit(self, plan: Plan, number: int, queue: Queue, group: Group, n: int) -> None:
        jobs, told = self.jobs.submit(self._submission(plan, number, queue, group, n))
        # Of commands that submit what is lacking one is enough, but each that was asked for more jobs gives some.
        for _ in range(_MOST_TRIES if self._cause == GROWN else 0):
            if jobs:
                break
            jobs, told = self.jobs.submit(self._submission(plan, next_number(self.workdir, plan), queue, group, n))
        self.submitted += jobs
        self.told += [told] if told else []

    def _submission(self, plan: Plan, number: int, queue: Queue, group: Group, n: int) -> Submission:
        first, last, rung = group
        job, rows = self.job(queue, rung, n, plan.id, f"{plan.uid}-{number}"), finished_on_record(self.workdir)
        resubmit, recipe = self.task.options["resubmit"], recipe_of(queue)
        return Submission(plan.id, plan.uid, number, self._cause, job, first, last, rung, rows, resubmit, recipe)

    def job(self, queue: Queue, rung: int, n: int, plan: str, submission: str) -> Job:
        """Return what is submitted, but for its token."""
        options, name = self.task.options, f"psy-{self.task.name}"
        resources = resolved(queue.asks(options["scheduler_args"]), name, rung)
        if options["pool_size"] > 1:
            resources.setdefault("n_cpus", options["pool_size"])
        python = str(Path(shutil.which(str(options["python"] or sys.executable)) or sys.executable).absolute())
        words = ["--children", str(options["pool_size"]), "--submission", submission]
        workdir = self.workdir.path.absolute()
        nodes, told = broken_nodes(self.workdir, {job.id for job in self.jobs.alive()})
        if not self.jobs.queues.are_one_cluster():  # a node of one is an error in another
            nodes = []
        self.told += [told] if told and submission and told not in self.told else []
        return Job(
            name,
            f"psy:{submission}",
            (python, "-m", "psyrun.worker", *words, str(workdir), plan),
            self.task.cwd.absolute(),
            workdir / "log",
            n,
            resources,
            tuple(options["prologue"]),
            tuple(nodes),
        )

    def preview(self) -> str:
        """Return what would be given to the queues; '' for nothing."""
        ids = self.workdir.plan_ids()
        plan = self._plan.id if self.joins and self._plan is not None else f"{int(ids[-1] if ids else 0) + 1:04}"
        found = []
        for queue in self.queues:
            if n := sum(n for where, _, n in self._wanted if where is queue):
                job = replace(self.job(queue, 0, n, plan, f"{plan}-0"), token="psy:...")  # noqa: S106
                found += [f"# {queue!r}"] if len(self.jobs.queues.given) > 1 else []
                found.append(queue.preview(job))
        return "\n".join([*(f"# {told}" for told in self.told), *found]) if found else ""

    def summary(self) -> str:
        """Return what the queue has of the task after this command; '' if nothing is left to it."""
        name = self.task.name
        lines = [f"{name}: {told}" for told in self.told]
        if self.submitted:
            n = len(self.submitted)
            what = f"{n} jobs" if n > 1 else "1 job"
            lines.append(f"{name}: submitted {what}: {shown_ids(job.id for job in self.submitted)}")
        alive = self.jobs.alive()
        lines += [f"{name}: {line}" for line in job_lines(self.jobs)]
        if not self.submitted and not alive:
            return "\n".join(lines)
        commands = [self.task.command(word, name) for word in ("watch", "kill")]
        return "\n".join([*lines, f"    to follow it: {commands[0]}; to end the jobs: {commands[1]}"])


def top_rung(task: Task) -> int:
    """Return the last rung of the ladders of resources, in whatever queue."""
    args = task.options["scheduler_args"]
    return max((n_rungs(queue.asks(args)) for queue in queues_of(task.scheduler)), default=1) - 1


def _n_left(plan: Plan, group: Group) -> int:
    """Return how many chunks of a group are not done; where chunks are divided, how many items."""
    claims = plan.claims()
    tokens = [t for t in [*claims.tokens(OPEN), *claims.tokens(HELD)] if group[0] <= t.first <= group[1]]
    return sum(map(len, tokens)) if plan.balances else len(tokens)


def needs_more(failure: Failure) -> bool:
    """Whether an item failed because its job had too little memory or time."""
    return class_of(failure.type) == "memory" or failure.type == JOB_TIME


def finished_on_record(workdir: Workdir) -> int:
    """Return how many rows and failures there are, of any code."""
    return sum(sum(batch.n_rows for batch in part.batches) + len(part.failures) for part in read_parts(workdir))
