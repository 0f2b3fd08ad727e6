"""Items that end, hold or flood their process: each costs itself and nothing else."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from project import Project

N = 8
BAD = 3
TASK = """
    import ctypes, os, resource, signal, subprocess, sys, threading, time
    from pathlib import Path
    import numpy as np
    from psyrun import Param, Multiprocessing

    pspace = Param(x=range({n}))
    scheduler = Multiprocessing(2)
    {options}

    def execute(x):
        with open("starts", "a") as file:
            file.write(f"{{x}}\\n")
        time.sleep(0.002)
        if x == {bad} and not Path("mended").exists():
            {what}
        return {{"y": x * x}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def poison(project: Project, what: str, options: str = "", n: int = N) -> None:
    """Write a task one of whose items does something bad."""
    project.task("t", TASK, n=n, bad=BAD, what=what, options=options)


def assert_only_the_bad_one_failed(project: Project, tries: int = 1) -> None:
    """All other items are done, after one start each."""
    told = project.status("t")
    assert (told["n_done"], told["n_failed"], told["n_running"]) == (N - 1, 1, 0)
    assert told["failures"][0]["item"] == BAD
    assert Counter(project.starts()) == {x: tries if x == BAD else 1 for x in range(N)}


def assert_mended(project: Project) -> None:
    """Once it is harmless, the next run computes the bad one and nothing else."""
    (project.path / "mended").touch()
    before = len(project.starts())
    project.run("t")
    assert project.starts()[before:] == [BAD]
    assert project.result("t")["y"].tolist() == [x * x for x in range(N)]


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("ctypes.string_at(0)", "Crash (SIGSEGV)"),
        ("os.abort()", "Crash (SIGABRT)"),
        ("os._exit(0)", "Crash (exit status 0)"),
        ("os._exit(3)", "Crash (exit status 3)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "Crash (SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGRTMIN)", f"Crash ({signal.SIGRTMIN.name})"),
    ],
)
def test_an_item_that_ends_its_process_is_blamed_alone(project: Project, what: str, how: str) -> None:
    """It is given up after three deaths, the others are done, and the next run tries it again."""
    poison(project, what)
    error = project.run("t", status=1).stderr
    assert f"1 x {how}: the process ended 3 times in this item" in error
    assert f"psy-doit test t --item {BAD}" in error
    assert ("out of memory" in error) == ("SIGKILL" in how)
    assert_only_the_bad_one_failed(project, tries=3)
    assert_mended(project)


def test_a_crash_says_in_the_log_where_it_was(project: Project) -> None:
    """With the line of the task file, as Python's fault handler writes it."""
    poison(project, "ctypes.string_at(0)")
    assert "Where: psy-doit logs t" in project.run("t", status=1).stderr
    log = project.run("logs", "t").stdout
    assert "Segmentation fault" in log
    assert "task_t.py" in log and "in execute" in log


def test_among_items_of_microseconds_a_crash_is_blamed_on_the_right_one(project: Project) -> None:
    """Nobody beside it fails, though whole blocks run in one go."""
    source = "import os\nfrom psyrun import Param\npspace = Param(x=range(5000))\nmax_jobs = 1\n"
    source += "def execute(x):\n    if x == 2345: os._exit(1)\n    return {'y': x}\n"
    project.task("t", source)
    project.run("t", status=1)
    told = project.status("t")
    assert (told["n_done"], told["n_failed"]) == (4999, 1)
    assert told["failures"][0]["item"] == 2345


def test_a_crash_stays_a_failure_of_its_item_when_the_space_is_edited(project: Project) -> None:
    """It is on record with the item's key, not only with its place in the space of then."""
    poison(project, "os._exit(1)")
    project.run("t", status=1)
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace(f"range({N})", f"range(-2, {N})"))
    told = project.status("t")
    assert (told["n_done"], told["n_failed"], told["n_missing"]) == (N - 1, 1, 2)
    assert told["failures"][0]["item"] == BAD + 2


