"""Schedulers by name, so that a task file can say ``scheduler = 'slurm'``; packages add others."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING

from psyrun.errors import TaskError, text_of
from psyrun.scheduler.base import Scheduler
from psyrun.scheduler.local import ImmediateRun, Multiprocessing
from psyrun.scheduler.slurm import Slurm
from psyrun.scheduler.sqsub import Sqsub

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "psyrun.schedulers"
"""Entry points of other packages: a name, and a `Scheduler` class."""

_OURS: dict[str, type[Scheduler]] = {
    "immediate": ImmediateRun,
    "multiprocessing": Multiprocessing,
    "slurm": Slurm,
    "sqsub": Sqsub,
}


def named(name: str) -> type[Scheduler]:
    """Return the class of a scheduler.

    Parameters
    ----------
    name : str
        In letters of any case. Those of psyrun cannot be replaced.

    Raises
    ------
    TaskError
        There is none of that name, or the package that should have it is broken.

    Examples
    --------
    >>> named('multiprocessing')()
    Multiprocessing()
    """
    wanted = name.lower()
    if wanted in _OURS:
        return _OURS[wanted]
    from importlib.metadata import entry_points

    points = {point.name.lower(): point for point in entry_points(group=GROUP)}
    if wanted in points:
        return _loaded(points[wanted], name)
    known = sorted({*_OURS, *points})
    close = difflib.get_close_matches(wanted, known, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    raise TaskError(f"scheduler = {name!r:.80}: there is none of that name. {hint}There are {', '.join(known)}")


def _loaded(point: EntryPoint, name: str) -> type[Scheduler]:
    package = f"the package {point.dist.name}" if point.dist else f"the entry point {point.value}"
    try:
        kind = point.load()
    except Exception as error:  # what other packages do when they are imported
        raise TaskError(
            f"scheduler = {name!r}: {package} has none that works: {type(error).__name__}: {text_of(error)}"
        ) from error
    if not (inspect.isclass(kind) and issubclass(kind, Scheduler)):
        raise TaskError(f"scheduler = {name!r}: what {package} has is no psyrun.scheduler.Scheduler: {kind!r:.60}")
    return kind
