"""What is done, failed, running and missing: derived from the work directory, which is only read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psyrun.claims import HELD, OPEN, Observer, Token
from psyrun.collect import is_ours, shown_assignment
from psyrun.errors import PsyrunError
from psyrun.keys import Lanes, find
from psyrun.parts import Failure
from psyrun.plan import Indices, Mask, Plan, unpacked_mask
from psyrun.record import Placement, by_code, place, read_parts
from psyrun.tasks import Task
from psyrun.workdir import Workdir
from psyrun.worker import ttl_seconds

SCHEMA_VERSION = 1


@dataclass
class State:
    """Where a task stands.

    Attributes
    ----------
    done, running : array of bool, shape (n,)
        By item: has a row that counts; is held by a worker that may be alive.
    failures : dict of int to Failure
        The last failure of each item that is not done.
    plan : Plan or None
        The newest one.
    alive : list of Token
        Tokens of the newest plan that workers hold which may be alive.
    accepts : list of str
        Code digests whose rows count.
    conflict : bool
        Whether rows are done, and with other code than the task file has now.
    merged : bool
        Whether the result file holds just what is done.
    placement : Placement or None
        The rows; None where the manifest was enough.
    damaged : list of str
        Parts with unreadable stretches inside.
    """

    task: Task
    done: Mask
    running: Mask
    failures: dict[int, Failure]
    plan: Plan | None
    alive: list[Token]
    accepts: list[str]
    conflict: bool
    merged: bool
    placement: Placement | None
    codes: dict[str, int]
    damaged: list[str]

    @property
    def complete(self) -> bool:
        """Whether every item is done."""
        return bool(self.done.all())

    @property
    def missing(self) -> Mask:
        """Which items would be run: not done and not running."""
        return ~(self.done | self.running)

    def joins(self) -> bool:
        """Whether the newest plan is being worked on, and is still the right one."""
        plan, task = self.plan, self.task
        return bool(self.alive) and plan is not None and (plan.code, plan.space) == (task.code, task.pspace.digest)


def look(task: Task) -> State:
    """Find out where a task stands. Writes nothing."""
    workdir = task.workdir
    workdir.check_format()
    plan = newest_plan(workdir)
    space = task.pspace
    manifest = workdir.read_manifest()
    running, alive = _running(task, workdir, plan)
    if plan is not None and _manifest_suffices(task, workdir, plan, manifest):
        done = np.ones(len(space), dtype=bool)
        merged = is_ours(workdir, task.result, manifest)
        return State(task, done, running, {}, plan, alive, plan.accepts, False, merged, None, {}, [])
    parts = read_parts(workdir)
    codes = by_code(parts)
    accepts = plan.accepts if plan is not None else list(codes)
    known = {name: sizes[0] for name, sizes in manifest.get("parts", {}).items()}
    placement = place(parts, space.digest, len(space), _lookup(task), accepts, known)
    conflict = task.code not in accepts and bool(placement.done.any())
    merged = (
        is_ours(workdir, task.result, manifest)
        and manifest["space"] == space.digest
        and bool(np.array_equal(unpacked_mask(manifest["done"], manifest["n_items"]), placement.done))
    )
    damaged = [p.name for p in parts if p.damage or not p.header]
    failures = {i: f for i, f in placement.failures.items() if not running[i]}
    return State(
        task, placement.done, running, failures, plan, alive, accepts, conflict, merged, placement, codes, damaged
    )


def newest_plan(workdir: Workdir) -> Plan | None:
    """Return the newest plan, None before the first."""
    ids = workdir.plan_ids()
    return Plan.read(workdir.plans / ids[-1]) if ids else None


def _manifest_suffices(task: Task, workdir: Workdir, plan: Plan, manifest: dict[str, Any]) -> bool:
    """Whether the manifest says that all is done and nothing of what it rests on has changed since."""
    if not manifest or task.code not in plan.accepts or set(manifest["accepts"]) != set(plan.accepts):
        return False
    if manifest["space"] != task.pspace.digest or manifest["n_done"] != manifest["n_items"]:
        return False
    sizes = {name: size for name, (_, size) in manifest["parts"].items()}
    return sizes == {path.name: path.stat().st_size for path in workdir.part_paths()}


def _lookup(task: Task) -> Any:
    """Return the way from keys to indices of the task's space; its keys are computed when first asked."""
    keys: list[Lanes] = []

    def lookup(wanted: Lanes) -> Indices:
        if not keys:
            keys.append(task.pspace.item_keys())
        return find(wanted, keys[0])

    return lookup


