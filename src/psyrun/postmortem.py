"""What the queue's word on a job that ended tells of the items that it had in hand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from psyrun.claims import HELD, Claims, this_host
from psyrun.errors import TemporaryError
from psyrun.jobs import JobObserver, Jobs
from psyrun.memory import OUT_OF_MEMORY
from psyrun.parts import Failure, Writer
from psyrun.plan import Plan
from psyrun.scheduler import JobId, JobStatus
from psyrun.submissions import Submission
from psyrun.tasks import Task
from psyrun.terms import JOB_TIME
from psyrun.units import shown_bytes, shown_seconds

_MOST_OF_IT = 0.8


def record_ends(task: Task, jobs: Jobs) -> int:
    """Record a failure of items that were in hand when their job was ended for want of memory or time.

    A worker that is killed with its job cannot do it. What its last heartbeat told to be in hand is charged, if it is
    of the task's space; what is on record all the same counts as done. Returns how many failures were recorded.
    """
    n = 0
    found = [end for end in _ended(task, jobs) if end[0].space == task.pspace.digest]
    ends = jobs.ended([JobId(str(beat["job"]), submission.token) for _, beat, _, submission in found])
    for plan, beat, status, submission in found:
        work, failures = plan.work(), []
        told = ends.get(JobId(str(beat["job"]), submission.token), "")
        for position, seconds in _in_hand(beat, plan):
            index = next(work.indices(position, position))[0]
            key = task.pspace.item_keys_at([index])[0].tolist()
            said = _said(status, submission, seconds, told)
            if said:
                kind = OUT_OF_MEMORY if status.short_of == "memory" else JOB_TIME
                text = f"{said}; job {beat['job']}"
                failures.append(Failure((key[0], key[1]), index, time.time(), seconds, kind, text, "", text))
        n += _append(task, plan, beat["worker"], submission.rung, failures)
    return n


def _ended(task: Task, jobs: Jobs) -> Iterator[tuple[Plan, dict[str, Any], JobStatus, Submission]]:
    """Yield plan, last heartbeat, end and submission of each worker that was ended while it held something."""
    by_token = {submission.token: submission for submission in jobs.submissions}
    observer = JobObserver(jobs)
    for name in task.workdir.plan_ids():
        for worker in {token.worker for token in Claims(task.workdir.plans / name).tokens(HELD)}:
            beat = observer.read(worker)
            submission = by_token.get(str(beat.get("token")))
            if submission is None or not observer.left_by_queue(worker):
                continue
            status = jobs.status(JobId(str(beat["job"]), submission.token))
            if status.short_of:
                with suppress(TemporaryError):
                    yield Plan.read(task.workdir.plans / name), beat, status, submission


def _in_hand(beat: dict[str, Any], plan: Plan) -> Iterator[tuple[int, float]]:
    with suppress(TypeError, ValueError):
        for position, seconds in beat.get("hand", ()):
            if 0 <= int(position) < plan.n_work:
                yield int(position), float(seconds)


def _said(status: JobStatus, submission: Submission, seconds: float, told: str) -> str:
    """Return in words what an item lacked; '' if it need not be its fault."""
    more = f" ({told})" if told else ""
    terms = submission.terms("")
    if status.short_of == "memory":
        limit = f" of the {shown_bytes(terms.memory)} asked for" if terms.memory else ""
        return f"its job was ended by the queue: out of memory{limit}{more}"
    if terms.seconds is None or seconds < _MOST_OF_IT * terms.seconds:
        return ""
    return f"its job was ended by the queue after {shown_seconds(terms.seconds)}, and did nothing else{more}"


def _append(task: Task, plan: Plan, worker: str, rung: int, failures: list[Failure]) -> int:
    """Write a part of failures, once a worker; return how many."""
    if not failures:
        return 0
    path = task.workdir.parts / f"{worker}-q-0"
    try:
        part = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    except FileExistsError:
        return 0
    try:
        writer = Writer(part)
        about = {"worker": worker, "child": -1, "attempt": 0, "host": this_host(), "plan": plan.uid, "code": plan.code}
        keys = {"space": plan.space, "keys": plan.content["keys"], "parameters": plan.parameters}
        writer.header(about | keys | {"rung": rung})
        for failure in failures:
            writer.fail(failure)
        os.fsync(part)
    finally:
        os.close(part)
    return len(failures)
