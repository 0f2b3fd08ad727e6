"""Task files: found by name, run once, and what is wrong in them is told with file, line and cause."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.errors import NoSuchTaskError, TaskError
from psyrun.options import template
from psyrun.taskfiles import task_names, task_path
from psyrun.tasks import Task, find_task, load_task, task_from_source

GOOD = """\
from psyrun import Param

pspace = Param(x=[1, 2])

def execute(x):
    return {"y": x}
"""


@pytest.fixture(autouse=True)
def taskdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's directory of task files; modules and paths are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    (tmp_path / "psy-tasks").mkdir()
    yield Path("psy-tasks")
    for name in set(sys.modules) - before:
        if name.startswith(("task_", "psy_conf", "local_")):
            del sys.modules[name]


Write = Callable[..., Path]


@pytest.fixture
def write(taskdir: Path) -> Write:
    """Write a task file."""

    def written(text: str = GOOD, name: str = "t") -> Path:
        path = taskdir / f"task_{name}.py"
        path.write_text(textwrap.dedent(text))
        return path

    return written


def complaint(name: str = "t") -> str:
    """Return the error message of a task file."""
    with pytest.raises(TaskError) as caught:
        load_task(name, Path("psy-tasks"))
    assert caught.value.exit_code == 2
    return str(caught.value)


# Loading


def test_a_task_is_what_its_file_says(write: Write, tmp_path: Path) -> None:
    """With defaults for what it does not say."""
    write()
    task = load_task("t", Path("psy-tasks"))
    assert (task.name, task.path, task.cwd) == ("t", tmp_path / "psy-tasks" / "task_t.py", tmp_path)
    assert task.pspace.build() == {"x": [1, 2]}
    assert task.execute(x=3) == {"y": 3}
    assert task.setup is None
    assert task.workdir.path == tmp_path / "psy-work" / "t"
    assert task.result == tmp_path / "psy-work" / "t" / "result.npz"
    assert (task.source, task.config) == (GOOD, "")


def test_paths_begin_where_the_command_was_typed(write: Write, tmp_path: Path) -> None:
    """Those of results and work directories; absolute ones are as they are."""
    write(GOOD + "workdir = 'scratch'\nresultfile = 'out/mine.npz'\n")
    task = load_task("t", Path("psy-tasks"))
    assert task.workdir.path == tmp_path / "scratch" / "t"
    assert task.result == tmp_path / "out" / "mine.npz"
    write(GOOD + "import psyrun\nworkdir = '/scratch'\nstore = psyrun.H5Store\n")
    assert load_task("t", Path("psy-tasks")).result == Path("/scratch/t/result.h5")


def test_a_task_file_knows_its_file_and_its_name(write: Write, tmp_path: Path) -> None:
    """It is a module, and is not run as a script."""
    write(GOOD + "import sys\nfound = __file__, __name__, sys.modules[__name__].pspace is pspace\n")
    task = load_task("t", Path("psy-tasks"))
    assert task.execute.__globals__["found"] == (str(tmp_path / "psy-tasks" / "task_t.py"), "task_t", True)


def test_modules_beside_the_task_file_and_of_the_project_are_found(write: Write, tmp_path: Path) -> None:
    """Those beside it first."""
    (tmp_path / "local_project.py").write_text("WHERE = 'project'")
    (tmp_path / "local_both.py").write_text("WHERE = 'project'")
    (tmp_path / "psy-tasks" / "local_both.py").write_text("WHERE = 'beside'")
    write(GOOD + "import local_project, local_both\nfound = local_project.WHERE, local_both.WHERE\n")
    assert load_task("t", Path("psy-tasks")).execute.__globals__["found"] == ("project", "beside")


def test_a_copy_of_a_task_file_is_run_as_if_it_stood_in_its_place(tmp_path: Path) -> None:
    """Its text is given; the file may have changed or gone."""
    path = tmp_path / "psy-tasks" / "task_gone.py"
    task = task_from_source("gone", path, GOOD + "here = __file__\n", "min_items = 3\n", tmp_path)
    assert task.execute.__globals__["here"] == str(path)
    assert task.options["min_items"] == 3


def test_the_code_digest_is_that_of_what_execute_reaches(write: Write) -> None:
    """Growing the space leaves it; another computation does not."""

    def code(text: str) -> str:
        write(text)
        return load_task("t", Path("psy-tasks")).code

    assert code(GOOD) == code(GOOD.replace("[1, 2]", "[1, 2, 3]"))
    assert code(GOOD) != code(GOOD.replace('"y": x', '"y": -x'))


def test_a_file_dep_that_is_not_there_is_told(write: Write) -> None:
    """By name."""
    write(GOOD + "file_dep = ['data.csv']\n")
    with pytest.raises(TaskError, match=r"task_t\.py: file_dep: data\.csv: No such file"):
        _ = load_task("t", Path("psy-tasks")).code


def test_a_task_file_that_changes_the_directory_changes_it_for_execute_alone(
    write: Write, taskdir: Path, tmp_path: Path
) -> None:
    """The command stays where it was, also for the next task, and paths of options begin there."""
    (tmp_path / "data.csv").touch()
    write(GOOD + "file_dep = ['data.csv']\nimport os\nos.mkdir('below')\nos.chdir('below')\n")
    task = load_task("t", taskdir)
    assert Path.cwd() == task.cwd == tmp_path
    assert task.directory == str(tmp_path / "below")
    assert len(task.code) == 32
    write(GOOD + "import os\nos.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\n1 / 0\n")
    assert complaint() == "psy-tasks/task_t.py:11: ZeroDivisionError: division by zero"
    assert Path.cwd() == tmp_path


# Defaults of all tasks


def test_defaults_of_all_tasks_apply_and_the_task_file_wins(write: Write, taskdir: Path) -> None:
    """Names there that are no options stay there."""
    (taskdir / "psy-conf.py").write_text("max_jobs = 7\nmin_items = 3\nhelper = 4\n")
    write(GOOD + "min_items = 5\n")
    task = load_task("t", taskdir)
    assert (task.options["max_jobs"], task.options["min_items"]) == (7, 5)
    assert "helper" not in task.execute.__globals__
    assert task.config == "max_jobs = 7\nmin_items = 3\nhelper = 4\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_job = 7\n", "psy-tasks/psy-conf.py:1: unknown option 'max_job'. Did you mean 'max_jobs'?"),
        ("x = 1\n1 / 0\n", "psy-tasks/psy-conf.py:2: ZeroDivisionError: division by zero"),
        ("x = (\n", "psy-tasks/psy-conf.py:1: '(' was never closed: x = ("),
        ("max_jobs = 0\n", "psy-tasks/task_t.py: max_jobs = 0: takes a whole number from 1"),
    ],
)
def test_mistakes_in_the_defaults_are_told(write: Write, taskdir: Path, text: str, told: str) -> None:
    """As those in the task file."""
    (taskdir / "psy-conf.py").write_text(text)
    write()
    assert complaint() == told


# Mistakes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pspace = (\n", "psy-tasks/task_t.py:1: '(' was never closed: pspace = ("),
        ("x = 1\ndef f(a, a): pass\n", "psy-tasks/task_t.py:2: duplicate argument 'a' in function definition"),
        ("x = 1\nreturn 3\n", "psy-tasks/task_t.py:2: 'return' outside function: return 3"),
        ("\nimport no_such_module\n", "psy-tasks/task_t.py:2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("from psyrun import Parm\n", "psy-tasks/task_t.py:1: ImportError: cannot import name 'Parm' from 'psyrun'"),
        (GOOD + "1 / 0\n", "psy-tasks/task_t.py:7: ZeroDivisionError: division by zero"),
        (GOOD + "def f():\n    raise ValueError('no')\n\nf()\n", "psy-tasks/task_t.py:8: ValueError: no"),
        (GOOD + "raise SystemExit(0)\n", "psy-tasks/task_t.py:7: SystemExit: 0"),
        (GOOD + "raise GeneratorExit\n", "psy-tasks/task_t.py:7: GeneratorExit: "),
        ("class E(Exception):\n    __str__ = None\nraise E\n", "psy-tasks/task_t.py:3: E: (its text cannot be had: "),
        (GOOD + "x = 1\0\n", "psy-tasks/task_t.py: source code string cannot contain null bytes"),
        ("x = " + 100000 * "-" + "1\n", "psy-tasks/task_t.py: "),
        (GOOD.replace("Param(x=[1, 2])", "Param(x=1) * Param(x=2)"), "psy-tasks/task_t.py:3: both factors have x"),
        (GOOD + "max_job = 4\n", "psy-tasks/task_t.py:7: unknown option 'max_job'. Did you mean 'max_jobs'?"),
        (GOOD + "max_jobs = '4'\n", "psy-tasks/task_t.py: max_jobs = '4': takes a whole number from 1"),
        (GOOD + "name = 'other'\n", "psy-tasks/task_t.py: name = 'other', but the file is that of 't'"),
        ("def execute(): pass\n", "psy-tasks/task_t.py: pspace is missing: a parameter space, such as Param("),
        (GOOD.split("def")[0], "psy-tasks/task_t.py: execute is missing: a function: execute(**assignment) -> dict"),
        ("", "psy-tasks/task_t.py: pspace is missing"),
    ],
)
def test_mistakes_are_told_with_file_line_and_cause(write: Write, text: str, told: str) -> None:
    """One line, and no traceback of psyrun."""
    write(text)
    found = complaint()
    assert found.startswith(told)
    assert "\n" not in found


def test_a_mistake_in_a_module_is_told_with_the_line_that_imports_it(write: Write, tmp_path: Path) -> None:
    """And with what is wrong there."""
    (tmp_path / "local_broken.py").write_text("x = 1\nprint 'hello'\n")
    write("\n\nimport local_broken\n")
    assert re.match(r"psy-tasks/task_t\.py:3: SyntaxError: .*local_broken\.py, line 2", complaint())


@pytest.mark.parametrize(
    "module", ["import no_such_module\n", "def f():\n    no_such_name\n\nf()\n", "raise SystemExit\n"]
)
def test_a_module_that_raises_is_told_with_both_lines(write: Write, tmp_path: Path, module: str) -> None:
    """The one that imports it, and the one that raised."""
    (tmp_path / "local_raising.py").write_text(module)
    write("\nimport json, local_raising\n")
    line = 2 if "def" in module else 1
    assert re.match(rf"psy-tasks/task_t\.py:2 \(local_raising\.py:{line}\): \w+: ", complaint())


def test_a_mistake_inside_of_a_library_is_told_with_the_users_line(write: Write) -> None:
    """Not with that of the library."""
    write("import json\njson.loads('x')\n")
    assert complaint().startswith("psy-tasks/task_t.py:2: JSONDecodeError: Expecting value")


def test_a_global_that_the_file_reads_is_no_slip(write: Write) -> None:
    """It is the user's own."""
    write(GOOD + "max_job = 4\nmax_jobs = max_job + 1\n")
    assert load_task("t", Path("psy-tasks")).options["max_jobs"] == 5


