"""A worker that is a job of a queue: it works, and the last one of a plan sees to what comes after."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace

import click
import numpy as np

from psyrun.activity import beating
from psyrun.claims import HELD, OPEN, Process, Token, beat_seconds, ttl_seconds
from psyrun.collect import merge
from psyrun.errors import EarlyStopError, PsyrunError
from psyrun.jobs import MAX_AGE, JobObserver, Jobs, made, shown_ids
from psyrun.nodes import STARTED
from psyrun.plan import Plan
from psyrun.processes import adopt_orphans, end_orphans
from psyrun.queued import QueuedRun, needs_more, queue_of, rows_on_record
from psyrun.run import Choices
from psyrun.scheduler import Job, JobState
from psyrun.scheduler.resources import n_rungs
from psyrun.state import held_tokens, look, lookup_of
from psyrun.submissions import CONTINUED, RETRIED, Submission, next_number, read_submission, read_submissions
from psyrun.supervisor import Supervisor
from psyrun.tasks import Task
from psyrun.terms import Deadline
from psyrun.watch import shared_counters
from psyrun.workdir import Workdir

_LEFT_TO_GONE = 6
"""The heartbeat of a worker whose job is over must stand still for the time to live divided by this."""


class JobWorker:
    """What a job does.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
    submission : str
        The name of the submission that the job is one of.
    n_children : int
        How many items run at a time.
    """

    def __init__(self, workdir: Workdir, plan: Plan, submission: str, n_children: int):
        self._workdir = workdir
        self._plan = plan
        self._submission = read_submission(workdir, submission)
        self._n_children = n_children
        self._job = os.environ.get("PSYRUN_JOB", "")
        self._terms = self._submission.terms(self._job)
        self._deadline = Deadline(self._terms.seconds)
        self._jobs = Jobs(made(self._submission.scheduler), workdir, MAX_AGE)
        self._observer = JobObserver(self._jobs, ttl_seconds() / _LEFT_TO_GONE)

    def run(self) -> int:
        """Work until nothing is left to claim, or the time is short; return the exit status."""
        _say(STARTED)
        self._workdir.check_trust()
        adopt_orphans()
        while True:
            counters = shared_counters(self._n_children)
            supervisor = Supervisor(
                self._workdir, self._plan, self._n_children, counters, -1, self._observer, self._terms, self._deadline
            )
            status = supervisor.run()
            end_orphans()
            if supervisor.problem:
                _say(supervisor.problem)
            if status or self._deadline.is_short(0.0) or not self._wait_for_left():
                break
        if status in (0, EarlyStopError.exit_code):
            try:
                self._see_to_the_rest(status == 0)
            except PsyrunError as error:
                _say(f"{error}. To see to the rest: psy-doit {self._plan.content['task']}")
        return status

    def _wait_for_left(self) -> bool:
        """Wait while workers hold something whose jobs are over; return whether there is something to claim again."""
        while held := [token for token in self._plan.claims().tokens(HELD) if self._is_for_us(token)]:
            self._jobs.look()
            left = [token for token in held if self._observer.left_by_queue(token.worker)]
            is_open = any(map(self._is_for_us, self._plan.claims().tokens(OPEN)))
            if is_open or any(self._observer.dead(token.worker) for token in held):
                return True
            if not left or self._deadline.is_short(0.0):
                return False
            time.sleep(min(beat_seconds(), 1.0))
        return False

    def _is_for_us(self, token: Token) -> bool:
        return self._terms.covers(token.first, token.last)

    # The end of a plan

    def _see_to_the_rest(self, goes_on: bool) -> None:
        """Merge when all is done, or go on with new jobs if the time of these was short; others may still be at it."""
        self._jobs.look()
        held = held_tokens(self._workdir, self._observer)
        if not all(self._observer.left_by_queue(token.worker) for _, token in held):
            return
        newest = Plan.read(self._workdir.plans / self._workdir.plan_ids()[-1])
        is_open = newest.claims().has(OPEN) or newest.claims().has(HELD)
        if newest.id != self._plan.id:  # its own jobs see to it; but they may have merged before this one ended
            if not is_open:
                self._merge(newest, newest.task())
        elif goes_on and is_open:
            if not self._go_on():
                self._merge(newest, newest.task())
        elif self._is_first("merging"):
            task = newest.task()
            if not (goes_on and self._climb(task)):
                self._merge(newest, task)
            self._jobs.look_anew()
            self._cancel_the_rest()
        else:  # it came late; what was submitted after the merge is not of use either
            self._cancel_the_rest()

    def _merge(self, plan: Plan, task: Task) -> None:
        merge(self._workdir, plan, task, lookup_of(task))
        _say("merged")

    def _is_first(self, name: str) -> bool:
        """Whether no other worker was the last one, too."""
        try:
            (self._plan.path / name).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _cancel_the_rest(self) -> None:
        """Take jobs of the plan that did not start from the queue: they would find nothing to do."""
        cancelled = self._jobs.cancel_waiting(self._plan)
        if cancelled:
            _say(f"nothing is left for jobs {shown_ids(job.id for job in cancelled)}; cancelled")

    def _go_on(self) -> bool:
        """Submit again what is left, if there was progress and the task allows it; return whether it is seen to."""
        mine = read_submissions(self._workdir, self._plan)
        last = mine[-1]
        if sum(s.cause == CONTINUED for s in mine) >= last.resubmit:
            _say(f"the time is over, and the run went on by itself {last.resubmit} times (resubmit)")
            return False
        n_rows = rows_on_record(self._workdir)
        if n_rows <= last.n_rows:
            _say("the time is over, and no item was finished since the last submission")
            return False
        self._jobs.look_anew()
        if self._others():
            return True
        left = [*self._plan.claims().tokens(OPEN), *self._plan.claims().tokens(HELD)]
        for group in self._plan.groups:
            n = sum(group[0] <= token.first <= group[1] for token in left)
            before = next((s for s in reversed(mine) if s.first == group[0]), last)
            if n:
                self._submit_again(before, next_number(self._workdir, self._plan), n, n_rows)
        return True

    def _others(self) -> bool:
        """Whether jobs of the plan wait in the queue, or are at work: these will see to it."""
        alive = self._jobs.alive(lambda s: s.uid == self._plan.uid)
        waiting = any(status.state is not JobState.RUNNING for job, status in alive.items() if job.id != self._job)
        return waiting or any(self._is_at_work(worker) for worker in beating(self._workdir))

    def _is_at_work(self, worker: str) -> bool:
        if self._observer.read(worker).get("plan") != self._plan.id:
            return False
        return not self._observer.left_by_queue(worker) and not self._observer.dead(worker)

    def _submit_again(self, before: Submission, number: int, n: int, n_rows: int) -> None:
        job = _renamed(before.job, before.name, f"{self._plan.uid}-{number}", min(n, before.job.n))
        again = replace(before, number=number, cause=CONTINUED, job=job, n_rows=n_rows, ids=None, by=Process.current())
        ids, told = self._jobs.submit(again)
        _say(f"the time is over; jobs {shown_ids(job.id for job in ids)} go on with what is left {told}".rstrip())

    def _climb(self, task: Task) -> bool:
        """Submit items that had too little memory or time again, with what the next rung of the ladders gives.

        The last of these jobs merges. Returns whether there are any.
        """
        queue = queue_of(task)
        top = n_rungs(task.options["scheduler_args"]) - 1
        if queue is None or not top:
            return False
        state = look(task, rows=True)
        failures = state.placement.failures if state.placement is not None else {}
        items = [item for item, failure in failures.items() if needs_more(failure) and failure.rung < top]
        if not items:
            return False
        run = QueuedRun(task, Choices(), queue, RETRIED)
        run.prepare()
        run.chosen = np.isin(np.arange(len(state.done)), items)
        run.split()
        run.submit()
        _say(f"{len(items)} items had too little memory or time; {run.summary()}")
        return bool(run.submitted)


def _renamed(job: Job, before: str, name: str, n: int) -> Job:
    command = tuple(name if word == before else word for word in job.command)
    return replace(job, token=f"psy:{name}", command=command, n=n)


def _say(line: str) -> None:
    with suppress(OSError):
        click.echo(f"psyrun: {line}", err=True)
