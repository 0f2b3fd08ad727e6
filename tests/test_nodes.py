"""Which nodes are left out, told by the logs of jobs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from psyrun.nodes import GAVE_UP, STARTED, broken_nodes, what_ails
from psyrun.workdir import Workdir

GOOD = "psyrun: job {id} on node {node}\npsyrun: " + STARTED + "\n"
BAD = "psyrun: job {id} on node {node}\n/usr/bin/python3: No module named psyrun\n"


def logs(tmp_path: Path, *seen: tuple[str, str]) -> Workdir:
    """Write logs, the oldest first, of pairs of a node and what its job wrote."""
    workdir = Workdir(tmp_path / "t")
    workdir.logs.mkdir(parents=True)
    for number, (node, text) in enumerate(seen):
        path = workdir.logs / f"job-{number}.log"
        path.write_text(text.format(id=number, node=node))
        os.utime(path, (time.time() - 1000 + number,) * 2)
    return workdir


def test_no_logs(tmp_path: Path) -> None:
    """Nothing is known."""
    assert broken_nodes(Workdir(tmp_path / "t")) == ([], "")


def test_all_is_well(tmp_path: Path) -> None:
    """No node is left out; logs of other queues tell no nodes, and foreign ones are overlooked."""
    workdir = logs(tmp_path, ("n1", GOOD), ("n2", GOOD), ("", "something else"), ("", ""))
    (workdir.logs / "0001-0123.log").write_text(BAD)
    (workdir.logs / "job-9.log").write_bytes(b"\xff\0\xfe")
    assert broken_nodes(workdir) == ([], "")


def test_a_broken_node(tmp_path: Path) -> None:
    """Where no worker starts, and elsewhere some do: the message has the last line of a log."""
    workdir = logs(tmp_path, ("n1", GOOD), ("n3", BAD), ("n3", BAD), ("n2", GOOD))
    nodes, told = broken_nodes(workdir)
    assert nodes == ["n3"]
    assert told.startswith("workers end before they start on n3 (")
    assert "job-2.log: /usr/bin/python3: No module named psyrun" in told
    assert told.endswith("left out")


def test_one_that_works_now_and_then(tmp_path: Path) -> None:
    """Is not left out."""
    assert broken_nodes(logs(tmp_path, ("n1", GOOD), ("n3", BAD), ("n3", GOOD)))[0] == []


def test_broken_everywhere(tmp_path: Path) -> None:
    """Then it is not the nodes: none is left out, and it is told."""
    nodes, told = broken_nodes(logs(tmp_path, ("n1", BAD), ("n2", BAD)))
    assert nodes == []
    assert "n1, n2" in told
    assert "No module named psyrun" in told


def test_a_job_that_was_put_back(tmp_path: Path) -> None:
    """Counts for the node where it ran last."""
    nodes, _ = broken_nodes(logs(tmp_path, ("n1", GOOD), ("n3", GOOD.replace("{node}", "n1") + BAD)))
    assert nodes == ["n3"]


def test_long_logs(tmp_path: Path) -> None:
    """The start of a log tells; users may print as much as they like after it."""
    workdir = logs(tmp_path, ("n1", GOOD + "x" * 10**6), ("n2", BAD + "y" * 10**6))
    assert broken_nodes(workdir)[0] == ["n2"]


def test_a_job_that_is_just_starting(tmp_path: Path) -> None:
    """Is no trouble yet: its worker may start."""
    workdir = logs(tmp_path, ("n1", BAD), ("n2", GOOD))
    assert broken_nodes(workdir)[0] == ["n1"]
    assert broken_nodes(workdir, {"0"}) == ([], "")


def test_a_job_that_was_cancelled(tmp_path: Path) -> None:
    """Tells nothing of its node, but for one whose time was over before its worker started."""
    cancelled = (
        "psyrun: job {id} on node {node}\nslurmstepd-n2: error: *** JOB 7 ON n2 CANCELLED AT 2026-11-21T21:16:29"
    )
    assert broken_nodes(logs(tmp_path / "a", ("n2", f"{cancelled} ***\n"), ("n1", GOOD))) == ([], "")
    late = f"{cancelled} DUE TO TIME LIMIT ***\n"
    assert broken_nodes(logs(tmp_path / "b", ("n2", late), ("n1", GOOD)))[0] == ["n2"]


def test_workers_that_give_up(tmp_path: Path) -> None:
    """What the last one said is told, as long as no later one did better; no node is to blame."""
    bad = GOOD + f"psyrun: {GAVE_UP}: task_t.py:7: ModuleNotFoundError: No module named 'x'\n"
    workdir = logs(tmp_path / "a", ("n1", GOOD), ("n2", bad))
    assert broken_nodes(workdir) == ([], "")
    assert what_ails(workdir) == (
        f"the worker gave up: task_t.py:7: ModuleNotFoundError: No module named 'x' ({workdir.logs / 'job-1.log'})"
    )
    assert what_ails(logs(tmp_path / "b", ("n2", bad), ("n1", GOOD))) == ""
    assert what_ails(Workdir(tmp_path / "c")) == ""


def test_one_whose_worker_is_starting(tmp_path: Path) -> None:
    """Is not broken: the job has not ended."""
    workdir = logs(tmp_path, ("n1", GOOD), ("n2", "psyrun: job {id} on node {node}\n"))
    assert broken_nodes(workdir, {"1"}) == ([], "")
    assert broken_nodes(workdir, {"0"})[0] == ["n2"]


def test_long_ago(tmp_path: Path) -> None:
    """It may have been mended since, and nobody would see that where it is left out."""
    workdir = logs(tmp_path, ("n1", GOOD), ("n2", BAD))
    os.utime(workdir.logs / "job-1.log", (time.time() - 90000,) * 2)
    assert broken_nodes(workdir) == ([], "")
