"""What a scheduler is: where the workers of a plan run, and what a queue of jobs is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from psyrun.errors import TaskError, TemporaryError


class JobState(Enum):
    """What a queue says of a job. GONE: the queue answered, and knows no such job; UNKNOWN: a word psyrun never saw."""

    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"
    UNKNOWN = "unknown"

    @property
    def over(self) -> bool:
        """Whether the job has ended, as far as the queue knows. An unknown word is not an end."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.GONE)


class JobId(NamedTuple):
    """What the queue calls a job (an element of an array is one), and the token that tells that it is ours.

    Queues use numbers again, after years or a new installation: a job of that number with another token is not ours.
    """

    id: str
    token: str


@dataclass(frozen=True)
class JobStatus:
    """What the queue says of one job.

    Attributes
    ----------
    state : JobState
    word : str
        The queue's own word, such as ``OUT_OF_MEMORY``.
    reason : str
        Why it waits, or ended, in the queue's own words; '' if it says nothing.
    never : bool
        Whether it waits for what will never be.
    short_of : str
        What the queue ended it for: ``'memory'``, ``'time'``, or '' for anything else.
    """

    state: JobState
    word: str = ""
    reason: str = ""
    never: bool = False
    short_of: str = ""


@dataclass(frozen=True)
class Job:
    """What is submitted: so many jobs that all run one command.

    Attributes
    ----------
    name : str
        What people see in the queue.
    token : str
        Given to the queue with the job, to find it again.
    command : tuple of str
        Words, the first an absolute path. The job's environment has ``PSYRUN_JOB`` set to its id.
    directory : Path
        Where it is run; absolute.
    logs : Path
        The directory that the output of each job goes to, appended to a file ``job-<id>.log``; absolute.
    n : int
        How many such jobs.
    resources : dict
        Checked ``scheduler_args``, see `psyrun.scheduler.resources.resolved`.
    prologue : tuple of str
        Lines for the shell of the job, before the command.
    exclude : tuple of str
        Nodes to leave out.
    """

    name: str
    token: str
    command: tuple[str, ...]
    directory: Path
    logs: Path
    n: int = 1
    resources: Mapping[str, Any] = field(default_factory=dict)
    prologue: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class QueueError(TemporaryError):
    """The queue gave no answer, or none that can be understood: nothing is known, and nothing was changed."""


class SubmitError(TemporaryError):
    """Not all jobs were taken by the queue.

    Attributes
    ----------
    taken : list of JobId
        Those that were.
    limited : bool
        Whether a limit of the queue on the number of jobs is the cause: those that were taken do the work of all.
    unsure : bool
        Whether the queue may have taken jobs without saying so; `Scheduler.find` tells which.
    """

    def __init__(self, message: str, taken: Sequence[JobId] = (), limited: bool = False, unsure: bool = False):
        super().__init__(message)
        self.taken = list(taken)
        self.limited = limited
        self.unsure = unsure


class JobRefusedError(SubmitError):
    """The queue will never take such a job: what it asks for is wrong."""

    exit_code = TaskError.exit_code


