"""Workers that come and go while a run is under way: work, grow, drain, pause and resume on one machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import psyrun
from faults import at_time
from project import PSY_DOIT, Project, descendants, until
from psyrun.files import as_json, json_checksum
from psyrun.record import read_parts
from psyrun.workdir import Workdir

TASK = """
    import os, time
    from psyrun import Param, Multiprocessing

    pspace = Param(x=range({n}))
    scheduler = Multiprocessing({workers})
    max_jobs = {max_jobs}
    {options}

    def execute(x):
        fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{{x}}\\n".encode())
        os.close(fd)
        {body}
        return {{"y": x * x}}
"""
AT_GATE = 'while not os.path.exists("gate"): time.sleep(0.01)'
BY_NUMBER = 'while not os.path.exists(f"gate{x}") and not os.path.exists("gate"): time.sleep(0.01)'


class Elastic(Project):
    """A project with a task whose items can be held up, and commands that are over after the test."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.commands: list[subprocess.Popen[str]] = []

    def elastic_task(
        self, n: int = 12, workers: int = 2, max_jobs: int = 6, body: str = AT_GATE, options: str = ""
    ) -> None:
        """Write a task whose items note that they were started, and wait for a gate."""
        self.task("t", TASK, n=n, workers=workers, max_jobs=max_jobs, body=body, options=options)

    def open_gate(self, number: str = "") -> None:
        """Let all items go on that wait for it, or the one of a number."""
        (self.path / f"gate{number}").touch()

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """Start psy-doit, with what it says kept."""
        return self.popen_words([PSY_DOIT, *words])

    def popen_words(self, words: list[str]) -> subprocess.Popen[str]:
        """Start a command, with what it says kept."""
        command = subprocess.Popen(
            words,
            cwd=self.path,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.commands.append(command)
        return command

    @property
    def workdir(self) -> Workdir:
        """The work directory."""
        return Workdir(self.path / "psy-work/t")

    def started(self) -> Counter[int]:
        """Return how often each item was started."""
        return Counter(self.starts())

    def rows(self) -> Counter[int]:
        """Return how many rows of each item are on record."""
        return Counter(i for part in read_parts(self.workdir) for i in part.indices.tolist())

    def files(self) -> dict[str, int]:
        """Return what there is in the work directory, and when it was changed."""
        paths = [p for p in self.workdir.path.rglob("*") if p.parent.name != "beat" and p.suffix != ".log"]
        return {str(path): path.lstat().st_mtime_ns for path in paths}

    def was_told(self, what: str) -> None:
        """Return when workers noted that they were told something."""
        until(lambda: any(f"(psyrun: {what}" in path.read_text() for path in self.workdir.logs.glob("*.log")))

    def beats(self) -> list[dict[str, object]]:
        """Return what heartbeats say."""
        found = []
        for path in self.workdir.beats.glob("[0-9a-f]*"):
            with suppress(OSError, ValueError):
                found.append(json.loads(path.read_text()))
        return found

    def some_beats_later(self) -> None:
        """Return when the workers have looked what there is to do several times."""
        before = {beat["worker"]: beat["count"] for beat in self.beats()}
        assert before
        until(lambda: all(int(str(b["count"])) > int(str(before[b["worker"]])) + 8 for b in self.beats()))


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Elastic]:
    """Return a project."""
    project = Elastic(tmp_path)
    yield project
    kill_all(*(command for command in project.commands if command.returncode is None))


def kill_all(*commands: subprocess.Popen[str]) -> None:
    """Kill commands and all below them at once."""
    pids = [pid for command in commands for pid in [command.pid, *descendants(command.pid)]]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for command in commands:
        command.communicate(timeout=20)


def finish(command: subprocess.Popen[str], status: int = 0) -> str:
    """Wait for a command and return what it said on standard error."""
    _, error = command.communicate(timeout=60)
    assert command.returncode == status, error
    return error


def assert_all_once(project: Elastic, n: int = 12) -> None:
    """All items are done and merged, and each was started once."""
    assert project.status("t")["merged"]
    assert project.result("t")["y"].tolist() == [x * x for x in range(n)]
    assert project.started() == dict.fromkeys(range(n), 1)