def test_long_sums_are_no_mistake(write: Write) -> None:
    """Nor anything else that is a deep tree, as far as Python itself takes it."""
    write(GOOD + f"total = {' + '.join(['1.5'] * 1500)}\n")
    assert load_task("t", Path("psy-tasks")).execute.__globals__["total"] == 2250


@pytest.mark.parametrize(
    ("signature", "told"),
    [
        ("x, z", "missing a required argument: 'z'"),
        ("", "got an unexpected keyword argument 'x'"),
        ("x, /", r"'x' parameter is positional only, but was passed as a keyword|required argument"),
    ],
)
def test_execute_must_take_the_parameters(write: Write, signature: str, told: str) -> None:
    """Told before anything runs, with both sides of the misfit."""
    write(GOOD.replace("execute(x)", f"execute({signature})").replace("x}", "1}"))
    found = complaint()
    assert found.startswith(f"psy-tasks/task_t.py: execute({signature}) cannot be called with the parameters of")
    assert re.search(told, found)


@pytest.mark.parametrize("signature", ["x", "**kwargs", "x, z=1", "*, x", "x, *args"])
def test_execute_may_take_them_in_any_way(write: Write, signature: str) -> None:
    """Also as keywords, and beside others that have defaults."""
    write(GOOD.replace("execute(x)", f"execute({signature})").replace("x}", "1}"))
    load_task("t", Path("psy-tasks"))


