"""Jobs whose time or memory is too little: they stop in time, go on by themselves, and climb ladders of resources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from project import until
from psyrun.record import read_parts
from psyrun.workdir import Workdir
from queueproject import QueueProject


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


def failures(project: QueueProject) -> dict[int, list[tuple[str, str]]]:
    """Return type and message of all failures on record, by item."""
    found: dict[int, list[tuple[str, str]]] = {}
    for part in read_parts(Workdir(project.path / "psy-work/t")):
        for failure in part.failures:
            found.setdefault(failure.index, []).append((failure.type, failure.message))
    return found


def rows(project: QueueProject) -> list[int]:
    """Return the items that rows are on record of, in order."""
    parts = read_parts(Workdir(project.path / "psy-work/t"))
    return sorted(index for part in parts for index in part.indices.tolist())


def causes(project: QueueProject) -> list[str]:
    """Return why each submission was made."""
    return [submission["cause"] for submission in project.submissions()]


class TestTime:
    """The time limit of a job."""

    def test_it_goes_on_by_itself(self, project: QueueProject) -> None:
        """Where the time is short the worker stops in time and submits the rest, while there is progress."""
        project.queued_task(n=14, max_jobs=2, body="time.sleep(0.5)", timelimit=3)
        project.run("t")
        project.wait_ended(90)
        assert project.status("t")["merged"]
        assert rows(project) == list(range(14))  # what was in hand when a job stopped is begun again
        assert causes(project)[0] == "command"
        assert set(causes(project)[1:]) == {"continued"}
        assert failures(project) == {}

    def test_only_so_often(self, project: QueueProject) -> None:
        """As often as `resubmit` says; then the next command goes on, and `wait` says that items are missing."""
        project.queued_task(n=40, max_jobs=1, body="time.sleep(0.5)", options="resubmit = 1", timelimit=2)
        project.run("t")
        project.wait_ended(60)
        assert causes(project) == ["command", "continued"]
        n_done = project.status("t")["n_done"]
        assert 0 < n_done < 40
        assert "are missing" in project.run("wait", "t", status=75).stderr
        assert rows(project) == list(range(n_done))

    def test_not_without_progress(self, project: QueueProject) -> None:
        """An item that needs more than a whole job fails with the numbers; nothing goes round for ever."""
        project.queued_task(n=1, max_jobs=1, body="time.sleep(60)", timelimit=2)
        project.run("t")
        project.wait_ended(60)
        (told,) = failures(project)[0]
        assert told[0] == "JobTimeLimit"
        assert "2 s" in told[1]
        assert "timelimit" in told[1]
        assert len(project.submissions()) == 1
        assert project.run("wait", "t", status=1).stderr

    def test_a_ladder(self, project: QueueProject) -> None:
        """What needs more is submitted by itself with the next time limit; all else is computed once."""
        project.queued_task(n=6, max_jobs=3, body="time.sleep(4 if x == 4 else 0)", timelimit=[3, 60])
        project.run("t")
        until(lambda: project.ended() and project.status("t")["merged"], 90)
        assert rows(project) == list(range(6))
        assert all(project.started()[x] == 1 for x in range(6) if x != 4)
        last = project.submissions()[-1]
        assert (last["cause"], last["rung"], last["job"]["resources"]["timelimit"], last["job"]["n"]) == (
            "retried",
            1,
            60,
            1,
        )
        assert failures(project)[4][0][0] == "JobTimeLimit"
        assert project.result("t")["x"].tolist() == list(range(6))
        assert project.steps("t") == ["-- t:split", "-- t:merge"]


HUNGRY = """
    if x == 2:
        block = bytearray(os.urandom(1) * (200 << 20))
        if os.environ["PSYRUN_JOB"] in ("100001", "100002", "100003"):
            os.kill(os.getpid(), 9)
"""


class TestMemory:
    """The memory of a job."""

    def test_it_fails_with_the_numbers(self, project: QueueProject) -> None:
        """A process that is killed when it has as much as the job may use."""
        project.queued_task(n=4, max_jobs=2, body=HUNGRY, memory="150M")
        project.run("t")
        project.wait_ended()
        (told,) = failures(project)[2]
        assert told[0] == "OutOfMemory"
        assert " of the 150M " in told[1]
        assert "memory" in told[1]
        assert project.started() == dict.fromkeys(range(4), 1)
        assert project.run("wait", "t", status=1).stderr
        with np.load(project.path / "psy-work/t/result.npz") as result:
            assert result["x"].tolist() == [0, 1, 3]

    def test_a_ladder(self, project: QueueProject) -> None:
        """It is tried again with more by jobs of its own; the others are computed once."""
        project.queued_task(n=6, max_jobs=3, body=HUNGRY, memory=["150M", "1G"])
        project.run("t")
        until(lambda: project.ended() and project.status("t")["merged"], 60)
        assert project.started() == {x: 2 if x == 2 else 1 for x in range(6)}
        assert [(s["cause"], s["rung"], s["job"]["resources"]["memory"]) for s in project.submissions()] == [
            ("command", 0, 150),
            ("retried", 1, 1024),
        ]
        assert project.result("t")["x"].tolist() == list(range(6))

    def test_the_top_of_a_ladder(self, project: QueueProject) -> None:
        """There it fails for good, and a new command begins there, with no other item along."""
        body = HUNGRY.replace('in ("100001", "100002", "100003")', "!= '100006'")
        project.queued_task(n=6, max_jobs=3, body=body, memory=["150M", "200M"])
        project.run("t")
        until(lambda: project.ended() and len(project.submissions()) == 2, 60)
        assert [kind for kind, _ in failures(project)[2]] == ["OutOfMemory"] * 2
        told = project.status("t")
        assert (told["n_done"], told["n_failed"]) == (5, 1)
        project.run("t")
        project.wait_ended()
        assert [s["rung"] for s in project.submissions()] == [0, 1, 1]
        assert project.started()[2] == 3
        project.run("t")
        project.wait_ended()
        assert project.status("t")["complete"]
        assert project.started() == {x: 4 if x == 2 else 1 for x in range(6)}

    def test_jobs_of_one_rung_wait_for_nothing_of_another(self, project: QueueProject) -> None:
        """They end when their own items are in other hands, and leave their slots to the others."""
        body = """
            first = not os.path.exists("again")
            if first and x == 2:
                block = bytearray(os.urandom(1) * (200 << 20))
                os.kill(os.getpid(), 9)
            if first and x > 2:
                raise ValueError(x)
            while x == 3 and not os.path.exists("gate"): time.sleep(0.01)
        """
        project.queued_task(n=6, body=body, options="early_stop = False", memory=["150M", "200M"])
        project.run("t")
        until(lambda: project.ended() and len(project.submissions()) == 2, 60)
        project.slots(2)
        (project.path / "again").touch()
        project.run("t")
        until(lambda: project.jobs("QR") == project.jobs("R")[:1] and set(rows(project)) == {0, 1, 2, 4, 5}, 60)
        project.open_gate()
        project.wait_ended()
        assert project.status("t")["merged"]
        assert rows(project) == list(range(6))
