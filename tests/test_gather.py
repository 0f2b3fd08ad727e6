"""Columns of placed rows: whatever the order of the rows and the size of the windows, each is where it belongs."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun import gather, scan, streams
from psyrun.columns import KEYS
from psyrun.gather import Cells, Gather
from psyrun.keys import Lanes
from psyrun.parts import Writer
from psyrun.record import Placement, place
from psyrun.streams import whole
from rows import write_rows

N = 40
FIELDS: dict[str, Cells] = {
    "y": (np.dtype("<f8"), ()),
    "key": (np.dtype("<i8"), ()),
    "v": (np.dtype("<f4"), (3,)),
    KEYS: (np.dtype("<u8"), (2,)),
}


def nowhere(keys: Lanes) -> npt.NDArray[np.int64]:
    return np.full(len(keys), -1)


def keys(items: npt.NDArray[np.int64]) -> Lanes:
    return np.stack([items * 3, items + 7], axis=1).astype(np.uint64)


def write(path: Path, batches: list[list[int]]) -> None:
    """A part with rows of these items; a value tells its item, and which of its rows it is."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    writer = Writer(descriptor)
    writer.header({"code": "c", "space": "s"})
    for batch in batches:
        items = np.array(batch)
        system = {"key": keys(items), "index": items, "start": items * 0.5, "duration": items * 0.25}
        outputs = [{"y": item + 0.5, "key": item, "v": np.full(3, item, np.float32)} for item in batch]
        write_rows(writer, system, outputs)
    os.close(descriptor)


def placed(directory: Path) -> Placement:
    return place([scan.read(path) for path in sorted(directory.iterdir())], "s", N, nowhere, ["c"])


BATCHES = st.lists(st.lists(st.integers(0, N - 1), min_size=1, max_size=10), max_size=6)


@given(
    st.dictionaries(st.sampled_from("abc"), BATCHES, max_size=3), st.sampled_from([1, 100, 10**6]), st.integers(1, 300)
)
def test_every_row_is_where_its_item_is(
    tmp_path_factory: pytest.TempPathFactory, parts: dict[str, list[list[int]]], together: int, piece: int
) -> None:
    """Read at once or in windows, from one part or several, with repeated items."""
    directory = tmp_path_factory.mktemp("parts")
    for name, batches in parts.items():
        write(directory / name, batches)
    placement = placed(directory)
    items = np.flatnonzero(placement.done)
    assert set(items) == {i for batches in parts.values() for batch in batches for i in batch}
    with mock.patch.object(gather, "_MOST_BYTES_TOGETHER", together), mock.patch.object(streams, "PIECE_BYTES", piece):
        gathered = Gather(placement, FIELDS)
        for _ in range(2):  # a column can be read again
            columns = {name: whole(gathered.column(name)) for name in FIELDS}
    assert {name: (c.dtype, c.shape[1:]) for name, c in columns.items()} == FIELDS
    assert columns["y"].tolist() == (items + 0.5).tolist()
    assert columns["key"].tolist() == items.tolist()
    assert columns["v"].tolist() == [[i] * 3 for i in items]
    assert columns[KEYS].tolist() == keys(items).tolist()


def test_single_rows_are_read_as_one_batch(tmp_path: Path) -> None:
    """Items that take long are recorded one by one; reading them must not take long too."""
    write(tmp_path / "a", [[i] for i in range(N)])
    (batch,) = scan.read(tmp_path / "a").batches
    assert batch.n_rows == N
    assert batch.rows["index"].tolist() == list(range(N))
    whole_columns = Gather(placed(tmp_path), FIELDS)
    assert whole(whole_columns.column("y")).tolist() == [i + 0.5 for i in range(N)]


@pytest.mark.parametrize("counted", range(0, N, 7))
def test_rows_that_a_merge_counted_stay_apart_from_later_ones(tmp_path: Path, counted: int) -> None:
    """The first of them win over rows of other parts, the others do not."""
    write(tmp_path / "a", [[i] for i in range(N)])
    write(tmp_path / "b", [list(range(N))])
    first, second = (scan.read(tmp_path / name) for name in "ab")
    size = first.batches[0].offset + counted * first.batches[0].stride
    placement = place([first, second], "s", N, nowhere, ["c"], [("a", size), ("b", second.size)])
    owners = np.empty(N, dtype="U1")
    for batch, items in placement.batches:
        owners[items[items >= 0]] = batch.path.name
    assert "".join(owners) == "a" * counted + "b" * (N - counted)


def test_a_part_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    """Not a row of zeros."""
    write(tmp_path / "a", [list(range(N))])
    placement = placed(tmp_path)
    os.truncate(tmp_path / "a", 300)
    with pytest.raises(Exception, match="became shorter"):
        whole(Gather(placement, FIELDS).column("y"))
