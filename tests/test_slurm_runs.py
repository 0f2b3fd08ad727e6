"""Runs on a real Slurm: what is submitted, what comes back, and what commands tell meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import pytest

from project import until
from psyrun import Slurm
from psyrun.scheduler import Queue
from psyrun.testing import QueueTests
from slurmcluster import SlurmCluster
from slurmproject import ALIVE, AT_GATE, RUNS, WAITS, SlurmProject

pytestmark = pytest.mark.slurm

CHECKOUT = Path(__file__).resolve().parent.parent

CC2 = """
    from examples.communication import CommunicationChannel
    import numpy as np
    from psyrun import Param, Slurm

    pspace = Param(D=np.arange(2, 5)) * Param(N=[10, 50, 100])
    min_items = 1
    max_jobs = 6
    scheduler = Slurm()
    scheduler_args = {
        'timelimit': '10m',
        'memory': '512M'
    }

    def execute(**kwargs):
        return CommunicationChannel().run(**kwargs)
"""
FAILING = """if x % 4 == 1 and not os.path.exists("mended"): raise ValueError("not yet")"""


class TestSlurm(QueueTests):
    """The contract, on the real one."""

    scheduler_args: ClassVar = {"timelimit": "5m", "memory": "100M"}

    @pytest.fixture
    def queue(self, slurm: SlurmCluster, jobs_of_others: object, monkeypatch: pytest.MonkeyPatch) -> Queue:
        for name, value in slurm.environment().items():
            monkeypatch.setenv(name, value)
        return Slurm()

    @contextmanager
    def break_queue(self, queue: Queue) -> Iterator[None]:
        # Its words when the controller is down, without the nine seconds; that itself is met by whole runs.
        told = "echo 'error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
        with TemporaryDirectory() as programs, pytest.MonkeyPatch.context() as patched:
            for name in (*queue.programs, "scontrol"):
                (Path(programs) / name).write_text(f"#!/bin/sh\n{told}\n")
                (Path(programs) / name).chmod(0o700)
            patched.setenv("PATH", programs, prepend=os.pathsep)
            patched.setattr("psyrun.scheduler.slurm.PAUSES", (0.1,))
            yield


class TestWholeRun:
    """From the first command to the last."""

    def test_the_tutorial(self, farm: SlurmProject, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nine items on six jobs: the command submits and returns, the last job merges, then nothing is left to do."""
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(CHECKOUT)]))
        farm.task("cc2", CC2)
        told = farm.run("cc2")
        assert told.stdout == ".  cc2:split\n.  cc2:process:0-5\n"
        assert "cc2: submitted 6 jobs: " in told.stderr
        farm.run("wait", "cc2", status=0)
        shown = farm.python("import psyrun; data = psyrun.load('cc2'); print(*map(len, data.values()), sum(data['D']))")
        assert set(shown.split()) == {"9", "27"}
        assert farm.steps("cc2") == ["-- cc2:split", "-- cc2:merge"]
        assert len(farm.jobs()) <= 6

    def test_some_items_raise(self, farm: SlurmProject) -> None:
        """The rest is done; exit statuses and status tell; the next command submits what failed, and no others."""
        farm.slurm_task(n=60, body=FAILING, options="early_stop = False")
        farm.run("t")
        assert "15 failed" in farm.run("wait", "t", status=1).stderr
        told = farm.status("t")
        assert (told["n_done"], told["n_failed"], told["complete"], told["merged"]) == (45, 15, False, True)
        with np.load(farm.path / "psy-work/t/result.npz") as result:  # `psyrun.load` warns of what is missing
            assert result["x"].tolist() == [x for x in range(60) if x % 4 != 1]
        before = farm.stand()
        assert len(before.on_record) == 45
        (farm.path / "mended").touch()
        farm.assert_mended(before, 60)
        assert farm.stand().starts == {x: 2 if x % 4 == 1 else 1 for x in range(60)}

    def test_while_it_runs(self, farm: SlurmProject) -> None:
        """--dry-run submits nothing, typed again it submits nothing more, and status tells what waits and what runs."""
        farm.slurm_task(n=18, body=AT_GATE)
        shown = farm.run("t", "--dry-run").stdout
        assert "sbatch --parsable" in shown
        assert "--array=0-5" in shown
        assert not (farm.path / "psy-work").exists()
        assert farm.jobs() == []
        farm.run("t")
        until(lambda: len(farm.jobs(RUNS)) == 4 and len(farm.starts()) == 4)
        assert farm.steps("t") == ["-- t:split"]
        farm.run("t", "--dry-run")
        told = farm.status("t")["jobs"]
        assert told["answered"]
        assert told["counts"] == {"running": 4, "queued": 2}
        assert {job["reason"] for job in told["alive"] if job["state"] == "queued"} == {"Resources"}
        assert farm.run("wait", "t", "--timeout", "1", status=124).stderr
        assert len(farm.jobs()) == 6
        farm.open_gate()
        farm.wait_over()
        assert set(farm.assert_whole(18).starts.values()) == {1}

    def test_more_jobs_than_an_array_holds(self, farm: SlurmProject) -> None:
        """They are several arrays; when nothing is left to compute, the last worker takes the rest from the queue."""
        farm.slurm_task(n=250, max_jobs=250)
        assert farm.steps("t") == [".  t:split", ".  t:process:0-249"]
        jobs = farm.jobs()
        assert len(jobs) == 250
        assert len({job.partition("_")[0] for job in jobs}) == 3
        farm.wait_over()
        assert set(farm.assert_whole(250).starts.values()) == {1}
        assert len(list((farm.path / "psy-work/t/log").glob("job-*.log"))) < 125, "too many were started"
        assert "nothing is left for jobs" in farm.log()

    def test_more_jobs_than_slurm_takes(self, farm: SlurmProject) -> None:
        """It submits what fits, says so, and these do the work of all."""
        room, n = 170, 500 - len(farm.slurm.squeue())  # MaxJobCount; ended jobs count for a minute
        others = [
            farm.slurm.run("sbatch", "--parsable", "--hold", f"--array=0-{size - 1}", "--wrap", "true").strip()
            for size in (min(100, n - room - begin) for begin in range(0, n - room, 100))
        ]
        try:
            farm.slurm_task(n=250, max_jobs=250)
            told = farm.run("t").stderr
        finally:
            farm.slurm.run("scancel", *others)
        assert "Slurm took 50 of 101 jobs" in told
        assert "submitted 151 jobs" in told
        farm.wait_over()
        assert set(farm.assert_whole(250).starts.values()) == {1}

    def test_two_commands_at_once(self, farm: SlurmProject) -> None:
        """One submits, the other sees it; nothing is submitted or computed twice."""
        for round_ in range(5):
            farm.slurm_task(n=4 * (round_ + 1), max_jobs=3)
            commands = [farm.start("t") for _ in range(2)]
            assert [command.wait(60) for command in commands] == [0, 0]
            assert len(farm.jobs()) <= 3 * (round_ + 1)
            farm.wait_over()
            assert set(farm.assert_whole(4 * (round_ + 1)).starts.values()) == {1}

    def test_submitted_from_inside_a_job(self, farm: SlurmProject) -> None:
        """Its jobs get nothing of what Slurm told the job that it was typed in."""
        body = """
            names = ("ARRAY_JOB_ID", "ARRAY_TASK_ID", "CPUS_PER_TASK", "MEM_PER_NODE")
            with open(f"saw-{x}", "w") as file:
                print(os.environ["PSYRUN_JOB"], *(os.environ.get(f"SLURM_{name}") for name in names), file=file)
        """
        farm.slurm_task(n=3, max_jobs=3, body=body)
        words = ("--array=7", "-c2", "--mem=77M", "-J", "outer", "-D", str(farm.path), "-o", str(farm.path / "outer"))
        command = f"{Path(sys.executable).with_name('psy-doit')} t"
        assert os.environ.get("SLURM_ARRAY_TASK_ID") is None
        with pytest.MonkeyPatch.context() as patched:  # what a job inherits
            for name, value in farm.environment().items():
                patched.setenv(name, value)
            farm.slurm.run("sbatch", *words, "--wrap", command)
        until(lambda: (farm.path / "outer").exists() and "submitted" in (farm.path / "outer").read_text(), 60)
        farm.wait_over()
        farm.assert_whole(3)
        inner = farm.jobs(name="t")
        assert len(inner) == 3
        for x in range(3):
            job, array, number, cpus, memory = (farm.path / f"saw-{x}").read_text().split()
            assert job == f"{array}_{number}"
            assert job in inner
            assert (cpus, memory) == ("None", "None")


