"""Watching child processes: what they have in hand, for how long, and what to blame when they end."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from psyrun.child import ATTEMPT, MOST_BLOCK, POSITION, RECORDING
from psyrun.holdings import Block, Holding
from psyrun.memory import OUT_OF_MEMORY, MemoryLimit
from psyrun.parts import Failure
from psyrun.plan import Plan
from psyrun.processes import UNIT_OF_RUSAGE, ending
from psyrun.terms import JOB_TIME, NO_JOB, Deadline, Terms
from psyrun.units import shown_seconds

Counters = npt.NDArray[np.int64]

TIME_LIMIT = "TimeLimit"
"""What the failure of an item is called that was killed after `timeout`."""

_COUNTERS = 5
_PAUSE = 2.0
"""Seconds between two looks that only a pause of all processes explains."""


def shared_counters(n: int) -> Counters:
    """Return n rows of counters in memory that forked processes share."""
    return np.frombuffer(mmap.mmap(-1, max(n, 1) * _COUNTERS * 8), dtype=np.int64).reshape(-1, _COUNTERS)


def shared_keys(n: int) -> npt.NDArray[np.uint64]:
    """Return room for the keys of n blocks in memory that forked processes share; what is not used takes none."""
    return np.frombuffer(mmap.mmap(-1, n * MOST_BLOCK * 16), dtype=np.uint64).reshape(n, MOST_BLOCK, 2)


@dataclass
class ChildProcess:
    """A child process, as its supervisor sees it.

    Attributes
    ----------
    ended : int or None
        Its wait status, once it is known.
    work : tuple or None
        The block in hand, and whose it is.
    position, attempt, since : int, int, float
        The item that it was last seen with, at which attempt, and since when by the monotonic clock.
    overdue : bool
        Whether it was killed because that was too long.
    peak : float
        The most bytes of memory that it used, once it has ended.
    """

    number: int
    pid: int
    channel: socket.socket
    part: int
    path: Path
    ready: bool = False
    ended: int | None = None
    work: tuple[Holding, Block] | None = None
    position: int = -1
    attempt: int = 0
    since: float = 0.0
    overdue: bool = False
    peak: float = 0.0

    def wait(self, flags: int = 0) -> int:
        """Return the wait status when the process has ended."""
        if self.ended is None:
            pid, status, usage = os.wait4(self.pid, flags)
            if pid:
                self.ended, self.peak = status, usage.ru_maxrss * UNIT_OF_RUSAGE
        return self.ended or 0

    def has_ended(self) -> bool:
        """Whether the process has."""
        self.wait(os.WNOHANG)
        return self.ended is not None


class Watch:
    """Tells whose time is over, and which item to blame for the end of a process.

    Parameters
    ----------
    plan : Plan
    counters : array of int64, shape (n_children, 5)
    keys : array of uint64, shape (n_children, MOST_BLOCK, 2)
        Of the items of the block that each child has in hand.
    terms : Terms
    """

    def __init__(self, plan: Plan, counters: Counters, keys: npt.NDArray[np.uint64], terms: Terms = NO_JOB):
        self._plan = plan
        self._terms = terms
        self._memory = MemoryLimit(terms.memory, len(counters))
        self._counters = counters
        self._keys = keys
        self._charges: Counter[tuple[int, str]] = Counter()
        self._looked = time.monotonic()
        self.timeout: float | None = plan.content.get("timeout")

    def overdue(self, children: Iterable[ChildProcess]) -> list[ChildProcess]:
        """Return who is to be killed: its item takes longer than the task allows, since it was first seen."""
        found = []
        now = time.monotonic()
        pause = now - self._looked if now - self._looked > _PAUSE else 0.0
        self._looked = now
        for child in children:
            child.since += pause  # nobody knows how much of it they could use
            position, attempt = self._in_hand(child), int(self._counters[child.number, ATTEMPT])
            if (position, attempt) != (child.position, child.attempt) or self._counters[child.number, RECORDING]:
                child.position, child.attempt, child.since = position, attempt, now
            elif self.timeout is None:
                continue
            elif position >= 0 and now - child.since > self.timeout and child.ended is None and not child.overdue:
                child.overdue = True
                found.append(child)
        return found

    def blamed(self, child: ChildProcess, status: int) -> Failure | None:
        """Charge the end of a process to its item; return a failure if that is given up now.

        That is when it was tried again as often as its plan has it, by default after the third death, and the first
        time that it was killed because its time was over.
        """
        position = self._in_hand(child)
        if position < 0 or child.work is None:
            return None
        watched = child.position == position
        logs = f"psy-doit logs {self._plan.content['task']}"
        if child.overdue and not watched:  # it was done with the other just before it was killed
            return None
        ran_out = None if child.overdue else self._memory.told(child.peak, status)
        what = "time limit" if child.overdue else "memory" if ran_out else "crash"
        self._charges[position, what] += 1
        times = self._charges[position, what]
        if times <= self._plan.retries[what]:
            return None
        if child.overdue:
            limit = shown_seconds(self.timeout or 0.0)
            kind, told = TIME_LIMIT, f"was killed after {limit} (timeout). Where it was: {logs}"
        elif ran_out:
            kind, told = OUT_OF_MEMORY, ran_out
        else:
            kind = f"Crash ({ending(status)})"
            told = f"the process ended {times} times in this item" if times > 1 else "the process ended in this item"
            if os.WIFSIGNALED(status):
                killed = os.WTERMSIG(status) == signal.SIGKILL
                told += "; a system that is out of memory does that" if killed else f". Where: {logs}"
        seconds = time.monotonic() - child.since if watched else 0.0
        return self._failure(child.number, child.work[1], position, seconds, kind, told)

    def too_long(self, child: ChildProcess, deadline: Deadline) -> Failure | None:
        """Return a failure of the item in hand if it had most of the job's time, and did not end in it."""
        position = self._in_hand(child)
        if child.work is None or position < 0 or child.position != position or not deadline.had_most(child.since):
            return None
        limit = shown_seconds(self._terms.seconds or 0.0)
        told = f"was not done when the {limit} of the job were over (timelimit); a job did nothing else"
        return self._failure(child.number, child.work[1], position, time.monotonic() - child.since, JOB_TIME, told)

    def _failure(self, child: int, block: Block, position: int, seconds: float, kind: str, told: str) -> Failure:
        index = next(self._plan.work().indices(position, position))[0]
        key = self._keys[child, position - block[0]].tolist()
        return Failure((key[0], key[1]), index, time.time() - seconds, seconds, kind, told, "", told)

    def _in_hand(self, child: ChildProcess) -> int:
        """Return the position of the item in hand, -1 if there is none."""
        return int(self._counters[child.number, POSITION]) if child.work is not None else -1
