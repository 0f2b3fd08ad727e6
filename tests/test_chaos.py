"""Eight workers of one plan are killed and stopped at random; the next command gives the complete result."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from chaos import Storm
from project import Project

SHORT_ROUNDS = 2
LONG_KILLS = 1000


def _weather(seed: int, n: int, most: int, naps: bool = True, shares: bool = False) -> Storm:
    """Let a storm rage and check what is left; a failure tells the seed and what happened."""
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Project(Path(folder)), seed, n, most, naps, shares)
        try:
            storm.rage()
            storm.check()
        except BaseException:
            print("\n".join(storm.events))
            raise
    return storm


@pytest.mark.kill
@pytest.mark.parametrize("shares", [False, True])
def test_workers_that_are_killed_compute_nothing_on_record_again(shares: bool) -> None:
    """Who takes over looks up what is there."""
    assert _weather(7, n=160, most=15, naps=False, shares=shares).kills > 1


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(SHORT_ROUNDS))
def test_workers_that_are_killed_and_stopped_lose_nothing(seed: int) -> None:
    """Each item is there once, as execute returned it; only what was in flight was started again."""
    assert _weather(seed, n=60, most=20, shares=bool(seed % 2)).kills > 1


@pytest.mark.long
def test_a_thousand_kills_lose_nothing() -> None:
    """The same, for minutes."""
    kills = stops = rounds = 0
    while kills < LONG_KILLS:
        storm = _weather(100 + rounds, n=240, most=50, shares=bool(rounds % 2))
        assert storm.kills > 1
        kills, stops, rounds = kills + storm.kills, stops + storm.stops, rounds + 1
    print(f"{rounds} rounds, {kills} kills, {stops} stops")