class Scheduler(ABC):  # noqa: B024 - a queue has abstract methods
    """Where workers run.

    Attributes
    ----------
    local : bool
        Whether the workers are children of the command, which then waits for them. Otherwise they are jobs of a queue,
        and the command returns when it has submitted them.
    """

    local: ClassVar[bool] = False

    def check(self, scheduler_args: Mapping[str, Any]) -> None:  # noqa: B027 - taking any is the default
        """Raise a TaskError if there is an argument that the scheduler does not take, or a value that it cannot."""

    def n_workers(self) -> int:
        """Return how many items run at a time, where the scheduler decides that."""
        return 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Queue(Scheduler):
    """A scheduler that gives jobs to a queue. `submit`, `poll`, `cancel` are what one must write.

    Attributes
    ----------
    programs : tuple of str
        What must be on the PATH of who submits.
    own : dict
        ``scheduler_args`` that this one was given itself.
    """

    local: ClassVar[bool] = False
    programs: ClassVar[tuple[str, ...]] = ()
    own: Mapping[str, Any] = MappingProxyType({})

    def asks(self, scheduler_args: Mapping[str, Any]) -> dict[str, Any]:
        """Return what jobs here ask for: the ``scheduler_args`` of a task, and on top what this queue was given."""
        others = {name: value for name, value in scheduler_args.items() if str(name).replace("-", "_") not in self.own}
        return {**others, **self.own}

    def arguments(self) -> dict[str, Any]:
        """Return what makes such an object again, but for `own`: its public attributes, as arguments of its class."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "own"}

    def __repr__(self) -> str:
        given = {name: value for name, value in self.arguments().items() if value is not None}
        shown = [f"{name}={value!r}" for name, value in {**given, **self.own}.items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def world(self) -> str:
        """Return what tells this queue from others of its kind, such as the name of the cluster; '' if nothing does.

        Several clusters may share a file system: of jobs of another one this queue knows nothing.
        """
        return ""

    @abstractmethod
    def submit(self, job: Job, number: int = 0) -> JobId:
        """Give one job to the queue: that of a number among ``job.n`` alike ones.

        Raises
        ------
        SubmitError
        """

    @abstractmethod
    def poll(self, ids: Sequence[JobId], max_age: float = 0.0) -> dict[JobId, JobStatus]:
        """Return what the queue says of jobs, with one question for all.

        Parameters
        ----------
        ids : sequence of JobId
        max_age : float
            Seconds that an answer given to an earlier command may be old.

        Raises
        ------
        QueueError
            It gives no answer.
        """

    @abstractmethod
    def cancel(self, ids: Sequence[JobId]) -> None:
        """End jobs that are ours; those that are over, or have another token, are left alone.

        Raises
        ------
        QueueError
            It gives no answer.
        """

    def cancel_waiting(self, ids: Sequence[JobId]) -> list[JobId]:
        """End those that did not start, and no others; return which.

        Raises
        ------
        QueueError
            It gives no answer.
        """
        waiting = [id_ for id_, status in self.poll(ids).items() if status.state in (JobState.QUEUED, JobState.HELD)]
        if waiting:
            self.cancel(waiting)
        return waiting

    def submit_many(self, job: Job) -> list[JobId]:
        """Give all ``job.n`` jobs to the queue; queues with arrays do it in one step.

        Raises
        ------
        SubmitError
        """
        taken: list[JobId] = []
        for number in range(job.n):
            try:
                taken.append(self.submit(replace(job, n=1), number))
            except SubmitError as error:
                raise type(error)(str(error), [*taken, *error.taken], error.limited, error.unsure) from error
        return taken

    def find(self, token: str) -> list[JobId]:
        """Return all jobs that the queue knows with a token, ended ones too.

        Raises
        ------
        QueueError
            It gives no answer, or cannot tell.
        """
        raise QueueError(f"{self!r} cannot tell which jobs have a token")

    def ended(self, ids: Sequence[JobId]) -> dict[JobId, str]:
        """Return what the queue has on record of jobs that are over, in its own words; {} where it keeps none."""
        return {}

    def warn(self, job: JobId) -> bool:
        """Send a job that runs the signal that it gets before its time is over; return False if the queue sends none.

        Raises
        ------
        QueueError
            It gives no answer, or does not do it.
        """
        return False

    def version(self) -> str:
        """Return what the queue says of its own version; '' if nothing."""
        return ""

    def check_submission(self, job: Job) -> None:
        """Raise a TaskError if the queue would take the job and never run it, such as for a time above its limit."""

    def preview(self, job: Job) -> str:
        """Return what would be given to the queue, as people read it."""
        return f"{job.n} x {' '.join(job.command)}"
