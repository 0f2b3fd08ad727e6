"""When what parts hold is safe from a power cut."""

from __future__ import annotations

import os
import time
from collections.abc import Collection

_SYNC_SECONDS = 5.0


class Durability:
    """Which of a worker's parts have rows that a power cut could take, by their descriptors."""

    def __init__(self) -> None:
        self._unsafe: set[int] = set()
        self._next = 0.0

    def written(self, part: int) -> None:
        """Note that rows go to a part from now on."""
        self._unsafe.add(part)

    def sync(self, parts: Collection[int], busy: Collection[int]) -> None:
        """Make the rows of parts safe; to those that are busy more will be written."""
        for part in set(parts) & self._unsafe:
            os.fsync(part)
        self._unsafe -= set(parts) - set(busy)

    def sync_in_time(self) -> None:
        """Make all rows safe, every few seconds."""
        if time.monotonic() >= self._next:
            for part in self._unsafe:
                os.fsync(part)
            self._next = time.monotonic() + _SYNC_SECONDS

    def close(self, part: int) -> None:
        """Make the rows of a part safe to which no more is written."""
        self.sync({part}, ())
