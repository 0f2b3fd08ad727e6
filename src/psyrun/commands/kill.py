"""``psy-doit kill``."""

from __future__ import annotations

import re
from pathlib import Path

import click

from psyrun.errors import NoSuchTaskError, TaskError
from psyrun.jobs import Jobs, jobs_of, shown_ids
from psyrun.options import OPTIONS
from psyrun.scheduler import QueueError
from psyrun.taskfiles import NAME
from psyrun.tasks import load_task
from psyrun.workdir import Workdir


@click.command("kill")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...]) -> None:
    """Cancel the jobs of tasks, and no others. What they finished is on record."""
    for name in names:
        jobs = _jobs(name, taskdir)
        if jobs is None:
            click.echo(f"{name}: has no jobs in a queue. A run on this machine is ended by Ctrl-C in its terminal")
        else:
            _kill(name, jobs)


def _jobs(name: str, taskdir: Path) -> Jobs | None:
    """Return the jobs of a task, also where its file is gone or wrong, if the work directory is in the usual place."""
    try:
        task = load_task(name, taskdir)
    except (TaskError, NoSuchTaskError):
        workdir = Workdir(Path(OPTIONS["workdir"].default).absolute() / name)
        jobs = jobs_of(None, workdir, max_age=0.0) if re.fullmatch(NAME, name) else None
        if jobs is None:
            raise
        return jobs
    return jobs_of(task.scheduler, task.workdir, max_age=0.0)


def _kill(name: str, jobs: Jobs) -> None:
    trouble = []
    for look in (jobs.settle, jobs.ask):
        try:
            look()
        except QueueError as error:  # what is known is cancelled all the same
            trouble.append(str(error))
    alive = list(jobs.alive(lambda submission: not jobs.elsewhere(submission) and not jobs.is_silent(submission)))
    for cluster in sorted({jobs.elsewhere(submission) for submission in jobs.submissions} - {""}):
        click.echo(f"{name}: it has jobs in the cluster {cluster}, too; those can be cancelled from there only")
    left = jobs.cancel(alive)
    trouble += [jobs.trouble, left]
    if alive and not left:
        click.echo(f"{name}: cancelled {shown_ids(job.id for job in alive)}. To go on: psy-doit {name}")
    elif not any(trouble):
        click.echo(f"{name}: no jobs of it are in the queue")
    if any(trouble):
        raise QueueError("; ".join(dict.fromkeys(filter(None, trouble))))
