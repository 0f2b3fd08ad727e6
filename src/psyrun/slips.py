"""Names in a task file that are options but for a slip of the keyboard."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from psyrun.options import OPTIONS


def slip(source: ast.Module) -> tuple[int, str, str] | None:
    """Return line, name and option for the first global that nothing reads and that is one slip from an option."""
    read = {n.id for n in ast.walk(source) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for statement in source.body:
        if isinstance(statement, ast.FunctionDef) and one_slip(statement.name, "execute"):
            return statement.lineno, statement.name, "execute"
        for target in _outside_definitions(statement):
            if not (isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)):
                continue
            if target.id in OPTIONS or target.id in read:
                continue
            meant = [option for option in OPTIONS if one_slip(target.id, option)]
            if meant:
                return target.lineno, target.id, meant[0]
    return None


def _outside_definitions(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all inside it that is not inside a function or class. Long sums are deep: no recursion."""
    todo = [node]
    while todo:
        node = todo.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield node
            todo += reversed(list(ast.iter_child_nodes(node)))


def one_slip(typed: str, meant: str) -> bool:
    """Whether one letter too many, too few, wrong or swapped with the next makes one word of the other.

    >>> one_slip('max_job', 'max_jobs'), one_slip('pspcae', 'pspace'), one_slip('n', 'name')
    (True, True, False)
    """
    if typed == meant:
        return False
    start = 0
    while start < min(len(typed), len(meant)) and typed[start] == meant[start]:
        start += 1
    a, b = typed[start:], meant[start:]
    swapped = len(a) > 1 and a[1::-1] == b[:2] and a[2:] == b[2:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or swapped
