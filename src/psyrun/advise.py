"""What to ask a queue for, from what was measured."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from psyrun.costs import Measured, measured
from psyrun.errors import TaskError
from psyrun.retries import class_of
from psyrun.scheduler import queues_of
from psyrun.scheduler.resources import n_rungs, resolved
from psyrun.state import State
from psyrun.taskfiles import SCHEMA_VERSION
from psyrun.tasks import Task
from psyrun.units import shown_bytes, shown_seconds

_TIME_MARGIN, _MEMORY_MARGIN = 1.5, 1.3
_STEPS = ((3600, 600), (6 * 3600, 1800), (math.inf, 3600))
"""Up to which time limit, in seconds, it is rounded up to multiples of what."""
_MEMORY_STEP = 128
_LEAST = 600.0
"""Seconds that a job should take at least: jobs wait for minutes in a queue."""
_FAR_TOO_SHORT = 0.5
"""Below which part of that it is said."""
_OF_MEMORY = ("memory", "memory_per_cpu", "n_cpus")


def time_limit(longest: float, n_items: int, pool_size: int) -> int:
    """Return the seconds that a job should ask for: its items fit if all take as long as the longest, and half more.

    Parameters
    ----------
    longest : float
        Seconds.
    n_items : int
        Items of a job.
    pool_size : int
        How many of them run at a time.

    Examples
    --------
    >>> time_limit(60, 10, 1), time_limit(1, 1, 1), time_limit(3600, 1, 4), time_limit(3600, 9, 4)
    (1200, 600, 7200, 16200)
    """
    wanted = max(longest * math.ceil(n_items / pool_size) * _TIME_MARGIN, 2 * longest, 1.0)
    step = next(step for most, step in _STEPS if wanted <= most)
    return math.ceil(wanted / step) * step


def memory(peak: int, pool_size: int) -> int:
    """Return the MiB that a job should ask for.

    >>> memory(100 * 2**20, 1), memory(100 * 2**20, 4), memory(1, 1)
    (256, 640, 128)
    """
    return math.ceil(peak * pool_size * _MEMORY_MARGIN / 2**20 / _MEMORY_STEP) * _MEMORY_STEP


def ladder(least: int, had: int) -> list[int]:
    """Return amounts to ask for one after the other, where some items had too little: these begin with twice that.

    >>> ladder(512, 1024), ladder(512, 0)
    ([512, 2048, 4096], [512, 1024, 2048])
    """
    most = max(least, had)
    return [least, 2 * most, 4 * most]


def fewest_items(mean: float, pool_size: int) -> int:
    """Return how many items a job should have at least so that it takes some minutes.

    >>> fewest_items(1.0, 1), fewest_items(0.001, 2), fewest_items(3600, 1)
    (600, 1200000, 1)
    """
    return max(1, math.ceil(_LEAST * pool_size / max(mean, 1e-6)))


@dataclass(frozen=True)
class Advice:
    """What to ask a queue for.

    Attributes
    ----------
    n_left : int
        Items without a row.
    n_items : int
        Items that it is meant for: those, or all of the space if none is left.
    size : int
        Items of a job, with the `min_items` that is advised.
    n_jobs, job_seconds : int, float
        As the task file has it now: jobs, and how long one computes on average.
    min_items : int
        As advised; what the task file has where that will do.
    timelimit : int
        Seconds.
    memory : list of int
        MiB, for each attempt; empty if no peak was noted.
    """

    task: Task
    measured: Measured
    n_left: int
    n_items: int
    size: int
    n_jobs: int
    job_seconds: float
    min_items: int
    timelimit: int
    memory: list[int]

    @property
    def short(self) -> bool:
        """Whether the jobs are too short now."""
        return bool(self.min_items != self.task.options["min_items"])

    def scheduler_args(self) -> tuple[dict[str, Any], list[str]]:
        """Return the line's content: what the task file has, with what is advised; and the names that stay as they are.

        Functions cannot be shown as they are written.
        """
        given = {str(k).replace("-", "_"): v for k, v in self.task.options["scheduler_args"].items() if v is not None}
        new: dict[str, Any] = {"timelimit": shown_limit(self.timelimit)}
        if self.memory:
            given.pop("memory_per_cpu", None)
            amounts = [shown_memory(amount) for amount in self.memory]
            new["memory"] = amounts if len(amounts) > 1 else amounts[0]
        whole = {**given, **new}
        functions = [name for name, value in whole.items() if _has_function(value)]
        return {name: value for name, value in whole.items() if name not in functions}, functions

    def report(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        found, mean = self.measured, float(self.measured.seconds.mean())
        return {
            **nothing(self.task, self.n_left),
            "measured": {
                "n_rows": len(found.seconds),
                "seconds_mean": mean,
                "seconds_longest": found.longest,
                "peak_bytes": found.peak or None,
                "n_failures": len(found.failed),
                "n_twice": found.n_twice,
                "record_bytes": found.n_bytes,
            },
            "core_hours": {
                "used": found.used / 3600,
                "wasted": found.wasted / 3600,
                "missing": self.n_left * mean / 3600,
            },
            "advice": {
                "timelimit_seconds": self.timelimit,
                "memory_mib": self.memory or None,
                "max_jobs": min(self.task.options["max_jobs"], math.ceil(self.n_items / self.size)),
                "min_items": self.min_items,
                "scheduler_args": self.scheduler_args()[0],
            },
        }

    def text(self) -> str:
        """Return it for people."""
        found, mean, name = self.measured, float(self.measured.seconds.mean()), self.task.name
        peak = f"; at most {shown_bytes(found.peak)} of memory each" if found.peak else ""
        each = f"{shown_seconds(mean)} each, the longest {shown_seconds(found.longest)}{peak}"
        lines = [f"{name}: {len(found.seconds)} items measured: {each}"]
        wasted = f", {found.wasted / 3600:.3g} of them for {self._lost()}" if found.wasted else ""
        lines.append(f"  used: {found.used / 3600:.3g} core-hours{wasted}")
        bytes_more = found.n_bytes / max(1, found.n_rows) * self.n_left
        told = f"about {self.n_left * mean / 3600:.3g} core-hours, {shown_bytes(bytes_more)} more on record"
        lines.append(f"  left: {self.n_left} items, {told}" if self.n_left else "  left: nothing")
        lines += self._lines_of_jobs(mean)
        return "\n".join([*lines, *self._lines_of_args()])

    def _lost(self) -> str:
        found = self.measured
        n_failed, n_twice = len(found.failed), found.n_twice
        failed = [f"{n_failed} failed attempt{'s' if n_failed > 1 else ''}"] if n_failed else []
        twice = [f"{n_twice} row{'s' if n_twice > 1 else ''} computed twice"] if n_twice else []
        return " and ".join([*failed, *twice])

    def _lines_of_jobs(self, mean: float) -> list[str]:
        if not self.short:
            return []
        n = math.ceil(self.n_items / self.size)
        after = self.size * mean / self.task.options["pool_size"]
        jobs = f"{n} jobs of about {shown_seconds(after)} each" if n > 1 else f"1 job of about {shown_seconds(after)}"
        now = f"{self.n_jobs} jobs of {shown_seconds(self.job_seconds)}"
        return [f"  {now} wait longer in a queue than they compute. For {jobs}:", f"    min_items = {self.min_items}"]

    def _lines_of_args(self) -> list[str]:
        args, functions = self.scheduler_args()
        items = f"{self.size} items" if self.size > 1 else "1 item"
        lines = [f"  for jobs of {items}, in {self.task.path.name}:", f"    scheduler_args = {args!r}"]
        for queue in queues_of(self.task.scheduler):
            if kept := [name for name in (*args, *functions) if name in queue.own]:
                lines.append(f"  {queue!r} asks for its own {' and '.join(kept)}, whatever stands there")
        if functions:
            lines.append(f"  and beside, as they are now, the functions: {', '.join(functions)}")
        if len(self.memory) > 1:
            lines.append("  items that ran out of memory get more, one step at each attempt")
        if not self.measured.peak:
            lines.append("  how much memory items take was not noted yet")
        return lines


def nothing(task: Task, n_left: int) -> dict[str, Any]:
    """Return what JSON has of a task of which nothing was measured."""
    return {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "n_items": len(task.pspace),
        "n_left": n_left,
        "measured": None,
        "core_hours": None,
        "advice": None,
    }


def nothing_measured(task: Task) -> str:
    """Return what to do where nothing was measured."""
    test = task.command("test", task.name)
    some = task.command(task.name, "--items", f"0-{min(9, len(task.pspace) - 1)}")
    return f"{task.name}: nothing was measured yet. One item, here and now: {test}; to have some measured: {some}"


def advised(state: State) -> Advice | None:
    """Return what to ask for; None if nothing was measured.

    Parameters
    ----------
    state : State
        With the rows of the record.
    """
    task, found = state.task, measured(state.parts, state.accepts)
    if not len(found.seconds):
        return None
    options, mean = task.options, float(found.seconds.mean())
    pool, jobs, least = options["pool_size"], options["max_jobs"], options["min_items"]
    n_left = int(np.count_nonzero(~state.done))
    n = max(1, n_left or len(task.pspace))
    n_jobs = min(jobs, len(task.backend.sizes(n, jobs, least)))
    job_seconds = n / n_jobs * mean / pool
    if n_jobs > 1 and job_seconds < _FAR_TOO_SHORT * _LEAST:
        least = min(n, fewest_items(mean, pool))
    size = math.ceil(n / min(jobs, len(task.backend.sizes(n, jobs, least))))
    limit = time_limit(found.longest, size, pool)
    return Advice(task, found, n_left, n, size, n_jobs, job_seconds, least, limit, _amounts(state, found))


def _amounts(state: State, found: Measured) -> list[int]:
    """Return the memory to ask for, for each attempt: more than one where items still lack some."""
    if not found.peak:
        return []
    least = memory(found.peak, state.task.options["pool_size"])
    return ladder(least, _had(state.task)) if _any_short(state) else [least]


def _any_short(state: State) -> bool:
    """Whether items have no row because there was too little memory."""
    failures = state.placement.failures.values() if state.placement is not None else ()
    return any(class_of(failure.type) == "memory" for failure in failures)


def _had(task: Task) -> int:
    """Return the most MiB that the task's jobs ask for; 0 if that cannot be told."""
    given, most = task.options["scheduler_args"], 0
    for whole in [queue.asks(given) for queue in queues_of(task.scheduler)] or [given]:
        args = {name: value for name, value in whole.items() if name in _OF_MEMORY}
        with suppress(TaskError):  # where nothing is submitted, nobody looked at them
            asked = resolved(args, task.name, n_rungs(args) - 1)
            most = max(most, int(asked.get("memory") or asked.get("memory_per_cpu", 0) * asked.get("n_cpus", 1)))
    return most


def _has_function(value: Any) -> bool:
    return any(map(callable, value)) if isinstance(value, (list, tuple)) else callable(value)


def shown_limit(seconds: int) -> str:
    """Return a time limit as people write it.

    >>> shown_limit(1200), shown_limit(5400), shown_limit(7200)
    ('20m', '1h30m', '2h')
    """
    hours, minutes = divmod(seconds // 60, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")


def shown_memory(mebibytes: int) -> str:
    """Return an amount of memory as people write it.

    >>> shown_memory(640), shown_memory(2048)
    ('640M', '2G')
    """
    return f"{mebibytes // 1024}G" if mebibytes % 1024 == 0 else f"{mebibytes}M"
