"""Notes of what was given to a queue."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from psyrun.claims import Process
from psyrun.errors import TemporaryError
from psyrun.jobreport import job_report
from psyrun.jobs import JobObserver, Jobs, jobs_of
from psyrun.plan import Plan
from psyrun.queues import made, recipe_of
from psyrun.scheduler import Job, JobId, JobState, JobStatus, Queue, QueueError, Sqsub, SubmitError
from psyrun.scheduler.base import Scheduler
from psyrun.submissions import Submission, next_number, read_submission, read_submissions
from psyrun.terms import Terms
from psyrun.workdir import Workdir

PLAN = cast(Plan, SimpleNamespace(uid="abcd", id="0001"))
GONE_BY = Process("here", "another boot", "", 1, "0")


class Fake(Queue):
    """A queue that does as it is told."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, JobState] = {}
        self._fails = ""
        self._limit = 99
        self._unsure = False
        self._asked = 0
        self._max_ages: list[float] = []
        self._world = ""

    def world(self) -> str:
        return self._world

    def submit(self, job: Job, number: int = 0) -> JobId:
        if len(self._jobs) >= self._limit:
            raise SubmitError("no more", unsure=self._unsure)
        job_id = JobId(str(len(self._jobs)), job.token)
        self._jobs[job_id] = JobState.QUEUED
        return job_id

    def poll(self, ids: Sequence[JobId], max_age: float = 0.0) -> dict[JobId, JobStatus]:
        self._asked += 1
        self._max_ages.append(max_age)
        if self._fails:
            raise QueueError(self._fails)
        return {job: JobStatus(self._jobs.get(job, JobState.GONE)) for job in ids}

    def cancel(self, ids: Sequence[JobId]) -> None:
        self._jobs |= dict.fromkeys(ids, JobState.CANCELLED)

    def find(self, token: str) -> list[JobId]:
        if self._fails:
            raise QueueError(self._fails)
        return [job for job in self._jobs if job.token == token]


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    workdir = Workdir(tmp_path / "t")
    workdir.create()
    return workdir


@pytest.fixture
def queue() -> Fake:
    return Fake()


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    words = ("/usr/bin/python3", "-m", "it's a \u00e9\udcff 'word'")
    job = Job("psy-t", "psy:abcd-0", words, tmp_path, tmp_path / "log", 3, {"timelimit": 600, "memory": 100}, ("a b",))
    return Submission("0001", "abcd", 0, "command", job, 0, 9, 1, 5, 10, recipe_of(Fake()))


