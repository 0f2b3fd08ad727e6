"""Running the workers of a plan on this machine."""

from __future__ import annotations

import os
from typing import ClassVar

from psyrun.errors import TaskError
from psyrun.scheduler.base import Scheduler


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


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
