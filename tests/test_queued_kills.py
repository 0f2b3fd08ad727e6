"""Jobs that are killed, cancelled, or go silent: nothing is lost, nothing on record is computed again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from invariants import assert_complete, assert_told_truly, stand
from project import until
from psyrun.record import read_parts
from psyrun.workdir import Workdir
from queueproject import AT_GATE, QueueProject

pytestmark = pytest.mark.kill

LATER = "while x >= 8 and not os.path.exists('gate'): time.sleep(0.01)"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


def at_work(project: QueueProject, n_done: int = 0, n_held: int = 4) -> None:
    """Return when so many items are on record, and so many jobs wait at the gate."""
    until(lambda: len(rows(project)) >= n_done and len(project.held()) >= n_held, 40)
    until(lambda: len(set(project.starts())) >= n_done + n_held)


def rows(project: QueueProject) -> list[int]:
    """Return the items on record."""
    parts = read_parts(Workdir(project.path / "psy-work/t"))
    return [index for part in parts for index in part.indices.tolist()]


def complete(project: QueueProject, n: int) -> None:
    """The same command completes the task; nothing that was on record runs again, and nothing twice."""
    before = stand(project)
    assert_told_truly(project, before, n)
    project.run("t")
    project.wait_ended()
    assert_complete(project, n)
    after = stand(project)
    again = after.starts - before.starts
    assert not before.on_record & set(again)
    assert not again or max(again.values()) == 1
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


class TestKills:
    """kill -9."""

    def test_a_worker(self, project: QueueProject) -> None:
        """The others compute what it held, and the run completes without anybody typing anything."""
        project.queued_task(n=16, max_jobs=8, body=LATER)
        project.run("t")
        at_work(project, 8)
        job = project.jobs("R")[0]
        os.kill(project.job_pid(job), signal.SIGKILL)
        until(lambda: job not in project.jobs("R"))
        project.open_gate()
        project.wait_ended()
        assert_complete(project, 16)
        assert all(project.started()[x] == 1 for x in range(8))

    def test_a_child(self, project: QueueProject) -> None:
        """Its supervisor starts another, which tries the item again."""
        project.queued_task(n=4, max_jobs=2, body=AT_GATE)
        project.run("t")
        at_work(project, 0, 2)
        supervisor = project.job_pid(project.jobs("R")[0])
        child = int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0])
        os.kill(child, signal.SIGKILL)
        until(lambda: len(project.starts()) == 3)
        project.open_gate()
        project.wait_ended()
        assert_complete(project, 4)
        assert sorted(project.started().values()) == [1, 1, 1, 2]

    def test_all_jobs(self, project: QueueProject) -> None:
        """The next command submits what is missing."""
        project.queued_task(n=16, max_jobs=4, body=LATER)
        project.run("t")
        until(lambda: len(rows(project)) == 8 and len(project.held()) == 2, 40)
        project.kill_jobs()
        project.wait_ended()
        project.open_gate()
        complete(project, 16)

    def test_all_jobs_with_their_node(self, project: QueueProject) -> None:
        """What they left is taken for that of dead workers although their machine cannot be asked: the queue tells."""
        project.queued_task(n=8, max_jobs=4, body=AT_GATE)
        project.run("t", PSYRUN_TTL="600")
        at_work(project)
        for job in project.jobs("R"):
            project.elsewhere(job)
        project.kill_jobs()
        project.wait_ended()
        project.open_gate()
        complete(project, 8)

    def test_one_with_its_node(self, project: QueueProject) -> None:
        """The others take over what it held, long before its heartbeat is too old."""
        project.queued_task(n=8, max_jobs=4, body=AT_GATE)
        project.run("t", PSYRUN_TTL="12")
        at_work(project)
        job = project.jobs("R")[0]
        project.elsewhere(job)
        project.kill_jobs([job])
        until(lambda: job not in project.jobs("R"))
        project.open_gate()
        project.wait_ended()
        assert_complete(project, 8)
        assert sorted(project.started().values()) == [1, 1, 1, 1, 1, 1, 1, 2]


class TestCancelled:
    """Jobs that somebody ends."""

    def test_by_the_queue(self, project: QueueProject) -> None:
        """Sqkill of one of them: it hands back what it holds, and the others compute it."""
        project.queued_task(n=12, max_jobs=6, body=AT_GATE)
        project.run("t")
        at_work(project)
        job = project.jobs("R")[0]
        project.command("sqkill", str(job))
        until(lambda: job in project.jobs("K"))
        project.open_gate()
        project.wait_ended()
        assert_complete(project, 12)
        project.run("wait", "t")

    def test_by_psyrun(self, project: QueueProject) -> None:
        """Only jobs of this task end; the next command computes what they had."""
        project.slots(6)
        project.queued_task("t", n=8, max_jobs=8, body=AT_GATE)
        project.queued_task("other", n=4, max_jobs=2, body=AT_GATE)
        project.run("other")
        project.run("t")
        foreign = int(project.command("sqsub", "-r", "10m", "-j", "psy-t", "sleep", "600").split()[-1])
        until(lambda: len(project.held("t")) == 4 and len(project.held("other")) == 2)
        told = project.run("kill", "t").stdout
        assert "cancelled" in told
        until(lambda: len(project.jobs("K", "t")) == 8)
        assert len(project.jobs("R", "other")) == 2
        assert foreign in project.jobs("QR")
        assert project.held("t") == []
        assert "no jobs" in project.run("kill", "t").stdout
        project.run("wait", "--timeout", "1", "t", status=75)
        project.open_gate()
        project.run("t")
        until(lambda: project.jobs("QR") == [foreign], 60)
        assert project.status("t")["merged"]
        assert project.status("other")["merged"]
        project.command("sqkill", str(foreign))

    def test_while_they_wait(self, project: QueueProject) -> None:
        """They never start."""
        project.slots(0)
        project.queued_task(n=4, max_jobs=2)
        project.run("t")
        project.run("kill", "t")
        project.slots(4)
        assert project.ended()
        assert project.starts() == []
        complete(project, 4)
