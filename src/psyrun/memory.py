"""Telling that a process was killed because its job was out of memory."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

OUT_OF_MEMORY = "OutOfMemory"
"""What the failure of an item is called whose process was killed for want of memory."""

_NEARLY = 0.8


class MemoryLimit:
    """What the processes of a job may use together, and whether one was killed for it.

    The kernel counts such kills of a control group; where there is none, the process's peak tells.

    Parameters
    ----------
    limit : float, optional
        Bytes; None if none is known.
    n_children : int
        How many processes share it.
    """

    def __init__(self, limit: float | None, n_children: int):
        self._limit = limit
        self._share = (limit or 0.0) / max(1, n_children)
        self._kills = oom_kills()

    def told(self, peak: float, status: int) -> str:
        """Return in words that a process was out of memory; '' if nothing says so.

        Parameters
        ----------
        peak : float
            The most bytes that the process used.
        status : int
            Its wait status.
        """
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            return ""
        kills, self._kills = self._kills, oom_kills()
        near = self._limit is not None and peak >= _NEARLY * self._share
        if not near and self._kills <= kills:
            return ""
        of = f" of the {_shown(self._limit)} that the job may use (memory)" if self._limit is not None else ""
        return f"was killed: out of memory; its process used {_shown(peak)}{of}"


def _shown(n: float) -> str:
    """Return bytes in the unit in which memory is asked for."""
    return f"{n / 2**20:.0f}M"


def oom_kills(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how often the kernel killed a process of this one's control group for want of memory; 0 if unknown."""
    with suppress(OSError):
        for line in proc.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                files = [root / path.lstrip("/") / "memory.events"]
            elif "memory" in controllers.split(","):
                files = [root / "memory" / path.lstrip("/") / "memory.oom_control"]
            else:
                continue
            for file in files:
                with suppress(OSError):
                    match = re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE)
                    if match:
                        return int(match[1])
    return 0
