"""``psy-doit pause``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.orders import pause, paused_since
from psyrun.state import look
from psyrun.tasks import load_task


@click.command("pause")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...]) -> None:
    """Have the workers of tasks begin nothing more until `psy-doit resume`.

    They finish what they have in hand, and stay. The time of jobs goes on; for a long while `psy-doit drain` is better.
    """
    tasks = [load_task(name, taskdir) for name in dict.fromkeys(names)]
    for task in tasks:
        task.workdir.check_format()
        task.workdir.check_trust()
        if not task.workdir.exists():
            start = task.command(task.name)
            click.echo(f"{task.name}: was never run, so there is nothing to pause. To run it: {start}")
            continue
        if look(task).complete:
            click.echo(f"{task.name}: all items are done, so there is nothing to pause")
            continue
        resume = f"To go on: {task.command('resume', task.name)}"
        if pause(task.workdir):
            click.echo(f"{task.name}: paused; workers finish what they have in hand, and begin nothing more. {resume}")
        else:
            click.echo(f"{task.name}: is paused already, since {paused_since(task.workdir)}. {resume}")
