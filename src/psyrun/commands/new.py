"""``psy-doit new``."""

from __future__ import annotations

import re
from pathlib import Path

import click

from psyrun.errors import RefusedError, TaskError
from psyrun.options import template
from psyrun.taskfiles import COMMANDS, NAME, task_path


@click.command("new")
@click.argument("name")
@click.pass_obj
def command(taskdir: Path, name: str) -> None:
    """Write psy-tasks/task_NAME.py, with an example and all options."""
    if not re.fullmatch(NAME, name):
        raise TaskError(f"{name!r} cannot be the name of a task: letters, digits and _ . - only, the first no sign")
    if name in COMMANDS:
        raise TaskError(f"{name!r} is a command of psy-doit. Take another name")
    if name.startswith("task_") or name.endswith(".py"):
        raise TaskError(f"give the bare name: psy-doit new {name.removeprefix('task_').removesuffix('.py')}")
    path = task_path(name, taskdir)
    taskdir.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(template(name))
    except FileExistsError:
        raise RefusedError(f"{path} is there already. Take another name, or edit it") from None
    click.echo(f"{path}: edit it, then try one item with: psy-doit test {name}")
