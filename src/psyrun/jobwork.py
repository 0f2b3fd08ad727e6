"""A worker that is a job of a queue: it works, and the last one of a plan sees to what comes after."""

from __future__ import annotations

import os
import signal
import sys
import time

from psyrun.claims import HELD, OPEN, Token, beat_seconds, ttl_seconds
from psyrun.errors import EarlyStopError, PsyrunError
from psyrun.jobs import MAX_AGE, JobObserver, Jobs
from psyrun.lastworker import LastWorker, say
from psyrun.nodes import GAVE_UP, STARTED
from psyrun.orders import is_drained
from psyrun.plan import Plan
from psyrun.processes import adopt_orphans, end_orphans
from psyrun.scheduler import Scheduler
from psyrun.submissions import read_submission
from psyrun.supervisor import Supervisor
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
        workdir.check_trust()  # before a class is imported that a file in it names
        self._submission = read_submission(workdir, submission)
        self._n_children = n_children
        self._job = os.environ.get("PSYRUN_JOB", "")
        self._terms = self._submission.terms(self._job)
        self._deadline = Deadline(self._terms.seconds)
        self._jobs = Jobs(None, workdir, MAX_AGE, self._scheduler)
        self._observer = JobObserver(self._jobs, ttl_seconds() / _LEFT_TO_GONE)

    def _scheduler(self) -> Scheduler:
        return self._plan.task().scheduler

    def run(self) -> int:
        """Work until nothing is left to claim, or the time is short; return the exit status."""
        say(STARTED)
        adopt_orphans()
        while True:
            counters = shared_counters(self._n_children)
            supervisor = Supervisor(
                self._workdir, self._plan, self._n_children, counters, -1, self._observer, self._terms, self._deadline
            )
            status = supervisor.run()
            signal.signal(signal.SIGTERM, self._told_to_stop)
            end_orphans()
            if supervisor.problem:
                say(f"{GAVE_UP}: {supervisor.problem}")
            # What did not fit does not fit the next supervisor either.
            drained = is_drained(self._plan.path)
            if status or drained or self._deadline.is_short(supervisor.seconds_per_item) or not self._wait_for_left():
                break
        if status in (0, EarlyStopError.exit_code):
            last = LastWorker(self._workdir, self._plan, self._submission.name, self._job, self._jobs, self._observer)
            try:
                last.see_to_the_rest(status == 0 and not drained)
            except PsyrunError as error:
                say(f"{error}. To see to the rest: psy-doit {self._plan.content['task']}")
        return status

    def _told_to_stop(self, *_: object) -> None:
        """End, for who cancels a job wants no other; but Slurm says so, too, when the time is over."""
        if not self._deadline.is_short(0.0):
            sys.exit(130)

    def _wait_for_left(self) -> bool:
        """Wait while workers hold something that seem to be gone; return whether there is something to claim again."""
        counts: dict[str, int] = {}
        while held := [token for token in self._plan.claims().tokens(HELD) if self._is_for_us(token)]:
            self._jobs.look()
            left = [token for token in held if self._seems_gone(token.worker, counts)]
            is_open = any(map(self._is_for_us, self._plan.claims().tokens(OPEN)))
            if is_open or any(self._observer.dead(token.worker) for token in held):
                return True
            if not left or self._deadline.is_short(0.0):
                return False
            time.sleep(min(beat_seconds(), 1.0))
        return False

    def _seems_gone(self, worker: str, counts: dict[str, int]) -> bool:
        """Whether the job of a worker is over, or it is a guest that did not beat since its beats were first counted.

        A guest that beats merges when it leaves.
        """
        if not self._observer.is_guest(worker):
            return self._observer.left_by_queue(worker)
        count: int = self._observer.read(worker).get("count", -1)
        return counts.setdefault(worker, count) == count

    def _is_for_us(self, token: Token) -> bool:
        return self._terms.covers(token.first, token.last)
