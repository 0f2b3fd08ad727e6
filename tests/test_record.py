"""The record: every row finds its item, by index in its own space and by key in others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.keys import Lanes
from psyrun.parts import Failure, Writer
from psyrun.record import Placement, by_code, place, read_parts
from psyrun.workdir import Workdir
from rows import write_rows

N = 6
HERE, ELSEWHERE = "space", "another space"


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A work directory without rows."""
    made = Workdir(tmp_path / "t")
    made.create()
    return made


def key(item: int) -> tuple[int, int]:
    """The key of an item of the space; others have larger ones."""
    return 10 + item, 7


def lookup(keys: Lanes) -> npt.NDArray[np.int64]:
    """Return where keys stand in the space."""
    items = keys[:, 0].astype(np.int64) - 10
    return np.where((items >= 0) & (items < N), items, -1)


class Log:
    """A part to which rows are added."""

    def __init__(self, workdir: Workdir, name: str, code: str = "c", space: str = HERE):
        self._descriptor = os.open(workdir.parts / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        self._space = space
        self._writer = Writer(self._descriptor)
        self._writer.header({"code": code, "space": space, "plan": "0001"})

    def add(self, item: int, **outputs: Any) -> None:
        """Add the row of an item; in another space its index is another one."""
        index = item if self._space == HERE else N - item + 100
        system = {"key": np.array([key(item)], dtype=np.uint64), "index": np.array([index])}
        write_rows(self._writer, system | {"start": np.zeros(1), "duration": np.zeros(1)}, [outputs])

    def fail(self, item: int, start: float = 0.0, message: str = "no") -> None:
        """Add a failure of an item."""
        index = item if self._space == HERE else N - item + 100
        self._writer.fail(Failure(key(item), index, start, 0.0, "ValueError", message, "f.py:1", ""))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@pytest.fixture
def logs(workdir: Workdir) -> Iterator[dict[str, Log]]:
    """Parts of each kind; their order by name is not that of their making."""
    made = {
        "b": Log(workdir, "b"),
        "a": Log(workdir, "a"),
        "far": Log(workdir, "far", space=ELSEWHERE),
        "old": Log(workdir, "old", code="old"),
    }
    yield made
    for log in made.values():
        log.close()


def placed(workdir: Workdir, accepts: Sequence[str] = ("c",), merged: Mapping[str, int] | None = None) -> Placement:
    """Place all rows of a work directory."""
    return place(read_parts(workdir), HERE, N, lookup, accepts, merged or {})


def values(placement: Placement, name: str = "y") -> dict[int, Any]:
    """Return the value of each item that is done."""
    column = placement.column(name, objects_ok=False)
    return {} if column is None else dict(zip(np.flatnonzero(placement.done).tolist(), column, strict=True))


# Laws

ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", "far", "old"]), st.integers(-2, N + 1)), max_size=25)


@given(ROWS, st.sampled_from([("c",), ("c", "old"), ("old",), ()]))
def test_every_item_has_the_first_of_its_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], accepts: tuple[str, ...]
) -> None:
    """By index or by key; rows of other code, and of items that are not in the space, have no say."""
    workdir = Workdir(tmp_path_factory.mktemp("law") / "t")
    workdir.create()
    codes = {"a": "c", "b": "c", "far": "c", "old": "old"}
    for name in codes:
        log = Log(workdir, name, codes[name], ELSEWHERE if name == "far" else HERE)
        for number, (part, item) in enumerate(rows):
            if part == name:
                log.add(item, y=number)
        log.close()
    placement = placed(workdir, accepts)
    expected: dict[int, int] = {}
    counted = [(part, item, number) for number, (part, item) in enumerate(rows) if codes[part] in accepts]
    for _, item, number in sorted(counted, key=lambda row: (row[0], row[2])):
        if 0 <= item < N:
            expected.setdefault(item, number)
    assert values(placement) == expected
    inside = [item for _, item, _ in counted if 0 <= item < N]
    assert placement.duplicates == len(inside) - len(expected)
    assert placement.strangers == len(counted) - len(inside)
    assert sum(by_code(read_parts(workdir)).values()) == len(rows)


# Cases


def test_a_row_of_this_space_stands_at_its_index(workdir: Workdir, logs: dict[str, Log]) -> None:
    """No key is looked up for it."""
    logs["a"].add(3, y=1.0)

    def never(keys: Lanes) -> npt.NDArray[np.int64]:
        raise AssertionError

    placement = place(read_parts(workdir)[:2], HERE, N, never, ["c"])
    assert values(placement) == {3: 1.0}


def test_a_row_of_another_space_is_found_by_its_key(workdir: Workdir, logs: dict[str, Log]) -> None:
    """And its part is told, so that a plan can keep where its rows stand."""
    logs["far"].add(3, y=1.0)
    logs["far"].add(N + 5, y=2.0)
    placement = placed(workdir)
    assert values(placement) == {3: 1.0}
    assert placement.strangers == 1
    assert [part.name for part in placement.elsewhere] == ["far"]


