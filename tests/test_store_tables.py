"""Tables that are asked for rows: the right ones, and nothing but columns in a condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from psyrun.arrays import Array
from psyrun.columns import KEYS, N_ITEMS, NONE
from psyrun.errors import StoreError
from psyrun.store import H5Store, TableStore

STORE = TableStore()
N_ROWS = 12_000  # enough for indices


def columns_of_all_kinds() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    quarters = rng.integers(-9, 9, N_ROWS) / 4
    return {
        "D": rng.integers(-9, 9, N_ROWS),
        "rows": np.arange(N_ROWS),
        "quarters": quarters,
        "part": np.where(rng.random(N_ROWS) < 0.1, np.nan, quarters),
        "far": np.where(rng.random(N_ROWS) < 0.1, np.inf, -quarters),
        "τ": rng.integers(0, 200, N_ROWS).astype("u1"),
        "single": quarters.astype("f4") / 3,
        "done": rng.random(N_ROWS) < 0.5,
        "name": rng.choice(np.array(["", "a", "ä", "ab", "😀"]), N_ROWS),
        "raw": rng.choice(np.array([b"", b"a", b"\xff"]), N_ROWS),
        "z": rng.integers(-1, 1, N_ROWS) + 1j * rng.integers(-1, 1, N_ROWS),
        "day": rng.choice(np.array(["2020-01-01", "2020-02-01", "NaT", "1960-01-01"], "M8[D]"), N_ROWS),
        "spikes": rng.random((N_ROWS, 2)),
        "odd name": rng.random(N_ROWS),
    }


COLUMNS = columns_of_all_kinds()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "result.h5"
    STORE.save(path, COLUMNS)
    return path


def found(path: Path, where: str) -> list[int]:
    rows: list[int] = STORE.load(path, where=where, columns=["rows"])["rows"].tolist()
    return rows


# The right rows

JOINTS = st.sampled_from("&|")
OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
CONSTANTS = st.sampled_from(["0", "1", "-3", "(-2)", "2.5", "-.25", "1e300", "0.1", "199", "6000", "(1 / 7)"])
LARGE = st.sampled_from([str(2**62), str(1 - 2**63), str(2**53 + 1), f"{2**53}."])
NUMBERS = st.sampled_from(["D", "rows", "quarters", "part", "far", "τ", "single"])
COMPUTED = st.recursive(
    NUMBERS | CONSTANTS,
    lambda inner: (
        st.builds("({} {} {})".format, NUMBERS, st.sampled_from("+-*/"), inner)
        | st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), NUMBERS)
        | st.builds("(-{})".format, inner)
        | st.builds("({} ** {})".format, NUMBERS, st.sampled_from(["2", "3", "0.5", "-1"]))
    ),
    max_leaves=4,
)
COMPARED = (
    st.builds("({} {} {})".format, NUMBERS, OPERATORS, CONSTANTS | LARGE | NUMBERS)
    | st.builds("({} {} {})".format, CONSTANTS, OPERATORS, NUMBERS)
    | st.builds("({} {} {})".format, COMPUTED, OPERATORS, NUMBERS)
    | st.builds("(name {} {!r})".format, st.sampled_from(["==", "!="]), st.sampled_from(["a", "ä", "", "not there"]))
    | st.builds("(raw {} {!r})".format, st.sampled_from(["==", "!="]), st.sampled_from([b"a", b"\xff", b""]))
    | st.builds("(z {} {})".format, st.sampled_from(["==", "!="]), st.sampled_from(["1j", "-1", "0"]))
    | st.sampled_from(["done", "(done == True)", "(done != True)"])
)
CONDITIONS = st.recursive(
    COMPARED,
    lambda inner: st.builds("(~{})".format, inner) | st.builds("({} {} {})".format, inner, JOINTS, inner),
    max_leaves=4,
)
EXACT = COLUMNS | {"single": COLUMNS["single"].astype(float), "τ": COLUMNS["τ"].astype(int)}


@settings(deadline=None, max_examples=150)
@given(where=CONDITIONS)
@example(where="(rows == D)")  # PyTables fails for these or finds other rows, where the columns are indexed
@example(where="(rows > 1e300)")
@example(where="~(D == 1)")
@example(where="~((D == 1) | (D == 0))")
@example(where="((D == 0) & (D == 0)) | ((D == 199) & (D == 0))")
@example(where="((D == 0) | (D == 1)) & ((rows < 9) | (rows > 99))")
@example(where="((single * D) == quarters)")  # numexpr would compute this and the next in 32 bits
@example(where="((τ * 100000000) > 6000000000)")
@example(where="~(part > 0) & (D == 1)")
def test_rows_are_those_that_numpy_finds(asked: Path, where: str) -> None:
    """In the order of the file; with indices and without, with NaN and infinity."""
    with np.errstate(all="ignore"):
        # In NumPy, integers have no negative powers.
        expected = eval(where.replace("** -1", "** -1.0"), {}, EXACT)
    assert found(asked, where) == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("day == '2020-01-01'", COLUMNS["day"] == np.datetime64("2020-01-01")),
        ("day != '2020-01-01'", COLUMNS["day"] != np.datetime64("2020-01-01")),
        ("day < '2020-01-15'", COLUMNS["day"] < np.datetime64("2020-01-15")),
        ("'2020-02' >= day", COLUMNS["day"] <= np.datetime64("2020-02-01")),
        ("~(day <= '2020-02')", ~(COLUMNS["day"] <= np.datetime64("2020-02-01"))),
        ("'1960-01-01T00:00' < day", COLUMNS["day"] > np.datetime64("1960-01-01")),
        ("-2 < D <= 2", (COLUMNS["D"] > -2) & (COLUMNS["D"] <= 2)),
        ("  D == 3\n", COLUMNS["D"] == 3),
        ("~~(D == 1)", COLUMNS["D"] == 1),
        ("~(D == 1)", COLUMNS["D"] != 1),
        ("+D == - -3", COLUMNS["D"] == 3),
        ("done & ~done", np.zeros(N_ROWS, bool)),
        ("quarters == (2 ** 3 - 9) / 4", COLUMNS["quarters"] == -0.25),
        ("(D == 2 ** 0.5 ** 2) | (D == 1)", COLUMNS["D"] == 1),
    ],
)
def test_times_chains_and_signs(asked: Path, where: str, rows: Array) -> None:
    """Times are compared with text; NaT is neither before nor after anything."""
    assert found(asked, where) == np.flatnonzero(rows).tolist()


def test_other_columns_give_the_same_rows(asked: Path) -> None:
    """Arrays beside the table too; all in their order and dtype."""
    rows = np.flatnonzero((COLUMNS["D"] == 3) & (COLUMNS["quarters"] < 0.1))
    data = STORE.load(asked, where="(D == 3) & (quarters < .1)")
    assert list(data) == list(COLUMNS)
    for name, column in data.items():
        assert column.dtype == COLUMNS[name].dtype
        np.testing.assert_array_equal(column, COLUMNS[name][rows])
    last = STORE.load(asked, where="(D == 3) & (quarters < .1)", columns=["spikes", "D"], row=-1)
    assert list(last) == ["spikes", "D"]
    np.testing.assert_array_equal(last["spikes"], COLUMNS["spikes"][rows[-1]])
    with pytest.raises(StoreError, match="no column gone; it has D, rows"):
        STORE.load(asked, where="D == 3", columns=["gone"])


@pytest.mark.parametrize("n_rows", [0, 1, 9_999, 10_000, 300_000])
def test_tables_of_any_length_are_asked(n_rows: int, tmp_path: Path) -> None:
    """From none to several slices of an index."""
    numbers = np.arange(n_rows) % 1000
    STORE.save(tmp_path / "result.h5", {"x": numbers, "y": numbers / 7, "wide": np.ones((n_rows, 3))})
    data = STORE.load(tmp_path / "result.h5", where="(x > 500) & (y <= 505 / 7)")
    np.testing.assert_array_equal(data["x"], numbers[(numbers > 500) & (numbers <= 505)])
    assert data["wide"].shape == (len(data["x"]), 3)
    # PyTables fails for floats that an index of integers cannot hold, from the second slice of it on.
    for where, rows in [("x < 1e300", numbers < 1e300), ("x == -1e300", numbers < 0), ("x == 5.0", numbers == 5)]:
        found_rows = STORE.load(tmp_path / "result.h5", where=where, columns=["x"])["x"]
        np.testing.assert_array_equal(found_rows, numbers[rows])


def test_what_can_be_indexed_is(asked: Path) -> None:
    """Integers and floats without NaN; PyTables does not find all rows by other indices."""
    with h5py.File(asked) as file:
        assert set(file["psyrun/_i_table"]) == {"D", "rows", "quarters", "far"}


def test_hidden_columns_come_back_exactly(tmp_path: Path) -> None:
    """Keys, masks, and the number of items, of which the rows of a condition say nothing."""
    path = tmp_path / "result.h5"
    keys = np.array([[2**64 - 1, 1], [2, 2**63 + 1], [3, 3]], dtype=np.uint64)
    STORE.save(path, {"x": [2**60 + 1, None, 5], KEYS: keys, N_ITEMS: np.array(3)})
    data = STORE.load(path, where="x < 9", keys=True)
    assert (data["x"].tolist(), data[NONE + "x"].tolist(), data[N_ITEMS].tolist()) == ([0, 5], [True, False], 3)
    np.testing.assert_array_equal(data[KEYS], keys[1:])
    assert STORE.load(path, where="x == 5")["x"].tolist() == [5]  # and no warning
    STORE.save(path, {"x": [1, 2], N_ITEMS: np.array(3)})
    with pytest.warns(UserWarning, match="2 of 3 items") as caught:
        STORE.load(path, where="x == 2")
    assert [warning.filename for warning in caught] == [__file__]


# What a condition may say


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("x == 1", "there is no column 'x' that can be asked for"),
        ("spikes == 1", "there is no column 'spikes'"),
        ("D = 1", "it cannot be read"),
        ("D ==", "it cannot be read"),
        ("", "it cannot be read"),
        ("D\0", "it cannot be read"),
        ("(" * 10_000, "it cannot be read"),
        ("D == 1 & quarters < 1", "'1 & quarters' is no comparison|'1' is no comparison"),
        ("D", "it has to be true or false"),
        ("1 == 1", "it has to be true or false"),
        ("D + 1", "it has to be true or false"),
        ("~D", "'D' is no comparison"),
        ("(D == 1) and done", "it takes & for and"),
        ("not done", "it takes & for and"),
        ("D == 'a'", "number cannot be compared with text"),
        ("name == 1", "text cannot be compared with number"),
        ("name == b'a'", "text cannot be compared with bytes"),
        ("name < 'b'", "text can be compared by == and != only"),
        ("raw < b'b'", "bytes can be compared by == and != only"),
        ("z < 1", "can be compared by == and != only"),
        ("done < True", "truth can be compared by == and != only"),
        ("done == 1", "truth cannot be compared with number"),
        ("done + 1 == 2", "'done' is no number to compute with"),
        ("day == 5", "times are compared with text"),
        ("day == day", "times are compared with text"),
        ("day < 'soon'", "it cannot be read"),
        ("day < 'NaT'", "is no time that a column of datetime64"),
        ("day < '2020-01-01T12:00'", "is no time that a column of datetime64"),
        ("D < 1e999", "inf is no number"),
        ("D < 10**10**10", "it cannot be read: .*out of range"),
        ("z ** 2 == 1", "has to be a power"),
        (f"D < {2**63}", "is no number"),
        (f"D < {2**62} + {2**62}", "is no number"),
        ("D < 1 / 0", "it cannot be read: division by zero"),
        ("D < 1e300 * 1e300", "inf is no number"),
        ("2 ** D == 4", "has to be a power"),
        ("D % 2 == 0", "'D % 2' is more than it takes"),
        ("D // 2 == 0", "is more than it takes"),
        ("D is 3", "is more than it takes"),
        ("D in (1, 2)", "is more than it takes"),
        ("D == None", "None is no number or text"),
        ("D == ...", "Ellipsis is no number or text"),
        ("abs(D) == 1", r"'abs\(D\)' is more than it takes"),
        ("sin(quarters) < 1", "is more than it takes"),
        ("D.real == 1", "'D.real' is more than it takes"),
        ("D[0] == 1", "is more than it takes"),
        ("(lambda: 1)() == D", "is more than it takes"),
        ("[D][0] == 1", "is more than it takes"),
        ("f'{D}' == name", "is more than it takes"),
        ("(D := 1) == 1", "is more than it takes"),
        ("__import__('os').getpid() == D", "is more than it takes"),
        ("D == secret", "there is no column 'secret'"),
        ("D == STORE", "there is no column 'STORE'"),
        (" | ".join(f"(D == {i})" for i in range(100)), "is too much for numexpr"),
        (" | ".join(f"(D == {i})" for i in range(2000)), "is too much for numexpr|it cannot be read"),
        (3, "it takes text"),
    ],
)
def test_anything_else_is_refused(asked: Path, where: Any, told: str) -> None:
    """Nothing is evaluated but operations on columns; variables of the caller are none."""
    secret = 3
    with pytest.raises(StoreError, match=rf"(?s)where=.*({told})") as caught:
        STORE.load(asked, where=where)
    assert secret == 3
    if "numexpr" not in told:
        assert "It takes conditions on D, rows, quarters, part" in str(caught.value)


def test_without_a_table_there_is_nothing_to_ask(tmp_path: Path) -> None:
    """As in files of an H5Store, or where no column is one of numbers."""
    H5Store().save(tmp_path / "a.h5", {"x": [1]})
    STORE.save(tmp_path / "b.h5", {"x": [[1, 2]]})
    for name in ("a.h5", "b.h5"):
        with pytest.raises(StoreError, match=r"has no table that takes a where; TableStore\(\)"):
            STORE.load(tmp_path / name, where="x == 1")


# The file


@pytest.mark.parametrize(
    ("name", "column", "in_table"),
    [
        ("x", np.arange(3), True),
        ("τ", np.arange(3), True),
        ("table", np.arange(3), True),
        ("_i_table", np.arange(3), True),
        ("x" * 64, np.arange(3), True),
        ("x" * 65, np.arange(3), False),
        ("ﬁ", np.arange(3), False),  # Python reads it as fi
        ("class", np.arange(3), False),
        ("_v_x", np.arange(3), False),
        ("__members__", np.arange(3), False),
        ("a b", np.arange(3), False),
        ("arrays", np.zeros((3, 2)), False),
        ("table", np.zeros((3, 2)), False),
        (NONE + "x", np.ones(3, bool), False),
        ("x", np.arange(3, dtype="u8"), False),
        ("x", np.arange(3, dtype="f2"), False),
        ("x", np.arange(3, dtype="g"), False),
        ("x", np.arange(3, dtype="m8[s]"), False),
        ("x", np.array(["NaT"] * 3, "M8"), False),
        ("x", np.arange(3).astype("M8[25s]"), True),
        ("x", np.array(["a\0b", "c", ""]), False),
        ("x", np.array(["a" * 1025, "c", ""]), False),
        ("x", np.array(["a" * 250, "c", ""]), True),
        ("x", np.arange(3, dtype=">f4"), True),
        ("x", np.zeros(3, [("a", int)]), False),
    ],
)
def test_columns_of_any_name_and_kind_have_their_place(
    name: str, column: Array, in_table: bool, tmp_path: Path
) -> None:
    """In the table, or beside it; all come back in their order."""
    path = tmp_path / "result.h5"
    data = {"beside": np.zeros((3, 2)), "first": np.arange(3), name: column, "last": np.arange(3.0)}
    STORE.save(path, data)
    with h5py.File(path) as file:
        assert (name in file["psyrun/table"].dtype.names) == in_table
    for loaded in (STORE.load(path, keys=True), H5Store().load(path, keys=True)):
        assert list(loaded) == list(data)
        assert loaded[name].dtype == column.dtype
        np.testing.assert_array_equal(loaded[name], column)
    assert STORE.load(path, where="first == 1")["first"].tolist() == [1]


def test_pytables_reads_the_table(asked: Path) -> None:
    """For whoever wants more of it than psyrun."""
    import tables

    where = "(D == 3) & done"
    with tables.open_file(asked) as file:
        table = file.root.psyrun.table
        assert table.nrows == N_ROWS
        assert table.read_where(where, field="rows").tolist() == found(asked, where)


def test_a_table_does_not_tell_when_it_was_made(tmp_path: Path) -> None:
    """The same columns make the same file; HDF5 would note the time otherwise."""
    STORE.save(tmp_path / "result.h5", {"x": [1], "wide": [[1, 2]]})
    with h5py.File(tmp_path / "result.h5") as file:
        for node in ("psyrun/table", "psyrun/arrays/wide"):
            assert h5py.h5g.get_objinfo(file[node].id).mtime == 0


def test_hundreds_of_columns_fit(tmp_path: Path) -> None:
    """With long names: as many as HDF5 takes are in the table."""
    names = [f"{i:x>64}" for i in range(1000)]
    STORE.save(tmp_path / "result.h5", {name: [i] for i, name in enumerate(names)})
    assert list(STORE.load(tmp_path / "result.h5")) == names
    assert STORE.load(tmp_path / "result.h5", where=f"{names[200]} == 200", columns=[names[999]])[names[999]] == [999]
