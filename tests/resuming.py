"""A task that is edited, run, killed and damaged in any order, and a model of what must be on record."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from project import Project, descendants
from psyrun.errors import TemporaryError
from psyrun.keys import assignment_key
from psyrun.plan import Plan
from psyrun.record import read_parts
from psyrun.run import Choices, Run
from psyrun.tasks import load_task
from psyrun.workdir import Workdir

TASK = """
import os, time
from psyrun import Param, Multiprocessing
pspace = Param(x={xs})
scheduler = Multiprocessing(2)
max_jobs = 3
early_stop = False
V = {version}

def execute(x):
    fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{{x}}\\n".encode())
    os.close(fd)
    time.sleep(0.004)
    if str(x) in open("bad").read().split():
        raise ValueError("bad")
    return {{"y": 10 * x + V}}
"""

Item = tuple[int, int]
"""A value and how many equal ones stand before it."""

SPACES = st.lists(st.integers(0, 7), min_size=1, max_size=12)
DELAYS = st.floats(0.0, 0.6)


def items_of(xs: list[int]) -> list[Item]:
    """Return the items of a space, in its order."""
    seen: Counter[int] = Counter()
    found = []
    for x in xs:
        found.append((x, seen[x]))
        seen[x] += 1
    return found


_KEYS = {tuple(assignment_key({"x": x}, n).tolist()): (x, n) for x in range(8) for n in range(12)}


class Resume(RuleBasedStateMachine):
    """Edits of space and code, failures, runs, kills, torn tails, lost results, two commands, workers that wake up."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.project = Project(self.folder)
        self.workdir = Workdir(self.folder / "psy-work/t")
        self.bad: set[int] = set()
        self.version = 0
        # What is on record: by item and version of the code, the value. And the versions whose rows count.
        self.rows: dict[tuple[Item, int], int] = {}
        self.accepted: set[int] = {0}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    # The model

    def done(self, versions: set[int] | None = None) -> set[Item]:
        """Return the items of the space with rows that count."""
        counted = self.accepted if versions is None else versions
        there = {item for item, version in self.rows if version in counted}
        return there & set(items_of(self.xs))

    def conflicts(self) -> bool:
        return self.version not in self.accepted and bool(self.done())

    def starts(self) -> Counter[int]:
        return Counter(self.project.starts())

    def on_record(self) -> dict[tuple[Item, int], int]:
        """Return what the parts hold, by the keys and values of their rows; a row twice must be the same row."""
        found: dict[tuple[Item, int], int] = {}
        for part in read_parts(self.workdir):
            for batch in part.batches:
                columns = batch.rows["key"].tolist(), batch.column("x"), batch.column("y")
                for key, x, y in zip(*columns, strict=True):  # type: ignore[arg-type]
                    item = _KEYS[tuple(key)]
                    assert item[0] == x, "a row under the key of another item"
                    assert found.setdefault((item, int(y) - 10 * int(x)), int(y)) == y
        return found

    def reconcile(self, lost_ok: bool = False) -> None:
        """Take over what is on record after a run was killed: more than before, never less."""
        found = self.on_record()
        assert lost_ok or found.keys() >= self.rows.keys(), "a finished row is lost"
        self.rows = found
        ids = self.workdir.plan_ids()
        if ids:
            with suppress(TemporaryError):  # it was damaged before, and the command died before it made another
                self.accepted = {self.version_of[code] for code in Plan.read(self.workdir.plans / ids[-1]).accepts}

    # Edits

    @initialize(xs=SPACES)
    def begin(self, xs: list[int]) -> None:
        self.version_of: dict[str, int] = {}
        (self.folder / "bad").touch()
        self.xs = xs
        self.write()

    def write(self) -> None:
        """Write the task file, and learn the digest of its code."""
        self.project.task("t", TASK, xs=self.xs, version=self.version)
        with chdir(self.folder):
            self.version_of[load_task("t", Path("psy-tasks")).code] = self.version

    @rule(xs=SPACES)
    def edit_space(self, xs: list[int]) -> None:
        self.xs = xs
        self.write()

    @rule(more=SPACES)
    def grow_space(self, more: list[int]) -> None:
        self.xs = [*self.xs, *more][:12]
        self.write()

    @rule(version=st.integers(0, 2))
    def edit_code(self, version: int) -> None:
        self.version = version
        self.write()

    @rule(bad=st.sets(st.integers(0, 7), max_size=2))
    def fail(self, bad: set[int]) -> None:
        self.bad = bad
        (self.folder / "bad").write_text(" ".join(map(str, sorted(bad))))

    # Runs

    def decide(self, flag: str) -> bool:
        """Say in the model what a run with a flag does about the code; return whether it is refused."""
        if self.version in self.accepted:
            return False
        if not self.done():
            self.accepted = {self.version}
        elif flag == "--keep":
            self.accepted |= {self.version}
        elif flag == "--fresh":
            self.rows = {key: y for key, y in self.rows.items() if key[1] == self.version}
            self.accepted = {self.version}
        else:
            return True
        return False

    @rule(flag=st.sampled_from(["", "", "--keep", "--fresh"]), commands=st.sampled_from([1, 1, 2]))
    def run(self, flag: str, commands: int) -> None:
        """A plain run, or two at once: computes just what is missing."""
        refused = self.decide(flag)
        items = items_of(self.xs)
        todo = Counter(x for x, n in items if (x, n) not in self.done())
        before = self.starts()
        words = ["t", *([flag] if flag else [])]
        others = [self.project.start(*words) for _ in range(commands - 1)]
        status = self.project.run(*words, status=None)
        ends = [status.returncode, *(other.wait(timeout=60) for other in others)]
        failing = {item for item in items if item[0] in self.bad and item not in self.done()}
        expected = 4 if refused else 1 if failing else 0
        assert set(ends) == {expected}, (ends, expected, status.stderr)
        if refused:
            assert self.starts() == before
            return
        if commands == 1 or not failing:  # of two commands the later one tries again what failed
            assert self.starts() - before == todo, "not just what is missing was computed"
        self.rows |= self.on_record() if failing or todo else {}
        assert self.done() == set(items) - failing
        self.check_result()

    def check_result(self) -> None:
        """The result holds the rows that are done, in the order of the space, each as it was computed."""
        data = self.project.result("t", keys=True)
        items = [item for item in items_of(self.xs) if item in self.done()]
        assert [_KEYS[tuple(key)] for key in data["__psyrun_key"].tolist()] == items
        for item, x, y in zip(items, data["x"].tolist(), data["y"].tolist() if items else [], strict=True):
            assert x == item[0]
            assert y in {self.rows.get((item, version)) for version in self.accepted}

    @rule(delay=DELAYS, everything=st.booleans())
    def run_and_kill(self, delay: float, everything: bool) -> None:
        """kill -9 of the command, or of all processes, at some moment; no row that was there is computed again."""
        done, before = self.done() if not self.conflicts() else set(items_of(self.xs)), self.starts()
        command = self.project.start("t")
        time.sleep(delay)
        family = [command.pid, *descendants(command.pid)]
        for pid in family if everything else family[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command.wait()
        self.wait_until_gone(family)
        again = self.starts() - before
        allowed = Counter(x for x, n in items_of(self.xs) if (x, n) not in done)
        assert not again - allowed, "a row on record was computed again"
        if self.workdir.exists():
            self.reconcile()

    @rule(delay=st.floats(0.3, 0.6))
    def sleep_and_wake_up(self, delay: float) -> None:
        """All processes of a command stop for longer than the time to live, another command goes on, they wake up."""
        if self.conflicts():
            return
        command = self.project.start("t", PSYRUN_TTL="0.5")
        time.sleep(delay)
        family = [command.pid, *descendants(command.pid)]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self.project.run("t", status=None, PSYRUN_TTL="0.5")
        for pid in reversed(family):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        command.wait(timeout=60)
        self.wait_until_gone(family)
        self.reconcile()

    def wait_until_gone(self, pids: list[int]) -> None:
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}/stat").exists() and ") Z" not in _stat(pid) for pid in pids):
            assert time.monotonic() < deadline, "a process goes on"
            time.sleep(0.01)

    # Damage

    @rule(which=st.integers(0, 100), size=st.integers(1, 400))
    def tear_a_tail(self, which: int, size: int) -> None:
        """The end of a part is gone, with rows in it; the others count on."""
        paths = list(self.workdir.part_paths())
        if not paths:
            return
        path = paths[which % len(paths)]
        os.truncate(path, max(0, path.stat().st_size - size))
        self.rows = self.on_record()

    @rule(what=st.sampled_from(["result.npz", "manifest.json"]), how=st.sampled_from(["remove", "flip"]))
    def damage(self, what: str, how: str) -> None:
        """Neither is needed: the record has all."""
        path = self.workdir.path / what
        if not path.exists():
            return
        if how == "remove":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)

    @rule()
    def damage_the_plan(self) -> None:
        """Another one takes its place; the last merge, or the code that is there, tells whose rows count."""
        ids = self.workdir.plan_ids()
        if not ids:
            return
        path = self.workdir.plans / ids[-1] / "plan.json"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        manifest = self.workdir.read_manifest()
        versions = {version for _, version in self.rows}
        if manifest:
            self.accepted = {self.version_of[code] for code in manifest["accepts"]}
        else:
            self.accepted = {self.version} if self.version in versions else versions

    # What is said

    @rule()
    def ask(self) -> None:
        """Status agrees with the model; nothing is changed by asking."""
        before = {path: path.stat().st_mtime_ns for path in self.workdir.path.rglob("*")}
        status = self.project.status("t")
        assert {path: path.stat().st_mtime_ns for path in self.workdir.path.rglob("*")} == before
        done = self.done() or self.done({self.version})
        assert status["n_done"] == len(done)
        assert status["other_code"] == self.conflicts()
        assert status["complete"] == (len(done) == len(self.xs))

    @invariant()
    def plan_is_right(self) -> None:
        """At every step."""
        if not hasattr(self, "xs"):
            return
        with chdir(self.folder):
            told = Run(load_task("t", Path("psy-tasks")), Choices(code="keep")).forecast().report()
        done = self.done() or self.done({self.version})
        assert told["n_done"] == len(done)
        assert told["asks_about_code"] == self.conflicts()
        assert told["n_done"] + told["n_failed"] + told["n_missing"] + told["n_running"] == len(self.xs)
        assert told["would_run"]["items"] == len(self.xs) - len(done)


@contextmanager
def chdir(path: Path) -> Iterator[None]:
    """Have another current directory for a while."""
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _stat(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text()
    return ") Z"
