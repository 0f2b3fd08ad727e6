"""What the last worker of a plan sees to: the merge, new jobs for what is left, jobs that would find nothing to do."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace

import click
import numpy as np

from psyrun.activity import beating, part_sizes
from psyrun.claims import HELD, OPEN, Process, Token, beat_seconds
from psyrun.collect import merge
from psyrun.errors import PsyrunError, TaskError
from psyrun.jobs import JobObserver, Jobs, shown_ids
from psyrun.orders import is_paused
from psyrun.plan import Plan
from psyrun.queued import QueuedRun, finished_on_record, needs_more, top_rung
from psyrun.queues import called, identity
from psyrun.run import Choices
from psyrun.scheduler import Job, JobId, JobState, QueueError, SubmitError
from psyrun.state import held_tokens, look, lookup_of
from psyrun.submissions import COMMAND, CONTINUED, GROWN, RETRIED, Submission, next_number, read_submissions
from psyrun.tasks import Task
from psyrun.workdir import Workdir

_SILENT_BEATS = 3


def say(line: str) -> None:
    """Write a line into the log of the job."""
    with suppress(OSError):
        click.echo(f"psyrun: {line}", err=True)


class LastWorker:
    """A worker that found nothing more to claim, or has no time left, and may be the last one.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
    own, job : str
        The name of the submission that its job is of, and the id of this.
    jobs : Jobs
    observer : JobObserver
    """

    def __init__(self, workdir: Workdir, plan: Plan, own: str, job: str, jobs: Jobs, observer: JobObserver):
        self._workdir = workdir
        self._plan = plan
        self._own, self._job = own, job
        self._jobs = jobs
        self._observer = observer

    def see_to_the_rest(self, goes_on: bool) -> None:
        """Merge when all is done, or go on with new jobs if the time of these was short; others may still be at it.

        Parameters
        ----------
        goes_on : bool
            Whether to compute what is left: not where items fail alike, or workers were told to leave.
        """
        self._jobs.look()
        guests = {worker for worker in beating(self._workdir) if self._observer.is_guest(worker)}  # before they leave
        holders = self._holders()
        if any(worker not in guests and not self._observer.is_guest(worker) for worker in holders):
            return  # a job, which sees to the rest
        newest = self._newest()
        claims = newest.claims()
        tokens = [*claims.tokens(OPEN), *claims.tokens(HELD)]
        left = [token for token in tokens if not self._is_with_guest(token)]
        if newest.id != self._plan.id:  # its own jobs see to it; but they may have merged before this one ended
            if not holders and not tokens and not self._is_merged(newest) and self._is_first(newest):
                self._merge(newest)
        elif tokens and not left:
            say("guests have all that is left; the last of them merges")
        elif goes_on and left:
            try:
                seen_to = self._is_seen_to(left)
            except SubmitError as error:  # such as where machines that compute may not submit
                seen_to = False  # if jobs were taken all the same, they merge again
                say(f"what is left waits for the next psy-doit {newest.content['task']}: {error}")
            if not seen_to:
                self._merge(newest)
        else:
            # Where something was left, as after an early stop, there may be more rows later.
            if not self._is_merged(newest) if left else self._is_first(newest):
                self._climb_or_merge(goes_on)
                self._jobs.look_anew()
            self._cancel_the_rest()  # of what was submitted after the merge, too

    def _holders(self) -> list[str]:
        """Return who holds something of the plan and may be alive, but for those whose jobs are over.

        Who holds something of an older plan merges, too, and may have been lost out of our sight.
        """
        held = held_tokens(self._workdir, self._observer)
        workers = [token.worker for name, token in held if name == self._plan.id]
        return [worker for worker in workers if not self._observer.left_by_queue(worker)]

    def _is_with_guest(self, token: Token) -> bool:
        """Whether a worker holds a token that is no job, and whose heart beats as far as was seen."""
        worker = token.worker
        if not worker or not self._observer.is_guest(worker) or self._observer.dead(worker):
            return False
        return self._observer.still_for(worker) <= _SILENT_BEATS * beat_seconds()

    def _newest(self) -> Plan:
        return Plan.read(self._workdir.plans / self._workdir.plan_ids()[-1])

    def _is_first(self, newest: Plan) -> bool:
        """Whether no other worker of the plan was the last one, too, and merges."""
        name = "merging" if newest.id == self._plan.id else f"merging-{self._plan.id}"
        try:
            (newest.path / name).touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _is_merged(self, plan: Plan) -> bool:
        """Whether the result has all that is on record; many jobs of an older plan may start after that."""
        manifest = self._workdir.read_manifest()
        sizes = {name: size for name, (_, size) in manifest.get("parts", {}).items()}
        return manifest.get("plan") == plan.id and sizes == part_sizes(self._workdir)

    def _merge(self, plan: Plan) -> None:
        task = plan.task()
        merge(self._workdir, plan, task, lookup_of(task))
        say("merged")

    def _cancel_the_rest(self) -> None:
        """Take jobs of the plan that did not start from the queue: they would find nothing to do."""
        cancelled, why_not = self._jobs.cancel_waiting(self._plan)
        if cancelled:
            say(f"nothing is left for jobs {shown_ids(job.id for job in cancelled)}; cancelled")
        if why_not:  # they will find that out
            say(f"jobs for which nothing is left cannot be cancelled: {why_not}")

    # When time is over

    def _is_seen_to(self, left: list[Token]) -> bool:
        """Submit again what is left, if there was progress and the task allows it; return whether anybody is at it."""
        every = read_submissions(self._workdir, self._plan)
        mine = [submission for submission in every if submission.cause != GROWN] or every
        last = mine[-1]
        # Counted before it is asked what is there: of two workers that see the same, one gets the number.
        number = next_number(self._workdir, self._plan)
        self._jobs.look_anew()
        waiting = self._waiting()
        own = next((s for s in mine if s.name == self._own), last)
        if self._are_others(identity(own.scheduler), waiting):
            return True
        if is_paused(self._workdir):
            say("the time is over, and the task is paused")
            return False
        # Each group of the plan has a submission of its own each time, in each queue.
        times = Counter((s.first, identity(s.scheduler)) for s in mine if s.cause == CONTINUED)
        if max(times.values(), default=0) >= last.resubmit:
            say(f"the time is over, and the run went on by itself {last.resubmit} times (resubmit)")
            return False
        n_rows = finished_on_record(self._workdir)
        if n_rows <= last.n_rows:
            say("the time is over, and no item was finished since the last submission")
            return False
        wanted = []
        for group in self._plan.groups:
            n = sum(group[0] <= token.first <= group[1] for token in left)
            latest = {identity(s.scheduler): s for s in mine if s.first == group[0]} or {"": last}
            wanted += [(before, n) for queue, before in latest.items() if n and queue not in waiting]
        self._submit_all_again(wanted, number, n_rows)
        return True

    def _waiting(self) -> set[str]:
        """Return the queues, by `identity`, where jobs of the plan may be that do not run."""
        own, found = JobId(self._job, f"psy:{self._own}"), set()
        for submission in self._jobs.submissions:
            alive = self._jobs.alive(lambda s, this=submission: s is this and s.uid == self._plan.uid)  # type: ignore[misc]
            if any(status.state is not JobState.RUNNING for job, status in alive.items() if job != own):
                found.add(identity(submission.scheduler))
        return found

    def _are_others(self, here: str, waiting: set[str]) -> bool:
        """Whether jobs of the plan wait in the queue of this one, or are at work anywhere: these will see to it.

        Guests will not: they leave when they like, and submit nothing.
        """
        # Of its own submission the command may have noted no answer: it was killed.
        unsure = [
            s for s in self._jobs.submissions if s.uid == self._plan.uid and s.ids is None and s.name != self._own
        ]
        if any(s.cause != COMMAND or identity(s.scheduler) == here for s in unsure):
            return True  # somebody is just submitting
        # Those in another queue may wait for days.
        return here in waiting or any(self._is_at_work(worker) for worker in beating(self._workdir))

    def _is_at_work(self, worker: str) -> bool:
        if self._observer.read(worker).get("plan") != self._plan.id or self._observer.is_guest(worker):
            return False
        return not self._observer.left_by_queue(worker) and not self._observer.dead(worker)

    def _submit_all_again(self, wanted: list[tuple[Submission, int]], number: int, n_rows: int) -> None:
        """Submit as before what is wanted; an error if no queue takes any."""
        errors: list[PsyrunError] = []
        for later, (before, n) in enumerate(wanted):
            try:
                self._submit_again(before, number + later, n, n_rows)
            except (SubmitError, QueueError, TaskError) as error:
                errors.append(error)
                say(f"{called(before.scheduler)} takes no more jobs: {error}")
        if errors and len(errors) == len(wanted):
            raise errors[0]

    def _submit_again(self, before: Submission, number: int, n: int, n_rows: int) -> None:
        job = _renamed(before.job, before.name, f"{self._plan.uid}-{number}", min(n, before.job.n))
        again = replace(before, number=number, cause=CONTINUED, job=job, n_rows=n_rows, ids=None, by=Process.current())
        ids, told = self._jobs.submit(again)
        say(f"the time is over; jobs {shown_ids(job.id for job in ids)} go on with what is left {told}".rstrip())

    # When resources were too little

    def _climb_or_merge(self, goes_on: bool) -> None:
        """Submit items that had too little memory or time with more of it, if there are such; else merge."""
        task = self._plan.task()
        if goes_on:
            try:
                if self._climbed(task):
                    return  # the last of these jobs merges
            except PsyrunError as error:  # such as where machines that compute may not submit
                say(f"items that had too little memory or time wait for the next psy-doit {task.name}: {error}")
        self._merge(self._newest())  # a plan of the climb, where its jobs were not taken

    def _climbed(self, task: Task) -> bool:
        top = top_rung(task)
        if not top:
            return False
        state = look(task, rows=True)
        failures = state.placement.failures if state.placement is not None else {}
        items = [item for item, failure in failures.items() if needs_more(failure) and failure.rung < top]
        if not items:
            return False
        run = QueuedRun(task, Choices(confirm=lambda _: True), task.scheduler, RETRIED)
        run.prepare()
        run.chosen = np.isin(np.arange(len(state.done)), items)
        run.split()
        run.submit()
        say(f"{len(items)} items had too little memory or time; {run.summary()}")
        return bool(run.submitted)


def _renamed(job: Job, before: str, name: str, n: int) -> Job:
    command = tuple(name if word == before else word for word in job.command)
    return replace(job, token=f"psy:{name}", command=command, n=n)
