"""The code digest: what of a task file, and of the local modules that it imports, `execute` depends on.

Counted are the top-level statements that ``execute`` and ``setup`` can reach by name, statements that do something
(bare expressions, decorated definitions), the local modules that these import, and the content of ``file_dep``.
Comments, docstrings, layout, settings and helpers of ``pspace`` alone are not.
"""

from __future__ import annotations

import ast
import os
import symtable
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

ROOTS = frozenset({"execute", "setup"})
"""The functions of a task file that items run."""

_OPAQUE = {"exec", "globals", "eval", "vars", "locals", "__import__"}
# Methods that change a list, set, dict or deque and do nothing else.
_FILLERS = {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popleft", "remove"}
_FILLERS |= {"reverse", "setdefault", "sort", "update"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def code_digest(
    source: str,
    config: str,
    filename: str,
    file_dep: Iterable[str | Path],
    path: Sequence[str],
    cwd: Path = Path(),
) -> str:
    """Return the digest of a task's code, as hexadecimal text.

    Parameters
    ----------
    source, config : str
        The text of the task file, and of ``psy-conf.py``: that counts if it defines a function which the task lacks.
    filename : str
        The task file's path.
    file_dep : iterable of paths
        Files whose content counts.
    path : sequence of str
        Where modules are looked for, as ``sys.path``.
    cwd : Path
        The directory where relative paths start.

    Raises
    ------
    OSError
        A file of ``file_dep`` cannot be read.
    """
    state = blake2b(digest_size=16)
    task = Module(source, filename)
    # Values of the space may be objects of classes of this file, whose methods nobody calls by name.
    classes = {node.name for node in task.reached({"pspace"}) if isinstance(node, ast.ClassDef)}
    reached = task.reached(ROOTS | classes)
    defaults = Module(config, filename)
    inherited = (ROOTS & defaults.defined) - task.defined
    if inherited:
        reached += defaults.reached(inherited)
    for statement in reached:
        state.update(_normal(statement))
    for name, module in sorted(_local_modules(reached + task.unread_imports(), path).items()):
        state.update(b"module" + name.encode("utf-8", "surrogatepass") + _normal_file(module))
    for file in sorted(map(os.fsencode, file_dep)):
        state.update(b"file" + file + b"\0" + blake2b((cwd / os.fsdecode(file)).read_bytes()).digest())
    return state.hexdigest()


class _Statement:
    """A top-level statement, and its part in the module.

    Attributes
    ----------
    defines, changes, reads : set of str
        Globals to which it gives a value; whose value it changes or may add to; which it reads.
    acts : bool
        Whether it does something else.
    """

    def __init__(self, node: ast.stmt, lines: list[bytes]):
        self.node = node
        self.acts = _acts(node)
        self.defines: set[str] = set()
        self.reads: set[str] = set()
        hidden = _of_comprehensions(node)
        for table in _tables(symtable.symtable(_text_of(node, lines), "", "exec")):
            for symbol in table.get_symbols():
                name, of_block = symbol.get_name(), table.get_type() in ("module", "class")
                if of_block and name in hidden:
                    continue
                if (symbol.is_assigned() or symbol.is_imported()) and symbol.is_global():
                    self.defines.add(name)
                if symbol.is_referenced() and (symbol.is_global() or of_block):
                    self.reads.add(name)
        self.changes = _changed(node) & self.reads


def _text_of(node: ast.stmt, lines: list[bytes]) -> str:
    """Return the source of a statement, decorators included."""
    decorators = node.decorator_list if isinstance(node, _DEFINITIONS) else []
    first, column = (decorators[0].lineno, 0) if decorators else (node.lineno, node.col_offset)
    text = lines[first - 1 : node.end_lineno]
    text[-1] = text[-1][: node.end_col_offset]
    text[0] = text[0][column:]
    return b"\n".join(text).decode()


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for inner in table.get_children():
        yield from _tables(inner)


def _of_comprehensions(statement: ast.stmt) -> set[str]:
    """Return the variables of comprehensions, which Python 3.12 and later count to the block around them."""
    nodes = list(ast.walk(statement))
    loops = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    inside = {n for loop in nodes if isinstance(loop, loops) for n in ast.walk(loop)}
    targets = {n for loop in nodes if isinstance(loop, ast.comprehension) for n in ast.walk(loop.target)}
    outside = {n.id for n in nodes if isinstance(n, ast.Name) and n not in inside}
    return {n.id for n in targets if isinstance(n, ast.Name)} - outside


def _acts(node: ast.AST) -> bool:
    """Whether a statement, or one in its blocks, does more than to give values to names."""
    if isinstance(node, _DEFINITIONS):
        return bool(node.decorator_list)
    if isinstance(node, ast.Expr):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        prints = isinstance(called, ast.Name) and called.id == "print"
        fills = isinstance(called, ast.Attribute) and called.attr in _FILLERS and isinstance(called.value, ast.Name)
        return not (_is_text(node) or prints or fills)
    blocks = (ast.stmt, ast.ExceptHandler, ast.match_case)
    return any(_acts(inner) for inner in ast.iter_child_nodes(node) if isinstance(inner, blocks))


def _changed(statement: ast.stmt) -> set[str]:
    """Return the names of what may be changed by item, attribute or method, or be told of a subclass."""
    changed: list[ast.expr] = list(statement.bases) if isinstance(statement, ast.ClassDef) else []
    for node in ast.walk(statement):
        if isinstance(node, (ast.Attribute, ast.Subscript)):
            fills = isinstance(node, ast.Attribute) and node.attr in _FILLERS
            if fills or not isinstance(node.ctx, ast.Load):
                changed.append(node.value)
    return {name.id for root in map(_root, changed) for name in ast.walk(root) if isinstance(name, ast.Name)}


def _root(expression: ast.expr) -> ast.expr:
    while isinstance(expression, (ast.Attribute, ast.Subscript)):
        expression = expression.value
    return expression


class Module:
    """The statements of a file and what they mean to each other.

    Attributes
    ----------
    is_opaque : bool
        Whether names can mean anything: it uses ``exec``, ``globals`` or the like, or star imports.
    """

    def __init__(self, source: str, filename: str):
        tree = ast.parse(source, filename)
        body = [node for node in tree.body if not (_is_text(node) or _is_main_block(node))]
        lines = source.replace("\r\n", "\n").replace("\r", "\n").encode().split(b"\n")
        self._statements = [_Statement(node, lines) for node in body]
        used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        stars = any(alias.name == "*" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names)
        self.is_opaque = stars or bool(used & _OPAQUE)

    @property
    def defined(self) -> set[str]:
        """The names that it gives values to."""
        return set().union(*(s.defines for s in self._statements))

    def reached(self, roots: Collection[str]) -> list[ast.stmt]:
        """Return the statements that some names depend on, in the order of the file."""
        chosen = [self.is_opaque or s.acts for s in self._statements]
        wanted = set(roots)
        grown = True
        while grown:
            grown = False
            for i, statement in enumerate(self._statements):
                chosen[i] = chosen[i] or bool((statement.defines | statement.changes) & wanted)
                if chosen[i] and not statement.reads <= wanted:
                    wanted |= statement.reads
                    grown = True
        return [s.node for s, yes in zip(self._statements, chosen, strict=True) if yes]

    def unread_imports(self) -> list[ast.stmt]:
        """Return the imports of names that nothing reads: they are there for what importing does."""
        read = set().union(*(s.reads for s in self._statements))
        imports = [s for s in self._statements if isinstance(s.node, (ast.Import, ast.ImportFrom))]
        return [s.node for s in imports if not s.defines & read]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_main_block(node: ast.stmt) -> bool:
    """Whether this is ``if __name__ == '__main__':``, which a task file does not enter."""
    return isinstance(node, ast.If) and not node.orelse and ast.unparse(node.test) == "__name__ == '__main__'"


def _normal(node: ast.AST) -> bytes:
    """Return what stays the same when comments, docstrings and layout change."""
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list):
            inner.body = [s for s in body if not _is_text(s)] or [ast.Pass()]  # type: ignore[attr-defined]
        elif isinstance(inner, ast.JoinedStr):  # Python 3.12.1 has empty texts in it
            inner.values = [v for v in inner.values if not (isinstance(v, ast.Constant) and v.value == "")]
    return _dumped(node).encode("utf-8", "surrogatepass")


def _normal_file(file: Path) -> bytes:
    content = file.read_bytes()
    try:
        return _normal(ast.parse(content, str(file)))
    except (SyntaxError, ValueError):  # compiled, or for another version of Python
        return blake2b(content).digest()


def _dumped(root: ast.AST) -> str:
    """Return the same text in every version of Python: new kinds of fields are empty in old code.

    Without recursion, as a sum of many terms is a tree as deep.
    """
    texts: list[str] = []
    todo: list[tuple[bool, Any]] = [(False, root)]
    while todo:
        is_text, item = todo.pop()
        if is_text or not isinstance(item, (ast.AST, list)):
            texts.append(item if is_text else repr(item))
            continue
        inside = [("", value) for value in item] if isinstance(item, list) else list(_fields(item))
        texts.append("[" if isinstance(item, list) else f"{type(item).__name__}(")
        todo.append((True, "]" if isinstance(item, list) else ")"))
        for i, (name, value) in reversed(list(enumerate(inside))):
            todo += [(False, value), (True, f",{name}" if i else name)]
    return "".join(texts)


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if value not in (None, []) and name != "kind":
            yield f"{name}=", value


def _local_modules(statements: Iterable[ast.AST], path: Sequence[str]) -> dict[str, Path]:
    """Return names and files of the user's own modules that statements import, and those that these import."""
    found: dict[str, Path] = {}
    open_ = {name for statement in statements for name in _imported(statement, "")}
    seen: set[str] = set()
    while open_ - seen:
        name = min(open_ - seen)
        seen.add(name)
        for module, file, package in _files_of(name, path):
            if module not in found:
                found[module] = file
                open_ |= _imports_of_file(file, package)
    return found


def _imports_of_file(file: Path, package: str) -> set[str]:
    try:
        return _imported(ast.parse(file.read_bytes()), package)
    except (SyntaxError, ValueError):
        return set()


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


def _files_of(name: str, path: Sequence[str]) -> list[tuple[str, Path, str]]:
    """Return name, file and package of a module and of the packages around it, as far as they are the user's."""
    files: list[tuple[str, Path, str]] = []
    where: Sequence[str] | None = path
    full = ""
    for part in name.split("."):
        full = f"{full}.{part}" if full else part
        spec = _spec(full, where)
        if spec is None:
            break
        where = spec.submodule_search_locations
        if spec.has_location and spec.origin and is_local(Path(spec.origin)):
            files.append((full, Path(spec.origin), full if where is not None else full.rpartition(".")[0]))
        if where is None:
            break
    return files


def _spec(name: str, where: Sequence[str] | None) -> ModuleSpec | None:
    """Find a module without importing anything; the other finders know packages installed as editable."""
    for finder in (PathFinder, *sys.meta_path):
        spec: ModuleSpec | None = finder.find_spec(name, where) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None


def is_local(file: Path) -> bool:
    """Whether a file is the user's: not of the standard library or of an installed package.

    What else is below the interpreter's prefix can be the user's: a project may be an environment of venv or conda.
    """
    file = file.resolve()
    if {"site-packages", "dist-packages"} & set(file.parts):
        return False
    installed = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return not any(file.is_relative_to(Path(root).resolve()) for root in installed)
