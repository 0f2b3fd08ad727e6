"""Runs whose items are computed by jobs of a queue: submitted once, followed, merged by the last job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from project import until
from queueproject import AT_GATE, QueueProject


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


FAILING = """
    if x % 4 == 1 and not os.path.exists("mended"):
        raise ValueError(f"x is {x}")
"""


def files_of(project: QueueProject) -> dict[str, float]:
    """Return what there is in the work directories, and when it was changed."""
    found = (path for path in (project.path / "psy-work").rglob("*") if "beat" not in path.parts)
    return {str(path): path.lstat().st_mtime_ns for path in sorted(found)}


class TestWholeRun:
    """From the first command to the last."""

    def test_it_submits_and_returns(self, project: QueueProject) -> None:
        """The command is done when the queue has the jobs; typed again it submits nothing, whether they wait or run."""
        project.slots(0)
        project.queued_task(n=24, body=AT_GATE)
        assert project.steps("t") == [".  t:split", ".  t:process:0-5"]
        assert len(project.jobs("Q")) == 6
        assert project.steps("t") == ["-- t:split"]
        project.slots(4)
        until(lambda: len(project.starts()) >= 4)
        told = project.run("t")
        assert told.stdout == "-- t:split\n"
        assert "jobs 100001, " in told.stderr
        assert len(project.jobs()) == 6
        project.open_gate()
        project.wait_ended()

        assert (project.path / "psy-work/t/result.npz").exists(), "the last job did not merge"
        assert project.steps("t") == ["-- t:split", "-- t:merge"]
        result = project.result("t")
        assert result["x"].tolist() == list(range(24))
        assert result["y"].tolist() == [x * x for x in range(24)]
        assert project.started() == dict.fromkeys(range(24), 1)

    def test_more_jobs_than_slots(self, project: QueueProject) -> None:
        """Jobs that find nothing left are harmless, whether they are cancelled or start all the same."""
        project.slots(1)
        project.queued_task(n=12, max_jobs=12)
        project.run("t")
        project.wait_ended()
        assert project.started() == dict.fromkeys(range(12), 1)
        assert project.status("t")["merged"]

    def test_each_job_runs_several_items_at_a_time(self, project: QueueProject) -> None:
        """As many as pool_size says."""
        project.queued_task(n=4, max_jobs=1, body=AT_GATE, options="pool_size = 4")
        project.run("t")
        until(lambda: len(project.starts()) == 4)
        project.open_gate()
        project.wait_ended()
        assert project.status("t")["complete"]

    def test_nothing_of_it_needs_the_directory_that_it_was_typed_in(self, project: QueueProject) -> None:
        """Names with spaces, quotes and more are words as any other."""
        place = project.path / "it's; a 'place' $HOME"
        place.mkdir()
        other = QueueProject(place)
        try:
            other.queued_task(n=3, max_jobs=2)
            other.run("t")
            other.wait_ended()
            assert other.status("t")["merged"]
        finally:
            other.close()

    def test_several_tasks_at_once(self, project: QueueProject) -> None:
        """Each has jobs of its own."""
        project.queued_task("a", n=3, max_jobs=2)
        project.queued_task("b", n=3, max_jobs=3)
        assert project.steps("a", "b") == [".  a:split", ".  a:process:0-1", ".  b:split", ".  b:process:0-2"]
        project.wait_ended()
        assert project.status("a")["merged"]
        assert project.status("b")["merged"]

    def test_one_job(self, project: QueueProject) -> None:
        """The step is named by its number."""
        project.queued_task(n=1)
        assert project.steps("t") == [".  t:split", ".  t:process:0"]
        project.wait_ended()
        assert project.status("t")["merged"]

    def test_an_empty_space(self, project: QueueProject) -> None:
        """Nothing is submitted, and the result is there at once."""
        project.queued_task(n=0)
        assert project.steps("t") == [".  t:split", ".  t:merge"]
        assert project.jobs() == []
        assert project.status("t")["merged"]
        assert project.steps("t") == ["-- t:split", "-- t:merge"]

    def test_many_workers_on_this_machine_are_not_taken(self, project: QueueProject) -> None:
        """-n is not for queues: the message says what is."""
        project.queued_task()
        told = project.run("t", "-n", "2", status=2).stderr
        assert "max_jobs" in told
        assert "pool_size" in told
        assert project.jobs() == []


class TestWhileJobsWork:
    """What other commands do and say meanwhile."""

    def test_they_tell_and_change_nothing(self, project: QueueProject) -> None:
        """Status, plan, --dry-run and load."""
        body = "while x >= 6 and not os.path.exists('gate'): time.sleep(0.01)"
        project.queued_task(n=12, max_jobs=12, body=body)
        before = project.run("t", "--dry-run")
        assert "12 x sqsub" in before.stdout
        assert not project.jobs()
        assert not (project.path / "psy-work").exists()
        project.run("t")
        until(lambda: project.status("t")["n_done"] >= 6 and len(project.held()) >= 4)
        files = files_of(project)
        told = project.status("t")
        assert told["jobs"]["answered"]
        assert told["jobs"]["counts"]["running"] == 4
        assert {job["id"] for job in told["jobs"]["alive"]} >= {str(job) for job in project.jobs("R")}
        assert "running" in project.run("status", "t").stdout
        assert project.run("plan", "t").stdout
        assert json.loads(project.run("plan", "--json", "t").stdout)
        project.run("t", "--dry-run")
        assert project.run("wait", "--timeout", "0.5", "t", status=124).stderr
        code = "import psyrun, warnings; warnings.simplefilter('ignore'); print(len(psyrun.load('t')['x']))"
        assert project.python(code) == "6\n"
        assert files_of(project) == files
        assert len(project.jobs()) == 12
        project.open_gate()
        project.run("wait", "t", status=0)
        assert project.status("t")["merged"]

    def test_watch_ends_with_the_run(self, project: QueueProject) -> None:
        """It is over when the last job has merged."""
        project.queued_task(n=6, max_jobs=2, body=AT_GATE)
        project.run("t")
        watch = project.start("watch", "t")
        until(project.starts)
        assert watch.poll() is None
        project.open_gate()
        assert watch.wait(60) == 0
        assert project.status("t")["merged"]


class TestFailures:
    """Items that raise."""

    def test_they_are_tried_again_by_the_next_command(self, project: QueueProject) -> None:
        """The rest is there; only what failed is submitted."""
        project.queued_task(n=16, body=FAILING, options="early_stop = False")
        project.run("t")
        project.wait_ended()
        assert project.run("wait", "t", status=1).stderr
        told = project.status("t")
        assert (told["n_done"], told["n_failed"], told["merged"]) == (12, 4, True)
        with np.load(project.path / "psy-work/t/result.npz") as result:  # `psyrun.load` warns of what is missing
            assert result["x"].tolist() == [x for x in range(16) if x % 4 != 1]

        (project.path / "mended").touch()
        assert project.steps("t") == [".  t:split", ".  t:process:0-3"]
        project.wait_ended()
        assert project.started() == {x: 2 if x % 4 == 1 else 1 for x in range(16)}
        assert project.steps("t") == ["-- t:split", "-- t:merge"]
        project.run("wait", "t", status=0)

    def test_selected_ones(self, project: QueueProject) -> None:
        """--failed and --items work as for a run on this machine."""
        project.queued_task(n=16, body=FAILING, options="early_stop = False")
        project.run("t", "--items", "0-5")
        project.wait_ended()
        assert project.started() == dict.fromkeys(range(6), 1)
        (project.path / "mended").touch()
        assert project.steps("t", "--failed") == [".  t:split", ".  t:process:0-1"]
        project.wait_ended()
        assert project.started() == {0: 1, 1: 2, 2: 1, 3: 1, 4: 1, 5: 2}
        project.run("wait", "t", status=75)
        project.run("t")
        project.wait_ended()
        assert project.status("t")["merged"]
        assert project.started() == {x: 2 if x in (1, 5) else 1 for x in range(16)}

    def test_all_fail_alike(self, project: QueueProject) -> None:
        """It stops early, and what was there is merged."""
        project.queued_task(n=400, max_jobs=2, body="raise ValueError('no')")
        project.run("t")
        project.wait_ended()
        told = project.status("t")
        assert told["n_done"] == 0
        assert 0 < told["n_failed"] < 400
        assert project.run("wait", "t", status=1).stderr

    def test_done_ones_are_computed_again_if_asked(self, project: QueueProject) -> None:
        """--again puts their rows away first."""
        project.queued_task(n=8)
        project.run("t")
        project.wait_ended()
        project.run("t", "--again", "--items", "2,3")
        project.wait_ended()
        assert project.started() == {x: 2 if x in (2, 3) else 1 for x in range(8)}
        assert project.status("t")["merged"]


class TestEdits:
    """Task files that are edited while jobs run."""

    def test_a_space_that_grows(self, project: QueueProject) -> None:
        """What runs goes on; what is new gets jobs of its own; nothing is computed twice."""
        project.queued_task(n=4, max_jobs=2, body=AT_GATE)
        project.run("t")
        until(lambda: len(project.held()) == 2)
        project.queued_task(n=12, max_jobs=2, body=AT_GATE)
        assert project.steps("t")[0] == ".  t:split"
        project.open_gate()
        project.wait_ended()
        project.run("t")
        project.wait_ended()
        assert project.started() == dict.fromkeys(range(12), 1)
        assert project.steps("t") == ["-- t:split", "-- t:merge"]
        assert project.result("t")["x"].tolist() == list(range(12))

    def test_a_space_that_shrinks(self, project: QueueProject) -> None:
        """Nothing is left to compute, so there are no jobs, and the command merges by itself."""
        project.queued_task(n=6)
        project.run("t")
        project.wait_ended()
        project.queued_task(n=4)
        assert project.steps("t") == [".  t:split", ".  t:merge"]
        assert project.result("t")["x"].tolist() == [0, 1, 2, 3]
        assert len(project.jobs()) == 6

    def test_code_that_changes(self, project: QueueProject) -> None:
        """Where rows are done it is asked; with --keep they stay, and what runs is not computed again."""
        body = "while x >= 4 and not os.path.exists('gate'): time.sleep(0.01)"
        project.queued_task(n=8, max_jobs=8, body=body)
        project.run("t")
        until(lambda: project.status("t")["n_done"] == 4 and len(project.held()) == 4)
        project.queued_task(n=8, max_jobs=8, body=f"{body}\ntime.sleep(0)")
        told = project.run("t", status=4)
        assert "--keep" in told.stderr
        assert len(project.jobs()) == 8
        project.run("t", "--keep")
        project.open_gate()
        project.wait_ended()
        project.run("t")
        project.wait_ended()
        assert project.started() == dict.fromkeys(range(8), 1)
        assert project.steps("t") == ["-- t:split", "-- t:merge"]

    def test_code_that_changes_before_anything_is_done(self, project: QueueProject) -> None:
        """Jobs of the old plan compute nothing of it any more, and the new code is what counts."""
        project.slots(0)
        project.queued_task(n=6, max_jobs=3)
        project.run("t")
        project.queued_task(n=6, max_jobs=3, body="time.sleep(0)")
        project.run("t")
        project.slots(4)
        project.wait_ended()
        assert project.started() == dict.fromkeys(range(6), 1)
        assert project.steps("t") == ["-- t:split", "-- t:merge"]


class TestKill:
    """What must work when nothing else does."""

    @pytest.mark.parametrize("how", ["wrong", "gone"])
    def test_the_task_file_is_not_needed(self, project: QueueProject, how: str) -> None:
        """Its jobs are on record in the work directory."""
        project.slots(0)
        project.queued_task(n=6)
        project.run("t")
        path = project.path / "psy-tasks" / "task_t.py"
        if how == "wrong":
            path.write_text("def execute(:")
        else:
            path.unlink()
        assert "cancelled" in project.run("kill", "t").stdout
        assert project.jobs("Q") == []
        project.run("kill", "u", status=3)
        project.run("kill", "../psy-work/t", status=3)


class TestElsewhere:
    """Two clusters share a file system."""

    def test_jobs_of_another_cluster_may_be_there(self, project: QueueProject) -> None:
        """Its queue cannot be asked from here: nothing is submitted a second time, and nothing cancelled."""
        project.slots(0)
        project.queued_task(n=6)
        project.run("t")
        (intent,) = (project.path / "psy-work/t/submit").glob("*/intent.json")
        content = json.loads(intent.read_text())
        content["scheduler"]["world"] = "north"
        intent.write_text(json.dumps(content))
        conf = project.path / "psy-tasks" / "psy-conf.py"
        conf.write_text("import psyrun\npsyrun.Sqsub.world = lambda self: 'south'\n")
        assert project.steps("t") == ["-- t:split"]
        assert "were given to the cluster north" in project.run("status", "t").stdout
        assert "in the cluster north" in project.run("kill", "t").stdout
        assert len(project.jobs("Q")) == 6
        conf.unlink()
