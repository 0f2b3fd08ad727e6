"""Time limits, pauses and ends while items are being recorded; early stops that would not converge."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from project import Project, descendants


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


SLOW_TO_RECORD = """
    import time
    import psyrun

    pspace = psyrun.Param(x=[1])
    store = psyrun.PickleStore()
    {more}

    class Slow:
        def __reduce__(self):
            open("recording", "w").close()
            time.sleep(1.5)
            return (int, (7,))

    def execute(x):
        open("starts", "a").write(f"{{x}}\\n")
        return {{"y": [Slow()]}}
"""


def wait_for(path: Path) -> None:
    """Return when there is a file."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_time_of_recording_is_not_that_of_the_item(project: Project) -> None:
    """It was computed in time; killing it then would mean that it is never done."""
    project.task("t", SLOW_TO_RECORD, more="timeout = 0.5")
    project.run("t")
    assert project.status("t")["n_done"] == 1


def test_what_is_being_recorded_is_waited_for(project: Project) -> None:
    """Ctrl-C says that what is finished is on record; so it is."""
    project.task("t", SLOW_TO_RECORD, more="")
    command = project.start("t")
    wait_for(project.path / "recording")
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=20) == 130
    assert project.status("t")["n_done"] == 1


def test_a_pause_of_all_processes_takes_nothing_from_the_time_of_items(project: Project) -> None:
    """As a frozen container, or a job that is suspended; shorter than the time to live."""
    project.task(
        "t",
        """
        import time
        from psyrun import Param
        pspace = Param(x=[1])
        timeout = 4
        def execute(x):
            open("started", "w").close()
            end = time.process_time() + 0.5
            while time.process_time() < end:
                pass
            time.sleep(0.5)
            return {"y": x}
        """,
    )
    command = project.start("t", PSYRUN_TTL="60")
    wait_for(project.path / "started")
    family = [command.pid, *descendants(command.pid)]
    for pid in family:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4.5)
    for pid in reversed(family):
        os.kill(pid, signal.SIGCONT)
    assert command.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("more", "limit"), [("import io, sys; sys.stderr = io.StringIO()", "10"), ("", "1e10"), ("", "'20000w'")]
)
def test_a_limit_needs_neither_a_file_nor_a_near_end(project: Project, more: str, limit: str) -> None:
    """The log is written to whatever became of the standard streams; a far limit is as good as none."""
    project.task(
        "t",
        "from psyrun import Param\n{more}\ntimeout = {limit}\npspace = Param(x=range(5))\n"
        "def execute(x): return dict(y=x)\n",
        more=more,
        limit=limit,
    )
    project.run("t")
    assert len(list((project.path / "psy-work/t/parts").iterdir())) == 1


def test_a_process_that_dies_before_the_first_item_of_its_block_is_not_replaced_for_ever(project: Project) -> None:
    """Its parameters cannot be had: said after three tries."""
    project.task(
        "t",
        """
        import os
        from psyrun import Param
        pspace = Param(x=range(5))
        def execute(x):
            return {"y": x}
        if "PSYRUN_CHILDREN" in os.environ:
            type(pspace).columns_at = lambda *_: os._exit(9)
        """,
    )
    assert "processes end before they run an item (exit status 9)" in project.run("t", status=75).stderr


def test_streams_that_items_close_or_replace_cost_no_process(project: Project) -> None:
    """They are flushed when they can be."""
    project.task(
        "t",
        """
        import sys
        from psyrun import Param
        pspace = Param(x=range(30))
        def execute(x):
            sys.stdout = None
            return {"y": x}
        """,
    )
    project.run("t")
    assert len(list((project.path / "psy-work/t/parts").iterdir())) == 1


# Early stop

CORNER = """
    import os, time
    from psyrun import Param
    pspace = Param(x=range({n}))
    max_jobs = 3
    {more}
    def execute(x):
        open("starts", "a").write(f"{{x}}\\n")
        {what}
        return {{"y": x}}
"""


def test_a_corner_that_always_fails_does_not_keep_the_rest_from_being_tried(project: Project) -> None:
    """What failed before comes last, and counts as a start that went well: the same command again gets on."""
    bad = "if 10 <= x < 14: raise ValueError('corner')"
    project.task("t", CORNER, n=30, what=bad, more="")
    project.run("t", status=1)
    assert project.status("t")["n_done"] == 26
    project.task("t", CORNER, n=100, what=bad, more="")
    assert "alike" not in project.run("t", status=1).stderr
    assert project.status("t")["n_done"] == 96
    project.task("u", CORNER, n=300, what="if 20 <= x < 120: raise ValueError('corner')", more="")
    for _ in range(4):
        project.run("u", status=1)
    assert project.status("u")["n_done"] == 200


def test_slow_items_are_no_reason_to_stop(project: Project) -> None:
    """To go on after them is what the limit is for."""
    project.task("t", CORNER, n=12, what="time.sleep(60 if x < 4 else 0)", more="timeout = 0.2")
    assert "alike" not in project.run("t", status=1).stderr
    assert project.status("t")["n_done"] == 8


# Legitimate task files


def test_a_decorator_may_change_what_execute_takes(project: Project) -> None:
    """What it is called with counts, not what it wraps."""
    project.task(
        "t",
        """
        import functools
        from psyrun import Param
        def seeded(f):
            @functools.wraps(f)
            def g(offset, **kwargs):
                return {"y": f(**kwargs) + offset}
            return g
        pspace = Param(x=range(3)) * Param(offset=[10])
        @seeded
        def execute(x):
            return x
        """,
    )
    project.run("t")
    assert project.result("t")["y"].tolist() == [10, 11, 12]


def test_a_constant_of_the_file_is_no_option(project: Project) -> None:
    """Names that psyrun got later may be in use already; it is said how they are taken."""
    project.task(
        "t",
        """
        import time
        from psyrun import Param
        pspace = Param(x=range(3))
        timeout = 0.001
        seed = None
        def execute(x):
            time.sleep(timeout * 300)
            return {"y": x if seed is None else 0}
        """,
    )
    error = project.run("t").stderr
    assert "reads timeout itself, so it is not taken for the option" in error
    assert project.result("t")["y"].tolist() == [0, 1, 2]


def test_a_space_that_no_memory_holds_is_said_to_be(project: Project) -> None:
    """No traceback."""
    project.task(
        "t",
        "from psyrun import Param\npspace = Param(a=range(10**7)) * Param(b=range(10**7))\n"
        "def execute(a, b): return dict(y=a)\n",
    )
    for words in (["status", "t"], ["t", "--yes"], ["plan", "t"]):
        error = project.run(*words, status=2).stderr
        assert "100,000,000,000,000 items does not fit into the memory" in error


def test_heartbeats_of_who_holds_chunks_of_old_plans_are_kept(project: Project) -> None:
    """They tell that it is dead; without, every command would wait for the time to live."""
    project.logging_task(n=6, seconds=0.3, workers=1, max_jobs=2)
    command = project.start("t")
    while not project.starts():
        assert command.poll() is None
    family = [command.pid, *descendants(command.pid)]
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    command.wait()
    project.run("t")
    for beat in (project.path / "psy-work/t/beat").iterdir():
        os.utime(beat, (1e9, 1e9))
    (project.path / "psy-work/t/result.npz").unlink()
    project.run("t", PSYRUN_TTL="60")
    began = time.monotonic()
    project.run("t", PSYRUN_TTL="60")
    project.run("clean", "t", "--yes")
    assert time.monotonic() - began < 10
