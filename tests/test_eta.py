"""How long the rest takes: right in about nine of ten cases, and what is said of little that is known."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.eta import Left, estimate, too_long, usual

Draw = Callable[[int], npt.NDArray[np.float64]]

KINDS = ["equal", "uniform", "exponential", "lognormal"]


def durations(kind: str, random: np.random.Generator) -> Draw:
    draws: dict[str, Draw] = {
        "equal": lambda n: np.full(n, 2.0),
        "uniform": lambda n: random.uniform(1, 3, n),
        "exponential": lambda n: random.exponential(2, n),
        "lognormal": lambda n: random.lognormal(0, 0.5, n),
    }
    return draws[kind]


def simulated(draw: Draw, n_measured: int, n: int, n_at_a_time: int) -> tuple[Left, float]:
    """Have workers do items until n are left; return what is estimated then, and how long these really take."""
    waiting = iter(draw(n_measured + n).tolist())
    hands = [(seconds, 0.0, seconds) for _, seconds in zip(range(n_at_a_time), waiting, strict=False)]
    heapq.heapify(hands)
    measured: list[float] = []
    now, end = 0.0, 0.0
    while hands:
        if len(measured) == n_measured and not end:
            ages = [now - begun for _, begun, _ in hands]
            found = estimate(n, n_at_a_time, np.array(measured), ages, len(measured))
            end = now
        now, _, seconds = heapq.heappop(hands)
        measured.append(seconds)
        following = next(waiting, None)
        if following is not None:
            heapq.heappush(hands, (now + following, now, following))
    return found, now - end


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n_measured", "n", "n_at_a_time"),
    [(10, 20, 1), (30, 300, 2), (50, 1000, 8), (100, 8, 8), (100, 1, 1), (200, 40, 16), (1000, 100, 32)],
)
def test_it_is_right_in_about_nine_of_ten_cases(kind: str, n_measured: int, n: int, n_at_a_time: int) -> None:
    """Whatever the durations, be many items left or few; and on average neither too soon nor too late."""
    draw = durations(kind, np.random.default_rng(7))
    cases = [simulated(draw, n_measured, n, n_at_a_time) for _ in range(200)]
    assert np.mean([left.low - 1e-6 <= really <= left.high + 1e-6 for left, really in cases]) > 0.78
    about, really = (np.mean(values) for values in zip(*((left.about, took) for left, took in cases), strict=True))
    assert 0.65 * really <= about <= 1.35 * really + 1e-6


@pytest.mark.parametrize("kind", ["uniform", "exponential", "lognormal"])
def test_the_spread_says_something(kind: str) -> None:
    """It is small where much was measured and much is left."""
    left, _ = simulated(durations(kind, np.random.default_rng(3)), 2000, 5000, 4)
    assert left.high - left.low < 0.15 * left.about


def test_what_was_measured_less_is_less_sure() -> None:
    """The mean of few is uncertain, and of one alone nearly everything is."""
    measured = np.random.default_rng(1).exponential(2, 1000)
    spreads = [(lambda left: left.high - left.low)(estimate(1000, 4, measured[:n], ())) for n in (10, 100, 1000)]
    assert spreads == sorted(spreads, reverse=True)
    one = estimate(1000, 4, np.array([2.0]))
    assert one.low < 0.3 * one.about
    assert one.high > 1.7 * one.about


def test_the_longest_in_hand_is_waited_for() -> None:
    """One worker of many has an item that took longer than any: it is the end."""
    measured = np.random.default_rng(1).uniform(1, 3, 100)
    short = estimate(9, 8, measured, [1.0] * 8)
    assert 1 < short.about < 5
    long = estimate(9, 8, measured, [1.0] * 7 + [600.0])
    assert long.low < 100 < 500 < long.about < 700 < long.high


def test_a_rate_that_was_seen_tells_the_mean() -> None:
    """Items of a microsecond cost more than that."""
    measured = np.full(100, 1e-6)
    assert estimate(1000, 2, measured).about < 0.01
    assert estimate(1000, 2, measured, per_minute=6000.0).about == pytest.approx(10, rel=0.1)


@given(
    st.integers(1, 10**7),
    st.integers(1, 5000),
    st.lists(st.floats(0, 1e9), min_size=1, max_size=50),
    st.lists(st.floats(0, 1e9), max_size=50),
    st.none() | st.floats(1e-3, 1e9),
)
def test_it_is_a_range_whatever_was_measured(
    n: int, n_at_a_time: int, measured: list[float], ages: list[float], per_minute: float | None
) -> None:
    """From 0 on, with the estimate inside."""
    left = estimate(n, n_at_a_time, np.array(measured), ages, 0, per_minute)
    assert 0 <= left.low <= left.about * (1 + 1e-9) + 1e-6
    assert left.about <= left.high * (1 + 1e-9) + 1e-6
    assert np.isfinite(left.high)


def test_stragglers_take_three_times_what_is_usual() -> None:
    """That is what 95 % took at most; of less than ten nothing is usual. What takes less than a second is none."""
    assert usual(np.ones(9)) is None
    assert usual(np.append(np.ones(99), 1000.0)) == 1
    assert too_long(180.0) == 540
    assert too_long(0.001) == 1
