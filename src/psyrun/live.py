"""What `psy-doit watch` shows: how tasks go on, at what rate, until when, and who is at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from psyrun.activity import Activity, Lookout, Worker
from psyrun.jobs import jobs_of, shown_ids
from psyrun.parts import Failure
from psyrun.state import Held, State, look
from psyrun.status import shown_ranges
from psyrun.tally import Tally
from psyrun.tasks import Task
from psyrun.units import shown_seconds

_WINDOW = 300.0
_LEAST_SEEN = 5.0
_LONGEST_PAUSE = 30.0
_SHOWN_WORKERS = 20
_SHOWN_RANGES = 3
_HEAD = ("task", "items", "done", "failed", "running", "missing", "a minute", "left")


@dataclass(frozen=True)
class View:
    """What there is to show of a task.

    Attributes
    ----------
    per_minute : float or None
        Items that are finished in a minute; None if it is not known.
    workers : list of str
        Who is at work, and on what.
    failure : str
        The last one; '' if there is none.
    """

    task: str
    n_items: int
    n_done: int
    n_failed: int
    n_running: int
    n_missing: int
    per_minute: float | None = None
    workers: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def counts(self) -> tuple[int, ...]:
        """All items, done, failed, running, missing."""
        return self.n_items, self.n_done, self.n_failed, self.n_running, self.n_missing

    @property
    def left(self) -> str:
        """How long the rest will take, '' if that is not known."""
        rest = self.n_running + self.n_missing
        if not rest or not self.per_minute:
            return ""
        minutes = rest / self.per_minute
        return shown_seconds(float(f"{minutes * 60:.2g}")) if minutes * 60 >= 1 else "1 s"

    @property
    def rate(self) -> str:
        """Items a minute, '' if that is not known."""
        if self.per_minute is None:
            return ""
        return f"{self.per_minute:.3g}" if self.per_minute < 1000 else f"{self.per_minute:,.0f}"

    def line(self) -> str:
        """Return it in one line, for a log."""
        parts = [f"{self.n_done} of {self.n_items} items done"]
        counts = (("failed", self.n_failed), ("running", self.n_running), ("missing", self.n_missing))
        parts += [f"{n} {what}" for what, n in counts if n]
        parts += [f"{self.rate} a minute"] if self.rate and self.workers else []
        parts += [f"{self.left} left"] if self.left and self.workers else []
        return f"{self.task}: {', '.join(parts)}"


def page(views: Sequence[View]) -> str:
    """Return a table of tasks, and below it who is at work on each, and what failed last."""
    rows = [_HEAD, *(_cells(view) for view in views)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    for view in views:
        below = [f"  {told}" for told in view.workers[:_SHOWN_WORKERS]]
        if len(view.workers) > _SHOWN_WORKERS:
            below.append(f"  and {len(view.workers) - _SHOWN_WORKERS} more workers")
        if view.failure:
            below.append(f"  last failure: {view.failure}")
        lines += ["", f"{view.task}:", *below] if below else []
    return "\n".join(lines)


def _cells(view: View) -> tuple[str, ...]:
    known = (view.rate, view.left) if view.workers else ("", "")
    return (view.task, *(str(n) for n in view.counts), *known)


class Rate:
    """Items finished in a minute: as seen in the last five, or else as their durations make likely.

    Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, now: float, n_finished: int) -> None:
        """Note how many items were finished at a time."""
        if self._seen and n_finished < self._seen[-1][1]:  # the space changed
            self._seen.clear()
        if len(self._seen) > 1 and self._seen[-1][1] == self._seen[-2][1] == n_finished:
            self._seen.pop()
        self._seen.append((now, n_finished))
        while now - self._seen[0][0] > _WINDOW and len(self._seen) > 2:
            self._seen.popleft()

    def per_minute(self, seconds: float | None = None, n_at_a_time: int = 0) -> float | None:
        """Return the rate, None if it is not known.

        Parameters
        ----------
        seconds : float, optional
            How long an item takes.
        n_at_a_time : int
            How many items are worked on at a time.
        """
        if self._seen:
            (first, before), (last, after) = self._seen[0], self._seen[-1]
            if last - first >= _LEAST_SEEN and after > before:
                return (after - before) / (last - first) * 60
        if seconds and n_at_a_time:
            return n_at_a_time / seconds * 60
        return None


