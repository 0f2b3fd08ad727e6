"""``psy-doit wait``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from psyrun.arguments import number_of_seconds
from psyrun.status import lines, report
from psyrun.tasks import load_task
from psyrun.waiting import wait_for


@click.command("wait")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "--timeout", metavar="TIME", callback=number_of_seconds, help="The most to wait, such as 90s, 10m or 1h30m."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in the end, with a schema_version.")
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Return when nobody is at work on tasks any more, whoever it was. Changes nothing.

    Exit status: 0 all items done, 1 some failed, 4 done with other code than the task file has now, 75 items are
    missing and nobody is at work on them, 124 the time of --timeout is over; of several tasks the largest.
    """
    begin = time.monotonic()
    tasks = [load_task(name, taskdir) for name in dict.fromkeys(names)]
    try:
        ended = wait_for(tasks, timeout, lambda line: click.echo(line, err=True))
    except KeyboardInterrupt:
        return 130
    reports = []
    for state, verdict, activity in ended:
        told = report(state)
        reports.append(told | {"outcome": verdict.outcome, "exit_status": verdict.status, "at_work": activity.at_work})
        reports[-1]["seconds"] = round(time.monotonic() - begin, 3)
        if not as_json:
            click.echo("\n".join(lines(state, told)))
        if verdict.message:
            click.echo(f"psy-doit: {verdict.message}", err=True)
    if as_json:
        click.echo(json.dumps(reports, indent=1))
    return max(verdict.status for _, verdict, _ in ended)
