"""Queues that fail, commands that are killed while they submit: no job is lost, none is doubled."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from project import until
from queueproject import AT_GATE, QueueProject

pytestmark = pytest.mark.crash

COUNTED = """
echo x >> "$PROJECT/calls"
n=$(wc -l < "$PROJECT/calls")
"""
"""What makes a script in front of a program know how often it was called."""


LOST = """
"$REAL" "$@" > /dev/null
until ls psy-work/t/log/job-10000$n.log; do sleep 0.02; done > /dev/null 2>&1
rm -f files*/*.id"""
"""What gives a job to the queue, and loses its answer as soon as the job itself has it."""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


def completes(project: QueueProject, n: int, jobs: int) -> None:
    """All is done in so many jobs, each item once."""
    project.open_gate()
    project.wait_ended()
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert project.result("t")["x"].tolist() == list(range(n))
    assert project.started() == dict.fromkeys(range(n), 1)
    assert len(project.jobs()) == jobs


class TestRefused:
    """Sqsub fails."""

    def test_at_all(self, project: QueueProject) -> None:
        """Nothing is submitted; the message has the queue's words; the same command goes on later."""
        project.queued_task(n=6)
        project.in_front("sqsub", "echo 'sqsub: your account has expired' >&2; exit 1")
        told = project.run("t", status=75).stderr
        assert "your account has expired" in told
        project.as_it_was("sqsub")
        assert project.jobs() == []
        project.run("t")
        completes(project, 6, 6)

    def test_after_some(self, project: QueueProject) -> None:
        """Those that were taken are known, and their work is not submitted twice."""
        project.queued_task(n=12, body=AT_GATE)
        project.in_front("sqsub", f'{COUNTED}\n[ $n -le 2 ] && exec "$REAL" "$@"\necho "sqsub: too many" >&2; exit 1')
        told = project.run("t", status=None)
        assert "too many" in told.stderr
        assert len(project.jobs()) == 2
        project.as_it_was("sqsub")
        project.run("t")
        assert len(project.jobs()) == 6
        project.run("t")
        completes(project, 12, 6)

    def test_it_is_not_there(self, project: QueueProject) -> None:
        """A machine without the program."""
        project.queued_task(n=6)
        project.in_front("sqsub", "exit 127")
        (project.programs / "sqsub").unlink()
        told = project.run("t", status=2).stderr
        assert "there is no sqsub on this machine" in told
        assert not (project.path / "psy-work").exists()
        project.as_it_was("sqsub")
        project.run("t")
        completes(project, 6, 6)


class TestLostAnswers:
    """The queue took something, and nobody heard of it."""

    def test_they_are_adopted(self, project: QueueProject) -> None:
        """By the token in their names; only the others are submitted."""
        project.queued_task(n=12, body=AT_GATE)
        lost = f"[ $n = 3 ] && {{ {LOST}; echo 'connection lost' >&2; exit 1; }}"
        project.in_front("sqsub", f'{COUNTED}\n{lost}\nexec "$REAL" "$@"')
        told = project.run("t", status=75).stderr
        assert "connection lost" in told
        assert len(project.jobs()) == 3
        project.run("t")
        assert len(project.jobs()) == 6
        project.run("t")
        completes(project, 12, 6)


class TestSilence:
    """Sqjobs gives no answer."""

    @pytest.mark.parametrize(
        "script",
        [
            "echo 'cannot connect to server' >&2; exit 1",
            "echo '<html>gateway timeout</html>'; exit 0",
        ],
    )
    def test_nothing_is_submitted(self, project: QueueProject, script: str) -> None:
        """Nor is anything lost; what is known is told, and later the same command goes on."""
        project.queued_task(n=12, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 4)
        project.kill_jobs()
        project.in_front("sqjobs", script)
        told = project.run("t", status=75).stderr
        assert "sqjobs" in told
        assert len(project.jobs()) == 6
        assert "no answer" in project.run("status", "t").stdout
        assert project.status("t")["jobs"]["answered"] is False
        project.run("kill", "t", status=75)
        project.as_it_was("sqjobs")
        project.run("t")
        project.open_gate()
        project.wait_ended()
        project.run("t")
        project.wait_ended()
        assert project.steps("t") == ["-- t:split", "-- t:merge"]
        assert project.result("t")["x"].tolist() == list(range(12))

    def test_the_first_run_needs_no_answer(self, project: QueueProject) -> None:
        """Where nothing was ever submitted there is nothing to ask for."""
        project.queued_task(n=6)
        project.in_front("sqjobs", "exit 5")
        project.run("t")
        project.as_it_was("sqjobs")
        completes(project, 6, 6)


class TestKilledWhileItSubmits:
    """Kill -9 of the command."""

    @pytest.mark.parametrize(("number", "when"), [(1, "before"), (1, "between"), (3, "between"), (6, "after")])
    def test_around_sqsub(self, project: QueueProject, number: int, when: str) -> None:
        """Before the queue hears of a job; when it has it, and the number is not noted; when it has said so."""
        project.queued_task(n=12, body=AT_GATE)
        kill = {
            "before": "kill -9 $PPID; exit 1",
            "between": f"{LOST}; kill -9 $PPID; exit 0",
            "after": '"$REAL" "$@"; kill -9 $PPID; exit 0',
        }
        project.in_front("sqsub", f'{COUNTED}\n[ $n = {number} ] && {{ {kill[when]}; }}\nexec "$REAL" "$@"')
        assert project.run("t", status=None).returncode == -signal.SIGKILL
        taken = number - (when == "before")
        assert len(project.jobs()) == taken
        project.run("t")
        assert len(project.jobs()) == 6
        project.run("t")
        completes(project, 12, 6)

    def test_between_plan_and_note(self, project: QueueProject) -> None:
        """A plan without any submission gets its jobs by the next command."""
        project.queued_task(n=12, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 4)
        project.run("kill", "t")
        until(project.ended)
        shutil.rmtree(project.path / "psy-work/t/submit")
        (project.path / "starts").unlink()
        project.run("t")
        completes(project, 12, 12)

    @pytest.mark.parametrize("left", ["nothing", "a note that cannot be read", "half an answer"])
    def test_a_damaged_note(self, project: QueueProject, left: str) -> None:
        """Jobs that nobody knows of any more do no harm."""
        project.queued_task(n=12, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 4)
        (note,) = (project.path / "psy-work/t/submit").iterdir()
        if left == "nothing":
            shutil.rmtree(note)
        elif left == "half an answer":
            (note / "jobs.json").write_text('{"ids": ["1000')
        else:
            (note / "intent.json").write_text("{")
        project.kill_jobs()
        project.open_gate()
        project.run("t")
        project.wait_ended()
        project.run("t")
        project.wait_ended()
        assert project.steps("t") == ["-- t:split", "-- t:merge"]
        assert max(project.started().values()) <= 2


class TestAtOnce:
    """Several commands at the same moment."""

    def test_one_of_them_submits(self, project: QueueProject) -> None:
        """Never are there more jobs than max_jobs, nor is an item computed twice."""
        project.slots(0)
        names = [f"t{number}" for number in range(10)]
        for name in names:
            project.queued_task(name, n=4, max_jobs=2)
            commands = [project.start(name) for _ in range(2)]
            assert [command.wait(60) for command in commands] == [0, 0]
            assert len(project.jobs("Q", name)) == 2, name
        project.slots(4)
        project.wait_ended(120)
        assert project.started() == dict.fromkeys(range(4), len(names))
        assert all((project.path / f"psy-work/{name}/result.npz").exists() for name in names)

    def test_one_that_stands_still(self, project: QueueProject) -> None:
        """While somebody submits, others wait for the end of it, and find the jobs."""
        project.queued_task(n=8, max_jobs=4)
        still = '"$REAL" "$@"; touch two; kill -STOP $PPID; exit 0'
        project.in_front("sqsub", f'{COUNTED}\n[ $n = 2 ] && {{ {still}; }}\nexec "$REAL" "$@"')
        first = project.start("t")
        until((project.path / "two").exists)
        assert "are being submitted" in project.run("status", "t").stdout
        second = project.start("t")
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(1.5)
        first.send_signal(signal.SIGCONT)
        assert (first.wait(60), second.wait(60)) == (0, 0)
        completes(project, 8, 4)

    def test_kill_while_another_submits(self, project: QueueProject) -> None:
        """It waits until all are there, and ends all."""
        project.queued_task(n=8, max_jobs=4, body=AT_GATE)
        project.in_front("sqsub", '"$REAL" "$@"; touch one; sleep 0.2')
        first = project.start("t")
        until((project.path / "one").exists)
        project.run("kill", "t")
        assert first.wait(60) == 0
        project.wait_ended()
        assert len(project.jobs("K")) == 4
        assert project.held() == []


class TestForeign:
    """What else lies about."""

    def test_files_among_the_notes(self, project: QueueProject) -> None:
        """They are overlooked."""
        project.queued_task(n=4, max_jobs=2)
        place = project.path / "psy-work/t/submit"
        project.run("t", "--dry-run")
        project.run("t")
        project.wait_ended()
        (place / "README").write_text("mine")
        (place / "dir").mkdir()
        (place / ".nfs0001").write_text("")
        (place / "dir/intent.json").write_text("[]")
        (place / "other").mkdir()
        (place / "other/intent.json").write_text(json.dumps({"format": 1, "job": 3, "by": None}))
        project.status("t")
        project.run("kill", "t")
        project.queued_task(n=6, max_jobs=2)
        project.run("t")
        project.wait_ended()
        assert project.status("t")["merged"]
        assert sorted(path.name for path in place.iterdir() if path.name in ("README", "dir", "other"))

    def worker(self, project: QueueProject, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "psyrun.worker", *words]
        environment = project.environment(**extra)
        return subprocess.run(
            command, cwd=project.path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def test_workers_started_by_hand(self, project: QueueProject) -> None:
        """For a plan that is gone or over, or without the id of a job: they say so, or help, and do no harm."""
        project.queued_task(n=8, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 2)
        (note,) = (project.path / "psy-work/t/submit").iterdir()
        place = str(project.path / "psy-work/t")
        gone = self.worker(project, "--submission", note.name, place, "0007")
        assert gone.returncode == 75
        assert "Traceback" not in gone.stderr
        none = self.worker(project, "--submission", "no-such-0", place, "0001")
        assert none.returncode == 75
        assert "Traceback" not in none.stderr
        idle = self.worker(project, "--submission", note.name, place, "0001")
        assert idle.returncode == 0
        assert len(project.held()) == 2
        project.open_gate()
        project.wait_ended()
        late = self.worker(project, "--submission", note.name, place, "0001")
        assert late.returncode == 0
        assert project.steps("t") == ["-- t:split", "-- t:merge"]
        assert project.started() == dict.fromkeys(range(8), 1)
