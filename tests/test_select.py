"""Items by number and by condition; conditions are what Python makes of them, item by item, and never run."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun import Param, select
from psyrun.errors import SelectionError
from psyrun.select import items_of, matching

# Numbers


def test_numbers_and_ranges_name_items() -> None:
    """Both ends of a range are in; order, spaces and repetitions do not matter."""
    assert np.flatnonzero(items_of("3,17,40-42", 60)).tolist() == [3, 17, 40, 41, 42]
    assert np.flatnonzero(items_of(" 2 - 3 , 3,0", 4)).tolist() == [0, 2, 3]
    assert items_of("0-9", 10).all()


@pytest.mark.parametrize("text", ["", "a", "1,", "1-", "-1", "1.5", "1-2-3", "0x1", "1 2", "١", "9" * 5000, "1\n,x"])
def test_what_is_no_list_of_numbers_is_told(text: str) -> None:
    """With a list that is one."""
    with pytest.raises(SelectionError, match="it takes a list such as 3,17,40-60"):
        items_of(text, 10)


@pytest.mark.parametrize(
    ("text", "n", "told"),
    [
        ("3,10", 10, "there is no item 10; there are 10 items, numbered 0 to 9"),
        ("5-99", 10, "there is no item 99"),
        ("9-5", 10, "9-5 runs backwards; it takes 5-9"),
        ("0", 0, "there are no items"),
    ],
)
def test_items_that_there_are_not_are_told(text: str, n: int, told: str) -> None:
    """And which there are."""
    with pytest.raises(SelectionError, match=told):
        items_of(text, n)


# Conditions are Python's

INTEGERS = st.integers(-3, 3) | st.sampled_from([2**53, 2**53 + 1, 2**62, -(2**63), 2**63 - 1, 2**64])
FLOATS = st.sampled_from([0.0, -0.0, 0.1, 0.5, -1.5, 3.0, 2.0**53, 2.0**62, 1e300, float("inf"), float("nan")])
TEXTS = st.sampled_from(["", "a", "b", "ab", "a\0", "1", "ü"])
SCALARS = INTEGERS | FLOATS | TEXTS | st.booleans() | st.none()
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "i": st.integers(-3, 3),
    "i64": st.sampled_from([3, 2**53, 2**53 + 1, 2**60 + 1, 2**62, -(2**63), 2**63 - 1]),
    "big": INTEGERS,
    "f": FLOATS,
    "b": st.booleans(),
    "number": INTEGERS | FLOATS | st.booleans(),
    "absent": FLOATS | st.none(),
    "t": TEXTS,
    "any": SCALARS,
}
NUMBERS = ["i", "i64", "big", "f", "b", "number", "absent"]


def literal(value: Any) -> str:
    return f"({value!r})"


CONSTANTS = st.one_of(st.integers(-3, 3), INTEGERS, FLOATS.filter(np.isfinite), st.booleans())
EXPRESSIONS = st.recursive(
    st.sampled_from(NUMBERS) | CONSTANTS.map(literal),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map("({0[0]} {0[1]} {0[2]})".format)
        | st.tuples(inner, st.sampled_from(["2", "3", "0.5", "-1", "i"])).map("({0[0]} ** {0[1]})".format)
        | inner.map("(-{})".format)
        | inner.map("abs({})".format)
    ),
    max_leaves=4,
)
SIDES = EXPRESSIONS | st.sampled_from(list(COLUMNS)) | TEXTS.map(literal) | st.just("None")
SIGNS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
LISTS = st.lists(SCALARS.filter(lambda v: v == v and v != float("inf")), max_size=3).map(lambda v: f"{v!r}")
COMPARISONS = (
    st.tuples(SIDES, SIGNS, SIDES).map(" ".join)
    | st.tuples(SIDES, SIGNS, SIDES, SIGNS, SIDES).map(" ".join)
    | st.tuples(SIDES, st.sampled_from(["in", "not in"]), LISTS).map(" ".join)
    | st.just("b")
)
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or", "=="]), inner).map("({0[0]}) {0[1]} ({0[2]})".format)
        | inner.map("not ({})".format)
    ),
    max_leaves=4,
)
SPACES = st.integers(1, 5).flatmap(
    lambda n: st.fixed_dictionaries({name: st.lists(v, min_size=n, max_size=n) for name, v in COLUMNS.items()})
)


@given(text=CONDITIONS, columns=SPACES)
def test_a_condition_holds_where_python_finds_it_true(text: str, columns: dict[str, list[Any]]) -> None:
    """And has no result where Python raises an error for some item."""
    space = Param(**columns)
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*(c.tolist() for c in space.columns().values()), strict=True)
    ]
    try:
        expected = [eval(text, {}, row) for row in rows]
    except (TypeError, ArithmeticError):
        with pytest.raises(SelectionError):
            matching(text, space)
    else:
        assert matching(text, space).tolist() == expected


@given(text=CONDITIONS, columns=SPACES, window=st.integers(1, 3))
def test_windows_do_not_show(text: str, columns: dict[str, list[Any]], window: int) -> None:
    """Large spaces are computed piece by piece."""

    def outcome() -> Any:
        try:
            return matching(text, Param(**columns)).tolist()
        except SelectionError:
            return None

    whole = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "_WINDOW", window)
        assert outcome() == whole


SMALL = Param(D=[1, 2, 3]) * Param(N=[10, 50], name=["a", None])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D > 1 and N == 50", [3, 5]),
        ("1 < D <= 2", [2, 3]),
        ("name == 'a' or D == 3", [0, 2, 4, 5]),
        ("name != None and name < 'b'", [0, 2, 4]),
        ("D not in (1, -2) and not N == 10", [3, 5]),
        ("D == '1'", []),
        ("\n D == 1 ", [0, 1]),
        ("abs(D - 2) < 1e-9", [2, 3]),
        ("True", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_conditions_choose_items(text: str, expected: list[int]) -> None:
    """As one reads them."""
    assert np.flatnonzero(matching(text, SMALL)).tolist() == expected


def test_numbers_are_compared_exactly() -> None:
    """float32(0.1) is not 0.1, nor 2**53 + 1 a float, nor a text with a NUL that without."""
    space = Param(s=np.array([0.1, 0.5], "f4"), u=np.array([2**64 - 1, 1], "u8"), i=[2**53 + 1, 2**53])
    assert matching("s == 0.1", space).tolist() == [False, False]
    assert matching("u == 18446744073709551615", space).tolist() == [True, False]
    assert matching("u + 1 > 18446744073709551615", space).tolist() == [True, False]
    assert matching("i == 9007199254740992.0", space).tolist() == [False, True]
    assert not matching("t == 'a\\0'", Param(t=["a", "b"])).any()


@pytest.mark.parametrize(
    "text", ["i + i > 0", "i * 2 > 0", "i * i > 0", "i - -i > 0", "i ** 2 > 0", "i / 3 != 2**62 / 3"]
)
def test_integers_do_not_run_over(text: str) -> None:
    """They have as many digits as they take; divided, they are rounded once."""
    values = [2**62 + 1, 2**62 + 769]
    assert matching(text, Param(i=values)).tolist() == [eval(text, {}, {"i": value}) for value in values]


def test_times_compare_with_text() -> None:
    """In any unit; text that is no time is an error."""
    space = Param(t=np.array(["2020-01-01", "2020-02-01"], "M8[D]"), x=[1, 2])
    assert matching("t > '2020-01-15T12' and x == 2", space).tolist() == [False, True]
    assert matching("t in ['2020-01-01']", space).tolist() == [True, False]
    for text in ("t == 'soon'", "t in ['soon']"):
        with pytest.raises(SelectionError, match="'soon' is no time"):
            matching(text, space)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name > 1", r"'name > 1' in item 0: name is text \('a'\) and 1 is a number; they have no order"),
        ("name > 'a'", r"in item 1: name is None and 'a' is text; .*To leave such items out: name != None and \.\.\."),
        ("D + name > 1", r"'D \+ name' in item 0: D is a number \(1\) and name is text \('a'\); it takes numbers"),
        ("N / (D - 2) > 1", "in item 2: .*division by zero"),
        ("D", "D is a number .*it has to be true or false; compare it"),
        ("not N", "it has to be true or false"),
        ("d > 1", "no parameter 'd'. There are: D, N, name"),
        ("Name == 'a'", "no parameter 'Name'. Did you mean name?"),
        ("D = 3", "it cannot be read: invalid syntax"),
        ("D is None", "it takes == in place of 'is'"),
        ("D in N", "'in' takes a list"),
        ("D in [N]", "'in' takes a list"),
        ("D in [1] == True", "in a chain 'in' comes last"),
        ("D & 1 == 1", "more than it takes"),
        ("", "it cannot be read"),
        ("D > 1; D", "it cannot be read"),
    ],
)
def test_mistakes_are_told(text: str, told: str) -> None:
    """With the part, the parameter and the item."""
    with pytest.raises(SelectionError, match=told):
        matching(text, SMALL)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "().__class__",
        "D.real > 1",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "print(D)",
        "abs(D, 1)",
        "abs(*[D])",
        "f'{D}' == ''",
        "(D := 3) == 3",
        "D[0] == 1",
        "D if D else D",
        "b'a' == D",
        "... == D",
        "await D",
        "name * 99 == ''",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    """Nothing of it is run."""
    with pytest.raises(SelectionError):
        matching(text, SMALL)


@pytest.mark.parametrize(
    "text",
    [
        "D == 9**9**9",
        "D ** 9 ** 9 == 1",
        "2 ** 2 ** 2 ** 2 ** 2 ** 2 == D",
        "(" * 5000 + "D" + ")" * 5000 + " == 1",
        "-" * 9000 + "D == 1",
        "D" + " + D" * 2000 + " == 1",
        "D == " + "9" * 9000,
        "D == 1" + " or D == 1" * 5000,
        "D == 1\0",
        "D == '\ud800\0' and D ** 1e9 ** 9 > 1",
    ],
    ids=range(10),
)
def test_absurd_conditions_end_at_once(text: str) -> None:
    """With an error, not with all memory."""
    began = time.monotonic()
    with pytest.raises(SelectionError):
        matching(text, SMALL)
    assert time.monotonic() - began < 2


def test_parameters_with_lists_are_refused_where_they_are_named() -> None:
    """Nothing says what a comparison of lists means."""
    space = Param(x=[[1, 2], [3, 4]], r=[[1], [2, 3]], D=[1, 2])
    assert matching("D == 1", space).tolist() == [True, False]
    for name in "xr":
        with pytest.raises(SelectionError, match=f"{name} has lists"):
            matching(f"{name} == 1", space)


def test_an_empty_space_has_no_items_that_match() -> None:
    """But the condition is read all the same."""
    assert matching("x == 1", Param(x=[])).shape == (0,)
    with pytest.raises(SelectionError, match="no parameter 'y'"):
        matching("y == 1", Param(x=[]))


def test_memory_does_not_grow_with_the_space() -> None:
    """A mask of a byte an item is all that is kept."""
    space = Param(D=range(1000)) * Param(N=range(2000))
    tracemalloc.start()
    try:
        chosen = matching("D % 7 == 3 and N * 2 > D", space)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert chosen.sum() == sum(n * 2 > d for d in range(3, 1000, 7) for n in range(2000))
    assert peak < len(space) + 2**24
