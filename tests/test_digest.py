"""The code digest: it changes when results could, and not when they could not."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.digest import code_digest

BASE = """\
'''A task.'''
import functools
import numpy as np
import helpers
from psyrun import Param

# How fine
STEP = 0.5
N_POINTS = 10
CACHE = {}
max_jobs = 4

def grid(n):
    '''All points.'''
    values = [i * i for i in range(n)]
    return values

def decorated(function):
    @functools.wraps(function)
    def inner(**kwargs):
        return function(**kwargs)
    return inner

def scale(x):
    '''The helper.'''
    factor = STEP
    return x * factor

pspace = Param(x=grid(N_POINTS)) * Param(values=[1, 2])

class Model:
    '''A model.'''
    gain = 2
    def run(self, x):
        return scale(x) * self.gain

np.random.seed(0)

@decorated
def execute(x, values):
    '''Compute.'''
    result = Model().run(x)  # the model
    return {"y": result + values}
"""


def digest(source: str, path: Path | None = None, config: str = "", file_dep: list[str] | None = None) -> str:
    """Return the digest of a text, with modules and files in a directory."""
    importlib.invalidate_caches()
    return code_digest(textwrap.dedent(source), config, "task_t.py", file_dep or [], [str(path)] if path else [])


def changed(old: str, new: str, source: str = BASE) -> bool:
    """Whether the digest changes with a piece of the text."""
    assert source.count(old) == 1
    return digest(source.replace(old, new)) != digest(source)


# What changes nothing


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# How fine", "# How very fine"),
        ("  # the model", ""),
        ("'''A task.'''", ""),
        ("'''Compute.'''", "'''Compute it.'''"),
        ("'''Compute.'''", "0"),
        ("'''A model.'''", ""),
        ("    gain = 2\n", "    gain = 2\n    '''How loud.'''\n"),
        ('{"y": result + values}', '{\n        "y": result\n        + values,\n    }'),
        ("STEP = 0.5", "\n\nSTEP = (0.5)"),
        ("return x * factor", "return (x*factor)"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(old: str, new: str) -> None:
    """Reformatting a file recomputes nothing."""
    assert not changed(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_jobs = 4", "max_jobs = 5\nmin_items = 3\nscheduler = 'x'\nstore = 1"),
        ("N_POINTS = 10", "N_POINTS = 20"),
        ("i * i for i", "i ** 3 for i"),
        ("'''All points.'''", "print(n)"),
        ("Param(values=[1, 2])", "Param(values=[1, 2, 3])"),
        ("max_jobs = 4", "print(pspace if 0 else 1)"),
        ("max_jobs = 4", "if __name__ == '__main__':\n    print(execute(1, 2)); np.random.seed(3)"),
        ("from psyrun import Param", "from psyrun import H5Store, Param"),
        ("import functools", "import functools\nimport json, os"),
    ],
)
def test_settings_and_the_space_do_not_count(old: str, new: str) -> None:
    """Growing the space recomputes nothing that is done."""
    assert not changed(old, new)


SAME_NAMES = """\
from psyrun import Param
D = [1, 2]
x = [3]
points = []
for D_value in D:
    points.append(D_value)

def rows():
    rng, total = 1, 2
    return rng + total

pspace = Param(D=D, x=rows())

def execute(D, x):
    rng = D
    rows = [x for x in range(3)]
    points = lambda total: total
    return {"y": rng, "rows": rows, "z": points(x)}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("D = [1, 2]", "D = [1, 2, 3]"),
        ("x = [3]", "x = [4]"),
        ("points.append(D_value)", "points.append(2 * D_value)"),
        ("rng, total = 1, 2", "rng, total = 1, 3"),
    ],
)
def test_arguments_and_local_names_of_execute_are_not_globals(old: str, new: str) -> None:
    """Parameters are often called like the lists of their values."""
    assert not changed(old, new, SAME_NAMES)


# What changes it


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("result + values", "result - values"),
        ("def execute(x, values):", "def execute(x, values, extra=1):"),
        ("return x * factor", "return x / factor"),
        ("factor = STEP", "factor = 2 * STEP"),
        ("STEP = 0.5", "STEP = 0.25"),
        ("STEP = 0.5", "STEP = 0.5\nSTEP = 1"),
        ("STEP = 0.5", "STEP = 0.5\nSTEP += 1"),
        ("STEP = 0.5", "STEP = 0.5\nfor STEP in range(3): pass"),
        ("STEP = 0.5", "STEP = 0.5\nif 1:\n    STEP = 2"),
        ("gain = 2", "gain = 3"),
        ("return function(**kwargs)", "return function()"),
        ("@decorated\n", ""),
        ("np.random.seed(0)", "np.random.seed(1)"),
        ("np.random.seed(0)", ""),
        ("max_jobs = 4", "if max_jobs:\n    np.random.seed(3)"),
        ("max_jobs = 4", "try:\n    np.seterr(all='raise')\nexcept ValueError:\n    pass"),
        ("import numpy as np", "import cupy as np"),
        ('return {"y"', "return {'z'"),
        ("max_jobs = 4", "def setup(proc_id):\n    return {}"),
        ("scale(x) * self.gain", "scale(x) * self.gain * True"),
    ],
)
def test_what_execute_can_reach_counts(old: str, new: str) -> None:
    """Functions, classes, constants, decorators, imports, and statements that do something."""
    assert changed(old, new)


