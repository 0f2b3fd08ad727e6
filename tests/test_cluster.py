"""What psyrun relies on of Slurm, asked of a real one with its own commands."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurmcluster import SlurmCluster

pytestmark = pytest.mark.slurm

TOLD = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit("told"))
time.sleep(90)
"""


def within(seconds: float, condition: Callable[[], Any]) -> None:
    """Return when something is so; Slurm is asked five times a second at most."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def submit(slurm: SlurmCluster, *words: str) -> str:
    """Submit a job and return its number."""
    return slurm.run("sbatch", "--parsable", *words).strip()


def state(slurm: SlurmCluster, job: str) -> str:
    """Return the state of a job, '' if the queue knows none."""
    return {found[0]: found[1] for found in slurm.squeue()}.get(job, "")


@pytest.fixture(scope="module")
def told(slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Submit a job that wants a signal before its end; it takes half a minute, in which other tests run."""
    directory = tmp_path_factory.mktemp("told")
    (directory / "told.py").write_text(TOLD)
    words = ("-p", "short", "-t", "1", "--signal=B:USR1@50", "-o", str(directory / "log"))
    submit(slurm, *words, "--wrap", f"exec {sys.executable} {directory / 'told.py'}")
    return directory / "log"


@pytest.mark.usefixtures("told")
def test_an_array_runs_on_all_nodes(slurm: SlurmCluster) -> None:
    """Eight elements, of which at most six run at a time."""
    job = submit(slurm, "--array=0-7", "-o", "/dev/null", "--wrap", "sleep 1")

    def ended() -> list[str]:
        return [node for name, word, node, _ in slurm.squeue() if name.startswith(f"{job}_") and word == "COMPLETED"]

    within(30, lambda: len(ended()) == 8)
    assert set(ended()) == set(slurm.nodes)


def test_an_array_beyond_the_limit_is_refused(slurm: SlurmCluster) -> None:
    """The highest index is one less than MaxArraySize, 101 here."""
    job = submit(slurm, "--hold", "--array=0-100", "--wrap", "true")
    slurm.run("scancel", job)
    assert "Invalid job array specification" in slurm.run("sbatch", "--array=0-101", "--wrap", "true", status=1)


def test_a_requeued_job_appends_to_its_log(slurm: SlurmCluster, tmp_path: Path) -> None:
    """What was printed before stays."""
    log = tmp_path / "log"
    words = ("--requeue", "--open-mode=append", "-o", str(log))
    job = submit(slurm, *words, "--wrap", "echo life ${SLURM_RESTART_COUNT:-0}; exec sleep 60")
    within(60, lambda: log.exists() and log.read_text() == "life 0\n")
    slurm.run("scontrol", "requeue", job)
    within(60, lambda: state(slurm, job) == "PENDING")

    def lives_again() -> bool:
        slurm.start_now(job)
        return log.read_text().endswith("life 1\n")

    within(180, lives_again)
    slurm.run("scancel", job)
    assert log.read_text().startswith("life 0\n")


def test_a_job_over_the_time_of_its_partition_waits_for_ever(slurm: SlurmCluster) -> None:
    """It is taken, and the reason is all that tells."""
    job = submit(slurm, "-p", "short", "-t", "5", "--wrap", "true")
    within(60, lambda: (job, "PENDING", "", "PartitionTimeLimit") in slurm.squeue())
    slurm.run("scancel", job)


def test_a_lost_node_is_down_and_comes_back(slurm: SlurmCluster) -> None:
    """After SlurmdTimeout, 20 s here."""
    slurm.kill_slurmd("n3")
    within(60, lambda: slurm.states()["n3"].rstrip("*") == "down")
    slurm.start_slurmd("n3")
    within(30, lambda: slurm.states()["n3"] == "idle")


def test_a_signal_before_the_end_reaches_python(told: Path) -> None:
    """The shell of the job has become the Python that handles it. It comes up to a minute early."""
    within(60, lambda: told.exists() and "told" in told.read_text())


def test_without_its_controller_slurm_takes_no_job(slurm: SlurmCluster) -> None:
    """And takes them again when it is back."""
    slurm.stop_controller()
    try:
        told = slurm.run("sbatch", "--wrap", "true", status=1)
    finally:
        slurm.start_controller()
    assert "Unable to contact slurm controller" in told
    submit(slurm, "-o", "/dev/null", "--wrap", "true")
    slurm.wait_for_idle()
