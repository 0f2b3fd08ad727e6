"""Selections, repetitions and added parameters where they meet: failures, other code, other commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import psyrun
from project import Project, until
from psyrun.options import own_constants

TASK = """
    import pathlib, time
    from psyrun import Param
    pspace = Param(x=range({n}))
    early_stop = False
    max_jobs = 2
    {more}
    def execute(x):
        open("starts", "a").write(f"{{x}}\\n")
        time.sleep({seconds})
        if {bad}:
            raise ValueError("bad")
        return {{"y": len(open("starts").read().split())}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def write(project: Project, bad: str = "False", more: str = "", n: int = 4, seconds: float = 0) -> None:
    project.task("t", TASK, bad=bad, more=more, n=n, seconds=seconds)


def test_an_item_that_failed_once_is_computed_again_as_any_other(project: Project) -> None:
    """What was selected is decided once; failures of retired rows go with them."""
    write(project, "x > 1 and not pathlib.Path('flag').exists()")
    project.run("t", status=1)
    (project.path / "flag").touch()
    project.run("t")
    project.run("t", "--missing", "--again")
    told = project.status("t")
    assert (told["n_done"], told["n_failed"]) == (4, 0)
    assert sorted(project.starts()) == [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]


def test_new_failures_of_what_was_selected_are_told(project: Project) -> None:
    """Also where those were selected that had not failed."""
    write(project, "x > 1")
    project.run("t", "--missing", status=1)
    project.run("t", "--missing")
    assert len(project.starts()) == 4


def test_failed_ones_are_selected_by_what_they_were_before_the_edit(project: Project) -> None:
    """The bug is mended, and just they run."""
    write(project, "True")
    project.run("t", status=1)
    write(project)
    assert "4 items in" in project.run("plan", "t", "--failed").stdout
    project.run("t", "--failed")
    assert project.status("t")["n_done"] == 4


@pytest.mark.parametrize("words", [("--failed", "--fresh"), ("--items", "0", "--fresh"), ("--where", "x < 2")])
def test_a_selection_never_archives_rows_of_other_code(project: Project, words: tuple[str, ...]) -> None:
    """They would all go, for a part to be computed."""
    write(project, "x == 3")
    project.run("t", status=1)
    write(project, "x == 2", more="" if "--fresh" in words else "overwrite_dirty = True")
    assert "would all go to the archive" in project.run("t", *words, status=4).stderr
    if "--fresh" not in words:
        assert "would be refused" in project.run("plan", "t", *words).stdout
    assert not (project.path / "psy-work/t/archive").exists()


@pytest.mark.parametrize("words", [("--items", ""), ("--where", ""), ("--where", " ")])
def test_an_empty_selection_is_a_mistake(project: Project, words: tuple[str, ...]) -> None:
    """A variable that was not set must not mean everything."""
    write(project)
    project.run("t")
    project.run("t", *words, "--again", status=2)
    assert len(project.starts()) == 4


def test_rows_that_were_not_selected_stay_what_they_are(project: Project) -> None:
    """Though another row of their items is on record, and their part gets another name."""
    write(project)
    project.run("t")
    work, aside = project.path / "psy-work/t", project.path / "aside"
    shutil.move(work / "parts", aside)
    (work / "manifest.json").unlink()
    (work / "result.npz").unlink()
    project.run("t")
    assert project.result("t")["y"].tolist() == [5, 6, 7, 8]
    for part in aside.iterdir():
        shutil.copy(part, work / "parts" / f"0000-{part.name}")
    project.run("t")
    assert project.result("t")["y"].tolist() == [5, 6, 7, 8]
    project.run("t", "--items", "0", "--again")
    assert project.result("t")["y"].tolist() == [9, 6, 7, 8]


def test_a_run_computes_what_a_selection_it_joined_left(project: Project) -> None:
    """All is done in the end, each item once."""
    write(project, n=8, seconds=0.3)
    first = project.start("t", "--items", "0-3")
    until(lambda: len(project.starts()) > 0)
    project.run("t")
    first.wait(timeout=30)
    assert sorted(project.starts()) == list(range(8))


def test_seeds_of_a_run_under_way_cannot_be_changed(project: Project) -> None:
    """It is said, not ignored."""
    write(project, seconds=0.4)
    first = project.start("t")
    until(lambda: len(project.starts()) > 0)
    assert "with the seed of their plan" in project.run("t", "--new-seed", status=4).stderr
    assert first.wait(timeout=30) == 0


def test_tries_of_one_item_are_no_failures_alike(project: Project) -> None:
    """Early stop counts items."""
    write(project, "x == 0", more="early_stop = True\nretries = {'exception': 60}", n=8)
    assert "alike" not in project.run("t", status=1).stderr
    told = project.status("t")
    assert (told["n_done"], told["n_failed"]) == (7, 1)
    assert project.starts().count(0) == 61


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("timeout = 1\ndef execute(x): return solve(x, timeout)", ["timeout"]),
        ("timeout = 1\nlimit = 2 * timeout", ["timeout"]),
        ("timeout = 1\ndef execute(x):\n    timeout = 2\n    return timeout", []),
        ("seed = 3\ndef other(seed): return seed", []),
        ("timeout = 1\ndef execute(x):\n    for timeout in (1, 2): print(timeout)", []),
        ("seed = 3\ndef execute(x):\n    def inner(): return seed\n    return inner()", ["seed"]),
        ("seed = 3\ndef execute(x): return [seed for _ in x]", ["seed"]),
    ],
)
def test_a_constant_is_the_files_own_only_if_it_reads_that_global(source: str, names: list[str]) -> None:
    """Local names of functions are others."""
    assert own_constants(source) == names


def test_a_parameter_that_was_not_recorded_gets_no_value_of_before(project: Project) -> None:
    """Excluded for a while: the file takes it from the space, and what knows no space leaves it out."""
    text = """
        from psyrun import Param
        pspace = Param(x=[0, 1]) {more}
        {options}
        def execute(x, noise=0.0):
            return {{"y": x + noise}}
    """
    project.task("t", text, more="", options="")
    project.run("t")
    grown = "* Param(noise=[0.0, 0.5])"
    project.task("t", text, more=grown, options="added = {'noise': 0.0}\nexclude_from_result = ['noise']")
    project.run("t")
    project.task("t", text, more=grown, options="added = {'noise': 0.0}")
    project.run("t")
    result = project.result("t")
    assert result["noise"].tolist() == [0.0, 0.5, 0.0, 0.5]
    assert result["y"].tolist() == [0.0, 0.5, 1.0, 1.5]
    data = psyrun.load(project.path / "psy-work/t")
    assert "noise" not in data or data["noise"].tolist() == [0.0, 0.5, 0.0, 0.5]
    project.run("merge", "psy-work/t", "all.npz")
    data = psyrun.load(project.path / "all.npz")
    assert "noise" not in data or (data["noise"] != 0.0).sum() >= 2
