"""Running a part of a task: failed ones, missing ones, these, such, and again."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import psyrun
from project import Project
from psyrun.scan import read

TASK = """
from psyrun import Param, Multiprocessing
pspace = Param(x=range(10)) * Param(N=[1, 2])
max_jobs = 3
def execute(x, N):
    open("starts", "a").write(f"{{2 * x + N - 1}}\\n")
    if {bad}:
        raise ValueError("bad")
    return {{"y": x * N, "text": "a" * x, "ragged": [N] * x}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.task("t", TASK, bad="x == 4")
    return project


def started(project: Project, *words: str, status: int = 0) -> list[int]:
    """Run the task and return which items were started."""
    before = len(project.starts())
    project.run("t", *words, status=status)
    return sorted(project.starts()[before:])


def test_items_are_selected_by_number_and_by_condition(project: Project) -> None:
    """They are computed and merged, the others are left; the exit status is about the selected ones."""
    assert started(project, "--items", "3,17,5-6") == [3, 5, 6, 17]
    assert started(project, "--where", "x > 7 and N == 2") == [19]
    assert started(project, "--where", "x in (0, 4)", "--items", "0,8-11", status=1) == [0, 8, 9]
    with pytest.warns(UserWarning, match="6 of 20"):
        assert project.result("t")["x"].tolist() == [0, 1, 2, 3, 8, 9]
    assert started(project, "--where", "x == 100") == []


def test_failed_and_missing_ones_can_be_run_apart(project: Project) -> None:
    """Both together are everything that is not done."""
    project.run("t", "--where", "x > 2", status=1)
    assert started(project, "--missing") == [0, 1, 2, 3, 4, 5]
    assert started(project, "--failed", status=1) == [8, 9]
    assert started(project, "--failed", "--where", "N == 2", status=1) == [9]
    assert started(project, "--failed", "--missing", status=1) == [8, 9]
    assert started(project, "--missing") == []


def test_done_items_are_computed_again_only_when_that_is_said(project: Project) -> None:
    """Naming them is refused; --again puts their rows into the archive, and no others."""
    project.task("t", TASK, bad="False")
    project.run("t")
    before = {tuple(row) for row in project.result("t", keys=True)["__psyrun_key"].tolist()}
    done = project.run("t", "--items", "3-4", status=4)
    assert "2 of the items 3-4 are done" in done.stderr
    assert "psy-doit run t --items 3-4 --again" in done.stderr
    assert started(project, "--where", "x == 7") == []
    assert started(project, "--items", "3-4,12", "--again") == [3, 4, 12]
    result = project.result("t", keys=True)
    assert {tuple(row) for row in result["__psyrun_key"].tolist()} == before
    assert result["y"].tolist() == [x * n for x in range(10) for n in (1, 2)]
    assert result["text"].tolist() == ["a" * x for x in range(10) for n in (1, 2)]
    data = psyrun.load(project.path / "psy-work/t")
    assert np.array_equal(np.isnan(data["ragged"]).sum(axis=1), 9 - data["x"])
    archived = [read(path) for path in (project.path / "psy-work/t/archive").rglob("*-0")]
    assert {3, 4, 12} <= {int(i) for part in archived for i in part.indices}
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert len(started(project, "--again")) == 20


def test_rows_of_an_earlier_space_are_archived_by_their_keys(project: Project) -> None:
    """Where an item stood when it was computed does not matter."""
    project.task("t", TASK, bad="False")
    project.run("t")
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("range(10)", "range(9, -1, -1)"))
    assert started(project, "--where", "x == 9 and N == 1", "--again") == [18]
    assert project.result("t")["x"].tolist() == [x for x in range(9, -1, -1) for _ in "12"]
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--items", "3-x"], "takes a list such as 3,17,40-60"),
        (["--items", "20"], "there are 20 items, numbered 0 to 19"),
        (["--where", "z > 3"], "no parameter 'z'"),
        (["--where", "__import__('os')"], "condition"),
        (["--where", "x >"], "condition"),
    ],
)
def test_a_wrong_selection_is_told_before_anything_runs(project: Project, words: list[str], told: str) -> None:
    """What was got, what is taken; exit status 2."""
    error = project.run("t", *words, status=2).stderr
    assert told in error and "Traceback" not in error
    assert not (project.path / "psy-work").exists()


def test_a_selection_waits_for_workers_of_the_task(project: Project) -> None:
    """Refused while somebody computes items of it, which may be the same."""
    project.logging_task(n=6, seconds=0.5, workers=1, max_jobs=2)
    command = project.start("t")
    while not project.starts():
        assert command.poll() is None
    assert "psy-doit wait t" in project.run("t", "--items", "5", status=4).stderr
    command.send_signal(signal.SIGINT)
    command.wait(timeout=20)
