"""The options of a task file: one table for types, defaults, checks, documentation and the template of `new`."""

from __future__ import annotations

import inspect
import symtable
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psyrun.arrays import plain
from psyrun.backend import Backend, DistributeBackend
from psyrun.errors import TaskError
from psyrun.pspace import ParameterSpace
from psyrun.retries import DEFAULTS as RETRIES
from psyrun.retries import are_retries
from psyrun.scheduler import ImmediateRun, Scheduler, several
from psyrun.scheduler.registry import named
from psyrun.store import NpzStore, Store
from psyrun.units import core_hours, seconds

Check = Callable[[Any], bool]
_REQUIRED = object()


@dataclass(frozen=True)
class Option:
    """One name with a meaning in a task file.

    Attributes
    ----------
    takes : str
        What it takes, as an error message and the reference say it.
    check : callable
        Whether a value is that.
    base : type, optional
        A class or entry of this kind may be given instead of an instance.
    named : callable, optional
        Gives the class that a text stands for.
    listed : callable, optional
        Gives the value that a list of such values stands for.
    """

    name: str
    takes: str
    check: Check
    doc: str
    default: Any = None
    base: type | None = None
    named: Callable[[str], type] | None = None
    listed: Callable[[list[Any]], Any] | None = None

    @property
    def required(self) -> bool:
        """Whether a task file must set it."""
        return self.default is _REQUIRED

    def value(self, given: Any) -> Any:
        """Return the value to use for one that was given.

        Raises
        ------
        TaskError
            It is not what the option takes.
        """
        given = plain(given)
        if self.listed is not None and isinstance(given, (list, tuple)):
            return self.listed([self.value(one) for one in given])
        if self.named is not None and isinstance(given, str):
            given = self.named(given)
        if self.base is not None and inspect.isclass(given) and issubclass(given, self.base):
            try:
                given = given()
            except TypeError as error:
                raise TaskError(f"{self.name} = {given.__name__}: {error}. Give an instance") from error
        if not self.check(given):
            raise TaskError(f"{self.name} = {given!r:.80}: takes {self.takes}")
        return given


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _path(value: Any) -> bool:
    return isinstance(value, (str, Path)) and str(value) != ""


def _names(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value)


