"""What a run would do, and what that would cost: said before anything changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from psyrun.state import State
from psyrun.status import grouped
from psyrun.taskfiles import SCHEMA_VERSION
from psyrun.units import shown_seconds


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes
    ----------
    state : State
        Where the task stands, with the rows of its record.
    sizes : list of int
        Items of each chunk that would be made.
    n_workers : int
        How many items run at a time.
    joins : bool
        Whether the run would help with a plan that others work on.
    refused, asks : str
        Why the run would be refused, and what it would ask first; '' for neither.
    seconds : float or None
        What the items are expected to take together, where more is known than what others took.
    """

    state: State
    sizes: list[int]
    n_workers: int
    joins: bool
    refused: str = ""
    asks: str = ""
    seconds: float | None = None

    @property
    def n_items(self) -> int:
        """How many items would be computed."""
        return sum(self.sizes)

    @property
    def _total(self) -> float | None:
        known = self.state.seconds
        return self.seconds if self.seconds is not None or known is None else self.n_items * known

    @property
    def core_hours(self) -> float | None:
        """How long one core would take, None if nothing was measured yet."""
        return None if self._total is None else self._total / 3600

    @property
    def eta(self) -> float | None:
        """How many seconds it would take, None if nothing was measured yet."""
        if self._total is None:
            return None
        at_once = min(self.n_workers, max(1, self.n_items))
        return max(self._total / at_once, self._total / max(1, self.n_items))

    def report(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        state, placement = self.state, self.state.placement
        others = {code: n for code, n in state.codes.items() if code not in state.accepts}
        return {
            "schema_version": SCHEMA_VERSION,
            "task": state.task.name,
            "code": state.task.code,
            "n_items": len(state.done),
            "n_done": int(np.count_nonzero(state.done)),
            "n_failed": state.n_failed,
            "n_running": int(np.count_nonzero(state.running & ~state.done)),
            "n_missing": int(np.count_nonzero(state.untried)),
            "failures": [{k: v for k, v in vars(group).items() if k != "traceback"} for group in grouped(state)],
            "not_in_space": placement.strangers if placement is not None else 0,
            "duplicates": placement.duplicates if placement is not None else 0,
            "other_code": others,
            "asks_about_code": state.conflict,
            "joins": self.joins,
            "refused": self.refused or None,
            "asks": self.asks or None,
            "would_run": {"items": self.n_items, "chunk_sizes": self.sizes},
            "workers": self.n_workers,
            "seconds_per_item": state.seconds,
            "core_hours": self.core_hours,
            "eta_seconds": self.eta,
        }

    def text(self) -> str:
        """Return it for people."""
        told = self.report()
        state, name = self.state, self.state.task.name
        lines = [f"{name}: {told['n_items']} items"]
        rows = [("done", told["n_done"], ""), ("failed", told["n_failed"], _causes(told["failures"]))]
        rows += [("running", told["n_running"], ""), ("missing", told["n_missing"], "")]
        rows += [("rows not in the space", told["not_in_space"], "they stay on record")]
        codes = told["other_code"]
        rows += [("rows of other code", sum(codes.values()), ", ".join(code[:8] for code in codes))]
        rows += [("duplicates", told["duplicates"], "the first row of an item counts")]
        lines += [
            f"  {what:22}{n:>12}{'  ' + more if more and n else ''}" for what, n, more in rows if n or what == "done"
        ]
        if told["asks_about_code"]:
            keep, fresh = state.task.command(name, "--keep"), state.task.command(name, "--fresh")
            lines.append(f"the rows that are done were computed with other code: {keep}, or {fresh}")
        return "\n".join([*lines, *self._would()])

    def _would(self) -> list[str]:
        command = self.state.task.command(self.state.task.name)
        if self.refused:
            return [f"{command} would be refused: {self.refused}"]
        if self.joins and self.state.jobs_expected:
            return ["jobs that are in the queue see to it"]
        if self.joins:
            return [f"{command} would help with the plan that is being worked on"]
        if not self.n_items:
            return [f"{command} would compute nothing"]
        n = len(self.sizes)
        chunks = f"{n} chunks of at most {max(self.sizes)}" if n > 1 else "1 chunk"
        items = "1 item" if self.n_items == 1 else f"{self.n_items} items"
        line = f"{command} would compute {items} in {chunks}, {self.n_workers} at a time"
        if self.core_hours is None or self.eta is None or self.state.seconds is None:
            return [line, "  how long that takes is not known: no item was measured yet"]
        each = shown_seconds(self.state.seconds)
        return [
            line,
            *([f"  it would ask first: {self.asks}"] if self.asks else []),
            f"  about {self.core_hours:.3g} core-hours, {shown_seconds(self.eta)}; an item took {each} so far",
        ]


def _causes(failures: list[dict[str, Any]]) -> str:
    return ", ".join(f"{failure['count']} x {failure['type']}" for failure in failures[:5])
