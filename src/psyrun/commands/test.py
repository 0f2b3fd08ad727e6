"""``psy-doit test``."""

from __future__ import annotations

import os
import pdb
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from psyrun.arrays import plain
from psyrun.cells import cell
from psyrun.child import check_outputs, checked_extra
from psyrun.collect import shown_assignment
from psyrun.errors import TaskError
from psyrun.recorder import user_trace
from psyrun.seeding import arguments, asked_for
from psyrun.tasks import Task, load_task


@click.command("test")
@click.argument("name")
@click.option("--item", default=0, show_default=True, help="Which item, by its number in the space.")
@click.option("--pdb", "debug", is_flag=True, help="Open the debugger where it raises.")
@click.pass_obj
def command(taskdir: Path, name: str, item: int, debug: bool) -> int:
    """Run one item of a task here and now, and print its result. Nothing is recorded."""
    task = load_task(name, taskdir)
    n = len(task.pspace)
    if not n:
        raise TaskError(f"the parameter space of {name} is empty; there is nothing to run")
    if not 0 <= item < n:
        raise TaskError(f"{name} has {n} items, numbered 0 to {n - 1}; there is no item {item}")
    click.echo(name)
    sys.stdout.flush()
    os.chdir(task.directory or task.cwd)
    try:
        row = _run(task, item)
    except (Exception, SystemExit) as error:
        trace = user_trace(error)
        traceback.print_exception(type(error), error, trace, chain=trace is not None)
        if debug and trace is not None:
            pdb.post_mortem(trace)
        elif trace is not None:
            click.echo(
                f"To look at it in the debugger: {task.command('test', name, '--item', str(item), '--pdb')}", err=True
            )
        return 1
    click.echo(f"item {item} ({shown_assignment(task.pspace[item])}):")
    for column, value in row.items():
        click.echo(f"{column} = {plain(value)!r}")
    return 0


def _run(task: Task, item: int) -> dict[str, Any]:
    setup: Callable[[int], Any] = task.setup or (lambda _: None)
    assignment = task.pspace[item]
    given = assignment | checked_extra(setup(0), task.pspace.parameters)
    random = arguments(asked_for(task.execute, given), task.options["seed"], task.pspace.item_keys(item, item + 1)[0])
    outputs = task.execute(**given, **random)
    check_outputs(outputs, assignment)
    row = {**given, **outputs}
    excluded = set(task.options["exclude_from_result"])
    for name, value in row.items():
        if name not in excluded:
            cell(name, value, task.store.holds_objects)
    return {name: v for name, v in row.items() if name not in assignment and name not in excluded}