class Scene:
    """One task that is watched.

    Parameters
    ----------
    task : Task
    """

    def __init__(self, task: Task):
        self.task = task
        self._lookout = Lookout(task.workdir, jobs_of(task.scheduler, task.workdir))
        self._tally = Tally(task, self._lookout.observer)
        self._rate = Rate()
        self.view = View(task.name, len(task.pspace), 0, 0, 0, len(task.pspace))

    def update(self, now: float) -> Activity:
        """Look again; now is a monotonic time in seconds. Returns who is at work."""
        activity = self._lookout.look()
        self._tally.update(activity)
        self.view = view_of(self._tally, activity, self._rate, now)
        return activity

    def ended(self) -> State:
        """Return where the task stands, from all that is on record."""
        return look(self.task, self._lookout.observer)


class Changes:
    """What there is to say of tasks in a log: nothing while nothing changes, and less often the longer it goes on."""

    def __init__(self) -> None:
        self._told: dict[str, View] = {}
        self._next: dict[str, tuple[float, float]] = {}

    def lines(self, views: Sequence[View], now: float, at_once: bool = False) -> list[str]:
        """Return a line for each task whose counts changed, and one for a new failure; now is a monotonic time."""
        failures = {task: view.failure for task, view in self._told.items()}
        found = []
        for view in self.views(views, now, at_once):
            found.append(view.line())
            if view.failure and failures.get(view.task) != view.failure:
                found.append(f"{view.task}: last failure: {view.failure}")
        return found

    def views(self, views: Sequence[View], now: float, at_once: bool = False) -> list[View]:
        """Return what there is to show of each task whose counts changed."""
        found = []
        for view in views:
            before = self._told.get(view.task)
            due, pause = self._next.get(view.task, (now, 1.0))
            if (before is not None and before.counts == view.counts) or (now < due and not at_once):
                continue
            self._told[view.task] = view
            self._next[view.task] = now + pause, min(_LONGEST_PAUSE, pause * 1.25)
            found.append(view)
        return found


def view_of(tally: Tally, activity: Activity, rate: Rate, now: float) -> View:
    """Return what there is to show of a task; now is a monotonic time in seconds."""
    n_done, n_failed, n_running, n_missing = tally.counts()
    rate.take(now, n_done + n_failed)
    per_minute = rate.per_minute(tally.seconds, n_at_a_time(activity))
    workers = [_told(worker, tally) for worker in activity.workers]
    if activity.jobs:
        workers.append(f"jobs {shown_ids(activity.jobs)} in the queue")
    if not workers and activity.planner is not None:
        workers = [f"{activity.who()}: starts workers, or merges"]
    return View(
        tally.task.name,
        len(tally.done),
        n_done,
        n_failed,
        n_running,
        n_missing,
        per_minute,
        workers,
        _headline(tally.last) if tally.last is not None and n_failed else "",
    )


def n_at_a_time(activity: Activity) -> int:
    """Return how many children of workers at work have written to the record: each has parts of its own.

    >>> n_at_a_time(Activity(workers=[Worker("a")], sizes={"a-0-0": 1, "a-0-1": 1, "a-1-0": 1, "a-s-0": 1, "b-0-0": 1}))
    2
    """
    alive = {worker.id for worker in activity.workers}
    names = {tuple(name.split("-")[:2]) for name in activity.sizes}
    return sum(name[0] in alive and name[-1].isdecimal() for name in names)


def _told(worker: Worker, tally: Tally) -> str:
    """Return one line of a worker: where it is and what it holds."""
    return f"worker {worker.id[:8]} {worker.where}: {_items(worker.held, tally)}"


def _items(held: Sequence[Held], tally: Tally) -> str:
    state = tally.state
    plan = state.plan
    if not held:
        return "between two chunks"
    if plan is None or plan.space != tally.task.pspace.digest or any(name != plan.id for name, _ in held):
        return f"{sum(len(token) for _, token in held)} items of an earlier plan"
    work = plan.work()
    ranges = [[a, b - 1] for _, token in sorted(held) for a, b in work.indices(token.first, token.last)]
    return f"items {shown_ranges(ranges, _SHOWN_RANGES)}"


def _headline(failure: Failure) -> str:
    at = f" at {failure.where.rpartition('/')[2]}" if failure.where else ""
    first = failure.message.partition("\n")[0]
    return f"{failure.type}{at}: {first:.200}".rstrip(": ") + f", item {failure.index}"
