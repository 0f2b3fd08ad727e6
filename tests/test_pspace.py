"""The algebra of parameter spaces: laws against plain lists of dicts, then cases."""

from __future__ import annotations

import copy
import tracemalloc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from functools import reduce
from operator import add, mul, sub
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.errors import UnsupportedValueError
from psyrun.keys import assignment_key
from psyrun.pspace import AmbiguousOperationError, Param, ParameterSpace, dict_concat, missing
from test_keys import identity

Row = dict[str, Any]

# Few values, so that rows are equal now and then, however they are spelled.
VALUES = [
    0,
    1,
    1.0,
    True,
    2,
    0.5,
    np.int64(1),
    np.float32(0.5),
    2**53 + 1,
    "a",
    None,
    float("nan"),
    [1, 2],
    (1, 2),
    [[]],
]
NAN = float("nan")


def spelled(rows: list[Row]) -> list[list[tuple[str, type, str]]]:
    """Return what tells rows apart even where they are equal: order of names, types, digits."""
    return [[(name, type(value), repr(value)) for name, value in row.items()] for row in rows]


def row_identity(row: Row, names: Any = None) -> Hashable:
    return frozenset((n, identity(v)) for n, v in row.items() if names is None or n in names)


def occurrence_numbers(rows: list[Row]) -> list[int]:
    identities = list(map(row_identity, rows))
    return [identities[:i].count(row) for i, row in enumerate(identities)]


@st.composite
def params(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[ParameterSpace, list[Row]]:
    """A `Param` with these names, and its rows."""
    n = draw(st.sampled_from([3, 2, 1, 4, 0]))
    columns: dict[str, list[Any]] = {}
    given_values: dict[str, Any] = {}
    for name in names:
        pool = draw(st.sampled_from([VALUES, VALUES, [*VALUES[-3:], 1]]))
        some = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
        column = draw(
            st.lists(st.sampled_from(some), min_size=n, max_size=n)
            | st.lists(st.integers(0, 2), min_size=n, max_size=n).map(np.array)
            | st.integers(0, 3).map(lambda start: range(start, start + n))
            | st.lists(st.sampled_from("ab"), min_size=n, max_size=n).map(lambda v: np.array(v, dtype="U1"))
        )
        given_values[name], columns[name] = column, list(column)
    if names and n and draw(st.booleans()):
        given_values[names[0]] = 1
        columns[names[0]] = [1] * n
        n = n if len(names) > 1 else 1
    n = n if names else 1
    return Param(**given_values), [{name: columns[name][i] for name in names} for i in range(n)]


def slices(n: int) -> st.SearchStrategy[slice]:
    """Most of n rows, or any of them."""
    return st.sampled_from([slice(None, None, -1), slice(1, None), slice(0, -1), slice(None, None, 2)]) | st.slices(
        n or 1
    )


@st.composite
def spaces(
    draw: st.DrawFn, names: tuple[str, ...] = ("a", "b", "c"), depth: int = 3
) -> tuple[ParameterSpace, list[Row]]:
    """A space made by some operations, and its rows as plain lists of dicts would give them."""
    kind = draw(st.sampled_from(["Param", "*", "+", "[]", "*", "+", "where", "-"])) if depth else "Param"
    if kind == "*":
        split = draw(st.integers(0, len(names)))
        (left, lefts) = draw(spaces(names[:split], depth - 1))
        (right, rights) = draw(spaces(names[split:], depth - 1))
        return left * right, [i | j for i in lefts for j in rights]
    if kind == "+":
        split = draw(st.integers(0, len(names)))
        (left, lefts) = draw(spaces(names[:split] or names, depth - 1))
        (right, rights) = draw(spaces(names[max(split - 1, 0) :], depth - 1))
        every = dict.fromkeys([*left.parameters, *right.parameters])
        return left + right, [{n: row.get(n, NAN) for n in every} for row in [*lefts, *rights]]
    if kind == "Param":
        return draw(params(names))
    (space, rows) = draw(spaces(names, depth - 1))
    if kind == "[]":
        part = draw(slices(len(rows)))
        return space[part], rows[part]
    if kind == "where":
        wanted = draw(st.integers(0, 3))
        return (
            space.where(lambda **row: len(str(row)) % 4 != wanted),
            [row for row in rows if len(str(row)) % 4 != wanted],
        )
    some = tuple(n for n in names if draw(st.booleans())) or names[:1]
    (other, others) = draw(params(some))
    dropped = {row_identity(row) for row in others}
    return space - other, [row for row in rows if row_identity(row, some) not in dropped]


def bounds(n: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, n), st.integers(0, n)).map(sorted).map(lambda pair: (pair[0], pair[1]))


