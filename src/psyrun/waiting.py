"""Waiting for the work of others: until nobody is at it any more, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psyrun.activity import Activity, Lookout
from psyrun.errors import RefusedError, TemporaryError
from psyrun.jobs import jobs_of, shown_ids
from psyrun.nodes import what_ails
from psyrun.orders import is_paused
from psyrun.state import State, look
from psyrun.tasks import Task

SOME_FAILED = 1
TIME_OVER = 124
"""As of timeout(1)."""

_SHORTEST, _LONGEST, _GROWTH = 0.5, 3.0, 1.25


@dataclass(frozen=True)
class Verdict:
    """How a task ended: an exit status, a word for it, and what to tell who waited."""

    status: int
    outcome: str
    message: str = ""


def verdict(state: State, stuck: Sequence[str] = ()) -> Verdict:
    """Return how a task ended on which nobody is at work any more; exit statuses are those of a run.

    Parameters
    ----------
    state : State
    stuck : sequence of str
        Ids of its jobs that the queue will never start.
    """
    task = state.task
    again = task.command(task.name)
    if state.conflict:
        told = (
            f"computed with other code than {task.path.name} has now: {task.command(task.name, '--keep')}, or --fresh"
        )
        return Verdict(RefusedError.exit_code, "other code", f"{task.name}: {told}")
    if state.n_failed:
        told = f"{state.n_failed} failed; {again} tries them again. Why: {task.command('status', '-v', task.name)}"
        return Verdict(SOME_FAILED, "failed", f"{task.name}: {told}")
    if not state.complete:
        n = int(state.missing.sum() + state.running.sum())
        told = f"{n} items are missing, and nobody is at work on them. {_what_to_do(task, again, stuck)}"
        return Verdict(TemporaryError.exit_code, "missing", f"{task.name}: {told}")
    if state.left_out:
        told = f"{len(state.left_out)} items are done, but not in the file"
        return Verdict(SOME_FAILED, "left out", f"{task.name}: {told}")
    return Verdict(0, "complete")


def _what_to_do(task: Task, again: str, stuck: Sequence[str]) -> str:
    if stuck:
        what = f"Jobs {shown_ids(stuck)} will never start: {task.command('status', task.name)} tells why"
        return f"{what}. Mend what they ask for, then: {task.command('kill', task.name)}; {again}"
    if is_paused(task.workdir):
        return f"It is paused. To go on: {task.command('resume', task.name)}; {again}"
    why = what_ails(task.workdir)
    return f"{why[0].upper()}{why[1:]}. When that is mended: {again}" if why else f"To compute them: {again}"


def time_over(task: Task) -> Verdict:
    """Return what to say of a task on which somebody is still at work."""
    return Verdict(TIME_OVER, "time over", f"{task.name}: the time is over; it is still being worked on")


class Quiet:
    """Tells when nobody is at work any more.

    It takes two looks: a worker elsewhere may be between two chunks, and listings of network file systems lag.
    """

    def __init__(self) -> None:
        self._before = False

    def sure(self, activities: Sequence[Activity]) -> bool:
        """Take in a look at all tasks; return whether nobody was at work in this one and the one before."""
        now = not any(activity.at_work for activity in activities)
        before, self._before = self._before, now
        return now and before

    @property
    def likely(self) -> bool:
        """Whether nobody was at work in the last look."""
        return self._before


def wait_for(
    tasks: Sequence[Task], timeout: float | None, say: Callable[[str], None]
) -> list[tuple[State, Verdict, Activity]]:
    """Return when nobody is at work on any of the tasks, whoever it was.

    Parameters
    ----------
    tasks : sequence of Task
    timeout : float, optional
        The most seconds to wait.
    say : callable
        Called with a line for each task that is being worked on.

    Returns
    -------
    list of (State, Verdict, Activity)
        Where each task stands then, and how it ended.
    """
    end = None if timeout is None else time.monotonic() + timeout
    lookouts = [Lookout(task.workdir, jobs_of(task.scheduler, task.workdir)) for task in tasks]
    quiet = Quiet()
    pause = _SHORTEST
    told: set[str] = set()
    while True:
        activities = [lookout.look() for lookout in lookouts]
        for task, activity in zip(tasks, activities, strict=True):
            if activity.at_work and task.name not in told:
                told.add(task.name)
                say(f"{task.name}: waiting for {activity.who()}")
        over = quiet.sure(activities)
        left = None if end is None else end - time.monotonic()
        if over or (left is not None and left <= 0):
            states = [look(task, lookout.observer) for task, lookout in zip(tasks, lookouts, strict=True)]
            if not over or not any(state.held or state.unknown for state in states):
                break
        pause = _SHORTEST if quiet.likely else min(_LONGEST, pause * _GROWTH)
        time.sleep(pause if left is None else max(0.0, min(pause, left)))
    return [
        (state, time_over(task) if activity.at_work else verdict(state, activity.stuck), activity)
        for task, state, activity in zip(tasks, states, activities, strict=True)
    ]
