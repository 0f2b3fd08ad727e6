"""Hypothesis: few examples, so that all laws together take seconds; many with ``--hypothesis-profile=thorough``."""

from __future__ import annotations

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
