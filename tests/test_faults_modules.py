"""Task modules with threads, OpenMP and generators of their own, and Ctrl-C at any time."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from project import PSY_DOIT, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_of_a_module_neither_hang_nor_end_a_run(project: Project, daemon: bool) -> None:
    """Each process has its own, which runs while items do; the command ends though they do not."""
    project.task(
        "t",
        """
        import threading, time
        from psyrun import Param, Multiprocessing
        pspace = Param(x=range(6))
        scheduler = Multiprocessing(2)
        ticks = []
        def tick():
            while True:
                ticks.append(1)
                time.sleep(0.001)
        threading.Thread(target=tick, daemon={daemon}).start()
        def execute(x):
            time.sleep(0.02)
            return {{"y": x, "ticks": len(ticks)}}
        """,
        daemon=daemon,
    )
    command = project.start("t")
    assert command.wait(timeout=30) == 0
    result = project.result("t")
    assert result["y"].tolist() == list(range(6))
    assert (result["ticks"] > 0).all()


def test_linear_algebra_on_all_cores_does_not_hang(project: Project) -> None:
    """A module that used it when it was loaded, in the command too, before any process was forked."""
    project.task(
        "t",
        """
        import numpy as np
        from psyrun import Param, Multiprocessing
        pspace = Param(x=range(6))
        scheduler = Multiprocessing(2)
        matrix = np.eye(600)
        warm = matrix @ matrix
        def execute(x):
            return {"y": float((matrix * x @ matrix).trace())}
        """,
    )
    project.run("t")
    assert project.result("t")["y"].tolist() == [600.0 * x for x in range(6)]


def test_generators_of_a_module_without_a_seed_differ_between_processes(project: Project) -> None:
    """No number is drawn twice, as it would be if a loaded module were forked."""
    project.task(
        "t",
        """
        import random, time
        import numpy as np
        from psyrun import Param, Multiprocessing
        pspace = Param(x=range(40))
        scheduler = Multiprocessing(4)
        rng, old, own = np.random.default_rng(), np.random.RandomState(), random.Random()
        def execute(x):
            time.sleep(0.005)
            return {"a": rng.random(), "b": old.random_sample(), "c": own.random()}
        """,
    )
    project.run("t")
    result = project.result("t")
    for name in "abc":
        assert len(np.unique(result[name])) == 40


# Ctrl-C


def interrupted(project: Project, *moments: float) -> subprocess.CompletedProcess[str]:
    """Run the task and press Ctrl-C so many seconds after its start, or after the press before."""
    with subprocess.Popen(
        [PSY_DOIT, "t"],
        cwd=project.path,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        for moment in moments:
            time.sleep(moment)
            command.send_signal(signal.SIGINT)
        output, error = command.communicate(timeout=30)
    return subprocess.CompletedProcess(["t"], command.returncode, output, error)


@pytest.mark.kill
@pytest.mark.parametrize("moment", [0.12, 0.2, 0.3, 0.4, 0.6])
@pytest.mark.parametrize("again", [None, 0.0, 0.02, 0.2])
def test_interrupts_at_any_moment_end_plainly_and_keep_what_is_finished(
    project: Project, moment: float, again: float | None
) -> None:
    """Status 130, no traceback, a second one is no trouble, and the next command goes on."""
    project.logging_task(n=60, seconds=0.02, workers=2, max_jobs=5)
    done = interrupted(project, *([moment] if again is None else [moment, again]))
    assert done.returncode in (130, -signal.SIGINT), done.stderr  # the latter while there is nothing to lose
    assert "Traceback" not in done.stderr
    assert "interrupted" in done.stderr or not done.stdout
    finished = project.status("t")["n_done"]
    before = len(project.starts())
    assert before - 2 <= finished <= before
    project.run("t")
    assert len(project.starts()) == before + 60 - finished
    assert project.result("t")["y"].tolist() == [x * x for x in range(60)]


@pytest.mark.kill
def test_a_second_interrupt_does_not_wait(project: Project) -> None:
    """Not even for an item that will not be stopped and a disk that takes its time."""
    project.task(
        "t",
        """
        import os, signal, time
        from psyrun import Param
        pspace = Param(x=[1])
        def execute(x):
            os.kill(os.getppid(), signal.SIGSTOP)  # the process that would see to an end in order
            time.sleep(60)
            return {"y": x}
        """,
    )
    began = time.monotonic()
    done = interrupted(project, 1.0, 0.3)
    assert done.returncode == 130
    assert "Ctrl-C again: at once" in done.stderr
    assert "To go on: psy-doit t" in done.stderr
    assert time.monotonic() - began < 4
