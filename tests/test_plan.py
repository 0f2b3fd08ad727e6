"""Plans: what is to be run is written once, and read back the same."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import psyrun
from psyrun.claims import OPEN, Process, Token
from psyrun.errors import TemporaryError
from psyrun.plan import Draft, Mask, Plan, WorkList, packed_mask, ranges_of, tokens_of, unpacked_mask
from psyrun.provenance import git_state, provenance
from psyrun.shell import run_command
from psyrun.tasks import Task, task_from_source
from psyrun.workdir import Workdir

MASKS = hnp.arrays(np.bool_, st.integers(0, 60))
SOURCE = """\
import numpy as np
from psyrun import H5Store, Param

pspace = Param(a=[1, 2, 3]) * Param(b=["x", "y"])
store = H5Store
max_jobs = 2

def execute(a, b):
    return {"y": a}
"""
CONFIG = "min_items = 2\n"


def indices_of(mask: Mask) -> list[int]:
    """Return where a mask is true, one by one."""
    return [i for i, value in enumerate(mask.tolist()) if value]


# Laws


@given(MASKS)
def test_ranges_are_the_runs_of_a_mask(mask: Mask) -> None:
    """In order, not empty, and never touching each other."""
    ranges = ranges_of(mask)
    assert ranges.shape[1:] == (2,)
    assert [i for start, stop in ranges.tolist() for i in range(start, stop)] == indices_of(mask)
    assert (ranges[:, 0] < ranges[:, 1]).all()
    assert (ranges[1:, 0] > ranges[:-1, 1]).all()


@given(MASKS)
def test_a_mask_comes_back_from_its_text(mask: Mask) -> None:
    """The text is safe in JSON."""
    text = packed_mask(mask)
    assert json.loads(json.dumps(text)) == text
    assert np.array_equal(unpacked_mask(text, len(mask)), mask)


def test_the_mask_of_a_large_complete_space_is_short() -> None:
    """It stands in a file that is read often."""
    assert len(packed_mask(np.ones(10**6, dtype=bool))) < 2000


@given(st.lists(st.integers(1, 50), max_size=20))
def test_tokens_cover_all_positions_once(sizes: list[int]) -> None:
    """One after another, each of its size, none of them held."""
    tokens = tokens_of(sizes)
    assert [len(t) for t in tokens] == sizes
    assert [i for t in tokens for i in range(t.first, t.last + 1)] == list(range(sum(sizes)))
    assert all((t.epoch, t.worker) == (0, "") for t in tokens)


@given(MASKS, st.data())
def test_positions_of_the_work_list_name_indices(mask: Mask, data: st.DataObject) -> None:
    """As in a list of them written out."""
    written_out = indices_of(mask)
    work = WorkList(ranges_of(mask))
    assert len(work) == len(written_out)
    if not written_out:
        assert list(work.indices(0, -1)) == []
        return
    first = data.draw(st.integers(0, len(written_out) - 1))
    last = data.draw(st.integers(first, len(written_out) - 1))
    named = list(work.indices(first, last))
    assert [i for start, stop in named for i in range(start, stop)] == written_out[first : last + 1]
    assert all(start < stop for start, stop in named)
    assert all(type(n) is int for pair in named for n in pair)


@given(MASKS, st.lists(st.integers(1, 9), max_size=9))
def test_the_mask_of_tokens_is_that_of_their_items(mask: Mask, sizes: list[int]) -> None:
    """Whichever of them are held."""
    work = WorkList(ranges_of(mask))
    tokens = [t for t in tokens_of(sizes) if t.last < len(work)][::2]
    chosen = [i for t in tokens for i in indices_of(mask)[t.first : t.last + 1]]
    assert indices_of(work.mask(tokens, len(mask))) == sorted(chosen)


# On disk


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task of six items."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return task_from_source("t", tmp_path / "psy-tasks" / "task_t.py", SOURCE, CONFIG, tmp_path)


def written(task: Task, draft: Draft) -> Plan:
    """Put a plan in place and read it."""
    workdir = task.workdir
    workdir.create()
    with workdir.new_plan(None) as place:
        draft.write(place, task, {"host": "here"})
        assert place.commit()
    return Plan.read(place.path)


def draft_of(task: Task, todo: list[int], sizes: list[int]) -> Draft:
    """Return a plan for some items of a task."""
    mask = np.zeros(len(task.pspace), dtype=bool)
    mask[todo] = True
    keys, index = np.array([[1, 2], [3, 4]], dtype=np.uint64), np.array([5, 0])
    return Draft(ranges_of(mask), sizes, [task.code, "other"], keys, index)


def test_a_plan_is_read_as_it_was_written(task: Task) -> None:
    """What to run, in which chunks, for which code and space, and where it came from."""
    plan = written(task, draft_of(task, [0, 1, 3, 5], [2, 1, 1]))
    assert (plan.id, plan.code, plan.space) == ("0001", task.code, task.pspace.digest)
    assert (plan.n_items, plan.n_work, plan.n_chunks) == (6, 4, 3)
    assert plan.accepts == [task.code, "other"]
    assert plan.parameters == ["a", "b"]
    assert plan.content["provenance"] == {"host": "here"}
    assert Process(**plan.content["planner"]) == Process.current()
    assert len(plan.uid) == 16
    assert plan.content["options"]["min_items"] == "2"
    assert plan.content["store"] == "psyrun.store.h5:H5Store"
    assert plan.work().ranges.tolist() == [[0, 2], [3, 4], [5, 6]]
    assert plan.tokens() == plan.claims().tokens(OPEN) == [Token(0, 1), Token(2, 2), Token(3, 3)]
    keys, index = plan.placed()
    assert keys.tolist() == [[1, 2], [3, 4]]
    assert index.tolist() == [5, 0]


def test_the_files_of_a_plan(task: Task) -> None:
    """All there is; nothing is pickled."""
    plan = written(task, draft_of(task, [0], [1]))
    assert sorted(os.listdir(plan.path)) == sorted(
        ["plan.json", "work.npz", "task.py", "psy-conf.py", "open", "held", "done"]
    )
    assert (plan.path / "task.py").read_text() == SOURCE
    assert (plan.path / "psy-conf.py").read_text() == CONFIG
    with np.load(plan.path / "work.npz", allow_pickle=False) as archive:
        assert {name: (archive[name].dtype.str, archive[name].shape) for name in archive.files} == {
            "ranges": ("<i8", (1, 2)),
            "sizes": ("<i8", (1,)),
            "keys": ("<u8", (2, 2)),
            "index": ("<i8", (2,)),
            "seconds": ("<f4", (0,)),
        }


def test_a_worker_runs_the_copy_of_the_task_file(task: Task) -> None:
    """As if it stood where the user has it; what the user changed since does not matter."""
    plan = written(task, draft_of(task, [0], [1]))
    again = plan.task()
    assert (again.name, again.path, again.cwd) == (task.name, task.path, task.cwd)
    assert (again.code, again.pspace.digest) == (task.code, task.pspace.digest)
    assert again.options["min_items"] == 2
    assert again.execute.__globals__["__file__"] == str(task.path)


def test_a_plan_with_nothing_to_run_is_a_plan(task: Task) -> None:
    """It tells which rows count."""
    plan = written(task, draft_of(task, [], []))
    assert (plan.n_work, plan.tokens(), len(plan.work())) == (0, [], 0)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"format": 1, "keys": 1}'])
def test_a_plan_that_cannot_be_read_is_a_temporary_error(content: str) -> None:
    """The same command later may find it whole, or make another."""
    with tempfile.TemporaryDirectory() as path:
        (Path(path) / "plan.json").write_text(content)
        with pytest.raises(TemporaryError, match="plan cannot be read"):
            Plan.read(Path(path))


@pytest.mark.parametrize("content", [{"format": 2, "keys": 1}, {"format": 1, "keys": 2}])
def test_a_plan_of_another_version_is_not_taken(tmp_path: Path, content: dict[str, int]) -> None:
    """The message says so."""
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(TemporaryError, match="another version"):
        Plan.read(tmp_path)


def test_a_plan_is_for_its_owner_only(task: Task) -> None:
    """Like all of the work directory."""
    plan = written(task, draft_of(task, [0], [1]))
    assert plan.path.stat().st_mode & 0o777 == 0o700
    assert Workdir(task.workdir.path).plan_ids() == ["0001"]


# Where plans come from


def test_where_a_plan_comes_from_can_be_told_later(tmp_path: Path) -> None:
    """Versions, machine, command line; and no commit outside a checkout."""
    found = provenance(tmp_path)
    assert found == json.loads(json.dumps(found))
    assert found["versions"]["psyrun"] == psyrun.__version__
    assert found["command"] == sys.argv
    assert found["git"] is None


@pytest.mark.skipif(run_command(["git", "--version"]).status != 0, reason="needs git")
def test_the_commit_of_a_checkout_and_whether_it_was_changed(tmp_path: Path) -> None:
    """Also for a directory inside it."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_text("1")
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        assert run_command(["git", *words], cwd=tmp_path).status == 0
    commit = run_command(["git", "rev-parse", "HEAD"], cwd=tmp_path).output.strip()
    (tmp_path / "a" / "untracked").touch()
    assert git_state(tmp_path / "a") == {"commit": commit, "dirty": False}
    (tmp_path / "a" / "f").write_text("2")
    assert git_state(tmp_path / "a") == {"commit": commit, "dirty": True}


def test_what_programs_answer() -> None:
    """Status, output and errors; whatever goes wrong is an answer too."""
    python = sys.executable
    assert run_command([python, "-c", "import sys; print(input()); sys.exit(3)"], stdin="a; b").output == "a; b\n"
    assert run_command([python, "-c", "raise SystemExit(3)"]).status == 3
    assert run_command([python, "-c", "print(input())"]).status == 1
    assert run_command([python, "-c", "import os; os.write(1, bytes([255]))"]).output == "\\xff"
    assert run_command(["/no/such/program"]).status == 127
    assert run_command(["/"]).status == 127
    slow = run_command([python, "-c", "import time; time.sleep(9)"], timeout=0.1)
    assert (slow.status, slow.errors) == (124, f"{python} gave no answer within 0.1 s")
