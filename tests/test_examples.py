"""The sample task files of the checkout load, and their first items run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The checkout as the current directory, from which modules can be imported."""
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.syspath_prepend(str(CHECKOUT))
    yield CHECKOUT
    for module in list(sys.modules):
        if module.split(".")[0] == "examples":
            del sys.modules[module]


def load(checkout: Path, name: str) -> dict[str, Any]:
    """Return what a sample task file defines."""
    path = checkout / "psy-tasks" / f"task_{name}.py"
    names: dict[str, Any] = {"__name__": f"task_{name}", "__file__": str(path)}
    exec(compile(path.read_text(), path, "exec"), names)
    return names


@pytest.mark.parametrize("name", ["cc1", "cc2"])
def test_communication_channel_tasks(checkout: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine items, at most six jobs; the first item has the smallest channel and a result of two numbers."""
    pytest.importorskip("nengo")
    task = load(checkout, name)
    assert len(task["pspace"]) == 9
    assert (task["min_items"], task["max_jobs"]) == (1, 6)
    assert task["pspace"][0] == {"D": 2, "N": 10}
    result = task["execute"](**task["pspace"][0])
    assert list(result) == ["rmse", "sim_speed"]
    assert {type(value) for value in result.values()} == {float}
    assert capsys.readouterr().out.startswith("running CommunicationChannel#")


def test_only_cc2_asks_for_a_cluster_and_only_there(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler is set on a named node, and nowhere else."""
    pytest.importorskip("nengo")
    monkeypatch.setattr("platform.node", lambda: "laptop")
    assert "scheduler" not in load(checkout, "cc2")
    monkeypatch.setattr("platform.node", lambda: "saw-login1")
    task = load(checkout, "cc2")
    assert type(task["scheduler"]).__name__ == "Sqsub"
    assert task["scheduler_args"] == {"timelimit": "10m", "memory": "512M"}


class TestCircle:
    """The sample task that needs NumPy alone."""

    @pytest.fixture
    def task(self, checkout: Path) -> dict[str, Any]:
        return load(checkout, "circle")

    def test_its_space(self, task: dict[str, Any]) -> None:
        """A hundred radii, fifty times each, ten items a job or more."""
        assert len(task["pspace"]) == 5000
        assert task["pspace"].parameters == ("radius", "trial")
        assert task["min_items"] == 10

    def test_its_first_item(self, task: dict[str, Any]) -> None:
        """No point falls on a circle without extent; the result is a number and an array."""
        result = task["execute"](**task["pspace"][0])
        assert list(result) == ["area", "inside"]
        assert type(result["area"]) is float
        assert result["area"] == 0
        assert result["inside"].dtype.kind == "i"
        assert result["inside"].tolist() == [0, 0, 0]

    def test_it_estimates_the_area(self, task: dict[str, Any]) -> None:
        """Over its trials, to the standard error that so many points have."""
        items = [task["execute"](radius=1.0, trial=trial) for trial in range(50)]
        points = 50 * task["SAMPLE_SIZES"][-1]
        error = 4 * np.sqrt(np.pi / 4 * (1 - np.pi / 4) / points)
        assert abs(np.mean([item["area"] for item in items]) - np.pi) < 4 * error

    def test_counts_grow_with_the_sample(self, task: dict[str, Any]) -> None:
        """Each count is of the first so many points."""
        for trial in range(10):
            inside = task["execute"](radius=0.7, trial=trial)["inside"]
            assert (np.diff(inside) >= 0).all()
            assert (inside <= task["SAMPLE_SIZES"]).all()

    def test_it_is_reproducible(self, task: dict[str, Any]) -> None:
        """The same assignment gives the same points, whatever NumPy calls its numbers; another one does not."""
        first = task["execute"](radius=0.5, trial=7)
        same = task["execute"](radius=np.float64(0.5), trial=np.int64(7))
        other = task["execute"](radius=0.5, trial=8)
        assert first["inside"].tolist() == same["inside"].tolist()
        assert first["inside"].tolist() != other["inside"].tolist()


class TestCommunicationChannel:
    """The model that the tutorial runs."""

    @pytest.fixture
    def channel(self, checkout: Path) -> Any:
        pytest.importorskip("nengo")
        from examples.communication import CommunicationChannel

        return CommunicationChannel()

    def test_the_seed_decides_the_error(self, channel: Any) -> None:
        """Another run with it gives the same, another seed something else."""
        options = {"N": 20, "T": 0.1, "verbose": False}
        first = channel.run(seed=3, **options)["rmse"]
        assert channel.run(seed=3, **options)["rmse"] == first
        assert channel.run(seed=4, **options)["rmse"] != first

    def test_the_global_generator_has_no_say(self, channel: Any) -> None:
        """Items may be run in any order, in any process."""
        options = {"N": 20, "T": 0.1, "verbose": False}
        first = channel.run(**options)["rmse"]
        np.random.random(5)
        assert channel.run(**options)["rmse"] == first

    def test_without_layers_it_is_its_own_ideal(self, channel: Any) -> None:
        """Output and input are compared in phase, so nothing but neurons makes an error."""
        assert channel.run(L=0, T=0.1, verbose=False)["rmse"] == 0

    def test_more_neurons_make_less_error(self, channel: Any) -> None:
        """As theory has it: the noise of an ensemble falls with its size."""
        few, many = (channel.run(D=2, N=n, T=0.5, verbose=False)["rmse"] for n in (20, 500))
        assert many < few

    def test_it_can_be_silent(self, channel: Any, capsys: pytest.CaptureFixture[str]) -> None:
        """It prints nothing then."""
        channel.run(N=10, T=0.01, verbose=False)
        assert capsys.readouterr().out == ""
