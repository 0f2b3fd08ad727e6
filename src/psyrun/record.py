"""The record: all parts of a work directory, and where their rows stand in a parameter space."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun.arrays import Array
from psyrun.keys import Lanes
from psyrun.parts import Batch, Failure, Part, read
from psyrun.workdir import Workdir

Lookup = Callable[[Lanes], npt.NDArray[np.int64]]


def read_parts(workdir: Workdir) -> list[Part]:
    """Read all parts of a work directory, by name."""
    parts = []
    for path in workdir.part_paths():
        with suppress(FileNotFoundError):  # another command put the record into the archive
            parts.append(read(path))
    return parts


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
    batches: list[tuple[Batch, npt.NDArray[np.int64]]]
    duplicates: int
    strangers: int
    elsewhere: list[Part]

    def column(self, name: str, objects_ok: bool) -> Array | list[Any] | None:
        """Return the values of a column in the order of the space, None where a row lacks it; None if all do."""
        pieces = [(batch.column(name, objects_ok), items) for batch, items in self.batches]
        found = [piece for piece, _ in pieces if piece is not None]
        if not found:
            return None
        rank = np.cumsum(self.done) - 1
        same = {(p.dtype, p.shape[1:]) for p in found if isinstance(p, np.ndarray)}
        if len(found) == len(pieces) and len(same) == 1 and all(isinstance(p, np.ndarray) for p in found):
            dtype, shape = same.pop()
            column = np.empty((int(self.done.sum()), *shape), dtype=dtype)
            for piece, items in pieces:
                wanted = items >= 0
                column[rank[items[wanted]]] = piece[wanted]  # type: ignore[index]
            return column
        values: list[Any] = [None] * int(self.done.sum())
        for piece, items in pieces:
            if piece is not None:
                for value, item in zip(piece, items.tolist(), strict=True):
                    if item >= 0:
                        values[rank[item]] = value
        return values

    def without(self, left_out: Collection[int]) -> Placement:
        """Return the same without the rows of some items."""
        gone = np.zeros(len(self.done), dtype=bool)
        gone[list(left_out)] = True
        batches = [(batch, np.where((items >= 0) & gone[items], -1, items)) for batch, items in self.batches]
        return replace(self, done=self.done & ~gone, batches=batches)

    def names(self) -> list[str]:
        """Return the names of all columns, in the order of their first row."""
        return list(dict.fromkeys(name for batch, _ in self.batches for name, _, _ in batch.schema.columns))


def by_code(parts: Iterable[Part]) -> dict[str, int]:
    """Return how many rows each code digest computed."""
    counts: dict[str, int] = {}
    for part in parts:
        rows = sum(len(b.rows) for b in part.batches)
        if rows:
            counts[part.header["code"]] = counts.get(part.header["code"], 0) + rows
    return counts


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
    strangers = 0
    elsewhere = []
    for part in accepted:
        here = part.header.get("space") == space
        if not here:
            elsewhere.append(part)
        indices = part.indices if here else lookup(part.keys)
        indices = np.where(indices < n_items, indices, -1)
        strangers += int((indices < 0).sum())
        at = 0
        for batch in part.batches:
            turn = next((t for t, size in turns.get(part.name, ()) if batch.offset < size), len(counted))
            batches.append((turn, batch, indices[at : at + len(batch.rows)]))
            at += len(batch.rows)
        _add_failures(failures, part.failures, here, n_items, lookup)
    batches.sort(key=lambda entry: entry[0])
    return _first_rows([(b, i) for _, b, i in batches], n_items, failures, strangers, elsewhere)


def _add_failures(failures: dict[int, Failure], found: list[Failure], here: bool, n_items: int, lookup: Lookup) -> None:
    if not found:
        return
    keys = np.array([f.key for f in found], dtype=np.uint64)
    indices = [f.index for f in found] if here else lookup(keys).tolist()
    for failure, index in zip(found, indices, strict=True):
        if 0 <= index < n_items and (index not in failures or failure.start >= failures[index].start):
            failures[index] = failure


def _first_rows(
    batches: list[tuple[Batch, npt.NDArray[np.int64]]],
    n_items: int,
    failures: dict[int, Failure],
    strangers: int,
    elsewhere: list[Part],
) -> Placement:
    """Keep the first row of each item."""
    done = np.zeros(n_items, dtype=bool)
    kept = []
    duplicates = 0
    for batch, items in batches:
        seen = np.zeros(len(items), dtype=bool)
        inside = items >= 0
        seen[inside] = done[items[inside]]
        fresh = np.zeros(len(items), dtype=bool)
        fresh[np.unique(items, return_index=True)[1]] = True
        fresh &= inside & ~seen
        duplicates += int((inside & ~fresh).sum())
        done[items[fresh]] = True
        if fresh.any():
            kept.append((batch, np.where(fresh, items, -1)))
    failures = {i: f for i, f in sorted(failures.items()) if not done[i]}
    return Placement(done, failures, kept, duplicates, strangers, elsewhere)
