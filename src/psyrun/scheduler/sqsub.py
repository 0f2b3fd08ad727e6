"""SHARCNET's queue."""

from __future__ import annotations

import os

from psyrun.errors import TaskError
from psyrun.scheduler.base import Scheduler


class Sqsub(Scheduler):
    """SHARCNET's queue. Task files that name it load everywhere; this version does not submit to it yet.

    Parameters
    ----------
    workdir : path
        Where the queue's own files went in psyrun 0.8.
    """

    def __init__(self, workdir: str | os.PathLike[str]):
        self.workdir = os.fspath(workdir)

    def n_workers(self) -> int:
        """Raise: jobs cannot be submitted."""
        raise TaskError(
            "scheduler = Sqsub(...): this version of psyrun does not submit jobs. "
            "Run on the cores of this machine instead: scheduler = psyrun.Multiprocessing()"
        )
