"""Writes that fail."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from psyrun.store import Store
from psyrun.streams import Column

FAULTS = ["write", "fsync", "replace"]
"""Where a write can fail: when half of it is on the disk, when that is synced, when it takes the old file's place."""


@contextmanager
def interrupted(store: Store, where: str, error: type[BaseException]) -> Iterator[None]:
    """Have all writes of a store fail.

    Parameters
    ----------
    store : Store
    where : str
        One of `FAULTS`.
    error : type of exceptions
        What is raised there. It says that no space is left.
    """
    write = type(store)._write

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error(errno.ENOSPC, "No space left on device")

    def half(self: Store, path: Path, data: Mapping[str, Column]) -> None:
        write(self, path, data)
        os.truncate(path, path.stat().st_size // 2)
        refuse()

    with pytest.MonkeyPatch.context() as patched:
        if where == "write":
            patched.setattr(type(store), "_write", half)
        elif where == "fsync":
            patched.setattr(os, "fsync", refuse)
        else:
            patched.setattr(Path, "replace", refuse)
        yield


@contextmanager
def file_size_limited(n_bytes: int) -> Iterator[None]:
    """Have the system refuse what would make a file larger, whatever library writes it, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
