"""The one door to outside programs."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 60.0
_LOOK = 0.1


@dataclass(frozen=True)
class Answer:
    """What a program said: exit status (127: cannot be run; 124: took too long; 125: given up), output, errors."""

    status: int
    output: str
    errors: str


def run_command(
    command: Sequence[str],
    cwd: Path | None = None,
    timeout: float = _TIMEOUT,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    give_up_on: str = "",
) -> Answer:
    """Run a program, given as a list of words; no shell takes part. Its environment is ours, or the one given.

    Parameters
    ----------
    give_up_on : str
        What it says on its standard error when there is no use in waiting longer; it is ended then, with status 125.

    Examples
    --------
    >>> run_command(['printf', '%s', 'a; b']).output
    'a; b'
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - a list of words, never a shell
            list(command),
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
    except OSError as error:
        return Answer(127, "", str(error))
    with process:
        try:
            return _heard(process, command[0], stdin or "", timeout, give_up_on)
        finally:
            process.kill()


def _heard(process: subprocess.Popen[str], name: str, stdin: str, timeout: float, give_up_on: str) -> Answer:
    end = time.monotonic() + timeout
    to_send: str | None = stdin
    while True:
        left = end - time.monotonic()
        try:
            output, errors = process.communicate(to_send, min(left, _LOOK) if give_up_on else left)
        except subprocess.TimeoutExpired as late:
            to_send = None
            # What it said until then may tell why it waits.
            said = late.stderr.decode(errors="backslashreplace") if isinstance(late.stderr, bytes) else ""
            if give_up_on and give_up_on in said:
                return Answer(125, "", said)
            if time.monotonic() >= end:
                return Answer(124, "", f"{said.rstrip()}\n{name} gave no answer within {timeout:g} s".lstrip())
        else:
            return Answer(process.returncode, output, errors)
