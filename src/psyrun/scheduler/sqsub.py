"""SHARCNET's queue: sqsub, sqjobs and sqkill.

Facts, from what users of it published. ``sqsub`` says ``submitted as jobid 222166``, and writes the number to the file
that ``--idfile`` names. ``sqjobs`` prints two lines of headings, a line a job (those that ended a while ago are no
longer among them), and on some clusters lines about the whole of it; its status is 1 if no job waits or runs. Which
columns there are differs from cluster to cluster, but the first three are number, queue and state, and the name that
``-j`` gave stands near the end. Not every cluster puts just the number in place of ``%J`` in the name of an output
file, and the queue writes a few lines of its own below the output. So the script of a job opens its log itself, and
``-o`` names another file.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psyrun.errors import TaskError, trouble
from psyrun.files import random_name, write_new
from psyrun.scheduler.base import Job, JobId, JobState, JobStatus, Queue, QueueError, SubmitError
from psyrun.scheduler.cache import Cache
from psyrun.scheduler.resources import check, check_own
from psyrun.shell import Answer, run_command

TAKES = ("timelimit", "memory", "n_cpus", "n_nodes", "partition", "dependency", "extra")
"""The ``scheduler_args`` that sqsub has options for."""

STATES = {
    "Q": JobStatus(JobState.QUEUED, "Q"),
    "*Q": JobStatus(JobState.QUEUED, "*Q", "waits for another job"),
    "H": JobStatus(JobState.HELD, "H"),
    "S": JobStatus(JobState.HELD, "S", "suspended"),
    "T": JobStatus(JobState.HELD, "T", "suspended"),
    "Z": JobStatus(JobState.HELD, "Z", "sleeping"),
    "R": JobStatus(JobState.RUNNING, "R"),
    "C": JobStatus(JobState.DONE, "C"),
    "D": JobStatus(JobState.DONE, "D"),
    "K": JobStatus(JobState.CANCELLED, "K"),
}
"""What the words of sqjobs mean. A job that failed is done as any other."""

_HEADER = re.compile(r"\s*jobid\s+queue\s+state\b")
_ROW = re.compile(r"\s*(\d+)\s+\S+\s+(\*?[A-Z]+)\s+(.*)")
_SUMMARY = re.compile(r"\s*\d+ (CPUs total|reserved cpus)")
_SUBMITTED = re.compile(r"submitted as jobid (\d+)")
_AT_ONCE = 100
# What psyrun tells sqsub itself; the rest has names of its own.
_OURS = ("-j", "-o", "-e", "--idfile")


class Sqsub(Queue):
    """SHARCNET's queue. It cannot leave nodes out, and does not tell whether a job failed.

    Parameters
    ----------
    workdir : path
        Where the scripts of jobs go, and what the queue itself has to say of each. Made when the first job is
        submitted; all machines of the cluster must see it.
    **own
        ``scheduler_args`` for the jobs of this one, on top of those of the task.
    """

    programs = ("sqsub", "sqjobs", "sqkill")

    def __init__(self, workdir: str | os.PathLike[str], **own: Any):
        self.own = own
        self.workdir = os.fspath(workdir)
        self._jobs = Cache("sqsub-jobs", lambda: shutil.which("sqjobs") or "")

    def check(self, scheduler_args: Mapping[str, Any]) -> None:
        """Raise a TaskError for an argument that sqsub has no option for, a wrong value, or no time limit."""
        args = self.asks(scheduler_args)
        check_own(self.own, "Sqsub")
        check(args, TAKES, "Sqsub")
        if args.get("timelimit") is None:
            raise TaskError(
                "scheduler_args: Sqsub takes no job without a time limit. Say how long a job may run, such as "
                "scheduler_args = {'timelimit': '10m'}"
            )
        for word in args.get("extra") or ():
            if word.startswith(_OURS):
                raise TaskError(f"scheduler_args['extra']: {word!r} is what psyrun sets itself. Leave it out")

    def submit(self, job: Job, number: int = 0) -> JobId:
        """Give one job to sqsub. See `Queue.submit`."""
        stem = self._stem(job)
        words = command_line(job, stem)
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            job.logs.mkdir(parents=True, exist_ok=True)
            script = _beside(stem, ".sh")
            write_new(script, script_text(job, stem).encode())
            script.chmod(0o700)
        except OSError as error:
            raise SubmitError(str(trouble(stem.parent, error, "jobs cannot be prepared"))) from error
        try:
            answer = run_command(words, cwd=job.directory)
        finally:
            self._jobs.forget()
        try:
            return JobId(_submitted(stem, answer), job.token)
        except OSError as error:
            raise SubmitError(str(trouble(stem, error, "the number of a job")), unsure=True) from error

    def poll(self, ids: Sequence[JobId], max_age: float = 0.0) -> dict[JobId, JobStatus]:
        """Ask sqjobs for all jobs of this user, unless there is an answer young enough. See `Queue.poll`."""
        if not ids:
            return {}
        rows = self._rows(max_age)
        return {job_id: _status(rows, job_id) for job_id in ids}

    def cancel(self, ids: Sequence[JobId]) -> None:
        """Give those that are ours, and not over, to sqkill. See `Queue.cancel`."""
        live = self._live(ids)
        for first in range(0, len(live), _AT_ONCE):
            some = live[first : first + _AT_ONCE]
            try:
                answer = run_command(["sqkill", *(job_id.id for job_id in some)])
            finally:
                self._jobs.forget()
            # It also complains of a job that ended meanwhile.
            if answer.status and self._live(some):
                raise QueueError(f"sqkill: {_told(answer)}. Type the command again")

    def find(self, token: str) -> list[JobId]:
        """Return the jobs that sqjobs shows with a token. See `Queue.find`."""
        return [JobId(number, token) for number, (_, rest) in self._rows().items() if _is_named(rest, token)]

    def preview(self, job: Job) -> str:
        """Return the command line of sqsub and the script that it gets."""
        stem = self._stem(job, "ID")
        return f"{job.n} x {shlex.join(command_line(job, stem))}\n\n{script_text(job, stem)}"

    def _stem(self, job: Job, name: str = "") -> Path:
        return job.directory / self.workdir / f"job-{name or random_name()}"

    def _rows(self, max_age: float = 0.0) -> dict[str, tuple[JobStatus, str]]:
        kept = self._jobs.read(max_age)
        text = self._jobs.keep(_ask_for_jobs) if kept is None else kept[0]
        return parsed(text) if text else {}

    def _live(self, ids: Sequence[JobId]) -> list[JobId]:
        return [job_id for job_id, status in self.poll(ids).items() if not status.state.over]


def job_name(job: Job) -> str:
    """Return the name that a job has in the queue: its token comes first, for names may be cut.

    >>> job_name(Job("my task: 1/2", "a1b2", ("/bin/true",), Path("/"), Path("/")))
    'a1b2:my-task-1-2'
    """
    return f"{job.token}:{re.sub(r'[^A-Za-z0-9_.]+', '-', job.name).strip('-')}"


def command_line(job: Job, stem: Path) -> list[str]:
    """Return the words that give a job to the queue.

    Parameters
    ----------
    job : Job
    stem : Path
        What the names of the job's files begin with.
    """
    given = job.resources
    if "timelimit" not in given:
        raise TaskError("Sqsub takes no job without a time limit: scheduler_args = {'timelimit': '10m'}")
    words = ["sqsub", "-r", f"{-(-given['timelimit'] // 60)}m"]
    if "memory" in given:
        words.append(f"--mpp={given['memory']}M")
    for name, option in (("n_cpus", "-n"), ("n_nodes", "-N"), ("partition", "-q"), ("dependency", "-w")):
        if name in given:
            words += [option, str(given[name])]
    files = ["-o", str(_beside(stem, ".out")), f"--idfile={_beside(stem, '.id')}"]
    return [*words, *given.get("extra", ()), "-j", job_name(job), *files, str(_beside(stem, ".sh"))]


def script_text(job: Job, stem: Path) -> str:
    """Return what a job runs: it waits for its number, opens its log, and becomes the command."""
    number = shlex.quote(str(_beside(stem, ".id")))
    logs = shlex.quote(str(job.logs))
    return "\n".join(
        [
            "#!/bin/bash -l" if job.prologue else "#!/bin/sh",
            f"# {job_name(job)}",
            "PSYRUN_JOB=",
            "for waited in 0 1 1 2 5 10 20 30; do",
            '    sleep "$waited"',
            f"    [ -s {number} ] && read -r PSYRUN_JOB < {number}",
            '    [ -n "$PSYRUN_JOB" ] && break',
            "done",
            "PSYRUN_JOB=${PSYRUN_JOB:-$SQ_JOBID}",
            '[ -n "$PSYRUN_JOB" ] || { echo "psyrun: this job has no number" >&2; exit 75; }',
            "export PSYRUN_JOB",
            f'exec >> {logs}/job-"$PSYRUN_JOB".log 2>&1',
            f"cd {shlex.quote(str(job.directory))} || exit 75",
            *job.prologue,
            f"exec {shlex.join(job.command)}",
            "",
        ]
    )


def parsed(output: str) -> dict[str, tuple[JobStatus, str]]:
    """Return the state of each job, and what the columns after that say, from what sqjobs printed.

    Raises
    ------
    QueueError
        That is no such table.
    """
    heading, *lines = [line for line in output.splitlines() if line.strip()] or [""]
    if not _HEADER.match(heading):
        raise QueueError(f"sqjobs: takes a table that begins with jobid, queue and state, got {heading!r:.80}")
    rows = {}
    for line in lines:
        match = _ROW.fullmatch(line)
        if match:
            rows[match[1]] = STATES.get(match[2], JobStatus(JobState.UNKNOWN, match[2])), match[3]
        elif line.lstrip()[:1].isdigit() and not _SUMMARY.match(line):
            raise QueueError(f"sqjobs: takes number, queue and state of a job, got {line!r:.80}")
    return rows


def _ask_for_jobs() -> str:
    """Return the table of sqjobs, '' if it has no job to show and says so with its status alone."""
    answer = run_command(["sqjobs"])
    if answer.status not in (0, 1) or (answer.status == 1 and answer.errors.strip()):
        raise QueueError(f"sqjobs: {_told(answer)}. Whether jobs run is not known; type the command again later")
    if answer.status == 1 and not answer.output.strip():
        return ""
    parsed(answer.output)  # what is no table is not kept
    return answer.output


def _status(rows: Mapping[str, tuple[JobStatus, str]], job_id: JobId) -> JobStatus:
    status, columns = rows.get(job_id.id, (JobStatus(JobState.GONE), ""))
    return status if _is_named(columns, job_id.token) else JobStatus(JobState.GONE)


def _is_named(columns: str, token: str) -> bool:
    return any(word.startswith(f"{token}:") for word in columns.split())


def _submitted(stem: Path, answer: Answer) -> str:
    """Return the number of a job; the job itself learns it from the same file."""
    file = _beside(stem, ".id")
    number = file.read_text().strip() if file.exists() else ""
    if number.isdecimal():
        return number
    told = _SUBMITTED.search(answer.output)
    if told:
        file.write_text(f"{told[1]}\n")
        return told[1]
    missing = answer.status == 127
    hint = "Is this a machine of SHARCNET?" if missing else "Nothing finished is lost; type the command again"
    raise SubmitError(f"sqsub: {_told(answer)}. {hint}", unsure=not missing)


def _told(answer: Answer) -> str:
    return (answer.errors.strip() or answer.output.strip() or f"it ended with status {answer.status}")[-500:]


def _beside(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)
