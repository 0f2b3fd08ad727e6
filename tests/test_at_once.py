"""Several commands on one task, edits under way, and workers that fall silent."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from project import PSY_DOIT, Project

GOOD = "from psyrun import Param\npspace = Param(x=[1, 2])\ndef execute(x): return dict(y=x)\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def wait_for_start(project: Project, n: int = 1) -> None:
    """Return when so many items of a logging task were started."""
    deadline = time.monotonic() + 30
    while len(project.starts()) < n:
        assert time.monotonic() < deadline, "no item was started"
        time.sleep(0.01)


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(6))
def test_commands_that_start_together_serve_one_plan(project: Project, seed: int) -> None:
    """All end with status 0 and the complete result, and every item is started once."""
    moments = random.Random(seed)
    project.logging_task(n=12, seconds=0.02, workers=1, max_jobs=6)
    commands = []
    for _ in range(3):
        commands.append(project.start("t"))
        time.sleep(moments.uniform(0, 0.15))
    assert [command.wait(timeout=60) for command in commands] == [0, 0, 0]
    assert sorted(project.starts()) == list(range(12))
    assert project.result("t")["y"].tolist() == [x * x for x in range(12)]


def test_growing_the_space_while_workers_run_waits_for_them(project: Project) -> None:
    """What they hold is not computed twice, and the second command ends complete."""
    project.logging_task(n=8, seconds=0.5, workers=1, max_jobs=1)
    first = project.start("t")
    wait_for_start(project)
    project.logging_task(n=10, seconds=0.5, workers=1, max_jobs=1)
    done = project.run("t")
    assert "waiting for a worker of an earlier command" in done.stderr
    assert project.result("t")["x"].tolist() == list(range(10))
    assert max(Counter(project.starts()).values()) == 1
    assert first.wait(timeout=30) == 75  # its plan was replaced
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


def test_an_edit_of_the_code_while_workers_run_mixes_nothing(project: Project) -> None:
    """Rows of the old code do not count for a new plan unless they are kept; the result is of one code."""
    project.logging_task(n=6, seconds=0.2, workers=1, max_jobs=2)
    first = project.start("t")
    wait_for_start(project, 2)
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("x * x", "-x"))
    project.run("t", status=4)
    project.run("t", "--fresh")
    assert project.result("t")["y"].tolist() == [-x for x in range(6)]
    first.wait(timeout=30)
    assert project.result("t")["y"].tolist() == [-x for x in range(6)]
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


def test_rows_that_came_between_the_question_and_the_plan_are_not_mixed_in(project: Project) -> None:
    """No row was done when the command looked; when it planned there were rows of other code: refused."""
    project.logging_task(n=6, seconds=0.1, workers=1, max_jobs=3)
    project.task(
        "slow",
        """
        import pathlib, time
        from psyrun import Param
        pspace = Param(x=1)
        def execute(x):
            while not pathlib.Path("go").exists():
                time.sleep(0.01)
            return {"y": x}
        """,
    )
    command = subprocess.Popen(
        [PSY_DOIT, "slow", "t"], cwd=project.path, env=project.environment(), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while not list(project.path.glob("psy-work/slow/plan/0001/held/*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("x * x", "-x"))
    project.run("t")
    (project.path / "go").touch()
    _, error = command.communicate(timeout=30)
    assert command.returncode == 4
    assert "other code" in error
    assert project.result("t")["y"].tolist() == [-x for x in range(6)]


def test_fresh_does_not_archive_what_this_code_computed_in_between(project: Project) -> None:
    """The second command finds nothing left to do."""
    project.logging_task(n=3, seconds=0)
    project.run("t")
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("x * x", "-x"))
    project.run("t", "--fresh")
    assert project.steps("t", "--fresh") == ["-- t:split", "-- t:merge"]
    assert len(project.starts()) == 6


def _hold_as_a_stranger(project: Project, beat: bool) -> None:
    """Make the open chunks of the newest plan look held by a worker of another machine that gives no sign."""
    plan = max((project.path / "psy-work/t/plan").iterdir())
    worker = "0123456789abcdef"
    directory = next(d for d in (plan / "open", plan / "withdrawn") if d.is_dir())
    for token in directory.iterdir():
        token.rename(plan / "held" / f"{token.name}.{worker}")
    if beat:
        content = {
            "worker": worker,
            "host": "elsewhere",
            "boot": "b",
            "namespace": "n",
            "pid": 1,
            "started": "1",
            "count": 7,
        }
        (project.path / "psy-work/t/beat" / worker).write_text(json.dumps(content))


@pytest.mark.parametrize("beat", [True, False])
def test_chunks_of_a_silent_worker_elsewhere_are_taken_over(project: Project, beat: bool) -> None:
    """After the TTL, also when the space was edited in the meantime; until then nothing is called complete."""
    project.logging_task(n=6, seconds=0.05, workers=1, max_jobs=3)
    command = project.start("t")
    wait_for_start(project)
    command.send_signal(signal.SIGINT)
    command.wait(timeout=20)
    _hold_as_a_stranger(project, beat)
    assert project.status("t")["n_running"] > 0
    project.run("clean", "t", "--yes", status=4)
    project.logging_task(n=7, seconds=0.05, workers=1, max_jobs=3)
    done = project.run("t", PSYRUN_TTL="1")
    assert "waiting for a worker" in done.stderr
    assert project.result("t")["x"].tolist() == list(range(7))


def test_a_plan_that_cannot_be_read_is_replaced(project: Project) -> None:
    """Damaged or of another version: the next command makes a new one, and computes nothing again."""
    project.logging_task(n=3, seconds=0)
    project.run("t")
    (project.path / "psy-work/t/plan/0001/plan.json").write_text("{")
    project.run("t")
    assert (project.path / "psy-work/t/plan/0002/plan.json").exists()
    assert len(project.starts()) == 3


def test_an_id_of_a_plan_that_comes_again_confuses_nothing(project: Project) -> None:
    """Somebody removed the plans and edited the space: rows of the first plan 0001 are not those of the second."""
    project.logging_task(n=4, seconds=0.05, workers=1, max_jobs=1)
    project.run("t")
    subprocess.run(["rm", "-r", project.path / "psy-work/t/plan"], check=True)
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("range(4)", "range(10, 18)"))
    command = project.start("t")
    wait_for_start(project, 6)
    for child in Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split():
        for worker in Path(f"/proc/{child}/task/{child}/children").read_text().split():
            os.kill(int(worker), signal.SIGKILL)
    assert command.wait(timeout=60) == 0
    assert project.result("t")["y"].tolist() == [x * x for x in range(10, 18)]


def test_a_fork_in_execute_does_not_touch_the_record(project: Project) -> None:
    """The copy of the process ends where execute returns or raises."""
    project.task(
        "t",
        """
        import os, sys
        from psyrun import Param
        pspace = Param(x=range(6))
        def execute(x):
            pid = os.fork()
            if pid == 0:
                if x % 2:
                    sys.exit(3)
                return {"y": -1}
            os.waitpid(pid, 0)
            return {"y": x}
        """,
    )
    project.run("t")
    assert project.result("t")["y"].tolist() == list(range(6))
    assert project.status("t")["damaged_parts"] == []


def test_a_process_that_dies_while_its_own_children_live_is_replaced(project: Project) -> None:
    """They hold its pipe open; they are ended with it."""
    project.task(
        "t",
        """
        import os, pathlib, time
        from psyrun import Param
        pspace = Param(x=range(3))
        def execute(x):
            if x == 1 and not pathlib.Path("once").exists():
                pathlib.Path("once").touch()
                if os.fork() == 0:
                    pathlib.Path("grandchild").write_text(str(os.getpid()))
                    time.sleep(600)
                while not pathlib.Path("grandchild").exists():
                    time.sleep(0.01)
                os._exit(1)
            return {"y": x}
        """,
    )
    project.run("t")
    assert project.result("t")["y"].tolist() == [0, 1, 2]
    pid = int((project.path / "grandchild").read_text())
    assert not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text()


def test_programs_of_items_end_with_the_command(project: Project) -> None:
    """Ctrl-C leaves nothing running."""
    project.task(
        "t",
        """
        import subprocess
        from psyrun import Param
        pspace = Param(x=[1])
        def execute(x):
            program = subprocess.Popen(["sleep", "600"])
            open("pid", "w").write(str(program.pid))
            program.wait()
            return {"y": x}
        """,
    )
    command = project.start("t")
    deadline = time.monotonic() + 20
    while not (project.path / "pid").exists() or not (project.path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = (project.path / "pid").read_text()
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=20) == 130
    time.sleep(0.2)
    assert not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_result_file_of_the_user_is_put_aside(project: Project) -> None:
    """Never overwritten, and never where clean would remove it; a directory there is an error."""
    project.task("t", GOOD + "resultfile = 'out.npz'\n")
    (project.path / "out.npz").write_text("mine")
    project.run("t")
    (aside,) = project.path.glob("out.npz.before-*")
    assert aside.read_text() == "mine"
    project.task("u", GOOD + "resultfile = 'data'\n")
    (project.path / "data").mkdir()
    (project.path / "data/precious").touch()
    assert "is not a file" in project.run("u", status=2).stderr
    assert (project.path / "data/precious").exists()


def test_another_store_writes_the_result_again(project: Project) -> None:
    """Also when the path stays; nothing is computed."""
    project.task("t", GOOD + "resultfile = 'out'\n")
    project.run("t")
    project.task("t", GOOD + "resultfile = 'out'\nimport psyrun\nstore = psyrun.H5Store()\n")
    assert project.steps("t") == ["-- t:split", ".  t:merge"]
    assert (project.path / "out").read_bytes()[1:4] == b"HDF"
    project.task("t", GOOD + "resultfile = 'out'\nexclude_from_result = ['x']\n")
    assert project.steps("t") == ["-- t:split", ".  t:merge"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_trouble(project: Project, closed: str) -> None:
    """As under cron and some queues."""
    project.task("t", GOOD)
    done = subprocess.run(
        f"{PSY_DOIT} t {closed}", shell=True, cwd=project.path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(project.result("t")["x"]) == 2


def test_a_reader_that_has_seen_enough_does_not_stop_the_run(project: Project) -> None:
    """psy-doit t | head -1."""
    project.logging_task(n=20, seconds=0.02, workers=1, max_jobs=20)
    subprocess.run(f"{PSY_DOIT} t | head -1", shell=True, cwd=project.path, capture_output=True, check=True)
    deadline = time.monotonic() + 20
    while not (project.path / "psy-work/t/result.npz").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(project.result("t")["x"]) == 20


def test_a_parent_that_ignores_its_children_is_no_trouble(project: Project) -> None:
    """SIGCHLD ignored is inherited, and would hide exit statuses."""
    project.task("t", GOOD)
    code = (
        f"import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv({PSY_DOIT!r}, [{PSY_DOIT!r}, 't'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_clean_follows_a_link_to_the_work_directory(project: Project) -> None:
    """The directory and the link go."""
    project.task("t", GOOD)
    (project.path / "scratch").mkdir()
    (project.path / "psy-work").mkdir()
    (project.path / "psy-work/t").symlink_to(project.path / "scratch")
    project.run("t")
    project.run("clean", "t", "--yes")
    assert not (project.path / "psy-work/t").is_symlink()
    assert not (project.path / "scratch").exists()


def test_a_read_only_place_is_said_plainly(project: Project) -> None:
    """Exit status 75, no traceback."""
    project.task("t", GOOD + "workdir = '/proc/nowhere'\n")
    done = project.run("t", status=75)
    assert "Traceback" not in done.stderr
    assert "/proc/nowhere" in done.stderr
