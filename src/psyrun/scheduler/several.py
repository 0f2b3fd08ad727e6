"""Several queues that serve one run, whichever has room first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psyrun.errors import TaskError
from psyrun.scheduler.base import Queue, Scheduler


class Several(Scheduler):
    """Queues that each get jobs for all of a run; the first that start do the work.

    Parameters
    ----------
    queues : sequence of Queue
    """

    def __init__(self, queues: Sequence[Queue]):
        self.queues = tuple(queues)

    def check(self, scheduler_args: Mapping[str, Any]) -> None:
        """Raise a TaskError if one of them does not take the arguments together with its own."""
        for queue in self.queues:
            queue.check(scheduler_args)

    def __repr__(self) -> str:
        return repr(list(self.queues))


def several(schedulers: Sequence[Scheduler]) -> Scheduler:
    """Return the scheduler that a list of them means; a list of one is that one.

    Raises
    ------
    TaskError
        The list is empty, has one that is no queue, or has the same twice.
    """
    if len(schedulers) == 1:
        return schedulers[0]
    if not schedulers:
        raise TaskError("scheduler = []: takes at least one. To compute here: scheduler = psyrun.ImmediateRun()")
    queues = [scheduler for scheduler in schedulers if isinstance(scheduler, Queue)]
    for scheduler in schedulers:
        if scheduler not in queues:
            raise TaskError(
                f"scheduler = [..., {scheduler!r}, ...]: only queues can serve a run together, such as "
                "[psyrun.Slurm(partition='a'), psyrun.Slurm(partition='b')]. Leave it out, or give it alone"
            )
    for i, queue in enumerate(queues):
        if any(_are_same(queue, other) for other in queues[:i]):
            raise TaskError(f"scheduler = [..., {queue!r}, ...]: is given twice. For more jobs there, raise max_jobs")
    return Several(queues)


def queues_of(scheduler: Scheduler | None) -> tuple[Queue, ...]:
    """Return the queues that get the jobs of a run; none if its items are computed here.

    >>> queues_of(Scheduler())
    ()
    """
    if isinstance(scheduler, Several):
        return scheduler.queues
    return (scheduler,) if isinstance(scheduler, Queue) else ()


def _are_same(a: Queue, b: Queue) -> bool:
    return type(a) is type(b) and a.arguments() == b.arguments() and dict(a.own) == dict(b.own)
