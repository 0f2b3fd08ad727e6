"""Two partitions of a real Slurm serve one run. On the node of ``short`` jobs of others run, so it is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from project import until
from slurmproject import ALIVE, AT_GATE, RUNS, WAITS, SlurmProject

pytestmark = pytest.mark.slurm

BOTH = "scheduler = [Slurm(partition='debug'), Slurm(partition='short', timelimit=50)]"


def jobs_in(farm: SlurmProject, partition: str, *states: str) -> list[str]:
    """Return the jobs of this project that are in a partition, in some of the states or in any."""
    lines = farm.slurm.run("squeue", "-h", "-r", "-t", "all", "-p", partition, "-o", "%i").split()
    return [job for job in farm.jobs(*states) if job in lines]


@contextmanager
def partition(farm: SlurmProject, name: str, state: str) -> Iterator[None]:
    """Have a partition in another state."""
    farm.slurm.run("scontrol", "update", f"PartitionName={name}", f"State={state}")
    try:
        yield
    finally:
        farm.slurm.run("scontrol", "update", f"PartitionName={name}", "State=UP")


@pytest.mark.parametrize("state", ["UP", "DOWN"])
def test_where_one_waits_the_other_does_all(farm: SlurmProject, state: str) -> None:
    """Both get jobs; what waits for a full or a broken partition is cancelled when all is done."""
    farm.slurm_task(n=12, body=AT_GATE, options=BOTH)
    with partition(farm, "short", state):
        told = farm.run("t").stderr
        assert "submitted 12 jobs" in told
        assert len(jobs_in(farm, "short", WAITS)) == 6
        until(lambda: len(farm.starts()) == 4)
        assert farm.steps("t") == ["-- t:split"]
        shown = farm.run("status", "t").stdout
        assert "in Slurm(partition='debug')" in shown
        assert "in Slurm(partition='short', timelimit=50): 6 queued" in shown
        farm.open_gate()
        farm.wait_over()
        assert len(jobs_in(farm, "short", "CANCELLED")) == 1, "an array that was ended as a whole is listed as one"
        assert jobs_in(farm, "short", "COMPLETED") == []
    assert set(farm.assert_whole(12).starts.values()) == {1}
    assert "nothing is left for jobs" in farm.log()


def test_both_compute(farm: SlurmProject) -> None:
    """Where both have room each item is computed once, by whoever came first."""
    options = "scheduler = [Slurm(partition='debug', n_cpus=1), Slurm(partition='debug', n_cpus=2)]"
    farm.slurm_task(n=24, body="time.sleep(0.2)", options=options)
    assert "submitted 12 jobs" in farm.run("t").stderr
    farm.wait_over()
    assert set(farm.assert_whole(24).starts.values()) == {1}


def test_a_partition_that_takes_no_jobs(farm: SlurmProject) -> None:
    """It is told, and the other does all; if none takes any, that is an error."""
    farm.slurm_task(n=4, options=BOTH)
    with partition(farm, "short", "INACTIVE"):
        told = farm.run("t").stderr
        assert "Slurm(partition='short', timelimit=50) took no jobs: sbatch " in told
        farm.wait_over()
        assert jobs_in(farm, "short") == []
        farm.slurm_task(
            "u", n=4, options="scheduler = [Slurm(partition='nowhere'), Slurm(partition='short', timelimit=50)]"
        )
        assert "partition" in farm.run("u", status=2).stderr
    farm.assert_whole(4)


def test_a_time_above_the_limit_of_one(farm: SlurmProject) -> None:
    """This gets no jobs, which is said with the reason; the other does all."""
    farm.slurm_task(n=4, timelimit="5m", options="scheduler = [Slurm(partition='short'), Slurm(partition='debug')]")
    told = farm.run("t").stderr
    assert "Slurm(partition='short') gets no jobs: " in told
    farm.wait_over()
    assert jobs_in(farm, "short") == []
    farm.assert_whole(4)


def test_kill_and_topping_up(farm: SlurmProject) -> None:
    """What is gone from a partition is submitted there again, but for chunks that are computed; kill ends all jobs."""
    farm.slurm_task(n=12, max_jobs=6, body=AT_GATE, options=BOTH)
    farm.run("t")
    until(lambda: len(jobs_in(farm, "debug", RUNS)) == 4 and len(farm.starts()) == 4)
    farm.slurm.run("scancel", *jobs_in(farm, "short", WAITS)[:5])
    until(lambda: len(jobs_in(farm, "short", WAITS)) == 1)
    assert farm.steps("t") == ["-- t:split", ".  t:process:0-4"]
    assert len(jobs_in(farm, "short", WAITS)) == 6
    assert len(jobs_in(farm, "debug")) == 6
    farm.run("kill", "t")
    until(lambda: not farm.jobs(*ALIVE))
    before = farm.stand()
    (farm.path / "starts").unlink()
    farm.open_gate()
    farm.assert_mended(type(before)(before.on_record, farm.stand().starts), 12)
