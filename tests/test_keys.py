"""Identity keys: equal exactly when two assignments are the same work."""

from __future__ import annotations

import datetime
import enum
import itertools
import re
import warnings
from collections.abc import Callable, Hashable, Iterator
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from psyrun.arrays import Array
from psyrun.errors import UnsupportedValueError
from psyrun.keys import Lanes, assignment_key, find, finish, occurrences, value_lanes

GOLDEN = Path(__file__).parents[1] / "docs" / "keys.md"


def key(value: Any) -> tuple[int, ...]:
    return tuple(assignment_key({"x": value}).tolist())


# What the rules of equality are measured by: plain Python, slow and obvious.

UNITS = {"W": 604800 * 10**9, "D": 86400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9}
UNITS |= {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def identity(value: Any) -> Hashable:
    """Return something hashable that is equal for two values exactly when their keys have to be."""
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, (np.datetime64, np.timedelta64)):
        unit, step = np.datetime_data(value.dtype)
        return type(value).__name__, "NaT" if np.isnat(value) else int(value.astype(np.int64)) * step * UNITS[unit]
    if isinstance(value, (int, np.bool_, np.integer)):
        return Fraction(int(value))
    if isinstance(value, (float, np.floating)):
        return Fraction(*value.as_integer_ratio()) if np.isfinite(value) else str(value)
    if isinstance(value, (complex, np.complexfloating)):
        return identity(value.real) if value.imag == 0 else ("complex", identity(value.real), identity(value.imag))
    if isinstance(value, str):
        return "text", "".join(value)  # str() of NumPy's text drops NULs at the end
    if isinstance(value, bytes):
        return "bytes", bytes(value)
    if isinstance(value, np.ndarray) and not len(value) and value.ndim > 1:
        return "empty", value.shape
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return "sequence", tuple(map(identity, value))
    if isinstance(value, dict):
        return "dict", frozenset((identity(k), identity(v)) for k, v in value.items())
    assert value is None
    return None


integers = st.integers(-3, 3) | st.integers() | st.sampled_from([2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**400])
floats = st.floats() | st.sampled_from([0.1, 0.5, 1.0, -0.0, 2.0**53, 2.0**63, -(2.0**63), 2.0**64, 1e300])
numbers = st.booleans() | integers | floats | st.builds(complex, floats, st.sampled_from([0.0, 1.0]))
texts = st.text(max_size=3) | st.sampled_from(["1", "a", "a\0", "\ud800", "None"])
instants = st.builds(
    lambda count, unit, kind: kind(count, unit),
    st.integers(-(10**6), 10**6) | st.just("NaT"),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from([np.datetime64, np.timedelta64]),
)
thirds = st.integers(-(10**6), 10**6).map(lambda n: np.longdouble(n) / 3)
scalars: st.SearchStrategy[Any] = numbers | thirds | texts | st.binary(max_size=2) | instants | st.none()
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(numbers, max_size=3).map(np.array)
        | npst.arrays(
            st.sampled_from(["M8[h]", "m8[s]", "g", "f2", "U2"]), npst.array_shapes(max_dims=2, min_side=0, max_side=2)
        )
        | st.dictionaries(integers | texts, inner, max_size=3)
    ),
    max_leaves=5,
)

SPELLINGS: list[Callable[[Any], Any]] = [
    *(bool, int, float, complex, str, list, tuple, np.array, np.str_, np.bytes_, np.bool_),
    *(np.int8, np.int64, np.uint8, np.uint64, np.float16, np.float32, np.float64, np.longdouble, np.complex64),
    *(lambda v, unit=unit: v.astype(f"{v.dtype.kind}8[{unit}]") for unit in UNITS),
    lambda v: v.astype(v.dtype.newbyteorder()),
    lambda v: dict(reversed(v.items())),
    lambda v: range(v[0], v[0] + len(v)),
    lambda v: [v],
]


def respelled(value: Any) -> Iterator[Any]:
    """Yield what can be made of a value; some are equal to it and some are not."""
    for spelling in SPELLINGS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                other = spelling(value)
            except (TypeError, ValueError, OverflowError, AttributeError, IndexError, KeyError):
                continue
        if not _holds_python_times(other):  # NumPy makes such of arrays of times among others; they have no key
            yield other


def _holds_python_times(value: Any) -> bool:
    objects = isinstance(value, np.ndarray) and value.dtype == object
    return objects and any(isinstance(v, (datetime.date, datetime.timedelta)) for v in value.flat)


@given(values)
@example([[], []])
@example([[False], np.array(["1970-01-01T00"], dtype="M8[h]")])
@example([1.5, 2])
@example(np.zeros((2, 0)))
def test_a_value_has_one_key_however_it_is_spelled(value: Any) -> None:
    """Equal values have equal keys and different values different ones, whatever their types."""
    for other in respelled(value):
        assert (key(other) == key(value)) == (identity(other) == identity(value)), (value, other)


@given(values, values)
def test_two_values_share_a_key_only_if_they_are_equal(first: Any, second: Any) -> None:
    """No two different values meet in one key."""
    assert (key(first) == key(second)) == (identity(first) == identity(second))


