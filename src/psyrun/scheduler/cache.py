"""The last answer of a queue, shared by all commands of a user: a queue that is asked too often serves nobody."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from psyrun.files import replacing


class Cache:
    """One answer in a file of the user's cache directory; where there can be none, nothing is kept.

    Parameters
    ----------
    name : str
        What was asked.
    world : callable
        Gives what tells one queue from another, such as the file that configures it.
    """

    def __init__(self, name: str, world: Callable[[], str]):
        self._name = name
        self._world = world

    def read(self, max_age: float) -> tuple[str, float] | None:
        """Return an answer and its age in seconds, None if there is none so young.

        It was begun to be given after the last `forget`. The age is told by the clocks of file system and machine; an
        answer of the future is not trusted.
        """
        if max_age <= 0:
            return None
        try:
            with self._path().open(encoding="utf-8", errors="replace") as file:
                about = os.fstat(file.fileno())
                text = file.read()
            age = time.time() - about.st_mtime
            with suppress(FileNotFoundError):
                if about.st_mtime_ns <= self._path(".changed").stat().st_mtime_ns:
                    return None
        except (OSError, RuntimeError):
            return None
        ours = about.st_uid == os.geteuid() and not about.st_mode & 0o022
        return (text, age) if ours and 0 <= age <= max_age else None

    def keep(self, ask: Callable[[], str]) -> str:
        """Ask, keep the answer, and return it."""
        started = self._touched(".clock")
        text = ask()
        if started is not None:
            with suppress(OSError, RuntimeError), replacing(self._path()) as beside:
                beside.touch(mode=0o600)
                beside.write_text(text, encoding="utf-8", errors="replace")
                # What changed while it was asked may not be in the answer.
                os.utime(beside, ns=(started, started))
        return text

    def forget(self) -> None:
        """Have no answer that was asked for until now used again, also one that another command waits for."""
        self._touched(".changed")
        with suppress(OSError, RuntimeError):
            self._path().unlink(missing_ok=True)

    def _touched(self, ending: str) -> int | None:
        # All times are those of the file system, which may be another machine's.
        try:
            path = self._path(ending)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            return path.stat().st_mtime_ns
        except (OSError, RuntimeError):
            return None

    def _path(self, ending: str = "") -> Path:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not base.is_absolute():  # as the specification has it
            base = Path.home() / ".cache"
        key = sha256(self._world().encode(errors="surrogateescape")).hexdigest()[:16]
        return base / "psyrun" / f"{self._name}-{key}{ending}"
