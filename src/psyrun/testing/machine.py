"""Any sequence of calls of a store against a model that is too simple to be wrong: a dict of lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from psyrun.arrays import Array
from psyrun.columns import KEYS, restored
from psyrun.errors import UnsupportedValueError
from psyrun.store import Store
from psyrun.testing.faults import FAULTS, interrupted
from psyrun.testing.strategies import identities, law

Values = Sequence[Any] | Array


@dataclass
class Table:
    """What a file holds.

    Parameters
    ----------
    columns : dict of lists
        All of one length; None stands for no value.
    keys : list, optional
        The keys of the rows, if they have any.
    """

    columns: dict[str, list[Any]]
    keys: list[Any] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))

    def above(self, lower: Table) -> Table:
        """Return the rows of two tables: a column that one lacks has no value there, keys are all or none."""
        names = dict.fromkeys([*self.columns, *lower.columns])
        columns = {
            name: self.columns.get(name, [None] * self.n_rows) + lower.columns.get(name, [None] * lower.n_rows)
            for name in names
        }
        keys = None if self.keys is None or lower.keys is None else self.keys + lower.keys
        return Table(columns, keys)

    def fits_into_arrays(self) -> bool:
        """Whether each column has values of one kind, which is not that of objects."""
        kinds = [{_kind(v) for v in values if v is not None} for values in self.columns.values()]
        return all(len(kind) <= 1 and kind != {"object"} for kind in kinds)


def _kind(value: Any) -> str:
    if isinstance(value, np.datetime64):
        return "time"
    if isinstance(value, str):
        return "text"
    # Single numbers may stand among lists of numbers.
    numbers = value if isinstance(value, list) else [value]
    return "number" if all(isinstance(v, (int, float, np.number, np.bool_)) for v in numbers) else "object"


# All numbers are such that a float64 holds them.
_INTEGERS = st.integers(-1000, 1000)
_LETTERS = st.characters(exclude_characters="\0")
_NUMBERS = [_INTEGERS, st.floats(), _INTEGERS | st.floats() | st.booleans()]
_TEXTS = [st.text(_LETTERS, max_size=3), st.text(_LETTERS, min_size=5, max_size=30)]
_LISTS = [st.lists(_INTEGERS, max_size=3), st.lists(st.floats(), max_size=3)]
_TIMES = [st.builds(np.datetime64, st.integers(-(10**6), 10**6), st.just("s"))]
_OBJECTS = [st.just({"a": [1, "b"]}), st.just([1, "b"])]
_DTYPES = ["?", "i1", ">i4", "u2", "f4", "f8"]


def _rows(kinds: list[st.SearchStrategy[Any]], n: int) -> st.SearchStrategy[Values]:
    """Return columns of n rows, each of one kind of values; in some, rows have none."""
    return st.sampled_from(kinds).flatmap(
        lambda kind: st.lists(kind, min_size=n, max_size=n) | st.lists(kind | st.none(), min_size=n, max_size=n)
    )


def _data(n: int) -> st.SearchStrategy[dict[str, Values]]:
    columns: dict[str, st.SearchStrategy[Values]] = {
        "x": _rows(_NUMBERS, n) | npst.arrays(st.sampled_from(_DTYPES), n),
        "name": _rows(_TEXTS, n),
        "a/b": _rows(_LISTS + _NUMBERS, n),
        "when": _rows(_TIMES, n) | npst.arrays("M8[s]", n),
        "any": _rows(_NUMBERS + _TEXTS + _LISTS + _TIMES + _OBJECTS, n),
    }
    names = st.lists(st.sampled_from(list(columns)), min_size=1, max_size=3, unique=True)
    plain = names.flatmap(lambda chosen: st.fixed_dictionaries({name: columns[name] for name in chosen}))
    return plain | st.builds(lambda data, keys: {**data, KEYS: keys}, plain, npst.arrays("u8", (n, 2)))


DATA = st.integers(0, 4).flatmap(_data)
"""Columns to be saved or appended, of 0 to 4 rows, some with keys. Those of one name mostly have values of one kind."""


def _table(data: Mapping[str, Values]) -> Table:
    columns = {name: list(values) for name, values in data.items() if name != KEYS}
    return Table(columns, list(data[KEYS]) if KEYS in data else None)


class StoreMachine(RuleBasedStateMachine):
    """A store with one file, and a table that says what has to be in it; derived classes name the `store`."""

    store: Store

    def __init__(self) -> None:
        super().__init__()
        self.store, self.other = deepcopy(self.store), deepcopy(self.store)
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / f"result{self.store.ext}"
        self.table: Table | None = None
        # A disk takes its time for it, and whether it is asked to is seen elsewhere.
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(os, "fsync", lambda descriptor: None)

    def teardown(self) -> None:
        """Remove the file."""
        self.patched.undo()
        self.folder.cleanup()

    def _content(self) -> dict[str, bytes]:
        """Return all that is in the directory."""
        return {name: (self.path.parent / name).read_bytes() for name in os.listdir(self.path.parent)}

    @contextmanager
    def _refused(self, error: type[BaseException]) -> Iterator[None]:
        """Expect an error after which everything is as before."""
        before = self._content()
        with pytest.raises(error):
            yield
        assert self._content() == before

    def _expected(self, call: str, data: Mapping[str, Values]) -> Table | None:
        """Return what a call makes of the table, or None where the store has to refuse it."""
        new = _table(data)
        table = new if call == "save" or self.table is None else self.table.above(new)
        return table if self.store.holds_objects or table.fits_into_arrays() else None

    @rule(call=st.sampled_from(["save", "append", "append"]), data=DATA)
    def write(self, call: str, data: dict[str, Values]) -> None:
        """Save in place of what there is, or append to it."""
        expected = self._expected(call, data)
        if expected is None:
            with self._refused(UnsupportedValueError):
                getattr(self.store, call)(self.path, data)
        else:
            getattr(self.store, call)(self.path, data)
            self.table = expected

    @rule(
        call=st.sampled_from(["save", "append"]),
        data=DATA,
        where=st.sampled_from(FAULTS),
        error=st.sampled_from([OSError, KeyboardInterrupt]),
    )
    def be_interrupted(self, call: str, data: dict[str, Values], where: str, error: type[BaseException]) -> None:
        """Nothing has happened then."""
        if self._expected(call, data) is not None:
            with self._refused(error), interrupted(self.store, where, error):
                getattr(self.store, call)(self.path, data)

    @rule()
    def change_places(self) -> None:
        """A store has no memory: what one object does, as in another process, the other one sees in the file."""
        self.store, self.other = self.other, self.store

    @precondition(lambda self: self.table is not None)
    @rule()
    def save_what_was_loaded(self) -> None:
        """With the hidden columns, that loses nothing."""
        self.store.save(self.path, self.store.load(self.path, keys=True))

    @precondition(lambda self: self.table is not None)
    @rule(data=st.data())
    def load_some(self, data: st.DataObject) -> None:
        """One row, a slice of the rows, some columns: each as in the whole."""
        assert self.table is not None
        n = self.table.n_rows
        rows = st.slices(n) | st.integers(-n, n - 1) if n else st.slices(n)
        names = data.draw(st.lists(st.sampled_from(list(self.table.columns)), unique=True))
        row = data.draw(rows)
        whole = self.store.load(self.path)
        for chosen in (names, None):
            some = self.store.load(self.path, row=row, columns=chosen)
            assert list(some) == (list(whole) if chosen is None else chosen)
            for name, column in some.items():
                assert identities([column]) == identities([whole[name][row]])

    @invariant()
    def the_file_holds_what_the_table_holds(self) -> None:
        """Under the same names, in the same order; where there is no value, a filler is seen."""
        before = self._content()
        assert list(before) == ([] if self.table is None else [self.path.name])
        if self.table is None:
            return
        seen, hidden = self.store.load(self.path), self.store.load(self.path, keys=True)
        assert self._content() == before
        assert list(seen) == list(self.table.columns)
        for name, values in self.table.columns.items():
            assert identities(restored(name, hidden)) == identities(values)
            assert all(_is_filler(row) for row, value in zip(seen[name], values, strict=True) if value is None)
        assert (KEYS in hidden) == (self.table.keys is not None)
        if self.table.keys is not None:
            assert identities(hidden[KEYS]) == identities(self.table.keys)


def _is_filler(row: Any) -> bool:
    """Whether what is seen in a row says that there is no value: NaN, '', None (NaT in a list)."""
    return all(v is None or v == "" or v != v for v in np.ravel(row).tolist())


def follows_the_model(store: Store) -> None:
    """Fail if some sequence of calls makes a store's file differ from the table.

    Parameters
    ----------
    store : Store
    """
    steps = settings(law, stateful_step_count=20, report_multiple_bugs=False)
    run_state_machine_as_test(type("StoreMachine", (StoreMachine,), {"store": store}), settings=steps)
