"""What is told to Slurm: the script of a job, the line that submits it; and what the script writes into the log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from psyrun.errors import TaskError
from psyrun.scheduler.base import Job

_START = re.compile(r"^psyrun: job (\S+) on node (\S+)$", re.MULTILINE)
_SECONDS_TO_STOP = 60
_MOST_OF_A_NAME = 200

_OPTIONS = {
    "n_cpus": "--cpus-per-task={}",
    "n_nodes": "--nodes={}",
    "memory": "--mem={}M",
    "memory_per_cpu": "--mem-per-cpu={}M",
    "cores_per_socket": "--cores-per-socket={}",
    "sockets_per_node": "--sockets-per-node={}",
    # Unlike --gpus, every version and every way of choosing nodes knows it.
    "gpus": "--gres=gpu:{}",
    "partition": "--partition={}",
    "account": "--account={}",
    "qos": "--qos={}",
    "constraint": "--constraint={}",
    "nodelist": "--nodelist={}",
    "reservation": "--reservation={}",
    "nice": "--nice={}",
    "mail_type": "--mail-type={}",
    "mail_user": "--mail-user={}",
    "dependency": "--dependency={}",
}


def script(job: Job) -> str:
    """Return the script of a job. It ends as the command, so that Slurm's signals reach that and nothing outlives it.

    Raises
    ------
    TaskError
        A path or word cannot stand in it.
    """
    lines = [
        "#!/bin/bash -l" if job.prologue else "#!/bin/sh",
        'PSYRUN_JOB="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
        "export PSYRUN_JOB",
        # Slurm's warning may come before the command listens to it, and would end this shell.
        "trap '' USR1",
        # Before the prologue, so that the log tells where one failed.
        'echo "psyrun: job $PSYRUN_JOB on node ${SLURMD_NODENAME:-$(hostname)}"',
        *job.prologue,
        # Where its directory is missing, Slurm runs a job in a directory for temporary files.
        f"cd {_quoted(_path(job.directory))} || exit 75",
        f"exec {' '.join(map(_quoted, job.command))}",
    ]
    text = "\n".join(lines) + "\n"
    if "\0" in text or "\r" in text:
        raise TaskError(f"job {job.name!r}: a script cannot have NUL or carriage return in it. Remove them: {text!r}")
    if any(line.lstrip().startswith("#SBATCH") for line in job.prologue):
        raise TaskError("Slurm reads #SBATCH lines only where a script begins. Put the options into scheduler_args")
    return text


def sbatch_command(job: Job, n: int) -> list[str]:
    """Return the words that submit an array of n elements; the script is read from the standard input.

    Raises
    ------
    TaskError
        A path cannot be told to Slurm.
    """
    resources = job.resources
    throttle = f"%{resources['throttle']}" if "throttle" in resources else ""
    return [
        *("sbatch", "--parsable", f"--comment={job.token}", f"--job-name={job_name(job.name)}"),
        *(f"--array=0-{n - 1}{throttle}", "--open-mode=append", "--requeue"),
        *(f"--chdir={_path(job.directory)}", f"--output={_log_pattern(job.logs)}"),
        *resource_options(resources, job.exclude),
    ]


def resource_options(resources: Mapping[str, Any], exclude: Iterable[str] = ()) -> list[str]:
    """Return the options of sbatch for what a job asks for, see `psyrun.scheduler.resources.resolved`.

    >>> resource_options({'timelimit': 5400, 'memory': 512}, exclude=['n3'])
    ['--time=0-01:30:00', '--signal=B:USR1@60', '--mem=512M', '--exclude=n3']
    """
    options = []
    if "timelimit" in resources:
        options.append(f"--time={clock(resources['timelimit'])}")
        # It comes up to a minute early, so that short jobs would be warned when they begin: these look at the clock.
        if resources["timelimit"] > 3 * _SECONDS_TO_STOP:
            options.append(f"--signal=B:USR1@{_SECONDS_TO_STOP}")
    options += [form.format(resources[name]) for name, form in _OPTIONS.items() if name in resources]
    left_out = [*([resources["exclude"]] if "exclude" in resources else []), *exclude]
    if left_out:
        options.append(f"--exclude={','.join(left_out)}")
    return [*options, *resources.get("extra", [])]


def clock(seconds: int) -> str:
    """Return a time as Slurm writes it.

    >>> clock(2 * 86400 + 3 * 3600 + 4 * 60 + 5)
    '2-03:04:05'
    """
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"{day}-{hour:02}:{minute:02}:{second:02}"


def job_name(name: str) -> str:
    """Return a name for the queue: with a slash Slurm could not open the log, and long ones are refused.

    >>> job_name('a/b c:process')
    'a_b_c:process'
    """
    return re.sub(r"[^\w.:+-]", "_", name, flags=re.ASCII)[:_MOST_OF_A_NAME] or "psyrun"


def log_name(job_id: str) -> str:
    """Return the name of the log of a job, as the submission has it.

    >>> log_name('17_3')
    'job-17_3.log'
    """
    return f"job-{job_id}.log"


def starts(log: str) -> list[tuple[str, str]]:
    """Return id and node of each start of the job that a log tells of; a requeued job has several.

    >>> starts('psyrun: job 17_3 on node n7' + chr(10))
    [('17_3', 'n7')]
    """
    return [(match[1], match[2]) for match in _START.finditer(log)]


def node_of(log: str) -> str | None:
    """Return the node of the last start that a log tells of."""
    found = starts(log)
    return found[-1][1] if found else None


def elements(text: str) -> tuple[str, list[int] | None]:
    """Return array and numbers of the elements that an id of squeue means; None: all that are not listed alone.

    Raises
    ------
    ValueError
        It is none, or was truncated.

    Examples
    --------
    >>> elements('7_[0-3,9%2]'), elements('7_3'), elements('7')
    (('7', [0, 1, 2, 3, 9]), ('7', [3]), ('7', None))
    """
    if "..." in text or ("[" in text and not text.endswith("]")):
        raise ValueError(f"{text!r} is truncated")
    # A component of a heterogeneous job is 7+1.
    match = re.fullmatch(r"(\d+(?:\+\d+)?)(?:_(\d+)|_\[([\d,:-]+)(?:%\d+)?\])?", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no id of a job")
    array, single, several = match.groups()
    if single is not None:
        return array, [int(single)]
    if several is None:
        return array, None
    numbers: list[int] = []
    for span in several.split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?", span)
        if ends is None:
            raise ValueError(f"{text!r} is no id of a job")
        numbers += range(int(ends[1]), int(ends[2] or ends[1]) + 1, int(ends[3] or 1))
    return array, numbers


def compressed(array: str, numbers: Iterable[int]) -> str:
    """Return elements of an array as scancel takes them.

    >>> compressed('17', [7, 0, 1, 2, 3])
    '17_[0-3,7]'
    """
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return f"{array}_[{','.join(str(a) if a == b else f'{a}-{b}' for a, b in spans)}]"


def _path(path: Path) -> str:
    # Slurm keeps scripts and options as lines of text.
    text = str(path)
    if not path.is_absolute() or not text.isprintable():
        raise TaskError(f"{text!r}: jobs take absolute paths without line breaks and bytes that are no text. Rename it")
    return text


def _log_pattern(directory: Path) -> str:
    text = _path(directory)
    if "\\" in text:
        # It has Slurm take the whole pattern as it is: every job would write into one file.
        raise TaskError(f"{text!r}: Slurm puts no logs into a directory with a backslash in its name. Rename it")
    return f"{text.replace('%', '%%')}/{log_name('%A_%a')}"


def _quoted(word: str) -> str:
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise TaskError(f"{word!r}: the script of a job cannot have bytes that are no text. Rename it") from error
    return f"'{word}'" if re.fullmatch(r"[^']+", word) else shlex.quote(word)
