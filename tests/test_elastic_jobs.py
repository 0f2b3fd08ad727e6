"""Workers that come and go while jobs of a queue compute: grow, drain, pause, and work beside them."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from project import PSY_DOIT, until
from psyrun.files import as_json, json_checksum
from psyrun.orders import drain, is_drained
from psyrun.record import read_parts
from psyrun.workdir import Workdir
from queueproject import AT_GATE, QueueProject


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path, slots=8)
    yield project
    project.close()


def rows(project: QueueProject) -> Counter[int]:
    """Return how many rows of each item are on record."""
    parts = read_parts(Workdir(project.path / "psy-work/t"))
    return Counter(index for part in parts for index in part.indices.tolist())


def causes(project: QueueProject) -> list[str]:
    """Return why each submission was made."""
    return [submission["cause"] for submission in project.submissions()]


def log_of(project: QueueProject, job: int) -> str:
    """Return what a job printed."""
    return (project.path / f"psy-work/t/log/job-{job}.log").read_text()


def was_told(project: QueueProject, what: str, n: int = 1) -> None:
    """Return when so many workers noted that they were told something."""
    logs = project.path / "psy-work/t/log"
    until(lambda: sum(f"(psyrun: {what}" in path.read_text() for path in logs.glob("0001-*.log")) == n)


class TestGrow:
    """psy-doit grow."""

    def test_it_submits_more_jobs(self, project: QueueProject) -> None:
        """Beyond max_jobs, with the same resources; all is computed once, and the last one merges."""
        project.queued_task(n=24, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.starts()) == 2)
        told = project.run("grow", "t", "--jobs", "3").stdout
        assert "submitted 3 jobs" in told
        until(lambda: len(project.starts()) == 5)
        assert causes(project) == ["command", "grown"]
        first, grown = project.submissions()
        assert grown["job"]["resources"] == first["job"]["resources"]
        project.open_gate()
        project.wait_ended()
        assert project.status("t")["merged"]
        assert project.started() == dict.fromkeys(range(24), 1)

    def test_typed_again_it_grows_again(self, project: QueueProject) -> None:
        """And psy-doit NAME finds that there are jobs enough."""
        project.queued_task(n=24, max_jobs=2, body=AT_GATE)
        project.run("t")
        project.run("grow", "t", "--jobs", "1")
        project.run("grow", "t", "--jobs", "2")
        assert len(project.jobs()) == 5
        project.run("t")
        assert len(project.jobs()) == 5
        project.open_gate()
        project.wait_ended()
        assert project.status("t")["merged"]

    def test_no_more_than_there_are_items(self, project: QueueProject) -> None:
        """A thousand jobs for three items are three."""
        project.slots(0)
        project.queued_task(n=3, max_jobs=1, body=AT_GATE)
        project.run("t")
        project.run("grow", "t", "--jobs", "1000")
        assert len(project.jobs()) <= 4
        project.slots(8)
        project.open_gate()
        project.wait_ended()
        assert project.started() == dict.fromkeys(range(3), 1)

    def test_max_jobs_above_the_number_of_items(self, project: QueueProject) -> None:
        """As many jobs as items, and all is done once."""
        project.queued_task(n=3, max_jobs=100)
        project.run("t")
        assert len(project.jobs()) <= 3
        project.wait_ended()
        assert project.status("t")["merged"]
        assert project.started() == dict.fromkeys(range(3), 1)

    def test_refused(self, project: QueueProject) -> None:
        """Nobody at work, all done, paused, drained: nothing is submitted, and it says what to type."""
        project.queued_task(n=6, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.starts()) == 2)
        project.run("pause", "t")
        assert "psy-doit resume t" in project.run("grow", "t", "--jobs", "1", status=4).stderr
        project.run("resume", "t")
        project.run("kill", "t")
        project.wait_ended()
        assert "nobody is at work on it" in project.run("grow", "t", "--jobs", "1", status=4).stderr
        drain(project.plan().path)
        assert "it was drained" in project.run("grow", "t", "--jobs", "1", status=4).stderr
        project.open_gate()
        project.run("t")
        project.wait_ended()
        assert "all 6 items are done" in project.run("grow", "t", "--jobs", "1", status=4).stderr
        assert "grown" not in causes(project)

    def test_a_queue_that_does_not_answer(self, project: QueueProject) -> None:
        """Nothing is submitted; status 75."""
        project.queued_task(n=6, max_jobs=2, body=AT_GATE)
        project.run("t")
        project.broken("the queue is asleep")
        assert "asleep" in project.run("grow", "t", "--jobs", "1", status=75).stderr
        project.broken()
        assert causes(project) == ["command"]

    def test_the_run_goes_on_by_itself_as_often_as_without(self, project: QueueProject) -> None:
        """A job that was added counts neither as a continuation nor as the one whose progress is measured."""
        project.queued_task(n=24, max_jobs=1, body="time.sleep(0.5)", timelimit=3, options="resubmit = 9")
        project.run("t")
        until(lambda: len(project.starts()) >= 2)
        project.run("grow", "t", "--jobs", "3")
        until(lambda: project.ended() and project.status("t")["merged"], 90)
        told = [(s["cause"], s["job"]["n"]) for s in project.submissions()]
        assert told[:2] == [("command", 1), ("grown", 3)]
        assert set(told[2:]) == {("continued", 1)}
        assert rows(project) == dict.fromkeys(range(24), 1)


class TestDrain:
    """psy-doit drain."""

    def test_jobs_finish_what_they_have_in_hand(self, project: QueueProject) -> None:
        """Those that wait are cancelled, the last one merges, and the next command computes the rest."""
        project.slots(2)
        project.queued_task(n=12, max_jobs=6, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.starts()) == 2)
        told = project.run("drain", "t").stdout
        assert "cancelled 100003, 100004, 100005, 100006, which did not start" in told
        assert project.jobs("Q") == []
        was_told(project, "drained", 2)
        project.open_gate()
        project.wait_ended()
        assert len(project.starts()) == 2
        found = project.status("t")
        assert (found["n_done"], found["n_missing"], found["merged"]) == (2, 10, True)
        assert causes(project) == ["command"]
        assert project.run("wait", "t", status=75)
        project.run("t")
        project.wait_ended()
        assert project.status("t")["merged"]
        assert project.started() == dict.fromkeys(range(12), 1)

    def test_without_an_answer_of_the_queue(self, project: QueueProject) -> None:
        """It says so; jobs that start later leave at once."""
        project.slots(1)
        project.queued_task(n=6, max_jobs=3, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.starts()) == 1)
        project.broken("the queue is asleep")
        told = project.run("drain", "t").stdout
        assert "not all jobs that wait could be cancelled" in told
        assert "asleep" in told
        assert "jobs that start leave at once" in told
        was_told(project, "drained")
        project.broken()
        assert len(project.jobs("Q")) == 2
        project.open_gate()
        project.wait_ended()
        assert len(project.starts()) == 1
        assert project.status("t")["merged"]

    def test_nobody_at_work(self, project: QueueProject) -> None:
        """A finished run cannot be drained, and is not marked."""
        project.queued_task(n=2)
        project.run("t")
        project.wait_ended()
        assert "nobody is at work on it" in project.run("drain", "t").stdout
        assert not is_drained(project.plan().path)


class TestPause:
    """psy-doit pause."""

    def test_jobs_wait_and_go_on(self, project: QueueProject) -> None:
        """Also those that start meanwhile."""
        project.slots(1)
        project.queued_task(n=6, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.starts()) == 1)
        project.run("pause", "t")
        project.slots(2)
        beats = project.path / "psy-work/t/beat"
        until(lambda: len(list(beats.glob("[0-9a-f]*"))) == 2)
        was_told(project, "paused", 2)
        project.open_gate()
        until(lambda: project.status("t")["n_done"] == 1)
        assert len(project.starts()) == 1
        project.run("resume", "t")
        project.wait_ended()
        assert project.status("t")["merged"]
        assert project.started() == dict.fromkeys(range(6), 1)

    def test_a_job_whose_time_ends_meanwhile(self, project: QueueProject) -> None:
        """It hands back what it has; the last one does not go on by itself, and nothing is lost."""
        project.queued_task(n=6, max_jobs=1, body="time.sleep(0.3)", timelimit=4)
        project.run("t")
        until(lambda: project.starts())
        project.run("pause", "t")
        project.wait_ended()
        assert "the task is paused" in log_of(project, 100001)
        assert causes(project) == ["command"]
        found = project.status("t")
        assert 0 < found["n_done"] < 6
        assert (found["n_running"], found["merged"], found["paused"]) == (0, True, True)
        project.run("t", status=4)
        project.run("resume", "t")
        project.run("t")
        until(lambda: project.ended() and project.status("t")["merged"])
        assert project.started() == dict.fromkeys(range(6), 1)


class TestWork:
    """psy-doit work beside jobs."""

    def guest(self, project: QueueProject, *words: str) -> subprocess.Popen[str]:
        """Start one on a machine without the programs of the queue."""
        environment = project.environment(PATH=os.environ["PATH"])
        command = [PSY_DOIT, "work", "t", *words]
        return subprocess.Popen(command, cwd=project.path, env=environment, stderr=subprocess.PIPE, text=True)

    def test_without_the_programs_of_the_queue(self, project: QueueProject) -> None:
        """It helps jobs that work, and does all that jobs which wait would; they find nothing to do."""
        project.slots(1)
        project.queued_task(n=12, max_jobs=3, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.starts()) == 1)
        guest = self.guest(project, "-n", "2")
        until(lambda: len(project.starts()) == 3)
        project.open_gate()
        _, told = guest.communicate(timeout=60)
        assert guest.returncode == 0, told
        assert "items finished here" in told
        project.wait_ended()
        assert project.status("t")["merged"]
        assert project.started() == dict.fromkeys(range(12), 1)
        assert causes(project) == ["command"]

    def test_it_merges_where_no_job_is_left(self, project: QueueProject) -> None:
        """They were all killed, and the guest did the rest."""
        project.queued_task(n=8, max_jobs=4, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.starts()) == 4)
        project.kill_jobs()
        project.wait_ended()
        project.open_gate()
        _, told = self.guest(project).communicate(timeout=60)
        assert "8 of 8 items done" in told
        assert project.status("t")["merged"]
        assert rows(project) == dict.fromkeys(range(8), 1)


def test_a_job_of_another_version(project: QueueProject) -> None:
    """It says so in its log, ends with trouble, and the next command makes a plan of its own."""
    project.slots(0)
    project.queued_task(n=4, max_jobs=2)
    project.run("t")
    path = project.plan().path / "plan.json"
    told = json.loads(path.read_text()) | {"psyrun": "0.9"}
    del told["checksum"]
    path.write_bytes(as_json(told | {"checksum": json_checksum(told)}))
    project.slots(2)
    project.wait_ended()
    assert "was made by psyrun 0.9" in log_of(project, 100001)
    assert project.starts() == []
    project.run("t")
    project.wait_ended()
    assert project.plan().id == "0002"
    assert project.started() == dict.fromkeys(range(4), 1)
