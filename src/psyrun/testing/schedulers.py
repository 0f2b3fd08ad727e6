"""The contract of queues of jobs."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from psyrun.errors import TaskError
from psyrun.files import random_name
from psyrun.scheduler import Job, JobId, JobState, Queue, QueueError, SubmitError
from psyrun.scheduler.resources import resolved

Answer = TypeVar("Answer")

DEADLINE = 60.0
"""Seconds that a test waits for what a queue should do."""
_MOMENT = 1.0
"""Seconds in which a signal arrives, and a job that is killed says so."""

WORDS = [
    *("", " ", "two words", "'", '"', 'it\'s "both"', "$HOME", "${x}", "$(date)", "`date`", "a;b", "a|b", "a&b", "*"),
    *("~", "!", "#", "\\", "\\n", "--flag=1", "%J %A %a", "tab\there", "line\nbreak", "größe", "数", "ends\\"),
]
"""Words that a shell, or the option parser of a queue's program, would make something else of."""

# What jobs run: it says what it got, does one thing, and ends.
_PROGRAM = """
import json, os, signal, sys, time
reports, deed, *words = sys.argv[1:]
job = os.environ.get("PSYRUN_JOB", "none")

def report(kind, content):
    name = os.path.join(reports, f"{kind}-{job}-{os.getpid()}")
    with open(name + ".new", "w") as file:
        json.dump(content, file)
    os.rename(name + ".new", name)

def told(*_):
    report("told", None)
    sys.exit(9)

signal.signal(signal.SIGTERM, told)
print("out", *words, flush=True)
print("err", file=sys.stderr, flush=True)
report("began", {"words": words, "cwd": os.getcwd(), "job": job, "mark": os.environ.get("PSYRUN_TEST_MARK")})
end = time.monotonic() + 300
while deed == "wait" and time.monotonic() < end and not os.path.exists(os.path.join(reports, "gate")):
    time.sleep(0.05)
sys.exit(3 if deed == "fail" else 0)
"""


def until(look: Callable[[], Answer], right: Callable[[Answer], object] = bool) -> Answer:
    """Look again and again until what is seen is right, and return it.

    Raises
    ------
    AssertionError
        It is not within `DEADLINE`.
    """
    end = time.monotonic() + DEADLINE
    while not right(seen := look()):
        assert time.monotonic() < end, f"still {seen!r} after {DEADLINE:g} s"
        time.sleep(0.1)
    return seen


def _following(job_id: str) -> list[str]:
    """Return the next ids, where a queue counts."""
    number = re.search(r"\d+", job_id)
    if number is None:
        return []
    return [job_id.replace(number[0], str(int(number[0]) + more), 1) for more in range(1, 51)]


