"""psy-doit doctor NAME, where the items are computed by jobs: one job tells, and nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project import Project, until
from psyrun import jobprobe
from psyrun.jobfindings import FILES, JOB, SIGNALS, THERE, Times, cores_there, ended, files_there, python_there, ran
from psyrun.jobfindings import signals_there as signals
from psyrun.machine import ERROR, OK, WARNING, Finding
from psyrun.scheduler import JobId, JobState, JobStatus, QueueError, Slurm, slurm_programs
from psyrun.shell import Answer
from queueproject import QueueProject
from slurmcluster import SlurmCluster

ON_SLURM = """
from psyrun import Param, Slurm
pspace = Param(x=[1])
scheduler = Slurm()
def execute(x):
    return {}
"""

HERE: dict[str, Any] = {"executable": "/p", "job": "7", "host": "n1", "parent": "slurmstepd", "cores": 2}
HERE |= {"versions": {"Python": "3.11.2", "psyrun": "1.0", "numpy": "2.1"}, "handles_signals": True}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[QueueProject]:
    """Return a project with a queue, ended after the test."""
    project = QueueProject(tmp_path)
    yield project
    project.close()


def found(project: QueueProject, *words: str, status: int | None = 0) -> dict[str, Finding]:
    """Return what doctor finds of the task t, by check; nothing of it is left, and no job waits or runs."""
    told = json.loads(project.run("doctor", "--json", "t", *words, status=status).stdout)
    project.wait_ended()
    assert not (project.path / "psy-work").exists()
    assert [name for name in os.listdir(project.path) if "doctor" in name] == []
    return {finding["check"]: Finding(**finding) for finding in told["findings"]}


# The command


def test_a_job_tells_what_is_there(project: QueueProject) -> None:
    """It ran, knows its id, has the same Python, sees files, and hears signals."""
    project.queued_task()
    told = found(project)
    (job,) = project.jobs()
    assert told["queue"].level == OK and "Sqsub(" in told["queue"].told
    assert told[JOB].level == OK and told[JOB].told.startswith(f"{job} ran on ")
    assert (told[THERE].level, told[FILES].level, told[SIGNALS].level) == (OK, OK, OK)
    assert "as here" in told[THERE].told and "no warning" in told[SIGNALS].told
    assert project.submissions() == []


def test_a_job_that_waits_is_cancelled_and_the_reason_told(project: QueueProject) -> None:
    """That is a warning: nothing says that it would not run later."""
    project.slots(0)
    project.queued_task()
    command = project.run("doctor", "t", "--timeout", "1")
    (job,) = project.jobs("K")
    assert f"job {job} is queued" in command.stderr
    assert f"{job} did not start within 1 s; it is queued. It was cancelled" in command.stdout
    assert found(project, "--timeout", "1")[JOB].level == WARNING


def test_ctrl_c_cancels_the_job(project: QueueProject) -> None:
    """And removes what was there."""
    project.slots(0)
    project.queued_task()
    command = project.start("doctor", "t")
    until(lambda: project.jobs("Q"))
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=30) == 130
    assert len(project.jobs("K")) == 1 and project.ended()
    assert [name for name in os.listdir(project.path) if name.startswith(".psyrun-doctor")] == []


def test_ctrl_c_while_it_is_submitted_cancels_it_too(project: QueueProject) -> None:
    """The queue has taken it, and nobody was told."""
    project.slots(0)
    project.queued_task()
    project.in_front("sqsub", '"$REAL" "$@" > /dev/null; touch "$PROJECT/taken"; sleep 30')
    command = project.start("doctor", "t")
    until((project.path / "taken").exists)
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=30) == 130
    assert len(project.jobs("K")) == 1 and project.ended()


def test_a_job_that_may_have_been_taken_is_found_and_cancelled(project: QueueProject) -> None:
    """The queue fails after it took it."""
    project.slots(0)
    project.queued_task()
    project.in_front("sqsub", '"$REAL" "$@" > /dev/null; rm -f "$PROJECT"/files*/*.id; echo no answer >&2; exit 1')
    told = found(project, status=75)
    assert told[JOB].level == ERROR and "no answer" in told[JOB].told
    assert len(project.jobs("K")) == 1


def test_a_job_that_fails_is_told_with_its_last_words(project: QueueProject) -> None:
    """A prologue goes wrong there."""
    project.queued_task(options='prologue = ["echo module: no such thing >&2", "exit 3"]')
    told = found(project, status=75)
    assert told[JOB].level == ERROR and told[JOB].told.endswith("module: no such thing")


def test_a_job_that_hangs_is_cancelled(project: QueueProject) -> None:
    """It runs, but not long enough for a verdict."""
    project.queued_task(options='prologue = ["sleep 60"]')
    told = found(project, "--timeout", "2")
    assert told[JOB].level == WARNING and "began too late" in told[JOB].told
    assert len(project.jobs("K")) == 1


def test_a_prologue_that_hides_the_id_is_told(project: QueueProject) -> None:
    """Workers would not know which job they are."""
    project.queued_task(options='prologue = ["export PSYRUN_JOB=7"]')
    told = found(project)
    assert told[JOB].level == WARNING and "PSYRUN_JOB is '7'" in told[JOB].told


def test_the_job_asks_for_what_the_jobs_of_the_task_ask_for(project: QueueProject) -> None:
    """But it waits for nothing that these wait for, and the interpreter is that of the task."""
    project.queued_task(memory="100M", dependency="1", options="pool_size = 3")
    found(project, status=None)
    (path,) = (project.queue / "jobs").glob("*.json")
    entry = json.loads(path.read_text())
    assert (entry["limit"], entry["ncpus"], entry["after"]) == (600, 3, [])


def test_a_queue_that_does_not_answer_gets_no_job(project: QueueProject) -> None:
    """Nor one that is not on this machine."""
    project.queued_task()
    project.broken("no connection to the server")
    told = found(project, status=75)
    assert told["queue"].level == ERROR and "no connection" in told["queue"].told and JOB not in told
    project.broken()
    (project.programs / "sqkill").unlink()
    told = found(project, status=75)
    assert told["queue"].level == ERROR and "sqkill" in told["queue"].told and JOB not in told
    assert project.jobs() == []


def test_what_the_task_file_asks_for_wrongly_is_told(project: QueueProject) -> None:
    """As a run would say it."""
    project.queued_task(options='python = "/no/such/python"')
    told = found(project, status=75)
    assert told[JOB].level == ERROR and "/no/such/python" in told[JOB].told
    assert project.jobs() == []


def test_without_a_queue_nothing_is_submitted(project: QueueProject) -> None:
    """Without a name, or with a scheduler of this machine, it is as it always was."""
    project.queued_task()
    project.logging_task("here")
    for words in ((), ("here",)):
        told = json.loads(project.run("doctor", "--json", *words).stdout)["findings"]
        assert {"queue", JOB} & {finding["check"] for finding in told} == set()
    assert project.jobs() == []


# The job


@contextmanager
def signals_as_before() -> Iterator[None]:
    """Give back the handlers that a job sets."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_job_that_nobody_answers_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command was killed."""
    monkeypatch.setattr(jobprobe, "_MOST_WAIT", 0.1)
    with signals_as_before():
        assert jobprobe.main(tmp_path) == 75
    told = jobprobe.read(tmp_path, jobprobe.REPORT)
    assert told is not None and told["handles_signals"] and told["versions"]["numpy"][0].isdigit()
    assert jobprobe.read(tmp_path, jobprobe.END) is None


