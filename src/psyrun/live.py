"""What `psy-doit watch` shows: how tasks go on, at what rate, until when, and who is at work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psyrun.activity import Activity, Lookout
from psyrun.eta import Left
from psyrun.jobs import jobs_of, shown_ids
from psyrun.parts import Failure
from psyrun.state import State, look
from psyrun.tally import Tally
from psyrun.tasks import Task
from psyrun.workers import Crew, shown_rate, shown_straggler, shown_stragglers, shown_workers

_LONGEST_PAUSE = 30.0
_HEAD = ("task", "items", "done", "failed", "running", "missing", "a minute", "left")


@dataclass(frozen=True)
class View:
    """What there is to show of a task.

    Attributes
    ----------
    per_minute : float or None
        Items that are finished in a minute; None if it is not known.
    left : Left or None
        How long the rest will take; None if it is not known.
    workers : list of str
        Who is at work, and on what.
    stragglers : list of dict
        Items that take much longer than the others, as of `Crew.stragglers`.
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
    left: Left | None = None
    workers: list[str] = field(default_factory=list)
    stragglers: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""

    @property
    def counts(self) -> tuple[int, ...]:
        """All items, done, failed, running, missing."""
        return self.n_items, self.n_done, self.n_failed, self.n_running, self.n_missing

    @property
    def straggling(self) -> set[int]:
        """Which items take much longer than the others."""
        return {straggler["item"] for straggler in self.stragglers}

    @property
    def rate(self) -> str:
        """Items a minute, '' if that is not known."""
        return shown_rate(self.per_minute) if self.per_minute is not None else ""

    def report(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        told = {name: value for name, value in vars(self).items() if name != "left"}
        return told | {"seconds_left": vars(self.left) if self.left is not None else None}

    def line(self) -> str:
        """Return it in one line, for a log."""
        parts = [f"{self.n_done} of {self.n_items} items done"]
        counts = (("failed", self.n_failed), ("running", self.n_running), ("missing", self.n_missing))
        parts += [f"{n} {what}" for what, n in counts if n]
        parts += [f"{self.rate} a minute"] if self.rate else []
        parts += [self.left.text()] if self.left is not None else []
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
        below = [f"  {told}" for told in [*view.workers, *shown_stragglers(view.stragglers)]]
        if view.failure:
            below.append(f"  last failure: {view.failure}")
        lines += ["", f"{view.task}:", *below] if below else []
    return "\n".join(lines)


def _cells(view: View) -> tuple[str, ...]:
    return (view.task, *(str(n) for n in view.counts), view.rate, view.left.short() if view.left is not None else "")


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
        self.view = View(task.name, len(task.pspace), 0, 0, 0, len(task.pspace))

    def update(self) -> Activity:
        """Look again; return who is at work."""
        activity = self._lookout.look()
        self._tally.update(activity)
        self.view = view_of(self._tally, activity)
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
        """Return a line for each task that changed, and one for what is new; now is a monotonic time.

        That is a failure, or a straggler.
        """
        told = dict(self._told)
        found = []
        for view in self.views(views, now, at_once):
            before = told.get(view.task)
            found.append(view.line())
            known = before.straggling if before is not None else set()
            new = [shown_straggler(straggler) for straggler in view.stragglers if straggler["item"] not in known]
            if view.failure and (before is None or before.failure != view.failure):
                new.append(f"last failure: {view.failure}")
            found += [f"{view.task}: {line}" for line in new]
        return found

    def views(self, views: Sequence[View], now: float, at_once: bool = False) -> list[View]:
        """Return what there is to show of each task whose counts or stragglers changed."""
        found = []
        for view in views:
            before = self._told.get(view.task)
            due, pause = self._next.get(view.task, (now, 1.0))
            same = before is not None and (before.counts, before.straggling) == (view.counts, view.straggling)
            if same or (now < due and not at_once):
                continue
            self._told[view.task] = view
            self._next[view.task] = now + pause, min(_LONGEST_PAUSE, pause * 1.25)
            found.append(view)
        return found


def view_of(tally: Tally, activity: Activity) -> View:
    """Return what there is to show of a task."""
    n_done, n_failed, n_running, n_missing = tally.counts()
    view = View(tally.task.name, len(tally.done), n_done, n_failed, n_running, n_missing)
    if tally.last is not None and n_failed:
        view = replace(view, failure=_headline(tally.last))
    jobs = [f"jobs {shown_ids(activity.jobs)} in the queue"] if activity.jobs else []
    if not activity.workers:
        starts = f"{activity.who()}: starts workers, or merges"
        return replace(view, workers=jobs or [starts] if activity.at_work else [])
    crew = Crew(tally.task, activity.workers, tally.state.plan, tally.over, tally.left, tally.durations)
    return replace(
        view,
        per_minute=crew.per_minute,
        left=crew.left,
        workers=[*shown_workers(crew.report()), *jobs],
        stragglers=crew.stragglers(),
    )


def _headline(failure: Failure) -> str:
    at = f" at {failure.where.rpartition('/')[2]}" if failure.where else ""
    first = failure.message.partition("\n")[0]
    return f"{failure.type}{at}: {first:.200}".rstrip(": ") + f", item {failure.index}"
