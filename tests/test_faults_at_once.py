"""Commands that merge, look, remove and run at once, and clocks that are wrong: no decision changes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import psyrun
from faults import at_time, rarely, until
from project import PSY_DOIT, Project

WAITS = """
    import pathlib, time
    from psyrun import Param

    pspace = Param(x=range(8))
    max_jobs = 4

    def execute(x):
        with open("starts", "a") as file:
            print(x, file=file)
        while x > 1 and not pathlib.Path("go").exists():
            time.sleep(0.01)
        return {"y": x * x}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(autouse=True)
def started() -> Iterator[None]:
    """Leave nothing running."""
    yield
    while STARTED:
        with STARTED.pop() as command:
            command.kill()


STARTED: list[subprocess.Popen[str]] = []


def start(project: Project, *words: str) -> subprocess.Popen[str]:
    """Start a program in a project."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    environment = project.environment()
    STARTED.append(
        subprocess.Popen(words, cwd=project.path, env=environment, stdin=null, stdout=pipe, stderr=pipe, text=True)
    )
    return STARTED[-1]


def ends(commands: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Return the exit statuses of commands, and what they complained of."""
    told = [command.communicate(timeout=60)[1] for command in commands]
    assert "Traceback" not in "".join(told), told
    return [command.returncode for command in commands], "".join(told)


def squares(n: int) -> list[int]:
    """Return the outputs of the logging task."""
    return [x * x for x in range(n)]


# Clocks


def test_a_clock_that_jumps_between_commands_changes_nothing(project: Project) -> None:
    """One is a day ahead, the next a day behind: what is done stays so, and only new items are computed."""
    for n, offset in ((3, "+1d"), (5, "-1d"), (7, "+1d")):
        project.logging_task(n=n, seconds=0)
        for _ in range(2):
            statuses, told = ends([start(project, *at_time(offset, "t"))])
            assert statuses == [0], told
        assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert project.result("t")["y"].tolist() == squares(7)
    assert sorted(project.starts()) == list(range(7))


def worker_of(project: Project, others: set[str]) -> tuple[str, int]:
    """Return a new worker, once it beats, and its process."""
    beats = project.path / "psy-work/t/beat"
    until(lambda: beats.is_dir() and [n for n in os.listdir(beats) if n not in others and n[0] != "."])
    (worker,) = (n for n in os.listdir(beats) if n not in others and n[0] != ".")
    return worker, json.loads((beats / worker).read_text())["pid"]


@pytest.mark.parametrize("dies", [False, True])
def test_workers_whose_clocks_are_two_days_apart_share_a_plan(project: Project, dies: bool) -> None:
    """One waits for the other for as long as it lives, and takes over its chunk when it dies."""
    project.task("t", WAITS)
    ahead = start(project, *at_time("+1d", "t"))
    until(lambda: len(project.starts()) == 3)
    first, pid = worker_of(project, set())
    behind = start(project, *at_time("-1d", "t"))
    until(lambda: len(project.starts()) == 4)
    worker_of(project, {first})
    if dies:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            os.kill(ahead.pid, number)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ahead.communicate(timeout=30)
    else:
        time.sleep(3)  # longer than the time to live
        assert len(project.starts()) == 4
    (project.path / "go").touch()
    statuses, told = ends([behind] if dies else [ahead, behind])
    assert set(statuses) == {0}, told
    assert project.result("t")["y"].tolist() == squares(8)
    assert Counter(project.starts()) == Counter([*range(8), *([2] if dies else [])])
    project.run("t")  # of two that merged at once neither may know the file of the other
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


# Merging and looking


def test_merges_at_once_into_one_file_leave_a_whole_one(project: Project) -> None:
    """Some may find it there already, and refuse; none disturbs another."""
    project.logging_task(n=5, seconds=0)
    project.run("t")
    statuses, told = ends([start(project, PSY_DOIT, "merge", "psy-work/t", "out.npz") for _ in range(4)])
    assert set(statuses) <= {0, 4}, told
    assert 0 in statuses
    assert psyrun.load(project.path / "out.npz")["y"].tolist() == squares(5)
    assert sorted(os.listdir(project.path)) == ["out.npz", "psy-tasks", "psy-work", "starts"]