@given(numbers, numbers)
def test_numbers_share_a_key_if_they_are_the_same_real_number(first: Any, second: Any) -> None:
    """1 and 1.0 and True; not 2**53 + 1 and 2.0**53."""
    assert (key(first) == key(second)) == (identity(first) == identity(second))


@given(instants, instants)
def test_instants_share_a_key_whatever_their_units(first: Any, second: Any) -> None:
    """A day and its 24 hours are one duration, and no number."""
    assert (key(first) == key(second)) == (identity(first) == identity(second))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, True),
        (1, 1.0),
        (1, np.int8(1)),
        (1, 1 + 0j),
        (0.0, -0.0),
        (float("nan"), np.float32("nan")),
        (complex("nan"), float("nan")),
        (0.5, np.float16(0.5)),
        (2**64, 2.0**64),
        ("a", np.str_("a")),
        (b"a", np.bytes_(b"a")),
        ([1, 2], (1, 2)),
        ([1, 2], np.array([1.0, 2.0])),
        ([1, 2], range(1, 3)),
        ([[1], [2]], np.array([[1], [2]])),
        ([[], []], np.zeros((2, 0))),
        ([["a"], [None]], np.array([["a"], [None]], dtype=object)),
        ([1, 2], np.array([1, 2]).astype(">i2")),
        (np.array(3), 3),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}),
        (np.datetime64("2020-01-01"), np.datetime64("2020-01-01T00:00:00.000")),
        (np.datetime64("2020"), np.datetime64("2020-01-01")),
        (np.timedelta64(1, "D"), np.timedelta64(24, "h")),
        (np.timedelta64(1, "Y"), np.timedelta64(12, "M")),
        (np.datetime64("NaT", "D"), np.datetime64("NaT", "s")),
        (np.datetime64("2020-01-01", ("D", 2)), np.datetime64("2020-01-01")),
    ],
)
def test_these_are_equal(first: Any, second: Any) -> None:
    """The rule holds where types, sizes, byte orders and units differ."""
    assert key(first) == key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.float32(0.1), 0.1),
        (np.longdouble(1) / 3, 1 / 3),
        (0.1 + 0.2, 0.3),
        (2**53 + 1, 2.0**53),
        (2**64 + 1, 2.0**64),
        (10**400, 10**400 + 1),
        (-(2**63), 2**63),
        (1, "1"),
        ("a", b"a"),
        ("a", "a\0"),
        (None, "None"),
        (None, float("nan")),
        (None, 0),
        (1, [1]),
        ([1, 2], [2, 1]),
        ([1, [2]], [[1], 2]),
        ([[1, 2]], [[1], [2]]),
        ([], [[]]),
        ([], {}),
        (np.zeros((0, 2)), np.zeros((0, 3))),
        (np.timedelta64(5, "s"), 5),
        (np.timedelta64(5, "s"), np.datetime64(5, "s")),
        (np.datetime64("NaT", "s"), np.timedelta64("NaT", "s")),
        (np.datetime64("NaT", "s"), float("nan")),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, [["a", 1]]),
    ],
)
def test_these_differ(first: Any, second: Any) -> None:
    """What is nearly equal is not equal."""
    assert key(first) != key(second)


class Colour(str, enum.Enum):
    RED = "red"


def test_members_of_enumerations_are_the_values_they_derive_from() -> None:
    """An enumeration of text identifies as its text."""
    assert key(Colour.RED) == key("red")


@pytest.mark.parametrize(
    "value",
    [
        len,
        lambda: None,
        object(),
        Decimal("0.1"),
        Fraction(1, 2),
        date(2020, 1, 1),
        {1, 2},
        np.zeros(2, dtype=[("a", int)]),
        np.ma.masked_array([1, 2], [True, False]),
        [1, [object()]],
        {"a": len},
    ],
)
def test_what_has_no_lasting_identity_is_refused_by_name(value: Any) -> None:
    """The error names the parameter, what it got and what it takes."""
    with pytest.raises(UnsupportedValueError, match=r"parameter 'model': .*takes numbers, text"):
        assignment_key({"model": value})


NUMERIC = st.sampled_from(
    ["?", "i1", "i8", ">i4", "u1", "u8", "f2", "f4", ">f8", "f8", "g", "c16", "U3", "S2", "M8[s]"]
)


@given(st.data(), NUMERIC, npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4))
def test_arrays_are_hashed_at_once_as_their_values_are_one_by_one(
    data: st.DataObject, dtype: str, shape: tuple[int, ...]
) -> None:
    """The vectorised way and the way of single values agree, bit for bit."""
    column: Array = data.draw(npst.arrays(dtype, shape))
    one_by_one = value_lanes("x", list(column))
    np.testing.assert_array_equal(value_lanes("x", column), one_by_one)
    assert [key(v) for v in column] == list(map(tuple, finish(one_by_one, 0).tolist()))