def test_rows_that_were_counted_win_over_those_that_come_later(workdir: Workdir, logs: dict[str, Log]) -> None:
    """Otherwise a merged result would change under its reader."""
    logs["b"].add(1, y="kept")
    counted = {part.name: part.size for part in read_parts(workdir)}
    logs["a"].add(1, y="late")
    logs["b"].add(2, y="kept")
    logs["a"].add(2, y="late")
    assert values(placed(workdir)) == {1: "late", 2: "late"}
    assert values(placed(workdir, merged=counted)) == {1: "kept", 2: "late"}


def test_a_copy_of_a_part_adds_nothing(workdir: Workdir, logs: dict[str, Log]) -> None:
    """Its rows are duplicates."""
    logs["a"].add(1, y=1.0)
    logs["a"].add(2, y=2.0)
    shutil.copy(workdir.parts / "a", workdir.parts / "a-copy")
    placement = placed(workdir)
    assert values(placement) == {1: 1.0, 2: 2.0}
    assert placement.duplicates == 2


def test_rows_of_other_code_do_not_count(workdir: Workdir, logs: dict[str, Log]) -> None:
    """Until they are accepted."""
    logs["old"].add(1, y=1.0)
    logs["old"].fail(2)
    placement = placed(workdir)
    assert not placement.done.any()
    assert placement.failures == {}
    assert placement.names() == []
    assert by_code(read_parts(workdir)) == {"old": 1}
    assert values(placed(workdir, accepts=["c", "old"])) == {1: 1.0}


def test_a_part_without_its_header_does_not_count(workdir: Workdir, logs: dict[str, Log]) -> None:
    """Nobody knows what computed its rows."""
    logs["a"].add(1, y=1.0)
    data = bytearray((workdir.parts / "a").read_bytes())
    data[30] ^= 1
    (workdir.parts / "a").write_bytes(data)
    assert not placed(workdir).done.any()
    assert by_code(read_parts(workdir)) == {}


def test_failures_are_those_of_items_that_are_not_done(workdir: Workdir, logs: dict[str, Log]) -> None:
    """The last one of each; by index here, by key elsewhere."""
    logs["a"].fail(1)
    logs["b"].add(1, y=1.0)
    logs["a"].fail(2, start=2.0, message="last")
    logs["b"].fail(2, start=1.0, message="first")
    logs["far"].fail(4, message="far")
    logs["far"].fail(N + 5)
    failures = placed(workdir).failures
    assert {item: failure.message for item, failure in failures.items()} == {2: "last", 4: "far"}


def test_columns_of_one_kind_are_regular(workdir: Workdir, logs: dict[str, Log]) -> None:
    """Numbers of one dtype, arrays of one shape, in all rows."""
    logs["b"].add(4, y=1.5, v=np.array([4, 4]), z=1)
    logs["a"].add(0, y=2.5, v=np.array([0, 0]), z=2.5)
    logs["a"].add(1, y=2.5, v=np.array([0, 0]), z="text")
    placement = placed(workdir)
    assert placement.regular("y") == (np.dtype("<f8"), ())
    assert placement.regular("v") == (np.dtype("<i8"), (2,))
    assert placement.regular("z") is None
    assert placement.names() == ["y", "v", "z"]
    assert placement.without([1]).regular("z") is None


def test_a_value_that_a_row_lacks_is_none(workdir: Workdir, logs: dict[str, Log]) -> None:
    """A name that no row has is no column at all."""
    logs["a"].add(0, y=1.5)
    logs["a"].add(1, y=2, z="a")
    placement = placed(workdir)
    assert values(placement) == {0: 1.5, 1: 2}
    assert values(placement, "z") == {0: None, 1: "a"}
    assert placement.column("q", objects_ok=False) is None


def test_names_that_only_rows_without_a_say_have_are_no_columns(workdir: Workdir, logs: dict[str, Log]) -> None:
    """Duplicates, and rows of items that were taken out of the space."""
    logs["a"].add(0, y=1.5)
    logs["b"].add(0, z=2.5)
    logs["b"].add(N + 1, q="text")
    placement = placed(workdir)
    assert placement.names() == ["y"]
    assert placement.regular("y") == (np.dtype("<f8"), ())


def test_a_part_that_goes_while_the_record_is_read_is_passed_over(
    workdir: Workdir, logs: dict[str, Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command may just put it into the archive."""
    logs["a"].add(0, y=1.5)
    there = [*workdir.part_paths(), workdir.parts / "zz-gone"]
    monkeypatch.setattr(workdir, "part_paths", lambda: iter(there))
    assert len(read_parts(workdir)) == 4
