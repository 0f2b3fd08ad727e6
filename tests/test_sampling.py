"""Spaces that are drawn: laws for all of them, what each promises of its points, golden values, errors."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import psyrun
from project import Project
from psyrun import Choice, LatinHypercube, Param, Random, Repeat, Sobol
from psyrun.designs import MOST_POINTS, SOBOL_DIMENSIONS
from psyrun.pspace import ParameterSpace
from test_quantiles import Squared

KINDS = [Random, Sobol, LatinHypercube]
every_kind = pytest.mark.parametrize("kind", KINDS)


DISTRIBUTIONS: dict[str, Any] = {
    "a": (0, 1),
    "b": (-5, 7.5),
    "c": Choice(["x", 2, 0.5, None]),
    "d": Choice([[1], [2, 3]]),
    "e": stats.norm(1, 2),
    "f": stats.gamma(2.5),
    "g": stats.loguniform(1e-3, 1e3),
    "h": stats.randint(2, 50),
    "i": Squared(),
    "j": stats.beta(2, b=3, loc=1),
}
NAMES = st.lists(st.sampled_from(sorted(DISTRIBUTIONS)), min_size=1, max_size=4, unique=True)
SEEDS = st.sampled_from([0, 1, -3, 2**70])


def drawn(kind: Any, n: int, seed: int, names: list[str]) -> ParameterSpace:
    space: ParameterSpace = kind(n, seed=seed, **{name: DISTRIBUTIONS[name] for name in names})
    return space


@st.composite
def samples(draw: st.DrawFn) -> ParameterSpace:
    return drawn(draw(st.sampled_from(KINDS)), draw(st.integers(0, 40)), draw(SEEDS), draw(NAMES))


class TestLaws:
    @given(samples(), st.data())
    def test_rows_columns_and_keys_agree_wherever_they_are_taken(
        self, space: ParameterSpace, data: st.DataObject
    ) -> None:
        """Slices, choices of rows and single rows are those of the rows written out."""
        rows = list(space)
        n = len(space)
        plain = Param(**{name: [row[name] for row in rows] for name in space.parameters})
        start, stop = sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n))))
        at = data.draw(st.lists(st.integers(0, n - 1), max_size=5)) if n else []
        assert len(rows) == n
        assert list(space.iterate(start, stop)) == rows[start:stop] == list(space[start:stop])
        assert list(space.iterate_at(at)) == [rows[i] for i in at] == [space[i] for i in at]
        assert list(space[::-2]) == rows[::-2]
        for some, of in ((space.columns(start, stop), rows[start:stop]), (space.columns_at(at), [rows[i] for i in at])):
            assert {name: column.tolist() for name, column in some.items()} == {
                name: [row[name] for row in of] for name in space.parameters
            }
        fresh = copy.deepcopy(space)
        assert np.array_equal(fresh.item_keys_at(at), plain.item_keys_at(at))
        assert np.array_equal(fresh.item_keys(start, stop), plain.item_keys(start, stop))
        assert space == plain
        assert eval(repr(space), {"Param": Param}) == space

    @given(samples())
    def test_keys_are_unique(self, space: ParameterSpace) -> None:
        """Rows that are drawn twice are told apart."""
        assert len(np.unique(space.item_keys(), axis=0)) == len(space)

    @given(st.sampled_from([Random, Sobol]), st.integers(0, 40), st.integers(0, 40), SEEDS, NAMES)
    def test_growing_keeps_the_first_rows(self, kind: Any, n: int, more: int, seed: int, names: list[str]) -> None:
        """Of any number."""
        assert list(drawn(kind, n + more, seed, names))[:n] == list(drawn(kind, n, seed, names))

    @given(st.integers(0, 30), st.integers(0, 3), SEEDS, NAMES)
    def test_doubling_a_hypercube_keeps_its_rows(self, n: int, doublings: int, seed: int, names: list[str]) -> None:
        """Once or more."""
        grown = drawn(LatinHypercube, n << doublings, seed, names)
        assert list(grown)[:n] == list(drawn(LatinHypercube, n, seed, names))

    @given(st.sampled_from([Random, LatinHypercube]), st.integers(0, 20), SEEDS, NAMES, st.data())
    def test_a_parameter_does_not_depend_on_the_others(
        self, kind: Any, n: int, seed: int, names: list[str], data: st.DataObject
    ) -> None:
        """Nor on their order."""
        whole = drawn(kind, n, seed, names)
        for name in names:
            assert drawn(kind, n, seed, [name])[name].tolist() == whole[name].tolist()
        assert drawn(kind, n, seed, data.draw(st.permutations(names))) == whole

    @given(st.integers(0, 20), SEEDS, NAMES)
    def test_a_parameter_added_at_the_end_of_a_sobol_sequence_changes_no_other(
        self, n: int, seed: int, names: list[str]
    ) -> None:
        """Dimensions go by position."""
        whole = drawn(Sobol, n, seed, names)
        for many in range(1, len(names)):
            for name, column in drawn(Sobol, n, seed, names[:many]).columns().items():
                assert column.tolist() == whole[name].tolist()

    @given(samples(), samples())
    def test_a_digest_is_shared_only_by_the_same_rows(self, one: ParameterSpace, two: ParameterSpace) -> None:
        """And is the same for the same draw."""
        assert copy.deepcopy(one).digest == one.digest == pickle.loads(pickle.dumps(one)).digest
        same = list(one) == list(two) and set(one.parameters) == set(two.parameters)
        assert (one == two) == same
        assert same or one.digest != two.digest

    @given(samples())
    def test_they_combine_like_other_spaces(self, space: ParameterSpace) -> None:
        """With *, +, -, where and themselves."""
        rows = list(space)
        assert list(space * Param(z=[1, 2])) == [row | {"z": z} for row in rows for z in (1, 2)]
        assert list(Param(z=[1, 2]) * space) == [{"z": z} | row for z in (1, 2) for row in rows]
        assert list(space + space[1:]) == rows + rows[1:]
        assert len(space - space) == 0
        assert len(psyrun.pspace.missing(space + space, space)) == len(space)
        first = space.parameters[0]
        gone = [row[first] for row in rows[::2]]
        assert list(space - Param(**{first: gone})) == [row for row in rows if row[first] not in gone]
        assert list(space.where(lambda **row: row[first] == rows[0][first])) == [
            row for row in rows if row[first] == rows[0][first]
        ]


def test_a_row_is_the_callers_own() -> None:
    """Changing a list that was chosen changes no other row."""
    space = Random(9, seed=1, x=Choice([[1], [2, 3]]))
    before = copy.deepcopy(list(space))
    for row in [*space, *(space[i] for i in range(9)), {"x": space["x"][0]}]:
        row["x"].append("spoilt")
    assert list(space) == before


@every_kind
def test_many_rows_are_iterated_in_pieces(kind: Any) -> None:
    """None is lost between them."""
    space = kind(40_000, seed=1, x=(0, 1))
    assert [row["x"] for row in space] == space["x"].tolist()


class TestRepeat:
    def test_every_point_comes_as_often_and_is_counted(self) -> None:
        """From 0, fastest where it stands on the right."""
        assert list(Param(D=[2, 3]) * Repeat(2, "run")) == [{"D": d, "run": i} for d in (2, 3) for i in (0, 1)]
        assert Repeat(3).parameters == ("trial",)
        assert len(Param(D=[2, 3]) * Repeat(0)) == 0

    def test_more_repetitions_keep_the_keys_of_the_first(self) -> None:
        """No two share a key."""
        few, many = Random(5, seed=1, x=(0, 1)) * Repeat(3), Random(8, seed=1, x=(0, 1)) * Repeat(10)
        assert len(psyrun.pspace.missing(few, many)) == 0
        assert len(psyrun.pspace.missing(many, few)) == 80 - 15
        assert len(np.unique(many.item_keys(), axis=0)) == 80


class TestDigest:
    def test_everything_that_makes_the_rows_is_in_it(self) -> None:
        """Kind, number, seed, names and what they are drawn from."""
        spaces = [kind(5, seed=1, x=(0, 1)) for kind in KINDS]
        spaces += [Random(6, seed=1, x=(0, 1)), Random(5, seed=2, x=(0, 1)), Random(5, seed=1, y=(0, 1))]
        spaces += [Random(5, seed=1, x=(0, 2)), Random(5, seed=1, x=(0, 1), y=(0, 1))]
        spaces += [Random(5, seed=1, x=Choice(values)) for values in ([1, 2], [1, 2, 2], ["a"])]
        spaces += [Random(5, seed=1, x=d) for d in (stats.norm, stats.norm(1), stats.norm(scale=2), stats.gamma(2))]
        spaces += [Random(5, seed=1, x=d) for d in (Squared(), stats.rv_histogram(([1, 2], [0, 1, 2]), density=False))]
        spaces += [Random(5, seed=1, x=stats.rv_histogram(([2, 1], [0, 1, 2]), density=False))]
        assert len({space.digest for space in spaces}) == len(spaces)

    @pytest.mark.parametrize("distribution", [(0, 1), Choice(["a", 1]), stats.norm(0, 1), stats.poisson(mu=3)])
    def test_it_needs_no_values_of_what_is_known_by_its_name(self, distribution: Any) -> None:
        """A thousand million rows have one at once; their rows too."""
        space = Random(10**9, seed=1, x=distribution)
        assert space.digest != Random(10**9 + 1, seed=1, x=distribution).digest
        assert next(space[10**8 :: 10**7].iterate()) == space[10**8] == Random(10**8 + 1, seed=1, x=distribution)[-1]

    def test_another_process_has_the_same(self) -> None:
        """Whatever it hashes texts to."""
        code = "from psyrun import *; print(Random(9, seed=1, x=(0, 1), y=Choice(['a', 'b'])).digest)"
        command = [sys.executable, "-c", code]
        done = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
        assert done == [Random(9, seed=1, x=(0, 1), y=Choice(["a", "b"])).digest + "\n"] * 2


class TestErrors:
    @every_kind
    @pytest.mark.parametrize(
        ("n", "arguments", "told"),
        [
            (3, {"x": (0, 1)}, "needs a seed, such as .*(3, seed=1, ...)"),
            (3, {"x": (0, 1), "seed": None}, "needs a seed"),
            (3, {"x": (0, 1), "seed": 1.5}, "seed is 1.5; it takes a whole number"),
            (3, {"x": (0, 1), "seed": True}, "seed is True"),
            (3, {"seed": 1}, "has no parameters; name some"),
            (3.0, {"seed": 1, "x": (0, 1)}, "n is 3.0; it takes a whole number"),
            ("3", {"seed": 1, "x": (0, 1)}, "n is '3'"),
            (True, {"seed": 1, "x": (0, 1)}, "n is True"),
            (-1, {"seed": 1, "x": (0, 1)}, "n is -1; it takes 0 to"),
            (MOST_POINTS + 1, {"seed": 1, "x": (0, 1)}, "it takes 0 to"),
            (3, {"seed": 1, "a b": (0, 1)}, "'a b' is no name for a parameter"),
            (3, {"seed": 1, "x": [0, 1]}, r"'x' cannot be drawn from \[0, 1\]; .*\(low, high\).*Choice"),
            (3, {"seed": 1, "x": (0, 1, 2)}, "'x' cannot be drawn from"),
            (3, {"seed": 1, "x": ("a", "b")}, "'x' cannot be drawn from"),
            (3, {"seed": 1, "x": 5}, r"'x' cannot be drawn from 5.* \* Param\(x=...\)"),
            (3, {"seed": 1, "x": (1, 0)}, r"'x': \(1.0, 0.0\) is no interval"),
            (3, {"seed": 1, "x": (0, np.inf)}, "is no interval"),
            (3, {"seed": 1, "x": (0, np.nan)}, "is no interval"),
            (3, {"seed": 1, "x": stats.gamma}, "'x': the distribution 'gamma' gives no quantiles .* all its arguments"),
            (3, {"seed": 1, "x": stats.norm(0, -1)}, "the distribution 'norm' has quantiles that are not finite"),
            (3, {"seed": 1, "x": stats.norm([0, 1], 1)}, "the distribution 'norm' gives"),
            (3, {"seed": 1, "x": stats.norm([[0], [1]], 1)}, "'norm' gives more or less than a real number"),
            (3, {"seed": 1, "x": stats.multivariate_normal([0, 0])}, "'x' cannot be drawn from"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused_at_once(
        self, kind: Any, n: Any, arguments: dict[str, Any], told: str
    ) -> None:
        """With what to write instead; before any value is asked for."""
        with pytest.raises((TypeError, ValueError), match=told):
            kind(n, **arguments)

    @pytest.mark.parametrize("values", [[], 3, "abc", np.empty(0)])
    def test_a_choice_needs_values(self, values: Any) -> None:
        """In a sequence."""
        with pytest.raises(ValueError, match="has no values to choose from"):
            Choice(values)

    @pytest.mark.parametrize("n", [-1, 2.0, None])
    def test_repetitions_are_counted(self, n: Any) -> None:
        """By a whole number."""
        with pytest.raises((TypeError, ValueError), match="Repeat: n is"):
            Repeat(n)

    def test_a_sobol_sequence_has_only_so_many_dimensions(self) -> None:
        """The last one is still good."""
        most = {f"x{i}": (0, 1) for i in range(SOBOL_DIMENSIONS)}
        assert len(Sobol(4, seed=1, **most)[0]) == SOBOL_DIMENSIONS
        with pytest.raises(ValueError, match="37 parameters at most, not 38; use Random"):
            Sobol(4, seed=1, **most, y=(0, 1))


def test_a_task_grows_without_computing_anything_again(tmp_path: Path) -> None:
    """More rows and more repetitions: only the new items run."""
    project = Project(tmp_path)
    task = """
        from scipy import stats
        from psyrun import Choice, Random, Repeat

        pspace = Random({n}, seed=1, x=stats.norm, kind=Choice(["a", "b"])) * Repeat({times})

        def execute(x, kind, trial):
            with open("starts", "a") as file:
                print(0, file=file)
            return {{"y": x}}
    """
    for n, times in ((3, 2), (5, 3)):
        project.task("t", task, n=n, times=times)
        project.run("t")
        assert len(project.starts()) == n * times
        result = project.result("t")
        assert np.array_equal(result["x"], np.repeat(Random(n, seed=1, x=stats.norm)["x"], times))
        assert np.array_equal(result["x"], result["y"])


def test_scipy_is_not_needed_for_intervals_and_choices() -> None:
    """Nor is it imported."""
    code = """if True:
        import sys
        sys.modules["scipy"] = None
        from psyrun import *
        for kind in (Random, Sobol, LatinHypercube):
            space = kind(9, seed=1, x=(0, 1), y=Choice("ab".split()))
            space.digest, space.item_keys(), list(space)
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