class TestLaws:
    @given(spaces())
    def test_rows_are_those_of_plain_lists(self, made: tuple[ParameterSpace, list[Row]]) -> None:
        """Lengths, values as written, their order and that of names: as loops would give them."""
        space, rows = made
        assert len(space) == len(rows)
        assert spelled(list(space.iterate())) == spelled(list(space)) == spelled(rows)
        assert all(list(row) == space.keys() for row in rows)

    @given(spaces())
    def test_build_gives_python_scalars(self, made: tuple[ParameterSpace, list[Row]]) -> None:
        """A dict of lists, NumPy's numbers and text as Python's."""
        space, rows = made
        plain = [{n: v.item() if isinstance(v, np.generic) else v for n, v in row.items()} for row in rows]
        built = space.build()
        assert list(built) == space.keys()
        assert spelled([{n: built[n][i] for n in built} for i in range(len(rows))]) == spelled(plain)

    @given(spaces(), st.data())
    def test_a_row_has_a_number(self, made: tuple[ParameterSpace, list[Row]], data: st.DataObject) -> None:
        """space[i] is the i-th row, from the end for negative i; beyond is an IndexError."""
        space, rows = made
        for i in (len(rows), -len(rows) - 1):
            with pytest.raises(IndexError):
                space[i]
        if rows:
            i = data.draw(st.integers(-len(rows), len(rows) - 1))
            assert spelled([space[i]]) == spelled([rows[i]])

    @given(spaces(), st.data())
    def test_views_of_views_are_slices_of_slices(
        self, made: tuple[ParameterSpace, list[Row]], data: st.DataObject
    ) -> None:
        """With any steps, backwards too."""
        space, rows = made
        for _ in range(3):
            part = data.draw(slices(len(rows)))
            space, rows = space[part], rows[part]
        assert spelled(list(space)) == spelled(rows)

    @given(spaces(), st.data())
    def test_columns_agree_with_rows(self, made: tuple[ParameterSpace, list[Row]], data: st.DataObject) -> None:
        """Any slice of them, and any choice of rows, more than once too."""
        space, rows = made
        start, stop = data.draw(bounds(len(rows)))
        at = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5)) if rows else []
        for columns, chosen in (
            (space.columns(start, stop), rows[start:stop]),
            (space.columns_at(at), [rows[i] for i in at]),
        ):
            assert list(columns) == space.keys()
            for name, column in columns.items():
                assert list(map(identity, column)) == [identity(row[name]) for row in chosen]
        for name in space.keys():  # noqa: SIM118 - a method of psyrun, not of dicts
            assert len(space[name]) == len(rows)

    @given(spaces(), st.data())
    def test_slices_of_rows_agree(self, made: tuple[ParameterSpace, list[Row]], data: st.DataObject) -> None:
        """iterate(start, stop) gives what the slice of all rows is."""
        space, rows = made
        start, stop = data.draw(bounds(len(rows)))
        assert spelled(list(space.iterate(start, stop))) == spelled(rows[start:stop])

    @given(spaces(), st.data())
    def test_keys_are_those_of_the_rows_counted_one_by_one(
        self, made: tuple[ParameterSpace, list[Row]], data: st.DataObject
    ) -> None:
        """Each row's key is that of its assignment and of how many equal rows stand before it; no two are equal."""
        space, rows = made
        expected = [tuple(assignment_key(r, n).tolist()) for r, n in zip(rows, occurrence_numbers(rows), strict=True)]
        start, stop = data.draw(bounds(len(rows)))
        at = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5)) if rows else []
        fresh = copy.deepcopy(space)
        assert list(map(tuple, fresh.item_keys(start, stop).tolist())) == expected[start:stop]
        assert list(map(tuple, space.item_keys_at(at).tolist())) == [expected[i] for i in at]
        assert list(map(tuple, space.item_keys().tolist())) == expected
        assert len(set(expected)) == len(rows)

    @given(spaces())
    def test_the_text_of_a_space_builds_it_again(self, made: tuple[ParameterSpace, list[Row]]) -> None:
        """eval(repr(space)) has the same rows."""
        space, rows = made
        again = eval(repr(space), {"Param": Param, "np": np, "nan": NAN})
        assert list(map(row_identity, again)) == list(map(row_identity, rows))
        assert again == space

    @given(spaces(), spaces())
    def test_a_digest_is_shared_only_by_the_same_rows(
        self, made: tuple[ParameterSpace, list[Row]], other: tuple[ParameterSpace, list[Row]]
    ) -> None:
        """Equal digests or equal spaces mean equal rows in the same order; the other way, spaces are equal."""
        space, rows = made
        assert copy.deepcopy(space).digest == space.digest
        same = list(map(row_identity, rows)) == list(map(row_identity, other[1]))
        same = same and set(space.keys()) == set(other[0].keys())
        assert (space == other[0]) == same
        assert same or space.digest != other[0].digest

    @given(spaces())
    def test_a_space_without_itself_is_empty(self, made: tuple[ParameterSpace, list[Row]]) -> None:
        """s - s, missing(s, s), and missing of what was built."""
        space, _ = made
        assert len(space - space) == len(missing(space, space)) == 0
        if space.keys():
            assert len(missing(space, space.build())) == 0

    @given(spaces(("a", "b"), 2), spaces(("a", "b"), 2))
    def test_missing_counts_equal_rows(
        self, made: tuple[ParameterSpace, list[Row]], other: tuple[ParameterSpace, list[Row]]
    ) -> None:
        """A row that is wanted twice and done once is missing once; other names of what is done do not count."""
        (space, rows), (done, done_rows) = made, other
        if set(space.keys()) - set(done.keys()):
            return
        names = space.keys()
        wanted, there = Counter(map(row_identity, rows)), Counter(row_identity(row, names) for row in done_rows)
        rest = missing(space, done)
        assert Counter(map(row_identity, rest)) == wanted - there
        assert len(missing(space, rest + space)) == 0

    @given(spaces(("a", "b"), 2), spaces(("c",), 1), spaces(("d",), 1))
    def test_product_and_sum_are_associative(
        self,
        one: tuple[ParameterSpace, list[Row]],
        two: tuple[ParameterSpace, list[Row]],
        three: tuple[ParameterSpace, list[Row]],
    ) -> None:
        """Brackets do not matter."""
        a, b, c = one[0], two[0], three[0]
        assert (a * b) * c == a * (b * c)
        assert (a + b) + c == a + (b + c)
        assert Param() * a == a == a * Param()

    @given(spaces())
    def test_a_row_is_the_callers_own(self, made: tuple[ParameterSpace, list[Row]]) -> None:
        """Changing a row that was given out changes nothing else."""
        space, rows = made
        before = spelled(copy.deepcopy(rows))
        seen = []
        for row in space:
            seen.append(spelled([row])[0])
            _spoil(row)
        assert seen == before
        for row in [space[i] for i in range(len(space))] + [{n: list(c) for n, c in space.columns().items()}]:
            _spoil(row)
        _spoil(space.build())
        assert spelled(list(space)) == before


