"""Writing files so that a reader, or a crash, meets the old one or the new one and nothing between."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def random_name(n_bytes: int = 8) -> str:
    """Return random bytes of the system as hexadecimal digits, two a byte."""
    return os.urandom(n_bytes).hex()


@contextmanager
def naming(path: Path, beside: Path | None = None) -> Iterator[None]:
    """Have an OSError tell the file that it is about: that of a write or a sync does not, others tell that beside."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, beside, str(beside)):
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


def renamed(source: Path, target: Path) -> None:
    """Rename a file or directory, also where an error is reported for a rename that happened: NFS loses replies.

    Raises
    ------
    OSError
        It did not happen.
    """
    before = source.lstat()
    try:
        source.replace(target)
    except OSError:
        # The server keeps the inode of what it renames; if the target has it, and the source is gone, it is done.
        if os.path.lexists(source) or not _is_same(target, before):
            raise


def _is_same(path: Path, stat: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), stat)
    except OSError:
        return False


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
        with naming(path, beside):
            yield beside
            sync_file(beside)
            renamed(beside, path)
            sync_directory(path.parent)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Write a new file in a directory that is synced and put in place later, and sync its content."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with naming(path):
            write_all(descriptor, data)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_checksum(content: Mapping[str, Any]) -> int:
    """Return the CRC-32 of content as JSON with its keys sorted."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def file_checksum(path: Path) -> int:
    """Return the CRC-32 of a file's content."""
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(2**20):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def as_json(content: Any) -> bytes:
    """Return content as the text of a file."""
    return (json.dumps(content, indent=1) + "\n").encode()


def write_json(path: Path, content: Any) -> None:
    """Put a small JSON file in place, whole; whatever the umask, nobody else may write it."""
    with replacing(path) as beside:
        beside.touch(mode=0o600)
        beside.write_bytes(as_json(content))