class TestPause:
    """psy-doit pause, and resume."""

    def test_nothing_more_is_begun_until_it_goes_on(self, project: Elastic) -> None:
        """What is in hand is finished; the workers stay, and the command that waits says so."""
        project.elastic_task()
        command = project.popen("t")
        until(lambda: len(project.starts()) == 2)
        assert "To go on: psy-doit resume t" in project.run("pause", "t").stdout
        project.was_told("paused")
        project.open_gate()
        until(lambda: project.status("t")["n_done"] == 2)
        project.some_beats_later()
        assert len(project.starts()) == 2
        told = project.status("t")
        assert told["paused"]
        assert "paused: psy-doit resume t" in project.run("status", "t").stdout
        assert project.run("wait", "--timeout", "0.5", "t", status=124).stderr
        assert "goes on; at work: a worker on" in project.run("resume", "t").stdout
        assert "t: paused. To go on: psy-doit resume t" in finish(command)
        assert_all_once(project)
        assert not project.status("t")["paused"]

    def test_what_is_so_already_is_said(self, project: Elastic) -> None:
        """Status 0 each time; without a work directory none is made."""
        project.elastic_task()
        assert "never run" in project.run("pause", "t").stdout
        assert "is not paused" in project.run("resume", "t").stdout
        assert not (project.path / "psy-work").exists()
        project.open_gate()
        project.run("t", "--items", "0")
        project.run("pause", "t")
        assert "is paused already, since" in project.run("pause", "t").stdout
        assert "nobody is at work on it. To compute the rest: psy-doit t" in project.run("resume", "t").stdout
        assert "is not paused" in project.run("resume", "t").stdout
        project.run("pause", "u", status=3)
        project.run("resume", "u", status=3)

    def test_nothing_is_started_meanwhile(self, project: Elastic) -> None:
        """Commands that would compute are refused, say what to type, and change nothing."""
        project.elastic_task()
        project.open_gate()
        project.run("t", "--items", "0-3")
        project.run("pause", "t")
        before = project.files()
        for words in (["t"], ["t", "--dry-run"], ["work", "t"], ["grow", "t", "--jobs", "2"]):
            told = project.run(*words, status=4).stderr
            assert "is paused since 20" in told
            assert "To go on: psy-doit resume t" in told
        assert project.files() == before
        assert len(project.starts()) == 4

    def test_pause_then_kill(self, project: Elastic) -> None:
        """Status tells what is missing and that it is paused; then it is completed, and nothing finished twice."""
        project.elastic_task(body=BY_NUMBER)
        command = project.popen("t")
        until(lambda: len(project.starts()) == 2)
        first, lost = project.starts()
        project.run("pause", "t")
        project.was_told("paused")
        project.open_gate(str(first))
        until(lambda: project.status("t")["n_done"] == 1)
        kill_all(command)
        told = project.status("t")
        assert (told["n_done"], told["n_running"], told["n_missing"], told["paused"]) == (1, 0, 11, True)
        project.run("t", status=4)
        project.run("wait", "t", status=75)
        project.run("resume", "t")
        project.open_gate()
        project.run("t")
        assert project.started() == {x: 2 if x == lost else 1 for x in range(12)}
        assert project.rows() == dict.fromkeys(range(12), 1)

    def test_a_worker_that_is_killed_is_replaced_by_one_that_waits(self, project: Elastic) -> None:
        """Also where all that is left was in the hands of the killed one."""
        project.elastic_task(n=4, max_jobs=1, workers=1)
        command = project.popen("t")
        until(lambda: len(project.starts()) == 1)
        project.run("pause", "t")
        (beat,) = project.beats()
        os.kill(int(str(beat["pid"])), signal.SIGKILL)
        until(lambda: [b for b in project.beats() if b["worker"] != beat["worker"]])
        project.open_gate()
        project.was_told("paused")
        assert len(project.starts()) == 1
        assert command.poll() is None
        project.run("resume", "t")
        finish(command)
        assert project.rows() == dict.fromkeys(range(4), 1)

    def test_who_has_nothing_left_does_not_wait(self, project: Elastic) -> None:
        """When the last items were in hand, the run ends as ever."""
        project.elastic_task(n=2)
        command = project.popen("t")
        until(lambda: len(project.starts()) == 2)
        project.run("pause", "t")
        project.was_told("paused")
        project.open_gate()
        finish(command)
        assert_all_once(project, 2)


