"""``psy-doit kill``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.jobs import Jobs, jobs_of, shown_ids
from psyrun.scheduler import QueueError
from psyrun.tasks import Task, load_task


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
        else:
            _kill(task, jobs)


def _kill(task: Task, jobs: Jobs) -> None:
    trouble = None
    try:
        jobs.settle()
    except QueueError as error:  # what is known is cancelled all the same
        trouble = error
    jobs.ask()
    alive = list(jobs.alive(lambda submission: not jobs.elsewhere(submission)))
    for cluster in sorted({jobs.elsewhere(submission) for submission in jobs.submissions} - {""}):
        click.echo(f"{task.name}: it has jobs in the cluster {cluster}, too; those can be cancelled from there only")
    if alive:
        jobs.queue.cancel(alive)
        again = task.command(task.name)
        click.echo(f"{task.name}: cancelled {shown_ids(job.id for job in alive)}. To go on: {again}")
    else:
        click.echo(f"{task.name}: no jobs of it are in the queue")
    if trouble is not None:
        raise trouble
