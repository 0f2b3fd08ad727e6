"""What `psy-doit doctor` finds out of a queue: it gives it one job, which reports, and cancels it if it does not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from psyrun.errors import PsyrunError, trouble
from psyrun.files import random_name, write_json
from psyrun.jobfindings import (
    FILES,
    JOB,
    SHARED,
    Times,
    cores_there,
    ended,
    files_there,
    python_there,
    ran,
    signals_there,
)
from psyrun.jobprobe import ANSWER, END, PAUSE, REPORT, about, read, wait_until
from psyrun.machine import ERROR, OK, Finding
from psyrun.probes import workbench
from psyrun.questions import check_python
from psyrun.queued import QueuedRun
from psyrun.run import Choices
from psyrun.scheduler import Job, JobId, JobState, JobStatus, Queue, QueueError, SubmitError
from psyrun.tasks import Task
from psyrun.units import shown_seconds

TIMEOUT = 120.0
"""Seconds that the job gets, the time that it waits in the queue included."""
_POLL = 1.0
_MOST_WAIT_FOR_END = 30.0
_MOST_WAIT_FOR_CANCEL = 10.0

# What only matters for those who wait for the results.
_LEFT_OUT = ("dependency", "mail_type", "mail_user")


def check_jobs(task: Task, queue: Queue, place: Path, timeout: float, say: Callable[[str], None]) -> list[Finding]:
    """Return what there is to say of a queue, and of the nodes where its jobs run.

    Parameters
    ----------
    task : Task
        What it says of its jobs goes for the one that is submitted.
    queue : Queue
    place : Path
        A directory, on the file system of the work directory.
    timeout : float
        Seconds.
    say : callable
        Called with what people should know while they wait.
    """
    found = answers(queue)
    if found.level == ERROR:
        return [found]
    try:
        with workbench(place) as bench:
            return [found, *JobCheck(task, queue, bench, timeout, say).run()]
    except OSError as error:
        return [found, Finding(JOB, ERROR, str(trouble(error.filename or place, error)))]


def answers(queue: Queue) -> Finding:
    """Return whether a queue answers."""
    absent = [program for program in queue.programs if shutil.which(program) is None]
    if absent:
        told = f"{queue!r}: there is no {', '.join(absent)} on this machine"
        return Finding("queue", ERROR, told, "type it on a login node of the cluster")
    began = time.monotonic()
    try:
        queue.poll([JobId("1", "psy:none")])
    except QueueError as error:
        return Finding("queue", ERROR, f"{queue!r}: {error}", "try it again later; nothing is submitted until then")
    seconds = float(f"{time.monotonic() - began:.2g}")
    version = queue.version()
    return Finding("queue", OK, f"{queue!r} answers in {shown_seconds(seconds)}{f'; {version}' if version else ''}")


class JobCheck:
    """One job that is submitted, waited for, and asked.

    Parameters
    ----------
    task, queue, timeout, say
        See `check_jobs`.
    bench : Path
        An empty directory.
    """

    def __init__(self, task: Task, queue: Queue, bench: Path, timeout: float, say: Callable[[str], None]):
        self._task = task
        self._queue = queue
        self._bench = bench
        self._timeout = timeout
        self._say = say
        self._status = JobStatus(JobState.QUEUED)
        self._running_since: float | None = None

    def run(self) -> list[Finding]:
        """Submit it, and return what it found, or what became of it."""
        try:
            check_python(self._task)
            job = self.job()
            self._queue.check_submission(job)
            (job_id,) = self._submit(job)
        except PsyrunError as error:
            return [Finding(JOB, ERROR, str(error), "mend scheduler_args, or what it says")]
        try:
            return self._followed(job_id)
        except BaseException:
            self._say(f"job {job_id.id}: stopped{self._cancel(job_id)}")
            raise

    def job(self) -> Job:
        """Return what is submitted: a job as the task's are, but for what it runs."""
        job = QueuedRun(self._task, Choices(), self._queue).job(self._queue, 0, 1, "", "")
        return replace(
            job,
            name="psy-doctor",
            token=f"psy:doctor-{random_name()}",
            command=(job.command[0], "-m", "psyrun.jobprobe", str(self._bench)),
            logs=self._bench,
            resources={name: value for name, value in job.resources.items() if name not in _LEFT_OUT},
        )

    def _submit(self, job: Job) -> list[JobId]:
        try:
            return self._queue.submit_many(job)
        except BaseException as error:
            # It may have been taken, also where Ctrl-C came in between.
            with suppress(QueueError):
                taken = error.taken if isinstance(error, SubmitError) else []
                self._queue.cancel(taken or self._queue.find(job.token))
            raise

    def _followed(self, job: JobId) -> list[Finding]:
        began = time.monotonic()
        report = self._wait_for_report(job, began + self._timeout)
        if report is None:
            told = self._cancel(job)
            found = ended(job.id, self._status, self._log(job), self._seconds_running(), self._timeout, self._bench)
            return [replace(found, told=f"{found.told}{told}")]
        seen, waited = time.time(), time.monotonic() - began
        can_warn, why_not = self._warn(job)
        answer = {"warned": can_warn, "written": time.time()}
        write_json(self._bench / ANSWER, answer)
        end = wait_until(lambda: read(self._bench, END), _MOST_WAIT_FOR_END)
        if end is None:
            self._cancel(job)
            told = f"a file of this machine was not seen on {report['host']} within {shown_seconds(_MOST_WAIT_FOR_END)}"
            late = Finding(FILES, ERROR, told, SHARED)
            return [ran(report, job.id, waited), python_there(report, about()), late]
        times = (report["written"], seen, answer["written"], end["seen"], end["written"], time.time(), end["waited"])
        return [
            ran(report, job.id, waited),
            python_there(report, about()),
            cores_there(report, int(self.job().resources.get("n_cpus", 1))),
            files_there(report["host"], Times(*times)),
            signals_there(report, end["warned"] if can_warn else None, why_not),
        ]

    def _wait_for_report(self, job: JobId, end: float) -> dict[str, Any] | None:
        """Return what the job reports; None when there is no more hope or time."""
        next_poll, told = 0.0, ""
        while time.monotonic() < end:
            report = read(self._bench, REPORT)
            if report is not None:
                return report
            if time.monotonic() >= next_poll:
                self._ask(job)
                line = f"{self._status.state.value}{f': {self._status.reason}' if self._status.reason else ''}"
                if line != told:
                    self._say(f"job {job.id} is {line}")
                told = line
                next_poll = time.monotonic() + _POLL
                if self._status.never:
                    return None
                if self._status.state.over:  # listings lag
                    left = min(_MOST_WAIT_FOR_END, end - time.monotonic())
                    found: dict[str, Any] | None = wait_until(lambda: read(self._bench, REPORT), left)
                    return found
            time.sleep(PAUSE)
        return None

    def _ask(self, job: JobId) -> None:
        with suppress(QueueError):  # the next answer will do
            self._status = self._queue.poll([job])[job]
        if self._status.state is JobState.RUNNING and self._running_since is None:
            self._running_since = time.monotonic()

    def _seconds_running(self) -> float:
        return 0.0 if self._running_since is None else time.monotonic() - self._running_since

    def _log(self, job: JobId) -> list[str]:
        with suppress(OSError):
            text = (self._bench / f"job-{job.id}.log").read_text(errors="replace")
            return [line for line in text.splitlines() if line.strip()]
        return []

    def _warn(self, job: JobId) -> tuple[bool, str]:
        try:
            return self._queue.warn(job), ""
        except QueueError as error:
            return False, str(error)

    def _cancel(self, job: JobId) -> str:
        """End the job, and wait until it is; return what is to be said of that."""
        if self._status.state.over:
            return ""
        try:
            self._queue.cancel([job])
            wait_until(lambda: self._queue.poll([job])[job].state.over, _MOST_WAIT_FOR_CANCEL)
        except QueueError as error:
            return f". It could not be cancelled: {error}"
        return ". It was cancelled"
