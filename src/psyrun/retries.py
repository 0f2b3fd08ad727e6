"""How often what fails is tried again within a run: a budget for each class of failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST = 100
DEFAULTS = {"exception": 0, "memory": 0, "time limit": 0, "crash": 2, "lost": 5, "unreadable": 1}
"""By class: execute raised; there was not enough memory; it took longer than `timeout`; its process died; a worker
ended without finishing a chunk (never charged to an item); rows of this run cannot be read."""


def are_retries(value: Any) -> bool:
    """Whether a value gives budgets for classes of failures."""
    if not isinstance(value, Mapping) or not value.keys() <= DEFAULTS.keys():
        return False
    return all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= _MOST for n in value.values())


def budgets(given: Mapping[str, int] | None) -> dict[str, int]:
    """Return the budget of every class."""
    return {**DEFAULTS, **(given or {})}


def class_of(exception: str) -> str:
    """Return the class of failures of an exception's name.

    >>> class_of('ValueError'), class_of('MemoryError'), class_of('OutOfMemoryError')
    ('exception', 'memory', 'memory')
    """
    return "memory" if exception == "MemoryError" or "OutOfMemory" in exception else "exception"