class TestKill:
    """``psy-doit kill``."""

    def test_while_some_wait_and_some_run(self, farm: SlurmProject) -> None:
        """All jobs of the task end, and none of another task; what was finished stays, and the next command goes on."""
        body = "while x >= 3 and not os.path.exists('gate'): time.sleep(0.05)"
        farm.slurm_task("u", n=1, max_jobs=1, body=AT_GATE)
        farm.run("u")
        until(lambda: len(farm.jobs(RUNS, name="u")) == 1)
        farm.slurm_task(n=12, max_jobs=12, body=body)
        farm.run("t")
        until(lambda: farm.status("t")["n_done"] == 3 and len(farm.jobs(RUNS, name="t")) == 3)
        assert farm.jobs(WAITS, name="t")
        assert "cancelled" in farm.run("kill", "t").stdout
        until(lambda: not farm.jobs(*ALIVE, name="t"))
        assert len(farm.jobs(RUNS, name="u")) == 1
        assert "no jobs of it" in farm.run("kill", "t").stdout
        farm.run("wait", "t", status=75)
        told = farm.status("t")
        assert (told["n_done"], told["merged"]) == (3, False)
        before = farm.stand()
        (farm.path / "starts").unlink()
        farm.open_gate()
        farm.wait_over()
        farm.assert_mended(type(before)(before.on_record, farm.stand().starts), 12)
        farm.run("wait", "u")

    def test_before_any_runs(self, farm: SlurmProject) -> None:
        """Jobs that wait are gone at once, and the next command submits anew."""
        farm.slurm_task(n=4, max_jobs=2, extra=["--hold"])
        farm.run("t")
        assert len(farm.jobs(WAITS)) == 2
        farm.run("kill", "t")
        until(lambda: not farm.jobs(*ALIVE))
        assert farm.status("t")["jobs"]["alive"] == []
        farm.slurm_task(n=4, max_jobs=2)
        farm.assert_mended(farm.stand(), 4)


