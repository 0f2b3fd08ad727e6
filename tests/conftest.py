"""Hypothesis: few examples, so that all laws together take seconds; many with ``--hypothesis-profile=thorough``.

Tests that are marked as long, or need a real Slurm, run only where ``-m`` names them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from slurmcluster import SlurmCluster
    from slurmproject import SlurmProject

settings.register_profile(
    "psyrun",
    max_examples=60,
    deadline=None,
    # Classes that derive from a contract run its laws each with its own store.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.register_profile("thorough", settings.get_profile("psyrun"), max_examples=2000)
settings.load_profile("psyrun")


# What takes minutes, or needs more than Python.
ONLY_WHEN_NAMED = ("long", "slurm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests with markers that ``-m`` does not name, whatever else is selected."""
    for marker in ONLY_WHEN_NAMED:
        if re.search(rf"\b{marker}\b", config.option.markexpr):
            continue
        left_out = [item for item in items if item.get_closest_marker(marker)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """Start a real Slurm of three nodes; where that cannot be, tests fail."""
    from slurmcluster import slurm_cluster

    with ExitStack() as stack:
        problem = ""
        try:
            cluster = stack.enter_context(slurm_cluster())
        except RuntimeError as error:
            problem = str(error)
        if problem:
            pytest.fail(problem, pytrace=False)
        yield cluster


@pytest.fixture(scope="module")
def jobs_of_others(slurm: SlurmCluster) -> Iterator[dict[str, str]]:
    """Have jobs in the queue that are none of ours; give the state of each."""
    from slurmproject import jobs_of_others

    with jobs_of_others(slurm) as jobs:
        yield jobs


@pytest.fixture
def farm(slurm: SlurmCluster, jobs_of_others: dict[str, str], tmp_path: Path) -> Iterator[SlurmProject]:
    """Return a project on a real Slurm; whatever is done there, the jobs of others are as they were."""
    from slurmproject import SlurmProject, states_of

    (tmp_path / "farm").mkdir()
    project = SlurmProject(tmp_path / "farm", slurm)
    yield project
    project.close()
    assert states_of(slurm, jobs_of_others) == list(jobs_of_others.values()), "a job of others was touched"
