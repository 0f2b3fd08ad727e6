"""A store in a few lines, and what can be wrong with one: each class below keeps to the contract but for one thing."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from psyrun.arrays import Array
from psyrun.columns import HIDDEN
from psyrun.errors import UnsupportedValueError
from psyrun.files import sync_directory, sync_file
from psyrun.store import Store
from psyrun.streams import Column, whole


class ToyStore(Store):
    """JSON of dtype, shape and bytes of each column."""

    ext: ClassVar[str] = ".json"

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        arrays = {name: whole(column) for name, column in data.items()}
        content = {
            name: [a.dtype.str, a.shape, base64.b64encode(a.tobytes()).decode("ascii")] for name, a in arrays.items()
        }
        path.write_text(json.dumps(content))

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        content = json.loads(path.read_text())
        return {
            name: np.frombuffer(base64.b64decode(cells), dtype).reshape(shape)
            for name, (dtype, shape, cells) in content.items()
            if names is None or name in names
        }


class LosesTheLastRow(ToyStore):
    """Of many."""

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        return {name: c[:-1] if c.ndim and len(c) > 1000 else c for name, c in super()._read(path, names).items()}


class ChangesDtypes(ToyStore):
    """Half floats are no JSON numbers; why not write others."""

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        arrays = {name: whole(column) for name, column in data.items()}
        super()._write(path, {name: a.astype("f4") if a.dtype == "f2" else a for name, a in arrays.items()})


class CutsText(ToyStore):
    """To the width of a field."""

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        arrays = {name: whole(column) for name, column in data.items()}
        super()._write(path, {name: a.astype("U8") if a.dtype > np.dtype("U8") else a for name, a in arrays.items()})


class SortsColumns(ToyStore):
    """By name."""

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        return dict(sorted(super()._read(path, names).items()))


class ForgetsHiddenColumns(ToyStore):
    """It shows no masks, shapes and keys, so it does not write them."""

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        super()._write(path, {name: column for name, column in data.items() if not name.startswith(HIDDEN)})


class AppendsBlanks(ToyStore):
    """What is absent becomes a 0."""

    def append(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Array]) -> None:
        """Add rows."""
        super().append(filename, data)
        self.save(filename, {n: np.nan_to_num(c) if c.dtype == "f8" else c for n, c in self.load(filename).items()})


class Remembers(ToyStore):
    """What one object has read, it does not read again, whoever has written since."""

    def __init__(self) -> None:
        self._read_before: dict[Path, dict[str, Array]] = {}

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        self._read_before.clear()
        super()._write(path, data)

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        if path not in self._read_before:
            self._read_before[path] = super()._read(path)
        return self._read_before[path]


class WritesInPlace(ToyStore):
    """Nothing is beside."""

    def save(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Column]) -> None:
        """Write columns."""
        self._write(Path(filename), self._settled(data))


class DoesNotSync(ToyStore):
    """Whole for readers, but not after a crash of the machine."""

    def save(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Column]) -> None:
        """Write columns."""
        beside = Path(f"{filename}.new")
        try:
            self._write(beside, self._settled(data))
            beside.replace(filename)
        finally:
            beside.unlink(missing_ok=True)


class LeavesFilesBehind(ToyStore):
    """Where it is interrupted."""

    def save(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Column]) -> None:
        """Write columns."""
        beside = Path(f"{filename}.new")
        self._write(beside, self._settled(data))
        sync_file(beside)
        beside.replace(filename)
        sync_directory(beside.parent)


class HidesErrors(ToyStore):
    """It goes on."""

    def save(self, filename: str | Path, data: Mapping[str, Sequence[Any] | Column]) -> None:
        """Write columns."""
        with suppress(OSError):
            super().save(filename, data)


class RaisesAnything(ToyStore):
    """A library has errors of its own."""

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        try:
            super()._write(path, data)
        except OSError as error:
            raise RuntimeError("cannot decrement") from error


class ReadsWhatItCan(ToyStore):
    """A damaged file has no columns."""

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        try:
            return super()._read(path, names)
        except ValueError:
            return {}


class Unpickles(ToyStore):
    """It says that it holds numbers, text and times only."""

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        path.write_bytes(pickle.dumps({name: whole(column) for name, column in data.items()}))

    def _read(self, path: Path, names: Collection[str] | None = None) -> dict[str, Array]:
        content: dict[str, Array] = pickle.loads(path.read_bytes())
        return {name: content[name] for name in content if names is None or name in names}


class RefusesMuch(ToyStore):
    """Text, for example."""

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        for name, column in data.items():
            if column.dtype.kind == "U":
                raise UnsupportedValueError(f"column {name!r} is text; store = psyrun.PickleStore()")
        super()._write(path, data)


class SaysThatItStreams(ToyStore):
    """It does not."""

    streams = True


class SaysThatItHoldsObjects(ToyStore):
    """It does not."""

    holds_objects = True


FAILS: dict[type[Store], str] = {
    LosesTheLastRow: "test_many_rows_are_all_there",
    ChangesDtypes: "test_every_dtype_comes_back",
    CutsText: "test_any_sequence_of_calls_gives_what_plain_lists_hold",
    SortsColumns: "test_any_sequence_of_calls_gives_what_plain_lists_hold",
    ForgetsHiddenColumns: "test_values_come_back_or_are_refused",
    AppendsBlanks: "test_append_adds_rows",
    Remembers: "test_any_sequence_of_calls_gives_what_plain_lists_hold",
    WritesInPlace: "test_an_interrupted_write_leaves_the_old_file",
    DoesNotSync: "test_what_is_written_is_synced_before_it_takes_its_place",
    LeavesFilesBehind: "test_an_interrupted_write_leaves_the_old_file",
    HidesErrors: "test_an_interrupted_write_leaves_the_old_file",
    RaisesAnything: "test_a_disk_that_fills_up_leaves_the_old_file",
    ReadsWhatItCan: "test_a_cut_file_is_an_error",
    Unpickles: "test_nothing_in_a_file_is_run",
    RefusesMuch: "test_every_dtype_comes_back",
    SaysThatItStreams: "test_a_store_that_streams_holds_few_pieces",
    SaysThatItHoldsObjects: "test_objects_come_back_or_are_refused",
}
"""The test that each does not pass."""
