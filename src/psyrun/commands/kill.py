"""``psy-doit kill``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.jobs import jobs_of, shown_ids
from psyrun.tasks import load_task


@click.command("kill")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...]) -> None:
    """Cancel the jobs of tasks, and no others. What they finished is on record."""
    for name in names:
        task = load_task(name, taskdir)
        jobs = jobs_of(task.scheduler, task.workdir, max_age=0.0)
        if jobs is None:
            click.echo(f"{name}: has no jobs in a queue. A run on this machine is ended by Ctrl-C in its terminal")
            continue
        jobs.settle()
        jobs.ask()
        alive = list(jobs.alive())
        if alive:
            jobs.queue.cancel(alive)
            again = task.command(name)
            click.echo(f"{name}: cancelled {shown_ids(job.id for job in alive)}. To go on: {again}")
        else:
            click.echo(f"{name}: no jobs of it are in the queue")
