"""Finished rows of other files count as done: matched exactly, all or none of them on record."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import psyrun
from project import PSY_DOIT, Project
from psyrun.commands.adopt import command
from psyrun.errors import PsyrunError, TaskError
from psyrun.foreign import own_values
from psyrun.keys import canonical
from psyrun.parts import END
from psyrun.pspace import Param
from psyrun.scan import read
from psyrun.state import look
from psyrun.tasks import load_task
from test_store_psyrun08 import FORMATS, append_with_pytables, save_with_numpy

TASK = """
import os
from psyrun import Param, {store}
pspace = {space}
store = {store}()
exclude_from_result = {exclude}
def execute(**given):
    fd = os.open("starts", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"1\\n")
    os.close(fd)
    return {{"y": -1.0}}
"""
SPACE = "Param(D=[0.1, 0.2, 0.3]) * Param(N=[10, 50])"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project, which is the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Project(tmp_path)


def write_task(project: Project, space: str = SPACE, store: str = "NpzStore", exclude: str = "[]") -> None:
    project.task("t", TASK, space=space, store=store, exclude=exclude)


def columns(n: int = 6) -> dict[str, Any]:
    """The first rows of the space, as a file has them."""
    return {"D": np.repeat([0.1, 0.2, 0.3], 2)[:n], "N": np.array([10, 50] * 3)[:n], "y": np.arange(1.0, 7.0)[:n]}


def adopt(*words: str, status: int = 0) -> str:
    """Run the command in this process; return what it prints, or the error."""
    done = CliRunner().invoke(command, ["t", *words], obj=Path("psy-tasks"))
    if done.exception is None:
        assert status == 0, done.output
        return done.output
    assert isinstance(done.exception, PsyrunError), done.exc_info
    assert done.exception.exit_code == status
    return f"{done.output}{done.exception}"


def n_done() -> int:
    return int(look(load_task("t", Path("psy-tasks"))).done.sum())


def parts(project: Project) -> list[Path]:
    directory = project.path / "psy-work/t/parts"
    return sorted(directory.iterdir()) if directory.is_dir() else []


def n_started(project: Project) -> int:
    return len(project.starts())


# Formats


@pytest.mark.parametrize(("name", "write"), FORMATS)
def test_rows_of_psyrun_08_are_not_computed_again(project: Project, name: str, write: Any) -> None:
    """The next command computes the rest, without a question, and merges all in the order of the space."""
    write_task(project)
    old = project.path / f"old-{name}"
    write(old, {n: c[::-1] for n, c in columns(4).items()})
    before = old.read_bytes()
    told = adopt(old.name)
    assert told.splitlines()[:4] == [
        f"{old.name}: 4 rows",
        "  4 of items of t that are not done",
        "  0 of items that are done, which stay as they are",
        "  0 of no item",
    ]
    assert "psy-doit t" in told
    state = look(load_task("t", project.tasks))
    assert (int(state.done.sum()), int(state.missing.sum()), state.conflict) == (4, 2, False)
    project.run("t")
    assert n_started(project) == 2
    result = project.result("t")
    assert result["y"].tolist() == [1, 2, 3, 4, -1, -1]
    assert result["D"].tolist() == columns()["D"].tolist()
    assert old.read_bytes() == before


def test_all_rows_at_once_need_no_computing(project: Project) -> None:
    """The next command merges; before it, psyrun.load has them."""
    write_task(project)
    save_with_numpy(project.path / "old.npz", columns())
    adopt("old.npz")
    code = "import psyrun; print(psyrun.load('t')['y'].sum())"
    done = subprocess.run([sys.executable, "-c", code], cwd=project.path, capture_output=True, text=True, check=True)
    assert done.stdout == "21.0\n"
    assert ".  t:merge" in project.steps("t")
    assert n_started(project) == 0
    assert project.result("t")["y"].sum() == 21
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_csv_is_read_back_as_it_was_printed(project: Project, sign: str) -> None:
    """Numbers, truth values and text, with a byte order mark and the column that pandas numbers rows in."""
    write_task(project, "Param(D=[0.1, 1e-7, 3.0], b=[True, False, True], t=['1', 'a, b', ''])")
    lines = [["", "D", "b", "t", "y", "n", "text", "flag"]]
    lines += [["0", "0.1", "True", "1", "0.5", "3", "u", "True"], ["1", "1e-07", "False", '"a, b"', "", "", "", ""]]
    lines += [["2", "3.0", "True", "", "nan", "4", "1", "False"]]
    (project.path / "old.csv").write_text("\r\n".join(map(sign.join, lines)) + "\r\n", encoding="utf-8-sig")
    told = adopt("old.csv")
    assert "3 of items of t that are not done" in told
    assert "left out, as nothing can be called so: the columns ''" in told
    assert "2 of the rows to take have no y; they count as done all the same" in told
    project.run("t")
    assert n_started(project) == 0
    result = project.result("t")
    np.testing.assert_array_equal(result["y"], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(result["n"], [3, np.nan, 4])
    np.testing.assert_array_equal(result["flag"], [1, np.nan, 0])
    assert result["text"].tolist() == ["u", "", "1"]
    assert result["t"].tolist() == ["1", "a, b", ""]


def test_hdf5_of_others_is_read_at_its_root(project: Project) -> None:
    """Text of fixed and of variable length."""
    write_task(project, "Param(a=['x', 'ü'], b=['u', 'v'])")
    with h5py.File(project.path / "old.h5", "w") as file:
        file["a"] = ["x", "ü"]
        file["b"] = np.array([b"u", b"v"])
        file["y"] = [1, 2]
        file.create_group("more")
    adopt("old.h5")
    project.run("t")
    assert (n_started(project), project.result("t")["y"].tolist()) == (0, [1, 2])


def test_what_psyrun_wrote_is_taken_with_its_shapes_and_gaps(project: Project) -> None:
    """Ragged arrays and absent values are as they were."""
    write_task(project, "Param(x=[1, None, [2, 3]])", store="PickleStore")
    data: dict[str, list[Any]] = {"x": [1, None], "r": [[1, 2], [3]], "y": [None, 2.5]}
    psyrun.PickleStore().save(project.path / "old.pkl", data)
    (project.path / "old.pkl").chmod(0o600)
    told = adopt("old.pkl")
    assert "1 of the rows to take have no y" in told
    project.run("t")
    result = psyrun.PickleStore().load(project.path / "psy-work/t/result.pkl", keys=True)
    assert n_started(project) == 1
    assert result["__psyrun_shape_r"].tolist()[:2] == [[2], [1]]
    assert result["__psyrun_none_y"].tolist()[:2] == [True, False]


def test_csv_of_other_programs(project: Project) -> None:
    """Blanks behind commas, empty lines, and letters that end lines elsewhere."""
    write_task(project, "Param(D=[0.1, 1], t=['a\\u2028b', ' c'])")
    (project.path / "old.csv").write_text("D, t, y\n0.1,a\u2028b, 2\n\n 1.0, c,3\n", encoding="utf-8")
    assert "2 of items of t that are not done" in adopt("old.csv")
    (project.path / "old.csv").write_bytes(b"D,t,y\n\xff")
    assert "cannot be read as CSV in UTF-8" in adopt("old.csv", status=2)


def test_a_file_without_rows_adds_nothing(project: Project) -> None:
    """As one of a task that was stopped at once."""
    write_task(project)
    (project.path / "old.csv").write_text("D,N,y\n")
    assert "nothing to add" in adopt("old.csv")
    np.savez(project.path / "old.npz", **columns(0))
    assert "nothing to add" in adopt("old.npz")
    assert parts(project) == []


# Matching


def test_close_is_not_equal_but_told(project: Project) -> None:
    """Nothing is guessed: the row, its parameters, and the value that may be meant."""
    write_task(project)
    data = {"D": [0.1 + 0.2, 0.1, 0.2, 7.0], "N": [10, 50, 60, 10], "y": [1, 2, 3, 4]}
    save_with_numpy(project.path / "old.npz", data)
    lines = adopt("old.npz").splitlines()
    assert lines[1] == "  1 of items of t that are not done"
    assert lines[3:7] == [
        "  3 of no item",
        "    row 0 (D=0.30000000000000004, N=10): no item has D=0.30000000000000004; the nearest in the space is 0.3, "
        "which is another number",
        "    row 2 (D=0.2, N=60): no item has N=60",
        "    row 3 (D=7.0, N=10): no item has D=7.0",
    ]
    assert n_done() == 1


def test_values_of_another_kind_are_told(project: Project) -> None:
    """The text '10' is not the number 10, but bytes, as HDF5 has them, are text. Combinations count."""
    write_task(project, "Param(N=[10, 20], m=['a', 'b'])")
    save_with_numpy(project.path / "old.npz", {"N": [10, 20], "m": ["b", "b"], "y": [1, 2]})
    told = adopt("old.npz", "--dry-run")
    assert "row 0 (N=10, m='b'): no item has these values together" in told
    save_with_numpy(project.path / "old.npz", {"N": ["10", "x"], "m": ["a", "a "], "y": [1, 2]})
    told = adopt("old.npz", status=2)
    assert "row 0 (N='10', m='a'): no item has N='10'; the space has 10\n" in told
    assert "no item has N='x'; no item has m='a '; the space has 'a'\n" in told
    psyrun.PickleStore().save(project.path / "old.pkl", {"N": ["10", 20], "m": ["a", b"b"], "y": [1, 2]})
    (project.path / "old.pkl").chmod(0o600)
    told = adopt("old.pkl", "--trust-pickle", "--dry-run")
    assert "1 of items of t that are not done" in told
    assert "row 0 (N='10', m='a')" in told


def test_repeated_rows_are_repetitions(project: Project) -> None:
    """The n-th row of a file is the n-th item; a file that is taken twice adds nothing."""
    write_task(project, "Param(x=[1, 1, 2, 1])")
    save_with_numpy(project.path / "old.npz", {"x": [1, 1], "y": [5, 6]})
    adopt("old.npz")
    told = adopt("old.npz")
    assert "2 of items that are done" in told
    assert "nothing to add" in told
    assert len(parts(project)) == 1
    save_with_numpy(project.path / "more.npz", {"x": [1, 1, 1, 1], "y": [7, 7, 7, 8]})
    told = adopt("more.npz")
    assert "row 3 (x=1): it is here more often than in the space" in told
    project.run("t")
    assert project.result("t")["y"].tolist() == [5, 6, -1, 7]


def test_items_that_are_done_stay_as_they_are(project: Project) -> None:
    """Whether computed or taken."""
    write_task(project, "Param(D=[0.1, 0.2]) * Param(N=[10, 50])")
    project.run("t")
    write_task(project)
    save_with_numpy(project.path / "old.npz", columns())
    told = adopt("old.npz")
    assert "  2 of items of t that are not done\n  4 of items that are done" in told
    project.run("t")
    assert n_started(project) == 4
    assert project.result("t")["y"].tolist() == [-1, -1, -1, -1, 5, 6]


def test_excluded_columns_are_not_taken(project: Project) -> None:
    """As if they had been computed."""
    write_task(project, exclude="['N', 'big']")
    save_with_numpy(project.path / "old.npz", columns() | {"big": np.ones((6, 9))})
    adopt("old.npz")
    project.run("t")
    assert list(project.result("t")) == ["D", "y"]


WRITTEN = st.one_of(
    st.integers(), st.floats(), st.booleans(), st.sampled_from(["a", "", "1,5", "nan?", "é"]), st.none()
)


@given(values=st.lists(WRITTEN, min_size=1, max_size=5))
@settings(max_examples=200)
def test_text_is_read_as_the_value_that_the_space_has(values: list[Any]) -> None:
    """Or refused where two values of the space are written alike."""
    space = Param(x=values)
    texts = np.array(["" if v is None else str(v) for v in values], dtype=object)
    try:
        found = own_values("x", texts, space, printed=True)
    except TaskError as error:
        assert "the space has both" in str(error)
        return
    assert list(map(canonical, found)) == list(map(canonical, values))


def test_what_is_written_alike_is_refused(project: Project) -> None:
    """1 and '1' look the same in CSV."""
    write_task(project, "Param(x=[1, '1'])", store="PickleStore")
    (project.path / "old.csv").write_text("x,y\n1,2\n")
    error = adopt("old.csv", status=2)
    assert "'1' can be '1' and 1, and the space has both" in error


def test_float32_is_read_with_the_digits_that_it_is_printed_with(project: Project) -> None:
    """In a space that has it; 0.1 there is another number than the double 0.1."""
    space = Param(x=np.array([0.1, 0.7], "f4"))
    found = own_values("x", np.array(["0.1", "0.7"], dtype=object), space, printed=True)
    assert list(map(canonical, found)) == list(map(canonical, space["x"]))
    write_task(project, "Param(x=[0.1])")
    np.savez(project.path / "old.npz", x=np.array([0.1], "f4"), y=[1])
    told = adopt("old.npz", status=2)
    assert "no item has x=0.10000000149011612; the nearest in the space is 0.1" in told
    assert "none of its rows is an item of t; nothing was written" in told
    assert not (project.path / "psy-work").exists()


# What is refused


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.npz", None, "no such file"),
        ("old.csv", "D,y\n1,2\n", "its first line does not name the parameters: D, N"),
        ("old.csv", "D,N,y\n1,2\n", "row 0 has 2 values, the first line 3 names"),
        ("old.csv", "D,N,N\n1,2,3\n", "two columns have one name"),
        ("old.csv", "D,N\n0.1,10\n", "no outputs to take"),
        ("old.csv", "", "does not name the parameters"),
        ("old.npz", "no zip file", "cannot be read as a .npz file"),
        ("old.h5", "no HDF5", "cannot be read as HDF5"),
        ("old.xyz", "?", "takes a file name that ends in"),
        ("old.npz", {"D": [0.1], "y": [1]}, "has no column N"),
        ("old.npz", {"D": [0.1], "N": [10], "y": [1, 2]}, "D has 1, N has 1, y has 2"),
        ("old.npz", {"D": [0.1], "N": [10], "y": 1}, "y has none"),
        ("old.npz", {"D": [0.1], "N": [10], "y": np.zeros(1, "V8")}, "'y' is a void"),
    ],
)
def test_files_that_make_no_sense(project: Project, name: str, content: Any, told: str) -> None:
    """Exit status 2, what is wrong, and nothing on record."""
    write_task(project)
    path = project.path / name
    if isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        np.savez(path, **content)
    error = adopt(name, status=2)
    assert told in error
    assert "Traceback" not in error
    assert parts(project) == []


def test_a_dry_run_writes_nothing(project: Project) -> None:
    """But tells the same."""
    write_task(project)
    save_with_numpy(project.path / "old.npz", columns(3))
    told = adopt("old.npz", "--dry-run")
    assert "3 of items of t that are not done" in told
    assert told.endswith("nothing was written\n")
    assert not (project.path / "psy-work").exists()


def test_rows_of_other_code_are_decided_about_first(project: Project) -> None:
    """Exit status 4, and what to type; taken rows are of the code that the task has now."""
    write_task(project)
    save_with_numpy(project.path / "old.npz", columns(4))
    adopt("old.npz")
    project.task("t", TASK.replace("-1.0", "-2.0"), space=SPACE, store="NpzStore", exclude="[]")
    error = adopt("old.npz", status=4)
    assert "psy-doit t --keep" in error
    project.run("t", status=4)
    project.run("t", "--keep")
    assert project.result("t")["y"].tolist() == [1, 2, 3, 4, -2, -2]


def test_rows_count_though_a_plan_of_other_code_has_none(project: Project) -> None:
    """As when all items of the code before failed."""
    project.task(
        "t", TASK.replace('return {{"y": -1.0}}', "raise ValueError"), space=SPACE, store="NpzStore", exclude="[]"
    )
    project.run("t", status=1)
    write_task(project)
    save_with_numpy(project.path / "old.npz", columns(4))
    adopt("old.npz")
    assert n_done() == 4
    assert "nothing to add" in adopt("old.npz")
    (project.path / "starts").unlink()
    project.run("t")
    assert n_started(project) == 2
    assert project.result("t")["y"].tolist() == [1, 2, 3, 4, -1, -1]


# Pickles


def test_pickles_are_read_for_tasks_with_pickles_or_on_request(project: Project) -> None:
    """And never if another user could have written them."""
    write_task(project)
    path = project.path / "old.pkl"
    path.write_bytes(pickle.dumps({"D": [0.1], "N": [10], "y": [None], "z": [2]}))
    path.chmod(0o600)
    error = adopt("old.pkl", status=2)
    assert "--trust-pickle" in error
    path.chmod(0o666)
    error = adopt("old.pkl", "--trust-pickle", status=4)
    assert "can be written by other users" in error
    path.chmod(0o600)
    assert "1 of items of t" in adopt("old.pkl", "--trust-pickle", "--dry-run")
    write_task(project, store="PickleStore")
    assert "1 of items of t" in adopt("old.pkl", "--dry-run")
    path.chmod(0o666)
    adopt("old.pkl", status=2)


def test_objects_in_npz_are_read_on_request(project: Project) -> None:
    """NumPy pickled them; a store that cannot hold them says so, and nothing is on record."""
    write_task(project)
    np.savez(project.path / "old.npz", **columns(2) | {"o": np.array([{1}, None], dtype=object)})
    (project.path / "old.npz").chmod(0o600)
    adopt("old.npz", status=2)
    error = adopt("old.npz", "--trust-pickle", status=2)
    assert "'o' is a set" in error
    assert parts(project) == []
    write_task(project, store="PickleStore")
    adopt("old.npz")
    assert len(parts(project)) == 1


# The record


def test_a_part_says_where_its_rows_come_from(project: Project) -> None:
    """It is as any other part, with the name of the file and no plan."""
    write_task(project)
    save_with_numpy(project.path / "old.npz", columns(5))
    adopt("old.npz")
    (path,) = parts(project)
    part = read(path)
    assert (part.header["adopted"], part.header["plan"], part.header["child"]) == ("old.npz", "", -1)
    assert path.name == f"{part.header['worker']}-s-0"
    assert (part.indices.tolist(), part.size, part.damage) == ([0, 1, 2, 3, 4], part.file_size, [])
    assert path.read_bytes()[-20] == END
    assert np.isnan(part.joined("duration")).all()
    assert (path.stat().st_mode & 0o777) == 0o600


def test_many_rows_go_into_one_part(project: Project) -> None:
    """Some thousand in each record of it."""
    write_task(project, "Param(x=range(10000))")
    append_with_pytables(project.path / "old.h5", {"x": np.arange(9000)[::-1], "y": np.arange(9000.0)[::-1]})
    adopt("old.h5")
    (path,) = parts(project)
    assert [batch.n_rows for batch in read(path).batches] == [4096, 4096, 808]
    project.run("t")
    assert n_started(project) == 1000
    assert project.result("t")["y"].tolist() == [*range(9000), *[-1] * 1000]


DIES = """
import os, sys
from pathlib import Path
from psyrun import cli
{patch}
sys.argv = ["psy-doit", "adopt", "t", "old.npz"]
cli.main()
"""
KILL = "os.kill(os.getpid(), 9)"


@pytest.mark.parametrize(
    "patch",
    [
        f"import psyrun.parts as p; p.Writer.end = lambda self: {KILL}",
        f"import psyrun.files as f; f.sync_file = lambda path: {KILL}",
        f"Path.replace = lambda self, target: {KILL} if target.parent.name == 'parts' else os.replace(self, target)",
    ],
)
def test_a_kill_before_the_end_leaves_nothing_that_counts(project: Project, patch: str) -> None:
    """The same command later takes all."""
    write_task(project)
    save_with_numpy(project.path / "old.npz", columns())
    program = DIES.format(patch=patch)
    done = subprocess.run([sys.executable, "-c", program], cwd=project.path, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name[0] for path in parts(project)] in ([], ["."])
    assert n_done() == 0
    adopt("old.npz")
    assert n_done() == 6


def test_a_full_disk_leaves_nothing(project: Project) -> None:
    """Exit status 75."""
    write_task(project)
    np.savez(project.path / "old.npz", **columns() | {"big": np.ones((6, 4000))})
    adopt("old.npz", "--dry-run")
    limited = f"ulimit -f 100; trap '' XFSZ; exec {PSY_DOIT} adopt t old.npz"
    done = subprocess.run(["bash", "-c", limited], cwd=project.path, capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr
    assert parts(project) == []


def test_rows_are_added_while_a_command_runs(project: Project) -> None:
    """Its items are computed all the same; each has one row, and nothing is lost."""
    project.logging_task("t", n=8, seconds=0.2, workers=1, max_jobs=2)
    save_with_numpy(project.path / "old.npz", {"x": np.arange(8), "y": np.arange(8) ** 2})
    running = project.start("t")
    try:
        while not project.starts():
            os.sched_yield()
        told = adopt("old.npz")
        assert "are being computed just now; the first row of each counts" in told
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait()
    project.run("t")
    assert project.result("t")["y"].tolist() == [x * x for x in range(8)]
