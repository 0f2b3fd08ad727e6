"""What to ask a queue for: it follows from what was measured, and is enough."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import Project
from psyrun.advise import fewest_items, ladder, memory, shown_limit, shown_memory, time_limit
from psyrun.costs import measured
from psyrun.parts import Failure, Writer
from psyrun.scan import Part, read
from psyrun.scheduler.resources import mebibytes
from psyrun.scheduler.resources import time_limit as limit_of
from psyrun.terms import JOB_TIME
from rows import write_rows

TASK = """
import time
from psyrun import Param
pspace = Param(x=range(40))
{more}
def execute(x):
    time.sleep(0.01)
    block = bytearray(x * 10**6)
    if x == 3:
        raise ValueError("no")
    return dict(y=len(block))
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def advice(project: Project, *words: str) -> dict[str, Any]:
    """Return what ``advise --json`` says of the task t."""
    found: dict[str, Any] = json.loads(project.run("advise", "--json", "t", *words).stdout)[0]
    assert found["schema_version"] == 1
    return found


# What to ask for


@given(st.floats(0, 1e6), st.integers(1, 10**5), st.integers(1, 64))
def test_a_job_has_time_for_its_items(longest: float, n_items: int, pool_size: int) -> None:
    """For half more than if all took as long as the longest, and twice the longest; in whole steps."""
    limit = time_limit(longest, n_items, pool_size)
    assert limit >= 1.5 * longest * math.ceil(n_items / pool_size)
    assert limit >= 2 * longest
    assert limit % 600 == 0 and limit > 0
    assert limit <= max(600, 1.5 * longest * math.ceil(n_items / pool_size) + 3600, 2 * longest + 3600)
    assert limit_of(shown_limit(limit)) == limit


@given(st.integers(1, 2**45), st.integers(1, 64), st.integers(0, 2**20))
def test_a_job_has_memory_for_its_items(peak: int, pool_size: int, had: int) -> None:
    """For a third more than all processes used, in whole steps; what was not enough gets twice that."""
    asked = memory(peak, pool_size)
    assert asked * 2**20 >= 1.29 * peak * pool_size
    assert asked % 128 == 0 and asked * 2**20 <= 1.31 * peak * pool_size + 2**27
    assert mebibytes(shown_memory(asked)) == asked
    rungs = ladder(asked, had)
    assert rungs[0] == asked and rungs[1] >= 2 * had and rungs == sorted(rungs)


@given(st.floats(1e-5, 1e5), st.integers(1, 64))
def test_a_job_takes_some_minutes(mean: float, pool_size: int) -> None:
    """Unless one item is longer."""
    n = fewest_items(mean, pool_size)
    assert n * mean / pool_size >= 599.9
    assert n == 1 or (n - 1) * mean / pool_size < 600


# What was measured


