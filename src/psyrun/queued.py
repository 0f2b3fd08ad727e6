"""A run whose items are computed by jobs of a queue: it submits what is missing, and returns."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from psyrun.claims import HELD, OPEN
from psyrun.collect import merge
from psyrun.dealing import dealing_of
from psyrun.errors import TaskError, TemporaryError
from psyrun.jobs import JobObserver, Jobs, job_lines, recipe_of, shown_ids
from psyrun.nodes import broken_nodes
from psyrun.parts import Failure
from psyrun.plan import Indices, Mask, Plan
from psyrun.postmortem import record_ends
from psyrun.record import read_parts
from psyrun.retries import class_of
from psyrun.run import Choices, Run, Step
from psyrun.scheduler import Job, JobId, Queue
from psyrun.scheduler.resources import n_rungs, resolved
from psyrun.state import Held, State, lookup_of
from psyrun.submissions import COMMAND, Submission, next_number
from psyrun.tasks import Task
from psyrun.terms import JOB_TIME
from psyrun.workdir import Workdir

if TYPE_CHECKING:
    from psyrun.forecast import Forecast

Group = list[int]
"""First and last position, and rung of the ladders of resources."""


def queue_of(task: Task) -> Queue | None:
    """Return the queue that a task's jobs go to; None if its items are computed here."""
    scheduler = task.scheduler
    return scheduler if isinstance(scheduler, Queue) else None


class QueuedRun(Run):
    """One command's work on one task, or that of a job that carries on.

    Parameters
    ----------
    task : Task
    choices : Choices
    queue : Queue
    cause : str
        Why it submits, see `psyrun.submissions`.
    """

    def __init__(self, task: Task, choices: Choices, queue: Queue, cause: str = COMMAND):
        super().__init__(task, choices)
        self.queue = queue
        self.jobs = Jobs(queue, self.workdir)
        self._observer = JobObserver(self.jobs)
        self._cause = cause
        self.submitted: list[JobId] = []
        self.told: list[str] = []

    def prepare(self) -> None:
        """Look where the task stands, and what the queue has of it; only what it has is noted.

        Raises
        ------
        QueueError
            It gives no answer. Nothing is submitted then: jobs may be there.
        """
        if self._choices.n_workers is not None:
            raise TaskError(
                f"{self.task.name}: -n is for runs on this machine; how many jobs {self.queue!r} gets is said by "
                f"max_jobs in {self.task.path.name}, and how many items each runs at a time by pool_size"
            )
        absent = [program for program in self.queue.programs if shutil.which(program) is None]
        if absent and not self._choices.dry_run:
            raise TaskError(
                f"scheduler = {self.queue!r}: there is no {absent[0]} on this machine. Type it on a login node of the "
                f"cluster, or have the items computed here: scheduler = psyrun.Multiprocessing() in "
                f"{self.task.path.name}"
            )
        self.jobs.settle()
        self.jobs.ask()
        super().prepare()
        self.n_jobs = min(self.task.options["max_jobs"], self.n_chunks) if self.plans else 0
        if self.joins:
            self.n_jobs = sum(map(self._n_wanted, self._current().groups))
        if self.n_jobs:
            self.queue.check_submission(self.job(0, self.n_jobs, "", ""))

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
        """Put the result in place; this waits for nobody."""
        merge(self.workdir, self._current(), self.task, lookup_of(self.task))

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
        top = n_rungs(self.task.options["scheduler_args"]) - 1
        for item, failure in (state.placement.failures if state.placement is not None else {}).items():
            rungs[item] = min(top, failure.rung + needs_more(failure))
        dealing = self._dealing or dealing_of(self.task, self.n_workers, todo, lookup_of(self.task))
        ranges, sizes, groups, first = [np.empty((0, 2), np.int64)], [], [], 0
        for rung in sorted(set(rungs[todo].tolist())):
            some = todo & (rungs == rung)
            some_ranges, some_sizes = dealing.deal(some & ~state.failed, some & state.failed)
            ranges.append(some_ranges)
            sizes += some_sizes
            groups.append([first, sum(sizes) - 1, rung])
            first = sum(sizes)
        return np.concatenate(ranges), sizes, groups

    def _n_wanted(self, group: Group) -> int:
        """Return how many jobs more there should be for a group of the plan."""
        plan, (first, last, _) = self._current(), group
        claims = plan.claims()
        tokens = [t for t in [*claims.tokens(OPEN), *claims.tokens(HELD)] if first <= t.first <= last]
        left = sum(map(len, tokens)) if plan.balances else len(tokens)
        alive = self.jobs.alive(lambda submission: submission.uid == plan.uid and submission.first == first)
        return max(0, min(int(self.task.options["max_jobs"]), left) - len(alive))

    def submit(self) -> None:
        """Give the jobs that the plan wants to the queue."""
        plan = self._current()
        # Counted before it is asked what is there: of two commands that see the same, one gets the number.
        begin = next_number(self.workdir, plan)
        self.jobs.settle()
        if self.jobs.has_more():
            self.jobs.ask()
        wanted = [(group, n) for group in plan.groups if (n := self._n_wanted(group))]
        for number, (group, n) in enumerate(wanted, begin):
            self._submit(plan, number, group, n)
        self.jobs.tidy()
        if self.submitted and not (plan.claims().has(OPEN) or plan.claims().has(HELD)):
            self.jobs.look_anew()  # the first ones were quick
            cancelled = self.jobs.cancel_waiting(plan)
            self.told += [f"nothing is left for {len(cancelled)} of the jobs; cancelled"] if cancelled else []

    def _submit(self, plan: Plan, number: int, group: Group, n: int) -> None:
        first, last, rung = group
        job, rows = self.job(rung, n, plan.id, f"{plan.uid}-{number}"), finished_on_record(self.workdir)
        resubmit, recipe = self.task.options["resubmit"], recipe_of(self.queue)
        submission = Submission(plan.id, plan.uid, number, self._cause, job, first, last, rung, rows, resubmit, recipe)
        jobs, told = self.jobs.submit(submission)
        self.submitted += jobs
        self.told += [told] if told else []

    def job(self, rung: int, n: int, plan: str, submission: str) -> Job:
        """Return what is submitted, but for its token."""
        options, name = self.task.options, f"psy-{self.task.name}"
        resources = resolved(options["scheduler_args"], name, rung)
        if options["pool_size"] > 1:
            resources.setdefault("n_cpus", options["pool_size"])
        python = str(Path(shutil.which(str(options["python"] or sys.executable)) or sys.executable).absolute())
        words = ["--children", str(options["pool_size"]), "--submission", submission]
        workdir = self.workdir.path.absolute()
        nodes, told = broken_nodes(self.workdir, {job.id for job in self.jobs.alive()})
        self.told += [told] if told and submission else []
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
        """Return what would be given to the queue; '' for nothing."""
        if not self.n_jobs:
            return ""
        ids = self.workdir.plan_ids()
        plan = self._plan.id if self.joins and self._plan is not None else f"{int(ids[-1] if ids else 0) + 1:04}"
        return self.queue.preview(replace(self.job(0, self.n_jobs, plan, f"{plan}-0"), token="psy:..."))  # noqa: S106

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


def needs_more(failure: Failure) -> bool:
    """Whether an item failed because its job had too little memory or time."""
    return class_of(failure.type) == "memory" or failure.type == JOB_TIME


def finished_on_record(workdir: Workdir) -> int:
    """Return how many rows and failures there are, of any code."""
    return sum(sum(batch.n_rows for batch in part.batches) + len(part.failures) for part in read_parts(workdir))
