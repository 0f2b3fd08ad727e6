"""``psy-doit plan``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from psyrun.arguments import number_of_workers, selecting
from psyrun.run import Choices
from psyrun.runs import run_of
from psyrun.selection import Selection
from psyrun.tasks import load_task


@click.command("plan")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-n", "n_workers", metavar="N|auto", callback=number_of_workers, help="How many items run at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a schema_version.")
@selecting
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...], n_workers: int | None, as_json: bool, selection: Selection) -> None:
    """Print what a run of tasks would do, and what that would cost. Changes nothing."""
    forecasts = []
    for name in dict.fromkeys(names):
        choices = Choices(n_workers, selection=selection)
        forecasts.append(run_of(load_task(name, taskdir), choices).forecast())
    if as_json:
        click.echo(json.dumps([forecast.report() for forecast in forecasts], indent=1))
    else:
        click.echo("\n".join(forecast.text() for forecast in forecasts))
