"""Every cell of the tutorial, as printed there, in a directory that holds nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import psyrun

CHECKOUT = Path(__file__).resolve().parent.parent
PSY_DOIT = Path(sys.executable).with_name("psy-doit")

D_COLUMN = [2, 2, 2, 3, 3, 3, 4, 4, 4]
N_COLUMN = [10, 50, 100, 10, 50, 100, 10, 50, 100]

# The cells, by their numbers in the tutorial.

CELL_1 = """\
from __future__ import print_function
from pprint import pprint
"""

CELL_2 = """\
from ctn_benchmark.nengo.communication import CommunicationChannel
"""

CELL_3 = """\
rmses = []
for D in np.arange(2, 5):
    for N in [10, 50, 100]:
        rmses.append(CommunicationChannel().run(D=D, N=N)['rmse'])
"""

CELL_4 = """\
pprint(rmses)
"""

CELL_5 = """\
from psyrun import Param

pspace = Param(D=np.arange(2, 5)) * Param(N=[10, 50, 100])
print(pspace)
"""

CELL_6 = """\
print(Param(a=[1, 2], b=[3, 4]))
"""

CELL_7 = """\
print(Param(a=[1, 2], b=3))
"""

CELL_8 = """\
import psyrun

result = psyrun.map_pspace(CommunicationChannel().run, pspace)
"""

CELL_9 = """\
pprint(result)
"""

CELL_10 = """\
import pandas as pd
"""

CELL_10_VALUE = """\
pd.DataFrame(result)
"""

CELL_11 = """\
cat << EOF > model.py
from ctn_benchmark.nengo.communication import CommunicationChannel
def evaluate(**kwargs):
    return CommunicationChannel().run(**kwargs)
EOF
"""

CELL_12 = """\
from model import evaluate
result2 = psyrun.map_pspace_parallel(evaluate, pspace)
"""

CELL_13 = """\
pprint(result2)
"""

CELL_14 = """\
# task_cc1.py

from ctn_benchmark.nengo.communication import CommunicationChannel
import numpy as np
import psyrun
from psyrun import Param

pspace = Param(D=np.arange(2, 5)) * Param(N=[10, 50, 100])
min_items = 1
max_jobs = 6

def execute(**kwargs):
    return CommunicationChannel().run(**kwargs)
"""

CELL_18 = """\
data = psyrun.NpzStore().load('psy-work/cc1/result.npz')
pprint(data)
"""

CELL_19 = """\
# task_cc2.py

import platform

from ctn_benchmark.nengo.communication import CommunicationChannel
import numpy as np
from psyrun import Param, Sqsub

pspace = Param(D=np.arange(2, 5)) * Param(N=[10, 50, 100])
min_items = 1
max_jobs = 6

sharcnet_nodes = ['narwhal', 'bul', 'kraken', 'saw']
if any(platform.node().startswith(x) for x in sharcnet_nodes):
    workdir = '/work/jgosmann/tcm'
    scheduler = Sqsub(workdir)
    scheduler_args = {
        'timelimit': '10m',
        'memory': '512M'
    }

def execute(**kwargs):
    return CommunicationChannel().run(**kwargs)
"""

# What the tutorial prints, with a pattern for the numbers that differ from machine to machine.

NUMBER = r"\d+\.\d+(e[-+]\d+)?"

MODEL_OUTPUT = rf"""running CommunicationChannel#\d{{8}}-\d{{6}}-[0-9a-f]{{8}}
Simulation finished in \d+:\d\d:\d\d\.
_D = 2
_L = 2
_N = 10
_pstc = 0\.01
_T = 1\.0
_dt = 0\.001
_seed = 1
rmse = {NUMBER}
sim_speed = {NUMBER}
"""


def column_pattern(name: str) -> str:
    """Return a pattern for a column of nine numbers as pprint breaks it into lines."""
    head = f" '{name}': ["
    return re.escape(head) + (",\n" + " " * len(head)).join([NUMBER] * 9) + r"\]"


PRINTED_RESULT = (
    re.escape(f"{{'D': {D_COLUMN},\n 'N': {N_COLUMN},\n")
    + column_pattern("rmse")
    + ",\n"
    + column_pattern("sim_speed")
    + r"\}\n"
)

tutorial = pytest.mark.tutorial


class Notebook:
    """Runs cells in one namespace, as Jupyter with ``%pylab`` does."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"np": np}

    def run(self, cell: str) -> str:
        """Run a cell and return what it printed."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(cell, "<cell>", "exec"), self.names)
        return printed.getvalue()

    def value(self, cell: str) -> Any:
        """Return what a cell of one expression is."""
        return eval(cell.strip(), self.names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the notebook lives: an empty directory, and `ctn_benchmark` installed, so to say."""
    folder = tmp_path_factory.mktemp("tutorial")
    installed = tmp_path_factory.mktemp("site")
    package = installed / "ctn_benchmark" / "nengo"
    package.mkdir(parents=True)
    for init in (package, package.parent):
        (init / "__init__.py").touch()
    (package / "communication.py").write_text(
        "from examples.communication import CommunicationChannel as CommunicationChannel\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for path in (CHECKOUT, installed, folder):
            patch.syspath_prepend(str(path))
        for name in [name for name in os.environ if name.startswith("PSYRUN_")]:
            patch.delenv(name)
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, installed, CHECKOUT))))
        yield folder
    for module in list(sys.modules):
        if module.split(".")[0] in ("ctn_benchmark", "examples"):
            del sys.modules[module]


