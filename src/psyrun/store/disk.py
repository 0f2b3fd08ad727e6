"""A new file for HDF5 to write through Python: of errors of the disk, HDF5 and h5py do not tell all.

What they meet when objects are closed is printed at most, and a file with a hole in it would take the old one's place.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a new file that can be read and written.

    Raises
    ------
    OSError
        In the end, what the disk refused at any time, whatever became of it until then.
    """
    disk = _Disk(path)
    try:
        with disk, io.BufferedRandom(disk) as file:
            yield file
    finally:
        if disk.error is not None:
            raise disk.error


class _Disk(io.FileIO):
    """A file that remembers its first error."""

    def __init__(self, path: Path):
        super().__init__(path, "x+")
        self.error: OSError | None = None

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error
            raise

    def write(self, data: Any, /) -> int:
        with self._remembered():
            return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        with self._remembered():
            return super().truncate(size)

    def close(self) -> None:
        with self._remembered():
            super().close()
