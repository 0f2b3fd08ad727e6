"""What status and watch tell of workers: what they have in hand, how fast they are, until when, what is too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from faults import at_time
from project import PSY_DOIT, Project, until
from psyrun.activity import Lookout
from psyrun.claims import Observer, Process, Token
from psyrun.plan import Mask, Plan
from psyrun.state import look
from psyrun.status import lines, report
from psyrun.tally import Tally
from psyrun.tasks import Task, load_task
from psyrun.workers import Crew, Worker, shown_stragglers, shown_workers
from queueproject import AT_GATE, QueueProject

TASK = """
    from psyrun import Param
    pspace = Param(x=range(40))
    {more}
    def execute(x):
        return {{"y": x}}
"""
WORKER = "0123456789abcdef"
USUAL = np.full(20, 10.0)


@dataclass
class Fixed:
    """A task with a plan of its items 1 to 39, and workers that beat as a test has it."""

    task: Task
    plan: Plan

    def beat(self, worker: str = WORKER, age: float = 0.0, **more: Any) -> Worker:
        """Write a heartbeat; return what it tells."""
        beats = self.task.workdir.beats
        beats.mkdir(exist_ok=True)
        about = {"plan": self.plan.id, "job": "", "token": "", "since": 0.0, "children": 2}
        me = {**vars(Process.current()), "host": "n3", "pid": 7}
        path = beats / worker
        path.write_text(json.dumps({"worker": worker, "count": 3, **about, **me, **more}))
        os.utime(path, (time.time() - age, time.time() - age))
        return Worker.read(Observer(beats, 180.0), worker, [(self.plan.id, Token(0, 4, 0, worker))])

    def crew(self, *workers: Worker, done: tuple[int, ...] = (), n_left: int = 39, durations: Any = USUAL) -> Crew:
        """Return workers with what follows for the items."""
        mask: Mask = np.zeros(40, dtype=bool)
        mask[list(done)] = True
        return Crew(self.task, workers, self.plan, mask, np.arange(max(40, n_left)) < n_left, durations)


def fixed(path: Path, more: str = "") -> Fixed:
    """Return a task that has run in a directory; item 0 was done before."""
    project = Project(path)
    project.task("t", TASK, more=more)
    project.run("t", "--items", "0")
    project.run("t")
    task = load_task("t", path / "psy-tasks")
    return Fixed(task, Plan.read(task.workdir.plans / task.workdir.plan_ids()[-1]))


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixed]:
    before = Path.cwd()
    path = tmp_path_factory.mktemp("project")
    os.chdir(path)
    yield fixed(path)
    os.chdir(before)


# Heartbeats


def test_what_a_worker_tells(at: Fixed) -> None:
    """Items by their indices in the space, the longest first, for as long as they are in hand by now."""
    worker = at.beat(age=60, hand=[[4, 2.0], [16, 120.0]], n_finished=30, seconds=900.0, job="12_4")
    (told,) = at.crew(worker).report()
    assert [(item["item"], round(item["seconds"])) for item in told["in_hand"]] == [(17, 180), (5, 62)]
    assert told["items"] == [[1, 5]]
    assert (told["chunk"], told["chunks"], told["per_minute"], told["job"]) == ([0, 4], [[0, 4]], 2.0, "12_4")
    line = "worker 01234567 on n3, process 7, job 12_4: items 17 for 3 minutes, 5 for 62 s, 30 finished, 2 a minute"
    assert shown_workers([told]) == [line]


@pytest.mark.parametrize(("age", "seconds"), [(-86400, 5), (20, 25), (86400, 185)])
def test_the_age_of_a_heartbeat_counts_for_no_more_than_the_time_to_live(at: Fixed, age: float, seconds: float) -> None:
    """Whatever the clock of the file system is."""
    (told,) = at.crew(at.beat(age=age, hand=[[3, 5.0]])).report()
    assert told["in_hand"][0]["seconds"] == pytest.approx(seconds, abs=2)


def test_what_is_on_record_is_not_in_hand_any_more(at: Fixed) -> None:
    """The heartbeat is older than the row. Then the chunk is told; or that there is none."""
    worker = at.beat(hand=[[3, 5.0]])
    assert shown_workers(at.crew(worker, done=(4,)).report())[0].endswith(": holds items 1-5")
    assert shown_workers(at.crew(Worker(WORKER)).report()) == [
        "worker 01234567 on a host that is not known: between two chunks"
    ]


def test_items_of_an_earlier_plan_are_told_as_such(at: Fixed) -> None:
    """Their positions mean nothing in this one."""
    worker = at.beat(plan="0000", hand=[[3, 5.0]])
    elsewhere = Worker(WORKER, "n3", 7, (("0000", Token(0, 4, 0, WORKER)),), "0000", hand=((3, 5.0),))
    assert at.crew(worker).report()[0]["in_hand"] == []
    assert shown_workers(at.crew(elsewhere).report())[0].endswith(": 5 items of an earlier plan")
    nobody = Crew(at.task, [elsewhere], None, np.zeros(40, dtype=bool), np.ones(40, dtype=bool), USUAL)
    assert shown_workers(nobody.report())[0].endswith(": 5 items of an earlier plan")


def test_a_heartbeat_of_before_tells_what_it_can(at: Fixed) -> None:
    """Where it is, and what it holds."""
    path = at.task.workdir.beats / WORKER
    at.beat()
    path.write_text(json.dumps({"worker": WORKER, "count": 1, **vars(Process.current()), "host": "n3", "pid": 7}))
    crew = at.crew(Worker.read(Observer(path.parent, 180.0), WORKER, [(at.plan.id, Token(0, 4, 0, WORKER))]))
    assert shown_workers(crew.report()) == ["worker 01234567 on n3, process 7: holds items 1-5"]
    assert crew.stragglers() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)
FIELDS = ["plan", "job", "token", "since", "hand", "n_finished", "seconds", "children"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.lists(st.tuples(JSON, JSON).map(list), max_size=3))
@example({"seconds": 5e-324, "n_finished": 10**11, "children": 10**400}, [[3, 10**400], [10**400, 1.0], [3, -1]])
@example({"seconds": 0.1, "n_finished": 10**11, "children": 1}, [[3, 1e308]])
def test_garbage_in_heartbeats_is_overlooked(at: Fixed, more: dict[str, Any], pairs: list[Any]) -> None:
    """Whatever stands in a field, the worker is shown, and nothing breaks."""
    crew = at.crew(at.beat(**{"hand": pairs, **more}))
    told = crew.report()
    json.dumps([told, crew.stragglers(), crew.per_minute], allow_nan=False)
    assert len(shown_workers(told)) == 1
    assert shown_stragglers(crew.stragglers()) is not None
    left = crew.left
    assert left is None or left.text()


def test_many_workers_do_not_fill_the_screen(at: Fixed) -> None:
    """The first are shown, the others counted."""
    told = at.crew(*(Worker(f"{i:016x}") for i in range(30))).report()
    assert len(shown_workers(told)) == 21
    assert shown_workers(told)[-1] == "and 10 more workers"


# Rates and the end


def test_the_rate_is_that_which_workers_measured_or_that_of_durations(at: Fixed) -> None:
    """By its own clock once it finished ten items a child; before, two at a time of 10 s are 12 a minute."""
    begun, long = at.beat(n_finished=1, seconds=100.0), at.beat(n_finished=30, seconds=60.0)
    assert at.crew(begun).per_minute == 12
    assert at.crew(begun, durations=np.empty(0)).per_minute == pytest.approx(0.6)
    assert at.crew(begun, long).per_minute == 12 + 30
    assert at.crew(at.beat(), durations=np.empty(0)).per_minute is None


def test_the_time_left_is_known_where_somebody_works_and_something_was_measured(at: Fixed) -> None:
    """For the items of the plan, with a spread; and the same rate."""
    worker = at.beat()
    left = at.crew(worker, n_left=400).left
    assert left is not None
    assert left.low < 2000 < left.high
    assert left.about == pytest.approx(2000, rel=0.1)
    slow = at.crew(at.beat(n_finished=30, seconds=600.0), n_left=400).left
    assert slow is not None
    assert slow.about == pytest.approx(8000, rel=0.1)
    nothing = [at.crew(n_left=4), at.crew(worker, n_left=0), at.crew(worker, durations=np.array([np.nan]))]
    assert [crew.left for crew in nothing] == [None, None, None]


def test_what_is_left_is_what_somebody_began_or_may_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items of the newest plan, not all that are missing; status and watch agree."""
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    project.task("t", TASK, more="max_jobs = 4")
    project.run("t", "--items", "0-19")
    task = load_task("t", Path("psy-tasks"))
    for path in task.workdir.part_paths():
        path.unlink()
    plan = task.workdir.plans / "0001"
    first, *others = sorted((plan / "done").iterdir(), key=lambda path: int(path.name.partition("-")[0]))
    first.rename(plan / "held" / f"{first.name.rpartition('.')[0]}.{WORKER}")
    (task.workdir.beats / WORKER).touch()
    for other in others[1:]:
        other.rename(plan / "open" / other.name.rpartition(".")[0])
    lookout = Lookout(task.workdir)
    tally = Tally(task, lookout.observer)
    tally.update(lookout.look())
    assert tally.counts() == (0, 0, 5, 35)
    assert np.count_nonzero(tally.left) == np.count_nonzero(look(task).left) == 15


