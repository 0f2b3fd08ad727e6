"""SHARCNET's queue on one machine: an emulator of sqsub, sqjobs and sqkill that really runs the jobs.

No machine with these programs is left. This follows what was written about them: options, output, and the words for
states. It is a program of its own, run by the path of this file, and imports nothing but the standard library, so that
it starts quickly.

There is no daemon. Each job that runs has a runner, a process that ends with it and starts the next one in the queue.
All state is in files, changed under a lock of the system that a killed process cannot leave behind.
"""

from __future__ import annotations

import fcntl
import getopt
import json
import os
import shlex
import signal
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

VARIABLE = "PSYRUN_SQSUB_EMULATOR"
"""The environment variable with the directory of the state."""

PROGRAMS = ("sqsub", "sqjobs", "sqkill")
FIRST_ID = 100001
GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HEADER = " jobid queue  state ncpus nodes   time command\n------ ------ ----- ----- ----- ------ -------\n"
_OVER = ("D", "K")

Entry = dict[str, Any]


def install(directory: str | Path, slots: int = 4) -> Path:
    """Make an empty queue, and the programs to talk to it.

    Parameters
    ----------
    directory : path
        Where it keeps its state.
    slots : int
        How many jobs run at a time; the others wait.

    Returns
    -------
    Path
        A directory to put on PATH.
    """
    state = Path(directory).absolute()
    programs = state / "bin"
    programs.mkdir(parents=True)
    (state / "jobs").mkdir()
    (state / "slots").write_text(str(slots))
    for name in PROGRAMS:
        program = programs / name
        words = shlex.join([sys.executable, "-I", str(Path(__file__).absolute()), name])
        program.write_text(f'#!/bin/sh\n{VARIABLE}={shlex.quote(str(state))} exec {words} "$@"\n')
        program.chmod(stat.S_IRWXU)
    return programs


class ProgramError(Exception):
    """What one of the programs refuses; it ends with status 1."""


