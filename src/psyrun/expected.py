"""How long items are expected to take: what the task says, or what the record tells of them or of others like them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array
from psyrun.collect import shown_assignment
from psyrun.errors import TaskError, text_of
from psyrun.plan import Indices, Mask
from psyrun.record import Lookup, read_parts
from psyrun.scan import Part, opened
from psyrun.tasks import Task

Seconds = npt.NDArray[np.float64]

_ENOUGH = 10
_SOME = 1000
_MOST = 10_000
"""Items that it takes at least to tell from them how long others may take; to see what `cost` means; at most."""
_ROUNDS = 3
_LONGEST = 1e100


def expected_seconds(task: Task, lookup: Lookup, todo: Mask) -> tuple[Seconds | None, bool]:
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
    seconds : array or None
        None if nothing is known.
    measured : bool
        Whether that is by the measure of what was measured; else `cost` alone says so, perhaps in another one.

    Raises
    ------
    TaskError
        `cost` raises, or returns something that is no time.
    """
    parts = [part for part in read_parts(task.workdir) if part.batches or part.failures]
    seconds = _recorded(parts, task.pspace.digest, len(task.pspace), lookup)
    known, wanted = np.flatnonzero(seconds > 0), np.flatnonzero(todo & np.isnan(seconds))
    if task.options["cost"] is not None:
        told, some = _told(task, np.flatnonzero(todo)), known[:: -(-len(known) // _SOME) or 1]
        scale = seconds[some].sum() / (_told(task, some)[some].sum() or math.inf) if len(some) >= _ENOUGH else 0.0
        return told * (scale or 1.0), bool(scale)
    if not parts:
        return None, False
    if len(known) >= _ENOUGH and len(wanted):
        some = known[:: -(-len(known) // _MOST)]
        columns = task.pspace.columns_at
        seconds[wanted] = guessed(columns(some), seconds[some], columns(wanted))
    return seconds, True


def _told(task: Task, items: Indices) -> Seconds:
    """Return what `cost` says of some items."""
    seconds = np.full(len(task.pspace), math.nan)
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
    if isinstance(found, str) or not 0 <= seconds <= _LONGEST:
        raise TaskError(
            f"cost({shown_assignment(assignment)}) returned {found!r:.60}; it takes a number of seconds from 0 to "
            f"{_LONGEST:g}"
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


def guessed(known: Mapping[str, Array], seconds: Seconds, wanted: Mapping[str, Array]) -> Seconds:
    """Return how long items may take, told from others.

    The logarithm of a duration is taken for a sum with one term for each parameter, found by backfitting (Friedman and
    Stuetzle 1981); terms of few items are drawn towards 0. Between two numbers a term goes straight, beyond them it
    stays as it is. For the order of items that is enough.

    Parameters
    ----------
    known, wanted : dict of str to array, shape (n,) and (m,)
        Parameters of the items that ran, and of those that did not.
    seconds : array, shape (n,)
        What the former took; above 0.

    Returns
    -------
    array, shape (m,)

    Examples
    --------
    >>> n = np.array([1, 2, 3, 4])
    >>> guessed({"n": np.repeat(n, 9)}, np.repeat([1.0, 10, 100, 1000], 9), {"n": np.array([1, 4, 9])}).round()
    array([  1., 708., 708.])
    """
    logs = np.log(seconds)
    rest = logs - logs.mean()
    usable = [name for name, column in known.items() if _are_alike(column, wanted[name])]
    found = {name: np.unique(known[name], return_inverse=True) for name in usable}
    effects = {name: np.zeros(len(values)) for name, (values, _) in found.items()}
    for _ in range(_ROUNDS):
        for name, (_, which) in found.items():
            rest += effects[name][which]
            effects[name] = np.bincount(which, rest) / (np.bincount(which) + 1)
            rest -= effects[name][which]
    terms = [_at(values, effects[name], wanted[name]) for name, (values, _) in found.items()]
    total: Seconds = np.exp(logs.mean() + sum(terms, np.zeros(len(next(iter(wanted.values()))))))
    return total


def _are_alike(known: Array, wanted: Array) -> bool:
    """Whether both are numbers, or both text, so that one can be compared with the other."""
    kinds = known.dtype.kind, wanted.dtype.kind
    return known.ndim == wanted.ndim == 1 and (all(kind in "biuf" for kind in kinds) or kinds == ("U", "U"))


def _at(values: Array, effect: Array, wanted: Array) -> Seconds:
    """Return a term for values that may be others than those it is known for."""
    if values.dtype.kind != "U":
        between: Seconds = np.interp(wanted.astype(float), values.astype(float), effect)
        return between
    place = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    known: Seconds = np.where(values[place] == wanted, effect[place], 0.0)
    return known
