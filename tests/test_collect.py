"""Merging: the result holds just the rows of the record, and is in place only when it was read back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from psyrun.arrays import Array
from psyrun.collect import is_ours, merge, result_columns, write_result
from psyrun.errors import TaskError, TemporaryError, UnsupportedValueError
from psyrun.keys import Lanes
from psyrun.parts import Writer
from psyrun.plan import Plan, unpacked_mask
from psyrun.record import place, read_parts
from psyrun.store import H5Store, NpzStore, PickleStore, Store
from psyrun.streams import Column, whole
from psyrun.tasks import Task
from psyrun.workdir import Workdir
from rows import write_rows

N = 5
STORES = [NpzStore(), H5Store(), PickleStore()]


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A work directory without rows."""
    return created(tmp_path)


def created(path: Path) -> Workdir:
    """Make a work directory."""
    made = Workdir(path / "psy-work" / "t")
    made.create()
    (made.plans / "0001").mkdir()
    return made


def plan(*accepts: str, space: str = "s") -> Plan:
    """A plan for N items, with parameters x and name."""
    content = {"code": "c", "space": space, "accepts": list(accepts or ["c"]), "n_items": N, "n_work": 0, "n_chunks": 0}
    return Plan(Path("0001"), content | {"parameters": ["x", "name"], "uid": "u"})


def task(workdir: Workdir, store: Store | None = None, resultfile: Path | None = None, exclude: str = "") -> Task:
    """A task whose work directory this is."""
    options = {"store": store or NpzStore(), "resultfile": resultfile, "workdir": workdir.path.parent}
    return Task("t", Path("task_t.py"), "", "", options | {"exclude_from_result": exclude.split()}, Path())


def lookup(keys: Lanes) -> npt.NDArray[np.int64]:
    """Return where keys stand in the space."""
    items = keys[:, 0].astype(np.int64)
    return np.where(items < N, items, -1)


def add(workdir: Workdir, part: str, item: int, *, code: str = "c", space: str = "s", **outputs: Any) -> None:
    """Add a row to a part, or make it."""
    path = workdir.parts / part
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = Writer(descriptor, objects_ok=True)
    if fresh:
        writer.header({"code": code, "space": space})
    nothing = np.zeros(1)
    system = {"key": np.array([[item, 1]], np.uint64), "index": np.array([item]), "start": nothing, "duration": nothing}
    # A writer knows only the schemas that it wrote itself; a new one begins again at number 0.
    write_rows(writer, system, [{"x": item, **outputs}])
    os.close(descriptor)


def merged(workdir: Workdir, store: Store | None = None, accepts: Sequence[str] = ("c",)) -> dict[str, Array]:
    """Merge, and return what the result holds."""
    whose = task(workdir, store)
    merge(workdir, plan(*accepts), whose, lookup)
    return whose.store.load(whose.result, keys=True)


# Laws

STEPS = st.lists(
    st.one_of(st.just("merge"), st.tuples(st.sampled_from(["a", "b", "c", "other"]), st.integers(0, N))), max_size=15
)


@settings(max_examples=settings().max_examples // 2)
@given(STEPS)
@example([("b", 1), "merge", ("a", 1), "merge"])
@example([("b", 0), "merge", ("a", 1), "merge", ("b", 1), "merge"])
def test_a_row_that_a_result_held_is_never_exchanged_for_another(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | tuple[str, int]]
) -> None:
    """However often parts grow, duplicates come, and results are merged."""
    workdir = created(tmp_path_factory.mktemp("law"))
    kept: dict[int, int] = {}
    recorded: set[int] = set()
    for number, step in enumerate([*steps, "merge", "merge"]):
        if isinstance(step, tuple):
            part, item = step
            add(workdir, part, item, code="old" if part == "other" else "c", y=number)
            recorded |= {item} - {N} if part != "other" else set()
            continue
        result = merged(workdir)
        found = dict(zip(result["x"].tolist(), result["y"].tolist(), strict=True)) if recorded else {}
        assert sorted(found) == sorted(recorded)
        assert {item: found[item] for item in kept} == kept
        kept = found


@pytest.mark.parametrize("store", STORES)
def test_merging_twice_gives_the_same_bytes(workdir: Workdir, store: Store) -> None:
    """No clock and no chance in it."""
    for item in (4, 0, 2):
        add(workdir, "a", item, name="n", y=item / 2, v=np.arange(item))
    path = workdir.path / f"result{store.ext}"
    merged(workdir, store)
    first = path.read_bytes()
    merged(workdir, store)
    assert path.read_bytes() == first
    assert not workdir.archive.exists()


