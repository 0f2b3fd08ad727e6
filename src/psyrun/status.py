"""Reports of where a task stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from psyrun.claims import Observer, ttl_seconds
from psyrun.collect import shown_assignment
from psyrun.orders import is_drained, is_paused
from psyrun.state import State
from psyrun.taskfiles import SCHEMA_VERSION
from psyrun.tasks import Task


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

    def command(self, task: Task) -> str:
        """Return what to type to look at one: a debugger helps where something was raised."""
        return task.command("test", task.name, "--item", str(self.item), *(["--pdb"] if self.where else []))


def _short(where: str) -> str:
    file, _, line = where.rpartition(":")
    return f"{Path(file).name}:{line}"


def grouped(state: State) -> list[FailureGroup]:
    """Return the failures by cause, the most frequent first."""
    return [
        FailureGroup(
            cause.count,
            cause.failure.type,
            cause.failure.where,
            cause.failure.message,
            cause.item,
            shown_assignment(state.task.pspace[cause.item]),
            cause.failure.traceback,
        )
        for cause in state.causes
    ]


def report(state: State) -> dict[str, Any]:
    """Return where a task stands, as JSON has it."""
    failed = state.n_failed
    n_done, n_running = int(state.done.sum()), int((state.running & ~state.done).sum())
    result = state.task.result
    return {
        "schema_version": SCHEMA_VERSION,
        "task": state.task.name,
        "n_items": len(state.done),
        "n_done": n_done,
        "n_failed": failed,
        "n_running": n_running,
        "n_missing": len(state.done) - n_done - n_running - failed,
        "n_queued": int(np.count_nonzero(state.queued & ~state.failed)),
        "complete": state.complete,
        "merged": state.merged,
        "paused": is_paused(state.task.workdir),
        "drained": state.plan is not None and is_drained(state.plan.path),
        "left_out": len(state.left_out),
        "other_code": state.conflict,
        "rows_by_code": state.codes,
        "damaged_parts": state.damaged,
        "result": str(result) if result.exists() else None,
        "workdir": str(state.task.workdir.path),
        "record_bytes": sum(path.stat().st_size for path in state.task.workdir.part_paths()),
        "failures": [{k: v for k, v in vars(group).items() if k != "traceback"} for group in grouped(state)],
        **_at_work(state),
    }


def _at_work(state: State) -> dict[str, Any]:
    """Return what is told of workers; nothing is read for it where there are none."""
    held = [*state.held, *state.unknown]
    if not held:
        return {"workers": [], "seconds_left": None, "stragglers": []}
    from psyrun.workers import Crew, workers_of

    workers = workers_of(held, Observer(state.task.workdir.beats, ttl_seconds()))
    crew = Crew(state.task, workers, state.plan, state.done | state.failed_anew, state.left, state.durations)
    stands = is_paused(state.task.workdir) or (state.plan is not None and is_drained(state.plan.path))
    left = None if stands else crew.left
    return {
        "workers": crew.report(),
        "seconds_left": vars(left) if left is not None else None,
        "stragglers": crew.stragglers(),
    }


def lines(state: State, told: dict[str, Any]) -> list[str]:
    """Return where a task stands as people read it, and what to type next.

    Parameters
    ----------
    state : State
    told : dict
        Its `report`.
    """
    name = told["task"]
    parts = [f"{told['n_done']} of {told['n_items']} items done"]
    counts = {what: told[f"n_{what}"] for what in ("failed", "running", "queued", "missing")}
    counts["missing"] -= counts["queued"]
    parts += [f"{n} {what}" for what, n in counts.items() if n]
    found = [f"{name}: {', '.join(parts)}"]
    if told["workers"]:
        found += [f"  {line}" for line in _lines_of_work(told)]
    if told["other_code"]:
        choices = f"{state.task.command(name, '--keep')}, or --fresh"
        found.append(f"  computed with other code than the task file has now: {choices}")
    if told["paused"]:
        found.append(f"  paused: {state.task.command('resume', name)}")
    if told["drained"] and told["workers"]:
        found.append("  drained: workers leave when they have finished what is in hand")
    if len(told["rows_by_code"]) > 1:
        rows = [f"{n} of {_code(state, code)}" for code, n in told["rows_by_code"].items()]
        found.append(f"  rows on record by code: {', '.join(rows)}")
    if told["damaged_parts"]:
        found.append(f"  unreadable stretches in {len(told['damaged_parts'])} parts; their items count as missing")
    found += [f"  item {item} is done, but not in the file: {why}" for item, why in state.left_out.items()]
    if told["complete"] and not told["merged"]:
        found.append(f"  not merged yet: {state.task.command(name)}")
    elif told["complete"]:
        found.append(f"  result: {told['result']}")
    elif not (told["n_running"] or told["n_queued"] or told["other_code"] or told["paused"]):
        found.append(f"  to compute the others: {state.task.command(name)}")
    return found


def _lines_of_work(told: dict[str, Any]) -> list[str]:
    from psyrun.eta import Left
    from psyrun.workers import shown_stragglers, shown_workers

    left = [Left(**told["seconds_left"]).text()] if told["seconds_left"] else []
    return [*left, *shown_workers(told["workers"]), *shown_stragglers(told["stragglers"])]


def _code(state: State, code: str) -> str:
    what = "now" if code == state.task.code else "counts" if code in state.accepts else "does not count"
    return f"{code[:8]} ({what})"
