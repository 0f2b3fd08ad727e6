"""Runs that several queues serve: whichever has room first computes, and nothing is left in the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from project import until
from psyrun.jobfindings import JOB
from queueproject import AT_GATE, QueueProject
from twoqueues import TwoQueues


@pytest.fixture
def project(tmp_path: Path) -> Iterator[TwoQueues]:
    """Return a project with two queues, ended after the test."""
    project = TwoQueues(tmp_path)
    yield project
    project.close()


def foreign(queue: QueueProject) -> int:
    """Have a job in a queue that waits, and is none of ours."""
    slots = (queue.queue / "slots").read_text()
    queue.slots(0)
    before = set(queue.jobs())
    queue.command("sqsub", "-r", "10m", "-j", "psy:0123-0:mine", "-o", "/dev/null", "sleep", "1000")
    queue.slots(int(slots))
    (job,) = set(queue.jobs()) - before
    return job


def completes(project: TwoQueues, n: int) -> None:
    """All is done, each item once, and nothing is left in either queue."""
    project.open_gate()
    project.wait_ended()
    assert project.status("t")["merged"], "the last job did not merge"
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert project.result("t")["x"].tolist() == list(range(n))
    assert project.started() == dict.fromkeys(range(n), 1)


class TestWholeRun:
    """From the first command to the last."""

    def test_both_compute(self, project: TwoQueues) -> None:
        """Each gets as many jobs as it would alone, and typed again, neither gets more; each item is computed once."""
        project.task_in_both(n=24, body=AT_GATE)
        assert project.steps("t") == [".  t:split", ".  t:process:0-11"]
        assert len(project.near.jobs()) == len(project.far.jobs()) == 6
        until(lambda: len(project.held()) == 6)
        assert project.steps("t") == ["-- t:split"]
        told = project.run("status", "t").stdout
        assert f"in Emulated(workdir='files-near', place='{project.path}/near'): 4 running" in told
        assert f"in Emulated(workdir='files-far', place='{project.path}/far')" in told
        queues = {job["queue"] for job in project.status("t")["jobs"]["alive"]}
        assert len(queues) == 2
        completes(project, 24)
        assert len(project.near.jobs()) == len(project.far.jobs()) == 6

    @pytest.mark.parametrize("full", ["near", "far"])
    def test_one_is_full(self, project: TwoQueues, full: str) -> None:
        """The other does all; what waits is taken from the queue at the end, and what belongs to others stays."""
        there = getattr(project, full)
        there.slots(0)
        others = [foreign(project.near), foreign(project.far)]
        project.task_in_both(n=12)
        project.run("t")
        completes(project, 12)
        assert len(there.jobs("K", "t")) == 6
        assert "nothing is left for jobs" in project.log()
        assert others[0] in project.near.jobs("QR")
        assert others[1] in project.far.jobs("QR")

    def test_what_starts_late_leaves_at_once(self, project: TwoQueues) -> None:
        """A job that finds all chunks in other hands ends, and does not merge what is not done."""
        project.far.slots(0)
        project.task_in_both(n=4, max_jobs=4, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 4)
        project.far.slots(4)
        until(lambda: not project.far.jobs("QR", "t"))
        assert len(project.far.jobs("D")) == 4
        assert len(project.near.jobs("R")) == 4
        completes(project, 4)

    def test_what_each_asks_for(self, project: TwoQueues) -> None:
        """Its own arguments on top of those of the task; --dry-run shows both and submits nothing."""
        project.task_in_both("", ", partition='long', memory='1G'", n=2, max_jobs=2, memory="512M")
        shown = project.run("t", "--dry-run").stdout
        assert "# Emulated(workdir='files-near'" in shown
        assert "partition='long'" in shown
        assert shown.count("2 x sqsub") == 2
        assert "--mpp=1024M -q long" in shown
        assert "--mpp=512M -j" in shown
        assert not project.near.jobs() + project.far.jobs()
        project.run("t")
        names = [json.loads(p.read_text())["queue"] for p in sorted((project.far.queue / "jobs").glob("*.json"))]
        assert names == ["long", "long"]
        completes(project, 2)
        assert [s["job"]["resources"]["memory"] for s in project.submissions()] == [512, 1024]

    def test_the_time_is_over(self, project: TwoQueues) -> None:
        """The run goes on in the queue where jobs ended; what waits in the other neither stops that nor stays."""
        project.far.slots(0)
        project.task_in_both(n=12, max_jobs=2, body="time.sleep(0.5)", timelimit=3)
        project.run("t")
        project.wait_ended(90)
        assert project.status("t")["merged"]
        notes = [(s["cause"], "far" in s["scheduler"]["called"]) for s in project.submissions()]
        assert notes[:2] == [("command", False), ("command", True)]
        assert set(notes[2:]) == {("continued", False)}
        assert len(project.far.jobs("K")) == 2

    def test_it_goes_on_in_both(self, project: TwoQueues) -> None:
        """Where jobs of both ended before all was done, both get new ones."""
        project.task_in_both(n=24, max_jobs=2, body="time.sleep(0.5)", timelimit=2)
        project.run("t")
        project.wait_ended(90)
        assert project.status("t")["merged"]
        queues = {s["scheduler"]["called"] for s in project.submissions() if s["cause"] == "continued"}
        assert len(queues) == 2

    def test_a_ladder_that_one_of_them_has(self, project: TwoQueues) -> None:
        """What needs more goes to the queue that offers it."""
        options = "from psyrun.memory import OUT_OF_MEMORY"
        body = "if x == 2 and os.environ['PSYRUN_JOB'] and not os.path.exists('tried'):\n"
        body += "    open('tried', 'w').close(); raise MemoryError"
        project.task_in_both("", ", memory=['1G', '4G']", n=4, max_jobs=2, memory="512M", body=body, options=options)
        project.run("t")
        until(lambda: project.ended() and project.status("t")["merged"], 90)
        last = project.submissions()[-1]
        assert (last["cause"], last["rung"], last["job"]["resources"]["memory"]) == ("retried", 1, 4096)
        assert [s["rung"] for s in project.submissions()] == [0, 0, 1]


class TestOtherCommands:
    """What is typed meanwhile."""

    def test_kill(self, project: TwoQueues) -> None:
        """It ends the jobs in both queues, and no others."""
        others = [foreign(project.near), foreign(project.far)]
        project.far.slots(0)
        project.task_in_both(n=12, body=AT_GATE)
        project.run("t")
        until(lambda: project.held())
        assert "cancelled" in project.run("kill", "t").stdout
        until(project.ended)
        assert others[0] in project.near.jobs("QR")
        assert others[1] in project.far.jobs("QR")
        (project.path / "starts").unlink()
        project.far.slots(4)
        project.run("t")
        completes(project, 12)

    def test_kill_where_one_gives_no_answer(self, project: TwoQueues) -> None:
        """What can be cancelled is; the other is told, and cancelled when it answers again."""
        project.far.slots(0)
        project.task_in_both(n=12, body=AT_GATE)
        project.run("t")
        project.far.broken("cannot connect")
        told = project.run("kill", "t", status=75)
        assert "cancelled" in told.stdout
        assert "cannot connect" in told.stderr
        until(lambda: not project.near.jobs("QR", "t"))
        project.far.broken()
        assert len(project.far.jobs("Q", "t")) == 6
        project.run("kill", "t")
        assert len(project.far.jobs("K", "t")) == 6

    def test_topping_up(self, project: TwoQueues) -> None:
        """A queue gets more where some of its own are gone, whatever the other has."""
        project.near.slots(0)
        project.far.slots(0)
        project.task_in_both(n=12)
        project.run("t")
        project.near.command("sqkill", *map(str, project.near.jobs()[:4]))
        assert project.steps("t") == ["-- t:split", ".  t:process:0-3"]
        assert len(project.near.jobs("Q")) == 6
        assert len(project.far.jobs()) == 6
        project.far.slots(4)
        completes(project, 12)
        assert len(project.near.jobs("K")) == 10

    def test_a_queue_that_is_added_while_jobs_wait(self, project: TwoQueues) -> None:
        """It joins in, and the run is the same."""
        project.near.slots(0)
        lines = ["from emulated import Emulated", f"scheduler = {project.scheduler('near')}"]
        project.queued_task(n=12, options="\n".join(lines))
        project.run("t")
        project.task_in_both(n=12)
        assert project.steps("t") == ["-- t:split", ".  t:process:0-5"]
        completes(project, 12)
        assert len(project.near.jobs("K")) == len(project.far.jobs("D") + project.far.jobs("K")) == 6

    def test_doctor_and_clean(self, project: TwoQueues) -> None:
        """Each queue gets a job that tells of it; clean refuses while one of them has jobs."""
        project.task_in_both(n=4)
        told = json.loads(project.run("doctor", "--json", "t").stdout)["findings"]
        assert [finding["level"] for finding in told if finding["check"] == JOB] == ["ok", "ok"]
        assert len(project.near.jobs()) == len(project.far.jobs()) == 1
        project.near.broken("cannot connect")
        project.far.slots(0)
        project.run("t")
        assert "has jobs in the queue" in project.run("clean", "t", "--yes", status=4).stderr
        project.near.broken()
        project.far.slots(4)
        completes(project, 4)


class TestFaults:
    """One of the queues is of no use."""

    def test_one_gives_no_answer(self, project: TwoQueues) -> None:
        """Nothing more is submitted to it, and what it has may be there; the other goes on, and it is told."""
        for queue in (project.near, project.far):
            queue.slots(0)
        project.task_in_both(n=12)
        project.run("t")
        project.near.command("sqkill", *map(str, project.near.jobs()[:2]))
        project.far.command("sqkill", *map(str, project.far.jobs()[:2]))
        project.far.broken("cannot connect")
        told = project.run("t").stderr
        assert "gets no jobs: sqjobs: " in told
        assert "cannot connect" in told
        assert (len(project.near.jobs()), len(project.far.jobs())) == (8, 6)
        shown = project.run("status", "t").stdout
        assert f"Emulated(workdir='files-far', place='{project.path}/far') gives no answer" in shown
        assert "): 4 queued" in shown
        assert "): 2 queued" in shown
        assert not project.status("t")["jobs"]["answered"]
        project.near.slots(4)
        until(lambda: not project.near.jobs("QR"))
        assert "cannot be cancelled" in project.log()
        project.far.broken()
        project.far.slots(4)
        completes(project, 12)

    def test_none_gives_an_answer(self, project: TwoQueues) -> None:
        """Nothing is submitted, and the exit status says to try again."""
        project.near.slots(0)
        project.far.slots(0)
        project.task_in_both(n=12)
        project.run("t")
        project.near.broken("down here")
        project.far.broken("down there")
        told = project.run("t", status=75).stderr
        assert "down here" in told
        assert len(project.near.jobs() + project.far.jobs()) == 12
        for queue in (project.near, project.far):
            queue.broken()
            queue.slots(4)
        completes(project, 12)

    @pytest.mark.parametrize("which", ["near", "far"])
    def test_one_refuses(self, project: TwoQueues, which: str) -> None:
        """The other gets its jobs, and people are told; it is an error only if none takes any."""
        there, other = (project.near, project.far) if which == "near" else (project.far, project.near)
        (there.queue / "refuses").touch()
        project.task_in_both(n=12)
        told = project.run("t").stderr
        assert "took no jobs: no such queue" in told
        assert "submitted 6 jobs" in told
        assert there.jobs() == []
        completes(project, 12)
        assert len(other.jobs()) == 6

    def test_both_refuse(self, project: TwoQueues) -> None:
        """That is an error of the task file."""
        for queue in (project.near, project.far):
            (queue.queue / "refuses").touch()
        project.task_in_both(n=12)
        assert "no such queue" in project.run("t", status=2).stderr
        for queue in (project.near, project.far):
            (queue.queue / "refuses").unlink()
        project.run("t")
        completes(project, 12)

    def test_one_may_have_taken_jobs_without_a_word(self, project: TwoQueues) -> None:
        """The other gets its jobs all the same; the next command finds what is there, and submits nothing twice."""
        project.far.slots(0)
        project.near.slots(0)
        project.far.in_front("sqsub", '"$REAL" "$@" > /dev/null; rm -f files-far/*.id; exit 1')
        project.task_in_both(n=4, max_jobs=2)
        assert "took no jobs" in project.run("t").stderr
        project.far.as_it_was("sqsub")
        assert (len(project.near.jobs()), len(project.far.jobs())) == (2, 1)
        project.run("t")
        assert (len(project.near.jobs()), len(project.far.jobs())) == (2, 2)
        project.near.slots(4)
        completes(project, 4)

    def test_a_class_that_the_task_file_defines(self, project: TwoQueues) -> None:
        """Jobs load the task file to speak with such a queue: they submit there again, and cancel there."""
        project.far.slots(0)
        near, far = (project.scheduler(name).replace("Emulated", "Own") for name in ("near", "far"))
        lines = ["from emulated import Emulated", "class Own(Emulated): pass", f"scheduler = [{near}, {far}]"]
        project.queued_task(n=12, max_jobs=2, body="time.sleep(0.5)", timelimit=3, options="\n".join(lines))
        project.run("t")
        project.wait_ended(90)
        assert project.status("t")["merged"]
        assert "continued" in [s["cause"] for s in project.submissions()]
        assert len(project.far.jobs("K")) == 2


MORE = """
from pathlib import Path
from psyrun.queued import QueuedRun
from psyrun.run import Choices
from psyrun.tasks import load_task

task = load_task("t", Path("psy-tasks").absolute())
run = QueuedRun(task, Choices(), task.scheduler)
run.prepare()
assert run.joins
run.submit_more({})
print(len(run.submitted))
"""


@pytest.mark.parametrize(("words", "near", "far"), [("3", 5, 5), ("3, run.queues[1:]", 2, 5)])
def test_more_jobs_than_there_would_be(project: TwoQueues, words: str, near: int, far: int) -> None:
    """A caller may ask for more jobs of the newest plan, in all queues or in some."""
    project.far.slots(0)
    project.task_in_both(n=12, max_jobs=2, body=AT_GATE)
    project.run("t")
    assert project.python(MORE.format(words)) == f"{near + far - 4}\n"
    assert (len(project.near.jobs()), len(project.far.jobs())) == (near, far)
    completes(project, 12)