@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("def f(): return f()\n        f()", "RecursionError"),
        ("sys.exit(0)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise type('Odd', (BaseException,), {'__str__': lambda self: 1})", "Odd"),
        (
            "old = resource.getrlimit(resource.RLIMIT_AS)\n"
            "        resource.setrlimit(resource.RLIMIT_AS, (2**31, old[1]))\n"
            "        try:\n            bytearray(2**32)\n"
            "        finally:\n            resource.setrlimit(resource.RLIMIT_AS, old)",
            "MemoryError",
        ),
    ],
)
def test_whatever_an_item_raises_ends_the_item_only(project: Project, what: str, how: str) -> None:
    """Also what elsewhere ends a program, and too little memory."""
    poison(project, what)
    assert f"1 x {how} at task_t.py:" in project.run("t", status=1).stderr
    assert_only_the_bad_one_failed(project)
    assert_mended(project)


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group whose processes have 100 MB together; the kernel kills who takes more."""
    old = Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"psyrun-{os.getpid()}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text("100M")
    if not old.is_dir():
        (group / "memory.swap.max").write_text("0")
    yield group
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text().strip() and time.monotonic() < deadline:
        time.sleep(0.05)
    group.rmdir()


@pytest.mark.kill
def test_the_kernel_kills_what_takes_too_much_memory(project: Project, memory_group: Path) -> None:
    """A real kill; needs an administrator, who alone can make control groups."""
    take = f"Path('{memory_group}/cgroup.procs').write_text(str(os.getpid())); bytearray(300_000_000)"
    poison(project, take)
    assert "out of memory" in project.run("t", status=1).stderr
    assert_only_the_bad_one_failed(project, tries=3)
    assert_mended(project)


# Time


@pytest.mark.parametrize(
    "what",
    [
        "while True: pass",
        "time.sleep(600)",
        "ctypes.PyDLL(None).sleep(600)",  # holds the GIL
        "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals)); time.sleep(600)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "subprocess.run(['sleep', '600'])",
    ],
)
def test_an_item_that_takes_too_long_is_killed(project: Project, what: str) -> None:
    """Whatever it does; it fails at once, for a second try would take as long."""
    poison(project, what, "timeout = '0.4s'")
    began = time.monotonic()
    error = project.run("t", status=1).stderr
    assert time.monotonic() - began < 20
    assert "1 x TimeLimit: was killed after 0.4 s (timeout)" in error
    assert_only_the_bad_one_failed(project)
    if what == "while True: pass":
        assert "in execute" in project.run("logs", "t").stdout
    assert_mended(project)


def test_the_time_is_that_of_an_item(project: Project) -> None:
    """All together may take longer, and so may setup."""
    poison(project, "time.sleep(0.1)", "timeout = 0.6\ndef setup(n): time.sleep(1)", n=30)
    project.run("t")
    assert len(project.result("t")["y"]) == 30


def test_holding_the_interpreter_is_no_sign_of_death(project: Project) -> None:
    """For longer than a heartbeat and the time to live: the process that beats is another one."""
    poison(project, "ctypes.PyDLL(None).usleep(1_500_000)", "max_jobs = 8")
    first = project.start("t", PSYRUN_BEAT="0.1", PSYRUN_TTL="0.5")
    deadline = time.monotonic() + 20
    while BAD not in project.starts():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    project.run("t", PSYRUN_BEAT="0.1", PSYRUN_TTL="0.5")
    assert first.wait(timeout=20) == 0
    assert sorted(project.starts()) == list(range(N))


# What items leave behind


def test_output_by_the_gigabyte_does_not_fill_the_disk(project: Project) -> None:
    """A log that grows too long is begun again, and says so; the run does not notice."""
    poison(project, "for _ in range(150):\n            os.write(1, b'x' * 10**6)\n        time.sleep(2)")
    project.run("t")
    (log,) = (project.path / "psy-work/t/log").iterdir()
    assert log.stat().st_size < 64e6
    assert "MB of output were dropped here" in log.read_text()
    assert len(project.result("t")["y"]) == N


def gone(pid: int) -> bool:
    """Whether a process does nothing any more."""
    try:
        return ") Z" in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


DAEMON = """
    import os, subprocess, sys, time
    from psyrun import Param
    pspace = Param(x=range(3))
    max_jobs = 1
    def execute(x):
        if x == 1:
            # In a session of its own, and an orphan.
            subprocess.run([sys.executable, "-c", "import subprocess; p = subprocess.Popen(['sleep', '600'],"
                " start_new_session=True, stdout=subprocess.DEVNULL); open('daemon', 'w').write(str(p.pid))"])
        time.sleep({seconds})
        return {{"y": x}}
"""


@pytest.mark.parametrize("end", ["by itself", "supervisor", "command", "interrupt"])
def test_what_items_leave_behind_ends_with_the_worker(project: Project, end: str) -> None:
    """However the worker ends: processes in sessions of their own, whose parents are gone, too."""
    project.task("t", DAEMON, seconds=0.02 if end == "by itself" else 0.4)
    command = project.start("t")
    path = project.path / "daemon"
    deadline = time.monotonic() + 20
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    daemon = int(path.read_text())
    starter = int(Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text())
    workers = Path(f"/proc/{starter}/task/{starter}/children").read_text().split()
    if end == "supervisor":
        beats = [p.read_text() for p in (project.path / "psy-work/t/beat").iterdir() if not p.name.startswith(".")]
        (supervisor,) = (int(pid) for pid in workers if any(f'"pid": {pid},' in beat for beat in beats))
        os.kill(supervisor, signal.SIGKILL)
    elif end == "command":
        command.kill()
    elif end == "interrupt":
        command.send_signal(signal.SIGINT)
    status = command.wait(timeout=30)
    assert status == {"by itself": 0, "supervisor": 0, "command": -9, "interrupt": 130}[end]
    deadline = time.monotonic() + 20
    while not all(map(gone, [daemon, starter, *map(int, workers)])):
        assert time.monotonic() < deadline, "a process goes on"
        time.sleep(0.02)
    project.run("t")
    assert project.result("t")["y"].tolist() == [0, 1, 2]
