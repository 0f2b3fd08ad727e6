"""Claims: which worker has which items of a plan, told by the names of empty files.

``open/<first>-<last>.<epoch>`` can be claimed by a rename to ``held/<first>-<last>.<epoch>.<worker>``, and is
finished by a rename to ``done/``. Renames are the one operation that NFS, Lustre and GPFS all do for exactly one of
several contenders; NFS may report an error for one that happened, so after an error the destination is looked at.
A takeover raises the epoch: the old owner's next rename then fails, which tells it to stop.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from psyrun.errors import FencedError
from psyrun.files import naming, random_name, renamed, sync_directory

_FIRST = 1.0
"""Seconds from the first heartbeat to the second."""
OPEN, HELD, DONE, WITHDRAWN = "open", "held", "done", "withdrawn"
_NAME = re.compile(r"(\d+)-(\d+)\.(\d+)(?:\.([0-9a-f]{16}))?")


@dataclass(frozen=True, order=True)
class Token:
    """Positions first..last of a work list; how often they changed hands; who holds them, if somebody does."""

    first: int
    last: int
    epoch: int = 0
    worker: str = ""

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.first}-{self.last}.{self.epoch}" + (f".{self.worker}" if self.worker else "")

    def __len__(self) -> int:
        return self.last - self.first + 1

    @classmethod
    def parse(cls, name: str) -> Token | None:
        """Return the token of a file name; None for foreign names, such as those NFS leaves behind."""
        match = _NAME.fullmatch(name)
        if not match:
            return None
        first, last, epoch, worker = match.groups()
        token = cls(int(first), int(last), int(epoch), worker or "")
        return token if token.name == name and token.first <= token.last else None


def beat_seconds() -> float:
    """Return the seconds between heartbeats (``PSYRUN_BEAT``)."""
    return float(os.environ.get("PSYRUN_BEAT", "15"))


def ttl_seconds() -> float:
    """Return the seconds without a heartbeat after which a worker is taken for dead (``PSYRUN_TTL``)."""
    return float(os.environ.get("PSYRUN_TTL", "180"))


def new_worker_id() -> str:
    """Return 64 random bits as text. Never a job's id: a requeued job would meet its own ghost."""
    return random_name()