class Bench:
    """A queue under test: it makes jobs, reads what they report, and remembers those to end.

    Parameters
    ----------
    queue : Queue
    directory : Path
        For the files of jobs; all machines of the queue must see it.
    resources : dict
        What each job asks for.
    """

    def __init__(self, queue: Queue, directory: Path, resources: Mapping[str, Any]):
        self.queue = queue
        self.directory = directory / "it's a $place"
        self.logs = directory / "logs of jobs"
        self.reports = directory / "reports"
        for made in (self.directory, self.logs, self.reports):
            made.mkdir()
        self._resources = resources
        self._submitted: list[JobId] = []

    def job(self, *words: str, deed: str = "end", **changes: Any) -> Job:
        """Return a job that reports its words. The deed is ``end``, ``fail``, or ``wait`` for the gate to open."""
        command = (sys.executable, "-I", "-c", _PROGRAM, str(self.reports), deed, *words)
        job = Job("contract", f"t{random_name()}", command, self.directory, self.logs, resources=self._resources)
        return replace(job, **changes)

    def submit(self, job: Job) -> list[JobId]:
        """Give a job to the queue."""
        ids = self.queue.submit_many(job)
        self._submitted += ids
        return ids

    def reported(self, kind: str, job_id: JobId | None = None) -> list[Any]:
        """Return what jobs said, or one job did."""
        wanted = f"{kind}-*" if job_id is None else f"{kind}-{job_id.id}-*"
        return [json.loads(path.read_text()) for path in self.reports.glob(wanted) if path.suffix != ".new"]

    def wait_for(self, kind: str, job_id: JobId) -> Any:
        """Return what a job says, when it does."""
        return until(lambda: self.reported(kind, job_id))[0]

    def state(self, job_id: JobId) -> JobState:
        """Return what the queue says of a job."""
        found = self.queue.poll([job_id])
        assert list(found) == [job_id]
        return found[job_id].state

    def wait_over(self, ids: Sequence[JobId]) -> dict[JobId, JobState]:
        """Return how jobs ended, when all have."""
        found = until(lambda: self.queue.poll(ids), lambda said: all(status.state.over for status in said.values()))
        return {job_id: status.state for job_id, status in found.items()}

    def open_gate(self) -> None:
        """Let all waiting jobs end."""
        (self.reports / "gate").touch()

    def log(self, job_id: JobId) -> str:
        """Return the output of a job, '' before there is any."""
        path = self.logs / f"job-{job_id.id}.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End what still runs."""
        self.open_gate()
        with suppress(QueueError):
            self.queue.cancel(self._submitted)


