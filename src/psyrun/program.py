"""The program ``psy-doit``."""

from __future__ import annotations

from psyrun.interrupts import end_quietly


def main() -> None:
    """Run the command line."""
    end_quietly()
    from psyrun.cli import main as run

    run()
