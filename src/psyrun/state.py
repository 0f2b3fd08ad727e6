"""Where a task stands: what is done, failed, running and missing, derived from the work directory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun import __version__
from psyrun.claims import HELD, OPEN, Claims, Observer, Process, Token, ttl_seconds
from psyrun.collect import is_ours, result_kind
from psyrun.errors import TaskError, TemporaryError, trouble
from psyrun.keys import Lanes, extended, find
from psyrun.orders import is_drained
from psyrun.parts import Failure
from psyrun.plan import Indices, Mask, Plan, packed_values, unpacked_mask
from psyrun.record import Cause, Lookup, Placement, by_code, causes, damaged, durations, place, read_parts
from psyrun.scan import Part
from psyrun.tasks import Task
from psyrun.workdir import Workdir

Held = tuple[str, Token]
"""The id of a plan, and a token of it that a worker holds which may be alive."""


@dataclass
class State:
    """Where a task stands.

    Attributes
    ----------
    newest : str or None
        The id of the newest plan, readable or not.
    plan : Plan or None
        The newest plan, if it can be read.
    accepts : list of str
        Code digests whose rows count.
    done, running : array of bool, shape (n,)
        By item: has a row that counts; is held by a worker that may be alive and whose code counts.
    held : list of (plan id, token)
        What makes them running.
    unknown : list of (plan id, token)
        Held tokens of which it cannot be told which items of this space they are.
    failed : array of bool, shape (n,)
        Which items are neither done nor running, and failed when they were tried last.
    causes : list of Cause
        Of these failures, the most frequent first.
    conflict : bool
        Whether rows are done, and with other code than the task file has now.
    merged : bool
        Whether the result file holds just what is done and fits.
    left_out : dict of int to str
        Items that are done, but do not fit into the columns of the result file, and why.
    codes : dict of str to int
        How many rows each code computed.
    seconds : float or None
        How long an item took on average, as far as items are done.
    durations : array of float
        How long some of them took, in seconds; empty where the manifest was enough.
    lacking : dict of str to int
        How many rows of the result lack a column that others have, by column.
    placement : Placement or None
        The rows; None where the manifest was enough.
    damaged : list of str
        Parts with unreadable stretches.
    parts : list of Part
        What was read of the record; empty where the manifest was enough.
    jobs_expected : bool
        Whether the queue has jobs that will work on the newest plan.
    """

    task: Task
    newest: str | None
    plan: Plan | None
    accepts: list[str]
    done: Mask
    running: Mask
    failed: Mask
    held: list[Held] = field(default_factory=list)
    unknown: list[Held] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    conflict: bool = False
    merged: bool = False
    left_out: dict[int, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    durations: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    lacking: dict[str, int] = field(default_factory=dict)
    placement: Placement | None = None
    damaged: list[str] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    jobs_expected: bool = False

    @property
    def complete(self) -> bool:
        """Whether every item is done."""
        return bool(self.done.all())

    @property
    def missing(self) -> Mask:
        """Which items would be run: not done and not running."""
        return ~(self.done | self.running)

    @property
    def untried(self) -> Mask:
        """Which items are missing and not failed."""
        return self.missing & ~self.failed

    @property
    def n_failed(self) -> int:
        """How many items failed."""
        return int(np.count_nonzero(self.failed))

    def fits(self) -> bool:
        """Whether the newest plan is of this space, and counts rows of this code."""
        plan, task = self.plan, self.task
        if plan is None or plan.space != task.pspace.digest or task.code not in plan.accepts:
            return False
        return bool(plan.content.get("added", {}) == packed_values(task.options["added"]))

    def takes_workers(self) -> bool:
        """Whether workers of this psyrun may begin items of the newest plan."""
        plan = self.plan
        return plan is not None and plan.psyrun == __version__ and not is_drained(plan.path)

    @property
    def waiting(self) -> Mask:
        """Which items are missing, and stand in the newest plan for somebody to begin."""
        if self.plan is None or not self.fits():
            return np.zeros_like(self.done)
        return self.plan.work().mask(self.plan.claims().tokens(OPEN), self.plan.n_items) & self.missing

    @property
    def failed_anew(self) -> Mask:
        """Which items failed under the newest plan, also those of chunks that are still in somebody's hands."""
        found = np.zeros_like(self.done)
        if self.plan is not None and self.plan.space == self.task.pspace.digest:
            parts = [part for part in self.parts if part.header.get("plan") == self.plan.uid]
            found[[failure.index for part in parts for failure in part.failures]] = True
        return found & ~self.done

    @property
    def left(self) -> Mask:
        """Which items are in the hands of workers or stand in the newest plan, and are neither done nor failed."""
        return (self.running | self.waiting) & ~self.done & ~self.failed_anew

    @property
    def queued(self) -> Mask:
        """Which items nobody began, and jobs of the newest plan are in the queue for."""
        expected = self.jobs_expected and self.takes_workers()
        return self.waiting if expected else np.zeros_like(self.done)

    def joins(self) -> bool:
        """Whether the newest plan is of this space and code, and is being worked on."""
        plan = self.plan
        if plan is None or not self.fits() or plan.code != self.task.code or not self.takes_workers():
            return False
        if any(name == plan.id for name, _ in self.held):
            return True
        if not plan.claims().has(OPEN):
            return False
        return self.jobs_expected or Process(**plan.content["planner"]).gone() is False


