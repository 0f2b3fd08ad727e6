"""How the items of a plan are dealt into chunks: what one claim covers."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["Backend", "DistributeBackend", "LoadBalancingBackend"]


class Backend(ABC):
    """Cuts a work list into chunks."""

    @abstractmethod
    def sizes(self, n_items: int, max_jobs: int, min_items: int) -> list[int]:
        """Return the sizes of the chunks, all at least 1, their sum n_items."""

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
    """Many chunks, large ones first: max_jobs workers take the next when they are done with one.

    Each round hands out half of what is left, evenly: "factoring", Hummel, Schonberg and Flynn (1992).

    >>> LoadBalancingBackend().sizes(20, max_jobs=2, min_items=1)
    [5, 5, 3, 3, 1, 1, 1, 1]
    """

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