# What is in a result


@pytest.mark.parametrize("store", STORES)
def test_rows_are_in_the_order_of_the_space(workdir: Workdir, store: Store) -> None:
    """Parameters first, hidden columns last; items that are not done are absent."""
    add(workdir, "b", 4, y=4.5, name="four")
    add(workdir, "a", 0, y=0.5, name="nil")
    add(workdir, "b", 2, y=2.5, name="two")
    result = merged(workdir, store)
    assert result["x"].tolist() == [0, 2, 4]
    assert result["name"].tolist() == ["nil", "two", "four"]
    assert result["y"].tolist() == [0.5, 2.5, 4.5]
    assert result["__psyrun_key"].tolist() == [[0, 1], [2, 1], [4, 1]]
    assert result["__psyrun_index"].tolist() == [0, 2, 4]
    assert int(result["__psyrun_n_items"]) == N
    columns, _ = result_columns(place(read_parts(workdir), "s", N, lookup, ["c"]), ["x", "name"], store.holds_objects)
    assert list(columns) == ["x", "name", "y", "__psyrun_key", "__psyrun_index", "__psyrun_n_items"]


@pytest.mark.parametrize("store", STORES)
def test_what_rows_lack_is_filled(workdir: Workdir, store: Store) -> None:
    """NaN in numbers, nothing in text, and a hidden column tells."""
    add(workdir, "a", 0, number=1, text="a", flag=True, time=np.datetime64("2020-01-01"))
    add(workdir, "a", 1)
    result = merged(workdir, store)
    assert np.array_equal(result["number"], [1, np.nan], equal_nan=True)
    assert np.array_equal(result["flag"], [1, np.nan], equal_nan=True)
    assert result["text"].tolist() == ["a", ""]
    assert np.isnat(result["time"]).tolist() == [False, True]
    assert {name: result[f"__psyrun_none_{name}"].tolist() for name in ("number", "text", "flag", "time")} == {
        name: [False, True] for name in ("number", "text", "flag", "time")
    }


@pytest.mark.parametrize("store", STORES)
def test_arrays_of_several_lengths_are_padded(workdir: Workdir, store: Store) -> None:
    """And their shapes are kept."""
    for item in (0, 1, 3):
        add(workdir, "a", item, v=np.arange(item))
    result = merged(workdir, store)
    nan = np.nan
    assert np.array_equal(result["v"], np.array([[nan, nan, nan], [0, nan, nan], [0, 1, 2]]), equal_nan=True)
    assert result["__psyrun_shape_v"].tolist() == [[0], [1], [3]]


def test_names_can_be_left_out(workdir: Workdir) -> None:
    """They stay on record, so that it can be decided otherwise later."""
    add(workdir, "a", 1, y=1.5, v=np.arange(3))
    whose = task(workdir, exclude="v x nothing")
    merge(workdir, plan(), whose, lookup)
    assert [n for n in NpzStore().load(whose.result, keys=True) if not n.startswith("__")] == ["y"]
    assert merged(workdir)["v"].tolist() == [[0, 1, 2]]


def test_any_object_is_in_a_pickled_result(workdir: Workdir) -> None:
    """As it is; another store refuses, and the old result stays."""
    add(workdir, "a", 0, o="text")
    merged(workdir)
    add(workdir, "a", 1, o={"a": [1]})
    with pytest.raises(UnsupportedValueError, match="PickleStore"):
        merged(workdir)
    assert NpzStore().load(workdir.path / "result.npz", keys=True)["o"].tolist() == ["text"]
    assert merged(workdir, PickleStore())["o"].tolist() == ["text", {"a": [1]}]


def test_a_result_without_rows_is_a_result(workdir: Workdir) -> None:
    """All items may have failed; its parameters are columns without values."""
    result = merged(workdir)
    assert {name: column.shape for name, column in result.items() if name in ("x", "name")} == {"x": (0,), "name": (0,)}
    assert workdir.read_manifest()["n_done"] == 0


def test_rows_that_do_not_fit_into_one_array_are_left_out_and_named(workdir: Workdir) -> None:
    """The kind of most rows stays; the others stay on record."""
    add(workdir, "a", 0, y="text")
    add(workdir, "a", 1, y=1.5)
    add(workdir, "a", 3, y=2.5)
    result = merged(workdir, NpzStore())
    assert result["y"].tolist() == [1.5, 2.5]
    assert workdir.read_manifest()["left_out"] == [[0, "y = 'text' is text, in most rows it is a number"]]


