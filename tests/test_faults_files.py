"""Files that are damaged, and files that are not ours: no wrong row, no traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import psyrun
from faults import files_of, rarely, until
from project import Project
from psyrun.claims import Beat, Observer
from psyrun.errors import RefusedError, StoreError, TemporaryError
from psyrun.plan import Plan
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


# Damage


def damaged(content: bytes, step: int) -> Iterator[bytes]:
    """Yield a file's content with one bit turned, at every so many bytes, and cut short."""
    for at in range(0, len(content), step):
        yield content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]
        yield content[:at]


def worked(project: Project, n: int = 6, **options: Any) -> Path:
    """Run a logging task; return its work directory."""
    project.logging_task(n=n, seconds=0, max_jobs=3, **options)
    project.run("t")
    return project.path / "psy-work/t"


@pytest.mark.parametrize("name", ["plan.json", "work.npz", "task.py", "psy-conf.py"])
def test_a_plan_is_read_as_it_was_written_or_not_at_all(project: Project, name: str) -> None:
    """Whichever bit of whichever of its files turns, and wherever it ends."""
    (project.tasks / "psy-conf.py").write_text("pool_size = 2\n")
    path = worked(project) / "plan/0001"
    expected, content = Plan.read(path).content, (path / name).read_bytes()
    for found in damaged(content, 5):
        (path / name).write_bytes(found)
        try:
            assert Plan.read(path).content == expected
        except TemporaryError as error:
            assert str(path) in str(error)
    (path / name).unlink()
    with pytest.raises(TemporaryError, match=rf"{name}.*run the task again"):
        Plan.read(path)


