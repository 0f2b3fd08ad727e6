"""How long items are expected to take."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import Project, until
from psyrun.expected import guessed

TASK = """
import time
import psyrun

pspace = psyrun.Param(n={n}) * psyrun.Param(kind=["quick", "slow"])
backend = psyrun.LoadBalancingBackend

def execute(n, kind):
    with open("starts", "a") as file:
        file.write(f"{{n}} {{kind}}\\n")
    time.sleep(0.004 * n * (4 if kind == "slow" else 1))
    return {{"y": n}}
"""


@given(st.integers(0, 2**31))
def test_terms_of_parameters_are_found_again(seed: int) -> None:
    """Also where only a part of the items ran: the order of the others is that of what they take."""
    rng = np.random.default_rng(seed)
    n, kind = (a.ravel() for a in np.meshgrid(np.arange(12), np.array(["a", "b", "c"]), indexing="ij"))
    took = np.exp(rng.normal(0, 1, 12)[n] + np.array([0.0, 2.0, -3.0])[np.searchsorted(["a", "b", "c"], kind)])
    ran = rng.permutation(36) < 24
    found = guessed({"n": n[ran], "kind": kind[ran]}, took[ran], {"n": n[~ran], "kind": kind[~ran]})
    assert np.corrcoef(np.log(found), np.log(took[~ran]))[0, 1] > 0.8


def test_between_numbers_it_goes_straight_and_beyond_them_it_stays() -> None:
    """In the logarithm."""
    known = {"n": np.repeat([1.0, 3.0], 1000)}
    found = guessed(known, np.repeat([1.0, 100.0], 1000), {"n": np.array([0.0, 1.0, 2.0, 3.0, 9.0])})
    assert np.allclose(found, [1, 1, 10, 100, 100], rtol=0.02)


def test_what_was_never_seen_takes_as_long_as_the_others() -> None:
    """A text says nothing of another text; and values that cannot be sorted say nothing."""
    lists = np.empty(20, dtype=object)
    lists[:] = [[1, 2]] * 20
    known = {"kind": np.repeat(["a", "b"], 10), "what": lists}
    found = guessed(known, np.repeat([1.0, 100.0], 10), {"kind": np.array(["c"]), "what": lists[:1]})
    assert math.isclose(found[0], 10, rel_tol=1e-6)


def test_a_number_that_is_absent_is_no_number() -> None:
    """Rows of a sum of spaces may lack a parameter: nothing is guessed then, and nothing breaks."""
    known = {"n": np.array([1.0, 2.0, math.nan] * 5)}
    found = guessed(known, np.array([1.0, 10.0, 5.0] * 5), {"n": np.array([1.0, math.nan])})
    assert found[0] < 5
    assert found.shape == (2,)


def test_items_that_were_added_run_in_the_order_that_others_tell(tmp_path: Path) -> None:
    """The space grew: how long the new items take follows from parameters that they share with old ones."""
    project = Project(tmp_path)
    project.task("t", TASK, n="[1, 3, 5, 7, 9, 11, 13, 15]")
    project.run("t")
    before = len((tmp_path / "starts").read_text().splitlines())
    project.task("t", TASK, n="[1, 3, 5, 7, 9, 11, 13, 15, 2, 14]")
    project.run("t")
    added = (tmp_path / "starts").read_text().splitlines()[before:]
    assert added == ["14 slow", "14 quick", "2 slow", "2 quick"]


@pytest.mark.parametrize("where", ["n > 100", "n < 100"])
def test_a_record_that_tells_nothing_of_the_rest_is_no_trouble(tmp_path: Path, where: str) -> None:
    """One item on record, or none."""
    project = Project(tmp_path)
    project.task("t", TASK, n="[1, 2]")
    project.run("t", "--items", "0")
    project.run("t", "--where", where)
    assert not re.search("Traceback", project.run("plan", "t").stdout)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Param(n=range(1, 15))", "Param(n=range(1, 15)) + Param(n=['auto'])"),
        ("Param(n=list('abcdefghijklmn'))", "Param(n=list('abcdefghijklmn')) + Param(n=[1, 2])"),
        ("Param(n=list('abcdefghijklmn'))", "Param(n=list('abcdefghijklmn')) + Param(m=[1, 2])"),
        ("Param(n=[[i] for i in range(15)])", "Param(n=[[i] for i in range(15)] + [[1, 2]])"),
    ],
)
def test_values_of_another_kind_tell_nothing(tmp_path: Path, before: str, after: str) -> None:
    """Numbers of text, text of numbers, either of what is absent: the run goes on."""
    project = Project(tmp_path)
    text = "import psyrun\nfrom psyrun import Param\npspace = {}\nbackend = psyrun.LoadBalancingBackend\n"
    text += "store = psyrun.PickleStore()\ndef execute(n=None, m=None):\n    return {{'y': 1}}\n"
    project.task("t", text.format(before))
    project.run("t")
    project.task("t", text.format(after))
    assert "Traceback" not in project.run("plan", "t").stderr
    project.run("t")
    assert project.status("t")["complete"]


COST = """
import time
import psyrun

pspace = psyrun.Param(n={n})
backend = psyrun.LoadBalancingBackend
cost = lambda n: 1000 * n

def execute(n):
    time.sleep(0.01 * n)
    return {{"y": n}}
"""


def test_what_a_run_would_take_goes_by_cost_in_the_measure_of_what_was_measured(tmp_path: Path) -> None:
    """Ten short items tell what the unit of `cost` is; long ones are not taken for short."""
    project = Project(tmp_path)
    project.task("t", COST, n="[1] * 12")
    assert "not known" in project.run("plan", "t").stdout
    project.run("t")
    project.task("t", COST, n="[1] * 12 + [100, 300]")
    told = json.loads(project.run("plan", "t", "--json").stdout)
    found = told[0] if isinstance(told, list) else told
    assert 3 < found["core_hours"] * 3600 < 8
    assert 1.5 < found["eta_seconds"] < 8


def test_the_time_left_goes_by_what_is_expected(tmp_path: Path) -> None:
    """The longest run first, so what was measured until now says nothing of the rest."""
    project = Project(tmp_path)
    project.task("t", COST.replace("0.01 * n", "n"), n="[2.5, 2.5, *[0.05] * 60]")
    command = project.start("t", "-n", "1", PSYRUN_BEAT="0.2")
    until(lambda: project.status("t")["n_done"] >= 2)
    told = project.status("t")
    command.kill()
    command.wait()
    assert told["seconds_left"] is not None
    assert 0.5 < told["seconds_left"]["about"] < 12
