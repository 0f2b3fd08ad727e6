"""What becomes of a store's files: damage, mistakes, and writes that are interrupted."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.errors import StoreError, UnsupportedValueError
from psyrun.store import Store
from psyrun.streams import Column, whole
from psyrun.testing.faults import FAULTS, file_size_limited, interrupted
from psyrun.testing.strategies import law


class Trap:
    """Leaves a file behind when it is unpickled.

    Parameters
    ----------
    path : Path
        Of the file.
    """

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class Safety:
    """A file is whole or refused, and a write that fails leaves the old one."""

    store: Store

    def test_columns_of_unequal_length_are_refused(self, path: Path) -> None:
        """The error names them; the file is as it was."""
        self.store.save(path, {"x": [1]})
        for write in (self.store.save, self.store.append):
            with pytest.raises(ValueError, match="x has 2, y has 3"):
                write(path, {"x": [1, 2], "y": [1, 2, 3]})
        assert self.store.load(path)["x"].tolist() == [1]

    @pytest.mark.parametrize("values", [3, "text", b"bytes", {"a": 1}, {1, 2}, iter([1])])
    def test_a_column_is_a_sequence(self, path: Path, values: Any) -> None:
        """A scalar, text, a dict or a set is not; the error names the column."""
        with pytest.raises(UnsupportedValueError, match=r"column 'x' is .*takes a list or array"):
            self.store.save(path, {"x": values})

    def test_a_file_that_is_not_there_is_an_error_that_helps(self, path: Path) -> None:
        """It says how such a file comes about."""
        with pytest.raises(StoreError, match=r"no such file.*psy-doit"):
            self.store.load(path)

    @law
    @given(st.data())
    def test_a_cut_file_is_an_error(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """However much of it is left."""
        path = tmp_path_factory.mktemp("store") / f"result{self.store.ext}"
        self.store.save(path, {"x": np.arange(50.0), "name": ["a", "b"] * 25})
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(StoreError, match="result"):
            self.store.load(path)
        with pytest.raises(StoreError, match="result"):
            self.store.append(path, {"x": [1]})

    @pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"x = 1\n", b"\x80\x04]."])
    def test_another_file_is_an_error(self, path: Path, content: bytes) -> None:
        """That names it."""
        path.write_bytes(content)
        with pytest.raises(StoreError, match="result"):
            self.store.load(path)

    @pytest.mark.parametrize("form", ["pickle", "npy", "npz"])
    def test_nothing_in_a_file_is_run(self, path: Path, form: str) -> None:
        """Only a store of any objects may unpickle what it reads."""
        sprung = path.with_name("sprung")
        array = np.array([Trap(sprung)], dtype=object)
        with path.open("wb") as file:
            if form == "pickle":
                pickle.dump({"x": array}, file)
            elif form == "npy":
                np.save(file, array, allow_pickle=True)
            else:
                np.savez(file, x=array)
        if not self.store.holds_objects:
            with pytest.raises(StoreError, match="result"):
                self.store.load(path)
            assert not sprung.exists()

    def test_loading_changes_nothing(self, path: Path) -> None:
        """Neither the file nor its directory."""
        self.store.save(path, {"x": [1, 2], "name": ["a", "b"]})
        before = path.read_bytes(), path.stat().st_mtime_ns
        self.store.load(path)
        self.store.load(path, row=0, columns=["x"])
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("where", FAULTS)
    @pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
    def test_an_interrupted_write_leaves_the_old_file(self, path: Path, where: str, error: type[BaseException]) -> None:
        """Whole, and nothing beside it."""
        self.store.save(path, {"x": [1]})
        for write in (self.store.save, self.store.append):
            with pytest.raises(error, match="No space left"), interrupted(self.store, where, error):
                write(path, {"x": [2, 3]})
        assert self.store.load(path)["x"].tolist() == [1]
        assert list(path.parent.iterdir()) == [path]

    def test_a_disk_that_fills_up_leaves_the_old_file(self, path: Path) -> None:
        """Whole, and nothing beside it; an OSError or a StoreError names it, whatever a library makes of it."""
        self.store.save(path, {"x": [1]})
        for write in (self.store.save, self.store.append):
            with file_size_limited(400_000), pytest.raises((OSError, StoreError), match="result"):
                write(path, {"x": np.arange(100_000.0)})
        assert self.store.load(path)["x"].tolist() == [1]
        assert list(path.parent.iterdir()) == [path]

    def test_what_is_written_is_synced_before_it_takes_its_place(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """File, rename, directory: in this order a crash leaves the old one or the new one."""
        steps: list[str] = []

        def noted(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                steps.append(step)
                return function(*args)

            return call

        monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
        monkeypatch.setattr(Path, "replace", noted("replace", Path.replace))
        self.store.save(path, {"x": [1]})
        assert steps == ["fsync", "replace", "fsync"]

    def test_a_file_that_reads_differently_is_noticed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where a write is verified: a disk, or a library, may give back something else."""
        write = type(self.store)._write

        def change(store: Store, place: Path, data: Mapping[str, Column]) -> None:
            write(store, place, {name: whole(column)[::-1].copy() for name, column in data.items()})

        self.store.save_verified(path, {"x": np.arange(3)})
        monkeypatch.setattr(type(self.store), "_write", change)
        with pytest.raises(StoreError, match=r"result.*column 'x'"):
            self.store.save_verified(path, {"x": np.arange(3)})

    def test_it_is_shown_as_it_is_written(self) -> None:
        """In a task file: store = psyrun.NpzStore()."""
        assert repr(self.store).startswith(f"{type(self.store).__name__}(")
