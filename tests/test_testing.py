"""The contract of stores: another store can pass it, and one with a mistake does not."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import toy_stores
from psyrun.testing import StoreTests, identities
from psyrun.testing.safety import Trap
from psyrun.testing.strategies import Pieces


class TestToyStore(StoreTests):
    """Two methods make a store."""

    store = toy_stores.ToyStore()


# Another project: its settings of Hypothesis, and its tests. To see that a test fails takes no smallest example.
CONFTEST = """
from hypothesis import Phase, settings
settings.register_profile("quick", phases=[Phase.generate], database=None)
settings.load_profile("quick")
"""
TESTS = "from psyrun.testing import StoreTests\nimport toy_stores\n" + "".join(
    f"class Test{store.__name__}(StoreTests):\n    store = toy_stores.{store.__name__}()\n"
    for store in toy_stores.FAILS
)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Return which tests of which mistaken stores fail."""
    project = tmp_path_factory.mktemp("project")
    (project / "conftest.py").write_text(CONFTEST)
    (project / "test_toys.py").write_text(TESTS)
    chosen = [f"test_toys.py::Test{store.__name__}::{test}" for store, test in toy_stores.FAILS.items()]
    command = [sys.executable, "-m", "pytest", "-p", "no:nengo", "--tb=no", "-rf", *chosen]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    told = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert told.returncode == pytest.ExitCode.TESTS_FAILED, told.stdout + told.stderr
    return set(re.findall(r"^FAILED .*::Test(\w+)::(\w+)", told.stdout, re.MULTILINE))


@pytest.mark.parametrize(("store", "test"), toy_stores.FAILS.items())
def test_a_mistake_is_found(store: type, test: str, failed: set[tuple[str, str]]) -> None:
    """Each by the test that is there for it."""
    assert (store.__name__, test) in failed


def test_the_trap_works(tmp_path: Path) -> None:
    """Otherwise a test that it is not sprung would show nothing."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


def test_identities_tell_numbers_from_text_and_doubles_from_near_ones() -> None:
    """What compares values can itself be wrong."""
    different = [0, 1, "1", b"1", 2**53, 2**53 + 1, float("nan"), None, [1], [[1]], [], np.datetime64(1, "s"), {"a": 1}]
    found = identities(different)
    assert all(found[i] != found[j] for i in range(len(found)) for j in range(i))
    assert len(set(identities([1, 1.0, True, np.float32(1), np.uint64(1)]))) == 1


def test_pieces_are_the_column() -> None:
    """In order, as often as one asks; they are counted while they are held."""
    pieces = Pieces(np.arange(5), 3)
    for _ in range(2):
        assert [piece.tolist() for piece in pieces.pieces()] == [[0, 1], [2, 3], [4]]
    assert pieces.most_held == 1
    assert len(list(pieces.pieces())) == pieces.most_held == 3


@pytest.mark.parametrize("package", ["pytest", "hypothesis"])
def test_what_is_missing_is_named(package: str) -> None:
    """With what to type."""
    program = f"import sys; sys.modules['{package}'] = None; import psyrun.testing"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert re.search(rf"ImportError: psyrun\.testing: .*{package}.*pip install 'psyrun\[testing\]'$", told.stderr)
