"""What a run does: from the task file to the result, again and again."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import psyrun
from project import Project

SQUARE = """
    from psyrun import Param

    pspace = Param(x=[{x}])
    max_jobs = {max_jobs}

    def execute(x):
        with open("starts", "a") as file:
            print(x, file=file)
        return {{"y": x * x}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def square(project: Project, *x: object, max_jobs: int = 3) -> None:
    project.task("t", SQUARE, x=", ".join(map(repr, x)), max_jobs=max_jobs)


def test_a_run_prints_the_steps_and_writes_the_result_in_space_order(project: Project) -> None:
    """Split, one step a chunk, merge; then a file that NpzStore loads."""
    square(project, 3, 1, 2, 5, max_jobs=2)
    assert project.steps("t") == [".  t:split", ".  t:process:0", ".  t:process:1", ".  t:merge"]
    result = project.result("t")
    assert list(result) == ["x", "y"]
    assert result["x"].tolist() == [3, 1, 2, 5]
    assert result["y"].tolist() == [9, 1, 4, 25]


def test_a_second_run_does_nothing_and_says_so(project: Project) -> None:
    """Both steps are up to date, and no file in the work directory changes."""
    square(project, 1, 2)
    project.run("t")
    before = {p: p.stat().st_mtime_ns for p in (project.path / "psy-work").rglob("*")}
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    assert {p: p.stat().st_mtime_ns for p in (project.path / "psy-work").rglob("*")} == before
    assert project.starts() == [1, 2]


def test_growing_the_space_computes_only_the_new_points(project: Project) -> None:
    """They are put between the old ones where the space has them; no question is asked."""
    square(project, 10, 50)
    project.run("t")
    square(project, 10, 20, 50, 100)
    assert project.steps("t") == [".  t:split", ".  t:process:0", ".  t:process:1", ".  t:merge"]
    assert project.starts() == [10, 50, 20, 100]
    assert project.result("t")["x"].tolist() == [10, 20, 50, 100]
    assert project.result("t")["y"].tolist() == [100, 400, 2500, 10000]


def test_shrinking_and_reordering_compute_nothing(project: Project) -> None:
    """Rows that left the space leave the result, and are back without computing when they return."""
    square(project, 1, 2, 3)
    project.run("t")
    square(project, 3, 1)
    assert project.steps("t") == [".  t:split", ".  t:merge"]
    assert project.result("t")["x"].tolist() == [3, 1]
    square(project, 1, 2, 3)
    project.run("t")
    assert project.result("t")["y"].tolist() == [1, 4, 9]
    assert project.starts() == [1, 2, 3]


def test_repeating_a_value_computes_it_once_more(project: Project) -> None:
    """A repeated assignment is a second item."""
    square(project, 1, 2)
    project.run("t")
    square(project, 1, 2, 1)
    project.run("t")
    assert project.starts() == [1, 2, 1]
    assert project.result("t")["x"].tolist() == [1, 2, 1]


def test_other_chunks_and_another_scheduler_rerun_nothing(project: Project) -> None:
    """Settings are not code."""
    square(project, 1, 2, 3, max_jobs=1)
    project.run("t")
    square(project, 1, 2, 3, max_jobs=3)
    assert project.steps("t", "-n", "2") == ["-- t:split", "-- t:merge"]


def test_a_raising_item_costs_one_row(project: Project) -> None:
    """Exit status 1; the result holds the others; traceback and the command that reruns the item are shown."""
    project.task(
        "t",
        """
        from psyrun import Param

        pspace = Param(x=range(6))
        max_jobs = 2

        def execute(x):
            if x == 4:
                raise ZeroDivisionError("x is four")
            return {"y": 1 / (x - 4)}
        """,
    )
    done = project.run("t", status=1)
    assert "ZeroDivisionError: x is four" in done.stderr
    assert "task_t.py" in done.stderr
    assert "psy-doit test t --item 4 --pdb" in done.stderr
    with pytest.warns(UserWarning, match="5 of 6 items"):
        assert project.result("t")["x"].tolist() == [0, 1, 2, 3, 5]
    told = project.status("t")
    assert (told["n_done"], told["n_failed"], told["complete"]) == (5, 1, False)
    assert told["failures"][0]["count"] == 1


def test_a_failed_item_is_tried_again_after_the_code_was_mended_and_kept(project: Project) -> None:
    """Code differs and rows are done: refused without a terminal; --keep runs only what failed."""
    text = """
        from psyrun import Param
        pspace = Param(x=range(4))
        def execute(x):
            open("starts", "a").write(f"{{x}}\\n")
            {body}
            return {{"y": x}}
    """
    project.task("t", text, body="assert x != 2")
    project.run("t", status=1)
    project.task("t", text, body="pass")
    refused = project.run("t", status=4)
    assert "--keep" in refused.stderr
    assert "--fresh" in refused.stderr
    assert project.status("t")["other_code"]
    project.run("t", "--keep")
    assert project.starts() == [0, 1, 2, 3, 2]
    assert project.result("t")["y"].tolist() == [0, 1, 2, 3]
    assert project.steps("t") == ["-- t:split", "-- t:merge"]
    project.task("t", text, body="assert x != 2")
    assert project.steps("t") == ["-- t:split", "-- t:merge"]  # the pair was accepted for good


def test_fresh_puts_the_old_record_into_the_archive(project: Project) -> None:
    """All is computed again, and nothing was removed."""
    square(project, 1, 2)
    project.run("t")
    text = (project.tasks / "task_t.py").read_text()
    (project.tasks / "task_t.py").write_text(text.replace("x * x", "x + 1"))
    project.run("t", "--fresh")
    assert project.result("t")["y"].tolist() == [2, 3]
    archived = list((project.path / "psy-work/t/archive").rglob("result.npz"))
    assert len(archived) == 1
    assert psyrun.NpzStore().load(archived[0])["y"].tolist() == [1, 4]
    assert list((project.path / "psy-work/t/archive").rglob("parts/*"))


def test_overwrite_dirty_means_fresh(project: Project) -> None:
    """As in psyrun 0.8, but the old results are kept in the archive."""
    text = "from psyrun import Param\npspace = Param(x=[1])\noverwrite_dirty = True\n"
    text += "def execute(x): return dict(y={})\n"
    project.task("t", text.replace("{}", "x"))
    project.run("t")
    project.task("t", text.replace("{}", "-x"))
    project.run("t")
    assert project.result("t")["y"].tolist() == [-1]
    assert list((project.path / "psy-work/t/archive").rglob("result.npz"))


def test_keep_on_the_command_line_wins_over_overwrite_dirty(project: Project) -> None:
    """Somebody who types --keep gets the old rows, and nothing is archived."""
    text = "from psyrun import Param\npspace = Param(x=[1])\noverwrite_dirty = True\n"
    project.task("t", text + "def execute(x): return dict(y=x)\n")
    project.run("t")
    project.task("t", text + "def execute(x): return dict(y=-x)\n")
    project.run("t", "--keep")
    assert project.result("t")["y"].tolist() == [1]
    assert not (project.path / "psy-work/t/archive").exists()


def test_several_tasks_run_one_after_another(project: Project) -> None:
    """The exit status is the worst."""
    square(project, 1)
    project.task("bad", "from psyrun import Param\npspace = Param(x=1)\ndef execute(x): 1 / 0\n")
    lines = project.steps("t", "bad", status=1)
    assert [line for line in lines if "merge" in line] == [".  t:merge", ".  bad:merge"]


def test_items_of_a_crashing_process_are_told_apart(project: Project) -> None:
    """A crash is charged to the item in hand, which is given up after three; the rest go on."""
    project.task(
        "t",
        """
        import os
        from psyrun import Param
        pspace = Param(x=range(10))
        def execute(x):
            if x == 3:
                os._exit(9)
            return {"y": x}
        """,
    )
    done = project.run("t", status=1)
    assert "Crash (exit status 9)" in done.stderr
    with pytest.warns(UserWarning, match="9 of 10"):
        assert project.result("t")["x"].tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    told = project.status("t")
    assert (told["n_failed"], told["n_missing"]) == (1, 0)


def test_setup_gets_the_number_of_the_process_and_its_values_go_to_execute(project: Project) -> None:
    """They go into the result, unless excluded."""
    project.task(
        "t",
        """
        from psyrun import Param
        pspace = Param(x=[1, 2])
        exclude_from_result = ["pool"]
        def setup(proc_id):
            return {"gpu": proc_id, "pool": object()}
        def execute(x, gpu, pool):
            return {"y": x}
        """,
    )
    project.run("t")
    result = project.result("t")
    assert list(result) == ["x", "gpu", "y"]
    assert result["gpu"].tolist() == [0, 0]


def test_values_of_all_kinds_reach_the_result(project: Project) -> None:
    """Text, truth values, arrays, ragged arrays, None, missing keys."""
    project.task(
        "t",
        """
        import numpy as np
        from psyrun import Param
        pspace = Param(x=range(3), name=["a", "bc", ""])
        def execute(x, name):
            row = {"flag": x > 1, "vector": np.arange(3) * 1.5, "ragged": np.ones(x), "none": None if x else 1.5}
            if x == 2:
                row["extra"] = 7
            return row
        """,
    )
    project.run("t")
    result = project.result("t")
    assert result["name"].tolist() == ["a", "bc", ""]
    assert result["flag"].tolist() == [False, False, True]
    assert result["vector"].shape == (3, 3)
    ragged = np.array([[np.nan, np.nan], [1, np.nan], [1, 1]])
    assert np.array_equal(result["ragged"], ragged, equal_nan=True)
    assert np.array_equal(result["none"], np.array([1.5, np.nan, np.nan]), equal_nan=True)
    assert np.array_equal(result["extra"], np.array([np.nan, np.nan, 7]), equal_nan=True)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return [x]", "it takes a dict"),
        ("return {'y': lambda: 1}", "PickleStore"),
        ("return {'x': 5}", "name of a parameter"),
        ("return {1: 5}", "takes printable text"),
    ],
)
def test_a_result_that_cannot_be_recorded_is_a_failed_item(project: Project, body: str, told: str) -> None:
    """The message says what execute returned and what it takes."""
    project.task("t", f"from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    {body}\n")
    assert told in project.run("t", status=1).stderr


