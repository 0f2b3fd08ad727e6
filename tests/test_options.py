"""The options of task files: one table says what each takes, and wrong ones are told by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun import (
    DistributeBackend,
    H5Store,
    ImmediateRun,
    LoadBalancingBackend,
    Multiprocessing,
    NpzStore,
    Param,
    PickleStore,
    Sqsub,
)
from psyrun.errors import TaskError
from psyrun.options import OPTIONS, resolved, template
from psyrun.slips import one_slip, slip

REQUIRED: dict[str, Any] = {"pspace": Param(x=[1]), "execute": lambda x: {}}


def options(**given_: Any) -> dict[str, Any]:
    """Return the values of all options of a task."""
    return resolved(REQUIRED | given_, "t")


# Values


def test_defaults() -> None:
    """Those of psyrun 0.8, but for the store."""
    values = options()
    expected: dict[str, Any] = {
        "setup": None,
        "max_jobs": 100,
        "min_items": 1,
        "pool_size": 1,
        "scheduler_args": {},
        "python": None,
    }
    expected |= {"workdir": "psy-work", "resultfile": None, "file_dep": (), "exclude_from_result": ()}
    expected |= {"overwrite_dirty": False}
    assert {name: values[name] for name in expected} == expected
    assert type(values["store"]) is NpzStore
    assert type(values["backend"]) is DistributeBackend
    assert type(values["scheduler"]) is ImmediateRun
    assert list(values) == list(OPTIONS)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("store", H5Store),
        ("store", PickleStore),
        ("backend", LoadBalancingBackend),
        ("scheduler", Multiprocessing),
    ],
)
def test_a_class_is_as_good_as_an_instance(name: str, kind: Callable[[], Any]) -> None:
    """Task files of psyrun 0.8 name the classes of backends."""
    assert isinstance(options(**{name: kind})[name], type(kind()))
    instance = kind()
    assert options(**{name: instance})[name] is instance


def test_a_class_that_needs_arguments_says_so() -> None:
    """The message names the option and what is missing."""
    with pytest.raises(TaskError, match=r"scheduler = Sqsub: .*'workdir'.*Give an instance"):
        options(scheduler=Sqsub)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_jobs", np.int64(5)),
        ("overwrite_dirty", np.True_),
        ("workdir", np.str_("work")),
    ],
)
def test_numpy_scalars_are_what_they_stand_for(name: str, value: Any) -> None:
    """They come out of calculations in task files, and go into JSON."""
    found = options(**{name: value})[name]
    assert found == value
    assert type(found) is type(value.item())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workdir", Path("/scratch")),
        ("resultfile", Path("r.npz")),
        ("python", "/usr/bin/python3"),
        ("file_dep", ["a.csv", Path("b.csv")]),
        ("exclude_from_result", ("a", "b")),
        ("scheduler_args", {"timelimit": "10m"}),
        ("setup", lambda proc_id: None),
        ("name", "t"),
    ],
)
def test_values_that_are_taken(name: str, value: Any) -> None:
    """They are used as they are."""
    assert options(**{name: value})[name] is value


WRONG: dict[str, list[Any]] = {
    "pspace": [[1, 2], {"x": [1]}, Param, None],
    "execute": [None, 3, "execute"],
    "setup": [3, {}],
    "max_jobs": [0, -1, 1.5, "4", True, None, [4]],
    "min_items": [0, 2.0, None],
    "pool_size": [0, "all"],
    "store": ["npz", dict, None, ImmediateRun()],
    "backend": ["distribute", NpzStore(), int],
    "cost": [3, "seconds"],
    "scheduler": [3, NpzStore, print],
    "scheduler_args": ["-t 10", [("timelimit", 1)], None],
    "prologue": ["module load python", ["a\nb"], [3], None],
    "resubmit": [-1, 1.5, "3", True, None],
    "timeout": ["", "10", "10 minutes", 0, -1, "0m", True, [600], float("inf")],
    "seed": [-1, 1.5, "1", True, None, 2**63],
    "retries": [3, {"exception": 3000}, {"exceptions": 1}, {"crash": -1}, {"lost": True}, None],
    "confirm_above": ["1000", "many", -1, True, [1]],
    "early_stop": ["no", 1, None],
    "python": [3, ""],
    "workdir": ["", None, 3],
    "resultfile": ["", 3],
    "file_dep": ["data.csv", [3], None, [""], Path("data.csv")],
    "exclude_from_result": ["x", [3], None],
    "added": [["noise"], "noise", None],
    "overwrite_dirty": ["yes", 1, None],
    "name": [3, None],
}


def test_every_option_has_wrong_values() -> None:
    """The table below is complete."""
    assert set(WRONG) == set(OPTIONS)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_told_with_what_the_option_takes(name: str, value: Any) -> None:
    """What was got, and what is taken."""
    with pytest.raises(TaskError, match=f"^{name} = .*: takes {re.escape(OPTIONS[name].takes)}$"):
        options(**{name: value})


@pytest.mark.parametrize("name", ["pspace", "execute"])
def test_what_is_required_must_be_there(name: str) -> None:
    """The message says what it should be."""
    given_ = {other: value for other, value in REQUIRED.items() if other != name}
    with pytest.raises(TaskError, match=f"^{name} is missing: {re.escape(OPTIONS[name].takes)}$"):
        resolved(given_, "t")


def test_a_name_that_disagrees_with_the_file_is_an_error() -> None:
    """Which of the two is meant only the user knows."""
    with pytest.raises(TaskError, match=r"name = 'other', but the file is that of 't'. Remove the line, or rename"):
        options(name="other")


def test_the_scheduler_checks_its_arguments() -> None:
    """When the task is loaded, not when a job is submitted."""

    class Picky(ImmediateRun):
        def check(self, scheduler_args: Any) -> None:
            raise TaskError(f"takes no {list(scheduler_args)}")

    with pytest.raises(TaskError, match="memory"):
        options(scheduler=Picky, scheduler_args={"memory": "1G"})


# Slips

WORDS = st.text("abc_", max_size=6)


@given(WORDS, WORDS)
def test_a_slip_goes_both_ways(typed: str, meant: str) -> None:
    """What was typed may have one letter more or less; a word is no slip of itself."""
    assert one_slip(typed, meant) == one_slip(meant, typed)
    assert not one_slip(typed, typed)


@given(WORDS, st.integers(0, 5), st.sampled_from("abc_"))
def test_one_change_is_a_slip(word: str, at: int, letter: str) -> None:
    """One letter left out, put in, or mistaken; two letters swapped."""
    head, tail = word[:at], word[at:]
    changes = {head + tail[1:], head + letter + tail, head + letter + tail[1:], head + tail[1::-1] + tail[2:]}
    assert all(one_slip(changed, word) for changed in changes - {word})


@given(WORDS, WORDS)
def test_two_letters_in_length_are_no_slip(typed: str, more: str) -> None:
    """Those are other words."""
    assert not one_slip(typed, typed + "x" + more + "x")


def found(source: str) -> tuple[int, str, str] | None:
    """Return the slip of a source text."""
    return slip(ast.parse(source))


@pytest.mark.parametrize(
    ("source", "line", "typed", "meant"),
    [
        ("max_job = 4", 1, "max_job", "max_jobs"),
        ("x = 1\nmin_item: int = 4", 2, "min_item", "min_items"),
        ("pspcae = 4", 1, "pspcae", "pspace"),
        ("if True:\n    sheduler = 3", 2, "sheduler", "scheduler"),
        ("a, stor = 1, 2", 1, "stor", "store"),
        ("def setup_(): pass\nworkdri = 'a'", 2, "workdri", "workdir"),
    ],
)
def test_a_global_that_is_nearly_an_option_is_told(source: str, line: int, typed: str, meant: str) -> None:
    """With its line, and the option that was meant."""
    assert found(source) == (line, typed, meant)


@pytest.mark.parametrize(
    "source",
    [
        "max_jobs = 4",
        "max_job = 4\nprint(max_job)",
        "max_job = 4\ndef execute(x):\n    return max_job",
        "def execute(x):\n    stored = name_ = x\n    return x",
        "async def execute(x):\n    stored = x",
        "class A:\n    max_job = 4",
        "if True:\n    def helper():\n        max_job = 4",
        "maximum = 4",
        "import stores",
    ],
)
def test_names_that_mean_something_else_are_left_alone(source: str) -> None:
    """What the file reads itself, and what is not global."""
    assert found(source) is None


# The template


def test_the_template_is_a_task_file() -> None:
    """Its space and function fit, and its options are the defaults."""
    names: dict[str, Any] = {}
    exec(template("square"), names)
    values = resolved(names, "square")
    assert values["execute"](**values["pspace"][0]) == {"y": 10}
    assert "square" in names["__doc__"]
    assert slip(ast.parse(template("square"))) is None


def test_the_template_shows_every_option() -> None:
    """With its default, commented out; without the # the file does the same."""
    lines = template("square").splitlines()
    shown = [line for line in lines if re.match(r"# \w+ = ", line)]
    assert [line.split()[1] for line in shown] == [o.name for o in OPTIONS.values() if not o.required]
    names: dict[str, Any] = {}
    exec("\n".join(line.removeprefix("# ") if line in shown else line for line in lines), names)
    values = resolved(names, "square")
    assert {n: repr(v) for n, v in values.items() if n not in REQUIRED} == {
        n: repr(v) for n, v in options().items() if n not in REQUIRED
    }


def test_every_option_is_explained() -> None:
    """In the template, and wherever else the table is shown."""
    text = template("square")
    for option in OPTIONS.values():
        assert option.doc.endswith(".")
        assert option.takes
        assert option.required or option.doc in text