@pytest.fixture(scope="module")
def notebook(folder: Path) -> Notebook:
    """A notebook in which the first cell has run."""
    notebook = Notebook()
    assert notebook.run(CELL_1) == ""
    return notebook


@pytest.fixture(scope="module")
def rmses(notebook: Notebook) -> list[float]:
    """What the nested loops find."""
    pytest.importorskip("nengo")
    assert notebook.run(CELL_2) == ""
    assert re.match(MODEL_OUTPUT, notebook.run(CELL_3))
    rmses: list[float] = notebook.names["rmses"]
    return rmses


@pytest.fixture(scope="module")
def result(notebook: Notebook, rmses: list[float]) -> dict[str, list[Any]]:
    """What `map_pspace` returns."""
    notebook.run(CELL_5)
    notebook.run(CELL_8)
    result: dict[str, list[Any]] = notebook.names["result"]
    return result


def assert_tutorial_result(result: dict[str, list[Any]], rmses: list[float]) -> None:
    """The columns that the tutorial shows, in its order, as Python numbers."""
    assert list(result) == ["D", "N", "rmse", "sim_speed"]
    assert result["D"] == D_COLUMN
    assert result["N"] == N_COLUMN
    assert result["rmse"] == rmses
    assert len(result["sim_speed"]) == 9
    assert all(speed > 0 for speed in result["sim_speed"])
    for name, kind in {"D": int, "N": int, "rmse": float, "sim_speed": float}.items():
        assert {type(value) for value in result[name]} == {kind}


# Parameter space exploration


@tutorial
def test_nested_loops_find_nine_errors(notebook: Notebook, rmses: list[float]) -> None:
    """The errors are plain floats, which pprint puts one on a line."""
    assert re.fullmatch(r"\[" + ",\n ".join([NUMBER] * 9) + r"\]\n", notebook.run(CELL_4))
    assert all(0 < rmse < 1 for rmse in rmses)


def test_a_product_prints_its_rows(notebook: Notebook) -> None:
    """In the names' alphabetical order, as plain numbers."""
    expected = "Param(D=[2, 2, 2, 3, 3, 3, 4, 4, 4], N=[10, 50, 100, 10, 50, 100, 10, 50, 100])\n"
    assert notebook.run(CELL_5) == expected


def test_sequences_of_one_length_make_rows(notebook: Notebook) -> None:
    """Several arguments go side by side."""
    notebook.run(CELL_5)
    assert notebook.run(CELL_6) == "Param(a=[1, 2], b=[3, 4])\n"


def test_a_scalar_is_repeated(notebook: Notebook) -> None:
    """To the length of the sequences beside it."""
    notebook.run(CELL_5)
    assert notebook.run(CELL_7) == "Param(a=[1, 2], b=[3, 3])\n"


@tutorial
def test_map_pspace_returns_columns(result: dict[str, list[Any]], rmses: list[float]) -> None:
    """Mapping gives what the loops gave, with the parameters beside it."""
    assert_tutorial_result(result, rmses)


@tutorial
def test_the_result_prints_as_in_the_tutorial(notebook: Notebook, result: dict[str, list[Any]]) -> None:
    """No numpy types shine through."""
    assert re.fullmatch(PRINTED_RESULT, notebook.run(CELL_9))


@tutorial
def test_the_result_makes_a_data_frame(notebook: Notebook, result: dict[str, list[Any]]) -> None:
    """Of numbers, nine rows and four columns."""
    notebook.run(CELL_10)
    frame = notebook.value(CELL_10_VALUE)
    assert list(frame.columns) == ["D", "N", "rmse", "sim_speed"]
    assert list(frame.index) == list(range(9))
    assert [dtype.kind for dtype in frame.dtypes] == ["i", "i", "f", "f"]
    assert frame.to_dict("list") == result


# Parallelization


