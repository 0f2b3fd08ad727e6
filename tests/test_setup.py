"""`setup(proc_id)`: each process of a worker gets a resource of its own, such as one GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from project import Project
from queueproject import QueueProject

TASK = """
    import os, time
    import psyrun

    pspace = psyrun.Param(x=range({n}))
    pool_size = {pool_size}
    exclude_from_result = ["device"]
    {options}

    class Device:
        def __init__(self, number):
            self.number = number
            self.lock = os.open(f"lock-{{os.getppid()}}-{{number}}", os.O_CREAT)

    def setup(proc_id):
        with open("setups", "a") as file:
            file.write(f"{{os.getppid()}} {{proc_id}} {{os.getpid()}}\\n")
        return {{"device": Device(proc_id), "number": proc_id}}

    def execute(x, device, number):
        import fcntl
        fcntl.flock(device.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error if another process has this device
        time.sleep(0.05)
        if x == {bad} and not os.path.exists("crashed"):
            open("crashed", "w").close()
            os._exit(3)
        fcntl.flock(device.lock, fcntl.LOCK_UN)
        return {{"y": x, "pid": os.getpid(), "worker": os.getppid()}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


def setups(project: Project) -> list[tuple[int, int, int]]:
    """Return worker, number and process of each call of setup."""
    lines = (project.path / "setups").read_text().splitlines()
    return [(int(worker), int(number), int(pid)) for worker, number, pid in map(str.split, lines)]


@pytest.mark.parametrize("options", ["", "backend = psyrun.LoadBalancingBackend"])
def test_every_process_has_a_number_of_its_own(project: Project, options: str) -> None:
    """From 0 to pool_size - 1; what setup returns goes to execute, and into the result unless excluded."""
    project.task("t", TASK, n=24, pool_size=3, bad=-1, options=options)
    project.run("t")
    result = project.result("t")
    assert list(result) == ["x", "number", "y", "pid", "worker"]
    assert sorted(number for _, number, _ in setups(project)) == [0, 1, 2]
    assert len(set(zip(result["number"].tolist(), result["pid"].tolist(), strict=True))) == 3


def test_a_process_that_takes_the_place_of_another_is_set_up_with_its_number(project: Project) -> None:
    """Its resource is free again; the item that ended the other is tried again."""
    project.task("t", TASK, n=12, pool_size=2, bad=5, options="")
    project.run("t")
    calls = setups(project)
    assert len(calls) == 3
    assert len({worker for worker, _, _ in calls}) == 1
    crashed = {number for _, number, _ in calls if [n for _, n, _ in calls].count(number) == 2}
    assert len(crashed) == 1
    assert len({pid for _, _, pid in calls}) == 3
    result = project.result("t")
    assert result["y"].tolist() == list(range(12))
    last = dict((number, pid) for _, number, pid in calls)  # noqa: C402
    (number,) = crashed
    assert last[number] in result["pid"][result["number"] == number].tolist()


def test_processes_of_each_job_are_numbered_from_0(farm: QueueProject) -> None:
    """Two jobs of two processes: a job knows nothing of the devices of another."""
    queue = 'scheduler = Sqsub("files of the queue"); scheduler_args = {"timelimit": "10m"}; max_jobs = 2'
    options = f"from psyrun.scheduler import Sqsub; {queue}; backend = psyrun.LoadBalancingBackend"
    farm.task("t", TASK, n=24, pool_size=2, bad=-1, options=options)
    farm.run("t")
    assert len(farm.jobs()) == 2
    farm.wait_ended()
    calls = setups(farm)
    by_worker: dict[int, list[int]] = {}
    for worker, number, _ in calls:
        by_worker.setdefault(worker, []).append(number)
    assert all(sorted(numbers) == [0, 1] for numbers in by_worker.values())
    assert len(farm.result("t")["y"]) == 24
