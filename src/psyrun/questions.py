"""What is checked, and asked, before a run: nothing is written until then."""

from __future__ import annotations

import shutil
import sys

import numpy as np

from psyrun import __version__
from psyrun.cells import cell
from psyrun.errors import RefusedError, TaskError, TemporaryError
from psyrun.orders import paused_since
from psyrun.plan import Mask, Plan
from psyrun.selection import Selection
from psyrun.shell import run_command
from psyrun.state import State
from psyrun.tasks import Task
from psyrun.units import core_hours, shown_bytes, shown_seconds

_CHECKED_ROWS = 1000
_MOST_UNASKED = 10_000_000
_BYTES_PER_NUMBER = 8
_HIDDEN_NUMBERS = 6  # of a row: key, index, start, duration, and at least one output


def check_not_paused(task: Task) -> None:
    """Raise a RefusedError if workers were told to begin nothing."""
    since = paused_since(task.workdir)
    if since:
        resume = task.command("resume", task.name)
        raise RefusedError(f"{task.name}: is paused since {since}, so nothing was started. To go on: {resume}")


def check_python(task: Task) -> None:
    """Raise a TaskError if the interpreter that the task names is not there, or lacks this psyrun."""
    python = task.options["python"]
    if python is None or str(python) == sys.executable:
        return
    answer = run_command([str(python), "-c", "import psyrun; print('psyrun', psyrun.__version__)"])
    last = (answer.output.strip().splitlines() or ["no answer"])[-1]
    if answer.status:
        last = (answer.errors.strip().splitlines() or ["no answer"])[-1]
    elif last == f"psyrun {__version__}":
        return
    raise TaskError(
        f"python = {str(python)!r}: cannot import psyrun {__version__} ({last}). Such as: {sys.executable!r}"
    )


def check_parameters(task: Task) -> None:
    """Raise an UnsupportedValueError if the store cannot hold values of parameters."""
    for name, column in task.pspace.columns(0, _CHECKED_ROWS).items():
        if column.dtype == object:
            for value in column:
                cell(name, value, task.store.holds_objects)


def check_selection(state: State, selection: Selection, chosen: Mask, about_code: str) -> None:
    """Raise a RefusedError if items were selected that a run cannot see to alone."""
    task = state.task
    if not selection:
        return
    if state.held or state.joins():
        wait = task.command("wait", task.name)
        raise RefusedError(f"{task.name}: workers are computing items of it, maybe the same. Wait for them: {wait}")
    if state.conflict and about_code == "fresh":
        raise RefusedError(
            f"{task.name}: rows of other code would all go to the archive, and only the selected items be computed. "
            f"Keep them: {task.command(task.name, '--keep')}, or compute all again, without a selection: "
            f"{task.command(task.name, '--fresh')}"
        )
    n_done = int(np.count_nonzero(state.done & chosen))
    if selection.items and n_done and not selection.again:
        again = task.command("run", task.name, "--items", selection.items, "--again")
        raise RefusedError(
            f"{task.name}: {n_done} of the items {selection.items} are done. To put their rows into the archive and "
            f"compute them again: {again}"
        )


def size_of(task: Task, n_workers: int) -> str:
    """Return what to ask before the first plan of a space so large that it is likely a slip, '' if it is not."""
    space = task.pspace
    if len(space) <= _MOST_UNASKED or _is_planned(task):
        return ""
    size = len(space) * _BYTES_PER_NUMBER * (len(space.parameters) + _HIDDEN_NUMBERS)
    path = task.workdir.path
    folder = next(place for place in (path, *path.parents) if place.exists())
    return (
        f"{task.name}: the space has {len(space):,} items. Record and result take at least {shown_bytes(2 * size)} "
        f"({shown_bytes(shutil.disk_usage(folder).free)} are free); at 1 ms an item they take "
        f"{shown_seconds(len(space) * 1e-3 / n_workers)}, {n_workers} at a time."
    )


def _is_planned(task: Task) -> bool:
    """Whether the newest plan is of this space."""
    try:
        return Plan.read(task.workdir.plans / task.workdir.plan_ids()[-1]).space == task.pspace.digest
    except (IndexError, TemporaryError):
        return False


def cost_of(state: State, n_items: int, seconds: float | None = None) -> str:
    """Return what to ask before a run that takes more than the task allows unasked, '' if it does not.

    Parameters
    ----------
    state : State
    n_items : int
    seconds : float, optional
        What these items are expected to take together; default as long as others took on average.
    """
    limit = state.task.options["confirm_above"]
    if limit is None or state.seconds is None:
        return ""
    hours = (n_items * state.seconds if seconds is None else seconds) / 3600
    if hours <= core_hours(limit):
        return ""
    each = shown_seconds(3600 * hours / n_items)
    return f"{state.task.name}: {n_items} items at {each} each, as measured so far, take {hours:.3g} core-hours."
