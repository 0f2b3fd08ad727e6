"""``psy-doit clean``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from psyrun.claims import HELD, Observer
from psyrun.errors import NoSuchTaskError, RefusedError
from psyrun.plan import Plan
from psyrun.tasks import load_task
from psyrun.workdir import Workdir
from psyrun.worker import ttl_seconds


@click.command("clean")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(taskdir: Path, name: str, yes: bool) -> None:
    """Remove the work directory of a task: record, result, logs and archive."""
    workdir = load_task(name, taskdir).workdir
    if not workdir.exists():
        raise NoSuchTaskError(f"{name}: there is no work directory {workdir.path}; nothing to remove")
    _refuse_if_alive(workdir, name)
    size = sum(path.lstat().st_size for path in workdir.path.rglob("*"))
    told = f"{workdir.path} ({size / 1e6:.1f} MB: all results, logs and the archive of {name})"
    if not yes:
        if not sys.stdin.isatty():
            raise RefusedError(f"would remove {told}. To do so: psy-doit clean {name} --yes")
        if not click.confirm(f"Remove {told}?"):
            return
    shutil.rmtree(workdir.path)
    click.echo(f"removed {told}")


def _refuse_if_alive(workdir: Workdir, name: str) -> None:
    observer = Observer(workdir.beats, ttl_seconds())
    for plan in workdir.plan_ids():
        for token in Plan.claims_at(workdir.plans / plan).tokens(HELD):
            if not observer.dead(token.worker):
                host = observer.read(token.worker).get("host", "another machine")
                raise RefusedError(f"{name} is being computed (on {host}). Wait for it, or stop it, then clean")