class TestDrain:
    """psy-doit drain."""

    def test_workers_finish_what_they_have_in_hand_and_leave(self, project: Elastic) -> None:
        """The command that waits merges what there is, and ends with 75; typed again, all is completed."""
        project.elastic_task()
        command = project.popen("t")
        until(lambda: len(project.starts()) == 2)
        told = project.run("drain", "t").stdout
        assert "t: drained; a worker on" in told
        assert "to go on: psy-doit t" in told
        project.was_told("drained")
        project.open_gate()
        assert "t: drained; what is finished is on record. To go on: psy-doit t" in finish(command, 75)
        told_of = project.status("t")
        assert (told_of["n_done"], told_of["n_missing"], told_of["merged"]) == (2, 10, True)
        with pytest.warns(UserWarning, match="2 of 12 items"):
            assert project.result("t")["x"].tolist() == sorted(project.starts())
        assert project.run("wait", "t", status=75)
        assert project.steps("t")[0] == ".  t:split"
        assert_all_once(project)

    def test_nobody_at_work(self, project: Elastic) -> None:
        """It says so, and changes nothing; status 0."""
        project.elastic_task()
        assert "nobody is at work on it" in project.run("drain", "t").stdout
        assert not (project.path / "psy-work").exists()
        project.open_gate()
        project.run("t", "--items", "1")
        before = project.files()
        assert "To compute what is missing: psy-doit t" in project.run("drain", "t").stdout
        assert project.files() == before
        project.run("drain", "u", status=3)

    def test_typed_again_while_the_last_item_is_in_hand(self, project: Elastic) -> None:
        """A new plan has all but that item; who made it waits for the item, too."""
        project.elastic_task(n=8, workers=1, max_jobs=1, body=BY_NUMBER)
        command = project.popen("t")
        until(lambda: len(project.starts()) == 1)
        project.run("drain", "t")
        until(lambda: len(list((project.workdir.plans / "0001/open").iterdir())) == 1)
        for x in range(1, 8):
            project.open_gate(str(x))
        again = project.popen("t")
        until(lambda: project.status("t")["n_done"] == 7)
        assert again.poll() is None
        project.open_gate()
        finish(again)
        finish(command, 75)
        assert_all_once(project, 8)

    def test_a_paused_run_can_be_drained(self, project: Elastic) -> None:
        """Nobody waits for the end of the pause then."""
        project.elastic_task()
        command = project.popen("t")
        until(lambda: len(project.starts()) == 2)
        project.run("pause", "t")
        project.was_told("paused")
        project.run("drain", "t")
        project.open_gate()
        finish(command, 75)
        assert len(project.starts()) == 2


