"""The one door to outside programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 60.0


@dataclass(frozen=True)
class Answer:
    """What a program said: exit status (127 if it cannot be run, 124 if it took too long), output, errors."""

    status: int
    output: str
    errors: str


def run_command(
    command: Sequence[str],
    cwd: Path | None = None,
    timeout: float = _TIMEOUT,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a program, given as a list of words; no shell takes part. Its environment is ours, or the one given.

    Examples
    --------
    >>> run_command(['printf', '%s', 'a; b']).output
    'a; b'
    """
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, never a shell
            list(command),
            cwd=cwd,
            timeout=timeout,
            input=stdin or "",
            env=environment,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            check=False,
        )
    except OSError as error:
        return Answer(127, "", str(error))
    except subprocess.TimeoutExpired as late:
        # What it said until then may tell why it waits.
        said = late.stderr.decode(errors="backslashreplace") if isinstance(late.stderr, bytes) else ""
        return Answer(124, "", f"{said.rstrip()}\n{command[0]} gave no answer within {timeout:g} s".lstrip())
    return Answer(done.returncode, done.stdout, done.stderr)
