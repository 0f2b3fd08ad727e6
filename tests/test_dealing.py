"""In which order items run: the longest first, where that is known and wanted."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from project import Project
from psyrun.backend import DistributeBackend, LoadBalancingBackend
from psyrun.dealing import Dealing, runs
from psyrun.plan import Mask, WorkList

MASKS = arrays(np.bool_, st.integers(0, 60))

TASK = """
import time
import psyrun

pspace = psyrun.Param(x=range(8))
backend = psyrun.LoadBalancingBackend
{options}

def execute(x):
    with open("starts", "a") as file:
        file.write(f"{{x}}\\n")
    time.sleep({seconds})
    return {{"y": x}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def in_order(dealing: Dealing, *masks: Mask) -> list[int]:
    """Return the items of a work list."""
    ranges, sizes = dealing.deal(*masks)
    work = WorkList(ranges)
    assert sum(sizes) == len(work)
    return [i for start, stop in work.indices(0, len(work) - 1) for i in range(start, stop)]


@given(st.lists(st.integers(0, 50), unique=True))
def test_runs_are_the_items_in_their_order(items: list[int]) -> None:
    """And no two of them could be one."""
    found = runs(np.array(items, dtype=np.int64)).tolist()
    assert [i for start, stop in found for i in range(start, stop)] == items
    assert all(stop != start for (_, stop), (start, _) in pairwise(found))


@given(MASKS, st.integers(0, 2**31))
def test_every_item_is_dealt_once(mask: Mask, seed: int) -> None:
    """Whatever is known of it; all of the first before those of the second, the longest of each first."""
    rng = np.random.default_rng(seed)
    seconds = np.where(rng.random(len(mask)) < 0.2, math.nan, rng.lognormal(0, 2, len(mask)))
    second = rng.random(len(mask)) < 0.3
    found = in_order(Dealing(LoadBalancingBackend(), 3, 1, seconds), mask & ~second, mask & second)
    n = int(np.count_nonzero(mask & ~second))
    assert sorted(found[:n]) == np.flatnonzero(mask & ~second).tolist()
    assert sorted(found[n:]) == np.flatnonzero(mask & second).tolist()
    known = [seconds[i] for i in found[:n] if np.isfinite(seconds[i]) and seconds[i] > 0.01]
    assert all(b <= a * math.exp(0.1001) for a, b in pairwise(known))


def test_what_is_not_known_comes_in_the_middle() -> None:
    """It is taken for as long as the others are on average."""
    seconds = np.array([1.0, 9.0, math.nan, 2.0])
    assert in_order(Dealing(LoadBalancingBackend(), 2, 1, seconds), np.ones(4, dtype=bool)) == [1, 2, 3, 0]


@pytest.mark.parametrize("seconds", [None, np.full(4, math.nan), np.array([0.001, 0.009, 0.0, 0.002])])
def test_the_order_is_that_of_the_space_where_it_does_not_matter(seconds: np.ndarray | None) -> None:
    """Nothing is known, or all are short."""
    assert in_order(Dealing(LoadBalancingBackend(), 2, 1, seconds), np.ones(4, dtype=bool)) == [0, 1, 2, 3]


def test_the_fixed_backend_keeps_the_order() -> None:
    """And its chunks."""
    dealing = Dealing(DistributeBackend(), 2, 1, np.array([1.0, 9.0, 3.0, 2.0]))
    assert in_order(dealing, np.ones(4, dtype=bool)) == [0, 1, 2, 3]
    assert dealing.deal(np.ones(4, dtype=bool))[1] == [2, 2]


def test_items_run_in_the_order_of_their_cost(project: Project) -> None:
    """The task file says what they cost."""
    project.task("t", TASK, options="cost = lambda x: [3, 1, 8, 2, 7, 5, 4, 6][x]", seconds=0)
    project.run("t")
    assert project.starts() == [2, 4, 7, 5, 6, 0, 3, 1]


def test_what_is_computed_again_runs_in_the_order_of_what_it_took(project: Project) -> None:
    """By the durations on record, although these rows go to the archive first."""
    project.task("t", TASK, options="", seconds="0.05 * [3, 1, 8, 2, 7, 5, 4, 6][x]")
    project.run("t")
    assert project.starts() == list(range(8))
    project.run("t", "--again", "--where", "x != 1")
    assert project.starts()[8:] == [2, 4, 7, 5, 6, 0, 3]


def test_what_other_code_took_counts_too(project: Project) -> None:
    """An edit of the code makes old rows no results; how long they took is still the best that is known."""
    project.task("t", TASK, options="", seconds="0.05 * [3, 1, 8, 2, 7, 5, 4, 6][x]")
    project.run("t")
    project.task("t", TASK, options="", seconds="0.05 * [3, 1, 8, 2, 7, 5, 4, 6][x] + 0.001")
    project.run("t", "--fresh")
    assert project.starts()[8:] == [2, 4, 7, 5, 6, 0, 3, 1]


def test_how_long_it_took_to_fail_counts_too(project: Project) -> None:
    """Failed items are tried again, the longest first."""
    source = TASK.replace("    return", "    if x in (1, 5, 6): raise ValueError\n    return")
    project.task("t", source, options="", seconds="0.05 * [3, 1, 8, 2, 7, 5, 4, 6][x]")
    project.run("t", status=1)
    project.run("t", status=1)
    assert project.starts()[8:] == [5, 6, 1]


def test_a_row_of_another_space_tells_for_its_item(project: Project) -> None:
    """It is found by its key, and items that were never tried take as long as the others do on average."""
    project.task("t", TASK, options="", seconds="0.1 * [3, 1, 8, 2, 7, 5, 4, 6][x]")
    project.run("t", "--items", "0,1,2,3")
    project.task(
        "t", TASK.replace("range(8)", "[7, 3, 2, 1, 0]"), options="", seconds="0.1 * [3, 1, 8, 2, 7, 5, 4, 6][x]"
    )
    project.run("t", "--again")
    assert project.starts()[4:] == [2, 7, 0, 3, 1]


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        ("lambda x: 'long'", r"cost\(x=0\) returned 'long'; it takes a number of seconds from 0"),
        ("lambda x: -1", r"cost\(x=0\) returned -1; it takes"),
        ("lambda x: float('nan') if x == 3 else 1", r"cost\(x=3\) returned nan; it takes"),
        ("lambda x: None", r"cost\(x=0\) returned None; it takes"),
        ("lambda x: 1 / x", r"cost\(x=0\) raised ZeroDivisionError: division by zero"),
        ("lambda y: 1", r"cost\(y\) cannot be called with the parameters of pspace \(x\)"),
    ],
)
def test_a_wrong_cost_is_told_before_anything_runs(project: Project, cost: str, told: str) -> None:
    """With the item that it is wrong for."""
    project.task("t", TASK, options=f"cost = {cost}", seconds=0)
    done = project.run("t", status=2)
    assert re.search(told, done.stderr), done.stderr
    assert project.starts() == []
    assert not (project.path / "psy-work").exists()


def test_cost_is_no_part_of_the_code(project: Project) -> None:
    """To tell better what items cost makes no row obsolete."""
    project.task("t", TASK, options="cost = lambda x: x", seconds=0)
    project.run("t")
    project.task("t", TASK, options="cost = lambda x: 8 - x", seconds=0)
    project.run("t")
    assert len(project.starts()) == 8