def _spoil(value: Any) -> None:
    """Change whatever in a value can be changed."""
    if isinstance(value, (list, tuple)):
        for element in value:
            _spoil(element)
    if isinstance(value, list):
        value.append("spoilt")
    if isinstance(value, dict):
        for element in value.values():
            _spoil(element)
        value["spoilt"] = True
    if isinstance(value, np.ndarray) and value.flags.writeable:
        value[...] = 99


def rows_of(space: ParameterSpace) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in space]


class TestParam:
    def test_a_scalar_goes_with_every_row(self) -> None:
        """Beside a sequence it is repeated; scalars alone make one row."""
        assert rows_of(Param(a=[1, 2], b=3)) == [(1, 3), (2, 3)]
        assert rows_of(Param(a=1, b="xyz")) == [(1, "xyz")]
        assert len(Param(a=[], b=3)) == 0

    def test_text_bytes_and_dicts_are_scalars(self) -> None:
        """They have lengths, but are one value."""
        space = Param(a=[1, 2], t="ab", b=b"ab", d={"k": 1, "l": 2}, z=np.array(5))
        assert space[1] == {"a": 2, "t": "ab", "b": b"ab", "d": {"k": 1, "l": 2}, "z": 5}
        assert type(space[0]["z"]) is np.int64

    def test_without_parameters_it_is_one_row(self) -> None:
        """The neutral element of products."""
        assert rows_of(Param()) == [()]
        assert Param().build() == {}
        assert rows_of(Param() * Param(a=[1, 2])) == [(1,), (2,)]

    def test_unequal_lengths_are_an_error_that_names_them(self) -> None:
        """A ValueError with each name and length."""
        with pytest.raises(ValueError, match="a has 2, c has 3"):
            Param(a=[1, 2], b=1, c=[1, 2, 3])

    def test_values_stay_as_written(self) -> None:
        """What execute gets is what the task file says, though neighbours are of other types."""
        for values in (["a", 1], [2**53 + 1, 0.5], [True, 2], [np.int8(1), 2.0], [None, 1], [1, "a", None, (1,), [2]]):
            assert spelled([{"x": v} for v in values]) == spelled(list(Param(x=values)))

    def test_numpy_scalars_stay_in_rows_and_become_plain_in_build(self) -> None:
        """iterate() has np.int64, build() int."""
        space = Param(a=np.arange(2))
        assert [type(row["a"]) for row in space.iterate()] == [np.int64, np.int64]
        assert [type(value) for value in space.build()["a"]] == [int, int]

    def test_a_parameter_may_have_any_name(self) -> None:
        """Even self."""
        assert Param(**{"self": 1, "a b": [2], "start": 3})[0] == {"self": 1, "a b": 2, "start": 3}

    @pytest.mark.parametrize("values", [{1, 2}, frozenset([1])])
    def test_sets_are_refused(self, values: Any) -> None:
        """They have no order; the error names the parameter."""
        with pytest.raises(TypeError, match="'a' is a set"):
            Param(a=values)

    def test_masked_arrays_are_refused(self) -> None:
        """What is under the mask would count."""
        with pytest.raises(TypeError, match="'a' is a masked array"):
            Param(a=np.ma.masked_array([1, 2], [True, False]))

    @pytest.mark.parametrize(
        "values",
        [
            pd.Series([1, 2], index=[5, 6]),
            pd.Index([1, 2]),
            iter([1, 2]),
            {1: "a", 2: "b"}.keys(),
            {"a": 1, "b": 2}.values(),
            (1, 2),
            range(1, 3),
            map(int, "12"),
            np.array([1, 2], dtype=object),
            memoryview(b"\1\2"),
        ],
    )
    def test_all_that_has_an_order_is_a_sequence(self, values: Any) -> None:
        """Series by position, iterators, views of dicts."""
        assert Param(a=values).build() == {"a": [1, 2]}

    def test_series_of_text_and_times(self) -> None:
        """Text stays text, times become datetime64."""
        space = Param(s=pd.Series(["x", "y"]), t=pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])))
        assert space[1] == {"s": "y", "t": np.datetime64("2020-01-02")}
        assert Param(t=pd.Timestamp("2020-01-01"))[0]["t"] == np.datetime64("2020-01-01")

    def test_inputs_are_copied(self) -> None:
        """The caller's lists, arrays, dicts and what is in them may change later."""
        inner, array, mapping = [1], np.arange(2), {"k": [1]}
        nested = np.array([None, None], dtype=object)
        nested[:] = [[1], [2]]
        values = [inner, (inner,)]
        space = Param(a=values, b=array, c=mapping, d=np.zeros((2, 2)), e=nested)
        before = repr(space)
        _spoil(values)
        _spoil(mapping)
        _spoil(nested[0])
        array[:] = 7
        assert repr(space) == before

    def test_columns_cannot_change_the_space(self) -> None:
        """Arrays that are the space's own are read-only."""
        space = Param(a=[1, 2], b=np.arange(2), c=range(2), d=5)
        for column in space.columns().values():
            with pytest.raises(ValueError, match="read-only"):
                column[0] = 9

    def test_functions_are_values_until_a_key_is_asked_for(self) -> None:
        """They can be mapped, but have no identity; the error names the parameter."""
        space = Param(f=[len, max]) * Param(a=[1, 2])
        assert space[3]["f"] is max
        with pytest.raises(UnsupportedValueError, match="parameter 'f'"):
            space.item_keys()


