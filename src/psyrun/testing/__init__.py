"""Tests for those who write a store or a scheduler: derive from `StoreTests` or `QueueTests`, and pytest does the rest.

They need pytest and Hypothesis: ``pip install 'psyrun[testing]'``. Nothing else in psyrun imports this package.
"""

from __future__ import annotations

try:
    import hypothesis  # noqa: F401
    import pytest
except ImportError as error:
    raise ImportError(f"psyrun.testing: {error}. Type: pip install 'psyrun[testing]'") from error

# Failed assertions then show their values, as in files of tests.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in ("contents", "safety", "machine", "schedulers")))

from psyrun.testing.contents import assert_same  # noqa: E402
from psyrun.testing.machine import StoreMachine  # noqa: E402
from psyrun.testing.schedulers import QueueTests  # noqa: E402
from psyrun.testing.stores import StoreTests  # noqa: E402
from psyrun.testing.strategies import ARRAYS, COLUMNS, identities  # noqa: E402

__all__ = ["ARRAYS", "COLUMNS", "QueueTests", "StoreMachine", "StoreTests", "assert_same", "identities"]
