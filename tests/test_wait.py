"""psy-doit wait: it returns when nobody is at work any more, tells how it ended, and changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from project import PSY_DOIT, Project, descendants, until
from psyrun.activity import Activity, Lookout
from psyrun.claims import Beat, Claims, Process
from psyrun.files import json_checksum
from psyrun.state import look
from psyrun.tasks import load_task
from psyrun.waiting import Quiet, verdict
from psyrun.workdir import Workdir
from psyrun.workers import Worker

FAILING = """
    from psyrun import Param
    pspace = Param(x=range(4))
    early_stop = False
    def execute(x):
        if x == 2:
            raise ValueError("bad")
        return {"y": x}
"""
GOOD = FAILING.replace("x == 2", "x == 9")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def started(project: Project) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts psy-doit and what it prints can be read from; ended after the test."""
    processes = []

    def start(*words: str, **extra: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = project.environment(PYTHONUNBUFFERED="1", **extra)
        process = subprocess.Popen(
            [PSY_DOIT, *words], cwd=project.path, env=environment, stdout=pipe, stderr=pipe, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def tree(path: Path) -> dict[str, int]:
    """Return all files below a directory, and when they changed."""
    return {str(file): file.stat().st_mtime_ns for file in path.rglob("*")}


def elsewhere(workdir: Workdir, worker: str = "0123456789abcdef") -> Beat:
    """Have a worker on another machine take the first open chunk; return its heart."""
    beat = Beat(workdir.beats, worker, 0.0)
    beat._content |= {"host": "elsewhere", "pid": 7}
    beat.beat()
    claims = Claims(workdir.plans / workdir.plan_ids()[-1], worker)
    assert claims.claim(claims.tokens("open")[0])
    return beat


def unfinished(project: Project, monkeypatch: pytest.MonkeyPatch) -> Workdir:
    """Return the work directory of a task of which only the plan is there."""
    project.task("t", GOOD)
    project.run("t")
    monkeypatch.chdir(project.path)
    workdir = load_task("t", Path("psy-tasks")).workdir
    plan = workdir.plans / workdir.plan_ids()[-1]
    for done in (plan / "done").iterdir():
        done.rename(plan / "open" / done.name.rpartition(".")[0])
    for path in [*workdir.part_paths(), workdir.manifest]:
        path.unlink()
    return workdir


def test_it_returns_when_another_command_is_done(project: Project, started: Callable[..., Any]) -> None:
    """With status 0 and the result in place; who works is told."""
    project.logging_task(n=20, seconds=0.05)
    command = project.start("t")
    until(project.starts)
    waiting = started("wait", "t")
    told, said = waiting.communicate(timeout=30)
    assert waiting.returncode == 0
    assert told.startswith("t: 20 of 20 items done\n  result: ")
    assert said.startswith("t: waiting for a worker on ")
    assert command.wait(timeout=20) == 0


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), (FAILING, 1)])
def test_what_is_over_is_told_at_once(project: Project, text: str, status: int) -> None:
    """With the status of the run; nothing is written."""
    project.task("t", text)
    project.run("t", status=status)
    before = tree(project.path / "psy-work")
    done = project.run("wait", "t", status=status)
    assert done.stderr == (
        "psy-doit: t: 1 failed; psy-doit t tries them again. Why: psy-doit status -v t\n" if status else ""
    )
    assert tree(project.path / "psy-work") == before


def test_what_nobody_works_on_is_told_with_what_to_type(project: Project) -> None:
    """Status 75, also of a task that never ran; a task that is unknown is 3."""
    project.task("t", GOOD)
    project.task("other", GOOD)
    project.run("other")
    told = project.run("wait", "other", "t", status=75).stderr
    assert told == "psy-doit: t: 4 items are missing, and nobody is at work on them. To compute them: psy-doit t\n"
    project.run("wait", "u", status=3)
    assert not (project.path / "psy-work" / "t").exists()


def test_rows_of_other_code_are_not_taken_for_done(project: Project) -> None:
    """Status 4, as a run has it."""
    project.task("t", GOOD)
    project.run("t")
    project.task("t", GOOD.replace("x == 9", "x == 8"))
    assert "--keep" in project.run("wait", "t", status=4).stderr


