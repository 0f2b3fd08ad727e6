"""What a job asks for: one table of ``scheduler_args``, with the same words for every queue."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from psyrun.errors import TaskError, text_of
from psyrun.units import seconds

SAMPLE_NAME = "task:process:0"
"""The job name that functions are called with when nothing is submitted yet."""

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_MIB = {"K": Fraction(1, 1024), "": Fraction(1), "M": Fraction(1), "G": Fraction(1024), "T": Fraction(1024**2)}


@dataclass(frozen=True)
class Resource:
    """One name in ``scheduler_args``.

    Attributes
    ----------
    takes : str
        What it takes, as an error message and the reference say it.
    parse : callable
        Gives the value as psyrun has it, or raises a ValueError.
    doc : str
    listed : bool
        Whether a list is the value itself, and no ladder.
    """

    name: str
    takes: str
    parse: Callable[[Any], Any]
    doc: str
    listed: bool = False


def time_limit(value: Any) -> int:
    """Return a time in whole seconds, rounded up.

    Parameters
    ----------
    value : float or str
        Seconds; or terms such as ``1h30m``; or a time as Slurm writes it, where a bare number in a text is minutes.

    Raises
    ------
    ValueError
        It is no time above 0.

    Examples
    --------
    >>> [time_limit(v) for v in ('10m', 1.5, '90', '90:30', '1:30:00', '2-12', '2-12:30', '2-12:30:01')]
    [600, 2, 5400, 5430, 5400, 216000, 217800, 217801]
    """
    match = _CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return math.ceil(seconds(value))
    days, *clock = match.groups()
    numbers = [int(number) for number in clock if number is not None]
    if days is None and len(numbers) < 3:  # minutes[:seconds]
        numbers = [0, *numbers]
    total = int(days or 0) * 86400 + sum(number * size for number, size in zip(numbers, (3600, 60, 1), strict=False))
    if not total:
        raise ValueError(f"{value!r} is no time above 0")
    return total


def mebibytes(value: Any) -> int:
    """Return an amount of memory in MiB, rounded up.

    Parameters
    ----------
    value : float or str
        A number and a unit: ``K``, ``M``, ``G`` or ``T``, each 1024 times the one before, with or without ``B``.
        A bare number is one of megabytes, as Slurm has it.

    Raises
    ------
    ValueError
        It is no amount above 0.

    Examples
    --------
    >>> [mebibytes(v) for v in ('512M', '1G', '1.5GB', '2 TiB', '100K', '300', 300)]
    [512, 1024, 1536, 2097152, 1, 300, 300]
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    match = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not Fraction(match[1]):
        raise ValueError(f"{value!r} is no amount of memory")
    return math.ceil(Fraction(match[1]) * _MIB[match[2].upper()])


def _whole(least: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        try:
            number = operator.index(value)
        except TypeError as error:
            raise ValueError from error
        if isinstance(value, bool) or number < least:
            raise ValueError
        return number

    return parse


def _word(value: Any) -> str:
    # The queue's programs, and the shell of a job, must not take it for an option or for two lines.
    if not isinstance(value, str) or not value or value.startswith("-") or not value.isprintable():
        raise ValueError
    return value


def _words(value: Any) -> str:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)) or not values:
        raise ValueError
    return ",".join(map(_word, values))


def _options(value: Any) -> list[str]:
    if not isinstance(value, (list, tuple)):
        raise ValueError
    for word in value:
        if not (isinstance(word, str) and re.match("-+[^-]", word) and word.isprintable()):
            raise ValueError
    return list(value)


def _gpus(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.-]*(:[1-9]\d*)?", value):
        return value
    return str(_whole(1)(value))


_COUNT = "a whole number from 1"
_NODES = "names of nodes: 'n1,n[5-7]' or a list"
_SIZE = "an amount of memory such as '512M' or '1.5GB'; a bare number is one of megabytes"
_TIME = "a time such as '10m', '1h30m', '2-12:00:00' or a number of seconds"

RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        Resource("timelimit", _TIME, time_limit, "How long a job may run."),
        Resource("memory", _SIZE, mebibytes, "Memory of a job on each node."),
        Resource("memory_per_cpu", _SIZE, mebibytes, "Memory of a job for each of its cpus."),
        Resource("n_cpus", _COUNT, _whole(1), "Cpus of a job."),
        Resource("n_nodes", _COUNT, _whole(1), "Nodes of a job; psyrun uses the first."),
        Resource("cores_per_socket", _COUNT, _whole(1), "Only nodes with so many cores a socket."),
        Resource("sockets_per_node", _COUNT, _whole(1), "Only nodes with so many sockets."),
        Resource("gpus", "a whole number from 1, or a kind such as 'a100:2'", _gpus, "GPUs of a job on each node."),
        Resource("partition", "a name", _word, "The part of the cluster, or several with commas between."),
        Resource("account", "a name", _word, "Whom the time is charged to."),
        Resource("qos", "a name", _word, "The quality of service."),
        Resource("constraint", "a text such as 'avx2'", _word, "Features that nodes must have."),
        Resource("nodelist", _NODES, _words, "Nodes that the job must get.", True),
        Resource("exclude", _NODES, _words, "Nodes that the job must not get.", True),
        Resource("reservation", "a name", _word, "What was reserved."),
        Resource("nice", "a whole number from 0", _whole(0), "How far others go first."),
        Resource("mail_type", "a text such as 'END,FAIL' or a list", _words, "When to send mail.", True),
        Resource("mail_user", "an address", _word, "Where to send it."),
        Resource("dependency", "a text such as 'afterany:1234'", _word, "What to wait for."),
        Resource("throttle", _COUNT, _whole(1), "How many jobs of the task run at a time at most."),
        Resource(
            "extra",
            "a list of words that begin with '-', such as ['--exclusive']",
            _options,
            "Passed to the queue as they are.",
            True,
        ),
    )
}


def check(args: Mapping[str, Any], taken: Collection[str], scheduler: str) -> None:
    """Raise a TaskError if there is a name that a scheduler does not take, or a value that is not what it takes.

    Parameters
    ----------
    args : dict
        As in the task file. A value may be a function of the job's name, which is called with `SAMPLE_NAME`, or a list:
        what to ask for at the first attempt, at the second and so on.
    taken : collection of str
        Names that the scheduler takes.
    scheduler : str
        Its name.
    """
    for name in args:
        known = _known(name)
        if known not in taken:
            close = difflib.get_close_matches(str(known), taken, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"It takes {', '.join(sorted(taken))}"
            raise TaskError(f"scheduler_args: {scheduler} takes no {name!r}. {hint}")
    for rung in range(n_rungs(args)):
        resolved(args, SAMPLE_NAME, rung)


def check_own(own: Mapping[str, Any], scheduler: str) -> None:
    """Raise a TaskError if an argument of a scheduler itself is a function: these are noted, and compared."""
    for name, value in own.items():
        if any(map(callable, value)) if isinstance(value, (list, tuple)) else callable(value):
            raise TaskError(
                f"{scheduler}({name}=...): takes a value. Functions of the job's name go into scheduler_args"
            )


def n_rungs(args: Mapping[str, Any]) -> int:
    """Return the length of the longest ladder, 1 if there is none.

    >>> n_rungs({'memory': ['1G', '2G', '4G'], 'timelimit': '1h'})
    3
    """
    return max((len(_ladder(name, value)) for name, value in args.items()), default=1)


def resolved(args: Mapping[str, Any], job_name: str, rung: int = 0) -> dict[str, Any]:
    """Return what one job asks for: by the names of `RESOURCES`, with the values that their ``parse`` gives.

    Parameters
    ----------
    args : dict
        As in the task file; a value None is left out.
    job_name : str
        What functions among the values are called with.
    rung : int
        The number of the attempt from 0; past the end of a ladder it is the last.

    Raises
    ------
    TaskError
        A value is not what is taken.

    Examples
    --------
    >>> resolved({'timelimit': '10m', 'memory': ['1G', '2G']}, 'square', rung=1)
    {'timelimit': 600, 'memory': 2048}
    """
    values: dict[str, Any] = {}
    for name, value in args.items():
        if value is None:
            continue
        known = _known(name)
        if known not in RESOURCES:
            raise TaskError(f"scheduler_args: there is no {name!r}")
        if known in values:
            raise TaskError(f"scheduler_args: {known!r} is given twice. Leave one out")
        ladder = _ladder(name, value)
        values[known] = _value(RESOURCES[known], name, ladder[min(rung, len(ladder) - 1)], job_name)
    return values


def _known(name: Any) -> Any:
    # psyrun 0.8 has 'cores-per-socket'.
    return name.replace("-", "_") if isinstance(name, str) else name


def _ladder(name: str, value: Any) -> list[Any]:
    resource = RESOURCES.get(_known(name))
    if not isinstance(value, (list, tuple)) or (resource and resource.listed):
        return [value]
    if not value:
        raise TaskError(f"scheduler_args[{name!r}] = {value!r}: a list has a value for each attempt, and this has none")
    return list(value)


def _value(resource: Resource, name: str, given: Any, job_name: str) -> Any:
    shown = f"scheduler_args[{name!r}]"
    if callable(given):
        shown += f"({job_name!r})"
        try:
            given = given(job_name)
        except Exception as error:
            raise TaskError(f"{shown} raised {type(error).__name__}: {text_of(error)}") from error
    try:
        return resource.parse(given)
    except ValueError as error:
        raise TaskError(f"{shown} = {given!r:.80}: takes {resource.takes}") from error