class TestOperations:
    def test_a_product_varies_the_right_factor_fastest(self) -> None:
        """Every row of the left with every row of the right."""
        assert rows_of(Param(a=[1, 2]) * Param(b=[3, 4])) == [(1, 3), (1, 4), (2, 3), (2, 4)]

    def test_shared_names_cannot_be_multiplied(self) -> None:
        """The error names them."""
        with pytest.raises(AmbiguousOperationError, match="both factors have b, c"):
            Param(a=1, b=2, c=3) * Param(c=1, b=[2])

    def test_a_sum_fills_with_nan(self) -> None:
        """A name that one term lacks is NaN in its rows, in text columns too."""
        a, b = Param(a=[1]) + Param(b=["x"])
        assert a["a"] == 1 and np.isnan(a["b"]) and np.isnan(b["a"]) and b["b"] == "x"

    def test_a_difference_compares_in_the_subtrahends_names(self) -> None:
        """Rows are compared as rows, not name by name."""
        grid = Param(a=[1, 2]) * Param(b=[1, 2])
        assert rows_of(grid - Param(a=1)) == [(2, 1), (2, 2)]
        assert rows_of(grid - Param(a=[1, 2], b=[1, 2])) == [(1, 2), (2, 1)]
        assert rows_of(grid - Param(a=[])) == rows_of(grid)

    def test_unknown_names_cannot_be_subtracted(self) -> None:
        """The error names them and those there are."""
        with pytest.raises(AmbiguousOperationError, match="unknown parameters c, d: the space has a, b"):
            Param(a=1, b=2) - Param(d=1, c=2, a=1)

    def test_the_corners_that_are_not_done_are_missing(self) -> None:
        """Of 2 x 2 with (1, 1) and (2, 2) done, exactly (1, 2) and (2, 1) are left."""
        grid = Param(a=[1, 2]) * Param(b=[1, 2])
        assert rows_of(missing(grid, Param(a=[1, 2], b=[1, 2]))) == [(1, 2), (2, 1)]
        assert rows_of(missing(grid, {"b": [2.0, 1.0], "a": np.array([2, 1]), "y": [5, 6]})) == [(1, 2), (2, 1)]

    def test_a_row_wanted_twice_and_done_once_is_missing_once(self) -> None:
        """Repeated assignments are items of their own."""
        assert rows_of(missing(Param(a=[1, 1, 2]), Param(a=[1]))) == [(1,), (2,)]

    def test_missing_needs_all_names(self) -> None:
        """The error names those that what is done lacks; nothing done means all is missing."""
        with pytest.raises(AmbiguousOperationError, match="lacks b, c"):
            missing(Param(a=1, b=2, c=3), Param(a=1))
        nothing: list[ParameterSpace | Row] = [{}, Param(), Param(a=[])]
        for done in nothing:
            assert rows_of(missing(Param(a=[1, 2]), done)) == [(1,), (2,)]

    def test_where_gives_the_predicate_what_it_asks_for(self) -> None:
        """The parameters of its signature, or all; an unknown one is an error that names it."""
        grid = Param(a=[1, 2]) * Param(b=[1, 2])
        assert rows_of(grid.where(lambda a, b: a < b)) == [(1, 2)]
        assert rows_of(grid.where(lambda b, limit=1: b > limit)) == [(1, 2), (2, 2)]
        assert rows_of(grid.where(lambda **row: row == {"a": 2, "b": 1})) == [(2, 1)]
        with pytest.raises(AmbiguousOperationError, match="unknown parameters c: the space has a, b"):
            grid.where(lambda a, c: True)

    def test_a_column_has_a_name(self) -> None:
        """space['a'] is its array; another name is an error that tells those there are."""
        grid = Param(a=[1, 2]) * Param(b=[3])
        assert grid["a"].tolist() == [1, 2]
        with pytest.raises(AmbiguousOperationError, match="unknown parameters c: the space has a, b"):
            grid["c"]

    def test_rows_beyond_the_end_have_no_keys_and_no_columns(self) -> None:
        """Numbers outside are refused, not wrapped around."""
        grid = Param(a=[1, 2]) * Param(b=[3, 4])
        for at in ([4], [-1], np.array([0, 9])):
            with pytest.raises(IndexError, match="rows 0 to 3"):
                grid.item_keys_at(at)
            with pytest.raises(IndexError, match="rows 0 to 3"):
                grid.columns_at(at)

    @pytest.mark.parametrize("other", [1, {"b": 1}, [1], None])
    def test_only_spaces_combine(self, other: Any) -> None:
        """A dict or a number is no space."""
        for operate in (add, mul, sub):
            with pytest.raises(TypeError):
                operate(Param(a=1), other)
        assert Param(a=1) != other

    def test_a_sum_of_thousands_of_terms_is_one_space(self) -> None:
        """Spaces are often summed up in a loop."""
        space = reduce(add, [Param(a=i, b=[0, 1]) for i in range(3000)])
        assert len(space) == 6000
        assert space[4321] == {"a": 2160, "b": 1}
        assert space.columns(4000, 4003)["a"].tolist() == [2000, 2000, 2001]
        assert len(np.unique(space.item_keys(), axis=0)) == 6000


