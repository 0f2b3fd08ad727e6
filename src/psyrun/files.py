"""Writing files so that a reader, or a crash, meets the old one or the new one and nothing between."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def random_name(n_bytes: int = 8) -> str:
    """Return random bytes of the system as hexadecimal digits, two a byte."""
    return os.urandom(n_bytes).hex()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError name a file: writes and syncs tell of none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; a rename is only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with naming(path):
            os.fsync(descriptor)
    except OSError as error:
        # Some network and user-space file systems know no fsync of a directory; there is nothing more to do there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all bytes; the system may take fewer at a time, as on a full disk before it says so."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.EIO, "nothing was written")
        view = view[written:]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path beside the target; on success it is synced and takes the target's place, else it is removed.

    Raises
    ------
    OSError
        What the system refused, with the target as its file where it named none: writes and syncs tell of no file.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{random_name()}.tmp")
    try:
        with naming(path):
            yield beside
            sync_file(beside)
            beside.replace(path)
        sync_directory(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Write a new file in a directory that is synced and put in place later, and sync its content."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with naming(path):
            write_all(descriptor, data)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def as_json(content: Any) -> bytes:
    """Return content as the text of a file."""
    return (json.dumps(content, indent=1) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Put a small JSON file in place, whole."""
    with replacing(path) as beside:
        beside.write_bytes(as_json(content))
