"""The code digest: what of a task file, and of the local modules that it imports, `execute` depends on.

Counted are the top-level statements that ``execute`` and ``setup`` can reach by name, bare expression statements,
the local modules that these import, and the content of ``file_dep``. Comments, docstrings, layout, settings and
helpers of ``pspace`` alone are not.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from importlib.machinery import PathFinder
from pathlib import Path

_ROOTS = ("execute", "setup")
_OPAQUE = {"exec", "globals", "eval", "vars", "locals", "__import__"}


def code_digest(source: str, filename: str, file_dep: Iterable[str | Path], path: Sequence[str]) -> str:
    """Return the digest of a task's code, as hexadecimal text.

    Parameters
    ----------
    source : str
        The text of the task file.
    filename : str
        Its path: relative names in ``file_dep`` start from the current directory.
    file_dep : iterable of paths
        Files whose content counts.
    path : sequence of str
        Where modules are looked for, as ``sys.path``.

    Raises
    ------
    OSError
        A file of ``file_dep`` cannot be read.
    """
    state = blake2b(digest_size=16)
    reached = _reached(ast.parse(source, filename))
    for statement in reached:
        state.update(_normal(statement))
    for module in sorted(_local_modules(reached, path)):
        state.update(b"module" + _normal(ast.parse(module.read_bytes(), str(module))))
    for file in sorted(map(str, file_dep)):
        state.update(b"file" + file.encode() + b"\0" + blake2b(Path(file).read_bytes()).digest())
    return state.hexdigest()


def _reached(module: ast.Module) -> list[ast.stmt]:
    """Return the statements that count, in the order of the file."""
    names = {n.id for n in ast.walk(module) if isinstance(n, ast.Name)}
    stars = any(alias.name == "*" for n in ast.walk(module) if isinstance(n, ast.ImportFrom) for alias in n.names)
    if stars or names & _OPAQUE:
        return module.body
    bound = [_bound(statement) for statement in module.body]
    chosen = {i for i, s in enumerate(module.body) if isinstance(s, ast.Expr) and not _is_text(s)}
    wanted = set(_ROOTS).union(*(_read(module.body[i]) for i in chosen))
    while True:
        more = {i for i, names in enumerate(bound) if names & wanted} - chosen
        if not more:
            return [module.body[i] for i in sorted(chosen)]
        chosen |= more
        wanted = wanted.union(*(_read(module.body[i]) for i in more))


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement defines, or changes by item or attribute."""
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            names.add(node.id)
        elif isinstance(node, (ast.Attribute, ast.Subscript)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            names |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return names


def _read(statement: ast.stmt) -> set[str]:
    return {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _normal(node: ast.AST) -> bytes:
    """Return what stays the same when comments, docstrings and layout change."""
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list) and body and isinstance(inner, _WITH_DOCSTRING) and _is_text(body[0]):
            inner.body = body[1:] or [ast.Pass()]
    return _dumped(node).encode("utf-8", "surrogatepass")


def _dumped(node: object) -> str:
    """Return the same text in every version of Python: new kinds of fields are empty in old code."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind")
        return f"{type(node).__name__}({','.join(f'{name}={_dumped(value)}' for name, value in fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_dumped, node))}]"
    return repr(node)


_WITH_DOCSTRING = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _local_modules(statements: Iterable[ast.AST], path: Sequence[str]) -> set[Path]:
    """Return the files of the user's own modules that statements import, and those that these import."""
    found: set[Path] = set()
    open_ = [name for statement in statements for name in _imported(statement, "")]
    seen = set()
    while open_:
        name = open_.pop()
        if name in seen:
            continue
        seen.add(name)
        for file, package in _files_of(name, path):
            if file in found:
                continue
            found.add(file)
            try:
                tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError):
                continue
            open_ += _imported(tree, package)
    return found


def _imported(node: ast.AST, package: str) -> set[str]:
    """Return the dotted names that code imports; relative ones are completed with its package."""
    names: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            names |= {alias.name for alias in inner.names}
        elif isinstance(inner, ast.ImportFrom):
            parts = package.split(".") if package else []
            kept = parts[: len(parts) - inner.level + 1] if inner.level else []
            base = ".".join([*kept, *([inner.module] if inner.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in inner.names}
    return {name for name in names if name and name.partition(".")[0] != "psyrun"}


def _files_of(name: str, path: Sequence[str]) -> list[tuple[Path, str]]:
    """Return the source files of a module and of the packages around it, with the package each belongs to."""
    files: list[tuple[Path, str]] = []
    where: Sequence[str] | None = path
    full = ""
    for part in name.split("."):
        full = f"{full}.{part}" if full else part
        spec = PathFinder.find_spec(full, where)
        if spec is None:
            break
        where = spec.submodule_search_locations
        if spec.origin and spec.origin.endswith(".py") and _is_local(Path(spec.origin)):
            files.append((Path(spec.origin), full if where is not None else full.rpartition(".")[0]))
        if where is None:
            break
    return files


def _is_local(file: Path) -> bool:
    """Whether a file is the user's: not of the interpreter, its standard library or its packages."""
    file = file.resolve()
    if {"site-packages", "dist-packages"} & set(file.parts):
        return False
    installed = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sys.prefix}
    return not any(file.is_relative_to(Path(root).resolve()) for root in installed)