TABLE = """\
MODELS = {}
LIMITS = []
LIMITS.append(3)
OPTIONS = type("Options", (), {})
OPTIONS.speed = 1
MODELS["zero"] = lambda x: 0

def register(function):
    MODELS[function.__name__] = function
    return function

@register
def one(x):
    return x

class Base:
    pass

class Two(Base):
    value = 2

def fill():
    global EXTRA
    EXTRA = 5
    LIMITS.extend([6])

unused = fill()

def execute(x, kind):
    found = Base.__subclasses__(), OPTIONS.speed, LIMITS, EXTRA
    return {"y": MODELS[kind](x), "n": str(found)}
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMITS.append(3)", "LIMITS.append(4)"),
        ("OPTIONS.speed = 1", "OPTIONS.speed = 2"),
        ("lambda x: 0", "lambda x: 1"),
        ("return x\n", "return -x\n"),
        ("value = 2", "value = 3"),
        ("EXTRA = 5", "EXTRA = 6"),
        ("[6]", "[7]"),
    ],
)
def test_what_is_filled_in_elsewhere_counts(old: str, new: str) -> None:
    """Tables, registries, subclasses and globals of functions."""
    assert changed(old, new, TABLE)


@pytest.mark.parametrize("line", ["exec('STEP = 0')", "x = globals()", "from os.path import *", "y = eval('1')"])
def test_code_that_hides_its_names_makes_all_of_the_file_count(line: str) -> None:
    """Settings and the space too; but not comments and docstrings."""
    source = BASE.replace("max_jobs = 4", f"max_jobs = 4\n{line}")
    assert changed("max_jobs = 4", "max_jobs = 5", source)
    assert changed("N_POINTS = 10", "N_POINTS = 20", source)
    assert not changed("# How fine", "", source)
    assert not changed("'''A task.'''", "'''Mine.'''", source)


def test_two_settings_of_one_digest_are_told_apart() -> None:
    """What a name stands for is part of the text, also where values look alike."""
    sources = [f"def execute(x):\n    return {value}" for value in ("1", "1.0", "True", "'1'", "b'1'", "None", "...")]
    assert len({digest(source) for source in sources}) == len(sources)


# Laws

STATEMENTS = st.sampled_from(
    ["max_jobs = {}", "grid_{} = [1]", "def spare_{}():\n    return execute", "# {}", "import os as os_{}", "'{}'", ""]
)


@given(st.lists(st.tuples(STATEMENTS, st.integers(0, 9)), max_size=6), st.randoms(use_true_random=False))
def test_what_nothing_reads_can_be_added_anywhere(lines: list[tuple[str, int]], random: object) -> None:
    """And in any number."""
    body = [ast.unparse(node) for node in ast.parse(BASE).body]
    for text, number in lines:
        place = random.randint(0, len(body))  # type: ignore[attr-defined]
        body.insert(place, text.format(number))
    assert digest("\n".join(body)) == digest(BASE)


@given(st.data())
def test_every_constant_that_execute_reaches_counts(data: st.DataObject) -> None:
    """Whichever is another number."""
    reached = {"STEP", "gain", "seed"}
    tree = ast.parse(BASE)
    numbers = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) in (int, float)]
    chosen = data.draw(st.sampled_from(numbers))
    line = BASE.splitlines()[chosen.lineno - 1]
    chosen.value = 77
    assert (digest(ast.unparse(tree)) != digest(BASE)) == any(name in line for name in reached)


# Local modules


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with modules, far from any installed package."""
    package = tmp_path / "lab"
    (package / "deep").mkdir(parents=True)
    (tmp_path / "helpers.py").write_text("from lab import models\nimport json\nVALUE = 1\n")
    (package / "__init__.py").write_text("from .core import start\n")
    (package / "core.py").write_text("def start(): return 1\n")
    (package / "models.py").write_text("from . import units\nfrom .deep import sea\n")
    (package / "units.py").write_text("METRE = 1\n")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "sea.py").write_text("from ..core import start\nfrom ...outside import nothing\n")
    (tmp_path / "unrelated.py").write_text("VALUE = 1\n")
    (tmp_path / "spaces.py").write_text("VALUES = [1]\n")
    (tmp_path / "plugin.py").write_text("import numpy\nnumpy.random.seed(1)\n")
    return tmp_path


