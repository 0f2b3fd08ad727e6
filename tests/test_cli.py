"""The command line: what it prints, its exit status, and what it says to somebody who mistypes."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

import psyrun
from project import PSY_DOIT, Project
from psyrun.cli import cli
from psyrun.taskfiles import COMMANDS

GOOD = "from psyrun import Param\npspace = Param(x=[1, 2])\ndef execute(x): return dict(y=x)\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_table_of_commands_is_the_commands() -> None:
    """Each name in the static table loads, and has a help text of its own."""
    context = cli.make_context("psy-doit", ["--help"], resilient_parsing=True)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.help


def test_bare_psy_doit_prints_help(project: Project) -> None:
    """It lists every command and the exit statuses."""
    text = project.run().stdout
    assert text == project.run("--help").stdout
    assert all(name in text for name in COMMANDS)
    assert "Exit status" in text


def test_version(project: Project) -> None:
    """The version is that of the package; python -m psyrun is the same command."""
    assert psyrun.__version__ in project.run("--version").stdout
    done = subprocess.run([sys.executable, "-m", "psyrun", "--version"], capture_output=True, text=True, check=True)
    assert psyrun.__version__ in done.stdout


def test_list_prints_the_names_one_a_line_and_runs_nothing(project: Project) -> None:
    """Even files that cannot be run are listed; foreign files are not."""
    project.task("b", "raise SystemExit('was run')")
    project.task("a-1.x", "syntax error")
    (project.tasks / "task_.py").touch()
    (project.tasks / "notes.txt").touch()
    assert project.run("list").stdout == "a-1.x\nb\n"


def test_an_unknown_task_lists_those_there_are(project: Project) -> None:
    """Exit status 3, and the name that may have been meant; of several names none is run."""
    project.task("square", GOOD)
    error = project.run("sqare", status=3).stderr
    assert "Did you mean square?" in error
    assert "There are: square." in error
    project.run("square", "cube", status=3)
    assert not (project.path / "psy-work").exists()


def test_without_task_files_the_way_to_begin_is_told(tmp_path: Path) -> None:
    """psy-doit new NAME."""
    done = subprocess.run([PSY_DOIT, "list"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "psy-doit new NAME" in done.stderr
    done = subprocess.run([PSY_DOIT, "cc1"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "psy-doit new cc1" in done.stderr


def test_from_nothing_to_a_result(tmp_path: Path) -> None:
    """new, test, run in an empty directory."""

    def psy_doit(*words: str) -> str:
        return subprocess.run([PSY_DOIT, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    psy_doit("new", "first")
    assert psy_doit("list") == "first\n"
    assert psy_doit("test", "first").splitlines() == ["first", "item 0 (a=1, b=10):", "y = 10"]
    psy_doit("first")
    assert psyrun.NpzStore().load(tmp_path / "psy-work/first/result.npz")["y"].tolist() == [10, 20, 20, 40, 30, 60]


def test_new_overwrites_nothing(project: Project) -> None:
    """Exit status 4; a bad name is 2."""
    project.run("new", "t")
    text = (project.tasks / "task_t.py").read_text()
    project.run("new", "t", status=4)
    assert (project.tasks / "task_t.py").read_text() == text
    project.run("new", "../t", status=2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_job = 3\n" + GOOD, "task_t.py:1: unknown option 'max_job'. Did you mean 'max_jobs'?"),
        ("pspace = (\n", "task_t.py:1:"),
        (GOOD.replace("execute", "exceute"), "Did you mean 'execute'?"),
        ("import no_such_module\n", "task_t.py:1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def execute(x): return {}\n", "pspace is missing"),
        ("from psyrun import Param\npspace = Param(x=1)\n", "execute is missing"),
        (GOOD.replace("execute(x)", "execute(z)"), "execute(z) cannot be called with the parameters of pspace (x)"),
        (GOOD + "max_jobs = 0\n", "max_jobs = 0: takes a whole number from 1"),
        (GOOD + "store = 'npz'\n", "store = 'npz': takes a store"),
        (GOOD + "name = 'u'\n", "name = 'u', but the file is that of 't'"),
        (GOOD + "file_dep = ['nowhere']\n", "file_dep: nowhere: No such file"),
        (GOOD.replace("[1, 2]", "[1, 2], y=[1]"), "x has 2, y has 1"),
        (GOOD.replace("Param(x=[1, 2])", "Param(x=[print])"), "parameter 'x'"),
        (GOOD.replace("Param(x=[1, 2])", "Param(x=[1]) * Param(x=[2])"), "both factors have x"),
        (GOOD + "import psyrun\nscheduler = psyrun.Sqsub('w')\n", "takes no job without a time limit"),
        (
            GOOD + "import psyrun\nscheduler = psyrun.Sqsub('w')\nscheduler_args = {'timelimit': '10m'}\n",
            "there is no sqsub",
        ),
    ],
)
def test_mistakes_in_task_files(project: Project, text: str, told: str) -> None:
    """Exit status 2, file and cause, and no traceback of ours; nothing is made."""
    project.task("t", text)
    error = project.run("t", status=2).stderr
    assert told in error
    assert "Traceback" not in error
    assert not (project.path / "psy-work").exists()


def test_test_runs_an_item_and_records_nothing(project: Project) -> None:
    """The first, or the one that --item names; a raising one gives its traceback and status 1."""
    project.task("t", "from psyrun import Param\npspace = Param(x=[1, 2, 0])\ndef execute(x): return dict(y=1 / x)\n")
    assert project.run("test", "t").stdout.splitlines() == ["t", "item 0 (x=1):", "y = 1.0"]
    assert "y = 0.5" in project.run("test", "t", "--item", "1").stdout
    failed = project.run("test", "t", "--item", "2", status=1)
    assert "ZeroDivisionError" in failed.stderr
    assert "--pdb" in failed.stderr
    assert "psyrun" not in failed.stderr.replace("psyrun import", "")
    assert "numbered 0 to 2" in project.run("test", "t", "--item", "3", status=2).stderr
    assert not (project.path / "psy-work").exists()


def test_test_opens_the_debugger_where_it_raises(project: Project) -> None:
    """--pdb stops in the frame of execute."""
    project.task(
        "t", "from psyrun import Param\npspace = Param(x=[41])\ndef execute(x):\n    inner = x + 1\n    1 / 0\n"
    )
    done = subprocess.run(
        [PSY_DOIT, "test", "t", "--pdb"],
        cwd=project.path,
        input="p inner\nq\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "42" in done.stdout


def test_taskdir_names_another_directory(project: Project) -> None:
    """Before the command or after the name."""
    project.task("t", GOOD)
    project.tasks.rename(project.path / "elsewhere")
    assert project.run("--taskdir", "elsewhere", "list").stdout == "t\n"
    project.run("t", "--taskdir", "elsewhere")
    assert project.run("--taskdir=elsewhere", "status", "t").stdout.startswith("t: 2 of 2 items done")


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5"])
def test_a_number_of_workers_is_a_number(project: Project, given: str) -> None:
    """Exit status 2 and what it takes."""
    project.task("t", GOOD)
    assert "whole number from 1" in project.run("t", "-n", given, status=2).stderr


def test_run_is_the_long_form(project: Project) -> None:
    """Also for tasks that are named like a command; options may come first."""
    project.task("list", GOOD)
    assert ".  list:merge" in project.steps("run", "list")
    project.task("t", GOOD)
    assert ".  t:merge" in project.steps("-n", "auto", "t")


def test_merge_writes_what_is_finished_into_a_file(project: Project) -> None:
    """Without the task file, in any format, never over a file."""
    project.task("t", "from psyrun import Param\npspace = Param(x=[1, 2, 0])\ndef execute(x): return dict(y=1 / x)\n")
    project.run("t", status=1)
    (project.tasks / "task_t.py").unlink()
    assert project.run("merge", "psy-work/t", "out.h5").stdout == "2 of 3 items: out.h5\n"
    with pytest.warns(UserWarning, match="2 of 3"):
        assert psyrun.H5Store().load(project.path / "out.h5")["y"].tolist() == [1.0, 0.5]
    project.run("merge", "psy-work/t", "out.h5", status=4)
    project.run("merge", "psy-work/t", "out.txt", status=2)
    project.run("merge", "psy-tasks", "out.npz", status=2)


def test_clean_asks_and_removes_only_ours(project: Project) -> None:
    """Without a terminal it takes --yes; a directory without our marker is left alone."""
    project.task("t", GOOD)
    project.run("t")
    refused = project.run("clean", "t", status=4)
    assert "--yes" in refused.stderr
    assert (project.path / "psy-work/t").exists()
    assert "removed" in project.run("clean", "t", "--yes").stdout
    assert not (project.path / "psy-work/t").exists()
    (project.path / "psy-work/t").mkdir()
    (project.path / "psy-work/t/mine").touch()
    project.run("clean", "t", "--yes", status=3)
    assert "holds files that are not psyrun's" in project.run("t", status=4).stderr
    assert (project.path / "psy-work/t/mine").exists()


@pytest.mark.parametrize("command", ["status", "list", "test", "run", "logs"])
def test_taskdir_goes_before_and_after_every_command(project: Project, command: str) -> None:
    """And is in the commands that messages propose."""
    project.task("t", GOOD.replace("return", "return 1 if x == 2 else"))
    project.tasks.rename(project.path / "else where")
    names = [] if command == "list" else ["t"]
    done = project.run(command, *names, "--taskdir", "else where", status=None)
    again = project.run("--taskdir", "else where", command, *names, status=None)
    assert done.returncode == again.returncode < 2
    if command == "run":
        assert "--taskdir 'else where'" in done.stderr


def test_mistyped_commands_are_recognised(project: Project) -> None:
    """The nearest command is proposed; keep and fresh exclude each other."""
    project.task("walk", GOOD)
    assert "Or the command: psy-doit status" in project.run("stauts", status=3).stderr
    assert "psy-doit --help" in project.run("help", status=3).stderr
    assert "exclude each other" in project.run("walk", "--keep", "--fresh", status=2).stderr
    assert "is a command" in project.run("new", "status", status=2).stderr
    assert "psy-doit new foo" in project.run("new", "task_foo.py", status=2).stderr


def test_one_bad_task_file_does_not_hide_the_others(project: Project) -> None:
    """Status tells of it and goes on; the exit status is that of the error."""
    project.task("a", GOOD)
    project.task("b", "(")
    project.task("c", GOOD)
    done = project.run("status", status=2)
    assert "a: 0 of 2" in done.stdout
    assert "c: 0 of 2" in done.stdout
    assert "task_b.py:1" in done.stderr
    assert "error" in json.loads(project.run("status", "--json", status=2).stdout)[1]


def test_a_mistake_in_what_execute_returns_shows_no_frames_of_ours(project: Project) -> None:
    """One headline with what was got and what is taken; the same words in test."""
    project.task("t", GOOD.replace("dict(y=x)", "dict(y=print)"))
    error = project.run("t", status=1).stderr
    assert "Traceback" not in error
    assert error.count("PickleStore") == 1
    assert "PickleStore" in project.run("test", "t", status=1).stderr


def test_an_interpreter_without_psyrun_is_told_before_anything_runs(project: Project) -> None:
    """Exit status 2."""
    project.task("t", GOOD + "python = '/nope/python'\n")
    assert "cannot import psyrun" in project.run("t", status=2).stderr
    assert not (project.path / "psy-work").exists()


def test_sys_exit_in_execute_is_shown(project: Project) -> None:
    """With its traceback, in test and in run."""
    project.task("t", "import sys\n" + GOOD.replace("return dict(y=x)", "sys.exit('enough')"))
    assert "SystemExit: enough" in project.run("test", "t", status=1).stderr
    assert "SystemExit: enough" in project.run("t", status=1).stderr


def test_clean_refuses_while_workers_run(project: Project) -> None:
    """Exit status 4; the run goes on to its end."""
    project.logging_task(n=20, seconds=0.1, workers=2)
    command = project.start("t")
    deadline = time.monotonic() + 20
    while not project.starts():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    project.run("clean", "t", "--yes", status=4)
    assert command.wait(timeout=60) == 0
    assert len(project.result("t")["x"]) == 20


def test_status_of_all_tasks(project: Project) -> None:
    """Without names it tells of every task, also of those that never ran."""
    project.task("a", GOOD)
    project.task("b", GOOD)
    project.run("a")
    lines = project.run("status").stdout.splitlines()
    assert lines[0] == "a: 2 of 2 items done"
    assert "b: 0 of 2 items done, 2 missing" in lines


def _on_terminal(project: Project, *words: str, answer: str = "") -> tuple[int, str]:
    """Run psy-doit on a terminal, answer its first question, return exit status and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project.path)
        os.execve(PSY_DOIT, [PSY_DOIT, *words], project.environment(TERM="xterm", COLUMNS="100"))
    shown = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            shown += data
            if answer and b"What now" in shown:
                os.write(terminal, answer.encode() + b"\n")
                answer = ""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_on_a_terminal_there_is_a_bar_and_a_question(project: Project) -> None:
    """Edited code asks keep, fresh or quit; the lines of doit are printed as ever."""
    project.logging_task(n=20, seconds=0.05, workers=1)
    status, shown = _on_terminal(project, "t")
    assert status == 0
    assert ".  t:merge" in shown
    assert "20/20" in shown or "/20" in shown
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("x * x", "x + 0"))
    status, shown = _on_terminal(project, "t", answer="quit")
    assert status == 4
    assert "20 of 20 items were computed with other code" in shown
    status, shown = _on_terminal(project, "t", answer="keep")
    assert status == 0
    assert project.result("t")["y"].tolist() == [x * x for x in range(20)]


def test_a_closed_pipe_is_no_traceback(project: Project) -> None:
    """psy-doit list | true."""
    for i in range(50):
        project.task(f"t{i}", GOOD)
    done = subprocess.run(
        f"{PSY_DOIT} list | true", shell=True, cwd=project.path, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr


def test_clean_refuses_while_jobs_are_in_the_queue(project: Project) -> None:
    """Without the record of what was submitted, no command would find them again to cancel them."""
    project.task(
        "t",
        """
        from psyrun import Param
        from psyrun.scheduler import JobId, JobState, JobStatus, Queue
        class Slow(Queue):
            def submit(self, job, number=0):
                return JobId(f"7_{number}", job.token)
            def poll(self, ids, max_age=0.0):
                return {id_: JobStatus(JobState.QUEUED) for id_ in ids}
            def cancel(self, ids):
                pass
        pspace = Param(x=range(2))
        scheduler = Slow()
        def execute(x):
            return {"y": x}
        """,
    )
    project.run("t", status=None)
    refused = project.run("clean", "t", "--yes", status=4)
    assert "To cancel them: psy-doit kill t." in refused.stderr
    assert (project.path / "psy-work" / "t").exists()
    project.run("clean", "t", "--yes", "--force")