@tutorial
@pytest.mark.parametrize("backend", ["", ", backend='threading'", ", backend='multiprocessing', n_jobs=2"])
def test_parallel_mapping_finds_the_same(folder: Path, rmses: list[float], backend: str) -> None:
    """In the same row order, with processes and with threads."""
    subprocess.run(["sh", "-c", CELL_11], cwd=folder, check=True)
    map_cell = CELL_12.replace("(evaluate, pspace)", f"(evaluate, pspace{backend})")
    assert backend in map_cell
    before = f"{CELL_1}import json\nimport numpy as np\n{CELL_5}import psyrun\n"
    after = "json.dump(result2, open('result2.json', 'w'))\nprint('-' * 9)\n"
    ran = subprocess.run(
        [sys.executable, "-c", before + map_cell + after + CELL_13], cwd=folder, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert_tutorial_result(json.loads((folder / "result2.json").read_text()), rmses)
    assert re.fullmatch(PRINTED_RESULT, ran.stdout.rpartition("---------\n")[2])


# Serial farming


def psy_doit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `psy-doit` in a directory as a shell would."""
    return subprocess.run(
        [PSY_DOIT, *arguments], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


def step_lines(output: str) -> list[str]:
    """The lines in which doit reports its steps."""
    return [line.rstrip() for line in output.splitlines() if line.startswith((".  ", "-- "))]


def executed(task: str) -> list[str]:
    """What doit prints for a task of nine items in six jobs."""
    return [f".  {task}:split", *(f".  {task}:process:{i}" for i in range(6)), f".  {task}:merge"]


@pytest.fixture(scope="module")
def farm(folder: Path) -> Path:
    """The directory, with the two task files of the tutorial."""
    tasks = folder / "psy-tasks"
    tasks.mkdir()
    (tasks / "task_cc1.py").write_text(CELL_14)
    (tasks / "task_cc2.py").write_text(CELL_19)
    return folder


@pytest.fixture(scope="module")
def first_run(farm: Path) -> subprocess.CompletedProcess[str]:
    """What `psy-doit cc1` says when typed for the first time."""
    pytest.importorskip("nengo")
    return psy_doit(farm, "cc1")


def assert_complete_file(path: Path, rmses: list[float]) -> None:
    """Nine rows in the order of the space, and nothing that the tutorial does not show."""
    data = psyrun.NpzStore().load(path)
    assert all(isinstance(column, np.ndarray) for column in data.values())
    assert_tutorial_result({name: column.tolist() for name, column in data.items()}, rmses)


def test_list_names_the_tasks(farm: Path) -> None:
    """One a line; nothing is run."""
    listed = psy_doit(farm, "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.rstrip() for line in listed.stdout.splitlines()] == ["cc1", "cc2"]


@tutorial
def test_test_runs_the_first_item(farm: Path, rmses: list[float]) -> None:
    """Here and now: the name of the task, then what the model prints."""
    tested = psy_doit(farm, "test", "cc1")
    assert tested.returncode == 0, tested.stderr
    assert re.match("cc1\n" + MODEL_OUTPUT, tested.stdout)
    assert f"\nrmse = {rmses[0]!r}\n" in tested.stdout


@tutorial
def test_the_first_run_executes_every_step(first_run: subprocess.CompletedProcess[str]) -> None:
    """Split, one step a job, merge."""
    assert first_run.returncode == 0, first_run.stderr
    assert step_lines(first_run.stdout) == executed("cc1")


@tutorial
def test_doit_lines_come_first(first_run: subprocess.CompletedProcess[str]) -> None:
    """What the model prints does not come between them."""
    assert [line.rstrip() for line in first_run.stdout.splitlines()][:8] == executed("cc1")


@tutorial
def test_the_result_file_holds_every_row(
    farm: Path, first_run: subprocess.CompletedProcess[str], rmses: list[float]
) -> None:
    """The same numbers as the loops', in the order of the space."""
    assert_complete_file(farm / "psy-work" / "cc1" / "result.npz", rmses)


@tutorial
def test_the_result_file_loads_in_the_notebook(notebook: Notebook, first_run: subprocess.CompletedProcess[str]) -> None:
    """By a path relative to where the notebook lives."""
    notebook.run("import psyrun")
    printed = notebook.run(CELL_18)
    assert printed.startswith("{'D': array([2, 2, 2, 3, 3, 3, 4, 4, 4]),\n 'N': array([ 10,  50, 100,  10,")
    assert printed.count("array(") == 4


@tutorial
def test_a_second_run_executes_nothing(farm: Path, first_run: subprocess.CompletedProcess[str]) -> None:
    """It says that there was nothing to do, and leaves the result alone."""
    result = farm / "psy-work" / "cc1" / "result.npz"
    before = result.stat().st_mtime_ns, result.read_bytes()
    again = psy_doit(farm, "cc1")
    assert again.returncode == 0, again.stderr
    assert step_lines(again.stdout) == ["-- cc1:split", "-- cc1:merge"]
    assert (result.stat().st_mtime_ns, result.read_bytes()) == before


@tutorial
def test_the_cluster_task_runs_on_a_laptop(farm: Path, rmses: list[float]) -> None:
    """Where none of the named nodes is, the task file runs like the first one."""
    ran = psy_doit(farm, "cc2")
    assert ran.returncode == 0, ran.stderr
    assert step_lines(ran.stdout) == executed("cc2")
    assert_complete_file(farm / "psy-work" / "cc2" / "result.npz", rmses)


@pytest.mark.parametrize(("name", "cell"), [("cc1", CELL_14), ("cc2", CELL_19)])
def test_the_sample_tasks_are_those_of_the_tutorial(name: str, cell: str) -> None:
    """But for where the model is imported from."""
    sample = (CHECKOUT / "psy-tasks" / f"task_{name}.py").read_text()
    assert sample == cell.replace("from ctn_benchmark.nengo.communication", "from examples.communication")
