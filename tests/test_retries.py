"""What fails is tried again within a run, as often as the budget of its class has it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from project import Project

TASK = """
    import os, time
    from psyrun import Param, Multiprocessing
    pspace = Param(x=range(6))
    scheduler = Multiprocessing(2)
    {options}

    def execute(x):
        with open("starts", "a") as file:
            file.write(f"{{x}}\\n")
        n = open("starts").read().split().count(str(x))
        if x == 3 and n <= {times}:
            {what}
        return {{"y": x}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize(
    ("what", "kind", "most"),
    [
        ("raise ValueError('no')", "exception", 0),
        ("raise MemoryError", "memory", 0),
        ("raise type('OutOfMemoryError', (RuntimeError,), {})", "memory", 0),
        ("time.sleep(60)", "time limit", 0),
        ("os._exit(1)", "crash", 2),
    ],
)
@pytest.mark.parametrize("more", [0, 1])
def test_each_class_has_its_budget(project: Project, what: str, kind: str, most: int, more: int) -> None:
    """One failure fewer than the budget is no failure; one more is; others are tried once."""
    others = {"exception", "memory", "time limit", "crash"} - {kind}
    options = f"timeout = 0.3\nretries = {{{kind!r}: {most + 1}, **dict.fromkeys({sorted(others)!r}, 0)}}"
    project.task("t", TASK, options=options, what=what, times=most + 1 + more)
    project.run("t", status=more)
    tries = most + 2
    assert Counter(project.starts()) == {x: tries if x == 3 else 1 for x in range(6)}
    assert project.status("t")["n_failed"] == more


def test_by_default_only_crashes_are_tried_again(project: Project) -> None:
    """What raised once will raise again."""
    project.task("t", TASK, options="", what="raise ValueError('no')", times=1)
    project.run("t", status=1)
    assert project.starts().count(3) == 1
    project.run("t")
    assert project.starts().count(3) == 2


def test_rows_that_cannot_be_read_are_computed_again_within_the_run(project: Project) -> None:
    """A part that was spoilt before the merge."""
    project.task(
        "t",
        """
        import glob
        from psyrun import Param
        pspace = Param(x=range(3))
        max_jobs = 1
        {options}
        def execute(x):
            open("starts", "a").write(f"{{x}}\\n")
            if x == 2 and open("starts").read().split().count("2") == 1:
                for path in glob.glob("psy-work/t/parts/*"):
                    with open(path, "r+b") as file:
                        rows = file.read().rfind(b"\\xf0psy\\x03")  # the last record with rows
                        file.seek(rows + 40)
                        file.write(b"#")
            return {{"y": x}}
        """,
        options="",
    )
    done = project.run("t")
    assert "rows of this run cannot be read; computing them again" in done.stderr
    assert project.result("t")["y"].tolist() == [0, 1, 2]
    assert max(Counter(project.starts()).values()) == 2


def test_each_attempt_has_the_whole_time(project: Project) -> None:
    """An item that raises is no slower for being tried again."""
    options = "timeout = 1.0\nretries = {'exception': 3}"
    project.task("t", TASK, options=options, what="time.sleep(0.5); raise ValueError('no')", times=3)
    project.run("t")
    assert project.starts().count(3) == 4
