"""What a run would do, said before anything changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from project import Project

TASK = """
import time
from psyrun import Param, Multiprocessing
pspace = Param(x={space})
max_jobs = 4
scheduler = Multiprocessing(2)
{more}
def execute(x):
    open("starts", "a").write(f"{{x}}\\n")
    time.sleep(0.01)
    if x in (3, 4):
        raise ValueError("bad")
    return {{"y": {y}}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def write(project: Project, space: str = "range(10)", more: str = "", y: str = "x") -> None:
    project.task("t", TASK, space=space, more=more, y=y)


def forecast(project: Project, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.run("plan", "t", "--json", *words).stdout)[0]
    return found


def test_a_plan_says_what_a_run_then_does(project: Project) -> None:
    """From nothing to all done, with an edited space between; nothing is written by saying so."""
    write(project)
    told = forecast(project)
    assert (told["n_missing"], told["would_run"]["items"], told["core_hours"]) == (10, 10, None)
    assert told["would_run"]["chunk_sizes"] == [3, 3, 2, 2]
    assert not (project.path / "psy-work").exists()
    project.run("t", status=1)
    assert len(project.starts()) == 10
    told = forecast(project)
    assert (told["n_done"], told["n_failed"], told["would_run"]["items"]) == (8, 2, 2)
    assert told["failures"][0]["count"] == 2
    assert 0.01 <= told["seconds_per_item"] < 0.1
    assert told["core_hours"] == pytest.approx(2 * told["seconds_per_item"] / 3600)
    assert told["eta_seconds"] == pytest.approx(told["seconds_per_item"])
    write(project, space="[*range(5, 20), 7]")
    told = forecast(project)
    assert (told["n_done"], told["not_in_space"], told["would_run"]["items"]) == (5, 3, 11)
    before = len(project.starts())
    project.run("t")
    assert len(project.starts()) - before == 11
    assert forecast(project)["would_run"]["items"] == 0
    assert "would compute nothing" in project.run("plan", "t").stdout


def test_a_plan_takes_the_selection_of_the_run(project: Project) -> None:
    """And the number of workers."""
    write(project)
    assert forecast(project, "--items", "1,2,5-7")["would_run"]["items"] == 5
    assert forecast(project, "--where", "x > 7", "-n", "7")["workers"] == 7
    project.run("t", status=1)
    assert forecast(project, "--failed")["would_run"]["items"] == 2
    assert forecast(project, "--again")["would_run"]["items"] == 10


def test_a_plan_tells_of_rows_of_other_code(project: Project) -> None:
    """And how to go on; those that were archived or kept are not told any more."""
    write(project)
    project.run("t", status=1)
    write(project, y="-x")
    text = project.run("plan", "t").stdout
    assert "computed with other code: psy-doit t --keep, or psy-doit t --fresh" in text
    assert forecast(project)["asks_about_code"]
    project.run("t", "--keep", status=1)
    told = forecast(project)
    assert not told["asks_about_code"] and not told["other_code"]
    write(project, y="-2 * x")
    project.run("t", "--fresh", status=1)
    assert not forecast(project)["other_code"]


def test_the_text_has_one_line_a_fact(project: Project) -> None:
    """What is not there is left out."""
    write(project)
    assert project.run("plan", "t").stdout == (
        "t: 10 items\n"
        "  done                             0\n"
        "  missing                         10\n"
        "psy-doit t would compute 10 items in 4 chunks of at most 3, 2 at a time\n"
        "  how long that takes is not known: no item was measured yet\n"
    )
    project.run("t", status=1)
    lines = project.run("plan", "t").stdout.splitlines()
    assert lines[:3] == [
        "t: 10 items",
        "  done                             8",
        "  failed                           2  2 x ValueError",
    ]
    assert lines[3] == "psy-doit t would compute 2 items in 2 chunks of at most 1, 2 at a time"
    assert "core-hours" in lines[4] and "an item took" in lines[4]


def test_a_long_run_is_asked_about(project: Project) -> None:
    """Above a threshold of the task, once durations are known; --yes answers."""
    write(project, more="confirm_above = '0.0001 core-hours'")
    project.run("t", status=1)
    write(project, space="range(1000)", more="confirm_above = '0.0001 core-hours'")
    error = project.run("t", status=4).stderr
    assert "992 items at 0.0" in error and "core-hours. Nothing was started" in error
    assert "psy-doit t --yes" in error
    assert len(project.starts()) == 10
    assert "992 items" in project.run("plan", "t").stdout
    write(project, space="range(12)", more="confirm_above = 0.00001")
    project.run("t", "--yes", status=1)
    write(project, space="range(14)", more="confirm_above = None")
    project.run("t", status=1)
    assert len(project.starts()) == 10 + 4 + 4


def test_a_long_run_is_asked_about_when_all_is_computed_again(project: Project) -> None:
    """What other code took is better than nothing."""
    write(project, more="confirm_above = 0.0000001")
    project.run("t", status=1)
    write(project, more="confirm_above = 0.0000001", y="-x")
    assert "core-hours. Nothing was started" in project.run("t", "--fresh", status=4).stderr
    assert len(project.starts()) == 10
