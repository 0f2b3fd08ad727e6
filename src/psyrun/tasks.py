"""Find and load ``task_<name>.py`` and ``psy-conf.py``."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import sys
import tokenize
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from psyrun.backend import Backend
from psyrun.columns import is_name
from psyrun.digest import code_digest, is_local
from psyrun.draws import may_draw
from psyrun.errors import NoSuchTaskError, PsyrunError, TaskError, UnsupportedValueError, text_of
from psyrun.keys import assignment_key
from psyrun.options import NEWER, OPTIONS, own_constants, resolved
from psyrun.owners import OTHERS, mistrust, remedy
from psyrun.pspace import ParameterSpace
from psyrun.scheduler import Scheduler
from psyrun.seeding import asked_for
from psyrun.slips import slip
from psyrun.store import Store
from psyrun.taskfiles import CONFIG, NAME, TASKDIR, task_names, task_path
from psyrun.workdir import Workdir

_MOST_ADDED = 8

__all__ = ["Task", "find_task", "load_task", "task_from_source", "task_names"]


@dataclass
class Task:
    """A loaded task file.

    Attributes
    ----------
    name : str
    path : Path
        Of the file that the user wrote.
    source, config : str
        The text of the file, and of ``psy-conf.py`` ('' if there is none).
    options : dict
        A value for every option of `psyrun.options.OPTIONS`.
    cwd : Path
        The directory where relative paths start.
    own : list of str
        Names of options that the file uses for something of its own.
    directory : str
        Where the task file left the process that ran it; execute is called there.
    """

    name: str
    path: Path
    source: str
    config: str
    options: dict[str, Any]
    cwd: Path
    own: Sequence[str] = ()
    directory: str = ""

    @property
    def pspace(self) -> ParameterSpace:
        """The parameter space."""
        return self.options["pspace"]  # type: ignore[no-any-return]

    @property
    def execute(self) -> Callable[..., Any]:
        """The function that computes one item."""
        return self.options["execute"]  # type: ignore[no-any-return]

    @property
    def setup(self) -> Callable[[int], Any] | None:
        """The function that each process calls first."""
        return self.options["setup"]  # type: ignore[no-any-return]

    @property
    def store(self) -> Store:
        """The format of the result."""
        return self.options["store"]  # type: ignore[no-any-return]

    @property
    def scheduler(self) -> Scheduler:
        """Where items run."""
        return self.options["scheduler"]  # type: ignore[no-any-return]

    @property
    def backend(self) -> Backend:
        """How chunks are dealt."""
        return self.options["backend"]  # type: ignore[no-any-return]

    @property
    def workdir(self) -> Workdir:
        """The work directory of this task."""
        return Workdir(self.cwd / self.options["workdir"] / self.name)

    @property
    def result(self) -> Path:
        """The path of the merged result."""
        given = self.options["resultfile"]
        return self.cwd / given if given else self.workdir.path / f"result{self.store.ext}"

    def command(self, *words: str) -> str:
        """Return what to type for this task: ``psy-doit <words>``, with --taskdir where it is needed."""
        taskdir = self.path.parent
        where = () if taskdir == self.cwd / TASKDIR else ("--taskdir", os.path.relpath(taskdir, self.cwd))
        return shlex.join(["psy-doit", *words, *where])

    @cached_property
    def code(self) -> str:
        """The code digest."""
        file_dep = self.options["file_dep"]
        try:
            digest = code_digest(self.source, self.config, str(self.path), file_dep, sys.path, self.cwd)
        except OSError as error:
            raise TaskError(f"{self.path}: file_dep: {_shown(Path(error.filename))}: {error.strerror}") from error
        if not self.random:
            return digest
        return blake2b(f"{digest} {self.options['seed']}".encode(), digest_size=16).hexdigest()

    @property
    def random(self) -> tuple[str, ...]:
        """Which of the random arguments execute takes, see `psyrun.seeding`."""
        return asked_for(self.execute, self.pspace.parameters)

    @property
    def may_draw(self) -> bool:
        """Whether items may draw from the global random generators; yes in case of doubt."""
        return bool(self.options["file_dep"]) or may_draw(self.source, self.config, str(self.path))


def find_task(name: str, taskdir: Path) -> Path:
    """Return the path of a task file.

    Raises
    ------
    NoSuchTaskError
        There is none; the message lists those there are.
    """
    path = task_path(name, taskdir)
    if re.fullmatch(NAME, name) and _is_there(path):
        return path
    there = task_names(taskdir)
    if not taskdir.is_dir():
        raise NoSuchTaskError(
            f"no directory {taskdir} here ({Path.cwd()}). Go to the directory that holds it, name it with --taskdir, "
            f"or begin with: psy-doit new {name if re.fullmatch(NAME, name) else 'NAME'}"
        )
    import difflib

    close = difflib.get_close_matches(name, there, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    listed = f"There are: {', '.join(there)}." if there else "There are none yet: psy-doit new NAME makes one."
    raise NoSuchTaskError(f"no task {name!r} in {taskdir}.{hint} {listed}")


def load_task(name: str, taskdir: Path) -> Task:
    """Find a task file, run it and check its options; the current directory is as before afterwards.

    Raises
    ------
    NoSuchTaskError
        There is no such file.
    TaskError
        The file, or an option in it, is wrong; the message tells file, line and cause.
    """
    path = find_task(name, taskdir)
    config = taskdir / CONFIG
    for place in (taskdir, path, config):
        _check_owner(place)
    config_source = _text(config) if _is_there(config) else ""
    here = Path.cwd()
    streams = sys.stdout, sys.stderr
    try:
        task = task_from_source(name, path.absolute(), _text(path), config_source, here)
        with suppress(OSError):  # it may be gone
            task.directory = str(Path.cwd())
    finally:
        os.chdir(here)
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            if not stream.closed:
                setattr(sys, name, stream)
    return task


def task_from_source(name: str, path: Path, source: str, config: str, cwd: Path) -> Task:
    """Run the text of a task file as if it stood at a path, and check its options."""
    for directory in (str(cwd), str(path.parent)):
        if directory not in sys.path:
            sys.path.insert(0, directory)
    defaults: dict[str, Any] = {}
    if config:
        found = _run(config, path.with_name(CONFIG), "psy_conf")
        defaults = {key: value for key, value in vars(found).items() if key in OPTIONS}
    shown = _shown(path)
    module = _run(source, path, f"task_{name}")
    try:
        own = own_constants(source) if NEWER & vars(module).keys() else []
        if "added" in own:
            raise TaskError("added is an option of psyrun, but the file reads a global of that name, too. Rename that")
        given = {key: value for key, value in vars(module).items() if key not in own}
        task = Task(name, path, source, config, resolved(defaults | given, name), cwd, own)
        _check_parameters(task.pspace.parameters)
        _check_added(task)
        _check_signatures(task)
    except (TaskError, UnsupportedValueError) as error:
        raise TaskError(f"{shown}: {error}") from error
    return task


def _check_parameters(names: Sequence[str]) -> None:
    for name in names:
        if not is_name(name):
            raise TaskError(
                f"pspace has the parameter {name!r}; it takes printable text that does not begin with __psyrun_"
            )


def _check_added(task: Task) -> None:
    if len(task.options["added"]) > _MOST_ADDED:
        raise TaskError(f"added has {len(task.options['added'])} names; it takes at most {_MOST_ADDED}")
    for name, value in task.options["added"].items():
        if name not in task.pspace.parameters:
            there = ", ".join(task.pspace.parameters)
            raise TaskError(f"added = {{{name!r}: ...}}: is no parameter of pspace ({there})")
        assignment_key({name: value})  # an error if it cannot be a value of a parameter


def _check_signatures(task: Task) -> None:
    """Call nothing, but see whether execute takes the parameters, and setup a number."""
    given = dict.fromkeys((*task.pspace.parameters, *task.random))
    what = f"the parameters of pspace ({', '.join(task.pspace.parameters)})"
    if task.options["cost"] is not None:
        assignment = dict.fromkeys(task.pspace.parameters)
        _check_call("cost", task.options["cost"], what, lambda signature: signature.bind(**assignment))
    if task.setup is None:
        _check_call("execute", task.execute, what, lambda signature: signature.bind(**given))
        return
    # What setup returns is not known before it ran.
    _check_call("execute", task.execute, what, lambda signature: signature.bind_partial(**given))
    _check_call("setup", task.setup, "the number of a process, as in setup(proc_id)", lambda s: s.bind(0))


def _check_call(
    name: str, function: Callable[..., Any], what: str, bind: Callable[[inspect.Signature], object]
) -> None:
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # a builtin that does not tell
    try:
        bind(signature)
    except TypeError as error:
        raise TaskError(f"{name}{signature} cannot be called with {what}: {error}") from error


def _check_owner(path: Path) -> None:
    """Refuse to run code that another user could have put there."""
    with suppress(FileNotFoundError):
        why = mistrust(path, OTHERS)
        if why:
            raise TaskError(f"{_shown(path)}: {why}, so it is not run. {remedy(path)}")


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _text(path: Path) -> str:
    """Return the text of a file in the encoding that its first lines name, as Python reads it."""
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no regular file"
        raise TaskError(f"{_shown(path)}: is {kind}; it takes a file of Python code. Move it away, or mend it")
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{error}. Save it as UTF-8"
        raise TaskError(f"{_shown(path)}: cannot be read: {why}") from error


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the current directory is gone
        return str(path)


def _compiled(source: str, path: Path) -> CodeType:
    """Return the code of a file without errors of syntax or spelling."""
    try:
        tree = ast.parse(source, str(path))
        code = compile(source, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        told = f"{error.msg}: {error.text.strip():.80}" if error.text else error.msg
        where = f"{_shown(path)}:{error.lineno}" if error.lineno else _shown(path)
        raise TaskError(f"{where}: {told}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # the last two where expressions nest too deep
        raise TaskError(f"{_shown(path)}: {type(error).__name__}: {error}") from error
    slipped = slip(tree)
    if slipped:
        line, typed, meant = slipped
        raise TaskError(f"{_shown(path)}:{line}: unknown option {typed!r}. Did you mean {meant!r}?")
    return code


def _run(source: str, path: Path, name: str) -> ModuleType:
    """Run a file as a module; importable by that name, as pickling its functions needs."""
    code = _compiled(source, path)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    shown = _shown(path)
    try:
        with _streams_mended():
            exec(code, vars(module))  # noqa: S102 - task files are code
    except KeyboardInterrupt:
        raise
    except PsyrunError as error:
        raise TaskError(f"{shown}:{_where(error, path)}: {error}") from error
    except BaseException as error:  # sys.exit() and the like end the task file, not the command
        raise TaskError(f"{shown}:{_where(error, path)}: {type(error).__name__}: {text_of(error)}") from error
    return module


@contextmanager
def _streams_mended() -> Iterator[None]:
    """Open the standard streams again that user code closes: files opened later would get their numbers."""
    copies: dict[int, int] = {}
    for number in range(3):
        with suppress(OSError):
            copies[number] = os.dup(number)
    before = sys.stdin, sys.stdout, sys.stderr
    try:
        yield
    finally:
        for number, copy in copies.items():
            try:
                os.fstat(number)
            except OSError:
                os.dup2(copy, number)
            os.close(copy)
        for number, (name, stream) in enumerate(zip(("stdin", "stdout", "stderr"), before, strict=True)):
            now = getattr(sys, name)
            if stream is not None and (now is None or now.closed):
                reopened = open(number, "w" if number else "r", closefd=False) if stream.closed else stream  # noqa: SIM115
                setattr(sys, name, reopened)


def _where(error: BaseException, path: Path) -> str:
    """Return the last line of the file that the error went through, and that of the user's module it came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    lines = [f.lineno for f in frames if f.filename == str(path)]
    told = str(lines[-1] if lines and lines[-1] else "?")
    if frames and frames[-1].filename != str(path):
        told += f" ({_shown(Path(frames[-1].filename))}:{frames[-1].lineno})"
    return told


def _is_users(filename: str) -> bool:
    file = Path(filename)
    return file.is_absolute() and not file.is_relative_to(Path(__file__).parent) and is_local(file)
