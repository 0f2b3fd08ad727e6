"""Where the workers of a plan run: on this machine, or as jobs of a queue."""

from __future__ import annotations

from psyrun.scheduler.base import Job, JobId, JobState, JobStatus, Queue, QueueError, Scheduler, SubmitError
from psyrun.scheduler.local import ImmediateRun, Multiprocessing, available_cores
from psyrun.scheduler.several import Several, queues_of, several
from psyrun.scheduler.slurm import Slurm
from psyrun.scheduler.sqsub import Sqsub

__all__ = [
    "ImmediateRun",
    "Job",
    "JobId",
    "JobState",
    "JobStatus",
    "Multiprocessing",
    "Queue",
    "QueueError",
    "Scheduler",
    "Several",
    "Slurm",
    "Sqsub",
    "SubmitError",
    "available_cores",
    "queues_of",
    "several",
]
