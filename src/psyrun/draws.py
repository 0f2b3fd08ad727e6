"""Whether items may draw from the global random generators, which are seeded for each item then.

Seeding both takes a few microseconds, more than all else that is done about an item. The answer is no only where the
code shows it: all that ``execute`` and ``setup`` reach imports nothing but a few modules known to draw nothing, and
names neither a random generator nor a way around names.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence

from psyrun.digest import ROOTS, Module

_QUIET = {"__future__", "abc", "cmath", "collections", "copy", "dataclasses", "datetime", "decimal", "enum"}
_QUIET |= {"fractions", "functools", "itertools", "json", "math", "numbers", "numpy", "operator", "psyrun", "re"}
_QUIET |= {"string", "time", "typing", "warnings"}
_LOUD = {"random", "_random", "sys", "_sys", "os", "_os", "modules", "testing", "sampling", "map_pspace_parallel"}
_LOUD |= {"__builtins__", "__class__", "__dict__", "__getattribute__", "__globals__", "__import__", "__loader__"}
_LOUD |= {"__self__", "__subclasses__", "__spec__", "attrgetter", "breakpoint", "compile", "eval", "exec", "getattr"}
_LOUD |= {"globals", "locals", "methodcaller", "vars"}


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
    >>> may_draw('import model; def execute(x): return model.run(x)'.replace('; ', chr(10)), '', 'task_x.py')
    True
    """
    task = Module(source, filename)
    if task.is_opaque or (Module(config, filename).defined & ROOTS) - task.defined:
        return True
    reached = task.reached(ROOTS)
    unknown = task.read_by(reached) - task.defined - set(dir(builtins))
    return bool(unknown) or _draws(reached)


def _draws(statements: Sequence[ast.AST]) -> bool:
    """Whether code has a word that is not known to be quiet."""
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and node.id in _LOUD:
                return True
            if isinstance(node, ast.Attribute) and node.attr in _LOUD:
                return True
            if isinstance(node, (ast.Import, ast.ImportFrom)) and not _is_quiet(node):
                return True
    return False


def _is_quiet(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether an import is of nothing that draws."""
    names = [part for alias in node.names for part in alias.name.split(".")]
    if isinstance(node, ast.ImportFrom):
        modules = [node.module or ""] if not node.level else [""]
        names += modules[0].split(".")
    else:
        modules = [alias.name for alias in node.names]
    return all(module.partition(".")[0] in _QUIET for module in modules) and not set(names) & {*_LOUD, "*"}
