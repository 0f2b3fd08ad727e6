"""``psy-doit clean``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from psyrun.claims import Claims, Observer, ttl_seconds
from psyrun.errors import NoSuchTaskError, RefusedError
from psyrun.files import random_name, renamed
from psyrun.jobs import jobs_of, shown_ids
from psyrun.state import held_tokens
from psyrun.tasks import Task, load_task
from psyrun.workdir import Workdir

_REMOVING = ".removing"


@click.command("clean")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also if a worker may still be at work there.")
@click.pass_obj
def command(taskdir: Path, name: str, yes: bool, force: bool) -> None:
    """Remove the work directory of a task: record, result, logs and archive."""
    task = load_task(name, taskdir)
    workdir = task.workdir
    left_over = list(workdir.path.parent.glob(f".{workdir.path.name}.*{_REMOVING}"))
    if not workdir.exists() and not left_over:
        raise NoSuchTaskError(f"{name}: there is no work directory {workdir.path}; nothing to remove")
    workdir.check_format()
    if not force:
        _refuse_if_alive(workdir, name)
        _refuse_if_queued(task)
    size = sum(file.lstat().st_size for path in (workdir.path, *left_over) for file in path.rglob("*"))
    told = f"{workdir.path} ({size / 1e6:.1f} MB: all results, logs and the archive of {name})"
    if not yes:
        if not sys.stdin.isatty():
            raise RefusedError(f"would remove {told}. To do so: psy-doit clean {name} --yes")
        if not click.confirm(f"Remove {told}?"):
            return
    if workdir.exists():
        left_over.append(_out_of_reach(workdir, name, force))
    for path in left_over:
        shutil.rmtree(path)
    click.echo(f"removed {told}")


def _out_of_reach(workdir: Workdir, name: str, force: bool) -> Path:
    """Rename the directory, so that no command works in one that is half removed."""
    for plan in workdir.plan_ids():
        Claims(workdir.plans / plan).withdraw()
    if not force:
        _refuse_if_alive(workdir, name)
    real = workdir.path.resolve()
    target = real.with_name(f".{workdir.path.name}.{random_name(4)}{_REMOVING}")
    renamed(real, target)
    if workdir.path.is_symlink():
        workdir.path.unlink()
    return target


def _refuse_if_alive(workdir: Workdir, name: str) -> None:
    observer = Observer(workdir.beats, ttl_seconds())
    for _, token in held_tokens(workdir, observer):
        beat = observer.read(token.worker)
        where = f"on {beat['host']}, process {beat['pid']}" if beat else "on a machine that is not known"
        raise RefusedError(
            f"{name} is being computed ({where}). Wait for it, or stop it, then clean. "
            f"If you know that it is dead: psy-doit clean {name} --force"
        )


def _refuse_if_queued(task: Task) -> None:
    """Refuse while jobs are in a queue, or may be: without the record nobody finds them again."""
    jobs = jobs_of(task.scheduler, task.workdir, max_age=0.0)
    if jobs is None:
        return
    jobs.look_anew()
    if alive := jobs.alive():
        kill, force = task.command("kill", task.name), task.command("clean", task.name, "--force")
        what = f"{task.name} has jobs in the queue ({shown_ids(job.id for job in alive)}), or may have"
        raise RefusedError(f"{what}. To cancel them: {kill}. If you know that they are gone: {force}")
