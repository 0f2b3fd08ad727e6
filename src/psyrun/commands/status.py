"""``psy-doit status``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from psyrun.plan import Mask, ranges_of
from psyrun.state import State, look
from psyrun.status import grouped, report
from psyrun.taskfiles import task_names
from psyrun.tasks import load_task

_SHOWN_RANGES = 20


@click.command("status")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-v", "--verbose", is_flag=True, help="Say which items, and how they failed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with a schema_version.")
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...], verbose: bool, as_json: bool) -> None:
    """Print where tasks stand (default: all). Changes nothing."""
    states = [look(load_task(name, taskdir)) for name in names or task_names(taskdir)]
    if as_json:
        click.echo(json.dumps([report(state) for state in states], indent=1))
        return
    for state in states:
        _print(state, report(state), verbose)
    if not states:
        click.echo(f"psy-doit: no task files in {taskdir}. Begin with: psy-doit new NAME", err=True)


def _print(state: State, told: dict[str, Any], verbose: bool) -> None:
    name = told["task"]
    parts = [f"{told['n_done']} of {told['n_items']} items done"]
    parts += [f"{told[f'n_{what}']} {what}" for what in ("failed", "running", "missing") if told[f"n_{what}"]]
    click.echo(f"{name}: {', '.join(parts)}")
    if told["other_code"]:
        click.echo(f"  computed with other code than the task file has now: psy-doit {name} --keep, or --fresh")
    if told["damaged_parts"]:
        click.echo(f"  unreadable stretches in {len(told['damaged_parts'])} parts; their items count as missing")
    for item, why in state.left_out.items():
        click.echo(f"  item {item} is done, but not in the file: {why}")
    if told["complete"] and not told["merged"]:
        click.echo(f"  not merged yet: psy-doit {name}")
    elif told["complete"]:
        click.echo(f"  result: {told['result']}")
    elif not told["n_running"]:
        click.echo(f"  to compute the others: psy-doit {name}")
    if verbose:
        _print_details(state, told)


def _print_details(state: State, told: dict[str, Any]) -> None:
    untried = state.untried
    failed = state.missing & ~untried
    for what, mask in (("missing", untried), ("failed", failed), ("running", state.running & ~state.done)):
        if mask.any():
            click.echo(f"  {what}: {_ranges(mask)}")
    for worker in told["workers"]:
        click.echo(f"  worker {worker['worker']} on {worker['host']}, process {worker['pid']}")
    for group in grouped(state):
        click.echo(f"  {group.headline()}: psy-doit test {told['task']} --item {group.item} --pdb")


def _ranges(mask: Mask) -> str:
    """Return the numbers of items as ranges: ``0-4, 7``."""
    found = ranges_of(mask).tolist()
    texts = [str(start) if stop == start + 1 else f"{start}-{stop - 1}" for start, stop in found[:_SHOWN_RANGES]]
    return ", ".join(texts) + (f" and {len(found) - _SHOWN_RANGES} more ranges" if len(found) > _SHOWN_RANGES else "")
