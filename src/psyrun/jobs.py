"""The jobs of a task: giving them to the queue, and what the queue says of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from psyrun.claims import Observer, ttl_seconds
from psyrun.errors import TemporaryError
from psyrun.plan import Plan
from psyrun.scheduler import JobId, JobState, JobStatus, Queue, QueueError, Scheduler, SubmitError
from psyrun.submissions import Submission, is_noted_as_over, read_submissions
from psyrun.workdir import Workdir

MAX_AGE = 30.0
"""Seconds that an answer of the queue may be old where it is only shown."""
_POLL = 0.2
_MOST_WAIT = 120.0
_GONE = JobStatus(JobState.GONE)


def recipe_of(queue: Queue) -> dict[str, Any]:
    """Return how to make a scheduler again, as JSON has it: its class, and its public attributes as arguments.

    Beside stands which queue it speaks with.
    """
    arguments = {name: value for name, value in vars(queue).items() if not name.startswith("_")}
    name = f"{type(queue).__module__}:{type(queue).__qualname__}"
    return {"class": name, "arguments": arguments, "world": queue.world()}


def made(recipe: Mapping[str, Any]) -> Queue:
    """Return the scheduler of a recipe.

    Raises
    ------
    TemporaryError
        Its class cannot be imported here.
    """
    module, _, name = recipe["class"].partition(":")
    try:
        queue = getattr(import_module(module), name)(**recipe["arguments"])
    except Exception as error:
        raise TemporaryError(f"the scheduler {recipe['class']} cannot be made here ({error})") from error
    if not isinstance(queue, Queue):
        raise TemporaryError(f"{recipe['class']} is no scheduler that speaks with a queue")
    return queue


class Jobs:
    """The jobs of one work directory, as the queue sees them.

    Parameters
    ----------
    queue : Queue
    workdir : Workdir
    max_age : float
        Seconds that an answer of the queue may be old.
    """

    def __init__(self, queue: Queue, workdir: Workdir, max_age: float = 0.0):
        self.queue = queue
        self.workdir = workdir
        self._max_age = max_age
        self._asked: dict[JobId, JobStatus] = {}
        self._known: frozenset[JobId] = frozenset()
        self.submissions: list[Submission] = []
        self.trouble = ""
        self._next = 0.0

    def ask(self, fresh: bool = False) -> None:
        """Read what was submitted, and ask the queue once about all of it.

        Parameters
        ----------
        fresh : bool
            Whether no older answer is good enough.

        Raises
        ------
        QueueError
            It gives no answer: nothing is known, and `alive` is what it was.
        """
        submissions = read_submissions(self.workdir)
        ids = [job for submission in submissions if not self.elsewhere(submission) for job in submission.ids or ()]
        # An answer from before jobs were submitted does not list them, and would have them gone.
        age = min([0.0 if fresh else self._max_age, *(s.answered_ago(self.workdir) for s in submissions if s.ids)])
        try:
            asked = self.queue.poll(ids, age) if ids else {}
        except QueueError as error:
            self.trouble = str(error)
            raise
        self.trouble = ""
        self.submissions, self._asked, self._known = submissions, asked, frozenset(ids)

    def has_more(self) -> bool:
        """Whether something was submitted since the queue was asked."""
        known = {submission.name: submission.ids for submission in self.submissions}
        return any(known.get(s.name) != s.ids for s in read_submissions(self.workdir))

    def elsewhere(self, submission: Submission) -> str:
        """Return the name of another cluster that has the jobs of a submission; '' if this one has."""
        theirs, ours = str(submission.scheduler.get("world", "")), self.queue.world()
        return theirs if theirs and ours and theirs != ours else ""

    def look(self) -> None:
        """Do the same where an answer is only to be shown: trouble is kept, and what was heard counts for a while."""
        if time.monotonic() >= self._next:
            self.look_anew(fresh=False)

    def look_anew(self, fresh: bool = True) -> None:
        """Do so whatever was asked before."""
        self._next = time.monotonic() + self._max_age
        try:
            self.ask(fresh)
        except QueueError:
            if not self.submissions:
                self.submissions = read_submissions(self.workdir)

    def status(self, job: JobId) -> JobStatus:
        """Return what the queue said of a job."""
        return self._asked.get(job, _GONE)

    def alive(self, chosen: Callable[[Submission], bool] = lambda _: True) -> dict[JobId, JobStatus]:
        """Return the jobs of submissions that are not over, also those of which the queue could not tell."""
        found = {}
        for submission in filter(chosen, self.submissions):
            unknown = self.trouble or self.elsewhere(submission)
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
        return not self.trouble and job in self._known and self.status(job).state.over

    def settle(self) -> None:
        """See to submissions without an answer: wait for who makes one, or ask the queue which of its jobs there are.

        Raises
        ------
        QueueError
            The queue cannot tell, so nothing more is submitted.
        """
        for submission in read_submissions(self.workdir):
            if submission.ids is None and not self._wait_for(submission):
                if self.elsewhere(submission):
                    raise QueueError(
                        f"jobs may have been given to the cluster {self.elsewhere(submission)}, which cannot be asked "
                        "from here. Type the command once there: it finds them"
                    )
                found = self.queue.find(submission.token)
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

    def cancel_waiting(self, plan: Plan) -> list[JobId]:
        """Take jobs of a plan that did not start from the queue, as far as it is known of them; return which."""
        alive = self.alive(lambda submission: submission.uid == plan.uid)
        if self.trouble or all(status.state is JobState.RUNNING for status in alive.values()):
            return []
        return self.queue.cancel_waiting(list(alive))

    def tidy(self) -> None:
        """Note which submissions are over, so that they are not asked for again."""
        for submission in self.submissions:
            if submission.ids is not None and not self.trouble and all(map(self.is_over, submission.ids)):
                submission.is_over(self.workdir)

    def submit(self, submission: Submission) -> tuple[list[JobId], str]:
        """Give a submission to the queue, noting it before and after; at most once, whatever happens.

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
        self.queue.check_submission(submission.job)
        if not submission.begin(self.workdir):
            return [], "another command submitted it"
        told = ""
        try:
            ids = self.queue.submit_many(submission.job)
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

    They are in the queue that they were given to, whatever the task file says now; None for one that cannot be read.

    Raises
    ------
    RefusedError
        Others could have written into the work directory, so what it says of queues is not used.
    """
    if isinstance(scheduler, Queue):
        return Jobs(scheduler, workdir, max_age)
    for submission in reversed(read_submissions(workdir)):
        workdir.check_trust()
        with suppress(TemporaryError):
            return Jobs(made(submission.scheduler), workdir, max_age)
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
        return bool(self._jobs.alive(lambda submission: [submission.plan] == newest))

    def dead(self, worker: str) -> bool:
        """Whether a worker is known to be dead."""
        if super().dead(worker):
            return True
        return self.left_by_queue(worker) and self.still_for(worker) >= self._patience

    def left_by_queue(self, worker: str) -> bool:
        """Whether a worker is a job that is over."""
        beat = self.read(worker)
        return bool(beat.get("job")) and self._jobs.is_over(JobId(str(beat["job"]), str(beat.get("token"))))


def observer_of(workdir: Workdir, jobs: Jobs | None) -> Observer:
    """Return who judges whether workers are alive."""
    return Observer(workdir.beats, ttl_seconds()) if jobs is None else JobObserver(jobs)


def counts(answers: Iterable[JobStatus]) -> dict[str, int]:
    """Return how many jobs are in which state, by its name."""
    found: dict[str, int] = {}
    for status in answers:
        found[status.state.value] = found.get(status.state.value, 0) + 1
    return found


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


def job_lines(jobs: Jobs) -> list[str]:
    """Return what people should know of the jobs of a task, a line each."""
    found = []
    if jobs.trouble:
        found.append(f"the queue gives no answer, so jobs may be there: {jobs.trouble}")
    for submission in jobs.submissions:
        alive = jobs.alive(lambda s, submission=submission: s is submission)  # type: ignore[misc]
        if submission.ids is None and submission.by.gone():
            found.append("jobs may be in the queue that nobody noted; the next psy-doit finds out")
        elif submission.ids is None:
            found.append(f"jobs are being submitted by process {submission.by.pid} on {submission.by.host}")
        elif jobs.elsewhere(submission):
            told = f"the cluster {jobs.elsewhere(submission)}, which cannot be asked from here"
            found.append(f"jobs {shown_ids(job.id for job in alive)} were given to {told}")
            found.append(f"  if it is no more: touch {jobs.workdir.submissions / submission.name / 'over'}")
        elif alive and not jobs.trouble:
            what = ", ".join(f"{n} {state}" for state, n in counts(alive.values()).items())
            reasons = {s.reason for s in alive.values() if s.state in (JobState.QUEUED, JobState.HELD) and s.reason}
            why = f" ({', '.join(sorted(reasons))})" if reasons else ""
            found.append(f"jobs {shown_ids(job.id for job in alive)}: {what}{why}")
            if any(status.never for status in alive.values()):
                which = "they" if all(status.never for status in alive.values()) else "some"
                do = "mend what they ask for, kill them, and type the command again"
                found.append(f"  {which} will never start, for that reason: {do}")
    return found


def job_report(jobs: Jobs) -> dict[str, Any]:
    """Return the same as JSON has it."""
    alive = jobs.alive()
    return {
        "answered": not jobs.trouble,
        "counts": {} if jobs.trouble else counts(alive.values()),
        "alive": [
            {"id": job.id, "state": status.state.value, "word": status.word, "reason": status.reason}
            for job, status in alive.items()
        ],
    }
