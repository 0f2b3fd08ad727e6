"""Parameters that a space got later: rows from before stay, with the value they were computed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import psyrun
from project import Project
from psyrun.errors import TaskError
from psyrun.keys import assignment_key, extended, mix, unmix
from psyrun.tasks import load_task

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1))
def test_scrambled_words_can_be_restored(words: list[int]) -> None:
    """Every one of them."""
    given_ = np.array(words, dtype=np.uint64)
    assert np.array_equal(unmix(mix(given_)), given_)
    assert np.array_equal(mix(unmix(given_)), given_)


@given(st.dictionaries(st.text(min_size=1, max_size=3), VALUES, min_size=1, max_size=4), st.integers(0, 3))
def test_a_key_grows_with_its_assignment(assignment: dict[str, Any], occurrence: int) -> None:
    """Whatever the values, and for repetitions too."""
    (name, value), *others = assignment.items()
    shorter = assignment_key(dict(others), occurrence)
    assert np.array_equal(extended(shorter[np.newaxis], name, value)[0], assignment_key(assignment, occurrence))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


TASK = """
from psyrun import Param
pspace = {space}
{more}
def execute(x, noise=0.5, gain=1):
    open("starts", "a").write(f"{{x}}\\n")
    return {{"y": x + noise * gain}}
"""


def test_rows_from_before_a_parameter_was_added_stay(project: Project) -> None:
    """Only new points run; the column of the parameter has the value of then; load and merge agree."""
    project.task("t", TASK, space="Param(x=[1, 2, 2])", more="")
    project.run("t")
    more = "added = {'noise': 0.5}"
    project.task("t", TASK, space="Param(x=[1, 2, 2, 3]) * Param(noise=[0.5, 1.0])", more=more)
    told = project.status("t")
    assert (told["n_done"], told["n_missing"]) == (3, 5)
    project.run("t")
    assert len(project.starts()) == 8
    result = project.result("t")
    assert result["noise"].tolist() == [0.5, 1.0] * 4
    assert result["y"].tolist() == [x + noise for x in (1, 2, 2, 3) for noise in (0.5, 1.0)]
    assert psyrun.load(project.path / "psy-work/t")["noise"].tolist() == [0.5, 1.0] * 4
    project.run("merge", "psy-work/t", "all.npz")
    assert psyrun.load(project.path / "all.npz")["noise"].tolist() == [0.5, 1.0] * 4
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    # One more, while that of before is still said: rows of both kinds stay.
    more = "added = {'noise': 0.5, 'gain': 1}"
    project.task("t", TASK, space="Param(x=[1, 2, 2, 3]) * Param(noise=[0.5, 1.0]) * Param(gain=[1, 2])", more=more)
    assert project.status("t")["n_done"] == 8
    project.run("t")
    assert len(project.starts()) == 16
    result = project.result("t")
    assert np.array_equal(result["y"], result["x"] + result["noise"] * result["gain"])


def test_saying_so_later_brings_the_rows_back(project: Project) -> None:
    """The space was edited first; the same rows count once the file says with which value they were computed."""
    project.task("t", TASK, space="Param(x=[1, 2])", more="")
    project.run("t")
    grown = "Param(x=[1, 2]) * Param(noise=[0.5])"
    project.task("t", TASK, space=grown, more="")
    assert project.status("t")["n_done"] == 0
    project.task("t", TASK, space=grown, more="added = {'noise': 0.5}")
    assert project.status("t")["n_done"] == 2
    project.run("t")
    assert len(project.starts()) == 2
    assert project.result("t")["noise"].tolist() == [0.5, 0.5]
    project.task("t", TASK, space=grown, more="added = {'noise': 0.25}")
    assert project.status("t")["n_done"] == 0


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("{'nois': 0.5}", r"is no parameter of pspace \(x, noise\)"),
        ("{'noise': print}", "cannot identify an item"),
        ("['noise']", "takes a dict such as"),
    ],
)
def test_what_cannot_have_been_added_is_an_error(
    project: Project, added: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that the space has, and a value that a parameter can have."""
    monkeypatch.chdir(project.path)
    project.task("t", TASK, space="Param(x=1, noise=[0.5])", more=f"added = {added}")
    with pytest.raises(TaskError, match=told):
        load_task("t", Path("psy-tasks"))


def test_files_from_before_a_parameter_was_added_can_be_adopted(project: Project) -> None:
    """They lack its column; the file says what it was."""
    project.task("t", TASK, space="Param(x=[1, 2]) * Param(noise=[0.5, 1.0])", more="added = {'noise': 0.5}")
    (project.path / "old.csv").write_text("x,y\n1,1.5\n2,2.5\n")
    project.run("adopt", "t", "old.csv")
    project.run("t")
    assert len(project.starts()) == 2
    assert project.result("t")["y"].tolist() == [1.5, 2.0, 2.5, 3.0]
    assert project.result("t")["noise"].tolist() == [0.5, 1.0, 0.5, 1.0]
