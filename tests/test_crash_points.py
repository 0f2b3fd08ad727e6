"""A run is killed, or meets a full or broken disk, at every system call that changes its work directory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from crashing import Point, points, watched
from invariants import age, assert_converges, assert_mended, assert_told_truly, left_beside, stand
from project import Project

pytestmark = pytest.mark.crash

N = 20
AT_A_TIME = 3
KINDS = [("command", call) for call in ("openat", "write", "fsync", "rename", "mkdir", "chmod")]
KINDS += [("starter", "write")]
KINDS += [("supervisor", call) for call in ("openat", "write", "fsync", "rename", "unlink")]
KINDS += [("child", call) for call in ("openat", "write")]
"""Which process makes which calls about the work directory; a test holds that these are all."""
LASTING = ["fsync", "rename", "mkdir"]
FAULTS = [("ENOSPC", "+", "No space left on device"), ("EIO", "", "Input/output error")]
"""A disk that is full stays full for the process; a broken one fails once. And what the user is to read."""
SAMPLED = 4
"""One of so many points of a kind gets an error, or is tried when time is short."""


def _project(folder: Path, role: str) -> Project:
    """Make a project whose items each have a write of their own; a child that is watched runs them all."""
    project = Project(folder)
    project.logging_task(n=N, seconds=0.002, workers=1 if role == "child" else 2, max_jobs=4)
    return project


@cache
def _all_points(role: str) -> list[Point]:
    with tempfile.TemporaryDirectory() as folder:
        return points(_project(Path(folder), role), role)


def _points(role: str, call: str) -> list[Point]:
    """Return what is to be stopped: before a call that changes nothing all is as before the next one."""
    return [point for point in _all_points(role) if point.call == call and not point.refused]


def _check(chosen: list[Point], check: Callable[[Project, Point], bool]) -> None:
    """Check points, several at a time; tell all at which anything is wrong, and hold that most were reached."""

    def checked(point: Point) -> str | bool:
        with tempfile.TemporaryDirectory() as folder:
            try:
                return check(_project(Path(folder), point.role), point)
            except Exception as error:
                return f"{point}: {type(error).__name__}: {error}\n"

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = list(pool.map(checked, chosen))
    wrong = [what for what in found if isinstance(what, str)]
    assert not wrong, "\n".join(wrong)
    # No two runs of supervisors are alike: one may end before it comes to the last calls of another.
    assert found.count(False) <= len(found) // 2, f"{found.count(False)} of {len(found)} points were not reached"


@pytest.mark.parametrize("role", ["command", "supervisor", "child"])
def test_no_kind_of_call_is_forgotten(role: str) -> None:
    """A clean run changes its work directory by the calls that the tests below stop, and by no others."""
    found = {(point.role, point.call) for point in _all_points(role) if not point.refused}
    assert found == {kind for kind in KINDS if kind[0] == role}


def _killed(project: Project, point: Point) -> bool:
    """Kill a process at a point; whoever survives ends in order, and the next command completes the task."""
    end = watched(project, point.role, point, "signal=KILL")
    if point.role == "command":
        assert end.status == (-9 if end.hit else 0), end.told
    elif point.role == "starter":
        assert end.status in (0, 75), end.told
    else:
        assert end.status == 0, end.told
    assert "Traceback" not in end.told
    before = stand(project)
    assert len(before.in_flight()) + before.starts.total() - len(before.starts) <= 2, "more than in flight was lost"
    assert_told_truly(project, before, N)
    age(left_beside(project))
    assert_converges(project, before, N)
    if point.role == "command":
        assert left_beside(project) == []
    return bool(end.hit)


@pytest.mark.parametrize(("role", "call"), KINDS)
def test_a_kill_at_a_call_costs_what_is_in_flight(role: str, call: str) -> None:
    """The status is true, the next command completes the task, and nothing on record is computed again."""
    chosen = _points(role, call)
    _check(chosen[KINDS.index((role, call)) % min(SAMPLED, len(chosen)) :: SAMPLED], _killed)


@pytest.mark.long
@pytest.mark.parametrize(("role", "call"), KINDS)
def test_a_kill_at_any_call_costs_what_is_in_flight(role: str, call: str) -> None:
    """The same, for all of them."""
    _check(_points(role, call), _killed)


def _failing(name: str, more: str, text: str) -> Callable[[Project, Point], bool]:
    def check(project: Project, point: Point) -> bool:
        # Standard error and pipes are no disk: a write fails once.
        end = watched(project, point.role, point, f"error={name}", more if point.call in LASTING else "")
        before = stand(project)
        if "psy-work" in end.hit:
            assert end.status in (0, 75), f"{end.hit}\n{end.told}"
            assert (text in end.told) == (end.status == 75), f"{end.hit}\n{end.told}"
            assert "Traceback" not in end.told, end.told
            assert "worker ended" not in end.told, end.told
            assert end.status == 75 or len(before.on_record) == N
        assert_told_truly(project, before, N)
        assert_mended(project, before, N)
        return "psy-work" in end.hit

    return check


@pytest.mark.long
@pytest.mark.parametrize(("name", "more", "text"), FAULTS, ids=["full", "broken"])
@pytest.mark.parametrize(("role", "call"), [*(kind for kind in KINDS if kind[0] != "starter"), ("command", "unlink")])
def test_an_error_at_any_call_is_told_or_mended(role: str, call: str, name: str, more: str, text: str) -> None:
    """Status 75 with the cause, or 0 and all is there; never a traceback; the next command completes the task."""
    chosen = [point for point in _all_points(role) if point.call == call]
    first = FAULTS.index((name, more, text))
    _check(chosen[first % len(chosen) :: SAMPLED], _failing(name, more, text))


@pytest.mark.parametrize(("call", "number"), [("rename", 1), ("rename", 2), ("rename", 3), ("fsync", 1)])
def test_a_disk_that_stays_full_for_all_workers_is_told(tmp_path: Path, call: str, number: int) -> None:
    """However often the command starts another one: heartbeat, claim, end of a chunk, and the record."""
    project = _project(tmp_path, "supervisor")
    end = watched(project, "starter", Point("starter", call, number), "error=ENOSPC", "+", family=True)
    assert end.status == 75
    assert "No space left on device" in end.told
    before = stand(project)
    assert_told_truly(project, before, N)
    assert_converges(project, before, N)
