"""`psyrun.load`: the finished rows, whatever is going on; nothing is written and no path runs code."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import psyrun
from project import Project
from psyrun.errors import NoSuchTaskError, StoreError

SQUARE = """
from psyrun import Param
import pathlib
pathlib.Path("loads").touch()
pspace = Param(x={x})
def execute(x):
    if x == {bad}:
        raise ValueError("no")
    return {{"y": x * x}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project, which is the current directory."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def files(path: Path) -> dict[str, tuple[int, int]]:
    """All files below a directory, with size and time of the last change."""
    found = [p for p in path.rglob("*") if "__pycache__" not in p.parts and p.name != "loads"]
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in found}


def test_a_name_gives_the_rows_in_the_order_of_the_space(project: Project) -> None:
    """As arrays, without hidden columns; nothing is written."""
    project.task("t", SQUARE, x=[3, 1, 2], bad=None)
    project.run("t")
    before = files(project.path)
    data = psyrun.load("t")
    assert list(data) == ["x", "y"]
    assert (data["x"].tolist(), data["y"].tolist()) == ([3, 1, 2], [9, 1, 4])
    assert psyrun.load("t", row=1)["y"] == 1
    assert psyrun.load("t", columns=["y"], row=slice(1, None))["y"].tolist() == [1, 4]
    assert "__psyrun_key" in psyrun.load("t", keys=True)
    assert files(project.path) == before


def test_a_path_runs_no_code(project: Project) -> None:
    """Work directory or result file, as text or path."""
    project.task("t", SQUARE, x=[1, 2], bad=None)
    project.run("t")
    (project.path / "loads").unlink()
    workdir = project.path / "psy-work" / "t"
    for path in (workdir, str(workdir), "psy-work/t", workdir / "result.npz", "psy-work/t/result.npz"):
        assert psyrun.load(path)["y"].tolist() == [1, 4]
    assert not (project.path / "loads").exists()
    psyrun.load("t")
    assert (project.path / "loads").exists()


def test_what_is_missing_is_counted(project: Project) -> None:
    """By name, by work directory, by file; the others are there."""
    project.task("t", SQUARE, x=[1, 2, 3], bad=2)
    project.run("t", status=1)
    for what in ("t", "psy-work/t", "psy-work/t/result.npz"):
        with pytest.warns(UserWarning, match="2 of 3 items") as caught:
            assert psyrun.load(what)["x"].tolist() == [1, 3]
        assert [w.filename for w in caught] == [__file__]


def test_rows_come_during_a_run(project: Project) -> None:
    """And after the command was killed, without a result file."""
    project.logging_task("t", n=40, seconds=0.05, workers=2)
    command = project.start("t")
    try:
        seen: list[int] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            while len(seen) < 10:
                assert command.poll() is None
                time.sleep(0.05)
                if (project.path / "psy-work/t/plan/0001").exists():
                    data = psyrun.load("t") if len(seen) % 2 else psyrun.load("psy-work/t")
                    assert data.get("y", np.empty(0)).tolist() == [x * x for x in data.get("x", np.empty(0)).tolist()]
                    seen = data["x"].tolist() if "x" in data else []
    finally:
        os.killpg(command.pid, signal.SIGKILL)
        command.wait()
    assert not (project.path / "psy-work/t/result.npz").exists()
    with pytest.warns(UserWarning, match="of 40 items"):
        assert set(seen) <= set(psyrun.load("t")["x"].tolist())


def test_a_name_gives_the_space_that_the_task_file_has_now(project: Project) -> None:
    """A path gives that of the newest plan."""
    project.task("t", SQUARE, x=[1, 2, 3], bad=None)
    project.run("t")
    project.task("t", SQUARE, x=[5, 3, 1], bad=None)
    with pytest.warns(UserWarning, match="2 of 3 items"):
        assert psyrun.load("t")["x"].tolist() == [3, 1]
    assert psyrun.load("psy-work/t")["x"].tolist() == [1, 2, 3]


def test_objects_come_by_name_and_by_path_on_demand(project: Project) -> None:
    """Reading pickles can run code."""
    source = (
        SQUARE.replace("x * x}}", "x * x, 'o': {{'a': x}}}}") + "from psyrun import PickleStore\nstore = PickleStore()"
    )
    project.task("t", source, x=[1, 2], bad=None)
    project.run("t")
    assert psyrun.load("t")["o"].tolist() == [{"a": 1}, {"a": 2}]
    for path in ("psy-work/t", "psy-work/t/result.pkl"):
        with pytest.raises(StoreError, match="allow_pickle=True"):
            psyrun.load(path)
        assert psyrun.load(path, allow_pickle=True)["o"].tolist() == [{"a": 1}, {"a": 2}]
    assert psyrun.load("psy-work/t", columns=["y"])["y"].tolist() == [1, 4]


def test_values_of_several_kinds_are_objects(project: Project) -> None:
    """The result file leaves some rows out; here are all."""
    project.task("t", SQUARE.replace("x * x}}", "'text' if x == 2 else x}}"), x=[1, 2, 3], bad=None)
    project.run("t", status=1)
    assert psyrun.load("t")["y"].tolist() == [1, "text", 3]


def test_what_is_not_there_is_an_error_that_helps(project: Project) -> None:
    """It says what to type."""
    project.task("t", SQUARE, x=[1], bad=None)
    with pytest.raises(StoreError, match=r"nothing was run yet\. To run it: psy-doit t"):
        psyrun.load("t")
    with pytest.raises(NoSuchTaskError, match="There are: t"):
        psyrun.load("u")
    with pytest.raises(StoreError, match="no result file, and not a work directory"):
        psyrun.load("psy-work/u")
    with pytest.raises(StoreError, match="no result file, and not a work directory"):
        psyrun.load(project.tasks)
    project.run("t")
    for what in ("t", "psy-work/t", "psy-work/t/result.npz"):
        with pytest.raises(StoreError, match="no column z; it has x, y"):
            psyrun.load(what, columns=["z"])


def test_a_task_wins_over_a_file_of_its_name(project: Project) -> None:
    """With a slash it is a path."""
    project.task("t", SQUARE, x=[1], bad=None)
    project.run("t")
    (project.path / "t").mkdir()
    assert psyrun.load("t")["x"].tolist() == [1]
    with pytest.raises(StoreError, match="not a work directory"):
        psyrun.load("./t")
