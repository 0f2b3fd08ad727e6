"""Where a task stands: the manifest tells the same as the record, and only while nothing has changed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from project import Project
from psyrun import state
from psyrun.record import read_parts
from psyrun.scan import Part
from psyrun.state import State, look
from psyrun.tasks import load_task
from psyrun.workdir import Workdir

TASK = """
import pathlib
from psyrun import Param
pspace = Param(x={x})
early_stop = False
def execute(x):
    if x in {bad}:
        raise ValueError("bad")
    if x == 5 and pathlib.Path("worse").exists():
        raise KeyError("worse")
    return {{"y": "text" if x == {odd} else x}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def seen(rows: bool = False, reads: bool | None = None) -> State:
    """Look at the task; check whether the record was read for it."""
    task = load_task("t", Path("psy-tasks"))
    with mock.patch.object(state, "read_parts", wraps=read_parts) as read:
        found = look(task, rows=rows)
    assert reads is None or bool(read.call_count) == reads
    return found


def same(first: State, second: State) -> None:
    for entry in fields(State):
        if entry.name in ("task", "plan", "placement", "parts", "durations"):
            continue
        a, b = getattr(first, entry.name), getattr(second, entry.name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, entry.name


@pytest.mark.parametrize(
    ("x", "bad", "odd", "status"),
    [
        (range(6), (), None, 0),
        (range(6), (1, 4), None, 1),
        (range(6), (0, 1, 2, 3, 4, 5), None, 1),
        ([], (), None, 0),
        (range(6), (3,), 2, 1),
    ],
)
def test_the_manifest_tells_what_the_record_does(
    project: Project, x: object, bad: tuple[int, ...], odd: int | None, status: int
) -> None:
    """Done, failed and why, left out, merged; without reading a part."""
    project.task("t", TASK, x=x, bad=bad, odd=odd)
    (project.path / "worse").touch()
    project.run("t", status=1 if len(bad) or (5 in list(x) and not status) else status)  # type: ignore[call-overload]
    (project.path / "worse").unlink()
    remembered = seen(reads=False)
    same(remembered, seen(rows=True, reads=True))
    assert remembered.merged
    assert remembered.n_failed == int(remembered.missing.sum())


def test_the_record_is_read_when_anything_changed(project: Project) -> None:
    """A part, the space, the code, a manifest that cannot be read, a token that somebody holds."""
    project.task("t", TASK, x=[1, 2, 3], bad=(2,), odd=None)
    project.run("t", status=1)
    seen(reads=False)
    workdir = load_task("t", Path("psy-tasks")).workdir
    project.task("t", TASK, x=[3, 2, 1], bad=(2,), odd=None)
    assert seen(reads=True).done.tolist() == [True, False, True]
    project.task("t", TASK, x=[1, 2, 3], bad=(2,), odd=None)

    text = workdir.manifest.read_text()
    workdir.manifest.write_text(text.replace('"n_items": 3', '"n_items": 4'))
    assert seen(reads=True).done.tolist() == [True, False, True]
    workdir.manifest.write_text(text)
    seen(reads=False)

    done = min((workdir.plans / "0001" / "done").iterdir())
    held = workdir.plans / "0001" / "held" / done.name
    done.rename(held)
    workdir.beats.joinpath(done.name.split(".")[-1]).touch()
    seen(reads=True)
    held.rename(done)
    seen(reads=False)

    with next(workdir.part_paths()).open("ab") as part:
        part.write(b"torn")
    assert seen(reads=True).done.tolist() == [True, False, True]


def test_rows_of_other_code_are_a_conflict_either_way(project: Project) -> None:
    """Whether the record was read or not."""
    project.task("t", TASK, x=[1, 2], bad=(), odd=None)
    project.run("t")
    project.task("t", TASK.replace("raise Key", "raise Index"), x=[1, 2], bad=(), odd=None)
    assert seen(reads=False).conflict
    assert seen(rows=True).conflict


def test_who_finishes_while_the_record_is_read_is_not_missed(project: Project) -> None:
    """Its rows come too late to be seen, and its tokens are gone: what it worked on must not be planned again."""
    project.task("t", TASK, x=[1, 2, 3], bad=(), odd=None)
    project.run("t")
    workdir = load_task("t", Path("psy-tasks")).workdir
    plan = workdir.plans / "0001"
    parts = {path: path.read_bytes() for path in workdir.part_paths()}
    names = [path.name for path in (plan / "done").iterdir()]
    for path in parts:
        path.unlink()
    for name in names:
        (plan / "done" / name).rename(plan / "held" / name)
        (workdir.beats / name.split(".")[-1]).touch()

    def finished_meanwhile(where: Workdir) -> list[Part]:
        found = read_parts(where)
        for path, content in parts.items():
            path.write_bytes(content)
        for name in names:
            (plan / "held" / name).rename(plan / "done" / name)
        return found

    with mock.patch.object(state, "read_parts", finished_meanwhile):
        found = look(load_task("t", Path("psy-tasks")), rows=True)
    assert not found.done.any() and not found.missing.any()
    assert seen().complete
