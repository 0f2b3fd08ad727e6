"""Several schedulers in a task file: what they may be, what their jobs ask for, and which queue is asked for which."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psyrun.errors import RefusedError, TaskError
from psyrun.jobreport import job_lines, job_report
from psyrun.jobs import Jobs
from psyrun.options import resolved
from psyrun.pspace import Param
from psyrun.queues import identity, made, recipe_of
from psyrun.scheduler import (
    ImmediateRun,
    Job,
    JobId,
    JobState,
    JobStatus,
    Multiprocessing,
    Queue,
    QueueError,
    Scheduler,
    Several,
    Slurm,
    Sqsub,
    queues_of,
)
from psyrun.scheduler.several import several
from psyrun.submissions import Submission, read_submissions
from psyrun.workdir import Workdir


def scheduler(given: Any, **args: Any) -> Scheduler:
    """Return the scheduler of a task file that says so."""
    options = {"pspace": Param(x=[1]), "execute": lambda x: {}, "scheduler": given, "scheduler_args": args}
    return resolved(options, "t")["scheduler"]  # type: ignore[no-any-return]


# What stands in a task file


def test_a_list_of_queues() -> None:
    """Each as it may be given alone: an instance, a class or a name; a tuple will do."""
    found = scheduler((Slurm(partition="short"), "SLURM", Sqsub("w")), timelimit="1h")
    assert isinstance(found, Several)
    assert [type(queue) for queue in found.queues] == [Slurm, Slurm, Sqsub]
    assert repr(found) == "[Slurm(partition='short'), Slurm(), Sqsub(workdir='w')]"
    assert len(queues_of(scheduler([Slurm, Slurm(partition="short")]))) == 2


@pytest.mark.parametrize("one", [Slurm(), ImmediateRun(), Slurm, "slurm"])
def test_a_list_of_one_is_that_one(one: Any) -> None:
    """Also where it computes here."""
    assert type(scheduler([one])) is type(scheduler(one))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "takes at least one"),
        ([Slurm(), ImmediateRun()], "ImmediateRun(), ...]: only queues can serve a run together"),
        ([Multiprocessing(2), Multiprocessing(3)], "Multiprocessing(2), ...]: only queues"),
        ([Slurm(), "slurm"], "Slurm(), ...]: is given twice"),
        ([Slurm(partition="a"), Sqsub("w"), Slurm(partition="a")], "Slurm(partition='a'), ...]: is given twice"),
        ([[Slurm(), Slurm(partition="a")], Sqsub("w")], "only queues"),
        ([Slurm(), 3], "scheduler = 3: takes a scheduler"),
        ([Slurm(), "slrum"], "Did you mean 'slurm'"),
    ],
)
def test_what_no_list_may_have(given: Any, told: str) -> None:
    """The error says which it is, and what to do."""
    with pytest.raises(TaskError, match=re.escape(told)):
        scheduler(given, timelimit="1h")


# Arguments of a scheduler itself


def test_they_come_on_top_of_those_of_the_task() -> None:
    """Whatever the spelling; None takes one away."""
    queue = Slurm(partition="short", timelimit="1h", memory=None, cores_per_socket=2)
    given = {"timelimit": "2h", "memory": "1G", "account": "a", "cores-per-socket": 4}
    assert queue.asks(given) == {
        "account": "a",
        "partition": "short",
        "timelimit": "1h",
        "memory": None,
        "cores_per_socket": 2,
    }
    assert Slurm().asks(given) == given


@pytest.mark.parametrize(
    ("queue", "args", "told"),
    [
        (Slurm(partitoin="a"), {}, "Slurm takes no 'partitoin'. Did you mean 'partition'?"),
        (Slurm(timelimit="soon"), {}, "scheduler_args['timelimit'] = 'soon'"),
        (Slurm(memory="1G"), {"memory_per_cpu": "1G"}, "'memory' or 'memory_per_cpu', not both"),
        (Slurm(extra=["--array=7"]), {}, "is what psyrun sets itself"),
        (Slurm(memory=lambda name: "1G"), {}, "Slurm(memory=...): takes a value"),
        (Slurm(memory=["1G", lambda name: "2G"]), {}, "Slurm(memory=...): takes a value"),
        (Sqsub("w", gpus=1), {"timelimit": "1h"}, "Sqsub takes no 'gpus'"),
        (Sqsub("w", timelimit=None), {"timelimit": "1h"}, "no job without a time limit"),
        (Sqsub("w", timelimit=lambda name: 60), {}, "takes a value"),
        ([Slurm(), Slurm(nice=-1)], {}, "scheduler_args['nice'] = -1"),
    ],
)
def test_wrong_ones_are_errors(queue: Any, args: dict[str, Any], told: str) -> None:
    """As they are in scheduler_args, and together with these."""
    with pytest.raises(TaskError, match=re.escape(told)):
        scheduler(queue, **args)


def test_good_ones() -> None:
    """What one of them has, the task need not say."""
    scheduler([Sqsub("w", timelimit="1h"), Slurm(memory_per_cpu="1G", memory=None)], memory="2G")


@pytest.mark.parametrize(
    "queue", [Slurm(), Slurm("w", partition="a", memory=("1G", "2G")), Sqsub("w", n_cpus=np.int64(2), timelimit="1h")]
)
def test_they_are_on_record(queue: Queue) -> None:
    """So the same can be made again, and known again."""
    recipe = json.loads(json.dumps(recipe_of(queue)))
    again = made(recipe)
    assert type(again) is type(queue)
    assert again.arguments() == queue.arguments()
    assert identity(recipe_of(again)) == identity(recipe) == identity(recipe_of(queue))
    assert identity(recipe_of(Slurm(partition="b"))) != identity(recipe)


# Which queue is asked for which


class Fake(Queue):
    """A queue that does as it is told; each name is one of its own."""

    asked: list[tuple[str, list[str]]]

    def __init__(self, name: str = "a", **own: Any) -> None:
        self.name = name
        self.own = own
        self._jobs: dict[JobId, JobState] = {}
        self._fails = ""
        self._asked: list[list[JobId]] = []

    def _may_fail(self) -> None:
        if self._fails:
            raise QueueError(self._fails)

    def submit(self, job: Job, number: int = 0) -> JobId:
        job_id = JobId(str(len(self._jobs)), job.token)
        self._jobs[job_id] = JobState.QUEUED
        return job_id

    def poll(self, ids: Sequence[JobId], max_age: float = 0.0) -> dict[JobId, JobStatus]:
        self._may_fail()
        self._asked.append(list(ids))
        return {job: JobStatus(self._jobs.get(job, JobState.GONE)) for job in ids}

    def cancel(self, ids: Sequence[JobId]) -> None:
        self._may_fail()
        assert set(ids) <= self._jobs.keys(), "asked for what it never had"
        self._jobs |= dict.fromkeys(ids, JobState.CANCELLED)

    def find(self, token: str) -> list[JobId]:
        self._may_fail()
        return [job for job in self._jobs if job.token == token]


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    workdir = Workdir(tmp_path / "t")
    workdir.create()
    return workdir


def submission(workdir: Workdir, queue: Queue, number: int) -> Submission:
    """Return two jobs to submit."""
    token = f"psy:abcd-{number}"
    job = Job("psy-t", token, ("/bin/true",), workdir.path, workdir.logs, 2, {})
    return Submission("0001", "abcd", number, "command", job, 0, 9, scheduler=recipe_of(queue))


class TestTwoQueues:
    """One work directory, jobs in two queues that use the same numbers."""

    @pytest.fixture
    def queues(self) -> list[Fake]:
        return [Fake("a"), Fake("b")]

    @pytest.fixture
    def jobs(self, workdir: Workdir, queues: list[Fake]) -> Jobs:
        jobs = Jobs(several(queues), workdir)
        for number, queue in enumerate(queues):
            jobs.submit(submission(workdir, queue, number))
        return jobs

    def test_each_is_asked_for_its_own(self, jobs: Jobs, queues: list[Fake]) -> None:
        """Numbers that both use do not matter."""
        jobs.ask()
        a, b = ([JobId(name, f"psy:abcd-{number}") for name in "01"] for number in (0, 1))
        assert (queues[0]._asked, queues[1]._asked) == ([a], [b])
        assert list(jobs.alive()) == a + b
        queues[0]._jobs[a[0]] = JobState.DONE
        jobs.ask()
        assert jobs.is_over(a[0])
        assert not jobs.is_over(b[0])
        assert jobs.cancel(jobs.alive()) == ""
        assert set(queues[1]._jobs.values()) == {JobState.CANCELLED}
        assert queues[0]._jobs == {a[0]: JobState.DONE, a[1]: JobState.CANCELLED}

    def test_one_gives_no_answer(self, workdir: Workdir, jobs: Jobs, queues: list[Fake]) -> None:
        """Its jobs may be alive, none of them is over; those of the other are as they are; people are told which."""
        for queue in queues:
            queue._jobs |= dict.fromkeys(queue._jobs, JobState.DONE)
        queues[1]._fails = "down"
        jobs.ask()
        assert [job.token for job in jobs.alive()] == ["psy:abcd-1"] * 2
        assert [jobs.silent(queue) for queue in queues] == ["", "down"]
        assert jobs.trouble == "down"
        assert job_lines(jobs)[0] == "Fake(name='b') gives no answer, so jobs may be there: down"
        assert [job["queue"] for job in job_report(jobs)["alive"]] == ["Fake(name='b')"] * 2
        jobs.tidy()
        assert [s.number for s in read_submissions(workdir)] == [1]
        queues[0]._fails = "out"
        jobs.workdir = workdir
        with pytest.raises(QueueError, match="down"):
            jobs.ask()
        queues[1]._fails = ""
        jobs.ask()
        assert jobs.alive() == {}

    def test_what_waits_is_cancelled_where_it_is(self, jobs: Jobs, queues: list[Fake]) -> None:
        """Also where another queue gives no answer, which is told."""
        plan: Any = type("P", (), {"uid": "abcd"})
        jobs.ask()
        queues[0]._fails = "down"
        cancelled, why_not = jobs.cancel_waiting(plan)
        assert [job.token for job in cancelled] == ["psy:abcd-1"] * 2
        assert why_not == "down"
        assert set(queues[0]._jobs.values()) == {JobState.QUEUED}

    def test_a_note_without_an_answer(self, workdir: Workdir, jobs: Jobs, queues: list[Fake]) -> None:
        """Its token is looked for in its own queue; while that is silent, nothing is known of that one alone."""
        gone = replace(submission(workdir, queues[1], 2).by, boot="another", pid=1, started="0")
        replace(submission(workdir, queues[1], 2), by=gone).begin(workdir)
        queues[1].submit(submission(workdir, queues[1], 2).job)
        queues[1]._fails = "down"
        with pytest.raises(QueueError, match="down"):
            jobs.settle()
        jobs.ask()
        assert [jobs.silent(queue) for queue in queues] == ["", "down"]
        assert jobs.is_unsettled("0001")
        queues[1]._fails = ""
        jobs.settle()
        assert [len(s.ids or ()) for s in read_submissions(workdir)] == [2, 2, 1]
        assert not jobs.is_unsettled("0001")

    def test_partitions_are_asked_together(self, workdir: Workdir) -> None:
        """Queues that differ in what jobs ask for are one, and get one question."""
        queues = [Fake("a", partition="x"), Fake("a", partition="y")]
        jobs = Jobs(several(queues), workdir)
        for number, queue in enumerate(queues):
            jobs.submit(submission(workdir, queue, number))
        jobs.ask()
        assert [len(ids) for ids in queues[0]._asked + queues[1]._asked] == [4]
        assert [jobs.queues.has(queues[1], s) for s in jobs.submissions] == [False, True]
        assert "in Fake(name='a', partition='x'): 2 queued" in job_lines(jobs)[0]

    def test_a_queue_that_the_task_file_has_no_more(self, workdir: Workdir, queues: list[Fake], jobs: Jobs) -> None:
        """It is made from the note; what cannot be made has jobs that may be alive."""
        recipe = recipe_of(Sqsub("w")) | {"class": "no.such:Class"}
        foreign = replace(submission(workdir, queues[0], 2), scheduler=recipe)
        foreign.begin(workdir)
        foreign.answered(workdir, [JobId("7", foreign.token)])
        jobs.ask()
        assert JobId("7", foreign.token) in jobs.alive()
        assert "no.such:Class cannot be made here" in jobs.trouble
        assert [jobs.silent(queue) for queue in queues] == ["", ""]
        defined = Jobs(queues[0], workdir, defined=lambda: queues[1])
        defined.ask()
        assert defined.queues.of(defined.submissions[1]) is not queues[0]

    def test_what_others_could_have_written_is_not_made(self, workdir: Workdir, queues: list[Fake]) -> None:
        """A class is imported only where nobody else names it."""
        submission(workdir, queues[0], 0).begin(workdir)
        workdir.path.chmod(0o777)
        with pytest.raises(RefusedError):
            Jobs(None, workdir).queues.of(read_submissions(workdir)[0])


def test_who_has_queues() -> None:
    """None where items are computed here."""
    assert queues_of(None) == queues_of(ImmediateRun()) == ()
    one, two = Slurm(), Sqsub("w")
    assert queues_of(one) == (one,)
    assert queues_of(Several([one, two])) == (one, two)
