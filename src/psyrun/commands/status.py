"""``psy-doit status``."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import click

from psyrun.errors import PsyrunError
from psyrun.jobreport import job_lines, job_report
from psyrun.jobs import jobs_of, observer_of
from psyrun.nodes import what_ails
from psyrun.plan import Mask, ranges_of
from psyrun.state import State, look
from psyrun.status import grouped, lines, report
from psyrun.taskfiles import SCHEMA_VERSION, task_names
from psyrun.tasks import load_task
from psyrun.units import shown_bytes, shown_ranges


@click.command("status")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-v", "--verbose", is_flag=True, help="Say which items, and how they failed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a schema_version.")
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...], verbose: bool, as_json: bool) -> int:
    """Print where tasks stand (default: all). Changes nothing."""
    worst = 0
    reports = []
    for name in names or task_names(taskdir):
        try:
            task = load_task(name, taskdir)
            jobs = jobs_of(task.scheduler, task.workdir)
            if jobs is not None:
                jobs.look()
            state = look(task, observer_of(task.workdir, jobs) if jobs is not None else None)
        except PsyrunError as error:  # the others are still of interest
            worst = max(worst, error.exit_code)
            reports.append({"schema_version": SCHEMA_VERSION, "task": name, "error": str(error)})
            if not as_json:
                click.echo(f"{name}: {error}", err=True)
            continue
        reports.append(report(state) | ({} if jobs is None else {"jobs": job_report(jobs)}))
        if not as_json:
            _print(state, reports[-1], verbose)
            if jobs is not None:
                trouble = what_ails(state.task.workdir, {job.id for job in jobs.alive()})
                told = [*job_lines(jobs), *([trouble] if trouble and not state.complete else [])]
                click.echo("".join(f"  {line}\n" for line in told), nl=False)
    if as_json:
        click.echo(json.dumps(reports, indent=1))
    elif not reports:
        click.echo(f"psy-doit: no task files in {taskdir}. Begin with: psy-doit new NAME", err=True)
    return worst


def _print(state: State, told: dict[str, Any], verbose: bool) -> None:
    click.echo("\n".join(lines(state, told)))
    if verbose:
        _print_details(state, told)


def _print_details(state: State, told: dict[str, Any]) -> None:
    untried = state.untried
    failed = state.missing & ~untried
    for what, mask in (("missing", untried), ("failed", failed)):
        if mask.any():
            click.echo(f"  {what}: {_ranges(mask)}")
    for worker in told["workers"]:
        items = shown_ranges(worker["items"]) if worker["items"] is not None else "items of an earlier plan"
        click.echo(f"  running: {items}, by worker {worker['worker']} on {worker['host']}, process {worker['pid']}")
    click.echo(f"  record: {shown_bytes(told['record_bytes'])} in {state.task.workdir.parts}")
    for name, count in state.lacking.items():
        click.echo(f"  rows without {name}: {count}; the result is filled there")
    for group in grouped(state):
        click.echo(f"  {group.headline()}: {group.command(state.task)}")
        if group.where:
            click.echo(textwrap.indent(group.traceback.rstrip(), "    "))


def _ranges(mask: Mask) -> str:
    """Return the numbers of items as ranges: ``0-4, 7``."""
    return shown_ranges([[start, stop - 1] for start, stop in ranges_of(mask).tolist()])
