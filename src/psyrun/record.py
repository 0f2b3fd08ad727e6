"""The record: all parts of a work directory, and where their rows stand in a parameter space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.columns import HIDDEN
from psyrun.keys import Lanes
from psyrun.parts import VARIABLE, Failure, cause_of
from psyrun.scan import Batch, Part, opened, read
from psyrun.workdir import Workdir

Lookup = Callable[[Lanes], npt.NDArray[np.int64]]
Placed = tuple[Batch, npt.NDArray[Any]]


def read_parts(workdir: Workdir) -> list[Part]:
    """Read all parts of a work directory, by name."""
    parts = []
    for path in workdir.part_paths():
        with suppress(FileNotFoundError):  # another command put the record into the archive
            parts.append(read(path))
    return parts


@dataclass(frozen=True)
class Cause:
    """Failures that have one: the same exception at the same line.

    Attributes
    ----------
    count : int
    item : int
        The first of the items.
    failure : Failure
        That of this item.
    """

    count: int
    item: int
    failure: Failure


def causes(failures: Mapping[int, Failure]) -> list[Cause]:
    """Return failures, by item, grouped by cause, the most frequent first."""
    found = {item: cause_of(failures[item].type, failures[item].where, failures[item].message) for item in failures}
    counts = Counter(found.values())
    first: dict[tuple[str, str], int] = {}
    for item in sorted(failures):
        first.setdefault(found[item], item)
    return [Cause(count, first[cause], failures[first[cause]]) for cause, count in counts.most_common()]


@dataclass
class Placement:
    """Where the rows of a record stand in a space of n items.

    Attributes
    ----------
    done : array of bool, shape (n,)
        Which items have a row.
    failures : dict of int to Failure
        The last failure of each item without a row.
    batches : list of (Batch, array)
        Rows, and for each the item whose result it is, or -1 if it is not in the space or another row of its item
        was there before. Those without any result are left out.
    duplicates, strangers : int
        Rows of items that have another row; rows that are not in the space.
    elsewhere : list of Part
        Parts whose rows were recorded under another space.
    """

    done: npt.NDArray[np.bool_]
    failures: dict[int, Failure]
    batches: list[Placed]
    duplicates: int
    strangers: int
    elsewhere: list[Part]

    @property
    def n_done(self) -> int:
        """How many items have a row."""
        return int(np.count_nonzero(self.done))

    def regular(self, name: str) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
        """Return dtype and shape of the cells of a column, if they are the same in all rows."""
        found = {batch.schema.cells(name) for batch, _ in self.batches}
        cells = found.pop() if len(found) == 1 else None
        return None if cells is None or cells[0] == VARIABLE else (np.dtype(cells[0]), cells[1])

    def column(self, name: str, objects_ok: bool, absent: Sequence[Any] | None = None) -> list[Any] | None:
        """Return the values of a column in the order of the space; None if all rows lack it.

        Rows that lack it have None, or their value of ``absent``.
        """
        values: list[Any] = [None] * self.n_done if absent is None else list(absent)
        rank = np.cumsum(self.done) - 1
        found = False
        for batch, items in self.batches:
            piece = batch.column(name, objects_ok)
            if piece is not None:
                found = True
                for value, item in zip(piece, items.tolist(), strict=True):
                    if item >= 0:
                        values[rank[item]] = value
        return values if found else None

    def without(self, left_out: Collection[int]) -> Placement:
        """Return the same without the rows of some items."""
        gone = np.zeros(len(self.done), dtype=bool)
        gone[list(left_out)] = True
        left = ((batch, np.where((items >= 0) & gone[items], -1, items)) for batch, items in self.batches)
        return replace(self, done=self.done & ~gone, batches=_with_rows(left))

    def seconds(self) -> npt.NDArray[np.float64]:
        """Return how long some of the items took."""
        return durations([batch for batch, _ in self.batches])

    def lacking(self) -> dict[str, int]:
        """Return how many rows lack a column that others have, by column."""
        counts: Counter[str] = Counter()
        names = [name for name in self.names() if not name.startswith(HIDDEN)]
        for batch, items in self.batches:
            absent = [name for name in names if batch.schema.cells(name) is None]
            counts.update(dict.fromkeys(absent, int(np.count_nonzero(items >= 0))) if absent else {})
        return dict(counts)

    def names(self) -> list[str]:
        """Return the names of all columns, in the order of their first row."""
        schemas = {id(batch.schema): batch.schema for batch, _ in self.batches}
        return list(dict.fromkeys(name for schema in schemas.values() for name, _, _ in schema.columns))


def durations(batches: Sequence[Batch], most: int = 10_000) -> npt.NDArray[np.float64]:
    """Return how long rows took, in seconds: of about so many at most, spread evenly."""
    found = [np.empty(0)]
    for batch in batches[:: max(1, len(batches) // 100)]:
        with opened(batch.path) as file:
            found.append(batch.read(file, 0, min(batch.n_rows, most // 100))["duration"])
    seconds = np.concatenate(found)
    return seconds[np.isfinite(seconds)]  # rows that were adopted have none


def _with_rows(batches: Iterable[Placed]) -> list[Placed]:
    return [(batch, items) for batch, items in batches if (items >= 0).any()]


def by_code(parts: Iterable[Part]) -> dict[str, int]:
    """Return how many rows each code digest computed."""
    counts: dict[str, int] = {}
    for part in parts:
        rows = sum(b.n_rows for b in part.batches)
        if rows:
            counts[part.header["code"]] = counts.get(part.header["code"], 0) + rows
    return counts


def damaged(parts: Iterable[Part]) -> list[str]:
    """Return the names of the parts that have unreadable stretches."""
    return [part.name for part in parts if part.damage or (part.file_size and not part.header)]


def place(
    parts: Iterable[Part],
    space: str,
    n_items: int,
    lookup: Lookup,
    accepts: Collection[str],
    merged: Sequence[tuple[str, int]] | Mapping[str, int] = (),
) -> Placement:
    """Find where the rows of parts stand in a space.

    Parameters
    ----------
    parts : iterable of Part
    space : str
        The digest of the space. Rows recorded under it stand at their index, others are looked up by key.
    n_items : int
    lookup : callable
        From keys, shape (n, 2), to indices in the space, -1 for none.
    accepts : collection of str
        Code digests whose rows count.
    merged : sequence of (str, int), or dict
        Names of parts, and the bytes up to which their rows were counted, in the order in which they were: a row that
        was counted wins over duplicates that came later.
    """
    counted = list(merged.items() if isinstance(merged, Mapping) else merged)
    turns: dict[str, list[tuple[int, int]]] = {}
    for turn, (name, size) in enumerate(counted):
        turns.setdefault(name, []).append((turn, size))
    accepted = sorted((p for p in parts if p.header.get("code") in accepts), key=lambda p: p.name)
    batches: list[tuple[int, Batch, npt.NDArray[np.int64]]] = []
    failures: dict[int, Failure] = {}
    elsewhere = []
    for part in accepted:
        here = part.header.get("space") == space
        if not here:
            elsewhere.append(part)
            found = lookup(part.keys)
        at = 0
        before = [(turn, part.size) for turn, _ in turns.get(part.header.get("replaces", ""), [])[:1]]
        for turn, batch in _in_turn(part, before or turns.get(part.name, []), len(counted)):
            batches.append((turn, batch, batch.indices if here else found[at : at + batch.n_rows]))
            at += batch.n_rows
        rung = part.header.get("rung", 0)
        _add_failures(failures, [replace(f, rung=rung) for f in part.failures], here, n_items, lookup)
    batches.sort(key=lambda entry: entry[0])
    return _first_rows([(b, i) for _, b, i in batches], n_items, failures, elsewhere)


def _in_turn(part: Part, turns: Sequence[tuple[int, int]], last: int) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of a part, and at which turn their rows were counted first."""
    if not turns or (len(turns) == 1 and turns[0][1] >= part.size):
        turn = turns[0][0] if turns else last
        yield from ((turn, batch) for batch in part.batches)
        return
    for whole in part.batches:
        pieces = [whole]
        for size in sorted(size for _, size in turns):
            pieces[-1:] = pieces[-1].cut(size)  # where a merge counted only the first of its rows
        for batch in pieces:
            yield next((turn for turn, size in turns if batch.offset < size), last), batch