def test_a_damaged_part_costs_its_rows_only(workdir: Workdir) -> None:
    """The others are in the result."""
    for item in range(3):
        add(workdir, "a", item)
    data = bytearray((workdir.parts / "a").read_bytes())
    data[-1] ^= 1
    (workdir.parts / "a").write_bytes(data)
    assert merged(workdir)["x"].tolist() == [0, 1]


# The manifest


def test_the_manifest_tells_what_the_result_holds(workdir: Workdir) -> None:
    """By item, by part, and by the file itself."""
    add(workdir, "b", 3)
    add(workdir, "old", 1, code="old")
    merged(workdir)
    manifest = workdir.read_manifest()
    size = (workdir.parts / "b").stat().st_size
    old = (workdir.parts / "old").stat().st_size
    assert (manifest["plan"], manifest["space"], manifest["accepts"]) == ("0001", "s", ["c"])
    assert (manifest["n_items"], manifest["n_done"]) == (N, 1)
    assert unpacked_mask(manifest["done"], N).tolist() == [False, False, False, True, False]
    assert manifest["parts"] == {"b": [size, size], "old": [old, old]}
    assert manifest["counted"] == [["b", size]]
    assert manifest["result"]["path"] == "result.npz"


def test_code_that_is_accepted_later_does_not_exchange_rows(workdir: Workdir) -> None:
    """Its parts were there when the result was merged, but did not count."""
    add(workdir, "a-old", 1, code="old", y="old")
    add(workdir, "b", 1, y="new")
    assert merged(workdir)["y"].tolist() == ["new"]
    assert merged(workdir, accepts=["c", "old"])["y"].tolist() == ["new"]


def test_the_result_is_known_after_the_work_directory_moved(workdir: Workdir, tmp_path: Path) -> None:
    """Paths inside are relative."""
    add(workdir, "a", 1)
    merged(workdir)
    moved = Workdir(tmp_path / "elsewhere")
    shutil.move(workdir.path, moved.path)
    assert is_ours(moved, moved.path / "result.npz", moved.read_manifest())


# What stood at the path of the result


def test_a_file_that_is_not_ours_is_moved_to_the_archive(workdir: Workdir) -> None:
    """Whoever put it there may want it."""
    path = workdir.path / "result.npz"
    path.write_text("precious")
    add(workdir, "a", 1)
    merged(workdir)
    (kept,) = workdir.archive.glob("*/result.npz")
    assert kept.read_text() == "precious"
    assert NpzStore().load(path, keys=True)["x"].tolist() == [1]


def test_a_result_that_was_changed_is_not_ours_any_more(workdir: Workdir) -> None:
    """It is kept too."""
    add(workdir, "a", 1)
    merged(workdir)
    path = workdir.path / "result.npz"
    path.write_bytes(path.read_bytes() + b"notes")
    add(workdir, "a", 2)
    assert merged(workdir)["x"].tolist() == [1, 2]
    (kept,) = workdir.archive.glob("*/result.npz")
    assert kept.read_bytes().endswith(b"notes")


def test_a_result_elsewhere_is_merged_and_known(workdir: Workdir, tmp_path: Path) -> None:
    """The directory is made."""
    add(workdir, "a", 1)
    path = tmp_path / "results" / "mine.npz"
    for _ in range(2):
        merge(workdir, plan(), task(workdir, resultfile=path), lookup)
        assert is_ours(workdir, path, workdir.read_manifest())
    assert os.listdir(path.parent) == ["mine.npz"]
    assert not workdir.archive.exists()


def test_a_file_elsewhere_that_is_not_ours_is_moved_aside(workdir: Workdir, tmp_path: Path) -> None:
    """It stays in its directory, where the user put it; what is no file stops the merge."""
    add(workdir, "a", 1)
    path = tmp_path / "mine.npz"
    path.write_text("precious")
    merge(workdir, plan(), task(workdir, resultfile=path), lookup)
    (kept,) = tmp_path.glob("mine.npz.before-*")
    assert kept.read_text() == "precious"
    assert NpzStore().load(path, keys=True)["x"].tolist() == [1]
    with pytest.raises(TaskError, match="not a file"):
        merge(workdir, plan(), task(workdir, resultfile=tmp_path / "psy-work"), lookup)


def test_a_plan_that_was_replaced_does_not_write_its_result(workdir: Workdir) -> None:
    """The newer one may be of another space."""
    add(workdir, "a", 1)
    merged(workdir)
    before = (workdir.path / "result.npz").read_bytes()
    (workdir.plans / "0002").mkdir()
    add(workdir, "a", 2)
    with pytest.raises(TemporaryError, match="newer plan"):
        merged(workdir)
    assert (workdir.path / "result.npz").read_bytes() == before