def test_json_has_the_report_of_status_and_how_it_ended(project: Project) -> None:
    """With a schema_version, one entry a task."""
    project.task("t", FAILING)
    project.run("t", status=1)
    (found,) = json.loads(project.run("wait", "t", "--json", status=1).stdout)
    assert project.status("t").items() <= found.items()
    assert found["schema_version"] == 1
    assert (found["outcome"], found["exit_status"], found["at_work"]) == ("failed", 1, False)
    listed = json.loads(project.run("list", "--json").stdout)
    assert listed == [{"schema_version": 1, "task": "t", "file": "psy-tasks/task_t.py"}]


def test_the_time_can_be_limited(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 124, as of timeout(1); what is no time is 2."""
    elsewhere(unfinished(project, monkeypatch))
    begin = time.monotonic()
    done = project.run("wait", "t", "--timeout", "0.3", status=124, PSYRUN_TTL="60")
    assert time.monotonic() - begin < 10
    assert "a worker on elsewhere, process 7" in done.stderr
    assert "the time is over" in done.stderr
    told = project.run("wait", "t", "--timeout", "0.3s", "--json", status=124, PSYRUN_TTL="60").stdout
    assert json.loads(told)[0]["at_work"]
    assert "such as 10m" in project.run("wait", "t", "--timeout", "soon", status=2).stderr


def test_a_worker_elsewhere_that_falls_silent_is_not_waited_for(
    project: Project, started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its heart beats, it is waited for; then for the time to live, and no longer."""
    beat = elsewhere(unfinished(project, monkeypatch))
    waiting = started("wait", "t", PSYRUN_TTL="1.5")
    assert "on elsewhere" in waiting.stderr.readline()
    end = time.monotonic() + 3  # twice the time to live
    while time.monotonic() < end:
        beat.beat()
        assert waiting.poll() is None
        time.sleep(0.05)
    begin = time.monotonic()
    assert waiting.wait(timeout=20) == 75
    assert 1 < time.monotonic() - begin < 10


def test_a_worker_between_two_chunks_is_waited_for(
    project: Project, monkeypatch: pytest.MonkeyPatch, started: Callable[..., Any]
) -> None:
    """It holds nothing then; its heart beats. When nothing is left to claim, a heartbeat left behind means nothing."""
    workdir = unfinished(project, monkeypatch)
    beat = elsewhere(workdir)
    plan = workdir.plans / workdir.plan_ids()[-1]
    for held in (plan / "held").iterdir():
        held.rename(plan / "open" / held.name.rpartition(".")[0])
    beat.beat()
    project.run("wait", "t", "--timeout", "1.5", status=124, PSYRUN_TTL="60")
    (plan / "open").rename(plan / "withdrawn")
    project.run("wait", "t", "--timeout", "20", status=75, PSYRUN_TTL="60")


def test_killed_workers_end_the_wait(project: Project, started: Callable[..., Any]) -> None:
    """With status 75 and what to type; the plain command computes the rest, and then it is 0."""
    project.logging_task(n=30, seconds=0.1, max_jobs=3)
    command = project.start("t")
    until(project.starts)
    waiting = started("wait", "t")
    assert "waiting" in waiting.stderr.readline()
    for pid in [command.pid, *descendants(command.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    command.wait()
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 75
    assert said.endswith("To compute them: psy-doit t\n")
    project.run("t")
    project.run("wait", "t")


def test_a_worker_that_is_replaced_does_not_end_the_wait(project: Project, started: Callable[..., Any]) -> None:
    """The command starts another one: it is at work, too."""
    project.logging_task(n=30, seconds=0.05, max_jobs=3)
    command = project.start("t")
    until(project.starts)
    waiting = started("wait", "t")
    assert "waiting" in waiting.stderr.readline()
    os.kill(descendants(command.pid)[1], signal.SIGKILL)  # the first waits for orders, the worker is below it
    assert waiting.wait(timeout=30) == 0
    assert command.wait(timeout=20) == 0


def test_ctrl_c_leaves_quietly(project: Project, started: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """With status 130 and not a word; nothing changes."""
    workdir = unfinished(project, monkeypatch)
    elsewhere(workdir)
    before = tree(workdir.path)
    waiting = started("wait", "t", PSYRUN_TTL="60")
    assert "waiting" in waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    told, said = waiting.communicate(timeout=20)
    assert (waiting.returncode, told, said) == (130, "", "")
    assert tree(workdir.path) == before


def test_it_does_not_wait_for_other_tasks_of_the_command(project: Project, started: Callable[..., Any]) -> None:
    """The command that made the plan is at work on the task until it merged, not for as long as it lives."""
    project.task("a", GOOD)
    project.logging_task("t", n=100, seconds=0.1)
    command = project.start("a", "t")
    until(project.starts)
    project.run("wait", "a")
    assert command.poll() is None
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()


def test_it_waits_for_the_merge(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """All items are done, nothing is held: the command that made the plan lives, and did not merge yet."""
    project.task("t", GOOD)
    project.run("t")
    monkeypatch.chdir(project.path)
    workdir = load_task("t", Path("psy-tasks")).workdir
    plan = workdir.plans / "0001" / "plan.json"
    content = json.loads(plan.read_text()) | {"planner": vars(Process.current())}
    del content["checksum"]
    plan.write_text(json.dumps(content | {"checksum": json_checksum(content)}))
    assert not Lookout(workdir).look().at_work
    manifest = workdir.manifest.read_bytes()
    workdir.manifest.unlink()
    assert "the command on" in project.run("wait", "t", "--timeout", "1.5", status=124).stderr
    workdir.manifest.write_bytes(manifest)
    project.run("wait", "t")


def test_any_token_is_one_of_those_listed(tmp_path: Path) -> None:
    """Foreign names are none, and neither is a directory that is not there."""
    claims = Claims(tmp_path)
    assert not claims.has("open")
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / ".nfs0001").touch()
    assert not claims.has("open") and not claims.tokens("open")
    (tmp_path / "open" / "0-1.0").touch()
    assert claims.has("open") and claims.tokens("open")


def test_one_look_is_not_enough() -> None:
    """Nobody at work twice in a row ends it; of several tasks all at the same time."""
    quiet = Quiet()
    nobody, somebody = Activity(), Activity(workers=[Worker("0" * 16)])
    assert not quiet.sure([nobody, nobody])
    assert quiet.likely
    assert not quiet.sure([somebody, nobody])
    assert not quiet.sure([nobody, nobody])
    assert quiet.sure([nobody, nobody])


def test_a_full_and_read_only_disk_is_enough(project: Project, tmp_path: Path) -> None:
    """Nothing is written, so nothing can fail."""
    disk = tmp_path / "psy-work"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        project.task("t", GOOD)
        project.run("t")
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        assert project.run("wait", "t").stderr == ""
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert project.run("wait", "t").stderr == ""
        assert project.run("watch", "t").stderr == ""
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_why_nobody_is_at_work_is_told(project: Project) -> None:
    """Where jobs gave up, by the words of the last one."""
    project.task("t", GOOD)
    project.run("t", "--items", "0")
    log = project.path / "psy-work" / "t" / "log" / "job-7_0.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text(
        "psyrun: job 7_0 on node n1\npsyrun: the worker has started\npsyrun: the worker gave up: no module x\n"
    )
    told = project.run("wait", "t", status=75).stderr
    assert "at work on them. The worker gave up: no module x (" in told
    assert told.endswith("When that is mended: psy-doit t\n")


def test_jobs_that_will_never_start_are_to_be_killed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command alone adds none while they are there."""
    project.task("t", GOOD)
    monkeypatch.chdir(project.path)
    found = verdict(look(load_task("t", Path("psy-tasks"))), ["7_0", "7_1"])
    assert (found.status, found.outcome) == (75, "missing")
    assert "Jobs 7_[0-1] will never start: psy-doit status t tells why" in found.message
    assert found.message.endswith("then: psy-doit kill t; psy-doit t")
