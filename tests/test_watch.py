"""psy-doit watch: what it shows is right, light to find out, and ends with the work."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from project import PSY_DOIT, Project, until
from psyrun import scan
from psyrun.activity import Activity, Lookout
from psyrun.claims import Process
from psyrun.eta import Left
from psyrun.live import Changes, View, page
from psyrun.parts import Failure, Writer
from psyrun.state import look
from psyrun.tally import Tally
from psyrun.tasks import load_task
from psyrun.workers import Worker

TASK = """
    from psyrun import Param
    pspace = Param(x=range({n}))
    early_stop = False
    def execute(x):
        if x in {bad}:
            raise ValueError(f"bad {{x}}")
        return {{"y": x}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def watching(project: Project) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts psy-doit watch, not on a terminal; ended after the test."""
    processes = []

    def start(*words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [PSY_DOIT, "watch", *words],
            cwd=project.path,
            env=project.environment(),
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


# Text

GOLDEN = """\
task     items   done  failed  running  missing  a minute                left
channel  40000  12000       1        8    27991     1,200  23 minutes (20-27)
t            6      5       1        0        0
u            3      0       0        0        3

channel:
  worker 01234567 on here, process 12: items 12001-12008
  straggler: item 7 for 40 minutes on n3 (job 12_4): 19 of 20 others took at most 3 minutes
  to end such items: timeout = '9m' in task_channel.py
  last failure: ValueError at task_channel.py:7: bad, item 7

t:
  last failure: Crash (SIGKILL), item 2"""


STRAGGLER = {
    "item": 7,
    "seconds": 2400.0,
    "usual_seconds": 180.0,
    "host": "n3",
    "worker": "0123456789abcdef",
    "job": "12_4",
    "remedy": "timeout = '9m' in task_channel.py",
}


def test_the_table() -> None:
    """Numbers to the right, rates and times only where they are known, details below."""
    at_work = ["worker 01234567 on here, process 12: items 12001-12008"]
    failure = "ValueError at task_channel.py:7: bad, item 7"
    views = [
        View("channel", 40000, 12000, 1, 8, 27991, 1200.0, Left(1399, 1201, 1610), at_work, [STRAGGLER], failure),
        View("t", 6, 5, 1, 0, 0, failure="Crash (SIGKILL), item 2"),
        View("u", 3, 0, 0, 0, 3),
    ]
    assert page(views) == GOLDEN


def test_lines_for_a_log_come_when_something_changed_and_less_and_less_often() -> None:
    """A new failure or straggler has a line of its own; in the end nothing is left out."""
    changes = Changes()
    left = Left(1.5, 1, 3)
    first = View("t", 4, 1, 0, 2, 1, 120.0, left, ["worker"])
    line = "t: 1 of 4 items done, 2 running, 1 missing, 120 a minute, about 1.5 s left (1 to 3)"
    assert changes.lines([first], 0.0) == [line]
    assert changes.lines([View("t", 4, 1, 0, 2, 1, 60.0, left, ["worker"])], 5.0) == []
    slow = replace(first, stragglers=[STRAGGLER])
    told = "t: straggler: item 7 for 40 minutes on n3 (job 12_4): 19 of 20 others took at most 3 minutes"
    assert changes.lines([slow], 5.0) == [line, told]
    slow = replace(first, stragglers=[{**STRAGGLER, "seconds": 2500.0}])
    assert changes.lines([slow], 6.0, at_once=True) == []
    failed = View("t", 4, 1, 1, 2, 0, failure="KeyError, item 1")
    assert changes.lines([failed], 8.0) == [
        "t: 1 of 4 items done, 1 failed, 2 running",
        "t: last failure: KeyError, item 1",
    ]
    done = View("t", 4, 3, 1, 0, 0, failure="KeyError, item 1")
    assert changes.lines([done], 8.5) == []
    assert changes.lines([done], 8.5, at_once=True) == ["t: 3 of 4 items done, 1 failed"]
    n_told = 0
    for second in range(1000):
        n_told += len(changes.lines([View("t", 2000, second, 0, 0, 2000 - second)], 10.0 + second))
    assert 30 < n_told < 100


# Counting


def counted(tally: Tally, activity: Activity) -> tuple[int, int, int, int]:
    tally._next = 0.0
    tally.update(activity)
    return tally.counts()


def test_the_count_is_that_of_status_and_reads_each_byte_once(project: Project) -> None:
    """However the record grows: rows and failures of a worker that is at it, torn records, new parts."""
    project.task("t", TASK, n=2000, bad=())
    project.run("t")
    task = load_task("t", Path("psy-tasks"))
    (plan,) = task.workdir.plans.iterdir()
    paths = list(task.workdir.part_paths())
    contents = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.write_bytes(b"")
    task.workdir.manifest.unlink()
    for done in (plan / "done").iterdir():
        done.rename(plan / "open" / done.name.rpartition(".")[0])
    lookout = Lookout(task.workdir)
    tally = Tally(task, lookout.observer)
    assert counted(tally, lookout.look()) == (0, 0, 0, 2000)
    n_read = 0

    def pread(file: int, size: int, offset: int) -> bytes:
        nonlocal n_read
        content = original(file, size, offset)
        n_read += len(content)
        return content

    original = os.pread
    moments = np.random.default_rng(3)
    with mock.patch("os.pread", pread):
        for path, content in contents.items():
            for end in sorted({*moments.integers(0, len(content), 20).tolist(), len(content)}):
                path.write_bytes(content[:end])
                found = counted(tally, lookout.look())
    n_bytes = sum(map(len, contents.values()))
    assert n_read < 4 * n_bytes  # what is torn is looked at again, and so are durations; not 20 times all
    assert found == (2000, 0, 0, 0)
    assert look(task).complete


def test_failures_count_at_once_and_running_ones_until_they_are_done(project: Project) -> None:
    """What failed in an earlier run is tried again: running, not failed, while its chunk is in hand."""
    project.task("t", TASK, n=4, bad=(1, 2))
    project.run("t", status=1)
    project.run("t", status=1)
    task = load_task("t", Path("psy-tasks"))
    lookout = Lookout(task.workdir)
    tally = Tally(task, lookout.observer)
    assert counted(tally, lookout.look()) == (2, 2, 0, 0)

    newest = task.workdir.plans / "0002"
    part = next(path for path in task.workdir.part_paths() if scan.read(path).header["plan"] == uid(newest))
    content = part.read_bytes()
    part.unlink()
    tokens = sorted((newest / "done").iterdir())
    for token in tokens:
        token.rename(newest / "held" / token.name)
        (task.workdir.beats / token.name.rpartition(".")[2]).touch()
    tally = Tally(task, lookout.observer)
    assert counted(tally, lookout.look()) == (2, 0, 2, 0)
    part.write_bytes(content)
    assert counted(tally, lookout.look()) == (2, 2, 0, 0)
    assert tally.last is not None and tally.last.message == "bad 2"


def uid(plan: Path) -> str:
    return str(json.loads((plan / "plan.json").read_text())["uid"])


def test_a_large_record_is_not_read_again(project: Project) -> None:
    """While nothing was written no part is opened; when something was, not more often than every two seconds."""
    project.task("t", TASK, n=50, bad=())
    project.run("t")
    task = load_task("t", Path("psy-tasks"))
    task.workdir.manifest.unlink()
    lookout = Lookout(task.workdir)
    tally = Tally(task, lookout.observer)
    tally.update(lookout.look())
    at_work = Activity("0001", [Worker("0" * 16)], sizes=lookout.look().sizes)
    with mock.patch("psyrun.tally.read", wraps=scan.read) as read:
        for _ in range(100):
            tally.update(at_work)
        assert not read.called
        path = next(task.workdir.part_paths())
        for i in range(100):
            with path.open("ab") as part:
                Writer(part.fileno()).fail(Failure((i, i), 0, 0.0, 0.0, "KeyError", "", "", ""))
            tally.update(Activity("0001", at_work.workers, sizes=lookout.look().sizes))
        assert read.call_count <= 2


# The command


def test_it_shows_a_run_to_its_end(project: Project, watching: Callable[..., Any]) -> None:
    """Lines when something changed; it ends with the work, and the status of wait. Nothing is written."""
    project.logging_task(n=40, seconds=0.1)
    command = project.start("t")
    until(project.starts)
    watch = watching("t")
    told, said = watch.communicate(timeout=30)
    lines = told.splitlines()
    assert (watch.returncode, said) == (0, "")
    assert "running" in lines[0]
    assert "a minute" in told
    assert lines[-1] == "t: 40 of 40 items done"
    assert command.wait(timeout=20) == 0
    before = {path: path.stat().st_mtime_ns for path in project.path.rglob("psy-work/**/*")}
    assert project.run("watch").stdout == "t: 40 of 40 items done\n"
    assert {path: path.stat().st_mtime_ns for path in project.path.rglob("psy-work/**/*")} == before


def test_failures_and_what_is_left_behind_are_told(project: Project, watching: Callable[..., Any]) -> None:
    """A killed run ends it with status 75 and what to type; failures with status 1 and the last cause."""
    project.logging_task(n=60, seconds=0.1, max_jobs=3)
    command = project.start("t")
    until(project.starts)
    watch = watching("t")
    assert "running" in watch.stdout.readline()
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    _, said = watch.communicate(timeout=20)
    assert watch.returncode == 75
    assert "nobody is at work on them. To compute them: psy-doit t" in said
    project.task("f", TASK, n=4, bad=(2,))
    project.run("f", status=1)
    done = project.run("watch", "f", status=1)
    assert done.stdout.splitlines()[1] == "f: last failure: ValueError at task_f.py:7: bad 2, item 2"


def test_a_worker_elsewhere_that_falls_silent_ends_it(project: Project, watching: Callable[..., Any]) -> None:
    """It is shown until its time to live is over."""
    project.task("t", TASK, n=4, bad=())
    project.run("t")
    workdir = load_task("t", Path("psy-tasks")).workdir
    workdir.manifest.unlink()
    for path in workdir.part_paths():
        path.unlink()
    worker = "0123456789abcdef"
    done = min((workdir.plans / "0001" / "done").iterdir())
    done.rename(workdir.plans / "0001" / "held" / f"{done.name.rpartition('.')[0]}.{worker}")
    beat = {**vars(Process.current()), "host": "elsewhere", "worker": worker, "count": 1}
    (workdir.beats / worker).write_text(json.dumps(beat))
    watch = watching("t")
    assert "running" in watch.stdout.readline()
    told, said = watch.communicate(timeout=20)
    assert watch.returncode == 75
    assert told == "t: 0 of 4 items done, 4 missing\n"
    assert "4 items are missing, and nobody is at work on them" in said


def test_one_bad_task_file_does_not_hide_the_others(project: Project) -> None:
    """The exit status is that of the worst."""
    project.task("a", TASK, n=2, bad=())
    project.task("b", "(")
    project.run("a")
    done = project.run("watch", status=2)
    assert done.stdout == "a: 2 of 2 items done\n"
    assert "task_b.py:1" in done.stderr


def test_on_a_terminal_it_is_a_table_and_ctrl_c_leaves_quietly(project: Project) -> None:
    """Status 130, and no traceback; the run goes on."""
    project.logging_task(n=40, seconds=0.1)
    command = project.start("t")
    until(project.starts)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PSY_DOIT, [PSY_DOIT, "watch", "t"], project.environment(TERM="xterm", COLUMNS="100", LINES="30"))
    shown = b""
    end = time.monotonic() + 20
    sent = False
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            with suppress(OSError):
                data = os.read(terminal, 4096)
                shown += data
                if b"worker" in shown and not sent:
                    os.write(terminal, b"\x03")
                    sent = True
                continue
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    text = shown.decode()
    assert "a minute" in text
    assert "Traceback" not in text
    assert "interrupted" not in text
    assert command.wait(timeout=30) == 0


def test_programs_get_a_line_of_json_at_each_change(project: Project) -> None:
    """The last one says that nobody is at work and where it ended."""
    project.logging_task(n=6, seconds=0.3, workers=1)
    command = project.start("t")
    until(lambda: len(project.starts()) > 0)
    lines = [json.loads(line) for line in project.run("watch", "t", "--json").stdout.splitlines()]
    command.wait(timeout=20)
    assert {line["schema_version"] for line in lines} == {1}
    assert [line["n_done"] for line in lines] == sorted(line["n_done"] for line in lines)
    assert (lines[-1]["n_done"], lines[-1]["n_running"], lines[-1]["workers"]) == (6, 0, [])
    assert lines[0]["workers"]
