"""Backends: every item is in exactly one chunk, and chunks are neither too many nor too small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.backend import Backend, DistributeBackend, LoadBalancingBackend

ITEMS = st.integers(0, 5000)
JOBS = st.integers(1, 200)
LEAST = st.integers(1, 300)


@given(ITEMS, JOBS, LEAST)
def test_the_fixed_backend_deals_evenly(n_items: int, max_jobs: int, min_items: int) -> None:
    """As many chunks as allowed, of sizes that differ by at most one, the larger first."""
    sizes = DistributeBackend().sizes(n_items, max_jobs, min_items)
    assert sum(sizes) == n_items
    assert len(sizes) == min(max_jobs, -(-n_items // min_items))
    assert all(size >= 1 for size in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert sizes == sorted(sizes, reverse=True)


@given(ITEMS, JOBS, LEAST)
def test_the_balancing_backend_begins_large_and_ends_small(n_items: int, max_jobs: int, min_items: int) -> None:
    """Only the last chunk may be smaller than asked for; the first ones leave half of the work for later."""
    sizes = LoadBalancingBackend().sizes(n_items, max_jobs, min_items)
    assert sum(sizes) == n_items
    assert all(size >= min_items for size in sizes[:-1])
    assert all(size >= 1 for size in sizes)
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes, default=0) <= max(min_items, -(-n_items // (2 * max_jobs)))


@given(st.integers(1, 10**6), JOBS)
def test_the_number_of_chunks_grows_with_the_logarithm_of_the_items(n_items: int, max_jobs: int) -> None:
    """A chunk is a file: a million items must not be a million files."""
    sizes = LoadBalancingBackend().sizes(n_items, max_jobs, 1)
    assert len(sizes) <= 2 * max_jobs * (n_items.bit_length() + 1)


@given(st.lists(st.floats(1e-6, 1e6), max_size=300), st.integers(1, 20), st.integers(1, 9))
def test_where_times_are_known_chunks_take_ever_shorter(times: list[float], max_jobs: int, min_items: int) -> None:
    """No chunk but a single item, or the fewest that are allowed, takes more than a fair share of the rest."""
    seconds = np.maximum(times, np.mean(times) / 1000 if times else 0)
    sizes = LoadBalancingBackend().sizes_by_seconds(seconds, max_jobs, min_items)
    assert sum(sizes) == len(times)
    assert all(size >= min_items for size in sizes[:-1])
    first = 0
    for size in sizes:
        took, rest = seconds[first : first + size].sum(), seconds[first:].sum()
        assert size <= min_items or took <= rest / max_jobs * 1.001
        first += size


def test_a_million_items_of_known_times_are_not_a_million_chunks() -> None:
    """Nor one chunk, where most take no time at all."""
    seconds = np.sort(np.random.default_rng(1).lognormal(0, 3, 10**6))[::-1]
    assert len(LoadBalancingBackend().sizes_by_seconds(seconds, 8, 1)) < 8 * 40
    seconds[10:] = 1e-9
    sizes = LoadBalancingBackend().sizes_by_seconds(seconds, 8, 1)
    assert sizes[:10] == [1] * 10
    assert 16 < len(sizes) < 8 * 60


def test_the_numbers_of_the_tutorial() -> None:
    """Nine items, six jobs."""
    assert DistributeBackend().sizes(9, 6, 1) == [2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("backend", [DistributeBackend(), LoadBalancingBackend()])
def test_nothing_to_do_makes_no_chunk(backend: Backend) -> None:
    """And a single item makes one, however large chunks should be."""
    assert backend.sizes(0, 100, 1) == []
    assert backend.sizes(1, 100, 10) == [1]
