"""From the record to the result: rows that are done, in the order of the space, verified before they are in place."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from psyrun.arrays import Array, exact_array, plain_list
from psyrun.columns import HIDDEN, KEYS, N_ITEMS, settled
from psyrun.errors import StoreError, TaskError, TemporaryError, UnsupportedValueError, trouble
from psyrun.files import random_name, renamed, sync_directory
from psyrun.gather import Gather, Numbers
from psyrun.keys import Lanes, find
from psyrun.plan import Indices, Mask, Plan, packed_mask
from psyrun.record import Lookup, Placement, by_code, causes, damaged, place, read_parts
from psyrun.scan import Part
from psyrun.store import Store
from psyrun.streams import Column
from psyrun.tasks import Task
from psyrun.workdir import Workdir

INDEX = HIDDEN + "index"

Filler = Callable[[Mask], Sequence[Any]]
"""From which items are done, shape (n,), to a value for each."""


def fillers(task: Task) -> dict[str, Filler]:
    """Return the values of parameters that were added, as the space has them for each item."""

    def filler(name: str) -> Filler:
        return lambda done: plain_list(list(task.pspace.columns_at(np.flatnonzero(done))[name]))

    return {name: filler(name) for name in task.options.get("added", {})}


def planned_fillers(plan: Plan, parts: Iterable[Part]) -> dict[str, Filler]:
    """Return the same without the task: only where all rows that lack the parameter are from before there was one."""
    unsure = {
        name
        for part in parts
        for name in plan.added.keys() & set(part.header.get("parameters", ()))
        if any(batch.schema.cells(name) is None for batch in part.batches)
    }

    def filler(value: Any) -> Filler:
        return lambda done: [value] * int(np.count_nonzero(done))

    return {name: filler(value) for name, value in plan.added.items() if name not in unsure}


def result_columns(
    placement: Placement,
    parameters: Sequence[str],
    objects_ok: bool,
    exclude: Collection[str] = (),
    unpickle: bool | None = None,
    added: Mapping[str, Filler] | None = None,
) -> tuple[dict[str, Column], dict[int, str]]:
    """Return the columns of the result, and the items that do not fit into them.

    Parameters
    ----------
    placement : Placement
    parameters : sequence of str
        The columns that come first; hidden ones come last.
    objects_ok : bool
        Whether a column may hold any Python object.
    exclude : collection of str
        Columns to leave out.
    unpickle : bool, optional
        Whether to read what was pickled; default ``objects_ok``.
    added : dict, optional
        For parameters that the space got later: from which items are done, shape (n,), to their values.

    Returns
    -------
    columns : dict of arrays and streams
    left_out : dict of int to str
        By item, why its row is not among them: where a column holds, say, numbers in most rows and text in a few, no
        array takes both, and the few are left out.

    Raises
    ------
    UnsupportedValueError
        A column that no choice of rows makes an array of.
    """
    unpickle = objects_ok if unpickle is None else unpickle
    added = added or {}
    left_out: dict[int, str] = {}
    names = [n for n in dict.fromkeys([*parameters, *placement.names()]) if n not in exclude]
    done = 0
    irregular: dict[str, dict[str, Array]] = {}
    while done < len(names):
        name = names[done]
        done += 1
        if placement.regular(name):
            continue
        values = _values(placement, name, unpickle, added)
        try:
            irregular[name] = {} if values is None else settled(name, values, objects_ok)
        except UnsupportedValueError:
            odd = _odd_ones(name, list(values or []))
            if not odd:
                raise
            items = np.flatnonzero(placement.done)
            more = {int(items[row]): why for row, why in odd.items()}
            placement, left_out = placement.without(more), left_out | more
            irregular, done = {}, 0  # all columns lose these rows
    return _in_order(placement, names, irregular), left_out


def _values(placement: Placement, name: str, unpickle: bool, added: Mapping[str, Filler]) -> Sequence[Any] | None:
    """Return the values of a column; None if no row has it."""
    absent = added[name](placement.done) if name in added else None
    try:
        values = placement.column(name, unpickle, absent)
    except UnsupportedValueError as error:
        raise UnsupportedValueError(f"column {name!r}: {error}") from error
    if values is None and not placement.n_done:
        return []  # an empty result has its parameters, too
    return absent if values is None else values


def _in_order(
    placement: Placement, names: Sequence[str], irregular: Mapping[str, Mapping[str, Array]]
) -> dict[str, Column]:
    """Return all columns: what is regular as streams, what is not as given, hidden ones last."""
    regular = {n: cells for n in names if n not in irregular and (cells := placement.regular(n))}
    gather = Gather(placement, {**regular, KEYS: (np.dtype(np.uint64), (2,))})
    columns: dict[str, Column] = {}
    for name in names:
        columns |= irregular[name] if name in irregular else {name: gather.column(name)}
    columns[KEYS] = gather.column(KEYS)
    columns[INDEX] = Numbers(placement.done)
    columns[N_ITEMS] = np.array(len(placement.done))
    return columns


def _odd_ones(name: str, values: list[Any]) -> dict[int, str]:
    """Return the rows whose values are of another kind than most, and why; none if all are of one kind."""
    kinds = [None if value is None else _kind(value) for value in values]
    counts = Counter(kind for kind in kinds if kind is not None).most_common()
    if len(counts) < 2:
        return {}
    usual = counts[0][0]
    return {
        row: f"{name} = {values[row]!r:.60} is {kind}, in most rows it is {usual}"
        for row, kind in enumerate(kinds)
        if kind not in (None, usual)
    }


def _kind(value: Any) -> str:
    """Return what a value is, as far as values of one kind share an array."""
    if isinstance(value, (str, bytes)):
        ends = value.endswith("\0" if isinstance(value, str) else b"\0")  # type: ignore[arg-type]
        return f"{'text' if isinstance(value, str) else 'bytes'}{' with a trailing NUL' if ends else ''}"
    if isinstance(value, (int, np.integer)) and int(float(value)) != int(value):
        return "an integer that no float can hold"
    if isinstance(value, (list, tuple)):
        value = exact_array(list(value))
    array = np.asarray(value)
    what = {"U": "text", "S": "bytes", "M": "a time", "m": "a duration", "O": f"a {type(value).__name__}"}
    kind = what.get(array.dtype.kind, "a number")
    return kind if not array.ndim else f"an array of {array.ndim} dimensions of {kind.removeprefix('a ')}"


def write_result(path: Path, columns: Mapping[str, Column], store: Store) -> os.stat_result:
    """Write a result beside its place, read it back, compare, and only then put it there.

    Raises
    ------
    TemporaryError
        The disk refused, or what was read is not what was written; the old result is as it was.
    """
    beside = path.with_name(f".{path.stem}.{random_name()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.save_verified(beside, columns)
        beside.chmod(beside.stat().st_mode & ~stat.S_IWOTH)  # whatever the umask
        found = beside.stat()  # before it can be another command's file
        renamed(beside, path)
        sync_directory(path.parent)
        return found
    except OSError as error:
        raise trouble(path, error, "the result cannot be written") from error
    except StoreError as error:
        raise TemporaryError(f"{path}: the result cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def merge(workdir: Workdir, plan: Plan, task: Task, lookup: Lookup) -> Placement:
    """Write the result of a plan's space from the record, and note in the manifest what it holds.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
        Tells space, accepted code and parameters.
    task : Task
        Tells path, store and excluded names of the result. A file at its path that the manifest does not know is
        moved out of the way, never overwritten.
    lookup : callable
        From keys to indices in the space.

    Raises
    ------
    TemporaryError
        There is a newer plan, whose result this one must not replace, or the disk refused.
    """
    path = task.result
    manifest = workdir.read_manifest()
    parts = read_parts(workdir)
    counted = [(name, size) for name, size in manifest.get("counted", ())]
    placement = place(parts, plan.space, plan.n_items, lookup, plan.accepts, counted)
    columns, left_out = result_columns(
        placement,
        plan.parameters,
        task.store.holds_objects,
        task.options["exclude_from_result"],
        added=fillers(task),
    )
    workdir.check_there()
    if workdir.plan_ids()[-1:] != [plan.id]:
        raise TemporaryError(f"{workdir.path}: another command made a newer plan, and writes the result")
    if path.exists() and not is_ours(workdir, path, manifest):
        _put_aside(workdir, path)
    _retire(workdir, path, manifest)
    found = write_result(path, columns, task.store)
    content = _content(plan, placement, parts, counted)
    content |= {
        "left_out": [[item, why] for item, why in sorted(left_out.items())],
        "kind": result_kind(task),
        "result": fingerprint(workdir, path, found),
    }
    workdir.write_manifest(content)
    workdir.sweep(path)
    return placement


def _content(plan: Plan, placement: Placement, parts: Sequence[Part], counted: list[tuple[str, int]]) -> dict[str, Any]:
    """Return what the manifest says of the rows."""
    failed = np.zeros(plan.n_items, dtype=bool)
    failed[list(placement.failures)] = True
    seconds = placement.seconds()
    return {
        "plan": plan.id,
        "space": plan.space,
        "accepts": plan.accepts,
        "added": plan.content.get("added", {}),
        "n_items": plan.n_items,
        "n_done": placement.n_done,
        "done": packed_mask(placement.done),
        "failed": packed_mask(failed),
        "causes": [[c.count, c.item, c.failure.to_json()] for c in causes(placement.failures)],
        "damaged": damaged(parts),
        "codes": by_code(parts),
        "seconds": float(np.mean(seconds)) if len(seconds) else None,
        "lacking": {name: n for name, n in placement.lacking().items() if name not in plan.added},
        "parts": {part.name: [part.size, part.file_size] for part in parts},
        "counted": counted + _counted_now(parts, plan.accepts, dict(counted)),
    }


def result_kind(task: Task) -> list[str]:
    """Return what beside the rows decides how the result file looks."""
    return [repr(task.store), *sorted(task.options["exclude_from_result"])]


def _retire(workdir: Workdir, path: Path, manifest: dict[str, Any]) -> None:
    """Move the result of before to the archive if the new one has another name, as with another store."""
    before = workdir.path / manifest.get("result", {}).get("path", path.name)
    if before != path and before.parent == workdir.path and is_ours(workdir, before, manifest):
        workdir.archived(before)


def _put_aside(workdir: Workdir, path: Path) -> None:
    """Move a file that stands in the result's place: to the archive, or beside if it is outside the work directory."""
    if not path.is_file():
        raise TaskError(f"resultfile = {str(path)!r}: is there already, and is not a file. Name another one")
    if path.is_relative_to(workdir.path):
        workdir.archived(path)
    else:
        renamed(path, path.with_name(f"{path.name}.before-{random_name(4)}"))


