"""A project whose jobs go to a real Slurm, on which others have jobs too."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from invariants import Stand, assert_complete, stand
from project import Project, until
from slurmcluster import SlurmCluster

SLURM_TASK = """
    import os, time
    from psyrun import Param, Slurm

    pspace = Param(x=range({n}))
    scheduler = Slurm()
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

AT_GATE = """while not os.path.exists("gate"): time.sleep(0.05)"""
"""What makes an item wait until the gate is open."""

WAITS, RUNS = "PENDING", "RUNNING"
ALIVE = (WAITS, RUNS, "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED")


class SlurmProject(Project):
    """A project directory, and the jobs that run in it.

    Parameters
    ----------
    path : Path
        An empty directory.
    slurm : SlurmCluster
    """

    def __init__(self, path: Path, slurm: SlurmCluster):
        super().__init__(path)
        self.slurm = slurm
        self._cache = path / "cache"

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of commands; jobs get it from them."""
        own = {"XDG_CACHE_HOME": str(self._cache), **self.slurm.environment()}
        return super().environment(**{**own, **extra})

    def slurm_task(
        self, name: str = "t", n: int = 12, body: str = "pass", max_jobs: int = 6, options: str = "", **args: Any
    ) -> None:
        """Write a task whose items note that they were started; further arguments are its ``scheduler_args``."""
        body = textwrap.indent(textwrap.dedent(body).strip(), "    ").lstrip()
        options = textwrap.dedent(options).strip()
        self.task(name, SLURM_TASK, n=n, body=body, max_jobs=max_jobs, options=options, args=args)

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

    def jobs(self, *states: str, name: str = "") -> list[str]:
        """Return the jobs of this project that Slurm knows, of one task or of all, in some of the states or in any."""
        form = "%i|%T|%j|%Z"
        lines = self.slurm.run("squeue", "-h", "-r", "-t", "all", "-o", form).splitlines()
        found = []
        for job, state, called, place in (line.split("|", 3) for line in lines):
            if (
                Path(place) == self.path
                and state in (states or [state])
                and called == (f"psy-{name}" if name else called)
            ):
                found.append(job)
        return found

    def wait_over(self, seconds: float = 90) -> None:
        """Return when no job of this project waits or runs."""
        until(lambda: not self.jobs(*ALIVE), seconds)

    def close(self) -> None:
        """End what is left of its jobs, and nothing else."""
        alive = self.jobs(*ALIVE)
        if alive:
            self.slurm.run("scancel", *alive, status=None)
        self.kill(self.processes())
        self.wait_over()

    # Processes

    def processes(self, job: str = "") -> list[int]:
        """Return the processes of a job, or all that have to do with this project, lowest numbers first."""
        wanted = {f"XDG_CACHE_HOME={self._cache}".encode()}
        if job:
            array, _, number = job.partition("_")
            wanted |= {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={number}".encode()}
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                if wanted <= set(Path("/proc", pid, "environ").read_bytes().split(b"\0")):
                    found.append(int(pid))
        return sorted(found)

    def kill(self, pids: Iterable[int]) -> None:
        """Kill processes."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # What is there

    def stand(self) -> Stand:
        """Return which items are on record, and how often each was started; each row is as it should be."""
        return stand(self)

    def log(self) -> str:
        """Return what all jobs of a task wrote."""
        return "".join(path.read_text() for path in sorted((self.path / "psy-work/t/log").glob("job-*.log")))

    def assert_whole(self, n: int) -> Stand:
        """The result has each item once, exactly, and it is told so; another command finds nothing to do."""
        self.run("wait", "t")
        assert self.steps("t") == ["-- t:split", "-- t:merge"]
        assert_complete(self, n)
        told = self.status("t")
        assert (told["n_items"], told["n_done"], told["complete"], told["merged"]) == (n, n, True, True)
        assert told["damaged_parts"] == []
        now = self.stand()
        assert now.on_record == set(range(n))
        return now

    def assert_mended(self, before: Stand, n: int) -> None:
        """The same command completes the task; what was on record is not computed again, all else once at most."""
        self.run("t")
        self.wait_over()
        again = self.assert_whole(n).starts - before.starts
        assert not before.on_record & set(again), f"on record, and computed again: {before.on_record & set(again)}"
        assert not again or max(again.values()) == 1, f"computed twice by one command: {again}"


@contextmanager
def jobs_of_others(slurm: SlurmCluster) -> Iterator[dict[str, str]]:
    """Have jobs of the same user run and wait that nobody may touch; give the state of each.

    One has the name that ours have, one a comment like ours. They leave two nodes free.
    """

    def submit(*words: str) -> str:
        return slurm.run("sbatch", "--parsable", "-o", "/dev/null", *words, "--wrap", "exec sleep 3000").strip()

    jobs = [
        submit("-w", "n1", "-J", "psy-t"),
        submit("-w", "n1", "--comment", "psy:0123456789abcdef-0"),
        submit("--hold", "--array=0", "-J", "psy-t"),
    ]
    try:
        until(lambda: states_of(slurm, jobs) == [RUNS, RUNS, WAITS], 120)
        yield dict(zip(jobs, states_of(slurm, jobs), strict=True))
    finally:
        slurm.run("scancel", *jobs)
        until(lambda: not set(states_of(slurm, jobs)) & set(ALIVE))


def states_of(slurm: SlurmCluster, jobs: Iterable[str]) -> list[str]:
    """Return the state of each job, whatever element of it is there; '' if there is none."""
    found = {re.sub(r"_.*", "", job): state for job, state, _, _ in slurm.squeue()}
    return [found.get(job, "") for job in jobs]
