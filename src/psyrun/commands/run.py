"""``psy-doit NAME``, ``psy-doit run NAME``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from psyrun.errors import TemporaryError
from psyrun.local import LocalWorker
from psyrun.scheduler import available_cores
from psyrun.state import State, look
from psyrun.status import grouped
from psyrun.tasks import find_task, load_task

if TYPE_CHECKING:
    from psyrun.run import Run

_SHOWN = 5


def _number_of_workers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if value == "auto":
        return available_cores()
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither 'auto' nor a whole number from 1")
    return int(value)


@click.command("run")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-n", "n_workers", metavar="N|auto", callback=_number_of_workers, help="How many items run at a time.")
@click.option("--keep", "code", flag_value="keep", help="Keep rows that other code computed; run what is missing.")
@click.option("--fresh", "code", flag_value="fresh", help="Put rows that other code computed into the archive.")
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...], n_workers: int | None, code: str | None) -> int:
    """Compute the items of tasks that are missing, and merge all into one file a task."""
    for name in names:
        find_task(name, taskdir)
    worker = LocalWorker()  # before any task file runs
    try:
        from psyrun.run import Choices, Run
        from psyrun.steps import Steps

        choices = Choices(n_workers, code or "", _ask if sys.stdin.isatty() and sys.stdout.isatty() else None)
        runs = [Run(load_task(name, taskdir), choices, worker) for name in dict.fromkeys(names)]
        for run in runs:
            run.prepare()
        Steps(runs).execute()
    except KeyboardInterrupt:
        worker.stop()
        click.echo(
            f"psy-doit: interrupted; what is finished is on record. To go on: psy-doit {' '.join(names)}", err=True
        )
        return 130
    finally:
        worker.close()
    return max(_summary(run) for run in runs)


def _ask(state: State) -> str:
    """Ask what to do with rows that other code computed."""
    n_done = int(state.done.sum())
    click.echo(
        f"{state.task.name}: {n_done} of {len(state.done)} items were computed with other code than "
        f"{state.task.path.name} has now.\n"
        "  keep   keep them and compute only the others\n"
        "  fresh  put them into the archive and compute all again\n"
        "  quit   do nothing"
    )
    return str(click.prompt("What now", type=click.Choice(["keep", "fresh", "quit"]), default="quit"))


def _summary(run: Run) -> int:
    """Print how it ended; return the exit status."""
    state = look(run.task)
    n_done, n = int(state.done.sum()), len(state.done)
    result = _shown(run.task.result)
    click.echo(f"{run.task.name}: {n_done} of {n} items done: {result}", err=True)
    for group in grouped(state):
        click.echo(f"\n{group.traceback.rstrip()}\n{group.headline()}", err=True)
        click.echo(f"    try it: psy-doit test {run.task.name} --item {group.item} --pdb", err=True)
    if state.failures:
        click.echo(f"\n{len(state.failures)} failed; psy-doit {run.task.name} tries them again", err=True)
        return 1
    for item, why in list(state.left_out.items())[:_SHOWN]:
        click.echo(f"item {item} is done, but not in the file: {why}", err=True)
    if state.left_out:
        click.echo(
            f"\n{len(state.left_out)} rows do not fit into the columns of {result}; nothing of them is lost. "
            f"To have all rows in one file: store = psyrun.PickleStore(), then psyrun computes nothing again",
            err=True,
        )
        return 1
    if not state.complete:
        raise TemporaryError(f"{n - n_done} items were not computed; type the command again: psy-doit {run.task.name}")
    return 0


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