# Stragglers


def test_what_takes_much_longer_than_the_others_is_named(at: Fixed) -> None:
    """Three times as long as 95 % of the others at most; the longest first, and what to type."""
    worker = at.beat(hand=[[4, 29.0], [16, 31.0], [17, 2400.0]], job="12_4")
    found = at.crew(worker).stragglers()
    assert [straggler["item"] for straggler in found] == [18, 17]
    assert shown_stragglers(found) == [
        "straggler: item 18 for 40 minutes on n3 (job 12_4): 19 of 20 others took at most 10 s",
        "straggler: item 17 for 31 s on n3 (job 12_4): 19 of 20 others took at most 10 s",
        "to end such items: timeout = '30s' in task_t.py",
    ]
    assert at.crew(worker, durations=USUAL[:9]).stragglers() == []
    assert at.crew(worker, done=(17, 18)).stragglers() == []
    assert shown_stragglers(found * 4)[5] == "and 3 more such items"


def test_the_age_of_a_heartbeat_makes_no_stragglers(at: Fixed) -> None:
    """The item may have ended since."""
    assert at.crew(at.beat(age=100, hand=[[4, 1.0]])).stragglers() == []
    (found,) = at.crew(at.beat(age=100, hand=[[4, 31.0]])).stragglers()
    assert found["seconds"] == pytest.approx(131, abs=2)