class TestWork:
    """psy-doit work."""

    def test_it_joins_a_run_under_way(self, project: Elastic) -> None:
        """Both work, nothing is done twice, and each says what it did."""
        project.elastic_task(n=12, workers=1)
        command = project.popen("t")
        until(lambda: len(project.starts()) == 1)
        guest = project.popen("work", "t", "-n", "3")
        until(lambda: len(project.starts()) == 4)
        assert len(project.beats()) == 2
        project.open_gate()
        told = finish(guest)
        assert "items finished here" in told
        finish(command)
        assert_all_once(project)

    def test_two_at_once_without_the_command(self, project: Elastic) -> None:
        """It was killed: they do all of it, once, and merge."""
        project.elastic_task(n=12, workers=2, max_jobs=12)
        kill_all(started(project))
        lost = project.started()
        guests = [project.popen("work", "t", "-n", "2") for _ in range(2)]
        until(lambda: len(project.starts()) == 6)
        project.open_gate()
        for guest in guests:
            finish(guest)
        assert project.status("t")["merged"]
        assert project.result("t")["y"].tolist() == [x * x for x in range(12)]
        assert project.started() == {x: 1 + lost[x] for x in range(12)}
        assert project.rows() == dict.fromkeys(range(12), 1)

    def test_one_of_an_earlier_plan_that_leaves_last_merges_the_newest(self, project: Elastic) -> None:
        """The space grew meanwhile; all others were done before it."""
        project.elastic_task(n=3, workers=1, body=BY_NUMBER)
        command = project.popen("t", "-n", "1")
        until(lambda: project.starts() == [0])
        guest = project.popen("work", "t", "-n", "1")
        until(lambda: sorted(project.starts()) == [0, 1])
        for pid in [command.pid, *descendants(command.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.communicate(timeout=60)
        project.elastic_task(n=4, workers=1, body=BY_NUMBER)
        for number in "023":
            project.open_gate(number)
        second = project.popen("t", "-n", "1")
        until(lambda: project.status("t")["n_done"] == 3)
        second.send_signal(signal.SIGINT)
        second.communicate(timeout=60)
        project.open_gate("1")
        told = guest.communicate(timeout=60)
        assert guest.returncode == 0, told
        assert project.result("t")["x"].tolist() == [0, 1, 2, 3]

    @pytest.mark.parametrize("python", ["", f"python = {sys.executable!r}"])
    def test_no_more_items_than_wanted(self, project: Elastic, python: str) -> None:
        """However many run at a time; what is not begun is open to others, and it is not merged."""
        project.elastic_task(n=20, workers=1, max_jobs=2, options=python)
        kill_all(started(project, 1))
        project.open_gate()
        (project.path / "starts").unlink()
        told = finish(project.popen("work", "t", "-n", "3", "--items", "5"))
        assert "t: 5 items finished here" in told
        assert "5 of 20 items done, 15 left; at work: nobody. psy-doit t" in told
        assert len(project.starts()) == 5
        assert sum(project.rows().values()) == 5
        assert not project.workdir.manifest.exists()
        finish(project.popen("work", "t"))
        assert_all_once(project, 20)

    def test_short_items_are_counted_one_by_one(self, project: Elastic) -> None:
        """Where many are dealt at a time."""
        project.elastic_task(n=5000, workers=2, max_jobs=1, body=AT_GATE)
        kill_all(started(project))
        project.open_gate()
        assert "t: 777 items finished here" in finish(project.popen("work", "t", "--items", "777"))
        assert sum(project.rows().values()) == 777

    def test_an_item_that_ends_its_process_counts_once(self, project: Elastic) -> None:
        """It is tried again as often as ever, and is one of the items; the status says that one failed."""
        project.elastic_task(n=9, workers=1, max_jobs=1, body="if x == 0: time.sleep(0.1); os._exit(1)")
        kill_all(started(project, 1))
        (project.path / "starts").unlink(missing_ok=True)
        told = finish(project.popen("work", "t", "--items", "2"), 1)
        assert "2 items finished here, 1 of them failed" in told
        assert project.started() == {0: 3, 1: 1}

    def test_nothing_is_begun_after_the_time(self, project: Elastic) -> None:
        """What is in hand is finished."""
        project.elastic_task(n=12, workers=1)
        kill_all(started(project, 1))
        (project.path / "starts").unlink()
        guest = project.popen("work", "t", "--minutes", "0.02")
        until(lambda: len(project.starts()) == 1)
        (beat,) = (b for b in project.beats() if b["pid"] in descendants(guest.pid))
        until(lambda: any(b["worker"] == beat["worker"] and int(str(b["count"])) > 12 for b in project.beats()))
        project.open_gate()
        assert "t: 1 items finished here" in finish(guest)
        assert len(project.starts()) == 1

    @pytest.mark.parametrize(
        "words",
        [
            ["--items", "0"],
            ["--items", "x"],
            ["--minutes", "0"],
            ["--minutes", "-1"],
            ["--minutes", "nan"],
            ["--minutes", "soon"],
            ["-n", "0"],
        ],
    )
    def test_numbers_that_are_none(self, project: Elastic, words: list[str]) -> None:
        """A usage error, with what is taken."""
        project.elastic_task()
        assert words[1] in project.run("work", "t", *words, status=2).stderr

    def test_an_interrupt(self, project: Elastic) -> None:
        """Status 130; what is finished is on record, the rest open to others."""
        project.elastic_task(body=BY_NUMBER, workers=1)
        kill_all(started(project, 1))
        (project.path / "starts").unlink()
        guest = project.popen("work", "t", "-n", "2")
        until(lambda: len(project.starts()) == 2)
        done = project.starts()[0]
        project.open_gate(str(done))
        until(lambda: project.status("t")["n_done"] == 1)
        guest.send_signal(signal.SIGINT)
        assert "To go on: psy-doit work t" in finish(guest, 130)
        assert project.status("t")["n_running"] == 0
        project.open_gate()
        project.run("t")
        assert project.rows() == dict.fromkeys(range(12), 1)
        assert project.started()[done] == 1

    def test_items_that_fail(self, project: Elastic) -> None:
        """The status is 1, as that of a run; the others are done, and all is merged."""
        project.elastic_task(body="if x == 7 and os.path.exists('bad'): raise ValueError(x)\n    " + AT_GATE)
        kill_all(started(project))
        project.open_gate()
        (project.path / "bad").touch()
        told = finish(project.popen("work", "t"), 1)
        assert "12 items finished here, 1 of them failed" in told
        found = project.status("t")
        assert (found["n_done"], found["n_failed"], found["merged"]) == (11, 1, True)


def started(project: Elastic, n: int = 2) -> subprocess.Popen[str]:
    """Start a run and return when so many items are in hand."""
    command = project.popen("t")
    until(lambda: len(project.starts()) >= n)
    return command


def changed_plan(project: Elastic, **content: object) -> None:
    """Write other content into the newest plan, with its checksum."""
    path = project.workdir.plans / project.workdir.plan_ids()[-1] / "plan.json"
    told = json.loads(path.read_text()) | content
    del told["checksum"]
    path.write_bytes(as_json(told | {"checksum": json_checksum(told)}))


class TestRefused:
    """Who cannot join, and why."""

    @pytest.mark.parametrize(
        ("edit", "why"),
        [
            (("x * x", "-x"), "it is of other code"),
            (("range(12)", "range(13)"), "it is of another parameter space (12 items"),
        ],
    )
    def test_another_task_file(self, project: Elastic, edit: tuple[str, str], why: str) -> None:
        """Other code or another space: nothing is claimed, and the run is not disturbed."""
        project.elastic_task()
        command = started(project)
        path = project.tasks / "task_t.py"
        text = path.read_text()
        path.write_text(text.replace(*edit))
        for words in (["work", "t"], ["grow", "t", "--jobs", "1"]):
            told = project.run(*words, status=4).stderr
            assert why in told
            assert "psy-doit t" in told
        path.write_text(text)
        project.open_gate()
        finish(command)
        assert_all_once(project)

    def test_another_version_of_psyrun(self, project: Elastic) -> None:
        """Neither `work` nor any other worker of this version touches the plan; the next run makes a new one."""
        project.elastic_task()
        kill_all(started(project))
        changed_plan(project, psyrun="0.9")
        told = project.run("work", "t", status=4).stderr
        assert f"was made by psyrun 0.9, this is psyrun {psyrun.__version__}" in told
        words = [sys.executable, "-m", "psyrun.worker", str(project.workdir.path), "0001"]
        done = subprocess.run(words, cwd=project.path, env=project.environment(), check=False)
        assert done.returncode == 75
        assert len(project.starts()) == 2
        project.open_gate()
        project.run("t")
        assert project.workdir.plan_ids() == ["0001", "0002"]
        assert project.rows() == dict.fromkeys(range(12), 1)

    def test_a_run_of_another_version_under_way_is_waited_for(self, project: Elastic) -> None:
        """Its workers finish what they hold; this version joins them in nothing."""
        project.elastic_task(n=6, workers=1, max_jobs=3)
        command = started(project, 1)
        changed_plan(project, psyrun="0.9")
        again = project.popen("t")
        until(lambda: len(project.workdir.plan_ids()) == 2)
        project.open_gate()
        finish(again)
        command.communicate(timeout=60)
        assert_all_once(project, 6)

    def test_a_complete_task_of_another_version_stays_so(self, project: Elastic) -> None:
        """An update of psyrun makes no new plan where nothing is missing."""
        project.elastic_task()
        project.open_gate()
        project.run("t")
        changed_plan(project, psyrun="0.9")
        assert project.steps("t") == ["-- t:split", "-- t:merge"]

    def test_nothing_to_claim(self, project: Elastic) -> None:
        """No plan, all done, or the rest failed: said, with what to type."""
        project.elastic_task(body="if x == 3 and not os.path.exists('gate'): raise ValueError(x)")
        for words in (["work", "t"], ["grow", "t", "--jobs", "1"]):
            assert "there is no plan. To make one: psy-doit t" in project.run(*words, status=4).stderr
        project.run("t", status=1)
        assert "nothing is left to claim" in project.run("work", "t", status=4).stderr
        assert (
            "nobody is at work on it. To start a run: psy-doit t"
            in project.run("grow", "t", "--jobs", "1", status=4).stderr
        )
        project.open_gate()
        project.run("t")
        for words in (["work", "t"], ["grow", "t", "--jobs", "1"]):
            assert "all 12 items are done" in project.run(*words, status=4).stderr

    def test_a_drained_plan(self, project: Elastic) -> None:
        """Not even by a worker that starts later."""
        project.elastic_task()
        command = started(project)
        project.run("drain", "t")
        for words in (["work", "t"], ["grow", "t", "--jobs", "1"]):
            assert "it was drained. To go on: psy-doit t" in project.run(*words, status=4).stderr
        words = [sys.executable, "-m", "psyrun.worker", str(project.workdir.path), "0001"]
        assert subprocess.run(words, cwd=project.path, env=project.environment(), check=False).returncode == 0
        assert len(project.starts()) == 2
        project.open_gate()
        finish(command, 75)

    def test_a_directory_that_others_could_write(self, project: Elastic) -> None:
        """Nothing in it is trusted."""
        project.elastic_task()
        kill_all(started(project))
        project.workdir.path.chmod(0o777)
        for words in (["work", "t"], ["grow", "t", "--jobs", "1"], ["drain", "t"], ["pause", "t"], ["resume", "t"]):
            assert "trusted" in project.run(*words, status=4).stderr
        assert len(project.starts()) == 2

    @pytest.mark.parametrize("words", [["work"], ["grow", "--jobs", "1"], ["drain"], ["pause"], ["resume"]])
    def test_names_mistyped(self, project: Elastic, words: list[str]) -> None:
        """As for any command."""
        project.task("square", "from psyrun import Param\npspace = Param(x=[1])\ndef execute(x): return {}\n")
        assert "Did you mean square?" in project.run(*words, "sqare", status=3).stderr

    @pytest.mark.parametrize("n", ["0", "-1", "x", ""])
    def test_grow_by_no_number(self, project: Elastic, n: str) -> None:
        """A usage error."""
        project.elastic_task()
        assert "--jobs" in project.run("grow", "t", *(["--jobs", n] if n else []), status=2).stderr


class TestGrow:
    """psy-doit grow where the scheduler is of this machine."""

    def test_it_becomes_the_workers(self, project: Elastic) -> None:
        """As many as are wanted, times pool_size; it says so, and ends with the run."""
        project.elastic_task(n=12, workers=1, options="pool_size = 2")
        command = started(project)
        grown = project.popen("grow", "t", "--jobs", "3")
        until(lambda: len(project.starts()) == 8)
        project.open_gate()
        told = finish(grown)
        assert "these are 3 new workers" in told
        assert "items finished here" in told
        finish(command)
        assert_all_once(project)


class TestFaults:
    """What befalls workers that come and go."""

    def test_all_workers_killed(self, project: Elastic) -> None:
        """Command and guests with kill -9: typed again all is done, and no row is there twice."""
        project.elastic_task(n=30, workers=2, max_jobs=10, body=AT_GATE + "\n    time.sleep(0.2)")
        commands = [started(project, 1), project.popen("work", "t", "-n", "2"), project.popen("work", "t")]
        until(lambda: len(project.beats()) == 3 and len(project.starts()) == 6)
        project.open_gate()
        until(lambda: len(project.starts()) >= 12)
        kill_all(*commands)
        n_done = project.status("t")["n_done"]
        n_started = len(project.starts())
        assert 0 < n_done < 30
        project.run("t")
        assert project.rows() == dict.fromkeys(range(30), 1)
        assert len(project.starts()) == n_started + 30 - n_done

    def test_more_jobs_than_items(self, project: Elastic) -> None:
        """Nobody is started for nothing, here and by `grow`."""
        project.elastic_task(n=3, workers=8, max_jobs=50)
        command = started(project, 1)
        until(lambda: len(project.starts()) == 3)
        assert "nothing is left to claim" in project.run("grow", "t", "--jobs", "100", status=4).stderr
        project.open_gate()
        finish(command)
        assert_all_once(project, 3)

    @pytest.mark.parametrize("shift", ["-1d", "+1d"])
    def test_a_worker_whose_clock_is_a_day_off(self, project: Elastic, shift: str) -> None:
        """Nobody takes it, or is taken by it, for dead or alive wrongly; its rows count."""
        project.elastic_task(n=12, workers=1, max_jobs=4, body=BY_NUMBER)
        command = started(project, 1)
        guest = project.popen_words(at_time(shift, "work", "t"))
        until(lambda: len(project.starts()) == 2)
        until(lambda: len(project.beats()) == 2)
        since = sorted(float(str(beat["since"])) for beat in project.beats())
        assert since[1] - since[0] > 80000  # the clock is off indeed
        project.some_beats_later()
        told = project.status("t")
        assert len({worker["worker"] for worker in told["workers"]}) == 2
        assert project.run("wait", "--timeout", "0.5", "t", status=124).stderr
        kill_all(guest)
        until(lambda: len({worker["worker"] for worker in project.status("t")["workers"]}) == 1)
        guest = project.popen_words(at_time(shift, "work", "t"))
        until(lambda: len(project.starts()) == 3)
        project.open_gate()
        finish(guest)
        finish(command)
        assert project.status("t")["merged"]
        assert project.rows() == dict.fromkeys(range(12), 1)