class TestText:
    @pytest.mark.parametrize(
        ("space", "text"),
        [
            (
                Param(D=np.arange(2, 5)) * Param(N=[10, 50, 100]),
                "Param(D=[2, 2, 2, 3, 3, 3, 4, 4, 4], N=[10, 50, 100, 10, 50, 100, 10, 50, 100])",
            ),
            (Param(a=[1, 2], b=[3, 4]), "Param(a=[1, 2], b=[3, 4])"),
            (Param(a=[1, 2], b=3), "Param(a=[1, 2], b=[3, 3])"),
            (Param(b=1, a=np.float32(0.5)), "Param(a=[0.5], b=[1])"),
            (Param(a=[]), "Param(a=[])"),
            (Param(), "Param()"),
        ],
    )
    def test_str_is_the_tutorials(self, space: ParameterSpace, text: str) -> None:
        """Names sorted, plain numbers."""
        assert str(space) == text

    def test_repr_keeps_the_order_of_names(self) -> None:
        """And takes any name and value."""
        assert repr(Param(b=[1, 2], a=NAN)) == "Param(**{'b': [1, 2], 'a': [float('nan'), float('nan')]})"
        assert repr(Param()) == "Param(**{})"
        assert [len(eval(repr(s))) for s in (Param() + Param(), Param()[:0])] == [2, 0]

    def test_long_spaces_are_shortened(self) -> None:
        """A thousand rows are shown, with dots for more."""
        whole, more = Param(a=range(1000)), Param(a=range(1001))
        assert str(whole).endswith(" 999])") and repr(whole).endswith(" 999]})")
        assert str(more).endswith(" 999, ...])") and repr(more).endswith(" 999, ...]})")
        assert len(repr(reduce(add, [Param()] * 2000))) < 20_000

    def test_times_and_exact_numbers_can_be_read_back(self) -> None:
        """datetime64, timedelta64, long doubles, empty arrays, complex numbers."""
        values = [
            *(np.datetime64("2020-01-01T10"), np.timedelta64(3, "h"), np.datetime64("NaT", "s"), np.longdouble(1) / 3),
            *(
                np.zeros((0, 2)),
                np.arange(2) * np.timedelta64(1, "s"),
                complex(NAN, -np.inf),
                "it's",
                b"\0",
                {"a": (1,)},
            ),
        ]
        space = Param(a=values)
        assert eval(repr(space)) == space


