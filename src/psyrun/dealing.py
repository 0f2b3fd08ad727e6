"""In which order items run, and in which chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.backend import Backend
from psyrun.expected import expected_seconds
from psyrun.plan import Indices, Mask
from psyrun.record import Lookup
from psyrun.tasks import Task

_SHORT = 0.01
"""Seconds: items that take less stay in the order of the space, which is quicker to go through."""
_ALIKE = 0.1
"""Items that take about so much more or less, as a fraction, stay in the order of the space, too."""


class Dealing:
    """How items are dealt.

    Parameters
    ----------
    backend : Backend
    max_jobs, min_items : int
        The most workers to deal for, and the fewest items of a chunk.
    seconds : array of float64, shape (n_items,), optional
        How long each item of the space may take; NaN where that is not known. None: nothing is known.
    measured : bool
        Whether these are seconds, and not just greater for items that take longer.

    """

    def __init__(
        self,
        backend: Backend,
        max_jobs: int,
        min_items: int,
        seconds: npt.NDArray[Any] | None = None,
        measured: bool = False,
    ):
        self._backend = backend
        self._measured = measured
        self._max_jobs = max_jobs
        self._min_items = min_items
        known = backend.balances and seconds is not None and bool(np.isfinite(seconds).any())
        self._seconds = _filled(seconds) if known and seconds is not None else None

    def deal(self, *masks: Mask) -> tuple[Indices, list[int]]:
        """Return the work list of items, as ranges, and the sizes of its chunks.

        Parameters
        ----------
        masks : arrays of bool, shape (n_items,)
            Which items; all of the first come before those of the second.
        """
        items = np.concatenate([np.empty(0, np.int64), *(self._in_order(np.flatnonzero(mask)) for mask in masks)])
        if self._seconds is None:
            sizes = self._backend.sizes(len(items), self._max_jobs, self._min_items)
        else:
            sizes = self._backend.sizes_by_seconds(self._seconds[items], self._max_jobs, self._min_items)
        return runs(items), sizes

    @property
    def expected(self) -> tuple[npt.NDArray[np.float64] | None, bool]:
        """How long each item may take, where the backend goes by it, and whether that is in seconds."""
        return self._seconds, self._measured

    def total(self, todo: Mask) -> float | None:
        """Return how many seconds items take together; None if that is not known."""
        return float(self._seconds[todo].sum()) if self._measured and self._seconds is not None else None

    def _in_order(self, items: Indices) -> Indices:
        """Return items with the longest first."""
        if self._seconds is None:
            return items
        steps = np.round(np.log(np.maximum(self._seconds[items], _SHORT)) / _ALIKE)
        ordered: Indices = items[np.argsort(-steps, kind="stable")]
        return ordered


def dealing_of(task: Task, max_jobs: int, n_workers: int, todo: Mask, lookup: Lookup) -> Dealing:
    """Return how items of a task are dealt, from what is known of them now: before rows are put into the archive.

    Parameters
    ----------
    task : Task
    max_jobs, n_workers : int
        How many workers there may be, and how many items run at a time.
    todo : array of bool, shape (n_items,)
        Which items run.
    lookup : callable
        From keys, shape (n, 2), to indices in the space, -1 for none.
    """
    backend, least = task.backend, task.options["min_items"]
    if not backend.balances or not todo.any():
        return Dealing(backend, max_jobs, least)
    return Dealing(backend, min(max_jobs, n_workers), least, *expected_seconds(task, lookup, todo))


def _filled(seconds: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return times with the mean of those that are known in place of the others, and none of them 0."""
    mean = float(np.nanmean(seconds)) or 1.0
    filled: npt.NDArray[np.float64] = np.where(np.isfinite(seconds), np.maximum(seconds, mean / 1e6), mean)
    return filled


def runs(items: Indices) -> Indices:
    """Return numbers as rows (start, stop) of consecutive ones, shape (n, 2), in their order.

    >>> runs(np.array([4, 5, 6, 1, 2, 0]))
    array([[4, 7],
           [1, 3],
           [0, 1]])
    """
    if not len(items):
        return np.empty((0, 2), dtype=np.int64)
    breaks = np.flatnonzero(np.diff(items) != 1)
    firsts, lasts = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(items) - 1]])
    return np.stack([items[firsts], items[lasts] + 1], axis=1)
