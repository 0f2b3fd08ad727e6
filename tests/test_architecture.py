"""The shape of the code: imports go one way, the outside has one door, and nothing is too long to read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import psyrun

SOURCE = Path(psyrun.__file__).parent

# Each imports only what stands before it.
ORDER = [
    *("errors", "interrupts", "shell", "files", "units", "eta", "owners", "arrays", "keys", "columns", "streams"),
    *("axes", "pspace", "designs", "quantiles", "sampling", "exact", "conditions", "select", "store"),
    *("mapper", "seeding", "retries", "backend", "scheduler", "digest", "draws", "options", "slips", "taskfiles"),
    *("workdir", "claims", "terms", "cells", "parts", "scan", "tasks", "plan", "orders", "record", "gather", "collect"),
    *("expected", "dealing"),
    *("submissions", "queues", "jobs", "jobreport", "nodes"),
    *("provenance", "processes", "recorder", "child", "memory", "postmortem", "logbook", "durability", "holdings"),
    *("ownparts", "streak", "watch", "supervisor"),
    *("local", "progress", "state", "workers", "activity", "waiting", "results", "status", "tally", "live"),
    *("machine", "probes", "jobprobe", "jobfindings", "doctor"),
    *("selection", "retire", "foreign", "adopt", "forecast", "costs", "advise", "questions"),
    *("work", "run", "queued", "runs", "guest", "growing", "jobcheck", "lastworker", "jobwork", "worker", "steps"),
    *("arguments", "commands", "cli", "program", "__main__", "testing"),
]
# The names of psyrun 0.8 for what is elsewhere, and what the package exports.
FACADES = ["exceptions", "__init__"]

# What few modules may import, and which.
DOORS = {
    "subprocess": ["shell"],
    "doit": ["steps"],
    "joblib": ["mapper"],
    "h5py": ["store.h5", "store.table", "store.trust"],
    "rich": ["progress"],
    "scipy": ["quantiles"],
    "threadpoolctl": ["child"],
    "tables": ["store.table"],
    "pickle": ["cells", "store.pickle", "testing.safety"],
}

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
# To be divided.
LONG_FILES = {"pspace.py": 620}


def files() -> list[Path]:
    """Return all source files."""
    return sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the dotted name of a module inside the package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): ast.parse(path.read_text()) for path in files()}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes, but for what only type checkers import."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.If) and isinstance(inner.test, ast.Name) and inner.test.id == "TYPE_CHECKING":
            continue
        yield inner
        yield from statements(inner)


def imports(tree: ast.Module) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in statements(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    """Return the top-level modules of the package among names."""
    inside = {name.split(".")[1] for name in names if name.startswith("psyrun.")}
    return inside & {module.split(".")[0] for module in MODULES}


# Imports


def test_every_module_has_its_place() -> None:
    """A new one is put into the order, and one that is gone is taken out."""
    assert sorted([*ORDER, *FACADES]) == sorted({name.split(".")[0] for name in MODULES})


@pytest.mark.parametrize("module", [name for name in MODULES if name not in FACADES])
def test_imports_go_one_way(module: str) -> None:
    """From verbs to nouns; parts of a package may import each other."""
    top = module.split(".")[0]
    before = set(ORDER[: ORDER.index(top)]) | ({top} if "." in module else set())
    if module in ("store", "scheduler", "testing"):
        before.add(module)
    assert own(imports(MODULES[module])) <= before


@pytest.mark.parametrize("commands", [[name for name in MODULES if name.startswith("commands.")]])
def test_commands_do_not_know_each_other(commands: list[str]) -> None:
    """Each is thin, and calls the library."""
    assert [c for c in commands if "commands" in own(imports(MODULES[c]))] == []


def test_stores_and_schedulers_know_neither_each_other_nor_tasks() -> None:
    """Another one can be written without the rest."""
    for module in MODULES:
        if module.split(".")[0] == "scheduler":
            assert own(imports(MODULES[module])) <= {"errors", "shell", "files", "units", "scheduler"}
        if module.split(".")[0] == "store":
            assert own(imports(MODULES[module])) <= {
                "errors",
                "files",
                "owners",
                "arrays",
                "columns",
                "streams",
                "store",
            }


def test_shipped_tests_need_what_tests_need_and_nobody_else_does() -> None:
    """Stores and schedulers are tested without the rest; pytest and Hypothesis are not installed with psyrun."""
    for module, tree in MODULES.items():
        if module.split(".")[0] == "testing":
            known = {"errors", "shell", "files", "units", "arrays", "keys", "columns", "streams", "store", "scheduler"}
            assert own(imports(tree)) <= known | {"testing"}
        else:
            assert {name.split(".")[0] for name in imports(tree)} & {"pytest", "hypothesis"} == set()


@pytest.mark.parametrize("package", DOORS)
def test_packages_come_in_through_one_door(package: str) -> None:
    """Everything said to another program, to doit, to a file format or to a terminal goes through one module."""
    users = [name for name, tree in MODULES.items() if package in {n.split(".")[0] for n in imports(tree)}]
    assert users == sorted(DOORS[package])


def loaded(*arguments: str, cwd: Path) -> set[str]:
    """Return the top-level packages that a new interpreter imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    told = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=60).stderr
    lines = [line for line in told.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    "arguments", [("-c", "import psyrun.cli"), ("-m", "psyrun", "list"), ("-m", "psyrun", "--help")]
)
def test_what_must_be_quick_imports_nothing_heavy(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Names are completed in a shell while one types."""
    (tmp_path / "psy-tasks").mkdir()
    (tmp_path / "psy-tasks" / "task_a.py").write_text("import numpy\n")
    found = loaded(*arguments, cwd=tmp_path)
    assert {"psyrun", "click"} <= found
    assert found & {"numpy", "h5py", "tables", "rich", "doit", "joblib", "pandas", "sqlite3", "asyncio"} == set()


# Length


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_is_too_long(path: Path) -> None:
    """One idea a file."""
    most = LONG_FILES.get(path.name, MOST_LINES_OF_A_FILE)
    assert len(path.read_text().splitlines()) <= most


def test_no_function_is_too_long() -> None:
    """It fits a screen, docstring included."""
    functions = [
        (module, node)
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    long = [
        f"{module}.{node.name}"
        for module, node in functions
        if (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_A_FUNCTION
    ]
    assert long == []


# Documentation


def public(tree: ast.Module) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef]]:
    """Yield a module with its public classes, functions and methods."""
    yield "", tree
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, node
            for inner in node.body if isinstance(node, ast.ClassDef) else []:
                overload = isinstance(inner, ast.FunctionDef) and any(
                    "overload" in ast.dump(d) for d in inner.decorator_list
                )
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_") and not overload:
                    yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_is_documented(module: str) -> None:
    """In a sentence at least; it begins with a capital letter or a name, and ends with a mark."""
    missing = [name for name, node in public(MODULES[module]) if not ast.get_docstring(node)]
    assert missing == []
    firsts = {name: (ast.get_docstring(node) or "").split("\n\n")[0] for name, node in public(MODULES[module])}
    assert [name for name, first in firsts.items() if first[-1] not in ".:?"] == []