class Emulator:
    """The queue, as its programs see it.

    Parameters
    ----------
    state : Path
        A directory that `install` made.
    """

    def __init__(self, state: Path):
        self._state = state
        self._jobs = state / "jobs"

    # What users type

    def sqsub(self, words: list[str]) -> int:
        """Put a job into the queue, and print its number."""
        try:
            pairs, command = getopt.getopt(words, "q:r:n:N:o:j:w:", ["mpp=", "idfile="])
        except getopt.GetoptError as error:
            raise ProgramError(f"sqsub: {error}") from error
        options = dict(pairs)
        if "-r" not in options:
            raise ProgramError("sqsub: no runtime limit: please give one with -r")
        if not command:
            raise ProgramError("sqsub: no command")
        entry: Entry = {
            "queue": options.get("-q", "serial"),
            "limit": duration(options["-r"]),
            "ncpus": int(options.get("-n", 1)),
            "name": options.get("-j", " ".join(command)),
            "after": [int(word) for word in options.get("-w", "").split(",") if word],
            "log": options.get("-o", os.devnull),
            "directory": str(Path.cwd()),
            "command": command,
            "environment": {name: value for name, value in os.environ.items() if name != VARIABLE},
            "state": "Q",
            "since": time.time(),
        }
        with self._locked():
            number = max([*self._entries(), FIRST_ID - 1]) + 1
            self._save(number, entry)
        if "--idfile" in options:
            Path(options["--idfile"]).write_text(f"{number}\n")
        print(f"submitted as jobid {number}")
        self.start()
        return 0

    def sqjobs(self, words: list[str]) -> int:
        """Print a table of jobs; the status is 1 if none of them waits or runs."""
        self.start()
        with self._locked():
            entries = self._entries()
        shown = {n: e for n, e in entries.items() if not words or str(n) in words}
        if shown:
            print(_HEADER + "".join(row(number, entry) for number, entry in shown.items()), end="")
        return 0 if any(entry["state"] not in _OVER for entry in shown.values()) else 1

    def sqkill(self, words: list[str]) -> int:
        """End jobs: at once if they wait, with SIGTERM and later SIGKILL if they run."""
        self.start()
        with self._locked():
            entries = self._entries()
            unknown = [word for word in words if not word.isdecimal() or int(word) not in entries]
            for number in {int(word) for word in words} & set(entries):
                if entries[number]["state"] == "R":
                    self._file(number, "kill").touch()
                elif entries[number]["state"] not in _OVER:
                    self._save(number, entries[number] | {"state": "K"})
        if unknown:
            raise ProgramError(f"sqkill: no such job: {' '.join(unknown)}")
        return 0

    # What keeps it going

    def start(self) -> None:
        """Begin jobs that wait, while there are slots."""
        with self._locked():
            entries = self._entries()
            for number, entry in entries.items():
                if entry["state"] == "R" and self._is_free(number, "runner"):
                    self._lost(number, entry)
            free = int((self._state / "slots").read_text()) - sum(e["state"] == "R" for e in entries.values())
            for number, entry in entries.items():
                waits = any(entries[n]["state"] not in _OVER for n in entry["after"] if n in entries)
                if entry["state"] in ("Q", "*Q"):
                    entry["state"] = "*Q" if waits else "R" if free > 0 else "Q"
                    if entry["state"] == "R":
                        free -= 1
                        entry["since"] = time.time()
                        self._save(number, entry)
                        self._fork_runner(number, entry)
                    self._save(number, entry)

    def _fork_runner(self, number: int, entry: Entry) -> None:
        # Both locks are taken before there are two processes, so nobody finds one free that will be taken.
        runner, job = self._take(number, "runner"), self._take(number, "job")
        if not os.fork():
            try:
                os.setsid()
                _redirect(os.devnull)  # whoever reads what the program says must not wait for the job
                self._run(number, entry, runner, job)
            finally:
                os._exit(0)
        os.close(runner)
        os.close(job)

    def _run(self, number: int, entry: Entry, runner: int, job: int) -> None:
        pid = os.fork()
        if not pid:
            self._become_the_job(number, entry, job)
        os.close(job)
        killed = self._watch(number, pid, time.monotonic() + entry["limit"])
        with self._locked():
            self._save(number, entry | {"state": "K" if killed else "D"})
        os.close(runner)
        self.start()

    def _watch(self, number: int, pid: int, end: float) -> bool:
        """Wait for the job, and end it when its time is over or somebody wants it; return whether that was it."""
        told: float | None = None
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            now = time.monotonic()
            if told is None and (now > end or self._file(number, "kill").exists()):
                told = now
                _signal_group(pid, signal.SIGTERM)
            if told is not None and now > told + GRACE:
                _signal_group(pid, signal.SIGKILL)
            time.sleep(0.02)
        return told is not None

    def _become_the_job(self, number: int, entry: Entry, lock: int) -> NoReturn:
        try:
            os.setsid()
            self._write(number, "pid", str(os.getpid()))
            os.set_inheritable(lock, True)
            os.chdir(entry["directory"])
            _redirect(entry["log"].replace("%J", str(number)))
            environment = entry["environment"] | {"SQ_JOBID": str(number)}
            os.execvpe(entry["command"][0], entry["command"], environment)  # noqa: S606 - no shell is wanted
        except BaseException as error:
            os.write(2, f"{error}\n".encode())
        os._exit(127)

    def _lost(self, number: int, entry: Entry) -> None:
        """Say that a job is over whose runner was killed, as if its node had failed."""
        if not self._is_free(number, "job"):
            if not self._file(number, "pid").exists():
                return  # it is about to begin, and found the next time
            _signal_group(int(self._file(number, "pid").read_text()), signal.SIGKILL)
        entry["state"] = "D"
        self._save(number, entry)

    # Files

    def _file(self, number: int, kind: str) -> Path:
        return self._jobs / f"{number}.{kind}"

    def _entries(self) -> dict[int, Entry]:
        numbers = sorted(int(path.stem) for path in self._jobs.glob("*.json"))
        return {number: json.loads(self._file(number, "json").read_text()) for number in numbers}

    def _save(self, number: int, entry: Entry) -> None:
        self._write(number, "json", json.dumps(entry))

    def _write(self, number: int, kind: str, text: str) -> None:
        beside = self._file(number, f"new-{kind}")
        beside.write_text(text)
        beside.replace(self._file(number, kind))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._state / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            # Processes that were forked meanwhile have the descriptor too: closing it here would not free the lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _take(self, number: int, kind: str) -> int:
        """Return a descriptor of a file that is locked until all processes that have it are gone."""
        descriptor = os.open(self._file(number, kind), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return descriptor

    def _is_free(self, number: int, kind: str) -> bool:
        try:
            os.close(self._take(number, kind))
        except BlockingIOError:
            return False
        return True


def duration(text: str) -> float:
    """Return a runtime in seconds; a bare number is one of minutes.

    >>> duration('10m'), duration('7d'), duration('20.5h'), duration('2')
    (600.0, 604800.0, 73800.0, 120.0)
    """
    try:
        number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 60)
        return float(number) * unit
    except ValueError as error:
        raise ProgramError(f"sqsub: -r {text}: no runtime") from error


def row(number: int, entry: Entry) -> str:
    """Return the line of a job in the table; the place of the nodes is empty while there are none."""
    elapsed = f"{time.time() - entry['since']:.0f}s"
    nodes = "node1" if entry["state"] == "R" else ""
    numbers = f"{number:6} {entry['queue']:6} {entry['state']:>5} {entry['ncpus']:5}"
    return f"{numbers} {nodes:5} {elapsed:>6} {entry['name']}\n"


def _redirect(output: str) -> None:
    """Read nothing, and write to a file."""
    source = os.open(os.devnull, os.O_RDONLY)
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for old, new in ((source, 0), (target, 1), (target, 2)):
        os.dup2(old, new)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # Before it has a group of its own, the process itself.
    for send in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            send(pid, number)
            return


def main(words: list[str]) -> int:
    """Be one of the programs."""
    state = Path(os.environ[VARIABLE])
    name, *arguments = words
    try:
        if (state / "broken").exists():
            raise ProgramError(f"{name}: {(state / 'broken').read_text()}")
        return int(getattr(Emulator(state), name)(arguments))
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