def _paths(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(map(_path, value))


def _read_by(parse: Callable[[Any], float]) -> Check:
    def check(value: Any) -> bool:
        try:
            parse(value)
        except ValueError:
            return False
        return True

    return check


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is(kind: type) -> Check:
    return lambda value: isinstance(value, kind)


OPTIONS: dict[str, Option] = {
    option.name: option
    for option in (
        Option(
            "pspace",
            "a parameter space, such as Param(x=[1, 2]) * Param(y=[3, 4])",
            _is(ParameterSpace),
            "The parameter space: which assignments to compute.",
            _REQUIRED,
        ),
        Option(
            "execute",
            "a function: execute(**assignment) -> dict",
            callable,
            "Called with every assignment of pspace; returns a dict of results.",
            _REQUIRED,
        ),
        Option(
            "setup",
            "a function: setup(proc_id) -> dict or None",
            _optional(callable),
            "Called once in every process before its first item, with the process's number; what it returns is "
            "passed to execute, and goes into the result unless excluded.",
        ),
        Option("max_jobs", "a whole number from 1", _count, "The most chunks (on a cluster: jobs) to make.", 100),
        Option("min_items", "a whole number from 1", _count, "The fewest items of a chunk.", 1),
        Option("pool_size", "a whole number from 1", _count, "How many items a job runs at a time.", 1),
        Option(
            "store",
            "a store, such as psyrun.NpzStore() or psyrun.H5Store()",
            _is(Store),
            "The file format of the result.",
            NpzStore(),
            Store,
        ),
        Option(
            "backend",
            "a backend, such as psyrun.DistributeBackend",
            _is(Backend),
            "How items are dealt into chunks.",
            DistributeBackend(),
            Backend,
        ),
        Option(
            "cost",
            "a function: cost(**assignment) -> seconds",
            _optional(callable),
            "How long an item is expected to take, relative to others: LoadBalancingBackend runs the longest first. "
            "Default: as long as it took before.",
        ),
        Option(
            "scheduler",
            "a scheduler, such as psyrun.ImmediateRun() or psyrun.Multiprocessing(), its name, or a list of queues",
            _is(Scheduler),
            "Where the chunks run.",
            ImmediateRun(),
            Scheduler,
            named,
            several,
        ),
        Option(
            "scheduler_args",
            "a dict, such as {'timelimit': '10m', 'memory': '512M'}",
            _is(Mapping),
            "What each job asks the scheduler for.",
            {},
        ),
        Option(
            "prologue",
            "a list of lines for the shell, such as ['module load python']",
            lambda value: _names(value) and not any("\n" in line for line in value),
            "What each job runs in its shell before the worker.",
            (),
        ),
        Option(
            "resubmit",
            "a whole number from 0",
            lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
            "How often a run goes on by itself with new jobs when the time of its jobs is over and they got on.",
            3,
        ),
        Option(
            "timeout",
            "a time such as '10m', '1h30m' or a number of seconds",
            _optional(_read_by(seconds)),
            "How long an item may take; then its process is killed, and the item fails. Default: as long as it takes.",
        ),
        Option(
            "seed",
            "a whole number from 0",
            lambda value: (_count(value) and value < 2**63) or (value == 0 and not isinstance(value, bool)),
            "With the item's key it makes the random numbers of an execute that takes rng or seed_sequence.",
            0,
        ),
        Option(
            "retries",
            f"a dict of whole numbers from 0 for {', '.join(map(repr, RETRIES))}",
            are_retries,
            "How often what fails in a run is tried again in that run.",
            {},
        ),
        Option(
            "confirm_above",
            "an amount such as '1000 core-hours', or None",
            _optional(_read_by(core_hours)),
            "Above what estimate, from measured durations, a run asks first. None: never.",
            "1000 core-hours",
        ),
        Option(
            "early_stop",
            "True or False",
            _is(bool),
            "Whether to stop when the first items, or the last 50, all failed with the same error.",
            True,
        ),
        Option("python", "the path of a Python interpreter", _optional(_path), "The interpreter that runs the items."),
        Option(
            "workdir",
            "the path of a directory",
            _path,
            "Where work directories of tasks are; this task's is the one of its name below.",
            "psy-work",
        ),
        Option(
            "resultfile",
            "the path of a file",
            _optional(_path),
            "Where the result goes; default result.npz (or .h5, .pkl) in the work directory of the task.",
        ),
        Option(
            "file_dep",
            "a list of paths",
            _paths,
            "Files that execute reads: when their content changes, its results are those of other code.",
            (),
        ),
        Option("exclude_from_result", "a list of names", _names, "Names to leave out of the result.", ()),
        Option(
            "added",
            "a dict such as {'noise': 0.0}",
            _is(Mapping),
            "Parameters that pspace got later, and the values that the rows from before were computed with.",
            {},
        ),
        Option(
            "overwrite_dirty",
            "True or False",
            _is(bool),
            "True: when the code changed, put the old results into the archive without asking and start afresh.",
            False,
        ),
        Option("name", "the name of the task", _is(str), "If set, it must agree with the name of the file.", ""),
    )
}


def resolved(given: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Return the value of every option.

    Parameters
    ----------
    given : dict
        Globals of the task file, on top of those of ``psy-conf.py``.
    task : str
        The name that the file has.

    Raises
    ------
    TaskError
        An option that is required and absent, or that has a wrong value.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS.values():
        if option.name in given:
            values[option.name] = option.value(given[option.name])
        elif option.required:
            raise TaskError(f"{option.name} is missing: {option.takes}")
        else:
            values[option.name] = option.default
    if values["name"] not in ("", task):
        raise TaskError(
            f"name = {values['name']!r}, but the file is that of {task!r}. Remove the line, or rename the file"
        )
    values["scheduler"].check(values["scheduler_args"])
    return values


NEWER = frozenset(
    {"cost", "timeout", "early_stop", "confirm_above", "seed", "retries", "added", "prologue", "resubmit"}
)
"""Options that psyrun 0.8 did not have: a task file may use such a name for something of its own."""


def own_constants(source: str) -> list[str]:
    r"""Return the names of newer options that a task file itself reads: they are not meant for psyrun.

    >>> own_constants("timeout = 3\ndef execute(x): return solve(x, timeout)")
    ['timeout']
    """
    tables = [symtable.symtable(source, "task", "exec")]
    for table in tables:
        tables += table.get_children()
    return sorted(
        name
        for name in NEWER
        if any(
            (symbol := _symbol(table, name)) is not None
            and symbol.is_referenced()
            and (table.get_type() == "module" or symbol.is_global())
            for table in tables
        )
    )


def _symbol(table: symtable.SymbolTable, name: str) -> symtable.Symbol | None:
    try:
        return table.lookup(name)
    except KeyError:
        return None


def template(task: str) -> str:
    """Return the text of a new task file."""
    lines = [
        f'"""The task {task}: try it with `psy-doit test {task}`, run it with `psy-doit {task}`."""',
        "",
        "import psyrun",
        "",
        "pspace = psyrun.Param(a=[1, 2, 3]) * psyrun.Param(b=[10, 20])",
        "",
        "",
        "def execute(a, b):",
        '    return {"y": a * b}',
        "",
        "",
        "# Options and their defaults:",
    ]
    for option in OPTIONS.values():
        if not option.required:
            shown = repr(option.default) if option.base is None else f"psyrun.{option.default!r}"
            lines += [f"# {option.name} = {shown}", f"#     {option.doc}"]
    return "\n".join(lines) + "\n"
