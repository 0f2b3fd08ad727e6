"""Writes that end at any system call: the old file stays, or the new one is there, whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stopping
import toy_stores
from psyrun.errors import StoreError
from psyrun.store import H5Store, NpzStore, PickleStore, Store, TableStore

pytestmark = pytest.mark.crash

STORES: list[Store] = [NpzStore(), H5Store(), PickleStore(), TableStore()]
OLD: dict[str, Any] = {"x": list(range(2000)), "name": ["a", "b"] * 1000}
NEW: dict[str, Any] = {"x": [0.5, None] * 500, "name": ["abc"] * 1000}
LARGE: dict[str, Any] = {"x": np.arange(100_000), "name": ["abc"] * 100_000}


def content(store: Store, path: Path) -> dict[str, str]:
    """Return what is in a file, as text: all of it, NaN and dtypes included."""
    loaded = store.load(path, keys=True)
    return {name: f"{column.dtype} {column.tolist()}" for name, column in loaded.items()}


class Case:
    """A file that is to be replaced, in a directory of its own, and what it may hold afterwards."""

    def __init__(self, folder: Path, store: Store, how: str):
        self.path = folder / "results" / f"result{store.ext}"
        self.path.parent.mkdir()
        self.store, self.how = store, how
        store.save(self.path, OLD)
        self._saved = folder / "saved"
        shutil.copy(self.path, self._saved)
        self.old = content(store, self.path)
        self.points = stopping.write(store, how, self.path, NEW).points(self.path.parent)
        self.new = content(store, self.path)

    def all_wrong(self, fault: str) -> dict[str, str]:
        """Stop a write at each of its calls; return what is wrong then, by the calls where anything is."""
        wrong = {f"{point.call} {point.number}": self._wrong(point, fault) for point in self.points}
        return {call: what for call, what in wrong.items() if what}

    def _wrong(self, at: stopping.Point, fault: str) -> str:
        shutil.copy(self._saved, self.path)
        before = self.path.stat().st_ino
        end = stopping.write(self.store, self.how, self.path, NEW, at, fault)
        replaced = self.path.stat().st_ino != before
        try:
            found = content(self.store, self.path)
        except StoreError as error:
            return f"the file cannot be read: {error}"
        if found != (self.new if replaced else self.old):
            return f"{'another' if replaced else 'the same'} file has other content; {end.status}, {end.error!r}"
        return self._wrong_kill(end) if fault == "signal=KILL" else self._wrong_error(end, replaced)

    def _wrong_kill(self, end: stopping.End) -> str:
        if end.status != -signal.SIGKILL or str(self.path.parent) not in end.calls[-1]:
            return f"it was not killed there, but ended with {end.status}"
        return ""

    def _wrong_error(self, end: stopping.End, replaced: bool) -> str:
        if end.status != 0:
            return f"the process ended with {end.status}"
        if not any("INJECTED" in call and str(self.path.parent) in call for call in end.calls):
            return "it was not stopped there"
        # Some libraries try again, and then it works.
        if not end.error and not replaced:
            return "no error was raised"
        if end.error and not end.foreseen:
            return f"an error that nobody expects: {end.error}"
        beside = set(os.listdir(self.path.parent)) - {self.path.name}
        if beside:
            return f"left behind: {beside}"
        named = not end.error or str(self.path.parent) in end.error
        return "" if named else f"an error that names no file: {end.error}"


@pytest.mark.parametrize("fault", ["error=ENOSPC", "error=EIO", "signal=KILL"])
@pytest.mark.parametrize("how", ["save", "append"])
@pytest.mark.parametrize("store", STORES, ids=repr)
def test_a_write_that_is_stopped_leaves_the_old_file_or_the_new(
    tmp_path: Path, store: Store, how: str, fault: str
) -> None:
    """At each of its system calls. An error that names the file is raised, and nothing left beside."""
    case = Case(tmp_path, store, how)
    calls = Counter(point.call for point in case.points)
    assert calls["write"] + calls["pwrite64"] >= 1
    assert calls["fsync"] == 2
    assert calls["rename"] + calls["renameat2"] == 1
    assert case.all_wrong(fault) == {}


@pytest.mark.parametrize(
    ("store", "fault", "call", "what"),
    [
        (toy_stores.WritesInPlace(), "error=ENOSPC", "write 1", "cannot be read"),
        (toy_stores.WritesInPlace(), "signal=KILL", "close 1", "the same file has other content"),
        (toy_stores.LeavesFilesBehind(), "error=EIO", "fsync 1", "left behind"),
        (toy_stores.HidesErrors(), "error=EIO", "fsync 1", "no error was raised"),
        (toy_stores.RaisesAnything(), "error=ENOSPC", "write 1", "RuntimeError"),
    ],
)
def test_a_mistake_is_found(tmp_path: Path, store: Store, fault: str, call: str, what: str) -> None:
    """At the call that shows it."""
    assert what in Case(tmp_path, store, "save").all_wrong(fault)[call]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    told = subprocess.run(mount, capture_output=True, text=True)
    assert told.returncode == 0, f"{told.stderr}This test needs a file system of its own, and root to mount it"
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("how", ["save", "append"])
@pytest.mark.parametrize("store", STORES, ids=repr)
def test_a_full_disk_leaves_the_old_file(small_disk: Path, store: Store, how: str) -> None:
    """The error says what is wrong, and nothing takes up space then: what is small enough can be written."""
    path = small_disk / f"result{store.ext}"
    store.save(path, OLD)
    before = content(store, path)
    end = stopping.write(store, how, path, LARGE)
    assert (end.status, end.foreseen) == (0, True)
    assert f"No space left on device: {str(path)!r}" in end.error
    assert content(store, path) == before
    assert list(small_disk.iterdir()) == [path]
    store.append(path, NEW)
    assert store.load(path)["name"].tolist() == [*OLD["name"], *NEW["name"]]


def test_without_strace_one_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are not skipped."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssertionError, match="apt-get install strace"):
        stopping.write(NpzStore(), "save", tmp_path / "result.npz", OLD)