class TestNotes:
    """Files."""

    def test_it_is_read_as_it_was_written(self, workdir: Workdir, submission: Submission) -> None:
        """Before and after the queue's answer."""
        assert submission.begin(workdir)
        assert read_submission(workdir, "abcd-0") == submission
        ids = [JobId("17_0", "psy:abcd-0"), JobId("17_1", "psy:abcd-0")]
        submission.answered(workdir, ids)
        assert read_submissions(workdir) == [replace(submission, ids=ids)]

    def test_a_number_is_taken_once(self, workdir: Workdir, submission: Submission) -> None:
        """Of two processes one may submit; the note of the first stays."""
        assert submission.begin(workdir)
        assert not replace(submission, cause="continued").begin(workdir)
        assert read_submission(workdir, "abcd-0").cause == "command"

    def test_what_is_over_is_not_asked_for(self, workdir: Workdir, submission: Submission) -> None:
        """But it still counts for its plan."""
        submission.begin(workdir)
        submission.answered(workdir, [])
        submission.is_over(workdir)
        assert read_submissions(workdir) == []
        assert len(read_submissions(workdir, PLAN)) == 1

    def test_they_come_in_order(self, workdir: Workdir, submission: Submission) -> None:
        """By plan and number, not by name."""
        for plan, uid, number in [("0002", "aaaa", 0), ("0001", "abcd", 10), ("0001", "abcd", 9)]:
            replace(submission, plan=plan, uid=uid, number=number).begin(workdir)
        assert [s.name for s in read_submissions(workdir)] == ["abcd-9", "abcd-10", "aaaa-0"]
        assert next_number(workdir, PLAN) == 11

    @pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"format": 2}', '{"format": 1, "job": {}, "by": {}}'])
    def test_damage(self, workdir: Workdir, submission: Submission, damage: str) -> None:
        """What cannot be read is overlooked where all are listed, told where it is needed, and keeps its number."""
        submission.begin(workdir)
        (workdir.submissions / "abcd-0/intent.json").write_text(damage)
        assert read_submissions(workdir) == read_submissions(workdir, PLAN) == []
        with pytest.raises(TemporaryError, match="abcd-0: the submission cannot be read"):
            read_submission(workdir, "abcd-0")
        assert next_number(workdir, PLAN) == 1

    @pytest.mark.parametrize("damage", ["", "{", "{}", '{"ids": null}', "null", "7"])
    def test_a_damaged_answer(self, workdir: Workdir, submission: Submission, damage: str) -> None:
        """Is as none: the queue is asked for the token."""
        submission.begin(workdir)
        (workdir.submissions / "abcd-0/jobs.json").write_text(damage)
        assert read_submission(workdir, "abcd-0").ids is None

    def test_no_directory(self, tmp_path: Path) -> None:
        """A work directory from before there were any."""
        workdir = Workdir(tmp_path / "t")
        assert read_submissions(workdir) == []
        assert next_number(workdir, PLAN) == 0

    def test_terms(self, submission: Submission) -> None:
        """What the worker keeps to follows from what was asked for."""
        assert submission.terms("7") == Terms("7", "psy:abcd-0", 0, 9, 600, 100 * 2**20, 1)
        job = replace(submission.job, resources={"memory_per_cpu": 10, "n_cpus": 4})
        assert replace(submission, job=job).terms("7").memory == 40 * 2**20
        job = replace(submission.job, resources={})
        assert replace(submission, job=job).terms("7") == Terms("7", "psy:abcd-0", 0, 9, None, None, 1)

    def test_a_scheduler_can_be_made_again(self) -> None:
        """From its class and its public attributes; what is none is told."""
        queue = made(json.loads(json.dumps(recipe_of(Sqsub("a b")))))
        assert isinstance(queue, Sqsub)
        assert queue.workdir == "a b"
        for recipe in ({"class": "no.such:X", "arguments": {}}, {"class": "builtins:dict", "arguments": {}}):
            with pytest.raises(TemporaryError, match=r"no\.such:X|builtins:dict"):
                made(recipe)


