"""What a user's mistakes and odd task files lead to: told plainly, before anything runs where that is possible."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import psyrun
from project import PSY_DOIT, Project
from psyrun.record import read_parts
from psyrun.workdir import Workdir

HEAD = "from psyrun import Param\npspace = Param(x=[1, 2])\n"
GOOD = HEAD + "def execute(x): return dict(y=x)\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def refusal(project: Project, *words: str, status: int = 2) -> str:
    """Return what a command says that does nothing."""
    done = project.run(*words, status=status)
    assert "Traceback" not in done.stderr
    assert not (project.path / "psy-work").exists()
    return done.stderr


def complete(project: Project) -> dict[str, list[object]]:
    """Run the task t twice, the second time without computing; return its result as lists."""
    assert ".  t:merge" in project.steps("t")
    assert [line for line in project.steps("t") if "t:" in line] == ["-- t:split", "-- t:merge"]
    return {name: column.tolist() for name, column in project.result("t").items()}


# Before anything runs


@pytest.mark.parametrize("words", [["test", "t"], ["logs", "t"], ["clean", "t"], ["status", "t"], ["t"]])
def test_without_a_directory_of_tasks_every_command_says_how_to_begin(tmp_path: Path, words: list[str]) -> None:
    """Exit status 3, where it looked, and what to type."""
    done = subprocess.run([PSY_DOIT, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert f"no directory psy-tasks here ({tmp_path})" in done.stderr
    assert "psy-doit new t" in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import model\n", "task_t.py:1 (model.py:2): ModuleNotFoundError: No module named 'nowhere'"),
        (GOOD + "import sys\nsys.exit('enough')\n", "task_t.py:5: SystemExit: enough"),
        (GOOD + "raise GeneratorExit\n", "task_t.py:4: GeneratorExit"),
        (GOOD + "class E(Exception): __str__ = None\nraise E\n", "task_t.py:5: E: (its text cannot be had"),
        (GOOD + f"y = {'-' * 100_000}1\n", "task_t.py: "),
        ("", "pspace is missing: a parameter space, such as Param("),
        (HEAD + "def setup(i): pass\ndef execute(): pass\n", "execute() cannot be called with the parameters"),
        (HEAD + "def setup(): pass\ndef execute(x): pass\n", "setup() cannot be called with the number of a process"),
        (GOOD.replace("(x=", "(__psyrun_key="), "pspace has the parameter '__psyrun_key'; it takes printable text"),
        (GOOD.replace("2]", "2**70]"), "PickleStore()"),
        (GOOD.replace("2]", "[1, ['a']]]"), "PickleStore()"),
        (GOOD.replace("2]", "{'a': {'b': 1}}]"), "PickleStore()"),
        (GOOD.replace("2]", "{1, 2}]"), "(a set) cannot identify an item; it takes numbers, text"),
    ],
)
def test_mistakes_are_told_before_anything_runs(project: Project, text: str, told: str) -> None:
    """Exit status 2, where it is and what is taken; no frames of psyrun, and nothing is made."""
    (project.path / "model.py").write_text("\nimport nowhere\n")
    project.task("t", text)
    assert told in refusal(project, "t")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "task_t.py: is a directory; it takes a file of Python code"),
        (GOOD.encode("utf-16"), "task_t.py: cannot be read: invalid or missing encoding"),
        (b"x = '\xe9'\n", "Save it as UTF-8"),
        (GOOD.encode() + b"\0\n", "null bytes"),
    ],
)
def test_a_file_that_holds_no_code_is_told(project: Project, content: bytes | None, told: str) -> None:
    """What is named is not denied."""
    path = project.tasks / "task_t.py"
    path.mkdir() if content is None else path.write_bytes(content)
    assert told in refusal(project, "t")


@pytest.mark.parametrize("words", [["t"], ["test", "t"]])
def test_an_interrupt_while_a_task_file_is_loaded_is_one(project: Project, words: list[str]) -> None:
    """Exit status 130 and no traceback, as Ctrl-C would have it."""
    project.task("t", GOOD + "raise KeyboardInterrupt\n")
    assert "interrupted" in refusal(project, *words, status=130)


def test_a_space_without_rows_has_nothing_to_test(project: Project) -> None:
    """It says so."""
    project.task("t", GOOD.replace("[1, 2]", "[]"))
    assert "the parameter space of t is empty" in refusal(project, "test", "t")


# Task files that do odd things when they are loaded


@pytest.mark.parametrize(
    "line",
    [
        "print('x' * 10_000_000)",
        "import os; os.chdir('/')",
        "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
        "import sys; sys.stdout.close()",
        "import sys; sys.stdout = sys.stderr = None",
        "import os; os.close(0); os.close(1); os.close(2)",
        "import os; os.umask(0o777)",
        "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
        "import threading, time; threading.Thread(target=time.sleep, args=(0.5,)).start()",
        "import threading; threading.Thread(target=lambda: 1 / 0).start()",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "import multiprocessing; pool = multiprocessing.get_context('fork').Pool(2)",
        "import os, time; os.fork() or (time.sleep(0.5), os._exit(0))",
        "import warnings; warnings.simplefilter('error')",
    ],
)
def test_what_a_task_file_does_to_its_process_costs_no_item(project: Project, line: str) -> None:
    """The run completes and ends, and a second one finds all done."""
    project.task("t", f"{line}\n{GOOD}")
    assert complete(project) == {"x": [1, 2], "y": [1, 2]}


def test_a_task_file_that_changes_the_directory_does_not_hide_the_next(project: Project) -> None:
    """Results are where the command was typed, and shown as seen from there; execute works where its file went."""
    (project.path / "data").mkdir()
    project.task("a", "import os\nos.chdir('data')\n" + GOOD.replace("y=x", "y=os.getcwd()"))
    project.task("b", GOOD)
    done = project.run("a", "b")
    assert "a: 2 of 2 items done: psy-work/a/result.npz" in done.stderr
    assert project.result("a")["y"].tolist() == [str(project.path / "data")] * 2
    assert str(project.path / "data") in project.run("test", "a").stdout
    assert len(project.run("status").stdout.splitlines()) == 4


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + GOOD.encode(), GOOD.replace("\n", "\r\n").encode()])
def test_files_from_other_systems_run(project: Project, content: bytes) -> None:
    """With a byte order mark, or with their ends of lines."""
    (project.tasks / "task_t.py").write_bytes(content)
    assert complete(project) == {"x": [1, 2], "y": [1, 2]}


# What setup and execute return


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("[1]", "setup returned [1] (a list); it takes a dict or None"),
        ("{1: 1}", "setup returned the key 1; it takes printable text"),
        ("{'x': 1}", "setup returned 'x', which is the name of a parameter"),
        ("exit(3)", "setup(0) raised SystemExit: 3. To look at it: psy-doit test t --pdb"),
    ],
)
def test_what_setup_may_not_return_is_told_before_an_item_runs(project: Project, returned: str, told: str) -> None:
    """Exit status 2; the same words in test."""
    project.task("t", GOOD + f"def setup(proc_id): return {returned}\n")
    assert told in project.run("t", status=2).stderr
    assert project.status("t")["n_failed"] == 0
    assert told.split(". To")[0].removeprefix("setup(0) raised ") in project.run("test", "t", status=1).stderr


WRONG = {
    "None": "execute returned None (a NoneType); it takes a dict",
    "x": "(a int); it takes a dict",
    "(i for i in 'ab')": "(a generator); it takes a dict",
    "dict(y=object())": "'y' is a object",
    "dict(y={1, 2})": "'y' is a set",
    "dict(y=lambda: 1)": "'y' is a function",
    "dict(y={'a': {'b': x}})": "'y' is a dict ({'a': {'b': ",
    "dict(y=2**70)": "'y' is an integer of more than 64 bits",
    "dict(x=x + 1)": "'x', which is the name of a parameter. Use another name",
    "{b'y': x}": "the key b'y'; it takes printable text",
    "mute()": "(its text cannot be had: TypeError)",
}


def test_what_execute_may_not_return_is_a_failed_item(project: Project) -> None:
    """Exit status 1; what was got, what is taken, and the command to try it; the others are done."""
    text = "from psyrun import Param\nclass E(Exception): __str__ = None\ndef mute():\n    raise E\n"
    text += f"early_stop = False\npspace = Param(x=range({len(WRONG) + 2}))\n"
    returned = ", ".join(f"lambda x: {expression}" for expression in [*WRONG, "dict(y=x)", "{}"])
    project.task("t", f"{text}def execute(x): return [{returned}][x](x)\n")
    error = project.run("t", status=1).stderr
    assert "2 of 13 items done" in error
    assert "psy-doit test t --item 0" in error
    assert "psyrun/" not in error
    (part,) = read_parts(Workdir(project.path / "psy-work/t"))
    assert [failure.index for failure in part.failures] == list(range(11))
    for told, failure in zip(WRONG.values(), part.failures, strict=True):
        assert told in failure.message
        assert bool(failure.where) == (failure.type == "E")


def test_a_parameter_that_is_returned_as_it_came_is_no_clash(project: Project) -> None:
    """It is one column."""
    project.task("t", HEAD + "def execute(x): return dict(x=x, y=-x)\n")
    assert complete(project) == {"x": [1, 2], "y": [-1, -2]}


def test_rows_of_other_names_make_the_union_of_columns(project: Project) -> None:
    """What a row lacks is filled, and a hidden mask tells it from a value."""
    project.task("t", HEAD + "def execute(x): return dict(a=1, t='b') if x == 1 else dict(c=[0.5, 1.5])\n")
    project.run("t")
    found = project.result("t", keys=True)
    assert [name for name in found if not name.startswith("__psyrun_")] == ["x", "a", "t", "c"]
    assert np.array_equal(found["a"], [1, np.nan], equal_nan=True)
    assert found["t"].tolist() == ["b", ""]
    assert np.array_equal(found["c"], [[np.nan] * 2, [0.5, 1.5]], equal_nan=True)
    masks = {name: found[f"__psyrun_none_{name}"].tolist() for name in "atc"}
    assert masks == {"a": [False, True], "t": [False, True], "c": [True, False]}


def test_an_array_of_300_megabytes_is_a_value(project: Project) -> None:
    """It goes through part and merge whole."""
    body = "import numpy as np\ndef execute(x): return dict(y=np.arange(37_500_000.0))\n"
    project.task("t", HEAD.replace("[1, 2]", "[1]") + body)
    project.run("t")
    assert np.array_equal(project.result("t")["y"][0], np.arange(37_500_000.0))


# Values of parameters

VALUES = """
import numpy as np
from psyrun import Param
{more}
VALUES = [float("nan"), None, "a", "", "a\\0", b"b\\xff", 1, True, 2**70, -(2**70), 1.5, -0.0, [1, [2, "x"]], [],
    (1, 2), {{"k": [1, {{"z": None}}]}}, {{}}, {{1: 2}}, np.arange(3), np.zeros((0, 2)), np.array(["a"]),
    np.float32(0.1), np.datetime64("2020-01-01"), np.timedelta64(3, "s"), 1j, float("-inf"), "\\ud800", range(2),
    [float("nan")]]