@pytest.mark.parametrize(("name", "n"), [("plan.json", 6), ("work.npz", 8), *rarely(("plan.json", 8), ("task.py", 6))])
def test_a_damaged_plan_is_replaced_and_nothing_computed_again(project: Project, name: str, n: int) -> None:
    """Whether or not there is something to compute; `merge`, which runs no task file, says what to do first."""
    path = worked(project)
    content = (path / "plan/0001" / name).read_bytes()
    (path / "plan/0001" / name).write_bytes(content[: len(content) // 2])
    assert "run the task again" in project.run("merge", str(path), "out.npz", status=75).stderr
    assert project.status("t")["n_done"] == 6
    project.logging_task(n=n, seconds=0, max_jobs=3)
    project.run("t")
    assert sorted(project.starts()) == list(range(n))
    assert project.result("t")["y"].tolist() == [x * x for x in range(n)]
    project.run("merge", str(path), "out.npz")


def test_a_plan_that_cannot_be_read_does_not_let_rows_of_other_code_in(project: Project) -> None:
    """Rows of a code that was never accepted are on record; without the plan they still do not count."""
    path = worked(project)
    stray = next((path / "parts").iterdir())
    saved = stray.name, stray.read_bytes()
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("x * x", "-x"))
    project.run("t", "--fresh")
    (path / "parts" / saved[0]).write_bytes(saved[1])
    for gone in ("manifest.json", "result.npz", "plan/0002/plan.json", "plan/0001/plan.json"):
        (path / gone).unlink()
    project.run("t")
    assert project.result("t")["y"].tolist() == [-x for x in range(6)]
    assert len(project.starts()) == 12


def test_a_damaged_manifest_is_as_none(project: Project) -> None:
    """Whichever bit turns; the record tells then, and the next run writes it again."""
    path = worked(project)
    workdir = Workdir(path)
    expected, content = workdir.read_manifest(), workdir.manifest.read_bytes()
    for found in damaged(content, 3):
        workdir.manifest.write_bytes(found)
        assert workdir.read_manifest() in ({}, expected)
    workdir.manifest.write_bytes(content[:100])
    assert project.status("t")["n_done"] == 6
    project.run("t")
    assert workdir.read_manifest()["n_done"] == 6
    assert len(project.starts()) == 6


def lose_part(path: Path) -> None:
    max((path / "parts").iterdir(), key=lambda part: part.stat().st_size).unlink()


def cut_part(path: Path) -> None:
    part = max((path / "parts").iterdir(), key=lambda part: part.stat().st_size)
    part.write_bytes(part.read_bytes()[:-100])


@pytest.mark.parametrize("change", [lose_part, cut_part])
def test_a_manifest_that_says_more_than_is_on_record_is_not_believed(
    project: Project, change: Callable[[Path], None]
) -> None:
    """What is not on record any more is missing, and computed again."""
    path = worked(project)
    change(path)
    told = project.status("t")
    assert not told["complete"]
    project.run("t")
    assert sorted(set(project.starts())) == list(range(6))
    assert len(project.starts()) == 12 - told["n_done"]
    assert project.result("t")["y"].tolist() == [x * x for x in range(6)]


def test_rows_that_rot_in_place_are_found_by_the_next_merge(project: Project) -> None:
    """The result that was verified has them; once it is gone they are computed again, by two commands at most."""
    path = worked(project)
    part = max((path / "parts").iterdir(), key=lambda part: part.stat().st_size)
    content = bytearray(part.read_bytes())
    content[-40] ^= 1
    part.write_bytes(content)
    assert project.status("t")["complete"]
    (path / "result.npz").unlink()
    assert "type the command again" in project.run("t", status=75).stderr
    project.run("t")
    assert project.result("t")["y"].tolist() == [x * x for x in range(6)]


def test_a_damaged_marker_is_refused_and_nothing_touched(project: Project) -> None:
    """The message tells how to put it right; clean refuses too."""
    path = worked(project)
    for content in ("", "{", "[]", "{}", "3", '{"format": "1"}', "\0" * 20):
        (path / ".psyrun").write_text(content)
        with pytest.raises(RefusedError, match="was damaged"):
            Workdir(path).check_format()
    before = files_of(path)
    for words in (("t",), ("clean", "t", "--yes"), ("status", "t")):
        told = project.run(*words, status=4).stderr
        assert f"""echo '{{"format": 1}}' > {path}/.psyrun""" in told
    assert files_of(path) == before


def test_a_damaged_result_is_put_aside_and_made_again(project: Project) -> None:
    """Without computing; whichever bit turns, loading it gives the rows that were written or an error."""
    path = worked(project)
    result, content = path / "result.npz", (path / "result.npz").read_bytes()
    expected = {name: column.tolist() for name, column in project.result("t", keys=True).items()}
    for found in damaged(content, 23):
        result.write_bytes(found)
        try:
            assert {name: column.tolist() for name, column in project.result("t", keys=True).items()} == expected
        except StoreError as error:
            assert str(result) in str(error)
    assert not project.status("t")["merged"]
    project.run("t")
    assert project.result("t")["y"].tolist() == [x * x for x in range(6)]
    assert len(list(path.glob("archive/*/result.npz"))) == 1
    assert len(project.starts()) == 6


BEATS = ['{"worker": 1}', "[]"]
UNTELLING = ["", "{}", "3", "\xff", '{"host": 1, "boot": 2, "namespace": [], "pid": "x", "started": 0, "count": {}}']


@pytest.mark.parametrize("content", BEATS)
def test_a_damaged_heartbeat_is_one_that_says_nothing(project: Project, content: str) -> None:
    """Every command bears it; what its worker holds is done, so nobody is waited for."""
    path = worked(project, workers=1)
    done = next((path / "plan/0001/done").iterdir())
    worker = done.name.rpartition(".")[2]
    done.rename(path / "plan/0001/held" / done.name)
    (path / "beat" / worker).write_bytes(content.encode("latin-1"))
    (path / "manifest.json").unlink()
    assert project.status("t")["n_done"] == 6
    assert "--force" in project.run("clean", "t", status=4).stderr
    project.logging_task(n=8, seconds=0, workers=1, max_jobs=3)
    assert "waiting" not in project.run("t", PSYRUN_TTL="60").stderr
    assert sorted(project.starts()) == list(range(8))
    project.run("clean", "t", "--yes", "--force")


def test_a_heartbeat_of_which_any_byte_is_damaged_raises_nothing(workdir: Workdir) -> None:
    """Nor is a worker dead at once of which nothing can be told."""
    worker = "0" * 16
    Beat(workdir.beats, worker, 0).beat()
    content = (workdir.beats / worker).read_bytes()
    wrong_kind = json.dumps(json.loads(content) | {"pid": "1"}).encode()
    for found in [wrong_kind, *damaged(content, 1), *(text.encode("latin-1") for text in BEATS + UNTELLING)]:
        (workdir.beats / worker).write_bytes(found)
        observer = Observer(workdir.beats, 60)
        if not observer.read(worker):
            assert not observer.dead(worker)


# Names


def held_up(project: Project) -> Any:
    """Start a command whose first items wait, with other chunks open."""
    project.task(
        "t",
        """
        import os, pathlib, time
        from psyrun import Param
        pspace = Param(x=range(12))
        max_jobs = 4
        def execute(x):
            with open("starts", "a") as file:
                print(x, file=file)
            while not pathlib.Path("go").exists():
                time.sleep(0.01)
            return {"y": x * x}
        """,
    )
    command = project.start("t", PSYRUN_TTL="0.7")
    until(project.starts)
    return command


OFTEN = ["6-8", "6-9.0", "906-908.0", "6-8.0.0123456789abcdef"]
RARELY = ["7-8.0", "6-88.0", "6-8.1", "5-8.0", ".nfs000001"]


@pytest.mark.parametrize("name", [*OFTEN, *rarely(*RARELY)])
def test_a_token_whose_name_was_damaged_costs_no_item(project: Project, name: str) -> None:
    """The command ends complete, or says what to type; then it is, and no row is wrong or there twice."""
    command = held_up(project)
    opened = project.path / "psy-work/t/plan/0001/open"
    (opened / "6-8.0").rename(opened / name)
    (project.path / "go").touch()
    assert command.wait(timeout=30) in (0, 75)
    done = project.run("t")
    assert "Traceback" not in done.stderr
    assert project.result("t")["y"].tolist() == [x * x for x in range(12)]
    assert set(project.starts()) == set(range(12))


def litter(directory: Path) -> None:
    """Put what is not ours into a directory."""
    for name in (".nfs0000001", "notes.txt", "x.log", "result.old", "0-1", "\udcff\udcfe", "-rf", "0003~", "٣"):
        (directory / name).write_text("foreign")
    for name in ("sub", "d.log", ".d", "0-0.0.0", "ffffffffffffffff-0-0"):
        (directory / name).mkdir()
        (directory / name / "file").touch()
    (directory / "dangling").symlink_to("nowhere")
    (directory / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as channel:
        channel.bind(f"/proc/self/fd/{os.open(directory, os.O_RDONLY)}/socket")
    os.mkfifo(directory / "fifo.log")


def test_foreign_files_anywhere_are_overlooked_and_left_alone(project: Project) -> None:
    """By all commands, while work goes on; only what lies in the record is told to be unreadable."""
    path = worked(project)
    (path / "archive").mkdir()
    directories = [path, *(path / name for name in ("plan", "parts", "beat", "log", "archive"))]
    directories += [path / "plan/0001" / name for name in ("", "open", "held", "done")]
    for directory in directories:
        litter(directory)
    (path / "plan/0002").write_text("a file with the next number")
    (path / "plan/0003").mkdir()
    foreign = {name: data for name, data in files_of(path).items() if data in (b"foreign", b"")}
    (path / "manifest.json").unlink()
    told = project.status("t")
    assert (told["n_done"], told["n_items"]) == (6, 6)
    assert len(told["damaged_parts"]) == 8
    project.logging_task(n=9, seconds=0, max_jobs=3)
    project.run("t")
    assert sorted(project.starts()) == list(range(9))
    assert project.result("t")["y"].tolist() == [x * x for x in range(9)]
    project.run("logs", "t")
    project.run("merge", str(path), "out.npz")
    assert psyrun.load(path)["x"].tolist() == list(range(9))
    left = files_of(path)
    lost = [name for name in foreign if left.get(name) != foreign[name] and "/open/" not in name]
    assert lost == []
    project.run("clean", "t", "--yes")
    assert not path.exists()


@pytest.mark.parametrize("name", ["plan", "manifest.json", *rarely("parts", "beat", "log")])
def test_something_else_in_the_place_of_ours_is_said_plainly(project: Project, name: str) -> None:
    """A file where a directory belongs, or the other way round: the message names it; once it is moved all is well."""
    path = worked(project)
    (path / name).rename(path / "aside")
    if name == "manifest.json":
        (path / name).mkdir()
        (path / name / "file").touch()
    else:
        (path / name).touch()
    project.logging_task(n=8, seconds=0, max_jobs=3)
    told = project.run("t", status=75).stderr
    assert str(path / name) in told
    assert "Traceback" not in told
    subprocess.run(["rm", "-r", path / name], check=True)
    (path / "aside").rename(path / name)
    project.run("t")
    assert sorted(project.starts()) == list(range(8))


def test_a_task_whose_files_cannot_be_read_does_not_hide_the_others(project: Project) -> None:
    """Status shows them, and the error of this one; the exit status is the worst."""
    path = worked(project)
    project.logging_task("u", n=2)
    (path / "plan").rename(path / "aside")
    (path / "plan").touch()
    done = project.run("status", status=75)
    assert f"t: {path / 'plan'}: Not a directory" in done.stderr
    assert "u: 0 of 2 items done" in done.stdout