class Claims:
    """The tokens of one plan, as one worker sees them.

    Parameters
    ----------
    plan : Path
        The plan's directory.
    worker : str
        The id under which to claim; '' to only look.
    n_work : int, optional
        Length of the work list; names of positions beyond it are not tokens.
    """

    def __init__(self, plan: Path, worker: str = "", n_work: int | None = None):
        self._plan = plan
        self.worker = worker
        self._n_work = n_work

    def tokens(self, state: str) -> list[Token]:
        """Return the tokens in a state, by position. On network file systems the list may be some seconds old."""
        try:
            names = os.listdir(self._plan / state)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = (token for name in names if (token := Token.parse(name)))
        return sorted(token for token in found if self._belongs(token, state))

    def _belongs(self, token: Token, state: str) -> bool:
        """Whether a token can be one of this plan's in a state; others are no psyrun's, or their name was damaged."""
        inside = self._n_work is None or token.last < self._n_work
        return inside and bool(token.worker) == (state in (HELD, DONE))

    def has(self, state: str) -> bool:
        """Whether there is a token in a state; quick where there are many."""
        try:
            with os.scandir(self._plan / state) as entries:
                return any(Token.parse(entry.name) for entry in entries)
        except FileNotFoundError:
            return False

    def create(self, tokens: Iterable[Token]) -> None:
        """Make the directories and the open tokens of a plan that is not in place yet."""
        for state in (OPEN, HELD, DONE):
            (self._plan / state).mkdir(mode=0o700)
        for token in tokens:
            (self._plan / OPEN / token.name).touch(mode=0o600)
        sync_directory(self._plan / OPEN)

    def claim(self, token: Token) -> Token | None:
        """Try to make an open token ours; return it as held, or None if another was faster."""
        mine = replace(token, worker=self.worker)
        return mine if self._moved(OPEN, token, HELD, mine) else None

    def finish(self, token: Token) -> None:
        """Mark a token of ours as done.

        Raises
        ------
        FencedError
            It is not ours any more.
        """
        if not self._moved(HELD, token, DONE, token):
            raise FencedError(f"chunk {token.first}-{token.last} was taken over by another worker")

    def hand_back(self, token: Token) -> None:
        """Open a token of ours to others; who takes it looks up what of it is done."""
        again = replace(token, epoch=token.epoch + 1, worker="")
        if not self._moved(HELD, token, OPEN, again):
            self._moved(HELD, token, WITHDRAWN, again)  # `withdraw` may have come between

    def share(self, token: Token, at: int) -> Token:
        """Open the positions of a token of ours from one on to others; return what is left of it as ours.

        They are open before ours is less: if this process ends in between, they may be computed twice, but never not.

        Raises
        ------
        FencedError
            It is not ours any more.
        OSError
            Nothing was opened: the disk is full, or `withdraw` took the open tokens out of reach.
        """
        kept, rest = replace(token, last=at - 1), replace(token, first=at, worker="")
        path = self._plan / OPEN / rest.name
        path.touch(mode=0o600)
        try:
            moved = self._moved(HELD, token, HELD, kept)
        except OSError:
            path.unlink(missing_ok=True)  # all of it is still ours
            raise
        if not moved:
            path.unlink(missing_ok=True)
            raise FencedError(f"chunk {token.first}-{token.last} was taken over by another worker")
        return kept

    def take_over(self, token: Token) -> Token | None:
        """Take a silent owner's token; return it as ours, or None if it moved in the meantime."""
        mine = replace(token, epoch=token.epoch + 1, worker=self.worker)
        return mine if self._moved(HELD, token, HELD, mine) else None

    def withdraw(self) -> None:
        """Take all open tokens out of reach, in one step: nothing of this plan is started any more."""
        try:
            renamed(self._plan / OPEN, self._plan / WITHDRAWN)
        except (FileNotFoundError, NotADirectoryError):
            return

    def _moved(self, source_state: str, source: Token, target_state: str, target: Token) -> bool:
        """Rename a token; return whether it was there to be renamed.

        Raises
        ------
        OSError
            It is there, and the system refused, as where the disk is full.
        """
        # As text: workers that hurry spend a third of their time making paths.
        origin = f"{self._plan}/{source_state}/{source.name}"
        destination = f"{self._plan}/{target_state}/{target.name}"
        try:
            os.rename(origin, destination)  # noqa: PTH104
        except OSError as error:
            # Nobody else uses the destination's name, so if it is there the rename was ours.
            if Path(destination).exists():
                return True
            if error.errno != errno.ENOENT and Path(origin).exists():
                raise
            return False
        return True


@cache
def this_host() -> str:
    """Return the name of this machine."""
    return os.uname().nodename


