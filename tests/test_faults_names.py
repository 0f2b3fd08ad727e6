"""Modes, links, moves, and text that a shell or a file system would take for something else."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

import psyrun
from faults import rarely, run_with
from project import PSY_DOIT, Project
from psyrun.cli import cli
from psyrun.errors import NoSuchTaskError, TaskError
from psyrun.workdir import Workdir

GOOD = "from psyrun import Param\npspace = Param(x=[1, 2])\ndef execute(x): return dict(y=x)\n"
HOSTILE = "a b'c\"d\ne; echo pwned $(touch x) `touch y` & *?[z] \\ %s {0} ~"
TEXTS = [HOSTILE, "-rf", "..", "../../x", "/etc/passwd", "ünï 日本", "", " ", "\t", "$HOME", "\x1b[31m", "None", "nan"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# Modes


@pytest.mark.parametrize(
    ("store", "umask"), [("NpzStore", 0o000), ("TableStore", 0o077), *rarely(("H5Store", 0), ("PickleStore", 0))]
)
def test_nobody_else_may_write_what_is_in_a_work_directory(project: Project, store: str, umask: int) -> None:
    """Whatever the umask, which is user code's as it was: code is run from there."""
    project.task("t", GOOD + f"import psyrun, os\nstore = psyrun.{store}()\nprint(oct(os.umask({umask})))\n")
    done = run_with(project, f"import os; os.umask({umask})", "t")
    assert done.returncode == 0, done.stderr
    work = project.path / "psy-work"
    assert not stat.S_IMODE(work.stat().st_mode) & 0o002
    for path in work.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        others = 0o002 if path.name.startswith("result.") else 0o077
        assert not mode & others, f"{path}: {mode:o}"
    assert f"{umask:o}" in project.run("logs", "t").stdout


# Links and moves


