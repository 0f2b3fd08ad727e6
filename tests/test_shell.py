"""Outside programs: their environment, and what is known of those that take too long."""

from __future__ import annotations

import pytest

from psyrun.shell import Answer, run_command


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


def test_a_program_is_given_up_when_it_says_that_it_waits_for_nothing_sure() -> None:
    """Not before, and what it said is kept; what it reads is read once."""
    full = ["/bin/sh", "-c", "cat; echo full, sleeping >&2; exec sleep 60"]
    assert run_command(full, stdin="a", give_up_on="sleeping") == Answer(125, "", "full, sleeping\n")
    late = ["/bin/sh", "-c", "cat; sleep 0.3; echo no >&2; exit 3"]
    assert run_command(late, stdin="a" * 100_000, give_up_on="sleeping") == Answer(3, "a" * 100_000, "no\n")