class TestWhatNeverStarts:
    """Jobs that Slurm would take, and keep."""

    def test_a_time_above_the_limit_is_refused(self, farm: SlurmProject) -> None:
        """Before anything is submitted; the message names a partition that takes it."""
        farm.slurm_task(partition="short", timelimit="5m")
        told = farm.run("t", status=2).stderr
        assert "'short' takes jobs of up to 60 s" in told or "'short' takes jobs of up to 1 minutes" in told, told
        assert "'debug'" in told
        assert farm.jobs() == []
        farm.slurm_task(timelimit="5m")
        farm.assert_mended(farm.stand(), 12)

    def test_a_job_that_is_held_is_shown_with_its_reason(self, farm: SlurmProject) -> None:
        """Status says who holds it; when it is let go, the run ends as any other."""
        farm.slurm_task(n=2, max_jobs=2, extra=["--hold"])
        farm.run("t")
        assert "2 held (JobHeldUser)" in farm.run("status", "t").stdout
        assert farm.status("t")["jobs"]["counts"] == {"held": 2}
        farm.slurm.run("scontrol", "release", *{job.partition("_")[0] for job in farm.jobs()})
        farm.wait_over()
        farm.assert_whole(2)


class TestResources:
    """What jobs lack."""

    def test_a_ladder_of_memory(self, farm: SlurmProject) -> None:
        """Items that are killed for want of memory are tried with more of it by the jobs themselves; others are not."""
        body = """
            time.sleep(0.01)
            if x % 3 == 2:
                limit = int(os.environ["SLURM_MEM_PER_NODE"])
                with open(f"limits-{x}", "a") as file:
                    print(limit, file=file)
                if limit < 300:
                    held = b"x" * (limit * 2**20)
                    os.kill(os.getpid(), 9)
        """
        farm.slurm_task(n=9, max_jobs=3, body=body, memory=["100M", "200M", "400M"])
        farm.run("t")
        farm.wait_over()
        farm.wait_over()
        starts = farm.assert_whole(9).starts
        for x in range(9):
            if x % 3 == 2:
                assert (farm.path / f"limits-{x}").read_text().split()[-1] == "400"
            else:
                assert starts[x] == 1
        assert len({job.partition("_")[0] for job in farm.jobs()}) == 3

    def test_a_node_on_which_workers_end_at_once(self, farm: SlurmProject) -> None:
        """The next submission leaves it out, and says so; all of it is done on the others."""
        options = """prologue = ['[ "$SLURMD_NODENAME" = n2 ] && exit 1', 'true']"""
        farm.slurm_task(n=8, max_jobs=8, body=AT_GATE, options=options)
        farm.run("t")
        until(lambda: len(farm.jobs("FAILED")) == 6 and len(farm.jobs(RUNS)) == 2)
        told = farm.run("t").stderr
        assert "workers end before they start on n2" in told
        assert "left out" in told
        submitted = [job for job in farm.jobs() if job not in farm.jobs("FAILED")]
        assert len(submitted) == 8
        farm.open_gate()
        farm.wait_over()
        assert set(farm.assert_whole(8).starts.values()) == {1}
        assert len(farm.jobs("FAILED")) == 6
        assert {node for job, _, node, _ in farm.slurm.squeue() if job in submitted} <= {"n1", "n3", ""}
