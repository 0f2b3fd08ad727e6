"""A command is killed at each system call by which it notes what it gives to a queue."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from crashing import Point, watched
from queueproject import QueueProject

pytestmark = pytest.mark.crash


def notes(project: QueueProject) -> list[Point]:
    """Return the calls about notes of submissions in a run that nothing happens to."""
    end = watched(project, "command")
    assert end.status == 0, end.told
    counts: Counter[str] = Counter()
    found = []
    for line in end.calls:
        call = line.partition("(")[0]
        counts[call] += 1
        if "/submit/" in line and (call != "openat" or "O_CREAT" in line):
            found.append(Point("command", call, counts[call]))
    return found


def test_killed_at_each(tmp_path: Path) -> None:
    """The next command gives the queue just what is not there, and each item is computed once."""

    def fresh(name: str) -> QueueProject:
        (tmp_path / name).mkdir()
        project = QueueProject(tmp_path / name)
        project.queued_task(n=4, max_jobs=2)
        return project

    model = fresh("model")
    calls = notes(model)
    model.close()
    assert len(calls) >= 6, calls
    for number, call in enumerate(calls):
        project = fresh(str(number))
        try:
            end = watched(project, "command", call, "signal=KILL")
            assert end.hit, f"{call} was not reached"
            assert "/submit/" in end.hit
            project.run("t")
            project.wait_ended()
            assert len(project.jobs()) == 2, str(call)
            assert project.steps("t") == ["-- t:split", "-- t:merge"], str(call)
            assert project.started() == dict.fromkeys(range(4), 1), str(call)
        finally:
            project.close()
