"""The parts of the record that one worker makes: one for each child that it starts, and one of its own."""

from __future__ import annotations

import os
from pathlib import Path

from psyrun.claims import this_host
from psyrun.parts import Writer
from psyrun.plan import Plan
from psyrun.workdir import Workdir


class OwnParts:
    """Makes the parts of a worker.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
    worker : str
        Its id.
    rung : int
        Of the ladders of resources.
    """

    def __init__(self, workdir: Workdir, plan: Plan, worker: str, rung: int):
        self._workdir = workdir
        self._plan = plan
        self._worker = worker
        self._rung = rung
        self._supervisors: Writer | None = None

    def new(self, number: int, count: int) -> tuple[int, Path]:
        """Make the part of a child, by its number and how often it was started; return descriptor and path."""
        path = self._workdir.parts / f"{self._worker}-{number}-{count}"
        part = _created(path)
        self._begin(part, number, count)
        return part, path

    def supervisors(self) -> Writer:
        """Return the part of the supervisor, for what it records itself."""
        if self._supervisors is None:
            self._supervisors = self._begin(_created(self._workdir.parts / f"{self._worker}-s-0"), -1, 0)
        return self._supervisors

    def _begin(self, part: int, number: int, count: int) -> Writer:
        """Write the header."""
        plan = self._plan
        about = {"worker": self._worker, "child": number, "attempt": count, "host": this_host()}
        header = about | {
            "plan": plan.uid,
            "code": plan.code,
            "space": plan.space,
            "keys": plan.content["keys"],
            "parameters": plan.parameters,
            "rung": self._rung,
        }
        writer = Writer(part)
        writer.header(header)
        return writer


def _created(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