def lookup_of(task: Task) -> Any:
    """Return a function from keys, shape (n, 2), to indices in the task's space, -1 for none."""
    return _lookup(task)


def _running(task: Task, workdir: Workdir, newest: Plan | None) -> tuple[Mask, list[Token]]:
    """Return which items workers hold that may be alive, and their tokens of the newest plan."""
    running = np.zeros(len(task.pspace), dtype=bool)
    observer = Observer(workdir.beats, ttl_seconds())
    alive: list[Token] = []
    for name in workdir.plan_ids():
        path = workdir.plans / name
        held = [t for t in Plan.claims_at(path).tokens(HELD) if not observer.dead(t.worker)]
        if not held:
            continue
        plan = newest if newest is not None and newest.id == name else Plan.read(path)
        if plan is newest:
            alive = held
        running |= _held_items(task, plan, held)
    return running, alive


def _held_items(task: Task, plan: Plan, held: list[Token]) -> Mask:
    """Return which items of the task's space the tokens of a plan name."""
    work = plan.work()
    mask = work.mask(held, plan.n_items)
    if plan.space == task.pspace.digest:
        return mask
    try:
        keys = plan.task().pspace.item_keys_at(np.flatnonzero(mask))
    except PsyrunError:
        return np.zeros(len(task.pspace), dtype=bool)
    found = lookup_of(task)(keys)
    running = np.zeros(len(task.pspace), dtype=bool)
    running[found[found >= 0]] = True
    return running


@dataclass(frozen=True)
class FailureGroup:
    """Failures of one cause: same exception, same line."""

    count: int
    type: str
    where: str
    message: str
    item: int
    assignment: str
    traceback: str

    def headline(self) -> str:
        """Return one line: how many, what, where, for example which item."""
        at = f" at {_short(self.where)}" if self.where else ""
        first = self.message.splitlines()[0] if self.message else ""
        return f"{self.count} x {self.type}{at}: {first}".rstrip(": ") + f", e.g. item {self.item} ({self.assignment})"


def _short(where: str) -> str:
    file, _, line = where.rpartition(":")
    return f"{Path(file).name}:{line}"


def grouped(state: State) -> list[FailureGroup]:
    """Return the failures by cause, the most frequent first."""
    counts = Counter((f.type, f.where) for f in state.failures.values())
    first: dict[tuple[str, str], int] = {}
    for index, failure in state.failures.items():
        first.setdefault((failure.type, failure.where), index)
    groups = []
    for cause, count in counts.most_common():
        index = first[cause]
        failure = state.failures[index]
        assignment = shown_assignment(state.task.pspace[index])
        groups.append(
            FailureGroup(count, *cause, failure.message, index, assignment, failure.traceback),
        )
    return groups


def report(state: State) -> dict[str, Any]:
    """Return where a task stands, as JSON has it."""
    failed = len(state.failures)
    n_done, n_running = int(state.done.sum()), int((state.running & ~state.done).sum())
    n_open = 0
    if state.plan is not None and state.joins():
        n_open = sum(len(t) for t in state.plan.claims().tokens(OPEN))
    result = state.task.result
    return {
        "schema_version": SCHEMA_VERSION,
        "task": state.task.name,
        "n_items": len(state.done),
        "n_done": n_done,
        "n_failed": failed,
        "n_running": n_running,
        "n_queued": n_open,
        "n_missing": len(state.done) - n_done - n_running - failed,
        "complete": state.complete,
        "merged": state.merged,
        "other_code": state.conflict,
        "rows_by_code": state.codes,
        "damaged_parts": state.damaged,
        "result": str(result) if result.exists() else None,
        "workdir": str(state.task.workdir.path),
        "failures": [{k: v for k, v in vars(group).items() if k != "traceback"} for group in grouped(state)],
        "workers": [_worker_report(state, token) for token in state.alive],
    }


def _worker_report(state: State, token: Token) -> dict[str, Any]:
    beat = Observer(state.task.workdir.beats, ttl_seconds()).read(token.worker)
    return {
        "worker": token.worker,
        "host": beat.get("host"),
        "pid": beat.get("pid"),
        "chunk": [token.first, token.last],
    }
