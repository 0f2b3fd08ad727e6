"""Hypothesis: few examples, so that all laws together take seconds, and no deadlines on busy machines."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("psyrun", max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("psyrun")