def test_a_returned_array_may_be_used_again_by_the_next_item(project: Project) -> None:
    """What waits to be written is a copy: changing the array in place changes no row."""
    project.task(
        "t",
        """
        import numpy as np
        from psyrun import Param
        pspace = Param(x=range(300))
        buffer = np.zeros(2)
        same = {"y": buffer}
        def execute(x):
            buffer[:] = x
            same["z"] = x
            return same
        """,
    )
    project.run("t")
    result = project.result("t")
    assert np.array_equal(result["y"], np.stack([result["x"]] * 2, axis=1))
    assert np.array_equal(result["z"], result["x"])


def test_a_row_of_another_kind_does_not_cost_the_others_their_file(project: Project) -> None:
    """It stays on record, the command says which and why (status 1), and a PickleStore has it without computing."""
    text = """
        import psyrun
        pspace = psyrun.Param(x=range(6))
        {store}
        def execute(x):
            open("starts", "a").write(f"{{x}}\\n")
            return {{"y": "failed" if x == 2 else x / 2, "s": "a\\0" if x == 4 else "a"}}
    """
    project.task("t", text, store="")
    done = project.run("t", status=1)
    assert "item 2 is done, but not in the file: y = 'failed' is text, in most rows it is a number" in done.stderr
    assert "trailing NUL" in done.stderr
    assert "PickleStore" in done.stderr
    with pytest.warns(UserWarning, match="4 of 6"):
        assert project.result("t")["y"].tolist() == [0.0, 0.5, 1.5, 2.5]
    assert project.run("t", status=1).stdout == "-- t:split\n-- t:merge\n"
    project.task("t", text, store="store = psyrun.PickleStore()")
    assert project.steps("t") == ["-- t:split", ".  t:merge"]
    data = psyrun.PickleStore().load(project.path / "psy-work/t/result.pkl")
    assert data["y"].tolist() == [0.0, 0.5, "failed", 1.5, 2.0, 2.5]
    assert project.starts() == list(range(6))


