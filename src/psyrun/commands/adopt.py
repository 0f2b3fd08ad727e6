"""``psy-doit adopt``."""

from __future__ import annotations

from pathlib import Path

import click

from psyrun.adopt import Adoption, matched, write
from psyrun.errors import TaskError
from psyrun.tasks import load_task


@click.command("adopt")
@click.argument("name")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Say what would be taken, and write nothing.")
@click.option("--trust-pickle", is_flag=True, help="Read Python objects in a file that is yours; this can run code.")
@click.pass_obj
def command(taskdir: Path, name: str, file: Path, dry_run: bool, trust_pickle: bool) -> None:
    """Take finished rows from FILE (.npz, .h5, .csv, .pkl, also of psyrun 0.8), so that they are not computed again.

    Rows belong to the items that have exactly their parameters; rows that have the same are repetitions. All other
    columns are outputs, also where they are NaN. The rows count as those of the code that the task file has now. Items
    that are done already stay as they are.
    """
    task = load_task(name, taskdir)
    found = matched(task, file, trust_pickle)
    _tell(found)
    if found.n_rows and found.n_strangers == found.n_rows:
        raise TaskError(f"{file}: none of its rows is an item of {name}; nothing was written")
    if dry_run or not found.n_new:
        click.echo("nothing was written" if dry_run else "nothing to add")
        return
    write(found)
    click.echo(f"{found.n_new} rows are on record as done; merged with the rest by: {task.command(name)}")


def _tell(found: Adoption) -> None:
    """Print what is in the file."""
    n_known = found.n_rows - found.n_strangers - found.n_new
    click.echo(f"{found.path}: {found.n_rows} rows")
    click.echo(f"  {found.n_new} of items of {found.task.name} that are not done")
    click.echo(f"  {n_known} of items that are done, which stay as they are")
    click.echo(f"  {found.n_strangers} of no item")
    for line in found.strangers:
        click.echo(f"    {line}")
    if found.n_strangers > len(found.strangers):
        click.echo("    ...")
    for name, count in found.lacking.items():
        click.echo(f"{count} of the rows to take have no {name}; they count as done all the same")
    if found.unnamed:
        click.echo(f"left out, as nothing can be called so: the columns {', '.join(map(repr, found.unnamed))}")
    if found.running:
        click.echo(f"{found.running} of the items to take are being computed just now; the first row of each counts")
