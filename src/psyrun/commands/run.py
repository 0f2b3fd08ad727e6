"""``psy-doit NAME``, ``psy-doit run NAME``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from psyrun.arguments import number_of_workers, selecting
from psyrun.errors import NoSuchTaskError, TemporaryError
from psyrun.interrupts import be_heard
from psyrun.local import LocalWorker, interrupted
from psyrun.state import State, look
from psyrun.status import grouped
from psyrun.taskfiles import COMMANDS
from psyrun.tasks import find_task, load_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psyrun.run import Run
    from psyrun.selection import Selection

_SHOWN = 5


@click.command("run")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-n", "n_workers", metavar="N|auto", callback=number_of_workers, help="How many items run at a time.")
@click.option("--keep", is_flag=True, help="Keep rows that other code computed; run what is missing.")
@click.option("--fresh", is_flag=True, help="Put rows that other code computed into the archive; compute them again.")
@click.option("--yes", is_flag=True, help="Do not ask about a very large or long run.")
@click.option("--new-seed", is_flag=True, help="Draw other random numbers than the task's seed gives.")
@click.option("--dry-run", is_flag=True, help="Print what the queue would be given, and change nothing.")
@selecting
@click.pass_obj
def command(
    taskdir: Path,
    names: tuple[str, ...],
    n_workers: int | None,
    keep: bool,
    fresh: bool,
    yes: bool,
    new_seed: bool,
    dry_run: bool,
    selection: Selection,
) -> int:
    """Compute the items of tasks that are missing, and merge all into one file a task."""
    if keep and fresh:
        raise click.UsageError("--keep and --fresh exclude each other")
    for name in names:
        _check_name(name, taskdir)
    worker = LocalWorker()  # before any task file runs
    try:
        from psyrun.run import Choices
        from psyrun.runs import run_of
        from psyrun.steps import Steps

        code = "keep" if keep else "fresh" if fresh else ""
        asks = sys.stdin.isatty() and sys.stdout.isatty()
        confirm = (lambda _: True) if yes else _confirm if asks else None
        choices = Choices(n_workers, code, _ask if asks else None, confirm, new_seed, dry_run, selection)
        runs = [run_of(load_task(name, taskdir), choices, worker) for name in dict.fromkeys(names)]
        for run in runs:
            for own in run.task.own:
                told = f"{run.task.path.name} reads {own} itself, so it is not taken for the option {own} of psyrun"
                click.echo(f"{run.task.name}: {told}", err=True)
            if run.task.options["cost"] is not None and not run.task.backend.balances:
                told = f"{run.task.backend!r} does not ask for cost; backend = psyrun.LoadBalancingBackend does"
                click.echo(f"{run.task.name}: {told}", err=True)
            run.prepare()
            if fresh and not run.found_other_code:
                told = f"{run.task.name}: no rows of other code, so --fresh archives nothing. To compute all again: "
                click.echo(told + run.task.command("clean", run.task.name), err=True)
        if dry_run:
            return _preview(runs)
        be_heard()
        Steps(runs).execute()
    except KeyboardInterrupt:
        return interrupted(worker)
    finally:
        worker.close()
    return max(_summary(run) for run in runs)


def _preview(runs: Sequence[Run]) -> int:
    """Print what the queue would be given; return the exit status."""
    for run in runs:
        task, preview = run.task, run.preview()
        if preview:
            click.echo(preview)
        else:
            told = f"{task.name}: nothing to submit with scheduler = {task.scheduler!r}. What a run would compute: "
            click.echo(told + task.command("plan", task.name), err=True)
    return 0


def _check_name(name: str, taskdir: Path) -> None:
    """Raise a NoSuchTaskError if there is no such task; the word may be a mistyped command."""
    try:
        find_task(name, taskdir)
    except NoSuchTaskError as error:
        import difflib

        meant = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = (
            f" Or the command: psy-doit {meant[0]}" if meant else " For help: psy-doit --help" if name == "help" else ""
        )
        raise NoSuchTaskError(f"{error}{hint}") from None


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


def _confirm(told: str) -> bool:
    return click.confirm(f"{told} Go on?")


def _summary(run: Run) -> int:
    """Print how it ended; return the exit status."""
    state = look(run.task)
    n_done, n = int(state.done.sum()), len(state.done)
    jobs = run.summary()
    if jobs:
        click.echo(f"{run.task.name}: {n_done} of {n} items done\n{jobs}", err=True)
        return 0
    result = _shown(run.task.result)
    click.echo(f"{run.task.name}: {n_done} of {n} items done: {result}", err=True)
    for group in grouped(state):
        trace = f"{group.traceback.rstrip()}\n" if group.where else ""
        click.echo(f"\n{trace}{group.headline()}", err=True)
        click.echo(f"    try it: {group.command(run.task)}", err=True)
    _tell_lacking(run, state)
    n_untried = int(np.count_nonzero(state.untried))
    if run.stopped and n_untried:
        told = f"{run.stopped}, so {n_untried} others were not tried. To run all the same: early_stop = False"
        click.echo(f"\n{told} in {run.task.path.name}", err=True)
    if state.n_failed:
        click.echo(f"\n{state.n_failed} failed; {run.task.command(run.task.name)} tries them again", err=True)
        if (state.failed & run.chosen).any():
            return 1
    for item, why in list(state.left_out.items())[:_SHOWN]:
        click.echo(f"item {item} is done, but not in the file: {why}", err=True)
    if state.left_out:
        click.echo(
            f"\nitems left out of {result}: {len(state.left_out)}; nothing of them is lost. To have all in one file: "
            f"store = psyrun.PickleStore() in {run.task.path.name}, then {run.task.command(run.task.name)}; "
            "nothing is computed again",
            err=True,
        )
        return 1
    if ((state.missing | state.running) & ~state.done & run.chosen).any():
        raise TemporaryError(
            f"{n - n_done} items were not computed; type the command again: {run.task.command(run.task.name)}"
        )
    return 0


def _tell_lacking(run: Run, state: State) -> None:
    """Say once, when they were merged, which columns some rows lack."""
    n = int(np.count_nonzero(state.done))
    for name, count in state.lacking.items() if run.merges else ():
        click.echo(f"{run.task.name}: {count} of {n} rows have no {name}; the result is filled there", err=True)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
