"""Claims: of all who want a chunk exactly one gets it, and who lost it is told."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun import claims
from psyrun.claims import DONE, HELD, OPEN, WITHDRAWN, Beat, Claims, Observer, Process, Token, new_worker_id
from psyrun.errors import FencedError

A, B = "a" * 16, "b" * 16

RANGES = st.tuples(st.integers(0, 10**12), st.integers(0, 10**6)).map(lambda r: (r[0], r[0] + r[1]))
WORKERS = st.just("") | st.text("0123456789abcdef", min_size=16, max_size=16)
TOKENS = st.builds(lambda r, epoch, worker: Token(r[0], r[1], epoch, worker), RANGES, st.integers(0, 10**6), WORKERS)
STEPS = st.sampled_from(["claim", "finish", "back", "take", "share", "withdraw"])


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan with three open tokens."""
    Claims(tmp_path).create([Token(0, 4), Token(5, 9), Token(10, 10)])
    return tmp_path


def names(plan: Path) -> dict[str, list[str]]:
    """Return the names of all tokens, by state."""
    states = (OPEN, HELD, DONE, WITHDRAWN)
    return {state: sorted(os.listdir(plan / state)) for state in states if (plan / state).is_dir()}


# Names


@given(TOKENS)
def test_a_token_is_what_its_name_says(token: Token) -> None:
    """The file is empty; the name is all there is."""
    assert Token.parse(token.name) == token


@given(st.text(max_size=30) | st.from_regex(r"\A0?\d-0?\d\.\d(\.[0-9a-f]{15,17})?\Z"))
def test_every_token_has_one_name_only(name: str) -> None:
    """Whatever else lies in the directory is no token."""
    token = Token.parse(name)
    assert token is None or (token.name == name and token.first <= token.last)


@pytest.mark.parametrize(
    "name",
    [
        ".nfs000000000123456700000001",
        "0-4",
        "0-4.0.",
        "00-4.0",
        "0-4.0~",
        "5-4.0",
        "٣-٤.0",
        f"0-4.0.{A.upper()}",
        "0-4.0\n",
    ],
)
def test_foreign_files_are_overlooked(plan: Path, name: str) -> None:
    """NFS leaves such behind, and so do users."""
    (plan / OPEN / name).touch()
    assert [t.name for t in Claims(plan).tokens(OPEN)] == ["0-4.0", "5-9.0", "10-10.0"]


def test_a_token_counts_its_positions() -> None:
    """Both ends belong to it."""
    assert (len(Token(0, 4)), len(Token(10, 10))) == (5, 1)


def test_a_plan_without_tokens_has_none(tmp_path: Path) -> None:
    """Not even directories are needed to look."""
    assert Claims(tmp_path).tokens(OPEN) == []


def test_tokens_are_for_their_owner_only(plan: Path) -> None:
    """In directories that nobody else can enter."""
    assert {oct((plan / state).stat().st_mode & 0o777) for state in (OPEN, HELD, DONE)} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in (plan / OPEN).iterdir()} == {"0o600"}


# Claiming


def test_of_two_claims_one_wins(plan: Path) -> None:
    """The other goes on to the next token."""
    token = Claims(plan).tokens(OPEN)[0]
    assert Claims(plan, A).claim(token) == Token(0, 4, 0, A)
    assert Claims(plan, B).claim(token) is None
    assert names(plan)[HELD] == [f"0-4.0.{A}"]


def contend(plan: Path, start: Any, results: Any) -> None:
    """Claim and finish whatever can be had."""
    worker = new_worker_id()
    mine = Claims(plan, worker)
    start.wait()
    while open_ := mine.tokens(OPEN):
        for token in open_:
            held = mine.claim(token)
            if held is not None:
                mine.finish(held)
                results.put(held.first)
    results.put(None)