def test_where_there_is_a_timeout_none_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It will end the item."""
    monkeypatch.chdir(tmp_path)
    at = fixed(tmp_path, "timeout = '1h'")
    found = at.crew(at.beat(hand=[[4, 2400.0]])).stragglers()
    assert len(shown_stragglers(found)) == 1
    assert found[0]["remedy"] is None


# The commands


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


SLOW = """
    import os, time
    from psyrun import Multiprocessing, Param
    pspace = Param(x=range(60))
    scheduler = Multiprocessing(2)
    def execute(x):
        open(f"began-{x}", "w").close()
        while x == 30 and not os.path.exists("go"):
            time.sleep(0.02)
        time.sleep(0.05)
        return {"y": x}
"""


@pytest.mark.parametrize("offset", ["+0", "+1d", "-1d"])
def test_a_worker_is_shown_right_whatever_its_clock_is(project: Project, offset: str) -> None:
    """What it has in hand, since when, how fast it is, and until when; by status and watch alike."""
    project.task("t", SLOW)
    words, silent = at_time(offset, "t"), subprocess.DEVNULL
    command = subprocess.Popen(words, env=project.environment(), stdout=silent, stderr=silent, stdin=silent)
    try:
        until(lambda: project.status("t")["stragglers"] if (project.path / "began-40").exists() else False)
        told = project.status("t")
        (worker,) = told["workers"]
        assert worker["pid"] > 0
        assert 30 in [item["item"] for item in worker["in_hand"]]
        assert 1 < max(item["seconds"] for item in worker["in_hand"]) < 60
        assert 5 < worker["per_minute"] < 60 * 2 / 0.05
        (straggler,) = told["stragglers"]
        assert (straggler["item"], straggler["remedy"]) == (30, "timeout = '1s' in task_t.py")
        assert 0 <= told["seconds_left"]["low"] <= told["seconds_left"]["about"] <= told["seconds_left"]["high"] < 600
        text = project.run("status").stdout
        assert " left" in text
        assert "straggler: item 30 for " in text
        watch = subprocess.Popen(
            [PSY_DOIT, "watch", "t"], env=project.environment(), stdout=subprocess.PIPE, stderr=silent, text=True
        )
        assert watch.stdout is not None
        assert " left" in watch.stdout.readline()
        assert watch.stdout.readline().startswith("t: straggler: item 30 for ")
        (project.path / "go").touch()
        watch.communicate(timeout=30)
        assert command.wait(timeout=30) == 0
    finally:
        command.kill()
        command.wait()
    told = project.status("t")
    assert (told["workers"], told["seconds_left"], told["stragglers"]) == ([], None, [])


def test_a_job_is_named(tmp_path: Path) -> None:
    """By its id in the queue, with the item in its hands."""
    project = QueueProject(tmp_path, slots=1)
    try:
        project.queued_task(n=2, max_jobs=1, body=AT_GATE)
        project.run("t")
        until(lambda: [w for w in project.status("t")["workers"] if w["in_hand"]])
        text = project.run("status", "t").stdout
        assert f", job {project.jobs('R')[0]}: item 0 for " in text
        project.open_gate()
        project.wait_ended()
    finally:
        project.close()


def test_nothing_is_imported_or_computed_where_nobody_is_at_work(project: Project) -> None:
    """The manifest tells all, at the cost of before."""
    project.task("t", TASK, more="")
    project.run("t")
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "psyrun", "status"], capture_output=True, text=True, check=True
    )
    assert "psyrun.status" in told.stderr
    assert "psyrun.workers" not in told.stderr
    assert "psyrun.eta" not in told.stderr
    state = look(load_task("t", Path("psy-tasks")))
    assert not len(state.durations)
    assert lines(state, report(state))[0] == "t: 40 of 40 items done"
