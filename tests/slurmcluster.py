"""A real Slurm of three nodes, started for the tests, with daemons that can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SCRIPTS = Path(__file__).parent / "cluster"


class SlurmCluster:
    """A cluster in a directory, as ``slurm-up`` makes one.

    Attributes
    ----------
    directory : Path
        Configuration, logs and pid files.
    nodes : tuple of str
        All are this machine.
    """

    nodes = ("n1", "n2", "n3")

    def __init__(self, directory: Path):
        self.directory = directory

    def environment(self) -> dict[str, str]:
        """Return what Slurm's commands need beside, or instead of, the variables that are there."""
        return {
            "SLURM_CONF": str(self.directory / "slurm.conf"),
            "PATH": os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"]),
        }

    def start_now(self, job: str) -> None:
        """Have a requeued job start: it would wait for two minutes. Slurm may forget it while the job still ends."""
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now", status=None)
        time.sleep(1)

    def run(self, *words: str, status: int | None = 0) -> str:
        """Run a command of Slurm, check its exit status (None: any), and return what it said, errors last."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment()},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        if status is not None:
            assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def squeue(self) -> list[tuple[str, str, str, str]]:
        """Return job (an element of an array is one), state, node and reason of all that the queue remembers."""
        lines = self.run("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%N|%r").splitlines()
        return [(fields[0], fields[1], fields[2], fields[3]) for fields in (line.split("|", 3) for line in lines)]

    def wait_for_idle(self, seconds: float = 60) -> None:
        """Return when no job waits or runs and all nodes are idle."""
        end = time.monotonic() + seconds
        while self.run("squeue", "-h") or set(self.states().values()) != {"idle"}:
            assert time.monotonic() < end, f"{self.states()}\n{self.run('squeue')}"
            time.sleep(0.1)

    def states(self) -> dict[str, str]:
        """Return the state of each node, in Slurm's words; ``*``: it gives no answer."""
        lines = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def kill_slurmd(self, node: str) -> None:
        """Kill the daemon of a node, as if it had lost its power; its jobs go on, as they may on a lost node."""
        self._end(f"slurmd.{node}", signal.SIGKILL)

    def start_slurmd(self, node: str) -> None:
        """Start the daemon of a node again."""
        self.run("slurmd", "-N", node)

    def stop_controller(self) -> None:
        """Stop the controller; return when it is gone."""
        self._end("slurmctld", signal.SIGTERM)

    def start_controller(self) -> None:
        """Start the controller again; return when it answers."""
        self.run("slurmctld")
        end = time.monotonic() + 30
        while "is UP" not in self.run("scontrol", "ping", status=None):
            assert time.monotonic() < end
            time.sleep(0.1)

    def _end(self, name: str, number: signal.Signals) -> None:
        pid = int((self.directory / f"{name}.pid").read_text())
        os.kill(pid, number)
        end = time.monotonic() + 20
        while _runs(pid):
            assert time.monotonic() < end, f"{name} does not end"
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that ended, and that nobody waited for, does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Bring a cluster up in a short path, and down whatever happens.

    Raises
    ------
    RuntimeError
        It does not come up; with what its daemons wrote.
    """
    directory = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        # A session of its own: Ctrl-C is for the tests, which bring down what is there.
        up = subprocess.run(
            [SCRIPTS / "slurm-up", directory], capture_output=True, text=True, timeout=120, start_new_session=True
        )
        if up.returncode:
            raise RuntimeError(up.stderr)
        yield SlurmCluster(directory)
    finally:
        subprocess.run([SCRIPTS / "slurm-down", directory], check=True, timeout=120, start_new_session=True)
        shutil.rmtree(directory, ignore_errors=True)