def test_what_setup_adds_is_not_known_yet(write: Write) -> None:
    """So execute may take more than the parameters."""
    write(GOOD.replace("execute(x)", "execute(x, model)") + "def setup(proc_id):\n    return {'model': 1}\n")
    load_task("t", Path("psy-tasks"))


@pytest.mark.parametrize(
    ("execute", "told"),
    [
        ("execute(model)", r"execute\(model\) cannot be called .* \(x\): got an unexpected keyword argument 'x'"),
        ("execute(x, /, model)", r"execute\(x, /, model\) cannot be called .*positional only"),
    ],
)
def test_execute_must_take_the_parameters_also_beside_setup(write: Write, execute: str, told: str) -> None:
    """What setup adds is not known yet; that a parameter is not taken is."""
    write(GOOD.replace("execute(x)", execute).replace("x}", "1}") + "def setup(proc_id):\n    return {'model': 1}\n")
    assert re.search(told, complaint())


@pytest.mark.parametrize("signature", ["", "a, b", "*, proc_id"])
def test_setup_must_take_a_number(write: Write, signature: str) -> None:
    """Told before anything runs."""
    write(GOOD + f"def setup({signature}):\n    return {{}}\n")
    assert complaint().startswith(
        f"psy-tasks/task_t.py: setup({signature}) cannot be called with the number of a process, as in setup(proc_id): "
    )


