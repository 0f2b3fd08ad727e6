"""Early stop: what fails alike again and again is not tried any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import Project
from psyrun.errors import EarlyStopError
from psyrun.streak import Streak

OUTCOMES = st.lists(st.sampled_from(["ok", "a", "b"]), max_size=130)


def stopped_after(outcomes: list[str], n_workers: int) -> int | None:
    """Return after how many outcomes a streak stopped, None if it did not."""
    streak = Streak(n_workers)
    for i, outcome in enumerate(outcomes):
        try:
            if outcome == "ok":
                streak.succeeded(1)
            else:
                streak.failed("ValueError", f"model.py:{outcome}", "no")
        except EarlyStopError:
            return i + 1
    return None


def expected(outcomes: list[str], n_workers: int) -> int | None:
    """Return the same, by looking back from each outcome."""
    for i in range(1, len(outcomes) + 1):
        so_far = outcomes[:i]
        most = 50 if "ok" in so_far else max(3, n_workers)
        last = so_far[-most:]
        if len(last) == most and len(set(last)) == 1 and last[0] != "ok":
            return i
    return None


@given(OUTCOMES, st.integers(1, 8))
def test_the_first_or_the_last_fifty_failed_alike(outcomes: list[str], n_workers: int) -> None:
    """So many first ones as run at a time, at least 3; once one succeeded it takes 50."""
    assert stopped_after(outcomes, n_workers) == expected(outcomes, n_workers)


@pytest.mark.parametrize("later", [0, 1])
def test_fifty_are_counted_whatever_came_before(later: int) -> None:
    """After the last success, not after the first failure."""
    assert stopped_after(["ok", "a", "ok"] + ["a"] * (49 + later), 1) == (52 + 1 if later else None)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


TASK = """
    import os
    from psyrun import Param, Multiprocessing
    pspace = Param(x=range({n}))
    {options}

    def execute(x):
        open("starts", "a").write(f"{{x}}\\n")
        if {bad}:
            {what}
        return {{"y": x}}
"""
RAISE = 'raise ValueError(f"no {x}")'


@pytest.mark.parametrize(("workers", "tried"), [(1, 3), (2, 3), (5, 5)])
def test_a_run_whose_first_items_fail_alike_stops_and_says_so(project: Project, workers: int, tried: int) -> None:
    """As many as run at a time, at least 3; nothing is held afterwards, and the exit status is that of failures."""
    project.task("t", TASK, n=100, options="max_jobs = 20", bad="True", what=RAISE)
    done = project.run("t", "-n", str(workers), status=1)
    told = project.status("t")
    assert tried <= told["n_failed"] < 100  # what was in hand when it was seen fails too
    assert told["n_running"] == 0
    assert f"the first {tried} items all failed alike (ValueError at " in done.stderr
    assert f"so {100 - told['n_failed']} others were not tried" in done.stderr
    assert "early_stop = False in task_t.py" in done.stderr
    assert done.stdout.splitlines()[-1] == ".  t:merge"


def test_what_is_finished_stays_when_a_run_stops_later(project: Project) -> None:
    """The last 50 failed alike: the rows before are in the result, and the next run goes on once it is mended."""
    project.task("t", TASK, n=300, options="", bad="x >= 100 and not os.path.exists('mended')", what=RAISE)
    assert "the last 50 items all failed alike" in project.run("t", status=1).stderr
    told = project.status("t")
    assert told["n_done"] == 100
    assert 50 <= told["n_failed"] < 150
    with pytest.warns(UserWarning, match="100 of 300"):
        assert project.result("t")["y"].tolist() == list(range(100))
    (project.path / "mended").touch()
    before = len(project.starts())
    project.run("t")
    assert sorted(project.starts()[before:]) == list(range(100, 300))


@pytest.mark.parametrize(
    ("options", "bad", "what"),
    [
        ("early_stop = False", "True", RAISE),
        ("", "True", "raise [ValueError, KeyError][x % 2](x)"),  # not alike
        ("", "x > 0", RAISE),  # one succeeded, and fewer than 50 follow
        ("", "x in (0, 1, 3, 4)", RAISE),
    ],
)
def test_a_run_goes_on_otherwise(project: Project, options: str, bad: str, what: str) -> None:
    """Every item is tried once."""
    project.task("t", TASK, n=20, options=options, bad=bad, what=what)
    assert "alike" not in project.run("t", status=1).stderr
    assert sorted(project.starts()) == list(range(20))


def test_crashes_count_too(project: Project) -> None:
    """Three items given up after three deaths each."""
    project.task("t", TASK, n=20, options="", bad="True", what="os._exit(1)")
    assert "the first 3 items all failed alike (Crash (exit status 1)" in project.run("t", status=1).stderr
    assert len(project.starts()) == 9


def test_values_that_cannot_be_recorded_count_too(project: Project) -> None:
    """The mistake is the same in all rows."""
    project.task("t", TASK, n=500, options="", bad="True", what='return {"y": object()}')
    assert "all failed alike (UnsupportedValueError" in project.run("t", status=1).stderr
    assert project.status("t")["n_failed"] < 500


def test_nothing_is_said_when_nothing_is_left(project: Project) -> None:
    """All three items failed; that is no early stop."""
    project.task("t", TASK, n=3, options="", bad="True", what=RAISE)
    error = project.run("t", status=1).stderr
    assert "alike" not in error
    assert "3 failed; psy-doit t tries them again" in error


def test_failures_are_grouped_and_say_what_to_type(project: Project) -> None:
    """How many, what, where, for example which item, and the command that looks at it."""
    project.task(
        "t", TASK, n=40, options="early_stop = False", bad="x != 2 and x < 39", what=RAISE + " if x < 38 else 1 / 0"
    )
    # The last but one divides by zero in the same line.
    project.run("t", status=1)
    told = project.run("status", "-v", "t").stdout
    assert "37 x ValueError at task_t.py:10: no 0, e.g. item 0 (x=0): psy-doit test t --item 0 --pdb" in told
    assert "1 x ZeroDivisionError at task_t.py:10: division by zero, e.g. item 38 (x=38): psy-doit test t" in told
    assert "  failed: 0-1, 3-38" in told
    assert "  record: " in told