def look(
    task: Task, observer: Observer | None = None, accepts: Sequence[str] | None = None, rows: bool = False
) -> State:
    """Find out where a task stands. Writes nothing.

    Parameters
    ----------
    task : Task
    observer : Observer, optional
        Who watched the heartbeats before; without, workers of other machines are taken for alive.
    accepts : sequence of str, optional
        Code digests whose rows count; default those of the newest plan, or, if there are rows of the task's code only,
        that one.
    rows : bool
        Whether the placement of the rows is needed, even where the manifest tells all else.

    Raises
    ------
    RefusedError
        The work directory is of another version, or its marker was damaged.
    TemporaryError
        Something in it cannot be read.
    """
    try:
        return _looked(task, observer, accepts, rows)
    except MemoryError as error:
        raise TaskError(
            f"{task.name}: a space of {len(task.pspace):,} items does not fit into the memory of this machine"
        ) from error
    except OSError as error:
        raise trouble(error.filename or task.workdir.path, error) from error


def _looked(task: Task, observer: Observer | None, accepts: Sequence[str] | None, rows: bool) -> State:
    workdir = task.workdir
    workdir.check_format()
    workdir.check_trust()
    observer = observer or Observer(workdir.beats, ttl_seconds())
    ids = workdir.plan_ids()
    newest = ids[-1] if ids else None
    plan = _readable(workdir, newest)
    manifest = workdir.read_manifest()
    by_plan = accepts is None and plan is not None
    if accepts is None:  # where the plan cannot be read, the last merge tells
        accepts = manifest.get("accepts") if plan is None else plan.accepts
    if not rows and accepts is not None and _manifest_suffices(task, manifest, accepts, observer):
        state = _remembered(task, newest, plan, accepts, manifest)
    else:
        state = _seen(task, newest, plan, accepts, manifest, observer)
    if by_plan and task.code not in state.accepts and not state.done.any():
        own = look(task, observer, [task.code], rows)
        if own.done.any():
            return own
    state.jobs_expected = observer.jobs_expected
    state.conflict = task.code not in state.accepts and bool(state.done.any())
    if _is_merged(task, workdir, manifest) and manifest["space"] == task.pspace.digest:
        state.merged = bool(np.array_equal(unpacked_mask(manifest["done"], manifest["n_items"]), state.done))
        state.left_out = dict(manifest["left_out"])
        state.lacking = manifest.get("lacking", {})
    return state


def _remembered(
    task: Task, newest: str | None, plan: Plan | None, accepts: Sequence[str], manifest: dict[str, Any]
) -> State:
    """Return what the manifest tells."""
    n = manifest["n_items"]
    done, failed = (unpacked_mask(manifest[name], n) for name in ("done", "failed"))
    causes = [Cause(count, item, Failure.from_json(failure)) for count, item, failure in manifest["causes"]]
    state = State(task, newest, plan, list(accepts), done, np.zeros(n, dtype=bool), failed, causes=causes)
    state.damaged = manifest["damaged"]
    state.codes = manifest.get("codes", {})
    state.seconds = manifest.get("seconds")
    return state


def _seen(
    task: Task,
    newest: str | None,
    plan: Plan | None,
    accepts: Sequence[str] | None,
    manifest: dict[str, Any],
    observer: Observer,
) -> State:
    """Return what the record and the claims tell."""
    held = held_tokens(task.workdir, observer)  # looked at first: who leaves in between has written before
    parts = read_parts(task.workdir)
    codes = by_code(parts)
    # Where nothing tells which code counts, rows of other code are not mixed in unasked.
    known = [task.code] if task.code in codes else list(codes)
    counted = known if accepts is None else list(accepts)
    earlier = [(name, size) for name, size in manifest.get("counted", ())]
    lookup = lookup_of(task)
    placement = place(parts, task.pspace.digest, len(task.pspace), lookup, counted, earlier)
    nothing = np.zeros_like(placement.done)
    state = State(
        task, newest, plan, counted, placement.done, nothing, nothing.copy(), placement=placement, parts=parts
    )
    add_running(state, held, lookup)
    failures = {i: f for i, f in placement.failures.items() if not state.running[i]}
    state.failed[list(failures)] = True
    state.causes = causes(failures)
    state.damaged = damaged(parts)
    state.codes = codes
    seconds = placement.seconds()
    if not len(seconds):  # those of other code are better than nothing
        seconds = durations([batch for part in parts for batch in part.batches])
    state.durations, state.seconds = seconds, float(seconds.mean()) if len(seconds) else None
    return state


