"""Edits of the space: only points that are new run, whatever their order and however they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from project import Project

TASK = """
import numpy as np
from psyrun import Param
pspace = {space}
def execute(x, N=0):
    open("starts", "a").write("1\\n")
    return {{"y": 10 * np.sum(x) + N}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "n_new"),
    [
        ("Param(x=[1, 2, 3])", "Param(x=[1, 2, 3, 4, 5])", 2),
        ("Param(x=[1, 2, 3])", "Param(x=[3, 1])", 0),
        ("Param(x=[1, 3])", "Param(x=[1, 2, 3, 4])", 2),
        ("Param(x=[1, 2])", "Param(x=[2, 1, 2, 2])", 2),
        ("Param(x=[1, 1, 1])", "Param(x=[1, 1])", 0),
        ("Param(x=[1, 2])", "Param(x=[1.0, 2.0, 2.5])", 1),
        ("Param(x=[1.0, 2.0])", "Param(x=np.array([2, 1], dtype=np.int8))", 0),
        ("Param(x=[1, 0])", "Param(x=[True, False])", 0),
        ("Param(x=[0.1])", "Param(x=np.array([0.1], dtype=np.float32))", 1),
        ("Param(x=[[1, 2], [3, 4]])", "Param(x=[np.array([3, 4]), (1, 2), [1.0, 2.0]])", 1),
        ("Param(x=[1, 2]) * Param(N=[1, 2])", "Param(N=[2, 1, 3]) * Param(x=[2, 1])", 2),
        ("Param(x=[1, 2], N=[1, 2])", "Param(x=[1]) * Param(N=[1]) + Param(x=[2]) * Param(N=[2])", 0),
        ("Param(x=range(10))", "Param(x=range(10)) - Param(x=[3, 4])", 0),
        ("Param(x=range(4))", "Param(x=range(100))[::25]", 3),
    ],
)
def test_only_new_points_run(project: Project, before: str, after: str, n_new: int) -> None:
    """What is there is matched by its value; what left the space comes back with it, without computing."""
    project.task("t", TASK, space=before)
    project.run("t")
    first = project.result("t")
    n = len(project.starts())
    project.task("t", TASK, space=after)
    assert f"would compute {n_new} item" in project.run("plan", "t").stdout or not n_new
    project.run("t")
    assert len(project.starts()) == n + n_new
    project.task("t", TASK, space=before)
    project.run("t")
    assert len(project.starts()) == n + n_new
    for name, column in project.result("t").items():
        np.testing.assert_array_equal(column, first[name])
