"""What items cost until now, as the record tells: time, memory, and what of it was in vain."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psyrun.keys import Lanes
from psyrun.parts import Failure
from psyrun.scan import Part, opened
from psyrun.terms import JOB_TIME


@dataclass(frozen=True)
class Measured:
    """What the record tells of the cost of items.

    Attributes
    ----------
    seconds : array of float64
        How long the rows took whose code counts, or all rows if there are none; the first of each item.
    failed : list of Failure
        All attempts that failed.
    used : float
        Seconds of all rows and failed attempts, of any code.
    twice : float
        Of these, the seconds of rows that another row of their item and code came before.
    n_twice : int
    peak : int
        Bytes of memory that a process used at most; 0 if it is not known.
    n_bytes, n_rows : int
        Of the record, whatever the code.
    """

    seconds: npt.NDArray[np.float64]
    failed: list[Failure] = field(default_factory=list)
    used: float = 0.0
    twice: float = 0.0
    n_twice: int = 0
    peak: int = 0
    n_bytes: int = 0
    n_rows: int = 0

    @property
    def longest(self) -> float:
        """How long an item took at most, or did not suffice for."""
        short = [failure.duration for failure in self.failed if failure.type == JOB_TIME]
        return float(max([*short, self.seconds.max(initial=0.0)]))

    @property
    def wasted(self) -> float:
        """Seconds of what gave no row, or one that does not count."""
        return self.twice + sum(failure.duration for failure in self.failed)


def measured(parts: Sequence[Part], accepts: Collection[str]) -> Measured:
    """Return what parts tell.

    Parameters
    ----------
    parts : sequence of Part
    accepts : collection of str
        Code digests whose rows count.
    """
    failed = [failure for part in parts for failure in part.failures]
    counted = [part for part in parts if part.header.get("code") in accepts]
    used, twice, n_twice, kept = sum(failure.duration for failure in failed), 0.0, 0, np.empty(0)
    for code in {part.header["code"] for part in parts if part.batches}:
        keys, seconds = _rows([part for part in parts if part.header["code"] == code])
        first = _first(keys)
        known = np.isfinite(seconds)  # rows that were adopted have none
        used += float(seconds[known].sum())
        twice += float(seconds[known & ~first].sum())
        n_twice += int(np.count_nonzero(~first))
        if code in accepts or not any(part.batches for part in counted):
            kept = np.concatenate([kept, seconds[known & first]])
    return Measured(
        kept,
        failed,
        used,
        twice,
        n_twice,
        max((part.peak for part in counted or parts), default=0),
        sum(part.file_size for part in parts),
        sum(batch.n_rows for part in parts for batch in part.batches),
    )


def _rows(parts: Iterable[Part]) -> tuple[Lanes, npt.NDArray[np.float64]]:
    """Return keys, shape (n, 2), and durations of all rows; of the parts' other bytes nothing is kept."""
    keys, seconds = [np.empty((0, 2), np.uint64)], [np.empty(0)]
    for part in sorted(parts, key=lambda part: part.name):
        for batch in part.batches:
            with opened(batch.path) as file:
                rows = batch.read(file, 0, batch.n_rows)
            keys.append(rows["key"].copy())
            seconds.append(rows["duration"].copy())
    return np.concatenate(keys), np.concatenate(seconds)


def _first(keys: Lanes) -> npt.NDArray[np.bool_]:
    """Return which keys are not among those before."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # keeps the order of equal ones
    differs = np.ones(len(keys), dtype=bool)
    differs[1:] = (keys[order[1:]] != keys[order[:-1]]).any(axis=1)
    first = np.zeros(len(keys), dtype=bool)
    first[order[differs]] = True
    return first
