"""``psy-doit logs``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from psyrun.tasks import load_task


@click.command("logs")
@click.argument("name")
@click.pass_obj
def command(taskdir: Path, name: str) -> None:
    """Print what the items of a task printed, the oldest first."""
    workdir = load_task(name, taskdir).workdir
    found = workdir.logs.glob("*.log") if workdir.exists() else []
    files = sorted((path for path in found if path.is_file()), key=lambda path: path.stat().st_mtime)
    for path in files:
        click.echo(f"==> {path} <==")
        sys.stdout.flush()
        with path.open("rb") as log:
            shutil.copyfileobj(log, sys.stdout.buffer)
    if not files:
        click.echo(f"psy-doit: no output of {name} in {workdir.logs}", err=True)
