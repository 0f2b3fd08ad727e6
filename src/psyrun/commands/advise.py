"""``psy-doit advise``."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np

from psyrun.advise import Advice, advised, nothing, nothing_measured
from psyrun.errors import TaskError
from psyrun.scheduler import Job, queues_of
from psyrun.scheduler.resources import resolved
from psyrun.state import look
from psyrun.tasks import load_task


@click.command("advise")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a schema_version.")
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Say what to ask a queue for, from what was measured: time, memory, number of jobs. Changes nothing."""
    reports = []
    for name in dict.fromkeys(names):
        task = load_task(name, taskdir)
        state = look(task, rows=True)
        found = advised(state)
        n_left = int(np.count_nonzero(~state.done))
        reports.append(found.report() if found is not None else nothing(task, n_left))
        if not as_json:
            click.echo(found.text() if found is not None else nothing_measured(task))
            if found is not None:
                click.echo("".join(f"  psy-doit would refuse that: {why}\n" for why in _refused(found)), nl=False)
    if as_json:
        click.echo(json.dumps(reports, indent=1, default=repr))


def _refused(advice: Advice) -> list[str]:
    """Return why queues would never run such jobs, if they say so."""
    task, found = advice.task, []
    for queue in queues_of(task.scheduler):
        try:
            asked = resolved(queue.asks(advice.scheduler_args()[0]), task.name)
            queue.check_submission(Job(task.name, "", (), task.cwd, task.workdir.logs, 1, asked))
        except TaskError as error:
            found.append(f"{error}" if task.scheduler is queue else f"{queue!r}: {error}")
    return found
