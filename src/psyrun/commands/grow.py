"""``psy-doit grow``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.local import LocalWorker, interrupted
from psyrun.tasks import Task, load_task


@click.command("grow")
@click.argument("name", metavar="NAME")
@click.option("--jobs", metavar="N", type=click.IntRange(min=1), required=True, help="How many to add.")
@click.pass_obj
def command(taskdir: Path, name: str, jobs: int) -> int:
    """Add workers to a run under way: jobs of its queues beyond `max_jobs`, or as many workers on this machine."""
    worker = LocalWorker()  # before the task file runs
    try:
        from psyrun.growing import grow
        from psyrun.scheduler import queues_of

        task = load_task(name, taskdir)
        if not queues_of(task.scheduler):
            return _work(task, worker, jobs)
        click.echo(grow(task, jobs))
    except KeyboardInterrupt:
        return interrupted(worker)
    finally:
        worker.close()
    return 0


def _work(task: Task, worker: LocalWorker, jobs: int) -> int:
    """Be the workers that are added."""
    from psyrun.growing import plan_under_way
    from psyrun.guest import Guest
    from psyrun.jobs import jobs_of

    plan_under_way(task, jobs_of(task.scheduler, task.workdir))
    guest = Guest(task, worker, jobs * task.options["pool_size"])
    guest.prepare()
    here = f"scheduler = {task.scheduler!r} is of this machine"
    words = f"these are {jobs} new workers" if jobs > 1 else "this is a new worker"
    click.echo(f"{task.name}: {here}, so {words}, until nothing is left", err=True)
    status = guest.work()
    click.echo("\n".join(guest.leave()), err=True)
    return status
