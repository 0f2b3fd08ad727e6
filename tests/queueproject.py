"""A project whose jobs go to an emulated queue, which really runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from project import Project, until
from psyrun.claims import HELD
from psyrun.plan import Plan
from psyrun.testing.sqsub import install
from psyrun.workdir import Workdir

QUEUED_TASK = """
    import os, time
    from psyrun import Param
    from psyrun.scheduler import Sqsub

    pspace = Param(x=range({n}))
    scheduler = Sqsub("files of the queue")
    scheduler_args = {args}
    max_jobs = {max_jobs}
    {options}

    def execute(x):
        fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{{x}}\\n".encode())
        os.close(fd)
        {body}
        return {{"y": x * x}}
"""

AT_GATE = """while not os.path.exists("gate"): time.sleep(0.01)"""
"""What makes an item wait until the gate is open."""


class QueueProject(Project):
    """A project directory with a queue of its own.

    Parameters
    ----------
    path : Path
        An empty directory.
    slots : int
        How many jobs run at a time.
    """

    def __init__(self, path: Path, slots: int = 4):
        super().__init__(path)
        self.queue = path / "emulator"
        self.programs = install(self.queue, slots)

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of commands; jobs get it from them."""
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "XDG_CACHE_HOME": str(self._mark)}
        return super().environment(**{**own, **extra})

    @property
    def _mark(self) -> Path:
        return self.path / "cache"

    def queued_task(
        self,
        name: str = "t",
        n: int = 24,
        body: str = "pass",
        max_jobs: int = 6,
        options: str = "",
        **args: Any,
    ) -> None:
        """Write a task whose items note that they were started; further arguments are its ``scheduler_args``."""
        args = {"timelimit": "10m"} | args
        body = textwrap.indent(textwrap.dedent(body).strip(), "    ").lstrip()
        self.task(name, QUEUED_TASK, n=n, body=body, max_jobs=max_jobs, options=options, args=args)

    def open_gate(self) -> None:
        """Let all items go on that wait for it."""
        (self.path / "gate").touch()

    def python(self, code: str) -> str:
        """Return what a program in Python prints that runs in the project."""
        words = [sys.executable, "-c", code]
        return subprocess.run(
            words, cwd=self.path, env=self.environment(), capture_output=True, text=True, check=True
        ).stdout

    # The queue

    def slots(self, n: int) -> None:
        """Say how many jobs run at a time from now on, and begin what may begin."""
        (self.queue / "slots").write_text(str(n))
        self.command("sqjobs")

    def command(self, *words: str) -> str:
        """Say something to the queue."""
        done = subprocess.run(
            [str(self.programs / words[0]), *words[1:]],
            env=self.environment(),
            cwd=self.path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def jobs(self, states: str = "", name: str = "") -> list[int]:
        """Return the jobs in some of the states Q, R, D, K (default: any), of one task, or of all."""
        found = []
        for path in sorted((self.queue / "jobs").glob("*.json")):
            entry = json.loads(path.read_text())
            if (not states or entry["state"] in states) and entry["name"].endswith(f":psy-{name}" if name else ""):
                found.append(int(path.stem))
        return found

    def ended(self) -> bool:
        """Whether the queue has nothing that waits or runs."""
        return not self.jobs("QR")

    def wait_ended(self, seconds: float = 60) -> None:
        """Return when it has not."""
        until(self.ended, seconds)

    def submissions(self, name: str = "t") -> list[dict[str, Any]]:
        """Return the notes of what was submitted, the oldest first."""
        paths = (self.path / "psy-work" / name / "submit").glob("*/intent.json")
        return sorted((json.loads(path.read_text()) for path in paths), key=lambda s: (s["plan"], s["number"]))

    def broken(self, why: str = "") -> None:
        """Have all programs of the queue fail with these words; '' lets them work again."""
        if why:
            (self.queue / "broken").write_text(why)
        else:
            (self.queue / "broken").unlink()

    def in_front(self, program: str, script: str) -> Path:
        """Put a shell script in front of a program of the queue, which it finds as ``$REAL``."""
        real = self.programs / f"real-{program}"
        if not real.exists():
            (self.programs / program).rename(real)
        path = self.programs / program
        path.write_text(f"#!/bin/sh\nREAL='{real}'\nPROJECT='{self.path}'\n{script}\n")
        path.chmod(0o700)
        return path

    def as_it_was(self, program: str) -> None:
        """Take away what was put in front."""
        (self.programs / f"real-{program}").replace(self.programs / program)

    # Processes

    def job_pid(self, job: int) -> int:
        """Return the process that a job is: its supervisor."""
        path = self.queue / "jobs" / f"{job}.pid"
        until(path.exists)
        until(lambda: path.read_text())
        return int(path.read_text())

    def processes(self) -> list[int]:
        """Return all processes that have to do with this project, of commands, of the queue, and of jobs."""
        wanted = f"XDG_CACHE_HOME={self._mark}".encode()
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                if wanted in Path("/proc", pid, "environ").read_bytes().split(b"\0"):
                    found.append(int(pid))
        return found

    def kill_jobs(self, jobs: Iterable[int] | None = None) -> None:
        """Kill the processes of jobs, their supervisors first; all that run by default."""
        wanted = {f"SQ_JOBID={job}".encode() for job in (self.jobs("R") if jobs is None else jobs)}
        pids = []
        for pid in self.processes():
            with suppress(OSError):
                if wanted & set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")):
                    pids.append(pid)
        for pid in sorted(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End everything."""
        (self.queue / "slots").write_text("0")
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass

    # What is there

    def plan(self, name: str = "t") -> Plan:
        """Return the newest plan of a task."""
        workdir = Workdir(self.path / "psy-work" / name)
        return Plan.read(workdir.plans / workdir.plan_ids()[-1])

    def held(self, name: str = "t") -> list[str]:
        """Return the names of the tokens that workers hold."""
        return [token.name for token in self.plan(name).claims().tokens(HELD)]

    def started(self) -> Counter[int]:
        """Return how often each item was started."""
        return Counter(self.starts())