class TestJobs:
    """What the queue says of them."""

    def test_submitting(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """All are there, noted and alive."""
        jobs = Jobs(queue, workdir)
        ids, told = jobs.submit(submission)
        assert len(ids) == 3
        assert not told
        jobs.ask()
        assert list(jobs.alive()) == ids
        assert jobs.submit(submission) == ([], "another command submitted it")
        assert len(queue._jobs) == 3

    def test_some_are_taken(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """Those are noted, and what the queue said is told."""
        queue._limit = 2
        ids, told = Jobs(queue, workdir).submit(submission)
        assert (len(ids), told) == (2, "no more")
        assert read_submission(workdir, "abcd-0").ids == ids

    def test_none_is_taken(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """Then it is an error, and noted that there are none."""
        queue._limit = 0
        with pytest.raises(SubmitError, match="no more"):
            Jobs(queue, workdir).submit(submission)
        assert read_submission(workdir, "abcd-0").ids == []

    def test_nobody_knows(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """Nothing is noted; the next command finds what there is."""
        queue._limit, queue._unsure = 2, True
        with pytest.raises(SubmitError):
            Jobs(queue, workdir).submit(submission)
        (note,) = read_submissions(workdir)
        assert note.ids is None
        (workdir.submissions / "abcd-0/intent.json").write_text(
            json.dumps(
                json.loads((workdir.submissions / "abcd-0/intent.json").read_text())
                | {"by": vars(Process.current()) | {"pid": 2**22 + 1, "started": "1"}}
            )
        )
        jobs = Jobs(queue, workdir)
        queue._fails = "down"
        with pytest.raises(QueueError):
            jobs.settle()
        queue._fails = ""
        jobs.settle()
        jobs.ask()
        assert len(jobs.alive()) == 2

    def test_silence(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """Where the queue gives no answer all jobs may be alive, and none is over."""
        jobs = Jobs(queue, workdir)
        ids, _ = jobs.submit(submission)
        queue._jobs |= dict.fromkeys(ids, JobState.DONE)
        queue._fails = "down"
        with pytest.raises(QueueError):
            jobs.ask()
        jobs.look()
        assert list(jobs.alive()) == ids
        assert not jobs.is_over(ids[0])
        assert job_report(jobs)["answered"] is False
        queue._fails = ""
        jobs.ask()
        assert jobs.alive() == {}
        assert jobs.is_over(ids[0])
        jobs.tidy()
        assert read_submissions(workdir) == []

    def test_it_is_not_asked_for_each_look(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """What was heard counts for a while."""
        Jobs(queue, workdir).submit(submission)
        jobs = Jobs(queue, workdir, max_age=1000)
        for _ in range(5):
            jobs.look()
        assert queue._asked == 1

    def test_no_answer_is_older_than_the_jobs(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """It does not list them, and would have them gone."""
        Jobs(queue, workdir).submit(submission)
        jobs = Jobs(queue, workdir, max_age=1000)
        jobs.ask()
        assert queue._max_ages[-1] < 100
        answer = workdir.submissions / submission.name / "jobs.json"
        for seconds, at_most in ((500, 510), (5000, 1000), (-500, 0)):
            os.utime(answer, (time.time() - seconds,) * 2)
            jobs.ask()
            assert at_most - 20 < queue._max_ages[-1] <= at_most

    def test_what_another_cluster_may_have(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """This one cannot tell, so nothing is noted, nothing more submitted."""
        gone = replace(GONE_BY, host=Process.current().host)
        replace(submission, by=gone, scheduler=recipe_of(queue) | {"world": "there"}).begin(workdir)
        queue._world = "here"
        with pytest.raises(QueueError, match="the cluster there"):
            Jobs(queue, workdir).settle()
        assert read_submissions(workdir)[0].ids is None

    def test_who_takes_long(
        self, workdir: Workdir, queue: Fake, submission: Submission, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Is not overtaken while it lives: what it has submitted until then is not all."""
        monkeypatch.setattr("psyrun.jobs._MOST_WAIT", 0.1)
        submission.begin(workdir)
        with pytest.raises(QueueError, match="still submitting"):
            Jobs(queue, workdir).settle()
        assert read_submissions(workdir)[0].ids is None

    def test_of_a_task_that_has_none(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """None; and where the task file says something else now, they are in the queue that they were given to."""

        class Local(Scheduler):
            pass

        assert jobs_of(Local(), workdir) is None
        replace(submission, scheduler=recipe_of(Sqsub("files"))).begin(workdir)
        found = jobs_of(Local(), workdir)
        assert found is not None
        assert isinstance(found.queues.of(read_submissions(workdir)[0]), Sqsub)


class TestObserver:
    """Whether workers are alive, by what the queue says."""

    def test_a_job_that_is_over(self, workdir: Workdir, queue: Fake, submission: Submission) -> None:
        """Its worker is dead, whatever its heartbeat; one of a token or number that nobody submitted is not."""
        jobs = Jobs(queue, workdir)
        ids, _ = jobs.submit(submission)
        for worker, (job, token) in {"0" * 16: ids[0], "1" * 16: ids[1], "2" * 16: ("0", "psy:other-0")}.items():
            about = {"host": "another", "boot": "b", "namespace": "", "pid": 1, "started": "1", "count": 1}
            (workdir.beats / worker).write_text(json.dumps({**about, "job": job, "token": token}))
        queue._jobs[ids[0]] = JobState.FAILED
        jobs.ask()
        observer = JobObserver(jobs)
        assert [observer.dead(worker * 16) for worker in "012"] == [True, False, False]
        patient = JobObserver(jobs, patience=1000)
        assert not patient.dead("0" * 16)
        assert patient.left_by_queue("0" * 16)
        queue._fails = "down"
        jobs.look()
        assert not JobObserver(jobs).dead("0" * 16)


def test_a_process_of_another_boot_is_gone() -> None:
    """Its submission is settled without waiting."""
    assert replace(GONE_BY, host=Process.current().host).gone() is True
