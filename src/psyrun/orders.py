"""Orders: what workers are told while they work, as empty files that they look for.

``paused`` in a work directory is for the workers of all its plans: they begin nothing more until it is gone.
``drain`` in a plan is for those of this plan: they finish what they have in hand and leave, and it has no others.
``shared`` in a plan has them open to others some of what they hold, as with a backend that balances the load.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from psyrun.claims import HELD, OPEN
from psyrun.errors import trouble
from psyrun.files import sync_directory
from psyrun.plan import SHARED, Plan
from psyrun.workdir import Workdir

_PAUSED, _DRAIN = "paused", "drain"
_LOOK_SECONDS = 1.0
_SAYS_DRAINED = "drained: leaves when what is in hand is finished"
_SAYS_PAUSED = "paused: begins nothing more, until psy-doit resume"


def pause(workdir: Workdir) -> bool:
    """Have all workers begin nothing more; return whether they were not told before."""
    return _given(workdir.path / _PAUSED)


def resume(workdir: Workdir) -> bool:
    """Have them go on; return whether they were told to pause."""
    path = workdir.path / _PAUSED
    try:
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise trouble(path, error, "cannot be removed") from error
    return True


def drain(plan: Path) -> bool:
    """Have the workers of a plan leave, and no other one work on it; return whether they were not told before."""
    return _given(plan / _DRAIN)


def share(plan: Plan) -> None:
    """Have the workers of a plan share their chunks from now on: others came who would find little to claim."""
    if not plan.balances:
        _given(plan.path / SHARED)
        plan.balances = True


def is_paused(workdir: Workdir) -> bool:
    """Whether workers begin nothing more."""
    return _is_there(workdir.path / _PAUSED)


def paused_since(workdir: Workdir) -> str:
    """Return since when they do not, as people write it; '' if they do."""
    try:
        since = (workdir.path / _PAUSED).stat().st_mtime
    except OSError:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(since))


def is_drained(plan: Path) -> bool:
    """Whether the workers of a plan were told to leave."""
    return _is_there(plan / _DRAIN)


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _given(path: Path) -> bool:
    try:
        path.touch(mode=0o600, exist_ok=False)
        sync_directory(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        raise trouble(path, error, "cannot be made") from error
    return True


class Orders:
    """What one worker is told, looked for once a second.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
        What it works on.
    note : callable
        Called with a line when it is told something else.
    """

    def __init__(self, workdir: Workdir, plan: Plan, note: Callable[[str], None]):
        self._workdir = workdir
        self._plan = plan
        self._note = note
        self._paused = self._drained = False
        self._next = 0.0

    def waits(self) -> bool:
        """Whether it begins nothing for the time being, though something is left to be done."""
        self._look()
        if not self._paused:
            return False
        claims = self._plan.claims()
        return claims.has(OPEN) or claims.has(HELD)

    @property
    def drained(self) -> bool:
        """Whether it begins nothing any more."""
        self._look()
        return self._drained

    def _look(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOOK_SECONDS
            before = self._paused, self._drained
            self._paused = is_paused(self._workdir)
            self._drained = self._drained or is_drained(self._plan.path)
            self._plan.balances = self._plan.balances or _is_there(self._plan.path / SHARED)
            if before != (self._paused, self._drained):
                self._note(_SAYS_DRAINED if self._drained else _SAYS_PAUSED if self._paused else "goes on")
