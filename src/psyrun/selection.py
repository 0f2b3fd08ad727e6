"""Which items a run is about, as the command line says it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from psyrun.plan import Mask
from psyrun.state import State


@dataclass(frozen=True)
class Selection:
    """A part of the items of a task.

    Attributes
    ----------
    failed, missing : bool
        Only items that failed; only items that were not tried. Both together are the same as neither.
    items : str or None
        Numbers and ranges, None for all.
    where : str or None
        A condition on the parameters.
    again : bool
        Whether items that are done are computed again, too.
    """

    failed: bool = False
    missing: bool = False
    items: str | None = None
    where: str | None = None
    again: bool = False

    def __bool__(self) -> bool:
        return self.failed or self.missing or self.again or self.items is not None or self.where is not None

    def chosen(self, state: State) -> Mask:
        """Return which items are meant, whether they are done or not.

        Raises
        ------
        SelectionError
            The list or the condition is wrong.
        """
        space = state.task.pspace
        chosen = np.ones(len(space), dtype=bool)
        if not self:
            return chosen
        from psyrun.select import items_of, matching  # not quick to import

        if self.items is not None:
            chosen &= items_of(self.items, len(space))
        if self.where is not None:
            chosen &= matching(self.where, space)
        if self.failed != self.missing:
            chosen &= state.failed if self.failed else ~state.failed
        return chosen