@pytest.mark.parametrize("name", ["", "__psyrun_key", "a\nb", "a\0"])
def test_parameters_are_named_as_columns_can_be(write: Write, name: str) -> None:
    """Told before anything runs: no result file could have that column."""
    write(f"from psyrun import Param\npspace = Param(**{{{name!r}: [1]}})\ndef execute(**given):\n    return given\n")
    assert f"pspace has the parameter {name!r}; it takes printable text" in complaint()


def test_execute_may_be_a_builtin_without_a_signature(write: Write) -> None:
    """Then it is seen when it runs."""
    write(GOOD + "execute = dict\n")
    assert load_task("t", Path("psy-tasks")).execute(x=1) == {"x": 1}


# Names


def test_task_names_are_those_of_the_files(taskdir: Path, write: Write) -> None:
    """Sorted; none is run, and other files are none."""
    for name in ("b", "a.2", "a-1", "A_0"):
        write("raise SystemExit", name)
    for other in ("task_.py", "task_-x.py", "task_x.pyc", "test_y.py", "task_z.py~", "psy-conf.py", ".task_h.py"):
        (taskdir / other).touch()
    assert task_names(taskdir) == ["A_0", "a-1", "a.2", "b"]
    assert task_names(taskdir / "nothing") == []


@pytest.mark.parametrize("name", ["nope", "circl", ""])
def test_an_unknown_task_is_told_with_those_there_are(write: Write, name: str) -> None:
    """And with the one that was meant, if it is close; exit status 3."""
    write(name="circle")
    write(name="square")
    with pytest.raises(NoSuchTaskError) as caught:
        load_task(name, Path("psy-tasks"))
    assert caught.value.exit_code == 3
    told = str(caught.value)
    assert told.startswith(f"no task {name!r} in psy-tasks.")
    assert told.endswith("There are: circle, square.")
    assert ("Did you mean circle?" in told) == (name == "circl")


@pytest.mark.parametrize("name", ["..", "a/b", "", ".", "-x", "a\n", "../psy-tasks/task_t", "é", "a b", "/t"])
def test_names_that_are_paths_or_worse_are_no_tasks(write: Write, taskdir: Path, name: str) -> None:
    """Even where such a file can be made."""
    write()
    path = task_path(name, taskdir)
    if path.parent.is_dir():
        path.write_text(GOOD)
    with pytest.raises(NoSuchTaskError):
        find_task(name, taskdir)


@given(st.text(max_size=8))
def test_only_names_of_one_file_are_found(name: str) -> None:
    """Whatever is typed."""
    with pytest.raises(NoSuchTaskError, match="no task"):
        find_task(name, Path("psy-tasks"))


