"""Which items a run is about, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from psyrun.plan import Mask
from psyrun.select import items_of, matching
from psyrun.state import State


@dataclass(frozen=True)
class Selection:
    """A part of the items of a task.

    Attributes
    ----------
    failed, missing : bool
        Only items that failed; only items that were not tried. Both together are the same as neither.
    items : str
        Numbers and ranges, '' for all.
    where : str
        A condition on the parameters, '' for none.
    again : bool
        Whether items that are done are computed again, too.
    """

    failed: bool = False
    missing: bool = False
    items: str = ""
    where: str = ""
    again: bool = False

    def __bool__(self) -> bool:
        return self.failed or self.missing or self.again or bool(self.items or self.where)

    def chosen(self, state: State) -> Mask:
        """Return which items are meant, whether they are done or not.

        Raises
        ------
        SelectionError
            The list or the condition is wrong.
        """
        space = state.task.pspace
        chosen = np.ones(len(space), dtype=bool)
        if self.items:
            chosen &= items_of(self.items, len(space))
        if self.where:
            chosen &= matching(self.where, space)
        if self.failed != self.missing:
            chosen &= state.failed if self.failed else ~state.failed
        return chosen

    def todo(self, state: State) -> Mask:
        """Return which items to compute that are not done, nor being computed."""
        return state.missing & self.chosen(state) if self else state.missing

    def done(self, state: State) -> Mask:
        """Return which items are meant that are done."""
        return state.done & self.chosen(state)
