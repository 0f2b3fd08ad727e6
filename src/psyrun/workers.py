"""What is told of the workers of a task: where they are, what they have in hand, how fast they are, until when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from psyrun.claims import Observer
from psyrun.eta import Durations, Left, estimate, too_long, usual
from psyrun.plan import Mask, Plan, WorkList
from psyrun.state import Held
from psyrun.tasks import Task
from psyrun.units import as_option, shown_ranges, shown_seconds

MOST_SHOWN = 20
"""Workers that are told of in a line each."""

_SHOWN_ITEMS = 3
_SHOWN_STRAGGLERS = 5
_ENOUGH = 10
"""Items a child."""

_LARGEST = 1e12


@dataclass(frozen=True)
class Worker:
    """A worker that may be alive, by its heartbeat; what this does not tell is None, 0 or empty.

    Attributes
    ----------
    id : str
    host : str or None
    pid : int or None
    held : tuple of (plan id, token)
        What it has claimed.
    plan : str
        The id of the plan that it works on.
    job : str
        Its id in the queue.
    children : int
        How many items it works on at a time.
    n_finished : int
        Items that it was done with at the last beat, failed ones too.
    seconds : float
        For how long it had worked then, by its own clock.
    hand : tuple of (int, float)
        Positions in hand at the last beat, and for how many seconds then.
    age : float
        Seconds since the last beat.
    """

    id: str
    host: str | None = None
    pid: int | None = None
    held: tuple[Held, ...] = ()
    plan: str = ""
    job: str = ""
    children: int = 0
    n_finished: int = 0
    seconds: float = 0.0
    hand: tuple[tuple[int, float], ...] = ()
    age: float = 0.0

    @classmethod
    def read(cls, observer: Observer, worker: str, held: Iterable[Held] = ()) -> Worker:
        """Return a worker with what its heartbeat tells that can be understood."""
        beat = observer.read(worker)
        return cls(
            worker,
            beat.get("host"),
            beat.get("pid"),
            tuple(held),
            _text(beat.get("plan")),
            _text(beat.get("job")),
            int(_number(beat.get("children"))),
            int(_number(beat.get("n_finished"))),
            _number(beat.get("seconds")),
            tuple(_pairs(beat.get("hand"))),
            observer.age(worker),
        )

    @property
    def where(self) -> str:
        """Where it runs."""
        return where(self.host, self.pid)

    @property
    def per_minute(self) -> float | None:
        """Items that it finished in a minute, by its own clock; None if it finished none yet."""
        return 60 * self.n_finished / self.seconds if self.n_finished and self.seconds >= 0.1 else None

    @property
    def n_at_a_time(self) -> int:
        """How many items it works on at a time; 1 if it does not tell."""
        return max(1, self.children, len(self.hand))

    @property
    def is_measured(self) -> bool:
        """Whether it finished enough items for its rate to tell more than their durations."""
        return self.per_minute is not None and self.n_finished >= _ENOUGH * self.n_at_a_time

    def rate(self, seconds: float | None) -> float:
        """Return items a minute: as measured, else as items of so many seconds make it; 0 if neither is known."""
        if seconds and not self.is_measured:
            return 60 * self.n_at_a_time / seconds
        return self.per_minute or 0.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    """Return a number from 0 on; 0 for what is none."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if real and 0 <= value < _LARGEST else 0.0


def _pairs(value: Any) -> Iterable[tuple[int, float]]:
    for pair in value if isinstance(value, list) else ():
        if isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and pair[0] >= 0:
            yield pair[0], _number(pair[1])


def workers_of(held: Iterable[Held], observer: Observer) -> list[Worker]:
    """Return the workers that hold tokens, in the order of their ids."""
    found: dict[str, list[Held]] = {}
    for pair in held:
        found.setdefault(pair[1].worker, []).append(pair)
    return [Worker.read(observer, worker, sorted(pairs)) for worker, pairs in sorted(found.items())]


