"""The contract of queues: another queue can pass it, and one with a mistake does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

import toy_queues
from psyrun.scheduler import Queue
from psyrun.testing import QueueTests, schedulers
from psyrun.testing.sqsub import install


class TestToyQueue(QueueTests):
    """Three methods make a queue."""

    scheduler_args: ClassVar = {"timelimit": "5m"}
    tells_failure = False
    kind: ClassVar[type[toy_queues.ToyQueue]] = toy_queues.ToyQueue

    @pytest.fixture
    def queue(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
        monkeypatch.setenv("PATH", f"{install(tmp_path / 'emulator')}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(self.kind, "directory", tmp_path, raising=False)
        return self.kind()

    @contextmanager
    def break_queue(self, queue: Queue) -> Iterator[None]:
        assert isinstance(queue, toy_queues.ToyQueue)
        broken = queue.directory / "emulator" / "broken"
        broken.write_text("cannot connect to server")
        yield
        broken.unlink()


# Another project. To see that a test fails should take no minute.
CONFTEST = "from psyrun.testing import schedulers\nschedulers.DEADLINE = 4.0\n"
TESTS = "import toy_queues\nfrom test_testing_queues import TestToyQueue\n" + "".join(
    f"class Test{queue.__name__}(TestToyQueue):\n    kind = toy_queues.{queue.__name__}\n" for queue in toy_queues.FAILS
)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Return which tests of which mistaken queues fail."""
    project = tmp_path_factory.mktemp("project")
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_toys.py").write_text(TESTS)
    chosen = [f"test_toys.py::Test{queue.__name__}::{test}" for queue, test in toy_queues.FAILS.items()]
    command = [sys.executable, "-m", "pytest", "-p", "no:nengo", "--tb=no", "-rf", *chosen]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    told = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert told.returncode == pytest.ExitCode.TESTS_FAILED, told.stdout + told.stderr
    return set(re.findall(r"^FAILED .*::Test(\w+)::(\w+)", told.stdout, re.MULTILINE))


@pytest.mark.parametrize(("queue", "test"), toy_queues.FAILS.items())
def test_a_mistake_is_found(queue: type, test: str, failed: set[tuple[str, str]]) -> None:
    """Each by the test that is there for it."""
    assert (queue.__name__, test) in failed


def test_every_test_finds_something() -> None:
    """Otherwise it would show nothing."""
    tests = {name for name in dir(QueueTests) if name.startswith("test_")}
    assert tests - set(toy_queues.FAILS.values()) == {
        "test_no_question_has_no_answer",
        "test_it_is_shown_as_it_is_written",
    }


def test_waiting_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what was seen last."""
    monkeypatch.setattr(schedulers, "DEADLINE", 0.2)
    with pytest.raises(AssertionError, match=r"still 7 after 0.2 s"):
        schedulers.until(lambda: 7, lambda seen: seen == 8)
    assert schedulers.until(lambda: 8) == 8