IMPORTS = {
    "absolute": "import helpers\ndef execute(x):\n    return helpers.VALUE",
    "named": "from helpers import VALUE as V\ndef execute(x):\n    return V",
    "inside execute": "def execute(x):\n    import helpers\n    return helpers.VALUE",
    "in a branch": "try:\n    import helpers as h\nexcept ImportError:\n    h = None\ndef execute(x):\n    return h",
    "as execute": "from helpers import models as execute",
}


@pytest.mark.parametrize("how", IMPORTS)
@pytest.mark.parametrize(
    "file", ["helpers.py", "lab/__init__.py", "lab/core.py", "lab/models.py", "lab/units.py", "lab/deep/sea.py"]
)
def test_local_modules_that_execute_imports_count(project: Path, how: str, file: str) -> None:
    """Directly or through others, with the packages around them."""
    before = digest(IMPORTS[how], project)
    with (project / file).open("a") as text:
        text.write("# a comment\n")
    assert digest(IMPORTS[how], project) == before
    with (project / file).open("a") as text:
        text.write("MORE = 1\n")
    assert digest(IMPORTS[how], project) != before


@pytest.mark.parametrize("module", ["lab.deep.sea", "lab.deep", "lab"])
def test_a_module_of_a_package_counts_with_what_its_package_imports(project: Path, module: str) -> None:
    """Importing a.b.c runs a and a.b too."""
    source = f"import {module}\ndef execute(x):\n    return lab.core.start()"
    before = digest(source, project)
    (project / "lab" / "core.py").write_text("def start(): return 2\n")
    assert digest(source, project) != before


def test_modules_of_the_space_do_not_count(project: Path) -> None:
    """Nor do those that nothing imports."""
    source = IMPORTS["absolute"] + "\nimport spaces\npspace = spaces.VALUES"
    before = digest(source, project)
    (project / "spaces.py").write_text("VALUES = [1, 2]\n")
    (project / "unrelated.py").write_text("VALUE = 2\n")
    assert digest(source, project) == before


def test_a_module_that_is_imported_for_what_it_does_counts(project: Path) -> None:
    """Nothing reads its name."""
    source = "import plugin\ndef execute(x):\n    return x"
    before = digest(source, project)
    (project / "plugin.py").write_text("import numpy\nnumpy.random.seed(2)\n")
    assert digest(source, project) != before


def test_installed_packages_do_not_count(project: Path) -> None:
    """They have versions, which the plan records."""
    installed = project / "env" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    (installed / "library.py").write_text("VALUE = 1\n")
    source = "import library, json, numpy\ndef execute(x):\n    return library.VALUE, json, numpy"
    importlib.invalidate_caches()
    before = code_digest(source, "", "t", [], [*sys.path, str(installed)])
    (installed / "library.py").write_text("VALUE = 2\n")
    assert code_digest(source, "", "t", [], [*sys.path, str(installed)]) == before


def test_modules_below_the_prefix_of_the_interpreter_count(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project may be an environment of venv or conda itself, or lie in one; its packages and library do not count."""
    library = project / "lib" / "python3"
    (library / "site-packages").mkdir(parents=True)
    (library / "standard.py").write_text("VALUE = 1\n")
    (library / "site-packages" / "installed.py").write_text("VALUE = 1\n")
    path = [str(project), str(library), str(library / "site-packages"), *sys.path]
    paths = dict.fromkeys(("stdlib", "platstdlib"), str(library))
    monkeypatch.setattr(sys, "prefix", str(project))
    monkeypatch.setattr("psyrun.digest.sysconfig.get_path", paths.__getitem__)
    source = "import helpers, standard, installed\ndef execute(x):\n    return helpers, standard, installed"
    importlib.invalidate_caches()
    before = code_digest(source, "", "t", [], path)
    for file in (library / "standard.py", library / "site-packages" / "installed.py"):
        file.write_text("VALUE = 2\n")
    assert code_digest(source, "", "t", [], path) == before
    (project / "helpers.py").write_text("VALUE = 2\n")
    assert code_digest(source, "", "t", [], path) != before


def test_a_package_that_is_installed_to_be_edited_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finder is not on the path."""

    class Finder:
        @classmethod
        def find_spec(cls, name: str, path: object = None, target: object = None) -> object:
            known = {"editable": project / "elsewhere" / "editable.py"}
            return importlib.util.spec_from_file_location(name, known[name]) if name in known else None

    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "editable.py").write_text("VALUE = 1\n")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    source = "import editable\ndef execute(x):\n    return editable.VALUE"
    before = digest(source, project)
    (project / "elsewhere" / "editable.py").write_text("VALUE = 2\n")
    assert digest(source, project) != before


