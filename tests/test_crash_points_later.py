"""A command on a task that has a result already is killed wherever it makes, moves or removes a name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from crashing import Point, points, watched
from invariants import assert_converges, assert_told_truly, stand
from project import Project
from psyrun.scan import read

pytestmark = [pytest.mark.crash, pytest.mark.long]

BEFORE, N = 12, 20
CALLS = ("rename", "mkdir", "unlink")
FRESH = ("t", "--fresh")


def _with_result(folder: Path) -> Project:
    project = Project(folder)
    project.logging_task(n=BEFORE, seconds=0.002, workers=2, max_jobs=4)
    project.run("t")
    return project


def _grown(folder: Path) -> Project:
    """A result of twelve items, and a space of twenty."""
    project = _with_result(folder)
    project.logging_task(n=N, seconds=0.002, workers=2, max_jobs=4)
    return project


def _edited(folder: Path) -> Project:
    """A result of twelve items, and other code."""
    project = _with_result(folder)
    path = project.tasks / "task_t.py"
    path.write_text(path.read_text().replace("x * x", "-x"))
    return project


def _check(make: Callable[[Path], Project], words: tuple[str, ...], check: Callable[[Project], None]) -> None:
    """Kill the command at each point, and tell all at which anything is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        found = points(make(Path(folder)), "command", words)
    chosen = [point for point in found if point.call in CALLS and not point.refused]
    assert len(chosen) > len(CALLS)

    def checked(point: Point) -> str:
        with tempfile.TemporaryDirectory() as folder:
            try:
                project = make(Path(folder))
                end = watched(project, "command", point, "signal=KILL", words=words)
                assert end.status == -9, end.told
                check(project)
            except Exception as error:
                return f"{point}: {type(error).__name__}: {error}\n"
        return ""

    with ThreadPoolExecutor(3) as pool:
        wrong = [what for what in pool.map(checked, chosen) if what]
    assert not wrong, "\n".join(wrong)


def test_a_kill_while_a_grown_space_is_computed_keeps_what_was_there() -> None:
    """The items of before never run again."""

    def check(project: Project) -> None:
        with np.load(project.path / "psy-work/t/result.npz") as result:
            assert result["x"].tolist() in (list(range(BEFORE)), list(range(N)))
        before = stand(project)
        assert before.on_record >= set(range(BEFORE))
        assert_told_truly(project, before, N)
        assert_converges(project, before, N)

    _check(_grown, ("t",), check)


def test_a_kill_while_other_code_starts_afresh_mixes_and_loses_nothing() -> None:
    """The result is of the new code alone; the rows of the old code are in the archive, all of them."""

    def check(project: Project) -> None:
        project.run(*FRESH)
        assert project.result("t")["y"].tolist() == [-x for x in range(BEFORE)]
        archived = [read(path) for path in project.path.glob("psy-work/t/archive/*/parts/*")]
        rows = [int(index) for part in archived for index in part.indices]
        assert sorted(rows) == list(range(BEFORE))
        assert len(project.starts()) <= 2 * BEFORE + 2
        assert project.steps("t") == ["-- t:split", "-- t:merge"]

    _check(_edited, FRESH, check)
