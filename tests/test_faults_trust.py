"""Nothing that another user could have written is run or unpickled, and nothing secret is written down."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

import psyrun
from project import PSY_DOIT, Project
from psyrun import questions
from psyrun.errors import RefusedError
from psyrun.local import LocalWorker
from psyrun.run import Choices, Run
from psyrun.tasks import load_task

GOOD = "from psyrun import Param\npspace = Param(x=[1, 2])\ndef execute(x): return dict(y=x)\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("what", ["", "plan", "parts", ".psyrun"])
@pytest.mark.parametrize("how", ["owner", "group", "others"])
def test_a_work_directory_that_others_could_have_written_is_not_trusted(project: Project, what: str, how: str) -> None:
    """The copy of a task file in there is not run, nor is anything counted; the message says how to trust it."""
    project.task("t", GOOD)
    project.run("t")
    place = project.path / "psy-work/t" / what
    if how == "owner":
        if os.getuid():
            pytest.fail("giving a file to another user takes an administrator")
        os.chown(place, 12345, -1)
    else:
        place.chmod(place.stat().st_mode | (0o020 if how == "group" else 0o002))
    for words in (["t"], ["status", "t"]):
        error = project.run(*words, status=4).stderr
        assert ("belongs to another user" if how == "owner" else "can be written by other users") in error
        assert (f"chown {os.geteuid()} -R" if how == "owner" else "chmod go-w -R") in error
    assert project.steps("t", status=None) == []
    # What runs no code may still be read, and who knows better can say so.
    assert psyrun.load(project.path / "psy-work/t")["y"].tolist() == [1, 2]
    project.run("t", PSYRUN_TRUST="1")


def test_pickled_values_of_others_are_not_read_by_merge(project: Project) -> None:
    """Into a .pkl file they would have to be unpickled; into .npz they are not."""
    project.task("t", GOOD + "import psyrun\nstore = psyrun.PickleStore()\n")
    project.run("t")
    (project.path / "psy-work/t/parts").chmod(0o770)
    assert "can be written by other users" in project.run("merge", "psy-work/t", "all.pkl", status=4).stderr
    project.run("merge", "psy-work/t", "all.npz")


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_of_task_files_that_anyone_may_write_is_not_used(project: Project, mode: int) -> None:
    """Others could put modules there that task files import."""
    project.task("t", GOOD)
    project.tasks.chmod(mode)
    error = project.run("t", status=2).stderr
    assert "psy-tasks: can be written by other users, so it is not run" in error
    assert "chmod go-w -R psy-tasks" in error
    project.tasks.chmod(0o775)  # a group of one, as many systems make them
    project.run("t")


def test_no_secret_is_written_down(project: Project) -> None:
    """Nothing of the environment goes to the work directory, whatever happens."""
    project.task("t", GOOD + "from psyrun import Multiprocessing\nscheduler = Multiprocessing(2)\n")
    project.task("u", GOOD.replace("return", "raise KeyError(x); return"))
    secret = "correct-horse-battery-staple"
    project.run("t", PGPASSWORD=secret)
    project.run("u", status=1, PGPASSWORD=secret)
    for path in (project.path / "psy-work").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


# Spaces too large to be meant

HUGE = "from psyrun import Param\npspace = Param(x=range(1000)) * Param(y=range(1000)) * Param(z=range(1000))\n"
HUGE += "def execute(x, y, z): return dict(s=x)\n"


def test_a_huge_space_is_asked_about_first(project: Project) -> None:
    """Count, estimate and what to type; nothing is made before, and listing and trying an item do not mind."""
    project.task("t", HUGE)
    error = project.run("t", status=4).stderr
    assert "1,000,000,000 items" in error
    assert "144 GB" in error and "are free" in error
    assert "11.6 days" in error
    assert "psy-doit t --yes" in error
    assert not (project.path / "psy-work").exists()
    assert "s = 999" in project.run("test", "t", "--item", "999999999").stdout


def test_a_huge_space_is_asked_about_on_a_terminal(project: Project) -> None:
    """The answer is no unless it is yes."""
    project.task("t", HUGE)
    ours, theirs = pty.openpty()
    with subprocess.Popen([PSY_DOIT, "t"], cwd=project.path, stdin=theirs, stdout=theirs, stderr=theirs) as command:
        os.close(theirs)
        os.write(ours, b"\n")
        told = b""
        while b"Nothing was started" not in told:
            told += os.read(ours, 1000)
        assert command.wait(timeout=20) == 4
    os.close(ours)
    assert b"Go on? [y/N]" in told
    assert not (project.path / "psy-work").exists()


@pytest.mark.parametrize("answer", [True, False])
def test_a_large_space_is_asked_about_once(
    project: Project, answer: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it is planned, nobody asks again; without a yes nothing happens."""
    monkeypatch.chdir(project.path)
    monkeypatch.setattr(questions, "_MOST_UNASKED", 1)
    project.task("t", GOOD)
    asked = []

    def confirm(told: str) -> bool:
        asked.append(told)
        return answer

    choices = Choices(confirm=confirm)
    worker = LocalWorker()
    try:
        run = Run(load_task("t", Path("psy-tasks")), choices, worker)
        if not answer:
            with pytest.raises(RefusedError, match="Nothing was started"):
                run.prepare()
            return
        run.prepare()
        assert len(asked) == 1
        shutil.rmtree("psy-work", ignore_errors=True)
        project.run("t")
        run.prepare()
        assert len(asked) == 1
    finally:
        worker.close()