def test_excluded_parameters_are_not_in_the_result(project: Project) -> None:
    """exclude_from_result names outputs and parameters alike."""
    project.task(
        "t",
        """
        from psyrun import Param
        pspace = Param(x=[1, 2], y=3)
        exclude_from_result = ["y", "big", "nowhere"]
        def execute(x, y):
            return {"z": x * y, "big": object()}
        """,
    )
    project.run("t")
    assert list(project.result("t")) == ["x", "z"]
    assert "nowhere" in project.run("logs", "t").stdout


def test_pickle_store_keeps_any_object(project: Project) -> None:
    """Where the task asks for it."""
    project.task(
        "t",
        """
        import psyrun
        pspace = psyrun.Param(x=[1, 'a'])
        store = psyrun.PickleStore
        def execute(x):
            return {"y": {"deep": [x]}}
        """,
    )
    project.run("t")
    data = psyrun.PickleStore().load(project.path / "psy-work/t/result.pkl")
    assert data["y"].tolist() == [{"deep": [1]}, {"deep": ["a"]}]
    assert data["x"].tolist() == [1, "a"]


def test_h5_store_and_resultfile(project: Project) -> None:
    """The result goes where the task file says."""
    project.task(
        "t",
        """
        import psyrun
        pspace = psyrun.Param(x=[1, 2])
        store = psyrun.H5Store()
        resultfile = "out/data.h5"
        def execute(x):
            return {"y": x / 2}
        """,
    )
    project.run("t")
    assert psyrun.H5Store().load(project.path / "out/data.h5")["y"].tolist() == [0.5, 1.0]
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


