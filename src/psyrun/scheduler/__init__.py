"""Where the workers of a plan run."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from psyrun.errors import TaskError

__all__ = ["ImmediateRun", "Multiprocessing", "Scheduler", "Sqsub"]


class Scheduler(ABC):
    """Where workers run.

    Attributes
    ----------
    local : bool
        Whether the workers are children of the command, which then waits for them.
    """

    local: ClassVar[bool] = False

    @abstractmethod
    def n_workers(self) -> int:
        """Return how many items run at a time, where the scheduler decides that."""

    def check(self, scheduler_args: Mapping[str, Any]) -> None:  # noqa: B027 - taking any is the default
        """Raise a TaskError if there is an argument that the scheduler does not take."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ImmediateRun(Scheduler):
    """Here and now, one chunk after another. The scheduler's arguments do not matter and are accepted."""

    local: ClassVar[bool] = True

    def n_workers(self) -> int:
        """Return 1."""
        return 1


class Multiprocessing(Scheduler):
    """Here and now, on several cores.

    Parameters
    ----------
    n : int, optional
        How many items run at a time; default one a core that this process may use.
    """

    local: ClassVar[bool] = True

    def __init__(self, n: int | None = None):
        if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
            raise TaskError(f"Multiprocessing takes a whole number of workers from 1, not {n!r}")
        self.n = n

    def n_workers(self) -> int:
        """Return the given number, or that of the cores."""
        return self.n or available_cores()

    def __repr__(self) -> str:
        return f"Multiprocessing({'' if self.n is None else self.n})"


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


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
