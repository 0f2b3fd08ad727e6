"""Work directories: what is ours is marked, and nothing of anybody is overwritten."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from psyrun import files
from psyrun.errors import RefusedError, TemporaryError
from psyrun.workdir import Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """A work directory that was created."""
    made = Workdir(tmp_path / "psy-work" / "t")
    made.create()
    return made


def mode(path: Path) -> int:
    """Return the permissions."""
    return path.stat().st_mode & 0o7777


# Creating


def test_naming_a_work_directory_touches_nothing(tmp_path: Path) -> None:
    """Only `create` writes; a directory that is not there is empty in every way."""
    workdir = Workdir(tmp_path / "t")
    assert not workdir.exists()
    assert workdir.plan_ids() == []
    assert list(workdir.part_paths()) == []
    assert workdir.read_manifest() == {}
    workdir.check_format()
    assert os.listdir(tmp_path) == []


def test_a_work_directory_is_for_its_owner_only(workdir: Workdir) -> None:
    """With the places that every one has, and a marker that tells the format."""
    assert json.loads(workdir.marker.read_text()) == {"format": 1}
    assert sorted(p.name for p in workdir.path.iterdir()) == [".psyrun", "beat", "log", "parts", "plan", "submit"]
    assert {mode(p) for p in (workdir.path, *workdir.path.iterdir()) if p.is_dir()} == {0o700}


def test_creating_again_changes_nothing(workdir: Workdir) -> None:
    """What is in it stays."""
    (workdir.parts / "p").write_bytes(b"rows")
    workdir.create()
    assert (workdir.parts / "p").read_bytes() == b"rows"


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden", "psyrun"])
def test_a_directory_with_files_of_others_is_refused(tmp_path: Path, name: str) -> None:
    """And stays as it is."""
    (tmp_path / name).write_text("mine")
    tmp_path.chmod(0o755)
    with pytest.raises(RefusedError, match="not psyrun's"):
        Workdir(tmp_path).create()
    assert os.listdir(tmp_path) == [name]
    assert mode(tmp_path) == 0o755


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    """The user may have made it."""
    Workdir(tmp_path).create()
    assert Workdir(tmp_path).exists()
    assert mode(tmp_path) == 0o700


@pytest.mark.parametrize("step", range(1, 12))
def test_creating_can_be_interrupted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The next command makes it whole."""
    left = [step]

    def interrupted(function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return function(*args, **options)

        return call

    workdir = Workdir(tmp_path / "t")
    with monkeypatch.context() as patch:
        for name in ("mkdir", "chmod", "write_bytes", "replace"):
            patch.setattr(Path, name, interrupted(getattr(Path, name)))
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a kill leaves what stands there
        patch.setattr(files, "sync_file", interrupted(files.sync_file))
        with suppress(KeyboardInterrupt):
            workdir.create()
    workdir.create()
    assert workdir.exists()
    assert workdir.parts.is_dir()


def test_a_directory_of_another_format_is_refused(workdir: Workdir) -> None:
    """The message says what to do."""
    workdir.check_format()
    workdir.marker.write_text('{"format": 2}')
    with pytest.raises(RefusedError, match="has format 2, this psyrun takes 1"):
        workdir.check_format()


def test_where_nothing_can_be_made_the_error_is_temporary(tmp_path: Path) -> None:
    """It names the path."""
    (tmp_path / "file").touch()
    with pytest.raises(TemporaryError, match="file"):
        Workdir(tmp_path / "file" / "t").create()


# Plans


def commit(workdir: Workdir, after: str | None, content: str) -> bool:
    """Try to put a plan in place."""
    with workdir.new_plan(after) as place:
        (place.beside / "plan.json").write_text(content)
        return place.commit()


def test_plans_are_numbered(workdir: Workdir) -> None:
    """Each id follows the one before, also past four digits."""
    assert commit(workdir, None, "first")
    assert commit(workdir, "0001", "second")
    assert workdir.plan_ids() == ["0001", "0002"]
    assert commit(workdir, "9999", "late")
    assert workdir.plan_ids() == ["0001", "0002", "10000"]


def test_of_two_plans_for_one_place_the_first_stands(workdir: Workdir) -> None:
    """The loser is told, and leaves nothing behind."""
    with workdir.new_plan(None) as mine, workdir.new_plan(None) as theirs:
        (mine.beside / "plan.json").write_text("mine")
        (theirs.beside / "plan.json").write_text("theirs")
        assert theirs.commit()
        assert not mine.commit()
    assert (workdir.plans / "0001" / "plan.json").read_text() == "theirs"
    assert os.listdir(workdir.plans) == ["0001"]


def plan_once(path: Path, number: int, start: Any, results: Any) -> None:
    """Commit one plan, together with others."""
    start.wait()
    results.put((number, commit(Workdir(path), None, str(number))))


def test_of_many_planners_exactly_one_wins(workdir: Workdir) -> None:
    """And all see the winner's plan."""
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=plan_once, args=(workdir.path, i, start, results)) for i in range(8)]
    for process in processes:
        process.start()
    start.set()
    outcomes = dict(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    (winner,) = (number for number, won in outcomes.items() if won)
    assert (workdir.plans / "0001" / "plan.json").read_text() == str(winner)
    assert os.listdir(workdir.plans) == ["0001"]


def test_a_planner_that_died_left_nothing_that_counts(workdir: Workdir) -> None:
    """Its directory beside is overlooked."""
    place = workdir.new_plan(None)
    place.__enter__()
    (place.beside / "plan.json").write_text("half")
    assert workdir.plan_ids() == []
    assert commit(workdir, None, "whole")
    assert workdir.plan_ids() == ["0001"]


def test_an_error_while_planning_leaves_nothing(workdir: Workdir) -> None:
    """The directory beside is removed."""
    with pytest.raises(ValueError, match="no"), workdir.new_plan(None) as place:
        (place.beside / "plan.json").write_text("half")
        raise ValueError("no")
    assert os.listdir(workdir.plans) == []


def test_a_commit_whose_reply_was_lost_counts(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS reports an error for a rename that happened."""
    replace = Path.replace

    def lossy(path: Path, target: Path) -> Path:
        replace(path, target)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", lossy)
    assert commit(workdir, None, "mine")


def test_a_commit_that_failed_is_an_error(workdir: Workdir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's plan stands there then."""

    def failing(path: Path, target: Path) -> Path:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="quota"):
        commit(workdir, None, "mine")


# The record, the manifest, the archive


def test_parts_are_listed_by_name_without_hidden_files(workdir: Workdir) -> None:
    """NFS keeps removed files as hidden ones for a while."""
    for name in ("b", "a", ".nfs0001"):
        (workdir.parts / name).touch()
    assert [p.name for p in workdir.part_paths()] == ["a", "b"]


@pytest.mark.parametrize("content", ["", "{", '{"format": 2, "plan": "0001"}'])
def test_a_manifest_that_cannot_be_read_says_nothing(workdir: Workdir, content: str) -> None:
    """It can be made again from the record."""
    workdir.manifest.write_text(content)
    assert workdir.read_manifest() == {}


def test_a_manifest_with_another_byte_says_nothing(workdir: Workdir) -> None:
    """What is done must not depend on it; nor does a value that is no JSON object."""
    workdir.write_manifest({"done": "c0", "n_items": 17, "causes": [[1, 2, {"where": "f.py:1"}]]})
    assert workdir.read_manifest()["n_items"] == 17
    text = workdir.manifest.read_text()
    for flipped in (
        text.replace("17", "16"),
        text.replace('"c0"', '"c1"'),
        text.replace('"done"', '"dome"'),
        "[1]",
        "3",
    ):
        workdir.manifest.write_text(flipped)
        assert workdir.read_manifest() == {}


def test_archiving_moves_and_never_overwrites(workdir: Workdir) -> None:
    """Files of one name each have a place of their own; so have directories."""
    moved = []
    for content in ("one", "two", "three"):
        workdir.manifest.write_text(content)
        moved.append(workdir.archived(workdir.manifest))
        assert not workdir.manifest.exists()
    assert [path.read_text() for path in moved if path] == ["one", "two", "three"]
    (workdir.parts / "p").write_text("rows")
    target = workdir.archived(workdir.parts)
    assert target is not None
    assert (target / "p").read_text() == "rows"
    assert not workdir.parts.exists()
    assert mode(workdir.archive) == mode(target.parent) == 0o700
    assert workdir.archived(workdir.parts) is None


def test_what_belongs_together_is_archived_together(workdir: Workdir) -> None:
    """In one directory, under the paths that it had."""
    for path in (workdir.parts / "a", workdir.parts / "b", workdir.manifest):
        path.write_text(path.name)
    last = workdir.archived(workdir.parts / "a", workdir.parts / "gone", workdir.parts / "b", workdir.manifest)
    (directory,) = workdir.archive.iterdir()
    assert last == directory / "manifest.json"
    assert sorted(os.listdir(directory / "parts")) == ["a", "b"]
    assert mode(directory) == mode(directory / "parts") == 0o700
    assert workdir.archived(workdir.parts / "a", workdir.manifest) is None


def test_a_result_on_another_file_system_is_archived_too(
    workdir: Workdir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is copied, and removed only when the copy is in place."""
    result = tmp_path / "result.npz"
    result.write_text("rows")
    replace = Path.replace

    def within(path: Path, target: Path) -> Path:
        if path == result:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", within)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", failing_copy)
        with pytest.raises(TemporaryError, match=r"result\.npz: cannot be moved to .*No space"):
            workdir.archived(result)
        assert result.read_text() == "rows"
    target = workdir.archived(result)
    assert target is not None
    assert target.read_text() == "rows"
    assert not result.exists()
    assert [p.name for p in target.parent.iterdir()] == ["result.npz"]


def failing_copy(source: Path, target: Path) -> None:
    """Copy a part of a file, until the disk is full."""
    Path(target).write_text(Path(source).read_text()[:2])
    raise OSError(errno.ENOSPC, "No space left on device")


# Small files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure the old one stands, and nothing beside it."""
    path = tmp_path / "f.json"
    files.write_json(path, {"a": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda self, data: failing_copy(path, self))
        with pytest.raises(OSError, match="No space"):
            files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    files.write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 3}
    assert os.listdir(tmp_path) == ["f.json"]


# What killed commands leave


LEFT = [".result.0123456789abcdef.npz", "..result.0123456789abcdef.npz.0123456789abcdef.tmp"]


@pytest.mark.parametrize("outside", [False, True])
def test_what_killed_commands_left_is_removed_after_a_day(workdir: Workdir, tmp_path: Path, outside: bool) -> None:
    """Not before, for it may be another command's that is at work; and nothing else is, however old."""
    result = (tmp_path if outside else workdir.path) / "result.npz"
    left = [result.with_name(name) for name in LEFT]
    left += [workdir.path / ".manifest.json.0123456789abcdef.tmp", workdir.plans / ".0002.0123456789abcdef"]
    left += [workdir.beats / "0123456789abcdef", workdir.beats / ".0123456789abcdef"]
    kept = [workdir.marker, workdir.plans / "0001", workdir.parts / "0123456789abcdef-0-0", workdir.manifest]
    kept += [tmp_path / ".other.0123456789abcdef.npz", result.with_name(".result.npz"), tmp_path / "result.txt"]
    for path in [*left, *kept, result]:
        if path.parent == workdir.plans:
            path.mkdir()
            (path / "plan.json").touch()
        else:
            path.touch()
    workdir.sweep(result)
    assert all(path.exists() for path in [*left, *kept])
    for path in [*left, *kept]:
        os.utime(path, (0, result.stat().st_mtime - 86500))
    workdir.sweep(result)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in kept)


def test_sweeping_fails_in_silence(workdir: Workdir) -> None:
    """The result is in place then."""
    workdir.sweep(workdir.path / "result.npz")
