"""Plans: which items to run, in which chunks, with which code. Immutable once in place."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from psyrun import __version__
from psyrun import keys as _keys
from psyrun.cells import cell, value_of
from psyrun.claims import Claims, Process, Token
from psyrun.errors import TemporaryError
from psyrun.files import as_json, file_checksum, json_checksum, random_name, write_new
from psyrun.keys import Lanes
from psyrun.retries import budgets
from psyrun.taskfiles import CONFIG
from psyrun.tasks import Task, task_from_source
from psyrun.units import seconds
from psyrun.workdir import Place

FORMAT = 1
SHARED = "shared"
"""The file in a plan that has its workers share their chunks, though it was not made so."""

Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


def ranges_of(mask: Mask) -> Indices:
    """Return the runs of true values as rows (start, stop), shape (n, 2).

    >>> ranges_of(np.array([True, True, False, True]))
    array([[0, 2],
           [3, 4]])
    """
    edges = np.diff(np.concatenate(([0], mask.astype(np.int8), [0])))
    return np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], axis=1)


def tokens_of(sizes: Iterable[int]) -> list[Token]:
    """Return the tokens for chunks of these sizes.

    >>> [t.name for t in tokens_of([2, 1])]
    ['0-1.0', '2-2.0']
    """
    ends = np.cumsum([0, *sizes]).tolist()
    return [Token(first, stop - 1) for first, stop in pairwise(ends)]


def packed_mask(mask: Mask) -> str:
    """Return a mask as short text for JSON."""
    return base64.b85encode(zlib.compress(np.packbits(mask).tobytes(), 1)).decode()


def unpacked_mask(text: str, n: int) -> Mask:
    """Return the mask of n values that `packed_mask` made text of."""
    bits = np.frombuffer(zlib.decompress(base64.b85decode(text)), dtype=np.uint8)
    return np.unpackbits(bits, count=n).astype(bool)


def packed_values(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values of parameters as text for JSON."""
    return {name: base64.b85encode(cell(name, value, False)).decode() for name, value in values.items()}


@dataclass(frozen=True)
class Draft:
    """A plan before it stands on disk.

    Attributes
    ----------
    ranges : array, shape (n, 2)
        The work list: ranges start..stop-1 of indices in the space, in the order to run them.
    sizes : list of int
        Items of each chunk.
    accepts : list of str
        Code digests whose rows count as done.
    placed_keys, placed_index : arrays, shape (m, 2) and (m,)
        Where rows recorded under another space stand in this one.
    seed : int
        Of the random numbers of items.
    n_done : int
        Items that have rows already.
    balances : bool
        Whether workers share their chunks, see `psyrun.backend.Backend`.
    seconds : array, shape (n_items,), or None
        How long each item is expected to take.
    measured : bool
        Whether these are seconds, and not just greater for items that take longer.
    groups : list of [first, last, rung]
        Positions of items that need other resources than the rest, and on which rung of the ladders those are. Chunks
        are of one group. Empty: all are of one, on the lowest rung.
    """

    ranges: Indices
    sizes: list[int]
    accepts: list[str]
    placed_keys: Lanes
    placed_index: Indices
    seed: int = 0
    n_done: int = 0
    groups: list[list[int]] = field(default_factory=list)
    balances: bool = False
    seconds: npt.NDArray[np.float64] | None = None
    measured: bool = False

    def write(self, place: Place, task: Task, provenance: Mapping[str, Any]) -> None:
        """Write all files of the plan beside its place."""
        options = {name: repr(value) for name, value in task.options.items() if name not in ("pspace", "execute")}
        content = {
            "format": FORMAT,
            "psyrun": __version__,
            "uid": random_name(),
            "planner": vars(Process.current()),
            "keys": _keys.VERSION,
            "task": task.name,
            "file": str(task.path),
            "cwd": str(task.cwd),
            "code": task.code,
            "accepts": self.accepts,
            "space": task.pspace.digest,
            "parameters": list(task.pspace.parameters),
            "n_items": len(task.pspace),
            "n_work": int((self.ranges[:, 1] - self.ranges[:, 0]).sum()),
            "n_chunks": len(self.sizes),
            "store": f"{type(task.store).__module__}:{type(task.store).__qualname__}",
            "timeout": seconds(task.options["timeout"]) if task.options["timeout"] is not None else None,
            "seed": self.seed,
            "n_done": self.n_done,
            "groups": self.groups,
            "balances": self.balances,
            "measured": self.measured,
            "min_items": task.options["min_items"],
            "retries": budgets(task.options["retries"]),
            "early_stop": task.options["early_stop"],
            "added": packed_values(task.options["added"]),
            "options": options,
            "provenance": dict(provenance),
        }
        work = io.BytesIO()
        sizes = np.array(self.sizes, dtype=np.int64)
        arrays: dict[str, Any] = {"ranges": self.ranges, "sizes": sizes}
        arrays |= {"keys": self.placed_keys, "index": self.placed_index, "seconds": np.empty(0, np.float32)}
        if self.seconds is not None and len(sizes):
            items = WorkList(self.ranges).selection(0, int(sizes.sum()) - 1)
            arrays["seconds"] = self.seconds[items].astype(np.float32)
        np.savez(work, **arrays)
        files = {"work.npz": work.getvalue(), "task.py": task.source.encode(), CONFIG: task.config.encode()}
        for name, data in files.items():
            write_new(place.beside / name, data)
        content["files"] = {name: zlib.crc32(data) for name, data in files.items()}
        content["checksum"] = json_checksum(content)
        write_new(place.beside / "plan.json", as_json(content))
        Claims(place.beside).create(tokens_of(self.sizes))


