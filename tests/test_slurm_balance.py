"""Load balancing by jobs of a real Slurm."""

from __future__ import annotations

from collections import Counter

import pytest

from project import until
from slurmproject import AT_GATE, RUNS, SlurmProject

pytestmark = pytest.mark.slurm

BALANCED = "import psyrun; backend = psyrun.LoadBalancingBackend"


def test_jobs_pull_chunks_until_none_is_left(farm: SlurmProject) -> None:
    """The longest come first, and each is started once."""
    farm.slurm_task(
        n=40, max_jobs=4, options=f"{BALANCED}; cost = lambda x: 0.8 ** abs(x - 20)", body="time.sleep(0.1)"
    )
    farm.run("t")
    assert len(farm.jobs()) == 4
    farm.wait_over()
    farm.assert_whole(40)
    assert set(Counter(farm.starts()).values()) == {1}
    assert 20 in farm.starts()[:4]


def test_more_jobs_than_items_are_not_submitted(farm: SlurmProject) -> None:
    """However many max_jobs allows."""
    farm.slurm_task(n=2, max_jobs=50, options=BALANCED)
    farm.run("t")
    assert len(farm.jobs()) == 2
    farm.wait_over()
    farm.assert_whole(2)


def test_the_items_of_killed_jobs_go_back_by_themselves(farm: SlurmProject) -> None:
    """The others compute them, and the last one merges."""
    farm.slurm_task(n=16, max_jobs=4, options=BALANCED, body=AT_GATE)
    farm.run("t")
    until(lambda: len(farm.jobs(RUNS)) == 4 and len(farm.starts()) == 4, 60)
    for job in farm.jobs(RUNS)[:2]:
        farm.kill(farm.processes(job))
    farm.open_gate()
    farm.wait_over()
    farm.assert_whole(16)
    again = Counter(farm.starts()) - Counter(range(16))
    assert sum(again.values()) <= 2
