"""Guests beside jobs of a queue: whoever leaves last, the run is finished and merged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from project import PSY_DOIT, descendants, until
from psyrun.claims import HELD
from queueproject import AT_GATE, QueueProject

GUEST_WAITS = """while os.environ.get("GUEST") and not os.path.exists("gate"): time.sleep(0.01)
time.sleep({})"""
"""An item that a guest has in hand until the gate is open, and a job for some seconds."""

LOCAL_TASK = """
    import os, time
    from psyrun import Param

    pspace = Param(x=[0])

    def execute(x):
        open("second", "w").close()
        while not os.path.exists("gate"): time.sleep(0.01)
        return {"y": x}
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path, slots=1)
    yield project
    project.close()


def start_guest(project: QueueProject, *words: str) -> subprocess.Popen[str]:
    """Start a guest, and return it when it has an item in hand."""
    command = [PSY_DOIT, "work", "t", *words]
    environment = project.environment(GUEST="1")
    guest = subprocess.Popen(command, cwd=project.path, env=environment, stderr=subprocess.PIPE, text=True)
    until(lambda: guest_beats(project))
    return guest


def guest_beats(project: QueueProject) -> list[Path]:
    """Return the heartbeats of guests that have an item in hand."""
    found = []
    for path in (project.path / "psy-work/t/beat").glob("[0-9a-f]*"):
        with suppress(FileNotFoundError):
            told = json.loads(path.read_text())
            found += [path] if not told["job"] and told.get("hand") else []
    return found


def vanish(project: QueueProject, guest: subprocess.Popen[str]) -> None:
    """Kill a guest that has one item in hand, and have its heartbeat say that it ran on another machine."""
    until(lambda: [len(token) for token in project.plan().claims().tokens(HELD) if not token.epoch] == [1])
    (beat,) = guest_beats(project)
    pids = [guest.pid, *descendants(guest.pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    guest.communicate()
    beat.write_text(json.dumps(json.loads(beat.read_text()) | {"host": "another", "boot": "another"}))


def causes(project: QueueProject) -> list[str]:
    """Return why each submission was made."""
    return [submission["cause"] for submission in project.submissions()]


def log_of(project: QueueProject, job: int) -> str:
    """Return what a job printed, '' before it starts."""
    path = project.path / f"psy-work/t/log/job-{job}.log"
    return path.read_text() if path.exists() else ""


class TestTimeIsOver:
    """The time of the jobs ends while a guest is there."""

    def test_the_run_goes_on_by_itself(self, project: QueueProject) -> None:
        """With jobs for what is open, as if there were no guest; the one that has the last item merges."""
        project.queued_task(n=24, max_jobs=1, body=GUEST_WAITS.format(0.2), timelimit=3, options="resubmit = 9")
        project.run("t")
        until(lambda: len(project.starts()) > 2)
        guest = start_guest(project, "--items", "1")
        until(lambda: project.ended() and project.status("t")["n_done"] == 23)
        assert set(causes(project)[1:]) == {"continued"}
        n = len(causes(project))
        assert "guests have all that is left" in log_of(project, 100000 + n)
        project.open_gate()
        guest.communicate(timeout=60)
        assert project.status("t")["merged"]
        assert len(causes(project)) == n
        assert project.started() == dict.fromkeys(range(24), 1)

    def test_a_guest_whose_heart_stands_still(self, project: QueueProject) -> None:
        """Another job waits until it is dead for sure; but not again and again."""
        project.slots(0)
        project.queued_task(n=4, max_jobs=1, body=GUEST_WAITS.format(0), timelimit=3, options="resubmit = 9")
        project.run("t", PSYRUN_TTL="60")
        vanish(project, start_guest(project, "--items", "1"))
        project.slots(1)
        project.wait_ended()
        assert causes(project) == ["command", "continued"]
        assert "no item was finished since the last submission" in log_of(project, 100002)
        assert (project.status("t")["n_done"], project.status("t")["merged"]) == (3, True)


class TestLostGuest:
    """A guest is killed with an item in hand."""

    def test_jobs_wait_until_it_is_dead(self, project: QueueProject) -> None:
        """They do what it had, and merge."""
        project.slots(0)
        project.queued_task(n=6, max_jobs=2, body=GUEST_WAITS.format(0))
        project.run("t")
        vanish(project, start_guest(project, "--items", "1"))
        project.slots(2)
        project.wait_ended()
        assert project.status("t")["n_done"] == 6
        assert project.status("t")["merged"]
        assert causes(project) == ["command"]

    def test_they_do_not_wait_for_one_that_beats(self, project: QueueProject) -> None:
        """It merges when it leaves."""
        project.slots(0)
        project.queued_task(n=6, max_jobs=2, body=GUEST_WAITS.format(0))
        project.run("t")
        guest = start_guest(project, "--items", "1")
        project.slots(2)
        project.wait_ended()
        assert not project.status("t")["merged"]
        project.open_gate()
        guest.communicate(timeout=60)
        assert project.status("t")["merged"]
        assert project.started() == dict.fromkeys(range(6), 1)


def test_rows_that_come_after_an_early_stop(project: QueueProject) -> None:
    """A job whose items fail alike merges what there is; one that starts later merges what it finished."""
    body = 'time.sleep(0.1)\nif os.environ["SQ_JOBID"] == "100001": raise ValueError("no disk")'
    project.slots(2)
    late = "prologue = ['test $SQ_JOBID = 100001 || until test -e gate; do sleep 0.05; done']"
    project.queued_task(n=16, max_jobs=2, body=body, options=late)
    project.run("t")
    until(lambda: "merged" in log_of(project, 100001))
    project.open_gate()
    project.wait_ended()
    found = project.status("t")
    assert found["n_done"] >= 8
    assert found["merged"]
    with pytest.warns(UserWarning, match=f"{found['n_done']} of 16 items"):
        assert len(project.result("t")["y"]) == found["n_done"]


def test_grow_many_times_at_once(project: QueueProject) -> None:
    """Each command gives the jobs that it was asked for."""
    project.queued_task(n=40, max_jobs=1, body=AT_GATE)
    project.run("t")
    until(project.starts)
    commands = [project.start("grow", "t", "--jobs", "2") for _ in range(4)]
    assert [command.wait(60) for command in commands] == [0] * 4
    assert causes(project) == ["command"] + ["grown"] * 4
    assert len(project.jobs()) == 9


class TestGuestDoesAll:
    """Jobs wait in the queue while a guest computes everything."""

    def test_while_the_command_is_at_another_task(self, project: QueueProject) -> None:
        """It merges: the command only gave the jobs to the queue."""
        project.slots(0)
        project.queued_task(n=4, max_jobs=2)
        project.task("u", LOCAL_TASK)
        command = project.start("t", "u")
        until((project.path / "second").exists)
        told = project.run("work", "t").stderr
        assert "4 of 4 items done" in told
        assert "at work" not in told
        assert (project.path / "psy-work/t/result.npz").exists()
        project.open_gate()
        assert command.wait(60) == 0

    def test_a_command_that_merges_cancels_the_jobs(self, project: QueueProject) -> None:
        """They would find nothing to do; a guest, which speaks with no queue, has done it all."""
        project.slots(0)
        project.queued_task(n=4, max_jobs=2)
        project.run("t")
        project.run("work", "t")
        (project.path / "psy-work/t/result.npz").unlink()
        assert len(project.jobs("Q")) == 2
        told = project.run("t")
        assert "nothing is left for 2 of the jobs; cancelled" in told.stdout + told.stderr
        assert project.jobs("QR") == []
        assert project.status("t")["merged"]
