"""What a file system can do, tried in a directory of its own that is removed again."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from psyrun.files import random_name, sync_directory, write_all
from psyrun.machine import ERROR, OK, WARNING, Finding
from psyrun.units import shown_bytes, shown_seconds

_LEAST_SPACE = 10**9
_LEAST_INODES = 10_000
_PROBE_BYTES = 2**17
_LONGEST_NAME = 64
_SLOW_SYNC = 1.0
_MOST_DELAY = 5.0
_LARGE_SKEW = 1.0

Probe = Callable[[Path], Finding]


@contextmanager
def workbench(place: Path) -> Iterator[Path]:
    """Give an empty directory in a place; it is removed in any case, also after Ctrl-C."""
    path = place / f".psyrun-doctor-{random_name()}"
    with _one_interruption() as no_more:
        try:
            try:
                path.mkdir(mode=0o700)
                yield path
            finally:
                no_more()
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _one_interruption() -> Iterator[Callable[[], None]]:
    """Have Ctrl-C raise KeyboardInterrupt once, and not at all after the function that is given was called."""
    heard = False

    def no_more() -> None:
        nonlocal heard
        heard = True

    def interrupted(*_: object) -> None:
        if not heard:
            no_more()
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None):
        yield no_more
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield no_more
    finally:
        signal.signal(signal.SIGINT, before)


def probe(place: Path, name: str = "") -> list[Finding]:
    """Return what the file system of a place can do.

    Parameters
    ----------
    place : Path
        A directory.
    name : str
        Of the task; the names of files contain it.
    """
    longest = max(_LONGEST_NAME, len(name) + _LONGEST_NAME // 2)
    try:
        with workbench(place) as bench:
            probes: list[tuple[str, Probe]] = [
                ("write and sync", _sync),
                ("exclusive create", _exclusive),
                ("rename a file", _rename),
                ("rename a directory", _rename_directory),
                ("listing", _listing),
                ("clock", _clock),
                ("names", lambda path: _names(path, longest)),
            ]
            return [Finding("write", OK, f"in {place}"), *(_tried(check, run, bench) for check, run in probes)]
    except OSError as error:
        told = f"{error.filename or place}: {error.strerror}. Nothing can be recorded there"
        return [Finding("write", ERROR, told, "mend it, or set another workdir in the task file")]


def _tried(check: str, run: Probe, bench: Path) -> Finding:
    path = bench / check.replace(" ", "-")
    try:
        path.mkdir()
        return run(path)
    except OSError as error:
        remedy = "make room, or set another workdir in the task file"
        return Finding(check, ERROR, f"{error.strerror or error}. Nothing can be recorded there", remedy)


def _sync(path: Path) -> Finding:
    file = path / "file"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(descriptor, bytes(_PROBE_BYTES))
        begin = time.monotonic()
        os.fsync(descriptor)
        sync_directory(path)
        seconds = time.monotonic() - begin
    finally:
        os.close(descriptor)
        file.unlink()
    told = f"a file and its directory in {shown_seconds(float(f'{seconds:.2g}'))}"
    if seconds > _SLOW_SYNC:
        slow = "each end of a chunk waits for that"
        return Finding("write and sync", WARNING, f"{told}; {slow}", "fewer chunks: max_jobs, min_items")
    return Finding("write and sync", OK, told)


def _exclusive(path: Path) -> Finding:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(os.open(path / "file", flags, 0o600))
    try:
        os.close(os.open(path / "file", flags, 0o600))
    except FileExistsError:
        return Finding("exclusive create", OK, "only one process can make a file")
    return _unfit("exclusive create", "a file that is there can be made again, so two could write one part")


def _rename(path: Path) -> Finding:
    old, new = path / "old", path / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    new.rename(old)
    if old.read_bytes() != b"new" or new.exists():
        return _unfit("rename a file", "a renamed file does not take the place of another")
    try:
        new.rename(old)
    except FileNotFoundError:
        return Finding("rename a file", OK, "takes the place of another, and can be done only once")
    return _unfit("rename a file", "a file can be renamed twice, so two workers could hold one chunk")


def _rename_directory(path: Path) -> Finding:
    for name in ("first", "second"):
        (path / name).mkdir()
        (path / name / name).touch()
    with suppress(OSError):
        (path / "second").rename(path / "first")
        return _unfit("rename a directory", "it takes the place of one that is not empty, so plans could be lost")
    (path / "second").rename(path / "third")
    if not (path / "third" / "second").exists():
        return _unfit("rename a directory", "it does not arrive whole")
    return Finding("rename a directory", OK, "whole, and never onto one that is not empty")


def _unfit(check: str, told: str) -> Finding:
    return Finding(check, ERROR, told, "set a workdir on another file system in the task file")


def _listing(path: Path) -> Finding:
    os.listdir(path)
    (path / "new").touch()
    begin = time.monotonic()
    while "new" not in os.listdir(path):
        if time.monotonic() - begin > _MOST_DELAY:
            told = f"a new file was not listed within {shown_seconds(_MOST_DELAY)}, not even on this machine"
            return _unfit("listing", told)
        time.sleep(0.01)
    delay = time.monotonic() - begin
    if delay > 0.01:
        told = f"a new file is listed after {shown_seconds(float(f'{delay:.2g}'))}; workers find work as late"
        return Finding("listing", WARNING, told)
    return Finding("listing", OK, "a new file is seen at once on this machine; on others this cannot be told from here")


def _clock(path: Path) -> Finding:
    before = time.time()
    (path / "file").touch()
    made = (path / "file").stat().st_mtime
    after = time.time()
    skew = made - after if made > after else min(0.0, made - before)
    if abs(skew) > _LARGE_SKEW:
        way = "ahead of" if skew > 0 else "behind"
        told = f"that of the file system is {shown_seconds(float(f'{abs(skew):.2g}'))} {way} this machine's"
        meaning = "psyrun compares no clocks, but times that are shown differ"
        return Finding("clock", WARNING, f"{told}; {meaning}", "have both machines follow NTP")
    return Finding("clock", OK, "that of the file system is this machine's")


def _names(path: Path, longest: int) -> Finding:
    (path / ("n" * longest)).touch()
    return Finding("names", OK, f"of {longest} letters; the most is {os.pathconf(path, 'PC_NAME_MAX')}")


def room(place: Path) -> list[Finding]:
    """Return what is free where a directory is."""
    found = os.statvfs(place)
    space = found.f_bavail * found.f_frsize
    remedy = "make room, or set another workdir in the task file"
    findings = [Finding("free space", OK, shown_bytes(space))]
    if space < _LEAST_SPACE:
        told = f"{shown_bytes(space)}, less than {shown_bytes(_LEAST_SPACE)}; when the disk is full a run stops"
        findings = [Finding("free space", WARNING, told, remedy)]
    if not found.f_files:  # some file systems make them as they are needed
        return [*findings, Finding("free inodes", OK, "no limit is told")]
    n = found.f_favail
    if n < _LEAST_INODES:
        told = f"{n:,}, less than {_LEAST_INODES:,}; when there are none left a run stops"
        return [*findings, Finding("free inodes", WARNING, told, remedy)]
    return [*findings, Finding("free inodes", OK, f"{n:,}")]
