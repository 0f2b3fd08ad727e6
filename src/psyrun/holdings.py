"""The tokens that a worker holds: claimed, dealt in blocks of positions, finished or handed back."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from psyrun.claims import HELD, OPEN, Observer, Token
from psyrun.errors import FencedError
from psyrun.plan import Plan, WorkList
from psyrun.scan import read
from psyrun.terms import NO_JOB
from psyrun.workdir import Workdir

_FRESH = 0.1
"""Seconds for which a list of open tokens is good where workers open others."""
_WORTH = 0.5
"""Seconds of work that are not worth sharing."""
_LINGER = 2.0
"""Seconds to wait for others to open some of what they hold."""

Block = tuple[int, int]
"""First and last of a run of positions in the work list."""


@dataclass
class Holding:
    """A token of ours.

    Attributes
    ----------
    pending : deque of Block
        Positions that nobody works on.
    dealt : int
        How many positions are being worked on.
    parts : set of int
        Descriptors of the parts that its rows went to.
    """

    token: Token
    pending: deque[Block]
    dealt: int = 0
    parts: set[int] = field(default_factory=set)


class Holdings:
    """The tokens of one plan that one worker holds.

    Parameters
    ----------
    workdir : Workdir
    plan : Plan
    worker : str
        Its id.
    observer : Observer
        Tells which other workers are dead.
    sync : callable
        Called with the parts of a token before it is marked as done; makes them durable.
    done : callable
        Called with a token after it was.
    covers : callable
        From first and last position to whether this worker may claim them.
    """

    def __init__(
        self,
        workdir: Workdir,
        plan: Plan,
        worker: str,
        observer: Observer,
        sync: Callable[[set[int]], None],
        done: Callable[[Token], None],
        covers: Callable[[int, int], bool] = NO_JOB.covers,
    ):
        self._workdir = workdir
        self._plan = plan
        self._worker = worker
        self._observer = observer
        self._sync = sync
        self._done = done
        self._covers = covers
        self._claims = plan.claims(worker)
        self._held: list[Holding] = []
        self._over: list[Holding] = []
        self._candidates: deque[Token] = deque()
        self._listed = 0.0
        self._empty_since: float | None = None

    def __bool__(self) -> bool:
        return bool(self._held)

    def more(self) -> bool:
        """Whether there is something to do: held, or to be claimed."""
        return bool(self._held) or self._claim()

    def expects(self) -> bool:
        """Whether others may open some of what they hold, so that it is worth to stay for a moment."""
        if not self._plan.balances:
            return False
        now = time.monotonic()
        self._empty_since = now if self._empty_since is None else self._empty_since
        return now - self._empty_since < _LINGER and any(len(token) > 1 for token in self._others())

    def share(self, seconds_per_item: float) -> None:
        """Open half of what nobody works on here, if it takes long and others find little that they could claim."""
        if not self._plan.balances or not self._held or time.monotonic() < self._listed + _FRESH:
            return
        most = max(self._held, key=_n_at_the_end)
        n, least = _n_at_the_end(most), self._plan.min_items
        n_given = max(n - n // 2, least)
        at = most.token.last - n_given + 1
        if n < n_given or at <= most.token.first or n * seconds_per_item < _WORTH:
            return
        self._list()
        if len(self._candidates) >= max(1, len({token.worker for token in self._others()})):
            return
        with suppress(OSError):  # then this worker does it all
            self._open_from(most, at)

    def let_go(self) -> None:
        """Open to others what nobody works on here: whole tokens, and the ends of others."""
        for holding in list(self._held):
            with suppress(OSError):  # it is handed back in the end
                if not holding.dealt:
                    self._sync(holding.parts)
                    self._claims.hand_back(holding.token)
                    self._held.remove(holding)
                elif n := _n_at_the_end(holding):
                    self._open_from(holding, holding.token.last - n + 1)

    def _open_from(self, holding: Holding, at: int) -> None:
        """Open the positions of a token from one on, on which nobody works."""
        holding.token = self._claims.share(holding.token, at)
        first, _ = holding.pending.pop()
        if first < at:
            holding.pending.append((first, at - 1))
        self._look_if_over(holding)

    def take(self, most: int, shares: int) -> tuple[Holding, Block] | None:
        """Take positions to work on: up to ``most``; towards the end of a token one of ``shares`` of what it has left.

        Then its last items are not all left to one child; but a tenth of ``most`` is always worth a message.
        """
        holding = self._with_pending()
        while holding is None and self._claim():
            holding = self._with_pending()  # all of it may be on record
        if holding is None:
            return None
        first, last = holding.pending.popleft()
        left = last - first + 1 + sum(b - a + 1 for a, b in holding.pending)
        end = min(last, first + max(1, min(max(-(-left // shares), most // 10), most)) - 1)
        if end < last:
            holding.pending.appendleft((end + 1, last))
        holding.dealt += end - first + 1
        return holding, (first, end)

    def give_back(self, holding: Holding, block: Block, rest: Sequence[Block] = ()) -> None:
        """Note that a block is worked on, up to a rest that is to be dealt again."""
        holding.dealt -= block[1] - block[0] + 1
        holding.pending.extendleft(reversed(rest))
        self._look_if_over(holding)

    def finish(self) -> None:
        """Mark tokens as done that are worked on to their end, with their rows durable. A disk may take its time."""
        while self._over:
            holding = self._over[0]
            self._sync(holding.parts)
            self._claims.finish(holding.token)
            del self._over[0]
            self._done(holding.token)

    def not_on_record(self, block: Block, paths: Iterable[Path]) -> list[Block]:
        """Return the runs of positions in a block that parts of this plan say nothing of."""
        seen: set[int] = set()
        for path in [*paths, *self._workdir.parts.glob(f"{self._worker}-s-0")]:
            part = read(path)
            if part.header.get("plan") == self._plan.uid:
                seen.update(part.indices.tolist())
                seen.update(failure.index for failure in part.failures)
        return absent(self._plan.work(), block, seen)

    def check_still_ours(self) -> None:
        """Raise a FencedError if another worker took over what this one holds."""
        there = set(self._claims.tokens(HELD))
        for holding in [*self._held, *self._over]:
            if holding.token not in there:
                first, last = holding.token.first, holding.token.last
                raise FencedError(f"chunk {first}-{last} was taken over by another worker")

    def hand_back(self) -> None:
        """Open everything to others that is not worked on to its end."""
        while self._over:
            try:
                self.finish()
            except (OSError, FencedError):
                self._held.append(self._over.pop(0))
        for holding in self._held:
            with suppress(OSError):
                self._claims.hand_back(holding.token)

    def _with_pending(self) -> Holding | None:
        return next((holding for holding in self._held if holding.pending), None)

    def _look_if_over(self, holding: Holding) -> None:
        if not holding.dealt and not holding.pending:
            self._held.remove(holding)
            self._over.append(holding)

    def _claim(self) -> bool:
        """Claim an open token, or take over that of a dead worker; return whether there was one."""
        if self._plan.balances and time.monotonic() > self._listed + _FRESH:
            self._candidates.clear()
        n_open, hurries = sys.maxsize, True
        while not self._claim_listed(hurries):
            self._list()
            if not self._candidates or not hurries:
                break
            # The list of a network file system may stay as it was: then each token of it is tried.
            n_open, hurries = len(self._candidates), len(self._candidates) < n_open
        else:
            self._empty_since = None
            return True
        others = self._others()
        return any(self._hold(self._claims.take_over(t)) for t in others if self._observer.dead(t.worker))

    def _claim_listed(self, hurries: bool) -> bool:
        """Claim a token of the list; return whether there was one.

        Others claim in the same order. Who hurries steps over what they have by now, twice as many each time.
        """
        lost = 0
        while self._candidates:
            if self._hold(self._claims.claim(self._candidates.popleft())):
                return True
            for _ in range(min(lost, len(self._candidates)) if hurries else 0):
                self._candidates.popleft()
            lost = 2 * lost + 1
        return False

    def _list(self) -> None:
        """Find out what is open."""
        self._candidates = deque(filter(self._is_for_us, self._claims.tokens(OPEN)))
        self._listed = time.monotonic()

    def _others(self) -> list[Token]:
        """Return what others hold of what this worker may claim."""
        held = self._claims.tokens(HELD)
        return [token for token in held if token.worker != self._worker and self._is_for_us(token)]

    def _is_for_us(self, token: Token) -> bool:
        return self._covers(token.first, token.last)

    def _hold(self, token: Token | None) -> bool:
        """Take up a token that a rename made ours, if it did."""
        if token is None:
            return False
        pending = [(token.first, token.last)]
        if token.epoch:  # somebody began it: run only what no part of this plan has
            pending = self.not_on_record(pending[0], self._workdir.part_paths())
        holding = Holding(token, deque(pending))
        self._held.append(holding)
        self._look_if_over(holding)
        return True


def _n_at_the_end(holding: Holding) -> int:
    """Return how many positions at the end of a token nobody works on."""
    first, last = holding.pending[-1] if holding.pending else (0, -1)
    return last - first + 1 if last == holding.token.last else 0


def absent(work: WorkList, block: Block, seen: set[int]) -> list[Block]:
    """Return the runs of positions in a block whose indices were not seen.

    >>> import numpy as np
    >>> absent(WorkList(np.array([[10, 20]])), (0, 5), {11, 12})
    [(0, 0), (3, 5)]
    """
    runs: list[Block] = []
    position = block[0]
    for start, stop in work.indices(*block):
        for index in range(start, stop):
            if index not in seen:
                if runs and runs[-1][1] == position - 1:
                    runs[-1] = (runs[-1][0], position)
                else:
                    runs.append((position, position))
            position += 1
    return runs
