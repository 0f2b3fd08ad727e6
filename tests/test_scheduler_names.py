"""Which scheduler a name gets."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest

from psyrun.errors import TaskError
from psyrun.options import resolved
from psyrun.pspace import Param
from psyrun.scheduler import ImmediateRun, Multiprocessing, Scheduler, Slurm, Sqsub
from psyrun.scheduler.registry import named

OURS = {"immediate": ImmediateRun, "multiprocessing": Multiprocessing, "slurm": Slurm, "sqsub": Sqsub}


def scheduler(given: Any, **more: Any) -> Scheduler:
    """Return the scheduler of a task file that says so."""
    options = {"pspace": Param(x=[1]), "execute": lambda x: {}, "scheduler": given, **more}
    return resolved(options, "t")["scheduler"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["immediate", "multiprocessing", "slurm", "SLURM"])
def test_a_name_is_as_good_as_an_instance(name: str) -> None:
    """In letters of any case."""
    assert type(scheduler(name)) is OURS[name.lower()]


def test_its_arguments_are_checked_as_of_any() -> None:
    """By the scheduler that is meant."""
    with pytest.raises(TaskError, match="takes no 'memroy'"):
        scheduler("slurm", scheduler_args={"memroy": "1G"})


def test_a_scheduler_that_needs_arguments_says_so() -> None:
    """A name gives it none."""
    with pytest.raises(TaskError, match=r"scheduler = Sqsub: .*'workdir'.*Give an instance"):
        scheduler("sqsub")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("slrum", "scheduler = 'slrum': there is none of that name. Did you mean 'slurm'? There are immediate, "),
        ("", "scheduler = '': there is none of that name. There are immediate, multiprocessing, slurm, sqsub"),
    ],
)
def test_an_unknown_name_is_an_error(name: str, told: str) -> None:
    """It says which there are."""
    with pytest.raises(TaskError, match=re.escape(told)):
        scheduler(name)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with several schedulers, one of them good."""
    information = tmp_path / "other-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[psyrun.schedulers]\nTide = schedulers_of_other:Tide\nbad = not_there:Queue\nodd = builtins:dict\n"
        "slurm = not_there:Queue\n"
    )
    (tmp_path / "schedulers_of_other.py").write_text(
        "from psyrun.scheduler import ImmediateRun\nclass Tide(ImmediateRun):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_other_packages_bring_schedulers() -> None:
    """By entry points; they cannot take ours over."""
    assert type(scheduler("tide")).__name__ == "Tide"
    assert type(scheduler("slurm")) is Slurm
    with pytest.raises(TaskError, match=r"Did you mean 'tide'\? There are bad, immediate, .*, odd, .*, tide"):
        scheduler("tied")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("bad", "scheduler = 'bad': the package other has none that works: ModuleNotFoundError: No module named"),
        ("odd", "scheduler = 'odd': what the package other has is no psyrun.scheduler.Scheduler: <class 'dict'>"),
    ],
)
def test_a_broken_package_is_named(name: str, told: str) -> None:
    """When it is asked for."""
    with pytest.raises(TaskError, match=re.escape(told)):
        scheduler(name)


def test_our_own_are_entry_points_too() -> None:
    """The same ones, for whoever looks there."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    section = text.split('[project.entry-points."psyrun.schedulers"]\n')[1].split("\n\n")[0]
    found = dict(re.findall(r"(.+) = \"(.+)\"", section))
    assert {
        name: importlib.metadata.EntryPoint(name, value, "psyrun.schedulers").load() for name, value in found.items()
    } == {name: named(name) for name in OURS}
    assert {name: named(name) for name in OURS} == OURS
