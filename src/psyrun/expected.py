"""How long items are expected to take: what the task says, or what the record tells."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.collect import shown_assignment
from psyrun.errors import TaskError, text_of
from psyrun.plan import Indices, Mask
from psyrun.record import Lookup, read_parts
from psyrun.scan import Part, opened
from psyrun.tasks import Task

Seconds = npt.NDArray[np.float64]


def expected_seconds(task: Task, lookup: Lookup, todo: Mask) -> Seconds | None:
    """Return how long items of a task's space may take, shape (n_items,), NaN where that is not known.

    Parameters
    ----------
    task : Task
    lookup : callable
        From keys, shape (n, 2), to indices in the space, -1 for none.
    todo : array of bool, shape (n_items,)
        The items that `cost` is asked for.

    Returns
    -------
    array or None
        None if nothing is known.

    Raises
    ------
    TaskError
        `cost` raises, or returns something that is no time.
    """
    if task.options["cost"] is not None:
        return _told(task, todo)
    parts = [part for part in read_parts(task.workdir) if part.batches or part.failures]
    if not parts:
        return None
    return _recorded(parts, task.pspace.digest, len(task.pspace), lookup)


def _told(task: Task, todo: Mask) -> Seconds:
    """Return what `cost` says of items."""
    seconds = np.full(len(todo), math.nan)
    items = np.flatnonzero(todo)
    for item, assignment in zip(items.tolist(), task.pspace.iterate_at(items), strict=True):
        try:
            found = task.options["cost"](**assignment)
        except Exception as error:
            raise TaskError(
                f"cost({shown_assignment(assignment)}) raised {type(error).__name__}: {text_of(error)}"
            ) from error
        seconds[item] = _time(found, assignment)
    return seconds


def _time(found: Any, assignment: dict[str, Any]) -> float:
    try:
        seconds = float(found)
    except (TypeError, ValueError):
        seconds = math.nan
    if isinstance(found, str) or not math.isfinite(seconds) or seconds < 0:
        raise TaskError(
            f"cost({shown_assignment(assignment)}) returned {found!r:.60}; it takes a number of seconds from 0"
        )
    return seconds


def _recorded(parts: list[Part], space: str, n_items: int, lookup: Lookup) -> Seconds:
    """Return how long items took last, with whatever code; of those without a row how long it took them to fail."""
    seconds, began = np.full(n_items, math.nan), np.full(n_items, -math.inf)
    for part in parts:
        here = part.header.get("space") == space
        for batch in part.batches:
            with opened(batch.path) as file:
                rows = batch.read(file, 0, batch.n_rows)
            items = batch.indices if here else lookup(rows["key"].copy())
            _take(seconds, began, items, rows["start"], rows["duration"])
    failed = np.isnan(seconds)
    for part in parts:
        if part.failures:
            keys = np.array([failure.key for failure in part.failures], dtype=np.uint64)
            items = lookup(keys)
            items = np.where((items >= 0) & failed[items], items, -1)
            starts = np.array([failure.start for failure in part.failures])
            _take(seconds, began, items, starts, np.array([failure.duration for failure in part.failures]))
    return seconds


def _take(seconds: Seconds, began: Seconds, items: Indices, starts: npt.NDArray[Any], took: npt.NDArray[Any]) -> None:
    """Note durations of items, unless a later one is there."""
    order = np.argsort(starts, kind="stable")
    items, starts, took = items[order], starts[order], took[order]
    newer = (items >= 0) & (items < len(seconds)) & np.isfinite(took)
    newer[newer] = starts[newer] >= began[items[newer]]
    began[items[newer]] = starts[newer]  # of several of one item the last stays
    seconds[items[newer]] = took[newer]