@pytest.mark.parametrize("lost", [["result.npz", "manifest.json"], *rarely(["result.npz"])])
def test_commands_that_merge_at_once_agree(project: Project, lost: list[str]) -> None:
    """All succeed with the same file; it is the one that the manifest knows, after one more command at most."""
    project.logging_task(n=5, seconds=0)
    project.run("t")
    for name in lost:
        (project.path / "psy-work/t" / name).unlink()
    statuses, told = ends([start(project, PSY_DOIT, "t") for _ in range(4)])
    assert statuses == [0] * 4, told
    assert project.result("t")["y"].tolist() == squares(5)
    project.run("t")
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert sorted(project.starts()) == list(range(5))


LOOKS = """
import json, sys, time
from pathlib import Path
from psyrun.state import look
from psyrun.tasks import load_task

last = -1
task = load_task("t", Path("psy-tasks"))
while not task.result.exists() or last < len(task.pspace):
    state = look(task)
    n_done = int(state.done.sum())
    assert n_done >= last, (n_done, last)
    assert not state.n_failed and not state.damaged, state
    assert not (state.running & state.done).all() or not state.running.any()
    last = n_done
"""


@pytest.mark.parametrize("n", [3, *rarely(1)])
def test_looking_all_the_time_never_fails_and_never_counts_down(project: Project, n: int) -> None:
    """While several commands plan, run and merge."""
    project.logging_task(n=60, seconds=0.02, max_jobs=20)
    looking = start(project, sys.executable, "-c", LOOKS)
    running = [start(project, PSY_DOIT, "t") for _ in range(n)]
    statuses, told = ends([*running, looking])
    assert statuses == [0] * (n + 1), told
    assert sorted(project.starts()) == list(range(60))


# Removing


def test_clean_says_what_it_frees_and_asks(project: Project) -> None:
    """Where nobody can answer it refuses, and says what to type."""
    project.logging_task(n=5, seconds=0)
    project.run("t")
    told = project.run("clean", "t", status=4).stderr
    assert f"{project.path}/psy-work/t (0.0 MB: all results, logs and the archive of t)" in told
    assert "psy-doit clean t --yes" in told
    assert project.status("t")["complete"]
    assert "removed" in project.run("clean", "t", "--yes").stdout
    assert os.listdir(project.path / "psy-work") == []
    project.run("clean", "t", "--yes", status=3)


def test_clean_removes_nothing_that_is_not_marked_as_ours(project: Project) -> None:
    """Not the directory that a task names, nor what links inside lead to."""
    project.logging_task(n=3, seconds=0)
    thesis = project.path / "psy-work/t/thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("mine")
    assert "nothing to remove" in project.run("clean", "t", "--yes", "--force", status=3).stderr
    project.run("t", status=4)
    assert thesis.read_text() == "mine"
    thesis.rename(project.path / "thesis.tex")
    project.run("t")
    (project.path / "psy-work/t/link").symlink_to(project.path)
    project.run("clean", "t", "--yes")
    assert (project.path / "thesis.tex").read_text() == "mine"
    assert project.starts() == [0, 1, 2] or sorted(project.starts()) == [0, 1, 2]


@pytest.mark.parametrize("seed", [0, 1, *rarely(*range(2, 20))])
def test_running_and_removing_at_once(project: Project, seed: int) -> None:
    """Either removes all or refuses; a run completes or says that its directory is gone; the next one completes."""
    moments = random.Random(seed)
    project.logging_task(n=10, seconds=0.02, max_jobs=5)
    if seed % 2:
        project.run("t")
        project.logging_task(n=14, seconds=0.02, max_jobs=5)
    commands = [start(project, PSY_DOIT, "t")]
    for _ in range(3):
        time.sleep(moments.uniform(0, 0.35))
        commands.append(start(project, PSY_DOIT, "clean", "t", "--yes"))
    statuses, told = ends(commands)
    assert statuses[0] in (0, 75), told
    assert set(statuses[1:]) <= {0, 3, 4, 75}, told
    project.run("t")
    n = 14 if seed % 2 else 10
    assert project.result("t")["y"].tolist() == squares(n)
    assert [name for name in os.listdir(project.path / "psy-work") if name != "t"] == []