@pytest.mark.parametrize("sends", [False, True])
def test_a_warning_that_was_sent_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sends: bool) -> None:
    """And one that does not arrive is not."""
    about = jobprobe.about

    def warned_soon() -> dict[str, Any]:
        if sends:
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGUSR1]).start()
        return about()

    monkeypatch.setattr(jobprobe, "about", warned_soon)
    monkeypatch.setattr(jobprobe, "_MOST_WAIT_FOR_SIGNAL", 5.0 if sends else 0.2)
    (tmp_path / jobprobe.ANSWER).write_text('{"warned": true}')
    with signals_as_before():
        assert jobprobe.main(tmp_path) == 0
    told = jobprobe.read(tmp_path, jobprobe.END)
    assert told is not None and told["warned"] is sends


# What is said of it


@pytest.mark.parametrize(
    ("status", "log", "running", "level", "words"),
    [
        (
            JobStatus(JobState.QUEUED, "PD", "Resources"),
            [],
            0.0,
            WARNING,
            "did not start within 2 minutes; it is queued",
        ),
        (JobStatus(JobState.QUEUED, "PD", "BadLimit", True), [], 0.0, ERROR, "would never start (BadLimit)"),
        (JobStatus(JobState.RUNNING), [], 5.0, WARNING, "began too late"),
        (JobStatus(JobState.RUNNING), [], 90.0, ERROR, "runs since 1.5 minutes, and a file that"),
        (
            JobStatus(JobState.FAILED, "FAILED", "Exit"),
            ["a", "No module"],
            0.0,
            ERROR,
            "before it could report: No mod",
        ),
        (JobStatus(JobState.GONE), [], 0.0, ERROR, "17 ended (gone), and nothing of it is here"),
    ],
)
def test_what_became_of_a_job(status: JobStatus, log: list[str], running: float, level: str, words: str) -> None:
    """The last word of queue and log, and whether one should wait longer or mend something."""
    finding = ended("17", status, log, running, 120.0, Path("/w/bench"))
    assert finding.level == level and words in finding.told
    assert ("--timeout" in finding.remedy) == (level == WARNING)


