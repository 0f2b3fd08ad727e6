"""Taking finished rows from a file into the record: matched to items by their parameters, exactly or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from psyrun import keys as _keys
from psyrun.arrays import Array, plain
from psyrun.claims import this_host
from psyrun.collect import shown_assignment
from psyrun.columns import is_name
from psyrun.errors import RefusedError, TaskError, TemporaryError
from psyrun.files import random_name, replacing, sync_directory
from psyrun.foreign import is_printed, own_values, present, read_columns, similar
from psyrun.keys import Lanes, find, finish, occurrences, value_lanes
from psyrun.parts import Writer
from psyrun.plan import Indices, Mask
from psyrun.state import look
from psyrun.tasks import Task

_ROWS_OF_A_RECORD = 4096
_SHOWN = 5


@dataclass
class Adoption:
    """What of a file belongs to a task.

    Attributes
    ----------
    items : array of int64, shape (n,)
        The item of each row of the file, -1 for none.
    is_new : array of bool, shape (n,)
        Which rows are of items that are not done.
    changed : float
        When the file was changed last, in seconds since 1970.
    running : int
        How many of these items are being computed now.
    outputs : dict of arrays, each of n rows
    unnamed : list of str
        Columns that no output can be called.
    lacking : dict of str to int
        In how many of the new rows an output is absent, by column.
    strangers : list of str
        The first rows that are no items, and why.
    """

    task: Task
    path: Path
    items: Indices
    is_new: Mask
    changed: float
    running: int
    outputs: dict[str, Array]
    unnamed: list[str]
    lacking: dict[str, int] = field(default_factory=dict)
    strangers: list[str] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        """How many rows the file has."""
        return len(self.items)

    @property
    def n_new(self) -> int:
        """How many rows are to be taken."""
        return int(np.count_nonzero(self.is_new))

    @property
    def n_strangers(self) -> int:
        """How many rows are no items."""
        return int(np.count_nonzero(self.items < 0))


def matched(task: Task, path: Path, trusted: bool = False) -> Adoption:
    """Find the items whose rows a file has. Writes nothing.

    Parameters
    ----------
    task : Task
    path : Path
        See `psyrun.foreign.read_columns`.
    trusted : bool
        Whether the user said that the file may be unpickled; without, tasks with a `PickleStore` unpickle their own.

    Raises
    ------
    RefusedError
        Rows are done with other code, and nobody decided yet what becomes of them.
    TaskError, StoreError
        The file has nothing for this task, or cannot be read.
    """
    space = task.pspace
    state = look(task)
    if state.conflict:
        raise RefusedError(
            f"{task.name}: {int(state.done.sum())} items were computed with other code than {task.path.name} has now. "
            f"Decide about them first: {task.command(task.name, '--keep')} or {task.command(task.name, '--fresh')}"
        )
    added = task.options["added"]
    columns = read_columns(path, space.parameters, task.store.holds_objects, trusted, added)
    n_rows = max((len(column) for column in columns.values()), default=0)
    given = {
        name: own_values(name, columns[name], space, is_printed(path)) if name in columns else [added[name]] * n_rows
        for name in space.parameters
    }
    lanes = np.zeros((n_rows, 2), dtype=np.uint64)
    for name, values in given.items():
        lanes += value_lanes(name, values)
    items = find(finish(lanes, occurrences(lanes)), space.item_keys())
    is_new = items >= 0
    is_new[is_new] = ~state.done[items[is_new]]
    outputs, unnamed = _outputs(task, columns)
    if not outputs:
        raise TaskError(f"{path}: has no column beside the parameters, so there are no outputs to take")
    running = int(state.running[items[is_new]].sum())
    found = Adoption(task, path, items, is_new, path.stat().st_mtime, running, outputs, unnamed)
    found.lacking = {n: k for n, c in outputs.items() if (k := _absent(c[is_new]))}
    found.strangers = [_told(task, row, given, lanes) for row in np.flatnonzero(items < 0)[:_SHOWN].tolist()]
    return found


def _outputs(task: Task, columns: Mapping[str, Array]) -> tuple[dict[str, Array], list[str]]:
    """Return the columns that are outputs of the task, and the names of those that cannot be."""
    left_out = {*task.pspace.parameters, *task.options["exclude_from_result"]}
    others = {name: column for name, column in columns.items() if name not in left_out}
    outputs = {name: column for name, column in others.items() if is_name(name)}
    return outputs, [name for name in others if not is_name(name)]


def _absent(column: Array) -> int:
    """Return how many values are none: NaN, NaT, None."""
    if column.dtype.kind == "O":
        return sum(value is None for value in column)
    if column.dtype.kind in "fcMm":
        gone = np.isnat(column) if column.dtype.kind in "Mm" else np.isnan(column)
        return int(np.count_nonzero(gone.reshape(len(column), -1).all(axis=1))) if column.size else 0
    return 0


def _told(task: Task, row: int, given: Mapping[str, Any], lanes: Lanes) -> str:
    """Return why a row is no item."""
    space = task.pspace
    assignment = {name: plain(values[row]) for name, values in given.items()}
    odd = [name for name, value in assignment.items() if not present(space, name, [value])[0]]
    why = []
    for name in odd:
        near = similar(space, name, assignment[name])
        why.append(f"no item has {name}={assignment[name]!r:.60}" + (f"; {near}" if near else ""))
    if not odd:
        once = find(finish(lanes[row : row + 1], 0), space.item_keys())[0] >= 0
        why.append("it is here more often than in the space" if once else "no item has these values together")
    return f"row {row} ({shown_assignment(assignment)}): {'; '.join(why)}"


def write(adoption: Adoption) -> Path:
    """Put the new rows on record, in one part: whole and durable, or not at all.

    A part can be added at any time. If somebody computes some of the items just now, their first row counts.

    Raises
    ------
    UnsupportedValueError
        An output that the task's store cannot hold.
    TemporaryError
        The disk refused.
    """
    task = adoption.task
    task.workdir.create()
    for directory in (task.workdir.path, task.workdir.path.parent):
        sync_directory(directory)
    worker = random_name()
    path = task.workdir.parts / f"{worker}-s-0"
    about = {"worker": worker, "child": -1, "attempt": 0, "host": this_host(), "plan": "", "code": task.code}
    about |= {"space": task.pspace.digest, "keys": _keys.VERSION, "adopted": adoption.path.name}
    about |= {"parameters": list(task.pspace.parameters)}
    try:
        with replacing(path) as beside:
            part = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            try:
                writer = Writer(part, task.store.holds_objects)
                writer.header(about)
                for system, columns in _records(adoption):
                    writer.rows(system, {}, columns)
                writer.end()
            finally:
                os.close(part)
    except OSError as error:
        raise TemporaryError(f"{error.filename or path}: {error.strerror}") from error
    return path


def _records(adoption: Adoption) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """Yield rows, some thousand at a time: what every row has, then parameters and outputs."""
    task = adoption.task
    excluded = set(task.options["exclude_from_result"])
    rows = np.flatnonzero(adoption.is_new)
    for first in range(0, len(rows), _ROWS_OF_A_RECORD):
        at = rows[first : first + _ROWS_OF_A_RECORD]
        items = adoption.items[at]
        system = {"key": task.pspace.item_keys_at(items), "index": items}
        system |= {"start": np.full(len(at), adoption.changed), "duration": np.full(len(at), np.nan)}
        given = {name: c for name, c in task.pspace.columns_at(items).items() if name not in excluded}
        yield system, given | {name: column[at] for name, column in adoption.outputs.items()}