def test_links_on_the_way_change_nothing(project: Project, tmp_path: Path) -> None:
    """To the project, to psy-work and to the task file; the same task by another path is the same task."""
    project.logging_task(n=3, seconds=0)
    (project.path / "elsewhere").mkdir()
    (project.path / "psy-work").symlink_to("elsewhere")
    (project.tasks / "task_t.py").rename(project.path / "real.py")
    (project.tasks / "task_t.py").symlink_to("../real.py")
    link = tmp_path.with_name(tmp_path.name + "-link")
    link.symlink_to(project.path)
    first = subprocess.run([PSY_DOIT, "t"], cwd=link, env=project.environment(), capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    text = (project.path / "real.py").read_text()
    (project.path / "real.py").write_text(text.replace("range(3)", "range(5)"))
    project.run("t")
    assert sorted(project.starts()) == list(range(5))
    assert (project.path / "elsewhere/t/result.npz").is_file()


def test_a_work_directory_and_a_project_can_be_moved(project: Project, tmp_path: Path) -> None:
    """Nothing is computed again, and what was moved can be read and merged where it is."""
    project.logging_task(n=3, seconds=0)
    project.run("t")
    away = project.path / "away"
    (project.path / "psy-work/t").rename(away)
    assert psyrun.load(away)["y"].tolist() == [0, 1, 4]
    project.run("merge", "away", "out.npz")
    away.rename(project.path / "psy-work/t")
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    (project.path / "moved").mkdir()
    for name in ("psy-tasks", "psy-work", "starts"):
        (project.path / name).rename(project.path / "moved" / name)
    moved = Project.__new__(Project)
    moved.path, moved.tasks = project.path / "moved", project.path / "moved/psy-tasks"
    assert moved.steps("t") == ["-- t:split", "-- t:merge"]
    moved.logging_task(n=5, seconds=0)
    moved.run("t")
    assert sorted(moved.starts()) == list(range(5))


# Text


@pytest.mark.parametrize("name", [HOSTILE, os.fsdecode(b"\xff\xfe"), *rarely("-rf", "ünï 日本")])
def test_a_project_may_stand_anywhere(tmp_path: Path, name: str) -> None:
    """No part of its path is taken for anything but a name; failures, messages and the plan can tell it."""
    (tmp_path / name).mkdir()
    project = Project(tmp_path / name)
    project.task("t", GOOD.replace("y=x", "y=1 / (x - 1)"))
    (project.tasks / "psy-conf.py").write_text("workdir = 'psy work; touch z'\n")
    before = sorted(os.listdir(tmp_path))
    done = project.run("t", status=1)
    assert "ZeroDivisionError" in done.stderr
    assert "psy-doit test t --item 0 --pdb" in done.stderr
    assert project.status("t")["n_done"] == 1
    assert project.run("status", "t", "-v").returncode == 0
    work = project.path / "psy work; touch z/t"
    assert project.run("logs", "t").returncode == 0
    project.run("merge", str(work), "-o.npz" if name == "-rf" else "out.npz", status=None)
    (work / ".psyrun").write_text("")
    project.run("t", status=4)
    (work / ".psyrun").write_text('{"format": 1}')
    with pytest.warns(UserWarning, match="1 of 2 items"):
        assert psyrun.load(work)["x"].tolist() == [2]
    project.run("clean", "t", "--yes")
    assert sorted(os.listdir(tmp_path)) == before
    assert not {"x", "y", "z"} & set(os.listdir(project.path))


@pytest.mark.parametrize("store", ["NpzStore", *rarely("H5Store", "TableStore")])
def test_values_of_any_text_are_values(project: Project, store: str) -> None:
    """Of parameters and outputs; and any printable name is a name."""
    project.task(
        "t",
        """
        import psyrun
        store = psyrun.{store}()
        resultfile = {file!r}
        pspace = psyrun.Param(x={texts!r})
        def execute(x):
            print(x)
            return {{"y": x[::-1], "../up": 1, "a/b": 2, "-n": 3, "$(touch x)": 4, "日本": 5}}
        """,
        store=store,
        texts=TEXTS,
        file=f"out $(touch x)/; touch y{getattr(psyrun, store)().ext}",
    )
    project.run("t")
    found = getattr(psyrun, store)().load(next((project.path / "out $(touch x)").iterdir()))
    assert found["x"].tolist() == TEXTS
    assert found["y"].tolist() == [text[::-1] for text in TEXTS]
    assert [found[name][0] for name in ("../up", "a/b", "-n", "$(touch x)", "日本")] == [1, 2, 3, 4, 5]
    assert sorted(os.listdir(project.path)) == ["out $(touch x)", "psy-tasks", "psy-work"]


BAD = [".", "..", "../up", "a/b", "a b", "a\nb", "t\n", "$(touch x)", "a;b", "ü", "/etc/passwd", "a\\b"]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_is_none_is_refused(project: Project, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By every command that takes one; nothing is made or removed."""
    project.task("t", GOOD)
    (project.path / "psy-work/t").mkdir(parents=True)
    monkeypatch.chdir(project.path)
    before = sorted(project.path.rglob("*"))
    with pytest.raises(TaskError, match="cannot be the name of a task"):
        cli.main(["new", "--", name], standalone_mode=False)
    for words in (["run"], ["clean", "--yes"], ["test"], ["logs"]):
        with pytest.raises(NoSuchTaskError, match="There are: t"):
            cli.main([*words, "--", name], standalone_mode=False)
    assert sorted(project.path.rglob("*")) == before


def test_files_with_names_of_no_task_are_not_tasks(project: Project) -> None:
    """They are neither listed nor run, and disturb nothing."""
    project.task("t", GOOD)
    for name in ("task_a b.py", "task_.py", "task_-x.py", "task_$(touch x).py", "task_ü.py", "task_a\nb.py"):
        (project.tasks / name).write_text("raise SystemExit")
    (project.tasks / "task_d.py").mkdir()
    assert project.run("list").stdout.split() == ["t"]
    project.run("status")
    project.run("t")


def test_a_manifest_leads_to_no_file_outside(project: Project) -> None:
    """A result that it names elsewhere stays where it is."""
    project.task("t", GOOD)
    project.run("t")
    workdir = Workdir(project.path / "psy-work/t")
    (project.path / "victim").write_text("mine")
    stat = (project.path / "victim").stat()
    for path in ("../../victim", str(project.path / "victim")):
        found = {"path": path, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        manifest = {k: v for k, v in workdir.read_manifest().items() if k != "format"}
        workdir.write_manifest(manifest | {"result": found})
        project.run("t")
        assert (project.path / "victim").read_text() == "mine"
