"""Early stop: when items fail alike one after another, the next ones will too."""

from __future__ import annotations

from psyrun.errors import EarlyStopError
from psyrun.parts import cause_of

_FIRST = 3
_LATER = 50


class Streak:
    """How many of the last items failed alike: with the same exception at the same line.

    Parameters
    ----------
    n_workers : int
        How many items run at a time: so many first ones, and at least 3, must fail alike before none is tried any more.
    any_succeeded : bool
        Whether items were computed before, by this code.
    ends : bool
        Whether it ends at all: not where `early_stop` is false.
    """

    def __init__(self, n_workers: int, any_succeeded: bool = False, ends: bool = True):
        self._ends = ends
        self._first = max(_FIRST, n_workers)
        self._cause: tuple[str, str] | None = None
        self._length = 0
        self._any_succeeded = any_succeeded

    def succeeded(self, n: int) -> None:
        """Note that so many items were computed."""
        if n:
            self._any_succeeded = True
            self._length = 0

    def failed(self, kind: str, where: str, message: str) -> None:
        """Note that an item failed.

        Raises
        ------
        EarlyStopError
            It is one too many.
        """
        cause = cause_of(kind, where, message)
        self._length = self._length + 1 if cause == self._cause else 1
        self._cause = cause
        most = _LATER if self._any_succeeded else self._first
        if self._length >= most and self._ends:
            which = f"the last {most}" if self._any_succeeded else f"the first {most}"
            at = f" at {where}" if where else ""
            first = message.splitlines()[0] if message else ""
            raise EarlyStopError(f"{which} items all failed alike ({kind}{at}{f': {first:.200}' if first else ''})")
