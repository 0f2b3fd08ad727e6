"""psy-doit, whose processes of one generation wait at their birth until somebody watches one of them.

``python gated.py GENERATION FOLDER WORDS...``: generation 0 is the command, 1 the process that starts workers, 2 the
supervisor, 3 its children. The first to get there writes its pid to the folder; all wait for a file ``go`` there.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from pathlib import Path

COMMAND, STARTER, SUPERVISOR, CHILD = range(4)
_PATIENCE = 60.0


def _wait(folder: Path) -> None:
    """Let one process be watched; nobody goes on before that."""
    if (folder / "go").exists():
        return
    try:
        (folder / "chosen").touch(exist_ok=False)
    except FileExistsError:
        pass
    else:
        # Linux with Yama lets a process be traced by its ancestors only, unless it asks for it (PR_SET_PTRACER).
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))
        (folder / "pid.new").write_text(str(os.getpid()))
        (folder / "pid.new").rename(folder / "pid")
    deadline = time.monotonic() + _PATIENCE
    while not (folder / "go").exists():
        if time.monotonic() > deadline:
            os._exit(99)
        time.sleep(0.002)


def main() -> None:
    """Run psy-doit."""
    wanted, folder = int(sys.argv[1]), Path(sys.argv[2])
    sys.argv[1:3] = []
    generation = 0

    def born() -> None:
        nonlocal generation
        generation += 1
        if generation == wanted:
            _wait(folder)

    import psyrun.cli
    import psyrun.commands.run

    os.register_at_fork(after_in_child=born)
    if wanted == COMMAND:
        _wait(folder)
    psyrun.cli.main()


if __name__ == "__main__":
    main()