def test_of_many_processes_each_token_goes_to_exactly_one(tmp_path: Path) -> None:
    """None is lost and none is had twice."""
    n_tokens, n_processes = 200, 8
    Claims(tmp_path).create([Token(i, i) for i in range(n_tokens)])
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=contend, args=(tmp_path, start, results)) for _ in range(n_processes)]
    for process in processes:
        process.start()
    start.set()
    got: list[int] = []
    for _ in processes:
        got += iter(lambda: results.get(timeout=30), None)
    for process in processes:
        process.join()
    assert Counter(got) == Counter(range(n_tokens))
    assert {t.first for t in Claims(tmp_path).tokens(DONE)} == set(range(n_tokens))


class LosesReplies:
    """Renames that happen, and are reported as failed, as NFS does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        rename = os.rename

        def lossy(source: str, target: str) -> None:
            rename(source, target)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "rename", lossy)


def test_a_rename_whose_reply_was_lost_counts(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claiming, taking over, handing back and finishing."""
    LosesReplies(monkeypatch)
    mine, other = Claims(plan, A), Claims(plan, B)
    first, second, third = mine.tokens(OPEN)
    held = mine.claim(first)
    assert held == Token(0, 4, 0, A)
    mine.finish(held)
    assert names(plan)[DONE] == [f"0-4.0.{A}"]
    held = mine.claim(second)
    assert held is not None
    mine.hand_back(held)
    assert "5-9.1" in names(plan)[OPEN]
    held = mine.claim(third)
    assert held is not None
    assert other.take_over(held) == Token(10, 10, 1, B)


