"""``psy-doit doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from psyrun.arguments import number_of_seconds
from psyrun.doctor import examined, lines, report
from psyrun.errors import TaskError, TemporaryError
from psyrun.jobcheck import check_jobs
from psyrun.machine import ERROR, Finding
from psyrun.scheduler import queues_of
from psyrun.tasks import load_task


@click.command("doctor")
@click.argument("name", required=False)
@click.option("--timeout", metavar="TIME", callback=number_of_seconds, default="2m", help="The most to wait for a job.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a schema_version.")
@click.pass_obj
def command(taskdir: Path, name: str | None, timeout: float, as_json: bool) -> int:
    """Tell what this machine and the work directory of a task can do (default: psy-work), and what to do about it.

    It tries out what psyrun needs in a directory beside, which it removes again. If the items of the task are computed
    by jobs, it gives each of its queues one job, which tells what it finds; Ctrl-C cancels it. Exit status: 0 if
    there is no error, 75 otherwise; warnings do not count.
    """
    task, wrong = None, []
    try:
        task = load_task(name, taskdir) if name is not None else None
    except TaskError as error:  # all else is still of interest
        wrong = [Finding("task file", ERROR, str(error))]
    try:
        place, findings = examined(task, taskdir)
        if task is not None:
            for queue in queues_of(task.scheduler):
                findings += check_jobs(task, queue, place, timeout, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        return 130
    findings = [*wrong, *findings]
    if as_json:
        click.echo(json.dumps(report(place, findings), indent=1))
    else:
        click.echo("\n".join(lines(place, findings)))
    return TemporaryError.exit_code if any(finding.level == ERROR for finding in findings) else 0
