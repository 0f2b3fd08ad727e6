"""What goes wrong on a real Slurm: jobs, nodes and the controller end, or are ended, at the wrong moment."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from project import until
from slurmproject import ALIVE, AT_GATE, RUNS, WAITS, SlurmProject

pytestmark = pytest.mark.slurm

LATER_AT_GATE = "while x % 3 and not os.path.exists('gate'): time.sleep(0.05)"
"""A third of the items is done at once, the others wait for the gate."""


COMMANDS = (("status", "t"), ("t",), ("kill", "t"))


def under_way(farm: SlurmProject, max_jobs: int = 6) -> None:
    """Begin a run of twelve items, and return when four jobs have one in hand that waits for the gate."""
    farm.slurm_task(n=12, max_jobs=max_jobs, body=LATER_AT_GATE)
    farm.run("t")
    until(lambda: len(farm.jobs(RUNS)) == 4 and sum(x % 3 != 0 for x in farm.starts()) == 4, 40)
    until(lambda: len(farm.stand().in_flight()) == 4)


def warned(farm: SlurmProject, max_jobs: int) -> None:
    """Begin a run of twelve items, warn all jobs that run, as Slurm does before their end, and let their items end."""
    farm.slurm_task(n=12, max_jobs=max_jobs, body=AT_GATE)
    farm.run("t")
    until(lambda: len(farm.jobs(RUNS)) == 4 and len(farm.starts()) == 4, 40)
    for job in farm.jobs(RUNS):  # scancel refuses to signal elements of an array of which others wait
        os.kill(farm.processes(job)[0], signal.SIGUSR1)
    farm.open_gate()


class TestJobsThatEnd:
    """One way or another, in the middle of an item."""

    def test_workers_are_killed(self, farm: SlurmProject) -> None:
        """What was in hand is computed again by whoever is there, or by the next command; the rest is on record."""
        under_way(farm)
        before = farm.stand()
        for job in farm.jobs(RUNS)[:2]:
            farm.kill(farm.processes(job))
        farm.open_gate()
        farm.wait_over()
        farm.assert_mended(before, 12)

    def test_all_workers_are_killed(self, farm: SlurmProject) -> None:
        """Nobody is left; wait says that items are missing, and status that nobody is at work."""
        under_way(farm, max_jobs=4)
        before = farm.stand()
        for job in farm.jobs(RUNS):
            farm.kill(farm.processes(job))
        farm.wait_over()
        assert not farm.status("t")["complete"]
        farm.open_gate()
        farm.assert_mended(before, 12)
        farm.run("wait", "t")

    def test_elements_are_cancelled_by_hand(self, farm: SlurmProject) -> None:
        """One that runs and one that waits: the others do their work."""
        under_way(farm)
        before = farm.stand()
        running, waiting = farm.jobs(RUNS)[0], farm.jobs(WAITS)[0]
        farm.slurm.run("scancel", running, waiting)
        until(lambda: running not in farm.jobs(*ALIVE) and waiting not in farm.jobs(*ALIVE))
        assert len(farm.jobs(*ALIVE)) == 4
        farm.open_gate()
        farm.wait_over()
        farm.assert_whole(12)
        farm.assert_mended(before, 12)

    def test_a_running_one_is_requeued(self, farm: SlurmProject) -> None:
        """It hands back what it had, and works again when it starts again; its log tells of both."""
        under_way(farm, max_jobs=4)
        before = farm.stand()
        job = farm.jobs(RUNS)[0]
        farm.slurm.run("scontrol", "requeue", job)
        until(lambda: job in farm.jobs(WAITS))
        assert farm.status("t")["jobs"]["counts"] == {"running": 3, "queued": 1}
        assert farm.steps("t") == ["-- t:split"]

        def runs_again() -> bool:
            farm.slurm.start_now(job)
            return job in farm.jobs(RUNS)

        until(runs_again, 180)
        farm.open_gate()
        farm.wait_over()
        log = (farm.path / f"psy-work/t/log/job-{job}.log").read_text()
        assert log.count("the worker has started") == 2
        assert len(farm.jobs()) == 4
        farm.assert_whole(12)
        farm.assert_mended(before, 12)

    def test_a_node_is_lost(self, farm: SlurmProject) -> None:
        """Its jobs are requeued, and what they had is computed elsewhere, even where their processes live on."""
        under_way(farm, max_jobs=4)
        before = farm.stand()
        farm.slurm.kill_slurmd("n3")
        try:
            until(lambda: farm.slurm.states()["n3"].rstrip("*") == "down", 60)
            assert farm.status("t")["jobs"]["answered"]
            farm.open_gate()
        finally:
            farm.slurm.start_slurmd("n3")
        until(lambda: farm.slurm.states()["n3"] in ("idle", "mixed", "allocated"), 60)

        def none_waits() -> bool:
            for job in farm.jobs(WAITS):
                farm.slurm.start_now(job)
            return not farm.jobs(WAITS)

        until(none_waits, 180)
        farm.wait_over()
        farm.assert_mended(before, 12)


class TestTimeThatIsShort:
    """Slurm warns jobs before their time is over."""

    def test_others_go_on(self, farm: SlurmProject) -> None:
        """Who is warned ends the item in hand and claims no more; jobs that waited do the rest."""
        warned(farm, max_jobs=6)
        farm.wait_over()
        assert len(farm.jobs()) == 6
        assert set(farm.assert_whole(12).starts.values()) == {1}

    def test_the_run_goes_on_by_itself(self, farm: SlurmProject) -> None:
        """Where no others wait, the last one submits what is left before it ends; new jobs do the rest and merge."""
        warned(farm, max_jobs=4)
        until(lambda: len({job.partition("_")[0] for job in farm.jobs()}) == 2)
        farm.wait_over()
        assert "go on with what is left" in farm.log()
        assert set(farm.assert_whole(12).starts.values()) == {1}

    def test_a_short_time_and_an_early_warning(self, farm: SlurmProject) -> None:
        """A warning while its shell is at the prologue ends no job, and one of a minute does more than one item."""
        options = "prologue = ['kill -USR1 $$']"
        farm.slurm_task(n=6, max_jobs=2, timelimit="1m", body="time.sleep(0.3)", options=options)
        farm.run("t")
        farm.wait_over()
        assert len(farm.jobs()) == 2
        assert set(farm.assert_whole(6).starts.values()) == {1}


class TestNoController:
    """The queue gives no answer for a while."""

    def test_while_jobs_run(self, farm: SlurmProject) -> None:
        """Status says so and tells what is on record; a run submits nothing; the jobs do their work."""
        under_way(farm, max_jobs=4)
        before = farm.stand()
        farm.slurm.stop_controller()
        try:
            # Each takes as long as Slurm's programs take to give up.
            with ThreadPoolExecutor() as threads:
                status, again, kill = threads.map(lambda words: farm.run(*words, status=None), COMMANDS)
            assert status.returncode == 0, status.stderr
            assert "the queue gives no answer" in status.stdout
            assert f"{len(before.on_record)} of 12 items done" in status.stdout
            assert (again.returncode, kill.returncode) == (75, 75)
            assert "squeue gave no answer" in again.stderr
            farm.open_gate()
            until(lambda: len(farm.stand().on_record) == 12)
        finally:
            farm.slurm.start_controller()
        farm.wait_over()
        assert len(farm.jobs()) == 4
        farm.assert_mended(before, 12)
        assert set(farm.stand().starts.values()) == {1}

    def test_while_it_is_submitted(self, farm: SlurmProject) -> None:
        """The command tries again until the controller is back; nothing is submitted twice."""
        farm.slurm_task(n=8, max_jobs=4)
        farm.slurm.stop_controller()
        back = threading.Timer(15, farm.slurm.start_controller)
        back.start()
        try:
            began = time.monotonic()
            done = farm.run("t", status=None)
            assert time.monotonic() - began > 8
        finally:
            back.join()
        assert done.returncode in (0, 75), done.stderr
        if done.returncode:
            assert re.search("type the command again", done.stderr, re.IGNORECASE)
        farm.wait_over()
        farm.assert_mended(farm.stand(), 8)
        assert len(farm.jobs()) == 4
        assert set(farm.stand().starts.values()) == {1}
