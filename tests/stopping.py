"""A process that writes a file and is stopped at one of its system calls, by strace."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from psyrun.errors import StoreError
from psyrun.store import Store

CALLS = ["openat", "write", "writev", "pwrite64", "pwritev", "ftruncate", "fallocate", "fsync", "fdatasync", "close"]
CALLS += ["rename", "renameat", "renameat2", "link", "linkat"]
"""What a write is made of."""
SECONDS = 30
"""Who takes longer hangs."""

# A child is forked from a process that has imported all this, and begins at once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["psyrun.store", "numpy.ma", "zipfile", "h5py", "tables"])


@dataclass
class Point:
    """One system call of a process: the how-manieth of its kind."""

    call: str
    number: int


@dataclass
class End:
    """How a write ended.

    Attributes
    ----------
    status : int
        Exit status of the process; -9 if it was killed by signal 9.
    error : str
        What the store raised, if it did.
    foreseen : bool
        Whether that is an OSError or a StoreError.
    calls : list of str
        The process's system calls as strace shows them, with the files that they are about.
    """

    status: int | None
    error: str
    foreseen: bool
    calls: list[str]

    def points(self, folder: Path) -> list[Point]:
        """Return which of the calls were about files in a directory, or the directory."""
        counts: Counter[str] = Counter()
        points = []
        for line in self.calls:
            call = line.partition("(")[0]
            counts[call] += 1
            if str(folder) in line:
                points.append(Point(call, counts[call]))
        return points


def write(store: Store, how: str, path: Path, data: Mapping[str, Any], at: Point | None = None, fault: str = "") -> End:
    """Call a store in a process of its own, watched by strace.

    Parameters
    ----------
    store : Store
    how : str
        A method: save or append.
    path : Path
        Of the file.
    data : dict
        The columns.
    at : Point, optional
        Where the process is stopped.
    fault : str
        How, in strace's words: ``error=ENOSPC`` or ``signal=KILL``.
    """
    assert shutil.which("strace"), "strace is not installed. Type: apt-get install strace"
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=_write, args=(theirs, store, how, path, data))
    process.start()
    theirs.close()
    assert ours.recv() == "ready"
    assert process.pid is not None
    with _watched(process.pid, [f"inject={at.call}:{fault}:when={at.number}"] if at else []) as calls:
        ours.send("go")
        process.join(SECONDS)
        process.kill()
        process.join()
    error, foreseen = ours.recv() if process.exitcode == 0 else ("", False)
    return End(process.exitcode, error, foreseen, calls)


def _write(talk: Connection, store: Store, how: str, path: Path, data: Mapping[str, Any]) -> None:
    libc = ctypes.CDLL(None)
    # Linux with Yama lets a process be traced by its ancestors only, unless it asks for it (prctl(2): PR_SET_PTRACER).
    libc.prctl(0x59616D61, ctypes.c_ulong(-1))
    talk.send("ready")
    talk.recv()
    told = "", False
    try:
        getattr(store, how)(path, data)
    except Exception as error:
        told = f"{type(error).__name__}: {error}", isinstance(error, (OSError, StoreError))
    gc.collect()
    talk.send(told)
    # As a program ends, and not as processes of this kind do: libraries such as HDF5 close what is still open.
    libc.exit(0)


@contextmanager
def _watched(pid: int, injections: list[str]) -> Iterator[list[str]]:
    """Watch a process while it writes; afterwards the list has its system calls."""
    traced = "trace=" + ",".join(f"?{call}" for call in CALLS)
    options = [part for expression in [traced, *injections] for part in ("-e", expression)]
    calls: list[str] = []
    with NamedTemporaryFile("r", errors="replace") as log:
        command = ["strace", "-f", "-y", "-p", str(pid), "-o", log.name, *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr
            attached = strace.stderr.readline()
            assert "attached" in attached, attached
            yield calls
        calls += re.findall(r"^\d+ +(\w+\(.*)$", log.read(), re.MULTILINE)
