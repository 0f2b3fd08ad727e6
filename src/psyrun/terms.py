"""What a worker that is a job of a queue keeps to: its share of the plan, its time, its memory."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

_MARGIN = 10.0
"""Seconds before the end of a job's time that it stops, to put all on record; of short times a tenth."""
_WARNED = 45.0
"""Seconds that are left for sure after the queue's warning, which is asked for 60 s before the end."""
_MOST_OF_IT = 0.8

JOB_TIME = "JobTimeLimit"
"""What the failure of an item is called that a whole job's time was not enough for."""


@dataclass(frozen=True)
class Terms:
    """What is known of the job that a worker is; of one that is no job, nothing.

    Attributes
    ----------
    job, token : str
        See `psyrun.scheduler.JobId`.
    first, last : int
        The positions of the work list from which it claims; last None: to the end.
    seconds : float or None
        The job's time limit.
    memory : float or None
        Bytes that the job may use.
    rung : int
        Of the ladders of resources, the rung that the job stands on.
    """

    job: str = ""
    token: str = ""
    first: int = 0
    last: int | None = None
    seconds: float | None = None
    memory: float | None = None
    rung: int = 0

    def covers(self, first: int, last: int) -> bool:
        """Whether the worker may claim positions first..last."""
        return first >= self.first and (self.last is None or last <= self.last)


NO_JOB = Terms()


class Quota:
    """How many items a worker may begin, and until when. Its time begins when this is made.

    Parameters
    ----------
    items : int, optional
    seconds : float, optional
    """

    def __init__(self, items: int | None = None, seconds: float | None = None):
        self._left = math.inf if items is None else items
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def is_used_up(self) -> bool:
        """Whether no further item may be begun."""
        return self._left <= 0 or time.monotonic() > self._end

    def most(self, shares: int) -> float:
        """Return how many items one of several children may be given at a time."""
        return math.ceil(self._left / shares) if math.isfinite(self._left) else math.inf

    def begun(self, n: int) -> None:
        """Count items as begun; a negative number as not begun after all."""
        self._left -= n


class Deadline:
    """Until when a worker may run, and whether another item would fit. Its time begins when this is made.

    Parameters
    ----------
    seconds : float, optional
        The time limit.
    """

    def __init__(self, seconds: float | None = None):
        self._began = time.monotonic()
        self._end = math.inf if seconds is None else self._began + seconds - min(_MARGIN, 0.1 * seconds)
        self._whole = self._end - self._began
        self._warned = False

    def warn(self) -> None:
        """Take in that the queue will end the job soon."""
        self._warned = True
        self._end = min(self._end, time.monotonic() + _WARNED)

    def is_short(self, seconds_per_item: float) -> bool:
        """Whether no further item should be begun."""
        return self._warned or time.monotonic() + 1.5 * seconds_per_item > self._end

    def is_over(self) -> bool:
        """Whether the worker must stop now."""
        return time.monotonic() > self._end

    def due(self) -> float:
        """Return how many seconds are left."""
        return max(0.0, self._end - time.monotonic())

    def had_most(self, since: float) -> bool:
        """Whether what began at a monotonic time had most of the job's time, so that another job would not help.

        Not if the queue ended the job long before: it may do that for the sake of others.
        """
        whole = self._whole if math.isfinite(self._whole) else self._end - self._began
        return self._end - since > _MOST_OF_IT * whole