@pytest.mark.parametrize(
    ("versions", "level"),
    [
        ({}, OK),
        ({"Python": "3.12.1"}, WARNING),
        ({"psyrun": "1.1"}, WARNING),
        ({"numpy": "1.26"}, WARNING),
        ({"numpy": "cannot be imported: no"}, ERROR),
    ],
)
def test_another_python_is_told(versions: dict[str, str], level: str) -> None:
    """Both versions are named, only where they differ."""
    there = HERE | {"versions": {**HERE["versions"], **versions}}
    finding = python_there(there, HERE)
    assert finding.level == level
    assert all(version in finding.told for version in versions.values())
    assert ("here: " in finding.told) == (level == WARNING)


@given(st.floats(-1e4, 1e4), st.floats(0, 4), st.floats(0, 4), st.floats(0, 4), st.floats(0, 9))
def test_delays_do_not_depend_on_the_clock_there(
    skew: float, report: float, forth: float, back: float, waited: float
) -> None:
    """Where clocks differ by more than can be a delay, that is said, and how much; there and back is always right."""
    here = 1.7e9
    seen = here + forth
    written = seen + waited
    times = Times(here + skew, here + report, here, seen + skew, written + skew, written + back, waited)
    assert times.round_trip == pytest.approx(forth + back, abs=1e-5)
    assert times.skew == pytest.approx(skew + (forth - back) / 2, abs=1e-5)
    finding = files_there("n1", times)
    if abs(times.skew) > max(1.0, times.round_trip):
        assert finding.level == WARNING and "NTP" in finding.remedy
        assert ("ahead of" in finding.told) == (skew > 0)
    else:
        assert (finding.level == WARNING) == (times.round_trip > 5)


def test_what_a_job_lacks_is_told() -> None:
    """Cores, its id, signals."""
    assert [cores_there(HERE, n).level for n in (1, 2, 3)] == [OK, OK, WARNING]
    assert [ran(HERE, job, 1.0).level for job in ("7", "8")] == [OK, WARNING]
    assert [signals(HERE, warned, "").level for warned in (True, None, False)] == [OK, OK, WARNING]
    assert signals(HERE, None, "no answer").level == WARNING
    assert signals(HERE | {"handles_signals": False}, True, "").level == WARNING


# Slurm


def test_slurm_warns_a_job_of_ours_and_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its process gets the signal that it would get before its time is over; a failure is an error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[list[str]] = []
    answers = {"squeue": Answer(0, "17_0|RUNNING|None|psy:mine|x\n", ""), "scancel": Answer(0, "", "")}

    def run(command: list[str], **_: Any) -> Answer:
        said.append(list(command))
        return answers[command[0]]

    monkeypatch.setattr(slurm_programs, "run_command", run)
    assert Slurm().warn(JobId("17_0", "psy:mine"))
    assert said[-1] == ["scancel", "--batch", "--signal=USR1", "17_0"]
    del said[:]
    with pytest.raises(QueueError):
        Slurm().warn(JobId("17_0", "psy:theirs"))
    assert [command[0] for command in said] == ["squeue"]
    answers["scancel"] = Answer(1, "", "no connection")
    with pytest.raises(QueueError, match="no connection"):
        Slurm().warn(JobId("17_0", "psy:mine"))


@pytest.mark.parametrize(
    ("answer", "told"), [(Answer(0, "slurm 24.05\n", ""), "slurm 24.05"), (Answer(127, "", ""), "")]
)
def test_slurm_tells_its_version(monkeypatch: pytest.MonkeyPatch, answer: Answer, told: str) -> None:
    """If it can."""
    monkeypatch.setattr(slurm_programs, "run_command", lambda *_, **__: answer)
    assert Slurm().version() == told


@pytest.mark.slurm
def test_a_job_of_slurm_tells_what_is_there(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Its process is the job's own, and hears the warning; one that waits is cancelled, and the reason told."""
    project = Project(tmp_path)
    for extra, words in (([], ["reaches it"]), (["--hold"], ["is held", "JobHeldUser", "It was cancelled"])):
        args = {"timelimit": "5m", "extra": extra}
        project.task("t", f"{ON_SLURM}scheduler_args = {args}\n")
        environment = slurm.environment() | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        told = project.run("doctor", "t", "--timeout", "3" if extra else "60", status=0, **environment).stdout
        assert [word for word in words if word not in told] == []
        assert slurm.run("squeue", "-h", "-n", "psy-doctor") == ""
    assert not (tmp_path / "psy-work").exists()
