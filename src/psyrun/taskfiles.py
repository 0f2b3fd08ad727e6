"""The names of task files and commands. Apart from `psyrun.tasks` so that listing them imports nothing heavy."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TASKDIR = "psy-tasks"
CONFIG = "psy-conf.py"
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""What the name of a task may be."""
SCHEMA_VERSION = 1
"""Of what commands print as JSON."""

# One line each for `psy-doit --help`, so that it imports none of the modules.
COMMANDS = {
    "list": "Print the names of the tasks.",
    "test": "Run one item of a task here and now, and print its result.",
    "run": "Run tasks: only items that are missing. `psy-doit NAME` is short for it.",
    "plan": "Print what a run would compute, and what that would cost.",
    "advise": "Say what to ask a queue for, from what was measured.",
    "status": "Print how many items are done, failed, running and missing.",
    "watch": "Show how tasks go on, until nobody is at work on them.",
    "wait": "Return when nobody is at work on tasks any more.",
    "work": "Work on a run under way, with this machine too.",
    "grow": "Add workers to a run under way.",
    "drain": "Have the workers of tasks finish what they have in hand, and leave.",
    "pause": "Have the workers of tasks begin nothing more for a while.",
    "resume": "Have the workers of paused tasks go on.",
    "kill": "Cancel the jobs of tasks, and no others.",
    "logs": "Print what the items of a task printed.",
    "merge": "Write the finished items of a work directory into one file.",
    "adopt": "Take finished rows from a file, so that they are not computed again.",
    "doctor": "Tell what this machine and the work directory can do.",
    "new": "Write the task file of a new task.",
    "clean": "Remove the work directory of a task, with all its results.",
}

_FILE = re.compile(rf"task_({NAME})\.py")


def task_names(taskdir: Path) -> list[str]:
    """Return the names of the tasks in a directory, sorted; none of the files is run."""
    try:
        files = os.listdir(taskdir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(match[1] for file in files if (match := _FILE.fullmatch(file)) and (taskdir / file).is_file())


def task_path(name: str, taskdir: Path) -> Path:
    """Return where the file of a task is, or would be."""
    return taskdir / f"task_{name}.py"
