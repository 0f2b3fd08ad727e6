"""Processes are killed at random moments; the same command again gives the complete result."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from project import Project, descendants

pytestmark = pytest.mark.kill

ROUNDS = 8
N = 60
WORKERS = 2


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def _assert_complete(project: Project, kills: int, n: int = N) -> None:
    result = project.result("t", keys=True)
    assert result["x"].tolist() == list(range(n))
    assert np.array_equal(result["y"], result["x"] ** 2)
    assert len(np.unique(result["__psyrun_key"], axis=0)) == n
    starts = Counter(project.starts())
    assert set(starts) == set(range(n))
    # A kill costs the items in flight and nothing else.
    assert sum(starts.values()) <= n + kills * WORKERS


def _wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "processes outlived the command"
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killing_the_command_at_a_random_moment_loses_only_items_in_flight(project: Project, seed: int) -> None:
    """No process outlives the command, and the next command computes what is missing and nothing else."""
    project.logging_task(n=N, seconds=0.01, workers=WORKERS)
    moments = random.Random(seed)
    kills = 0
    for _ in range(2):
        command = project.start("t")
        time.sleep(moments.uniform(0.02, 0.6))
        family = descendants(command.pid) if command.poll() is None else []
        command.kill()
        kills += command.wait() == -signal.SIGKILL
        if moments.random() < 0.5:
            _wait_until_gone(family)
    project.run("t")
    _assert_complete(project, kills)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_killing_workers_at_random_moments_is_mended_by_the_command_itself(project: Project, seed: int) -> None:
    """A supervisor or child that is killed is replaced; the command ends with the complete result."""
    project.logging_task(n=N, seconds=0.02, workers=WORKERS)
    moments = random.Random(1000 + seed)
    command = project.start("t")
    kills = 0
    for _ in range(3):
        time.sleep(moments.uniform(0.1, 0.35))
        # The first process below the command waits for orders; the worker is below that one.
        workers = descendants(command.pid)[1:] if command.poll() is None else []
        if workers:
            try:
                os.kill(moments.choice(workers), signal.SIGKILL)
                kills += 1
            except ProcessLookupError:
                pass
    assert command.wait(timeout=60) == 0
    _assert_complete(project, kills)


def test_killing_everything_at_once_keeps_what_is_finished(project: Project) -> None:
    """With command, supervisor and children all gone at one moment, the record still has every finished item."""
    project.logging_task(n=N, seconds=0.02, workers=WORKERS)
    for _ in range(4):
        command = project.start("t")
        time.sleep(0.5)
        for pid in [command.pid, *descendants(command.pid)] if command.poll() is None else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.wait()
    project.run("t")
    _assert_complete(project, 4)


def test_two_commands_on_one_task_share_the_work(project: Project) -> None:
    """They serve one plan: every item is started once, and both end with the result complete."""
    project.logging_task(n=N, seconds=0.02, workers=WORKERS, max_jobs=20)
    commands = [project.start("t") for _ in range(3)]
    assert [command.wait(timeout=60) for command in commands] == [0, 0, 0]
    assert sorted(project.starts()) == list(range(N))
    _assert_complete(project, 0)


def test_interrupting_keeps_what_is_finished_and_hands_back_the_rest(project: Project) -> None:
    """Ctrl-C ends with status 130, leaves nothing held, and the next command goes on."""
    project.logging_task(n=N, seconds=0.03, workers=WORKERS, max_jobs=3)
    command = project.start("t")
    while len(project.starts()) < 4:
        assert command.poll() is None
        time.sleep(0.01)
    family = descendants(command.pid)
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=20) == 130
    _wait_until_gone(family)
    told = project.status("t")
    assert 0 < told["n_done"] < N
    assert told["n_running"] == 0
    project.run("t")
    _assert_complete(project, 1)


def test_a_stopped_worker_is_fenced_when_it_wakes_up(project: Project) -> None:
    """Its chunk was taken over in the meantime; no row is there twice."""
    project.logging_task(n=20, seconds=0.05, workers=1, max_jobs=2)
    command = project.start("t", PSYRUN_TTL="1")
    time.sleep(0.7)
    zygote, *worker = descendants(command.pid)
    for pid in [command.pid, zygote, *worker]:
        os.kill(pid, signal.SIGSTOP)
    try:
        project.run("t", PSYRUN_TTL="1")
        _assert_complete(project, 1, n=20)
    finally:
        for pid in [*reversed(worker), zygote, command.pid]:
            os.kill(pid, signal.SIGCONT)
    command.wait(timeout=30)
    _assert_complete(project, 2, n=20)
