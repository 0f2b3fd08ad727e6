"""``psyrun.load``: the finished rows of a task, whether it is complete, half done, or being worked on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from psyrun.arrays import Array
from psyrun.collect import Filler, fillers, planned_fillers, planned_lookup, result_columns
from psyrun.columns import chosen
from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.plan import Plan
from psyrun.record import Placement, place, read_parts
from psyrun.state import look
from psyrun.store.auto import readable
from psyrun.streams import whole
from psyrun.taskfiles import TASKDIR, task_path
from psyrun.tasks import Task, load_task
from psyrun.workdir import Workdir

_PERMISSION = "load(..., allow_pickle=True) does"


def load(
    what: str | os.PathLike[str],
    row: int | slice | None = None,
    columns: Sequence[str] | None = None,
    keys: bool = False,
    *,
    taskdir: str | os.PathLike[str] = TASKDIR,
    allow_pickle: bool = False,
) -> dict[str, Array]:
    """Return the finished rows of a task, at any time: during a run too. Nothing is written.

    Parameters
    ----------
    what : str or path
        The name of a task, whose task file is loaded to learn its parameter space and where its rows are; or the path
        of a work directory such as ``psy-work/cc1``, or of a result file. A path runs no code.
    row : int or slice, optional
        Which rows; default all.
    columns : sequence of str, optional
        Which columns; default all.
    keys : bool
        Whether to return the hidden columns (names begin with ``__psyrun_``) too.
    taskdir : path
        Where the task files are.
    allow_pickle : bool
        Whether a path may hold pickled values, as a `PickleStore` task has them. Reading these can run any code that
        their writer put there. A name allows it if its task has a `PickleStore`.

    Returns
    -------
    dict of arrays
        Each of shape (n, ...), or the shape of one row where ``row`` is an int, in the order of the parameter space.
        Where items are not finished a warning counts them. Columns with values of different kinds are arrays of
        objects, and so is what a `PickleStore` holds.

    Raises
    ------
    NoSuchTaskError
        There is no such task, nor a file or directory of that name.
    StoreError
        Nothing was run yet, there is no such column, or what is there cannot be read.

    Examples
    --------
    >>> import pathlib, psyrun, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'result.npz'
    >>> psyrun.NpzStore().save(path, {'D': [2, 3], 'rmse': [.5, .25]})
    >>> psyrun.load(path, columns=['rmse'])
    {'rmse': array([0.5 , 0.25])}
    """
    task = _task(what, Path(taskdir))
    if task is None and Path(what).is_file():
        data, warning = readable(Path(what), allow_pickle, _PERMISSION)._loaded(Path(what), row, columns, keys)
    else:
        found, n_done, n_items = _live(task, Path(what), columns, allow_pickle)
        data = chosen(found, str(what), row, columns, keys)
        warning = f"{what}: {n_done} of {n_items} items are finished" if n_done < n_items and not keys else ""
    if warning:
        warnings.warn(warning, stacklevel=2)
    return data


def _task(what: str | os.PathLike[str], taskdir: Path) -> Task | None:
    """Return the task of a name; None for a path."""
    if not isinstance(what, str) or os.sep in what:
        return None
    if Path(what).exists() and not task_path(what, taskdir).exists():
        return None
    return load_task(what, taskdir)


_Rows = tuple[Placement, list[str], Mapping[str, Filler]]
"""Rows of a space, its parameters, and values of those that were added later."""


def _of_task(task: Task) -> _Rows:
    """Return the rows of the space that the task file has now."""
    state = look(task, rows=True)
    if state.placement is None or (state.newest is None and not state.done.any()):
        raise StoreError(f"{task.workdir.path}: nothing was run yet. To run it: {task.command(task.name)}")
    return state.placement, list(task.pspace.parameters), fillers(task)


def _planned(workdir: Workdir) -> _Rows:
    """Return the rows of the space of the newest plan."""
    if not workdir.exists():
        raise StoreError(f"{workdir.path}: no result file, and not a work directory such as psy-work/NAME")
    workdir.check_format()
    ids = workdir.plan_ids()
    if not ids:
        raise StoreError(f"{workdir.path}: nothing was run yet")
    plan = Plan.read(workdir.plans / ids[-1])
    counted = [(name, size) for name, size in workdir.read_manifest().get("counted", ())]
    parts = read_parts(workdir)
    placement = place(parts, plan.space, plan.n_items, planned_lookup(plan), plan.accepts, counted)
    return placement, plan.parameters, planned_fillers(plan, parts)


def _live(
    task: Task | None, path: Path, columns: Sequence[str] | None, allow_pickle: bool
) -> tuple[dict[str, Array], int, int]:
    """Return columns from the record, and how many items are done and there are."""
    workdir = Workdir(path) if task is None else task.workdir
    placement, parameters, added = _planned(workdir) if task is None else _of_task(task)
    unpickle = allow_pickle if task is None else task.store.holds_objects
    there = {*parameters, *placement.names()}
    exclude = there - set(columns) if columns is not None and there.issuperset(columns) else set()
    try:
        found, _ = result_columns(placement, parameters, True, exclude, unpickle, added)
    except UnsupportedValueError as error:
        raise StoreError(f"{workdir.path}: {error}. To read such: load(..., allow_pickle=True)") from error
    return {name: whole(column) for name, column in found.items()}, placement.n_done, len(placement.done)
