"""Disks, systems and programs that fail, for tests of what a user sees then."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from project import PSY_DOIT, Project

LOST_REPLIES = """
    import errno, pathlib
    def lossy(rename):
        def renamed(path, target):
            rename(path, target)
            raise OSError(errno.EIO, "Input/output error", str(path))
        return renamed
    pathlib.Path.rename, pathlib.Path.replace = lossy(pathlib.Path.rename), lossy(pathlib.Path.replace)
"""
"""Every rename happens, and is reported as failed, as NFS may do."""

LATE_LISTINGS = """
    import os, time
    listdir, seen = os.listdir, {{}}
    def late(path="."):
        names = listdir(path)
        old = seen.setdefault(os.fspath(path), {{}}) if isinstance(path, (str, os.PathLike)) else {{}}
        now = time.monotonic()
        shown = []
        for name in names:
            try:
                age = time.time() - os.lstat(os.path.join(path, name)).st_ctime
            except OSError:
                age = 0
            if age > {lag} or os.path.isdir(os.path.join(path, name)):
                shown.append(name)
                old[name] = now
        return shown + [name for name, last in old.items() if name not in names and now - last < {lag}]
    os.listdir = late
"""
"""Directories are listed as they were some time ago, as NFS clients do: new names are missing, removed ones shown."""


def run_with(project: Project, fault: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run psy-doit to its end, in a Python in which some lines ran before."""
    program = f"{textwrap.dedent(fault)}\nfrom psyrun.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=project.path,
        env=project.environment(**extra),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def at_time(offset: str, *words: str) -> list[str]:
    """Return the words of a command whose clock goes wrong by so much; times of files stay as the system has them.

    The monotonic clock is off, too, as that of another machine: with FAKETIME_DONT_FAKE_MONOTONIC no program can sleep.
    """
    assert shutil.which("faketime"), "faketime is not installed. Type: apt-get install faketime"
    # What the wrapper has the program preload; the wrapper itself would stand between it and signals.
    library = subprocess.check_output(["faketime", "-f", offset, "printenv", "LD_PRELOAD"], text=True).strip()
    return ["env", f"LD_PRELOAD={library}", f"FAKETIME={offset}", "NO_FAKE_STAT=1", PSY_DOIT, *words]


def rarely(*cases: object) -> list[object]:
    """Return cases that are tried only where slow tests are run."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.crash) for case in cases]


def until(happened: Callable[[], object], seconds: float = 30) -> None:
    """Return when something is true."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def system(*words: str) -> None:
    """Run a program of the system; these tests need to be root."""
    told = subprocess.run(words, capture_output=True, text=True)
    assert told.returncode == 0, f"{' '.join(words)}: {told.stderr}This test needs root, to mount a file system"


@contextmanager
def mounted(directory: Path, size: str) -> Iterator[Path]:
    """Have a file system of its own in a directory."""
    directory.mkdir(exist_ok=True)
    system("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory))
    try:
        yield directory
    finally:
        system("umount", "-l", str(directory))


def resize(directory: Path, size: str) -> None:
    """Make a mounted file system larger or smaller."""
    system("mount", "-o", f"remount,size={size}", str(directory))


def files_of(directory: Path) -> dict[str, bytes]:
    """Return the content of all files below a directory, by path."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
