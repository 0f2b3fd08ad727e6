"""Slurm's programs, as psyrun runs them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from psyrun.scheduler.base import QueueError
from psyrun.scheduler.slurm_words import LISTING, listing
from psyrun.shell import Answer, run_command

TIMEOUT = 60.0
# Where Slurm's daemons and Debian's older packages have it; the last is a copy, where nodes have none of their own.
_CONFIGURATIONS = ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf", "/run/slurm/conf/slurm.conf")
_LINES = re.MULTILINE | re.IGNORECASE
SLEEPS = "sleeping and retrying"
"""What sbatch says when there is no room for more jobs; it would go on for two minutes, and say no more."""

# A job that submits jobs must not hand on what it was given; and the user's settings for listings would hide jobs.
_SCRUBBED = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "SCONTROL_")
# How Slurm is reached; and whom to charge, which sites have their users set for all jobs.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SBATCH_ACCOUNT")


def list_jobs() -> str:
    """Return what squeue says of our jobs.

    Raises
    ------
    QueueError
        It gives no answer, or one of which nothing can be understood.
    """
    answer = run(["squeue", "--me", "-h", "-a", "-t", "all", "-o", LISTING])
    if shutil.which("squeue") is None:
        raise QueueError("there is no squeue on this machine. Type the command on a login node of the cluster")
    if answer.status != 0:
        raise QueueError(f"squeue gave no answer: {said(answer)}. Type the command again later")
    listing(answer.output)  # what is no listing is not kept
    return answer.output


def run(command: Sequence[str], stdin: str | None = None) -> Answer:
    """Run one of Slurm's programs, in an environment without what it would take from a job or from habits."""
    environment = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_SCRUBBED)}
    if command[0] == "squeue":
        environment["SLURM_BITSTR_LEN"] = "0"  # or arrays are truncated
    return run_command(command, timeout=TIMEOUT, stdin=stdin, environment=environment, give_up_on=SLEEPS)


def said(answer: Answer) -> str:
    """Return the last lines of what a program said."""
    lines = [line.strip() for line in (answer.errors or answer.output).splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-3:])) or f"exit status {answer.status}"


def world() -> str:
    """Return what tells one Slurm from another."""
    return "\0".join([os.environ.get("SLURM_CONF", ""), shutil.which("squeue") or "", cluster() or os.uname().nodename])


def cluster() -> str:
    """Return the name of the cluster that this machine is of, '' if its configuration cannot be read."""
    for path in (os.environ.get("SLURM_CONF", ""), *_CONFIGURATIONS):
        with suppress(OSError):
            match = re.search(r"^\s*ClusterName\s*=\s*(\S+)", Path(path).read_text(errors="replace"), _LINES)
            if match:
                return match[1]
    return ""
