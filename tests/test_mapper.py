"""Mapping functions over spaces: in this process, in parallel, and into a file."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psyrun import Param, map_pspace, map_pspace_hdd_backed, map_pspace_parallel
from psyrun.errors import AmbiguousOperationError, StoreError, UnsupportedValueError
from psyrun.exceptions import IneffectiveExcludeWarning
from psyrun.mapper import get_result
from psyrun.pspace import ParameterSpace
from psyrun.store import H5Store, NpzStore, PickleStore, Store

# Python 3.12 and later say so whenever a process that had threads forks, which joblib's pool of processes does.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

Map = Callable[..., dict[str, list[Any]] | None]


def square(x: float) -> dict[str, Any]:
    """Where processes find it: in a module."""
    return {"y": np.float64(x) ** 2}


def uneven(x: int) -> dict[str, Any]:
    """Other keys for other values."""
    return {"odd": x} if x % 2 else {"even": np.int64(x), "text": "t"}


def answer() -> dict[str, Any]:
    """Asks for nothing."""
    return {"y": 1}


@pytest.fixture(params=[NpzStore(), H5Store(), PickleStore()], ids=lambda store: type(store).__name__)
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.param
    return made


@pytest.fixture
def path(tmp_path: Path, store: Store) -> Path:
    return tmp_path / f"data{store.ext}"


class Counted:
    """A function that notes what it was called with, and may fail at some value."""

    def __init__(self, fail_at: Any = None):
        self.calls: list[Any] = []
        self.fail_at = fail_at

    def __call__(self, x: Any, **others: Any) -> dict[str, Any]:
        self.calls.append(x)
        if x == self.fail_at:
            raise RuntimeError("the model diverged")
        return {"y": x * 2}


@pytest.fixture(params=["here", "threads", "processes", "npz", "h5", "pickle"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Map:
    """Each way to map, under one signature."""
    if request.param == "here":
        return map_pspace
    if request.param == "threads":
        return partial(map_pspace_parallel, n_jobs=2, backend="threading")
    if request.param == "processes":
        return partial(map_pspace_parallel, n_jobs=2)
    store: Store = {"npz": NpzStore(), "h5": H5Store(), "pickle": PickleStore()}[request.param]
    return partial(map_pspace_hdd_backed, filename=tmp_path / "f", store=store)


class TestEveryWay:
    def test_parameters_and_outputs_come_in_the_order_of_the_space(self, run: Map) -> None:
        """A dict of lists of Python scalars."""
        result = run(square, Param(x=np.arange(4)) * Param())
        assert result == {"x": [0, 1, 2, 3], "y": [0.0, 1.0, 4.0, 9.0]}
        assert [type(v) for column in result.values() for v in column] == [int] * 4 + [float] * 4

    def test_keys_that_a_row_lacks_are_none(self, run: Map) -> None:
        """Rows need not have the same outputs."""
        assert run(uneven, Param(x=[1, 2, 3])) == {
            "x": [1, 2, 3],
            "odd": [1, None, 3],
            "even": [None, 2, None],
            "text": [None, "t", None],
        }

    def test_names_can_be_left_out(self, run: Map) -> None:
        """Parameters and outputs; one name may be given as text."""
        assert run(square, Param(x=[1, 2]), exclude=["x"]) == {"y": [1.0, 4.0]}

    def test_one_name_can_be_left_out(self, run: Map) -> None:
        """As text, which is not taken letter by letter."""
        assert run(square, Param(x=[1, 2]), exclude="y") == {"x": [1, 2]}

    def test_all_names_can_be_left_out(self, run: Map) -> None:
        """Nothing is left, which is what was asked for."""
        assert run(square, Param(x=[1, 2]), exclude=iter(["x", "y"])) == {}

    def test_leaving_out_what_is_not_there_is_warned_of(self, run: Map) -> None:
        """Once, naming it, at the caller's line; the result is whole. Names that some rows have are fine."""
        with pytest.warns(IneffectiveExcludeWarning, match="not in any: a, z") as caught:
            result = run(uneven, Param(x=[1, 2]), exclude=["z", "odd", "a"])
        assert result == {"x": [1, 2], "even": [None, 2], "text": [None, "t"]}
        assert [w.filename for w in caught if w.category is IneffectiveExcludeWarning] == [__file__]

    def test_what_is_not_a_dict_is_refused(self, run: Map) -> None:
        """The error names the function and what it returned."""
        with pytest.raises(UnsupportedValueError, match=r"round returned 2 \(a int\); it takes a dict"):
            run(round, Param(number=[2]))

    def test_an_empty_space_has_empty_columns(self, run: Map) -> None:
        """Those of its parameters; nothing can be told of what is left out."""
        assert run(square, Param(x=[]), exclude=["y"]) == {"x": []}

    def test_a_row_without_parameters_is_a_row(self, run: Map) -> None:
        """Param() calls the function once, with nothing."""
        assert run(answer, Param()) == {"y": [1]}


