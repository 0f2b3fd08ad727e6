"""Outside programs: their environment, and what is known of those that take too long."""

from __future__ import annotations

import pytest

from psyrun.shell import run_command


def test_the_environment_is_ours_or_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is given is the whole of it."""
    monkeypatch.setenv("PSYRUN_X", "1")
    shell = ["/bin/sh", "-c", 'echo "$PSYRUN_X $PSYRUN_Y"']
    assert run_command(shell).output == "1 \n"
    assert run_command(shell, environment={"PSYRUN_Y": "2"}).output == " 2\n"


def test_what_a_program_said_before_it_took_too_long() -> None:
    """It may tell why it waits, as sbatch does while a queue is full."""
    answer = run_command(["/bin/sh", "-c", "echo full, sleeping >&2; exec sleep 60"], timeout=0.5)
    assert answer.status == 124
    assert answer.errors == "full, sleeping\n/bin/sh gave no answer within 0.5 s"
    assert run_command(["/bin/sleep", "60"], timeout=0.1).errors == "/bin/sleep gave no answer within 0.1 s"
