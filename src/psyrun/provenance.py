"""Where results come from: versions, machine, command line and the state of the git checkout."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import psyrun
from psyrun.claims import this_host
from psyrun.shell import run_command


def provenance(directory: Path) -> dict[str, Any]:
    """Return what is to be known about a run later, as JSON has it."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "host": this_host(),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {"psyrun": psyrun.__version__, "numpy": np.__version__},
        "git": git_state(directory),
    }


def git_state(directory: Path) -> dict[str, Any] | None:
    """Return commit and whether tracked files were changed; None outside a checkout or without git."""
    if not any((parent / ".git").exists() for parent in (directory, *directory.parents)):
        return None
    commit = run_command(["git", "rev-parse", "HEAD"], cwd=directory)
    if commit.status:
        return None
    changed = run_command(["git", "status", "--porcelain", "--untracked-files=no"], cwd=directory)
    return {"commit": commit.output.strip(), "dirty": bool(changed.output.strip())}