def test_a_result_is_made_of_parameters_and_outputs() -> None:
    """NumPy's scalars become Python's; arrays stay; outputs count where names are the same."""
    array = np.arange(3)
    result = get_result(lambda x: {"y": np.float32(0.5), "z": array, "x": np.int8(3)}, {"x": 4})
    assert result == {"y": 0.5, "z": array, "x": 3}
    assert (type(result["y"]), type(result["x"])) == (float, int)


def test_values_reach_the_function_as_written() -> None:
    """No 1 becomes 1.0 because of its neighbours."""
    fn = Counted()
    map_pspace(fn, Param(x=[1, 0.5, "a", True, np.int8(2)]))
    assert list(map(type, fn.calls)) == [int, float, str, bool, np.int8]


class TestInAFile:
    def test_only_what_is_missing_is_computed(self, path: Path, store: Store) -> None:
        """A second run calls nothing; a grown space only its new rows; a smaller one nothing."""
        fn = Counted()
        assert map_pspace_hdd_backed(fn, Param(x=[1, 2]), path, store) == {"x": [1, 2], "y": [2, 4]}
        assert map_pspace_hdd_backed(fn, Param(x=[1, 2]), path, store) == {"x": [1, 2], "y": [2, 4]}
        assert fn.calls == [1, 2]
        grown = map_pspace_hdd_backed(fn, Param(x=[3, 2.0, 1, 4]), path, store)
        assert grown == {"x": [1, 2, 3, 4], "y": [2, 4, 6, 8]}
        assert fn.calls == [1, 2, 3, 4]
        map_pspace_hdd_backed(fn, Param(x=[4]), path, store)
        assert fn.calls == [1, 2, 3, 4]

    def test_the_corners_of_a_grid_are_not_the_grid(self, path: Path, store: Store) -> None:
        """Rows are compared whole."""
        fn = Counted()
        map_pspace_hdd_backed(fn, Param(x=[1, 2], b=[1, 2]), path, store)
        result = map_pspace_hdd_backed(fn, Param(x=[1, 2]) * Param(b=[1, 2]), path, store)
        assert result == {"x": [1, 2, 1, 2], "b": [1, 2, 2, 1], "y": [2, 4, 2, 4]}

    def test_equal_rows_are_items_of_their_own(self, path: Path, store: Store) -> None:
        """Each is computed, and each only once."""
        fn = Counted()
        map_pspace_hdd_backed(fn, Param(x=[1, 1]), path, store)
        map_pspace_hdd_backed(fn, Param(x=[1, 1, 1, 2]), path, store)
        map_pspace_hdd_backed(fn, Param(x=[1, 1, 1, 2]), path, store)
        assert fn.calls == [1, 1, 1, 2]

    def test_what_was_finished_before_an_error_is_kept(self, path: Path, store: Store) -> None:
        """The next run goes on at the row that raised."""
        fn = Counted(fail_at=3)
        with pytest.raises(RuntimeError, match="the model diverged"):
            map_pspace_hdd_backed(fn, Param(x=range(6)), path, store)
        assert store.load(path)["x"].tolist() == [0, 1, 2]
        fn.fail_at = None
        result = map_pspace_hdd_backed(fn, Param(x=range(6)), path, store)
        assert result == {"x": [0, 1, 2, 3, 4, 5], "y": [0, 2, 4, 6, 8, 10]}
        assert fn.calls == [0, 1, 2, 3, 3, 4, 5]

    def test_slow_results_are_written_one_by_one(self, path: Path, store: Store) -> None:
        """What took a millisecond is in the file before the next row begins; each with its own key."""
        there: list[int] = []

        def slow(x: int) -> dict[str, Any]:
            there.append(len(store.load(path)["x"]) if path.exists() else 0)
            time.sleep(0.002)
            return {}

        for _ in range(2):
            map_pspace_hdd_backed(slow, Param(x=range(4)), path, store)
            assert there == [0, 1, 2, 3]

    def test_quick_results_are_written_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Thousands of rows do not cost thousands of files."""
        appended: list[int] = []
        real = NpzStore.append

        def append(self: NpzStore, filename: str | Path, data: Any) -> None:
            appended.append(len(data[self.KEYS]))
            real(self, filename, data)

        monkeypatch.setattr(NpzStore, "append", append)
        map_pspace_hdd_backed(lambda x: {"y": x}, Param(x=range(5000)), tmp_path / "f.npz", NpzStore())
        assert sum(appended) == 5000
        assert len(appended) < 1000

    def test_parameters_left_out_do_not_hinder_resuming(self, path: Path, store: Store) -> None:
        """The keys of the rows are kept beside."""
        fn = Counted()
        assert map_pspace_hdd_backed(fn, Param(x=[1, 2]), path, store, exclude="x") == {"y": [2, 4]}
        assert map_pspace_hdd_backed(fn, Param(x=[1, 2, 3]), path, store, exclude="x") == {"y": [2, 4, 6]}
        assert fn.calls == [1, 2, 3]

    def test_a_file_without_keys_is_keyed_by_its_values(self, path: Path, store: Store) -> None:
        """Results of other programs count, and are counted once."""
        store.save(path, {"x": [1, 1.0, 7], "y": [0, 0, 0]})
        fn = Counted()
        for _ in range(2):
            result = map_pspace_hdd_backed(fn, Param(x=[1, 1, 1, 2]), path, store)
            assert result == {"x": [1, 1, 7, 1, 2], "y": [0, 0, 0, 2, 4]}
        assert fn.calls == [1, 2]

    def test_a_file_without_keys_gets_them(self, path: Path, store: Store) -> None:
        """The rows that are added may lack what the others were keyed by."""
        store.save(path, {"x": [1], "y": [0]})
        fn = Counted()
        for _ in range(2):
            result = map_pspace_hdd_backed(fn, Param(x=[1, 2]), path, store, exclude="x")
            assert result == {"x": [1, None], "y": [0, 4]}
        assert fn.calls == [2]

    def test_a_file_that_tells_nothing_of_its_rows_is_refused(self, path: Path, store: Store) -> None:
        """Neither keys nor all parameters: the error names those that it lacks, and nothing is computed."""
        store.save(path, {"y": [0]})
        fn = Counted()
        with pytest.raises(AmbiguousOperationError, match="no column x, z"):
            map_pspace_hdd_backed(fn, Param(x=1, z=2), path, store)
        assert fn.calls == []

    def test_an_empty_file_of_the_format_is_begun_with(self, path: Path, store: Store) -> None:
        """A run of an empty space left one."""
        map_pspace_hdd_backed(square, Param(x=[]), path, store)
        assert store.load(path)["x"].shape == (0,)
        store.save(path, {})
        assert map_pspace_hdd_backed(square, Param(x=[2]), path, store) == {"x": [2], "y": [4.0]}

    def test_a_damaged_file_is_not_overwritten(self, path: Path, store: Store) -> None:
        """It may be mended."""
        path.write_bytes(b"damaged")
        with pytest.raises(StoreError):
            map_pspace_hdd_backed(square, Param(x=[2]), path, store)
        assert path.read_bytes() == b"damaged"

    def test_data_need_not_be_returned(self, path: Path, store: Store) -> None:
        """It can be too large for that."""
        assert map_pspace_hdd_backed(square, Param(x=[2]), str(path), store, return_data=False) is None
        assert store.load(path)["y"].tolist() == [4.0]

    def test_nothing_left_to_do_warns_of_nothing(self, path: Path, store: Store) -> None:
        """Whether a name is in the results cannot be told without any."""
        map_pspace_hdd_backed(square, Param(x=[2]), path, store)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            map_pspace_hdd_backed(square, Param(x=[2]), path, store, exclude=["z"])

    def test_arrays_of_any_length_come_back(self, path: Path, store: Store) -> None:
        """As they were, though the file pads them."""
        result = map_pspace_hdd_backed(lambda n: {"a": np.arange(float(n))}, Param(n=[2, 1, 3]), path, store)
        assert result is not None
        assert [a.tolist() for a in result["a"]] == [[0, 1], [0], [0, 1, 2]]

    def test_values_that_the_store_cannot_hold_stop_the_run(self, path: Path, store: Store) -> None:
        """With an error that names the column, unless the store holds objects."""
        if store.holds_objects:
            assert map_pspace_hdd_backed(lambda x: {"y": {1}}, Param(x=1), path, store) == {"x": [1], "y": [{1}]}
            return
        with pytest.raises(UnsupportedValueError, match="column 'y' holds set"):
            map_pspace_hdd_backed(lambda x: {"y": {1}}, Param(x=1), path, store)
        assert not path.exists()


def test_rows_of_any_kind_of_space_are_mapped(tmp_path: Path) -> None:
    """Sums with names that some rows lack, differences and views."""
    space: ParameterSpace = (Param(x=[1, 2]) + Param(z=[3]))[::-1]
    result = map_pspace(lambda x, z: {}, space)
    np.testing.assert_array_equal(result["x"], [np.nan, 2, 1])
    for _ in range(2):
        data = map_pspace_hdd_backed(lambda x, z: {}, space, tmp_path / "f.npz", NpzStore())
        assert data is not None
        np.testing.assert_array_equal(data["z"], [3, np.nan, np.nan])