@pytest.mark.parametrize(
    "column",
    [
        np.array([0, 2**63 - 1, 2**63, 2**64 - 1], dtype=np.uint64),
        np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 2.0**63, -(2.0**63)]),
        np.array([0x7FF0000000000001, 0xFFF8000000000002], dtype=np.uint64).view(np.float64),
        np.array([0x7F800001, 0xFFC00002], dtype=np.uint32).view(np.float32),
    ],
    ids=["large", "special", "nan64", "nan32"],
)
def test_arrays_of_extreme_numbers_are_hashed_as_their_values_are(column: Array) -> None:
    """Integers beyond 2**63, signed zeros and infinities, and NaN of any sign and payload."""
    assert list(map(tuple, finish(value_lanes("x", column), 0).tolist())) == list(map(key, column.tolist()))
    assert len({key(v) for v in column[np.isnan(column)]}) <= 1


@given(st.dictionaries(st.text(max_size=3), scalars, max_size=4), st.randoms())
def test_the_order_of_parameters_does_not_count(assignment: dict[str, Any], random: Any) -> None:
    """A key is of names and values, not of how they are listed."""
    items = list(assignment.items())
    random.shuffle(items)
    np.testing.assert_array_equal(assignment_key(dict(items)), assignment_key(assignment))


@given(scalars, scalars)
def test_names_and_values_belong_together(first: Any, second: Any) -> None:
    """Values that change their places make another assignment."""
    swapped = assignment_key({"a": second, "b": first}).tolist() != assignment_key({"a": first, "b": second}).tolist()
    assert swapped == (identity(first) != identity(second))
    assert assignment_key({"a": first}).tolist() != assignment_key({"b": first}).tolist()


def test_a_hundred_thousand_numbers_meet_in_neither_lane() -> None:
    """Small integers, their fractions and their pairs all differ, in each half of the key."""
    whole = np.arange(-20_000, 20_000)
    fractions = (whole + 0.5) / 64
    a, b = value_lanes("a", whole), value_lanes("b", whole[:200])
    pairs = (a[:200, np.newaxis] + b[np.newaxis]).reshape(-1, 2)
    lanes = np.concatenate([a, value_lanes("a", fractions), pairs])
    keys = np.concatenate([finish(lanes, 0), finish(a, 1)])
    for lane in (0, 1):
        assert len(np.unique(keys[:, lane])) == len(keys)


@given(st.lists(st.integers(0, 2**32), min_size=2, max_size=2, unique=True))
def test_equal_rows_are_told_apart_by_their_number(numbers: list[int]) -> None:
    """The second of two equal rows is another item."""
    first, second = (assignment_key({"a": 1}, n).tolist() for n in numbers)
    assert first != second


# Few values in each lane: many keys are equal, and many agree in one lane only.
few_lanes = npst.arrays(np.uint64, st.tuples(st.integers(0, 12), st.just(2)), elements=st.integers(0, 2))


@given(few_lanes)
def test_occurrences_count_the_equal_rows_before(lanes: Lanes) -> None:
    """As counting row by row does."""
    rows = list(map(tuple, lanes.tolist()))
    assert occurrences(lanes).tolist() == [rows[:i].count(row) for i, row in enumerate(rows)]


@given(few_lanes, few_lanes)
def test_find_gives_the_first_place_or_minus_one(needles: Lanes, keys: Lanes) -> None:
    """As searching row by row does."""
    rows = list(map(tuple, keys.tolist()))
    wanted = map(tuple, needles.tolist())
    assert find(needles, keys).tolist() == [rows.index(row) if row in rows else -1 for row in wanted]


def golden_rows() -> list[tuple[str, str, str]]:
    return re.findall(r"^\| `(.+)` \| (\d+) \| `([0-9a-f ]+)` \|$", GOLDEN.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_documented_table_is_read() -> None:
    """A table that nothing reads would hold anything."""
    assert len(golden_rows()) >= 25


@pytest.mark.parametrize(("assignment", "occurrence", "expected"), golden_rows())
def test_keys_are_the_documented_ones(assignment: str, occurrence: str, expected: str) -> None:
    """The encoding never changes: records of years ago are still found."""
    lanes = assignment_key(eval(assignment, {"np": np, "nan": np.nan, "inf": np.inf}), int(occurrence))
    assert " ".join(f"{lane:016x}" for lane in lanes.tolist()) == expected


def test_the_documented_encoding_gives_the_documented_keys() -> None:
    """Whoever follows the text, without the code, comes to the same key."""
    from hashlib import blake2b

    def mix(word: int) -> int:
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        return word ^ word >> 31

    def words(text: bytes) -> list[int]:
        digest = blake2b(text, digest_size=16).digest()
        return [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")]

    integer, text = [0x243F6A8885A308D3, 0x13198A2E03707344], [0x452821E638D01377, 0xBE5466CF34E90C6C]
    step = [0x9E3779B97F4A7C15, 0xD1B54A32D192ED03]
    expected = []
    for lane, occurrence in itertools.product((0, 1), [1]):
        a = mix(mix((3 + integer[lane]) % 2**64) ^ words(b"a")[lane])
        b = mix(mix((words(b"sx")[lane] + text[lane]) % 2**64) ^ words(b"b")[lane])
        expected.append(mix((a + b + (occurrence + 1) * step[lane]) % 2**64))
    assert assignment_key({"a": 3, "b": "x"}, 1).tolist() == expected