def _add_failures(failures: dict[int, Failure], found: list[Failure], here: bool, n_items: int, lookup: Lookup) -> None:
    if not found:
        return
    keys = np.array([f.key for f in found], dtype=np.uint64)
    indices = [f.index for f in found] if here else lookup(keys).tolist()
    for failure, index in zip(found, indices, strict=True):
        if 0 <= index < n_items and (index not in failures or failure.start >= failures[index].start):
            failures[index] = failure


def _first_rows(
    batches: list[Placed],
    n_items: int,
    failures: dict[int, Failure],
    elsewhere: list[Part],
) -> Placement:
    """Keep the first row of each item."""
    items: npt.NDArray[Any] = np.concatenate([np.empty(0, np.int64), *(indices for _, indices in batches)])
    items[(items >= n_items) | (items < 0)] = -1
    if n_items < 2**31:
        items = items.astype(np.int32)
    numbers: npt.NDArray[Any] = np.arange(len(items), dtype=np.int32 if len(items) < 2**31 else np.int64)
    first: npt.NDArray[Any] = np.full(n_items + 1, -1, dtype=numbers.dtype)
    first[items[::-1]] = numbers[::-1]  # of assignments to one place the last one stays
    inside = items >= 0
    fresh = inside & (first[items] == numbers)
    done: npt.NDArray[np.bool_] = first[:-1] >= 0
    n_inside, n_fresh = int(inside.sum()), int(fresh.sum())
    items[~fresh] = -1
    ends = np.cumsum([0, *(len(indices) for _, indices in batches)]).tolist()
    kept = _with_rows((batch, items[a:b]) for (batch, _), (a, b) in zip(batches, pairwise(ends), strict=True))
    failures = {i: f for i, f in sorted(failures.items()) if not done[i]}
    return Placement(done, failures, kept, n_inside - n_fresh, len(items) - n_inside, elsewhere)
