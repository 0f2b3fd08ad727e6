"""Interpreters: environments in and around a project, others than the command's, and those that cannot do."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import psyrun
from project import Project

TASK = "from psyrun import Param\nimport model, installed\npspace = Param(x=[1, 2])\n"
TASK += "def execute(x):\n    import sys\n    return dict(y=model.f(x), prefix=sys.prefix)\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project")


def environment(where: Path, *seen: str) -> Path:
    """Make a virtual environment that finds packages of some directories; return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", where], check=True)
    (site,) = where.glob("lib/python3*/site-packages")
    (site / "seen.pth").write_text("\n".join(seen))
    (site / "installed.py").write_text("VALUE = 1\n")
    return where / "bin" / "python"


def ours() -> list[str]:
    """Return where psyrun and what it needs are."""
    return [str(Path(psyrun.__file__).parents[1]), sysconfig.get_path("purelib")]


def psy_doit(python: Path, project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with an interpreter."""
    return subprocess.run(
        [python, "-m", "psyrun", *words],
        cwd=project.path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("where", [".venv", ".", ".."])
def test_an_environment_may_be_in_a_project_be_it_or_hold_it(project: Project, where: str) -> None:
    """Edits of the user's modules are seen wherever the interpreter's prefix is, those of its packages are not."""
    python = environment((project.path / where).resolve(), *ours())
    project.task("t", TASK)
    (project.path / "model.py").write_text("def f(x): return x\n")
    done = psy_doit(python, project, "t")
    assert done.returncode == 0, done.stderr
    assert project.result("t")["prefix"].tolist() == [str(python.parents[1])] * 2
    next(python.parents[1].glob("lib/python3*/site-packages/installed.py")).write_text("VALUE = 2\n")
    assert psy_doit(python, project, "t").stdout == "-- t:split\n-- t:merge\n"
    (project.path / "model.py").write_text("def f(x): return -x\n")
    assert psy_doit(python, project, "t").returncode == 4
    assert psy_doit(python, project, "t", "--fresh").returncode == 0
    assert project.result("t")["y"].tolist() == [-1, -2]


def test_items_run_in_the_environment_that_the_task_names(project: Project) -> None:
    """By a path that begins where the command was typed; the code is the same for both interpreters."""
    python = environment(project.path / ".venv", *ours())
    project.task("t", TASK.replace(", installed", "") + "python = '.venv/bin/python'\n")
    (project.path / "model.py").write_text("def f(x): return x\n")
    project.run("t")
    assert project.result("t")["prefix"].tolist() == [str(python.parents[1])] * 2
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


def test_an_interpreter_is_found_on_the_path_of_programs(project: Project) -> None:
    """As the check before the run finds it."""
    project.task("t", TASK.replace(", installed", "") + f"python = {Path(sys.executable).name!r}\n")
    (project.path / "model.py").write_text("def f(x): return x\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    project.run("t", PATH=path)
    assert project.result("t")["y"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("python", "told"),
    [
        ("bare", "(ModuleNotFoundError: No module named 'psyrun')"),
        ("other", "(psyrun 0.8)"),
        ("/nowhere/python", "No such file"),
        ("/tmp", "Permission denied"),
        ("/bin/true", "(no answer)"),
        ("/bin/echo", "(-c import psyrun"),
    ],
)
def test_an_interpreter_that_cannot_run_items_is_told_before_anything_runs(
    project: Project, python: str, told: str
) -> None:
    """Exit status 2, what it answered, and one that does; nothing is made."""
    if python in ("bare", "other"):
        real = environment(project.path / ".venv")
        if python == "other":
            package = next((project.path / ".venv").glob("lib/python3*/site-packages")) / "psyrun.py"
            package.write_text("__version__ = '0.8'\n")
        wrapper = project.path / "isolated"  # -I: without the PYTHONPATH of who runs the tests
        wrapper.write_text(f'#!/bin/sh\nexec {real} -I "$@"\n')
        wrapper.chmod(0o755)
        python = str(wrapper)
    project.task(
        "t", f"from psyrun import Param\npspace = Param(x=[1])\npython = {python!r}\ndef execute(x): return {{}}\n"
    )
    error = project.run("t", status=2).stderr
    assert f"python = {python!r}: cannot import psyrun {psyrun.__version__} (" in error
    assert told in error
    assert f"Such as: '{Path(sys.executable).parent}/" in error
    assert not (project.path / "psy-work").exists()