def fail_renames(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have all renames fail, and none happen."""

    def failing(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", failing)


def test_a_rename_whose_source_is_gone_does_not_count(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another was faster: there is no file under our name."""
    mine = Claims(plan, A)
    held = mine.claim(mine.tokens(OPEN)[0])
    assert held is not None
    fail_renames(monkeypatch, errno.ENOENT)
    assert mine.claim(mine.tokens(OPEN)[0]) is None
    assert Claims(plan, B).take_over(held) is None
    with pytest.raises(FencedError):
        mine.finish(held)


def test_a_rename_that_the_system_refused_is_no_takeover(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is where it was: the error is told as it is, and nobody is said to be fenced."""
    mine = Claims(plan, A)
    held = mine.claim(mine.tokens(OPEN)[0])
    assert held is not None

    def failing(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        mine.claim(mine.tokens(OPEN)[0])
    with pytest.raises(OSError, match="No space"):
        Claims(plan, B).take_over(held)
    with pytest.raises(OSError, match="No space"):
        mine.finish(held)


def test_an_error_about_a_token_that_another_took_fences(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may say that the file is stale instead of gone."""
    mine = Claims(plan, A)
    held = mine.claim(mine.tokens(OPEN)[0])
    assert held is not None
    Claims(plan, B).take_over(held)

    def stale(source: str, target: str) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "rename", stale)
    assert mine.claim(Token(0, 4)) is None
    with pytest.raises(FencedError):
        mine.finish(held)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_rename_that_the_disk_refuses_is_an_error(plan: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """It does not look as if there was nothing to claim, or somebody had taken it."""
    mine = Claims(plan, A)
    held = mine.claim(mine.tokens(OPEN)[0])
    assert held is not None
    fail_renames(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        mine.claim(mine.tokens(OPEN)[0])
    with pytest.raises(OSError, match=os.strerror(number)):
        mine.take_over(held)
    with pytest.raises(OSError, match=os.strerror(number)):
        mine.finish(held)


# Losing and giving back


def test_who_was_taken_over_cannot_finish(plan: Path) -> None:
    """Its rename fails, and it stops; the new owner finishes."""
    mine, other = Claims(plan, A), Claims(plan, B)
    held = mine.claim(mine.tokens(OPEN)[0])
    assert held is not None
    theirs = other.take_over(held)
    assert theirs == Token(0, 4, 1, B)
    with pytest.raises(FencedError, match="0-4"):
        mine.finish(held)
    other.finish(theirs)
    assert names(plan)[DONE] == [f"0-4.1.{B}"]
    assert names(plan)[HELD] == []


def test_of_two_takeovers_one_wins(plan: Path) -> None:
    """Nor can it be taken over again under its old name."""
    held = Claims(plan, A).claim(Token(0, 4))
    assert held is not None
    assert Claims(plan, B).take_over(held) == Token(0, 4, 1, B)
    assert Claims(plan, "c" * 16).take_over(held) is None


def test_finishing_twice_is_finishing_once(plan: Path) -> None:
    """A worker that repeats itself after an error is not fenced."""
    mine = Claims(plan, A)
    held = mine.claim(Token(0, 4))
    assert held is not None
    mine.finish(held)
    mine.finish(held)


def test_handing_back_raises_the_epoch(plan: Path) -> None:
    """So that the next owner looks up what of it is done."""
    mine = Claims(plan, A)
    held = mine.claim(Token(0, 4))
    assert held is not None
    mine.hand_back(held)
    assert names(plan) == {OPEN: ["0-4.1", "10-10.0", "5-9.0"], HELD: [], DONE: []}
    again = mine.claim(Token(0, 4, 1))
    assert again == Token(0, 4, 1, A)
    mine.hand_back(held)  # an old claim: nothing of ours any more
    assert names(plan)[HELD] == [f"0-4.1.{A}"]


def test_sharing_opens_the_end_of_a_token(plan: Path) -> None:
    """Of the same epoch: nobody began those positions."""
    mine, other = Claims(plan, "a" * 16), Claims(plan, "b" * 16)
    token = mine.claim(mine.tokens(OPEN)[0])
    assert token is not None
    kept = mine.share(token, token.last)
    assert (kept.first, kept.last, kept.epoch) == (token.first, token.last - 1, 0)
    assert kept in other.tokens(HELD)
    rest = Token(token.last, token.last)
    assert rest in other.tokens(OPEN)
    assert other.claim(rest) is not None
    mine.finish(kept)


def test_who_was_taken_over_cannot_share(plan: Path) -> None:
    """And leaves nothing open that the new owner has."""
    mine, other = Claims(plan, "a" * 16), Claims(plan, "b" * 16)
    token = mine.claim(mine.tokens(OPEN)[0])
    assert token is not None
    left = mine.tokens(OPEN)
    assert other.take_over(token) is not None
    with pytest.raises(FencedError, match="taken over"):
        mine.share(token, token.last)
    assert mine.tokens(OPEN) == left


def test_what_the_disk_refuses_to_share_is_open_to_nobody(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or two would compute it: all of it is still held."""
    mine = Claims(plan, "a" * 16)
    token = mine.claim(mine.tokens(OPEN)[0])
    assert token is not None
    left = mine.tokens(OPEN)
    fail_renames(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        mine.share(token, token.last)
    assert mine.tokens(OPEN) == left
    assert mine.tokens(HELD) == [token]


def test_what_cannot_be_opened_is_kept(plan: Path) -> None:
    """Such as where a newer plan took the open tokens away."""
    mine = Claims(plan, "a" * 16)
    token = mine.claim(mine.tokens(OPEN)[0])
    assert token is not None
    mine.withdraw()
    with pytest.raises(FileNotFoundError):
        mine.share(token, token.last)
    assert mine.tokens(HELD) == [token]


def test_withdrawing_takes_all_open_tokens_away(plan: Path) -> None:
    """What is held goes on, and handing back opens nothing."""
    mine = Claims(plan, A)
    listed = mine.tokens(OPEN)
    held = mine.claim(listed[0])
    finished = mine.claim(listed[1])
    assert held is not None
    assert finished is not None
    mine.withdraw()
    assert mine.tokens(OPEN) == []
    assert mine.claim(listed[2]) is None
    mine.hand_back(held)
    mine.finish(finished)
    assert mine.tokens(OPEN) == []
    assert names(plan) == {WITHDRAWN: ["0-4.1", "10-10.0"], HELD: [], DONE: [f"5-9.0.{A}"]}
    mine.withdraw()
    assert names(plan)[WITHDRAWN] == ["0-4.1", "10-10.0"]


def test_handing_back_while_the_plan_is_withdrawn_leaves_nothing_held(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever comes first."""
    mine = Claims(plan, A)
    held = mine.claim(Token(0, 4))
    assert held is not None
    rename = os.rename
    withdrawing: list[Callable[[], None]] = [Claims(plan).withdraw]

    def late(source: str, target: str) -> None:
        if withdrawing:
            withdrawing.pop()()
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    mine.hand_back(held)
    assert names(plan) == {WITHDRAWN: ["0-4.1", "10-10.0", "5-9.0"], HELD: [], DONE: []}


# Life and death


def child(text: str = "import time; time.sleep(60)") -> subprocess.Popen[bytes]:
    """Start another process."""
    return subprocess.Popen([sys.executable, "-c", text])


def process_of(pid: int) -> Process:
    """Return what tells a process of this machine."""
    return replace(Process.current(), pid=pid, started=claims.start_time(pid))


def beating(directory: Path, process: Process, count: int = 1, worker: str = A) -> None:
    """Write a heartbeat."""
    (directory / worker).write_text(json.dumps({"worker": worker, **vars(process), "count": count}))


def test_this_process_is_alive(tmp_path: Path) -> None:
    """A worker that beats is not dead."""
    beat = Beat(tmp_path, A, interval=0.0)
    beat.beat()
    assert not Observer(tmp_path, ttl=100).dead(A)
    assert not Process.current().gone()


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems do not tell when a process started")
def test_a_killed_process_is_dead_at_once(tmp_path: Path) -> None:
    """As a zombie, and when it is reaped; no time to live needs to pass."""
    process = child()
    beating(tmp_path, process_of(process.pid))
    observer = Observer(tmp_path, ttl=1000)
    assert not observer.dead(A)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").exists()
    assert observer.dead(A)
    process.wait()
    assert observer.dead(A)


@pytest.mark.parametrize("change", [{"started": "1"}, {"boot": "another"}])
def test_another_process_of_the_same_number_is_not_the_worker(tmp_path: Path, change: dict[str, str]) -> None:
    """Numbers of processes are used again, after a restart of the machine too."""
    beating(tmp_path, replace(Process.current(), **change))  # type: ignore[arg-type]
    assert Observer(tmp_path, ttl=1000).dead(A)


@pytest.mark.parametrize("change", [{"host": "elsewhere", "boot": "another"}, {"namespace": "pid:[1]"}])
class TestOutOfSight:
    """Workers of other machines, and of other containers on this one."""

    @pytest.fixture
    def process(self, change: dict[str, str]) -> Process:
        """A process that has ended, as far as this machine could tell."""
        return replace(Process.current(), pid=2**22 + 1, **change)

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """The observer's clock."""
        now = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        return now

    def test_silence_for_the_time_to_live_is_death(self, tmp_path: Path, process: Process, clock: list[float]) -> None:
        """Counted from the first look, not from what the file says."""
        beating(tmp_path, process)
        os.utime(tmp_path / A, (1, 1))
        observer = Observer(tmp_path, ttl=180)
        assert not observer.dead(A)
        clock[0] += 180
        assert not observer.dead(A)
        clock[0] += 1
        assert observer.dead(A)
        assert observer.silent() == {A: 1}

    def test_a_count_that_changes_is_life(self, tmp_path: Path, process: Process, clock: list[float]) -> None:
        """Whatever its clock says, and whether it goes up or down."""
        observer = Observer(tmp_path, ttl=180)
        for count in (5, 6, 2, 3):
            beating(tmp_path, process, count)
            os.utime(tmp_path / A, (10**9 * count, 10**9 * count))
            assert not observer.dead(A)
            clock[0] += 170
        assert not observer.dead(A)
        clock[0] += 11
        assert observer.dead(A)

    def test_a_dead_worker_that_beats_again_is_alive(
        self, tmp_path: Path, process: Process, clock: list[float]
    ) -> None:
        """It was stopped for a while; whether its claims are still its own is another matter."""
        observer = Observer(tmp_path, ttl=180)
        beating(tmp_path, process)
        observer.dead(A)
        clock[0] += 200
        assert observer.dead(A)
        beating(tmp_path, process, 2)
        assert not observer.dead(A)

    def test_what_one_observer_knows_another_need_not_wait_for(
        self, tmp_path: Path, process: Process, clock: list[float]
    ) -> None:
        """Unless the worker beat in the meantime."""
        beating(tmp_path, process, 7)
        assert Observer(tmp_path, ttl=180, silent={A: 7}).dead(A)
        assert not Observer(tmp_path, ttl=180, silent={A: 6}).dead(A)


def test_a_worker_without_a_heartbeat_is_dead_after_the_time_to_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may be late on a network file system; a file that cannot be read is none."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    (tmp_path / B).write_text("{")
    observer = Observer(tmp_path, ttl=10)
    assert [observer.dead(A), observer.dead(B)] == [False, False]
    now[0] += 11
    assert [observer.dead(A), observer.dead(B)] == [True, True]


def test_a_heart_beats_when_it_is_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At first at once, and soon again; the file counts up and is removed at the end."""
    now = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    beat = Beat(tmp_path, A, interval=15)
    observer = Observer(tmp_path, ttl=1)
    counts = []
    for _ in range(5):
        beat.beat()
        counts.append(observer.read(A)["count"])
        now[0] += 10
    assert counts == [1, 2, 3, 3, 4]
    assert beat.due() == 5
    assert os.listdir(tmp_path) == [A]
    beat.stop()
    beat.stop()
    assert observer.read(A) == {}


def test_a_heartbeat_is_read_whole(tmp_path: Path) -> None:
    """While it is rewritten all the time."""
    beat = Beat(tmp_path, A, interval=0)
    beat.beat()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            beat.beat()

    thread = threading.Thread(target=work)
    thread.start()
    observer = Observer(tmp_path, ttl=1)
    counts = [observer.read(A)["count"] for _ in range(300)]
    stop.set()
    thread.join()
    assert counts == sorted(counts)


def test_worker_ids_are_not_repeated() -> None:
    """They are random, and fit into the name of a token."""
    ids = {new_worker_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(Token.parse(Token(0, 0, 0, worker).name) == Token(0, 0, 0, worker) for worker in ids)


# A law over all that workers can do


@given(st.lists(st.tuples(STEPS, st.integers(0, 2)), max_size=40))
def test_no_position_is_ever_lost_or_held_twice(steps: list[tuple[str, int]]) -> None:
    """Whatever workers do, in whatever order."""
    with tempfile.TemporaryDirectory() as path:
        plan = Path(path)
        Claims(plan).create([Token(0, 4), Token(5, 9)])
        workers = [Claims(plan, str(i) * 16) for i in range(3)]
        mine: list[list[Token]] = [[], [], []]
        for step, i in steps:
            worker = workers[i]
            if step == "withdraw":
                worker.withdraw()
            elif step == "claim":
                mine[i] += [t for token in worker.tokens(OPEN)[:1] if (t := worker.claim(token))]
            elif step == "take":
                mine[i] += [t for token in worker.tokens(HELD)[:1] if (t := worker.take_over(token))]
            elif mine[i]:
                token = mine[i].pop(0)
                holds = token in worker.tokens(HELD)
                if step == "share":
                    if holds and len(token) > 1 and (plan / OPEN).is_dir():
                        mine[i].append(worker.share(token, token.last))
                elif step == "back":
                    worker.hand_back(token)
                elif holds:
                    worker.finish(token)
                else:
                    with pytest.raises(FencedError):
                        worker.finish(token)
            found = [t for state in (OPEN, HELD, DONE, WITHDRAWN) for t in worker.tokens(state)]
            assert sorted(position for t in found for position in range(t.first, t.last + 1)) == list(range(10))
