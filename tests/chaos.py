"""Workers of one plan that are killed, stopped and woken up at random moments."""

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

from invariants import assert_complete, assert_told_truly, stand
from project import Project
from psyrun.claims import HELD, OPEN, Claims
from psyrun.record import read_parts
from psyrun.workdir import Workdir

N_WORKERS = 8
CHILDREN = 2
CHUNK = 4
TTL = 1.0

UNEVEN_TASK = """
    import os, time
    from psyrun import Param

    pspace = Param(x=range({n}))
    max_jobs = {chunks}
    {backend}

    def execute(x):
        fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, f"{{x}}\\n".encode())
        os.close(fd)
        time.sleep(0.005 + 0.025 * (x * 37 % 100) / 100)
        return {{"y": x * x}}
"""


SHARED_CHUNKS = """
import psyrun
class TwoChunks(psyrun.LoadBalancingBackend):
    def sizes(self, n_items, max_jobs, min_items):
        return [n_items // 2, n_items - n_items // 2]
backend = TwoChunks()
"""
"""Of which all workers but two live by what those share."""


class Storm:
    """One round.

    Parameters
    ----------
    project : Project
        An empty one.
    seed : int
    n : int
        Items.
    most : int
        Kills after which it is over; earlier if the plan is done.
    naps : bool
        Whether processes are stopped, too, for longer than the time to live.
    shares : bool
        Whether there are but two chunks, which the workers share.

    Attributes
    ----------
    events : list of str
        What happened.
    kills, stops : int
    """

    def __init__(self, project: Project, seed: int, n: int, most: int, naps: bool = True, shares: bool = False):
        self._project = project
        self._backend = SHARED_CHUNKS.strip() if shares else ""
        self._dice = random.Random(seed)
        self._n, self._most, self._naps = n, most, naps
        # Without naps nobody is to be taken for dead who is only slow; who was killed on this machine is known to be.
        self._settings = {"PSYRUN_BEAT": "0.1", "PSYRUN_TTL": str(TTL if naps else 60)}
        self._began = time.monotonic()
        self._workers: list[subprocess.Popen[bytes]] = []
        self._asleep: list[tuple[float, int]] = []
        self._plan = project.path / "psy-work/t/plan/0001"
        self.events = [f"seed {seed}"]
        self.kills = self.stops = 0

    def rage(self) -> None:
        """Let workers run until the plan is done, or as many were killed as wanted."""
        self._make_plan()
        try:
            while self.kills < self._most and self._unfinished():
                self._replace()
                self._strike()
                self._wake(time.monotonic())
                time.sleep(self._dice.uniform(0.01, 0.15))
            self._wake()
            if self._dice.random() < 0.5:
                for worker in self._workers:
                    self._kill(worker.pid, "a supervisor at the end")
            self._note("psy-doit")
            self._project.run("t", status=0, **self._settings)
        finally:
            self._end()

    def check(self) -> None:
        """Everything is there once, little was computed twice, and the status is true."""
        assert_complete(self._project, self._n)
        now = stand(self._project)
        assert_told_truly(self._project, now, self._n)
        assert self._project.steps("t") == ["-- t:split", "-- t:merge"]
        # Who falls silent may have dealt a chunk to each child, and another takes it over.
        spare = self.kills * CHILDREN + self.stops * CHILDREN * CHUNK
        assert now.starts.total() <= self._n + spare, f"{now.starts.total()} starts"
        assert self._naps or not self._computed_twice(), "on record, and computed again"
        told = (self._project.path / "told").read_text()
        assert "Traceback" not in told, told

    def _computed_twice(self) -> list[int]:
        parts = read_parts(Workdir(self._project.path / "psy-work/t"))
        rows = Counter(int(index) for part in parts for index in part.indices)
        return [item for item, count in rows.items() if count > 1]

    def _make_plan(self) -> None:
        self._project.task("t", UNEVEN_TASK, n=self._n, chunks=-(-self._n // CHUNK), backend=self._backend)
        command = self._project.start("t", **self._settings)
        while not self._plan.exists():
            assert command.poll() is None, "no plan was made"
            time.sleep(0.01)
        command.kill()
        command.wait()
        self.kills += 1

    def _unfinished(self) -> bool:
        claims = Claims(self._plan)
        return bool(claims.tokens(OPEN) or claims.tokens(HELD))

    def _replace(self) -> None:
        """Start a worker for each that is gone."""
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        while len(self._workers) < N_WORKERS:
            words = [sys.executable, "-m", "psyrun.worker", "--children", str(self._dice.randint(1, CHILDREN))]
            with (self._project.path / "told").open("a") as told:
                worker = subprocess.Popen(
                    [*words, str(Workdir(self._plan.parents[1]).path), self._plan.name],
                    cwd=self._project.path,
                    env=self._project.environment(**self._settings),
                    stdout=told,
                    stderr=told,
                    stdin=subprocess.DEVNULL,
                )
            self._workers.append(worker)

    def _strike(self) -> None:
        """Kill or stop somebody, if there is anybody at work."""
        families = [(worker.pid, children_of(worker.pid)) for worker in self._workers]
        busy = [family for family in families if family[1]]
        if not busy:
            return
        supervisor, children = self._dice.choice(busy)
        child = self._dice.choice(children)
        what = self._dice.random() * (1 if self._naps else 0.85)
        if what < 0.5:
            self._kill(child, f"a child of {supervisor}")
        elif what < 0.85:
            self._kill(supervisor, "a supervisor")
        elif what < 0.9:
            self._stop(child, "a child")
        elif what < 0.95:
            self._stop(supervisor, "a supervisor")
        else:
            for pid in (supervisor, *children):
                self._stop(pid, "a family")

    def _kill(self, pid: int, who: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            self._note(f"killed {pid}, {who}")

    def _stop(self, pid: int, who: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.stops += 1
            self._asleep.append((time.monotonic() + TTL * self._dice.uniform(1.1, 1.6), pid))
            self._note(f"stopped {pid}, {who}")

    def _wake(self, now: float | None = None) -> None:
        """Wake up whose time has come; None: all."""
        for moment, pid in list(self._asleep):
            if now is None or moment <= now:
                self._asleep.remove((moment, pid))
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                    self._note(f"woke {pid}")

    def _end(self) -> None:
        """Wait for all workers; they have nothing left to claim."""
        deadline = time.monotonic() + 30
        for worker in self._workers:
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            finally:
                worker.kill()
                worker.wait()

    def _note(self, event: str) -> None:
        self.events.append(f"{time.monotonic() - self._began:.3f} {event}")


def children_of(pid: int) -> list[int]:
    """Return the processes that one forked."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