class QueueTests:
    """What holds for every queue: one is done when a class of this kind passes that gives it as its `queue`.

    Jobs really run: a queue of a cluster is tested where there is one, or with an emulator.

    Attributes
    ----------
    scheduler_args : dict
        What each job of the tests asks for: a time limit of some minutes, where the queue needs one.
    unknown_arg : str
        A name that the queue does not take in ``scheduler_args``.
    tells_failure : bool
        Whether the queue tells jobs that failed from those that did not.

    Examples
    --------
    In a file of tests::

        from psyrun.testing import QueueTests

        class TestMine(QueueTests):
            @pytest.fixture
            def queue(self, tmp_path):
                return MyQueue()

            @contextmanager
            def break_queue(self, queue):
                with pytest.MonkeyPatch.context() as patched:
                    patched.setenv("PATH", "/nowhere")
                    yield
    """

    scheduler_args: ClassVar[Mapping[str, Any]] = {}
    unknown_arg: ClassVar[str] = "walltme"
    tells_failure: ClassVar[bool] = True

    @pytest.fixture
    def queue(self, tmp_path: Path) -> Queue:
        """Return the queue to test."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture queue")

    def break_queue(self, queue: Queue) -> AbstractContextManager[None]:
        """Have each program of the queue fail, as when its server is down; jobs that run go on."""
        raise NotImplementedError(f"{type(self).__name__} needs a method break_queue")

    @pytest.fixture
    def bench(self, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
        """Return what the tests work with; what they leave running is ended."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        (tmp_path / "bench").mkdir()
        bench = Bench(queue, tmp_path / "bench", resolved(self.scheduler_args, "contract"))
        yield bench
        bench.close()

    # Running

    def test_a_command_is_run_word_by_word(self, bench: Bench) -> None:
        """Whatever a shell would make of the words, in its directory."""
        (job_id,) = bench.submit(bench.job(*WORDS))
        said = bench.wait_for("began", job_id)
        assert said["words"] == WORDS
        assert Path(said["cwd"]).samefile(bench.directory)

    def test_a_job_knows_its_id_and_has_a_log(self, bench: Bench) -> None:
        """The id stands in PSYRUN_JOB; output and errors are in a file that has it in its name."""
        (job_id,) = bench.submit(bench.job("größe"))
        assert bench.wait_for("began", job_id)["job"] == job_id.id
        until(lambda: bench.log(job_id), lambda text: "out größe\n" in text and "err\n" in text)

    def test_a_log_is_appended_to(self, bench: Bench) -> None:
        """What is there is kept: a queue may run a job twice, or use its number again."""
        (first,) = bench.submit(bench.job())
        bench.wait_over([first])
        following = _following(first.id)
        for job_id in following:
            (bench.logs / f"job-{job_id}.log").write_text("before\n")
        (second,) = bench.submit(bench.job())
        text = until(lambda: bench.log(second), lambda text: "err\n" in text)
        assert text.startswith("before\n") == (second.id in following)

    def test_each_of_many_runs_once(self, bench: Bench) -> None:
        """They have ids of their own."""
        ids = bench.submit(bench.job("many", n=5))
        assert len({job_id.id for job_id in ids}) == 5
        bench.wait_over(ids)
        until(lambda: len(bench.reported("began")), lambda n: n == 5)
        assert sorted(said["job"] for said in bench.reported("began")) == sorted(job_id.id for job_id in ids)

    def test_the_prologue_comes_first(self, bench: Bench) -> None:
        """In the same shell, so that what it sets is there; its output is in the log."""
        lines = ("export PSYRUN_TEST_MARK='a b'", "echo prepared")
        (job_id,) = bench.submit(bench.job(prologue=lines))
        assert bench.wait_for("began", job_id)["mark"] == "a b"
        text = until(lambda: bench.log(job_id), lambda text: "out\n" in text)
        assert text.index("prepared\n") < text.index("out\n")

    # Asking

    def test_a_job_runs_and_is_over(self, bench: Bench) -> None:
        """It waits or runs at first, runs when it has begun, and is done, or forgotten, when it has ended."""
        (job_id,) = bench.submit(bench.job(deed="wait"))
        assert not bench.state(job_id).over
        bench.wait_for("began", job_id)
        until(lambda: bench.state(job_id), lambda state: state is JobState.RUNNING)
        bench.open_gate()
        assert bench.wait_over([job_id])[job_id] in (JobState.DONE, JobState.GONE)

    def test_a_job_that_fails_is_over(self, bench: Bench) -> None:
        """And told from one that did not, where the queue knows."""
        (job_id,) = bench.submit(bench.job(deed="fail"))
        told = (JobState.FAILED, JobState.GONE)
        assert bench.wait_over([job_id])[job_id] in (told if self.tells_failure else (*told, JobState.DONE))

    def test_no_question_has_no_answer(self, bench: Bench) -> None:
        """An empty one."""
        assert bench.queue.poll([]) == {}

    def test_all_are_asked_at_once(self, bench: Bench) -> None:
        """Each gets its own answer, whatever the others are."""
        (ended,) = bench.submit(bench.job())
        bench.wait_over([ended])
        (running,) = bench.submit(bench.job(deed="wait"))
        strange = JobId(running.id, f"t{random_name()}")
        found = bench.queue.poll([ended, running, strange])
        assert set(found) == {ended, running, strange}
        assert [found[job_id].state.over for job_id in (ended, running, strange)] == [True, False, True]

    def test_an_old_answer_hides_no_new_job(self, bench: Bench) -> None:
        """An answer that was given before a job was submitted is not used again, however old it may be."""
        (ended,) = bench.submit(bench.job())
        bench.wait_over([ended])
        bench.queue.poll([ended], max_age=300)
        (running,) = bench.submit(bench.job(deed="wait"))
        assert not bench.queue.poll([running], max_age=300)[running].state.over

    def test_a_token_finds_its_jobs(self, bench: Bench) -> None:
        """Exactly these, or it is said that this cannot be known."""
        ids = bench.submit(bench.job(deed="wait", n=2))
        bench.submit(bench.job(deed="wait"))
        try:
            bench.queue.find(ids[0].token)
        except QueueError:
            return
        until(lambda: set(bench.queue.find(ids[0].token)), lambda found: found == set(ids))
        assert bench.queue.find(f"t{random_name()}") == []

    # Ending

    def test_cancel_ends_a_job_and_no_other(self, bench: Bench) -> None:
        """It is asked to end first (SIGTERM), so that it can put on record what is finished."""
        cancelled, other = bench.submit(bench.job(deed="wait", n=2))
        for job_id in (cancelled, other):
            bench.wait_for("began", job_id)
        bench.queue.cancel([cancelled])
        assert bench.wait_over([cancelled])[cancelled] in (JobState.CANCELLED, JobState.GONE, JobState.DONE)
        bench.wait_for("told", cancelled)
        time.sleep(_MOMENT)
        assert bench.state(other) is JobState.RUNNING
        assert bench.reported("told", other) == []

    def test_what_runs_is_not_taken_for_what_waits(self, bench: Bench) -> None:
        """Taking jobs from the queue that did not start ends none that did."""
        jobs = bench.submit(bench.job(deed="wait", n=2))
        for job_id in jobs:
            bench.wait_for("began", job_id)
        assert bench.queue.cancel_waiting(jobs) == []
        assert [bench.state(job_id) for job_id in jobs] == [JobState.RUNNING] * 2
        assert bench.reported("told", jobs[0]) == []

    def test_a_job_of_others_is_left_alone(self, bench: Bench) -> None:
        """One that has the number of a job of ours, and another token, is none of ours: for us it is gone."""
        (job_id,) = bench.submit(bench.job(deed="wait"))
        bench.wait_for("began", job_id)
        strange = JobId(job_id.id, f"t{random_name()}")
        assert bench.state(strange) is JobState.GONE
        bench.queue.cancel([strange])
        time.sleep(_MOMENT)
        bench.open_gate()
        assert bench.wait_over([job_id])[job_id] in (JobState.DONE, JobState.GONE)
        assert bench.reported("told", job_id) == []

    def test_what_is_over_can_be_cancelled(self, bench: Bench) -> None:
        """Nothing happens, twice; so it is with no jobs at all."""
        (job_id,) = bench.submit(bench.job())
        bench.wait_over([job_id])
        for _ in range(2):
            bench.queue.cancel([job_id])
        bench.queue.cancel([])
        assert bench.state(job_id).over

    # Mistakes and failures

    def test_an_unknown_argument_is_an_error(self, queue: Queue) -> None:
        """When the task is loaded; the message names it."""
        queue.check(self.scheduler_args)
        with pytest.raises(TaskError, match=self.unknown_arg):
            queue.check({**self.scheduler_args, self.unknown_arg: "1h"})

    def test_a_preview_runs_nothing(self, bench: Bench) -> None:
        """It shows the command."""
        job = bench.job("shown")
        shown = bench.queue.preview(job)
        assert sys.executable in shown
        assert "shown" in shown
        (job_id,) = bench.submit(bench.job())
        bench.wait_over([job_id])
        assert [said["job"] for said in until(lambda: bench.reported("began"))] == [job_id.id]

    def test_a_queue_that_fails_is_never_believed(self, bench: Bench) -> None:
        """Each question is an error, none has a wrong answer, and the job is not harmed."""
        (job_id,) = bench.submit(bench.job(deed="wait"))
        bench.wait_for("began", job_id)
        with self.break_queue(bench.queue):
            with pytest.raises(QueueError):
                bench.queue.poll([job_id])
            with pytest.raises(QueueError):
                bench.queue.cancel([job_id])
            with pytest.raises(QueueError):
                bench.queue.find(job_id.token)
            with pytest.raises(SubmitError) as refused:
                bench.queue.submit_many(bench.job())
        assert refused.value.taken == []
        until(lambda: bench.state(job_id), lambda state: state is JobState.RUNNING)

    def test_it_is_shown_as_it_is_written(self, queue: Queue) -> None:
        """In a task file: scheduler = psyrun.Sqsub('/work')."""
        assert repr(queue).startswith(f"{type(queue).__name__}(")
