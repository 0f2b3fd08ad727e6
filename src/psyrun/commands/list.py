"""``psy-doit list``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from psyrun.taskfiles import task_names


@click.command("list", short_help="Print the names of the tasks.")
@click.pass_obj
def command(taskdir: Path) -> None:
    """Print the names of the tasks, one a line. Runs none of the files."""
    names = task_names(taskdir)
    for name in names:
        click.echo(name)
    if not names:
        where = f"no task files in {taskdir}" if taskdir.is_dir() else f"no directory {taskdir} here ({Path.cwd()})"
        click.echo(f"psy-doit: {where}. Begin with: psy-doit new NAME", err=True)
        if not taskdir.is_dir():
            sys.exit(3)
