"""Workers share chunks: who has more than it can do soon opens half of it to others."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from project import Project, descendants, until
from psyrun.claims import DONE, HELD, OPEN, Claims, Observer, Token
from psyrun.errors import FencedError
from psyrun.holdings import Holdings
from psyrun.plan import Draft, Plan, ranges_of
from psyrun.tasks import Task, task_from_source
from psyrun.work import _Chunk

SOURCE = """
import psyrun
pspace = psyrun.Param(x=range(10))
min_items = {min_items}
def execute(x): return {{"y": x}}
"""

ONE_CHUNK = """
    import os, time
    import psyrun

    pspace = psyrun.Param(x=range({n}))

    class OneChunk(psyrun.LoadBalancingBackend):
        def sizes(self, n_items, max_jobs, min_items):
            return [n_items] if n_items else []

    backend = OneChunk()

    def execute(x):
        fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{{x}}\\n".encode())
        os.close(fd)
        time.sleep({seconds})
        return {{"y": x * x, "pid": os.getppid(), "ended": time.time()}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


class Bench:
    """A plan on disk, and workers that hold some of it."""

    def __init__(self, path: Path, sizes: list[int], balances: bool = True, min_items: int = 1):
        source = SOURCE.format(min_items=min_items)
        self.task: Task = task_from_source("t", path / "psy-tasks" / "task_t.py", source, "", path)
        workdir = self.task.workdir
        workdir.create()
        nothing = np.empty((0, 2), np.uint64), np.empty(0, np.int64)
        draft = Draft(ranges_of(np.ones(10, dtype=bool)), sizes, [self.task.code], *nothing, balances=balances)
        with workdir.new_plan(None) as place:
            draft.write(place, self.task, {})
            assert place.commit()
        self.plan = Plan.read(place.path)
        self.done: list[Token] = []

    def worker(self, letter: str) -> Holdings:
        """Return what a worker holds: nothing yet."""
        workdir = self.task.workdir
        return Holdings(workdir, self.plan, letter * 16, Observer(workdir.beats, 60), lambda _: None, self.done.append)

    def names(self, state: str) -> list[str]:
        """Return positions of the tokens in a state, as text."""
        return [f"{token.first}-{token.last}" for token in Claims(self.plan.path).tokens(state)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A monotonic clock that stands still."""
    now = [time.monotonic() + 100]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return tmp_path


def test_half_of_what_nobody_works_on_is_opened(at: Path, clock: list[float]) -> None:
    """And what is kept is finished as ever."""
    bench = Bench(at, [10])
    mine, other = bench.worker("a"), bench.worker("b")
    work = mine.take(1, 1)
    assert work is not None
    assert not other.more()
    clock[0] += 1
    mine.share(1.0)
    assert (bench.names(HELD), bench.names(OPEN)) == (["0-4"], ["5-9"])
    assert other.more()
    assert bench.names(HELD) == ["0-4", "5-9"]
    mine.give_back(*work)
    while (work := mine.take(1, 1)) is not None:
        mine.give_back(*work)
    mine.finish()
    assert bench.names(DONE) == ["0-4"]


@pytest.mark.parametrize(
    ("sizes", "balances", "seconds", "taken"),
    [
        ([10], True, 0.001, 1),  # it is all done in a moment
        ([10], False, 1.0, 1),  # the fixed backend
        ([4, 6], True, 1.0, 1),  # there is something to claim
        ([10], True, 1.0, 10),  # all is being worked on
        ([10], True, 1.0, 0),  # nothing was begun: what is left must be a token
    ],
)
def test_nothing_is_opened_without_need(
    at: Path, clock: list[float], sizes: list[int], balances: bool, seconds: float, taken: int
) -> None:
    """Each token is a file."""
    bench = Bench(at, sizes, balances)
    mine = bench.worker("a")
    assert mine.more()
    if taken:
        mine.take(taken, 1)
    clock[0] += 1
    before = bench.names(HELD), bench.names(OPEN)
    if taken:
        mine.share(seconds)
        assert (bench.names(HELD), bench.names(OPEN)) == before
    else:  # as much as there is, but not all
        mine.share(seconds)
        assert (bench.names(HELD), bench.names(OPEN)) == (["0-4"], ["5-9"])


def test_a_look_is_taken_ten_times_a_second_at_most(at: Path, clock: list[float]) -> None:
    """Listing costs something, where many share a disk."""
    bench = Bench(at, [10])
    mine = bench.worker("a")
    mine.take(1, 1)
    mine.share(1.0)  # it listed just now, to claim
    assert bench.names(OPEN) == []
    clock[0] += 0.11
    mine.share(1.0)
    assert bench.names(OPEN) == ["5-9"]


def test_as_many_are_kept_open_as_others_work(at: Path, clock: list[float]) -> None:
    """All of them may want one at a time."""
    bench = Bench(at, [8, 1, 1])
    mine, *others = (bench.worker(letter) for letter in "abc")
    mine.take(1, 1)
    assert all(other.more() for other in others)
    for open_then in (["4-7"], ["2-3", "4-7"], ["2-3", "4-7"]):
        clock[0] += 1
        mine.share(1.0)
        assert bench.names(OPEN) == open_then


def test_single_items_are_opened_too(at: Path, clock: list[float]) -> None:
    """Down to what is in hand."""
    bench = Bench(at, [10])
    mine = bench.worker("a")
    mine.take(1, 1)
    for _ in range(10):
        clock[0] += 1
        mine.share(1.0)
        claims = Claims(bench.plan.path, "b" * 16)
        for token in claims.tokens(OPEN):
            assert claims.claim(token)
    assert bench.names(HELD) == ["0-0", "1-1", "2-2", "3-4", "5-9"]


def test_chunks_are_not_opened_below_the_fewest_items(at: Path, clock: list[float]) -> None:
    """Neither those, nor is less than that kept without need."""
    bench = Bench(at, [10], min_items=6)
    mine = bench.worker("a")
    mine.take(1, 1)
    clock[0] += 1
    mine.share(1.0)
    assert (bench.names(HELD), bench.names(OPEN)) == (["0-3"], ["4-9"])
    Claims(bench.plan.path, "b" * 16).claim(Token(4, 9))
    clock[0] += 1
    mine.share(1.0)
    assert bench.names(OPEN) == []


def test_what_was_begun_and_worked_on_is_finished_when_the_rest_is_given_away(at: Path, clock: list[float]) -> None:
    """Nothing of it is in hand any more."""
    bench = Bench(at, [2, 8])
    mine = bench.worker("a")
    work = mine.take(1, 1)
    assert work is not None
    mine.give_back(*work)
    Claims(bench.plan.path, "b" * 16).claim(Token(2, 9))
    clock[0] += 1
    mine.share(1.0)
    mine.finish()
    assert (bench.names(DONE), bench.names(OPEN)) == (["0-0"], ["1-1"])
    assert not mine
    assert [token.last for token in bench.done] == [0]


def test_who_was_taken_over_finds_out_when_it_shares(at: Path, clock: list[float]) -> None:
    """It must stop."""
    bench = Bench(at, [10])
    mine = bench.worker("a")
    mine.take(1, 1)
    other = Claims(bench.plan.path, "b" * 16)
    assert other.take_over(other.tokens(HELD)[0])
    clock[0] += 1
    with pytest.raises(FencedError, match="taken over"):
        mine.share(1.0)
    assert bench.names(OPEN) == []


def test_who_lost_one_chunk_still_finishes_the_others(at: Path, clock: list[float]) -> None:
    """Nothing stays in the hands of a worker that has left."""
    bench = Bench(at, [1, 1, 8])
    mine, other = bench.worker("a"), Claims(bench.plan.path, "b" * 16)
    for _ in range(2):
        work = mine.take(1, 1)
        assert work is not None
        mine.give_back(*work)
    assert other.take_over(other.tokens(HELD)[0])
    mine.hand_back()
    assert bench.names(DONE) == ["1-1"]
    assert [token.worker for token in other.tokens(HELD)] == ["b" * 16]


def test_a_full_disk_leaves_all_with_the_worker(at: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """It does the work itself then."""
    bench = Bench(at, [10])
    mine = bench.worker("a")
    work = mine.take(1, 1)
    assert work is not None
    clock[0] += 1
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        mine.share(1.0)
    assert bench.names(HELD) == ["0-9"]
    mine.give_back(*work)
    while (work := mine.take(3, 1)) is not None:
        mine.give_back(*work)
    mine.finish()
    assert bench.names(DONE) == ["0-9"]


def test_who_finds_nothing_stays_for_a_moment_only_if_others_may_share(at: Path, clock: list[float]) -> None:
    """Two seconds; not where they hold single items, and not with the fixed backend."""
    bench = Bench(at, [10])
    mine, other = bench.worker("a"), bench.worker("b")
    assert not other.expects()
    mine.take(1, 1)
    assert other.expects()
    clock[0] += 2.1
    assert not other.expects()
    single = Bench(at / "single", [1, 9])
    mine, other = single.worker("a"), single.worker("b")
    mine.take(1, 1)
    Claims(single.plan.path, "c" * 16).claim(Token(1, 9))
    assert other.expects()
    Claims(single.plan.path, "c" * 16).finish(Token(1, 9, 0, "c" * 16))
    assert not other.expects()
    fixed = Bench(at / "fixed", [10], balances=False)
    mine, other = fixed.worker("a"), fixed.worker("b")
    mine.take(1, 1)
    assert not other.expects()


def test_positions_that_are_worked_on_twice_count_once() -> None:
    """A worker that was killed while it shared left some to two others."""
    chunk = _Chunk(Token(0, 9), 10)
    for first, last, left in [(4, 9, 4), (6, 9, 4), (4, 9, 4), (0, 1, 2), (1, 2, 1), (2, 2, 1), (0, 9, 0)]:
        chunk.cover(first, last)
        assert chunk.left == left
    chunk = _Chunk(Token(5, 9), 5)
    for first, last, left in [(8, 9, 3), (5, 6, 1), (7, 7, 0)]:
        chunk.cover(first, last)
        assert chunk.left == left


# With real processes


def test_a_second_command_gets_half_of_the_only_chunk(project: Project) -> None:
    """Both work, and each item is started once."""
    project.task("t", ONE_CHUNK, n=16, seconds=0.3)
    first = project.start("t", "-n", "1")
    until(lambda: len(project.starts()) >= 1)
    project.run("t", "-n", "1")
    assert first.wait(timeout=60) == 0
    assert sorted(project.starts()) == list(range(16))
    shares = Counter(project.result("t")["pid"].tolist())
    assert len(shares) == 2
    assert min(shares.values()) >= 3


def test_short_items_do_not_wait_for_a_long_one(project: Project) -> None:
    """Those that stand behind it in its chunk are done by others before it ends."""
    project.task("t", ONE_CHUNK, n=30, seconds="6 if x == 2 else 0.01")
    first = project.start("t", "-n", "1")
    until(lambda: 2 in project.starts())
    project.run("t", "-n", "1")
    assert first.wait(timeout=60) == 0
    result = project.result("t")
    after = np.count_nonzero(result["ended"] > result["ended"][2] - 3)
    assert after <= 5  # it, and what its process was given with it: 50 ms
    assert sorted(project.starts()) == list(range(30))


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(4))
def test_killing_those_who_share_loses_nothing(project: Project, seed: int) -> None:
    """Three commands on one chunk; the items in flight are the price, and no other."""
    n = 40
    project.task("t", ONE_CHUNK, n=n, seconds=0.1)
    moments = random.Random(seed)
    commands = [project.start("t", "-n", "1") for _ in range(3)]
    kills = 0
    until(lambda: len(project.starts()) >= 1)
    for _ in range(5):
        time.sleep(moments.uniform(0.1, 0.5))
        command = moments.choice(commands)
        workers = descendants(command.pid)[1:] if command.poll() is None else []
        if workers:
            with suppress(ProcessLookupError):
                os.kill(moments.choice(workers), signal.SIGKILL)
                kills += 1
    for command in commands:
        command.wait(timeout=100)
    project.run("t")
    result = project.result("t", keys=True)
    assert np.array_equal(result["y"], result["x"] ** 2)
    assert len(np.unique(result["__psyrun_key"], axis=0)) == n
    starts = Counter(project.starts())
    assert set(starts) == set(range(n))
    assert sum(starts.values()) <= n + kills


@pytest.mark.kill
def test_who_was_killed_while_it_shared_leaves_nothing_behind(project: Project) -> None:
    """What it had opened already is in its own token, too: one row of each counts."""
    n = 16
    project.task("t", ONE_CHUNK, n=n, seconds=0.05)
    command = project.start("t", "-n", "1")
    until(lambda: len(project.starts()) >= 2)
    for pid in [command.pid, *descendants(command.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    command.wait()
    plan = project.path / "psy-work/t/plan/0001"
    (held,) = Claims(plan).tokens(HELD)
    (plan / OPEN / Token(held.last - 3, held.last).name).touch()
    words = [sys.executable, "-m", "psyrun.worker", str(project.path / "psy-work/t"), "0001"]
    workers = [
        subprocess.Popen(words, cwd=project.path, env=project.environment(), stderr=subprocess.PIPE) for _ in range(2)
    ]
    assert [worker.communicate(timeout=60)[1] for worker in workers] == [b"", b""]
    claims = Claims(plan)
    assert not claims.tokens(OPEN)
    assert not claims.tokens(HELD)
    project.run("t")
    result = project.result("t", keys=True)
    assert result["x"].tolist() == list(range(n))
    assert len(np.unique(result["__psyrun_key"], axis=0)) == n
    assert len(project.starts()) <= n + 1 + 4
