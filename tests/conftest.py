"""Hypothesis: few examples, so that all laws together take seconds; many with ``--hypothesis-profile=thorough``.

Tests that are marked as long run only where ``-m`` names them.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "psyrun",
    max_examples=60,
    deadline=None,
    # Classes that derive from a contract run its laws each with its own store.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.register_profile("thorough", settings.get_profile("psyrun"), max_examples=2000)
settings.load_profile("psyrun")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long tests, whatever else is selected."""
    if re.search(r"\blong\b", config.option.markexpr):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]
