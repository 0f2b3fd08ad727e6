"""``python -m psyrun.jobprobe DIRECTORY``: the job that `psy-doit doctor` gives to a queue; it reports what it finds.

Of psyrun and other packages it imports as little as it can, for it has to tell what is wrong with them.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

REPORT, ANSWER, END = "report.json", "answer.json", "end.json"
"""What the job writes first; what the command answers to that; what the job writes last."""
PAUSE = 0.05
"""Seconds between two looks into the directory, on either side."""
_MOST_WAIT = 60.0
_MOST_WAIT_FOR_SIGNAL = 10.0


def main(directory: Path) -> int:
    """Report, wait for an answer and for the warning that it may tell of, and report again; return the exit status."""
    from psyrun.files import write_json

    heard: list[int] = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, lambda number, _: heard.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    handles = wait_until(lambda: heard, 1.0) == [signal.SIGUSR1]
    heard.clear()
    write_json(directory / REPORT, about() | {"handles_signals": handles, "written": time.time()})
    wait_until(lambda: read(directory, ANSWER) or signal.SIGTERM in heard, _MOST_WAIT)
    answer, seen, began = read(directory, ANSWER), time.time(), time.monotonic()
    if answer is None:
        return 75
    warned = answer["warned"] and bool(wait_until(lambda: signal.SIGUSR1 in heard, _MOST_WAIT_FOR_SIGNAL))
    waited = time.monotonic() - began
    write_json(directory / END, {"seen": seen, "warned": warned, "waited": waited, "written": time.time()})
    return 0


def about() -> dict[str, Any]:
    """Return what there is to say of this process and its machine."""
    import psyrun

    return {
        "job": os.environ.get("PSYRUN_JOB", ""),
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "parent": _name_of(os.getppid()),
        "executable": sys.executable,
        "cores": cores(),
        "versions": {"Python": platform.python_version(), "psyrun": psyrun.__version__, "numpy": numpy_version()},
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def numpy_version() -> str:
    """Return the version of NumPy, or why it cannot be imported."""
    try:
        import numpy as np
    except Exception as error:
        return f"cannot be imported: {error}".splitlines()[0]
    return np.__version__


def _name_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def read(directory: Path, name: str) -> dict[str, Any] | None:
    """Return the content of a file, once it is listed: so do workers find what is new."""
    with suppress(OSError):
        if name in os.listdir(directory):
            content: dict[str, Any] = json.loads((directory / name).read_text())
            return content
    return None


def wait_until(look: Callable[[], Any], seconds: float) -> Any:
    """Return what is seen as soon as it is something, or what is seen in the end."""
    end = time.monotonic() + seconds
    while not (seen := look()) and time.monotonic() < end:
        time.sleep(PAUSE)
    return seen


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
