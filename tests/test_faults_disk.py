"""Disks that are full, read-only or gone, before and under way: nothing finished is lost, and the user is told."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import mounted, resize, system, until
from project import PSY_DOIT, Project

LARGE_ROWS = """
    import os, time
    from psyrun import Param

    pspace = Param(x=range({n}))
    max_jobs = {max_jobs}
    if {tables}:
        from psyrun import TableStore
        store = TableStore()

    def execute(x):
        with open("starts", "a") as file:
            print(x, file=file)
        time.sleep(0.002)  # so that no row waits for its write
        return {{"y": x * x, "z": bytes([x + 1]) * {size}}}
"""

WAITS = """
    import os, pathlib, time
    from psyrun import Param, Multiprocessing

    pspace = Param(x=range(6))
    scheduler = Multiprocessing(2)
    max_jobs = 6

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


@pytest.fixture
def disk(project: Project) -> Iterator[Path]:
    """Return psy-work, which is a file system of its own of 300 kB."""
    with mounted(project.path / "psy-work", "300k") as path:
        yield path


def told(done: subprocess.CompletedProcess[str], path: Path, cause: str) -> None:
    """Check that a command names a file below a path, the cause, and what to type."""
    assert done.returncode == 75, done.stderr
    assert str(path) in done.stderr
    assert cause in done.stderr
    assert "type the command again" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def fill(directory: Path) -> Path:
    """Leave no byte on a disk."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return ballast


# Full


def test_a_disk_that_fills_up_while_items_run_costs_those_in_flight(project: Project, disk: Path) -> None:
    """What is on record stays and is shown; once there is room the same command computes only the rest."""
    project.task("t", LARGE_ROWS, n=40, max_jobs=8, size=20000, tables=False)
    told(project.run("t", status=None), disk / "t/parts", "No space left on device")
    state = project.status("t")
    assert 5 < state["n_done"] < 15
    assert state["n_failed"] == 0
    told(project.run("t", status=None), disk / "t", "No space left on device")
    assert project.status("t")["n_done"] >= state["n_done"]
    resize(disk, "8m")
    project.run("t")
    assert project.result("t")["y"].tolist() == [x * x for x in range(40)]
    assert sum(Counter(project.starts()).values()) <= 43


def test_a_disk_without_room_for_a_plan_gets_none(project: Project, disk: Path) -> None:
    """Neither at first nor after results; nothing is left beside."""
    project.logging_task(n=4, seconds=0)
    ballast = fill(disk)
    told(project.run("t", status=None), disk / "t", "No space left on device")
    ballast.unlink()
    project.run("t")
    project.logging_task(n=6, seconds=0)
    fill(disk)
    told(project.run("t", status=None), disk / "t/plan", "No space left on device")
    assert [path.name for path in (disk / "t/plan").iterdir()] == ["0001"]
    assert project.status("t")["n_done"] == 4
    ballast.unlink()
    project.run("t")
    assert sorted(project.starts()) == list(range(6))


@pytest.mark.parametrize("tables", [False, True])
def test_a_disk_without_room_for_the_result_keeps_the_old_one(project: Project, disk: Path, tables: bool) -> None:
    """All items are done, and the next command only merges."""
    options = {"size": 9000, "tables": tables}
    project.task("t", LARGE_ROWS, n=2, max_jobs=1, **options)
    project.run("t")
    result = next((disk / "t").glob("result.*"))
    before = result.read_bytes()
    project.task("t", LARGE_ROWS, n=16, max_jobs=1, **options)
    told(project.run("t", status=None), result, "No space left on device")
    assert result.read_bytes() == before
    assert [p.name for p in (disk / "t").iterdir() if p.name.startswith(".")] == [".psyrun"]
    assert project.status("t")["complete"]
    told(project.run("merge", "psy-work/t", "psy-work/out.npz", status=None), Path("psy-work/out.npz"), "No space")
    assert not (disk / "out.npz").exists()
    resize(disk, "8m")
    assert project.steps("t") == ["-- t:split", ".  t:merge"]
    assert project.starts() == [0, 1, *range(2, 16)]


# Read-only


def test_a_disk_that_is_read_only_is_said_plainly(project: Project, disk: Path) -> None:
    """From the start, or with results: these can be read, and a run that has nothing to do is no trouble."""
    project.logging_task(n=4, seconds=0)
    system("mount", "-o", "remount,ro", str(disk))
    told(project.run("t", status=None), disk / "t", "Read-only file system")
    system("mount", "-o", "remount,rw", str(disk))
    project.run("t")
    system("mount", "-o", "remount,ro", str(disk))
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert project.status("t")["complete"]
    project.run("merge", "psy-work/t", "out.npz")
    project.logging_task(n=6, seconds=0)
    told(project.run("t", status=None), disk / "t", "Read-only file system")
    system("mount", "-o", "remount,rw", str(disk))
    project.run("t")
    assert sorted(project.starts()) == list(range(6))


def run_until_waiting(project: Project) -> subprocess.Popen[str]:
    """Start a command; return it when it has finished items and others are in flight."""
    project.task("t", WAITS)
    command = subprocess.Popen(
        [PSY_DOIT, "t"], cwd=project.path, env=project.environment(), stderr=subprocess.PIPE, text=True
    )
    until(lambda: len(list((project.path / "psy-work/t").glob("plan/0001/done/*"))) == 2)
    until(lambda: len(project.starts()) == 4)
    return command


def ended(command: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Return how a command ended."""
    _, errors = command.communicate(timeout=30)
    return subprocess.CompletedProcess([], command.returncode, "", errors)


def test_a_disk_that_becomes_read_only_under_way_ends_the_command(project: Project, disk: Path) -> None:
    """What is finished stays; the rest is computed by the next one."""
    command = run_until_waiting(project)
    system("mount", "--bind", str(disk), str(disk))
    system("mount", "-o", "remount,bind,ro", str(disk))
    told(ended(command), disk / "t", "Read-only file system")
    system("umount", str(disk))
    (project.path / "go").touch()
    project.run("t")
    assert project.result("t")["y"].tolist() == [x * x for x in range(6)]
    assert Counter(project.starts()) == {0: 1, 1: 1, 2: 2, 3: 2, 4: 1, 5: 1}


@pytest.mark.parametrize("again", [False, True])
def test_a_work_directory_that_is_removed_under_way_ends_the_command(project: Project, again: bool) -> None:
    """Soon, and nothing of it comes back by itself; the next command begins anew."""
    command = run_until_waiting(project)
    subprocess.run(["rm", "-rf", project.path / "psy-work"[: None if again else 8]], check=True)
    (project.path / "go").touch()
    done = ended(command)
    told(done, project.path / "psy-work/t", "the work directory is gone")
    assert not (project.path / "psy-work").exists()
    project.run("t")
    assert project.result("t")["y"].tolist() == [x * x for x in range(6)]
