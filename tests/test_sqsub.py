"""SHARCNET's queue: what is said to it, how it is understood, and the contract with an emulator of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from psyrun.errors import TaskError
from psyrun.scheduler import Job, JobId, JobState, Queue, QueueError, Sqsub, SubmitError, sqsub
from psyrun.shell import Answer, run_command
from psyrun.testing import QueueTests
from psyrun.testing.schedulers import Bench, until
from psyrun.testing.sqsub import install

GOLDEN = Path(__file__).parent / "golden"

JOB = Job(
    "circle: all of it",
    "a1b2c3d4",
    ("/usr/bin/python3", "-m", "psyrun.worker", "it's a $word"),
    Path("/home/me/my project"),
    Path("/home/me/my project/psy-work/circle/log"),
    resources={"timelimit": 600, "memory": 512},
)
RICH = {
    "timelimit": 601,
    "memory": 2048,
    "n_cpus": 4,
    "n_nodes": 2,
    "partition": "threaded",
    "dependency": "17,18",
    "extra": ["--nompirun"],
}


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of an emulator whose programs are the first on PATH."""
    monkeypatch.setenv("PATH", f"{install(tmp_path / 'emulator')}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "emulator"


class TestSqsub(QueueTests):
    """The contract."""

    scheduler_args: ClassVar = {"timelimit": "5m", "memory": "512M"}
    tells_failure = False

    @pytest.fixture
    def queue(self, state: Path, tmp_path: Path) -> Queue:
        return Sqsub(tmp_path / "files of the queue")

    @contextmanager
    def break_queue(self, queue: Queue) -> Iterator[None]:
        assert isinstance(queue, Sqsub)
        broken = Path(queue.workdir).with_name("emulator") / "broken"
        broken.write_text("cannot connect to server")
        yield
        broken.unlink()

    # What the emulator does, beyond what is asked of every queue

    def test_a_time_limit_ends_a_job(self, bench: Bench) -> None:
        """First it is told."""
        command = run_command(["sqsub", "-r", "0.2s", *bench.job(deed="wait").command])
        job_id = JobId(command.output.split()[-1], "none")
        until(lambda: "K" in run_command(["sqjobs", job_id.id]).output.split())
        assert bench.reported("told")

    def test_jobs_wait_for_a_slot(self, bench: Bench, state: Path) -> None:
        """Those that end make room for the next, without anybody asking."""
        (state / "slots").write_text("1")
        ids = bench.submit(bench.job(deed="wait", n=3))
        bench.wait_for("began", ids[0])
        assert [bench.state(job_id) for job_id in ids] == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
        bench.open_gate()
        until(lambda: len(bench.reported("began")), lambda n: n == 3)

    def test_a_job_that_waits_is_cancelled_at_once(self, bench: Bench, state: Path) -> None:
        """It never runs."""
        (state / "slots").write_text("0")
        (job_id,) = bench.submit(bench.job())
        bench.queue.cancel([job_id])
        (state / "slots").write_text("1")
        bench.wait_over(bench.submit(bench.job()))
        assert bench.state(job_id) is JobState.CANCELLED
        assert bench.reported("began", job_id) == []

    def test_a_job_can_wait_for_another(self, bench: Bench) -> None:
        """It says so."""
        (first,) = bench.submit(bench.job(deed="wait"))
        resources = {"timelimit": 60, "dependency": first.id}
        (second,) = bench.submit(bench.job(resources=resources))
        assert bench.queue.poll([second])[second].word == "*Q"
        bench.open_gate()
        bench.wait_over([first, second])
        assert len(bench.reported("began", second)) == 1

    def test_a_runner_that_is_killed_takes_its_job_along(self, bench: Bench, state: Path) -> None:
        """As a node that fails; the next one runs."""
        (job_id,) = bench.submit(bench.job(deed="wait"))
        bench.wait_for("began", job_id)
        job = int((state / "jobs" / f"{job_id.id}.pid").read_text())
        status = Path(f"/proc/{job}/status").read_text()
        os.kill(int(status.partition("PPid:")[2].split()[0]), signal.SIGKILL)
        assert bench.wait_over([job_id])[job_id] is JobState.DONE
        until(lambda: not Path(f"/proc/{job}").exists() or "State:\tZ" in Path(f"/proc/{job}/status").read_text())
        bench.open_gate()
        bench.wait_over(bench.submit(bench.job()))

    # What only this queue does

    def test_a_late_number_is_waited_for(self, bench: Bench, tmp_path: Path) -> None:
        """The queue may start a job before it has written the file with the number."""
        stem = tmp_path / "job-late"
        job = bench.job()
        Path(f"{stem}.sh").write_text(sqsub.script_text(job, stem))
        pid = os.posix_spawn("/bin/sh", ["sh", f"{stem}.sh"], {"PATH": os.environ["PATH"]})
        assert not bench.logs.joinpath("job-17.log").exists()
        Path(f"{stem}.id").write_text("17")
        assert os.waitpid(pid, 0)[1] == 0
        assert [said["job"] for said in bench.reported("began")] == ["17"]

    def test_a_number_that_is_only_printed_is_passed_on(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where sqsub writes no file with it."""

        def forgets(command: list[str], **rest: object) -> Answer:
            return run_command([word for word in command if not word.startswith("--idfile")], **rest)  # type: ignore[arg-type]

        monkeypatch.setattr(sqsub, "run_command", forgets)
        (job_id,) = bench.submit(bench.job())
        assert bench.wait_for("began", job_id)["job"] == job_id.id

    def test_nothing_is_made_before_a_job_is_submitted(self, bench: Bench, queue: Sqsub) -> None:
        """Not by asking either."""
        queue.poll([JobId("1", "t")])
        queue.cancel([JobId("1", "t")])
        queue.preview(bench.job())
        assert not Path(queue.workdir).exists()
        bench.submit(bench.job())
        assert {path.suffix for path in Path(queue.workdir).iterdir()} >= {".sh", ".id"}


# What is said to it


def test_the_command_line_and_the_script_are_these() -> None:
    """Change them only with a reason; `psy-doit` shows the same."""
    assert Sqsub("/scratch/me/psyrun").preview(JOB) == (GOLDEN / "sqsub.txt").read_text()


def test_every_resource_has_its_option() -> None:
    """A time limit is rounded up to minutes."""
    job = Job("n", "t", ("/bin/true",), Path("/d"), Path("/d/log"), resources=RICH, prologue=("module load python",))
    words = sqsub.command_line(job, Path("/w/job-1"))
    assert words[:12] == [*("sqsub", "-r", "11m", "--mpp=2048M", "-n", "4", "-N", "2", "-q", "threaded", "-w", "17,18")]
    assert words[12:] == [*("--nompirun", "-j", "t:n", "-o", "/w/job-1.out", "--idfile=/w/job-1.id", "/w/job-1.sh")]
    script = sqsub.script_text(job, Path("/w/job-1")).splitlines()
    assert script[0] == "#!/bin/bash -l"
    assert script[-2:] == ["module load python", "exec /bin/true"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, r"without a time limit.*'timelimit': '10m'"),
        ({"timelimit": None}, "without a time limit"),
        ({"timelimit": "soon"}, r"scheduler_args\['timelimit'\] = 'soon'"),
        ({"timelimit": "1h", "memroy": "1G"}, "Sqsub takes no 'memroy'. Did you mean 'memory'"),
        ({"timelimit": "1h", "gpus": 1}, "Sqsub takes no 'gpus'"),
        ({"timelimit": "1h", "extra": ["-omine.log"]}, "'-omine.log' is what psyrun sets itself"),
    ],
)
def test_what_sqsub_does_not_take_is_an_error(args: dict[str, object], told: str) -> None:
    """When the task is loaded."""
    with pytest.raises(TaskError, match=told):
        Sqsub("w").check(args)


def test_the_tutorial_asks_for_what_is_taken() -> None:
    """As psyrun 0.8 took it."""
    Sqsub("/work/jgosmann/tcm").check({"timelimit": "10m", "memory": "512M", "n_cpus": 1, "n_nodes": 1})


def test_a_job_without_a_time_limit_is_not_submitted(state: Path, tmp_path: Path) -> None:
    """Even if nobody checked; nothing is made."""
    with pytest.raises(TaskError, match="without a time limit"):
        Sqsub(tmp_path / "w").submit(Job("n", "t", ("/bin/true",), tmp_path, tmp_path / "log"))
    assert not (tmp_path / "w").exists()


# How it is understood

HEADINGS = "jobid queue state ncpus nodes time command\n------ ----- ----- ----- ------ ---- ------------\n"
PRIORITY = "  jobid queue state ncpus prio  nodes time command\n ------ ----- ----- ----- ---- ------ ---- ----------\n"


@pytest.mark.parametrize(
    ("output", "states"),
    [
        (HEADINGS, {}),
        (HEADINGS + "244214 test      Q     1        6.8s t1:hello\n", {"244214": "queued"}),
        (HEADINGS + "244215 serial   *Q     1     -     0 t1:hello\n", {"244215": "queued"}),
        (HEADINGS + "244216 mpi       R    16 wha309 615s t1:hello\n", {"244216": "running"}),
        (
            HEADINGS + "".join(f"{n} serial {word} 1 615s t1:a\n" for n, word in enumerate("DCKSTZH")),
            dict(zip("0123456", ["done", "done", "cancelled", "held", "held", "held", "held"], strict=True)),
        ),
        (HEADINGS + "1 serial E 1 3s t1:a\n2 serial EXIT 1 3s t1:a\n", {"1": "unknown", "2": "unknown"}),
        (
            PRIORITY
            + " 169799 nrap1     R     1      wha309 615s ~me/x.sh\n"
            + "2460 CPUs total, 837 idle, 1623 busy; 1251 jobs running; 0 suspended, 11515 queued.\n"
            + "0 reserved cpus\n",
            {"169799": "running"},
        ),
        (HEADINGS + "\nThe cluster will be down on Monday.\n1 serial R 1 n1 3s t1:a\n", {"1": "running"}),
    ],
)
def test_tables_of_sqjobs_are_read(output: str, states: dict[str, str]) -> None:
    """As they were printed on several clusters."""
    assert {job_id: status.state.value for job_id, (status, _) in sqsub.parsed(output).items()} == states


@pytest.mark.parametrize(
    "output", ["", "\n", "bash: no such thing\n", "244214 serial R 1 n1 3s t1:a\n", HEADINGS + "244216 mpi\n"]
)
def test_what_is_no_table_is_an_error(output: str) -> None:
    """Not an empty one: that would say that all jobs are gone."""
    with pytest.raises(QueueError, match="sqjobs: takes"):
        sqsub.parsed(output)


A, B = JobId("1", "ta"), JobId("2", "tb")
ROWS = HEADINGS + "1 serial R 1 n1 3s ta:x\n2 serial D 1 3s tb:x\n"


def answers(monkeypatch: pytest.MonkeyPatch, **said: Answer | list[Answer]) -> list[list[str]]:
    """Have programs answer, each with the last one for ever; return what they are asked."""
    asked: list[list[str]] = []

    def run(command: list[str], **rest: object) -> Answer:
        asked.append(command)
        answer = said[command[0]]
        return answer if isinstance(answer, Answer) else answer.pop(0) if len(answer) > 1 else answer[0]

    monkeypatch.setattr(sqsub, "run_command", run)
    return asked


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(1, "", "cannot connect to server"), "cannot connect.*not known"),
        (Answer(2, ROWS, ""), "jobid"),
        (Answer(124, "", "sqjobs gave no answer within 60 s"), "no answer"),
        (Answer(127, "", "No such file or directory: 'sqjobs'"), "No such file"),
        (Answer(0, "", ""), "takes a table"),
        (Answer(-9, "", ""), "status -9"),
    ],
)
def test_no_answer_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: Answer, told: str) -> None:
    """To each question; nothing is cancelled."""
    asked = answers(monkeypatch, sqjobs=answer)
    queue = Sqsub("w")
    for ask in (lambda: queue.poll([A]), lambda: queue.cancel([A]), lambda: queue.find("ta")):
        with pytest.raises(QueueError, match=told):
            ask()
    assert asked == [["sqjobs"]] * 3


@pytest.mark.parametrize("answer", [Answer(1, "", ""), Answer(1, HEADINGS, ""), Answer(0, HEADINGS, "")])
def test_no_jobs_are_no_error(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """The status of sqjobs is 1 if no job waits or runs."""
    answers(monkeypatch, sqjobs=answer)
    assert Sqsub("w").poll([A])[A].state is JobState.GONE
    assert Sqsub("w").find("ta") == []


def test_a_young_answer_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By all commands; that there are no jobs is one, too. What is no answer is not kept."""
    for answer in (Answer(0, ROWS, ""), Answer(1, "", "")):
        asked = answers(monkeypatch, sqjobs=[Answer(0, ROWS, ""), answer])
        Sqsub("w").poll([A])
        found = Sqsub("w").poll([A])[A]
        assert Sqsub("elsewhere").poll([A], max_age=60)[A] == found
        assert len(asked) == 2
    answers(monkeypatch, sqjobs=Answer(0, "nonsense", ""))
    with pytest.raises(QueueError, match="nonsense"):
        Sqsub("w").poll([A])
    assert Sqsub("w").poll([A], max_age=60)[A] == found


def test_one_question_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of jobs that are ours."""
    asked = answers(monkeypatch, sqjobs=Answer(0, ROWS, ""))
    found = Sqsub("w").poll([A, B, JobId("1", "tb"), JobId("1", "t"), JobId("3", "ta")])
    assert [status.state.value for status in found.values()] == ["running", "done", "gone", "gone", "gone"]
    assert asked == [["sqjobs"]]


def test_only_live_jobs_of_ours_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one call."""
    asked = answers(monkeypatch, sqjobs=Answer(0, ROWS, ""), sqkill=Answer(0, "", ""))
    Sqsub("w").cancel([A, B, JobId("1", "tb")])
    assert asked == [["sqjobs"], ["sqkill", "1"]]


def test_a_job_that_ends_meanwhile_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sqkill complains of is looked at again."""
    complaint = Answer(1, "", "no such job: 1")
    answers(monkeypatch, sqjobs=[Answer(0, ROWS, ""), Answer(1, HEADINGS, "")], sqkill=complaint)
    Sqsub("w").cancel([A])
    answers(monkeypatch, sqjobs=Answer(0, ROWS, ""), sqkill=complaint)
    with pytest.raises(QueueError, match="sqkill: no such job: 1"):
        Sqsub("w").cancel([A])


@pytest.mark.parametrize(
    ("answer", "told", "unsure"),
    [
        (Answer(127, "", "No such file or directory: 'sqsub'"), "Is this a machine of SHARCNET?", False),
        (Answer(1, "", "sqsub: limit of jobs"), "limit of jobs.*type the command again", True),
        (Answer(124, "", "sqsub gave no answer within 60 s"), "no answer", True),
        (Answer(0, "", ""), "status 0", True),
    ],
)
def test_a_job_without_a_number_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Answer, told: str, unsure: bool
) -> None:
    """Unless sqsub cannot be run, it may be in the queue all the same: its token tells."""
    answers(monkeypatch, sqsub=answer)
    job = Job("n", "t", ("/bin/true",), tmp_path, tmp_path / "log", n=2, resources={"timelimit": 60})
    with pytest.raises(SubmitError, match=told) as refused:
        Sqsub("w").submit_many(job)
    assert (refused.value.taken, refused.value.unsure) == ([], unsure)


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path: Path, state: Path) -> None:
    """Nothing is submitted."""
    (tmp_path / "w").write_text("")
    job = Job("n", "t", ("/bin/true",), tmp_path, tmp_path / "log", resources={"timelimit": 60})
    with pytest.raises(SubmitError, match=r"w: jobs cannot be prepared: File exists") as refused:
        Sqsub("w").submit(job)
    assert not refused.value.unsure
    assert list((state / "jobs").iterdir()) == []
