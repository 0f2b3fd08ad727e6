"""Workers that come and go on a real Slurm: more jobs, a login node that helps, a pause, and an early end."""

from __future__ import annotations

import pytest

from project import until
from slurmproject import AT_GATE, RUNS, WAITS, SlurmProject

pytestmark = pytest.mark.slurm


def test_more_jobs_and_a_login_node(farm: SlurmProject) -> None:
    """One job, then two that `grow` adds, then `work`: all of it is done once, and merged."""
    farm.slurm_task(n=24, max_jobs=1, body=AT_GATE)
    farm.run("t")
    until(lambda: len(farm.jobs(RUNS)) == 1 and farm.starts())
    assert "submitted 2 jobs" in farm.run("grow", "t", "--jobs", "2").stdout
    until(lambda: len(farm.jobs(RUNS)) == 3 and len(farm.starts()) == 3)
    guest = farm.start("work", "t")
    until(lambda: len(farm.starts()) == 4)
    farm.open_gate()
    assert guest.wait(60) == 0
    farm.wait_over()
    farm.assert_whole(24)
    assert sorted(farm.starts()) == list(range(24))


def test_pause_and_drain(farm: SlurmProject) -> None:
    """Jobs that wait are cancelled, those that run finish their item, and the next command does the rest."""
    farm.slurm_task(n=24, max_jobs=12, body=AT_GATE)
    farm.run("t")
    until(lambda: farm.jobs(WAITS) and farm.starts() and len(farm.starts()) == len(farm.jobs(RUNS)))
    n = len(farm.starts())
    farm.run("pause", "t")
    logs = farm.path / "psy-work/t/log"

    def told(what: str) -> int:
        return sum(f"(psyrun: {what}" in path.read_text() for path in logs.glob("0001-*.log"))

    until(lambda: told("paused") == n)
    assert "cancelled" in farm.run("drain", "t").stdout
    until(lambda: told("drained") == n and not farm.jobs(WAITS))
    farm.open_gate()
    farm.wait_over()
    assert len(farm.starts()) == n
    found = farm.status("t")
    assert (found["n_done"], found["merged"]) == (n, True)
    farm.run("t", status=4)
    farm.run("resume", "t")
    farm.run("t")
    farm.wait_over()
    farm.assert_whole(24)
    assert sorted(farm.starts()) == list(range(24))