def test_workers_see_the_file_where_it_stands_and_start_where_the_command_did(project: Project) -> None:
    """__file__, the current directory, modules beside and psy-conf.py are as for the command."""
    (project.path / "mymodel.py").write_text("FACTOR = 3\n")
    (project.tasks / "psy-conf.py").write_text("max_jobs = 1\n")
    project.task(
        "t",
        """
        import os
        from psyrun import Param
        pspace = Param(x=[1, 2])
        def execute(x):
            from mymodel import FACTOR
            return {"y": x * FACTOR, "file": __file__, "cwd": os.getcwd()}
        """,
    )
    assert ".  t:process:1" not in project.steps("t")
    result = project.result("t")
    assert result["y"].tolist() == [3, 6]
    assert result["file"].tolist() == [str(project.tasks / "task_t.py")] * 2
    assert result["cwd"].tolist() == [str(project.path)] * 2


def test_global_generators_are_seeded_by_the_item(project: Project) -> None:
    """The same numbers whatever the chunks and workers; other numbers for other items."""
    text = """
        import random
        import numpy as np
        from psyrun import Param, Multiprocessing
        pspace = Param(x=range(8))
        max_jobs = {max_jobs}
        def execute(x):
            return {{"a": np.random.random(), "b": random.random()}}
    """
    project.task("one", text, max_jobs=1)
    project.task("two", text, max_jobs=8)
    project.run("one")
    project.run("two", "-n", "3")
    one, two = project.result("one"), project.result("two")
    for name in "ab":
        assert np.array_equal(one[name], two[name])
        assert len(set(one[name].tolist())) == 8


def test_another_interpreter_runs_the_items(project: Project) -> None:
    """The option python names it."""
    wrapper = project.path / "my python"
    wrapper.write_text(f'#!/bin/sh\ntouch used\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    project.task(
        "t",
        "from psyrun import Param\npspace = Param(x=range(5))\n"
        f"python = {str(wrapper)!r}\ndef execute(x): return dict(y=x)\n",
    )
    project.run("t")
    assert (project.path / "used").exists()
    assert project.result("t")["y"].tolist() == list(range(5))


def test_an_empty_space_gives_an_empty_result(project: Project) -> None:
    """Nothing to do is done."""
    project.task("t", "from psyrun import Param\npspace = Param(x=[])\ndef execute(x): return dict(y=x)\n")
    project.run("t")
    assert all(len(column) == 0 for column in project.result("t").values())
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


def test_a_lost_or_damaged_result_is_merged_again_without_computing(project: Project) -> None:
    """The record has everything; what stood there is moved to the archive."""
    square(project, 1, 2, 3)
    project.run("t")
    result = project.path / "psy-work/t/result.npz"
    result.unlink()
    assert project.steps("t") == ["-- t:split", ".  t:merge"]
    result.write_bytes(b"rubbish")
    assert project.steps("t") == ["-- t:split", ".  t:merge"]
    assert project.result("t")["y"].tolist() == [1, 4, 9]
    assert [p.read_bytes() for p in (project.path / "psy-work/t/archive").rglob("result.npz")] == [b"rubbish"]
    assert project.starts() == [1, 2, 3]


def test_a_damaged_part_costs_only_its_unreadable_rows(project: Project) -> None:
    """They are computed again, the others are kept."""
    project.logging_task(n=30, seconds=0.002, workers=1)
    project.run("t")
    (part,) = (project.path / "psy-work/t/parts").iterdir()
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 0xFF
    part.write_bytes(data)
    (project.path / "psy-work/t/manifest.json").unlink()
    project.run("t")
    assert project.result("t")["y"].tolist() == [x * x for x in range(30)]
    assert 30 < len(project.starts()) < 40


