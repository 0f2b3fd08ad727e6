"""``psy-doit merge``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.collect import planned_fillers, planned_lookup, result_columns, write_result
from psyrun.columns import KEYS
from psyrun.errors import RefusedError, TaskError
from psyrun.plan import Plan
from psyrun.record import place, read_parts
from psyrun.store import AutodetectStore
from psyrun.workdir import Workdir


@click.command("merge")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def command(directory: Path, file: Path) -> None:
    """Write the finished items of work directory DIR into FILE (.npz, .h5 or .pkl). Runs no task file."""
    workdir = Workdir(directory)
    if not workdir.exists():
        raise TaskError(f"{directory}: not a work directory of psyrun; it takes one such as psy-work/NAME")
    workdir.check_format()
    if file.exists():
        raise RefusedError(f"{file} is there already. Move it away, or name another file")
    ids = workdir.plan_ids()
    if not ids:
        raise TaskError(f"{directory}: nothing was run there yet")
    plan = Plan.read(workdir.plans / ids[-1])
    store = AutodetectStore().store_for(file)
    if store.holds_objects:  # these are pickled in the record
        workdir.check_trust()
    parts = read_parts(workdir)
    placement = place(parts, plan.space, plan.n_items, planned_lookup(plan), plan.accepts)
    columns, left_out = result_columns(
        placement, plan.parameters, store.holds_objects, added=planned_fillers(plan, parts)
    )
    write_result(file, columns, store)
    click.echo(f"{columns[KEYS].shape[0]} of {plan.n_items} items: {file}")
    for item, why in left_out.items():
        click.echo(f"item {item} is left out: {why}. A .pkl file takes it", err=True)
    if placement.strangers:
        click.echo(
            f"{placement.strangers} rows of another parameter space are left out; those that belong to this one are "
            f"placed by: psy-doit {plan.content['task']}",
            err=True,
        )
