"""``psy-doit resume``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.activity import Lookout
from psyrun.jobs import jobs_of
from psyrun.orders import is_drained, resume
from psyrun.tasks import load_task


@click.command("resume")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...]) -> None:
    """Have the workers of paused tasks go on."""
    tasks = [load_task(name, taskdir) for name in dict.fromkeys(names)]
    for task in tasks:
        task.workdir.check_format()
        task.workdir.check_trust()
        if not resume(task.workdir):
            click.echo(f"{task.name}: is not paused")
            continue
        activity = Lookout(task.workdir, jobs_of(task.scheduler, task.workdir)).look()
        start = task.command(task.name)
        if activity.plan is not None and is_drained(task.workdir.plans / activity.plan):
            click.echo(f"{task.name}: is paused no more, but it was drained, too. To compute the rest: {start}")
        elif activity.at_work:
            click.echo(f"{task.name}: goes on; at work: {activity.who()}")
        else:
            click.echo(f"{task.name}: is paused no more, but nobody is at work on it. To compute the rest: {start}")
