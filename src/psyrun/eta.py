"""How long the rest of the work will take, with its spread, and what takes much longer than the others did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from psyrun.units import unit_of

Durations = npt.NDArray[np.float64]

_LOW, _MIDDLE, _HIGH = 0.05, 0.5, 0.95
_Z = 1.645
"""Standard deviations that 5 % of a normal distribution lie above."""
_LEAST_DURATIONS = 10
_TIMES_USUAL = 3.0
_NOTHING = 1e-12
"""Seconds that are none: numbers far below that cannot be squared."""
_LEAST_SECONDS = 1.0


@dataclass(frozen=True)
class Left:
    """How many seconds the rest will take: about, and between which in nine of ten cases."""

    about: float
    low: float
    high: float

    def short(self) -> str:
        """Return it for a table.

        >>> Left(1399, 1201, 1610).short(), Left(1.2, 1.2, 1.2).short()
        ('23 minutes (20-27)', '1.2 s')
        """
        about, unit, low, high = self._shown()
        return f"{about} {unit}" + (f" ({low}-{high})" if low != high else "")

    def text(self) -> str:
        """Return it for people.

        >>> Left(720, 600, 900).text()
        'about 12 minutes left (10 to 15)'
        """
        about, unit, low, high = self._shown()
        return f"about {about} {unit} left" + (f" ({low} to {high})" if low != high else "")

    def _shown(self) -> tuple[str, str, str, str]:
        size, unit = unit_of(self.about)
        about, low, high = (_two_digits(value / size) for value in (self.about, self.low, self.high))
        return about, unit, low, high


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):,g}"


def estimate(
    n: int,
    n_at_a_time: int,
    durations: Durations,
    hand: Sequence[float] = (),
    n_done: int = 0,
    per_minute: float | None = None,
) -> Left:
    """Return how long the rest will take, in nine of ten cases between which.

    Items are taken to be independent, to take as long as those that were measured, and to be begun by whoever is free.
    n of them, w at a time, then take n m / w, where m is the mean of the durations. That is uncertain for two reasons:
    the sum of n durations has the variance n s^2, and the mean of N measured ones is itself known to s^2 / N only,
    which makes n^2 s^2 / N of the sum.

    When the last item was begun, the longest of those in hand is waited for: for the largest of w remainders, where a
    remainder is longer than t in as much of the time as durations exceed t in; or not at all, or for a whole item:
    where all take as long, they may end together, or one be left over. The rest is not over before each item in hand
    is: what one of these still takes follows from the durations that are longer than its time until now. If none is,
    it is as much again as it is above the longest.

    Of the items that were begun until now the shorter ones ended first: with N done their mean is too small by about
    w s^2 / (N m). Where a rate was seen, this tells the mean instead, with all that comes between two items.

    Parameters
    ----------
    n : int
        Items left, those in hand included; at least 1.
    n_at_a_time : int
        How many are worked on at a time; at least 1.
    durations : array of float
        Seconds that other items took; at least one.
    hand : sequence of float
        For how many seconds items are in hand until now.
    n_done : int
        How many items are done; those that were measured may be some of them.
    per_minute : float, optional
        The rate as it was seen.
    """
    timed = np.where(durations < _NOTHING, 0.0, durations)
    seconds = _corrected(np.sort(timed), n_at_a_time, n_done, per_minute)
    mean = float(seconds.mean())
    # As if one more had been measured that is off by the mean: one duration, or equal ones, do not tell everything.
    variance = float(seconds.var()) + mean**2 / len(seconds)
    hand = list(hand)[:n]
    width = min(n, n_at_a_time)
    n_new = n - len(hand)
    total = n_new * mean + sum(_remainder(age, seconds) for age in hand)
    deviation = _Z * (n * variance + n_new**2 * variance / len(seconds)) ** 0.5 / width
    middle, high = (_last_of(width, seconds, p) for p in (_MIDDLE, _HIGH))
    high = max(high, (1 - 1 / width) * mean)
    about = total / width + middle
    likely = about, about - np.hypot(deviation, middle), about + np.hypot(deviation, high - middle)
    longest = [_longest_of(hand, seconds, p) for p in (_MIDDLE, _LOW, _HIGH)]
    if not n_new:
        likely = 0.0, 0.0, 0.0
    return Left(*(max(a, b) for a, b in zip(map(float, likely), longest, strict=True)))


def _corrected(seconds: Durations, n_at_a_time: int, n_done: int, per_minute: float | None) -> Durations:
    """Return durations with the mean that all items are expected to have."""
    mean = float(seconds.mean())
    if not mean:
        return seconds
    if per_minute:
        return seconds * (60 * n_at_a_time / per_minute / mean)
    return seconds * (1 + float(seconds.var()) / mean**2 * n_at_a_time / max(n_done, len(seconds)))


def _remainder(age: float, seconds: Durations) -> float:
    """Return how much longer an item takes that took that long until now."""
    longer = seconds[np.searchsorted(seconds, age) :]
    return float(longer.mean()) - age if len(longer) else age - float(seconds[-1])


def _last_of(n: int, seconds: Durations, share: float) -> float:
    """Return a quantile of how much the longest of n items that are under way at any moment exceeds their mean.

    Such a remainder is below t with the probability mean(min(d, t)) / mean(d) over the durations d.
    """
    total = float(seconds.sum())
    if n < 2 or not total:
        return 0.0
    shorter = np.cumsum(seconds) - seconds
    below = (shorter + seconds * np.arange(len(seconds), 0, -1)) / total
    quantile = float(np.interp(share ** (1 / n), np.append(0.0, below), np.append(0.0, seconds)))
    return max(0.0, quantile - float((seconds**2).sum()) / (2 * total))


def _longest_of(hand: Sequence[float], seconds: Durations, share: float) -> float:
    """Return a quantile of when the last of the items in hand is done."""
    if not hand:
        return 0.0
    ages = np.array(hand)
    low, high = 0.0, 2 * max(float(seconds[-1]), float(ages.max()))
    before = np.searchsorted(seconds, ages)
    left = len(seconds) - before
    beyond = ages[left == 0] - seconds[-1]  # takes none to twice of that
    for _ in range(40):
        middle = (low + high) / 2
        done = np.searchsorted(seconds, ages + middle, side="right") - before
        known = np.prod(done[left > 0] / left[left > 0])
        over = np.prod(np.clip(middle / (2 * beyond + 1e-9), 0.0, 1.0))
        low, high = (low, middle) if known * over >= share else (middle, high)
    return high


def usual(durations: Durations) -> float | None:
    """Return what 95 % of the items took at most; None if too few were measured to say what is usual."""
    return float(np.quantile(durations, _HIGH)) if len(durations) >= _LEAST_DURATIONS else None


def too_long(most: float) -> float:
    """Return the seconds above which an item in hand is a straggler: three times what is `usual`, and at least 1 s."""
    return max(_LEAST_SECONDS, _TIMES_USUAL * most)
