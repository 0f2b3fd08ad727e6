"""The names of task files. Apart from `psyrun.tasks` so that listing them imports nothing heavy."""

from __future__ import annotations

import os
import re
from pathlib import Path

TASKDIR = "psy-tasks"
CONFIG = "psy-conf.py"
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""What the name of a task may be."""

_FILE = re.compile(rf"task_({NAME})\.py")


def task_names(taskdir: Path) -> list[str]:
    """Return the names of the tasks in a directory, sorted; none of the files is run."""
    try:
        files = os.listdir(taskdir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(match[1] for file in files if (match := _FILE.fullmatch(file)))


def task_path(name: str, taskdir: Path) -> Path:
    """Return where the file of a task is, or would be."""
    return taskdir / f"task_{name}.py"
