"""A run that strace stops, or whose system calls it lets fail, at one call of one of its processes."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gated
from project import Project

CALLS = ["openat", "write", "writev", "pwrite64", "pwritev", "ftruncate", "fallocate", "fsync", "fdatasync", "chmod"]
CALLS += ["rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "mkdir", "mkdirat", "rmdir"]
CALLS += ["unlink", "unlinkat", "fchmod", "fchmodat"]
"""What changes files."""

ROLES = {
    "command": gated.COMMAND,
    "starter": gated.STARTER,
    "supervisor": gated.SUPERVISOR,
    "child": gated.CHILD,
}
_MARK = "PSYRUN_TEST_RUN"
_SECONDS = 60


@dataclass(frozen=True)
class Point:
    """One system call of one process: the how-manieth of its kind since the process began."""

    role: str
    call: str
    number: int
    refused: bool = False
    """Whether it changed nothing even in a run that nothing happens to, as where a directory is there already."""

    def __str__(self) -> str:
        return f"{self.role} {self.call} {self.number}"


@dataclass
class End:
    """How a watched run ended.

    Attributes
    ----------
    status : int
        Exit status of the command; -9 if it was killed.
    told : str
        What it said.
    calls : list of str
        System calls of the watched process, as strace shows them.
    hit : str
        The call that was stopped or failed, or the last before that; '' if the process did not come that far.
    """

    status: int
    told: str
    calls: list[str]
    hit: str


def watched(
    project: Project,
    role: str,
    at: Point | None = None,
    fault: str = "",
    more: str = "",
    family: bool = False,
    words: Sequence[str] = ("t",),
) -> End:
    """Run ``psy-doit`` until no process of it is left, with one of its processes watched by strace.

    Parameters
    ----------
    project : Project
    role : str
        Which process, see `ROLES`.
    at : Point, optional
        Where the fault comes.
    fault : str
        In strace's words: ``signal=KILL`` or ``error=ENOSPC``.
    more : str
        What follows the number in strace's ``when=``: ``+`` for all later calls, too.
    family : bool
        Whether all processes that it forks are watched, too, each with a count of its own.
    words : sequence of str
        Of the command line.
    """
    assert shutil.which("strace"), "strace is not installed. Type: apt-get install strace"
    folder = project.path / "gate"
    folder.mkdir()
    mark = secrets.token_hex(8)
    with (project.path / "told").open("w") as told:
        command = subprocess.Popen(
            [sys.executable, str(Path(gated.__file__)), str(ROLES[role]), str(folder), *words],
            cwd=project.path,
            env=project.environment(**{_MARK: mark}),
            stdout=told,
            stderr=told,
            stdin=subprocess.DEVNULL,
        )
    try:
        pid = _pid(folder, command)
        traced = ["-e", "trace=" + ",".join(f"?{call}" for call in CALLS)]
        inject = ["-e", f"inject={at.call}:{fault}:when={at.number}{more}"] if at else []
        log = project.path / "calls"
        strace_words = ["strace", *(["-f"] if family else []), "-y", "-s0", "-p", pid, "-o", str(log), *traced, *inject]
        with subprocess.Popen(strace_words, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr
            attached = strace.stderr.readline()
            assert "attached" in attached, attached
            (folder / "go").touch()
            status = command.wait(_SECONDS)
            _wait_until_none_is_left(mark)
    finally:
        command.kill()
        command.wait()
    lines = log.read_text(errors="replace").splitlines()
    calls = [line for line in lines if re.match(r"(\d+ +)?\w+\(", line)]
    struck = [line for line in calls if "(INJECTED)" in line]
    if lines[-1].startswith("+++ killed by SIGKILL"):
        struck = calls[-1:]
    shutil.rmtree(folder)
    return End(status, (project.path / "told").read_text(), calls, struck[0] if at and struck else "")


def _pid(folder: Path, command: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _SECONDS
    while not (folder / "pid").exists():
        assert command.poll() is None, f"the command ended with status {command.returncode}"
        assert time.monotonic() < deadline, "there is no process of this kind"
        time.sleep(0.005)
    return (folder / "pid").read_text()


def _wait_until_none_is_left(mark: str) -> None:
    """Return when no process of a run exists: all have the mark in their environment."""
    deadline = time.monotonic() + 20
    while left := _marked(mark):
        assert time.monotonic() < deadline, f"processes {left} outlived the command"
        time.sleep(0.01)


def _marked(mark: str) -> list[str]:
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if wanted in Path("/proc", pid, "environ").read_bytes().split(b"\0"):
                found.append(pid)
        except OSError:
            continue  # ended, or somebody else's
    return found


def points(project: Project, role: str, words: Sequence[str] = ("t",)) -> list[Point]:
    """Return the calls of a process about the work directory, in a run that nothing happens to.

    Of supervisors, which do not do the same in every run, all calls of these kinds; the process that starts workers
    knows no files, only pipes.
    """
    end = watched(project, role, words=words)
    assert end.status == 0, end.told
    counts: Counter[str] = Counter()
    found = []
    for line in end.calls:
        call = line.partition("(")[0]
        counts[call] += 1
        if (role == "starter" and call == "write") or ("psy-work" in line and (call != "openat" or "O_CREAT" in line)):
            found.append(Point(role, call, counts[call], ") = -1 " in line))
    if role != "supervisor":
        return found
    last = {point.call: point.number for point in found if point.call != "openat"}
    opened = [point for point in found if point.call == "openat"]
    return opened + [Point(role, call, number) for call, most in last.items() for number in range(1, most + 1)]