class Crew:
    """The workers of a task that may be alive, and what follows for the items.

    Parameters
    ----------
    task : Task
    workers : sequence of Worker
    plan : Plan or None
        The newest plan, if it can be read.
    over : array of bool, shape (n,)
        Which items of the task are done, or failed under this plan.
    left : array of bool, shape (n,)
        Which items of this plan are neither.
    durations : array of float
        Seconds that items took.
    """

    def __init__(
        self,
        task: Task,
        workers: Sequence[Worker],
        plan: Plan | None,
        over: Mask,
        left: Mask,
        durations: Durations,
    ):
        self.task = task
        self.workers = workers
        self._plan = plan if plan is not None and plan.space == task.pspace.digest else None
        self._over = over
        self._left = left
        self._durations = durations[np.isfinite(durations)]  # rows that were adopted have none

    @cached_property
    def _work(self) -> WorkList | None:
        return self._plan.work() if self._plan is not None else None

    @cached_property
    def _hands(self) -> list[list[tuple[int, float, float]]]:
        """Of each worker, the items in hand that are not on record, for how long at the last beat, and until now."""
        return [
            [
                (index, seconds, seconds + worker.age)
                for position, seconds in sorted(worker.hand, key=lambda pair: -pair[1])
                if (index := self._index(worker, position)) is not None and not self._over[index]
            ]
            for worker in self.workers
        ]

    def _index(self, worker: Worker, position: int) -> int | None:
        """Return which item stands at a position that a worker tells of; None if it is of an earlier plan."""
        if self._plan is None or self._work is None or worker.plan != self._plan.id or position >= len(self._work):
            return None
        return next(self._work.indices(position, position))[0]

    def _items(self, worker: Worker) -> list[list[int]] | None:
        """Return the ranges first..last of the items that a worker holds; None if some are of an earlier plan."""
        if not worker.held:
            return []
        if self._plan is None or self._work is None or any(name != self._plan.id for name, _ in worker.held):
            return None
        tokens = [token for _, token in worker.held]
        return [[start, stop - 1] for t in tokens for start, stop in self._work.indices(t.first, t.last)]

    @property
    def per_minute(self) -> float | None:
        """Items that all finish in a minute; None if that is not known."""
        mean = float(self._durations.mean()) if len(self._durations) else None
        return sum(worker.rate(mean) for worker in self.workers) or None

    @property
    def left(self) -> Left | None:
        """How long these workers will take for the rest; None if that is not known."""
        n_left = int(np.count_nonzero(self._left))
        if not (self.workers and n_left and len(self._durations)):
            return None
        n_at_a_time = sum(worker.n_at_a_time for worker in self.workers)
        ages = [now for hand in self._hands for _, _, now in hand]
        expected = self._expected_of_the_rest()
        if expected is not None:
            return estimate(n_left, n_at_a_time, expected, ages, len(self._over))
        rate = self.per_minute if any(worker.is_measured for worker in self.workers) else None
        return estimate(n_left, n_at_a_time, self._durations, ages, int(np.count_nonzero(self._over)), rate)

    def _expected_of_the_rest(self) -> Durations | None:
        """Return how long the items that are left were expected to take, in seconds; None if nothing was known."""
        found = self._plan.expected() if self._plan is not None else None
        if found is None or self._plan is None:
            return None
        rest, before = (found[mask & np.isfinite(found)] for mask in (self._left, self._over))
        if self._plan.content.get("measured"):
            return rest if len(rest) else None
        if not len(rest) or not len(before):
            return None
        return rest * (float(self._durations.mean()) / float(before.mean()))

    def report(self) -> list[dict[str, Any]]:
        """Return what is told of each worker, as JSON has it."""
        return [
            {
                "worker": worker.id,
                "host": worker.host,
                "pid": worker.pid,
                "job": worker.job or None,
                "chunk": _ends(worker.held[0]) if worker.held else None,
                "chunks": [_ends(pair) for pair in worker.held],
                "items": self._items(worker),
                "in_hand": [{"item": index, "seconds": round(now, 1)} for index, _, now in hand],
                "n_finished": worker.n_finished,
                "seconds": worker.seconds,
                "per_minute": worker.per_minute,
            }
            for worker, hand in zip(self.workers, self._hands, strict=True)
        ]

    def stragglers(self) -> list[dict[str, Any]]:
        """Return the items in hand that take much longer than others took, the longest first, as JSON has them."""
        most = usual(self._durations)
        if most is None:
            return []
        no_limit = self.task.options["timeout"] is None
        remedy = f"timeout = '{as_option(too_long(most))}' in {self.task.path.name}" if no_limit else None
        found = [
            {
                "item": index,
                "seconds": round(now, 1),
                "usual_seconds": most,
                "host": worker.host,
                "worker": worker.id,
                "job": worker.job or None,
                "remedy": remedy,
            }
            for worker, hand in zip(self.workers, self._hands, strict=True)
            for index, seconds, now in hand
            if seconds > too_long(most)  # so it was at the last beat; since then it may have ended
        ]
        return sorted(found, key=lambda straggler: -straggler["seconds"])


