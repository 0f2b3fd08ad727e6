"""What items print: one file a worker."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from psyrun.units import shown_bytes

_MOST = 64_000_000


class Logbook:
    """The file that the output of user code goes to. It is begun again when it is too large: results need the disk.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path):
        self.path = path
        self._next = 0.0

    def redirect(self) -> None:
        """Send the output of this process there."""
        log = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)

    def trim(self) -> None:
        """Drop the output of items when there is too much of it; looks once a second."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + 1.0
        with suppress(OSError):
            size = self.path.stat().st_size
            if size > _MOST:
                # All write to its end, wherever that is.
                with self.path.open("ab") as log:
                    log.truncate(0)
                    log.write(f"(psyrun: {shown_bytes(size)} of output were dropped here)\n".encode())

    def note(self, line: str) -> None:
        """Add a line of psyrun's own."""
        with suppress(OSError), self.path.open("a") as log:
            log.write(f"(psyrun: {line})\n")

    def close(self) -> None:
        """Remove the file if nothing was printed."""
        with suppress(OSError):
            if not self.path.stat().st_size:
                self.path.unlink()
