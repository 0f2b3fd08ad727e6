"""What is left when jobs end in an odd order: somebody sees to it, or the next command does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from invariants import assert_complete
from project import until
from queueproject import AT_GATE, QueueProject

pytestmark = pytest.mark.kill


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


def lose(project: QueueProject, *jobs: int) -> None:
    """Kill jobs together with their machine."""
    for job in jobs:
        project.elsewhere(job)
    project.kill_jobs(jobs)
    until(lambda: not set(jobs) & set(project.jobs("R")))


class TestLostTwice:
    """Machines that are lost again and again."""

    def test_the_jobs_of_two_submissions(self, project: QueueProject) -> None:
        """What the first ones held counts as running no more, also when nobody asks the queue for them again."""
        project.queued_task(n=6, max_jobs=2, body=AT_GATE)
        for _ in range(2):
            project.run("t", PSYRUN_TTL="600")
            until(lambda: len(project.held()) == 2)
            lose(project, *project.jobs("R"))
        assert project.status("t")["n_running"] == 0
        project.open_gate()
        assert ".  t:process:0-1" in project.steps("t")
        project.wait_ended()
        assert_complete(project, 6)
        assert project.status("t")["merged"]

    def test_a_heartbeat_of_a_lost_job_keeps_nobody_from_going_on(self, project: QueueProject) -> None:
        """The others took over what it held, and submit what is left when their time is over."""
        project.queued_task(n=24, max_jobs=2, body="time.sleep(0.4)", timelimit=6)
        project.run("t", PSYRUN_TTL="12")
        until(lambda: len(project.held()) == 2)
        lose(project, project.jobs("R")[0])
        until(lambda: project.ended() and project.status("t")["merged"], 90)
        assert_complete(project, 24)


class TestOlderPlans:
    """Jobs of a plan that is not the newest any more."""

    @pytest.mark.parametrize("n", [4, 12])
    def test_the_last_of_them_merges(self, project: QueueProject, n: int) -> None:
        """Where the jobs of the newest plan, if there are any, were done before."""
        body = "while x < 8 and not os.path.exists('gate'): time.sleep(0.01)"
        project.queued_task(n=8, max_jobs=2, body=body)
        project.run("t")
        until(lambda: len(project.held()) == 2)
        project.queued_task(n=n, max_jobs=2, body=body)
        if n < 8:
            project.run("t")
        else:
            project.slots(8)
            # What was open of the first plan is in the second.
            project.run("t")
        until(lambda: not project.held())
        project.open_gate()
        project.wait_ended()
        assert project.status("t")["merged"], "nobody merged"
        assert_complete(project, n)

    def test_of_one_that_cannot_be_read(self, project: QueueProject) -> None:
        """What its jobs have in hand is not known: the command says so, and does not wait for hours."""
        project.queued_task(n=8, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 2)
        (project.path / "psy-work/t/plan/0001/plan.json").write_text("{")
        told = project.run("t", status=75).stderr
        assert "psy-doit wait t" in told
        assert "psy-doit kill t" in told
        project.open_gate()
        project.wait_ended()
        project.run("t")
        project.wait_ended()
        assert_complete(project, 8)
        assert project.started() == dict.fromkeys(range(8), 1)

    def test_the_scheduler_changes(self, project: QueueProject) -> None:
        """A run on this machine works along with the jobs, and merges."""
        project.queued_task(n=8, max_jobs=2, body="while x < 4 and not os.path.exists('gate'): time.sleep(0.01)")
        project.run("t")
        until(lambda: len(project.held()) == 1 and project.status("t")["n_done"] == 4)
        path = project.tasks / "task_t.py"
        local = "import psyrun; scheduler = psyrun.Multiprocessing(2)"
        text = path.read_text().replace('scheduler = Sqsub("files of the queue")', local)
        path.write_text(text.replace("scheduler_args = ", "scheduler_args = {} and "))
        command = project.start("t")
        project.open_gate()
        assert command.wait(60) == 0
        project.wait_ended()
        assert_complete(project, 8)
        assert project.started() == dict.fromkeys(range(8), 1)

    def test_who_waits_for_what_they_held_can_be_told_to_stop(self, project: QueueProject) -> None:
        """Else it would begin to compute, or submit, after the user cancelled all."""
        project.queued_task(n=2, max_jobs=2, body="while x == 0 and not os.path.exists('gate'): time.sleep(0.01)")
        project.slots(1)
        project.run("t", PSYRUN_TTL="600")
        until(lambda: len(project.held()) == 1)
        (job,) = project.jobs("R")
        lose(project, job)
        project.slots(1)
        until(lambda: 1 in project.started())
        (other,) = project.jobs("R")
        with pytest.raises(AssertionError):
            until(project.ended, 2)
        os.kill(project.job_pid(other), signal.SIGTERM)
        until(project.ended, 10)
        assert len(project.submissions()) == 1


class TestLastWorker:
    """What the last one does where the queue does not help."""

    def test_it_merges_all_the_same(self, project: QueueProject) -> None:
        """Machines that compute may have no leave to ask the queue, or to submit."""
        body = "if x == 3: raise MemoryError('too little')"
        project.queued_task(n=4, max_jobs=2, body=body, options="early_stop = False", memory=["1G", "2G"])
        refused = '[ -n "$PSYRUN_JOB" ] && { echo \'not from here\' >&2; exit 1; }\nexec "$REAL" "$@"'
        for program in ("sqsub", "sqjobs", "sqkill"):
            project.in_front(program, refused)
        project.run("t")
        project.wait_ended()
        told = project.status("t")
        assert (told["n_done"], told["n_failed"], told["merged"]) == (3, 1, True)
        project.run("t")
        project.wait_ended()
        assert [s["rung"] for s in project.submissions()] == [0, 1]

    def test_a_chunk_of_an_older_plan_that_may_be_held(self, project: QueueProject) -> None:
        """Who left it, on a machine that cannot be seen from here, keeps nobody from the merge."""
        project.queued_task(n=4, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 2)
        project.kill_jobs()
        until(project.ended)
        project.slots(0)
        project.run("t")
        for beat in (project.path / "psy-work/t/beat").glob("[0-9a-f]*"):
            told = {"host": "another", "boot": "another", "job": "", "token": ""}
            beat.write_text(json.dumps(json.loads(beat.read_text()) | told))
        project.open_gate()
        project.slots(2)
        project.wait_ended()
        assert project.status("t")["merged"]
        assert_complete(project, 4)

    def test_time_is_over_where_it_may_not_submit(self, project: QueueProject) -> None:
        """What is finished is merged; the next command goes on."""
        project.queued_task(n=40, max_jobs=1, body="time.sleep(0.3)", timelimit=2)
        refused = '[ -n "$PSYRUN_JOB" ] && { echo \'not from here\' >&2; exit 1; }\nexec "$REAL" "$@"'
        project.in_front("sqsub", refused)
        project.run("t")
        project.wait_ended()
        told = project.status("t")
        assert (told["merged"], told["complete"]) == (True, False)
        with np.load(project.path / "psy-work/t/result.npz") as result:
            assert told["n_done"] == len(result["x"]) > 0

    def test_jobs_of_an_older_plan_leave_the_result_alone(self, project: QueueProject) -> None:
        """It is merged; each of them would do it again."""
        project.slots(0)
        project.queued_task(n=2, max_jobs=1)
        project.run("t")
        project.queued_task(n=4, max_jobs=1)
        project.run("t")
        project.slots(1)
        project.wait_ended()
        assert_complete(project, 4)
        result = (project.path / "psy-work/t/result.npz").stat()
        old = project.submissions()[0]
        environment = project.environment(PSYRUN_JOB="100001")
        subprocess.run(old["job"]["command"], cwd=project.path, env=environment, check=True, capture_output=True)
        assert (project.path / "psy-work/t/result.npz").stat() == result

    def test_jobs_that_it_cannot_cancel(self, project: QueueProject) -> None:
        """They find nothing to do."""
        project.slots(1)
        project.queued_task(n=4, max_jobs=4)
        project.in_front("sqkill", "echo 'sqkill: not now' >&2; exit 1")
        project.run("t")
        project.wait_ended()
        assert_complete(project, 4)
        assert project.started() == dict.fromkeys(range(4), 1)


class TestMerging:
    """The last job is killed while it merges."""

    def test_the_next_command_merges(self, project: QueueProject) -> None:
        """Nothing is computed, nothing submitted."""
        project.queued_task(n=4, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 2)
        marker = project.plan().path / "merging"
        marker.touch()  # as if the one that merges was killed just then
        project.open_gate()
        project.wait_ended()
        assert not project.status("t")["merged"]
        assert project.steps("t") == ["-- t:split", ".  t:merge"]
        assert_complete(project, 4)
        assert len(project.jobs()) == 2

    def test_all_workers_killed_when_all_is_done(self, project: QueueProject) -> None:
        """As before; the signal goes to whoever is left."""
        project.queued_task(n=2, max_jobs=1)
        project.run("t")
        until(lambda: project.status("t")["n_done"] == 2)
        for job in project.jobs("R"):
            try:
                os.kill(project.job_pid(job), signal.SIGKILL)
            except ProcessLookupError:
                continue
        project.wait_ended()
        project.run("t")
        assert_complete(project, 2)
        assert project.started() == {0: 1, 1: 1}
