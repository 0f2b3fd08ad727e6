"""What a job that was submitted to try a queue out found, and what is to be said where it found nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psyrun.machine import ERROR, OK, WARNING, Finding
from psyrun.scheduler import JobState, JobStatus
from psyrun.units import shown_seconds

_MOST_DELAY = 5.0
_LARGE_SKEW = 1.0
_JUST_BEGUN = 30.0

JOB, THERE, FILES, SIGNALS = "test job", "python there", "files there", "signals there"
SHARED = "set a workdir in the task file that the nodes of the cluster share with this machine"
_LONGER = "give it more time: --timeout 30m"


@dataclass(frozen=True)
class Times:
    """When a file was written and seen, as the clocks of this machine (here) and of the node (there) have it."""

    report_there: float
    report_here: float
    answer_here: float
    answer_there: float
    end_there: float
    end_here: float
    waited: float

    @property
    def round_trip(self) -> float:
        """Seconds from writing the answer to seeing what the job wrote then; by one clock."""
        return max(0.0, self.end_here - self.answer_here - self.waited)

    @property
    def skew(self) -> float:
        """How far the clock there is ahead, if files are seen as late there as here."""
        return ((self.answer_there - self.answer_here) + (self.end_there - self.end_here)) / 2


def ended(job: str, status: JobStatus, log: list[str], running: float, timeout: float, place: Path) -> Finding:
    """Return what to say of a job that did not report.

    Parameters
    ----------
    job : str
        Its id.
    status : JobStatus
        The last that the queue said of it.
    log : list of str
        The lines of its log.
    running : float
        For how many seconds it runs.
    timeout : float
        For how many seconds it was waited for.
    place : Path
        Where it should have reported.
    """
    why = f" ({status.reason})" if status.reason else ""
    within, said = f"within {shown_seconds(timeout)}", f": {log[-1]:.300}" if log else ""
    unseen = f"a file that it writes in {place.parent} is not seen here"
    if status.never:
        return Finding(JOB, ERROR, f"{job} would never start{why}", "mend scheduler_args")
    if status.state.over:
        word = f"{status.word or status.state.value}{why}"
        if log:
            return Finding(JOB, ERROR, f"{job} ended ({word}) before it could report{said}", "mend what it says")
        return Finding(JOB, ERROR, f"{job} ended ({word}), and nothing of it is here: {unseen}", SHARED)
    if status.state is JobState.RUNNING and running > _JUST_BEGUN:
        return Finding(JOB, ERROR, f"{job} runs since {shown_seconds(round(running))}, and {unseen}{said}", SHARED)
    if status.state is JobState.RUNNING:
        return Finding(JOB, WARNING, f"{job} began too late to report {within}", _LONGER)
    return Finding(JOB, WARNING, f"{job} did not start {within}; it is {status.state.value}{why}", _LONGER)


def ran(report: Mapping[str, Any], job: str, waited: float) -> Finding:
    """Return that a job ran, where, and how long that took."""
    told = f"{job} ran on {report['host']}; {shown_seconds(float(f'{waited:.2g}'))} from submission to its first file"
    if report["job"] != job:
        other = f"PSYRUN_JOB is {report['job']!r} there, so nobody can tell which worker it is"
        return Finding(JOB, WARNING, f"{told}. {other}", "do not change PSYRUN_JOB in the prologue")
    return Finding(JOB, OK, told)


def python_there(report: Mapping[str, Any], here: Mapping[str, Any]) -> Finding:
    """Return how the interpreter of a job differs from this one."""
    versions = report["versions"]
    told = f"{report['executable']}: {', '.join(f'{name} {version}' for name, version in versions.items())}"
    other = {name: version for name, version in here["versions"].items() if versions.get(name) != version}
    remedy = "set python in the task file, or a prologue that makes jobs find the same installation"
    if "cannot" in versions["numpy"]:
        return Finding(THERE, ERROR, told, remedy)
    if other:
        told += f"; here: {', '.join(f'{name} {version}' for name, version in other.items())}"
        return Finding(THERE, WARNING, told, remedy)
    return Finding(THERE, OK, f"{told}, as here")


def cores_there(report: Mapping[str, Any], asked: int) -> Finding:
    """Return whether a job has the cores that it asks for."""
    n = report["cores"]
    told = f"{n} may be used, {asked} asked for"
    if n < asked:
        return Finding("cores there", WARNING, f"{told}; items at a time share them", "mend n_cpus or pool_size")
    return Finding("cores there", OK, told)


def files_there(host: str, times: Times) -> Finding:
    """Return how late files are seen by others."""
    both = shown_seconds(float(f"{times.round_trip:.2g}"))
    if abs(times.skew) > max(_LARGE_SKEW, times.round_trip):
        way = "ahead of" if times.skew > 0 else "behind"
        told = f"from here to {host} and back in {both}; the clock there is "
        told += f"{shown_seconds(float(f'{abs(times.skew):.2g}'))} {way} this one"
        meaning = "psyrun compares no clocks, but times that are shown differ"
        return Finding(FILES, WARNING, f"{told}. {meaning}", "have both machines follow NTP")
    here, there = (
        shown_seconds(float(f"{max(0.0, seen - written):.2g}"))
        for seen, written in ((times.report_here, times.report_there), (times.answer_there, times.answer_here))
    )
    told = f"of {host} seen here after {here}, those of here there after {there}, there and back {both}"
    if times.round_trip > _MOST_DELAY:
        return Finding(FILES, WARNING, f"{told}; workers find work as late")
    return Finding(FILES, OK, told)


def signals_there(report: Mapping[str, Any], warned: bool | None, trouble: str) -> Finding:
    """Return whether a job hears that its time is nearly over.

    Parameters
    ----------
    report : dict
    warned : bool or None
        Whether it heard the signal that it was sent; None if none was sent.
    trouble : str
        Why not, '' if the queue sends none.
    """
    told = f"the worker is the job's own process, below {report['parent'] or 'a process without a name'}"
    remedy = "workers stop by the timelimit of scheduler_args: set it; check the prologue for exec and trap"
    if not report["handles_signals"]:
        return Finding(SIGNALS, WARNING, "a process cannot hear SIGUSR1 there", remedy)
    if trouble:
        return Finding(SIGNALS, WARNING, f"{told}; it could not be warned: {trouble}", remedy)
    if warned is None:
        return Finding(SIGNALS, OK, f"{told}; this queue sends no warning before its time is over")
    if not warned:
        told = f"the warning that its time is nearly over does not reach the worker, below {report['parent']}"
        return Finding(SIGNALS, WARNING, told, remedy)
    return Finding(SIGNALS, OK, f"{told}; a warning that its time is nearly over reaches it")
