"""The jobs of a task: giving them to the queue, and what the queue says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from psyrun.claims import Observer, ttl_seconds
from psyrun.plan import Plan
from psyrun.queues import Queues, identity
from psyrun.scheduler import JobId, JobState, JobStatus, Queue, QueueError, Scheduler, SubmitError
from psyrun.submissions import Submission, is_noted_as_over, read_submissions
from psyrun.workdir import Workdir

MAX_AGE = 30.0
"""Seconds that an answer of the queue may be old where it is only shown."""
_POLL = 0.2
_MOST_WAIT = 120.0
_GONE = JobStatus(JobState.GONE)


class Jobs:
    """The jobs of one work directory, as their queues see them.

    Parameters
    ----------
    scheduler : Scheduler or None
        As the task file has it now; the jobs may be in other queues.
    workdir : Workdir
    max_age : float
        Seconds that an answer of a queue may be old.
    defined : callable, optional
        See `Queues`.
    """

    def __init__(
        self,
        scheduler: Scheduler | None,
        workdir: Workdir,
        max_age: float = 0.0,
        defined: Callable[[], Scheduler] | None = None,
    ):
        self.queues = Queues(scheduler, workdir, defined)
        self.workdir = workdir
        self._max_age = max_age
        self._asked: dict[JobId, JobStatus] = {}
        self.submissions: list[Submission] = []
        self._silence: dict[str, str] = {}
        self._unsettled: dict[str, str] = {}
        self._next = 0.0

    @property
    def trouble(self) -> str:
        """Why queues gave no answer; '' if all did that were asked."""
        return "; ".join(dict.fromkeys(self._silence.values()))

    def ask(self, fresh: bool = False) -> None:
        """Read what was submitted, and ask each queue once about all that it has.

        Where one gives no answer, nothing is known of its jobs, see `silent`.

        Parameters
        ----------
        fresh : bool
            Whether no older answer is good enough.

        Raises
        ------
        QueueError
            None gives an answer.
        """
        self.submissions = read_submissions(self.workdir)
        mine = [submission for submission in self.submissions if submission.ids]
        # An answer from before jobs were submitted does not list them, and would have them gone.
        age = min([0.0 if fresh else self._max_age, *(s.answered_ago(self.workdir) for s in mine)])
        self._asked = {}

        def poll(queue: Queue, ids: list[JobId]) -> None:
            self._asked |= dict.fromkeys(ids, _GONE) | queue.poll(ids, age)

        self._silence = self.queues.each(mine, poll)
        if self._silence and not self._asked:
            raise QueueError(self.trouble)

    def has_more(self) -> bool:
        """Whether something was submitted since the queue was asked."""
        known = {submission.name: submission.ids for submission in self.submissions}
        return any(known.get(s.name) != s.ids for s in read_submissions(self.workdir))

    def elsewhere(self, submission: Submission) -> str:
        """Return the name of another cluster that has the jobs of a submission; '' if there is none."""
        return self.queues.elsewhere(submission)

    def is_silent(self, submission: Submission) -> bool:
        """Whether the queue of a submission gave no answer."""
        return submission.name in self._silence

    def silent(self, queue: Queue) -> str:
        """Return why it is not known which jobs a queue has, as far as it was asked; '' if it is known."""
        why = self._silence | self._unsettled
        found = (why[s.name] for s in self.submissions if s.name in why and self.queues.reaches(queue, s))
        return next(found, "")

    def are_several(self) -> bool:
        """Whether jobs are, or are to be, in more than one queue."""
        return len(self.queues.given) > 1 or len({identity(s.scheduler) for s in self.submissions}) > 1

    def is_unsettled(self, plan: str) -> bool:
        """Whether jobs of a plan may be in a queue that nobody noted, and that could not be asked."""
        return any(s.plan == plan and s.name in self._unsettled for s in self.submissions)

    def look(self) -> None:
        """Do the same where an answer is only to be shown: trouble is kept, and what was heard counts for a while."""
        if time.monotonic() >= self._next:
            self.look_anew(fresh=False)

    def look_anew(self, fresh: bool = True) -> None:
        """Do so whatever was asked before."""
        self._next = time.monotonic() + self._max_age
        with suppress(QueueError):
            self.ask(fresh)

    def status(self, job: JobId) -> JobStatus:
        """Return what the queue said of a job."""
        return self._asked.get(job, _GONE)

    def alive(self, chosen: Callable[[Submission], bool] = lambda _: True) -> dict[JobId, JobStatus]:
        """Return the jobs of submissions that are not over, also those of which the queue could not tell."""
        found = {}
        for submission in filter(chosen, self.submissions):
            unknown = self.is_silent(submission) or self.elsewhere(submission)
            for job in submission.ids or ():
                status = self.status(job)
                if unknown:
                    found[job] = JobStatus(JobState.UNKNOWN)
                elif not status.state.over:
                    found[job] = status
        return found

    def is_over(self, job: JobId) -> bool:
        """Whether the queue said that the job has ended, now or to an earlier command."""
        if is_noted_as_over(self.workdir, job.token):
            return True
        return job in self._asked and self.status(job).state.over

    def settle(self) -> None:
        """See to submissions without an answer: wait for who makes one, or ask the queue which of its jobs there are.

        Raises
        ------
        QueueError
            A queue cannot tell, so nothing more is submitted to it.
        """
        self._unsettled = {}
        for submission in read_submissions(self.workdir):
            try:
                self._settle(submission)
            except QueueError as error:
                self._unsettled[submission.name] = str(error)
        if self._unsettled:
            raise QueueError("; ".join(dict.fromkeys(self._unsettled.values())))

    def _settle(self, submission: Submission) -> None:
        if submission.ids is not None or self._wait_for(submission):
            return
        if self.elsewhere(submission):
            raise QueueError(
                f"jobs may have been given to the cluster {self.elsewhere(submission)}, which cannot be asked "
                "from here. Type the command once there: it finds them"
            )
        found = self.queues.of(submission).find(submission.token)
        submission.answered(self.workdir, found, "found in the queue" if found else "not in the queue")

    def _wait_for(self, submission: Submission) -> bool:
        """Wait while a process that may be alive submits something; return whether it noted the answer."""
        end, gone = time.monotonic() + _MOST_WAIT, submission.by.gone()
        while time.monotonic() < end:
            gone = submission.by.gone()  # looked at first: it notes the answer, and ends
            if any(s.name == submission.name and s.ids is not None for s in read_submissions(self.workdir)):
                return True
            if gone:
                return False
            time.sleep(_POLL)
        if gone is False:
            by = submission.by
            raise QueueError(f"process {by.pid} on {by.host} is still submitting jobs. Type the command again later")
        return False

    def cancel_waiting(self, plan: Plan) -> tuple[list[JobId], str]:
        """Take jobs of a plan that did not start from their queues; return which, and why others may be left."""
        alive = self.alive(lambda submission: submission.uid == plan.uid)
        cancelled: list[JobId] = []

        def end(queue: Queue, ids: list[JobId]) -> None:
            if any(alive[job].state is not JobState.RUNNING for job in ids):
                cancelled.extend(queue.cancel_waiting(ids))

        why = self.queues.each(self.submissions, end, alive)
        return cancelled, "; ".join(dict.fromkeys(why.values()))

    def cancel(self, jobs: Iterable[JobId]) -> str:
        """End jobs, each in its queue; return why some may be left."""
        why = self.queues.each(self.submissions, lambda queue, ids: queue.cancel(ids), jobs)
        return "; ".join(dict.fromkeys(why.values()))

    def ended(self, jobs: Iterable[JobId]) -> dict[JobId, str]:
        """Return what queues have on record of jobs that are over."""
        found: dict[JobId, str] = {}
        self.queues.each(self.submissions, lambda queue, ids: found.update(queue.ended(ids)), jobs)
        return found

    def tidy(self) -> None:
        """Note which submissions are over, so that they are not asked for again."""
        for submission in self.submissions:
            if submission.ids is not None and all(map(self.is_over, submission.ids)):
                submission.is_over(self.workdir)

    def submit(self, submission: Submission) -> tuple[list[JobId], str]:
        """Give a submission to its queue, noting it before and after; at most once, whatever happens.

        Returns
        -------
        jobs : list of JobId
            Empty if another process submitted the same.
        told : str
            What people should know about it.

        Raises
        ------
        SubmitError
            Nothing was taken, or it is not known what was.
        """
        queue = self.queues.of(submission)
        queue.check_submission(submission.job)
        if not submission.begin(self.workdir):
            return [], "another command submitted it"
        told = ""
        try:
            ids = queue.submit_many(submission.job)
        except SubmitError as error:
            if error.unsure:  # no answer is noted: the next command asks for the token
                raise
            submission.answered(self.workdir, error.taken, str(error))
            if not error.taken:
                raise
            ids, told = error.taken, str(error)
        else:
            submission.answered(self.workdir, ids)
        return ids, told


def jobs_of(scheduler: Scheduler | None, workdir: Workdir, max_age: float = MAX_AGE) -> Jobs | None:
    """Return the jobs of a work directory, not asked for yet; None if there were never any.

    They are in the queues that they were given to, whatever the task file says now; None for one that cannot be read.

    Raises
    ------
    RefusedError
        Others could have written into the work directory, so what it says of queues is not used.
    """
    jobs = Jobs(scheduler, workdir, max_age)
    if jobs.queues.given:
        return jobs
    for submission in read_submissions(workdir):
        with suppress(QueueError):
            jobs.queues.of(submission)
            return jobs
    return None


class JobObserver(Observer):
    """Judges whether workers are alive with the help of the queue.

    Parameters
    ----------
    jobs : Jobs
        Asked before.
    patience : float
        Seconds that a worker's heartbeat must stand still whose job is over: a queue may have lost sight of a process.
    """

    def __init__(self, jobs: Jobs, patience: float = 0.0):
        super().__init__(jobs.workdir.beats, ttl_seconds())
        self._jobs = jobs
        self._patience = patience

    @property
    def jobs_expected(self) -> bool:  # type: ignore[override]
        """Whether jobs of the newest plan are in the queue, or may be."""
        newest = self._jobs.workdir.plan_ids()[-1:]
        if self._jobs.alive(lambda submission: [submission.plan] == newest):
            return True
        return any(map(self._jobs.is_unsettled, newest))

    def dead(self, worker: str) -> bool:
        """Whether a worker is known to be dead."""
        if super().dead(worker):
            return True
        return self.left_by_queue(worker) and self.still_for(worker) >= self._patience

    def left_by_queue(self, worker: str) -> bool:
        """Whether a worker is a job that is over."""
        beat = self.read(worker)
        return bool(beat.get("job")) and self._jobs.is_over(JobId(str(beat["job"]), str(beat.get("token"))))

    def is_guest(self, worker: str) -> bool:
        """Whether a worker has a heartbeat that tells of no job."""
        beat = self.read(worker)
        return bool(beat) and not beat.get("job")


def observer_of(workdir: Workdir, jobs: Jobs | None) -> Observer:
    """Return who judges whether workers are alive."""
    return Observer(workdir.beats, ttl_seconds()) if jobs is None else JobObserver(jobs)


def shown_ids(ids: Iterable[str]) -> str:
    """Return ids of jobs in short: elements of an array as ranges.

    >>> shown_ids(["17_0", "17_1", "17_2", "17_5", "18_0", "19"])
    '17_[0-2,5], 18_0, 19'
    """
    arrays: dict[str, list[int]] = {}
    told: list[str] = []
    for text in ids:
        array, _, index = text.partition("_")
        if index.isdecimal():
            arrays.setdefault(array, []).append(int(index))
        else:
            told.append(text)
    return ", ".join([*(_shown_array(array, sorted(numbers)) for array, numbers in arrays.items()), *told])


def _shown_array(array: str, numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(f"{a}-{b}" if a < b else str(a) for a, b in runs)
    return f"{array}_{text}" if len(numbers) == 1 else f"{array}_[{text}]"