class Plan:
    """A plan on disk.

    Parameters
    ----------
    path : Path
        ``plan/<id>`` in a work directory.

    Raises
    ------
    TemporaryError
        It cannot be read.
    """

    def __init__(self, path: Path, content: dict[str, Any]):
        self.path = path
        self.id = path.name
        # Ids begin again when somebody removed the plans; what parts refer to must not.
        self.uid: str = content["uid"]
        self.content = content
        self.psyrun: str = content.get("psyrun", "")
        self.code: str = content["code"]
        self.space: str = content["space"]
        self.accepts: list[str] = content["accepts"]
        self.n_items: int = content["n_items"]
        self.n_work: int = content["n_work"]
        self.n_chunks: int = content["n_chunks"]
        self.parameters: list[str] = content["parameters"]
        self.retries = budgets(content.get("retries"))
        self.groups: list[list[int]] = content.get("groups") or [[0, max(0, self.n_work - 1), 0]]
        self.balances = bool(content.get("balances"))
        self.min_items: int = content.get("min_items", 1)
        added: dict[str, str] = content.get("added", {})
        self.added = {name: value_of(base64.b85decode(text), False) for name, text in added.items()}

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan, if all its files are as they were written."""
        try:
            content = json.loads((path / "plan.json").read_text())
            if content["format"] != FORMAT or content["keys"] != _keys.VERSION:
                raise TemporaryError(f"{path}: was made by another version of psyrun; run the task again to replace it")
            whole = content.pop("checksum") == json_checksum(content)
            damaged = [name for name, crc in content["files"].items() if file_checksum(path / name) != crc]
            if not whole or damaged:
                raise ValueError(f"{', '.join(damaged) or 'plan.json'} was damaged")
            plan = cls(path, content)
            plan.balances = plan.balances or (path / SHARED).exists()
            return plan
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TemporaryError(
                f"{path}: the plan cannot be read ({error}); run the task again to replace it"
            ) from error

    def check_version(self) -> None:
        """Raise a TemporaryError if another version of psyrun made it: workers of one plan are to do the same."""
        if self.psyrun != __version__:
            raise TemporaryError(
                f"{self.path}: was made by psyrun {self.psyrun or 'of another version'}, this is psyrun {__version__}. "
                f"Work on it with that one, or have this one make a new plan: psy-doit {self.content['task']}"
            )

    def claims(self, worker: str = "") -> Claims:
        """Return the plan's tokens as a worker sees them."""
        return Claims(self.path, worker, self.n_work)

    def _arrays(self) -> Mapping[str, Any]:
        with np.load(self.path / "work.npz", allow_pickle=False) as archive:
            return dict(archive)

    def tokens(self) -> list[Token]:
        """Return the tokens of the chunks as they were dealt."""
        return tokens_of(self._arrays()["sizes"].tolist())

    def work(self) -> WorkList:
        """Return the work list."""
        return WorkList(self._arrays()["ranges"])

    def expected(self) -> npt.NDArray[np.float64] | None:
        """Return how long each item of the space was expected to take, NaN for those of no chunk; None if unknown."""
        arrays = self._arrays()
        if not len(arrays.get("seconds", ())):
            return None
        seconds = np.full(self.n_items, np.nan)
        seconds[WorkList(arrays["ranges"]).selection(0, self.n_work - 1)] = arrays["seconds"]
        return seconds

    def placed(self) -> tuple[Lanes, Indices]:
        """Return keys and indices of the rows that were recorded under other spaces."""
        arrays = self._arrays()
        return arrays["keys"], arrays["index"]

    def task(self) -> Task:
        """Run the plan's copy of the task file, as if it stood where it was taken from."""
        source = (self.path / "task.py").read_text(encoding="utf-8")
        config = (self.path / CONFIG).read_text(encoding="utf-8")
        content = self.content
        return task_from_source(content["task"], Path(content["file"]), source, config, Path(content["cwd"]))


class WorkList:
    """Indices of the items to run, kept as ranges.

    Parameters
    ----------
    ranges : array, shape (n, 2)
    """

    def __init__(self, ranges: Indices):
        self.ranges = ranges
        self._ends = np.cumsum(ranges[:, 1] - ranges[:, 0])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def indices(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges (start, stop) of indices at positions first..last.

        >>> list(WorkList(np.array([[0, 2], [5, 9]])).indices(1, 3))
        [(1, 2), (5, 7)]
        """
        i = int(np.searchsorted(self._ends, first, side="right"))
        while first <= last and i < len(self.ranges):
            stop = int(self.ranges[i, 1])
            begin = stop - (int(self._ends[i]) - first)
            end = min(stop, begin + last - first + 1)
            yield begin, end
            first += end - begin
            i += 1

    def selection(self, first: int, last: int) -> range | Indices:
        """Return the indices at positions first..last.

        >>> work = WorkList(np.array([[0, 2], [5, 9]]))
        >>> work.selection(0, 1), work.selection(1, 3)
        (range(0, 2), array([1, 5, 6]))
        """
        ranges = list(self.indices(first, last))
        if len(ranges) == 1:
            return range(*ranges[0])
        return np.concatenate([np.arange(start, stop) for start, stop in ranges])

    def mask(self, tokens: Sequence[Token], n_items: int) -> Mask:
        """Return which of n_items indices the positions of the tokens name."""
        chosen = np.zeros(n_items, dtype=bool)
        for token in tokens:
            for start, stop in self.indices(token.first, token.last):
                chosen[start:stop] = True
        return chosen
