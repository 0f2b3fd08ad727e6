"""What can be wrong with a queue: each class below keeps to the contract but for one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from psyrun.files import random_name
from psyrun.scheduler import Job, JobId, JobState, JobStatus, Queue, QueueError, SubmitError
from psyrun.scheduler.resources import check
from psyrun.scheduler.sqsub import parsed
from psyrun.shell import run_command

SCRIPT = """#!/bin/sh
export PSYRUN_JOB="$SQ_JOBID"
exec >> '{logs}/job-'"$PSYRUN_JOB".log 2>&1
cd {directory}
{prologue}
exec {command}
"""


class ToyQueue(Queue):
    """Three methods make a queue: what sqsub needs at the least, in the emulator of it."""

    script: ClassVar[str] = SCRIPT
    directory: ClassVar[Path]

    def check(self, scheduler_args: Mapping[str, Any]) -> None:
        check(scheduler_args, ["timelimit"], "ToyQueue")

    def submit(self, job: Job, number: int = 0) -> JobId:
        script = self.directory / random_name()
        words = ["'" + word.replace("'", "'\\''") + "'" for word in (*job.command, str(job.directory))]
        parts = {"logs": job.logs, "directory": words.pop(), "command": " ".join(words)}
        script.write_text(self.script.format(**parts, prologue="\n".join(job.prologue)))
        script.chmod(0o700)
        answer = run_command(["sqsub", "-r", "5m", "-j", f"{job.token}:", str(script)])
        if answer.status:
            raise SubmitError(answer.errors)
        return JobId(answer.output.split()[-1], job.token)

    def poll(self, ids: Sequence[JobId], max_age: float = 0.0) -> dict[JobId, JobStatus]:
        rows = self.rows()
        gone = JobStatus(JobState.GONE), ""
        return {job_id: self.judged(*rows.get(job_id.id, gone), job_id.token) for job_id in ids}

    def cancel(self, ids: Sequence[JobId]) -> None:
        for job_id, status in self.poll(ids).items():
            if not status.state.over:
                run_command(["sqkill", job_id.id])

    def rows(self) -> dict[str, tuple[JobStatus, str]]:
        answer = run_command(["sqjobs"])
        if answer.errors:
            raise QueueError(answer.errors)
        return parsed(answer.output) if answer.output else {}

    def judged(self, status: JobStatus, columns: str, token: str) -> JobStatus:
        return status if f"{token}:" in columns else JobStatus(JobState.GONE)


class JoinsWords(ToyQueue):
    """And a shell takes them apart."""

    def submit(self, job: Job, number: int = 0) -> JobId:
        return super().submit(replace(job, command=("/bin/sh", "-c", " ".join(job.command))), number)


class StaysWhereItIs(ToyQueue):
    """Whatever the job says."""

    script = SCRIPT.replace("cd {directory}\n", "")


class HidesTheNumber(ToyQueue):
    """A job does not know which it is."""

    script = SCRIPT.replace('export PSYRUN_JOB="$SQ_JOBID"', "PSYRUN_JOB=$SQ_JOBID")


class OverwritesLogs(ToyQueue):
    """Those of jobs that had the number before."""

    script = SCRIPT.replace(">>", ">")


class RunsTwice(ToyQueue):
    """To be on the safe side."""

    def submit(self, job: Job, number: int = 0) -> JobId:
        super().submit(job)
        return super().submit(job)


class ForgetsThePrologue(ToyQueue):
    """It is only a few lines."""

    script = SCRIPT.replace("{prologue}\n", "")


class KnowsOneState(ToyQueue):
    """What was submitted waits."""

    def judged(self, status: JobStatus, columns: str, token: str) -> JobStatus:
        judged = super().judged(status, columns, token)
        return judged if judged.state.over else JobStatus(JobState.QUEUED)


class KnowsNoEnd(ToyQueue):
    """What is done is still there."""

    def judged(self, status: JobStatus, columns: str, token: str) -> JobStatus:
        judged = super().judged(status, columns, token)
        return replace(judged, state=JobState.RUNNING) if judged.state is JobState.DONE else judged


class GoesByNumbers(ToyQueue):
    """A token is not looked at."""

    def judged(self, status: JobStatus, columns: str, token: str) -> JobStatus:
        return status


class CancelsByNumbers(ToyQueue):
    """A token is not looked at before a job is killed."""

    def cancel(self, ids: Sequence[JobId]) -> None:
        self.rows()
        for job_id in ids:
            run_command(["sqkill", job_id.id])


class CancelsAll(ToyQueue):
    """If in doubt."""

    def cancel(self, ids: Sequence[JobId]) -> None:
        for number in self.rows() if ids else ():
            run_command(["sqkill", number])


class ComplainsOfWhatIsOver(ToyQueue):
    """As if it had to be there."""

    def cancel(self, ids: Sequence[JobId]) -> None:
        if any(status.state.over for status in self.poll(ids).values()):
            raise QueueError("no such job")
        super().cancel(ids)


class Remembers(ToyQueue):
    """What it was told first."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[JobStatus, str]] | None = None

    def poll(self, ids: Sequence[JobId], max_age: float = 0.0) -> dict[JobId, JobStatus]:
        if self.told is None or not max_age:
            self.told = super().rows()
        return super().poll(ids)

    def rows(self) -> dict[str, tuple[JobStatus, str]]:
        return super().rows() if self.told is None else self.told


class FindsAll(ToyQueue):
    """Whatever the token."""

    def find(self, token: str) -> list[JobId]:
        return [JobId(number, token) for number in self.rows()]


class TakesAnything(ToyQueue):
    """As an argument."""

    def check(self, scheduler_args: Mapping[str, Any]) -> None:
        pass


class ShowsByDoing(ToyQueue):
    """A preview is a test."""

    def preview(self, job: Job) -> str:
        self.submit(job)
        return super().preview(job)


class TakesSilenceForAnEnd(ToyQueue):
    """A server that is down knows of no job."""

    def rows(self) -> dict[str, tuple[JobStatus, str]]:
        try:
            return super().rows()
        except QueueError:
            return {}


FAILS: dict[type[Queue], str] = {
    JoinsWords: "test_a_command_is_run_word_by_word",
    StaysWhereItIs: "test_a_command_is_run_word_by_word",
    HidesTheNumber: "test_a_job_knows_its_id_and_has_a_log",
    OverwritesLogs: "test_a_log_is_appended_to",
    RunsTwice: "test_each_of_many_runs_once",
    ForgetsThePrologue: "test_the_prologue_comes_first",
    KnowsOneState: "test_a_job_runs_and_is_over",
    KnowsNoEnd: "test_a_job_that_fails_is_over",
    GoesByNumbers: "test_all_are_asked_at_once",
    CancelsByNumbers: "test_a_job_of_others_is_left_alone",
    CancelsAll: "test_cancel_ends_a_job_and_no_other",
    ComplainsOfWhatIsOver: "test_what_is_over_can_be_cancelled",
    Remembers: "test_an_old_answer_hides_no_new_job",
    FindsAll: "test_a_token_finds_its_jobs",
    TakesAnything: "test_an_unknown_argument_is_an_error",
    ShowsByDoing: "test_a_preview_runs_nothing",
    TakesSilenceForAnEnd: "test_a_queue_that_fails_is_never_believed",
}
"""The test that each does not pass."""
