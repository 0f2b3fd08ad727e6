"""``psy-doit work``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.arguments import number_of_minutes, number_of_workers
from psyrun.local import LocalWorker, interrupted
from psyrun.tasks import load_task


@click.command("work")
@click.argument("name", metavar="NAME")
@click.option("-n", "n_workers", metavar="N|auto", callback=number_of_workers, help="How many items run at a time.")
@click.option("--items", metavar="K", type=click.IntRange(min=1), help="Begin no more than so many items.")
@click.option(
    "--minutes",
    "seconds",
    metavar="M",
    callback=number_of_minutes,
    help="Begin nothing after so many minutes; what is in hand is finished.",
)
@click.pass_obj
def command(taskdir: Path, name: str, n_workers: int | None, items: int | None, seconds: float | None) -> int:
    """Work on a run under way, whoever started it, until nothing is left to claim.

    Any machine can that has the work directory and the project under the same paths: a laptop, a second login node.
    With a queue, too: nothing is submitted, and its programs are not needed.
    """
    worker = LocalWorker()  # before the task file runs
    try:
        from psyrun.guest import Guest

        guest = Guest(load_task(name, taskdir), worker, n_workers, items, seconds)
        guest.prepare()
        status = guest.work()
    except KeyboardInterrupt:
        return interrupted(worker)
    finally:
        worker.close()
    click.echo("\n".join(guest.leave()), err=True)
    return status