def _counted_now(parts: Sequence[Part], accepts: Sequence[str], before: dict[str, int]) -> list[tuple[str, int]]:
    """Return names and sizes of the parts that grew, in the order in which `place` took them."""
    accepted = [part for part in parts if part.header.get("code") in accepts]
    return [(part.name, part.size) for part in accepted if part.size > before.get(part.name, 0)]


def planned_lookup(plan: Plan) -> Lookup:
    """Return the way from keys to indices that a plan knows; no task file is run for it."""
    keys, index = plan.placed()

    def lookup(wanted: Lanes) -> Indices:
        at = find(wanted, keys)
        return np.where(at >= 0, index[at] if len(index) else -1, -1)

    return lookup


def fingerprint(workdir: Workdir, path: Path, found: os.stat_result) -> dict[str, Any]:
    """Return what tells the file at a path from another that stands there later."""
    inside = path.is_relative_to(workdir.path)
    shown = str(path.relative_to(workdir.path)) if inside else str(path)
    return {"path": shown, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def is_ours(workdir: Workdir, path: Path, manifest: dict[str, Any]) -> bool:
    """Whether the file at a path is the result that the manifest speaks of."""
    try:
        return manifest.get("result") == fingerprint(workdir, path, path.stat())
    except FileNotFoundError:
        return False


def shown_assignment(assignment: dict[str, Any]) -> str:
    """Return an assignment as a user would write it: ``D=2, N=10``."""
    values = zip(assignment, plain_list(list(assignment.values())), strict=True)
    return ", ".join(f"{name}={value!r}" for name, value in values)
