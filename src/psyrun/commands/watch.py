"""``psy-doit watch``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import click

from psyrun.activity import Activity
from psyrun.errors import PsyrunError
from psyrun.live import Changes, Scene, page
from psyrun.progress import Page
from psyrun.state import State
from psyrun.taskfiles import SCHEMA_VERSION, task_names
from psyrun.tasks import Task, load_task
from psyrun.waiting import Quiet, verdict

_POLL = 1.0
_TIMES_THE_COST = 10.0


@click.command("watch")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON, with a schema_version, at each change.")
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...], as_json: bool) -> int:
    """Show how tasks go on (default: all), until nobody is at work any more. Changes nothing.

    On a terminal it is a table, elsewhere a line when something changed. Exit status: as of `wait`.
    """
    worst = 0
    tasks = []
    for name in dict.fromkeys(names or task_names(taskdir)):
        try:
            tasks.append(load_task(name, taskdir))
        except PsyrunError as error:  # the others are still of interest
            worst = max(worst, error.exit_code)
            click.echo(f"{name}: {error}", err=True)
    if not tasks:
        if not worst:
            click.echo(f"psy-doit: no task files in {taskdir}. Begin with: psy-doit new NAME", err=True)
        return worst
    try:
        states = _watch(tasks, as_json)
    except KeyboardInterrupt:
        return 130
    for state, activity in states:
        found = verdict(state, activity.stuck)
        worst = max(worst, found.status)
        if found.message:
            click.echo(f"psy-doit: {found.message}", err=True)
    return worst


def _watch(tasks: Sequence[Task], as_json: bool) -> list[tuple[State, Activity]]:
    """Show tasks until nobody is at work; return where they stand then."""
    scenes = [Scene(task) for task in tasks]
    quiet = Quiet()
    screen = Page(sys.stdout) if sys.stdout.isatty() and not as_json else None
    changes = Changes()
    with screen or nullcontext():
        while True:
            begin = time.monotonic()
            activities = [scene.update() for scene in scenes]
            over = quiet.sure(activities)
            views = [scene.view for scene in scenes]
            if screen is not None:
                screen.show(page(views))
            elif as_json:
                for view in changes.views(views, time.monotonic(), over):
                    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **view.report()}))
            else:
                for line in changes.lines(views, time.monotonic(), over):
                    click.echo(line)
            if over:
                return [(scene.ended(), activity) for scene, activity in zip(scenes, activities, strict=True)]
            time.sleep(max(_POLL, _TIMES_THE_COST * (time.monotonic() - begin)))