def test_a_moved_work_directory_is_still_good(project: Project) -> None:
    """Paths inside are relative."""
    square(project, 1, 2)
    project.run("t")
    (project.path / "psy-work").rename(project.path / "elsewhere")
    square(project, 1, 2)
    with (project.tasks / "task_t.py").open("a") as file:
        file.write("\nworkdir = 'elsewhere'\n")
    assert project.steps("t") == ["-- t:split", "-- t:merge"]


def test_an_edited_module_stops_workers_instead_of_mixing_code(project: Project) -> None:
    """A worker whose code is not the plan's runs nothing; the command says so and exits with 75."""
    model = project.path / "mymodel.py"
    model.write_text("def f(x):\n    return x\n")
    project.task(
        "t",
        """
        import os, pathlib
        from psyrun import Param
        from mymodel import f
        pspace = Param(x=[1, 2])
        max_jobs = 1
        def execute(x):
            if x == 2 and not pathlib.Path("edited").exists():
                # An edit between the first item and the start of the next process.
                pathlib.Path("edited").touch()
                pathlib.Path("mymodel.py").write_text("def f(x):\\n    return -x\\n")
                os._exit(1)
            return {"y": f(x)}
        """,
    )
    assert "code of t is not the plan's any more" in project.run("t", status=75).stderr
    assert project.status("t")["n_done"] == 1
    assert "other code" in project.run("t", status=4).stderr
    project.run("t", "--fresh")
    assert project.result("t")["y"].tolist() == [-1, -2]


def test_a_space_that_differs_each_time_is_refused(project: Project) -> None:
    """The worker's space is not the plan's: nothing is run (status 2), and the message tells the remedy."""
    project.task(
        "t",
        "import os\nfrom psyrun import Param\npspace = Param(x=list(os.urandom(8)))\n"
        "def execute(x): return dict(y=x)\n",
    )
    error = project.run("t", status=2).stderr
    assert "differs each time the task file is loaded" in error
    assert "np.random.default_rng(1)" in error
    assert project.status("t")["n_done"] == 0


def test_a_task_that_cannot_start_its_processes_says_why(project: Project) -> None:
    """setup raises: nothing is run, exit status 2, cause and next command are named."""
    project.task(
        "t",
        """
        from psyrun import Param
        pspace = Param(x=[1])
        def setup(proc_id):
            raise OSError("no GPU here")
        def execute(x):
            return {"y": x}
        """,
    )
    error = project.run("t", status=2).stderr
    assert "no GPU here" in error
    assert "psy-doit test t --pdb" in error


def test_output_of_items_goes_to_the_log(project: Project) -> None:
    """It does not disturb the lines of doit, and `logs` prints it."""
    project.task(
        "t",
        "from psyrun import Param\npspace = Param(x=[1, 2])\n"
        "def execute(x):\n    print('item', x)\n    return dict(y=x)\n",
    )
    assert "item" not in project.run("t").stdout.replace("items", "")
    assert "item 1\nitem 2\n" in project.run("logs", "t").stdout


def test_queries_change_nothing(project: Project) -> None:
    """status, list, logs and test leave the work directory as it is, byte for byte."""
    square(project, 1, 2)
    project.run("t")
    work = project.path / "psy-work"
    before = {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in work.rglob("*")}
    for words in (["status"], ["status", "-v", "t"], ["status", "--json"], ["logs", "t"], ["list"], ["test", "t"]):
        project.run(*words)
    assert {p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in work.rglob("*")} == before


def test_status_counts_what_runs(project: Project) -> None:
    """While a worker holds chunks, its items count as running; JSON has a schema version."""
    project.logging_task(n=10, seconds=0.2, workers=1, max_jobs=2)
    command = project.start("t")
    time.sleep(0.9)
    told = project.status("t")
    assert told["schema_version"] == 1
    assert told["n_running"] > 0
    assert told["n_done"] + told["n_running"] + told["n_missing"] == 10
    assert told["workers"][0]["pid"] > 0
    command.send_signal(signal.SIGINT)
    command.wait(timeout=10)


