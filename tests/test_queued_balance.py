"""Load balancing by jobs of a queue: they pull chunks until none is left, and share the last ones."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from invariants import assert_complete
from project import until
from psyrun.record import read_parts
from psyrun.workdir import Workdir
from queueproject import AT_GATE, QueueProject

BALANCED = "import psyrun; backend = psyrun.LoadBalancingBackend"

ONE_CHUNK = """
    import psyrun
    class OneChunk(psyrun.LoadBalancingBackend):
        def sizes(self, n_items, max_jobs, min_items):
            return [n_items - max_jobs + 1, *[1] * (max_jobs - 1)]
    backend = OneChunk()
"""
"""All items but a few in one chunk, as where nothing is known and a guess was bad."""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


def shares(project: QueueProject) -> Counter[str]:
    """Return how many rows each worker has on record."""
    found: Counter[str] = Counter()
    for part in read_parts(Workdir(project.path / "psy-work/t")):
        found[part.header["worker"]] += sum(batch.n_rows for batch in part.batches)
    return found


def test_jobs_pull_chunks_until_none_is_left(project: QueueProject) -> None:
    """As many jobs as max_jobs says, more chunks than that, and each item is started once."""
    project.queued_task(n=60, max_jobs=4, options=BALANCED, body="time.sleep(0.05)")
    project.run("t")
    assert len(project.jobs()) == 4
    assert project.plan().n_chunks > 8
    project.wait_ended()
    assert_complete(project, 60)
    assert set(project.started().values()) == {1}
    assert len(shares(project)) >= 3


def test_more_jobs_than_items_are_not_submitted(project: QueueProject) -> None:
    """However many max_jobs allows."""
    project.queued_task(n=3, max_jobs=50, options=BALANCED)
    project.run("t")
    assert len(project.jobs()) == 3
    project.wait_ended()
    assert_complete(project, 3)


def test_a_chunk_that_was_a_bad_guess_is_shared(project: QueueProject) -> None:
    """No job has much more to do than the others."""
    project.task("t", _task(ONE_CHUNK, "time.sleep(0.25)", n=32))
    project.run("t")
    project.wait_ended()
    assert_complete(project, 32)
    assert set(project.started().values()) == {1}
    found = shares(project)
    assert len(found) == 4
    assert max(found.values()) <= 16


def test_the_longest_come_first(project: QueueProject) -> None:
    """One job at a time, so the order is that of the items."""
    project.slots(1)
    cost = "cost = lambda x: [3, 1, 8, 2, 7, 5, 4, 6][x]"
    project.queued_task(n=8, max_jobs=2, options=f"{BALANCED}; {cost}")
    project.run("t")
    project.wait_ended()
    assert project.starts() == [2, 4, 7, 5, 6, 0, 3, 1]


@pytest.mark.kill
def test_the_items_of_a_killed_job_go_back_by_themselves(project: QueueProject) -> None:
    """Nobody types anything: the others compute what it held, and the last one merges."""
    body = "while x >= 8 and not os.path.exists('gate'): time.sleep(0.01)"
    project.queued_task(n=40, max_jobs=4, options=BALANCED, body=body)
    project.run("t")
    until(lambda: len(project.held()) == 4 and len(project.starts()) >= 12, 40)
    before = project.started()
    os.kill(project.job_pid(project.jobs("R")[0]), signal.SIGKILL)
    until(lambda: len(project.jobs("R")) == 3)
    project.open_gate()
    project.wait_ended()
    assert_complete(project, 40)
    again = project.started() - Counter(range(40))
    assert sum(again.values()) <= 1
    assert set(again) <= set(before)


@pytest.mark.kill
def test_the_items_of_a_vanished_node_go_back_by_themselves(project: QueueProject) -> None:
    """Its heartbeat stands still, its processes cannot be asked, and the queue says that its job is over."""
    project.queued_task(n=12, max_jobs=4, options=BALANCED, body=AT_GATE)
    project.run("t", PSYRUN_TTL="12")
    until(lambda: len(project.held()) == 4 and len(project.starts()) == 4, 40)
    job = project.jobs("R")[0]
    project.elsewhere(job)
    project.kill_jobs([job])
    until(lambda: job not in project.jobs("R"))
    project.open_gate()
    project.wait_ended()
    assert_complete(project, 12)
    assert sorted(project.started().values()) == [*[1] * 11, 2]


@pytest.mark.kill
def test_when_all_jobs_are_killed_the_command_goes_on(project: QueueProject) -> None:
    """With what is missing, and no more."""
    project.queued_task(n=24, max_jobs=4, options=BALANCED, body="if x >= 12: time.sleep(0.4)")
    project.run("t")
    until(lambda: len(project.starts()) >= 15, 40)
    project.kill_jobs()
    project.wait_ended()
    project.run("t")
    project.wait_ended()
    assert_complete(project, 24)
    assert sum(project.started().values()) <= 24 + 4


def _task(options: str, body: str, n: int) -> str:
    return f"""
    import os, time
    from psyrun import Param
    from psyrun.scheduler import Sqsub

    pspace = Param(x=range({n}))
    scheduler = Sqsub("files of the queue")
    scheduler_args = {{"timelimit": "10m"}}
    max_jobs = 4
    {options.strip()}

    def execute(x):
        fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{{x}}\\n".encode())
        os.close(fd)
        {body}
        return {{"y": x * x}}
    """
