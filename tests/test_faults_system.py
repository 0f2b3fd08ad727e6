"""Renames and listings of a file system that do not tell the truth: nothing is lost, and nothing complete too early."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faults import LATE_LISTINGS, LOST_REPLIES, rarely, run_with
from project import Project
from psyrun.claims import Beat, Claims, Token
from psyrun.collect import write_result
from psyrun.files import renamed, write_json
from psyrun.store import NpzStore
from psyrun.workdir import Workdir


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A work directory that was created."""
    made = Workdir(tmp_path / "psy-work" / "t")
    made.create()
    return made


# Renames


def lose_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every rename happen, and raise."""
    replace = Path.replace

    def lossy(path: Path, target: Path) -> Path:
        replace(path, target)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", lossy)


def refuse_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no rename happen."""

    def refused(path: Path, target: Path) -> Path:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "replace", refused)


def small_file(workdir: Workdir) -> Callable[[], object]:
    write_json(workdir.manifest, {"a": 1})
    return lambda: write_json(workdir.manifest, {"a": 2})


def heartbeat(workdir: Workdir) -> Callable[[], object]:
    beat = Beat(workdir.beats, "0" * 16, 0)
    beat.beat()
    return beat.beat


def archiving(workdir: Workdir) -> Callable[[], object]:
    (workdir.parts / "p").write_text("rows")
    return lambda: workdir.archived(workdir.parts / "p")


def result(workdir: Workdir) -> Callable[[], object]:
    path = workdir.path / "result.npz"
    write_result(path, {"x": np.arange(3)}, NpzStore())
    return lambda: write_result(path, {"x": np.arange(4)}, NpzStore())


def planning(workdir: Workdir) -> Callable[[], object]:
    def commit() -> None:
        with workdir.new_plan(None) as place:
            (place.beside / "plan.json").touch()
            assert place.commit()

    return commit


def withdrawing(workdir: Workdir) -> Callable[[], object]:
    claims = Claims(workdir.plans)
    claims.create([Token(0, 1)])
    return claims.withdraw


OPERATIONS = [small_file, heartbeat, archiving, result, planning, withdrawing]


def names_below(workdir: Workdir) -> list[str]:
    """Return all paths, without what is chosen at random."""
    return sorted(
        re.sub(r"(?<=\d{4}-)[0-9a-f]{8}", "", str(p.relative_to(workdir.path))) for p in workdir.path.rglob("*")
    )


@pytest.mark.parametrize("prepare", OPERATIONS)
def test_a_rename_that_is_reported_as_failed_counts_if_it_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Workdir], Callable[[], object]]
) -> None:
    """What stands there afterwards is what stands there after any other rename."""
    found = []
    for name in ("faultless", "lossy"):
        workdir = Workdir(tmp_path / name)
        workdir.create()
        operation = prepare(workdir)
        with monkeypatch.context() as patch:
            if name == "lossy":
                lose_replies(patch)
            operation()
        found.append(names_below(workdir))
    assert found[0] == found[1]


@pytest.mark.parametrize("prepare", OPERATIONS)
def test_a_rename_that_did_not_happen_is_an_error_that_changes_nothing(
    workdir: Workdir, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[Workdir], Callable[[], object]]
) -> None:
    """Nothing is left beside, but for the heartbeat's, which is written over."""
    operation = prepare(workdir)
    before = {str(p): p.read_bytes() for p in workdir.path.rglob("*") if p.is_file() and "beat" not in str(p)}
    with monkeypatch.context() as patch, pytest.raises(Exception, match="quota"):
        refuse_renames(patch)
        operation()
    assert {str(p): p.read_bytes() for p in workdir.path.rglob("*") if p.is_file() and "beat" not in str(p)} == before


def test_another_file_in_the_place_of_the_target_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is gone, and the target is there, and still the rename did not happen."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.touch()
    target.touch()

    def lost(path: Path, target: Path) -> Path:
        path.unlink()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", lost)
    with pytest.raises(OSError, match="Input/output"):
        renamed(source, target)
    with pytest.raises(FileNotFoundError):
        renamed(source, target)


def test_a_run_whose_renames_all_lose_their_replies_ends_as_any_other(project: Project) -> None:
    """Also a second one, with more items: each is started once."""
    for n in (6, 9):
        project.logging_task(n=n, seconds=0, max_jobs=3)
        done = run_with(project, LOST_REPLIES, "t")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert sorted(project.starts()) == list(range(9))
    assert project.result("t")["y"].tolist() == [x * x for x in range(9)]
    assert project.status("t")["merged"]


# Listings


@pytest.mark.parametrize("lag", [0.4, *rarely(0.15)])
def test_listings_that_lag_never_make_a_run_complete_too_early(project: Project, lag: float) -> None:
    """New names are missing in them, removed ones still there; the same command again, at worst, converges.

    A part that is not shown yet counts for nothing, so its items may be computed twice, but stand in the result once.
    """
    fault = LATE_LISTINGS.format(lag=lag)
    for n in (8, 12):
        project.logging_task(n=n, seconds=0.02, max_jobs=4)
        for _ in range(4):
            done = run_with(project, fault, "t")
            assert "Traceback" not in done.stderr, done.stderr
            assert done.returncode in (0, 75), done.stderr
            if done.returncode == 0:
                break
        told = project.status("t")
        assert (done.returncode, told["n_done"], told["merged"]) == (0, n, True)
        assert project.result("t")["y"].tolist() == [x * x for x in range(n)]
    assert set(project.starts()) == set(range(12))