def test_the_plan_says_where_results_come_from(project: Project) -> None:
    """Versions, host, command line; the copy of the task file is the file."""
    square(project, 1)
    project.run("t")
    plan = project.path / "psy-work/t/plan/0001"
    content = json.loads((plan / "plan.json").read_text())
    assert content["provenance"]["command"][-1] == "t"
    assert content["provenance"]["versions"]["psyrun"] == psyrun.__version__
    assert (plan / "task.py").read_text() == (project.tasks / "task_t.py").read_text()
    assert oct((project.path / "psy-work/t").stat().st_mode)[-3:] == "700"


# Outputs of several kinds, and processes of user code

SHIFTING = """
from psyrun import Param
pspace = Param(x=range(60))
{more}
def execute(x{given}):
    if x % 3 == 1:
        return {odd}
    return {usual}
"""


@pytest.mark.parametrize(
    ("odd", "usual", "setup"),
    [
        ("{'x': x, 'z': 100 + x}", "{'y': x}", False),
        ("{'x': x, 'z': 1, 'w': 2}", "{'y': x}", False),
        ("{'error': -1.0}", "{'gain': gain, 'y': x / 10}", True),
        ("dict(y=x, z=1)", "{'z': 2, 'y': x}", False),
        ("{}", "{'y': x}", False),
    ],
)
def test_rows_of_other_names_do_not_shift_their_neighbours(project: Project, odd: str, usual: str, setup: bool) -> None:
    """Outputs with parameters, values of setup or names missing stand between usual ones, all of them fast."""
    more = "def setup(child):\n    return {'gain': 7}" if setup else ""
    project.task("t", SHIFTING, odd=odd, usual=usual, more=more, given=", gain" if setup else "")
    project.run("t")
    data = project.result("t")
    for i, x in enumerate(data["x"].tolist()):
        row = eval(odd if x % 3 == 1 else usual, {"x": x, "gain": 7}) | ({"gain": 7} if setup else {})
        for name in data:
            expected = x if name == "x" else row.get(name, np.nan)
            np.testing.assert_equal(data[name][i], expected, err_msg=f"{name} of {x}")


@pytest.mark.parametrize("how", ["pool", "terminated", "forked"])
def test_processes_that_user_code_starts_and_ends_write_nothing(project: Project, how: str) -> None:
    """Fast rows wait when they are forked; they are the parent's alone."""
    start = {
        "pool": "with mp.get_context('fork').Pool(2) as pool:\n            pool.map(abs, [1, 2])",
        "terminated": "p = mp.get_context('fork').Process(target=time.sleep, args=(9,)); p.start(); p.terminate(); "
        "p.join(); assert p.exitcode == -15",
        "forked": "pid = os.fork()\n        if pid == 0:\n            raise SystemExit\n        os.waitpid(pid, 0)",
    }[how]
    source = "import multiprocessing as mp, os, time\nfrom psyrun import Param\npspace = Param(x=range(200))\n"
    source += f"min_items = 200\ndef execute(x):\n    if x % 20 == 5:\n        {start}\n    return {{'y': x}}\n"
    project.task("t", source)
    project.run("t")
    assert project.result("t")["y"].tolist() == list(range(200))
    assert project.status("t")["damaged_parts"] == []
    assert len(list((project.path / "psy-work/t/parts").iterdir())) == 1


def test_an_array_of_objects_that_is_used_again_is_written_at_once(project: Project) -> None:
    """A copy of it would hold the same objects."""
    source = """
        import numpy as np
        from psyrun import Param, PickleStore
        pspace = Param(x=range(50))
        store = PickleStore()
        kept, array = [0], np.empty(1, object)
        array[0] = kept
        def execute(x):
            kept[0] = x
            return {"y": array}
        """
    project.task("t", source)
    project.run("t")
    found = psyrun.PickleStore().load(project.path / "psy-work/t/result.pkl")["y"]
    assert [np.asarray(value).tolist() for value in found] == [[[x]] for x in range(50)]


@pytest.mark.parametrize("name", ["", "a\\0b", "a\\nb"])
def test_a_name_that_no_store_takes_fails_its_item(project: Project, name: str) -> None:
    """Not the merge, after everything was computed."""
    project.task("t", f"from psyrun import Param\npspace = Param(x=[1])\ndef execute(x):\n    return {{'{name}': x}}\n")
    assert "printable text" in project.run("t", status=1).stderr
    assert project.result("t", keys=True)["x"].shape == (0,)
