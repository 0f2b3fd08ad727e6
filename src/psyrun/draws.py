"""Whether items may draw from the global random generators, which are seeded for each item then.

Seeding both takes a few microseconds, more than all else that is done about an item. The answer is no only where the
code shows it: the task file imports nothing but a few modules known to draw nothing, and has no word anywhere that
names a random generator, loads objects, or is a way around names.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

_QUIET = {"__future__", "abc", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum"}
_QUIET |= {"fractions", "functools", "itertools", "json", "math", "numbers", "numpy", "operator", "psyrun", "re"}
_QUIET |= {"string", "time", "typing", "warnings"}
_LOUD = {"random", "_random", "sys", "_sys", "os", "_os", "modules", "testing", "builtins"}
_LOUD |= {"attrgetter", "methodcaller", "breakpoint", "compile", "eval", "exec", "getattr", "globals", "locals", "vars"}
_LOUD |= {"load", "allow_pickle", "memmap", "load_task", "tasks", "mapper", "results", "map_pspace"}
_LOUD |= {"map_pspace_parallel", "map_pspace_hdd_backed", "sampling", "*"}
_IN_CLASSES = {"__init__", "__post_init__", "__call__", "__name__", "__doc__", "__file__", "__version__"}


def may_draw(source: str, config: str, filename: str) -> bool:
    """Return whether an item may draw from the generators of `random` and `numpy.random`; yes in case of doubt.

    Parameters
    ----------
    source, config : str
        The text of the task file, and of ``psy-conf.py``.
    filename : str
        The task file's path.

    Examples
    --------
    >>> may_draw('def execute(x): return {"y": x * x}', '', 'task_x.py')
    False
    >>> may_draw('import model; execute = model.run', '', 'task_x.py')
    True
    """
    tree = ast.parse(source, filename)
    words = set(_words(tree))
    defined = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    defined |= {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler))}  # type: ignore[misc]
    defined |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    defined |= {(alias.asname or alias.name).partition(".")[0] for node in imports for alias in node.names}
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    unknown = used - defined - set(dir(builtins)) - {"__file__", "__name__"}
    hidden = {word for word in words if word.startswith("__")} - _IN_CLASSES
    return bool(words & _LOUD or unknown or hidden or _functions(config)) or not all(map(_is_quiet, imports))


def _words(tree: ast.AST) -> Iterator[str]:
    """Yield all names, attributes, keywords and what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.MatchClass):
            yield from node.kwd_attrs
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                yield from alias.name.split(".")


def _is_quiet(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether an import is of modules that draw nothing."""
    if isinstance(node, ast.ImportFrom):
        parts = (node.module or "").split(".")
        return not node.level and parts[0] in _QUIET and not set(parts) & _LOUD
    return all(alias.name.partition(".")[0] in _QUIET for alias in node.names)


def _functions(config: str) -> bool:
    """Whether the configuration defines functions or imports something: they are not looked into."""
    kinds = (ast.FunctionDef, ast.Lambda, ast.Import, ast.ImportFrom)
    return any(isinstance(node, kinds) for node in ast.walk(ast.parse(config)))
