"""Options of the command line that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import click

from psyrun.scheduler import available_cores
from psyrun.units import seconds


def number_of_workers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Check how many items are to run at a time."""
    if value is None:
        return None
    if value == "auto":
        return available_cores()
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither 'auto' nor a whole number from 1")
    return int(value)


def number_of_seconds(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Check how long something may take."""
    if value is None:
        return None
    try:
        return seconds(float(value) if value.replace(".", "", 1).isdecimal() else value)
    except ValueError as error:
        raise click.BadParameter(f"{error}. It takes seconds, or such as 10m or 1h30m") from error


def number_of_minutes(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Check a number of minutes; return it as seconds."""
    if value is None:
        return None
    try:
        minutes = float(value)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise click.BadParameter(f"{value!r} is not a number of minutes above 0, such as 90 or 0.5")
    return 60 * minutes


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that select items; it is called with ``selection``."""

    @functools.wraps(command)
    def called(
        *args: Any, failed: bool, missing: bool, items: str | None, condition: str | None, again: bool, **kwargs: Any
    ) -> Any:
        from psyrun.selection import Selection

        return command(*args, selection=Selection(failed, missing, items, condition, again), **kwargs)

    for option in reversed(
        (
            click.option("--failed", is_flag=True, help="Only items that failed."),
            click.option("--missing", is_flag=True, help="Only items that were not tried."),
            click.option("--items", metavar="LIST", help="Only these, such as 3,17,40-60."),
            click.option("--where", "condition", metavar="TEXT", help="Such as 'D > 3 and N == 50'."),
            click.option("--again", is_flag=True, help="Also items that are done; their rows go to the archive."),
        )
    ):
        called = option(called)
    return called