def _ends(pair: Held) -> list[int]:
    return [pair[1].first, pair[1].last]


def where(host: str | None, pid: int | None, job: str | None = None) -> str:
    """Return where a worker runs, in words."""
    return (f"on {host}, process {pid}" if host else "on a host that is not known") + (f", job {job}" if job else "")


def shown_workers(told: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line each for the first workers of a `Crew.report`, and how many more there are."""
    found = [_shown_worker(worker) for worker in told[:MOST_SHOWN]]
    return [*found, *([f"and {len(told) - MOST_SHOWN} more workers"] if len(told) > MOST_SHOWN else [])]


def _shown_worker(told: dict[str, Any]) -> str:
    parts = [_shown_hand(told)]
    parts += [f"{told['n_finished']} finished"] if told["n_finished"] else []
    parts += [f"{shown_rate(told['per_minute'])} a minute"] if told["per_minute"] else []
    return f"worker {told['worker'][:8]} {where(told['host'], told['pid'], told['job'])}: {', '.join(parts)}"


def _shown_hand(told: dict[str, Any]) -> str:
    hand, items = told["in_hand"], told["items"]
    if hand:
        each = [f"{item['item']} for {_shown_short(item['seconds'])}" for item in hand[:_SHOWN_ITEMS]]
        more = f" and {len(hand) - _SHOWN_ITEMS} more" if len(hand) > _SHOWN_ITEMS else ""
        return f"item{'s' if len(hand) > 1 else ''} {', '.join(each)}{more}"
    if items is None:
        return f"{sum(last - first + 1 for first, last in told['chunks'])} items of an earlier plan"
    return f"holds items {shown_ranges(items, _SHOWN_ITEMS)}" if items else "between two chunks"


def shown_stragglers(told: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line each for the first of `Crew.stragglers`, how many more there are, and what to type."""
    found = [shown_straggler(straggler) for straggler in told[:_SHOWN_STRAGGLERS]]
    found += [f"and {len(told) - _SHOWN_STRAGGLERS} more such items"] if len(told) > _SHOWN_STRAGGLERS else []
    return [*found, *([f"to end such items: {told[0]['remedy']}"] if told and told[0]["remedy"] else [])]


def shown_straggler(told: dict[str, Any]) -> str:
    """Return one of `Crew.stragglers` as people read it."""
    job = f" (job {told['job']})" if told["job"] else ""
    usual = f"19 of 20 others took at most {_shown_short(told['usual_seconds'])}"
    return f"straggler: item {told['item']} for {_shown_short(told['seconds'])} on {told['host']}{job}: {usual}"


def shown_rate(per_minute: float) -> str:
    """Return items a minute as people read them.

    >>> shown_rate(2.345), shown_rate(12345)
    ('2.35', '12,345')
    """
    return f"{per_minute:.3g}" if per_minute < 1000 else f"{per_minute:,.0f}"


def _shown_short(seconds: float) -> str:
    return shown_seconds(float(f"{seconds:.2g}"))
