"""``python -m psyrun.worker WORKDIR PLAN``: a worker, which runs items of a plan until nothing is left to claim."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from psyrun.claims import Observer, ttl_seconds
from psyrun.errors import PsyrunError
from psyrun.plan import Plan
from psyrun.supervisor import Supervisor
from psyrun.terms import Quota
from psyrun.watch import shared_counters
from psyrun.workdir import Workdir


@click.command()
@click.argument("workdir", type=click.Path(path_type=Path))
@click.argument("plan")
@click.option("--children", default=1, show_default=True, help="How many items run at a time.")
@click.option("--submission", help="The submission whose job this is.")
@click.option("--notify", default=-1, hidden=True)
@click.option("--silent", multiple=True, type=(str, int), hidden=True)
@click.option("--items", type=int, hidden=True)
@click.option("--seconds", type=float, hidden=True)
def main(
    workdir: Path,
    plan: str,
    children: int,
    submission: str | None,
    notify: int,
    silent: tuple[tuple[str, int], ...],
    items: int | None,
    seconds: float | None,
) -> None:
    """Run items of a plan until nothing is left to claim."""
    place = Workdir(workdir)
    counters = shared_counters(children)
    observer = Observer(place.beats, ttl_seconds(), dict(silent))
    try:
        if submission is not None:
            from psyrun.jobwork import JobWorker

            sys.exit(JobWorker(place, Plan.read(place.plans / plan), submission, children).run())
        quota = Quota(items, seconds)
        found = Plan.read(place.plans / plan)
        sys.exit(Supervisor(place, found, children, counters, notify, observer, quota=quota).run())
    except PsyrunError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