def test_a_merge_that_ends_before_its_manifest_loses_nothing(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one makes both again."""
    add(workdir, "a", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Workdir, "write_manifest", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merged(workdir)
    add(workdir, "a", 2)
    assert merged(workdir)["x"].tolist() == [1, 2]


def interrupted(workdir: Workdir, content: Any) -> None:
    """End like a user who pressed Ctrl-C."""
    raise KeyboardInterrupt


# Verification


class Lying(NpzStore):
    """Writes something else than it was given."""

    def __init__(self, lie: Any):
        self._lie = lie

    def _write(self, path: Path, data: Mapping[str, Column]) -> None:
        super()._write(path, self._lie({name: whole(column) for name, column in data.items()}))


LIES: dict[str, Any] = {
    "a row less": lambda data: {n: c[:-1] if c.ndim else c for n, c in data.items()},
    "another order": lambda data: {n: c[::-1] if c.ndim else c for n, c in data.items()},
    "a column less": lambda data: {n: c for n, c in data.items() if n != "y"},
    "another value": lambda data: data | {"y": data["y"] + 1},
    "another text": lambda data: data | {"name": np.char.upper(data["name"])},
    "keys of others": lambda data: data | {"__psyrun_key": data["__psyrun_key"] + np.uint64(1)},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_result_that_is_not_what_was_written_never_takes_its_place(workdir: Workdir, lie: str) -> None:
    """The old one and its manifest stay, nothing is left beside, and the command can be repeated."""
    add(workdir, "a", 1, y=1.5, name="a")
    merged(workdir)
    path = workdir.path / "result.npz"
    before = path.read_bytes(), workdir.manifest.read_bytes(), sorted(os.listdir(workdir.path))
    add(workdir, "a", 2, y=2.5, name="b")
    with pytest.raises(TemporaryError, match=r"read(ing the new file)? back"):
        merge(workdir, plan(), task(workdir, Lying(LIES[lie])), lookup)
    assert (path.read_bytes(), workdir.manifest.read_bytes(), sorted(os.listdir(workdir.path))) == before
    assert merged(workdir)["x"].tolist() == [1, 2]


def test_a_result_that_cannot_be_read_back_never_takes_its_place(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may take bytes and give back others."""
    add(workdir, "a", 1)
    path = workdir.path / "result.npz"

    def torn(self: NpzStore, target: Path, data: Mapping[str, Array]) -> None:
        target.write_bytes(b"PK\3\4 half a file")

    monkeypatch.setattr(NpzStore, "_write", torn)
    with pytest.raises(TemporaryError, match="cannot be read back"):
        merged(workdir)
    assert not path.exists()


@pytest.mark.parametrize("store", STORES)
def test_on_a_full_disk_the_old_result_stays(workdir: Workdir, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so, and that it is a matter of now."""
    add(workdir, "a", 1)
    merged(workdir, store)
    path = workdir.path / f"result{store.ext}"
    before = path.read_bytes()

    def full(self: Store, target: Path, data: Mapping[str, Array]) -> None:
        target.write_bytes(before[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(store), "_write", full)
    add(workdir, "a", 2)
    with pytest.raises(TemporaryError, match="No space left"):
        merged(workdir, store)
    assert path.read_bytes() == before
    assert [name for name in os.listdir(workdir.path) if name.startswith(".result")] == []


@pytest.mark.parametrize("store", STORES)
def test_values_of_all_kinds_pass_the_verification(tmp_path: Path, store: Store) -> None:
    """NaN and NaT are the same as themselves there, and text is compared whole."""
    columns: dict[str, Array] = {
        "f": np.array([np.nan, -0.0]),
        "c": np.array([complex(np.nan, 1), 2]),
        "t": np.array(["NaT", "2020-01-01"], "M8[s]"),
        "b": np.array([True, False]),
        "u": np.array(["", "é"]),
        "s": np.array([b"a\0b", b""]),
        "e": np.zeros((2, 0)),
        "__psyrun_key": np.zeros((2, 2), np.uint64),
    }
    path = tmp_path / f"result{store.ext}"
    write_result(path, columns, store)
    found = store.load(path, keys=True)
    assert json.dumps({n: [c.dtype.str, c.shape] for n, c in found.items()}, sort_keys=True) == json.dumps(
        {n: [c.dtype.str, c.shape] for n, c in columns.items()}, sort_keys=True
    )