def part(
    path: Path, code: str, rows: dict[int, float], failures: dict[str, float] | None = None, peak: int = 0
) -> Part:
    """Write a part with a row for each key, which took so many seconds, and failures of some types."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    log = Writer(descriptor)
    log.header({"code": code, "space": "s"})
    for key, seconds in rows.items():
        system = {"key": np.array([[key, 0]], np.uint64), "index": np.array([key]), "start": np.array([0.0])}
        write_rows(log, system | {"duration": np.array([seconds])}, [{"y": key}])
    for kind, seconds in (failures or {}).items():
        log.fail(Failure((0, 0), 0, 0.0, seconds, kind, "", "", ""))
    if peak:
        log.peak(peak)
    os.close(descriptor)
    return read(path)


def test_time_in_vain_is_that_of_failures_and_of_rows_that_were_there(tmp_path: Path) -> None:
    """The first row of an item counts. All code took time, but that of code that counts tells how long items take."""
    parts = [
        part(tmp_path / "a", "new", {1: 10.0, 2: 20.0, 1 << 40: math.nan}, {"ValueError": 4.0}, peak=1000),
        part(tmp_path / "b", "new", {2: 21.0, 3: 30.0}, peak=3000),
        part(tmp_path / "c", "old", {1: 100.0}, peak=9000),
    ]
    found = measured(parts, ["new"])
    assert sorted(found.seconds) == [10.0, 20.0, 30.0]
    assert (found.used, found.twice, found.n_twice, found.wasted) == (185.0, 21.0, 1, 25.0)
    assert (found.longest, found.peak, found.n_rows) == (30.0, 3000, 6)
    assert found.n_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_rows_of_other_code_are_better_than_nothing(tmp_path: Path) -> None:
    """Before the first one of this code is there; of nothing, nothing is known."""
    found = measured([part(tmp_path / "c", "old", {1: 100.0})], ["new"])
    assert found.seconds.tolist() == [100.0]
    nothing = measured([], ["new"])
    assert (len(nothing.seconds), nothing.longest, nothing.wasted) == (0, 0.0, 0.0)


def test_an_item_that_a_jobs_time_was_not_enough_for_is_long(tmp_path: Path) -> None:
    """Other failures tell nothing of how long items take."""
    found = measured([part(tmp_path / "a", "c", {1: 1.0}, {JOB_TIME: 600.0, "ValueError": 900.0})], ["c"])
    assert found.longest == 600.0


# The command


def test_without_measurements_it_says_how_to_get_some(project: Project) -> None:
    """And what is advised then is enough for them."""
    project.task("t", TASK, more="")
    told = project.run("advise", "t").stdout
    assert "nothing was measured yet" in told
    assert "psy-doit test t" in told and "psy-doit t --items 0-9" in told
    assert advice(project)["advice"] is None
    assert not (project.path / "psy-work").exists()


def test_the_line_can_be_pasted(project: Project) -> None:
    """It holds what the task file had, and what was measured; with it, min_items has no more to say."""
    project.task("t", TASK, more="scheduler_args = {'partition': 'p', 'memory-per-cpu': '1M', 'timelimit': '1s'}")
    project.run("t", "--items", "0-9", status=1)
    before = {path: path.read_bytes() for path in (project.path / "psy-work").rglob("*") if path.is_file()}
    lines = [line.strip() for line in project.run("advise", "t").stdout.splitlines()]
    pasted = [line for line in lines if line.startswith(("scheduler_args = ", "min_items = "))]
    assert pasted[0] == "min_items = 31"
    values: dict[str, Any] = {}
    exec("\n".join(pasted), values)
    assert values["scheduler_args"] == {"partition": "p", "timelimit": "10m", "memory": "128M"}
    assert {path: path.read_bytes() for path in (project.path / "psy-work").rglob("*") if path.is_file()} == before
    project.task("t", TASK, more="\n".join(pasted))
    assert advice(project)["advice"]["scheduler_args"] == values["scheduler_args"]
    assert "min_items" not in project.run("advise", "t").stdout


def test_the_numbers_are_those_of_the_record(project: Project) -> None:
    """Nine rows and a failure of about 10 ms; the largest item tells the memory."""
    project.task("t", TASK, more="")
    project.run("t", "--items", "0-9", status=1)
    found = advice(project)
    hours, seen = found["core_hours"], found["measured"]
    assert (found["n_items"], found["n_left"], seen["n_rows"], seen["n_failures"]) == (40, 31, 9, 1)
    assert 0.01 <= seen["seconds_mean"] <= seen["seconds_longest"] < 0.5
    assert hours["used"] * 3600 == pytest.approx(9 * seen["seconds_mean"] + hours["wasted"] * 3600)
    assert 0.01 <= hours["wasted"] * 3600 < 0.5
    assert hours["missing"] * 3600 == pytest.approx(31 * seen["seconds_mean"])
    assert seen["peak_bytes"] > 15 * 10**6
    assert seen["record_bytes"] == sum(p.stat().st_size for p in (project.path / "psy-work/t/parts").iterdir())


def test_memory_is_that_of_the_items(project: Project) -> None:
    """A large one shows, wherever its process has been before; so does one of a program that an item starts."""
    project.task(
        "t",
        """
        import subprocess, sys
        from psyrun import Param
        pspace = Param(x=range(6))
        program = "len(bytearray(400 * 10**6))"
        def execute(x):
            if x == 5:
                subprocess.run([sys.executable, "-c", program], check=True)
            return dict(y=len(bytearray(200 * 10**6 if x == 2 else 0)))
        """,
    )
    project.run("t", "--items", "0-1")
    assert advice(project)["measured"]["peak_bytes"] < 150e6
    project.run("t", "--items", "2-3")
    assert 200e6 < advice(project)["measured"]["peak_bytes"] < 350e6
    project.run("t")
    assert 400e6 < advice(project)["measured"]["peak_bytes"] < 600e6
    assert advice(project)["advice"]["memory_mib"][0] * 2**20 > 500e6


def test_items_that_ran_out_of_memory_get_a_ladder(project: Project) -> None:
    """It begins with what the others took, and goes on above what these had; it goes away with their failures."""
    more = "scheduler_args = {{'memory': '3G'}}"
    text = TASK.replace('ValueError("no")', "MemoryError")
    project.task("t", text, more=more.format())
    project.run("t", status=1)
    assert advice(project)["advice"]["memory_mib"] == [128, 6144, 12288]
    assert "'memory': ['128M', '6G', '12G']" in project.run("advise", "t").stdout
    project.task("t", text.replace("x == 3", "x < 0"), more=more.format())
    project.run("t", "--keep")
    assert advice(project)["advice"]["memory_mib"] == [128]


def test_functions_stay_as_they_are(project: Project) -> None:
    """They are named beside the line, for no text stands for them."""
    project.task("t", TASK, more="scheduler_args = dict(account=lambda name: name, nice=3)")
    project.run("t", "--items", "0-1")
    told = project.run("advise", "t").stdout
    assert "scheduler_args = {'nice': 3, 'timelimit': '10m', 'memory': '128M'}\n" in told
    assert "the functions: account" in told


def test_long_jobs_stay_as_many_as_they_are(project: Project) -> None:
    """And one chunk cannot be made longer."""
    project.task("t", TASK.replace("0.01", "0"), more="max_jobs = 1")
    project.run("t", "--items", "0-2")
    assert "min_items" not in project.run("advise", "t").stdout
    assert advice(project)["advice"]["max_jobs"] == 1


def test_what_the_queue_would_never_run_is_told(project: Project) -> None:
    """As when it is submitted, such as a time above the limit of a partition that the task file has."""
    narrow = """
from psyrun import Slurm
from psyrun.errors import TaskError

class Narrow(Slurm):
    def check_submission(self, job):
        raise TaskError(f"{job.resources['timelimit']} s are too long")

scheduler = Narrow()
"""
    project.task("t", TASK.format(more=""))
    project.run("t", status=1)
    assert "refuse" not in project.run("advise", "t").stdout
    project.task("t", TASK.format(more=narrow))
    assert "psy-doit would refuse that: 600 s are too long" in project.run("advise", "t").stdout
