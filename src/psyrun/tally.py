"""A running count of what is done and failed. Each byte of the record is read once, however often it is looked at."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from psyrun.activity import Activity
from psyrun.claims import OPEN, Observer
from psyrun.parts import Failure
from psyrun.plan import Mask
from psyrun.scan import Part, opened, read
from psyrun.state import Held, State, add_running, look, lookup_of
from psyrun.tasks import Task

_MOST_DURATIONS = 1000
_LEAST_PAUSE = 2.0
_TIMES_THE_COST = 20.0


class Tally:
    """What is done and failed of a task, kept up to date at little cost.

    The first look reads the whole record, or only the manifest where that tells all. After that only what was
    appended to parts is read, and never for more than about a twentieth of the time.

    Parameters
    ----------
    task : Task
    observer : Observer

    Attributes
    ----------
    state : State
        As of the last look at the whole.
    done : array of bool, shape (n,)
    running : array of bool, shape (n,)
        What workers hold that may be alive.
    held : list of (plan id, token)
        What makes them running, and what cannot be told.
    last : Failure or None
        The one that began last.
    """

    def __init__(self, task: Task, observer: Observer):
        self.task = task
        self._observer = observer
        self._lookup = lookup_of(task)
        self._known: dict[str, Part] = {}
        self._sizes: dict[str, int] = {}
        self._plan: str | None = ""
        self._in_hands: list[Held] | None = None
        self._next = 0.0
        self._durations: deque[float] = deque(maxlen=_MOST_DURATIONS)

    def update(self, activity: Activity) -> None:
        """Take in what goes on now; the record, if anything was written and it is time."""
        if self._plan != activity.plan or self._shrank(activity):
            self._begin(activity)
        elif activity.sizes != self._sizes and (time.monotonic() >= self._next or not activity.at_work):
            begin = time.monotonic()
            self._read_on(activity)
            now = time.monotonic()
            self._next = now + max(_LEAST_PAUSE, _TIMES_THE_COST * (now - begin))
        if activity.held != self._in_hands:
            self._in_hands = activity.held
            scratch = replace(self.state, running=np.zeros_like(self.done), held=[], unknown=[])
            add_running(scratch, activity.held, self._lookup)
            self.running = scratch.running
            self.held = [*scratch.held, *scratch.unknown]

    def _shrank(self, activity: Activity) -> bool:
        """Whether parts went away, as into the archive."""
        return any(activity.sizes.get(name, -1) < size for name, size in self._sizes.items())

    def _begin(self, activity: Activity) -> None:
        """Look at the whole."""
        state = look(self.task, self._observer)
        self.state: State = state
        self.done = state.done.copy()
        self._before: Mask = state.failed
        self._now = np.zeros_like(self.done)
        self.last: Failure | None = state.causes[0].failure if state.causes else None
        self._known = {part.name: part for part in state.parts}
        for part in state.parts:
            self._take_failures(part)
        self._durations.extend(state.durations[:: len(state.durations) // _MOST_DURATIONS + 1].tolist())
        self._known = {part.name: _end_of(part) for part in state.parts}
        self._sizes = {**activity.sizes, **{part.name: part.size for part in state.parts}}
        self._in_hands = None
        self._plan = activity.plan

    def _read_on(self, activity: Activity) -> None:
        for name, size in activity.sizes.items():
            if self._sizes.get(name) == size:
                continue
            with suppress(FileNotFoundError):
                part = read(self.task.workdir.parts / name, self._known.get(name))
                self._known[name] = _end_of(part)
                self._take(part)
            self._sizes[name] = size

    def _take(self, part: Part) -> None:
        if part.header.get("code") not in self.state.accepts:
            return
        here = part.header.get("space") == self.task.pspace.digest
        indices = part.indices if here else self._lookup(part.keys)
        self.done[indices[(indices >= 0) & (indices < len(self.done))]] = True
        self._take_failures(part)
        self._take_durations(part)

    def _take_failures(self, part: Part) -> None:
        if not part.failures or part.header.get("code") not in self.state.accepts:
            return
        here = part.header.get("space") == self.task.pspace.digest
        keys = np.array([failure.key for failure in part.failures], dtype=np.uint64)
        indices = [f.index for f in part.failures] if here else self._lookup(keys).tolist()
        plan = self.state.plan
        anew = plan is not None and part.header.get("plan") == plan.uid
        for failure, index in zip(part.failures, indices, strict=True):
            if 0 <= index < len(self.done):
                (self._now if anew else self._before)[index] = True
                if not self.done[index] and (self.last is None or failure.start >= self.last.start):
                    self.last = replace(failure, index=index)

    def _take_durations(self, part: Part) -> None:
        """Note how long the newest items took."""
        if part.batches:
            batch = part.batches[-1]
            first = max(0, batch.n_rows - _MOST_DURATIONS)
            with suppress(FileNotFoundError), opened(batch.path) as file:
                self._durations.extend(batch.read(file, first, batch.n_rows)["duration"].tolist())

    @property
    def durations(self) -> npt.NDArray[np.float64]:
        """How long some items took, in seconds; those that ended while this was looking push out the others."""
        return np.array(self._durations, dtype=np.float64)

    @property
    def over(self) -> Mask:
        """Which items are done, or failed under the newest plan."""
        return self.done | self._now

    @property
    def left(self) -> Mask:
        """Which items are in the hands of workers or stand in the newest plan, and are neither done nor failed."""
        return (self.running | self._open()) & ~self.over

    def counts(self) -> tuple[int, int, int, int]:
        """Return how many items are done, failed, running and missing.

        An item of a chunk in hand is running until it is done or failed anew.
        """
        again = self.running | self._open() if self._before.any() else self.running
        failed = ~self.done & (self._now | (self._before & ~again))
        running = self.running & ~self.done & ~failed
        n_done, n_failed, n_running = (int(np.count_nonzero(mask)) for mask in (self.done, failed, running))
        return n_done, n_failed, n_running, len(self.done) - n_done - n_failed - n_running

    def _open(self) -> Mask:
        """Return which items the newest plan still has to try."""
        plan = self.state.plan
        if plan is None or plan.space != self.task.pspace.digest:
            return np.zeros_like(self.done)
        return plan.work().mask(plan.claims().tokens(OPEN), plan.n_items)


def _end_of(part: Part) -> Part:
    """Return what is needed to read on."""
    return Part(part.name, part.header, size=part.size, file_size=part.file_size, schemas=part.schemas)
