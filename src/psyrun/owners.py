"""Whether a file or directory may be trusted: only its owner and the system's administrator could have written it."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

WAIVER = "PSYRUN_TRUST"
"""Set to 1 it says that files are trusted whoever owns them: where owners and modes mean nothing."""

OTHERS = stat.S_IWOTH
GROUP_AND_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def mistrust(path: Path, writers: int) -> str:
    """Return why a path is not to be trusted, '' if it is.

    Parameters
    ----------
    path : Path
        Of a file or directory, which exists.
    writers : int
        Mode bits that must not be set.
    """
    found = path.stat()
    if os.environ.get(WAIVER) == "1":
        return ""
    if found.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if found.st_mode & writers:
        return "can be written by other users"
    return ""


def remedy(path: Path, whole: Path | None = None) -> str:
    """Return what to type to have a path trusted, or the whole directory that it is in."""
    found = path.stat()
    target = whole or path
    words = ["-R", str(target)] if target.is_dir() else [str(target)]
    steps = []
    if found.st_uid not in (os.geteuid(), 0):
        steps.append(shlex.join(["chown", str(os.geteuid()), *words]))
    if found.st_mode & GROUP_AND_OTHERS:
        steps.append(shlex.join(["chmod", "go-w", *words]))
    if os.geteuid() == 0 and found.st_uid != 0:  # an administrator should not take files from their owner
        return f"If you trust it, as in a container: {WAIVER}=1 in the environment, or {' && '.join(steps)}"
    return (
        f"If you trust it: {' && '.join(steps)} (or {WAIVER}=1 in the environment, where owners and modes mean nothing)"
    )
