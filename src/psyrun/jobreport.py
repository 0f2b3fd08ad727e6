"""What people, and other programs, are told of the jobs of a task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psyrun.jobs import Jobs, shown_ids
from psyrun.queues import called
from psyrun.scheduler import JobState, JobStatus


def counts(answers: Iterable[JobStatus]) -> dict[str, int]:
    """Return how many jobs are in which state, by its name."""
    found: dict[str, int] = {}
    for status in answers:
        found[status.state.value] = found.get(status.state.value, 0) + 1
    return found


def job_lines(jobs: Jobs) -> list[str]:
    """Return what people should know of the jobs of a task, a line each."""
    found = []
    if jobs.trouble:
        which = " and ".join(dict.fromkeys(called(s.scheduler) for s in jobs.submissions if jobs.is_silent(s)))
        which = which if jobs.are_several() else "the queue"
        found.append(f"{which} gives no answer, so jobs may be there: {jobs.trouble}")
    for submission in jobs.submissions:
        alive = jobs.alive(lambda s, submission=submission: s is submission)  # type: ignore[misc]
        if submission.ids is None and submission.by.gone():
            found.append("jobs may be in the queue that nobody noted; the next psy-doit finds out")
        elif submission.ids is None:
            found.append(f"jobs are being submitted by process {submission.by.pid} on {submission.by.host}")
        elif jobs.elsewhere(submission):
            told = f"the cluster {jobs.elsewhere(submission)}, which cannot be asked from here"
            found.append(f"jobs {shown_ids(job.id for job in alive)} were given to {told}")
            found.append(f"  if it is no more: touch {jobs.workdir.submissions / submission.name / 'over'}")
        elif alive and not jobs.is_silent(submission):
            what = ", ".join(f"{n} {state}" for state, n in counts(alive.values()).items())
            reasons = {s.reason for s in alive.values() if s.state in (JobState.QUEUED, JobState.HELD) and s.reason}
            why = f" ({', '.join(sorted(reasons))})" if reasons else ""
            where = f" in {called(submission.scheduler)}" if jobs.are_several() else ""
            found.append(f"jobs {shown_ids(job.id for job in alive)}{where}: {what}{why}")
            if any(status.never for status in alive.values()):
                which = "they" if all(status.never for status in alive.values()) else "some"
                do = "mend what they ask for, kill them, and type the command again"
                found.append(f"  {which} will never start, for that reason: {do}")
    return found


def job_report(jobs: Jobs) -> dict[str, Any]:
    """Return the same as JSON has it."""
    alive = jobs.alive()
    where = {submission.token: called(submission.scheduler) for submission in jobs.submissions}
    return {
        "answered": not jobs.trouble,
        "counts": {} if jobs.trouble else counts(alive.values()),
        "alive": [
            {
                "id": job.id,
                "queue": where[job.token],
                "state": status.state.value,
                "word": status.word,
                "reason": status.reason,
            }
            for job, status in alive.items()
        ],
    }
