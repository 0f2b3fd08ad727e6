"""What a job keeps to: its share of the work, and its time."""

from __future__ import annotations

import math

import pytest

from psyrun import terms
from psyrun.terms import NO_JOB, Deadline, Terms


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(terms, "time", clock)
    return clock


def test_a_share() -> None:
    """A job claims what lies in its positions as a whole; a worker that is no job claims anything."""
    share = Terms(first=4, last=9)
    assert [share.covers(*token) for token in [(4, 9), (5, 5), (3, 4), (9, 10), (0, 20)]] == [True, True] + [False] * 3
    assert Terms(first=4).covers(4, 10**9)
    assert NO_JOB.covers(0, 0)


def test_no_limit(clock: Clock) -> None:
    """There is always time."""
    deadline = Deadline()
    clock.now += 1e9
    assert not deadline.is_short(1e9)
    assert not deadline.is_over()
    assert deadline.due() == math.inf


@pytest.mark.parametrize(("limit", "end"), [(600, 590), (100, 90), (10, 9), (2, 1.8)])
def test_it_ends_before_the_queue_ends_it(clock: Clock, limit: float, end: float) -> None:
    """Ten seconds before, or a tenth of short times."""
    deadline = Deadline(limit)
    assert deadline.due() == pytest.approx(end)
    clock.now += end - 0.01
    assert not deadline.is_over()
    clock.now += 0.02
    assert deadline.is_over()
    assert deadline.due() == 0


def test_an_item_is_begun_only_if_it_fits(clock: Clock) -> None:
    """Half as long again as items take on average must be left."""
    deadline = Deadline(600)
    assert not deadline.is_short(390)
    assert deadline.is_short(400)
    clock.now += 580
    assert not deadline.is_short(6)
    assert deadline.is_short(7)


def test_a_warning(clock: Clock) -> None:
    """Nothing is begun after it, and what is in hand has 45 s, never more than there were."""
    deadline = Deadline(600)
    deadline.warn()
    assert deadline.is_short(0)
    assert not deadline.is_over()
    assert deadline.due() == pytest.approx(45)
    clock.now += 580
    deadline.warn()
    assert deadline.is_over()
    without = Deadline()
    without.warn()
    assert without.due() == pytest.approx(45)


@pytest.mark.parametrize(("began", "had"), [(0, True), (117, True), (119, False), (500, False)])
def test_who_had_most_of_the_time(clock: Clock, began: float, had: bool) -> None:
    """Of an item that had four fifths of it another such job would be no help."""
    deadline = Deadline(600)
    clock.now += 590
    assert deadline.had_most(1000 + began) == had


def test_nobody_had_most_of_a_job_that_was_ended_early(clock: Clock) -> None:
    """A warning long before the end is no reason to give an item up."""
    deadline = Deadline(3600)
    clock.now += 100
    deadline.warn()
    clock.now += 50
    assert deadline.is_over()
    assert not deadline.had_most(1000 + 1)