class TestDigest:
    def test_it_is_the_same_for_the_same_numbers(self) -> None:
        """Whether written as ints, floats, lists, ranges or arrays."""
        written: list[Any] = [
            [0, 1, 2],
            [0.0, 1.0, 2.0],
            (0, 1, 2),
            range(3),
            np.arange(3),
            np.arange(3.0),
            np.arange(3, dtype=np.uint64),
            np.arange(3, dtype=np.float32),
        ]
        spaces = [Param(a=values) * Param(b=[1]) for values in written]
        assert len({space.digest for space in spaces}) == 1
        spaces.append(Param(a=[False, 1, 2.0]) * Param(b=[1]))
        assert all(np.array_equal(space.item_keys(), spaces[0].item_keys()) for space in spaces)
        assert all(space == spaces[0] for space in spaces)

    def test_it_differs_for_other_rows_names_and_orders(self) -> None:
        """And for the same values in other pairs."""
        spaces = [
            *(
                Param(a=[1, 2]),
                Param(a=[2, 1]),
                Param(b=[1, 2]),
                Param(a=[1, 2, 2]),
                Param(a=["1", "2"]),
                Param(),
                Param(a=[]),
            ),
            *(Param(a=[1, 2], b=[1, 2]), Param(a=[1, 2], b=[2, 1]), Param(a=[1, 2]) * Param(b=[1, 2]), Param()[:0]),
        ]
        assert len({space.digest for space in spaces}) == len(spaces)

    def test_spaces_are_not_hashable(self) -> None:
        """They are compared by their rows, which take long; a digest is their hash."""
        with pytest.raises(TypeError):
            hash(Param())


