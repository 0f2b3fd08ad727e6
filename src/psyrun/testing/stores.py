"""The contract of stores, whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from psyrun.store import Store
from psyrun.testing.contents import Contents
from psyrun.testing.safety import Safety


class StoreTests(Contents, Safety):
    """What holds for every store: one is done when a class of this kind passes that has it as its `store`.

    Attributes
    ----------
    store : Store
        The store to test. If it says that it ``holds_objects``, it has to; otherwise it has to refuse them.

    Examples
    --------
    In a file of tests, with a fresh directory for each test by pytest::

        from psyrun.testing import StoreTests

        class TestMine(StoreTests):
            store = MyStore()
    """

    store: Store

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return a place for a file, in a directory of its own."""
        return tmp_path / f"result{self.store.ext}"
