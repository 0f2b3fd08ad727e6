"""``psy-doit list``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from psyrun.taskfiles import SCHEMA_VERSION, task_names, task_path


@click.command("list", short_help="Print the names of the tasks.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a schema_version.")
@click.pass_obj
def command(taskdir: Path, as_json: bool) -> None:
    """Print the names of the tasks, one a line. Runs none of the files."""
    names = task_names(taskdir)
    if as_json:
        click.echo(json.dumps([_report(name, taskdir) for name in names], indent=1))
    else:
        for name in names:
            click.echo(name)
    if not names:
        where = f"no task files in {taskdir}" if taskdir.is_dir() else f"no directory {taskdir} here ({Path.cwd()})"
        click.echo(f"psy-doit: {where}. Begin with: psy-doit new NAME", err=True)
        if not taskdir.is_dir():
            sys.exit(3)


def _report(name: str, taskdir: Path) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "task": name, "file": str(task_path(name, taskdir))}
