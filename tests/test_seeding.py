"""Random numbers of items follow from seed and key, and from nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import Project
from psyrun.seeding import NAMES, arguments, asked_for

TASK = """
from psyrun import Param, Multiprocessing, Repeat
pspace = {space}
max_jobs = {max_jobs}
{more}
def execute(x, trial=0, *, {take}):
    open("starts", "a").write(f"{{x}}\\n")
    first = rng.random()
    if {fail}:
        raise ValueError("no")
    return {{"y": first, "z": first + x}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def write(project: Project, name: str = "t", **values: Any) -> None:
    defaults = {"space": "Param(x=range(8))", "max_jobs": 3, "more": "", "fail": "False", "take": "rng"}
    project.task(name, TASK, **{**defaults, **values})


def numbers(project: Project, name: str = "t") -> dict[int, float]:
    data = project.result(name)
    return dict(zip(data["x"].tolist(), data["y"].tolist(), strict=True))


GOLDEN = [14291946260744512900, 1084653394231704685]
GOLDEN_STATE = [1083592575, 72728293]

KEYS = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@given(st.integers(0, 2**63 - 1), KEYS, st.integers(0, 2**63 - 1), KEYS)
def test_generators_are_equal_exactly_when_seed_and_key_are(
    seed: int, key: tuple[int, int], other_seed: int, other_key: tuple[int, int]
) -> None:
    """And the two kinds of arguments are independent of each other."""
    one, two = arguments(NAMES, seed, key), arguments(NAMES, other_seed, other_key)
    same = one["rng"].bit_generator.random_raw() == two["rng"].bit_generator.random_raw()
    assert same == ((seed, key) == (other_seed, other_key))
    again = arguments(["rng"], seed, key)["rng"]
    from_sequence = np.random.PCG64(one["seed_sequence"])
    assert again.bit_generator.random_raw() != from_sequence.random_raw()


def test_the_numbers_never_change() -> None:
    """Golden values: results of years depend on them."""
    made = arguments(NAMES, 7, (2**63 + 1, 5))
    assert made["rng"].bit_generator.random_raw(2).tolist() == GOLDEN
    assert made["seed_sequence"].generate_state(2).tolist() == GOLDEN_STATE


def test_arguments_are_asked_for_by_name() -> None:
    """Not where a parameter or setup gives them, nor where any name is taken."""

    def both(x: int, rng: Any, *, seed_sequence: Any) -> None: ...
    def none(x: int, **more: Any) -> None: ...

    assert asked_for(both, ["x"]) == ("rng", "seed_sequence")
    assert asked_for(both, ["x", "rng"]) == ("seed_sequence",)
    assert asked_for(none, ["x"]) == ()


def test_chunks_workers_and_order_do_not_matter(project: Project) -> None:
    """Nor that some items fail first and are computed in a second run, or in a space that grew."""
    write(project, "one", max_jobs=1)
    fail = "x % 3 == 0 and not pathlib.Path('mended').exists()"
    write(project, "two", space="Param(x=range(9, -1, -1))", max_jobs=5, fail=fail, more="import pathlib")
    project.run("one")
    project.run("two", "-n", "3", status=1)
    (project.path / "mended").touch()
    project.run("two")
    one, two = numbers(project, "one"), numbers(project, "two")
    assert len(set(two.values())) == 10
    assert {x: two[x] for x in range(8)} == one


def test_a_retry_draws_the_same_numbers(project: Project) -> None:
    """An item is what it is, however often it is tried."""
    write(project, "calm")
    write(
        project, "wild", more="retries = {'exception': 3}\nfailed = set()", fail="x not in failed and not failed.add(x)"
    )
    project.run("calm")
    project.run("wild")
    assert numbers(project, "wild") == numbers(project, "calm")


def test_repetitions_have_numbers_of_their_own(project: Project) -> None:
    """The count of the repetition is a parameter; equal rows are told apart, too."""
    write(project, space="Param(x=[1, 2, 2]) * Repeat(3)", take="rng")
    project.run("t")
    assert len(np.unique(project.result("t")["y"])) == 9


def test_the_seed_is_recorded_and_counts_as_code(project: Project) -> None:
    """Where execute takes random numbers; other seeds give other numbers."""
    write(project, more="seed = 3")
    project.run("t")
    first = numbers(project)
    assert project.result("t", keys=True)["__psyrun_seed"].tolist() == [3] * 8
    assert "__psyrun_seed" not in project.result("t")
    write(project, more="seed = 4")
    assert "other code" in project.run("t", status=4).stderr
    project.run("t", "--fresh")
    assert not set(first.values()) & set(numbers(project).values())
    plain = "from psyrun import Param\npspace = Param(x=[1])\nseed = {seed}\ndef execute(x): return dict(y=x)\n"
    project.task("v", plain, seed=1)
    project.run("v")
    project.task("v", plain, seed=2)
    assert project.steps("v") == ["-- v:split", "-- v:merge"]


def test_a_new_seed_is_for_what_this_run_computes(project: Project) -> None:
    """Rows that are there stay; each row says with which seed it was computed."""
    write(project)
    project.run("t", "--items", "0-3")
    error = project.run("t", "--new-seed").stderr
    seeds = project.result("t", keys=True)["__psyrun_seed"].tolist()
    assert seeds[:4] == [0] * 4
    assert len(set(seeds[4:])) == 1 and seeds[4] not in (0, None)
    assert f"seed {int(seeds[4])}" in error
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


def test_trying_an_item_draws_what_the_run_draws(project: Project) -> None:
    """psy-doit test shows the row."""
    write(project)
    project.run("t")
    assert f"y = {numbers(project)[5]!r}" in project.run("test", "t", "--item", "5").stdout