PRODUCT = Param(a=np.arange(1000)) * Param(b=np.linspace(0, 1, 1000)) * Param(c=[*range(999), "last"])


@pytest.fixture
def memory() -> Iterator[Callable[[], int]]:
    """Give a function that tells the peak of memory since the start of the test, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize(
    "space", [PRODUCT, Param(d=1) * PRODUCT, PRODUCT + Param(a=1, b=2, c=3), Param(a=range(10**9), b=5, c="last")]
)
def test_a_thousand_million_rows_cost_kilobytes(space: ParameterSpace, memory: Callable[[], int]) -> None:
    """Length, rows, views of views and text."""
    assert len(space) >= 10**9
    assert space[10**9 - 1]["c"] == "last"
    view = space[5 : 10**9 : 3][::-1][10:1000]
    assert len(list(view)) == 990
    assert len(space[:]) == len(space)
    assert str(space[-3:])
    assert memory() < 10**6


def test_slices_of_a_huge_product_are_computed_from_its_factors(memory: Callable[[], int]) -> None:
    """Columns and keys of ten rows cost no more where there are 10**9."""
    at = 10**8 + 995
    columns = PRODUCT.columns(at, at + 10)
    assert columns["c"].tolist() == [*range(995, 999), "last", *range(5)]
    assert columns["a"].tolist() == [100] * 10
    keys = PRODUCT.item_keys(at, at + 10)
    assert np.array_equal(keys, PRODUCT.item_keys_at(range(at, at + 10)))
    assert np.array_equal(keys, PRODUCT[at : at + 10].item_keys())
    assert keys[3].tolist() == assignment_key(PRODUCT[at + 3]).tolist()
    assert memory() < 10**6


def test_dict_concat_fills_with_none() -> None:
    """Keys that a row lacks are None in it."""
    assert dict_concat([{"a": 1}, {"b": 2}, {"a": 3, "b": 4}]) == {"a": [1, None, 3], "b": [None, 2, 4]}
    assert dict_concat([]) == {}