@cache
def boot_id() -> str:
    """Return what differs after every start of this machine, '' where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def pid_namespace() -> str:
    """Return what differs between containers that cannot see each other's processes, '' where there is no such."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """Return when a process started, in the system's own unit; '' if it is gone or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]  # a zombie does no more work


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True)
class Process:
    """What tells one process on one machine from all others."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        pid = os.getpid()
        return cls(this_host(), boot_id(), pid_namespace(), pid, start_time(pid))

    def gone(self) -> bool | None:
        """Whether the process has ended; None if that cannot be told from this machine."""
        if self.host != this_host():
            return None
        if self.boot != boot_id():
            return True
        if self.namespace != pid_namespace():
            return None
        if sys.platform == "linux":
            return start_time(self.pid) != self.started
        return not _exists(self.pid)


_PROCESS = [field.name for field in fields(Process)]
_BEAT = {"host": str, "boot": str, "namespace": str, "pid": int, "started": str, "count": int}
"""What a heartbeat holds that can be understood."""


class Beat:
    """The heartbeat of a worker: a file with a counter, rewritten whole, and since when it beats.

    Parameters
    ----------
    directory : Path
    worker : str
    interval : float
        Seconds.
    about : dict, optional
        What else is to be known of the worker, as JSON has it.
    """

    def __init__(self, directory: Path, worker: str, interval: float, about: Mapping[str, Any] | None = None):
        self.path = directory / worker
        self.interval = interval
        self._content: dict[str, Any] = {"worker": worker, **vars(Process.current()), **(about or {})}
        self._count = 0
        self._began = time.monotonic()
        self._next = 0.0

    def due(self) -> float:
        """Return the seconds until the next beat."""
        return max(0.0, self._next - time.monotonic())

    def overdue(self) -> float:
        """Return the seconds since a beat was due; 0 before the first."""
        return max(0.0, time.monotonic() - self._next) if self._count else 0.0

    def beat(self, news: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Write the next count, if it is time, and what is new."""
        if self.due():
            return
        self._count += 1
        # For how long by this clock, and not since when: clocks of two machines need not agree.
        self._content |= {**news(), "seconds": round(time.monotonic() - self._began, 1)}
        beside = self.path.with_name(f".{self.path.name}")
        beside.touch(mode=0o600)
        with naming(self.path):
            beside.write_text(json.dumps(self._content | {"count": self._count}))
        renamed(beside, self.path)
        # At first more often, so that what a worker has in hand is soon seen.
        self._next = time.monotonic() + min(self.interval, max(_FIRST, time.monotonic() - self._began))

    def stop(self) -> None:
        """Remove the file: this worker holds nothing."""
        self.path.unlink(missing_ok=True)


class Observer:
    """Judges whether workers are alive, by this machine's own clock.

    Parameters
    ----------
    directory : Path
        Of the heartbeats.
    ttl : float
        Seconds without a new count after which a worker is taken for dead.
    silent : dict, optional
        Workers that another observer watched for that long already, and the counts they stood at.
    """

    jobs_expected: ClassVar[bool] = False
    """Whether the queue has jobs that will work on the newest plan; one that asks no queue knows of none."""

    def __init__(self, directory: Path, ttl: float, silent: Mapping[str, int] | None = None):
        self._directory = directory
        self._ttl = ttl
        self._seen = {worker: (count, -math.inf) for worker, count in (silent or {}).items()}

    def silent(self) -> dict[str, int]:
        """Return the workers that gave no sign for the whole time, with their counts."""
        now = time.monotonic()
        return {worker: count for worker, (count, since) in self._seen.items() if now - since > self._ttl}

    def read(self, worker: str) -> dict[str, Any]:
        """Return what a worker says of itself, {} if nothing that can be understood."""
        try:
            content: Any = json.loads((self._directory / worker).read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict) or not all(type(content.get(name)) is _BEAT[name] for name in _BEAT):
            return {}
        return content

    def age(self, worker: str) -> float:
        """Return how many seconds ago a worker wrote its heartbeat, by the time of the file; at most the TTL."""
        try:
            written = (self._directory / worker).stat().st_mtime
        except OSError:
            return 0.0
        return min(self._ttl, max(0.0, time.time() - written))

    def dead(self, worker: str) -> bool:
        """Whether a worker is known to be dead. Ask again and again: the clock starts with the first question."""
        beat = self.read(worker)
        if beat and Process(*(beat[name] for name in _PROCESS)).gone():
            return True
        return self.still_for(worker) > self._ttl

    def still_for(self, worker: str) -> float:
        """Return for how many seconds a heartbeat was seen to stand still."""
        count: int = self.read(worker).get("count", -1)
        now = time.monotonic()
        if worker not in self._seen or self._seen[worker][0] != count:
            self._seen[worker] = (count, now)
        return now - self._seen[worker][1]
