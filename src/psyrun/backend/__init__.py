"""How the items of a plan are dealt into chunks: what one claim covers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["Backend", "DistributeBackend", "LoadBalancingBackend"]


class Backend(ABC):
    """Cuts a work list into chunks.

    Attributes
    ----------
    balances : bool
        Whether the longest items come first, where it is known how long they take, and workers open half of what is
        left of their chunks to others that would have nothing to do.
    """

    balances: ClassVar[bool] = False

    @abstractmethod
    def sizes(self, n_items: int, max_jobs: int, min_items: int) -> list[int]:
        """Return the sizes of the chunks, all at least 1, their sum n_items."""

    def sizes_by_seconds(self, seconds: npt.NDArray[Any], max_jobs: int, min_items: int) -> list[int]:
        """Return the same where it is known how long the items take, in their order; a backend may leave that out.

        Parameters
        ----------
        seconds : array of float64, shape (n_items,)
            All above 0.
        max_jobs, min_items : int
        """
        return self.sizes(len(seconds), max_jobs, min_items)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class DistributeBackend(Backend):
    """One chunk a job: as many as max_jobs and min_items allow, of sizes that differ by at most one.

    >>> DistributeBackend().sizes(9, max_jobs=6, min_items=1)
    [2, 2, 2, 1, 1, 1]
    """

    def sizes(self, n_items: int, max_jobs: int, min_items: int) -> list[int]:
        """Return min(max_jobs, ceil(n_items / min_items)) sizes, the larger first."""
        if not n_items:
            return []
        n_chunks = min(max_jobs, -(-n_items // min_items))
        size, larger = divmod(n_items, n_chunks)
        return [size + 1] * larger + [size] * (n_chunks - larger)


class LoadBalancingBackend(Backend):
    """Many chunks, large ones first: workers take the next when they are done with one.

    Each round hands out half of what is left, evenly: "factoring", Hummel, Schonberg and Flynn (1992). Half of the
    items, as long as nothing is known of them; half of the time, where an earlier run, or `cost`, tells how long they
    take. When hardly any chunk is left that could be claimed, workers with slow items give back half of theirs.

    >>> LoadBalancingBackend().sizes(20, max_jobs=2, min_items=1)
    [5, 5, 3, 3, 1, 1, 1, 1]
    """

    balances: ClassVar[bool] = True

    def sizes(self, n_items: int, max_jobs: int, min_items: int) -> list[int]:
        """Return sizes that shrink to min_items."""
        sizes: list[int] = []
        left = n_items
        while left:
            size = max(min_items, -(-left // (2 * max_jobs)))
            for _ in range(max_jobs):
                if left:
                    sizes.append(min(size, left))
                    left -= sizes[-1]
        return sizes

    def sizes_by_seconds(self, seconds: npt.NDArray[Any], max_jobs: int, min_items: int) -> list[int]:
        """Return sizes of chunks that take ever shorter, down to single items.

        >>> LoadBalancingBackend().sizes_by_seconds(np.array([8.0, 4.0, 1.0, 1.0, 1.0, 1.0]), max_jobs=2, min_items=1)
        [1, 1, 1, 1, 1, 1]
        """
        if not len(seconds):
            return []
        ends = np.cumsum(np.maximum(seconds, seconds.mean() / 1000))  # or no end of them would be one chunk
        sizes: list[int] = []
        first, before = 0, 0.0
        while first < len(ends):
            share = (ends[-1] - before) / (2 * max_jobs)
            for _ in range(max_jobs):
                if first < len(ends):
                    most = before + min(share, (ends[-1] - before) / max_jobs)
                    stop = int(np.searchsorted(ends, most, side="right"))
                    stop = min(max(stop, first + min_items), len(ends))
                    sizes.append(stop - first)
                    first, before = stop, float(ends[stop - 1])
        return sizes
