"""A directory with task files, and psy-doit run in it as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psyrun
from psyrun.arrays import Array

PSY_DOIT = str(Path(sys.executable).with_name("psy-doit"))

LOGGING_TASK = """
    import os, time
    from psyrun import Param, Multiprocessing

    pspace = Param(x=range({n}))
    scheduler = Multiprocessing({workers})
    max_jobs = {max_jobs}

    def execute(x):
        fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{{x}}\\n".encode())
        os.close(fd)
        time.sleep({seconds})
        return {{"y": x * x}}
"""


class Project:
    """A project directory.

    Parameters
    ----------
    path : Path
        An empty directory.
    """

    def __init__(self, path: Path):
        self.path = path
        self.tasks = path / "psy-tasks"
        self.tasks.mkdir()

    def task(self, name: str, text: str, **values: Any) -> Path:
        """Write a task file."""
        path = self.tasks / f"task_{name}.py"
        text = textwrap.dedent(text)
        path.write_text(text.format(**values) if values else text)
        return path

    def logging_task(
        self, name: str = "t", n: int = 40, seconds: float = 0.01, workers: int = 2, max_jobs: int = 8
    ) -> None:
        """Write a task whose items note that they were started."""
        self.task(name, LOGGING_TASK, n=n, seconds=seconds, workers=workers, max_jobs=max_jobs)

    def starts(self) -> list[int]:
        """Return which items of a logging task were started, in order."""
        path = self.path / "starts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of commands."""
        return {**os.environ, "PSYRUN_BEAT": "0.2", "PSYRUN_TTL": "2", "NO_COLOR": "1", **extra}

    def run(self, *words: str, status: int | None = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run psy-doit to its end and check its exit status (None: any)."""
        done = subprocess.run(
            [PSY_DOIT, *words],
            cwd=self.path,
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
        if status is not None:
            assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *words: str, **extra: str) -> subprocess.Popen[str]:
        """Start psy-doit, as the leader of a session of its own."""
        return subprocess.Popen(
            [PSY_DOIT, *words],
            cwd=self.path,
            env=self.environment(**extra),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def status(self, name: str) -> dict[str, Any]:
        """Return what ``status --json`` says of a task."""
        found: dict[str, Any] = json.loads(self.run("status", "--json", name).stdout)[0]
        return found

    def result(self, name: str, keys: bool = False) -> dict[str, Array]:
        """Load the result of a task."""
        return psyrun.NpzStore().load(self.path / "psy-work" / name / "result.npz", keys=keys)

    def steps(self, *words: str, status: int | None = 0) -> list[str]:
        """Run psy-doit and return the lines of doit."""
        lines = self.run(*words, status=status).stdout.splitlines()
        return [line for line in lines if line.startswith((".  ", "-- "))]


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Return when something is so; fail if it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Return the processes below one, parents first."""
    found: list[int] = []
    with suppress(FileNotFoundError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
