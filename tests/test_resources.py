"""What a job asks for: times, memory, ladders, and what is said of a wrong word."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.errors import TaskError
from psyrun.scheduler.resources import RESOURCES, SAMPLE_NAME, check, mebibytes, n_rungs, resolved, time_limit


def refused(args: dict[str, Any], taken: list[str] | None = None) -> str:
    """Return what is said of arguments that are wrong."""
    with pytest.raises(TaskError) as told:
        check(args, taken or list(RESOURCES), "Slurm")
    return str(told.value)


# Times and memory


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        *[("10m", 600), ("1h30m", 5400), ("2d", 172800), (90, 90), (0.2, 1), (59.01, 60), ("1.5h", 5400)],
        *[("10", 600), ("10:30", 630), ("01:00:00", 3600), ("100:00:00", 360000), (" 5 ", 300)],
        *[("1-0", 86400), ("1-06", 108000), ("1-06:30", 109800), ("1-06:30:15", 109815), ("0-00:01", 60)],
    ],
)
def test_times(given_: Any, expected: int) -> None:
    """As people write them, and as Slurm does; seconds are rounded up, so that no job gets less than asked."""
    assert time_limit(given_) == expected


@given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_a_time_is_the_same_in_both_ways(d: int, h: int, m: int, s: int) -> None:
    """Terms, and Slurm's longest form."""
    assert time_limit(f"{d}-{h:02}:{m:02}:{s:02}") == time_limit(f"{d}d{h}h{m}m{s}s")


@pytest.mark.parametrize(
    "given_", ["", "0", "0:00", "0-0", "1-", "-1", "1:2:3:4", "1-2:3:4:5", "soon", "INFINITE", 0, -1, True, [], "1:m"]
)
def test_what_is_no_time(given_: Any) -> None:
    """No limit at all is to leave the option out."""
    with pytest.raises(ValueError, match="is no time"):
        time_limit(given_)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        *[("512M", 512), ("512MB", 512), ("512mib", 512), ("1G", 1024), ("1.5GB", 1536), ("1T", 1024**2)],
        *[("100K", 1), ("1025K", 2), ("512", 512), (512, 512), (0.5, 1), ("1.0001G", 1025), (" 2 G ", 2048)],
    ],
)
def test_memory(given_: Any, expected: int) -> None:
    """Units are those of Slurm, 1024 times each other; a bare number is one of megabytes."""
    assert mebibytes(given_) == expected


@pytest.mark.parametrize("given_", ["", "0", "0G", "G", "-1G", "1P", "1 G B", "much", 0, -5, True, None, float("nan")])
def test_what_is_no_memory(given_: Any) -> None:
    """Zero would ask Slurm for a whole node."""
    with pytest.raises(ValueError, match="is no amount"):
        mebibytes(given_)


# Checks


def test_what_psyrun_0_8_took_is_taken() -> None:
    """Its names, hyphens included."""
    args = {
        "timelimit": "10m",
        "memory": "512M",
        "memory_per_cpu": "1G",
        "n_cpus": 2,
        "n_nodes": 1,
        "cores-per-socket": 4,
        "sockets-per-node": "2",
    }
    check(args, list(RESOURCES), "Slurm")
    assert resolved(args, "a") == {
        "timelimit": 600,
        "memory": 512,
        "memory_per_cpu": 1024,
        "n_cpus": 2,
        "n_nodes": 1,
        "cores_per_socket": 4,
        "sockets_per_node": 2,
    }


def test_every_resource_is_checked_and_can_be_given() -> None:
    """One good value of each; and None is as not given."""
    good: dict[str, Any] = dict.fromkeys(RESOURCES, "1")
    good |= {"extra": ["--exclusive", "-Cgpu"], "exclude": ["n1", "n[3-4]"], "mail_type": ["END", "FAIL"], "nice": 0}
    check(good, list(RESOURCES), "Slurm")
    values = resolved(good, "a")
    assert set(values) == set(RESOURCES)
    assert values["extra"] == ["--exclusive", "-Cgpu"]
    assert values["exclude"] == "n1,n[3-4]"
    assert values["mail_type"] == "END,FAIL"
    assert resolved(dict.fromkeys(RESOURCES), "a") == {}


def test_a_name_with_a_typing_error() -> None:
    """It is not silently left out; the one that was meant is told."""
    assert refused({"time_limit": "10m"}) == "scheduler_args: Slurm takes no 'time_limit'. Did you mean 'timelimit'?"
    assert "It takes memory, timelimit" in refused({"zzz": 1}, ["timelimit", "memory"])
    assert "Slurm takes no 3" in refused({3: 1})  # type: ignore[dict-item]


def test_a_name_that_this_scheduler_does_not_take() -> None:
    """Others may."""
    assert "takes no 'gpus'. It takes memory, timelimit" in refused({"gpus": 1}, ["timelimit", "memory"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("timelimit", "soon"), ("memory", "much"), ("n_cpus", 0), ("n_cpus", 1.5), ("n_cpus", True), ("nice", -1)],
        *[("partition", "a\nb"), ("partition", "a\0b"), ("account", "-a"), ("qos", ""), ("mail_user", 3)],
        *[("exclude", ["n1", "-n2"]), ("exclude", []), ("exclude", [3]), ("gpus", "a100:0"), ("gpus", "a b")],
        *[("extra", "--x"), ("extra", ["x"]), ("extra", ["--"]), ("extra", ["-"]), ("extra", ["--a\n--b"])],
        *[("dependency", "afterok:1\r"), ("throttle", 0)],
    ],
)
def test_wrong_values(name: str, value: Any) -> None:
    """The error names the option, what was given and what is taken."""
    told = refused({name: value})
    assert told.startswith(f"scheduler_args[{name!r}] = {value!r}")
    assert told.endswith(f"takes {RESOURCES[name].takes}")


def test_the_same_twice() -> None:
    """In both spellings."""
    assert "given twice" in refused({"cores-per-socket": 1, "cores_per_socket": 2})


# Ladders and functions


def test_a_ladder_is_climbed_and_ends() -> None:
    """Each option has its own; after the end of one it stays at its last."""
    args = {"memory": ["1G", "2G", "4G"], "timelimit": ("1m", "2m"), "n_cpus": 3}
    assert n_rungs(args) == 3
    assert n_rungs({}) == 1
    assert [resolved(args, "a", rung) for rung in range(5)] == [
        {"memory": 1024, "timelimit": 60, "n_cpus": 3},
        {"memory": 2048, "timelimit": 120, "n_cpus": 3},
        *[{"memory": 4096, "timelimit": 120, "n_cpus": 3}] * 3,
    ]


def test_every_rung_is_checked() -> None:
    """The last is needed hours later."""
    assert "'much'" in refused({"memory": ["1G", "much"]})
    assert "for each attempt" in refused({"memory": []})


def test_a_list_is_the_value_where_the_option_is_one() -> None:
    """Nodes to leave out are no ladder."""
    assert n_rungs({"exclude": ["n1", "n2"], "extra": ["--a", "--b"]}) == 1


def test_functions_are_called_with_the_name_of_the_job() -> None:
    """As in psyrun 0.8; what they give is checked as any value, also for a name that is there before any job."""
    args = {"timelimit": lambda name: "1h" if "merge" in name else "10m"}
    assert resolved(args, "a:merge") == {"timelimit": 3600}
    assert resolved(args, "a:process:0") == {"timelimit": 600}
    assert f"({SAMPLE_NAME!r}) = 'soon': takes a time" in refused({"timelimit": lambda name: "soon"})
    assert "raised KeyError: 'task:process:0'" in refused({"timelimit": lambda name: {}[name]})