def lookup_of(task: Task) -> Lookup:
    """Return a function from keys, shape (n, 2), to indices in the task's space, -1 for none.

    Rows from before a parameter was added are found by the key that they have with its value of then.
    """
    keys: list[Lanes] = []
    added = list(task.options["added"].items())
    combinations = [some for n in range(len(added)) for some in itertools.combinations(added, n + 1)]

    def lookup(wanted: Lanes) -> Indices:
        if not len(wanted):
            return np.empty(0, dtype=np.int64)
        if not keys:
            keys.append(task.pspace.item_keys())
        found = find(wanted, keys[0])
        for some in combinations:
            absent = np.flatnonzero(found < 0)
            if not len(absent):
                break
            longer = wanted[absent]
            for name, value in some:
                longer = extended(longer, name, value)
            found[absent] = find(longer, keys[0])
        return found

    return lookup


def held_tokens(workdir: Workdir, observer: Observer) -> list[Held]:
    """Return what workers hold that may be alive, in all plans."""
    found = []
    for name in workdir.plan_ids():
        for token in Claims(workdir.plans / name).tokens(HELD):
            if not observer.dead(token.worker):
                found.append((name, token))
    return found


def _readable(workdir: Workdir, name: str | None) -> Plan | None:
    """Return a plan; None if it is damaged or of another version, for a new one will take its place."""
    if name is None:
        return None
    try:
        return Plan.read(workdir.plans / name)
    except TemporaryError:
        return None


def _is_merged(task: Task, workdir: Workdir, manifest: dict[str, Any]) -> bool:
    """Whether the result is the file that the manifest speaks of, in the format that the task asks for."""
    return is_ours(workdir, task.result, manifest) and manifest["kind"] == result_kind(task)


def _manifest_suffices(task: Task, manifest: dict[str, Any], accepts: Sequence[str], observer: Observer) -> bool:
    """Whether nothing has changed since the manifest was written of what it rests on, and nobody is at work."""
    workdir = task.workdir
    if not manifest or set(manifest["accepts"]) != set(accepts) or manifest["space"] != task.pspace.digest:
        return False
    if manifest.get("added", {}) != packed_values(task.options["added"]):
        return False
    if held_tokens(workdir, observer):  # looked at first: who leaves in between has written before
        return False
    sizes = {name: size for name, (_, size) in manifest["parts"].items()}
    try:
        return sizes == {path.name: path.stat().st_size for path in workdir.part_paths()}
    except FileNotFoundError:
        return False


def add_running(state: State, found: list[Held], lookup: Lookup) -> None:
    """Find out which items are held by workers that may be alive and whose rows will count."""
    workdir = state.task.workdir
    held: dict[str, list[Token]] = {}
    for name, token in found:
        held.setdefault(name, []).append(token)
    for name, tokens in held.items():
        plan = state.plan if name == state.newest else _readable(workdir, name)
        pairs = [(name, token) for token in tokens]
        if plan is None:
            state.unknown += pairs
        elif plan.code in state.accepts or plan.code == state.task.code:
            items = _held_items(state.task, plan, tokens, lookup)
            if items is None:
                state.unknown += pairs
            elif (items & ~state.done).any():
                state.held += pairs
                state.running |= items


def _held_items(task: Task, plan: Plan, tokens: list[Token], lookup: Lookup) -> Mask | None:
    """Return which items of the task's space tokens of a plan name; None if that cannot be told."""
    mask = plan.work().mask(tokens, plan.n_items)
    if plan.space == task.pspace.digest:
        return mask
    try:
        space = plan.task().pspace  # the copy of the task file, as the workers run it
    except Exception:
        return None
    if space.digest != plan.space:  # it depends on data that changed
        return None
    found = lookup(space.item_keys_at(np.flatnonzero(mask)))
    running = np.zeros(len(task.pspace), dtype=bool)
    running[found[found >= 0]] = True
    return running