def test_without_task_files_the_way_to_begin_is_told(tmp_path: Path, taskdir: Path) -> None:
    """In an empty directory, and where there is none."""
    with pytest.raises(NoSuchTaskError, match="There are none yet: psy-doit new NAME"):
        find_task("t", taskdir)
    taskdir.rmdir()
    with pytest.raises(NoSuchTaskError, match=rf"no directory psy-tasks here \({tmp_path}\).*psy-doit new t"):
        find_task("t", taskdir)
    with pytest.raises(NoSuchTaskError, match="psy-doit new NAME"):
        find_task("../t", taskdir)


# Trust


@pytest.mark.parametrize("name", ["task_t.py", "psy-conf.py"])
def test_a_file_that_anyone_may_write_is_not_run(write: Write, taskdir: Path, name: str) -> None:
    """The message says how to go on."""
    write()
    trap = "open('sprung', 'w').close()\n"
    (taskdir / name).write_text(trap + GOOD)
    (taskdir / name).chmod(0o666)
    told = complaint()
    assert "can be written by other users, so it is not run" in told
    assert f"chmod go-w psy-tasks/{name}" in told
    assert not Path("sprung").exists()
    (taskdir / name).chmod(0o664)
    load_task("t", taskdir)
    assert Path("sprung").exists()


def test_a_file_of_another_user_is_not_run(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is the administrator's."""
    path = write()
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    if path.stat().st_uid:
        assert "belongs to another user" in complaint()
    else:
        load_task("t", Path("psy-tasks"))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "stat", OtherOwner(Path.stat))
            assert "belongs to another user" in complaint()


class OtherOwner:
    """Says of every file that user 12345 has it."""

    def __init__(self, stat: Callable[..., os.stat_result]):
        self._stat = stat

    def __get__(self, path: Path, kind: type) -> Callable[..., os.stat_result]:
        def found(**options: bool) -> os.stat_result:
            values = list(self._stat(path, **options))
            values[4] = 12345
            return os.stat_result(values)

        return found


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = '\xe9'\n", b"# coding: klingon\n", GOOD.encode("utf-16")])
def test_a_file_that_is_no_text_is_told(taskdir: Path, content: bytes) -> None:
    """Task files are UTF-8, unless they say otherwise."""
    (taskdir / "task_t.py").write_bytes(content)
    assert re.match(r"psy-tasks/task_t.py: cannot be read: .*\. Save it as UTF-8$", complaint())


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        b"# -*- coding: latin-1 -*-\nx = '\xe9'\n" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
    ],
)
def test_a_file_is_read_as_python_reads_it(taskdir: Path, content: bytes) -> None:
    """With a byte order mark, in the encoding that it names, with lines as on Windows."""
    (taskdir / "task_t.py").write_bytes(content)
    names = load_task("t", taskdir).execute.__globals__
    assert names.get("x", "é") == "é"


@pytest.mark.parametrize("name", ["task_t.py", "psy-conf.py"])
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Path.mkdir, "is a directory; it takes a file of Python code"),
        (lambda path: path.symlink_to("nowhere"), "is a link to nothing; it takes a file"),
        (os.mkfifo, "is no regular file; it takes a file"),
    ],
)
def test_what_is_no_file_is_told(
    write: Write, taskdir: Path, make: Callable[[Path], None], told: str, name: str
) -> None:
    """A listed name is not denied, and defaults are not passed over."""
    if name == "psy-conf.py":
        write()
    make(taskdir / name)
    assert complaint().startswith(f"psy-tasks/{name}: {told}")


def test_a_file_that_may_not_be_read_is_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason."""
    path = write()

    def refuse(file: Path) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("tokenize.open", refuse)
    assert complaint() == f"psy-tasks/{path.name}: cannot be read: Permission denied"


def test_a_new_task_loads(write: Write) -> None:
    """The template is a whole task file."""
    write(template("t"))
    task: Task = load_task("t", Path("psy-tasks"))
    assert len(task.pspace) == 6
    assert task.execute(**task.pspace[5]) == {"y": 60}