pspace = Param(x={x})
def execute(x):
    open("starts", "a").write("1\\n")
    return {{"at": [i for i, v in enumerate(VALUES) if type(v) is type(x) and repr(v) == repr(x)][0]}}
"""


def test_parameters_of_all_kinds_come_as_they_were_written(project: Project) -> None:
    """All in one space, for a store that holds them; a second run finds all done."""
    project.task("t", VALUES, x="VALUES", more="from psyrun import PickleStore as store")
    project.run("t")
    found = psyrun.PickleStore().load(project.path / "psy-work/t/result.pkl")
    assert found["at"].tolist() == list(range(29))
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert len(project.starts()) == 29


def test_parameters_of_one_kind_come_as_they_were_written_with_any_store(project: Project) -> None:
    """NaN, None among others, text, bytes, lists and arrays of differing lengths, times, complex numbers."""
    kinds = [[0, 10], [1, 6], [1, 2, 3], [5], [6, 10, 11], [13, 14, 18], [19], [20], [22], [24]]
    tasks = {f"t{i}": kind for i, kind in enumerate(kinds)}
    for name, kind in tasks.items():
        project.task(name, VALUES, x=f"[VALUES[i] for i in {kind}]", more="")
    project.run(*tasks)
    assert {name: project.result(name)["at"].tolist() for name in tasks} == tasks
    assert {line[:2] for line in project.steps(*tasks)} == {"--"}
    assert len(project.starts()) == sum(map(len, kinds))


def test_a_space_of_mixed_kinds_keeps_all_on_record(project: Project) -> None:
    """What does not fit into the file is named, and is there with another store without computing."""
    project.task("t", VALUES, x="[1, 'a', True]", more="")
    told = project.run("t", status=1).stderr
    assert "is done, but not in the file" in told
    project.task("t", VALUES, x="[1, 'a', True]", more="from psyrun import PickleStore as store")
    assert project.steps("t", status=None)[-1] == ".  t:merge"


def test_spaces_without_rows_or_names_are_done_at_once(project: Project) -> None:
    """They have a result, and a second run does nothing."""
    spaces = {"Param(x=[]) * Param(y=[1, 2])": 0, "Param(x=[1]) - Param(x=[1])": 0, "Param(x=range(5))[5:]": 0}
    tasks = {f"t{i}": n for i, n in enumerate([*spaces.values(), 1])}
    for name, space in zip(tasks, [*spaces, "Param()"], strict=True):
        project.task(name, f"from psyrun import Param\npspace = {space}\ndef execute(**given): return dict(z=1)\n")
    project.run(*tasks)
    for name, n in tasks.items():
        assert all(len(column) == n for column in project.result(name).values())
        assert project.status(name)["complete"]
    assert {line[:2] for line in project.steps(*tasks)} == {"--"}
