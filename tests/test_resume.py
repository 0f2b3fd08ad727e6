"""Whatever is edited, killed and damaged in whatever order: a run computes what is missing, and just that."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from resuming import Resume


@pytest.mark.kill
def test_nothing_is_lost_and_nothing_computed_twice() -> None:
    """A few histories."""
    run_state_machine_as_test(Resume, settings=settings(max_examples=3, stateful_step_count=12, deadline=None))


@pytest.mark.long
def test_nothing_is_lost_and_nothing_computed_twice_in_long_histories() -> None:
    """Many."""
    run_state_machine_as_test(Resume, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
