"""Which kind of run a task needs. Apart, so that a run on this machine imports nothing of queues."""

from __future__ import annotations

from psyrun.local import LocalWorker
from psyrun.run import Choices, Run
from psyrun.scheduler import queues_of
from psyrun.tasks import Task


def run_of(task: Task, choices: Choices, worker: LocalWorker | None = None) -> Run:
    """Return a run of a task, of the kind that its scheduler asks for."""
    if not queues_of(task.scheduler):
        return Run(task, choices, worker)
    from psyrun.queued import QueuedRun

    return QueuedRun(task, choices, task.scheduler)
