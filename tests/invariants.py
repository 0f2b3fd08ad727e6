"""What holds of a task whatever happened to its processes."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from project import Project
from psyrun.record import read_parts
from psyrun.workdir import Workdir


@dataclass(frozen=True)
class Stand:
    """How far a logging task has come: which items are on record, and how often each was started."""

    on_record: frozenset[int]
    starts: Counter[int]

    def in_flight(self) -> set[int]:
        """Return what was started, and is not on record."""
        return set(self.starts) - self.on_record


def stand(project: Project) -> Stand:
    """Read the record, and check that each of its rows is what execute returns, with nothing damaged."""
    rows: set[int] = set()
    for part in read_parts(Workdir(project.path / "psy-work/t")):
        assert not part.damage, f"{part.name}: damaged at {part.damage}"
        for batch in part.batches:
            x, y = (np.asarray(batch.column(name)) for name in "xy")
            assert np.array_equal(x, batch.indices), "a row tells of another item"
            assert np.array_equal(y, x * x), "a row is not what execute returned"
            rows.update(batch.indices.tolist())
    return Stand(frozenset(rows), Counter(project.starts()))


def assert_told_truly(project: Project, now: Stand, n: int) -> None:
    """``status`` counts the rows on record, and calls only that complete and merged which is."""
    told = project.status("t")
    assert told["n_items"] == n
    assert told["n_done"] == len(now.on_record), f"told {told['n_done']} done, of {len(now.on_record)} on record"
    assert told["complete"] == (len(now.on_record) == n)
    assert told["damaged_parts"] == []
    if told["merged"]:
        with np.load(project.path / "psy-work/t/result.npz") as result:  # `psyrun.load` warns of what is missing
            assert result["x"].tolist() == sorted(now.on_record), "called merged, and is not"


def assert_converges(project: Project, before: Stand, n: int) -> None:
    """The same command completes the task, and leaves nothing to do for another one."""
    after = assert_mended(project, before, n)
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert stand(project) == after


def assert_mended(project: Project, before: Stand, n: int) -> Stand:
    """The same command completes the task: nothing that was on record runs again, all else once more at most."""
    project.run("t")
    assert_complete(project, n)
    after = stand(project)
    again = after.starts - before.starts
    assert not before.on_record & set(again), f"on record, and computed again: {before.on_record & set(again)}"
    assert not again or max(again.values()) == 1, f"computed twice by one command: {again}"
    assert after.on_record == set(range(n))
    return after


def assert_complete(project: Project, n: int) -> None:
    """The result has each item once, as execute returned it."""
    result = project.result("t", keys=True)
    assert result["x"].tolist() == list(range(n))
    assert np.array_equal(result["y"], result["x"] ** 2)
    assert len(np.unique(result["__psyrun_key"], axis=0)) == n


def left_beside(project: Project) -> list[Path]:
    """Return what commands that were killed left beside the place where it was to go."""
    workdir = project.path / "psy-work/t"
    hidden = [path for folder in (workdir, workdir / "plan", workdir / "beat") for path in folder.glob(".*")]
    return sorted(path for path in hidden if path.name != ".psyrun")


def age(paths: list[Path]) -> None:
    """Make files look as if nobody had touched them for two days."""
    for path in paths:
        seen = path.stat().st_mtime - 2 * 86400
        os.utime(path, (seen, seen))