def test_a_module_that_cannot_be_parsed_counts_as_it_is(project: Path) -> None:
    """It may be for another version of Python, and never be imported."""
    (project / "helpers.py").write_text("print 'hello'\n")
    before = digest(IMPORTS["inside execute"], project)
    (project / "helpers.py").write_text("print 'bye'\n")
    assert digest(IMPORTS["inside execute"], project) != before


def test_moving_the_project_changes_nothing(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Modules are known by name, not by place."""
    before = digest(IMPORTS["absolute"], project)
    moved = tmp_path_factory.mktemp("z") / "moved"
    project.rename(moved)
    assert digest(IMPORTS["absolute"], moved) == before


def test_importing_is_not_needed(project: Path) -> None:
    """The digest runs no code of the user."""
    (project / "helpers.py").write_text("raise SystemExit\n")
    digest(IMPORTS["absolute"], project)
    assert "helpers" not in sys.modules


# Files, defaults and versions of Python


def test_the_content_of_file_dep_counts(tmp_path: Path) -> None:
    """Not its time; and a file that is not there is an error."""
    data, other = tmp_path / "data.csv", tmp_path / "other.csv"
    data.write_text("1,2")
    other.write_text("1,2")
    digests = {digest(BASE, file_dep=files) for files in ([], [str(data)], [str(data), str(other)])}
    assert len(digests) == 3
    before = digest(BASE, file_dep=[str(data), str(other)])
    os.utime(data, (1, 1))
    assert digest(BASE, file_dep=[str(other), str(data)]) == before
    data.write_text("1,3")
    assert digest(BASE, file_dep=[str(data), str(other)]) != before
    data.unlink()
    with pytest.raises(FileNotFoundError):
        digest(BASE, file_dep=[str(data)])


def test_functions_that_come_from_the_defaults_of_all_tasks_count() -> None:
    """The settings there do not, nor functions that the task file has itself."""
    config = "max_jobs = 3\nLIMIT = 1\ndef setup(proc_id):\n    return {'limit': LIMIT}\n"
    before = digest(BASE, config=config)
    assert digest(BASE, config=config.replace("max_jobs = 3", "max_jobs = 4")) == before
    assert digest(BASE, config=config.replace("LIMIT = 1", "LIMIT = 2")) != before
    assert digest(BASE, config="max_jobs = 3\nprint('hello')") == digest(BASE)
    own = BASE + "def setup(proc_id):\n    return {}\n"
    assert digest(own, config=config) == digest(own)


def in_python(*options: str, run: Callable[..., str] = subprocess.check_output) -> str:
    """Return the digest of the sample in a new interpreter."""
    code = f"from psyrun.digest import code_digest; print(code_digest({BASE!r}, '', 't', [], []))"
    return run([sys.executable, *options, "-c", code], text=True, cwd="/").strip()


def test_options_of_the_interpreter_do_not_count() -> None:
    """Workers may be started otherwise than the command."""
    assert in_python("-O") == in_python("-OO") == digest(BASE)


def test_the_digest_of_today_is_that_of_tomorrow() -> None:
    """In every version of Python, and of psyrun: or all users would be asked what to do with their results."""
    source = "import numpy as np\nK = [1, -2.5, 'é', b'x', None]\n\ndef execute(a, *b, c=1, **d) -> dict:\n"
    source += (
        "    with open(a) as f:\n        return {'y': f'{a!r:>{c}}', 'z': [i for i in K if i], 't': lambda q: q[1:]}\n"
    )
    assert digest(source) == "1eb8425d894f7a80f092795dd457c4b2"


def test_long_sums_count() -> None:
    """A sum of many terms, as programs write them, is a tree as deep."""
    source = "def execute(x):\n    return dict(y=" + " + ".join(f"{i} * x" for i in range(1500)) + ")\n"
    before = digest(source)
    assert digest(source.replace("750 * x", "751 * x")) != before
    assert digest(source.replace("def", "# a comment\ndef")) == before


def test_classes_of_values_of_the_space_count() -> None:
    """Nobody calls their methods by the name of the class."""
    source = """
        from psyrun import Param
        class Noise(float):
            def sample(self):
                return {value}
        class Other:
            value = {other}
        pspace = Param(noise=[Noise(1.)])
        def execute(noise):
            return {{"y": noise.sample()}}
        """
    base = digest(source.format(value=1, other=1))
    assert digest(source.format(value=2, other=1)) != base
    assert digest(source.format(value=1, other=2)) == base
